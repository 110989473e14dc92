//! Adding platforms to an index in a registry, so that jobs that build one platform each can share a tag.

use serde_json::{Value, json};

use super::content::Content;
use super::copy::{Carrier, Copied, bytes_of};
use super::push::by_digest;
use super::source::{Document, Source};
use crate::image::{INDEX, is_index, platform_entry};
use crate::model::{BaseRef, Blob, MAX_IMAGE_LAYERS};
use crate::registry::{FetchedManifest, Reference, Registry, Sent};
use crate::store::Store;
use crate::util::json::canonical;
use crate::util::{Error, Result};

impl Carrier<'_> {
    /// Pushes the content and puts its platforms into the index at the target's tag: each in the place of the image of
    /// the same platform, all others stay. A plain image that has the tag becomes one of the index's.
    pub(super) async fn merge(&self, source: &Source, content: &Content, target: &Reference) -> Result<Copied> {
        if target.digest().is_some() {
            return Err(Error::usage(format!(
                "`{target}` names an index by its digest, which no change leaves the same"
            ))
            .hint("name it by a tag"));
        }
        let root = content.documents.last().ok_or_else(|| Error::bug("there is no manifest to push"))?;
        content.documents.iter().try_for_each(refuse_too_deep)?;
        let entries = entries(source, root).await?;
        // Under its digest: the tag is moved to the index only.
        let mut copied = self.push(content, &by_digest(target, root.digest)).await?;
        // What others put in and somebody else's older copy of the index took out again is put back.
        let mut seen: Vec<Value> = Vec::new();
        let (digest, sent) = self
            .registry
            .amend(target, INDEX, async |current| {
                let old = match current {
                    Some(current) => as_index(current, target, self.registry, self.store).await?,
                    None => json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": []}),
                };
                let index = with(with_seen(old, &seen), &entries)?;
                seen = index["manifests"].as_array().cloned().unwrap_or_default();
                canonical(&index)
            })
            .await?;
        copied.delivered.moved |= matches!(sent, Sent::Uploaded(_));
        Ok(Copied { digest: Some(digest), ..copied })
    }
}

/// Refuses an image that Docker could not take: an index promises that each platform can be pulled.
fn refuse_too_deep(document: &Blob) -> Result<()> {
    let parsed = Document::parse(document.media_type.clone(), bytes_of(document)?.to_vec())?;
    let config = parsed.references.config.as_ref().map(|config| config.media_type().to_string()).unwrap_or_default();
    let is_image = config.ends_with("image.config.v1+json") || config.ends_with("container.image.v1+json");
    let layers = parsed.references.layers.as_ref().map_or(0, Vec::len);
    match is_image && layers > MAX_IMAGE_LAYERS {
        false => Ok(()),
        true => Err(Error::user(format!(
            "failed to add {} to the index: it has {layers} layers, and Docker takes images of {MAX_IMAGE_LAYERS} at most",
            document.digest
        ))
        .hint("build it with a lower `--max-layers`, or on a base with fewer layers")),
    }
}

/// What an index lists for a document: a manifest with its platform, or what the document, an index itself, lists.
async fn entries(source: &Source, root: &Blob) -> Result<Vec<Value>> {
    let document = Document::parse(root.media_type.clone(), bytes_of(root)?.to_vec())?;
    if document.references.manifests.is_none() {
        let platform = source.platform(&document).await?;
        return Ok(vec![value(&platform_entry(&document.blob, &platform)?)?]);
    }
    let index: Value = parse(bytes_of(root)?)?;
    Ok(index["manifests"].as_array().cloned().unwrap_or_default())
}

/// What the tag stands for, as an index.
async fn as_index(current: FetchedManifest, target: &Reference, registry: &Registry, store: &Store) -> Result<Value> {
    if is_index(&current.media_type) {
        return parse(&current.bytes);
    }
    let pinned = BaseRef::Registry(by_digest(target, current.digest).whole());
    let source = Source::open(&pinned, registry, store)?;
    let entries = entries(&source, &Blob::from_bytes(current.media_type, current.bytes.to_vec())).await?;
    Ok(json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}))
}

/// The index with what it lacks of the platforms that were seen in it before.
fn with_seen(mut index: Value, seen: &[Value]) -> Value {
    let Some(manifests) = index.get_mut("manifests").and_then(Value::as_array_mut) else { return index };
    for entry in seen {
        if !manifests.iter().any(|known| platform(known) == platform(entry)) {
            manifests.push(entry.clone());
        }
    }
    index
}

/// The index with these entries in the place of those of the same platforms, sorted by platform.
fn with(mut index: Value, entries: &[Value]) -> Result<Value> {
    // Docker's list of manifests becomes an index: they have the same members.
    if index.get("mediaType").is_some() {
        index["mediaType"] = INDEX.into();
    }
    let manifests = index
        .get_mut("manifests")
        .and_then(Value::as_array_mut)
        .ok_or_else(|| Error::user("the index at the destination lists no manifests"))?;
    let replaced = |known: &Value| {
        entries.iter().any(|entry| entry["digest"] == known["digest"] || platform(entry) == platform(known))
    };
    let gone: Vec<Value> = manifests.iter().filter(|known| replaced(known)).map(|it| it["digest"].clone()).collect();
    let stays = |digest: &Value| entries.iter().any(|entry| entry["digest"] == *digest);
    // What BuildKit attests of an image goes with the image.
    let about_gone = |known: &Value| {
        let about = &known["annotations"]["vnd.docker.reference.digest"];
        gone.contains(about) && !stays(about)
    };
    manifests.retain(|known| !replaced(known) && !about_gone(known));
    manifests.extend(entries.iter().cloned());
    manifests.sort_by_key(platform);
    Ok(index)
}

/// `os/architecture/variant`; what has none (attestations say `unknown`) comes last.
fn platform(entry: &Value) -> (bool, String) {
    let part = |name: &str| entry["platform"][name].as_str().unwrap_or_default().to_owned();
    // ARM's baseline has two names.
    let variant = match (part("architecture").as_str(), part("variant").as_str()) {
        ("arm64", "v8") => String::new(),
        (_, variant) => variant.to_owned(),
    };
    let unknown = matches!(part("architecture").as_str(), "" | "unknown");
    // Those are told apart by what they are.
    let name = if unknown { entry["digest"].to_string() } else { String::new() };
    (unknown, format!("{}/{}/{variant}{name}", part("os"), part("architecture")))
}

fn value(descriptor: &oci_spec::image::Descriptor) -> Result<Value> {
    serde_json::to_value(descriptor).map_err(|error| Error::bug("a descriptor has no JSON form").caused_by(error))
}

fn parse(bytes: &[u8]) -> Result<Value> {
    serde_json::from_slice(bytes).map_err(|error| Error::user("an index that is no JSON").caused_by(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(architecture: &str, variant: &str, digest: &str) -> Value {
        json!({"digest": digest, "platform": {"os": "linux", "architecture": architecture, "variant": variant}})
    }

    fn digests(index: &Value) -> Vec<&str> {
        let entries = index["manifests"].as_array().expect("a list").iter();
        entries.map(|entry| entry["digest"].as_str().expect("a digest")).collect()
    }

    #[test]
    fn platforms_are_replaced_and_others_stay() {
        let index = json!({"manifests": [
            entry("unknown", "", "attestation"), entry("arm64", "v8", "old"), entry("amd64", "", "amd")
        ], "annotations": {"a": "b"}});
        let merged = with(index, &[entry("arm64", "", "new")]).expect("merges");
        assert_eq!(digests(&merged), ["amd", "new", "attestation"]);
        assert_eq!(merged["annotations"]["a"], "b");
        let again = with(merged.clone(), &[entry("arm64", "", "new")]).expect("merges");
        assert_eq!(again, merged);
        let more = with(merged, &[entry("ppc64le", "", "power"), entry("amd64", "v3", "amd3")]).expect("merges");
        assert_eq!(digests(&more), ["amd", "amd3", "new", "power", "attestation"]);
        assert!(with(json!({}), &[]).is_err());
    }

    #[test]
    fn what_goes_with_an_image_goes_with_it_and_lists_become_indexes() {
        let mut attestation = entry("unknown", "", "attestation");
        attestation["annotations"] = json!({"vnd.docker.reference.digest": "old"});
        let list = json!({"mediaType": "application/vnd.docker.distribution.manifest.list.v2+json",
            "manifests": [entry("arm64", "", "old"), attestation.clone(), entry("amd64", "", "amd")]});
        let same = with(list.clone(), &[entry("arm64", "", "old")]).expect("merges");
        assert_eq!(digests(&same), ["amd", "old", "attestation"]);
        let merged = with(list, &[entry("arm64", "", "new")]).expect("merges");
        assert_eq!((digests(&merged), &merged["mediaType"]), (vec!["amd", "new"], &json!(INDEX)));
    }

    #[test]
    fn what_somebody_took_out_is_put_back() {
        let seen = [entry("arm64", "", "arm"), entry("amd64", "", "old")];
        let undone = json!({"manifests": [entry("amd64", "", "new")]});
        assert_eq!(digests(&with_seen(undone, &seen)), ["new", "arm"]);
    }
}
