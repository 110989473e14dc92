//! Bases from `docker save`: `manifest.json`, a config, and layers that may be compressed or linked to one
//! another (moby, image/spec, "Combined Image JSON + Filesystem Changeset Format").

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use oci_spec::image::ImageConfiguration;
use serde::Deserialize;

use super::archive::TarFile;
use super::{Base, Documents, diff_ids, json, media, read_config};
use crate::image::assemble::manifest;
use crate::image::codec::{Codec, measure};
use crate::model::{Blob, BlobSource, LayerBlob, Platform};
use crate::store::Store;
use crate::util::{DiffId, Error, Result};

/// One image of a `manifest.json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Entry {
    pub(super) config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    pub(super) layers: Option<Vec<String>>,
}

pub(super) fn open(path: &Path, platform: &Platform, store: &Store) -> Result<Base> {
    let tar = TarFile::open(path, store)?;
    let entry = entry_of(&tar)?;
    let bytes = tar.read(&entry.config)?;
    let config = read_config(&bytes, platform)?;
    let layers = layers(&tar, &entry, &config, store)?;
    let blob = Blob::from_bytes(media::CONFIG, bytes);
    let manifest = Blob::from_bytes(media::MANIFEST, manifest(&blob, &layers, BTreeMap::new())?);
    let digest = blob.digest;
    let documents = Some(Documents { manifest, config: blob });
    Ok(Base { reference: String::new(), digest, config, layers, documents })
}

/// The only image that an archive lists.
pub(super) fn entry_of(tar: &TarFile) -> Result<Entry> {
    if !tar.has("manifest.json") {
        let hint = match tar.has("index.json") {
            true => "give it as `oci-archive:FILE`",
            false => "a root file system is given as `rootfs:FILE`",
        };
        return Err(Error::user("it is no docker archive: it has no manifest.json").hint(hint));
    }
    only(json::parse(&tar.read("manifest.json")?, "its manifest.json")?)
}

fn only(entries: Vec<Entry>) -> Result<Entry> {
    let tags: Vec<String> = entries.iter().flat_map(|entry| entry.repo_tags.clone().unwrap_or_default()).collect();
    let count = entries.len();
    let mut entries = entries.into_iter();
    match (entries.next(), entries.next()) {
        (Some(entry), None) => Ok(entry),
        (None, _) => Err(Error::user("it holds no image")),
        _ => Err(Error::user(format!("it holds {count} images ({})", tags.join(", ")))
            .hint("save the one that is wanted alone")),
    }
}

fn layers(tar: &TarFile, entry: &Entry, config: &ImageConfiguration, store: &Store) -> Result<Vec<LayerBlob>> {
    let paths = entry.layers.as_deref().unwrap_or_default();
    let diff_ids = diff_ids(config, paths.len())?;
    paths.iter().zip(diff_ids).map(|(path, diff_id)| layer(tar, path, diff_id, store)).collect()
}

/// Brings a layer into the store as it is, compressed or not.
pub(super) fn layer(tar: &TarFile, path: &str, diff_id: DiffId, store: &Store) -> Result<LayerBlob> {
    let (reader, _) = tar.stream(path)?;
    let (measured, ()) = measure(reader, |plain| {
        io::copy(plain, &mut io::sink())?;
        Ok(())
    })?;
    if measured.diff_id != diff_id {
        return Err(Error::user(format!("its layer `{path}` should be {diff_id} and is {}", measured.diff_id))
            .hint("the archive is damaged; save it again"));
    }
    let size = tar.store_blob(path, &measured.digest, store)?;
    let media_type = match measured.codec {
        Codec::Plain => media::LAYER,
        Codec::Gzip => media::LAYER_GZIP,
        Codec::Zstd => media::LAYER_ZSTD,
    };
    let source = BlobSource::File(store.blob(&measured.digest));
    Ok(LayerBlob {
        blob: Blob { media_type: media_type.to_owned(), digest: measured.digest, size, source },
        diff_id,
        name: String::new(),
        annotations: Default::default(),
        created_by: String::new(),
    })
}
