//! uv in the sandbox. Where it has the network it cannot execute the environment's Python, which is a package's
//! program: uv looks at that beforehand, without network and with a cache of that run's own.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use fs_err as fs;

use super::Uv;
use crate::sandbox::{Ended, Job, Limits, System};
use crate::util::{Error, Result};

/// The time for one run.
const TIME: Duration = Duration::from_secs(3600);
/// Bytes of address space of one process.
const MEMORY: u64 = 64 << 30;
/// Bytes of one file.
const FILE_SIZE: u64 = 16 << 30;
/// Bytes that a run may print on each stream.
const OUTPUT: u64 = 16 << 20;
/// Processes and threads of one run.
const PROCESSES: u64 = 512;
/// The largest file of uv's knowledge of a Python.
const LARGEST_FACTS: u64 = 1 << 20;

/// What uv and git read in the user's home: logins and settings.
const OF_HOME: [&str; 4] = [".netrc", ".config/uv", ".local/share/uv/credentials", ".config/pip"];
/// Variables that name files for the network.
const FILES: [&str; 6] =
    ["NETRC", "SSL_CERT_FILE", "SSL_CERT_DIR", "GIT_SSL_CAINFO", "GIT_CONFIG_GLOBAL", "SSH_AUTH_SOCK"];
/// Where programs are that code of packages may call.
const PROGRAMS: [&str; 5] = ["/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin", "/sbin"];

/// What a run of uv may reach beside its cache and the operating system.
#[derive(Debug, Default)]
pub(super) struct Reach {
    /// Whether it may use the network.
    pub network: bool,
    /// Whether it may execute the environment's Python, and so code of packages.
    pub code: bool,
    /// What it may read.
    pub data: Vec<PathBuf>,
    /// What it may change.
    pub write: Vec<PathBuf>,
    /// A cache of its own, so that it asks indexes again: `--refresh` would also make uv run Python again.
    pub fresh: Option<PathBuf>,
}

impl Uv {
    /// Runs a command of [`Uv::uv`] in the sandbox; what it printed.
    ///
    /// # Errors
    /// When it does not run or fails; `explain` makes the error of what it said.
    pub(super) fn confined(
        &self,
        command: &Command,
        reach: Reach,
        explain: impl FnOnce(&str) -> Error,
    ) -> Result<String> {
        if !reach.code {
            self.know_python()?;
        }
        let options = self.options();
        let mut job = job(command);
        let python = if reach.code { &mut job.read } else { &mut job.data };
        python.push(options.interpreter.clone());
        job.read.push(self.program().to_owned());
        job.data.extend(self.local().iter().cloned());
        job.data.extend(reach.data);
        if reach.network {
            job.data.extend(files_for_network());
        }
        let cache = reach.fresh.as_ref().unwrap_or(&options.cache);
        fs::create_dir_all(cache)?;
        if cache != &options.cache {
            copy_all_facts(&options.cache, cache)?;
            let place = job.arguments.iter().position(|word| word == "--cache-dir");
            if let Some(word) = place.and_then(|place| job.arguments.get_mut(place + 1)) {
                *word = cache.clone().into_os_string();
            }
        }
        job.write.push(cache.clone());
        job.write.extend(reach.write);
        job.network = reach.network;
        run(self, &job, explain)
    }
}

/// Runs of code of packages in one folder: without network, credentials and uv's own cache.
pub(super) struct Work<'a> {
    uv: &'a Uv,
    folder: &'a Path,
}

impl<'a> Work<'a> {
    /// Prepares a folder.
    pub(super) fn new(uv: &'a Uv, folder: &'a Path) -> Result<Self> {
        for name in ["cache", "home", "tmp"] {
            fs::create_dir_all(folder.join(name))?;
        }
        Ok(Self { uv, folder })
    }

    /// `uv WORDS...`, which may run Python.
    pub(super) fn uv(&self, words: &[&str]) -> Command {
        let mut command = self.program(self.uv.program());
        command.args(words).args(["--no-config", "--no-python-downloads", "--no-progress", "--color", "never"]);
        command.arg("--offline").arg("--cache-dir").arg(self.folder.join("cache"));
        command
    }

    /// A program with the environment that code of packages gets.
    pub(super) fn program(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        let path = std::env::join_paths(programs()).unwrap_or_default();
        command.env("PATH", path).env("LANG", "C.UTF-8").env("PYTHONHASHSEED", "0");
        command.env("HOME", self.folder.join("home")).env("TMPDIR", self.folder.join("tmp"));
        command
    }

    /// Runs a command without network; what it printed.
    ///
    /// # Errors
    /// When it does not run or fails; `explain` makes the error of what it said.
    pub(super) fn run(
        &self,
        command: &Command,
        (read, write): (&[&Path], &[&Path]),
        explain: impl FnOnce(&str) -> Error,
    ) -> Result<String> {
        let mut job = job(command);
        job.read.extend([self.uv.program().to_owned(), self.uv.options().interpreter.clone()]);
        job.read.extend(read.iter().map(|path| path.to_path_buf()));
        job.read.extend(optional_software());
        job.write.extend(["cache", "home", "tmp"].map(|name| self.folder.join(name)));
        job.write.extend(write.iter().map(|path| path.to_path_buf()));
        run(self.uv, &job, explain)
    }

    /// Lets uv look at a Python, and gives what it learned to uv's own cache.
    ///
    /// # Errors
    /// When it is no Python.
    pub(super) fn learn(&self, python: &Path) -> Result<()> {
        let mut command = self.uv(&["pip", "list", "--quiet"]);
        command.arg("--python").arg(python);
        let folder = python.parent().and_then(Path::parent).unwrap_or(python);
        self.run(&command, (&[folder], &[]), |_| {
            Error::user(format!("the environment's Python does not run here (`{}`)", python.display()))
        })?;
        copy_all_facts(&self.folder.join("cache"), &self.uv.options().cache)
    }
}

/// Copies what a cache of uv knows of Pythons to another.
fn copy_all_facts(from: &Path, to: &Path) -> Result<()> {
    for kind in fs::read_dir(from)? {
        let kind = kind?;
        if kind.file_name().to_string_lossy().starts_with("interpreter-") && kind.file_type()?.is_dir() {
            copy_facts(&kind.path(), &to.join(kind.file_name()))?;
        }
    }
    Ok(())
}

/// Copies directories of small files.
fn copy_facts(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (kind, target) = (entry.file_type()?, to.join(entry.file_name()));
        if kind.is_dir() {
            copy_facts(&entry.path(), &target)?;
        } else if kind.is_file() && entry.metadata()?.len() <= LARGEST_FACTS {
            // Whole or not at all: another process may read it.
            let mut file = tempfile::NamedTempFile::new_in(to)?;
            std::io::Write::write_all(&mut file, &fs::read(entry.path())?)?;
            file.persist(&target).map_err(|error| crate::util::files::named(&target, error.error))?;
        }
    }
    Ok(())
}

/// A job of a command that has its whole environment.
fn job(command: &Command) -> Job {
    let variable =
        |(name, value): (&std::ffi::OsStr, Option<&std::ffi::OsStr>)| Some((name.to_owned(), value?.to_owned()));
    Job {
        program: command.get_program().into(),
        arguments: command.get_args().map(OsString::from).collect(),
        environment: command.get_envs().filter_map(variable).collect(),
        directory: command.get_current_dir().unwrap_or(Path::new("/")).to_owned(),
        read: Vec::new(),
        data: Vec::new(),
        write: Vec::new(),
        system: System::Tools,
        network: false,
        limits: Limits {
            time: Limits::time(TIME),
            memory: MEMORY,
            file_size: FILE_SIZE,
            output: OUTPUT,
            processes: PROCESSES,
        },
    }
}

fn run(uv: &Uv, job: &Job, explain: impl FnOnce(&str) -> Error) -> Result<String> {
    tracing::debug!(program = %job.program.display(), network = job.network, "running in the sandbox");
    let captured = job.run()?;
    match captured.ended {
        Ended::Exited(0) => Ok(String::from_utf8_lossy(&captured.stdout).into_owned()),
        Ended::Exited(_) => Err(uv.failed(&captured.stderr, captured.ended.to_string(), explain)),
        // Whatever it said before.
        ended => Err(uv.failed(&[], ended.to_string(), explain)),
    }
}

/// Files of the user that say how to reach indexes.
fn files_for_network() -> Vec<PathBuf> {
    let home = std::env::var_os("HOME").map(PathBuf::from).filter(|home| home.is_absolute());
    let of_home = home.iter().flat_map(|home| OF_HOME.map(|name| home.join(name)));
    let named = FILES.iter().filter_map(std::env::var_os).map(PathBuf::from).filter(|path| path.is_absolute());
    of_home.chain(named).filter(|path| path.exists()).collect()
}

/// The directories of `PATH` that belong to the operating system or to optional software.
fn programs() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_known = |folder: &PathBuf| ["/usr", "/bin", "/sbin", "/opt"].iter().any(|top| folder.starts_with(top));
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).filter(is_known).collect();
    folders.extend(PROGRAMS.iter().map(PathBuf::from));
    folders
}

/// Compilers that lie in /opt and are in `PATH`, each with all of its software.
fn optional_software() -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = programs()
        .iter()
        .filter_map(|folder| {
            folder.strip_prefix("/opt").ok()?.components().next().map(|name| Path::new("/opt").join(name))
        })
        .filter(|folder| folder.is_dir())
        .collect();
    found.sort();
    found.dedup();
    found
}
