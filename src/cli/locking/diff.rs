//! What became different in a lock, and why, for people to read.

use std::collections::{BTreeMap, BTreeSet};

use rattler_conda_types::{MatchSpec, ParseStrictness};

use crate::lock::{Lock, LockedPackage};

/// One line for each package that came, went or changed.
pub fn changes(old: &Lock, new: &Lock) -> Vec<String> {
    let reasons = Reasons::new(old, new);
    let mut lines: BTreeMap<&str, String> = BTreeMap::new();
    for package in &new.packages {
        let name = package.name();
        let line = match old.package(name) {
            None => format!("+ {name} {}", shown(package)),
            Some(before) if is_same(before, package) => continue,
            Some(before) if shown(before) == shown(package) => {
                let (now, then) = (&package.record.url, &before.record.url);
                let from = if now == then { "another archive".to_owned() } else { format!("from {now}") };
                format!("{name} {}: {from}", shown(package))
            }
            Some(before) => format!("{name} {} -> {}", shown(before), shown(package)),
        };
        lines.insert(name, with(line, reasons.of(package)));
    }
    for package in old.packages.iter().filter(|package| new.package(package.name()).is_none()) {
        let name = package.name();
        let reason = match old.specs.iter().any(|spec| names(spec) == Some(name.to_owned())) {
            true => "no longer asked for",
            false => "nothing needs it any more",
        };
        lines.insert(name, with(format!("- {name} {}", shown(package)), Some(reason.to_owned())));
    }
    lines.into_values().collect()
}

fn with(line: String, reason: Option<String>) -> String {
    match reason {
        Some(reason) => format!("{line} ({reason})"),
        None => line,
    }
}

/// Version and build.
fn shown(package: &LockedPackage) -> String {
    let record = &package.record.package_record;
    format!("{} {}", record.version, record.build)
}

fn is_same(before: &LockedPackage, now: &LockedPackage) -> bool {
    shown(before) == shown(now) && before.record.package_record.sha256 == now.record.package_record.sha256
}

/// The package that a dependency names.
fn names(spec: &str) -> Option<String> {
    let spec = MatchSpec::from_str(spec, ParseStrictness::Lenient).ok()?;
    Some(spec.name.as_exact()?.as_normalized().to_owned())
}

/// Why packages are other ones than before.
struct Reasons<'a> {
    old: &'a Lock,
    /// Packages that are new or changed.
    changed: Vec<&'a LockedPackage>,
    /// New dependencies by the package that they name.
    asked: BTreeMap<String, &'a str>,
}

impl<'a> Reasons<'a> {
    fn new(old: &'a Lock, new: &'a Lock) -> Self {
        let changed = |package: &&LockedPackage| old.package(package.name()).is_none_or(|it| !is_same(it, package));
        let asked = new.specs.iter().filter(|spec| !old.specs.contains(spec));
        Self {
            old,
            changed: new.packages.iter().filter(changed).collect(),
            asked: asked.filter_map(|spec| Some((names(spec)?, spec.as_str()))).collect(),
        }
    }

    fn of(&self, package: &LockedPackage) -> Option<String> {
        let name = package.name();
        if let Some(spec) = self.asked.get(name) {
            return Some(format!("asked for: {spec}"));
        }
        // What another package that came or changed needs of it, and its predecessor did not.
        self.changed.iter().filter(|other| other.name() != name).find_map(|other| {
            let before: BTreeSet<&String> = self
                .old
                .package(other.name())
                .map(|it| it.record.package_record.depends.iter().collect())
                .unwrap_or_default();
            let mut depends = other.record.package_record.depends.iter();
            let needed = depends.find(|spec| !before.contains(spec) && names(spec).as_deref() == Some(name))?;
            Some(format!("{} {} needs {needed}", other.name(), other.record.package_record.version))
        })
    }
}
