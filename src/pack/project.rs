//! The layer of project files: files of this machine at their places in the image, read once for their digests, which
//! make the layer's key, and once more when the layer is not known yet. What they were the first time they must still
//! be the second.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write};
use std::path::{Path, PathBuf};

use fs_err::File;
use rattler::install::PythonInfo;
use serde::Serialize;

use super::archive::Archive;
use super::bytecode;
use super::compress::LayerWriter;
use super::content::Hashing;
use super::layout::{PackageLayout, ancestors};
use crate::lock::LockedPackage;
use crate::model::LAYOUT_VERSION;
use crate::util::report::Progress;
use crate::util::tarball::{self, TarKind};
use crate::util::{Digest, Error, Hasher, Result, parallel};

/// The time of all project files: the 2nd of January 1980, 0:00 UTC. Clones of one commit have the times of their
/// making, so one time must do for all. zip cannot hold one before 1980, wherever it is 1980 first.
pub const PROJECT_MTIME: u64 = 315_619_200;

/// What a project file is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProjectContent {
    /// A regular file of so many bytes with this digest.
    File {
        /// Its bytes.
        size: u64,
        /// Of its bytes.
        digest: Digest,
    },
    /// A symbolic link with this target, as it stands.
    Symlink(#[serde(serialize_with = "as_hex")] Vec<u8>),
    /// A folder.
    Directory,
}

/// An entry of the layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerEntry {
    /// What it is.
    pub content: ProjectContent,
    /// Where it is read from; for messages and to be packed. Nothing for folders.
    pub source: PathBuf,
    /// Its mode.
    pub mode: u32,
    /// User and group: root, but for folders of the base that are somebody else's.
    pub owner: (u64, u64),
    /// Seconds since 1970.
    pub mtime: u64,
}

/// Everything that the layer holds: paths in the tar, without a leading slash, and what is there.
#[derive(Debug, Clone, Default)]
pub struct ProjectLayer {
    /// Sorted as in the tar, but that folders come first there.
    pub entries: BTreeMap<Vec<u8>, LayerEntry>,
}

#[derive(Serialize)]
struct KeyInputs<'a> {
    kind: &'static str,
    layout_version: u32,
    codec: &'a str,
    entries: Digest,
}

#[derive(Serialize)]
struct EntryInputs<'a> {
    path: String,
    content: &'a ProjectContent,
    mode: u32,
    mtime: u64,
    #[serde(skip_serializing_if = "is_root")]
    owner: (u64, u64),
}

fn is_root(owner: &(u64, u64)) -> bool {
    *owner == (0, 0)
}

/// Sizes and digests of files, in their order, read with `jobs` threads.
///
/// # Errors
/// Files that cannot be read, or change meanwhile.
pub fn measure(files: &[&Path], jobs: usize) -> Result<Vec<ProjectContent>> {
    parallel(files, jobs, |path| {
        let file = crate::util::files::regular(path)?;
        let before = file.metadata()?.len();
        let (digest, size) = Hasher::drain(file)?;
        if size == before { Ok(ProjectContent::File { size, digest }) } else { Err(changed(path)) }
    })
}

impl ProjectLayer {
    /// What its bytes depend on.
    ///
    /// # Errors
    /// Never.
    pub fn key(&self, codec: &str) -> Result<Digest> {
        let mut hasher = Hasher::default();
        for (path, entry) in &self.entries {
            let LayerEntry { content, mode, mtime, owner, .. } = entry;
            let inputs = EntryInputs { path: hex::encode(path), content, mode: *mode, mtime: *mtime, owner: *owner };
            hasher.update(&crate::util::json::canonical(&inputs)?);
        }
        let entries = hasher.finish().0;
        let inputs = KeyInputs { kind: "project-files", layout_version: LAYOUT_VERSION, codec, entries };
        Ok(Digest::of(crate::util::json::canonical(&inputs)?))
    }

    /// The bytes of all files.
    pub fn size(&self) -> u64 {
        self.entries.values().map(LayerEntry::size).sum()
    }

    /// The number of files and links.
    pub fn files(&self) -> usize {
        self.entries.values().filter(|entry| entry.content != ProjectContent::Directory).count()
    }

    /// The files and links below a folder of the tar: their paths in it, and where they are read from. Those whose
    /// path is no text are no package's.
    pub fn files_in(&self, folder: &str) -> BTreeMap<String, PathBuf> {
        let files = self.entries.iter().filter(|(_, entry)| entry.content != ProjectContent::Directory);
        let inside = files.filter_map(|(path, entry)| {
            let path = std::str::from_utf8(path).ok()?.strip_prefix(folder)?.strip_prefix('/')?;
            Some((path.to_owned(), entry.source.clone()))
        });
        inside.collect()
    }

    /// Writes the tar; `progress` advances by the files' bytes.
    ///
    /// # Errors
    /// Files that are not what they were, named; those of the writer.
    pub fn write(&self, out: &mut LayerWriter<'_>, progress: &dyn Progress) -> Result<()> {
        let is_folder = |entry: &LayerEntry| entry.content == ProjectContent::Directory;
        for (path, entry) in self.entries.iter().filter(|(_, entry)| is_folder(entry)) {
            tarball::owned_header(out, path, TarKind::Directory, (entry.mode, entry.owner), entry.mtime)?;
        }
        out.end_segment()?;
        for (path, entry) in self.entries.iter().filter(|(_, entry)| !is_folder(entry)) {
            entry.write(path, out)?;
            progress.advance(entry.size());
        }
        out.end_segment()?;
        Ok(tarball::end(out)?)
    }
}

impl LayerEntry {
    fn size(&self) -> u64 {
        match self.content {
            ProjectContent::File { size, .. } => size,
            _ => 0,
        }
    }

    fn write(&self, path: &[u8], out: &mut impl Write) -> Result<()> {
        match &self.content {
            ProjectContent::Directory => Ok(()),
            ProjectContent::Symlink(target) => {
                Ok(tarball::header(out, path, TarKind::Symlink(target), self.mode, self.mtime)?)
            }
            ProjectContent::File { size, digest } => {
                tarball::header(out, path, TarKind::File(*size), self.mode, self.mtime)?;
                let mut file = File::open(&self.source)?;
                let mut hashing = Hashing { out: &mut *out, hasher: Hasher::default() };
                // Never more than the header says, whatever becomes of the file.
                let count = io::copy(&mut (&mut file).take(*size), &mut hashing)?;
                if count != *size || hashing.hasher.finish().0 != *digest || file.read(&mut [0])? != 0 {
                    return Err(changed(&self.source));
                }
                Ok(tarball::padding(out, *size)?)
            }
        }
    }
}

/// Project files in the prefix, by their paths in it, which must not be where something else is.
pub struct InPrefix<'a> {
    files: &'a BTreeMap<String, PathBuf>,
    /// The folders above them, each with one of the files below.
    folders: BTreeMap<&'a str, &'a Path>,
}

impl<'a> InPrefix<'a> {
    /// Of files and where they are read from.
    pub fn new(files: &'a BTreeMap<String, PathBuf>) -> Self {
        let mut folders = BTreeMap::new();
        for (path, source) in files {
            ancestors(path).for_each(|above| {
                folders.entry(above).or_insert(source.as_path());
            });
        }
        Self { files, folders }
    }

    /// Refuses a path of `owner`, which is named as messages name it.
    ///
    /// # Errors
    /// When a project file is there, above, or needs a folder there.
    pub fn refuse(&self, owner: &str, path: &str) -> Result<()> {
        let above = || ancestors(path).find_map(|above| self.files.get(above));
        let file = self.files.get(path).or_else(above).map(PathBuf::as_path);
        match file.or_else(|| self.folders.get(path).copied()) {
            Some(source) => Err(Error::user(format!("`{}` would be where {owner} has `{path}`", source.display()))
                .hint("copy it to a place out of the environment, or leave it out with `--exclude`")),
            None => Ok(()),
        }
    }

    /// Refuses the paths of conda packages, their byte code included.
    ///
    /// # Errors
    /// The first of these files with its package; archives that cannot be read.
    pub fn refuse_packaged(
        &self,
        packages: &[(&LockedPackage, Archive)],
        python: Option<&PythonInfo>,
        jobs: usize,
    ) -> Result<()> {
        parallel(packages, jobs, |(package, archive)| {
            let layout = PackageLayout::read(archive, python)?;
            let made = python.filter(|_| package.facts.bytecode).map(|python| bytecode::sources(&layout, python));
            let made: Vec<String> = made.unwrap_or_default().into_iter().map(|source| source.pyc).collect();
            let mut paths =
                layout.targets().filter(|path| !package.facts.leaves_out(path)).chain(made.iter().map(String::as_str));
            paths.try_for_each(|path| self.refuse(&format!("the package `{}`", package.full_name()), path))
        })
        .map(drop)
    }
}

fn as_hex<S: serde::Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&hex::encode(bytes))
}

fn changed(path: &Path) -> Error {
    Error::user(format!("`{}` changed while it was read", path.display()))
        .hint("wait until whatever writes it is done, and build again")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Compression;
    use crate::pack::Compressors;
    use crate::store::Store;
    use crate::util::report::Silent;

    #[test]
    fn what_changes_after_it_was_measured_is_refused_by_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(&folder.path().join("store")).expect("opens");
        let file = folder.path().join("file");
        fs_err::write(&file, "abc").expect("writes");
        let content = measure(&[&file], 1).expect("reads").remove(0);
        let entry = LayerEntry { content, source: file.clone(), mode: 0o644, owner: (0, 0), mtime: PROJECT_MTIME };
        let layer = ProjectLayer { entries: BTreeMap::from([(b"file".to_vec(), entry)]) };
        let compressors = Compressors::start(Compression::Gzip(1), 1).expect("starts");
        let write = || {
            let mut writer = compressors.layer(store.new_blob().expect("begins"));
            layer.write(&mut writer, &Silent)
        };
        write().expect("is the same");
        for content in ["abd", "ab", "abcd"] {
            fs_err::write(&file, content).expect("writes");
            let error = write().expect_err("is another").to_string();
            assert!(error.ends_with("file` changed while it was read"), "{error}");
        }
    }

    #[test]
    fn the_key_holds_all_that_is_in_the_tar() {
        let entry = |mode, target: &str| LayerEntry {
            content: ProjectContent::Symlink(target.as_bytes().to_vec()),
            source: PathBuf::new(),
            mode,
            owner: (0, 0),
            mtime: PROJECT_MTIME,
        };
        let key = |path: &str, entry, codec| {
            let entries = BTreeMap::from([(path.as_bytes().to_vec(), entry)]);
            ProjectLayer { entries }.key(codec).expect("a key")
        };
        let keys = [
            key("a", entry(0o777, "b"), "gzip"),
            key("b", entry(0o777, "b"), "gzip"),
            key("a", entry(0o755, "b"), "gzip"),
            key("a", entry(0o777, "c"), "gzip"),
            key("a", entry(0o777, "b"), "zstd"),
            key("a", LayerEntry { owner: (0, 1), ..entry(0o777, "b") }, "gzip"),
            key("a", LayerEntry { content: ProjectContent::Directory, ..entry(0o777, "") }, "gzip"),
        ];
        assert_eq!(std::collections::BTreeSet::from(keys).len(), keys.len());
        let elsewhere = LayerEntry { source: "/elsewhere".into(), ..entry(0o777, "b") };
        assert_eq!(key("a", elsewhere, "gzip"), keys[0]);
    }
}
