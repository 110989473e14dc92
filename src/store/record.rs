//! Records: small things that are known under a key.
//!
//! ```text
//! {"kind":"layers","key":"<hex>","sum":"<hex>","mac":"<hex>"}    one line
//! <what is known, as JSON>
//! ```
//!
//! `sum` is the SHA-256 of kind, key and value: a record that was damaged, or that belongs to another key, is found. It
//! stops nobody who can write to the store; `mac`, which is there when a [`CacheKey`] is, does.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use fs_err as fs;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::verify::open_regular;
use super::{CacheKey, Store};
use crate::util::files::named;
use crate::util::{Digest, Result};

/// What a record is about; one folder each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordKind {
    /// Layer key → blob.
    Layer,
    /// Segment key → place in a blob.
    Segment,
    /// Segment key → what its files lose in an image.
    Losses,
    /// Archive sha256 → package facts.
    Facts,
    /// Archive sha256 → what only its content tells.
    Content,
    /// Layer of a base → what matters of it.
    Base,
    /// Blob → repositories that have it.
    Places,
    /// Source of a Python package → the wheel that was built of it.
    Wheel,
    /// Archive sha256 → digest of its faster form.
    Transcoded,
    /// Key of an interpreter → digest of its tree.
    Interpreter,
    /// Directory that others fill → digests of its files.
    Foreign,
}

impl RecordKind {
    pub(super) fn folder(self) -> &'static str {
        match self {
            Self::Layer => "layers",
            Self::Segment => "segments",
            Self::Losses => "losses",
            Self::Facts => "facts",
            Self::Content => "contents",
            Self::Base => "bases",
            Self::Places => "places",
            Self::Wheel => "wheels",
            Self::Transcoded => "transcoded",
            Self::Interpreter => "interpreters",
            Self::Foreign => "foreign",
        }
    }
}

/// The first line of a record.
#[derive(Serialize, Deserialize)]
struct Header {
    kind: String,
    key: String,
    sum: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mac: Option<String>,
}

/// What lies in a record's place.
enum Found {
    /// Nothing, or what an older version wrote, which has no checksum.
    Nothing,
    /// It is not what was written, or belongs to another key.
    Damaged,
    /// It has no MAC, or none of this key.
    Foreign,
    /// What is known.
    Value(Vec<u8>),
}

impl Store {
    /// Reads what is known under a key; nothing when there is no record, or none that can be relied on: that is removed,
    /// which is told.
    pub fn record<T: DeserializeOwned>(&self, kind: RecordKind, key: &Digest) -> Option<T> {
        let path = self.record_path(kind, key);
        let value = match self.find_record(kind, key, &path) {
            Found::Value(value) => value,
            Found::Nothing => return None,
            Found::Foreign => {
                // Of bases only the names are remembered, which many builds do without.
                if kind != RecordKind::Base {
                    self.tell_foreign();
                }
                return None;
            }
            Found::Damaged => {
                self.discard(&path);
                return None;
            }
        };
        // Its checksum is right: another version knew other things.
        serde_json::from_slice(&value).ok()
    }

    /// Remembers something under a key.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn remember<T: Serialize>(&self, kind: RecordKind, key: &Digest, value: &T) -> Result<()> {
        let path = self.record_path(kind, key);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        // Unfinished in the store's own folder for that, which is swept.
        let mut file = self.temporary()?;
        let record = written(self.key.as_ref(), kind, key, crate::util::json::canonical(value)?)?;
        file.write_all(&record).map_err(|error| named(&path, error))?;
        // Not while a clean-up looks at the one that is there.
        self.together(|| self.place(file, &path))
    }

    fn record_path(&self, kind: RecordKind, key: &Digest) -> PathBuf {
        self.root.join("records").join(kind.folder()).join(format!("{}.json", key.hex()))
    }

    fn find_record(&self, kind: RecordKind, key: &Digest, path: &Path) -> Found {
        let mut bytes = Vec::new();
        match open_regular(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Found::Nothing,
            Err(_) => return Found::Damaged,
            Ok(mut file) => match file.read_to_end(&mut bytes) {
                Ok(_) => {}
                Err(_) => return Found::Damaged,
            },
        }
        let Some((header, value)) = split(&bytes) else {
            return match serde_json::from_slice::<serde::de::IgnoredAny>(&bytes) {
                Ok(_) => Found::Nothing,
                Err(_) => Found::Damaged,
            };
        };
        if (header.kind.as_str(), &header.key) != (kind.folder(), &key.hex()) || header.sum != sum(kind, key, value) {
            return Found::Damaged;
        }
        match &self.key {
            Some(cache_key) if !cache_key.verifies(&signed(kind, key, value), header.mac.as_deref()) => Found::Foreign,
            _ => Found::Value(value.to_vec()),
        }
    }
}

/// What is known by a record's bytes, whatever its key is.
pub(super) fn value_of(record: &[u8]) -> Option<&[u8]> {
    split(record).map(|(_, value)| value)
}

fn split(record: &[u8]) -> Option<(Header, &[u8])> {
    let end = record.iter().position(|byte| *byte == b'\n')?;
    Some((serde_json::from_slice(&record[..end]).ok()?, &record[end + 1..]))
}

fn written(cache_key: Option<&CacheKey>, kind: RecordKind, key: &Digest, value: Vec<u8>) -> Result<Vec<u8>> {
    let header = Header {
        kind: kind.folder().to_owned(),
        key: key.hex(),
        sum: sum(kind, key, &value),
        mac: cache_key.map(|cache_key| cache_key.mac(&signed(kind, key, &value))),
    };
    let mut record = crate::util::json::canonical(&header)?;
    record.push(b'\n');
    record.extend(value);
    Ok(record)
}

fn sum(kind: RecordKind, key: &Digest, value: &[u8]) -> String {
    let mut hasher = crate::util::Hasher::default();
    for part in [b"record", kind.folder().as_bytes(), key.as_bytes(), value] {
        hasher.update(part);
        hasher.update(b"\n");
    }
    hasher.finish().0.hex()
}

fn signed<'a>(kind: RecordKind, key: &'a Digest, value: &'a [u8]) -> [&'a [u8]; 4] {
    [b"record", kind.folder().as_bytes(), key.as_bytes(), value]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(folder: &Path, key: Option<&str>) -> Store {
        let store = Store::open(folder).expect("opens");
        let key = key.map(|key| {
            let file = folder.join("key");
            fs::write(&file, key).expect("writes");
            CacheKey::read(&file).expect("a key")
        });
        store.with_key(key)
    }

    fn read(store: &Store, name: &str) -> Option<String> {
        store.record(RecordKind::Layer, &Digest::of(name))
    }

    #[test]
    fn changed_or_swapped_record_is_not_believed() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = store(folder.path(), None);
        let (a, b) = (Digest::of("a"), Digest::of("b"));
        let write = || {
            for (key, value) in [(&a, "of a"), (&b, "of b")] {
                store.remember(RecordKind::Layer, key, &value).expect("remembers");
            }
        };
        write();
        assert_eq!(read(&store, "a").as_deref(), Some("of a"));
        let (path, other) = (store.record_path(RecordKind::Layer, &a), store.record_path(RecordKind::Layer, &b));
        let whole = fs::read(&path).expect("reads");
        for index in 0..whole.len() {
            let mut changed = whole.clone();
            changed[index] ^= 1;
            fs::write(&path, changed).expect("writes");
            assert!(read(&store, "a").is_none_or(|value| value == "of a"), "byte {index}");
        }
        for end in 0..whole.len() {
            fs::write(&path, &whole[..end]).expect("writes");
            assert_eq!(read(&store, "a"), None, "{end} bytes");
        }
        fs::rename(&other, &path).expect("swaps");
        assert_eq!(read(&store, "a"), None);
        assert!(!path.exists(), "it is removed");
        fs::create_dir_all(path.join("x")).expect("makes");
        assert_eq!(read(&store, "a"), None);
        write();
        assert_eq!(read(&store, "a").as_deref(), Some("of a"));
        // The value of an older version, and the record of another kind.
        fs::write(&path, "\"of a\"").expect("writes");
        assert_eq!(read(&store, "a"), None);
        store.remember(RecordKind::Segment, &a, &"of a").expect("remembers");
        fs::copy(store.record_path(RecordKind::Segment, &a), &path).expect("copies");
        assert_eq!(read(&store, "a"), None);
    }

    #[test]
    fn record_without_a_mac_of_the_key_is_not_believed() {
        let folder = tempfile::tempdir().expect("a folder");
        let plain = store(folder.path(), None);
        let keyed = store(folder.path(), Some("0123456789abcdef"));
        let other = store(folder.path(), Some("fedcba9876543210"));
        plain.remember(RecordKind::Layer, &Digest::of("a"), &"a").expect("remembers");
        assert_eq!(read(&keyed, "a"), None);
        keyed.remember(RecordKind::Layer, &Digest::of("a"), &"a").expect("remembers");
        for (store, expected) in [(&keyed, Some("a")), (&plain, Some("a")), (&other, None)] {
            assert_eq!(read(store, "a").as_deref(), expected);
        }
    }
}
