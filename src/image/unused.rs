//! Blobs in a layout that nothing in it refers to: a build replaces an entry of `index.json` and leaves the blobs of
//! the image that was there, because something may be reading them. They are removed when the user says so.

use std::collections::BTreeSet;
use std::fs::TryLockError;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use fs_err as fs;
use serde_json::Value;

use super::json as image_json;
use crate::util::files::{UNFINISHED_PREFIX, sweep};
use crate::util::{Digest, Error, Result, ResultExt as _};

/// Larger blobs are layers, whatever they begin with, in bytes: no registry takes a manifest of a tenth of this.
const LARGEST_DOCUMENT: u64 = 64 << 20;
/// How other tools name what they are writing into a layout: skopeo, podman and buildah, then umoci.
const FOREIGN_UNFINISHED: [&str; 3] = ["oci-put-blob", ".umoci-", "umoci-"];

/// What nobody refers to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Unused {
    /// How many blobs.
    pub count: usize,
    /// Their bytes.
    pub size: u64,
}

/// The blobs of a layout that nothing in it refers to, directly or through indexes, manifests and referrers. Those that
/// are newer than its `index.json` do not count: whoever writes an image writes the index last.
///
/// # Errors
/// When the folder is not a layout, or what refers to blobs in it cannot be read.
pub fn unused_blobs(folder: &Path) -> Result<Unused> {
    Ok(total(&find(folder, None)?))
}

/// Removes the blobs that [`unused_blobs`] counts, of at least an age when one is given.
///
/// # Errors
/// As [`unused_blobs`]; when something else writes to the layout.
pub fn remove_unused_blobs(folder: &Path, age: Option<Duration>) -> Result<Unused> {
    let remove = || {
        let marker = fs::File::open(folder.join("oci-layout"))?;
        // Held to the end: builds wait for it.
        match marker.file().try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(
                    Error::user("another condaimg writes to it").hint("run the command again when that has ended")
                );
            }
            Err(TryLockError::Error(error)) => {
                return Err(Error::user("the file system has no locks")
                    .caused_by(error)
                    .hint("copy what is wanted into a new layout with `condaimg copy`, and remove this one"));
            }
        }
        refuse_writers(folder)?;
        let found = find(folder, age)?;
        for blob in &found {
            fs::remove_file(&blob.path)?;
        }
        Ok(total(&found))
    };
    remove().context(|| format!("failed to remove unused blobs of `{}`", folder.display()))
}

fn total(blobs: &[Found]) -> Unused {
    Unused { count: blobs.len(), size: blobs.iter().map(|blob| blob.size).sum() }
}

/// A blob in a layout.
struct Found {
    path: PathBuf,
    size: u64,
}

fn find(folder: &Path, age: Option<Duration>) -> Result<Vec<Found>> {
    let index = folder.join("index.json");
    let written = fs::metadata(&index)?.modified()?;
    let blobs = folder.join("blobs/sha256");
    let used = used(&index, &blobs)?;
    let old_enough = |changed: SystemTime| {
        let old = |age| changed.elapsed().is_ok_and(|since| since >= age);
        changed <= written && age.is_none_or(old)
    };
    let mut found = Vec::new();
    for entry in fs::read_dir(&blobs)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        let name = entry.file_name();
        let Some(digest) = name.to_str().and_then(|name| format!("sha256:{name}").parse::<Digest>().ok()) else {
            continue;
        };
        if metadata.is_file() && !used.contains(&digest) && old_enough(metadata.modified()?) {
            found.push(Found { path: entry.path(), size: metadata.len() });
        }
    }
    Ok(found)
}

/// All that is referred to: every digest in `index.json`, in the documents that it names, in those that they name, and
/// so on. A digest counts wherever it stands.
fn used(index: &Path, blobs: &Path) -> Result<BTreeSet<Digest>> {
    let bytes = fs::read(index)?;
    let document: Value = image_json::parse(&bytes, "its index.json")?;
    let mut used = BTreeSet::new();
    let mut pending = Vec::new();
    collect(&document, &mut |digest| pending.push(digest));
    if let Some(missing) = pending.iter().find(|digest| !blobs.join(digest.hex()).exists()) {
        return Err(Error::user(format!("its index.json names `{missing}`, which is missing"))
            .hint("what it would need is not known: write that image again"));
    }
    while let Some(digest) = pending.pop() {
        if used.insert(digest)
            && let Some(document) = document_of(&blobs.join(digest.hex()))?
        {
            collect(&document, &mut |digest| pending.push(digest));
        }
    }
    Ok(used)
}

/// A blob as JSON; nothing of one that is not, such as a layer, and of one that is not there.
fn document_of(path: &Path) -> Result<Option<Value>> {
    use std::io::Read as _;
    let Ok(mut file) = fs::File::open(path) else { return Ok(None) };
    let mut first = [0];
    let begun = file.read(&mut first)?;
    if begun == 0 || !matches!(first[0], b'{' | b'[' | b' ' | b'\n' | b'\r' | b'\t') {
        return Ok(None);
    }
    if file.metadata()?.len() > LARGEST_DOCUMENT {
        return Ok(None);
    }
    let bytes = fs::read(path)?;
    serde_json::from_slice(&bytes).map(Some).map_err(|error| {
        Error::user(format!("failed to read the document `{}`", path.display()))
            .caused_by(error)
            .hint("what it refers to is not known: write its image again")
    })
}

fn collect(value: &Value, found: &mut dyn FnMut(Digest)) {
    match value {
        Value::String(text) => {
            if let Ok(digest) = text.parse() {
                found(digest);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, found)),
        Value::Object(members) => members.values().for_each(|member| collect(member, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Other tools take no lock, but leave what they are writing beside the rest.
fn refuse_writers(folder: &Path) -> Result<()> {
    let blobs = folder.join("blobs/sha256");
    sweep(folder);
    sweep(&blobs);
    for place in [folder, &blobs] {
        for entry in fs::read_dir(place)? {
            let name = entry?.file_name();
            let name = name.to_string_lossy();
            if name.starts_with(UNFINISHED_PREFIX) || FOREIGN_UNFINISHED.iter().any(|begin| name.starts_with(begin)) {
                return Err(Error::user(format!("`{}` is being written", place.join(&*name).display()))
                    .hint("run the command again when that has ended, or remove the file if it was left behind"));
            }
        }
    }
    Ok(())
}
