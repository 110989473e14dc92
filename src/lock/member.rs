//! What an environment is made of: conda packages and wheels, as one list of members.

use super::Lock;
use super::planned::rounded;

/// A package of an environment: an index into the lock's packages or wheels. Packages come before wheels, as they are
/// installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Member {
    /// Index into [`Lock::packages`].
    Package(usize),
    /// Index into [`Lock::wheels`].
    Wheel(usize),
}

impl Lock {
    /// All members that the base does not have already, packages first: what the image's layers are made of.
    pub fn members(&self) -> impl Iterator<Item = Member> + use<'_> {
        let new = |index: &usize| !self.is_of_base(self.packages[*index].name());
        let packages = (0..self.packages.len()).filter(new).map(Member::Package);
        let new = |index: &usize| !self.is_wheel_of_base(&self.wheels[*index].name);
        packages.chain((0..self.wheels.len()).filter(new).map(Member::Wheel))
    }

    /// The normalised name; a package and a wheel may have the same.
    pub fn member_name(&self, member: Member) -> &str {
        match member {
            Member::Package(index) => self.packages[index].name(),
            Member::Wheel(index) => &self.wheels[index].name,
        }
    }

    /// `name-version-build` of a package, `name-version` of a wheel.
    pub fn member_full_name(&self, member: Member) -> String {
        match member {
            Member::Package(index) => self.packages[index].full_name(),
            Member::Wheel(index) => self.wheels[index].full_name(),
        }
    }

    /// Size of the archive or wheel in bytes; 0 when nobody says.
    pub fn member_size(&self, member: Member) -> u64 {
        match member {
            Member::Package(index) => self.packages[index].size(),
            Member::Wheel(index) => self.wheels[index].size,
        }
    }

    /// The size in bytes that the layer plan counts: a power of two.
    pub fn member_planned_size(&self, member: Member) -> u64 {
        let kept = match member {
            Member::Package(index) => self.packages[index].facts.planned_size,
            Member::Wheel(_) => None,
        };
        kept.unwrap_or_else(|| rounded(self.member_size(member)))
    }

    /// Whether byte code is made for a member.
    pub fn member_has_bytecode(&self, member: Member) -> bool {
        match member {
            Member::Package(index) => self.packages[index].facts.bytecode,
            Member::Wheel(index) => self.wheels[index].facts.bytecode,
        }
    }
}
