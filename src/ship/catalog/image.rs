//! What an image says of its layers: keys in the annotations of the manifest, diff IDs in the config.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{Catalog, RemoteLayer};
use crate::model::{BaseRef, LAYER_KEY};
use crate::registry::Reference;
use crate::ship::push::by_digest;
use crate::ship::source::{Document, Source, digest};
use crate::util::{DiffId, Digest, Error, Result};

/// What matters of an image config (image-spec, config.md).
#[derive(Deserialize)]
struct Config {
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RootFs {
    diff_ids: Vec<DiffId>,
}

/// The layers with a key of the image at a tag, for the catalog's platform; none when there is no image.
///
/// # Errors
/// When the registry does not answer or refuses, or what is there is no image for the platform.
pub(super) async fn claims(catalog: &Catalog<'_>, tag: &Reference) -> Result<BTreeMap<Digest, RemoteLayer>> {
    let Some(fetched) = catalog.registry.find_manifest(tag).await? else { return Ok(BTreeMap::new()) };
    let source = Source::open(&BaseRef::Registry(tag.whole()), catalog.registry, catalog.store)?;
    let root = Document::parse(fetched.media_type, fetched.bytes.to_vec())?;
    let document = source.narrow(root, catalog.platform).await?;
    let (Some(config), Some(layers)) = (&document.references.config, &document.references.layers) else {
        return Err(Error::user(format!("{} is no image", document.blob.digest)));
    };
    let config: Config = serde_json::from_slice(&source.small(config).await?)
        .map_err(|error| Error::user("its config cannot be read").caused_by(error))?;
    let diff_ids = config.rootfs.diff_ids;
    if diff_ids.len() != layers.len() {
        return Err(Error::user(format!("it has {} layers and {} diff IDs", layers.len(), diff_ids.len())));
    }
    let mut claims = BTreeMap::new();
    for (layer, diff_id) in layers.iter().zip(diff_ids) {
        let key = layer.annotations().as_ref().and_then(|annotations| annotations.get(LAYER_KEY)?.parse().ok());
        let Some(key) = key else { continue };
        if layer.media_type().as_ref() != catalog.media_type {
            continue;
        }
        let digest = digest(layer)?;
        claims.insert(key, RemoteLayer { digest, size: layer.size(), diff_id, at: by_digest(tag, digest) });
    }
    Ok(claims)
}
