//! How a lock keeps a CPython that makes byte code for a platform on which the environment's own does not run: only
//! what fetching and unpacking it needs, since nothing of it is in the image.

use std::path::Path;

use rattler_conda_types::package::DistArchiveIdentifier;
use rattler_conda_types::{PackageName, PackageRecord, RepoDataRecord, Subdir};
use serde::{Deserialize, Serialize};
use url::Url;

use super::{LockedPackage, PackageFacts, local};
use crate::util::{Digest, Error, Result, redact};

/// One archive of an interpreter.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Entry {
    /// Its URL, or where it lies beside or below the lock.
    conda: String,
    sha256: Digest,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(default, skip_serializing_if = "is_default")]
    facts: PackageFacts,
}

fn is_default(facts: &PackageFacts) -> bool {
    *facts == PackageFacts::default()
}

impl Entry {
    pub(super) fn new(package: &LockedPackage, folder: Option<&Path>) -> Result<Self> {
        let url = redact::canonical(&package.record.url);
        Ok(Self {
            conda: folder.and_then(|folder| local::url_text(&url, folder)).unwrap_or_else(|| url.to_string()),
            sha256: package.sha256()?,
            size: package.record.package_record.size,
            // What unpacking leaves out, and nothing of what concerns images.
            facts: PackageFacts {
                clobbered: package.facts.clobbered.clone(),
                stale: package.facts.stale.clone(),
                ..PackageFacts::default()
            },
        })
    }

    pub(super) fn into_package(self, builder: Subdir, folder: &Path) -> Result<LockedPackage> {
        let wrong = || Error::user(format!("`{}` is no archive of a package", self.conda));
        let url = local::url(&self.conda, folder).or_else(|| Url::parse(&self.conda).ok()).ok_or_else(wrong)?;
        let identifier = DistArchiveIdentifier::try_from_url(&url).ok_or_else(wrong)?;
        let named = &identifier.identifier;
        let name: PackageName = named.name.parse().map_err(|_| wrong())?;
        let version: rattler_conda_types::VersionWithSource = named.version.parse().map_err(|_| wrong())?;
        let build = named.build_string.parse().map_err(|_| wrong())?;
        let mut record = PackageRecord::new(name, version, build);
        record.subdir = builder.to_string();
        record.sha256 = Some((*self.sha256.as_bytes()).into());
        record.size = self.size;
        let record = RepoDataRecord { package_record: record, identifier, url, channel: None };
        Ok(LockedPackage { record, facts: self.facts })
    }
}
