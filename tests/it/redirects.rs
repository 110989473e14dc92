//! Redirects: of what is written to a registry, of token servers, of channels; and what servers say beside answers.

use crate::common::proxy::{Deed, Gate, answer};
use crate::common::registry::{Fake, LocalRegistry, Mode, PASSWORD, USER};
use crate::common::token_server::{IDENTITY, Who, basic};
use crate::common::{Workspace, fail, run_output, succeed};
use crate::push::{push, workspace};
use crate::registry::{client, options, reference, told};
use condaimg::model::{Blob, BlobSource};
use condaimg::registry::RegistryOptions;
use condaimg::util::Digest;
use condaimg::util::report::Silent;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Where clouds keep secrets of a machine.
const METADATA_SERVICE: &str = "https://169.254.169.254/latest";

/// A layer in a file.
fn layer(workspace: &Workspace, size: usize) -> Blob {
    let bytes: Vec<u8> = (0..size).map(|index| (index % 251) as u8).collect();
    let path = workspace.file("layer", &bytes);
    let media_type = "application/vnd.oci.image.layer.v1.tar".to_owned();
    Blob { media_type, digest: Digest::of(&bytes), size: size as u64, source: BlobSource::File(path) }
}

/// Passes requests on, but redirects those by these methods to another host; asks for a password.
fn redirecting(upstream: &str, other: &Gate, methods: &'static [&'static str], status: u16) -> Gate {
    let other = other.host.clone();
    Gate::start(upstream, move |_, head| {
        if !head.headers.contains_key("authorization") {
            return answer(head, 401, vec![("www-authenticate", "Basic realm=\"test\"".to_owned())]);
        }
        match methods.contains(&head.method.as_str()) {
            // At once: whoever redirects need not have heard it all.
            true => Deed::Answer {
                after: 0,
                status,
                headers: vec![("location", format!("http://{other}{}", head.path))],
                body: Vec::new(),
            },
            false => Deed::Pass,
        }
    })
}

#[tokio::test]
async fn redirected_writes_arrive_without_credentials() {
    let (server, workspace) = (LocalRegistry::start(Mode::Plain), Workspace::new());
    for (number, (methods, status, chunk_size)) in [
        (["POST"].as_slice(), 308, None),
        (&["PUT"], 307, None),
        (&["PUT", "PATCH"], 307, Some(8 << 20)),
        (&["POST", "PATCH"], 308, Some(8 << 20)),
    ]
    .into_iter()
    .enumerate()
    {
        let storage = Gate::start(&server.host(), |_, _| Deed::Pass);
        let gate = redirecting(&server.host(), &storage, methods, status);
        let target = reference(&gate.host, &format!("team/env{number}:1"));
        let login = Some((USER.to_owned(), PASSWORD.to_owned()));
        let registry = client(RegistryOptions { login, login_hosts: vec![gate.host.clone()], chunk_size, ..options() });
        let blob = layer(&workspace, 24 << 20);
        registry.push_blob(&target, &blob, &[], &Silent).await.expect("pushes");
        let manifest = format!(r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[]}}"#);
        registry.push_manifest(&target, INDEX, manifest.as_bytes()).await.expect("pushes");

        let there = client(options());
        let direct = reference(&server.host(), &format!("team/env{number}:1"));
        assert!(there.has_blob(&direct, &blob).await.expect("asks"), "{methods:?}");
        assert_eq!(there.tag_digest(&direct).await.expect("asks"), Some(Digest::of(&manifest)), "{methods:?}");
        for method in methods {
            assert!(storage.count(method, "/v2/") > 0, "{method}");
        }
        let seen = storage.requests();
        assert!(seen.iter().all(|head| !head.headers.contains_key("authorization")), "{methods:?}");
        assert!(gate.requests().iter().any(|head| head.headers.contains_key("authorization")));
    }
}

#[tokio::test]
async fn hostile_redirects_of_writes_are_refused() {
    let (server, workspace) = (LocalRegistry::start(Mode::Plain), Workspace::new());
    for method in ["POST", "PUT"] {
        let gate = Gate::start(&server.host(), move |_, head| match head.method == method {
            true => answer(head, 307, vec![("location", METADATA_SERVICE.to_owned())]),
            false => Deed::Pass,
        });
        let target = reference(&gate.host, "team/env:1");
        let blob = layer(&workspace, 1 << 20);
        let error = client(options()).push_blob(&target, &blob, &[], &Silent).await.expect_err(method);
        let text = told(&error);
        for part in [&gate.host, "169.254.169.254", "link-local", "--insecure-registry"] {
            assert!(text.contains(part), "{method}: {part}: {text}");
        }
        assert_eq!(gate.count(method, "/v2/team/env/blobs/"), 1, "asked once");
    }
}

/// A registry whose token server is behind another one, which redirects: to itself under another path, or away.
struct Detour {
    registry: LocalRegistry,
    /// What is pushed to.
    gate: Gate,
    /// The token server that the registry names.
    tokens: Gate,
}

impl Detour {
    fn new(away: bool) -> Self {
        let registry = LocalRegistry::start(Mode::Token);
        let realm = registry.tokens().realm();
        let server = realm.trim_start_matches("http://").split('/').next().expect("a host").to_owned();
        let elsewhere = server.clone();
        let tokens = Gate::start(&server, move |host, head| match head.path.strip_prefix("/token") {
            Some(query) => {
                let host = if away { &elsewhere } else { host };
                answer(head, 302, vec![("location", format!("http://{host}/moved{query}"))])
            }
            None => Deed::Pass,
        });
        let named = tokens.host.clone();
        let gate = Gate::start(&registry.host(), move |_, _| {
            let (realm, named) = (realm.clone(), named.clone());
            Deed::Change(Box::new(move |answer| {
                let challenge = answer.get("www-authenticate").map(str::to_owned);
                let other = challenge.map(|text| text.replace(&realm, &format!("http://{named}/token")));
                answer.set("www-authenticate", other);
            }))
        });
        Self { registry, gate, tokens }
    }

    /// Pushes with an entry of a credential file.
    fn push(&self, workspace: &Workspace, entry: &str) -> std::process::Command {
        let tag = format!("{}/team/env:1", self.gate.host);
        let file = workspace.file("auth.json", format!(r#"{{"auths": {{"{}": {{{entry}}}}}}}"#, self.gate.host));
        let mut push = push(workspace, &[&tag]);
        push.env("REGISTRY_AUTH_FILE", file);
        push
    }
}

fn password() -> String {
    format!(r#""auth": "{}""#, &basic(USER, PASSWORD)["Basic ".len()..])
}

#[test]
fn token_server_may_redirect_to_itself() {
    let workspace = workspace();
    for (entry, who) in [(password(), Who::Password), (format!(r#""identitytoken": "{IDENTITY}""#), Who::Identity)] {
        let detour = Detour::new(false);
        succeed(&mut detour.push(&workspace, &entry));
        let method = if who == Who::Identity { "POST" } else { "GET" };
        assert!(detour.tokens.count(method, "/token") > 0 && detour.tokens.count(method, "/moved") > 0);
        assert!(detour.registry.tokens().asked().iter().all(|asked| asked.who == who), "{who:?}");
    }
}

#[test]
fn token_redirect_elsewhere_gets_no_credentials() {
    let workspace = workspace();
    for (entry, others) in [(password(), 1), (format!(r#""identitytoken": "{IDENTITY}""#), 0)] {
        let detour = Detour::new(true);
        detour.registry.tokens().limit("team/env", "");
        let said = fail(&mut detour.push(&workspace, &entry), 1);
        assert!(said.contains(&detour.tokens.host) && said.contains("another server"), "{said}");
        assert!(!said.contains(PASSWORD) && !said.contains(IDENTITY), "{said}");
        let asked = detour.registry.tokens().asked();
        assert!(asked.iter().all(|asked| asked.who == Who::Anonymous), "{asked:?}");
        assert!(asked.len() >= others, "{asked:?}");
    }
}

#[test]
fn warning_of_a_registry_is_told_once() {
    let (registry, workspace) = (LocalRegistry::start(Mode::Plain), workspace());
    let gate = Gate::start(&registry.host(), |_, _| {
        Deed::Change(Box::new(|answer| {
            answer.headers.push(("Warning".to_owned(), r#"299 - "this registry goes away in May""#.to_owned()));
            answer.headers.push(("Warning".to_owned(), r#"110 - "stale""#.to_owned()));
        }))
    });
    let tag = format!("{}/team/env:1", gate.host);
    let output = run_output(&mut push(&workspace, &[&tag]));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(said.matches("this registry goes away in May").count(), 1, "{said}");
    assert!(said.contains(&gate.host) && !said.contains("stale"), "{said}");
    assert!(gate.requests().len() > 5);
}

#[test]
fn channel_redirect_takes_no_credentials_along() {
    let bench = crate::condarc::Bench::new("team");
    let files = bench.server.url.clone();
    let wanted = basic("me", "hush-hush");
    let front = Fake::start(move |_, request| {
        if request.headers.get("authorization") != Some(&wanted) {
            return (401, Vec::new(), Vec::new());
        }
        let path = request.line.split(' ').nth(1).unwrap_or_default();
        (302, vec![("location", format!("{files}{path}"))], Vec::new())
    });
    bench.environment(&[&format!("http://me:hush-hush@{}/team", front.host)], &["lib"]);
    succeed(&mut bench.lock());
    let seen = bench.server.seen("/team/");
    assert!(seen.iter().any(|seen| seen.path.ends_with(".conda")), "{seen:?}");
    assert!(seen.iter().all(|seen| seen.authorization.is_none()), "{seen:?}");

    let hostile = Fake::start(|_, _| (302, vec![("location", METADATA_SERVICE.to_owned())], Vec::new()));
    bench.environment(&[&format!("http://{}/team", hostile.host)], &["lib"]);
    bench.forget();
    let said = fail(&mut bench.lock(), 1);
    assert!(said.contains(&hostile.host) && said.contains("link-local"), "{said}");
}
