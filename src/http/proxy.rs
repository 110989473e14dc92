//! Proxies: those of a configuration, then those of the environment, as curl reads them; and what goes wrong with them.

use std::collections::BTreeMap;
use std::fmt;

use hyper_util::client::proxy::matcher::Matcher;
use reqwest::StatusCode;
use url::Url;

use super::address::is_loopback;
use super::retry::{Again, Contact, Failure};
use crate::util::Error;

/// Proxies by what they are for: `http`, `https`, `all`, or these with a host (`https://host`), as in conda. Without
/// any the environment's are meant.
#[derive(Clone, Debug, Default)]
pub(crate) struct Proxies(BTreeMap<String, Option<Proxy>>);

/// A proxy that a request goes through; shown without its user and password.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Proxy {
    pub(crate) url: Url,
    /// Where it is named.
    named: String,
}

impl Proxy {
    /// A proxy as it is written, with or without a scheme; none when it is not one. `named` says where it is written.
    pub(crate) fn read(text: &str, named: String) -> Option<Self> {
        Some(Self { url: url(text)?, named })
    }

    /// Scheme, host and port; never its user and password.
    pub(crate) fn bare(&self) -> String {
        let mut bare = self.url.clone();
        // Both fail only for URLs that cannot have credentials.
        let _ = bare.set_username("");
        let _ = bare.set_password(None);
        bare.as_str().trim_end_matches('/').to_owned()
    }

    /// A SOCKS proxy, which is not supported.
    pub(crate) fn is_socks(&self) -> bool {
        self.url.scheme().starts_with("socks")
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let socks = if self.is_socks() { ", a SOCKS proxy, which is not supported" } else { "" };
        write!(f, "the proxy `{}` ({}{socks})", self.bare(), self.named)
    }
}

/// As it is displayed.
impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Proxies {
    /// Proxies by what they are for, each with none for what is to be reached directly.
    pub(crate) fn new(configured: BTreeMap<String, Option<Proxy>>) -> Self {
        let lower = |(what, proxy): (String, _)| (what.trim_end_matches('/').to_lowercase(), proxy);
        Self(configured.into_iter().map(lower).collect())
    }

    /// The proxy for a URL. This machine is reached directly, and so is what `NO_PROXY` lists.
    pub(crate) fn of(&self, url: &Url) -> Option<Proxy> {
        let (scheme, host) = (url.scheme(), url.host_str()?);
        if is_loopback(host) || is_excepted(url) {
            return None;
        }
        let names = [format!("{scheme}://{host}"), scheme.to_owned(), format!("all://{host}"), "all".to_owned()];
        match names.iter().find_map(|name| self.0.get(name)) {
            Some(configured) => configured.clone(),
            None => of_environment(scheme),
        }
    }
}

/// Whether `NO_PROXY` lists the host.
fn is_excepted(url: &Url) -> bool {
    let exceptions = variable(&["NO_PROXY", "no_proxy"]).map(|(_, list)| list).unwrap_or_default();
    let matcher = Matcher::builder().all("http://proxy.invalid").no(exceptions).build();
    url.as_str().parse().is_ok_and(|uri| matcher.intercept(&uri).is_none())
}

/// The variables that may name a proxy for a scheme, the first that counts.
fn variables(scheme: &str) -> &'static [&'static str] {
    match scheme {
        // A CGI program gets what a client sends as `Proxy:` by this name.
        "http" if std::env::var_os("REQUEST_METHOD").is_some() => &["ALL_PROXY", "all_proxy"],
        "http" => &["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"],
        _ => &["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"],
    }
}

/// The proxy of the environment. One that cannot be understood is none, as in other programs.
fn of_environment(scheme: &str) -> Option<Proxy> {
    let (name, value) = variable(variables(scheme))?;
    Proxy::read(&value, format!("`${name}`"))
}

/// The variable that names a proxy for the URL in a way that is not a URL, as most passwords with special characters
/// in them make it.
pub(crate) fn misunderstood(url: &Url) -> Option<&'static str> {
    let (name, value) = variable(variables(url.scheme()))?;
    (!is_loopback(url.host_str()?) && !is_excepted(url) && self::url(&value).is_none()).then_some(name)
}

/// What to do about it.
pub(crate) fn misunderstanding(variable: &str) -> String {
    format!("`{variable}` is not a proxy's URL; write special characters in its password as `%` codes")
}

fn variable(names: &[&'static str]) -> Option<(&'static str, String)> {
    names.iter().find_map(|name| Some((*name, std::env::var(name).ok().filter(|value| !value.is_empty())?)))
}

/// A proxy may be written without a scheme.
fn url(text: &str) -> Option<Url> {
    let text = text.trim();
    let whole = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    // What follows the host of one with a password that should have been `%` codes.
    let misread = |url: &Url| url.path().contains('@') || url.query().is_some() || url.fragment().is_some();
    let known = |url: &Url| matches!(url.scheme(), "http" | "https") || url.scheme().starts_with("socks");
    Url::parse(&whole).ok().filter(|url| url.has_host() && known(url) && !misread(url))
}

/// No answer through a proxy.
pub(crate) fn failure(doing: &str, whom: &str, proxy: &Proxy, cause: &str, contact: Contact) -> Failure {
    let name = proxy.bare();
    let problem = match cause {
        _ if proxy.is_socks() => {
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
pub(crate) fn refuses(whom: &str, proxy: &Proxy) -> Failure {
    let problem = Error::user(format!(
        "the proxy `{}`, on the way to {whom}, refuses us ({})",
        proxy.bare(),
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
    fn proxies_are_chosen_as_conda_does() {
        let proxy = |text: &str| Proxy::read(text, "here".to_owned());
        let proxies = Proxies::new(BTreeMap::from([
            ("http".to_owned(), proxy("http://u:hush@one.example:1")),
            ("https".to_owned(), proxy("two.example:2")),
            ("https://special.example/".to_owned(), proxy("http://three.example:3")),
            ("https://direct.example".to_owned(), None),
        ]));
        let shown = |url: &str| proxies.of(&Url::parse(url).expect("a URL")).map(|proxy| proxy.to_string());
        for (url, expected) in [
            ("http://a.example/x", "the proxy `http://one.example:1` (here)"),
            ("https://a.example/x", "the proxy `http://two.example:2` (here)"),
            ("https://special.example/x", "the proxy `http://three.example:3` (here)"),
        ] {
            assert_eq!(shown(url).as_deref(), Some(expected));
        }
        for direct in ["https://direct.example/x", "http://127.0.0.1:1/", "http://localhost/", "http://[::1]/"] {
            assert_eq!(shown(direct), None, "{direct}");
        }
    }

    #[test]
    fn a_proxy_is_shown_without_its_password() {
        let proxy = Proxy::read("socks5://u:hush@host:1", "`$ALL_PROXY`".to_owned()).expect("a proxy");
        let shown = "the proxy `socks5://host:1` (`$ALL_PROXY`, a SOCKS proxy, which is not supported)";
        assert_eq!((proxy.to_string(), format!("{proxy:?}")), (shown.to_owned(), shown.to_owned()));
        assert_eq!(proxy.bare(), "socks5://host:1");
    }

    #[test]
    fn what_is_no_proxy_is_found() {
        for value in ["http://p.example:3128", "p.example:3128", "http://u:p@p.example", "socks5://p.example"] {
            assert!(url(value).is_some(), "{value}");
        }
        for value in ["http://u:p#q@p.example:3128", "http://u:1/q@p.example:3128", "ftp://p.example", "http://"] {
            assert!(url(value).is_none(), "{value}");
        }
    }
}
