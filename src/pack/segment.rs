//! Packing one package: its archive streamed into tar entries at their place in the image, with everything that
//! conda's installer does to a prefix, without installing. Entries come in the archive's order, then the entry
//! points, then the conda-meta record.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::Read;
use std::ops::ControlFlow;

use rattler::install::{PythonInfo, python_entry_point_template};
use rattler_conda_types::Subdir;
use rattler_conda_types::package::{PathType, PrefixPlaceholder};

use super::archive::{Archive, Entry, Kind, read_whole};
use super::content::{Hashed, Hashing, Sink};
use super::findings::Losses;
use super::layout::{LaidFile, PackageLayout};
use super::metadata::{DIRECTORY_MTIME, ModePolicy, SETUID};
use super::prefix::{self, Patched, Replacer};
use super::record::{RecordBuilder, WrittenFile};
use crate::lock::{LockedPackage, PackageFacts, built_at};
use crate::model::{FolderFacts, Folders};
use crate::util::paths::check_length;
use crate::util::report::Progress;
use crate::util::tarball::{self, TarKind};
use crate::util::{Digest, Error, Hasher, Limit, Result};

/// The environment that packages are packed for.
#[derive(Debug, Clone)]
pub struct Target {
    /// The prefix as programs in the image see it, absolute (`/opt/conda/envs/default`).
    pub prefix: String,
    /// Where the prefix lies in the tar: without the leading slash, the base's links resolved.
    pub root: String,
    /// The conda subdir of the image.
    pub subdir: Subdir,
    /// The environment's Python, if it has one.
    pub python: Option<PythonInfo>,
    /// Modes of what is written.
    pub modes: ModePolicy,
    /// Directories and symlinks of the base along the prefix that are not as usual.
    pub folders: Folders,
    /// Whether files of packages keep their setuid and setgid bits.
    pub keep_setuid: bool,
}

impl Target {
    /// The path in the tar of a path in the prefix, the base's links resolved.
    pub fn path(&self, target: &str) -> String {
        if self.root.is_empty() { target.to_owned() } else { self.folders.resolve(format!("{}/{target}", self.root)) }
    }

    /// Refuses a path in the prefix that is too long, as programs in the image see it or as engines unpack it.
    ///
    /// # Errors
    /// As [`check_length`].
    pub fn check_length(&self, target: &str) -> Result<(), String> {
        let seen = format!("{}/{target}", self.prefix);
        check_length(&seen)?;
        check_length(&self.path(target))
    }

    /// The modes at a path in the tar. `--group-write` is for the environment alone: whoever may write to
    /// /etc/passwd, or rename it, can become root.
    pub fn modes_at(&self, path: &str) -> ModePolicy {
        ModePolicy { group_write: self.modes.group_write && self.is_inside(path) }
    }

    /// Mode and owner of a directory in the tar. What the base has stays as it is; of an environment that the base has,
    /// the rest is taken to be as the environment's own directory.
    pub fn directory(&self, path: &str) -> FolderFacts {
        let as_root = || self.folders.get(&self.root).filter(|_| self.is_inside(path));
        let usual = FolderFacts { mode: self.modes_at(path).directory(), ..FolderFacts::USUAL };
        self.folders.get(path).or_else(as_root).unwrap_or(usual)
    }

    /// Whether a path in the tar is the prefix or in it.
    pub fn is_inside(&self, path: &str) -> bool {
        path.strip_prefix(&self.root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

/// Writes one package's segment to `out`; `progress` advances by the bytes read of the archive. What is lost goes to
/// `losses`.
///
/// # Errors
/// Damaged and hostile archives, named; those of the writer.
pub fn write(
    out: &mut impl Sink,
    archive: &Archive,
    package: &LockedPackage,
    layout: &PackageLayout,
    target: &Target,
    (progress, losses): (&dyn Progress, &mut Losses),
) -> Result<()> {
    let mut writer = SegmentWriter {
        out,
        archive,
        layout,
        target,
        losses,
        facts: &package.facts,
        written: HashMap::new(),
        attributes: HashMap::new(),
    };
    for directory in &layout.directories {
        target.check_length(directory).map_err(|error| archive.unsupported(&error))?;
    }
    archive.visit_content_with(progress, |entry, reader| {
        let entry = writer.with_attributes(entry);
        writer.entry(&entry, reader)
    })?;
    writer.check_complete()?;
    let record = writer.finish_paths(package)?;
    let (name, json) = record.finish(package, layout)?;
    let mtime = build_time(package);
    tarball::file(out, target.path(&format!("conda-meta/{name}")), &json, target.modes.file(false), mtime)?;
    Ok(())
}

/// When the package was built; the time of what packing adds to it.
fn build_time(package: &LockedPackage) -> u64 {
    built_at(&package.record.package_record).and_then(|time| u64::try_from(time).ok()).unwrap_or(DIRECTORY_MTIME)
}

struct SegmentWriter<'a, W> {
    out: &'a mut W,
    archive: &'a Archive,
    layout: &'a PackageLayout,
    target: &'a Target,
    losses: &'a mut Losses,
    facts: &'a PackageFacts,
    /// By archive path.
    written: HashMap<String, WrittenFile>,
    /// Permissions and times of the archive's files: those of a hard link are those of what it leads to.
    attributes: HashMap<String, (u32, u64)>,
}

impl<W: Sink> SegmentWriter<'_, W> {
    /// Remembers a file's permissions and time, and gives them to the hard links to it.
    fn with_attributes<'e>(&mut self, entry: &'e Entry) -> Cow<'e, Entry> {
        let own = (entry.mode, entry.mtime);
        let source = match &entry.kind {
            Kind::Hardlink(source) => self.attributes.get(source),
            _ => None,
        };
        let (mode, mtime) = source.copied().unwrap_or(own);
        self.attributes.insert(entry.path.clone(), (mode, mtime));
        match (mode, mtime) == own {
            true => Cow::Borrowed(entry),
            false => Cow::Owned(Entry { mode, mtime, ..entry.clone() }),
        }
    }

    fn entry(&mut self, entry: &Entry, reader: &mut dyn Read) -> Result<ControlFlow<()>> {
        let layout = self.layout;
        let Some(file) = layout.files.get(&entry.path) else { return Ok(ControlFlow::Continue(())) };
        if self.facts.leaves_out(&file.target) {
            return Ok(ControlFlow::Continue(()));
        }
        self.target.check_length(&file.target).map_err(|error| self.archive.unsupported(&error))?;
        let is_link = matches!(entry.kind, Kind::Symlink(_));
        if file.entry.path_type == PathType::SoftLink && !is_link {
            // Some tools wrote links as empty files; nothing would notice before a program misses its library.
            return Err(self.archive.broken(format!("`{}` is listed as a link, but is none", entry.path)));
        }
        let written = match &entry.kind {
            // Directories are the layer's; where a file was promised, the check of completeness complains.
            Kind::Directory => return Ok(ControlFlow::Continue(())),
            Kind::Symlink(link) => {
                self.refuse_below_unlisted_link(file)?;
                self.symlink(file, entry, link)?
            }
            Kind::File => match &file.entry.prefix_placeholder {
                Some(placeholder) => self.patched(file, entry, placeholder, (entry, reader))?,
                None if file.restamp.is_some() => {
                    let content = read_whole(entry, reader, Limit::BytecodeFile)?;
                    self.restamped(file, entry, content)?
                }
                None => self.plain(file, entry, reader)?,
            },
            Kind::Hardlink(source) => self.hardlink(file, entry, source, reader)?,
        };
        self.note_lost(file, entry);
        self.note_misstated(file, &written);
        if self.written.insert(entry.path.clone(), written).is_some() {
            return Err(self.archive.hostile(&format!("it holds `{}` twice", entry.path)));
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Files below the links that a package lists as links were put where these lead. A link that it lists as a
    /// file must have nothing below it.
    fn refuse_below_unlisted_link(&self, link: &LaidFile) -> Result<()> {
        if link.entry.path_type == PathType::SoftLink {
            return Ok(());
        }
        let below = format!("{}/", link.target);
        let mut targets = self.layout.targets().chain(self.layout.directories.iter().map(String::as_str));
        match targets.find(|target| target.starts_with(&below)) {
            Some(target) => Err(self
                .archive
                .hostile(&format!("`{target}` lies below `{}`, a link that its metadata calls a file", link.target))),
            None => Ok(()),
        }
    }

    fn mode(&self, entry: &Entry) -> u32 {
        let kept = if self.target.keep_setuid { entry.mode & SETUID } else { 0 };
        self.target.modes.file(entry.mode & 0o100 != 0) | kept
    }

    /// Takes note of what the image does not give a file.
    fn note_lost(&mut self, file: &LaidFile, entry: &Entry) {
        if !entry.has_content() {
            return;
        }
        if entry.mode & SETUID != 0 && !self.target.keep_setuid {
            self.losses.setuid.insert(file.target.clone());
        }
        if entry.capabilities {
            self.losses.capabilities.insert(file.target.clone());
        }
    }

    /// Takes note of a file that is not what the package's `paths.json` says. What a link says is not looked at.
    fn note_misstated(&mut self, file: &LaidFile, written: &WrittenFile) {
        if written.differs_from(&file.entry) {
            self.losses.misstated.insert(file.target.clone());
        }
    }

    fn header(&mut self, file: &LaidFile, kind: TarKind<'_>, entry: &Entry) -> Result<()> {
        let path = self.target.path(&file.target);
        Ok(tarball::header(self.out, path, kind, self.mode(entry), entry.mtime)?)
    }

    fn plain(&mut self, file: &LaidFile, entry: &Entry, reader: &mut dyn Read) -> Result<WrittenFile> {
        self.header(file, TarKind::File(entry.size), entry)?;
        let mut hashed = Hashed::new(reader, Hasher::default());
        let copied = self.out.take_all(&mut hashed)?;
        let (sha256, _) = hashed.finish().finish();
        if copied != entry.size {
            return Err(self.archive.broken(format!("`{}` ends after {copied} of {} bytes", entry.path, entry.size)));
        }
        tarball::padding(self.out, copied)?;
        Ok(WrittenFile { source: Some((sha256, copied)), sha256: Some(sha256), size: copied, patched: None })
    }

    fn patched(
        &mut self,
        file: &LaidFile,
        entry: &Entry,
        placeholder: &PrefixPlaceholder,
        (source, reader): (&Entry, &mut dyn Read),
    ) -> Result<WrittenFile> {
        let mut read = Hashed::new(reader, Hasher::default());
        let reader: &mut dyn Read = &mut read;
        let patched = match file.restamp {
            Some(stamp) => {
                let source = read_whole(source, reader, Limit::BytecodeFile)?;
                let mut content = prefix::replaced(self.archive, file, placeholder, &source, self.target)?;
                stamp.put(&mut content);
                Patched::Small(content)
            }
            None => Replacer::new(self.archive, file, placeholder, self.target)?.prepare(source.size, reader)?,
        };
        let (sha256, size) = match patched {
            Patched::Small(content) => {
                self.content(file, entry, &content)?;
                (Digest::of(&content), content.len() as u64)
            }
            Patched::Same(replacer) => {
                self.header(file, TarKind::File(source.size), entry)?;
                let mut hashing = Hashing { out: &mut *self.out, hasher: Hasher::default() };
                replacer.copy(reader, &mut hashing)?;
                let hasher = hashing.hasher;
                self.end_of_patched(hasher, source.size)?
            }
            Patched::Large(mut content, size) => {
                self.header(file, TarKind::File(size), entry)?;
                let mut hashed = Hashed::new(&mut content, Hasher::default());
                self.out.take_all(&mut hashed)?;
                self.end_of_patched(hashed.finish(), size)?
            }
        };
        let source = Some(read.finish().finish());
        Ok(WrittenFile { source, sha256: Some(sha256), size, patched: Some(placeholder.file_mode) })
    }

    /// Ends a file whose header said its size.
    fn end_of_patched(&mut self, hasher: Hasher, expected: u64) -> Result<(Digest, u64)> {
        let (sha256, size) = hasher.finish();
        if size != expected {
            return Err(Error::bug(format!("a file has {size} bytes after its prefix was put in, not {expected}")));
        }
        tarball::padding(self.out, size)?;
        Ok((sha256, size))
    }

    fn content(&mut self, file: &LaidFile, entry: &Entry, content: &[u8]) -> Result<()> {
        let path = self.target.path(&file.target);
        Ok(tarball::file(self.out, path, content, self.mode(entry), entry.mtime)?)
    }

    /// Byte code, with the time of its module in it.
    fn restamped(&mut self, file: &LaidFile, entry: &Entry, mut content: Vec<u8>) -> Result<WrittenFile> {
        let source = (Digest::of(&content), content.len() as u64);
        let mut sha256 = source.0;
        if let Some(stamp) = file.restamp {
            stamp.put(&mut content);
            sha256 = Digest::of(&content);
        }
        self.content(file, entry, &content)?;
        Ok(WrittenFile { source: Some(source), sha256: Some(sha256), size: content.len() as u64, patched: None })
    }

    fn symlink(&mut self, file: &LaidFile, entry: &Entry, link: &str) -> Result<WrittenFile> {
        check_length(link)
            .map_err(|error| self.archive.unsupported(&format!("the target of the link `{}`: {error}", file.target)))?;
        self.header(file, TarKind::Symlink(link.as_bytes()), entry)?;
        // As rattler records it: what the package says, else the length of the link's text.
        let size = file.entry.size_in_bytes.unwrap_or(link.len() as u64);
        Ok(WrittenFile { source: None, sha256: None, size, patched: None })
    }

    /// A hard link stays one when it leads to an unchanged file of this segment, else it becomes a copy.
    fn hardlink(&mut self, file: &LaidFile, entry: &Entry, source: &str, reader: &mut dyn Read) -> Result<WrittenFile> {
        let unchanged = file.entry.prefix_placeholder.is_none();
        if let (true, Some(first), Some(written)) = (unchanged, self.layout.files.get(source), self.written.get(source))
            && written.patched.is_none()
            && first.restamp == file.restamp
        {
            let written = *written;
            let to = self.target.path(&first.target);
            self.header(file, TarKind::Hardlink(to.as_bytes()), entry)?;
            return Ok(written);
        }
        let archive = self.archive;
        let mut written = None;
        archive.with_content(entry, reader, &mut |source, reader| {
            written = Some(match &file.entry.prefix_placeholder {
                Some(placeholder) => self.patched(file, entry, placeholder, (source, reader))?,
                None if file.restamp.is_some() => {
                    let content = read_whole(source, reader, Limit::BytecodeFile)?;
                    self.restamped(file, entry, content)?
                }
                None => self.copied(file, entry, source.size, reader)?,
            });
            Ok(())
        })?;
        written.ok_or_else(|| Error::bug("a link without its content"))
    }

    /// A copy of what a hard link leads to.
    fn copied(&mut self, file: &LaidFile, entry: &Entry, size: u64, reader: &mut dyn Read) -> Result<WrittenFile> {
        self.header(file, TarKind::File(size), entry)?;
        let mut hashed = Hashed::new(reader, Hasher::default());
        self.out.take_all(&mut hashed)?;
        let (sha256, size) = self.end_of_patched(hashed.finish(), size)?;
        Ok(WrittenFile { source: Some((sha256, size)), sha256: Some(sha256), size, patched: None })
    }

    /// Every file that the package lists must have been in its archive.
    fn check_complete(&self) -> Result<()> {
        for (source, file) in &self.layout.files {
            if !self.written.contains_key(source) && !self.facts.leaves_out(&file.target) {
                return Err(self.archive.broken(format!("`{source}` is listed but not there")));
            }
        }
        Ok(())
    }

    /// Writes the entry points and collects the record's paths.
    fn finish_paths(&mut self, package: &LockedPackage) -> Result<RecordBuilder> {
        let mut record = RecordBuilder::default();
        for (source, file) in &self.layout.files {
            if let Some(written) = self.written.get(source) {
                record.file(file, written);
            }
        }
        for directory in &self.layout.directories {
            record.directory(directory);
        }
        for (target, entry_point) in &self.layout.entry_points {
            let Some(python) = &self.target.python else { continue };
            if self.facts.leaves_out(target) {
                continue;
            }
            self.target.check_length(target).map_err(|error| self.archive.unsupported(&error))?;
            let script = python_entry_point_template(&self.target.prefix, false, entry_point, python);
            let mode = self.target.modes.file(true);
            tarball::file(self.out, self.target.path(target), script.as_bytes(), mode, build_time(package))?;
            record.entry_point(target, &script);
        }
        Ok(record)
    }
}
