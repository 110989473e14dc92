//! Files of a base that somebody else knows how to read: their contents by path, as far as they are wanted.

use std::collections::BTreeMap;
use std::io::Read;

use serde::{Deserialize, Serialize};
use tar::EntryType;

use super::tree::Hidden;
use crate::util::{Error, Result};

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
}

impl LayerFiles {
    /// Takes note of a whiteout.
    pub fn hide(&mut self, path: &str) -> Result<()> {
        self.hidden.add(path);
        self.check()
    }

    /// Takes note of an entry, and reads it if it is wanted.
    pub fn add<R: Read>(&mut self, selection: &Selection, path: &str, entry: &mut tar::Entry<'_, R>) -> Result<()> {
        let is_file = !matches!(
            entry.header().entry_type(),
            EntryType::Directory | EntryType::Symlink | EntryType::XGlobalHeader
        );
        let Some(limit) = (selection.wanted)(path).filter(|_| is_file) else { return Ok(()) };
        let mut content = Vec::new();
        if limit > 0 {
            entry.take(limit.saturating_add(1)).read_to_end(&mut content)?;
            if content.len() as u64 > limit {
                return Err(Error::user(format!("`/{path}` is larger than {limit} bytes")));
            }
        }
        let kept = if limit > 0 { (selection.keep)(path, &content) } else { String::new() };
        self.bytes = self.bytes.saturating_add(kept.len());
        self.files.insert(path.to_owned(), kept);
        self.check()
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
