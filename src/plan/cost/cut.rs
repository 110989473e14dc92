//! The cheapest cuts of an order of units.

use super::super::weights::Counted;
use super::{LAYER_COST, Run, Unit};

/// The cheapest cost so far, and where the last run begins.
type Best = Option<(f64, usize)>;

/// The cheapest cut of the units, in their order, into at most `most` runs, none across tiers. There are no more tiers
/// than that.
pub fn runs(units: Vec<Unit>, most: usize) -> Vec<Run> {
    // By runs made and units placed.
    let mut best: Vec<Vec<Best>> = vec![vec![None; units.len() + 1]; most + 1];
    best[0][0] = Some((0.0, 0));
    for end in 1..=units.len() {
        let mut sum = Sum::default();
        for first in (0..end).rev().take_while(|&first| units[first].tier == units[end - 1].tier) {
            sum.add(&units[first]);
            for used in 1..=most {
                let Some((before, _)) = best[used - 1][first] else { continue };
                let cost = before + sum.cost() + LAYER_COST;
                if best[used][end].is_none_or(|(known, _)| cost < known) {
                    best[used][end] = Some((cost, first));
                }
            }
        }
    }
    taken(&best, units)
}

fn taken(best: &[Vec<Best>], mut units: Vec<Unit>) -> Vec<Run> {
    let cost = |used: &usize| best[*used][units.len()].map_or(f64::INFINITY, |(cost, _)| cost);
    let mut used = (0..best.len()).min_by(|a, b| cost(a).total_cmp(&cost(b))).unwrap_or(0);
    let mut runs = Vec::new();
    while let Some((_, first)) = best[used][units.len()].filter(|_| used > 0) {
        runs.push(units.split_off(first));
        used -= 1;
    }
    runs.reverse();
    runs
}

/// What a run is expected to cost in the blob model, in bytes.
pub fn cost<'a>(units: impl IntoIterator<Item = &'a Unit>) -> f64 {
    let mut sum = Sum::default();
    units.into_iter().for_each(|unit| sum.add(unit));
    sum.cost()
}

/// Units of a run, added up.
#[derive(Default)]
struct Sum {
    size: f64,
    counted: Counted,
}

impl Sum {
    fn add(&mut self, unit: &Unit) {
        self.size += unit.size as f64;
        unit.sources.iter().for_each(|&source| self.counted.add(source));
    }

    fn cost(&self) -> f64 {
        self.size * (1.0 - self.counted.keeps)
    }
}
