//! What can be seen on this machine: the cache, its disk, credential files, proxies.

use std::path::Path;

use crate::cli::args::Global;
use crate::cli::world::cache_dir;
use crate::registry::{CredentialFile, Finding, Logins, State, credential_files};
use crate::util::{Error, Result, human, redact};

/// Less is too little for nearly every environment with its layers, in bytes.
const ENOUGH: u64 = 1 << 30;

/// Variables that name a proxy.
const PROXIES: [&str; 6] = ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"];

/// Looks at everything.
pub fn examine(global: &Global) -> Vec<Finding> {
    let mut findings = cache(global);
    findings.push(pair());
    findings.extend(credential_files().iter().map(credential_file));
    findings.extend(proxies());
    findings
}

pub(super) fn finding(name: &'static str, state: State, detail: String) -> Finding {
    Finding { name, state, detail, advice: None }
}

pub(super) fn failed(name: &'static str, error: &Error) -> Finding {
    let advice = error.hints().first().map(|&hint| hint.to_owned());
    Finding { name, state: State::No, detail: error.chain().join(": "), advice }
}

fn cache(global: &Global) -> Vec<Finding> {
    let folder = match cache_dir(global) {
        Ok(folder) => folder,
        Err(error) => return vec![failed("cache", &error)],
    };
    // It is made at the first build; until then its nearest folder that is there tells.
    let there = folder.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/"));
    let cache = match tempfile::NamedTempFile::new_in(there).map_err(Error::from) {
        Ok(_) if there == folder => finding("cache", State::Ok, format!("{} can be written", folder.display())),
        Ok(_) => finding("cache", State::Ok, format!("{} will be made", folder.display())),
        Err(error) => {
            let advice = Some("choose another folder with `--cache-dir`".to_owned());
            let detail = format!("{} cannot be written: {}", folder.display(), error.chain().join(": "));
            Finding { advice, ..finding("cache", State::No, detail) }
        }
    };
    vec![cache, disk(there)]
}

fn disk(folder: &Path) -> Finding {
    match free(folder) {
        Err(error) => Finding { state: State::Unknown, ..failed("disk", &error) },
        Ok(free) if free >= ENOUGH => finding("disk", State::Ok, format!("{} free", human(free))),
        Ok(free) => {
            let advice = "environments and their layers need several times their size: free some space, or choose another folder with `--cache-dir`";
            let few = finding("disk", State::No, format!("only {} free", human(free)));
            Finding { advice: Some(advice.to_owned()), ..few }
        }
    }
}

/// Bytes that are free for us.
fn free(folder: &Path) -> Result<u64> {
    let disk = rustix::fs::statvfs(folder).map_err(std::io::Error::from)?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}

fn pair() -> Finding {
    let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let [username, password] = ["CONDAIMG_REGISTRY_USERNAME", "CONDAIMG_REGISTRY_PASSWORD"];
    match (set(username), set(password)) {
        (true, true) => finding("login", State::Ok, format!("{username} and {password} are set")),
        (false, false) => finding("login", State::Ok, format!("{username} and {password} are not set")),
        (user, _) => {
            let (one, other) = if user { (username, password) } else { (password, username) };
            let advice = Some(format!("set {other}, too"));
            Finding { advice, ..finding("login", State::No, format!("{one} is set, {other} is not: both are ignored")) }
        }
    }
}

fn credential_file(file: &CredentialFile) -> Finding {
    let name = &file.name;
    let (state, told) = match &file.holds {
        Ok(None) => (State::Ok, "not there".to_owned()),
        Ok(Some(logins)) => (State::Ok, describe(logins)),
        Err(why) => (State::No, why.clone()),
    };
    finding("credential-file", state, format!("{name}: {told}"))
}

fn describe(logins: &Logins) -> String {
    let mut parts = logins.registries.clone();
    parts.extend(logins.helpers.iter().map(|(host, helper)| format!("{host} by `docker-credential-{helper}`")));
    parts.extend(logins.store.iter().map(|helper| format!("all others by `docker-credential-{helper}`")));
    if parts.is_empty() { "no logins".into() } else { parts.join(", ") }
}

fn proxies() -> Vec<Finding> {
    let value = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let mut told: Vec<String> =
        PROXIES.iter().filter_map(|name| Some(format!("{name}={}", without_secret(&value(name)?)))).collect();
    told.extend(["NO_PROXY", "no_proxy"].iter().filter_map(|name| Some(format!("{name}={}", value(name)?))));
    if told.is_empty() {
        told.push("none".to_owned());
    }
    told.into_iter().map(|told| finding("proxy", State::Ok, told)).collect()
}

/// A proxy without user and password; it may be written without a scheme.
fn without_secret(proxy: &str) -> String {
    let behind = |text: &str| text.rsplit_once('@').map_or_else(|| text.to_owned(), |(_, host)| host.to_owned());
    match proxy.split_once("://") {
        Some((scheme, rest)) => redact::within(&format!("{scheme}://{}", behind(rest))),
        None => behind(proxy),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_lose_their_secrets() {
        for (given, expected) in [
            ("http://proxy:3128", "http://proxy:3128"),
            ("http://user:pa/ss@w@proxy:3128/", "http://proxy:3128/"),
            ("user:secret@proxy:3128", "proxy:3128"),
            ("proxy:3128", "proxy:3128"),
        ] {
            assert_eq!(without_secret(given), expected);
        }
    }
}
