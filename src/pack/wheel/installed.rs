//! What wheels put into the prefix, for comparing it with what else is there.

use rattler::install::PythonInfo;

use super::{WheelFile, WheelLayout, WheelZip, need_python, sources};
use crate::lock::LockedWheel;
use crate::util::{Digest, Result};

/// What a wheel of a lock puts into the prefix, its byte code included: paths, with what is there, if that can be
/// told without unpacking it.
///
/// # Errors
/// Damaged and hostile wheels.
pub fn installed_files(
    locked: &LockedWheel,
    file: &WheelFile,
    python: Option<&PythonInfo>,
) -> Result<Vec<(String, Option<Digest>)>> {
    let python = need_python(python, &locked.name)?;
    let layout = WheelLayout::read(&mut WheelZip::open(file)?, locked, python)?;
    let content = |path: &str| layout.known_content(path).map(|(digest, _)| digest);
    let files = layout.targets().map(|path| (path.to_owned(), content(path)));
    let made = sources(&layout, python).into_iter().filter(|_| locked.facts.bytecode);
    let files = files.chain(made.map(|source| (source.pyc, None)));
    Ok(files.filter(|(path, _)| !locked.facts.leaves_out(path)).collect())
}
