//! What a spec makes necessary: what *all* packages that satisfy it depend on, what all packages that satisfy that depend
//! on, and so on. Read from `depends` and `constrains` of records, for explanations only; what fits is the solver's to say.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use rattler_conda_types::{MatchSpec, RepoDataRecord};

use super::pool::{Matching, Parsed, Pool, newness};

/// Longer chains of dependencies explain nothing to people.
const DEEPEST: usize = 8;
/// What a spec makes necessary is not followed beyond this number of packages.
const MOST_NEEDS: usize = 1_000;

/// A package that a spec makes necessary.
#[derive(Debug, Clone)]
pub(super) struct Need<'a> {
    /// Its normalised name.
    pub(super) name: String,
    /// What is asked of it: alternatives, each the dependencies of a package (`python >=3.9,<3.10`). None of the spec itself.
    pub(super) alternatives: BTreeSet<String>,
    /// Whether it is not needed, but limited: `constrains`.
    pub(super) is_limit: bool,
    /// The need that this follows from; none of the spec itself.
    pub(super) parent: Option<usize>,
    /// What satisfies it.
    pub(super) allowed: Vec<&'a RepoDataRecord>,
    depth: usize,
}

/// Why nothing satisfies a need.
#[derive(Debug, Clone)]
pub(super) struct Obstacle {
    /// The package that needs what is not there.
    pub(super) of: usize,
    /// The dependency that nothing satisfies.
    pub(super) dependency: String,
}

/// All that a spec makes necessary.
#[derive(Debug, Default)]
pub(super) struct Chain<'a> {
    /// The spec itself first.
    pub(super) needs: Vec<Need<'a>>,
    /// What makes it impossible, whatever else is asked for.
    pub(super) obstacle: Option<Obstacle>,
    /// Virtual packages that would allow more packages.
    pub(super) wanted_of_machine: BTreeSet<String>,
}

/// Reads needs.
pub(super) struct Needs<'a, 'p> {
    pool: &'p Pool<'a>,
    parsed: Parsed<'a>,
    there: HashMap<&'a str, bool>,
}

impl<'a, 'p> Needs<'a, 'p> {
    /// Of the packages of a pool.
    pub(super) fn new(pool: &'p Pool<'a>) -> Self {
        Self { pool, parsed: Parsed::default(), there: HashMap::new() }
    }

    /// What a spec makes necessary.
    pub(super) fn of(&mut self, wanted: &MatchSpec) -> Chain<'a> {
        let mut chain = Chain::default();
        let Matching::Packages(allowed) = self.pool.matching(wanted) else { return chain };
        let name = wanted.name.as_exact().map(|name| name.as_normalized().to_owned()).unwrap_or_default();
        chain.needs.push(Need {
            name,
            alternatives: BTreeSet::new(),
            is_limit: false,
            parent: None,
            allowed,
            depth: 0,
        });
        let mut pending = VecDeque::from([0]);
        let mut followed: BTreeSet<String> = BTreeSet::new();
        while let Some(at) = pending.pop_front() {
            if !followed.insert(chain.needs[at].name.clone()) {
                continue;
            }
            if let Some(dependency) = self.keep_possible(&mut chain, at) {
                chain.obstacle = Some(Obstacle { of: at, dependency });
                return chain;
            }
            if chain.needs[at].depth == DEEPEST || chain.needs.len() >= MOST_NEEDS {
                continue;
            }
            for need in self.following(&chain.needs[at], at) {
                if !need.is_limit {
                    pending.push_back(chain.needs.len());
                }
                chain.needs.push(need);
            }
        }
        chain
    }

    /// Leaves out the packages that depend on what is not there; what the newest one lacks if none is left.
    fn keep_possible(&mut self, chain: &mut Chain<'a>, at: usize) -> Option<String> {
        let mut allowed = std::mem::take(&mut chain.needs[at].allowed);
        allowed.sort_by(|a, b| newness(b).cmp(&newness(a)));
        let mut newest_lacks = None;
        allowed.retain(|record| {
            let Some(lack) = self.lack(record) else { return true };
            if lack.starts_with("__") {
                chain.wanted_of_machine.insert(lack.to_owned());
            }
            newest_lacks.get_or_insert_with(|| lack.to_owned());
            false
        });
        let is_impossible = allowed.is_empty();
        chain.needs[at].allowed = allowed;
        newest_lacks.filter(|_| is_impossible)
    }

    /// A dependency of a package that nothing satisfies.
    fn lack(&mut self, record: &'a RepoDataRecord) -> Option<&'a str> {
        record.package_record.depends.iter().map(String::as_str).find(|dependency| {
            if let Some(is_there) = self.there.get(dependency) {
                return !is_there;
            }
            let wanted = self.parsed.get(dependency);
            let is_there = wanted.is_none_or(|wanted| !self.pool.matching(&wanted).is_empty());
            self.there.insert(dependency, is_there);
            !is_there
        })
    }

    /// What all packages of a need depend on, and what they all limit.
    fn following(&mut self, need: &Need<'a>, at: usize) -> Vec<Need<'a>> {
        let mut following = Vec::new();
        for is_limit in [false, true] {
            for (name, alternatives) in self.common(&need.allowed, is_limit) {
                let allowed = self.satisfying(name, &alternatives);
                let alternatives = alternatives.into_iter().map(|texts| joined(name, &texts)).collect();
                let name = name.to_owned();
                following.push(Need { name, alternatives, is_limit, parent: Some(at), allowed, depth: need.depth + 1 });
            }
        }
        following
    }

    /// The names that all packages have dependencies on, with these dependencies: of each package several may be of one
    /// name.
    fn common(&mut self, records: &[&'a RepoDataRecord], is_limit: bool) -> BTreeMap<&'a str, BTreeSet<Vec<&'a str>>> {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        let mut common: BTreeMap<&str, BTreeSet<Vec<&str>>> = BTreeMap::new();
        for record in records {
            let package = &record.package_record;
            let mut own: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
            for text in if is_limit { &package.constrains } else { &package.depends } {
                let name = crate::lock::dependency_name(text);
                if !name.starts_with("__") && self.parsed.get(text).is_some() {
                    own.entry(name).or_default().push(text);
                }
            }
            for (name, mut texts) in own {
                texts.sort_unstable();
                texts.dedup();
                *counts.entry(name).or_default() += 1;
                common.entry(name).or_default().insert(texts);
            }
        }
        common.retain(|name, _| counts.get(name) == Some(&records.len()));
        common
    }

    /// The packages of a name that satisfy one of the alternatives.
    fn satisfying(&mut self, name: &str, alternatives: &BTreeSet<Vec<&'a str>>) -> Vec<&'a RepoDataRecord> {
        let parsed: Vec<Vec<_>> =
            alternatives.iter().map(|texts| texts.iter().filter_map(|text| self.parsed.get(text)).collect()).collect();
        let satisfies = |record: &&&RepoDataRecord| {
            use rattler_conda_types::Matches as _;
            parsed.iter().any(|specs| specs.iter().all(|spec| spec.matches(**record)))
        };
        self.pool.named(&crate::lock::dependency_name(name).to_lowercase()).iter().filter(satisfies).copied().collect()
    }
}

/// Dependencies on one name as one (`numpy >=1.2,<2`).
fn joined(name: &str, texts: &[&str]) -> String {
    let rest = texts.iter().map(|text| text.trim().strip_prefix(name).unwrap_or(text).trim());
    let rest = rest.filter(|rest| !rest.is_empty()).collect::<Vec<_>>().join(",");
    format!("{name} {rest}").trim_end().to_owned()
}

impl Chain<'_> {
    /// The need itself and those that it follows from, from the first that the spec asks for; the spec is left out.
    pub(super) fn way_to(&self, need: usize) -> Vec<usize> {
        let mut way = Vec::new();
        let mut at = Some(need);
        while let Some(current) = at.filter(|&current| self.needs[current].parent.is_some()) {
            way.push(current);
            at = self.needs[current].parent;
        }
        way.reverse();
        way
    }
}
