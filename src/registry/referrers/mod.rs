//! Referrers: manifests with a `subject`, as SBOMs, signatures and locks are (distribution-spec 1.1, "Listing
//! Referrers" and "Pushing Manifests with Subject").
//!
//! A registry that knows them lists them itself, and says so in the answer to the push (`OCI-Subject`). For one that
//! does not, whoever pushes keeps the list: an index under the *fallback tag* `sha256-<hex of the subject>`.

mod fallback;
mod listing;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use oci_spec::image::Descriptor;
use serde_json::{Value, json};

use super::manifest_writes::{Name, Sending};
use super::reference::{Reference, digest_of};
use super::transport::Place;
use super::{Registry, Sent};
use crate::http::retry::Failure;
use crate::util::{Digest, Error, Result, ResultExt as _};
use fallback::Keeper;
use listing::Source;

/// With this header a registry says that it lists the manifest by itself.
const OCI_SUBJECT: &str = "oci-subject";

/// Held by whoever is writing.
type Turn = Arc<tokio::sync::Mutex<()>>;

/// Writers of this process take turns at the referrers of a subject; the key is the repository and the subject.
#[derive(Debug, Default)]
pub(super) struct Turns(Mutex<HashMap<(String, Digest), Turn>>);

impl Turns {
    fn of(&self, place: &Place, subject: Digest) -> Turn {
        let repository = format!("{}/{}", place.scope.registry, place.scope.repository);
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(turns.entry((repository, subject)).or_default())
    }
}

/// The fallback tag of a subject (distribution-spec, "Referrers Tag Schema").
pub(super) fn fallback_tag(subject: Digest) -> String {
    format!("sha256-{}", subject.hex())
}

/// A manifest that refers to another one.
struct Referrer<'a> {
    media_type: &'a str,
    bytes: Bytes,
    digest: Digest,
    subject: Digest,
    /// How a list of referrers describes it.
    entry: Value,
}

impl<'a> Referrer<'a> {
    fn read(bytes: &[u8], media_type: &'a str) -> Result<Self> {
        let digest = Digest::of(bytes);
        let no_referrer = || Error::bug(format!("the manifest {digest} refers to no other one"));
        let document: Value = serde_json::from_slice(bytes).map_err(|error| no_referrer().caused_by(error))?;
        let subject = document["subject"]["digest"].as_str().ok_or_else(no_referrer)?;
        let subject = subject.parse().map_err(|error: Error| no_referrer().caused_by(error))?;
        let entry = entry(&document, media_type, digest, bytes.len());
        Ok(Self { media_type, bytes: Bytes::copy_from_slice(bytes), digest, subject, entry })
    }
}

/// The descriptor of a referrer: its annotations are the manifest's, and where the manifest has no artifact type, the
/// config's media type stands for it.
fn entry(document: &Value, media_type: &str, digest: Digest, size: usize) -> Value {
    let mut entry = json!({"mediaType": media_type, "digest": digest.to_string(), "size": size});
    let text = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    if let Some(kind) = text(&document["artifactType"]).or_else(|| text(&document["config"]["mediaType"])) {
        entry["artifactType"] = kind.into();
    }
    if let Some(annotations) = document["annotations"].as_object().filter(|annotations| !annotations.is_empty()) {
        entry["annotations"] = annotations.clone().into();
    }
    entry
}

impl Registry {
    /// What refers to a manifest (the reference has its digest), of one artifact type or of all. Asks the referrers
    /// API and, where there is none, reads the fallback tag. None is no error.
    ///
    /// # Errors
    /// When the reference has no digest; when the registry does not answer or refuses.
    pub async fn referrers(&self, subject: &Reference, artifact_type: Option<&str>) -> Result<Vec<Descriptor>> {
        let Some(digest) = digest_of(subject)? else {
            return Err(Error::bug(format!("`{subject}` has no digest that something could refer to")));
        };
        let attempt = || async {
            let place = self.transport().place(subject, false).await?;
            self.listing(&place, digest, artifact_type).await
        };
        let listing = self.policy().run(attempt).await.context(|| format!("cannot list what refers to `{subject}`"))?;
        Ok(listing.descriptors())
    }

    /// Pushes a manifest with a subject into a repository, after its blobs, so that it is found with the subject:
    /// where the registry does not list it by itself, it is added to the index under the fallback tag. Nothing is
    /// written when it is there and listed; [`Sent::Uploaded`] counts the bytes of the manifest and of the index.
    ///
    /// Several writers may do this at once, also from different machines; how the index is kept then, and what can
    /// still be lost, is told in the documentation ("Referrers" in `docs/registries.md`).
    ///
    /// # Errors
    /// When the manifest has no subject; when the registry does not answer or refuses.
    pub async fn push_referrer(&self, repository: &Reference, manifest: &[u8], media_type: &str) -> Result<Sent> {
        let referrer = Referrer::read(manifest, media_type)?;
        let told = || {
            let Referrer { digest, subject, .. } = &referrer;
            let (registry, repository) = (repository.registry(), repository.repository());
            format!("cannot push {digest}, which refers to {subject}, to `{registry}/{repository}`")
        };
        let place = self.policy().run(|| self.transport().place(repository, true)).await.context(told)?;
        let turn = self.inner.turns.of(&place, referrer.subject);
        let _turn = turn.lock().await;
        let (sent, listed) =
            self.policy().run(|| self.offer_referrer(repository, &place, &referrer)).await.context(told)?;
        let listed = match listed {
            true => 0,
            false => Keeper::new(self, &place, &referrer).keep().await.context(told)?,
        };
        match sent + listed {
            0 => Ok(Sent::Existed),
            bytes => Ok(Sent::Uploaded(bytes)),
        }
    }

    /// Puts the manifest where it is needed: gives the bytes that were sent, and whether it is listed now.
    async fn offer_referrer(
        &self,
        repository: &Reference,
        place: &Place,
        referrer: &Referrer<'_>,
    ) -> Result<(u64, bool), Failure> {
        let Referrer { media_type, bytes, digest, subject, .. } = referrer;
        let name = Name::Digest(*digest);
        if self.is_there(repository, &name, *digest).await? {
            let listing = self.listing(place, *subject, None).await?;
            if listing.has(*digest) {
                return Ok((0, true));
            }
            // A registry with the API takes note of it when it is pushed once more.
            if listing.source == Source::Fallback {
                return Ok((0, false));
            }
        }
        let sending = Sending { name, media_type, bytes, digest: *digest, condition: None };
        let headers = self.send_manifest(place, &sending).await?;
        let noted = headers.get(OCI_SUBJECT).and_then(|value| value.to_str().ok());
        Ok((bytes.len() as u64, noted.is_some_and(|noted| noted.trim() == subject.to_string())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_tell_what_the_manifest_tells() {
        let subject = Digest::of("subject");
        let manifest = |more: &str| {
            format!(r#"{{"subject":{{"digest":"{subject}"}},"config":{{"mediaType":"application/x"}}{more}}}"#)
        };
        let read = |text: String| Referrer::read(text.as_bytes(), "application/m").map(|referrer| referrer.entry);
        let plain = read(manifest("")).expect("reads");
        assert_eq!(plain["artifactType"], "application/x");
        assert_eq!(plain.get("annotations"), None);
        let full = manifest(r#","artifactType":"application/y","annotations":{"b":"1","a":"2"}"#);
        let size = full.len();
        let entry = read(full.clone()).expect("reads");
        let expected = json!({"mediaType": "application/m", "digest": Digest::of(full).to_string(), "size": size,
            "artifactType": "application/y", "annotations": {"a": "2", "b": "1"}});
        assert_eq!(entry, expected);
        assert!(read("{}".into()).is_err());
    }

    #[test]
    fn the_fallback_tag_is_the_digest_with_a_dash() {
        let digest = Digest::of("x");
        assert_eq!(fallback_tag(digest), digest.to_string().replace(':', "-"));
    }
}
