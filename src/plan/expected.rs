//! What an update of an image is expected to cost those who pull it. Pure.
//!
//! A layer is pulled again when one of its packages changed since the last pull. Packages change independently of each
//! other, each with the probability of its class ([`Stability::keeps`]). Two models of who pulls:
//!
//! - **blob**: containerd and podman, and registries, fetch the layers that they do not have, whatever lies below them:
//!   E = Σᵢ sizeᵢ × (1 − Πₚ keepsₚ), p the packages of layer i.
//! - **chain**: Docker has a layer only together with all below it, and fetches everything from the first that changed:
//!   E = Σᵢ sizeᵢ × (1 − Πⱼ Πₚ keepsₚ), j all layers up to i.
//!
//! Sizes are those of packages' archives, which are known before anything is packed; compressed layers are about as
//! large. Byte code, the environment layer (some kilobytes) and project files are not counted.

use serde::Serialize;

use super::PlannedLayer;
use crate::lock::{Lock, Member};
use crate::model::Stability;

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
    /// One layer for each tier of the policy.
    pub tiers: Expected,
    /// A layer for each package, however many that makes, most stable first within a tier: nothing can be pulled
    /// less in the blob model.
    pub per_package: Expected,
}

/// A layer as far as its cost goes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Weight {
    /// In bytes.
    pub size: u64,
    /// The probability that it stays as it is.
    pub keeps: f64,
}

/// The class of a member of a lock; nothing when it is not known.
pub fn class_of(lock: &Lock, member: Member) -> Option<Stability> {
    match member {
        Member::Package(index) => lock.packages[index].facts.stability,
        Member::Wheel(_) => None,
    }
}

/// The weight of a layer of these members.
pub fn weight(lock: &Lock, members: impl IntoIterator<Item = Member>) -> Weight {
    members.into_iter().fold(Weight { size: 0, keeps: 1.0 }, |weight, member| Weight {
        size: weight.size.saturating_add(lock.member_size(member)),
        keeps: weight.keeps * class_of(lock, member).unwrap_or(Stability::UNKNOWN).keeps(UPDATE_DAYS),
    })
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
    expected(layers.iter().map(|layer| weight(lock, layer.members())))
}

/// What other ways to make layers of the same packages would cost.
pub fn alternatives(lock: &Lock, layers: &[PlannedLayer]) -> Alternatives {
    let mut tiers: Vec<(&str, Vec<Member>)> = Vec::new();
    for layer in layers {
        match tiers.last_mut().filter(|(tier, _)| *tier == layer.tier) {
            Some((_, members)) => members.extend(layer.members()),
            None => tiers.push((&layer.tier, layer.members().collect())),
        }
    }
    for (_, members) in &mut tiers {
        members.sort_by_key(|&member| class_of(lock, member).unwrap_or(Stability::UNKNOWN));
    }
    let members = || tiers.iter().flat_map(|(_, members)| members.iter().copied());
    Alternatives {
        single: expected([weight(lock, members())]),
        tiers: expected(tiers.iter().map(|(_, members)| weight(lock, members.iter().copied()))),
        per_package: expected(members().map(|member| weight(lock, [member]))),
    }
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
