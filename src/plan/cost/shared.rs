//! Layers that other images have, too: the strategy `shared`.
//!
//! The packages of tiers with `closure-of` (Python and what it needs) are in most images of an organisation. They get half
//! of the layers, or a quarter where that is expected to cost less, and are cut alone: what else is in an image does not
//! move their layers. Of all other packages the largest have a layer each, and what is left shares one, since two images
//! seldom have the same of them. So layers differ only where packages do, which costs an image by itself some per cent more
//! at each update than `cost`.

use super::{Run, Unit, cut};

/// Instead of [`super::order::STRANGER`]: a common beginning is worth more here.
pub const STRANGER: f64 = 15.6;
/// Shares of the layers that common packages may have: one by so many.
const SHARES: [usize; 2] = [2, 4];

/// Common tiers become one, and all others, too.
pub fn join_tiers(units: &mut [Unit], common: &[bool]) {
    for shared in [true, false] {
        let lowest = units.iter().map(|unit| unit.tier).filter(|&tier| common[tier] == shared).min();
        for unit in units.iter_mut().filter(|unit| common[unit.tier] == shared) {
            unit.tier = lowest.unwrap_or(unit.tier);
        }
    }
}

/// The runs of at most `most` layers, in no order, of units in Smith's.
pub fn runs(units: Vec<Unit>, common: &[bool], most: usize) -> Vec<Run> {
    let (of_all, own): (Vec<Unit>, Vec<Unit>) = units.into_iter().partition(|unit| common[unit.tier]);
    if of_all.is_empty() || most < 2 {
        return largest(of_all.into_iter().chain(own).collect(), most);
    }
    let with = |share: usize| {
        // Rounded, and the same whether there are others or not.
        let below = ((most + share / 2) / share).clamp(1, most - 1);
        let mut runs = cut::runs(of_all.clone(), below);
        runs.extend(largest(own.clone(), most - below));
        let cost: f64 = runs.iter().map(cut::cost).sum();
        (cost, runs)
    };
    let ways = SHARES.into_iter().map(with);
    ways.min_by(|(a, _), (b, _)| a.total_cmp(b)).map(|(_, runs)| runs).unwrap_or_default()
}

/// The largest units each for itself, all others in one run.
fn largest(mut units: Vec<Unit>, most: usize) -> Vec<Run> {
    units.sort_by(|a, b| b.size.cmp(&a.size).then(a.parts[0].cmp(&b.parts[0])));
    let rest = if units.len() > most { units.split_off(most.saturating_sub(1)) } else { Vec::new() };
    let mut runs: Vec<Run> = units.into_iter().map(|unit| vec![unit]).collect();
    runs.extend((!rest.is_empty()).then_some(rest));
    runs
}
