//! Rules that leave files out, in gitignore's syntax: whose they are and who has the last word.

use std::path::{Path, PathBuf};

use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};

use super::git::WorkTree;
use crate::util::{Error, Result};

/// The file of rules for images alone.
pub const RULES_FILE: &str = ".condaimgignore";

/// Left out unless a rule brings it back: the byte code in it names the time of its source, which is another in the
/// image, so Python would not use it; and it differs from run to run.
const DEFAULT: &str = "__pycache__/";

/// What becomes of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It stays out.
    Out,
    /// Of this folder, only what git tracks goes in.
    OnlyTracked,
    /// It goes in.
    In,
}

/// The rules of the user's: `--exclude`, then `.condaimgignore` of the innermost folder, then of those above it, then
/// the default.
pub struct OwnRules {
    excludes: Gitignore,
    files: Vec<Gitignore>,
    default: Gitignore,
}

impl OwnRules {
    /// Rules for what is below `root`; `above` are the folders over it whose files count, outermost first.
    ///
    /// # Errors
    /// Patterns that are none.
    pub fn new(root: &Path, excludes: &[String], above: &[PathBuf]) -> Result<Self> {
        let mut builder = GitignoreBuilder::new(root);
        for pattern in excludes {
            builder.add_line(None, pattern).map_err(|error| {
                Error::usage(format!("`--exclude {pattern}` is no pattern"))
                    .hint("patterns are written as in a .gitignore")
                    .caused_by(error)
            })?;
        }
        let excludes = built(&builder)?;
        let mut default = GitignoreBuilder::new(root);
        default.add_line(None, DEFAULT).map_err(|error| Error::bug("a default pattern is none").caused_by(error))?;
        let mut rules = Self { excludes, files: Vec::new(), default: built(&default)? };
        above.iter().try_for_each(|folder| rules.enter(folder))?;
        Ok(rules)
    }

    /// Adds the rules of a folder to those of the folders above it.
    ///
    /// # Errors
    /// A `.condaimgignore` that cannot be read or has a pattern that is none.
    pub fn enter(&mut self, folder: &Path) -> Result<()> {
        let file = folder.join(RULES_FILE);
        let mut builder = GitignoreBuilder::new(folder);
        if file.is_file()
            && let Some(error) = builder.add(&file)
        {
            return Err(Error::user(format!("`{}` is wrong", file.display()))
                .hint("its patterns are written as in a .gitignore")
                .caused_by(error));
        }
        self.files.push(built(&builder)?);
        Ok(())
    }

    /// Forgets the rules of the folder that was entered last.
    pub fn leave(&mut self) {
        self.files.pop();
    }

    fn matched(&self, path: &Path, is_folder: bool) -> Match<()> {
        let files = self.files.iter().rev();
        first(std::iter::once(&self.excludes).chain(files).chain([&self.default]), path, is_folder)
    }

    /// What becomes of a path in the folder that was entered last.
    pub fn verdict(&self, path: &Path, is_folder: bool, git: &GitRules, only_tracked: bool) -> Verdict {
        match self.matched(path, is_folder) {
            Match::Ignore(()) => return Verdict::Out,
            // As with git, nothing brings back what is in a folder that is left out.
            Match::Whitelist(()) if !only_tracked => return Verdict::In,
            _ => {}
        }
        if !only_tracked && !git.matched(path, is_folder).is_ignore() {
            return Verdict::In;
        }
        match (git.tracks(path), is_folder) {
            (Some(true), true) => Verdict::OnlyTracked,
            (Some(true), false) => Verdict::In,
            _ => Verdict::Out,
        }
    }
}

/// The rules of a git work tree: `.gitignore` of the innermost folder first, then the user's own of `info/exclude` and
/// of `core.excludesFile` (gitignore(5)). Without a work tree, only those of the folders that are copied.
#[derive(Default)]
pub struct GitRules {
    tree: Option<WorkTree>,
    files: Vec<Gitignore>,
    /// Of this machine alone. They concern only files that are not tracked.
    personal: Vec<Gitignore>,
}

impl GitRules {
    /// The rules of a work tree, as they are in its root before that is entered.
    pub fn of(tree: WorkTree) -> Self {
        let exclude = tree.exclude.as_ref().map(|file| {
            let mut builder = GitignoreBuilder::new(&tree.root);
            builder.add(file);
            lenient(&builder)
        });
        let (global, _) = GitignoreBuilder::new(&tree.root).build_global();
        let personal = exclude.into_iter().chain([global]).collect();
        Self { tree: Some(tree), files: Vec::new(), personal }
    }

    /// The rules for what is in `folder`, itself not entered yet. A folder that git leaves out as a whole is as one
    /// outside of git: whoever names it wants what is in it.
    ///
    /// # Errors
    /// An index that cannot be read.
    pub fn around(folder: &Path) -> Result<Self> {
        let Some(tree) = WorkTree::around(folder)? else { return Ok(Self::default()) };
        let mut above: Vec<&Path> = folder.ancestors().skip(1).take_while(|it| it.starts_with(&tree.root)).collect();
        above.reverse();
        let mut rules = Self::of(tree);
        let mut children = above.iter().copied().skip(1).chain([folder]);
        for parent in &above {
            rules.enter(parent);
            let child = children.next();
            if child.is_some_and(|child| rules.matched(child, true).is_ignore()) {
                return Ok(Self::default());
            }
        }
        Ok(rules)
    }

    /// The root of the work tree.
    pub fn root(&self) -> Option<&Path> {
        self.tree.as_ref().map(|tree| tree.root.as_path())
    }

    /// Adds the rules of a folder to those of the folders above it. As for git, a pattern that is none is no rule.
    pub fn enter(&mut self, folder: &Path) {
        let file = folder.join(".gitignore");
        let mut builder = GitignoreBuilder::new(folder);
        if file.is_file() {
            builder.add(&file);
        }
        self.files.push(lenient(&builder));
    }

    /// Forgets the rules of the folder that was entered last.
    pub fn leave(&mut self) {
        self.files.pop();
    }

    /// Whether git tracks a path; nothing when that is not known.
    pub fn tracks(&self, path: &Path) -> Option<bool> {
        self.tree.as_ref()?.tracks(path)
    }

    fn matched(&self, path: &Path, is_folder: bool) -> Match<()> {
        first(self.files.iter().rev().chain(&self.personal), path, is_folder)
    }
}

/// The first rule that says something of a path.
fn first<'a>(rules: impl IntoIterator<Item = &'a Gitignore>, path: &Path, is_folder: bool) -> Match<()> {
    let mut found = rules.into_iter().map(|rules| rules.matched(path, is_folder).map(|_| ()));
    found.find(|found| !found.is_none()).unwrap_or(Match::None)
}

fn built(builder: &GitignoreBuilder) -> Result<Gitignore> {
    builder.build().map_err(|error| Error::user("patterns of files to leave out are too many").caused_by(error))
}

fn lenient(builder: &GitignoreBuilder) -> Gitignore {
    builder.build().unwrap_or_else(|_| Gitignore::empty())
}
