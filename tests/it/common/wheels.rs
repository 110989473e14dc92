//! Makes small wheels: honest ones, and zips that no honest tool writes. The zip is written byte by byte, so that
//! its local headers and its central directory can say anything.
//!
//! ```ignore
//! let wheel = Wheel::new("foo", "1.0").file("foo/__init__.py", "x = 1").entry_point("foo = foo:main");
//! let path = wheel.write(&workspace.path("wheels"));
//! ```

#![allow(dead_code, reason = "each test uses a part")]

use std::io::Write as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use condaimg::util::Digest;
use rattler_digest::{Sha256, compute_bytes_digest};

/// 2020-02-02 00:00:00 as a zip has it, what reproducible wheels use.
const DOS_TIME: (u16, u16) = (0, (40 << 9) | (2 << 5) | 2);
/// The same in seconds since 1970.
pub const MTIME: u64 = 1_580_601_600;

const STORED: u16 = 0;
const DEFLATED: u16 = 8;

/// A wheel that is being made.
#[derive(Clone, Debug)]
pub struct Wheel {
    pub name: String,
    pub version: String,
    tags: String,
    fields: Vec<String>,
    entry_points: String,
    entries: Vec<Entry>,
    info: Vec<(String, Option<Vec<u8>>)>,
    record_lines: Vec<String>,
    prepended: Vec<u8>,
}

/// One entry, and what is odd about it.
#[derive(Clone, Debug)]
struct Entry {
    path: String,
    content: Vec<u8>,
    /// Unix mode with the kind of file.
    mode: u32,
    method: u16,
    flags: u16,
    time: (u16, u16),
    listed: bool,
    hash: Option<String>,
    local_path: Option<String>,
    said_size: Option<u32>,
    extra: Vec<u8>,
    /// Whether its data is that of the entry before.
    overlaps: bool,
    /// Whether the central directory knows it.
    hidden: bool,
}

impl Entry {
    fn new(path: &str, content: impl AsRef<[u8]>, mode: u32) -> Self {
        Self {
            path: path.to_owned(),
            content: content.as_ref().to_vec(),
            mode,
            method: DEFLATED,
            flags: 0,
            time: DOS_TIME,
            listed: true,
            hash: None,
            local_path: None,
            said_size: None,
            extra: Vec::new(),
            overlaps: false,
            hidden: false,
        }
    }
}

impl Wheel {
    /// A wheel for every Python 3.
    pub fn new(name: &str, version: &str) -> Self {
        Self {
            name: name.to_owned(),
            version: version.to_owned(),
            tags: "py3-none-any".to_owned(),
            fields: Vec::new(),
            entry_points: String::new(),
            entries: Vec::new(),
            info: Vec::new(),
            record_lines: Vec::new(),
            prepended: Vec::new(),
        }
    }

    pub fn tags(self, tags: &str) -> Self {
        Self { tags: tags.to_owned(), ..self }
    }

    /// A line of METADATA (`Requires-Dist: bar`).
    pub fn field(mut self, line: &str) -> Self {
        self.fields.push(line.to_owned());
        self
    }

    pub fn requires(self, requirements: &[&str]) -> Self {
        requirements.iter().fold(self, |wheel, it| wheel.field(&format!("Requires-Dist: {it}")))
    }

    /// `NAME = MODULE:FUNCTION`, a console script.
    pub fn entry_point(mut self, line: &str) -> Self {
        if self.entry_points.is_empty() {
            self.entry_points.push_str("[console_scripts]\n");
        }
        self.entry_points.push_str(&format!("{line}\n"));
        self
    }

    /// A whole `entry_points.txt`.
    pub fn entry_points(self, text: &str) -> Self {
        Self { entry_points: text.to_owned(), ..self }
    }

    pub fn file(mut self, path: &str, content: impl AsRef<[u8]>) -> Self {
        self.entries.push(Entry::new(path, content, 0o100_644));
        self
    }

    pub fn executable(self, path: &str, content: impl AsRef<[u8]>) -> Self {
        self.file(path, content).mode(0o100_755)
    }

    /// A file below `NAME-VERSION.data/`: `scripts/x`, `data/etc/x`, `headers/x.h`, ...
    pub fn data(self, path: &str, content: impl AsRef<[u8]>) -> Self {
        let path = format!("{}.data/{path}", self.stem());
        self.file(&path, content)
    }

    /// Another content of a file of `.dist-info`.
    pub fn info(mut self, name: &str, content: impl AsRef<[u8]>) -> Self {
        self.info.push((name.to_owned(), Some(content.as_ref().to_vec())));
        self
    }

    /// Leaves a file of `.dist-info` out.
    pub fn without_info(mut self, name: &str) -> Self {
        self.info.push((name.to_owned(), None));
        self
    }

    /// One more line of RECORD.
    pub fn record_line(mut self, line: &str) -> Self {
        self.record_lines.push(line.to_owned());
        self
    }

    /// Bytes before the zip.
    pub fn prepended(self, bytes: &[u8]) -> Self {
        Self { prepended: bytes.to_vec(), ..self }
    }

    // ---- of the entry added last

    pub fn mode(self, mode: u32) -> Self {
        self.with(|entry| entry.mode = mode)
    }

    pub fn stored(self) -> Self {
        self.with(|entry| entry.method = STORED)
    }

    pub fn method(self, method: u16) -> Self {
        self.with(|entry| entry.method = method)
    }

    pub fn flags(self, flags: u16) -> Self {
        self.with(|entry| entry.flags = flags)
    }

    pub fn dos_time(self, time: u16, date: u16) -> Self {
        self.with(|entry| entry.time = (time, date))
    }

    /// Leaves it out of RECORD.
    pub fn unlisted(self) -> Self {
        self.with(|entry| entry.listed = false)
    }

    /// Another hash in RECORD than its own.
    pub fn hash(self, hash: &str) -> Self {
        self.with(|entry| entry.hash = Some(hash.to_owned()))
    }

    /// Another name in the local header.
    pub fn local_path(self, path: &str) -> Self {
        self.with(|entry| entry.local_path = Some(path.to_owned()))
    }

    /// Another size in both headers.
    pub fn said_size(self, size: u32) -> Self {
        self.with(|entry| entry.said_size = Some(size))
    }

    pub fn extra(self, extra: &[u8]) -> Self {
        self.with(|entry| entry.extra = extra.to_vec())
    }

    /// Its header in the central directory points at the entry before.
    pub fn overlaps(self) -> Self {
        self.with(|entry| entry.overlaps = true)
    }

    /// Not in the central directory.
    pub fn hidden(self) -> Self {
        self.with(|entry| entry.hidden = true)
    }

    fn with(mut self, change: impl FnOnce(&mut Entry)) -> Self {
        change(self.entries.last_mut().expect("an entry"));
        self
    }

    // ---- the result

    /// `NAME-VERSION`, as its folders are called.
    pub fn stem(&self) -> String {
        format!("{}-{}", self.name.replace(['-', '.'], "_"), self.version)
    }

    pub fn file_name(&self) -> String {
        format!("{}-{}.whl", self.stem(), self.tags)
    }

    pub fn sha256(&self) -> Digest {
        Digest::of(self.bytes())
    }

    /// Writes it into a folder.
    pub fn write(&self, folder: &Path) -> PathBuf {
        fs_err::create_dir_all(folder).expect("a folder");
        let path = folder.join(self.file_name());
        fs_err::write(&path, self.bytes()).expect("a wheel");
        path
    }

    /// The wheel's bytes; equal for equal wheels.
    pub fn bytes(&self) -> Vec<u8> {
        let mut entries = self.entries.clone();
        entries.extend(self.dist_info());
        let record: String = entries.iter().filter(|entry| entry.listed).map(record_line).collect();
        let own = format!("{}.dist-info/RECORD", self.stem());
        let lines: String = self.record_lines.iter().map(|line| format!("{line}\n")).collect();
        let record = Entry::new(&own, format!("{record}{own},,\n{lines}"), 0o100_664);
        if !self.info.iter().any(|(name, _)| name == "RECORD") {
            entries.push(record);
        }
        let mut zip = self.prepended.clone();
        let mut central = Vec::new();
        let mut before = 0;
        let mut count = 0_u16;
        for entry in &entries {
            let offset = if entry.overlaps { before } else { zip.len() };
            let packed = packed(entry);
            if !entry.overlaps {
                zip.extend(local_header(entry, &packed));
                zip.extend(&packed);
            }
            if !entry.hidden {
                central.extend(central_header(entry, &packed, u32::try_from(offset).expect("a small wheel")));
                count += 1;
            }
            before = offset;
        }
        let start = zip.len();
        zip.extend(&central);
        let mut end = b"PK\x05\x06\0\0\0\0".to_vec();
        end.extend(count.to_le_bytes());
        end.extend(count.to_le_bytes());
        end.extend(u32::try_from(central.len()).expect("a small wheel").to_le_bytes());
        end.extend(u32::try_from(start).expect("a small wheel").to_le_bytes());
        end.extend([0, 0]);
        zip.extend(end);
        zip
    }

    fn dist_info(&self) -> Vec<Entry> {
        let fields: String = self.fields.iter().map(|line| format!("{line}\n")).collect();
        let metadata =
            format!("Metadata-Version: 2.1\nName: {}\nVersion: {}\n{fields}\nThe body.\n", self.name, self.version);
        let pure = self.tags.ends_with("-any");
        let wheel = format!("Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: {pure}\nTag: {}\n", self.tags);
        let mut files = vec![("METADATA".to_owned(), metadata.into_bytes()), ("WHEEL".to_owned(), wheel.into_bytes())];
        if !self.entry_points.is_empty() {
            files.push(("entry_points.txt".to_owned(), self.entry_points.clone().into_bytes()));
        }
        for (name, content) in &self.info {
            files.retain(|(other, _)| other != name);
            files.extend(content.clone().map(|content| (name.clone(), content)));
        }
        let entry = |(name, content): (String, Vec<u8>)| {
            let listed = !name.starts_with("RECORD");
            let entry = Entry::new(&format!("{}.dist-info/{name}", self.stem()), content, 0o100_644);
            Entry { listed, ..entry }
        };
        files.into_iter().map(entry).collect()
    }
}

fn record_line(entry: &Entry) -> String {
    let hash = entry.hash.clone().unwrap_or_else(|| format!("sha256={}", hash_of(&entry.content)));
    let path = if entry.path.contains([',', '"']) {
        format!("\"{}\"", entry.path.replace('"', "\"\""))
    } else {
        entry.path.clone()
    };
    format!("{path},{hash},{}\n", entry.said_size.map_or(entry.content.len(), |size| size as usize))
}

/// As RECORD has it.
pub fn hash_of(content: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(compute_bytes_digest::<Sha256>(content))
}

fn packed(entry: &Entry) -> Vec<u8> {
    if entry.method != DEFLATED {
        return entry.content.clone();
    }
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(&entry.content).expect("memory");
    encoder.finish().expect("memory")
}

/// What both headers have, from the flags to the size.
fn common(entry: &Entry, packed: &[u8]) -> Vec<u8> {
    let mut bytes = entry.flags.to_le_bytes().to_vec();
    bytes.extend(entry.method.to_le_bytes());
    bytes.extend(entry.time.0.to_le_bytes());
    bytes.extend(entry.time.1.to_le_bytes());
    let mut crc = flate2::Crc::new();
    crc.update(&entry.content);
    bytes.extend(crc.sum().to_le_bytes());
    bytes.extend(u32::try_from(packed.len()).expect("a small file").to_le_bytes());
    let size = entry.said_size.unwrap_or(u32::try_from(entry.content.len()).expect("a small file"));
    bytes.extend(size.to_le_bytes());
    bytes
}

fn length(bytes: &[u8]) -> [u8; 2] {
    u16::try_from(bytes.len()).expect("a short field").to_le_bytes()
}

fn local_header(entry: &Entry, packed: &[u8]) -> Vec<u8> {
    let path = entry.local_path.as_ref().unwrap_or(&entry.path).as_bytes();
    let mut bytes = b"PK\x03\x04\x14\0".to_vec();
    bytes.extend(common(entry, packed));
    bytes.extend(length(path));
    bytes.extend(length(&entry.extra));
    bytes.extend(path);
    bytes.extend(&entry.extra);
    bytes
}

fn central_header(entry: &Entry, packed: &[u8], offset: u32) -> Vec<u8> {
    // Made by Unix, version 2.0.
    let mut bytes = b"PK\x01\x02\x14\x03\x14\0".to_vec();
    bytes.extend(common(entry, packed));
    bytes.extend(length(entry.path.as_bytes()));
    bytes.extend(length(&entry.extra));
    // No comment, disk 0, no internal attributes.
    bytes.extend([0; 6]);
    bytes.extend((entry.mode << 16).to_le_bytes());
    bytes.extend(offset.to_le_bytes());
    bytes.extend(entry.path.as_bytes());
    bytes.extend(&entry.extra);
    bytes
}
