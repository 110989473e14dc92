//! Smith's rule: fewest releases per byte first.

use super::super::weights::Counted;
use super::{Run, Unit};
use crate::lock::Lock;

/// What a layer counts more releases in a year for when other images need not have its packages.
pub const STRANGER: f64 = 2.6;

/// Sorts units within their tiers, tiers by number.
pub fn units(lock: &Lock, units: Vec<Unit>) -> Vec<Unit> {
    let mut keyed: Vec<(f64, Unit)> = units.into_iter().map(|unit| (ratio([&unit], STRANGER), unit)).collect();
    keyed.sort_by(|(a, one), (b, other)| {
        one.tier.cmp(&other.tier).then(a.total_cmp(b)).then_with(|| name(lock, one).cmp(&name(lock, other)))
    });
    keyed.into_iter().map(|(_, unit)| unit).collect()
}

/// Sorts layers. Those of tiers that are not `common` count `stranger` releases more.
pub fn runs(lock: &Lock, runs: &mut Vec<Run>, common: &[bool], stranger: f64) {
    let more = |run: &Run| if run.iter().all(|unit| common[unit.tier]) { 0.0 } else { stranger };
    let mut keyed: Vec<(f64, Run)> = runs.drain(..).map(|run| (ratio(&run, more(&run)), run)).collect();
    keyed.sort_by(|(a, one), (b, other)| a.total_cmp(b).then_with(|| name(lock, &one[0]).cmp(&name(lock, &other[0]))));
    runs.extend(keyed.into_iter().map(|(_, run)| run));
}

/// Releases in a year by byte.
fn ratio<'a>(units: impl IntoIterator<Item = &'a Unit>, more: f64) -> f64 {
    let (mut counted, mut size) = (Counted::default(), 0_u64);
    for unit in units {
        unit.sources.iter().for_each(|&source| counted.add(source));
        size = size.saturating_add(unit.size);
    }
    (counted.releases + more) / size.max(1) as f64
}

/// What tells units apart that weigh the same.
fn name<'a>(lock: &'a Lock, unit: &Unit) -> (&'a str, super::Part) {
    (lock.member_name(unit.parts[0].member), unit.parts[0])
}
