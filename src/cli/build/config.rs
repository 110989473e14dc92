//! What the image says: user, variables, entrypoint, labels.

use std::collections::{BTreeMap, BTreeSet};

use super::options::Options;
use crate::cli::world::World;
use crate::image::{self, Assembly, Base, Image};
use crate::lock::{self, ActivationStep, Lock, LockedPackage, RESERVED_VARIABLES, UNSET};
use crate::model::{self, BaseFacts, LAYOUT_VERSION, LayerBlob, Parameters, Platform, User};
use crate::pack::account::{Account, OfBase, Origin};
use crate::pack::activation::{self, State};
use crate::pack::environment::{self, ENTRYPOINT, Session};
use crate::util::{Digest, Error, Result};

/// The user of images whose base runs as root.
const DEFAULT_USER: User = User { uid: 1000, gid: 0 };

/// Flag, then the base's user when it is not root, then 1000:0.
pub fn user(options: &Options, lock: &Lock, base: &Base, world: &World) -> User {
    if let Some(user) = options.parameters.image.user {
        return user;
    }
    let named = user_of_base(base);
    if named.is_empty() || named == "root" || named == "0" || named.starts_with("0:") || named.starts_with("root:") {
        return DEFAULT_USER;
    }
    // Root may have other names, too.
    let found = numeric(&named, &lock.base.facts).map(|user| if user.uid == 0 { DEFAULT_USER } else { user });
    found.unwrap_or_else(|| {
        world.reporter.warn(&format!(
            "the base's user `{named}` is not in its /etc/passwd: the image runs as {DEFAULT_USER} instead"
        ));
        DEFAULT_USER
    })
}

fn user_of_base(base: &Base) -> String {
    base.config.config().as_ref().and_then(|config| config.user().clone()).unwrap_or_default()
}

/// Whether the image's user is the one of the base, whose `HOME` then counts.
fn is_of_base(lock: &Lock, base: &Base, user: User) -> bool {
    numeric(&user_of_base(base), &lock.base.facts).is_some_and(|of_base| of_base.uid == user.uid)
}

/// What the config and the environment layer say of processes: their user, home and variables.
///
/// # Errors
/// Symlinks of the base that lead nowhere; variables that no program can have.
pub fn session(options: &Options, lock: &Lock, base: &Base, user: User) -> Result<Session> {
    let facts = &lock.base.facts;
    let is_of_base = is_of_base(lock, base, user);
    let home = image::variable_of(base, "HOME").filter(|_| is_of_base);
    let named = user_of_base(base);
    let name = named.split(':').next().filter(|_| is_of_base);
    let root = facts.resolve(&options.parameters.prefix)?;
    let of_base = OfBase { name, home: home.as_deref() };
    let account = Account::new(facts, user, of_base, &root, options.parameters.image.keep_home_mode)?;
    let State { variables, removed, path, .. } = variables(options, lock, base, user, &account)?;
    let path = variables.get("PATH").cloned().unwrap_or(path);
    Ok(Session { user, account, variables, removed, path })
}

/// Says what becomes of a home that the base has, and who cannot reach the image's.
pub fn tell_home(session: &Session, lock: &Lock, base: &Base, world: &World) {
    let (facts, account, user) = (&lock.base.facts, &session.account, session.user);
    let Account { home, name, place, origin, .. } = account;
    let replaced = image::variable_of(base, "HOME").filter(|_| is_of_base(lock, base, user));
    if let Some(replaced) = replaced.filter(|it| it != home && session.variables.get("HOME") == Some(home)) {
        world.reporter.notice(&format!(
            "the HOME is `{home}`: `{replaced}`, which the base has, is no directory that `{name}` may write to"
        ));
    }
    let closed = |user| {
        facts
            .closed_above(place, user)
            .map(|(folder, of)| format!("`/{folder}` of the base is closed to them (`{}`)", String::from(of)))
    };
    if let Some(why) = closed(Some(user)) {
        world.reporter.warn(&format!(
            "the image's user `{name}` cannot reach its home `{home}`: {why}; choose another `--user`, or another base"
        ));
        return;
    }
    if let (Some(why), Origin::Made | Origin::Open | Origin::Opened) = (closed(None), origin) {
        world.reporter.notice(&format!("users other than `{name}` may not reach its home `{home}`: {why}"));
        return;
    }
    match origin {
        Origin::Environment => world.reporter.notice(&format!(
            "`{home}`, the home of `{name}` in the base, is not opened for other users: the environment is in it"
        )),
        Origin::Shared => world.reporter.notice(&format!(
            "`{home}`, the HOME of the base, stays as it is: users that may not write to it (`docker run --user`) have no HOME"
        )),
        Origin::Opened => world.reporter.notice(&format!(
            "every user may write to `{home}`, the home of `{name}` in the base (sticky, owner and group stay); `--keep-home-mode` leaves it as it is"
        )),
        Origin::Kept => world.reporter.notice(&format!(
            "`--keep-home-mode`: only `{name}` may write to `{home}`; other users (`docker run --user`) have no HOME"
        )),
        Origin::Made | Origin::Open => {}
    }
}

/// A user by number or name, as the base's own files say.
fn numeric(named: &str, facts: &BaseFacts) -> Option<User> {
    let (user, group) = named.split_once(':').map_or((named, None), |(user, group)| (user, Some(group)));
    let passwd = facts.passwd.as_deref().unwrap_or_default();
    let groups = facts.group.as_deref().unwrap_or_default();
    let line = passwd
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| fields.first() == Some(&user) || fields.get(2) == Some(&user));
    let uid = user.parse().ok().or_else(|| line.as_ref()?.get(2)?.parse().ok())?;
    let gid = match group {
        Some(group) => group.parse().ok().or_else(|| {
            let line =
                groups.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|it| it.first() == Some(&group))?;
            line.get(2)?.parse().ok()
        })?,
        None => line.and_then(|fields| fields.get(3)?.parse().ok()).unwrap_or(0),
    };
    Some(User { uid, gid })
}

/// Says which activation scripts hold only behind the entrypoint, and which will fail.
pub fn tell_activation(options: &Options, lock: &Lock, world: &World) {
    match options.parameters.no_activation {
        false => activation::warnings(lock).iter().for_each(|warning| world.reporter.warn(warning)),
        true if environment::needs_entrypoint(lock) => world.reporter.notice(&format!(
            "`--no-activation`: the activation scripts that need a shell are not sourced; `{}/{ENTRYPOINT} COMMAND` does it",
            options.parameters.prefix
        )),
        true => {}
    }
}

/// Whether the image's entrypoint begins with the entry script. One that cannot start would keep everything else from
/// starting.
fn activates(parameters: &Parameters, lock: &Lock) -> bool {
    let is_wanted = environment::needs_entrypoint(lock) && !parameters.no_activation;
    is_wanted && activation::Shell::of(lock, &parameters.prefix).is_some()
}

/// What the container's first process is: activation where it needs a shell, then the user's own entrypoint.
fn entrypoint(parameters: &Parameters, lock: &Lock) -> Option<Vec<String>> {
    let wished = parameters.image.entrypoint.clone();
    if !activates(parameters, lock) {
        return wished;
    }
    let ours = format!("{}/{ENTRYPOINT}", parameters.prefix);
    Some(std::iter::once(ours).chain(wished.unwrap_or_default()).collect())
}

/// Assembles the image.
pub fn image(
    options: &Options,
    platform: &Platform,
    lock: &Lock,
    lock_digest: Digest,
    base: &Base,
    layers: impl Iterator<Item = LayerBlob>,
    session: Session,
) -> Result<Image> {
    let parameters = &options.parameters;
    let wishes = &parameters.image;
    let labels = with_ours(&wishes.labels, lock_digest);
    let annotations = with_ours(&wishes.annotations, lock_digest);
    image::assemble(Assembly {
        platform,
        base,
        layers: layers.collect(),
        env: session.variables,
        removed: session.removed,
        path_prefix: vec![format!("{}/bin", parameters.prefix)],
        user: session.user,
        entrypoint: entrypoint(parameters, lock),
        // With an entrypoint of the user's, a command of ours would only be in its way.
        cmd: wishes.cmd.clone().or_else(|| {
            let wanted = wishes.entrypoint.is_none() && lock.package("python").is_some();
            wanted.then(|| vec!["python".to_owned()])
        }),
        workdir: wishes.workdir.clone(),
        labels,
        annotations,
        created: parameters.source_date_epoch.unwrap_or_else(|| lock.created(base.created())),
    })
}

/// What every image says of itself; what the user says goes before it.
fn with_ours(theirs: &BTreeMap<String, String>, lock_digest: Digest) -> BTreeMap<String, String> {
    let mut all = BTreeMap::from([
        (lock::LABEL.to_owned(), lock_digest.to_string()),
        ("dev.condaimg.layout-version".to_owned(), LAYOUT_VERSION.to_string()),
    ]);
    all.extend(theirs.clone());
    all
}

/// The variables of the activated environment: conda's own, `env_vars.d`, `variables:`, then what the activation
/// scripts do, in conda's order; `--env` has the last word. A base that a lock of ours describes has those of its own
/// environment already, and perhaps others on purpose.
fn variables(options: &Options, lock: &Lock, base: &Base, user: User, account: &Account) -> Result<State> {
    let prefix = &options.parameters.prefix;
    let name = prefix.rsplit('/').next().unwrap_or(prefix);
    let mut variables = BTreeMap::from([
        ("CONDA_PREFIX".to_owned(), prefix.clone()),
        ("CONDA_DEFAULT_ENV".to_owned(), name.to_owned()),
        ("HOME".to_owned(), account.home.clone()),
        ("USER".to_owned(), account.name.clone()),
    ]);
    let is_active = lock.extended().is_some_and(|extended| extended.lock.is_some());
    if is_active && is_of_base(lock, base, user) && image::variable_of(base, "HOME").is_some() {
        variables.remove("HOME");
    }
    let mut state = State {
        variables,
        removed: BTreeSet::new(),
        of_base: image::variable_names(base),
        path: image::path(base, &[format!("{prefix}/bin")]),
    };
    let order = activation::order(lock, activates(&options.parameters, lock));
    let reserved = |step: &ActivationStep| RESERVED_VARIABLES.contains(&step.name.as_str());
    // Older locks may hold some.
    for step in order.variables.into_iter().filter(|step| !reserved(step)) {
        apply(&mut state, step, lock)?;
    }
    // Marked as removed, although a package sets it.
    state.variables.retain(|name, _| lock.variables.get(name).is_none_or(|value| value != UNSET));
    let declared = if is_active { lock.own_variables() } else { lock.all_variables() };
    declared.into_iter().for_each(|(name, value)| state.set(name, value));
    for step in order.steps {
        apply(&mut state, step, lock)?;
    }
    if lock.extended().is_some()
        && let Some(path) = state.variables.get_mut("PATH")
    {
        // The base's own may have what its activation puts there.
        *path = each_once(path);
    }
    options.parameters.image.env.clone().into_iter().for_each(|(name, value)| state.set(name, value));
    match state.variables.iter().find(|(name, value)| !model::variable_fits(name, value)) {
        Some((name, value)) => Err(too_long(name, value.len(), options, lock)),
        None => Ok(state),
    }
}

fn too_long(name: &str, length: usize, options: &Options, lock: &Lock) -> Error {
    let place = match () {
        () if options.parameters.image.env.contains_key(name) => "`--env` (`image.env`)",
        () if lock.all_variables().contains_key(name) => "`variables:`",
        () => "an activation script",
    };
    Error::user(format!(
        "{place} makes `{name}` too long for any program to start: {length} bytes, and Linux takes {} at most",
        model::longest_value(name)
    ))
    .hint("put the value into a file of the image, and its path into the variable")
}

fn apply(state: &mut State, step: &ActivationStep, lock: &Lock) -> Result<()> {
    state.apply(step).ok_or_else(|| {
        let brings = |package: &&LockedPackage| package.facts.activation.steps.contains(step);
        let package = lock.packages.iter().find(brings).map_or("the base", LockedPackage::name);
        Error::user(format!("`{}` of `{package}` makes `{}` too long for any program to start", step.file, step.name))
            .hint(format!("tell the maintainers of `{package}`"))
    })
}

/// The folders of a `PATH`, each where it is first.
fn each_once(path: &str) -> String {
    let mut folders: Vec<&str> = Vec::new();
    for folder in path.split(':') {
        if !folders.contains(&folder) {
            folders.push(folder);
        }
    }
    folders.join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_name_and_number() {
        let facts = BaseFacts {
            passwd: Some("root:x:0:0::/root:/bin/sh\nweb:x:33:34::/:/bin/sh".into()),
            group: Some("root:x:0:\nstaff:x:50:".into()),
            ..BaseFacts::default()
        };
        for (named, expected) in [
            ("web", Some(User { uid: 33, gid: 34 })),
            ("web:staff", Some(User { uid: 33, gid: 50 })),
            ("33", Some(User { uid: 33, gid: 34 })),
            ("65532:65532", Some(User { uid: 65532, gid: 65532 })),
            ("nobody", None),
        ] {
            assert_eq!(numeric(named, &facts), expected, "{named}");
        }
    }
}
