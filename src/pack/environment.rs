//! The environment layer: what belongs to the environment as a whole. Under 10 kB, always last, made of the lock
//! and the base's facts alone: `conda-meta/history` and `state`, the user's home and passwd line, and an
//! entrypoint where activation needs a shell.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::account::Account;
use super::activation::{Shell, order};
use super::layout::ancestors;
use super::login;
use super::metadata::DIRECTORY_MTIME;
use super::segment::Target;
use crate::lock::{Lock, canonical_channel};
use crate::model::{BaseFacts, FolderFacts, User, is_engines_own};
use crate::util::tarball::{self, TarKind};
use crate::util::{Error, Result};

/// Sources the activation scripts that need a shell, then runs its arguments; relative to the prefix.
pub const ENTRYPOINT: &str = "etc/conda/condaimg-entrypoint.sh";

/// Whether the environment's activation needs a shell.
pub fn needs_entrypoint(lock: &Lock) -> bool {
    !order(lock, true).sourced.is_empty()
}

/// What of the image's config the environment layer says, too.
#[derive(Debug, Clone)]
pub struct Session {
    /// Whom processes run as.
    pub user: User,
    /// Name and home of that user.
    pub account: Account,
    /// Variables that condaimg adds to the base's.
    pub variables: BTreeMap<String, String>,
    /// Variables of the base that the image does not have.
    pub removed: BTreeSet<String>,
    /// `PATH` of the image.
    pub path: String,
}

/// Writes the uncompressed tar of the environment layer.
///
/// # Errors
/// Never for a real lock.
pub fn tar(lock: &Lock, target: &Target, session: &Session) -> Result<Vec<u8>> {
    let facts = &lock.base.facts;
    let files = files(lock, target, session)?;
    let account = &session.account;
    let home = account.directory.map(|directory| (account.place.as_str(), directory));
    let mut directories: BTreeSet<&str> = home.iter().map(|(home, _)| *home).collect();
    for path in files.keys().map(String::as_str).chain(home.map(|(home, _)| home)) {
        // What the base has in its root is as engines make it without an entry.
        let is_usual = |ancestor: &str| facts.directories.contains(ancestor) && facts.folder(ancestor).is_none();
        directories.extend(ancestors(path).filter(|ancestor| !is_usual(ancestor)));
    }
    let mut out = Vec::new();
    for directory in directories {
        let of_base = || facts.folder(directory).filter(|_| !target.is_inside(directory));
        let FolderFacts { mode, owner } = match home.filter(|(home, _)| *home == directory) {
            Some((_, of_home)) => of_home,
            None => of_base().unwrap_or_else(|| target.directory(directory)),
        };
        tarball::owned_header(&mut out, directory, TarKind::Directory, (mode, owner), DIRECTORY_MTIME)?;
    }
    for (path, (content, executable)) in &files {
        let usual = FolderFacts { mode: target.modes_at(path).file(*executable), ..FolderFacts::USUAL_FILE };
        let is_passwd = account.passwd.as_ref().is_some_and(|(passwd, _)| passwd == path);
        let FolderFacts { mode, owner } = facts.passwd_mode.filter(|_| is_passwd).unwrap_or(usual);
        let size = content.len() as u64;
        tarball::owned_header(&mut out, path, TarKind::File(size), (mode, owner), DIRECTORY_MTIME)?;
        out.extend_from_slice(content.as_bytes());
        tarball::padding(&mut out, size)?;
    }
    tarball::end(&mut out)?;
    Ok(out)
}

/// The files of the layer: path in the tar → content, and whether it is executable.
///
/// # Errors
/// Never for a real lock.
pub fn files(lock: &Lock, target: &Target, session: &Session) -> Result<BTreeMap<String, (String, bool)>> {
    let mut files = BTreeMap::new();
    files.insert(target.path("conda-meta/history"), (history(lock), false));
    let variables = lock.all_variables();
    if !variables.is_empty() {
        files.insert(target.path("conda-meta/state"), (state(&variables)?, false));
    }
    if needs_entrypoint(lock) {
        files.insert(target.path(ENTRYPOINT), (entrypoint(lock, target), true));
    }
    if let Some((path, passwd)) = session.account.passwd.clone() {
        files.insert(path, (passwd, false));
    }
    if let Some(scripts) = login_scripts(&lock.base.facts) {
        let script = login::script(&format!("{}/bin", target.prefix), &session.path, &session.variables);
        files.insert(format!("{scripts}/{}", login::NAME), (script, false));
    }
    Ok(files)
}

/// Where scripts of login shells go; none where engines mount something over them.
fn login_scripts(facts: &BaseFacts) -> Option<&str> {
    facts.login_scripts.as_deref().filter(|scripts| !is_engines_own(scripts))
}

/// Why there is no script for login shells on a base that would read it.
pub fn login_notice(facts: &BaseFacts) -> Option<String> {
    let scripts = facts.login_scripts.as_deref().filter(|scripts| is_engines_own(scripts))?;
    Some(format!(
        "login shells do not get the image's variables: `/etc/profile.d` of the base leads to `/{scripts}`, and container engines put something else over it"
    ))
}

/// `conda-meta/history` in conda's format: what was asked for and what came of it.
fn history(lock: &Lock) -> String {
    let time = jiff::Timestamp::from_second(lock.newest_build()).unwrap_or_default();
    let mut history = format!("==> {} <==\n# cmd: condaimg build\n", time.strftime("%Y-%m-%d %H:%M:%S"));
    for package in &lock.packages {
        let record = &package.record;
        let channel = record.channel.as_deref().map(canonical_channel).unwrap_or_default();
        let _ = writeln!(history, "+{channel}/{}::{}", record.package_record.subdir, package.full_name());
    }
    let specs = serde_json::to_string(&lock.all_specs()).unwrap_or_default();
    let _ = writeln!(history, "# update specs: {specs}");
    history
}

/// `conda-meta/state`: the variables, where `conda env config vars` looks for them.
fn state(variables: &BTreeMap<String, String>) -> Result<String> {
    let state = serde_json::json!({ "env_vars": variables });
    serde_json::to_string_pretty(&state).map_err(|error| Error::bug("the variables have no JSON form").caused_by(error))
}

fn entrypoint(lock: &Lock, target: &Target) -> String {
    let shell = Shell::of(lock, &target.prefix);
    let is_bash = shell.as_ref().is_some_and(Shell::is_bash);
    let mut text = format!("#!{}\n", shell.as_ref().map_or("/bin/sh", |shell| shell.path.as_str()));
    // `command` keeps dash alive when a script has a syntax error; to bash's `exec`, `-c` and `-l` are options.
    let (source, exec) = if is_bash { (".", "exec --") } else { ("command .", "exec") };
    text.push_str(ENTRY_FUNCTIONS.replace("@source@", source).trim_start());
    for script in order(lock, true).sourced {
        let _ = writeln!(text, "condaimg_activate {}", shell_quote(&format!("{}/{script}", target.prefix)));
    }
    text.push_str(ENTRY_END.replace("@exec@", exec).trim_start());
    text
}

/// Sources scripts in a function, as conda does, so that `set --` in them does not change the command. Their input is
/// empty, so that they do not read the command's. One that fails is told of; one that ends the shell does so aloud.
const ENTRY_FUNCTIONS: &str = r#"
# Made by condaimg: sources the activation scripts that set more than fixed values, then runs the command.
condaimg_source() {
    shift
    @source@ "$condaimg_script" </dev/null
}
condaimg_activate() {
    condaimg_script=$1
    if [ -r "$condaimg_script" ]; then
        condaimg_source "$condaimg_script" ||
            echo "condaimg: the activation script $condaimg_script returned status $?" >&2
    else
        echo "condaimg: the activation script $condaimg_script cannot be read" >&2
    fi
    set +eu
}
condaimg_ended() {
    condaimg_status=$?
    echo "condaimg: the activation script $condaimg_script ended the container with status $condaimg_status" >&2
    [ "$condaimg_status" -ne 0 ] || condaimg_status=1
    exit "$condaimg_status"
}
trap condaimg_ended EXIT
"#;

const ENTRY_END: &str = r#"
trap - EXIT
unset condaimg_script
if [ $# -eq 0 ]; then
    echo "condaimg: no command was given" >&2
    exit 64
fi
@exec@ "$@"
"#;

pub(super) fn shell_quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use rattler_conda_types::Subdir;

    use super::super::account::OfBase;
    use super::super::metadata::ModePolicy;
    use super::*;
    use crate::lock::sample;
    use crate::model::Folders;

    #[test]
    fn the_group_may_write_to_the_environment_and_not_to_the_users_of_the_system() {
        let mut lock = sample::lock(Vec::new());
        lock.base.facts.login_scripts = Some("run/profile.d".to_owned());
        let target = Target {
            prefix: "/opt/env".to_owned(),
            root: "opt/env".to_owned(),
            subdir: Subdir::Linux64,
            python: None,
            modes: ModePolicy { group_write: true },
            folders: Folders::default(),
            keep_setuid: false,
        };
        let user = User { uid: 1000, gid: 0 };
        let session = Session {
            user,
            account: Account::new(&lock.base.facts, user, OfBase::default(), &target.root, false).expect("an account"),
            variables: BTreeMap::new(),
            removed: BTreeSet::new(),
            path: "/opt/env/bin".to_owned(),
        };
        let modes = |lock: &Lock| {
            let tar = tar(lock, &target, &session).expect("writes");
            let mut archive = ::tar::Archive::new(&tar[..]);
            let modes = archive.entries().expect("reads").map(|entry| {
                let entry = entry.expect("an entry");
                let path = String::from_utf8(entry.path_bytes().into_owned()).expect("text");
                (path, entry.header().mode().expect("a mode"), entry.header().uid().expect("a number"))
            });
            modes.collect::<Vec<_>>()
        };
        let expected = [
            ("etc/", 0o755),
            ("home/", 0o755),
            ("home/conda/", 0o1777),
            ("opt/", 0o755),
            ("opt/env/", 0o775),
            ("opt/env/conda-meta/", 0o775),
            ("etc/passwd", 0o644),
            ("opt/env/conda-meta/history", 0o664),
        ]
        .map(|(path, mode)| (path.to_owned(), mode, if path == "home/conda/" { 1000 } else { 0 }));
        assert_eq!(modes(&lock), expected);
        assert!(login_notice(&lock.base.facts).is_some_and(|notice| notice.contains("/run/profile.d")));
        // The base's own mode and owner stay.
        lock.base.facts.passwd_mode = Some(FolderFacts { mode: 0o664, owner: (7, 0) });
        assert!(modes(&lock).contains(&("etc/passwd".to_owned(), 0o664, 7)));
    }
}
