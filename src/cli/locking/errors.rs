//! Locks that cannot be used as they are: edited, missing, stale, or for another base.

use std::path::Path;

use crate::lock::{Lock, LockedBase, Locks};
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

/// A frozen lock is used as it is, but never with another base: what it says of its files would be wrong.
pub(super) fn check_base(
    path: &Path,
    locked: &LockedBase,
    asked: &BaseRef,
    extends: bool,
    digest: Digest,
) -> Result<()> {
    let flag = if locked.environment.is_some() { "--from" } else { "--base" };
    if locked.environment.is_some() != extends {
        let what = if extends { "does not extend its base" } else { "extends its base" };
        return Err(Error::user(format!("the lock `{}` {what} `{}`", path.display(), locked.reference))
            .hint(format!("choose `{flag} {}`, or build without `--frozen` to renew the lock", locked.reference)));
    }
    if locked.digest == digest {
        return Ok(());
    }
    Err(Error::user(format!(
        "the lock `{}` is for the base `{}` ({}), and `{asked}` is {digest}",
        path.display(),
        locked.reference,
        locked.digest
    ))
    .hint(format!("choose `{flag} {}`, or build without `--frozen` to renew the lock", locked.reference)))
}

/// A lock that must be current and is not.
pub(super) fn stale(path: &Path, platform: &Platform, changes: &[String]) -> Error {
    let error = Error::user(format!("the lock `{}` is stale for {platform}: it does not fit any more", path.display()));
    let error = changes.iter().fold(error, |error, change| error.hint(format!("changed since it was made: {change}")));
    error.hint("`condaimg lock`, or a build without `--locked`, renews it; commit the result")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::BaseFacts;

    #[test]
    fn a_frozen_lock_keeps_its_base() {
        let digest = Digest::of("a");
        let reference = "host/a:1".to_owned();
        let locked = LockedBase { reference, digest, facts: BaseFacts::default(), environment: None, documents: None };
        let asked = |asked: &str| BaseRef::Registry(asked.to_owned());
        let check = |name: &str, digest| check_base("x.lock".as_ref(), &locked, &asked(name), false, digest);
        check_base("x.lock".as_ref(), &locked, &asked("host/a:1"), true, digest).expect_err("is not extended");
        check("host/a:1", digest).expect("is the same");
        check("host/copy-of-a:1", digest).expect("is the same");
        let error = check("host/b:1", Digest::of("b")).expect_err("is another");
        assert!(error.to_string().contains("`host/a:1`") && error.to_string().contains("`host/b:1`"), "{error}");
    }
}
