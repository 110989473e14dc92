//! Archives into the content-addressed store: parallel, resumed, verified before they get their name.
//!
//! An archive grows in a `.part` file that is locked (flock(2)) by whoever writes it. It becomes an archive by a
//! rename, after its hash was compared with the channel's index. So at any byte a process may be killed: the next
//! run finds a `.part` that it continues, or a whole archive. And of two processes that want the same archive one
//! waits and then finds it.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::{StreamExt as _, TryStreamExt as _};
use rattler_conda_types::RepoDataRecord;
use rattler_conda_types::package::DistArchiveType;
use reqwest::StatusCode;
use reqwest::header::{ACCEPT_ENCODING, CONTENT_RANGE, RANGE};
use reqwest_middleware::ClientWithMiddleware;
use url::Url;

use super::client::{Tries, backoff, certificate_hint, reason};
use super::human;
use super::part::Part;
use crate::store::Store;
use crate::util::report::{Progress, SharedReporter, Step};
use crate::util::{Digest, Error, Result, ResultExt as _, plural, redact};

/// Tries of a request, and of a transfer that brings nothing new.
const TRIES: u32 = 5;
/// Transfers that each bring something, of one archive.
const MOST_TRANSFERS: u32 = 50;

/// An archive in the store.
#[derive(Debug, Clone)]
pub struct Archive {
    /// Its record, with the sha256 and the size even where the channel's index lacks them.
    pub record: RepoDataRecord,
    /// Where it is.
    pub path: PathBuf,
    /// Its sha256.
    pub sha256: Digest,
    /// Its size in bytes.
    pub size: u64,
}

/// Brings the archives of `records` into the store, at most `jobs` at once; in the order of `records`.
///
/// What is in the store already is not read again. A record without sha256 is checked against its md5 when it has
/// one; without any hash it is taken as the server sends it. Its archive is fetched each time, since only its
/// bytes tell its name in the store; a lock has the sha256 from then on.
///
/// # Errors
/// When an archive cannot be had, is not what the index says (after a second try), does not fit on the disk, or
/// is missing while `offline`.
pub async fn download(
    records: &[RepoDataRecord],
    store: &Store,
    client: &ClientWithMiddleware,
    jobs: usize,
    offline: bool,
    reporter: &SharedReporter,
) -> Result<Vec<Archive>> {
    bring(records, Source::Index, store, client, jobs, offline, reporter).await
}

/// The same for the records of a lock: what differs from it is another archive than the one that was locked.
///
/// # Errors
/// As [`download`].
pub async fn download_locked(
    records: &[RepoDataRecord],
    store: &Store,
    client: &ClientWithMiddleware,
    jobs: usize,
    offline: bool,
    reporter: &SharedReporter,
) -> Result<Vec<Archive>> {
    bring(records, Source::Lock, store, client, jobs, offline, reporter).await
}

/// Where records come from: who says what an archive should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Index,
    Lock,
    /// The same for files of PyPI.
    PipIndex,
    PipLock,
}

async fn bring(
    records: &[RepoDataRecord],
    source: Source,
    store: &Store,
    client: &ClientWithMiddleware,
    jobs: usize,
    offline: bool,
    reporter: &SharedReporter,
) -> Result<Vec<Archive>> {
    let wanted = records.iter().map(|record| Wanted::of_record(record, source)).collect::<Result<Vec<_>>>()?;
    let stored = bring_all(&wanted, store, client, jobs, offline, reporter).await?;
    let archives = records.iter().zip(stored).map(|(record, Stored { path, sha256, size })| {
        let mut record = record.clone();
        record.package_record.sha256 = Some((*sha256.as_bytes()).into());
        record.package_record.size = Some(size);
        Archive { record, path, sha256, size }
    });
    Ok(archives.collect())
}

/// A file that was brought into the store.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Where it is.
    pub path: PathBuf,
    /// Its sha256.
    pub sha256: Digest,
    /// Its size in bytes.
    pub size: u64,
}

/// Brings what is wanted into the store, at most `jobs` at once; in the order of `wanted`.
///
/// # Errors
/// As [`download`].
pub async fn bring_all(
    wanted: &[Wanted],
    store: &Store,
    client: &ClientWithMiddleware,
    jobs: usize,
    offline: bool,
    reporter: &SharedReporter,
) -> Result<Vec<Stored>> {
    let missing: Vec<&Wanted> = wanted.iter().filter(|wanted| wanted.present(store).is_none()).collect();
    if offline {
        refuse_missing(&missing)?;
    }
    if missing.is_empty() {
        return wanted.iter().map(|wanted| wanted.stored(store)).collect();
    }
    let total = missing.iter().filter_map(|wanted| wanted.size).sum();
    let progress: Arc<dyn Progress> = reporter.begin(Step::Download, total).into();
    let fetched = AtomicUsize::new(0);
    let stored: Vec<Stored> = futures::stream::iter(wanted)
        .map(|wanted| fetch(wanted, store, client, &progress, &fetched))
        .buffered(jobs.max(1))
        .try_collect()
        .await?;
    let fetched = fetched.into_inner();
    let bytes = missing.iter().filter_map(|wanted| wanted.size).sum();
    let cached = stored.len() - fetched;
    progress.finish(&format!("{}, {}; {cached} were in the cache", plural(fetched, "package"), human(bytes)));
    Ok(stored)
}

/// An archive that is wanted, and what is known of it.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Its file name, which people recognise.
    name: String,
    /// Where it is, without credentials.
    url: Url,
    /// Who says what it should be.
    source: Source,
    /// Of its file in the store.
    extension: String,
    pub(super) sha256: Option<Digest>,
    pub(super) md5: Option<[u8; 16]>,
    pub(super) size: Option<u64>,
}

impl Wanted {
    fn of_record(record: &RepoDataRecord, source: Source) -> Result<Self> {
        let DistArchiveType::Conda(kind) = record.identifier.archive_type else {
            return Err(Error::user(format!("`{}` is no conda package", record.identifier)));
        };
        let package = &record.package_record;
        Ok(Self {
            name: record.identifier.to_string(),
            url: record.url.clone(),
            source,
            extension: kind.extension().trim_start_matches('.').to_owned(),
            sha256: package.sha256.map(|hash| Digest::from_bytes(hash.into())),
            md5: package.md5.map(Into::into),
            size: package.size,
        })
    }

    /// A file of PyPI: a wheel (`whl`), or what one is built from (`sdist`). Its bytes are what the index or the lock
    /// says.
    pub fn of_pypi(name: &str, url: &Url, sha256: Option<Digest>, size: Option<u64>, locked: bool) -> Self {
        let extension = if name.ends_with(".whl") { "whl" } else { "sdist" };
        Self {
            name: name.to_owned(),
            url: url.clone(),
            source: if locked { Source::PipLock } else { Source::PipIndex },
            extension: extension.to_owned(),
            sha256,
            md5: None,
            size: size.filter(|size| *size > 0),
        }
    }

    /// Where it will be; known when its sha256 is.
    fn path(&self, store: &Store) -> Option<PathBuf> {
        self.sha256.map(|sha256| store.archive(&sha256, &self.extension))
    }

    /// The archive's size, if it is in the store, of the right size. Its bytes were verified when it came.
    fn present(&self, store: &Store) -> Option<u64> {
        let size = std::fs::metadata(self.path(store)?).ok().filter(|metadata| metadata.is_file())?.len();
        (size > 0 && self.size.is_none_or(|expected| expected == size)).then_some(size)
    }

    fn stored(&self, store: &Store) -> Result<Stored> {
        match (self.path(store), self.sha256, self.present(store)) {
            (Some(path), Some(sha256), Some(size)) => Ok(Stored { path, sha256, size }),
            _ => Err(Error::user(format!("the archive of {self} vanished from the cache")).hint("try again")),
        }
    }

    fn part(&self, store: &Store) -> PathBuf {
        // Two archives without sha256 must not meet in one file.
        let key = self.sha256.unwrap_or_else(|| Digest::of(self.url.as_str()));
        store.partial_archive(&key)
    }

    fn is_local(&self) -> bool {
        self.url.scheme() == "file"
    }

    fn shown_url(&self) -> String {
        redact::url(&self.url)
    }
}

/// The file name, which people recognise.
impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`", self.name)
    }
}

fn refuse_missing(missing: &[&Wanted]) -> Result<()> {
    let remote: Vec<String> = missing.iter().filter(|wanted| !wanted.is_local()).map(ToString::to_string).collect();
    if remote.is_empty() {
        return Ok(());
    }
    let shown = remote.iter().take(5).map(String::as_str).collect::<Vec<_>>().join(", ");
    let more = if remote.len() > 5 { ", ..." } else { "" };
    Err(Error::user(format!(
        "{} not in the cache, and the network must not be used: {shown}{more}",
        plural(remote.len(), "archive")
    ))
    .hint("build once without `--offline`"))
}

async fn fetch(
    wanted: &Wanted,
    store: &Store,
    client: &ClientWithMiddleware,
    progress: &Arc<dyn Progress>,
    fetched: &AtomicUsize,
) -> Result<Stored> {
    if wanted.present(store).is_some() {
        return wanted.stored(store);
    }
    let full = |error: Error| in_store(wanted, store, error);
    let path = wanted.part(store);
    let Some(mut part) =
        Part::lock(path, wanted.sha256.is_none(), || wanted.present(store).is_some()).await.map_err(full)?
    else {
        // Another process brought it meanwhile.
        progress.advance(wanted.size.unwrap_or_default());
        return wanted.stored(store);
    };
    progress.item(&wanted.name);
    let mut transfer = Transfer { wanted, client, progress, counted: 0 };
    for attempt in 0.. {
        match transfer.run(&mut part).await {
            Ok(()) => match part.verify(wanted) {
                Ok(sha256) => {
                    let (path, size) = (store.archive(&sha256, &wanted.extension), part.len());
                    part.finish(&path).await.map_err(full)?;
                    fetched.fetch_add(1, Ordering::Relaxed);
                    return Ok(Stored { path, sha256, size });
                }
                Err(mismatch) => transfer.damaged(&mut part, &mismatch, attempt)?,
            },
            Err(Failure::Mismatch(mismatch)) => transfer.damaged(&mut part, &mismatch, attempt)?,
            Err(Failure::Store(error)) => return Err(full(error)),
            Err(Failure::Final(error)) => return Err(error),
        }
    }
    Err(Error::bug("a download neither ended nor failed"))
}

/// An error of the cache folder, which it names.
fn in_store(wanted: &Wanted, store: &Store, error: Error) -> Error {
    let path = wanted.part(store);
    let folder = path.parent().unwrap_or(&path).display().to_string();
    let kept: Result<()> = Err(error);
    match kept.context(|| format!("{wanted} cannot be stored in the cache folder `{folder}`")) {
        Err(error) => error,
        Ok(()) => Error::bug("an error got lost"),
    }
}

/// How an archive differs from what the index says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mismatch {
    pub(super) what: &'static str,
    pub(super) expected: String,
    pub(super) got: String,
}

/// Why a transfer ended without an archive.
enum Failure {
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
struct Transfer<'a> {
    wanted: &'a Wanted,
    client: &'a ClientWithMiddleware,
    progress: &'a Arc<dyn Progress>,
    /// Bytes of this archive that the progress knows of.
    counted: u64,
}

impl Transfer<'_> {
    /// Fills the part to its end.
    async fn run(&mut self, part: &mut Part) -> Result<(), Failure> {
        if self.wanted.is_local() { self.copy(part).await } else { self.receive(part).await }
    }

    /// Starts anew, once; the second time it is an error.
    fn damaged(&mut self, part: &mut Part, mismatch: &Mismatch, attempt: u32) -> Result<()> {
        let Mismatch { what, expected, got } = mismatch;
        part.clear()?;
        if attempt == 0 {
            tracing::debug!(package = %self.wanted, what, expected, got, "fetching again");
            return Ok(());
        }
        part.remove();
        let (fault, says, hint) = match self.wanted.source {
            Source::Index => (
                "is damaged",
                "the channel's index",
                "tell the channel's maintainers; an index or a mirror that is out of date does this too",
            ),
            Source::Lock => (
                "is not the archive that was locked",
                "the lock",
                "somebody replaced it in the channel, or edited the lock; `condaimg lock --upgrade PACKAGE` takes what the channel has now, where the lock is condaimg's own",
            ),
            Source::PipIndex => {
                ("is damaged", "the index", "try again; if it stays so, the index serves another file than it lists")
            }
            Source::PipLock => (
                "is not the file that was locked",
                "the lock",
                "somebody replaced it on the server, or edited the lock; `condaimg lock --upgrade PACKAGE` takes what the server has now",
            ),
        };
        Err(Error::user(format!("{} {fault}: its {what} is {got}, and {says} says {expected}", self.wanted))
            .hint(format!("it came from {}", self.wanted.shown_url()))
            .hint(hint))
    }

    async fn receive(&mut self, part: &mut Part) -> Result<(), Failure> {
        let mut tried = 0;
        for _ in 0..MOST_TRANSFERS {
            let before = part.len();
            let cut = match self.request(part).await? {
                Answer::Whole => return Ok(()),
                Answer::Cut(reason) => reason,
            };
            tried = if part.len() > before { 0 } else { tried + 1 };
            if tried >= TRIES {
                return Err(self.unreachable(&cut));
            }
            tracing::debug!(package = %self.wanted, at = part.len(), cut, "going on");
            tokio::time::sleep(backoff(tried + 1)).await;
        }
        Err(self.unreachable("the connection breaks again and again"))
    }

    /// Asks for what the part lacks, and takes it.
    async fn request(&mut self, part: &mut Part) -> Result<Answer, Failure> {
        if part.rehash().await.map_err(Failure::Store)? {
            self.count(part);
        }
        match self.wanted.size {
            Some(size) if part.len() == size => return Ok(Answer::Whole),
            Some(size) if part.len() > size => part.clear().map_err(Failure::Store)?,
            _ => {}
        }
        let mut request =
            self.client.get(self.wanted.url.clone()).header(ACCEPT_ENCODING, "identity").with_extension(Tries(TRIES));
        if part.len() > 0 {
            request = request.header(RANGE, format!("bytes={}-", part.len()));
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
                Some((start, total)) if start == part.len() => Ok(Some(total)),
                // A server that answers with some other part than the one asked for.
                _ => part.clear().map(|()| None).map_err(Failure::Store),
            },
            StatusCode::RANGE_NOT_SATISFIABLE if part.len() > 0 => part.clear().map(|()| None).map_err(Failure::Store),
            status if status.is_success() => {
                part.clear().map_err(Failure::Store)?;
                Ok(Some(response.content_length()))
            }
            status => Err(Failure::Final(self.refused(status, response.url()))),
        }
    }

    async fn take(&mut self, response: reqwest::Response, part: &mut Part) -> Result<Answer, Failure> {
        let mut stream = response.bytes_stream();
        while let Some(chunk) = stream.next().await {
            let chunk = match chunk {
                Ok(chunk) => chunk,
                Err(error) => return Ok(Answer::Cut(reason(error.into()))),
            };
            // Never more on the disk than the index says.
            if let Some(size) = self.wanted.size
                && part.len() + chunk.len() as u64 > size
            {
                return Err(size_mismatch(size, part.len() + chunk.len() as u64).into());
            }
            // Into the page cache: no worse for the other transfers of this thread than the hashing.
            part.write(&chunk).map_err(Failure::Store)?;
            self.count(part);
        }
        match self.wanted.size {
            Some(size) if part.len() < size => Ok(Answer::Cut("the connection ended early".to_owned())),
            _ => Ok(Answer::Whole),
        }
    }

    async fn copy(&mut self, part: &mut Part) -> Result<(), Failure> {
        let source = self.wanted.url.to_file_path().map_err(|()| {
            Failure::Final(Error::user(format!("{} is no file: {}", self.wanted, self.wanted.shown_url())))
        })?;
        let file = fs_err::File::open(&source).map_err(|error| {
            let missing = error.kind() == io::ErrorKind::NotFound;
            let pip = matches!(self.wanted.source, Source::PipIndex | Source::PipLock);
            let what = match (missing, pip) {
                (true, true) => "is gone",
                (true, false) => "is not in its channel",
                (false, _) => "cannot be read",
            };
            let failed = Error::user(format!("{} {what}: `{}`", self.wanted, source.display())).caused_by(error);
            Failure::Final(if missing && !pip {
                failed.hint("the channel's index names it: index the channel again")
            } else {
                failed
            })
        })?;
        part.clear().map_err(Failure::Store)?;
        part.copy(file, self.wanted.size).await.map_err(Failure::Store)?;
        self.count(part);
        match self.wanted.size {
            Some(size) if size != part.len() => Err(size_mismatch(size, part.len()).into()),
            _ => Ok(()),
        }
    }

    /// Tells the progress of bytes that it does not know yet; those that come a second time are not counted.
    fn count(&mut self, part: &Part) {
        let new = part.len().saturating_sub(self.counted);
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

    fn refused(&self, status: StatusCode, asked: &Url) -> Error {
        // A mirror, or whoever a server redirected to.
        let other = Some(redact::url(asked)).filter(|asked| *asked != self.wanted.shown_url());
        let asked = other.map(|asked| format!(", asked at {asked}")).unwrap_or_default();
        let error = Error::user(format!(
            "{} cannot be downloaded: the server says {status} to {}{asked}",
            self.wanted,
            self.wanted.shown_url()
        ));
        let pip = matches!(self.wanted.source, Source::PipIndex | Source::PipLock);
        match status {
            StatusCode::NOT_FOUND | StatusCode::GONE if pip => {
                error.hint("the file is gone from the server; `condaimg lock --upgrade PACKAGE` takes another one")
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN if pip => error.hint(
                "give credentials in `~/.netrc`, or in the index's URL (`https://${USER}:${PASSWORD}@host/simple`)",
            ),
            StatusCode::NOT_FOUND | StatusCode::GONE => {
                error.hint("the channel's index names a file that is gone; solve again with `condaimg lock --upgrade`")
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                error.hint("give credentials in `~/.netrc`, in rattler's store, or in the channel's URL")
            }
            StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
                error.hint("it is the proxy that refuses us: write user and password into its URL")
            }
            _ => error.hint("try again later"),
        }
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
