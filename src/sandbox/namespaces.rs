//! Namespaces of the helper's own, in which its user is who it was.

use caps::{CapSet, Capability};
use fs_err as fs;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getgid, getuid};

use crate::util::{Error, Result};

/// What setting up the root takes, in the process that is started next.
const NEEDED: [Capability; 2] = [Capability::CAP_SYS_ADMIN, Capability::CAP_SETPCAP];

/// Enters new namespaces; the next child is the first process of a new process namespace. With `network`, the network
/// stays the machine's. The files stay so too: the helper counts processes in the machine's /proc, and the root of a
/// mount namespace is that of all its processes.
///
/// # Errors
/// When the kernel or the container refuses them.
pub(super) fn enter(network: bool) -> Result<()> {
    let (user, group) = (getuid(), getgid());
    let mut flags =
        CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS;
    if !network {
        flags |= CloneFlags::CLONE_NEWNET;
    }
    unshare(flags).map_err(|errno| Error::user("failed to make namespaces").caused_by(errno))?;
    // A process may map its own user without privileges once it gave up setgroups. The helper writes its maps itself,
    // so that condaimg, which others cannot look into, need not.
    write("setgroups", "deny")?;
    write("uid_map", &format!("{user} {user} 1"))?;
    write("gid_map", &format!("{group} {group} 1"))?;
    for capability in NEEDED {
        for set in [CapSet::Inheritable, CapSet::Ambient] {
            caps::raise(None, set, capability)
                .map_err(|error| Error::user("failed to keep capabilities of the namespace").caused_by(error))?;
        }
    }
    Ok(())
}

fn write(name: &str, text: &str) -> Result<()> {
    Ok(fs::write(format!("/proc/self/{name}"), text)?)
}
