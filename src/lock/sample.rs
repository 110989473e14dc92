//! Locks for unit tests.

use std::collections::BTreeMap;

use serde_json::json;

use super::{Lock, LockedBase, LockedPackage, PackageFacts};
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

/// A package of so many bytes, of which nothing else is known.
pub fn package(name: &str, version: &str, size: u64) -> LockedPackage {
    let file = format!("{name}-{version}-0.conda");
    let record = json!({
        "name": name, "version": version, "build": "0", "build_number": 0, "subdir": "linux-64", "depends": [],
        "size": size, "sha256": Digest::of(&file).hex(), "fn": file, "channel": "https://channel.example/c",
        "url": format!("https://channel.example/c/linux-64/{file}"),
    });
    LockedPackage { record: serde_json::from_value(record).expect("a record"), facts: PackageFacts::default() }
}
