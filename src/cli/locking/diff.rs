//! What became different in a lock, and why, for people to read.

use std::collections::{BTreeMap, BTreeSet};

use rattler_conda_types::{MatchSpec, Matches as _, ParseStrictness};
use serde::Serialize;

use crate::lock::{Lock, LockedPackage, LockedWheel, Locks, WheelSource, dependency_name};
use crate::model::Platform;
use crate::util::report::{Event, Reporter};

/// A change of a lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Change {
    /// `conda`, `pip` or `base`.
    kind: &'static str,
    /// The package, or the reference of the base.
    name: String,
    /// Version and build, of a wheel the version, of a base the digest; none of what came.
    before: Option<String>,
    /// The same now; none of what went.
    after: Option<String>,
    /// All of it, and why, for people.
    #[serde(skip)]
    text: String,
}

/// What machines read of a change.
#[derive(Serialize)]
struct Changed {
    platform: String,
    #[serde(flatten)]
    change: Change,
}

/// Says what became different in a lock that was there before.
pub fn tell(platforms: &[Platform], old: &Locks, new: &Locks, reporter: &dyn Reporter) {
    if old.is_empty() {
        return;
    }
    for lock in platforms.iter().filter_map(|platform| new.get(platform)) {
        let name = lock.platform.lock_name();
        match old.get(&lock.platform) {
            None => reporter.notice(&format!("lock: + {name}, {}", lock.counted())),
            Some(old) => {
                let what = if new.iter().len() > 1 { format!("lock ({name})") } else { "lock".to_owned() };
                for change in changes(old, lock) {
                    let platform = lock.platform.to_string();
                    let text = format!("{what}: {}", change.text);
                    reporter.event(&Event::new("lock-change", &Changed { platform, change }, text));
                }
            }
        }
    }
}

/// What came, went or changed.
fn changes(old: &Lock, new: &Lock) -> Vec<Change> {
    let reasons = Reasons::new(old, new);
    let change = |name: &str, text: String| Change {
        kind: "conda",
        name: name.to_owned(),
        before: old.package(name).map(shown),
        after: new.package(name).map(shown),
        text,
    };
    let mut lines: BTreeMap<&str, Change> = BTreeMap::new();
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
        lines.insert(name, change(name, with(line, reasons.of(name))));
    }
    let asked: BTreeSet<String> = old.specs.iter().filter_map(|spec| named(spec)).collect();
    for package in old.packages.iter().filter(|package| new.package(package.name()).is_none()) {
        let name = package.name();
        let reason = if asked.contains(name) { "no longer asked for" } else { "nothing needs it any more" };
        lines.insert(name, change(name, with(format!("- {name} {}", shown(package)), Some(reason.to_owned()))));
    }
    for package in &new.packages {
        let before = old.package(package.name()).and_then(|before| before.facts.stability);
        if let (Some(before), Some(now)) = (before, package.facts.stability)
            && before != now
        {
            let line = || change(package.name(), format!("{} {}", package.name(), shown(package)));
            let text = &mut lines.entry(package.name()).or_insert_with(line).text;
            text.push_str(&format!(", {} instead of {}", now.name(), before.name()));
        }
    }
    let base = (old.base.reference == new.base.reference && old.base.digest != new.base.digest).then(|| Change {
        kind: "base",
        name: new.base.reference.clone(),
        before: Some(old.base.digest.to_string()),
        after: Some(new.base.digest.to_string()),
        text: format!("base {}: {} -> {}", new.base.reference, old.base.digest, new.base.digest),
    });
    base.into_iter().chain(lines.into_values()).chain(wheels(old, new)).collect()
}

/// The same for pip packages.
fn wheels(old: &Lock, new: &Lock) -> Vec<Change> {
    let of = |lock: &'_ Lock, name: &str| lock.wheels.iter().find(|wheel| wheel.name == name).cloned();
    let change = |name: &str, text: String| Change {
        kind: "pip",
        name: name.to_owned(),
        before: of(old, name).map(|wheel| wheel.version),
        after: of(new, name).map(|wheel| wheel.version),
        text,
    };
    let mut lines = Vec::new();
    for wheel in &new.wheels {
        let (name, version) = (&wheel.name, &wheel.version);
        let line = match of(old, name) {
            None => format!("+ {name} {version} (pip)"),
            Some(before) if before.version != *version => format!("{name} {} -> {version} (pip)", before.version),
            Some(before) if before.source != wheel.source => {
                format!("{name} {version}: {} -> {} (pip)", origin(&before), origin(wheel))
            }
            Some(before) if before.sha256 != wheel.sha256 => format!("{name} {version}: another wheel (pip)"),
            Some(_) => continue,
        };
        lines.push(change(name, line));
    }
    let gone = old.wheels.iter().filter(|wheel| of(new, &wheel.name).is_none());
    lines.extend(gone.map(|wheel| change(&wheel.name, format!("- {} {} (pip)", wheel.name, wheel.version))));
    lines
}

/// What a wheel is made of, in few words.
fn origin(wheel: &LockedWheel) -> String {
    match &wheel.source {
        WheelSource::Wheel { url } | WheelSource::Sdist { url, .. } => url.to_string(),
        WheelSource::Git { commit, .. } => format!("commit {commit}"),
        WheelSource::Folder { digest, .. } => format!("content {}", &digest.hex()[..12]),
    }
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

/// The package that a user's dependency names, which may have a channel before it.
fn named(spec: &str) -> Option<String> {
    let spec = MatchSpec::from_str(spec, ParseStrictness::Lenient).ok()?;
    Some(spec.name.as_exact()?.as_normalized().to_owned())
}

/// Why packages are other ones than before, by name.
struct Reasons<'a> {
    /// New dependencies of the user.
    asked: BTreeMap<String, &'a str>,
    /// What packages that came or changed need, where what was there before would not do.
    needed: BTreeMap<&'a str, String>,
}

impl<'a> Reasons<'a> {
    fn new(old: &'a Lock, new: &'a Lock) -> Self {
        let asked = new.specs.iter().filter(|spec| !old.specs.contains(spec));
        let mut needed = BTreeMap::new();
        for package in &new.packages {
            let before = old.package(package.name());
            if before.is_some_and(|before| is_same(before, package)) {
                continue;
            }
            let record = &package.record.package_record;
            for spec in record.depends.iter().filter(|spec| !fits(old.package(dependency_name(spec)), spec)) {
                let reason = || format!("{} {} needs {spec}", package.name(), record.version);
                needed.entry(dependency_name(spec)).or_insert_with(reason);
            }
        }
        Self { asked: asked.filter_map(|spec| Some((named(spec)?, spec.as_str()))).collect(), needed }
    }

    fn of(&self, name: &str) -> Option<String> {
        let asked = self.asked.get(name).map(|spec| format!("asked for: {spec}"));
        asked.or_else(|| self.needed.get(name).cloned())
    }
}

/// Whether a package is there and is what a dependency of another one wants.
fn fits(package: Option<&LockedPackage>, spec: &str) -> bool {
    let wanted = MatchSpec::from_str(spec, ParseStrictness::Lenient).ok();
    package.zip(wanted).is_some_and(|(package, wanted)| wanted.matches(&package.record.package_record))
}
