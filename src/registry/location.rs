//! Where a registry may send us: its own address freely, elsewhere without credentials and not everywhere.

use std::net::IpAddr;

use url::Url;

use super::reference::{address, is_loopback, without_port};
use crate::util::{Error, Result, redact};

/// A registry as it is reached.
#[derive(Debug, Clone)]
pub(super) struct Host {
    /// The name in references (`docker.io`, `localhost:5000`).
    pub(super) name: String,
    /// Scheme, host and port of its interface.
    pub(super) base: Url,
}

impl Host {
    /// A URL of its interface; `path` begins behind `/v2/`.
    pub(super) fn url(&self, path: &str) -> Result<Url> {
        self.base
            .join(&format!("/v2/{path}"))
            .map_err(|error| Error::bug(format!("`{path}` makes no URL at `{}`", self.name)).caused_by(error))
    }

    /// Whether the URL is the registry's own: only there may credentials go.
    pub(super) fn owns(&self, url: &Url) -> bool {
        self.base.origin() == url.origin()
    }

    /// How messages call it.
    pub(super) fn called(&self) -> String {
        format!("the registry `{}`", self.name)
    }
}

/// The URL that a `Location` header names (absolute or relative to the URL that was asked), if it may be followed.
///
/// # Errors
/// When it is no URL, or leads where a registry has no business to send us.
pub(super) fn follow(host: &Host, asked: &Url, location: &str, insecure: &[String]) -> Result<Url> {
    let mut url = asked
        .join(location)
        .map_err(|error| Error::user(format!("{} sent a `Location` that is no URL", host.called())).caused_by(error))?;
    // A registry behind a proxy that ends TLS often believes that it is spoken to over http.
    if url.scheme() == "http" && host.base.scheme() == "https" && url.host_str() == host.base.host_str() {
        // Fails only for URLs that cannot have another scheme.
        let _ = url.set_scheme("https");
        if url.port().is_none() {
            let _ = url.set_port(host.base.port());
        }
    }
    permit(host, &url, insecure)?;
    Ok(url)
}

/// Refuses addresses that a registry has no business to send us to: plain http, and the private or link-local
/// addresses of others (a way to make us talk to services behind a firewall).
///
/// # Errors
/// When it is refused.
pub(super) fn permit(host: &Host, url: &Url, insecure: &[String]) -> Result<()> {
    if host.owns(url) {
        return Ok(());
    }
    let target = authority(url);
    let refuse = |why: &str| {
        Error::user(format!("{} sends us to {}, {why}", host.called(), redact::url(url)))
            .hint(format!("if that is right, list `{target}` as an insecure registry"))
    };
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(refuse("which is not served over http"));
    }
    if listed(insecure, &target) {
        return Ok(());
    }
    let own = host.base.host_str().unwrap_or_default();
    if url.scheme() == "http" && !(is_loopback(&target) && is_loopback(own)) {
        return Err(refuse("over plain http"));
    }
    match reach(&target) {
        Reach::Link => Err(refuse("a link-local address")),
        Reach::Inside if reach(own) == Reach::World => Err(refuse("a private address")),
        _ => Ok(()),
    }
}

/// Whether a host (with or without port) is in the list of hosts to be spoken to over plain http.
pub(super) fn listed(insecure: &[String], host: &str) -> bool {
    insecure.iter().any(|entry| entry == host || entry == without_port(host))
}

/// From where an address can be reached. Names count as the world's: what they resolve to is not ours to judge.
#[derive(PartialEq, Eq)]
enum Reach {
    Link,
    Inside,
    World,
}

fn reach(host: &str) -> Reach {
    if is_loopback(host) {
        return Reach::Inside;
    }
    match address(host).map(|address| address.to_canonical()) {
        Some(IpAddr::V4(address)) if address.is_link_local() => Reach::Link,
        Some(IpAddr::V6(address)) if address.is_unicast_link_local() => Reach::Link,
        Some(IpAddr::V4(address)) if address.is_private() || address.is_unspecified() || address.is_loopback() => {
            Reach::Inside
        }
        Some(IpAddr::V6(address)) if address.is_unique_local() || address.is_unspecified() => Reach::Inside,
        _ => Reach::World,
    }
}

/// `HOST[:PORT]` of a URL.
pub(super) fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// Adds the digest to an upload URL, leaving the query that the registry gave as it is.
pub(super) fn with_digest(mut url: Url, digest: &crate::util::Digest) -> Url {
    let digest = format!("digest=sha256%3A{}", digest.hex());
    let query = match url.query() {
        Some(query) if !query.is_empty() => format!("{query}&{digest}"),
        _ => digest,
    };
    url.set_query(Some(&query));
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(base: &str) -> Host {
        Host { name: "registry.example".into(), base: Url::parse(base).expect("a URL") }
    }

    fn led(base: &str, location: &str) -> Result<String> {
        let host = host(base);
        let asked = host.url("team/env/blobs/uploads/")?;
        follow(&host, &asked, location, &["10.9.9.9".to_owned()]).map(|url| url.to_string())
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
        assert!(led("https://10.0.0.1", "https://169.254.169.254/x").is_err());
    }

    #[test]
    fn the_digest_goes_behind_the_query() {
        let digest = crate::util::Digest::of("x");
        let add = |url| with_digest(Url::parse(url).expect("a URL"), &digest).to_string();
        let hex = digest.hex();
        assert_eq!(add("https://a/u?s=b%2F&t"), format!("https://a/u?s=b%2F&t&digest=sha256%3A{hex}"));
        assert_eq!(add("https://a/u"), format!("https://a/u?digest=sha256%3A{hex}"));
    }

    #[test]
    fn credentials_stay_with_their_owner() {
        let host = host("https://registry.example");
        let owns = |url| host.owns(&Url::parse(url).expect("a URL"));
        assert!(owns("https://registry.example:443/v2/"));
        assert!(!owns("http://registry.example/v2/"));
        assert!(!owns("https://registry.example:444/v2/"));
        assert!(!owns("https://registry.example.evil/v2/"));
    }
}
