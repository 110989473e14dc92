//! Locks in the forms of other tools.

use rattler_conda_types::PackageRecord;

use super::{Lock, Locks, file};
use crate::util::{Result, redact};

/// A pixi.lock with the packages of all platforms, without what only condaimg knows.
///
/// # Errors
/// When `rattler_lock` cannot render it.
pub fn export_pixi(locks: &Locks) -> Result<String> {
    file::render_pixi(&locks.iter().collect::<Vec<_>>())
}

/// An explicit specification, as `conda create --file` takes it: one URL a line, each after those that it needs, with
/// the sha256 of the archive behind `#` (conda's own pattern for these lines takes that as well as an md5).
///
/// # Errors
/// When the lock gives no hash of a package.
pub fn export_explicit(lock: &Lock) -> Result<String> {
    let mut text = format!(
        "# Packages of {}, from a lock of condaimg\n# platform: {}\n@EXPLICIT\n",
        lock.specs.join(", ").replace('\n', " "),
        lock.platform.subdir
    );
    let records: Vec<&PackageRecord> = lock.packages.iter().map(|package| &package.record.package_record).collect();
    for record in PackageRecord::sort_topologically(records) {
        let Some(package) = lock.package(record.name.as_normalized()) else { continue };
        let url = redact::canonical(&package.record.url);
        text.push_str(&format!("{url}#{}\n", package.sha256()?.hex()));
    }
    Ok(text)
}
