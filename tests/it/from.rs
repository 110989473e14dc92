//! Extending an org base image (`--from`): its layers stay, its packages stay, only what is new is solved for, packed
//! and sent.

mod foreign;

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::common::engine::Engine;
use crate::common::images::{Layout, digests, json, shared_cache, skopeo};
use crate::common::packages::{Channel, Format, Package};
use crate::common::pypi::PackageIndex;
use crate::common::registry::{LocalRegistry, Mode};
use crate::common::{
    Workspace, environment, example_base, example_channel, example_wheels, fail, program, run_output, succeed,
};

const NAME: &str = "dev.condaimg.layer.name";

/// The platform team's image: Python, NumPy and what activation does, from the example channel.
fn org(registry: &LocalRegistry, flags: &[&str]) -> String {
    let workspace = Workspace::new();
    let reference = format!("{}/org/py311:1", registry.host());
    let mut build = workspace.build(&["python=3.11", "numpy=1.26", "feature-activate"]);
    build.args(["--push", "--tag", &reference, "--env", "OF_THE_ORG=1"]).args(flags);
    succeed(build.env("CONDAIMG_CACHE_DIR", shared_cache()));
    reference
}

/// Builds and pushes a folder of `examples/org-base`, with this registry for the one in it: `REF@DIGEST`.
fn example(name: &str, registry: &LocalRegistry, index: &PackageIndex) -> String {
    let workspace = Workspace::new();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/org-base").join(name).join("condaimg.yaml");
    let text = fs_err::read_to_string(file).expect("an example").replace("registry.example", &registry.host());
    workspace.file("condaimg.yaml", &text);
    let mut build = workspace.condaimg();
    build.args(["build", "--push", "--override-channels", "--channel"]).arg(example_channel());
    if !text.contains("\nfrom:") {
        build.args(["--base", &format!("oci:{}:debian", example_base().display())]);
    }
    build.env("PIP_INDEX_URL", index.url()).env("CONDAIMG_CACHE_DIR", shared_cache());
    succeed(&mut build).trim().to_owned()
}

#[test]
fn the_examples_work() {
    let _ = program("uv", "uv (pip install uv)");
    let registry = LocalRegistry::start(Mode::Plain);
    let served = Workspace::new();
    let mut index = PackageIndex::start(served.path("served"));
    for wheel in fs_err::read_dir(example_wheels()).expect("wheels") {
        let wheel = wheel.expect("a wheel");
        let name = wheel.file_name().into_string().expect("text");
        if let Some((project, _)) = name.split_once('-').filter(|_| name.ends_with(".whl")) {
            index.add_file(project, &name, &fs_err::read(wheel.path()).expect("reads"));
        }
    }
    let base = example("base", &registry, &index);
    let of_base = digests(&pulled(&base).0).len();
    let (manifest, config) = pulled(&example("project", &registry, &index));
    let new = packages(&manifest, of_base);
    assert!(new.contains("click-8") && new.contains("msgpack-python-") && !new.contains("numpy"), "{new}");
    assert!(config["config"]["Env"].to_string().contains("\"OMP_NUM_THREADS=1\""), "{config}");
    let service = example("service", &registry, &index);
    let new = packages(&pulled(&service).0, of_base);
    assert!(new.contains("click-8") && new.contains("jsonschema-4.23.0 ") && !new.contains("numpy"), "{new}");
    let image = Engine::shared().pull(&format!("docker://{service}"));
    assert_eq!(succeed(Engine::shared().run(&[]).arg(&image).arg("--version")), "4.23.0\n");
    let script =
        "import jsonschema, rpds, numpy; print(numpy.__version__, jsonschema.validate(1, {'type': 'integer'}))";
    let mut run = Engine::shared().run(&["--entrypoint", "python"]);
    assert_eq!(succeed(run.arg(&image).args(["-c", script])), "1.26.4 None\n");
}

/// `condaimg COMMAND` of a project on top of it, on a machine that has nothing yet.
fn project(workspace: &Workspace, command: &str, from: &str) -> Command {
    let mut build = workspace.condaimg();
    build.args([command, "--override-channels", "--channel"]).arg(example_channel());
    build.args(["--from", from]);
    build
}

/// Manifest and config of an image in a registry.
fn pulled(reference: &str) -> (Value, Value) {
    let image = format!("docker://{reference}");
    let inspect = |flag: &str| json(&skopeo(&["inspect", flag, "--tls-verify=false", &image]));
    (inspect("--raw"), inspect("--config"))
}

/// The names of the layers that have one, but for those of the base.
fn added(manifest: &Value, base: usize) -> Vec<&str> {
    let layers = &manifest["layers"].as_array().expect("layers")[base..];
    layers.iter().map(|layer| layer["annotations"][NAME].as_str().expect("a name")).collect()
}

fn packages(manifest: &Value, base: usize) -> String {
    let layers = &manifest["layers"].as_array().expect("layers")[base..];
    let of = |layer: &Value| layer["annotations"]["dev.condaimg.layer.packages"].as_str().map(str::to_owned);
    layers.iter().filter_map(of).collect::<Vec<_>>().join(" ")
}

fn told(command: &mut Command) -> String {
    String::from_utf8(run_output(command).stderr).expect("UTF-8")
}

#[test]
fn a_project_adds_what_is_new_and_sends_nothing_else() {
    let registry = LocalRegistry::start(Mode::Plain);
    let base = org(&registry, &[]);
    let (org, org_config) = pulled(&base);
    let of_base = digests(&org);
    let sent = registry.uploads().len();

    let workspace = Workspace::new();
    workspace.file("environment.yml", environment(&["numpy >=1.26", "click", "msgpack-python"]));
    let tag = format!("{}/team/app:1", registry.host());
    let printed = succeed(project(&workspace, "build", &base).args(["--push", "--tag", &tag]));
    let (manifest, config) = pulled(&tag);
    let layers = digests(&manifest);
    assert_eq!(layers[..of_base.len()], of_base, "the base's layers are another image's");
    assert_eq!(added(&manifest, of_base.len()), ["msgpack-python", "click (bytecode)", "click", "environment"]);
    assert_eq!(packages(&manifest, of_base.len()).split(' ').count(), 2, "{manifest}");
    let uploads = registry.uploads();
    assert!(uploads[sent..].iter().all(|digest| !of_base.contains(digest)), "the base was sent");
    // Of the base's layers, one was read: its environment layer, of a few kB.
    let read: Vec<u64> =
        registry.blob_downloads().iter().filter(|(it, _)| of_base.contains(it)).map(|it| it.1).collect();
    assert!(read.len() == 1 && read[0] < 10_000, "{read:?}");

    // It says where it comes from, and nothing of the base is lost or there twice.
    let annotations = &manifest["annotations"];
    assert_eq!(annotations["org.opencontainers.image.base.name"], base.as_str());
    let digest =
        condaimg::util::Digest::of(skopeo(&["inspect", "--raw", "--tls-verify=false", &format!("docker://{base}")]));
    assert_eq!(annotations["org.opencontainers.image.base.digest"], digest.to_string());
    assert_eq!(config["config"]["Env"], org_config["config"]["Env"], "the activation of the base's packages");
    assert_eq!(config["config"]["User"], org_config["config"]["User"]);

    let image = Engine::shared().pull(&format!("docker://{tag}"));
    let run = |command: &[&str]| succeed(Engine::shared().run(&[]).arg(&image).args(command));
    let script =
        "import click, msgpack, numpy, os; print(numpy.__version__, os.path.exists(click.__cached__), os.getuid())";
    assert_eq!(run(&["python", "-c", script]), "1.26.4 True 1000\n");
    let history = run(&["cat", "/opt/conda/envs/default/conda-meta/history"]);
    for part in ["::python-3.11.2-", "::numpy-1.26.4-", "::click-8", "\"numpy=1.26\"", "\"msgpack-python\""] {
        assert!(history.contains(part), "{part} in {history}");
    }
    let passwd = run(&["cat", "/etc/passwd"]);
    assert_eq!(passwd.matches("conda:*:1000:").count(), 1, "{passwd}");

    // The lock is enough, on a machine that has nothing: the base is not asked for, and what comes out is the same.
    let lock = fs_err::read_to_string(workspace.path("condaimg.lock")).expect("a lock");
    let asked = registry.requests("GET /v2/org/") + registry.requests("HEAD /v2/org/");
    let mut again = project(&workspace, "build", &base);
    again.args(["--locked", "--push", "--tag", &tag]).env("CONDAIMG_CACHE_DIR", workspace.path("elsewhere"));
    assert_eq!(succeed(&mut again), printed);
    assert_eq!(registry.requests("GET /v2/org/") + registry.requests("HEAD /v2/org/"), asked);
    fs_err::remove_file(workspace.path("condaimg.lock")).expect("removes");
    succeed(project(&workspace, "lock", &base).env("CONDAIMG_CACHE_DIR", workspace.path("third")));
    assert_eq!(fs_err::read_to_string(workspace.path("condaimg.lock")).expect("a lock"), lock);

    // An image that extends another one can be extended.
    let third = Workspace::new();
    third.file("environment.yml", environment(&["tabulate", "msgpack-python"]));
    let next = format!("{}/team/next:1", registry.host());
    succeed(project(&third, "build", &tag).args(["--push", "--tag", &next]));
    let (manifest, _) = pulled(&next);
    assert_eq!(digests(&manifest)[..layers.len()], layers);
    assert!(packages(&manifest, layers.len()).starts_with("tabulate-"), "{manifest}");
}

#[test]
fn a_base_without_a_lock_is_read_from_its_layers() {
    let registry = LocalRegistry::start(Mode::Plain);
    let base = org(&registry, &["--no-referrers"]);
    let of_base = digests(&pulled(&base).0);
    let workspace = Workspace::new();
    workspace.file("environment.yml", environment(&["click", "numpy"]));
    let tag = format!("{}/team/app:1", registry.host());
    let notice = told(project(&workspace, "build", &base).args(["--push", "--tag", &tag]));
    assert!(notice.contains("has no lock attached to it"), "{notice}");
    let (manifest, config) = pulled(&tag);
    assert_eq!(digests(&manifest)[..of_base.len()], of_base);
    assert_eq!(added(&manifest, of_base.len()), ["click", "click (bytecode)", "environment"]);
    let variables = config["config"]["Env"].as_array().expect("a list");
    let path = variables.iter().filter_map(|it| it.as_str()?.strip_prefix("PATH=")).collect::<Vec<_>>();
    let mut folders: Vec<&str> = path[0].split(':').collect();
    folders.sort_unstable();
    folders.dedup();
    assert_eq!((path.len(), folders.len()), (1, path[0].split(':').count()), "{path:?}");
    let image = Engine::shared().pull(&format!("docker://{tag}"));
    let script = "import click, numpy, os; print(numpy.__version__, os.path.exists(click.__cached__))";
    assert_eq!(succeed(Engine::shared().run(&[]).arg(&image).args(["python", "-c", script])), "1.26.4 True\n");
}

// ---- small packages, on nothing ------------------------------------------------------------------------------

/// A channel of small packages, and bases made of it.
struct Bench {
    workspace: Workspace,
    channel: Channel,
}

impl Bench {
    fn new(packages: &[(&str, &str, &[&str])]) -> Self {
        let workspace = Workspace::new();
        let mut channel = Channel::new(workspace.path("channel"));
        channel.add_all(packages);
        Self { workspace, channel }
    }

    fn condaimg(&self, command: &str) -> Command {
        let mut program = self.workspace.condaimg();
        program.args([command, "--override-channels", "--glibc", "2.36", "--channel"]).arg(&self.channel.folder);
        program
    }

    /// Builds the base into the layout `org` under the tag `1`.
    fn org(&self, dependencies: &[&str], flags: &[&str]) -> String {
        self.workspace.file("org.yml", environment(dependencies));
        let mut build = self.condaimg("build");
        succeed(build.args(["org.yml", "--base", "scratch", "--output", "oci:org:1"]).args(flags));
        "oci:org:1".to_owned()
    }

    /// `condaimg COMMAND` of a project that extends it.
    fn project(&self, command: &str, from: &str, dependencies: &[&str]) -> Command {
        self.workspace.file("environment.yml", environment(dependencies));
        let mut program = self.condaimg(command);
        program.args(["--from", from]);
        program
    }

    fn manifest(&self, image: &str) -> Value {
        let path = self.workspace.path(image);
        json(&skopeo(&["inspect", "--raw", &format!("oci:{}:1", path.display())]))
    }

    fn lock(&self) -> String {
        fs_err::read_to_string(self.workspace.path("condaimg.lock")).expect("a lock")
    }
}

#[test]
fn what_the_base_satisfies_adds_nothing() {
    let bench = Bench::new(&[("numpy", "1.26.4", &["libblas"]), ("libblas", "3.9", &[])]);
    let base = bench.org(&["numpy"], &[]);
    // No channel is asked, not even whether it is there.
    fs_err::remove_dir_all(&bench.channel.folder).expect("removes");
    let mut build = bench.project("build", &base, &["numpy >=1.20", "libblas"]);
    succeed(build.args(["--output", "oci:app:1"]));
    let layers = bench.manifest("org")["layers"].as_array().expect("layers").len();
    assert_eq!(added(&bench.manifest("app"), layers), ["environment"]);
    // And all of it again.
    let digest = condaimg::util::Digest::of(bench.manifest("app").to_string());
    succeed(bench.project("build", &base, &["numpy >=1.20", "libblas"]).args(["--locked", "--output", "oci:app:1"]));
    assert_eq!(condaimg::util::Digest::of(bench.manifest("app").to_string()), digest);
}

#[test]
fn what_does_not_fit_the_base_is_explained() {
    let mut bench = Bench::new(&[("numpy", "1.26.4", &[]), ("other", "1.0", &[])]);
    let base = bench.org(&["numpy", "other"], &[]);
    bench.channel.add_all(&[
        ("numpy", "2.2.6", &[]),
        ("pandas", "2.2.0", &["numpy >=1.20"]),
        ("pandas", "3.0.0", &["numpy >=2"]),
        ("app", "1.0", &["pandas >=3"]),
    ]);
    let refused = |dependency: &str| fail(&mut bench.project("lock", &base, &[dependency]), 1);
    let message = refused("numpy >=2");
    assert!(message.contains("`numpy 1.26.4` of the base against `numpy >=2`"), "{message}");
    assert!(message.contains("environment.yml:4"), "{message}");
    let message = refused("pandas >=3");
    let expected =
        "`numpy 1.26.4` of the base against `numpy >=2`, which `pandas 3.0.0` needs (asked for: `pandas >=3`";
    assert!(message.contains(expected), "{message}");
    assert!(message.contains("extend another base") && message.contains("without `from`"), "{message}");
    let message = refused("app");
    assert!(message.contains("which `pandas 3.0.0` needs (needed for `app`"), "{message}");
    // Not the base's fault.
    let message = refused("pandas >=4");
    assert!(
        message.contains("nothing matches ")
            && message.contains("environment.yml:4 `pandas >=4`")
            && !message.contains("does not fit the base"),
        "{message}"
    );
    // Of two versions, the one that fits; what the index no longer has is of no account.
    bench.channel.forget("numpy");
    bench.channel.index();
    succeed(&mut bench.project("lock", &base, &["pandas"]));
    assert!(bench.lock().contains("pandas-2.2.0-0.conda") && bench.lock().contains("numpy-1.26.4-0.conda"));
    let message = fail(bench.project("lock", &base, &["pandas"]).args(["--upgrade", "numpy"]), 1);
    assert!(message.contains("`numpy` is a package of the base"), "{message}");
}

#[test]
fn what_a_package_of_the_base_does_not_allow_stays_out() {
    let mut bench = Bench::new(&[]);
    bench.channel.add(&Package::new("core", "1.0").constrains(&["plugin <2"]).file("share/core", ""), Format::Conda);
    bench.channel.add_all(&[("plugin", "1.0", &[]), ("plugin", "2.0", &[])]);
    let base = bench.org(&["core"], &[]);
    succeed(&mut bench.project("lock", &base, &["plugin"]));
    assert!(bench.lock().contains("plugin-1.0-0.conda"));
    let message = fail(&mut bench.project("lock", &base, &["plugin >=2"]), 1);
    assert!(
        message.contains("`core 1.0` of the base, which allows only `plugin <2`, against `plugin 2.0`"),
        "{message}"
    );
}

#[test]
fn the_prefix_and_its_modes_are_the_bases() {
    let registry = LocalRegistry::start(Mode::Plain);
    let bench = Bench::new(&[("one", "1.0", &[]), ("two", "1.0", &[])]);
    let base = format!("{}/org/base:1", registry.host());
    bench.org(&["one"], &["--prefix", "/srv/env", "--group-write", "--push", "--tag", &base]);
    let refused = |base: &str| fail(bench.project("build", base, &["two"]).args(["--prefix", "/opt/other"]), 1);
    let message = refused("oci:org:1");
    assert!(message.contains("no conda environment in /opt/other") && message.contains("it has /srv/env"), "{message}");
    let message = refused(&base);
    assert!(message.contains("`--prefix /opt/other`") && message.contains("lies in /srv/env"), "{message}");
    succeed(bench.project("build", &base, &["two"]).args(["--output", "oci:app:1"]));
    let message = refused(&base);
    assert!(message.contains("lies in /srv/env"), "also when the lock is current: {message}");
    let image = crate::common::tree::Image::read(&bench.workspace.path("app"));
    let last = image.layers.iter().rev().nth(1).expect("a layer of packages");
    let (_, node) = last.entries.iter().find(|(path, _)| path == "srv/env/share/two").expect("is in the prefix");
    assert_eq!(node.mode, 0o664, "the group may write to what is added, too");
}

#[test]
fn pins_and_facts_that_come_later_know_the_base() {
    let bench = Bench::new(&[("one", "1.0", &[]), ("two", "1.0", &["one"]), ("one", "2.0", &[])]);
    let base = bench.org(&["one=1"], &[]);
    // Without facts, the lock is made without reading an archive; the first build makes those of what is new.
    succeed(bench.project("lock", &base, &["two"]).arg("--no-facts"));
    let first = succeed(bench.project("build", &base, &["two"]).args(["--locked", "--output", "oci:app:1"]));
    succeed(&mut bench.project("lock", &base, &["two"]));
    assert_eq!(succeed(bench.project("build", &base, &["two"]).args(["--locked", "--output", "oci:app:1"])), first);
    // A file that pins packages may pin those of the base, as they are.
    let explicit = succeed(bench.condaimg("lock").args(["--from", &base, "--export", "explicit"]));
    bench.workspace.file("pinned.txt", &explicit);
    let pinned = || {
        let mut build = bench.condaimg("build");
        build.args(["pinned.txt", "--from", &base, "--output", "oci:pinned:1"]);
        build
    };
    succeed(&mut pinned());
    let layers = bench.manifest("org")["layers"].as_array().expect("layers").len();
    assert_eq!(packages(&bench.manifest("pinned"), layers), "two-1.0-0");
    let other = bench.channel.record("one");
    assert_eq!(other.package_record.version.to_string(), "1.0");
    let newer = explicit.lines().filter(|line| !line.contains("one-1.0-0")).collect::<Vec<_>>().join("\n");
    let hash =
        condaimg::util::Digest::of(fs_err::read(bench.channel.folder.join("linux-64/one-2.0-0.conda")).expect("reads"));
    bench
        .workspace
        .file("pinned.txt", format!("{newer}\n{}linux-64/one-2.0-0.conda#{}\n", bench.channel.url(), hash.hex()));
    let message = fail(&mut pinned(), 1);
    assert!(message.contains("`one 1.0 0` of the base against `one-2.0-0.conda`"), "{message}");
}

#[test]
fn a_base_that_is_no_conda_image_is_refused() {
    let bench = Bench::new(&[("one", "1.0", &[])]);
    let debian = format!("oci:{}:debian", example_base().display());
    let message = fail(&mut bench.project("build", &debian, &["one"]), 1);
    assert!(message.contains("holds no conda environment") && message.contains("use `--base`"), "{message}");
    assert!(fail(&mut bench.project("build", "scratch", &["one"]), 2).contains("nothing to extend"));
    let both = fail(bench.project("build", &debian, &["one"]).args(["--base", "scratch"]), 2);
    assert!(both.contains("--from"), "{both}");
}

#[test]
fn a_moved_tag_moves_nothing_that_is_locked() {
    let registry = LocalRegistry::start(Mode::Plain);
    let mut bench = Bench::new(&[("one", "1.0", &[]), ("two", "1.0", &[])]);
    let base = format!("{}/org/base:1", registry.host());
    let push = ["--push", "--tag", &base];
    bench.org(&["one"], &push);
    succeed(&mut bench.project("lock", &base, &["two"]));
    let lock = bench.lock();
    bench.channel.add_all(&[("one", "2.0", &[])]);
    bench.org(&["one=2"], &push);
    succeed(bench.project("lock", &base, &["two"]).arg("--check"));
    succeed(bench.project("build", &base, &["two"]).arg("--locked"));
    assert_eq!(bench.lock(), lock);
    let notices = told(bench.project("lock", &base, &["two"]).arg("--upgrade"));
    assert!(notices.contains(&format!("base {base}: sha256:")) && notices.contains("one 1.0 0 -> 2.0 0"), "{notices}");
    // The same image as an ordinary base is something else.
    bench.workspace.file("environment.yml", environment(&["two"]));
    let message = fail(bench.condaimg("lock").args(["--check", "--base", &base]), 1);
    assert!(message.contains("is not to be extended any more"), "{message}");
    let message = fail(bench.condaimg("build").args(["--frozen", "--base", &base]), 1);
    assert!(message.contains("extends its base"), "{message}");
}

#[test]
fn lock_says_that_its_base_is_extended() {
    let bench = Bench::new(&[("one", "1.0", &[]), ("two", "1.0", &[])]);
    let base = bench.org(&["one"], &[]);
    succeed(&mut bench.project("lock", &base, &["two"]));
    let lock = bench.lock();
    let digest = succeed(bench.project("build", &base, &["two"]).arg("--locked"));
    for flags in [&["--locked"][..], &["--frozen"], &[], &["condaimg.lock"]] {
        assert_eq!(succeed(bench.condaimg("build").args(flags)), digest, "{flags:?}");
        assert_eq!(bench.lock(), lock, "{flags:?}");
    }
    for flags in [&["--locked"][..], &["--frozen"]] {
        let message = fail(bench.condaimg("build").args(["--base", "scratch"]).args(flags), 1);
        assert!(message.contains("--from ") && message.contains("org"), "{message}");
    }
}

#[test]
fn each_platform_extends_its_own_image() {
    let mut bench = Bench::new(&[]);
    for subdir in ["linux-64", "linux-aarch64"] {
        for name in ["one", "two"] {
            let package = Package::new(name, "1.0").subdir(subdir).file(&format!("share/{name}"), subdir);
            bench.channel.add(&package, Format::Conda);
        }
    }
    bench.channel.index();
    let both = ["--platform", "linux/amd64,linux/arm64"];
    let base = bench.org(&["one"], &both);
    succeed(bench.project("build", &base, &["two"]).args(both).args(["--output", "oci:app:1"]));
    let (org, app) = (bench.manifest("org"), bench.manifest("app"));
    for number in [0, 1] {
        let layers = |image: &str, index: &Value| {
            let digest = index["manifests"][number]["digest"].as_str().expect("a digest");
            let blob = bench.workspace.path(image).join("blobs").join(digest.replace(':', "/"));
            digests(&json(&fs_err::read_to_string(blob).expect("a manifest")))
        };
        let (base, added) = (layers("org", &org), layers("app", &app));
        assert_eq!((&added[..base.len()], added.len()), (base.as_slice(), base.len() + 2));
    }
}

#[test]
fn files_that_a_new_package_takes_from_the_base_are_declared() {
    let mut bench = Bench::new(&[]);
    let package = |name: &str, path: &str| Package::new(name, "1.0").file(path, name);
    bench.channel.add(&package("old", "share/both"), Format::Conda);
    bench.channel.add(&package("new", "share/both"), Format::Conda);
    bench.channel.add(&package("below", "share/both/file"), Format::Conda);
    bench.channel.add(&package("above", "share"), Format::Conda);
    bench.channel.index();
    let base = bench.org(&["old"], &[]);
    let message = fail(&mut bench.project("build", &base, &["new"]), 1);
    assert!(message.contains("`old` of the base and `new` both bring `share/both`"), "{message}");
    assert!(message.contains("`--allow-clobber 'share/both'`"), "{message}");
    let notices = told(bench.project("build", &base, &["new"]).args(["--allow-clobber", "share/b*"]));
    assert!(notices.contains("both bring `share/both`: the one of `new` is in the image"), "{notices}");
    for (name, path) in [("below", "share/both/file"), ("above", "share")] {
        let message = fail(&mut bench.project("build", &base, &[name]), 1);
        assert!(
            message.contains(&format!("`{name}` brings `{path}`")) && message.contains("`old` of the base"),
            "{message}"
        );
    }
}

/// What the base has of a module that a new package takes goes, but for what that package brings itself.
#[test]
fn pyc_of_a_module_taken_from_the_base_is_removed() {
    const SITE: &str = "lib/python3.11/site-packages";
    let mut bench = Bench::new(&[]);
    let cached = |module: &str, tag: &str| format!("{SITE}/__pycache__/{module}.{tag}.pyc");
    let with_module = |name: &str| Package::new(name, "1.0").file(&format!("{SITE}/m.py"), name);
    let code = |source: &str| crate::common::pyc::stamped(source, 1_600_000_000);
    let old = with_module("old")
        .file(&cached("m", "cpython-311"), code("old"))
        .file(&cached("m", "cpython-311.opt-1"), code("old"))
        .file(&cached("m", "pypy39"), "old")
        .file(&format!("{SITE}/m.pyc"), "old")
        .file(&format!("{SITE}/n.py"), "n")
        .file(&cached("n", "cpython-311"), code("n"))
        .file(&cached("m.x", "cpython-311"), code("old"));
    bench.channel.add(&old, Format::Conda);
    bench.channel.add(&with_module("new").file(&cached("m", "pypy39"), "new"), Format::Conda);
    bench.channel.index();
    let base = bench.org(&["old"], &[]);
    let build = |more: &[&str]| {
        let mut build = bench.project("build", &base, &["new"]);
        build.args(["--allow-clobber", &format!("{SITE}/*"), "--output", "oci:app:1"]).args(more);
        succeed(&mut build)
    };
    let digest = build(&[]);
    let image = Layout::at(bench.workspace.path("app"));
    let layers = image.layers();
    let names = |layer: &str| {
        let mut archive = tar::Archive::new(image.layer(layer));
        let entries = archive.entries().expect("a tar").map(|entry| entry.expect("an entry"));
        let paths = entries.map(|entry| entry.path().expect("a path").display().to_string());
        paths.collect::<Vec<String>>()
    };
    // As engines lay them over one another.
    let mut tree = std::collections::BTreeSet::new();
    for layer in &layers {
        let names = names(layer);
        for removed in names.iter().filter(|path| path.contains("/.wh.")) {
            assert!(tree.remove(&removed.replacen("/.wh.", "/", 1)), "{removed}");
        }
        tree.extend(names.into_iter().filter(|path| !path.contains("/.wh.") && path.ends_with(".pyc")));
    }
    let left: Vec<&str> = tree.iter().filter_map(|path| path.split_once("site-packages/")).map(|(_, it)| it).collect();
    assert_eq!(left, ["__pycache__/m.pypy39.pyc", "__pycache__/m.x.cpython-311.pyc", "__pycache__/n.cpython-311.pyc"]);
    assert!(bench.lock().contains("removed:"), "{}", bench.lock());
    // From the lock, without what is known here of the base, the same.
    let cache = bench.workspace.path("elsewhere");
    assert_eq!(build(&["--locked", "--cache-dir", cache.to_str().expect("text")]), digest);
    let mut plan = bench.project("plan", &base, &["new"]);
    let plan = succeed(plan.args(["--locked", "--json", "--allow-clobber", &format!("{SITE}/*")]));
    assert!(plan.contains("\"removals\""), "{plan}");
}
