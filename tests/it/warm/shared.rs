//! One store for many: nodes that prepare and build at once, clean-ups while builds run, and what goes first.

use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::Value;

use super::{Bench, made};
use crate::cache::age;
use crate::common::file_server::FileServer;
use crate::common::images::json;
use crate::common::{environment, example_channel, run_output, succeed};
use crate::killed::run_to;

fn start(command: &mut Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts")
}

/// What a process printed that must succeed.
fn end(child: Child) -> String {
    let output = child.wait_with_output().expect("ends");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

impl Bench {
    /// The program on another machine: nothing is shared but the store.
    fn node(&self, name: &str, command: &str, more: &[&str]) -> Command {
        let mut program = self.run(command, more);
        let folder = |part: &str| {
            let path = self.workspace.path(&format!("{name}/{part}"));
            fs_err::create_dir_all(&path).expect("a folder");
            path
        };
        program.env("HOME", folder("home")).env("TMPDIR", folder("tmp"));
        program.env_remove("CONDAIMG_CACHE_DIR").arg("--cache-dir").arg(self.workspace.path("volume"));
        program
    }

    /// What `cache ls --all` lists: paths, sizes and times.
    fn listed(&self) -> Vec<(String, u64, String)> {
        let rows = json(&succeed(self.workspace.condaimg().args(["cache", "ls", "--all", "--json"])));
        let row = |row: &Value| {
            let text = |name: &str| row[name].as_str().expect("a text").to_owned();
            (text("path"), row["size"].as_u64().expect("a size"), text("latest-use"))
        };
        rows.as_array().expect("a list").iter().map(row).collect()
    }
}

#[test]
fn nodes_that_share_a_volume_fetch_and_make_what_they_need_together() {
    let bench = Bench::new();
    succeed(&mut bench.node("first", "lock", &[]));
    let output = |name: &str| format!("oci:{}", bench.workspace.path(name).display());
    let before = bench.downloads();
    let base = bench.base();
    let running = [
        start(&mut bench.node("first", "warm", &["--json", ".", &base, "--locked"])),
        start(&mut bench.node("second", "build", &["--locked", "--output", &output("second/image")])),
        start(&mut bench.node("second", "warm", &["--json", ".", "--locked"])),
        start(&mut bench.node("first", "build", &["--locked", "--output", &output("first/image")])),
    ];
    let told = running.map(end);
    let digest = told[1].trim();
    assert_eq!(told[3].trim(), digest);
    for report in [json(&told[0]), json(&told[2])] {
        assert_eq!(report["items"][0]["platforms"][0]["digest"], digest, "{report:#}");
    }
    // The lock brought the base's config, and locking its layers: at most each once.
    let mut blobs = bench.registry.blob_downloads();
    let all = blobs.len();
    blobs.sort();
    blobs.dedup();
    assert_eq!(blobs.len(), all, "a blob came twice: {:?}", bench.registry.blob_downloads());
    assert!(all >= before);
    for name in ["first", "second"] {
        let flags = ["--locked", "--offline", "--metadata-file", "made.json", "--output", "oci:again"];
        assert_eq!(succeed(&mut bench.node(name, "build", &flags)).trim(), digest);
        let metadata = json(&fs_err::read_to_string(bench.workspace.path("made.json")).expect("reads"));
        assert_eq!(made(&metadata), 0, "{metadata:#}");
        assert!(fs_err::read_dir(bench.workspace.path(&format!("{name}/home"))).expect("reads").next().is_none());
    }
}

/// A build whose output is `out-NUMBER`.
fn numbered(bench: &Bench, number: usize, more: &[&str]) -> Command {
    let mut command = bench.run("build", &["--locked", "--output", &format!("oci:out-{number}")]);
    command.args(more);
    command
}

/// `cache prune` of what was not used for a day; whether anything went.
fn prune(bench: &Bench) -> bool {
    let mut prune = bench.workspace.condaimg();
    let told = run_output(prune.args(["cache", "prune", "--older-than", "1d"])).stderr;
    !String::from_utf8_lossy(&told).starts_with("0 B removed")
}

#[test]
fn a_clean_up_takes_nothing_from_a_build_that_has_begun() {
    let bench = Bench::new();
    succeed(&mut bench.run("lock", &[]));
    succeed(&mut numbered(&bench, 0, &[]));
    // Something that no later build asks for.
    succeed(&mut numbered(&bench, 9, &["--compression", "zstd"]));
    let index = |number: usize| fs_err::read(bench.workspace.path(&format!("out-{number}/index.json"))).expect("reads");
    // Archives that are being packed; layers that are known, and are being written.
    for (number, step, flags) in [(1, "pack", &["--no-cache"][..]), (2, "write", &[])] {
        age(&bench.workspace.path("cache"), 48);
        let mut build = numbered(&bench, number, &[flags, &["--progress", "json"]].concat());
        let mut build = run_to(step, &mut build).expect("it begins");
        assert!(prune(&bench), "nothing was old enough");
        assert!(build.wait().expect("ends").success(), "a build failed in the step `{step}`");
        assert!(index(number) == index(0), "another image");
        // For the next one there are layers and archives again.
        succeed(&mut numbered(&bench, 3, &["--no-cache"]));
    }
}

#[test]
fn clean_ups_and_builds_at_once_give_the_right_digest() {
    let bench = Bench::new();
    bench.workspace.file("environment.yml", environment(&["feature-activate", "tzdata"]));
    succeed(&mut bench.run("lock", &[]));
    let digest = succeed(&mut numbered(&bench, 0, &[]));
    // One that has index data in the store.
    let server = FileServer::start(example_channel());
    let solve = || {
        bench.workspace.file("solved/environment.yml", environment(&["feature-activate", "tzdata"]));
        let mut lock = bench.workspace.condaimg();
        lock.args(["lock", "solved", "--upgrade", "--base", "scratch", "--glibc", "2.36", "--override-channels"]);
        lock.args(["--channel", &server.url]);
        lock
    };
    succeed(&mut solve());
    let solved = || fs_err::read(bench.workspace.path("solved/condaimg.lock")).expect("reads");
    let lock = solved();
    let removed = AtomicUsize::new(0);
    for round in 0..8 {
        age(&bench.workspace.path("cache"), 48);
        let building = AtomicBool::new(true);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while building.load(Ordering::Acquire) {
                        removed.fetch_add(usize::from(prune(&bench)), Ordering::AcqRel);
                    }
                });
            }
            let solving = start(&mut solve());
            // One knows all layers, and reads them; one makes them of archives.
            let builds = [start(&mut numbered(&bench, 1, &[])), start(&mut numbered(&bench, 2, &["--no-cache"]))];
            let told = builds.map(|child| child.wait_with_output().expect("ends"));
            let output = solving.wait_with_output().expect("ends");
            building.store(false, Ordering::Release);
            assert!(output.status.success(), "round {round}: {}", String::from_utf8_lossy(&output.stderr));
            assert!(solved() == lock, "round {round}: another lock");
            for output in told {
                let said = String::from_utf8_lossy(&output.stderr);
                assert!(output.status.success(), "round {round}: {said}");
                assert_eq!(String::from_utf8_lossy(&output.stdout), digest, "round {round}");
            }
        });
    }
    assert!(removed.load(Ordering::Acquire) > 0, "nothing was ever removed");
}

#[test]
fn what_was_used_least_recently_goes_until_the_rest_fits() {
    let bench = Bench::new();
    bench.workspace.file("old/environment.yml", environment(&["feature-activate"]));
    bench.warm(&["old"]);
    age(&bench.workspace.path("cache"), 48);
    bench.warm(&[]);
    let all = bench.listed();
    let total: u64 = all.iter().map(|item| item.1).sum();
    let oldest = all.iter().map(|item| &item.2).min().expect("items");
    let old: Vec<_> = all.iter().filter(|item| item.2 == *oldest).collect();
    let young = all.len() - old.len();
    assert!(old.len() > 2 && young > 5, "{all:#?}");

    // A byte less than there is: the first that is not empty goes.
    let count = old.iter().position(|item| item.1 > 0).expect("bytes") + 1;
    let report = bench.warm(&["--max-size", &(total - 1).to_string()]);
    let pruned = &report["pruned"];
    let items: Vec<_> = pruned["items"].as_array().expect("a list").iter().collect();
    assert_eq!(items.len(), count, "{pruned:#}");
    for (item, expected) in items.iter().zip(&old) {
        assert_eq!((item["path"].as_str(), item["size"].as_u64()), (Some(expected.0.as_str()), Some(expected.1)));
        assert!(expected.0.contains('/') && item["kind"].is_string(), "{pruned:#}");
    }
    let size: u64 = old[..count].iter().map(|item| item.1).sum();
    assert_eq!((pruned["removed"].as_u64(), pruned["left"].as_u64()), (Some(size), Some(total - size)));
    assert_eq!(report["items"][0]["added"], serde_json::json!({}), "{report:#}");

    // Whatever the limit, what is in use stays.
    let output = run_output(bench.run("warm", &["--json", "--max-size", "1K"]).arg("--locked"));
    assert!(String::from_utf8_lossy(&output.stderr).contains("within the last hour"));
    let report = json(&String::from_utf8_lossy(&output.stdout));
    assert_eq!(report["pruned"]["items"].as_array().map(Vec::len), Some(old.len() - count));
    assert_eq!(bench.listed().len(), young);
    assert_eq!(made(&bench.offline(&["--locked"])), 0);
}
