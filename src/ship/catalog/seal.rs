//! What makes an entry of the catalog believable: a checksum of all that it says, and a MAC if there is a key.

use std::collections::BTreeMap;

use crate::store::CacheKey;
use crate::util::{Digest, Hasher};

/// The annotation with the checksum.
const SUM: &str = "dev.condaimg.sum";
/// The annotation with the MAC.
const MAC: &str = "dev.condaimg.mac";

/// What an artifact says, but for what seals it.
pub(super) struct Said<'a> {
    /// Its type.
    pub(super) kind: &'a str,
    /// Digest of its blob, and its size in bytes.
    pub(super) blob: (Digest, u64),
    /// Its annotations; those that seal it are left out.
    pub(super) annotations: &'a BTreeMap<String, String>,
}

impl Said<'_> {
    /// The annotations with those that seal them.
    pub(super) fn sealed(&self, key: Option<&CacheKey>) -> BTreeMap<String, String> {
        let mut annotations = self.annotations.clone();
        annotations.insert(SUM.to_owned(), self.sum());
        if let Some(key) = key {
            annotations.insert(MAC.to_owned(), self.with_parts(|parts| key.mac(parts)));
        }
        annotations
    }

    /// Whether its annotations seal it.
    ///
    /// # Errors
    /// What is wrong, as the end of a sentence about it.
    pub(super) fn check(&self, key: Option<&CacheKey>) -> Result<(), &'static str> {
        match self.annotations.get(SUM) {
            None => return Err("has no checksum"),
            Some(sum) if *sum != self.sum() => return Err("is damaged"),
            Some(_) => {}
        }
        let mac = self.annotations.get(MAC).map(String::as_str);
        match key {
            Some(key) if !self.with_parts(|parts| key.verifies(parts, mac)) => Err("has no valid MAC of `--cache-key`"),
            _ => Ok(()),
        }
    }

    fn sum(&self) -> String {
        self.with_parts(|parts| {
            let mut hasher = Hasher::default();
            for part in parts {
                hasher.update(&(part.len() as u64).to_be_bytes());
                hasher.update(part);
            }
            hasher.finish().0.hex()
        })
    }

    fn with_parts<T>(&self, take: impl FnOnce(&[&[u8]]) -> T) -> T {
        let (digest, size) = (self.blob.0.hex(), self.blob.1.to_string());
        let mut parts: Vec<&[u8]> = vec![b"catalog", self.kind.as_bytes(), digest.as_bytes(), size.as_bytes()];
        let said = self.annotations.iter().filter(|(name, _)| ![SUM, MAC].contains(&name.as_str()));
        parts.extend(said.flat_map(|(name, value)| [name.as_bytes(), value.as_bytes()]));
        take(&parts)
    }
}
