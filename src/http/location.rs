//! Redirects: to the server's own address freely, elsewhere without credentials, and not everywhere.

use std::net::IpAddr;

use reqwest::header::{HeaderMap, LOCATION};
use reqwest::{Method, StatusCode};
use url::Url;

use super::address::{is_loopback, without_port};
use super::reach::Reach;
use crate::util::{Error, Result, redact};

/// Who answers, where its interface is, and what a user allowed for it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer<'a> {
    /// How messages call it: "the registry `h`".
    pub(crate) whom: &'a str,
    /// Scheme, host and port of its interface.
    pub(crate) base: &'a Url,
    /// Hosts (`HOST[:PORT]`) that may be spoken to over plain http and at private addresses.
    pub(crate) insecure: &'a [String],
    /// The flag that adds to them.
    pub(crate) consent: Option<&'a str>,
    /// Whether it may not send from plain http to plain http elsewhere. Channels may: what they send is checked against
    /// its hash.
    pub(crate) strict: bool,
    /// The address that it answered from; none when that is not known, as behind a proxy.
    pub(crate) at: Option<IpAddr>,
}

impl Peer<'_> {
    /// Whether the URL is the peer's own: only there may its credentials go.
    pub(crate) fn owns(&self, url: &Url) -> bool {
        self.base.origin() == url.origin()
    }

    /// The URL that a `Location` header names (absolute or relative to the URL that was asked), if it may be followed.
    ///
    /// # Errors
    /// When it is not a URL, or leads where the peer has no business to send anybody.
    pub(crate) fn follow(&self, asked: &Url, location: &str) -> Result<Url> {
        let mut url = asked
            .join(location)
            .map_err(|error| Error::user(format!("{} sent an invalid `Location`", self.whom)).caused_by(error))?;
        // A server behind a proxy that ends TLS often believes that it is spoken to over http.
        if url.scheme() == "http" && self.base.scheme() == "https" && url.host_str() == self.base.host_str() {
            // Fails only for URLs that cannot have another scheme.
            let _ = url.set_scheme("https");
            if url.port().is_none() {
                let _ = url.set_port(self.base.port());
            }
        }
        self.permit(&url)?;
        Ok(url)
    }

    /// Refuses addresses that a peer has no business to send anybody to: plain http, and the private or link-local
    /// addresses of others (a way to reach services behind a firewall). Looks at the URL only; what a name resolves
    /// to is for the resolver of the client to judge ([`super::guard`]).
    ///
    /// # Errors
    /// When it is refused.
    pub(crate) fn permit(&self, url: &Url) -> Result<()> {
        if self.owns(url) {
            return Ok(());
        }
        let target = authority(url);
        let refuse = |why: &str| {
            let error = Error::user(format!("{} sends us to {}, {why}", self.whom, redact::url(url)));
            match self.consent {
                Some(flag) => error.hint(format!("if that is right, allow it with `{flag} {target}`")),
                None => error,
            }
        };
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
            return Err(refuse("which is not served over http"));
        }
        if listed(self.insecure, &target) {
            return Ok(());
        }
        let local = is_loopback(&target) && is_loopback(self.base.host_str().unwrap_or_default());
        if url.scheme() == "http" && !local && (self.strict || self.base.scheme() == "https") {
            return Err(refuse("over plain http"));
        }
        self.reach().may_send_to(Reach::of_host(&target)).map_err(refuse)
    }

    /// From where it can be reached.
    pub(crate) fn reach(&self) -> Reach {
        self.at.map_or_else(|| Reach::of_host(self.base.host_str().unwrap_or_default()), Reach::of)
    }
}

/// The method of the request that a redirect asks for; none when it is not followed. What is written is written
/// again only where the status says so (RFC 9110, 15.4.8 and 15.4.9).
pub(crate) fn redirected(method: &Method, status: StatusCode) -> Option<Method> {
    let reading = matches!(*method, Method::GET | Method::HEAD);
    match status.as_u16() {
        301..=303 if reading => Some(method.clone()),
        307 | 308 => Some(method.clone()),
        _ => None,
    }
}

/// The text of an answer's `Location`.
pub(crate) fn location(headers: &HeaderMap) -> Option<&str> {
    headers.get(LOCATION)?.to_str().ok()
}

/// Whether a host (with or without port) is in the list of hosts to be spoken to over plain http.
pub(crate) fn listed(insecure: &[String], host: &str) -> bool {
    insecure.iter().any(|entry| entry == host || entry == without_port(host))
}

/// `HOST[:PORT]` of a URL.
pub(crate) fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer<T>(base: &str, ask: impl FnOnce(&Peer<'_>) -> T) -> T {
        let (base, insecure) = (Url::parse(base).expect("a URL"), ["10.9.9.9".to_owned()]);
        let whom = "the server `registry.example`";
        ask(&Peer { whom, base: &base, insecure: &insecure, consent: Some("--allow"), strict: true, at: None })
    }

    fn led(base: &str, location: &str) -> Result<String> {
        peer(base, |peer| {
            let asked = peer.base.join("/v2/team/env/blobs/uploads/").expect("a URL");
            peer.follow(&asked, location).map(|url| url.to_string())
        })
    }

    #[test]
    fn locations_are_resolved() {
        let base = "https://registry.example";
        for (location, expected) in [
            ("/v2/x/1?state=a%3D", "https://registry.example/v2/x/1?state=a%3D"),
            ("2", "https://registry.example/v2/team/env/blobs/uploads/2"),
            ("http://registry.example/v2/x", "https://registry.example/v2/x"),
            ("https://store.example/x", "https://store.example/x"),
            ("http://10.9.9.9/x", "http://10.9.9.9/x"),
        ] {
            assert_eq!(led(base, location).expect(location), expected);
        }
        assert!(led("http://127.0.0.1:5000", "http://127.0.0.1:6000/x").is_ok());
        assert!(led("https://10.0.0.1", "https://10.0.0.2/x").is_ok());
    }

    #[test]
    fn some_places_are_refused() {
        for location in [
            "http://store.example/x",
            "https://10.0.0.1/x",
            "https://127.0.0.1/x",
            "https://localhost/x",
            "https://[::1]/x",
            "https://[::ffff:10.0.0.1]/x",
            "https://169.254.169.254/latest",
            "file:///etc/passwd",
        ] {
            let error = led("https://registry.example", location).expect_err(location);
            assert!(error.to_string().contains("registry.example"), "{error}");
        }
        for location in ["https://169.254.169.254/x", "https://127.0.0.1/x", "https://localhost/x"] {
            assert!(led("https://10.0.0.1", location).is_err(), "{location}");
        }
    }

    #[test]
    fn credentials_stay_with_their_owner() {
        let owns = |url| peer("https://registry.example", |peer| peer.owns(&Url::parse(url).expect("a URL")));
        assert!(owns("https://registry.example:443/v2/"));
        assert!(!owns("http://registry.example/v2/"));
        assert!(!owns("https://registry.example:444/v2/"));
        assert!(!owns("https://registry.example.evil/v2/"));
    }

    #[test]
    fn only_some_redirects_repeat_a_write() {
        for (method, status, followed) in [
            (Method::GET, 302, true),
            (Method::HEAD, 303, true),
            (Method::POST, 302, false),
            (Method::PUT, 301, false),
            (Method::POST, 307, true),
            (Method::PATCH, 308, true),
            (Method::GET, 304, false),
        ] {
            let status = StatusCode::from_u16(status).expect("a status");
            assert_eq!(redirected(&method, status).as_ref(), followed.then_some(&method), "{method} {status}");
        }
    }
}
