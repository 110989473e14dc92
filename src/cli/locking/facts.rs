//! The facts of locked archives: what the store knows already is not read again, and what it does not know is fetched.

use rattler::install::PythonInfo;
use rattler_conda_types::RepoDataRecord;

use super::options::EnvironmentOptions;
use super::{fetch, fetch_locked, locked_origin, python_info, resolving};
use crate::cli::world::World;
use crate::lock::{Lock, LockedPackage, LockedWheel, PackageFacts};
use crate::pack::facts::{self, ArchiveFacts, EnvironmentFacts};
use crate::pack::wheel::{self, WheelReading};
use crate::pack::{Archive, WheelFile};
use crate::resolve::{Credentials, SaidBy};
use crate::spec::Spec;
use crate::store::{RecordKind, Store};
use crate::util::report::{Outcome, Step};
use crate::util::{Error, Result};

/// The lock with its packages' facts: those that it was made without are made now, and kept in the store.
///
/// # Errors
/// When archives that have to be read cannot be had, are damaged or hostile.
pub async fn complete(options: &EnvironmentOptions, spec: &Spec, lock: Lock, world: &World) -> Result<Lock> {
    if lock.has_facts {
        return with_times(options, spec, lock, world).await;
    }
    let python = python_info(lock.packages.iter().map(|package| &package.record), lock.platform.subdir)?;
    // Those of the base came with it.
    let (of_base, new): (Vec<_>, Vec<_>) =
        lock.packages.iter().cloned().partition(|package| lock.is_of_base(package.name()));
    let planned: Vec<_> = new.iter().map(|package| (package.facts.stability, package.facts.planned_size)).collect();
    let records: Vec<_> = new.into_iter().map(|package| package.record).collect();
    let credentials = resolving(options, &lock.platform, spec, world)?.channels_of(spec)?.credentials;
    let archives = Archives { credentials: &credentials, options, world, origin: locked_origin(spec) };
    let mut packages = archives.packages(records, python.clone()).await?;
    // Both are sorted by name. The archives do not know how often they change, nor what they were.
    for (package, planned) in packages.iter_mut().zip(planned) {
        (package.facts.stability, package.facts.planned_size) = planned;
    }
    let (of_base_wheels, new): (Vec<_>, Vec<_>) =
        lock.wheels.iter().cloned().partition(|wheel| lock.is_wheel_of_base(&wheel.name));
    // The base's Python may have to build some.
    let with_new = Lock { wheels: new.clone(), ..lock.clone() };
    super::pip::fetch(options, spec, &with_new, 0..new.len(), world).await?;
    let (mut packages, mut wheels) = archives.with_wheels(packages, new, python, &options.allow_clobber).await?;
    packages.extend(of_base);
    packages.sort_by(|a, b| a.name().cmp(b.name()));
    wheels.extend(of_base_wheels);
    wheels.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Lock { packages, wheels, has_facts: true, ..lock })
}

/// The lock with the times of its archives, where no channel says when a package was built and the lock is older than
/// these facts.
async fn with_times(options: &EnvironmentOptions, spec: &Spec, mut lock: Lock, world: &World) -> Result<Lock> {
    let new: Vec<usize> =
        (0..lock.packages.len()).filter(|&index| !lock.is_of_base(lock.packages[index].name())).collect();
    if lock.knows_times() || new.is_empty() {
        return Ok(lock);
    }
    let python = python_info(lock.packages.iter().map(|package| &package.record), lock.platform.subdir)?;
    let credentials = resolving(options, &lock.platform, spec, world)?.channels_of(spec)?.credentials;
    let archives = Archives { credentials: &credentials, options, world, origin: locked_origin(spec) };
    let records: Vec<_> = new.iter().map(|&index| lock.packages[index].record.clone()).collect();
    for (index, read) in new.into_iter().zip(archives.read(&records, python).await?) {
        lock.packages[index].facts.index_time = Some(read.index_time());
    }
    Ok(lock)
}

/// Where the archives of an environment are had from.
pub struct Archives<'a> {
    /// Those of the channels.
    pub credentials: &'a Credentials,
    pub options: &'a EnvironmentOptions,
    pub world: &'a World,
    /// Who says what they are.
    pub origin: SaidBy,
}

impl Archives<'_> {
    /// The packages of a lock that is made without facts, sorted by name. An archive is fetched only if its channel
    /// gives no sha256 of it.
    ///
    /// # Errors
    /// Those of the downloads.
    pub async fn without_facts(&self, records: Vec<RepoDataRecord>) -> Result<Vec<LockedPackage>> {
        let locked = |record| LockedPackage { record, facts: PackageFacts::default() };
        let mut packages: Vec<LockedPackage> = self.with_hashes(records).await?.into_iter().map(locked).collect();
        packages.sort_by(|a, b| a.name().cmp(b.name()));
        Ok(packages)
    }

    /// The packages of records, sorted by name, with the facts that `python` gives them.
    ///
    /// # Errors
    /// When archives that have to be read cannot be had, are damaged or hostile.
    pub async fn packages(
        &self,
        records: Vec<RepoDataRecord>,
        python: Option<PythonInfo>,
    ) -> Result<Vec<LockedPackage>> {
        let (packages, warnings) = self.environment(records, python).await?;
        warnings.iter().for_each(|warning| self.world.reporter.warn(warning));
        Ok(packages)
    }

    /// As [`Self::packages`]; what a user should know of them is returned, not told.
    ///
    /// # Errors
    /// Likewise.
    pub(super) async fn environment(
        &self,
        records: Vec<RepoDataRecord>,
        python: Option<PythonInfo>,
    ) -> Result<(Vec<LockedPackage>, Vec<String>)> {
        let records = self.with_hashes(records).await?;
        let store = &self.world.store;
        let key = facts::environment_key(&records, python.as_ref())?;
        let known = store.record::<EnvironmentFacts>(RecordKind::Facts, &key);
        if let Some(known) = known.and_then(|known| known.locked(&records)) {
            return Ok(known);
        }
        let environment = facts::of_environment(&records, self.read(&records, python).await?)?;
        store.remember(RecordKind::Facts, &key, &environment)?;
        environment.locked(&records).ok_or_else(|| Error::bug("an environment's facts are of other packages"))
    }

    /// Adds wheels, whose files are in the store: with their facts, and packages that lose the `allowed` paths to them. `packages`
    /// are what [`Self::packages`] made; both stay sorted by name.
    ///
    /// # Errors
    /// Damaged and hostile wheels; files that a wheel and a conda package both bring.
    pub async fn with_wheels(
        &self,
        mut packages: Vec<LockedPackage>,
        wheels: Vec<LockedWheel>,
        python: Option<PythonInfo>,
        allowed: &[glob::Pattern],
    ) -> Result<(Vec<LockedPackage>, Vec<LockedWheel>)> {
        if wheels.is_empty() {
            return Ok((packages, wheels));
        }
        let records: Vec<RepoDataRecord> = packages.iter().map(|package| package.record.clone()).collect();
        let read = self.read(&records, python.clone()).await?;
        let readings = self.read_wheels(&wheels, python).await?;
        let wheels = wheel::join(&mut packages, &read, wheels, readings, allowed)?;
        Ok((packages, wheels))
    }

    /// What each of the wheels tells by itself, in their order.
    async fn read_wheels(&self, wheels: &[LockedWheel], python: Option<PythonInfo>) -> Result<Vec<WheelReading>> {
        let store = &self.world.store;
        let key = |wheel| wheel::reading_key(wheel, python.as_ref());
        let keys = wheels.iter().map(key).collect::<Result<Vec<_>>>()?;
        let mut known: Vec<Option<WheelReading>> =
            keys.iter().map(|key| store.record(RecordKind::Facts, key)).collect();
        let unknown: Vec<usize> = (0..wheels.len()).filter(|&index| known[index].is_none()).collect();
        let files = unknown.iter().map(|&index| Ok((wheels[index].clone(), wheel_file(&wheels[index], store)?)));
        let (files, jobs) = (files.collect::<Result<Vec<_>>>()?, self.options.jobs);
        let progress = self.world.reporter.begin(Step::Read, 0);
        let read = tokio::task::spawn_blocking(move || wheel::read(&files, python.as_ref(), jobs))
            .await
            .map_err(|error| Error::bug("reading the wheels ended early").caused_by(error))??;
        progress.finish(&Outcome::Quiet {});
        for (index, reading) in unknown.into_iter().zip(read) {
            store.remember(RecordKind::Facts, &keys[index], &reading)?;
            known[index] = Some(reading);
        }
        known.into_iter().map(|reading| reading.ok_or_else(|| Error::bug("a wheel was not read"))).collect()
    }

    /// What each of the archives tells by itself, in the records' order.
    pub(super) async fn read(
        &self,
        records: &[RepoDataRecord],
        python: Option<PythonInfo>,
    ) -> Result<Vec<ArchiveFacts>> {
        let store = &self.world.store;
        let key = |record| facts::archive_key(record, python.as_ref());
        let keys = records.iter().map(key).collect::<Result<Vec<_>>>()?;
        let mut known: Vec<Option<ArchiveFacts>> =
            keys.iter().map(|key| store.record(RecordKind::Facts, key)).collect();
        let unknown: Vec<usize> = (0..records.len()).filter(|&index| known[index].is_none()).collect();
        let (_, files) = self.fetch(unknown.iter().map(|&index| records[index].clone()).collect()).await?;
        let jobs = self.options.jobs;
        let progress = self.world.reporter.begin(Step::Read, 0);
        let read = tokio::task::spawn_blocking(move || facts::read(&files, python.as_ref(), jobs))
            .await
            .map_err(|error| Error::bug("reading the archives ended early").caused_by(error))??;
        progress.finish(&Outcome::Quiet {});
        for (index, facts) in unknown.into_iter().zip(read) {
            store.remember(RecordKind::Facts, &keys[index], &facts)?;
            known[index] = Some(facts);
        }
        known.into_iter().map(|facts| facts.ok_or_else(|| Error::bug("an archive was not read"))).collect()
    }

    /// The records, each with the sha256 of its archive: a channel that gives none is asked for the archive itself.
    async fn with_hashes(&self, mut records: Vec<RepoDataRecord>) -> Result<Vec<RepoDataRecord>> {
        let lacking: Vec<usize> =
            (0..records.len()).filter(|&index| records[index].package_record.sha256.is_none()).collect();
        let (fetched, _) = self.fetch(lacking.iter().map(|&index| records[index].clone()).collect()).await?;
        for (index, record) in lacking.into_iter().zip(fetched) {
            records[index] = record;
        }
        Ok(records)
    }

    async fn fetch(&self, records: Vec<RepoDataRecord>) -> Result<(Vec<RepoDataRecord>, Vec<Archive>)> {
        let Self { credentials, options, world, origin } = *self;
        if origin != SaidBy::Index {
            let archives = fetch_locked(&records, origin, credentials, options, world).await?;
            return Ok((records, archives));
        }
        fetch(&records, credentials, options, world).await
    }
}

/// A wheel in the store.
///
/// # Errors
/// When it is not there.
pub fn wheel_file(wheel: &LockedWheel, store: &Store) -> Result<WheelFile> {
    let path = store.archive(&wheel.sha256, "whl");
    match store.has_file(&path, None) {
        true => Ok(WheelFile { path, name: wheel.file_name.clone() }),
        false => Err(Error::user(format!("the wheel `{}` is not in the cache", wheel.file_name))),
    }
}
