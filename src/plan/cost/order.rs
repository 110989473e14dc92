//! The order of units and layers: [`rank`].

use super::super::weights::{Counted, Weight, rank};
use super::{Part, Run, Unit};
use crate::lock::Lock;

/// The probability that another image has a layer whose packages it need not have, as often as a week: it counts like that
/// of having no release.
pub const STRANGER: f64 = 0.951;

/// Sorts units within their tiers, tiers by number.
pub fn units(lock: &Lock, units: Vec<Unit>) -> Vec<Unit> {
    let mut keyed: Vec<(f64, Unit)> = units.into_iter().map(|unit| (rank_of([&unit], 1.0), unit)).collect();
    keyed.sort_by(|(a, one), (b, other)| {
        one.tier.cmp(&other.tier).then(a.total_cmp(b)).then_with(|| name(lock, one).cmp(&name(lock, other)))
    });
    keyed.into_iter().map(|(_, unit)| unit).collect()
}

/// Sorts layers. Those that other images need not have are kept with the probability `stranger` only.
pub fn runs(lock: &Lock, runs: &mut Vec<Run>, stranger: f64) {
    let shared = |run: &Run| if run.iter().all(|unit| unit.common) { 1.0 } else { stranger };
    let mut keyed: Vec<(f64, Run)> = runs.drain(..).map(|run| (rank_of(&run, shared(&run)), run)).collect();
    keyed.sort_by(|(a, one), (b, other)| a.total_cmp(b).then_with(|| name(lock, &one[0]).cmp(&name(lock, &other[0]))));
    runs.extend(keyed.into_iter().map(|(_, run)| run));
}

fn rank_of<'a>(units: impl IntoIterator<Item = &'a Unit>, shared: f64) -> f64 {
    let (mut counted, mut size) = (Counted::default(), 0_u64);
    for unit in units {
        unit.sources.iter().for_each(|&source| counted.add(source));
        size = size.saturating_add(unit.size);
    }
    rank(Weight { size, keeps: counted.keeps * shared })
}

/// What tells units apart that weigh the same.
fn name<'a>(lock: &'a Lock, unit: &Unit) -> (&'a str, Part) {
    (lock.member_name(unit.parts[0].member), unit.parts[0])
}
