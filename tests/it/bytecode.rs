//! Byte code that packages ship: none of it is stale in an image, whoever shipped it, and Python says so itself.
//!
//! Each image that is read by [`Image::read`] is checked for stale byte code; here is what becomes of odd `.pyc`.

mod links;
mod modules;

use std::process::Command;

use crate::common::packages::{Channel, FileMode, Format, Package};
use crate::common::tree::{Image, Kind, Node, Tree};
use crate::common::{Workspace, environment, fail, pyc, run_output};

const SITE: &str = "lib/python3.11/site-packages";
const SOURCE: &str = "VALUE = 1\n";
/// Of the modules' files; [`Package::fractional_mtime`] puts a fraction behind it.
const TIME: u64 = 1_700_000_000;

struct Bench {
    workspace: Workspace,
    channel: Channel,
}

impl Bench {
    fn new(packages: &[Package], format: Format) -> Self {
        let workspace = Workspace::new();
        let mut channel = Channel::new(workspace.path("channel"));
        packages.iter().for_each(|package| drop(channel.add(package, format)));
        channel.index();
        Self { workspace, channel }
    }

    /// `condaimg build` on nothing, and without byte code of its own.
    fn build(&self, dependencies: &[&str]) -> Command {
        self.workspace.file("environment.yml", environment(dependencies));
        let mut build = self.workspace.condaimg();
        build.args(["build", "--override-channels", "--base", "scratch", "--glibc", "2.36", "--bytecode", "off"]);
        build.arg("--channel").arg(&self.channel.folder);
        build
    }

    /// `condaimg build` with the Python of the example channel.
    fn build_with_python(&self, dependencies: &[&str]) -> Command {
        let mut build = self.workspace.build(&[&["python=3.11"], dependencies].concat());
        build.arg("--channel").arg(&self.channel.folder);
        build
    }

    /// The prefix of the image.
    fn prefix(&self) -> Tree {
        let tree = Image::read(&self.workspace.path("image")).tree();
        let prefix = &crate::oracle::PREFIX[1..];
        let inside = |(path, node): (String, Node)| Some((path.strip_prefix(prefix)?.get(1..)?.to_owned(), node));
        tree.into_iter().filter_map(inside).collect()
    }
}

fn told(command: &mut Command) -> String {
    String::from_utf8(run_output(command).stderr).expect("UTF-8")
}

fn path_of(module: &str) -> String {
    format!("{SITE}/__pycache__/{module}.cpython-311.pyc")
}

/// A package with a module and this byte code for it, behind or before it in the archive.
trait WithModule {
    fn module(self, name: &str, thousandths: u64) -> Self;
    fn code(self, name: &str, bytes: Vec<u8>) -> Self;
}

impl WithModule for Package {
    fn module(self, name: &str, thousandths: u64) -> Self {
        self.file(&format!("{SITE}/{name}.py"), SOURCE).fractional_mtime(TIME, thousandths)
    }

    fn code(self, name: &str, bytes: Vec<u8>) -> Self {
        self.file(&path_of(name), bytes).fractional_mtime(TIME, 999)
    }
}

#[test]
fn shipped_pyc_is_kept_restamped_or_left_out() {
    let (fits, other) = (pyc::stamped(SOURCE, TIME), pyc::stamped(SOURCE, TIME - 7));
    let mut magic = fits.clone();
    magic[0] ^= 1;
    // The magic number of Python 3.9.
    let of_39 = [&3425_u16.to_le_bytes(), &other[2..]].concat();
    let package = Package::new("odd", "1.0")
        // As conda-build writes it: the header's time is one second later.
        .module("fits", 750)
        .code("fits", fits.clone())
        .module("late", 250)
        .code("late", other.clone())
        .code("before", other.clone())
        .module("before", 500)
        .module("size", 0)
        .code("size", pyc::stamped("VALUE = 12\n", TIME))
        .module("magic", 0)
        .code("magic", magic)
        .module("text", 0)
        .code("text", b"no code".to_vec())
        .module("checked", 0)
        .code("checked", pyc::hashed(SOURCE, true))
        .code("wrong", pyc::hashed("VALUE = 2\n", true))
        .module("wrong", 0)
        .module("unchecked", 0)
        .code("unchecked", pyc::hashed(SOURCE, false))
        .module("linked", 600)
        .hardlink(&path_of("linked"), &path_of("late"))
        .module("fast", 0)
        .file(&format!("{SITE}/__pycache__/fast.cpython-311.opt-1.pyc"), other.clone())
        .file(&format!("{SITE}/__pycache__/fast.cpython-39.pyc"), &of_39)
        .file(&format!("{SITE}/__pycache__/gone.cpython-311.pyc"), &other);
    for format in [Format::Conda, Format::TarBz2] {
        let bench = Bench::new(std::slice::from_ref(&package), format);
        let told = told(&mut bench.build(&["odd"]));
        assert!(told.contains("4 stale .pyc files of `odd-1.0-0`"), "{told}");
        // This checks all of it.
        let prefix = bench.prefix();
        let head = |module: &str| prefix[&path_of(module)].content().head.clone();
        for kept in ["fits", "checked", "unchecked", "gone"] {
            assert!(prefix.contains_key(&path_of(kept)), "{kept}");
        }
        assert_eq!(prefix[&format!("{SITE}/fits.py")].mtime, TIME);
        assert_eq!(head("fits"), fits[..16]);
        for restamped in ["late", "before", "linked"] {
            assert_eq!(head(restamped), fits[..16], "{restamped}");
        }
        for left_out in ["size", "magic", "text", "wrong"] {
            assert!(!prefix.contains_key(&path_of(left_out)), "{left_out}");
            assert!(prefix.contains_key(&format!("{SITE}/{left_out}.py")), "{left_out}");
        }
        // Other Pythons' is judged in the same way.
        let of_39 = &prefix[&format!("{SITE}/__pycache__/fast.cpython-39.pyc")];
        assert_eq!(of_39.content().head[8..], fits[8..16]);
        let record: serde_json::Value = serde_json::from_str(&prefix["conda-meta/odd-1.0-0.json"].text()).unwrap();
        let paths = record["paths_data"]["paths"].as_array().expect("paths");
        let of = |path: &str| paths.iter().find(|entry| entry["_path"] == path);
        let late = of(&path_of("late")).expect("is recorded");
        assert_eq!(late["sha256_in_prefix"], prefix[&path_of("late")].content().sha256.hex());
        assert!(of(&path_of("size")).is_none() && of(&path_of("fits")).is_some());
        // A layer from the store has lost the same.
        let again = self::told(&mut bench.build(&["odd"]));
        assert_eq!(again.matches("4 stale .pyc files of `odd-1.0-0`").count(), 1, "{again}");
        // From what the store knows of the archive by now, the same.
        let again = |bench: &Bench| String::from_utf8(run_output(bench.build(&["odd"]).arg("--no-cache")).stdout);
        assert_eq!(again(&bench), again(&Bench::new(std::slice::from_ref(&package), format)));
    }
}

/// Where the plan has byte code for the package, what does not fit is made anew.
#[test]
fn pyc_that_does_not_fit_is_remade_for_noarch() {
    let build_prefix = format!("/build/{}", "placehold_".repeat(20));
    let stale = pyc::stamped("VALUE = 12\n", TIME);
    let noarch = Package::new("noarch-mod", "1")
        .noarch_python()
        .depends(&["python"])
        // For this one byte code is made in any case.
        .file("site-packages/noarch_other.py", SOURCE)
        .file("site-packages/noarch_mod.py", SOURCE)
        .file("site-packages/__pycache__/noarch_mod.cpython-311.pyc", &stale);
    let patched = Package::new("patched-mod", "1")
        .module("unfit", 0)
        .code("unfit", stale.clone())
        .file_with_placeholder(
            &format!("{SITE}/patched.py"),
            format!("P = '{build_prefix}'\n"),
            &build_prefix,
            FileMode::Text,
        )
        .code("patched", pyc::stamped(&format!("P = '{build_prefix}'\n"), TIME));
    let bench = Bench::new(&[noarch, patched], Format::Conda);
    let told = told(&mut bench.build_with_python(&["noarch-mod", "patched-mod"]));
    assert!(!told.contains("stale .pyc"), "{told}");
    let prefix = bench.prefix();
    for module in ["noarch_mod", "unfit", "patched"] {
        let made = prefix[&path_of(module)].content();
        assert_eq!(made.head[4..8], [1, 0, 0, 0], "{module} is made");
    }
}

/// A wheel's times are those of a zip, two seconds apart and of no zone: what it ships fits by size alone.
#[test]
fn module_and_pyc_of_different_packages_fit() {
    let other = "VALUE = 22\n";
    let with =
        |name: &str, source: &str| Package::new(name, "1").file(&format!("{SITE}/shared.py"), source).mtime(TIME);
    let shipped = |source: &str| pyc::stamped(source, TIME);
    let low = with("low", SOURCE).code("shared", shipped(SOURCE));
    let cases = [
        // The winner ships none: the loser's goes.
        (with("high", other).depends(&["low"]), None),
        // Both ship some: the winner's stays.
        (with("high", other).code("shared", shipped(other)).depends(&["low"]), Some(other)),
        // One that has no module loses to the one that has.
        (Package::new("high", "1").code("shared", shipped(other)).depends(&["low"]), Some(SOURCE)),
    ];
    for (high, expected) in cases {
        let bench = Bench::new(&[low.clone(), high], Format::Conda);
        let told = told(&mut bench.build(&["low", "high"]));
        let prefix = bench.prefix();
        let found = prefix.get(&path_of("shared")).map(|node| node.content().code);
        let code = |source: &str| crate::common::tree::Content::of("x.pyc", &shipped(source)).code;
        assert_eq!(found, expected.map(code), "{told}");
        assert!(matches!(prefix[&format!("{SITE}/shared.py")].kind, Kind::File(_)));
        assert!(told.contains("`low`") && told.contains("`high`"), "{told}");
    }
}

/// Such byte code would be stale.
#[test]
fn lock_that_keeps_pyc_of_a_lost_module_is_refused() {
    let with =
        |name: &str, source: &str| Package::new(name, "1").file(&format!("{SITE}/shared.py"), source).mtime(TIME);
    let low = with("low", SOURCE).code("shared", pyc::stamped(SOURCE, TIME));
    let bench = Bench::new(&[low, with("high", "VALUE = 22\n").depends(&["low"])], Format::Conda);
    run_output(&mut bench.build(&["low", "high"]));
    let path = bench.workspace.path("condaimg.lock");
    let locks = condaimg::lock::read(&path).expect("reads").expect("a lock");
    let says = |lock: &condaimg::lock::Lock| {
        lock.packages.iter().any(|it| it.facts.clobbered.contains_key(&path_of("shared")))
    };
    assert!(locks.iter().all(says));
    let without = |mut lock: condaimg::lock::Lock| {
        lock.packages.iter_mut().for_each(|package| drop(package.facts.clobbered.remove(&path_of("shared"))));
        lock
    };
    let text = condaimg::lock::render(&locks.into_iter().map(without).collect(), path.parent().expect("a folder"));
    fs_err::write(&path, text.expect("renders")).expect("writes");
    let told = fail(bench.build(&["low", "high"]).args(["--frozen", "--no-cache"]), 1);
    assert!(told.contains("the lock") && told.contains("`low`"), "{told}");
}
