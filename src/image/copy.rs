//! Copying blobs to files, verified on the way.

use std::io::{self, Read, Write};
use std::path::Path;

use fs_err as fs;

use crate::model::{Blob, BlobSource};
use crate::util::report::Progress;
use crate::util::{Error, Hasher, Result};

/// Writes the blob's bytes. What was written counts only when this succeeds.
///
/// # Errors
/// When the source cannot be read or is not what the digest says; those of `output`, which must name
/// themselves.
pub(super) fn copy_blob(blob: &Blob, output: &mut dyn Write, progress: &dyn Progress) -> Result<()> {
    match &blob.source {
        BlobSource::Bytes(bytes) => {
            output.write_all(bytes)?;
            progress.advance(bytes.len() as u64);
            Ok(())
        }
        BlobSource::File(path) => copy_file(blob, path, output, progress),
        BlobSource::Packed(path) => copy_packed(blob, path, output, progress),
        BlobSource::Registry(reference) => Err(not_local(blob, reference)),
    }
}

/// The file that holds a layer.
pub(super) fn file_of(blob: &Blob) -> Result<&Path> {
    match &blob.source {
        BlobSource::File(path) | BlobSource::Packed(path) => Ok(path),
        BlobSource::Registry(reference) => Err(not_local(blob, reference)),
        BlobSource::Bytes(_) => Err(Error::bug(format!("the layer {} is kept in memory", blob.digest))),
    }
}

fn not_local(blob: &Blob, reference: &str) -> Error {
    Error::bug(format!("the blob {} of `{reference}` was not fetched before it was written", blob.digest))
}

fn copy_file(blob: &Blob, path: &Path, output: &mut dyn Write, progress: &dyn Progress) -> Result<()> {
    let mut hasher = Hasher::default();
    each_piece(path, |piece| {
        hasher.update(piece);
        output.write_all(piece)?;
        progress.advance(piece.len() as u64);
        Ok(())
    })?;
    let (digest, size) = hasher.finish();
    if digest != blob.digest || size != blob.size {
        return Err(Error::user(format!("`{}` should be the blob {} and is {digest}", path.display(), blob.digest))
            .hint("the file is damaged: remove it and build again"));
    }
    Ok(())
}

/// What this process wrote was hashed then.
fn copy_packed(blob: &Blob, path: &Path, output: &mut dyn Write, progress: &dyn Progress) -> Result<()> {
    let mut size = 0;
    each_piece(path, |piece| {
        size += piece.len() as u64;
        output.write_all(piece)?;
        progress.advance(piece.len() as u64);
        Ok(())
    })?;
    check_size(blob, path, size)
}

/// Whether what was copied is as large as the blob: all that is looked at of one that this process has made.
pub(super) fn check_size(blob: &Blob, path: &Path, size: u64) -> Result<()> {
    match size == blob.size {
        true => Ok(()),
        false => Err(Error::user(format!("`{}` should have {} bytes and has {size}", path.display(), blob.size))
            .hint("something else has changed the cache meanwhile: build again")),
    }
}

fn each_piece(path: &Path, mut take: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let mut file = fs::File::open(path)?;
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => take(&buffer[..count])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
}
