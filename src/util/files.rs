//! Files that are either whole or absent.

use std::collections::BTreeSet;
use std::io::{self, Read as _, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use fs_err as fs;
use tempfile::NamedTempFile;

use super::error::{Error, Result};
use super::limits::Limit;

/// How the names of unfinished files begin, but for those in the store.
pub const UNFINISHED_PREFIX: &str = ".condaimg-";

/// What is at a path; none when nothing is. That it may not be looked at is an error, not nothing.
///
/// # Errors
/// When it cannot be told.
pub fn find(path: &Path) -> Result<Option<std::fs::Metadata>> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(Some(metadata)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Opens a file for reading that must be a regular one. A pipe, a socket or a device is never opened: reading it could
/// wait for ever. Files that a shell made of a pipe (`/dev/stdin`, `/dev/fd/63`) are read as they come, and so is
/// `/dev/null`.
///
/// # Errors
/// What is no regular file, named; those of the file system.
pub fn regular(path: &Path) -> Result<fs::File> {
    refuse_special(path)?;
    Ok(fs::File::open(path)?)
}

/// Refuses what [`regular`] does not open. What is not there is left to whoever opens it.
///
/// # Errors
/// As [`regular`].
pub fn refuse_special(path: &Path) -> Result<()> {
    use std::os::unix::fs::FileTypeExt as _;
    let is_given = ["/dev/fd", "/proc"].iter().any(|folder| path.starts_with(folder))
        || [Path::new("/dev/stdin"), Path::new("/dev/null")].contains(&path);
    let Some(kind) = fs::metadata(path).ok().filter(|_| !is_given).map(|metadata| metadata.file_type()) else {
        return Ok(());
    };
    let what = match kind {
        kind if kind.is_fifo() => "a named pipe",
        kind if kind.is_socket() => "a socket",
        kind if kind.is_block_device() || kind.is_char_device() => "a device",
        _ => return Ok(()),
    };
    Err(Error::user(format!("failed to read `{}`: expected a regular file, it is {what}", path.display()))
        .hint("name a regular file, or pass a pipe as `/dev/stdin`"))
}

/// The bytes of a regular file of a limited size.
///
/// # Errors
/// As [`regular`]; a file over the limit.
pub fn read_limited(path: &Path, limit: Limit) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    regular(path)?.take(limit.value().saturating_add(1)).read_to_end(&mut bytes).map_err(Error::from)?;
    match bytes.len() as u64 > limit.value() {
        true => Err(limit.exceeded(&format!("`{}` is longer than", path.display()))),
        false => Ok(bytes),
    }
}

/// Temporary files that have no name of their own yet. A signal ends the process without unwinding: they are
/// removed then, by [`remove_unfinished`].
static UNFINISHED: Mutex<Unfinished> = Mutex::new(Unfinished { paths: BTreeSet::new(), ending: false });

struct Unfinished {
    paths: BTreeSet<PathBuf>,
    /// Whether the process is about to end: threads that still work must not begin anything new.
    ending: bool,
}

/// Removes all temporary files of this process that are not finished, and allows no more.
pub fn remove_unfinished() {
    let mut unfinished = UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner);
    unfinished.ending = true;
    for path in std::mem::take(&mut unfinished.paths) {
        // Most are gone: a dropped temporary file removes itself.
        let _ = fs::remove_file(path);
    }
}

/// Makes a temporary file, which [`remove_unfinished`] knows from its first moment, and locks it until it is
/// closed, so that no other process sweeps it away; where the file system has no locks, it is not locked.
///
/// # Errors
/// Those of `make`, and that the process is about to end.
pub fn unfinished(make: impl FnOnce() -> io::Result<NamedTempFile>) -> io::Result<NamedTempFile> {
    let mut unfinished = UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner);
    if unfinished.ending {
        return Err(io::ErrorKind::Interrupted.into());
    }
    let file = make()?;
    unfinished.paths.insert(file.path().to_owned());
    let _ = file.as_file().lock();
    Ok(file)
}

/// Removes unfinished files that processes which are gone left in a folder. Best effort: what cannot be removed
/// stays.
pub fn sweep(folder: &Path) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().starts_with(UNFINISHED_PREFIX) {
            remove_abandoned(&entry.path());
        }
    }
}

/// Removes an unfinished file or folder, unless a living process holds its lock or it is so young that this
/// process may be about to lock it; whether it is gone.
pub fn remove_abandoned(path: &Path) -> bool {
    let Ok(file) = std::fs::File::open(path) else { return false };
    let age = file.metadata().and_then(|metadata| metadata.modified()).ok().and_then(|time| time.elapsed().ok());
    if file.try_lock().is_err() || age.is_none_or(|age| age <= YOUNG) {
        return false;
    }
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    removed.is_ok()
}

/// A file that is no older may be between its creation and its lock.
const YOUNG: Duration = Duration::from_secs(60);

/// Writes a file so that nobody ever sees a part of it: into a temporary file beside it, synced, then renamed.
/// A file that has these bytes already is left alone; a pipe or a device is written to as it is.
///
/// # Errors
/// Those of the file system, naming the path.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    if fs::metadata(path).is_ok_and(|metadata| !metadata.is_file() && !metadata.is_dir()) {
        // A pipe or a device is written to, and never replaced.
        return Ok(fs::OpenOptions::new().write(true).open(path)?.write_all(bytes)?);
    }
    // What a link leads to is replaced, not the link, which may be /dev/stdout.
    let target = std::fs::canonicalize(path);
    let path = target.as_deref().unwrap_or(path);
    if fs::metadata(path).is_ok_and(|metadata| metadata.len() == bytes.len() as u64)
        && fs::read(path).is_ok_and(|old| old == bytes)
    {
        return Ok(());
    }
    let folder = parent(path);
    fs::create_dir_all(folder)?;
    sweep(folder);
    let mut file = temporary_beside(path)?;
    file.write_all(bytes).and_then(|()| file.as_file().sync_data()).map_err(|error| named(path, error))?;
    persist(file, path)
}

/// A temporary file in the folder of `path`, with the mode that a new file of this user gets.
///
/// # Errors
/// Those of the file system, naming the path.
pub fn temporary_beside(path: &Path) -> Result<NamedTempFile> {
    use std::os::unix::fs::PermissionsExt as _;
    let mut builder = tempfile::Builder::new();
    // Cut down by the process's umask, as any new file is.
    builder.prefix(UNFINISHED_PREFIX).permissions(std::fs::Permissions::from_mode(0o666));
    unfinished(|| builder.tempfile_in(parent(path))).map_err(|error| named(path, error))
}

/// Gives a finished temporary file its name.
///
/// # Errors
/// Those of the file system, naming the path.
pub fn persist(file: NamedTempFile, path: &Path) -> Result<()> {
    let temporary = file.path().to_owned();
    file.persist(path).map_err(|error| named(path, error.error))?;
    UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner).paths.remove(&temporary);
    Ok(())
}

/// An I/O error that names the path it is about.
pub fn named(path: &Path, error: io::Error) -> Error {
    let kind = error.kind();
    io::Error::new(kind, format!("cannot write `{}`: {error}", path.display())).into()
}

/// An I/O error that names the file that cannot be read.
pub fn unread(path: &Path, error: io::Error) -> Error {
    let kind = error.kind();
    io::Error::new(kind, format!("cannot read `{}`: {error}", path.display())).into()
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_and_devices_are_written_through() {
        let folder = tempfile::tempdir().expect("a folder");
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        fs::write(&file, "old").expect("writes");
        std::os::unix::fs::symlink("file", &link).expect("links");
        write_atomic(&link, b"new").expect("writes");
        assert_eq!(fs::read(&file).expect("reads"), b"new");
        assert!(fs::symlink_metadata(&link).expect("is there").is_symlink());

        let null = folder.path().join("null");
        std::os::unix::fs::symlink("/dev/null", &null).expect("links");
        write_atomic(&null, b"gone").expect("writes");
        assert!(fs::symlink_metadata(&null).expect("is there").is_symlink());
    }
}
