//! Layers that other images have, too: the strategy `shared`.
//!
//! The packages of tiers with `closure-of` (Python and what it needs) are in most images of an organisation. They get half
//! of the layers, or a quarter where that is expected to cost less, and are cut alone: as long as that share is the same,
//! what else is in an image does not move their layers. Of all other packages the largest have a layer each, and what is left
//! shares one, since two images seldom have the same of them. So layers differ where packages do; what that costs at each
//! update, and saves, is in docs/layers.md.

use super::{Run, Unit, cut};

/// Instead of [`super::order::STRANGER`]: a common beginning is worth more here.
pub const STRANGER: f64 = 0.741;
/// Shares of the layers that common packages may have: one by so many.
const SHARES: [usize; 2] = [2, 4];

/// Common tiers become one, and all others, too.
pub fn join_tiers(units: &mut [Unit], names: &mut [String]) {
    for common in [true, false] {
        super::join(units, names, |unit| unit.common == common);
    }
}

/// The runs of at most `most` layers, in no order, of units in that of [`super::order::units`].
pub fn runs(units: Vec<Unit>, most: usize) -> Vec<Run> {
    let (of_all, own): (Vec<Unit>, Vec<Unit>) = units.into_iter().partition(|unit| unit.common);
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
