//! What the trials share: requests whose answers are read whole, and what went wrong in words.

use std::sync::Mutex;

use bytes::Bytes;
use reqwest::header::HeaderMap;
use reqwest::{Method, StatusCode};
use url::Url;

use super::State;
use super::cleaning::Written;
use super::sample::random;
use crate::http::retry::{Contact, Failure, passes};
use crate::registry::Registry;
use crate::registry::answers::registry_message;
use crate::registry::reference::Reference;
use crate::registry::transport::{Call, Place};
use crate::util::Error;

/// The longest answer: a blob that was sent in chunks and is read back.
const MAX_ANSWER: usize = 64 * 1024 * 1024;

/// Where the trials are made.
pub(super) struct Bench<'a> {
    pub(super) registry: &'a Registry,
    pub(super) place: Place,
    /// The repository that is tried.
    pub(super) reference: &'a Reference,
    /// Part of all that is written.
    pub(super) token: String,
    /// What was written so far.
    pub(super) written: Mutex<Vec<Written>>,
}

/// Why something does not work.
#[derive(Debug)]
pub(super) struct Trouble {
    pub(super) state: State,
    pub(super) detail: String,
    pub(super) hint: Option<String>,
}

impl Trouble {
    pub(super) fn no(detail: impl Into<String>) -> Self {
        Self { state: State::No, detail: detail.into(), hint: None }
    }

    pub(super) fn unknown(detail: impl Into<String>) -> Self {
        Self { state: State::Unknown, detail: detail.into(), hint: None }
    }

    pub(super) fn of_error(error: Error) -> Self {
        let hint = error.hints().first().map(|&hint| hint.to_owned());
        Self { state: State::Unknown, detail: error.chain().join(": "), hint }
    }
}

/// No answer says nothing of what a registry can do.
impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        let state = match failure.contact {
            Contact::Answered(status) if !passes(status) => State::No,
            _ => State::Unknown,
        };
        Self { state, ..Self::of_error(failure.error) }
    }
}

/// An answer that was read to its end.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    pub(super) asked: Url,
}

impl Answer {
    /// The status and the registry's own words.
    pub(super) fn told(&self) -> String {
        match registry_message(&self.body) {
            Some(said) => format!("{}: {said}", self.status),
            None => self.status.to_string(),
        }
    }

    pub(super) fn trouble(&self) -> Trouble {
        let state = if passes(self.status) { State::Unknown } else { State::No };
        Trouble { state, detail: self.told(), hint: None }
    }

    /// The answer when it has one of these statuses.
    pub(super) fn expect(self, statuses: &[u16]) -> Result<Self, Trouble> {
        if statuses.contains(&self.status.as_u16()) { Ok(self) } else { Err(self.trouble()) }
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        Some(self.headers.get(name)?.to_str().ok()?.trim())
    }
}

impl<'a> Bench<'a> {
    pub(super) fn new(registry: &'a Registry, place: Place, reference: &'a Reference) -> Self {
        Self { registry, place, reference, token: random(), written: Mutex::default() }
    }

    /// A tag that nobody else uses.
    pub(super) fn tag(&self) -> String {
        format!("condaimg-doctor-{}", self.token)
    }

    /// Makes a request to a repository's part of the interface.
    pub(super) async fn ask(
        &self,
        place: &Place,
        method: Method,
        path: &str,
        headers: HeaderMap,
        content: Vec<u8>,
    ) -> Result<Answer, Trouble> {
        let url = place.url(path).map_err(Trouble::of_error)?;
        self.ask_at(place, Call { headers, body: content.into(), ..Call::new(method, url) }).await
    }

    /// Makes a request. It is not repeated: what is seen is what is told.
    pub(super) async fn ask_at(&self, place: &Place, call: Call) -> Result<Answer, Trouble> {
        let answer = self.registry.transport().send(place, &call).await?;
        let (status, headers, asked) = (answer.status(), answer.headers().clone(), answer.url().clone());
        let body = self.registry.transport().wire.body(&place.called(), answer, MAX_ANSWER).await?;
        Ok(Answer { status, headers, body, asked })
    }

    /// The URL that an answer's `Location` names.
    pub(super) fn location(&self, place: &Place, answer: &Answer) -> Result<Url, Trouble> {
        let location = self.registry.transport().location(place, &answer.asked, &answer.headers);
        location.map_err(|error| Trouble { state: State::No, ..Trouble::of_error(error) })
    }
}
