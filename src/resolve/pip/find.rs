//! The resolution: what goes into uv, and what comes out of it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use fs_err as fs;
use pep508_rs::{MarkerEnvironment, Requirement, VersionOrUrl};
use url::Url;

use super::confined::Reach;
use super::pylock::{self, Package};
use super::{
    Built, Found, FoundFile, Installed, PipRequest, Scratch, Sources, Uv, choose, file_url, folder, git, path_of,
    stubs, uv,
};
use crate::lock::{LockedWheel, WheelSource};
use crate::model::git::{check_repository, is_commit, subdirectory};
use crate::spec::pip::{PipDirect, PipLocation, PipRequirement, PipWanted};
use crate::util::{Error, Result, redact};

/// The versions of glibc that uv has platforms for, newest first: `uv pip compile --help`, `--python-platform`.
const GLIBC: [u64; 12] = [40, 39, 38, 37, 36, 35, 34, 33, 32, 31, 28, 17];

/// As [`super::resolve`].
pub(super) fn find(request: &PipRequest<'_>, uv: &Uv, sources: &Sources<'_>) -> Result<Vec<Found>> {
    let scratch = Scratch::new(uv)?;
    let markers = request.target.markers()?;
    let mut run = Run { request, uv, sources, folder: scratch.path(), built: BTreeMap::new(), hashes: BTreeMap::new() };
    for folder in ["stubs", "built", "links"] {
        fs::create_dir(scratch.path().join(folder))?;
    }
    let requirements = run.requirements(&markers)?;
    fs::write(scratch.path().join("requirements.in"), requirements)?;
    fs::write(scratch.path().join("constraints.txt"), run.constraints(&markers)?)?;
    fs::write(scratch.path().join("pylock.toml"), pylock::render(request.preferred)?)?;
    run.link_built()?;
    run.compile()?;
    let answer = pylock::parse(&fs::read_to_string(scratch.path().join("pylock.toml"))?)?;
    let is_new = |package: &&Package| !request.installed.iter().any(|installed| installed.name == package.name);
    answer.packages.iter().filter(is_new).map(|package| run.found(package)).collect()
}

struct Run<'a> {
    request: &'a PipRequest<'a>,
    uv: &'a Uv,
    sources: &'a Sources<'a>,
    folder: &'a Path,
    /// Wheels that were built, by the path that uv knows them by.
    built: BTreeMap<PathBuf, Built>,
    /// By name.
    hashes: BTreeMap<String, Vec<String>>,
}

impl Run<'_> {
    /// The requirements that hold for the target, one a line.
    fn requirements(&mut self, markers: &MarkerEnvironment) -> Result<String> {
        let mut text = String::new();
        for requirement in &self.request.pip.requirements {
            let line = match &requirement.what {
                PipWanted::Index(wanted) if wanted.evaluate_markers(markers, &[]) => {
                    self.check_installed(requirement, wanted)?;
                    wanted.to_string()
                }
                PipWanted::Direct(direct) if direct.marker.evaluate(markers, &[]) => {
                    self.direct(requirement, direct)?
                }
                _ => continue,
            };
            if let Some(name) = requirement.name() {
                self.hashes.entry(name.to_string()).or_default().extend(requirement.hashes.iter().cloned());
            }
            let _ = writeln!(text, "{line}");
        }
        Ok(text)
    }

    /// A direct reference as uv gets it: what is to be built as the wheel that it becomes.
    fn direct(&mut self, requirement: &PipRequirement, direct: &PipDirect) -> Result<String> {
        self.refuse_installed(requirement)?;
        let extras = match direct.extras.as_slice() {
            [] => String::new(),
            extras => format!("[{}]", extras.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")),
        };
        let Some((source, locked)) = self.source(requirement, direct)? else {
            let url = match &direct.location {
                PipLocation::Path(path) => file_url(path)?,
                PipLocation::Archive(url) => url.clone(),
                PipLocation::Git(_) => return Err(Error::bug("a repository is no archive")),
            };
            if let (Some(hash), Some(name)) = (hash_in(&url), requirement.name()) {
                self.hashes.entry(name.to_string()).or_default().push(hash);
            }
            return Ok(match &direct.name {
                Some(name) => format!("{name}{extras} @ {url}"),
                None => url.to_string(),
            });
        };
        let place = |error: Error| {
            let hints: Vec<String> = error.hints().into_iter().map(str::to_owned).collect();
            let error = Error::user(format!("{}: {}", requirement.place, error.chain().join(": ")));
            hints.into_iter().fold(error, Error::hint)
        };
        let built = self.sources.wheel(self.uv, &source, None, locked).map_err(place)?;
        let name = built.name.split('-').next().unwrap_or_default().to_owned();
        if let Some(wanted) = &direct.name
            && !name.parse::<pep508_rs::PackageName>().is_ok_and(|name| name == *wanted)
        {
            let message = format!("{}: `{}` holds `{name}`, not `{wanted}`", requirement.place, requirement.text);
            return Err(Error::user(message).hint("correct the name before the `@`"));
        }
        let path = self.place(built, "built")?;
        Ok(format!("{name}{extras} @ {}", file_url(&path)?))
    }

    /// What a direct reference is to be built from, and what the old lock has of it; nothing when uv is to look.
    fn source(
        &self,
        requirement: &PipRequirement,
        direct: &PipDirect,
    ) -> Result<Option<(WheelSource, Option<&LockedWheel>)>> {
        // As long as the requirement says the same, its reference means what it meant.
        let unchanged = self.request.old_lines.contains(&requirement.locked_text());
        let old = |same: &dyn Fn(&WheelSource) -> bool| self.request.preferred.iter().find(|wheel| same(&wheel.source));
        match &direct.location {
            PipLocation::Git(at) => {
                let canonical = redact::canonical(&at.url);
                let same = |source: &WheelSource| {
                    matches!(source, WheelSource::Git { url, subdirectory, .. }
                    if redact::canonical(url) == canonical && *subdirectory == at.subdirectory)
                };
                if let Some(wheel) = old(&same).filter(|_| unchanged) {
                    return Ok(Some((wheel.source.clone(), Some(wheel))));
                }
                let source = WheelSource::Git {
                    url: canonical,
                    commit: git::commit(self.uv, at)?,
                    subdirectory: at.subdirectory.clone(),
                };
                let locked = old(&|old| *old == source);
                Ok(Some((source, locked)))
            }
            PipLocation::Path(path) if !path.is_file() => {
                let source = WheelSource::Folder { url: file_url(path)?, digest: folder::digest(path)? };
                let locked = old(&|old| {
                    matches!((old, &source), (WheelSource::Folder { digest, .. },
                    WheelSource::Folder { digest: now, .. }) if digest == now)
                });
                Ok(Some((source, locked)))
            }
            PipLocation::Archive(at) => {
                let same = |source: &WheelSource| {
                    matches!(source, WheelSource::Sdist { url, .. }
                    if redact::canonical(url) == redact::canonical(at))
                };
                Ok(old(&same).filter(|_| unchanged).map(|wheel| (wheel.source.clone(), Some(wheel))))
            }
            PipLocation::Path(_) => Ok(None),
        }
    }

    /// One of the two must give way, and which is for the user to say.
    fn refuse_installed(&self, requirement: &PipRequirement) -> Result<()> {
        match self.installed(requirement) {
            Some(installed) => Err(against(requirement, installed).hint(match installed.of_base {
                true => "leave it out, or extend a base without it",
                false => "take one of them out",
            })),
            None => Ok(()),
        }
    }

    /// What is there does not change, so it must be what is asked for.
    fn check_installed(&self, requirement: &PipRequirement, wanted: &Requirement<Url>) -> Result<()> {
        let Some(installed) = self.installed(requirement) else { return Ok(()) };
        let (Some(VersionOrUrl::VersionSpecifier(wanted)), Ok(version)) =
            (&wanted.version_or_url, installed.version.parse())
        else {
            return Ok(());
        };
        match wanted.contains(&version) {
            true => Ok(()),
            false => Err(against(requirement, installed).hint(uv::stands(installed))),
        }
    }

    fn installed(&self, requirement: &PipRequirement) -> Option<&Installed> {
        let name = requirement.name()?.to_string();
        self.request.installed.iter().find(|installed| installed.name == name)
    }

    /// Gives a built wheel its name in a folder that uv sees.
    fn place(&mut self, built: Built, folder: &str) -> Result<PathBuf> {
        let path = self.folder.join(folder).join(&built.name);
        if !path.exists() {
            fs::os::unix::fs::symlink(self.sources.store.archive(&built.sha256, "whl"), &path)?;
        }
        self.built.insert(path.clone(), built);
        Ok(path)
    }

    /// What limits the versions: what is there, and what the user says.
    fn constraints(&mut self, markers: &MarkerEnvironment) -> Result<String> {
        let mut text = String::new();
        for installed in self.request.installed {
            let stub = stubs::write(&self.folder.join("stubs"), installed)?;
            let _ = writeln!(text, "{} @ {}", installed.name, file_url(&stub)?);
        }
        for constraint in &self.request.pip.constraints {
            let line = match &constraint.what {
                PipWanted::Index(wanted) if wanted.evaluate_markers(markers, &[]) => wanted.to_string(),
                PipWanted::Direct(direct) if direct.marker.evaluate(markers, &[]) => self.direct(constraint, direct)?,
                _ => continue,
            };
            let _ = writeln!(text, "{line}");
        }
        Ok(text)
    }

    /// Wheels that were built of an index's source archives: uv finds them in the place of these.
    fn link_built(&mut self) -> Result<()> {
        let request = self.request;
        let built = request.preferred.iter().filter(|wheel| matches!(wheel.source, WheelSource::Sdist { .. }));
        for wheel in built.filter(|wheel| wheel.index.is_some()) {
            if self.sources.store.is_whole(&self.sources.store.archive(&wheel.sha256, "whl"), &wheel.sha256) {
                let built = self.sources.wheel(self.uv, &wheel.source, None, Some(wheel))?;
                self.place(Built { listed: true, index: wheel.index.clone(), ..built }, "links")?;
            }
        }
        Ok(())
    }

    fn compile(&self) -> Result<()> {
        let request = self.request;
        let options = &request.pip.options;
        let mut command = self.uv.uv(&["pip", "compile", "--format", "pylock.toml", "--no-header", "--quiet"]);
        command.current_dir(self.folder);
        command.args(["--python-version", &request.target.python_version, "--python-platform", &self.platform()?]);
        command.args(["requirements.in", "--constraints", "constraints.txt", "--output-file", "pylock.toml"]);
        let mut links = options.find_links.clone();
        links.push(self.folder.join("links").to_string_lossy().into_owned());
        command.env("UV_FIND_LINKS", links.join(","));
        let (installed, allow_build) = (request.installed, self.sources.allow_build);
        for (given, flag) in [
            (options.no_index, "--no-index"),
            (!self.sources.allow_build, "--no-build"),
            (request.refresh && allow_build, "--refresh"),
        ] {
            if given {
                command.arg(flag);
            }
        }
        if let Some(strategy) = &options.index_strategy {
            command.args(["--index-strategy", strategy]);
        }
        if options.pre {
            command.args(["--prerelease", "allow"]);
        }
        for name in &options.no_binary {
            command.args(["--no-binary", name]);
        }
        for name in options.only_binary.iter().filter(|_| self.sources.allow_build) {
            command.args(["--only-binary", name]);
        }
        let said = |said: &str| {
            let error = self.asked(uv::no_solution(said, installed, allow_build), said);
            match said.contains("requires Python") {
                true => error.hint(format!("the environment has Python {}", request.target.python_version)),
                false => error,
            }
        };
        // Where nothing may be built, nothing of a package runs.
        let reach = Reach {
            network: !self.uv.is_offline(),
            code: allow_build,
            data: self.local(),
            write: vec![self.folder.to_owned()],
            fresh: (request.refresh && !allow_build).then(|| self.folder.join("cache")),
        };
        command.env("TMPDIR", self.folder);
        self.uv.confined(&command, reach, said).map(|_| ())
    }

    /// What uv reads on this machine: built wheels, and what the requirements name.
    fn local(&self) -> Vec<PathBuf> {
        let pip = self.request.pip;
        let mut paths: Vec<PathBuf> =
            self.built.values().map(|it| self.sources.store.archive(&it.sha256, "whl")).collect();
        let requirements = pip.requirements.iter().chain(&pip.constraints);
        paths.extend(requirements.filter_map(|requirement| match &requirement.what {
            PipWanted::Direct(direct) => match &direct.location {
                PipLocation::Path(path) => Some(path.clone()),
                PipLocation::Archive(url) => url.to_file_path().ok(),
                PipLocation::Git(_) => None,
            },
            PipWanted::Index(_) => None,
        }));
        paths.retain(|path| path.exists());
        paths
    }

    /// Adds which lines of the user an explanation is about.
    fn asked(&self, error: Error, said: &str) -> Error {
        let names = |installed: &Installed| installed.name.clone();
        let as_installed: Vec<Installed> = self
            .request
            .pip
            .requirements
            .iter()
            .filter_map(|requirement| requirement.name())
            .map(|name| Installed { name: name.to_string(), ..Installed::default() })
            .collect();
        let named: Vec<String> = super::named_in(said, &as_installed).into_iter().map(names).collect();
        let lines = self.request.pip.requirements.iter();
        let lines = lines.filter(|it| it.name().is_some_and(|name| named.contains(&name.to_string())));
        lines.take(5).fold(error, |error, line| error.hint(format!("{} asks for `{}`", line.place, line.text)))
    }

    /// The platform that uv has for the target: with the newest glibc that is not newer than the target's.
    fn platform(&self) -> Result<String> {
        let target = self.request.target;
        let machine = target.machine()?;
        let (_, minor) = target.glibc.filter(|(major, _)| *major == 2).ok_or_else(|| {
            Error::user("pip packages need the version of the image's glibc").hint("`--glibc VERSION` promises one")
        })?;
        let known = GLIBC.iter().find(|known| **known <= minor).ok_or_else(|| {
            Error::user(format!("pip packages cannot be resolved for glibc 2.{minor}, which is older than 2.17"))
                .hint("choose a newer `--base`")
        })?;
        Ok(format!("{machine}-manylinux_2_{known}"))
    }

    fn found(&self, package: &Package) -> Result<Found> {
        let hashes = self.hashes.get(&package.name).cloned().unwrap_or_default();
        let file = self.file(package, &hashes)?;
        if self.request.pip.requires_hashes() && hashes.is_empty() {
            let version = package.version.as_deref().unwrap_or_default();
            return Err(Error::user(format!(
                "`{} {version}` has no `--hash`, and other requirements have",
                package.name
            ))
            .hint("as for pip: with one hash, all that is installed needs one, what is needed by others, too"));
        }
        Ok(Found { name: package.name.clone(), file, hashes })
    }

    fn file(&self, package: &Package, hashes: &[String]) -> Result<FoundFile> {
        if let Some(vcs) = &package.vcs {
            let url =
                vcs.url.as_ref().ok_or_else(|| Error::user(format!("uv names no repository of `{}`", package.name)))?;
            let named = || format!("uv names a repository of `{}` that cannot be used", package.name);
            check_repository(url).map_err(|what| Error::user(format!("{}: {what}", named())))?;
            if !is_commit(&vcs.commit_id) {
                return Err(Error::user(format!("{}: it names no whole commit", named())));
            }
            let source = WheelSource::Git {
                url: redact::canonical(url),
                commit: vcs.commit_id.clone(),
                subdirectory: vcs
                    .subdirectory
                    .as_deref()
                    .map(subdirectory)
                    .transpose()
                    .map_err(|what| Error::user(format!("{}: {what}", named())))?
                    .flatten(),
            };
            return Ok(FoundFile::Source { source, name: None, listed: false, index: None });
        }
        if let Some(directory) = &package.directory {
            let path = self.folder.join(&directory.path);
            let source = WheelSource::Folder { url: file_url(&path)?, digest: folder::digest(&path)? };
            return Ok(FoundFile::Source { source, name: None, listed: false, index: None });
        }
        let file = choose::choose(package, self.request.target, &self.request.pip.options, hashes, self.folder)?;
        match &file {
            FoundFile::Wheel { url, .. } if url.scheme() == "file" => {
                let built = self.built.get(&path_of(url)?).cloned();
                Ok(built.map_or(file, |built| FoundFile::Built(Box::new(built))))
            }
            _ => Ok(file),
        }
    }
}

fn against(requirement: &PipRequirement, installed: &Installed) -> Error {
    Error::user(format!(
        "{}: `{}` stands against {}, which brings `{}` {}",
        requirement.place, requirement.text, installed.bringer, installed.name, installed.version
    ))
}

/// The hash in a URL's fragment (`#sha256=HEX`).
fn hash_in(url: &Url) -> Option<String> {
    let fields = url.fragment()?.split('&');
    fields
        .filter_map(|field| field.split_once('='))
        .find(|(key, _)| *key == "sha256")
        .map(|(_, hex)| format!("sha256:{hex}"))
}
