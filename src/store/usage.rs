//! What the store holds, since when nothing asked for it, and how it is kept small.
//!
//! What is used gets its modification time renewed (access times are not kept on many file systems). So the oldest
//! time is that of the thing that nobody has asked for the longest.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use fs_err as fs;

use super::Store;
use super::claim::{IN_USE, Removal};
use crate::util::{Result, files};

/// The kind of what processes are writing, or have left: each thing is locked by its process.
const UNFINISHED: &str = "unfinished";

/// The kinds of things that the store holds, each a folder.
const KINDS: [(&str, &str); 7] = [
    ("archives", "archives"),
    ("layers", "blobs/sha256"),
    ("indexes", "index"),
    ("interpreters", "interpreters"),
    ("uv", "uv"),
    (UNFINISHED, "downloads"),
    (UNFINISHED, "tmp"),
];

/// One thing in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// `archives`, `layers`, `indexes`, `interpreters`, `uv` or `unfinished`.
    pub kind: &'static str,
    /// Where it lies: a file, or a folder that is one thing.
    pub path: PathBuf,
    /// Bytes on the disk.
    pub size: u64,
    /// When it was used last.
    pub used: SystemTime,
}

/// What is to go.
#[derive(Debug, Clone, Copy, Default)]
pub struct Limits {
    /// The store shall hold no more bytes than this; what was not used for the longest time goes first.
    pub size: Option<u64>,
    /// What was not used for this long goes.
    pub age: Option<Duration>,
}

/// What a clean-up did.
#[derive(Debug, Clone, Default)]
pub struct Pruned {
    /// What is gone.
    pub removed: Vec<Item>,
    /// Bytes that the store holds now.
    pub left: u64,
}

impl Store {
    /// A path in it, as people and reports are told of it: without that of the store.
    pub fn shown(&self, path: &Path) -> String {
        path.strip_prefix(&self.root).unwrap_or(path).display().to_string()
    }

    /// Everything in it but records, which are small; sorted by kind and path.
    ///
    /// # Errors
    /// When a folder cannot be read.
    pub fn items(&self) -> Result<Vec<Item>> {
        let mut items = Vec::new();
        for (kind, folder) in KINDS {
            let folder = self.root.join(folder);
            let Some(entries) = present(fs::read_dir(&folder))? else { continue };
            for entry in entries {
                let path = entry?.path();
                // It may have gone meanwhile.
                if let Some((size, used)) = measure(&path)? {
                    items.push(Item { kind, path, size, used });
                }
            }
        }
        items.sort_by(|a, b| (a.kind, &a.path).cmp(&(b.kind, &b.path)));
        Ok(items)
    }

    /// Removes what is beyond the limits, and records of layers that are gone. What was used within the last hour stays.
    ///
    /// # Errors
    /// When something cannot be removed.
    pub fn prune(&self, limits: Limits) -> Result<Pruned> {
        let now = self.now();
        let mut items = self.items()?;
        let grave = self.grave()?;
        items.sort_by_key(|item| item.used);
        let mut pruned = Pruned { left: items.iter().map(|item| item.size).sum(), ..Pruned::default() };
        for item in items {
            // A clock that went backwards makes it young.
            let age = now.duration_since(item.used).unwrap_or_default();
            let old = limits.age.is_some_and(|limit| age > limit);
            let too_much = limits.size.is_some_and(|limit| pruned.left > limit);
            if age <= IN_USE || !(old || too_much) {
                continue;
            }
            let removal = match item.kind {
                UNFINISHED if files::remove_abandoned(&item.path) => Removal::Done,
                UNFINISHED => Removal::Kept,
                _ => self.remove_unclaimed(&item.path, now, grave.path())?,
            };
            if removal != Removal::Kept {
                pruned.left -= item.size;
            }
            if removal == Removal::Done {
                pruned.removed.push(item);
            }
        }
        self.forget_lost_layers()?;
        Ok(pruned)
    }

    /// A folder that things go through on their way out, so that nobody finds a half of one.
    fn grave(&self) -> Result<tempfile::TempDir> {
        let scratch = self.scratch();
        let grave = tempfile::Builder::new().prefix("removed-").tempdir_in(&scratch);
        grave.map_err(|error| files::named(&scratch, error))
    }

    /// Records of layers and segments whose blob is not there any more say nothing that helps.
    fn forget_lost_layers(&self) -> Result<()> {
        use super::RecordKind::{Layer, Segment};
        [Layer, Segment].into_iter().try_for_each(|kind| self.forget_lost(kind.folder()))
    }

    fn forget_lost(&self, kind: &str) -> Result<()> {
        let folder = self.root.join("records").join(kind);
        let Some(entries) = present(fs::read_dir(&folder))? else { return Ok(()) };
        for entry in entries {
            let path = entry?.path();
            if !self.is_lost(&path)? {
                continue;
            }
            // Asked once more: a build may have written it anew.
            let forget = || if self.is_lost(&path)? { present(super::verify::remove(&path)).map(drop) } else { Ok(()) };
            self.alone(forget).transpose()?;
        }
        Ok(())
    }

    /// Whether a record, if it is there, is one of a blob that is not.
    fn is_lost(&self, record: &Path) -> Result<bool> {
        /// What matters of a record here.
        #[derive(serde::Deserialize)]
        struct Blob {
            digest: crate::util::Digest,
            size: u64,
        }
        let text = match fs::read(record) {
            // A directory in its place says nothing that helps, either.
            Err(error) if error.kind() == std::io::ErrorKind::IsADirectory => return Ok(true),
            read => present(read)?,
        };
        let Some(text) = text else { return Ok(false) };
        let value = super::record::value_of(&text);
        let layer = value.and_then(|value| serde_json::from_slice::<Blob>(value).ok());
        Ok(layer.is_none_or(|layer| !self.is_blob(&layer.digest, layer.size)))
    }
}

/// Nothing when the thing is not there, which is what another process may have seen to.
pub(super) fn present<T>(result: std::io::Result<T>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Bytes and last use of a file, or of all in a folder.
fn measure(path: &Path) -> Result<Option<(u64, SystemTime)>> {
    use std::os::unix::fs::MetadataExt as _;
    let Some(metadata) = present(fs::symlink_metadata(path))? else { return Ok(None) };
    let used = metadata.modified()?;
    // In blocks of 512 bytes, whatever the file system's own are (stat(2)).
    let mut size = metadata.blocks() * 512;
    if metadata.is_dir() {
        let Some(entries) = present(fs::read_dir(path))? else { return Ok(None) };
        for entry in entries {
            size += measure(&entry?.path())?.map_or(0, |(size, _)| size);
        }
    }
    Ok(Some((size, used)))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::store::RecordKind;
    use crate::util::Digest;

    fn age(path: &Path, hours: u64) {
        let time = SystemTime::now() - Duration::from_secs(hours * 3600);
        std::fs::File::open(path).and_then(|file| file.set_modified(time)).expect("sets its time");
    }

    fn blob(store: &Store, content: &[u8], hours: u64) -> Digest {
        let mut writer = store.new_blob().expect("begins");
        writer.write_all(content).expect("writes");
        let (digest, size) = writer.finish(None).expect("finishes");
        let record = serde_json::json!({"digest": digest, "size": size});
        store.remember(RecordKind::Layer, &digest, &record).expect("remembers");
        age(&store.blob(&digest), hours);
        digest
    }

    fn known(store: &Store, digest: &Digest) -> bool {
        store.record::<serde_json::Value>(RecordKind::Layer, digest).is_some()
    }

    #[test]
    fn what_was_not_used_for_the_longest_time_goes_first() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(folder.path()).expect("opens");
        let (old, middle, young) =
            (blob(&store, &[1; 8192], 30), blob(&store, &[2; 8192], 20), blob(&store, &[3; 8192], 0));
        // Asked for, so that it is not the oldest any more.
        assert!(store.has_blob(&old, 8192));
        let pruned = store.prune(Limits { size: Some(17_000), age: None }).expect("prunes");
        assert_eq!(pruned.removed.len(), 1);
        assert!(!store.has_blob(&middle, 8192) && !known(&store, &middle));
        assert!(known(&store, &old) && known(&store, &young));
        // Whatever the limit, what is in use stays.
        let pruned = store.prune(Limits { size: Some(0), age: Some(Duration::ZERO) }).expect("prunes");
        assert!(pruned.removed.is_empty() && pruned.left >= 16_384, "{pruned:?}");
    }

    #[test]
    fn folders_go_whole() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(folder.path()).expect("opens");
        let interpreter = store.interpreter(&Digest::of("a"));
        fs::create_dir_all(interpreter.join("bin")).expect("makes it");
        fs::write(interpreter.join("bin/python"), [0; 5000]).expect("writes");
        age(&interpreter, 48);
        let items = store.items().expect("lists");
        assert_eq!(items.len(), 1, "{items:?}");
        assert!(items[0].size >= 5000 && items[0].kind == "interpreters");
        let day = Duration::from_secs(24 * 3600);
        assert!(store.prune(Limits { size: None, age: Some(3 * day) }).expect("prunes").removed.is_empty());
        assert_eq!(store.prune(Limits { size: None, age: Some(day) }).expect("prunes").removed.len(), 1);
        assert!(!interpreter.exists() && store.items().expect("lists").is_empty());
    }
}
