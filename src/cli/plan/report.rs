//! What `condaimg plan` tells, as its JSON has it. docs/plan.schema.json and docs/plan.md describe it; fields are added,
//! and none is renamed.

use serde::Serialize;

use crate::cli::locking::Locked;
use crate::lock::{Lock, Member};
use crate::model::{LayerRole, Stability};
use crate::plan::expected::{self, Alternatives, Expected, UPDATE_DAYS};
use crate::plan::weights::{Weights, known_class_of};
use crate::plan::{LayerPlan, LayerRule, PlannedLayer, Reason};
use crate::util::Digest;

/// All that is told.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Plan {
    /// The layer policy, as it was named.
    pub policy: String,
    /// The most layers that may be added to the base.
    pub max_layers: usize,
    /// Where the environment lies in the image.
    pub prefix: String,
    /// Codec and level.
    pub compression: String,
    /// Each platform.
    pub platforms: Vec<PlatformPlan>,
}

/// One platform.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct PlatformPlan {
    /// The platform (`linux/amd64`).
    pub platform: String,
    /// Digest of the normalised lock: the label `dev.condaimg.lock` of the image.
    pub lock: Digest,
    /// What the image stands on.
    pub base: PlannedBase,
    /// The number of packages in all layers.
    pub packages: usize,
    /// Sum of their archives' sizes in bytes.
    pub archive_size: u64,
    /// Lowest first, without the base's.
    pub layers: Vec<Layer>,
    /// What the next update is expected to cost.
    pub expected_pull: ExpectedPull,
}

/// The base.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct PlannedBase {
    /// As it was named.
    pub reference: String,
    /// Digest of its manifest for the platform.
    pub digest: Digest,
    /// How many layers it has.
    pub layers: usize,
    /// The sum of their sizes in bytes.
    pub size: u64,
}

/// One layer.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Layer {
    /// Its name in the image's annotations.
    pub name: String,
    /// Its role in the image's annotations: `packages`, `bytecode`, `removals`, `project-files` or `environment`.
    pub kind: &'static str,
    /// The tier of the policy; none of layers that no policy decides about.
    pub tier: Option<String>,
    /// What its bytes depend on: equal keys promise equal bytes.
    pub key: Digest,
    /// Sum of the sizes of what it is made of, in bytes: archives, project files, the environment layer's own.
    pub source_size: u64,
    /// The finished layer, when the local store has it.
    pub blob: Option<Blob>,
    /// The probability that no package of the layer changes until the next update; none of layers of no package.
    pub keeps: Option<f64>,
    /// By name, in the layer's order.
    pub packages: Vec<Package>,
}

/// A finished layer.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Blob {
    /// Digest of the blob.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
}

/// One package.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Package {
    /// The normalised name.
    pub name: String,
    /// The version.
    pub version: String,
    /// The build; none of a wheel.
    pub build: Option<String>,
    /// Size of its archive in bytes.
    pub size: u64,
    /// How often it changes; none when that is not known.
    pub stability: Option<Stability>,
    /// Why it is where it is; none in layers of byte code.
    pub why: Option<Why>,
}

/// Why a package is where it is.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Why {
    /// The tier that it belongs to.
    pub tier: String,
    /// The key of the policy that takes it there: `closure-of`, `packages`, `larger-than`, or `rest`.
    pub rule: &'static str,
    /// What that key says: a package, a pattern, a number of bytes.
    pub value: Option<String>,
    /// What decides on its layer: `together`, `own`, `shared`, `built-together`, `limit`, `cost`.
    pub layer: LayerRule,
    /// The same for people.
    pub text: String,
}

/// Bytes that are expected to be pulled at the next update.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct ExpectedPull {
    /// How long after the last one that is taken to be, in days.
    pub days: f64,
    /// With these layers.
    pub plan: Expected,
    /// With others.
    pub alternatives: Alternatives,
}

impl PlatformPlan {
    /// All but the layers.
    pub fn new(locked: &Locked, lock_digest: Digest, plan: &LayerPlan) -> Self {
        let Locked { platform, lock, base, .. } = locked;
        Self {
            platform: platform.to_string(),
            lock: lock_digest,
            base: PlannedBase {
                reference: lock.base.reference.clone(),
                digest: lock.base.digest,
                layers: base.layers.len(),
                size: base.layers.iter().map(|layer| layer.blob.size).sum(),
            },
            packages: lock.members().count(),
            archive_size: lock.members().map(|member| lock.member_size(member)).fold(0, u64::saturating_add),
            layers: Vec::new(),
            expected_pull: ExpectedPull {
                days: UPDATE_DAYS,
                plan: expected::of_plan(lock, &plan.layers),
                alternatives: expected::alternatives(lock, &plan.layers),
            },
        }
    }
}

impl Layer {
    /// A layer of the plan.
    pub fn planned(
        lock: &Lock,
        weights: &Weights<'_>,
        layer: &PlannedLayer,
        reasons: &[Reason],
        blob: Option<Blob>,
    ) -> Self {
        let is_bytecode = reasons.is_empty();
        let packages: Vec<Package> = match is_bytecode {
            true => layer.segments.iter().map(|segment| Package::new(lock, segment.member, None)).collect(),
            false => reasons.iter().map(|reason| Package::new(lock, reason.member, Some(reason))).collect(),
        };
        Self {
            name: layer.name.clone(),
            kind: layer.role().name(),
            tier: Some(layer.tier.clone()),
            key: layer.key,
            source_size: layer.archive_size,
            blob,
            keeps: Some(weights.weigh(layer.parts()).keeps),
            packages,
        }
    }

    /// A layer of no package.
    pub fn beside(role: LayerRole, key: Digest, size: u64, blob: Option<Blob>) -> Self {
        Self {
            name: role.name().to_owned(),
            kind: role.name(),
            tier: None,
            key,
            source_size: size,
            blob,
            keeps: None,
            packages: Vec::new(),
        }
    }
}

impl Package {
    fn new(lock: &Lock, member: Member, reason: Option<&Reason>) -> Self {
        let (version, build) = match member {
            Member::Package(index) => {
                let record = &lock.packages[index].record.package_record;
                (record.version.to_string(), Some(record.build.to_string()))
            }
            Member::Wheel(index) => (lock.wheels[index].version.clone(), None),
        };
        Self {
            name: lock.member_name(member).to_owned(),
            version,
            build,
            size: lock.member_size(member),
            stability: known_class_of(lock, member),
            why: reason.map(|reason| Why::new(lock, reason)),
        }
    }
}

impl Why {
    fn new(lock: &Lock, reason: &Reason) -> Self {
        Self {
            tier: reason.tier.clone(),
            rule: reason.rule.key(),
            value: reason.rule.value(),
            layer: reason.layer,
            text: super::table::sentence(lock.member_name(reason.member), reason),
        }
    }
}
