//! The artifact of one layer in a cache registry. It has the layer as its only blob, so that no clean-up takes it.

use std::collections::BTreeMap;

use super::seal::Said;
use crate::image;
use crate::model::LAYER_KEY;
use crate::registry::{FetchedManifest, Reference};
use crate::ship::source::{Document, digest};
use crate::store::CacheKey;
use crate::util::{DiffId, Digest, Error, Result};

/// What such an artifact is (image-spec, manifest.md, "artifactType").
pub(super) const TYPE: &str = "application/vnd.condaimg.layer.v1";
/// The annotation with the layer's diff ID.
const DIFF_ID: &str = "dev.condaimg.layer.diff-id";
/// Such artifacts have less than 2 kB.
const LIMIT: usize = 64 * 1024;
/// Hexadecimal digits of the key in the tag: 128 bits, because tags are short and the whole key stands in the artifact.
const TAG_DIGITS: usize = 32;

/// What an artifact says of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What the layer's bytes depend on.
    pub key: Digest,
    /// Digest of the blob.
    pub digest: Digest,
    /// Size of the blob in bytes.
    pub size: u64,
    /// Digest of the uncompressed tar.
    pub diff_id: DiffId,
}

impl Entry {
    /// Reads an artifact that should be that of a key. Somebody else may have written it.
    ///
    /// # Errors
    /// When it is anything else.
    pub(super) fn parse(
        fetched: &FetchedManifest,
        key: &Digest,
        media_type: &str,
        cache_key: Option<&CacheKey>,
    ) -> Result<Self> {
        let wrong = |why: &str| Err(Error::user(format!("the artifact {} {why}", fetched.digest)));
        if fetched.bytes.len() > LIMIT || fetched.media_type != image::MANIFEST {
            return wrong("is no entry of a catalog");
        }
        let references = Document::parse(fetched.media_type.clone(), fetched.bytes.to_vec())?.references;
        if references.artifact_type.as_deref() != Some(TYPE) {
            return wrong("is no entry of a catalog");
        }
        let annotations: BTreeMap<String, String> = references.annotations.unwrap_or_default().into_iter().collect();
        if annotations.get(LAYER_KEY).map(String::as_str) != Some(&key.to_string()) {
            return wrong("is that of another layer");
        }
        let Some([layer]) = references.layers.as_deref() else { return wrong("has not one layer") };
        if layer.media_type().as_ref() != media_type {
            return wrong("has a layer of another kind");
        }
        let blob = (digest(layer)?, layer.size());
        if let Err(why) = (Said { kind: TYPE, blob, annotations: &annotations }).check(cache_key) {
            return wrong(why);
        }
        let Some(diff_id) = annotations.get(DIFF_ID) else { return wrong("names no diff ID") };
        Ok(Self { key: *key, digest: digest(layer)?, size: layer.size(), diff_id: DiffId(diff_id.parse()?) })
    }

    pub(super) fn annotations(&self) -> BTreeMap<String, String> {
        BTreeMap::from([(LAYER_KEY.to_owned(), self.key.to_string()), (DIFF_ID.to_owned(), self.diff_id.to_string())])
    }
}

/// Where the artifact of a key is.
pub(super) fn reference(cache: &Reference, key: &Digest) -> Reference {
    let tag = format!("condaimg-{}", &key.hex()[..TAG_DIGITS]);
    Reference::with_tag(cache.registry().into(), cache.repository().into(), tag)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Blob, BlobSource};
    use crate::registry::Registry;

    const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

    fn fetched(bytes: Vec<u8>) -> FetchedManifest {
        FetchedManifest { digest: Digest::of(&bytes), media_type: image::MANIFEST.to_owned(), bytes: bytes.into() }
    }

    fn written(entry: &Entry, key: Option<&CacheKey>) -> Vec<u8> {
        let annotations = entry.annotations();
        let said = Said { kind: TYPE, blob: (entry.digest, entry.size), annotations: &annotations };
        let source = BlobSource::Registry(String::new());
        let blob = Blob { media_type: GZIP.to_owned(), digest: entry.digest, size: entry.size, source };
        let artifact = image::lone_artifact(TYPE, &blob, &said.sealed(key)).expect("makes");
        crate::ship::copy::bytes_of(&artifact.manifest).expect("is in memory").to_vec()
    }

    #[test]
    fn what_was_written_is_read_and_anything_else_is_not() {
        let [key, digest, plain] = ["key", "layer", "tar"].map(Digest::of);
        let entry = Entry { key, digest, size: 7, diff_id: DiffId(plain) };
        let text = String::from_utf8(written(&entry, None)).expect("text");
        let parse = |text: &str| Entry::parse(&fetched(text.as_bytes().to_vec()), &key, GZIP, None);
        assert_eq!(parse(&text).expect("parses"), entry);
        for (from, to) in [
            (TYPE, "application/vnd.oci.image.config.v1+json".to_owned()),
            (key.hex().as_str(), Digest::of("other").hex()),
            ("tar+gzip", "tar+zstd".to_owned()),
            ("sha256:", "sha512:".to_owned()),
            (DIFF_ID, "x".to_owned()),
            (r#""size":7"#, r#""size":-7"#.to_owned()),
            (r#""layers":["#, r#""layers":[], "other":["#.to_owned()),
            ("{", format!("{}{{", " ".repeat(LIMIT))),
        ] {
            assert_ne!(text.replace(from, &to), text, "{from}");
            assert!(parse(&text.replacen(from, &to, 9)).is_err(), "{from}");
        }
    }

    #[test]
    fn entry_with_another_digest_or_mac_is_refused() {
        let [key, digest, plain] = ["key", "layer", "tar"].map(Digest::of);
        let entry = Entry { key, digest, size: 7, diff_id: DiffId(plain) };
        let keys = ["0123456789abcdef", "fedcba9876543210"].map(|text| {
            let file = tempfile::NamedTempFile::new().expect("a file");
            fs_err::write(file.path(), text).expect("writes");
            CacheKey::read(file.path()).expect("a key")
        });
        let parse = |bytes: Vec<u8>, cache_key| Entry::parse(&fetched(bytes), &key, GZIP, cache_key);
        let text = String::from_utf8(written(&entry, None)).expect("text");
        for changed in [plain, digest] {
            let other = text.replace(&changed.hex(), &Digest::of("another").hex());
            assert!(parse(other.into_bytes(), None).is_err());
        }
        assert!(parse(written(&entry, None), Some(&keys[0])).is_err(), "it has no MAC");
        let sealed = || written(&entry, Some(&keys[0]));
        for (cache_key, fits) in [(None, true), (Some(&keys[0]), true), (Some(&keys[1]), false)] {
            assert_eq!(parse(sealed(), cache_key).is_ok(), fits);
        }
    }

    #[test]
    fn tags_hold_the_first_half_of_the_key() {
        let cache = Registry::parse("registry.example/team/cache").expect("a reference");
        let key = Digest::of("key");
        let expected = format!("registry.example/team/cache:condaimg-{}", &key.hex()[..32]);
        assert_eq!(reference(&cache, &key).whole(), expected);
    }
}
