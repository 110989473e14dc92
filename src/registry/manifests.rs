//! Reading manifests and indexes: small documents that are named by a tag or by their digest.

use bytes::Bytes;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Method, Response, StatusCode};
use serde::Deserialize;

use super::Registry;
use super::reference::{Reference, digest_of, manifest_name};
use super::transport::{Call, Place};
use crate::http::retry::Failure;
use crate::util::{Digest, Error, Result, ResultExt as _};

/// No manifest is longer: registries must take 4 MiB (distribution-spec), few take more.
pub(super) const MAX_MANIFEST: usize = 16 * 1024 * 1024;

/// What we understand, the first preferred.
pub(super) const ACCEPTED: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.docker.distribution.manifest.v2+json";

/// The header in which a registry names the digest of what it sends or took.
const CONTENT_DIGEST: &str = "docker-content-digest";

/// A manifest or index as the registry sent it.
#[derive(Debug, Clone)]
pub struct FetchedManifest {
    /// The bytes; their digest is [`FetchedManifest::digest`].
    pub bytes: Bytes,
    /// Digest of the bytes.
    pub digest: Digest,
    /// Media type, without parameters: one of the OCI and docker manifests and indexes.
    pub media_type: String,
}

impl Registry {
    /// Fetches a manifest or an index, by digest when the reference has one, else by tag.
    ///
    /// # Errors
    /// When there is none, the registry does not answer or refuses, or the bytes have another digest.
    pub async fn manifest(&self, reference: &Reference) -> Result<FetchedManifest> {
        self.policy()
            .run(|| self.get_manifest(reference))
            .await
            .context(|| format!("cannot fetch the manifest of `{reference}`"))
    }

    /// As [`Self::manifest`], for what may not be there: none when there is none.
    ///
    /// # Errors
    /// When the registry does not answer or refuses, or the bytes have another digest.
    pub async fn find_manifest(&self, reference: &Reference) -> Result<Option<FetchedManifest>> {
        let attempt = || async {
            match self.get_manifest(reference).await {
                Err(failure) if failure.status() == Some(StatusCode::NOT_FOUND) => Ok(None),
                found => found.map(Some),
            }
        };
        self.policy().run(attempt).await.context(|| format!("cannot look for the manifest of `{reference}`"))
    }

    /// The digest of the manifest that a tag (or digest) stands for; none when there is none.
    ///
    /// # Errors
    /// When the registry does not answer or refuses.
    pub async fn tag_digest(&self, reference: &Reference) -> Result<Option<Digest>> {
        self.policy()
            .run(|| self.head_manifest(reference, false))
            .await
            .context(|| format!("cannot ask for the manifest of `{reference}`"))
    }

    async fn get_manifest(&self, reference: &Reference) -> Result<FetchedManifest, Failure> {
        let expected = digest_of(reference)?;
        let place = self.transport().place(reference, false).await?;
        let answer = self.ask(&place, Method::GET, manifest_name(reference)).await?;
        if answer.status() == StatusCode::NOT_FOUND {
            return Err(self.missing(&place, reference, answer).await);
        }
        if !answer.status().is_success() {
            return Err(self.transport().failure(&place, answer).await);
        }
        let told = content_digest(answer.headers());
        let declared = content_type(answer.headers());
        let bytes = self.transport().wire.body(&place.called(), answer, MAX_MANIFEST).await?;
        let digest = Digest::of(&bytes);
        if let Some(expected) = expected.or(told)
            && expected != digest
        {
            let message = format!("{} sent a manifest with the digest {digest} instead of {expected}", place.called());
            return Err(Failure::passing(Error::user(message)));
        }
        let media_type = media_type(&bytes, declared)
            .map_err(|why| Error::user(format!("what {} has under `{reference}` {why}", place.called())))?;
        Ok(FetchedManifest { bytes, digest, media_type })
    }

    pub(super) async fn head_manifest(&self, reference: &Reference, push: bool) -> Result<Option<Digest>, Failure> {
        let place = self.transport().place(reference, push).await?;
        let name = manifest_name(reference);
        let mut answer = self.ask(&place, Method::HEAD, name).await?;
        let told = content_digest(answer.headers());
        if mute(answer.status()) || (answer.status().is_success() && told.is_none()) {
            answer = self.ask(&place, Method::GET, name).await?;
        }
        match answer.status() {
            StatusCode::NOT_FOUND => Ok(None),
            status if status.is_success() => match content_digest(answer.headers()).or(told) {
                Some(digest) => Ok(Some(digest)),
                None => Ok(Some(Digest::of(self.transport().wire.body(&place.called(), answer, MAX_MANIFEST).await?))),
            },
            _ => Err(self.transport().failure(&place, answer).await),
        }
    }

    async fn ask(&self, place: &Place, method: Method, name: &str) -> Result<Response, Failure> {
        let mut call = Call::new(method, place.url(&format!("manifests/{name}"))?);
        call.headers.insert(ACCEPT, HeaderValue::from_static(ACCEPTED));
        self.transport().send(place, &call).await
    }

    async fn missing(&self, place: &Place, reference: &Reference, answer: Response) -> Failure {
        let failure = self.transport().failure(place, answer).await;
        failure.context(|| format!("there is no `{}` in `{}`", manifest_name(reference), place.scope.repository))
    }
}

/// Whether a registry with this answer may know more than it tells.
pub(super) fn mute(status: StatusCode) -> bool {
    matches!(status, StatusCode::FORBIDDEN | StatusCode::METHOD_NOT_ALLOWED)
}

pub(super) fn content_digest(headers: &HeaderMap) -> Option<Digest> {
    headers.get(CONTENT_DIGEST)?.to_str().ok()?.trim().parse().ok()
}

fn content_type(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    Some(text.split(';').next()?.trim().to_ascii_lowercase())
}

/// Of a document that some take for an image and others for an index: it would pass one's checks and be the other's
/// image (CVE-2021-41190).
const AMBIGUOUS: &str = "is ambiguous: it has `layers` of an image and `manifests` of an index";

/// The media type: as declared by the registry, else as the document says, else as it looks.
fn media_type(bytes: &[u8], declared: Option<String>) -> Result<String, &'static str> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Document {
        schema_version: Option<u64>,
        media_type: Option<String>,
        manifests: Option<serde::de::IgnoredAny>,
        layers: Option<serde::de::IgnoredAny>,
    }
    let document: Document = serde_json::from_slice(bytes).map_err(|_| "is not a manifest")?;
    if document.schema_version == Some(1) {
        return Err("is a docker image of the old kind (schema 1); push it again with a current tool");
    }
    if document.manifests.is_some() && document.layers.is_some() {
        return Err(AMBIGUOUS);
    }
    let known = |text: &String| ACCEPTED.split(", ").any(|accepted| accepted == text);
    if let Some(media_type) = [declared, document.media_type].into_iter().flatten().find(known) {
        return Ok(media_type);
    }
    match (document.manifests, document.layers) {
        (Some(_), _) => Ok("application/vnd.oci.image.index.v1+json".into()),
        (None, Some(_)) => Ok("application/vnd.oci.image.manifest.v1+json".into()),
        _ => Err("is neither an image nor an index"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_types_are_found_out() {
        let oci = "application/vnd.oci.image.manifest.v1+json";
        let docker = "application/vnd.docker.distribution.manifest.v2+json";
        let index = "application/vnd.oci.image.index.v1+json";
        for (text, declared, expected) in [
            (r#"{"layers":[]}"#, Some(oci), Some(oci)),
            (r#"{"layers":[],"mediaType":"application/vnd.docker.distribution.manifest.v2+json"}"#, None, Some(docker)),
            (r#"{"layers":[]}"#, Some("application/json"), Some(oci)),
            (r#"{"manifests":[]}"#, None, Some(index)),
            (r#"{"schemaVersion":1,"fsLayers":[]}"#, None, None),
            (r#"{"a":1}"#, None, None),
            (r#"{"layers":[],"manifests":[]}"#, Some(oci), None),
            ("<html>", Some(oci), None),
        ] {
            assert_eq!(media_type(text.as_bytes(), declared.map(str::to_owned)).ok().as_deref(), expected, "{text}");
        }
    }
}
