//! Noting layers in a cache registry, and putting them there.

use futures::{Stream, StreamExt as _, TryStreamExt as _, stream};

use super::entry::{self, Entry};
use crate::image;
use crate::model::{Blob, BlobSource};
use crate::registry::{Gone, Reference, Registry, Sent};
use crate::ship::copy::bytes_of;
use crate::ship::places::Places;
use crate::store::Store;
use crate::util::Result;
use crate::util::report::Silent;

/// Layers that are noted at once: as many as blobs are sent to a target at once, for the same reasons.
const PARALLEL: usize = 4;

/// How often a request is made at most: nothing depends on the cache.
const ATTEMPTS: u32 = 4;

/// A layer to be noted.
#[derive(Debug, Clone)]
pub struct NewEntry {
    /// What is noted.
    pub entry: Entry,
    /// Its bytes, wherever they are.
    pub blob: Blob,
    /// Whether it was made just now: it is put there whatever is noted of it, since that may be wrong.
    pub made: bool,
}

/// Who writes to one cache registry.
#[derive(Debug, Clone)]
pub struct CatalogWriter {
    registry: Registry,
    store: Store,
    cache: Reference,
}

impl CatalogWriter {
    /// A writer with a retry budget of its own, so that a cache that fails takes nothing from the push.
    pub fn new(registry: &Registry, store: &Store, cache: &Reference) -> Self {
        Self { registry: registry.apart(ATTEMPTS), store: store.clone(), cache: cache.clone() }
    }

    /// Notes layers as they come, and puts them there; those that are noted already cost a question. Returns how many
    /// entries were written. The first is written alone: what answers it with a refusal is not asked again.
    ///
    /// # Errors
    /// When the registry refuses or does not answer.
    pub async fn note(&self, layers: impl Stream<Item = NewEntry>) -> Result<usize> {
        let mut layers = std::pin::pin!(layers);
        let Some(first) = layers.next().await else { return Ok(0) };
        let mut written = usize::from(self.note_one(first).await?);
        let mut notes = layers.map(|layer| self.note_one(layer)).buffer_unordered(PARALLEL);
        while let Some(new) = notes.try_next().await? {
            written += usize::from(new);
        }
        Ok(written)
    }

    async fn note_one(&self, NewEntry { entry, blob, made }: NewEntry) -> Result<bool> {
        let artifact = image::lone_artifact(entry::TYPE, &blob, &entry.annotations())?;
        let reference = entry::reference(&self.cache, &entry.key);
        if !made && self.registry.tag_digest(&reference).await? == Some(artifact.manifest.digest) {
            return Ok(false);
        }
        let mut places = Places::of(&self.store, blob.digest);
        if let BlobSource::Registry(at) = &blob.source {
            places.add(Registry::parse(at)?);
        }
        match self.registry.push_blob(&reference, &blob, &places.beside(&reference), &Silent).await {
            // It is made again, and comes once more.
            Err(error) if Gone::is_cause_of(&error) => return Ok(false),
            sent => sent?,
        };
        self.registry.push_blob(&reference, &artifact.config, &[], &Silent).await?;
        let manifest = &artifact.manifest;
        let sent = self.registry.push_manifest(&reference, &manifest.media_type, bytes_of(manifest)?).await?;
        Ok(matches!(sent, Sent::Uploaded(_)))
    }
}

/// The entries of a channel, until nobody can send any more.
pub fn arriving(entries: tokio::sync::mpsc::UnboundedReceiver<NewEntry>) -> impl Stream<Item = NewEntry> {
    stream::unfold(entries, |mut entries| async move { Some((entries.recv().await?, entries)) })
}
