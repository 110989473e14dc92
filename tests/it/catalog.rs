//! Layers that are found in registries, by what their bytes depend on: a builder that has nothing asks for no package and
//! sends no layer; what is wrong with an entry is noticed, and the layer made.

mod beside;
mod foreign;
mod gone;
mod several;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use condaimg::util::Digest;
use serde_json::Value;

use crate::common::file_server::FileServer;
use crate::common::images::{json, skopeo};
use crate::common::packages::{Channel, Format, Package};
use crate::common::proxy::{Deed, Gate, answer};
use crate::common::registry::{LocalRegistry, Mode, PASSWORD, USER};
use crate::common::{Workspace, run_output, succeed};

const PACKAGES: [&str; 6] = ["one", "two", "three", "four", "five", "six"];
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// A channel that is served, and an environment with its lock. Each package has a layer of its own.
struct Bench {
    workspace: Workspace,
    server: FileServer,
    base: String,
}

impl Bench {
    fn new() -> Self {
        Self::on_base("scratch")
    }

    fn on_base(base: &str) -> Self {
        let workspace = Workspace::new();
        let mut channel = Channel::new(workspace.path("channel"));
        for (number, name) in PACKAGES.iter().enumerate() {
            let content = format!("{name}\n").repeat(1000 + number);
            channel.add(&Package::new(name, "1.0").file(&format!("share/{name}"), content), Format::Conda);
        }
        channel.index();
        let server = FileServer::start(workspace.path("channel"));
        workspace.file("environment.yml", format!("dependencies: [{}]\n", PACKAGES.join(", ")));
        workspace.file("src/main.py", "print('hello')\n");
        let bench = Self { workspace, server, base: base.to_owned() };
        succeed(bench.on("first", "lock").args(["--base", base, "--glibc", "2.36"]));
        bench
    }

    /// The program on a machine that has the project's folder and nothing else, unless it was used before.
    fn on(&self, machine: &str, command: &str) -> Command {
        let home = self.workspace.path(&format!("{machine}/home"));
        fs_err::create_dir_all(&home).expect("a home");
        let mut program = self.workspace.condaimg();
        program.env("HOME", home).env("CONDAIMG_CACHE_DIR", self.workspace.path(&format!("{machine}/cache")));
        program.args([command, "--override-channels", "--channel", &self.server.url]);
        program
    }

    fn build(&self, machine: &str, flags: &[&str]) -> Command {
        let mut build = self.on(machine, "build");
        build.args(["--base", &self.base, "--glibc", "2.36", "--layers", "per-package", "--copy", "src:/app"]);
        build.args(["--metadata-file", &format!("{machine}.json")]).args(flags);
        build
    }

    fn metadata(&self, machine: &str) -> Value {
        json(&fs_err::read_to_string(self.workspace.path(&format!("{machine}.json"))).expect("reads"))
    }

    /// The digest of the image that a machine built last, and how many layers it made itself.
    fn outcome(&self, machine: &str) -> (String, usize) {
        let metadata = self.metadata(machine);
        let layers = metadata["layers"].as_array().expect("layers").iter();
        let digest = metadata["digest"].as_str().expect("a digest").to_owned();
        (digest, layers.filter(|layer| layer["new"] == true).count())
    }

    /// A machine that has nothing builds without a request to the channel, and makes no layer.
    fn expect_bare(&self, machine: &str, digest: &str, flags: &[&str]) {
        let asked = self.server.seen("").len();
        let told = String::from_utf8(run_output(&mut self.build(machine, flags)).stderr).expect("text");
        assert_eq!(self.server.seen("").len(), asked, "{machine}: {:?}", self.server.seen("").split_off(asked));
        assert_eq!(self.outcome(machine), (digest.to_owned(), 0), "{told}");
    }

    /// A machine that has nothing makes so many layers itself; the image is the same.
    fn expect_made(&self, machine: &str, digest: &str, made: usize, flags: &[&str]) -> String {
        let told = String::from_utf8(run_output(&mut self.build(machine, flags)).stderr).expect("text");
        assert_eq!(self.outcome(machine), (digest.to_owned(), made), "{told}");
        told
    }
}

/// An entry with the checksum of what it says.
fn sealed(mut entry: Value) -> Value {
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let layer = &entry["layers"][0];
    let digest = text(&layer["digest"]);
    let mut parts = vec!["catalog".to_owned(), text(&entry["artifactType"])];
    parts.extend([digest.trim_start_matches("sha256:").to_owned(), layer["size"].to_string()]);
    for (name, value) in entry["annotations"].as_object().expect("annotations") {
        if !["dev.condaimg.sum", "dev.condaimg.mac"].contains(&name.as_str()) {
            parts.extend([name.clone(), text(value)]);
        }
    }
    let bytes: Vec<u8> =
        parts.iter().flat_map(|part| [&(part.len() as u64).to_be_bytes()[..], part.as_bytes()].concat()).collect();
    entry["annotations"]["dev.condaimg.sum"] = Digest::of(bytes).hex().into();
    entry
}

/// What a registry keeps of something with a digest.
fn stored(registry: &LocalRegistry, digest: &str) -> PathBuf {
    let hex = digest.trim_start_matches("sha256:");
    registry.data().join(format!("docker/registry/v2/blobs/sha256/{}/{hex}/data", &hex[..2]))
}

/// The tags of a repository that stand for layers.
fn tags(registry: &LocalRegistry, repository: &str) -> Vec<String> {
    let folder = registry.data().join(format!("docker/registry/v2/repositories/{repository}/_manifests/tags"));
    let entries = fs_err::read_dir(folder).into_iter().flatten();
    let mut tags: Vec<String> =
        entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("text")).collect();
    tags.sort();
    tags
}

fn manifest(reference: &str) -> Value {
    json(&skopeo(&["inspect", "--raw", "--tls-verify=false", &format!("docker://{reference}")]))
}

/// Puts a manifest under a tag.
fn put(registry: &LocalRegistry, repository: &str, tag: &str, document: &Value) {
    let (host, body) = (registry.host(), document.to_string());
    let mut stream = TcpStream::connect(&host).expect("connects");
    write!(
        stream,
        "PUT /v2/{repository}/manifests/{tag} HTTP/1.1\r\nHost: {host}\r\nContent-Type: {MANIFEST}\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
    .expect("writes");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("reads");
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
}

fn strs(flags: &[String]) -> Vec<&str> {
    flags.iter().map(String::as_str).collect()
}

/// Layers: one a package, the project's files, and that of the environment itself.
const LAYERS: usize = PACKAGES.len() + 2;

#[test]
fn a_bare_runner_takes_all_from_the_image_at_the_tag() {
    let (bench, registry) = (Bench::new(), LocalRegistry::start(Mode::Plain));
    let tag = format!("{}/team/env:1", registry.host());
    succeed(&mut bench.build("first", &["--push", "--tag", &tag]));
    let (digest, made) = bench.outcome("first");
    assert_eq!(made, LAYERS);
    let sent = registry.uploads().len();
    bench.expect_bare("bare", &digest, &["--locked", "--push", "--tag", &tag]);
    assert_eq!(bench.metadata("bare")["uploaded-bytes"], 0);
    assert_eq!(registry.uploads().len(), sent);
    assert!(registry.blob_downloads().iter().all(|(_, size)| *size < 10_000), "a layer came down");
    // Nothing but what is pushed to is looked at.
    bench.expect_made("elsewhere", &digest, LAYERS, &["--locked", "--output", "oci:elsewhere/image"]);
}

#[test]
fn the_cache_registry_serves_other_repositories_registries_and_files() {
    let (bench, registry) = (Bench::new(), LocalRegistry::start(Mode::Plain));
    let cache = format!("{}/team/cache", registry.host());
    let tag = |name: &str| format!("{}/{name}:1", registry.host());
    let shared = ["--locked", "--cache-registry", &cache];
    let with = |flags: &[&str]| -> Vec<String> { shared.iter().chain(flags).map(|&flag| flag.to_owned()).collect() };

    succeed(&mut bench.build("first", &strs(&with(&["--push", "--tag", &tag("team/env")]))));
    let (digest, _) = bench.outcome("first");
    assert_eq!(tags(&registry, "team/cache").len(), LAYERS);
    let sent = registry.uploads();
    // The cache took all layers from the image's repository: only the config of entries, which is `{}`, was sent.
    let empty = sent.iter().filter(|digest| digest.contains("44136fa355b3678a")).count();
    assert!(sent.len() <= LAYERS + 2 + empty, "{sent:?}");

    // Another repository of the registry mounts; the image's config is all that is sent.
    bench.expect_bare("mounts", &digest, &strs(&with(&["--no-referrers", "--push", "--tag", &tag("other/env")])));
    assert_eq!(registry.uploads().len(), sent.len() + 1, "{:?}", registry.uploads());
    assert_eq!(manifest(&tag("other/env")), manifest(&tag("team/env")));

    // Another registry is brought them.
    let far = LocalRegistry::start(Mode::Plain);
    bench.expect_bare("far", &digest, &strs(&with(&["--push", "--tag", &format!("{}/env:1", far.host())])));
    assert_eq!(manifest(&format!("{}/env:1", far.host())), manifest(&tag("team/env")));

    // An output needs their bytes; the store has them afterwards.
    bench.expect_bare("file", &digest, &strs(&with(&["--output", "oci:file/image"])));
    bench.expect_bare("file", &digest, &["--locked", "--offline", "--output", "oci:file/again"]);

    // All of it was noted already: nobody writes it again.
    let puts = registry.requests("PUT /v2/team/cache/manifests/");
    assert_eq!(puts, LAYERS);
}

#[test]
fn what_is_wrong_in_the_cache_is_made_again_and_mended() {
    let (bench, registry) = (Bench::new(), LocalRegistry::start(Mode::Plain));
    let cache = format!("{}/cache", registry.host());
    let flags = ["--locked", "--cache-registry", &cache, "--output", "oci:image"];
    succeed(&mut bench.build("first", &flags));
    let (digest, _) = bench.outcome("first");
    let tags = tags(&registry, "cache");
    let entries: Vec<Value> = tags.iter().map(|tag| manifest(&format!("{cache}:{tag}"))).collect();
    let layer = |index: usize| entries[index]["layers"][0]["digest"].as_str().expect("a digest");

    // The bytes of one are gone.
    fs_err::remove_file(stored(&registry, layer(0))).expect("removes");
    // One names another size.
    let mut other = entries[1].clone();
    other["layers"][0]["size"] = 7.into();
    put(&registry, "cache", &tags[1], &other);
    // One is that of another key, and one has the layer of another key, and says that it is its own.
    put(&registry, "cache", &tags[2], &entries[3]);
    let mut other = entries[4].clone();
    other["annotations"]["dev.condaimg.layer.key"] = entries[3]["annotations"]["dev.condaimg.layer.key"].clone();
    put(&registry, "cache", &tags[3], &sealed(other));
    // One is something else altogether.
    let mut other = entries[5].clone();
    other.as_object_mut().expect("an object").remove("artifactType");
    put(&registry, "cache", &tags[5], &other);

    let told = bench.expect_made("bare", &digest, 6, &flags);
    assert!(!told.contains("cannot be used"), "{told}");
    bench.expect_bare("next", &digest, &flags);
    let mended: Vec<Value> = tags.iter().map(|tag| manifest(&format!("{cache}:{tag}"))).collect();
    assert_eq!(mended, entries);
}

#[test]
fn bytes_that_are_not_what_an_entry_says_are_noticed_when_they_are_fetched() {
    let (bench, registry) = (Bench::new(), LocalRegistry::start(Mode::Plain));
    let cache = format!("{}/cache", registry.host());
    let flags = ["--locked", "--cache-registry", &cache, "--registry-retries", "1", "--output", "oci:image"];
    succeed(&mut bench.build("first", &flags));
    let (digest, _) = bench.outcome("first");
    let tags = tags(&registry, "cache");
    let entries: Vec<Value> = tags.iter().map(|tag| manifest(&format!("{cache}:{tag}"))).collect();
    // Damaged on the disk, with its size.
    let blob = stored(&registry, entries[0]["layers"][0]["digest"].as_str().expect("a digest"));
    let mut bytes = fs_err::read(&blob).expect("reads");
    *bytes.last_mut().expect("bytes") ^= 1;
    fs_err::write(&blob, &bytes).expect("writes");
    // A diff ID that is another's, by somebody who knows how checksums are made.
    let mut other = entries[1].clone();
    other["annotations"]["dev.condaimg.layer.diff-id"] =
        entries[2]["annotations"]["dev.condaimg.layer.diff-id"].clone();
    put(&registry, "cache", &tags[1], &sealed(other));
    // The same by accident is passed over without a fetch.
    let mut damaged = entries[2].clone();
    damaged["annotations"]["dev.condaimg.layer.diff-id"] =
        entries[3]["annotations"]["dev.condaimg.layer.diff-id"].clone();
    put(&registry, "cache", &tags[2], &damaged);
    let told = bench.expect_made("bare", &digest, 3, &flags);
    assert_eq!(told.matches("a layer of the cache cannot be used").count(), 2, "{told}");
    assert!(told.contains("unpacks to"), "{told}");
}

#[test]
fn without_cache_everything_is_made_and_is_what_the_entries_say() {
    let (bench, registry) = (Bench::new(), LocalRegistry::start(Mode::Plain));
    let cache = format!("{}/cache", registry.host());
    let flags = ["--locked", "--cache-registry", &cache, "--output", "oci:image"];
    succeed(&mut bench.build("first", &flags));
    let (digest, _) = bench.outcome("first");
    let all = tags(&registry, "cache");
    // Three, which ones depends on the time of day.
    let now =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a time").subsec_nanos() as usize;
    let chosen: Vec<&String> = (0..3).map(|step| &all[(now + step * (1 + now % 2)) % all.len()]).collect();
    let noted: Vec<Value> = chosen.iter().map(|tag| manifest(&format!("{cache}:{tag}"))).collect();
    let heads = registry.requests("GET /v2/cache/manifests/");
    bench.expect_made("again", &digest, LAYERS, &[&["--no-cache"], &flags[..]].concat());
    assert_eq!(registry.requests("GET /v2/cache/manifests/"), heads, "the cache was asked");
    let layers = bench.metadata("again")["layers"].as_array().expect("layers").clone();
    for entry in &noted {
        let digest = &entry["layers"][0]["digest"];
        assert!(layers.iter().any(|layer| layer["digest"] == *digest && layer["new"] == true), "{entry}");
    }
}

#[test]
fn a_cache_that_refuses_gets_a_notice_and_no_more() {
    let bench = Bench::new();
    let mut registry = LocalRegistry::start(Mode::Plain);
    registry.set_read_only(true);
    let cache = format!("{}/cache", registry.host());
    let flags = ["--cache-registry", &cache, "--registry-retries", "0", "--output", "oci:image"];
    let told = String::from_utf8(run_output(&mut bench.build("first", &flags)).stderr).expect("text");
    let (digest, _) = bench.outcome("first");
    assert_eq!(told.matches("are not noted in the cache registry").count(), 1, "{told}");

    let registry = LocalRegistry::start(Mode::Auth);
    let cache = format!("{}/cache", registry.host());
    let flags = ["--locked", "--cache-registry", &cache, "--output", "oci:image"];
    let told = bench.expect_made("anybody", &digest, LAYERS, &flags);
    assert_eq!(told.matches(&format!("the cache registry `{cache}` cannot be read")).count(), 1, "{told}");
    assert_eq!(told.matches("are not noted in the cache registry").count(), 1, "{told}");
    let build = |machine: &str| {
        let mut build = bench.build(machine, &flags);
        build.env("CONDAIMG_REGISTRY_USERNAME", USER).env("CONDAIMG_REGISTRY_PASSWORD", PASSWORD);
        String::from_utf8(run_output(&mut build).stderr).expect("text")
    };
    assert!(!build("somebody").contains("cache registry"));
    build("another");
    assert_eq!(bench.outcome("another"), (digest.clone(), 0));

    // Nobody is there.
    drop(registry);
    let flags = [&flags[..], &["--registry-retries", "0"]].concat();
    bench.expect_made("alone", &digest, LAYERS, &flags);
}

#[test]
fn the_cache_registry_stands_in_the_project_file() {
    let (bench, registry) = (Bench::new(), LocalRegistry::start(Mode::Plain));
    let cache = format!("{}/cache", registry.host());
    let text = format!("environment: environment.yml\ncache-registry: {cache}\n");
    bench.workspace.file("condaimg.yaml", text);
    let build = |machine: &str| {
        succeed(&mut bench.build(machine, &["--output", "oci:image"]));
        bench.outcome(machine)
    };
    let (digest, made) = build("first");
    assert_eq!((build("second"), made), ((digest, 0), LAYERS));
    bench.workspace.file("condaimg.yaml", format!("environment: environment.yml\ncache-registry: \"{cache}@x\"\n"));
    let error = crate::common::fail(&mut bench.build("first", &["--output", "oci:image"]), 1);
    assert!(error.contains("condaimg.yaml:2:17"), "{error}");
}

#[test]
fn where_nothing_is_mounted_layers_are_carried_over() {
    let (bench, registry) = (Bench::new(), LocalRegistry::start(Mode::Plain));
    let gate = Gate::start(&registry.host(), |_, head| match head.is("POST", "mount=") {
        true => answer(head, 405, Vec::new()),
        false => Deed::Pass,
    });
    let cache = format!("{}/team/cache", gate.host);
    let tag = |name: &str| format!("{}/{name}:1", gate.host);
    let push = |tag: &str| {
        ["--locked", "--no-referrers", "--cache-registry", &cache, "--push", "--tag", tag].map(str::to_owned)
    };
    succeed(&mut bench.build("first", &strs(&push(&tag("team/env")))));
    let (digest, _) = bench.outcome("first");
    let sent = registry.uploads().len();
    bench.expect_bare("bare", &digest, &strs(&push(&tag("other/env"))));
    assert!(gate.count("POST", "mount=") > 0);
    assert_eq!(registry.uploads().len(), sent + LAYERS + 1);
    // Not through the gate, which knows each header once.
    let pushed = ["other", "team"].map(|team| manifest(&format!("{}/{team}/env:1", registry.host())));
    assert_eq!(pushed[0], pushed[1]);
}

#[test]
fn a_cache_that_answers_with_anything_is_done_without() {
    let (bench, registry) = (Bench::new(), LocalRegistry::start(Mode::Plain));
    let broken = Arc::new(AtomicBool::new(false));
    let is_broken = Arc::clone(&broken);
    let gate = Gate::start(&registry.host(), move |_, head| {
        match is_broken.load(Ordering::Relaxed) && head.is("GET", "/manifests/condaimg-") {
            true => Deed::Answer {
                after: 0,
                status: 200,
                headers: vec![("content-type", MANIFEST.to_owned())],
                body: br#"{"schemaVersion": 2, "layers": "#.to_vec(),
            },
            false => Deed::Pass,
        }
    });
    let cache = format!("{}/cache", gate.host);
    let flags = ["--locked", "--cache-registry", &cache, "--registry-retries", "0", "--output", "oci:image"];
    succeed(&mut bench.build("first", &flags));
    let (digest, _) = bench.outcome("first");
    broken.store(true, Ordering::Relaxed);
    let told = bench.expect_made("bare", &digest, LAYERS, &flags);
    assert!(told.contains(&format!("the cache registry `{cache}` cannot be read")), "{told}");
    broken.store(false, Ordering::Relaxed);
    bench.expect_bare("next", &digest, &flags);
}
