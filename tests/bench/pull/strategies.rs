//! Ways to cut an environment into layers: others' as published, and condaimg's.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use condaimg::lock::{Lock, Member};
use condaimg::plan::weights::{self, BYTECODE_PER_BYTE, Weights, class_of, rank};
use condaimg::plan::{KeyInputs, Policy, SegmentKind, plan, python_of};
use condaimg::util::{Digest, Result};

/// A layer: what its bytes depend on, and how many they are.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Layer {
    pub id: u64,
    pub size: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Strategy {
    Single,
    Tiers,
    Popularity,
    Apko,
    Chunkah,
    Sizes,
    Ours,
    Shared,
    Bound,
}

impl Strategy {
    pub const ALL: [Self; 9] = [
        Self::Single,
        Self::Tiers,
        Self::Popularity,
        Self::Apko,
        Self::Chunkah,
        Self::Sizes,
        Self::Ours,
        Self::Shared,
        Self::Bound,
    ];
    /// What ours is compared with.
    pub const OTHERS: [Self; 5] = [Self::Single, Self::Tiers, Self::Popularity, Self::Apko, Self::Chunkah];

    pub fn name(self) -> &'static str {
        match self {
            Self::Single => "single layer",
            Self::Tiers => "three tiers",
            Self::Popularity => "popularity top-k",
            Self::Apko => "apko-like",
            Self::Chunkah => "chunkah-like",
            Self::Sizes => "`tiers` (ours)",
            Self::Ours => "`default` (ours)",
            Self::Shared => "`shared` (ours)",
            Self::Bound => "per package, no limit",
        }
    }

    /// The layers of packages, lowest first, when the image may have `budget` with its environment layer.
    pub fn layers(self, lock: &Lock, budget: usize) -> Result<Vec<Layer>> {
        let most = budget - 1;
        let groups = match self {
            Self::Single => vec![members(lock)],
            Self::Tiers => return planned(lock, &with_tiers_together()?, budget),
            Self::Sizes => return planned(lock, &with_sizes()?, budget),
            Self::Ours => return planned(lock, &Policy::named("default")?, budget),
            Self::Shared => return planned(lock, &Policy::named("shared")?, budget),
            Self::Popularity => top(by_popularity(lock), most),
            Self::Apko => top(by_origin(lock), most),
            Self::Chunkah => greedy(lock, most),
            Self::Bound => return Ok(bound(lock)),
        };
        Ok(groups.iter().map(|group| layer(lock, group.iter().flat_map(|&member| parts(lock, member)))).collect())
    }
}

/// One part of a package: files, or byte code.
type Part = (Member, SegmentKind);

fn parts(lock: &Lock, member: Member) -> impl Iterator<Item = Part> {
    let bytecode = lock.member_has_bytecode(member).then_some((member, SegmentKind::Bytecode));
    [(member, SegmentKind::Files)].into_iter().chain(bytecode)
}

fn layer(lock: &Lock, parts: impl Iterator<Item = Part>) -> Layer {
    let mut content = BTreeSet::new();
    let mut size = 0;
    for (member, kind) in parts {
        let Member::Package(index) = member else { continue };
        let url = lock.packages[index].record.url.as_str();
        if kind == SegmentKind::Files {
            size += lock.member_size(member);
            content.insert(url.to_owned());
        } else {
            size += lock.member_size(member) * BYTECODE_PER_BYTE;
            let python = lock.package("python").map_or("", |python| python.record.url.as_str());
            content.insert(format!("{url} compiled by {python}"));
        }
    }
    let hex = Digest::of(format!("{content:?}")).hex();
    Layer { id: u64::from_str_radix(&hex[..16], 16).unwrap_or_default(), size }
}

fn members(lock: &Lock) -> Vec<Member> {
    lock.members().collect()
}

fn with_sizes() -> Result<Policy> {
    Policy::named("tiers")
}

fn with_tiers_together() -> Result<Policy> {
    let mut policy = with_sizes()?;
    policy.tiers.iter_mut().for_each(|tier| tier.together = true);
    Ok(policy)
}

/// As condaimg plans it.
fn planned(lock: &Lock, policy: &Policy, budget: usize) -> Result<Vec<Layer>> {
    let python = python_of(lock)?;
    let inputs = KeyInputs {
        prefix: "/opt/env".to_owned(),
        root: "opt/env".to_owned(),
        folders: condaimg::model::Folders::default(),
        codec: "gzip".to_owned(),
        group_write: false,
        bytecode: true,
        python_archive: python.as_ref().map(|(_, archive)| *archive),
        python: python.map(|(info, _)| info),
    };
    let plan = plan(lock, policy, budget, &inputs)?;
    let layers = plan.layers.iter();
    Ok(layers.map(|it| layer(lock, it.segments.iter().map(|segment| (segment.member, segment.kind)))).collect())
}

/// The first `most - 1` groups as they are, all others in one.
fn top(groups: Vec<Vec<Member>>, most: usize) -> Vec<Vec<Member>> {
    let mut groups = groups.into_iter();
    let mut layers: Vec<Vec<Member>> = groups.by_ref().take(most - 1).collect();
    let rest: Vec<Member> = groups.flatten().collect();
    layers.extend((!rest.is_empty()).then_some(rest));
    layers
}

/// nixpkgs: packages by how many others need them, directly or not, most first.
fn by_popularity(lock: &Lock) -> Vec<Vec<Member>> {
    let mut needed: HashMap<&str, usize> = HashMap::new();
    for package in &lock.packages {
        lock.closure([package.name()]).into_iter().for_each(|name| *needed.entry(name).or_default() += 1);
    }
    let mut all = members(lock);
    all.sort_by_key(|&member| {
        let name = lock.member_name(member);
        (std::cmp::Reverse(needed.get(name).copied().unwrap_or(0)), name.to_owned())
    });
    all.into_iter().map(|member| vec![member]).collect()
}

/// apko: packages of one source together (here: one version and build number, names of one stem), largest first.
fn by_origin(lock: &Lock) -> Vec<Vec<Member>> {
    let mut origins: BTreeMap<String, Vec<Member>> = BTreeMap::new();
    for member in lock.members() {
        let Member::Package(index) = member else { continue };
        let record = &lock.packages[index].record.package_record;
        let name = lock.member_name(member);
        let stem = name.trim_start_matches("lib").trim_end_matches("-ng");
        let stem = if ["gcc", "gomp", "stdcxx"].contains(&stem) { "gcc" } else { stem };
        origins.entry(format!("{stem} {} {}", record.version, record.build_number)).or_default().push(member);
    }
    let mut groups: Vec<_> = origins.into_iter().collect();
    let size = |group: &[Member]| group.iter().map(|&member| lock.member_size(member)).sum::<u64>();
    groups.sort_by(|(a_name, a), (b_name, b)| size(b).cmp(&size(a)).then_with(|| a_name.cmp(b_name)));
    groups.into_iter().map(|(_, group)| group).collect()
}

/// chunkah: joins the two groups that lose least of Σ size × stability, until the limit holds; most stable first.
/// Stability is that of the classes, as for ours.
fn greedy(lock: &Lock, most: usize) -> Vec<Vec<Member>> {
    let one = |member: Member| {
        let bytecode = if lock.member_has_bytecode(member) { BYTECODE_PER_BYTE } else { 0 };
        let class = class_of(lock, member);
        ((lock.member_size(member) * (1 + bytecode)) as f64, class.keeps(), vec![member])
    };
    let mut groups: Vec<(f64, f64, Vec<Member>)> = lock.members().map(one).collect();
    while groups.len() > most {
        let mut least = (f64::INFINITY, 0, 0);
        for a in 0..groups.len() {
            for b in a + 1..groups.len() {
                let ((size_a, keeps_a, _), (size_b, keeps_b, _)) = (&groups[a], &groups[b]);
                let loss = size_a * keeps_a + size_b * keeps_b - (size_a + size_b) * keeps_a * keeps_b;
                if loss < least.0 {
                    least = (loss, a, b);
                }
            }
        }
        let (size, keeps, members) = groups.remove(least.2);
        let into = &mut groups[least.1];
        into.0 += size;
        into.1 *= keeps;
        into.2.extend(members);
    }
    groups.sort_by(|a, b| b.1.total_cmp(&a.1));
    groups.into_iter().map(|(_, _, members)| members).collect()
}

/// Every part by itself, in the order that is cheapest in the chain model as far as they change independently.
fn bound(lock: &Lock) -> Vec<Layer> {
    let weights = Weights::of(lock);
    let mut all: Vec<Part> = lock.members().flat_map(|member| parts(lock, member)).collect();
    let rank = |&(member, kind): &Part| rank(weights.weigh([weights::Part { member, kind }]));
    all.sort_by(|a, b| rank(a).total_cmp(&rank(b)));
    all.into_iter().map(|part| layer(lock, [part].into_iter())).collect()
}
