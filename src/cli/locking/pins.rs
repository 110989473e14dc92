//! From what another tool's lock pins to complete records: what the file lacks is read from the channel's index, and
//! where that cannot be had, from the archive itself.

use rattler_conda_types::{GenericVirtualPackage, PackageRecord, RepoDataRecord};
use rattler_digest::Md5;

use super::options::{EnvironmentOptions, LockMode};
use super::{PARALLEL_DOWNLOADS, readable};
use crate::cli::world::World;
use crate::lock::{self, Pinned, Pins};
use crate::pack::{Archive, layout};
use crate::resolve::{self, Credentials, Resolution, ResolveOptions, SaidBy};
use crate::spec::Spec;
use crate::util::{Error, Result, parallel, plural};

/// Warnings about packages that lack something; more are only counted.
const MOST_WARNINGS: usize = 10;

/// Options that are about solving, where nothing is solved.
///
/// # Errors
/// Wrong usage.
pub fn check_options(options: &EnvironmentOptions, spec: &Spec) -> Result<()> {
    let Some(pins) = &spec.pins else { return Ok(()) };
    let flag = match &options.mode {
        LockMode::Make(_) if options.mode.upgrades() => "--upgrade",
        _ if options.exclude_newer.is_some() => "--exclude-newer",
        _ => return Ok(()),
    };
    Err(Error::usage(format!("`{flag}` changes nothing: `{}` pins every package", pins.file().display()))
        .hint("change the file with the tool that wrote it, and lock again"))
}

/// What is pinned, in the place of what solving finds: complete records, each with its sha256. What a file does not
/// say of a package is read from the index of its channel, and where that cannot be had, from the archive.
///
/// # Errors
/// Those of the file for this platform, of the channels' names and the declared virtual packages; packages that do
/// not run on the target; archives that cannot be had, are damaged, or are not what was pinned.
pub async fn resolve(
    pins: &Pins,
    spec: &Spec,
    resolving: &ResolveOptions<'_>,
    options: &EnvironmentOptions,
    world: &World,
) -> Result<Resolution> {
    let Pinned { packages, .. } = pins.of(resolving.platform)?;
    let channels = resolving.channels_of(spec)?;
    let virtual_packages = resolve::virtual_packages(resolving.platform, &resolving.virtual_packages)?;
    let all: Vec<RepoDataRecord> = packages.iter().map(|package| package.record.clone()).collect();
    let listed = resolve::look_up(&all, resolving, &channels.credentials).await?;
    let (mut records, mut unknown) = (Vec::new(), Vec::new());
    for (pinned, found) in packages.into_iter().zip(listed.records) {
        match found {
            _ if pinned.complete => records.push(pinned.record),
            Some(found) => records.push(found),
            None => unknown.push(pinned.record),
        }
    }
    // An archive that no hash but an old one names has to be read before it can be known.
    let bare = |record: &RepoDataRecord| record.package_record.sha256.is_none();
    let (bare, mut records): (Vec<_>, Vec<_>) = records.into_iter().partition(bare);
    for (record, _) in fetch(&bare, &channels.credentials, options, world).await? {
        records.push(record);
    }
    records.extend(of_archives(fetch(&unknown, &channels.credentials, options, world).await?, options.jobs).await?);
    records.sort_by(|a, b| a.package_record.name.as_normalized().cmp(b.package_record.name.as_normalized()));
    check(pins, &records, &virtual_packages, world)?;
    let credentials = channels.credentials.clone();
    Ok(Resolution { channels: channels.urls(), virtual_packages, records, stability: listed.stability, credentials })
}

/// Archives in the store, with their records, which have their sha256 and size now.
async fn fetch(
    records: &[RepoDataRecord],
    credentials: &Credentials,
    options: &EnvironmentOptions,
    world: &World,
) -> Result<Vec<(RepoDataRecord, Archive)>> {
    if records.is_empty() {
        return Ok(Vec::new());
    }
    let offline = options.channels_offline();
    let client = resolve::http_client(offline, credentials)?;
    let (store, reporter) = (&world.store, &world.reporter);
    let downloaded =
        resolve::download(records, SaidBy::Pins, store, &client, PARALLEL_DOWNLOADS, offline, reporter).await?;
    let pairs = downloaded.into_iter().map(|downloaded| Ok((downloaded.record.clone(), readable(&downloaded, store)?)));
    pairs.collect()
}

/// The records that an index made of these archives would have.
async fn of_archives(pairs: Vec<(RepoDataRecord, Archive)>, jobs: usize) -> Result<Vec<RepoDataRecord>> {
    tokio::task::spawn_blocking(move || parallel(&pairs, jobs, |(record, archive)| of_archive(record, archive)))
        .await
        .map_err(|error| Error::bug("reading the archives ended early").caused_by(error))?
}

/// What an index made of this archive would say.
fn of_archive(record: &RepoDataRecord, archive: &Archive) -> Result<RepoDataRecord> {
    let said = &record.package_record;
    let mut index = layout::index_of(archive)?;
    if !said.subdir.is_empty() {
        // Where the channel has it counts.
        index.subdir = Some(said.subdir.clone());
    }
    let md5 = match said.md5 {
        Some(md5) => md5,
        None => rattler_digest::compute_file_digest::<Md5>(&archive.path)?,
    };
    let package_record = PackageRecord::from_index_json(index, said.size, said.sha256, Some(md5)).map_err(|error| {
        Error::user(format!("the metadata of `{}` names no platform", archive.package)).caused_by(error)
    })?;
    Ok(RepoDataRecord { package_record, ..record.clone() })
}

/// Says what the pinned packages lack, and refuses what cannot run on the target.
///
/// # Errors
/// When they need another machine than the target is.
pub fn check(pins: &Pins, records: &[RepoDataRecord], target: &[GenericVirtualPackage], world: &World) -> Result<()> {
    lock::refuse_unfit_target(pins.file(), records, target)?;
    let missing = lock::missing_dependencies(records);
    for line in missing.iter().take(MOST_WARNINGS) {
        world.reporter.warn(&format!("{}: {line}", pins.file().display()));
    }
    if let Some(more) = missing.len().checked_sub(MOST_WARNINGS + 1) {
        let more = plural(more + 1, "more dependency");
        world.reporter.warn(&format!("{}: missing too: {more}", pins.file().display()));
    }
    Ok(())
}
