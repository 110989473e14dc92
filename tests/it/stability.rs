//! How often packages change: told from the channel's index when a package is locked first, kept from then on.

use std::process::Command;

use serde_json::{Value, json};

use crate::common::packages::{Channel, Format, Package};
use crate::common::{Workspace, environment, fail, run_output, succeed};

const DAY: i64 = 86_400_000;
/// 2024-05-08.
const NEWEST: i64 = 1_715_126_400_000;

/// A channel with `fast`, which has a release every two weeks, and `slow`, which has one in two hundred days.
struct Bench {
    workspace: Workspace,
    channel: Channel,
}

impl Bench {
    fn new() -> Self {
        let workspace = Workspace::new();
        let channel = Channel::new(workspace.path("channel"));
        workspace.file("environment.yml", environment(&["fast", "slow"]));
        let mut bench = Self { workspace, channel };
        bench.release("fast", 1..=40, 14, 0);
        bench.release("slow", 1..=4, 200, 0);
        bench
    }

    /// Adds versions of a package, each so many days after the one before; the last one so many days after the newest
    /// of the channel.
    fn release(&mut self, name: &str, versions: std::ops::RangeInclusive<i64>, days: i64, later: i64) {
        let last = *versions.end();
        for version in versions {
            let package = Package::new(name, &version.to_string()).file(&format!("share/{name}"), version.to_string());
            self.channel.add(&package, Format::Conda);
            let time = NEWEST + (later - (last - version) * days) * DAY;
            self.channel.change(name, |record| {
                if record["version"].as_str() == Some(package.version.as_str()) {
                    record["timestamp"] = json!(time);
                }
            });
        }
        self.channel.index();
    }

    fn condaimg(&self, command: &str) -> Command {
        let mut program = self.workspace.condaimg();
        program.args([command, "--override-channels", "--base", "scratch", "--glibc", "2.36", "--channel"]);
        program.arg(&self.channel.folder);
        program
    }

    fn lock(&self, flags: &[&str]) -> String {
        String::from_utf8(run_output(self.condaimg("lock").args(flags)).stderr).expect("UTF-8")
    }

    fn text(&self) -> String {
        fs_err::read_to_string(self.workspace.path("condaimg.lock")).expect("a lock")
    }

    /// `package version class` of the lock in its plan.
    fn classes(&self) -> Vec<String> {
        let plan = succeed(self.condaimg("plan").args(["--json", "--frozen"]));
        of_packages(&serde_json::from_str(&plan).expect("JSON"))
    }
}

/// `package version class` of a plan.
fn of_packages(plan: &Value) -> Vec<String> {
    let layers = plan["platforms"][0]["layers"].as_array().expect("layers");
    let packages = layers.iter().flat_map(|layer| layer["packages"].as_array().expect("packages"));
    let text = |value: &Value| value.as_str().unwrap_or("none").to_owned();
    let mut classes: Vec<String> = packages
        .map(|it| format!("{} {} {}", text(&it["name"]), text(&it["version"]), text(&it["stability"])))
        .collect();
    classes.sort();
    classes
}

#[test]
fn a_class_once_locked_stays() {
    let mut bench = Bench::new();
    bench.lock(&[]);
    assert_eq!(bench.classes(), ["fast 40 lively", "slow 4 slow"]);
    assert!(bench.text().contains("stability: lively"), "{}", bench.text());
    let first = bench.text();
    // Two years later `fast` has slept, and `slow` has not.
    bench.release("slow", 5..=60, 10, 730);
    bench.lock(&[]);
    assert_eq!(bench.text(), first);
    bench.lock(&["--upgrade", "slow"]);
    assert_eq!(bench.classes(), ["fast 40 lively", "slow 60 slow"], "another version has the class of its name");
    bench.lock(&["--upgrade"]);
    assert_eq!(bench.classes(), ["fast 40 lively", "slow 60 slow"]);
    // A package that is new has today's class.
    bench.release("new", 1..=20, 10, 730);
    bench.workspace.file("environment.yml", environment(&["fast", "slow", "new"]));
    bench.lock(&[]);
    assert_eq!(bench.classes(), ["fast 40 lively", "new 20 lively", "slow 60 slow"]);

    let told = bench.lock(&["--refresh-stability"]);
    assert!(told.contains("slow 60 0, lively instead of slow"), "{told}");
    let [fast, _, slow] = bench.classes().try_into().expect("three");
    assert!(fast != "fast 40 lively" && slow == "slow 60 lively", "{fast}, {slow}");
    let renewed = bench.text();
    bench.lock(&["--refresh-stability"]);
    assert_eq!(bench.text(), renewed);
}

#[test]
fn a_build_renews_classes_when_it_is_told_to() {
    let mut bench = Bench::new();
    bench.lock(&[]);
    bench.release("slow", 5..=60, 10, 730);
    succeed(&mut bench.condaimg("build"));
    assert_eq!(bench.classes()[1], "slow 4 slow");
    succeed(bench.condaimg("build").arg("--refresh-stability"));
    assert_eq!(bench.classes()[1], "slow 4 lively", "the package itself stays");
    fail(bench.condaimg("build").args(["--refresh-stability", "--locked"]), 2);
    let message = fail(bench.condaimg("build").args(["--refresh-stability", "condaimg.lock"]), 2);
    assert!(message.contains("would change the lock"), "{message}");
}

/// What the plan counts stays in the lock, so that a larger version moves no other package.
#[test]
fn a_size_once_planned_stays() {
    let mut bench = Bench::new();
    // Nothing that can be compressed.
    let noise = |kilobytes: u64| -> Vec<u8> {
        (0..kilobytes * 128)
            .flat_map(|it| (it + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29).to_le_bytes())
            .collect()
    };
    let release = |bench: &mut Bench, version: &str, kilobytes: u64| {
        let package = Package::new("large", version).file("share/large", noise(kilobytes));
        bench.channel.add(&package, Format::Conda);
        bench.channel.index();
    };
    release(&mut bench, "1", 900);
    bench.workspace.file("environment.yml", environment(&["fast", "slow", "large"]));
    bench.lock(&[]);
    assert!(!bench.text().contains("planned-size"), "that of the archive: {}", bench.text());
    release(&mut bench, "2", 1200);
    bench.lock(&["--upgrade", "large"]);
    assert!(bench.text().contains("planned-size: 1048576"), "{}", bench.text());
    succeed(bench.condaimg("lock").arg("--check"));
    succeed(bench.condaimg("build").arg("--locked"));
    bench.lock(&["--refresh-stability"]);
    assert!(!bench.text().contains("planned-size"), "{}", bench.text());
}

#[test]
fn a_class_that_was_written_by_hand_is_refused() {
    let bench = Bench::new();
    bench.lock(&[]);
    let text = bench.text();
    bench.workspace.file("condaimg.lock", text.replace("stability: lively", "stability: settled"));
    let message = fail(bench.condaimg("build").arg("--locked"), 1);
    assert!(message.contains("the facts of packages"), "{message}");
    bench.lock(&[]);
    assert_eq!(bench.text(), text, "made anew from the index");
    bench.workspace.file("condaimg.lock", text.replace("stability: lively", "stability: often"));
    let message = fail(bench.condaimg("build").arg("--locked"), 1);
    assert!(message.contains("condaimg.lock") && message.contains("often"), "{message}");
}

/// As locks were before there were classes.
#[test]
fn a_lock_without_classes_is_current_and_the_next_lock_adds_them() {
    let mut bench = Bench::new();
    let times = |bench: &mut Bench, keep: bool| {
        for name in ["fast", "slow"] {
            bench.channel.change(name, |record| {
                let version: i64 = record["version"].as_str().and_then(|it| it.parse().ok()).expect("a number");
                let (last, days) = if name == "fast" { (40, 14) } else { (4, 200) };
                let time = NEWEST - (last - version) * days * DAY;
                record["timestamp"] = if keep { json!(time) } else { Value::Null };
            });
        }
        bench.channel.index();
    };
    times(&mut bench, false);
    bench.lock(&[]);
    assert_eq!(bench.classes(), ["fast 40 none", "slow 4 none"]);
    let old = bench.text();
    times(&mut bench, true);
    succeed(bench.condaimg("lock").arg("--check"));
    succeed(bench.condaimg("build").arg("--locked"));
    succeed(&mut bench.condaimg("build"));
    assert_eq!(bench.text(), old, "a build leaves the lock alone");
    bench.channel.add_all(&[("slow", "7", &[])]);
    bench.lock(&[]);
    // Nothing is solved anew. The package that was added is an old one: five in more than three years.
    assert_eq!(bench.classes(), ["fast 40 lively", "slow 4 settled"]);
}

#[test]
fn what_is_pinned_has_the_class_of_its_index() {
    let bench = Bench::new();
    bench.lock(&[]);
    let expected = bench.classes();
    for (form, file) in [("explicit", "explicit.txt"), ("pixi", "pixi.lock"), ("conda-lock", "conda-lock.yml")] {
        let text = succeed(bench.condaimg("lock").args(["--export", form]));
        let folder = bench.workspace.path(form);
        bench.workspace.file(&format!("{form}/{file}"), text);
        let plan = |cache: &str| -> Vec<String> {
            let mut program = bench.workspace.condaimg();
            program.args(["plan", "--json", "--base", "scratch", "--glibc", "2.36", "--cache-dir", cache]);
            let plan: Value = serde_json::from_str(&succeed(program.arg(folder.join(file)))).expect("JSON");
            of_packages(&plan)
        };
        assert_eq!(plan("one"), expected, "{form}");
    }
}

#[test]
fn without_its_index_a_pinned_package_has_no_class() {
    let bench = Bench::new();
    bench.lock(&[]);
    let text = succeed(bench.condaimg("lock").args(["--export", "explicit"]));
    bench.workspace.file("explicit.txt", text);
    for subdir in ["linux-64", "noarch"] {
        fs_err::remove_file(bench.channel.folder.join(subdir).join("repodata.json")).expect("removes");
    }
    let mut program = bench.workspace.condaimg();
    program.args(["lock", "--base", "scratch", "--glibc", "2.36", "explicit.txt"]);
    let told = String::from_utf8(run_output(&mut program).stderr).expect("UTF-8");
    assert!(told.contains("how often its packages change is not known"), "{told}");
    let text = fs_err::read_to_string(bench.workspace.path("explicit.condaimg.lock")).expect("a lock");
    assert!(!text.contains("stability:"), "{text}");
}

#[test]
fn a_cutoff_holds_for_classes_too() {
    let mut bench = Bench::new();
    bench.lock(&["--exclude-newer", "2024-05-08"]);
    let expected = bench.classes();
    bench.release("slow", 5..=60, 10, 730);
    fs_err::remove_file(bench.workspace.path("condaimg.lock")).expect("removes");
    bench.lock(&["--exclude-newer", "2024-05-08"]);
    assert_eq!(bench.classes(), expected);
    fs_err::remove_file(bench.workspace.path("condaimg.lock")).expect("removes");
    bench.lock(&[]);
    assert_ne!(bench.classes(), expected);
}

/// Nor does the class depend on what else is asked for, or on whether archives are read.
#[test]
fn a_class_is_the_same_alone() {
    let bench = Bench::new();
    bench.lock(&[]);
    let both = bench.classes();
    for (index, name) in ["fast", "slow"].into_iter().enumerate() {
        bench.workspace.file("environment.yml", environment(&[name]));
        for flags in [&[][..], &["--no-facts"]] {
            fs_err::remove_file(bench.workspace.path("condaimg.lock")).expect("removes");
            bench.lock(flags);
            assert!(bench.text().contains("stability: "), "{name}, {flags:?}");
            assert_eq!(bench.classes(), both[index..=index], "{name}, {flags:?}");
        }
    }
}
