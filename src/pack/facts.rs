//! The facts that a lock keeps of its archives: who loses a path that two packages own, what activation does,
//! post-link scripts, what a package is to pip, whether byte code is made. What one archive tells by itself is read apart from what follows
//! from all of them together, so that the store can keep both.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, ControlFlow};

use path_resolver::PathResolver;
use rattler::install::PythonInfo;
use rattler_conda_types::package::PathType;
use rattler_conda_types::{PackageRecord, RepoDataRecord};
use serde::{Deserialize, Serialize};

use super::archive::Archive;
use super::layout::{PackageLayout, ancestors};
use super::{activation, bytecode, pypi};
use crate::lock::{Activation, ActivationStep, LockedPackage, PackageFacts, archive_digest, built_at};
use crate::model::LAYOUT_VERSION;
use crate::model::pyc::module_of;
use crate::util::{Digest, Error, Limit, Result, parallel};

/// Raised whenever facts say more or other of the same archives: what stores have of older versions is read anew. Facts in
/// locks are compared with the archives, so the layout version is raised as well: the facts of locks of an older one are
/// read anew.
/// 2: `pypi`. 3: `made`. 4: `links`, `index_time`, byte code goes with its module; the texts of activation scripts,
/// numbers in `env_vars.d`. 5: what a script comes to, by bash's rules; limits and places of `env_vars.d`; implausible
/// times of builds. 6: no byte code is made below a link; which file of the winner is in the way of a path.
pub const FACTS_VERSION: u32 = 6;

/// What an archive by itself tells an environment with a certain Python.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ArchiveFacts {
    /// All but what depends on other packages.
    facts: PackageFacts,
    /// Its size in bytes.
    size: u64,
    /// The paths that it puts into the prefix.
    targets: Vec<String>,
    /// Those of them that are symbolic links.
    links: Vec<String>,
    /// The byte code that is made for it.
    made: Vec<Made>,
    /// The time of its `info/index.json` in seconds since 1970.
    index_time: i64,
    /// What a user should know of it.
    warnings: Vec<String>,
}

/// Byte code that is made of a module; both are paths in the prefix.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Made {
    /// The module.
    pub module: String,
    /// Its byte code.
    pub pyc: String,
}

impl From<bytecode::Source> for Made {
    fn from(source: bytecode::Source) -> Self {
        Self { module: source.module, pyc: source.pyc }
    }
}

/// What the packages of an environment are to each other, by name.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EnvironmentFacts {
    packages: BTreeMap<String, KnownPackage>,
    /// What a user should know of them.
    warnings: Vec<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct KnownPackage {
    facts: PackageFacts,
    size: u64,
}

/// What [`read`] tells of the archive of a record depends on.
///
/// # Errors
/// A record without sha256.
pub fn archive_key(record: &RepoDataRecord, python: Option<&PythonInfo>) -> Result<Digest> {
    let package = &record.package_record;
    // Reading an archive checks that it is this package.
    let name = (package.name.as_normalized(), package.version.to_string(), package.build.to_string());
    key(&("archive", FACTS_VERSION, LAYOUT_VERSION, archive_digest(record)?, name, python_key(python)))
}

/// What the facts of an environment depend on: its archives, and what their records say of their order, which decides
/// who wins a path.
///
/// # Errors
/// A record without sha256.
pub fn environment_key(records: &[RepoDataRecord], python: Option<&PythonInfo>) -> Result<Digest> {
    let archive = |record: &RepoDataRecord| {
        let package = &record.package_record;
        Ok((archive_key(record, python)?, package.depends.clone(), built_at(package).is_some()))
    };
    let mut archives = records.iter().map(archive).collect::<Result<Vec<_>>>()?;
    archives.sort();
    key(&("environment", FACTS_VERSION, LAYOUT_VERSION, archives))
}

pub(super) fn key(inputs: &impl Serialize) -> Result<Digest> {
    crate::util::json::canonical(inputs).map(Digest::of)
}

/// Where the environment's Python wants the files of others.
pub(super) fn python_key(python: Option<&PythonInfo>) -> Option<impl Serialize> {
    let text = |path: &std::path::Path| path.display().to_string();
    python.map(|python| {
        (text(&python.path), text(&python.site_packages_path), text(&python.bin_dir), python.short_version)
    })
}

/// Reads archives, with `jobs` threads; in their order.
///
/// # Errors
/// Damaged and hostile archives.
pub fn read(archives: &[Archive], python: Option<&PythonInfo>, jobs: usize) -> Result<Vec<ArchiveFacts>> {
    parallel(archives, jobs, |archive| {
        let layout = PackageLayout::read(archive, python)?;
        let mut warnings = Vec::new();
        let made = python.map(|python| bytecode::sources(&layout, python)).unwrap_or_default();
        let made: Vec<Made> = made.into_iter().map(Made::from).collect();
        let links = layout.files.values().filter(|file| file.entry.path_type == PathType::SoftLink);
        Ok(ArchiveFacts {
            facts: PackageFacts {
                bytecode: !made.is_empty(),
                ..facts_of_archive(archive, &layout, python, &mut warnings)?
            },
            made,
            links: links.map(|file| file.target.clone()).collect(),
            size: fs_err::metadata(&archive.path)?.len(),
            index_time: i64::try_from(layout.index_time).unwrap_or(i64::MAX),
            targets: layout.targets().map(str::to_owned).collect(),
            warnings,
        })
    })
}

impl ArchiveFacts {
    /// The paths that it puts into the prefix.
    pub fn targets(&self) -> &[String] {
        &self.targets
    }

    /// Whether it puts something at a path of the prefix, or byte code is made there for it.
    pub fn brings(&self, path: &str) -> bool {
        self.targets.iter().any(|target| target == path) || self.made.iter().any(|made| made.pyc == path)
    }

    /// The facts of a package that keeps all but some paths.
    pub fn after_losing(&self, lost: BTreeMap<String, String>) -> PackageFacts {
        let mut facts = self.facts.clone();
        lose(&mut facts, lost);
        facts
    }

    /// The byte code that is made for it.
    pub fn made(&self) -> &[Made] {
        &self.made
    }

    /// The time of its `info/index.json` in seconds since 1970.
    pub fn index_time(&self) -> i64 {
        self.index_time
    }
}

/// Puts together what the archives of an environment's records tell; `archives` are in the order of `records`.
///
/// # Errors
/// A package with files below a link of another one.
pub fn of_environment(records: &[RepoDataRecord], archives: Vec<ArchiveFacts>) -> Result<EnvironmentFacts> {
    refuse_below_links(records, &archives)?;
    let mut clobbered = clobbered_paths(records, &archives);
    follow_modules(records, &archives, &mut clobbered);
    let mut obstacles = obstacles(records, &archives, &clobbered);
    let is_dated = records.iter().any(|record| built_at(&record.package_record).is_some());
    let mut environment = EnvironmentFacts { packages: BTreeMap::new(), warnings: Vec::new() };
    for (record, archive) in records.iter().zip(archives) {
        let name = record.package_record.name.as_normalized();
        let ArchiveFacts { mut facts, size, warnings, index_time, .. } = archive;
        facts.index_time = (!is_dated).then_some(index_time);
        if let Some(lost) = clobbered.remove(name) {
            lose(&mut facts, lost);
            facts.obstacles = obstacles.remove(name).unwrap_or_default();
        }
        environment.packages.insert(name.to_owned(), KnownPackage { facts, size });
        environment.warnings.extend(warnings);
    }
    Ok(environment)
}

/// Refuses files of one package below a symbolic link of another. Installers write them through the link; where it
/// leads is known when the archive is packed, too late to tell whose files are there.
fn refuse_below_links(records: &[RepoDataRecord], archives: &[ArchiveFacts]) -> Result<()> {
    let names = || records.iter().map(|record| record.package_record.name.as_normalized());
    let links = names().zip(archives).flat_map(|(name, it)| it.links.iter().map(move |link| (link.as_str(), name)));
    let links: BTreeMap<&str, &str> = links.collect();
    if links.is_empty() {
        return Ok(());
    }
    for (name, archive) in names().zip(archives) {
        for path in &archive.targets {
            let above = ancestors(path).find_map(|above| links.get_key_value(above));
            if let Some((link, owner)) = above.filter(|(_, owner)| **owner != name) {
                return Err(Error::user(format!(
                    "`{name}` brings `{path}` below `{link}`, which is a symlink of `{owner}`"
                ))
                .hint(format!(
                    "leave out `{name}` or `{owner}`, or take a version or build of one that fits the other"
                )));
            }
        }
    }
    Ok(())
}

/// Of lost paths those that their winners do not bring, but a file above or below; by the name of the loser.
fn obstacles(
    records: &[RepoDataRecord],
    archives: &[ArchiveFacts],
    lost: &BTreeMap<String, BTreeMap<String, String>>,
) -> BTreeMap<String, BTreeMap<String, String>> {
    let names = records.iter().map(|record| record.package_record.name.as_normalized());
    let winners: BTreeSet<&str> = lost.values().flat_map(|paths| paths.values()).map(String::as_str).collect();
    let kept = names.zip(archives).filter(|(name, _)| winners.contains(name)).map(|(name, archive)| {
        let is_lost = |path: &str| lost.get(name).is_some_and(|lost| lost.contains_key(path));
        let kept = archive.targets.iter().map(String::as_str).filter(|path| !is_lost(path));
        (name, kept.collect::<BTreeSet<&str>>())
    });
    let kept: BTreeMap<&str, BTreeSet<&str>> = kept.collect();
    let obstacle = |(path, winner): (&String, &String)| {
        let found = in_the_way(path, kept.get(winner.as_str())?)?;
        (found != path).then(|| (path.clone(), found.to_owned()))
    };
    lost.iter().map(|(loser, paths)| (loser.clone(), paths.iter().filter_map(obstacle).collect())).collect()
}

/// The one of some files that is at a path, above, or below it.
fn in_the_way<'a>(path: &str, files: &BTreeSet<&'a str>) -> Option<&'a str> {
    let folder = format!("{path}/");
    let exact = files.get(path).or_else(|| ancestors(path).find_map(|above| files.get(above)));
    let inside = (Bound::Included(folder.as_str()), Bound::Unbounded);
    let below = || files.range::<str, _>(inside).next().filter(|next| next.starts_with(&folder));
    exact.or_else(below).copied()
}

/// Takes paths from a package that others keep, and what activation would have done with them.
pub(super) fn lose(facts: &mut PackageFacts, lost: BTreeMap<String, String>) {
    facts.activation.steps.retain(|step| !lost.contains_key(&step.file));
    facts.activation.dynamic.retain(|file| !lost.contains_key(file));
    facts.activation.scripts.retain(|file, _| !lost.contains_key(file));
    facts.clobbered.extend(lost);
}

impl EnvironmentFacts {
    /// The locked packages of the records that the facts are of, sorted by name, and what a user should know of them;
    /// nothing when the facts are of others.
    pub fn locked(mut self, records: &[RepoDataRecord]) -> Option<(Vec<LockedPackage>, Vec<String>)> {
        let locked = records.iter().map(|record| {
            let KnownPackage { facts, size } = self.packages.remove(record.package_record.name.as_normalized())?;
            let mut record = record.clone();
            // Not every channel says it.
            record.package_record.size = Some(size);
            Some(LockedPackage { record, facts })
        });
        let mut packages = locked.collect::<Option<Vec<_>>>()?;
        packages.sort_by(|a, b| a.name().cmp(b.name()));
        Some((packages, self.warnings))
    }
}

fn facts_of_archive(
    archive: &Archive,
    layout: &PackageLayout,
    python: Option<&PythonInfo>,
    warnings: &mut Vec<String>,
) -> Result<PackageFacts> {
    let post_link = format!("bin/.{}-post-link.sh", layout.index.name.as_normalized());
    let post_link = layout.files.values().any(|file| file.target == post_link).then_some(post_link);
    Ok(PackageFacts {
        stale: bytecode::stale(layout),
        activation: read_activation(archive, layout, warnings)?,
        post_link,
        pypi: python.map(|python| pypi::distributions(layout.targets(), python)).unwrap_or_default(),
        ..PackageFacts::default()
    })
}

fn read_activation(archive: &Archive, layout: &PackageLayout, warnings: &mut Vec<String>) -> Result<Activation> {
    let mut found = Activation::default();
    if !layout.files.values().any(|file| activation::file(&file.target).is_some()) {
        return Ok(found);
    }
    archive.visit_content(|entry, reader| {
        let Some(file) = layout.files.get(&entry.path) else { return Ok(ControlFlow::Continue(())) };
        let Some(kind) = activation::file(&file.target) else { return Ok(ControlFlow::Continue(())) };
        let is_link = file.entry.path_type == PathType::SoftLink;
        let content = if is_link { None } else { Some(archive.content(entry, reader, Limit::ActivationScript)?) };
        if kind == activation::File::Script {
            let placeholder = file.entry.prefix_placeholder.as_ref().map(|found| found.placeholder.as_str());
            activation::add_script(&mut found, &file.target, content.as_deref(), placeholder);
            return Ok(ControlFlow::Continue(()));
        }
        let read = content.ok_or_else(|| "is a link, and is ignored".to_owned());
        match read.and_then(|content| activation::parse_variables(&file.target, &content)) {
            Ok((steps, left_out)) => {
                found.steps.extend(steps);
                warnings
                    .extend(left_out.iter().map(|what| format!("`{}` of `{}` {what}", file.target, archive.package)));
            }
            Err(what) => warnings.push(format!("`{}` of `{}` {what}", file.target, archive.package)),
        }
        Ok(ControlFlow::Continue(()))
    })?;
    found.steps.sort_by(|a, b| a.file.cmp(&b.file));
    warnings.extend(found.steps.iter().filter(|step| is_loaders(step)).map(|step| {
        format!(
            "`{}` of `{}` sets `{}`, which decides what code every program of the image loads",
            step.file, archive.package, step.name
        )
    }));
    Ok(found)
}

/// Whether a step sets a variable of the dynamic loader (ld.so(8)), which reaches programs of the base also.
fn is_loaders(step: &ActivationStep) -> bool {
    step.value.is_some() && matches!(step.name.as_str(), "LD_PRELOAD" | "LD_LIBRARY_PATH" | "LD_AUDIT")
}

/// Who loses which paths to whom: decided once for the whole environment, as rattler decides it: a path is of the
/// package that comes last in topological order, so what needs others may replace their files (also file against
/// directory).
fn clobbered_paths(
    records: &[RepoDataRecord],
    archives: &[ArchiveFacts],
) -> BTreeMap<String, BTreeMap<String, String>> {
    let names = records.iter().map(|record| record.package_record.name.as_normalized());
    let by_name: BTreeMap<&str, &ArchiveFacts> = names.zip(archives).collect();
    let mut sorted: Vec<&PackageRecord> = records.iter().map(|record| &record.package_record).collect();
    sorted.sort_by(|a, b| a.name.as_normalized().cmp(b.name.as_normalized()));
    let mut resolver = PathResolver::new();
    let mut lost = BTreeMap::new();
    // The resolver gives a path to who asks first.
    for record in PackageRecord::sort_topologically(sorted).into_iter().rev() {
        let name = record.name.as_normalized();
        let Some(archive) = by_name.get(name) else { continue };
        let targets: Vec<&str> = archive.targets.iter().map(String::as_str).collect();
        let conflicts = resolver.insert_package(name.into(), &targets);
        let conflicts = conflicts.iter().filter_map(|path| path.to_str());
        let paths: BTreeMap<String, String> =
            conflicts.map(|path| (path.to_owned(), winner(path, name, &resolver))).collect();
        if !paths.is_empty() {
            lost.insert(name.to_owned(), paths);
        }
    }
    lost
}

/// Byte code goes with its module: of the package that keeps a module, what it ships or has made stays, and what others
/// ship for that module is left out.
fn follow_modules(
    records: &[RepoDataRecord],
    archives: &[ArchiveFacts],
    lost: &mut BTreeMap<String, BTreeMap<String, String>>,
) {
    let all = || records.iter().map(|record| record.package_record.name.as_normalized()).zip(archives);
    let loses = |name: &str, path: &str| lost.get(name).is_some_and(|lost| lost.contains_key(path));
    let targets = || all().flat_map(|(name, archive)| archive.targets.iter().map(move |path| (path.as_str(), name)));
    let modules = targets().filter(|(path, name)| path.ends_with(".py") && !loses(name, path));
    let owners: BTreeMap<&str, &str> = modules.collect();
    let mut shippers: BTreeMap<&str, (&str, Vec<&str>)> = BTreeMap::new();
    for (path, name) in targets().filter(|(path, _)| path.ends_with(".pyc")) {
        let owner = module_of(path).and_then(|module| owners.get(module.as_str()));
        if let Some(owner) = owner {
            shippers.entry(path).or_insert((owner, Vec::new())).1.push(name);
        }
    }
    for (path, (owner, shippers)) in shippers {
        for shipper in shippers.iter().filter(|shipper| **shipper != owner) {
            lost.entry((*shipper).to_owned()).or_default().insert(path.to_owned(), owner.to_owned());
        }
        // It may have lost to one of them.
        let of_owner = lost.get_mut(owner);
        if let Some(of_owner) = of_owner
            && of_owner.get(path).is_some_and(|winner| shippers.contains(&winner.as_str()))
        {
            of_owner.remove(path);
        }
    }
    lost.retain(|_, lost| !lost.is_empty());
}

/// Who keeps a path that `loser` brings too: the one of its other owners that asked first. Where a file stands
/// against a folder, an owner may have a file of a parent folder's name.
fn winner(path: &str, loser: &str, resolver: &PathResolver) -> String {
    let exact = resolver.packages_for_exact(path).into_iter().chain(resolver.packages_for_prefix(path));
    let above = ancestors(path).filter_map(|parent| resolver.packages_for_exact(parent));
    let owners: BTreeSet<&str> =
        exact.chain(above).flatten().map(path_resolver::PackageName::as_str).filter(|name| *name != loser).collect();
    let mut in_order = resolver.packages().iter().map(path_resolver::PackageName::as_str);
    in_order.find(|name| owners.contains(name)).unwrap_or("another package").to_owned()
}
