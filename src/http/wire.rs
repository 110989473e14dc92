//! Requests and answers with patience that ends: no total limit, but none may stall (see [`super::watch`]).

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::{Method, RequestBuilder, Response};
use tokio::time::timeout;
use url::Url;

use super::clients::Clients;
use super::location::{authority, listed};
use super::proxy::Proxies;
use super::reach::Reach;
use super::requests::execute;
use super::retry::Failure;
use super::trouble::{Hints, silent, unanswered};
use super::warning::Warnings;
use super::watch::{Sizes, watched};
use crate::util::{Error, Result};

/// How long a request may stand still before it counts as failed. No limit is on its whole length.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// How long to wait for the head of an answer, for each piece of its body, and for a piece of an upload to leave.
    pub idle: Duration,
    /// How long a server may take to answer when it has all bytes of a blob: it may have to copy them to their
    /// place.
    pub commit: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { idle: IDLE, commit: Duration::from_secs(300) }
    }
}

/// The usual patience.
const IDLE: Duration = Duration::from_secs(60);

/// How long to wait for each piece of an error's body: it only explains.
const EXPLANATION: Duration = Duration::from_secs(5);

/// No more of an error's body is read.
const MAX_ERROR: usize = 64 * 1024;

/// The HTTP clients, with our patience.
#[derive(Debug)]
pub(crate) struct Wire {
    clients: Clients,
    pub(crate) patience: Patience,
    hints: &'static Hints,
    warnings: Warnings,
    /// The addresses that servers answered from, by `SCHEME://HOST[:PORT]`.
    addresses: Mutex<HashMap<String, IpAddr>>,
    /// Hosts (`HOST[:PORT]`) that a server may send us to wherever they lie.
    consent: Vec<String>,
}

impl Wire {
    pub(crate) fn new(clients: Clients, patience: Patience, hints: &'static Hints, warnings: Warnings) -> Self {
        Self { clients, patience, hints, warnings, addresses: Mutex::default(), consent: Vec::new() }
    }

    /// With hosts that a server may send us to wherever they lie.
    pub(crate) fn with_consent(self, consent: Vec<String>) -> Self {
        Self { consent, ..self }
    }

    /// Begins a request.
    pub(crate) fn request(&self, method: Method, url: &Url) -> Result<RequestBuilder> {
        Ok(self.clients.of(url, false, None)?.request(method, url.clone()))
    }

    /// Begins a request to where the server at `by` sends us. That server's own URLs are the user's.
    pub(crate) fn request_led(&self, by: &Url, method: Method, url: &Url) -> Result<RequestBuilder> {
        if by.origin() == url.origin() || listed(&self.consent, &authority(url)) {
            return self.request(method, url);
        }
        let addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        let known = addresses.get(&by.origin().ascii_serialization()).copied();
        drop(addresses);
        let from = known.map_or_else(|| Reach::of_host(by.host_str().unwrap_or_default()), Reach::of);
        Ok(self.clients.of(url, false, Some(from))?.request(method, url.clone()))
    }

    /// Begins a request without HTTP/2.
    pub(crate) fn request_by_http1(&self, method: Method, url: &Url) -> Result<RequestBuilder> {
        Ok(self.clients.of(url, true, None)?.request(method, url.clone()))
    }

    /// See [`Clients::expect_self_signed`].
    pub(crate) fn expect_self_signed(&self, url: &Url, expected: bool) -> bool {
        self.clients.expect_self_signed(url, expected)
    }

    /// Sends a request whose body is short; gives the answer, whatever its status.
    pub(crate) async fn send(&self, whom: &str, request: RequestBuilder) -> Result<Response, Failure> {
        self.send_within(self.patience.idle, whom, request).await
    }

    /// The same, with a patience of its own.
    pub(crate) async fn send_within(
        &self,
        patience: Duration,
        whom: &str,
        request: RequestBuilder,
    ) -> Result<Response, Failure> {
        match timeout(patience, dispatch(request)).await {
            Ok(answer) => self.answered(whom, answer),
            Err(_) => Err(silent(whom, patience)),
        }
    }

    /// An answer, or the failure of a request without one. Tells the answer's warnings.
    pub(crate) fn answered(&self, whom: &str, answer: reqwest::Result<Response>) -> Result<Response, Failure> {
        let answer = answer.map_err(|error| self.unanswered(whom, error))?;
        self.warnings.tell(whom, answer.headers());
        self.note_address(&answer);
        Ok(watched(answer, Sizes::default(), None))
    }

    /// Remembers where a server lies; behind a proxy nobody knows.
    fn note_address(&self, answer: &Response) {
        let Some(address) = answer.remote_addr() else { return };
        if Proxies::default().of(answer.url()).is_none() {
            let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
            addresses.insert(answer.url().origin().ascii_serialization(), address.ip());
        }
    }

    /// The failure of a request without an answer, or of half of one.
    fn unanswered(&self, whom: &str, error: reqwest::Error) -> Failure {
        unanswered(whom, error, self.hints)
    }

    /// The next piece of an answer's body.
    pub(crate) async fn chunk(
        &self,
        whom: &str,
        answer: &mut Response,
        patience: Duration,
    ) -> Result<Option<Bytes>, Failure> {
        match timeout(patience, answer.chunk()).await {
            Ok(chunk) => chunk.map_err(|error| self.unanswered(whom, error)),
            Err(_) => Err(silent(whom, patience)),
        }
    }

    /// The whole body of an answer of at most `limit` bytes.
    pub(crate) async fn body(&self, whom: &str, mut answer: Response, limit: usize) -> Result<Bytes, Failure> {
        let mut bytes = BytesMut::new();
        while let Some(chunk) = self.chunk(whom, &mut answer, IDLE).await? {
            if bytes.len() + chunk.len() > limit {
                let message = format!("{whom} sent more than {limit} bytes where a short answer belongs");
                return Err(Error::user(message).into());
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes.freeze())
    }
}

/// Sends a request, and writes it to the log (`-vv`).
pub(crate) async fn dispatch(request: RequestBuilder) -> reqwest::Result<Response> {
    let (client, request) = request.build_split();
    execute(&client, request?).await
}

/// As much of an error's body as arrives: it only explains.
pub(crate) async fn explanation(mut answer: Response) -> Vec<u8> {
    let mut bytes = Vec::new();
    let until = tokio::time::Instant::now() + EXPLANATION;
    while bytes.len() < MAX_ERROR
        && let Ok(Ok(Some(chunk))) = tokio::time::timeout_at(until, answer.chunk()).await
    {
        bytes.extend_from_slice(&chunk);
    }
    bytes.truncate(MAX_ERROR);
    bytes
}
