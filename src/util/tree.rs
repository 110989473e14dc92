//! The digest of a directory: names, kinds, permissions to execute and contents of all that is in it.

use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use fs_err as fs;

use super::{Digest, Error, Hasher, Result, parallel};

/// What something in a directory is.
enum Kind {
    Directory,
    Symlink,
    /// Whether its owner may execute it.
    File(bool),
}

/// The digest of all that is in a directory, read with `jobs` threads.
///
/// # Errors
/// What cannot be read, or is neither file, directory nor symlink.
pub fn digest_of_tree(folder: &Path, jobs: usize) -> Result<Digest> {
    let mut found = Vec::new();
    list(folder, &mut found)?;
    found.sort_by(|(a, _), (b, _)| a.cmp(b));
    let digests = parallel(&found, jobs, |(path, kind)| match kind {
        Kind::Directory => Ok(Digest::of("")),
        Kind::Symlink => Ok(Digest::of(fs::read_link(path)?.as_os_str().as_bytes())),
        Kind::File(_) => Ok(Hasher::drain(fs::File::open(path)?)?.0),
    })?;
    let mut hasher = Hasher::default();
    for ((path, kind), digest) in found.iter().zip(digests) {
        let name = path.strip_prefix(folder).unwrap_or(path).as_os_str().as_bytes();
        let kind = match kind {
            Kind::Directory => b'd',
            Kind::Symlink => b'l',
            Kind::File(false) => b'f',
            Kind::File(true) => b'x',
        };
        hasher.update(&(name.len() as u64).to_be_bytes());
        hasher.update(name);
        hasher.update(&[kind]);
        hasher.update(digest.as_bytes());
    }
    Ok(hasher.finish().0)
}

fn list(folder: &Path, found: &mut Vec<(PathBuf, Kind)>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let metadata = fs::symlink_metadata(&path)?;
        let kind = match metadata.file_type() {
            kind if kind.is_dir() => Kind::Directory,
            kind if kind.is_symlink() => Kind::Symlink,
            kind if kind.is_file() => Kind::File(metadata.permissions().mode() & 0o100 != 0),
            _ => return Err(Error::user(format!("`{}` is neither file, directory nor symlink", path.display()))),
        };
        let is_directory = matches!(kind, Kind::Directory);
        found.push((path.clone(), kind));
        if is_directory {
            list(&path, found)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_changes_with_anything_in_the_directory() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        let digest = || digest_of_tree(folder.path(), 2).expect("reads");
        let mut seen = vec![digest()];
        let changes: [&dyn Fn(); 7] = [
            &|| fs::write(path("a"), "1").expect("writes"),
            &|| fs::write(path("a"), "2").expect("writes"),
            &|| fs::create_dir(path("b")).expect("makes"),
            &|| fs::rename(path("a"), path("b/a")).expect("moves"),
            &|| std::os::unix::fs::symlink("b/a", path("a")).expect("links"),
            &|| fs::set_permissions(path("b/a"), std::fs::Permissions::from_mode(0o755)).expect("changes"),
            &|| fs::write(path("b/x"), "").expect("writes"),
        ];
        for change in changes {
            change();
            let now = digest();
            assert!(!seen.contains(&now));
            seen.push(now);
        }
        assert_eq!(seen.last(), Some(&digest()));
    }
}
