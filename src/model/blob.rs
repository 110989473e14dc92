//! Blobs: bytes with a digest, and where they can be read.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::util::{DiffId, Digest};

/// The annotation of a layer's descriptor with what its bytes depend on: equal keys promise equal bytes.
pub const LAYER_KEY: &str = "dev.condaimg.layer.key";
/// The annotation of a layer's descriptor that says what is in the layer, for people.
pub const LAYER_NAME: &str = "dev.condaimg.layer.name";
/// The annotation of a layer's descriptor with the kind of its content ([`super::LayerRole`]).
pub const LAYER_ROLE: &str = "dev.condaimg.layer.role";
/// The annotation of a layer's descriptor with the tier of the policy that its packages belong to.
pub const LAYER_TIER: &str = "dev.condaimg.layer.tier";
/// The annotation of a layer's descriptor that lists the packages whose files are in it.
pub const LAYER_PACKAGES: &str = "dev.condaimg.layer.packages";

/// Where the bytes of a blob are.
#[derive(Debug, Clone)]
pub enum BlobSource {
    /// In memory: configs and manifests, never layers.
    Bytes(Bytes),
    /// In a file that is whole and holds nothing else.
    File(PathBuf),
    /// Likewise, and this process has made or hashed it: its bytes need not be hashed again. It lies in the store.
    Packed(PathBuf),
    /// In a registry, under this reference (`HOST/REPOSITORY[:TAG][@DIGEST]`).
    Registry(String),
}

impl BlobSource {
    /// The file that holds the bytes, if one does.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::File(path) | Self::Packed(path) => Some(path),
            Self::Bytes(_) | Self::Registry(_) => None,
        }
    }
}

/// Bytes known by their digest (image-spec, descriptor.md).
#[derive(Debug, Clone)]
pub struct Blob {
    /// Media type as the manifest states it.
    pub media_type: String,
    /// Digest of the bytes as stored.
    pub digest: Digest,
    /// Number of bytes.
    pub size: u64,
    /// Where to read them.
    pub source: BlobSource,
}

impl Blob {
    /// A blob of bytes in memory.
    pub fn from_bytes(media_type: impl Into<String>, bytes: Vec<u8>) -> Self {
        Self {
            media_type: media_type.into(),
            digest: Digest::of(&bytes),
            size: bytes.len() as u64,
            source: BlobSource::Bytes(bytes.into()),
        }
    }
}

/// A layer of an image: its blob, its diff ID and what the manifest and the history say of it.
#[derive(Debug, Clone)]
pub struct LayerBlob {
    /// The compressed tar.
    pub blob: Blob,
    /// Digest of the uncompressed tar.
    pub diff_id: DiffId,
    /// Name in the plan (`python`, `numpy`, ...); empty for layers of the base.
    pub name: String,
    /// Annotations of its descriptor.
    pub annotations: BTreeMap<String, String>,
    /// `created_by` of its history entry.
    pub created_by: String,
}
