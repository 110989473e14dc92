//! A docker archive as an image to pass on. It holds no manifest, and its layers may be uncompressed: they are
//! compressed, and a manifest is made that fits. The config stays as it is, and with it the image's id.

use std::collections::BTreeMap;
use std::io::{self, Read, Write as _};

use flate2::Compression;
use flate2::write::GzEncoder;
use oci_spec::image::ImageConfiguration;

use super::archive::TarFile;
use super::docker_archive::{Entry, entry_of, layer};
use super::{diff_ids, json, media};
use crate::image::assemble::manifest;
use crate::image::codec::{Codec, measure};
use crate::model::{Blob, BlobSource, LayerBlob};
use crate::store::Store;
use crate::util::{DiffId, Error, Result, parallel};

/// Layers that are compressed at once.
const COMPRESSORS: usize = 4;

/// The manifest, the config and the layers of a docker archive; the layers come into the store.
///
/// # Errors
/// When the tar is not a docker archive, or holds several images; when it is damaged.
pub(in crate::image) fn docker_image(tar: &TarFile, store: &Store) -> Result<Vec<Blob>> {
    let entry: Entry = entry_of(tar)?;
    let bytes = tar.read(&entry.config)?;
    let config: ImageConfiguration = json::parse(&bytes, "its image config")?;
    let paths = entry.layers.as_deref().unwrap_or_default();
    let ids = diff_ids(&config, paths.len())?;
    let layers: Vec<(&String, DiffId)> = paths.iter().zip(ids).collect();
    let layers = parallel(&layers, COMPRESSORS, |(path, diff_id)| compressed(tar, path, *diff_id, store))?;
    let config = Blob::from_bytes(media::CONFIG, bytes);
    let manifest = Blob::from_bytes(media::MANIFEST, manifest(&config, &layers, BTreeMap::new())?);
    Ok([manifest, config].into_iter().chain(layers.into_iter().map(|layer| layer.blob)).collect())
}

/// Brings a layer into the store, compressed with gzip if it is not compressed.
fn compressed(tar: &TarFile, path: &str, diff_id: DiffId, store: &Store) -> Result<LayerBlob> {
    let (reader, _) = tar.stream(path)?;
    if !is_plain(reader)? {
        return layer(tar, path, diff_id, store);
    }
    let (reader, _) = tar.stream(path)?;
    // The header has neither a name nor a time: equal layers become equal blobs.
    let mut encoder = GzEncoder::new(store.new_blob()?, Compression::default());
    let (measured, ()) = measure(reader, |plain| {
        io::copy(plain, &mut encoder)?;
        Ok(())
    })?;
    if measured.diff_id != diff_id {
        return Err(Error::user(format!("its layer `{path}` should be {diff_id} and is {}", measured.diff_id))
            .hint("the archive is damaged; save it again"));
    }
    let mut writer = encoder.finish()?;
    writer.flush()?;
    let (digest, size) = writer.finish(None)?;
    let source = BlobSource::File(store.blob(&digest));
    Ok(LayerBlob {
        blob: Blob { media_type: media::LAYER_GZIP.to_owned(), digest, size, source },
        diff_id,
        name: String::new(),
        annotations: BTreeMap::new(),
        created_by: String::new(),
    })
}

fn is_plain(mut reader: impl Read) -> Result<bool> {
    let mut start = Vec::new();
    reader.by_ref().take(6).read_to_end(&mut start)?;
    Ok(Codec::of(&start)? == Codec::Plain)
}
