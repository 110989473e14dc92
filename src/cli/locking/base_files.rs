//! Whose the files of a base are that is extended, as far as that is known without fetching its layers: by the
//! `conda-meta` records and the RECORDs of layers that are on this machine or were read here before, else by what the
//! store knows of the archives and wheels that are in the base. What is added must not take a file of the base by
//! accident: a layer above would, without a word.

use std::collections::{BTreeMap, BTreeSet};

use rattler::install::PythonInfo;

use super::facts::{Archives, wheel_file};
use super::from::Brought;
use crate::cli::world::World;
use crate::image::{self, Base, Selection, Tree};
use crate::lock::installed::{self, Wish};
use crate::lock::{Lock, LockedPackage, LockedWheel};
use crate::model::pyc::module_of;
use crate::pack::facts::{ArchiveFacts, archive_key};
use crate::pack::layout::ancestors;
use crate::pack::{WheelFile, wheel};
use crate::store::{RecordKind, Store};
use crate::util::{Digest, Error, Result, parallel};

/// The files of environments in layers.
pub const FILES: Selection = Selection {
    name: "conda environments 2",
    wanted: |path| match installed::wish(path) {
        Wish::Nothing => None,
        Wish::Name => Some(0),
        Wish::Content(limit) => Some(limit),
    },
    keep: installed::digest_of_content,
};
// The name above has the version.
const _: () = assert!(installed::VERSION == 2);

/// The files by their paths in the prefix.
#[derive(Default)]
pub struct BaseFiles(BTreeMap<String, Owner>);

#[derive(Clone)]
struct Owner {
    /// Of the package.
    name: String,
    /// Of the file, if that is known.
    content: Option<Digest>,
}

/// What one package or wheel adds: paths in the prefix, with what is there, if that is known.
type Added<'a> = Vec<(&'a str, Option<Digest>)>;

/// A wheel and what it puts into the prefix, in the same way.
type WheelPaths<'a> = (&'a LockedWheel, Vec<(String, Option<Digest>)>);

impl BaseFiles {
    /// Of an environment that was read.
    pub fn of_environment(environment: &installed::Environment) -> Self {
        let mut files = Self::default();
        for package in &environment.packages {
            files.add(package.name(), package.files.iter().map(|path| (path.clone(), None)));
        }
        for (path, (name, content)) in &environment.recorded {
            files.add(name, [(path.clone(), *content)]);
        }
        files
    }

    /// Of the environment below `root` (without a leading slash) that holds these packages and wheels.
    ///
    /// # Errors
    /// Layers that are on this machine and cannot be read.
    pub async fn known(
        base: &Base,
        root: &str,
        (packages, wheels): (&[&LockedPackage], &[&LockedWheel]),
        python: Option<&PythonInfo>,
        world: &World,
    ) -> Result<Self> {
        if base.layers.iter().all(|layer| image::is_at_hand(layer, &FILES, &world.store)) {
            let (_, files) = image::probe_files(base, &FILES, &world.store, world).await?;
            return Ok(Self::of_environment(&installed::Files(files).environment(root)?));
        }
        Ok(Self::of_store(packages, wheels, python, &world.store))
    }

    /// What the store knows of archives and wheels.
    fn of_store(
        packages: &[&LockedPackage],
        wheels: &[&LockedWheel],
        python: Option<&PythonInfo>,
        store: &Store,
    ) -> Self {
        let mut files = Self::default();
        for package in packages {
            let key = archive_key(&package.record, python).ok();
            let Some(known) = key.and_then(|key| store.record::<ArchiveFacts>(RecordKind::Facts, &key)) else {
                continue;
            };
            let kept = known.targets().iter().filter(|path| !package.facts.leaves_out(path));
            files.add(package.name(), kept.map(|path| (path.clone(), None)));
        }
        for wheel in wheels {
            let known = wheel_file(wheel, store).and_then(|file| wheel::installed_files(wheel, &file, python));
            files.add(&wheel.name, known.unwrap_or_default());
        }
        files
    }

    fn add(&mut self, name: &str, files: impl IntoIterator<Item = (String, Option<Digest>)>) {
        let owner = |content| Owner { name: name.to_owned(), content };
        self.0.extend(files.into_iter().map(|(path, content)| (path, owner(content))));
    }

    /// The paths, and the names of their packages.
    pub fn owners(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(path, owner)| (path.as_str(), owner.name.as_str()))
    }

    /// Compares what is added with what is there; warnings about what may be replaced.
    ///
    /// # Errors
    /// Another file in the place of one of the base, unless that is allowed; a file where the base has a folder, or
    /// the other way round.
    fn check(&self, name: &str, added: &Added<'_>, allowed: &[glob::Pattern]) -> Result<Vec<String>> {
        let mut replaced: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        let paths: BTreeSet<&str> = added.iter().map(|(path, _)| *path).collect();
        // Byte code goes with its module, which is judged itself.
        for (path, content) in added.iter().filter(|(path, _)| !is_made_of_other(path, &paths)) {
            if let Some((other, owner)) = self.in_the_way(path) {
                return Err(Error::user(format!(
                    "`{name}` brings `{path}`, and `{owner}` of the base has `{other}`: one would be a folder and the other a file"
                ))
                .hint("leave one of the two packages out: layers cannot join them"));
            }
            let Some(owner) = self.0.get(*path) else { continue };
            // Namespace packages and licences are brought so.
            if content.is_none() || *content != owner.content {
                replaced.entry(&owner.name).or_default().push(path);
            }
        }
        let both = |owner: &str, paths: &[&str]| {
            let more = if paths.len() > 1 { format!(" and {} more", paths.len() - 1) } else { String::new() };
            format!("`{owner}` of the base and `{name}` both bring `{}`{more}", paths.first().unwrap_or(&""))
        };
        let told = |(owner, paths): (&str, Vec<&str>)| {
            let is_declared = |path: &&&str| allowed.iter().any(|glob| glob.matches(path));
            let undeclared: Vec<&str> = paths.iter().filter(|path| !is_declared(path)).copied().collect();
            match undeclared.first() {
                None => Ok(format!("{}: the one of `{name}` is in the image", both(owner, &paths))),
                Some(path) => Err(Error::user(both(owner, &undeclared))
                    .hint("leave it out, take another version of it, or extend another base")
                    .hint(format!(
                        "`--allow-clobber '{}'` (a pattern may have `*`) gives the path to `{name}`",
                        glob::Pattern::escape(path)
                    ))),
            }
        };
        replaced.into_iter().map(told).collect()
    }

    /// What of the base a path is below of, or above of, and whose that is.
    fn in_the_way(&self, path: &str) -> Option<(&str, &str)> {
        let found = ancestors(path).find_map(|parent| self.0.get_key_value(parent));
        let folder = format!("{path}/");
        let inside = || self.0.range(folder.clone()..).next().filter(|(other, _)| other.starts_with(&folder));
        found.or_else(inside).map(|(other, owner)| (other.as_str(), owner.name.as_str()))
    }
}

/// Whether a path is the byte code of one of the others.
fn is_made_of_other(path: &str, paths: &BTreeSet<&str>) -> bool {
    module_of(path).is_some_and(|module| paths.contains(module.as_str()))
}

/// Compares the new packages and wheels of a lock with what the base brings. Of a lock that is made without facts, no
/// archive is read. Byte code of the base that does not fit what is allowed to replace its modules, by path in the
/// prefix.
///
/// # Errors
/// As [`BaseFiles::check`]; a distribution that pip installed in the base and a package brings anew; archives that
/// cannot be had or are damaged; layers of the base, likewise.
pub async fn check(
    (brought, base): (&Brought, &Base),
    lock: &Lock,
    python: Option<&PythonInfo>,
    archives: &Archives<'_>,
) -> Result<BTreeSet<String>> {
    if !lock.has_facts {
        return Ok(BTreeSet::new());
    }
    let allowed = &archives.options.allow_clobber;
    refuse_distributions(brought, lock)?;
    if brought.files.0.is_empty() && allowed.is_empty() {
        return Ok(BTreeSet::new());
    }
    let mut modules = BTreeSet::new();
    let mut note = |added: &Added<'_>| {
        let of_it = added.iter().map(|(path, _)| *path).filter(|path| path.ends_with(".py"));
        let allowed = of_it.filter(|path| allowed.iter().any(|glob| glob.matches(path)));
        modules.extend(allowed.map(str::to_owned));
    };
    let records: Vec<_> = lock.packages.iter().map(|package| package.record.clone()).collect();
    let read = archives.read(&records, python.cloned()).await?;
    let tell = |warnings: Vec<String>| warnings.iter().for_each(|warning| archives.world.reporter.warn(warning));
    for (package, facts) in lock.packages.iter().zip(&read) {
        let kept = facts.targets().iter().filter(|path| !package.facts.leaves_out(path));
        let added = kept.map(|path| (path.as_str(), None)).collect();
        tell(brought.files.check(package.name(), &added, allowed)?);
        note(&added);
    }
    for (wheel, files) in wheels(lock, |_| true, python, archives.options.jobs, &archives.world.store)? {
        let added = files.iter().map(|(path, content)| (path.as_str(), *content)).collect();
        tell(brought.files.check(&wheel.name, &added, allowed)?);
        note(&added);
    }
    if modules.is_empty() {
        return Ok(modules);
    }
    // All of it is read, whatever is known of whose files these are: a lock must not depend on the machine.
    let (_, tree) = image::probe_tree(base, &archives.world.store, archives.world).await?;
    let root = brought.facts.resolve(&brought.environment.prefix)?;
    Ok(modules.iter().flat_map(|module| bytecode_in(&tree, &root, module)).collect())
}

/// The byte code that a base has of a module in the prefix, as paths in the prefix.
fn bytecode_in(tree: &Tree, root: &str, module: &str) -> Vec<String> {
    let (folder, name) = module.rsplit_once('/').unwrap_or(("", module));
    let beside = format!("{root}/{folder}");
    let places = [(beside.clone(), false), (format!("{beside}/__pycache__"), true)];
    let found = places.iter().filter_map(|(place, is_cache)| {
        let (real, names) = tree.names_in(place)?;
        let real = real.strip_prefix(root)?.trim_start_matches('/').to_owned();
        let is_of_it = |found: &&str| match is_cache {
            true => module_of(&format!("__pycache__/{found}")).is_some_and(|module| module == name),
            false => found.strip_suffix('c') == Some(name),
        };
        let of_it = names.into_iter().filter(is_of_it);
        Some(of_it.map(|name| format!("{real}/{name}").trim_start_matches('/').to_owned()).collect::<Vec<_>>())
    });
    found.flatten().collect()
}

/// What wheels of a lock, which are in the store, put into the prefix.
///
/// # Errors
/// Wheels that are not there, damaged or hostile.
pub fn wheels<'a>(
    lock: &'a Lock,
    wanted: impl Fn(&LockedWheel) -> bool,
    python: Option<&PythonInfo>,
    jobs: usize,
    store: &Store,
) -> Result<Vec<WheelPaths<'a>>> {
    let wanted = lock.wheels.iter().filter(|wheel| wanted(wheel));
    let files: Vec<(&LockedWheel, WheelFile)> =
        wanted.map(|wheel| Ok((wheel, wheel_file(wheel, store)?))).collect::<Result<_>>()?;
    let read = parallel(&files, jobs, |(wheel, file)| wheel::installed_files(wheel, file, python))?;
    Ok(files.into_iter().map(|(wheel, _)| wheel).zip(read).collect())
}

/// Two versions of one distribution would both be found by Python's metadata, and their files be mixed.
fn refuse_distributions(brought: &Brought, lock: &Lock) -> Result<()> {
    let wheels = brought.wheels.iter().map(|wheel| (&wheel.name, &wheel.version));
    let of_pip: BTreeMap<&String, &String> = brought.environment.distributions.iter().chain(wheels).collect();
    let own: BTreeSet<&String> = brought.packages.iter().flat_map(|package| package.facts.pypi.keys()).collect();
    for package in &lock.packages {
        let twice = package.facts.pypi.keys().find_map(|name| of_pip.get_key_value(name));
        if let Some((name, version)) = twice.filter(|(name, _)| !own.contains(*name)) {
            return Err(Error::user(format!(
                "`{}` of conda brings `{name}`, which pip installed in the base as `{name}-{version}`",
                package.full_name()
            ))
            .hint("ask for it below `pip:`, where the base's counts, or extend a base that has it from conda"));
        }
    }
    Ok(())
}
