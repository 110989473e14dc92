//! One upload: an own session, the whole blob in one streaming PUT (distribution-spec, "POST then PUT").

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt as _, TryStreamExt as _, stream};
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use reqwest::{Body, Method, RequestBuilder, Response};
use tokio::io::AsyncReadExt as _;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::io::ReaderStream;
use url::Url;

use super::Registry;
use super::answers::{silent, unanswered};
use super::location::with_digest;
use super::reference::parse;
use super::retry::Failure;
use super::transport::{Call, Place, Prepared};
use super::wire::{IDLE, chunk};
use crate::model::{Blob, BlobSource};
use crate::util::report::Progress;
use crate::util::{Error, Result};

/// Bytes that are read from a file at a time.
const PIECE: usize = 256 * 1024;

/// How often progress is told and a stall looked for.
const TICK: Duration = Duration::from_millis(100);

/// How long a registry may take to answer when it has all bytes: it may have to copy them to their place.
const COMMIT: Duration = Duration::from_secs(300);

/// A blob on its way into a repository.
pub(super) struct Upload<'a> {
    pub(super) registry: &'a Registry,
    pub(super) place: &'a Place,
    pub(super) blob: &'a Blob,
}

/// What the body, which reqwest owns, tells the upload.
#[derive(Default)]
struct Feed {
    /// Bytes that were handed over so far.
    taken: AtomicU64,
    /// Why the body ended early.
    problem: Mutex<Option<Failure>>,
}

impl Upload<'_> {
    /// Opens a session and sends the blob. `reported` is how much of it `progress` knows of already.
    pub(super) async fn run(&self, progress: &dyn Progress, reported: &AtomicU64) -> Result<(), Failure> {
        let feed = Arc::new(Feed::default());
        // The source first: a session is not left open for a file that is not there.
        let body = self.body(&feed).await?;
        let mut call = Call::new(Method::PUT, self.session().await?);
        call.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        call.headers.insert(CONTENT_LENGTH, HeaderValue::from(self.blob.size));
        let transport = self.registry.transport();
        let Prepared { request, used } = transport.prepare(self.place, call, body).await?;
        let meter = Meter { progress, reported, size: self.blob.size };
        let answer = self.drive(request, &feed, &meter).await;
        // When the body broke off, reqwest only knows that it did.
        if let Some(problem) = feed.problem.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Err(problem);
        }
        let answer = transport.settle(self.place, &used, answer?).await?;
        if !answer.status().is_success() {
            return Err(transport.failure(self.place, answer).await);
        }
        meter.tell(self.blob.size);
        Ok(())
    }

    /// Opens an upload session; gives the URL to send the blob to.
    async fn session(&self) -> Result<Url, Failure> {
        let url = self.place.url("blobs/uploads/")?;
        let mut call = Call::new(Method::POST, url.clone());
        call.headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        let transport = self.registry.transport();
        let answer = transport.send(self.place, &call).await?;
        if !answer.status().is_success() {
            return Err(transport.failure(self.place, answer).await);
        }
        Ok(with_digest(transport.location(self.place, &url, answer.headers())?, &self.blob.digest))
    }

    /// Waits for the answer, tells progress, and gives up when nothing moves.
    async fn drive(&self, request: RequestBuilder, feed: &Feed, meter: &Meter<'_>) -> Result<Response, Failure> {
        let whom = self.place.called();
        let mut answer = std::pin::pin!(request.send());
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut moved_at, mut seen) = (Instant::now(), 0);
        loop {
            tokio::select! {
                answer = &mut answer => {
                    meter.tell(feed.taken.load(Ordering::Relaxed));
                    return answer.map_err(|error| unanswered(&whom, error));
                }
                now = ticks.tick() => {
                    let taken = feed.taken.load(Ordering::Relaxed);
                    if taken != seen {
                        (moved_at, seen) = (now, taken);
                        meter.tell(taken);
                    }
                    let patience = if taken == self.blob.size { COMMIT } else { IDLE };
                    if now.saturating_duration_since(moved_at) > patience {
                        return Err(silent(&whom, patience.as_secs()));
                    }
                }
            }
        }
    }

    async fn body(&self, feed: &Arc<Feed>) -> Result<Body, Failure> {
        match &self.blob.source {
            BlobSource::Bytes(bytes) => {
                self.check_size(bytes.len() as u64, "the bytes in memory")?;
                feed.taken.store(self.blob.size, Ordering::Relaxed);
                Ok(Body::from(bytes.clone()))
            }
            BlobSource::File(path) => {
                let file = fs_err::tokio::File::open(path).await.map_err(Error::from)?;
                let length = file.metadata().await.map_err(Error::from)?.len();
                self.check_size(length, &format!("the file `{}`", path.display()))?;
                let pieces = ReaderStream::with_capacity(file.take(self.blob.size), PIECE);
                Ok(fed(feed, pieces.map_err(|error| Error::from(error).into())))
            }
            BlobSource::Registry(reference) => {
                let reference = parse(reference)?;
                let (source, answer) = self.registry.open_blob(&reference, &self.blob.digest).await?;
                let lost = move |failure: Failure| failure.context(|| format!("cannot read from `{reference}`"));
                let pieces = stream::try_unfold((source.called(), answer), |(whom, mut answer)| async {
                    Ok(chunk(&whom, &mut answer).await?.map(|bytes| (bytes, (whom, answer))))
                });
                Ok(fed(feed, pieces.map_err(lost)))
            }
        }
    }

    fn check_size(&self, found: u64, what: &str) -> Result<()> {
        if found == self.blob.size {
            return Ok(());
        }
        let message =
            format!("the blob {} should have {} bytes, but {what} has {found}", self.blob.digest, self.blob.size);
        Err(Error::user(message).hint("the cache may be damaged: try again with `--no-cache`"))
    }
}

/// A body that counts what is taken from it and keeps the reason why it breaks off.
fn fed(feed: &Arc<Feed>, pieces: impl Stream<Item = Result<Bytes, Failure>> + Send + 'static) -> Body {
    let feed = Arc::clone(feed);
    Body::wrap_stream(pieces.map(move |piece| match piece {
        Ok(bytes) => {
            feed.taken.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            Ok(bytes)
        }
        Err(failure) => {
            *feed.problem.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure);
            Err(io::Error::other("the blob cannot be read to its end"))
        }
    }))
}

/// Tells progress of each byte once, over all attempts.
pub(super) struct Meter<'a> {
    pub(super) progress: &'a dyn Progress,
    /// What it knows of already.
    pub(super) reported: &'a AtomicU64,
    /// Bytes in all.
    pub(super) size: u64,
}

impl Meter<'_> {
    /// So many bytes are sent now.
    pub(super) fn tell(&self, sent: u64) {
        let sent = sent.min(self.size);
        let before = self.reported.fetch_max(sent, Ordering::Relaxed);
        if sent > before {
            self.progress.advance(sent - before);
        }
    }
}
