//! Pushes in one piece.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::{Image, Row, attempts, client, deletes, left_behind, options, pushed, reference, times};
use crate::common::proxy::{Answer, Cut, Cutter, Deed, Gate, Head, Sender, answer};
use crate::common::registry::{LocalRegistry, Mode, PASSWORD, USER};
use crate::common::{SmallDisk, program, succeed};
use condaimg::registry::{Patience, RegistryOptions, RetryPolicy, Sent};
use condaimg::util::report::{Outcome, Progress, Silent};
use tempfile::TempDir;

/// Bytes of the usual layer.
const SIZE: usize = 8 << 20;

pub async fn rows() -> Vec<Row> {
    vec![
        Row {
            fault: "429 with `Retry-After`",
            produced: "a proxy answers the first POST so, with 1 s",
            outcome: busy().await,
        },
        Row { fault: "503 once", produced: "a proxy answers the first HEAD so", outcome: unavailable().await },
        Row {
            fault: "502 after half a body",
            produced: "a proxy answers the first PUT so in the middle of it",
            outcome: early().await,
        },
        Row {
            fault: "connection closed in mid-upload",
            produced: "a TCP proxy ends it (FIN) after 1 MiB",
            outcome: cut(Cut::Fin).await,
        },
        Row {
            fault: "connection reset in mid-upload",
            produced: "a TCP proxy resets it (RST) after 1 MiB",
            outcome: cut(Cut::Reset).await,
        },
        Row {
            fault: "stall in mid-upload",
            produced: "a TCP proxy passes on nothing more after 1 MiB; patience is 3 s here, 60 s by default",
            outcome: cut(Cut::Stall).await,
        },
        Row {
            fault: "registry killed in mid-upload",
            produced: "kill -9, started again after 1 s",
            outcome: killed().await,
        },
        Row { fault: "registry's disk full", produced: "its folder is a tmpfs of 4 MiB", outcome: full_disk().await },
        Row {
            fault: "token refused in mid-push",
            produced: "a proxy takes the first token until a blob arrives",
            outcome: revoked().await,
        },
        Row {
            fault: "tokens that expire in mid-push",
            produced: "a proxy takes each token for 1 s, and 0.3 s for each of 8 chunks",
            outcome: short_lived().await,
        },
        Row { fault: "two pushes of one image at once", produced: "two clients", outcome: two_at_once().await },
        Row {
            fault: "blob not in the repository to mount from",
            produced: "the registry answers the mount with 202",
            outcome: unmountable().await,
        },
        Row {
            fault: "mount refused",
            produced: "a proxy answers requests for mounts with 403",
            outcome: mount_refused().await,
        },
        Row {
            fault: "relative `Location`",
            produced: "a proxy makes it one",
            outcome: location(|host, answer| {
                let relative = answer.get("location").map(|url| url.replace(&format!("http://{host}"), ""));
                answer.set("location", relative);
            })
            .await,
        },
        Row {
            fault: "missing `Location`",
            produced: "a proxy takes it away",
            outcome: location(|_, answer| answer.set("location", None)).await,
        },
        Row {
            fault: "hostile `Location`",
            produced: "a proxy sends uploads to the address of a cloud's metadata service",
            outcome: location(|_, answer| answer.set("location", Some("https://169.254.169.254/latest".into()))).await,
        },
        Row {
            fault: "hostile token server",
            produced: "a proxy demands tokens from the same address",
            outcome: realm().await,
        },
        Row {
            fault: "damaged copy in the registry",
            produced: "the blob's file is cut off in the registry's folder",
            outcome: damaged().await,
        },
        Row {
            fault: "blob not found while somebody else pushes it",
            produced: "a proxy answers the first PUT of the manifest with `MANIFEST_BLOB_UNKNOWN`",
            outcome: unsettled().await,
        },
        Row { fault: "wrong password", produced: "htpasswd", outcome: unauthorized().await },
        Row { fault: "500 for good", produced: "a proxy answers every PUT so", outcome: broken().await },
        Row {
            fault: "failures without end",
            produced: "the same, for blob after blob with a budget of 5",
            outcome: budget().await,
        },
    ]
}

/// Pushes through a gate with this rule.
async fn through(
    image: &Image,
    options: RegistryOptions,
    rule: impl Fn(&str, &Head) -> Deed + Send + Sync + 'static,
) -> (LocalRegistry, Gate, String) {
    let server = LocalRegistry::start(Mode::Plain);
    let gate = Gate::start(&server.host(), rule);
    let outcome = match image.push(&client(options), &gate.host, &[]).await {
        Ok(_) => {
            let attempts = gate.count("POST", "/blobs/uploads/") - 1;
            format!("{}, {}, {}", pushed(attempts), image.verify(&server), left_behind(&server).await)
        }
        Err(error) => image.told(&error, &[&gate.host]),
    };
    (server, gate, outcome)
}

/// A rule that gives the first request of a kind something else.
fn once(
    method: &'static str,
    deed: impl Fn(&Head) -> Deed + Send + Sync,
) -> impl Fn(&str, &Head) -> Deed + Send + Sync {
    let count = AtomicUsize::new(0);
    move |_, head| match head.is(method, "/blobs/") && count.fetch_add(1, Ordering::Relaxed) == 0 {
        true => deed(head),
        false => Deed::Pass,
    }
}

async fn busy() -> String {
    let began = Instant::now();
    let rule = once("POST", |head| answer(head, 429, vec![("retry-after", "1".into())]));
    let (_server, _gate, outcome) = through(&Image::new(SIZE), options(), rule).await;
    let waited = if began.elapsed() >= Duration::from_secs(1) { "as asked for" } else { "too early" };
    format!("{outcome}; tried again {waited}")
}

async fn unavailable() -> String {
    let (_server, gate, outcome) =
        through(&Image::new(SIZE), options(), once("HEAD", |head| answer(head, 503, vec![]))).await;
    format!("{outcome}; asked {}", times(gate.count("HEAD", "/blobs/") - 1))
}

async fn unsettled() -> String {
    let refused = AtomicUsize::new(0);
    let rule = move |_: &str, head: &Head| match head.is("PUT", "/manifests/") {
        true if refused.fetch_add(1, Ordering::Relaxed) == 0 => Deed::Answer {
            after: head.length(),
            status: 404,
            headers: Vec::new(),
            body: br#"{"errors": [{"code": "MANIFEST_BLOB_UNKNOWN", "message": "blob unknown to registry"}]}"#.to_vec(),
        },
        _ => Deed::Pass,
    };
    let (_server, gate, outcome) = through(&Image::new(SIZE), options(), rule).await;
    format!("{outcome}; manifest sent {}", times(gate.count("PUT", "/manifests/")))
}

async fn early() -> String {
    let rule = once("PUT", |head| Deed::Answer {
        after: head.length() / 2,
        status: 502,
        headers: Vec::new(),
        body: b"<html>bad gateway</html>".to_vec(),
    });
    // More than fits into the buffers on the way.
    through(&Image::new(64 << 20), options(), rule).await.2
}

async fn cut(how: Cut) -> String {
    let (server, image) = (LocalRegistry::start(Mode::Plain), Image::new(64 << 20));
    let cutter = Cutter::start(&server.host(), Sender::Client, 1 << 20, how, 1);
    let patience = Patience { idle: Duration::from_secs(3), ..options().patience };
    image.push(&client(RegistryOptions { patience, ..options() }), &cutter.host, &[]).await.expect("pushes");
    assert_eq!(cutter.cuts(), 1);
    format!("{}, {}, {}", pushed(attempts(&server)), image.verify(&server), deletes(&server).await)
}

/// Kills the registry when the first bytes have left, and starts it again after a while.
struct Killer {
    server: Arc<Mutex<LocalRegistry>>,
    sent: AtomicU64,
}

impl Progress for Killer {
    fn grow(&self, _bytes: u64) {}
    fn advance(&self, bytes: u64) {
        if self.sent.fetch_add(bytes, Ordering::Relaxed) == 0 {
            self.server.lock().expect("locks").kill();
            let server = Arc::clone(&self.server);
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_secs(1));
                server.lock().expect("locks").restart();
            });
        }
    }
    fn item(&self, _name: &str) {}
    fn finish(&self, _outcome: &Outcome) {}
}

async fn killed() -> String {
    let server = LocalRegistry::start(Mode::Plain);
    let host = server.host();
    let image = sparse(200 << 20);
    let killer = Killer { server: Arc::new(Mutex::new(server)), sent: AtomicU64::new(0) };
    let retry = RetryPolicy { attempts: 100, ..options().retry };
    let registry = client(RegistryOptions { retry, ..options() });
    let sent = registry.push_blob(&reference(&host, "team/env:1"), &image.layer, &[], &killer).await;
    assert_eq!(sent.expect("pushes"), Sent::Uploaded(image.layer.size));
    assert_eq!(killer.sent.load(Ordering::Relaxed), image.layer.size, "each byte is told once");
    image.push(&registry, &host, &[]).await.expect("pushes");
    let server = killer.server.lock().expect("locks");
    format!("{}, {}", pushed(attempts(&server)), image.verify(&server))
}

/// An image with a layer of so many zeros.
fn sparse(size: u64) -> Image {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("layer");
    fs_err::File::create(&path).and_then(|file| file.set_len(size)).expect("makes");
    let (digest, _) = condaimg::util::Hasher::drain(fs_err::File::open(&path).expect("opens")).expect("reads");
    let source = condaimg::model::BlobSource::File(path);
    Image::of(condaimg::model::Blob { media_type: super::LAYER.into(), digest, size, source }, folder)
}

async fn full_disk() -> String {
    let (server, disk, image) = (LocalRegistry::start(Mode::Plain), SmallDisk::mount("4m"), Image::new(64 << 20));
    let _ = fs_err::remove_dir_all(server.data());
    std::os::unix::fs::symlink(disk.path(), server.data()).expect("links");
    let error = image.push(&client(options()), &server.host(), &[]).await.expect_err("is full");
    let told = format!("{}; {}", image.told(&error, &[&server.host()]), deletes(&server).await);
    succeed(program("mount", "mount").args(["-o", "remount,size=256m"]).arg(disk.path()));
    image.push(&client(options()), &server.host(), &[]).await.expect("pushes");
    format!("{told}; pushed once there is room, {}", image.verify(&server))
}

/// A token server and a registry in one: tokens are numbered, and `good` says which the registry takes.
fn with_tokens(host: &str, head: &Head, given: &AtomicUsize, life: u64, good: impl Fn(usize) -> bool) -> Deed {
    let who = head.headers.get("authorization").map(String::as_str).unwrap_or_default();
    if head.path.starts_with("/token") {
        let number = given.fetch_add(1, Ordering::Relaxed) + 1;
        let body = format!(r#"{{"token":"t{number}","expires_in":{life}}}"#).into_bytes();
        let status = if who.starts_with("Basic ") { 200 } else { 401 };
        return Deed::Answer { after: 0, status, headers: Vec::new(), body };
    }
    if who.strip_prefix("Bearer t").and_then(|number| number.parse().ok()).is_some_and(good) {
        return Deed::Pass;
    }
    let demand = format!(r#"Bearer realm="http://{host}/token",service="r",scope="repository:team/env:pull,push""#);
    answer(head, 401, vec![("www-authenticate", demand)])
}

async fn revoked() -> String {
    let login = Some((USER.to_owned(), PASSWORD.to_owned()));
    let (given, oldest) = (AtomicUsize::new(0), AtomicUsize::new(1));
    let rule = move |host: &str, head: &Head| {
        if head.is("PUT", "/blobs/") {
            oldest.store(2, Ordering::Relaxed);
        }
        with_tokens(host, head, &given, 300, |number| number >= oldest.load(Ordering::Relaxed))
    };
    let (_server, gate, outcome) = through(&Image::new(SIZE), RegistryOptions { login, ..options() }, rule).await;
    format!("{outcome}; {} tokens used", gate.count("GET", "/token"))
}

async fn short_lived() -> String {
    let login = Some((USER.to_owned(), PASSWORD.to_owned()));
    let (given, births) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let rule = move |host: &str, head: &Head| {
        let mut births = births.lock().expect("locks");
        if head.path.starts_with("/token") {
            births.push(Instant::now());
        }
        let good = |number: usize| births.get(number - 1).is_some_and(|birth| birth.elapsed() < Duration::from_secs(1));
        let deed = with_tokens(host, head, &given, 1, good);
        drop(births);
        if head.method == "PATCH" {
            std::thread::sleep(Duration::from_millis(300));
        }
        deed
    };
    let options = RegistryOptions { login, chunk_size: Some(1 << 20), ..options() };
    let (_server, gate, outcome) = through(&Image::new(SIZE), options, rule).await;
    // Eight chunks take 2.4 s.
    let renewed = if gate.count("GET", "/token") > 2 { "renewed" } else { "not renewed" };
    format!("{outcome}; token {renewed}")
}

async fn two_at_once() -> String {
    let (server, image) = (LocalRegistry::start(Mode::Plain), Image::new(64 << 20));
    let [one, other] = [client(options()), client(options())];
    let host = server.host();
    let (one, other) = tokio::join!(image.push(&one, &host, &[]), image.push(&other, &host, &[]));
    one.and(other).expect("both push");
    format!("both pushed, {}, {}", image.verify(&server), left_behind(&server).await)
}

async fn unmountable() -> String {
    let (server, image) = (LocalRegistry::start(Mode::Plain), Image::new(SIZE));
    let from = [reference(&server.host(), "team/other:1")];
    let sent = image.push(&client(options()), &server.host(), &from).await.expect("pushes");
    assert_eq!(sent, Sent::Uploaded(SIZE as u64));
    let uploads = server.requests("POST /v2/team/env/blobs/uploads/") - 1;
    let mounts = server.requests("POST /v2/team/env/blobs/uploads/?mount=");
    assert_eq!(mounts, 1);
    let same = if uploads == mounts { "in the upload that it opened instead" } else { "in another upload" };
    format!("{} {same}, {}, {}", pushed(uploads), image.verify(&server), left_behind(&server).await)
}

async fn mount_refused() -> String {
    let (server, image) = (LocalRegistry::start(Mode::Plain), Image::new(SIZE));
    let gate = Gate::start(&server.host(), |_, head| match head.is("POST", "mount=") {
        true => answer(head, 403, Vec::new()),
        false => Deed::Pass,
    });
    let registry = client(options());
    let from = ["a", "b", "c"].map(|name| reference(&gate.host, name));
    image.push(&registry, &gate.host, &from).await.expect("pushes");
    let asked = gate.count("POST", "mount=");
    let uploads = gate.count("POST", "/blobs/uploads/") - asked - 1;
    // What is refused once is not asked for again.
    let other = Image::new(SIZE + 1);
    other.push(&registry, &gate.host, &from[..2]).await.expect("pushes");
    assert_eq!(gate.count("POST", "mount="), asked);
    format!(
        "{} without it, {}; {asked} of 3 repositories tried, and not again for the next blob",
        pushed(uploads),
        other.verify(&server)
    )
}

async fn location(change: impl Fn(&str, &mut Answer) + Copy + Send + Sync + 'static) -> String {
    let rule = move |host: &str, head: &Head| {
        let host = host.to_owned();
        match head.is("POST", "/blobs/uploads/") {
            true => Deed::Change(Box::new(move |answer| change(&host, answer))),
            false => Deed::Pass,
        }
    };
    through(&Image::new(SIZE), options(), rule).await.2
}

async fn realm() -> String {
    let login = Some((USER.to_owned(), PASSWORD.to_owned()));
    let demand = r#"Bearer realm="https://169.254.169.254/token",service="registry""#;
    let rule = move |_: &str, head: &Head| answer(head, 401, vec![("www-authenticate", demand.into())]);
    through(&Image::new(SIZE), RegistryOptions { login, ..options() }, rule).await.2
}

async fn damaged() -> String {
    let (server, image) = (LocalRegistry::start(Mode::Plain), Image::new(SIZE));
    image.push(&client(options()), &server.host(), &[]).await.expect("pushes");
    let hex = image.layer.digest.hex();
    let data = server.data().join(format!("docker/registry/v2/blobs/sha256/{}/{hex}/data", &hex[..2]));
    fs_err::OpenOptions::new().write(true).open(data).and_then(|file| file.set_len(100)).expect("cuts");
    let sent = server.uploads().len();
    let error = image.push(&client(options()), &server.host(), &[]).await.expect_err("is damaged");
    let again = if server.uploads().len() > sent { "sent again; " } else { "" };
    format!("{again}{}", image.told(&error, &[&server.host()]))
}

async fn unauthorized() -> String {
    let (server, image) = (LocalRegistry::start(Mode::Auth), Image::new(SIZE));
    let login = Some((USER.to_owned(), "wrong".to_owned()));
    let error = image.push(&client(RegistryOptions { login, ..options() }), &server.host(), &[]).await;
    let asked = times(server.requests("HEAD "));
    format!("{}; asked {asked}", image.told(&error.expect_err("is refused"), &[&server.host()]))
}

fn every_put(_: &str, head: &Head) -> Deed {
    if head.method == "PUT" { answer(head, 500, Vec::new()) } else { Deed::Pass }
}

async fn broken() -> String {
    let (server, _gate, outcome) = through(&Image::new(SIZE), options(), every_put).await;
    format!("{outcome}; {}", left_behind(&server).await)
}

async fn budget() -> String {
    let server = LocalRegistry::start(Mode::Plain);
    let gate = Gate::start(&server.host(), every_put);
    let retry = RetryPolicy { budget: 5, ..options().retry };
    let registry = client(RegistryOptions { retry, ..options() });
    let (target, image) = (reference(&gate.host, "team/env:1"), Image::new(SIZE));
    registry.push_blob(&target, &image.config, &[], &Silent).await.expect_err("is broken");
    let error = registry.push_blob(&target, &image.layer, &[], &Silent).await.expect_err("is broken");
    format!("{}; {} uploads for 2 blobs", image.told(&error, &[&gate.host]), gate.count("PUT", ""))
}
