//! The file system that layers make, without unpacking them (image-spec, layer.md, "Whiteouts"): names, links, modes and
//! owners of directories. Layers are laid over one another from the lowest up, as engines unpack them.

use std::collections::{BTreeMap, BTreeSet};

use super::glibc;
use super::layer::{Entry, Layer, normalise};
use crate::model::{BaseFacts, ENGINES_OWN, FolderFacts, LINKS};

/// Where shells are looked for.
const SHELLS: [&str; 3] = ["bin/bash", "bin/sh", "usr/bin/bash"];

/// Directories below one with an owner of its own from which on they are told as one.
const MANY: usize = 16;

/// Where small bases lack the manual pages and translations that hundreds of links lead to: these do not count.
const STRIPPED: &str = "usr/share/";

/// Where the content of a file is: the number of its layer, and its path in the archive.
pub(super) type Place = (usize, String);

/// What is at a path, and what is below it.
#[derive(Debug, Clone)]
struct Node {
    kind: Kind,
    /// Of directories only.
    entries: BTreeMap<Box<str>, Node>,
}

#[derive(Debug, Clone)]
enum Kind {
    Directory(FolderFacts),
    Symlink(Box<str>),
    /// The number of the layer that has the content, and its path there if it is not the file's own.
    File(u32, Option<Box<str>>),
}

impl Node {
    fn new(kind: Kind) -> Self {
        Self { kind, entries: BTreeMap::new() }
    }

    fn is_directory(&self) -> bool {
        matches!(self.kind, Kind::Directory(_))
    }
}

/// The tree of a base.
#[derive(Debug)]
pub struct Tree {
    root: Node,
}

impl Default for Tree {
    fn default() -> Self {
        Self { root: Node::new(Kind::Directory(FolderFacts::USUAL)) }
    }
}

/// What keeps a directory from being made at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Obstacle {
    /// A file is there, or above it.
    File(String),
    /// A symlink of a loop.
    Loop(String),
}

/// Where a path leads.
struct Followed<'a> {
    /// Without symlinks.
    path: String,
    /// What is there; none if nothing is.
    node: Option<&'a Node>,
    obstacle: Option<Obstacle>,
}

impl Tree {
    /// Lays the next layer over those so far.
    pub(super) fn lay(&mut self, layer: &Layer, number: usize) {
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        // A layer's own entries are not hidden by its whiteouts, wherever these are in the archive.
        layer.each(|path, entry| match entry {
            Entry::Removed => self.remove(path),
            Entry::Emptied => {
                let path = self.follow(path).path;
                if let Some(node) = self.node_mut(&path) {
                    node.entries.clear();
                }
            }
            _ => {}
        });
        layer.each(|path, entry| match entry {
            Entry::Directory(facts) => self.add_directory(path, facts),
            Entry::Symlink(target) => self.put(path, Kind::Symlink(target.into())),
            Entry::Hardlink(target) => {
                let kind = self.linked(target).unwrap_or(Kind::File(number, None));
                self.put(path, kind);
            }
            Entry::File => self.put(path, Kind::File(number, None)),
            Entry::Removed | Entry::Emptied => {}
        });
    }

    /// What a hard link to a path of the archive is.
    fn linked(&self, target: &str) -> Option<Kind> {
        let target = normalise(target)?;
        let (above, name) = split(&target);
        match &self.node(&self.real(above))?.entries.get(name)?.kind {
            Kind::File(layer, None) => Some(Kind::File(*layer, Some(target.as_str().into()))),
            Kind::Directory(_) => None,
            other => Some(other.clone()),
        }
    }

    fn add_directory(&mut self, path: &str, facts: FolderFacts) {
        let (above, name) = split(path);
        let parent = self.parent(above);
        let node = parent.entries.entry(name.into()).or_insert_with(|| Node::new(Kind::Directory(facts)));
        node.kind = Kind::Directory(facts);
    }

    /// Puts something that is no directory at a path, in the place of what is there.
    fn put(&mut self, path: &str, kind: Kind) {
        let (said, name) = split(path);
        let above = self.real(said);
        // The content is where the archive has it.
        let kind = match kind {
            Kind::File(layer, None) if above != said => Kind::File(layer, Some(path.into())),
            kind => kind,
        };
        self.make(&above).entries.insert(name.into(), Node::new(kind));
    }

    fn remove(&mut self, path: &str) {
        let (above, name) = split(path);
        let above = self.real(above);
        if let Some(parent) = self.node_mut(&above) {
            parent.entries.remove(name);
        }
    }

    fn parent(&mut self, path: &str) -> &mut Node {
        let path = self.real(path);
        self.make(&path)
    }

    /// A path without symlinks. Most have none.
    fn real(&self, path: &str) -> String {
        match self.node(path).is_some_and(Node::is_directory) {
            true => path.to_owned(),
            false => self.follow(path).path,
        }
    }

    fn node(&self, path: &str) -> Option<&Node> {
        parts(path).try_fold(&self.root, |node, part| node.entries.get(part))
    }

    fn node_mut(&mut self, path: &str) -> Option<&mut Node> {
        parts(path).try_fold(&mut self.root, |node, part| node.entries.get_mut(part))
    }

    /// The directory at a path without symlinks, made if it is not there, with those above it.
    fn make(&mut self, path: &str) -> &mut Node {
        let mut node = &mut self.root;
        for part in parts(path) {
            let made = || Node::new(Kind::Directory(FolderFacts::USUAL));
            node = node.entries.entry(part.into()).or_insert_with(made);
            if !node.is_directory() {
                *node = made();
            }
        }
        node
    }

    /// Follows a path as the kernel does; past what is not there, its parts count as they are.
    fn follow(&self, path: &str) -> Followed<'_> {
        let mut pending: Vec<&str> = parts(path).rev().collect();
        let mut resolved: Vec<&str> = Vec::new();
        let (mut followed, mut obstacle) = (0, None);
        while let Some(part) = pending.pop() {
            if part == ".." {
                resolved.pop();
                continue;
            }
            resolved.push(part);
            let here = resolved.join("/");
            match self.node(&here).map(|node| &node.kind) {
                Some(Kind::Symlink(_)) if followed == LINKS => {
                    obstacle = Some(Obstacle::Loop(here));
                    break;
                }
                Some(Kind::Symlink(target)) => {
                    followed += 1;
                    resolved.pop();
                    if target.starts_with('/') {
                        resolved.clear();
                    }
                    pending.extend(parts(target).rev());
                }
                Some(Kind::File(..)) if !pending.is_empty() => {
                    obstacle = Some(Obstacle::File(here));
                    break;
                }
                _ => {}
            }
        }
        resolved.extend(pending.into_iter().rev());
        let path = resolved.join("/");
        let node = if obstacle.is_none() { self.node(&path) } else { None };
        Followed { path, node, obstacle }
    }

    /// What keeps a directory from being made at a path, or from being there; a path of the base.
    pub fn obstacle(&self, path: &str) -> Option<Obstacle> {
        let followed = self.follow(path);
        let file = || {
            let node = followed.node.filter(|node| !node.is_directory())?;
            matches!(node.kind, Kind::File(..)).then(|| Obstacle::File(followed.path.clone()))
        };
        followed.obstacle.clone().or_else(file)
    }

    /// Whether a path leads to a directory.
    pub fn is_directory(&self, path: &str) -> bool {
        self.follow(path).node.is_some_and(Node::is_directory)
    }

    /// Whether a path leads to a file.
    pub fn is_file(&self, path: &str) -> bool {
        self.follow(path).node.is_some_and(|node| matches!(node.kind, Kind::File(..)))
    }

    /// What tells of an environment at a prefix (`conda-meta/python-3.12.8-0.json`); none if there is no environment.
    pub fn environment_at(&self, prefix: &str) -> Option<String> {
        let followed = self.follow(&format!("{prefix}/conda-meta"));
        let mut names = followed.node?.entries.keys().map(AsRef::as_ref);
        let name = names.find(|name: &&str| name.ends_with(".json") || *name == "history")?;
        Some(format!("{}/{name}", followed.path))
    }

    /// The directory that a path leads to, without symlinks, and the names in it; nothing when it is no directory.
    pub fn names_in(&self, path: &str) -> Option<(String, Vec<&str>)> {
        let followed = self.follow(path);
        let node = followed.node.filter(|node| node.is_directory())?;
        Some((followed.path, node.entries.keys().map(AsRef::as_ref).collect()))
    }

    /// A file or symlink in the directory that a path leads to, however deep.
    pub fn any_file_in(&self, path: &str) -> Option<String> {
        let followed = self.follow(path);
        first_file(followed.node.filter(|node| node.is_directory())?, &followed.path)
    }

    /// The name of the file that a path leads to; nothing when it does not lead to a file.
    fn program(&self, path: &str) -> Option<String> {
        let followed = self.follow(path);
        followed.node.filter(|node| matches!(node.kind, Kind::File(..)))?;
        Some(split(&followed.path).1.to_owned())
    }

    /// Where the content of the file is that a path leads to.
    pub(super) fn place(&self, path: &str) -> Option<Place> {
        let followed = self.follow(path);
        match &followed.node?.kind {
            Kind::File(layer, at) => {
                Some((usize::try_from(*layer).ok()?, at.as_deref().map_or(followed.path, str::to_owned)))
            }
            _ => None,
        }
    }

    /// What a build must know, without what contents of files tell.
    pub(super) fn facts(&self) -> BaseFacts {
        let shells = SHELLS.into_iter().filter_map(|path| Some((path.to_owned(), self.program(path)?)));
        let shells: BTreeMap<String, String> = shells.collect();
        let shell = shells.contains_key("bin/sh");
        let mut facts = BaseFacts { whole: true, shell, shells, ..BaseFacts::default() };
        for (name, node) in &self.root.entries {
            if node.is_directory() {
                facts.directories.insert(name.to_string());
            }
            if !ENGINES_OWN.contains(&name.as_ref()) {
                self.links(name, node, &mut facts.symlinks);
                unusual(name, node, FolderFacts::USUAL, &mut facts);
            }
        }
        let scripts = self.follow("etc/profile.d");
        facts.login_scripts = scripts.node.filter(|node| node.is_directory()).map(|_| scripts.path);
        facts.passwd_path = Some(self.follow("etc/passwd").path).filter(|path| path != "etc/passwd");
        facts
    }

    /// Symlinks that do not lead to files.
    fn links(&self, path: &str, node: &Node, links: &mut BTreeMap<String, String>) {
        if let Kind::Symlink(target) = &node.kind {
            let followed = self.follow(path);
            let is_dangling = followed.node.is_none() && followed.obstacle.is_none();
            let leads_to_file = followed.node.is_some_and(|node| !node.is_directory());
            let is_stripped = is_dangling && path.starts_with(STRIPPED);
            if !leads_to_file && !is_stripped {
                links.insert(path.to_owned(), target.to_string());
            }
        }
        for (name, node) in &node.entries {
            self.links(&format!("{path}/{name}"), node, links);
        }
    }

    /// C libraries, as paths of this tree: what their names say of the version, and what their contents may say.
    pub(super) fn libraries(&self) -> Vec<(Option<String>, Place)> {
        let mut directories: BTreeSet<String> = BTreeSet::new();
        for directory in glibc::FOLDERS {
            let followed = self.follow(directory);
            let Some(node) = followed.node.filter(|node| node.is_directory()) else { continue };
            let multiarch = node.entries.keys().filter(|name| glibc::is_multiarch(name));
            directories.extend(multiarch.map(|name| format!("{}/{name}", followed.path)));
            directories.insert(followed.path);
        }
        let mut found = Vec::new();
        for directory in directories {
            let followed = self.follow(&directory);
            for (name, node) in followed.node.into_iter().flat_map(|node| &node.entries) {
                if !glibc::is_name(name) {
                    continue;
                }
                let path = format!("{}/{name}", followed.path);
                let Some(place) = self.place(&path) else { continue };
                let of_link = match &node.kind {
                    Kind::Symlink(target) => glibc::of_name(target),
                    _ => None,
                };
                found.push((glibc::of_name(&path).or(of_link).or_else(|| glibc::of_name(&place.1)), place));
            }
        }
        found
    }
}

fn first_file(node: &Node, path: &str) -> Option<String> {
    match node.kind {
        Kind::Directory(_) => node.entries.iter().find_map(|(name, node)| first_file(node, &format!("{path}/{name}"))),
        _ => Some(path.to_owned()),
    }
}

/// Directories that are not as those above them are taken to be.
fn unusual(path: &str, node: &Node, above: FolderFacts, facts: &mut BaseFacts) {
    let Kind::Directory(own) = node.kind else { return };
    let mut below = above;
    if own != above {
        facts.folders.insert(path.to_owned(), own);
        // Told as one when that takes fewer lines.
        let (all_above, all_own) = (different(node, above), different(node, own));
        if own != FolderFacts::USUAL && all_above > MANY && all_own * 2 < all_above {
            facts.uniform.insert(path.to_owned());
            below = own;
        }
    }
    for (name, node) in &node.entries {
        unusual(&format!("{path}/{name}"), node, below, facts);
    }
}

/// How many directories below a node are not as this.
fn different(node: &Node, facts: FolderFacts) -> usize {
    let of_child = |node: &Node| match node.kind {
        Kind::Directory(own) => usize::from(own != facts) + different(node, facts),
        _ => 0,
    };
    node.entries.values().map(of_child).sum()
}

fn parts(path: &str) -> impl DoubleEndedIterator<Item = &str> {
    path.split('/').filter(|part| !part.is_empty() && *part != ".")
}

fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOLDER: Entry<'static> = Entry::Directory(FolderFacts::USUAL);

    /// Layers, the lowest first.
    fn tree(layers: &[&[(&str, Entry<'_>)]]) -> Tree {
        let mut tree = Tree::default();
        for (number, entries) in layers.iter().enumerate() {
            let mut layer = Layer::default();
            for (path, entry) in *entries {
                layer.add_entry(&normalise(path).expect("a path"), entry).expect("few entries");
            }
            tree.lay(&layer, number);
        }
        tree
    }

    fn place(tree: &Tree, path: &str) -> Option<(usize, String)> {
        tree.place(path)
    }

    #[test]
    fn a_merged_usr_is_seen() {
        let tree = tree(&[&[
            ("./bin", Entry::Symlink("usr/bin")),
            ("./lib64", Entry::Symlink("usr/lib64")),
            ("./usr/", FOLDER),
            ("./usr/bin/dash", Entry::File),
            ("./usr/bin/sh", Entry::Symlink("dash")),
            ("./usr/lib/x86_64-linux-gnu/libc.so.6", Entry::File),
            ("./usr/lib64/", FOLDER),
            ("./usr/local/man", Entry::Symlink("share/man")),
            ("./usr/tmp", Entry::Symlink("../var/tmp")),
            ("./etc/passwd", Entry::File),
            ("./etc/profile.d/", FOLDER),
        ]]);
        let facts = tree.facts();
        assert!(facts.shell && facts.whole);
        assert_eq!(facts.shells, [("bin/sh".to_owned(), "dash".to_owned())].into());
        assert_eq!(facts.login_scripts.as_deref(), Some("etc/profile.d"));
        let links: Vec<(&str, &str)> = facts.symlinks.iter().map(|(p, t)| (p.as_str(), t.as_str())).collect();
        // Not the one to a file.
        let expected =
            [("bin", "usr/bin"), ("lib64", "usr/lib64"), ("usr/local/man", "share/man"), ("usr/tmp", "../var/tmp")];
        assert_eq!(links, expected);
        assert_eq!(facts.directories.iter().map(String::as_str).collect::<Vec<_>>(), ["etc", "usr"]);
        assert_eq!(tree.libraries(), [(None, (0, "usr/lib/x86_64-linux-gnu/libc.so.6".to_owned()))]);
    }

    #[test]
    fn what_upper_layers_hide_does_not_count() {
        let lower: &[(&str, Entry<'_>)] = &[
            ("bin", Entry::Symlink("usr/bin")),
            ("usr/bin/sh", Entry::File),
            ("opt", Entry::Symlink("srv")),
            ("data/x", Entry::Symlink("y")),
            ("data/z", Entry::Symlink("y")),
            ("lib/libc.so.6", Entry::File),
            ("etc/passwd", Entry::File),
            ("etc/group", Entry::File),
        ];
        // Removed, replaced, and made opaque; the opaque one comes after what stays.
        let upper: &[(&str, Entry<'_>)] = &[
            ("usr/bin/.wh.sh", Entry::File),
            (".wh.opt", Entry::File),
            ("data/z", Entry::Symlink("new")),
            ("data/.wh..wh..opq", Entry::File),
            ("lib", Entry::Symlink("usr/lib")),
            ("etc/passwd", Entry::File),
            ("etc/.wh.group", Entry::File),
        ];
        let both = tree(&[lower, upper]);
        assert!(tree(&[lower]).facts().shell && !both.facts().shell);
        let links = both.facts().symlinks;
        assert_eq!((links.get("opt"), links.get("data/x")), (None, None));
        assert_eq!(links.get("data/z").map(String::as_str), Some("new"));
        assert_eq!((tree(&[lower]).libraries().len(), both.libraries().len()), (1, 0));
        assert_eq!(place(&both, "etc/passwd"), Some((1, "etc/passwd".to_owned())));
        assert_eq!(place(&both, "etc/group"), None);
        // What a layer adds beside its own whiteout stays.
        let again = tree(&[lower, &[("opt", FOLDER), (".wh.opt", Entry::File)]]).facts();
        assert!(again.directories.contains("opt") && !again.symlinks.contains_key("opt"));
        // A directory takes the place of a link, and what an upper layer says of one leaves what is in it.
        let replaced =
            tree(&[lower, &[("bin", FOLDER), ("etc", Entry::Directory(FolderFacts { mode: 0o700, owner: (0, 0) }))]]);
        assert!(!replaced.facts().shell && place(&replaced, "etc/group").is_some());
        assert_eq!(replaced.facts().folder("etc").map(|facts| facts.mode), Some(0o700));
    }

    #[test]
    fn hard_links_lead_to_where_the_content_is() {
        let lower: &[(&str, Entry<'_>)] =
            &[("objects/1", Entry::File), ("objects/2", Entry::Symlink("/etc")), ("etc/pw.real", Entry::File)];
        let upper: &[(&str, Entry<'_>)] = &[
            ("usr/lib64/libc.so.6", Entry::Hardlink("./objects/1")),
            ("lib64", Entry::Symlink("usr/lib64")),
            ("link", Entry::Hardlink("objects/2")),
            ("etc/passwd", Entry::Hardlink("etc/pw.real")),
            ("etc/again", Entry::Hardlink("etc/passwd")),
        ];
        let tree = tree(&[lower, upper]);
        assert_eq!(tree.libraries(), [(None, (0, "objects/1".to_owned()))]);
        assert_eq!(place(&tree, "link/again"), Some((0, "etc/pw.real".to_owned())));
        assert_eq!(tree.facts().passwd_path, None);
    }

    #[test]
    fn links_are_followed_at_any_depth() {
        let tree = tree(&[
            &[
                ("etc/alternatives/cuda", Entry::Symlink("/usr/local/cuda-12.4")),
                ("usr/local/cuda", Entry::Symlink("/etc/alternatives/cuda")),
                ("usr/local/cuda-12.4/lib64/", FOLDER),
                ("a/b/c/d/loop", Entry::Symlink("../d/loop")),
                ("a/file", Entry::File),
                ("etc/passwd", Entry::Symlink("../usr/lib/passwd")),
                ("usr/lib/passwd", Entry::File),
            ],
            // Through a link of a lower layer.
            &[("usr/local/cuda/lib64/libcudart.so", Entry::File)],
        ]);
        let facts = tree.facts();
        assert_eq!(facts.resolve("/usr/local/cuda/extras").ok().as_deref(), Some("usr/local/cuda-12.4/extras"));
        let said = Some((1, "usr/local/cuda/lib64/libcudart.so".to_owned()));
        assert_eq!(place(&tree, "usr/local/cuda-12.4/lib64/libcudart.so"), said);
        assert_eq!(tree.obstacle("a/b/c/d/loop/x"), Some(Obstacle::Loop("a/b/c/d/loop".to_owned())));
        assert!(facts.resolve("a/b/c/d/loop/x").is_err());
        assert_eq!(tree.obstacle("a/file/x"), Some(Obstacle::File("a/file".to_owned())));
        assert_eq!(tree.obstacle("a/file"), Some(Obstacle::File("a/file".to_owned())));
        assert_eq!((tree.obstacle("a/new/x"), tree.obstacle("usr/local/cuda")), (None, None));
        assert_eq!(facts.passwd_path.as_deref(), Some("usr/lib/passwd"));
    }

    #[test]
    fn environments_and_files_at_a_prefix_are_found() {
        let lower: &[(&str, Entry<'_>)] = &[
            ("opt/conda/envs", Entry::Symlink("/data/envs")),
            ("data/envs/one/conda-meta/history", Entry::File),
            ("data/envs/two/conda-meta/tiny-1-0.json", Entry::File),
            ("data/envs/three/conda-meta/", FOLDER),
            ("data/envs/four/share/tiny", Entry::Symlink("/real")),
            ("data/envs/five/conda-meta/history", Entry::File),
        ];
        let tree = tree(&[lower, &[("data/envs/five/conda-meta/.wh.history", Entry::File)]]);
        let found = |name: &str| {
            let prefix = format!("/opt/conda/envs/{name}");
            (tree.environment_at(&prefix), tree.any_file_in(&prefix))
        };
        assert_eq!(found("one").0.as_deref(), Some("data/envs/one/conda-meta/history"));
        assert_eq!(found("two").0.as_deref(), Some("data/envs/two/conda-meta/tiny-1-0.json"));
        assert_eq!(found("four"), (None, Some("data/envs/four/share/tiny".to_owned())));
        for none in ["three", "five", "six"] {
            assert_eq!(found(none), (None, None), "{none}");
        }
    }

    #[test]
    fn many_directories_of_one_owner_are_told_as_one() {
        let theirs = FolderFacts { mode: 0o2775, owner: (1000, 100) };
        let names: Vec<String> = (0..40).map(|number| format!("opt/conda/{number}")).collect();
        let mut entries: Vec<(&str, Entry<'_>)> = vec![("opt/conda", Entry::Directory(theirs))];
        entries.extend(names.iter().map(|name| (name.as_str(), Entry::Directory(theirs))));
        entries.push(("opt/conda/7/usual", FOLDER));
        entries.push(("srv", Entry::Directory(theirs)));
        let facts = tree(&[&entries]).facts();
        assert_eq!(
            facts.folders.keys().map(String::as_str).collect::<Vec<_>>(),
            ["opt/conda", "opt/conda/7/usual", "srv"]
        );
        assert_eq!(facts.uniform.iter().collect::<Vec<_>>(), ["opt/conda"]);
        assert_eq!((facts.folder("opt/conda/39"), facts.folder("opt/conda/7/usual")), (Some(theirs), None));
    }

    #[test]
    fn shells_are_found_through_links_only_when_they_exist() {
        let shell = |entries: &[(&str, Entry<'_>)]| tree(&[entries]).facts().shell;
        assert!(shell(&[("bin/busybox", Entry::File), ("bin/sh", Entry::Symlink("/bin/busybox"))]));
        assert!(!shell(&[("bin/sh", Entry::Symlink("/bin/busybox"))]));
        assert!(!shell(&[("bin", Entry::Symlink("bin")), ("usr/bin/sh", Entry::File)]));
        let nix = ("nix/store/abc-bash/bin/bash", Entry::File);
        assert!(shell(&[nix, ("bin/sh", Entry::Symlink("/nix/store/abc-bash/bin/bash"))]));
        assert!(!shell(&[("usr/bin/sh", Entry::File)]));
    }

    #[test]
    fn the_name_of_an_older_library_tells_its_version() {
        let library = "lib/x86_64-linux-gnu/libc-2.28.so";
        let older =
            tree(&[&[("lib/x86_64-linux-gnu/libc.so.6", Entry::Symlink("libc-2.28.so")), (library, Entry::File)]]);
        assert!(older.libraries().iter().all(|(version, _)| version.as_deref() == Some("2.28")));
        let musl = tree(&[&[("lib/libc.musl-x86_64.so.1", Entry::Symlink("ld-musl-x86_64.so.1"))]]);
        assert_eq!(musl.libraries(), []);
    }
}
