//! One package changes: its segment is made, its layer is put together anew, and nothing else is read, made or sent.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::common::file_server::FileServer;
use crate::common::packages::{Channel, Format, Package};
use crate::common::{Workspace, environment, example_channel, run_output, succeed};

const COMPRESSIONS: [&str; 2] = ["gzip", "zstd"];

/// A channel of small packages beside the example channel, served so that it can be seen what is asked for.
struct Bench {
    workspace: Workspace,
    channel: Channel,
    server: FileServer,
}

impl Bench {
    fn new() -> Self {
        let workspace = Workspace::new();
        let mut channel = Channel::new(workspace.path("channel"));
        for name in ["first", "second", "third"] {
            channel.add(&noarch(name, "1.0"), Format::Conda);
        }
        channel.index();
        let server = FileServer::start(workspace.path("channel"));
        Self { workspace, channel, server }
    }

    fn release(&mut self, name: &str, version: &str) {
        self.channel.add(&noarch(name, version), Format::Conda);
        self.channel.index();
    }

    fn condaimg(&self, command: &str, cache: &str) -> Command {
        self.workspace.file("environment.yml", environment(&["python=3.11", "first", "second", "third"]));
        let mut program = self.workspace.condaimg();
        program
            .args([command, "--override-channels", "--channel", &self.server.url, "--channel"])
            .arg(example_channel());
        program.args(["--base", "scratch", "--glibc", "2.36", "--cache-dir", cache]);
        program
    }

    fn build(&self, cache: &str, output: &str, flags: &[&str]) -> Command {
        let mut command = self.condaimg("build", cache);
        // Several packages share a layer.
        command.args(["--layers", "tiers", "--output", &format!("oci:{output}")]).args(flags);
        command
    }

    /// A lock with the newest release of one package.
    fn upgrade(&self, name: &str) {
        succeed(self.condaimg("lock", "cache").args(["--upgrade", name]));
    }

    /// Archives that were asked for so far.
    fn asked(&self) -> Vec<String> {
        let seen = self.server.seen("");
        let archives = seen.into_iter().filter(|seen| seen.path.ends_with(".conda"));
        archives.map(|seen| seen.path.rsplit('/').next().expect("a name").to_owned()).collect()
    }
}

fn noarch(name: &str, version: &str) -> Package {
    let module = format!("def version():\n    return {version:?}\n");
    Package::new(name, version).noarch_python().file(&format!("site-packages/{name}.py"), module).depends(&["python"])
}

/// Name of each layer → its digest.
fn layers(layout: &Path) -> BTreeMap<String, String> {
    let read = |path: &str| -> Value {
        serde_json::from_slice(&fs_err::read(layout.join(path)).expect("is there")).expect("JSON")
    };
    let digest = read("index.json")["manifests"][0]["digest"].as_str().expect("a digest").replace(':', "/");
    let manifest = read(&format!("blobs/{digest}"));
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let layers = manifest["layers"].as_array().expect("layers").iter();
    layers.map(|layer| (text(&layer["annotations"]["dev.condaimg.layer.name"]), text(&layer["digest"]))).collect()
}

#[test]
fn a_changed_package_takes_all_others_from_the_layer_before() {
    for compression in COMPRESSIONS {
        let mut bench = Bench::new();
        let flags = ["--compression", compression];
        succeed(&mut bench.build("cache", "before", &flags));
        bench.release("second", "1.1");
        // Of what does not change nothing is read, so it need not be there.
        for entry in fs_err::read_dir(bench.workspace.path("cache/v1/archives")).expect("archives") {
            fs_err::remove_file(entry.expect("an entry").path()).expect("removes");
        }
        let before = bench.asked().len();
        bench.upgrade("second");
        succeed(&mut bench.build("cache", "after", &[&flags[..], &["--locked"]].concat()));
        let asked = bench.asked().split_off(before);
        assert_eq!(asked, ["second-1.1-0.conda"], "{compression}");
        let (old, new) = (layers(&bench.workspace.path("before")), layers(&bench.workspace.path("after")));
        let changed: Vec<&str> =
            new.iter().filter(|(name, digest)| old.get(*name) != Some(digest)).map(|(name, _)| &**name).collect();
        assert!(changed.iter().all(|name| name.contains(" + 2 more") || *name == "environment"), "{changed:?}");
        assert!(changed.iter().any(|name| name.contains(" + 2 more")), "{changed:?}");
        // What was put together is what packing makes.
        succeed(&mut bench.build("other", "cold", &[&flags[..], &["--locked"]].concat()));
        assert_eq!(new, layers(&bench.workspace.path("cold")), "{compression}");
    }
}

#[test]
fn a_damaged_layer_is_noticed_and_not_used_again() {
    let mut bench = Bench::new();
    succeed(&mut bench.build("cache", "before", &[]));
    let old = layers(&bench.workspace.path("before"));
    bench.release("second", "1.1");
    bench.upgrade("second");
    let name = old.keys().find(|name| name.ends_with(" + 2 more")).expect("a layer");
    let blob = bench.workspace.path("cache/v1/blobs").join(old[name].replace(':', "/"));
    let mut bytes = fs_err::read(&blob).expect("reads");
    // Somewhere in each chunk, so that it is in those that are used.
    bytes.iter_mut().skip(40).step_by(97).for_each(|byte| *byte ^= 0x55);
    fs_err::remove_file(&blob).expect("removes");
    fs_err::write(&blob, &bytes).expect("writes");
    let told = run_output(&mut bench.build("cache", "after", &["--locked"])).stderr;
    let told = String::from_utf8(told).expect("text");
    assert_eq!(told.matches("in the cache is damaged").count(), 1, "{told}");
    succeed(&mut bench.build("other", "cold", &["--locked"]));
    assert_eq!(layers(&bench.workspace.path("after")), layers(&bench.workspace.path("cold")));
}
