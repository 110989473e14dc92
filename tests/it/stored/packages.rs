//! Packages whose `paths.json` is not true: their archives are what was locked, so nothing is fetched again.

use fs_err as fs;
use serde_json::{Value, json};

use super::told;
use crate::common::packages::{Channel, FileMode, Format, Package, sha256};
use crate::common::tree::{Image, Kind};
use crate::common::{Workspace, fail, succeed};

const PLACEHOLDER: &str = "/opt/placeholder_placeholder_placeholder_placeholder_placeholder_placeholder";

/// A package, and its `paths.json` with other hashes and sizes for the files that are named so.
fn lying(package: Package, change: impl Fn(&str, &mut Value)) -> Package {
    let tar = package.info_tar();
    let mut archive = tar::Archive::new(&tar[..]);
    let entry = archive
        .entries()
        .expect("entries")
        .map(|entry| entry.expect("an entry"))
        .find(|entry| entry.path().expect("a path").ends_with("paths.json"));
    let mut paths: Value = serde_json::from_reader(entry.expect("is there")).expect("JSON");
    for path in paths["paths"].as_array_mut().expect("paths") {
        let name = path["_path"].as_str().expect("a path").to_owned();
        change(&name, path);
    }
    package.info("paths.json", serde_json::to_vec(&paths).expect("JSON"))
}

struct Bench {
    workspace: Workspace,
    channel: Channel,
}

impl Bench {
    fn new(packages: &[Package]) -> Self {
        let workspace = Workspace::new();
        let mut channel = Channel::new(workspace.path("channel"));
        packages.iter().for_each(|package| drop(channel.add(package, Format::Conda)));
        channel.index();
        let names: Vec<&str> = packages.iter().map(|package| package.name.as_str()).collect();
        workspace.file("environment.yml", format!("dependencies: [{}]\n", names.join(", ")));
        Self { workspace, channel }
    }

    fn build(&self, flags: &[&str]) -> std::process::Command {
        let mut build = self.workspace.condaimg();
        build.args(["build", "--base", "scratch", "--glibc", "2.36", "--override-channels", "--channel"]);
        build.arg(&self.channel.folder).args(flags);
        build
    }

    /// The entries of a record in the image, by path.
    fn record(&self, name: &str) -> Vec<Value> {
        let tree = Image::read(&self.workspace.path("image")).tree();
        let node = &tree[&format!("opt/conda/envs/default/conda-meta/{name}-1.0-0.json")];
        assert!(matches!(node.kind, Kind::File(_)));
        let record: Value = serde_json::from_str(&node.text()).expect("JSON");
        record["paths_data"]["paths"].as_array().expect("paths").clone()
    }
}

fn package() -> Package {
    let content = format!("prefix = {PLACEHOLDER}\n");
    Package::new("lib", "1.0")
        .file("share/right", "right")
        .file("share/hash", "content")
        .file("share/size", "content")
        .hardlink("share/link", "share/right")
        .file_with_placeholder("share/prefix", content, PLACEHOLDER, FileMode::Text)
}

fn wrong() -> Value {
    json!("11".repeat(32))
}

#[test]
fn wrong_paths_json_is_a_warning_and_the_record_is_true() {
    let package = lying(package(), |name, path| match name {
        "share/hash" | "share/link" | "share/prefix" => path["sha256"] = wrong(),
        "share/size" => path["size_in_bytes"] = json!(4711),
        _ => {}
    });
    let bench = Bench::new(&[package]);
    let (digest, warnings) = told(&mut bench.build(&[]));
    assert_eq!(warnings.matches("paths.json").count(), 1, "{warnings}");
    for part in ["lib-1.0-0", "share/hash", "share/size", "share/link", "share/prefix", "--strict"] {
        assert!(warnings.contains(part), "{part}: {warnings}");
    }
    assert!(!warnings.contains("share/right"), "{warnings}");
    let paths = bench.record("lib");
    let entry = |name: &str| paths.iter().find(|path| path["_path"] == name).expect("is listed");
    for (name, content) in [("share/hash", "content"), ("share/size", "content"), ("share/link", "right")] {
        assert_eq!(entry(name)["sha256"], sha256(content.as_bytes()), "{name}");
        assert_eq!(entry(name)["size_in_bytes"], content.len(), "{name}");
        assert!(entry(name)["sha256_in_prefix"].is_null(), "{name}");
    }
    let original = format!("prefix = {PLACEHOLDER}\n");
    assert_eq!(entry("share/prefix")["sha256"], sha256(original.as_bytes()));
    let replaced = "prefix = /opt/conda/envs/default\n";
    assert_eq!(entry("share/prefix")["sha256_in_prefix"], sha256(replaced.as_bytes()));
    // Nothing is fetched again, and a lock changes nothing.
    fs::remove_dir_all(bench.workspace.path("cache")).expect("removes");
    assert_eq!(succeed(&mut bench.build(&["--locked"])), digest);
}

#[test]
fn wrong_paths_json_is_refused_by_strict() {
    let lie = |name: &str, path: &mut Value| {
        if name == "share/hash" {
            path["sha256"] = wrong();
        }
    };
    let bench = Bench::new(&[lying(package(), lie)]);
    let error = fail(&mut bench.build(&["--strict"]), 1);
    assert!(error.contains("lib-1.0-0") && error.contains("share/hash") && error.contains("--strict"), "{error}");
    assert!(!bench.workspace.path("image").join("index.json").exists());
    // A layer that was made before does not hide it.
    succeed(&mut bench.build(&[]));
    let error = fail(&mut bench.build(&["--strict", "--locked"]), 1);
    assert!(error.contains("share/hash"), "{error}");
    let (_, warnings) = told(&mut bench.build(&["--locked"]));
    assert!(warnings.contains("share/hash"), "{warnings}");
}

#[test]
fn paths_json_without_hashes_is_no_finding() {
    let silent = |_: &str, path: &mut Value| {
        let path = path.as_object_mut().expect("an object");
        path.remove("sha256");
        path.remove("size_in_bytes");
    };
    let bench = Bench::new(&[lying(package(), silent)]);
    let (_, warnings) = told(&mut bench.build(&["--strict"]));
    assert!(!warnings.contains("paths.json"), "{warnings}");
}
