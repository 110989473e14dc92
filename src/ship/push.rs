//! To registries: blobs as they come, many at a time, each once a repository; then what refers to them, and the
//! tags last of all.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Semaphore;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinSet;

use super::places::{Places, same_repository};
use crate::model::{Blob, BlobSource};
use crate::registry::{Reference, Registry, Sent};
use crate::store::Store;
use crate::util::report::Progress;
use crate::util::{Digest, Error, Result};

/// Blobs that are sent at once. Four keep a link busy without tripping the limits of registries (what
/// go-containerregistry does too).
const PARALLEL_UPLOADS: usize = 4;

/// What went to the registries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Delivered {
    /// Blobs in all, counted once a repository.
    pub blobs: usize,
    /// Bytes of blobs that were sent.
    pub bytes: u64,
    /// Blobs that a registry took from another of its repositories.
    pub mounted: u64,
    /// Whether a manifest or a tag was new to a registry.
    pub moved: bool,
}

/// Sends blobs and documents to the repositories of all targets.
pub struct Pusher {
    registry: Registry,
    store: Store,
    targets: Vec<Reference>,
    repositories: Arc<[Reference]>,
    seen: BTreeSet<Digest>,
    permits: Arc<Semaphore>,
    uploads: JoinSet<Result<()>>,
    progress: Arc<dyn Progress>,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    bytes: AtomicU64,
    mounted: AtomicU64,
}

impl Pusher {
    /// A pusher for these references. Blobs that the store has are read from there, whatever their source.
    pub fn new(registry: &Registry, store: &Store, targets: &[Reference], progress: Arc<dyn Progress>) -> Self {
        Self {
            registry: registry.clone(),
            store: store.clone(),
            targets: targets.to_vec(),
            repositories: repositories(targets).into(),
            seen: BTreeSet::new(),
            permits: Arc::new(Semaphore::new(PARALLEL_UPLOADS)),
            uploads: JoinSet::new(),
            progress,
            counts: Arc::default(),
        }
    }

    /// Sends each blob as it comes, until no more will come.
    ///
    /// # Errors
    /// Those of the first upload that fails: at once, not after everything has come.
    pub async fn receive(mut self, mut ready: UnboundedReceiver<Blob>) -> Result<Self> {
        loop {
            tokio::select! {
                blob = ready.recv() => match blob {
                    Some(blob) => self.begin(blob),
                    None => return Ok(self),
                },
                Some(upload) = self.uploads.join_next() => done(upload)?,
            }
        }
    }

    /// Begins to send a blob, unless it was begun before.
    pub fn begin(&mut self, blob: Blob) {
        if !self.seen.insert(blob.digest) {
            return;
        }
        self.progress.grow(blob.size * self.repositories.len() as u64);
        let upload = Upload {
            registry: self.registry.clone(),
            store: self.store.clone(),
            repositories: Arc::clone(&self.repositories),
            progress: Arc::clone(&self.progress),
            counts: Arc::clone(&self.counts),
        };
        let permits = Arc::clone(&self.permits);
        self.uploads.spawn(async move {
            let _permit = permits.acquire_owned().await.map_err(|error| Error::bug("no uploads").caused_by(error))?;
            upload.run(blob).await
        });
    }

    /// Waits for the blobs, then sends manifests and indexes: what is referred to by digest first, the last one under
    /// the targets' tags.
    ///
    /// # Errors
    /// When a registry refuses or does not answer: no tag was moved then that stands for anything incomplete.
    pub async fn finish(mut self, documents: &[Blob]) -> Result<Delivered> {
        while let Some(upload) = self.uploads.join_next().await {
            done(upload)?;
        }
        let Some((root, children)) = documents.split_last() else {
            return Err(Error::bug("there is no manifest to push"));
        };
        let mut moved = false;
        for repository in self.repositories.iter() {
            for child in children {
                moved |= self.put(&by_digest(repository, child.digest), child).await?;
            }
        }
        for target in &self.targets {
            moved |= self.put(target, root).await?;
        }
        Ok(Delivered {
            blobs: self.seen.len() * self.repositories.len(),
            bytes: self.counts.bytes.load(Ordering::Relaxed),
            mounted: self.counts.mounted.load(Ordering::Relaxed),
            moved,
        })
    }

    async fn put(&self, target: &Reference, document: &Blob) -> Result<bool> {
        let BlobSource::Bytes(bytes) = &document.source else {
            return Err(Error::bug("a manifest that is not in memory"));
        };
        let sent = self.registry.push_manifest(target, &document.media_type, bytes).await?;
        Ok(matches!(sent, Sent::Uploaded(_)))
    }
}

fn done(upload: Result<Result<()>, tokio::task::JoinError>) -> Result<()> {
    upload.map_err(|error| Error::bug("an upload ended early").caused_by(error))?
}

/// The repositories of references, each once.
pub(super) fn repositories(targets: &[Reference]) -> Vec<Reference> {
    let mut repositories: Vec<Reference> = Vec::new();
    for target in targets {
        if !repositories.iter().any(|known| same_repository(known, target)) {
            repositories.push(target.clone());
        }
    }
    repositories
}

/// The reference to something in a repository by its digest.
pub(super) fn by_digest(repository: &Reference, digest: Digest) -> Reference {
    Reference::with_digest(repository.registry().into(), repository.repository().into(), digest.to_string())
}

/// One blob on its way to all repositories.
struct Upload {
    registry: Registry,
    store: Store,
    repositories: Arc<[Reference]>,
    progress: Arc<dyn Progress>,
    counts: Arc<Counts>,
}

impl Upload {
    /// One repository after the other: what is in the first can be mounted in the others of its registry.
    async fn run(&self, blob: Blob) -> Result<()> {
        let mut places = Places::of(&self.store, blob.digest);
        if let BlobSource::Registry(reference) = &blob.source {
            places.add(Registry::parse(reference)?);
        }
        let blob = self.nearest(blob);
        for repository in self.repositories.iter() {
            let sources = places.beside(repository);
            let sent = self.registry.push_blob(repository, &blob, &sources, self.progress.as_ref()).await?;
            match sent {
                Sent::Uploaded(bytes) => {
                    self.counts.bytes.fetch_add(bytes, Ordering::Relaxed);
                }
                Sent::Existed => self.progress.advance(blob.size),
                Sent::Mounted => {
                    self.counts.mounted.fetch_add(1, Ordering::Relaxed);
                    self.progress.advance(blob.size);
                }
            }
            places.add(repository.clone());
        }
        places.remember(&self.store);
        Ok(())
    }

    /// A blob of another registry that is in the store, too, is read from there.
    fn nearest(&self, mut blob: Blob) -> Blob {
        if matches!(blob.source, BlobSource::Registry(_)) && self.store.has_blob(&blob.digest, blob.size) {
            blob.source = BlobSource::File(self.store.blob(&blob.digest));
        }
        blob
    }
}
