//! Whole images with wheels: the program builds them from a lock, their keys, collisions with conda packages, byte
//! code, memory, and that they run.

use std::process::Command;

use condaimg::lock::{self, LockedWheel, WheelSource};
use condaimg::store::Store;

use super::{SITE_PACKAGES, locked};
use crate::common::engine::{Engine, swept};
use crate::common::images::shared_cache;
use crate::common::packages::{Channel, Format, Package};
use crate::common::tree::{Image, Kind, Tree};
use crate::common::wheels::Wheel;
use crate::common::{Workspace, environment, example_wheels, fail, program, run_output, succeed};

/// A workspace with a channel that has a Python which nobody runs, and packages beside it.
struct Bench {
    workspace: Workspace,
    channel: Channel,
}

impl Bench {
    fn new(packages: &[Package]) -> Self {
        let workspace = Workspace::new();
        let mut channel = Channel::new(workspace.path("channel"));
        channel.add(&Package::new("python", "3.11.2").file("bin/python3.11", "elf"), Format::Conda);
        packages.iter().for_each(|package| drop(channel.add(package, Format::Conda)));
        channel.index();
        let bench = Self { workspace, channel };
        let names: Vec<&str> = ["python"].into_iter().chain(packages.iter().map(|it| it.name.as_str())).collect();
        bench.workspace.file("environment.yml", environment(&names));
        bench
    }

    fn condaimg(&self, command: &str) -> Command {
        let mut program = self.workspace.condaimg();
        program.args([command, "--override-channels", "--base", "scratch", "--glibc", "2.36", "--channel"]);
        program.arg(&self.channel.folder).args(["--bytecode", "off"]);
        program
    }

    /// A build from the lock with these wheels, whose facts it makes.
    fn build(&self, wheels: &[Wheel]) -> Command {
        succeed(self.condaimg("lock").arg("--no-facts"));
        add_wheels(&self.workspace, &self.workspace.path("cache"), wheels);
        let mut build = self.condaimg("build");
        build.arg("--frozen");
        build
    }

    fn prefix(&self) -> Tree {
        let tree = Image::read(&self.workspace.path("image")).tree();
        let inside = |(path, node): (String, _)| Some((path.strip_prefix("opt/conda/envs/default/")?.to_owned(), node));
        tree.into_iter().filter_map(inside).collect()
    }
}

/// Puts wheels into the lock of a workspace, and into the store, as resolving would.
fn add_wheels(workspace: &Workspace, cache: &std::path::Path, wheels: &[Wheel]) {
    let store = Store::open(cache).expect("a store");
    for wheel in wheels {
        fs_err::write(store.archive(&wheel.sha256(), "whl"), wheel.bytes()).expect("writes");
    }
    add_locked(workspace, wheels.iter().map(locked).collect());
}

fn add_locked(workspace: &Workspace, mut wheels: Vec<LockedWheel>) {
    wheels.sort_by(|a, b| a.name.cmp(&b.name));
    let path = workspace.path("condaimg.lock");
    let locks = lock::read(&path).expect("reads").expect("a lock");
    let add = |lock| lock::Lock { wheels: wheels.clone(), has_facts: false, ..lock };
    let folder = path.parent().expect("a folder");
    let text = lock::render(&locks.into_iter().map(add).collect(), folder).expect("renders");
    lock::write(&path, &text).expect("writes");
}

fn text(tree: &Tree, path: &str) -> Vec<u8> {
    match &tree.get(path).unwrap_or_else(|| panic!("no {path}")).kind {
        Kind::File(content) => content.sha256.as_bytes().to_vec(),
        other => panic!("{other:?}"),
    }
}

fn digest(content: &str) -> Vec<u8> {
    condaimg::util::Digest::of(content).as_bytes().to_vec()
}

#[test]
fn wheels_are_in_the_image_beside_conda_packages() {
    let bench = Bench::new(&[Package::new("one", "1").file("share/one", "1")]);
    let wheel = Wheel::new("foo", "1.0").file("foo.py", "x = 1\n").entry_point("foo = foo:main");
    let mut build = bench.build(std::slice::from_ref(&wheel));
    succeed(&mut build);
    let prefix = bench.prefix();
    assert_eq!(text(&prefix, &format!("{SITE_PACKAGES}/foo.py")), digest("x = 1\n"));
    assert!(prefix.contains_key("bin/foo") && prefix.contains_key("share/one"));
    let image = Image::read(&bench.workspace.path("image")).digest;
    // The same from another store.
    let other = Bench::new(&[Package::new("one", "1").file("share/one", "1")]);
    succeed(&mut other.build(&[wheel]));
    assert_eq!(Image::read(&other.workspace.path("image")).digest, image);
}

#[test]
fn a_wheel_that_does_not_fit_is_refused() {
    let bench = Bench::new(&[]);
    let wheel = Wheel::new("foo", "1.0").tags("cp312-cp312-manylinux_2_17_x86_64");
    let message = fail(&mut bench.build(&[wheel]), 1);
    for part in ["foo-1.0-cp312-cp312-manylinux_2_17_x86_64.whl", "does not fit", "CPython 3.11", "glibc 2.36"] {
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn a_damaged_wheel_ends_the_build_with_its_name() {
    let bench = Bench::new(&[]);
    let wheel = Wheel::new("foo", "1.0").file("foo.py", "x").hash("sha256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU");
    let message = fail(&mut bench.build(&[wheel]), 1);
    assert!(message.contains("the wheel `foo-1.0-py3-none-any.whl` is damaged"), "{message}");
    assert!(!bench.workspace.path("image").exists());
}

#[test]
fn files_of_conda_are_not_replaced_unless_that_is_declared() {
    let module = format!("{SITE_PACKAGES}/foo/__init__.py");
    let conda = Package::new("conda-foo", "1")
        .file(&module, "conda")
        .file(&format!("{SITE_PACKAGES}/foo/__pycache__/__init__.cpython-311.pyc"), "of conda")
        .file("bin/tool", "conda")
        .file("share/own", "conda");
    let bench = Bench::new(&[conda]);
    let wheel = Wheel::new("foo", "1.0").file("foo/__init__.py", "pip").data("scripts/tool", "pip");
    let message = fail(&mut bench.build(std::slice::from_ref(&wheel)), 1);
    assert!(message.contains("`foo` of pip and `conda-foo` of conda both bring `bin/tool` and 1 more"), "{message}");
    assert!(message.contains("--allow-clobber"), "{message}");
    let message = fail(bench.build(std::slice::from_ref(&wheel)).args(["--allow-clobber", "bin/*"]), 1);
    assert!(message.contains(&format!("both bring `{module}`")), "{message}");

    let mut build = bench.build(std::slice::from_ref(&wheel));
    let output = run_output(build.args(["--allow-clobber", "bin/tool", "--allow-clobber", "lib/*/foo/*"]));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("`foo` and `conda-foo` both bring `bin/tool` and 1 more: the one of `foo`"), "{stderr}");
    let prefix = bench.prefix();
    assert_eq!(text(&prefix, &module), digest("pip"));
    assert_eq!(text(&prefix, "bin/tool"), digest("pip"));
    assert_eq!(text(&prefix, "share/own"), digest("conda"));
    // The byte code of the module that went is not that of the one that came.
    assert!(!prefix.keys().any(|path| path.ends_with(".pyc")));

    let mut build = bench.build(&[wheel]);
    let output = run_output(build.env("CONDAIMG_ALLOW_CLOBBER", "bin/tool,lib/*"));
    assert!(String::from_utf8_lossy(&output.stderr).contains("both bring"));
    fail(bench.condaimg("build").args(["--allow-clobber", "[a"]), 2);
}

#[test]
fn a_file_against_a_folder_is_a_collision_too() {
    let bench = Bench::new(&[Package::new("conda-foo", "1").file("share/foo", "a file")]);
    let below = Wheel::new("foo", "1.0").data("data/share/foo/x", "");
    let message = fail(&mut bench.build(&[below]), 1);
    let named = "`foo` of pip brings `share/foo/x`, and `conda-foo` of conda `share/foo`";
    assert!(message.contains(named), "{message}");
    let bench = Bench::new(&[Package::new("conda-foo", "1").file("share/foo/x", "")]);
    let above = Wheel::new("foo", "1.0").data("data/share/foo", "a file");
    let message = fail(&mut bench.build(std::slice::from_ref(&above)), 1);
    let named = "`foo` of pip brings `share/foo`, and `conda-foo` of conda `share/foo/x`";
    assert!(message.contains(named), "{message}");
    let output = run_output(bench.build(&[above]).args(["--allow-clobber", "share/*"]));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("`share/foo/x` of `conda-foo`: `foo` has a file at `share/foo`"), "{stderr}");
    assert_eq!(text(&bench.prefix(), "share/foo"), digest("a file"));
    // Among wheels nobody can declare it.
    let bench = Bench::new(&[]);
    let wheels = [Wheel::new("a", "1").file("x", ""), Wheel::new("b", "1").file("x/y", "")];
    let message = fail(bench.build(&wheels).args(["--allow-clobber", "*"]), 1);
    assert!(message.contains("`a` brings") && message.contains("and `b` as a folder"), "{message}");
}

#[test]
fn two_wheels_may_bring_the_same_file() {
    let bench = Bench::new(&[]);
    let wheels = [
        Wheel::new("a", "1").file("ns/__init__.py", "same").file("other.py", "a").file("third.py", "x"),
        Wheel::new("b", "1").file("ns/__init__.py", "same").file("other.py", "b").file("third.py", "y"),
        Wheel::new("c", "1").file("ns/__init__.py", "same").file("third.py", "x"),
    ];
    let output = run_output(&mut bench.build(&wheels));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains(&format!("`b` and `a` both bring `{SITE_PACKAGES}/other.py`: the one of `b`")), "{stderr}");
    assert!(stderr.contains(&format!("`a` and `b` both bring `{SITE_PACKAGES}/third.py`: the one of `a`")), "{stderr}");
    assert!(!stderr.contains("ns/__init__.py"), "{stderr}");
    let prefix = bench.prefix();
    assert_eq!(text(&prefix, &format!("{SITE_PACKAGES}/other.py")), digest("b"));
    assert_eq!(text(&prefix, &format!("{SITE_PACKAGES}/third.py")), digest("x"));
    assert!(prefix.contains_key(&format!("{SITE_PACKAGES}/ns/__init__.py")));
}

#[test]
fn the_lock_tells_what_conda_packages_are_to_pip() {
    let package = Package::new("pytorch", "2")
        .noarch_python()
        .file("site-packages/torch-2.1.0.dist-info/METADATA", "")
        .file("site-packages/Old_Style-1.0-py3.11.egg-info/PKG-INFO", "");
    let bench = Bench::new(&[package.depends(&["python"])]);
    succeed(&mut bench.condaimg("lock"));
    let locks = lock::read(&bench.workspace.path("condaimg.lock")).expect("reads").expect("a lock");
    let lock = locks.iter().next().expect("a platform");
    let pypi = &lock.package("pytorch").expect("a package").facts.pypi;
    let shown: Vec<String> = pypi.iter().map(|(name, version)| format!("{name}=={version}")).collect();
    assert_eq!(shown, ["old-style==1.0", "torch==2.1.0"]);
}

#[test]
fn a_large_wheel_is_packed_in_little_memory() {
    let bench = Bench::new(&[]);
    // 300 MB that hardly compress, in files of which each is larger than the bound.
    let mut state = 1_u64;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    })
    .take(150 << 20)
    .collect();
    let wheel = Wheel::new("large", "1.0").file("large/a.so", &noise).file("large/b.so", &noise).stored();
    let build = bench.build(&[wheel]);
    let mut measured = program("time", "time");
    measured.args(["--format", "%M"]).arg(build.get_program()).args(build.get_args()).args(["--compression", "zstd:1"]);
    measured.current_dir(bench.workspace.path(""));
    for (name, value) in build.get_envs() {
        match value {
            Some(value) => measured.env(name, value),
            None => measured.env_remove(name),
        };
    }
    let output = run_output(&mut measured);
    let stderr = String::from_utf8_lossy(&output.stderr);
    let peak: u64 = stderr.lines().last().expect("a line").trim().parse().expect("kilobytes");
    assert!(peak < 150 << 10, "{peak} kB");
}

/// Real wheels on a real Python, as the strictest platforms run them.
#[test]
fn real_wheels_run_on_a_read_only_root() {
    let workspace = Workspace::new();
    let mut lock = workspace.build(&["python=3.11", "libstdcxx"]);
    lock.args(["--output", "oci:first"]).env("CONDAIMG_CACHE_DIR", shared_cache());
    succeed(&mut lock);
    let store = Store::open(&shared_cache()).expect("a store");
    let mut wheels = Vec::new();
    for entry in fs_err::read_dir(example_wheels()).expect("wheels") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name").to_str().expect("UTF-8").to_owned();
        let Some(stem) = name.strip_suffix(".whl") else { continue };
        let (distribution, version) = stem.split_once('-').expect("a name");
        let bytes = fs_err::read(&path).expect("reads");
        let mut wheel = locked(&Wheel::new(distribution, version.split('-').next().expect("a version")));
        (wheel.file_name, wheel.sha256, wheel.size) =
            (name.clone(), condaimg::util::Digest::of(&bytes), bytes.len() as u64);
        wheel.source = WheelSource::Wheel { url: format!("https://wheels.example/{name}").parse().expect("a URL") };
        fs_err::write(store.archive(&wheel.sha256, "whl"), bytes).expect("writes");
        wheels.push(wheel);
    }
    add_locked(&workspace, wheels);
    let mut build = workspace.build_here();
    let image = format!("oci:{}:1", swept().join("real-wheels").display());
    build.args(["--frozen", "--output", &image]).env("CONDAIMG_CACHE_DIR", shared_cache());
    succeed(&mut build);
    let id = Engine::shared().pull(&image);
    let run = |command: &[&str]| succeed(Engine::shared().run(&["--user=31337:0"]).arg(&id).args(command));
    let script = "
import importlib.metadata as m, importlib.util as u, json, jsonschema, jmespath, numpy, rpds, sys
jsonschema.validate({'a': 1}, {'type': 'object'})
assert numpy.linalg.det(numpy.eye(3)) == 1 and jmespath.search('a.b', {'a': {'b': 7}}) == 7
assert m.version('rpds-py') == '0.20.0' and m.distribution('numpy').read_text('INSTALLER') == 'condaimg\\n'
files = [f for d in ('numpy', 'jsonschema', 'jmespath') for f in m.files(d)]
assert all(f.locate().is_file() for f in files), [f for f in files if not f.locate().is_file()][:5]
assert all(u.cache_from_source(i.__spec__.origin) == i.__cached__ for i in (jsonschema, jmespath))
import os
assert os.path.exists(jsonschema.__cached__) and os.path.exists(jmespath.__cached__)
print('fine')
";
    assert_eq!(run(&["python", "-c", script]), "fine\n");
    assert!(run(&["jsonschema", "--version"]).contains("4.23.0"));
    assert!(run(&["jp.py", "--help"]).contains("usage: jp.py"));
}
