//! Which package goes into which layer, in which order, and under which key. Pure: from a lock, a policy and the
//! parameters to a plan; no file is read.
//!
//! # The algorithm
//!
//! Of the strategy `tiers`; those of `cost` and `shared` are described where they are made (`cost/`) and in docs/layers.md.
//!
//! 1. Each package belongs to one **tier** of the policy: the first whose rule takes it (Python and what it needs;
//!    scientific packages by name or size; all others). Tiers stack in the policy's order.
//! 2. A package whose archive is as large as the policy's `own-layer` gets a layer of its own; the others of a tier
//!    share one. Membership depends on the package and the policy alone: no package changes layers because another
//!    one appeared, as long as the limit is not reached.
//! 3. Byte code depends on the exact CPython, the files of a package do not: it goes into a **companion** layer
//!    right above the files it belongs to, so that a Python patch release moves no files. In Python's own tier
//!    it stays with the files.
//! 4. Over the limit, first the smallest own layers join their tier's shared layer, then companions join their
//!    layer, then tiers join, until the limit holds.
//! 5. The environment layer (history, user, home, entrypoint) comes last and counts as one.

mod cost;
pub mod expected;
mod key;
mod name;
mod policy;
mod reason;
mod shipped;
#[cfg(test)]
mod stable;
pub mod weights;

use rattler_conda_types::Subdir;

pub use key::{KeyInputs, Segment, SegmentKind, python_of};
pub use policy::{Cutting, Policy, Tier};
pub use reason::{LayerRule, Reason, TierRule, reasons};

use crate::lock::{Lock, Member};
use crate::model::LayerRole;
pub use crate::model::{MAX_LAYERS, MIN_LAYERS};
use crate::util::{Digest, Error, Result};

/// The layers to add to the base, lowest first, without the environment layer, which is made of the lock alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerPlan {
    /// In the order of the image.
    pub layers: Vec<PlannedLayer>,
}

/// One layer to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedLayer {
    /// For people: what is in it, as `numpy`, `requests + 11 more` or `requests + 11 more (bytecode)`.
    pub name: String,
    /// The tier it belongs to.
    pub tier: String,
    /// What is in it, in this order.
    pub segments: Vec<Segment>,
    /// What its bytes depend on; equal keys promise equal bytes.
    pub key: Digest,
    /// Sum of the sizes of its packages' archives in bytes.
    pub archive_size: u64,
}

impl PlannedLayer {
    /// What kind of content it has.
    pub fn role(&self) -> LayerRole {
        match self.segments.iter().any(|segment| segment.kind == SegmentKind::Files) {
            true => LayerRole::Packages,
            false => LayerRole::Bytecode,
        }
    }

    /// What is in it.
    pub fn parts(&self) -> impl Iterator<Item = weights::Part> + '_ {
        self.segments.iter().map(|segment| weights::Part { member: segment.member, kind: segment.kind })
    }

    /// The members of the lock whose files (not only byte code) are in it.
    pub fn members(&self) -> impl Iterator<Item = Member> {
        self.segments.iter().filter(|segment| segment.kind == SegmentKind::Files).map(|segment| segment.member)
    }
}

/// Plans the layers of an environment.
///
/// # Errors
/// A limit that no plan can keep; a lock without hashes.
pub fn plan(lock: &Lock, policy: &Policy, max_layers: usize, inputs: &KeyInputs) -> Result<LayerPlan> {
    if !(MIN_LAYERS..=MAX_LAYERS).contains(&max_layers) {
        return Err(Error::usage(format!("`--max-layers {max_layers}` is outside of {MIN_LAYERS} to {MAX_LAYERS}")));
    }
    let groups = match policy.strategy {
        Cutting::Cost | Cutting::Shared => cost::groups(lock, policy, inputs.bytecode, max_layers - 1),
        Cutting::Tiers => {
            let mut groups = group(lock, policy, inputs.bytecode);
            limit(&mut groups, max_layers - 1);
            groups
        }
    };
    let mut layers = Vec::new();
    for group in groups {
        group.into_layers(lock, inputs, &mut layers)?;
    }
    name::give(lock, &mut layers);
    Ok(LayerPlan { layers })
}

/// Packages that share a layer (and a companion, if they have byte code apart).
#[derive(Debug, Clone)]
struct Group {
    /// What orders the groups of a tier.
    name: String,
    tier: usize,
    tier_name: String,
    shared: bool,
    /// Ascending: packages by name, then wheels by name.
    members: Vec<Member>,
    bytecode: Vec<Member>,
    companion: bool,
    size: u64,
}

impl Group {
    fn layers(&self) -> usize {
        1 + usize::from(self.companion)
    }

    fn absorb(&mut self, other: Group) {
        self.members.extend(other.members);
        self.members.sort_unstable();
        self.bytecode.extend(other.bytecode);
        self.bytecode.sort_unstable();
        self.companion |= other.companion;
        // Sizes are what a channel says.
        self.size = self.size.saturating_add(other.size);
    }

    fn into_layers(self, lock: &Lock, inputs: &KeyInputs, layers: &mut Vec<PlannedLayer>) -> Result<()> {
        let files = self.members.iter().map(|&member| Segment::files(lock, member, inputs));
        let bytecode = self.bytecode.iter().map(|&member| Segment::bytecode(lock, member, inputs));
        let mut segments = files.collect::<Result<Vec<_>>>()?;
        let bytecode = bytecode.collect::<Result<Vec<_>>>()?;
        if !self.companion {
            segments.extend(bytecode.iter().cloned());
        }
        layers.push(PlannedLayer {
            key: inputs.layer_key(&segments)?,
            segments,
            archive_size: self.size,
            name: String::new(),
            tier: self.tier_name.clone(),
        });
        if self.companion {
            layers.push(PlannedLayer {
                key: inputs.layer_key(&bytecode)?,
                segments: bytecode,
                archive_size: 0,
                name: String::new(),
                tier: self.tier_name,
            });
        }
        Ok(())
    }
}

fn group(lock: &Lock, policy: &Policy, bytecode: bool) -> Vec<Group> {
    let tiers = policy.tiers_of(lock);
    let mut groups: Vec<Group> = Vec::new();
    for (member, tier) in lock.members().zip(tiers) {
        let rule = &policy.tiers[tier];
        let size = lock.member_size(member);
        let own = size >= policy.own_layer && !rule.together;
        let compiled = (bytecode && lock.member_has_bytecode(member)).then_some(member);
        let new = Group {
            name: if own { lock.member_name(member).to_owned() } else { rule.name.clone() },
            tier,
            tier_name: rule.name.clone(),
            shared: !own,
            members: vec![member],
            bytecode: compiled.into_iter().collect(),
            companion: compiled.is_some() && !rule.together,
            size,
        };
        match groups.iter_mut().find(|group| group.shared && !own && group.tier == tier) {
            Some(shared) => shared.absorb(new),
            None => groups.push(new),
        }
    }
    // A tier's shared layer comes first: it holds what the large ones build on.
    groups.sort_by(|a, b| (a.tier, !a.shared, &a.name).cmp(&(b.tier, !b.shared, &b.name)));
    groups
}

/// Joins groups until they make at most `most` layers.
fn limit(groups: &mut Vec<Group>, most: usize) {
    let count = |groups: &[Group]| groups.iter().map(Group::layers).sum::<usize>();
    while count(groups) > most {
        if let Some(smallest) = smallest_own(groups) {
            let own = groups.remove(smallest);
            match groups.iter_mut().find(|group| group.shared && group.tier == own.tier) {
                Some(shared) => shared.absorb(own),
                None => groups.insert(smallest, Group { shared: true, name: own.tier_name.clone(), ..own }),
            }
        } else if let Some(group) = groups.iter_mut().rev().find(|group| group.companion) {
            group.companion = false;
        } else if let (Some(upper), true) = (groups.pop(), !groups.is_empty()) {
            if let Some(lower) = groups.last_mut() {
                lower.name = format!("{}-{}", lower.name, upper.name);
                lower.absorb(upper);
            }
        } else {
            return;
        }
    }
    groups.sort_by(|a, b| (a.tier, !a.shared, &a.name).cmp(&(b.tier, !b.shared, &b.name)));
}

fn smallest_own(groups: &[Group]) -> Option<usize> {
    let own = groups.iter().enumerate().filter(|(_, group)| !group.shared);
    own.min_by(|(_, a), (_, b)| (a.size, &a.name).cmp(&(b.size, &b.name))).map(|(index, _)| index)
}

/// Whether a subdir is that of packages for every platform.
pub(crate) fn is_noarch(subdir: &str) -> bool {
    subdir == Subdir::NoArch.as_str()
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::lock::{LockedPackage, PackageFacts, sample};

    /// A package of a lock that is made for a test.
    #[derive(Debug, Clone)]
    pub(super) struct Made {
        pub(super) name: String,
        pub(super) size: u64,
        pub(super) noarch: bool,
        pub(super) bytecode: bool,
        pub(super) depends: Vec<String>,
        /// Those of one build have the same number, and no others.
        pub(super) build: Option<u8>,
        /// Instead of 3.11.2.
        pub(super) version: Option<&'static str>,
    }

    impl Made {
        pub(super) fn new(name: &str, size: u64) -> Self {
            Self {
                name: name.to_owned(),
                size,
                noarch: false,
                bytecode: false,
                depends: Vec::new(),
                build: None,
                version: None,
            }
        }

        pub(super) fn noarch(self) -> Self {
            Self { noarch: true, bytecode: true, ..self }
        }

        fn locked(&self) -> LockedPackage {
            let subdir = if self.noarch { "noarch" } else { "linux-64" };
            let file = format!("{}-3.11.2-0.conda", self.name);
            let mut record = json!({
                "name": self.name, "version": self.version.unwrap_or("3.11.2"), "build": "0", "build_number": 0, "subdir": subdir,
                "depends": self.depends, "size": self.size, "sha256": Digest::of(format!("{self:?}")).hex(),
                "fn": file, "url": format!("https://channel.example/c/{subdir}/{file}"),
                "channel": "https://channel.example/c",
            });
            if self.noarch {
                record["noarch"] = json!("python");
            }
            if let Some(build) = self.build {
                record["timestamp"] = json!(1_700_000_000_000_u64 + u64::from(build) * 86_400_000);
            }
            let facts = PackageFacts { bytecode: self.bytecode, ..PackageFacts::default() };
            LockedPackage { record: serde_json::from_value(record).expect("a record"), facts }
        }
    }

    pub(super) fn lock(packages: &[Made]) -> Lock {
        let mut packages: Vec<LockedPackage> = packages.iter().map(Made::locked).collect();
        packages.sort_by(|a, b| a.name().cmp(b.name()));
        sample::lock(packages)
    }

    fn planned(lock: &Lock, max_layers: usize, bytecode: bool) -> LayerPlan {
        planned_by("tiers", lock, max_layers, bytecode)
    }

    pub(super) fn planned_by(policy: &str, lock: &Lock, max_layers: usize, bytecode: bool) -> LayerPlan {
        let python = python_of(lock).expect("a Python");
        let inputs = KeyInputs {
            prefix: "/opt/env".to_owned(),
            root: "opt/env".to_owned(),
            folders: crate::model::Folders::default(),
            codec: "gzip".to_owned(),
            group_write: false,
            keep_setuid: false,
            bytecode,
            python_archive: python.as_ref().map(|(_, archive)| *archive),
            python: python.map(|(info, _)| info),
        };
        plan(lock, &Policy::named(policy).expect("a policy"), max_layers, &inputs).expect("a plan")
    }

    /// Package → what is in the layer with its files, without `new`, and the layer's key.
    fn membership(lock: &Lock, plan: &LayerPlan, new: &str) -> BTreeMap<String, (Vec<String>, Digest)> {
        let of_layer = |layer: &PlannedLayer| {
            let names = layer.members().map(|member| lock.member_name(member).to_owned());
            let (names, key) = (names.filter(|name| name != new).collect::<Vec<_>>(), layer.key);
            layer.members().map(move |member| (member, (names.clone(), key))).collect::<Vec<_>>()
        };
        let members = plan.layers.iter().flat_map(of_layer);
        members.map(|(member, layer)| (lock.member_name(member).to_owned(), layer)).collect()
    }

    /// The layers that each package's segments of a kind are in.
    fn places(plan: &LayerPlan, kind: SegmentKind) -> BTreeMap<Member, Vec<usize>> {
        let mut places: BTreeMap<Member, Vec<usize>> = BTreeMap::new();
        for (layer, planned) in plan.layers.iter().enumerate() {
            for segment in planned.segments.iter().filter(|segment| segment.kind == kind) {
                places.entry(segment.member).or_default().push(layer);
            }
        }
        places
    }

    /// Environments of up to 24 packages: Python, what it needs, scientific ones by name and by size, others.
    pub(super) fn environments() -> impl Strategy<Value = Vec<Made>> {
        let name = prop::sample::subsequence(
            vec![
                "python",
                "openssl",
                "libffi",
                "zlib",
                "numpy",
                "numpy-base",
                "scipy",
                "pandas",
                "libblas",
                "pytorch",
                "flask",
                "click",
                "six",
                "rich",
                "attrs",
                "jinja2",
                "boto3",
                "aiohttp",
                "tiny",
                "huge",
                "mine",
                "yours",
                "theirs",
                "zz-last",
            ],
            0..=24,
        );
        let facts = prop::collection::vec((0_u64..40_000_000, any::<bool>(), any::<bool>(), any::<u8>()), 24);
        (name, facts, any::<bool>()).prop_map(|(names, facts, small)| {
            let made = names.iter().zip(facts).map(|(name, (size, noarch, bytecode, build))| {
                let noarch = noarch && *name != "python";
                let depends = match *name {
                    "python" => vec!["openssl >=3".to_owned(), "libffi".to_owned()],
                    _ => vec!["python".to_owned()],
                };
                let size = if small { size % 3_000_000 } else { size };
                let build = (build < 100).then_some(build % 5);
                Made { name: (*name).to_owned(), size, noarch, bytecode, depends, build, version: None }
            });
            made.collect()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn every_segment_is_in_one_layer(packages in environments(), max in MIN_LAYERS..=MAX_LAYERS, on: bool) {
            let lock = lock(&packages);
            let plan = planned(&lock, max, on);
            let (files, bytecode) = (places(&plan, SegmentKind::Files), places(&plan, SegmentKind::Bytecode));
            prop_assert_eq!(files.len(), lock.packages.len());
            for (index, package) in lock.packages.iter().enumerate() {
                let member = Member::Package(index);
                prop_assert_eq!(files[&member].len(), 1, "files of {}", package.name());
                let made = bytecode.get(&member).map_or(0, Vec::len);
                prop_assert_eq!(made, usize::from(on && package.facts.bytecode), "byte code of {}", package.name());
            }
            prop_assert!(plan.layers.iter().all(|layer| !layer.segments.is_empty()));
        }

        #[test]
        fn no_limit_is_exceeded(packages in environments()) {
            let lock = lock(&packages);
            for max in MIN_LAYERS..=MAX_LAYERS {
                // The environment layer comes on top.
                let layers = planned(&lock, max, true).layers.len();
                prop_assert!(layers < max, "{layers} and the environment layer with {max}");
            }
        }

        #[test]
        fn equal_locks_have_equal_plans(packages in environments(), max in MIN_LAYERS..=MAX_LAYERS) {
            let mut turned = packages.clone();
            turned.reverse();
            prop_assert_eq!(planned(&lock(&packages), max, true), planned(&lock(&turned), max, true));
        }

        #[test]
        fn tiers_keep_their_order(packages in environments(), max in MIN_LAYERS..=MAX_LAYERS) {
            let policy = Policy::named("tiers").expect("a policy");
            let place = |layer: &PlannedLayer| policy.tiers.iter().position(|tier| tier.name == layer.tier);
            let plan = planned(&lock(&packages), max, true);
            let order: Vec<usize> = plan.layers.iter().map(|layer| place(layer).expect("a tier")).collect();
            prop_assert!(order.is_sorted(), "{order:?}");
        }

        /// In one layer, or in the next one above.
        #[test]
        fn byte_code_lies_right_above_its_files(packages in environments(), max in MIN_LAYERS..=MAX_LAYERS) {
            let plan = planned(&lock(&packages), max, true);
            let files = places(&plan, SegmentKind::Files);
            for (package, layers) in places(&plan, SegmentKind::Bytecode) {
                let above = layers[0].checked_sub(files[&package][0]);
                prop_assert!(above.is_some_and(|above| above <= 1), "{above:?}");
            }
            for layer in &plan.layers {
                let order: Vec<_> = layer.segments.iter().map(|segment| (segment.kind, segment.member)).collect();
                prop_assert!(order.is_sorted(), "{order:?}");
            }
        }

        #[test]
        fn a_new_small_package_moves_no_other(packages in environments(), name in "[a-z]{3,8}-new", noarch: bool) {
            let before = lock(&packages);
            let new = Made { noarch, bytecode: noarch, ..Made::new(&name, 10_000) };
            let after = lock(&[packages, vec![new]].concat());
            let (before_plan, after_plan) = (planned(&before, MAX_LAYERS, true), planned(&after, MAX_LAYERS, true));
            let (old, mut new) = (membership(&before, &before_plan, &name), membership(&after, &after_plan, &name));
            let (joined, _) = new.remove(&name).expect("the new package");
            prop_assert_eq!(old.len(), new.len());
            for (package, (layer, key)) in old {
                prop_assert_eq!(&new[&package].0, &layer, "{} has moved", package);
                prop_assert!(new[&package].1 == key || layer == joined, "{:?} has changed", layer);
            }
        }
    }

    #[test]
    fn limits_out_of_range_are_refused() {
        let lock = lock(&[Made::new("zlib", 1)]);
        let policy = Policy::named("default").expect("a policy");
        let inputs = KeyInputs {
            prefix: "/opt/env".to_owned(),
            root: "opt/env".to_owned(),
            folders: crate::model::Folders::default(),
            codec: String::new(),
            group_write: false,
            keep_setuid: false,
            bytecode: false,
            python: None,
            python_archive: None,
        };
        for (max, fits) in [(0, false), (1, false), (2, true), (64, true), (65, false)] {
            assert_eq!(plan(&lock, &policy, max, &inputs).is_ok(), fits, "{max}");
        }
    }

    /// Files of noarch packages do not depend on the exact Python; their byte code and its own layer do.
    #[test]
    fn a_patch_release_of_python_moves_no_files_of_others() {
        let others = [Made::new("numpy", 20_000_000), Made::new("flask", 100_000).noarch(), Made::new("six", 1_000)];
        let keys = |size: u64| -> BTreeMap<String, Digest> {
            let all = lock(&[&others[..], &[Made::new("python", size)]].concat());
            planned(&all, MAX_LAYERS, true).layers.into_iter().map(|layer| (layer.name, layer.key)).collect()
        };
        let (before, after) = (keys(9_000_000), keys(9_000_001));
        let changed: BTreeSet<&str> =
            before.iter().filter(|(name, key)| after[*name] != **key).map(|(name, _)| name.as_str()).collect();
        assert_eq!(changed, BTreeSet::from(["python", "flask (bytecode)"]));
        assert_eq!(before.len(), 4, "{before:?}");
    }
}
