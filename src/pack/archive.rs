//! Reading conda archives (`.conda`, `.tar.bz2`) as streams of checked entries.
//!
//! Archives come from strangers. Every entry is checked before anything is done with it: an absolute path, one
//! that climbs with `..`, a device, or a path below a symbolic link that leads out of the prefix ends the build
//! with the package's name.

use std::collections::HashMap;
use std::io::{self, BufReader, Read};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use fs_err::File;
use rattler_package_streaming::{read, seek};

use super::conda;
use super::entry_path::{refuse_below_outward_link, safe_path};
use super::pax::{Pax, header_seconds};
use super::sizes::Sizes;
use super::watch::{Counted, Watch};
use crate::store::Store;
use crate::util::error::ResultExt as _;
use crate::util::report::{Progress, Silent};
use crate::util::{Digest, Error, Limit, Result, entries, error, paths};

/// An archive in the store.
#[derive(Debug, Clone)]
pub struct Archive {
    /// The file.
    pub path: PathBuf,
    /// `name-version-build`, for messages.
    pub package: String,
    /// Which of the two formats it has.
    pub format: Format,
    /// The store that has verified it, and its sha256; none in tests.
    pub held: Option<(Store, Digest)>,
}

/// The archive formats of conda.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A stored zip of two zstd tars.
    Conda,
    /// A bzip2 tar.
    TarBz2,
}

impl Format {
    /// The format that a file name stands for.
    pub fn of(file_name: &str) -> Option<Self> {
        match file_name {
            name if name.ends_with(".conda") => Some(Self::Conda),
            name if name.ends_with(".tar.bz2") => Some(Self::TarBz2),
            _ => None,
        }
    }

    /// The extension, as the store uses it.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Conda => "conda",
            Self::TarBz2 => "tar.bz2",
        }
    }
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A regular file with content.
    File,
    /// A directory.
    Directory,
    /// A symbolic link with its target as it stands.
    Symlink(String),
    /// A hard link to an earlier entry of the archive.
    Hardlink(String),
}

/// One checked entry.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Path in the archive, without `./` and trailing slashes.
    pub path: String,
    /// What it is.
    pub kind: Kind,
    /// Number of content bytes.
    pub size: u64,
    /// Permission bits as the archive has them.
    pub mode: u32,
    /// Seconds since 1970: the floor of the PAX record where there is one, as Python's byte code has it.
    pub mtime: u64,
    /// Whether it has capabilities, which are not kept.
    pub capabilities: bool,
}

impl Entry {
    /// Whether it is a file, under its own or another name.
    pub fn has_content(&self) -> bool {
        matches!(self.kind, Kind::File | Kind::Hardlink(_))
    }
}

type Visit<'a> = dyn FnMut(&Entry, &mut dyn Read) -> Result<ControlFlow<()>> + 'a;

impl Archive {
    /// Visits the entries of the package's metadata (`info/`) until the visitor breaks.
    ///
    /// # Errors
    /// Those of the visitor, unreadable or hostile archives.
    pub fn visit_info(&self, mut visit: impl FnMut(&Entry, &mut dyn Read) -> Result<ControlFlow<()>>) -> Result<()> {
        match self.format {
            Format::Conda => {
                self.check_conda()?;
                let (file, watch) = self.open(&Silent)?;
                let tar = seek::stream_conda_info(file).map_err(|error| self.broken(error))?;
                self.visit(tar.into_inner(), &mut visit)?;
                watch.end()
            }
            Format::TarBz2 => {
                let (tar, watch) = self.open_old(&Silent)?;
                self.visit(tar, &mut |entry, reader| {
                    if entry.path.starts_with("info/") { visit(entry, reader) } else { Ok(ControlFlow::Continue(())) }
                })?;
                watch.end()
            }
        }
    }

    /// Visits the entries that are installed (all but `info/`) until the visitor breaks.
    ///
    /// # Errors
    /// Those of the visitor, unreadable or hostile archives.
    pub fn visit_content(&self, visit: impl FnMut(&Entry, &mut dyn Read) -> Result<ControlFlow<()>>) -> Result<()> {
        self.visit_content_with(&Silent, visit)
    }

    /// The same; `progress` advances by the bytes that are read of the archive.
    ///
    /// # Errors
    /// As [`Self::visit_content`].
    pub fn visit_content_with(
        &self,
        progress: &dyn Progress,
        mut visit: impl FnMut(&Entry, &mut dyn Read) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        match self.format {
            Format::Conda => {
                self.check_conda()?;
                let (file, watch) = self.open(progress)?;
                let tar = seek::stream_conda_content(file).map_err(|error| self.broken(error))?;
                self.visit(tar.into_inner(), &mut visit)?;
                watch.end()
            }
            Format::TarBz2 => {
                let (tar, watch) = self.open_old(progress)?;
                self.visit(tar, &mut |entry, reader| {
                    let metadata = entry.path == "info" || entry.path.starts_with("info/");
                    if metadata { Ok(ControlFlow::Continue(())) } else { visit(entry, reader) }
                })?;
                watch.end()
            }
        }
    }

    /// Hands the content of one installed file to `read`; false when the archive does not hold it.
    ///
    /// # Errors
    /// As [`Self::visit_content`]; those of `read`.
    pub fn with_content_of(
        &self,
        path: &str,
        read: &mut dyn FnMut(&Entry, &mut dyn Read) -> Result<()>,
    ) -> Result<bool> {
        let mut wanted = path.to_owned();
        // A link to a link to a file: archives are written with links to the file itself, but may say otherwise.
        for _ in 0..8 {
            let mut found = false;
            let mut next = None;
            self.visit_content(|entry, reader| {
                if entry.path != wanted {
                    return Ok(ControlFlow::Continue(()));
                }
                match &entry.kind {
                    Kind::File => {
                        found = true;
                        read(entry, reader)?;
                    }
                    Kind::Hardlink(source) => next = Some(source.clone()),
                    Kind::Directory | Kind::Symlink(_) => {}
                }
                Ok(ControlFlow::Break(()))
            })?;
            match next {
                Some(source) => wanted = source,
                None => return Ok(found),
            }
        }
        Ok(false)
    }

    /// The content of one installed file, which must be in memory at once; nothing when the archive does not hold it.
    ///
    /// # Errors
    /// As [`Self::visit_content`]; what is larger than `limit`.
    pub fn content_of(&self, path: &str, limit: Limit) -> Result<Option<Vec<u8>>> {
        let mut content = None;
        self.with_content_of(path, &mut |entry, reader| {
            content = Some(read_whole(entry, reader, limit)?);
            Ok(())
        })?;
        Ok(content)
    }

    /// Hands the content of a visited entry to `read`; that of a hard link is where it leads.
    ///
    /// # Errors
    /// Those of `read`; a link to what is not there.
    pub fn with_content(
        &self,
        entry: &Entry,
        reader: &mut dyn Read,
        read: &mut dyn FnMut(&Entry, &mut dyn Read) -> Result<()>,
    ) -> Result<()> {
        let Kind::Hardlink(source) = &entry.kind else { return read(entry, reader) };
        // Rare enough to read the archive once more for it.
        match self.with_content_of(source, read)? {
            true => Ok(()),
            false => Err(self.broken(format!("`{}` is a link to `{source}`, which is not there", entry.path))),
        }
    }

    /// The content of a visited entry that must be in memory at once; that of a hard link is where it leads.
    ///
    /// # Errors
    /// Those of the reader; a link to what is not there; what is larger than `limit`.
    pub fn content(&self, entry: &Entry, reader: &mut dyn Read, limit: Limit) -> Result<Vec<u8>> {
        let mut content = Vec::new();
        self.with_content(entry, reader, &mut |entry, reader| {
            content = read_whole(entry, reader, limit)?;
            Ok(())
        })?;
        Ok(content)
    }

    /// Where the faster form of a `.tar.bz2` is or will be (see [`super::transcode`]); nothing for other formats.
    pub fn transcoded(&self) -> Option<PathBuf> {
        // `<sha256>.tar.bz2` to `<sha256>.tar.zst`.
        (self.format == Format::TarBz2).then(|| self.path.with_extension("zst"))
    }

    /// Looks at the zip of a `.conda`.
    fn check_conda(&self) -> Result<()> {
        conda::check(self, self.open(&Silent)?.0)
    }

    fn open<'p>(&self, progress: &'p dyn Progress) -> Result<(BufReader<Counted<'p>>, Watch<'_>)> {
        let watch = self.watch(&self.path)?;
        let file = Counted { file: watch.file()?, progress, scale: (1, 1) };
        Ok((BufReader::with_capacity(256 * 1024, file), watch))
    }

    /// The compressed bytes of a `.tar.bz2`.
    pub(super) fn open_slow(&self) -> Result<(impl Read + use<'_>, Watch<'_>)> {
        self.open(&Silent)
    }

    /// A file of the archive, which must not change while it is read.
    fn watch(&self, path: &Path) -> Result<Watch<'_>> {
        let store = self.held.as_ref().map(|(store, _)| store);
        let file = match store {
            Some(store) => store.open_verified(path)?,
            None => File::open(path)?.into_parts().0,
        };
        Ok(Watch { store, path: path.to_owned(), file })
    }

    /// The tar of a `.tar.bz2`, from its faster form where there is one.
    fn open_old<'p>(&self, progress: &'p dyn Progress) -> Result<(Box<dyn Read + 'p>, Watch<'_>)> {
        // One that was not compared with its record is none.
        let is_usable = |path: &PathBuf| match &self.held {
            Some((store, sha256)) => super::transcode::is_usable(path, sha256, store),
            None => path.exists(),
        };
        let (tar, watch): (Box<dyn Read + 'p>, _) = match self.transcoded().filter(is_usable) {
            Some(path) => {
                let watch = self.watch(&path)?;
                // What is awaited are the archive's bytes.
                let length = |metadata: std::io::Result<std::fs::Metadata>| metadata.map_or(1, |it| it.len().max(1));
                let scale = (length(std::fs::metadata(&self.path)), length(watch.file.metadata()));
                let file = Counted { file: watch.file()?, progress, scale };
                (Box::new(zstd::stream::read::Decoder::new(file).map_err(|error| self.broken(error))?), watch)
            }
            None => {
                let (file, watch) = self.open(progress)?;
                (Box::new(read::stream_tar_bz2(file).into_inner()), watch)
            }
        };
        Ok((tar, watch))
    }

    fn visit(&self, tar: impl Read, visit: &mut Visit<'_>) -> Result<()> {
        let mut symlinks = HashMap::new();
        let mut global = None;
        let mut sizes = Sizes::of(self);
        entries::each_of(
            tar,
            |error| self.unreadable(error),
            |raw| {
                let pax = self.records(raw, &mut global)?;
                let entry = self.check(raw, &pax)?;
                sizes.add(self, raw.size(), entry.as_ref())?;
                let Some(entry) = entry else { return Ok(ControlFlow::Continue(())) };
                refuse_below_outward_link(&entry.path, &symlinks).map_err(|error| self.hostile(&error))?;
                if let Kind::Symlink(target) = &entry.kind {
                    symlinks.insert(entry.path.clone(), target.clone());
                }
                let mut reader = EntryReader { archive: self, entry: &entry, raw, taken: 0 };
                visit(&entry, &mut reader).context(|| format!("cannot pack `{}`", self.package))
            },
        )
    }

    /// What the PAX records of a raw entry say; `global` is the time that a global header gave before.
    fn records(&self, raw: &mut tar::Entry<'_, impl Read>, global: &mut Option<u64>) -> Result<Pax> {
        let pax = Pax::read(raw.pax_extensions().map_err(|error| self.broken(error))?);
        let entry_type = raw.header().entry_type();
        let honoured = pax.and_then(|mut pax| {
            if entry_type == tar::EntryType::XGlobalHeader {
                *global = pax.global()?.or(*global);
                return Ok(Pax::default());
            }
            pax.check(&raw.path_bytes(), raw.link_name_bytes().as_deref(), raw.size(), entry_type.is_gnu_sparse())?;
            pax.mtime = pax.mtime.or(*global);
            Ok(pax)
        });
        honoured.map_err(|error| {
            let path = String::from_utf8_lossy(&raw.path_bytes()).escape_debug().to_string();
            self.unsupported(&format!("`{path}`: {error}"))
        })
    }

    /// The checked form of a raw entry; nothing for entries that only carry metadata of the format.
    fn check(&self, raw: &tar::Entry<'_, impl Read>, pax: &Pax) -> Result<Option<Entry>> {
        let header = raw.header();
        // No list of a package can name it, so it is not installed. In another spelling it could be taken for one
        // that is.
        let Ok(shown) = String::from_utf8(raw.path_bytes().into_owned()) else { return Ok(None) };
        let link = || -> Result<String> {
            let bytes = raw.link_name_bytes().ok_or_else(|| self.without_target(&shown))?;
            let target = String::from_utf8(bytes.into_owned())
                .map_err(|_| self.hostile(&format!("the target of link `{shown}` is not UTF-8")))?;
            match target.as_str() {
                "" => Err(self.without_target(&shown)),
                text if text.contains('\0') => Err(self.hostile(&format!("the target of link `{shown}` holds a NUL"))),
                _ => Ok(target),
            }
        };
        let kind = match header.entry_type() {
            // As tars of version 7 have folders.
            tar::EntryType::Regular if shown.ends_with('/') => Kind::Directory,
            tar::EntryType::Regular | tar::EntryType::Continuous | tar::EntryType::GNUSparse => Kind::File,
            tar::EntryType::Directory => Kind::Directory,
            tar::EntryType::Symlink => Kind::Symlink(link()?),
            tar::EntryType::Link => Kind::Hardlink(safe_path(&link()?).map_err(|error| self.hostile(&error))?),
            tar::EntryType::XGlobalHeader => return Ok(None),
            other => return Err(self.hostile(&format!("`{shown}` is a device or of unknown kind ({:?})", other))),
        };
        let path = safe_path(&shown).map_err(|error| self.hostile(&error))?;
        self.check_path(&path)?;
        if let Kind::Symlink(target) | Kind::Hardlink(target) = &kind {
            paths::check_length(target).map_err(|error| self.unsupported(&format!("link `{path}`: {error}")))?;
        }
        if path.is_empty() {
            return Ok(None);
        }
        let mtime = match pax.mtime {
            Some(mtime) => mtime,
            None => header_seconds(header.mtime().map_err(|error| self.broken(error))?),
        };
        let mode = header.mode().map_err(|error| self.broken(error))?;
        Ok(Some(Entry { path, kind, size: raw.size(), mode, mtime, capabilities: pax.capabilities }))
    }

    /// Refuses a path that no engine unpacks, or that costs much memory.
    ///
    /// # Errors
    /// When it is too long or too deep.
    pub fn check_path(&self, path: &str) -> Result<()> {
        paths::check_length(path).map_err(|error| self.unsupported(&error))?;
        let depth = path.bytes().filter(|byte| *byte == b'/').count();
        match depth > Limit::PathDepth.count() {
            true => Err(self.over(Limit::PathDepth, &format!("a path has {depth} directories, more than"))),
            false => Ok(()),
        }
    }

    /// An error about an archive that is over a limit; `what` as in [`Limit::exceeded`].
    pub fn over(&self, limit: Limit, what: &str) -> Error {
        limit.exceeded(&format!("package `{}` is refused: {what}", self.package))
    }

    /// An error of reading an archive: it is damaged, unless this machine lacks memory or space, or a limit is reached.
    fn unreadable(&self, failed: io::Error) -> Error {
        if error::is_resource(&failed) {
            return Error::user(format!("failed to read the archive of `{}`", self.package))
                .caused_by(Error::from(failed));
        }
        match failed.downcast::<Error>() {
            // A limit, or an error that names the archive already.
            Ok(own) if own.to_string().contains(&self.package) => own,
            Ok(own) => Error::user(format!("package `{}` is refused", self.package)).caused_by(own),
            Err(failed) => self.broken(failed),
        }
    }

    /// An error about an archive that cannot be read.
    pub fn broken(&self, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
        Error::user(format!("the archive of `{}` is damaged (`{}`)", self.package, self.path.display()))
            .hint("the channel serves it so, or the cache's disk is failing: tell the channel's owner, or remove the file and try again")
            .caused_by(error)
    }

    /// An error about an archive that must not be packed.
    pub fn hostile(&self, what: &str) -> Error {
        Error::user(format!("package `{}` is refused: {what}", self.package))
            .hint("such an entry could write outside of the environment; tell the channel's owner")
    }
}

impl Archive {
    /// An error about an archive that is well made, and holds what an image cannot hold.
    pub fn unsupported(&self, what: &str) -> Error {
        Error::user(format!("package `{}` is refused: {what}", self.package))
            .hint("take another version or build of the package, or tell its maintainers")
    }

    /// An error about a link that leads nowhere.
    fn without_target(&self, path: &str) -> Error {
        Error::user(format!("package `{}` is refused: link `{path}` has no target", self.package)).hint(
            "the archive was probably made, or converted, on a system without symlinks: take another build, or tell the channel's owner",
        )
    }
}

/// The content of one entry. Its errors say that the archive is damaged, so that they are not taken for those of
/// where the content goes; an end before the promised size is one.
struct EntryReader<'a, R> {
    archive: &'a Archive,
    entry: &'a Entry,
    raw: R,
    taken: u64,
}

impl<R: Read> Read for EntryReader<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let Entry { path, size, .. } = self.entry;
        match self.raw.read(buffer) {
            Ok(0) if !buffer.is_empty() && self.taken < *size => {
                Err(self.archive.broken(format!("`{path}` ends after {} of {size} bytes", self.taken)).into())
            }
            Ok(count) => {
                self.taken += count as u64;
                Ok(count)
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => Err(error),
            Err(error) => Err(self.archive.unreadable(error).into()),
        }
    }
}

/// The content of an entry that must be in memory at once.
///
/// # Errors
/// Those of the reader; a size over the limit, as a few bytes of an archive may stand for.
pub fn read_whole(entry: &Entry, reader: &mut dyn Read, limit: Limit) -> Result<Vec<u8>> {
    if entry.size > limit.value() {
        return Err(limit.exceeded(&format!("`{}` has {} bytes; the limit is", entry.path, entry.size)));
    }
    // The size comes from a stranger: a wrong one must not allocate more than the archive then yields.
    let mut content = Vec::with_capacity(entry.size.min(16 << 20) as usize);
    reader.read_to_end(&mut content)?;
    Ok(content)
}

/// The archive of a package, in the store.
///
/// # Errors
/// When the file name is of neither format.
pub fn archive_at(path: &Path, file_name: &str, package: String, held: Option<(Store, Digest)>) -> Result<Archive> {
    let format = Format::of(file_name).ok_or_else(|| {
        Error::user(format!("`{file_name}` is no conda archive")).hint("archives end in .conda or .tar.bz2")
    })?;
    Ok(Archive { path: path.to_owned(), package, format, held })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn visited(tar: &[u8]) -> Vec<String> {
        let archive = Archive { path: "a".into(), package: "a-1-0".to_owned(), format: Format::TarBz2, held: None };
        let mut paths = Vec::new();
        let mut visit = |entry: &Entry, _: &mut dyn Read| {
            paths.push(entry.path.clone());
            Ok(ControlFlow::Continue(()))
        };
        archive.visit(tar, &mut visit).expect("reads");
        paths
    }

    #[test]
    fn names_that_are_no_text_are_not_taken_for_others() {
        let mut tar = Vec::new();
        for path in [&b"lib/\xff"[..], "lib/\u{fffd}".as_bytes()] {
            crate::util::tarball::file(&mut tar, path, b"x", 0o644, 1).expect("writes");
        }
        assert_eq!(visited(&tar), ["lib/\u{fffd}"]);
    }

    #[test]
    fn what_no_memory_holds_is_not_read() {
        let size = Limit::Module.value() + 1;
        let entry =
            Entry { path: "lib/x".to_owned(), kind: Kind::File, size, mode: 0o644, mtime: 1, capabilities: false };
        let error = read_whole(&entry, &mut std::io::repeat(0), Limit::Module).expect_err("is refused");
        assert!(error.to_string().contains("`lib/x` has 33554433 bytes"), "{error}");
    }

    /// A reader on a machine that lacks something.
    struct Failing(io::ErrorKind);

    impl Read for Failing {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(self.0.into())
        }
    }

    #[test]
    fn lack_of_memory_or_space_is_no_damage() {
        let archive = Archive { path: "a".into(), package: "a-1-0".to_owned(), format: Format::TarBz2, held: None };
        let visit = |kind| archive.visit(Failing(kind), &mut |_, _| Ok(ControlFlow::Continue(()))).expect_err("fails");
        for (kind, said) in [(io::ErrorKind::OutOfMemory, "memory"), (io::ErrorKind::StorageFull, "space")] {
            let error = visit(kind);
            let chain = error.chain().join(": ");
            assert!(chain.contains("a-1-0") && chain.contains(said) && !chain.contains("damaged"), "{chain}");
            assert!(!error.hints().is_empty());
        }
        assert!(visit(io::ErrorKind::InvalidData).to_string().contains("damaged"));
    }
}
