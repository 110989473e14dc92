//! Why no set of packages fits, in terms of what the user wrote. The solver decides what fits: it is asked again about
//! parts of the specs until a smallest set is left that cannot be satisfied ([`minimal`]). What the packages of that set
//! require of each other is then read from their records ([`needs`]), and told with the places of the specs ([`words`]).
//!
//! All of it happens within [`LONGEST`]; what is found until then is told. The solver's own explanation of the smallest
//! set is shown if the records alone do not explain it.

mod minimal;
mod needs;
mod pool;
mod ranges;
mod words;

use std::time::Duration;

use rattler_conda_types::{MatchSpec, RepoDataRecord};
use tokio::time::Instant;

use super::index::Index;
use super::solve::Task;
use crate::util::{Error, Result};
use minimal::Search;
use needs::Needs;
use pool::Pool;
use words::Finding;

/// How long the solver is asked for explanations. An environment of 40 specs from conda-forge takes two to five seconds.
const LONGEST: Duration = Duration::from_secs(30);

/// Independent conflicts that are told at once; each takes several solves.
const MOST_CONFLICTS: usize = 3;

/// Smallest sets up to this size get suggestions; each spec of them takes a solve.
const MOST_SUGGESTED: usize = 3;

/// A smallest set of specs that cannot be satisfied together.
pub(super) struct Conflict {
    /// Indexes of the specs, ascending.
    pub(super) specs: Vec<usize>,
    /// The solver's own explanation.
    pub(super) reasons: String,
    /// Specs of the set that could be satisfied with another version of their package, which the solver found for the
    /// whole environment.
    pub(super) suggestions: Vec<(usize, RepoDataRecord)>,
}

/// Explains why the specs of a task cannot be satisfied, on top of the base's packages if `on_base`. `reasons` is the
/// solver's own explanation.
///
/// # Errors
/// When the solver breaks down, or somebody interrupts it.
pub(super) async fn explain(task: &Task<'_>, index: &Index, reasons: &[String], on_base: bool) -> Result<Error> {
    let deadline = Instant::now() + LONGEST;
    let index = index.with_all_versions(task, deadline).await;
    let hopeless = hopeless(task, &index, on_base);
    let conflicts = match hopeless.is_empty() {
        true => conflicts(&Search { task, index: &index, deadline, on_base }, reasons).await?,
        false => Vec::new(),
    };
    Ok(told(task, &index, on_base, hopeless, &conflicts, reasons))
}

/// The specs that no package matches.
fn hopeless(task: &Task<'_>, index: &Index, on_base: bool) -> Vec<usize> {
    let pool = Pool::new(task, index, on_base);
    (0..task.specs.len()).filter(|&spec| task.is_open(spec) && pool.matching(&task.specs[spec]).is_empty()).collect()
}

/// Smallest sets of specs that cannot be satisfied, none with a spec of another.
async fn conflicts(search: &Search<'_>, reasons: &[String]) -> Result<Vec<Conflict>> {
    let mut left: Vec<usize> = (0..search.task.specs.len()).filter(|&spec| search.task.is_open(spec)).collect();
    let mut reasons = reasons.join("\n");
    let mut conflicts = Vec::new();
    while conflicts.len() < MOST_CONFLICTS {
        let Some(specs) = search.smallest(&left, &reasons).await? else { break };
        left.retain(|spec| !specs.contains(spec));
        let reasons_of_set = search.reasons(&specs).await?;
        conflicts.push(Conflict { specs, reasons: reasons_of_set.unwrap_or_default(), suggestions: Vec::new() });
        match search.reasons(&left).await? {
            Some(more) if !left.is_empty() => reasons = more,
            _ => break,
        }
    }
    if let [only] = conflicts.as_mut_slice()
        && only.specs.len() <= MOST_SUGGESTED
    {
        only.suggestions = search.suggestions(&only.specs).await?;
    }
    Ok(conflicts)
}

/// The error for everything that was found.
fn told(
    task: &Task<'_>,
    index: &Index,
    on_base: bool,
    hopeless: Vec<usize>,
    conflicts: &[Conflict],
    reasons: &[String],
) -> Error {
    let pool = Pool::new(task, index, on_base);
    let mut needs = Needs::new(&pool);
    let mut findings: Vec<Finding> = hopeless.into_iter().map(|spec| words::unmatched(task, &pool, spec)).collect();
    findings.extend(conflicts.iter().map(|conflict| words::conflict(task, &pool, &mut needs, conflict)));
    if findings.is_empty() {
        findings.push(Finding::of_solver(&reasons.join("\n")));
    }
    let file = task.spec.file.display();
    let message = match findings.as_slice() {
        [only] => format!("failed to solve `{file}`: {}", only.text),
        several => {
            let lines: String = several.iter().map(|finding| format!("\n  {}", finding.text)).collect();
            format!("failed to solve `{file}`:{lines}")
        }
    };
    let mut hints: Vec<String> = Vec::new();
    for hint in findings.into_iter().flat_map(|finding| finding.hints) {
        if !hints.contains(&hint) {
            hints.push(hint);
        }
    }
    hints.into_iter().fold(Error::user(message), Error::hint).hint(task.searched()).hint(task.assumed())
}

/// A spec that any version of its package satisfies, from the same channel.
fn any_version(wanted: &MatchSpec) -> MatchSpec {
    MatchSpec { name: wanted.name.clone(), channel: wanted.channel.clone(), ..MatchSpec::default() }
}
