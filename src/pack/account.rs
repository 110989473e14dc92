//! The account that an image's processes run as: its name, its line in `/etc/passwd`, and its home.
//!
//! A home that condaimg makes can be written by every user: engines and CI systems run images as whomever they like. The
//! home of a user of the base stays where it is, and is opened for others unless that is refused.

use std::collections::BTreeSet;

use crate::model::{BaseFacts, FolderFacts, User, is_engines_own};
use crate::util::{Error, Result};

/// Name of the account that is added, and of its home.
const NAME: &str = "conda";
/// Where homes are made: the first that engines mount nothing over.
const HOMES: [&str; 3] = ["/home", "/srv", "/opt"];
/// Mode of a home that condaimg makes, as that of `/tmp`.
const HOME_MODE: u32 = 0o1777;
/// What a home of the base's gets, so that others can work there and leave the owner's files alone.
const OPEN: u32 = 0o1007;
/// To add files to a folder.
const WRITE: u32 = 0o3;

/// What the environment layer and the config say of the image's user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Value of `USER`.
    pub name: String,
    /// Value of `HOME`.
    pub home: String,
    /// Where its home is, symlinks resolved; without a leading slash.
    pub place: String,
    /// Mode and owner that its home gets; none if it stays as it is.
    pub directory: Option<FolderFacts>,
    /// File of users, symlinks resolved, and its new content; none if it stays as it is.
    pub passwd: Option<(String, String)>,
    /// Whose home it is.
    pub origin: Origin,
}

/// Whose home the account's is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Made by condaimg.
    Made,
    /// Of the base, for everybody as it is.
    Open,
    /// Of the base, opened for everybody.
    Opened,
    /// Of the base, for its user alone, as was asked for.
    Kept,
    /// Of the base, in a directory that is not the user's own, who may write to it all the same.
    Shared,
    /// Of the base, and the environment is in it: it is not opened.
    Environment,
}

/// What the base says of the user, if the user is the base's own.
#[derive(Debug, Clone, Copy, Default)]
pub struct OfBase<'a> {
    /// Its name, where the base gives one and not a number.
    pub name: Option<&'a str>,
    /// Value of `HOME`.
    pub home: Option<&'a str>,
}

impl Account {
    /// The account of a user on a base. `root` is where the environment lies, symlinks resolved, without a leading slash.
    ///
    /// # Errors
    /// Symlinks of the base that lead nowhere; a base with no place for a home; a file of users that is not text.
    pub fn new(facts: &BaseFacts, user: User, of_base: OfBase<'_>, root: &str, keep_mode: bool) -> Result<Self> {
        let lines: Vec<Line<'_>> =
            facts.passwd.as_deref().unwrap_or_default().lines().filter_map(Line::parse).collect();
        let mut theirs = lines.iter().filter(|line| line.uid == user.uid);
        let named = theirs.clone().find(|line| of_base.name == Some(line.name));
        let line = named.or_else(|| theirs.next());
        let name = match line {
            Some(line) => line.name.to_owned(),
            None if user.uid == 0 => "root".to_owned(),
            None => first_free(NAME, user, |name| Ok(!lines.iter().any(|line| line.name == name)))?,
        };
        for own in of_base.home.into_iter().chain(line.map(|line| line.home)) {
            let place = facts.resolve(own)?;
            if of_base.home == Some(own) && is_engines_own(&place) {
                return Ok(Self::of_base(name, own, (place, None), root, keep_mode));
            }
            // Root's home is nobody else's business.
            let Some(folder) = facts.folder(&place).filter(|_| user.uid != 0) else { continue };
            if folder.owner.0 == u64::from(user.uid) {
                return Ok(Self::of_base(name, own, (place, Some(folder)), root, keep_mode));
            }
            // The directory of the base's `HOME` may be root's, and the user write to it by its group.
            if of_base.home == Some(own) && folder.allows(Some(user), WRITE) {
                let home = Self::of_base(name, own, (place, None), root, keep_mode);
                return Ok(Self {
                    origin: if folder.allows(None, WRITE) { Origin::Open } else { Origin::Shared },
                    ..home
                });
            }
        }
        let home = made_home(facts, &lines, user, root)?;
        Ok(Self {
            place: facts.resolve(&home)?,
            directory: Some(FolderFacts { mode: HOME_MODE, owner: (u64::from(user.uid), 0) }),
            passwd: if line.is_some() { None } else { passwd(facts, &name, &home, user)? },
            origin: Origin::Made,
            name,
            home,
        })
    }

    fn of_base(
        name: String,
        home: &str,
        (place, theirs): (String, Option<FolderFacts>),
        root: &str,
        keep_mode: bool,
    ) -> Self {
        let opened =
            theirs.map(|theirs| FolderFacts { mode: theirs.mode | OPEN, ..theirs }).filter(|it| Some(*it) != theirs);
        let has_environment =
            root.strip_prefix(place.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        let origin = match (opened, keep_mode, has_environment) {
            (None, ..) => Origin::Open,
            (_, true, _) => Origin::Kept,
            (_, _, true) => Origin::Environment,
            (_, false, false) => Origin::Opened,
        };
        let directory = opened.filter(|_| origin == Origin::Opened);
        Self { name, home: home.to_owned(), place, directory, passwd: None, origin }
    }
}

/// A line of `/etc/passwd`.
struct Line<'a> {
    name: &'a str,
    uid: u32,
    home: &'a str,
}

impl<'a> Line<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let fields: Vec<&str> = line.split(':').collect();
        Some(Self { name: fields.first()?, uid: fields.get(2)?.parse().ok()?, home: fields.get(5)? })
    }
}

/// The first that is free: the name, the name with the number of the user, and then with one more number.
fn first_free(name: &str, user: User, is_free: impl Fn(&str) -> Result<bool>) -> Result<String> {
    let numbered = format!("{name}{}", user.uid);
    let more = (2_u32..).map(|number| format!("{numbered}-{number}"));
    for candidate in [name.to_owned(), numbered.clone()].into_iter().chain(more) {
        if is_free(&candidate)? {
            return Ok(candidate);
        }
    }
    Err(Error::bug("no name is free"))
}

/// Where a home is made: not where somebody else has one, nor the environment is, nor engines mount something.
fn made_home(facts: &BaseFacts, lines: &[Line<'_>], user: User, root: &str) -> Result<String> {
    let homes: BTreeSet<String> = lines
        .iter()
        .filter(|line| line.uid != user.uid)
        .map(|line| facts.resolve(line.home).unwrap_or_else(|_| line.home.trim_matches('/').to_owned()))
        .collect();
    let of_other = |uid: u64| uid != u64::from(user.uid) && uid != 0;
    for parent in HOMES {
        if is_engines_own(&facts.resolve(&format!("{parent}/{NAME}"))?) {
            continue;
        }
        return first_free(&format!("{parent}/{NAME}"), user, |home| {
            let place = facts.resolve(home)?;
            let is_others = facts.folder(&place).is_some_and(|of| of_other(of.owner.0));
            Ok(!is_others && !homes.contains(&place) && place != root && !is_engines_own(&place))
        });
    }
    Err(Error::user(format!(
        "failed to make a home: {} of the base lead to where engines mount something",
        HOMES.join(", ")
    ))
    .hint("choose another base"))
}

/// The base's users and one more.
fn passwd(facts: &BaseFacts, name: &str, home: &str, user: User) -> Result<Option<(String, String)>> {
    let path = match &facts.passwd_path {
        Some(path) => path.clone(),
        None => facts.resolve("etc/passwd")?,
    };
    if is_engines_own(&path) {
        return Ok(None);
    }
    let mut text = facts.passwd.clone().unwrap_or_default();
    // What was read in its place is not what the file has.
    if text.contains(char::REPLACEMENT_CHARACTER) {
        return Err(Error::user(format!(
            "failed to add the user `{name}` to `/{path}` of the base: the file is not UTF-8"
        ))
        .hint("choose a `--user` that the file has, or another base"));
    }
    if text.is_empty() && user.uid != 0 {
        text = "root:x:0:0:root:/root:/bin/sh\n".to_owned();
    }
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    // No password, and none to be looked for in `/etc/shadow`, without which PAM would refuse `su` to the account.
    text.push_str(&format!("{name}:*:{}:{}:condaimg:{home}:/bin/sh\n", user.uid, user.gid));
    Ok(Some((path, text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const USER: User = User { uid: 1000, gid: 0 };
    const ROOT: &str = "opt/conda/envs/default";

    fn base(passwd: &str, folders: &[(&str, u32, u64, u64)]) -> BaseFacts {
        let folder = |&(path, mode, uid, gid): &(&str, u32, u64, u64)| {
            (path.to_owned(), FolderFacts { mode, owner: (uid, gid) })
        };
        BaseFacts {
            passwd: Some(passwd.to_owned()).filter(|passwd| !passwd.is_empty()),
            folders: folders.iter().map(folder).collect(),
            ..BaseFacts::default()
        }
    }

    fn account(facts: &BaseFacts, user: User, home: Option<&str>) -> Account {
        Account::new(facts, user, OfBase { home, name: None }, ROOT, false).expect("an account")
    }

    #[test]
    fn unknown_users_get_a_line_and_an_open_home() {
        let made = account(&base("root:x:0:0::/root:/bin/sh\nweb:x:33:33::/:/bin/sh", &[]), USER, None);
        let (path, passwd) = made.passwd.expect("a new passwd");
        assert!(
            path == "etc/passwd"
                && passwd.ends_with("\nweb:x:33:33::/:/bin/sh\nconda:*:1000:0:condaimg:/home/conda:/bin/sh\n")
        );
        assert_eq!((made.name.as_str(), made.home.as_str(), made.origin), ("conda", "/home/conda", Origin::Made));
        assert_eq!(made.directory, Some(FolderFacts { mode: 0o1777, owner: (1000, 0) }));
        let scratch = account(&base("", &[]), USER, None).passwd.expect("a new passwd").1;
        assert!(scratch.starts_with("root:x:0:0:") && scratch.lines().count() == 2, "{scratch}");
    }

    #[test]
    fn root_has_one_line_and_no_open_home_of_the_base() {
        let root = User { uid: 0, gid: 0 };
        let scratch = account(&base("", &[]), root, None);
        assert_eq!(scratch.passwd.as_ref().map(|(_, text)| text.lines().count()), Some(1));
        assert_eq!(scratch.name, "root");
        let known = account(&base("root:x:0:0::/root:/bin/sh\n", &[("root", 0o700, 0, 0)]), root, Some("/root"));
        assert_eq!((known.passwd, known.home.as_str()), (None, "/home/conda"));
    }

    #[test]
    fn a_users_own_home_stays_and_is_opened() {
        let facts = base("jovyan:x:1000:100::/home/jovyan:/bin/sh\n", &[("home/jovyan", 0o2750, 1000, 100)]);
        let own = account(&facts, USER, None);
        assert_eq!((own.name.as_str(), own.home.as_str(), own.origin), ("jovyan", "/home/jovyan", Origin::Opened));
        assert_eq!(own.directory, Some(FolderFacts { mode: 0o3757, owner: (1000, 100) }));
        assert_eq!(own.passwd, None);
        let kept = Account::new(&facts, USER, OfBase::default(), ROOT, true).expect("an account");
        assert_eq!((kept.directory, kept.origin), (None, Origin::Kept));
        // Open already.
        let open = base("conda:x:1000:0::/home/conda:/bin/sh\n", &[("home/conda", 0o1777, 1000, 0)]);
        assert_eq!(account(&open, USER, None).origin, Origin::Open);
    }

    #[test]
    fn what_is_no_home_of_the_users_own_is_left_alone() {
        // System users: the directory is root's, or not there.
        for home in ["/usr/sbin", "/nonexistent", "/", "/var/www"] {
            let facts = base(&format!("web:x:33:33::{home}:/bin/sh\n"), &[("var/www", 0o2775, 0, 33)]);
            let made = account(&facts, User { uid: 33, gid: 33 }, None);
            assert_eq!((made.name.as_str(), made.home.as_str(), made.passwd), ("web", "/home/conda", None), "{home}");
        }
        // Somebody else is called so, or lives there.
        let named = account(&base("conda:x:1001:1001::/srv/conda:/bin/sh\n", &[]), USER, None);
        assert_eq!((named.name.as_str(), named.home.as_str()), ("conda1000", "/home/conda"));
        let lives = account(&base("conda:x:1001:1001::/home/conda:/bin/sh\n", &[]), USER, None);
        assert_eq!((lives.name.as_str(), lives.home.as_str()), ("conda1000", "/home/conda1000"));
        let there = account(&base("", &[("home/conda", 0o755, 1001, 1001)]), USER, None);
        assert_eq!(there.home, "/home/conda1000");
    }

    #[test]
    fn the_bases_own_home_counts_before_its_passwd() {
        let folders = [("var/home/me", 0o755, 1000, 1000), ("data", 0o755, 1000, 1000)];
        let mut facts = base("me:x:1000:1000::/home/me:/bin/sh\n", &folders);
        facts.symlinks.insert("home".to_owned(), "var/home".to_owned());
        let by_line = account(&facts, USER, None);
        assert_eq!((by_line.home.as_str(), by_line.place.as_str()), ("/home/me", "var/home/me"));
        assert_eq!(account(&facts, USER, Some("/data")).home, "/data");
        assert_eq!(account(&facts, USER, Some("/elsewhere")).home, "/home/me");
        assert_eq!(account(&facts, USER, Some("/tmp")).directory, None);
    }

    #[test]
    fn users_are_added_where_the_link_leads() {
        let mut facts = base("root:x:0:0::/root:/bin/sh\n", &[]);
        facts.passwd_path = Some("usr/lib/passwd".to_owned());
        assert_eq!(account(&facts, USER, None).passwd.map(|it| it.0).as_deref(), Some("usr/lib/passwd"));
        facts.passwd_path = Some("run/passwd".to_owned());
        assert_eq!(account(&facts, USER, None).passwd, None);
    }

    #[test]
    fn names_and_homes_of_others_are_never_taken() {
        let users = "conda:x:1001:1001::/home/conda:/bin/sh\nconda1000:x:1002:1002::/home/conda1000:/bin/sh\n";
        let made = account(&base(users, &[]), USER, None);
        assert_eq!((made.name.as_str(), made.home.as_str()), ("conda1000-2", "/home/conda1000-2"));
        // By their directories, and by another path to the same place.
        let mut facts = base("a:x:7:7::/var/home/conda:/bin/sh\n", &[("var/home/conda1000", 0o755, 8, 8)]);
        facts.symlinks.insert("home".to_owned(), "var/home".to_owned());
        assert_eq!(account(&facts, USER, None).place, "var/home/conda1000-2");
        // The environment's own place is no home either.
        let beside = Account::new(&base("", &[]), USER, OfBase::default(), "home/conda", false).expect("an account");
        assert_eq!(beside.home, "/home/conda1000");
    }

    #[test]
    fn users_of_one_number_are_told_apart_by_name() {
        let users = "app1:x:1000:0::/home/app1:/bin/sh\napp2:x:1000:0::/home/app2:/bin/sh\n";
        let facts = base(users, &[("home/app1", 0o700, 1000, 0), ("home/app2", 0o700, 1000, 0)]);
        for (name, expected) in [(Some("app2"), "app2"), (Some("app1"), "app1"), (None, "app1"), (Some("x"), "app1")] {
            let own = Account::new(&facts, USER, OfBase { name, home: None }, ROOT, false).expect("an account");
            assert_eq!((own.name.as_str(), own.home), (expected, format!("/home/{expected}")));
        }
    }

    #[test]
    fn homes_are_not_made_where_engines_mount() {
        for target in ["/run/home", "tmp", "/var/run/home"] {
            let mut facts = base("", &[]);
            facts.symlinks.insert("home".to_owned(), target.to_owned());
            facts.symlinks.insert("var/run".to_owned(), "/run".to_owned());
            let made = account(&facts, USER, None);
            assert_eq!((made.home.as_str(), made.place.as_str()), ("/srv/conda", "srv/conda"), "{target}");
            for parent in ["srv", "opt"] {
                facts.symlinks.insert(parent.to_owned(), "/run".to_owned());
            }
            assert!(Account::new(&facts, USER, OfBase::default(), ROOT, false).is_err());
        }
    }

    #[test]
    fn a_home_of_the_base_counts_if_its_user_may_write() {
        let user = User { uid: 1001, gid: 0 };
        let home = |mode, gid| account(&base("", &[("opt/src", mode, 0, gid)]), user, Some("/opt/src"));
        let by_group = home(0o775, 0);
        assert_eq!((by_group.home.as_str(), by_group.origin, by_group.directory), ("/opt/src", Origin::Shared, None));
        assert_eq!((home(0o777, 5).home.as_str(), home(0o777, 5).origin), ("/opt/src", Origin::Open));
        assert_eq!((home(0o775, 5).home.as_str(), home(0o775, 5).origin), ("/home/conda", Origin::Made));
    }

    #[test]
    fn a_home_with_the_environment_is_not_opened() {
        for (home, origin) in [
            ("opt/conda/envs/default", Origin::Environment),
            ("opt/conda", Origin::Environment),
            ("opt/conda/envs/def", Origin::Opened),
            ("opt/conda/envs/default/home", Origin::Opened),
        ] {
            let own = account(&base(&format!("me:x:1000:0::/{home}:/bin/sh\n"), &[(home, 0o755, 1000, 0)]), USER, None);
            assert_eq!((own.origin, own.directory.is_some()), (origin, origin == Origin::Opened), "{home}");
        }
    }

    #[test]
    fn users_that_are_no_text_are_not_written_anew() {
        let facts = base("j\u{fffd}rg:x:1500:1500::/:/bin/sh\n", &[]);
        let error = Account::new(&facts, USER, OfBase::default(), ROOT, false).expect_err("not UTF-8");
        assert!(error.to_string().contains("/etc/passwd"), "{error}");
        assert_eq!(account(&facts, User { uid: 1500, gid: 1500 }, None).passwd, None);
    }
}
