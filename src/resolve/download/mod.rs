//! Archives into the content-addressed store: parallel, resumed, verified before they get their name.
//!
//! See [`Part`] for what happens when a process is killed, or two want the same archive.

mod transfer;
mod wanted;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::{StreamExt as _, TryStreamExt as _};
use rattler_conda_types::RepoDataRecord;
use reqwest_middleware::ClientWithMiddleware;

use crate::store::{Part, Store};
use crate::util::report::{Outcome, Progress, SharedReporter, Step};
use crate::util::{Digest, Error, Result, ResultExt as _, plural};
use transfer::{Failure, Transfer};
pub use wanted::{SaidBy, Wanted};

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

/// Brings the archives of `records`, which `origin` describes, into the store, at most `jobs` at once; in the order of
/// `records`.
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
    origin: SaidBy,
    store: &Store,
    client: &ClientWithMiddleware,
    jobs: usize,
    offline: bool,
    reporter: &SharedReporter,
) -> Result<Vec<Archive>> {
    let wanted = records.iter().map(|record| Wanted::of_record(record, origin)).collect::<Result<Vec<_>>>()?;
    let stored = bring_all(&wanted, store, client, jobs, offline, reporter).await?;
    let archives = records.iter().zip(stored).map(|(record, Stored { path, sha256, size })| {
        let mut record = record.clone();
        record.package_record.sha256 = Some((*sha256.as_bytes()).into());
        record.package_record.size = Some(size);
        Archive { record, path, sha256, size }
    });
    Ok(archives.collect())
}

/// Whether the archive of a record is in the store.
pub fn is_stored(record: &RepoDataRecord, store: &Store) -> bool {
    Wanted::of_record(record, SaidBy::Lock).is_ok_and(|wanted| wanted.present(store).is_some())
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
    progress.finish(&Outcome::Downloaded { packages: fetched, bytes, cached });
    Ok(stored)
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
    let mut transfer = Transfer::new(wanted, client, progress);
    for attempt in 0.. {
        match transfer.run(&mut part).await {
            Ok(()) => match wanted.verify(&part) {
                Ok(sha256) => {
                    let (path, size) = (store.archive(&sha256, &wanted.extension), part.size());
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
