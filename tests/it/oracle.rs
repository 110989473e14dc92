//! The oracle: an image holds what rattler's own installer writes for the same records at the same prefix, path
//! by path, byte by byte, mode by mode. What may differ is listed in `Comparison`, each difference with its own
//! check; everything else is a failure.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use condaimg::lock::{self, Lock};
use condaimg::model::Platform;
use rattler::install::Installer;
use rattler::package_cache::PackageCache;
use rattler_conda_types::prefix_record::PathType;
use rattler_conda_types::{PackageRecord, PrefixRecord, RepoDataRecord, Subdir};
use serde_json::{Value, json};

use crate::common::packages::{Channel, FileMode, Format, Package};
use crate::common::tree::{self, Image, Kind, Node, Tree};
use crate::common::{Workspace, environment, fail, succeed};

const PREFIX: &str = "/opt/conda/envs/default";
/// The magic number of CPython 3.11's byte code, and the flags of an unchecked hash-based `.pyc` (PEP 552).
const PYC_HEAD: [u8; 8] = [0xa7, 0x0d, 0x0d, 0x0a, 1, 0, 0, 0];

// ---- the oracle ----------------------------------------------------------------------------------------------

/// What rattler's installer made.
struct Oracle {
    tree: Tree,
    /// By package name.
    records: BTreeMap<String, PrefixRecord>,
}

impl Oracle {
    /// Installs all records at once.
    async fn install(workspace: &Workspace, records: Vec<RepoDataRecord>) -> Self {
        let prefix = workspace.path("oracle");
        install(workspace, &prefix, records).await.unwrap();
        Self::read(&prefix)
    }

    /// Installs the records one after the other, what rattler gives most weight first. At once, rattler links in
    /// parallel and moves losers away afterwards; a file whose place a folder holds by then is lost. Python comes
    /// before all: rattler installs no noarch package without it.
    async fn install_one_by_one(workspace: &Workspace, records: Vec<RepoDataRecord>) -> Self {
        let prefix = workspace.path("oracle");
        let mut order = PackageRecord::sort_topologically(records);
        order.reverse();
        order.sort_by_key(|record| record.package_record.name.as_normalized() != "python");
        for count in 1..=order.len() {
            install(workspace, &prefix, order[..count].to_vec()).await.unwrap();
        }
        Self::read(&prefix)
    }

    fn read(prefix: &Path) -> Self {
        let records = PrefixRecord::collect_from_prefix::<PrefixRecord>(prefix).unwrap();
        let records = records.into_iter().map(|record| (record.name().as_normalized().to_owned(), record)).collect();
        Self { tree: tree::of_folder(prefix), records }
    }
}

async fn install(workspace: &Workspace, prefix: &Path, records: Vec<RepoDataRecord>) -> Result<(), String> {
    // Nothing is fetched, but a client is made; it is installed already when another test was first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let installer = Installer::new()
        .with_package_cache(PackageCache::new(workspace.path("oracle-cache")))
        .with_target_platform(Subdir::Linux64)
        .with_alternative_target_prefix(PREFIX)
        .with_execute_link_scripts(false);
    installer.install(prefix, records).await.map(|_| ()).map_err(|error| format!("{error:?}"))
}

// ---- the comparison ------------------------------------------------------------------------------------------

/// An image beside what rattler made.
struct Comparison {
    lock: Lock,
    /// The prefix in the image.
    image: Tree,
    oracle: Oracle,
    /// Whether `--bytecode on`.
    bytecode: bool,
    /// Files that prefix replacement wrote.
    patched: BTreeSet<String>,
    /// Shipped byte code whose source was patched.
    stale: BTreeSet<String>,
    /// Installed file → package.
    owners: BTreeMap<String, String>,
    /// What must not be in a record.
    host_paths: Vec<String>,
}

impl Comparison {
    /// Of the image and the lock that a build left in a workspace.
    fn new(workspace: &Workspace, lock: Lock, oracle: Oracle) -> Self {
        let image = Image::read(&workspace.path("image"));
        let (prefix, outside) = split(image.tree());
        check_outside(&outside);
        let mut host_paths = vec![workspace.path("").to_str().unwrap().to_owned(), env!("CARGO_MANIFEST_DIR").into()];
        // The folders that local channels lie in, with the slash that ends them.
        host_paths.extend(lock.channels.iter().filter_map(|channel| {
            let folder = url::Url::parse(channel).ok()?.to_file_path().ok()?;
            Some(format!("{}/", folder.parent()?.display()))
        }));
        let patched = patched(&oracle);
        let stale = stale(&oracle, &patched);
        let owners = owners(&oracle);
        Self { lock, image: prefix, oracle, bytecode: true, patched, stale, owners, host_paths }
    }

    fn without_bytecode(self) -> Self {
        Self { bytecode: false, ..self }
    }

    /// Compares everything; panics with all differences that are not allowed.
    fn check(&self) {
        let mut wrong = Vec::new();
        let paths: BTreeSet<&String> = self.image.keys().chain(self.oracle.tree.keys()).collect();
        for path in paths {
            let result = match (self.image.get(path), self.oracle.tree.get(path)) {
                _ if path.starts_with("conda-meta/") => continue,
                (Some(image), Some(oracle)) => self.both(path, image, oracle),
                (Some(image), None) => self.only_in_image(path, image),
                (None, Some(oracle)) => self.only_in_oracle(path, oracle),
                (None, None) => unreachable!("a path of neither"),
            };
            if let Err(reason) = result {
                wrong.push(format!("{path}: {reason}"));
            }
        }
        assert!(wrong.is_empty(), "{} differences:\n{}", wrong.len(), wrong[..wrong.len().min(40)].join("\n"));
        self.check_records();
        self.check_times();
        self.check_conda_meta();
    }

    fn both(&self, path: &str, image: &Node, oracle: &Node) -> Result<(), String> {
        let replaced = self.bytecode && self.stale.contains(path) && image.kind != oracle.kind;
        if replaced {
            return self.check_bytecode(path, image);
        }
        match image.kind == oracle.kind && image.mode == oracle.mode {
            true => Ok(()),
            false => Err(format!("is {:o} {:?}, not {:o} {:?}", image.mode, image.kind, oracle.mode, oracle.kind)),
        }
    }

    /// Allowed: byte code of noarch packages and of patched modules, its folders, and the entrypoint that sources
    /// scripts which need a shell.
    fn only_in_image(&self, path: &str, node: &Node) -> Result<(), String> {
        let below = format!("{path}/");
        let children = || self.image.range(below.clone()..).take_while(|(child, _)| child.starts_with(&below));
        let dynamic = self.lock.packages.iter().any(|package| !package.facts.activation.dynamic.is_empty());
        match node.kind {
            Kind::File(_) if path.ends_with(".pyc") && self.bytecode => self.check_bytecode(path, node),
            Kind::File(_) if path == "etc/conda/condaimg-entrypoint.sh" && dynamic => Ok(()),
            Kind::Directory if path.ends_with("/__pycache__") && children().next().is_some() => Ok(()),
            _ => Err(format!("is only in the image: {:?}", node.kind)),
        }
    }

    /// Allowed: what clobbering leaves in rattler's prefix, its cache marker, and shipped byte code whose source
    /// was patched, if byte code of it is there instead.
    fn only_in_oracle(&self, path: &str, node: &Node) -> Result<(), String> {
        let parts = path.split_once("/__pycache__/").and_then(|(folder, name)| Some((folder, name.split_once('.')?.0)));
        match (&node.kind, parts) {
            (Kind::File(_), None) if path == "CACHEDIR.TAG" => Ok(()),
            (_, _) if path == "__clobbers__" || path.starts_with("__clobbers__/") => Ok(()),
            (Kind::Directory, _) if self.holds_losers_only(path) => Ok(()),
            (Kind::File(_), Some((folder, stem))) if self.stale.contains(path) => {
                let instead = format!("{folder}/__pycache__/{stem}.cpython-311.pyc");
                let replaced = !self.bytecode || self.image.contains_key(&instead);
                if replaced { Ok(()) } else { Err("no byte code took the place of the stale one".to_owned()) }
            }
            _ => Err(format!("is missing in the image: {:?}", node.kind)),
        }
    }

    /// Whether rattler made a folder for nothing but files that lost.
    fn holds_losers_only(&self, folder: &str) -> bool {
        let below = format!("{folder}/");
        let empty =
            !self.oracle.tree.iter().any(|(path, node)| path.starts_with(&below) && node.kind != Kind::Directory);
        let losers = self.oracle.records.values().flat_map(|record| &record.paths_data.paths);
        let mut losers = losers.filter_map(|path| path.original_path.as_deref());
        empty && losers.any(|path| path.starts_with(folder))
    }

    /// Byte code that we made: valid for this Python, never checked against its source, and made of exactly the
    /// source that is in the image; for a noarch package or a patched module only.
    fn check_bytecode(&self, path: &str, node: &Node) -> Result<(), String> {
        let (folder, name) = path.split_once("__pycache__/").ok_or("is byte code in an odd place")?;
        let stem = name.strip_suffix(".cpython-311.pyc").ok_or("is byte code under an odd name")?;
        let source = format!("{folder}{stem}.py");
        let found = self.image.get(&source).ok_or("is byte code without a source")?;
        let Kind::File(content) = &node.kind else { return Err("is no file".to_owned()) };
        let (Kind::File(source_content), true) = (&found.kind, content.head.len() == 16) else {
            return Err("is no byte code of a file".to_owned());
        };
        if content.head[..8] != PYC_HEAD {
            return Err(format!("is no unchecked byte code of CPython 3.11: {:02x?}", content.head));
        }
        let hash = source_content.source_hash.map(u64::to_le_bytes);
        if hash.as_ref().map(|hash| &hash[..]) != Some(&content.head[8..]) {
            return Err(format!("was made of another source than `{source}`"));
        }
        if (node.mode, node.mtime) != (0o644, found.mtime) {
            return Err(format!("has mode {:o} and time {}", node.mode, node.mtime));
        }
        let owner = self.owners.get(&source).ok_or("is byte code of nobody's source")?;
        let noarch = self.oracle.records[owner].repodata_record.package_record.noarch.is_python();
        if noarch || self.patched.contains(&source) { Ok(()) } else { Err("should not be compiled".to_owned()) }
    }

    /// Each record says what rattler's says, but for what lost and what is stale, and nothing of this machine.
    fn check_records(&self) {
        let compared = |record: &PrefixRecord| -> Value {
            let kept =
                |path: &Path| !path.starts_with("__clobbers__") && !self.stale.contains(path.to_str().expect("UTF-8"));
            let files: BTreeSet<&PathBuf> = record.files.iter().filter(|file| kept(file)).collect();
            let paths = record.paths_data.paths.iter().filter(|path| kept(&path.relative_path));
            let paths: BTreeMap<&PathBuf, _> = paths.map(|path| (&path.relative_path, path)).collect();
            let mut package = serde_json::to_value(&record.repodata_record).unwrap();
            // Ours have no host path and no credentials in these, and say of the platform what the archive says.
            for key in ["url", "channel", "arch", "platform"] {
                package.as_object_mut().unwrap().remove(key);
            }
            json!({ "package": package, "files": files, "paths": paths })
        };
        for (name, oracle) in &self.oracle.records {
            let path = format!("conda-meta/{}", oracle.file_name());
            let text = self.image.get(&path).unwrap_or_else(|| panic!("no record of {name}")).text();
            let image: PrefixRecord = serde_json::from_str(&text).unwrap();
            let (ours, theirs) = (compared(&image), compared(oracle));
            for part in ["package", "files", "paths"] {
                assert_eq!(difference(&ours[part], &theirs[part]), Vec::<String>::new(), "{part} of {name}");
            }
            assert!(image.link.is_none() && image.extracted_package_dir.is_none(), "{name}");
            assert!(image.requested_specs.is_empty(), "{name}");
            for host_path in &self.host_paths {
                assert!(!text.contains(host_path), "`{host_path}` in {path}");
            }
        }
    }

    /// Files keep the times that they have in their archive, also those that prefix replacement wrote.
    fn check_times(&self) {
        for (name, record) in &self.oracle.records {
            let unpacked = &record.link.as_ref().expect("rattler's link").source;
            let built = record.repodata_record.package_record.timestamp.as_ref();
            for path in &record.paths_data.paths {
                let (path, path_type) = (path.relative_path.to_str().unwrap(), path.path_type);
                let Some(node) = self.image.get(path).filter(|node| matches!(node.kind, Kind::File(_))) else {
                    continue;
                };
                if path_type == PathType::UnixPythonEntryPoint {
                    let built = built.map_or(1, |time| time.jiff_timestamp().as_second());
                    assert_eq!(node.mtime, u64::try_from(built).unwrap(), "{path} of {name}");
                } else if !(self.stale.contains(path) && self.bytecode) {
                    let noarch = record.repodata_record.package_record.noarch.is_python();
                    let source = unpacked.join(if noarch { in_noarch_archive(path) } else { path.to_owned() });
                    // rattler unpacks nothing as older than 1980.
                    assert_eq!(node.mtime.max(315_532_800), mtime(&source), "{path} of {name}");
                }
            }
        }
    }

    /// Records, history and state, and nothing else; the history names each package.
    fn check_conda_meta(&self) {
        let mut expected: BTreeSet<String> =
            self.oracle.records.values().map(|record| format!("conda-meta/{}", record.file_name())).collect();
        expected.insert("conda-meta/history".to_owned());
        if !self.lock.variables.is_empty() {
            expected.insert("conda-meta/state".to_owned());
        }
        let found: BTreeSet<String> =
            self.image.keys().filter(|path| path.starts_with("conda-meta/")).cloned().collect();
        assert_eq!(found, expected);
        let history = self.image["conda-meta/history"].text();
        for package in &self.lock.packages {
            assert!(history.contains(&package.full_name()), "{} in {history}", package.full_name());
        }
        for host_path in &self.host_paths {
            assert!(!history.contains(host_path), "`{host_path}` in {history}");
        }
    }
}

fn patched(oracle: &Oracle) -> BTreeSet<String> {
    let paths = oracle.records.values().flat_map(|record| &record.paths_data.paths);
    let patched = paths.filter(|path| path.file_mode.is_some());
    patched.map(|path| path.relative_path.to_str().unwrap().to_owned()).collect()
}

fn stale(oracle: &Oracle, patched: &BTreeSet<String>) -> BTreeSet<String> {
    let is_stale = |path: &&PathBuf| {
        let source = path.to_str().unwrap().strip_suffix(".pyc").and_then(|path| {
            let (folder, name) = path.split_once("__pycache__/")?;
            Some(format!("{folder}{}.py", name.split_once('.')?.0))
        });
        source.is_some_and(|source| patched.contains(&source))
    };
    let files = oracle.records.values().flat_map(|record| &record.files).filter(is_stale);
    files.map(|path| path.to_str().unwrap().to_owned()).collect()
}

fn owners(oracle: &Oracle) -> BTreeMap<String, String> {
    let files = oracle.records.iter().flat_map(|(name, record)| record.files.iter().map(move |file| (file, name)));
    files.map(|(file, name)| (file.to_str().unwrap().to_owned(), name.clone())).collect()
}

/// Where a noarch Python package keeps what is installed as `path`.
fn in_noarch_archive(path: &str) -> String {
    path.replacen("lib/python3.11/site-packages/", "site-packages/", 1).replacen("bin/", "python-scripts/", 1)
}

fn mtime(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    u64::try_from(fs_err::symlink_metadata(path).unwrap().mtime()).unwrap()
}

/// Where two JSON values differ.
fn difference(ours: &Value, theirs: &Value) -> Vec<String> {
    let empty = serde_json::Map::new();
    match (ours, theirs) {
        (Value::Object(ours), Value::Object(theirs)) => {
            let keys: BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
            keys.into_iter()
                .flat_map(|key| {
                    let get = |map: &serde_json::Map<String, Value>| map.get(key).cloned().unwrap_or_default();
                    difference(&get(ours), &get(theirs)).into_iter().map(move |inner| format!("{key}: {inner}"))
                })
                .collect()
        }
        _ if ours == theirs => empty.keys().cloned().collect(),
        _ => vec![format!("{ours} instead of {theirs}")],
    }
}

/// The prefix, and what lies outside of it.
fn split(tree: Tree) -> (Tree, Tree) {
    let inside = format!("{}/", &PREFIX[1..]);
    let (prefix, outside): (Tree, Tree) = tree.into_iter().partition(|(path, _)| path.starts_with(&inside));
    (prefix.into_iter().map(|(path, node)| (path[inside.len()..].to_owned(), node)).collect(), outside)
}

/// Outside of the prefix there are its parents, the home and the passwd line, and nothing else.
fn check_outside(outside: &Tree) {
    for (path, node) in outside {
        let expected = match path.as_str() {
            "opt" | "opt/conda" | "opt/conda/envs" | "opt/conda/envs/default" | "home" | "etc" => (true, 0o755),
            "home/conda" => (true, 0o1777),
            "etc/passwd" => (false, 0o644),
            _ => panic!("`{path}` is outside of the prefix"),
        };
        assert_eq!((node.kind == Kind::Directory, node.mode), expected, "{path}");
        assert_eq!(node.mtime, 1, "{path}");
    }
    assert!(outside.contains_key("opt/conda/envs/default") && outside.contains_key("home/conda"));
}

fn read_lock(workspace: &Workspace) -> Lock {
    let locks = lock::read(&workspace.path("condaimg.lock")).unwrap().expect("a lock");
    locks.get(&Platform::default()).expect("the platform").clone()
}

fn records(lock: &Lock) -> Vec<RepoDataRecord> {
    lock.packages.iter().map(|package| package.record.clone()).collect()
}

// ---- environments of the example channel ---------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread")]
async fn a_large_scientific_environment_holds_what_rattler_installs() {
    let workspace = Workspace::new();
    succeed(&mut workspace.build(&[
        "python=3.11",
        "numpy",
        "pandas",
        "scipy",
        "flask",
        "requests",
        "pytest",
        "jmespath",
        "rich",
        "httpx",
        "pip",
    ]));
    let lock = read_lock(&workspace);
    assert!(lock.packages.len() >= 40, "{} packages", lock.packages.len());
    let oracle = Oracle::install(&workspace, records(&lock)).await;
    let comparison = Comparison::new(&workspace, lock, oracle);
    // What the comparison is to cover is there: scripts, an entry point, a patched shebang, our byte code.
    for path in ["bin/jp.py", "bin/flask", "bin/f2py"] {
        let node = &comparison.image[path];
        assert_eq!((node.mode, &node.content().head[..2]), (0o755, &b"#!"[..]), "{path}");
    }
    assert!(comparison.patched.contains("bin/f2py") && !comparison.stale.is_empty());
    comparison.check();
}

/// A noarch package with a module and an activation script that are hard links in the archive.
fn package_of_hard_links() -> Package {
    Package::new("linked", "1.0")
        .noarch_python()
        .depends(&["python"])
        .file("site-packages/linked/__init__.py", "ANSWER = 42\n")
        .hardlink("site-packages/linked/again.py", "site-packages/linked/__init__.py")
        .file("share/linked/activate.sh", "export LINKED=yes\n")
        .hardlink("etc/conda/activate.d/linked.sh", "share/linked/activate.sh")
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_packages_hold_what_rattler_installs() {
    let workspace = Workspace::new();
    let mut channel = Channel::new(workspace.path("channel"));
    channel.add(&package_of_hard_links(), Format::TarBz2);
    channel.index();
    let dependencies = environment(&[
        "python=3.11",
        "feature-links",
        "feature-clobber-a",
        "feature-clobber-b",
        "feature-activate",
        "feature-activate-dynamic",
        "feature-postlink",
        "click=8.1.7",
        "six",
        "linked",
    ]);
    workspace.file("environment.yml", format!("{dependencies}variables: {{NAME: value}}\n"));
    succeed(workspace.build_here().arg("--channel").arg(&channel.folder));
    let lock = read_lock(&workspace);
    let oracle = Oracle::install(&workspace, records(&lock)).await;
    assert!(oracle.tree.keys().any(|path| path.starts_with("__clobbers__/")), "nothing clobbers");
    let comparison = Comparison::new(&workspace, lock, oracle);
    comparison.check();
    let pyc = "lib/python3.11/site-packages/linked/__pycache__/again.cpython-311.pyc";
    assert!(comparison.image.contains_key(pyc));
    let config = Image::read(&workspace.path("image")).config;
    let variables = config["config"]["Env"].as_array().expect("variables");
    assert!(variables.contains(&json!("LINKED=yes")), "{variables:?}");
}

/// Everything in one layer, where a path that is there twice would show; zstd; no byte code.
#[tokio::test(flavor = "multi_thread")]
async fn one_layer_without_byte_code_holds_what_rattler_installs() {
    let workspace = Workspace::new();
    let mut build = workspace.build(&[
        "python=3.11",
        "feature-links",
        "feature-clobber-a",
        "feature-clobber-b",
        "flask=2.3.3",
        "jmespath",
        "wheel",
    ]);
    succeed(build.args(["--max-layers", "2", "--compression", "zstd:3", "--bytecode", "off"]));
    let lock = read_lock(&workspace);
    let oracle = Oracle::install(&workspace, records(&lock)).await;
    assert_eq!(Image::read(&workspace.path("image")).added().count(), 2);
    Comparison::new(&workspace, lock, oracle).without_bytecode().check();
}

// ---- packages of other projects ------------------------------------------------------------------------------

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

/// Archives in a folder of tests/data, sorted.
fn archives(folder: &str) -> Vec<PathBuf> {
    let files = fs_err::read_dir(data(folder)).unwrap().map(|entry| entry.unwrap().path());
    let is_archive = |path: &PathBuf| {
        let name = path.to_str().unwrap();
        name.ends_with(".conda") || name.ends_with(".tar.bz2")
    };
    let mut archives: Vec<PathBuf> = files.filter(is_archive).collect();
    archives.sort();
    archives
}

/// A channel in a workspace: archives of others, all of them offered for linux-64, and a Python that is just
/// enough to install noarch packages.
fn channel(workspace: &Workspace, archives: &[PathBuf]) -> Channel {
    let mut channel = Channel::new(workspace.path("channel"));
    channel.add(&Package::new("python", "3.11.2").file("bin/python3.11", ""), Format::Conda);
    for archive in archives {
        channel.add_archive(archive, "linux-64");
    }
    channel.index();
    channel
}

/// The same, with an index that knows of no dependencies: they are packages that are not here.
fn channel_without_dependencies(workspace: &Workspace, archives: &[PathBuf]) -> Channel {
    let mut channel = channel(workspace, archives);
    channel.change("zlib", |record| record["depends"] = json!([]));
    channel.index();
    channel
}

/// `condaimg build` on nothing, from the workspace's own channel.
fn build_on_scratch(workspace: &Workspace, dependencies: &[&str]) -> std::process::Command {
    workspace.file("environment.yml", environment(dependencies));
    let mut command = workspace.condaimg();
    command.args(["build", "--override-channels", "--channel"]).arg(workspace.path("channel"));
    command.args(["--base", "scratch", "--glibc", "2.36", "--bytecode", "off"]);
    command
}

/// Builds and compares with what rattler makes of the packages one by one; returns the image's prefix.
async fn same_as_one_by_one(workspace: &Workspace, dependencies: &[&str]) -> Tree {
    for left in ["condaimg.lock", "image", "oracle"] {
        let path = workspace.path(left);
        let _ = if path.is_dir() { fs_err::remove_dir_all(path) } else { fs_err::remove_file(path) };
    }
    succeed(&mut build_on_scratch(workspace, dependencies));
    let lock = read_lock(workspace);
    let oracle = Oracle::install_one_by_one(workspace, records(&lock)).await;
    let comparison = Comparison::new(workspace, lock, oracle).without_bytecode();
    comparison.check();
    comparison.image
}

/// Packages that fight over paths: file against file, file against folder, links, noarch Python, two versions.
#[tokio::test(flavor = "multi_thread")]
async fn clobbering_packages_win_and_lose_as_in_rattler() {
    let workspace = Workspace::new();
    channel(&workspace, &archives("rattler-test-data/clobber"));
    // rattler cannot install clobber-nested-* where clobber-fd-1 wins: it makes no folder two levels below a file.
    let everything = [
        "clobber-1=0.1.0",
        "clobber-2=0.1.0",
        "clobber-3=0.2.0",
        "clobber-directory-upgrade=0.2.0",
        "clobber-fd-1",
        "clobber-fd-2",
        "clobber-fd-2-conflicting",
        "clobber-fd-3",
        "clobber-fd-rev-1",
        "clobber-fd-rev-2",
        "clobber-fd-rev-3",
        "clobber-pynoarch-1",
        "clobber-pynoarch-2",
        "clobber-pypy",
        "clobber-python=0.1.0=pypy",
        "clobber-with-dir",
        "clobber-with-symlink-a",
        "clobber-with-symlink-b",
        "clobber-without-dir",
        "python",
    ];
    let groups: [&[&str]; 15] = [
        &["clobber-1=0.1.0", "clobber-2=0.1.0", "clobber-3=0.1.0"],
        &["clobber-1=0.2.0", "clobber-2=0.2.0", "clobber-3=0.2.0"],
        &["clobber-1=0.2.0", "clobber-2=0.1.0", "clobber-3=0.1.0"],
        &["clobber-directory-upgrade=0.1.0"],
        &["clobber-directory-upgrade=0.2.0", "clobber-pypy"],
        &["clobber-fd-1", "clobber-fd-2", "clobber-fd-3"],
        &["clobber-fd-2", "clobber-fd-2-conflicting", "clobber-fd-rev-3"],
        &["clobber-fd-rev-1", "clobber-fd-rev-2", "clobber-fd-rev-3"],
        &["clobber-nested-1", "clobber-nested-2", "clobber-nested-3"],
        &["clobber-fd-2", "clobber-fd-3", "clobber-fd-rev-1", "clobber-nested-2"],
        &["clobber-pynoarch-1", "clobber-pynoarch-2", "python"],
        &["clobber-pypy", "clobber-python=0.1.0=cpython"],
        &["clobber-pypy", "clobber-python=0.1.0=pypy"],
        &["clobber-with-dir", "clobber-without-dir"],
        &["clobber-with-symlink-a", "clobber-with-symlink-b"],
    ];
    for group in groups {
        let image = same_as_one_by_one(&workspace, group).await;
        assert!(image.values().any(|node| node.kind != Kind::Directory), "{group:?}");
    }
    same_as_one_by_one(&workspace, &everything).await;
    // Every second and every third package: groups that nobody thought of.
    for step in [2, 3] {
        let some: Vec<&str> = everything.iter().copied().step_by(step).chain(["python"]).collect();
        same_as_one_by_one(&workspace, &some).await;
    }
}

/// File against file does not need the care of [`Oracle::install_one_by_one`]: rattler's own way of installing
/// everything at once must give the same winners.
#[tokio::test(flavor = "multi_thread")]
async fn clobbering_files_win_and_lose_as_when_rattler_installs_all_at_once() {
    let workspace = Workspace::new();
    channel(&workspace, &archives("rattler-test-data/clobber"));
    succeed(&mut build_on_scratch(
        &workspace,
        &[
            "clobber-1=0.1.0",
            "clobber-2=0.1.0",
            "clobber-3=0.2.0",
            "clobber-nested-2",
            "clobber-pynoarch-1",
            "clobber-pynoarch-2",
            "clobber-pypy",
            "clobber-python=0.1.0=cpython",
            "clobber-with-symlink-b",
            "python",
        ],
    ));
    let lock = read_lock(&workspace);
    let oracle = Oracle::install(&workspace, records(&lock)).await;
    Comparison::new(&workspace, lock, oracle).without_bytecode().check();
}

/// Small real packages: activation, group-writable files, another zip and tar writer, an index.json
/// that names no platform.
#[tokio::test(flavor = "multi_thread")]
async fn small_packages_of_conda_and_rattler_hold_what_rattler_installs() {
    let workspace = Workspace::new();
    let mut all = archives("conda-tests/small");
    all.extend([data("rattler-test-data/sparse/sparse-test-1.0.0-0.conda")]);
    channel_without_dependencies(&workspace, &all);
    let image = same_as_one_by_one(
        &workspace,
        &[
            "clobber-a",
            "clobber-b",
            "activate_deactivate_package",
            "sample_noarch_python",
            "small-executable",
            "sparse-test",
            "python",
        ],
    )
    .await;
    for path in
        ["bin/small", "etc/conda/activate.d/activate.sh", "lib/python3.11/site-packages/sample.py", "lib/blob.bin"]
    {
        assert!(image.contains_key(path), "{path}");
    }
}

/// What one package in one format becomes: the prefix without its record and history, the record, the history.
fn packed(archive: &Path, name: &str) -> (Tree, PrefixRecord, String) {
    let workspace = Workspace::new();
    channel_without_dependencies(&workspace, &[archive.to_owned()]);
    succeed(&mut build_on_scratch(&workspace, &[name]));
    let (mut prefix, outside) = split(Image::read(&workspace.path("image")).tree());
    check_outside(&outside);
    let record = prefix.keys().find(|path| path.ends_with(".json")).cloned().expect("a record");
    let record = prefix.remove(&record).expect("a record").text();
    let history = prefix.remove("conda-meta/history").expect("a history").text();
    (prefix, serde_json::from_str(&record).unwrap(), history)
}

#[test]
fn both_archive_formats_make_the_same_entries() {
    let folder = tempfile::tempdir().unwrap();
    let ours = |format: Format| {
        let path = folder.path().join(odd_package().file_name(format));
        fs_err::write(&path, odd_package().archive(format)).unwrap();
        path
    };
    let theirs = |extension: &str| data(&format!("conda-tests/small/zlib-1.2.11-h62dcd97_3.{extension}"));
    for (name, conda, tar_bz2) in
        [("odd", ours(Format::Conda), ours(Format::TarBz2)), ("zlib", theirs("conda"), theirs("tar.bz2"))]
    {
        let ((conda, conda_record, history), (tar_bz2, tar_bz2_record, other_history)) =
            (packed(&conda, name), packed(&tar_bz2, name));
        assert!(conda.len() > 7, "{conda:?}");
        assert_eq!(conda, tar_bz2);
        assert_eq!(conda_record.files, tar_bz2_record.files);
        assert_eq!(conda_record.paths_data, tar_bz2_record.paths_data);
        assert_ne!(conda_record.repodata_record.identifier, tar_bz2_record.repodata_record.identifier);
        assert_eq!(history, other_history);
    }
}

/// Two real archives that were converted on a system without links: what is listed as a link has no target in the
/// one, and is an empty file in the other. rattler refuses them, so do we, by name.
#[tokio::test(flavor = "multi_thread")]
async fn links_that_are_none_are_refused() {
    for extension in ["conda", "tar.bz2"] {
        let workspace = Workspace::new();
        let archive = data(&format!("conda-tests/damaged/zlib-1.2.11-h7b6447c_3.{extension}"));
        let channel = channel_without_dependencies(&workspace, &[archive]);
        let error = fail(&mut build_on_scratch(&workspace, &["zlib"]), 1);
        assert!(error.contains("zlib-1.2.11-h7b6447c_3") && error.contains("`lib/libz.so"), "{error}");
        assert!(!workspace.path("image").exists());
        let records = vec![channel.record("zlib")];
        install(&workspace, &workspace.path("oracle"), records).await.expect_err("rattler refuses it too");
    }
}

/// Packages with neither paths.json nor a list of files: rattler refuses them, so do we, by name.
#[tokio::test(flavor = "multi_thread")]
async fn packages_that_do_not_say_what_they_install_are_refused() {
    for package in ["dotslash-test", "info-only", "symlink-test", "zip64-test"] {
        let workspace = Workspace::new();
        let channel = channel(&workspace, &[data(&format!("rattler-test-data/sparse/{package}-1.0.0-0.conda"))]);
        let error = fail(&mut build_on_scratch(&workspace, &[package]), 1);
        assert!(error.contains(package) && error.contains("info/paths.json"), "{error}");
        assert!(!workspace.path("image").exists() && !workspace.path("condaimg.lock").exists());
        let record = channel.record(package);
        install(&workspace, &workspace.path("oracle"), vec![record]).await.expect_err("rattler refuses it too");
    }
}

/// The placeholder of packages that do not name one.
const OLD_PLACEHOLDER: &str = "/opt/anaconda1anaconda2anaconda3";

/// Packages from before 2017 have no paths.json, but a list of files and one of those that hold the prefix: with
/// placeholder and kind, or with the path alone, or without any.
#[tokio::test(flavor = "multi_thread")]
async fn packages_without_paths_json_hold_what_rattler_installs() {
    let workspace = Workspace::new();
    let mut channel = Channel::new(workspace.path("channel"));
    let long = format!("/build/{}", "placehold_".repeat(20));
    let binary = [b"\x7fELF\0", long.as_bytes(), b"/lib/x\0tail\0", long.as_bytes(), b"\0end"].concat();
    let old = |name: &str| Package::new(name, "1.0").old_metadata();
    for (package, format) in [
        (
            old("three-columns")
                .file_with_placeholder("bin/three", format!("#!{long}/bin/sh\necho {long}\n"), &long, FileMode::Text)
                .file_with_placeholder("lib/libthree.so", &binary, &long, FileMode::Binary)
                .symlink("lib/libthree.so.1", "libthree.so")
                .symlink("share/three/dangling", "nowhere"),
            Format::TarBz2,
        ),
        (
            old("one-column")
                .executable("bin/one", format!("#!{OLD_PLACEHOLDER}/bin/sh\n"))
                .file("etc/one.conf", format!("prefix = {OLD_PLACEHOLDER}\n"))
                .info("has_prefix", "bin/one\netc/one.conf\n"),
            Format::TarBz2,
        ),
        (
            old("quoted")
                .executable("bin/has space", format!("#!{long}/bin/sh\n"))
                .file("share/quoted", "text")
                .info("has_prefix", format!("\"{long}\" text \"bin/has space\"\n")),
            Format::Conda,
        ),
        (
            old("no-prefix")
                .file("share/plain/a", "a")
                .hardlink("share/plain/b", "share/plain/a")
                .file("share/plain/empty", "")
                .directory("share/plain/unlisted-folder")
                .info("no_link", "share/plain/a\n"),
            Format::TarBz2,
        ),
    ] {
        channel.add(&package, format);
    }
    channel.index();
    let image = same_as_one_by_one(&workspace, &["three-columns", "one-column", "quoted", "no-prefix"]).await;
    let replaced = image["etc/one.conf"].text();
    assert_eq!(replaced, format!("prefix = {PREFIX}\n"));
    assert_eq!(image["lib/libthree.so"].content().size, binary.len() as u64);
}

/// What an archive may hold: hard links, odd modes and times, long and foreign names, links to anywhere.
fn odd_package() -> Package {
    let long = format!("/build/{}", "placehold_".repeat(20));
    Package::new("odd", "1.0")
        .file("share/odd/first", "one file, three names")
        .hardlink("share/odd/second", "share/odd/first")
        .hardlink("share/odd/third", "share/odd/second")
        .file_with_placeholder("etc/odd.conf", format!("{long}/share {long}\n"), &long, FileMode::Text)
        .hardlink("share/odd/of-patched", "etc/odd.conf")
        .file_with_mode("bin/setuid", "#!/bin/sh\n", 0o4711)
        .file_with_mode("share/odd/secret", "x", 0o600)
        .file_with_mode("share/odd/executable-by-others", "x", 0o655)
        .file(&format!("share/odd/{}/{}", "l".repeat(150), "n".repeat(120)), "long")
        .file("share/odd/ünï-д-日.txt", "names")
        .symlink("share/odd/absolute", "/etc/hostname")
        .symlink("share/odd/folder-link", "../odd")
        .symlink(&format!("share/odd/{}", "s".repeat(110)), &"t/".repeat(90))
        .file("share/odd/before-1980", "old")
        .mtime(1)
        .file("share/odd/before-y2k", "old")
        .mtime(900_000_000)
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_entries_hold_what_rattler_installs() {
    let workspace = Workspace::new();
    let mut channel = Channel::new(workspace.path("channel"));
    let app = Package::new("app", "1.0")
        .noarch_python()
        .depends(&["python"])
        .file("site-packages/app/__init__.py", "")
        .file("site-packages/app/main.py", "def main(): pass\n")
        .executable("python-scripts/app-script", "#!/usr/bin/env python\n")
        .entry_point("app = app.main:main")
        .entry_point("app-sub = app.main:main.sub");
    let python = Package::new("python", "3.11.2").executable("bin/python3.11", "a program");
    for package in [&odd_package(), &app, &python] {
        channel.add(package, Format::Conda);
    }
    channel.index();
    let image = same_as_one_by_one(&workspace, &["odd", "app"]).await;
    assert_eq!(image["bin/setuid"].mode, 0o755);
    assert_eq!(image["share/odd/before-1980"].mtime, 1);
    assert_eq!(image["share/odd/executable-by-others"].mode, 0o644);
    assert!(image.contains_key("bin/app") && image.contains_key("bin/app-script"));
}
