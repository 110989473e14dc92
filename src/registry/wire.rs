//! Requests and answers with patience that ends: no total limit, but none may stall.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use tokio::time::timeout;
use url::Url;

use super::answers::{silent, unanswered, unwelcome};
use super::proxy;
use super::retry::{Failure, retry_after};
use super::tls::Clients;
use crate::util::requests::Asked;
use crate::util::{Error, Result};

/// How long a request may stand still before it counts as failed. No limit is on its whole length.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// How long to wait for the head of an answer, for each piece of its body, and for a piece of an upload to leave.
    pub idle: Duration,
    /// How long a registry may take to answer when it has all bytes of a blob: it may have to copy them to their
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
pub(super) struct Wire {
    clients: Clients,
    pub(super) patience: Patience,
}

impl Wire {
    pub(super) fn new(clients: Clients, patience: Patience) -> Self {
        Self { clients, patience }
    }

    /// Begins a request.
    pub(super) fn request(&self, method: Method, url: &Url) -> Result<RequestBuilder> {
        Ok(self.clients.of(url, false)?.request(method, url.clone()))
    }

    /// Begins a request without HTTP/2.
    pub(super) fn request_by_http1(&self, method: Method, url: &Url) -> Result<RequestBuilder> {
        Ok(self.clients.of(url, true)?.request(method, url.clone()))
    }

    /// See [`Clients::expect_self_signed`].
    pub(super) fn expect_self_signed(&self, url: &Url, expected: bool) -> bool {
        self.clients.expect_self_signed(url, expected)
    }

    /// Sends a request whose body is short; gives the answer, whatever its status.
    pub(super) async fn send(&self, whom: &str, request: RequestBuilder) -> Result<Response, Failure> {
        self.send_within(self.patience.idle, whom, request).await
    }

    /// The same, with a patience of its own.
    pub(super) async fn send_within(
        &self,
        patience: Duration,
        whom: &str,
        request: RequestBuilder,
    ) -> Result<Response, Failure> {
        match timeout(patience, dispatch(request)).await {
            Ok(answer) => answer.map_err(|error| unanswered(whom, error)),
            Err(_) => Err(silent(whom, patience)),
        }
    }
}

/// Sends a request, and writes it to the log (`-vv`).
pub(super) async fn dispatch(request: RequestBuilder) -> reqwest::Result<Response> {
    let (client, request) = request.build_split();
    let request = request?;
    let asked = Asked::now(&request);
    let answer = client.execute(request).await;
    match &answer {
        Ok(answer) => asked.answered(answer),
        Err(_) => asked.failed(),
    }
    answer
}

/// The next piece of an answer's body.
pub(super) async fn chunk(whom: &str, answer: &mut Response, patience: Duration) -> Result<Option<Bytes>, Failure> {
    match timeout(patience, answer.chunk()).await {
        Ok(chunk) => chunk.map_err(|error| unanswered(whom, error)),
        Err(_) => Err(silent(whom, patience)),
    }
}

/// The whole body of an answer of at most `limit` bytes.
pub(super) async fn body(whom: &str, mut answer: Response, limit: usize) -> Result<Bytes, Failure> {
    let mut bytes = BytesMut::new();
    while let Some(chunk) = chunk(whom, &mut answer, IDLE).await? {
        if bytes.len() + chunk.len() > limit {
            return Err(Error::user(format!("{whom} sent more than {limit} bytes where a short answer belongs")).into());
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes.freeze())
}

/// As much of an error's body as arrives: it only explains.
pub(super) async fn explanation(mut answer: Response) -> Vec<u8> {
    let mut bytes = Vec::new();
    let until = tokio::time::Instant::now() + EXPLANATION;
    while bytes.len() < MAX_ERROR
        && let Ok(Ok(Some(chunk))) = tokio::time::timeout_at(until, chunk("", &mut answer, EXPLANATION)).await
    {
        bytes.extend_from_slice(&chunk);
    }
    bytes.truncate(MAX_ERROR);
    bytes
}

/// The failure that an answer with an unwelcome status is.
pub(super) async fn failure(whom: &str, answer: Response) -> Failure {
    if answer.status() == StatusCode::PROXY_AUTHENTICATION_REQUIRED
        && let Some(proxy) = proxy::of(answer.url())
    {
        return proxy::refuses(whom, &proxy);
    }
    let (status, wait) = (answer.status(), retry_after(answer.headers()));
    unwelcome(whom, status, wait, &explanation(answer).await)
}
