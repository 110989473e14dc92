//! Blobs in a layout that nothing in it refers to: a build replaces an entry of `index.json` and leaves the blobs of
//! the image that was there, because something may be reading them. They are removed when the user says so.

use std::collections::BTreeMap;
use std::fs::TryLockError;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use fs_err as fs;
use serde_json::Value;

use super::{json as image_json, media};
use crate::util::files::{self, UNFINISHED_PREFIX, sweep};
use crate::util::{Digest, Error, Limit, Result, ResultExt as _};

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
        check_layout(folder)?;
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

/// Refuses what is no layout, in words that say so.
fn check_layout(folder: &Path) -> Result<()> {
    if !folder.is_dir() {
        return Err(Error::user("there is no such directory")
            .hint("give the directory of an OCI image layout, as `--layout DIR` or `--layout oci:DIR`"));
    }
    if files::find(&folder.join("oci-layout"))?.is_none() {
        return Err(Error::user("it is no OCI image layout: it has no oci-layout")
            .hint("give the directory that a build wrote with `--output oci:DIR`"));
    }
    Ok(())
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
        if metadata.is_file() && !used.contains_key(&digest) && old_enough(metadata.modified()?) {
            found.push(Found { path: entry.path(), size: metadata.len() });
        }
    }
    Ok(found)
}

/// What refers to a blob says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Named {
    /// It may be anything: a layer, a config, or a digest in a label.
    Anything,
    /// It is a manifest or an index, so it names others.
    Document,
}

/// All that is referred to: every digest in `index.json`, in the documents that it names, in those that they name, and
/// so on. A digest counts wherever it stands.
fn used(index: &Path, blobs: &Path) -> Result<BTreeMap<Digest, Named>> {
    let bytes = files::read_limited(index, Limit::ImageDocument)?;
    let document: Value = image_json::parse(&bytes, "its index.json")?;
    let mut used = BTreeMap::new();
    let mut pending = Vec::new();
    collect(&document, &mut |digest, named| pending.push((digest, named)));
    if let Some((missing, _)) = pending.iter().find(|(digest, _)| !blobs.join(digest.hex()).exists()) {
        return Err(Error::user(format!("its index.json names `{missing}`, which is missing"))
            .hint("what it would need is not known: write that image again"));
    }
    while let Some((digest, named)) = pending.pop() {
        // What was taken for anything may turn out to be a document.
        if used.get(&digest).is_some_and(|known| *known >= named) {
            continue;
        }
        used.insert(digest, named);
        if let Some(document) = document_of(&blobs.join(digest.hex()), named)? {
            collect(&document, &mut |digest, named| pending.push((digest, named)));
        }
    }
    Ok(used)
}

/// A blob as JSON; nothing of one that is not, such as a layer, and of one that is not there.
///
/// # Errors
/// A manifest or an index that is no JSON: what it would name is not known.
fn document_of(path: &Path, named: Named) -> Result<Option<Value>> {
    use std::io::Read as _;
    let Ok(mut file) = files::regular(path) else { return Ok(None) };
    let mut first = [0];
    let begun = file.read(&mut first)?;
    let looks_like_one = begun != 0 && matches!(first[0], b'{' | b'[' | b' ' | b'\n' | b'\r' | b'\t');
    if named == Named::Anything && (!looks_like_one || file.metadata()?.len() > LARGEST_DOCUMENT) {
        return Ok(None);
    }
    let bytes = files::read_limited(path, Limit::ImageDocument)?;
    match (serde_json::from_slice(&bytes), named) {
        (Ok(document), _) => Ok(Some(document)),
        (Err(_), Named::Anything) => Ok(None),
        (Err(error), Named::Document) => Err(Error::user(format!("failed to read the document `{}`", path.display()))
            .caused_by(error)
            .hint("what it refers to is not known: write its image again")),
    }
}

fn collect(value: &Value, found: &mut dyn FnMut(Digest, Named)) {
    match value {
        Value::String(text) => {
            if let Ok(digest) = text.parse() {
                found(digest, Named::Anything);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, found)),
        Value::Object(members) => {
            if let Some(digest) = document_named(members) {
                found(digest, Named::Document);
            }
            members.values().for_each(|member| collect(member, found));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// The digest of a descriptor of a manifest or an index.
fn document_named(descriptor: &serde_json::Map<String, Value>) -> Option<Digest> {
    let media_type = descriptor.get("mediaType")?.as_str()?;
    let names_others = media::is_index(media_type) || media::is_manifest(media_type);
    descriptor.get("digest").filter(|_| names_others)?.as_str()?.parse().ok()
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A layout that has these blobs and an index of the descriptors.
    fn layout(blobs: &[&str], manifests: &Value) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        fs::create_dir_all(folder.path().join("blobs/sha256")).expect("creates");
        fs::write(folder.path().join("oci-layout"), "{}").expect("writes");
        for blob in blobs {
            fs::write(folder.path().join("blobs/sha256").join(Digest::of(blob).hex()), blob).expect("writes");
        }
        fs::write(folder.path().join("index.json"), json!({"manifests": manifests}).to_string()).expect("writes");
        folder
    }

    fn descriptor(media_type: &str, blob: &str) -> Value {
        json!({"mediaType": media_type, "digest": Digest::of(blob).to_string(), "size": blob.len()})
    }

    #[test]
    fn layers_that_look_like_json_name_nothing() {
        let layers = ["{not json", "[1, 2", " text", "\n"];
        let named: Vec<Value> = layers.iter().map(|layer| descriptor("text/plain", layer)).collect();
        let manifest = json!({"config": descriptor(media::EMPTY, "{}"), "layers": named}).to_string();
        let blobs = [&layers[..], &["{}", &manifest, "of nobody"]].concat();
        let folder = layout(&blobs, &json!([descriptor(media::MANIFEST, &manifest)]));
        assert_eq!(remove_unused_blobs(folder.path(), None).expect("removes").count, 1);
        for blob in &blobs[..blobs.len() - 1] {
            assert!(folder.path().join("blobs/sha256").join(Digest::of(blob).hex()).exists(), "{blob}");
        }
    }

    #[test]
    fn manifest_that_is_no_json_is_an_error() {
        for (inner, media_type) in [("{broken", media::MANIFEST), ("broken", media::MANIFEST), ("[", media::INDEX)] {
            // A label names it, too, and comes first or last.
            let digest = Digest::of(inner).to_string();
            let index = json!({"a": digest, "manifests": [descriptor(media_type, inner)], "z": digest}).to_string();
            let folder = layout(&[inner, &index, "of nobody"], &json!([descriptor(media::INDEX, &index)]));
            let error = remove_unused_blobs(folder.path(), None).expect_err("is not known").chain().join(": ");
            assert!(error.contains(&Digest::of(inner).hex()), "{error}");
        }
    }

    #[test]
    fn no_layout_is_refused_by_what_it_lacks() {
        let folder = tempfile::tempdir().expect("a folder");
        let refused = |path: &Path| remove_unused_blobs(path, None).expect_err("is none").chain().join(": ");
        assert!(refused(folder.path()).contains("oci-layout"));
        assert!(refused(&folder.path().join("none")).contains("directory"));
    }
}
