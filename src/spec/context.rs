//! What a file of a project may name: files of the git work tree that holds it, or of its directory where there is none.
//! Whoever writes a pull request writes such a file; what lies beside the checkout is not theirs.

use std::path::{Component, Path, PathBuf};

use crate::util::{Error, Result};

/// The files that one file may name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Context {
    /// The work tree or directory, links resolved.
    root: PathBuf,
}

impl Context {
    /// The context of a file.
    pub fn of(file: &Path) -> Self {
        Self::around(super::folder(file))
    }

    /// The context of files in a directory.
    pub fn around(folder: &Path) -> Self {
        let folder = real(folder);
        Self { root: work_tree(&folder).unwrap_or(folder) }
    }

    /// Refuses a path that lies outside, or leads there over links.
    ///
    /// # Errors
    /// When it does.
    pub fn check(&self, path: &Path) -> Result<()> {
        let real = real(path);
        if real.starts_with(&self.root) {
            return Ok(());
        }
        let leads =
            if real == absolute(path) { String::new() } else { format!(" leads to `{}`, which", real.display()) };
        Err(Error::user(format!("`{}`{leads} lies outside of the project `{}`", path.display(), self.root.display()))
            .hint("a file of a project names what lies in its git work tree, or in its directory where there is none")
            .hint("move what it names into the project, or name it on the command line"))
    }
}

/// Refuses a path of the command line that goes through a link of a project that leads out of it. The path itself may
/// lie anywhere; whoever made the link did not write the command.
///
/// # Errors
/// The first such link.
pub fn check_links(path: &Path) -> Result<()> {
    let here = real(Path::new("."));
    let mut at = here.clone();
    for component in path.components() {
        match component {
            Component::RootDir | Component::Prefix(_) => at = PathBuf::from("/"),
            Component::CurDir => {}
            Component::ParentDir => drop(at.pop()),
            Component::Normal(name) => {
                let next = at.join(name);
                if !next.is_symlink() {
                    at = next;
                    continue;
                }
                // One that leads nowhere is told by whoever opens it.
                let Ok(real) = std::fs::canonicalize(&next) else { return Ok(()) };
                let root = work_tree(&at).or_else(|| at.starts_with(&here).then(|| here.clone()));
                if let Some(root) = root.filter(|root| !real.starts_with(root)) {
                    return Err(Error::user(format!(
                        "`{}` is a link to `{}`, out of the project `{}`",
                        path.display(),
                        real.display(),
                        root.display()
                    ))
                    .hint(format!("if it is to be used, name `{}` itself", real.display())));
                }
                at = real;
            }
        }
    }
    Ok(())
}

/// The root of the innermost git work tree that holds a directory.
fn work_tree(folder: &Path) -> Option<PathBuf> {
    let is_root = |folder: &&Path| {
        let git = folder.join(".git");
        git.is_file() || git.join("HEAD").is_file()
    };
    folder.ancestors().find(is_root).map(Path::to_owned)
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// Where a path leads, as far as it exists; what does not is taken by its words.
fn real(path: &Path) -> PathBuf {
    let path = absolute(path);
    for ancestor in path.ancestors() {
        let Ok(mut real) = std::fs::canonicalize(ancestor) else { continue };
        for part in path.strip_prefix(ancestor).into_iter().flat_map(Path::components) {
            match part {
                Component::ParentDir => drop(real.pop()),
                part => real.push(part),
            }
        }
        return real;
    }
    path
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn paths_stay_in_the_work_tree() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        for name in ["tree/.git", "tree/sub/deep", "plain/sub", "outside"] {
            fs_err::create_dir_all(at(name)).expect("a folder");
        }
        fs_err::write(at("tree/.git/HEAD"), "ref: refs/heads/main\n").expect("writes");
        symlink("../outside", at("tree/out")).expect("links");
        symlink("sub", at("tree/in")).expect("links");
        let inside = |file: &str, path: &str| {
            let file = at(file);
            Context::of(&file).check(&file.with_file_name(path)).is_ok()
        };
        for (file, path) in [
            ("tree/condaimg.yaml", "sub"),
            ("tree/condaimg.yaml", "none/yet"),
            ("tree/condaimg.yaml", "in/deep"),
            ("tree/sub/condaimg.yaml", "../other"),
            ("plain/condaimg.yaml", "sub/../x"),
        ] {
            assert!(inside(file, path), "{file} {path}");
        }
        for (file, path) in [
            ("tree/condaimg.yaml", "../outside"),
            ("tree/condaimg.yaml", "out"),
            ("tree/condaimg.yaml", "out/none"),
            ("tree/condaimg.yaml", "in/../../outside"),
            ("tree/condaimg.yaml", "/etc/shadow"),
            ("tree/sub/condaimg.yaml", "../../outside"),
            ("plain/sub/condaimg.yaml", "../x"),
            ("plain/condaimg.yaml", "none/../../x"),
        ] {
            assert!(!inside(file, path), "{file} {path}");
        }
        check_links(&at("outside")).expect("may be anywhere");
        check_links(&at("tree/in")).expect("stays inside");
        for link in ["tree/out", "tree/out/x"] {
            let error = check_links(&at(link)).expect_err(link).to_string();
            assert!(error.contains("tree/out") && error.contains("out of the project"), "{error}");
        }
    }
}
