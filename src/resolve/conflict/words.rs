//! Conflicts in sentences.

use std::collections::{BTreeMap, HashSet};

use rattler_conda_types::{MatchSpec, Matches as _, ParseStrictness, RepoDataRecord, StringMatcher};

use super::Conflict;
use super::needs::{Chain, Need, Needs};
use super::pool::{LeftOut, Pool, newness};
use super::ranges;
use crate::model::flag_for_virtual_package;
use crate::resolve::solve::Task;

/// Versions and builds that are listed.
const MOST_LISTED: usize = 6;
/// Lines of the solver's explanation that are shown.
const MOST_LINES: usize = 24;

/// Something that cannot be satisfied, and what to do.
pub(super) struct Finding {
    pub(super) text: String,
    pub(super) hints: Vec<String>,
}

impl Finding {
    /// The solver's own words.
    pub(super) fn of_solver(reasons: &str) -> Self {
        Self { text: format!("its specs cannot be satisfied together:{}", lines(reasons)), hints: Vec::new() }
    }
}

/// A spec that no package matches.
pub(super) fn unmatched(task: &Task<'_>, pool: &Pool<'_>, spec: usize) -> Finding {
    let wanted = &task.specs[spec];
    let name = wanted.name.as_exact().map(|name| name.as_normalized()).unwrap_or_default();
    let mut finding = Finding { text: format!("nothing matches {}", task.said(spec)), hints: Vec::new() };
    if name.starts_with("__") {
        finding.hints.push(flag(pool, &task.spec.dependencies[spec].text));
        return finding;
    }
    if let Some((record, why)) = pool.left_out(wanted) {
        finding.text.push_str(&format!(": {}", left_out(task, record, why)));
        finding.hints.extend(way_around(why));
    }
    finding.hints.extend(there_is(pool, wanted, name));
    finding
}

/// A smallest set of specs that cannot be satisfied.
pub(super) fn conflict<'a>(
    task: &Task<'_>,
    pool: &Pool<'a>,
    needs: &mut Needs<'a, '_>,
    conflict: &Conflict,
) -> Finding {
    let chains: Vec<(usize, Chain<'a>)> =
        conflict.specs.iter().map(|&spec| (spec, needs.of(&task.specs[spec]))).collect();
    let mut finding = match chains.as_slice() {
        [(spec, chain)] => alone(task, pool, *spec, chain),
        several => between(task, several),
    }
    .unwrap_or_else(|| unexplained(task, conflict));
    // More packages would be allowed on another machine.
    let of_machine: Vec<String> =
        chains.iter().flat_map(|(_, chain)| chain.wanted_of_machine.iter().cloned()).collect();
    for need in of_machine.iter().take(MOST_LISTED) {
        let hint = flag(pool, need);
        if !finding.hints.contains(&hint) {
            finding.hints.push(hint);
        }
    }
    let suggestion = |(spec, record): &(usize, RepoDataRecord)| {
        let package = &record.package_record;
        let name = package.name.as_normalized();
        let dependency = &task.spec.dependencies[*spec].text;
        let channel = dependency.rsplit_once("::").map(|(channel, _)| format!("{channel}::")).unwrap_or_default();
        let (version, place) = (&package.version, task.spec.place_of(*spec));
        format!(
            "write `{channel}{name}={version}` instead of `{dependency}` ({place}): the solver finds a solution then"
        )
    };
    let mut hints: Vec<String> = conflict.suggestions.iter().map(suggestion).collect();
    if hints.is_empty() && chains.len() > 1 {
        hints.push("change one of these specs, or leave it out".to_owned());
    }
    hints.append(&mut finding.hints);
    Finding { hints, ..finding }
}

/// Why a spec cannot be satisfied by itself.
fn alone(task: &Task<'_>, pool: &Pool<'_>, spec: usize, chain: &Chain<'_>) -> Option<Finding> {
    let said = task.said(spec);
    if let Some(obstacle) = &chain.obstacle {
        let dependency = &obstacle.dependency;
        let ways = which_needs(chain, &chain.way_to(obstacle.of), &[]);
        let (why, hints) = lacking(task, pool, dependency);
        let needs = as_sentence(&format!("{ways}, which needs `{dependency}`"));
        return Some(Finding { text: format!("{said} cannot be satisfied: {needs}, and {why}"), hints });
    }
    let (one, other) = clash(chain, chain)?;
    let way =
        |need: usize, other: usize| as_sentence(&which_needs(chain, &chain.way_to(need), &chain.needs[other].allowed));
    let text = format!("{said} cannot be satisfied: {}, but {}", way(one, other), way(other, one));
    Some(Finding { text, hints: Vec::new() })
}

/// `it needs A, which needs B` of `, which needs A, which needs B`.
fn as_sentence(ways: &str) -> String {
    match ways.strip_prefix(", which ") {
        Some(rest) => format!("it {rest}"),
        None => "it is asked for".to_owned(),
    }
}

/// What is wrong with a dependency that nothing satisfies, and what to do.
fn lacking(task: &Task<'_>, pool: &Pool<'_>, dependency: &str) -> (String, Vec<String>) {
    let name = crate::lock::dependency_name(dependency).to_lowercase();
    if name.starts_with("__") {
        let why = match pool.virtual_packages.iter().find(|package| package.name.as_normalized() == name) {
            Some(package) if name == "__archspec" => {
                format!("the image is for a machine with `{name}={}`", package.build_string)
            }
            Some(package) => format!("the image is for a machine with `{name}={}`", package.version),
            None => format!("the image is for a machine without `{name}`"),
        };
        return (why, vec![flag(pool, dependency)]);
    }
    let Ok(wanted) = MatchSpec::from_str(dependency, ParseStrictness::Lenient) else {
        return ("no package satisfies that".to_owned(), Vec::new());
    };
    match pool.left_out(&wanted) {
        Some((record, why)) => (left_out(task, record, why), way_around(why).into_iter().collect()),
        None if pool.named(&name).is_empty() => ("no channel has that package".to_owned(), Vec::new()),
        None => ("no package satisfies that".to_owned(), there_is(pool, &wanted, &name).into_iter().collect()),
    }
}

/// Why two or more specs cannot be satisfied together.
fn between(task: &Task<'_>, chains: &[(usize, Chain<'_>)]) -> Option<Finding> {
    let finding = |text: String| Finding { text, hints: Vec::new() };
    if let [(one, a), (other, b)] = chains {
        let (left, right) = clash(a, b)?;
        let (mut first, mut second) = ((*one, a, left), (*other, b, right));
        // The shorter part first.
        if a.way_to(left).len() > b.way_to(right).len() {
            std::mem::swap(&mut first, &mut second);
        }
        let part = |(spec, chain, need): (usize, &Chain<'_>, usize), against: &Need<'_>| {
            format!("{}{}", task.said(spec), which_needs(chain, &chain.way_to(need), &against.allowed))
        };
        let (a, b) = (part(first, &second.1.needs[second.2]), part(second, &first.1.needs[first.2]));
        let comma = if a.contains(", which") { "," } else { "" };
        return Some(finding(format!("{a}{comma} conflicts with {b}")));
    }
    let name = jointly(chains)?;
    let part = |(spec, chain): &(usize, Chain<'_>)| {
        let need = chain.needs.iter().position(|need| need.name == name)?;
        Some(format!("\n    {}{}", task.said(*spec), which_needs(chain, &chain.way_to(need), &[])))
    };
    let parts: String = chains.iter().filter_map(part).collect();
    Some(finding(format!("no `{name}` satisfies these specs together:{parts}")))
}

/// Specs that conflict in a way that the records alone do not show.
fn unexplained(task: &Task<'_>, conflict: &Conflict) -> Finding {
    let said: Vec<String> = conflict.specs.iter().map(|&spec| task.said(spec)).collect();
    let text = match said.as_slice() {
        [only] => format!("{only} cannot be satisfied:"),
        [one, other] => format!("{one} conflicts with {other}:"),
        several => format!("{} conflict:", several.join(", ")),
    };
    Finding { text: format!("{text}{}", lines(&conflict.reasons)), hints: Vec::new() }
}

/// `, which needs A, which needs B` for a way; `against` is what the last one is told apart from.
fn which_needs(chain: &Chain<'_>, way: &[usize], against: &[&RepoDataRecord]) -> String {
    let step = |(position, &need): (usize, &usize)| {
        let need = &chain.needs[need];
        let against = if position + 1 == way.len() { against } else { &[] };
        let verb = if need.is_limit { "allows only" } else { "needs" };
        format!(", which {verb} {}", ranges::shown(&need.name, &need.alternatives, against))
    };
    way.iter().enumerate().map(step).collect()
}

/// A need of each chain for one package that nothing satisfies both; those nearest to the specs.
fn clash(one: &Chain<'_>, other: &Chain<'_>) -> Option<(usize, usize)> {
    let mut by_name: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (at, need) in other.needs.iter().enumerate() {
        by_name.entry(&need.name).or_default().push(at);
    }
    let mut found: Option<(usize, (usize, usize))> = None;
    for (left, need) in one.needs.iter().enumerate() {
        let allowed: HashSet<*const RepoDataRecord> = need.allowed.iter().map(|&record| record as *const _).collect();
        for &right in by_name.get(need.name.as_str()).into_iter().flatten() {
            let against = &other.needs[right];
            let apart = !against.allowed.iter().any(|&record| allowed.contains(&(record as *const _)));
            let length = one.way_to(left).len() + other.way_to(right).len();
            if apart && !(need.is_limit && against.is_limit) && found.is_none_or(|(known, _)| length < known) {
                found = Some((length, (left, right)));
            }
        }
    }
    found.map(|(_, clash)| clash)
}

/// A package that all chains together leave nothing of, though each two of them do.
fn jointly(chains: &[(usize, Chain<'_>)]) -> Option<String> {
    let names = chains.iter().flat_map(|(_, chain)| chain.needs.iter().map(|need| need.name.as_str()));
    let mut names: Vec<&str> = names.collect();
    names.sort_unstable();
    names.dedup();
    let nothing_left = |name: &&str| {
        let mut left: Option<HashSet<*const RepoDataRecord>> = None;
        let needs = chains.iter().flat_map(|(_, chain)| chain.needs.iter().filter(|need| need.name == *name));
        for need in needs {
            let allowed: HashSet<*const RepoDataRecord> = need.allowed.iter().map(|&it| it as *const _).collect();
            left = Some(left.map_or(allowed.clone(), |left| left.intersection(&allowed).copied().collect()));
        }
        left.is_some_and(|left| left.is_empty())
    };
    names.into_iter().find(nothing_left).map(str::to_owned)
}

/// What there is of a package of which nothing matches: builds if only they are wrong, else versions.
fn there_is(pool: &Pool<'_>, wanted: &MatchSpec, name: &str) -> Option<String> {
    let mut records = pool.named(name).to_vec();
    records.sort_by(|a, b| newness(b).cmp(&newness(a)));
    let any_build = MatchSpec { build: None, build_number: None, ..wanted.clone() };
    let of_version: Vec<_> = records.iter().filter(|record| any_build.matches(**record)).collect();
    if let (Some(StringMatcher::Exact(_) | StringMatcher::Glob(_)), Some(newest)) = (&wanted.build, of_version.first())
    {
        let version = &newest.package_record.version;
        let builds = of_version.iter().filter(|record| record.package_record.version == *version);
        let builds = builds.map(|record| format!("`{}`", record.package_record.build));
        return Some(format!("of `{name} {version}` there are the builds {}", listed(builds.collect())));
    }
    let mut versions: Vec<_> = records.iter().map(|record| record.package_record.version.version()).collect();
    versions.dedup();
    if versions.len() > MOST_LISTED {
        versions.dedup_by_key(|version| version.as_major_minor());
    }
    let versions: Vec<String> = versions.into_iter().map(ToString::to_string).collect();
    (!versions.is_empty()).then(|| format!("of `{name}` there is {}", listed(versions)))
}

/// The first of a list, each once.
fn listed(mut all: Vec<String>) -> String {
    let mut seen = HashSet::new();
    all.retain(|item| seen.insert(item.clone()));
    let more = if all.len() > MOST_LISTED { ", ..." } else { "" };
    all.truncate(MOST_LISTED);
    format!("{}{more}", all.join(", "))
}

/// Why the solver may not choose a package that would match.
fn left_out(task: &Task<'_>, record: &RepoDataRecord, why: &LeftOut) -> String {
    let package = &record.package_record;
    let shown = format!("`{} {}`", package.name.as_normalized(), package.version);
    let channel = record.channel.as_deref().map(crate::util::redact::text).unwrap_or_default();
    match why {
        LeftOut::Priority(first) => {
            format!("{shown} of `{channel}` is left out by strict channel priority, since `{first}` has the package")
        }
        LeftOut::Newer => match &task.options.exclude_newer {
            Some(cutoff) => format!("{shown} is left out by `--exclude-newer {cutoff}`"),
            None => format!("{shown} is left out by `--exclude-newer`"),
        },
        LeftOut::Channel => format!("{shown} of `{channel}` is left out, since a spec names another channel"),
        LeftOut::Base => match task.options.present.package(package.name.as_normalized()) {
            Some(own) => format!("the base `{}` has {}", task.options.present.base, own.package_record.version),
            None => format!("the base `{}` has another one", task.options.present.base),
        },
    }
}

fn way_around(why: &LeftOut) -> Option<String> {
    match why {
        LeftOut::Priority(_) => {
            Some("`--channel-priority flexible` also takes packages from later channels".to_owned())
        }
        LeftOut::Newer => Some("choose a later date with `--exclude-newer`, or leave it out".to_owned()),
        LeftOut::Channel => Some("leave out the channel in the spec, or name the other one".to_owned()),
        LeftOut::Base => Some("extend another base, or build without `--from`".to_owned()),
    }
}

/// The flag that declares what a dependency on the machine asks for.
fn flag(pool: &Pool<'_>, dependency: &str) -> String {
    let name = crate::lock::dependency_name(dependency);
    let known = pool.virtual_packages.iter().find(|package| package.name.as_normalized() == name);
    flag_for_virtual_package(dependency, known.map(|package| package.version.to_string()).as_deref())
}

/// The solver's explanation, each line indented.
fn lines(reasons: &str) -> String {
    let all: Vec<&str> = reasons.lines().filter(|line| !line.trim().is_empty()).collect();
    let more = match all.len().checked_sub(MOST_LINES + 1) {
        Some(more) => format!("\n    ... and {} more lines", more + 1),
        None => String::new(),
    };
    let shown = all.iter().take(MOST_LINES).map(|line| format!("\n    {}", line.trim_end()));
    format!("{}{more}", shown.collect::<String>())
}
