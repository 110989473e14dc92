//! References to images (`HOST/REPOSITORY[:TAG][@DIGEST]`) and what their hosts mean.

mod faults;

use std::net::Ipv6Addr;

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
    refuse_credentials(text)?;
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

/// Refuses a user and password in a reference, without saying what they are: nothing else with an `@` than a digest
/// stands in one.
fn refuse_credentials(text: &str) -> Result<()> {
    let Some((_, mut behind)) = text.split_once('@') else { return Ok(()) };
    let is_digest = |text: &str| {
        let (algorithm, digits) = text.split_once(':').unwrap_or((text, ""));
        algorithm.starts_with("sha") && !digits.contains(['/', '@', ':'])
    };
    if is_digest(behind) {
        return Ok(());
    }
    // What a password may hold must not be taken for the host.
    while let Some((_, rest)) = behind.split_once('@').filter(|(_, rest)| !is_digest(rest)) {
        behind = rest;
    }
    let error = Error::usage(format!("invalid image reference `***@{behind}`: expected no user and password in it"));
    Err(error
        .hint("log in with `docker login HOST`, or set `CONDAIMG_REGISTRY_USERNAME` and `CONDAIMG_REGISTRY_PASSWORD`")
        .hint("an `@` stands before a digest only (`REPOSITORY@sha256:...`)"))
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

/// Parses a reference that is to be written to. A name alone means one of Docker's own images, which nobody else may
/// write: told at once, not after a build.
pub(super) fn parse_target(text: &str) -> Result<Reference> {
    let reference = parse(text)?;
    if text.contains('/') || reference.registry() != DOCKER_HUB {
        return Ok(reference);
    }
    let whole = format!("{DOCKER_HUB}/{}", reference.repository());
    Err(Error::usage(format!("`{text}` names no registry: it would be pushed to `{whole}`, which is Docker's"))
        .hint(format!("write the registry in front: `HOST/{text}`, or `{DOCKER_HUB}/USER/{text}`")))
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
    fn credentials_in_reference_are_not_echoed() {
        for text in [
            "me:hush@registry.example/team/env:1",
            "https://me:hush@registry.example/env",
            "me:hu@hush@registry.example/env",
            "hush@registry.example/env",
            "me:hush@registry.example:5000",
            "me:hush/x@registry.example/env",
            "me:hush@registry.example/env@sha256:0000",
            "me:hush@[::1]:5000/env:1",
            "[::1]:hush@registry.example/env",
        ] {
            let error = parse(text).expect_err(text);
            let told = [vec![error.to_string()], error.hints().into_iter().map(str::to_owned).collect()].concat();
            assert!(!told.concat().contains("hush"), "{told:?}");
            assert!(told.concat().contains("CONDAIMG_REGISTRY_PASSWORD"), "{told:?}");
            assert_eq!(error.kind(), crate::util::ErrorKind::Usage);
        }
    }

    #[test]
    fn target_without_registry_is_refused() {
        for text in ["env", "env:1", "env:1.0-cu124"] {
            let error = parse_target(text).expect_err(text);
            assert_eq!(error.kind(), crate::util::ErrorKind::Usage);
            assert!(error.to_string().contains("`docker.io/library/env`"), "{error}");
        }
        for text in ["team/env:1", "localhost:5000/env", "docker.io/library/env:1", "[::1]:5000/env:1"] {
            parse_target(text).expect(text);
        }
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
}
