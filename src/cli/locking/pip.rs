//! The pip packages of an environment: resolved beside its conda packages, downloaded or built, and locked.

mod pinned;

use rattler_conda_types::Subdir;
use url::Url;

use super::confined;
use super::from::{self, Brought};
use super::installed::{Extras, Installed};
use super::options::{EnvironmentOptions, LockMode, Upgrade};
use super::{fetch_locked, interpreter, locked_origin, made_origin, resolving};
use crate::cli::world::World;
use crate::lock::{
    Lock, LockedPackage, LockedWheel, Locks, Pinned, Pins, WheelFacts, WheelSource, file_name, target_python,
};
use crate::model::{Flavour, Platform};
use crate::pack::bytecode::{Interpreter, InterpreterParts};
use crate::pack::{Archive, WheelFile, wheel};
use crate::resolve::pip::{
    Built, Found, FoundFile, PipRequest, PipTarget, Sources, Uv, UvOptions, folder_digest, index_urls, references_of,
    resolve,
};
use crate::resolve::{self, Channels, Credentials, Stored, Wanted};
use crate::spec::Spec;
use crate::util::report::{Outcome, Step};
use crate::util::{Error, Result, redact};

/// Files that are fetched at once.
const PARALLEL_DOWNLOADS: usize = 8;

/// What a lock says of the requirements that it was made from, or of what is pinned in their place.
///
/// # Errors
/// When a folder or file that they name cannot be read.
pub fn lines(spec: &Spec, pinned: Option<&Pinned>) -> Result<Vec<String>> {
    // What is in the network is pinned by the lock; what is on this machine may have changed.
    let mut lines = spec.pip.lines(|path| folder_digest(path).map(Some))?;
    if let Some(pinned) = pinned {
        lines.extend(pinned::lines(pinned)?);
    }
    Ok(lines)
}

/// What resolves, builds and downloads for one environment.
pub(super) struct Work<'a> {
    options: &'a EnvironmentOptions,
    spec: &'a Spec,
    pub(super) world: &'a World,
    target: PipTarget,
    channels: Channels,
    /// Those of the channels and of the indexes.
    credentials: Credentials,
}

/// The wheels of a new lock, which has its conda packages already, those of a base that is extended among them; what
/// that brings is not among the wheels.
///
/// # Errors
/// Whatever is wrong with the requirements, the indexes, the sources or the files.
pub async fn wheels(
    options: &EnvironmentOptions,
    spec: &Spec,
    (lock, brought): (&Lock, Option<&Brought>),
    old: Option<&Lock>,
    others: &Locks,
    world: &World,
) -> Result<Vec<LockedWheel>> {
    if let Some(pins) = &spec.pins {
        let wheels = pins.of(&lock.platform)?.wheels;
        if !wheels.is_empty() {
            return pinned::wheels(wheels, options, (spec, pins), (lock, old, others), world).await;
        }
    }
    if spec.pip.is_empty() {
        return Ok(Vec::new());
    }
    let work = Work::new(options, spec, lock, world)?;
    let mut asked = Extras::of_requirements(&spec.pip, &work.target)?;
    let mut installed = Installed::of(&work, lock, brought, &asked).await?;
    if installed.satisfies(&spec.pip, &work.target)? {
        return Ok(Vec::new());
    }
    let uv = work.uv(lock, others).await?;
    loop {
        let wheels = work.resolved(&uv, &installed, old).await?;
        // What an extra of the base's packages needs is looked up only where somebody asks for it.
        if !asked.add_unknown(&wheels, &installed, &work.target)? {
            return Ok(wheels);
        }
        installed = Installed::of(&work, lock, brought, &asked).await?;
    }
}

/// Brings wheels of a lock into the store, by their indexes: those that are missing are downloaded, or built.
///
/// # Errors
/// When they cannot be had, or are not what was locked.
pub async fn fetch(
    options: &EnvironmentOptions,
    spec: &Spec,
    lock: &Lock,
    needed: impl IntoIterator<Item = usize>,
    world: &World,
) -> Result<()> {
    let is_missing = |wheel: &&LockedWheel| {
        let path = world.store.archive(&wheel.sha256, "whl");
        !world.store.has_file(&path, Some(wheel.size).filter(|size| *size > 0))
    };
    let missing: Vec<&LockedWheel> = needed.into_iter().map(|index| &lock.wheels[index]).filter(is_missing).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let work = Work::new(options, spec, lock, world)?;
    let origin = locked_origin(spec);
    let files = missing.iter().filter_map(|wheel| match &wheel.source {
        WheelSource::Wheel { url } => {
            Some(Wanted::of_pypi(&wheel.file_name, url, Some(wheel.sha256), Some(wheel.size), origin))
        }
        WheelSource::Sdist { url, sha256 } => Some(Wanted::of_pypi(&last_part(url), url, Some(*sha256), None, origin)),
        _ => None,
    });
    work.bring(&files.collect::<Vec<_>>()).await?;
    let built: Vec<&LockedWheel> = missing.into_iter().filter(|wheel| wheel.source.is_built()).collect();
    if built.is_empty() {
        return Ok(());
    }
    let uv = work.uv(lock, &Locks::default()).await?;
    // The lock says what must come out: anything else is refused, whatever is allowed.
    let sources = Sources { allow_build: false, ..work.sources(Some(lock)) };
    tokio::task::block_in_place(|| {
        built.into_iter().try_for_each(|wheel| sources.wheel(&uv, &wheel.source, None, Some(wheel)).map(|_| ()))
    })
}

fn last_part(url: &Url) -> String {
    file_name(url).unwrap_or_default()
}

fn is_of_default_index(found: &Found) -> bool {
    match &found.file {
        FoundFile::Wheel { listed, index, .. } | FoundFile::Source { listed, index, .. } => *listed && index.is_none(),
        FoundFile::Built(built) => built.listed && built.index.is_none(),
    }
}

impl<'a> Work<'a> {
    fn new(options: &'a EnvironmentOptions, spec: &'a Spec, lock: &Lock, world: &'a World) -> Result<Self> {
        let python = lock.package("python").ok_or_else(|| {
            Error::user(format!("`{}` has pip packages and no Python for them", spec.file.display()))
                .hint("add `python` to the dependencies")
        })?;
        let record = &python.record.package_record;
        let target = target_python(record).filter(|target| target.flavour != Flavour::Other).ok_or_else(|| {
            Error::user(format!("pip packages cannot be resolved for `{}`: it is no CPython", python.full_name()))
        })?;
        let (default, others) = index_urls(&spec.pip);
        let indexes = default.into_iter().chain(others);
        // An index may have a name before its URL.
        let indexes = indexes.filter_map(|text| {
            let named = text.split_once('=').filter(|(name, _)| !name.contains(['/', ':']));
            named.map_or(text.as_str(), |(_, url)| url).parse().ok()
        });
        let pinned = spec.pins.iter().flat_map(Pins::pip_urls);
        let channels = resolving(options, &lock.platform, spec, world)?.channels_of(spec)?;
        Ok(Self {
            options,
            spec,
            world,
            target: PipTarget {
                subdir: lock.platform.subdir,
                glibc: lock.glibc(),
                python: target,
                python_version: record.version.to_string(),
            },
            credentials: channels.credentials.clone().with_pip(spec.pip.urls().chain(indexes).chain(pinned)),
            channels,
        })
    }

    /// Resolves beside what is installed, and brings the wheels into the store.
    async fn resolved(&self, uv: &Uv, installed: &Installed, old: Option<&Lock>) -> Result<Vec<LockedWheel>> {
        let (options, pip) = (self.options, &self.spec.pip);
        let keeps = |wheel: &&LockedWheel| options.mode.keeps(&wheel.name) && !installed.has(&wheel.name);
        let preferred: Vec<LockedWheel> =
            old.map(|old| old.wheels.iter().filter(keeps).cloned().collect()).unwrap_or_default();
        let request = PipRequest {
            pip,
            target: &self.target,
            installed: &installed.distributions,
            preferred: &preferred,
            old_lines: old.map_or(&[], |old| old.pip.as_slice()),
            refresh: matches!(&options.mode, LockMode::Make(Upgrade::All | Upgrade::Packages(_))),
        };
        let sources = self.sources(old);
        let progress = self.world.reporter.begin(Step::Resolve, 0);
        let found = tokio::task::block_in_place(|| resolve(&request, uv, &sources))?;
        let default_index = match found.iter().any(is_of_default_index) {
            true => tokio::task::block_in_place(|| uv.default_index(pip))?,
            false => None,
        };
        progress.finish(&Outcome::Quiet {});
        let mut wheels = self.obtain(&found, &preferred, &sources, Some(uv), default_index.as_ref()).await?;
        wheels.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(wheels)
    }

    /// The archives of packages of the lock, wherever they are from.
    pub(super) async fn archives(&self, lock: &Lock, packages: &[&LockedPackage]) -> Result<Vec<Archive>> {
        let records: Vec<_> = packages
            .iter()
            .map(|package| match lock.is_of_base(package.name()) {
                true => from::located(&package.record, &self.channels),
                false => package.record.clone(),
            })
            .collect();
        fetch_locked(&records, locked_origin(self.spec), &self.credentials, self.options, self.world).await
    }

    /// `old` is the lock that has what is to be built, if one has.
    fn sources(&self, old: Option<&Lock>) -> Sources<'_> {
        Sources {
            store: &self.world.store,
            target: &self.target,
            pip: &self.spec.pip,
            references: old.map(|old| references_of(&self.spec.pip, old)).unwrap_or_default(),
            allow_build: self.options.args.allow_build && !self.options.args.no_build,
            no_build: self.options.args.no_build,
            reporter: &self.world.reporter,
        }
    }

    /// uv with a Python of the environment's version that runs here: the environment's own, if it does.
    async fn uv(&self, lock: &Lock, others: &Locks) -> Result<Uv> {
        confined::settle(self.options, &self.world.reporter)?;
        let (info, _) = crate::plan::python_of(lock)?.ok_or_else(|| Error::bug("a Python got lost"))?;
        let (packages, subdir) = self.interpreter(lock, others).await?;
        let archives = self.archives(lock, &packages.iter().collect::<Vec<_>>()).await.map_err(|error| {
            match lock.is_of_base("python") {
                true => error.hint(
                    "pip packages are resolved with the base's Python, whose packages are fetched for that from where the base had them",
                ),
                false => error,
            }
        })?;
        let store = self.world.store.clone();
        let (python, interpreter) = tokio::task::spawn_blocking(move || {
            let mut parts: Vec<(&LockedPackage, &Archive)> = packages.iter().zip(&archives).collect();
            parts.sort_by_key(|(package, _)| package.name() != "python");
            let parts = InterpreterParts { packages: parts, python: &info, subdir };
            Interpreter::prepare(&parts, &store)
                .map(|interpreter| (interpreter.executable().to_owned(), interpreter.folder().to_owned()))
        })
        .await
        .map_err(|error| Error::bug("unpacking the Python ended early").caused_by(error))??;
        self.world.store.claim_all(&self.world.store.uv());
        Uv::find(
            &self.spec.pip,
            UvOptions {
                python,
                interpreter,
                cache: self.world.store.uv(),
                scratch: self.world.store.scratch(),
                offline: self.options.args.offline,
                exclude_newer: self.options.exclude_newer.clone(),
                credentials: self.credentials.clone(),
            },
        )
    }

    async fn interpreter(&self, lock: &Lock, others: &Locks) -> Result<(Vec<LockedPackage>, Subdir)> {
        let builder = Platform::of_builder().ok_or_else(|| {
            Error::user(
                "pip packages cannot be resolved on this machine: no Python of the environment's version runs here",
            )
        })?;
        if builder == lock.platform.subdir {
            let needed = lock.closure(["python"]);
            let packages = lock.packages.iter().filter(|package| needed.contains(package.name()));
            return Ok((packages.cloned().collect(), builder));
        }
        let known = lock.interpreter(builder).or_else(|| others.get(&lock.platform)?.interpreter(builder));
        let packages = match known {
            Some(packages) => packages.to_vec(),
            None => interpreter::solve(self.options, self.spec, lock, others, builder, self.world).await?,
        };
        Ok((packages, builder))
    }

    async fn bring(&self, wanted: &[Wanted]) -> Result<Vec<Stored>> {
        let (offline, world) = (self.options.args.offline, self.world);
        let client = resolve::http_client(offline, &self.credentials)?;
        resolve::bring_all(wanted, &world.store, &client, PARALLEL_DOWNLOADS, offline, &world.reporter).await
    }

    /// The wheels of what was found, in the store, in the same order. uv is needed where a wheel is to be built.
    async fn obtain(
        &self,
        found: &[Found],
        preferred: &[LockedWheel],
        sources: &Sources<'_>,
        uv: Option<&Uv>,
        default_index: Option<&Url>,
    ) -> Result<Vec<LockedWheel>> {
        let origin = made_origin(self.spec);
        let wanted = |found: &Found| match &found.file {
            FoundFile::Wheel { name, url, sha256, size, .. } => {
                Some(Wanted::of_pypi(name, url, *sha256, *size, origin))
            }
            FoundFile::Source { source: WheelSource::Sdist { url, sha256 }, name, .. } => {
                let name = name.clone().unwrap_or_else(|| last_part(url));
                Some(Wanted::of_pypi(&name, url, Some(*sha256), None, origin))
            }
            _ => None,
        };
        let mut stored = self.bring(&found.iter().filter_map(wanted).collect::<Vec<_>>()).await?.into_iter();
        let mut wheels = Vec::with_capacity(found.len());
        for found in found {
            let stored = if wanted(found).is_some() { stored.next() } else { None };
            if let Some(stored) = &stored {
                check_hashes(found, stored)?;
            }
            let wheel = match (&found.file, stored) {
                (FoundFile::Wheel { name, url, listed, index, .. }, Some(stored)) => Built {
                    name: name.clone(),
                    sha256: stored.sha256,
                    size: stored.size,
                    source: WheelSource::Wheel { url: redact::canonical(url) },
                    listed: *listed,
                    index: index.clone(),
                },
                (FoundFile::Built(built), _) => Built::clone(built),
                (FoundFile::Source { source, name, listed, index }, _) => {
                    let uv = uv.ok_or_else(|| Error::bug("a wheel is to be built without uv"))?;
                    let locked = preferred.iter().find(|locked| locked.source == *source);
                    let build = || sources.wheel(uv, source, name.as_deref(), locked);
                    let built = tokio::task::block_in_place(build).map_err(|error| match locked {
                        Some(_) => error,
                        None => error.hint(format!("`{}` has no wheel that fits", found.name)),
                    })?;
                    Built { listed: *listed, index: index.clone(), ..built }
                }
                (FoundFile::Wheel { .. }, None) => return Err(Error::bug("a wheel was not downloaded")),
            };
            wheels.push(self.locked(wheel, default_index)?);
        }
        Ok(wheels)
    }

    /// A wheel in the store as the lock has it, but for its facts.
    fn locked(&self, built: Built, default_index: Option<&Url>) -> Result<LockedWheel> {
        let store = &self.world.store;
        let file = WheelFile { path: store.archive(&built.sha256, "whl"), name: built.name.clone() };
        let metadata = wheel::read_metadata(&file)?;
        let check = || {
            wheel::check_machine_code(&file, &metadata.tags, self.target.glibc, self.target.subdir, &store.scratch())
        };
        tokio::task::block_in_place(check)?;
        Ok(LockedWheel {
            name: metadata.name,
            version: metadata.version,
            file_name: built.name,
            sha256: built.sha256,
            size: built.size,
            source: built.source,
            index: built.index.or_else(|| default_index.cloned().filter(|_| built.listed)),
            requires_dist: metadata.requires_dist,
            requires_python: metadata.requires_python,
            facts: WheelFacts::default(),
        })
    }
}

/// Compares a file with the hashes that the user gives.
fn check_hashes(found: &Found, stored: &Stored) -> Result<()> {
    if found.hashes.is_empty() {
        return Ok(());
    }
    let mut has = vec![format!("sha256:{}", stored.sha256.hex())];
    if found.hashes.iter().any(|hash| !hash.starts_with("sha256:")) {
        use sha2::Digest as _;
        let bytes = fs_err::read(&stored.path)?;
        has.push(format!("sha384:{}", hex::encode(sha2::Sha384::digest(&bytes))));
        has.push(format!("sha512:{}", hex::encode(sha2::Sha512::digest(&bytes))));
    }
    match found.hashes.iter().any(|hash| has.contains(hash)) {
        true => Ok(()),
        false => Err(Error::user(format!(
            "the file of `{}` has none of the hashes that the requirements give: it has {}",
            found.name, has[0]
        ))
        .hint("somebody replaced it on the server, or the hashes are of other files")),
    }
}
