//! A job under way.

use std::fmt;
use std::io::{PipeWriter, Read};
use std::os::fd::AsRawFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};

use super::helper::{OUTER, SELF};
use super::plan::{Access, Bind, Mechanism, Plan, status};
use super::{Job, confinement, system};
use crate::util::error::ResultExt as _;
use crate::util::{Error, Result};

/// Bytes of the helper's own words that are read.
const FEW: u64 = 16 << 10;

/// How long a job may take to end whose streams are closed.
const MOMENTS: u32 = 50;
const MOMENT: Duration = Duration::from_millis(10);

/// How a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// By itself, with this status; 128 and a signal's number when that ended it.
    Exited(u8),
    /// It was ended when its time was up.
    OutOfTime(Duration),
    /// It was ended because it started more processes than this.
    TooManyProcesses(u64),
    /// The sandbox could not be set up.
    NotSetUp,
    /// It was given up.
    Abandoned,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(code @ 129..=192) => write!(f, "signal {} ended it", code - 128),
            Self::Exited(code) => write!(f, "it ended with status {code}"),
            Self::OutOfTime(time) => {
                write!(f, "it was ended after {} s (`{}` sets another limit)", time.as_secs(), super::TIMEOUT_VARIABLE)
            }
            Self::TooManyProcesses(most) => write!(f, "it was ended because it started more than {most} processes"),
            Self::NotSetUp => f.write_str("the sandbox could not be set up"),
            Self::Abandoned => f.write_str("it was ended"),
        }
    }
}

/// A job under way. It ends when this is dropped.
pub struct Running {
    child: Child,
    lifeline: Option<PipeWriter>,
    time: Duration,
    processes: u64,
}

/// What a job printed.
#[derive(Debug)]
pub struct Captured {
    /// How it ended.
    pub ended: Ended,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
}

impl Job {
    /// Starts the job with pipes for standard input and output.
    ///
    /// # Errors
    /// When condaimg cannot start itself again.
    pub fn start(&self) -> Result<Running> {
        let plan = self.plan(confinement()?.mechanism)?;
        start(Plan { quiet: true, ..plan }, &self.environment, Stdio::piped())
    }

    /// Runs the job to its end, without input.
    ///
    /// # Errors
    /// When condaimg cannot start itself again, when the sandbox cannot be set up, and when the job prints too much.
    pub fn run(&self) -> Result<Captured> {
        let plan = self.plan(confinement()?.mechanism)?;
        let captured = capture(plan, &self.environment, self.limits.output)?;
        match captured.ended {
            Ended::NotSetUp => {
                let said = String::from_utf8_lossy(&captured.stderr).trim().to_owned();
                let error = Error::user(format!("failed to set up the sandbox for `{}`", self.program.display()));
                Err(error.caused_by(std::io::Error::other(said)))
            }
            _ => Ok(captured),
        }
    }

    fn plan(&self, mechanism: Mechanism) -> Result<Plan> {
        let mut binds = system::binds(self.system, self.network);
        let wanted = |paths: &'_ [std::path::PathBuf], access| {
            let found: Result<Vec<Bind>> = paths.iter().map(|path| needed(path, access)).collect();
            found
        };
        binds.extend(wanted(&self.read, Access::Read)?);
        binds.extend(wanted(&self.data, Access::Data)?);
        binds.extend(wanted(&self.write, Access::Write)?);
        let not_text = || Error::user(format!("an argument of `{}` is not UTF-8", self.program.display()));
        let text = |argument: &std::ffi::OsString| argument.to_str().map(str::to_owned).ok_or_else(not_text);
        Ok(Plan {
            mechanism,
            lifeline: 0,
            program: Some(self.program.clone()),
            arguments: self.arguments.iter().map(text).collect::<Result<_>>()?,
            directory: self.directory.clone(),
            binds,
            network: self.network,
            time: u64::try_from(self.limits.time.as_millis()).unwrap_or(u64::MAX),
            memory: self.limits.memory,
            file_size: self.limits.file_size,
            processes: self.limits.processes,
            quiet: false,
        })
    }
}

fn needed(path: &Path, access: Access) -> Result<Bind> {
    let missing = || std::io::Error::from(std::io::ErrorKind::NotFound);
    system::bind(path, access).ok_or_else(missing).context(|| format!("failed to open `{}`", path.display()))
}

impl Running {
    /// The job's standard input, once.
    pub fn stdin(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// The job's standard output, once.
    pub fn stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// Ends the job.
    pub fn abandon(mut self) -> Ended {
        self.lifeline = None;
        self.wait().unwrap_or(Ended::Abandoned)
    }

    /// How a job ended that seems to have ended, and what the sandbox said of it; one that goes on is ended.
    pub fn settle(mut self) -> (Ended, String) {
        drop((self.stdin(), self.stdout()));
        for _ in 0..MOMENTS {
            if matches!(self.child.try_wait(), Ok(Some(_)) | Err(_)) {
                break;
            }
            std::thread::sleep(MOMENT);
        }
        let errors = self.child.stderr.take();
        let ended = self.abandon();
        let mut said = String::new();
        // The job has another standard error: these are the helper's words.
        let _ = errors.map(|errors| errors.take(FEW).read_to_string(&mut said));
        (ended, said.trim().to_owned())
    }

    fn wait(&mut self) -> Result<Ended> {
        let ended =
            self.child.wait().map_err(|error| Error::user("failed to wait for the sandbox").caused_by(error))?;
        let code = ended.code().and_then(|code| u8::try_from(code).ok());
        Ok(match code {
            Some(status::NOT_SET_UP) => Ended::NotSetUp,
            Some(status::OUT_OF_TIME) => Ended::OutOfTime(self.time),
            Some(status::TOO_MANY_PROCESSES) => Ended::TooManyProcesses(self.processes),
            Some(code) if code <= status::LAST_OF_JOB => Ended::Exited(code),
            _ => Ended::Abandoned,
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.lifeline = None;
        let _ = self.child.wait();
    }
}

/// Starts the helper with a plan and the job's environment.
pub(super) fn start(
    mut plan: Plan,
    environment: &[(std::ffi::OsString, std::ffi::OsString)],
    stdin: Stdio,
) -> Result<Running> {
    let failed = |error: std::io::Error| Error::user("failed to start the sandbox").caused_by(error);
    let (reader, lifeline) = std::io::pipe().map_err(failed)?;
    // The helper inherits this end. Another child that does so, too, has a pipe that says nothing.
    fcntl(&reader, FcntlArg::F_SETFD(FdFlag::empty())).map_err(|errno| failed(errno.into()))?;
    plan.lifeline = reader.as_raw_fd();
    let text = serde_json::to_string(&plan)
        .map_err(|error| Error::user("failed to describe the sandbox: a path is not UTF-8").caused_by(error))?;
    let mut command = Command::new(SELF);
    command.arg(OUTER).arg(text).env_clear().envs(environment.iter().map(|(name, value)| (name, value)));
    // Ctrl-C in a terminal is for condaimg alone: a job that it ends would look like a failure.
    command.process_group(0).current_dir("/").stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().map_err(failed)?;
    Ok(Running { child, lifeline: Some(lifeline), time: Duration::from_millis(plan.time), processes: plan.processes })
}

/// Runs a plan to its end and reads what it prints.
pub(super) fn capture(
    plan: Plan,
    environment: &[(std::ffi::OsString, std::ffi::OsString)],
    most: u64,
) -> Result<Captured> {
    let program = plan.program.clone().unwrap_or_default();
    let mut running = start(plan, environment, Stdio::null())?;
    let (stdout, stderr) = (running.child.stdout.take(), running.child.stderr.take());
    let lifeline = std::sync::Mutex::new(running.lifeline.take());
    let too_much = |stream: Option<Box<dyn Read + Send>>| {
        let mut bytes = Vec::new();
        let most = most.max(FEW);
        let read = stream.map(|stream| stream.take(most + 1).read_to_end(&mut bytes));
        if bytes.len() as u64 > most {
            // The job ends, and with it the other stream.
            lifeline.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
            return Err(Error::user(format!("`{}` printed more than {most} bytes", program.display())));
        }
        read.transpose().map_err(Error::from)?;
        Ok(bytes)
    };
    let (stdout, stderr) = std::thread::scope(|scope| {
        let errors = scope.spawn(|| too_much(stderr.map(|it| Box::new(it) as Box<dyn Read + Send>)));
        let output = too_much(stdout.map(|it| Box::new(it) as Box<dyn Read + Send>));
        let errors = errors.join().unwrap_or_else(|_| Err(Error::bug("reading a job's output ended early")));
        (output, errors)
    });
    let kept = lifeline.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    let ended = running.wait()?;
    drop(kept);
    Ok(Captured { ended, stdout: stdout?, stderr: stderr? })
}
