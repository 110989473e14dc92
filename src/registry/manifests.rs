//! Manifests and indexes: small documents that are named by a tag or by their digest.

use bytes::Bytes;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue, IF_MATCH};
use reqwest::{Method, Response, ResponseBuilderExt as _, StatusCode};
use serde::Deserialize;

use super::reference::{Reference, digest_of, manifest_name};
use super::refusals::{Answered, Refused};
use super::retry::{Contact, Failure};
use super::transport::{Call, Place};
use super::wire::{body, explanation};
use super::{Registry, Sent};
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

/// What a manifest is put under.
#[derive(Debug, Clone, Copy)]
pub(super) enum Name<'a> {
    Tag(&'a str),
    Digest(Digest),
}

impl std::fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tag(tag) => f.write_str(tag),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}

/// A manifest on its way.
pub(super) struct Sending<'a> {
    pub(super) name: Name<'a>,
    pub(super) media_type: &'a str,
    pub(super) bytes: &'a Bytes,
    pub(super) digest: Digest,
    /// The `ETag` of what it replaces; without one, it replaces anything.
    pub(super) condition: Option<HeaderValue>,
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

    /// Deletes the manifest with the reference's digest, and with it the tags that stand for it. It is no error when
    /// there is none.
    ///
    /// # Errors
    /// When the reference has no digest; when the registry does not answer, refuses, or does not delete.
    pub async fn delete_manifest(&self, reference: &Reference) -> Result<()> {
        let Some(digest) = digest_of(reference)? else {
            return Err(Error::bug(format!("`{reference}` has no digest to delete")));
        };
        self.delete(reference, &format!("manifests/{digest}"))
            .await
            .context(|| format!("cannot delete the manifest of `{reference}`"))
    }

    /// Deletes a blob from the reference's repository. It is no error when there is none.
    ///
    /// # Errors
    /// When the registry does not answer, refuses, or does not delete.
    pub async fn delete_blob(&self, reference: &Reference, digest: &Digest) -> Result<()> {
        self.delete(reference, &format!("blobs/{digest}")).await.context(|| {
            format!("cannot delete the blob {digest} of `{}/{}`", reference.registry(), reference.repository())
        })
    }

    async fn delete(&self, reference: &Reference, path: &str) -> Result<()> {
        let attempt = || async {
            let place = self.transport().place(reference, true).await?;
            let answer = self.transport().send(&place, &Call::new(Method::DELETE, place.url(path)?)).await?;
            match answer.status() {
                status if status.is_success() || status == StatusCode::NOT_FOUND => Ok(()),
                StatusCode::METHOD_NOT_ALLOWED => {
                    let failure = self.transport().failure(&place, answer).await;
                    let hint = "deleting is a setting of many registries, or left to their own clean-up rules";
                    Err(Failure { error: failure.error.hint(hint), ..failure })
                }
                _ => Err(self.transport().failure(&place, answer).await),
            }
        };
        self.policy().run(attempt).await
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

    /// Puts a manifest or index under the reference's tag (or its digest, when it has no tag), after what it
    /// refers to. Nothing is sent when the tag stands for the same bytes already.
    ///
    /// # Errors
    /// When the registry does not answer or refuses; when the reference has a digest that is not the bytes'.
    pub async fn push_manifest(&self, reference: &Reference, media_type: &str, bytes: &[u8]) -> Result<Sent> {
        let digest = Digest::of(bytes);
        let bytes = Bytes::copy_from_slice(bytes);
        self.policy()
            .run(|| self.put_manifest(reference, media_type, &bytes, digest))
            .await
            .context(|| format!("cannot push the manifest {digest} to `{reference}`"))
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
        let bytes = body(&place.called(), answer, MAX_MANIFEST).await?;
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
                None => Ok(Some(Digest::of(body(&place.called(), answer, MAX_MANIFEST).await?))),
            },
            _ => Err(self.transport().failure(&place, answer).await),
        }
    }

    async fn put_manifest(
        &self,
        reference: &Reference,
        media_type: &str,
        bytes: &Bytes,
        digest: Digest,
    ) -> Result<Sent, Failure> {
        if digest_of(reference)?.is_some_and(|expected| expected != digest) {
            return Err(Error::bug(format!("`{reference}` was to get a manifest with another digest")).into());
        }
        let place = self.transport().place(reference, true).await?;
        let name = reference.tag().map_or_else(|| Name::Digest(digest), Name::Tag);
        if self.is_there(reference, &name, digest).await? {
            return Ok(Sent::Existed);
        }
        self.send_manifest(&place, &Sending { name, media_type, bytes, digest, condition: None }).await?;
        Ok(Sent::Uploaded(bytes.len() as u64))
    }

    /// Whether the name stands for a manifest with this digest already. Some registries let us write but not look:
    /// then the answer to the PUT will tell.
    pub(super) async fn is_there(&self, at: &Reference, name: &Name<'_>, digest: Digest) -> Result<bool, Failure> {
        let named = Reference::with_tag(at.registry().into(), at.repository().into(), name.to_string());
        match self.head_manifest(&named, true).await {
            Ok(there) => Ok(there == Some(digest)),
            Err(Failure { contact: Contact::Answered(status), .. }) if mute(status) => Ok(false),
            Err(failure) => Err(failure),
        }
    }

    /// Sends a manifest, whatever is there; gives the headers of the answer.
    pub(super) async fn send_manifest(&self, place: &Place, sending: &Sending<'_>) -> Result<HeaderMap, Failure> {
        let mut call = Call::new(Method::PUT, place.url(&format!("manifests/{}", sending.name))?);
        let media_type = HeaderValue::from_str(sending.media_type)
            .map_err(|error| Error::bug(format!("`{}` is not a media type", sending.media_type)).caused_by(error))?;
        call.headers.insert(CONTENT_TYPE, media_type);
        call.headers.extend(sending.condition.clone().map(|tag| (IF_MATCH, tag)));
        call.body = sending.bytes.clone();
        let answer = self.transport().send(place, &call).await?;
        if !answer.status().is_success() {
            return Err(self.not_taken(place, sending, answer).await);
        }
        match content_digest(answer.headers()) {
            Some(other) if other != sending.digest => {
                let Sending { digest, .. } = sending;
                Err(Error::user(format!("{} changed the manifest {digest} to {other}", place.called())).into())
            }
            _ => Ok(answer.headers().clone()),
        }
    }

    /// The failure of a PUT, explained where the reason is a known one.
    async fn not_taken(&self, place: &Place, sending: &Sending<'_>, answer: Response) -> Failure {
        let (body, answer) = match read_aside(answer).await {
            Ok(both) => both,
            Err(error) => return error.into(),
        };
        let refused = Refused {
            whom: &place.called(),
            repository: &place.scope.repository,
            tag: match sending.name {
                Name::Tag(tag) => Some(tag),
                Name::Digest(_) => None,
            },
            media_type: sending.media_type,
            bytes: sending.bytes,
        };
        let status = answer.status();
        match refused.explain(&Answered { status, body: &body }) {
            Some(error) => Failure { contact: Contact::Answered(status), ..error.into() },
            None => self.transport().failure(place, answer).await,
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
fn mute(status: StatusCode) -> bool {
    matches!(status, StatusCode::FORBIDDEN | StatusCode::METHOD_NOT_ALLOWED)
}

/// Reads the body of an answer that explains, and gives the answer back as if it had not been read.
async fn read_aside(answer: Response) -> Result<(Vec<u8>, Response)> {
    let mut copy = http::Response::builder().status(answer.status()).url(answer.url().clone());
    if let Some(headers) = copy.headers_mut() {
        headers.clone_from(answer.headers());
    }
    let body = explanation(answer).await;
    let copy = copy.body(body.clone()).map_err(|error| Error::bug("an answer cannot be copied").caused_by(error))?;
    Ok((body, copy.into()))
}

pub(super) fn content_digest(headers: &HeaderMap) -> Option<Digest> {
    headers.get(CONTENT_DIGEST)?.to_str().ok()?.trim().parse().ok()
}

fn content_type(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    Some(text.split(';').next()?.trim().to_ascii_lowercase())
}

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
            ("<html>", Some(oci), None),
        ] {
            assert_eq!(media_type(text.as_bytes(), declared.map(str::to_owned)).ok().as_deref(), expected, "{text}");
        }
    }
}
