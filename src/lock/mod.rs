//! The lock: exact packages and everything else that an image's bytes depend on, beside the build's
//! [`crate::model::Parameters`]. It knows nothing of solving.

mod export;
mod extended;
mod file;
mod fit;
mod foreign;
mod inputs;
pub mod installed;
mod interpreter;
pub(crate) mod local;
mod locks;
mod member;
mod normalise;
mod planned;
mod pypi;
mod python;
#[cfg(test)]
pub mod sample;
mod seal;
mod warnings;
mod wheel;

use std::collections::{BTreeMap, BTreeSet};

use rattler_conda_types::{GenericVirtualPackage, PackageRecord, RepoDataRecord, Subdir};
use serde::{Deserialize, Serialize};

use crate::model::{BaseFacts, Platform, Stability};
use crate::util::{Digest, Error, Result, plural};

pub use export::{export_conda_lock, export_explicit, export_pixi};
pub use extended::{BaseEnvironment, ParametersOfImage, parameters_of_image};
pub use file::{parse, read, recorded_parameters, render, write};
pub use fit::{check_wheels, target_python};
pub use foreign::{Pinned, PinnedPackage, PinnedWheel, Pins, missing_dependencies, refuse_unfit_target};
pub use inputs::{Inputs, Wanted, changes};
pub use locks::Locks;
pub use member::Member;
pub use normalise::{canonical_channel, canonical_url, normalised};
pub use planned::classify;
pub use pypi::file_name;
pub use python::python_info;
pub use warnings::warnings;
pub use wheel::{LockedWheel, WheelFacts, WheelSource};

/// The media type of a lock that is attached to an image, and the type of the artifact.
pub const MEDIA_TYPE: &str = "application/vnd.condaimg.lock.v1+yaml";

/// The label and annotation of an image that hold the digest of its lock.
pub const LABEL: &str = "dev.condaimg.lock";

/// The variables that belong to conda, whatever `variables:` and `env_vars.d` say: it ignores `PATH` there with a warning,
/// and fails over the others.
pub const RESERVED_VARIABLES: [&str; 5] =
    ["PATH", "CONDA_PREFIX", "CONDA_DEFAULT_ENV", "CONDA_SHLVL", "CONDA_PROMPT_MODIFIER"];

/// The value by which conda marks a variable that was removed.
pub const UNSET: &str = "***unset***";

/// What the builds of `python` packages hold that are no CPython.
pub const NO_CPYTHON: [&str; 2] = ["pypy", "graalpy"];

/// Whether a `python` package is a free-threaded CPython (`..._cp313t`), which marshals the same code to other bytes.
pub fn is_free_threaded(python: &PackageRecord) -> bool {
    let build = python.build.to_string();
    let tag = build.rsplit('_').next().and_then(|tag| tag.strip_prefix("cp")?.strip_suffix('t'));
    tag.is_some_and(|digits| !digits.is_empty() && digits.chars().all(|char| char.is_ascii_digit()))
}

/// A complete, solved environment on a base, for one platform.
#[derive(Debug, Clone)]
pub struct Lock {
    /// What the lock was made from beside dependencies and variables; nothing in a lock that goes with an image.
    pub inputs: Option<Inputs>,
    /// The target.
    pub platform: Platform,
    /// The channels that were searched, in order, without credentials.
    pub channels: Vec<String>,
    /// The virtual packages of the target, declared and never detected.
    pub virtual_packages: Vec<GenericVirtualPackage>,
    /// What the user asked for, as written.
    pub specs: Vec<String>,
    /// What the user asked for of PyPI: requirement lines as written, without secrets.
    pub pip: Vec<String>,
    /// `variables:` of the environment.
    pub variables: BTreeMap<String, String>,
    /// What the image stands on.
    pub base: LockedBase,
    /// The packages, sorted by name.
    pub packages: Vec<LockedPackage>,
    /// The packages of PyPI, sorted by name.
    pub wheels: Vec<LockedWheel>,
    /// Whether the archives were read: if not, the packages' facts say nothing, and the first build makes them.
    pub has_facts: bool,
    /// The parts that are not as they were written, but edited by hand. Nothing in a lock that was just made.
    pub edited: Vec<&'static str>,
    /// Where the target's Python does not run: the CPython that makes the byte code and what it needs, by the subdir
    /// of the builder. No byte of the image depends on which of them it is.
    pub interpreters: BTreeMap<Subdir, Vec<LockedPackage>>,
}

/// The base image, pinned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct LockedBase {
    /// As the user named it.
    pub reference: String,
    /// Digest of its manifest for the target platform.
    pub digest: Digest,
    /// What was read from its layers.
    pub facts: BaseFacts,
    /// The environment that it brings, when that is extended. Its packages and wheels are among the lock's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<BaseEnvironment>,
    /// Of a base in a registry what the registry served, so that a build from the lock asks it for nothing. Not in
    /// the lock that goes with an image: it follows from the digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub documents: Option<BaseDocuments>,
}

/// The documents of a base in a registry, byte for byte.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaseDocuments {
    /// Its manifest, which has the base's digest.
    pub manifest: String,
    /// Its config, whose digest the manifest has.
    pub config: String,
}

impl LockedBase {
    /// Whether it lies on this machine instead of in a registry.
    pub fn is_local(&self) -> bool {
        !matches!(self.reference.parse(), Ok(crate::model::BaseRef::Registry(_) | crate::model::BaseRef::Scratch))
    }
}

/// A package and what only its archive knows.
#[derive(Debug, Clone)]
pub struct LockedPackage {
    /// Name, version, build, hashes, dependencies and URL. `sha256` is always there.
    pub record: RepoDataRecord,
    /// What was read from the archive when locking.
    pub facts: PackageFacts,
}

/// What a lock keeps of an archive beside its hash, so that plan and keys need no archive.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct PackageFacts {
    /// Paths in the prefix that another package brings too, and that package, which wins.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub clobbered: BTreeMap<String, String>,
    /// Those of them that the winner has not as well, but a file above or below: and that file.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub obstacles: BTreeMap<String, String>,
    /// Shipped byte code (by path in the prefix) of modules that prefix replacement changes.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub stale: BTreeSet<String>,
    /// Whether byte code is made for it: a noarch Python package with modules, or one whose modules are changed
    /// by prefix replacement.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub bytecode: bool,
    /// What activating the environment does for this package.
    #[serde(skip_serializing_if = "Activation::is_empty")]
    pub activation: Activation,
    /// The post-link script (path in the prefix), which is not run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub post_link: Option<String>,
    /// What it is to pip: normalised name (PEP 503) → version of each dist-info that it brings.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub pypi: BTreeMap<String, String>,
    /// Where no channel says when the environment's packages were built: the time of the archive's `info/index.json`,
    /// in seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index_time: Option<i64>,
    /// How often the package changes, by its channel's index when the package was first locked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stability: Option<Stability>,
    /// The size in bytes that the layer plan counts, where it is not the archive's, rounded up to a power of two: that of
    /// an older version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub planned_size: Option<u64>,
}

/// What `etc/conda/activate.d` and `etc/conda/env_vars.d` of a package do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Activation {
    /// What is done to the environment, in the order of activation. `$CONDA_PREFIX` stands for the prefix.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<ActivationStep>,
    /// Scripts that do more than set and unset literals, and have to be sourced by a shell.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub dynamic: BTreeSet<String>,
    /// The texts of those scripts, as in the archive, so that it can be told which shells run them. Long ones, and those
    /// that are not UTF-8, are left out.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub scripts: BTreeMap<String, String>,
}

/// One variable that activation sets (`value`) or unsets (no value), and the file that says so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ActivationStep {
    /// The file, relative to the prefix. Activation goes through the files by name.
    pub file: String,
    /// The variable.
    pub name: String,
    /// Its value; `$CONDA_PREFIX` in it stands for the prefix.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Whether it is only set if programs see the variable already: one that a script assigns without `export`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub if_set: bool,
}

impl PackageFacts {
    /// Whether a path of the package stays out of the image and of the package's record.
    pub fn leaves_out(&self, path: &str) -> bool {
        self.clobbered.contains_key(path) || self.stale.contains(path)
    }

    /// Whether byte code is made of a module of the package: it is the module in the image, and no other package ships
    /// byte code at that place. (What the package ships itself and cannot be used is made anew.)
    pub fn makes(&self, module: &str, pyc: &str) -> bool {
        !self.leaves_out(module) && !self.clobbered.contains_key(pyc)
    }

    /// All paths that stay out.
    pub fn left_out(&self) -> BTreeSet<&str> {
        self.clobbered.keys().chain(&self.stale).map(String::as_str).collect()
    }
}

impl Activation {
    fn is_empty(&self) -> bool {
        self.steps.is_empty() && self.dynamic.is_empty()
    }
}

impl LockedPackage {
    /// The normalised name.
    pub fn name(&self) -> &str {
        self.record.package_record.name.as_normalized()
    }

    /// `name-version-build`.
    pub fn full_name(&self) -> String {
        let record = &self.record.package_record;
        format!("{}-{}-{}", record.name.as_normalized(), record.version, record.build)
    }

    /// Whether a `python` package is CPython, which alone makes byte code that CPython loads.
    pub fn is_cpython(&self) -> bool {
        let build = self.record.package_record.build.to_string();
        !NO_CPYTHON.iter().any(|other| build.contains(other))
    }

    /// Digest of the archive.
    ///
    /// # Errors
    /// When the lock gives none.
    pub fn sha256(&self) -> Result<Digest> {
        archive_digest(&self.record)
    }

    /// Size of the archive in bytes; 0 when the channel does not say.
    pub fn size(&self) -> u64 {
        self.record.package_record.size.unwrap_or(0)
    }
}

/// The sha256 of a record's archive.
///
/// # Errors
/// When the record has none: the download fills it in.
pub fn archive_digest(record: &RepoDataRecord) -> Result<Digest> {
    let sha256 = record.package_record.sha256.ok_or_else(|| {
        Error::user(format!("`{}` has no sha256 in the lock", record.identifier))
            .hint("make the lock again with `condaimg lock`")
    })?;
    Ok(Digest::from_bytes(sha256.into()))
}

/// The name in a dependency as index.json writes it: `numpy >=1.8`, or `numpy>=1.8` in old packages.
pub fn dependency_name(spec: &str) -> &str {
    let end = spec.find(|char: char| !char.is_ascii_alphanumeric() && !"_-.".contains(char)).unwrap_or(spec.len());
    &spec[..end]
}

impl Lock {
    /// These packages, sorted by name, on nothing (`scratch`): a lock that says nothing else.
    pub fn of_packages(platform: Platform, packages: Vec<LockedPackage>) -> Self {
        Self {
            inputs: None,
            platform,
            channels: Vec::new(),
            virtual_packages: Vec::new(),
            specs: Vec::new(),
            pip: Vec::new(),
            wheels: Vec::new(),
            variables: BTreeMap::new(),
            base: LockedBase {
                reference: "scratch".to_owned(),
                digest: Digest::of("scratch"),
                facts: BaseFacts::default(),
                environment: None,
                documents: None,
            },
            packages,
            has_facts: true,
            edited: Vec::new(),
            interpreters: BTreeMap::new(),
        }
    }

    /// Drops the facts that an older layout version read from archives: the next build reads them again. The base's
    /// packages keep theirs, which describe the base image, and each package keeps what the layer plan counts.
    fn forget_facts(&mut self) {
        let of_base = self.base.environment.clone().unwrap_or_default();
        for package in self.packages.iter_mut().filter(|package| !of_base.packages.contains(package.name())) {
            let PackageFacts { stability, planned_size, .. } = package.facts;
            package.facts = PackageFacts { stability, planned_size, ..PackageFacts::default() };
        }
        self.has_facts = false;
    }

    /// How many packages there are, for people: `12 packages, 3 wheels`.
    pub fn counted(&self) -> String {
        let packages = plural(self.packages.len(), "package");
        match self.wheels.len() {
            0 => packages,
            wheels => format!("{packages}, {}", plural(wheels, "wheel")),
        }
    }

    /// The package with this normalised name.
    pub fn package(&self, name: &str) -> Option<&LockedPackage> {
        self.packages.binary_search_by(|package| package.name().cmp(name)).ok().map(|index| &self.packages[index])
    }

    /// The named packages and everything that they depend on, by normalised name.
    pub fn closure<'a>(&'a self, roots: impl IntoIterator<Item = &'a str>) -> BTreeSet<&'a str> {
        let mut found = BTreeSet::new();
        let mut pending: Vec<&str> = roots.into_iter().collect();
        while let Some(name) = pending.pop() {
            let Some(package) = self.package(name) else { continue };
            if found.insert(package.name()) {
                let depends = &package.record.package_record.depends;
                pending.extend(depends.iter().map(|spec| dependency_name(spec)));
            }
        }
        found
    }

    /// The CPython, and what it needs, that makes byte code of this environment on a builder of another subdir.
    /// Nothing when the lock has none, or one that would make other bytes.
    pub fn interpreter(&self, builder: Subdir) -> Option<&[LockedPackage]> {
        let packages = self.interpreters.get(&builder)?;
        let found = packages.iter().find(|package| package.name() == "python").filter(|found| found.is_cpython())?;
        let (found, own) = (&found.record.package_record, &self.package("python")?.record.package_record);
        let same = found.version == own.version && is_free_threaded(found) == is_free_threaded(own);
        same.then_some(packages)
    }

    /// Seconds since 1970 at which the newest package was built; 0 when neither a channel nor an archive says.
    pub fn newest_build(&self) -> i64 {
        self.newest_timestamp().or_else(|| self.newest_index()).unwrap_or(0)
    }

    /// Seconds since 1970 for the `created` of an image on a base that has `base` there: the build of the newest package.
    /// When no channel says that, the later of what the archives say and `base`.
    pub fn created(&self, base: Option<i64>) -> i64 {
        self.newest_timestamp().or_else(|| self.newest_index().max(base)).unwrap_or(0)
    }

    /// Whether the time of the newest package is known without reading an archive.
    pub fn knows_times(&self) -> bool {
        self.newest_timestamp().is_some() || self.newest_index().is_some()
    }

    fn newest_timestamp(&self) -> Option<i64> {
        self.packages.iter().filter_map(|package| built_at(&package.record.package_record)).max()
    }

    fn newest_index(&self) -> Option<i64> {
        self.packages.iter().filter_map(|package| package.facts.index_time).max()
    }
}

/// The first second of 2100. A later time of a build is a wrong one.
const TOO_LATE: i64 = 4_102_444_800;

/// Seconds since 1970 at which a package was built, if its channel says that and it can be: after 1970 and before 2100.
pub fn built_at(record: &PackageRecord) -> Option<i64> {
    let time = record.timestamp.as_ref()?.jiff_timestamp().as_second();
    (1..TOO_LATE).contains(&time).then_some(time)
}

#[cfg(test)]
mod tests {
    use rattler_conda_types::utils::TimestampMs;

    use super::*;

    fn built(seconds: i64) -> LockedPackage {
        let mut package = sample::package("a", "1", 1);
        let time = jiff::Timestamp::from_second(seconds).expect("a time");
        package.record.package_record.timestamp = Some(TimestampMs::from(time));
        package
    }

    #[test]
    fn odd_build_times_do_not_count() {
        for odd in [0, -5, TOO_LATE, 99_999_999_999] {
            let lock = |packages: Vec<LockedPackage>| sample::lock(packages);
            assert_eq!(lock(vec![built(odd)]).created(Some(7)), 7, "{odd}");
            assert!(!lock(vec![built(odd)]).knows_times(), "{odd}");
            assert_eq!(lock(vec![built(odd), built(1_700_000_000)]).newest_build(), 1_700_000_000, "{odd}");
        }
    }
}
