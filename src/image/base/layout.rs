//! Bases in an OCI image layout, a folder or a tar of it.

use super::document::{Document, choose};
use super::{Base, digest_of, from_manifest};
use crate::image::LayoutReader;
use crate::model::Platform;
use crate::util::{Digest, Error, Result};

/// Indexes within indexes that are followed.
const DEPTH: usize = 4;

/// Opens the image that a tag, or no tag, stands for.
pub(super) fn open(layout: &LayoutReader, tag: Option<&str>, platform: &Platform) -> Result<Base> {
    let images = layout.images(tag)?;
    let mut descriptor = match images.as_slice() {
        // Its config tells whether it is for the platform.
        [only] => only.clone(),
        several => choose(&several.iter().collect::<Vec<_>>(), platform)?.clone(),
    };
    for _ in 0..DEPTH {
        let digest = digest_of(&descriptor)?;
        let bytes = layout.document(&digest, descriptor.size())?;
        match Document::parse(&bytes)? {
            Document::Index(index) => {
                descriptor = choose(&index.manifests().iter().collect::<Vec<_>>(), platform)?.clone();
            }
            Document::Manifest(manifest) => {
                let config = layout.document(&digest_of(manifest.config())?, manifest.config().size())?;
                let source = |digest: &Digest, size| layout.blob(digest, size);
                return from_manifest((bytes, &manifest), config, platform, source);
            }
        }
    }
    Err(Error::user("its indexes name one another and no image"))
}
