//! condaimg started again as the sandbox's helper, twice: the outer process enters namespaces and keeps watch, the
//! inner one restricts itself and becomes the program.

use std::ffi::OsString;
use std::io::Write as _;
use std::net::TcpListener;
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode, Stdio};

use nix::sys::prctl;
use nix::sys::signal::Signal;

use super::plan::{Mechanism, PROBED, Plan, status};
use super::watch::Watch;
use super::{access, filter, namespaces, privileges, root};
use crate::util::{Error, Result};

/// This program, whatever became of its file.
pub(super) const SELF: &str = "/proc/self/exe";
/// The word that starts the outer process.
pub(super) const OUTER: &str = "__sandbox";
/// The word that starts the inner process.
const INNER: &str = "__sandbox-inside";

/// Runs this process as the sandbox's helper; nothing when it is not one.
///
/// # Errors
/// They go to standard error, with an exit status that no job has.
pub fn helper() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    let word = arguments.next()?;
    let work: fn(&Plan, &OsString) -> Result<u8> = match word.to_str()? {
        OUTER => outer,
        INNER => inner,
        _ => return None,
    };
    // A program that does not start must not have taken it along.
    let errors = std::io::stderr().as_fd().try_clone_to_owned().map(std::fs::File::from);
    let result = arguments.next().ok_or_else(|| Error::bug("the sandbox has no plan")).and_then(|text| {
        let plan = serde_json::from_slice(text.as_encoded_bytes());
        let plan: Plan = plan.map_err(|error| Error::bug("the sandbox has an invalid plan").caused_by(error))?;
        work(&plan, &text)
    });
    let status = result.unwrap_or_else(|error| {
        let _ = errors.and_then(|mut errors| writeln!(errors, "{}", error.chain().join(": ")));
        status::NOT_SET_UP
    });
    Some(ExitCode::from(status))
}

/// Starts the inner process and watches it.
fn outer(plan: &Plan, text: &OsString) -> Result<u8> {
    let watch = Watch::new(plan)?;
    if plan.mechanism == Mechanism::Namespaces {
        namespaces::enter(plan.network)?;
    }
    // Only now: a process that others cannot look into cannot write its own maps either.
    let _ = prctl::set_dumpable(false);
    let mut command = Command::new(SELF);
    command.arg(INNER).arg(text).process_group(0);
    let mut child =
        command.spawn().map_err(|error| Error::user("failed to start the helper again").caused_by(error))?;
    // What the job reads and writes is the job's alone, so that each side sees the other's end.
    close_streams();
    watch.over(&mut child, plan)
}

/// Closes standard input and output of the outer process.
fn close_streams() {
    for stream in 0..2 {
        let _ = nix::unistd::close(stream);
    }
}

/// Restricts this process and becomes the program.
fn inner(plan: &Plan, _: &OsString) -> Result<u8> {
    let _ = prctl::set_pdeathsig(Signal::SIGKILL);
    privileges::limit(plan)?;
    if plan.mechanism == Mechanism::Namespaces {
        root::enter(plan)?;
    }
    std::env::set_current_dir(&plan.directory)
        .map_err(|error| Error::user(format!("failed to enter `{}`", plan.directory.display())).caused_by(error))?;
    privileges::drop(plan.mechanism)?;
    if plan.mechanism == Mechanism::Landlock {
        access::restrict(plan)?;
    }
    match filter::apply(plan) {
        Err(error) if plan.mechanism.is_sandbox() => return Err(error),
        _ => {}
    }
    match &plan.program {
        Some(program) => {
            let mut command = Command::new(program);
            command.args(&plan.arguments);
            if plan.quiet {
                command.stderr(Stdio::null());
            }
            let error = command.exec();
            Err(Error::user(format!("failed to run `{}`", program.display())).caused_by(error))
        }
        None => probe(plan),
    }
}

/// Tries from inside what a sandbox must refuse.
fn probe(plan: &Plan) -> Result<u8> {
    if plan.mechanism.is_sandbox() {
        let path = "/condaimg-sandbox-probe";
        if fs_err::File::create_new(path).is_ok() {
            let _ = fs_err::remove_file(path);
            return Err(Error::user("the root can be written to"));
        }
        if TcpListener::bind("127.0.0.1:0").is_ok() {
            return Err(Error::user("the network can be used"));
        }
    }
    std::io::stdout().write_all(PROBED.as_bytes())?;
    Ok(0)
}
