//! Reading what is attached to an image: the files of artifacts whose subject it is.

use super::source::Source;
use crate::model::BaseRef;
use crate::registry::Registry;
use crate::store::Store;
use crate::util::{Digest, Result};

/// The files of the artifacts of one type that are attached to `subject`, which `image` names or holds; each file as
/// its digest says. Of what has no place for them (a docker archive, a root file system): none.
///
/// # Errors
/// When the registry refuses or does not answer, or a file is damaged or too large.
pub async fn attached(
    image: &BaseRef,
    subject: Digest,
    artifact_type: &str,
    registry: &Registry,
    store: &Store,
) -> Result<Vec<Vec<u8>>> {
    if !matches!(image, BaseRef::Registry(_) | BaseRef::Layout(..) | BaseRef::OciArchive(_)) {
        return Ok(Vec::new());
    }
    let source = Source::open(image, registry, store)?;
    let mut files = Vec::new();
    for document in source.referrers(subject, Some(artifact_type)).await? {
        for layer in document.references.layers.iter().flatten() {
            files.push(source.small(layer).await?);
        }
    }
    Ok(files)
}
