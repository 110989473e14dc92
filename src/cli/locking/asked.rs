//! What a build asks of the lock of one platform, and what the lock answers without network.

use std::path::{Path, PathBuf};

use super::errors::check_named;
use super::options::{EnvironmentOptions, LockMode};
use super::{edited, folder, inputs, missing, path, pip, texts, with_written_channels};
use crate::cli::world::World;
use crate::lock::{self, Inputs, Lock, Locks, Pinned, Wanted};
use crate::model::Platform;
use crate::spec::Spec;
use crate::util::{Digest, Result};

/// What is asked of the lock of one platform.
pub(super) struct Asked {
    /// Where the lock lies.
    pub path: PathBuf,
    /// The absolute path of its directory.
    pub lock_folder: PathBuf,
    /// The lock that is there.
    pub old: Option<Lock>,
    /// What a new lock would be made from.
    pub inputs: Inputs,
    /// What the file of another tool pins.
    pub pinned: Option<Pinned>,
    texts: Vec<String>,
    pip: Vec<String>,
}

impl Asked {
    /// Compares the lock of a platform with what the user names, as far as no network is needed.
    ///
    /// # Errors
    /// A lock that is missing, edited or names another base, when none may be made.
    pub fn of(
        options: &EnvironmentOptions,
        platform: &Platform,
        spec: &Spec,
        locks: &Locks,
        world: &World,
    ) -> Result<Self> {
        let path = path(options, spec);
        let lock_folder = std::path::absolute(folder(&path))?;
        let old = locks.get(platform).cloned().map(|lock| with_written_channels(lock, &lock_folder));
        check_usable(options, platform, &path, old.as_ref(), locks)?;
        let mut inputs = inputs(options, platform, spec, &lock_folder, world)?;
        let pinned = spec.pins.as_ref().filter(|_| options.mode != LockMode::Frozen).map(|pins| pins.of(platform));
        let pinned = pinned.transpose()?;
        inputs.pins = pinned.as_ref().map(Pinned::digest).transpose()?;
        let pip = match (options.mode == LockMode::Frozen, &old) {
            (true, Some(lock)) => lock.pip.clone(),
            _ => pip::lines(spec, pinned.as_ref())?,
        };
        let asked = Self { path, lock_folder, old, inputs, pinned, texts: texts(spec), pip };
        if let Some(lock) = &asked.old {
            let changes = lock::changes(lock, asked.wanted(spec, lock.base.digest));
            check_named(&asked.path, lock, options, &changes)?;
        }
        Ok(asked)
    }

    /// What a lock on a base must have been made from to be current.
    pub fn wanted<'a>(&'a self, spec: &'a Spec, base: Digest) -> Wanted<'a> {
        Wanted {
            specs: &self.texts,
            pip: &self.pip,
            variables: &spec.variables,
            pinned: self.pinned.as_ref(),
            inputs: &self.inputs,
            base,
        }
    }
}

/// Refuses a lock that is missing or edited when none may be made.
fn check_usable(
    options: &EnvironmentOptions,
    platform: &Platform,
    path: &Path,
    old: Option<&Lock>,
    locks: &Locks,
) -> Result<()> {
    match old {
        _ if options.mode.writes() => Ok(()),
        None => Err(missing(path, platform, locks)),
        Some(lock) if !lock.edited.is_empty() => Err(edited(path, lock)),
        Some(_) => Ok(()),
    }
}
