//! Environment variables in URLs that users write: which of them may be put there, and for which host.
//!
//! A file of a project may name any variable in a URL of any server, and what runs the build has secrets in its
//! environment. So some never expand, and a user can give the whole list of those that do.

use std::process::Command;
use std::str::FromStr;
use std::sync::OnceLock;

use url::Url;

use super::{Error, Result};

/// Beginnings of names that never expand: secrets of condaimg itself, of engines, of signing and of CI runners.
const NEVER: [&str; 4] = ["CONDAIMG_", "DOCKER_AUTH_CONFIG", "COSIGN_", "ACTIONS_"];

/// The whole list of what expands, if the user gave one.
static ALLOWED: OnceLock<Vec<Allowed>> = OnceLock::new();

/// A variable, and the host whose URLs it may stand in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allowed {
    name: String,
    /// With a port, that port alone.
    host: String,
}

impl FromStr for Allowed {
    type Err = Error;

    /// Reads `NAME@HOST[:PORT]`.
    fn from_str(text: &str) -> Result<Self> {
        let is_name =
            |name: &str| !name.is_empty() && name.chars().all(|char| char.is_ascii_alphanumeric() || char == '_');
        let parts = text.split_once('@').filter(|(name, host)| is_name(name) && is_host(host));
        let Some((name, host)) = parts else {
            return Err(Error::usage(format!("invalid `--expand-env {text}`: expected NAME@HOST[:PORT]"))
                .hint("name the variable and the host of its URLs, as in `--expand-env TOKEN@index.example.org`"));
        };
        if is_never(name) {
            return Err(never(name));
        }
        Ok(Self { name: name.to_owned(), host: host.to_ascii_lowercase() })
    }
}

fn is_host(text: &str) -> bool {
    let url = Url::parse(&format!("https://{text}/"));
    url.is_ok_and(|url| url.has_host() && url.username().is_empty() && url.path() == "/" && url.query().is_none())
        && !text.contains(['@', '/', '\\', '?', '#'])
}

fn is_never(name: &str) -> bool {
    NEVER.iter().any(|beginning| name.starts_with(beginning))
}

fn never(name: &str) -> Error {
    Error::user(format!(
        "failed to expand the variable `{name}`: `CONDAIMG_*`, `DOCKER_AUTH_CONFIG*`, `COSIGN_*` and `ACTIONS_*` never go into URLs"
    ))
    .hint("put what the server is to see into a variable of another name")
}

/// Keeps the variables that never expand from a program that condaimg starts: none of them is for others.
pub fn withhold(command: &mut Command) {
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(is_never)) {
        command.env_remove(name);
    }
}

/// Makes this the whole list of what expands; only the first call counts.
pub fn restrict(allowed: Vec<Allowed>) {
    // An error means that there is a list already.
    let _ = ALLOWED.set(allowed);
}

/// The value of a variable that a URL names; nothing when it is not set.
///
/// # Errors
/// A variable that never expands.
pub fn value(name: &str) -> Result<Option<String>> {
    match is_never(name) {
        true => Err(never(name)),
        false => Ok(std::env::var(name).ok()),
    }
}

/// Refuses a text in which variables were expanded that are not allowed for the host of its URL. That host is read
/// after expansion, so that a variable cannot be a part of another one.
///
/// # Errors
/// When there is a list of what expands, and it does not have one of them for that host.
pub fn permit(names: &[String], expanded: &str) -> Result<()> {
    match ALLOWED.get() {
        Some(allowed) => permit_by(allowed, names, expanded),
        None => Ok(()),
    }
}

fn permit_by(allowed: &[Allowed], names: &[String], expanded: &str) -> Result<()> {
    if names.is_empty() {
        return Ok(());
    }
    let host = host_of(expanded);
    for name in names {
        let fits = |entry: &&Allowed| entry.name == *name && host.as_ref().is_some_and(|host| host.is(&entry.host));
        if !allowed.iter().any(|entry| fits(&entry)) {
            let wanted = host.as_ref().map_or("HOST", |host| &host.name);
            let place =
                host.as_ref().map_or("a text without a host".to_owned(), |host| format!("a URL of `{}`", host.name));
            return Err(Error::user(format!(
                "failed to expand the variable `{name}` in {place}: `--expand-env` does not allow it"
            ))
            .hint(format!("if that host may have it, add `--expand-env {name}@{wanted}`")));
        }
    }
    Ok(())
}

/// The host of a URL.
struct Host {
    name: String,
    port: Option<u16>,
}

impl Host {
    fn is(&self, allowed: &str) -> bool {
        allowed == self.name || self.port.is_some_and(|port| allowed == format!("{}:{port}", self.name))
    }
}

/// The host of the one URL of a text (`name @ git+https://host/x`); nothing if there is none, or more than one.
fn host_of(text: &str) -> Option<Host> {
    let at = text.find("://")?;
    if text[at + 3..].contains("://") {
        return None;
    }
    let is_scheme = |char: char| char.is_ascii_alphanumeric() || "+.-".contains(char);
    let begin =
        text[..at].char_indices().rev().take_while(|(_, char)| is_scheme(*char)).last().map_or(at, |(at, _)| at);
    let text = &text[begin..];
    let url = Url::parse(text.strip_prefix("git+").unwrap_or(text)).ok()?;
    Some(Host { name: url.host_str()?.to_ascii_lowercase(), port: url.port_or_known_default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_of_condaimg_never_expand() {
        for name in ["CONDAIMG_REGISTRY_PASSWORD", "DOCKER_AUTH_CONFIG", "COSIGN_PASSWORD", "ACTIONS_RUNTIME_TOKEN"] {
            assert!(value(name).expect_err(name).to_string().contains(name));
            assert!(format!("{name}@host.example").parse::<Allowed>().is_err(), "{name}");
        }
        assert!(value("CI_JOB_TOKEN").is_ok());
    }

    #[test]
    fn variables_expand_for_their_host_alone() {
        let allowed = ["TOKEN@index.example", "TOKEN@127.0.0.1:80"].map(|text| text.parse().expect(text));
        let permit = |text: &str| permit_by(&allowed, &["TOKEN".to_owned()], text).is_ok();
        for text in [
            "https://u:x@index.example/simple",
            "x @ git+https://x@INDEX.example/a",
            "--index-url=https://u:x@index.example:8443/",
            "http://x@127.0.0.1/c::numpy",
        ] {
            assert!(permit(text), "{text}");
        }
        for text in [
            "https://u:x@evil.example/simple",
            "https://index.example@evil.example/",
            "https://x.index.example/",
            "http://x@127.0.0.1:81/",
            "https://index.example/ https://evil.example/x",
            "numpy==x",
        ] {
            assert!(!permit(text), "{text}");
        }
        assert!(permit_by(&allowed, &[], "https://evil.example").is_ok());
        assert!(permit_by(&allowed, &["OTHER".to_owned()], "https://index.example").is_err());
    }

    #[test]
    fn what_is_no_name_and_host_is_refused() {
        for text in ["TOKEN", "@host", "TOKEN@", "A-B@host", "TOKEN@https://host", "TOKEN@me@host", "TOKEN@host/x"] {
            assert!(text.parse::<Allowed>().is_err(), "{text}");
        }
    }
}
