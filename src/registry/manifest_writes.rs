//! Writing and deleting manifests and indexes.

use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue, IF_MATCH};
use reqwest::{Method, Response, ResponseBuilderExt as _, StatusCode};

use super::answers::{lacks_a_part, registry_code};
use super::gone::Gone;
use super::manifests::{content_digest, mute};
use super::reference::{Reference, digest_of};
use super::refusals::{Answered, Refused};
use super::transport::{Call, Place};
use super::{Registry, Sent};
use crate::http::retry::{Contact, Failure};
use crate::http::wire::explanation;
use crate::util::{Digest, Error, Result, ResultExt as _};

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

/// How long to wait before a manifest is sent again of which the registry said that it lacks a blob: while somebody
/// else pushes the same blob, CNCF distribution writes its link anew, and for a moment does not find it.
const SETTLING: [Duration; 3] = [Duration::from_millis(200), Duration::from_millis(500), Duration::from_secs(1)];

impl Registry {
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
        let sending = Sending { name, media_type, bytes, digest, condition: None };
        for wait in SETTLING {
            match self.send_manifest(&place, &sending).await {
                Err(failure) if lacks_a_part(&failure) => tokio::time::sleep(wait).await,
                sent => return sent.map(|_| Sent::Uploaded(bytes.len() as u64)),
            }
        }
        let sent = self.send_manifest(&place, &sending).await;
        sent.map(|_| Sent::Uploaded(bytes.len() as u64))
            .map_err(|failure| if lacks_a_part(&failure) { Gone::mark_failure(failure) } else { failure })
    }

    /// Whether the name stands for a manifest with this digest already. Some registries let us write but not look:
    /// then the answer to the PUT will tell.
    pub(super) async fn is_there(&self, at: &Reference, name: &Name<'_>, digest: Digest) -> Result<bool, Failure> {
        let named = Reference::with_tag(at.registry().into(), at.repository().into(), name.to_string());
        match self.head_manifest(&named, true).await {
            Ok(there) => Ok(there == Some(digest)),
            Err(Failure { contact: Contact::Answered(status), .. }) if mute(status) => Ok(false),
            // One that died while it noted the tag answers so for ever after; writing it again heals that.
            Err(Failure { contact: Contact::Answered(StatusCode::INTERNAL_SERVER_ERROR), .. }) => Ok(false),
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
            Some(error) => Failure { contact: Contact::Answered(status), code: registry_code(&body), ..error.into() },
            None => self.transport().failure(place, answer).await,
        }
    }
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
