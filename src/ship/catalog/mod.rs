//! The layer catalog: which layers exist already in registries, by their keys. Nothing of a layer is fetched for that.
//!
//! ```text
//! key ──▶ the image at a target's tag: annotations of its layers, diff IDs of its config
//!     └─▶ the cache registry: one artifact per key, under the tag `condaimg-<32 hex of the key>`
//! ```
//!
//! The cache registry keeps small documents, too, in the same way ([`document()`]), and the layers of bases.
//!
//! What either says of a layer is a claim. It counts only when the registry has a blob of that digest and size; what is
//! wrong, missing or collected is as if it were not known. Nobody can tell without the packages whether the right bytes
//! have that digest: who may write there is trusted with them (`docs/caching.md`).
//!
//! Writers need no lock: the artifact of a layer depends on the layer alone, so that two writers write the same bytes.

mod document;
mod entry;
mod image;
mod seal;
mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _, stream};

pub use document::{document, new_document};
pub use entry::Entry;
pub use write::{CatalogWriter, NewEntry, Noted, arriving};

use super::push::by_digest;
use crate::model::{Blob, BlobSource, Platform};
use crate::registry::{Reference, Registry};
use crate::store::Store;
use crate::util::{DiffId, Digest, Error, Result};

/// Questions that are asked at once.
const PARALLEL: usize = 8;

/// A catalog that needs longer to answer is done without, because nothing is packed meanwhile. A registry that takes half
/// a second for each answer has told of 64 layers after 8 s.
const PATIENCE: Duration = Duration::from_secs(15);

/// A layer that lies in a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteLayer {
    /// Digest of the blob.
    pub digest: Digest,
    /// Size of the blob in bytes.
    pub size: u64,
    /// Digest of the uncompressed tar, as the catalog claims it.
    pub diff_id: DiffId,
    /// The blob in its repository.
    pub at: Reference,
}

impl RemoteLayer {
    fn blob(&self, media_type: &str) -> Blob {
        let source = BlobSource::Registry(self.at.whole());
        Blob { media_type: media_type.to_owned(), digest: self.digest, size: self.size, source }
    }
}

/// What a catalog knows.
#[derive(Debug, Default)]
pub struct Found {
    /// By key; each seen to be in its registry.
    pub layers: BTreeMap<Digest, RemoteLayer>,
    /// Why something could not be asked: for the user, who may want to mend it.
    pub notices: Vec<String>,
}

/// The sources of one build.
#[derive(Debug, Clone)]
pub struct Catalog<'a> {
    /// The client for all registries.
    pub registry: &'a Registry,
    /// Keeps the configs of images that are looked at, and knows what lies where.
    pub store: &'a Store,
    /// References whose images are looked at, in this order.
    pub tags: &'a [Reference],
    /// The repository with an artifact for each key.
    pub cache: Option<&'a Reference>,
    /// Which image of an index is looked at.
    pub platform: &'a Platform,
    /// What layers must be.
    pub media_type: &'a str,
}

impl Catalog<'_> {
    /// Finds layers by their keys. What cannot be asked knows nothing: no error ends a build that can do without.
    pub async fn find(&self, keys: &BTreeSet<Digest>) -> Found {
        let mut found = Found::default();
        if keys.is_empty() || (self.tags.is_empty() && self.cache.is_none()) {
            return found;
        }
        if tokio::time::timeout(PATIENCE, self.find_all(keys, &mut found)).await.is_err() {
            let seconds = PATIENCE.as_secs();
            found.notices.push(format!("looking for layers in registries was given up after {seconds} s"));
        }
        // Each layer names its packages: two that are the same cannot both be right.
        let mut times: BTreeMap<Digest, usize> = BTreeMap::new();
        found.layers.values().for_each(|layer| *times.entry(layer.digest).or_default() += 1);
        found.layers.retain(|_, layer| times.get(&layer.digest) == Some(&1));
        found
    }

    async fn find_all(&self, keys: &BTreeSet<Digest>, found: &mut Found) {
        // An image says nothing that a key vouches for: its digest must not depend on one.
        let tags = if self.store.key().is_some() { &[] } else { self.tags };
        for tag in tags {
            let missing = missing(keys, found);
            if missing.is_empty() {
                return;
            }
            match self.in_image(tag, &missing).await {
                Ok(layers) => found.layers.extend(layers),
                // The push, which follows, will tell what is wrong with the registry; a tag that holds something else
                // is about to be replaced.
                Err(error) => tracing::debug!(%tag, error = error.chain().join(": "), "no layers are taken from it"),
            }
        }
        let missing = missing(keys, found);
        if let Some(cache) = self.cache
            && let Err(error) = self.in_cache(cache, &missing, &mut found.layers).await
        {
            let why = error.chain().join(": ");
            found.notices.push(format!("the cache registry `{}` cannot be read: {why}", named(cache)));
        }
    }

    /// Layers of the image at a tag.
    async fn in_image(&self, tag: &Reference, keys: &BTreeSet<Digest>) -> Result<BTreeMap<Digest, RemoteLayer>> {
        let claims = image::claims(self, tag).await?;
        let claims = claims.into_iter().filter(|(key, _)| keys.contains(key));
        let checks: Vec<_> = claims
            .map(|(key, layer)| async move { Ok::<_, Error>(self.is_there(&layer).await?.then_some((key, layer))) })
            .collect();
        stream::iter(checks)
            .buffer_unordered(PARALLEL)
            .try_filter_map(|found| async move { Ok(found) })
            .try_collect()
            .await
    }

    /// Layers that have an artifact of their own. The first question is asked alone: what answers it with a refusal is
    /// not asked again.
    async fn in_cache(
        &self,
        cache: &Reference,
        keys: &BTreeSet<Digest>,
        found: &mut BTreeMap<Digest, RemoteLayer>,
    ) -> Result<()> {
        let Some((first, rest)) = keys.iter().collect::<Vec<_>>().split_first().map(|(a, b)| (*a, b.to_vec())) else {
            return Ok(());
        };
        found.extend(self.one_in_cache(cache, first).await?.map(|layer| (*first, layer)));
        let questions: Vec<_> = rest
            .into_iter()
            .map(|key| async move { Ok::<_, Error>((*key, self.one_in_cache(cache, key).await?)) })
            .collect();
        let mut answers = stream::iter(questions).buffer_unordered(PARALLEL);
        while let Some((key, layer)) = answers.try_next().await? {
            found.extend(layer.map(|layer| (key, layer)));
        }
        Ok(())
    }

    async fn one_in_cache(&self, cache: &Reference, key: &Digest) -> Result<Option<RemoteLayer>> {
        let Some(fetched) = self.registry.find_manifest(&entry::reference(cache, key)).await? else { return Ok(None) };
        match Entry::parse(&fetched, key, self.media_type, self.store.key()) {
            Ok(entry) => {
                let Entry { digest, size, diff_id, .. } = entry;
                let layer = RemoteLayer { digest, size, diff_id, at: by_digest(cache, digest) };
                Ok(self.is_there(&layer).await?.then_some(layer))
            }
            Err(error) => {
                tracing::debug!(%key, error = error.chain().join(": "), "an entry of the cache registry is passed over");
                Ok(None)
            }
        }
    }

    async fn is_there(&self, layer: &RemoteLayer) -> Result<bool> {
        let there = self.registry.has_blob(&layer.at, &layer.blob(self.media_type)).await?;
        if !there {
            tracing::debug!(digest = %layer.digest, at = %layer.at, "a layer of the catalog is not there as it should be");
        }
        Ok(there)
    }
}

fn missing(keys: &BTreeSet<Digest>, found: &Found) -> BTreeSet<Digest> {
    keys.iter().filter(|key| !found.layers.contains_key(key)).copied().collect()
}

/// A repository without the tag, which means nothing here.
fn named(repository: &Reference) -> String {
    format!("{}/{}", repository.registry(), repository.repository())
}
