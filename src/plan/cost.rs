//! Layers by expected cost: the strategy `cost` of a policy. Pure.
//!
//! # What is minimised
//!
//! The bytes that a node is expected to pull when an image is rebuilt a week later, as the mean of two models
//! ([`super::expected`] has the formulas): *blob*, where layers are had one by one, and *chain*, where all above the first
//! layer that changed is had anew. Each further unit in a layer makes it less likely that another image has the same
//! layer, which counts like a release; a layer costs something beside its content.
//!
//! # How
//!
//! 1. **Units.** Packages of one tier that were built together (same version and build number, built within an hour) are
//!    one unit: they change together, so that sharing a layer costs nothing. Byte code is a unit of its own: it changes
//!    with Python, too. What is smaller than a layer's own cost shares a unit with the others of its tier and class.
//! 2. **Order.** Tiers stay in the policy's order; within a tier, units go by releases per byte, fewest first (Smith's rule
//!    for weighted completion times: of two neighbours, exchanging them never makes the chain model cheaper). Sizes count
//!    in powers of two, so that a release that is a little larger changes no order.
//! 3. **Cuts.** Dynamic programming finds the cheapest cut of that order into runs, no run across tiers, under the limit of
//!    layers. What changes as one (a package's files and byte code, all byte code) counts once in a run.
//!
//! As long as the limit is not reached, every unit has a layer of its own: then no package changes layers because another
//! one appeared. Only additions, multiplications and divisions are done, which IEEE 754 defines to the bit: the same lock
//! gives the same plan on every machine.

use std::collections::BTreeSet;

use super::{Group, Policy, SegmentKind};
use crate::lock::{Lock, Member};
use crate::model::Stability;

/// What a layer costs beside its content: its request and answer, its descriptors, the ends of tar and compressed stream.
const LAYER_BYTES: u64 = 8_192;
/// Compressed byte code by the size of the archive of a Python package: measured on CPython's own library.
pub const BYTECODE_PER_BYTE: u64 = 2;
/// Archives of one build appear within an hour.
const TOGETHER_MS: u64 = 3_600_000;
/// What each further layer costs in the objective: enough to prefer fewer where all else is equal.
const LAYER_COST: f64 = 1.0;
/// With each further unit in a layer, the probability that another image of the organisation has the same ones in it.
const SHARED: f64 = 0.95;
/// The share of the blob model in the objective; the chain model has the rest.
const BLOB_SHARE: f64 = 0.5;

/// Parts of packages that are never put apart: files, or byte code.
#[derive(Debug, Clone)]
struct Unit {
    tier: usize,
    members: Vec<Member>,
    kind: SegmentKind,
    /// In bytes; of byte code, estimated.
    size: u64,
    class: Stability,
    /// Whether it changes with Python.
    python: bool,
}

impl Unit {
    fn absorb(&mut self, other: Self) {
        self.members.extend(other.members);
        self.size = self.size.saturating_add(other.size);
        self.class = self.class.max(other.class);
        self.python |= other.python;
    }

    /// Releases in a year by byte: what Smith's rule sorts by.
    fn ratio(&self, python: Option<Stability>) -> f64 {
        let size = self.size.clamp(1, 1 << 62).next_power_of_two();
        let python = python.filter(|_| self.kind == SegmentKind::Bytecode);
        (self.class.releases_per_year() + python.map_or(0.0, Stability::releases_per_year)) / size as f64
    }
}

/// The probability that nothing is released in a week; of [`Stability::keeps`], rounded, because `exp` differs between
/// machines.
fn keeps(class: Stability) -> f64 {
    match class {
        Stability::Settled => 0.989,
        Stability::Slow => 0.972,
        Stability::Steady => 0.879,
        Stability::Lively => 0.740,
    }
}

/// The groups of a plan of at most `most` layers, lowest first.
pub(super) fn groups(lock: &Lock, policy: &Policy, bytecode: bool, most: usize) -> Vec<Group> {
    let mut units = units(lock, policy, bytecode);
    let names = join_tiers(&mut units, policy, most);
    let python = lock.package("python").map(|python| python.facts.stability.unwrap_or(Stability::UNKNOWN));
    units.sort_by(|a, b| {
        let by_name = || lock.member_name(a.members[0]).cmp(lock.member_name(b.members[0])).then(a.kind.cmp(&b.kind));
        a.tier.cmp(&b.tier).then(a.ratio(python).total_cmp(&b.ratio(python))).then_with(by_name)
    });
    let runs = cut(&units, most, python.map_or(1.0, keeps));
    let last = |run: &Run| (units[run.first].tier, run.end - run.first);
    let whole = |run: &Run| units.iter().filter(|unit| unit.tier == last(run).0).count() == last(run).1;
    runs.iter().map(|run| group(lock, &units[run.first..run.end], whole(run), &names)).collect()
}

/// The layer of a run.
fn group(lock: &Lock, units: &[Unit], whole_tier: bool, names: &[String]) -> Group {
    let of_kind = |kind: SegmentKind| {
        let members = units.iter().filter(|unit| unit.kind == kind).flat_map(|unit| unit.members.iter().copied());
        let mut members: Vec<Member> = members.collect();
        members.sort_unstable();
        members
    };
    let (members, bytecode) = (of_kind(SegmentKind::Files), of_kind(SegmentKind::Bytecode));
    let of = if members.is_empty() { &bytecode } else { &members };
    let largest = of.iter().max_by_key(|&&member| (lock.member_size(member), std::cmp::Reverse(member)));
    let largest = largest.map_or("", |&largest| lock.member_name(largest));
    let tier = units[0].tier;
    Group {
        name: match (whole_tier && of.len() > 1, members.is_empty()) {
            (true, _) => names[tier].clone(),
            (false, true) => format!("{largest}-bytecode"),
            (false, false) => largest.to_owned(),
        },
        tier,
        tier_name: names[tier].clone(),
        shared: units.len() > 1,
        size: members.iter().fold(0, |sum: u64, &member| sum.saturating_add(lock.member_size(member))),
        members,
        bytecode,
        companion: false,
    }
}

/// What is never put apart, in no order.
fn units(lock: &Lock, policy: &Policy, bytecode: bool) -> Vec<Unit> {
    let mut units: Vec<Unit> = Vec::new();
    for (member, tier) in lock.members().zip(policy.tiers_of(lock)) {
        let size = lock.member_size(member);
        let unit = |kind, size| Unit {
            tier,
            members: vec![member],
            kind,
            size,
            class: super::expected::class_of(lock, member).unwrap_or(Stability::UNKNOWN),
            python: kind == SegmentKind::Bytecode || lock.member_name(member) == "python",
        };
        let compiled = bytecode && lock.member_has_bytecode(member);
        let compiled = compiled.then(|| unit(SegmentKind::Bytecode, size.saturating_mul(BYTECODE_PER_BYTE)));
        for unit in [unit(SegmentKind::Files, size)].into_iter().chain(compiled) {
            let whole = policy.tiers[tier].together;
            let together = |other: &Unit| {
                other.tier == tier && (whole || (other.kind == unit.kind && built_as_one(lock, other, member)))
            };
            match units.iter_mut().find(|other| together(other)) {
                Some(other) => other.absorb(unit),
                None => units.push(unit),
            }
        }
    }
    let (small, mut units): (Vec<Unit>, Vec<Unit>) = units.into_iter().partition(|unit| unit.size < LAYER_BYTES);
    let large = units.len();
    for unit in small {
        let alike = |other: &Unit| (other.tier, other.class, other.kind) == (unit.tier, unit.class, unit.kind);
        match units[large..].iter_mut().find(|other| alike(other)) {
            Some(other) => other.absorb(unit),
            None => units.push(unit),
        }
    }
    units
}

/// Whether one build made a package and the first of a unit.
fn built_as_one(lock: &Lock, unit: &Unit, member: Member) -> bool {
    let (Member::Package(one), Some(&Member::Package(other))) = (member, unit.members.first()) else { return false };
    let [one, other] = [one, other].map(|index| &lock.packages[index].record.package_record);
    let times = one.timestamp.as_ref().zip(other.timestamp.as_ref());
    let near = times.is_some_and(|(one, other)| {
        let [one, other] = [one, other].map(|time| time.jiff_timestamp().as_millisecond());
        one.abs_diff(other) < TOGETHER_MS
    });
    near && one.version == other.version && one.build_number == other.build_number
}

/// Where there are more tiers than layers, the uppermost become one; the names of the tiers by number.
fn join_tiers(units: &mut [Unit], policy: &Policy, most: usize) -> Vec<String> {
    let mut names: Vec<String> = policy.tiers.iter().map(|tier| tier.name.clone()).collect();
    loop {
        let mut used: Vec<usize> = units.iter().map(|unit| unit.tier).collect();
        used.sort_unstable();
        used.dedup();
        let [.., lower, upper] = used[..] else { return names };
        if used.len() <= most {
            return names;
        }
        names[lower] = format!("{}-{}", names[lower], names[upper]);
        units.iter_mut().filter(|unit| unit.tier == upper).for_each(|unit| unit.tier = lower);
    }
}

/// Units that share a layer.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Run {
    first: usize,
    end: usize,
}

/// The cheapest cost so far, and the last run.
type Best = Option<(f64, Option<Run>)>;

/// The cheapest cut of the units, in their order, into at most `most` runs.
fn cut(units: &[Unit], most: usize, python: f64) -> Vec<Run> {
    let below = below(units, python);
    // By runs made and units placed.
    let mut best: Vec<Vec<Best>> = vec![vec![None; units.len() + 1]; most + 1];
    best[0][0] = Some((0.0, None));
    for end in 1..=units.len() {
        let mut sum = Sum::new(python);
        for first in (0..end).rev().take_while(|&first| units[first].tier == units[end - 1].tier) {
            sum.add(&units[first]);
            let cost = sum.cost(below[first]) + LAYER_COST;
            for used in 1..=most {
                let Some((before, _)) = best[used - 1][first] else { continue };
                if best[used][end].is_none_or(|(known, _)| before + cost < known) {
                    best[used][end] = Some((before + cost, Some(Run { first, end })));
                }
            }
        }
    }
    trace(&best, units.len())
}

/// For each unit the probability that nothing below it changes.
fn below(units: &[Unit], python: f64) -> Vec<f64> {
    let mut sum = Sum::new(python);
    let next = |unit| {
        let below = sum.keeps;
        sum.add(unit);
        below
    };
    units.iter().map(next).collect()
}

fn trace(best: &[Vec<Best>], units: usize) -> Vec<Run> {
    let cost = |used: &usize| best[*used][units].map_or(f64::INFINITY, |(cost, _)| cost);
    let used = (0..best.len()).min_by(|a, b| cost(a).total_cmp(&cost(b)));
    let (mut used, mut end) = (used.unwrap_or(0), units);
    let mut runs = Vec::new();
    while let Some((_, Some(run))) = best[used][end] {
        runs.push(run);
        used -= 1;
        end = run.first;
    }
    runs.reverse();
    runs
}

/// Units of a run, added up.
struct Sum {
    size: f64,
    keeps: f64,
    /// Of other images, that they have the same units together.
    shared: f64,
    /// The packages whose releases are counted already: files and byte code change together.
    counted: BTreeSet<Member>,
    /// Python's probability, until it is counted.
    python: Option<f64>,
    units: usize,
}

impl Sum {
    fn new(python: f64) -> Self {
        Self { size: 0.0, keeps: 1.0, shared: 1.0, counted: BTreeSet::new(), python: Some(python), units: 0 }
    }

    fn add(&mut self, unit: &Unit) {
        self.size += unit.size as f64;
        self.shared *= if self.units > 0 { SHARED } else { 1.0 };
        self.units += 1;
        if unit.python
            && let Some(python) = self.python.take()
        {
            self.keeps *= python;
        }
        let known = unit.members.first().is_none_or(|first| !self.counted.insert(*first));
        let is_python = unit.python && unit.kind == SegmentKind::Files;
        if !known && !is_python {
            self.keeps *= keeps(unit.class);
        }
    }

    /// What the run is expected to cost, in bytes.
    fn cost(&self, below: f64) -> f64 {
        let keeps = self.shared * self.keeps;
        self.size * (BLOB_SHARE * (1.0 - keeps) + (1.0 - BLOB_SHARE) * (1.0 - below * keeps))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::super::tests::{Made, environments, lock, planned_by};
    use super::super::{LayerPlan, MAX_LAYERS, MIN_LAYERS};
    use super::*;

    /// With classes that follow from the names, as an index would give them.
    fn classed(packages: &[Made]) -> Lock {
        let mut lock = lock(packages);
        for package in &mut lock.packages {
            let sum: usize = package.name().bytes().map(usize::from).sum();
            package.facts.stability = Stability::ALL.get(sum % 5).copied();
        }
        lock
    }

    fn planned(lock: &Lock, max: usize) -> LayerPlan {
        planned_by("cost", lock, max, true)
    }

    /// The layers, each as the names of what is in it.
    fn layers(lock: &Lock, plan: &LayerPlan) -> Vec<BTreeSet<(String, SegmentKind)>> {
        let name = |segment: &super::super::Segment| (lock.member_name(segment.member).to_owned(), segment.kind);
        plan.layers.iter().map(|layer| layer.segments.iter().map(name).collect()).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn every_part_is_in_one_layer_within_the_limit(packages in environments(), max in MIN_LAYERS..=MAX_LAYERS) {
            let lock = classed(&packages);
            let plan = planned(&lock, max);
            prop_assert!(plan.layers.len() < max, "{} and the environment layer with {max}", plan.layers.len());
            let layers = layers(&lock, &plan);
            let compiled = lock.packages.iter().filter(|package| package.facts.bytecode).count();
            prop_assert_eq!(layers.iter().map(BTreeSet::len).sum::<usize>(), lock.packages.len() + compiled);
            prop_assert_eq!(layers.iter().flatten().collect::<BTreeSet<_>>().len(), lock.packages.len() + compiled);
            let names: BTreeSet<&str> = plan.layers.iter().map(|layer| layer.name.as_str()).collect();
            prop_assert_eq!(names.len(), plan.layers.len(), "names are unique");
        }

        #[test]
        fn equal_locks_have_equal_plans(packages in environments(), max in MIN_LAYERS..=MAX_LAYERS) {
            let mut turned = packages.clone();
            turned.reverse();
            prop_assert_eq!(planned(&classed(&packages), max), planned(&classed(&turned), max));
        }

        /// Below the limit no package changes layers because another one appeared.
        #[test]
        fn a_new_package_moves_no_other(packages in environments(), name in "[a-z]{3,8}-new", size in 0_u64..50_000_000) {
            let new = Made { noarch: true, bytecode: true, ..Made::new(&name, size) };
            let (before, after) = (classed(&packages), classed(&[packages, vec![new]].concat()));
            let without = |lock: &Lock| -> BTreeSet<BTreeSet<(String, SegmentKind)>> {
                let layers = layers(lock, &planned(lock, MAX_LAYERS)).into_iter();
                let left = layers.map(|layer| layer.into_iter().filter(|(it, _)| *it != name).collect());
                left.filter(|layer: &BTreeSet<_>| !layer.is_empty()).collect()
            };
            prop_assert_eq!(without(&before), without(&after));
        }

        /// A release of about the same size changes the layers that it is in, and moves nothing.
        #[test]
        fn a_release_moves_nothing(packages in environments(), which: prop::sample::Index, max in 4_usize..20) {
            prop_assume!(!packages.is_empty());
            let mut later = packages.clone();
            let which = which.index(packages.len());
            later[which].depends.push("zlib >=1".to_owned());
            let (before, after) = (classed(&packages), classed(&later));
            let (old, new) = (planned(&before, max), planned(&after, max));
            prop_assert_eq!(layers(&before, &old), layers(&after, &new));
            let python = packages[which].name == "python";
            for (old, (new, parts)) in old.layers.iter().zip(new.layers.iter().zip(layers(&after, &new))) {
                let touched = parts.iter().any(|(name, kind)| {
                    *name == packages[which].name || (python && *kind == SegmentKind::Bytecode)
                });
                prop_assert_eq!(old.key != new.key, touched, "{}", new.name);
            }
        }
    }

    /// Rates that differ within a class make equal locks, and so equal plans; classes do move layers.
    #[test]
    fn rates_within_a_class_are_one() {
        let packages = [Made::new("zlib", 2_000_000), Made::new("six", 2_000_000), Made::new("mine", 2_000_000)];
        let with = |rate: f64| {
            let mut lock = lock(&packages);
            lock.packages[2].facts.stability = Some(Stability::of_rate(rate));
            let plan = planned(&lock, 3);
            layers(&lock, &plan)
        };
        assert_eq!(with(4.1), with(11.9));
        assert_ne!(with(0.1), with(50.0));
    }

    /// Against all cuts of small orders.
    #[test]
    fn the_cut_is_the_cheapest() {
        let unit = |index: usize, size: u64, class: Stability| Unit {
            tier: 0,
            members: vec![Member::Package(index)],
            kind: SegmentKind::Files,
            size,
            class,
            python: index == 2,
        };
        let sizes = [900_000, 20_000, 5_000_000, 70_000, 1_000_000, 300_000];
        let units: Vec<Unit> =
            sizes.iter().enumerate().map(|(index, &size)| unit(index, size, Stability::ALL[index % 4])).collect();
        let below = below(&units, 0.9);
        let price = |runs: &[Run]| -> f64 {
            let of = |run: &Run| {
                let mut sum = Sum::new(0.9);
                units[run.first..run.end].iter().rev().for_each(|unit| sum.add(unit));
                sum.cost(below[run.first]) + LAYER_COST
            };
            runs.iter().map(of).sum()
        };
        for most in 1..=sizes.len() {
            let mut cheapest: BTreeMap<usize, f64> = BTreeMap::new();
            for cuts in 0_u32..1 << (sizes.len() - 1) {
                let ends: Vec<usize> = (1..sizes.len()).filter(|at| cuts >> (at - 1) & 1 == 1).chain([6]).collect();
                let firsts = [0].into_iter().chain(ends.iter().copied());
                let runs: Vec<Run> = firsts.zip(&ends).map(|(first, &end)| Run { first, end }).collect();
                let price = price(&runs);
                let known = cheapest.entry(runs.len()).or_insert(price);
                *known = known.min(price);
            }
            let least = cheapest.range(..=most).map(|(_, price)| *price).fold(f64::INFINITY, f64::min);
            let found = cut(&units, most, 0.9);
            assert!(found.len() <= most && (price(&found) - least).abs() < 1e-6, "{most}: {found:?}");
        }
    }
}
