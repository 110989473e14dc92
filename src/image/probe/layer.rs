//! Names and links of one layer, in the order of its archive: what the tree of a base is made of. Kept in the store by diff
//! ID; so few bytes an entry that a base of a million files stays small.

use serde::{Deserialize, Serialize};

use crate::model::FolderFacts;
use crate::util::{Error, Limit, Result, paths};

/// The most that is kept of one layer, in bytes: a hostile one must not fill the memory. Two million entries fit.
const BYTES: usize = 64 << 20;
/// Between the parts of an entry: no path in normal form holds it.
const PART: &str = "//";

/// What a path is in a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Entry<'a> {
    /// A directory.
    Directory(FolderFacts),
    /// A symlink with its target.
    Symlink(&'a str),
    /// A hard link to another path.
    Hardlink(&'a str),
    /// Anything else.
    File,
    /// A whiteout: lower layers' entry is gone.
    Removed,
    /// An opaque directory: what lower layers have in it is gone.
    Emptied,
}

/// The entries of a layer: one a line, each with the number of bytes that its path shares with the one before.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Layer {
    text: String,
    #[serde(skip)]
    last: String,
    /// Entries that were added.
    #[serde(skip)]
    count: u64,
}

impl Layer {
    /// Adds an entry, whose path is in normal form.
    ///
    /// # Errors
    /// When the layer has too many.
    pub fn add(&mut self, path: &str, entry: &Entry<'_>) -> Result<()> {
        let (kind, value) = match entry {
            Entry::Directory(FolderFacts::USUAL) => ('d', String::new()),
            Entry::Directory(facts) => ('d', String::from(*facts)),
            Entry::Symlink(target) => ('l', (*target).to_owned()),
            Entry::Hardlink(target) => ('h', (*target).to_owned()),
            Entry::File => ('f', String::new()),
            Entry::Removed => ('w', String::new()),
            Entry::Emptied => ('o', String::new()),
        };
        // Nothing that condaimg writes can be below such a name.
        if path.contains('\n') || value.contains('\n') {
            return Ok(());
        }
        let shared = self.last.char_indices().zip(path.chars()).take_while(|((_, a), b)| a == b);
        let shared = shared.last().map_or(0, |((at, char), _)| at + char.len_utf8());
        self.text.push_str(&format!("{shared}{PART}{}{PART}{kind}{value}\n", &path[shared..]));
        path.clone_into(&mut self.last);
        self.count += 1;
        if self.count > Limit::BaseEntries.value() {
            return Err(Limit::BaseEntries.exceeded("failed to read a layer: the number of its names is larger than"));
        }
        match self.text.len() > BYTES {
            true => Err(Error::user(format!("failed to read a layer: its names have more than {BYTES} bytes"))),
            false => Ok(()),
        }
    }

    /// Adds an entry of the archive, which may be a whiteout by its name.
    ///
    /// # Errors
    /// As [`Self::add`].
    pub fn add_entry(&mut self, path: &str, entry: &Entry<'_>) -> Result<()> {
        let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
        match name.strip_prefix(".wh.") {
            None => self.add(path, entry),
            Some(".wh..opq") => self.add(directory, &Entry::Emptied),
            // Notes of aufs.
            Some(hidden) if hidden.starts_with(".wh.") => Ok(()),
            Some(hidden) if directory.is_empty() => self.add(hidden, &Entry::Removed),
            Some(hidden) => self.add(&format!("{directory}/{hidden}"), &Entry::Removed),
        }
    }

    /// The number of entries.
    pub fn len(&self) -> usize {
        self.text.bytes().filter(|byte| *byte == b'\n').count()
    }

    /// Calls a function with each entry, in the order of the archive.
    pub fn each(&self, mut call: impl FnMut(&str, Entry<'_>)) {
        let mut path = String::new();
        for line in self.text.lines() {
            let mut parts = line.splitn(3, PART);
            let (Some(shared), Some(rest), Some(entry)) = (parts.next(), parts.next(), parts.next()) else { continue };
            path.truncate(shared.parse().unwrap_or(0));
            path.push_str(rest);
            let mut chars = entry.chars();
            let kind = chars.next();
            let value = chars.as_str();
            call(
                &path,
                match kind {
                    Some('d') => Entry::Directory(value.to_owned().try_into().unwrap_or(FolderFacts::USUAL)),
                    Some('l') => Entry::Symlink(value),
                    Some('h') => Entry::Hardlink(value),
                    Some('w') => Entry::Removed,
                    Some('o') => Entry::Emptied,
                    _ => Entry::File,
                },
            );
        }
    }
}

/// A path of an archive in normal form; nothing for the root itself and for a path that climbs.
pub(super) fn normalise(path: &str) -> Option<String> {
    paths::normal(path).filter(|path| !path.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_read_as_they_were_written() {
        let mut layer = Layer::default();
        let odd = FolderFacts { mode: 0o2775, owner: (1000, 100) };
        let entries = [
            ("usr", Entry::Directory(FolderFacts::USUAL)),
            ("usr/bin", Entry::Directory(odd)),
            ("usr/bin/sh", Entry::Symlink("//odd//target")),
            ("usr/bin/é", Entry::File),
            ("usr/bin/è", Entry::Hardlink("usr/bin/é")),
            ("etc", Entry::Emptied),
        ];
        for (path, entry) in &entries {
            layer.add(path, entry).expect("few");
        }
        layer.add_entry("usr/.wh.lib", &Entry::File).expect("few");
        layer.add_entry(".wh..wh..opq", &Entry::File).expect("few");
        layer.add_entry(".wh..wh.plnk", &Entry::File).expect("few");
        let mut read = Vec::new();
        layer.each(|path, entry| read.push(format!("{path} {entry:?}")));
        let mut expected: Vec<String> = entries.iter().map(|(path, entry)| format!("{path} {entry:?}")).collect();
        expected.extend(["usr/lib Removed".to_owned(), " Emptied".to_owned()]);
        assert_eq!(read, expected);
    }

    #[test]
    fn a_layer_cannot_fill_the_memory() {
        let mut layer = Layer::default();
        let name = "x".repeat(4000);
        let mut names = (0..=BYTES / 4000).map(|number| format!("{number}{name}"));
        assert!(names.any(|name| layer.add(&name, &Entry::File).is_err()));
    }
}
