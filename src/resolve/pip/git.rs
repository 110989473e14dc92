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

/// Puts the files of a commit into a folder; the time of the commit, in seconds since 1970. `references` are what the
/// commit was locked for, by the requirements.
///
/// # Errors
/// When the repository does not have it any more, or none of the references (if there are any) can mean it any more.
pub(super) fn checkout(uv: &Uv, url: &Url, commit: &str, references: &[&str], folder: &Path) -> Result<u64> {
    if uv.is_offline() && url.scheme() != "file" {
        return Err(failed(url, "would have to be cloned, and the network must not be used"));
    }
    let mut clone = git(uv, url);
    clone.args(["clone", "--quiet", "--no-checkout", "--", &argument(url)]).arg(folder);
    uv.run(clone, |_| failed(url, "cannot be cloned"))?;
    let mut checked = references.iter().map(|reference| check_reference(uv, url, commit, reference, folder));
    if let Some(first) = checked.next()
        && !(first.is_ok() || checked.any(|it| it.is_ok()))
    {
        first?;
    }
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

/// Refuses a tag that is another commit now, and a name that is gone: a tag is a promise that it stays. Branches move, so
/// that of these the commit is all that counts.
fn check_reference(uv: &Uv, url: &Url, commit: &str, reference: &str, clone: &Path) -> Result<()> {
    let is_other = reference == "HEAD" || reference.starts_with("refs/") && !reference.starts_with("refs/tags/");
    if is_other || reference.len() >= 7 && commit.starts_with(&reference.to_ascii_lowercase()) {
        return Ok(());
    }
    let commit_of = |name: &str| {
        let mut command = git(uv, url);
        command.arg("-C").arg(clone).args(["rev-parse", "--quiet", "--verify", &format!("{name}^{{commit}}")]);
        uv.run(command, |_| failed(url, "has no such reference")).map(|said| said.trim().to_owned())
    };
    let tag = reference.strip_prefix("refs/tags/").unwrap_or(reference);
    let error = match commit_of(&format!("refs/tags/{tag}")) {
        Ok(now) if now == commit => return Ok(()),
        Ok(now) => format!(
            "the tag `{tag}` of `{}` was moved: it is commit {now}, and the lock has {commit}",
            redact::url(url)
        ),
        Err(_) if tag == reference && commit_of(&format!("refs/remotes/origin/{reference}")).is_ok() => return Ok(()),
        Err(_) => format!(
            "`{}` has no tag or branch `{reference}` any more; the lock has it as commit {commit}",
            redact::url(url)
        ),
    };
    Err(Error::user(error)
        .hint(format!(
            "`git+{}@{commit}` names the commit itself, and holds whatever becomes of names",
            argument(&redact::canonical(url))
        ))
        .hint("`condaimg lock --upgrade PACKAGE` takes what the reference is now"))
}
