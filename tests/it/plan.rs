//! `condaimg plan`, and the layer policies that are shipped: what a plan says is what a build does.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::common::file_server::FileServer;
use crate::common::packages::{Channel, Format, Package};
use crate::common::schema::misfit;
use crate::common::{Workspace, environment, example_base, example_channel, fail, run_output, succeed};

const SCHEMA: &str = include_str!("../../docs/plan.schema.json");

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).expect("JSON")
}

/// A workspace with the main example: an ordinary Python environment on the example base.
struct Bench {
    workspace: Workspace,
}

impl Bench {
    fn new() -> Self {
        let workspace = Workspace::new();
        workspace.file("environment.yml", environment(&["python=3.11", "numpy", "flask>=3", "click", "sqlite"]));
        Self { workspace }
    }

    fn condaimg(&self, command: &str, flags: &[&str]) -> Command {
        let mut program = self.workspace.condaimg();
        program.args([command, "--override-channels", "--channel"]).arg(example_channel());
        program.args(["--base", &format!("oci:{}:debian", example_base().display())]).args(flags);
        program
    }

    fn plan(&self, flags: &[&str]) -> Value {
        let plan = parsed(&succeed(self.condaimg("plan", flags).arg("--json")));
        assert_eq!(misfit(&parsed(SCHEMA), &plan, Path::new("")), None, "{plan:#}");
        plan["platforms"][0].clone()
    }

    /// Builds with the flags; the layers' keys and names, lowest first, without the base's.
    fn built(&self, flags: &[&str]) -> Vec<(String, String)> {
        let _ = fs_err::remove_dir_all(self.workspace.path("out"));
        succeed(self.condaimg("build", flags).args(["--output", "oci:out"]));
        let read =
            |path: &str| parsed(&fs_err::read_to_string(self.workspace.path("out").join(path)).expect("is there"));
        let digest = read("index.json")["manifests"][0]["digest"].as_str().expect("a digest").replace(':', "/");
        let manifest = read(&format!("blobs/{digest}"));
        let layers = manifest["layers"].as_array().expect("layers").iter();
        let annotation = |layer: &Value, name: &str| Some(layer["annotations"][name].as_str()?.to_owned());
        let ours = layers.filter_map(|layer| {
            Some((annotation(layer, "dev.condaimg.layer.key")?, annotation(layer, "dev.condaimg.layer.name")?))
        });
        ours.collect()
    }
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

fn layers(platform: &Value) -> Vec<(String, String)> {
    let layers = platform["layers"].as_array().expect("layers");
    layers.iter().map(|layer| (text(&layer["key"]), text(&layer["name"]))).collect()
}

/// Package → the package that its layer is named after.
fn places(platform: &Value) -> BTreeMap<String, String> {
    let lead = |layer: &Value| text(&layer["name"]).split(" + ").next().expect("a name").to_owned();
    by_package(platform, lead)
}

/// Package → the tier of its layer.
fn tiers(platform: &Value) -> BTreeMap<String, String> {
    by_package(platform, |layer| text(&layer["tier"]))
}

fn by_package(platform: &Value, told: impl Fn(&Value) -> String) -> BTreeMap<String, String> {
    let layers = platform["layers"].as_array().expect("layers").iter().filter(|layer| layer["kind"] == "packages");
    let of_layer = |layer: &Value| {
        let name = told(layer);
        let packages = layer["packages"].as_array().expect("packages").clone();
        packages.into_iter().map(move |package| (text(&package["name"]), name.clone()))
    };
    layers.flat_map(of_layer).collect()
}

/// The keys of a tier's layers.
fn of_tier(platform: &Value, tier: &str) -> BTreeSet<String> {
    let layers = platform["layers"].as_array().expect("layers").iter();
    layers.filter(|layer| layer["tier"] == tier).map(|layer| text(&layer["key"])).collect()
}

fn cost(platform: &Value, which: &str, model: &str) -> f64 {
    platform.pointer(&format!("/expected-pull/{which}/{model}")).and_then(Value::as_f64).expect("a number")
}

/// With each policy: the plan is what is built, and has the layers that the policy promises.
#[test]
fn shipped_policies_do_what_they_say() {
    let bench = Bench::new();
    for policy in ["default", "shared", "tiers", "single", "per-package", "gpu", "org-base"] {
        let flags = ["--layers", policy];
        let plan = bench.plan(&flags);
        assert_eq!(layers(&plan), bench.built(&flags), "{policy}");
        let (places, tier) = (places(&plan), tiers(&plan));
        let packages = plan["packages"].as_u64().expect("a number") as usize;
        assert_eq!(places.len(), packages, "{policy}");
        let tiers: Vec<String> = plan["layers"]
            .as_array()
            .expect("layers")
            .iter()
            .filter_map(|it| Some(it["tier"].as_str()?.to_owned()))
            .collect();
        match policy {
            "default" => {
                assert_eq!((&*places["openssl"], &*places["numpy"]), ("openssl", "numpy"));
                let by_size = bench.plan(&["--layers", "tiers"]);
                for model in ["blob", "chain"] {
                    assert!(cost(&plan, "plan", model) <= cost(&by_size, "plan", model), "{model}: {plan:#}");
                }
                let names: BTreeSet<&str> = tiers.iter().map(String::as_str).collect();
                assert_eq!(names, BTreeSet::from(["project-packages", "python", "scientific"]));
            }
            "shared" => {
                // Another image of the organisation, with other packages.
                bench.workspace.file("other.yml", environment(&["python=3.11", "jinja2", "numpy"]));
                let other = bench.plan(&["--layers", policy, "other.yml"]);
                assert_eq!(of_tier(&plan, "python"), of_tier(&other, "python"));
                assert!(of_tier(&plan, "python").len() > 3, "{plan:#}");
            }
            "tiers" => {
                assert_eq!((&*tier["openssl"], &*tier["flask"]), ("python", "project-packages"));
                assert_eq!(&*places["numpy"], "numpy");
            }
            "single" => {
                let names: Vec<String> = layers(&plan).into_iter().map(|(_, name)| name).collect();
                assert_eq!(names, [format!("numpy + {} more", packages - 1).as_str(), "environment"]);
            }
            "per-package" => {
                assert!(places.iter().all(|(package, layer)| package == layer), "{places:?}");
                assert_eq!(tiers[0], "python");
            }
            "gpu" => assert_eq!(&*places["numpy"], "numpy"),
            "org-base" => {
                assert_eq!((&*tier["libffi"], &*tier["openssl"]), ("runtime", "python"));
                assert_eq!((&*tier["numpy"], &*tier["flask"]), ("scientific", "shared-packages"));
                assert!(layers(&plan).len() <= 12, "{plan:#}");
                assert_eq!(tiers[0], "runtime", "most stable first");
            }
            other => panic!("nothing is promised of the policy `{other}`"),
        }
    }
}

/// A channel of small packages that share layers, and the program on it.
struct Small {
    workspace: Workspace,
    channel: Channel,
}

impl Small {
    fn new() -> Self {
        let workspace = Workspace::new();
        let mut channel = Channel::new(workspace.path("channel"));
        channel.add_all(&[("app", "1.0", &["lib", "other"]), ("lib", "1.0", &[]), ("other", "1.0", &[])]);
        workspace.file("environment.yml", environment(&["app"]));
        Self { workspace, channel }
    }

    fn condaimg(&self, command: &str) -> Command {
        let mut program = self.workspace.condaimg();
        program.args([command, "--override-channels", "--base", "scratch", "--glibc", "2.36", "--channel"]);
        program.arg(&self.channel.folder);
        program
    }

    /// The layers of the image in `image`, as its manifest has them.
    fn built(&self, flags: &[&str]) -> Vec<Value> {
        succeed(self.condaimg("build").args(flags));
        let read =
            |path: &str| parsed(&fs_err::read_to_string(self.workspace.path("image").join(path)).expect("is there"));
        let digest = text(&read("index.json")["manifests"][0]["digest"]).replace(':', "/");
        read(&format!("blobs/{digest}"))["layers"].as_array().expect("layers").clone()
    }
}

#[test]
fn layers_tell_content_tier_and_role() {
    let small = Small::new();
    small.workspace.file("src/app.py", "print(1)\n");
    let flags = ["--layers", "tiers", "--copy", "src:/app"];
    let layers = small.built(&flags);
    let told = |name: &str| layers.iter().map(|it| annotation(it, name).as_str()).collect::<Vec<_>>();
    assert_eq!(told("name"), ["app + 2 more", "project-files", "environment"].map(Some));
    assert_eq!(told("role"), ["packages", "project-files", "environment"].map(Some));
    assert_eq!(told("tier"), [Some("project-packages"), None, None]);
    let plan = parsed(&succeed(small.condaimg("plan").args(flags).arg("--json")));
    let planned = plan["platforms"][0]["layers"].as_array().expect("layers");
    for (layer, planned) in layers.iter().zip(planned) {
        assert_eq!((annotation(layer, "name"), annotation(layer, "role")), (&planned["name"], &planned["kind"]));
        assert_eq!(annotation(layer, "tier"), &planned["tier"]);
    }
}

/// An annotation of a layer; null if there is none.
fn annotation<'a>(layer: &'a Value, name: &str) -> &'a Value {
    &layer["annotations"][format!("dev.condaimg.layer.{name}")]
}

#[test]
fn a_release_keeps_the_names_of_layers() {
    let mut small = Small::new();
    let names = |layers: Vec<Value>| -> Vec<(String, String)> {
        let told = |it: &Value| (text(annotation(it, "name")), text(&it["digest"]));
        layers.iter().map(told).collect()
    };
    let before = names(small.built(&[]));
    small.channel.add_all(&[("lib", "2.0", &[])]);
    succeed(small.condaimg("lock").args(["--upgrade", "lib"]));
    let after = names(small.built(&["--locked"]));
    assert_ne!(before, after, "something changed");
    let only = |layers: &[(String, String)]| layers.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    assert_eq!(only(&before), only(&after));
}

/// Every file below a directory, with its content, except the cache and the home.
fn everything(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = walkdir::WalkDir::new(folder).into_iter().filter_map(Result::ok).filter(|it| it.file_type().is_file());
    let named = files.map(|it| (it.path().strip_prefix(folder).expect("below").display().to_string(), it));
    let own = named.filter(|(path, _)| !path.starts_with("cache/") && !path.starts_with("home/"));
    own.map(|(path, it)| (path, fs_err::read(it.path()).expect("reads"))).collect()
}

#[test]
fn a_plan_writes_a_lock_only_if_asked() {
    let small = Small::new();
    let before = everything(&small.workspace.path(""));
    let planned = |flags: &[&str]| parsed(&succeed(small.condaimg("plan").arg("--json").args(flags)));
    let plan = planned(&[]);
    assert!(everything(&small.workspace.path("")) == before, "nothing is written");
    let written = planned(&["--write-lock"]);
    assert_eq!(written, plan);
    assert!(small.workspace.path("condaimg.lock").exists());
    assert_eq!(planned(&["--locked"]), plan, "it is the lock of the plan");

    // A stale lock stays as it is.
    small.workspace.file("environment.yml", environment(&["lib"]));
    let before = everything(&small.workspace.path(""));
    assert_eq!(planned(&[])["platforms"][0]["packages"], 1);
    assert!(everything(&small.workspace.path("")) == before, "nothing is written");
    let told = run_output(small.condaimg("plan").arg("--json"));
    let told = String::from_utf8_lossy(&told.stderr);
    assert!(told.contains("condaimg.lock") && told.contains("`--write-lock`"), "{told}");
}

#[test]
fn a_plan_tells_what_is_known_and_builds_nothing() {
    let bench = Bench::new();
    succeed(&mut bench.condaimg("lock", &[]));
    fs_err::remove_dir_all(bench.workspace.path("cache/v1/archives")).expect("removes");
    // Neither the channel's archives nor its index are asked for.
    let offline = ["--locked", "--offline"];
    let before = bench.plan(&offline);
    let archives = fs_err::read_dir(bench.workspace.path("cache/v1/archives")).map_or(0, Iterator::count);
    assert!(archives == 0 && !bench.workspace.path("image").exists(), "{archives}");
    let blobs = |platform: &Value| {
        platform["layers"].as_array().expect("layers").iter().filter(|it| it["blob"].is_object()).count()
    };
    assert_eq!(blobs(&before), 0);
    bench.built(&[]);
    let after = bench.plan(&offline);
    assert_eq!(blobs(&after), layers(&after).len(), "all are in the store now");
    assert_eq!(layers(&after), layers(&before));

    // The lock is that of the image.
    let metadata = bench.workspace.path("metadata.json");
    succeed(bench.condaimg("build", &[]).arg("--metadata-file").arg(&metadata));
    let metadata = parsed(&fs_err::read_to_string(metadata).expect("metadata"));
    assert_eq!(metadata["lock"], after["lock"]);

    // The alternatives are what they are called.
    let single = bench.plan(&["--layers", "single"]);
    for model in ["blob", "chain"] {
        let [own, one, tiers, apart] =
            ["plan", "alternatives/single", "alternatives/tiers", "alternatives/per-package"]
                .map(|which| cost(&after, which, model));
        assert!(own < one && tiers < one && apart < one, "{model}: {apart} {own} {tiers} {one}");
        // A bound, and worse ways, are those of one model only.
        assert!(model == "chain" || (apart <= own && own < tiers), "{apart} {own} {tiers}");
        assert!((cost(&single, "plan", model) - one).abs() < 1.0, "{model}");
    }
    assert_eq!(cost(&after, "alternatives/single", "blob"), cost(&after, "alternatives/single", "chain"));
}

#[test]
fn people_get_a_table() {
    let bench = Bench::new();
    let table = succeed(&mut bench.condaimg("plan", &[]));
    for expected in [
        "policy default, at most 32 layers, gzip:",
        "linux/amd64: ",
        "`python` needs it; where updates are expected to cost least",
        "like `numpy*` of tier scientific; where updates are expected to cost least",
        "no other tier takes it; where updates are expected to cost least",
        "expected to be pulled",
        "a layer for each package",
    ] {
        assert!(table.contains(expected), "{expected}: {table}");
    }
    assert_eq!(succeed(&mut bench.condaimg("explain", &[])), table, "by its other name");
    let by_size = succeed(&mut bench.condaimg("plan", &["--layers", "tiers"]));
    for expected in [
        "`python` needs it; the tier is one layer",
        "like `numpy*` of tier scientific; large enough for its own layer",
        "no other tier takes it; shares the tier's layer",
    ] {
        assert!(by_size.contains(expected), "{expected}: {by_size}");
    }
    let limited = succeed(&mut bench.condaimg("plan", &["--max-layers", "3"]));
    assert!(limited.contains("joined with others because of the limit"), "{limited}");
    // Two platforms, project files, a lock as PATH.
    succeed(&mut bench.condaimg("lock", &[]));
    bench.workspace.file("src/app.py", "print(1)\n");
    let more = bench.plan(&["--copy", "src:/app", "condaimg.lock"]);
    let kinds: Vec<String> = more["layers"].as_array().expect("layers").iter().map(|it| text(&it["kind"])).collect();
    assert_eq!(kinds[kinds.len() - 2..], ["project-files", "environment"]);
    assert_eq!(layers(&more), bench.built(&["--copy", "src:/app"]));
}

/// CUDA is below everything else; it needs no GPU here.
#[test]
fn a_gpu_environment_has_cuda_in_a_tier_of_its_own() {
    let workspace = Workspace::new();
    let mut channel = Channel::new(workspace.path("channel"));
    // Larger than 8 MB when packed, too.
    let noise: Vec<u8> =
        (0..3_000_000_u64).flat_map(|it| it.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes()).collect();
    for package in [
        Package::new("cuda-version", "12.4").noarch_generic().file("share/cuda-version", ""),
        Package::new("libcublas", "12.4.5").depends(&["cuda-version"]).file("lib/libcublas.so", &noise),
        Package::new("cudnn", "9.1").depends(&["libcublas", "__cuda"]).file("lib/libcudnn.so", "cudnn"),
        Package::new("pytorch", "2.4").depends(&["cudnn"]).file("lib/libtorch.so", "torch"),
        Package::new("app", "1.0").depends(&["pytorch"]).file("share/app", "app"),
    ] {
        channel.add(&package, Format::Conda);
    }
    channel.index();
    workspace.file("environment.yml", environment(&["app"]));
    let condaimg = |command: &str| {
        let mut program = workspace.condaimg();
        program.args([command, "--override-channels", "--base", "scratch", "--glibc", "2.36", "--cuda", "12.4"]);
        program.args(["--layers", "gpu", "--channel"]).arg(&channel.folder);
        program
    };
    let plan = parsed(&succeed(condaimg("plan").arg("--json")));
    let platform = &plan["platforms"][0];
    let tiers: Vec<String> = platform["layers"]
        .as_array()
        .expect("layers")
        .iter()
        .filter_map(|it| Some(format!("{} {}", it["tier"].as_str()?, it["name"].as_str()?)))
        .collect();
    assert_eq!(tiers[0], "cuda libcublas", "its gigabytes lie at the bottom");
    let cuda: Vec<&String> = tiers.iter().filter(|it| it.starts_with("cuda ")).collect();
    assert_eq!(cuda.len(), 2, "{tiers:?}");
    assert_eq!(places(platform)["cudnn"], places(platform)["cuda-version"]);
    succeed(&mut condaimg("build"));
}

#[test]
fn a_policy_of_ones_own_has_a_limit_of_its_own() {
    let bench = Bench::new();
    let policy =
        "own-layer: 500000\nmax-layers: 4\ntiers:\n  - name: web\n    packages: [flask, 'wer*']\n  - name: rest\n";
    bench.workspace.file("mine.yaml", policy);
    let flags = ["--layers", "./mine.yaml"];
    let plan = bench.plan(&flags);
    assert!(layers(&plan).len() <= 4, "{plan:#}");
    assert_eq!((&*tiers(&plan)["werkzeug"], &*tiers(&plan)["flask"]), ("web", "web"));
    assert_eq!(layers(&plan), bench.built(&flags));
    assert!(layers(&bench.plan(&["--layers", "./mine.yaml", "--max-layers", "9"])).len() > 4, "a flag comes first");

    bench.workspace.file("wrong.yaml", policy.replace("packages:", "package:"));
    let message = fail(&mut bench.condaimg("plan", &["--layers", "./wrong.yaml"]), 1);
    assert!(message.contains("wrong.yaml") && message.contains("did you mean `packages`?"), "{message}");
    let message = fail(&mut bench.condaimg("plan", &["--layers", "singel"]), 2);
    assert!(message.contains("did you mean `single`?") && message.contains("org-base"), "{message}");
}

/// What a channel's server is asked for when a plan is made from a lock: nothing.
#[test]
fn a_lock_is_enough() {
    let workspace = Workspace::new();
    let mut channel = Channel::new(workspace.path("channel"));
    channel.add_all(&[("app", "1.0", &["lib"]), ("lib", "1.0", &[])]);
    let server = FileServer::start(&channel.folder);
    workspace.file("environment.yml", environment(&["app"]));
    let condaimg = |command: &str| {
        let mut program = workspace.condaimg();
        program.args([
            command,
            "--override-channels",
            "--base",
            "scratch",
            "--glibc",
            "2.36",
            "--channel",
            &server.url,
        ]);
        program
    };
    succeed(&mut condaimg("lock"));
    fs_err::remove_dir_all(workspace.path("cache")).expect("removes");
    let asked = server.seen("").len();
    let plan = parsed(&succeed(condaimg("plan").arg("--json")));
    assert_eq!(plan["platforms"][0]["packages"], 2);
    assert_eq!(server.seen("").len(), asked);
}
