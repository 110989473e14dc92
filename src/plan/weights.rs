//! What layers weigh: how large their parts are, and how likely it is that they stay as they are for a week. Pure.
//!
//! What changes as one counts once: packages that were built together, and a package's files and byte code. Byte code
//! changes with Python, too.

use std::collections::{BTreeMap, BTreeSet};

use super::SegmentKind;
use crate::lock::{Lock, Member};
use crate::model::Stability;

/// Compressed byte code by the size of the archive of a Python package: measured on CPython's own library.
pub const BYTECODE_PER_BYTE: u64 = 2;
/// Archives of one build appear within an hour.
const TOGETHER_MS: u64 = 3_600_000;

/// A package's files, or its byte code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Part {
    /// Of which package.
    pub member: Member,
    /// What of it.
    pub kind: SegmentKind,
}

/// A layer as far as its cost goes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Weight {
    /// In bytes.
    pub size: u64,
    /// The probability that it stays as it is for a week.
    pub keeps: f64,
}

/// Something that has releases: one package, or several of one build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Source {
    /// Which; the packages of one build have the same.
    pub id: usize,
    /// How often.
    pub class: Stability,
}

/// What changes the parts of a lock.
#[derive(Debug)]
pub struct Weights<'a> {
    lock: &'a Lock,
    sources: BTreeMap<Member, Source>,
    python: Option<Source>,
}

impl<'a> Weights<'a> {
    /// Of the packages that the lock adds to the base.
    pub fn of(lock: &'a Lock) -> Self {
        // By version and build number, since no others are of one build.
        let mut builds: BTreeMap<(String, u64), Vec<(Member, usize)>> = BTreeMap::new();
        let mut sources: Vec<Source> = Vec::new();
        let mut ids = BTreeMap::new();
        let times = build_times(lock);
        // One build made packages of one version and build number within an hour.
        let near = |one: &Member, other: &Member| {
            times.get(one).zip(times.get(other)).is_some_and(|(one, other)| one.abs_diff(*other) < TOGETHER_MS)
        };
        for member in lock.members() {
            let class = class_of(lock, member);
            let known = builds.entry(version(lock, member)).or_default();
            let build = known.iter().find(|(first, _)| near(first, &member)).map(|(_, id)| *id);
            let id = build.unwrap_or_else(|| {
                known.push((member, sources.len()));
                sources.push(Source { id: sources.len(), class });
                sources.len() - 1
            });
            sources[id].class = sources[id].class.max(class);
            ids.insert(member, id);
        }
        let of_member: BTreeMap<Member, Source> = ids.into_iter().map(|(member, id)| (member, sources[id])).collect();
        let is_python = |member: Member| lock.member_name(member) == "python" && matches!(member, Member::Package(_));
        let own = of_member.iter().find(|(member, _)| is_python(**member)).map(|(_, source)| *source);
        // That of a base changes, too.
        let of_base = || {
            let class = lock.package("python")?.facts.stability.unwrap_or(Stability::UNKNOWN);
            Some(Source { id: sources.len(), class })
        };
        Self { lock, sources: of_member, python: own.or_else(of_base) }
    }

    /// All parts; byte code only where some is made.
    pub fn parts(&self, bytecode: bool) -> impl Iterator<Item = Part> {
        self.lock.members().flat_map(move |member| {
            let compiled = (bytecode && self.lock.member_has_bytecode(member)).then_some(SegmentKind::Bytecode);
            [SegmentKind::Files].into_iter().chain(compiled).map(move |kind| Part { member, kind })
        })
    }

    /// Bytes in a compressed layer: those of the archive, and of byte code an estimate.
    pub fn size(&self, part: Part) -> u64 {
        let size = self.lock.member_size(part.member);
        if part.kind == SegmentKind::Bytecode { size.saturating_mul(BYTECODE_PER_BYTE) } else { size }
    }

    /// Whose releases change a part: its own first, and none twice.
    pub fn sources(&self, part: Part) -> impl Iterator<Item = Source> {
        let own = self.sources.get(&part.member).copied();
        let python = self.python.filter(|_| part.kind == SegmentKind::Bytecode);
        own.into_iter().chain(python.filter(|python| own.is_none_or(|own| own.id != python.id)))
    }

    /// The weight of a layer of these parts.
    pub fn weigh(&self, parts: impl IntoIterator<Item = Part>) -> Weight {
        let mut counted = Counted::default();
        let size = parts.into_iter().fold(0_u64, |size, part| {
            self.sources(part).for_each(|source| counted.add(source));
            size.saturating_add(self.size(part))
        });
        Weight { size, keeps: counted.keeps }
    }
}

/// Several sources, each counted once.
#[derive(Debug, Clone)]
pub struct Counted {
    ids: BTreeSet<usize>,
    /// The probability that a week brings no release of any.
    pub keeps: f64,
}

impl Default for Counted {
    fn default() -> Self {
        Self { ids: BTreeSet::new(), keeps: 1.0 }
    }
}

impl Counted {
    /// Adds one.
    pub fn add(&mut self, source: Source) {
        if self.ids.insert(source.id) {
            self.keeps *= source.class.keeps();
        }
    }
}

/// What orders layers: of two neighbours that change independently, the one with less lies below in the cheapest order of
/// the chain model. (Smith's rule for Σ size × Π keeps: exchanging them shows it.)
pub fn rank(weight: Weight) -> f64 {
    (1.0 - weight.keeps) / (weight.keeps * weight.size.max(1) as f64)
}

/// The class of a member of a lock; what is not known is [`Stability::UNKNOWN`].
pub fn class_of(lock: &Lock, member: Member) -> Stability {
    known_class_of(lock, member).unwrap_or(Stability::UNKNOWN)
}

/// The class of a member of a lock; nothing when it is not known.
pub fn known_class_of(lock: &Lock, member: Member) -> Option<Stability> {
    match member {
        Member::Package(index) => lock.packages[index].facts.stability,
        Member::Wheel(_) => None,
    }
}

/// Version and build number; nothing in common for wheels.
fn version(lock: &Lock, member: Member) -> (String, u64) {
    match member {
        Member::Package(index) => {
            let record = &lock.packages[index].record.package_record;
            (record.version.to_string(), record.build_number)
        }
        Member::Wheel(_) => Default::default(),
    }
}

/// When each package of a lock was built, in milliseconds since 1970; not of times that packages of several versions share to
/// the millisecond: a channel that was made reproducibly gives all its packages one.
fn build_times(lock: &Lock) -> BTreeMap<Member, i64> {
    let mut times = BTreeMap::new();
    let mut of_time: BTreeMap<i64, BTreeSet<(String, u64)>> = BTreeMap::new();
    for member in lock.members() {
        let Member::Package(index) = member else { continue };
        if let Some(time) = &lock.packages[index].record.package_record.timestamp {
            let time = time.jiff_timestamp().as_millisecond();
            of_time.entry(time).or_default().insert(version(lock, member));
            times.insert(member, time);
        }
    }
    times.retain(|_, time| of_time.get(time).is_none_or(|versions| versions.len() < 2));
    times
}
