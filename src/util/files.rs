//! Files that are either whole or absent.

use std::io::Write;
use std::path::Path;

use fs_err as fs;

use super::error::{Error, Result};

/// Writes a file so that nobody ever sees a part of it: into a temporary file beside it, synced, then renamed.
/// A file that has these bytes already is left alone.
///
/// # Errors
/// Those of the file system, naming the path.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    if fs::metadata(path).is_ok_and(|metadata| metadata.len() == bytes.len() as u64)
        && fs::read(path).is_ok_and(|old| old == bytes)
    {
        return Ok(());
    }
    let folder = parent(path);
    fs::create_dir_all(folder)?;
    let mut file = temporary_beside(path)?;
    file.write_all(bytes).and_then(|()| file.as_file().sync_data()).map_err(|error| named(path, error))?;
    persist(file, path)
}

/// A temporary file in the folder of `path`, with the mode that a new file of this user gets.
///
/// # Errors
/// Those of the file system, naming the path.
pub fn temporary_beside(path: &Path) -> Result<tempfile::NamedTempFile> {
    use std::os::unix::fs::PermissionsExt as _;
    tempfile::Builder::new()
        .prefix(".condaimg-")
        // Cut down by the process's umask, as any new file is.
        .permissions(std::fs::Permissions::from_mode(0o666))
        .tempfile_in(parent(path))
        .map_err(|error| named(path, error))
}

/// Gives a finished temporary file its name.
///
/// # Errors
/// Those of the file system, naming the path.
pub fn persist(file: tempfile::NamedTempFile, path: &Path) -> Result<()> {
    file.persist(path).map_err(|error| named(path, error.error))?;
    Ok(())
}

/// An I/O error that names the path it is about.
pub fn named(path: &Path, error: std::io::Error) -> Error {
    let kind = error.kind();
    std::io::Error::new(kind, format!("cannot write `{}`: {error}", path.display())).into()
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}
