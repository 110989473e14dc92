//! Whether what lies in the store still has the bytes that its name or its record promises.
//!
//! A file is hashed when its bytes are about to be used, once a process: it counts as the same as long as nothing about
//! it changes that a write changes, too (inode, size, both times; nobody can set the time of the last change). What is
//! written by this process was hashed then. So a warm build, which reads no blob, hashes none.

use std::collections::{BTreeSet, HashMap};
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tempfile::NamedTempFile;

use super::Store;
use crate::util::report::SharedReporter;
use crate::util::{Digest, Error, Hasher, Result, files, parallel};

/// Writes during the hashing that are put up with: claims of other processes change times, too.
const LOOKS: usize = 5;

/// What this process knows of files in the store.
#[derive(Default)]
pub(super) struct Verified {
    files: Mutex<HashMap<PathBuf, (Identity, Digest)>>,
    discarded: Mutex<BTreeSet<PathBuf>>,
    told_foreign: std::sync::atomic::AtomicBool,
    reporter: Mutex<Option<SharedReporter>>,
}

impl std::fmt::Debug for Verified {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verified").finish_non_exhaustive()
    }
}

/// What changes whenever a file is replaced or written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    place: (u64, u64),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Identity {
    fn of(metadata: &Metadata) -> Self {
        Self {
            place: (metadata.dev(), metadata.ino()),
            size: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// A file with what was told of it before its bytes were read.
struct Seen {
    file: File,
    identity: Identity,
}

/// Opens a pipe without waiting for who writes to it.
pub(super) const NONBLOCK: i32 = rustix::fs::OFlags::NONBLOCK.bits() as i32;

/// Opens a regular file; anything else, e.g. a pipe, which would be waited for, is an error.
pub(super) fn open_regular(path: &Path) -> io::Result<File> {
    let file = File::options().read(true).custom_flags(NONBLOCK).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::new(io::ErrorKind::InvalidData, "not a regular file")),
    }
}

impl Store {
    /// Takes notices of what is damaged from now on.
    #[must_use]
    pub fn telling(self, reporter: SharedReporter) -> Self {
        *guard(&self.verified.reporter) = Some(reporter);
        self
    }

    /// Whether a file of the store is there and has this sha256. Something else in its place is damaged: it is removed,
    /// which is told. It counts as used then.
    pub fn is_whole(&self, path: &Path, sha256: &Digest) -> bool {
        if std::fs::symlink_metadata(path).is_err() {
            return false;
        }
        for _ in 0..LOOKS {
            match self.look(path, sha256) {
                Ok(Some(true)) => return true,
                Ok(Some(false)) => break,
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => return false,
                Err(_) => break,
            }
        }
        self.discard(path);
        false
    }

    /// Whether a file has a digest; nothing when it was replaced or written to meanwhile.
    fn look(&self, path: &Path, sha256: &Digest) -> io::Result<Option<bool>> {
        open_regular(path)?;
        self.claim(path);
        let Seen { file, identity } = Seen::open(path)?;
        if self.known(path, identity) == Some(*sha256) {
            return Ok(Some(true));
        }
        let (found, _) = Hasher::drain(&file)?;
        // By its name: another process may have put another one there.
        if Identity::of(&std::fs::metadata(path)?) != identity {
            return Ok(None);
        }
        if found == *sha256 {
            self.note(path, identity, found);
        }
        Ok(Some(found == *sha256))
    }

    /// Whether the blob is there and has the bytes that its digest promises. As [`Self::is_whole`].
    pub fn has_whole_blob(&self, digest: &Digest, size: u64) -> bool {
        let path = self.blob(digest);
        self.is_whole(&path, digest) && self.has_blob(digest, size)
    }

    /// Where a blob is that has the bytes that its digest promises. As [`Self::is_whole`], hashed where it holds up nobody.
    pub async fn find_blob(&self, digest: &Digest, size: u64) -> Option<PathBuf> {
        let (store, digest) = (self.clone(), *digest);
        let looking =
            tokio::task::spawn_blocking(move || store.has_whole_blob(&digest, size).then(|| store.blob(&digest)));
        looking.await.ok().flatten()
    }

    /// The same for many blobs, with `jobs` threads; those that are whole.
    pub fn whole_blobs(&self, blobs: &BTreeSet<(Digest, u64)>, jobs: usize) -> BTreeSet<Digest> {
        let blobs: Vec<&(Digest, u64)> = blobs.iter().collect();
        let whole = parallel(&blobs, jobs, |(digest, size)| Ok(self.has_whole_blob(digest, *size).then_some(*digest)));
        whole.unwrap_or_default().into_iter().flatten().collect()
    }

    /// Opens a file of the store to be read. One that was verified before, and was written to since, is hashed again.
    ///
    /// # Errors
    /// When it is not there, or is not what it was.
    pub fn open_verified(&self, path: &Path) -> Result<File> {
        let file = open_regular(path).map_err(|error| files::unread(path, error))?;
        self.check_unchanged(path, &file)?;
        Ok(file)
    }

    /// Whether an open file of the store has the bytes that were verified.
    ///
    /// # Errors
    /// When it has not, or cannot be read.
    pub fn check_unchanged(&self, path: &Path, file: &File) -> Result<()> {
        let Some((known, sha256)) = guard(&self.verified.files).get(path).copied() else { return Ok(()) };
        for _ in 0..LOOKS {
            let identity = Identity::of(&file.metadata()?);
            if identity == known {
                return Ok(());
            }
            let found = Hasher::drain(FromStart { file, offset: 0 })?.0;
            if Identity::of(&file.metadata()?) != identity {
                continue;
            }
            if found == sha256 {
                self.note(path, identity, sha256);
                return Ok(());
            }
            break;
        }
        Err(Error::user(format!("`{}` in the cache was written to while it was used", self.shown(path)))
            .hint("build again; share a cache only with those who may choose your images (docs/caching.md)"))
    }

    /// Whether this process has verified a file, and nothing has written to it since.
    pub fn is_verified(&self, path: &Path, sha256: &Digest) -> bool {
        Seen::open(path).is_ok_and(|seen| self.known(path, seen.identity) == Some(*sha256))
    }

    /// The digest of a file that was hashed by this process, and that nothing has written to since; else it is hashed.
    pub(super) fn digest_of(&self, path: &Path) -> Option<Digest> {
        let seen = Seen::open(path).ok()?;
        if let Some(known) = self.known(path, seen.identity) {
            return Some(known);
        }
        let (found, _) = Hasher::drain(&seen.file).ok()?;
        self.note(path, seen.identity, found);
        Some(found)
    }

    /// Takes note of a file that this process has just put there, and hashed before.
    pub fn note_whole(&self, path: &Path, sha256: &Digest) {
        if let Ok(Seen { identity, .. }) = Seen::open(path) {
            self.note(path, identity, *sha256);
        }
    }

    /// Removes something damaged, whatever it is, and tells it. Best effort: what cannot be removed stays.
    pub(super) fn discard(&self, path: &Path) {
        if remove(path).is_err() && std::fs::symlink_metadata(path).is_ok() {
            return;
        }
        guard(&self.verified.files).remove(path);
        if guard(&self.verified.discarded).insert(path.to_owned()) {
            self.tell(&format!(
                "`{}` in the cache is damaged: removed it, and it is fetched or made again",
                self.shown(path)
            ));
        }
    }

    /// Removes an interpreter that is not what was unpacked; `told`, if it was known what that is.
    pub fn discard_interpreter(&self, key: &Digest, told: bool) {
        let folder = self.interpreter(key);
        match told {
            true => self.discard(&folder),
            false => drop(remove(&folder)),
        }
    }

    /// Removes a damaged blob, and tells it.
    pub fn discard_blob(&self, digest: &Digest) {
        self.discard(&self.blob(digest));
    }

    /// Whether this process has removed a blob because it was damaged.
    pub fn has_discarded(&self, digest: &Digest) -> bool {
        guard(&self.verified.discarded).contains(&self.blob(digest))
    }

    /// Says once that there are records which the key does not vouch for.
    pub(super) fn tell_foreign(&self) {
        if !self.verified.told_foreign.swap(true, std::sync::atomic::Ordering::Relaxed) {
            self.tell("the cache holds things without a valid MAC of `--cache-key`: they are made again");
        }
    }

    fn tell(&self, notice: &str) {
        let reporter = guard(&self.verified.reporter).clone();
        if let Some(reporter) = reporter {
            reporter.notice(notice);
        }
    }

    /// Puts a finished file with this sha256 into the store.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn put(&self, file: NamedTempFile, path: &Path, sha256: &Digest) -> Result<()> {
        self.place(file, path)?;
        self.note_whole(path, sha256);
        Ok(())
    }

    /// Gives a finished file its name; a directory in its place is removed.
    pub(super) fn place(&self, file: NamedTempFile, path: &Path) -> Result<()> {
        if std::fs::symlink_metadata(path).is_ok_and(|it| it.is_dir()) {
            self.discard(path);
        }
        files::persist(file, path)
    }

    fn known(&self, path: &Path, identity: Identity) -> Option<Digest> {
        let files = guard(&self.verified.files);
        files.get(path).filter(|(known, _)| *known == identity).map(|(_, sha256)| *sha256)
    }

    fn note(&self, path: &Path, identity: Identity, sha256: Digest) {
        guard(&self.verified.files).insert(path.to_owned(), (identity, sha256));
    }
}

impl Seen {
    fn open(path: &Path) -> io::Result<Self> {
        let file = open_regular(path)?;
        let identity = Identity::of(&file.metadata()?);
        Ok(Self { file, identity })
    }
}

/// Reads a file from its start, and leaves the file's own position alone.
struct FromStart<'a> {
    file: &'a File,
    offset: u64,
}

impl io::Read for FromStart<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = std::os::unix::fs::FileExt::read_at(self.file, buffer, self.offset)?;
        self.offset += count as u64;
        Ok(count)
    }
}

/// Removes whatever is at a path.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path)?.is_dir() {
        true => fs_err::remove_dir_all(path),
        false => fs_err::remove_file(path),
    }
}

fn guard<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use fs_err as fs;

    use super::*;

    fn bench() -> (tempfile::TempDir, Store, PathBuf, Digest) {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(folder.path()).expect("opens");
        let digest = Digest::of("whole");
        let path = store.archive(&digest, "conda");
        fs::write(&path, "whole").expect("writes");
        (folder, store, path, digest)
    }

    #[test]
    fn file_of_the_same_size_and_time_is_hashed_again() {
        let (_folder, store, path, digest) = bench();
        assert!(store.is_whole(&path, &digest) && store.is_verified(&path, &digest));
        let time = fs::metadata(&path).and_then(|it| it.modified()).expect("a time");
        fs::write(&path, "whale").expect("writes");
        File::options().write(true).open(&path).and_then(|file| file.set_modified(time)).expect("sets its time");
        assert!(!store.is_verified(&path, &digest));
        assert!(!store.is_whole(&path, &digest));
        assert!(!path.exists() && !store.is_whole(&path, &digest));
    }

    #[test]
    fn directory_pipe_and_dangling_symlink_are_removed() {
        let (_folder, store, path, digest) = bench();
        let kinds: [fn(&Path); 3] = [
            |path| fs::create_dir_all(path.join("x")).expect("makes"),
            |path| {
                let made = std::process::Command::new("mkfifo").arg(path).status();
                assert!(made.expect("runs").success());
            },
            |path| std::os::unix::fs::symlink("/dev/null", path).expect("links"),
        ];
        for make in kinds {
            let _ = remove(&path);
            make(&path);
            assert!(!store.is_whole(&path, &digest));
            assert!(fs::symlink_metadata(&path).is_err());
        }
    }

    #[test]
    fn file_that_is_written_to_while_open_is_noticed() {
        let (_folder, store, path, digest) = bench();
        assert!(store.is_whole(&path, &digest));
        let file = store.open_verified(&path).expect("opens");
        fs::write(&path, "whole").expect("writes");
        store.check_unchanged(&path, &file).expect("has the same bytes");
        fs::write(&path, "whale").expect("writes");
        assert!(store.check_unchanged(&path, &file).is_err());
        assert!(store.open_verified(&path).is_err());
    }
}
