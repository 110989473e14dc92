//! Layers by expected cost: the strategy `cost` of a policy. Pure.
//!
//! # What is minimised
//!
//! The bytes that a node is expected to pull when an image is rebuilt a week later, as the mean of two models
//! ([`super::expected`] has the formulas): *blob*, where layers are had one by one, and *chain*, where all above the first
//! layer that changed is had anew. A layer costs [`LAYER_BYTES`] beside its content.
//!
//! # How
//!
//! 1. **Units.** Packages of one tier that were built together (same version and build number, built within an hour) are
//!    one unit: they change together, so that sharing a layer costs nothing. What is smaller than a layer's own cost
//!    shares a unit with the others of its tier and class.
//! 2. **Order.** Tiers stay in the policy's order; within a tier, units go by releases per byte, fewest first (Smith's rule
//!    for weighted completion times: of two neighbours, exchanging them never makes the chain model cheaper). Sizes count
//!    in powers of two, so that a release that is a little larger changes no order.
//! 3. **Cuts.** Dynamic programming finds the cheapest cut of that order into runs, no run across tiers, under the limit of
//!    layers, and which runs have their byte code in a companion layer: byte code changes with Python, too.
//!
//! As long as the limit is not reached, every unit has a layer of its own: then no package changes layers because another
//! one appeared. Only additions, multiplications and divisions are done, which IEEE 754 defines to the bit: the same lock
//! gives the same plan on every machine.

use super::{Group, Policy};
use crate::lock::{Lock, Member};
use crate::model::Stability;

/// What a layer costs beside its content: its request and answer, its descriptors, the ends of tar and compressed stream.
const LAYER_BYTES: u64 = 8_192;
/// Compressed byte code by the size of the archive of a Python package: measured on CPython's own library.
pub const BYTECODE_PER_BYTE: u64 = 2;
/// Archives of one build appear within an hour.
const TOGETHER_MS: i64 = 3_600_000;
/// The share of the blob model in the objective; the chain model has the rest.
const BLOB_SHARE: f64 = 0.5;

/// Packages that are never put apart.
#[derive(Debug, Clone)]
struct Unit {
    tier: usize,
    members: Vec<Member>,
    /// Bytes of archives.
    size: u64,
    /// Bytes of the byte code that is made.
    bytecode: u64,
    class: Stability,
}

impl Unit {
    fn absorb(&mut self, other: Self) {
        self.members.extend(other.members);
        self.size = self.size.saturating_add(other.size);
        self.bytecode = self.bytecode.saturating_add(other.bytecode);
        self.class = self.class.max(other.class);
    }

    /// Releases in a year by byte: what Smith's rule sorts by.
    fn ratio(&self) -> f64 {
        let size = self.size.clamp(1, 1 << 62).next_power_of_two();
        self.class.releases_per_year() / size as f64
    }
}

/// The probability that nothing is released in a week; of [`Stability::keeps`], rounded, because `exp` differs between
/// machines.
fn keeps(class: Stability) -> f64 {
    match class {
        Stability::Settled => 0.990,
        Stability::Slow => 0.962,
        Stability::Steady => 0.874,
        Stability::Lively => 0.682,
    }
}

/// The groups of a plan of at most `most` layers, lowest first.
pub(super) fn groups(lock: &Lock, policy: &Policy, bytecode: bool, most: usize) -> Vec<Group> {
    let mut units = units(lock, policy, bytecode);
    let names = join_tiers(&mut units, policy, most);
    units.sort_by(|a, b| {
        let by_name = || lock.member_name(a.members[0]).cmp(lock.member_name(b.members[0]));
        a.tier.cmp(&b.tier).then(a.ratio().total_cmp(&b.ratio())).then_with(by_name)
    });
    let python = lock.package("python").map(|python| python.facts.stability.unwrap_or(Stability::UNKNOWN));
    let runs = cut(&units, most, python.map_or(1.0, keeps));
    let group = |run: &Run| {
        let mut members: Vec<Member> =
            units[run.first..run.end].iter().flat_map(|unit| unit.members.iter().copied()).collect();
        members.sort_unstable();
        let tier = units[run.first].tier;
        let whole_tier = units.iter().filter(|unit| unit.tier == tier).count() == run.end - run.first;
        let largest = members.iter().max_by_key(|&&member| (lock.member_size(member), std::cmp::Reverse(member)));
        let name = largest.map_or("", |&largest| lock.member_name(largest));
        let compiled = |member: &Member| bytecode && lock.member_has_bytecode(*member);
        Group {
            name: if whole_tier && members.len() > 1 { names[tier].clone() } else { name.to_owned() },
            tier,
            tier_name: names[tier].clone(),
            shared: members.len() > 1,
            bytecode: members.iter().copied().filter(compiled).collect(),
            companion: run.companion,
            size: members.iter().fold(0, |sum: u64, &member| sum.saturating_add(lock.member_size(member))),
            members,
        }
    };
    runs.iter().map(group).collect()
}

/// What is never put apart, in no order.
fn units(lock: &Lock, policy: &Policy, bytecode: bool) -> Vec<Unit> {
    let mut units: Vec<Unit> = Vec::new();
    for (member, tier) in lock.members().zip(policy.tiers_of(lock)) {
        let size = lock.member_size(member);
        let compiled = bytecode && lock.member_has_bytecode(member);
        let unit = Unit {
            tier,
            members: vec![member],
            size,
            bytecode: if compiled { size.saturating_mul(BYTECODE_PER_BYTE) } else { 0 },
            class: super::expected::class_of(lock, member).unwrap_or(Stability::UNKNOWN),
        };
        let together =
            |other: &Unit| other.tier == tier && (policy.tiers[tier].together || built_as_one(lock, other, member));
        match units.iter_mut().find(|other| together(other)) {
            Some(other) => other.absorb(unit),
            None => units.push(unit),
        }
    }
    let (small, mut units): (Vec<Unit>, Vec<Unit>) = units.into_iter().partition(|unit| unit.size < LAYER_BYTES);
    let large = units.len();
    for unit in small {
        match units[large..].iter_mut().find(|other| other.tier == unit.tier && other.class == unit.class) {
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
        one.abs_diff(other) < TOGETHER_MS.unsigned_abs()
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

/// Units that share a layer, and whether their byte code has one above it.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Run {
    first: usize,
    end: usize,
    companion: bool,
}

/// The cheapest cut of the units, in their order, into runs that make at most `most` layers.
fn cut(units: &[Unit], most: usize, python: f64) -> Vec<Run> {
    let below = below(units);
    // By layers used and units placed: cost, and the last run.
    let mut best: Vec<Vec<Option<(f64, Option<Run>)>>> = vec![vec![None; units.len() + 1]; most + 1];
    best[0][0] = Some((0.0, None));
    for end in 1..=units.len() {
        let mut sum = Sum { size: 0.0, bytecode: 0.0, keeps: 1.0 };
        for first in (0..end).rev() {
            if units[first].tier != units[end - 1].tier {
                break;
            }
            sum.add(&units[first]);
            for companion in [false, true] {
                if companion && sum.bytecode == 0.0 {
                    continue;
                }
                let layers = 1 + usize::from(companion);
                let cost = sum.cost(below[first], python, companion) + layers as f64;
                for used in layers..=most {
                    let Some((before, _)) = best[used - layers][first] else { continue };
                    let total = before + cost;
                    if best[used][end].is_none_or(|(known, _)| total < known) {
                        best[used][end] = Some((total, Some(Run { first, end, companion })));
                    }
                }
            }
        }
    }
    trace(&best, units.len())
}

/// For each unit the probability that nothing below it changes.
fn below(units: &[Unit]) -> Vec<f64> {
    let mut all = 1.0;
    let next = |unit| {
        let keeps_all = all;
        all *= keeps(unit);
        keeps_all
    };
    units.iter().map(|unit| unit.class).map(next).collect()
}

fn trace(best: &[Vec<Option<(f64, Option<Run>)>>], units: usize) -> Vec<Run> {
    let cost = |used: &usize| best[*used][units].map_or(f64::INFINITY, |(cost, _)| cost);
    let used = (0..best.len()).min_by(|a, b| cost(a).total_cmp(&cost(b)));
    let (mut used, mut end) = (used.unwrap_or(0), units);
    let mut runs = Vec::new();
    while let Some((_, Some(run))) = best[used][end] {
        runs.push(run);
        used -= 1 + usize::from(run.companion);
        end = run.first;
    }
    runs.reverse();
    runs
}

/// Units of a run, added up.
struct Sum {
    size: f64,
    bytecode: f64,
    keeps: f64,
}

impl Sum {
    fn add(&mut self, unit: &Unit) {
        self.size += unit.size as f64;
        self.bytecode += unit.bytecode as f64;
        self.keeps *= keeps(unit.class);
    }

    /// What the run is expected to cost in a week, in bytes.
    fn cost(&self, below: f64, python: f64, companion: bool) -> f64 {
        let layer =
            |size: f64, keeps: f64| size * (BLOB_SHARE * (1.0 - keeps) + (1.0 - BLOB_SHARE) * (1.0 - below * keeps));
        let compiled = if self.bytecode > 0.0 { self.keeps * python } else { self.keeps };
        match companion {
            true => layer(self.size, self.keeps) + layer(self.bytecode, compiled),
            false => layer(self.size + self.bytecode, compiled),
        }
    }
}
