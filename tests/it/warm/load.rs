//! `condaimg warm --load`: engines have the images, and are given nothing twice.

use std::os::unix::process::ExitStatusExt as _;
use std::process::Command;

use serde_json::{Value, json};

use super::{Bench, made};
use crate::common::daemons::Daemon;
use crate::common::engine::Engine;
use crate::common::{Workspace, environment, fail, program, succeed};
use crate::killed::run_to;

/// Each engine, and the variables by which its program finds it.
fn variables_of(
    docker: &Daemon,
    containerd: &Daemon,
    podman: &Engine,
) -> [(&'static str, Vec<(&'static str, String)>); 3] {
    let of_podman = podman.variables().map(|(name, path)| (name, path.display().to_string()));
    [
        ("docker", vec![docker.address.clone()]),
        ("containerd", vec![containerd.address.clone()]),
        ("podman", of_podman.to_vec()),
    ]
}

const NAMES: [&str; 2] = ["registry.example/team/env:1", "registry.example/team/env:latest"];

impl Bench {
    /// `warm --load ENGINE` with the variables by which the engine's program finds it.
    fn load(&self, engine: &str, variables: &[(&str, String)], more: &[&str]) -> Command {
        let mut program = self.run("warm", &["--json", "--load", engine]);
        program.args(more).envs(variables.iter().map(|(name, value)| (*name, value)));
        program
    }

    /// An environment, then another image, then the first again; what was said of each.
    fn loads(&self, engine: &str, variables: &[(&str, String)]) -> [Value; 3] {
        let tags = ["--tag", NAMES[0], "--tag", NAMES[1]];
        let item = |more: &[&str]| {
            let told = super::json(&succeed(&mut self.load(engine, variables, more)));
            told["items"][0].clone()
        };
        [item(&tags), item(&[&self.other()]), item(&tags)]
    }

    /// An image in the registry, of two small layers; pushed when it is not there.
    fn other(&self) -> String {
        let tag = format!("{}/team/other:1", self.registry.host());
        if self.registry.uploads().is_empty() || !self.workspace.path("pushed").exists() {
            self.workspace.file("other/environment.yml", environment(&["tzdata"]));
            succeed(&mut self.run("build", &["other", "--push", "--tag", &tag]));
            self.workspace.file("pushed", "");
        }
        tag
    }
}

fn entry(engine: &str, names: &[&str], state: &str) -> Value {
    json!([{"engine": engine, "names": names, "state": state}])
}

fn digest(item: &Value) -> &str {
    item["platforms"][0]["digest"].as_str().expect("a digest")
}

#[test]
fn podman_runs_what_was_prepared() {
    let (bench, engine) = (Bench::new(), Engine::fresh("podman-1"));
    let variables = engine.variables().map(|(name, path)| (name, path.display().to_string()));
    let [first, other, again] = bench.loads("podman", &variables);
    assert_eq!(first["loaded"], entry("podman", &NAMES, "loaded"));
    assert_eq!(other["loaded"], entry("podman", &[&bench.other()], "loaded"));
    assert_eq!(again["loaded"], entry("podman", &NAMES, "present"));
    let inspect = |name: &str| succeed(engine.podman().args(["image", "inspect", "--format", "{{.Digest}}", name]));
    for (name, item) in [(NAMES[0], &first), (NAMES[1], &first), (bench.other().as_str(), &other)] {
        assert_eq!(inspect(name).trim(), digest(item), "{name}");
    }
    let printed = succeed(engine.run(&[]).args([NAMES[1], "python", "-c", "import click; print('fine')"]));
    assert_eq!(printed, "fine\n");

    // A name that somebody gave to another image.
    succeed(engine.podman().args(["tag", &bench.other(), NAMES[0]]));
    let told = succeed(&mut bench.load("podman", &variables, &["--tag", NAMES[0]]));
    assert_eq!(super::json(&told)["items"][0]["loaded"], entry("podman", &NAMES[..1], "loaded"));
    assert_eq!(inspect(NAMES[0]).trim(), digest(&first));
    let listed = succeed(engine.podman().args(["images", "--all", "--format", "{{.Repository}}"]));
    assert!(listed.lines().all(|name| name == "registry.example/team/env" || name.ends_with("team/other")), "{listed}");
    let left = fs_err::read_dir(bench.workspace.path("cache/v1/tmp")).expect("reads");
    assert_eq!(left.count(), 0, "nothing half-done is left");
}

#[test]
fn docker_has_what_was_prepared() {
    let (bench, docker) = (Bench::new(), Daemon::docker("docker"));
    let [first, other, again] = bench.loads("docker", std::slice::from_ref(&docker.address));
    assert_eq!(first["loaded"], entry("docker", &NAMES, "loaded"));
    assert_eq!(other["loaded"], entry("docker", &[&bench.other()], "loaded"));
    assert_eq!(again["loaded"], entry("docker", &NAMES, "present"));
    let listed = succeed(docker.client().args(["images", "--format", "{{.Repository}}:{{.Tag}}"]));
    assert!(NAMES.iter().all(|name| listed.contains(name)), "{listed}");
    // Not run: not every place where these tests run lets docker make cgroups.
    let container = succeed(docker.client().args(["create", "--network=none", NAMES[1]]));
    let link = format!("{}:/opt/conda/envs/default/bin/python", container.trim());
    let target = bench.workspace.path("python");
    succeed(docker.client().args(["cp", &link]).arg(&target));
    assert_eq!(fs_err::read_link(target).expect("a link").to_str(), Some("python3.11"));
}

#[test]
fn containerd_has_what_was_prepared_where_kubernetes_looks() {
    let (bench, containerd) = (Bench::new(), Daemon::containerd("containerd"));
    let address = containerd.address.clone();
    let [first, other, again] = bench.loads("containerd", std::slice::from_ref(&address));
    assert_eq!(first["loaded"], entry("containerd", &NAMES, "loaded"));
    assert_eq!(other["loaded"], entry("containerd", &[&bench.other()], "loaded"));
    assert_eq!(again["loaded"], entry("containerd", &NAMES, "present"));
    let images = |namespace: &str| {
        let listed = succeed(containerd.client().args(["--namespace", namespace, "images", "check"]));
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        listed.lines().skip(1).map(words).collect::<Vec<_>>()
    };
    let there = images("k8s.io");
    for (name, item) in [(NAMES[0], &first), (NAMES[1], &first), (bench.other().as_str(), &other)] {
        let words = there.iter().find(|words| words[0] == name).expect(name);
        assert_eq!((words[2].as_str(), words[3].as_str()), (digest(item), "complete"), "{words:?}");
        assert_eq!(words.last().map(String::as_str), Some("true"), "it is unpacked: {words:?}");
    }
    let elsewhere = [address, ("CONTAINERD_NAMESPACE", "builds".to_owned())];
    let told = succeed(&mut bench.load("containerd", &elsewhere, &["--tag", NAMES[0]]));
    assert_eq!(super::json(&told)["items"][0]["loaded"], entry("containerd", &NAMES[..1], "loaded"));
    assert_eq!(images("builds").len(), 1);
}

#[test]
fn a_damaged_layer_reaches_no_engine() {
    let (bench, docker, containerd) = (Bench::new(), Daemon::docker("docker-2"), Daemon::containerd("containerd-2"));
    let podman = Engine::fresh("podman-3");
    bench.workspace.file("environment.yml", environment(&["tzdata"]));
    let item = bench.warm(&[])["items"][0].clone();
    let layers = item["platforms"][0]["layers"].as_array().expect("layers");
    let damaged = layers[1]["digest"].as_str().expect("a digest").replace(':', "/");
    let path = bench.workspace.path("cache/v1/blobs").join(damaged);
    let whole = fs_err::read(&path).expect("reads");
    for (engine, variables) in variables_of(&docker, &containerd, &podman) {
        let mut bytes = whole.clone();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs_err::write(&path, bytes).expect("writes");
        succeed(&mut bench.load(engine, &variables, &["--locked", "--tag", NAMES[0]]));
        assert!(fs_err::read(&path).expect("reads") == whole, "{engine}: it was made again");
    }
}

#[test]
fn killed_while_an_engine_takes_the_image_the_next_run_gives_it_again() {
    let (bench, podman) = (Bench::new(), Engine::fresh("podman-4"));
    let (docker, containerd) = (Daemon::docker("docker-3"), Daemon::containerd("containerd-3"));
    bench.warm(&[]);
    for (engine, variables) in variables_of(&docker, &containerd, &podman) {
        let tag = ["--locked", "--tag", NAMES[0]];
        let mut killed = bench.load(engine, &variables, &[&tag[..], &["--progress", "json"]].concat());
        let mut killed = run_to("load", &mut killed).expect("begins");
        killed.kill().expect("kills");
        assert_eq!(killed.wait().expect("ends").signal(), Some(9), "{engine}");
        // podman, once it has begun, may come to its end by itself.
        let states = if engine == "podman" { &["loaded", "present"][..] } else { &["loaded"] };
        for states in [states, &["present"]] {
            let told = super::json(&succeed(&mut bench.load(engine, &variables, &tag)));
            let state = told["items"][0]["loaded"][0]["state"].as_str().expect("a state").to_owned();
            assert!(states.contains(&state.as_str()), "{engine}: {state}");
        }
    }
}

#[test]
fn what_cannot_be_loaded_is_refused_before_anything_is_done() {
    let _ = program("podman", "podman");
    let bench = Bench::new();
    let refused = |engine: &str, more: &[&str], status: i32| fail(&mut bench.load(engine, &[], more), status);
    let told = refused("podman", &[], 2);
    assert!(told.contains("needs a name") && told.contains("`--tag REGISTRY/REPOSITORY:TAG`"), "{told}");
    let told = refused("podman", &["--tag", NAMES[0], "--platform", "linux/amd64,linux/arm64"], 2);
    assert!(told.contains("one platform") && told.contains("`--platform`"), "{told}");
    let told = refused("podman", &["--tag", NAMES[0], ".", "other"], 2);
    assert!(told.contains("several") && told.contains("condaimg.yaml"), "{told}");
    let pinned = format!("{}/bases/debian@sha256:{}", bench.registry.host(), "0".repeat(64));
    let told = refused("podman", &[&pinned], 2);
    assert!(told.contains("which has no tag") && told.contains("`--tag"), "{told}");
    assert!(!bench.workspace.path("condaimg.lock").exists());
    assert_eq!(bench.downloads(), 0);

    for (engine, program) in [("podman", "podman"), ("docker", "docker"), ("containerd", "ctr")] {
        let told = fail(bench.load(engine, &[], &["--tag", NAMES[0]]).env("PATH", "/nowhere"), 1);
        assert!(told.contains(&format!("`--load {engine}` needs the program `{program}`")), "{told}");
        assert!(told.contains("hint: install it"), "{told}");
    }
    // Daemons that are not there: the environment is prepared, and the program's own words are told.
    for (engine, variable, value) in
        [("docker", "DOCKER_HOST", "unix:///nowhere/socket"), ("containerd", "CONTAINERD_ADDRESS", "/nowhere/socket")]
    {
        let mut command = bench.load(engine, &[(variable, value.to_owned())], &["--tag", NAMES[0]]);
        let told = fail(&mut command, 1);
        assert!(told.contains("failed") && told.contains("/nowhere/socket") && told.contains(variable), "{told}");
    }
    assert_eq!(made(&bench.offline(&["--locked"])), 0);
}

/// Of several, the last is checked before the first is prepared.
#[test]
fn one_item_that_cannot_be_loaded_stops_all() {
    let _ = program("podman", "podman");
    let bench = Bench::new();
    bench.workspace.file("named/condaimg.yaml", "dependencies: [tzdata]\nimage: {tags: [registry.example/a:1]}\n");
    bench.workspace.file("again/condaimg.yaml", "dependencies: [click]\nimage: {tags: ['registry.example/a:1']}\n");
    let base = bench.base();
    for (items, status, culprit, way) in [
        (["named", "."], 2, "`.`", "--tag"),
        ([base.as_str(), "oci:unnamed"], 1, "`oci:unnamed`", "unnamed"),
        (["named", "again"], 2, "`again`", "image: {tags: [...]}"),
        (["named", "scratch"], 2, "`scratch`", "oci:DIR[:TAG]"),
        ([base.as_str(), "none.yml"], 1, "none.yml", ""),
    ] {
        let told = fail(&mut bench.load("podman", &[], &items), status);
        assert!(told.contains(culprit) && told.contains(way), "{items:?}: {told}");
        assert!(!bench.workspace.path("named/condaimg.lock").exists(), "{items:?}");
        assert!(!bench.workspace.path("cache").exists(), "{items:?}");
        assert_eq!(bench.downloads(), 0, "{items:?}");
    }
}

#[test]
fn tags_of_a_condaimg_yaml_are_names() {
    let (workspace, engine) = (Workspace::new(), Engine::fresh("podman-2"));
    for (folder, tag) in [("a", "registry.example/a:1"), ("b", "registry.example/b")] {
        let text = "dependencies: [tzdata]\nbase: scratch\nchannels: [conda-forge]\n";
        workspace.file(&format!("{folder}/condaimg.yaml"), format!("{text}image: {{tags: [\"{tag}\"]}}\n"));
    }
    let mut command = workspace.condaimg();
    command.args(["warm", "a", "b", "--load", "podman", "--glibc", "2.36", "--override-channels", "--channel"]);
    let told = succeed(command.arg(crate::common::example_channel()).envs(engine.variables()));
    assert_eq!(told.matches("loaded into podman").count(), 2, "{told}");
    let listed = succeed(engine.podman().args(["images", "--format", "{{.Repository}}:{{.Tag}}"]));
    for name in ["registry.example/a:1", "registry.example/b:latest"] {
        assert!(listed.contains(name), "{listed}");
    }
}
