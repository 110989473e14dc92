//! Media types: the OCI image-spec's, and Docker's (image manifest version 2, schema 2) translated to them.

use crate::util::{Error, Result};

/// An image manifest (image-spec, manifest.md).
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// An image index (image-spec, image-index.md).
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// An image config (image-spec, config.md).
pub(super) const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// An uncompressed layer (image-spec, layer.md).
pub(super) const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// A gzip layer.
pub(super) const LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// A Zstandard layer.
pub(super) const LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
/// The config of an artifact that has none (image-spec, manifest.md).
pub(super) const EMPTY: &str = "application/vnd.oci.empty.v1+json";

const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";

/// Whether it is an index of images, OCI's or Docker's.
pub fn is_index(media_type: &str) -> bool {
    matches!(media_type, INDEX | DOCKER_LIST)
}

/// Whether it is a manifest of one image, OCI's or Docker's.
pub(super) fn is_manifest(media_type: &str) -> bool {
    matches!(media_type, MANIFEST | DOCKER_MANIFEST)
}

/// Whether it is the config of an image, and not that of some other artifact.
pub(super) fn is_config(media_type: &str) -> bool {
    matches!(media_type, CONFIG | DOCKER_CONFIG)
}

/// The OCI media type of a layer of a base.
///
/// # Errors
/// When the layer may not be distributed, or is none that runtimes know.
pub(super) fn layer(media_type: &str) -> Result<&'static str> {
    if media_type.contains("nondistributable") || media_type.contains(".foreign.") {
        return Err(Error::user(format!("it has a layer that may not be distributed (`{media_type}`)"))
            .hint("choose another base: such layers are not in the registry and cannot be copied"));
    }
    match media_type {
        LAYER | "application/vnd.docker.image.rootfs.diff.tar" => Ok(LAYER),
        LAYER_GZIP | "application/vnd.docker.image.rootfs.diff.tar.gzip" => Ok(LAYER_GZIP),
        LAYER_ZSTD | "application/vnd.docker.image.rootfs.diff.tar.zstd" => Ok(LAYER_ZSTD),
        _ => Err(Error::user(format!("it has a layer of an unknown kind (`{media_type}`)"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_of_docker_become_oci_and_foreign_ones_are_refused() {
        assert_eq!(layer("application/vnd.docker.image.rootfs.diff.tar.gzip").expect("known"), LAYER_GZIP);
        assert_eq!(layer(LAYER_ZSTD).expect("known"), LAYER_ZSTD);
        for refused in [
            "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
            "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
            "application/vnd.cncf.helm.chart.content.v1.tar+gzip",
        ] {
            assert!(layer(refused).is_err(), "{refused}");
        }
    }
}
