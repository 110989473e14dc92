//! Which package goes into which layer, in which order, and under which key. Pure: from a lock, a policy and the
//! parameters to a plan; no file is read.
//!
//! # The algorithm
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

mod key;
mod policy;

use rattler_conda_types::Subdir;

pub use key::{KeyInputs, Segment, SegmentKind, python_of};
pub use policy::{Policy, Tier};

use crate::lock::Lock;
use crate::util::{Digest, Error, Result};

/// The fewest layers that a plan can have: packages and the environment layer.
pub const MIN_LAYERS: usize = 2;
/// The most layers that a plan may have, so that images on top of it stay below the 127 of overlayfs and the
/// about 70 with which BuildKit can still mount one.
pub const MAX_LAYERS: usize = 64;

/// The layers to add to the base, lowest first, without the environment layer, which is made of the lock alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerPlan {
    /// In the order of the image.
    pub layers: Vec<PlannedLayer>,
}

/// One layer to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedLayer {
    /// For people: the tier, or the package that has it for itself.
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
    /// The packages whose files (not only byte code) are in it, as indices into the lock.
    pub fn packages(&self) -> impl Iterator<Item = usize> {
        self.segments.iter().filter(|segment| segment.kind == SegmentKind::Files).map(|segment| segment.package)
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
    let mut groups = group(lock, policy, inputs.bytecode);
    limit(&mut groups, max_layers - 1);
    let mut layers = Vec::new();
    for group in groups {
        group.into_layers(lock, inputs, &mut layers)?;
    }
    Ok(LayerPlan { layers })
}

/// Packages that share a layer (and a companion, if they have byte code apart).
#[derive(Debug, Clone)]
struct Group {
    name: String,
    tier: usize,
    tier_name: String,
    shared: bool,
    /// Indices into the lock, ascending (that is, by name).
    packages: Vec<usize>,
    bytecode: Vec<usize>,
    companion: bool,
    size: u64,
}

impl Group {
    fn layers(&self) -> usize {
        1 + usize::from(self.companion)
    }

    fn absorb(&mut self, other: Group) {
        self.packages.extend(other.packages);
        self.packages.sort_unstable();
        self.bytecode.extend(other.bytecode);
        self.bytecode.sort_unstable();
        self.companion |= other.companion;
        self.size += other.size;
    }

    fn into_layers(self, lock: &Lock, inputs: &KeyInputs, layers: &mut Vec<PlannedLayer>) -> Result<()> {
        let files = self.packages.iter().map(|&package| Segment::files(lock, package, inputs));
        let bytecode = self.bytecode.iter().map(|&package| Segment::bytecode(lock, package, inputs));
        let mut segments = files.collect::<Result<Vec<_>>>()?;
        let bytecode = bytecode.collect::<Result<Vec<_>>>()?;
        if !self.companion {
            segments.extend(bytecode.iter().cloned());
        }
        layers.push(PlannedLayer {
            key: inputs.layer_key(&segments)?,
            segments,
            archive_size: self.size,
            name: self.name.clone(),
            tier: self.tier_name.clone(),
        });
        if self.companion {
            layers.push(PlannedLayer {
                key: inputs.layer_key(&bytecode)?,
                segments: bytecode,
                archive_size: 0,
                name: format!("{}-bytecode", self.name),
                tier: self.tier_name,
            });
        }
        Ok(())
    }
}

fn group(lock: &Lock, policy: &Policy, bytecode: bool) -> Vec<Group> {
    let tiers = policy.tiers_of(lock);
    let mut groups: Vec<Group> = Vec::new();
    for (index, package) in lock.packages.iter().enumerate() {
        let tier = tiers[index];
        let rule = &policy.tiers[tier];
        let own = package.size() >= policy.own_layer && !rule.together;
        let compiled = (bytecode && package.facts.bytecode).then_some(index);
        let new = Group {
            name: if own { package.name().to_owned() } else { rule.name.clone() },
            tier,
            tier_name: rule.name.clone(),
            shared: !own,
            packages: vec![index],
            bytecode: compiled.into_iter().collect(),
            companion: compiled.is_some() && !rule.together,
            size: package.size(),
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
