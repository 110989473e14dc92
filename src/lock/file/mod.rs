//! `condaimg.lock`: a valid pixi.lock (written and read by `rattler_lock`) with one more top-level key,
//! `condaimg:`, for what that format lacks.

mod extension;
mod read;
mod render;
#[cfg(test)]
mod tests;

use std::path::Path;

use fs_err as fs;
use rattler_lock::LockFile;

use super::Locks;
use super::foreign::archive_url::plain_within;
use crate::model::{LAYOUT_VERSION, Parameters};
use crate::util::error::ResultExt as _;
use crate::util::{Error, Limit, Result, files, yaml};
use extension::ExtensionDocument;
pub use render::render;
pub(super) use render::{render_for_image, render_pixi};

/// The version of the `condaimg:` key.
const VERSION: u32 = 1;
const ENVIRONMENT: &str = "default";

/// Writes a lock; an equal file is left alone.
///
/// # Errors
/// Those of the file system.
pub fn write(path: &Path, text: &str) -> Result<()> {
    files::write_atomic(path, text.as_bytes())
}

/// Reads the locks of a file; nothing when there is no such file.
///
/// # Errors
/// A file that is no lock of condaimg, or of a newer version.
pub fn read(path: &Path) -> Result<Option<Locks>> {
    if matches!(fs::metadata(path), Err(error) if error.kind() == std::io::ErrorKind::NotFound) {
        return Ok(None);
    }
    let text = String::from_utf8(files::read_limited(path, Limit::LockFile)?).map_err(|_| {
        Error::user(format!("the lock `{}` cannot be used: it is not UTF-8", path.display()))
            .hint("remove it, and a new one is made")
    })?;
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let folder = std::path::absolute(folder)?;
    parse(&text, &folder)
        .context(|| format!("the lock `{}` cannot be used", path.display()))
        .map_err(|error| error.hint("remove it, and a new one is made"))
        .map(Some)
}

/// Reads the text of a file of locks. `folder` is what its relative paths are relative to.
///
/// # Errors
/// What is wrong with it.
pub fn parse(text: &str, folder: &Path) -> Result<Locks> {
    yaml::check(text)?;
    let document: ExtensionDocument =
        serde_yaml::from_str(text).map_err(|error| Error::user(error.to_string()).hint("it is no lock of condaimg"))?;
    let mut extension = document.condaimg;
    if extension.version > VERSION || extension.layout_version > LAYOUT_VERSION {
        return Err(Error::user(format!(
            "a newer condaimg wrote it (version {}, layout {}); this one reads up to version {VERSION}, layout {LAYOUT_VERSION}",
            extension.version, extension.layout_version
        ))
        .hint("install a newer condaimg"));
    }
    let pixi = LockFile::from_str_with_base_directory(&plain_within(text), Some(folder))
        .map_err(|error| Error::user("its packages cannot be read").caused_by(error))?;
    let platforms = std::mem::take(&mut extension.platforms);
    platforms.into_iter().map(|(name, platform)| read::lock_of(&name, platform, &extension, &pixi, folder)).collect()
}

/// The parameters of the build whose image a lock was attached to; nothing in a lock that lies beside an environment.
///
/// # Errors
/// A text that is no lock of condaimg.
pub fn recorded_parameters(text: &str) -> Result<Option<Parameters>> {
    yaml::check(text)?;
    let document: ExtensionDocument =
        serde_yaml::from_str(text).map_err(|error| Error::user(error.to_string()).hint("it is no lock of condaimg"))?;
    Ok(document.condaimg.parameters)
}
