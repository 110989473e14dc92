//! Byte code: the `.pyc` of noarch packages, and of modules that prefix replacement changed. Made by the CPython
//! of the environment itself, unpacked into the store: bytes depend on its exact version and on nothing else.
//! It runs in the sandbox, and what it answers is bounded and checked (`--bytecode off` leaves it out).

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fs_err as fs;
use rattler::install::PythonInfo;
use rattler_conda_types::Subdir;
use rattler_conda_types::package::PathType;

use super::archive::Archive;
use super::findings::Losses;
use super::layout::{PackageLayout, ancestors};
use super::metadata::ModePolicy;
use super::segment::{self, Target};
use crate::lock::LockedPackage;
use crate::model::pyc::{is_made_of, module_of};
use crate::model::{Folders, Platform};
use crate::sandbox::{Ended, Job, Limits, Running, System};
use crate::store::Store;
use crate::util::error::ResultExt as _;
use crate::util::paths::check_length;
use crate::util::report::Silent;
use crate::util::tarball;
use crate::util::{Digest, Error, Result};

/// The program that the interpreter runs.
const COMPILE: &str = include_str!("compile.py");

/// Modules that one interpreter process compiles, so that a large package is compiled on many cores. Fixed: the
/// grouping must not depend on the number of cores.
const MODULES_PER_PROCESS: usize = 200;

/// The time for one process, in which a large package takes a few seconds.
const TIME: Duration = Duration::from_secs(600);

/// Bytes of address space of one process.
const MEMORY: u64 = 4 << 30;

/// The largest `.pyc` of a module of `source` bytes. Constants that Python computes while it compiles make one larger
/// than its source.
const fn largest_pyc(source: usize) -> usize {
    (1 << 20) + 64 * source
}

/// The first CPython with hash-based `.pyc` (PEP 552).
const OLDEST: (u64, u64) = (3, 7);

/// A module to compile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Path in the archive.
    pub source: String,
    /// Path of the module in the prefix.
    pub module: String,
    /// Path of the byte code in the prefix.
    pub pyc: String,
}

impl Source {
    /// The module at `target` of the prefix, `source` of the archive; nothing when it is no module.
    pub fn new(source: &str, target: &str, python: &PythonInfo) -> Option<Self> {
        let (major, minor) = python.short_version;
        let (folder, name) = target.rsplit_once('/')?;
        let stem = name.strip_suffix(".py")?;
        let pyc = format!("{folder}/__pycache__/{stem}.cpython-{major}{minor}.pyc");
        // Python makes none either where no file may have that name.
        check_length(&pyc).ok()?;
        Some(Self { source: source.to_owned(), module: target.to_owned(), pyc })
    }
}

/// The modules of a package for which byte code is made: all of a noarch Python package's, and those of others
/// that prefix replacement changes or whose shipped byte code does not fit them.
pub fn sources(layout: &PackageLayout, python: &PythonInfo) -> Vec<Source> {
    let (major, minor) = python.short_version;
    let site_packages = format!("{}/", python.site_packages_path.display());
    let library = format!("lib/python{major}.{minor}/");
    let stale = stale(layout);
    let taken: BTreeSet<&str> = layout.targets().collect();
    let owned = |pyc: &str| taken.contains(pyc) && !stale.contains(pyc);
    // A `__pycache__` that is a link: what is made is not written where that leads.
    let is_linked = |pyc: &str| ancestors(pyc).any(|above| taken.contains(above));
    let wanted = |file: &super::layout::LaidFile| {
        let replaced = file.entry.prefix_placeholder.is_some() && file.target.starts_with(&library);
        let noarch = layout.index.noarch.is_python() && file.target.starts_with(&site_packages);
        let shipped = layout.recompiled.contains(&file.target);
        file.entry.path_type == PathType::HardLink && (replaced || noarch || shipped)
    };
    let mut sources: Vec<Source> = layout
        .files
        .iter()
        .filter(|(_, file)| wanted(file))
        .filter_map(|(source, file)| Source::new(source, &file.target, python))
        .filter(|source| !owned(&source.pyc) && !is_linked(&source.pyc))
        .collect();
    sources.sort_by(|a, b| a.pyc.cmp(&b.pyc));
    sources
}

/// Shipped `.pyc` of modules that prefix replacement changes: they record the old size, so Python would not use
/// them.
pub fn stale(layout: &PackageLayout) -> BTreeSet<String> {
    let replaced = layout.files.values().filter(|file| file.entry.prefix_placeholder.is_some());
    let replaced: BTreeSet<&str> = replaced.map(|file| file.target.as_str()).collect();
    let is_stale = |target: &&str| module_of(target).is_some_and(|module| replaced.contains(module.as_str()));
    layout.targets().filter(is_stale).map(str::to_owned).collect()
}

/// Refuses a Python that makes no byte code, or none that is the same every time.
///
/// # Errors
/// For what is no CPython, or too old a one; they name the flag.
pub fn check_python(python: &LockedPackage, version: (u64, u64)) -> Result<()> {
    let refuse = |reason: &str| {
        let name = python.full_name();
        let error = Error::user(format!("byte code cannot be made with `{name}`: it is {reason}"));
        Err(error.hint("`--bytecode off` makes the image without it"))
    };
    if !python.is_cpython() {
        return refuse("no CPython");
    }
    if version < OLDEST {
        return refuse("older than Python 3.7");
    }
    Ok(())
}

/// A CPython in the store that can be run here.
#[derive(Debug, Clone)]
pub struct Interpreter {
    folder: PathBuf,
    executable: PathBuf,
    version: (u64, u64),
}

/// What an interpreter is made of: the environment's Python, or one of the same version for this machine, and what
/// it needs.
pub struct InterpreterParts<'a> {
    /// The packages, Python first.
    pub packages: Vec<(&'a LockedPackage, &'a Archive)>,
    /// The environment's Python.
    pub python: &'a PythonInfo,
    /// The subdir of the packages.
    pub subdir: Subdir,
}

impl Interpreter {
    /// Unpacks the interpreter into the store, or finds it there.
    ///
    /// # Errors
    /// When no byte code can be made with it on this machine; they name the flag.
    pub fn prepare(parts: &InterpreterParts<'_>, store: &Store) -> Result<Self> {
        let Some((python, _)) = parts.packages.first() else {
            return Err(Error::bug("byte code was asked for without a Python"));
        };
        check_python(python, parts.python.short_version)?;
        if Platform::of_builder() != Some(parts.subdir) {
            let (name, subdir) = (python.full_name(), parts.subdir);
            return Err(Error::user(format!("byte code cannot be made with `{name}` of {subdir} on this machine"))
                .hint("`--bytecode off` makes the image without it"));
        }
        let mut contents = Vec::new();
        for (package, _) in &parts.packages {
            // What another package of the environment replaces is not unpacked.
            contents.push((package.sha256()?, package.facts.left_out()));
        }
        let key = Digest::of(crate::util::json::canonical(&contents)?);
        let folder = store.interpreter(&key);
        if store.claim(&folder).is_none() {
            unpack(parts, store, &folder).context(|| format!("cannot unpack `{}`", python.full_name()))?;
        }
        let executable = folder.join(&parts.python.path);
        Ok(Self { folder, executable, version: parts.python.short_version })
    }

    /// The directory that holds all of it.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The program, which runs here.
    pub fn executable(&self) -> &Path {
        &self.executable
    }

    fn job(&self) -> Job {
        // `-I` would ignore the hash seed, which older versions need for equal bytes; what it does beside that
        // is done by the empty environment and by the first lines of the program.
        let arguments = ["-s", "-S", "-B", "-W", "ignore", "-c", COMPILE];
        Job {
            program: self.executable.clone(),
            arguments: arguments.map(Into::into).to_vec(),
            environment: vec![("PYTHONHASHSEED".into(), "0".into())],
            directory: "/".into(),
            read: vec![self.folder.clone()],
            data: Vec::new(),
            write: Vec::new(),
            system: System::Libraries,
            network: false,
            limits: Limits { time: Limits::time(TIME), memory: MEMORY, file_size: 0, output: 0, processes: 0 },
        }
    }

    fn failed(&self, error: std::io::Error) -> Error {
        Error::user(format!("the environment's Python does not run here (`{}`)", self.executable.display()))
            .hint("`--bytecode off` makes an image without the byte code of noarch packages")
            .caused_by(error)
    }
}

/// Unpacks Python and what it needs below `folder`; it appears there when it is whole.
fn unpack(parts: &InterpreterParts<'_>, store: &Store, folder: &Path) -> Result<()> {
    let prefix = folder.to_str().ok_or_else(|| Error::user("the cache folder's path is not UTF-8"))?;
    let target = Target {
        prefix: prefix.to_owned(),
        root: String::new(),
        subdir: parts.subdir,
        python: Some(parts.python.clone()),
        modes: ModePolicy { group_write: false },
        folders: Folders::default(),
        keep_setuid: false,
    };
    let unfinished = tempfile::Builder::new()
        .prefix("interpreter-")
        .tempdir_in(store.scratch())
        .map_err(|error| crate::util::files::named(&store.scratch(), error))?;
    // So that no other build sweeps it away, however long the unpacking takes.
    let held = fs::File::open(unfinished.path())?;
    held.file().lock().map_err(|error| crate::util::files::named(unfinished.path(), error))?;
    for (package, archive) in &parts.packages {
        let layout = PackageLayout::read(archive, Some(parts.python))?;
        let (mut reader, writer) = std::io::pipe()?;
        std::thread::scope(|scope| -> Result<()> {
            let packing = scope.spawn(|| {
                let mut writer = BufWriter::with_capacity(256 * 1024, writer);
                segment::write(&mut writer, archive, package, &layout, &target, (&Silent, &mut Losses::default()))?;
                tarball::end(&mut writer)?;
                writer.flush().map_err(Error::from)
            });
            let unpacked = tar::Archive::new(&mut reader).unpack(unfinished.path());
            // The reader stops in the middle of the end marker: what follows is read, or the writer would fail.
            let unpacked = unpacked.and_then(|()| io::copy(&mut reader, &mut io::sink()).map(drop));
            drop(reader);
            match packing.join() {
                // A reader that failed makes the writer fail too: the reader's reason is the cause.
                Ok(packed) => unpacked.map_err(Error::from).and(packed),
                Err(_) => Err(Error::bug("the packing thread ended early")),
            }
        })?;
    }
    match fs::rename(unfinished.path(), folder) {
        Ok(()) => {
            let _ = unfinished.keep();
            Ok(())
        }
        // Another process was quicker; its interpreter is the same.
        Err(_) if folder.exists() => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// A compiled module.
pub struct Compiled {
    /// Path of the byte code in the prefix.
    pub pyc: String,
    /// Time of the module in its archive.
    pub mtime: u64,
    /// The whole `.pyc`.
    pub bytes: Vec<u8>,
}

/// A module with its content, as it is in the image.
pub struct Module {
    source: Source,
    mtime: u64,
    content: Vec<u8>,
}

impl Module {
    /// A module with its content and the time of its file in seconds since 1970.
    pub fn new(source: Source, mtime: u64, content: Vec<u8>) -> Self {
        Self { source, mtime, content }
    }
}

/// Reads the modules of a package, in the order of their byte code, in groups of one process each.
///
/// # Errors
/// Damaged and hostile archives.
pub fn modules(
    archive: &Archive,
    package: &LockedPackage,
    layout: &PackageLayout,
    target: &Target,
) -> Result<Vec<Vec<Module>>> {
    let Some(python) = &target.python else { return Ok(Vec::new()) };
    let wanted: BTreeMap<String, Source> = sources(layout, python)
        .into_iter()
        .filter(|source| package.facts.makes(&source.module, &source.pyc))
        .map(|source| (source.source.clone(), source))
        .collect();
    let mut modules = Vec::with_capacity(wanted.len());
    archive.visit_content(|entry, reader| {
        // A symbolic link may be listed as a file, but has no content of its own.
        let source = wanted.get(&entry.path).filter(|_| entry.has_content());
        let (Some(source), Some(file)) = (source, layout.files.get(&entry.path)) else {
            return Ok(ControlFlow::Continue(()));
        };
        let mut content = archive.content(entry, reader)?;
        if let Some(placeholder) = &file.entry.prefix_placeholder {
            content = segment::replace_prefix(archive, file, placeholder, &content, target)?;
        }
        modules.push(Module::new(source.clone(), entry.mtime, content));
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(grouped(modules))
}

/// Modules in the order of their byte code, in groups of one process each.
pub fn grouped(mut modules: Vec<Module>) -> Vec<Vec<Module>> {
    modules.sort_by(|a, b| a.source.pyc.cmp(&b.source.pyc));
    let mut groups = Vec::new();
    while !modules.is_empty() {
        let rest = modules.split_off(modules.len().min(MODULES_PER_PROCESS));
        groups.push(std::mem::replace(&mut modules, rest));
    }
    groups
}

/// Compiles modules in one interpreter process. Modules that are not valid for this Python are left out.
///
/// # Errors
/// When the interpreter does not run, ends early, or answers with something other than byte code of the modules.
pub fn compile(interpreter: &Interpreter, prefix: &str, modules: &[Module]) -> Result<Vec<Compiled>> {
    let mut running = interpreter.job().start()?;
    match talk(&mut running, (interpreter.version, prefix), modules) {
        // It has nothing left to do, whatever it does.
        Ok(compiled) => {
            running.abandon();
            Ok(compiled)
        }
        // What it answers is wrong, however it ends.
        Err(error) if error.kind() == std::io::ErrorKind::Other => {
            running.abandon();
            Err(interpreter.failed(error))
        }
        Err(error) => {
            let (ended, said) = running.settle();
            Err(interpreter.failed(match ended {
                Ended::Abandoned => error,
                ended if said.is_empty() => std::io::Error::other(ended.to_string()),
                _ => std::io::Error::other(said),
            }))
        }
    }
}

fn talk(
    running: &mut Running,
    (version, prefix): ((u64, u64), &str),
    modules: &[Module],
) -> std::io::Result<Vec<Compiled>> {
    let (Some(stdin), Some(stdout)) = (running.stdin(), running.stdout()) else {
        return Err(std::io::Error::other("the interpreter has no pipes"));
    };
    let mut requests = BufWriter::new(stdin);
    let mut answers = BufReader::new(stdout);
    let mut compiled = Vec::with_capacity(modules.len());
    for module in modules {
        let path = format!("{prefix}/{}", module.source.module);
        for part in [path.as_bytes(), &module.content] {
            let length = u32::try_from(part.len()).map_err(std::io::Error::other)?;
            requests.write_all(&length.to_be_bytes())?;
            requests.write_all(part)?;
        }
        requests.flush()?;
        if let Some(bytes) = answer(&mut answers, module.content.len())? {
            if !is_made_of(&bytes, version, &module.content) {
                let path = &module.source.module;
                return Err(std::io::Error::other(format!("it answered with what is not the byte code of `{path}`")));
            }
            compiled.push(Compiled { pyc: module.source.pyc.clone(), mtime: module.mtime, bytes });
        }
    }
    Ok(compiled)
}

/// The answer for a module of `source` bytes; nothing when it is not valid for this Python.
fn answer(answers: &mut impl Read, source: usize) -> std::io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    answers.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length);
    if length == u32::MAX {
        return Ok(None);
    }
    let most = largest_pyc(source);
    if length as usize > most {
        return Err(std::io::Error::other(format!("it answered with {length} bytes, and at most {most} are taken")));
    }
    let mut bytes = vec![0; length as usize];
    answers.read_exact(&mut bytes)?;
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answer_longer_than_its_limit_is_refused() {
        let text = |length: u32, bytes: &[u8]| [&length.to_be_bytes()[..], bytes].concat();
        assert_eq!(answer(&mut &text(4, b"code")[..], 0).expect("reads"), Some(b"code".to_vec()));
        assert_eq!(answer(&mut &text(u32::MAX, b"")[..], 0).expect("reads"), None);
        for (length, bytes) in [(1 << 30, &b"code"[..]), (5, b"code")] {
            answer(&mut &text(length, bytes)[..], 9).expect_err("is refused");
        }
    }
}
