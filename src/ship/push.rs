//! To registries: blobs as they come, many at a time, each once a repository; then what refers to them, and the
//! tags last of all.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use tokio::sync::Semaphore;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinSet;

use super::places::{Places, same_repository};
use crate::model::{Blob, BlobSource};
use crate::registry::{Gone, Reference, Registry, Sent};
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

/// Blobs that a registry had a moment ago.
#[derive(Debug)]
pub struct Lost {
    /// Which.
    pub digests: BTreeSet<Digest>,
    /// How that was noticed.
    pub error: Error,
}

/// Sends blobs and documents to the repositories of all targets.
pub struct Pusher {
    registry: Registry,
    store: Store,
    targets: Vec<Reference>,
    repositories: Arc<[Reference]>,
    cache: Option<Reference>,
    sent: BTreeMap<Digest, Blob>,
    lost: Option<Lost>,
    permits: Arc<Semaphore>,
    uploads: JoinSet<(Digest, Result<()>)>,
    progress: Arc<dyn Progress>,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    bytes: AtomicU64,
    mounted: AtomicU64,
    /// What a repository did not have.
    new: Mutex<BTreeSet<Digest>>,
}

impl Pusher {
    /// A pusher for these references. Blobs that the store has are read from there, whatever their source.
    pub fn new(registry: &Registry, store: &Store, targets: &[Reference], progress: Arc<dyn Progress>) -> Self {
        Self {
            registry: registry.clone(),
            store: store.clone(),
            targets: targets.to_vec(),
            repositories: repositories(targets).into(),
            cache: None,
            sent: BTreeMap::new(),
            lost: None,
            permits: Arc::new(Semaphore::new(PARALLEL_UPLOADS)),
            uploads: JoinSet::new(),
            progress,
            counts: Arc::default(),
        }
    }

    /// Tries this repository, too, where a blob may be mounted from.
    #[must_use]
    pub fn mounting_from(self, cache: Option<&Reference>) -> Self {
        Self { cache: cache.cloned(), ..self }
    }

    /// Sends each blob as it comes, until no more will come.
    ///
    /// # Errors
    /// Those of the first upload that fails: at once, not after everything has come. That a blob is lost is told by
    /// [`Self::deliver`].
    pub async fn receive(&mut self, mut ready: UnboundedReceiver<Blob>) -> Result<()> {
        loop {
            tokio::select! {
                blob = ready.recv() => match blob {
                    Some(blob) => self.begin(blob),
                    None => return Ok(()),
                },
                Some(upload) = self.uploads.join_next() => self.done(upload)?,
            }
        }
    }

    /// Begins to send a blob, unless it was begun before.
    pub fn begin(&mut self, blob: Blob) {
        if self.sent.contains_key(&blob.digest) {
            return;
        }
        self.sent.insert(blob.digest, blob.clone());
        self.progress.grow(blob.size * self.repositories.len() as u64);
        let upload = Upload {
            registry: self.registry.clone(),
            store: self.store.clone(),
            repositories: Arc::clone(&self.repositories),
            cache: self.cache.clone(),
            progress: Arc::clone(&self.progress),
            counts: Arc::clone(&self.counts),
        };
        let permits = Arc::clone(&self.permits);
        self.uploads.spawn(async move {
            let digest = blob.digest;
            match permits.acquire_owned().await {
                Ok(_permit) => (digest, upload.run(blob).await),
                Err(error) => (digest, Err(Error::bug("no uploads").caused_by(error))),
            }
        });
    }

    /// The blobs so far that one of the repositories did not have: they were sent or mounted.
    pub fn new_blobs(&self) -> BTreeSet<Digest> {
        self.counts.new.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for the blobs, then sends manifests and indexes: what is referred to by digest first, the last one under
    /// the targets' tags.
    ///
    /// # Errors
    /// When a registry refuses or does not answer: no tag was moved then that stands for anything incomplete.
    pub async fn finish(mut self, documents: &[Blob]) -> Result<Delivered> {
        self.deliver(documents).await?.map_err(|lost| lost.error)
    }

    /// The same, for who can make blobs again that were lost between two requests (a clean-up of the registry): those are
    /// told, nothing that needs them was sent, and all can be sent again.
    ///
    /// # Errors
    /// As above.
    pub async fn deliver(&mut self, documents: &[Blob]) -> Result<Result<Delivered, Lost>> {
        while let Some(upload) = self.uploads.join_next().await {
            self.done(upload)?;
        }
        let lost = match self.lost.take() {
            Some(lost) => lost,
            None => match self.put_all(documents).await {
                Err(error) if Gone::is_cause_of(&error) => Lost { digests: self.missing().await?, error },
                put => return put.map(Ok),
            },
        };
        self.sent.clear();
        Ok(Err(lost))
    }

    async fn put_all(&self, documents: &[Blob]) -> Result<Delivered> {
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
            blobs: self.sent.len() * self.repositories.len(),
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

    /// What a repository does not have of all that was sent.
    async fn missing(&self) -> Result<BTreeSet<Digest>> {
        let pairs =
            self.repositories.iter().flat_map(|repository| self.sent.values().map(move |blob| (repository, blob)));
        let questions: Vec<_> = pairs
            .map(|(repository, blob)| async move {
                let there = self.registry.has_blob(repository, blob).await?;
                Ok::<_, Error>((!there).then_some(blob.digest))
            })
            .collect();
        let missing = stream::iter(questions).buffer_unordered(PARALLEL_UPLOADS);
        missing.try_filter_map(|digest| std::future::ready(Ok(digest))).try_collect().await
    }

    fn done(&mut self, upload: Result<(Digest, Result<()>), tokio::task::JoinError>) -> Result<()> {
        let (digest, upload) = upload.map_err(|error| Error::bug("an upload ended early").caused_by(error))?;
        match upload {
            Err(error) if Gone::is_cause_of(&error) => {
                self.lost.get_or_insert(Lost { digests: BTreeSet::new(), error }).digests.insert(digest);
                Ok(())
            }
            done => done,
        }
    }
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
    cache: Option<Reference>,
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
            let mut sources = places.beside(repository);
            sources.extend(self.cache.clone());
            let sent = self.registry.push_blob(repository, &blob, &sources, self.progress.as_ref()).await;
            if sent.as_ref().is_err_and(Gone::is_cause_of) && blob.source.file() == Some(&self.store.blob(&blob.digest))
            {
                // What is damaged goes, so that it is made or fetched again.
                let _ = self.store.find_blob(&blob.digest, blob.size).await;
            }
            let sent = sent?;
            if !matches!(sent, Sent::Existed) {
                self.counts.new.lock().unwrap_or_else(PoisonError::into_inner).insert(blob.digest);
            }
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
