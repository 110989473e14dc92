//! The blobs of an image into the store.

use fs_err as fs;
use futures::{StreamExt as _, TryStreamExt as _, stream};

use crate::cli::args::{BuildArgs, Global};
use crate::cli::build::known;
use crate::cli::locking::options::downloads;
use crate::cli::world::{CachePlace, World};
use crate::image::{self, Fetch as _, Image};
use crate::model::{BaseRef, BlobSource, LAYER_KEY, LayerBlob, Platform};
use crate::store::Store;
use crate::util::report::SharedReporter;
use crate::util::{Digest, Error, Result, ResultExt as _};

/// Fetches an image for each platform that is asked for; all of their layers are on this machine then.
///
/// # Errors
/// When it is not there, is damaged, or a registry refuses or does not answer.
pub async fn fetch(
    reference: &BaseRef,
    args: &BuildArgs,
    global: &Global,
    reporter: &SharedReporter,
) -> Result<Vec<Image>> {
    let environment = &args.environment;
    let registries = environment.registry.options([]);
    let downloads = downloads(environment.jobs)?;
    let world = World::open(&CachePlace::of(global)?, registries, reporter.clone(), environment.offline)?;
    let mut platforms = environment.platforms.iter().map(|it| it.parse()).collect::<Result<Vec<Platform>>>()?;
    if platforms.is_empty() {
        platforms.push(Platform::default());
    }
    let mut fetched = Vec::new();
    for platform in platforms {
        let base = image::open_image(reference, &platform, &world.store, &world).await;
        let base = base.context(|| format!("the image `{reference}` cannot be fetched"))?;
        let layers: Vec<_> = base.layers.iter().map(|layer| obtain(layer, &world)).collect();
        stream::iter(layers).buffer_unordered(downloads).try_collect::<Vec<()>>().await?;
        fetched.push(base.image(&platform).ok_or_else(|| Error::bug("a root file system was taken for an image"))?);
    }
    image::from_store(&mut fetched, &world.store);
    image::localise(&mut fetched, &world, downloads, |_| true).await?;
    Ok(fetched)
}

/// Brings a layer into the store; one with a key is known to builds then.
async fn obtain(layer: &LayerBlob, world: &World) -> Result<()> {
    let (digest, size) = (layer.blob.digest, layer.blob.size);
    match &layer.blob.source {
        // Its bytes are not used here: whoever uses them compares them.
        BlobSource::Registry(_) if world.store.has_blob(&digest, size) => {}
        BlobSource::Registry(reference) => drop(world.blob(reference, &digest, size).await?),
        source if !world.store.has_blob(&digest, size) => {
            let (source, store) = (source.clone(), world.store.clone());
            let copying = tokio::task::spawn_blocking(move || copy(&source, &digest, &store));
            copying.await.map_err(|error| Error::bug("a layer was not copied").caused_by(error))??;
        }
        _ => {}
    }
    let Some(key) = layer.annotations.get(LAYER_KEY) else { return Ok(()) };
    let key: Digest = key.parse().context(|| format!("the key of the layer {digest}"))?;
    let store = &world.store;
    // What the store knows already was verified when it came to know it.
    let known = known::in_store(store, &key).is_some();
    if !known {
        known::learn(&key, (digest, size), layer.diff_id, store).await?;
    }
    Ok(())
}

fn copy(source: &BlobSource, digest: &Digest, store: &Store) -> Result<()> {
    let mut blob = store.new_blob()?;
    match source {
        BlobSource::File(path) | BlobSource::Packed(path) => blob.fill(fs::File::open(path)?)?,
        BlobSource::Bytes(bytes) => blob.fill(&bytes[..])?,
        BlobSource::Registry(reference) => return Err(Error::bug(format!("`{reference}` is not on this machine"))),
    };
    blob.finish(Some(digest)).map(|_| ())
}
