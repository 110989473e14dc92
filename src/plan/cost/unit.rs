//! What is never put apart.

use std::collections::BTreeMap;

use super::super::weights::{Part, Source, Weights, class_of};
use super::super::{Cutting, Policy, SegmentKind};
use super::LAYER_BYTES;
use crate::lock::{Lock, Member};
use crate::model::Stability;

/// Parts of packages that are never put apart: files, or byte code.
#[derive(Debug, Clone)]
pub struct Unit {
    /// Its number in the policy.
    pub tier: usize,
    /// What is in it.
    pub parts: Vec<Part>,
    /// Bytes that the plan counts: a power of two for each part.
    pub size: u64,
    /// Whose releases change it.
    pub sources: Vec<Source>,
    kind: SegmentKind,
    class: Stability,
}

impl Unit {
    /// Of one part.
    pub fn new(lock: &Lock, weights: &Weights<'_>, tier: usize, part: Part) -> Self {
        let planned = lock.member_planned_size(part.member);
        let compiled = part.kind == SegmentKind::Bytecode;
        Self {
            tier,
            parts: vec![part],
            size: if compiled { planned.saturating_mul(super::super::weights::BYTECODE_PER_BYTE) } else { planned },
            sources: weights.sources(part).collect(),
            kind: part.kind,
            class: class_of(lock, part.member).unwrap_or(Stability::UNKNOWN),
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
        let unit = Unit::new(lock, weights, tiers[&part.member], part);
        let whole = policy.tiers[unit.tier].together;
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
    join_small(units)
}

/// Joins what is smaller than what a layer takes with others of its tier, class and kind.
fn join_small(units: Vec<Unit>) -> Vec<Unit> {
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
