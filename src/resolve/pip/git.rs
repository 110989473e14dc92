//! Repositories: which commit a reference is, and its files.

use std::path::Path;
use std::process::Command;

use url::Url;

use super::Uv;
use crate::spec::pip::PipGit;
use crate::util::{Error, Result, redact};

/// Whether a reference is the full hash of a commit.
pub(super) fn is_commit(reference: &str) -> bool {
    matches!(reference.len(), 40 | 64) && reference.chars().all(|char| char.is_ascii_hexdigit())
}

/// git, which learns user and password from its environment: the arguments of a process are for all to see.
fn git(uv: &Uv, url: &Url) -> Command {
    let mut command = uv.command("git");
    command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_OPTIONAL_LOCKS", "0");
    if url.scheme() != "ssh" && (!url.username().is_empty() || url.password().is_some()) {
        let root = |url: &Url| {
            let mut root = url.clone();
            root.set_path("/");
            root
        };
        command.env("GIT_CONFIG_COUNT", "1");
        command.env("GIT_CONFIG_KEY_0", format!("url.{}.insteadOf", root(url)));
        command.env("GIT_CONFIG_VALUE_0", root(&redact::canonical(url)).as_str());
    }
    command
}

/// The URL for arguments. That of ssh needs its user.
fn argument(url: &Url) -> String {
    match url.scheme() {
        "ssh" => url.to_string(),
        _ => redact::url(url),
    }
}

fn failed(url: &Url, what: &str) -> Error {
    Error::user(format!("the repository `{}` {what}", redact::url(url)))
        .hint("is the URL right? git takes credentials from the URL, from its own helpers, and from `~/.netrc`")
}

/// The commit that a reference is now.
///
/// # Errors
/// When the repository cannot be reached, or has no such reference.
pub(super) fn commit(uv: &Uv, at: &PipGit) -> Result<String> {
    let reference = at.reference.as_deref();
    if let Some(commit) = reference.filter(|reference| is_commit(reference)) {
        return Ok(commit.to_ascii_lowercase());
    }
    if uv.is_offline() && at.url.scheme() != "file" {
        return Err(failed(&at.url, "would have to be asked, and the network must not be used"));
    }
    let mut command = git(uv, &at.url);
    command.args(["ls-remote", "--", &argument(&at.url)]);
    let listed = uv.run(command, |_| failed(&at.url, "cannot be asked for its references"))?;
    let listed: Vec<(&str, &str)> = listed.lines().filter_map(|line| line.split_once('\t')).collect();
    let of =
        |name: &str| listed.iter().find(|(_, reference)| *reference == name).map(|(commit, _)| (*commit).to_owned());
    let Some(reference) = reference else {
        return of("HEAD").ok_or_else(|| failed(&at.url, "is empty"));
    };
    let names = [
        format!("refs/tags/{reference}^{{}}"),
        format!("refs/tags/{reference}"),
        format!("refs/heads/{reference}"),
        reference.to_owned(),
    ];
    if let Some(commit) = names.iter().find_map(|name| of(name)) {
        return Ok(commit);
    }
    // The beginning of a hash.
    let short = reference.len() >= 7 && reference.chars().all(|char| char.is_ascii_hexdigit());
    let found = listed.iter().find(|(commit, _)| short && commit.starts_with(&reference.to_ascii_lowercase()));
    found.map(|(commit, _)| (*commit).to_owned()).ok_or_else(|| {
        let error = failed(&at.url, &format!("has no branch or tag `{reference}`"));
        if short { error.hint("write the whole hash of the commit") } else { error }
    })
}

/// Puts the files of a commit into a folder; the time of the commit, in seconds since 1970.
///
/// # Errors
/// When the repository does not have it any more.
pub(super) fn checkout(uv: &Uv, url: &Url, commit: &str, folder: &Path) -> Result<u64> {
    if uv.is_offline() && url.scheme() != "file" {
        return Err(failed(url, "would have to be cloned, and the network must not be used"));
    }
    let mut clone = git(uv, url);
    clone.args(["clone", "--quiet", "--no-checkout", "--", &argument(url)]).arg(folder);
    uv.run(clone, |_| failed(url, "cannot be cloned"))?;
    let inside = |words: &[&str]| {
        let mut command = git(uv, url);
        command.arg("-C").arg(folder).args(words);
        command
    };
    let gone = |_: &str| {
        Error::user(format!("the repository `{}` has no commit {commit}", redact::url(url)))
            .hint("somebody rewrote its history; `condaimg lock --upgrade PACKAGE` takes what the reference is now, unless a file of another tool pins it")
    };
    let exists = uv.run(inside(&["cat-file", "-e", &format!("{commit}^{{commit}}")]), gone);
    if exists.is_err() {
        // On no branch: some servers give it when they are asked for it.
        uv.run(inside(&["fetch", "--quiet", "origin", commit]), gone)?;
    }
    uv.run(inside(&["checkout", "--quiet", "--detach", commit]), gone)?;
    uv.run(inside(&["submodule", "--quiet", "update", "--init", "--recursive"]), |_| {
        failed(url, "has submodules that cannot be had")
    })?;
    let time = uv.run(inside(&["show", "--no-patch", "--format=%ct", commit]), gone)?;
    Ok(time.trim().parse().unwrap_or(0))
}
