//! Environments that cannot be solved: the error names the user's own lines, what is between them, and the way out.

use std::process::Command;

use crate::common::packages::{Channel, Format, Package};
use crate::common::{Workspace, environment, fail, succeed};

/// Versions of Python that packages are built for.
const PYTHONS: [(&str, &str); 4] = [("3.10", "3.11"), ("3.11", "3.12"), ("3.12", "3.13"), ("3.13", "3.14")];

/// A channel with builds for several Pythons, as conda-forge has them.
struct Bench {
    workspace: Workspace,
    channel: Channel,
}

impl Bench {
    fn new() -> Self {
        let workspace = Workspace::new();
        let mut bench = Self { channel: Channel::new(workspace.path("channel")), workspace };
        for (python, _) in PYTHONS {
            bench.add(&Package::new("python", &format!("{python}.4")).depends(&["zlib >=1.2,<2"]));
        }
        bench.built("numpy", "1.26.4", &PYTHONS[..3], &[]);
        bench.built("numpy", "2.2.1", &PYTHONS[1..], &[]);
        bench.built("scipy", "1.11.4", &PYTHONS[..3], &["numpy >=1.22,<2"]);
        bench.built("scipy", "1.14.1", &PYTHONS[1..], &["numpy >=2,<3"]);
        bench.channel.add_all(&[("zlib", "1.3", &[]), ("zlib", "1.1", &[]), ("report", "1.0", &["scipy >=1.14"])]);
        bench
    }

    fn add(&mut self, package: &Package) {
        self.channel.add(package, Format::Conda);
    }

    /// A package with a build for each of these Pythons.
    fn built(&mut self, name: &str, version: &str, pythons: &[(&str, &str)], depends: &[&str]) {
        for (python, next) in pythons {
            let range = format!("python >={python},<{next}.0a0");
            let depends = [&[range.as_str()][..], depends].concat();
            let build = format!("py{}_0", python.replace('.', ""));
            self.add(&Package::new(name, version).build(&build, 0).depends(&depends));
        }
        self.channel.index();
    }

    fn lock(&self, flags: &[&str]) -> Command {
        let mut command = self.workspace.condaimg();
        command.args(["lock", "--no-facts", "--base", "scratch", "--glibc", "2.36"]);
        command.args(["--override-channels", "--channel"]).arg(&self.channel.folder).args(flags);
        command
    }

    /// What a lock of these dependencies, which stand from line 4 on, is refused with.
    fn refused(&self, dependencies: &[&str], flags: &[&str]) -> String {
        self.workspace.file("environment.yml", environment(dependencies));
        let told = fail(&mut self.lock(flags), 1);
        assert!(!self.workspace.path("condaimg.lock").exists());
        told
    }

    fn names(&self, dependencies: &[&str], flags: &[&str], expected: &[&str]) {
        let told = self.refused(dependencies, flags);
        for part in expected {
            assert!(told.contains(part), "{part:?} is not in:\n{told}");
        }
    }
}

#[test]
fn two_specs_are_named_with_their_lines() {
    let bench = Bench::new();
    for (dependencies, expected) in [
        // One needs the other.
        (
            &["python=3.13", "numpy=1.26"][..],
            &["environment.yml:4 `python=3.13`", "environment.yml:5 `numpy=1.26`", "`python >=3.10,<3.13.0a0`"][..],
        ),
        // By way of a third, among others that have nothing to do with it.
        (
            &["zlib", "python=3.12", "numpy=1.26", "report"],
            &["environment.yml:6 `numpy=1.26`", "environment.yml:7 `report`", "`scipy >=1.14`", "`numpy >=2,<3`"],
        ),
        // By a build string.
        (
            &["numpy=1.26.4=py310_0", "python=3.12"],
            &["environment.yml:4 `numpy=1.26.4=py310_0`", "environment.yml:5 `python=3.12`", "<3.11.0a0"],
        ),
    ] {
        bench.names(dependencies, &[], expected);
    }
    let told = bench.refused(&["zlib", "python=3.12", "numpy=1.26", "report"], &[]);
    assert!(!told.contains(":4 ") && !told.contains(":5 "), "what is no part of it is not named: {told}");
}

#[test]
fn a_suggested_version_solves() {
    let bench = Bench::new();
    bench.names(&["python=3.13", "numpy=1.26"], &[], &["`python=3.12.4`", "`numpy=2.2.1`"]);
    bench.workspace.file("environment.yml", environment(&["python=3.13", "numpy=2.2.1"]));
    succeed(&mut bench.lock(&[]));
}

#[test]
fn constraints_and_three_specs_are_named() {
    let mut bench = Bench::new();
    bench.add(&Package::new("plugin", "1").constrains(&["numpy <2"]));
    bench.channel.add_all(&[("a", "1", &["x <3"]), ("b", "1", &["x >1"]), ("c", "1", &["x !=2"])]);
    bench.channel.add_all(&[("x", "1", &[]), ("x", "2", &[]), ("x", "3", &[])]);
    bench.names(&["numpy=2", "plugin"], &[], &[":4 `numpy=2`", ":5 `plugin`", "`numpy <2`"]);
    bench.names(&["a", "b", "c"], &[], &[":4 `a`", ":5 `b`", ":6 `c`", "`x <3`", "`x >1`", "`x !=2`"]);
    // Independent conflicts are told at once.
    let both = ["python=3.13", "numpy=1.26", "a", "b", "c"];
    bench.names(&both, &[], &[":4 `python=3.13`", ":5 `numpy=1.26`", ":6 `a`", ":7 `b`", ":8 `c`"]);
}

#[test]
fn unmatched_specs_tell_what_there_is() {
    let bench = Bench::new();
    bench.names(
        &["numpy=1.25", "scipy=9", "zlib"],
        &[],
        &[":4 `numpy=1.25`", "there is 2.2.1, 1.26.4", ":5 `scipy=9`", "there is 1.14.1, 1.11.4"],
    );
    bench.names(&["numpy=1.26.4=py27_0"], &[], &[":4 `numpy=1.26.4=py27_0`", "builds", "`py310_0`", "`py312_0`"]);
    bench.names(&["numpy"], &["--exclude-newer", "1999-01-01"], &[":4 `numpy`", "`--exclude-newer`"]);
}

#[test]
fn virtual_packages_name_their_flag() {
    let mut bench = Bench::new();
    for (name, needs) in [
        ("gpu", "__cuda >=12"),
        ("recent", "__glibc >=2.38,<3.0.a0"),
        ("fast", "__archspec 1 x86_64_v4"),
        ("kernel", "__linux >=5.10"),
        ("fpga", "__fpga"),
        ("windows", "__win"),
    ] {
        bench.add(&Package::new(name, "1").depends(&[needs]));
        bench.channel.add_all(&[(&*format!("{name}-user"), "1", &[name])]);
    }
    for (name, needs, flag) in [
        ("gpu", "`__cuda >=12`", "`--cuda VERSION`"),
        ("recent", "`__glibc >=2.38,<3.0.a0`", "`--glibc VERSION`"),
        ("fast", "`__archspec 1 x86_64_v4`", "`--platform linux/amd64/v4`"),
        ("kernel", "`__linux >=5.10`", "`--virtual-package __linux=VERSION`"),
        ("fpga", "`__fpga`", "`--virtual-package __fpga=VERSION`"),
        ("windows", "`__win`", "not for Linux"),
    ] {
        let user = format!("{name}-user");
        bench.names(&["zlib", &user], &[], &[&format!("environment.yml:5 `{user}`"), needs, flag]);
    }
    bench.names(&["gpu"], &["--cuda", "11.8"], &["__cuda=11.8", "`--cuda VERSION`"]);
    bench.names(&["__cuda>=12"], &[], &[":4 `__cuda>=12`", "`--cuda VERSION`"]);
    bench.workspace.file("environment.yml", environment(&["gpu", "fast"]));
    succeed(&mut bench.lock(&["--cuda", "12.4", "--platform", "linux/amd64/v4"]));
}

#[test]
fn later_channels_are_named_with_the_flag() {
    let mut bench = Bench::new();
    let mut later = Channel::new(bench.workspace.path("later"));
    later.add_all(&[("zlib", "2.0", &[]), ("elsewhere", "1", &[])]);
    bench.channel.add_all(&[("wants", "1", &["zlib >=2"])]);
    let flags = ["--channel", "./later"];
    let expected = ["/later/", "/channel/", "strict channel priority", "`--channel-priority flexible`"];
    bench.names(&["zlib=2"], &flags, &[&[":4 `zlib=2`"][..], &expected[..]].concat());
    bench.names(&["wants"], &flags, &[&[":4 `wants`", "`zlib >=2`"][..], &expected[..]].concat());
    succeed(&mut bench.lock(&["--channel", "./later", "--channel-priority", "flexible"]));
}

#[test]
fn unknown_packages_tell_what_they_may_be() {
    let mut bench = Bench::new();
    bench.channel.add_all(&[("scikit-learn", "1", &[]), ("python-dateutil", "1", &[])]);
    bench.add(&Package::new("pywin32", "1").subdir("win-64"));
    bench.channel.add_all(&[("app", "1", &["gone >=2"])]);
    for (unknown, expected) in [
        ("nunpy", "`numpy`"),
        ("sklearn", "`scikit-learn`"),
        ("dateutil", "`python-dateutil`"),
        ("pywin32", "win-64"),
        ("requests", "`- pip:`"),
    ] {
        bench.names(&["python", unknown], &[], &[&format!("`{unknown}` (./environment.yml:5)"), expected]);
    }
    bench.names(&["app"], &[], &[":4 `app`", "`gone >=2`", "no channel"]);
}

#[test]
fn every_origin_of_a_spec_is_named() {
    let bench = Bench::new();
    let refused = |path: &str, flags: &[&str], place: &str| {
        let told = fail(bench.lock(flags).arg(path), 1);
        assert!(told.contains(place), "{place:?} is not in:\n{told}");
    };
    bench.workspace.file("own/condaimg.yaml", "max-layers: 5\ndependencies:\n- python=3.13\n\n- numpy=1.26 # old\n");
    refused("own", &[], "own/condaimg.yaml:3 `python=3.13`");
    refused("own", &[], "own/condaimg.yaml:5 `numpy=1.26`");
    bench.workspace.file("named/condaimg.yaml", "environment: env.yml\n");
    bench.workspace.file("named/env.yml", "dependencies:\n- &a 'python=3.13'\n- pip:\n  - x\n- numpy=1.26\n");
    refused("named", &[], "named/env.yml:2 `python=3.13`");
    refused("named", &[], "named/env.yml:5 `numpy=1.26`");
    bench.workspace.file("pip/requirements.txt", "six\n");
    refused("pip/requirements.txt", &["--python", "3.7"], "--python `python 3.7.*`");
    bench.workspace.file("pip/.python-version", "3.6\n");
    refused("pip/requirements.txt", &[], "pip/.python-version `python 3.6.*`");
    bench.workspace.file("pip/condaimg.yaml", "environment: requirements.txt\npython: '3.5'\n");
    refused("pip", &[], "pip/condaimg.yaml:2:9 `python 3.5.*`");
}

/// What an older lock holds is preferred, and no reason against anything.
#[test]
fn a_locked_package_is_no_reason() {
    let bench = Bench::new();
    bench.workspace.file("environment.yml", environment(&["python=3.12", "numpy=1.26"]));
    succeed(&mut bench.lock(&[]));
    let before = fs_err::read(bench.workspace.path("condaimg.lock")).expect("reads");
    bench.workspace.file("environment.yml", environment(&["python=3.12", "numpy=1.26", "report"]));
    for flags in [&[][..], &["--upgrade"], &["--upgrade", "numpy"], &["--platform", "linux/amd64,linux/arm64"]] {
        let told = fail(&mut bench.lock(flags), 1);
        let expected = ["environment.yml:5 `numpy=1.26`", "environment.yml:6 `report`", "`scipy >=1.14`"];
        assert!(expected.iter().all(|part| told.contains(part)), "{flags:?}: {told}");
    }
    assert_eq!(fs_err::read(bench.workspace.path("condaimg.lock")).expect("reads"), before, "the lock stays");
    bench.workspace.file("environment.yml", environment(&["python=3.13", "numpy=2"]));
    succeed(&mut bench.lock(&[]));
}

/// The real index of conda-forge, as of May 2024.
#[test]
fn conflicts_in_a_real_index_are_named() {
    let workspace = Workspace::new();
    let data = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/conda-forge-py39");
    for subdir in ["linux-64", "noarch"] {
        let packed = fs_err::read(data.join(subdir).join("repodata.json.zst")).expect("reads");
        workspace.file(&format!("channel/{subdir}/repodata.json"), zstd::decode_all(&packed[..]).expect("zstd"));
    }
    let mut bench = Bench::new();
    bench.channel.folder = workspace.path("channel");
    bench.names(
        &["python=3.9.0", "pip", "openssl=3"],
        &[],
        &[":4 `python=3.9.0`", ":6 `openssl=3`", "`openssl >=1.1.1h,<1.1.2a`"],
    );
    bench.names(
        &["python=3.9", "sqlite=3.45", "libsqlite=3.44"],
        &[],
        &[":5 `sqlite=3.45`", ":6 `libsqlite=3.44`", "`libsqlite 3.45"],
    );
    bench.names(&["python=3.12", "pip"], &[], &[":4 `python=3.12`", "there is 3.9.19"]);
}
