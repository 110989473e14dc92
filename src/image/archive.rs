//! Writing OCI archives: the tar of a layout with one image.

use std::io::Write;
use std::path::Path;

use super::layout::{OCI_LAYOUT, check_tag, index_of_layout};
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
/// Layers must be on this machine (see [`super::localise`]).
///
/// # Errors
/// When a source is damaged or the disk is full; an archive that was there is then left as it was.
pub fn write_oci_archive(images: &[Image], path: &Path, tag: Option<&str>, progress: &dyn Progress) -> Result<Written> {
    write_oci_archive_of(&Contents::of_images(images)?, path, tag, progress)
}

/// As [`write_oci_archive`], for any contents.
///
/// # Errors
/// As there.
pub fn write_oci_archive_of(
    contents: &Contents,
    path: &Path,
    tag: Option<&str>,
    progress: &dyn Progress,
) -> Result<Written> {
    check_tag(tag)?;
    progress.grow(contents.blobs.iter().map(|blob| blob.size).sum());
    let bytes_written = write(contents, path, tag, progress)
        .context(|| format!("the image cannot be written to `{}`", path.display()))?;
    Ok(Written { digest: contents.digest, bytes_written })
}

fn write(contents: &Contents, path: &Path, tag: Option<&str>, progress: &dyn Progress) -> Result<u64> {
    let mut output = OutputFile::create(path)?;
    let index = canonical(&index_of_layout(None, contents, tag)?)?;
    // The small files first, so that who reads from a pipe knows what comes.
    for (name, bytes) in [("oci-layout", OCI_LAYOUT), ("index.json", &index)] {
        tarball::file(&mut output, name, bytes, FILE, MTIME)?;
    }
    for folder in ["blobs", "blobs/sha256"] {
        tarball::header(&mut output, folder, TarKind::Directory, FOLDER, MTIME)?;
    }
    let mut blobs: Vec<&Blob> = contents.blobs.iter().collect();
    blobs.sort_by_key(|blob| blob.digest);
    for blob in blobs {
        let name = format!("blobs/sha256/{}", blob.digest.hex());
        let copy = |output: &mut dyn Write| copy::copy_blob(blob, output, progress);
        tarball::file_from(&mut output, name, blob.size, FILE, MTIME, copy)?;
    }
    tarball::end(&mut output)?;
    output.finish()
}
