//! The seccomp filter: system calls that no job needs and that lead out, and those that a job was not given.

use std::collections::BTreeMap;

use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

use super::plan::{Mechanism, Plan};
use crate::util::{Error, Result};

/// Namespaces, mounts, other processes' memory, the kernel itself.
const NEVER: [c_long; 52] = [
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsmount,
    libc::SYS_fsconfig,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_kcmp,
    libc::SYS_pidfd_getfd,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_nfsservctl,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_syslog,
    libc::SYS_vhangup,
    libc::SYS_lookup_dcookie,
    libc::SYS_fanotify_init,
    libc::SYS_fanotify_mark,
    libc::SYS_move_pages,
    libc::SYS_migrate_pages,
];

/// Flags of `clone` that make namespaces.
const NEW_NAMESPACES: [i32; 8] = [
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWNS,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWCGROUP,
    0x80, // CLONE_NEWTIME
];

/// Signals to other processes.
const SIGNALS: [c_long; 6] = [
    libc::SYS_kill,
    libc::SYS_tkill,
    libc::SYS_tgkill,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_pidfd_send_signal,
];

/// Owners, modes, times and attributes of files, which Landlock leaves alone.
const METADATA: [c_long; 14] = [
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    SYS_FCHMODAT2,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_utimensat,
    libc::SYS_truncate,
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_fsetxattr,
    libc::SYS_removexattr,
    libc::SYS_lremovexattr,
    libc::SYS_fremovexattr,
    libc::SYS_inotify_init1,
];
/// `fchmodat2`, which the C library's header lacks here and there.
const SYS_FCHMODAT2: c_long = 452;

/// What namespaces of its own would keep apart: System V IPC, sessions and process groups (the helper ends a job by
/// its group).
const SHARED: [c_long; 6] =
    [libc::SYS_shmget, libc::SYS_msgget, libc::SYS_semget, libc::SYS_setsid, libc::SYS_setpgid, libc::SYS_truncate];

/// System calls that aarch64 does not have.
#[cfg(target_arch = "x86_64")]
mod older {
    use libc::c_long;

    pub const NEVER: [c_long; 5] =
        [libc::SYS_iopl, libc::SYS_ioperm, libc::SYS_modify_ldt, libc::SYS_uselib, libc::SYS_kexec_file_load];
    pub const PROCESSES: [c_long; 2] = [libc::SYS_fork, libc::SYS_vfork];
    pub const METADATA: [c_long; 7] = [
        libc::SYS_chmod,
        libc::SYS_chown,
        libc::SYS_lchown,
        libc::SYS_utime,
        libc::SYS_utimes,
        libc::SYS_futimesat,
        libc::SYS_inotify_init,
    ];
    pub const OPEN: [c_long; 1] = [libc::SYS_open];
}

#[cfg(not(target_arch = "x86_64"))]
mod older {
    use libc::c_long;

    pub const NEVER: [c_long; 0] = [];
    pub const PROCESSES: [c_long; 0] = [];
    pub const METADATA: [c_long; 0] = [];
    pub const OPEN: [c_long; 0] = [];
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Installs the filters for this process and all that it starts.
///
/// # Errors
/// When the kernel has no seccomp.
pub(super) fn apply(plan: &Plan) -> Result<()> {
    let failed = |error: seccompiler::Error| Error::user("failed to use seccomp").caused_by(error);
    let refused = u32::try_from(libc::EPERM).unwrap_or(1);
    // Their arguments lie in memory, where no filter sees them; libraries know what to call instead.
    let unknown = u32::try_from(libc::ENOSYS).unwrap_or(38);
    let mut hidden = Rules::new();
    deny(&mut hidden, &[libc::SYS_clone3]);
    if plan.mechanism != Mechanism::Namespaces {
        deny(&mut hidden, &[libc::SYS_openat2]);
    }
    for (rules, errno) in [(hidden, unknown), (denied(plan).map_err(failed)?, refused)] {
        let program = program(rules, errno).map_err(failed)?;
        seccompiler::apply_filter(&program).map_err(failed)?;
    }
    Ok(())
}

fn program(mut rules: Rules, errno: u32) -> Result<BpfProgram, seccompiler::Error> {
    foreign(&mut rules);
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(errno), arch)?;
    Ok(filter.try_into()?)
}

/// What the plan's job may not call.
fn denied(plan: &Plan) -> Result<Rules, seccompiler::Error> {
    let mut rules = Rules::new();
    deny(&mut rules, &NEVER);
    deny(&mut rules, &older::NEVER);
    for request in [libc::TIOCSTI, libc::TIOCLINUX] {
        let is = condition(1, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, u64::from(request as u32))?;
        rules.entry(number(libc::SYS_ioctl)).or_default().push(is);
    }
    if !plan.network {
        deny(&mut rules, &[libc::SYS_socket]);
    }
    match plan.processes {
        0 => {
            deny(&mut rules, &[libc::SYS_clone]);
            deny(&mut rules, &older::PROCESSES);
            deny(&mut rules, &SIGNALS);
            deny(&mut rules, &METADATA);
            deny(&mut rules, &older::METADATA);
        }
        _ => {
            for flag in NEW_NAMESPACES {
                let flag = u64::from(flag as u32);
                let is = condition(0, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(flag), flag)?;
                rules.entry(number(libc::SYS_clone)).or_default().push(is);
            }
        }
    }
    if plan.mechanism != Mechanism::Namespaces {
        deny(&mut rules, &SHARED);
        let other = condition(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, 0)?;
        rules.entry(number(libc::SYS_prlimit64)).or_default().push(other);
        // Early Landlock lets a file be emptied that is opened to be read.
        let (mask, emptied) = ((libc::O_TRUNC | libc::O_ACCMODE) as u64, libc::O_TRUNC as u64);
        let opens = older::OPEN.iter().map(|call| (*call, 1)).chain([(libc::SYS_openat, 2)]);
        for (call, argument) in opens {
            let is = condition(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(mask), emptied)?;
            rules.entry(number(call)).or_default().push(is);
        }
    }
    Ok(rules)
}

/// Denies calls whatever their arguments are: a call without rules.
fn deny(rules: &mut Rules, calls: &[c_long]) {
    rules.extend(calls.iter().map(|call| (number(*call), Vec::new())));
}

#[allow(clippy::useless_conversion, reason = "narrower on other machines")]
fn number(call: c_long) -> i64 {
    i64::from(call)
}

fn condition(
    index: u8,
    length: SeccompCmpArgLen,
    operator: SeccompCmpOp,
    value: u64,
) -> Result<SeccompRule, seccompiler::Error> {
    Ok(SeccompRule::new(vec![SeccompCondition::new(index, length, operator, value)?])?)
}

/// x86_64 has each call twice: with this bit it is that of the x32 interface, which has a few numbers of its own.
#[cfg(target_arch = "x86_64")]
fn foreign(rules: &mut Rules) {
    const X32: i64 = 0x4000_0000;
    let again: Vec<_> = rules.keys().map(|call| (call | X32, Vec::new())).collect();
    rules.extend(again);
    rules.extend((512..=547).map(|call| (call | X32, Vec::new())));
}

#[cfg(not(target_arch = "x86_64"))]
fn foreign(_: &mut Rules) {}
