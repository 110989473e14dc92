//! The Python of an environment, as its record describes it.

use rattler::install::PythonInfo;
use rattler_conda_types::{PackageRecord, Subdir};

use crate::util::paths::check_target;
use crate::util::{Error, Result};

/// Where a Python has its files in the prefix.
///
/// # Errors
/// A version that is none; a `python_site_packages_path` out of the prefix, or among conda's records.
pub fn python_info(record: &PackageRecord, platform: Subdir) -> Result<PythonInfo> {
    let name = || format!("{}-{}-{}", record.name.as_normalized(), record.version, record.build);
    let info = PythonInfo::from_python_record(record, platform)
        .map_err(|error| Error::user(format!("`{}` is no Python that can be used", name())).caused_by(error))?;
    let place = info.site_packages_path.to_str().unwrap_or("\0");
    let wrong = match check_target(place) {
        Err(what) => Some(what),
        Ok(()) if place == "conda-meta" || place.starts_with("conda-meta/") => {
            Some("it is among conda's records".into())
        }
        Ok(()) => None,
    };
    match wrong {
        Some(what) => Err(Error::user(format!(
            "invalid `python_site_packages_path` `{}` of `{}`: expected a path in the prefix; {what}",
            place.escape_debug(),
            name()
        ))
        .hint("take another build of `python`, and tell the channel's owner")),
        None => Ok(info),
    }
}
