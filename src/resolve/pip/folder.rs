//! Folders that hold a Python project: which files of them count, their digest, a copy to build in.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use fs_err as fs;
use ignore::{DirEntry, WalkBuilder};

use crate::lock::WheelSource;
use crate::spec::project::check_link;
use crate::util::files::UNFINISHED_PREFIX;
use crate::util::{Digest, Error, Hasher, Result};

/// The files of a project, relative to its folder, sorted: what git would not ignore and a build does not write.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut walk = WalkBuilder::new(folder);
    walk.hidden(false).ignore(false).git_global(false).git_exclude(false).require_git(false);
    walk.filter_entry(|entry| entry.depth() == 0 || !is_written(entry));
    let mut files = Vec::new();
    for entry in walk.build() {
        let entry = entry.map_err(|error| {
            Error::user(format!("the folder `{}` cannot be read", folder.display())).caused_by(error)
        })?;
        let is_folder = entry.file_type().is_none_or(|kind| kind.is_dir());
        if let Ok(relative) = entry.path().strip_prefix(folder)
            && !is_folder
        {
            files.push(relative.to_owned());
        }
    }
    files.sort();
    Ok(files)
}

/// What comes of working in a project, or of a build: the lock has the digest of the folder and often lies in it, and
/// so does the image.
fn is_written(entry: &DirEntry) -> bool {
    let name = entry.file_name().to_string_lossy();
    matches!(name.as_ref(), ".git" | "__pycache__" | "condaimg.lock")
        || name.ends_with(".condaimg.lock")
        || name.starts_with(UNFINISHED_PREFIX)
        || entry.path().join("oci-layout").is_file()
}

fn is_executable(metadata: &std::fs::Metadata) -> bool {
    metadata.permissions().mode() & 0o100 != 0
}

/// The digest of a folder's files: their paths, contents, targets of links, and whether they are executable. That of
/// a file is the digest of its bytes.
///
/// # Errors
/// When something cannot be read.
pub fn digest(path: &Path) -> Result<Digest> {
    if path.is_file() {
        return digest_of_file(path);
    }
    if !path.is_dir() {
        return Err(Error::user(format!("`{}` does not exist", path.display()))
            .hint("paths of requirements are relative to the file that says them"));
    }
    // The code that builds it would follow links, and put what they lead to into the wheel.
    let root = fs::canonicalize(path)?;
    let mut entries = Vec::new();
    for file in files(path)? {
        let full = path.join(&file);
        let metadata = fs::symlink_metadata(&full)?;
        let content = match metadata.is_symlink() {
            true => {
                let target = fs::read_link(&full)?;
                check_link(&full, &file, &target, &root)?;
                format!("link {}", target.display())
            }
            false => format!("{} {}", digest_of_file(&full)?, is_executable(&metadata)),
        };
        entries.push((file.display().to_string(), content));
    }
    crate::util::json::canonical(&entries).map(Digest::of)
}

/// Digest of a file's bytes.
pub(super) fn digest_of_file(path: &Path) -> Result<Digest> {
    let mut hasher = Hasher::default();
    let mut file = crate::util::files::regular(path)?;
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match std::io::Read::read(&mut file, &mut buffer)? {
            0 => return Ok(hasher.finish().0),
            count => hasher.update(&buffer[..count]),
        }
    }
}

/// Copies a project's files, so that building leaves nothing behind in its folder and sees nothing that does not
/// count. Tools that ask git for a version are led to the repository.
pub(super) fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for file in files(from)? {
        let (source, target) = (from.join(&file), to.join(&file));
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        match fs::symlink_metadata(&source)?.is_symlink() {
            true => fs::os::unix::fs::symlink(fs::read_link(&source)?, &target)?,
            false => {
                crate::util::files::refuse_special(&source)?;
                fs::copy(&source, &target)?;
            }
        }
    }
    let git = from.join(".git");
    if git.is_dir() {
        copy_repository(&git, &to.join(".git"))?;
    }
    Ok(())
}

/// Makes a repository with the commits and the state of another. What holds credentials stays behind: settings and
/// hooks.
fn copy_repository(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to.join("objects/info"))?;
    fs::write(to.join("objects/info/alternates"), format!("{}\n", from.join("objects").display()))?;
    fs::write(to.join("config"), "[core]\n\trepositoryformatversion = 0\n\tbare = false\n")?;
    for name in ["HEAD", "index", "packed-refs", "shallow"] {
        if fs::symlink_metadata(from.join(name)).is_ok_and(|it| it.is_file()) {
            fs::copy(from.join(name), to.join(name))?;
        }
    }
    copy_references(&from.join("refs"), &to.join("refs"))
}

fn copy_references(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    let Ok(entries) = fs::read_dir(from) else { return Ok(()) };
    for entry in entries {
        let entry = entry?;
        let target = to.join(entry.file_name());
        match entry.file_type()? {
            kind if kind.is_dir() => copy_references(&entry.path(), &target)?,
            kind if kind.is_file() => drop(fs::copy(entry.path(), target)?),
            _ => {}
        }
    }
    Ok(())
}

/// The commits that the repository of a [`copy`] of a folder shares with it, if it has one.
pub(super) fn commits(source: &WheelSource) -> Result<Option<PathBuf>> {
    let WheelSource::Folder { url, .. } = source else { return Ok(None) };
    Ok(Some(super::path_of(url)?.join(".git/objects")).filter(|objects| objects.is_dir()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_git_ignores_does_not_count() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
            fs::write(path, text).expect("writes");
        };
        write("pyproject.toml", "x");
        write(".gitignore", "build/\n*.log\n");
        let before = digest(folder.path()).expect("a digest");
        for ignored in ["build/a", "b.log", "pkg/__pycache__/a.pyc", ".git/config"] {
            write(ignored, "y = z");
        }
        assert_eq!(digest(folder.path()).expect("a digest"), before);
        let copied = tempfile::tempdir().expect("a folder");
        copy(folder.path(), copied.path()).expect("copies");
        let config = fs::read_to_string(copied.path().join(".git/config")).expect("is there");
        assert!(!config.contains("y = z"), "{config}");
        fs::remove_dir_all(copied.path().join(".git")).expect("is there");
        assert_eq!(digest(copied.path()).expect("a digest"), before);
        write("pkg/a.py", "y");
        assert_ne!(digest(folder.path()).expect("a digest"), before);
    }
}
