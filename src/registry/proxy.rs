//! Proxies of the environment, and what goes wrong with them. The HTTP client reads the same variables by the same code.

use hyper_util::client::proxy::matcher::Matcher;
use reqwest::StatusCode;
use url::Url;

use super::reference::is_loopback;
use super::retry::{Again, Contact, Failure};
use crate::util::Error;

/// A proxy that a request goes through.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Proxy {
    /// Scheme, host and port; never its user and password.
    pub(super) name: String,
    /// A SOCKS proxy, which is not supported.
    pub(super) socks: bool,
}

/// The proxy for a URL.
pub(super) fn of(url: &Url) -> Option<Proxy> {
    let mut proxy = through(&Matcher::from_env(), url)?;
    // What was taken for the host is a part of the user and password.
    if let Some(variable) = misunderstood(url) {
        proxy.name = format!("${variable}");
    }
    Some(proxy)
}

fn through(matcher: &Matcher, url: &Url) -> Option<Proxy> {
    if is_loopback(url.host_str()?) {
        return None;
    }
    let proxy = matcher.intercept(&url.as_str().parse().ok()?)?;
    let name = proxy.uri().to_string().trim_end_matches('/').to_owned();
    let socks = proxy.uri().scheme_str().is_some_and(|scheme| scheme.starts_with("socks"));
    Some(Proxy { name, socks })
}

/// The variable that names a proxy for the URL in a way that is no URL, as most passwords with special characters
/// in them make it.
pub(super) fn misunderstood(url: &Url) -> Option<&'static str> {
    let names = if url.scheme() == "http" { ["HTTP_PROXY", "http_proxy"] } else { ["HTTPS_PROXY", "https_proxy"] };
    let set = |name: &&str| std::env::var(name).ok().filter(|value| !value.is_empty());
    names.into_iter().chain(["ALL_PROXY", "all_proxy"]).find(|name| set(name).is_some_and(|value| !is_url(&value)))
}

fn is_url(value: &str) -> bool {
    let rest = value.split_once("://").map_or(value, |(_, rest)| rest);
    let behind_host = rest.split_once(['/', '?', '#']).map_or("", |(_, behind)| behind);
    let matcher = || Matcher::builder().all(value.to_owned()).build();
    !behind_host.contains('@') && "http://host.invalid/".parse().is_ok_and(|uri| matcher().intercept(&uri).is_some())
}

/// No answer through a proxy.
pub(super) fn failure(doing: &str, whom: &str, proxy: &Proxy, cause: &str, contact: Contact) -> Failure {
    let name = &proxy.name;
    let problem = match cause {
        _ if proxy.socks => {
            let problem = Error::user(format!("cannot reach {whom}: the proxy `{name}` is a SOCKS proxy"));
            return problem.hint("only HTTP proxies are supported; `NO_PROXY` lists hosts that need none").into();
        }
        "tunnel error: proxy authorization required" => return refuses(whom, proxy),
        "tunnel error: unsuccessful" => Error::user(format!("the proxy `{name}` does not connect us to {whom}")),
        cause => Error::user(format!("{doing} {whom} through the proxy `{name}`: {cause}")),
    };
    let hint = "check the proxy (`HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`); `NO_PROXY` lists hosts that need none";
    Failure { error: problem.hint(hint), again: Again::Later(None), contact, code: None }
}

/// The proxy on the way wants a user and password, or others.
pub(super) fn refuses(whom: &str, proxy: &Proxy) -> Failure {
    let problem = Error::user(format!(
        "the proxy `{}`, on the way to {whom}, refuses us ({})",
        proxy.name,
        StatusCode::PROXY_AUTHENTICATION_REQUIRED
    ));
    let error = problem.hint(
        "write user and password into the proxy's variable (`HTTPS_PROXY=http://USER:PASSWORD@HOST:PORT`), special characters as `%` codes",
    );
    Failure { error, again: Again::Never, contact: Contact::None, code: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_are_named_without_their_passwords() {
        let matcher = Matcher::builder().http("http://u:hush@proxy.example:3128").https("socks5h://other.example");
        let matcher = matcher.no("direct.example").build();
        let name =
            |url: &str| through(&matcher, &Url::parse(url).expect("a URL")).map(|proxy| (proxy.name, proxy.socks));
        assert_eq!(name("http://r.example/v2/"), Some(("http://proxy.example:3128".into(), false)));
        assert_eq!(name("https://r.example/v2/"), Some(("socks5h://other.example".into(), true)));
        assert_eq!(name("http://direct.example/v2/"), None);
        assert_eq!(name("http://127.0.0.1:5000/v2/"), None);
    }

    #[test]
    fn what_is_no_proxy_is_found() {
        for value in ["http://p.example:3128", "p.example:3128", "http://u:p@p.example", "socks5://p.example"] {
            assert!(is_url(value), "{value}");
        }
        for value in ["http://u:p#q@p.example:3128", "http://u:1/q@p.example:3128", "ftp://p.example"] {
            assert!(!is_url(value), "{value}");
        }
    }
}
