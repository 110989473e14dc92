//! `condaimg lock`: environment → lock; checks, renews and exports it.

use super::args::{ExportArg, Global, LockArgs};
use super::events::{self, Goal};
use super::locking::options::{EnvironmentOptions, LockMode, Upgrade};
use super::locking::{self, Locked, settings};
use super::world::World;
use crate::lock::{self, Lock, Locks};
use crate::pack::activation;
use crate::spec::{self, Spec};
use crate::util::report::{Reporter, SharedReporter};
use crate::util::{Error, Result, plural};

/// Runs the command.
///
/// # Errors
/// Whatever is wrong with the user's input or the world; the lock is then as it was. With `--check`, a lock that is
/// missing or stale.
pub async fn run(args: LockArgs, global: Global, reporter: SharedReporter) -> Result<()> {
    let mode = mode(&args);
    let spec = spec::read_with(&args.environment.path(), &args.environment.choices())?;
    let environment = settings::fill(args.environment, &spec.settings)?;
    let mut options = EnvironmentOptions::new(environment, mode, &global)?;
    options.facts_later = args.no_facts;
    options.refresh_stability = args.refresh_stability;
    if let Some(form) = args.export {
        return export(form, &options, &spec, reporter.as_ref());
    }
    if spec.is_lock {
        return Err(Error::usage(format!("`{}` is a lock already", spec.file.display()))
            .hint("name the file that it was made from, or print it in another form with `--export`"));
    }
    locking::adopt_base(&mut options, &spec)?;
    reporter.event(&events::start("lock", &spec, &options, Goal::default()));
    for notice in &spec.notices {
        reporter.notice(notice);
    }
    let world = World::open(&options.cache_dir, options.args.registry.options(&[]), reporter, options.args.offline)?;
    let locked = locking::obtain(&options, &spec, &world).await?;
    if !args.check {
        tell(&locked, &world);
    }
    Ok(())
}

fn mode(args: &LockArgs) -> LockMode {
    match &args.upgrade {
        _ if args.check => LockMode::Locked,
        None => LockMode::Make(Upgrade::Nothing),
        Some(names) if names.is_empty() => LockMode::Make(Upgrade::All),
        Some(names) => LockMode::Make(Upgrade::Packages(names.iter().map(|name| name.to_lowercase()).collect())),
    }
}

fn tell(locked: &[Locked], world: &World) {
    for Locked { platform, lock, .. } in locked {
        for warning in lock::warnings(lock).into_iter().chain(activation::warnings(lock)) {
            world.reporter.warn(&warning);
        }
        if !lock.has_facts {
            world.reporter.notice(&format!("{platform}: the first build adds the facts of the packages"));
        }
    }
}

/// Writes the lock in another tool's form to standard output. Nothing is solved.
fn export(form: ExportArg, options: &EnvironmentOptions, spec: &Spec, reporter: &dyn Reporter) -> Result<()> {
    let path = locking::path(options, spec);
    let locks = lock::read(&path)?.ok_or_else(|| {
        Error::user(format!("there is no lock `{}`", path.display())).hint("make it with `condaimg lock`")
    })?;
    if let Some(lock) = locks.iter().find(|lock| !lock.edited.is_empty()) {
        return Err(locking::edited(&path, lock));
    }
    let chosen: Locks = match options.args.platforms.as_slice() {
        [] => locks,
        _ => {
            let lock = |platform| locks.get(platform).cloned().ok_or_else(|| locking::missing(&path, platform, &locks));
            options.platforms.iter().map(lock).collect::<Result<_>>()?
        }
    };
    let text = match form {
        ExportArg::Pixi => lock::export_pixi(&chosen)?,
        ExportArg::CondaLock => lock::export_conda_lock(&chosen)?,
        ExportArg::Explicit => {
            let lock = only(&chosen)?;
            if !lock.wheels.is_empty() {
                reporter.notice(&format!(
                    "conda leaves out {} of PyPI, as a comment that only conda-lock and condaimg read",
                    plural(lock.wheels.len(), "package")
                ));
            }
            lock::export_explicit(lock)?
        }
    };
    super::terminal::print_data(text.as_bytes())
}

/// The lock of an export that can hold one.
fn only(locks: &Locks) -> Result<&Lock> {
    let mut all = locks.iter();
    match (all.next(), all.next()) {
        (Some(lock), None) => Ok(lock),
        _ => Err(Error::usage("an explicit file is for one platform")
            .hint(format!("add `--platform` with one of {}", locks.platforms().join(", ")))),
    }
}
