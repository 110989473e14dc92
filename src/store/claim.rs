//! What keeps a clean-up from taking away what a build has just found.
//!
//! Who finds something in the store renews its time (a *claim*) and may count on it for an hour. A clean-up removes only
//! what nobody has claimed within the last hour. Between its look at the time and the removal nobody may claim. So a
//! claim that renews a time holds a lock, shared with other claims, and a removal holds it alone. Both hold it for a
//! few system calls: many builds claim at once, and nobody waits for a whole clean-up.
//!
//! On a shared volume, too:
//! - It is a lock and no clever rename, because between moving something away and putting it back others find nothing.
//!   flock(2) holds among all clients of NFS (the kernel makes it a byte-range lock, which the server keeps).
//! - Files are opened before they are looked at: that makes an NFS client ask the server, while what stat(2) says may be
//!   a minute old.
//! - A time is renewed to the server's "now", and compared with the time of a file that was made just now: clocks of
//!   nodes may differ.
//!
//! Where there are no locks, a removal moves the thing away, looks again, and puts it back if it was claimed; a claim
//! looks whether the thing is still in its place. What is left is the moment in which it is put back.

use std::fs::{File, Metadata, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use fs_err as fs;
use rustix::fs::{Timespec, Timestamps, UTIME_NOW, futimens};

use super::Store;
use super::usage::present;
use super::verify::NONBLOCK;
use crate::util::Result;

/// What was claimed within this time stays, whatever the limit.
pub(super) const IN_USE: Duration = Duration::from_secs(60 * 60);

/// Times are renewed only when they are older than this, so that a warm build writes nothing and waits for no lock.
const RENEWED: Duration = Duration::from_secs(10 * 60);

/// A lock that nobody gives back within this time is that of a machine that is gone (some servers keep it): claims do
/// without, and removals do not take place.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often it is looked after.
const TICK: Duration = Duration::from_millis(2);

/// The lock file, in the store's folder.
const LOCK: &str = "lock";

/// What became of something that was to be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Removal {
    /// It is removed.
    Done,
    /// Somebody else removed it.
    Gone,
    /// It stays.
    Kept,
}

/// The lock, or why there is none.
enum Hold {
    Held(#[expect(dead_code, reason = "it is held as long as it is open")] File),
    /// The file system has no locks, or we may not have them.
    Without,
    /// Others have it.
    Busy,
}

impl Store {
    /// What the file system says of something in the store, if it is there. It counts as used then, and stays for an
    /// hour at least.
    pub fn claim(&self, path: &Path) -> Option<Metadata> {
        let metadata = open(path).ok()?.metadata().ok()?;
        let age = metadata.modified().ok().and_then(|time| time.elapsed().ok());
        if age.is_some_and(|age| age < RENEWED) {
            return Some(metadata);
        }
        let _held = self.hold(File::try_lock_shared);
        // It may have gone meanwhile.
        let file = open(path).ok()?;
        // Best effort: the store may be another user's. Both times, because then write permission is enough.
        let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
        let _ = futimens(&file, &Timestamps { last_access: now, last_modification: now });
        let claimed = file.metadata().ok()?;
        // Where there is no lock, a removal may have been quicker.
        let found = std::fs::metadata(path).ok()?;
        (found.ino() == claimed.ino() && found.dev() == claimed.dev()).then_some(claimed)
    }

    /// Claims everything in a folder of the store: for a program that is given the folder and knows nothing of claims.
    pub fn claim_all(&self, folder: &Path) {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let _ = self.claim(&entry.path());
        }
    }

    /// The time that the store's file system gives a file now.
    pub(super) fn now(&self) -> SystemTime {
        let made = self.temporary().ok().and_then(|file| file.as_file().metadata().ok()?.modified().ok());
        made.unwrap_or_else(SystemTime::now)
    }

    /// Removes something if it was not used for an hour, by way of a folder on the same file system.
    pub(super) fn remove_unclaimed(&self, path: &Path, now: SystemTime, grave: &Path) -> Result<Removal> {
        let held = self.hold(File::try_lock);
        if matches!(held, Hold::Busy) || !is_old(path, now) {
            return Ok(Removal::Kept);
        }
        let moved = grave.join("it");
        if present(fs::rename(path, &moved))?.is_none() {
            return Ok(Removal::Gone);
        }
        if !is_old(&moved, now) {
            fs::rename(&moved, path)?;
            return Ok(Removal::Kept);
        }
        // Nobody finds it any more: removing a large folder takes its time.
        drop(held);
        match moved.is_dir() {
            true => fs::remove_dir_all(&moved)?,
            false => fs::remove_file(&moved)?,
        }
        Ok(Removal::Done)
    }

    /// Does something that removals, and the others' `alone`, do not fall into.
    pub(super) fn together<T>(&self, work: impl FnOnce() -> T) -> T {
        let _held = self.hold(File::try_lock_shared);
        work()
    }

    /// Does something while nobody claims or remembers anything; nothing when it cannot have the store for itself.
    pub(super) fn alone<T>(&self, work: impl FnOnce() -> T) -> Option<T> {
        let held = self.hold(File::try_lock);
        (!matches!(held, Hold::Busy)).then(work)
    }

    fn hold(&self, try_lock: impl Fn(&File) -> Result<(), TryLockError>) -> Hold {
        let path = self.root.join(LOCK);
        // Another user's store may be read-only for us; a shared lock can be had all the same.
        let opened = File::options().read(true).write(true).create(true).truncate(false).open(&path);
        let Ok(file) = opened.or_else(|_| File::open(&path)) else { return Hold::Without };
        let deadline = Instant::now() + PATIENCE;
        loop {
            match try_lock(&file) {
                Ok(()) => return Hold::Held(file),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => std::thread::sleep(TICK),
                Err(TryLockError::WouldBlock) => return Hold::Busy,
                Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(TryLockError::Error(_)) => return Hold::Without,
            }
        }
    }
}

/// Opens a file or directory, and waits for nobody: a pipe may have been put there.
fn open(path: &Path) -> io::Result<File> {
    File::options().read(true).custom_flags(NONBLOCK).open(path)
}

/// Whether nobody has used something for an hour; what cannot be told is no reason to remove it.
fn is_old(path: &Path, now: SystemTime) -> bool {
    let opened = open(path).and_then(|file| file.metadata());
    let used = opened.or_else(|_| std::fs::symlink_metadata(path)).and_then(|metadata| metadata.modified());
    used.is_ok_and(|time| now.duration_since(time).unwrap_or_default() > IN_USE)
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    fn age(path: &Path) {
        let time = SystemTime::now() - 2 * IN_USE;
        File::open(path).and_then(|file| file.set_modified(time)).expect("sets its time");
    }

    #[test]
    fn what_is_claimed_at_the_moment_of_a_clean_up_stays_or_was_gone_before() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = &Store::open(folder.path()).expect("opens");
        let path = &store.root.join("archives/a.conda");
        let (mut kept, mut removed) = (0, 0);
        for round in 0..2000 {
            fs::write(path, "a").expect("writes");
            age(path);
            let (start, now, grave) = (&Barrier::new(2), SystemTime::now(), &store.scratch());
            let (claimed, opened) = std::thread::scope(|scope| {
                let removing = scope.spawn(move || {
                    start.wait();
                    store.remove_unclaimed(path, now, grave).expect("looks")
                });
                start.wait();
                let wait = Instant::now();
                while wait.elapsed() < Duration::from_micros(round % 40) {}
                // What a build does with what it finds.
                let claimed = store.claim(path).is_some();
                let opened = File::open(path).is_ok();
                removing.join().expect("ends");
                (claimed, opened)
            });
            assert_eq!(claimed, path.exists(), "round {round}");
            assert!(opened || !claimed, "it was away for a moment in round {round}");
            if claimed { kept += 1 } else { removed += 1 }
        }
        assert!(kept > 20 && removed > 20, "one was always first: kept {kept}, removed {removed}");
    }

    #[test]
    fn only_what_is_old_is_removed() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(folder.path()).expect("opens");
        let path = store.root.join("archives/a.conda");
        fs::write(&path, "a").expect("writes");
        age(&path);
        let now = SystemTime::now();
        let grave = store.root.join("tmp");
        assert_eq!(store.remove_unclaimed(&path, now - 2 * IN_USE, &grave).expect("looks"), Removal::Kept);
        assert_eq!(store.remove_unclaimed(&path, now, &grave).expect("removes"), Removal::Done);
        assert!(store.claim(&path).is_none());
        assert_eq!(store.remove_unclaimed(&path, now, &grave).expect("looks"), Removal::Kept);
    }

    #[test]
    fn a_lock_that_is_never_given_back_stops_no_build() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(folder.path()).expect("opens");
        let path = store.root.join("archives/a.conda");
        fs::write(&path, "a").expect("writes");
        age(&path);
        let lock = fs::File::create(store.root.join(LOCK)).expect("makes");
        lock.file().lock().expect("locks");
        assert_eq!(store.remove_unclaimed(&path, SystemTime::now(), &store.scratch()).expect("looks"), Removal::Kept);
        assert!(store.claim(&path).is_some());
        assert!(path.exists());
    }
}
