//! What a build must know of a base's file system: root links, glibc, shell, users.
//!
//! The layers are streamed once, the topmost first, so that what an upper layer hides does not count; nothing
//! is unpacked. All of them are read, since any of them may hold a link in the root. What was found is kept in
//! the store under the base's diff IDs.

mod glibc;
mod tree;

use std::io::Read;
use std::path::{Path, PathBuf};

use tar::{Archive, EntryType};

use self::tree::{Kind, Layer, Tree};
use super::{Base, Fetch, codec, copy, localise};
use crate::model::{BaseFacts, BlobSource, LayerBlob};
use crate::store::{RecordKind, Store};
use crate::util::{DiffId, Digest, Error, Result, ResultExt as _};

/// Raised whenever the same base would give other facts.
const VERSION: u32 = 1;
/// The largest passwd, group and C library that are read, in bytes.
const TEXT_LIMIT: u64 = 1 << 20;
const LIBRARY_LIMIT: u64 = 32 << 20;

/// Finds the facts of a base. Layers that are still in a registry are fetched into the store, but only when
/// the store does not know the facts yet. The layers' digests and diff IDs are verified on the way.
///
/// # Errors
/// When a layer cannot be fetched or read, or is not what its digest says.
pub async fn probe(base: &Base, store: &Store, fetch: &dyn Fetch) -> Result<BaseFacts> {
    if base.layers.is_empty() {
        return Ok(BaseFacts::default());
    }
    let key = key(&base.layers);
    if let Some(facts) = store.record(RecordKind::Base, &key) {
        return Ok(facts);
    }
    let fetched = localise::fetch_all(base.layers.iter(), fetch).await?;
    let layers = base.layers.iter().rev().map(|layer| {
        let path = match &layer.blob.source {
            BlobSource::Registry(_) => fetched.get(&layer.blob.digest).cloned(),
            _ => Some(copy::file_of(&layer.blob)?.to_owned()),
        };
        let path = path.ok_or_else(|| Error::bug(format!("the layer {} was not fetched", layer.blob.digest)))?;
        Ok((path, layer.blob.digest, layer.diff_id))
    });
    let layers: Vec<(PathBuf, Digest, DiffId)> = layers.collect::<Result<_>>()?;
    // Decompresses the whole base: not on the runtime's own threads.
    let facts = tokio::task::spawn_blocking(move || read(&layers))
        .await
        .map_err(|error| Error::bug("the base could not be read").caused_by(error))?
        .context(|| match base.reference.is_empty() {
            true => "the base cannot be read".to_owned(),
            false => format!("the base `{}` cannot be read", base.reference),
        })?;
    store.remember(RecordKind::Base, &key, &facts)?;
    Ok(facts)
}

/// What the facts depend on: the layers' contents and this code.
fn key(layers: &[LayerBlob]) -> Digest {
    let mut text = format!("base facts {VERSION}\n");
    for layer in layers {
        text.push_str(&format!("{}\n", layer.diff_id));
    }
    Digest::of(text)
}

/// Reads the layers, topmost first.
fn read(layers: &[(PathBuf, Digest, DiffId)]) -> Result<BaseFacts> {
    let mut tree = Tree::default();
    for (path, digest, diff_id) in layers {
        tree.lay_below(scan(path, digest, diff_id)?);
    }
    Ok(tree.facts())
}

fn scan(path: &Path, digest: &Digest, diff_id: &DiffId) -> Result<Layer> {
    codec::read_layer(path, digest, diff_id, |plain| {
        let mut layer = Layer::default();
        for entry in Archive::new(plain).entries()? {
            let mut entry = entry?;
            let Ok(path) = String::from_utf8(entry.path_bytes().into_owned()) else { continue };
            let Some(path) = tree::normalise(&path) else { continue };
            if layer.hide(&path)? {
                continue;
            }
            let kind = match entry.header().entry_type() {
                EntryType::Directory => Kind::Folder,
                EntryType::Symlink => Kind::Symlink(link_target(&entry)),
                EntryType::Link => Kind::File { text: None, glibc: glibc::of_name(&link_target(&entry)) },
                EntryType::XGlobalHeader => continue,
                _ => file(&path, &mut entry)?,
            };
            layer.add(path, kind)?;
        }
        Ok(layer)
    })
}

fn link_target<R: Read>(entry: &tar::Entry<'_, R>) -> String {
    String::from_utf8_lossy(&entry.link_name_bytes().unwrap_or_default()).into_owned()
}

fn file<R: Read>(path: &str, entry: &mut tar::Entry<'_, R>) -> Result<Kind> {
    let mut kind = Kind::File { text: None, glibc: None };
    if matches!(path, "etc/passwd" | "etc/group") {
        let mut bytes = Vec::new();
        entry.take(TEXT_LIMIT).read_to_end(&mut bytes)?;
        kind = Kind::File { text: Some(String::from_utf8_lossy(&bytes).into_owned()), glibc: None };
    } else if glibc::is_library(path) {
        let mut bytes = Vec::new();
        entry.take(LIBRARY_LIMIT).read_to_end(&mut bytes)?;
        kind = Kind::File { text: None, glibc: glibc::of_name(path).or_else(|| glibc::of_library(&bytes)) };
    }
    Ok(kind)
}
