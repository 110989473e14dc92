//! What this machine lets the sandbox have. It is tried with condaimg's own helper, never with a package's program.

use std::sync::OnceLock;
use std::time::Duration;

use super::plan::{Mechanism, PROBED, Plan};
use super::running::{Ended, capture};
use super::system::{self, System};
use crate::util::{Error, Result};

/// How long a try may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// What keeps jobs apart on this machine.
#[derive(Debug, Clone)]
pub struct Confinement {
    /// The strongest mechanism that works.
    pub mechanism: Mechanism,
    /// The stronger ones, and why each does not work.
    pub refused: Vec<(Mechanism, String)>,
}

impl Confinement {
    /// What could not be had, for people; nothing when everything could.
    pub fn missing(&self) -> Option<String> {
        if self.refused.is_empty() {
            return None;
        }
        let reasons: Vec<String> =
            self.refused.iter().map(|(mechanism, reason)| format!("no {}: {reason}", mechanism.name())).collect();
        Some(reasons.join("; "))
    }
}

/// What this machine lets the sandbox have; tried once a process.
///
/// # Errors
/// When condaimg cannot start itself again.
pub fn confinement() -> Result<&'static Confinement> {
    static FOUND: OnceLock<Result<Confinement, String>> = OnceLock::new();
    FOUND.get_or_init(|| find().map_err(|error| error.chain().join(": "))).as_ref().map_err(|reason| {
        Error::user("failed to start the sandbox's helper")
            .caused_by(std::io::Error::other(reason.clone()))
            .hint("`--bytecode off` and `--no-build` run no code of packages")
    })
}

fn find() -> Result<Confinement> {
    let mut refused = Vec::new();
    for mechanism in [Mechanism::Namespaces, Mechanism::Landlock] {
        match attempt(mechanism) {
            Ok(()) => return Ok(Confinement { mechanism, refused }),
            Err(error) => refused.push((mechanism, error.chain().join(": "))),
        }
    }
    attempt(Mechanism::Limits)?;
    Ok(Confinement { mechanism: Mechanism::Limits, refused })
}

fn attempt(mechanism: Mechanism) -> Result<()> {
    let plan = Plan {
        mechanism,
        lifeline: 0,
        program: None,
        arguments: Vec::new(),
        directory: "/".into(),
        binds: system::binds(System::Tools, false),
        network: false,
        time: u64::try_from(PATIENCE.as_millis()).unwrap_or(u64::MAX),
        memory: 4 << 30,
        file_size: 0,
        processes: 1,
        quiet: false,
    };
    let captured = capture(plan, &[], 0)?;
    if captured.ended == Ended::Exited(0) && captured.stdout == PROBED.as_bytes() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&captured.stderr).trim().to_owned();
    Err(Error::user(if said.is_empty() { captured.ended.to_string() } else { said }))
}
