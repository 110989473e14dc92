//! Packages of PyPI beside those of conda: resolved by `uv`, run as a program, for the *target's* Python and platform.
//!
//! What conda brings takes part in the resolution and is taken out of its result, and so is what is in a base that is
//! extended, by conda or by pip. Each distribution that is there becomes a stub wheel: its name, its version, and of its dependencies only those of extras. A
//! constraint `name @ file:STUB` makes uv take the stub wherever something needs the name: so the index is never
//! asked for it (it may lack the version), what its wheel on the index would depend on is not followed (conda's
//! pytorch needs no `nvidia-*`), and a requirement that its version does not meet is a conflict.

mod building;
mod canonical;
mod choose;
mod confined;
mod find;
mod folder;
mod git;
mod pylock;
mod sources;
mod stubs;
mod uv;

use std::collections::BTreeSet;
use std::path::PathBuf;

use pep508_rs::{MarkerEnvironment, MarkerEnvironmentBuilder};
use rattler_conda_types::Subdir;
use url::Url;

pub use folder::digest as folder_digest;
pub use sources::{Built, Sources, references_of};
pub use uv::{Uv, UvOptions, index_urls, uv_program};

use crate::lock::{LockedWheel, WheelSource};
use crate::model::TargetPython;
use crate::spec::Pip;
use crate::util::{Digest, Error, Result};

/// What wheels are to fit.
#[derive(Debug, Clone)]
pub struct PipTarget {
    /// The platform.
    pub subdir: Subdir,
    /// Major and minor version of its glibc.
    pub glibc: Option<(u64, u64)>,
    /// The Python that loads them.
    pub python: TargetPython,
    /// Its whole version.
    pub python_version: String,
}

/// A distribution that is there and stays: of a conda package, or of a base that is extended.
#[derive(Debug, Clone, Default)]
pub struct Installed {
    /// Normalised name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// What brings it, for people: ``the conda package `NAME` ``.
    pub bringer: String,
    /// Whether that is of the base, and so can only be another one with another base.
    pub of_base: bool,
    /// `Requires-Dist` of its metadata.
    pub requires_dist: Vec<String>,
}

/// What is to be resolved.
pub struct PipRequest<'a> {
    /// What is asked for.
    pub pip: &'a Pip,
    /// What it is for.
    pub target: &'a PipTarget,
    /// What is there already.
    pub installed: &'a [Installed],
    /// The wheels of the old lock that are preferred.
    pub preferred: &'a [LockedWheel],
    /// The lines that the old lock was made from.
    pub old_lines: &'a [String],
    /// Whether newer versions are wanted, so that indexes are asked anew.
    pub refresh: bool,
}

/// A package that was found.
#[derive(Debug, Clone)]
pub struct Found {
    /// Normalised name.
    pub name: String,
    /// Where it lies.
    pub file: FoundFile,
    /// The hashes that it may have, by the user's word.
    pub hashes: Vec<String>,
}

/// Where a package that was found lies.
#[derive(Debug, Clone)]
pub enum FoundFile {
    /// A wheel that fits the target.
    Wheel {
        /// Its file name.
        name: String,
        /// Its URL, without credentials.
        url: Url,
        /// Its digest, if the index tells.
        sha256: Option<Digest>,
        /// Its size, if the index tells.
        size: Option<u64>,
        /// Whether an index lists it.
        listed: bool,
        /// That index, unless it is the default one.
        index: Option<Url>,
    },
    /// A wheel that was built already.
    Built(Box<Built>),
    /// A wheel is to be built from this.
    Source {
        /// From what.
        source: WheelSource,
        /// The file name of a source archive.
        name: Option<String>,
        /// Whether an index lists it.
        listed: bool,
        /// That index, unless it is the default one.
        index: Option<Url>,
    },
}

impl PipTarget {
    /// The target as markers see it (PEP 508).
    ///
    /// # Errors
    /// When the Python's version is none.
    pub fn markers(&self) -> Result<MarkerEnvironment> {
        let (major, minor) = self.python.version;
        MarkerEnvironment::try_from(MarkerEnvironmentBuilder {
            implementation_name: "cpython",
            implementation_version: &self.python_version,
            os_name: "posix",
            platform_machine: self.machine()?,
            platform_python_implementation: "CPython",
            platform_release: "",
            platform_system: "Linux",
            platform_version: "",
            python_full_version: &self.python_version,
            python_version: &format!("{major}.{minor}"),
            sys_platform: "linux",
        })
        .map_err(|error| {
            Error::user(format!("Python {} is none that pip packages can be for", self.python_version)).caused_by(error)
        })
    }

    /// The architecture as `uname` has it.
    fn machine(&self) -> Result<&'static str> {
        match self.subdir {
            Subdir::Linux64 => Ok("x86_64"),
            Subdir::LinuxAarch64 => Ok("aarch64"),
            other => Err(Error::user(format!("pip packages cannot be resolved for {other}"))
                .hint("images for linux/amd64 and linux/arm64 can have a `pip:` section")),
        }
    }
}

/// Finds the packages that `request` asks for and all that they need, but for what is installed.
///
/// # Errors
/// When `uv` is missing or finds no solution, when sources would have to be built and must not be, and when nothing
/// that was found fits.
pub fn resolve(request: &PipRequest<'_>, uv: &Uv, sources: &Sources<'_>) -> Result<Vec<Found>> {
    find::find(request, uv, sources)
}

/// A folder for the files of one run.
struct Scratch {
    folder: tempfile::TempDir,
    /// So that no other process sweeps it away, however long the run takes.
    _held: fs_err::File,
}

impl Scratch {
    fn new(uv: &Uv) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("pip-").tempdir_in(uv.scratch());
        let folder = folder.map_err(|error| crate::util::files::named(uv.scratch(), error))?;
        let held = fs_err::File::open(folder.path())?;
        held.file().lock().map_err(|error| crate::util::files::named(folder.path(), error))?;
        Ok(Self { folder, _held: held })
    }

    fn path(&self) -> &std::path::Path {
        self.folder.path()
    }
}

/// The `file:` URL of an absolute path.
fn file_url(path: &std::path::Path) -> Result<Url> {
    Url::from_file_path(path).map_err(|()| Error::bug(format!("`{}` has no URL", path.display())))
}

/// The path of a `file:` URL.
fn path_of(url: &Url) -> Result<PathBuf> {
    url.to_file_path().map_err(|()| Error::user(format!("`{url}` is no path on this machine")))
}

/// The distributions that a text names, for an explanation.
fn named_in<'a>(text: &str, installed: &'a [Installed]) -> Vec<&'a Installed> {
    let is_part = |char: char| char.is_ascii_alphanumeric() || "-_.".contains(char);
    let words: BTreeSet<String> =
        text.split(|char| !is_part(char)).map(|word| word.trim_matches(['.', '-']).to_ascii_lowercase()).collect();
    installed.iter().filter(|it| words.contains(&it.name)).collect()
}
