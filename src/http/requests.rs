//! HTTP requests in the log (`-vv`): method, URL without secrets, status, duration and bytes. Headers and bodies are
//! never written: they hold credentials.

use std::time::Instant;

use reqwest::header::CONTENT_LENGTH;
use reqwest::{Client, Request, Response};

use crate::util::redact;

/// A request that leaves; nothing when nobody listens.
pub struct Asked(Option<Details>);

struct Details {
    method: String,
    url: String,
    sent: Option<u64>,
    begun: Instant,
}

impl Asked {
    /// Notes a request at the moment when it leaves.
    pub fn now(request: &Request) -> Self {
        if !tracing::enabled!(target: "condaimg::http", tracing::Level::TRACE) {
            return Self(None);
        }
        let announced = request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        let body = || request.body().and_then(|body| body.as_bytes()).map(|bytes| bytes.len() as u64);
        // A query may hold a token or a signature; that there is one may matter.
        let query = if request.url().query().is_some() { "?***" } else { "" };
        Self(Some(Details {
            method: request.method().to_string(),
            url: format!("{}{query}", redact::url(request.url())),
            sent: announced.or_else(body).filter(|bytes| *bytes > 0),
            begun: Instant::now(),
        }))
    }

    /// Writes down the head of the answer.
    pub fn answered(&self, answer: &Response) {
        let Some(Details { method, url, sent, begun }) = &self.0 else { return };
        let (status, received) = (answer.status().as_u16(), answer.content_length());
        tracing::trace!(target: "condaimg::http", %method, %url, status, milliseconds = milliseconds(begun), sent, received, "request");
    }

    /// Writes down that no answer came.
    pub fn failed(&self) {
        let Some(Details { method, url, sent, begun }) = &self.0 else { return };
        tracing::trace!(target: "condaimg::http", %method, %url, milliseconds = milliseconds(begun), sent, "request without an answer");
    }
}

/// Sends a request, and writes it down.
pub(crate) async fn execute(client: &Client, request: Request) -> reqwest::Result<Response> {
    let asked = Asked::now(&request);
    let answer = client.execute(request).await;
    match &answer {
        Ok(answer) => asked.answered(answer),
        Err(_) => asked.failed(),
    }
    answer
}

fn milliseconds(begun: &Instant) -> u64 {
    u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX)
}
