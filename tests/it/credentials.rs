//! Logging in, certificates and proxies: real registries in all modes, and what must never be seen.

use std::time::Duration;

use crate::common::registry::{LocalRegistry, Mode, PASSWORD, USER};
use crate::common::token_server::{IDENTITY, SERVICE, Who};
use condaimg::model::Blob;
use condaimg::registry::{Reference, Registry, RegistryOptions, RetryPolicy, Sent};
use condaimg::util::Error;
use condaimg::util::report::Silent;

const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// Does not read this machine's credential files, and does not wait long.
fn options() -> RegistryOptions {
    RegistryOptions {
        auth_files: Some(Vec::new()),
        retry: RetryPolicy { attempts: 2, base: Duration::from_millis(20), ..RetryPolicy::default() },
        ..RegistryOptions::default()
    }
}

/// The options of the registry's only user.
fn user() -> RegistryOptions {
    RegistryOptions { login: Some((USER.into(), PASSWORD.into())), ..options() }
}

fn client(options: RegistryOptions) -> Registry {
    Registry::new(options).expect("a client")
}

fn reference(host: &str, name: &str) -> Reference {
    Registry::parse(&format!("{host}/{name}")).expect("a reference")
}

fn blob(content: &str) -> Blob {
    Blob::from_bytes(CONFIG, content.as_bytes().to_vec())
}

/// All that a user would see of an error.
fn told(error: &Error) -> String {
    let text = format!("{}\n{}", error.chain().join(": "), error.hints().join("\n"));
    assert!(!text.contains(PASSWORD) && !text.contains(IDENTITY), "{text}");
    text
}

#[tokio::test]
async fn a_token_server_is_asked_once_and_for_what_is_needed() {
    let server = LocalRegistry::start(Mode::Token);
    let target = reference(&server.host(), "team/env:1");
    let registry = client(user());
    for content in ["a", "b"] {
        assert_eq!(registry.push_blob(&target, &blob(content), &[], &Silent).await.expect("pushes"), Sent::Uploaded(1));
    }
    let asked = server.tokens().asked();
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert_eq!(asked[0].who, Who::Password);
    assert_eq!(asked[0].service, SERVICE);
    assert_eq!(asked[0].scopes, ["repository:team/env:pull,push"]);
    let text = told(&client(options()).push_blob(&target, &blob("c"), &[], &Silent).await.expect_err("refused"));
    assert!(text.contains("no credentials found"), "{text}");
}

/// A credential file with an identity token for the registry.
fn identity_file(folder: &tempfile::TempDir, host: &str, token: &str) -> RegistryOptions {
    let path = folder.path().join(format!("{token}.json"));
    // As `docker login` writes it: a user without a password, `<token>:`.
    let entry = format!(r#"{{"auth": "PHRva2VuPjo=", "identitytoken": "{token}"}}"#);
    fs_err::write(&path, format!(r#"{{"auths": {{"{host}": {entry}}}}}"#)).expect("writes");
    RegistryOptions { auth_files: Some(vec![path]), ..options() }
}

#[tokio::test]
async fn identity_tokens_are_changed_into_tokens() {
    let server = LocalRegistry::start(Mode::Token);
    let folder = tempfile::tempdir().expect("a folder");
    let target = reference(&server.host(), "team/env:1");
    let registry = client(identity_file(&folder, &server.host(), IDENTITY));
    assert_eq!(registry.push_blob(&target, &blob("a"), &[], &Silent).await.expect("pushes"), Sent::Uploaded(1));
    let asked = server.tokens().asked();
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert_eq!((asked[0].who, asked[0].service.as_str()), (Who::Identity, SERVICE));
    assert_eq!(asked[0].scopes, ["repository:team/env:pull,push"]);

    let wrong = client(identity_file(&folder, &server.host(), "wr0ng"));
    let text = told(&wrong.push_blob(&target, &blob("b"), &[], &Silent).await.expect_err("refused"));
    assert!(text.contains("with the identity token from") && text.contains("wr0ng.json"), "{text}");
}

#[tokio::test]
async fn everybody_may_pull_what_is_open_and_nobody_more_than_is_granted() {
    let server = LocalRegistry::start(Mode::Token);
    let folder = tempfile::tempdir().expect("a folder");
    let store = condaimg::store::Store::open(folder.path()).expect("opens");
    let open = reference(&server.host(), "open/env:1");
    let blob = blob("a");
    client(user()).push_blob(&open, &blob, &[], &Silent).await.expect("pushes");

    let nobody = client(options());
    let text = told(&nobody.fetch_blob(&open, &blob.digest, 1, &store).await.expect_err("refused"));
    assert!(text.contains("pull from `open/env`") && text.contains("no credentials found"), "{text}");
    server.tokens().open("open/env");
    let nobody = client(options());
    nobody.fetch_blob(&open, &blob.digest, 1, &store).await.expect("fetches");
    assert_eq!(server.blob_downloads(), [(blob.digest.to_string(), 1)]);
    assert_eq!(server.tokens().asked().last().expect("asked").who, Who::Anonymous);

    server.tokens().limit("shared/env", "pull");
    let shared = reference(&server.host(), "shared/env:1");
    let text = told(&client(user()).push_blob(&shared, &blob, &[], &Silent).await.expect_err("refused"));
    for part in
        [&server.host(), "push to `shared/env`", "401", &format!("for `{USER}` from CONDAIMG_REGISTRY_USERNAME")]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[tokio::test]
async fn tokens_are_replaced_when_they_end() {
    let server = LocalRegistry::start(Mode::Token);
    let target = reference(&server.host(), "team/env:1");
    // What the server does not tell: the registry's 401 does.
    server.tokens().set_life(None, 5);
    let registry = client(user());
    registry.push_blob(&target, &blob("a"), &[], &Silent).await.expect("pushes");
    tokio::time::sleep(Duration::from_secs(7)).await;
    registry.push_blob(&target, &blob("b"), &[], &Silent).await.expect("pushes");
    assert_eq!(server.tokens().asked().len(), 2);
    let refused = server.refusals();
    // What it tells is heeded before the registry must refuse.
    server.tokens().set_life(Some(5), 5);
    let registry = client(user());
    registry.push_blob(&target, &blob("c"), &[], &Silent).await.expect("pushes");
    tokio::time::sleep(Duration::from_secs(7)).await;
    registry.push_blob(&target, &blob("d"), &[], &Silent).await.expect("pushes");
    assert_eq!(server.tokens().asked().len(), 4);
    // The greeting of the second client, which found out what the registry demands.
    assert_eq!(server.refusals(), refused + 1);
}

#[tokio::test]
async fn a_registry_keeps_its_data_where_it_is_told_and_may_be_read_only() {
    let data = tempfile::tempdir().expect("a folder");
    let mut server = LocalRegistry::start_at(Mode::Plain, Some(data.path()));
    let target = reference(&server.host(), "team/env:1");
    client(options()).push_blob(&target, &blob("a"), &[], &Silent).await.expect("pushes");
    assert!(data.path().join("docker/registry/v2/repositories/team/env").is_dir());
    server.set_read_only(true);
    assert_eq!(client(options()).push_blob(&target, &blob("a"), &[], &Silent).await.expect("asks"), Sent::Existed);
    let text = told(&client(options()).push_blob(&target, &blob("b"), &[], &Silent).await.expect_err("refused"));
    assert!(text.contains("405"), "{text}");
    server.set_read_only(false);
    client(options()).push_blob(&target, &blob("b"), &[], &Silent).await.expect("pushes");
}
