//! What a build tells at its end: a table of the layers, and the same as JSON for pipelines.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::ship::Delivered;
use crate::util::report::Outcome;
use crate::util::{DiffId, Digest, human};

/// One row: a layer.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct LayerRow {
    /// Name in the plan; `base` for the base's.
    pub name: String,
    /// The packages whose files are in it.
    pub packages: Vec<String>,
    /// The number of project files in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub files: Option<usize>,
    /// Size of the blob in bytes.
    pub size: u64,
    /// Digest of the blob.
    pub digest: Digest,
    /// Digest of the uncompressed tar.
    pub diff_id: DiffId,
    /// Whether its bytes were made by this build.
    pub new: bool,
}

/// The image of one platform.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct PlatformMetadata {
    /// The platform (`linux/amd64`).
    pub platform: String,
    /// Digest of the manifest.
    pub digest: Digest,
    /// Digest of the image config.
    pub config_digest: Digest,
    /// Digest of the normalised lock.
    pub lock: Digest,
    /// Sum of the layers' sizes in bytes, the base included.
    pub size: u64,
    /// The layers, lowest first.
    pub layers: Vec<LayerRow>,
}

/// What `--metadata-file` holds.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Metadata {
    /// Digest of the manifest; of the index, when there are several platforms.
    pub digest: Digest,
    /// What is said of the only platform, once more: most images have one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config_digest: Option<Digest>,
    /// The only platform.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    /// The references that were pushed, or would have been.
    pub tags: Vec<String>,
    /// Whether they were pushed.
    pub pushed: bool,
    /// Where it was written to.
    pub outputs: Vec<String>,
    /// Sum of the layers' sizes in bytes, the base included; a layer of several platforms counts once.
    pub size: u64,
    /// Bytes of layers and configs that went to registries.
    pub uploaded_bytes: u64,
    /// Digest of the only platform's lock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lock: Option<Digest>,
    /// The only platform's layers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layers: Option<Vec<LayerRow>>,
    /// Every platform, in the order of the index.
    pub platforms: Vec<PlatformMetadata>,
}

impl Metadata {
    /// Puts together what is said of the whole and of the platforms.
    pub fn new(
        digest: Digest,
        platforms: Vec<PlatformMetadata>,
        tags: Vec<String>,
        pushed: bool,
        outputs: Vec<String>,
        uploaded_bytes: u64,
    ) -> Self {
        let only = match platforms.as_slice() {
            [only] => Some(only.clone()),
            _ => None,
        };
        let sizes: BTreeMap<Digest, u64> =
            platforms.iter().flat_map(|platform| &platform.layers).map(|layer| (layer.digest, layer.size)).collect();
        Self {
            digest,
            config_digest: only.as_ref().map(|only| only.config_digest),
            platform: only.as_ref().map(|only| only.platform.clone()),
            tags,
            pushed,
            outputs,
            size: only.as_ref().map_or_else(|| sizes.values().sum(), |only| only.size),
            uploaded_bytes,
            lock: only.as_ref().map(|only| only.lock),
            layers: only.map(|only| only.layers),
            platforms,
        }
    }
}

/// The table for people: what of each layer is new, where the image goes.
pub fn table<'a>(rows: impl Iterator<Item = (&'a LayerRow, bool)> + Clone) -> String {
    let width = rows.clone().map(|(row, _)| row.name.len()).max().unwrap_or(0).max("layer".len());
    let mut text = format!("{:width$}  {:>8}  {:>11}  {:<3}  digest\n", "layer", "packages", "size", "");
    for (row, new) in rows {
        let state = if new { "new" } else { "" };
        let packages = if row.packages.is_empty() { String::new() } else { row.packages.len().to_string() };
        text.push_str(&format!(
            "{:width$}  {packages:>8}  {:>11}  {state:<3}  {}\n",
            row.name,
            human(row.size),
            row.digest.short()
        ));
    }
    text
}

/// What was sent to registries.
pub fn pushed(delivered: &Delivered, referrers: usize) -> Outcome {
    let Delivered { blobs, bytes, mounted, moved } = *delivered;
    Outcome::Pushed { blobs, bytes, mounted, referrers, moved }
}
