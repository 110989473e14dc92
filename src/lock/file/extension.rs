//! The `condaimg:` key of a lock: what the format of pixi.lock lacks.

use std::collections::BTreeMap;

use rattler_conda_types::Subdir;
use serde::{Deserialize, Serialize};

use crate::lock::seal::Seal;
use crate::lock::{Inputs, LockedBase, PackageFacts, interpreter, pypi};
use crate::model::Parameters;
use crate::util::Digest;

/// What is said here, and as the channels of the environment, holds for the platforms that say nothing else.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Extension {
    pub(super) version: u32,
    pub(super) layout_version: u32,
    /// Where locks of one platform once had a digest of them, which is as good as nothing.
    #[serde(default, skip_serializing, rename = "inputs")]
    pub(super) _inputs: Option<Digest>,
    pub(super) specs: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) pip: Vec<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) variables: BTreeMap<String, String>,
    /// By [`crate::model::Platform::lock_name`].
    pub(super) platforms: BTreeMap<String, PlatformExtension>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) parameters: Option<Parameters>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct PlatformExtension {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) inputs: Option<SaidInputs>,
    /// Older locks, and those of images, have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) seal: Option<Seal>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) channels: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) specs: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) pip: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) variables: Option<BTreeMap<String, String>>,
    pub(super) base: LockedBase,
    pub(super) virtual_packages: Vec<String>,
    /// Whether the archives were not read: what they tell is still to be found out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) facts_at_first_build: bool,
    /// By package name; packages without facts worth a line are left out.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) facts: BTreeMap<String, PackageFacts>,
    /// By normalised name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) wheels: BTreeMap<String, pypi::Entry>,
    /// By the builder's subdir.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) interpreters: BTreeMap<Subdir, Vec<interpreter::Entry>>,
}

/// Locks once had a digest of the inputs, which tells nobody what changed: they are stale.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum SaidInputs {
    Whole(Inputs),
    Digest(Digest),
}

impl SaidInputs {
    pub(super) fn whole(self) -> Option<Inputs> {
        match self {
            Self::Whole(inputs) => Some(inputs),
            Self::Digest(_) => None,
        }
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct ExtensionDocument {
    pub(super) condaimg: Extension,
}
