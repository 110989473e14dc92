//! `pylock.toml` (PEP 751): what uv answers, and how it is told what an old lock has.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};
use url::Url;

use crate::lock::{LockedWheel, WheelSource};
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
        let url = self.url(folder)?;
        let last = url.path_segments().and_then(|mut segments| segments.next_back()).unwrap_or_default();
        Ok(percent_decode_str(last).decode_utf8_lossy().into_owned())
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
}

#[derive(Serialize)]
struct OldFile {
    url: String,
    hashes: BTreeMap<&'static str, String>,
}

/// The wheels of an index that an old lock has, as a pylock.toml: uv prefers them. Direct references are pinned by
/// the requirements.
///
/// # Errors
/// Never for real wheels.
pub(super) fn render<'a>(wheels: impl IntoIterator<Item = &'a LockedWheel>) -> Result<String> {
    let file = |url: &Url, sha256: Digest| OldFile {
        url: redact::canonical(url).to_string(),
        hashes: [("sha256", sha256.hex())].into(),
    };
    let package = |wheel: &'a LockedWheel| {
        let (wheels, sdist) = match &wheel.source {
            WheelSource::Wheel { url } => (vec![file(url, wheel.sha256)], None),
            WheelSource::Sdist { url, sha256 } => (Vec::new(), Some(file(url, *sha256))),
            WheelSource::Git { .. } | WheelSource::Folder { .. } => return None,
        };
        Some(OldPackage { name: &wheel.name, version: &wheel.version, wheels, sdist })
    };
    let packages = wheels.into_iter().filter_map(package).collect();
    let old = Old { lock_version: "1.0", created_by: "condaimg", packages };
    toml::to_string(&old).map_err(|error| Error::bug("a pylock.toml cannot be written").caused_by(error))
}
