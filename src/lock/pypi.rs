//! Wheels in the file of a lock: as PyPI packages of the pixi.lock, and beside them what that format lacks.

use std::collections::BTreeMap;
use std::path::Path;

use percent_encoding::percent_decode_str;
use rattler_lock::{PackageHashes, PypiDistributionData, PypiPackageData, UrlOrPath, Verbatim};
use serde::{Deserialize, Serialize};
use url::Url;

use super::{LockedWheel, WheelFacts, WheelSource, local};
use crate::model::git;
use crate::util::{Digest, Error, Result, redact};

/// What the pixi.lock does not say of a wheel.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Entry {
    #[serde(default, skip_serializing_if = "is_zero")]
    size: u64,
    /// A direct reference: no index lists it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    direct: bool,
    /// The wheel that was built from what the pixi.lock names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    built: Option<Built>,
    /// Digest of the content of the folder that it is built from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    folder: Option<Digest>,
    #[serde(default, skip_serializing_if = "is_default")]
    facts: WheelFacts,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Built {
    file: String,
    sha256: Digest,
}

fn is_zero(size: &u64) -> bool {
    *size == 0
}

fn is_default(facts: &WheelFacts) -> bool {
    *facts == WheelFacts::default()
}

impl Entry {
    pub(super) fn new(wheel: &LockedWheel) -> Self {
        Self {
            size: wheel.size,
            direct: wheel.index.is_none(),
            built: wheel.source.is_built().then(|| Built { file: wheel.file_name.clone(), sha256: wheel.sha256 }),
            folder: match wheel.source {
                WheelSource::Folder { digest, .. } => Some(digest),
                _ => None,
            },
            facts: wheel.facts.clone(),
        }
    }
}

/// The wheel as a PyPI package of a pixi.lock; with a folder, of one that lies there.
pub(super) fn package(wheel: &LockedWheel, folder: Option<&Path>) -> Result<PypiPackageData> {
    let bug = |what: &str| Error::bug(format!("`{}` cannot be written to the lock: {what}", wheel.full_name()));
    let (location, sha256) = match &wheel.source {
        WheelSource::Wheel { url } => (redact::canonical(url), Some(wheel.sha256)),
        WheelSource::Sdist { url, sha256 } => (redact::canonical(url), Some(*sha256)),
        WheelSource::Git { url, commit, subdirectory } => (git_location(url, commit, subdirectory.as_deref())?, None),
        WheelSource::Folder { url, .. } => (url.clone(), None),
    };
    let relative = folder.and_then(|folder| local::url_text(&location, folder));
    Ok(PypiDistributionData {
        name: wheel.name.parse().map_err(|_| bug("its name"))?,
        version: wheel.version.parse().map_err(|_| bug("its version"))?,
        location: Verbatim::new(match relative {
            Some(relative) => UrlOrPath::Path(relative.as_str().into()),
            None => UrlOrPath::from(location),
        }),
        index_url: wheel.index.as_ref().map(redact::canonical),
        hash: sha256.map(|digest| PackageHashes::Sha256((*digest.as_bytes()).into())),
        // Some of old packages are no PEP 508.
        requires_dist: wheel.requires_dist.iter().filter_map(|text| text.parse().ok()).collect(),
        requires_python: wheel.requires_python.as_deref().and_then(|text| text.parse().ok()),
    }
    .into())
}

/// `git+URL?subdirectory=FOLDER#COMMIT`, as pixi writes it.
fn git_location(url: &Url, commit: &str, subdirectory: Option<&str>) -> Result<Url> {
    let mut location = format!("git+{}", redact::canonical(url));
    if let Some(subdirectory) = subdirectory {
        location = format!("{location}?subdirectory={subdirectory}");
    }
    let location = format!("{location}#{commit}");
    location.parse().map_err(|error: url::ParseError| Error::bug(format!("`{location}` is no URL")).caused_by(error))
}

/// The wheels of one platform, sorted. `folder` is what relative paths are relative to.
pub(super) fn wheels<'a>(
    packages: impl Iterator<Item = &'a PypiPackageData>,
    mut entries: BTreeMap<String, Entry>,
    folder: &Path,
) -> Result<Vec<LockedWheel>> {
    let mut wheels = Vec::new();
    for package in packages {
        let name = package.name().to_string();
        let entry =
            entries.remove(&name).ok_or_else(|| Error::user(format!("it says nothing of the wheel of `{name}`")))?;
        let package = package
            .as_wheel()
            .ok_or_else(|| Error::user(format!("it does not say which version of `{name}` is locked")))?;
        wheels.push(wheel(package, entry, folder)?);
    }
    if let Some(name) = entries.into_keys().next() {
        return Err(Error::user(format!("it has no package for the wheel of `{name}`")));
    }
    wheels.sort_by(|a, b| a.name.cmp(&b.name));
    match wheels.windows(2).find(|pair| pair[0].name == pair[1].name) {
        Some(pair) => Err(Error::user(format!("it has the wheel of `{}` twice", pair[0].name))),
        None => Ok(wheels),
    }
}

fn wheel(package: &PypiDistributionData, entry: Entry, folder: &Path) -> Result<LockedWheel> {
    let name = package.name.to_string();
    let wrong = |what: &str| Error::user(format!("`{name}`: {what}"));
    let hash = package.hash.as_ref().and_then(|hash| hash.sha256()).map(|hash| Digest::from_bytes((*hash).into()));
    let hash = || hash.ok_or_else(|| wrong("it has no sha256"));
    let url = location(&package.location, folder).ok_or_else(|| wrong("its location is no URL and no path"))?;
    let source = match (entry.folder, &entry.built) {
        (Some(digest), Some(_)) => WheelSource::Folder { url, digest },
        (Some(_), None) => return Err(wrong("a folder without the wheel that was built from it")),
        (None, Some(_)) if url.scheme().starts_with("git+") => git_source(&url).map_err(|what| wrong(&what))?,
        (None, Some(_)) => WheelSource::Sdist { url, sha256: hash()? },
        (None, None) => WheelSource::Wheel { url },
    };
    let (file_name, sha256) = match (entry.built, &source) {
        (Some(built), _) => (built.file, built.sha256),
        (None, WheelSource::Wheel { url }) => {
            (wheel_name(url).ok_or_else(|| wrong("its URL names no wheel"))?, hash()?)
        }
        (None, _) => return Err(wrong("there is no wheel of it")),
    };
    Ok(LockedWheel {
        version: package.version.to_string(),
        file_name,
        sha256,
        size: entry.size,
        source,
        index: package.index_url.clone().filter(|_| !entry.direct),
        requires_dist: package.requires_dist.iter().map(ToString::to_string).collect(),
        requires_python: package.requires_python.as_ref().map(ToString::to_string),
        facts: entry.facts,
        name,
    })
}

/// Where a package lies; paths become `file` URLs.
fn location(location: &UrlOrPath, folder: &Path) -> Option<Url> {
    match location {
        UrlOrPath::Url(url) => Some(url.clone()),
        UrlOrPath::Path(path) => Url::from_file_path(folder.join(path.as_str())).ok(),
    }
}

/// The repository and the commit of a `git+` URL. A lock is data: all of it is checked here, before git sees it.
///
/// # Errors
/// What is wrong with it, as a sentence.
pub(super) fn git_source(location: &Url) -> Result<WheelSource, String> {
    let commit = location.fragment().filter(|commit| git::is_commit(commit));
    let commit = commit.ok_or("its git URL names no whole commit: expected 40 or 64 hexadecimal digits behind `#`")?;
    let subdirectory = location.query_pairs().find(|(key, _)| key == "subdirectory");
    let subdirectory = subdirectory.map(|(_, it)| git::subdirectory(&it)).transpose()?.flatten();
    let url = location.as_str().strip_prefix("git+").and_then(|text| text.parse::<Url>().ok());
    let mut url = url.ok_or("its git URL is no URL")?;
    url.set_fragment(None);
    url.set_query(None);
    git::check_repository(&url)?;
    Ok(WheelSource::Git { url, commit: commit.to_ascii_lowercase(), subdirectory })
}

/// The name of the file that a URL leads to: the last part of its path, without escapes (`+` of local versions may be
/// written `%2B`, `!` of epochs `%21`). It is a name, never a path.
pub fn file_name(url: &Url) -> Option<String> {
    let name = percent_decode_str(url.path_segments()?.next_back()?).decode_utf8().ok()?;
    let is_name = !matches!(&*name, "" | "." | "..") && !name.contains(['/', '\0']);
    is_name.then(|| name.into_owned())
}

fn wheel_name(url: &Url) -> Option<String> {
    file_name(url).filter(|name| name.ends_with(".whl"))
}
