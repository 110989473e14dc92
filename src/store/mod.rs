//! The local content-addressed store: archives as channels serve them, layer blobs, and what is known about
//! both. Safe under many processes: a file appears under its name only when it is whole, and equal names mean
//! equal bytes, so the last writer wins harmlessly. It knows nothing of conda.
//!
//! ```text
//! CACHE/v1/archives/<sha256>.<conda|tar.bz2>   what channels serve, verified
//! CACHE/v1/archives/<sha256>.tar.zst           what is in a .tar.bz2, which is slow to read
//! CACHE/v1/archives/<sha256>.<whl|sdist>       what indexes serve, verified; wheels that were built
//! CACHE/v1/blobs/sha256/<hex>                  layer blobs
//! CACHE/v1/records/<kind>/<key>.json           what is known: layer key → blob, archive → facts, ...
//! CACHE/v1/index/                              channel indexes (rattler's own format)
//! CACHE/v1/interpreters/<key>/                 unpacked CPythons that make byte code
//! CACHE/v1/uv/                                 uv's own cache
//! CACHE/v1/downloads/<sha256>.part             what was not received to its end, and will be resumed
//! CACHE/v1/lock                                keeps `prune` from what is being claimed
//! CACHE/v1/tmp/                                unfinished files; each locked by the process that writes it
//! ```

mod claim;
mod part;
mod usage;

use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use fs_err as fs;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::util::error::ResultExt as _;
use crate::util::files::{self, named, persist};
use crate::util::{Digest, Error, Hasher, Result};

pub use part::Part;
pub use usage::{Item, Limits, Pruned};

/// Names the version of the store's folder layout.
const VERSION: &str = "v1";

/// The store in one cache folder.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
}

/// What a record is about; one folder each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordKind {
    /// Layer key → blob.
    Layer,
    /// Segment key → place in a blob.
    Segment,
    /// Segment key → what its files lose in an image.
    Losses,
    /// Archive sha256 → package facts.
    Facts,
    /// Archive sha256 → what only its content tells.
    Content,
    /// Layer of a base → what matters of it.
    Base,
    /// Blob → repositories that have it.
    Places,
    /// Source of a Python package → the wheel that was built of it.
    Wheel,
}

impl RecordKind {
    fn folder(self) -> &'static str {
        match self {
            Self::Layer => "layers",
            Self::Segment => "segments",
            Self::Losses => "losses",
            Self::Facts => "facts",
            Self::Content => "contents",
            Self::Base => "bases",
            Self::Places => "places",
            Self::Wheel => "wheels",
        }
    }
}

impl Store {
    /// Opens the store in `cache`, making it when it does not exist.
    ///
    /// # Errors
    /// When the folder cannot be made or written to.
    pub fn open(cache: &Path) -> Result<Self> {
        let root = std::path::absolute(cache).map_err(|error| named(cache, error))?.join(VERSION);
        for folder in ["archives", "blobs/sha256", "records", "index", "interpreters", "downloads", "tmp"] {
            fs::create_dir_all(root.join(folder))
                .context(|| format!("the cache folder `{}` cannot be used", cache.display()))
                .map_err(|error| error.hint("choose another with `--cache-dir`"))?;
        }
        let store = Self { root };
        store.sweep();
        Ok(store)
    }

    /// The folder of channel indexes.
    pub fn index(&self) -> PathBuf {
        self.root.join("index")
    }

    /// The folder of an unpacked interpreter.
    pub fn interpreter(&self, key: &Digest) -> PathBuf {
        self.root.join("interpreters").join(key.hex())
    }

    /// The folder of uv's cache.
    pub fn uv(&self) -> PathBuf {
        self.root.join("uv")
    }

    /// The folder for unfinished work.
    pub fn scratch(&self) -> PathBuf {
        self.root.join("tmp")
    }

    /// Where the archive with this sha256 is or will be. `extension` is `conda` or `tar.bz2`.
    pub fn archive(&self, sha256: &Digest, extension: &str) -> PathBuf {
        self.root.join("archives").join(format!("{}.{extension}", sha256.hex()))
    }

    /// Where an unfinished download, of an archive or a blob, is kept between runs, so that it can be resumed.
    pub fn partial(&self, sha256: &Digest) -> PathBuf {
        self.root.join("downloads").join(format!("{}.part", sha256.hex()))
    }

    /// Where the blob with this digest is or will be.
    pub fn blob(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs").join("sha256").join(digest.hex())
    }

    /// Whether the blob is there, whole: of the expected size. It counts as used then.
    pub fn has_blob(&self, digest: &Digest, size: u64) -> bool {
        self.has_file(&self.blob(digest), Some(size))
    }

    /// Whether a file of the store is there, of the expected size if one is known. It counts as used then.
    pub fn has_file(&self, path: &Path, size: Option<u64>) -> bool {
        let there = self.claim(path);
        there.is_some_and(|it| it.is_file() && size.is_none_or(|size| size == it.len()))
    }

    fn is_blob(&self, digest: &Digest, size: u64) -> bool {
        std::fs::metadata(self.blob(digest)).is_ok_and(|metadata| metadata.is_file() && metadata.len() == size)
    }

    /// Begins a new blob.
    ///
    /// # Errors
    /// When no file can be made in the store.
    pub fn new_blob(&self) -> Result<BlobWriter> {
        Ok(BlobWriter { file: Some(self.temporary()?), hasher: Hasher::default(), store: self.clone() })
    }

    /// A temporary file in the store, locked so that another process's [`Store::open`] does not sweep it away.
    ///
    /// # Errors
    /// When no file can be made in the store.
    pub fn temporary(&self) -> Result<tempfile::NamedTempFile> {
        let folder = self.scratch();
        // Cut down by the process's umask, as any new file is: a cache may be shared by several users.
        let mode = std::fs::Permissions::from_mode(0o666);
        files::unfinished(|| tempfile::Builder::new().permissions(mode).tempfile_in(&folder))
            .map_err(|error| named(&folder, error))
    }

    /// Reads what is known under a key; nothing when there is no record or it cannot be read.
    pub fn record<T: DeserializeOwned>(&self, kind: RecordKind, key: &Digest) -> Option<T> {
        let bytes = std::fs::File::open(self.record_path(kind, key)).ok()?;
        serde_json::from_reader(BufReader::new(bytes)).ok()
    }

    /// Remembers something under a key.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn remember<T: Serialize>(&self, kind: RecordKind, key: &Digest, value: &T) -> Result<()> {
        let path = self.record_path(kind, key);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        // Unfinished in the store's own folder for that, which is swept.
        let mut file = self.temporary()?;
        file.write_all(&crate::util::json::canonical(value)?).map_err(|error| named(&path, error))?;
        // Not while a clean-up looks at the one that is there.
        self.together(|| persist(file, &path))
    }

    /// Removes a blob that is damaged. Best effort: what cannot be removed stays.
    pub fn remove_blob(&self, digest: &Digest) {
        let _ = fs::remove_file(self.blob(digest));
    }

    fn record_path(&self, kind: RecordKind, key: &Digest) -> PathBuf {
        self.root.join("records").join(kind.folder()).join(format!("{}.json", key.hex()))
    }

    /// Removes unfinished files that no living process writes. Best effort: what cannot be removed stays.
    fn sweep(&self) {
        let Ok(entries) = std::fs::read_dir(self.scratch()) else { return };
        for entry in entries.flatten() {
            files::remove_abandoned(&entry.path());
        }
    }
}

/// A blob that is being written; it enters the store when it is finished, or not at all.
pub struct BlobWriter {
    file: Option<tempfile::NamedTempFile>,
    hasher: Hasher,
    store: Store,
}

impl BlobWriter {
    /// Puts the blob into the store; returns its digest and size.
    ///
    /// # Errors
    /// Those of the file system; a digest other than `expected`.
    pub fn finish(mut self, expected: Option<&Digest>) -> Result<(Digest, u64)> {
        self.complete(expected)
    }

    /// As [`Self::finish`], for an owner that cannot give the writer away. It takes no more bytes afterwards.
    ///
    /// # Errors
    /// As [`Self::finish`].
    pub fn complete(&mut self, expected: Option<&Digest>) -> Result<(Digest, u64)> {
        let file = self.file.take().ok_or_else(finished)?;
        let (digest, size) = std::mem::take(&mut self.hasher).finish();
        if let Some(expected) = expected
            && *expected != digest
        {
            return Err(damaged(expected, &digest));
        }
        persist(file, &self.store.blob(&digest))?;
        Ok((digest, size))
    }

    /// Fills the blob from a reader to its end.
    ///
    /// # Errors
    /// Those of the reader and of the file system.
    pub fn fill(&mut self, mut reader: impl Read) -> io::Result<u64> {
        io::copy(&mut reader, self)
    }
}

impl Write for BlobWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let file = self.file.as_mut().ok_or_else(finished)?;
        file.as_file_mut().write_all(bytes).map_err(|error| io::Error::from(named(&self.store.root, error)))?;
        self.hasher.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An error about a blob that is not what it should be.
pub fn damaged(expected: &Digest, found: &Digest) -> Error {
    Error::user(format!("a blob that should be {expected} is {found}"))
        .hint("it was damaged on its way or on the server; try again")
}

fn finished() -> Error {
    Error::bug("a finished blob was written to")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_enters_the_store_only_when_it_is_what_was_expected() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(folder.path()).expect("opens");
        let mut writer = store.new_blob().expect("begins");
        writer.write_all(b"abc").expect("writes");
        let wrong = Digest::of("abd");
        assert!(writer.finish(Some(&wrong)).is_err());
        assert!(!store.has_blob(&wrong, 3));
        assert!(!store.has_blob(&Digest::of("abc"), 3));

        let mut writer = store.new_blob().expect("begins");
        writer.write_all(b"abc").expect("writes");
        let (digest, size) = writer.finish(Some(&Digest::of("abc"))).expect("finishes");
        assert!(store.has_blob(&digest, size));
        assert!(!store.has_blob(&digest, size + 1));
    }
}
