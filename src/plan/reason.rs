//! Why each package is where it is: read from a finished plan, the policy and the lock, so that whatever made the plan
//! needs to know nothing of it.

use serde::Serialize;

use super::{Cutting, PlannedLayer, Policy};
use crate::lock::{Lock, Member};

/// The rule of a policy that takes a package into its tier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TierRule {
    /// `closure-of`: it is this package, or this one needs it.
    ClosureOf(String),
    /// `packages`: its name is like this pattern.
    Named(String),
    /// `larger-than`: it is built for a platform and its archive has at least so many bytes.
    LargerThan(u64),
    /// No other tier takes it.
    Rest,
}

/// Why a package has the layer that it has within its tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LayerRule {
    /// The tier is one layer (`together`).
    Together,
    /// Its archive is as large as `own-layer`, so that it has a layer for itself.
    Own,
    /// It is smaller, and shares the layer of its tier.
    Shared,
    /// It was built together with packages of this tier, and changes with them.
    BuiltTogether,
    /// It would have another layer if there could be more of them.
    Limit,
    /// With the strategies `cost` and `shared`: the cheapest cut within the limit puts it there.
    Cost,
}

/// Why a package is where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// The package.
    pub member: Member,
    /// The name of the tier that it belongs to.
    pub tier: String,
    /// What takes it there.
    pub rule: TierRule,
    /// What decides on its layer.
    pub layer: LayerRule,
}

/// Why the packages of each layer are in it, in the order of `layers`; layers of byte code have none.
pub fn reasons(lock: &Lock, policy: &Policy, layers: &[PlannedLayer]) -> Vec<Vec<Reason>> {
    let is_tier = |name: &str| policy.tiers.iter().any(|tier| tier.name == name);
    let rules: Vec<_> = lock.members().zip(policy.rules_of(lock)).collect();
    let of_layer = |layer: &PlannedLayer| {
        let alone = layer.members().take(2).count() == 1;
        let of_member = |member| {
            let (_, (tier, rule)) = rules.iter().find(|(known, _)| *known == member)?;
            let tier = &policy.tiers[*tier];
            let large = lock.member_size(member) >= policy.own_layer;
            let decided = match (tier.together, large) {
                _ if tier.name != layer.tier && is_tier(&layer.tier) => LayerRule::BuiltTogether,
                _ if tier.name != layer.tier && policy.strategy != Cutting::Shared => LayerRule::Limit,
                (true, _) => LayerRule::Together,
                _ if policy.strategy != Cutting::Tiers => LayerRule::Cost,
                (_, true) if alone => LayerRule::Own,
                (_, true) => LayerRule::Limit,
                (_, false) => LayerRule::Shared,
            };
            Some(Reason { member, tier: tier.name.clone(), rule: rule.clone(), layer: decided })
        };
        layer.members().filter_map(of_member).collect()
    };
    layers.iter().map(of_layer).collect()
}

impl TierRule {
    /// The key of the policy.
    pub fn key(&self) -> &'static str {
        match self {
            Self::ClosureOf(_) => "closure-of",
            Self::Named(_) => "packages",
            Self::LargerThan(_) => "larger-than",
            Self::Rest => "rest",
        }
    }

    /// What the key says: a package, a pattern, a number of bytes.
    pub fn value(&self) -> Option<String> {
        match self {
            Self::ClosureOf(value) | Self::Named(value) => Some(value.clone()),
            Self::LargerThan(size) => Some(size.to_string()),
            Self::Rest => None,
        }
    }
}
