//! A lock of an image that extends another one: which of the environment's packages are in the base already. The lock
//! holds the whole environment, since that is what is in the image; only what the base lacks is packed.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{Lock, RESERVED_VARIABLES, UNSET};
use crate::util::{Digest, yaml};

/// The environment that a base image brings and that the lock's own packages are added to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct BaseEnvironment {
    /// Where it lies in the image; absolute, without a trailing slash.
    pub prefix: String,
    /// The lock that the base was made from, by its digest. Nothing when its conda-meta records say what it brings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock: Option<Digest>,
    /// The channels that it was made from, without credentials; nothing when it does not say.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub channels: Vec<String>,
    /// What was asked for when it was made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub specs: Vec<String>,
    /// Its `variables:`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub variables: BTreeMap<String, String>,
    /// Whether the group may write to it, and so to what is added.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub group_write: bool,
    /// The names of the lock's packages that are in it.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub packages: BTreeSet<String>,
    /// The names of the lock's wheels that are in it.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub wheels: BTreeSet<String>,
    /// What pip installed into it, of which only name (PEP 503) and version are known.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub distributions: BTreeMap<String, String>,
    /// Its byte code (by path in the prefix) of modules that new packages and wheels replace: the image does not have it.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub removed: BTreeSet<String>,
}

/// What a lock that goes with an image says of where and how its environment was written: the part of
/// [`crate::model::Parameters`] that counts for what is added to it.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ParametersOfImage {
    /// Where the environment lies.
    pub prefix: String,
    /// Whether the group may write to it.
    pub group_write: bool,
}

/// Reads them from the text of a lock; nothing when it goes with no image.
pub fn parameters_of_image(text: &str) -> Option<ParametersOfImage> {
    #[derive(Deserialize)]
    struct Document {
        condaimg: Extension,
    }
    #[derive(Deserialize)]
    struct Extension {
        parameters: ParametersOfImage,
    }
    yaml::check(text).ok()?;
    serde_yaml::from_str::<Document>(text).ok().map(|document| document.condaimg.parameters)
}

impl Lock {
    /// The environment that is extended, if one is.
    pub fn extended(&self) -> Option<&BaseEnvironment> {
        self.base.environment.as_ref()
    }

    /// Whether the base has the package with this normalised name.
    pub fn is_of_base(&self, name: &str) -> bool {
        self.extended().is_some_and(|base| base.packages.contains(name))
    }

    /// Whether the base has the wheel with this normalised name.
    pub fn is_wheel_of_base(&self, name: &str) -> bool {
        self.extended().is_some_and(|base| base.wheels.contains(name))
    }

    /// What the image does not have of the base, by path in the prefix.
    pub fn removed(&self) -> Option<&BTreeSet<String>> {
        self.extended().map(|base| &base.removed).filter(|removed| !removed.is_empty())
    }

    /// What was asked for of the whole environment: of the base, then of what is added.
    pub fn all_specs(&self) -> Vec<&str> {
        let of_base = self.extended().map(|base| base.specs.as_slice()).unwrap_or_default();
        let mut specs: Vec<&str> = Vec::with_capacity(of_base.len() + self.specs.len());
        for spec in of_base.iter().chain(&self.specs) {
            if !specs.contains(&spec.as_str()) {
                specs.push(spec);
            }
        }
        specs
    }

    /// The `variables:` of the whole environment: those of the base, and before them the lock's own. Without those that
    /// conda reserves, and those that are marked as removed.
    pub fn all_variables(&self) -> BTreeMap<String, String> {
        let mut variables = self.extended().map(|base| base.variables.clone()).unwrap_or_default();
        variables.extend(self.variables.clone());
        usable(variables)
    }

    /// The lock's own `variables:`, as [`Self::all_variables`] has them.
    pub fn own_variables(&self) -> BTreeMap<String, String> {
        usable(self.variables.clone())
    }
}

fn usable(mut variables: BTreeMap<String, String>) -> BTreeMap<String, String> {
    variables.retain(|name, value| !RESERVED_VARIABLES.contains(&name.as_str()) && value != UNSET);
    variables
}
