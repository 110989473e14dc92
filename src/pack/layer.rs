//! Packing planned layers: directories first, then the segments in the plan's order, then the end of the archive.

use std::borrow::Cow;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::sync::{Mutex, OnceLock, PoisonError};

use rattler::install::PythonInfo;
use rattler_conda_types::Subdir;

use super::archive::Archive;
use super::bytecode::{self, Compiled, Interpreter, InterpreterParts, Source};
use super::compress::{Compressors, LayerDigests, LayerWriter};
use super::findings::Losses;
use super::layout::{PackageLayout, ancestors};
use super::metadata::DIRECTORY_MTIME;
use super::reuse::{self, Content, KnownSegment};
use super::segment::{self, Target};
use super::shipped::Shipped;
use super::wheel::{self, WheelFile, WheelLayout, WheelZip};
use crate::lock::{Lock, LockedPackage, LockedWheel, Member};
use crate::model::FolderFacts;
use crate::plan::{PlannedLayer, Segment, SegmentKind};
use crate::store::{RecordKind, Store};
use crate::util::report::Progress;
use crate::util::tarball::{self, TarKind};
use crate::util::{Digest, Error, Result, parallel};

/// What a packer works with.
pub struct PackerOptions<'a> {
    /// The environment.
    pub lock: &'a Lock,
    /// The archives of its packages, in the lock's order; none for those that no layer to be packed needs.
    pub archives: Vec<Option<Archive>>,
    /// Its wheels, likewise.
    pub wheels: Vec<Option<WheelFile>>,
    /// Where and how files are placed.
    pub target: &'a Target,
    /// Segments, by key, that lie in the store already: of them no archive is needed.
    pub known: &'a BTreeMap<Digest, KnownSegment>,
    /// The store that gets the blobs.
    pub store: &'a Store,
    /// The CPython that makes byte code, if it is not the environment's own.
    pub interpreter: Option<ForeignInterpreter>,
    /// Threads for compiling byte code.
    pub jobs: usize,
}

/// A CPython of the environment's version for this machine, where the environment's own does not run.
pub struct ForeignInterpreter {
    /// What it is made of.
    pub packages: Vec<(LockedPackage, Archive)>,
    /// The subdir of these packages.
    pub subdir: Subdir,
}

/// A member of the lock with its file and what that installs; what is lost before its files are written.
struct Part<'a> {
    kind: PartKind<'a>,
    losses: Losses,
}

enum PartKind<'a> {
    Package { package: &'a LockedPackage, archive: &'a Archive, layout: Box<PackageLayout> },
    Wheel { wheel: &'a LockedWheel, file: &'a WheelFile, layout: Box<WheelLayout>, python: &'a PythonInfo },
}

/// Packs layers of one environment.
pub struct Packer<'a> {
    options: PackerOptions<'a>,
    interpreter: OnceLock<Interpreter>,
    preparing: Mutex<()>,
}

impl<'a> Packer<'a> {
    /// A packer.
    pub fn new(options: PackerOptions<'a>) -> Self {
        Self { options, interpreter: OnceLock::new(), preparing: Mutex::new(()) }
    }

    /// Packs one layer into the store. `progress` advances by archive bytes.
    ///
    /// # Errors
    /// Damaged and hostile archives, named; byte code that cannot be made; those of the file system.
    pub fn pack(
        &self,
        layer: &PlannedLayer,
        compressors: &Compressors,
        progress: &dyn Progress,
    ) -> Result<LayerDigests> {
        let known = |segment: &Segment| self.options.known.get(&segment.key);
        let mut parts = BTreeMap::new();
        let mut contents = Vec::with_capacity(layer.segments.len());
        for segment in &layer.segments {
            contents.push(match known(segment) {
                Some(known) => Cow::Borrowed(known.content()),
                None => {
                    let part = match parts.entry(segment.member) {
                        Entry::Occupied(part) => part.into_mut(),
                        Entry::Vacant(place) => place.insert(self.part(segment.member)?),
                    };
                    Cow::Owned(self.content(part, segment.kind))
                }
            });
        }
        let mut writer = compressors.layer(self.options.store.new_blob()?);
        self.begin(&mut writer, layer, contents.iter().map(AsRef::as_ref))?;
        for segment in &layer.segments {
            progress.item(self.options.lock.member_name(segment.member));
            if let Some(known) = known(segment) {
                known.copy(&mut writer, self.options.store)?;
                progress.advance(self.size(segment));
                continue;
            }
            let part = parts.get(&segment.member).ok_or_else(|| Error::bug("a segment without its layout"))?;
            match segment.kind {
                SegmentKind::Files => self.write_files(&mut writer, part, segment, progress)?,
                SegmentKind::Bytecode => self.write_bytecode(&mut writer, part)?,
            }
            writer.end_segment()?;
        }
        tarball::end(&mut writer)?;
        let (digests, spans) = writer.finish_with_spans()?;
        let segments = layer.segments.iter().map(|segment| segment.key).zip(contents.iter().map(AsRef::as_ref));
        reuse::note(self.options.store, &digests, segments, &spans)?;
        Ok(digests)
    }

    /// Begins a layer with the folders of all that comes into it.
    fn begin<'c>(
        &self,
        writer: &mut LayerWriter<'_>,
        layer: &PlannedLayer,
        contents: impl Iterator<Item = &'c Content>,
    ) -> Result<()> {
        let (mut paths, mut directories) = (BTreeSet::new(), BTreeSet::new());
        for content in contents {
            paths.extend(content.paths.iter().map(String::as_str));
            directories.extend(content.directories.iter().map(String::as_str));
        }
        refuse_files_below_files(layer, &paths)?;
        // A folder that one package wants empty may be a link of another.
        let is_file = |path: &str| paths.contains(path);
        directories.retain(|directory| !is_file(directory) && !ancestors(directory).any(is_file));
        self.write_directories(writer, &paths, &directories)
    }

    /// What is told of a segment that is not read: the size of its archive, in bytes. Byte code has none.
    fn size(&self, segment: &Segment) -> u64 {
        match segment.kind {
            SegmentKind::Files => self.options.lock.member_size(segment.member),
            SegmentKind::Bytecode => 0,
        }
    }

    /// A member of the lock with its file and what that installs.
    fn part(&self, member: Member) -> Result<Part<'_>> {
        let python = self.options.target.python.as_ref();
        match member {
            Member::Package(index) => {
                let (package, archive) = self.package(index)?;
                let mut layout = PackageLayout::read(archive, python)?;
                let shipped = self.shipped(package, archive, &layout)?;
                let unfit = layout.settle_bytecode(&shipped, |path| package.facts.leaves_out(path));
                Ok(self.part_of(PartKind::Package { package, archive, layout: Box::new(layout) }, unfit))
            }
            Member::Wheel(index) => {
                let wheel = self.options.lock.wheels.get(index);
                let file = self.options.wheels.get(index).and_then(Option::as_ref);
                let (wheel, file) =
                    wheel.zip(file).ok_or_else(|| Error::bug("a layer was planned for a wheel without a file"))?;
                let python = wheel::need_python(python, &wheel.name)?;
                let mut zip = WheelZip::open(file)?;
                let mut layout = WheelLayout::read(&mut zip, wheel, python)?;
                let unfit = layout.settle_bytecode(&mut zip, |path| wheel.facts.leaves_out(path))?;
                Ok(self.part_of(PartKind::Wheel { wheel, file, layout: Box::new(layout), python }, unfit))
            }
        }
    }

    /// What becomes of the byte code that a package ships, as the store knows it or the archive tells.
    fn shipped(&self, package: &LockedPackage, archive: &Archive, layout: &PackageLayout) -> Result<Shipped> {
        let (store, key) =
            (self.options.store, Shipped::key(&package.sha256()?, layout, self.options.target.python.as_ref())?);
        if let Some(known) = store.record(RecordKind::Content, &key) {
            return Ok(known);
        }
        let shipped = Shipped::read(archive, layout)?;
        store.remember(RecordKind::Content, &key, &shipped)?;
        Ok(shipped)
    }

    /// A part, and the byte code that is left out for not fitting.
    fn part_of<'p>(&self, kind: PartKind<'p>, unfit: Vec<String>) -> Part<'p> {
        let made = if unfit.is_empty() { BTreeSet::new() } else { self.made(&kind) };
        let (remade, unfit) = unfit.into_iter().partition(|path| made.contains(path));
        Part { kind, losses: Losses { unfit, remade, ..Losses::default() } }
    }

    /// The byte code that is made of a part, if any is.
    fn made(&self, part: &PartKind<'_>) -> BTreeSet<String> {
        let (sources, makes): (_, &dyn Fn(&Source) -> bool) = match part {
            PartKind::Package { package, layout, .. } => {
                let python = self.options.target.python.as_ref();
                let sources = python.map(|python| bytecode::sources(layout, python)).unwrap_or_default();
                (sources, &|source| package.facts.makes(&source.module, &source.pyc))
            }
            PartKind::Wheel { wheel, layout, python, .. } => {
                (wheel::sources(layout, python), &|source| wheel.facts.makes(&source.module, &source.pyc))
            }
        };
        sources.into_iter().filter(makes).map(|source| source.pyc).collect()
    }

    fn package(&self, index: usize) -> Result<(&LockedPackage, &Archive)> {
        let package = self.options.lock.packages.get(index);
        let archive = self.options.archives.get(index).and_then(Option::as_ref);
        package.zip(archive).ok_or_else(|| Error::bug("a layer was planned for a package without an archive"))
    }

    /// What a segment puts into the layer.
    fn content(&self, part: &Part<'_>, kind: SegmentKind) -> Content {
        let (mut paths, mut directories) = (BTreeSet::new(), BTreeSet::new());
        match (kind, &part.kind) {
            (SegmentKind::Files, PartKind::Package { package, layout, .. }) => {
                paths.extend(layout.targets().filter(|path| !package.facts.leaves_out(path)).map(str::to_owned));
                paths.insert("conda-meta/record".to_owned());
                directories.extend(layout.directories.iter().cloned());
            }
            (SegmentKind::Files, PartKind::Wheel { wheel, layout, .. }) => {
                paths.extend(layout.targets().filter(|path| !wheel.facts.leaves_out(path)).map(str::to_owned));
            }
            (SegmentKind::Bytecode, part) => paths = self.made(part),
        }
        Content { paths, directories }
    }

    fn write_files(
        &self,
        writer: &mut LayerWriter<'_>,
        part: &Part<'_>,
        segment: &Segment,
        progress: &dyn Progress,
    ) -> Result<()> {
        let target = self.options.target;
        let mut losses = part.losses.clone();
        match &part.kind {
            PartKind::Package { package, archive, layout } => {
                segment::write(writer, archive, package, layout, target, (progress, &mut losses))?;
            }
            PartKind::Wheel { wheel, file, layout, .. } => {
                wheel::write(writer, file, wheel, layout, target, progress)?;
            }
        }
        match losses.is_empty() {
            true => Ok(()),
            false => self.options.store.remember(RecordKind::Losses, &segment.key, &losses),
        }
    }

    /// The directories above everything in the layer, the prefix's own parents included, so that each layer can
    /// be unpacked alone.
    fn write_directories(
        &self,
        writer: &mut LayerWriter<'_>,
        paths: &BTreeSet<&str>,
        empty: &BTreeSet<&str>,
    ) -> Result<()> {
        let target = self.options.target;
        let mut directories: BTreeSet<String> = empty.iter().map(|directory| target.path(directory)).collect();
        for path in paths.iter().chain(empty) {
            let path = target.path(path);
            for ancestor in ancestors(&path) {
                if !directories.insert(ancestor.to_owned()) {
                    break;
                }
            }
        }
        for directory in directories {
            let FolderFacts { mode, owner } = target.directory(&directory);
            tarball::owned_header(writer, directory, TarKind::Directory, (mode, owner), DIRECTORY_MTIME)?;
        }
        writer.end_segment()?;
        Ok(())
    }

    fn write_bytecode(&self, writer: &mut LayerWriter<'_>, part: &Part<'_>) -> Result<()> {
        let target = self.options.target;
        let interpreter = self.interpreter()?;
        let groups = match &part.kind {
            PartKind::Package { package, archive, layout } => bytecode::modules(archive, package, layout, target)?,
            PartKind::Wheel { wheel, file, layout, python } => wheel::modules(file, wheel, layout, python)?,
        };
        let compiled: Vec<Vec<Compiled>> =
            parallel(&groups, self.options.jobs, |modules| bytecode::compile(interpreter, &target.prefix, modules))?;
        for module in compiled.into_iter().flatten() {
            let mode = target.modes.file(false);
            tarball::file(writer, target.path(&module.pyc), &module.bytes, mode, module.mtime)?;
        }
        writer.flush()?;
        Ok(())
    }

    /// The CPython that makes the byte code, unpacked once for all layers.
    fn interpreter(&self) -> Result<&Interpreter> {
        let _alone = self.preparing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(interpreter) = self.interpreter.get() {
            return Ok(interpreter);
        }
        let target = self.options.target;
        let python = target.python.as_ref().ok_or_else(|| Error::bug("byte code was planned without a Python"))?;
        let (mut packages, subdir) = match &self.options.interpreter {
            Some(foreign) => {
                (foreign.packages.iter().map(|(package, archive)| (package, archive)).collect(), foreign.subdir)
            }
            None => (self.own_python()?, target.subdir),
        };
        packages.sort_by_key(|(package, _)| package.name() != "python");
        let interpreter = Interpreter::prepare(&InterpreterParts { packages, python, subdir }, self.options.store)?;
        Ok(self.interpreter.get_or_init(|| interpreter))
    }

    /// The environment's Python and what it needs.
    fn own_python(&self) -> Result<Vec<(&LockedPackage, &Archive)>> {
        let lock = self.options.lock;
        let needed = lock.closure(["python"]);
        let needed = (0..lock.packages.len()).filter(|&index| needed.contains(lock.packages[index].name()));
        needed.map(|index| self.package(index)).collect()
    }
}

/// Nothing may lie below a file: if that were a link, the rest would land where it leads. The lock has decided who
/// wins among packages; records and byte code are no package's.
fn refuse_files_below_files(layer: &PlannedLayer, paths: &BTreeSet<&str>) -> Result<()> {
    let below = |path: &&&str| ancestors(path).any(|ancestor| paths.contains(ancestor));
    match paths.iter().find(below) {
        Some(path) => Err(Error::user(format!("`{path}` in the layer `{}` would lie below a file", layer.name))
            .hint("a package brings a file or a link where another has a folder: leave one of them out")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_lies_below_a_file() {
        let layer = PlannedLayer {
            name: "python".to_owned(),
            tier: "python".to_owned(),
            segments: Vec::new(),
            key: crate::util::Digest::of(""),
            archive_size: 0,
        };
        let refuse = |paths: &[&str]| refuse_files_below_files(&layer, &paths.iter().copied().collect());
        refuse(&["lib/a", "lib/a-b/c", "lib/ab"]).expect("are apart");
        let error = refuse(&["lib/m.py", "lib/__pycache__", "lib/__pycache__/m.pyc"]).expect_err("is below");
        assert!(error.to_string().contains("`lib/__pycache__/m.pyc` in the layer `python`"), "{error}");
    }
}
