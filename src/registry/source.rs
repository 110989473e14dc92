//! Where the bytes of an upload come from, as the body of a request.

use std::io::{self, SeekFrom};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::{Stream, StreamExt as _, TryStreamExt as _, stream};
use reqwest::{Body, StatusCode};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio_util::io::ReaderStream;

use super::Registry;
use super::gone::Gone;
use super::reader::BlobReader;
use super::reference::parse;
use crate::http::retry::Failure;
use crate::model::{Blob, BlobSource};
use crate::util::{Error, Hasher, Result};

/// The way out when what lies in the cache is not what it was.
const DAMAGED: &str = "the cache may be damaged: try again with `--no-cache`";

/// Bytes that are read from a file at a time.
const PIECE: usize = 256 * 1024;

/// What the body, which reqwest owns, tells the upload.
#[derive(Default)]
pub(super) struct Feed {
    taken: AtomicU64,
    problem: Mutex<Option<Failure>>,
}

impl Feed {
    /// Bytes that were handed over so far.
    pub(super) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// Why the body ended early; told once.
    pub(super) fn problem(&self) -> Option<Failure> {
        self.problem.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// A part of the blob, as a body that is read while it is sent.
///
/// # Errors
/// When the source cannot be read, or has another size than the blob.
pub(super) async fn body(
    registry: &Registry,
    blob: &Blob,
    part: Range<u64>,
    feed: &Arc<Feed>,
) -> Result<Body, Failure> {
    match &blob.source {
        BlobSource::Bytes(bytes) => {
            check_size(blob, bytes.len() as u64, "the bytes in memory")?;
            feed.taken.store(part.end - part.start, Ordering::Relaxed);
            Ok(Body::from(bytes.slice(part.start as usize..part.end as usize)))
        }
        BlobSource::File(path) | BlobSource::Packed(path) => {
            let mut file = fs_err::tokio::File::open(path).await.map_err(Error::from)?;
            let length = file.metadata().await.map_err(Error::from)?.len();
            check_size(blob, length, &format!("the file `{}`", path.display())).map_err(Gone::mark)?;
            file.seek(SeekFrom::Start(part.start)).await.map_err(Error::from)?;
            let pieces = ReaderStream::with_capacity(file.take(part.end - part.start), PIECE);
            Ok(fed(feed, pieces.map_err(|error| Error::from(error).into())))
        }
        BlobSource::Registry(reference) => {
            let from = parse(reference)?;
            let named = from.clone();
            let lost = move |failure: Failure| {
                let failure = failure.context(|| format!("cannot read from `{named}`"));
                if failure.status() == Some(StatusCode::NOT_FOUND) { Gone::mark_failure(failure) } else { failure }
            };
            let reader = BlobReader::open(registry, &from, &blob.digest, blob.size, part).await.map_err(&lost)?;
            let pieces = stream::try_unfold(reader, |mut reader| async {
                Ok(reader.next().await?.map(|bytes| (bytes, reader)))
            });
            Ok(fed(feed, pieces.map_err(lost)))
        }
    }
}

/// Looks at the bytes of a blob that is to be sent, or that the registry found to be others: a damaged file is not the
/// registry's fault, nor is what another repository has.
///
/// # Errors
/// When the source does not have the blob.
pub(super) async fn check_bytes(blob: &Blob) -> Result<()> {
    let path = match &blob.source {
        BlobSource::File(path) | BlobSource::Packed(path) => path,
        BlobSource::Registry(at) => {
            return Err(Gone::mark(Error::user(format!(
                "`{at}` has other bytes than those of the blob {}",
                blob.digest
            ))));
        }
        BlobSource::Bytes(_) => return Ok(()),
    };
    let file = path.clone();
    let hashing = tokio::task::spawn_blocking(move || Ok::<_, Error>(Hasher::drain(fs_err::File::open(&file)?)?.0));
    let found = hashing.await.map_err(|error| Error::bug("hashing ended early").caused_by(error))??;
    if found == blob.digest {
        return Ok(());
    }
    let message = format!("the file `{}` should be the blob {}, but is {found}", path.display(), blob.digest);
    Err(Gone::mark(Error::user(message).hint(DAMAGED)))
}

fn check_size(blob: &Blob, found: u64, what: &str) -> Result<()> {
    if found == blob.size {
        return Ok(());
    }
    let message = format!("the blob {} should have {} bytes, but {what} has {found}", blob.digest, blob.size);
    Err(Error::user(message).hint(DAMAGED))
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
