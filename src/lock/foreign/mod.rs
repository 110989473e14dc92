//! Locks of other tools: exact packages, in place of what a solver would find.
//!
//! What each form gives differs. A pixi.lock holds nearly all that a channel's index says of a package; a
//! conda-lock.yml lacks sizes, times and build numbers; a file with `@EXPLICIT` has URLs and, mostly, one hash. What
//! is lacking is filled from the channel's index or from the archive itself by whoever makes a lock of the pins.

pub(super) mod archive_url;
mod check;
mod conda_lock;
mod explicit;
mod pixi;
mod wheel;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rattler_conda_types::package::{DistArchiveIdentifier, DistArchiveType};
use rattler_conda_types::{PackageName, PackageRecord, RepoDataRecord, Subdir, VersionWithSource};
use serde::Serialize;
use url::Url;

use super::{Lock, LockedPackage, LockedWheel, WheelSource, canonical_url};
use crate::model::Platform;
use crate::util::{Digest, Error, Result, json, redact, variables};

pub use check::{missing_dependencies, refuse_unfit_target};
pub use wheel::PinnedWheel;

/// Packages that a file pins, for the platforms that it is for.
#[derive(Debug, Clone)]
pub struct Pins {
    /// The file.
    file: PathBuf,
    content: Content,
}

#[derive(Debug, Clone)]
enum Content {
    Explicit(explicit::Explicit),
    CondaLock(conda_lock::CondaLock),
    Pixi(pixi::Pixi),
}

/// What is pinned for one platform.
#[derive(Debug, Clone)]
pub struct Pinned {
    /// Packages of conda, sorted by name, each name once.
    pub packages: Vec<PinnedPackage>,
    /// Packages of PyPI, sorted by name, each name once.
    pub wheels: Vec<PinnedWheel>,
}

/// A package of conda as a file pins it.
#[derive(Debug, Clone)]
pub struct PinnedPackage {
    /// What the file says, with the canonical URL. There may be no hash at all.
    pub record: RepoDataRecord,
    /// Whether that is all that a channel's index says: dependencies, build number, times, which kind of noarch.
    pub complete: bool,
}

impl Pins {
    /// Reads the text of a file with `@EXPLICIT`.
    ///
    /// # Errors
    /// What is wrong with it, with the line.
    pub fn explicit(file: &Path, text: &str) -> Result<Self> {
        let content = Content::Explicit(explicit::Explicit::parse(file, text)?);
        Ok(Self { file: file.to_owned(), content })
    }

    /// Reads the text of a conda-lock.yml. `category` is taken beside `main`.
    ///
    /// # Errors
    /// What is wrong with it; a category that it does not have.
    pub fn conda_lock(file: &Path, text: &str, category: Option<&str>) -> Result<Self> {
        let content = Content::CondaLock(conda_lock::CondaLock::parse(file, text, category)?);
        Ok(Self { file: file.to_owned(), content })
    }

    /// Reads the text of a pixi.lock of any version; `environment` is the one to take, else `default`.
    ///
    /// # Errors
    /// What is wrong with it; an environment that it does not have.
    pub fn pixi(file: &Path, text: &str, environment: Option<&str>) -> Result<Self> {
        let content = Content::Pixi(pixi::Pixi::parse(file, text, environment)?);
        Ok(Self { file: file.to_owned(), content })
    }

    /// The file.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The channels of the packages, as written, credentials and all.
    pub fn channels(&self) -> &[String] {
        match &self.content {
            Content::Explicit(explicit) => &explicit.channels,
            Content::CondaLock(lock) => &lock.channels,
            Content::Pixi(lock) => &lock.channels,
        }
    }

    /// What the packages were once solved for, where the file says so.
    pub fn specs(&self) -> &[String] {
        match &self.content {
            Content::Explicit(explicit) => &explicit.specs,
            Content::CondaLock(_) | Content::Pixi(_) => &[],
        }
    }

    /// Where packages of PyPI come from, as written, credentials and all.
    pub fn pip_urls(&self) -> Vec<Url> {
        match &self.content {
            Content::Explicit(_) => Vec::new(),
            Content::CondaLock(lock) => lock.pip_urls(),
            Content::Pixi(lock) => lock.pip_urls(),
        }
    }

    /// What the user should know of the file.
    pub fn notices(&self) -> Vec<String> {
        match &self.content {
            Content::Explicit(explicit) => explicit.notices(&self.file),
            Content::CondaLock(lock) => lock.notices(&self.file),
            Content::Pixi(lock) => lock.notices(&self.file),
        }
    }

    /// What is pinned for a platform.
    ///
    /// # Errors
    /// When the file is not for the platform; when it pins what is no archive of a package, or a name twice.
    pub fn of(&self, platform: &Platform) -> Result<Pinned> {
        let mut pinned = match &self.content {
            Content::Explicit(explicit) => explicit.pinned(&self.file, platform)?,
            Content::CondaLock(lock) => lock.pinned(&self.file, platform)?,
            Content::Pixi(lock) => lock.pinned(&self.file, platform)?,
        };
        pinned.packages.sort_by(|a, b| a.name().cmp(b.name()));
        pinned.wheels.sort_by(|a, b| a.name.cmp(&b.name));
        let twice = |name: &str| {
            Error::user(format!("`{}` pins the package `{name}` twice", self.file.display()))
                .hint("remove one of the two, or make the file again with the tool that wrote it")
        };
        if let Some(pair) = pinned.packages.windows(2).find(|pair| pair[0].name() == pair[1].name()) {
            return Err(twice(pair[0].name()));
        }
        if let Some(pair) = pinned.wheels.windows(2).find(|pair| pair[0].name == pair[1].name) {
            return Err(twice(&pair[0].name));
        }
        for package in &pinned.packages {
            let subdir = package.record.package_record.subdir.as_str();
            if ![platform.subdir.as_str(), Subdir::NoArch.as_str(), ""].contains(&subdir) {
                return Err(Error::user(format!(
                    "`{}` pins `{}` for {}, which is a package of {subdir}",
                    self.file.display(),
                    package.record.identifier,
                    platform.subdir
                ))
                .hint("make the file again with the tool that wrote it"));
            }
        }
        Ok(pinned)
    }
}

impl PinnedPackage {
    /// The normalised name.
    pub fn name(&self) -> &str {
        self.record.package_record.name.as_normalized()
    }
}

#[derive(Serialize)]
struct DigestedPackage {
    url: String,
    sha256: Option<String>,
    md5: Option<String>,
}

impl Pinned {
    /// A digest of what is pinned, the same on every machine: when it changes, a lock made of it is stale.
    ///
    /// # Errors
    /// Never for what was read.
    pub fn digest(&self) -> Result<Digest> {
        let conda = self.packages.iter().map(|package| DigestedPackage {
            url: canonical_url(&package.record.url).to_string(),
            sha256: package.record.package_record.sha256.map(hex::encode),
            md5: package.record.package_record.md5.map(hex::encode),
        });
        let wheels = self.wheels.iter().map(|wheel| DigestedPackage {
            url: redact::url(&wheel.url),
            sha256: wheel.sha256.map(|digest| digest.hex()),
            md5: None,
        });
        json::canonical(&conda.chain(wheels).collect::<Vec<_>>()).map(Digest::of)
    }
}

impl Pinned {
    /// Whether a lock has exactly what is pinned, by the hashes that are given.
    pub fn are_in(&self, lock: &Lock) -> bool {
        let same_package = |(pinned, locked): (&PinnedPackage, &LockedPackage)| {
            let (asked, has) = (&pinned.record.package_record, &locked.record.package_record);
            // Not every index gives an md5 beside the sha256.
            let same_bytes = match asked.sha256 {
                Some(_) => asked.sha256 == has.sha256,
                None => asked.md5.is_none() || asked.md5 == has.md5,
            };
            same_bytes && pinned.record.identifier == locked.record.identifier
        };
        let same_wheel = |(pinned, locked): (&PinnedWheel, &LockedWheel)| {
            let has = match &locked.source {
                WheelSource::Wheel { .. } => Some(locked.sha256),
                WheelSource::Sdist { sha256, .. } => Some(*sha256),
                WheelSource::Git { .. } | WheelSource::Folder { .. } => None,
            };
            pinned.name == locked.name && (pinned.sha256.is_none() || pinned.sha256 == has)
        };
        self.packages.len() == lock.packages.len()
            && self.wheels.len() == lock.wheels.len()
            && self.packages.iter().zip(&lock.packages).all(same_package)
            && self.wheels.iter().zip(&lock.wheels).all(same_wheel)
    }
}

/// What the URL of an archive tells of its package, or why it tells nothing.
fn record_of(url: &Url) -> Result<RepoDataRecord, String> {
    let canonical = archive_url::plain(&redact::canonical(url));
    let shown = canonical.path_segments().and_then(Iterator::last).unwrap_or_default();
    let identifier = DistArchiveIdentifier::try_from_url(&canonical)
        .filter(|identifier| matches!(identifier.archive_type, DistArchiveType::Conda(_)))
        .ok_or_else(|| {
            format!("`{shown}` is no archive of a conda package (`NAME-VERSION-BUILD.conda`, or `.tar.bz2`)")
        })?;
    let parts = &identifier.identifier;
    let name: PackageName = parts.name.parse().map_err(|_| format!("`{}` is no name of a package", parts.name))?;
    let version: VersionWithSource =
        parts.version.parse().map_err(|_| format!("`{}` is no version of a package", parts.version))?;
    let build = parts.build_string.parse().map_err(|_| format!("`{}` is no build of a package", parts.build_string))?;
    let mut record = PackageRecord::new(name, version, build);
    record.subdir = subdir_of(&canonical).map(|subdir| subdir.to_string()).unwrap_or_default();
    let channel = channel_of(&canonical).map(|channel| channel.to_string());
    Ok(RepoDataRecord { package_record: record, identifier, url: canonical, channel })
}

/// The subdir in the URL of an archive.
fn subdir_of(url: &Url) -> Option<Subdir> {
    url.path_segments()?.rev().nth(1)?.parse().ok()
}

/// The channel that the URL of an archive begins with, as written: what is before the subdir and the file.
fn channel_of(url: &Url) -> Option<Url> {
    let mut channel = url.clone();
    channel.path_segments_mut().ok()?.pop().pop();
    channel.set_fragment(None);
    Some(channel)
}

/// Channels in the order of their first mention, each once; as written.
#[derive(Default)]
struct ChannelList {
    texts: Vec<String>,
    /// The same without credentials.
    known: Vec<String>,
}

impl ChannelList {
    fn add(&mut self, text: &str) {
        let canonical = redact::text(text).trim_end_matches('/').to_owned();
        match self.known.iter().position(|known| *known == canonical) {
            // One that is written with a secret is of more use than the same without it.
            Some(index) if redact::text(&self.texts[index]) == self.texts[index] => {
                text.clone_into(&mut self.texts[index])
            }
            Some(_) => {}
            None => {
                self.texts.push(text.to_owned());
                self.known.push(canonical);
            }
        }
    }

    /// The channel of an archive, if its URL says more than those that are there.
    fn add_of(&mut self, archive: &Url) {
        if let Some(channel) = channel_of(archive) {
            self.add(channel.as_str());
        }
    }
}

/// A platform that a file has nothing for.
fn not_for(file: &Path, platform: &Platform, has: &[String]) -> Error {
    let error = Error::user(format!("`{}` has nothing for {}", file.display(), platform.subdir));
    match has {
        [] => error.hint("it has packages for no platform at all"),
        has => error.hint(format!("it is for {}", has.join(", "))),
    }
    .hint("choose with `--platform`, or add the platform with the tool that wrote the file")
}

/// At most five of them, for a message.
pub(super) fn some(items: &[String]) -> String {
    let shown = items.iter().take(5).map(String::as_str).collect::<Vec<_>>().join(", ");
    if items.len() > 5 { format!("{shown}, and {} more", items.len() - 5) } else { shown }
}

/// The platforms of a subdir, for people: `linux/amd64`.
fn platform_of(subdir: Subdir) -> Option<Platform> {
    Platform::from_lock_name(subdir.as_str())
}

/// Environment variables that conda-lock leaves in URLs, so that no password is in the file: `$NAME`, `${NAME}`.
///
/// # Errors
/// Variables that never expand.
fn environment_of(names: &[String]) -> Result<BTreeMap<String, String>> {
    let value = |name: &String| Ok(variables::value(name)?.map(|value| (name.clone(), value)));
    names.iter().filter_map(|name| value(name).transpose()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lock::{PackageFacts, sample};

    fn package(name: &str, bytes: &str) -> LockedPackage {
        let url = Url::parse(&format!("https://host/channel/noarch/{name}-1.0-0.conda")).expect("a URL");
        let mut record = record_of(&url).expect("a record");
        record.package_record.sha256 = Some(rattler_digest::compute_bytes_digest::<rattler_digest::Sha256>(bytes));
        record.package_record.md5 = Some(rattler_digest::compute_bytes_digest::<rattler_digest::Md5>(bytes));
        LockedPackage { record, facts: PackageFacts::default() }
    }

    fn pinned(packages: &[LockedPackage], change: impl Fn(&mut PackageRecord)) -> Pinned {
        let pin = |package: &LockedPackage| {
            let mut record = package.record.clone();
            change(&mut record.package_record);
            PinnedPackage { record, complete: true }
        };
        Pinned { packages: packages.iter().map(pin).collect(), wheels: Vec::new() }
    }

    #[test]
    fn a_lock_has_what_is_pinned_by_the_hashes_that_are_given() {
        let packages = vec![package("a", "A"), package("b", "B")];
        let lock = sample::lock(packages.clone());
        let forms: [fn(&mut PackageRecord); 4] = [
            |_| (),
            // Not every index says it.
            |record| record.md5 = Some(rattler_digest::compute_bytes_digest::<rattler_digest::Md5>("other")),
            |record| record.sha256 = None,
            |record| (record.sha256, record.md5) = (None, None),
        ];
        for form in forms {
            assert!(pinned(&packages, form).are_in(&lock));
        }
        assert!(!pinned(&packages[1..], |_| ()).are_in(&lock));
        assert!(!pinned(&[package("a", "A"), package("c", "B")], |_| ()).are_in(&lock));
        let other = [package("a", "A"), package("b", "other")];
        assert!(!pinned(&other, |_| ()).are_in(&lock));
        assert!(!pinned(&other, |record| record.sha256 = None).are_in(&lock));
    }

    #[test]
    fn a_lock_has_the_wheels_that_are_pinned() {
        let url = Url::parse("https://host/a-1.0-py3-none-any.whl").expect("a URL");
        let wheel = |sha256| PinnedWheel::at("a", None, &url, sha256, false);
        let [bytes, other] = ["A", "other"].map(Digest::of);
        let locked = |source| LockedWheel {
            name: "a".to_owned(),
            version: "1.0".to_owned(),
            file_name: "a-1.0-py3-none-any.whl".to_owned(),
            sha256: bytes,
            size: 1,
            source,
            index: None,
            requires_dist: Vec::new(),
            requires_python: None,
            facts: crate::lock::WheelFacts::default(),
        };
        let has = |source, sha256| {
            let lock = Lock { wheels: vec![locked(source)], ..sample::lock(Vec::new()) };
            Pinned { packages: Vec::new(), wheels: vec![wheel(sha256)] }.are_in(&lock)
        };
        let (of_index, built) =
            (|| WheelSource::Wheel { url: url.clone() }, || WheelSource::Sdist { url: url.clone(), sha256: other });
        assert!(has(of_index(), Some(bytes)) && has(of_index(), None));
        assert!(has(built(), Some(other)) && !has(built(), Some(bytes)));
        assert!(!has(of_index(), Some(other)));
    }
}
