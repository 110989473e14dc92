//! Bodies of answers under watch: a server that hardly sends anything has stalled, and one that sends too much, or what
//! would unpack to too much, is not listened to any longer.
//!
//! Time counts only while condaimg waits for the server, so that a slow disk or a slow receiver is not the server's
//! fault.

use std::fmt;
use std::io::{self, Write};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use reqwest::header::CONTENT_ENCODING;
use reqwest::{Body, Response, ResponseBuilderExt as _};
use tokio::time::{Instant, Sleep, sleep};

use crate::util::{Limit, redact};

/// How the message of a stall begins.
pub(crate) const STALLED: &str = "the server stalled";

/// Why a server is not listened to any longer.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// It sends too little; of this URL.
    Stalled(String),
    /// It does not begin to answer.
    Silent(String),
    /// It sends too much.
    TooLarge(String, Limit),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (bytes, seconds) = (Limit::StallBytes.shown(), Limit::StallSeconds.shown());
        match self {
            Self::Stalled(url) => write!(
                f,
                "{STALLED}: it sent less than {bytes} of `{url}` within {seconds} (`--limit stall-seconds=N`)"
            ),
            Self::Silent(url) => {
                let seconds = Limit::AnswerSeconds.shown();
                write!(f, "the server did not answer to `{url}` within {seconds} (`--limit answer-seconds=N`)")
            }
            Self::TooLarge(url, Limit::IndexRatio) => {
                let ratio = Limit::IndexRatio.shown();
                write!(f, "`{url}` unpacks to more than {ratio} times its size (`--limit index-ratio=N`)")
            }
            Self::TooLarge(url, limit) => {
                write!(f, "`{url}` is larger than {} (`--limit {}=N`)", limit.shown(), limit.name())
            }
        }
    }
}

impl std::error::Error for Fault {}

impl Fault {
    /// The one inside an error.
    pub(crate) fn within<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a Self> {
        std::iter::successors(Some(error), |error| {
            // `source` of an I/O error skips what it was made of.
            let inner = error.downcast_ref::<io::Error>().and_then(|error| error.get_ref());
            inner.map(|inner| inner as &(dyn std::error::Error + 'static)).or_else(|| error.source())
        })
        .find_map(|error| error.downcast_ref::<Self>())
    }
}

/// What is told of a fault.
pub(crate) type Tell = Arc<dyn Fn(&Fault) + Send + Sync>;

/// How large an answer may be.
#[derive(Clone, Copy, Default)]
pub(crate) struct Sizes {
    /// As it is sent.
    pub(crate) sent: Option<Limit>,
    /// As it is when it is unpacked, and how it is packed.
    pub(crate) unpacked: Option<(Limit, Packing)>,
}

/// How the content of a file is packed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packing {
    Plain,
    Zstd,
    Bzip2,
}

/// The answer with its body under watch.
pub(crate) fn watched(answer: Response, sizes: Sizes, tell: Option<Tell>) -> Response {
    let url = answer.url().clone();
    let is_gzip = answer.headers().get(CONTENT_ENCODING).is_some_and(|value| value.as_bytes() == b"gzip");
    let mut copy = http::Response::builder().status(answer.status()).version(answer.version()).url(url.clone());
    if let Some(headers) = copy.headers_mut() {
        *headers = answer.headers().clone();
    }
    if let Some(extensions) = copy.extensions_mut() {
        extensions.extend(answer.extensions().clone());
    }
    let unpacking = sizes.unpacked.map(|(limit, packing)| Unpacking::new(limit, packing, is_gzip));
    let body = Watched {
        inner: Body::from(answer),
        shown: redact::url(&url),
        tell,
        sent: 0,
        most: sizes.sent,
        unpacking,
        got: 0,
        waited: Duration::ZERO,
        since: None,
        timer: None,
    };
    // A builder with parts of an answer cannot fail.
    copy.body(Body::wrap(body)).map_or_else(|_| http::Response::new(Body::default()).into(), Response::from)
}

struct Watched {
    inner: Body,
    shown: String,
    tell: Option<Tell>,
    /// Bytes so far.
    sent: u64,
    most: Option<Limit>,
    unpacking: Option<Unpacking>,
    /// Bytes of this window, and the time in it that was spent waiting for them.
    got: u64,
    waited: Duration,
    /// When the present wait began.
    since: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Watched {
    fn fail(&self, fault: Fault) -> Fault {
        if let Some(tell) = &self.tell {
            tell(&fault);
        }
        fault
    }

    /// Takes note of what came.
    fn take(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        self.got += bytes.len() as u64;
        self.sent += bytes.len() as u64;
        if let Some(limit) = self.most.filter(|limit| self.sent > limit.value()) {
            return Err(self.fail(Fault::TooLarge(self.shown.clone(), limit)));
        }
        if let Some(limit) = self.unpacking.as_mut().and_then(|unpacking| unpacking.over(bytes)) {
            return Err(self.fail(Fault::TooLarge(self.shown.clone(), limit)));
        }
        Ok(())
    }

    /// Ends a window that is over.
    fn end_window(&mut self) -> Result<(), Fault> {
        if self.waited < window() {
            return Ok(());
        }
        let got = std::mem::take(&mut self.got);
        self.waited = Duration::ZERO;
        match got < Limit::StallBytes.value() {
            true => Err(self.fail(Fault::Stalled(self.shown.clone()))),
            false => Ok(()),
        }
    }

    /// Waits for the server, but not longer than the window is.
    fn wait(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        loop {
            let left = window().saturating_sub(self.waited);
            let now = Instant::now();
            self.since = Some(now);
            let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(left)));
            timer.as_mut().reset(now + left);
            if timer.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
            self.waited = window();
            self.since = None;
            if let Err(fault) = self.end_window() {
                return Poll::Ready(Err(fault));
            }
        }
    }
}

fn window() -> Duration {
    Duration::from_secs(Limit::StallSeconds.value())
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let this = self.get_mut();
        if let Some(since) = this.since.take() {
            this.waited += since.elapsed();
        }
        match Pin::new(&mut this.inner).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => {
                let bytes = frame.data_ref().cloned().unwrap_or_default();
                let checked = this.take(&bytes).and_then(|()| this.end_window());
                Poll::Ready(Some(checked.map(|()| frame).map_err(Into::into)))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(error.into()))),
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => match this.wait(context) {
                Poll::Ready(Err(fault)) => Poll::Ready(Some(Err(fault.into()))),
                Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// Unpacks what comes, only to see how much it is.
struct Unpacking {
    limit: Limit,
    decoder: Mutex<Option<Box<dyn Write + Send>>>,
    sent: u64,
    /// What may be unpacked so far.
    allowed: Arc<AtomicU64>,
    is_over: Arc<AtomicBool>,
}

/// Bytes that an answer may unpack to, however small it is.
const ALWAYS_FINE: u64 = 64 << 20;

impl Unpacking {
    fn new(limit: Limit, packing: Packing, is_gzip: bool) -> Self {
        let (is_over, allowed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let counter = Counter { count: 0, allowed: Arc::clone(&allowed), is_over: Arc::clone(&is_over) };
        let decoder: Option<Box<dyn Write + Send>> = match packing {
            Packing::Plain if !is_gzip => None,
            Packing::Plain => Some(Box::new(counter)),
            Packing::Zstd => zstd::stream::write::Decoder::new(counter).ok().map(|decoder| Box::new(decoder) as Box<_>),
            Packing::Bzip2 => Some(Box::new(bzip2::write::BzDecoder::new(counter))),
        };
        let decoder = match is_gzip {
            true => decoder.map(|decoder| Box::new(flate2::write::MultiGzDecoder::new(decoder)) as Box<_>),
            false => decoder,
        };
        Self { limit, decoder: Mutex::new(decoder), sent: 0, allowed, is_over }
    }

    /// Takes more bytes; the limit that they exceed.
    fn over(&mut self, bytes: &[u8]) -> Option<Limit> {
        self.sent += bytes.len() as u64;
        let by_ratio = self.sent.saturating_mul(Limit::IndexRatio.value()).max(ALWAYS_FINE);
        self.allowed.store(by_ratio.min(self.limit.value()), Ordering::Relaxed);
        let decoder = self.decoder.get_mut().unwrap_or_else(PoisonError::into_inner);
        // What cannot be unpacked is told by whoever needs it.
        // Decoders keep what they unpacked until they are asked for it.
        let unpack = |decoder: &mut Box<dyn Write + Send>| decoder.write_all(bytes).and_then(|()| decoder.flush());
        if decoder.as_mut().is_some_and(|decoder| unpack(decoder).is_err()) {
            *decoder = None;
        }
        let limit = if by_ratio < self.limit.value() { Limit::IndexRatio } else { self.limit };
        self.is_over.load(Ordering::Relaxed).then_some(limit)
    }
}

/// Counts bytes.
struct Counter {
    count: u64,
    allowed: Arc<AtomicU64>,
    is_over: Arc<AtomicBool>,
}

impl Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.count = self.count.saturating_add(bytes.len() as u64);
        if self.count > self.allowed.load(Ordering::Relaxed) {
            self.is_over.store(true, Ordering::Relaxed);
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether bytes count as too many, given one by one.
    fn is_over(packing: Packing, is_gzip: bool, bytes: &[u8]) -> bool {
        let mut unpacking = Unpacking::new(Limit::Shard, packing, is_gzip);
        bytes.chunks(1000).any(|chunk| unpacking.over(chunk).is_some())
    }

    #[test]
    fn what_unpacks_to_too_much_is_noticed() {
        use std::io::Read as _;
        let size = Limit::Shard.value();
        let more = size + (1 << 20);
        let zeros = |count: u64| io::repeat(0).take(count);
        let zstd = |count: u64| zstd::encode_all(zeros(count), 1).expect("packs");
        let gzip = |bytes: &[u8]| {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(bytes).expect("packs");
            encoder.finish().expect("ends")
        };
        assert!(is_over(Packing::Zstd, false, &zstd(more)) && !is_over(Packing::Zstd, false, &zstd(size)));
        assert!(is_over(Packing::Zstd, true, &gzip(&zstd(more))));
        let parts = [zstd(more / 2), zstd(more / 2)].concat();
        assert!(is_over(Packing::Zstd, false, &parts));
        assert!(is_over(Packing::Plain, true, &gzip(&vec![0; more as usize])));
        assert!(!is_over(Packing::Plain, false, &vec![0; more as usize]), "the bytes themselves are counted");
        let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::best());
        io::copy(&mut zeros(more), &mut encoder).expect("packs");
        assert!(is_over(Packing::Bzip2, false, &encoder.finish().expect("ends")));
        assert!(!is_over(Packing::Zstd, false, b"no zstd"));
    }
}
