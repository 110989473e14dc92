//! `condaimg build --push` against a real registry: what it sends, what it does not, when, as whom, and what it
//! prints and writes.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::common::images::{self, shared_cache, skopeo, small};
use crate::common::registry::{LocalRegistry, Mode, PASSWORD, free_port};
use crate::common::{Workspace, environment, fail, succeed};

/// Blobs of what is attached to an image: the lock, and an empty config.
const ATTACHED: usize = 2;

/// `condaimg build --push` of the environment that is there.
pub fn push(workspace: &Workspace, tags: &[&str]) -> Command {
    let mut build = workspace.build_here();
    build.env("CONDAIMG_CACHE_DIR", shared_cache()).arg("--push").args(tags.iter().flat_map(|tag| ["--tag", tag]));
    build
}

/// A folder with the small environment, whose layers are in the shared cache.
pub fn workspace() -> Workspace {
    small();
    let workspace = Workspace::new();
    workspace.file("environment.yml", environment(&["python=3.11", "click"]));
    workspace
}

fn read_json(path: &Path) -> Value {
    images::json(&fs_err::read_to_string(path).expect("reads"))
}

#[test]
fn a_second_push_asks_and_sends_nothing() {
    let (registry, workspace) = (LocalRegistry::start(Mode::Plain), workspace());
    let tag = format!("{}/team/env:1", registry.host());
    let first = succeed(push(&workspace, &[&tag]).args(["--metadata-file", "first.json"]));
    let (writes, heads) = (registry.requests("P"), registry.requests("HEAD "));
    assert!(registry.requests("PUT /v2/team/env/manifests/1") == 1 && writes > 5);
    let written = fs_err::metadata(workspace.path("condaimg.lock")).expect("a lock").modified().expect("a time");

    let second = succeed(push(&workspace, &[&tag]).args(["--metadata-file", "second.json", "--digest-file", "digest"]));
    assert_eq!(second, first);
    assert_eq!(first, format!("{}/team/env@{}\n", registry.host(), small().digest()));
    assert_eq!(registry.requests("P"), writes, "the second push wrote to the registry");
    assert_eq!(registry.requests("DELETE "), 0);
    // Each layer, the config, the manifest; the lock that is attached to it, when it is looked for and when it is pushed.
    assert_eq!(registry.requests("HEAD ") - heads, small().layers().len() + 2 + 2);
    let unchanged = fs_err::metadata(workspace.path("condaimg.lock")).expect("a lock").modified().expect("a time");
    assert_eq!(unchanged, written);

    let [first, second] = ["first.json", "second.json"].map(|name| read_json(&workspace.path(name)));
    let (config, manifest) = (small().manifest()["config"].clone(), small().manifest());
    assert_eq!(second["uploaded-bytes"], 0);
    let sizes =
        |value: &Value| value["layers"].as_array().expect("layers").iter().map(|layer| layer["size"].as_u64()).sum();
    let size: Option<u64> = sizes(&manifest);
    assert_eq!(second["size"].as_u64(), size);
    assert_eq!(
        first["uploaded-bytes"].as_u64(),
        size.zip(config["size"].as_u64()).map(|(layers, config)| layers + config)
    );
    assert_eq!(second["config-digest"], config["digest"]);
    assert_eq!((&second["pushed"], &second["platform"]), (&json!(true), &json!("linux/amd64")));
    assert_eq!(second["tags"], json!([tag]));
    let layers: Vec<&Value> =
        second["layers"].as_array().expect("layers").iter().map(|layer| &layer["digest"]).collect();
    assert_eq!(layers, small().layers().iter().collect::<Vec<_>>());
    let digest = fs_err::read_to_string(workspace.path("digest")).expect("a digest");
    assert_eq!(digest.trim(), second["digest"].as_str().expect("a digest"));
    assert_eq!(digest.trim(), small().digest());
}

#[test]
fn all_tags_are_pushed_and_each_blob_once_a_repository() {
    let (registry, workspace) = (LocalRegistry::start(Mode::Plain), workspace());
    let host = registry.host();
    let tags = ["team/env:1", "team/env:latest", "mirror/env:1"].map(|tag| format!("{host}/{tag}"));
    let printed = succeed(&mut push(&workspace, &tags.each_ref().map(String::as_str)));
    let digest = small().digest();
    let expected = ["team", "team", "mirror"].map(|repository| format!("{host}/{repository}/env@{digest}\n"));
    assert_eq!(printed, expected.concat());
    for tag in &tags {
        let inspected = skopeo(&["inspect", "--tls-verify=false", "--format={{.Digest}}", &format!("docker://{tag}")]);
        assert_eq!(inspected.trim(), digest);
    }
    for repository in ["team", "mirror"] {
        let sent = registry.requests(&format!("POST /v2/{repository}/env/blobs/uploads/"));
        assert_eq!(sent, small().layers().len() + 1 + ATTACHED);
    }
    // The second repository took everything from the first, but for what is attached.
    assert_eq!(registry.uploads().len(), small().layers().len() + 1 + 2 * ATTACHED);
    let lock = skopeo(&["list-tags", "--tls-verify=false", &format!("docker://{host}/team/env")]);
    assert!(lock.contains(&digest.replace(':', "-")), "the lock is attached under the fallback tag: {lock}");
}

/// The digests of a pushed image's layers by their names.
fn layers_of(tag: &str) -> BTreeMap<String, String> {
    let manifest = images::json(&skopeo(&["inspect", "--raw", "--tls-verify=false", &format!("docker://{tag}")]));
    let name = |layer: &Value| layer["annotations"]["dev.condaimg.layer.name"].as_str().unwrap_or("base").to_owned();
    let layers = manifest["layers"].as_array().expect("layers").iter();
    layers.map(|layer| (name(layer), layer["digest"].as_str().expect("a digest").to_owned())).collect()
}

#[test]
fn one_changed_package_moves_its_own_layers_only() {
    let registry = LocalRegistry::start(Mode::Plain);
    let workspace = Workspace::new();
    let tag = |name: &str| format!("{}/team/env:{name}", registry.host());
    let build = |name: &str, click: &str| {
        workspace.file("environment.yml", environment(&["python=3.11", "numpy=1.26", "flask", click]));
        succeed(&mut push(&workspace, &[&tag(name)]));
        layers_of(&tag(name))
    };
    let before = build("old", "click=8.1.7");
    let writes = registry.requests("POST ");
    let after = build("new", "click=8.5.1");
    let moved: BTreeSet<&str> =
        after.iter().filter(|(name, digest)| before[*name] != **digest).map(|(name, _)| name.as_str()).collect();
    assert_eq!(moved, BTreeSet::from(["click (bytecode)", "click + 5 more", "environment"]));
    assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>());
    assert!(before.contains_key("numpy") && before.contains_key("python"));
    // These layers, the config and the attached lock; the empty config of the attachment was there.
    assert_eq!(registry.requests("POST ") - writes, moved.len() + 1 + 1);
    let uploads = registry.uploads();
    for name in moved {
        assert_eq!(uploads.iter().filter(|digest| **digest == after[name]).count(), 1, "{name}");
    }
}

#[test]
fn layers_are_sent_while_others_are_being_packed() {
    let registry = LocalRegistry::start(Mode::Plain);
    let workspace = Workspace::new();
    workspace.file("environment.yml", environment(&["python=3.11", "numpy", "click"]));
    let tag = format!("{}/team/env:1", registry.host());
    // A cache of its own, so that everything is packed; one at a time, the byte code first.
    let mut build = push(&workspace, &[&tag]);
    build.env("CONDAIMG_CACHE_DIR", workspace.path("cache")).args(["--jobs", "1", "--progress", "json"]);
    let mut child = build.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("runs");
    let mut uploaded_by_then = None;
    for line in BufReader::new(child.stderr.take().expect("is piped")).lines() {
        let event = images::json(&line.expect("UTF-8"));
        if event["event"] == "end" && event["step"] == "pack" {
            uploaded_by_then = Some(registry.uploads());
        }
    }
    assert!(child.wait().expect("ends").success());
    let uploaded_by_then = uploaded_by_then.expect("packing ends");
    let layers = layers_of(&tag);
    // Packing Python and numpy after them takes seconds, sending these milliseconds.
    for name in ["base", "click (bytecode)"] {
        assert!(uploaded_by_then.contains(&layers[name]), "{name} came late: {uploaded_by_then:?}, {layers:?}");
    }
    // So that this test can fail: not everything was there at that time.
    assert!(!uploaded_by_then.contains(&layers["environment"]));
}

#[test]
fn credentials_come_from_dockers_and_podmans_files() {
    let (registry, workspace) = (LocalRegistry::start(Mode::Auth), workspace());
    let tag = format!("{}/team/env:1", registry.host());
    let login = fs_err::read_to_string(registry.credential_file(PASSWORD)).expect("reads");
    workspace.file("docker/config.json", &login);
    workspace.file("home/.docker/config.json", "{}");

    // Nobody is nobody: this is what the right credentials change.
    let refused = fail(&mut push(&workspace, &[&tag]), 1);
    assert!(refused.contains(&registry.host()), "{refused}");
    assert_eq!(registry.requests("PUT /v2/team/env/manifests/"), 0);
    assert_eq!(registry.uploads(), Vec::<String>::new());

    let by_docker = succeed(push(&workspace, &[&tag]).env("DOCKER_CONFIG", workspace.path("docker")));
    assert_eq!(registry.requests("PUT /v2/team/env/manifests/1"), 1);
    let other = format!("{}/team/other:1", registry.host());
    let by_podman =
        succeed(push(&workspace, &[&other]).env("REGISTRY_AUTH_FILE", workspace.path("docker/config.json")));
    assert_eq!(by_podman, by_docker.replace("/env@", "/other@"));
    workspace.file("home/.docker/config.json", &login);
    assert_eq!(succeed(&mut push(&workspace, &[&tag])), by_docker);
}

#[test]
fn wrong_credentials_are_refused_without_showing_them() {
    let (registry, workspace) = (LocalRegistry::start(Mode::Auth), workspace());
    let tag = format!("{}/team/env:1", registry.host());
    let wrong = "wr0ng-passw0rd";
    let login = fs_err::read_to_string(registry.credential_file(wrong)).expect("reads");
    let login = workspace.file("auth.json", login);
    for progress in ["plain", "json"] {
        let mut build = push(&workspace, &[&tag]);
        build.env("REGISTRY_AUTH_FILE", &login).args(["-v", "--progress", progress]);
        let told = fail(&mut build, 1);
        assert!(told.contains(&registry.host()) && told.contains("hint"), "{told}");
        for secret in [wrong, PASSWORD, &base64_of(&format!("ci:{wrong}"))] {
            assert!(!told.contains(secret), "{told}");
        }
    }
    assert_eq!(registry.requests("PATCH "), 0);
}

/// As it stands in an `Authorization` header.
fn base64_of(text: &str) -> String {
    let mut base64 = crate::common::program("base64", "coreutils");
    let path = tempfile::NamedTempFile::new().expect("a file");
    fs_err::write(path.path(), text).expect("writes");
    succeed(base64.args(["--wrap", "0"]).arg(path.path()))
}

#[test]
fn a_registry_with_its_own_authority_is_trusted_when_named() {
    let (registry, workspace) = (LocalRegistry::start(Mode::TlsAuth), workspace());
    let tag = format!("localhost:{}/team/env:1", registry.port);
    let login = fs_err::read_to_string(registry.credential_file(PASSWORD)).expect("reads");
    let login = workspace.file("auth.json", login.replace("127.0.0.1", "localhost"));
    let refused = fail(push(&workspace, &[&tag]).env("REGISTRY_AUTH_FILE", &login), 1);
    assert!(refused.contains("--registry-ca") && refused.contains("localhost"), "{refused}");

    let mut build = push(&workspace, &[&tag]);
    build.env("REGISTRY_AUTH_FILE", &login).arg("--registry-ca").arg(registry.ca());
    assert_eq!(succeed(&mut build), format!("localhost:{}/team/env@{}\n", registry.port, small().digest()));
    assert_eq!(registry.requests("PUT /v2/team/env/manifests/1"), 1);
}

#[test]
fn an_unreachable_registry_is_named_and_no_lock_or_image_is_lost() {
    let workspace = workspace();
    let tag = format!("127.0.0.1:{}/team/env:1", free_port());
    let told = fail(push(&workspace, &[&tag]).args(["--digest-file", "digest"]), 1);
    assert!(told.contains(tag.split('/').next().expect("a host")), "{told}");
    assert!(!workspace.path("digest").exists());
    assert!(workspace.path("condaimg.lock").exists());
}
