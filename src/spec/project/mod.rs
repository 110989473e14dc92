//! Which files of a project go into an image: what git would see of a folder, less what `.condaimgignore` and
//! `--exclude` leave out. Looks at names, kinds and permissions; no file is read.
//!
//! Of a folder in a git work tree: all that git tracks, and what it neither tracks nor ignores, as
//! `git ls-files --cached --others --exclude-standard` lists it. So a file that a pipeline made just before goes in,
//! unless it is ignored. Work trees within it (submodules) follow their own rules. Of a folder outside of git: all.

mod git;
mod rules;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::Metadata;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Component, Path, PathBuf};

use fs_err as fs;

use super::check_links;
use crate::model::ProjectCopy;
use crate::util::files::UNFINISHED_PREFIX;
use crate::util::{Error, Result};
use rules::{GitRules, OwnRules, Verdict};

/// What to choose from, and what to leave out.
#[derive(Debug, Clone, Copy)]
pub struct SelectOptions<'a> {
    /// Patterns in gitignore's syntax, relative to each entry's folder (`--exclude`).
    pub excludes: &'a [String],
    /// Files and folders that never go in: what this build writes.
    pub outputs: &'a [PathBuf],
    /// Folders whose `.condaimgignore` counts for all below them: the working folder, that of the environment file.
    pub roots: &'a [PathBuf],
}

/// The files of one entry.
#[derive(Debug, Clone)]
pub struct Selection {
    /// The entry.
    pub entry: ProjectCopy,
    /// Whether it is a folder.
    pub is_folder: bool,
    /// Sorted by path.
    pub files: Vec<SelectedFile>,
    /// Those among them that git does not track, where it tracks others; relative to the entry's folder.
    pub untracked: Vec<PathBuf>,
}

/// A file or link.
#[derive(Debug, Clone)]
pub struct SelectedFile {
    /// Where it lies on this machine.
    pub source: PathBuf,
    /// Its path in the entry's folder; empty for an entry that is a file.
    pub path: PathBuf,
    /// What it is.
    pub kind: SelectedKind,
}

/// What a selected file is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SelectedKind {
    /// A regular file; whether its owner may execute it.
    File {
        /// Whether its owner may execute it.
        executable: bool,
    },
    /// A symbolic link that stays in the entry's folder, with its target as it stands.
    Symlink(Vec<u8>),
}

/// Chooses the files of an entry.
///
/// # Errors
/// An entry that does not exist or of which nothing is left; links that lead out of it; devices, pipes and sockets;
/// patterns that are none.
pub fn select(entry: &ProjectCopy, options: &SelectOptions<'_>) -> Result<Selection> {
    let shown = entry.from.display();
    check_links(&entry.from)?;
    // A link that is named itself stands for what it leads to.
    let root = fs::canonicalize(&entry.from).map_err(|error| {
        Error::user(format!("`{shown}`, which is to be copied to `{}`, cannot be found", entry.to)).caused_by(error)
    })?;
    if root.components().any(|component| component.as_os_str() == ".git") {
        return Err(Error::user(format!("`{shown}` is git's own, and is not copied")));
    }
    let metadata = fs::metadata(&root)?;
    let mut selection =
        Selection { entry: entry.clone(), is_folder: metadata.is_dir(), files: Vec::new(), untracked: Vec::new() };
    if !metadata.is_dir() {
        let kind = kind(&root, Path::new(""), &metadata, &root)?;
        selection.files.push(SelectedFile { source: root, path: PathBuf::new(), kind });
        return Ok(selection);
    }
    let mut git = GitRules::around(&root)?;
    let above = folders_above(&root, git.root(), options.roots);
    let outputs = options.outputs.iter().filter_map(|path| std::fs::canonicalize(path).ok()).collect();
    let own = OwnRules::new(&root, options.excludes, &above)?;
    let mut walk = Walk { root: &root, outputs, own, selection: &mut selection, left_out: 0 };
    walk.folder(&root, &mut git, false)?;
    let left_out = walk.left_out;
    if selection.files.is_empty() {
        return Err(nothing(entry, left_out));
    }
    Ok(selection)
}

fn nothing(entry: &ProjectCopy, left_out: usize) -> Error {
    let error = Error::user(format!("nothing in `{}` is to be copied to `{}`", entry.from.display(), entry.to));
    match left_out {
        0 => error.hint("the folder holds no files: is it the right one?"),
        _ => error
            .hint("`.gitignore`, `.condaimgignore` and `--exclude` leave out all that it holds")
            .hint("a line `!PATTERN` in a `.condaimgignore` brings back what git ignores"),
    }
}

/// The folders over `root` whose `.condaimgignore` counts, outermost first.
fn folders_above(root: &Path, tree: Option<&Path>, roots: &[PathBuf]) -> Vec<PathBuf> {
    let roots: Vec<PathBuf> = roots.iter().filter_map(|path| std::fs::canonicalize(path).ok()).collect();
    let counts =
        |folder: &Path| tree.into_iter().chain(roots.iter().map(PathBuf::as_path)).any(|it| folder.starts_with(it));
    let mut above: Vec<PathBuf> =
        root.ancestors().skip(1).filter(|folder| counts(folder)).map(Path::to_owned).collect();
    above.reverse();
    above
}

struct Walk<'a> {
    /// Canonical.
    root: &'a Path,
    outputs: BTreeSet<PathBuf>,
    own: OwnRules,
    selection: &'a mut Selection,
    /// How many files and folders stayed out.
    left_out: usize,
}

impl Walk<'_> {
    fn folder(&mut self, folder: &Path, git: &mut GitRules, only_tracked: bool) -> Result<()> {
        // A work tree in another: a submodule, or a clone of its own.
        if git.root() != Some(folder)
            && folder != self.root
            && let Some(tree) = git::WorkTree::at(folder)?
        {
            return self.children(folder, &mut GitRules::of(tree), false);
        }
        self.children(folder, git, only_tracked)
    }

    fn children(&mut self, folder: &Path, git: &mut GitRules, only_tracked: bool) -> Result<()> {
        self.own.enter(folder)?;
        git.enter(folder);
        let mut names = fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name())).collect::<Result<Vec<OsString>>>()?;
        names.sort_unstable();
        for name in names {
            let unfinished = name.as_bytes().starts_with(UNFINISHED_PREFIX.as_bytes());
            let path = folder.join(&name);
            if name != ".git" && !unfinished && !self.outputs.contains(&path) {
                self.one(path, git, only_tracked)?;
            }
        }
        git.leave();
        self.own.leave();
        Ok(())
    }

    fn one(&mut self, source: PathBuf, git: &mut GitRules, only_tracked: bool) -> Result<()> {
        let metadata = fs::symlink_metadata(&source)?;
        let verdict = self.own.verdict(&source, metadata.is_dir(), git, only_tracked);
        match verdict {
            Verdict::Out => {
                self.left_out += 1;
                Ok(())
            }
            _ if metadata.is_dir() => self.folder(&source, git, verdict == Verdict::OnlyTracked),
            _ => {
                let path = source.strip_prefix(self.root).unwrap_or(&source).to_owned();
                let kind = kind(&source, &path, &metadata, self.root)?;
                if git.tracks(&source) == Some(false) {
                    self.selection.untracked.push(path.clone());
                }
                self.selection.files.push(SelectedFile { source, path, kind });
                Ok(())
            }
        }
    }
}

/// What a file is to be in the image. `path` is its path in the folder `root`.
fn kind(source: &Path, path: &Path, metadata: &Metadata, root: &Path) -> Result<SelectedKind> {
    let kind = metadata.file_type();
    if kind.is_file() {
        return Ok(SelectedKind::File { executable: metadata.permissions().mode() & 0o100 != 0 });
    }
    if kind.is_symlink() {
        let target = fs::read_link(source)?;
        check_link(source, path, &target, root)?;
        return Ok(SelectedKind::Symlink(target.into_os_string().as_bytes().to_vec()));
    }
    let what = match kind {
        kind if kind.is_fifo() => "a named pipe",
        kind if kind.is_socket() => "a socket",
        _ => "a device",
    };
    Err(Error::user(format!("`{}` is {what}, which cannot be copied into an image", source.display()))
        .hint("leave it out with `--exclude`, or by a line in `.condaimgignore`"))
}

/// A link must lead to something in the folder that is copied: what is outside is not in the image, or something else
/// is. It must say so by itself, and on this machine, where links on its way may lead elsewhere.
///
/// # Errors
/// When it leads out.
pub(crate) fn check_link(source: &Path, path: &Path, target: &Path, root: &Path) -> Result<()> {
    let leads_out = || {
        Error::user(format!(
            "`{}` is a link to `{}`, out of the folder that is copied",
            source.display(),
            target.display()
        ))
        .hint("copy the folder above both, leave the link out with `--exclude`, or put the file in its place")
    };
    let mut depth = path.components().count().saturating_sub(1);
    for component in target.components() {
        depth = match component {
            Component::Normal(_) => depth + 1,
            Component::CurDir => depth,
            Component::ParentDir => depth.checked_sub(1).ok_or_else(leads_out)?,
            Component::RootDir | Component::Prefix(_) => return Err(leads_out()),
        };
    }
    match std::fs::canonicalize(source) {
        Ok(real) if !real.starts_with(root) => Err(leads_out()),
        // One that leads nowhere stays as it is.
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn selected(root: &Path, excludes: &[&str]) -> Result<Vec<String>> {
        let excludes: Vec<String> = excludes.iter().map(|&it| it.to_owned()).collect();
        let options = SelectOptions { excludes: &excludes, outputs: &[root.join("image")], roots: &[] };
        let selection = select(&ProjectCopy { from: root.to_owned(), to: "/app".to_owned() }, &options)?;
        Ok(selection.files.iter().map(|file| file.path.display().to_string()).collect())
    }

    fn write(root: &Path, files: &[&str]) {
        for file in files {
            let path = root.join(file);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
            fs::write(path, file).expect("writes");
        }
    }

    #[test]
    fn outside_of_git_all_goes_in_but_what_rules_leave_out() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path();
        write(
            root,
            &["a.py", "b.log", "sub/c.log", "sub/d.py", "sub/__pycache__/d.pyc", "image/index.json", ".git/HEAD.old"],
        );
        assert_eq!(selected(root, &[]).expect("files"), ["a.py", "b.log", "sub/c.log", "sub/d.py"]);
        assert_eq!(selected(root, &["*.log", "!/b.log"]).expect("files"), ["a.py", "b.log", "sub/d.py"]);
        assert_eq!(
            selected(root, &["/*", "!/sub", "!__pycache__/"]).expect("files"),
            ["sub/__pycache__/d.pyc", "sub/c.log", "sub/d.py"]
        );
        fs::write(root.join(".condaimgignore"), "*.log\n/sub/*.py\n").expect("writes");
        fs::write(root.join("sub/.condaimgignore"), "!c.log\n").expect("writes");
        assert_eq!(selected(root, &[".condaimgignore"]).expect("files"), ["a.py", "sub/c.log"]);
        let error = selected(root, &["*"]).expect_err("is empty");
        assert!(error.to_string().starts_with("nothing in `"), "{error}");
        assert!(selected(root, &["[z-a]"]).expect_err("is no pattern").to_string().contains("--exclude [z-a]"));
        fs::write(root.join(".condaimgignore"), "a\n[z-a]\n").expect("writes");
        let error = selected(root, &[]).expect_err("is no pattern").chain().join(" ");
        assert!(error.contains(".condaimgignore` is wrong") && error.contains("line 2"), "{error}");
    }

    #[test]
    fn links_stay_in_the_folder_by_their_words_and_in_truth() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().join("root");
        write(&root, &["a/b/file", "c/file"]);
        for (link, target) in [("a/b/good", "../../c/file"), ("c/nowhere", "../a/none"), ("folder", "a/b")] {
            symlink(target, root.join(link)).expect("links");
        }
        assert_eq!(selected(&root, &[]).expect("files").len(), 5);
        symlink("../c", root.join("a/c")).expect("links");
        // Its words stay inside; where it leads to is `root/../outside`.
        write(folder.path(), &["outside"]);
        for (link, target) in [("x", "/etc/passwd"), ("a/x", "../../root/c"), ("x", "a/c/../../outside"), ("x", "..")] {
            let path = root.join(link);
            symlink(target, &path).expect("links");
            let error = selected(&root, &[]).expect_err("leads out");
            assert!(error.to_string().contains(&format!("{link}` is a link to `{target}`")), "{error}");
            fs::remove_file(path).expect("removes");
        }
    }
}
