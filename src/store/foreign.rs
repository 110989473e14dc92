//! Directories of the store that others fill: channel indexes (rattler) and uv's cache. What lies there is noted when
//! nobody uses it any more, and compared before the next use.
//!
//! Who uses such a directory holds a shared lock. Only who is alone compares and notes: what others are writing is neither
//! whole nor known yet. What was not noted, because its process was killed, goes after an hour.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::claim::IN_USE;
use super::verify::remove;
use super::{RecordKind, Store};
use crate::util::{Digest, Result, files};

/// How long is waited for who compares.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often it is looked after.
const TICK: Duration = Duration::from_millis(5);

/// What is in a directory, by path: digests of files, and of the targets of symlinks.
type Files = BTreeMap<String, Digest>;

/// A directory of the store that others fill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Foreign {
    /// Channel indexes: files that stand for themselves.
    Index,
    /// uv's cache: when something of it is damaged, all of it goes.
    Uv,
}

/// The use of a directory that others fill; it ends when this is dropped.
#[derive(Debug)]
pub struct Using {
    store: Store,
    kind: Foreign,
    folder: PathBuf,
    lock: Option<File>,
    /// Used instead, where the directory cannot be vouched for.
    private: Option<tempfile::TempDir>,
}

impl Store {
    /// Begins to use a directory that others fill: what is damaged in it is removed, which is told.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn using(&self, kind: Foreign) -> Result<Using> {
        let folder = match kind {
            Foreign::Index => self.index(),
            Foreign::Uv => self.uv(),
        };
        let mut using = Using { store: self.clone(), kind, folder, lock: self.lock_of(kind), private: None };
        let is_alone = using.lock.as_ref().is_none_or(|lock| lock.try_lock().is_ok());
        if is_alone {
            using.compare();
        } else if self.key.is_some() {
            // Others may be writing to it whom the key does not vouch for.
            let scratch = self.scratch();
            let made = tempfile::Builder::new().prefix("private-").tempdir_in(&scratch);
            let made = made.map_err(|error| files::named(&scratch, error))?;
            // So that no other process sweeps it away.
            using.lock = File::open(made.path()).ok().filter(|held| held.lock().is_ok());
            using.private = Some(made);
            return Ok(using);
        }
        if let Some(lock) = &using.lock {
            let _ = lock.unlock();
            let deadline = Instant::now() + PATIENCE;
            while lock.try_lock_shared().is_err() && Instant::now() < deadline {
                std::thread::sleep(TICK);
            }
        }
        Ok(using)
    }

    fn lock_of(&self, kind: Foreign) -> Option<File> {
        let path = self.root.join(match kind {
            Foreign::Index => "index.lock",
            Foreign::Uv => "uv.lock",
        });
        File::options().read(true).write(true).create(true).truncate(false).open(path).ok()
    }
}

impl Using {
    /// Where it is.
    pub fn path(&self) -> &Path {
        self.private.as_ref().map_or(&self.folder, tempfile::TempDir::path)
    }

    fn key(&self) -> Digest {
        Digest::of(self.store.shown(&self.folder))
    }

    /// Removes what is not as it was noted.
    fn compare(&self) {
        let noted: Option<Files> = self.store.record(RecordKind::Foreign, &self.key());
        let has_key = self.store.key.is_some();
        // An older version noted nothing.
        let Some(noted) = noted.or_else(|| has_key.then(Files::default)) else { return };
        let mut found = BTreeMap::new();
        list(&self.folder, &self.folder, &mut found);
        // A directory in the place of a file has other names in it.
        let replaced =
            noted.keys().map(|name| (name.clone(), self.folder.join(name))).filter(|(_, path)| path.is_dir());
        found.extend(replaced);
        for (name, path) in found {
            let damaged = match noted.get(&name) {
                Some(digest) => !self.is_same(&path, digest),
                None => has_key || is_old(&path),
            };
            let is_told = noted.contains_key(&name);
            match self.kind {
                _ if !damaged => {}
                Foreign::Index if is_told => self.store.discard(&path),
                Foreign::Index => drop(remove(&path)),
                Foreign::Uv => {
                    match is_told {
                        true => self.store.discard(&self.folder),
                        false => drop(remove(&self.folder)),
                    }
                    return;
                }
            }
        }
    }

    /// Takes note of what is there.
    fn note(&self) {
        let mut found = BTreeMap::new();
        list(&self.folder, &self.folder, &mut found);
        let digest = |(name, path): (String, PathBuf)| Some((name, self.digest(&path)?));
        let files: Files = found.into_iter().filter_map(digest).collect();
        let known: Option<Files> = self.store.record(RecordKind::Foreign, &self.key());
        if known.as_ref() != Some(&files) {
            // Best effort: what is not noted is fetched again.
            let _ = self.store.remember(RecordKind::Foreign, &self.key(), &files);
        }
    }

    fn is_same(&self, path: &Path, digest: &Digest) -> bool {
        self.digest(path).is_some_and(|found| found == *digest)
    }

    fn digest(&self, path: &Path) -> Option<Digest> {
        if let Ok(target) = std::fs::read_link(path) {
            return Some(Digest::of([b"symlink ", target.as_os_str().as_bytes()].concat()));
        }
        self.store.digest_of(path)
    }
}

impl Drop for Using {
    fn drop(&mut self) {
        if self.private.is_some() {
            return;
        }
        let is_alone = self.lock.as_ref().is_none_or(|lock| {
            let _ = lock.unlock();
            lock.try_lock().is_ok()
        });
        if is_alone {
            self.note();
        }
    }
}

/// Files and symlinks in a directory, without locks. What cannot be listed is not there.
fn list(root: &Path, folder: &Path, found: &mut BTreeMap<String, PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let is_lock = path.extension().is_some_and(|extension| extension == "lock")
            || path.file_name().is_some_and(|name| name == ".lock");
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => list(root, &path, found),
            Ok(_) if !is_lock => {
                let name = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
                found.insert(name, path);
            }
            _ => {}
        }
    }
}

/// Whether nobody can be writing a file any more.
fn is_old(path: &Path) -> bool {
    let age = std::fs::symlink_metadata(path).and_then(|it| it.modified()).ok().and_then(|time| time.elapsed().ok());
    age.is_some_and(|age| age > IN_USE)
}

#[cfg(test)]
mod tests {
    use fs_err as fs;

    use super::*;

    fn used(store: &Store, kind: Foreign, file: &str) -> Option<String> {
        let using = store.using(kind).expect("begins");
        fs::create_dir_all(using.path()).expect("makes");
        let path = using.path().join(file);
        let found = fs::read_to_string(&path).ok();
        if found.is_none() {
            fs::create_dir_all(path.parent().expect("a folder")).expect("makes");
            fs::write(&path, "fetched").expect("writes");
        }
        found
    }

    #[test]
    fn changed_file_is_fetched_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(folder.path()).expect("opens");
        for kind in [Foreign::Index, Foreign::Uv] {
            let file = "shards/a";
            assert_eq!(used(&store, kind, file), None);
            assert_eq!(used(&store, kind, file).as_deref(), Some("fetched"));
            let path = store.using(kind).expect("begins").path().join(file);
            fs::write(&path, "changed").expect("writes");
            assert_eq!(used(&store, kind, file), None);
            assert_eq!(used(&store, kind, file).as_deref(), Some("fetched"));
        }
    }

    #[test]
    fn directory_that_is_used_by_others_is_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(folder.path()).expect("opens");
        assert_eq!(used(&store, Foreign::Uv, "a"), None);
        let other = Store::open(folder.path()).expect("opens");
        let using = other.using(Foreign::Uv).expect("begins");
        fs::write(using.path().join("a"), "in work").expect("writes");
        assert_eq!(used(&store, Foreign::Uv, "a").as_deref(), Some("in work"));
        drop(using);
        assert_eq!(used(&store, Foreign::Uv, "a").as_deref(), Some("in work"), "it was noted by the last one");
    }

    #[test]
    fn what_the_key_does_not_vouch_for_is_not_used() {
        let folder = tempfile::tempdir().expect("a folder");
        let plain = Store::open(folder.path()).expect("opens");
        let file = folder.path().join("key");
        fs::write(&file, "0123456789abcdef").expect("writes");
        let keyed = plain.clone().with_key(Some(crate::store::CacheKey::read(&file).expect("a key")));
        assert_eq!(used(&plain, Foreign::Index, "a"), None);
        assert_eq!(used(&keyed, Foreign::Index, "a"), None);
        assert_eq!(used(&keyed, Foreign::Index, "a").as_deref(), Some("fetched"));
        let using = plain.using(Foreign::Index).expect("begins");
        assert_eq!(used(&keyed, Foreign::Index, "a"), None, "it is used by others");
        drop(using);
    }
}
