//! Keys: what the bytes of segments and layers depend on. Nothing outside a key may reach the bytes.

use std::collections::BTreeSet;

use rattler::install::PythonInfo;
use serde::Serialize;

use crate::lock::{Lock, LockedPackage, canonical_channel, canonical_url};
use crate::model::LAYOUT_VERSION;
use crate::util::{Digest, Error, Result};

/// What keys depend on beside the package.
#[derive(Debug, Clone)]
pub struct KeyInputs {
    /// The prefix as programs in the image see it.
    pub prefix: String,
    /// Where it lies in the tar, the base's links resolved.
    pub root: String,
    /// Codec, level, library and chunking, as `pack` names them.
    pub codec: String,
    /// Whether the group may write.
    pub group_write: bool,
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

/// A run of tar entries of one package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Index into the lock's packages.
    pub package: usize,
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
    codec: &'a str,
    group_write: bool,
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

impl Segment {
    pub(super) fn files(lock: &Lock, index: usize, inputs: &KeyInputs) -> Result<Self> {
        let package = &lock.packages[index];
        let noarch = package.record.package_record.noarch.is_python();
        let key = inputs.segment_key(package, SegmentKind::Files, noarch)?;
        Ok(Self { package: index, kind: SegmentKind::Files, key })
    }

    pub(super) fn bytecode(lock: &Lock, index: usize, inputs: &KeyInputs) -> Result<Self> {
        let key = inputs.segment_key(&lock.packages[index], SegmentKind::Bytecode, true)?;
        Ok(Self { package: index, kind: SegmentKind::Bytecode, key })
    }
}

impl KeyInputs {
    fn segment_key(&self, package: &LockedPackage, kind: SegmentKind, in_python: bool) -> Result<Digest> {
        let python = self.python.as_ref().filter(|_| in_python);
        let is_bytecode = kind == SegmentKind::Bytecode;
        digest(&SegmentInputs {
            layout_version: LAYOUT_VERSION,
            kind: if is_bytecode { "bytecode" } else { "files" },
            archive: package.sha256()?,
            prefix: &self.prefix,
            root: &self.root,
            codec: &self.codec,
            group_write: self.group_write,
            left_out: package.facts.left_out(),
            site_packages: python.map(|python| python.site_packages_path.display().to_string()),
            interpreter: python.map(|python| python.path.display().to_string()),
            python: self.python_archive.filter(|_| is_bytecode),
            record: if is_bytecode { None } else { Some(record_digest(package)?) },
        })
    }

    pub(super) fn layer_key(&self, segments: &[Segment]) -> Result<Digest> {
        let keys: Vec<Digest> = segments.iter().map(|segment| segment.key).collect();
        digest(&("layer", LAYOUT_VERSION, &self.root, &self.codec, self.group_write, keys))
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
    let info = PythonInfo::from_python_record(record, lock.platform.subdir).map_err(|error| {
        Error::user(format!("`{}` is no Python that can be used", python.full_name())).caused_by(error)
    })?;
    Ok(Some((info, python.sha256()?)))
}
