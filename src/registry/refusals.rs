//! Why a registry did not take a manifest: in its own words, and in ours where the words are known.
//!
//! There are standard codes for half of the reasons only (distribution-spec, "Error Codes"): none for a tag that must
//! not be moved. So the known words of registries are looked for, too.

use reqwest::StatusCode;
use serde::Deserialize;
use serde_json::Value;

use super::answers::registry_message;
use crate::util::Error;

/// A manifest that was not taken.
pub(super) struct Refused<'a> {
    /// How messages call the registry.
    pub(super) whom: &'a str,
    /// Its repository.
    pub(super) repository: &'a str,
    /// The tag that it was pushed under, if any.
    pub(super) tag: Option<&'a str>,
    /// Its media type.
    pub(super) media_type: &'a str,
    /// Its bytes.
    pub(super) bytes: &'a [u8],
}

/// The registry's answer.
pub(super) struct Answered<'a> {
    pub(super) status: StatusCode,
    pub(super) body: &'a [u8],
}

/// What says that a tag stands for something and must not be moved: ECR, Docker Hub, Google, Harbor and Quay speak of
/// immutability, Nexus of updates, JFrog of overwriting and of redeployment.
const IMMUTABLE: [&str; 8] = [
    "immutab",
    "tagalreadyexists",
    "cannot be overwritten",
    "permissions to overwrite",
    "permission to overwrite",
    "cannot be updated",
    "allow updating assets",
    "redeploy",
];

impl Refused<'_> {
    /// What went wrong and what to do, when it is one of the reasons that are known.
    pub(super) fn explain(&self, answer: &Answered<'_>) -> Option<Error> {
        let said = registry_message(answer.body).unwrap_or_default();
        let told = if said.is_empty() { answer.status.to_string() } else { format!("{}: {said}", answer.status) };
        let words = String::from_utf8_lossy(answer.body).to_ascii_lowercase();
        if !answer.status.is_client_error() || answer.status == StatusCode::TOO_MANY_REQUESTS {
            return None;
        }
        if let Some(tag) = self.tag.filter(|_| says_immutable(&words)) {
            return Some(self.immutable(tag, &told));
        }
        if words.contains("blob_unknown") {
            return Some(self.lacks_a_part(answer.body, &told));
        }
        // That the media type is not supported has other statuses.
        if answer.status == StatusCode::METHOD_NOT_ALLOWED {
            return Some(self.read_only(&told));
        }
        let code = words.contains("manifest_invalid") || words.contains("unsupported");
        (code || answer.status == StatusCode::UNSUPPORTED_MEDIA_TYPE).then(|| self.refused(&told))
    }

    fn immutable(&self, tag: &str, told: &str) -> Error {
        let Self { whom, repository, .. } = self;
        Error::user(format!("{whom} does not let the tag `{tag}` of `{repository}` be moved: it is immutable ({told})"))
            .hint("push under a tag that is not there yet, or by digest")
            .hint("or allow this tag to be overwritten in the repository's settings")
    }

    fn lacks_a_part(&self, body: &[u8], told: &str) -> Error {
        let Self { whom, repository, .. } = self;
        let missing = digests(body);
        let what = match missing.as_slice() {
            [] => "something that the manifest names".to_owned(),
            some => format!("{}, which the manifest names", some.join(", ")),
        };
        Error::user(format!("{whom} does not have {what}, in `{repository}` ({told})"))
            .hint("push again: a clean-up of the registry (garbage collection) may have taken it away in the meantime")
    }

    fn read_only(&self, told: &str) -> Error {
        let Self { whom, repository, .. } = self;
        Error::user(format!("{whom} lets nothing be pushed to `{repository}` ({told})"))
            .hint("it may be in maintenance, or only a cache of another registry: push to that one")
    }

    fn refused(&self, told: &str) -> Error {
        let Self { whom, repository, media_type, .. } = self;
        let what = match foremost(self.bytes) {
            Special::Zstd => " with zstd layers",
            Special::Index => ", an index of images",
            Special::Artifact => ", an artifact that refers to an image",
            Special::None => "",
        };
        let error =
            Error::user(format!("{whom} does not take the manifest ({media_type}{what}) into `{repository}` ({told})"));
        match foremost(self.bytes) {
            Special::Zstd => error.hint("it may not know zstd layers: try `--compression gzip`"),
            Special::Index => {
                error.hint("it may not know indexes of images: push each platform alone, under a tag of its own")
            }
            Special::Artifact => {
                error.hint("it may not know artifacts: a newer version may, the image itself is not affected")
            }
            Special::None => error.hint(
                "it may not know OCI media types, or take only some of them: `condaimg doctor` tells what it takes",
            ),
        }
    }
}

fn says_immutable(words: &str) -> bool {
    IMMUTABLE.iter().any(|mark| words.contains(mark)) || (words.contains("tag") && words.contains("already exists"))
}

/// The digests that a registry names in the details of its errors (`"detail": "sha256:..."` or `{"digest": ...}`).
fn digests(body: &[u8]) -> Vec<String> {
    #[derive(Deserialize)]
    struct Entry {
        detail: Option<Value>,
    }
    #[derive(Deserialize)]
    struct Answer {
        errors: Vec<Entry>,
    }
    let Ok(answer) = serde_json::from_slice::<Answer>(body) else { return Vec::new() };
    let named = answer.errors.into_iter().filter_map(|entry| {
        let detail = entry.detail?;
        let text =
            detail.as_str().or_else(|| detail.get("digest")?.as_str()).or_else(|| detail.get("Digest")?.as_str())?;
        text.parse::<crate::util::Digest>().ok().map(|digest| digest.to_string())
    });
    named.take(3).collect()
}

/// The part of a manifest that a registry is most likely to stumble over.
#[derive(Clone, Copy)]
enum Special {
    Zstd,
    Index,
    Artifact,
    None,
}

fn foremost(bytes: &[u8]) -> Special {
    let Ok(document) = serde_json::from_slice::<Value>(bytes) else { return Special::None };
    let zstd = |layer: &Value| layer["mediaType"].as_str().is_some_and(|media_type| media_type.ends_with("+zstd"));
    if document["layers"].as_array().is_some_and(|layers| layers.iter().any(zstd)) {
        return Special::Zstd;
    }
    match (document.get("subject"), document.get("manifests")) {
        (Some(_), _) => Special::Artifact,
        (None, Some(_)) => Special::Index,
        (None, None) => Special::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

    fn explain(tag: Option<&str>, manifest: &str, status: u16, body: &str) -> Option<String> {
        let refused = Refused {
            whom: "the registry `r`",
            repository: "team/env",
            tag,
            media_type: MANIFEST,
            bytes: manifest.as_bytes(),
        };
        let status = StatusCode::from_u16(status).expect("a status");
        let error = refused.explain(&Answered { status, body: body.as_bytes() })?;
        Some(format!("{error}\n{}", error.hints().join("\n")))
    }

    #[test]
    fn immutable_tags_are_known_by_what_registries_say() {
        for (status, code, message) in [
            (
                400,
                "TAG_INVALID",
                "The image tag '1' already exists in the 'env' repository and cannot be overwritten because the tag is immutable.",
            ),
            (400, "ImageTagAlreadyExistsException", ""),
            (412, "PRECONDITION", "Failed to process request due to 'env:1' configured as immutable."),
            (400, "DENIED", "cannot update tag 1. The repository has enabled tag immutability"),
            (409, "TAG_IMMUTABLE", "tag 1 is immutable"),
            (400, "UNKNOWN", "Repository does not allow updating assets: docker-hosted"),
            (403, "DENIED", "Not enough permissions to overwrite artifact 'env/1/manifest.json'"),
        ] {
            let body = format!(r#"{{"errors":[{{"code":"{code}","message":"{message}"}}]}}"#);
            let text = explain(Some("1"), "{}", status, &body).expect(&body);
            assert!(text.contains("tag `1` of `team/env`") && text.contains("by digest"), "{text}");
            assert!(text.contains(&status.to_string()), "{text}");
            // Without a tag, there is none that could be immutable.
            assert!(!explain(None, "{}", status, &body).is_some_and(|text| text.contains("be moved")), "{body}");
        }
        let denied = r#"{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}"#;
        assert_eq!(explain(Some("1"), "{}", 403, denied), None);
        assert_eq!(explain(Some("1"), "{}", 503, "immutable"), None);
    }

    #[test]
    fn what_a_registry_may_stumble_over_is_named() {
        let body = r#"{"errors":[{"code":"MANIFEST_INVALID","message":"manifest invalid","detail":{}}]}"#;
        let zstd = r#"{"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+zstd"}]}"#;
        for (manifest, expected) in [
            (zstd, "--compression gzip"),
            (r#"{"manifests":[]}"#, "each platform alone"),
            (r#"{"layers":[],"subject":{}}"#, "artifacts"),
            (r#"{"layers":[]}"#, "condaimg doctor"),
        ] {
            let text = explain(Some("1"), manifest, 400, body).expect(manifest);
            assert!(text.contains(expected) && text.contains(MANIFEST) && text.contains("manifest invalid"), "{text}");
        }
        assert!(explain(None, "{}", 415, "").expect("415").contains("415"));
        assert_eq!(explain(None, "{}", 404, r#"{"errors":[{"code":"NAME_UNKNOWN"}]}"#), None);
        // The media type has nothing to do with this one.
        let read_only = explain(Some("1"), zstd, 405, r#"{"errors":[{"code":"UNSUPPORTED"}]}"#).expect("known");
        assert!(read_only.contains("maintenance") && !read_only.contains("zstd"), "{read_only}");
    }

    #[test]
    fn missing_parts_are_named() {
        let digest = crate::util::Digest::of("x").to_string();
        for detail in [format!(r#""{digest}""#), format!(r#"{{"digest":"{digest}"}}"#)] {
            let body = format!(r#"{{"errors":[{{"code":"MANIFEST_BLOB_UNKNOWN","detail":{detail}}}]}}"#);
            let text = explain(Some("1"), "{}", 404, &body).expect("known");
            assert!(text.contains(&digest) && text.contains("push again"), "{text}");
        }
        let bare = r#"{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN"}]}"#;
        assert!(explain(Some("1"), "{}", 400, bare).expect("known").contains("something that the manifest names"));
    }
}
