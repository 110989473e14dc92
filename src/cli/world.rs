//! What the commands reach beyond their arguments: the store, the registries, the reporter.

use std::io::Write as _;
use std::path::PathBuf;

use futures::FutureExt as _;
use futures::future::BoxFuture;

use super::args::Global;
use crate::image::{Fetch, Fetched};
use crate::registry::{Reference, Registry, RegistryOptions};
use crate::store::{CacheKey, Store};
use crate::util::error::ResultExt as _;
use crate::util::report::SharedReporter;
use crate::util::{Digest, Error, Result};

/// What a command reaches beyond its arguments.
pub struct World {
    /// The local store.
    pub store: Store,
    /// The client for all registries.
    pub registry: Registry,
    /// Takes what there is to tell.
    pub reporter: SharedReporter,
    /// Whether the network may not be used.
    pub offline: bool,
    /// The cache registry, if what it says is believed.
    pub cache: Option<Reference>,
}

impl World {
    /// What a command reaches, with the store in `cache`.
    ///
    /// # Errors
    /// When the store or what registries are spoken to with cannot be used.
    pub fn open(
        cache: &CachePlace,
        registries: RegistryOptions,
        reporter: SharedReporter,
        offline: bool,
    ) -> Result<Self> {
        let registries = RegistryOptions { reporter: Some(SharedReporter::clone(&reporter)), ..registries };
        let store = cache.open()?.telling(SharedReporter::clone(&reporter));
        Ok(Self { store, registry: Registry::new(registries)?, reporter, offline, cache: None })
    }

    /// A manifest by digest may be in the store already: bases are pinned.
    fn stored_manifest(&self, reference: &str) -> Option<Fetched> {
        let digest: Digest = reference.split_once('@')?.1.parse().ok()?;
        let path = self.store.blob(&digest);
        // A layer may have this digest, too: only as much as a manifest may have.
        let is_large = std::fs::metadata(&path).is_ok_and(|it| it.is_file() && it.len() > 8 << 20);
        if is_large || !self.store.is_whole(&path, &digest) {
            return None;
        }
        let bytes = fs_err::read(&path).ok().filter(|bytes| Digest::of(bytes) == digest)?;
        // Which is optional in manifests.
        let document: serde_json::Value = serde_json::from_slice(&bytes).ok()?;
        let media_type = document.get("mediaType").and_then(|it| it.as_str()).unwrap_or_default().to_owned();
        Some(Fetched { bytes, digest, media_type })
    }

    fn refuse_offline(&self, reference: &str) -> Result<()> {
        if !self.offline {
            return Ok(());
        }
        Err(Error::user(format!("`{reference}` is in a registry, and the network may not be used"))
            .hint("leave out `--offline`, or give the base as `oci:FOLDER`"))
    }
}

impl Fetch for World {
    fn manifest<'a>(&'a self, reference: &'a str) -> BoxFuture<'a, Result<Fetched>> {
        async move {
            if let Some(stored) = self.stored_manifest(reference) {
                return Ok(stored);
            }
            self.refuse_offline(reference)?;
            let fetched = self.registry.manifest(&Registry::parse(reference)?).await?;
            let mut blob = self.store.new_blob()?;
            blob.write_all(&fetched.bytes)?;
            blob.finish(Some(&fetched.digest))?;
            Ok(Fetched { bytes: fetched.bytes.to_vec(), digest: fetched.digest, media_type: fetched.media_type })
        }
        .boxed()
    }

    fn blob<'a>(&'a self, reference: &'a str, digest: &'a Digest, size: u64) -> BoxFuture<'a, Result<PathBuf>> {
        async move {
            if let Some(path) = self.store.find_blob(digest, size).await {
                return Ok(path);
            }
            self.refuse_offline(reference)?;
            let reference = Registry::parse(reference)?;
            self.registry
                .fetch_blob(&reference, digest, size, &self.store)
                .await
                .context(|| format!("cannot fetch {digest} of `{reference}`"))
        }
        .boxed()
    }
}

/// The store's folder, and the key that vouches for what is derived in it.
#[derive(Debug, Clone)]
pub struct CachePlace {
    /// The folder.
    pub folder: PathBuf,
    /// Of `--cache-key`.
    pub key: Option<CacheKey>,
}

impl CachePlace {
    /// What the flags say.
    ///
    /// # Errors
    /// As [`cache_dir`]; a key that cannot be read, or is none.
    pub fn of(global: &Global) -> Result<Self> {
        let key = global.cache_key.as_deref().map(CacheKey::read).transpose()?;
        Ok(Self { folder: cache_dir(global)?, key })
    }

    /// Opens the store.
    ///
    /// # Errors
    /// When it cannot be used.
    pub fn open(&self) -> Result<Store> {
        Ok(Store::open(&self.folder)?.with_key(self.key.clone()))
    }
}

/// The store's folder: the flag, else the user's cache folder.
///
/// # Errors
/// When there is neither.
pub fn cache_dir(global: &Global) -> Result<PathBuf> {
    if let Some(folder) = &global.cache_dir {
        return Ok(folder.clone());
    }
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path: &PathBuf| path.is_absolute());
    absolute("XDG_CACHE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".cache")))
        .map(|folder| folder.join("condaimg"))
        .ok_or_else(|| Error::usage("there is no HOME to keep a cache in").hint("set `--cache-dir`"))
}
