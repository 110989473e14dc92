//! Files of a base that somebody else knows how to read: their contents by path, as far as they are wanted.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use serde::{Deserialize, Serialize};
use tar::EntryType;

use super::layer::normalise;
use crate::util::{Error, Result, entries};

/// Files that are kept of one layer, so that a hostile one cannot fill the memory, and the bytes of all of them.
const FILES: usize = 1_000_000;
const BYTES: usize = 512 << 20;

/// Which files, and what of them.
#[derive(Debug, Clone, Copy)]
pub struct Selection {
    /// Names what is kept of which files: another one whenever that changes.
    pub name: &'static str,
    /// The most bytes of the file with this path that are read; 0 when only its name counts, none when it is not
    /// wanted.
    pub wanted: fn(&str) -> Option<u64>,
    /// What is kept of a file's content.
    pub keep: fn(&str, &[u8]) -> String,
}

/// What one layer has of them.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct LayerFiles {
    files: BTreeMap<String, String>,
    hidden: Hidden,
    /// Of all contents, while the layer is read.
    #[serde(skip)]
    bytes: usize,
    /// Hard links whose contents were not read with what they lead to: path → target in the archive.
    #[serde(skip)]
    links: BTreeMap<String, String>,
}

impl LayerFiles {
    /// Takes note of a whiteout; tells whether the path is one.
    pub fn hide(&mut self, path: &str) -> Result<bool> {
        let is_one = self.hidden.add(path);
        self.check().map(|()| is_one)
    }

    /// Takes note of an entry, and reads it if it is wanted. `link` is what a hard link leads to.
    pub fn add<R: Read>(
        &mut self,
        selection: &Selection,
        path: &str,
        link: &str,
        entry: &mut tar::Entry<'_, R>,
    ) -> Result<()> {
        let kind = entry.header().entry_type();
        let is_file = !matches!(kind, EntryType::Directory | EntryType::Symlink | EntryType::XGlobalHeader);
        let Some(limit) = (selection.wanted)(path).filter(|_| is_file) else { return Ok(()) };
        if kind == EntryType::Link && limit > 0 {
            self.links.extend(normalise(link).map(|link| (path.to_owned(), link)));
        }
        self.read(selection, path, limit, entry)
    }

    fn read(&mut self, selection: &Selection, path: &str, limit: u64, content: &mut impl Read) -> Result<()> {
        let mut bytes = Vec::new();
        if limit > 0 {
            content.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
            if bytes.len() as u64 > limit {
                return Err(Error::user(format!("`/{path}` is larger than {limit} bytes")));
            }
        }
        let kept = if limit > 0 { (selection.keep)(path, &bytes) } else { String::new() };
        self.bytes = self.bytes.saturating_add(kept.len());
        self.files.insert(path.to_owned(), kept);
        self.check()
    }

    /// Files of the archive that hard links lead to whose contents are wanted; with the links.
    pub fn linked(&mut self) -> BTreeMap<String, Vec<String>> {
        let mut wanted: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let links = std::mem::take(&mut self.links);
        for (path, target) in &links {
            // A link to a link leads to the file of that.
            let mut target = target;
            let mut seen = BTreeSet::from([path]);
            while let Some(next) = links.get(target).filter(|_| seen.insert(target)) {
                target = next;
            }
            wanted.entry(target.clone()).or_default().push(path.clone());
        }
        wanted
    }

    /// Reads what [`Self::linked`] named in a second reading of the archive.
    pub fn read_linked(
        &mut self,
        selection: &Selection,
        wanted: &BTreeMap<String, Vec<String>>,
        plain: &mut dyn Read,
    ) -> Result<()> {
        entries::all(plain, |entry| {
            if entry.header().entry_type() == EntryType::Link {
                return Ok(());
            }
            let Some(path) = std::str::from_utf8(&entry.path_bytes()).ok().and_then(normalise) else { return Ok(()) };
            let Some(links) = wanted.get(&path) else { return Ok(()) };
            let limit = links.iter().filter_map(|link| (selection.wanted)(link)).max().unwrap_or(0);
            let mut bytes = Vec::new();
            entry.by_ref().take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
            for link in links {
                self.read(selection, link, (selection.wanted)(link).unwrap_or(0), &mut &bytes[..])?;
            }
            Ok(())
        })
    }

    fn check(&self) -> Result<()> {
        if self.files.len() + self.hidden.len() > FILES {
            return Err(Error::user(format!("a layer has more than {FILES} files that matter")));
        }
        check_bytes(self.bytes)
    }
}

fn check_bytes(bytes: usize) -> Result<()> {
    match bytes > BYTES {
        true => Err(Error::user(format!("the files that matter have more than {BYTES} bytes"))),
        false => Ok(()),
    }
}

/// What an upper layer hides of lower ones.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Hidden {
    /// These, and everything below them.
    paths: BTreeSet<String>,
    /// Everything below these.
    contents: BTreeSet<String>,
}

impl Hidden {
    /// Takes note of a whiteout, however deep; tells whether the path is one.
    fn add(&mut self, path: &str) -> bool {
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        let Some(hidden) = name.strip_prefix(".wh.") else { return false };
        if name == ".wh..wh..opq" {
            self.contents.insert(folder.to_owned());
        } else if !hidden.starts_with(".wh.") {
            self.paths.insert(if folder.is_empty() { hidden.to_owned() } else { format!("{folder}/{hidden}") });
        }
        true
    }

    fn extend(&mut self, other: Self) {
        self.paths.extend(other.paths);
        self.contents.extend(other.contents);
    }

    fn len(&self) -> usize {
        self.paths.len() + self.contents.len()
    }

    fn covers(&self, path: &str) -> bool {
        if self.paths.contains(path) {
            return true;
        }
        // An opaque root hides everything.
        let parents = path.match_indices('/').map(|(end, _)| &path[..end]).chain([""]);
        parents.into_iter().any(|parent| self.paths.contains(parent) || self.contents.contains(parent))
    }
}

/// The files of the layers so far, from the topmost down.
#[derive(Debug, Default)]
pub(super) struct Files {
    files: BTreeMap<String, String>,
    hidden: Hidden,
    bytes: usize,
}

impl Files {
    /// Adds the next lower layer.
    pub fn lay_below(&mut self, layer: LayerFiles) -> Result<()> {
        for (path, content) in layer.files {
            if !self.hidden.covers(&path) && !self.files.contains_key(&path) {
                self.bytes = self.bytes.saturating_add(content.len());
                self.files.insert(path, content);
            }
        }
        // Only now: a layer's own files are not hidden by its whiteouts.
        self.hidden.extend(layer.hidden);
        check_bytes(self.bytes)
    }

    /// What is there, by path.
    pub fn finish(self) -> BTreeMap<String, String> {
        self.files
    }
}
