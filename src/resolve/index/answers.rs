//! Answers that look like an index and are none: servers of files that say 403 for what is not there (S3, for whoever
//! may not list a bucket), pages for a login with the status 200, archives that are something else.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::StreamExt as _;
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap};
use reqwest::{Body, Request, Response, ResponseBuilderExt as _, StatusCode};
use reqwest_middleware::{Error, Next, Result};
use url::Url;

use super::sift::is_other_object;
use crate::util::redact;

/// The whole index of a platform.
const WHOLE: &str = "repodata.json";

/// Its compressed forms, and how such files begin.
const COMPRESSED: [(&str, &[u8]); 2] =
    [("repodata.json.zst", &[0x28, 0xb5, 0x2f, 0xfd]), ("repodata.json.bz2", b"BZh")];

/// So many bytes of an answer tell what it is.
const BEGINNING: usize = 16;

/// An answer that is longer is an index: what servers say of errors is short.
pub(super) const LONGEST_ERROR: usize = 64 * 1024;

/// The indexes of platforms that were taken for absent since the server forbids to read them.
#[derive(Clone, Default)]
pub(in crate::resolve) struct Absent(Arc<Mutex<BTreeSet<String>>>);

impl Absent {
    /// Their URLs, without secrets; told once.
    pub(in crate::resolve) fn take(&self) -> BTreeSet<String> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn add(&self, url: &Url) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(redact::url(url));
    }
}

/// An answer that is a web page.
#[derive(Debug)]
pub(in crate::resolve) struct WebPage(String);

impl fmt::Display for WebPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the server answers with a web page (a login?) to {}", self.0)
    }
}

impl std::error::Error for WebPage {}

/// An answer that is a JSON object and no index.
#[derive(Debug)]
pub(in crate::resolve) struct OtherObject(String);

impl fmt::Display for OtherObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the server answers with JSON that is not an index to {}", self.0)
    }
}

impl std::error::Error for OtherObject {}

/// Makes a 404 of an answer that says no more than that there is no such file, so that the next form is asked for.
///
/// The platform's own index may be missing: the one for all platforms may not, so that a channel that forbids everything
/// is still told.
pub(in crate::resolve) async fn check(
    request: Request,
    extensions: &mut http::Extensions,
    next: Next<'_>,
    absent: Absent,
) -> Result<Response> {
    let (url, is_get) = (request.url().clone(), request.method() == reqwest::Method::GET);
    let answer = next.run(request, extensions).await?;
    // What is packed once more on its way begins otherwise.
    let reads = is_get && !answer.headers().contains_key(CONTENT_ENCODING);
    let mut segments = url.path_segments().into_iter().flatten().rev();
    let (file, subdir) = (segments.next().unwrap_or_default(), segments.next().unwrap_or_default());
    let compressed = COMPRESSED.iter().find(|(name, _)| *name == file);
    match (answer.status(), compressed) {
        (StatusCode::FORBIDDEN, _) if file == WHOLE && subdir != "noarch" => {
            absent.add(&url);
            missing(&url)
        }
        (StatusCode::FORBIDDEN, Some(_)) => missing(&url),
        (StatusCode::OK, Some((_, beginning))) if reads => match beginning_of(answer, BEGINNING).await? {
            (first, answer) if first.starts_with(beginning) => Ok(answer),
            _ => missing(&url),
        },
        // Not every server of files knows JSON: what comes counts.
        (StatusCode::OK, None) if reads && file == WHOLE && is_page(answer.headers()) => {
            match beginning_of(answer, BEGINNING).await? {
                (first, _) if first.trim_ascii_start().starts_with(b"<") => {
                    Err(Error::middleware(WebPage(redact::url(&url))))
                }
                (_, answer) => Ok(answer),
            }
        }
        (StatusCode::OK, None) if reads && file == WHOLE => match beginning_of(answer, LONGEST_ERROR).await? {
            (first, _) if first.len() < LONGEST_ERROR && is_other_object(&first) => {
                Err(Error::middleware(OtherObject(redact::url(&url))))
            }
            (_, answer) => Ok(answer),
        },
        _ => Ok(answer),
    }
}

fn is_page(headers: &HeaderMap) -> bool {
    let text = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    text.to_ascii_lowercase().starts_with("text/html")
}

/// How an answer's body begins, with so many bytes at least if it has them, and the answer as it came.
async fn beginning_of(mut answer: Response, least: usize) -> Result<(Bytes, Response)> {
    let mut first: Vec<u8> = Vec::new();
    while first.len() < least
        && let Some(chunk) = answer.chunk().await?
    {
        first.extend_from_slice(&chunk);
    }
    let first = Bytes::from(first);
    let (url, status, headers) = (answer.url().clone(), answer.status(), answer.headers().clone());
    let body = Body::wrap_stream(futures::stream::iter([Ok(first.clone())]).chain(answer.bytes_stream()));
    let mut copy = http::Response::builder().status(status).url(url);
    if let Some(target) = copy.headers_mut() {
        *target = headers;
    }
    copy.body(body).map(|copy| (first, copy.into())).map_err(Error::middleware)
}

fn missing(url: &Url) -> Result<Response> {
    let answer = http::Response::builder().status(StatusCode::NOT_FOUND).url(url.clone());
    answer.body(Bytes::new()).map(Response::from).map_err(Error::middleware)
}
