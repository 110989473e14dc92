//! One upload: an own session, the whole blob in one streaming PUT (distribution-spec, "POST then PUT"); in chunks
//! where the registry demands it ([`super::chunks`]).

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Body, Method, RequestBuilder, Response};
use tokio::time::{Instant, MissedTickBehavior};
use url::Url;

use super::Registry;
use super::session::Session;
use super::session::with_digest;
use super::source::{self, Feed, body, check_bytes};
use super::transport::{Call, MAX_REDIRECTS, Place, Prepared, in_circles};
use crate::http::retry::Failure;
use crate::http::trouble::silent;
use crate::http::wire::dispatch;
use crate::model::{Blob, BlobSource};
use crate::util::report::Progress;

/// How often progress is told and a stall looked for.
const TICK: Duration = Duration::from_millis(100);

/// What a registry answers when the bytes are not those that were announced (distribution-spec, error codes).
pub(super) const DIGEST_INVALID: &str = "DIGEST_INVALID";

/// A blob on its way into a repository.
pub(super) struct Upload<'a> {
    pub(super) registry: &'a Registry,
    pub(super) place: &'a Place,
    pub(super) blob: &'a Blob,
    pub(super) meter: &'a Meter<'a>,
}

impl Upload<'_> {
    /// Sends the blob, in the session when one is open already.
    pub(super) async fn run(&self, session: Option<Session>) -> Result<(), Failure> {
        // No session is opened for a file that is not what it should be.
        if matches!(self.blob.source, BlobSource::File(_)) {
            check_bytes(self.blob).await?;
        }
        if let Some(chunk) = self.usual_chunk() {
            return self.in_chunks(self.session(session).await?, chunk).await;
        }
        let mut feed = Arc::new(Feed::default());
        // The source first: no session is opened for a file that is not there.
        let body = body(self.registry, self.blob, 0..self.blob.size, &feed).await?;
        let session = self.session(session).await?;
        let min_chunk = session.min_chunk;
        match self.whole(session, body, &mut feed).await {
            Err(failure) => match self.demanded_chunk(&failure, min_chunk) {
                Some(chunk) => self.in_chunks(self.session(None).await?, chunk).await,
                None => Err(failure),
            },
            sent => sent,
        }
    }

    async fn session(&self, open: Option<Session>) -> Result<Session, Failure> {
        match open {
            Some(session) => Ok(session),
            None => Session::open(self.registry, self.place).await,
        }
    }

    /// Sends the blob in one piece.
    async fn whole(&self, mut session: Session, body: Body, feed: &mut Arc<Feed>) -> Result<(), Failure> {
        let url = with_digest(session.url.clone(), &self.blob.digest);
        let answer = self.transfer(Method::PUT, url, HeaderMap::new(), body, feed, 0..self.blob.size).await;
        let failure = match answer {
            Ok(answer) if answer.status().is_success() => {
                session.done();
                self.meter.tell(self.blob.size);
                return Ok(());
            }
            Ok(answer) => self.registry.transport().failure(self.place, answer).await,
            Err(failure) => failure,
        };
        if failure.code.as_deref() == Some(DIGEST_INVALID) {
            check_bytes(self.blob).await?;
        }
        if failure.leaves_open() && feed.taken() == self.blob.size {
            // It may be putting the blob in its place still: a DELETE would spoil that.
            session.done();
        }
        Err(failure)
    }

    /// Sends a part of the blob and gives the answer, unless the registry wants us to log in again.
    pub(super) async fn transfer(
        &self,
        method: Method,
        url: Url,
        headers: HeaderMap,
        mut body: Body,
        feed: &mut Arc<Feed>,
        part: Range<u64>,
    ) -> Result<Response, Failure> {
        let mut call = Call::new(method, url);
        call.headers = headers;
        call.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        call.headers.insert(CONTENT_LENGTH, HeaderValue::from(part.end - part.start));
        let transport = self.registry.transport();
        for _ in 0..=MAX_REDIRECTS {
            let Prepared { request, used } = transport.prepare(self.place, call.clone(), body).await?;
            let answer = self.drive(request, feed, part.clone()).await;
            // When the body broke off, reqwest only knows that it did.
            if let Some(problem) = feed.problem() {
                return Err(problem);
            }
            let answer = answer?;
            match transport.redirect(self.place, &call.method, &answer)? {
                Some(url) => call.url = url,
                None => return transport.settle(self.place, &used, answer).await,
            }
            // What reads the bytes for the request that was redirected may still be under way.
            *feed = Arc::new(Feed::default());
            body = source::body(self.registry, self.blob, part.clone(), feed).await?;
        }
        Err(in_circles(&self.place.called()))
    }

    /// Waits for the answer, tells progress, and gives up when nothing moves.
    async fn drive(&self, request: RequestBuilder, feed: &Feed, part: Range<u64>) -> Result<Response, Failure> {
        let whom = self.place.called();
        let wire = &self.registry.transport().wire;
        let patience = wire.patience;
        let mut answer = std::pin::pin!(dispatch(request));
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut moved_at, mut seen) = (Instant::now(), 0);
        loop {
            tokio::select! {
                answer = &mut answer => {
                    self.meter.tell(part.start + feed.taken());
                    return wire.answered(&whom, answer);
                }
                now = ticks.tick() => {
                    let taken = feed.taken();
                    if taken != seen {
                        (moved_at, seen) = (now, taken);
                        self.meter.tell(part.start + taken);
                    }
                    let patience = if part.start + taken == part.end { patience.commit } else { patience.idle };
                    if now.saturating_duration_since(moved_at) > patience {
                        return Err(silent(&whom, patience));
                    }
                }
            }
        }
    }
}

/// Tells progress of each byte once, over all attempts.
pub(super) struct Meter<'a> {
    progress: &'a dyn Progress,
    /// What it knows of already.
    reported: AtomicU64,
    /// Bytes in all.
    size: u64,
}

impl<'a> Meter<'a> {
    pub(super) fn new(progress: &'a dyn Progress, size: u64) -> Self {
        Self { progress, reported: AtomicU64::new(0), size }
    }

    /// So many bytes are sent now.
    pub(super) fn tell(&self, sent: u64) {
        let sent = sent.min(self.size);
        let before = self.reported.fetch_max(sent, Ordering::Relaxed);
        if sent > before {
            self.progress.advance(sent - before);
        }
    }

    /// Whether anything was sent at all.
    pub(super) fn began(&self) -> bool {
        self.reported.load(Ordering::Relaxed) > 0
    }
}
