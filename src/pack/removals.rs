//! The layer that takes byte code of the base away, which would be stale beside the modules of new packages. It lies
//! below the layers of these: what they bring at the same paths stays, whatever that is.

use std::collections::BTreeSet;

use super::layout::ancestors;
use super::metadata::DIRECTORY_MTIME;
use super::segment::Target;
use crate::model::FolderFacts;
use crate::util::Result;
use crate::util::tarball::{self, TarKind};

/// Writes the uncompressed tar of whiteouts (image-spec, layer.md) for paths in the prefix.
///
/// # Errors
/// Never for real paths.
pub fn tar(removed: &BTreeSet<String>, target: &Target) -> Result<Vec<u8>> {
    let paths: BTreeSet<String> = removed.iter().map(|path| target.path(path)).collect();
    let mut out = Vec::new();
    for directory in paths.iter().flat_map(|path| ancestors(path)).collect::<BTreeSet<_>>() {
        let FolderFacts { mode, owner } = target.directory(directory);
        tarball::owned_header(&mut out, directory, TarKind::Directory, (mode, owner), DIRECTORY_MTIME)?;
    }
    for path in &paths {
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        let whiteout = format!("{folder}/.wh.{name}").trim_start_matches('/').to_owned();
        tarball::file(&mut out, whiteout, b"", target.modes.file(false), DIRECTORY_MTIME)?;
    }
    tarball::end(&mut out)?;
    Ok(out)
}
