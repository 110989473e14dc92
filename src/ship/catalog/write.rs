//! Noting layers in a cache registry, and putting them there.

use std::collections::BTreeMap;

use futures::{Stream, StreamExt as _, TryStreamExt as _, stream};

use super::entry::{self, Entry};
use super::seal::Said;
use crate::image::{self, Artifact};
use crate::model::{Blob, BlobSource};
use crate::registry::{Gone, Reference, Registry, Sent};
use crate::ship::copy::bytes_of;
use crate::ship::places::Places;
use crate::store::{CacheKey, Store};
use crate::util::report::Silent;
use crate::util::{Digest, Result};

/// Layers that are noted at once: as many as blobs are sent to a target at once, for the same reasons.
const PARALLEL: usize = 4;

/// How often a request is made at most: nothing depends on the cache.
const ATTEMPTS: u32 = 4;

/// Something to be noted.
#[derive(Debug, Clone)]
pub struct NewEntry {
    /// What it depends on.
    pub key: Digest,
    /// The type of the artifact.
    pub(super) kind: String,
    /// Its blob, wherever that is.
    pub(super) blob: Blob,
    /// What it says.
    pub(super) annotations: BTreeMap<String, String>,
    /// What it replaces.
    pub noted: Noted,
}

/// What is noted under a key already, when something is to be noted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Noted {
    /// It is replaced, and not asked for: it was wrong, or nobody looked.
    Whatever,
    /// It is replaced when it says something else.
    Other,
    /// It stays.
    Nothing,
}

impl NewEntry {
    /// A layer, whose blob is there.
    pub fn layer(entry: &Entry, blob: &Blob, noted: Noted) -> Self {
        let (kind, annotations) = (entry::TYPE.to_owned(), entry.annotations());
        Self { key: entry.key, kind, blob: blob.clone(), annotations, noted }
    }

    /// What is put there, with what makes it believable.
    fn artifact(&self, key: Option<&CacheKey>) -> Result<Artifact> {
        let Self { kind, blob, annotations, .. } = self;
        let said = Said { kind, blob: (blob.digest, blob.size), annotations };
        image::lone_artifact(kind, blob, &said.sealed(key))
    }
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

    async fn note_one(&self, new: NewEntry) -> Result<bool> {
        let (artifact, noted) = (new.artifact(self.store.key())?, new.noted);
        let reference = entry::reference(&self.cache, &new.key);
        if noted != Noted::Whatever
            && let Some(there) = self.registry.tag_digest(&reference).await?
            && (noted == Noted::Nothing || there == artifact.manifest.digest)
        {
            return Ok(false);
        }
        for blob in &artifact.layers {
            if !self.put(&reference, blob).await? {
                return Ok(false);
            }
        }
        self.registry.push_blob(&reference, &artifact.config, &[], &Silent).await?;
        let manifest = &artifact.manifest;
        let sent = self.registry.push_manifest(&reference, &manifest.media_type, bytes_of(manifest)?).await?;
        Ok(matches!(sent, Sent::Uploaded(_)))
    }

    /// False when the blob is gone from where it was: it is made again, and comes once more.
    async fn put(&self, reference: &Reference, blob: &Blob) -> Result<bool> {
        let mut places = Places::of(&self.store, blob.digest);
        if let BlobSource::Registry(at) = &blob.source {
            places.add(Registry::parse(at)?);
        }
        match self.registry.push_blob(reference, blob, &places.beside(reference), &Silent).await {
            Err(error) if Gone::is_cause_of(&error) => Ok(false),
            sent => sent.map(|_| true),
        }
    }
}

/// The entries of a channel, until nobody can send any more.
pub fn arriving(entries: tokio::sync::mpsc::UnboundedReceiver<NewEntry>) -> impl Stream<Item = NewEntry> {
    stream::unfold(entries, |mut entries| async move { Some((entries.recv().await?, entries)) })
}
