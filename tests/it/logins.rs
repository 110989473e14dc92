//! `condaimg build --push` as people log in: every mode of registry, what other clients take from there afterwards,
//! and that no secret is ever seen.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use crate::common::engine::Engine;
use crate::common::forward_proxy::slow_line;
use crate::common::images::{skopeo, small};
use crate::common::registry::{LocalRegistry, Mode, PASSWORD, USER};
use crate::common::token_server::{IDENTITY, Who, basic};
use crate::common::{Workspace, fail, succeed};
use crate::push::{push, workspace};

/// Writes docker's config.json into the folder that `DOCKER_CONFIG` names for the push.
fn configure(workspace: &Workspace, push: &mut Command, json: &str) {
    workspace.file("docker/config.json", json);
    push.env("DOCKER_CONFIG", workspace.path("docker"));
}

/// Puts a script into the PATH of the push as `docker-credential-test`.
fn add_helper(workspace: &Workspace, push: &mut Command, script: &str) {
    let path = workspace.file("bin/docker-credential-test", format!("#!/bin/sh\n{script}\n"));
    fs_err::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("sets");
    let rest = std::env::var("PATH").unwrap_or_default();
    push.env("PATH", format!("{}:{rest}", workspace.path("bin").display()));
}

#[test]
fn one_push_for_every_mode_and_others_can_pull() {
    let workspace = workspace();
    let digest = small().digest();
    for mode in [Mode::Plain, Mode::Auth, Mode::Tls, Mode::TlsAuth, Mode::MutualTls, Mode::Token, Mode::TlsToken] {
        let registry = LocalRegistry::start(mode);
        let image = format!("{}/team/env:1", registry.host());
        let login = registry.credential_file(PASSWORD);
        let mut build = push(&workspace, &[&image]);
        build.env("REGISTRY_AUTH_FILE", &login);
        let certificates = workspace.path(&format!("{mode:?}"));
        fs_err::create_dir_all(&certificates).expect("a folder");
        if registry.ca().exists() {
            build.arg("--registry-ca").arg(registry.ca());
            fs_err::copy(registry.ca(), certificates.join("ca.crt")).expect("copies");
        }
        if mode == Mode::MutualTls {
            let (certificate, key) = registry.client_certificate();
            build.arg("--registry-cert").arg(&certificate).arg("--registry-key").arg(&key);
            fs_err::copy(certificate, certificates.join("client.cert")).expect("copies");
            fs_err::copy(key, certificates.join("client.key")).expect("copies");
        }
        assert_eq!(succeed(&mut build), format!("{}/team/env@{digest}\n", registry.host()), "{mode:?}");

        let verify = format!("--tls-verify={}", registry.ca().exists());
        let (folder, login) = (certificates.display().to_string(), login.display().to_string());
        let mut flags = vec![verify.as_str(), "--cert-dir", &folder];
        if matches!(mode, Mode::Auth | Mode::TlsAuth | Mode::Token | Mode::TlsToken) {
            flags.extend(["--authfile", &login]);
        }
        let inspect = ["inspect", "--format={{.Digest}}"];
        let reference = format!("docker://{image}");
        let seen = skopeo(&[&inspect[..], &flags, &[reference.as_str()]].concat());
        assert_eq!(seen.trim(), digest, "{mode:?}");
        if matches!(mode, Mode::TlsAuth | Mode::Token) {
            let engine = Engine::fresh(if mode == Mode::Token { "by-token" } else { "by-tls" });
            succeed(engine.podman().args(["pull", "--quiet"]).args(&flags).arg(&image));
            assert_eq!(registry.blob_downloads().len(), small().layers().len() + 2, "the config is read twice");
        }
    }
}

#[test]
fn a_folder_in_the_users_configuration_holds_certificates() {
    let (workspace, registry) = (workspace(), LocalRegistry::start(Mode::MutualTls));
    let tag = format!("{}/team/env:1", registry.host());
    let folder = format!("home/.config/containers/certs.d/{}", registry.host());
    let (certificate, key) = registry.client_certificate();
    workspace.file(&format!("{folder}/ca.crt"), fs_err::read(registry.ca()).expect("reads"));
    let told = fail(&mut push(&workspace, &[&tag]), 1);
    assert!(told.contains("client certificate") && told.contains("--registry-cert"), "{told}");
    workspace.file(&format!("{folder}/ci.cert"), fs_err::read(certificate).expect("reads"));
    workspace.file(&format!("{folder}/ci.key"), fs_err::read(key).expect("reads"));
    succeed(&mut push(&workspace, &[&tag]));
    // The flags belong together.
    fail(push(&workspace, &[&tag]).args(["--registry-cert", "ci.cert"]), 2);
}

#[test]
fn helpers_are_asked_before_entries_and_the_store_last() {
    let (workspace, registry) = (workspace(), LocalRegistry::start(Mode::Auth));
    let host = registry.host();
    let tag = format!("{host}/team/env:1");
    let right = format!(r#"[ "$(cat)" = {host} ] && echo '{{"Username":"{USER}","Secret":"{PASSWORD}"}}'"#);
    let entry = |password: &str| {
        let auth = basic(USER, password).replace("Basic ", "");
        format!(r#""auths": {{"{host}": {{"auth": "{auth}"}}}}"#)
    };
    let helper = format!(r#""credHelpers": {{"{host}": "test"}}"#);
    let run = |json: &str, script: &str| {
        let mut build = push(&workspace, &[&tag]);
        configure(&workspace, &mut build, &format!("{{{json}}}"));
        add_helper(&workspace, &mut build, script);
        build
    };
    succeed(&mut run(&format!("{helper}, {}", entry("wrong")), &right));
    succeed(&mut run(&format!(r#""credsStore": "test", {}"#, entry(PASSWORD)), "exit 1"));
    succeed(&mut run(r#""credsStore": "test", "auths": {}"#, &right));
    // A helper that knows nothing, or fails, leaves it to the entry.
    succeed(&mut run(
        &format!("{helper}, {}", entry(PASSWORD)),
        "echo credentials not found in native keychain; exit 1",
    ));
    succeed(&mut run(&format!("{helper}, {}", entry(PASSWORD)), "exit 1"));
    // What a failing helper writes may be a secret.
    let told = fail(run(&helper, "echo hush-hush; echo hush-hush >&2; exit 7").arg("-vv"), 1);
    for part in ["no credentials found", "docker-credential-test` failed (exit status: 7)", "config.json"] {
        assert!(told.contains(part), "{part}: {told}");
    }
    assert!(!told.contains("hush"), "{told}");
    let told = fail(&mut run(&helper.replace("test", "condaimg-is-missing"), ""), 1);
    assert!(told.contains("`docker-credential-condaimg-is-missing` is not there"), "{told}");
}

#[test]
fn a_file_that_is_named_stands_for_all_others() {
    let (workspace, registry) = (workspace(), LocalRegistry::start(Mode::Auth));
    let tag = format!("{}/team/env:1", registry.host());
    let login = fs_err::read_to_string(registry.credential_file(PASSWORD)).expect("reads");
    workspace.file("home/.docker/config.json", &login);
    let empty = workspace.file("empty.json", "{}");
    let told = fail(push(&workspace, &[&tag]).env("REGISTRY_AUTH_FILE", &empty), 1);
    assert!(told.contains(&empty.display().to_string()) && !told.contains(".docker/config.json"), "{told}");
    // Podman's file of the session comes before docker's.
    workspace.file("run/containers/auth.json", &login);
    let wrong = fs_err::read(registry.credential_file("wrong")).expect("reads");
    workspace.file("home/.docker/config.json", wrong);
    succeed(push(&workspace, &[&tag]).env("XDG_RUNTIME_DIR", workspace.path("run")));
    workspace.file("home/.config/containers/auth.json", &login);
    succeed(&mut push(&workspace, &[&tag]));
}

#[test]
fn tokens_that_end_in_mid_push_are_replaced() {
    let (workspace, registry) = (workspace(), LocalRegistry::start(Mode::Token));
    // The server tells nothing, so that 60 s are assumed; the registry refuses tokens of more than 5 s.
    registry.tokens().set_life(None, 5);
    let bytes: u64 = small().manifest()["layers"]
        .as_array()
        .expect("layers")
        .iter()
        .filter_map(|layer| layer["size"].as_u64())
        .sum();
    // All layers at once need some 15 s.
    let host = slow_line(registry.port, usize::try_from(bytes / 15 / 2).expect("fits"));
    let login = fs_err::read_to_string(registry.credential_file(PASSWORD)).expect("reads");
    let login = workspace.file("auth.json", login.replace(&registry.host(), &host));
    let tag = format!("{host}/team/env:1");
    let printed = succeed(push(&workspace, &[&tag]).env("REGISTRY_AUTH_FILE", &login));
    assert_eq!(printed, format!("{host}/team/env@{}\n", small().digest()));
    let asked = registry.tokens().asked();
    assert!(asked.len() >= 2, "one token was enough: {asked:?}");
    assert!(asked.iter().all(|asked| asked.who == Who::Password), "{asked:?}");
    // The greeting, and what a token that had ended was shown to.
    assert!(registry.refusals() >= 2);
}

/// All files below a folder that hold one of the texts.
fn holders(folder: &Path, secrets: &[String]) -> Vec<String> {
    let files = walkdir::WalkDir::new(folder).into_iter().map(|entry| entry.expect("reads"));
    let files = files.filter(|entry| entry.file_type().is_file());
    let mut found = Vec::new();
    for file in files {
        let bytes = fs_err::read(file.path()).expect("reads");
        let holds = |secret: &&String| bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
        found.extend(secrets.iter().find(holds).map(|secret| format!("{}: {secret}", file.path().display())));
    }
    found
}

#[test]
fn no_secret_is_ever_seen() {
    let spelled = |password: &str| vec![password.to_owned(), basic(USER, password).replace("Basic ", "")];
    let wrong = "wr0ng-pa55";
    for (mode, way) in [
        (Mode::Auth, "file"),
        (Mode::Token, "file"),
        (Mode::Token, "identity"),
        (Mode::Token, "helper"),
        (Mode::TlsAuth, "pair"),
    ] {
        let registry = LocalRegistry::start(mode);
        let host = registry.host();
        let tag = format!("{host}/team/env:1");
        for password in [PASSWORD, wrong] {
            let (workspace, settings) = (workspace(), Workspace::new());
            let mut build = push(&workspace, &[&tag]);
            build.args(["-vv", "--progress", "json", "--metadata-file", "metadata.json", "--output", "oci:image"]);
            let identity = if password == wrong { wrong } else { IDENTITY };
            match way {
                "file" => drop(build.env("REGISTRY_AUTH_FILE", registry.credential_file(password))),
                "identity" => {
                    let entry = format!(r#"{{"auth": "PHRva2VuPjo=", "identitytoken": "{identity}"}}"#);
                    configure(&settings, &mut build, &format!(r#"{{"auths": {{"{host}": {entry}}}}}"#));
                }
                "helper" => {
                    configure(&settings, &mut build, r#"{"credsStore": "test"}"#);
                    let answer = format!(r#"echo '{{"Username":"<token>","Secret":"{identity}"}}'"#);
                    add_helper(&settings, &mut build, &answer);
                }
                _ => {
                    build.arg("--registry-ca").arg(registry.ca());
                    build.env("CONDAIMG_REGISTRY_USERNAME", USER).env("CONDAIMG_REGISTRY_PASSWORD", password);
                }
            }
            let output = build.output().expect("runs");
            let succeeded = password == PASSWORD;
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.success(), succeeded, "{mode:?} {way}: {stderr}");
            assert!(workspace.path("condaimg.lock").exists());
            assert_eq!(workspace.path("metadata.json").exists(), succeeded);
            workspace.file("stdout", &output.stdout);
            workspace.file("stderr", &output.stderr);
            // So that this test can fail: there is something to find.
            assert!(!holders(&workspace.path("."), std::slice::from_ref(&host)).is_empty());
            let mut secrets = [spelled(PASSWORD), spelled(wrong), vec![IDENTITY.to_owned()]].concat();
            if matches!(mode, Mode::Token) {
                let tokens = registry.tokens().tokens();
                // Their last parts, too: a signature is as good as the whole.
                secrets.extend(tokens.iter().filter_map(|token| Some(token.rsplit_once('.')?.1.to_owned())));
            }
            assert_eq!(holders(&workspace.path("."), &secrets), Vec::<String>::new(), "{mode:?} {way}");
        }
    }
}

#[test]
fn docker_auth_config_logs_in_and_is_named() {
    let (workspace, registry) = (workspace(), LocalRegistry::start(Mode::Auth));
    let host = registry.host();
    let tag = format!("{host}/team/env:1");
    let entry = |password: &str| {
        let auth = basic(USER, password).replace("Basic ", "");
        format!(r#"{{"auths": {{"{host}": {{"auth": "{auth}"}}}}}}"#)
    };
    let said = fail(&mut push(&workspace, &[&tag]), 1);
    assert!(said.contains("`$DOCKER_AUTH_CONFIG` (nothing there)"), "{said}");
    let said = fail(push(&workspace, &[&tag]).env("DOCKER_AUTH_CONFIG", entry("wr0ng")), 1);
    assert!(said.contains("401") && said.contains("from `$DOCKER_AUTH_CONFIG`") && !said.contains("wr0ng"), "{said}");
    let said = fail(push(&workspace, &[&tag]).env("DOCKER_AUTH_CONFIG", "{\"auths\": hush"), 1);
    assert!(said.contains("`$DOCKER_AUTH_CONFIG` is not valid (line 1)") && !said.contains("hush"), "{said}");
    // It comes before docker's file, and after one that is named.
    let mut both = push(&workspace, &[&tag]);
    configure(&workspace, &mut both, &entry("wr0ng"));
    succeed(both.env("DOCKER_AUTH_CONFIG", entry(PASSWORD)));
    let named = workspace.file("named.json", entry("wr0ng"));
    let tag = format!("{host}/team/env:2");
    let mut both = push(&workspace, &[&tag]);
    let said = fail(both.env("DOCKER_AUTH_CONFIG", entry(PASSWORD)).env("REGISTRY_AUTH_FILE", named), 1);
    assert!(said.contains("named.json"), "{said}");
}

#[test]
fn half_a_pair_names_the_empty_variable() {
    let (workspace, registry) = (workspace(), LocalRegistry::start(Mode::Auth));
    let tag = format!("{}/team/env:1", registry.host());
    for (set, empty) in [("USERNAME", "PASSWORD"), ("PASSWORD", "USERNAME")] {
        let [set, empty] = [set, empty].map(|name| format!("CONDAIMG_REGISTRY_{name}"));
        let said = fail(push(&workspace, &[&tag]).env(&set, "hush-hush").env(&empty, ""), 1);
        assert!(said.contains(&format!("{empty} is empty")) && !said.contains("hush-hush"), "{said}");
    }
}
