//! Logging in, certificates and proxies: real registries in all modes, and what must never be seen.

use std::time::Duration;

use crate::common::certificates;
use crate::common::registry::{LocalRegistry, Mode, PASSWORD, USER};
use crate::common::token_server::{IDENTITY, SERVICE, Who};
use condaimg::model::Blob;
use condaimg::registry::{ClientCertificate, Reference, Registry, RegistryOptions, RetryPolicy, Sent};
use condaimg::util::Error;
use condaimg::util::report::Silent;

const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// Does not read this machine's credential files, and does not wait long.
fn options() -> RegistryOptions {
    RegistryOptions {
        auth_files: Some(Vec::new()),
        certificate_folders: Some(Vec::new()),
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

#[tokio::test]
async fn token_servers_without_oauth_say_so() {
    let server = LocalRegistry::start(Mode::Token);
    let folder = tempfile::tempdir().expect("a folder");
    server.tokens().refuse_posts();
    let registry = client(identity_file(&folder, &server.host(), IDENTITY));
    let target = reference(&server.host(), "team/env:1");
    let text = told(&registry.push_blob(&target, &blob("a"), &[], &Silent).await.expect_err("refused"));
    for part in [&server.host(), "takes no identity tokens", "405", "with a password"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

/// The options of the owner of the registry's client certificate.
fn owner(server: &LocalRegistry) -> RegistryOptions {
    let (certificate, key) = server.client_certificate();
    let own = ClientCertificate { host: None, certificate, key };
    RegistryOptions { ca_files: vec![server.ca()], client_certificates: vec![own], ..options() }
}

#[tokio::test]
async fn registries_that_want_a_client_certificate_get_it() {
    let server = LocalRegistry::start(Mode::MutualTls);
    let target = reference(&server.host(), "team/env:1");
    let without = RegistryOptions { client_certificates: Vec::new(), ..owner(&server) };
    let text = told(&client(without).push_blob(&target, &blob("a"), &[], &Silent).await.expect_err("refused"));
    for part in [&server.host(), "client certificate", "--registry-cert", "--registry-key", "certs.d"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let registry = client(owner(&server));
    assert_eq!(registry.push_blob(&target, &blob("a"), &[], &Silent).await.expect("pushes"), Sent::Uploaded(1));

    // One of another authority's, and one for another host.
    let other = LocalRegistry::start(Mode::MutualTls);
    let stranger = RegistryOptions { client_certificates: owner(&other).client_certificates, ..owner(&server) };
    let text = told(&client(stranger).push_blob(&target, &blob("b"), &[], &Silent).await.expect_err("refused"));
    assert!(text.contains("client certificate") && text.contains(&server.host()), "{text}");
    let mut elsewhere = owner(&server);
    elsewhere.client_certificates[0].host = Some(other.host());
    let text =
        told(&client(elsewhere.clone()).push_blob(&target, &blob("b"), &[], &Silent).await.expect_err("refused"));
    assert!(text.contains("client certificate"), "{text}");
    elsewhere.client_certificates[0].host = Some(server.host());
    client(elsewhere).push_blob(&target, &blob("b"), &[], &Silent).await.expect("pushes");

    // What is given goes before what is found.
    let folder = tempfile::tempdir().expect("a folder");
    let found = folder.path().join(server.host());
    fs_err::create_dir(&found).expect("a folder");
    let (certificate, key) = other.client_certificate();
    fs_err::copy(certificate, found.join("other.cert")).expect("copies");
    fs_err::copy(key, found.join("other.key")).expect("copies");
    let given = RegistryOptions { certificate_folders: Some(vec![folder.path().into()]), ..owner(&server) };
    client(given.clone()).push_blob(&target, &blob("c"), &[], &Silent).await.expect("pushes");
    let found = RegistryOptions { client_certificates: Vec::new(), ..given };
    let text = told(&client(found).push_blob(&target, &blob("d"), &[], &Silent).await.expect_err("refused"));
    assert!(text.contains("client certificate"), "{text}");
}

#[tokio::test]
async fn the_folders_of_docker_and_podman_hold_certificates() {
    let folder = tempfile::tempdir().expect("a folder");
    let folders = ["first", "second"].map(|name| folder.path().join(name));
    let with = || RegistryOptions { certificate_folders: Some(folders.to_vec()), ..options() };
    for mode in [Mode::Tls, Mode::TlsToken, Mode::MutualTls] {
        let server = LocalRegistry::start(mode);
        let host = server.host();
        let put = |name: &str, from: &std::path::Path| {
            let own = folders[1].join(&host);
            fs_err::create_dir_all(&own).expect("a folder");
            fs_err::copy(from, own.join(name)).expect("copies");
        };
        let target = reference(&host, "team/env:1");
        let options = || RegistryOptions { login: user().login, ..with() };
        assert!(client(options()).push_blob(&target, &blob("a"), &[], &Silent).await.is_err());
        put("ca.crt", &server.ca());
        if mode == Mode::MutualTls {
            let text =
                told(&client(options()).push_blob(&target, &blob("a"), &[], &Silent).await.expect_err("refused"));
            assert!(text.contains("client certificate"), "{text}");
            let (certificate, key) = server.client_certificate();
            put("client.cert", &certificate);
            let text = told(&client(options()).push_blob(&target, &blob("a"), &[], &Silent).await.expect_err("no key"));
            assert!(text.contains("client.cert` is without `") && text.contains("client.key"), "{text}");
            put("client.key", &key);
        }
        client(options()).push_blob(&target, &blob("a"), &[], &Silent).await.expect("pushes");
        // What is for one host is not for another.
        let other = reference(&format!("localhost:{}", server.port), "team/env:1");
        assert!(client(options()).push_blob(&other, &blob("b"), &[], &Silent).await.is_err());
        // The first folder hides the others.
        fs_err::create_dir_all(folders[0].join(&host)).expect("a folder");
        assert!(client(options()).push_blob(&target, &blob("b"), &[], &Silent).await.is_err());
    }
}

#[test]
fn keys_that_cannot_be_used_are_named_and_not_quoted() {
    let server = LocalRegistry::start(Mode::MutualTls);
    let (certificate, key) = server.client_certificate();
    let other = LocalRegistry::start(Mode::MutualTls);
    let folder = tempfile::tempdir().expect("a folder");
    let stranger = other.client_certificate().1;
    let [encrypted, missing] = ["encrypted.key", "missing.key"].map(|name| folder.path().join(name));
    let text = key.display().to_string();
    certificates::run(
        folder.path(),
        "openssl",
        "openssl",
        &["pkey", "-in", &text, "-aes256", "-passout", "pass:hush", "-out", "encrypted.key"],
    );
    let secret = fs_err::read_to_string(&stranger).expect("reads").lines().nth(1).expect("a line").to_owned();
    for (certificate, key, part) in [
        (&certificate, &stranger, "does not belong to the certificate"),
        (&certificate, &encrypted, "must be decrypted"),
        (&certificate, &missing, "missing.key"),
        (&certificate, &certificate, "holds no private key"),
        (&key, &key, "holds no certificate"),
    ] {
        let own = ClientCertificate { host: None, certificate: certificate.clone(), key: key.clone() };
        let error = Registry::new(RegistryOptions { client_certificates: vec![own], ..options() }).expect_err(part);
        let text = told(&error);
        assert!(text.contains(part) && text.contains(&key.display().to_string()), "{part}: {text}");
        assert!(!text.contains(&secret), "{text}");
    }
}
