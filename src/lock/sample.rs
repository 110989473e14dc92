//! Locks for unit tests.

use serde_json::json;

use super::{Lock, LockedPackage, PackageFacts};
use crate::model::Platform;
use crate::util::Digest;

/// A lock with these packages for the default platform.
pub fn lock(packages: Vec<LockedPackage>) -> Lock {
    Lock::of_packages(Platform::default(), packages)
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
