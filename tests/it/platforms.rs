//! Images for several platforms from one machine: each of its own packages, byte code made here, one index; and the
//! lock that holds them all.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::common::images::{self, digests, shared_cache, skopeo};
use crate::common::packages::{Channel, Format, Package};
use crate::common::registry::{LocalRegistry, Mode};
use crate::common::tree::{Image, Tree};
use crate::common::{Workspace, environment, example_base, example_channel, fail, program, run_output, succeed};

const BOTH: &str = "linux/arm64,linux/amd64";
/// `e_machine` in elf.h.
const MACHINES: [(&str, u16, &str); 2] = [("amd64", 62, "linux-64"), ("arm64", 183, "linux-aarch64")];

// ---- the example channel -------------------------------------------------------------------------------------

/// `condaimg build` for these platforms from the example channel, which has linux-64 and linux-aarch64, on the
/// example base, which has both, too.
fn build(workspace: &Workspace, platforms: &str) -> Command {
    let mut build = workspace.condaimg();
    build.args(["build", "--override-channels", "--channel"]).arg(example_channel());
    build.args(["--base", &format!("oci:{}:debian-multi", example_base().display()), "--platform", platforms]);
    build.env("CONDAIMG_CACHE_DIR", shared_cache());
    build
}

fn with_environment(dependencies: &[&str]) -> Workspace {
    let workspace = Workspace::new();
    workspace.file("environment.yml", environment(dependencies));
    workspace
}

fn read_json(path: &Path) -> Value {
    images::json(&fs_err::read_to_string(path).expect("reads"))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}"))
}

/// Pulls the image for one architecture into a layout of its own.
fn pulled(workspace: &Workspace, from: &str, architecture: &str) -> Image {
    let layout = workspace.path(&format!("pulled-{architecture}"));
    let to = format!("oci:{}", layout.display());
    skopeo(&["--override-arch", architecture, "copy", "--src-tls-verify=false", from, &to]);
    Image::read(&layout)
}

#[test]
fn an_index_of_two_platforms_is_pushed_from_one_machine() {
    let (registry, workspace) =
        (LocalRegistry::start(Mode::Plain), with_environment(&["python=3.11", "numpy", "flask"]));
    let tag = format!("{}/team/env:1", registry.host());
    let push = |metadata: &str| {
        let mut build = build(&workspace, BOTH);
        build.args(["--push", "--tag", &tag, "--annotation", "org.example.team=ours", "--digest-file", "digest"]);
        succeed(build.args(["--metadata-file", metadata]))
    };
    let printed = push("first.json");
    let writes = registry.requests("P");
    assert_eq!(push("second.json"), printed);
    assert_eq!(registry.requests("P"), writes, "the second push wrote to the registry");

    let raw = skopeo(&["inspect", "--raw", "--tls-verify=false", &format!("docker://{tag}")]);
    let index = images::json(&raw);
    assert_eq!(index["mediaType"], "application/vnd.oci.image.index.v1+json");
    let children = index["manifests"].as_array().expect("manifests");
    let platforms: Vec<&Value> = children.iter().map(|child| &child["platform"]).collect();
    assert_eq!(json!(platforms), json!(MACHINES.map(|(name, ..)| json!({"architecture": name, "os": "linux"}))));
    // What the user says of the image; what is only of one platform, as the lock's digest, is not there.
    assert_eq!(index["annotations"]["org.example.team"], "ours");
    assert_eq!(index["annotations"].get("dev.condaimg.lock"), None);
    let digest = condaimg::util::Digest::of(&raw).to_string();
    assert_eq!(printed, format!("{}/team/env@{digest}\n", registry.host()));
    assert_eq!(fs_err::read_to_string(workspace.path("digest")).expect("a digest").trim(), digest);

    for (name, machine, subdir) in MACHINES {
        let image = pulled(&workspace, &format!("docker://{tag}"), name);
        let child = children.iter().find(|child| child["platform"]["architecture"] == name).expect("is there");
        assert_eq!(image.digest.to_string(), child["digest"]);
        assert_eq!((&image.config["architecture"], &image.config["os"]), (&json!(name), &json!("linux")));
        assert_eq!(image.manifest["annotations"]["org.example.team"], "ours");
        is_for(&image.tree(), machine, subdir);
    }
    metadata_tells(&read_json(&workspace.path("first.json")), &digest, children);
    let [first, second] = ["first.json", "second.json"].map(|name| read_json(&workspace.path(name)));
    assert_eq!(second["uploaded-bytes"], 0);
    assert_eq!(first["platforms"][1]["digest"], second["platforms"][1]["digest"]);
}

/// All programs and libraries are for one kind of machine, and all records of its subdir or noarch.
fn is_for(tree: &Tree, machine: u16, subdir: &str) {
    let (mut programs, mut subdirs) = (BTreeMap::new(), BTreeSet::new());
    for (path, node) in tree.iter().filter(|(_, node)| matches!(node.kind, crate::common::tree::Kind::File(_))) {
        programs.extend(node.content().machine.map(|found| (path, found)));
        if path.contains("conda-meta/") && path.ends_with(".json") {
            subdirs.insert(text(&images::json(&node.text())["subdir"]).to_owned());
        }
    }
    // The interpreter, numpy, the libraries of both.
    assert!(programs.len() > 50, "{programs:?}");
    assert!(programs.contains_key(&"opt/conda/envs/default/bin/python3.11".to_owned()));
    programs.retain(|_, found| *found != machine);
    assert_eq!(programs, BTreeMap::new());
    assert_eq!(subdirs, BTreeSet::from([subdir.to_owned(), "noarch".to_owned()]));
}

fn metadata_tells(metadata: &Value, digest: &str, children: &[Value]) {
    assert_eq!((text(&metadata["digest"]), &metadata["pushed"]), (digest, &json!(true)));
    for of_one in ["platform", "config-digest", "lock", "layers"] {
        assert_eq!(metadata.get(of_one), None, "{of_one} is of one platform");
    }
    let platforms = metadata["platforms"].as_array().expect("platforms");
    assert_eq!(platforms.len(), children.len());
    let mut blobs = BTreeMap::new();
    for (platform, child) in platforms.iter().zip(children) {
        assert_eq!(platform["platform"], format!("linux/{}", text(&child["platform"]["architecture"])));
        assert_eq!(platform["digest"], child["digest"]);
        let layers = platform["layers"].as_array().expect("layers");
        let sizes: u64 = layers.iter().filter_map(|layer| layer["size"].as_u64()).sum();
        assert_eq!(platform["size"].as_u64(), Some(sizes));
        blobs.extend(layers.iter().map(|layer| (text(&layer["digest"]), layer["size"].as_u64().expect("a size"))));
    }
    assert_eq!(metadata["size"].as_u64(), Some(blobs.values().sum()));
}

#[test]
fn an_image_is_the_same_alone_and_with_others() {
    let workspace = with_environment(&["python=3.11", "click"]);
    let digest = |platforms: &str, output: &str| {
        succeed(build(&workspace, platforms).args(["--output", output, "--no-cache"])).trim().to_owned()
    };
    let both = digest(BOTH, "oci:both:1");
    let lock = fs_err::read_to_string(workspace.path("condaimg.lock")).expect("a lock");
    assert_eq!(digest("linux/amd64, linux/arm64,linux/amd64/v1,linux/arm64", "oci-archive:both.tar"), both);
    let alone = ["linux/amd64", "linux/arm64"].map(|platform| digest(platform, "oci:alone"));
    assert_eq!(fs_err::read_to_string(workspace.path("condaimg.lock")).expect("a lock"), lock);

    let index = images::json(&skopeo(&["inspect", "--raw", &format!("oci:{}:1", workspace.path("both").display())]));
    let children = index["manifests"].as_array().expect("manifests");
    assert_eq!(children.iter().map(|child| text(&child["digest"])).collect::<Vec<_>>(), alone);
    // Without a lock, too, for one platform alone.
    fs_err::remove_file(workspace.path("condaimg.lock")).expect("removes");
    assert_eq!(digest("linux/arm64", "oci:alone"), alone[1]);
    // Whole, for who looks at every blob of all platforms.
    let [from, to] = ["both", "copied"].map(|name| format!("oci:{}:1", workspace.path(name).display()));
    skopeo(&["copy", "--all", &from, &to]);
    let mut tool = program("oci-image-tool", "oci-image-tool");
    succeed(tool.args(["validate", "--type", "image", "--ref", "name=1"]).arg(workspace.path("both")));
    for (name, ..) in MACHINES {
        let archive = format!("oci-archive:{}", workspace.path("both.tar").display());
        assert_eq!(pulled(&workspace, &archive, name).config["architecture"], name);
    }
}

/// Path and content of the byte code that packages for all platforms have in an image.
fn byte_code(image: &Image) -> BTreeMap<String, String> {
    let tree = image.tree();
    let of_noarch = |path: &str| path.contains("/site-packages/") && path.ends_with(".pyc");
    let files = tree.into_iter().filter(|(path, _)| of_noarch(path));
    files.map(|(path, node)| (path, node.content().sha256.to_string())).collect()
}

#[test]
fn byte_code_is_what_the_platforms_own_python_would_make() {
    let workspace = with_environment(&["python=3.11", "click", "flask"]);
    succeed(&mut build(&workspace, BOTH));
    let layout = format!("oci:{}", workspace.path("image").display());
    // The one is made by the environment's own Python, the other by one that its lock names for this machine.
    let [native, foreign] = MACHINES.map(|(name, ..)| pulled(&workspace, &layout, name));
    let (native_code, foreign_code) = (byte_code(&native), byte_code(&foreign));
    assert!(native_code.len() > 100, "{native_code:?}");
    assert_eq!(native_code, foreign_code);
    // So that this test can fail: the two environments have Pythons of their own.
    let pythons = [&native, &foreign].map(|image| {
        let tree = image.tree();
        let record = tree.keys().find(|path| path.contains("conda-meta/python-3")).expect("a record").clone();
        images::json(&tree[&record].text())["sha256"].clone()
    });
    assert_ne!(pythons[0], pythons[1]);
    // Equal content is one blob for both.
    let layer = |image: &Image| {
        let named = image.layers.iter().zip(digests(&image.manifest));
        let of = named.filter(|(layer, _)| layer.name.as_deref().is_some_and(|name| name.ends_with("(bytecode)")));
        of.map(|(_, digest)| digest.clone()).collect::<Vec<_>>()
    };
    assert!(!layer(&native).is_empty());
    assert_eq!(layer(&native), layer(&foreign));
}

#[test]
fn a_lock_without_an_interpreter_for_this_machine_gets_one() {
    let workspace = with_environment(&["python=3.11", "click"]);
    let lock = || fs_err::read_to_string(workspace.path("condaimg.lock")).expect("a lock");
    let expected = succeed(build(&workspace, "linux/arm64").args(["--output", "oci:expected"]));
    let complete = lock();
    let at = complete.find("      interpreters:\n").expect("it names one");
    assert!(complete[at..].contains("        linux-64:\n") && complete[at..].contains("/python-3.11.2-"));
    let without = &complete[..at];
    workspace.file("condaimg.lock", without);

    // Everything is known: nothing is solved, nothing is changed.
    let mut known = build(&workspace, "linux/arm64");
    assert_eq!(succeed(known.args(["--output", "oci:known"])), expected);
    assert_eq!(lock(), without);
    for flag in ["--locked", "--frozen"] {
        let mut build = build(&workspace, "linux/arm64");
        let output = run_output(build.args([flag, "--no-cache", "--output", &format!("oci:{flag}")]));
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(told.contains("has no CPython of linux-64") && told.contains("linux/arm64"), "{told}");
        assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
        assert_eq!(lock(), without, "{flag} changed the lock");
    }
    let mut adding = build(&workspace, "linux/arm64");
    assert_eq!(succeed(adding.args(["--no-cache", "--output", "oci:adding"])), expected);
    assert_eq!(lock(), complete);
}

#[test]
fn a_base_without_the_platform_is_refused_by_name() {
    let workspace = with_environment(&["python=3.11"]);
    let only_one = format!("oci:{}:debian", example_base().display());
    let mut command = workspace.condaimg();
    command.args(["build", "--override-channels", "--channel"]).arg(example_channel());
    let told = fail(command.args(["--base", &only_one, "--platform", BOTH]), 1);
    assert!(told.contains("the image for linux/arm64") && told.contains("it is for linux/amd64"), "{told}");
    assert!(!workspace.path("condaimg.lock").exists() && !workspace.path("image").exists());
}

// ---- a channel that changes ----------------------------------------------------------------------------------

struct Bench {
    workspace: Workspace,
    channel: Channel,
}

impl Bench {
    /// `tool` for two platforms, `pure` for all; both in version 1.
    fn new() -> Self {
        let workspace = Workspace::new();
        let mut bench = Self { channel: Channel::new(workspace.path("channel")), workspace };
        bench.release("1");
        bench.workspace.file("environment.yml", environment(&["tool", "pure"]));
        bench
    }

    fn release(&mut self, version: &str) {
        for subdir in ["linux-64", "linux-aarch64"] {
            let tool =
                Package::new("tool", version).subdir(subdir).executable("bin/tool", format!("{subdir} {version}"));
            self.channel.add(&tool, Format::Conda);
        }
        let pure = Package::new("pure", version).noarch_generic().file("share/pure", version);
        self.channel.add(&pure, Format::Conda);
        self.channel.index();
    }

    fn build(&self, platforms: &str) -> Command {
        let mut build = self.workspace.condaimg();
        build.args(["build", "--override-channels", "--channel"]).arg(&self.channel.folder);
        build.args(["--base", "scratch", "--glibc", "2.36", "--platform", platforms]);
        build
    }

    fn lock(&self) -> String {
        fs_err::read_to_string(self.workspace.path("condaimg.lock")).expect("a lock")
    }
}

#[test]
fn a_platform_is_added_to_the_lock_and_the_others_stay() {
    let mut bench = Bench::new();
    let amd64 = succeed(&mut bench.build("linux/amd64"));
    let alone = bench.lock();
    bench.release("2");
    for flag in ["--locked", "--frozen"] {
        let told = fail(bench.build(BOTH).arg(flag), 1);
        assert!(told.contains("has nothing for linux/arm64") && told.contains("it is for linux/amd64"), "{told}");
    }
    assert_eq!(bench.lock(), alone);

    let told = run_output(&mut bench.build("linux/arm64"));
    let told = String::from_utf8_lossy(&told.stderr);
    assert!(told.contains("lock: + linux-aarch64, 2 packages"), "{told}");
    let both = bench.lock();
    let mut lines = both.lines();
    for line in alone.lines() {
        assert!(lines.any(|other| other == line), "`{line}` is gone or elsewhere in {both}");
    }
    // In the versions that the lock has already.
    assert!(both.contains("linux-aarch64/tool-1-0.conda") && !both.contains("-2-0.conda"), "{both}");

    // A subset uses the lock as it is.
    for platforms in ["linux/amd64", "linux/arm64", BOTH] {
        let built = succeed(bench.build(platforms).arg("--locked"));
        assert_eq!(built == amd64, platforms == "linux/amd64");
        assert_eq!(bench.lock(), both);
    }
}

#[test]
fn each_platform_of_a_lock_becomes_stale_on_its_own() {
    let bench = Bench::new();
    let before = succeed(&mut bench.build(BOTH));
    let frozen = succeed(bench.build("linux/amd64").arg("--frozen"));
    bench.workspace.file("environment.yml", environment(&["tool"]));
    succeed(&mut bench.build("linux/arm64"));
    succeed(bench.build("linux/arm64").arg("--locked"));
    for platforms in ["linux/amd64", BOTH] {
        let told = fail(bench.build(platforms).arg("--locked"), 1);
        assert!(told.contains("is stale for linux/amd64"), "{told}");
    }
    assert_eq!(succeed(bench.build("linux/amd64").arg("--frozen")), frozen, "the other platform's part changed");
    assert_ne!(succeed(bench.build(BOTH).arg("--frozen")), before);
    let lock = bench.lock();
    succeed(&mut bench.build(BOTH));
    assert!(lock.contains("pure-1-0.conda") && !bench.lock().contains("pure-1-0.conda"));
}

#[test]
fn variants_of_an_architecture_lie_in_one_lock() {
    let bench = Bench::new();
    let variants = "linux/amd64/v3,linux/amd64";
    let digest = succeed(&mut bench.build(variants));
    let lock = bench.lock();
    for part in ["- name: linux-64\n", "- name: linux-64-v3\n  subdir: linux-64\n", "__archspec=1=x86_64_v3"] {
        assert!(lock.contains(part), "`{part}` is missing in {lock}");
    }
    assert_eq!(succeed(bench.build(variants).arg("--locked")), digest);
    let layout = format!("oci:{}", bench.workspace.path("image").display());
    let index = images::json(&skopeo(&["inspect", "--raw", &layout]));
    assert_eq!(index["manifests"][0]["platform"].get("variant"), None);
    assert_eq!(index["manifests"][1]["platform"]["variant"], "v3");
}

#[test]
fn a_docker_archive_of_several_platforms_is_refused_before_any_work() {
    let bench = Bench::new();
    let told = fail(bench.build(BOTH).args(["--output", "oci:image", "--output", "docker-archive:image.tar"]), 2);
    assert!(told.contains("docker-archive:image.tar") && told.contains("oci-archive"), "{told}");
    for name in ["condaimg.lock", "image", "cache"] {
        assert!(!bench.workspace.path(name).exists(), "{name}");
    }
}

#[test]
fn a_platform_that_cannot_be_solved_is_named_and_no_lock_is_written() {
    let bench = Bench::new();
    let told = fail(&mut bench.build("linux/amd64,linux/s390x"), 1);
    assert!(told.contains("the image for linux/s390x") && told.contains("searched for linux-s390x"), "{told}");
    assert!(!bench.workspace.path("condaimg.lock").exists());
}

#[test]
fn a_python_that_this_machine_does_not_have_is_named_with_the_way_out() {
    let mut bench = Bench::new();
    for (subdir, version, build) in [
        ("linux-aarch64", "3.11.2", "0_cpython"),
        ("linux-64", "3.11.9", "0_cpython"),
        ("linux-64", "3.11.2", "0_73_pypy"),
    ] {
        let python = Package::new("python", version).subdir(subdir).build(build, 0);
        bench.channel.add(&python.executable("bin/python3.11", "no program"), Format::Conda);
    }
    let module = Package::new("module", "1").noarch_python().depends(&["python"]).file("site-packages/module.py", "");
    bench.channel.add(&module, Format::Conda);
    bench.channel.index();
    bench.workspace.file("environment.yml", environment(&["module"]));
    let told = fail(&mut bench.build("linux/arm64"), 1);
    for text in ["no CPython 3.11.2 of linux-64", "--bytecode off", "there is 3.11.9"] {
        assert!(told.contains(text), "`{text}` is missing in {told}");
    }
    assert!(!bench.workspace.path("condaimg.lock").exists());
    succeed(bench.build("linux/arm64").args(["--bytecode", "off"]));
    let told = fail(&mut bench.build("linux/arm64"), 1);
    assert!(told.contains("no CPython 3.11.2 of linux-64"), "{told}");
}
