//! The account that an image's processes run as: its name, its line in `/etc/passwd`, and its home.
//!
//! A home that condaimg makes can be written by every user: engines and CI systems run images as whomever they like. The
//! home of a user of the base stays where it is, and is opened for others unless that is refused.

use crate::model::{BaseFacts, ENGINES_OWN, FolderFacts, User};
use crate::util::Result;

/// Name of the account that is added, and of its home below `/home`.
const NAME: &str = "conda";
/// Mode of a home that condaimg makes, as that of `/tmp`.
const HOME_MODE: u32 = 0o1777;
/// What a home of the base's gets, so that others can work there and leave the owner's files alone.
const OPEN: u32 = 0o1007;

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
    /// Of the base, for its user alone.
    Kept,
}

impl Account {
    /// The account of a user on a base. `home` is the value that the base has of `HOME`, if the user is the base's own.
    ///
    /// # Errors
    /// Symlinks of the base that lead nowhere.
    pub fn new(facts: &BaseFacts, user: User, home: Option<&str>, keep_mode: bool) -> Result<Self> {
        let lines: Vec<Line<'_>> =
            facts.passwd.as_deref().unwrap_or_default().lines().filter_map(Line::parse).collect();
        let line = lines.iter().find(|line| line.uid == user.uid);
        let name = match line {
            Some(line) => line.name.to_owned(),
            None if user.uid == 0 => "root".to_owned(),
            None if lines.iter().any(|line| line.name == NAME) => format!("{NAME}{}", user.uid),
            None => NAME.to_owned(),
        };
        for own in home.into_iter().chain(line.map(|line| line.home)) {
            let place = facts.resolve(own)?;
            let of_engines = || ENGINES_OWN.contains(&place.split('/').next().unwrap_or_default());
            if home == Some(own) && of_engines() {
                return Ok(Self::of_base(name, own, place, None, keep_mode));
            }
            // Root's home is nobody else's business.
            let theirs = facts.folder(&place).filter(|of| user.uid != 0 && of.owner.0 == u64::from(user.uid));
            if let Some(theirs) = theirs {
                return Ok(Self::of_base(name, own, place, Some(theirs), keep_mode));
            }
        }
        let home = made_home(facts, &lines, user)?;
        Ok(Self {
            place: facts.resolve(&home)?,
            directory: Some(FolderFacts { mode: HOME_MODE, owner: (u64::from(user.uid), 0) }),
            passwd: if line.is_some() { None } else { passwd(facts, &name, &home, user)? },
            origin: Origin::Made,
            name,
            home,
        })
    }

    fn of_base(name: String, home: &str, place: String, theirs: Option<FolderFacts>, keep_mode: bool) -> Self {
        let opened =
            theirs.map(|theirs| FolderFacts { mode: theirs.mode | OPEN, ..theirs }).filter(|it| Some(*it) != theirs);
        let origin = match (opened, keep_mode) {
            (None, _) => Origin::Open,
            (_, true) => Origin::Kept,
            (_, false) => Origin::Opened,
        };
        let directory = opened.filter(|_| !keep_mode);
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

/// Where a home is made: not where somebody else has one.
fn made_home(facts: &BaseFacts, lines: &[Line<'_>], user: User) -> Result<String> {
    let home = format!("/home/{NAME}");
    let place = facts.resolve(&home)?;
    let of_other = |uid: u64| uid != u64::from(user.uid) && uid != 0;
    let taken = lines.iter().any(|line| line.home == home && line.uid != user.uid)
        || facts.folder(&place).is_some_and(|of| of_other(of.owner.0));
    Ok(if taken { format!("{home}{}", user.uid) } else { home })
}

/// The base's users and one more.
fn passwd(facts: &BaseFacts, name: &str, home: &str, user: User) -> Result<Option<(String, String)>> {
    let path = match &facts.passwd_path {
        Some(path) => path.clone(),
        None => facts.resolve("etc/passwd")?,
    };
    // Whatever lies there is gone when a container runs.
    if ENGINES_OWN.contains(&path.split('/').next().unwrap_or_default()) {
        return Ok(None);
    }
    let mut text = facts.passwd.clone().unwrap_or_default();
    if text.is_empty() && user.uid != 0 {
        text = "root:x:0:0:root:/root:/bin/sh\n".to_owned();
    }
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text.push_str(&format!("{name}:x:{}:{}:condaimg:{home}:/bin/sh\n", user.uid, user.gid));
    Ok(Some((path, text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const USER: User = User { uid: 1000, gid: 0 };

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
        Account::new(facts, user, home, false).expect("an account")
    }

    #[test]
    fn unknown_users_get_a_line_and_an_open_home() {
        let made = account(&base("root:x:0:0::/root:/bin/sh\nweb:x:33:33::/:/bin/sh", &[]), USER, None);
        let (path, passwd) = made.passwd.expect("a new passwd");
        assert!(
            path == "etc/passwd"
                && passwd.ends_with("\nweb:x:33:33::/:/bin/sh\nconda:x:1000:0:condaimg:/home/conda:/bin/sh\n")
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
        let kept = Account::new(&facts, USER, None, true).expect("an account");
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
}
