//! The facts of wheels: byte code, and who keeps a path that a wheel and something else bring.

use std::collections::{BTreeMap, BTreeSet};

use rattler::install::PythonInfo;

use super::{WheelFile, WheelLayout, WheelZip, need_python, sources};
use crate::lock::{LockedPackage, LockedWheel, WheelFacts};
use crate::pack::collisions::{self, Allowed, LaidWheel};
use crate::pack::facts::{ArchiveFacts, parallel};
use crate::util::{Error, Result};

/// What the wheels of an environment are read for.
pub struct Joining<'a> {
    /// The environment's Python.
    pub python: Option<&'a PythonInfo>,
    /// Paths in the prefix that wheels may take from conda packages.
    pub allowed: &'a Allowed,
    /// Threads.
    pub jobs: usize,
}

/// Reads wheels, which are sorted by name, and gives them their facts, and the packages what they lose to them.
/// `archives` go with `packages`, `files` with `wheels`.
///
/// # Errors
/// Damaged and hostile wheels; files that a wheel and a conda package both bring.
pub fn join(
    packages: &mut [LockedPackage],
    archives: &[ArchiveFacts],
    wheels: Vec<LockedWheel>,
    files: &[WheelFile],
    joining: &Joining<'_>,
) -> Result<Vec<LockedWheel>> {
    if packages.len() != archives.len() || wheels.len() != files.len() {
        return Err(Error::bug("packages or wheels without their files"));
    }
    let pairs: Vec<(LockedWheel, &WheelFile)> = wheels.into_iter().zip(files).collect();
    let mut laid = parallel(&pairs, joining.jobs, |(locked, file)| read(locked, file, joining.python))?;
    laid.sort_by(|a, b| a.locked.name.cmp(&b.locked.name));
    collisions::among_wheels(&mut laid)?;
    let names: Vec<String> = packages.iter().map(|package| package.name().to_owned()).collect();
    let archives: BTreeMap<&str, &ArchiveFacts> = names.iter().map(String::as_str).zip(archives).collect();
    collisions::with_packages(packages, &archives, &laid, joining.allowed)?;
    Ok(laid.into_iter().map(|wheel| wheel.locked).collect())
}

fn read(locked: &LockedWheel, file: &WheelFile, python: Option<&PythonInfo>) -> Result<LaidWheel> {
    let python = need_python(python, &locked.name)?;
    let layout = WheelLayout::read(&mut WheelZip::open(file)?, locked, python)?;
    let bytecode: BTreeSet<String> = sources(&layout, python).into_iter().map(|source| source.pyc).collect();
    let facts = WheelFacts { bytecode: !bytecode.is_empty(), ..WheelFacts::default() };
    Ok(LaidWheel { locked: LockedWheel { facts, ..locked.clone() }, layout, bytecode })
}
