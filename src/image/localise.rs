//! Bringing the layers that are still in a registry to this machine.

use std::collections::BTreeMap;
use std::path::PathBuf;

use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::{Fetch, Image};
use crate::model::{Blob, BlobSource, LayerBlob};
use crate::store::Store;
use crate::util::{Digest, Result, ResultExt as _};

/// Takes layers that the store has from there. Their bytes are not looked at: whoever reads them compares them.
pub fn from_store(images: &mut [Image], store: &Store) {
    for blob in images.iter_mut().flat_map(|image| &mut image.layers).map(|layer| &mut layer.blob) {
        if matches!(blob.source, BlobSource::Registry(_)) && store.has_blob(&blob.digest, blob.size) {
            blob.source = BlobSource::File(store.blob(&blob.digest));
        }
    }
}

/// Fetches the layers that are still in a registry and that are `wanted`, at most `downloads` at once, so that the images
/// can be written to files. A push to a registry does not need this.
///
/// # Errors
/// Those of the registry and of the store.
pub async fn localise(
    images: &mut [Image],
    fetch: &dyn Fetch,
    downloads: usize,
    wanted: impl Fn(&Blob) -> bool,
) -> Result<()> {
    let layers = images.iter().flat_map(|image| &image.layers).filter(|layer| wanted(&layer.blob));
    let files = fetch_all(layers, fetch, downloads).await?;
    for layer in images.iter_mut().flat_map(|image| &mut image.layers) {
        if let Some(path) = files.get(&layer.blob.digest) {
            layer.blob.source = BlobSource::File(path.clone());
        }
    }
    Ok(())
}

/// Fetches the layers that are in a registry; returns where each of them is now.
async fn fetch_all(
    layers: impl Iterator<Item = &LayerBlob>,
    fetch: &dyn Fetch,
    downloads: usize,
) -> Result<BTreeMap<Digest, PathBuf>> {
    let wanted: BTreeMap<Digest, (&Blob, &str)> = layers
        .filter_map(|layer| match &layer.blob.source {
            BlobSource::Registry(reference) => Some((layer.blob.digest, (&layer.blob, reference.as_str()))),
            _ => None,
        })
        .collect();
    let fetches: Vec<_> = wanted.into_values().map(|(blob, reference)| fetch_one(fetch, blob, reference)).collect();
    stream::iter(fetches).buffer_unordered(downloads).try_collect().await
}

/// Fetches one layer; returns its digest and where it is now.
pub(super) async fn fetch_one(fetch: &dyn Fetch, blob: &Blob, reference: &str) -> Result<(Digest, PathBuf)> {
    let path = fetch
        .blob(reference, &blob.digest, blob.size)
        .await
        .context(|| format!("the layer {} of the base `{reference}` cannot be fetched", blob.digest))?;
    Ok((blob.digest, path))
}
