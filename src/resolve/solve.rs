//! The solver.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use rattler_conda_types::{
    GenericVirtualPackage, MatchSpec, PackageNameMatcher, PackageRecord, RepoDataRecord, Subdir, Version,
};
use rattler_repodata_gateway::RepoData;
use rattler_solve::{
    CancellationToken, ChannelPriority, ChannelRepoData, ExcludeNewer, SolveError, SolverImpl as _, SolverTask,
};
use url::Url;

use super::index::{Index, misfit};
use super::{Channels, ResolveOptions, conflict, present};
use crate::spec::Spec;
use crate::util::{Error, Result};

/// What is to be solved.
pub(super) struct Task<'a> {
    pub(super) spec: &'a Spec,
    pub(super) options: &'a ResolveOptions<'a>,
    pub(super) channels: &'a Channels,
    /// The spec's dependencies, one for one, with their channels resolved.
    pub(super) specs: &'a [MatchSpec],
    pub(super) virtual_packages: &'a [GenericVirtualPackage],
}

impl Task<'_> {
    /// Where packages were looked for.
    pub(super) fn searched(&self) -> String {
        let channels: Vec<&str> = self.channels.members().map(|channel| channel.base_url.as_str()).collect();
        format!("searched for {} and noarch: {}", self.options.platform.subdir, channels.join(", "))
    }

    /// The specs that the base does not satisfy already.
    pub(super) fn open(&self) -> impl Iterator<Item = &MatchSpec> {
        self.specs.iter().filter(|wanted| self.options.present.named(wanted).is_none())
    }

    /// Whether the base does not satisfy a spec already.
    pub(super) fn is_open(&self, spec: usize) -> bool {
        self.options.present.named(&self.specs[spec]).is_none()
    }

    /// A spec as the user wrote it, and where: "environment.yml:4 `python=3.11`".
    pub(super) fn said(&self, spec: usize) -> String {
        format!("{} `{}`", self.spec.place_of(spec), self.spec.dependencies[spec].text)
    }

    /// What was assumed of the target.
    pub(super) fn assumed(&self) -> String {
        let packages: Vec<String> = self
            .virtual_packages
            .iter()
            .map(|package| match package.name.as_normalized() {
                "__archspec" => format!("__archspec={}", package.build_string),
                name => format!("{name}={}", package.version),
            })
            .collect();
        format!("assumed of the machine that the image will run on: {}", packages.join(", "))
    }
}

/// The packages to add, each after those that it needs.
pub(super) async fn solve(task: &Task<'_>, index: &Index) -> Result<Vec<RepoDataRecord>> {
    let present = &task.options.present;
    // Asked for by name, so that what they do not allow beside them does not get in.
    let kept = present.records.iter().map(|record| record.package_record.name.clone().into());
    let job = Job {
        specs: task.open().cloned().chain(kept.map(bare)).collect(),
        pinned: present.pinned(),
        ..Job::new(task, index)
    };
    match job.finish().await? {
        Ok(mut records) => {
            records.retain(|record| present.package(record.package_record.name.as_normalized()).is_none());
            Ok(PackageRecord::sort_topologically(records))
        }
        Err(SolveError::Unsolvable(reasons)) => match against_base(task, index).await? {
            Against::Base(error) => Err(error),
            Against::Nothing => Err(index.with_skipped(task, conflict::explain(task, index, &reasons, true).await?)),
            Against::Itself => Err(index.with_skipped(task, conflict::explain(task, index, &reasons, false).await?)),
        },
        Err(SolveError::Cancelled) => Err(Error::interrupted(130)),
        Err(error) => Err(Error::user("the environment cannot be solved").caused_by(error)),
    }
}

/// A spec that any package of a name satisfies.
pub(super) fn bare(name: PackageNameMatcher) -> MatchSpec {
    MatchSpec { name, ..MatchSpec::default() }
}

/// What specs that cannot be satisfied are in conflict with.
enum Against {
    /// The base, as the error says.
    Base(Error),
    /// The base, though no package of it says so by itself.
    Nothing,
    /// Each other.
    Itself,
}

/// Tells whether the specs could be satisfied if the base's packages might change.
async fn against_base(task: &Task<'_>, index: &Index) -> Result<Against> {
    if task.options.present.records.is_empty() {
        return Ok(Against::Itself);
    }
    let mut job = Job::new(task, index);
    job.locked.extend(task.options.present.preferred().into_iter().map(Arc::new));
    Ok(match job.finish().await? {
        Ok(free) => present::explain(task, &free).map_or(Against::Nothing, Against::Base),
        Err(_) => Against::Itself,
    })
}

/// A solve that owns all it needs, to run on a thread of its own.
pub(super) struct Job {
    pub(super) specs: Vec<MatchSpec>,
    virtual_packages: Vec<GenericVirtualPackage>,
    priority: ChannelPriority,
    excluded: HashMap<Url, Arc<str>>,
    pub(super) locked: Vec<Arc<RepoDataRecord>>,
    pub(super) pinned: Vec<RepoDataRecord>,
    exclude_newer: Option<ExcludeNewer>,
    index: Vec<RepoData>,
    token: CancellationToken,
}

impl Job {
    /// With everything except what is there already.
    fn new(task: &Task<'_>, index: &Index) -> Self {
        Self { locked: still_valid(task, &index.parts), ..Self::unlocked(task, index) }
    }

    /// With nothing of an older lock, which decides only on what is preferred.
    pub(super) fn unlocked(task: &Task<'_>, index: &Index) -> Self {
        Self {
            specs: task.specs.to_vec(),
            virtual_packages: task.virtual_packages.to_vec(),
            priority: task.options.channel_priority,
            excluded: excluded(task, index),
            locked: Vec::new(),
            pinned: Vec::new(),
            exclude_newer: task.options.exclude_newer.as_ref().map(|it| ExcludeNewer::from_datetime(it.last())),
            index: index.parts.clone(),
            token: CancellationToken::new(),
        }
    }

    /// Runs it on a thread of its own, for as long as somebody waits for it.
    pub(super) async fn finish(self) -> Result<Result<Vec<RepoDataRecord>, SolveError>> {
        let _stop = StopWhenDropped(self.token.clone());
        tokio::task::spawn_blocking(move || self.run())
            .await
            .map_err(|error| Error::bug("the solver broke down").caused_by(error))
    }

    fn run(self) -> Result<Vec<RepoDataRecord>, SolveError> {
        let available =
            self.index.iter().map(|part| ChannelRepoData { records: part.iter(), multi_channel: part.multi_channel() });
        let task = SolverTask {
            specs: self.specs,
            virtual_packages: self.virtual_packages,
            channel_priority: self.priority,
            excluded_candidates: self.excluded,
            locked_packages: self.locked.iter().map(Arc::as_ref).collect(),
            pinned_packages: self.pinned.iter().collect(),
            exclude_newer: self.exclude_newer,
            cancellation_token: Some(self.token),
            ..SolverTask::from_iter(available)
        };
        rattler_solve::resolvo::Solver.solve(task).map(|solution| solution.records)
    }
}

/// Stops the solver when nobody waits for it any more.
struct StopWhenDropped(CancellationToken);

impl Drop for StopWhenDropped {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// Records that must not be taken for reasons that the solver does not see.
fn excluded(task: &Task<'_>, index: &Index) -> HashMap<Url, Arc<str>> {
    let mut excluded = HashMap::new();
    // `channel/subdir::name`, `name[fn=...]`.
    for wanted in task.specs.iter().filter(|wanted| wanted.subdir.is_some() || wanted.file_name.is_some()) {
        for record in index.parts.iter().flat_map(RepoData::iter) {
            if wanted.name.matches(&record.package_record.name)
                && let Some(reason) = misfit(wanted, record)
            {
                excluded.insert(record.url.clone(), Arc::from(reason));
            }
        }
    }
    if task.options.channel_priority == ChannelPriority::Strict {
        exclude_later_channels(task, &index.named, &mut excluded);
    }
    // Wherever they came from, they are there.
    task.options.present.records.iter().for_each(|record| drop(excluded.remove(&record.url)));
    excluded
}

/// Strict priority for the packages that the specs name: the solver sees only those records of them that match,
/// so that it would take `lib=2` from a later channel when the first has but `lib` 1.
fn exclude_later_channels(task: &Task<'_>, named: &[RepoData], excluded: &mut HashMap<Url, Arc<str>>) {
    let mut first: HashMap<&str, Tier<'_>> = HashMap::new();
    for part in named {
        for record in part.iter() {
            let tier = tier(part, record);
            let first = *first.entry(record.package_record.name.as_normalized()).or_insert(tier);
            if first != tier && from_named_channel(task, record).is_none() {
                let before = first.group.or(first.channel).unwrap_or("another channel");
                let reason = format!("strict channel priority: {before} has this package");
                excluded.insert(record.url.clone(), Arc::from(reason));
            }
        }
    }
}

/// What shares a priority: a channel, or a group of them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Tier<'a> {
    pub(super) group: Option<&'a str>,
    pub(super) channel: Option<&'a str>,
}

/// The tier of a record of a part of the index.
pub(super) fn tier<'a>(part: &'a RepoData, record: &'a RepoDataRecord) -> Tier<'a> {
    match part.multi_channel() {
        Some(group) => Tier { group: Some(group), channel: None },
        None => Tier { group: None, channel: record.channel.as_deref() },
    }
}

/// Whether a record comes from the channel that a spec names for its package; nothing when none does.
pub(super) fn from_named_channel(task: &Task<'_>, record: &RepoDataRecord) -> Option<bool> {
    let name = &record.package_record.name;
    let wanted = task.specs.iter().find(|wanted| wanted.channel.is_some() && wanted.name.matches(name))?;
    Some(task.channels.allowed(wanted).any(|channel| record.url.as_str().starts_with(channel.base_url.as_str())))
}

/// The locked records that the channels still have, in today's form, from where a package of that name may come
/// today. (The solver would take a locked record as it is, even one that is gone.) For one of another platform, the
/// newest build of its version, so that a platform that is added later gets what the others have.
fn still_valid(task: &Task<'_>, index: &[RepoData]) -> Vec<Arc<RepoDataRecord>> {
    if task.options.locked.is_empty() {
        return Vec::new();
    }
    let locked = Locked::new(task);
    let strict = task.options.channel_priority == ChannelPriority::Strict;
    let mut first: HashMap<&str, Tier<'_>> = HashMap::new();
    let mut valid: BTreeMap<&str, &Arc<RepoDataRecord>> = BTreeMap::new();
    for part in index {
        for record in part.iter_arc().filter(|record| from_named_channel(task, record) != Some(false)) {
            let name = record.package_record.name.as_normalized();
            let tier = tier(part, record);
            let first = *first.entry(name).or_insert(tier);
            let known = valid.get(name).map(|known| known.as_ref());
            if locked.prefers(record, known) && (!strict || first == tier) {
                valid.insert(name, record);
            }
        }
    }
    valid.into_values().cloned().collect()
}

/// What an older lock holds.
struct Locked<'a> {
    urls: HashSet<&'a Url>,
    /// Of packages for other platforms.
    versions: HashSet<(&'a str, &'a Version)>,
}

impl<'a> Locked<'a> {
    fn new(task: &Task<'a>) -> Self {
        let own = [task.options.platform.subdir.as_str(), Subdir::NoArch.as_str()];
        let others = task.options.locked.iter().filter(|record| !own.contains(&record.package_record.subdir.as_str()));
        Self {
            urls: task.options.locked.iter().map(|record| &record.url).collect(),
            versions: others
                .map(|record| (record.package_record.name.as_normalized(), record.package_record.version.version()))
                .collect(),
        }
    }

    /// Whether a record is locked, and more so than another of its name.
    fn prefers(&self, record: &RepoDataRecord, known: Option<&RepoDataRecord>) -> bool {
        if self.urls.contains(&record.url) {
            return true;
        }
        let package = &record.package_record;
        let locked = self.versions.contains(&(package.name.as_normalized(), package.version.version()));
        let newer = |known: &RepoDataRecord| {
            let known_package = &known.package_record;
            !self.urls.contains(&known.url)
                && (package.build_number, &package.timestamp) > (known_package.build_number, &known_package.timestamp)
        };
        locked && known.is_none_or(newer)
    }
}
