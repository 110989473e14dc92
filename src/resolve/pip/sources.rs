//! Wheels from sources: repositories, folders and source archives, built by `uv build` in isolation with the
//! environment's Python. Their code runs on the builder, so only where that is allowed, or where a lock already says
//! which wheel must come out.

use std::path::{Path, PathBuf};

use fs_err as fs;
use serde::{Deserialize, Serialize};
use url::Url;

use super::building::Building;
use super::{PipTarget, Uv, canonical, folder, git, path_of};
use crate::lock::{Lock, LockedWheel, WheelSource, file_name};
use crate::model::{Platform, WheelName, check_fit};
use crate::spec::pip::{Pip, PipGit, PipLocation, PipWanted, git_of_metadata};
use crate::store::{RecordKind, Store};
use crate::util::report::SharedReporter;
use crate::util::{Digest, Error, Result, redact};

/// Raised whenever the same source gives another wheel.
const VERSION: u32 = 1;
/// The time of builds that have no better one: the oldest that a zip can say, 1980-01-01.
const OLDEST: u64 = 315_532_800;

/// A wheel that was built.
#[derive(Debug, Clone)]
pub struct Built {
    /// Its file name.
    pub name: String,
    /// Its digest, in its canonical form.
    pub sha256: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// What it was built from.
    pub source: WheelSource,
    /// Whether an index lists its source.
    pub listed: bool,
    /// That index, unless it is the default one.
    pub index: Option<Url>,
}

/// What the store knows of a built wheel.
#[derive(Serialize, Deserialize)]
struct Known {
    name: String,
    sha256: Digest,
    size: u64,
}

/// Builds wheels.
pub struct Sources<'a> {
    /// Where wheels are kept.
    pub store: &'a Store,
    /// What they are for.
    pub target: &'a PipTarget,
    /// What was asked for: its URLs have credentials.
    pub pip: &'a Pip,
    /// The repositories of a lock, as what it was made from names them ([`references_of`]).
    pub references: Vec<PipGit>,
    /// Whether code of sources may run.
    pub allow_build: bool,
    /// Whether nothing may be built, not even what a lock says is built.
    pub no_build: bool,
    /// Is told what is built.
    pub reporter: &'a SharedReporter,
}

impl Sources<'_> {
    /// The wheel of a source. `locked` is what a lock says that it must be.
    ///
    /// # Errors
    /// When it is not there and must not be built, when building fails, and when what comes out does not fit or is not
    /// what the lock says.
    pub fn wheel(
        &self,
        uv: &Uv,
        source: &WheelSource,
        file: Option<&str>,
        locked: Option<&LockedWheel>,
    ) -> Result<Built> {
        if let Some(locked) = locked.filter(|locked| self.is_stored(&locked.sha256, locked.size)) {
            return Ok(self.built(source, &locked.file_name, locked.sha256, locked.size));
        }
        let key = self.key(source)?;
        let known =
            self.store.record::<Known>(RecordKind::Wheel, &key).filter(|it| self.is_stored(&it.sha256, it.size));
        let built = match known.filter(|known| locked.is_none_or(|locked| locked.sha256 == known.sha256)) {
            Some(known) => self.built(source, &known.name, known.sha256, known.size),
            None => {
                self.check_allowed(source, locked)?;
                let built = self.build(uv, source, file)?;
                let known = Known { name: built.name.clone(), sha256: built.sha256, size: built.size };
                self.store.remember(RecordKind::Wheel, &key, &known)?;
                built
            }
        };
        match locked {
            Some(locked) if locked.sha256 != built.sha256 && !self.allow_build => Err(other(source, locked, &built)),
            _ => Ok(built),
        }
    }

    fn is_stored(&self, sha256: &Digest, size: u64) -> bool {
        let path = self.store.archive(sha256, "whl");
        self.store.is_whole(&path, sha256) && self.store.has_file(&path, Some(size).filter(|size| *size > 0))
    }

    fn built(&self, source: &WheelSource, name: &str, sha256: Digest, size: u64) -> Built {
        Built { name: name.to_owned(), sha256, size, source: source.clone(), listed: false, index: None }
    }

    /// What a built wheel depends on.
    fn key(&self, source: &WheelSource) -> Result<Digest> {
        let identity = match source {
            WheelSource::Wheel { url } => url.to_string(),
            WheelSource::Sdist { sha256, .. } => format!("sdist {sha256}"),
            WheelSource::Git { url, commit, subdirectory } => {
                format!("git {commit} {} {url}", subdirectory.as_deref().unwrap_or_default())
            }
            WheelSource::Folder { digest, .. } => format!("folder {digest}"),
        };
        let target = (&self.target.python_version, self.target.subdir.as_str());
        crate::util::json::canonical(&("wheel", VERSION, identity, target)).map(Digest::of)
    }

    fn check_allowed(&self, source: &WheelSource, locked: Option<&LockedWheel>) -> Result<()> {
        if self.no_build {
            return Err(Error::user(format!("failed to build {}: `--no-build` forbids it", shown(source)))
                .hint("leave out `--no-build` (`CONDAIMG_NO_BUILD`, or `build: never` in a condaimg.yaml), or ask for a version that has a wheel"));
        }
        if self.allow_build || locked.is_some() {
            return Ok(());
        }
        Err(Error::user(format!("{} would have to be built, which runs its code on this machine", shown(source)))
            .hint("`--allow-build` (or `CONDAIMG_ALLOW_BUILD=true`, or `allow-build: on` in a condaimg.yaml) allows it, in isolation and with the environment's Python")
            .hint("once the lock has the wheel's hash, builds from the lock need no flag"))
    }

    fn build(&self, uv: &Uv, source: &WheelSource, file: Option<&str>) -> Result<Built> {
        self.reporter.notice(&format!("building a wheel of {}", shown(source)));
        let work = super::Scratch::new(uv)?;
        let building = Building::new(uv, work.path())?;
        let (top, project, time) = self.project((uv, &building), source, file, work.path())?;
        let out = work.path().join("wheel");
        let commits = folder::commits(source)?;
        let git: Vec<&Path> = commits.iter().map(PathBuf::as_path).collect();
        building.wheel((&project, &top), &git, time.max(OLDEST), &out, &|_| {
            Error::user(format!("{} cannot be built", shown(source)))
                .hint("what its build backend needs comes as wheels from the same indexes; compilers come from this machine; it has no network")
        })?;
        let wheel = only_wheel(&out, source)?;
        let name = wheel.file_name().unwrap_or_default().to_string_lossy().into_owned();
        self.check_fit(source, &name)?;
        let mut stored = self.store.temporary()?;
        canonical::canonical(&wheel, io_buffered(stored.as_file_mut()))?;
        let sha256 = folder::digest_of_file(stored.path())?;
        let size = stored.as_file().metadata()?.len();
        self.store.put(stored, &self.store.archive(&sha256, "whl"), &sha256)?;
        Ok(self.built(source, &name, sha256, size))
    }

    fn check_fit(&self, source: &WheelSource, name: &str) -> Result<()> {
        let parsed = WheelName::parse(name)
            .ok_or_else(|| Error::user(format!("{} gave `{name}`, which is no name of a wheel", shown(source))))?;
        let result = check_fit(name, &parsed, self.target.python, self.target.glibc, self.target.subdir);
        match result {
            Err(error) if Platform::of_builder() != Some(self.target.subdir) => Err(error.hint(format!(
                "on this machine only wheels without extension modules can be built for {}",
                self.target.subdir
            ))),
            result => result,
        }
    }

    /// Puts the source where it can be built; the place of all of it, that of the project in it, and the time that the
    /// build is to believe in.
    fn project(
        &self,
        (uv, building): (&Uv, &Building<'_>),
        source: &WheelSource,
        file: Option<&str>,
        work: &Path,
    ) -> Result<(PathBuf, PathBuf, u64)> {
        match source {
            WheelSource::Wheel { .. } => Err(Error::bug("a wheel is not built")),
            WheelSource::Git { url, commit, subdirectory } => {
                let checkout = work.join("source");
                let references =
                    self.references.iter().filter(|at| redact::canonical(&at.url) == redact::canonical(url));
                let references: Vec<&str> = references
                    .filter(|at| at.subdirectory == *subdirectory)
                    .filter_map(|at| at.reference.as_deref())
                    .collect();
                let time = git::checkout(uv, &self.written(url), commit, &references, &checkout)?;
                let project = inside(&checkout, subdirectory.as_deref(), source)?;
                Ok((checkout, project, time))
            }
            WheelSource::Folder { url, digest } => {
                let (path, copy) = (path_of(url)?, work.join("source"));
                let now = folder::digest(&path)?;
                if now != *digest {
                    return Err(Error::user(format!(
                        "the folder `{}` is not what was locked: it changed",
                        path.display()
                    ))
                    .hint("lock again"));
                }
                folder::copy(&path, &copy)?;
                Ok((copy.clone(), copy, OLDEST))
            }
            WheelSource::Sdist { url, sha256 } => {
                let stored = self.store.archive(sha256, "sdist");
                let last = file_name(url).unwrap_or_default();
                // uv knows the kind of an archive by its name.
                let archive = work.join(file.unwrap_or(&last));
                fs::copy(&stored, &archive)?;
                let project = building.unpack(&archive)?;
                Ok((work.join("source"), project, OLDEST))
            }
        }
    }

    /// A repository's URL as the requirements have it, credentials and all.
    fn written(&self, url: &Url) -> Url {
        let repositories = self.pip.requirements.iter().filter_map(|requirement| match &requirement.what {
            PipWanted::Direct(direct) => match &direct.location {
                PipLocation::Git(PipGit { url, .. }) => Some(url),
                _ => None,
            },
            PipWanted::Index(_) => None,
        });
        let mut same = repositories.filter(|written| redact::canonical(written) == redact::canonical(url));
        let mut written = same.next().cloned().unwrap_or_else(|| url.clone());
        if written.scheme() == "ssh" && written.username().is_empty() {
            // A lock has no users, and this is everybody's.
            let _ = written.set_username("git");
        }
        written
    }
}

/// The repositories that a lock's wheels were made from, with the references that are pinned in it: of the user's lines
/// that did not change since, and of the metadata of its wheels.
pub fn references_of(pip: &Pip, lock: &Lock) -> Vec<PipGit> {
    let unchanged = pip.requirements.iter().chain(&pip.constraints).filter(|it| lock.pip.contains(&it.locked_text()));
    let asked = unchanged.filter_map(|requirement| match &requirement.what {
        PipWanted::Direct(direct) => match &direct.location {
            PipLocation::Git(at) => Some(at.clone()),
            _ => None,
        },
        PipWanted::Index(_) => None,
    });
    let needed = lock.wheels.iter().flat_map(|wheel| &wheel.requires_dist);
    asked.chain(needed.filter_map(|text| git_of_metadata(text)).map(|(_, at)| at)).collect()
}

/// The project's directory in a checkout, links resolved: a repository may hold any link.
fn inside(checkout: &Path, subdirectory: Option<&str>, source: &WheelSource) -> Result<PathBuf> {
    let Some(subdirectory) = subdirectory else { return Ok(checkout.to_owned()) };
    let wrong = |what: &str| Error::user(format!("`{subdirectory}` of {} {what}", shown(source)));
    let real = std::fs::canonicalize(checkout.join(subdirectory))
        .map_err(|error| wrong("cannot be found").caused_by(error))?;
    match real.strip_prefix(fs::canonicalize(checkout)?) {
        Ok(inner) => Ok(checkout.join(inner)),
        Err(_) => Err(wrong("lies outside of the repository")),
    }
}

fn io_buffered(file: &mut std::fs::File) -> std::io::BufWriter<&mut std::fs::File> {
    std::io::BufWriter::with_capacity(256 * 1024, file)
}

/// The one wheel that a build left.
fn only_wheel(folder: &Path, source: &WheelSource) -> Result<PathBuf> {
    let mut wheels = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        // A link may lead to any file of this machine.
        if path.extension().is_some_and(|extension| extension == "whl") && fs::symlink_metadata(&path)?.is_file() {
            wheels.push(path);
        }
    }
    match wheels.len() {
        1 => Ok(wheels.remove(0)),
        count => Err(Error::user(format!("building {} gave {count} wheels", shown(source)))),
    }
}

/// A source for people.
pub(super) fn shown(source: &WheelSource) -> String {
    match source {
        WheelSource::Wheel { url } | WheelSource::Sdist { url, .. } => {
            format!("`{}`", file_name(url).unwrap_or_default())
        }
        WheelSource::Git { url, commit, .. } => format!("`{}` at {commit}", redact::url(url)),
        WheelSource::Folder { url, .. } => format!("the folder `{}`", url.path()),
    }
}

fn other(source: &WheelSource, locked: &LockedWheel, built: &Built) -> Error {
    Error::user(format!(
        "{} gives another wheel than the one that was locked: its sha256 is {}, and the lock says {}",
        shown(source),
        built.sha256.hex(),
        locked.sha256.hex()
    ))
    .hint("the tools that build it may have changed since (its `build-system` names no exact versions), or compilers of this machine came in")
    .hint(format!("`condaimg lock --upgrade {} --allow-build` takes what comes out now; where a file of another tool pins it, remove the lock and lock again", locked.name))
}
