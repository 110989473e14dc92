//! Facts of archives: `lock --no-facts`, builds that make the facts, and what the store keeps of them.

use std::process::Command;

use serde_json::{Value, json};

use crate::common::packages::{Channel, Format, Package};
use crate::common::{Workspace, environment, fail, run_output, succeed};

/// A workspace with a channel whose packages have facts of every kind that needs no Python.
struct Bench {
    workspace: Workspace,
    channel: Channel,
}

impl Bench {
    fn new() -> Self {
        let workspace = Workspace::new();
        let script = "export ONE=1\n";
        let packages = [
            Package::new("one", "1.0").file("share/both", "1").file("etc/conda/activate.d/one.sh", script),
            Package::new("two", "1.0").file("share/both", "2").depends(&["one"]),
            Package::new("three", "1.0").executable("bin/.three-post-link.sh", "exit 1\n"),
        ];
        let channel = Channel::of(workspace.path("channel"), &packages);
        let bench = Self { workspace, channel };
        bench.environment(&["two", "three"]);
        bench
    }

    fn environment(&self, dependencies: &[&str]) {
        self.workspace.file("environment.yml", environment(dependencies));
    }

    /// `condaimg COMMAND`, on nothing, so that only packages matter.
    fn condaimg(&self, command: &str) -> Command {
        let mut program = self.workspace.condaimg();
        program.args([command, "--override-channels", "--base", "scratch", "--glibc", "2.36", "--channel"]);
        program.arg(&self.channel.folder);
        program
    }

    fn text(&self) -> String {
        fs_err::read_to_string(self.workspace.path("condaimg.lock")).expect("a lock")
    }

    /// What the channel has as archives goes away, and comes back.
    fn hide_archives(&self) {
        fs_err::rename(self.channel.folder.join("linux-64"), self.workspace.path("hidden")).expect("moves");
        self.channel.index();
    }

    fn show_archives(&self) {
        fs_err::remove_dir_all(self.channel.folder.join("linux-64")).expect("removes");
        fs_err::rename(self.workspace.path("hidden"), self.channel.folder.join("linux-64")).expect("moves");
    }

    /// The archives that the store has.
    fn forget_archives(&self) {
        fs_err::remove_dir_all(self.workspace.path("cache/v1/archives")).expect("removes");
    }

    /// Builds from the lock that is there; the digests of the image and of its lock.
    fn build(&self, flags: &[&str]) -> (Value, Value) {
        let metadata = self.workspace.path("metadata.json");
        succeed(self.condaimg("build").args(flags).arg("--metadata-file").arg(&metadata));
        let metadata: Value = serde_json::from_slice(&fs_err::read(metadata).expect("metadata")).expect("JSON");
        let platform = &metadata["platforms"][0];
        (platform["digest"].clone(), platform["lock"].clone())
    }
}

#[test]
fn a_lock_without_facts_makes_the_same_image() {
    let with = Bench::new();
    succeed(&mut with.condaimg("lock"));
    let expected = with.build(&["--locked"]);
    assert!(expected.0.is_string() && expected.1.is_string(), "{expected:?}");

    for flags in [&["--locked"][..], &["--frozen"], &[]] {
        let bench = Bench::new();
        bench.hide_archives();
        succeed(bench.condaimg("lock").arg("--no-facts"));
        let text = bench.text();
        assert!(text.contains("facts-at-first-build: true") && !text.contains("clobbered"), "{text}");
        succeed(bench.condaimg("lock").arg("--check"));
        let message = fail(bench.condaimg("build").args(flags), 1);
        assert!(message.contains("one-1.0-0.conda") && message.contains("is not in its channel"), "{message}");
        bench.show_archives();
        assert_eq!(bench.build(flags), expected, "{flags:?}");
        assert_eq!(bench.text(), text, "a build leaves the lock as it is");
    }
}

#[test]
fn facts_are_made_once() {
    let bench = Bench::new();
    succeed(bench.condaimg("lock").arg("--no-facts"));
    let image = bench.build(&["--locked"]);
    // All that is needed from here on is in the store, and no archive is.
    bench.hide_archives();
    bench.forget_archives();
    assert_eq!(bench.build(&["--locked"]), image);
    let without = bench.text();
    succeed(&mut bench.condaimg("lock"));
    let filled = bench.text();
    assert_ne!(filled, without);
    assert_eq!(bench.build(&["--locked"]), image);
    // With facts a lock stays one with facts, and needs no archive to be made anew.
    succeed(bench.condaimg("lock").arg("--no-facts"));
    assert_eq!(bench.text(), filled);
    fs_err::remove_file(bench.workspace.path("condaimg.lock")).expect("removes");
    succeed(&mut bench.condaimg("lock"));
    assert_eq!(bench.text(), filled);
}

#[test]
fn what_is_known_of_one_archive_serves_every_environment() {
    let bench = Bench::new();
    let warnings = |command: &mut Command| String::from_utf8(run_output(command).stderr).expect("UTF-8");
    let told = warnings(&mut bench.condaimg("lock"));
    assert!(told.contains("`two` and `one` both bring `share/both`"), "{told}");
    bench.hide_archives();
    bench.forget_archives();
    bench.environment(&["one", "three"]);
    let told = warnings(&mut bench.condaimg("lock"));
    assert!(told.contains("has a post-link script") && !told.contains("both bring"), "{told}");
    assert!(bench.text().contains("name: ONE") && !bench.text().contains("clobbered"), "{}", bench.text());
}

#[test]
fn what_is_ignored_is_told_every_time() {
    let mut bench = Bench::new();
    bench.channel.add(&Package::new("odd", "1.0").file("etc/conda/env_vars.d/odd.json", "[]"), Format::Conda);
    bench.channel.index();
    bench.environment(&["odd"]);
    for _ in 0..2 {
        let told = String::from_utf8(run_output(&mut bench.condaimg("lock")).stderr).expect("UTF-8");
        assert!(told.contains("`etc/conda/env_vars.d/odd.json` of `odd-1.0-0` is not a JSON object"), "{told}");
        fs_err::remove_file(bench.workspace.path("condaimg.lock")).expect("removes");
    }
}

#[test]
fn an_archive_without_a_hash_is_read_even_without_facts() {
    let mut bench = Bench::new();
    succeed(&mut bench.condaimg("lock"));
    let expected = bench.build(&["--locked"]);
    fs_err::remove_file(bench.workspace.path("condaimg.lock")).expect("removes");
    bench.channel.change("one", |record| {
        let record = record.as_object_mut().expect("a record");
        record.remove("sha256");
        record.remove("size");
    });
    bench.channel.change("two", |record| record["size"] = json!(null));
    bench.channel.index();
    succeed(bench.condaimg("lock").arg("--no-facts"));
    assert_eq!(bench.build(&["--locked"]), expected, "what the index does not say is found out");
}

#[test]
fn only_a_new_lock_can_be_without_facts() {
    let bench = Bench::new();
    for flags in [&["--check"][..], &["--export", "pixi"]] {
        let message = fail(bench.condaimg("lock").arg("--no-facts").args(flags), 2);
        assert!(message.contains("cannot be used with"), "{message}");
    }
}
