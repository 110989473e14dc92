//! A download that outlives its process: locked, hashed as it grows, named when it is whole.
//!
//! It grows in a `.part` file that is locked (flock(2)) by whoever writes it, and gets its name by a rename, after its
//! hash was compared with the one that is expected. So at any byte a process may be killed: the next run finds a
//! `.part` that it continues, or the whole thing. And of two processes that want the same one waits and then finds it.

use std::fs::TryLockError;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fs_err as fs;
use rattler_digest::digest::Digest as _;
use rattler_digest::{Md5, Sha256};

use crate::util::files::named;
use crate::util::{Digest, Error, Result};

/// How long to wait between two looks at a lock that another process holds: longer each time. A wait in the
/// kernel would block its thread and could not be interrupted.
const SHORTEST_POLL: Duration = Duration::from_millis(5);
const LONGEST_POLL: Duration = Duration::from_millis(100);

/// The `.part` of an archive or a blob, held by a lock as long as this lives.
pub struct Part {
    path: PathBuf,
    file: fs::File,
    hashes: Hashes,
    /// Bytes in the file.
    len: u64,
}

/// What the bytes so far amount to.
#[derive(Clone, Default)]
struct Hashes {
    sha256: Sha256,
    /// Only for what has no sha256 in its index: it costs half as much again.
    md5: Option<Md5>,
    /// How many bytes they cover: fewer than the file has when it is of an earlier run.
    covered: u64,
}

impl Hashes {
    fn new(with_md5: bool) -> Self {
        Self { md5: with_md5.then(Md5::default), ..Self::default() }
    }

    fn anew(&self) -> Self {
        Self::new(self.md5.is_some())
    }

    fn update(&mut self, bytes: &[u8]) {
        self.sha256.update(bytes);
        if let Some(md5) = &mut self.md5 {
            md5.update(bytes);
        }
        self.covered += bytes.len() as u64;
    }
}

impl Part {
    /// Takes the file, as soon as no other process has it; nothing when `done` says that the whole thing is there.
    ///
    /// # Errors
    /// When there can be no such file, or it cannot be locked.
    pub async fn lock(path: PathBuf, with_md5: bool, done: impl Fn() -> bool) -> Result<Option<Self>> {
        loop {
            let file = fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path)?;
            let mut wait = SHORTEST_POLL;
            while !try_lock(&file, &path)? {
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(LONGEST_POLL);
            }
            // While it waited, the file may have become whole, or have been removed.
            let mine = file.metadata()?;
            let still_there = fs::metadata(&path).is_ok_and(|now| now.ino() == mine.ino() && now.dev() == mine.dev());
            if done() {
                if still_there {
                    let _ = fs::remove_file(&path);
                }
                return Ok(None);
            }
            if still_there {
                return Ok(Some(Self { path, file, hashes: Hashes::new(with_md5), len: mine.len() }));
            }
        }
    }

    /// The number of bytes so far.
    pub fn size(&self) -> u64 {
        self.len
    }

    /// Hashes what an earlier run left; whether there was anything.
    ///
    /// # Errors
    /// Those of the file system, as of all that follows.
    pub async fn rehash(&mut self) -> Result<bool> {
        if self.hashes.covered == self.len {
            return Ok(false);
        }
        let mut file = fs::File::open(&self.path)?;
        let mut hashes = self.hashes.anew();
        let (hashes, len) = blocking(move || {
            pump(&mut file, |bytes| {
                hashes.update(bytes);
                Ok(())
            })?;
            let len = hashes.covered;
            Ok((hashes, len))
        })
        .await?;
        (self.hashes, self.len) = (hashes, len);
        self.seek_to_end()?;
        Ok(true)
    }

    /// Empties it.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn clear(&mut self) -> Result<()> {
        if self.len > 0 {
            self.file.set_len(0)?;
        }
        (self.hashes, self.len) = (self.hashes.anew(), 0);
        self.seek_to_end()
    }

    /// Appends.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes)?;
        self.hashes.update(bytes);
        self.len += bytes.len() as u64;
        Ok(())
    }

    /// Appends a file, but hardly more than `most` bytes.
    ///
    /// # Errors
    /// Those of the file system.
    pub async fn copy(&mut self, source: fs::File, most: Option<u64>) -> Result<()> {
        let mut target = self.file.file().try_clone()?;
        let path = self.path.clone();
        let mut hashes = self.hashes.clone();
        self.hashes = blocking(move || {
            // One byte more than expected tells that it is too long.
            let mut source = source.take(most.map_or(u64::MAX, |most| most.saturating_add(1)));
            pump(&mut source, |bytes| {
                target.write_all(bytes).map_err(|error| named(&path, error))?;
                hashes.update(bytes);
                Ok(())
            })?;
            Ok(hashes)
        })
        .await?;
        self.len = self.hashes.covered;
        Ok(())
    }

    /// The sha256 of the bytes so far.
    pub fn sha256(&self) -> Digest {
        Digest::from_bytes(self.hashes.sha256.clone().finalize().into())
    }

    /// Their md5, where it was asked for.
    pub fn md5(&self) -> Option<[u8; 16]> {
        self.hashes.md5.clone().map(|md5| md5.finalize().into())
    }

    /// Gives the whole thing its name. On the disk first: a machine that goes down leaves all of it or nothing.
    ///
    /// # Errors
    /// Those of the file system.
    pub async fn finish(self, path: &Path) -> Result<()> {
        let target = path.to_owned();
        blocking(move || {
            self.file.sync_data()?;
            fs::rename(&self.path, &target)?;
            Ok(())
        })
        .await
    }

    /// Takes it away; what cannot be removed stays, to be emptied by the next run.
    pub fn remove(&self) {
        let _ = fs::remove_file(&self.path);
    }

    fn seek_to_end(&mut self) -> Result<()> {
        use std::io::Seek as _;
        self.file.seek(io::SeekFrom::Start(self.len))?;
        Ok(())
    }
}

fn try_lock(file: &fs::File, path: &Path) -> Result<bool> {
    match file.file().try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(Error::user(format!("`{}` cannot be locked", path.display()))
            .caused_by(error)
            .hint("choose a cache folder on a file system with locks, with `--cache-dir`")),
    }
}

/// Reads to the end in large pieces.
fn pump(reader: &mut impl io::Read, mut take: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => take(&buffer[..count])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Runs what waits for the disk where it holds up nobody.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Error::bug("work on a file broke down").caused_by(error)),
    }
}
