//! Registries behind proxies: what goes through them, what goes past them, and whom an error names.

use std::process::Command;

use crate::common::forward_proxy::Proxy;
use crate::common::registry::{LocalRegistry, Mode, PASSWORD, USER, free_port};
use crate::common::token_server::basic;
use crate::common::{Workspace, fail, images, succeed};
use crate::push::{push, workspace};

/// The user of proxies that want one.
const PROXY_USER: &str = "proxy-user";
/// Their password, and as it stands in a URL; must never be seen in a message.
const PROXY_PASSWORD: &str = "pr0xy@pa55";
const PROXY_PASSWORD_IN_URL: &str = "pr0xy%40pa55";

/// A push by way of a proxy, to a registry by a name that only the proxy knows.
fn push_by(workspace: &Workspace, tag: &str, proxy: &str) -> Command {
    let mut push = push(workspace, &[tag]);
    for name in ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"] {
        push.env_remove(name);
    }
    push.env_remove("NO_PROXY").env_remove("no_proxy").env("HTTP_PROXY", proxy).env("HTTPS_PROXY", proxy);
    push
}

fn with_password(proxy: &Proxy) -> String {
    format!("http://{PROXY_USER}:{PROXY_PASSWORD_IN_URL}@{}", proxy.host)
}

/// What a failed push tells, which is no password.
fn told(push: &mut Command) -> String {
    let told = fail(push.arg("-vv"), 1);
    for secret in [PROXY_PASSWORD, PROXY_PASSWORD_IN_URL, &basic(PROXY_USER, PROXY_PASSWORD)["Basic ".len()..]] {
        assert!(!told.contains(secret), "{told}");
    }
    told
}

#[test]
fn plain_and_secure_registries_are_reached_through_proxies() {
    let workspace = workspace();
    let proxy = Proxy::start(Some(basic(PROXY_USER, PROXY_PASSWORD)));
    let digest = images::small().digest();

    let plain = LocalRegistry::start(Mode::Plain);
    let host = format!("registry.test:{}", plain.port);
    let tag = format!("{host}/team/env:1");
    let mut by_http = push_by(&workspace, &tag, &with_password(&proxy));
    let printed = succeed(by_http.args(["--insecure-registry", &host]));
    assert_eq!(printed, format!("{host}/team/env@{digest}\n"));
    assert_eq!(plain.requests("PUT /v2/team/env/manifests/1"), 1);
    assert!(proxy.seen()[0].starts_with(&format!("GET http://{host}/v2/ ")), "{:?}", proxy.seen());

    for mode in [Mode::Tls, Mode::TlsAuth] {
        let secure = LocalRegistry::start(mode);
        let host = format!("registry.test:{}", secure.port);
        let before = proxy.seen().len();
        let mut by_tunnel = push_by(&workspace, &format!("{host}/team/env:1"), &with_password(&proxy));
        by_tunnel.env("CONDAIMG_REGISTRY_USERNAME", USER).env("CONDAIMG_REGISTRY_PASSWORD", PASSWORD);
        succeed(by_tunnel.arg("--registry-ca").arg(secure.ca()));
        assert_eq!(secure.requests("PUT /v2/team/env/manifests/1"), 1);
        let seen = proxy.seen();
        assert!(seen.len() > before);
        assert!(seen[before..].iter().all(|line| line.starts_with(&format!("CONNECT {host} "))), "{seen:?}");
    }
}

#[test]
fn this_machine_and_what_no_proxy_lists_are_reached_directly() {
    let (workspace, registry) = (workspace(), LocalRegistry::start(Mode::Plain));
    let proxy = Proxy::start(None);
    let url = format!("http://{}", proxy.host);
    succeed(&mut push_by(&workspace, &format!("{}/team/env:1", registry.host()), &url));
    let tag = format!("registry.test:{}/team/env:1", registry.port);
    // Nobody but the proxy knows the name, and it is not asked.
    let told = told(push_by(&workspace, &tag, &url).env("NO_PROXY", "other.example,.test"));
    assert!(told.contains("cannot reach the registry `registry.test:") && !told.contains("proxy"), "{told}");
    assert_eq!(proxy.seen(), Vec::<String>::new());
}

#[test]
fn no_request_goes_in_the_clear_without_consent() {
    let (workspace, registry) = (workspace(), LocalRegistry::start(Mode::Plain));
    let proxy = Proxy::start(None);
    let host = format!("registry.test:{}", registry.port);
    let mut push = push_by(&workspace, &format!("{host}/team/env:1"), &format!("http://{}", proxy.host));
    push.env("CONDAIMG_REGISTRY_USERNAME", USER).env("CONDAIMG_REGISTRY_PASSWORD", PASSWORD);
    let told = told(&mut push);
    assert!(told.contains(&host) && told.contains("does not speak TLS"), "{told}");
    assert!(told.contains("--insecure-registry"), "{told}");
    assert_eq!(["GET ", "HEAD ", "P"].map(|method| registry.requests(method)), [0; 3]);
    let seen = proxy.seen();
    assert!(!seen.is_empty() && seen.iter().all(|line| line.starts_with(&format!("CONNECT {host} "))), "{seen:?}");
}

#[test]
fn a_proxy_that_refuses_or_is_dead_is_named_without_its_password() {
    let (workspace, registry) = (workspace(), LocalRegistry::start(Mode::Plain));
    let host = format!("registry.test:{}", registry.port);
    let tag = format!("{host}/team/env:1");
    let strict = Proxy::start(Some(basic("somebody", "else")));
    for insecure in [true, false] {
        let flags: &[&str] = if insecure { &["--insecure-registry", &host] } else { &[] };
        let refused = told(push_by(&workspace, &tag, &with_password(&strict)).args(flags));
        for part in [&format!("the proxy `http://{}`", strict.host), &host, "refuses us (407", "USER:PASSWORD@HOST"] {
            assert!(refused.contains(part), "{part}: {refused}");
        }
        let gone = format!("127.0.0.1:{}", free_port());
        let url = format!("http://{PROXY_USER}:{PROXY_PASSWORD_IN_URL}@{gone}");
        let dead = told(push_by(&workspace, &tag, &url).args(flags));
        let whole = format!("cannot reach the registry `{host}` through the proxy `http://{gone}`: connection refused");
        assert!(dead.contains(&whole) && dead.contains("NO_PROXY"), "{dead}");
    }
    // Blobs are pushed at the same time, and none is tried again.
    let most = 2 * (images::small().layers().len() + 1);
    assert!((2..=most).contains(&strict.seen().len()), "{:?}", strict.seen());
    // The proxy knows `.test` only.
    let open = Proxy::start(None);
    let refused = told(&mut push_by(&workspace, "registry.example/team/env:1", &format!("http://{}", open.host)));
    let whole = format!("the proxy `http://{}` does not connect us to the registry `registry.example`", open.host);
    assert!(refused.contains(&whole), "{refused}");
    // What should have been a `%` code ends the host, which is half of the password then.
    for url in
        [format!("http://{PROXY_USER}:12/{PROXY_PASSWORD}@{gone}", gone = open.host), "socks5://127.0.0.1:9".into()]
    {
        let odd = told(&mut push_by(&workspace, &tag, &url));
        let expected = if url.starts_with("socks") { "SOCKS" } else { "`%` codes" };
        assert!(odd.contains(expected) && !odd.contains(":12"), "{odd}");
    }
}
