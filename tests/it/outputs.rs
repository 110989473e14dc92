//! Tags and blobs of what a build writes: layouts and archives with several tags, docker archives that are pushed, and
//! what replaced images leave in a layout.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::common::engine::Engine;
use crate::common::images::{self, shared_cache, skopeo};
use crate::common::packages::{Channel, Format, Package};
use crate::common::registry::{LocalRegistry, Mode};
use crate::common::{Workspace, environment, example_base, fail, succeed};

const TAGS: [&str; 4] = ["--tag", "host.example/team/app:1", "--tag", "host.example/team/app:latest"];

/// A workspace whose environment is one package of a version.
fn workspace(version: &str) -> Workspace {
    let workspace = Workspace::new();
    let mut channel = Channel::new(workspace.path("channel"));
    for version in ["1.0", "2.0"] {
        channel.add(
            &Package::new("app", version).executable("bin/app", format!("#!/bin/sh\necho {version}\n")),
            Format::Conda,
        );
    }
    channel.index();
    workspace.file("environment.yml", environment(&[&format!("app={version}")]));
    workspace
}

fn build(workspace: &Workspace) -> Command {
    let mut build = workspace.condaimg();
    build.env("CONDAIMG_CACHE_DIR", shared_cache());
    build.args(["build", "--override-channels", "--channel"]).arg(workspace.path("channel"));
    build.args(["--base", &format!("oci:{}:debian", example_base().display())]);
    build
}

fn names(folder: &Path) -> Vec<String> {
    let index: Value = images::json(&fs_err::read_to_string(folder.join("index.json")).expect("an index"));
    let entries = index["manifests"].as_array().expect("a list").clone();
    let name = |entry: Value| entry["annotations"]["org.opencontainers.image.ref.name"].as_str().map(str::to_owned);
    entries.into_iter().filter_map(name).collect()
}

fn blobs(folder: &Path) -> BTreeSet<String> {
    let entries = fs_err::read_dir(folder.join("blobs/sha256")).expect("a folder");
    entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn all_tags_are_in_a_layout_and_name_one_image() {
    let workspace = workspace("1.0");
    let digest = succeed(build(&workspace).args(TAGS));
    let layout = workspace.path("image");
    assert_eq!(names(&layout), ["1", "latest"]);
    for tag in ["1", "latest"] {
        let found = skopeo(&["inspect", "--format", "{{.Digest}}", &format!("oci:{}:{tag}", layout.display())]);
        assert_eq!(found, digest);
    }
    // The folder alone is enough for condaimg: it holds one image.
    let registry = LocalRegistry::start(Mode::Plain);
    let target = format!("{}/app:1", registry.host());
    assert!(succeed(workspace.condaimg().args(["push", "image", &target])).ends_with(&digest));
    // A tag in the output is the only one.
    succeed(build(&workspace).args(TAGS).args(["--output", "oci:other:mine"]));
    assert_eq!(names(&workspace.path("other")), ["mine"]);
}

#[test]
fn all_tags_are_in_archives_and_podman_loads_them() {
    let workspace = workspace("1.0");
    succeed(build(&workspace).args(TAGS).args([
        "--output",
        "oci-archive:oci.tar",
        "--output",
        "docker-archive:docker.tar",
    ]));
    for (archive, engine) in [("oci.tar", Engine::fresh("to")), ("docker.tar", Engine::fresh("td"))] {
        succeed(engine.podman().args(["load", "--quiet", "--input"]).arg(workspace.path(archive)));
        let listed = succeed(engine.podman().args(["images", "--format", "{{.Repository}}:{{.Tag}}"]));
        for tag in ["host.example/team/app:1", "host.example/team/app:latest"] {
            assert!(listed.lines().any(|line| line == tag), "{archive}: {listed}");
        }
    }
    for tag in ["host.example/team/app:1", "host.example/team/app:latest"] {
        skopeo(&["inspect", &format!("oci-archive:{}:{tag}", workspace.path("oci.tar").display())]);
    }
}

#[test]
fn a_docker_archive_is_pushed_and_runs() {
    let workspace = workspace("1.0");
    succeed(build(&workspace).args(TAGS).args(["--output", "docker-archive:x.tar", "--output", "oci:image:1"]));
    let registry = LocalRegistry::start(Mode::Plain);
    let mut digests = BTreeSet::new();
    for (index, name) in ["x.tar", "docker-archive:x.tar", "oci-archive:x.tar"].into_iter().enumerate() {
        let target = format!("{}/app:{index}", registry.host());
        let pushed = succeed(workspace.condaimg().args(["push", name, &target]));
        digests.insert(pushed.split('@').next_back().expect("a digest").to_owned());
    }
    assert_eq!(digests.len(), 1, "the same archive is the same image");
    let target = format!("docker://{}/app:0", registry.host());
    let manifest = images::json(&skopeo(&["inspect", "--raw", "--tls-verify=false", &target]));
    let built = skopeo(&["inspect", "--raw", &format!("oci:{}:1", workspace.path("image").display())]);
    assert_eq!(manifest["config"]["digest"], images::json(&built)["config"]["digest"], "the image keeps its id");
    let is_gzip = |layer: &Value| layer["mediaType"].as_str().is_some_and(|it| it.ends_with("tar+gzip"));
    assert!(manifest["layers"].as_array().expect("layers").iter().all(is_gzip), "{manifest}");
    let engine = Engine::fresh("da");
    let image = engine.pull(&target);
    assert_eq!(succeed(engine.run(&[]).args([&image, "app"])), "1.0\n");
    // What is neither is named.
    workspace.file("y.tar", tar::Builder::new(Vec::new()).into_inner().expect("a tar"));
    let told = fail(workspace.condaimg().args(["push", "y.tar", &format!("{}/app:9", registry.host())]), 1);
    assert!(told.contains("y.tar"), "{told}");
}

/// A layout in which `kept` and `image` were built, and `image` again with another version.
fn rebuilt() -> (Workspace, BTreeSet<String>) {
    let workspace = workspace("1.0");
    succeed(build(&workspace).args(["--output", "oci:image:1"]));
    let first = blobs(&workspace.path("image"));
    workspace.file("environment.yml", environment(&["app=2.0"]));
    let output = build(&workspace).args(["--output", "oci:image:1"]).output().expect("runs");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && told.contains("condaimg cache prune --layout image"), "{told}");
    (workspace, first)
}

fn prune(workspace: &Workspace) -> Command {
    let mut prune = workspace.condaimg();
    prune.args(["cache", "prune", "--layout", "image"]);
    prune
}

#[test]
fn blobs_of_a_replaced_image_are_pruned() {
    let (workspace, first) = rebuilt();
    let layout = workspace.path("image");
    let both = blobs(&layout);
    assert!(first.is_subset(&both), "a build removes nothing");
    succeed(&mut prune(&workspace));
    let left = blobs(&layout);
    let gone: BTreeSet<_> = both.difference(&left).collect();
    assert!(!gone.is_empty() && gone.iter().all(|blob| first.contains(*blob)), "{gone:?}");
    // All that the image needs is there.
    let copy = format!("dir:{}", workspace.path("copy").display());
    skopeo(&["copy", "--quiet", &format!("oci:{}:1", layout.display()), &copy]);
    succeed(&mut prune(&workspace));
    assert_eq!(blobs(&layout), left);
}

#[test]
fn pruning_keeps_what_tags_and_referrers_need() {
    let (workspace, first) = rebuilt();
    let layout = workspace.path("image");
    // The old image has another tag again, by a referrer alone.
    let old = first.iter().find(|hex| {
        let bytes = fs_err::read(layout.join("blobs/sha256").join(hex)).expect("a blob");
        serde_json::from_slice::<Value>(&bytes).is_ok_and(|it| it["layers"].is_array())
    });
    let subject = json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": format!("sha256:{}", old.expect("a manifest")), "size": 1});
    let referrer = json!({"schemaVersion": 2, "artifactType": "text/note", "subject": subject}).to_string();
    let hex = condaimg::util::Digest::of(&referrer).hex();
    fs_err::write(layout.join("blobs/sha256").join(&hex), &referrer).expect("writes");
    let path = layout.join("index.json");
    let mut index: Value = images::json(&fs_err::read_to_string(&path).expect("an index"));
    let entry = json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "artifactType": "text/note",
        "digest": format!("sha256:{hex}"), "size": referrer.len()});
    index["manifests"].as_array_mut().expect("a list").push(entry);
    fs_err::write(&path, index.to_string()).expect("writes");
    let before = blobs(&layout);
    succeed(&mut prune(&workspace));
    assert_eq!(blobs(&layout), before);
}

#[test]
fn pruning_waits_for_no_writer_and_removes_nothing() {
    let (workspace, _) = rebuilt();
    let layout = workspace.path("image");
    let before = blobs(&layout);
    // Another condaimg, another tool, a blob that its writer has not put into the index yet.
    let marker = fs_err::File::open(layout.join("oci-layout")).expect("opens");
    marker.file().lock().expect("locks");
    assert!(fail(&mut prune(&workspace), 1).contains("another condaimg"));
    drop(marker);
    let foreign = layout.join("oci-put-blob123");
    fs_err::write(&foreign, "x").expect("writes");
    assert!(fail(&mut prune(&workspace), 1).contains("oci-put-blob123"));
    fs_err::remove_file(foreign).expect("removes");
    assert_eq!(blobs(&layout), before);
    let new = layout.join("blobs/sha256").join("0".repeat(64));
    fs_err::write(&new, "new").expect("writes");
    succeed(&mut prune(&workspace));
    assert!(new.exists() && blobs(&layout).len() < before.len());
    // What cannot be read may refer to anything.
    let (workspace, _) = rebuilt();
    let layout = workspace.path("image");
    let index = images::json(&fs_err::read_to_string(layout.join("index.json")).expect("an index"));
    let root = index["manifests"][0]["digest"].as_str().expect("a digest").replace("sha256:", "");
    fs_err::write(layout.join("blobs/sha256").join(&root), "{broken").expect("writes");
    let before = blobs(&layout);
    assert!(fail(&mut prune(&workspace), 1).contains(&root));
    assert_eq!(blobs(&layout), before);
}
