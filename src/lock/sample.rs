//! Locks for unit tests.

use std::collections::BTreeMap;

use super::{Lock, LockedBase, LockedPackage};
use crate::model::{BaseFacts, Platform};
use crate::util::Digest;

/// A lock with these packages, on nothing, that says nothing else.
pub fn lock(packages: Vec<LockedPackage>) -> Lock {
    Lock {
        inputs: None,
        platform: Platform::default(),
        channels: Vec::new(),
        virtual_packages: Vec::new(),
        specs: Vec::new(),
        pip: Vec::new(),
        wheels: Vec::new(),
        variables: BTreeMap::new(),
        base: LockedBase {
            reference: "scratch".to_owned(),
            digest: Digest::of("nothing"),
            facts: BaseFacts::default(),
            environment: None,
            documents: None,
        },
        packages,
        has_facts: true,
        edited: Vec::new(),
        interpreters: BTreeMap::new(),
    }
}
