//! Contents of a base's files that decide about a build: users, groups, the version of the C library.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::tree::{Obstacle, Place, Tree};
use super::{Base, Fetch, codec, file_of, glibc, layer};
use crate::model::{BaseFacts, FolderFacts, LayerBlob};
use crate::store::{RecordKind, Store};
use crate::util::{DiffId, Digest, Error, Result, entries};

/// Raised whenever something else would be kept of the same file.
const VERSION: u32 = 2;
/// The largest passwd, group and C library that are read, in bytes.
const TEXT_LIMIT: u64 = 16 << 20;
/// What the texts of all layers may have together; beyond that, those that matter are read again.
const TEXTS_LIMIT: usize = 64 << 20;
const LIBRARY_LIMIT: u64 = 32 << 20;

const PASSWD: &str = "etc/passwd";
const GROUP: &str = "etc/group";

/// What a file is read for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Purpose {
    Text,
    Glibc,
}

/// A text, and what its header says.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Text {
    text: String,
    /// Of all of it, in bytes; a longer one than [`TEXT_LIMIT`] is not kept.
    size: u64,
    facts: FolderFacts,
}

/// What is kept of files of a layer, by path in its archive: a text, or the version of a C library (empty: it says none).
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Contents {
    texts: BTreeMap<String, Text>,
    libraries: BTreeMap<String, String>,
}

impl Contents {
    /// Reads a file that matters where it mostly is.
    pub fn read<R: Read>(&mut self, path: &str, entry: &mut tar::Entry<'_, R>) -> Result<()> {
        if matches!(path, PASSWD | GROUP) {
            self.read_as(path, Purpose::Text, entry)?;
        } else if glibc::is_library(path) {
            self.read_as(path, Purpose::Glibc, entry)?;
        }
        Ok(())
    }

    fn read_as<R: Read>(&mut self, path: &str, purpose: Purpose, entry: &mut tar::Entry<'_, R>) -> Result<()> {
        let mut bytes = Vec::new();
        match purpose {
            Purpose::Text => {
                let (facts, size) = (super::facts_of(entry, FolderFacts::USUAL_FILE), entry.size());
                if size <= TEXT_LIMIT {
                    entry.take(TEXT_LIMIT).read_to_end(&mut bytes)?;
                }
                let text = String::from_utf8_lossy(&bytes).into_owned();
                self.texts.insert(path.to_owned(), Text { text, size, facts });
            }
            Purpose::Glibc => {
                entry.take(LIBRARY_LIMIT).read_to_end(&mut bytes)?;
                self.libraries.insert(path.to_owned(), glibc::of_library(&bytes).unwrap_or_default());
            }
        }
        Ok(())
    }

    fn has(&self, path: &str, purpose: Purpose) -> bool {
        match purpose {
            Purpose::Text => self.texts.contains_key(path),
            Purpose::Glibc => self.libraries.contains_key(path),
        }
    }

    fn extend(&mut self, other: Self) {
        self.texts.extend(other.texts);
        self.libraries.extend(other.libraries);
    }
}

/// Forgets texts of layers when they are too many: bases have one or two, hostile ones one in each layer.
pub(super) fn shrink(contents: &mut [Contents]) {
    let size: usize = contents.iter().flat_map(|layer| layer.texts.values()).map(|text| text.text.len()).sum();
    if size > TEXTS_LIMIT {
        contents.iter_mut().for_each(|layer| layer.texts.clear());
    }
}

/// The file of users must be one, or be able to become one.
fn refuse_passwd(tree: &Tree) -> Result<()> {
    let why = match tree.obstacle(PASSWD) {
        None if tree.is_directory(PASSWD) => "the base has a directory there".to_owned(),
        Some(Obstacle::Loop(link)) => format!("`/{link}` of the base is in a loop of symlinks"),
        Some(Obstacle::File(file)) if tree.place(PASSWD).is_none() => format!("the base has a file at `/{file}`"),
        None | Some(Obstacle::File(_)) => return Ok(()),
    };
    Err(Error::user(format!("failed to place the users of the image at `/{PASSWD}`: {why}"))
        .hint("choose another base"))
}

/// The facts of a tree, with what the contents of its files tell. Those that were not read yet are.
pub(super) async fn complete(
    tree: &Tree,
    mut contents: Vec<Contents>,
    base: &Base,
    store: &Store,
    fetch: &dyn Fetch,
) -> Result<BaseFacts> {
    refuse_passwd(tree)?;
    let (passwd, group, libraries) = (tree.place(PASSWD), tree.place(GROUP), tree.libraries());
    let texts = [&passwd, &group].into_iter().flatten().map(|place| (place, Purpose::Text));
    let unnamed = libraries.iter().filter(|(version, _)| version.is_none());
    let wanted = texts.chain(unnamed.map(|(_, place)| (place, Purpose::Glibc)));
    let mut missing: BTreeMap<usize, BTreeSet<(String, Purpose)>> = BTreeMap::new();
    for ((number, path), purpose) in wanted {
        if contents.get(*number).is_some_and(|layer| !layer.has(path, purpose)) {
            missing.entry(*number).or_default().insert((path.clone(), purpose));
        }
    }
    for (number, wanted) in missing {
        let (Some(layer), Some(known)) = (base.layers.get(number), contents.get_mut(number)) else { continue };
        known.extend(second_look(layer, wanted, store, fetch).await?);
    }
    let text = |place: Option<Place>, name: &str| {
        let found = place.and_then(|(number, path)| contents.get(number)?.texts.get(&path));
        match found.filter(|text| text.size > TEXT_LIMIT) {
            Some(large) => Err(Error::user(format!(
                "failed to read `/{name}` of the base: it has {} bytes, and at most {TEXT_LIMIT} are read",
                large.size
            ))
            .hint("choose another base")),
            None => Ok(found),
        }
    };
    let version = |(named, (number, path)): (Option<String>, Place)| {
        named.or_else(|| Some(contents.get(number)?.libraries.get(&path)?.clone())).filter(|it| !it.is_empty())
    };
    let (passwd, group) = (text(passwd, PASSWD)?, text(group, GROUP)?);
    Ok(BaseFacts {
        passwd: passwd.map(|passwd| passwd.text.clone()),
        passwd_mode: passwd.map(|passwd| passwd.facts).filter(|facts| *facts != FolderFacts::USUAL_FILE),
        group: group.map(|group| group.text.clone()),
        glibc: libraries.into_iter().find_map(version),
        ..tree.facts()
    })
}

/// Reads files of a layer that its first reading left out.
async fn second_look(
    layer: &LayerBlob,
    wanted: BTreeSet<(String, Purpose)>,
    store: &Store,
    fetch: &dyn Fetch,
) -> Result<Contents> {
    let key = Digest::of(format!("base layer contents {VERSION}\n{}\n{wanted:?}\n", layer.diff_id));
    if let Some(known) = store.record(RecordKind::Base, &key) {
        return Ok(known);
    }
    let (digest, diff_id) = (layer.blob.digest, layer.diff_id);
    let path = file_of(layer, fetch).await?;
    let read = tokio::task::spawn_blocking(move || read(&path, &digest, &diff_id, &wanted))
        .await
        .map_err(|error| Error::bug("the base could not be read").caused_by(error))??;
    store.remember(RecordKind::Base, &key, &read)?;
    Ok(read)
}

fn read(path: &Path, digest: &Digest, diff_id: &DiffId, wanted: &BTreeSet<(String, Purpose)>) -> Result<Contents> {
    codec::read_layer(path, digest, diff_id, |plain| {
        let mut contents = Contents::default();
        entries::all(plain, |entry| {
            let kind = entry.header().entry_type();
            if kind.is_dir() || kind.is_symlink() || kind.is_hard_link() {
                return Ok(());
            }
            let Ok(path) = String::from_utf8(entry.path_bytes().into_owned()) else { return Ok(()) };
            let Some(path) = layer::normalise(&path) else { return Ok(()) };
            for purpose in [Purpose::Text, Purpose::Glibc] {
                if wanted.contains(&(path.clone(), purpose)) {
                    contents.read_as(&path, purpose, entry)?;
                }
            }
            Ok(())
        })?;
        Ok(contents)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a layer with one file.
    fn contents(path: &str, text: &[u8], mode: u32) -> Contents {
        let mut tar = ::tar::Builder::new(Vec::new());
        let mut header = ::tar::Header::new_gnu();
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(text.len() as u64);
        tar.append_data(&mut header, path, text).expect("appends");
        let tar = tar.into_inner().expect("ends");
        let mut contents = Contents::default();
        for entry in ::tar::Archive::new(&tar[..]).entries().expect("reads") {
            contents.read(path, &mut entry.expect("an entry")).expect("reads");
        }
        contents
    }

    #[test]
    fn texts_are_whole_or_not_kept_at_all() {
        let line = "a:x:1:1::/:/bin/sh\n";
        let long = line.repeat((2 << 20) / line.len());
        let kept = contents(PASSWD, long.as_bytes(), 0o664);
        let text = &kept.texts[PASSWD];
        assert!(text.text == long && text.facts.mode == 0o664);
        let large = vec![b'\n'; TEXT_LIMIT as usize + 1];
        let text = &contents(GROUP, &large, 0o644).texts[GROUP];
        assert_eq!((text.text.as_str(), text.size), ("", TEXT_LIMIT + 1));
    }

    #[test]
    fn texts_of_many_layers_do_not_fill_the_memory() {
        let text = vec![b'\n'; TEXT_LIMIT as usize];
        let mut layers: Vec<Contents> = Vec::new();
        for _ in 0..5 {
            layers.push(contents(PASSWD, &text, 0o644));
            shrink(&mut layers);
        }
        assert!(layers.iter().all(|layer| !layer.has(PASSWD, Purpose::Text)));
    }
}
