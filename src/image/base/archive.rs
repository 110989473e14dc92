//! A tar that is read out of order: where each of its files is.

use std::collections::BTreeMap;
use std::io::{self, Read, Seek as _};
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use tar::EntryType;

use super::check_size;
use crate::image::codec::{Codec, decode};
use crate::store::Store;
use crate::util::{Digest, Error, Result, ResultExt as _, entries, files, paths};

/// Links that are followed before they count as a loop.
const LINKS: usize = 8;
/// Entries that an archive of an image may have: layers are single files in it.
const ENTRIES: usize = 100_000;

/// A tar whose files can be opened by path.
pub(in crate::image) struct TarFile {
    file: std::fs::File,
    entries: BTreeMap<String, Place>,
    /// Holds the uncompressed tar when the archive was compressed.
    _temporary: Option<tempfile::NamedTempFile>,
}

#[derive(Debug, Clone)]
enum Place {
    File { offset: u64, size: u64 },
    Link(String),
}

impl TarFile {
    /// Opens a tar, plain or compressed, and lists it.
    pub fn open(path: &Path, store: &Store) -> Result<Self> {
        let file = files::regular(path)?;
        let (codec, mut decoder) = decode(&file)?;
        let temporary = match codec {
            Codec::Plain => None,
            Codec::Gzip | Codec::Zstd => {
                let mut temporary = store.temporary()?;
                io::copy(&mut decoder, temporary.as_file_mut())?;
                Some(temporary)
            }
        };
        drop(decoder);
        let mut file = match &temporary {
            Some(temporary) => temporary.reopen()?,
            None => file.into_parts().0,
        };
        file.rewind()?;
        let entries = list(&file).context(|| format!("`{}` is no readable tar", path.display()))?;
        Ok(Self { file, entries, _temporary: temporary })
    }

    /// Whether there is such a path.
    pub fn has(&self, path: &str) -> bool {
        self.place(path).is_ok()
    }

    /// A small file's bytes.
    pub fn read(&self, path: &str) -> Result<Vec<u8>> {
        let (offset, size) = self.place(path)?;
        check_size(size, &format!("`{path}`"))?;
        let mut bytes = Vec::new();
        self.section(offset, size).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// A file's reader and its size.
    pub fn stream(&self, path: &str) -> Result<(impl Read + '_, u64)> {
        let (offset, size) = self.place(path)?;
        Ok((self.section(offset, size), size))
    }

    /// Brings a file into the store as the blob it should be.
    pub fn store_blob(&self, path: &str, digest: &Digest, store: &Store) -> Result<u64> {
        let (reader, size) = self.stream(path)?;
        if !store.has_whole_blob(digest, size) {
            let mut writer = store.new_blob()?;
            writer.fill(reader)?;
            writer.finish(Some(digest)).context(|| format!("failed to read `{path}` of the archive"))?;
        }
        Ok(size)
    }

    fn section(&self, offset: u64, size: u64) -> Section<'_> {
        Section { file: &self.file, offset, end: offset.saturating_add(size) }
    }

    fn place(&self, path: &str) -> Result<(u64, u64)> {
        let missing =
            || Error::user(format!("the archive has no `{path}`")).hint("it is incomplete, or of another kind");
        let mut current = normalise("", path).ok_or_else(missing)?;
        for _ in 0..LINKS {
            match self.entries.get(&current) {
                Some(Place::File { offset, size }) => return Ok((*offset, *size)),
                Some(Place::Link(target)) => current.clone_from(target),
                None => return Err(missing()),
            }
        }
        Err(Error::user(format!("`{path}` in the archive is a loop of links")))
    }
}

fn list(file: &std::fs::File) -> Result<BTreeMap<String, Place>> {
    let mut places = BTreeMap::new();
    entries::each_with_seek(file, |entry| {
        let kind = entry.header().entry_type();
        let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let target = || String::from_utf8_lossy(&entry.link_name_bytes().unwrap_or_default()).into_owned();
        paths::check_length(&path).map_err(Error::user)?;
        let Some(path) = normalise("", &path) else { return Ok(ControlFlow::Continue(())) };
        let place = match kind {
            EntryType::Regular | EntryType::Continuous => {
                Some(Place::File { offset: entry.raw_file_position(), size: entry.size() })
            }
            EntryType::Link => normalise("", &target()).map(Place::Link),
            EntryType::Symlink => {
                let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
                normalise(folder, &target()).map(Place::Link)
            }
            _ => None,
        };
        if let Some(place) = place {
            places.insert(path, place);
        }
        if places.len() > ENTRIES {
            return Err(Error::user(format!("it has more than {ENTRIES} entries, so it is no archive of an image"))
                .hint("a root file system is given as `rootfs:FILE`"));
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(places)
}

/// A path below the archive's root, without `.` and `..`; nothing when it leads out.
fn normalise(folder: &str, path: &str) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    let start = if path.starts_with('/') { "" } else { folder };
    for part in start.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            _ => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// A part of a file, read without moving the file's own position.
struct Section<'a> {
    file: &'a std::fs::File,
    offset: u64,
    end: u64,
}

impl Read for Section<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end.saturating_sub(self.offset)).unwrap_or(usize::MAX);
        let wanted = buffer.len().min(left);
        let count = self.file.read_at(&mut buffer[..wanted], self.offset)?;
        if count == 0 && wanted > 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the archive ends in the middle of a file"));
        }
        self.offset += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::normalise;

    #[test]
    fn links_stay_in_the_archive() {
        assert_eq!(normalise("a/b", "../c/layer.tar").as_deref(), Some("a/c/layer.tar"));
        assert_eq!(normalise("", "./blobs//x").as_deref(), Some("blobs/x"));
        assert_eq!(normalise("a", "/x").as_deref(), Some("x"));
        assert_eq!(normalise("a", "../../x"), None);
    }
}
