//! The smallest sets of specs that cannot be satisfied: a deletion filter. Specs are left out, first many at once, then
//! one by one; what can be left out without the rest becoming satisfiable is no part of the set.

use rattler_conda_types::RepoDataRecord;
use rattler_solve::SolveError;
use tokio::time::{Instant, timeout_at};

use super::any_version;
use crate::resolve::index::Index;
use crate::resolve::solve::{Job, Task, bare};
use crate::util::{Error, Result};

/// What the solver is asked about.
pub(super) struct Search<'a> {
    pub(super) task: &'a Task<'a>,
    pub(super) index: &'a Index,
    pub(super) deadline: Instant,
    /// Whether the base's packages stay as they are.
    pub(super) on_base: bool,
}

/// What the solver said.
enum Answer {
    Fits(Vec<RepoDataRecord>),
    Fails(String),
    /// There was no time.
    Unknown,
}

impl Search<'_> {
    /// A smallest set of these specs that cannot be satisfied; none if all of them can, or that is not known. If the time
    /// is up, a set that is larger than it need be. `reasons` is the solver's explanation for all of them.
    pub(super) async fn smallest(&self, specs: &[usize], reasons: &str) -> Result<Option<Vec<usize>>> {
        let mentioned: Vec<usize> = specs.iter().copied().filter(|&spec| self.is_mentioned(spec, reasons)).collect();
        let mut set = match mentioned.len() < specs.len() && self.fails(&mentioned).await? == Some(true) {
            true => mentioned,
            false if self.fails(specs).await? != Some(true) => return Ok(None),
            false => specs.to_vec(),
        };
        let mut step = set.len().div_ceil(2);
        while set.len() > 1 {
            let mut at = 0;
            while at < set.len() && step < set.len() {
                let rest: Vec<usize> = [&set[..at], &set[(at + step).min(set.len())..]].concat();
                match self.fails(&rest).await? {
                    Some(true) => set = rest,
                    Some(false) => at += step,
                    None => return Ok(Some(set)),
                }
            }
            if step == 1 {
                break;
            }
            step = step.div_ceil(2).min(set.len().div_ceil(2));
        }
        Ok(Some(set))
    }

    /// The solver's explanation of why these specs cannot be satisfied; none if they can, or that is not known.
    pub(super) async fn reasons(&self, specs: &[usize]) -> Result<Option<String>> {
        match self.solve(specs, None).await? {
            Answer::Fails(reasons) => Ok(Some(reasons)),
            Answer::Fits(_) | Answer::Unknown => Ok(None),
        }
    }

    /// Of each of these specs the package that would satisfy the environment if the spec asked for no version.
    pub(super) async fn suggestions(&self, specs: &[usize]) -> Result<Vec<(usize, RepoDataRecord)>> {
        let all: Vec<usize> = (0..self.task.specs.len()).filter(|&spec| self.task.is_open(spec)).collect();
        let mut found = Vec::new();
        for &spec in specs {
            let wanted = &self.task.specs[spec];
            if *wanted == any_version(wanted) {
                continue;
            }
            if let Answer::Fits(records) = self.solve(&all, Some(spec)).await? {
                let named = |record: &RepoDataRecord| wanted.name.matches(&record.package_record.name);
                found.extend(records.into_iter().find(named).map(|record| (spec, record)));
            }
        }
        Ok(found)
    }

    fn is_mentioned(&self, spec: usize, reasons: &str) -> bool {
        let is_of_name = |char: char| char.is_alphanumeric() || "_.-".contains(char);
        let name = self.task.specs[spec].name.as_exact().map(|name| name.as_normalized());
        reasons.split(|char| !is_of_name(char)).any(|word| Some(word) == name)
    }

    /// Whether specs cannot be satisfied; none if that is not known.
    async fn fails(&self, specs: &[usize]) -> Result<Option<bool>> {
        Ok(match self.solve(specs, None).await? {
            Answer::Fails(_) => Some(true),
            Answer::Fits(_) => Some(false),
            Answer::Unknown => None,
        })
    }

    /// Asks the solver about these specs; of the spec `relaxed` any version will do.
    async fn solve(&self, specs: &[usize], relaxed: Option<usize>) -> Result<Answer> {
        let present = &self.task.options.present;
        let mut job = Job::unlocked(self.task, self.index);
        job.specs = specs
            .iter()
            .map(|&spec| match &self.task.specs[spec] {
                wanted if relaxed == Some(spec) => any_version(wanted),
                wanted => wanted.clone(),
            })
            .collect();
        if self.on_base {
            let kept = present.records.iter().map(|record| record.package_record.name.clone().into());
            job.specs.extend(kept.map(bare));
            job.pinned = present.pinned();
        } else {
            job.locked = present.preferred().into_iter().map(std::sync::Arc::new).collect();
        }
        if Instant::now() >= self.deadline {
            return Ok(Answer::Unknown);
        }
        match timeout_at(self.deadline, job.finish()).await {
            Err(_) => Ok(Answer::Unknown),
            Ok(answer) => match answer? {
                Ok(records) => Ok(Answer::Fits(records)),
                Err(SolveError::Unsolvable(reasons)) => Ok(Answer::Fails(reasons.join("\n"))),
                Err(SolveError::Cancelled) => Err(Error::interrupted(130)),
                Err(_) => Ok(Answer::Unknown),
            },
        }
    }
}
