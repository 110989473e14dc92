//! Layers that need not be made: those that the store has, and those that lie in a registry.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt as _, stream};

use super::options::Options;
use crate::cli::world::World;
use crate::image;
use crate::model::Platform;
use crate::pack::LayerDigests;
use crate::ship::{Catalog, RemoteLayer};
use crate::store::{RecordKind, Store};
use crate::util::report::{Outcome, Step};
use crate::util::{DiffId, Digest, Error, Result, ResultExt as _};

/// A layer that need not be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownLayer {
    /// Digest of the blob.
    pub digest: Digest,
    /// Size of the blob in bytes.
    pub size: u64,
    /// Digest of the uncompressed tar.
    pub diff_id: DiffId,
    /// The reference of the blob in a registry; none: it is in the store.
    pub at: Option<String>,
}

impl From<LayerDigests> for KnownLayer {
    fn from(LayerDigests { digest, size, diff_id, .. }: LayerDigests) -> Self {
        Self { digest, size, diff_id, at: None }
    }
}

/// What the store has of a layer with this key.
pub fn in_store(store: &Store, key: &Digest) -> Option<KnownLayer> {
    let layer = store.record::<LayerDigests>(RecordKind::Layer, key)?;
    store.has_blob(&layer.digest, layer.size).then(|| layer.into())
}

/// Which of the layers with these keys are known: to the store, else to the registries that the build pushes to, else to
/// the cache registry, but for what is `gone` from there. What is only in a registry stays there if that is enough for
/// what the build is to do. Nothing is known to a build with `--no-cache`.
pub async fn anywhere(
    mut keys: BTreeSet<Digest>,
    gone: &BTreeSet<Digest>,
    platform: &Platform,
    options: &Options,
    world: &World,
) -> BTreeMap<Digest, KnownLayer> {
    if options.args.no_cache {
        return BTreeMap::new();
    }
    let in_store = keys.iter().filter_map(|key| Some((*key, in_store(&world.store, key)?)));
    let mut known = without_damaged(in_store.collect(), options, world).await;
    keys.retain(|key| !known.contains_key(key));
    if world.offline {
        return known;
    }
    let progress = world.reporter.begin(Step::Cache, 0);
    let found = catalog(platform, options, world).find(&keys).await;
    found.notices.iter().for_each(|notice| world.reporter.notice(notice));
    let found = found.layers.into_iter().filter(|(_, layer)| !gone.contains(&layer.digest));
    let usable: Vec<_> = found.map(|(key, layer)| usable(key, layer, options, world)).collect();
    known.extend(
        stream::iter(usable)
            .buffer_unordered(options.environment.downloads)
            .filter_map(std::future::ready)
            .collect::<Vec<_>>()
            .await,
    );
    progress.finish(&Outcome::Quiet {});
    known
}

/// Layers of the store without those that are damaged. Only what an output will take is looked at: a push finds out by
/// itself, once the registry wants a layer.
async fn without_damaged(
    mut known: BTreeMap<Digest, KnownLayer>,
    options: &Options,
    world: &World,
) -> BTreeMap<Digest, KnownLayer> {
    let blobs = known.values().map(|layer| (layer.digest, layer.size));
    let used: BTreeSet<(Digest, u64)> = blobs.filter(|(digest, size)| options.writes(digest, *size)).collect();
    if used.is_empty() {
        return known;
    }
    let (store, jobs, wanted) = (world.store.clone(), options.environment.jobs, used.clone());
    let whole = tokio::task::spawn_blocking(move || store.whole_blobs(&wanted, jobs)).await.unwrap_or_default();
    known.retain(|_, layer| !used.contains(&(layer.digest, layer.size)) || whole.contains(&layer.digest));
    known
}

fn catalog<'a>(platform: &'a Platform, options: &'a Options, world: &'a World) -> Catalog<'a> {
    Catalog {
        registry: &world.registry,
        store: &world.store,
        tags: if options.args.push { &options.tags } else { &[] },
        cache: options.cache_registry.as_ref(),
        platform,
        media_type: options.parameters.compression.media_type(),
    }
}

/// A layer in a registry as the build can use it; nothing when it cannot, and must make the layer.
async fn usable(key: Digest, layer: RemoteLayer, options: &Options, world: &World) -> Option<(Digest, KnownLayer)> {
    let at_hand = options.args.push && options.tags.iter().all(|tag| tag.registry() == layer.at.registry());
    if at_hand && options.outputs.is_empty() {
        let RemoteLayer { digest, size, diff_id, at } = layer;
        return Some((key, KnownLayer { digest, size, diff_id, at: Some(at.whole()) }));
    }
    match fetch(key, &layer, world).await {
        Ok(layer) => Some((key, layer)),
        Err(error) => {
            let why = error.chain().join(": ");
            world.reporter.notice(&format!("a layer of the cache cannot be used, so it is made: {why}"));
            None
        }
    }
}

/// Brings a layer into the store, which then knows it.
async fn fetch(key: Digest, layer: &RemoteLayer, world: &World) -> Result<KnownLayer> {
    let RemoteLayer { digest, size, diff_id, at } = layer;
    world.registry.fetch_blob(at, digest, *size, &world.store).await?;
    let digests = learn(&key, (*digest, *size), *diff_id, &world.store).await;
    Ok(digests.context(|| format!("a layer of `{at}`"))?.into())
}

/// Has the store know a layer whose blob (digest, size in bytes) it holds.
///
/// # Errors
/// When the blob unpacks to something else than the diff ID says.
pub async fn learn(key: &Digest, blob: (Digest, u64), diff_id: DiffId, store: &Store) -> Result<LayerDigests> {
    let (digest, size) = blob;
    let file = store.blob(&digest);
    let measuring = tokio::task::spawn_blocking(move || image::diff_id(&file));
    let (found, diff_size) = measuring.await.map_err(|error| Error::bug("a layer was not read").caused_by(error))??;
    if found != diff_id {
        return Err(Error::user(format!("the layer {digest} unpacks to {found} instead of {diff_id}")));
    }
    let digests = LayerDigests { digest, size, diff_id, diff_size };
    store.remember(RecordKind::Layer, key, &digests)?;
    Ok(digests)
}
