//! From spec to locks: the current ones as they are, else new ones.

pub mod asked;
pub mod base;
pub mod base_files;
pub mod cached;
pub mod confined;
mod diff;
mod errors;
pub mod facts;
mod fetch;
pub mod from;
mod installed;
pub mod interpreter;
pub mod options;
mod pins;
pub mod pip;
pub mod settings;
mod stability;
pub mod verified;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rattler::install::PythonInfo;
use rattler_conda_types::{RepoDataRecord, Subdir};

use asked::Asked;
pub use base::adopt as adopt_base;
use errors::{check_base, stale};
pub use errors::{edited, missing};
use fetch::{PARALLEL_DOWNLOADS, fetch, made_origin, readable};
pub use fetch::{fetch_locked, locked_origin};
use from::Brought;
use options::{EnvironmentOptions, LockMode, Upgrade, default_lock, priority_name};

use crate::cli::events;
use crate::cli::world::World;
use crate::image::Base;
use crate::lock::{self, Inputs, Lock, LockedBase, Locks, Pinned, classify, local};
use crate::model::{BaseRef, Platform};
use crate::pack::wheel::normalise_name;
use crate::resolve::{self, ResolveOptions, VirtualPackageOptions};
use crate::spec::Spec;
use crate::util::{Error, Result, files, redact};

/// A platform of the build: its lock and its opened base.
pub struct Locked {
    pub platform: Platform,
    pub lock: Arc<Lock>,
    pub base: Base,
    /// Whether the lock was made just now.
    pub made: bool,
}

/// The locks of a build's platforms and their bases. A lock that is current is used as it is; those that are missing
/// or stale are made, and written when all of them are.
pub async fn obtain(options: &EnvironmentOptions, spec: &Spec, world: &World) -> Result<Vec<Locked>> {
    tell_condarc(options, spec, world);
    if let Some(notice) = settings::outdone_base(&options.args, &spec.settings) {
        world.reporter.notice(&notice);
    }
    let path = path(options, spec);
    // A build that was killed while it wrote the lock may have left something.
    if options.keeps_lock {
        files::sweep(folder(&path));
    }
    let old = lock::read(&path)?.unwrap_or_default();
    check_upgrade(options, &old)?;
    // All of them before anything is solved: one may lack a platform.
    let mut opened = Vec::with_capacity(options.platforms.len());
    for platform in &options.platforms {
        let asked = options.named(platform, Asked::of(options, platform, spec, &old, world))?;
        let base = base::open(options, platform, asked.old.as_ref(), world).await;
        opened.push((asked, options.named(platform, base)?));
    }
    let mut bases = Vec::with_capacity(options.platforms.len());
    let mut made = Locks::default();
    for (platform, (asked, base)) in options.platforms.iter().zip(opened) {
        let new = options.named(platform, one(options, platform, spec, asked, &old, &base, world).await)?;
        bases.push((base, new.as_ref().is_some_and(|(_, made)| *made)));
        if let Some((lock, _)) = new {
            made.insert(with_interpreter(options, spec, lock, &old, &made, world).await?);
        }
    }
    let locks = match made.is_empty() {
        true => {
            if matches!(options.mode, LockMode::Make(_)) {
                world.reporter.event(&events::lock_file(&path, &old, false));
            }
            old
        }
        false => {
            let new = save(options, spec, made.into_iter().collect(), world)?;
            diff::tell(&options.platforms, &old, &new, world.reporter.as_ref());
            new
        }
    };
    let platforms = options.platforms.iter().zip(bases).map(|(platform, (base, made))| {
        let lock = locks.get(platform).ok_or_else(|| Error::bug(format!("{platform} has no lock")))?;
        Ok(Locked { platform: platform.clone(), lock: Arc::new(lock.clone()), base, made })
    });
    platforms.collect()
}

/// Where the lock lies.
pub fn path(options: &EnvironmentOptions, spec: &Spec) -> PathBuf {
    if spec.is_lock {
        return spec.file.clone();
    }
    options.lock_file.clone().unwrap_or_else(|| default_lock(spec.settings.file().unwrap_or(&spec.file)))
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Puts locks in the places of those of their platforms; returns all that the file holds then.
pub fn save(options: &EnvironmentOptions, spec: &Spec, new: Vec<Lock>, world: &World) -> Result<Locks> {
    let path = path(options, spec);
    let mut locks = lock::read(&path)?.unwrap_or_default();
    new.into_iter().for_each(|lock| locks.insert(lock));
    let folder = std::path::absolute(folder(&path))?;
    let text = lock::render(&locks, &folder)?;
    // What was written is what is used: a build from the file has the same bytes.
    let locks = lock::parse(&text, &folder)?;
    if write(&path, &text, options, world)? {
        world.reporter.event(&events::lock_file(&path, &locks, true));
    }
    Ok(locks)
}

/// The lock of one platform if a new one is needed; whether that was made just now.
async fn one(
    options: &EnvironmentOptions,
    platform: &Platform,
    spec: &Spec,
    asked: Asked,
    locks: &Locks,
    base: &Base,
    world: &World,
) -> Result<Option<(Lock, bool)>> {
    let wanted = asked.wanted(spec, base.digest);
    let Asked { path, lock_folder, pinned, .. } = &asked;
    match asked.old.as_ref() {
        Some(lock) if options.mode == LockMode::Frozen => {
            check_base(path, &lock.base, options, base.digest)?;
            Ok(None)
        }
        Some(lock) if !options.mode.upgrades() && lock::changes(lock, wanted).is_empty() => {
            let fills = matches!(options.mode, LockMode::Make(_)) && !options.facts_later && !lock.has_facts;
            let mut filled =
                if fills { Some(facts::complete(options, spec, lock.clone(), world).await?) } else { None };
            let named = reference(&options.base, lock_folder)?;
            if matches!(options.mode, LockMode::Make(_)) && lock.base.reference != named {
                // The same content in another place.
                filled.get_or_insert_with(|| lock.clone()).base.reference = named;
            }
            if stability::is_due(lock, options) {
                let lock = filled.unwrap_or_else(|| lock.clone());
                filled = Some(stability::renew(options, spec, lock, world).await?);
            }
            // Those of a build are read again each time, until the lock is made again.
            if options.mode.writes() && !filled.as_ref().unwrap_or(lock).base.facts.whole {
                let lock = filled.unwrap_or_else(|| lock.clone());
                filled = Some(base::with_whole_facts(options, lock, base, world).await?);
            }
            Ok(filled.map(|lock| (lock, true)))
        }
        Some(lock) if options.mode == LockMode::Locked => Err(stale(path, lock, options, &lock::changes(lock, wanted))),
        old => {
            pins::check_options(options, spec)?;
            if let Some(lock) = old.filter(|lock| !lock.edited.is_empty()) {
                world.reporter.notice(&format!("{}; it is made anew", edited(path, lock)));
            }
            if let Some(mut lock) = cached::find(wanted, platform, lock_folder, world).await {
                world.reporter.notice("the lock was made before, and is taken from the cache registry");
                lock.base.reference = reference(&options.base, lock_folder)?;
                return Ok(Some((lock, false)));
            }
            let new =
                make(options, platform, spec, base, asked.inputs.clone(), pinned.as_ref(), old, locks, world).await?;
            lock::check_wheels(&new)?;
            Ok(Some((new, true)))
        }
    }
}

/// The lock with its inputs as they are written today: older ones may name a local channel in another way.
fn with_written_channels(mut lock: Lock, lock_folder: &Path) -> Lock {
    let written = |channel: &mut String| *channel = local::written_channel(channel, lock_folder, lock_folder);
    lock.inputs.iter_mut().flat_map(|inputs| &mut inputs.channels).for_each(written);
    lock
}

fn texts(spec: &Spec) -> Vec<String> {
    if let Some(pins) = &spec.pins {
        return pins.specs().to_vec();
    }
    spec.dependencies.iter().map(|dependency| dependency.text.clone()).collect()
}

/// Writes the lock; whether that was done: a build goes on without it in a folder that cannot be written to.
fn write(path: &Path, text: &str, options: &EnvironmentOptions, world: &World) -> Result<bool> {
    if !options.keeps_lock {
        world.reporter.notice(&format!("the lock `{}` is not written; `--write-lock` writes it", path.display()));
        return Ok(false);
    }
    let Err(error) = lock::write(path, text) else { return Ok(true) };
    let read_only = std::error::Error::source(&error)
        .and_then(|source| source.downcast_ref::<std::io::Error>())
        .is_some_and(|source| {
            matches!(source.kind(), std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem)
        });
    if read_only && options.mode == LockMode::Renew {
        world.reporter.notice(&format!("the lock is not kept: {error}"));
        return Ok(false);
    }
    Err(error)
}

/// Says what conda's configuration decides and users may not expect.
fn tell_condarc(options: &EnvironmentOptions, spec: &Spec, world: &World) {
    let condarc = &options.condarc;
    for warning in &condarc.warnings {
        world.reporter.warn(warning);
    }
    for notice in &condarc.notices {
        world.reporter.notice(notice);
    }
    let channels = resolve::channels_of_condarc(spec, &options.channels, options.args.override_channels, condarc);
    if let Some((channels, origin)) = channels {
        let channels: Vec<String> = channels.iter().map(|channel| redact::text(channel)).collect();
        world.reporter.notice(&format!(
            "`{}` names no channel: those of {origin} are searched ({})",
            spec.file.display(),
            channels.join(", ")
        ));
    }
}

fn inputs(
    options: &EnvironmentOptions,
    platform: &Platform,
    spec: &Spec,
    lock_folder: &Path,
    world: &World,
) -> Result<Inputs> {
    let here = std::path::absolute(".")?;
    let written = |channel: &String, folder: &Path| local::written_channel(channel, folder, lock_folder);
    let mut channels: Vec<String> = options.channels.iter().map(|channel| written(channel, &here)).collect();
    if !options.args.override_channels {
        let folder = std::path::absolute(spec.folder())?;
        channels.extend(spec.channels.iter().map(|channel| written(channel, &folder)));
    }
    let override_channels = options.args.override_channels;
    if let Some((more, _)) = resolve::channels_of_condarc(spec, &options.channels, override_channels, &options.condarc)
    {
        channels.extend(more.iter().cloned());
    }
    let mut declared: Vec<String> =
        options.virtual_packages.iter().map(|(name, version)| format!("{name}={version}")).collect();
    declared.sort();
    declared.extend(options.cuda.iter().map(|version| format!("--cuda={version}")));
    declared.extend(options.glibc.iter().map(|version| format!("--glibc={version}")));
    Ok(Inputs {
        channels: channels.iter().map(|channel| redact::text(channel)).collect(),
        channel_urls: resolving(options, platform, spec, world)?.channels_of(spec)?.meanings().clone(),
        channel_priority: priority_name(options.channel_priority).to_owned(),
        declared,
        base: match &options.base {
            BaseRef::Registry(reference) => Some(reference.clone()),
            _ => None,
        },
        extends: options.extends,
        exclude_newer: options.exclude_newer.as_ref().map(ToString::to_string),
        allow_clobber: options.allow_clobber.iter().map(ToString::to_string).collect(),
        pins: None,
    })
}

/// Solves and reads the archives. What the old lock holds is preferred; for a platform that is new to the file, the
/// versions that its other platforms have.
#[expect(clippy::too_many_arguments, reason = "all that a lock is made of")]
async fn make(
    options: &EnvironmentOptions,
    platform: &Platform,
    spec: &Spec,
    base: &Base,
    inputs: Inputs,
    pinned: Option<&Pinned>,
    old: Option<&Lock>,
    file: &Locks,
    world: &World,
) -> Result<Lock> {
    let brought = match options.extends {
        true => Some(from::read(options, platform, base, world).await?),
        false => None,
    };
    let base_facts = match &brought {
        Some(brought) => brought.facts.clone(),
        None => base::facts(options, base, world).await?,
    };
    let glibc = options.glibc.clone().or_else(|| base_facts.glibc.clone()).ok_or_else(|| {
        Error::user(format!("the base `{}` has no GNU C library", options.base))
            .hint("conda packages need one: choose another `--base`, or promise one with `--glibc VERSION`")
    })?;
    let mut resolving = resolving(options, platform, spec, world)?;
    resolving.virtual_packages = VirtualPackageOptions {
        glibc: Some(glibc),
        cuda: options.cuda.clone(),
        extra: options.virtual_packages.clone(),
    };
    if let Some(brought) = &brought {
        brought.declare(&mut resolving.virtual_packages);
        resolving.present = brought.present(options);
    }
    let preferred: Vec<&Lock> = old.map_or_else(|| file.iter().collect(), |old| vec![old]);
    let preferred = preferred.iter().flat_map(|lock| &lock.packages).filter(|it| options.mode.keeps(it.name()));
    resolving.locked = preferred.map(|package| package.record.clone()).collect();
    let resolution = match &spec.pins {
        Some(pins) => pins::resolve(pins, spec, &resolving, options, world).await?,
        None => resolve::resolve(spec, &resolving).await?,
    };
    let records = match (&brought, &spec.pins) {
        (Some(brought), Some(pins)) => brought.without(resolution.records, pins.file(), options)?,
        _ => resolution.records,
    };
    let archives = facts::Archives { credentials: &resolution.credentials, options, world, origin: made_origin(spec) };
    let python = python_info(records.iter().chain(brought.iter().filter_map(Brought::python)), platform.subdir)?;
    // What conda brings to pip is among the facts.
    let has_wheels = !spec.pip.is_empty() || pinned.is_some_and(|pinned| !pinned.wheels.is_empty());
    let facts_later = options.facts_later && !has_wheels;
    if options.facts_later && !facts_later {
        world.reporter.notice(&format!(
            "`--no-facts` changes nothing: `{}` has pip packages, and what conda brings to them is read from the archives",
            spec.file.display()
        ));
    }
    let mut packages = match facts_later {
        true => archives.without_facts(records).await?,
        false => archives.packages(records, python.clone()).await?,
    };
    classify(&mut packages, old, &resolution.stability, options.refresh_stability);
    let mut lock = Lock {
        inputs: Some(inputs),
        platform: platform.clone(),
        channels: resolution.channels.iter().map(|url| url.as_str().trim_end_matches('/').to_owned()).collect(),
        virtual_packages: resolution.virtual_packages,
        specs: texts(spec),
        pip: pip::lines(spec, pinned)?,
        variables: spec.variables.clone(),
        base: LockedBase {
            reference: reference(&options.base, &std::path::absolute(folder(&path(options, spec)))?)?,
            digest: base.digest,
            facts: base_facts,
            environment: None,
            documents: base::documents(&options.base, base.digest, &world.store),
        },
        packages,
        wheels: Vec::new(),
        has_facts: !facts_later,
        edited: Vec::new(),
        interpreters: BTreeMap::new(),
    };
    if let (true, Some(_), Some(pins)) = (has_wheels, &brought, &spec.pins) {
        return Err(Error::user(format!("`{}` pins packages of PyPI, on top of `{}`", pins.file().display(), options.base))
            .hint("what a base has and what a lock of another tool pins is not reconciled: build without `from`, or write an environment.yml"));
    }
    let wheels = match &brought {
        Some(brought) if !spec.pip.is_empty() => {
            let mut whole = lock.clone();
            brought.join(&mut whole, BTreeSet::new());
            pip::wheels(options, spec, (&whole, Some(brought)), old, file, world).await?
        }
        _ => pip::wheels(options, spec, (&lock, None), old, file, world).await?,
    };
    let packages = std::mem::take(&mut lock.packages);
    (lock.packages, lock.wheels) =
        archives.with_wheels(packages, wheels, python.clone(), &options.allow_clobber).await?;
    if let Some(brought) = &brought {
        let removed = base_files::check((brought, base), &lock, python.as_ref(), &archives).await?;
        brought.join(&mut lock, removed);
    }
    Ok(lock)
}

/// The base as the lock names it.
fn reference(base: &BaseRef, lock_folder: &Path) -> Result<String> {
    Ok(local::base_place(base, lock_folder)?.to_string())
}

/// What is to be upgraded must be there: a name that is mistyped would otherwise change nothing, and say nothing.
fn check_upgrade(options: &EnvironmentOptions, old: &Locks) -> Result<()> {
    let LockMode::Make(Upgrade::Packages(names)) = &options.mode else { return Ok(()) };
    let of_base = |lock: &Lock, name: &str| {
        let by_pip = lock.extended().is_some_and(|base| base.distributions.contains_key(name));
        let is_new = lock.package(name).is_some() || lock.wheels.iter().any(|wheel| wheel.name == name);
        lock.is_of_base(name) || lock.is_wheel_of_base(name) || (by_pip && !is_new)
    };
    if let Some(name) = names.iter().find(|name| !old.is_empty() && old.iter().all(|lock| of_base(lock, name))) {
        return Err(Error::user(format!("`{name}` is a package of the base `{}`, which stays as it is", options.base))
            .hint(
                "extend a base that has a newer one; `--upgrade` without a name also takes what the base's tag is now",
            ));
    }
    let has = |lock: &Lock, name: &str| lock.package(name).is_some() || lock.wheels.iter().any(|it| it.name == name);
    match names.iter().find(|name| !old.is_empty() && old.iter().all(|lock| !has(lock, name))) {
        Some(name) => {
            let error = Error::user(format!("the lock has no package `{name}` to upgrade"));
            // Requirements may spell it in another way than locks do (PEP 503).
            let spelled = normalise_name(name).filter(|it| old.iter().any(|lock| has(lock, it)));
            Err(match spelled {
                Some(spelled) => error.hint(format!("it is called `{spelled}` there")),
                None => error.hint("add it to the environment's dependencies to get it, or check its name"),
            })
        }
        None => Ok(()),
    }
}

/// Adds the CPython that makes byte code, where the lock's own does not run here. Those of the old lock stay as long
/// as they make the same.
async fn with_interpreter(
    options: &EnvironmentOptions,
    spec: &Spec,
    mut lock: Lock,
    old: &Locks,
    made: &Locks,
    world: &World,
) -> Result<Lock> {
    if let Some(old) = old.get(&lock.platform).filter(|old| old.channels == lock.channels) {
        lock.interpreters = old.interpreters.clone();
        let useless = |builder: &Subdir| lock.interpreter(*builder).is_none();
        let useless: Vec<Subdir> = lock.interpreters.keys().copied().filter(useless).collect();
        lock.interpreters.retain(|builder, _| !useless.contains(builder));
    }
    if let Some(builder) = interpreter::needed_for(&lock, options).filter(|it| lock.interpreter(*it).is_none()) {
        let packages = interpreter::solve(options, spec, &lock, made, builder, world).await;
        lock.interpreters.insert(builder, options.named(&lock.platform, packages)?);
    }
    Ok(lock)
}

/// How this build resolves for a platform, but for what only a new lock needs.
pub fn resolving<'a>(
    options: &EnvironmentOptions,
    platform: &'a Platform,
    spec: &Spec,
    world: &'a World,
) -> Result<ResolveOptions<'a>> {
    let mut resolving = ResolveOptions::new(spec, platform, &world.store, &world.reporter)?;
    resolving.channels = options.channels.clone();
    resolving.override_channels = options.args.override_channels;
    resolving.channel_priority = options.channel_priority;
    resolving.condarc = Arc::clone(&options.condarc);
    resolving.offline = options.channels_offline();
    resolving.exclude_newer = options.exclude_newer.clone();
    Ok(resolving)
}

fn python_info<'a>(
    mut records: impl Iterator<Item = &'a RepoDataRecord>,
    subdir: Subdir,
) -> Result<Option<PythonInfo>> {
    let python = records.find(|record| record.package_record.name.as_normalized() == "python");
    python.map(|record| lock::python_info(&record.package_record, subdir)).transpose()
}
