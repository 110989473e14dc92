//! Archives of conda packages in the store: those of a new lock, and those of one that is there.

use rattler_conda_types::RepoDataRecord;

use super::options::EnvironmentOptions;
use crate::cli::world::World;
use crate::pack::{Archive, archive_at, transcode};
use crate::resolve::{self, Credentials, SaidBy};
use crate::spec::Spec;
use crate::store::Store;
use crate::util::{Error, Result};

/// Archives that are fetched at once: what conda's own clients do, and servers put up with.
pub(super) const PARALLEL_DOWNLOADS: usize = 8;

/// The archives of solved records in the store, downloaded where they are missing; the records with their sha256.
pub(super) async fn fetch(
    records: &[RepoDataRecord],
    credentials: &Credentials,
    options: &EnvironmentOptions,
    world: &World,
) -> Result<(Vec<RepoDataRecord>, Vec<Archive>)> {
    if records.is_empty() {
        return Ok((Vec::new(), Vec::new()));
    }
    let offline = options.channels_offline();
    let client = resolve::http_client(offline, credentials)?;
    let (store, reporter) = (&world.store, &world.reporter);
    let downloaded =
        resolve::download(records, SaidBy::Index, store, &client, PARALLEL_DOWNLOADS, offline, reporter).await?;
    let mut records = Vec::with_capacity(downloaded.len());
    let mut archives = Vec::with_capacity(downloaded.len());
    for downloaded in downloaded {
        archives.push(readable(&downloaded, store)?);
        records.push(downloaded.record);
    }
    Ok((records, prepared(archives, options, world).await?))
}

/// Who says what the archives of a new lock are.
pub(super) fn made_origin(spec: &Spec) -> SaidBy {
    if spec.pins.is_some() { SaidBy::Pins } else { SaidBy::Index }
}

/// Who says what the archives of a lock are that is there already.
pub fn locked_origin(spec: &Spec) -> SaidBy {
    if spec.pins.is_some() { SaidBy::Pins } else { SaidBy::Lock }
}

/// The same for the records of a lock, which say what the archives must be.
pub async fn fetch_locked(
    records: &[RepoDataRecord],
    origin: SaidBy,
    credentials: &Credentials,
    options: &EnvironmentOptions,
    world: &World,
) -> Result<Vec<Archive>> {
    if records.is_empty() {
        return Ok(Vec::new());
    }
    let offline = options.channels_offline();
    let client = resolve::http_client(offline, credentials)?;
    let (store, reporter) = (&world.store, &world.reporter);
    let downloaded = resolve::download(records, origin, store, &client, PARALLEL_DOWNLOADS, offline, reporter).await?;
    let archives = downloaded.iter().map(|downloaded| readable(downloaded, store)).collect::<Result<_>>()?;
    prepared(archives, options, world).await
}

/// Archives that are slow to read, in a form that is not.
async fn prepared(archives: Vec<Archive>, options: &EnvironmentOptions, world: &World) -> Result<Vec<Archive>> {
    let (store, jobs) = (world.store.clone(), options.jobs);
    tokio::task::spawn_blocking(move || transcode(&archives, &store, jobs).map(|()| archives))
        .await
        .map_err(|error| Error::bug("reading the archives ended early").caused_by(error))?
}

pub(super) fn readable(downloaded: &resolve::Archive, store: &Store) -> Result<Archive> {
    let package = &downloaded.record.package_record;
    let name = format!("{}-{}-{}", package.name.as_normalized(), package.version, package.build);
    let held = Some((store.clone(), downloaded.sha256));
    archive_at(&downloaded.path, &downloaded.record.identifier.to_string(), name, held)
}
