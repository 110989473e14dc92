//! What a package installs, and where: its `info/` read and turned into prefix paths, as conda's installers do
//! (noarch Python: site-packages by Python version, `python-scripts/`, entry points; packages older than
//! `paths.json`: `info/files` and `info/has_prefix`).

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::ControlFlow;
use std::path::Path;

use rattler::install::PythonInfo;
use rattler_conda_types::package::{
    EntryPoint, Files, HasPrefix, IndexJson, LinkJson, NoArchLinks, NoLink, NoSoftlink, PackageFile, PathType,
    PathsEntry, PathsJson,
};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::archive::{Archive, Kind, read_whole};
use super::entry_path::{resolve_parents, safe_path};
use super::shipped::Shipped;
use crate::model::pyc::{Stamp, module_of};
use crate::util::error::ResultExt as _;
use crate::util::paths::check_target;
use crate::util::{Error, Limit, Result};

/// What a package installs.
#[derive(Debug, Clone)]
pub struct PackageLayout {
    /// `info/index.json`.
    pub index: IndexJson,
    /// Its time in seconds since 1970.
    pub index_time: u64,
    /// Archive path → what becomes of it. Directories are not here.
    pub files: BTreeMap<String, LaidFile>,
    /// Empty directories that the package asks for, by prefix path.
    pub directories: BTreeSet<String>,
    /// Entry points of a noarch Python package, by the prefix path of their script.
    pub entry_points: BTreeMap<String, EntryPoint>,
    /// Modules, by prefix path, whose shipped byte code does not fit them and is left out.
    pub recompiled: BTreeSet<String>,
}

/// One installed file.
#[derive(Debug, Clone)]
pub struct LaidFile {
    /// Where it lies, relative to the prefix.
    pub target: String,
    /// What the package says of it.
    pub entry: PathsEntry,
    /// Of byte code: the time of its module, if another one is in it.
    pub restamp: Option<Stamp>,
}

impl PackageLayout {
    /// Reads it from an archive. `python` is the environment's, which noarch Python packages need.
    ///
    /// # Errors
    /// Archives that are damaged, hostile, or a noarch Python package without a Python.
    pub fn read(archive: &Archive, python: Option<&PythonInfo>) -> Result<Self> {
        let info = InfoFiles::read(archive)?;
        let index: IndexJson = info.parse(archive)?.ok_or_else(|| missing::<IndexJson>(archive))?;
        check_identity(archive, &index)?;
        let is_python = index.noarch.is_python();
        let python = match (is_python, python) {
            (false, _) => None,
            (true, Some(python)) => Some(python),
            (true, None) => {
                return Err(Error::user(format!(
                    "`{}` needs Python, which the environment does not have",
                    archive.package
                ))
                .hint("add `python` to the dependencies"));
            }
        };
        info.check_number_of_paths(archive)?;
        let paths = match info.parse::<PathsJson>(archive)? {
            Some(paths) => paths,
            None => deprecated_paths(archive, &info)?,
        };
        let mut layout = Self {
            index,
            index_time: info.index_time,
            files: BTreeMap::new(),
            directories: BTreeSet::new(),
            entry_points: BTreeMap::new(),
            recompiled: BTreeSet::new(),
        };
        if let Some(python) = python {
            layout.add_entry_points(archive, &info, python)?;
        }
        layout.add_paths(archive, paths, python)?;
        layout.resolve_own_links(archive)?;
        layout.check_targets(archive)?;
        Ok(layout)
    }

    /// All paths that the package puts into the prefix, but for empty directories.
    pub fn targets(&self) -> impl Iterator<Item = &str> {
        self.files.values().map(|file| file.target.as_str()).chain(self.entry_points.keys().map(String::as_str))
    }

    /// Gives shipped byte code the times of its modules; leaves out what does not fit its module, and what is of a
    /// module that is left out itself. The paths that are left out for not fitting, in the prefix.
    pub fn settle_bytecode(&mut self, shipped: &Shipped, leaves_out: impl Fn(&str) -> bool) -> Vec<String> {
        for (path, &stamp) in &shipped.restamped {
            if let Some(file) = self.files.get_mut(path) {
                file.restamp = Some(stamp);
            }
        }
        let is_left_out = |path: &String| self.files.get(path).is_some_and(|file| leaves_out(&file.target));
        let elsewhere = shipped.linked.iter().filter(|(_, through)| through.iter().any(is_left_out));
        let elsewhere: Vec<&String> = elsewhere.map(|(path, _)| path).collect();
        let mut unfit = Vec::new();
        for (pyc, module) in &shipped.unfit {
            let Some(file) = self.files.remove(pyc) else { continue };
            if let Some(module) = module.as_ref().and_then(|module| self.files.get(module)) {
                self.recompiled.insert(module.target.clone());
            }
            if !leaves_out(&file.target) {
                unfit.push(file.target);
            }
        }
        elsewhere.into_iter().for_each(|path| drop(self.files.remove(path)));
        let modules: BTreeSet<&str> = self.files.values().map(|file| file.target.as_str()).collect();
        let is_orphan = |file: &LaidFile| {
            let module = module_of(&file.target).filter(|module| modules.contains(module.as_str()));
            module.is_some_and(|module| leaves_out(&module))
        };
        let orphans: Vec<String> =
            self.files.iter().filter(|(_, file)| is_orphan(file)).map(|(path, _)| path.clone()).collect();
        orphans.iter().for_each(|path| drop(self.files.remove(path)));
        unfit
    }

    fn add_entry_points(&mut self, archive: &Archive, info: &InfoFiles, python: &PythonInfo) -> Result<()> {
        info.check_entry_points(archive)?;
        let Some(link) = info.parse::<LinkJson>(archive)? else { return Ok(()) };
        let NoArchLinks::Python(links) = link.noarch else { return Ok(()) };
        for entry_point in links.entry_points {
            let target = format!("{}/{}", python.bin_dir.display(), entry_point.command);
            self.entry_points.insert(installed_path(archive, &target)?, entry_point);
        }
        Ok(())
    }

    fn add_paths(&mut self, archive: &Archive, paths: PathsJson, python: Option<&PythonInfo>) -> Result<()> {
        let mut targets = BTreeSet::new();
        for entry in paths.paths {
            let source = installed_path(archive, &text(archive, &entry.relative_path)?)?;
            let target = match python {
                Some(python) => text(archive, &python.get_python_noarch_target_path(Path::new(&source)))?,
                None => source.clone(),
            };
            if entry.path_type == PathType::Directory {
                self.directories.insert(target);
            // Installers write entry points after the files, so a file of the same name is overwritten.
            } else if target == "conda-meta" {
                return Err(archive.hostile("it brings `conda-meta`, the folder of records, as a file"));
            } else if !self.entry_points.contains_key(&target) {
                if !targets.insert(target.clone()) {
                    return Err(archive.hostile(&format!("two of its files are installed as `{target}`")));
                }
                self.files.insert(source, LaidFile { target, entry, restamp: None });
            }
        }
        Ok(())
    }

    /// Files that lie below one of the package's own links go where the link leads, if that is in the prefix.
    fn resolve_own_links(&mut self, archive: &Archive) -> Result<()> {
        let links: BTreeSet<String> = self
            .files
            .iter()
            .filter(|(_, file)| file.entry.path_type == PathType::SoftLink)
            .map(|(source, _)| source.clone())
            .collect();
        let below_link = |path: &String| ancestors(path).any(|ancestor| links.contains(ancestor));
        if links.is_empty() || !self.files.keys().chain(&self.directories).any(below_link) {
            return Ok(());
        }
        let mut targets = HashMap::new();
        archive.visit_content(|entry, _| {
            if let Kind::Symlink(target) = &entry.kind
                && let Some(file) = self.files.get(&entry.path)
            {
                targets.insert(file.target.clone(), target.clone());
            }
            Ok(ControlFlow::Continue(()))
        })?;
        let mut seen = BTreeSet::new();
        for file in self.files.values_mut() {
            file.target = resolve_parents(&file.target, &targets).map_err(|error| archive.hostile(&error))?;
            if !seen.insert(file.target.clone()) {
                return Err(archive.hostile(&format!("two of its files are installed as `{}`", file.target)));
            }
        }
        let directories = self.directories.iter().map(|directory| resolve_parents(directory, &targets));
        self.directories = directories.collect::<Result<_, _>>().map_err(|error| archive.hostile(&error))?;
        Ok(())
    }

    /// What no honest package does, and no layer can hold: a file below another file, or in the place of what
    /// belongs to the environment as a whole.
    fn check_targets(&self, archive: &Archive) -> Result<()> {
        let targets: BTreeSet<&str> = self.targets().collect();
        let mut above: HashSet<&str> = HashSet::new();
        for path in targets.iter().copied().chain(self.directories.iter().map(String::as_str)) {
            archive.check_path(path)?;
            // What is above a known one is known.
            ancestors(path).take_while(|ancestor| above.insert(ancestor)).for_each(drop);
            if above.len() > Limit::Directories.count() {
                return Err(archive.over(Limit::Directories, "the number of its directories is larger than"));
            }
        }
        for target in targets.iter().copied().chain(self.directories.iter().map(String::as_str)) {
            check_target(target).map_err(|what| archive.hostile(&what))?;
            if let Some(file) = ancestors(target).find(|ancestor| targets.contains(ancestor)) {
                return Err(archive.hostile(&format!("`{target}` lies below `{file}`, which is no folder")));
            }
        }
        let reserved = |target: &&&str| {
            // Also not as a directory with files of a package's own below it.
            let name = target.strip_prefix("conda-meta/").and_then(|rest| rest.split('/').next());
            name.is_some_and(|name| name == "history" || name.ends_with(".json"))
        };
        let directories: Vec<&str> = self.directories.iter().map(String::as_str).collect();
        match targets.iter().chain(&directories).find(reserved) {
            Some(target) => Err(archive.hostile(&format!("it brings `{target}`, which installers write"))),
            None => Ok(()),
        }
    }
}

/// What an archive says of itself (`info/index.json`).
///
/// # Errors
/// Archives that are damaged, or another package than their file name says.
pub fn index_of(archive: &Archive) -> Result<IndexJson> {
    let index: IndexJson = InfoFiles::read(archive)?.parse(archive)?.ok_or_else(|| missing::<IndexJson>(archive))?;
    check_identity(archive, &index)?;
    Ok(index)
}

/// An archive must be the package that its channel says: its name becomes that of a file.
fn check_identity(archive: &Archive, index: &IndexJson) -> Result<()> {
    let name = format!("{}-{}-{}", index.name.as_normalized(), index.version, index.build);
    if name.contains(['/', '\0']) {
        return Err(archive.hostile(&format!("`{}` cannot be the name of a file", name.escape_debug())));
    }
    if name != archive.package {
        return Err(archive.broken(format!("it says that it is `{name}`")));
    }
    Ok(())
}

/// The parent folders of a path, nearest first.
pub fn ancestors(path: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(path.rsplit_once('/').map(|(parent, _)| parent), |path| {
        path.rsplit_once('/').map(|(parent, _)| parent)
    })
}

/// A list of files in bytes from which on its entries are counted before they are read.
const LONG_LIST: usize = 4 << 20;

/// The small files of `info/` that say what to install.
struct InfoFiles {
    files: BTreeMap<String, Vec<u8>>,
    /// The time of `info/index.json`.
    index_time: u64,
}

impl InfoFiles {
    const WANTED: [&str; 7] = [
        "info/index.json",
        "info/paths.json",
        "info/link.json",
        "info/files",
        "info/has_prefix",
        "info/no_link",
        "info/no_softlink",
    ];

    fn read(archive: &Archive) -> Result<Self> {
        let (mut files, mut index_time) = (BTreeMap::new(), 0);
        archive.visit_info(|entry, reader| {
            if entry.path == "info/index.json" {
                index_time = entry.mtime;
            }
            if Self::WANTED.contains(&entry.path.as_str()) && entry.kind == Kind::File {
                let limit = match entry.path.as_str() {
                    "info/paths.json" | "info/files" | "info/has_prefix" => Limit::PathsFile,
                    _ => Limit::InfoFile,
                };
                files.insert(entry.path.clone(), read_whole(entry, reader, limit)?);
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(Self { files, index_time })
    }

    /// Refuses scripts that no installer can make, by name.
    fn check_entry_points(&self, archive: &Archive) -> Result<()> {
        let link = self.files.get("info/link.json").and_then(|bytes| serde_json::from_slice::<Value>(bytes).ok());
        let points = link.as_ref().and_then(|link| link["noarch"]["entry_points"].as_array());
        for text in points.into_iter().flatten().filter_map(Value::as_str) {
            text.parse::<EntryPoint>().map_err(|error| {
                let what = format!("invalid entry point `{}` in its `info/link.json`", text.escape_debug());
                archive.unsupported(&format!("{what}: expected `COMMAND = MODULE:FUNCTION`")).caused_by(error)
            })?;
        }
        Ok(())
    }

    /// Refuses lists of files that would take much memory, before they become values.
    fn check_number_of_paths(&self, archive: &Archive) -> Result<()> {
        /// Counts the entries only.
        #[derive(Deserialize)]
        struct Paths {
            paths: Vec<IgnoredAny>,
        }
        let text = |path: &str| self.files.get(path).map(Vec::as_slice).unwrap_or_default();
        let lines = |path: &str| text(path).iter().filter(|byte| **byte == b'\n').count();
        let json = text("info/paths.json");
        let listed = match json.len() > LONG_LIST {
            // What is wrong with it is told by its reader.
            true => serde_json::from_slice::<Paths>(json).map_or(0, |list| list.paths.len()),
            false => 0,
        };
        let most = ["info/files", "info/has_prefix", "info/no_link"].map(lines).into_iter().fold(listed, usize::max);
        match most > Limit::ArchiveEntries.count() {
            true => Err(archive.over(Limit::ArchiveEntries, "the number of its files is larger than")),
            false => Ok(()),
        }
    }

    fn parse<T: PackageFile>(&self, archive: &Archive) -> Result<Option<T>> {
        let Some(bytes) = self.files.get(&T::package_path().to_string_lossy().into_owned()) else { return Ok(None) };
        T::from_slice(bytes).map(Some).map_err(|error| {
            archive.broken(Error::user(format!("`{}` cannot be read", T::package_path().display())).caused_by(error))
        })
    }
}

fn missing<T: PackageFile>(archive: &Archive) -> Error {
    archive.broken(format!("it holds no `{}`", T::package_path().display()))
}

/// The list of a package that is older than `paths.json`: the kinds of its files are seen in the archive only.
fn deprecated_paths(archive: &Archive, info: &InfoFiles) -> Result<PathsJson> {
    let files: Files = info.parse(archive)?.ok_or_else(|| missing::<PathsJson>(archive))?;
    let has_prefix: Option<HasPrefix> = info.parse(archive)?;
    let no_link: Option<NoLink> = info.parse(archive)?;
    let no_softlink: Option<NoSoftlink> = info.parse(archive)?;
    let mut kinds = HashMap::new();
    archive.visit_content(|entry, _| {
        kinds.insert(
            entry.path.clone(),
            match entry.kind {
                Kind::Symlink(_) => PathType::SoftLink,
                Kind::Directory => PathType::Directory,
                Kind::File | Kind::Hardlink(_) => PathType::HardLink,
            },
        );
        Ok(ControlFlow::Continue(()))
    })?;
    PathsJson::from_deprecated(files, has_prefix, no_link, no_softlink, |path| {
        let path = text(archive, path)?;
        let path = safe_path(&path).map_err(|error| archive.hostile(&error))?;
        kinds.get(&path).copied().ok_or_else(|| archive.broken(format!("`{path}` is listed but not there")))
    })
    .context(|| format!("cannot read what `{}` installs", archive.package))
}

/// A path at which a package may install something: below the prefix, and no whiteout (image-spec, layer.md), which
/// would remove what lower layers have.
fn installed_path(archive: &Archive, path: &str) -> Result<String> {
    let path = safe_path(path).map_err(|error| archive.hostile(&error))?;
    if path.is_empty() {
        return Err(archive.hostile("it brings the prefix itself"));
    }
    if path.split('/').any(|part| part.starts_with(".wh.")) {
        return Err(Error::user(format!("package `{}` is refused: it brings `{path}`", archive.package))
            .hint("in an image layer, `.wh.NAME` stands for the removal of NAME: such a file cannot be in an image"));
    }
    Ok(path)
}

fn text(archive: &Archive, path: &Path) -> Result<String> {
    path.to_str().map(str::to_owned).ok_or_else(|| archive.hostile(&format!("`{}` is not UTF-8", path.display())))
}

#[cfg(test)]
mod tests {
    use super::super::archive::Format;
    use super::*;

    fn archive() -> Archive {
        Archive { path: "bad-1-0.conda".into(), package: "bad-1-0".to_owned(), format: Format::Conda, held: None }
    }

    #[test]
    fn what_would_remove_files_or_replace_the_prefix_is_refused() {
        for path in [".wh.foo", "lib/.wh..wh..opq", ".wh.folder/x", "", "./"] {
            let error = installed_path(&archive(), path).expect_err(path);
            assert!(error.to_string().contains("`bad-1-0` is refused"), "{error}");
        }
        assert_eq!(installed_path(&archive(), "./lib/a.wh.b/wh.c").expect("is harmless"), "lib/a.wh.b/wh.c");
    }

    #[test]
    fn the_folder_of_records_cannot_be_a_file() {
        let mut layout = PackageLayout {
            index_time: 0,
            index: serde_json::from_str(r#"{"name": "bad", "version": "1", "build": "0", "build_number": 0}"#)
                .expect("an index"),
            files: BTreeMap::new(),
            directories: BTreeSet::new(),
            entry_points: BTreeMap::new(),
            recompiled: BTreeSet::new(),
        };
        let paths = |kind: &str| -> PathsJson {
            let text =
                format!(r#"{{"paths_version": 1, "paths": [{{"_path": "conda-meta", "path_type": "{kind}"}}]}}"#);
            serde_json::from_str(&text).expect("paths")
        };
        for kind in ["softlink", "hardlink"] {
            assert!(layout.add_paths(&archive(), paths(kind), None).is_err(), "{kind}");
        }
        layout.add_paths(&archive(), paths("directory"), None).expect("is harmless");
    }
}
