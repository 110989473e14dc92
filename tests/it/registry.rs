//! The registry room against a real registry, and against a fake for faults.
#![allow(clippy::expect_used, reason = "a test may stop at the first surprise")]

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::common::proxy::{Deed, Gate, answer};
use crate::common::registry::{Fake, LocalRegistry, Mode, PASSWORD, Reply, USER, free_port};
use condaimg::model::{Blob, BlobSource};
use condaimg::registry::{Reference, Registry, RegistryOptions, RetryPolicy, Sent};
use condaimg::store::Store;
use condaimg::util::report::{Outcome, Progress, Silent};
use condaimg::util::{Digest, Error, ErrorKind};
use tempfile::TempDir;

pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// Does not read this machine's credential files, and does not wait long.
pub fn options() -> RegistryOptions {
    RegistryOptions {
        auth_files: Some(Vec::new()),
        retry: RetryPolicy { attempts: 3, base: Duration::from_millis(20), ..RetryPolicy::default() },
        ..RegistryOptions::default()
    }
}

pub fn client(options: RegistryOptions) -> Registry {
    Registry::new(options).expect("a client")
}

pub fn reference(host: &str, name: &str) -> Reference {
    Registry::parse(&format!("{host}/{name}")).expect("a reference")
}

/// All that a user would see of an error.
pub fn told(error: &Error) -> String {
    let text = format!("{}\n{}", error.chain().join(": "), error.hints().join("\n"));
    assert!(!text.contains(PASSWORD), "{text}");
    text
}

/// A layer of `size` bytes in a file.
fn layer(folder: &TempDir, size: usize) -> Blob {
    let bytes: Vec<u8> = (0..size).map(|index| (index % 251) as u8).collect();
    let path = folder.path().join("layer");
    fs_err::write(&path, &bytes).expect("writes");
    let digest = Digest::of(&bytes);
    Blob { media_type: LAYER.into(), digest, size: size as u64, source: BlobSource::File(path) }
}

/// A manifest of a config and a layer.
fn manifest(config: &Blob, layer: &Blob) -> Vec<u8> {
    let descriptor = |blob: &Blob| {
        format!(r#"{{"mediaType":"{}","digest":"{}","size":{}}}"#, blob.media_type, blob.digest, blob.size)
    };
    let (config, layer) = (descriptor(config), descriptor(layer));
    format!(r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}","config":{config},"layers":[{layer}]}}"#).into_bytes()
}

#[derive(Default)]
struct Count(AtomicU64);

impl Progress for Count {
    fn grow(&self, _bytes: u64) {}
    fn advance(&self, bytes: u64) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }
    fn item(&self, _name: &str) {}
    fn finish(&self, _outcome: &Outcome) {}
}

#[tokio::test]
async fn what_is_pushed_comes_back_and_is_not_sent_twice() {
    let server = LocalRegistry::start(Mode::Plain);
    let folder = TempDir::new().expect("a folder");
    let registry = client(options());
    let target = reference(&server.host(), "team/env:1");
    let (config, layer) = (Blob::from_bytes(CONFIG, b"{}".to_vec()), layer(&folder, 5_000_000));
    let manifest = manifest(&config, &layer);

    assert_eq!(registry.tag_digest(&target).await.expect("asks"), None);
    let count = Count::default();
    for blob in [&config, &layer] {
        assert_eq!(registry.push_blob(&target, blob, &[], &count).await.expect("pushes"), Sent::Uploaded(blob.size));
    }
    assert_eq!(count.0.load(Ordering::Relaxed), 5_000_002);
    let sent = registry.push_manifest(&target, MANIFEST, &manifest).await.expect("pushes");
    assert_eq!(sent, Sent::Uploaded(manifest.len() as u64));
    assert_eq!(registry.tag_digest(&target).await.expect("asks"), Some(Digest::of(&manifest)));

    // Once more, from another task: a HEAD for each, nothing else.
    let writes = server.requests("P");
    let again = client(options());
    let task = {
        let (target, layer, manifest) = (target.clone(), layer.clone(), manifest.clone());
        tokio::spawn(async move {
            let blob = again.push_blob(&target, &layer, &[], &Silent).await.expect("asks");
            (blob, again.push_manifest(&target, MANIFEST, &manifest).await.expect("asks"))
        })
    };
    assert_eq!(task.await.expect("ends"), (Sent::Existed, Sent::Existed));
    assert_eq!(server.requests("P"), writes);

    let by_digest = reference(&server.host(), &format!("team/env@{}", Digest::of(&manifest)));
    for reference in [&target, &by_digest] {
        let fetched = registry.manifest(reference).await.expect("fetches");
        assert_eq!((fetched.bytes.as_ref(), fetched.media_type.as_str()), (manifest.as_slice(), MANIFEST));
    }
    assert_eq!(registry.push_manifest(&by_digest, MANIFEST, &manifest).await.expect("asks"), Sent::Existed);

    let store = Store::open(folder.path()).expect("opens");
    for _ in 0..2 {
        let path = registry.fetch_blob(&target, &layer.digest, layer.size, &store).await.expect("fetches");
        assert_eq!(Digest::of(fs_err::read(path).expect("reads")), layer.digest);
    }
    assert_eq!(server.requests("GET /v2/team/env/blobs/"), 1);
}

#[tokio::test]
async fn blobs_are_mounted_from_other_repositories() {
    let server = LocalRegistry::start(Mode::Plain);
    let folder = TempDir::new().expect("a folder");
    let blob = layer(&folder, 3_000_000);
    let base = reference(&server.host(), "team/base:1");
    client(options()).push_blob(&base, &blob, &[], &Silent).await.expect("pushes");
    let requests = || ["GET ", "HEAD ", "P", "DELETE "].map(|method| server.requests(method)).iter().sum::<usize>();
    let began = requests();

    let (registry, count) = (client(options()), Count::default());
    let target = reference(&server.host(), "team/env:1");
    // The target itself and other registries are no sources.
    let sources = [target.clone(), reference("registry.example", "team/base:1"), base.clone()];
    assert_eq!(registry.push_blob(&target, &blob, &sources, &count).await.expect("mounts"), Sent::Mounted);
    let mounted = requests();
    assert_eq!(mounted - began, 3, "GET /v2/, HEAD, POST");
    assert_eq!(registry.push_blob(&target, &blob, &sources, &count).await.expect("asks"), Sent::Existed);
    assert_eq!(requests() - mounted, 1);
    assert_eq!((server.uploads().len(), count.0.load(Ordering::Relaxed)), (1, 0));
    let store = Store::open(folder.path()).expect("opens");
    registry.fetch_blob(&target, &blob.digest, blob.size, &store).await.expect("fetches");
}

#[tokio::test]
async fn a_length_that_only_head_tells_is_not_believed() {
    let server = LocalRegistry::start(Mode::Plain);
    let folder = TempDir::new().expect("a folder");
    let blob = layer(&folder, 3_000_000);
    let gate = Gate::start(&server.host(), |_, head| match head.is("HEAD", "/blobs/") {
        true => Deed::Change(Box::new(|answer| answer.set("content-length", Some("0".into())))),
        false => Deed::Pass,
    });
    let (registry, target) = (client(options()), reference(&gate.host, "team/env:1"));
    for expected in [Sent::Uploaded(blob.size), Sent::Existed] {
        assert_eq!(registry.push_blob(&target, &blob, &[], &Silent).await.expect("pushes"), expected);
    }
}

#[tokio::test]
async fn mounts_ask_for_leave_to_read_the_source() {
    let server = LocalRegistry::start(Mode::Plain);
    let folder = TempDir::new().expect("a folder");
    let blob = layer(&folder, 3_000_000);
    client(options()).push_blob(&reference(&server.host(), "base"), &blob, &[], &Silent).await.expect("pushes");
    // What a token is good for is its name.
    let gate = Gate::start(&server.host(), |host, head| {
        if let Some(query) = head.path.strip_prefix("/token?") {
            let body = format!(r#"{{"token":"{query}"}}"#).into_bytes();
            return Deed::Answer { after: 0, status: 200, headers: Vec::new(), body };
        }
        let token = head.headers.get("authorization").cloned().unwrap_or_default();
        let needed = if head.path.contains("from=base") { "base%3Apull" } else { "env%3Apull%2Cpush" };
        if token.contains(needed) {
            return Deed::Pass;
        }
        let demand = format!(r#"Bearer realm="http://{host}/token",service="s""#);
        answer(head, 401, vec![("www-authenticate", demand)])
    });
    let registry = client(options());
    let (target, base) = (reference(&gate.host, "env"), reference(&gate.host, "base"));
    let sent = registry.push_blob(&target, &blob, &[base], &Silent).await.expect("mounts");
    assert_eq!(sent, Sent::Mounted);
    let tokens: Vec<_> = gate.requests().into_iter().filter(|head| head.path.starts_with("/token")).collect();
    let scopes = tokens.iter().map(|head| head.path.trim_start_matches("/token?service=s&")).collect::<Vec<_>>();
    let own = "scope=repository%3Aenv%3Apull%2Cpush";
    assert_eq!(scopes, [own, &format!("{own}&scope=repository%3Abase%3Apull")]);
}

#[tokio::test]
async fn blobs_are_copied_between_registries() {
    let (from, to) = (LocalRegistry::start(Mode::Plain), LocalRegistry::start(Mode::Plain));
    let folder = TempDir::new().expect("a folder");
    let registry = client(options());
    let source = reference(&from.host(), "base:1");
    let mut blob = layer(&folder, 3_000_000);
    registry.push_blob(&source, &blob, &[], &Silent).await.expect("pushes");

    blob.source = BlobSource::Registry(source.to_string());
    let target = reference(&to.host(), "env:1");
    assert_eq!(registry.push_blob(&target, &blob, &[], &Silent).await.expect("copies"), Sent::Uploaded(3_000_000));
    assert_eq!(registry.push_blob(&target, &blob, &[], &Silent).await.expect("asks"), Sent::Existed);

    // In chunks, each of which is read for itself.
    let in_chunks = client(RegistryOptions { chunk_size: Some(1 << 20), ..options() });
    let other = reference(&to.host(), "chunks:1");
    assert_eq!(in_chunks.push_blob(&other, &blob, &[], &Silent).await.expect("copies"), Sent::Uploaded(3_000_000));
    assert_eq!((to.requests("PATCH "), from.requests("GET /v2/base/blobs/")), (3, 4));

    let lost = Blob { digest: Digest::of("lost"), ..blob };
    let text = told(&registry.push_blob(&target, &lost, &[], &Silent).await.expect_err("not there"));
    for part in [&from.host(), &to.host(), &lost.digest.to_string(), "BLOB_UNKNOWN"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[tokio::test]
async fn what_is_not_there_is_named() {
    let server = LocalRegistry::start(Mode::Plain);
    let folder = TempDir::new().expect("a folder");
    let registry = client(options());
    let missing = reference(&server.host(), "team/env:none");
    let error = registry.manifest(&missing).await.expect_err("not there");
    assert_eq!(error.kind(), ErrorKind::User);
    let text = told(&error);
    for part in [&missing.to_string(), "404", "MANIFEST_UNKNOWN"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let store = Store::open(folder.path()).expect("opens");
    let digest = Digest::of("none");
    let text = told(&registry.fetch_blob(&missing, &digest, 4, &store).await.expect_err("not there"));
    assert!(text.contains(&digest.to_string()) && text.contains("team/env"), "{text}");
    // A file that is not what the blob should be.
    let blob = Blob { size: 7, ..layer(&folder, 8) };
    let text = told(&registry.push_blob(&missing, &blob, &[], &Silent).await.expect_err("too long"));
    assert!(text.contains("layer") && text.contains("has 8"), "{text}");
}

#[tokio::test]
async fn credentials_are_right_wrong_or_missing() {
    let server = LocalRegistry::start(Mode::Auth);
    let target = reference(&server.host(), "team/env:1");
    let blob = Blob::from_bytes(CONFIG, b"{}".to_vec());
    let push = |options| {
        let (target, blob) = (&target, &blob);
        async move { client(options).push_blob(target, blob, &[], &Silent).await }
    };

    let none = told(&push(options()).await.expect_err("refused"));
    for part in [&server.host(), "no credentials found; looked in", &format!("podman login {}", server.host()), "401"] {
        assert!(none.contains(part), "{part}: {none}");
    }
    let file = server.credential_file("wrong");
    let wrong = RegistryOptions { auth_files: Some(vec![file.clone()]), ..options() };
    let text = told(&push(wrong).await.expect_err("refused"));
    for part in [&server.host(), &format!("for `{USER}` from `{}`", file.display()), "401"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let right = RegistryOptions { auth_files: Some(vec![server.credential_file(PASSWORD)]), ..options() };
    assert_eq!(push(right).await.expect("pushes"), Sent::Uploaded(2));

    let pair = RegistryOptions { login: Some((USER.into(), PASSWORD.into())), ..options() };
    assert!(!format!("{pair:?}").contains(PASSWORD));
    assert_eq!(push(pair.clone()).await.expect("asks"), Sent::Existed);
    // For reading only, the password is sent to nobody who was not named.
    let text = told(&client(pair.clone()).tag_digest(&target).await.expect_err("refused"));
    assert!(text.contains("is kept for the registry that is pushed to"), "{text}");
    let named = RegistryOptions { login_hosts: vec![server.host()], ..pair };
    assert_eq!(client(named).tag_digest(&target).await.expect("asks"), None);
}

#[tokio::test]
async fn own_authorities_are_trusted_when_named() {
    for mode in [Mode::Tls, Mode::TlsAuth] {
        let server = LocalRegistry::start(mode);
        let login = Some((USER.to_owned(), PASSWORD.to_owned()));
        let blob = Blob::from_bytes(CONFIG, b"{}".to_vec());
        for host in [server.host(), format!("localhost:{}", server.port)] {
            let target = reference(&host, "team/env:1");
            let stranger = client(RegistryOptions { login: login.clone(), ..options() });
            let text = told(&stranger.push_blob(&target, &blob, &[], &Silent).await.expect_err("unknown"));
            assert!(text.contains(&host) && text.contains("--registry-ca"), "{text}");
            let friend = RegistryOptions { login: login.clone(), ca_files: vec![server.ca()], ..options() };
            client(friend).push_blob(&target, &blob, &[], &Silent).await.expect("pushes");
        }
        // Another server's certificate is not good enough.
        let other = LocalRegistry::start(Mode::Tls);
        let stranger = RegistryOptions { login, ca_files: vec![other.ca()], ..options() };
        let target = reference(&server.host(), "team/env:1");
        let text = told(&client(stranger).push_blob(&target, &blob, &[], &Silent).await.expect_err("unknown"));
        assert!(text.contains("certificate"), "{text}");
    }
    let missing = RegistryOptions { ca_files: vec!["/nonexistent/ca.crt".into()], ..options() };
    assert!(told(&Registry::new(missing).expect_err("missing")).contains("/nonexistent/ca.crt"));
}

#[tokio::test]
async fn a_registry_that_is_down_is_named() {
    let host = format!("127.0.0.1:{}", free_port());
    let began = Instant::now();
    let error = client(options()).tag_digest(&reference(&host, "team/env:1")).await.expect_err("down");
    let text = told(&error);
    assert!(text.contains(&format!("cannot reach the registry `{host}`: connection refused")), "{text}");
    assert!(began.elapsed() < Duration::from_secs(2));
}

/// Kills the registry when the first bytes have left; may start it again.
struct Killer {
    server: Mutex<Option<LocalRegistry>>,
    restart: bool,
    sent: AtomicU64,
}

impl Progress for Killer {
    fn grow(&self, _bytes: u64) {}
    fn advance(&self, bytes: u64) {
        if self.sent.fetch_add(bytes, Ordering::Relaxed) == 0
            && let Some(server) = self.server.lock().expect("locks").as_mut()
        {
            if self.restart { server.restart() } else { server.kill() }
        }
    }
    fn item(&self, _name: &str) {}
    fn finish(&self, _outcome: &Outcome) {}
}

#[tokio::test]
async fn a_registry_that_dies_in_mid_push_is_named() {
    let server = LocalRegistry::start(Mode::Plain);
    let target = reference(&server.host(), "team/env:1");
    let folder = TempDir::new().expect("a folder");
    // Too long to be sent before the registry dies; its digest does not matter.
    let path = folder.path().join("big");
    fs_err::File::create(&path).and_then(|file| file.set_len(20 << 30)).expect("makes");
    let digest = Digest::of("big");
    // As one of this build's own: others are compared with their digest first.
    let blob = Blob { media_type: LAYER.into(), digest, size: 20 << 30, source: BlobSource::Packed(path) };
    let host = server.host();
    let killer = Killer { server: Mutex::new(Some(server)), restart: false, sent: AtomicU64::new(0) };
    let text = told(&client(options()).push_blob(&target, &blob, &[], &killer).await.expect_err("dies"));
    for part in [&host, "team/env", &digest.to_string(), "gave up after 3 attempts", "connection refused"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[tokio::test]
async fn a_registry_that_comes_back_gets_the_whole_blob() {
    let server = LocalRegistry::start(Mode::Plain);
    let target = reference(&server.host(), "team/env:1");
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("big");
    let size = 400 << 20;
    fs_err::File::create(&path).and_then(|file| file.set_len(size)).expect("makes");
    let (digest, _) = condaimg::util::Hasher::drain(fs_err::File::open(&path).expect("opens")).expect("reads");
    let blob = Blob { media_type: LAYER.into(), digest, size, source: BlobSource::File(path) };
    let killer = Killer { server: Mutex::new(Some(server)), restart: true, sent: AtomicU64::new(0) };
    let sent = client(options()).push_blob(&target, &blob, &[], &killer).await.expect("pushes");
    assert_eq!(sent, Sent::Uploaded(size));
    assert_eq!(killer.sent.load(Ordering::Relaxed), size, "each byte is told once");
    let server = killer.server.into_inner().expect("locks").expect("is there");
    assert_eq!(server.requests("HEAD /v2/team/env/blobs/"), 2);
}

pub fn empty(status: u16) -> Reply {
    (status, Vec::new(), Vec::new())
}

#[tokio::test]
async fn passing_faults_pass_and_relative_locations_are_followed() {
    let (posts, puts) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let fake = Fake::start(move |_, request| match request.line.split(' ').next().unwrap_or_default() {
        "GET" => empty(200),
        "HEAD" => empty(404),
        "POST" => match posts.fetch_add(1, Ordering::Relaxed) {
            0 => (503, vec![("retry-after", "1".into())], Vec::new()),
            number => (202, vec![("location", format!("../session/{number}?_state=a%2Fb%3D"))], Vec::new()),
        },
        _ => empty(if puts.fetch_add(1, Ordering::Relaxed) == 0 { 502 } else { 201 }),
    });
    let folder = TempDir::new().expect("a folder");
    let blob = layer(&folder, 700_000);
    let began = Instant::now();
    let count = Count::default();
    let sent = client(options()).push_blob(&reference(&fake.host, "env:1"), &blob, &[], &count).await.expect("pushes");
    assert_eq!((sent, count.0.load(Ordering::Relaxed)), (Sent::Uploaded(700_000), 700_000));
    assert!(began.elapsed() >= Duration::from_secs(1), "Retry-After is honoured");
    let puts: Vec<_> = fake.requests().into_iter().filter(|request| request.line.starts_with("PUT")).collect();
    assert_eq!(puts.len(), 2);
    for (number, put) in puts.iter().enumerate() {
        // Each attempt has a session of its own, and is whole.
        let expected =
            format!("PUT /v2/env/blobs/session/{}?_state=a%2Fb%3D&digest=sha256%3A{}", number + 1, blob.digest.hex());
        assert_eq!(put.line, expected);
        assert_eq!(Digest::of(&put.body), blob.digest);
    }
}

#[tokio::test]
async fn a_fault_that_stays_is_told_in_the_registrys_words() {
    let body = br#"{"errors":[{"code":"TOOMANYREQUESTS","message":"slow down"}]}"#;
    let fake = Fake::start(move |_, request| match request.line.as_str() {
        "GET /v2/" => empty(200),
        line if line.starts_with("HEAD") => empty(404),
        _ => (429, vec![("retry-after", "0".into())], body.to_vec()),
    });
    let blob = Blob::from_bytes(CONFIG, b"{}".to_vec());
    let text = told(
        &client(options()).push_blob(&reference(&fake.host, "env:1"), &blob, &[], &Silent).await.expect_err("busy"),
    );
    for part in [&fake.host, "env", &blob.digest.to_string(), "429", "TOOMANYREQUESTS: slow down", "3 attempts"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(fake.count("POST"), 3);
}

/// A registry that gives out numbered tokens, and stops to accept the first one when a blob arrives.
fn token_registry(host: &str, request: &crate::common::registry::Request, last: &AtomicUsize) -> Reply {
    let who = request.headers.get("authorization").cloned().unwrap_or_default();
    if request.line.starts_with("GET /token") {
        if !who.starts_with("Basic ") {
            return (401, Vec::new(), br#"{"details":"who are you?"}"#.to_vec());
        }
        let number = last.fetch_add(1, Ordering::Relaxed) + 1;
        return (200, Vec::new(), format!(r#"{{"token":"t{number}","expires_in":300}}"#).into_bytes());
    }
    let good = match request.line.split(' ').next() {
        Some("PUT") => who == "Bearer t2",
        _ => who == format!("Bearer t{}", last.load(Ordering::Relaxed)),
    };
    if !good {
        let scope = if request.line == "GET /v2/" { "" } else { r#",scope="repository:team/env:pull,push""# };
        let demand = format!(r#"Bearer realm="http://{host}/token?a=b",service="s, t"{scope}"#);
        return (401, vec![("www-authenticate", demand)], Vec::new());
    }
    match request.line.split(' ').next() {
        Some("HEAD") => empty(404),
        Some("POST") => (202, vec![("location", "/upload".into())], Vec::new()),
        _ => empty(201),
    }
}

#[tokio::test]
async fn tokens_are_fetched_kept_and_renewed_in_mid_push() {
    let last = AtomicUsize::new(0);
    let fake = Fake::start(move |host, request| token_registry(host, request, &last));
    let target = reference(&fake.host, "team/env:1");
    let blob = Blob::from_bytes(CONFIG, b"{}".to_vec());
    let registry = client(RegistryOptions { login: Some((USER.into(), PASSWORD.into())), ..options() });
    assert_eq!(registry.push_blob(&target, &blob, &[], &Silent).await.expect("pushes"), Sent::Uploaded(2));
    assert_eq!(registry.push_blob(&target, &blob, &[], &Silent).await.expect("pushes"), Sent::Uploaded(2));
    let tokens: Vec<_> = fake.requests().into_iter().filter(|request| request.line.contains("/token")).collect();
    assert_eq!(tokens.len(), 2, "kept until it is refused");
    for token in tokens {
        assert_eq!(token.line, "GET /token?a=b&service=s%2C+t&scope=repository%3Ateam%2Fenv%3Apull%2Cpush");
    }
    assert_eq!((fake.count("POST"), fake.count("PUT")), (3, 3), "a new session after the refusal");

    let text = told(&client(options()).push_blob(&target, &blob, &[], &Silent).await.expect_err("refused"));
    for part in [&fake.host, "push to `team/env`", "who are you?", "no credentials found"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[tokio::test]
async fn credentials_do_not_travel_to_other_hosts() {
    let folder = TempDir::new().expect("a folder");
    let storage = Fake::start(|_, request| match request.line.split(' ').next() {
        Some("GET") => (200, Vec::new(), b"blob".to_vec()),
        _ => empty(201),
    });
    let elsewhere = storage.host.clone();
    let front = Fake::start(move |_, request| {
        if !request.headers.contains_key("authorization") {
            return (401, vec![("www-authenticate", "Basic realm=x".into())], Vec::new());
        }
        match request.line.split(' ').next() {
            Some("HEAD") => empty(404),
            Some("POST") => (202, vec![("location", format!("http://{elsewhere}/up?sig=1"))], Vec::new()),
            _ => (307, vec![("location", format!("http://{elsewhere}/down?sig=2"))], Vec::new()),
        }
    });
    let target = reference(&front.host, "env:1");
    let login = Some((USER.to_owned(), PASSWORD.to_owned()));
    let registry = client(RegistryOptions { login, login_hosts: vec![front.host.clone()], ..options() });
    let blob = Blob::from_bytes(CONFIG, b"blob".to_vec());
    assert_eq!(registry.push_blob(&target, &blob, &[], &Silent).await.expect("pushes"), Sent::Uploaded(4));
    let store = Store::open(folder.path()).expect("opens");
    registry.fetch_blob(&target, &blob.digest, 4, &store).await.expect("fetches");
    // What does not have the digest does not enter the store.
    let other = Digest::of("other");
    let text = told(&registry.fetch_blob(&target, &other, 4, &store).await.expect_err("damaged"));
    assert!(text.contains(&front.host) && text.contains(&other.to_string()), "{text}");
    assert!(!store.has_blob(&other, 4));
    let requests = storage.requests();
    // One upload, one download, and one whose bytes were wrong twice.
    assert_eq!(requests.len(), 4);
    for request in requests {
        assert!(!request.headers.contains_key("authorization"), "{}", request.line);
    }
}
