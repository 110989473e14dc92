//! Writing OCI archives: the tar of a layout with one image.

use std::io::Write;
use std::path::Path;

use serde_json::json;

use super::layout::{OCI_LAYOUT, index_of_layout, names};
use super::output::{Contents, OutputFile, Written};
use super::{Image, copy};
use crate::model::Blob;
use crate::util::json::canonical;
use crate::util::report::Progress;
use crate::util::tarball::{self, TarKind};
use crate::util::{Result, ResultExt as _};

/// Nothing in an archive depends on when it was written.
pub(super) const MTIME: u64 = 0;
/// The mode of its files.
pub(super) const FILE: u32 = 0o644;
/// The mode of its folders.
pub(super) const FOLDER: u32 = 0o755;

/// Writes an image, of one platform or several, as the tar of an OCI layout; equal images give equal bytes.
/// Layers must be on this machine (see [`super::localise`]). With several tags, an image of one platform gets the
/// `manifest.json` of a docker archive too, as `docker save` writes it: podman loads no layout with several entries.
///
/// # Errors
/// When a source is damaged or the disk is full; an archive that was there is then left as it was.
pub fn write_oci_archive<'a>(
    images: &[Image],
    path: &Path,
    tags: impl IntoIterator<Item = &'a str>,
    progress: &dyn Progress,
) -> Result<Written> {
    let tags: Vec<&str> = tags.into_iter().collect();
    let legacy = match images {
        [image] if tags.len() > 1 => Some(docker_manifest(image, &tags)?),
        _ => None,
    };
    write_files(&Contents::of_images(images)?, path, &tags, legacy.as_deref(), progress)
}

/// As [`write_oci_archive`], for any contents.
///
/// # Errors
/// As there.
pub fn write_oci_archive_of(contents: &Contents, path: &Path, progress: &dyn Progress) -> Result<Written> {
    write_files(contents, path, &[], None, progress)
}

fn write_files(
    contents: &Contents,
    path: &Path,
    tags: &[&str],
    legacy: Option<&[u8]>,
    progress: &dyn Progress,
) -> Result<Written> {
    let index = canonical(&index_of_layout(None, contents, &names(tags.iter().copied())?)?)?;
    progress.grow(contents.blobs.iter().map(|blob| blob.size).sum());
    // The small files first, so that who reads from a pipe knows what comes.
    let mut files = vec![("oci-layout", OCI_LAYOUT), ("index.json", &index)];
    files.extend(legacy.map(|bytes| ("manifest.json", bytes)));
    let bytes_written = write(contents, path, &files, progress)
        .context(|| format!("the image cannot be written to `{}`", path.display()))?;
    Ok(Written { digest: contents.digest, bytes_written })
}

fn write(contents: &Contents, path: &Path, files: &[(&str, &[u8])], progress: &dyn Progress) -> Result<u64> {
    let mut output = OutputFile::create(path)?;
    for (name, bytes) in files {
        tarball::file(&mut output, name, bytes, FILE, MTIME)?;
    }
    for folder in ["blobs", "blobs/sha256"] {
        tarball::header(&mut output, folder, TarKind::Directory, FOLDER, MTIME)?;
    }
    let mut blobs: Vec<&Blob> = contents.blobs.iter().collect();
    blobs.sort_by_key(|blob| blob.digest);
    for blob in blobs {
        let copy = |output: &mut dyn Write| copy::copy_blob(blob, output, progress);
        tarball::file_from(&mut output, path_of(blob), blob.size, FILE, MTIME, copy)?;
    }
    tarball::end(&mut output)?;
    output.finish()
}

/// The `manifest.json` by which an archive of a layout is a docker archive at the same time.
pub(super) fn docker_manifest(image: &Image, tags: &[impl AsRef<str>]) -> Result<Vec<u8>> {
    let tags: Vec<&str> = tags.iter().map(AsRef::as_ref).collect();
    let layers: Vec<String> = image.layers.iter().map(|layer| path_of(&layer.blob)).collect();
    canonical(&json!([{"Config": path_of(&image.config), "RepoTags": tags, "Layers": layers}]))
}

/// Where a blob lies in a layout.
pub(super) fn path_of(blob: &Blob) -> String {
    format!("blobs/sha256/{}", blob.digest.hex())
}
