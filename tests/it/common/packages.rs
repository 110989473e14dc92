//! Makes small conda packages and channels of them: both archive formats, noarch, placeholders, entry points,
//! links, old metadata, and tar entries that no honest package has.
//!
//! ```ignore
//! let mut channel = Channel::new(folder);
//! channel.add(&Package::new("zlib", "1.3").file("lib/libz.so.1", b"elf"), Format::Conda);
//! channel.add(&Package::new("app", "1").noarch_python().depends(&["zlib >=1"]).entry_point("app = app:main"), Format::TarBz2);
//! channel.index();
//! ```

#![allow(dead_code, reason = "each test binary uses a part")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may stop at the first surprise")]

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use rattler_digest::{Md5, Sha256, compute_bytes_digest};
use serde_json::{Value, json};

/// The time of every entry: equal packages have equal bytes.
const MTIME: u64 = 1_600_000_000;

/// How an archive is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A zip of two zstd tars.
    Conda,
    /// One bzip2 tar.
    TarBz2,
}

/// How a placeholder is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileMode {
    Text,
    Binary,
}

/// A package that is being made.
#[derive(Clone, Debug)]
pub struct Package {
    pub name: String,
    pub version: String,
    pub build: String,
    pub build_number: u64,
    pub subdir: String,
    depends: Vec<String>,
    constrains: Vec<String>,
    noarch: Option<&'static str>,
    entry_points: Vec<String>,
    track_features: Option<String>,
    entries: Vec<Entry>,
    info: BTreeMap<String, Vec<u8>>,
    without_info: Vec<String>,
    old_metadata: bool,
}

#[derive(Clone, Debug)]
struct Entry {
    path: String,
    kind: Kind,
    mode: u32,
    mtime: u64,
    placeholder: Option<(String, FileMode)>,
    /// PAX records before the header.
    pax: Vec<(String, Vec<u8>)>,
    /// Whether paths.json and info/files name it.
    listed: bool,
}

#[derive(Clone, Debug)]
enum Kind {
    File(Vec<u8>),
    Symlink(String),
    Hardlink(String),
    Directory,
    /// A header as it stands, with its name not looked at.
    Raw(tar::EntryType, String, Vec<u8>),
}

impl Package {
    /// A package for linux-64 with build `0`.
    pub fn new(name: &str, version: &str) -> Self {
        Self {
            name: name.to_owned(),
            version: version.to_owned(),
            build: "0".to_owned(),
            build_number: 0,
            subdir: "linux-64".to_owned(),
            depends: Vec::new(),
            constrains: Vec::new(),
            noarch: None,
            entry_points: Vec::new(),
            track_features: None,
            entries: Vec::new(),
            info: BTreeMap::new(),
            without_info: Vec::new(),
            old_metadata: false,
        }
    }

    pub fn build(mut self, build: &str, number: u64) -> Self {
        self.build = build.to_owned();
        self.build_number = number;
        self
    }

    pub fn subdir(mut self, subdir: &str) -> Self {
        self.subdir = subdir.to_owned();
        self
    }

    pub fn depends(mut self, depends: &[&str]) -> Self {
        self.depends.extend(depends.iter().map(|text| (*text).to_owned()));
        self
    }

    pub fn constrains(mut self, constrains: &[&str]) -> Self {
        self.constrains.extend(constrains.iter().map(|text| (*text).to_owned()));
        self
    }

    pub fn track_features(mut self, features: &str) -> Self {
        self.track_features = Some(features.to_owned());
        self
    }

    /// For noarch, with files below `site-packages/` and `python-scripts/`.
    pub fn noarch_python(self) -> Self {
        Self { noarch: Some("python"), ..self }.subdir("noarch")
    }

    pub fn noarch_generic(self) -> Self {
        Self { noarch: Some("generic"), ..self }.subdir("noarch")
    }

    /// `NAME = MODULE:FUNCTION`.
    pub fn entry_point(mut self, entry_point: &str) -> Self {
        self.entry_points.push(entry_point.to_owned());
        self
    }

    pub fn file(self, path: &str, bytes: impl AsRef<[u8]>) -> Self {
        self.entry(path, Kind::File(bytes.as_ref().to_vec()), 0o644)
    }

    pub fn executable(self, path: &str, bytes: impl AsRef<[u8]>) -> Self {
        self.entry(path, Kind::File(bytes.as_ref().to_vec()), 0o755)
    }

    /// A file with any mode, setuid and all.
    pub fn file_with_mode(self, path: &str, bytes: impl AsRef<[u8]>, mode: u32) -> Self {
        self.entry(path, Kind::File(bytes.as_ref().to_vec()), mode)
    }

    /// A file that names the prefix by `placeholder`.
    pub fn file_with_placeholder(self, path: &str, bytes: impl AsRef<[u8]>, placeholder: &str, mode: FileMode) -> Self {
        let mut package = self.executable(path, bytes);
        package.last().placeholder = Some((placeholder.to_owned(), mode));
        package
    }

    pub fn symlink(self, path: &str, target: &str) -> Self {
        self.entry(path, Kind::Symlink(target.to_owned()), 0o777)
    }

    /// A hard link to another entry, by its path in the archive.
    pub fn hardlink(self, path: &str, target: &str) -> Self {
        self.entry(path, Kind::Hardlink(target.to_owned()), 0o644)
    }

    pub fn directory(self, path: &str) -> Self {
        let mut package = self.entry(path, Kind::Directory, 0o755);
        package.last().listed = false;
        package
    }

    /// A tar entry as it stands: absolute paths, `..`, devices. Not in the metadata.
    pub fn raw(self, path: &str, kind: tar::EntryType, link: &str, bytes: &[u8]) -> Self {
        let mut package = self.entry(path, Kind::Raw(kind, link.to_owned(), bytes.to_vec()), 0o644);
        package.last().listed = false;
        package
    }

    /// The time of the entry added last.
    pub fn mtime(mut self, seconds: u64) -> Self {
        self.last().mtime = seconds;
        self
    }

    /// A PAX record of the entry added last.
    pub fn pax(mut self, key: &str, value: impl AsRef<[u8]>) -> Self {
        self.last().pax.push((key.to_owned(), value.as_ref().to_vec()));
        self
    }

    /// A time with a fraction, as Python's tarfile writes it: the header's field is rounded, a PAX record exact.
    pub fn fractional_mtime(self, seconds: u64, thousandths: u64) -> Self {
        self.mtime(seconds + (thousandths + 500) / 1000).pax("mtime", format!("{seconds}.{thousandths:03}"))
    }

    /// Leaves the entry added last out of the metadata.
    pub fn unlisted(mut self) -> Self {
        self.last().listed = false;
        self
    }

    /// Names the entry added last in the metadata, also a raw one.
    pub fn listed_too(mut self) -> Self {
        self.last().listed = true;
        self
    }

    /// Another file below `info/`, or other content of one that is made.
    pub fn info(mut self, path: &str, bytes: impl AsRef<[u8]>) -> Self {
        self.info.insert(path.to_owned(), bytes.as_ref().to_vec());
        self
    }

    /// Leaves a file below `info/` out.
    pub fn without_info(mut self, path: &str) -> Self {
        self.without_info.push(path.to_owned());
        self
    }

    /// `info/files` and `info/has_prefix` instead of paths.json, as before 2017.
    pub fn old_metadata(mut self) -> Self {
        self.old_metadata = true;
        self
    }

    /// `NAME-VERSION-BUILD.conda` or `.tar.bz2`.
    pub fn file_name(&self, format: Format) -> String {
        let extension = match format {
            Format::Conda => "conda",
            Format::TarBz2 => "tar.bz2",
        };
        format!("{}-{}-{}.{extension}", self.name, self.version, self.build)
    }

    /// The archive's bytes; equal for equal packages.
    pub fn archive(&self, format: Format) -> Vec<u8> {
        match format {
            Format::TarBz2 => {
                let mut tar = tar::Builder::new(Vec::new());
                self.write_info(&mut tar);
                self.write_content(&mut tar);
                bzip2_of(&tar.into_inner().unwrap())
            }
            Format::Conda => self.conda_of(&zstd_of(&self.content_tar()), &zstd_of(&self.info_tar())),
        }
    }

    /// The tar of what is installed.
    pub fn content_tar(&self) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        self.write_content(&mut tar);
        tar.into_inner().unwrap()
    }

    /// The tar of `info/`.
    pub fn info_tar(&self) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        self.write_info(&mut tar);
        tar.into_inner().unwrap()
    }

    /// A `.conda` with these bytes for its two compressed tars.
    pub fn conda_of(&self, content: &[u8], info: &[u8]) -> Vec<u8> {
        let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        let options = zip::write::SimpleFileOptions::default()
            .compression_method(zip::CompressionMethod::Stored)
            .last_modified_time(zip::DateTime::default());
        let stem = format!("{}-{}-{}", self.name, self.version, self.build);
        for (name, bytes) in [
            ("metadata.json".to_owned(), br#"{"conda_pkg_format_version": 2}"#.as_slice()),
            (format!("pkg-{stem}.tar.zst"), content),
            (format!("info-{stem}.tar.zst"), info),
        ] {
            zip.start_file(name, options).unwrap();
            zip.write_all(bytes).unwrap();
        }
        zip.finish().unwrap().into_inner()
    }

    /// What `info/index.json` says.
    pub fn index_json(&self) -> Value {
        let mut index = json!({
            "name": self.name,
            "version": self.version,
            "build": self.build,
            "build_number": self.build_number,
            "depends": self.depends,
            "constrains": self.constrains,
            "subdir": self.subdir,
            "timestamp": MTIME * 1000,
        });
        if let Some(noarch) = self.noarch {
            index["noarch"] = json!(noarch);
        }
        if let Some(features) = &self.track_features {
            index["track_features"] = json!(features);
        }
        index
    }

    fn entry(mut self, path: &str, kind: Kind, mode: u32) -> Self {
        self.entries.push(Entry {
            path: path.to_owned(),
            kind,
            mode,
            mtime: MTIME,
            placeholder: None,
            pax: Vec::new(),
            listed: true,
        });
        self
    }

    fn last(&mut self) -> &mut Entry {
        self.entries.last_mut().expect("an entry comes first")
    }

    fn listed(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| entry.listed)
    }

    fn write_content(&self, tar: &mut tar::Builder<Vec<u8>>) {
        for entry in &self.entries {
            entry.write(tar);
        }
    }

    fn write_info(&self, tar: &mut tar::Builder<Vec<u8>>) {
        let mut files: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        let mut put = |name: &str, bytes: Vec<u8>| files.insert(name.to_owned(), bytes);
        put("index.json", serde_json::to_vec_pretty(&self.index_json()).unwrap());
        put("about.json", b"{}".to_vec());
        put("files", self.listed().map(|entry| format!("{}\n", entry.path)).collect::<String>().into_bytes());
        if self.noarch == Some("python") {
            let link = json!({
                "noarch": {"type": "python", "entry_points": self.entry_points},
                "package_metadata_version": 1,
            });
            put("link.json", serde_json::to_vec_pretty(&link).unwrap());
        }
        let prefixed: String = self.listed().filter_map(Entry::has_prefix_line).collect();
        if !prefixed.is_empty() {
            put("has_prefix", prefixed.into_bytes());
        }
        if !self.old_metadata {
            let paths: Vec<Value> = self.listed().map(|entry| self.path_json(entry)).collect();
            put("paths.json", serde_json::to_vec_pretty(&json!({"paths": paths, "paths_version": 1})).unwrap());
        }
        files.extend(self.info.clone());
        files.retain(|name, _| !self.without_info.contains(name));
        for (name, bytes) in files {
            let entry = Entry {
                path: format!("info/{name}"),
                kind: Kind::File(bytes),
                mode: 0o644,
                mtime: MTIME,
                placeholder: None,
                pax: Vec::new(),
                listed: false,
            };
            entry.write(tar);
        }
    }

    fn path_json(&self, entry: &Entry) -> Value {
        let mut path = match &entry.kind {
            Kind::Symlink(_) => json!({"path_type": "softlink", "sha256": sha256(b""), "size_in_bytes": 0}),
            _ => {
                let bytes = self.bytes_of(entry);
                json!({"path_type": "hardlink", "sha256": sha256(bytes), "size_in_bytes": bytes.len()})
            }
        };
        path["_path"] = json!(entry.path);
        if let Some((placeholder, mode)) = &entry.placeholder {
            path["prefix_placeholder"] = json!(placeholder);
            path["file_mode"] = json!(if *mode == FileMode::Text { "text" } else { "binary" });
        }
        path
    }

    /// A file's content; of a hard link, that of its target.
    fn bytes_of<'a>(&'a self, entry: &'a Entry) -> &'a [u8] {
        match &entry.kind {
            Kind::File(bytes) | Kind::Raw(_, _, bytes) => bytes,
            Kind::Hardlink(target) => {
                let target = self.entries.iter().find(|other| other.path == *target);
                target.map_or(&[], |target| self.bytes_of(target))
            }
            Kind::Symlink(_) | Kind::Directory => &[],
        }
    }
}

impl Entry {
    fn write(&self, tar: &mut tar::Builder<Vec<u8>>) {
        tar.append_pax_extensions(self.pax.iter().map(|(key, value)| (key.as_str(), value.as_slice()))).unwrap();
        let mut header = tar::Header::new_gnu();
        header.set_mode(self.mode);
        header.set_mtime(self.mtime);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(0);
        match &self.kind {
            Kind::File(bytes) => {
                header.set_size(bytes.len() as u64);
                tar.append_data(&mut header, &self.path, bytes.as_slice()).unwrap();
            }
            Kind::Symlink(target) => {
                header.set_entry_type(tar::EntryType::Symlink);
                tar.append_link(&mut header, &self.path, target).unwrap();
            }
            Kind::Hardlink(target) => {
                header.set_entry_type(tar::EntryType::Link);
                tar.append_link(&mut header, &self.path, target).unwrap();
            }
            Kind::Directory => {
                header.set_entry_type(tar::EntryType::Directory);
                tar.append_data(&mut header, &self.path, std::io::empty()).unwrap();
            }
            Kind::Raw(kind, link, bytes) => {
                header.set_entry_type(*kind);
                header.set_size(bytes.len() as u64);
                let gnu = header.as_gnu_mut().unwrap();
                put(&mut gnu.name, self.path.as_bytes());
                put(&mut gnu.linkname, link.as_bytes());
                header.set_cksum();
                tar.append(&header, bytes.as_slice()).unwrap();
            }
        }
    }

    fn has_prefix_line(&self) -> Option<String> {
        let (placeholder, mode) = self.placeholder.as_ref()?;
        let mode = if *mode == FileMode::Text { "text" } else { "binary" };
        Some(format!("{placeholder} {mode} {}\n", self.path))
    }
}

fn put(field: &mut [u8], bytes: &[u8]) {
    field[..bytes.len()].copy_from_slice(bytes);
}

/// Compressed as in a `.conda`.
pub fn zstd_of(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 3).unwrap()
}

/// Compressed as a `.tar.bz2`.
pub fn bzip2_of(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// The hexadecimal sha256 of bytes.
pub fn sha256(bytes: &[u8]) -> String {
    hex::encode(compute_bytes_digest::<Sha256>(bytes))
}

/// A channel that is being made.
pub struct Channel {
    pub folder: PathBuf,
    /// Subdir → file name → record.
    records: BTreeMap<String, BTreeMap<String, Value>>,
}

impl Channel {
    /// An empty channel in a folder, with linux-64 and noarch.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        let records = ["linux-64", "noarch"].map(|subdir| (subdir.to_owned(), BTreeMap::new())).into();
        let channel = Self { folder: folder.into(), records };
        channel.index();
        channel
    }

    /// A channel of packages, each as a `.conda`, and with its index.
    pub fn of<'a>(folder: impl Into<PathBuf>, packages: impl IntoIterator<Item = &'a Package>) -> Self {
        let mut channel = Self::new(folder);
        for package in packages {
            channel.add(package, Format::Conda);
        }
        channel.index();
        channel
    }

    /// Writes a package's archive; [`Channel::index`] makes it known.
    pub fn add(&mut self, package: &Package, format: Format) -> PathBuf {
        self.add_bytes(package, format, &package.archive(format))
    }

    /// The same with other bytes for its archive; the index has their hashes, so that only reading tells.
    pub fn add_bytes(&mut self, package: &Package, format: Format, bytes: &[u8]) -> PathBuf {
        let name = package.file_name(format);
        let path = self.folder.join(&package.subdir).join(&name);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(&path, bytes).unwrap();
        let mut record = package.index_json();
        record["sha256"] = json!(sha256(bytes));
        record["md5"] = json!(hex::encode(compute_bytes_digest::<Md5>(bytes)));
        record["size"] = json!(bytes.len());
        self.records.entry(package.subdir.clone()).or_default().insert(name, record);
        path
    }

    /// Adds an archive that somebody else made, under its own name. The index says of it what `info/index.json`
    /// says, but that it is in `subdir`, if it is not for all
    /// platforms.
    pub fn add_archive(&mut self, archive: &Path, subdir: &str) -> PathBuf {
        let bytes = fs_err::read(archive).unwrap();
        let mut record = index_json_of(archive);
        let subdir = if record["subdir"] == "noarch" { "noarch" } else { subdir };
        record["subdir"] = json!(subdir);
        record["sha256"] = json!(sha256(&bytes));
        record["md5"] = json!(hex::encode(compute_bytes_digest::<Md5>(&bytes)));
        record["size"] = json!(bytes.len());
        let name = archive.file_name().unwrap().to_str().unwrap().to_owned();
        let path = self.folder.join(subdir).join(&name);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(&path, &bytes).unwrap();
        self.records.entry(subdir.to_owned()).or_default().insert(name, record);
        path
    }

    /// Adds packages that are nothing but names and dependencies: `("app", "1.0", &["lib >=2"])`.
    pub fn add_all(&mut self, packages: &[(&str, &str, &[&str])]) {
        for (name, version, depends) in packages {
            let package = Package::new(name, version).depends(depends).file(&format!("share/{name}"), version);
            self.add(&package, Format::Conda);
        }
        self.index();
    }

    /// Takes a package out of the index, before [`Channel::index`].
    pub fn forget(&mut self, name: &str) {
        self.records.values_mut().for_each(|records| records.retain(|_, record| record["name"] != name));
    }

    /// Changes what the index says of a package, before [`Channel::index`].
    pub fn change(&mut self, name: &str, change: impl Fn(&mut Value)) {
        self.records
            .values_mut()
            .flatten()
            .filter(|(_, record)| record["name"] == name)
            .for_each(|(_, record)| change(record));
    }

    /// Writes the `repodata.json` of every subdir.
    pub fn index(&self) {
        for (subdir, records) in &self.records {
            let of = |extension: &str| -> BTreeMap<&String, &Value> {
                records.iter().filter(|(name, _)| name.ends_with(extension)).collect()
            };
            let index = json!({
                "info": {"subdir": subdir},
                "packages": of(".tar.bz2"),
                "packages.conda": of(".conda"),
                "removed": [],
                "repodata_version": 1,
            });
            let folder = self.folder.join(subdir);
            fs_err::create_dir_all(&folder).unwrap();
            fs_err::write(folder.join("repodata.json"), serde_json::to_vec_pretty(&index).unwrap()).unwrap();
        }
    }

    /// The record of a package, as a client of the channel sees it.
    pub fn record(&self, name: &str) -> rattler_conda_types::RepoDataRecord {
        let mut all =
            self.records.iter().flat_map(|(subdir, records)| records.iter().map(move |record| (subdir, record)));
        let (subdir, (file, record)) =
            all.find(|(_, (_, record))| record["name"] == name).expect("a package of this name");
        let mut record = record.clone();
        record["fn"] = json!(file);
        record["url"] = json!(format!("{}{subdir}/{file}", self.url()));
        record["channel"] = json!(self.url());
        serde_json::from_value(record).unwrap()
    }

    /// Its `file://` URL.
    pub fn url(&self) -> String {
        file_url(&self.folder)
    }
}

/// `info/index.json` of an archive.
fn index_json_of(archive: &Path) -> Value {
    let file = std::io::BufReader::new(fs_err::File::open(archive).unwrap());
    if archive.extension().is_some_and(|extension| extension == "conda") {
        let mut tar = rattler_package_streaming::seek::stream_conda_info(file).unwrap();
        find_index_json(tar.entries().unwrap())
    } else {
        let mut tar = rattler_package_streaming::read::stream_tar_bz2(file);
        find_index_json(tar.entries().unwrap())
    }
}

fn find_index_json<R: std::io::Read>(entries: tar::Entries<'_, R>) -> Value {
    let mut entries = entries.map(|entry| entry.unwrap());
    let entry = entries.find(|entry| entry.path().unwrap().ends_with("info/index.json")).expect("an index.json");
    serde_json::from_reader(entry).unwrap()
}

/// The `file://` URL of a folder.
pub fn file_url(folder: &Path) -> String {
    url::Url::from_directory_path(folder).unwrap().to_string()
}
