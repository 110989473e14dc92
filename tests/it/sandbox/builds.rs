//! Hostile build backends.

use std::path::Path;

use super::*;
use crate::common::pypi::{PackageIndex, project};
use crate::common::wheels::Wheel;
use crate::common::{example_base, example_channel};

/// What a backend tries: a name for each thing that it reached, on standard error, and a failed build.
const ATTACK: &str = r#"
import glob, os, socket, sys
reached = []

def attempt(name, action):
    try:
        action()
    except Exception:
        return
    reached.append(name)

def secret():
    for path in glob.glob("/proc/[0-9]*/environ"):
        try:
            if b"@SECRET@" in open(path, "rb").read():
                return
        except OSError:
            pass
    raise OSError

attempt("environment", secret)
attempt("network", lambda: socket.create_connection(("127.0.0.1", @PORT@), 5))
for place in ("home", "cache", "cache/uv", "cache/v1", "tool"):
    try:
        open("@FOLDER@/" + place + "/loot", "w")
    except OSError:
        pass
attempt("home-read", lambda: open("@FOLDER@/home/.netrc"))
attempt("store-read", lambda: os.listdir("@FOLDER@/cache/v1/archives"))
attempt("system", lambda: open("/usr/loot", "w"))
if reached:
    sys.exit("reached: " + " ".join(reached))
"#;

struct Builds {
    bench: Bench,
    index: PackageIndex,
}

impl Builds {
    /// A project whose backend begins with this code.
    fn new(code: &str) -> Self {
        let _ = program("uv", "uv (pip install uv)");
        let bench = Bench::without_channel();
        let index = PackageIndex::start(bench.workspace.path("served"));
        let folder = bench.workspace.path("tool");
        project(&folder, "tool", "1.0", &[], "of the tool");
        let port = bench.listener.local_addr().expect("an address").port().to_string();
        let root = bench.workspace.path("").display().to_string();
        let code = code.replace("@SECRET@", SECRET).replace("@PORT@", &port);
        prepend(&folder.join("backend.py"), &code.replace("@FOLDER@", root.trim_end_matches('/')));
        bench.environment();
        Self { bench, index }
    }

    fn run(&self, words: &[&str]) -> Command {
        let mut command = self.bench.workspace.condaimg();
        command.args(words).args(["--override-channels", "--channel"]).arg(example_channel());
        command.args(["--base", &format!("oci:{}:debian", example_base().display())]);
        command.env("PIP_INDEX_URL", self.index.url());
        command.env("CONDAIMG_REGISTRY_USERNAME", "user").env("CONDAIMG_REGISTRY_PASSWORD", SECRET);
        command
    }
}

fn prepend(path: &Path, code: &str) {
    let text = fs_err::read_to_string(path).expect("a file");
    fs_err::write(path, format!("{code}\n{text}")).expect("writes");
}

impl Bench {
    fn environment(&self) {
        let text = "channels: [conda-forge]\ndependencies:\n  - python=3.11\n  - pip:\n    - \"./tool\"\n";
        self.workspace.file("environment.yml", text);
    }
}

#[test]
fn hostile_backend_reaches_nothing() {
    for machine in [Machine::Open, Machine::NoNamespaces] {
        let builds = Builds::new(ATTACK);
        let lock = builds.run(&["lock", "--allow-build", "--require-sandbox"]);
        succeed(&mut on(machine, &lock));
        builds.bench.check_nothing_was_reached();
        // A place of that name may be in the private /tmp; the machine's is what counts.
        for loot in ["tool/loot", "cache/uv/loot", "cache/v1/loot", "cache/v1/uv/loot"] {
            assert!(!builds.bench.workspace.path(loot).exists(), "{machine:?}: {loot}");
        }
    }
}

#[test]
fn backend_that_never_ends_is_ended() {
    let builds = Builds::new("import time\ntime.sleep(100000)");
    let begin = Instant::now();
    let mut lock = builds.run(&["lock", "--allow-build"]);
    let message = fail(lock.env("CONDAIMG_SANDBOX_TIMEOUT", "20"), 1);
    assert!(begin.elapsed() < Duration::from_secs(200));
    for part in ["tool", "20 s", "CONDAIMG_SANDBOX_TIMEOUT"] {
        assert!(message.contains(part), "{part}: {message}");
    }
}

#[test]
fn backend_that_forks_without_end_is_ended() {
    // More than the sandbox allows, and few enough for a machine without one.
    let bomb =
        "import os, time\nfor _ in range(1500):\n    if os.fork() == 0:\n        time.sleep(30)\n        os._exit(0)\n";
    for machine in [Machine::Open, Machine::NoNamespaces] {
        let builds = Builds::new(bomb);
        let begin = Instant::now();
        let message = fail(&mut on(machine, &builds.run(&["lock", "--allow-build"])), 1);
        assert!(message.contains("tool"), "{message}");
        assert!(begin.elapsed() < Duration::from_secs(120), "{machine:?}");
    }
}

#[test]
fn build_requirements_come_as_wheels_and_are_seen() {
    let mut builds = Builds::new("import build_helper\nassert build_helper.VALUE == 7");
    let helper = Wheel::new("build_helper", "1.0").file("build_helper.py", "VALUE = 7\n");
    builds.index.add(&helper);
    builds.index.add(&Wheel::new("late_helper", "1.0").file("late_helper.py", "VALUE = 8\n"));
    let folder = builds.bench.workspace.path("tool");
    let file = folder.join("pyproject.toml");
    let text = fs_err::read_to_string(&file).expect("a file");
    fs_err::write(&file, text.replace("requires = []", "requires = [\"build-helper\"]")).expect("writes");
    // Asked for by the hook; it is there when the wheel is built.
    let text = fs_err::read_to_string(folder.join("backend.py")).expect("a file");
    let text = text.replace(
        "def build_wheel(folder, config_settings=None, metadata_directory=None):\n",
        "def get_requires_for_build_wheel(config_settings=None):\n    return ['late-helper']\n\ndef build_wheel(folder, config_settings=None, metadata_directory=None):\n    import late_helper\n",
    );
    fs_err::write(folder.join("backend.py"), text).expect("writes");
    succeed(&mut builds.run(&["lock", "--allow-build"]));
    // What is no wheel would run code where the network is.
    let text = fs_err::read_to_string(&file).expect("a file");
    fs_err::write(&file, text.replace("build-helper", "build-helper @ git+http://127.0.0.1:1/x")).expect("writes");
    let message = fail(&mut builds.run(&["lock", "--allow-build"]), 1);
    assert!(message.contains("build requirement") && message.contains("git+http"), "{message}");
}

#[test]
fn no_build_holds_for_locks_too() {
    let builds = Builds::new("");
    let mut lock = builds.run(&["lock", "--allow-build", "--no-build"]);
    let message = fail(&mut lock, 1);
    for part in ["tool", "`--no-build`"] {
        assert!(message.contains(part), "{part}: {message}");
    }
    succeed(&mut builds.run(&["lock", "--allow-build"]));
    // On another machine, the lock alone would build it.
    fs_err::remove_dir_all(builds.bench.workspace.path("cache")).expect("removes");
    for flag in ["--locked", "--frozen"] {
        let message = fail(&mut builds.run(&["build", flag, "--no-build"]), 1);
        assert!(message.contains("tool") && message.contains("`--no-build`"), "{message}");
    }
    let message = fail(builds.run(&["build", "--locked"]).env("CONDAIMG_NO_BUILD", "true"), 1);
    assert!(message.contains("`--no-build`"), "{message}");
    // As a project's file says it.
    let yaml = "environment: environment.yml\nbuild: never\nallow-build: on\n";
    builds.bench.workspace.file("condaimg.yaml", yaml);
    let message = fail(&mut builds.run(&["build", "--locked"]), 1);
    assert!(message.contains("`build: never`"), "{message}");
    builds.bench.workspace.file("condaimg.yaml", yaml.replace("never", "often"));
    let message = fail(&mut builds.run(&["build", "--locked"]), 1);
    assert!(message.contains("never") && message.contains("condaimg.yaml:2"), "{message}");
}
