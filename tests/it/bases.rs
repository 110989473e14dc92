//! Bases in a real registry, in all forms in which they are found there; and how little of them is fetched.

use std::path::PathBuf;
use std::process::Command;

use condaimg::model::{Blob, BlobSource};
use condaimg::registry::{Reference, Registry, RegistryOptions};
use condaimg::util::Digest;
use condaimg::util::report::Silent;
use serde_json::{Value, json};

use crate::common::images::{digests, json, shared_cache, skopeo, small};
use crate::common::registry::{LocalRegistry, Mode};
use crate::common::{Workspace, environment, example_base, example_channel, fail, succeed};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// The example base, to be changed and pushed.
struct Original {
    manifest: Value,
    config: Value,
}

impl Original {
    fn read() -> Self {
        let image = format!("oci:{}:debian", example_base().display());
        let manifest = json(&skopeo(&["inspect", "--raw", &image]));
        let config = fs_err::read(blob_file(manifest["config"]["digest"].as_str().expect("a digest"))).expect("reads");
        Self { manifest, config: serde_json::from_slice(&config).expect("JSON") }
    }

    fn layers(&self) -> Vec<String> {
        digests(&self.manifest)
    }

    /// Pushes it with this config under a media type of manifests; returns the manifest's bytes.
    fn push(&self, target: &str, manifest: &Value) -> Vec<u8> {
        let config = serde_json::to_vec(&self.config).expect("JSON");
        let mut manifest = manifest.clone();
        manifest["config"]["digest"] = json!(Digest::of(&config).to_string());
        manifest["config"]["size"] = json!(config.len());
        let bytes = serde_json::to_vec(&manifest).expect("JSON");
        let media_type = manifest["mediaType"].as_str().unwrap_or(MANIFEST).to_owned();
        let mut blobs = vec![Blob::from_bytes("", config)];
        for layer in self.manifest["layers"].as_array().expect("layers") {
            let digest = layer["digest"].as_str().expect("a digest");
            blobs.push(Blob {
                media_type: String::new(),
                digest: digest.parse().expect("a digest"),
                size: layer["size"].as_u64().expect("a size"),
                source: BlobSource::File(blob_file(digest)),
            });
        }
        block_on(async {
            let (registry, target) = client(target);
            for blob in &blobs {
                registry.push_blob(&target, blob, &[], &Silent).await.expect("pushes");
            }
            registry.push_manifest(&target, &media_type, &bytes).await.expect("pushes");
        });
        bytes
    }
}

fn blob_file(digest: &str) -> PathBuf {
    example_base().join("blobs").join(digest.replace(':', "/"))
}

fn client(target: &str) -> (Registry, Reference) {
    let options = RegistryOptions { auth_files: Some(Vec::new()), ..RegistryOptions::default() };
    (Registry::new(options).expect("a client"), Registry::parse(target).expect("a reference"))
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
}

/// `condaimg build` on a base in a registry, pushed to `team/NAME` of another or the same.
fn build_to(workspace: &Workspace, from: &LocalRegistry, base: &str, to: &LocalRegistry, name: &str) -> Command {
    workspace.file("environment.yml", environment(&["python=3.11", "click"]));
    let mut command = workspace.condaimg();
    command.args(["build", "--override-channels", "--channel"]).arg(example_channel());
    command.args(["--base", &format!("{}/{base}", from.host()), "--push", "--tag"]);
    command.arg(format!("{}/team/{name}:1", to.host()));
    command
}

fn build(workspace: &Workspace, registry: &LocalRegistry, base: &str, name: &str) -> Command {
    build_to(workspace, registry, base, registry, name)
}

/// What skopeo says of the pushed image: manifest and config. It is pulled, so that every digest is verified.
fn pulled(workspace: &Workspace, registry: &LocalRegistry, name: &str) -> (Value, Value) {
    let image = format!("docker://{}/team/{name}:1", registry.host());
    let folder = workspace.path(&format!("pulled-{name}"));
    skopeo(&["copy", "--quiet", "--src-tls-verify=false", &image, &format!("dir:{}", folder.display())]);
    let inspect = |flag: &str| json(&skopeo(&["inspect", flag, "--tls-verify=false", &image]));
    (inspect("--raw"), inspect("--config"))
}

/// The digest of the pushed image.
fn digest(registry: &LocalRegistry, name: &str) -> String {
    let image = format!("docker://{}/team/{name}:1", registry.host());
    skopeo(&["inspect", "--format", "{{.Digest}}", "--tls-verify=false", &image])
}

#[test]
fn bases_come_in_many_forms_and_none_is_fetched_when_its_facts_are_known() {
    let (registry, workspace, original) = (LocalRegistry::start(Mode::Plain), Workspace::new(), Original::read());
    let host = registry.host();
    small();

    let plain = original.push(&format!("{host}/base/plain:1"), &original.manifest);
    let mut docker = original.manifest.clone();
    docker["mediaType"] = json!(DOCKER_MANIFEST);
    docker["config"]["mediaType"] = json!("application/vnd.docker.container.image.v1+json");
    for layer in docker["layers"].as_array_mut().expect("layers") {
        layer["mediaType"] = json!("application/vnd.docker.image.rootfs.diff.tar.gzip");
    }
    let docker = original.push(&format!("{host}/base/docker:1"), &docker);
    let mut untyped = original.manifest.clone();
    untyped.as_object_mut().expect("an object").remove("mediaType");
    original.push(&format!("{host}/base/untyped:1"), &untyped);

    original.push(&format!("{host}/base/list:amd64"), &serde_json::from_slice(&docker).expect("JSON"));
    let entry = |bytes: &[u8], os: &str, architecture: &str| {
        json!({"mediaType": DOCKER_MANIFEST, "digest": Digest::of(bytes).to_string(), "size": bytes.len(),
               "platform": {"os": os, "architecture": architecture}})
    };
    let attestation = original.push(&format!("{host}/base/list:other"), &original.manifest);
    let list = json!({
        "schemaVersion": 2, "mediaType": DOCKER_LIST,
        "manifests": [entry(&attestation, "unknown", "unknown"), entry(&docker, "linux", "amd64")],
    });
    block_on(async {
        let (registry, target) = client(&format!("{host}/base/list:1"));
        registry.push_manifest(&target, DOCKER_LIST, &serde_json::to_vec(&list).expect("JSON")).await.expect("pushes");
    });

    let layers = original.layers();
    for (base, name) in [
        ("base/plain:1".to_owned(), "plain"),
        (format!("base/plain@{}", Digest::of(&plain)), "pinned"),
        ("base/docker:1".to_owned(), "docker"),
        ("base/untyped:1".to_owned(), "untyped"),
        ("base/list:1".to_owned(), "list"),
    ] {
        let mut command = build(&workspace, &registry, &base, name);
        command.args(["--lock-file", &format!("{name}.lock")]);
        succeed(command.env("CONDAIMG_CACHE_DIR", shared_cache()));
        let (manifest, config) = pulled(&workspace, &registry, name);
        assert_eq!(manifest["mediaType"], MANIFEST, "{name}");
        assert_eq!(digests(&manifest)[..layers.len()], layers, "{name}");
        assert!(manifest["layers"].as_array().expect("layers").iter().all(|layer| {
            layer["mediaType"].as_str().expect("a type").starts_with("application/vnd.oci.image.layer.v1.tar")
        }));
        let label = config["config"]["Labels"]["org.opencontainers.image.base.name"].as_str();
        assert_eq!(label, Some(format!("{host}/{}", base.split('@').next().expect("a name")).as_str()), "{name}");
    }
    // No layer was read, and none was sent but once to each base: the images took them from there.
    for layer in &layers {
        for base in ["plain", "docker", "untyped", "list"] {
            assert_eq!(registry.requests(&format!("GET /v2/base/{base}/blobs/{layer}")), 0, "{base} {layer}");
        }
    }
    let sent = registry.uploads();
    for layer in &layers {
        assert_eq!(sent.iter().filter(|digest| *digest == layer).count(), 4, "{layer} was sent to an image");
    }
    let unknown = fail(build(&workspace, &registry, "base/list:1", "s390x").args(["--platform", "linux/s390x"]), 1);
    assert!(unknown.contains("linux/s390x") && unknown.contains("it has linux/amd64"), "{unknown}");
}

#[test]
fn a_base_is_read_once_and_never_when_another_base_had_its_layers() {
    let (registry, workspace, mut original) = (LocalRegistry::start(Mode::Plain), Workspace::new(), Original::read());
    let host = registry.host();
    original.push(&format!("{host}/base/one:1"), &original.manifest.clone());
    succeed(&mut build(&workspace, &registry, "base/one:1", "one"));
    let reads = |base: &str| registry.requests(&format!("GET /v2/base/{base}/blobs/"));
    let layers = original.layers();
    assert_eq!(reads("one"), layers.len() + 1, "each layer, and the config");
    // On another machine, which has the lock only, the base is asked for nothing at all.
    let asked = registry.requests("GET /v2/base/") + registry.requests("HEAD /v2/base/");
    let before = digest(&registry, "one");
    let mut elsewhere = build(&workspace, &registry, "base/one:1", "one");
    succeed(elsewhere.arg("--locked").env("CONDAIMG_CACHE_DIR", workspace.path("elsewhere")));
    assert_eq!(registry.requests("GET /v2/base/") + registry.requests("HEAD /v2/base/"), asked);
    assert_eq!(digest(&registry, "one"), before);
    let (manifest, config) = pulled(&workspace, &registry, "one");
    assert_eq!(digests(&manifest)[..layers.len()], layers);

    // Its variables, labels and history are kept, in another base of the same layers.
    original.config["config"]["Env"] = json!(["PATH=/usr/bin:/bin", "OF_THE_BASE=1"]);
    original.config["config"]["Labels"] = json!({"maintainer": "them", "org.opencontainers.image.version": "12"});
    original.config["config"]["User"] = json!("1234:1234");
    let filled = (0..layers.len()).map(|number| json!({"created_by": format!("ADD {number}")}));
    let empty = json!({"created_by": "ENV OF_THE_BASE=1", "empty_layer": true});
    original.config["history"] = filled.chain([empty]).collect();
    original.push(&format!("{host}/base/two:1"), &original.manifest.clone());
    let sent = registry.uploads().len();
    succeed(build(&workspace, &registry, "base/two:1", "two").args(["--lock-file", "two.lock", "--no-referrers"]));
    assert_eq!(reads("two"), 1, "the config");
    // The environment layer differs by the user's line in /etc/passwd, and the config.
    assert_eq!(registry.uploads().len() - sent, 2);
    let (manifest, other) = pulled(&workspace, &registry, "two");
    assert_eq!(digests(&manifest)[..layers.len()], layers);
    assert_eq!(other["config"]["User"], "1234:1234");
    assert_eq!(other["config"]["Labels"]["maintainer"], "them");
    assert_eq!(other["config"]["Labels"].get("org.opencontainers.image.version"), None);
    let variables: Vec<&str> =
        other["config"]["Env"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    assert!(
        variables.contains(&"OF_THE_BASE=1") && variables.contains(&"PATH=/opt/conda/envs/default/bin:/usr/bin:/bin")
    );
    let history = other["history"].as_array().expect("a list");
    let made = config["history"].as_array().expect("a list").len();
    assert_eq!(history.len(), made + 1, "the empty layer's entry is kept");
    assert_eq!(history[layers.len()]["created_by"], "ENV OF_THE_BASE=1");
    let filled = history.iter().filter(|entry| entry["empty_layer"] != true).count();
    assert_eq!(filled, digests(&manifest).len());
}

#[test]
fn a_base_goes_from_one_registry_to_another_in_a_stream() {
    let (from, to) = (LocalRegistry::start(Mode::Plain), LocalRegistry::start(Mode::Plain));
    let (workspace, original) = (Workspace::new(), Original::read());
    original.push(&format!("{}/base/one:1", from.host()), &original.manifest);
    small();
    succeed(build_to(&workspace, &from, "base/one:1", &to, "env").env("CONDAIMG_CACHE_DIR", shared_cache()));
    let (manifest, _) = pulled(&workspace, &to, "env");
    assert_eq!(digests(&manifest)[..original.layers().len()], original.layers());
}
