//! A lock is data, whoever wrote it. Its seal tells of edits by accident; what it says of archives and wheels is compared
//! with them whenever they are at hand, that is, in each build that packs some of them.

use rattler::install::PythonInfo;

use super::facts::{Archives, wheel_file};
use super::options::EnvironmentOptions;
use super::{locked_origin, python_info, resolving};
use crate::cli::world::World;
use crate::lock::{Lock, LockedPackage, PackageFacts};
use crate::pack::facts::{self, ArchiveFacts};
use crate::resolve;
use crate::spec::Spec;
use crate::store::RecordKind;
use crate::util::{Error, Result};

/// Compares the facts in a lock with the archives and wheels that are in the store; nothing is fetched. With all of
/// them there, all facts are compared; else those that each archive tells by itself.
///
/// # Errors
/// Facts that do not fit; damaged and hostile archives.
pub async fn check(options: &EnvironmentOptions, spec: &Spec, lock: &Lock, world: &World) -> Result<()> {
    if !lock.has_facts {
        return Ok(());
    }
    let python = python_info(lock.packages.iter().map(|package| &package.record), lock.platform.subdir)?;
    let new: Vec<&LockedPackage> = lock.packages.iter().filter(|package| !lock.is_of_base(package.name())).collect();
    let at_hand: Vec<&LockedPackage> =
        new.iter().copied().filter(|package| is_at_hand(package, python.as_ref(), world)).collect();
    let credentials = resolving(options, &lock.platform, spec, world)?.channels_of(spec)?.credentials;
    let archives = Archives { credentials: &credentials, options, world, origin: locked_origin(spec) };
    let wheels: Vec<_> = lock.wheels.iter().filter(|wheel| !lock.is_wheel_of_base(&wheel.name)).collect();
    let has_wheels = wheels.iter().all(|wheel| wheel_file(wheel, &world.store).is_ok());
    if at_hand.len() < new.len() || !has_wheels {
        let records: Vec<_> = at_hand.iter().map(|package| package.record.clone()).collect();
        let read = archives.read(&records, python).await?;
        return at_hand.iter().zip(&read).try_for_each(|(package, read)| by_itself(package, read));
    }
    let records = new.iter().map(|package| package.record.clone()).collect();
    let (packages, _) = archives.environment(records, python.clone()).await?;
    let allowed = lost_to_wheels(lock)?;
    let wheels = wheels.into_iter().cloned().collect();
    let (packages, wheels) = archives.with_wheels(packages, wheels, python, &allowed).await?;
    for (locked, read) in new.iter().zip(&packages) {
        compare(locked.name(), &locked.facts, &read.facts)?;
    }
    let of_lock = |name: &str| lock.wheels.iter().find(|wheel| wheel.name == name);
    match wheels.iter().find(|read| of_lock(&read.name).is_none_or(|locked| locked.facts != read.facts)) {
        Some(wheel) => Err(unfit(&wheel.name, "its files")),
        None => Ok(()),
    }
}

/// Whether what an archive tells can be had without fetching it.
fn is_at_hand(package: &LockedPackage, python: Option<&PythonInfo>, world: &World) -> bool {
    let is_known = facts::archive_key(&package.record, python)
        .is_ok_and(|key| world.store.record::<ArchiveFacts>(RecordKind::Facts, &key).is_some());
    is_known || resolve::is_stored(&package.record, &world.store)
}

/// The paths that the lock gives to wheels: that was allowed when it was made.
fn lost_to_wheels(lock: &Lock) -> Result<Vec<glob::Pattern>> {
    let lost = lock.packages.iter().flat_map(|package| &package.facts.clobbered);
    let to_wheels = lost.filter(|(_, winner)| lock.wheels.iter().any(|wheel| wheel.name == **winner));
    let pattern = |path: &String| glob::Pattern::new(&glob::Pattern::escape(path));
    to_wheels
        .map(|(path, _)| pattern(path).map_err(|error| Error::bug("a path is no pattern").caused_by(error)))
        .collect()
}

/// Compares what an archive tells whatever else is in the environment.
fn by_itself(package: &LockedPackage, read: &ArchiveFacts) -> Result<()> {
    let lost = &package.facts.clobbered;
    if let Some(path) = lost.keys().find(|path| !read.brings(path)) {
        return Err(unfit(package.name(), &format!("`{path}`, which it does not bring")));
    }
    let own = PackageFacts {
        obstacles: package.facts.obstacles.clone(),
        index_time: package.facts.index_time.map(|_| read.index_time()),
        ..read.after_losing(lost.clone())
    };
    compare(package.name(), &package.facts, &own)
}

fn compare(name: &str, locked: &PackageFacts, read: &PackageFacts) -> Result<()> {
    let parts = [
        ("clobbered paths", locked.clobbered == read.clobbered && locked.obstacles == read.obstacles),
        ("byte code", locked.stale == read.stale && locked.bytecode == read.bytecode),
        ("activation", locked.activation == read.activation),
        ("post-link script", locked.post_link == read.post_link),
        ("Python distributions", locked.pypi == read.pypi),
        ("time", locked.index_time.is_none() || locked.index_time == read.index_time),
    ];
    match parts.iter().find(|(_, fits)| !fits) {
        Some((part, _)) => Err(unfit(name, &format!("its {part}"))),
        None => Ok(()),
    }
}

fn unfit(name: &str, what: &str) -> Error {
    Error::user(format!("the lock does not fit `{name}`: it says other of {what} than the package itself"))
        .hint("somebody edited the lock: take it from where it was reviewed, or remove it and make it again with `condaimg lock`")
}
