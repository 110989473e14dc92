//! How often packages change, in the locks: a class, once it is there, stays.

use std::collections::BTreeMap;

use super::options::{EnvironmentOptions, LockMode};
use super::resolving;
use crate::cli::world::World;
use crate::lock::{Lock, LockedPackage};
use crate::model::Stability;
use crate::resolve;
use crate::spec::Spec;
use crate::util::Result;

/// Gives packages their classes. The class that a name had in the old lock stays, whatever its version, so that locking
/// again moves no package to another layer; `--refresh-stability` takes what the index says now.
pub fn classify(
    packages: &mut [LockedPackage],
    old: Option<&Lock>,
    found: &BTreeMap<String, Stability>,
    options: &EnvironmentOptions,
) {
    // Facts that somebody edited are none.
    let old = old.filter(|lock| lock.edited.is_empty());
    for package in packages {
        let kept = old.and_then(|old| old.package(package.name())?.facts.stability);
        let found = found.get(package.name()).copied();
        package.facts.stability = if options.refresh_stability { found.or(kept) } else { kept.or(found) };
    }
}

/// Whether a lock that is current is given classes now: when that is asked for, and by `condaimg lock` when it was made
/// before there were any.
pub fn is_due(lock: &Lock, options: &EnvironmentOptions) -> bool {
    let mut own = lock.packages.iter().filter(|package| !lock.is_of_base(package.name())).peekable();
    let fills = matches!(options.mode, LockMode::Make(_)) && own.peek().is_some();
    options.refresh_stability || (fills && own.all(|package| package.facts.stability.is_none()))
}

/// A lock with the classes that the channels' indexes tell of its packages. Nothing is solved.
///
/// # Errors
/// When no client can be made. A channel that cannot be read is a notice.
pub async fn renew(options: &EnvironmentOptions, spec: &Spec, mut lock: Lock, world: &World) -> Result<Lock> {
    let resolving = resolving(options, &lock.platform, spec, world)?;
    let credentials = resolving.channels_of(spec)?.credentials;
    let own = lock.packages.iter().filter(|package| !lock.is_of_base(package.name()));
    let records: Vec<_> = own.map(|package| package.record.clone()).collect();
    let found = resolve::look_up(&records, &resolving, &credentials).await?.stability;
    let old = lock.clone();
    classify(&mut lock.packages, Some(&old), &found, options);
    Ok(lock)
}
