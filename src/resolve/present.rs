//! What is there already: the packages of the base image that an environment extends (`from:`). They stay exactly as
//! they are, whatever today's channels have. What does not fit them is told before the solver is asked, or found by
//! solving once more as if they might change: what would change then, and for whom, is the explanation.

use std::collections::{BTreeMap, BTreeSet};

use rattler_conda_types::{MatchSpec, Matches as _, PackageRecord, ParseStrictness, RepoDataRecord};

use super::index::misfit;
use super::solve::Task;
use crate::lock::{canonical_channel, dependency_name};
use crate::util::{Error, Result};

/// The packages that the base brings.
#[derive(Debug, Clone, Default)]
pub struct Present {
    /// The base, as the user named it.
    pub base: String,
    /// Its packages, each name once.
    pub records: Vec<RepoDataRecord>,
}

impl Present {
    /// The package with this normalised name.
    pub fn package(&self, name: &str) -> Option<&RepoDataRecord> {
        self.records.iter().find(|record| name_of(record) == name)
    }

    /// The package that a spec names.
    pub(super) fn named(&self, wanted: &MatchSpec) -> Option<&RepoDataRecord> {
        self.package(wanted.name.as_exact()?.as_normalized())
    }

    /// As the solver gets them, to be left alone: what they need was settled when the base was made, and is now only
    /// what nothing new may break.
    pub(super) fn pinned(&self) -> Vec<RepoDataRecord> {
        let pinned = self.records.iter().cloned().map(|mut record| {
            let package = &mut record.package_record;
            let needed = std::mem::take(&mut package.depends);
            package.constrains.extend(needed.into_iter().filter(|spec| !is_virtual(spec)));
            // No date leaves out what is there.
            package.timestamp = Some(rattler_conda_types::utils::TimestampMs::from(jiff::Timestamp::UNIX_EPOCH));
            record
        });
        pinned.collect()
    }

    /// As the solver gets them when it may change them.
    pub(super) fn preferred(&self) -> Vec<RepoDataRecord> {
        let preferred = self.records.iter().cloned().map(|mut record| {
            record.package_record.depends.retain(|spec| !is_virtual(spec));
            record
        });
        preferred.collect()
    }
}

fn name_of(record: &RepoDataRecord) -> &str {
    record.package_record.name.as_normalized()
}

/// `name version`, as messages call a package.
fn shown(record: &RepoDataRecord) -> String {
    format!("{} {}", name_of(record), record.package_record.version)
}

/// Whether a dependency is on the machine.
fn is_virtual(spec: &str) -> bool {
    spec.trim_start().starts_with("__")
}

/// Refuses what the specs ask of the base's own packages and they are not.
pub(super) fn check(task: &Task<'_>) -> Result<()> {
    let mut against = Vec::new();
    for (index, wanted) in task.specs.iter().enumerate() {
        let Some(record) = task.options.present.named(wanted) else { continue };
        if !fits(task, wanted, record) {
            let (text, place) = (&task.spec.dependencies[index].text, task.spec.place_of(index));
            let channel = record.channel.as_deref().filter(|_| wanted.channel.is_some());
            let from = channel.map(|channel| format!(" (from {channel})")).unwrap_or_default();
            against.push(format!("`{}`{from} of the base against `{text}` ({place})", shown(record)));
        }
    }
    if against.is_empty() { Ok(()) } else { Err(conflict(task, &against)) }
}

fn fits(task: &Task<'_>, wanted: &MatchSpec, record: &RepoDataRecord) -> bool {
    // The canonical URL of a local channel is not where it lies.
    let right_channel = wanted.channel.is_none()
        || record.channel.as_deref().is_some_and(|own| {
            let own = canonical_channel(own);
            task.channels.allowed(wanted).any(|channel| canonical_channel(channel.base_url.as_str()) == own)
        });
    right_channel && wanted.matches(record) && misfit(wanted, record).is_none()
}

/// What to say when the specs and the base cannot be together.
fn conflict(task: &Task<'_>, against: &[String]) -> Error {
    let lines: String = against.iter().map(|line| format!("\n  {line}")).collect();
    let (file, base) = (task.spec.file.display(), &task.options.present.base);
    Error::user(format!(
        "what `{file}` asks for does not fit the base `{base}`, whose packages stay as they are:{lines}"
    ))
    .hint("ask for other versions, or extend another base that has what is needed")
    .hint("without `from` (`--from`) the whole environment is solved and built anew")
}

/// Why nothing fits, given a solution in which the base's packages may change.
pub(super) fn explain(task: &Task<'_>, free: &[RepoDataRecord]) -> Option<Error> {
    let reasons = Reasons::new(task, free);
    let all = free.iter().filter(|record| !reasons.is_kept(record));
    let (changed, new): (Vec<_>, Vec<_>) =
        all.partition(|record| task.options.present.package(name_of(record)).is_some());
    let of = |records: &[&RepoDataRecord]| records.iter().flat_map(|record| reasons.of(record)).collect::<Vec<_>>();
    let against = match of(&new) {
        against if against.is_empty() => of(&changed),
        against => against,
    };
    (!against.is_empty()).then(|| conflict(task, &against))
}

/// What the packages of a solution have against those of the base.
struct Reasons<'a> {
    task: &'a Task<'a>,
    /// The user's dependency that brings each package in, by the package's name.
    roots: BTreeMap<&'a str, usize>,
}

impl<'a> Reasons<'a> {
    fn new(task: &'a Task<'a>, free: &'a [RepoDataRecord]) -> Self {
        let by_name: BTreeMap<&str, &RepoDataRecord> = free.iter().map(|record| (name_of(record), record)).collect();
        let mut roots = BTreeMap::new();
        // Breadth first: the shortest way in is the one to tell.
        let mut pending: Vec<(&str, usize)> = Vec::new();
        for (index, wanted) in task.specs.iter().enumerate() {
            let name = wanted.name.as_exact().and_then(|name| by_name.get_key_value(name.as_normalized()));
            pending.extend(name.map(|(name, _)| (*name, index)));
        }
        while !pending.is_empty() {
            let mut next = Vec::new();
            for (name, root) in pending {
                let Some(record) = by_name.get(name).filter(|_| !roots.contains_key(name)) else { continue };
                roots.insert(name, root);
                let depends = record.package_record.depends.iter().map(|spec| (dependency_name(spec), root));
                next.extend(depends);
            }
            pending = next;
        }
        Self { task, roots }
    }

    /// Whether a package of the solution is the base's own.
    fn is_kept(&self, record: &RepoDataRecord) -> bool {
        let same = |own: &RepoDataRecord| {
            let (own, record) = (&own.package_record, &record.package_record);
            (&own.version, &own.build, own.build_number) == (&record.version, &record.build, record.build_number)
        };
        self.task.options.present.package(name_of(record)).is_some_and(same)
    }

    /// What a package has against the base's, one line each.
    fn of(&self, record: &RepoDataRecord) -> BTreeSet<String> {
        let PackageRecord { depends, constrains, .. } = &record.package_record;
        let present = &self.task.options.present;
        let asked = self.asked(name_of(record));
        let misses =
            |spec: &&String| present.package(dependency_name(spec)).filter(|own| !matches(spec, own)).map(shown);
        let needs = depends.iter().filter_map(|spec| misses(&spec).map(|own| (own, spec, "needs")));
        let allows = constrains.iter().filter_map(|spec| misses(&spec).map(|own| (own, spec, "allows only")));
        let mut lines: BTreeSet<String> = needs
            .chain(allows)
            .map(|(own, spec, verb)| {
                format!("`{own}` of the base against `{spec}`, which `{}` {verb}{asked}", shown(record))
            })
            .collect();
        for own in &present.records {
            let spec = own.package_record.constrains.iter().find(|spec| dependency_name(spec) == name_of(record));
            if let Some(spec) = spec.filter(|spec| !matches(spec, record)) {
                let (own, record) = (shown(own), shown(record));
                lines.insert(format!("`{own}` of the base, which allows only `{spec}`, against `{record}`{asked}"));
            }
        }
        lines
    }

    /// Which of the user's dependencies brings a package in.
    fn asked(&self, name: &str) -> String {
        let Some(&index) = self.roots.get(name) else { return String::new() };
        let (text, place) = (&self.task.spec.dependencies[index].text, self.task.spec.place_of(index));
        match self.task.specs[index].name.as_exact().is_some_and(|asked| asked.as_normalized() == name) {
            true => format!(" (asked for: `{text}`, {place})"),
            false => format!(" (needed for `{text}`, {place})"),
        }
    }
}

/// Whether a record is what a dependency of another one wants. What cannot be read is no reason.
fn matches(spec: &str, record: &RepoDataRecord) -> bool {
    MatchSpec::from_str(spec, ParseStrictness::Lenient).map_or(true, |spec| spec.matches(record))
}
