//! Which byte code of a package goes with which of its modules. Python looks for byte code by name and opens what the
//! name leads to, and so it does with modules: symbolic links of the package are followed on both sides.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::entry_path::resolve;
use super::layout::{LaidFile, PackageLayout};
use crate::model::pyc::Name;

/// The folder of byte code beside modules.
pub const CACHE: &str = "__pycache__";

/// Byte code and its module as Python finds them, all by path in the archive.
#[derive(Debug)]
pub struct Pair<'a> {
    /// The byte code, or the link that leads to it: what is left out when it does not fit.
    pub pyc: &'a str,
    /// The file that it is; nothing when that is none of the package.
    pub code: Option<&'a str>,
    /// The file that the module is; likewise.
    pub module: Option<&'a str>,
    /// What its name says.
    pub name: Name,
    /// Whether the module's name is that of a file and no link.
    pub is_direct: bool,
    /// All that it depends on, where a link was followed.
    pub through: BTreeSet<&'a str>,
}

/// The pairs of a package; `links` are its symbolic links, by path in the prefix.
pub fn pairs<'a>(layout: &'a PackageLayout, links: &HashMap<String, String>) -> Vec<Pair<'a>> {
    let by_target = layout.files.iter().map(|(source, file)| (file.target.as_str(), (source.as_str(), file)));
    let tree = Tree { files: by_target.collect(), links };
    let caches = tree.caches();
    let mut pairs = Vec::new();
    for (pyc, file) in layout.files.iter().filter(|(_, file)| file.target.ends_with(".pyc")) {
        let (folder, name) = file.target.rsplit_once('/').unwrap_or(("", &file.target));
        let linked = caches.get(folder).into_iter().flatten().map(|cache| format!("{cache}/{name}"));
        for path in std::iter::once(file.target.clone()).chain(linked) {
            let named = Name::parse(&path).filter(|name| tree.files.contains_key(name.module.as_str()));
            pairs.extend(named.map(|name| tree.pair(pyc, &path, name)));
        }
    }
    pairs
}

/// What a package puts into the prefix.
struct Tree<'a, 'l> {
    /// By path in the prefix, with the path in the archive.
    files: HashMap<&'a str, (&'a str, &'a LaidFile)>,
    links: &'l HashMap<String, String>,
}

impl<'a> Tree<'a, '_> {
    /// Links called `__pycache__`, by the folder that they lead to.
    fn caches(&self) -> BTreeMap<String, Vec<&str>> {
        let mut caches: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        let named = self.links.keys().filter(|link| is_cache(link));
        for link in named {
            if let (Some(folder), _) = self.followed(link) {
                caches.entry(folder).or_default().push(link);
            }
        }
        caches.values_mut().for_each(|links| links.sort_unstable());
        caches
    }

    fn pair(&self, pyc: &'a str, path: &str, name: Name) -> Pair<'a> {
        let (code, mut through) = self.file(path);
        let (module, also) = self.file(&name.module);
        let is_direct = also.is_empty();
        through.extend(also);
        if !through.is_empty() {
            through.extend([pyc].into_iter().chain(code).chain(module));
        }
        Pair { pyc, code, module, name, is_direct, through }
    }

    /// The file that a path in the prefix leads to, and the links that were followed.
    fn file(&self, path: &str) -> (Option<&'a str>, BTreeSet<&'a str>) {
        let (found, through) = self.followed(path);
        let source = |target: &str| self.files.get(target).map(|(source, _)| *source);
        let through = through.iter().filter_map(|link| source(link)).collect();
        (found.and_then(|found| source(&found)), through)
    }

    /// Where a path leads in the prefix, if it stays there.
    fn followed(&self, path: &str) -> (Option<String>, Vec<String>) {
        let mut through = Vec::new();
        let found = resolve(&format!("{path}/."), self.links, &mut through).ok();
        (found, through)
    }
}

/// Whether a path is called `__pycache__`.
pub fn is_cache(path: &str) -> bool {
    path.rsplit('/').next() == Some(CACHE)
}
