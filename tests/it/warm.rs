//! `condaimg warm`: after it, builds fetch and make nothing, whatever was prepared: environments, locks, images.

mod downloads;
mod load;
mod shared;

use std::process::{Command, Stdio};

use serde_json::Value;

use crate::common::images::{json, skopeo};
use crate::common::pypi::PackageIndex;
use crate::common::registry::{LocalRegistry, Mode};
use crate::common::wheels::Wheel;
use crate::common::{Workspace, environment, example_base, example_channel, program, run_output, succeed};

/// An environment, and a base in a registry.
struct Bench {
    workspace: Workspace,
    registry: LocalRegistry,
}

impl Bench {
    fn new() -> Self {
        let bench = Self { workspace: Workspace::new(), registry: LocalRegistry::start(Mode::Plain) };
        bench.workspace.file("environment.yml", environment(&["python=3.11", "click"]));
        let source = format!("oci:{}:debian", example_base().display());
        skopeo(&["copy", "--quiet", "--dest-tls-verify=false", &source, &format!("docker://{}", bench.base())]);
        bench
    }

    fn base(&self) -> String {
        format!("{}/bases/debian:12", self.registry.host())
    }

    /// The program with the example channel and the base in the registry.
    fn run(&self, command: &str, more: &[&str]) -> Command {
        let mut program = self.workspace.condaimg();
        program.args([command, "--override-channels", "--channel"]).arg(example_channel());
        program.args(["--base", &self.base()]).args(more);
        program
    }

    fn warm(&self, more: &[&str]) -> Value {
        json(&succeed(self.run("warm", &["--json"]).args(more)))
    }

    /// Builds without the network; what it says of its layers.
    fn offline(&self, more: &[&str]) -> Value {
        let flags = ["--offline", "--output", "oci:out", "--metadata-file", "made.json"];
        succeed(self.run("build", &flags).args(more));
        json(&fs_err::read_to_string(self.workspace.path("made.json")).expect("reads"))
    }

    /// What the registry was asked for blobs.
    fn downloads(&self) -> usize {
        self.registry.blob_downloads().len()
    }
}

fn made(metadata: &Value) -> usize {
    metadata["layers"].as_array().expect("layers").iter().filter(|layer| layer["new"] == true).count()
}

fn states(item: &Value) -> Vec<&str> {
    let layers = item["platforms"][0]["layers"].as_array().expect("layers");
    layers.iter().map(|layer| layer["state"].as_str().expect("a state")).collect()
}

#[test]
fn after_it_a_build_needs_no_network_and_makes_nothing() {
    let bench = Bench::new();
    let report = bench.warm(&[]);
    let item = &report["items"][0];
    assert_eq!((&item["kind"], &item["error"]), (&"environment".into(), &Value::Null), "{report:#}");
    let states = states(item);
    assert_eq!(states[0], "fetched", "the base's: {report:#}");
    assert!(states.len() > 2 && states[1..].iter().all(|state| *state == "made"), "{report:#}");
    assert!(item["added"]["archives"]["size"].as_u64() > Some(1 << 20), "{report:#}");
    assert!(!bench.workspace.path("image").exists(), "it writes no image");

    let downloads = bench.downloads();
    let metadata = bench.offline(&["--locked"]);
    assert_eq!((made(&metadata), &metadata["digest"]), (0, &item["platforms"][0]["digest"]), "{metadata:#}");
    assert_eq!(bench.downloads(), downloads);
    let again = bench.warm(&[]);
    assert_eq!(again["items"][0]["added"], serde_json::json!({}), "{again:#}");
    assert!(self::states(&again["items"][0]).iter().all(|state| *state == "present"), "{again:#}");
    assert_eq!(bench.downloads(), downloads, "a second run moves nothing");

    // The lock alone, on another node.
    fs_err::remove_dir_all(bench.workspace.path("cache")).expect("goes");
    assert_eq!(bench.warm(&["condaimg.lock"])["items"][0]["platforms"][0]["digest"], metadata["digest"]);
    assert_eq!(made(&bench.offline(&["condaimg.lock"])), 0);
}

#[test]
fn wheels_are_prepared_too() {
    let _ = program("uv", "uv (pip install uv)");
    let bench = Bench::new();
    let mut index = PackageIndex::start(bench.workspace.path("served"));
    index.add(&Wheel::new("app", "1.0").file("app.py", "VERSION = '1.0'\n"));
    let text = "channels: [conda-forge]\ndependencies:\n  - python=3.11\n  - pip:\n    - app\n";
    bench.workspace.file("environment.yml", text);
    succeed(bench.run("warm", &[]).env("PIP_INDEX_URL", index.url()));
    drop(index);
    let metadata = bench.offline(&["--locked"]);
    assert_eq!(made(&metadata), 0, "{metadata:#}");
    assert!(metadata.to_string().contains("\"app"), "{metadata:#}");
}

#[test]
fn the_layers_of_an_image_are_known_to_builds() {
    let bench = Bench::new();
    let tag = format!("{}/team/app:1", bench.registry.host());
    succeed(&mut bench.run("build", &["--push", "--tag", &tag, "--output", "oci:kept"]));
    for image in [tag.as_str(), "oci:kept"] {
        fs_err::remove_dir_all(bench.workspace.path("cache")).expect("goes");
        let report = bench.warm(&[image]);
        assert_eq!(report["items"][0]["kind"], "image", "{report:#}");
        assert!(states(&report["items"][0]).iter().all(|state| *state == "fetched"), "{report:#}");
        let again = bench.warm(&[image]);
        assert_eq!(again["items"][0]["added"], serde_json::json!({}), "{again:#}");
        // No archive is fetched for a build of what is in the image.
        succeed(&mut bench.run("build", &["--locked", "--output", "oci:out", "--metadata-file", "made.json"]));
        let metadata = json(&fs_err::read_to_string(bench.workspace.path("made.json")).expect("reads"));
        assert_eq!((made(&metadata), &metadata["digest"]), (0, &report["items"][0]["platforms"][0]["digest"]));
        let archives = fs_err::read_dir(bench.workspace.path("cache/v1/archives")).expect("reads");
        assert_eq!(archives.count(), 0, "{image}");
    }
}

#[test]
fn what_fails_does_not_stop_the_rest() {
    let bench = Bench::new();
    let missing = format!("{}/none/such:1", bench.registry.host());
    let output = bench.run("warm", &["--json", &missing, ".", "none.yml", "--max-size", "1K"]).output().expect("runs");
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("2 of 3 could not be prepared") && told.contains("none.yml"), "{told}");
    assert!(told.contains(&format!("the image `{missing}` cannot be fetched")), "{told}");
    let report = json(&String::from_utf8_lossy(&output.stdout));
    let failed: Vec<bool> = (0..3).map(|index| report["items"][index]["error"].is_string()).collect();
    assert_eq!(failed, [true, false, true], "{report:#}");
    // What was used just now stays.
    assert_eq!(report["pruned"]["removed"], 0, "{report:#}");
    assert_eq!(made(&bench.offline(&["--locked"])), 0);
}

#[test]
fn many_processes_share_one_store() {
    let bench = Bench::new();
    succeed(&mut bench.run("lock", &[]));
    let start = |command: &mut Command| command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
    let mut running = Vec::new();
    for number in 0..3 {
        running.push(start(&mut bench.run("warm", &["--locked"])));
        running.push(start(&mut bench.run("build", &["--locked", "--output", &format!("oci:out-{number}")])));
        running.push(start(bench.workspace.condaimg().args(["cache", "prune", "--max-size", "1K"])));
    }
    for child in running {
        let output = child.wait_with_output().expect("ends");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let index = |number| fs_err::read(bench.workspace.path(&format!("out-{number}/index.json"))).expect("reads");
    assert!(index(0) == index(1) && index(1) == index(2), "one image");
    assert_eq!(made(&bench.offline(&["--locked"])), 0);
    let left = run_output(bench.workspace.condaimg().args(["cache", "ls", "--json"])).stdout;
    assert!(!String::from_utf8_lossy(&left).contains("unfinished"), "nothing half-done is left");
}
