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
        let mut builds: Vec<(Member, Source)> = Vec::new();
        let mut ids = Vec::new();
        for member in lock.members() {
            let class = class_of(lock, member).unwrap_or(Stability::UNKNOWN);
            let build = builds.iter_mut().position(|(first, _)| built_as_one(lock, *first, member));
            let build = build.unwrap_or_else(|| {
                builds.push((member, Source { id: builds.len(), class }));
                builds.len() - 1
            });
            builds[build].1.class = builds[build].1.class.max(class);
            ids.push((member, build));
        }
        let sources: BTreeMap<Member, Source> = ids.into_iter().map(|(member, id)| (member, builds[id].1)).collect();
        // That of a base changes, too.
        let of_base = |lock: &Lock| {
            let python = lock.package("python")?;
            Some(Source { id: builds.len(), class: python.facts.stability.unwrap_or(Stability::UNKNOWN) })
        };
        let own = sources.iter().find(|(member, _)| lock.member_name(**member) == "python" && is_package(**member));
        let python = own.map(|(_, source)| *source).or_else(|| of_base(lock));
        Self { lock, sources, python }
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

    /// Whose releases change a part.
    pub fn sources(&self, part: Part) -> impl Iterator<Item = Source> {
        let python = self.python.filter(|_| part.kind == SegmentKind::Bytecode);
        self.sources.get(&part.member).copied().into_iter().chain(python)
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

/// Releases of several sources, each counted once.
#[derive(Debug, Clone)]
pub struct Counted {
    ids: BTreeSet<usize>,
    /// The probability that a week brings none.
    pub keeps: f64,
    /// How many a year brings.
    pub releases: f64,
}

impl Default for Counted {
    fn default() -> Self {
        Self { ids: BTreeSet::new(), keeps: 1.0, releases: 0.0 }
    }
}

impl Counted {
    /// Adds one.
    pub fn add(&mut self, source: Source) {
        if self.ids.insert(source.id) {
            self.keeps *= source.class.keeps();
            self.releases += source.class.releases_per_year();
        }
    }
}

/// The class of a member of a lock; nothing when it is not known.
pub fn class_of(lock: &Lock, member: Member) -> Option<Stability> {
    match member {
        Member::Package(index) => lock.packages[index].facts.stability,
        Member::Wheel(_) => None,
    }
}

fn is_package(member: Member) -> bool {
    matches!(member, Member::Package(_))
}

/// Whether one build made two packages: same version and build number, within an hour.
fn built_as_one(lock: &Lock, one: Member, other: Member) -> bool {
    let (Member::Package(one), Member::Package(other)) = (one, other) else { return false };
    let [one, other] = [one, other].map(|index| &lock.packages[index].record.package_record);
    let times = one.timestamp.as_ref().zip(other.timestamp.as_ref());
    let near = times.is_some_and(|(one, other)| {
        let [one, other] = [one, other].map(|time| time.jiff_timestamp().as_millisecond());
        one.abs_diff(other) < TOGETHER_MS
    });
    near && one.version == other.version && one.build_number == other.build_number
}
