//! The facts of wheels: byte code, and who keeps a path that a wheel and something else bring.

use std::collections::BTreeMap;

use rattler::install::PythonInfo;
use serde::{Deserialize, Serialize};

use super::{WheelFile, WheelLayout, WheelZip, need_python, sources};
use crate::lock::{LockedPackage, LockedWheel, WheelFacts};
use crate::model::LAYOUT_VERSION;
use crate::pack::collisions::{self, Allowed, LaidWheel};
use crate::pack::facts::{ArchiveFacts, FACTS_VERSION, Made, key, python_key};
use crate::util::{Digest, Error, Result, parallel};

/// What a wheel by itself tells an environment with a certain Python.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WheelReading {
    /// The paths that it puts into the prefix; of those whose content in the image is known, its digest and size.
    targets: BTreeMap<String, Option<(Digest, u64)>>,
    /// The byte code that is made for it.
    made: Vec<Made>,
}

/// What [`read`] tells of a wheel depends on.
///
/// # Errors
/// Never for a real wheel.
pub fn reading_key(wheel: &LockedWheel, python: Option<&PythonInfo>) -> Result<Digest> {
    // Reading a wheel checks that it is this package.
    let name = (&wheel.name, &wheel.version, &wheel.file_name);
    key(&("wheel", FACTS_VERSION, LAYOUT_VERSION, wheel.sha256, name, wheel.direct_url()?, python_key(python)))
}

/// Reads wheels, with `jobs` threads; in their order.
///
/// # Errors
/// Damaged and hostile wheels.
pub fn read(
    wheels: &[(LockedWheel, WheelFile)],
    python: Option<&PythonInfo>,
    jobs: usize,
) -> Result<Vec<WheelReading>> {
    parallel(wheels, jobs, |(locked, file)| {
        let python = need_python(python, &locked.name)?;
        let layout = WheelLayout::read(&mut WheelZip::open(file)?, locked, python)?;
        Ok(WheelReading {
            targets: layout.targets().map(|path| (path.to_owned(), layout.known_content(path))).collect(),
            made: sources(&layout, python).into_iter().map(Made::from).collect(),
        })
    })
}

impl WheelReading {
    /// All paths that the wheel puts into the prefix.
    pub fn targets(&self) -> impl Iterator<Item = &str> {
        self.targets.keys().map(String::as_str)
    }

    /// As [`WheelLayout::known_content`].
    pub fn known_content(&self, path: &str) -> Option<(Digest, u64)> {
        *self.targets.get(path)?
    }

    /// The byte code that is made for it.
    pub fn made(&self) -> &[Made] {
        &self.made
    }
}

/// Gives wheels their facts, and the packages what they lose to them. `archives` go with `packages`, `readings` with
/// `wheels`; `allowed` are paths in the prefix that wheels may take from conda packages.
///
/// # Errors
/// Files that a wheel and a conda package both bring.
pub fn join(
    packages: &mut [LockedPackage],
    archives: &[ArchiveFacts],
    wheels: Vec<LockedWheel>,
    readings: Vec<WheelReading>,
    allowed: &Allowed,
) -> Result<Vec<LockedWheel>> {
    if packages.len() != archives.len() || wheels.len() != readings.len() {
        return Err(Error::bug("packages or wheels without what was read of them"));
    }
    let laid = wheels.into_iter().zip(readings).map(|(locked, reading)| {
        let facts = WheelFacts { bytecode: !reading.made.is_empty(), ..WheelFacts::default() };
        LaidWheel { locked: LockedWheel { facts, ..locked }, reading }
    });
    let mut laid: Vec<LaidWheel> = laid.collect();
    laid.sort_by(|a, b| a.locked.name.cmp(&b.locked.name));
    collisions::among_wheels(&mut laid)?;
    let names: Vec<String> = packages.iter().map(|package| package.name().to_owned()).collect();
    let archives: BTreeMap<&str, &ArchiveFacts> = names.iter().map(String::as_str).zip(archives).collect();
    collisions::with_packages(packages, &archives, &mut laid, allowed)?;
    Ok(laid.into_iter().map(|wheel| wheel.locked).collect())
}
