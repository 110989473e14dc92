//! What an update of an image is expected to cost those who pull it. Pure.
//!
//! A layer is pulled again when something in it changed since the last pull. What was built together changes together,
//! all else independently of each other, each with the probability of its class ([`super::weights`]). Two models of who
//! pulls:
//!
//! - **blob**: containerd and podman, and registries, fetch the layers that they do not have, whatever lies below them:
//!   E = Σᵢ sizeᵢ × (1 − Πₚ keepsₚ), p what layer i changes with.
//! - **chain**: Docker has a layer only together with all below it, and fetches everything from the first that changed:
//!   E = Σᵢ sizeᵢ × (1 − Πⱼ Πₚ keepsₚ), j all layers up to i.
//!
//! Sizes are those of packages' archives, which are known before anything is packed; compressed layers are about as
//! large, and byte code is estimated. The environment layer (some kilobytes) and project files are not counted.

use std::collections::BTreeMap;

use serde::Serialize;

use super::PlannedLayer;
use super::weights::{Part, Weight, Weights, rank};
use crate::lock::Lock;

/// How often an image is expected to be built and pulled anew, in days.
pub const UPDATE_DAYS: f64 = 7.0;

/// Bytes that are expected to be pulled at the next update.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Expected {
    /// By those who fetch layers one by one.
    pub blob: f64,
    /// By those who fetch all above the first layer that changed.
    pub chain: f64,
}

/// What an update costs with other ways to make layers of the same packages.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Alternatives {
    /// All packages in one layer.
    pub single: Expected,
    /// One layer for each tier of the policy, ordered by [`rank`].
    pub tiers: Expected,
    /// A layer for each package and its byte code, however many that makes, ordered by [`rank`]: nothing can be pulled
    /// less in the blob model.
    pub per_package: Expected,
}

/// What an update of these layers costs, lowest first.
pub fn expected(layers: impl IntoIterator<Item = Weight>) -> Expected {
    let (mut cost, mut below) = (Expected { blob: 0.0, chain: 0.0 }, 1.0);
    for Weight { size, keeps } in layers {
        below *= keeps;
        cost.blob += size as f64 * (1.0 - keeps);
        cost.chain += size as f64 * (1.0 - below);
    }
    cost
}

/// What an update of planned layers costs.
pub fn of_plan(lock: &Lock, layers: &[PlannedLayer]) -> Expected {
    let weights = Weights::of(lock);
    expected(layers.iter().map(|layer| weights.weigh(layer.parts())))
}

/// What other ways to make layers of the same packages would cost.
pub fn alternatives(lock: &Lock, layers: &[PlannedLayer]) -> Alternatives {
    let weights = Weights::of(lock);
    let mut tiers: BTreeMap<&str, Vec<Part>> = BTreeMap::new();
    for layer in layers {
        tiers.entry(&layer.tier).or_default().extend(layer.parts());
    }
    let all = || layers.iter().flat_map(PlannedLayer::parts);
    Alternatives {
        single: expected([weights.weigh(all())]),
        tiers: in_order(tiers.into_values().map(|parts| weights.weigh(parts)).collect()),
        per_package: in_order(all().map(|part| weights.weigh([part])).collect()),
    }
}

/// What layers cost in the order that is cheapest in the chain model, as far as they change independently.
fn in_order(mut layers: Vec<Weight>) -> Expected {
    layers.sort_by(|a, b| rank(*a).total_cmp(&rank(*b)));
    expected(layers)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn weights() -> impl Strategy<Value = Vec<Weight>> {
        let weight = (0_u64..1_000_000, 0.0..=1.0).prop_map(|(size, keeps)| Weight { size, keeps });
        prop::collection::vec(weight, 0..12)
    }

    #[test]
    fn the_formulas_are_those_of_the_documentation() {
        let layers =
            [Weight { size: 100, keeps: 0.9 }, Weight { size: 10, keeps: 0.5 }, Weight { size: 1, keeps: 1.0 }];
        let cost = expected(layers);
        assert!((cost.blob - (10.0 + 5.0)).abs() < 1e-9, "{cost:?}");
        assert!((cost.chain - (10.0 + 10.0 * 0.55 + 0.55)).abs() < 1e-9, "{cost:?}");
        assert_eq!(expected([]), Expected { blob: 0.0, chain: 0.0 });
    }

    proptest! {
        #[test]
        fn nothing_costs_less_than_nothing_or_more_than_all(layers in weights()) {
            let (cost, all) = (expected(layers.iter().copied()), layers.iter().map(|it| it.size).sum::<u64>() as f64);
            prop_assert!(cost.blob >= 0.0 && cost.blob <= cost.chain + 1e-6 && cost.chain <= all + 1e-6, "{cost:?}");
        }

        /// Two layers made one are never cheaper.
        #[test]
        fn joining_never_pays(layers in weights(), at in any::<prop::sample::Index>()) {
            prop_assume!(layers.len() > 1);
            let at = at.index(layers.len() - 1);
            let mut joined = layers.clone();
            let upper = joined.remove(at + 1);
            joined[at] = Weight { size: joined[at].size + upper.size, keeps: joined[at].keeps * upper.keeps };
            let (apart, joined) = (expected(layers), expected(joined));
            prop_assert!(joined.blob >= apart.blob - 1e-6 && joined.chain >= apart.chain - 1e-6);
        }
    }
}
