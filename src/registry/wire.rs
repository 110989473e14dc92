//! Requests and answers with patience that ends: no total limit, but none may stall.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::{Method, RequestBuilder, Response};
use tokio::time::timeout;
use url::Url;

use super::answers::{silent, unanswered, unwelcome};
use super::retry::{Failure, retry_after};
use super::tls::Clients;
use crate::util::{Error, Result};

/// How long to wait for the head of an answer and for each piece of its body.
pub(super) const IDLE: Duration = Duration::from_secs(60);

/// No more of an error's body is read.
const MAX_ERROR: usize = 64 * 1024;

/// The HTTP clients, with our patience.
#[derive(Debug)]
pub(super) struct Wire {
    clients: Clients,
}

impl Wire {
    pub(super) fn new(clients: Clients) -> Self {
        Self { clients }
    }

    /// Begins a request.
    pub(super) fn request(&self, method: Method, url: &Url) -> Result<RequestBuilder> {
        Ok(self.clients.of(url)?.request(method, url.clone()))
    }

    /// See [`Clients::expect_self_signed`].
    pub(super) fn expect_self_signed(&self, url: &Url, expected: bool) -> bool {
        self.clients.expect_self_signed(url, expected)
    }
}

/// Sends a request whose body is short; gives the answer, whatever its status.
pub(super) async fn send(whom: &str, request: RequestBuilder) -> Result<Response, Failure> {
    match timeout(IDLE, request.send()).await {
        Ok(answer) => answer.map_err(|error| unanswered(whom, error)),
        Err(_) => Err(silent(whom, IDLE.as_secs())),
    }
}

/// The next piece of an answer's body.
pub(super) async fn chunk(whom: &str, answer: &mut Response) -> Result<Option<Bytes>, Failure> {
    match timeout(IDLE, answer.chunk()).await {
        Ok(chunk) => chunk.map_err(|error| unanswered(whom, error)),
        Err(_) => Err(silent(whom, IDLE.as_secs())),
    }
}

/// The whole body of an answer of at most `limit` bytes.
pub(super) async fn body(whom: &str, mut answer: Response, limit: usize) -> Result<Bytes, Failure> {
    let mut bytes = BytesMut::new();
    while let Some(chunk) = chunk(whom, &mut answer).await? {
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
    while bytes.len() < MAX_ERROR
        && let Ok(Some(chunk)) = chunk("", &mut answer).await
    {
        bytes.extend_from_slice(&chunk);
    }
    bytes.truncate(MAX_ERROR);
    bytes
}

/// The failure that an answer with an unwelcome status is.
pub(super) async fn failure(whom: &str, answer: Response) -> Failure {
    let (status, wait) = (answer.status(), retry_after(answer.headers()));
    unwelcome(whom, status, wait, &explanation(answer).await)
}
