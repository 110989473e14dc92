//! Contents of a base's files that decide about a build: users, groups, the version of the C library.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::Path;

use serde::{Deserialize, Serialize};
use tar::Archive;

use super::tree::{Place, Tree};
use super::{Base, Fetch, codec, file_of, glibc, layer};
use crate::model::{BaseFacts, LayerBlob};
use crate::store::{RecordKind, Store};
use crate::util::{DiffId, Digest, Error, Result};

/// Raised whenever something else would be kept of the same file.
const VERSION: u32 = 1;
/// The largest passwd, group and C library that are read, in bytes.
const TEXT_LIMIT: u64 = 1 << 20;
const LIBRARY_LIMIT: u64 = 32 << 20;

const PASSWD: &str = "etc/passwd";
const GROUP: &str = "etc/group";

/// What a file is read for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Purpose {
    Text,
    Glibc,
}

/// What is kept of files of a layer, by path in its archive: a text, or the version of a C library (empty: it says none).
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Contents {
    texts: BTreeMap<String, String>,
    libraries: BTreeMap<String, String>,
}

impl Contents {
    /// Reads a file that matters where it mostly is.
    pub fn read<R: Read>(&mut self, path: &str, entry: &mut R) -> Result<()> {
        if matches!(path, PASSWD | GROUP) {
            self.read_as(path, Purpose::Text, entry)?;
        } else if glibc::is_library(path) {
            self.read_as(path, Purpose::Glibc, entry)?;
        }
        Ok(())
    }

    fn read_as<R: Read>(&mut self, path: &str, purpose: Purpose, entry: &mut R) -> Result<()> {
        let mut bytes = Vec::new();
        match purpose {
            Purpose::Text => {
                entry.take(TEXT_LIMIT).read_to_end(&mut bytes)?;
                self.texts.insert(path.to_owned(), String::from_utf8_lossy(&bytes).into_owned());
            }
            Purpose::Glibc => {
                entry.take(LIBRARY_LIMIT).read_to_end(&mut bytes)?;
                self.libraries.insert(path.to_owned(), glibc::of_library(&bytes).unwrap_or_default());
            }
        }
        Ok(())
    }

    fn get(&self, path: &str, purpose: Purpose) -> Option<&str> {
        let of = match purpose {
            Purpose::Text => &self.texts,
            Purpose::Glibc => &self.libraries,
        };
        of.get(path).map(String::as_str)
    }

    fn extend(&mut self, other: Self) {
        self.texts.extend(other.texts);
        self.libraries.extend(other.libraries);
    }
}

/// The facts of a tree, with what the contents of its files tell. Those that were not read yet are.
pub(super) async fn complete(
    tree: &Tree,
    mut contents: Vec<Contents>,
    base: &Base,
    store: &Store,
    fetch: &dyn Fetch,
) -> Result<BaseFacts> {
    let (passwd, group, libraries) = (tree.place(PASSWD), tree.place(GROUP), tree.libraries());
    let texts = [&passwd, &group].into_iter().flatten().map(|place| (place, Purpose::Text));
    let unnamed = libraries.iter().filter(|(version, _)| version.is_none());
    let wanted = texts.chain(unnamed.map(|(_, place)| (place, Purpose::Glibc)));
    let mut missing: BTreeMap<usize, BTreeSet<(String, Purpose)>> = BTreeMap::new();
    for ((number, path), purpose) in wanted {
        if contents.get(*number).is_some_and(|layer| layer.get(path, purpose).is_none()) {
            missing.entry(*number).or_default().insert((path.clone(), purpose));
        }
    }
    for (number, wanted) in missing {
        let (Some(layer), Some(known)) = (base.layers.get(number), contents.get_mut(number)) else { continue };
        known.extend(second_look(layer, wanted, store, fetch).await?);
    }
    let text = |place: Option<Place>| {
        let (number, path) = place?;
        contents.get(number)?.get(&path, Purpose::Text).map(str::to_owned)
    };
    let version = |(named, (number, path)): (Option<String>, Place)| {
        named.or_else(|| Some(contents.get(number)?.get(&path, Purpose::Glibc)?.to_owned())).filter(|it| !it.is_empty())
    };
    Ok(BaseFacts {
        passwd: text(passwd),
        group: text(group),
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
        for entry in Archive::new(plain).entries()? {
            let mut entry = entry?;
            let kind = entry.header().entry_type();
            if kind.is_dir() || kind.is_symlink() || kind.is_hard_link() {
                continue;
            }
            let Ok(path) = String::from_utf8(entry.path_bytes().into_owned()) else { continue };
            let Some(path) = layer::normalise(&path) else { continue };
            for purpose in [Purpose::Text, Purpose::Glibc] {
                if wanted.contains(&(path.clone(), purpose)) {
                    contents.read_as(&path, purpose, &mut entry)?;
                }
            }
        }
        Ok(contents)
    })
}
