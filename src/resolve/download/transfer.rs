//! One file on its way: asked for again where the connection broke, up to the point where it is whole.

use std::io;
use std::sync::Arc;

use futures::StreamExt as _;
use reqwest::StatusCode;
use reqwest::header::{ACCEPT_ENCODING, CONTENT_RANGE, RANGE};
use reqwest_middleware::ClientWithMiddleware;

use super::wanted::{Mismatch, Wanted};
use crate::http::middleware::Attempts;
use crate::http::retry::Again;
use crate::http::watch::{Fault, STALLED};
use crate::resolve::client::{certificate_hint, reason};
use crate::resolve::connection::RETRIES;
use crate::store::Part;
use crate::util::report::Progress;
use crate::util::{Error, Limit, Result, files};

/// Tries of a request, and of a transfer that brings nothing new.
const TRIES: u32 = 5;
/// Transfers that each bring something, of one archive.
const MOST_TRANSFERS: u32 = 50;

/// Why a transfer ended without an archive.
pub(super) enum Failure {
    /// What came is not what the index says.
    Mismatch(Mismatch),
    /// The disk.
    Store(Error),
    /// Nothing that another try would change.
    Final(Error),
}

impl From<Mismatch> for Failure {
    fn from(mismatch: Mismatch) -> Self {
        Self::Mismatch(mismatch)
    }
}

/// How one answer of a server ended.
enum Answer {
    /// All bytes are there.
    Whole,
    /// The connection broke, for this reason.
    Cut(String),
}

/// One archive on its way.
pub(super) struct Transfer<'a> {
    wanted: &'a Wanted,
    client: &'a ClientWithMiddleware,
    progress: &'a Arc<dyn Progress>,
    /// Bytes of this archive that the progress knows of.
    counted: u64,
}

impl<'a> Transfer<'a> {
    pub(super) fn new(wanted: &'a Wanted, client: &'a ClientWithMiddleware, progress: &'a Arc<dyn Progress>) -> Self {
        Self { wanted, client, progress, counted: 0 }
    }

    /// Fills the part to its end.
    pub(super) async fn run(&mut self, part: &mut Part) -> Result<(), Failure> {
        if self.wanted.is_local() { self.copy(part).await } else { self.receive(part).await }
    }

    /// Starts anew, once; the second time it is an error.
    pub(super) fn damaged(&mut self, part: &mut Part, mismatch: &Mismatch, attempt: u32) -> Result<()> {
        let Mismatch { what, expected, got } = mismatch;
        part.clear()?;
        if attempt == 0 {
            tracing::debug!(package = %self.wanted, what, expected, got, "fetching again");
            return Ok(());
        }
        part.remove();
        Err(self.wanted.mismatched(mismatch))
    }

    async fn receive(&mut self, part: &mut Part) -> Result<(), Failure> {
        let mut tried = 0;
        for _ in 0..MOST_TRANSFERS {
            let before = part.size();
            let cut = match self.request(part).await? {
                Answer::Whole => return Ok(()),
                Answer::Cut(reason) => reason,
            };
            // A trickle is no progress.
            let is_progress = part.size() - before.min(part.size()) > Limit::StallBytes.value();
            let is_stall = cut.contains(STALLED);
            tried = if is_progress { 0 } else { tried + if is_stall { 2 } else { 1 } };
            if tried >= TRIES {
                return Err(self.unreachable(&cut));
            }
            tracing::debug!(package = %self.wanted, at = part.size(), cut, "going on");
            tokio::time::sleep(RETRIES.wait(tried + 1, Again::Later(None))).await;
        }
        Err(self.unreachable("the connection breaks again and again"))
    }

    /// Asks for what the part lacks, and takes it.
    async fn request(&mut self, part: &mut Part) -> Result<Answer, Failure> {
        if part.rehash().await.map_err(Failure::Store)? {
            self.count(part);
        }
        match self.wanted.size {
            Some(size) if part.size() == size => return Ok(Answer::Whole),
            Some(size) if part.size() > size => part.clear().map_err(Failure::Store)?,
            _ => {}
        }
        let mut request = self
            .client
            .get(self.wanted.url.clone())
            .header(ACCEPT_ENCODING, "identity")
            .with_extension(Attempts(TRIES));
        if part.size() > 0 {
            request = request.header(RANGE, format!("bytes={}-", part.size()));
        }
        let response = request.send().await.map_err(|error| self.unreachable(&reason(error)))?;
        let Some(total) = self.accept(&response, part)? else {
            return Ok(Answer::Cut(format!("the server says {}", response.status())));
        };
        if let (Some(total), Some(size)) = (total, self.wanted.size)
            && total != size
        {
            return Err(size_mismatch(size, total).into());
        }
        self.take(response, part).await
    }

    /// Whether an answer can be used: the archive's size as far as the server tells it; nothing when the part
    /// was emptied for another try.
    fn accept(&self, response: &reqwest::Response, part: &mut Part) -> Result<Option<Option<u64>>, Failure> {
        match response.status() {
            StatusCode::PARTIAL_CONTENT => match content_range(response) {
                Some((start, total)) if start == part.size() => Ok(Some(total)),
                // A server that answers with some other part than the one asked for.
                _ => part.clear().map(|()| None).map_err(Failure::Store),
            },
            StatusCode::RANGE_NOT_SATISFIABLE if part.size() > 0 => part.clear().map(|()| None).map_err(Failure::Store),
            status if status.is_success() => {
                part.clear().map_err(Failure::Store)?;
                Ok(Some(response.content_length()))
            }
            status => Err(Failure::Final(self.wanted.refused(status, response.url()))),
        }
    }

    async fn take(&mut self, response: reqwest::Response, part: &mut Part) -> Result<Answer, Failure> {
        let mut stream = response.bytes_stream();
        while let Some(chunk) = stream.next().await {
            let chunk = match chunk {
                Ok(chunk) => chunk,
                Err(error) if matches!(Fault::within(&error), Some(Fault::TooLarge(..))) => {
                    return Err(self.unreachable(&reason(error.into())));
                }
                Err(error) => return Ok(Answer::Cut(reason(error.into()))),
            };
            // Never more on the disk than the index says.
            if let Some(size) = self.wanted.size
                && part.size() + chunk.len() as u64 > size
            {
                return Err(size_mismatch(size, part.size() + chunk.len() as u64).into());
            }
            if self.wanted.size.is_none() && part.size() + chunk.len() as u64 > Limit::Download.value() {
                let what = format!("{} from {} is larger than", self.wanted, self.wanted.shown_url());
                return Err(Failure::Final(Limit::Download.exceeded(&what)));
            }
            // Into the page cache: no worse for the other transfers of this thread than the hashing.
            part.write(&chunk).map_err(Failure::Store)?;
            self.count(part);
        }
        match self.wanted.size {
            Some(size) if part.size() < size => Ok(Answer::Cut("the connection ended early".to_owned())),
            _ => Ok(Answer::Whole),
        }
    }

    async fn copy(&mut self, part: &mut Part) -> Result<(), Failure> {
        let source = self.wanted.url.to_file_path().map_err(|()| {
            Failure::Final(Error::user(format!("{} is no file: {}", self.wanted, self.wanted.shown_url())))
        })?;
        files::refuse_special(&source).map_err(Failure::Final)?;
        let file =
            fs_err::File::open(&source).map_err(|error| Failure::Final(self.wanted.not_opened(&source, error)))?;
        part.clear().map_err(Failure::Store)?;
        part.copy(file, self.wanted.size).await.map_err(Failure::Store)?;
        self.count(part);
        match self.wanted.size {
            Some(size) if size != part.size() => Err(size_mismatch(size, part.size()).into()),
            _ => Ok(()),
        }
    }

    /// Tells the progress of bytes that it does not know yet; those that come a second time are not counted.
    fn count(&mut self, part: &Part) {
        let new = part.size().saturating_sub(self.counted);
        if self.wanted.size.is_none() {
            self.progress.grow(new);
        }
        self.progress.advance(new);
        self.counted += new;
    }

    fn unreachable(&self, reason: &str) -> Failure {
        let failed = Error::user(format!("{} cannot be downloaded from {}", self.wanted, self.wanted.shown_url()))
            .caused_by(io::Error::other(reason.to_owned()));
        let hint = certificate_hint(reason).unwrap_or("try again: what came so far is kept");
        Failure::Final(failed.hint(hint))
    }
}

fn size_mismatch(expected: u64, got: u64) -> Mismatch {
    Mismatch { what: "size", expected: format!("{expected} bytes"), got: format!("{got} bytes") }
}

/// `Content-Range: bytes START-END/TOTAL` (RFC 9110, 14.4): start and total.
fn content_range(response: &reqwest::Response) -> Option<(u64, Option<u64>)> {
    let text = response.headers().get(CONTENT_RANGE)?.to_str().ok()?;
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (start, _) = range.split_once('-')?;
    Some((start.trim().parse().ok()?, total.trim().parse().ok()))
}
