//! Retries and redirects as middleware, for clients that others send requests with.

use reqwest::header::{AUTHORIZATION, COOKIE, HeaderMap, PROXY_AUTHORIZATION};
use reqwest::{Request, Response};
use reqwest_middleware::{Error, Next, Result};

use super::guard::{Guards, Refused};
use super::location::{Peer, authority, location, redirected};
use super::requests::{Asked, execute};
use super::retry::{Again, RetryPolicy};
use super::trouble;
use super::watch::{Sizes, watched};
use crate::util::{Limit, redact};

/// Redirects in a row that are followed; more are a loop.
const MAX_REDIRECTS: usize = 10;

/// How often a request is tried; set on a request with `with_extension`, instead of what the policy says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attempts(pub(crate) u32);

/// Sends a request again when the way to the server, or the server, failed in a manner that may pass.
pub(crate) async fn retrying<'a>(
    request: Request,
    extensions: &'a mut http::Extensions,
    next: Next<'a>,
    policy: RetryPolicy,
    attempts: Option<u32>,
) -> Result<Response> {
    let asked = || extensions.get::<Attempts>().map_or(policy.attempts, |attempts| attempts.0);
    let attempts = attempts.unwrap_or_else(asked);
    let mut tried = 1;
    loop {
        let Some(copy) = request.try_clone() else {
            return next.run(request, extensions).await;
        };
        let answer = next.clone().run(copy, extensions).await;
        let again = match &answer {
            Ok(response) => Again::of(response.status(), response.headers()),
            Err(Error::Reqwest(error)) if trouble::passes(error) => Again::Later(None),
            Err(_) => Again::Never,
        };
        if again == Again::Never || tried >= attempts {
            return answer;
        }
        let wait = policy.wait(tried, again);
        tracing::debug!(url = %redact::url(request.url()), tried, ?wait, "trying again");
        tokio::time::sleep(wait).await;
        tried += 1;
    }
}

/// Watches the bodies of downloads.
pub(crate) async fn watching(request: Request, extensions: &mut http::Extensions, next: Next<'_>) -> Result<Response> {
    let is_get = request.method() == reqwest::Method::GET;
    let answer = next.run(request, extensions).await?;
    let sizes = Sizes { sent: Some(Limit::Download), unpacked: None };
    Ok(if is_get { watched(answer, sizes, None) } else { answer })
}

/// Follows redirects of what is read. Credentials go to no other server. To be the last middleware: those before it
/// see one request and one answer.
pub(crate) async fn redirecting(
    mut request: Request,
    extensions: &mut http::Extensions,
    next: Next<'_>,
    guards: &Guards,
) -> Result<Response> {
    let first = request.url().clone();
    let whom = format!("the server `{}`", authority(&first));
    let mut peer = Peer { whom: &whom, base: &first, insecure: &[], consent: None, strict: false, at: None };
    for _ in 0..=MAX_REDIRECTS {
        let Some(copy) = request.try_clone() else {
            return next.run(request, extensions).await;
        };
        let guarded = match peer.owns(request.url()) {
            true => None,
            false => guards.client(peer.reach(), request.url()).map_err(Error::middleware)?,
        };
        let answer = match guarded {
            Some(client) => execute(&client, copy).await.map_err(|error| refused(error, &whom))?,
            None => next.clone().run(copy, extensions).await?,
        };
        if peer.owns(request.url()) {
            peer.at = guards.address(&answer);
        }
        let Some((method, to)) = redirected(request.method(), answer.status()).zip(location(answer.headers())) else {
            return Ok(answer);
        };
        let url = peer.follow(request.url(), to).map_err(Error::middleware)?;
        if url.origin() != first.origin() {
            forget(request.headers_mut());
        }
        *request.method_mut() = method;
        *request.url_mut() = url;
    }
    Err(Error::middleware(crate::util::Error::user(format!("{whom} sends requests round in circles"))))
}

/// A request that got no answer, perhaps since it must not be sent where its server sends it.
fn refused(error: reqwest::Error, whom: &str) -> Error {
    match Refused::of(&error) {
        Some(refused) => Error::middleware(crate::util::Error::user(format!("{whom} {refused}"))),
        None => Error::Reqwest(error),
    }
}

/// Writes a request to the log (`-vv`), as it leaves.
pub(crate) async fn traced<'a>(
    request: Request,
    extensions: &'a mut http::Extensions,
    next: Next<'a>,
) -> Result<Response> {
    let asked = Asked::now(&request);
    let answer = next.run(request, extensions).await;
    match &answer {
        Ok(answer) => asked.answered(answer),
        Err(_) => asked.failed(),
    }
    answer
}

/// Takes away what says who asks.
fn forget(headers: &mut HeaderMap) {
    for name in [AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION] {
        headers.remove(name);
    }
}
