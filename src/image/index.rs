//! The image index of several platforms.

use oci_spec::image::{ImageIndexBuilder, MediaType, SCHEMA_VERSION};

use super::{Image, media};
use crate::model::Blob;
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

/// The index of an image's platforms, sorted by platform. One platform alone needs none: a plain manifest is
/// what every registry and service takes.
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
    let index = ImageIndexBuilder::default()
        .schema_version(SCHEMA_VERSION)
        .media_type(MediaType::ImageIndex)
        .manifests(manifests)
        .build()
        .map_err(|error| Error::bug("an index cannot be made").caused_by(error))?;
    Ok(Blob::from_bytes(media::INDEX, canonical(&index)?))
}
