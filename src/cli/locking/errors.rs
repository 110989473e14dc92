//! Locks that cannot be used as they are: edited, missing, stale, or for another base.

use std::path::Path;

use super::options::{EnvironmentOptions, LockMode};
use crate::lock::{Lock, LockedBase, Locks, local};
use crate::model::{BaseRef, Platform};
use crate::util::{Digest, Error, Result};

/// A lock that somebody changed after it was written: parts of it may not fit each other.
pub fn edited(path: &Path, lock: &Lock) -> Error {
    Error::user(format!(
        "the lock `{}` was edited by hand, or merged, for {}: not as they were written are {}",
        path.display(),
        lock.platform,
        lock.edited.join(", ")
    ))
    .hint("take the edit back, or let `condaimg lock` renew the lock: what fits of it is kept")
}

/// A lock that has nothing for a platform.
pub fn missing(path: &Path, platform: &Platform, locks: &Locks) -> Error {
    if locks.is_empty() {
        return Error::user(format!("there is no lock `{}`", path.display()))
            .hint("build once without `--locked` or `--frozen`, and commit the lock");
    }
    Error::user(format!("the lock `{}` has nothing for {platform}", path.display()))
        .hint(format!("it is for {}", locks.platforms().join(", ")))
        .hint("build once without `--locked` or `--frozen` to add the platform, and commit the lock")
}

/// The flag that names the base of a lock.
pub(super) fn flag(locked: &LockedBase) -> &'static str {
    if locked.environment.is_some() { "--from" } else { "--base" }
}

/// How to get the lock's base. What has its name already has other content: its tag was moved, or its files changed.
fn base_hints(error: Error, path: &Path, locked: &LockedBase, options: &EnvironmentOptions) -> Error {
    let lock_folder = std::path::absolute(super::folder(path)).unwrap_or_default();
    let named = local::base_place(&options.base, &lock_folder).map(|base| base.to_string());
    let is_named = options.extends == locked.environment.is_some() && named.is_ok_and(|it| it == locked.reference);
    match is_named {
        true => error.hint(format!(
            "`{}` was changed, or its tag was moved, since the lock was made, which is for {}: `condaimg lock` takes \
             what it holds now",
            locked.reference, locked.digest
        )),
        false => named_hints(error, path, locked, options.args.base_variable()),
    }
}

/// How to name the lock's base, and which variable names another.
fn named_hints(error: Error, path: &Path, locked: &LockedBase, variable: Option<&str>) -> Error {
    let (flag, reference) = (flag(locked), &locked.reference);
    let error =
        error.hint(format!("the lock `{}` is for `{flag} {reference}`: give that, or no base at all", path.display()));
    match variable {
        Some(name) => error.hint(format!("the variable `{name}` names another base: a flag comes before it")),
        None => error,
    }
}

/// Refuses a lock that may not be made anew and that is stale, or names another base, before a registry is asked for
/// the base. `changes` are all but those of the base's content.
///
/// # Errors
/// They name both bases and the flag. What only content can tell is left to [`check_base`] and [`stale`].
pub(super) fn check_named(path: &Path, lock: &Lock, options: &EnvironmentOptions, changes: &[String]) -> Result<()> {
    match options.mode {
        LockMode::Locked => {
            // The content of a base on this machine is cheap to compare: all changes are told at once then.
            let is_remote = matches!(options.base, BaseRef::Registry(_));
            let tells = is_remote || changes.iter().any(|change| is_about_base(change));
            if tells && !changes.is_empty() { Err(stale(path, lock, options, changes)) } else { Ok(()) }
        }
        LockMode::Frozen => {
            let variable = options.args.base_variable();
            check_frozen(path, &lock.base, &options.base, options.extends, variable)
        }
        LockMode::Make(_) | LockMode::Renew => Ok(()),
    }
}

fn check_frozen(
    path: &Path,
    locked: &LockedBase,
    asked: &BaseRef,
    extends: bool,
    variable: Option<&str>,
) -> Result<()> {
    if locked.environment.is_some() != extends {
        let what = if extends { "does not extend its base" } else { "extends its base" };
        let error = Error::user(format!("the lock `{}` {what} `{}`", path.display(), locked.reference));
        return Err(named_hints(error, path, locked, variable));
    }
    let BaseRef::Registry(reference) = asked else { return Ok(()) };
    // A digest may be that of the index that the lock's manifest is in.
    if *reference == locked.reference || reference.contains('@') {
        return Ok(());
    }
    let name = reference.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')).map_or(&**reference, |(name, _)| name);
    let error = Error::user(format!(
        "the lock `{}` is for the base `{}`, and `{reference}` is another name",
        path.display(),
        locked.reference
    ));
    Err(named_hints(error, path, locked, variable).hint(format!(
        "use a copy of that base by its digest: `{} {name}@{}`",
        flag(locked),
        locked.digest
    )))
}

/// Refuses a frozen lock with another base than its own: what it says of the base's files would be wrong.
pub(super) fn check_base(path: &Path, locked: &LockedBase, options: &EnvironmentOptions, digest: Digest) -> Result<()> {
    if locked.digest == digest {
        return Ok(());
    }
    let error = Error::user(format!(
        "the lock `{}` is for the base `{}` ({}), and `{}` is {digest}",
        path.display(),
        locked.reference,
        locked.digest,
        options.base
    ));
    Err(base_hints(error, path, locked, options).hint("build without `--frozen` to renew the lock"))
}

fn is_about_base(change: &str) -> bool {
    change.starts_with("base:") || change.starts_with("from:")
}

/// A lock that must be current and is not.
pub(super) fn stale(path: &Path, lock: &Lock, options: &EnvironmentOptions, changes: &[String]) -> Error {
    let platform = &lock.platform;
    let error = Error::user(format!("the lock `{}` is stale for {platform}: it does not fit any more", path.display()));
    let error = changes.iter().fold(error, |error, change| error.hint(format!("changed since it was made: {change}")));
    let error = if changes.iter().any(|change| is_about_base(change)) {
        base_hints(error, path, &lock.base, options)
    } else {
        error
    };
    error.hint("`condaimg lock`, or a build without `--locked`, renews it; commit the result")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::BaseFacts;

    #[test]
    fn a_frozen_lock_keeps_its_base() {
        let digest = Digest::of("a");
        let reference = "host:5000/a:1".to_owned();
        let locked = LockedBase { reference, digest, facts: BaseFacts::default(), environment: None, documents: None };
        let asked = |asked: &str| BaseRef::Registry(asked.to_owned());
        let path = Path::new("x.lock");
        let check = |name: &str, extends| check_frozen(path, &locked, &asked(name), extends, Some("CONDAIMG_BASE"));
        check("host:5000/a:1", true).expect_err("is not extended");
        check("host:5000/a:1", false).expect("is the same");
        check(&format!("mirror:5000/a@{digest}"), false).expect("is a copy");
        check_frozen(path, &locked, &BaseRef::Scratch, false, None).expect("its digest is compared");
        let error = check("mirror:5000/b:1", false).expect_err("may be another");
        assert!(
            error.to_string().contains("`host:5000/a:1`") && error.to_string().contains("`mirror:5000/b:1`"),
            "{error}"
        );
        let hints = error.hints().join("\n");
        assert!(hints.contains("`--base host:5000/a:1`"), "{hints}");
        assert!(hints.contains(&format!("`--base mirror:5000/b@{digest}`")), "{hints}");
        assert!(hints.contains("`CONDAIMG_BASE`"), "{hints}");
    }
}
