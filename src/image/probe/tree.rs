//! The upper levels of a file system made of layers, without unpacking them (image-spec, layer.md,
//! "Whiteouts").

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::glibc;
use crate::model::{BaseFacts, ENGINES_OWN, FolderFacts};
use crate::util::{Error, Result, paths};

/// How deep entries are kept; `usr/bin/sh` is needed, and `usr/share/doc/*` is not.
const DEPTH: usize = 3;
/// How deep what hides others is kept: the C library is at `usr/lib/x86_64-linux-gnu/libc.so.6`.
const HIDING_DEPTH: usize = 4;
/// Entries that are kept of one layer, so that a hostile one cannot fill the memory.
const ENTRIES: usize = 1_000_000;
/// Where shells are looked for.
const SHELLS: [&str; 3] = ["bin/bash", "bin/sh", "usr/bin/bash"];
/// Links that are followed before they count as a loop (path_resolution(7)).
const LINKS: usize = 40;

/// What a path is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Kind {
    Folder(FolderFacts),
    Symlink(String),
    /// A file, with its text or the version of the C library that it is, where these matter.
    File {
        text: Option<String>,
        glibc: Option<String>,
    },
}

/// What matters of one layer.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Layer {
    entries: BTreeMap<String, Kind>,
    /// Folders in the root that are only implied by what is in them.
    implied: BTreeSet<String>,
    hidden: Hidden,
}

/// What an upper layer hides of lower ones.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Hidden {
    /// These, and everything below them.
    paths: BTreeSet<String>,
    /// Everything below these.
    contents: BTreeSet<String>,
}

impl Hidden {
    /// Takes note of a whiteout, however deep; tells whether the path is one.
    pub fn add(&mut self, path: &str) -> bool {
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        let Some(hidden) = name.strip_prefix(".wh.") else { return false };
        if name == ".wh..wh..opq" {
            self.contents.insert(folder.to_owned());
        } else if !hidden.starts_with(".wh.") {
            self.paths.insert(if folder.is_empty() { hidden.to_owned() } else { format!("{folder}/{hidden}") });
        }
        true
    }

    pub fn extend(&mut self, other: Self) {
        self.paths.extend(other.paths);
        self.contents.extend(other.contents);
    }

    pub fn len(&self) -> usize {
        self.paths.len() + self.contents.len()
    }

    pub fn covers(&self, path: &str) -> bool {
        if self.paths.contains(path) {
            return true;
        }
        // An opaque root hides everything.
        let parents = path.match_indices('/').map(|(end, _)| &path[..end]).chain([""]);
        parents.into_iter().any(|parent| self.paths.contains(parent) || self.contents.contains(parent))
    }
}

/// A path as the tree knows it, without `./` and slashes at its ends; nothing for the root itself and for a
/// path that climbs.
pub(super) fn normalise(path: &str) -> Option<String> {
    paths::normal(path).filter(|path| !path.is_empty())
}

fn depth(path: &str) -> usize {
    path.split('/').count()
}

impl Layer {
    /// Takes note of a whiteout; tells whether the path is one.
    pub fn hide(&mut self, path: &str) -> Result<bool> {
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        let Some(hidden) = name.strip_prefix(".wh.") else { return Ok(false) };
        if name == ".wh..wh..opq" {
            if depth(folder) <= HIDING_DEPTH {
                self.hidden.contents.insert(folder.to_owned());
            }
        } else if !hidden.starts_with(".wh.") && depth(path) <= HIDING_DEPTH {
            self.hidden.paths.insert(if folder.is_empty() { hidden.to_owned() } else { format!("{folder}/{hidden}") });
        }
        self.check_size().map(|()| true)
    }

    /// Takes note of an entry; the later of two with the same path counts.
    pub fn add(&mut self, path: String, kind: Kind) -> Result<()> {
        if let Some((root, _)) = path.split_once('/')
            && !self.implied.contains(root)
        {
            self.implied.insert(root.to_owned());
        }
        if depth(&path) <= DEPTH || glibc::is_library(&path) {
            self.entries.insert(path, kind);
        }
        self.check_size()
    }

    fn check_size(&self) -> Result<()> {
        let hidden = self.hidden.paths.len() + self.hidden.contents.len();
        if self.entries.len() + self.implied.len() + hidden > ENTRIES {
            return Err(Error::user(format!("a layer has more than {ENTRIES} entries near its root")));
        }
        Ok(())
    }
}

/// The upper levels of the layers so far, from the topmost down.
#[derive(Debug, Default)]
pub(super) struct Tree {
    entries: BTreeMap<String, Kind>,
    implied: BTreeSet<String>,
    hidden: Hidden,
    glibc: Option<String>,
}

impl Tree {
    /// Adds the next lower layer.
    pub fn lay_below(&mut self, layer: Layer) {
        for root in layer.implied {
            if !self.hidden.covers(&root) {
                self.implied.insert(root);
            }
        }
        let mut covering = Vec::new();
        for (path, kind) in layer.entries {
            if self.hidden.covers(&path) || self.entries.contains_key(&path) {
                continue;
            }
            if self.glibc.is_none() {
                self.glibc = library_version(&path, &kind);
            }
            // Anything but a folder hides what lower layers have below its path.
            if !matches!(kind, Kind::Folder(_)) {
                covering.push(path.clone());
            }
            self.entries.insert(path, kind);
        }
        // Only now: a layer's own entries are not hidden by its whiteouts.
        self.hidden.contents.extend(covering);
        self.hidden.paths.extend(layer.hidden.paths);
        self.hidden.contents.extend(layer.hidden.contents);
    }

    /// What a build must know.
    pub fn facts(self) -> BaseFacts {
        let shells = SHELLS.into_iter().filter_map(|path| Some((path.to_owned(), self.program(path)?)));
        let shells: BTreeMap<String, String> = shells.collect();
        let mut facts = BaseFacts { shell: shells.contains_key("bin/sh"), shells, ..BaseFacts::default() };
        let in_root = |path: &str| !path.contains('/');
        let implied = self.implied.iter().filter(|root| !self.entries.contains_key(*root));
        facts.directories = implied.cloned().collect();
        for (path, kind) in self.entries {
            match kind {
                Kind::Folder(of) => {
                    let engines = ENGINES_OWN.contains(&path.split('/').next().unwrap_or_default());
                    if of != FolderFacts::USUAL && !engines {
                        facts.folders.insert(path.clone(), of);
                    }
                    if in_root(&path) {
                        facts.directories.insert(path);
                    }
                }
                Kind::Symlink(target) if depth(&path) <= 2 => {
                    facts.symlinks.insert(path, target);
                }
                Kind::File { text: Some(text), .. } if path == "etc/passwd" => facts.passwd = Some(text),
                Kind::File { text: Some(text), .. } if path == "etc/group" => facts.group = Some(text),
                _ => {}
            }
        }
        facts.glibc = self.glibc;
        facts
    }

    /// The name of the file that a path is, through symbolic links; nothing when it is not a file.
    fn program(&self, path: &str) -> Option<String> {
        let mut pending: Vec<String> = path.split('/').rev().map(str::to_owned).collect();
        let mut resolved: Vec<String> = Vec::new();
        let mut followed = 0;
        while let Some(part) = pending.pop() {
            match part.as_str() {
                "" | "." => continue,
                ".." => {
                    resolved.pop();
                    continue;
                }
                _ => resolved.push(part),
            }
            let Some(Kind::Symlink(target)) = self.entries.get(&resolved.join("/")) else { continue };
            followed += 1;
            if followed > LINKS {
                return None;
            }
            resolved.pop();
            if target.starts_with('/') {
                resolved.clear();
            }
            pending.extend(target.split('/').rev().map(str::to_owned));
        }
        let is_file = match self.entries.get(&resolved.join("/")) {
            Some(kind) => matches!(kind, Kind::File { .. }),
            // Deeper than what is kept (`/nix/store/...`): the link is believed.
            None => resolved.len() > DEPTH,
        };
        resolved.pop().filter(|_| is_file)
    }
}

fn library_version(path: &str, kind: &Kind) -> Option<String> {
    if !glibc::is_library(path) {
        return None;
    }
    match kind {
        Kind::Symlink(target) => glibc::of_name(target),
        Kind::File { glibc, .. } => glibc.clone(),
        Kind::Folder(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> Kind {
        Kind::Folder(FolderFacts::USUAL)
    }

    fn file() -> Kind {
        Kind::File { text: None, glibc: None }
    }

    fn text(text: &str) -> Kind {
        Kind::File { text: Some(text.to_owned()), glibc: None }
    }

    fn link(target: &str) -> Kind {
        Kind::Symlink(target.to_owned())
    }

    /// Layers, the lowest first.
    fn facts(layers: &[&[(&str, Kind)]]) -> BaseFacts {
        let mut tree = Tree::default();
        for entries in layers.iter().rev() {
            let mut layer = Layer::default();
            for (path, kind) in *entries {
                let path = normalise(path).expect("a path");
                if !layer.hide(&path).expect("few entries") {
                    layer.add(path, kind.clone()).expect("few entries");
                }
            }
            tree.lay_below(layer);
        }
        tree.facts()
    }

    #[test]
    fn a_merged_usr_is_seen() {
        let libc = Kind::File { text: None, glibc: Some("2.36".to_owned()) };
        let facts = facts(&[&[
            ("./", folder()),
            ("./bin", link("usr/bin")),
            ("./lib64", link("usr/lib64")),
            ("./usr/", folder()),
            ("./usr/bin/dash", file()),
            ("./usr/bin/sh", link("dash")),
            ("./usr/lib/x86_64-linux-gnu/libc.so.6", libc),
            ("./usr/local/man", link("share/man")),
            ("./usr/tmp", link("../var/tmp")),
            ("./etc/passwd", text("root:x:0:0::/root:/bin/sh\n")),
        ]
        .iter()
        .filter(|(path, _)| *path != "./")
        .cloned()
        .collect::<Vec<_>>()]);
        assert!(facts.shell);
        assert_eq!(facts.glibc.as_deref(), Some("2.36"));
        let links: Vec<(&str, &str)> =
            facts.symlinks.iter().map(|(path, target)| (path.as_str(), target.as_str())).collect();
        assert_eq!(links, [("bin", "usr/bin"), ("lib64", "usr/lib64"), ("usr/tmp", "../var/tmp")]);
        assert_eq!(facts.directories.iter().map(String::as_str).collect::<Vec<_>>(), ["etc", "usr"]);
        assert_eq!(facts.passwd.as_deref(), Some("root:x:0:0::/root:/bin/sh\n"));
        assert_eq!(facts.group, None);
    }

    #[test]
    fn what_upper_layers_hide_does_not_count() {
        let old = Kind::File { text: None, glibc: Some("2.31".to_owned()) };
        let lower: &[(&str, Kind)] = &[
            ("bin", link("usr/bin")),
            ("usr/bin/sh", file()),
            ("opt", link("srv")),
            ("data/x", link("y")),
            ("data/z", link("y")),
            ("lib/libc.so.6", old.clone()),
            ("etc/passwd", text("old")),
            ("etc/group", text("old")),
        ];
        // Removed, replaced, and made opaque.
        let upper: &[(&str, Kind)] = &[
            ("usr/bin/.wh.sh", file()),
            (".wh.opt", file()),
            ("data/.wh..wh..opq", file()),
            ("data/z", link("new")),
            ("lib", link("usr/lib")),
            ("etc/passwd", text("new")),
            ("etc/.wh.group", file()),
        ];
        let both = facts(&[lower, upper]);
        assert!(facts(&[lower]).shell && !both.shell);
        assert_eq!(both.symlinks.get("opt"), None);
        assert_eq!(both.symlinks.get("data/x"), None);
        assert_eq!(both.symlinks.get("data/z").map(String::as_str), Some("new"));
        assert_eq!(facts(&[lower]).glibc.as_deref(), Some("2.31"));
        assert_eq!(both.glibc, None, "its folder became a link");
        assert_eq!((both.passwd.as_deref(), both.group), (Some("new"), None));
        // What a layer adds beside its own whiteout stays.
        let again = facts(&[lower, &[("opt", folder()), (".wh.opt", file())]]);
        assert!(again.directories.contains("opt") && !again.symlinks.contains_key("opt"));
        // The upper library wins.
        let new = Kind::File { text: None, glibc: Some("2.36".to_owned()) };
        assert_eq!(facts(&[lower, &[("lib/libc.so.6", new)]]).glibc.as_deref(), Some("2.36"));
        // And a whiteout two layers up hides too.
        assert_eq!(facts(&[lower, &[("lib/.wh.libc.so.6", file())], &[]]).glibc, None);
    }

    #[test]
    fn a_layer_cannot_fill_the_memory() {
        let mut layer = Layer::default();
        let mut names = (0..=ENTRIES).map(|number| number.to_string());
        assert!(names.any(|name| layer.hide(&format!(".wh.{name}")).is_err()));
        let mut layer = Layer::default();
        let mut names = (0..=ENTRIES).map(|number| number.to_string());
        assert!(names.any(|name| layer.add(format!("{name}/b/c/d"), file()).is_err()));
    }

    #[test]
    fn shells_are_found_through_links_only_when_they_exist() {
        let busybox: &[(&str, Kind)] = &[("bin/busybox", file()), ("bin/sh", link("/bin/busybox"))];
        assert!(facts(&[busybox]).shell);
        assert!(!facts(&[&[("bin/sh", link("/bin/busybox"))]]).shell);
        assert!(!facts(&[&[("bin", link("bin")), ("usr/bin/sh", file())]]).shell);
        assert!(facts(&[&[("bin/sh", link("/nix/store/abc-bash/bin/bash"))]]).shell);
        let shells = |entries| facts(&[entries]).shells.into_iter().collect::<Vec<_>>();
        let expected = |path: &str, program: &str| (path.to_owned(), program.to_owned());
        assert_eq!(shells(busybox), [expected("bin/sh", "busybox")]);
        let debian: &[(&str, Kind)] = &[
            ("bin", link("usr/bin")),
            ("usr/bin/bash", file()),
            ("usr/bin/sh", link("dash")),
            ("usr/bin/dash", file()),
        ];
        let bash = |path| expected(path, "bash");
        assert_eq!(shells(debian), [bash("bin/bash"), expected("bin/sh", "dash"), bash("usr/bin/bash")]);
        assert!(!facts(&[&[("usr/bin/sh", file())]]).shell);
    }

    #[test]
    fn the_name_of_an_older_library_tells_its_version() {
        let older: &[(&str, Kind)] = &[("lib/x86_64-linux-gnu/libc.so.6", link("libc-2.28.so"))];
        assert_eq!(facts(&[older]).glibc.as_deref(), Some("2.28"));
        let musl: &[(&str, Kind)] = &[("lib/libc.musl-x86_64.so.1", link("ld-musl-x86_64.so.1"))];
        assert_eq!(facts(&[musl]).glibc, None);
    }
}
