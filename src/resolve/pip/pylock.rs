//! `pylock.toml` (PEP 751): what uv answers, and how it is told what an old lock has.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use url::Url;

use crate::lock::{LockedWheel, WheelSource, file_name};
use crate::spec::pip::{PipGit, git_of_metadata};
use crate::util::{Digest, Error, Result, redact};

/// What is used of the whole file.
#[derive(Debug, Deserialize)]
pub(super) struct Pylock {
    #[serde(default)]
    pub(super) packages: Vec<Package>,
}

/// One package.
#[derive(Debug, Deserialize)]
pub(super) struct Package {
    pub(super) name: String,
    pub(super) version: Option<String>,
    pub(super) index: Option<Url>,
    #[serde(default)]
    pub(super) wheels: Vec<File>,
    pub(super) sdist: Option<File>,
    pub(super) archive: Option<File>,
    pub(super) directory: Option<Directory>,
    pub(super) vcs: Option<Vcs>,
}

/// A wheel or a source archive.
#[derive(Debug, Deserialize)]
pub(super) struct File {
    name: Option<String>,
    url: Option<Url>,
    path: Option<PathBuf>,
    pub(super) size: Option<u64>,
    #[serde(default)]
    hashes: BTreeMap<String, String>,
}

/// A folder.
#[derive(Debug, Deserialize)]
pub(super) struct Directory {
    pub(super) path: PathBuf,
}

/// A commit.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Vcs {
    pub(super) url: Option<Url>,
    pub(super) commit_id: String,
    pub(super) subdirectory: Option<String>,
}

/// Reads what uv wrote.
///
/// # Errors
/// When it is not what the specification says.
pub(super) fn parse(text: &str) -> Result<Pylock> {
    toml::from_str(text).map_err(|error| {
        Error::user("uv's answer cannot be read").caused_by(error).hint("is this uv older than 0.7? Get a newer one")
    })
}

impl File {
    /// Where it lies; paths are relative to `folder`.
    pub(super) fn url(&self, folder: &Path) -> Result<Url> {
        match (&self.url, &self.path) {
            (Some(url), _) => Ok(url.clone()),
            (None, Some(path)) => super::file_url(&folder.join(path)),
            _ => Err(Error::user("uv names a file that has no place")),
        }
    }

    /// The file name.
    pub(super) fn name(&self, folder: &Path) -> Result<String> {
        if let Some(name) = &self.name {
            return Ok(name.clone());
        }
        Ok(file_name(&self.url(folder)?).unwrap_or_default())
    }

    /// Its sha256, if the index tells one.
    pub(super) fn sha256(&self) -> Option<Digest> {
        format!("sha256:{}", self.hashes.get("sha256")?).parse().ok()
    }
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Old<'a> {
    lock_version: &'static str,
    created_by: &'static str,
    packages: Vec<OldPackage<'a>>,
}

#[derive(Serialize)]
struct OldPackage<'a> {
    name: &'a str,
    version: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    wheels: Vec<OldFile>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sdist: Option<OldFile>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vcs: Option<OldVcs<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct OldVcs<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    url: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    requested_revision: Option<&'a str>,
    commit_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    subdirectory: Option<&'a str>,
}

#[derive(Serialize)]
struct OldFile {
    url: String,
    hashes: BTreeMap<&'static str, String>,
}

/// The wheels of an old lock as a pylock.toml: uv prefers those of an index, and takes a repository that another
/// package's metadata names at the commit that it had. The user's own direct references are pinned by the requirements.
///
/// # Errors
/// Never for real wheels.
pub(super) fn render(wheels: &[LockedWheel]) -> Result<String> {
    let file = |url: &Url, sha256: Digest| OldFile {
        url: redact::canonical(url).to_string(),
        hashes: [("sha256", sha256.hex())].into(),
    };
    let named: Vec<(String, PipGit)> = wheels
        .iter()
        .flat_map(|wheel| &wheel.requires_dist)
        .filter_map(|requirement| repository(requirement))
        .collect();
    let package = |wheel| {
        let LockedWheel { name, version, source, sha256, index, .. }: &LockedWheel = wheel;
        let mut package = OldPackage { name, version, wheels: Vec::new(), sdist: None, vcs: None };
        match source {
            WheelSource::Wheel { url } if index.is_some() => package.wheels.push(file(url, *sha256)),
            WheelSource::Sdist { url, sha256 } if index.is_some() => package.sdist = Some(file(url, *sha256)),
            WheelSource::Git { url, commit, subdirectory } => {
                let same = |(of, at): &&(String, PipGit)| {
                    of == name && redact::canonical(&at.url) == *url && at.subdirectory == *subdirectory
                };
                let (_, at) = named.iter().find(same)?;
                package.vcs = Some(OldVcs {
                    kind: "git",
                    url: at.url.to_string(),
                    requested_revision: at.reference.as_deref(),
                    commit_id: commit,
                    subdirectory: subdirectory.as_deref(),
                });
            }
            _ => return None,
        }
        Some(package)
    };
    let packages = wheels.iter().filter_map(package).collect();
    let old = Old { lock_version: "1.0", created_by: "condaimg", packages };
    toml::to_string(&old).map_err(|error| Error::bug("a pylock.toml cannot be written").caused_by(error))
}

fn repository(requirement: &str) -> Option<(String, PipGit)> {
    git_of_metadata(requirement).map(|(name, at)| (name.to_string(), at))
}
