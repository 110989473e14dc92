//! The proxies that channels' servers are reached through: those of conda's configuration, and of the environment.

use std::collections::BTreeMap;
use std::fmt;

use hyper_util::client::proxy::matcher::Matcher;
use url::{Host, Url};

use super::condarc::Condarc;
use super::expand::expand;
use crate::util::{Error, Result, ResultExt as _};

/// Proxies by what they are for: `http`, `https`, `all`, or these with a host (`https://host`), as in conda.
#[derive(Clone, Default)]
pub(super) struct Proxies {
    configured: BTreeMap<String, Option<Proxy>>,
}

/// A proxy; shown without its user and password.
#[derive(Clone)]
pub(super) struct Proxy {
    pub(super) url: Url,
    /// Where it is named.
    named: String,
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bare = self.url.clone();
        // Both fail only for URLs that cannot have credentials.
        let _ = bare.set_username("");
        let _ = bare.set_password(None);
        let socks = if bare.scheme().starts_with("socks") { ", a SOCKS proxy, which is not supported" } else { "" };
        write!(f, "the proxy `{}` ({}{socks})", bare.as_str().trim_end_matches('/'), self.named)
    }
}

/// As it is displayed.
impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Proxies {
    /// `proxy_servers` of conda's configuration, which goes before the environment's, as conda's documentation has it.
    ///
    /// # Errors
    /// When one of them is no URL.
    pub(super) fn new(condarc: &Condarc) -> Result<Self> {
        let mut proxies = Self::default();
        let Some(said) = &condarc.proxies else { return Ok(proxies) };
        for (what, text) in &said.value {
            let named = format!("`proxy_servers` in {}", said.origin);
            let read = |text: &String| {
                let text = expand(text).context(|| format!("{named} cannot be used"))?;
                let url = url(&text).ok_or_else(|| {
                    Error::user(format!("{named}: the proxy for `{what}` is no URL"))
                        .hint("write it as `http://USER:PASSWORD@HOST:PORT`, special characters as `%` codes")
                })?;
                Ok::<_, Error>(Proxy { url, named: named.clone() })
            };
            let proxy = text.as_ref().filter(|text| !text.is_empty()).map(read).transpose()?;
            proxies.configured.insert(what.trim_end_matches('/').to_lowercase(), proxy);
        }
        Ok(proxies)
    }

    /// The proxy for a URL. This machine is reached directly, and so is what `NO_PROXY` lists.
    pub(super) fn of(&self, url: &Url) -> Option<Proxy> {
        if is_here(url) || is_excepted(url) {
            return None;
        }
        let (scheme, host) = (url.scheme(), url.host_str()?);
        let names = [format!("{scheme}://{host}"), scheme.to_owned(), format!("all://{host}"), "all".to_owned()];
        match names.iter().find_map(|name| self.configured.get(name)) {
            Some(configured) => configured.clone(),
            None => of_environment(scheme),
        }
    }
}

/// Whether a host is this machine.
fn is_here(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name.eq_ignore_ascii_case("localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => true,
    }
}

/// Whether `NO_PROXY` lists the host.
fn is_excepted(url: &Url) -> bool {
    let exceptions = variable(&["NO_PROXY", "no_proxy"]).map(|(_, list)| list).unwrap_or_default();
    let matcher = Matcher::builder().all("http://proxy.invalid").no(exceptions).build();
    url.as_str().parse().is_ok_and(|uri| matcher.intercept(&uri).is_none())
}

/// The proxy of the environment, by the variables that curl reads. One that cannot be understood is none, as in
/// other programs.
fn of_environment(scheme: &str) -> Option<Proxy> {
    let of_scheme = match scheme {
        // A CGI program gets what a client sends as `Proxy:` by this name.
        "http" if std::env::var_os("REQUEST_METHOD").is_some() => None,
        "http" => variable(&["HTTP_PROXY", "http_proxy"]),
        _ => variable(&["HTTPS_PROXY", "https_proxy"]),
    };
    let (name, value) = of_scheme.or_else(|| variable(&["ALL_PROXY", "all_proxy"]))?;
    Some(Proxy { url: url(&value)?, named: format!("`${name}`") })
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
    Url::parse(&whole).ok().filter(|url| url.has_host() && !misread(url))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_are_chosen_as_conda_does() {
        let condarc = "proxy_servers:\n  http: http://u:hush@one.example:1\n  https: two.example:2\n  \
                       https://special.example: http://three.example:3\n  https://direct.example: ~\n";
        let condarc = Condarc::of(condarc).expect("a condarc");
        let proxies = Proxies::new(&condarc).expect("proxies");
        let shown = |url: &str| proxies.of(&Url::parse(url).expect("a URL")).map(|proxy| proxy.to_string());
        let named = "(`proxy_servers` in `test.yml`)";
        assert_eq!(shown("http://a.example/x"), Some(format!("the proxy `http://one.example:1` {named}")));
        assert_eq!(shown("https://a.example/x"), Some(format!("the proxy `http://two.example:2` {named}")));
        assert_eq!(shown("https://special.example/x"), Some(format!("the proxy `http://three.example:3` {named}")));
        for direct in ["https://direct.example/x", "http://127.0.0.1:1/", "http://localhost/", "http://[::1]/"] {
            assert_eq!(shown(direct), None, "{direct}");
        }
    }

    #[test]
    fn what_is_no_proxy_is_refused_without_its_password() {
        for text in ["http://u:hush/x@host:1", "http://", "http://u:hush#@host"] {
            let condarc = Condarc::of(&format!("proxy_servers: {{http: '{text}'}}")).expect("a condarc");
            let error = Proxies::new(&condarc).err().unwrap_or_else(|| panic!("{text}")).to_string();
            assert!(error.contains("the proxy for `http` is no URL") && !error.contains("hush"), "{error}");
        }
        let proxy = Proxy { url: Url::parse("socks5://u:hush@host:1").expect("a URL"), named: "`$ALL_PROXY`".into() };
        assert_eq!(
            proxy.to_string(),
            "the proxy `socks5://host:1` (`$ALL_PROXY`, a SOCKS proxy, which is not supported)"
        );
    }
}
