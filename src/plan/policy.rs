//! Layer policies: the rules of `layers/*.yaml`.

use serde::{Deserialize, Serialize};

use super::is_noarch;
use crate::lock::{Lock, Member};
use crate::util::{Error, Result};

/// The policies that are compiled in, by name.
const SHIPPED: [(&str, &str); 1] = [("default", include_str!("../../layers/default.yaml"))];

/// How packages are put into layers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Policy {
    /// Lowest first. The last one takes what no other takes.
    pub tiers: Vec<Tier>,
    /// Packages with an archive of at least so many bytes get a layer of their own.
    pub own_layer: u64,
}

/// A group of packages with one place in the stack.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Tier {
    /// The name, which is also its shared layer's.
    pub name: String,
    /// Packages that belong here together with all that they depend on.
    pub closure_of: Vec<String>,
    /// Globs (`*`, `?`, `[...]`) of package names.
    pub packages: Vec<String>,
    /// Packages that are built for a platform (not noarch) and have an archive of at least so many bytes.
    pub larger_than: Option<u64>,
    /// All of the tier in one layer, byte code and large packages too.
    pub together: bool,
}

impl Policy {
    /// A shipped policy.
    ///
    /// # Errors
    /// A name that is not shipped.
    pub fn named(name: &str) -> Result<Self> {
        let known = || SHIPPED.map(|(name, _)| name).join(", ");
        let (_, yaml) = SHIPPED.iter().find(|(shipped, _)| *shipped == name).ok_or_else(|| {
            Error::usage(format!("there is no layer policy `{name}`"))
                .hint(format!("use one of {}, or the path of a file", known()))
        })?;
        Self::parse(yaml, name)
    }

    /// Reads a policy; `origin` names it in errors.
    ///
    /// # Errors
    /// What is wrong with it, with line and column.
    pub fn parse(yaml: &str, origin: &str) -> Result<Self> {
        let wrong = |what: String| {
            Error::user(format!("the layer policy `{origin}` {what}"))
                .hint("`layers/default.yaml` in condaimg's sources shows how one is written")
        };
        let policy: Self = serde_yaml::from_str(yaml).map_err(|error| wrong(format!("is wrong: {error}")))?;
        if policy.tiers.is_empty() {
            return Err(wrong("has no tiers".to_owned()));
        }
        for pattern in policy.tiers.iter().flat_map(|tier| &tier.packages) {
            glob::Pattern::new(pattern)
                .map_err(|error| wrong(format!("has a wrong pattern `{pattern}`")).caused_by(error))?;
        }
        Ok(policy)
    }

    /// The canonical text, which is recorded in the parameters.
    ///
    /// # Errors
    /// Never for a policy that was parsed.
    pub fn canonical(&self) -> Result<String> {
        let json = crate::util::json::canonical(self)?;
        String::from_utf8(json).map_err(|error| Error::bug("canonical JSON is not UTF-8").caused_by(error))
    }

    /// The tier of each member of the lock, in the order of [`Lock::members`].
    pub(super) fn tiers_of(&self, lock: &Lock) -> Vec<usize> {
        let last = self.tiers.len().saturating_sub(1);
        let closures: Vec<_> =
            self.tiers.iter().map(|tier| lock.closure(tier.closure_of.iter().map(String::as_str))).collect();
        let takes = |tier: usize, member: Member| {
            let rule = &self.tiers[tier];
            let name = lock.member_name(member);
            let (in_closure, noarch) = match member {
                Member::Package(index) => {
                    (closures[tier].contains(name), is_noarch(&lock.packages[index].record.package_record.subdir))
                }
                Member::Wheel(index) => (false, lock.wheels[index].is_pure()),
            };
            in_closure
                || rule.packages.iter().any(|glob| matches(glob, name))
                || rule.larger_than.is_some_and(|size| lock.member_size(member) >= size && !noarch)
        };
        lock.members().map(|member| (0..last).find(|&tier| takes(tier, member)).unwrap_or(last)).collect()
    }
}

fn matches(pattern: &str, name: &str) -> bool {
    glob::Pattern::new(pattern).is_ok_and(|pattern| pattern.matches(name))
}
