//! What an image stands on.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::util::Error;

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
    /// Symbolic links in the root and one level below it: path without a leading slash → target as it stands.
    /// A layer must not write a directory over one of them (`bin` → `usr/bin`).
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub symlinks: BTreeMap<String, String>,
    /// Directories in the root (`etc`, `home`, `usr`, ...).
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub directories: BTreeSet<String>,
    /// Of the folders near the root those that do not belong to root or are not 0755: a layer that has something below
    /// one of them says the same of it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub folders: BTreeMap<String, FolderFacts>,
    /// The version of its GNU C library (`2.36`); none when it has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub glibc: Option<String>,
    /// Whether `/bin/sh` exists, which an entrypoint script needs.
    pub shell: bool,
    /// Shells where scripts look for them (`bin/sh`, `bin/bash`), and the program that each is in the end (`dash`).
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub shells: BTreeMap<String, String>,
    /// `/etc/passwd`, to which a line for the image's user may have to be added.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub passwd: Option<String>,
    /// `/etc/group`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
}

/// Mode and owner of a folder; in a lock `1777 0:0`.
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

impl BaseFacts {
    /// The folders of which a layer with files below `root` (without a leading slash) has to say the same as the base.
    pub fn folders_along(&self, root: &str) -> BTreeMap<String, FolderFacts> {
        let is_below = |path: &str, folder: &str| {
            folder.is_empty() || path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let along = self.folders.iter().filter(|(path, _)| is_below(path, root) || is_below(root, path));
        along.map(|(path, folder)| (path.clone(), *folder)).collect()
    }

    /// Resolves a path in the image through the base's symbolic links: `bin/x` → `usr/bin/x`. Links that lead
    /// out of the root end at the root, as the kernel resolves them in a container.
    pub fn resolve(&self, path: &str) -> String {
        let mut pending: Vec<String> = components(path).rev().map(str::to_owned).collect();
        let mut resolved: Vec<String> = Vec::new();
        // A chain of links longer than the kernel's limit (40, path_resolution(7)) is a loop.
        let mut followed = 0;
        while let Some(component) = pending.pop() {
            if component == ".." {
                resolved.pop();
                continue;
            }
            resolved.push(component);
            let Some(target) = self.symlinks.get(&resolved.join("/")) else { continue };
            if followed == 40 {
                continue;
            }
            followed += 1;
            resolved.pop();
            if target.starts_with('/') {
                resolved.clear();
            }
            pending.extend(components(target).rev().map(str::to_owned));
        }
        resolved.join("/")
    }
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
        assert_eq!(facts.resolve("/bin/sh"), "usr/bin/sh");
        assert_eq!(facts.resolve("opt/conda"), "data/conda");
        assert_eq!(facts.resolve("out/y"), "x/y");
        assert_eq!(facts.resolve("/usr/lib"), "usr/lib");
        assert_eq!(facts.resolve("loop/x"), "loop/x");
    }
}
