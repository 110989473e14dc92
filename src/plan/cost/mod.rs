//! Layers by expected cost: the strategies `cost` and `shared` of a policy. Pure.
//!
//! # What is minimised
//!
//! The bytes that a node is expected to pull when an image is rebuilt a week later, in two models
//! ([`super::expected`] has the formulas): *blob*, where layers are had one by one, and *chain*, where all above the first
//! layer that changed is had anew. Which packages share a layer decides on the first, the order of layers only on the
//! second, so that one is chosen after the other, and both count in full. A layer has a cost of its own, too.
//!
//! # How
//!
//! 1. **Units** ([`unit`]). Packages that were built together change together, so that sharing a layer costs nothing: they
//!    are one unit, in the lowest tier that one of them belongs to. Byte code is a unit of its own: it changes with Python,
//!    too. What is small shares a unit with others of its tier, kind and class.
//! 2. **Cuts** ([`cut`]). Within its tier, units are ordered by [`super::weights::rank`]: little changing bytes first.
//!    Dynamic programming finds the cuts of that order into runs which are cheapest in the blob model, no run across tiers,
//!    under the limit of layers. (Of two layers' sizes and releases the cost is about Σ size × releases: such a product is
//!    least when the layers are consecutive in releases per byte.)
//! 3. **Order** ([`order`]). Layers are ordered by the same rank, which is cheapest in the chain model as far as layers change
//!    independently. What another image need not have counts as a little less stable, so that images begin alike where it is
//!    cheap.
//!
//! `shared` ([`shared`]) gives up some of the first for layers that other images have, too.
//!
//! Sizes are powers of two, and stay when a package is locked again ([`crate::lock::PackageFacts::planned_size`]), as
//! classes do: a release moves nothing, as long as what was built together is so again. As long as the limit is not reached, no
//! package changes layers because another one appeared that was not built with it. Only additions, multiplications and
//! divisions are done, which IEEE 754 defines to the bit: the same lock gives the same plan on every machine.

mod cut;
mod order;
mod shared;
#[cfg(test)]
mod tests;
mod unit;

use super::weights::{Part, Weights};
use super::{Cutting, Group, Policy, SegmentKind};
use crate::lock::{Lock, Member};
use unit::Unit;

/// What a layer takes beside its content, in bytes of about the same time: its request and answer, its descriptors, the ends
/// of tar and compressed stream.
const LAYER_BYTES: u64 = 262_144;
/// What is smaller is put together up to about this size, in bytes: much of it would change all the time.
const BIN_BYTES: u64 = 4_194_304;
/// What a layer costs in the objective, in bytes: of two plans that cost the same, the one with fewer layers is taken.
const LAYER_COST: f64 = 1e-3;

/// With fewer layers than this for each tier, tiers cost more than they are worth (docs/layers.md): the uppermost are joined.
const LAYERS_PER_TIER: usize = 5;

/// Units that share a layer.
type Run = Vec<Unit>;

/// The groups of a plan of at most `most` layers, lowest first.
pub(super) fn groups(lock: &Lock, policy: &Policy, bytecode: bool, most: usize) -> Vec<Group> {
    let mut units = unit::units(lock, policy, &Weights::of(lock), bytecode);
    let mut names: Vec<String> = policy.tiers.iter().map(|tier| tier.name.clone()).collect();
    let is_shared = policy.strategy == Cutting::Shared;
    if is_shared {
        shared::join_tiers(&mut units, &mut names);
    }
    if units.len() > most {
        join_tiers(&mut units, &mut names, if is_shared { 1 } else { LAYERS_PER_TIER }, most);
    }
    let units = order::units(lock, units);
    let (mut runs, stranger) = match is_shared {
        true => (shared::runs(units, most), shared::STRANGER),
        false => (cut::runs(units, most), order::STRANGER),
    };
    order::runs(lock, &mut runs, stranger);
    runs.iter().map(|run| group(lock, run, &names)).collect()
}

/// The layer of a run.
fn group(lock: &Lock, units: &[Unit], names: &[String]) -> Group {
    let of_kind = |kind: SegmentKind| {
        let parts = units.iter().flat_map(|unit| &unit.parts).filter(|part| part.kind == kind);
        let mut members: Vec<Member> = parts.map(|part| part.member).collect();
        members.sort_unstable();
        members
    };
    let (members, bytecode) = (of_kind(SegmentKind::Files), of_kind(SegmentKind::Bytecode));
    let tier = units[0].tier;
    Group {
        name: String::new(),
        tier,
        tier_name: names[tier].clone(),
        shared: units.len() > 1,
        size: members.iter().fold(0, |sum: u64, &member| sum.saturating_add(lock.member_size(member))),
        members,
        bytecode,
        companion: false,
    }
}

/// Where there are fewer layers than `each` for a tier, the uppermost tiers become one.
fn join_tiers(units: &mut [Unit], names: &mut [String], each: usize, most: usize) {
    loop {
        let mut used: Vec<usize> = units.iter().map(|unit| unit.tier).collect();
        used.sort_unstable();
        used.dedup();
        let [.., lower, upper] = used[..] else { return };
        if used.len() * each <= most {
            return;
        }
        join(units, names, |unit| unit.tier == lower || unit.tier == upper);
    }
}

/// The tiers of these units become the lowest of them.
fn join(units: &mut [Unit], names: &mut [String], which: impl Fn(&Unit) -> bool) {
    let mut tiers: Vec<usize> = units.iter().filter(|unit| which(unit)).map(|unit| unit.tier).collect();
    tiers.sort_unstable();
    tiers.dedup();
    let [lowest, ref others @ ..] = tiers[..] else { return };
    for &tier in others {
        names[lowest] = format!("{}-{}", names[lowest], names[tier]);
    }
    for unit in units.iter_mut() {
        unit.tier = if others.contains(&unit.tier) { lowest } else { unit.tier };
    }
}
