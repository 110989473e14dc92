//! Files that are either whole or absent.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use fs_err as fs;

use super::error::{Error, Result};

/// Temporary files that have no name of their own yet. A signal ends the process without unwinding: they are
/// removed then, by [`remove_unfinished`].
static UNFINISHED: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// Removes all temporary files of this process that are not finished.
pub fn remove_unfinished() {
    for path in std::mem::take(&mut *UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner)) {
        // Most are gone: a dropped temporary file removes itself.
        let _ = fs::remove_file(path);
    }
}

/// Notes a temporary file for [`remove_unfinished`].
pub fn note_unfinished(path: &Path) {
    UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner).insert(path.to_owned());
}

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
    let file = tempfile::Builder::new()
        .prefix(".condaimg-")
        // Cut down by the process's umask, as any new file is.
        .permissions(std::fs::Permissions::from_mode(0o666))
        .tempfile_in(parent(path))
        .map_err(|error| named(path, error))?;
    note_unfinished(file.path());
    Ok(file)
}

/// Gives a finished temporary file its name.
///
/// # Errors
/// Those of the file system, naming the path.
pub fn persist(file: tempfile::NamedTempFile, path: &Path) -> Result<()> {
    let temporary = file.path().to_owned();
    file.persist(path).map_err(|error| named(path, error.error))?;
    UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner).remove(&temporary);
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
