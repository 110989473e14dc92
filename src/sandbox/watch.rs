//! The helper's watch over a job: its end, its time, its processes, and whether condaimg still wants it.

use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::process::Child;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, kill, killpg};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;

use super::plan::{Plan, status};
use crate::util::{Error, Result};

/// How often the processes are counted.
const COUNTING: Duration = Duration::from_millis(50);

/// What a helper waits for.
pub(super) struct Watch {
    lifeline: std::fs::File,
    ended: SignalFd,
}

impl Watch {
    /// Gets ready, before the job is started.
    pub(super) fn new(plan: &Plan) -> Result<Self> {
        // Opened by its name, it is a file of this process's own; the job gets neither.
        let path = format!("/proc/self/fd/{}", plan.lifeline);
        let lifeline = std::fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&path);
        let lifeline = lifeline.map_err(|error| Error::user(format!("failed to open `{path}`")).caused_by(error))?;
        let _ = nix::unistd::close(plan.lifeline);
        let mut signals = SigSet::empty();
        signals.add(Signal::SIGCHLD);
        // std lifts the mask again in each child.
        signals.thread_block().map_err(failed)?;
        let ended = SignalFd::with_flags(&signals, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC).map_err(failed)?;
        Ok(Self { lifeline, ended })
    }

    /// Waits for the end of a job, or brings it about; the helper's own exit status.
    pub(super) fn over(&self, child: &mut Child, plan: &Plan) -> Result<u8> {
        let pid = Pid::from_raw(child.id().cast_signed());
        let reason = self.wait(pid, plan)?;
        // The whole group, while the child's number cannot be another's.
        let _ = killpg(pid, Signal::SIGKILL);
        let _ = kill(pid, Signal::SIGKILL);
        let ended = child.wait().map_err(|error| Error::user("failed to wait for the job").caused_by(error))?;
        Ok(reason.unwrap_or_else(|| of_job(ended)))
    }

    /// Why the job is to end; nothing when it ended by itself.
    fn wait(&self, pid: Pid, plan: &Plan) -> Result<Option<u8>> {
        let end = Instant::now() + Duration::from_millis(plan.time);
        loop {
            let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
            if waitid(Id::Pid(pid), flags).map_err(failed)? != WaitStatus::StillAlive {
                return Ok(None);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Some(status::OUT_OF_TIME));
            }
            let patience = if plan.processes > 0 { left.min(COUNTING) } else { left };
            let mut files = [
                PollFd::new(self.lifeline.as_fd(), PollFlags::empty()),
                PollFd::new(self.ended.as_fd(), PollFlags::POLLIN),
            ];
            let patience = PollTimeout::try_from(patience + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
            match poll(&mut files, patience) {
                Ok(_) | Err(nix::Error::EINTR) => {}
                Err(errno) => return Err(failed(errno)),
            }
            if files[0].revents().is_some_and(|events| events.intersects(PollFlags::POLLHUP | PollFlags::POLLERR)) {
                return Ok(Some(status::ABANDONED));
            }
            let _ = self.ended.read_signal();
            if plan.processes > 0 && is_crowd(pid, plan.processes) {
                return Ok(Some(status::TOO_MANY_PROCESSES));
            }
        }
    }
}

/// The status that a job's end is passed on as; a signal as shells do it.
fn of_job(ended: std::process::ExitStatus) -> u8 {
    use std::os::unix::process::ExitStatusExt as _;
    let code = ended.code().or_else(|| ended.signal().map(|signal| 128 + signal)).unwrap_or(1);
    u8::try_from(code).unwrap_or(u8::MAX).min(status::LAST_OF_JOB)
}

/// Whether a process has more descendants than `most`. The kernel's own limit does not hold for root.
fn is_crowd(pid: Pid, most: u64) -> bool {
    let (mut waiting, mut count) = (vec![pid.as_raw()], 0u64);
    while let Some(pid) = waiting.pop() {
        let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { continue };
        for task in tasks.flatten() {
            let children = fs_err::read_to_string(task.path().join("children")).unwrap_or_default();
            waiting.extend(children.split_whitespace().filter_map(|child| child.parse::<i32>().ok()));
            count += 1;
        }
        if count > most + 1 {
            return true;
        }
    }
    false
}

fn failed(errno: nix::Error) -> Error {
    Error::user("failed to watch the job").caused_by(errno)
}
