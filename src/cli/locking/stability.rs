//! How often packages change, told from the channels' indexes for a lock that is there already.

use super::options::{EnvironmentOptions, LockMode};
use super::resolving;
use crate::cli::world::World;
use crate::lock::{Lock, classify};
use crate::resolve;
use crate::spec::Spec;
use crate::util::Result;

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
    classify(&mut lock.packages, Some(&old), &found, options.refresh_stability);
    Ok(lock)
}
