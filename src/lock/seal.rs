//! Seals: digests of the parts of a lock as they were when it was written. A lock that was edited by hand, or merged
//! from two, may name archives that do not fit each other, or facts that are none, and nobody would see it before the
//! image runs.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Lock, LockedPackage, LockedWheel, WheelSource, canonical_channel, canonical_url};
use crate::util::{Digest, Result, json};

/// One digest for each part, so that it can be told which one was edited. They are of what the lock means, not of how
/// it is written: a lock that was moved, or written anew by a newer version of its library, keeps them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Seal {
    asked: Digest,
    target: Digest,
    packages: Digest,
    facts: Digest,
}

impl Seal {
    pub(super) fn of(lock: &Lock) -> Result<Self> {
        let digest = |value: Value| json::canonical(&value).map(Digest::of);
        let facts = lock.packages.iter().map(|package| json!([package.name(), package.facts]));
        let wheel_facts = lock.wheels.iter().map(|wheel| json!([wheel.name, wheel.facts]));
        Ok(Self {
            asked: digest(json!([lock.specs, lock.pip, lock.variables, lock.inputs]))?,
            target: digest(json!([
                lock.platform.lock_name(),
                lock.virtual_packages.iter().map(ToString::to_string).collect::<Vec<_>>(),
                lock.channels.iter().map(|channel| canonical_channel(channel)).collect::<Vec<_>>(),
                lock.base.digest,
                lock.base.facts,
            ]))?,
            packages: digest(json!([
                lock.packages.iter().map(package).collect::<Vec<_>>(),
                lock.wheels.iter().map(wheel).collect::<Vec<_>>(),
            ]))?,
            facts: digest(json!([lock.has_facts, facts.collect::<Vec<_>>(), wheel_facts.collect::<Vec<_>>()]))?,
        })
    }

    /// The parts that are not as they were.
    pub(super) fn broken(&self, lock: &Lock) -> Result<Vec<&'static str>> {
        let now = Self::of(lock)?;
        let parts = [
            ("what it was made from", self.asked == now.asked),
            ("the target, the base or the channels", self.target == now.target),
            ("the packages", self.packages == now.packages),
            ("the facts of packages", self.facts == now.facts),
        ];
        Ok(parts.into_iter().filter(|(_, same)| !same).map(|(part, _)| part).collect())
    }
}

/// What an image depends on, but for the time of the build, which not every form of a lock keeps to the second.
fn package(package: &LockedPackage) -> Value {
    let record = &package.record.package_record;
    // A local one is known by its channel and its name: paths may be written in several ways.
    let url = (package.record.url.scheme() != "file").then(|| canonical_url(&package.record.url));
    json!({
        "name": package.name(),
        "version": record.version.to_string(),
        "build": record.build.to_string(),
        "subdir": record.subdir,
        "file": package.record.identifier.to_string(),
        "url": url,
        "channel": package.record.channel.as_deref().map(canonical_channel),
        "sha256": record.sha256.map(hex::encode),
        "md5": record.md5.map(hex::encode),
        "size": record.size,
        "depends": record.depends,
    })
}

fn wheel(wheel: &LockedWheel) -> Value {
    let source = match &wheel.source {
        WheelSource::Wheel { .. } => json!("wheel"),
        WheelSource::Sdist { sha256, .. } => json!(["sdist", sha256]),
        WheelSource::Git { commit, subdirectory, .. } => json!(["git", commit, subdirectory]),
        WheelSource::Folder { digest, .. } => json!(["folder", digest]),
    };
    json!([wheel.name, wheel.file_name, wheel.sha256, wheel.size, source])
}
