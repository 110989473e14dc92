//! The `conda-meta` record of a package: what conda, scanners and SBOM tools read. Made of the archive's own
//! metadata and the lock's hashes and URL; nothing of the rest of the environment or of this machine.

use std::path::PathBuf;

use rattler_conda_types::package::{FileMode, PathType, PathsEntry};
use rattler_conda_types::prefix_record::{PathType as InstalledType, PathsEntry as InstalledPath};
use rattler_conda_types::{PackageRecord, PrefixRecord, RepoDataRecord};
use rattler_digest::Sha256Hash;

use super::layout::{LaidFile, PackageLayout};
use crate::lock::{LockedPackage, canonical_channel, canonical_url};
use crate::util::{Digest, Error, Result};

/// What was written for one file of the package.
#[derive(Debug, Clone, Copy)]
pub struct WrittenFile {
    /// Digest and size of the content as it is in the archive; none of links.
    pub source: Option<(Digest, u64)>,
    /// Digest of the content as it is in the image; none of links.
    pub sha256: Option<Digest>,
    /// Size in the image.
    pub size: u64,
    /// How the placeholder was replaced, if it was.
    pub patched: Option<FileMode>,
}

impl WrittenFile {
    /// Whether a package's `paths.json` states another size or sha256 than the file has in its archive. What it does not
    /// state is not compared.
    pub fn differs_from(&self, entry: &PathsEntry) -> bool {
        self.source.is_some_and(|(sha256, size)| {
            entry.sha256.is_some_and(|stated| stated[..] != sha256.as_bytes()[..])
                || entry.size_in_bytes.is_some_and(|stated| stated != size)
        })
    }
}

/// Collects the paths of one package's record.
#[derive(Debug, Default)]
pub struct RecordBuilder {
    paths: Vec<InstalledPath>,
}

impl RecordBuilder {
    /// A file or link of the archive that was written.
    pub fn file(&mut self, file: &LaidFile, written: &WrittenFile) {
        let entry = &file.entry;
        let in_prefix = written.sha256.map(|digest| Sha256Hash::from(*digest.as_bytes()));
        // What the archive has, whatever is stated.
        let stated = entry.sha256.map(|stated| match written.source {
            Some((sha256, _)) => Sha256Hash::from(*sha256.as_bytes()),
            None => stated,
        });
        let same = entry.path_type == PathType::SoftLink || in_prefix == stated;
        self.paths.push(InstalledPath {
            relative_path: PathBuf::from(&file.target),
            original_path: None,
            path_type: entry.path_type.into(),
            no_link: entry.no_link,
            sha256: stated,
            sha256_in_prefix: if same { None } else { in_prefix },
            size_in_bytes: Some(written.size),
            file_mode: written.patched,
            prefix_placeholder: entry.prefix_placeholder.as_ref().map(|placeholder| placeholder.placeholder.clone()),
        });
    }

    /// An empty directory.
    pub fn directory(&mut self, target: &str) {
        self.paths.push(InstalledPath {
            relative_path: PathBuf::from(target),
            original_path: None,
            path_type: InstalledType::Directory,
            no_link: false,
            sha256: None,
            sha256_in_prefix: None,
            size_in_bytes: None,
            file_mode: None,
            prefix_placeholder: None,
        });
    }

    /// The script of an entry point.
    pub fn entry_point(&mut self, target: &str, script: &str) {
        self.paths.push(InstalledPath {
            relative_path: PathBuf::from(target),
            original_path: None,
            path_type: InstalledType::UnixPythonEntryPoint,
            no_link: false,
            sha256: Some(Sha256Hash::from(*Digest::of(script).as_bytes())),
            sha256_in_prefix: None,
            size_in_bytes: Some(script.len() as u64),
            file_mode: None,
            prefix_placeholder: None,
        });
    }

    /// The record's file name in `conda-meta` and its JSON.
    ///
    /// # Errors
    /// When the archive's metadata contradicts itself.
    pub fn finish(mut self, package: &LockedPackage, layout: &PackageLayout) -> Result<(String, Vec<u8>)> {
        self.paths.sort_by(|a, b| a.relative_path.cmp(&b.relative_path));
        let record = PrefixRecord::from_repodata_record(repodata_record(package, layout)?, self.paths);
        let mut json = serde_json::to_vec_pretty(&record)
            .map_err(|error| Error::bug("a conda-meta record has no JSON form").caused_by(error))?;
        json.push(b'\n');
        Ok((record.file_name(), json))
    }
}

fn repodata_record(package: &LockedPackage, layout: &PackageLayout) -> Result<RepoDataRecord> {
    let locked = &package.record;
    let mut index = layout.index.clone();
    let hashes = &locked.package_record;
    // Old packages name platform and architecture instead, those for all platforms nothing: the channel knows.
    index.subdir.get_or_insert_with(|| hashes.subdir.clone());
    let package_record =
        PackageRecord::from_index_json(index, hashes.size, hashes.sha256, hashes.md5).map_err(|error| {
            Error::user(format!("the metadata of `{}` names no platform", package.full_name())).caused_by(error)
        })?;
    Ok(RepoDataRecord {
        package_record,
        identifier: locked.identifier.clone(),
        url: canonical_url(&locked.url),
        channel: locked.channel.as_deref().map(canonical_channel),
    })
}
