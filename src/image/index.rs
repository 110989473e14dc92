//! The image index of several platforms.

use std::collections::HashMap;

use oci_spec::image::{ImageIndexBuilder, ImageManifest, MediaType, SCHEMA_VERSION};

use super::{Image, json, media};
use crate::model::{Blob, BlobSource};
use crate::util::json::canonical;
use crate::util::{Error, Result};

/// The documents of an image of one platform or several, in the order in which registries take them: the manifests,
/// then the index when there are several. The last one is what a tag stands for.
///
/// # Errors
/// When a platform is there twice.
pub fn documents(images: &[Image]) -> Result<Vec<Blob>> {
    let mut documents: Vec<Blob> = images.iter().map(|image| image.manifest.clone()).collect();
    if images.len() > 1 {
        documents.push(image_index(images)?);
    }
    Ok(documents)
}

/// The index of an image's platforms, sorted by platform. What all their manifests say in annotations, the index says
/// too. One platform alone needs none: a plain manifest is what every registry and service takes.
///
/// # Errors
/// When a platform is there twice: a defect of ours.
pub fn image_index(images: &[Image]) -> Result<Blob> {
    let mut images: Vec<&Image> = images.iter().collect();
    images.sort_by_key(|image| image.platform.to_string());
    if let Some(pair) = images.windows(2).find(|pair| pair[0].platform == pair[1].platform) {
        return Err(Error::bug(format!("the platform {} is there twice", pair[0].platform)));
    }
    let manifests = images.iter().map(|image| image.descriptor()).collect::<Result<Vec<_>>>()?;
    let mut index = ImageIndexBuilder::default()
        .schema_version(SCHEMA_VERSION)
        .media_type(MediaType::ImageIndex)
        .manifests(manifests);
    let annotations = common_annotations(&images)?;
    if !annotations.is_empty() {
        index = index.annotations(annotations);
    }
    let index = index.build().map_err(|error| Error::bug("an index cannot be made").caused_by(error))?;
    Ok(Blob::from_bytes(media::INDEX, canonical(&index)?))
}

/// The annotations that all manifests have with the same value: what the user said of the image, not what is only of
/// one platform.
fn common_annotations(images: &[&Image]) -> Result<HashMap<String, String>> {
    let mut common: Option<HashMap<String, String>> = None;
    for image in images {
        let BlobSource::Bytes(bytes) = &image.manifest.source else {
            return Err(Error::bug("a manifest that is not in memory"));
        };
        let manifest: ImageManifest = json::parse(bytes, "our own manifest")?;
        let mut own = manifest.annotations().clone().unwrap_or_default();
        if let Some(common) = &common {
            own.retain(|name, value| common.get(name) == Some(value));
        }
        common = Some(own);
    }
    Ok(common.unwrap_or_default())
}
