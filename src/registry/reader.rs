//! Reading a blob from a registry, going on where a broken connection left off.

use std::ops::Range;

use bytes::{Buf as _, Bytes};
use reqwest::header::{CONTENT_RANGE, HeaderMap, HeaderValue, RANGE};
use reqwest::{Method, Response, StatusCode};

use super::Registry;
use super::reference::Reference;
use super::transport::Call;
use crate::http::retry::{Again, Failure, Tries};
use crate::util::{Digest, Error, Result};

/// How often a registry may end its answer too early in good order before its copy counts as too short.
const SHORT_ANSWERS: u32 = 2;

/// A part of a blob on its way to us, piece by piece. Nobody has looked at its digest yet.
pub(super) struct BlobReader {
    registry: Registry,
    reference: Reference,
    digest: Digest,
    /// Bytes of the whole blob.
    size: u64,
    /// What of it was not given out yet.
    left: Range<u64>,
    answer: Option<Running>,
    tries: Tries,
    short_answers: u32,
}

/// An answer whose body is being read.
struct Running {
    answer: Response,
    /// How messages call who sends it.
    whom: String,
    /// Bytes in front of what we want: the registry does not give parts of blobs.
    skip: u64,
}

impl BlobReader {
    /// Begins to read a part of a blob of `size` bytes.
    pub(super) async fn open(
        registry: &Registry,
        reference: &Reference,
        digest: &Digest,
        size: u64,
        part: Range<u64>,
    ) -> Result<Self, Failure> {
        let mut reader = Self {
            registry: registry.clone(),
            reference: reference.clone(),
            digest: *digest,
            size,
            left: part,
            answer: None,
            tries: Tries::default(),
            short_answers: 0,
        };
        while let Err(failure) = reader.ask().await {
            reader.registry.policy().next(&mut reader.tries, failure).await?;
        }
        Ok(reader)
    }

    /// The next piece; none after the last. Trying again is done here.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        loop {
            match self.attempt().await {
                Ok(piece) => return Ok(piece),
                Err(failure) => {
                    self.answer = None;
                    self.registry.policy().next(&mut self.tries, failure).await?;
                }
            }
        }
    }

    async fn attempt(&mut self) -> Result<Option<Bytes>, Failure> {
        if self.answer.is_none() {
            self.ask().await?;
        }
        let registry = self.registry.clone();
        let wire = &registry.transport().wire;
        let patience = wire.patience.idle;
        let Some(Running { answer, whom, skip }) = &mut self.answer else { return Ok(None) };
        loop {
            let piece = wire.chunk(whom, answer, patience).await;
            if self.left.is_empty() {
                // All is there: a connection that breaks now does no harm, more bytes do.
                return match piece {
                    Ok(Some(_)) if self.left.end == self.size => {
                        Err(Error::user(format!("{whom} sent more than {} bytes", self.size)).into())
                    }
                    _ => Ok(None),
                };
            }
            let Some(mut piece) = piece? else {
                let message = format!("{whom} sent {} of {} bytes", self.left.start, self.size);
                self.short_answers += 1;
                let again = if self.short_answers < SHORT_ANSWERS { Again::Later(None) } else { Again::Never };
                return Err(Failure { again, ..Failure::passing(Error::user(message)) });
            };
            let skipped = (*skip).min(piece.len() as u64);
            *skip -= skipped;
            piece.advance(skipped as usize);
            let room = self.left.end - self.left.start;
            if piece.len() as u64 > room && self.left.end == self.size {
                return Err(Error::user(format!("{whom} sent more than {} bytes", self.size)).into());
            }
            piece.truncate(room.try_into().unwrap_or(usize::MAX));
            if !piece.is_empty() {
                self.left.start += piece.len() as u64;
                return Ok(Some(piece));
            }
        }
    }

    /// Asks for what is left; for all of it where the registry does not give parts.
    async fn ask(&mut self) -> Result<(), Failure> {
        let place = self.registry.transport().place(&self.reference, false).await?;
        let mut call = Call::new(Method::GET, place.url(&format!("blobs/{}", self.digest))?);
        if self.left.start > 0 || self.left.end < self.size {
            let range = format!("bytes={}-{}", self.left.start, self.left.end.max(1) - 1);
            call.headers.insert(RANGE, HeaderValue::try_from(range).map_err(|_| Error::bug("a range is no header"))?);
        }
        let transport = self.registry.transport();
        let mut answer = transport.send(&place, &call).await?;
        if answer.status() == StatusCode::RANGE_NOT_SATISFIABLE && call.headers.remove(RANGE).is_some() {
            answer = transport.send(&place, &call).await?;
        }
        let begins = match answer.status() {
            StatusCode::OK => 0,
            StatusCode::PARTIAL_CONTENT => begin(answer.headers()).unwrap_or(self.left.start),
            _ => return Err(transport.failure(&place, answer).await),
        };
        let whom = place.called();
        let Some(skip) = self.left.start.checked_sub(begins) else {
            return Err(Error::user(format!("{whom} sent another part of the blob than it was asked for")).into());
        };
        self.answer = Some(Running { answer, whom, skip });
        Ok(())
    }
}

/// Where the part of an answer begins (RFC 9110, 14.4: `bytes 5-9/10`).
fn begin(headers: &HeaderMap) -> Option<u64> {
    let text = headers.get(CONTENT_RANGE)?.to_str().ok()?;
    text.trim().strip_prefix("bytes")?.trim_start().split('-').next()?.trim().parse().ok()
}
