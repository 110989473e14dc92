//! The environment layer: what belongs to the environment as a whole. Under 10 kB, always last, made of the lock
//! and the base's facts alone: `conda-meta/history` and `state`, the user's home and passwd line, and an
//! entrypoint where activation needs a shell.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::activation::Shell;
use super::layout::ancestors;
use super::metadata::DIRECTORY_MTIME;
use super::segment::Target;
use crate::lock::{Lock, canonical_channel};
use crate::model::{FolderFacts, User};
use crate::util::tarball::{self, TarKind};
use crate::util::{Error, Result};

/// The home folder of the image's user.
pub const HOME: &str = "/home/conda";
/// The name of the image's user, where a passwd line has to be added.
pub const USER_NAME: &str = "conda";
/// Sources the activation scripts that need a shell, then runs its arguments; relative to the prefix.
pub const ENTRYPOINT: &str = "etc/conda/condaimg-entrypoint.sh";

/// Whether the environment's activation needs a shell.
pub fn needs_entrypoint(lock: &Lock) -> bool {
    lock.packages.iter().any(|package| !package.facts.activation.dynamic.is_empty())
}

/// Writes the uncompressed tar of the environment layer.
///
/// # Errors
/// Never for a real lock.
pub fn tar(lock: &Lock, target: &Target, user: User) -> Result<Vec<u8>> {
    let facts = &lock.base.facts;
    let files = files(lock, target, user)?;
    let home = facts.resolve(HOME);
    let mut directories: BTreeSet<&str> = BTreeSet::from([home.as_str()]);
    for path in files.keys().chain([&home]) {
        // What the base has keeps the base's mode.
        let known = |ancestor: &&str| !facts.directories.contains(*ancestor);
        directories.extend(ancestors(path).filter(known));
    }
    let mut out = Vec::new();
    for directory in directories {
        // The group may write into the home: arbitrary users are in group 0.
        let of_home = FolderFacts { mode: 0o775, ..FolderFacts::USUAL };
        let FolderFacts { mode, owner } = if directory == home { of_home } else { target.directory(directory) };
        tarball::owned_header(&mut out, directory, TarKind::Directory, (mode, owner), DIRECTORY_MTIME)?;
    }
    for (path, (content, executable)) in &files {
        let mode = target.modes_at(path).file(*executable);
        tarball::file(&mut out, path, content.as_bytes(), mode, DIRECTORY_MTIME)?;
    }
    tarball::end(&mut out)?;
    Ok(out)
}

/// The files of the layer: path in the tar → content, and whether it is executable.
///
/// # Errors
/// Never for a real lock.
pub fn files(lock: &Lock, target: &Target, user: User) -> Result<BTreeMap<String, (String, bool)>> {
    let mut files = BTreeMap::new();
    files.insert(target.path("conda-meta/history"), (history(lock), false));
    let variables = lock.all_variables();
    if !variables.is_empty() {
        files.insert(target.path("conda-meta/state"), (state(&variables)?, false));
    }
    if needs_entrypoint(lock) {
        files.insert(target.path(ENTRYPOINT), (entrypoint(lock, target), true));
    }
    let facts = &lock.base.facts;
    if let Some(passwd) = passwd_with(facts.passwd.as_deref(), user) {
        files.insert(facts.resolve("etc/passwd"), (passwd, false));
    }
    Ok(files)
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
    let scripts: BTreeSet<&str> =
        lock.packages.iter().flat_map(|package| &package.facts.activation.dynamic).map(String::as_str).collect();
    let shell = Shell::of(lock, &target.prefix);
    let is_bash = shell.as_ref().is_some_and(Shell::is_bash);
    let mut text = format!("#!{}\n", shell.as_ref().map_or("/bin/sh", |shell| shell.path.as_str()));
    // `command` keeps dash alive when a script has a syntax error; to bash's `exec`, `-c` and `-l` are options.
    let (source, exec) = if is_bash { (".", "exec --") } else { ("command .", "exec") };
    text.push_str(ENTRY_FUNCTIONS.replace("@source@", source).trim_start());
    for script in scripts {
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

fn shell_quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// The base's passwd with a line for the user; nothing when the user is in it already.
fn passwd_with(passwd: Option<&str>, user: User) -> Option<String> {
    let lines = passwd.unwrap_or_default();
    let uid = user.uid.to_string();
    if lines.lines().any(|line| line.split(':').nth(2) == Some(uid.as_str())) {
        return None;
    }
    let mut text = match lines.is_empty() {
        true => "root:x:0:0:root:/root:/bin/sh\n".to_owned(),
        false => lines.to_owned(),
    };
    if !text.ends_with('\n') {
        text.push('\n');
    }
    let taken = |name: &str| text.lines().any(|line| line.split(':').next() == Some(name));
    let name = if taken(USER_NAME) { format!("{USER_NAME}{uid}") } else { USER_NAME.to_owned() };
    let _ = writeln!(text, "{name}:x:{uid}:{}:condaimg:{HOME}:/bin/sh", user.gid);
    Some(text)
}

/// The name of the user in the image, for `USER`.
pub fn user_name(passwd: Option<&str>, user: User) -> String {
    let uid = user.uid.to_string();
    let mut names = passwd.unwrap_or_default().lines().map(|line| line.split(':').collect::<Vec<_>>());
    names
        .find(|fields| fields.get(2) == Some(&uid.as_str()))
        .and_then(|fields| fields.first().map(|name| (*name).to_owned()))
        .unwrap_or_else(|| USER_NAME.to_owned())
}

#[cfg(test)]
mod tests {
    use rattler_conda_types::Subdir;

    use super::super::metadata::ModePolicy;
    use super::*;
    use crate::lock::sample;

    #[test]
    fn the_group_may_write_to_the_environment_and_not_to_the_users_of_the_system() {
        let lock = sample::lock(Vec::new());
        let target = Target {
            prefix: "/opt/env".to_owned(),
            root: "opt/env".to_owned(),
            subdir: Subdir::Linux64,
            python: None,
            modes: ModePolicy { group_write: true },
            folders: BTreeMap::new(),
        };
        let tar = tar(&lock, &target, User { uid: 1000, gid: 0 }).expect("writes");
        let mut archive = ::tar::Archive::new(&tar[..]);
        let modes = archive.entries().expect("reads").map(|entry| {
            let entry = entry.expect("an entry");
            let path = String::from_utf8(entry.path_bytes().into_owned()).expect("text");
            (path, entry.header().mode().expect("a mode"))
        });
        let expected = [
            ("etc/", 0o755),
            ("home/", 0o755),
            ("home/conda/", 0o775),
            ("opt/", 0o755),
            ("opt/env/", 0o775),
            ("opt/env/conda-meta/", 0o775),
            ("etc/passwd", 0o644),
            ("opt/env/conda-meta/history", 0o664),
        ]
        .map(|(path, mode)| (path.to_owned(), mode));
        assert_eq!(modes.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_passwd_line_is_added_only_when_the_user_is_unknown() {
        let base = "root:x:0:0:root:/root:/bin/sh\nnode:x:1000:1000::/home/node:/bin/sh";
        assert_eq!(passwd_with(Some(base), User { uid: 1000, gid: 0 }), None);
        let added = passwd_with(Some(base), User { uid: 1001, gid: 0 }).expect("a new passwd");
        assert!(added.starts_with(base) && added.ends_with("\nconda:x:1001:0:condaimg:/home/conda:/bin/sh\n"));
        assert!(passwd_with(None, User { uid: 1000, gid: 0 }).expect("a new passwd").starts_with("root:"));
        assert_eq!(user_name(Some(base), User { uid: 1000, gid: 0 }), "node");
    }
}
