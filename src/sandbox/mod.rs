//! The sandbox: the one way in which condaimg starts code that a stranger wrote (the environment's Python, build
//! backends), and the programs that call such code.
//!
//! A [`Job`] says what runs and all that it may reach. condaimg starts itself again as a helper, which is a process
//! of one thread: it enters namespaces or restricts itself, then becomes the program. See `docs/sandbox.md`.

mod access;
mod confinement;
mod filter;
mod helper;
mod namespaces;
mod plan;
mod privileges;
mod root;
mod running;
mod system;
mod watch;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

pub use confinement::{Confinement, confinement};
pub use helper::helper;
pub use plan::Mechanism;
pub use running::{Captured, Ended, Running};
pub use system::System;

/// The variable that replaces the time limits, in seconds.
pub const TIMEOUT_VARIABLE: &str = "CONDAIMG_SANDBOX_TIMEOUT";

/// A program to run in the sandbox, and all that it may reach.
#[derive(Debug, Clone)]
pub struct Job {
    /// The program.
    pub program: PathBuf,
    /// Its arguments, without the program's name.
    pub arguments: Vec<OsString>,
    /// Its whole environment.
    pub environment: Vec<(OsString, OsString)>,
    /// Its working directory.
    pub directory: PathBuf,
    /// Files and directories that it may read and execute.
    pub read: Vec<PathBuf>,
    /// Files and directories that it may read, but not execute.
    pub data: Vec<PathBuf>,
    /// Directories that it may change.
    pub write: Vec<PathBuf>,
    /// What it sees of the operating system.
    pub system: System,
    /// Whether it may use the network.
    pub network: bool,
    /// The most that it may use.
    pub limits: Limits,
}

/// The most that a job may use.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Seconds from start to end.
    pub time: Duration,
    /// Bytes of address space of one process.
    pub memory: u64,
    /// Bytes of one file.
    pub file_size: u64,
    /// Bytes on standard output and standard error, where they are captured.
    pub output: u64,
    /// Processes beside the program itself; 0: it may start none.
    pub processes: u64,
}

impl Limits {
    /// The time limit: `default`, unless the user's environment sets another.
    pub fn time(default: Duration) -> Duration {
        let set = std::env::var(TIMEOUT_VARIABLE).ok().and_then(|text| text.parse().ok());
        set.filter(|seconds| *seconds > 0).map_or(default, Duration::from_secs)
    }
}
