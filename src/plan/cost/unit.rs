//! What is never put apart.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::super::weights::{BYTECODE_PER_BYTE, Part, Source, Weights};
use super::super::{Cutting, Policy, SegmentKind};
use super::{BIN_BYTES, LAYER_BYTES};
use crate::lock::{Lock, Member};
use crate::util::Digest;

/// Parts of packages that are never put apart: files, or byte code.
#[derive(Debug, Clone)]
pub struct Unit {
    /// Its number in the policy.
    pub tier: usize,
    /// Whether its tier has `closure-of`: most images have its packages.
    pub common: bool,
    /// What is in it.
    pub parts: Vec<Part>,
    /// Bytes that the plan counts: a power of two for each part.
    pub size: u64,
    /// Whose releases change it, none twice.
    pub sources: Vec<Source>,
    kind: SegmentKind,
}

impl Unit {
    /// Of one part.
    pub fn new(lock: &Lock, weights: &Weights<'_>, tier: usize, common: bool, part: Part) -> Self {
        let planned = lock.member_planned_size(part.member);
        let times = if part.kind == SegmentKind::Bytecode { BYTECODE_PER_BYTE } else { 1 };
        Self {
            tier,
            common,
            parts: vec![part],
            size: planned.saturating_mul(times),
            sources: weights.sources(part).collect(),
            kind: part.kind,
        }
    }

    fn absorb(&mut self, other: Self) {
        self.parts.extend(other.parts);
        let new = |source: &Source| !self.sources.contains(source);
        let more: Vec<Source> = other.sources.into_iter().filter(new).collect();
        self.sources.extend(more);
        // Sizes are what a channel says.
        self.size = self.size.saturating_add(other.size);
    }
}

/// The tier of each package: the lowest one of those that were built with it, but for `shared`, where no package may depend
/// on what else is there.
fn tiers(lock: &Lock, policy: &Policy, weights: &Weights<'_>) -> BTreeMap<Member, usize> {
    let own: BTreeMap<Member, usize> = lock.members().zip(policy.tiers_of(lock)).collect();
    if policy.strategy == Cutting::Shared {
        return own;
    }
    let build = |member| weights.sources(Part { member, kind: SegmentKind::Files }).next().map(|source| source.id);
    let mut lowest: BTreeMap<Option<usize>, usize> = BTreeMap::new();
    for (&member, &tier) in &own {
        lowest.entry(build(member)).and_modify(|lowest| *lowest = tier.min(*lowest)).or_insert(tier);
    }
    own.into_iter().map(|(member, tier)| (member, lowest.get(&build(member)).copied().unwrap_or(tier))).collect()
}

/// All units, in no order.
pub fn units(lock: &Lock, policy: &Policy, weights: &Weights<'_>, bytecode: bool) -> Vec<Unit> {
    let tiers = tiers(lock, policy, weights);
    let mut units: Vec<Unit> = Vec::new();
    for part in weights.parts(bytecode) {
        let tier = tiers[&part.member];
        let (whole, common) = (policy.tiers[tier].together, !policy.tiers[tier].closure_of.is_empty());
        let unit = Unit::new(lock, weights, tier, common, part);
        // The first source is the package's own. Without a Python, byte code changes as its files do.
        let as_one = |other: &Unit| {
            other.sources == unit.sources || (other.kind == unit.kind && other.sources[0] == unit.sources[0])
        };
        let together = |other: &Unit| other.tier == unit.tier && (whole || as_one(other));
        match units.iter_mut().find(|other| together(other)) {
            Some(other) => other.absorb(unit),
            None => units.push(unit),
        }
    }
    // Where a layer is worth more when others have it, less is put together.
    join_small(lock, units, if policy.strategy == Cutting::Shared { LAYER_BYTES / 4 } else { LAYER_BYTES })
}

/// Joins units smaller than `least` bytes with others of their tier, class and kind. Where that becomes too large, names decide which are
/// together, so that no unit moves because of another one, but when their bytes double.
fn join_small(lock: &Lock, units: Vec<Unit>, least: u64) -> Vec<Unit> {
    let (small, mut units): (Vec<Unit>, Vec<Unit>) = units.into_iter().partition(|unit| unit.size < least);
    let alike = |unit: &Unit| (unit.tier, unit.sources[0].class, unit.kind);
    let mut bytes: BTreeMap<_, u64> = BTreeMap::new();
    for unit in &small {
        let bytes = bytes.entry(alike(unit)).or_default();
        *bytes = bytes.saturating_add(unit.size);
    }
    let mut bins: BTreeMap<_, Unit> = BTreeMap::new();
    for unit in small {
        let count = (bytes[&alike(&unit)] / BIN_BYTES).max(1).next_power_of_two();
        let bin = number(lock.member_name(unit.parts[0].member)) % count;
        match bins.entry((alike(&unit), bin)) {
            Entry::Occupied(mut bin) => bin.get_mut().absorb(unit),
            Entry::Vacant(bin) => {
                bin.insert(unit);
            }
        }
    }
    units.extend(bins.into_values());
    units
}

/// A number that follows from a name, spread evenly.
fn number(name: &str) -> u64 {
    u64::from_str_radix(&Digest::of(name).hex()[..16], 16).unwrap_or_default()
}
