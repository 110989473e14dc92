//! Whether the wheels of a lock fit its target.

use pep440_rs::{Version, VersionSpecifiers};
use rattler_conda_types::PackageRecord;

use super::{Lock, LockedWheel, NO_CPYTHON, is_free_threaded};
use crate::model::{Flavour, TargetPython, WheelName, check_fit};
use crate::util::{Error, Result};

/// The Python that a `python` package is to wheels; nothing when its version is none.
pub fn target_python(python: &PackageRecord) -> Option<TargetPython> {
    let version = python.version.version().as_major_minor()?;
    let build = python.build.to_string();
    let flavour = match NO_CPYTHON.iter().any(|other| build.contains(other)) {
        true => Flavour::Other,
        false if is_free_threaded(python) => Flavour::FreeThreaded,
        false => Flavour::CPython,
    };
    Some(TargetPython { version, flavour })
}

impl Lock {
    /// The target's glibc, major and minor version, as the lock has it.
    pub fn glibc(&self) -> Option<(u64, u64)> {
        let glibc = self.virtual_packages.iter().find(|package| package.name.as_normalized() == "__glibc")?;
        glibc.version.as_major_minor()
    }
}

/// Refuses a lock with a wheel that its Python and platform cannot use: by its tags, and by `Requires-Python` of its
/// metadata, which pip and uv ask of an index only.
///
/// # Errors
/// They name the wheel, what it is for, and the target.
pub fn check_wheels(lock: &Lock) -> Result<()> {
    if lock.wheels.is_empty() {
        return Ok(());
    }
    let record = lock.package("python").map(|python| &python.record.package_record);
    let python = record.and_then(|record| Some((target_python(record)?, record.version.to_string())));
    let (python, version) = python.ok_or_else(|| {
        Error::user(format!("`{}` needs Python, which the environment does not have", lock.wheels[0].name))
            .hint("add `python` to the dependencies")
    })?;
    for wheel in &lock.wheels {
        let name = WheelName::parse(&wheel.file_name)
            .ok_or_else(|| Error::user(format!("`{}` is no name of a wheel", wheel.file_name)))?;
        check_fit(&wheel.file_name, &name, python, lock.glibc(), lock.platform.subdir)?;
        check_requires_python(wheel, &version)?;
    }
    Ok(())
}

/// `Requires-Python` (core metadata; PEP 440 specifiers) against the version of the target's Python.
fn check_requires_python(wheel: &LockedWheel, version: &str) -> Result<()> {
    let Some(wanted) = &wheel.requires_python else { return Ok(()) };
    // What installers cannot read they do not enforce: old metadata has such texts.
    let Ok(specifiers) = wanted.parse::<VersionSpecifiers>() else { return Ok(()) };
    let python: Version = version.parse().map_err(|error| {
        Error::user(format!("Python {version} is none that wheels can be for")).caused_by(std::io::Error::other(error))
    })?;
    // Like pip and uv: a pre-release of Python is meant to be used as the release, which PEP 440 alone would deny.
    if specifiers.contains(&python.only_release()) {
        return Ok(());
    }
    Err(Error::user(format!(
        "`{}` needs Python {wanted} (`Requires-Python` of its metadata), and the environment has Python {version}",
        wheel.file_name
    ))
    .hint(format!("ask for another version of `{}`, or of `python`", wheel.name)))
}
