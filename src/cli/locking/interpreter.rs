//! The CPython that makes byte code for a platform on which the environment's own does not run: of the same version,
//! for this machine. The lock keeps it; one that the lock lacks is found in the channels.

use rattler_conda_types::Subdir;

use super::facts::Archives;
use super::options::EnvironmentOptions;
use crate::cli::{locking, world::World};
use crate::lock::{self, Lock, LockedPackage, Locks};
use crate::model::Platform;
use crate::pack::{ForeignInterpreter, bytecode};
use crate::resolve::{self, SaidBy, VirtualPackageOptions};
use crate::spec::Spec;
use crate::util::{Error, Result};

/// The subdir of this machine, when byte code that a lock's image needs must be made by another CPython than its own.
pub fn needed_for(lock: &Lock, options: &EnvironmentOptions) -> Option<Subdir> {
    let wanted = options.bytecode && lock.members().any(|member| lock.member_has_bytecode(member));
    // On a machine that no conda subdir is for, packing says that the environment's own does not run.
    Platform::of_builder().filter(|builder| wanted && *builder != lock.platform.subdir)
}

/// Solves for the interpreter of a lock and reads what unpacking it needs. What `others` hold for this machine is
/// preferred.
///
/// # Errors
/// When the environment's Python is none that makes byte code, or the channels have none of its version.
pub async fn solve(
    options: &EnvironmentOptions,
    spec: &Spec,
    lock: &Lock,
    others: &Locks,
    builder: Subdir,
    world: &World,
) -> Result<Vec<LockedPackage>> {
    let bug = || Error::bug("byte code was planned without a Python");
    let python = lock.package("python").ok_or_else(bug)?;
    let (info, _) = crate::plan::python_of(lock)?.ok_or_else(bug)?;
    bytecode::check_python(python, info.short_version)?;
    let platform = Platform::from_lock_name(builder.as_str()).ok_or_else(bug)?;
    let mut resolving = locking::resolving(options, &platform, spec, world)?;
    // A base that is extended may have its Python from elsewhere.
    let of_base = lock.extended().map(|base| base.channels.as_slice()).unwrap_or_default();
    resolving.channels.extend(of_base.iter().filter(|channel| !channel.starts_with("file:")).cloned());
    // As the environment's own Python would be, if it were for this machine.
    let glibc = lock.virtual_packages.iter().find(|package| package.name.as_normalized() == "__glibc");
    resolving.virtual_packages = VirtualPackageOptions {
        glibc: glibc.map(|glibc| glibc.version.to_string()),
        ..VirtualPackageOptions::default()
    };
    let here = others.iter().filter(|lock| lock.platform.subdir == builder);
    resolving.locked = here.flat_map(|lock| &lock.packages).map(|package| package.record.clone()).collect();
    let resolution = resolve::resolve_interpreter(spec, &python.record, &resolving).await?;
    let archives = Archives { credentials: &resolution.credentials, options, world, origin: SaidBy::Index };
    archives.packages(resolution.records, Some(info)).await
}

/// The interpreter for packing, its archives in the store; none where the environment's own will do.
///
/// # Errors
/// As [`solve`]; those of the downloads.
pub async fn obtain(
    options: &EnvironmentOptions,
    spec: &Spec,
    lock: &Lock,
    world: &World,
) -> Result<Option<ForeignInterpreter>> {
    let Some(builder) = needed_for(lock, options) else { return Ok(None) };
    let packages = match lock.interpreter(builder) {
        Some(packages) => packages.to_vec(),
        None => add(options, spec, lock, builder, world).await?,
    };
    let records: Vec<_> = packages.iter().map(|package| package.record.clone()).collect();
    let credentials = locking::resolving(options, &lock.platform, spec, world)?.channels_of(spec)?.credentials;
    let archives = locking::fetch_locked(&records, locking::locked_origin(spec), &credentials, options, world).await?;
    Ok(Some(ForeignInterpreter { packages: packages.into_iter().zip(archives).collect(), subdir: builder }))
}

/// Finds what the lock lacks: it was made on a machine of another kind, or without byte code. The lock gets it,
/// unless it is to stay as it is; the image is the same either way.
async fn add(
    options: &EnvironmentOptions,
    spec: &Spec,
    lock: &Lock,
    builder: Subdir,
    world: &World,
) -> Result<Vec<LockedPackage>> {
    let packages = solve(options, spec, lock, &Locks::default(), builder, world).await?;
    let python = lock.package("python").map(LockedPackage::full_name).unwrap_or_default();
    if !options.mode.writes() {
        world.reporter.notice(&format!(
            "the lock has no CPython of {builder} that makes byte code for {}; that of the channels makes the same",
            lock.platform
        ));
        return Ok(packages);
    }
    // As it was written: facts that it was made without stay in the store.
    let written = lock::read(&locking::path(options, spec))?.unwrap_or_default();
    let Some(mut lock) = written.get(&lock.platform).cloned() else { return Ok(packages) };
    lock.interpreters.insert(builder, packages.clone());
    world.reporter.notice(&format!("lock: + a CPython of {builder} that makes byte code for `{python}`"));
    locking::save(options, spec, vec![lock], world)?;
    Ok(packages)
}
