//! Keys: what the bytes of segments and layers depend on. Nothing outside a key may reach the bytes.

use std::collections::{BTreeMap, BTreeSet};

use rattler::install::PythonInfo;
use serde::Serialize;

use crate::lock::{Lock, LockedPackage, LockedWheel, Member, canonical_channel, canonical_url, python_info};
use crate::model::{Folders, LAYOUT_VERSION};
use crate::util::{Digest, Result};

/// What keys depend on beside the package.
#[derive(Debug, Clone)]
pub struct KeyInputs {
    /// The prefix as programs in the image see it.
    pub prefix: String,
    /// Where it lies in the tar, the base's links resolved.
    pub root: String,
    /// Directories and symlinks of the base along the prefix that are not as usual.
    pub folders: Folders,
    /// Codec, level, library and chunking, as `pack` names them.
    pub codec: String,
    /// Whether the group may write.
    pub group_write: bool,
    /// Whether files of packages keep their setuid and setgid bits. Those of wheels have none.
    pub keep_setuid: bool,
    /// Whether byte code is made.
    pub bytecode: bool,
    /// The environment's Python.
    pub python: Option<PythonInfo>,
    /// The archive of that Python, on whose exact version byte code depends.
    pub python_archive: Option<Digest>,
}

/// A package's files, or its byte code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SegmentKind {
    /// Its files and conda-meta record.
    Files,
    /// The `.pyc` made for it.
    Bytecode,
}

/// A run of tar entries of one package or wheel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// What it is made of.
    pub member: Member,
    /// Which of the package's segments.
    pub kind: SegmentKind,
    /// What its bytes depend on.
    pub key: Digest,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct SegmentInputs<'a> {
    layout_version: u32,
    kind: &'static str,
    archive: Digest,
    prefix: &'a str,
    root: &'a str,
    /// Symlinks of the base below the root, through which files are placed.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    symlinks: &'a BTreeMap<String, String>,
    codec: &'a str,
    group_write: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    keep_setuid: bool,
    left_out: BTreeSet<&'a str>,
    /// Python's place in the prefix, for packages whose files go there.
    site_packages: Option<String>,
    interpreter: Option<String>,
    python: Option<Digest>,
    /// What the lock contributes to the conda-meta record.
    record: Option<Digest>,
}

#[derive(Serialize)]
struct RecordInputs<'a> {
    file_name: String,
    url: String,
    channel: Option<String>,
    size: Option<u64>,
    md5: Option<String>,
    timestamp: Option<i64>,
    name: &'a str,
    subdir: &'a str,
}

/// What a wheel's segments depend on; in the place of [`SegmentInputs`].
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct WheelInputs<'a> {
    layout_version: u32,
    kind: &'static str,
    wheel: Digest,
    file_name: &'a str,
    prefix: &'a str,
    root: &'a str,
    /// Symlinks of the base below the root, through which files are placed.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    symlinks: &'a BTreeMap<String, String>,
    codec: &'a str,
    group_write: bool,
    left_out: BTreeSet<&'a str>,
    /// Left out, but named in RECORD.
    shared: &'a BTreeSet<String>,
    site_packages: Option<String>,
    interpreter: Option<String>,
    python: Option<Digest>,
    /// `direct_url.json` (PEP 610).
    direct_url: Option<String>,
}

impl Segment {
    pub(super) fn files(lock: &Lock, member: Member, inputs: &KeyInputs) -> Result<Self> {
        let kind = SegmentKind::Files;
        let key = match member {
            Member::Package(index) => {
                let package = &lock.packages[index];
                let noarch = package.record.package_record.noarch.is_python();
                inputs.segment_key(package, kind, noarch)?
            }
            Member::Wheel(index) => inputs.wheel_key(&lock.wheels[index], kind)?,
        };
        Ok(Self { member, kind, key })
    }

    pub(super) fn bytecode(lock: &Lock, member: Member, inputs: &KeyInputs) -> Result<Self> {
        let kind = SegmentKind::Bytecode;
        let key = match member {
            Member::Package(index) => inputs.segment_key(&lock.packages[index], kind, true)?,
            Member::Wheel(index) => inputs.wheel_key(&lock.wheels[index], kind)?,
        };
        Ok(Self { member, kind, key })
    }
}

impl SegmentKind {
    fn name(self) -> &'static str {
        match self {
            Self::Files => "files",
            Self::Bytecode => "bytecode",
        }
    }
}

impl KeyInputs {
    fn wheel_key(&self, wheel: &LockedWheel, kind: SegmentKind) -> Result<Digest> {
        let is_bytecode = kind == SegmentKind::Bytecode;
        digest(&WheelInputs {
            layout_version: LAYOUT_VERSION,
            kind: if is_bytecode { "wheel-bytecode" } else { "wheel-files" },
            wheel: wheel.sha256,
            file_name: &wheel.file_name,
            prefix: &self.prefix,
            root: &self.root,
            symlinks: self.folders.symlinks(),
            codec: &self.codec,
            group_write: self.group_write,
            left_out: wheel.facts.left_out(),
            shared: &wheel.facts.shared,
            site_packages: self.python.as_ref().map(|python| python.site_packages_path.display().to_string()),
            interpreter: self.python.as_ref().map(|python| python.path.display().to_string()),
            python: self.python_archive.filter(|_| is_bytecode),
            direct_url: if is_bytecode { None } else { wheel.direct_url()? },
        })
    }

    fn segment_key(&self, package: &LockedPackage, kind: SegmentKind, in_python: bool) -> Result<Digest> {
        let python = self.python.as_ref().filter(|_| in_python);
        let is_bytecode = kind == SegmentKind::Bytecode;
        digest(&SegmentInputs {
            layout_version: LAYOUT_VERSION,
            kind: kind.name(),
            archive: package.sha256()?,
            prefix: &self.prefix,
            root: &self.root,
            symlinks: self.folders.symlinks(),
            codec: &self.codec,
            group_write: self.group_write,
            keep_setuid: self.keep_setuid && !is_bytecode,
            left_out: package.facts.left_out(),
            site_packages: python.map(|python| python.site_packages_path.display().to_string()),
            interpreter: python.map(|python| python.path.display().to_string()),
            python: self.python_archive.filter(|_| is_bytecode),
            record: if is_bytecode { None } else { Some(record_digest(package)?) },
        })
    }

    pub(super) fn layer_key(&self, segments: &[Segment]) -> Result<Digest> {
        let keys: Vec<Digest> = segments.iter().map(|segment| segment.key).collect();
        let inputs = ("layer", LAYOUT_VERSION, &self.root, &self.codec, self.group_write, keys);
        match self.folders.is_empty() {
            true => digest(&inputs),
            false => digest(&(inputs, &self.folders)),
        }
    }
}

fn record_digest(package: &LockedPackage) -> Result<Digest> {
    let record = &package.record;
    digest(&RecordInputs {
        file_name: record.identifier.to_string(),
        url: canonical_url(&record.url).to_string(),
        channel: record.channel.as_deref().map(canonical_channel),
        size: record.package_record.size,
        md5: record.package_record.md5.map(hex::encode),
        timestamp: record.package_record.timestamp.as_ref().map(|time| time.jiff_timestamp().as_millisecond()),
        name: package.name(),
        subdir: &record.package_record.subdir,
    })
}

fn digest(value: &impl Serialize) -> Result<Digest> {
    crate::util::json::canonical(value).map(Digest::of)
}

/// The Python of an environment, which decides where noarch packages go.
///
/// # Errors
/// A `python` package with a version that is none.
pub fn python_of(lock: &Lock) -> Result<Option<(PythonInfo, Digest)>> {
    let Some(python) = lock.package("python") else { return Ok(None) };
    let record = &python.record.package_record;
    let info = python_info(record, lock.platform.subdir)?;
    // Not every client notes the hash of what it installed into a base.
    let archive = match lock.is_of_base(python.name()) {
        true => {
            python.sha256().unwrap_or_else(|_| Digest::of(format!("{}\n{}\n", python.full_name(), python.record.url)))
        }
        false => python.sha256()?,
    };
    Ok(Some((info, archive)))
}

#[cfg(test)]
mod tests {
    use rattler_conda_types::Subdir;

    use super::*;
    use crate::lock::{WheelFacts, WheelSource};

    fn python(version: &str, site_packages: Option<&str>) -> PythonInfo {
        let version = version.parse().expect("a version");
        PythonInfo::from_version(&version, site_packages, Subdir::Linux64).expect("a Python")
    }

    fn inputs() -> KeyInputs {
        KeyInputs {
            prefix: "/opt/env".to_owned(),
            root: "opt/env".to_owned(),
            folders: Folders::default(),
            codec: "gzip".to_owned(),
            group_write: false,
            keep_setuid: false,
            bytecode: true,
            python: Some(python("3.11.2", None)),
            python_archive: Some(Digest::of("python 3.11.2")),
        }
    }

    fn wheel() -> LockedWheel {
        LockedWheel {
            name: "foo".to_owned(),
            version: "1.0".to_owned(),
            file_name: "foo-1.0-py3-none-any.whl".to_owned(),
            sha256: Digest::of("foo"),
            size: 1,
            source: WheelSource::Wheel { url: "https://files.example/foo.whl".parse().expect("a URL") },
            index: Some("https://pypi.example/simple".parse().expect("a URL")),
            requires_dist: Vec::new(),
            requires_python: None,
            facts: WheelFacts::default(),
        }
    }

    fn keys(wheel: &LockedWheel, inputs: &KeyInputs) -> [Digest; 2] {
        [SegmentKind::Files, SegmentKind::Bytecode].map(|kind| inputs.wheel_key(wheel, kind).expect("a key"))
    }

    #[test]
    fn what_reaches_a_wheels_bytes_is_in_its_keys() {
        let known = keys(&wheel(), &inputs());
        assert_ne!(known[0], known[1]);
        let wheels: [fn(&mut LockedWheel); 3] = [
            |wheel| wheel.sha256 = Digest::of("bar"),
            |wheel| wheel.facts.clobbered.extend([("x".to_owned(), "bar".to_owned())]),
            |wheel| wheel.facts.shared.extend(["x".to_owned()]),
        ];
        for (index, change) in wheels.into_iter().enumerate() {
            let mut other = wheel();
            change(&mut other);
            let changed = keys(&other, &inputs());
            assert!(changed[0] != known[0] && changed[1] != known[1], "wheel {index}");
        }
        let places: [fn(&mut KeyInputs); 6] = [
            |inputs| inputs.prefix = "/opt/other".to_owned(),
            |inputs| inputs.root = "usr/opt/env".to_owned(),
            |inputs| inputs.codec = "zstd".to_owned(),
            |inputs| inputs.group_write = true,
            |inputs| inputs.python = Some(python("3.12.0", None)),
            |inputs| inputs.python = Some(python("3.11.2", Some("lib/other/site-packages"))),
        ];
        for (index, change) in places.into_iter().enumerate() {
            let mut other = inputs();
            change(&mut other);
            let changed = keys(&wheel(), &other);
            assert!(changed[0] != known[0] && changed[1] != known[1], "place {index}");
        }
    }

    #[test]
    fn what_does_not_reach_a_wheels_bytes_is_not_in_its_keys() {
        let known = keys(&wheel(), &inputs());
        // Whom else it wins against, or which index lists it; a patch release of Python moves no files.
        let mirrored = LockedWheel { index: Some("https://mirror.example/simple".parse().expect("a URL")), ..wheel() };
        assert_eq!(keys(&mirrored, &inputs()), known);
        let patched = KeyInputs { python_archive: Some(Digest::of("python 3.11.3")), ..inputs() };
        let changed = keys(&wheel(), &patched);
        assert!(changed[0] == known[0] && changed[1] != known[1]);
        // Where a direct reference came from is told in the image, but not in its byte code.
        let direct = LockedWheel { index: None, ..wheel() };
        let changed = keys(&direct, &inputs());
        assert!(changed[0] != known[0] && changed[1] == known[1]);
    }
}
