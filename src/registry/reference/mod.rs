//! References to images (`HOST/REPOSITORY[:TAG][@DIGEST]`) and what their hosts mean.

mod faults;

use std::net::{IpAddr, Ipv6Addr};

pub use oci_client::{ParseError, Reference};

use crate::util::{Digest, Error, Result};

/// The registry that a reference without a host means.
pub(super) const DOCKER_HUB: &str = "docker.io";

/// Where Docker Hub's interface is; its website has the short name.
const DOCKER_HUB_API: &str = "registry-1.docker.io";

/// Stands for an IPv6 address, which the grammar of references does not know, while parsing.
const PLACEHOLDER: &str = "address.invalid";

/// Parses and normalises a reference: `debian:12-slim` → `docker.io/library/debian:12-slim`.
pub(super) fn parse(text: &str) -> Result<Reference> {
    if let Some((scheme, rest)) = text.split_once("://") {
        return Err(Error::usage(format!("invalid image reference `{text}`: expected none of `{scheme}://`"))
            .hint(format!("write `{rest}`")));
    }
    let reference = match text.split_once('/') {
        Some((host, rest)) if host.starts_with('[') => parse_with_address(host, rest),
        _ => parse_named(text),
    }
    .map_err(|reason| {
        Error::usage(format!("invalid image reference `{text}`: {reason}"))
            .hint(suggestion(text).unwrap_or_else(|| FORMS.to_owned()))
    })?;
    digest_of(&reference)?;
    Ok(reference)
}

const FORMS: &str = "write it as `HOST/REPOSITORY:TAG` or `HOST/REPOSITORY@sha256:...`, in lower case";

fn parse_named(text: &str) -> Result<Reference, String> {
    let reference = text.parse::<Reference>().map_err(|error| why(&error, text))?;
    match faults::port_fault(reference.registry()) {
        Some(wrong) => Err(wrong),
        None => Ok(reference),
    }
}

/// What it may have been meant to be, as a hint: only what is a reference.
fn suggestion(text: &str) -> Option<String> {
    let suggestion = faults::find(text)?.suggestion?;
    parse_named(&suggestion).ok().map(|_| format!("write `{suggestion}`"))
}

fn parse_with_address(host: &str, rest: &str) -> Result<Reference, String> {
    let (address, port) = host.rsplit_once("]:").map_or((host.trim_end_matches(']'), None), |(a, p)| (a, Some(p)));
    let address = address.trim_start_matches('[');
    if address.parse::<Ipv6Addr>().is_err() || port.is_some_and(|port| port.parse::<u16>().is_err()) {
        return Err(format!("`{host}` is not an address"));
    }
    let text = format!("{PLACEHOLDER}/{rest}");
    let parsed: Reference = text.parse().map_err(|error| why(&error, rest))?;
    let (host, repository) = (host.to_owned(), parsed.repository().to_owned());
    Ok(match (parsed.tag(), parsed.digest()) {
        (Some(tag), Some(digest)) => Reference::with_tag_and_digest(host, repository, tag.into(), digest.into()),
        (None, Some(digest)) => Reference::with_digest(host, repository, digest.into()),
        (tag, None) => Reference::with_tag(host, repository, tag.unwrap_or("latest").into()),
    })
}

fn why(error: &ParseError, text: &str) -> String {
    faults::find(text).map_or_else(|| error.to_string(), |fault| fault.what)
}

/// The digest of a reference that has one.
///
/// # Errors
/// When it is not a sha256 digest.
pub(super) fn digest_of(reference: &Reference) -> Result<Option<Digest>> {
    reference
        .digest()
        .map(str::parse)
        .transpose()
        .map_err(|error: Error| Error::usage(format!("`{reference}` cannot be used")).caused_by(error))
}

/// What names the manifest of a reference in the registry's interface: the digest, else the tag.
pub(super) fn manifest_name(reference: &Reference) -> &str {
    reference.digest().or_else(|| reference.tag()).unwrap_or("latest")
}

/// The host (and port) that serves the interface of a registry.
pub(super) fn api_host(registry: &str) -> &str {
    if matches!(registry, DOCKER_HUB | "index.docker.io") { DOCKER_HUB_API } else { registry }
}

/// A host without its port.
pub(super) fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !name.ends_with(':') => {
            // `[::1]` has colons of its own.
            if name.starts_with('[') && !name.ends_with(']') { host } else { name }
        }
        _ => host,
    }
}

/// The address, when the host (with or without a port) is one and no name.
pub(super) fn address(host: &str) -> Option<IpAddr> {
    without_port(host).trim_start_matches('[').trim_end_matches(']').parse().ok()
}

/// Whether the host (with or without a port) is this machine: `localhost`, 127.0.0.0/8, `[::1]`.
pub(super) fn is_loopback(host: &str) -> bool {
    without_port(host).eq_ignore_ascii_case("localhost") || address(host).is_some_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_normalised() {
        for (given, expected) in [
            ("debian:12-slim", "docker.io/library/debian:12-slim"),
            ("debian", "docker.io/library/debian:latest"),
            ("team/env:1", "docker.io/team/env:1"),
            ("localhost/env", "localhost/env:latest"),
            ("localhost:5000/team/env:1", "localhost:5000/team/env:1"),
            ("[::1]:5000/env:1", "[::1]:5000/env:1"),
            ("registry.example/a/b/c:x", "registry.example/a/b/c:x"),
        ] {
            assert_eq!(parse(given).expect(given).whole(), expected);
        }
        let pinned = format!("registry.example/env:1@{}", Digest::of("x"));
        assert_eq!(parse(&pinned).expect("parses").whole(), pinned);
    }

    #[test]
    fn what_is_no_reference_is_named() {
        let sha512 = format!("registry.example/env@sha512:{}", "0".repeat(128));
        for given in ["", "a b", "Team/Env:1", "https://registry.example/env", "env:", "[::g]/env", &sha512] {
            let error = parse(given).expect_err(given);
            assert_eq!(error.kind(), crate::util::ErrorKind::Usage);
            assert!(error.to_string().contains(given), "{error}");
        }
    }

    #[test]
    fn hosts_of_this_machine_are_known() {
        for host in ["localhost", "localhost:5000", "127.0.0.1:5000", "127.8.9.1", "[::1]", "[::1]:5000"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["registry.example:5000", "10.0.0.1", "localhost.example", "[fe80::1]:5000", "128.0.0.1"] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
