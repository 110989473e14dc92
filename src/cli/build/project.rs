//! Project files: which are copied, and where they may go in the image.

use std::collections::BTreeSet;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use serde_json::json;

use super::options::{Options, Output};
use crate::lock::Lock;
use crate::model::{BaseFacts, ENGINES_OWN, FolderFacts, ProjectCopy};
use crate::pack::Target;
use crate::pack::environment::{self, Session};
use crate::pack::metadata::{DIRECTORY_MTIME, ModePolicy};
use crate::pack::project::{LayerEntry, PROJECT_MTIME, ProjectContent, ProjectLayer, measure};
use crate::spec::Spec;
use crate::spec::project::{SelectOptions, SelectedFile, SelectedKind, Selection, select};
use crate::util::report::{Event, Reporter};
use crate::util::{Error, Result, human, paths, plural};

/// Folders of the system in which the group gets no permissions by `--group-write`: who may write there can become
/// root.
const SYSTEM: [&str; 10] = ["bin", "boot", "etc", "lib", "lib32", "lib64", "root", "sbin", "usr", "var"];

/// The mode of `/root` in the bases that have it.
const ROOTS_HOME_MODE: u32 = 0o700;

/// Names that are shown of a list.
const SHOWN: usize = 3;

/// What is to be copied.
pub struct Project {
    entries: Vec<ProjectCopy>,
    excludes: Vec<String>,
    outputs: Vec<PathBuf>,
    roots: Vec<PathBuf>,
}

/// A file that goes into the image.
struct ChosenFile {
    source: PathBuf,
    /// Where the user wants it, without a leading slash; the base's links are not resolved.
    wanted: Vec<u8>,
    content: ProjectContent,
    executable: bool,
}

/// The files that go into the image, and what is in them.
pub struct Chosen {
    files: Vec<ChosenFile>,
    /// The folders that the user copies into, as above.
    folders: Vec<Vec<u8>>,
}

impl Project {
    /// What is to be copied, if anything is. That there is something is checked at once, before anything is solved.
    ///
    /// # Errors
    /// Destinations that are none; what `select` refuses.
    pub fn new(options: &Options, spec: &Spec) -> Result<Option<Self>> {
        let entries = options.copies.clone();
        if entries.is_empty() {
            return Ok(None);
        }
        entries.iter().try_for_each(check_destination)?;
        let outputs = options.outputs.iter().map(|output| match output {
            Output::Layout(path, _) | Output::OciArchive(path) | Output::DockerArchive(path) => path.clone(),
        });
        let args = &options.args;
        let outputs = outputs.chain([options.environment.cache.folder.clone()]);
        let outputs = outputs.chain(args.metadata_file.clone()).chain(args.digest_file.clone()).collect();
        let roots = vec![PathBuf::from("."), spec.folder().to_owned()];
        let project = Self { entries, excludes: options.excludes.clone(), outputs, roots };
        project.select()?;
        Ok(Some(project))
    }

    fn select(&self) -> Result<Vec<Selection>> {
        let options = SelectOptions { excludes: &self.excludes, outputs: &self.outputs, roots: &self.roots };
        self.entries.iter().map(|entry| select(entry, &options)).collect()
    }

    /// Chooses the files and reads them.
    ///
    /// # Errors
    /// What `select` refuses; files that cannot be read or change meanwhile.
    pub fn choose(&self, jobs: usize, reporter: &dyn Reporter) -> Result<Chosen> {
        let mut chosen = Chosen { files: Vec::new(), folders: Vec::new() };
        for selection in self.select()? {
            tell_untracked(&selection, reporter);
            if selection.is_folder {
                chosen.folders.push(destination(&selection.entry));
            }
            chosen.files.extend(selection.files.iter().map(|file| ChosenFile::new(&selection, file)));
        }
        let is_file = |file: &&ChosenFile| !matches!(file.content, ProjectContent::Symlink(_));
        let sources: Vec<&Path> = chosen.files.iter().filter(is_file).map(|file| file.source.as_path()).collect();
        let mut contents = measure(&sources, jobs)?.into_iter();
        for file in chosen.files.iter_mut().filter(|file| is_file(&&**file)) {
            file.content = contents.next().ok_or_else(|| Error::bug("a file was not measured"))?;
        }
        let bytes: u64 = chosen.files.iter().map(ChosenFile::size).sum();
        let from_to: Vec<String> =
            self.entries.iter().map(|entry| format!("{} to {}", entry.from.display(), entry.to)).collect();
        let files = chosen.files.len();
        let text = format!("copied: {}, {} ({})", plural(files, "file"), human(bytes), from_to.join(", "));
        reporter.event(&Event::new("copied", &json!({"files": files, "bytes": bytes}), text));
        Ok(chosen)
    }
}

/// Absolute, in the image, and no riddle.
fn check_destination(entry: &ProjectCopy) -> Result<()> {
    let wrong = |why: &str| {
        Error::usage(format!("`{}` cannot be copied to `{}`, which {why}", entry.from.display(), entry.to))
            .hint("name an absolute path in the image, as in `/app`")
    };
    if !entry.to.starts_with('/') {
        return Err(wrong("is not absolute"));
    }
    if paths::normal(&entry.to).is_none() || entry.to.split('/').any(|part| part == ".") {
        return Err(wrong("holds `.` or `..`"));
    }
    if entry.to.contains(char::is_control) {
        return Err(wrong("holds a control character"));
    }
    Ok(())
}

/// Without slashes at its ends.
fn destination(entry: &ProjectCopy) -> Vec<u8> {
    paths::normal(&entry.to).unwrap_or_default().into_bytes()
}

fn tell_untracked(selection: &Selection, reporter: &dyn Reporter) {
    let untracked = &selection.untracked;
    if untracked.is_empty() {
        return;
    }
    let folder = &selection.entry.from;
    let names: Vec<String> =
        untracked.iter().take(SHOWN).map(|path| format!("`{}`", folder.join(path).display())).collect();
    let more = match untracked.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    reporter.notice(&format!("not tracked by git nor ignored, so copied too: {}{more}", names.join(", ")));
}

impl ChosenFile {
    fn new(selection: &Selection, file: &SelectedFile) -> Self {
        let to = selection.entry.to.as_bytes();
        let name = match selection.is_folder {
            true => Some(file.path.as_os_str()),
            false => selection.entry.from.file_name().filter(|_| to.ends_with(b"/")),
        };
        let mut wanted = destination(&selection.entry);
        if let Some(name) = name {
            if !wanted.is_empty() {
                wanted.push(b'/');
            }
            wanted.extend_from_slice(name.as_bytes());
        }
        let (content, executable) = match &file.kind {
            SelectedKind::Symlink(target) => (ProjectContent::Symlink(target.clone()), false),
            // Until it is measured.
            SelectedKind::File { executable } => (ProjectContent::Directory, *executable),
        };
        Self { source: file.source.clone(), wanted, content, executable }
    }

    fn size(&self) -> u64 {
        match self.content {
            ProjectContent::File { size, .. } => size,
            _ => 0,
        }
    }
}

impl Chosen {
    /// Files and where they are to be, without a leading slash; those whose paths are text.
    pub fn destinations(&self) -> impl Iterator<Item = (&Path, &str)> {
        let text = |file| -> Option<(&Path, &str)> {
            let ChosenFile { source, wanted, .. }: &ChosenFile = file;
            Some((source.as_path(), std::str::from_utf8(wanted).ok()?))
        };
        self.files.iter().filter_map(text)
    }

    /// The layer for an image.
    ///
    /// # Errors
    /// Files that go where they must not, or to one place.
    pub fn layer(&self, lock: &Lock, target: &Target, session: &Session) -> Result<ProjectLayer> {
        let facts = &lock.base.facts;
        let folders = self.folders.iter().map(|folder| resolved(facts, &[folder, &b"/x"[..]].concat()));
        let placing = Placing {
            facts,
            target,
            folders: folders.map(|path| Ok(parent(&path?).to_vec())).collect::<Result<_>>()?,
            homes: homes(facts)?,
            environment: environment::files(lock, target, session)?.into_keys().collect(),
            home: session.account.place.clone(),
        };
        let mut layer = ProjectLayer::default();
        for file in &self.files {
            let path = resolved(facts, &file.wanted)?;
            check_lengths(&path, file)?;
            placing.check(&path, file)?;
            let mode = placing.modes(&path).file(file.executable);
            let (content, source) = (file.content.clone(), file.source.clone());
            let entry = LayerEntry { content, source, mode, owner: (0, 0), mtime: PROJECT_MTIME };
            if let Some(other) = layer.entries.insert(path.clone(), entry) {
                let (first, second) = (other.source.display(), file.source.display());
                return Err(Error::user(format!("`{first}` and `{second}` would both be `/{}`", shown(&path)))
                    .hint("leave one of them out with `--exclude`, or copy it elsewhere"));
            }
        }
        refuse_files_below_files(&layer)?;
        placing.add_folders(&mut layer);
        Ok(layer)
    }
}

/// Refuses paths and link targets that engines cannot unpack.
fn check_lengths(path: &[u8], file: &ChosenFile) -> Result<()> {
    let target: &[u8] = match &file.content {
        ProjectContent::Symlink(target) => target,
        _ => &[],
    };
    let absolute = [b"/", file.wanted.as_slice()].concat();
    [absolute.as_slice(), path, target].into_iter().try_for_each(paths::check_length_of).map_err(|error| {
        Error::user(format!("`{}` cannot be in an image: {error}", file.source.display()))
            .hint("copy to a shorter place, rename the file, or leave it out with `--exclude`")
    })
}

fn refuse_files_below_files(layer: &ProjectLayer) -> Result<()> {
    for (path, entry) in &layer.entries {
        if let Some(above) = ancestors(path).find_map(|above| layer.entries.get(above)) {
            let (file, other) = (above.source.display(), entry.source.display());
            return Err(Error::user(format!("`{file}` is to be where `{other}` needs a folder"))
                .hint("a file becomes its destination; with a slash at the end of that, it goes into it"));
        }
    }
    Ok(())
}

/// Where files may go in one image, and in what folders.
struct Placing<'a> {
    facts: &'a BaseFacts,
    target: &'a Target,
    /// What the user copies into, the base's links resolved.
    folders: Vec<Vec<u8>>,
    /// Homes of the base's users, which have their own modes and owners.
    homes: BTreeSet<Vec<u8>>,
    /// Files of the environment layer, which lies above.
    environment: BTreeSet<String>,
    /// The home of the image's user.
    home: String,
}

impl Placing<'_> {
    /// Whether a file may be at a path.
    fn check(&self, path: &[u8], file: &ChosenFile) -> Result<()> {
        let refuse = |why: &str| {
            Err(Error::user(format!("`{}` cannot be copied to `/{}`: {why}", file.source.display(), shown(path)))
                .hint("copy to another place, or leave the file out with `--exclude`"))
        };
        let mut parts = path.split(|&byte| byte == b'/');
        if parts.clone().any(|part| part.starts_with(b".wh.")) {
            return refuse("in image layers, `.wh.NAME` stands for the removal of NAME");
        }
        let first = parts.next().unwrap_or_default();
        if ENGINES_OWN.iter().any(|own| own.as_bytes() == first) {
            return refuse("container engines put something else over it");
        }
        let text = std::str::from_utf8(path).unwrap_or_default();
        if is_below(path, self.target.path("conda-meta").as_bytes()) {
            return refuse("the records of the environment's packages are there");
        }
        if self.environment.contains(text) {
            return refuse("condaimg writes this file itself");
        }
        if is_below(self.target.root.as_bytes(), path) || is_below(self.home.as_bytes(), path) {
            return refuse("the environment or the user's home needs a folder there");
        }
        if self.facts.directories.contains(text) || self.facts.symlinks.contains_key(text) {
            return refuse("the base has a folder there; with a slash at its end, a destination is a folder");
        }
        Ok(())
    }

    /// The group may write to what is copied, but not to the system.
    fn modes(&self, path: &[u8]) -> ModePolicy {
        let group_write =
            self.target.modes.group_write && (self.in_prefix(path) || self.is_copied(path) && !is_system(path));
        ModePolicy { group_write }
    }

    fn in_prefix(&self, path: &[u8]) -> bool {
        is_below(path, self.target.root.as_bytes())
    }

    /// Whether a path is what the user copies, or in it, and not a folder above it.
    fn is_copied(&self, path: &[u8]) -> bool {
        self.folders.iter().any(|folder| is_below(path, folder))
    }

    /// Adds the folders above all files that the base does not have. Those that other layers have too are the same
    /// as there; those that are the project's have the time of its files, so that zip takes them, too.
    fn add_folders(&self, layer: &mut ProjectLayer) {
        let folders: BTreeSet<Vec<u8>> =
            layer.entries.keys().flat_map(|path| ancestors(path)).map(<[u8]>::to_vec).collect();
        for path in folders {
            let of_base = std::str::from_utf8(&path).ok().and_then(|path| self.facts.folder(path));
            if let Some(of_base) = of_base {
                // Without an entry, or with another one, engines would change it.
                let entry = LayerEntry { owner: of_base.owner, ..folder(of_base.mode, DIRECTORY_MTIME) };
                layer.entries.insert(path, entry);
                continue;
            }
            let known = std::str::from_utf8(&path).is_ok_and(|path| self.facts.directories.contains(path));
            if known && path == b"root" {
                // Without an entry some engines would make it one that all can read.
                layer.entries.insert(path, folder(ROOTS_HOME_MODE, DIRECTORY_MTIME));
                continue;
            }
            if known || self.homes.contains(&path) {
                continue;
            }
            if self.in_prefix(&path) {
                let FolderFacts { mode, owner } = self.target.directory(&String::from_utf8_lossy(&path));
                layer.entries.insert(path, LayerEntry { owner, ..folder(mode, DIRECTORY_MTIME) });
                continue;
            }
            let shared = !self.is_copied(&path)
                || is_below(self.target.root.as_bytes(), &path)
                || is_below(self.home.as_bytes(), &path);
            let mode = match shared {
                true => ModePolicy { group_write: false }.directory(),
                false => self.modes(&path).directory(),
            };
            let mtime = if shared { DIRECTORY_MTIME } else { PROJECT_MTIME };
            layer.entries.insert(path, folder(mode, mtime));
        }
    }
}

fn folder(mode: u32, mtime: u64) -> LayerEntry {
    LayerEntry { content: ProjectContent::Directory, source: PathBuf::new(), mode, owner: (0, 0), mtime }
}

/// The homes of the users in the base's /etc/passwd.
fn homes(facts: &BaseFacts) -> Result<BTreeSet<Vec<u8>>> {
    let lines = facts.passwd.as_deref().unwrap_or_default().lines();
    let homes = lines.filter_map(|line| line.split(':').nth(5));
    let homes: BTreeSet<Vec<u8>> = homes.map(|home| Ok(facts.resolve(home)?.into_bytes())).collect::<Result<_>>()?;
    Ok(homes.into_iter().filter(|home| !home.is_empty()).collect())
}

fn is_system(path: &[u8]) -> bool {
    let first = path.split(|&byte| byte == b'/').next().unwrap_or_default();
    SYSTEM.iter().any(|system| system.as_bytes() == first)
}

/// Whether a path is `folder` or below it. Everything is below the root, which is empty.
fn is_below(path: &[u8], folder: &[u8]) -> bool {
    folder.is_empty() || path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
}

/// A path in the image without the base's links: those above it are followed, what is there itself is replaced.
fn resolved(facts: &BaseFacts, path: &[u8]) -> Result<Vec<u8>> {
    let above = parent(path);
    // The links of a base have names that are text.
    let text = match std::str::from_utf8(above) {
        Ok(text) => text,
        Err(error) => {
            let valid = &above[..error.valid_up_to()];
            let end = valid.iter().rposition(|&byte| byte == b'/').unwrap_or(0);
            std::str::from_utf8(&valid[..end]).unwrap_or_default()
        }
    };
    let mut resolved = facts.resolve(text)?.into_bytes();
    let rest = path[text.len()..].strip_prefix(b"/").unwrap_or(&path[text.len()..]);
    if !resolved.is_empty() {
        resolved.push(b'/');
    }
    resolved.extend_from_slice(rest);
    Ok(resolved)
}

fn parent(path: &[u8]) -> &[u8] {
    ancestors(path).next().unwrap_or_default()
}

/// The folders above a path, the nearest first, without the root.
fn ancestors(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let slashes = path.iter().enumerate().rev().filter(|(_, byte)| **byte == b'/');
    slashes.map(|(at, _)| &path[..at])
}

/// For messages.
fn shown(path: &[u8]) -> String {
    std::ffi::OsString::from_vec(path.to_vec()).display().to_string()
}
