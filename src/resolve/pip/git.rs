//! Repositories: which commit a reference is, and its files.

use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use command_fds::{CommandFdExt as _, FdMapping};
use percent_encoding::percent_decode_str;
use rustix::fs::{MemfdFlags, memfd_create};
use url::Url;

use super::Uv;
use crate::model::git::{check_reference, check_repository, is_commit};
use crate::spec::pip::PipGit;
use crate::util::{Error, Result, redact};

/// The descriptor at which git's credential helper finds user and password.
const CREDENTIALS: i32 = 9;

/// A helper that prints what is at [`CREDENTIALS`]; git asks it for nothing but that.
const HELPER: &str = "!f() { if test \"$1\" = get; then cat /proc/self/fd/9; fi; }; f";

/// Settings of git that hold for one command (git-config, `GIT_CONFIG_COUNT`).
#[derive(Default)]
struct Configuration(Vec<(String, String)>);

impl Configuration {
    fn set(&mut self, key: impl Into<String>, value: impl Into<String>) {
        self.0.push((key.into(), value.into()));
    }

    fn apply(&self, command: &mut Command) {
        command.env("GIT_CONFIG_COUNT", self.0.len().to_string());
        for (index, (key, value)) in self.0.iter().enumerate() {
            command.env(format!("GIT_CONFIG_KEY_{index}"), key).env(format!("GIT_CONFIG_VALUE_{index}"), value);
        }
    }
}

/// What git is started for, which decides about protocols.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Doing {
    /// The repository itself is read: by the protocol of its URL alone.
    Repository,
    /// Its submodules are read, whose URLs are the repository's own words.
    Submodules,
}

/// git for a repository. It learns user and password from a credential helper that reads them from a descriptor:
/// arguments are for all to see, and an environment for all of the same user.
fn git(uv: &Uv, url: &Url, doing: Doing) -> Result<Command> {
    check_repository(url).map_err(|what| failed(url, &format!("cannot be used: {what}")))?;
    let mut command = uv.command("git");
    // Indexes and their credentials are none of its business.
    let of_uv: Vec<_> = command.get_envs().map(|(name, _)| name.to_owned()).collect();
    for name in of_uv.iter().filter(|name| name.to_string_lossy().starts_with("UV_")) {
        command.env_remove(name);
    }
    command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_OPTIONAL_LOCKS", "0");
    let mut configuration = Configuration::default();
    let is_local = url.scheme() == "file";
    match doing {
        Doing::Repository => drop(command.env("GIT_ALLOW_PROTOCOL", url.scheme())),
        Doing::Submodules if !is_local => {
            let list = if url.scheme() == "http" { "https:ssh:http" } else { "https:ssh" };
            command.env("GIT_ALLOW_PROTOCOL", list);
        }
        // The list above would allow `file` where git itself does not: of submodules, unless the user said so.
        Doing::Submodules => {
            configuration.set("protocol.allow", "never");
            for (protocol, policy) in
                [("https", "always"), ("http", "always"), ("ssh", "always"), ("git", "never"), ("ext", "never")]
            {
                configuration.set(format!("protocol.{protocol}.allow"), policy);
            }
        }
    }
    if url.scheme() != "ssh" && (!url.username().is_empty() || url.password().is_some()) {
        credentials(&mut command, &mut configuration, url)?;
    }
    configuration.apply(&mut command);
    Ok(command)
}

/// Lets git answer the server of a URL with the URL's user and password, and no other server.
fn credentials(command: &mut Command, configuration: &mut Configuration, url: &Url) -> Result<()> {
    let mut root = redact::canonical(url);
    root.set_path("/");
    let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let user = decoded(url.username());
    let Some(password) = url.password().map(decoded) else {
        configuration.set(format!("credential.{root}.username"), user);
        return Ok(());
    };
    // An empty helper is the end of the user's own ones, which would be told to store what the URL has.
    configuration.set(format!("credential.{root}.helper"), "");
    configuration.set(format!("credential.{root}.helper"), HELPER);
    let refused = |error: std::io::Error| Error::user("the system refuses memory for a password").caused_by(error);
    let memory = memfd_create("credentials", MemfdFlags::CLOEXEC).map_err(|error| refused(error.into()))?;
    let mut memory = std::fs::File::from(memory);
    memory.write_all(format!("username={user}\npassword={password}\n").as_bytes()).map_err(refused)?;
    let mapping = FdMapping { parent_fd: memory.into(), child_fd: CREDENTIALS };
    command.fd_mappings(vec![mapping]).map_err(|_| Error::bug("two descriptors of git collide"))?;
    Ok(())
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
    reference.map(check_reference).transpose().map_err(|what| failed(&at.url, &format!("cannot be asked: {what}")))?;
    let mut command = git(uv, &at.url, Doing::Repository)?;
    command.args(["ls-remote", "--end-of-options", &argument(&at.url)]);
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
    if !is_commit(commit) {
        return Err(failed(url, "is locked at no commit"));
    }
    let mut clone = git(uv, url, Doing::Repository)?;
    clone.args(["clone", "--quiet", "--no-checkout", "--end-of-options", &argument(url)]).arg(folder);
    uv.run(clone, |_| failed(url, "cannot be cloned"))?;
    let mut checked = references.iter().map(|reference| check_meaning(uv, url, commit, reference, folder));
    if let Some(first) = checked.next()
        && !(first.is_ok() || checked.any(|it| it.is_ok()))
    {
        first?;
    }
    let inside = |doing: Doing, words: &[&str]| {
        let mut command = git(uv, url, doing)?;
        command.arg("-C").arg(folder).args(words);
        Ok::<_, Error>(command)
    };
    let with = |words: &[&str]| inside(Doing::Repository, words);
    let gone = |_: &str| {
        Error::user(format!("the repository `{}` has no commit {commit}", redact::url(url)))
            .hint("somebody rewrote its history; `condaimg lock --upgrade PACKAGE` takes what the reference is now, unless a file of another tool pins it")
    };
    let exists = uv.run(with(&["cat-file", "-e", "--end-of-options", &format!("{commit}^{{commit}}")])?, gone);
    if exists.is_err() {
        // On no branch: some servers give it when they are asked for it.
        uv.run(with(&["fetch", "--quiet", "--end-of-options", "origin", commit])?, gone)?;
    }
    uv.run(with(&["checkout", "--quiet", "--detach", commit, "--"])?, gone)?;
    uv.run(inside(Doing::Submodules, &["submodule", "--quiet", "update", "--init", "--recursive"])?, |_| {
        failed(url, "has submodules that cannot be had")
    })?;
    let time = uv.run(with(&["show", "--no-patch", "--format=%ct", "--end-of-options", commit])?, gone)?;
    Ok(time.trim().parse().unwrap_or(0))
}

/// Refuses a tag that is another commit now, and a name that is gone: a tag is a promise that it stays. Branches move, so
/// that of these the commit is all that counts.
fn check_meaning(uv: &Uv, url: &Url, commit: &str, reference: &str, clone: &Path) -> Result<()> {
    let is_other = reference == "HEAD" || reference.starts_with("refs/") && !reference.starts_with("refs/tags/");
    if is_other || reference.len() >= 7 && commit.starts_with(&reference.to_ascii_lowercase()) {
        return Ok(());
    }
    let commit_of = |name: &str| {
        let mut command = git(uv, url, Doing::Repository)?;
        command.arg("-C").arg(clone);
        command.args(["rev-parse", "--quiet", "--verify", "--end-of-options", &format!("{name}^{{commit}}")]);
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
