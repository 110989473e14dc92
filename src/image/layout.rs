//! Writing OCI image layouts (image-spec, image-layout.md).
//!
//! Every file appears whole under its name, `index.json` last; so whoever reads the layout at any moment sees
//! the old image or the new one. Two builds may write to one layout at a time.

use std::io::Write;
use std::path::Path;

use fs_err as fs;
use oci_spec::image::Descriptor;
use serde_json::{Value, json};

use super::output::{Contents, Written, lock};
use super::{Image, copy, json as image_json, media};
use crate::model::{Blob, BlobSource};
use crate::util::files::{self, UNFINISHED_PREFIX, named, persist, sweep, temporary_beside, write_atomic};
use crate::util::json::canonical;
use crate::util::report::Progress;
use crate::util::{Digest, Error, Limit, Result, ResultExt as _, parallel};

pub(super) const OCI_LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;
/// Blobs that are written at once.
const WRITERS: usize = 4;

/// The annotation that holds a tag (image-spec, annotations.md).
pub(super) const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// Writes an image, of one platform or several, into a layout folder, which may hold others already: the entries
/// of the same tags (or, without a tag, the untagged one) are replaced. What is there already is not written
/// again. Layers must be on this machine (see [`super::localise`]).
///
/// # Errors
/// When the folder is something else than a layout, a source is damaged, or the disk is full; the layout is
/// then as usable as before.
pub fn write_layout<'a>(
    images: &[Image],
    folder: &Path,
    tags: impl IntoIterator<Item = &'a str>,
    progress: &dyn Progress,
) -> Result<Written> {
    write_layout_of(&Contents::of_images(images)?, folder, tags, progress)
}

/// As [`write_layout`], for any contents.
///
/// # Errors
/// As there.
pub fn write_layout_of<'a>(
    contents: &Contents,
    folder: &Path,
    tags: impl IntoIterator<Item = &'a str>,
    progress: &dyn Progress,
) -> Result<Written> {
    let names = names(tags)?;
    prepare(folder)?;
    // Held to the end: the index is read, changed and written, and others may do so too.
    let marker = fs::File::open(folder.join("oci-layout"))?;
    lock(marker.file());
    let bytes = write_all(contents, folder, &names, progress)
        .context(|| format!("the image cannot be written to `{}`", folder.display()))?;
    Ok(Written { digest: contents.digest, bytes_written: bytes })
}

fn write_all(contents: &Contents, folder: &Path, names: &[Option<&str>], progress: &dyn Progress) -> Result<u64> {
    let blobs = folder.join("blobs").join("sha256");
    fs::create_dir_all(&blobs)?;
    sweep(folder);
    sweep(&blobs);
    let missing = contents.blobs.iter().filter(|blob| !is_there(&blobs, &blob.digest, blob.size));
    let missing: Vec<&Blob> = missing.collect();
    progress.grow(missing.iter().map(|blob| blob.size).sum());
    // One layer after the other would be a tenth of a build.
    parallel(&missing, WRITERS, |blob| write_blob(&blobs, blob, progress))?;
    let written = missing.iter().map(|blob| blob.size).sum::<u64>();
    Ok(written + update_index(&folder.join("index.json"), contents, names)?)
}

/// The names of an image in an index, each once: its tags, or none at all when there are no tags.
///
/// # Errors
/// A tag that is not what the image-spec allows as a ref name.
pub(super) fn names<'a>(tags: impl IntoIterator<Item = &'a str>) -> Result<Vec<Option<&'a str>>> {
    let mut names = Vec::new();
    for tag in tags {
        check_tag(tag)?;
        if !names.contains(&Some(tag)) {
            names.push(Some(tag));
        }
    }
    if names.is_empty() {
        names.push(None);
    }
    Ok(names)
}

fn check_tag(tag: &str) -> Result<()> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-._:@/+".contains(c);
    if tag.is_empty() || !tag.chars().all(allowed) {
        return Err(Error::usage(format!("invalid tag in a layout `{tag}`: expected letters, digits and `-._:@/+`"))
            .hint("choose another one, as in `--output oci:DIR:TAG`"));
    }
    Ok(())
}

/// Makes the folder a layout, or checks that it is one.
fn prepare(folder: &Path) -> Result<()> {
    if fs::metadata(folder).is_ok_and(|metadata| !metadata.is_dir()) {
        return Err(Error::user(format!("`{}` is a file and cannot be a layout", folder.display()))
            .hint("name a folder, or write an archive with `--output oci-archive:FILE`"));
    }
    let marker = folder.join("oci-layout");
    files::refuse_special(&marker)?;
    match fs::read(&marker) {
        Ok(bytes) => {
            let marker: Value = image_json::parse(&bytes, &format!("`{}`", marker.display()))?;
            match marker["imageLayoutVersion"].as_str() {
                Some(version) if version.starts_with("1.") => Ok(()),
                version => Err(Error::user(format!(
                    "`{}` is a layout of the unknown version `{}`",
                    folder.display(),
                    version.unwrap_or("none")
                ))),
            }
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            if holds_something(folder) {
                // Another build may have begun the layout just now.
                if marker.exists() {
                    return prepare(folder);
                }
                return Err(Error::user(format!("`{}` is neither empty nor an OCI image layout", folder.display()))
                    .hint("choose another folder with `--output oci:FOLDER`"));
            }
            fs::create_dir_all(folder)?;
            // First of all, so that a folder that an interrupted build leaves is known as a layout.
            write_marker(&marker)
        }
        Err(error) => Err(error.into()),
    }
}

/// Writes the marker unless it is there: another build may have locked it since, and must not lose it.
fn write_marker(marker: &Path) -> Result<()> {
    let mut file = temporary_beside(marker)?;
    file.write_all(OCI_LAYOUT).map_err(|error| named(marker, error))?;
    match file.persist_noclobber(marker) {
        Ok(_) => Ok(()),
        Err(error) if error.error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        // Not every file system can do it.
        Err(error) => persist(error.file, marker),
    }
}

/// Whether there is more in a folder than what an interrupted build left.
fn holds_something(folder: &Path) -> bool {
    let unfinished = |name: std::ffi::OsString| name.to_string_lossy().starts_with(UNFINISHED_PREFIX);
    fs::read_dir(folder).is_ok_and(|entries| entries.flatten().any(|entry| !unfinished(entry.file_name())))
}

/// Whether a layout folder has a blob.
pub fn layout_has(folder: &Path, digest: &Digest, size: u64) -> bool {
    is_there(&folder.join("blobs").join("sha256"), digest, size)
}

fn is_there(blobs: &Path, digest: &Digest, size: u64) -> bool {
    std::fs::metadata(blobs.join(digest.hex())).is_ok_and(|file| file.is_file() && file.len() == size)
}

fn write_blob(blobs: &Path, blob: &Blob, progress: &dyn Progress) -> Result<()> {
    let path = blobs.join(blob.digest.hex());
    let mut file = temporary_beside(&path)?;
    match &blob.source {
        BlobSource::Packed(source) => copy_packed(blob, source, file.as_file_mut(), &path, progress)?,
        _ => copy::copy_blob(blob, &mut Named { file: file.as_file_mut(), path: &path }, progress)?,
    }
    persist(file, &path)
}

/// Copies a layer that was just made, in the kernel: file systems that can share blocks do. (A hard link would be cheaper,
/// and let whoever changes the layout's files or their owner change the store.)
fn copy_packed(
    blob: &Blob,
    source: &Path,
    file: &mut std::fs::File,
    path: &Path,
    progress: &dyn Progress,
) -> Result<()> {
    let copied = std::io::copy(fs::File::open(source)?.file_mut(), file).map_err(|error| named(path, error))?;
    copy::check_size(blob, source, copied)?;
    progress.advance(copied);
    Ok(())
}

/// Writes to a file with errors that name it.
struct Named<'a> {
    file: &'a mut std::fs::File,
    path: &'a Path,
}

impl Write for Named<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.file.write(bytes).map_err(|error| named(self.path, error).into())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

/// Puts the image into the index; returns the number of bytes written, 0 when it is there already.
fn update_index(path: &Path, contents: &Contents, names: &[Option<&str>]) -> Result<u64> {
    let old: Option<Value> = match files::find(path)? {
        Some(_) => {
            let bytes = files::read_limited(path, Limit::ImageDocument)?;
            Some(image_json::parse(&bytes, &format!("`{}`", path.display()))?)
        }
        None => None,
    };
    let new = index_of_layout(old.clone(), contents, names)?;
    if old.as_ref() == Some(&new) {
        return Ok(0);
    }
    let bytes = canonical(&new)?;
    write_atomic(path, &bytes)?;
    Ok(bytes.len() as u64)
}

/// The index of a layout that holds the contents, too.
pub(super) fn index_of_layout(old: Option<Value>, contents: &Contents, names: &[Option<&str>]) -> Result<Value> {
    let mut index = old;
    for name in names {
        index = Some(index_with(index, contents.entry.clone(), *name)?);
    }
    let mut index = index.ok_or_else(|| Error::bug("an image without a name in an index"))?;
    let Some(manifests) = index.get_mut("manifests").and_then(Value::as_array_mut) else { return Ok(index) };
    for other in &contents.others {
        let entry = named_entry(other.clone(), None)?;
        if !manifests.iter().any(|known| known["digest"] == entry["digest"]) {
            manifests.push(entry);
        }
    }
    Ok(index)
}

/// The index with the image's entry in the place of that with the same tag, and everything else as it was.
fn index_with(old: Option<Value>, entry: Descriptor, tag: Option<&str>) -> Result<Value> {
    let entry = named_entry(entry, tag)?;
    let mut index = old.unwrap_or_else(|| json!({"schemaVersion": 2, "mediaType": media::INDEX, "manifests": []}));
    let Some(manifests) = index.get_mut("manifests").and_then(Value::as_array_mut) else {
        return Err(Error::user("the layout's index.json lists no manifests").hint("write to another folder"));
    };
    let ours = |entry: &Value| {
        entry.get("artifactType").is_none()
            && entry.pointer("/annotations").and_then(|it| it.get(REF_NAME)?.as_str()) == tag
    };
    let position = manifests.iter().position(ours).unwrap_or(manifests.len());
    manifests.retain(|entry| !ours(entry));
    manifests.insert(position.min(manifests.len()), entry);
    Ok(index)
}

fn named_entry(mut entry: Descriptor, tag: Option<&str>) -> Result<Value> {
    if let Some(tag) = tag {
        entry.set_annotations(Some([(REF_NAME.to_owned(), tag.to_owned())].into()));
    }
    serde_json::to_value(&entry).map_err(|error| Error::bug("a descriptor has no JSON form").caused_by(error))
}

#[cfg(test)]
mod tests {
    use super::super::assemble::descriptor;
    use super::*;

    #[test]
    fn the_entry_of_the_same_tag_is_replaced_and_others_stay() {
        let [first, second] = [b"1", b"2"]
            .map(|bytes| descriptor(&Blob::from_bytes(media::MANIFEST, bytes.to_vec())).expect("a descriptor"));
        let index = index_with(None, first.clone(), Some("a")).expect("an index");
        let index = index_with(Some(index), first.clone(), None).expect("an index");
        let mut index = index_with(Some(index), first, Some("b")).expect("an index");
        index["manifests"].as_array_mut().expect("a list").push(json!({"artifactType": "sbom", "digest": "x"}));
        let untouched = index_with(Some(index.clone()), second.clone(), Some("a")).expect("an index");
        let tags = |index: &Value| -> Vec<String> {
            let entries = index["manifests"].as_array().expect("a list").iter();
            entries.map(|entry| format!("{} {}", entry["annotations"][REF_NAME], entry["digest"])).collect()
        };
        let (before, after) = (tags(&index), tags(&untouched));
        assert_ne!(before[0], after[0]);
        assert_eq!(before[1..], after[1..]);
        let untagged = index_with(Some(untouched), second, None).expect("an index");
        assert_eq!(tags(&untagged).len(), 4);
        assert_ne!(tags(&untagged)[1], after[1]);
        assert!(index_with(Some(json!({})), descriptor(&Blob::from_bytes("x", vec![])).expect("one"), None).is_err());
    }

    #[test]
    fn builds_that_begin_a_layout_at_once_wait_for_each_other() {
        for _ in 0..50 {
            let parent = tempfile::tempdir().expect("a folder");
            let folder = &parent.path().join("image");
            let writing = &std::sync::Mutex::new(());
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(move || {
                        prepare(folder).expect("makes or finds a layout");
                        let marker = fs::File::open(folder.join("oci-layout")).expect("opens");
                        lock(marker.file());
                        let _alone = writing.try_lock().expect("only one writes");
                        fs::create_dir_all(folder.join("blobs")).expect("makes");
                    });
                }
            });
        }
    }

    #[test]
    fn tags_are_checked() {
        for tag in ["1.0", "host/name:1", "a_b"] {
            assert!(check_tag(tag).is_ok(), "{tag}");
        }
        for tag in ["", "a b", "ü"] {
            assert!(check_tag(tag).is_err(), "{tag}");
        }
        assert_eq!(names([]).expect("none"), [None]);
        assert_eq!(names(["a", "b", "a"]).expect("two"), [Some("a"), Some("b")]);
    }
}
