//! What condaimg tells its helper, as JSON in an argument: paths and limits, no secret.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What keeps a job apart from the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mechanism {
    /// User, mount, process, network and IPC namespaces, and seccomp.
    Namespaces,
    /// Landlock and seccomp, where namespaces are refused.
    Landlock,
    /// Resource limits, and seccomp where the kernel has it; files of the machine can be read.
    Limits,
}

impl Mechanism {
    /// The name in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Namespaces => "namespaces and seccomp",
            Self::Landlock => "Landlock and seccomp",
            Self::Limits => "resource limits only",
        }
    }

    /// Whether files and the network are out of reach.
    pub fn is_sandbox(self) -> bool {
        self != Self::Limits
    }
}

/// What a path may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Access {
    /// Read and execute.
    Read,
    /// Read only.
    Data,
    /// Read, execute and change.
    Write,
}

/// A path that the job may reach.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Bind {
    /// Where it is, without symlinks.
    pub source: PathBuf,
    /// Where the job sees it.
    pub target: PathBuf,
    /// What it may be used for.
    pub access: Access,
}

/// A job as the helper gets it. The environment is the helper's own.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Plan {
    /// What keeps the job apart.
    pub mechanism: Mechanism,
    /// The number of a pipe's end; the job ends when the other end is closed.
    pub lifeline: i32,
    /// The program; none: only try the sandbox.
    pub program: Option<PathBuf>,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Its working directory.
    pub directory: PathBuf,
    /// What it may reach.
    pub binds: Vec<Bind>,
    /// Whether it may use the network.
    pub network: bool,
    /// Milliseconds from start to end.
    pub time: u64,
    /// Bytes of address space of one process.
    pub memory: u64,
    /// Bytes of one file.
    pub file_size: u64,
    /// Processes beside the program itself.
    pub processes: u64,
    /// Whether the program's standard error goes nowhere.
    pub quiet: bool,
}

/// Exit statuses of the helper that a job cannot have: the job's own are at most [`LAST_OF_JOB`].
pub(super) mod status {
    /// The highest status that is passed on.
    pub const LAST_OF_JOB: u8 = 249;
    /// The sandbox could not be set up; standard error says why.
    pub const NOT_SET_UP: u8 = 250;
    /// The time was up.
    pub const OUT_OF_TIME: u8 = 251;
    /// There were too many processes.
    pub const TOO_MANY_PROCESSES: u8 = 252;
    /// condaimg ended, or gave the job up.
    pub const ABANDONED: u8 = 253;
}

/// What the helper prints when it only tries the sandbox.
pub(super) const PROBED: &str = concat!("condaimg ", env!("CARGO_PKG_VERSION"), " runs in the sandbox\n");
