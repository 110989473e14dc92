//! What the writers of layouts and archives have in common.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufWriter, Seek as _, Write as _};
use std::path::{Path, PathBuf};

use fs_err as fs;
use oci_spec::image::{Descriptor, MediaType};

use super::assemble::descriptor;
use super::{Image, image_index};
use crate::model::Blob;
use crate::util::files::{named, persist, sweep, temporary_beside};
use crate::util::{Digest, Error, Result};

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// Digest of the manifest, or of the index when there are several platforms.
    pub digest: Digest,
    /// Bytes that were written; 0 when everything was there already.
    pub bytes_written: u64,
}

/// What goes into a layout under one name.
#[derive(Debug, Clone)]
pub struct Contents {
    /// Its blobs, each once, what refers to others after them.
    pub(super) blobs: Vec<Blob>,
    /// What the name stands for.
    pub(super) entry: Descriptor,
    pub(super) digest: Digest,
    /// Entries beside it that have no name: referrers.
    pub(super) others: Vec<Descriptor>,
}

impl Contents {
    /// The images of one reference, with their index when there are several.
    ///
    /// # Errors
    /// When a platform is there twice.
    pub fn of_images(images: &[Image]) -> Result<Self> {
        let index = index_of(images)?;
        let (entry, digest) = match (images, &index) {
            ([image], None) => (image.descriptor()?, image.manifest.digest),
            (_, Some(index)) => (descriptor(index)?, index.digest),
            _ => return Err(Error::bug("an index is needed for any other number of images than one")),
        };
        let blobs = each_once(images.iter().flat_map(Image::blobs).chain(&index));
        Ok(Self { blobs, entry, digest, others: Vec::new() })
    }

    /// What was found elsewhere, as it is: `blobs`, then documents, the last of which the name stands for.
    ///
    /// # Errors
    /// When there is no document.
    pub fn verbatim(blobs: &[Blob], documents: &[Blob]) -> Result<Self> {
        let root = documents.last().ok_or_else(|| Error::bug("there is no manifest to write"))?;
        let blobs = each_once(blobs.iter().chain(documents));
        Ok(Self { blobs, entry: descriptor(root)?, digest: root.digest, others: Vec::new() })
    }

    /// Adds a referrer: its documents, the last of which has the subject, and what kind of artifact it is.
    ///
    /// # Errors
    /// When there is no document.
    pub fn add_referrer(&mut self, documents: &[Blob], artifact_type: Option<&str>) -> Result<()> {
        let root = documents.last().ok_or_else(|| Error::bug("there is no manifest to write"))?;
        let mut entry = descriptor(root)?;
        entry.set_artifact_type(artifact_type.map(MediaType::from));
        self.others.push(entry);
        self.blobs.extend(documents.iter().cloned());
        self.blobs = each_once(self.blobs.iter());
        Ok(())
    }
}

fn each_once<'a>(blobs: impl Iterator<Item = &'a Blob>) -> Vec<Blob> {
    let mut seen = BTreeSet::new();
    blobs.filter(|blob| seen.insert(blob.digest)).cloned().collect()
}

/// The index that several images need, and none for one alone.
pub(super) fn index_of(images: &[Image]) -> Result<Option<Blob>> {
    if images.len() == 1 { Ok(None) } else { image_index(images).map(Some) }
}

/// A file that appears when it is whole. A pipe or a device is filled instead of being replaced.
pub(super) struct OutputFile {
    path: PathBuf,
    file: BufWriter<tempfile::NamedTempFile>,
    replaces: bool,
}

impl OutputFile {
    /// Begins the file; its folder is made when it is missing.
    pub fn create(path: &Path) -> Result<Self> {
        let there = fs::metadata(path).ok();
        if there.as_ref().is_some_and(std::fs::Metadata::is_dir) {
            return Err(Error::user(format!("`{}` is a folder and cannot be an archive", path.display()))
                .hint("name a file, or write a layout with `--output oci:FOLDER`"));
        }
        let replaces = there.is_none_or(|metadata| metadata.is_file());
        let file = match replaces {
            true => {
                if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
                    fs::create_dir_all(folder)?;
                    sweep(folder);
                }
                temporary_beside(path)?
            }
            false => tempfile::NamedTempFile::new().map_err(|error| named(&std::env::temp_dir(), error))?,
        };
        Ok(Self { path: path.to_owned(), file: BufWriter::with_capacity(256 * 1024, file), replaces })
    }

    /// Gives the file its name; returns its size in bytes.
    pub fn finish(mut self) -> Result<u64> {
        self.flush().map_err(Error::from)?;
        let path = self.path;
        let mut file = self.file.into_inner().map_err(|error| named(&path, error.into_error()))?;
        let size = file.as_file().metadata().map_err(|error| named(&path, error))?.len();
        if self.replaces {
            persist(file, &path)?;
            return Ok(size);
        }
        file.rewind().map_err(|error| named(&path, error))?;
        let mut output = fs::OpenOptions::new().write(true).open(&path)?;
        io::copy(file.as_file_mut(), &mut output).map_err(|error| named(&path, error))?;
        Ok(size)
    }

    fn named<T>(&self, result: io::Result<T>) -> io::Result<T> {
        result.map_err(|error| io::Error::from(named(&self.path, error)))
    }
}

impl io::Write for OutputFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let result = self.file.write(bytes);
        self.named(result)
    }

    fn flush(&mut self) -> io::Result<()> {
        let result = self.file.flush();
        self.named(result)
    }
}

impl io::Seek for OutputFile {
    fn seek(&mut self, position: io::SeekFrom) -> io::Result<u64> {
        let result = self.file.seek(position);
        self.named(result)
    }
}

/// Locks a file until it is closed. Best effort: where the file system has no locks, there are none.
pub(super) fn lock(file: &File) {
    let _ = file.lock();
}
