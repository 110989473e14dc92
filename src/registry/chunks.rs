//! Uploads in chunks (distribution-spec, "Pushing a blob in chunks"), for registries that do not take a blob in one
//! piece: they, or a proxy in front of them, limit the size of a request. Where it is not demanded it is not done:
//! it takes three times as long, and some registries mangle it (ECR drops all chunks but the first, and says 201).
//!
//! After each chunk the registry says how much it has; when a chunk is refused or its answer lost, it is asked. It
//! is believed when it has less than was sent, never when it says that it has more.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, HeaderMap, HeaderValue, LOCATION, RANGE};
use reqwest::{Method, Response, StatusCode};

use super::session::Session;
use super::session::with_digest;
use super::source::{Feed, body, check_bytes};
use super::transport::Call;
use super::upload::{DIGEST_INVALID, Upload};
use crate::http::retry::{Again, Contact, Failure, Tries};
use crate::util::{Error, human};

/// The first chunk that is tried when a blob was too large: Cloudflare takes 100 MB.
const LARGEST: u64 = 64 << 20;

/// Chunks do not become smaller: this is what nginx takes when nobody set anything else.
const SMALLEST: u64 = 1 << 20;

/// So often in a row a registry may lose a chunk that it accepted.
const LOST_CHUNKS: u32 = 3;

/// What is known of the registries that want chunks, by their names in references.
#[derive(Debug)]
pub(super) struct Chunking {
    demands: Mutex<HashMap<String, Demand>>,
    /// What the user wants for all registries, in bytes.
    wanted: Option<u64>,
}

/// How a registry wants its blobs.
#[derive(Debug, Clone, Copy)]
struct Demand {
    /// Bytes of a chunk that it took.
    size: u64,
    /// Also blobs that are no longer than a chunk.
    always: bool,
}

impl Chunking {
    pub(super) fn new(wanted: Option<u64>) -> Self {
        Self { demands: Mutex::default(), wanted }
    }

    fn demand(&self, registry: &str) -> Option<Demand> {
        self.demands.lock().unwrap_or_else(PoisonError::into_inner).get(registry).copied()
    }

    /// Notes a demand; of several that uploads meet at the same time, the smallest chunk counts.
    fn learn(&self, registry: &str, demand: Demand) -> Demand {
        let mut demands = self.demands.lock().unwrap_or_else(PoisonError::into_inner);
        let known = demands.entry(registry.to_owned()).or_insert(demand);
        *known = Demand { size: known.size.min(demand.size), always: known.always || demand.always };
        *known
    }
}

/// An upload in chunks, as far as it is.
struct Chunked {
    session: Session,
    /// Bytes of a chunk.
    size: u64,
    /// What the registry has.
    offset: u64,
    /// The most that it ever had.
    best: u64,
    /// The most that it can have.
    sent: u64,
    /// Whether it must be asked what it has.
    unsure: bool,
    /// Chunks in a row that it took but does not have.
    lost: u32,
}

impl Upload<'_> {
    /// The size of chunks, in bytes, for a blob that need not be tried in one piece.
    pub(super) fn usual_chunk(&self) -> Option<u64> {
        let chunking = self.registry.chunking();
        let learnt = chunking.demand(&self.place.scope.registry);
        let always = learnt.is_some_and(|demand| demand.always);
        let size = learnt.map(|demand| demand.size).or(chunking.wanted.map(|size| size.max(1)))?;
        (self.blob.size > size || (always && self.blob.size > 0)).then_some(size)
    }

    /// The size of chunks, in bytes, that a refusal of the whole blob asks for; none when it does not.
    pub(super) fn demanded_chunk(&self, failure: &Failure, min_chunk: Option<u64>) -> Option<u64> {
        let too_large = failure.status()? == StatusCode::PAYLOAD_TOO_LARGE;
        let chunks_only = min_chunk.is_some()
            && matches!(failure.status()?.as_u16(), 400 | 405 | 411 | 416 | 422 | 501)
            && failure.code.as_deref() != Some(DIGEST_INVALID);
        if !(chunks_only || too_large && self.blob.size > SMALLEST.max(min_chunk.unwrap_or(0))) {
            return None;
        }
        let mut size = self.registry.chunking().wanted.unwrap_or(LARGEST).max(1);
        while too_large && size >= self.blob.size && size > SMALLEST {
            size /= 2;
        }
        let size = self.learn(size.max(min_chunk.unwrap_or(0)), chunks_only);
        tracing::debug!(registry = self.place.scope.registry, size, "the registry wants chunks");
        Some(size)
    }

    fn learn(&self, size: u64, always: bool) -> u64 {
        self.registry.chunking().learn(&self.place.scope.registry, Demand { size, always }).size
    }

    /// Sends the blob in chunks of `size` bytes.
    pub(super) async fn in_chunks(&self, session: Session, size: u64) -> Result<(), Failure> {
        let size = size.max(session.min_chunk.unwrap_or(0)).max(1);
        let mut chunked = Chunked { session, size, offset: 0, best: 0, sent: 0, unsure: false, lost: 0 };
        let mut tries = Tries::default();
        while chunked.offset < self.blob.size {
            let before = chunked.best;
            match self.step(&mut chunked).await {
                Ok(()) if chunked.best > before => tries = Tries::default(),
                Ok(()) => {}
                Err(failure) if failure.status() == Some(StatusCode::PAYLOAD_TOO_LARGE) => {
                    self.shrink(&mut chunked, failure)?;
                }
                Err(failure) => {
                    let failure = resumable(failure, chunked.unsure)?;
                    chunked.unsure = true;
                    self.registry.policy().next(&mut tries, failure).await?;
                }
            }
        }
        self.commit(chunked.session).await
    }

    /// Sends a chunk, or asks what the registry has.
    async fn step(&self, chunked: &mut Chunked) -> Result<(), Failure> {
        let received = match chunked.unsure {
            true => self.ask(chunked).await?,
            false => self.send_chunk(chunked).await?,
        };
        if received > chunked.sent {
            return Err(
                self.mangled(format!("it says that it has {received} bytes of {} that were sent", chunked.sent))
            );
        }
        if received > chunked.best {
            (chunked.best, chunked.lost) = (received, 0);
        } else if !chunked.unsure {
            chunked.lost += 1;
        }
        if chunked.lost >= LOST_CHUNKS {
            return Err(self.mangled(format!("it has {received} bytes of {} that it took", chunked.sent)));
        }
        (chunked.offset, chunked.unsure) = (received, false);
        Ok(())
    }

    /// Sends the next chunk; gives how many bytes the registry has then.
    async fn send_chunk(&self, chunked: &mut Chunked) -> Result<u64, Failure> {
        let part = chunked.offset..chunked.offset.saturating_add(chunked.size).min(self.blob.size);
        let mut feed = Arc::new(Feed::default());
        let body = body(self.registry, self.blob, part.clone(), &feed).await;
        // What a source in another registry answers says nothing of this session.
        let body = body.map_err(|failure| Failure { contact: Contact::Elsewhere, code: None, ..failure })?;
        let mut headers = HeaderMap::new();
        let range = HeaderValue::try_from(format!("{}-{}", part.start, part.end - 1));
        headers.insert(CONTENT_RANGE, range.map_err(|_| Error::bug("a range is no header"))?);
        chunked.sent = chunked.sent.max(part.end);
        let url = chunked.session.url.clone();
        let answer = self.transfer(Method::PATCH, url, headers, body, &mut feed, part.clone()).await?;
        let answer = self.follow(chunked, answer).await?;
        Ok(received(answer.headers(), part.end).unwrap_or(part.end))
    }

    /// Asks how many bytes the registry has.
    async fn ask(&self, chunked: &mut Chunked) -> Result<u64, Failure> {
        let call = Call::new(Method::GET, chunked.session.url.clone());
        let answer = self.registry.transport().send(self.place, &call).await?;
        let answer = self.follow(chunked, answer).await?;
        received(answer.headers(), chunked.sent).ok_or_else(|| {
            let message = format!("{} does not say how much of an upload it has", self.place.called());
            Failure::passing(Error::user(message))
        })
    }

    /// The next request goes to where this answer says.
    async fn follow(&self, chunked: &mut Chunked, answer: Response) -> Result<Response, Failure> {
        let transport = self.registry.transport();
        if !answer.status().is_success() {
            return Err(transport.failure(self.place, answer).await);
        }
        if answer.headers().contains_key(LOCATION) {
            chunked.session.url = transport.location(self.place, answer.url(), answer.headers())?;
        }
        Ok(answer)
    }

    /// Halves the chunks after one was too large.
    fn shrink(&self, chunked: &mut Chunked, failure: Failure) -> Result<(), Failure> {
        let smallest = SMALLEST.max(chunked.session.min_chunk.unwrap_or(0));
        if chunked.size <= smallest {
            return Err(failure.context(|| format!("a chunk of {} is too large, too", human(chunked.size))));
        }
        chunked.size = (chunked.size / 2).max(smallest);
        self.learn(chunked.size, false);
        tracing::debug!(registry = self.place.scope.registry, size = chunked.size, "smaller chunks");
        Ok(())
    }

    async fn commit(&self, mut session: Session) -> Result<(), Failure> {
        let mut call = Call::new(Method::PUT, with_digest(session.url.clone(), &self.blob.digest));
        call.headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        let transport = self.registry.transport();
        call.patience = Some(transport.wire.patience.commit);
        let failure = match transport.send(self.place, &call).await {
            Ok(answer) if answer.status().is_success() => {
                session.done();
                self.meter.tell(self.blob.size);
                return Ok(());
            }
            Ok(answer) => transport.failure(self.place, answer).await,
            Err(failure) => failure,
        };
        if failure.leaves_open() {
            session.done();
        }
        if failure.code.as_deref() == Some(DIGEST_INVALID) {
            check_bytes(self.blob).await?;
            let said = failure.error;
            let mangled = self.mangled("it took all chunks and has other bytes now".to_owned());
            return Err(Failure { error: mangled.error.caused_by(said), ..mangled });
        }
        Err(failure)
    }

    fn mangled(&self, how: String) -> Failure {
        let message = format!("{} mangles chunked uploads: {how}", self.place.called());
        let hint = "let it take the blob in one piece: raise the limit there, and set no size of chunks here";
        Error::user(message).hint(hint).into()
    }
}

/// What to do about a failure within a session: go on in it, or leave it.
///
/// # Errors
/// When the session is lost; whether the blob is worth another one, the failure says.
fn resumable(failure: Failure, asked: bool) -> Result<Failure, Failure> {
    let again = match (failure.status(), failure.code.as_deref()) {
        (Some(StatusCode::RANGE_NOT_SATISFIABLE), _) if !asked => return Ok(later(failure)),
        // It knows the session no more, or not in this state.
        (Some(StatusCode::NOT_FOUND | StatusCode::RANGE_NOT_SATISFIABLE), _) => true,
        (_, Some("BLOB_UPLOAD_UNKNOWN" | "BLOB_UPLOAD_INVALID" | "RANGE_INVALID")) => true,
        _ => false,
    };
    if again { Err(later(failure)) } else { Ok(failure) }
}

fn later(failure: Failure) -> Failure {
    Failure { again: Again::Later(None), ..failure }
}

/// How many bytes a registry has by the `Range` of its answer (`0-99`, inclusive). For none, CNCF distribution says
/// `0-0`, as for one: that is meant when no more than one byte was `sent`.
fn received(headers: &HeaderMap, sent: u64) -> Option<u64> {
    let text = headers.get(RANGE)?.to_str().ok()?.trim();
    let (start, last) = text.trim_start_matches("bytes").trim_start_matches(['=', ' ']).split_once('-')?;
    let last: u64 = last.trim().parse().ok()?;
    match (start.trim(), last) {
        ("0", 0) => Some(u64::from(sent == 1)),
        ("0", last) => last.checked_add(1),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read() {
        for (text, sent, expected) in [
            ("0-99", 100, Some(100)),
            ("bytes=0-99", 100, Some(100)),
            ("0-0", 100, Some(0)),
            ("0-0", 1, Some(1)),
            ("5-9", 100, None),
            ("0-", 100, None),
            ("all", 100, None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(RANGE, HeaderValue::from_static(text));
            assert_eq!(received(&headers, sent), expected, "{text} of {sent}");
        }
    }

    #[test]
    fn a_refused_chunk_is_asked_about_and_a_lost_session_is_left() {
        let failed = |status: u16, code: Option<&str>| Failure {
            contact: crate::http::retry::Contact::Answered(StatusCode::from_u16(status).expect("a status")),
            code: code.map(str::to_owned),
            ..Error::user("no").into()
        };
        assert_eq!(resumable(failed(416, None), false).expect("goes on").again, Again::Later(None));
        for lost in [failed(404, None), failed(400, Some("BLOB_UPLOAD_INVALID"))] {
            assert_eq!(resumable(lost, false).expect_err("is lost").again, Again::Later(None));
        }
        assert_eq!(resumable(failed(416, None), true).expect_err("is lost").again, Again::Later(None));
        assert_eq!(resumable(failed(403, None), false).expect("is told").again, Again::Never);
    }
}
