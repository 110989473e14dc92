//! Reading what refers to a manifest: from the API page by page, or from the fallback tag.

use oci_spec::image::Descriptor;
use reqwest::header::{ACCEPT, HeaderMap, HeaderValue, LINK};
use reqwest::{Method, Response, StatusCode};
use serde_json::{Map, Value};
use url::Url;

use super::fallback_tag;
use crate::http::retry::Failure;
use crate::registry::Registry;
use crate::registry::manifests::{ACCEPTED, MAX_MANIFEST};
use crate::registry::transport::{Call, Place};
use crate::util::{Digest, Error};

/// The media type of lists of referrers.
pub(super) const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// Says that the registry left out what was not asked for.
const FILTERS_APPLIED: &str = "oci-filters-applied";

/// More pages are a loop.
const MAX_PAGES: usize = 1000;

/// Where a list comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::registry) enum Source {
    /// The registry keeps it.
    Api,
    /// Those who push keep it, under the fallback tag.
    Fallback,
}

/// What refers to a manifest.
#[derive(Debug)]
pub(in crate::registry) struct Listing {
    pub(in crate::registry) source: Source,
    entries: Vec<Value>,
}

impl Listing {
    /// Without entries that are no descriptors: they would be of no use.
    pub(super) fn descriptors(&self) -> Vec<Descriptor> {
        self.entries.iter().filter_map(|entry| serde_json::from_value(entry.clone()).ok()).collect()
    }

    pub(in crate::registry) fn has(&self, digest: Digest) -> bool {
        has(&self.entries, &digest.to_string())
    }
}

/// Whether one of the entries has the digest.
pub(super) fn has(entries: &[Value], digest: &str) -> bool {
    entries.iter().any(|entry| entry["digest"] == digest)
}

/// The index under a fallback tag as it was read.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// The whole document, with what we do not know of; empty when there is none yet.
    pub(super) document: Map<String, Value>,
    /// What replaces it may name this.
    pub(super) tag: Option<HeaderValue>,
}

impl Index {
    pub(super) fn entries(&self) -> &[Value] {
        self.document.get("manifests").and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }
}

impl Registry {
    /// Lists what refers to the subject.
    pub(in crate::registry) async fn listing(
        &self,
        place: &Place,
        subject: Digest,
        artifact_type: Option<&str>,
    ) -> Result<Listing, Failure> {
        if let Some(entries) = self.ask_api(place, subject, artifact_type).await? {
            return Ok(Listing { source: Source::Api, entries });
        }
        let index = match self.fallback_index(place, subject).await? {
            Under::Index(index) => index,
            Under::Nothing | Under::SomethingElse => Index::default(),
        };
        let mut entries = index.entries().to_vec();
        retain(&mut entries, artifact_type);
        Ok(Listing { source: Source::Fallback, entries })
    }

    /// All pages of the referrers API; none when there is no such API.
    async fn ask_api(
        &self,
        place: &Place,
        subject: Digest,
        artifact_type: Option<&str>,
    ) -> Result<Option<Vec<Value>>, Failure> {
        let mut url = place.url(&format!("referrers/{subject}"))?;
        if let Some(artifact_type) = artifact_type {
            url.query_pairs_mut().append_pair("artifactType", artifact_type);
        }
        let mut entries = Vec::new();
        for page in 0..MAX_PAGES {
            let answer = self.get(place, url.clone(), INDEX).await?;
            if page == 0 && says_no_api(answer.status()) {
                return Ok(None);
            }
            if !answer.status().is_success() {
                return Err(self.transport().failure(place, answer).await);
            }
            let filtered = says_filtered(answer.headers());
            let next = next_page(place, &url, answer.headers())?;
            let Some(index) = index(&self.transport().wire.body(&place.called(), answer, MAX_MANIFEST).await?) else {
                // A proxy's page, or the answer to something else.
                let told = format!("{} sent a page of referrers that is no index", place.called());
                return if page == 0 { Ok(None) } else { Err(Error::user(told).into()) };
            };
            let mut found = Index { document: index, tag: None }.entries().to_vec();
            retain(&mut found, artifact_type.filter(|_| !filtered));
            entries.extend(found);
            match next {
                Some(next) => url = next,
                None => return Ok(Some(entries)),
            }
        }
        Err(Error::user(format!("{} lists the referrers of {subject} without an end", place.called())).into())
    }

    /// Reads what is under the fallback tag.
    pub(super) async fn fallback_index(&self, place: &Place, subject: Digest) -> Result<Under, Failure> {
        let url = place.url(&format!("manifests/{}", fallback_tag(subject)))?;
        // Whatever is there: it is not to be overwritten unseen.
        let answer = self.get(place, url, ACCEPTED).await?;
        match answer.status() {
            StatusCode::NOT_FOUND => return Ok(Under::Nothing),
            status if !status.is_success() => return Err(self.transport().failure(place, answer).await),
            _ => {}
        }
        // A weak one says too little for `If-Match`.
        let tag = answer.headers().get("etag").filter(|tag| tag.as_bytes().starts_with(b"\"")).cloned();
        let bytes = self.transport().wire.body(&place.called(), answer, MAX_MANIFEST).await?;
        Ok(index(&bytes).map_or(Under::SomethingElse, |document| Under::Index(Index { document, tag })))
    }

    async fn get(&self, place: &Place, url: Url, accepted: &'static str) -> Result<Response, Failure> {
        let mut call = Call::new(Method::GET, url);
        call.headers.insert(ACCEPT, HeaderValue::from_static(accepted));
        self.transport().send(place, &call).await
    }
}

/// What is under a fallback tag.
pub(super) enum Under {
    Nothing,
    Index(Index),
    /// What nobody should have pushed there.
    SomethingElse,
}

/// How registries from before the API answer a question for it. A registry with the API answers 200, also when
/// nothing is there.
fn says_no_api(status: StatusCode) -> bool {
    matches!(status.as_u16(), 400 | 404 | 405 | 406 | 501)
}

fn says_filtered(headers: &HeaderMap) -> bool {
    let applied = headers.get_all(FILTERS_APPLIED).iter().filter_map(|value| value.to_str().ok());
    applied.flat_map(|value| value.split(',')).any(|name| name.trim().eq_ignore_ascii_case("artifactType"))
}

/// A document with a list of manifests.
fn index(bytes: &[u8]) -> Option<Map<String, Value>> {
    let document: Map<String, Value> = serde_json::from_slice(bytes).ok()?;
    document.get("manifests").is_some_and(Value::is_array).then_some(document)
}

fn retain(entries: &mut Vec<Value>, artifact_type: Option<&str>) {
    if let Some(wanted) = artifact_type {
        entries.retain(|entry| entry["artifactType"] == wanted);
    }
}

/// The URL of the next page, from `Link: <...>; rel="next"` (RFC 8288). It must be the registry's own.
fn next_page(place: &Place, asked: &Url, headers: &HeaderMap) -> Result<Option<Url>, Failure> {
    let links = headers.get_all(LINK).iter().filter_map(|value| value.to_str().ok());
    let Some(target) = links.filter_map(next_link).next() else { return Ok(None) };
    match asked.join(target) {
        Ok(url) if place.host.owns(&url) => Ok(Some(url)),
        _ => Err(Error::user(format!("{} sends us elsewhere for the rest of a list", place.called())).into()),
    }
}

fn next_link(header: &str) -> Option<&str> {
    header.split('<').skip(1).find_map(|link| {
        let (target, parameters) = link.split_once('>')?;
        let is_next = |parameter: &str| {
            let (name, value) = parameter.split_once('=').unwrap_or_default();
            name.trim().eq_ignore_ascii_case("rel") && value.trim().trim_end_matches(',').trim_matches('"') == "next"
        };
        parameters.split(';').any(is_next).then_some(target)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_found() {
        for (header, expected) in [
            (r#"</v2/a?n=1&last=b,c>; rel="next""#, Some("/v2/a?n=1&last=b,c")),
            (r#"<?page=2>; rel=next"#, Some("?page=2")),
            (r#"<a>; rel="prev", <b>; title="x"; rel="next""#, Some("b")),
            (r#"<b>; rel="next", <a>; rel="prev""#, Some("b")),
            (r#"<a>; rel="prev""#, None),
            ("", None),
        ] {
            assert_eq!(next_link(header), expected, "{header}");
        }
    }

    #[test]
    fn only_indexes_are_lists() {
        assert!(index(br#"{"manifests":[]}"#).is_some());
        for text in [r#"{"manifests":null}"#, r#"{"layers":[]}"#, "[]", "<html>"] {
            assert!(index(text.as_bytes()).is_none(), "{text}");
        }
    }
}
