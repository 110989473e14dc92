//! The packages that the solver may choose from, by name, and why it may not choose others.

use std::collections::HashMap;
use std::sync::Arc;

use rattler_conda_types::{GenericVirtualPackage, MatchSpec, Matches as _, RepoDataRecord};
use rattler_solve::{ChannelPriority, ExcludeNewer};

use crate::resolve::index::{Index, misfit};
use crate::resolve::solve::{Task, Tier, from_named_channel, tier};
use crate::util::redact;

/// Why the solver may not choose a package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum LeftOut {
    /// An earlier channel, this one, has the package.
    Priority(String),
    /// It appeared after `--exclude-newer`.
    Newer,
    /// The spec names another channel for it.
    Channel,
    /// The base has another one of this name.
    Base,
}

/// Packages by name.
pub(super) struct Pool<'a> {
    usable: HashMap<&'a str, Vec<&'a RepoDataRecord>>,
    left_out: HashMap<&'a str, Vec<(&'a RepoDataRecord, LeftOut)>>,
    pub(super) virtual_packages: &'a [GenericVirtualPackage],
}

/// What the pool has for a spec.
#[derive(Debug)]
pub(super) enum Matching<'a> {
    /// These packages.
    Packages(Vec<&'a RepoDataRecord>),
    /// The target machine has it.
    Machine,
}

impl Matching<'_> {
    /// Whether there is nothing.
    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Self::Packages(packages) if packages.is_empty())
    }
}

impl<'a> Pool<'a> {
    /// The pool of a task. With `on_base`, of the base's packages there are no others.
    pub(super) fn new(task: &'a Task<'a>, index: &'a Index, on_base: bool) -> Self {
        let present = &task.options.present;
        let newer = task.options.exclude_newer.as_ref().map(|cutoff| ExcludeNewer::from_datetime(cutoff.last()));
        let is_strict = task.options.channel_priority == ChannelPriority::Strict;
        let mut pool =
            Self { usable: HashMap::new(), left_out: HashMap::new(), virtual_packages: task.virtual_packages };
        let mut first: HashMap<&str, Tier<'a>> = HashMap::new();
        for part in &index.parts {
            for record in part.iter() {
                let name = record.package_record.name.as_normalized();
                let of_channel = from_named_channel(task, record);
                let own = tier(part, record);
                let why = if of_channel == Some(false) {
                    Some(LeftOut::Channel)
                } else if on_base && present.package(name).is_some() {
                    Some(LeftOut::Base)
                } else {
                    let first = *first.entry(name).or_insert(own);
                    match newer.as_ref().is_some_and(|newer| newer.is_excluded(record)) {
                        _ if is_strict && first != own => Some(LeftOut::Priority(shown(first))),
                        true => Some(LeftOut::Newer),
                        false => None,
                    }
                };
                match why {
                    None => pool.usable.entry(name).or_default().push(record),
                    Some(why) => pool.left_out.entry(name).or_default().push((record, why)),
                }
            }
        }
        for record in &present.records {
            pool.usable.entry(record.package_record.name.as_normalized()).or_default().push(record);
        }
        pool
    }

    /// What a spec may be satisfied with.
    pub(super) fn matching(&self, wanted: &MatchSpec) -> Matching<'a> {
        if self.virtual_packages.iter().any(|package| wanted.matches(package)) {
            return Matching::Machine;
        }
        let name = wanted.name.as_exact().map(|name| name.as_normalized()).unwrap_or_default();
        let fits = |record: &&&RepoDataRecord| wanted.matches(**record) && misfit(wanted, record).is_none();
        Matching::Packages(self.named(name).iter().filter(fits).copied().collect())
    }

    /// The packages of a name.
    pub(super) fn named(&self, name: &str) -> &[&'a RepoDataRecord] {
        self.usable.get(name).map(Vec::as_slice).unwrap_or_default()
    }

    /// The newest package that would match if it were not left out, and why it is.
    pub(super) fn left_out(&self, wanted: &MatchSpec) -> Option<(&'a RepoDataRecord, &LeftOut)> {
        let name = wanted.name.as_exact()?.as_normalized();
        let others = self.left_out.get(name)?.iter().filter(|(record, _)| wanted.matches(*record));
        others.max_by_key(|(record, _)| newness(record)).map(|(record, why)| (*record, why))
    }
}

/// What tells the newer of two packages of a name.
pub(super) fn newness(record: &RepoDataRecord) -> (&rattler_conda_types::Version, u64) {
    (record.package_record.version.version(), record.package_record.build_number)
}

/// A channel or group as messages call it.
fn shown(tier: Tier<'_>) -> String {
    redact::text(tier.group.or(tier.channel).unwrap_or("another channel"))
}

/// Parsed dependencies, each parsed once: indexes repeat them thousands of times.
#[derive(Default)]
pub(super) struct Parsed<'a> {
    specs: HashMap<&'a str, Option<Arc<MatchSpec>>>,
}

impl<'a> Parsed<'a> {
    /// What a dependency asks for; none if it cannot be read, or holds under a condition only.
    pub(super) fn get(&mut self, text: &'a str) -> Option<Arc<MatchSpec>> {
        let parse = || {
            let spec = MatchSpec::from_str(text, rattler_conda_types::ParseStrictness::Lenient).ok()?;
            (spec.condition.is_none() && spec.name.as_exact().is_some()).then(|| Arc::new(spec))
        };
        self.specs.entry(text).or_insert_with(parse).clone()
    }
}
