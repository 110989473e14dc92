//! The tiny image that is pushed for trial: whole and valid, since some registries look into what they take.

use std::hash::{BuildHasher as _, Hasher as _};
use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use crate::util::json::canonical;
use crate::util::{Digest, Error, Result, tarball};

pub(super) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(super) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const NOTE: &str = "application/vnd.condaimg.doctor.v1+json";
const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
const ARTIFACT_TYPE: &str = "application/vnd.condaimg.doctor.v1";

/// Bytes with their media type.
#[derive(Debug, Clone)]
pub(super) struct Piece {
    pub(super) media_type: &'static str,
    pub(super) bytes: Vec<u8>,
}

impl Piece {
    pub(super) fn digest(&self) -> Digest {
        Digest::of(&self.bytes)
    }

    pub(super) fn descriptor(&self) -> Value {
        json!({"mediaType": self.media_type, "digest": self.digest().to_string(), "size": self.bytes.len()})
    }
}

/// An image, and the same one with a zstd layer.
pub(super) struct Sample {
    pub(super) config: Piece,
    pub(super) gzip: Piece,
    pub(super) zstd: Piece,
}

impl Sample {
    pub(super) fn new(token: &str) -> Result<Self> {
        let mut tar = Vec::new();
        tarball::file(&mut tar, "condaimg-doctor", token.as_bytes(), 0o644, 0)?;
        tarball::end(&mut tar)?;
        let config = json!({
            "architecture": "amd64",
            "os": "linux",
            "config": {"Labels": {"dev.condaimg.doctor": token}},
            "rootfs": {"type": "layers", "diff_ids": [Digest::of(&tar).to_string()]},
        });
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(&tar)?;
        Ok(Self {
            config: Piece { media_type: CONFIG, bytes: canonical(&config)? },
            gzip: Piece { media_type: GZIP, bytes: gzip.finish()? },
            zstd: Piece { media_type: ZSTD, bytes: zstd::encode_all(tar.as_slice(), 0)? },
        })
    }

    /// The manifest of the image with one of its layers.
    pub(super) fn manifest(&self, layer: &Piece) -> Result<Piece> {
        let (config, layers) = (self.config.descriptor(), [layer.descriptor()]);
        let document = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers});
        Ok(Piece { media_type: MANIFEST, bytes: canonical(&document)? })
    }

    /// An index of one image.
    pub(super) fn index(manifest: &Piece) -> Result<Piece> {
        let mut entry = manifest.descriptor();
        entry["platform"] = json!({"architecture": "amd64", "os": "linux"});
        let document = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]});
        Ok(Piece { media_type: INDEX, bytes: canonical(&document)? })
    }

    /// What an artifact has as config and only file. Not the empty `{}` that artifacts mostly have: it would be deleted
    /// with the rest, and others in the repository need it.
    pub(super) fn note(token: &str) -> Result<Piece> {
        Ok(Piece { media_type: NOTE, bytes: canonical(&json!({"dev.condaimg.doctor": token}))? })
    }

    /// An artifact that refers to an image.
    pub(super) fn artifact(manifest: &Piece, token: &str) -> Result<Piece> {
        let note = Self::note(token)?.descriptor();
        let document = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": ARTIFACT_TYPE,
            "config": note,
            "layers": [note],
            "subject": manifest.descriptor(),
            "annotations": {"dev.condaimg.doctor": token},
        });
        Ok(Piece { media_type: MANIFEST, bytes: canonical(&document)? })
    }
}

/// 32 digits that differ between runs; no cryptography hangs on it.
pub(super) fn random() -> String {
    let number = || std::collections::hash_map::RandomState::new().build_hasher().finish();
    format!("{:016x}{:016x}", number(), number())
}

/// So many bytes that do not repeat.
pub(super) fn noise(length: usize, seed: &str) -> Vec<u8> {
    let blocks = (0_u64..).flat_map(|number| *Digest::of(format!("{seed} {number}")).as_bytes());
    blocks.take(length).collect()
}

impl From<Error> for super::Trouble {
    fn from(error: Error) -> Self {
        Self::of_error(error)
    }
}
