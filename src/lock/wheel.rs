//! Packages of PyPI in a lock: wheels, and what wheels are built from.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::json;
use url::Url;

use super::normalise::canonical_location;
use crate::util::{Digest, Result, redact};

/// A package of PyPI, pinned to one wheel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockedWheel {
    /// The normalised name (PEP 503).
    pub name: String,
    /// The version, as the file name has it (PEP 440).
    pub version: String,
    /// The wheel's file name (binary distribution format, PEP 427).
    pub file_name: String,
    /// Digest of the wheel; of what is built, of the wheel that was built.
    pub sha256: Digest,
    /// Size of the wheel in bytes; 0 when nobody says.
    pub size: u64,
    /// Where it comes from.
    pub source: WheelSource,
    /// The index that lists it, without credentials; nothing for a direct reference (PEP 508, `name @ URL`), a folder
    /// or a file.
    pub index: Option<Url>,
    /// `Requires-Dist` of its metadata (PEP 508).
    pub requires_dist: Vec<String>,
    /// `Requires-Python` of its metadata (PEP 440).
    pub requires_python: Option<String>,
    /// What was read from the wheel when locking.
    pub facts: WheelFacts,
}

/// Where a wheel comes from. URLs hold no credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WheelSource {
    /// The wheel itself lies at this `http(s)` or `file` URL.
    Wheel {
        /// Its URL.
        url: Url,
    },
    /// It is built from a source distribution.
    Sdist {
        /// The URL of the sdist.
        url: Url,
        /// The digest of the sdist.
        sha256: Digest,
    },
    /// It is built from a commit of a git repository.
    Git {
        /// The repository, without `git+`.
        url: Url,
        /// The full hash of the commit.
        commit: String,
        /// The folder of the project in the repository.
        subdirectory: Option<String>,
    },
    /// It is built from a folder of this machine.
    Folder {
        /// The folder's `file` URL.
        url: Url,
        /// Digest of what is in the folder.
        digest: Digest,
    },
}

impl WheelSource {
    /// Where it is.
    pub fn url(&self) -> &Url {
        match self {
            Self::Wheel { url } | Self::Sdist { url, .. } | Self::Git { url, .. } | Self::Folder { url, .. } => url,
        }
    }

    /// Whether the wheel has to be built.
    pub fn is_built(&self) -> bool {
        !matches!(self, Self::Wheel { .. })
    }
}

/// What a lock keeps of a wheel beside its hash, so that plan and keys need no wheel.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct WheelFacts {
    /// Paths in the prefix that another package brings too, and that package, which wins.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub clobbered: BTreeMap<String, String>,
    /// Paths in the prefix that another wheel brings too, with the same content, and has in the image.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub shared: BTreeSet<String>,
    /// Whether byte code is made for it: it has modules for which it ships none.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub bytecode: bool,
}

impl WheelFacts {
    /// Whether a path of the wheel stays out of its segments.
    pub fn leaves_out(&self, path: &str) -> bool {
        self.clobbered.contains_key(path) || self.shared.contains(path)
    }

    /// As [`super::PackageFacts::makes`].
    pub fn makes(&self, module: &str, pyc: &str) -> bool {
        !self.leaves_out(module) && !self.leaves_out(pyc)
    }

    /// All paths that stay out.
    pub fn left_out(&self) -> BTreeSet<&str> {
        self.clobbered.keys().chain(&self.shared).map(String::as_str).collect()
    }
}

fn archive_info(url: &Url, sha256: Digest) -> Option<(&Url, serde_json::Value)> {
    let hashes = json!({"sha256": sha256.hex()});
    let value = json!({"archive_info": {"hashes": hashes}, "url": redact::canonical(url)});
    Some((url, value))
}

impl LockedWheel {
    /// `name-version`, for people.
    pub fn full_name(&self) -> String {
        format!("{}-{}", self.name, self.version)
    }

    /// Whether it is for every platform, as its file name says (PEP 425).
    pub fn is_pure(&self) -> bool {
        self.file_name.ends_with("-any.whl")
    }

    /// The content of `direct_url.json` (PEP 610), which tells pip where a package came from that no index lists.
    /// Nothing for packages of an index, and for what lies on the builder, which is nobody's business.
    ///
    /// # Errors
    /// Never for a real wheel.
    pub fn direct_url(&self) -> Result<Option<String>> {
        if self.index.is_some() {
            return Ok(None);
        }
        let value = match &self.source {
            WheelSource::Wheel { url } => archive_info(url, self.sha256),
            WheelSource::Sdist { url, sha256 } => archive_info(url, *sha256),
            WheelSource::Git { url, commit, subdirectory } => {
                let mut value = json!({
                    "url": redact::canonical(url),
                    "vcs_info": {"commit_id": commit, "vcs": "git"},
                });
                if let Some(subdirectory) = subdirectory {
                    value["subdirectory"] = json!(subdirectory);
                }
                Some((url, value))
            }
            WheelSource::Folder { .. } => None,
        };
        let Some((_, value)) = value.filter(|(url, _)| url.scheme() != "file") else { return Ok(None) };
        let text = String::from_utf8(crate::util::json::canonical(&value)?);
        text.map(Some).map_err(|error| crate::util::Error::bug("canonical JSON is not UTF-8").caused_by(error))
    }

    /// Takes out what is only of this machine: folders and files are known by their last path component.
    pub(super) fn normalise(&mut self) {
        match &mut self.source {
            WheelSource::Wheel { url } | WheelSource::Sdist { url, .. } | WheelSource::Git { url, .. } => {
                *url = canonical_location(url);
            }
            WheelSource::Folder { url, .. } => *url = canonical_location(url),
        }
        self.index = self.index.as_ref().map(canonical_location);
    }
}
