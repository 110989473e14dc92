//! `condaimg lock`: environment → lock; checks, renews and exports it.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::args::{ExportArg, Global, LockArgs};
use super::locking::options::{EnvironmentOptions, LockMode, Upgrade};
use super::locking::{self, Locked};
use super::world::World;
use crate::lock;
use crate::registry::Registry;
use crate::spec;
use crate::store::Store;
use crate::util::report::SharedReporter;
use crate::util::{Error, Result};

/// Runs the command.
///
/// # Errors
/// Whatever is wrong with the user's input or the world; the lock is then as it was. With `--check`, a lock that is
/// missing or stale.
pub async fn run(args: LockArgs, global: Global, reporter: SharedReporter) -> Result<()> {
    let options = EnvironmentOptions::new(args.environment.clone(), mode(&args), &global)?;
    let spec = spec::read(&options.path)?;
    if let Some(format) = args.export {
        return export(format, &options, &spec);
    }
    for notice in &spec.notices {
        reporter.notice(notice);
    }
    let world = World {
        store: Store::open(&options.cache_dir)?,
        registry: Registry::new(options.args.registry.options(&[]))?,
        reporter,
        offline: options.args.offline,
    };
    let locked = locking::obtain(&options, &spec, &world).await?;
    if !args.check {
        for Locked { platform, lock, .. } in &locked {
            for warning in lock::warnings(lock) {
                world.reporter.warn(&warning);
            }
            world.reporter.notice(&format!("{platform}: {} packages", lock.packages.len()));
        }
        let path = locking::path(&options, &spec);
        world.reporter.notice(&format!("the lock is `{}`", path.display()));
    }
    Ok(())
}

fn mode(args: &LockArgs) -> LockMode {
    let packages = || args.upgrade.iter().flatten().map(|name| name.to_lowercase()).collect::<BTreeSet<_>>();
    match &args.upgrade {
        _ if args.check => LockMode::Locked,
        None => LockMode::Make(Upgrade::Nothing),
        Some(names) if names.is_empty() => LockMode::Make(Upgrade::All),
        Some(_) => LockMode::Make(Upgrade::Packages(packages())),
    }
}

/// Writes the lock in another tool's form to standard output. Nothing is solved.
fn export(format: ExportArg, options: &EnvironmentOptions, spec: &spec::Spec) -> Result<()> {
    let path = locking::path(options, spec);
    let locks = lock::read(&path)?.ok_or_else(|| {
        Error::user(format!("there is no lock `{}`", path.display())).hint("make it with `condaimg lock`")
    })?;
    let text = match format {
        ExportArg::Pixi => lock::export_pixi(&locks)?,
        ExportArg::Explicit => {
            let platform = match (options.args.platforms.as_slice(), locks.iter().next()) {
                ([], Some(only)) if locks.iter().len() == 1 => Arc::new(only.platform.clone()),
                ([], _) => {
                    return Err(Error::usage("an explicit file is for one platform")
                        .hint(format!("add `--platform` with one of {}", locks.platforms().join(", "))));
                }
                _ => match options.platforms.as_slice() {
                    [one] => Arc::new(one.clone()),
                    _ => return Err(Error::usage("an explicit file is for one platform")),
                },
            };
            let lock = locks.get(&platform).ok_or_else(|| {
                Error::user(format!("the lock `{}` has nothing for {platform}", path.display()))
                    .hint(format!("it is for {}", locks.platforms().join(", ")))
            })?;
            lock::export_explicit(lock)?
        }
    };
    super::print_data(text.as_bytes())
}
