//! Packages of PyPI in the locks of other tools: taken as they are pinned, whatever the index has now.

use std::process::Command;

use super::{keys, notices};
use crate::common::engine::{Engine, swept};
use crate::common::pypi::{PackageIndex, Repository, project};
use crate::common::wheels::Wheel;
use crate::common::{Workspace, example_base, example_channel, fail, program, python_with_rattler, succeed};

/// A lock with a wheel of an index, one of a place, and one that is built of a repository, in the forms of others.
pub(super) struct Bench {
    pub(super) workspace: Workspace,
    pub(super) index: PackageIndex,
}

pub(super) fn module(name: &str, version: &str) -> Wheel {
    Wheel::new(name, version).file(&format!("{name}.py"), format!("VERSION = '{version}'\n"))
}

impl Bench {
    pub(super) fn new() -> Self {
        let workspace = Workspace::new();
        let mut index = PackageIndex::start(workspace.path("served"));
        index.add(&module("lib", "1.0"));
        index.write(&module("placed", "2.0").file_name(), &module("placed", "2.0").bytes());
        Self { workspace, index }
    }

    /// Makes the lock of an environment.yml with these lines for pip.
    pub(super) fn lock(&self, lines: &[&str]) {
        let lines: String = lines.iter().map(|line| format!("    - \"{line}\"\n")).collect();
        let channel = example_channel();
        let text = format!("channels: [{}]\ndependencies:\n  - python=3.11\n  - pip:\n{lines}", channel.display());
        self.workspace.file("environment.yml", text);
        succeed(self.run("lock").arg("environment.yml").arg("--allow-build").env("PIP_INDEX_URL", self.index.url()));
    }

    /// The URL of a file of the index.
    fn file(&self, wheel: &Wheel) -> String {
        format!("{}/files/{}", self.index.server.url, wheel.file_name())
    }

    pub(super) fn run(&self, command: &str) -> Command {
        let mut program = self.workspace.condaimg();
        program.args([command, "--base", &format!("oci:{}:debian", example_base().display())]);
        program
    }

    pub(super) fn export(&self, spec: &str, form: &str) -> String {
        succeed(self.run("lock").arg(spec).args(["--export", form]))
    }

    /// What a file builds to, without uv, and what the index was asked for.
    pub(super) fn built(&self, file: &str) -> Vec<String> {
        let _ = fs_err::remove_dir_all(self.workspace.path("cache"));
        let _ = fs_err::remove_dir_all(self.workspace.path("out"));
        succeed(self.run("build").args([file, "--output", "oci:out"]).env("CONDAIMG_UV", "/nonexistent/uv"));
        keys(&self.workspace.path("out"))
    }
}

#[test]
fn pinned_wheels_are_taken_as_they_are() {
    let mut bench = Bench::new();
    let placed = bench.file(&module("placed", "2.0"));
    bench.lock(&["lib", &format!("placed @ {placed}")]);
    let expected = bench.built("environment.yml");
    bench.index.add(&module("lib", "3.0"));
    let seen = bench.index.server.seen("/simple/").len();
    for (form, file, lock) in [
        ("pixi", "pixi.lock", "pixi.condaimg.lock"),
        ("conda-lock", "conda-lock.yml", "conda-lock.condaimg.lock"),
        ("explicit", "explicit.txt", "explicit.condaimg.lock"),
    ] {
        let text = bench.export("environment.yml", form);
        bench.workspace.file(file, &text);
        let made = bench.built(file);
        // The history says what was asked for; an explicit file cannot say what no index lists.
        if form != "explicit" {
            assert_eq!(made[..made.len() - 1], expected[..expected.len() - 1], "{file}");
        }
        let first = fs_err::read_to_string(bench.workspace.path(lock)).expect("a lock");
        succeed(bench.run("lock").args([file, "--check"]));
        succeed(bench.run("build").args([file, "--locked"]));
        fs_err::remove_file(bench.workspace.path(lock)).expect("removes");
        succeed(bench.run("lock").arg(file));
        assert_eq!(fs_err::read_to_string(bench.workspace.path(lock)).expect("a lock"), first, "{file}");
        // conda-lock names no index, explicit files no versions; a pixi.lock comes back as it was.
        if form == "pixi" {
            assert_eq!(bench.export(file, form), text);
        }
    }
    assert_eq!(bench.index.server.seen("/simple/").len(), seen, "the index is not asked");
    // With the wheels it runs.
    let out = swept().join("pinned-wheels");
    succeed(bench.run("build").args(["pixi.lock", "--output", &format!("oci:{}", out.display())]));
    let image = Engine::shared().pull(&format!("oci:{}", out.display()));
    let code = "import lib, placed; print(lib.VERSION, placed.VERSION)";
    assert_eq!(succeed(Engine::shared().run(&[]).args([image.as_str(), "python", "-c", code])).trim(), "1.0 2.0");
}

#[test]
fn changed_and_replaced_wheels_are_refused() {
    let bench = Bench::new();
    bench.lock(&["lib"]);
    let pixi = bench.export("environment.yml", "pixi");
    bench.workspace.file("pixi.lock", &pixi);
    succeed(bench.run("lock").arg("pixi.lock"));
    bench.workspace.file("pixi.lock", pixi.replace("lib-1.0-", "lib-1.1-").replace("version: '1.0'", "version: '1.1'"));
    let message = fail(bench.run("lock").args(["pixi.lock", "--check"]), 1);
    assert!(message.contains("is stale") && message.contains("pinned packages: +"), "{message}");
    // A wheel for another Python, told before anything is fetched.
    bench.workspace.file("pixi.lock", pixi.replace("lib-1.0-py3-none-any", "lib-1.0-cp39-cp39-linux_x86_64"));
    let message = fail(bench.run("lock").arg("pixi.lock"), 1);
    assert!(message.contains("lib-1.0-cp39-cp39-linux_x86_64.whl") && message.contains("3.11"), "{message}");
    // Another file on the server.
    bench.workspace.file("pixi.lock", &pixi);
    let _ = fs_err::remove_dir_all(bench.workspace.path("cache"));
    fs_err::remove_file(bench.workspace.path("pixi.condaimg.lock")).expect("removes");
    bench.index.write(&module("lib", "1.0").file_name(), &module("lib", "1.0").file("more.py", "").bytes());
    let message = fail(bench.run("lock").arg("pixi.lock"), 1);
    assert!(message.contains("is not the file that was pinned"), "{message}");
}

#[test]
fn pinned_sources_are_built_where_that_is_allowed() {
    let _ = program("uv", "uv (pip install uv)");
    let bench = Bench::new();
    let repository = Repository::new(bench.workspace.path("work"), &bench.workspace.path("served"), "tool");
    project(&repository.work, "tool", "1.5", &[], "first");
    let commit = repository.commit(Some("v1"));
    project(&bench.workspace.path("here"), "here", "0.1", &[], "here");
    bench.lock(&[&format!("git+{}/tool.git@v1", bench.index.server.url), "./here"]);
    let pixi = bench.export("environment.yml", "pixi");
    assert!(pixi.contains(&commit), "{pixi}");
    let folder = bench.workspace.path("here").display().to_string();
    let relative = pixi.replace(&format!("file://{folder}"), "./here").replace(&folder, "./here");
    bench.workspace.file("pixi.lock", &relative);
    let _ = fs_err::remove_dir_all(bench.workspace.path("cache"));
    let message = fail(bench.run("lock").arg("pixi.lock"), 1);
    assert!(message.contains("--allow-build"), "{message}");
    succeed(bench.run("lock").args(["pixi.lock", "--allow-build"]));
    // The lock has the hashes: no flag is needed any more.
    let _ = fs_err::remove_dir_all(bench.workspace.path("cache"));
    succeed(bench.run("build").args(["pixi.lock", "--locked"]));
    fs_err::write(bench.workspace.path("here/here.py"), "VALUE = 'other'\n").expect("writes");
    let message = fail(bench.run("lock").args(["pixi.lock", "--check"]), 1);
    assert!(message.contains("pip: + here (content "), "{message}");
    bench.workspace.file("pixi.lock", relative.replace(&commit, "main"));
    let message = fail(bench.run("lock").args(["pixi.lock", "--allow-build"]), 1);
    assert!(message.contains("names no whole commit"), "{message}");
}

#[test]
fn requirements_are_an_environment_with_a_python() {
    let _ = program("uv", "uv (pip install uv)");
    let bench = Bench::new();
    bench.workspace.file("requirements.txt", "lib==1.0\n");
    let run = |command: &str| {
        let mut program = bench.run(command);
        program.args(["--override-channels", "--channel"]).arg(example_channel()).arg("requirements.txt");
        program.env("PIP_INDEX_URL", bench.index.url());
        program
    };
    let message = fail(&mut run("build"), 1);
    assert!(message.contains("does not say which Python") && message.contains("--python VERSION"), "{message}");
    assert!(fail(run("build").args(["--python", "three"]), 2).contains("`--python three` is no version"));
    bench.workspace.file(".python-version", "3.11\n");
    let told = notices(&mut run("lock"));
    assert!(told.contains("Python 3.11, as `.python-version` says"), "{told}");
    succeed(run("lock").args(["--check", "--python", "3.11"]));
    let out = swept().join("requirements");
    succeed(run("build").args(["--locked", "--output", &format!("oci:{}", out.display())]));
    assert!(bench.workspace.path("requirements.condaimg.lock").is_file());
    let image = Engine::shared().pull(&format!("oci:{}", out.display()));
    let code = "import lib, sys; print(lib.VERSION, *sys.version_info[:2])";
    assert_eq!(succeed(Engine::shared().run(&[]).args([image.as_str(), "python", "-c", code])).trim(), "1.0 3 11");
    bench.workspace.file("condaimg.yaml", "environment: requirements.txt\npython: 3.11\n");
    fs_err::remove_file(bench.workspace.path(".python-version")).expect("removes");
    let mut lock = bench.run("lock");
    lock.args(["--override-channels", "--channel"]).arg(example_channel()).env("PIP_INDEX_URL", bench.index.url());
    succeed(&mut lock);
    bench.workspace.file("environment.yml", "dependencies: [python]\n");
    assert!(fail(bench.run("lock").args(["environment.yml", "--python", "3.11"]), 2).contains("itself says which"));
}

/// Two machines, two days: what differs between them leaves no trace.
#[test]
fn one_lock_of_conda_and_pip_packages_has_one_digest() {
    let bench = Bench::new();
    bench.lock(&["lib"]);
    let lock = fs_err::read_to_string(bench.workspace.path("condaimg.lock")).expect("a lock");
    let spec = fs_err::read_to_string(bench.workspace.path("environment.yml")).expect("a spec");
    let digests = [("a", "0022", "UTC", "+0"), ("much/deeper/in a folder", "0077", "Asia/Kathmandu", "+40d")].map(
        |(place, umask, zone, clock)| {
            let folder = bench.workspace.path(place);
            bench.workspace.file(&format!("{place}/condaimg.lock"), &lock);
            bench.workspace.file(&format!("{place}/environment.yml"), &spec);
            let mut shell = program("sh", "dash");
            let built = format!("umask {umask} && exec faketime -f {clock} \"$0\" \"$@\"");
            drop(program("faketime", "faketime"));
            shell.args(["-c", &built, env!("CARGO_BIN_EXE_condaimg"), "build", "--locked"]);
            shell.arg("--base").arg(format!("oci:{}:debian", example_base().display()));
            shell.current_dir(&folder).env_remove("SOURCE_DATE_EPOCH").env("TZ", zone).env("HOME", folder.join("home"));
            shell.env("CONDAIMG_CACHE_DIR", folder.join("cache")).env("CONDAIMG_UV", "/nonexistent/uv");
            // Times of the files that a build finds are no part of it.
            succeed(program("touch", "coreutils").args(["-d", "2001-01-01"]).arg(folder.join("environment.yml")));
            succeed(&mut shell)
        },
    );
    assert_eq!(digests[0], digests[1]);
}

/// `conda env export --from-history`: what was asked for, loosely, and solved.
#[test]
fn exports_from_history_are_solved() {
    let bench = Bench::new();
    let text = "name: old\nchannels:\n  - conda-forge\n  - defaults\ndependencies:\n  - python=3.11\n  - click\nprefix: /home/me/old\n";
    bench.workspace.file("environment.yml", text);
    let out = swept().join("from-history");
    let mut build = bench.run("build");
    build.args(["--override-channels", "--channel"]).arg(example_channel());
    let told = notices(build.args(["--output", &format!("oci:{}", out.display())]));
    assert!(told.contains("`prefix:` is ignored"), "{told}");
    let image = Engine::shared().pull(&format!("oci:{}", out.display()));
    let code = "import click, sys; print(click.__name__, *sys.version_info[:2])";
    assert_eq!(succeed(Engine::shared().run(&[]).args([image.as_str(), "python", "-c", code])).trim(), "click 3 11");
}

const BY_PY_RATTLER: &str = r"
import os, sys
from rattler import LockFile

environment = LockFile.from_path(sys.argv[1]).default_environment()
platform = next(iter(environment.platforms()))
print(sorted(str(package.name) for package in environment.packages(platform)), flush=True)
os._exit(0)
";

#[test]
fn other_tools_read_a_lock_with_wheels() {
    let bench = Bench::new();
    bench.lock(&["lib"]);
    let path = bench.workspace.path("condaimg.lock");
    let lock = rattler_lock::LockFile::from_path(&path).expect("a pixi.lock");
    let wheel = lock.packages().iter().find_map(|package| package.as_pypi()?.as_wheel()).expect("a wheel");
    assert_eq!((wheel.name.to_string(), wheel.version.to_string()), ("lib".to_owned(), "1.0".to_owned()));
    let names = succeed(python_with_rattler().args(["-c", BY_PY_RATTLER]).arg(&path));
    assert!(names.contains("'lib'") && names.contains("'python'"), "{names}");
}
