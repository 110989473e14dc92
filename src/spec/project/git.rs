//! Which files git tracks: read from the index of a work tree, as gitformat-index(5) describes it. Only paths are
//! taken from it, so no object is read and no program is run.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use crate::util::{Error, Limit, Result, files};

/// Size of what stands before the object's name in an entry: times, device, inode, mode, owner, size.
const STAT: usize = 40;
/// Mode of a folder that a sparse index has instead of what is in it.
const SPARSE_FOLDER: u32 = 0o040_000;
/// A bit of an entry's flags: two more bytes of flags follow.
const EXTENDED: u16 = 0x4000;

/// A folder that git looks after.
#[derive(Debug)]
pub struct WorkTree {
    /// The folder that holds `.git`.
    pub root: PathBuf,
    /// What personal rules there are for it: `info/exclude`.
    pub exclude: Option<PathBuf>,
    /// What is tracked; nothing when its repository is not on this machine.
    tracked: Option<Tracked>,
}

#[derive(Debug, Default)]
struct Tracked {
    /// Relative to the root.
    files: HashSet<Vec<u8>>,
    /// All folders above them.
    folders: HashSet<Vec<u8>>,
}

impl WorkTree {
    /// The work tree that `folder` is the root of.
    ///
    /// # Errors
    /// An index that cannot be read.
    pub fn at(folder: &Path) -> Result<Option<Self>> {
        let dot_git = folder.join(".git");
        let Ok(metadata) = std::fs::metadata(&dot_git) else { return Ok(None) };
        let own = if metadata.is_dir() { Some(dot_git) } else { linked(&dot_git, folder) };
        let Some(own) = own else { return Ok(None) };
        if !own.join("HEAD").exists() {
            // A folder of that name is no repository yet; a link may lead to one that this machine does not have.
            let root = folder.to_owned();
            return Ok((!metadata.is_dir()).then_some(Self { root, exclude: None, tracked: None }));
        }
        // Work trees beside the first one share what is in its folder.
        let common = match text(&own.join("commondir")) {
            Some(text) => own.join(text.trim_end()),
            None => own.clone(),
        };
        let exclude = Some(common.join("info/exclude")).filter(|file| file.is_file());
        let tracked = Some(read_index(&own, hash_size(&common))?);
        Ok(Some(Self { root: folder.to_owned(), exclude, tracked }))
    }

    /// The work tree that `folder` is in.
    ///
    /// # Errors
    /// As [`Self::at`].
    pub fn around(folder: &Path) -> Result<Option<Self>> {
        for ancestor in folder.ancestors() {
            if let Some(found) = Self::at(ancestor)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Whether a path is tracked, or, for a folder, something below it. Nothing when that is not known.
    pub fn tracks(&self, path: &Path) -> Option<bool> {
        use std::os::unix::ffi::OsStrExt as _;
        let tracked = self.tracked.as_ref()?;
        let path = path.strip_prefix(&self.root).ok()?.as_os_str().as_bytes();
        Some(tracked.files.contains(path) || tracked.folders.contains(path))
    }
}

impl Tracked {
    fn insert(&mut self, path: &[u8]) {
        let mut end = path.len();
        while let Some(slash) = path[..end].iter().rposition(|&byte| byte == b'/') {
            end = slash;
            if !self.folders.insert(path[..end].to_vec()) {
                break;
            }
        }
        self.files.insert(path.to_vec());
    }
}

/// Where a `.git` that is a file leads: of submodules and of work trees beside the first one (gitrepository-layout(5)).
fn linked(dot_git: &Path, folder: &Path) -> Option<PathBuf> {
    let text = text(dot_git)?;
    Some(folder.join(text.strip_prefix("gitdir:")?.trim()))
}

/// The text of a small file of a repository; none if there is no such file.
fn text(path: &Path) -> Option<String> {
    String::from_utf8(files::read_limited(path, Limit::EnvironmentFile).ok()?).ok()
}

/// Bytes of an object's name: 32 where the repository says that it uses SHA-256, else 20.
fn hash_size(common: &Path) -> usize {
    let config = text(&common.join("config")).unwrap_or_default().to_lowercase();
    let mut value =
        config.lines().filter_map(|line| line.trim().strip_prefix("objectformat")?.trim().strip_prefix('='));
    if value.next_back().is_some_and(|value| value.trim() == "sha256") { 32 } else { 20 }
}

fn read_index(git: &Path, hash_size: usize) -> Result<Tracked> {
    let mut tracked = Tracked::default();
    let mut file = git.join("index");
    // A split index names the file that holds the rest.
    for _ in 0..2 {
        // Nothing was added yet.
        if files::find(&file)?.is_none() {
            break;
        }
        let bytes = files::read_limited(&file, Limit::GitIndex)?;
        let shared = parse(&bytes, hash_size, &mut tracked).ok_or_else(|| {
            Error::user(format!("git's index `{}` cannot be read", file.display())).hint(
                "does `git status` work there? `git update-index --index-version 2` writes it in a form that all read",
            )
        })?;
        let Some(shared) = shared else { break };
        file = git.join(format!("sharedindex.{shared}"));
    }
    Ok(tracked)
}

/// Takes the paths of an index. Gives the name of the shared index that it builds on, if it does; nothing when it is
/// damaged or of an unknown version.
fn parse(bytes: &[u8], hash_size: usize, tracked: &mut Tracked) -> Option<Option<String>> {
    let version = number(bytes, 4).filter(|_| bytes.starts_with(b"DIRC"))?;
    if !(2..=4).contains(&version) {
        return None;
    }
    let count = number(bytes, 8)?;
    let mut at = 12;
    let mut previous: Vec<u8> = Vec::new();
    for _ in 0..count {
        let mode = number(bytes, at + 24)?;
        let flags_at = at + STAT + hash_size;
        let flags = u16::from_be_bytes(bytes.get(flags_at..flags_at + 2)?.try_into().ok()?);
        let name_at = flags_at + if flags & EXTENDED == 0 { 2 } else { 4 };
        let (kept, rest_at) = match version {
            4 => prefix(bytes, name_at, previous.len())?,
            _ => (0, name_at),
        };
        let end = rest_at + bytes.get(rest_at..)?.iter().position(|&byte| byte == 0)?;
        previous.truncate(kept);
        previous.extend_from_slice(&bytes[rest_at..end]);
        // Up to version 3, zeros fill an entry to a multiple of eight bytes; there is at least one.
        at = if version == 4 { end + 1 } else { at + (end - at) / 8 * 8 + 8 };
        // In a split index, an entry without a name replaces one of the shared index.
        if !previous.is_empty() && mode != SPARSE_FOLDER {
            tracked.insert(&previous);
        }
    }
    Some(shared_index(bytes, at, hash_size))
}

/// How much of the name before it a name of version 4 keeps, and where its own part begins: the number of bytes to
/// remove, in the encoding of OFS_DELTA's offsets (gitformat-pack(5)).
fn prefix(bytes: &[u8], mut at: usize, previous: usize) -> Option<(usize, usize)> {
    let mut byte = *bytes.get(at)?;
    let mut removed = usize::from(byte & 0x7f);
    while byte & 0x80 != 0 {
        at += 1;
        byte = *bytes.get(at)?;
        removed = removed.checked_add(1)?.checked_mul(128)? + usize::from(byte & 0x7f);
    }
    Some((previous.checked_sub(removed)?, at + 1))
}

/// The extension `link`, which stands after the entries.
fn shared_index(bytes: &[u8], mut at: usize, hash_size: usize) -> Option<String> {
    while at + 8 + hash_size < bytes.len() {
        let size = usize::try_from(number(bytes, at + 4)?).ok()?;
        if bytes.get(at..at + 4)? == b"link" {
            let name = bytes.get(at + 8..at + 8 + hash_size)?;
            return name.iter().any(|&byte| byte != 0).then(|| hex::encode(name));
        }
        at = at.checked_add(8)?.checked_add(size)?;
    }
    None
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn damage_is_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), version in 0_u8..6, count in 0_u8..9) {
            let mut index = b"DIRC\0\0\0".to_vec();
            index.extend([version, 0, 0, 0, count]);
            index.extend(bytes);
            for hash_size in [20, 32] {
                let _ = parse(&index, hash_size, &mut Tracked::default());
            }
        }
    }
}
