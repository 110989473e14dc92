//! Images in the forms that container engines take them in: one tar for a pipe, and a layout of links.

use std::collections::{BTreeSet, HashMap};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;

use fs_err as fs;
use serde_json::json;

use super::archive::{FILE, FOLDER, MTIME, docker_manifest, path_of};
use super::layout::{OCI_LAYOUT, REF_NAME};
use super::{Image, copy, media};
use crate::model::{Blob, BlobSource};
use crate::util::json::canonical;
use crate::util::report::Progress;
use crate::util::tarball::{self, TarKind};
use crate::util::{Error, Result};

/// The annotation by which containerd, and podman after it, name an image.
const IMAGE_NAME: &str = "io.containerd.image.name";

/// Writes an image as `docker save` does since Docker 25: an OCI layout that is a docker archive at the same time, so
/// that `docker load` of any age and `ctr images import` read it. Unlike [`super::write_docker_archive`] it leaves the
/// layers compressed: their sizes are known, so nothing has to be sought, and a pipe will do. `names` are whole
/// references (`HOST/NAME:TAG`). Layers must be on this machine (see [`super::localise`]).
///
/// # Errors
/// When a source is damaged, at the latest before the last blob; those of `output`.
pub fn write_load_archive(
    image: &Image,
    names: &[String],
    mut output: &mut dyn Write,
    progress: &dyn Progress,
) -> Result<()> {
    progress.grow(image.size());
    let manifest = docker_manifest(image, names)?;
    let index = index(image, names)?;
    for (name, bytes) in [("oci-layout", OCI_LAYOUT), ("index.json", &index), ("manifest.json", &manifest)] {
        tarball::file(&mut output, name, bytes, FILE, MTIME)?;
    }
    for folder in ["blobs", "blobs/sha256"] {
        tarball::header(&mut output, folder, TarKind::Directory, FOLDER, MTIME)?;
    }
    // The manifest comes last: without it nobody takes what was broken off.
    for blob in each_once(image) {
        let copy = |output: &mut dyn Write| copy::copy_blob(blob, output, progress);
        tarball::file_from(&mut output, path_of(blob), blob.size, FILE, MTIME, copy)?;
    }
    tarball::end(&mut output)?;
    Ok(output.flush()?)
}

/// Makes an OCI layout of links to where the image's blobs lie, in an empty folder: it costs nothing, and lasts as long
/// as they do.
///
/// # Errors
/// Those of the file system; when a layer is not on this machine.
pub fn link_layout(image: &Image, name: &str, folder: &Path) -> Result<()> {
    let blobs = folder.join("blobs/sha256");
    fs::create_dir_all(&blobs)?;
    for blob in each_once(image) {
        let path = blobs.join(blob.digest.hex());
        match &blob.source {
            BlobSource::Bytes(bytes) => fs::write(path, bytes)?,
            _ => symlink(fs::canonicalize(copy::file_of(blob)?)?, path)?,
        }
    }
    fs::write(folder.join("oci-layout"), OCI_LAYOUT)?;
    fs::write(folder.join("index.json"), index(image, &[name.to_owned()])?)?;
    Ok(())
}

fn each_once(image: &Image) -> impl Iterator<Item = &Blob> {
    let mut seen = BTreeSet::new();
    image.blobs().filter(move |blob| seen.insert(blob.digest))
}

/// The index of a layout that has the image under these names.
fn index(image: &Image, names: &[String]) -> Result<Vec<u8>> {
    let entry = |name: &String| {
        let mut entry = image.descriptor()?;
        let tag = name.rsplit_once(':').map_or("latest", |(_, tag)| tag);
        entry.set_annotations(Some(HashMap::from([
            (IMAGE_NAME.to_owned(), name.clone()),
            (REF_NAME.to_owned(), tag.to_owned()),
        ])));
        serde_json::to_value(&entry).map_err(|error| Error::bug("a descriptor has no JSON form").caused_by(error))
    };
    let entries = names.iter().map(entry).collect::<Result<Vec<_>>>()?;
    canonical(&json!({"schemaVersion": 2, "mediaType": media::INDEX, "manifests": entries}))
}
