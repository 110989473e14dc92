//! The oracle: real wheels are packed to what pip and uv install, path by path and byte by byte, but for what is
//! listed here by name.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use condaimg::pack::wheel::{WheelFile, WheelLayout, WheelZip, read_metadata};
use condaimg::util::report::Silent;

use super::{PREFIX, SITE_PACKAGES, target};
use crate::common::tree::{self, Content, Kind, Tree};
use crate::common::wheels::Wheel;
use crate::common::{Workspace, example_wheels, program, succeed};

/// What only installers have: who installed it, and that it was asked for. Of files that are given by their path
/// they also say where that was, which is a fact of this machine.
const OF_INSTALLERS: [&str; 5] = ["INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json", "uv_build.json"];

/// The example's wheels and one that has everything.
fn wheels(folder: &Path) -> Vec<WheelFile> {
    let mut paths: Vec<PathBuf> = fs_err::read_dir(example_wheels())
        .expect("wheels")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "whl"))
        .collect();
    assert!(paths.len() > 5, "{paths:?}");
    paths.push(super::sample().file("foo/cli.py", "def main(): pass\n").write(folder));
    paths.push(Wheel::new("quoted", "1").file("quoted/a, \"b\".txt", "x").write(folder));
    paths.sort();
    let name = |path: &Path| path.file_name().expect("a name").to_str().expect("UTF-8").to_owned();
    paths.iter().map(|path| WheelFile { name: name(path), path: path.clone() }).collect()
}

/// What the segments of the wheels hold, below the prefix.
fn packed(wheels: &[WheelFile], folder: &Path) -> Tree {
    for file in wheels {
        let metadata = read_metadata(file).expect("reads");
        let mut locked = super::locked(&Wheel::new(&metadata.name, &metadata.version));
        (locked.name, locked.file_name) = (metadata.name, file.name.clone());
        let target = target();
        let python = target.python.as_ref().expect("a Python");
        let layout = WheelLayout::read(&mut WheelZip::open(file).expect("opens"), &locked, python).expect("reads");
        let mut tar = Vec::new();
        condaimg::pack::wheel::write(&mut tar, file, &locked, &layout, &target, &Silent).expect("packs");
        tar::Archive::new(tar.as_slice()).unpack(folder).expect("unpacks");
    }
    tree::of_folder(&folder.join(&PREFIX[1..]))
}

/// Where `--target` puts what lies at a path of the prefix.
fn in_target(path: &str) -> String {
    path.strip_prefix(&format!("{SITE_PACKAGES}/")).unwrap_or(path).to_owned()
}

fn is_of_installers(path: &str) -> bool {
    path.contains(".dist-info/") && OF_INSTALLERS.iter().any(|name| path.ends_with(&format!("/{name}")))
}

fn content(node: &tree::Node) -> Option<&Content> {
    match &node.kind {
        Kind::File(content) => Some(content),
        _ => None,
    }
}

/// Compares; `headers` is where the installer puts headers: each spells the folder in its own way.
fn compare(image: &Tree, image_folder: &Path, oracle: &Tree, oracle_folder: &Path, headers: &str) {
    let image: BTreeMap<String, (&String, &tree::Node)> = image
        .iter()
        .filter(|(_, node)| content(node).is_some())
        .map(|(path, node)| (in_target(path).replace("include/python3.11/Foo_Bar/", headers), (path, node)))
        .collect();
    let mut wrong = Vec::new();
    for (path, (place, node)) in &image {
        let Some(other) = oracle.get(path).filter(|node| content(node).is_some()) else {
            if !is_of_installers(path) {
                wrong.push(format!("{path}: only in the image"));
            }
            continue;
        };
        let same = content(node) == content(other);
        let texts = || {
            let read = |file: PathBuf| String::from_utf8_lossy(&fs_err::read(file).expect("reads")).into_owned();
            (read(image_folder.join(place)), read(oracle_folder.join(path)))
        };
        let fine = match path {
            path if is_of_installers(path) => true,
            path if path.ends_with(".dist-info/RECORD") => {
                let (ours, theirs) = texts();
                listed(&ours) == listed(&theirs)
            }
            // Another interpreter in the first line; scripts of entry points are written in each installer's own way.
            path if path.starts_with("bin/") && !same => {
                let (ours, theirs) = texts();
                let is_entry_point = ours.contains("sys.exit(") && theirs.contains("sys.exit(");
                is_entry_point || after_first_line(&ours) == after_first_line(&theirs)
            }
            _ => same,
        };
        if !fine {
            wrong.push(format!("{path}: {:?} in the image, {:?} by the installer", content(node), content(other)));
        }
        // The specification leaves the modes of scripts that name no Python to the wheel; ours can all be run.
        if node.mode != other.mode && !path.starts_with("bin/") {
            wrong.push(format!("{path}: mode {:o} in the image, {:o} by the installer", node.mode, other.mode));
        }
    }
    let only_there = oracle.iter().filter(|(path, node)| content(node).is_some() && !image.contains_key(*path));
    let allowed = |path: &str| is_of_installers(path) || path.ends_with(".pyc") || path == ".lock";
    wrong.extend(only_there.filter(|(path, _)| !allowed(path)).map(|(path, _)| format!("{path}: not in the image")));
    assert!(wrong.is_empty(), "{} differences:\n{}", wrong.len(), wrong.join("\n"));
    assert!(image.len() > 900, "{} files", image.len());
}

fn after_first_line(text: &str) -> &str {
    text.split_once('\n').map_or("", |(_, rest)| rest)
}

/// The lines of a RECORD that are the same for everybody: files of site-packages that come from the wheel. Byte code
/// is listed by pip only; what lies elsewhere has other paths, and scripts have other first lines.
fn listed(record: &str) -> BTreeSet<String> {
    let elsewhere = |line: &str| line.starts_with("..") || line.starts_with('/') || line.starts_with("bin/");
    let data = |line: &str| ["share/", "etc/", "include/"].iter().any(|folder| line.starts_with(folder));
    let differs = |line: &str| {
        let path = line.split(',').next().unwrap_or_default();
        is_of_installers(path) || path.ends_with(".pyc") || path.ends_with("/RECORD")
    };
    record
        .lines()
        .map(|line| line.trim_end_matches('\r').to_owned())
        .filter(|line| !elsewhere(line) && !data(line) && !differs(line))
        .collect()
}

fn oracle(headers: &str, install: impl FnOnce(&Workspace, &Path) -> Command) {
    let workspace = Workspace::new();
    let wheels = wheels(&workspace.path("made"));
    let image_folder = workspace.path("image").join(&PREFIX[1..]);
    let image = packed(&wheels, &workspace.path("image"));
    let target = workspace.path("target");
    let mut command = install(&workspace, &target);
    succeed(command.args(wheels.iter().map(|wheel| &wheel.path)));
    compare(&image, &image_folder, &tree::of_folder(&target), &target, headers);
}

#[test]
fn uv_installs_the_same() {
    oracle("include/foo-bar/", |workspace, target| {
        let mut uv = program("uv", "uv");
        uv.args(["pip", "install", "--quiet", "--no-config", "--no-deps", "--no-index", "--offline"]);
        uv.args(["--python", "/usr/bin/python3", "--python-version", "3.11", "--link-mode", "copy", "--target"]);
        uv.arg(target).env("UV_CACHE_DIR", workspace.path("uv-cache"));
        uv
    });
}

#[test]
fn pip_installs_the_same() {
    oracle("include/site/python3.11/Foo-Bar/", |workspace, target| {
        let python = crate::common::example_python();
        let mut pip = Command::new(python);
        pip.args(["-m", "pip", "--isolated", "--disable-pip-version-check", "install", "--quiet", "--no-deps"]);
        pip.args(["--no-index", "--no-cache-dir", "--no-compile", "--ignore-installed"]);
        pip.args(["--only-binary=:all:", "--implementation=cp", "--python-version=3.11"]);
        pip.args(["--platform=manylinux2014_x86_64", "--target"]).arg(target);
        pip.env("HOME", workspace.path("")).env("PIP_ROOT_USER_ACTION", "ignore");
        pip
    });
}
