//! Whether the wheels of a lock fit its target.

use rattler_conda_types::PackageRecord;

use super::{Lock, NO_CPYTHON, is_free_threaded};
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

/// Refuses a lock with a wheel that its Python and platform cannot use.
///
/// # Errors
/// They name the wheel, its tags and the target.
pub fn check_wheels(lock: &Lock) -> Result<()> {
    if lock.wheels.is_empty() {
        return Ok(());
    }
    let python = lock.package("python").and_then(|python| target_python(&python.record.package_record));
    let python = python.ok_or_else(|| {
        Error::user(format!("`{}` needs Python, which the environment does not have", lock.wheels[0].name))
            .hint("add `python` to the dependencies")
    })?;
    for wheel in &lock.wheels {
        let name = WheelName::parse(&wheel.file_name)
            .ok_or_else(|| Error::user(format!("`{}` is no name of a wheel", wheel.file_name)))?;
        check_fit(&wheel.file_name, &name, python, lock.glibc(), lock.platform.subdir)?;
    }
    Ok(())
}
