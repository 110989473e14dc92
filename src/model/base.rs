//! What an image stands on.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::User;
use crate::util::Error;

/// Symlinks that are followed before they count as a loop (path_resolution(7)).
pub(crate) const LINKS: usize = 40;

/// Where a base image comes from, as the user names it (`--base`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BaseRef {
    /// An image in a registry, normalised (`docker.io/library/debian:12-slim`).
    Registry(String),
    /// An OCI image layout folder, with the `org.opencontainers.image.ref.name` to take when it holds several.
    Layout(PathBuf, Option<String>),
    /// A tar of an OCI image layout.
    OciArchive(PathBuf),
    /// What `docker save` writes.
    DockerArchive(PathBuf),
    /// A tar, or a folder, that is the root file system.
    Rootfs(PathBuf),
    /// Nothing at all.
    Scratch,
}

impl BaseRef {
    /// Where it lies, if that is on this machine.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Layout(path, _) | Self::OciArchive(path) | Self::DockerArchive(path) | Self::Rootfs(path) => {
                Some(path)
            }
            Self::Registry(_) | Self::Scratch => None,
        }
    }

    /// The same kind of base in another place; what is not on this machine stays as it is.
    pub fn at(&self, path: PathBuf) -> Self {
        match self {
            Self::Layout(_, tag) => Self::Layout(path, tag.clone()),
            Self::OciArchive(_) => Self::OciArchive(path),
            Self::DockerArchive(_) => Self::DockerArchive(path),
            Self::Rootfs(_) => Self::Rootfs(path),
            Self::Registry(_) | Self::Scratch => self.clone(),
        }
    }
}

impl FromStr for BaseRef {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if text == "scratch" {
            return Ok(Self::Scratch);
        }
        if text.is_empty() {
            return Err(Error::usage("`--base` is empty").hint("name an image, `oci:FOLDER`, or `scratch`"));
        }
        Ok(match text.split_once(':') {
            Some(("oci", rest)) => {
                let (folder, tag) = split_tag(rest);
                Self::Layout(folder.into(), tag.map(str::to_owned))
            }
            Some(("oci-archive", rest)) => Self::OciArchive(rest.into()),
            Some(("docker-archive", rest)) => Self::DockerArchive(rest.into()),
            Some(("rootfs", rest)) => Self::Rootfs(rest.into()),
            _ => Self::Registry(text.to_owned()),
        })
    }
}

/// `FOLDER[:TAG]`: the last colon ends the folder unless a slash follows it.
pub(crate) fn split_tag(text: &str) -> (&str, Option<&str>) {
    match text.rsplit_once(':') {
        Some((folder, tag)) if !folder.is_empty() && !tag.is_empty() && !tag.contains('/') => (folder, Some(tag)),
        _ => (text, None),
    }
}

impl BaseRef {
    /// The same, with a relative path beginning in `folder`.
    #[must_use]
    pub fn beginning_in(self, folder: &Path) -> Self {
        let inside = |path: PathBuf| folder.join(path);
        match self {
            Self::Registry(_) | Self::Scratch => self,
            Self::Layout(path, tag) => Self::Layout(inside(path), tag),
            Self::OciArchive(path) => Self::OciArchive(inside(path)),
            Self::DockerArchive(path) => Self::DockerArchive(inside(path)),
            Self::Rootfs(path) => Self::Rootfs(inside(path)),
        }
    }
}

impl fmt::Display for BaseRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registry(reference) => f.write_str(reference),
            Self::Layout(path, None) => write!(f, "oci:{}", path.display()),
            Self::Layout(path, Some(tag)) => write!(f, "oci:{}:{tag}", path.display()),
            Self::OciArchive(path) => write!(f, "oci-archive:{}", path.display()),
            Self::DockerArchive(path) => write!(f, "docker-archive:{}", path.display()),
            Self::Rootfs(path) => write!(f, "rootfs:{}", path.display()),
            Self::Scratch => f.write_str("scratch"),
        }
    }
}

/// What a build must know of the base's file system, read once and kept in the lock.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct BaseFacts {
    /// Whether the facts are those of the whole tree; those of older locks were of its upper levels only.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub whole: bool,
    /// Symlinks at any depth that do not lead to files: path without a leading slash → target as it stands.
    /// A layer must not write a directory over one of them (`bin` → `usr/bin`).
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub symlinks: BTreeMap<String, String>,
    /// Directories in the root (`etc`, `home`, `usr`, ...).
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub directories: BTreeSet<String>,
    /// Directories at any depth that do not belong to root or are not 0755: a layer that has something below one of them
    /// says the same of it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub folders: BTreeMap<String, FolderFacts>,
    /// Those of `folders` below which all directories have the same mode and owner, except those that are listed.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub uniform: BTreeSet<String>,
    /// Version of the GNU C library (`2.36`); none for a base without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub glibc: Option<String>,
    /// Whether `/bin/sh` exists, which an entrypoint script needs.
    pub shell: bool,
    /// Directory whose `*.sh` a login shell reads, symlinks resolved (`etc/profile.d`); none if the base has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub login_scripts: Option<String>,
    /// Shells where scripts look for them (`bin/sh`, `bin/bash`), and the program that each is in the end (`dash`).
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub shells: BTreeMap<String, String>,
    /// `/etc/passwd`, to which a line for the image's user may have to be added.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub passwd: Option<String>,
    /// Where `/etc/passwd` is a symlink: the file that it leads to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub passwd_path: Option<String>,
    /// Mode and owner of that file, if they are not `0644 0:0`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub passwd_mode: Option<FolderFacts>,
    /// `/etc/group`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
}

/// Mode and owner of a folder, or of a file; in a lock `1777 0:0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FolderFacts {
    /// Its permissions, with setuid, setgid and sticky.
    pub mode: u32,
    /// User and group.
    pub owner: (u64, u64),
}

impl FolderFacts {
    /// Of most folders.
    pub const USUAL: Self = Self { mode: 0o755, owner: (0, 0) };
    /// Of most files.
    pub const USUAL_FILE: Self = Self { mode: 0o644, owner: (0, 0) };

    /// Whether somebody may do all of this: the bits for others (`0o1` is to reach what is inside of a folder). No user:
    /// one that has nothing to do with its owner and group. Root may everything.
    pub fn allows(&self, user: Option<User>, bits: u32) -> bool {
        let shift = match user {
            Some(User { uid: 0, .. }) => return true,
            Some(user) if u64::from(user.uid) == self.owner.0 => 6,
            Some(user) if u64::from(user.gid) == self.owner.1 => 3,
            _ => 0,
        };
        (self.mode >> shift) & bits == bits
    }
}

impl From<FolderFacts> for String {
    fn from(FolderFacts { mode, owner: (user, group) }: FolderFacts) -> Self {
        format!("{mode:04o} {user}:{group}")
    }
}

impl TryFrom<String> for FolderFacts {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let parse = || {
            let (mode, owner) = text.split_once(' ')?;
            let (user, group) = owner.split_once(':')?;
            let mode = u32::from_str_radix(mode, 8).ok().filter(|mode| *mode <= 0o7777)?;
            Some(Self { mode, owner: (user.parse().ok()?, group.parse().ok()?) })
        };
        parse().ok_or_else(|| format!("`{text}` is no mode and owner of a folder, as in `0755 0:0`"))
    }
}

/// Mode, owner and symlinks of the base's directories along a path, as far as a layer that writes there depends on them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Folders {
    folders: BTreeMap<String, FolderFacts>,
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    uniform: BTreeSet<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    symlinks: BTreeMap<String, String>,
}

impl Folders {
    /// Mode and owner of a directory, symlinks resolved; none if nothing is known of it but that they are usual.
    pub fn get(&self, path: &str) -> Option<FolderFacts> {
        lookup(&self.folders, &self.uniform, path)
    }

    /// Whether nothing is unusual.
    pub fn is_empty(&self) -> bool {
        self.folders.is_empty() && self.symlinks.is_empty()
    }

    /// Symlinks below the path.
    pub fn symlinks(&self) -> &BTreeMap<String, String> {
        &self.symlinks
    }

    /// Follows the symlinks below the path; those of a loop stay as they are.
    pub fn resolve(&self, path: String) -> String {
        if self.symlinks.is_empty() {
            return path;
        }
        match path.rsplit_once('/') {
            Some((above, name)) => {
                follow(&self.symlinks, above).map_or(path.clone(), |above| format!("{above}/{name}"))
            }
            None => path,
        }
    }
}

impl BaseFacts {
    /// What a layer with files below `root` (without a leading slash, symlinks resolved) has to say the same of as the
    /// base. `of_base`: the root is an environment of the base.
    pub fn folders_along(&self, root: &str, of_base: bool) -> Folders {
        let inside = |path: &str| path == root || is_below(path, root);
        let mut along = Folders {
            folders: self.folders.iter().filter(|(path, _)| inside(path)).map(|(p, f)| (p.clone(), *f)).collect(),
            uniform: self.uniform.iter().filter(|path| inside(path)).cloned().collect(),
            symlinks: self
                .symlinks
                .iter()
                .filter(|(path, _)| inside(path))
                .map(|(p, t)| (p.clone(), t.clone()))
                .collect(),
        };
        let above = root.match_indices('/').map(|(end, _)| &root[..end]).chain(Some(root).filter(|_| of_base));
        along.folders.extend(above.filter_map(|path| Some((path.to_owned(), self.folder(path)?))));
        along
    }

    /// Mode and owner of a directory, symlinks resolved; none if they are usual or the base lacks the directory.
    pub fn folder(&self, path: &str) -> Option<FolderFacts> {
        lookup(&self.folders, &self.uniform, path).filter(|facts| *facts != FolderFacts::USUAL)
    }

    /// The first directory above a path, symlinks resolved, that keeps somebody from what is in it; with its facts. As
    /// [`FolderFacts::allows`].
    pub fn closed_above(&self, path: &str, user: Option<User>) -> Option<(String, FolderFacts)> {
        let above = path.match_indices('/').map(|(end, _)| &path[..end]).filter(|path| !path.is_empty());
        let mut found = above.filter_map(|path| Some((path, self.folder(path)?)));
        let closed = found.find(|(_, facts)| !facts.allows(user, 0o1));
        closed.map(|(path, facts)| (path.to_owned(), facts))
    }

    /// Resolves a path in the image through the base's symlinks: `bin/x` → `usr/bin/x`. Links that lead out of the root
    /// end at the root, as the kernel resolves them in a container.
    ///
    /// # Errors
    /// A loop of symlinks, named.
    pub fn resolve(&self, path: &str) -> Result<String, Error> {
        follow(&self.symlinks, path).map_err(|link| {
            Error::user(format!(
                "failed to resolve `/{}` in the base: `/{link}` is in a loop of symlinks",
                path.trim_start_matches('/')
            ))
            .hint("choose another place for it, or another base")
        })
    }
}

fn lookup(folders: &BTreeMap<String, FolderFacts>, uniform: &BTreeSet<String>, path: &str) -> Option<FolderFacts> {
    let as_above = || {
        let mut above = path.rmatch_indices('/').map(|(end, _)| &path[..end]);
        folders.get(above.find(|path| uniform.contains(*path))?)
    };
    folders.get(path).or_else(as_above).copied()
}

fn is_below(path: &str, folder: &str) -> bool {
    folder.is_empty() || path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
}

/// Follows symlinks; the error is the link at which a loop was noticed.
fn follow(symlinks: &BTreeMap<String, String>, path: &str) -> Result<String, String> {
    let mut pending: Vec<String> = components(path).rev().map(str::to_owned).collect();
    let mut resolved: Vec<String> = Vec::new();
    let mut followed = 0;
    while let Some(component) = pending.pop() {
        if component == ".." {
            resolved.pop();
            continue;
        }
        resolved.push(component);
        let Some((link, target)) = symlinks.get_key_value(&resolved.join("/")) else { continue };
        if followed == LINKS {
            return Err(link.clone());
        }
        followed += 1;
        resolved.pop();
        if target.starts_with('/') {
            resolved.clear();
        }
        pending.extend(components(target).rev().map(str::to_owned));
    }
    Ok(resolved.join("/"))
}

fn components(path: &str) -> impl DoubleEndedIterator<Item = &str> {
    path.split('/').filter(|component| !component.is_empty() && *component != ".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_told_apart() {
        for (text, expected) in [
            ("scratch", BaseRef::Scratch),
            ("debian:12-slim", BaseRef::Registry("debian:12-slim".into())),
            ("oci:a/b", BaseRef::Layout("a/b".into(), None)),
            ("oci:a/b:tag", BaseRef::Layout("a/b".into(), Some("tag".into()))),
            ("rootfs:x.tar", BaseRef::Rootfs("x.tar".into())),
        ] {
            assert_eq!(text.parse::<BaseRef>().expect("parses"), expected, "{text}");
        }
    }

    #[test]
    fn paths_follow_the_links_of_the_base() {
        let facts = BaseFacts {
            symlinks: [("bin", "usr/bin"), ("opt", "/srv/../data"), ("loop", "loop"), ("out", "../../x")]
                .map(|(link, target)| (link.to_owned(), target.to_owned()))
                .into(),
            ..BaseFacts::default()
        };
        let resolve = |path| facts.resolve(path).map_err(|error| error.to_string());
        assert_eq!(resolve("/bin/sh").as_deref(), Ok("usr/bin/sh"));
        assert_eq!(resolve("opt/conda").as_deref(), Ok("data/conda"));
        assert_eq!(resolve("out/y").as_deref(), Ok("x/y"));
        assert_eq!(resolve("/usr/lib").as_deref(), Ok("usr/lib"));
        assert!(resolve("loop/x").expect_err("a loop").contains("`/loop`"));
    }

    #[test]
    fn closed_folders_are_named_by_whom_they_shut_out() {
        let folders = [("home", 0o700, 0, 0), ("srv/app", 0o750, 0, 50), ("data", 0o311, 7, 0)];
        let facts = BaseFacts {
            folders: folders
                .map(|(path, mode, uid, gid)| (path.to_owned(), FolderFacts { mode, owner: (uid, gid) }))
                .into(),
            ..BaseFacts::default()
        };
        let closed = |path, user: Option<(u32, u32)>| {
            let user = user.map(|(uid, gid)| User { uid, gid });
            facts.closed_above(path, user).map(|(path, _)| path)
        };
        assert_eq!(closed("home/conda", Some((1000, 0))).as_deref(), Some("home"));
        assert_eq!(closed("home/conda", Some((0, 0))), None);
        // Only what is above counts.
        assert_eq!(closed("home", Some((1000, 0))), None);
        assert_eq!(closed("srv/app/home", Some((1000, 50))), None);
        assert_eq!(closed("srv/app/home", None).as_deref(), Some("srv/app"));
        // The owner's own bits hold for the owner, and for nobody else.
        assert_eq!(closed("data/x", Some((7, 7))), None);
        assert_eq!(closed("data/x", None), None);
    }

    #[test]
    fn folders_are_known_by_those_above_them() {
        let theirs = FolderFacts { mode: 0o2775, owner: (1000, 100) };
        let facts = BaseFacts {
            folders: [("opt/conda", theirs), ("opt/conda/pkgs", FolderFacts::USUAL), ("srv", theirs)]
                .map(|(path, facts)| (path.to_owned(), facts))
                .into(),
            uniform: ["opt/conda".to_owned()].into(),
            ..BaseFacts::default()
        };
        assert_eq!(facts.folder("opt/conda/a/b"), Some(theirs));
        assert_eq!(facts.folder("opt/conda/pkgs"), None);
        assert_eq!((facts.folder("opt"), facts.folder("srv/x")), (None, None));
        // A new environment below is no folder of the base.
        let along = facts.folders_along("opt/conda/envs/new", false);
        assert_eq!((along.get("opt/conda/envs"), along.get("opt/conda/envs/new")), (Some(theirs), None));
        assert_eq!(facts.folders_along("opt/conda/envs/new", true).get("opt/conda/envs/new"), Some(theirs));
    }
}
