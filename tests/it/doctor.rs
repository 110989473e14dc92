//! `condaimg doctor` against real registries in several modes, and against a fake one that does much wrong.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Mutex;

use condaimg::util::Digest;
use serde_json::{Value, json};

use crate::common::registry::{Fake, LocalRegistry, Mode, PASSWORD, Reply, Request, USER, free_port};
use crate::common::{Workspace, example_channel, succeed};

/// What a run tells.
struct Told {
    status: Option<i32>,
    report: Value,
    text: String,
}

impl Told {
    /// `ok`, `no` or `unknown` of a finding about the registry.
    fn state(&self, name: &str) -> &str {
        self.finding(name)["state"].as_str().expect("a state")
    }

    fn finding(&self, name: &str) -> &Value {
        let findings = self.report["registry"]["findings"].as_array().expect("findings");
        findings.iter().find(|finding| finding["name"] == name).unwrap_or_else(|| panic!("no {name}: {}", self.text))
    }

    fn states(&self) -> BTreeMap<&str, &str> {
        let findings = self.report["registry"]["findings"].as_array().expect("findings");
        let text = |value: &'_ Value| value.as_str().map(str::to_owned).expect("text").leak() as &str;
        findings.iter().map(|finding| (text(&finding["name"]), text(&finding["state"]))).collect()
    }
}

fn doctor(workspace: &Workspace, arguments: &[&str]) -> Command {
    let mut command = workspace.condaimg();
    // The default base is in the network.
    command.env("CONDAIMG_BASE", "scratch").arg("doctor").args(arguments);
    command
}

fn run(command: &mut Command) -> Told {
    let output = command.arg("--json").output().expect("runs");
    let stdout = String::from_utf8(output.stdout).expect("UTF-8");
    let text = format!("{stdout}{}", String::from_utf8_lossy(&output.stderr));
    assert!(!text.contains(PASSWORD) && !text.contains("panicked"), "{text}");
    let report = serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {text}"));
    Told { status: output.status.code(), report, text }
}

/// The tags of a repository, as the registry keeps them.
fn tags(registry: &LocalRegistry, repository: &str) -> usize {
    let folder = registry.data().join("docker/registry/v2/repositories").join(repository).join("_manifests/tags");
    std::fs::read_dir(folder).expect("the folder of tags").count()
}

#[test]
fn a_registry_in_good_health_is_left_as_it_was() {
    let (registry, workspace) = (LocalRegistry::start(Mode::Plain), Workspace::new());
    let told = run(&mut doctor(&workspace, &[&registry.host()]));
    assert_eq!(told.status, Some(0), "{}", told.text);
    let expected = BTreeMap::from([
        ("reachable", "ok"),
        ("authentication", "ok"),
        ("credentials", "ok"),
        ("pull", "ok"),
        ("push", "ok"),
        ("monolithic-upload", "ok"),
        ("chunked-upload", "ok"),
        ("upload-cancel", "ok"),
        ("mount", "ok"),
        ("oci-manifest", "ok"),
        ("tag-digest", "ok"),
        ("zstd-layers", "ok"),
        ("oci-index", "ok"),
        ("artifacts", "ok"),
        ("oci-subject", "no"),
        ("referrers-api", "no"),
        ("delete-manifest", "ok"),
        ("delete-blob", "ok"),
    ]);
    assert_eq!(told.states(), expected);
    let subject = told.finding("referrers-api");
    assert!(subject["advice"].as_str().expect("advice").contains("fallback tag"), "{subject}");
    let registry_part = &told.report["registry"];
    assert_eq!(registry_part["repository"], "condaimg-doctor/probe");
    assert_eq!((&registry_part["can-push"], &registry_part["left"]), (&json!(true), &json!([])));
    assert!(registry.requests("PUT /v2/condaimg-doctor/probe/manifests/") >= 4, "it did write");
    assert_eq!(tags(&registry, "condaimg-doctor/probe"), 0);
    // Neither a tag nor a manifest nor a blob of a repository is left.
    let links = walkdir::WalkDir::new(registry.data().join("docker/registry/v2/repositories")).into_iter();
    let links: Vec<_> = links.filter_map(Result::ok).filter(|entry| entry.file_name() == "link").collect();
    assert!(links.is_empty(), "{links:?}");
    // Each run writes something else.
    let before = registry.uploads();
    assert_eq!(run(&mut doctor(&workspace, &[&format!("{}/team/env", registry.host())])).status, Some(0));
    let both = registry.uploads();
    let new: Vec<_> = both[before.len()..].iter().filter(|digest| before.contains(*digest)).collect();
    // Not even the empty blob, which artifacts of others need and which would be deleted with the rest.
    assert_eq!(new, Vec::<&String>::new());
    assert!(!both.contains(&Digest::of("{}").to_string()));
    assert!(registry.requests("POST /v2/team/condaimg-doctor-mount/blobs/uploads/?mount=") == 1);
}

#[test]
fn what_cannot_be_deleted_is_listed() {
    let (registry, workspace) = (LocalRegistry::start(Mode::Keeping), Workspace::new());
    let told = run(&mut doctor(&workspace, &[&registry.host()]));
    assert_eq!(told.status, Some(0), "{}", told.text);
    assert_eq!((told.state("delete-manifest"), told.state("delete-blob")), ("no", "no"));
    let left: Vec<&str> =
        told.report["registry"]["left"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    // Image, zstd image, index, artifact; config, two layers, chunked, empty, mounted.
    assert_eq!((left.iter().filter(|it| it.contains("manifest")).count(), left.len()), (4, 10), "{left:?}");
    for digest in registry.uploads() {
        assert!(left.iter().any(|left| left.contains(&digest)), "{digest}: {left:?}");
    }
    assert_eq!(tags(&registry, "condaimg-doctor/probe"), 1);
    let table = succeed(&mut doctor(&workspace, &[&registry.host()]));
    assert!(table.contains("left behind") && table.contains("  no  delete-blob "), "{table}");
}

#[test]
fn credentials_are_told_by_origin_and_never_shown() {
    let (registry, workspace) = (LocalRegistry::start(Mode::Auth), Workspace::new());
    let run_with = |file: Option<&str>| {
        let mut command = doctor(&workspace, &[&registry.host()]);
        if let Some(password) = file {
            // Under a name that is no secret.
            let login = fs_err::read_to_string(registry.credential_file(password)).expect("reads");
            command.env("REGISTRY_AUTH_FILE", workspace.file("auth.json", login));
        }
        run(&mut command)
    };
    let right = run_with(Some(PASSWORD));
    assert_eq!((right.status, right.state("push")), (Some(0), "ok"), "{}", right.text);
    assert!(right.finding("authentication")["detail"].as_str().expect("text").contains("basic"));
    let origin = right.finding("credentials")["detail"].as_str().expect("text").to_owned();
    let file = workspace.path("auth.json").display().to_string();
    assert!(origin.contains(&format!("`{USER}`")) && origin.contains(&file), "{origin}");

    let secret = "wr0ng-passw0rd";
    let wrong = run_with(Some(secret));
    assert_eq!((wrong.status, wrong.state("pull"), wrong.state("push")), (Some(1), "no", "no"), "{}", wrong.text);
    // `ci:wr0ng-passw0rd`
    assert!(!wrong.text.contains("Y2k6d3IwbmctcGFzc3cwcmQ") && !wrong.text.contains(secret), "{}", wrong.text);
    assert!(wrong.text.contains("cannot be used") && wrong.text.contains("401"), "{}", wrong.text);

    let none = run_with(None);
    assert_eq!((none.status, none.state("credentials"), none.state("pull")), (Some(1), "unknown", "no"));
    let advice = none.finding("credentials")["advice"].as_str().expect("advice");
    assert!(advice.contains(&format!("podman login {}", registry.host())), "{advice}");
    assert_eq!(registry.uploads().len(), 5, "only who may write did");
}

#[test]
fn a_registry_in_maintenance_can_be_read_only() {
    let (mut registry, workspace) = (LocalRegistry::start(Mode::Plain), Workspace::new());
    registry.set_read_only(true);
    let told = run(&mut doctor(&workspace, &[&registry.host()]));
    assert_eq!((told.status, told.state("pull"), told.state("push")), (Some(1), "ok", "no"), "{}", told.text);
    assert_eq!((told.state("monolithic-upload"), told.state("oci-index")), ("unknown", "unknown"));
    assert!(told.text.contains("405"), "{}", told.text);

    let writes = registry.requests("P");
    let told = run(&mut doctor(&workspace, &[&registry.host(), "--read-only"]));
    assert_eq!((told.status, told.state("pull"), told.state("referrers-api")), (Some(0), "ok", "no"), "{}", told.text);
    assert_eq!(told.report["registry"]["can-push"], Value::Null);
    assert_eq!((registry.requests("P"), registry.requests("DELETE")), (writes, 0));
}

#[test]
fn an_unreachable_or_untrusted_registry_is_told() {
    let workspace = Workspace::new();
    let host = format!("127.0.0.1:{}", free_port());
    let told = run(&mut doctor(&workspace, &[&host]));
    assert_eq!((told.status, told.state("reachable")), (Some(1), "no"));
    assert!(told.text.contains("connection refused"), "{}", told.text);

    let registry = LocalRegistry::start(Mode::Tls);
    let told = run(&mut doctor(&workspace, &[&registry.host()]));
    assert_eq!((told.status, told.state("reachable")), (Some(1), "no"));
    assert!(told.finding("reachable")["advice"].as_str().expect("advice").contains("--registry-ca"), "{}", told.text);
    let ca = registry.ca();
    let told = run(doctor(&workspace, &[&registry.host(), "--registry-ca"]).arg(ca));
    assert_eq!((told.status, told.state("push")), (Some(0), "ok"), "{}", told.text);
    assert!(told.finding("reachable")["detail"].as_str().expect("text").contains("https"));
}

#[test]
fn names_that_are_no_registry_are_wrong_usage() {
    for name in ["team/env", "https://registry.example", "registry.example/env:1"] {
        let output = doctor(&Workspace::new(), &[name]).output().expect("runs");
        assert_eq!(output.status.code(), Some(2), "{name}");
    }
}

#[test]
fn this_machine_is_looked_at_without_a_registry() {
    let workspace = Workspace::new();
    let auths = r#"{"auths": {"a.example": {"auth": "c2VjcmV0OnNlY3JldA=="}}, "credHelpers": {"b.example": "vault"}}"#;
    workspace.file("home/.docker/config.json", auths);
    let mut command = doctor(&workspace, &["--channel", &example_channel().display().to_string()]);
    command.env("HTTPS_PROXY", "http://user:hidden@proxy.example:3128").env("NO_PROXY", "localhost");
    command.env("CONDAIMG_REGISTRY_PASSWORD", "hidden");
    let told = run(&mut command);
    assert_eq!(told.status, Some(0), "{}", told.text);
    for part in [
        "a.example, b.example by `docker-credential-vault`",
        "HTTPS_PROXY=http://proxy.example:3128",
        "noarch/repodata.json",
    ] {
        assert!(told.text.contains(part), "{part}: {}", told.text);
    }
    for secret in ["hidden", "c2VjcmV0", "user:"] {
        assert!(!told.text.contains(secret), "{secret}: {}", told.text);
    }
    let local = told.report["local"].as_array().expect("findings");
    let state =
        |name: &str| local.iter().find(|finding| finding["name"] == name).map(|finding| finding["state"].clone());
    // A password without a user is a mistake.
    assert_eq!((state("cache"), state("login")), (Some(json!("ok")), Some(json!("no"))));
    assert_eq!(told.report.get("registry"), None);
    assert!(!workspace.path("cache").exists(), "looking makes no folders");

    // What is in the way of a cache, and a channel that is none.
    let file = workspace.file("file", "");
    let told = run(doctor(&workspace, &[]).arg("--cache-dir").arg(file.join("cache")));
    assert_eq!(told.status, Some(1), "{}", told.text);
    let folder = workspace.path("home").display().to_string();
    let told = run(&mut doctor(&workspace, &["--channel", &folder]));
    assert_eq!((told.status, &told.report["channels"][0]["state"]), (Some(1), &json!("no")), "{}", told.text);
}

/// The finding of a name about this machine.
fn local<'a>(told: &'a Told, name: &str) -> &'a Value {
    let findings = told.report["local"].as_array().expect("findings");
    findings.iter().find(|finding| finding["name"] == name).unwrap_or_else(|| panic!("no {name}: {}", told.text))
}

#[test]
fn tools_and_sandbox_are_looked_at() {
    let workspace = Workspace::new();
    let told = run(&mut doctor(&workspace, &[]));
    assert_eq!(told.status, Some(0), "{}", told.text);
    assert!(local(&told, "git")["detail"].as_str().expect("text").contains("git version"), "{}", told.text);
    let uv = workspace.file("bin/uv", "#!/bin/sh\necho uv 9.9.9\n");
    succeed(std::process::Command::new("chmod").arg("+x").arg(&uv));
    let told = run(doctor(&workspace, &[]).env("CONDAIMG_UV", &uv));
    assert!(local(&told, "uv")["detail"].as_str().expect("text").contains("uv 9.9.9"), "{}", told.text);
    // Namespaces or Landlock: one of them is on every machine that tests run on.
    assert_eq!(local(&told, "sandbox")["state"], "ok", "{}", told.text);

    // Nothing of that is there: told with what to do, and no failure, since not every build needs it.
    let told = run(doctor(&workspace, &[]).env("PATH", "/nowhere").env("CONDAIMG_UV", ""));
    assert_eq!(told.status, Some(0), "{}", told.text);
    for (name, way) in [("uv", "CONDAIMG_UV"), ("git", "install git")] {
        let finding = local(&told, name);
        assert_eq!(finding["state"], "no", "{name}: {}", told.text);
        assert!(finding["advice"].as_str().expect("advice").contains(way), "{name}: {finding}");
    }
}

#[test]
fn the_default_base_is_looked_for() {
    let (registry, workspace) = (LocalRegistry::start(Mode::Plain), Workspace::new());
    let layout = format!("oci:{}:debian", crate::common::example_base().display());
    let tag = format!("{}/bases/debian:12", registry.host());
    crate::common::images::skopeo(&["copy", "--quiet", "--dest-tls-verify=false", &layout, &format!("docker://{tag}")]);
    let nowhere = format!("127.0.0.1:{}/bases/debian:12", free_port());
    let missing = format!("{}/bases/debian:13", registry.host());
    for (base, state) in
        [(tag.as_str(), "ok"), (&layout, "ok"), ("oci:nowhere", "no"), (&missing, "no"), (&nowhere, "no")]
    {
        let told = run(doctor(&workspace, &[]).env("CONDAIMG_BASE", base));
        let finding = local(&told, "default-base");
        assert_eq!((told.status, &finding["state"]), (Some(0), &json!(state)), "{base}: {}", told.text);
        let advice = finding["advice"].as_str().unwrap_or_default();
        assert_eq!(advice.contains("`--base`") && advice.contains("CONDAIMG_BASE"), state == "no", "{finding}");
    }
}

/// A registry with the referrers API that keeps the first chunk only, mounts nothing, takes neither zstd nor indexes,
/// tells no digest and deletes nothing.
#[derive(Default)]
struct Odd {
    kept: Mutex<BTreeMap<String, Vec<u8>>>,
    artifact: Mutex<Option<Value>>,
}

impl Odd {
    fn answer(&self, request: &Request) -> Reply {
        let (method, path) = request.line.split_once(' ').expect("a request");
        let found = |status: u16| (status, Vec::new(), Vec::new());
        let mut kept = self.kept.lock().expect("locks");
        if path.contains("/referrers/") {
            let listed: Vec<Value> = self.artifact.lock().expect("locks").iter().cloned().collect();
            return (200, Vec::new(), json!({"schemaVersion": 2, "manifests": listed}).to_string().into());
        }
        match (method, path) {
            ("GET", "/v2/") => found(200),
            ("POST", _) => {
                let session = format!("/session/{}", kept.len());
                kept.insert(session.clone(), Vec::new());
                (
                    202,
                    vec![("location", format!("{session}?state=1")), ("oci-chunk-min-length", "1000".into())],
                    Vec::new(),
                )
            }
            ("PATCH", path) => {
                let session = kept.entry(path.split('?').next().expect("a path").to_owned()).or_default();
                if session.is_empty() {
                    session.clone_from(&request.body);
                }
                (202, vec![("location", path.to_owned())], Vec::new())
            }
            ("PUT", path) if path.contains("/manifests/") => self.manifest(request),
            ("PUT", path) => {
                let (session, query) = path.split_once('?').expect("a query");
                let sent = kept.get(session).filter(|_| request.body.is_empty()).unwrap_or(&request.body).clone();
                kept.insert(query.split("digest=").nth(1).expect("a digest").replace("%3A", ":"), sent);
                found(201)
            }
            ("DELETE", _) => found(405),
            ("HEAD", path) if path.contains("/manifests/") => found(200),
            (_, path) => match kept.get(path.rsplit('/').next().expect("a name")) {
                Some(bytes) => (200, Vec::new(), bytes.clone()),
                None => found(404),
            },
        }
    }

    fn manifest(&self, request: &Request) -> Reply {
        let text = String::from_utf8_lossy(&request.body);
        let refused =
            |status, code: &str| (status, Vec::new(), format!(r#"{{"errors":[{{"code":"{code}"}}]}}"#).into());
        if text.contains("tar+zstd") {
            return refused(400, "MANIFEST_INVALID");
        }
        if text.contains("\"manifests\"") {
            return refused(415, "UNSUPPORTED");
        }
        let document: Value = serde_json::from_slice(&request.body).expect("JSON");
        let Some(subject) = document["subject"]["digest"].as_str() else { return (201, Vec::new(), Vec::new()) };
        let entry = json!({"digest": Digest::of(&request.body).to_string()});
        *self.artifact.lock().expect("locks") = Some(entry);
        (201, vec![("oci-subject", subject.to_owned())], Vec::new())
    }
}

#[test]
fn what_a_registry_does_wrong_is_seen() {
    let odd = Odd::default();
    let fake = Fake::start(move |_, request| odd.answer(request));
    let told = run(&mut doctor(&Workspace::new(), &[&fake.host]));
    assert_eq!(told.status, Some(0), "{}", told.text);
    for (name, state) in [
        ("push", "ok"),
        ("monolithic-upload", "ok"),
        ("chunked-upload", "no"),
        ("upload-cancel", "no"),
        ("mount", "no"),
        ("oci-manifest", "ok"),
        ("tag-digest", "no"),
        ("zstd-layers", "no"),
        ("oci-index", "no"),
        ("artifacts", "ok"),
        ("oci-subject", "ok"),
        ("referrers-api", "ok"),
        ("delete-manifest", "no"),
        ("delete-blob", "no"),
    ] {
        assert_eq!(told.state(name), state, "{name}: {}", told.text);
        assert_eq!(told.finding(name).get("advice").is_some(), state == "no", "{name}");
    }
    let chunked = told.finding("chunked-upload")["detail"].as_str().expect("text");
    assert!(chunked.contains("took 1064 bytes, but has 1000"), "{chunked}");
    assert!(told.finding("zstd-layers")["advice"].as_str().expect("advice").contains("gzip"));
    assert!(!told.report["registry"]["left"].as_array().expect("a list").is_empty());
}

#[test]
fn tokens_are_told_by_their_server_and_never_shown() {
    let odd = Odd::default();
    let fake = Fake::start(move |host, request| {
        if request.line.starts_with("GET /token?") {
            return (200, Vec::new(), br#"{"token":"t0p-secret"}"#.to_vec());
        }
        if request.headers.get("authorization").is_none_or(|it| it != "Bearer t0p-secret") {
            let challenge = format!("Bearer realm=\"http://{host}/token\",service=\"test\"");
            return (401, vec![("www-authenticate", challenge)], Vec::new());
        }
        odd.answer(request)
    });
    let workspace = Workspace::new();
    let mut command = doctor(&workspace, &[&fake.host]);
    let told = run(command.env("CONDAIMG_REGISTRY_USERNAME", USER).env("CONDAIMG_REGISTRY_PASSWORD", PASSWORD));
    assert_eq!((told.status, told.state("push")), (Some(0), "ok"), "{}", told.text);
    assert_eq!(told.finding("authentication")["detail"], format!("a token of `{}` (bearer)", fake.host));
    let origin = told.finding("credentials")["detail"].as_str().expect("text");
    assert!(origin.contains("`ci` from CONDAIMG_REGISTRY_USERNAME"), "{origin}");
    assert!(!told.text.contains("t0p-secret"), "{}", told.text);
    // For reading only, too: the registry was named.
    let mut command = doctor(&workspace, &[&fake.host, "--read-only"]);
    let told = run(command.env("CONDAIMG_REGISTRY_USERNAME", USER).env("CONDAIMG_REGISTRY_PASSWORD", PASSWORD));
    assert_eq!((told.status, told.state("pull")), (Some(0), "ok"), "{}", told.text);
}
