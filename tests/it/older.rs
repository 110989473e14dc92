//! What condaimg wrote at layout version 1 is read, built and extended by every later version.
//!
//! `tests/data/layout-1` was written by the last version of that layout, from `environment.yml` there and
//! `tests/data/mini-channel`: `build --base scratch --glibc 2.36 --bytecode off` for one platform (`condaimg.lock`,
//! `image`, `store.tar.gz`) and for two (`multi.lock`, `index`), both pushed to the registry in `registry.tar.gz` with
//! `--cache-registry`. `wheels.lock` also holds a wheel.

use std::path::{Path, PathBuf};
use std::process::Command;

use condaimg::lock;
use fs_err as fs;

use crate::common::registry::{LocalRegistry, Mode};
use crate::common::tree::Image;
use crate::common::{Workspace, fail, program, succeed};

const FLAGS: [&str; 9] =
    ["--override-channels", "-c", "./channel", "--base", "scratch", "--glibc", "2.36", "--bytecode", "off"];

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

fn copy(from: &Path, to: &Path) {
    succeed(Command::new("cp").arg("-r").arg(from).arg(to));
}

fn unpack(archive: &str, into: &Path) {
    succeed(program("tar", "tar").arg("-xzf").arg(data("layout-1").join(archive)).arg("-C").arg(into));
}

/// A clone of the project that layout version 1 locked.
fn clone_with_lock(lock: &str) -> Workspace {
    let workspace = Workspace::new();
    copy(&data("mini-channel"), &workspace.path("channel"));
    fs::copy(data("layout-1/environment.yml"), workspace.path("environment.yml")).expect("copies");
    fs::copy(data("layout-1").join(lock), workspace.path("condaimg.lock")).expect("copies");
    workspace
}

fn build(workspace: &Workspace, flags: &[&str]) -> Command {
    let mut build = workspace.condaimg();
    build.arg("build").args(FLAGS).args(flags);
    build
}

/// The registry that layout version 1 pushed to.
fn registry(folder: &Workspace) -> LocalRegistry {
    unpack("registry.tar.gz", folder.path("home").parent().expect("a folder"));
    LocalRegistry::start_at(Mode::Plain, Some(&folder.path("data")))
}

#[test]
fn lock_of_layout_1_builds_as_it_is() {
    let workspace = clone_with_lock("condaimg.lock");
    let before = fs::read_to_string(workspace.path("condaimg.lock")).expect("reads");
    succeed(&mut build(&workspace, &["--locked"]));
    assert_eq!(fs::read_to_string(workspace.path("condaimg.lock")).expect("reads"), before);
    let image = Image::read(&workspace.path("image"));
    let tree = image.tree();
    for path in ["bin/mini-app", "share/mini/both", "conda-meta/mini-old-0.1-0.json"] {
        assert!(tree.contains_key(&format!("opt/conda/envs/default/{path}")), "{path}");
    }
    // What locking reads from archives today is read: the entry script sources what layout 1 called dynamic.
    assert!(image.config.to_string().contains("MINI_HOME"), "{}", image.config);
}

#[test]
fn lock_of_layout_1_is_current_and_is_renewed() {
    let workspace = clone_with_lock("condaimg.lock");
    let lock = |flags: &[&str]| {
        let mut lock = workspace.condaimg();
        lock.arg("lock").args(&FLAGS[..7]).args(flags);
        lock
    };
    succeed(&mut lock(&["--check"]));
    let read = || lock::read(&workspace.path("condaimg.lock")).expect("reads").expect("is there");
    let names = |locks: &lock::Locks| -> Vec<String> {
        locks.iter().flat_map(|lock| lock.packages.iter().map(lock::LockedPackage::full_name)).collect()
    };
    let old = names(&read());
    succeed(&mut lock(&[]));
    let text = fs::read_to_string(workspace.path("condaimg.lock")).expect("reads");
    assert!(text.contains(&format!("layout-version: {}\n", condaimg::model::LAYOUT_VERSION)), "{text}");
    assert_eq!(names(&read()), old);
    assert!(read().iter().all(|lock| lock.has_facts));
    succeed(&mut build(&workspace, &["--locked"]));
}

#[test]
fn lock_of_layout_1_for_two_platforms_builds() {
    let workspace = clone_with_lock("multi.lock");
    succeed(&mut build(&workspace, &["--locked", "--platform", "linux/amd64,linux/amd64/v3"]));
}

#[test]
fn lock_of_layout_1_with_a_wheel_is_read() {
    let locks = lock::read(&data("layout-1/wheels.lock")).expect("reads").expect("is there");
    let lock = locks.iter().next().expect("a lock");
    assert_eq!((lock.packages.len(), lock.wheels.len(), lock.edited.len()), (14, 1, 0));
    assert_eq!(lock.wheels[0].file_name, "kept_wheel-1.0-py3-none-any.whl");
}

#[test]
fn lock_without_seal_is_refused_with_the_way_out() {
    let workspace = clone_with_lock("condaimg.lock");
    let text = fs::read_to_string(workspace.path("condaimg.lock")).expect("reads");
    let seal = ["seal:", "asked: sha256", "target: sha256", "packages: sha256", "facts: sha256"];
    let kept = text.lines().filter(|line| !seal.iter().any(|part| line.trim_start().starts_with(part)));
    let kept: String = kept.map(|line| format!("{line}\n")).collect();
    assert_eq!(kept.lines().count() + 5, text.lines().count());
    workspace.file("condaimg.lock", kept);
    for mode in ["--locked", "--frozen"] {
        let error = fail(&mut build(&workspace, &[mode]), 1);
        assert!(error.contains("condaimg.lock`") && error.contains("`condaimg lock`"), "{error}");
    }
}

#[test]
fn edited_lock_of_layout_1_is_refused() {
    let workspace = clone_with_lock("condaimg.lock");
    let text = fs::read_to_string(workspace.path("condaimg.lock")).expect("reads");
    workspace.file("condaimg.lock", text.replace("size: 1350", "size: 1351"));
    let error = fail(&mut build(&workspace, &["--locked"]), 1);
    assert!(error.contains("`condaimg lock`"), "{error}");
}

#[test]
fn lock_of_a_later_layout_is_refused() {
    let workspace = clone_with_lock("condaimg.lock");
    let text = fs::read_to_string(workspace.path("condaimg.lock")).expect("reads");
    workspace.file("condaimg.lock", text.replace("layout-version: 1", "layout-version: 4711"));
    let error = fail(&mut build(&workspace, &["--locked"]), 1);
    assert!(error.contains("4711") && error.contains("newer condaimg"), "{error}");
}

#[test]
fn store_of_layout_1_is_used_offline() {
    let workspace = clone_with_lock("condaimg.lock");
    unpack("store.tar.gz", workspace.path("channel").parent().expect("a folder"));
    // Only the store has the archives.
    fs::remove_dir_all(workspace.path("channel")).expect("removes");
    succeed(&mut build(&workspace, &["--locked", "--offline"]));
}

#[test]
fn image_of_layout_1_is_extended() {
    let workspace = clone_with_lock("condaimg.lock");
    let registry = registry(&workspace);
    fs::remove_file(workspace.path("condaimg.lock")).expect("removes");
    workspace.file("environment.yml", "channels: [./channel]\ndependencies: [mini-data]\n");
    let from = format!("{}/kept/env:1", registry.host());
    let mut build = workspace.condaimg();
    build.args([
        "build",
        "--override-channels",
        "-c",
        "./channel",
        "--glibc",
        "2.36",
        "--bytecode",
        "off",
        "--from",
        &from,
    ]);
    succeed(&mut build);
    let image = Image::read(&workspace.path("image"));
    let has = |path: String| image.layers.iter().any(|layer| layer.entries.iter().any(|(entry, _)| *entry == path));
    for record in ["mini-data-2026.1-0", "mini-old-0.1-0"] {
        assert!(has(format!("opt/conda/envs/default/conda-meta/{record}.json")), "{record}");
    }
    let old = Image::read(&data("layout-1/image"));
    let layers = |image: &Image| image.manifest["layers"].as_array().expect("layers").clone();
    assert_eq!(layers(&image)[..layers(&old).len()], layers(&old)[..]);
}

#[test]
fn tag_and_cache_of_layout_1_are_built_over() {
    let workspace = clone_with_lock("condaimg.lock");
    let registry = registry(&workspace);
    let (tag, cache) = (format!("{}/kept/env:1", registry.host()), format!("{}/kept/cache", registry.host()));
    let flags = ["--locked", "--push", "-t", &tag, "--cache-registry", &cache];
    let first = succeed(&mut build(&workspace, &flags));
    // What is noted now is found by a machine that has nothing.
    fs::remove_dir_all(workspace.path("cache")).expect("removes");
    assert_eq!(succeed(&mut build(&workspace, &flags)), first);
}

#[test]
fn image_and_index_of_layout_1_are_pushed() {
    let workspace = clone_with_lock("condaimg.lock");
    let registry = registry(&workspace);
    for (layout, tag) in [("image", "kept/again:1"), ("index", "kept/again:2")] {
        let reference = format!("{}/{tag}", registry.host());
        succeed(workspace.condaimg().arg("push").arg(data("layout-1").join(layout)).arg(&reference));
        let copy = format!("{}/copied/{tag}", registry.host());
        succeed(workspace.condaimg().args(["copy", &reference, &copy]));
    }
    // A new image takes its place in an old index.
    succeed(&mut build(&workspace, &["--locked", "-o", "oci:new"]));
    let index = format!("{}/kept/env:multi", registry.host());
    succeed(workspace.condaimg().args(["push", "--merge-index", "new", &index]));
}
