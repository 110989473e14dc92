//! How the blobs of images come: at once, and going on where a killed process left off.

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use condaimg::util::Digest;
use serde_json::Value;

use super::{Bench, states};
use crate::common::images::{json, skopeo};
use crate::common::proxy::{Cut, Cutter, Deed, Gate, Sender};
use crate::common::succeed;

/// Bytes of a layer that came before the process was killed, at least.
const BEFORE: u64 = 6 << 20;

/// An image in the registry, with layers that have keys.
struct Image {
    bench: Bench,
    manifest: Value,
}

impl Image {
    fn new() -> Self {
        let bench = Bench::new();
        let tag = format!("{}/team/app:1", bench.registry.host());
        succeed(&mut bench.run("build", &["--push", "--tag", &tag]));
        fs_err::remove_dir_all(bench.workspace.path("cache")).expect("goes");
        let manifest = json(&skopeo(&["inspect", "--raw", "--tls-verify=false", &format!("docker://{tag}")]));
        Self { bench, manifest }
    }

    /// Digests and sizes of its layers.
    fn layers(&self) -> Vec<(String, u64)> {
        let layers = self.manifest["layers"].as_array().expect("layers").iter();
        layers.map(|it| (it["digest"].as_str().expect("one").to_owned(), it["size"].as_u64().expect("one"))).collect()
    }

    /// The first layer of some size.
    fn large(&self) -> (String, u64) {
        self.layers().into_iter().find(|layer| layer.1 > BEFORE + (2 << 20)).expect("a large layer")
    }

    /// Where the beginning of a blob is kept.
    fn part(&self, digest: &str) -> PathBuf {
        let name = format!("{}.part", digest.trim_start_matches("sha256:"));
        self.bench.workspace.path("cache/v1/downloads").join(name)
    }

    fn warm(&self, host: &str, more: &[&str]) -> Value {
        let reference = format!("{host}/team/app:1");
        let report = self.bench.warm(&[&[reference.as_str()], more].concat());
        let parts = fs_err::read_dir(self.bench.workspace.path("cache/v1/downloads")).expect("reads");
        assert_eq!(parts.count(), 0, "no beginning is left");
        for (digest, _) in self.layers() {
            let path = self.bench.workspace.path("cache/v1/blobs").join(digest.replace(':', "/"));
            assert_eq!(Digest::of(fs_err::read(path).expect("reads")).to_string(), digest);
        }
        report
    }

    /// Warms through a proxy that stands still in the middle of the first large layer, and kills it there; how many bytes
    /// of the layer it had.
    fn killed(&self) -> u64 {
        let (digest, size) = self.large();
        let cutter = Cutter::start(&self.bench.registry.host(), Sender::Server, BEFORE + (1 << 20), Cut::Stall, 9);
        let reference = format!("{}/team/app:1", cutter.host);
        let mut warm = self.bench.run("warm", &[&reference, "-j", "1"]);
        let mut warm = warm.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("starts");
        wait_for(|| fs_err::metadata(self.part(&digest)).is_ok_and(|part| part.len() >= BEFORE), &mut warm);
        warm.kill().expect("kills");
        assert_eq!(warm.wait().expect("ends").signal(), Some(9));
        let part = fs_err::metadata(self.part(&digest)).expect("is there").len();
        assert!((BEFORE..size).contains(&part), "{part} of {size}");
        part
    }
}

fn wait_for(happened: impl Fn() -> bool, child: &mut Child) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !happened() {
        assert!(child.try_wait().expect("asks").is_none() && Instant::now() < deadline, "it did not happen");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn what_came_before_a_kill_does_not_come_again() {
    let image = Image::new();
    let part = image.killed();
    let (digest, size) = image.large();
    let registry = &image.bench.registry;
    let whole = registry.blob_downloads().len();
    let gate = Gate::start(&registry.host(), |_, _| Deed::Pass);
    let report = image.warm(&gate.host, &[]);
    assert!(states(&report["items"][0]).contains(&"fetched"), "{report:#}");
    let asked = gate.requests().into_iter().filter(|head| head.is("GET", &digest));
    let ranges: Vec<_> = asked.map(|head| head.headers.get("range").cloned()).collect();
    assert_eq!(ranges, [Some(format!("bytes={part}-{}", size - 1))]);
    assert_eq!(registry.part_downloads(), [(digest.clone(), size - part)], "as the registry says");
    let later = registry.blob_downloads().split_off(whole);
    assert!(later.iter().all(|(other, _)| *other != digest), "{later:?}");
}

#[test]
fn two_that_go_on_with_one_download_do_not_write_into_each_other() {
    let image = Image::new();
    let part = image.killed();
    let (digest, size) = image.large();
    let reference = format!("{}/team/app:1", image.bench.registry.host());
    let start = || {
        let mut warm = image.bench.run("warm", &[&reference]);
        warm.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("starts")
    };
    for child in [start(), start(), start()] {
        let output = child.wait_with_output().expect("ends");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    assert_eq!(image.bench.registry.part_downloads(), [(digest, size - part)], "one of them fetched the rest");
    image.warm(&image.bench.registry.host(), &[]);
}

#[test]
fn a_beginning_that_is_wrong_is_no_beginning() {
    let image = Image::new();
    let (digest, size) = image.large();
    let path = image.part(&digest);
    for wrong in [vec![7; 1 << 20], vec![7; size as usize], vec![7; size as usize + 1]] {
        let _ = fs_err::remove_dir_all(image.bench.workspace.path("cache"));
        fs_err::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs_err::write(&path, wrong).expect("writes");
        let before = image.bench.registry.blob_downloads().len();
        image.warm(&image.bench.registry.host(), &[]);
        let later = image.bench.registry.blob_downloads().split_off(before);
        assert_eq!(later.iter().filter(|(other, _)| *other == digest).count(), 1, "once, whole: {later:?}");
    }
}

#[test]
fn as_many_layers_come_at_once_as_jobs_are_asked_for() {
    let image = Image::new();
    let layers: BTreeSet<String> = image.layers().into_iter().map(|layer| layer.0).collect();
    // More than come when nothing is asked for.
    let wanted = layers.len();
    assert!(wanted > 4, "{layers:?}");
    let (waiting, all) = (Arc::new((Mutex::new(0), Condvar::new())), layers.clone());
    let shared = Arc::clone(&waiting);
    // Nobody gets a layer before all have been asked for.
    let gate = Gate::start(&image.bench.registry.host(), move |_, head| {
        if head.method == "GET" && all.iter().any(|digest| head.path.contains(digest.as_str())) {
            let (count, changed) = &*shared;
            let mut count = count.lock().expect("locks");
            *count += 1;
            changed.notify_all();
            let waited = changed.wait_timeout_while(count, Duration::from_secs(30), |count| *count < wanted);
            drop(waited.expect("locks"));
        }
        Deed::Pass
    });
    let began = Instant::now();
    image.warm(&gate.host, &["--jobs", &wanted.to_string()]);
    assert!(began.elapsed() < Duration::from_secs(30), "they came one after the other");
    assert_eq!(*waiting.0.lock().expect("locks"), wanted, "each was asked for once");
}
