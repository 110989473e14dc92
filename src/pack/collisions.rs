//! Who keeps a path that a wheel brings and something else, too. Decided once, when locking.
//!
//! - **Wheel and conda package**: an error that names both, because pip would overwrite the file of a package that
//!   knows nothing of it. Where it is declared (`--allow-clobber GLOB`), the wheel's is kept: pip installs after
//!   conda.
//! - **Two wheels, the same content**: namespace packages and licences are brought so. The first by name has the
//!   file, the others' lists name it, and nobody is told.
//! - **Two wheels, other content**: pip lets the one win that it installs last, in an order of its own. Here it is
//!   the last by name, and a warning says so.
//! - **Byte code** goes with its module: what the keeper of a module ships, or has made, stays; what others ship for it is
//!   left out, since Python would find it stale, or take it for the module.
//! - **A file against a folder**: of two wheels an error, since pip would fail, too; of a wheel and a conda package
//!   as above.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::facts::{ArchiveFacts, lose};
use super::layout::ancestors;
use super::wheel::WheelReading;
use crate::lock::{LockedPackage, LockedWheel};
use crate::model::pyc::module_of;
use crate::util::{Error, Result};

/// Paths in the prefix that a user lets wheels take from conda packages.
pub type Allowed = [glob::Pattern];

/// A wheel and what it installs.
pub struct LaidWheel {
    /// The wheel.
    pub locked: LockedWheel,
    /// What it installs.
    pub reading: WheelReading,
}

impl LaidWheel {
    fn name(&self) -> &str {
        &self.locked.name
    }

    fn same(&self, other: &Self, path: &str) -> bool {
        let content = self.reading.known_content(path);
        content.is_some() && content == other.reading.known_content(path)
    }

    /// The paths that it has in the image.
    fn kept(&self) -> impl Iterator<Item = &str> {
        self.reading.targets().filter(|path| !self.locked.facts.leaves_out(path))
    }

    /// The byte code that is made for it.
    fn made(&self) -> impl Iterator<Item = &str> {
        let made = self.reading.made().iter().filter(|made| self.locked.facts.makes(&made.module, &made.pyc));
        made.map(|made| made.pyc.as_str())
    }
}

/// Settles what wheels bring twice; they are sorted by name.
///
/// # Errors
/// A file of one that is a folder of another.
pub fn among_wheels(wheels: &mut [LaidWheel]) -> Result<()> {
    let mut owners: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (index, wheel) in wheels.iter().enumerate() {
        for path in wheel.reading.targets() {
            owners.entry(path).or_default().push(index);
        }
    }
    for (path, of) in &owners {
        if let Some(file) = ancestors(path).find(|ancestor| owners.contains_key(ancestor)) {
            let (file_of, below) = (wheels[owners[file][0]].name(), wheels[of[0]].name());
            return Err(Error::user(format!(
                "`{file_of}` brings `{file}` as a file and `{below}` as a folder, with `{path}` in it"
            ))
            .hint("both are of pip, and cannot be installed together: leave one of them out"));
        }
    }
    let mut lost: Vec<(usize, String, Option<String>)> = Vec::new();
    // Of several bringers of byte code for modules of wheels, the keepers of the modules decide, below.
    let is_followed = |path: &str| module_of(path).is_some_and(|module| owners.contains_key(module.as_str()));
    for (&path, of) in owners.iter().filter(|(path, of)| of.len() > 1 && !is_followed(path)) {
        let Some(&last) = of.last() else { continue };
        let keeper = of.iter().copied().find(|&one| wheels[one].same(&wheels[last], path)).unwrap_or(last);
        for loser in of.iter().copied().filter(|&one| one != keeper) {
            let same = wheels[loser].same(&wheels[keeper], path);
            lost.push((loser, path.to_owned(), (!same).then(|| wheels[keeper].name().to_owned())));
        }
    }
    for (loser, path, winner) in lost {
        let facts = &mut wheels[loser].locked.facts;
        match winner {
            Some(winner) => drop(facts.clobbered.insert(path, winner)),
            None => drop(facts.shared.insert(path)),
        }
    }
    follow_modules(wheels);
    Ok(())
}

/// Takes byte code from wheels that do not keep its module, but another wheel does.
fn follow_modules(wheels: &mut [LaidWheel]) {
    let modules = wheels.iter().flat_map(|wheel| wheel.kept().map(move |path| (path, wheel.name())));
    let keepers: BTreeMap<&str, &str> = modules.filter(|(path, _)| path.ends_with(".py")).collect();
    let lost: Vec<BTreeMap<String, String>> = wheels.iter().map(|wheel| lost_bytecode(wheel, &keepers)).collect();
    for (wheel, lost) in wheels.iter_mut().zip(lost) {
        wheel.locked.facts.clobbered.extend(lost);
    }
}

/// The byte code that a wheel has in the image for modules of others, by `keepers`.
fn lost_bytecode(wheel: &LaidWheel, keepers: &BTreeMap<&str, &str>) -> BTreeMap<String, String> {
    let bytecode = wheel.kept().filter_map(|path| Some((path, *keepers.get(module_of(path)?.as_str())?)));
    let lost = bytecode.filter(|(_, keeper)| *keeper != wheel.name());
    lost.map(|(path, keeper)| (path.to_owned(), keeper.to_owned())).collect()
}

/// Settles what conda packages and wheels both bring; `archives` are those of the packages, by name.
///
/// # Errors
/// The first collision that is not allowed.
pub fn with_packages(
    packages: &mut [LockedPackage],
    archives: &BTreeMap<&str, &ArchiveFacts>,
    wheels: &mut [LaidWheel],
    allowed: &Allowed,
) -> Result<()> {
    follow_packages(packages, archives, wheels);
    let mut owners: BTreeMap<&str, &str> = BTreeMap::new();
    for wheel in wheels.iter() {
        owners.extend(wheel.kept().chain(wheel.made()).map(|path| (path, wheel.name())));
    }
    for package in packages {
        let Some(archive) = archives.get(package.name()) else { continue };
        let kept = || archive.targets().iter().map(String::as_str).filter(|path| !package.facts.leaves_out(path));
        let made = archive.made().iter().filter(|made| package.facts.makes(&made.module, &made.pyc));
        // That of a module which goes to a wheel is not made anyway.
        let made = made.filter(|made| owner(&owners, &made.module).is_none()).map(|made| made.pyc.as_str());
        let found = kept().chain(made).filter_map(|path| Some((path, owner(&owners, path)?)));
        let found: BTreeMap<&str, (&str, &str)> = found.collect();
        let lost = found.iter().map(|(path, (_, wheel))| ((*path).to_owned(), (*wheel).to_owned()));
        let mut lost: BTreeMap<String, String> = lost.collect();
        let bytecode = shipped_bytecode(&lost, kept());
        let declared = |path: &str| allowed.iter().any(|glob| glob.matches(path)) || bytecode.contains_key(path);
        let undeclared: Vec<_> = found.iter().filter(|(path, _)| !declared(path)).collect();
        if let Some((path, owner)) = undeclared.first() {
            return Err(collision(**owner, package.name(), path, undeclared.len()));
        }
        let obstacles = found.iter().filter(|(path, (file, _))| *path != file);
        let obstacles = obstacles.map(|(path, (file, _))| ((*path).to_owned(), (*file).to_owned()));
        package.facts.obstacles.extend(obstacles);
        lost.extend(bytecode);
        lose(&mut package.facts, lost);
    }
    Ok(())
}

/// Takes byte code from wheels whose module a conda package keeps, and no wheel brings.
fn follow_packages(packages: &[LockedPackage], archives: &BTreeMap<&str, &ArchiveFacts>, wheels: &mut [LaidWheel]) {
    let of_package = packages.iter().filter_map(|package| Some((package, archives.get(package.name())?)));
    let modules = of_package.flat_map(|(package, archive)| {
        let kept = archive.targets().iter().filter(|path| !package.facts.leaves_out(path));
        kept.map(|path| (path.as_str(), package.name()))
    });
    let mut keepers: BTreeMap<&str, &str> = modules.filter(|(path, _)| path.ends_with(".py")).collect();
    for path in wheels.iter().flat_map(LaidWheel::kept) {
        keepers.remove(path);
    }
    let lost: Vec<BTreeMap<String, String>> = wheels.iter().map(|wheel| lost_bytecode(wheel, &keepers)).collect();
    for (wheel, lost) in wheels.iter_mut().zip(lost) {
        wheel.locked.facts.clobbered.extend(lost);
    }
}

/// The file of a wheel that is at a path, above it, or below it, and that wheel.
fn owner<'a>(owners: &BTreeMap<&'a str, &'a str>, path: &str) -> Option<(&'a str, &'a str)> {
    let above = || ancestors(path).find_map(|parent| owners.get_key_value(parent));
    let folder = format!("{path}/");
    let inside = (Bound::Included(folder.as_str()), Bound::Unbounded);
    let below = || owners.range::<str, _>(inside).next().filter(|(path, _)| path.starts_with(&folder));
    let (file, owner) = owners.get_key_value(path).or_else(above).or_else(below)?;
    Some((*file, *owner))
}

fn collision((file, wheel): (&str, &str), package: &str, path: &str, count: usize) -> Error {
    let more = if count > 1 { format!(" and {} more", count - 1) } else { String::new() };
    let error = match file == path {
        true => format!("`{wheel}` of pip and `{package}` of conda both bring `{path}`{more}"),
        false => format!(
            "`{wheel}` of pip brings `{file}`, and `{package}` of conda `{path}`{more}: one would be a folder and the other a file"
        ),
    };
    Error::user(error).hint("leave one of them out: the same library may have another name on the other side").hint(
        format!(
            "`--allow-clobber '{}'` (a pattern may have `*`) gives it to the one of pip",
            glob::Pattern::escape(path)
        ),
    )
}

/// Byte code that is shipped for modules that another package replaces: it would not be theirs.
fn shipped_bytecode<'a>(
    lost: &BTreeMap<String, String>,
    targets: impl Iterator<Item = &'a str>,
) -> BTreeMap<String, String> {
    if lost.is_empty() {
        return BTreeMap::new();
    }
    let winner = |path: &str| lost.get(&module_of(path)?);
    targets.filter_map(|path| Some((path.to_owned(), winner(path)?.clone()))).collect()
}
