//! Small documents in a cache registry, each the only blob of an artifact of its own, as layers are.

use std::collections::BTreeMap;

use super::entry;
use super::seal::Said;
use super::write::{NewEntry, Noted};
use crate::model::Blob;
use crate::registry::{Reference, Registry};
use crate::ship::push::by_digest;
use crate::ship::source::{Document, digest};
use crate::store::Store;
use crate::util::{Digest, Error, Result};

/// The annotation with what a document depends on.
const KEY: &str = "dev.condaimg.key";
/// Larger ones are no documents.
const LIMIT: u64 = 16 << 20;

/// A document to be noted under a key. Its media type is also the type of the artifact.
pub fn new_document(key: Digest, media_type: &str, text: String, noted: Noted) -> NewEntry {
    let blob = Blob::from_bytes(media_type, text.into_bytes());
    let annotations = BTreeMap::from([(KEY.to_owned(), key.to_string())]);
    NewEntry { key, kind: media_type.to_owned(), blob, annotations, noted }
}

/// The document that a cache registry has under a key, byte for byte as it was noted; nothing when there is none.
///
/// # Errors
/// When the registry does not answer or refuses; when what is there is something else, damaged or gone.
pub async fn document(
    registry: &Registry,
    store: &Store,
    cache: &Reference,
    key: &Digest,
    media_type: &str,
) -> Result<Option<String>> {
    let Some(fetched) = registry.find_manifest(&entry::reference(cache, key)).await? else { return Ok(None) };
    let wrong = |why: &str| Err(Error::user(format!("the artifact {} {why}", fetched.digest)));
    let references = Document::parse(fetched.media_type.clone(), fetched.bytes.to_vec())?.references;
    if references.artifact_type.as_deref() != Some(media_type) {
        return wrong("is of another type");
    }
    let annotations: BTreeMap<String, String> = references.annotations.unwrap_or_default().into_iter().collect();
    if annotations.get(KEY).map(String::as_str) != Some(&key.to_string()) {
        return wrong("is that of another key");
    }
    let Some([descriptor]) = references.layers.as_deref() else { return wrong("has not one blob") };
    if descriptor.size() > LIMIT {
        return wrong("is too large");
    }
    let digest = digest(descriptor)?;
    let said = Said { kind: media_type, blob: (digest, descriptor.size()), annotations: &annotations };
    if let Err(why) = said.check(store.key()) {
        return wrong(why);
    }
    let path = registry.fetch_blob(&by_digest(cache, digest), &digest, descriptor.size(), store).await?;
    Ok(Some(fs_err::read_to_string(path)?))
}
