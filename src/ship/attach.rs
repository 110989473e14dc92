//! Attaching files to an image in registries: artifacts whose subject it is (distribution-spec, "Pushing Manifests with
//! Subject").

use super::copy::bytes_of;
use super::push::{by_digest, repositories};
use crate::image::Artifact;
use crate::registry::{Reference, Registry, Sent};
use crate::util::Result;
use crate::util::report::Silent;

/// Attaches an artifact in the repositories of all targets, which have its subject. True when it was new to one of
/// them; what is there already costs only questions.
///
/// # Errors
/// When a registry refuses or does not answer.
pub async fn attach(registry: &Registry, targets: &[Reference], artifact: &Artifact) -> Result<bool> {
    let mut moved = false;
    for repository in repositories(targets) {
        let there = registry.tag_digest(&by_digest(&repository, artifact.manifest.digest)).await?;
        if there.is_none() {
            for blob in artifact.layers.iter().chain([&artifact.config]) {
                registry.push_blob(&repository, blob, &[], &Silent).await?;
            }
        }
        let manifest = &artifact.manifest;
        let sent = registry.push_referrer(&repository, bytes_of(manifest)?, &manifest.media_type).await?;
        moved |= matches!(sent, Sent::Uploaded(_));
    }
    Ok(moved)
}
