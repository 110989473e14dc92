//! Others accept what we make: registries, skopeo, umoci, oci-image-tool, buildah, podman, and who looks at
//! single layers.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use fs_err as fs;
use serde_json::Value;

use crate::common::engine::{Engine, swept};
use crate::common::images::{Layout, PREFIX, digests, full, json, shared_cache, skopeo, small};
use crate::common::registry::{LocalRegistry, Mode};
use crate::common::{Workspace, program, succeed};

/// What pythons print in a container of the image.
fn greeting(engine: &Engine, image: &str) -> String {
    succeed(engine.run(&["--user=31337:0"]).args([
        image,
        "python",
        "-c",
        "import click; print('hello from', click.__name__)",
    ]))
}

const GREETING: &str = "hello from click\n";

/// Builds the small environment with these flags.
fn build(flags: &[&str]) -> String {
    let workspace = Workspace::new();
    let mut build = workspace.build(&["python=3.11", "click"]);
    succeed(build.env("CONDAIMG_CACHE_DIR", shared_cache()).args(flags))
}

#[test]
fn what_is_pushed_is_copied_whole_by_skopeo_and_run_by_podman() {
    let registry = LocalRegistry::start(Mode::Plain);
    let reference = format!("{}/team/env:1", registry.host());
    let printed = build(&["--push", "--tag", &reference]);
    let digest = small().digest();
    assert_eq!(printed, format!("{}/team/env@{digest}\n", registry.host()));

    let folder = swept().join("copied");
    skopeo(&["copy", "--src-tls-verify=false", &format!("docker://{reference}"), &format!("dir:{}", folder.display())]);
    let manifest = fs::read(folder.join("manifest.json")).expect("a manifest");
    assert_eq!(condaimg::util::Digest::of(&manifest).to_string(), digest);
    let manifest = json(&String::from_utf8(manifest).expect("UTF-8"));
    assert_eq!(digests(&manifest), small().layers());
    for layer in digests(&manifest) {
        let blob = fs::read(folder.join(layer.trim_start_matches("sha256:"))).expect("a blob");
        assert_eq!(condaimg::util::Digest::of(&blob).to_string(), layer);
    }
    let engine = Engine::fresh("pulled");
    let image = engine.pull(&format!("docker://{}", printed.trim()));
    assert_eq!(greeting(&engine, &image), GREETING);
}

#[test]
fn umoci_unpacks_it_onto_a_usr_merged_base_that_stays_whole() {
    let bundle = swept().join("bundle");
    let image = format!("{}:1", small().folder().display());
    succeed(program("umoci", "umoci").args(["unpack", "--image", &image]).arg(&bundle));
    let root = bundle.join("rootfs");
    assert_eq!(fs::read_link(root.join("bin")).expect("a link"), Path::new("usr/bin"));
    assert_eq!(fs::canonicalize(root.join("bin/sh")).expect("leads somewhere"), root.join("usr/bin/dash"));
    assert_eq!(mode(&root.join("tmp")), 0o1777);
    assert_eq!(mode(&root.join("home/conda")), 0o1777);
    let passwd = fs::read_to_string(root.join("etc/passwd")).expect("reads");
    assert!(passwd.starts_with("root:x:0:0:") && passwd.ends_with("\nconda:x:1000:0:condaimg:/home/conda:/bin/sh\n"));

    let mut seen = BTreeMap::<&str, usize>::new();
    for entry in walkdir::WalkDir::new(root.join(PREFIX)) {
        let entry = entry.expect("an entry");
        let metadata = entry.path().symlink_metadata().expect("is there");
        assert_eq!((metadata.uid(), metadata.gid()), (0, 0), "{}", entry.path().display());
        let (kind, modes) = match metadata.file_type() {
            kind if kind.is_dir() => ("folder", &[0o755][..]),
            kind if kind.is_symlink() => ("link", &[0o777][..]),
            _ => ("file", &[0o644, 0o755][..]),
        };
        assert!(modes.contains(&(metadata.mode() & 0o7777)), "{:o} {}", metadata.mode(), entry.path().display());
        *seen.entry(kind).or_default() += 1;
    }
    assert!(seen["file"] > 1000 && seen["folder"] > 100 && seen["link"] > 5, "{seen:?}");
    assert_eq!(mode(&root.join(PREFIX).join("bin/python3.11")), 0o755);
}

fn mode(path: &Path) -> u32 {
    path.symlink_metadata().expect("is there").mode() & 0o7777
}

#[test]
fn oci_image_tool_finds_it_valid() {
    let mut tool = program("oci-image-tool", "oci-image-tool");
    succeed(tool.args(["validate", "--type", "image", "--ref", "name=1"]).arg(small().folder()));
}

#[test]
fn history_covers_every_layer_and_names_its_packages() {
    let (manifest, config) = (full().manifest(), full().config());
    let layers = manifest["layers"].as_array().expect("layers");
    let history = config["history"].as_array().expect("a history");
    assert!(history.iter().all(|entry| entry["empty_layer"] != true), "{history:?}");
    assert_eq!(history.len(), layers.len());
    assert_eq!(config["rootfs"]["diff_ids"].as_array().map(Vec::len), Some(layers.len()));
    for (entry, layer) in history.iter().zip(layers).skip(1) {
        let annotations = &layer["annotations"];
        let name = annotations["dev.condaimg.layer.name"].as_str().expect("a name");
        assert_eq!(entry["created_by"], format!("condaimg: {name}"));
        assert_eq!(entry["created"], config["created"]);
        assert_eq!(entry["comment"], annotations["dev.condaimg.layer.packages"]);
        assert!(annotations["dev.condaimg.layer.key"].as_str().is_some_and(|key| key.starts_with("sha256:")));
    }
}

/// What one layer holds below the prefix, and its package records.
fn look_into(layout: &Layout, digest: &str) -> (BTreeSet<String>, BTreeMap<String, Value>) {
    let mut tar = tar::Archive::new(layout.layer(digest));
    let (mut paths, mut records) = (BTreeSet::new(), BTreeMap::new());
    for entry in tar.entries().expect("a tar") {
        let mut entry = entry.expect("an entry");
        let path = String::from_utf8(entry.path_bytes().into_owned()).expect("UTF-8");
        let Some(path) = path.strip_prefix(&format!("{PREFIX}/")) else { continue };
        if entry.header().entry_type().is_dir() {
            continue;
        }
        assert!(paths.insert(path.to_owned()), "{path} is twice in {digest}");
        let record = path.strip_prefix("conda-meta/").and_then(|name| name.strip_suffix(".json"));
        if let Some(name) = record {
            let mut text = String::new();
            entry.read_to_string(&mut text).expect("reads");
            records.insert(name.to_owned(), json(&text));
        }
    }
    (paths, records)
}

#[test]
fn a_scanner_of_single_layers_finds_in_each_the_records_of_its_own_packages() {
    let manifest = full().manifest();
    let layers = &manifest["layers"].as_array().expect("layers")[1..];
    let mut all = BTreeSet::new();
    for layer in layers {
        let (mut paths, records) = look_into(full(), layer["digest"].as_str().expect("a digest"));
        let annotated = layer["annotations"]["dev.condaimg.layer.packages"].as_str().unwrap_or_default();
        let annotated: BTreeSet<&str> = annotated.split_whitespace().collect();
        assert_eq!(records.keys().map(String::as_str).collect::<BTreeSet<_>>(), annotated);
        for (name, record) in &records {
            assert!(all.insert(name.clone()), "{name} is in two layers");
            assert_eq!(
                format!("{}-{}-{}", text(record, "name"), text(record, "version"), text(record, "build")),
                *name
            );
            assert!(
                text(record, "url").ends_with(text(record, "fn")) && text(record, "sha256").len() == 64,
                "{record}"
            );
            // All that the record lists is in the same layer.
            for file in record["files"].as_array().expect("files") {
                let file = file.as_str().expect("a path");
                assert!(paths.remove(file), "{name} lists {file}, which is not in its layer");
            }
            paths.remove(&format!("conda-meta/{name}.json"));
        }
        // And nothing else is, but for byte code and what belongs to the environment as a whole.
        let environment = layer["annotations"]["dev.condaimg.layer.name"] == "environment";
        let foreign = paths.iter().find(|path| !path.ends_with(".pyc") && !environment);
        assert_eq!(foreign, None);
    }
    assert!(all.len() > 30, "{all:?}");
}

fn text<'a>(record: &'a Value, field: &str) -> &'a str {
    record[field].as_str().unwrap_or_else(|| panic!("no {field} in {record}"))
}

#[test]
fn buildah_builds_on_top_of_it() {
    let engine = Engine::fresh("buildah");
    let run = |arguments: &[&str]| succeed(engine.buildah().args(arguments)).trim().to_owned();
    let file = swept().join("app.py");
    fs::write(&file, "import click\nprint('hello from', click.__name__)\n").expect("writes");
    let container = run(&["from", &small().image()]);
    run(&["copy", "--chown=0:0", &container, &file.display().to_string(), "/app/app.py"]);
    run(&["config", "--cmd", r#"["python", "/app/app.py"]"#, "--label", "team=data", &container]);
    let on_top = Layout::at(swept().join("on-top"));
    run(&["commit", "--quiet", "--rm", &container, &on_top.image()]);

    let (ours, theirs) = (small().config(), on_top.config());
    let diff_ids = |config: &Value| config["rootfs"]["diff_ids"].as_array().expect("diff IDs").clone();
    assert_eq!(diff_ids(&theirs)[..diff_ids(&ours).len()], diff_ids(&ours)[..]);
    assert_eq!(diff_ids(&theirs).len(), diff_ids(&ours).len() + 1);
    for kept in ["Env", "User"] {
        assert_eq!(theirs["config"][kept], ours["config"][kept], "{kept}");
    }
    assert_eq!(theirs["config"]["Labels"]["team"], "data");
    let image = engine.pull(&on_top.image());
    assert_eq!(succeed(engine.run(&["--user=31337:0"]).arg(&image)), GREETING);
}

#[test]
fn archives_are_read_by_skopeo_and_loaded_by_podman() {
    let (oci, docker) = (swept().join("oci.tar"), swept().join("docker.tar"));
    let (oci, docker) = (oci.display().to_string(), docker.display().to_string());
    let tag = "registry.example/team/env:1";
    let outputs = [format!("oci-archive:{oci}"), format!("docker-archive:{docker}")];
    let printed = build(&["--tag", tag, "--output", &outputs[0], "--output", &outputs[1]]);
    assert_eq!(printed.trim(), small().digest());

    let inspected = json(&skopeo(&["inspect", &outputs[0]]));
    assert_eq!(inspected["Digest"].as_str(), Some(printed.trim()));
    let config = json(&skopeo(&["inspect", "--config", &outputs[1]]));
    assert_eq!(config["rootfs"], small().config()["rootfs"]);
    assert_eq!(config["config"], small().config()["config"]);
    assert!(skopeo(&["list-tags", &outputs[1]]).contains(tag));
    let copied = swept().join("from-docker-archive");
    skopeo(&["copy", &outputs[1], &format!("oci:{}:1", copied.display())]);

    for (name, archive) in [("load-oci", oci), ("load-docker", docker)] {
        let engine = Engine::fresh(name);
        let loaded = succeed(engine.podman().args(["load", "--quiet", "--input", &archive]));
        assert_eq!(loaded, format!("Loaded image: {tag}\n"));
        assert_eq!(greeting(&engine, tag), GREETING);
    }
}

#[test]
fn zstd_layers_are_copied_by_skopeo_and_run_by_podman() {
    let registry = LocalRegistry::start(Mode::Plain);
    let reference = format!("{}/team/zstd:1", registry.host());
    let printed = build(&["--push", "--tag", &reference, "--compression", "zstd:3"]);
    let manifest = json(&skopeo(&["inspect", "--raw", "--tls-verify=false", &format!("docker://{reference}")]));
    let ours = &manifest["layers"].as_array().expect("layers")[1..];
    assert!(ours.iter().all(|layer| layer["mediaType"] == "application/vnd.oci.image.layer.v1.tar+zstd"), "{ours:?}");
    // The files are those of the gzip image.
    let config = json(&skopeo(&["inspect", "--config", "--tls-verify=false", &format!("docker://{reference}")]));
    assert_eq!(config["rootfs"], small().config()["rootfs"]);

    let engine = Engine::fresh("zstd");
    let image = engine.pull(&format!("docker://{}", printed.trim()));
    for layer in digests(&manifest) {
        let fetched = registry.requests(&format!("GET /v2/team/zstd/blobs/{layer}"));
        assert_eq!(fetched, 1, "podman has another source for {layer}");
    }
    assert_eq!(greeting(&engine, &image), GREETING);

    let copied = Layout::at(swept().join("zstd-copy"));
    let from = format!("docker://{reference}");
    skopeo(&["copy", "--preserve-digests", "--src-tls-verify=false", &from, &copied.image()]);
    assert!(printed.trim().ends_with(&format!("@{}", copied.digest())), "{printed}");
}
