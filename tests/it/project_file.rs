//! condaimg.yaml: what it says ends up in the image and the lock, flags come before it, mistakes have their place, and
//! the schema and the page about it say the same as the program.

use std::path::Path;
use std::process::Command;

use rattler_lock::LockFile;
use serde_json::{Value, json};

use crate::common::images::{Layout, json as parsed, skopeo};
use crate::common::packages::Channel;
use crate::common::registry::{LocalRegistry, Mode};
use crate::common::schema::misfit;
use crate::common::{Workspace, environment, example_base, fail, succeed};

const PAGE: &str = include_str!("../../docs/condaimg-yaml.md");
const SCHEMA: &str = include_str!("../../docs/condaimg.schema.json");

/// A workspace with a small channel in its folder `channel`.
struct Bench {
    workspace: Workspace,
}

impl Bench {
    fn new() -> Self {
        let workspace = Workspace::new();
        let mut channel = Channel::new(workspace.path("channel"));
        channel.add_all(&[("app", "1.0", &["lib"]), ("lib", "1.0", &[]), ("more", "1.0", &[])]);
        Self { workspace }
    }

    /// `condaimg COMMAND` in the folder, without any flag.
    fn condaimg(&self, command: &str) -> Command {
        let mut program = self.workspace.condaimg();
        program.arg(command);
        program
    }

    fn file(&self, text: &str) {
        self.workspace.file("condaimg.yaml", text);
    }

    fn lock(&self) -> String {
        fs_err::read_to_string(self.workspace.path("condaimg.lock")).expect("a lock")
    }

    /// The names of the lock's packages.
    fn packages(&self) -> Vec<String> {
        let locks = LockFile::from_path(&self.workspace.path("condaimg.lock")).expect("a pixi.lock");
        let environment = locks.default_environment().expect("an environment");
        let platform = locks.platform("linux-64").expect("a platform");
        let packages = environment.conda_packages(platform).expect("packages");
        let records = packages.filter_map(|package| package.as_binary()).map(|binary| &binary.package_record);
        let mut names: Vec<String> = records.map(|record| record.name.as_normalized().to_owned()).collect();
        names.sort();
        names
    }

    /// Config and manifest of the image that a command writes.
    fn image(&self, build: &mut Command) -> (Value, Value) {
        succeed(build.args(["--output", "oci:made:1"]));
        let layout = Layout::at(self.workspace.path("made"));
        (layout.config()["config"].clone(), layout.manifest())
    }
}

/// An image on nothing, of the channel beside the file.
const SMALL: &str = "base: scratch\ntarget: {glibc: 2.36}\nchannels: [./channel]\ndependencies: [app]\n";

#[test]
fn an_image_is_as_the_file_says() {
    let bench = Bench::new();
    let registry = LocalRegistry::start(Mode::Plain);
    bench
        .workspace
        .file("environment.yml", "name: env\nchannels: [./channel]\ndependencies: [app]\nvariables: {A: 0}\n");
    fs_err::copy("layers/default.yaml", bench.workspace.path("policy.yaml")).expect("copies");
    let base = bench.workspace.path("base");
    succeed(Command::new("cp").arg("-r").arg(example_base()).arg(&base));
    bench.file(&format!(
        "environment: environment.yml
base: oci:base:debian
layers: policy.yaml
compression: zstd:3
prefix: /opt/here
bytecode: off
image:
  tags: [{host}/team/env:1, {host}/team/env:latest]
  user: 1234:0
  workdir: /work
  entrypoint: [python, -m, my app]
  cmd: --flag 'two words'
  env: {{OMP_NUM_THREADS: 1, EMPTY: }}
  labels: {{org.opencontainers.image.source: here}}
  annotations: {{example.note: 'yes'}}
",
        host = registry.host()
    ));
    // From another folder, since paths begin in the file's.
    let elsewhere = bench.workspace.path("elsewhere");
    fs_err::create_dir(&elsewhere).expect("makes it");
    let mut build = bench.condaimg("build");
    build.current_dir(&elsewhere).args(["../condaimg.yaml", "--push"]);
    let printed = succeed(&mut build);
    assert_eq!(printed.lines().count(), 2, "{printed}");
    assert_eq!(bench.packages(), ["app", "lib"]);

    for tag in ["1", "latest"] {
        let image = format!("docker://{}/team/env:{tag}", registry.host());
        let config = parsed(&skopeo(&["inspect", "--tls-verify=false", "--config", &image]))["config"].clone();
        assert_eq!(config["User"], "1234:0");
        assert_eq!(config["WorkingDir"], "/work");
        assert_eq!(config["Entrypoint"], json!(["python", "-m", "my app"]));
        assert_eq!(config["Cmd"], json!(["--flag", "two words"]));
        assert_eq!(config["Labels"]["org.opencontainers.image.source"], "here");
        let variables = config["Env"].as_array().expect("variables");
        for expected in ["OMP_NUM_THREADS=1", "EMPTY=", "A=0", "CONDA_PREFIX=/opt/here"] {
            assert!(variables.contains(&expected.into()), "{expected}: {variables:?}");
        }
        let manifest = parsed(&skopeo(&["inspect", "--tls-verify=false", "--raw", &image]));
        assert_eq!(manifest["annotations"]["example.note"], "yes");
        let last = manifest["layers"].as_array().expect("layers").last().expect("one")["mediaType"].clone();
        assert!(last.as_str().expect("a type").ends_with("zstd"), "{last}");
    }
}

#[test]
fn flags_and_variables_come_before_the_file() {
    let bench = Bench::new();
    bench.file(&format!(
        "{SMALL}group-write: on
image:
  user: 1234
  workdir: /work
  cmd: [file]
  env: {{A: file, B: file}}
  labels: {{a: file, b: file}}
"
    ));
    let (config, _) = bench.image(&mut bench.condaimg("build"));
    assert_eq!((&config["User"], &config["Cmd"]), (&json!("1234:0"), &json!(["file"])));
    let (config, _) = bench.image(
        bench
            .condaimg("build")
            .args(["--cmd", "flag", "--env", "A=flag", "--label", "a=flag", "--group-write=false"])
            .env("CONDAIMG_USER", "77:7"),
    );
    assert_eq!((&config["User"], &config["Cmd"]), (&json!("77:7"), &json!(["flag"])));
    assert_eq!(config["WorkingDir"], "/work");
    assert_eq!((&config["Labels"]["a"], &config["Labels"]["b"]), (&json!("flag"), &json!("file")));
    let has = |config: &Value, text: &str| config["Env"].as_array().expect("variables").contains(&text.into());
    assert!(has(&config, "A=flag") && has(&config, "B=file") && !has(&config, "A=file"), "{config}");
    let (config, _) = bench.image(bench.condaimg("build").env("CONDAIMG_ENV", "B=variable\nC=variable"));
    assert!(has(&config, "A=file") && has(&config, "B=variable") && has(&config, "C=variable"), "{config}");
    // The file's tags are those that `--push` needs; a flag replaces them, and what is no reference has its place.
    bench.file(&format!("{SMALL}image:\n  tags: [registry.example/env:1, 'not a tag']\n"));
    let message = fail(&mut bench.condaimg("build"), 1);
    assert!(message.contains("condaimg.yaml:6:34: invalid image reference `not a tag`"), "{message}");
}

#[test]
fn a_lock_knows_what_counts_in_the_end() {
    let bench = Bench::new();
    bench.file(SMALL);
    succeed(&mut bench.condaimg("lock"));
    assert_eq!(bench.packages(), ["app", "lib"]);
    let check = |arguments: &[&str]| {
        let mut lock = bench.condaimg("lock");
        lock.arg("--check").args(arguments);
        lock
    };
    succeed(&mut check(&[]));
    succeed(&mut check(&["--glibc", "2.36", "--base", "scratch"]));
    // What conda's variable assumes comes after the file.
    succeed(check(&[]).env("CONDA_OVERRIDE_GLIBC", "2.17"));
    let message = fail(&mut check(&["--glibc", "2.17"]), 1);
    assert!(message.contains("target: + --glibc=2.17, - --glibc=2.36"), "{message}");
    for (change, expected) in [
        (SMALL.replace("2.36", "2.31"), "target: + --glibc=2.31"),
        (SMALL.replace("2.36", "2.36, cuda: 12.4"), "target: + --cuda=12.4"),
        (SMALL.replace("2.36", "2.36, virtual-packages: {__linux: 5.10}"), "target: + __linux=5.10"),
        (format!("{SMALL}channel-priority: disabled\n"), "channel priority: `disabled` instead of `strict`"),
        (format!("{SMALL}exclude-newer: 2020-01-01\n"), "--exclude-newer: `2020-01-01` instead of none"),
        (SMALL.replace("[app]", "[app, more]"), "dependencies: + more"),
        (SMALL.replace("dependencies", "variables: {A: 1}\ndependencies"), "variables: A"),
    ] {
        bench.file(&change);
        let message = fail(&mut check(&[]), 1);
        assert!(message.contains("is stale") && message.contains(expected), "{change}: {message}");
    }
    // A flag for the same virtual package is the same target.
    bench.file(&SMALL.replace("2.36", "2.36, virtual-packages: {__linux: 5.10}"));
    succeed(&mut bench.condaimg("lock"));
    let locked = bench.lock();
    succeed(&mut check(&["--virtual-package", "__linux=5.10"]));
    succeed(bench.condaimg("lock").args(["--virtual-package", "__linux=5.10"]));
    assert_eq!(bench.lock(), locked);
}

#[test]
fn platforms_and_priorities_are_the_files() {
    let bench = Bench::new();
    bench.file(&format!("{}platforms: [linux/arm64]\n", SMALL.replace("[app]", "[]")));
    succeed(&mut bench.condaimg("lock"));
    assert!(bench.lock().contains("linux-aarch64") && !bench.lock().contains("linux-64"), "{}", bench.lock());
    succeed(bench.condaimg("lock").args(["--platform", "linux/amd64", "--lock-file", "other.lock"]));
    let other = fs_err::read_to_string(bench.workspace.path("other.lock")).expect("a lock");
    assert!(other.contains("linux-64") && !other.contains("linux-aarch64"), "{other}");
}

#[test]
fn mistakes_have_their_place_and_change_nothing() {
    let bench = Bench::new();
    for (text, expected) in [
        (format!("{SMALL}plattforms: [linux/amd64]\n"), "condaimg.yaml:5:1: `plattforms:` is no key of condaimg.yaml"),
        (format!("{SMALL}image:\n  user: me\n"), "condaimg.yaml:6:9: invalid user `me`"),
        (SMALL.replace("scratch", "Debian:12"), "condaimg.yaml:1:7: invalid image reference `Debian:12`"),
        (format!("{SMALL}layers: none\n"), "condaimg.yaml:5:9: there is no layer policy `none`"),
        (format!("{SMALL}layers: none.yaml\n"), "condaimg.yaml:5:9: "),
        ("environment: none.yml\n".to_owned(), "condaimg.yaml:1:14: the environment `none.yml` cannot be used"),
    ] {
        bench.file(&text);
        let message = fail(&mut bench.condaimg("build"), 1);
        assert!(message.contains(expected), "{text}: {message}");
        assert!(!bench.workspace.path("condaimg.lock").exists() && !bench.workspace.path("image").exists());
    }
    bench.file(&format!("{SMALL}plattforms: [linux/amd64]\n"));
    assert!(fail(&mut bench.condaimg("build"), 1).contains("did you mean `platforms:`?"));
    // The mistake of the environment has the place in that file, and the way there.
    bench.file("environment: env/broken.yml\n");
    bench.workspace.file("env/broken.yml", "dependencies:\n  - 'a=='\n");
    let message = fail(&mut bench.condaimg("build"), 1);
    for expected in ["condaimg.yaml:1:14: ", "env/broken.yml:2:5: `a==` is no package"] {
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn a_folder_may_hold_several() {
    let bench = Bench::new();
    bench.workspace.file("environment.yml", environment(&["more"]));
    bench.file(SMALL);
    bench.workspace.file("two.condaimg.yaml", SMALL.replace("[app]", "[more]"));
    succeed(&mut bench.condaimg("lock"));
    assert_eq!(bench.packages(), ["app", "lib"], "condaimg.yaml comes before environment.yml");
    succeed(bench.condaimg("lock").arg("two.condaimg.yaml"));
    let two = fs_err::read_to_string(bench.workspace.path("two.condaimg.lock")).expect("a lock of its own");
    assert!(two.contains("more-1.0") && !two.contains("app-1.0"), "{two}");
}

#[test]
fn the_schema_is_what_the_program_makes() {
    let printed = succeed(&mut Bench::new().condaimg("schema"));
    assert_eq!(printed, SCHEMA, "write it anew: condaimg schema > docs/condaimg.schema.json");
}

/// The YAML blocks of the page.
fn examples() -> Vec<String> {
    let blocks = PAGE.split("```yaml\n").skip(1);
    blocks.map(|block| block.split("```").next().expect("an end").to_owned()).collect()
}

/// The keys of a schema that hold values: `image.tags`.
fn keys(schema: &Value, path: &str) -> Vec<String> {
    let Some(properties) = schema["properties"].as_object() else { return vec![path.to_owned()] };
    let below = |(key, schema): (&String, &Value)| keys(schema, format!("{path}.{key}").trim_start_matches('.'));
    properties.iter().flat_map(below).collect()
}

#[test]
fn the_page_tells_every_key_and_its_examples_are_right() {
    let schema = parsed(SCHEMA);
    let keys = keys(&schema, "");
    assert!(keys.len() > 25, "{keys:?}");
    for key in &keys {
        assert!(PAGE.contains(&format!("\n| `{key}` | ")), "the page has no `{key}`");
    }
    let [full, inline, installed] = examples().try_into().expect("three examples");
    let folder = tempfile::tempdir().expect("a folder");
    fs_err::write(folder.path().join("environment.yml"), environment(&["lib"])).expect("writes");
    for text in [&full, &inline, &installed] {
        let file = folder.path().join("condaimg.yaml");
        fs_err::write(&file, text).expect("writes");
        condaimg::spec::read(&file).expect("the example is right");
        let value: Value = serde_yaml::from_str(text).expect("YAML");
        assert_eq!(misfit(&schema, &value, Path::new("")), None);
    }
    let full: Value = serde_yaml::from_str(&full).expect("YAML");
    for key in
        keys.iter().filter(|key| !["channels", "dependencies", "variables", "from", "python"].contains(&key.as_str()))
    {
        let pointer = format!("/{}", key.replace('.', "/"));
        assert!(full.pointer(&pointer).is_some(), "the full example has no `{key}`");
    }
}

#[test]
fn the_schema_refuses_what_the_program_refuses() {
    let schema = parsed(SCHEMA);
    let text = "environment: a\n";
    for (wrong, place) in [
        ("plattforms: [linux/amd64]\n", ""),
        ("image: {tag: a}\n", "image"),
        ("platforms: linux/amd64\n", "platforms"),
        ("bytecode: maybe\n", "bytecode"),
        ("max-layers: 1\n", "max-layers"),
        ("project: [{from: a}]\n", "project/0"),
        ("image: {env: {A: [1]}}\n", "image/env/A"),
        ("channel-priority: loose\n", "channel-priority"),
    ] {
        let value: Value = serde_yaml::from_str(&format!("{text}{wrong}")).expect("YAML");
        assert_eq!(misfit(&schema, &value, Path::new("")).as_deref(), Some(place), "{wrong}");
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("condaimg.yaml");
        fs_err::write(folder.path().join("a"), "").expect("writes");
        fs_err::write(&file, format!("{text}{wrong}")).expect("writes");
        condaimg::spec::read(&file).expect_err(wrong);
    }
    assert_eq!(misfit(&schema, &json!({"base": "a"}), Path::new("")).as_deref(), Some(""), "no environment");
}
