//! Limits and privileges of the process that becomes the job.

use caps::{CapSet, Capability, CapsHashSet};
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::plan::{Mechanism, Plan};
use crate::util::{Error, Result};

/// Files that one process may have open.
const OPEN_FILES: u64 = 4096;
/// Processor time above the time limit, in seconds; the helper ends the job before.
const GRACE: u64 = 10;

/// Sets the resource limits.
pub(super) fn limit(plan: &Plan) -> Result<()> {
    let mut limits = vec![
        (Resource::RLIMIT_CORE, 0),
        (Resource::RLIMIT_FSIZE, plan.file_size),
        (Resource::RLIMIT_AS, plan.memory),
        (Resource::RLIMIT_NOFILE, OPEN_FILES),
        (Resource::RLIMIT_MEMLOCK, 0),
        (Resource::RLIMIT_CPU, (plan.time / 1000).saturating_mul(plan.processes.clamp(1, 64)) + GRACE),
    ];
    // Elsewhere the limit counts all processes of the user.
    if plan.mechanism == Mechanism::Namespaces && plan.processes > 0 {
        limits.push((Resource::RLIMIT_NPROC, plan.processes + 2));
    }
    for (resource, value) in limits {
        let failed = |errno: nix::Error| Error::user(format!("failed to set {resource:?}")).caused_by(errno);
        let (_, hard) = getrlimit(resource).map_err(failed)?;
        let value = value.min(hard);
        setrlimit(resource, value, value).map_err(failed)?;
    }
    Ok(())
}

/// Gives up all capabilities and the ways to get new ones.
pub(super) fn drop(mechanism: Mechanism) -> Result<()> {
    let failed = |error: caps::errors::CapsError| Error::user("failed to drop capabilities").caused_by(error);
    // An ordinary user cannot change the bounding set, and without privileges to gain need not.
    for capability in caps::all() {
        let _ = caps::drop(None, CapSet::Bounding, capability);
    }
    caps::clear(None, CapSet::Ambient).map_err(failed)?;
    let kept: CapsHashSet = match mechanism {
        // Nothing else bounds what root reads there, and its files may be another user's.
        Mechanism::Limits => [Capability::CAP_DAC_OVERRIDE, Capability::CAP_DAC_READ_SEARCH].into_iter().collect(),
        _ => CapsHashSet::new(),
    };
    let held = caps::read(None, CapSet::Permitted).map_err(failed)?;
    let kept = kept.intersection(&held).copied().collect();
    caps::clear(None, CapSet::Inheritable).map_err(failed)?;
    for set in [CapSet::Effective, CapSet::Permitted] {
        caps::set(None, set, &kept).map_err(failed)?;
    }
    prctl::set_no_new_privs().map_err(|errno| Error::user("failed to set no_new_privs").caused_by(errno))
}
