//! The root of a job in its own mount namespace: an empty read-only file system with what the job may reach.

use std::path::{Path, PathBuf};

use fs_err as fs;
use fs_err::os::unix::fs::symlink;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::statvfs::{FsFlags, statvfs};
use nix::unistd::pivot_root;

use super::plan::{Access, Bind, Plan};
use super::system::DEVICES;
use crate::util::{Error, Result};

/// Directories of which one is there to mount on; what is below it stays reachable.
const PLACES: [&str; 5] = ["/tmp", "/run", "/var", "/etc", "/usr"];
/// Where the machine's root is while the new one is made.
const OLD: &str = "/old";
/// Where the new root is made.
const NEW: &str = "/new";
/// The options of the new root, /tmp and /dev/shm.
const ROOT_OPTIONS: &str = "mode=0755,size=1m";
const TEMPORARY_OPTIONS: &str = "mode=1777,size=64m";

/// Makes the new root and enters it.
///
/// # Errors
/// When the kernel refuses a mount, or a path of the plan cannot be reached.
pub(super) fn enter(plan: &Plan) -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)
        .map_err(|errno| Error::user("failed to make a mount namespace").caused_by(errno))?;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    call("/", mount(None::<&str>, "/", None::<&str>, private, None::<&str>))?;
    let place = PLACES.iter().copied().find(|place| Path::new(place).is_dir());
    let place = place.ok_or_else(|| Error::user("failed to find a directory to mount on"))?;
    file_system("tmpfs", place, MsFlags::MS_NOSUID | MsFlags::MS_NODEV, ROOT_OPTIONS)?;
    let inside = |name: &str| format!("{place}{name}");
    for name in [OLD, NEW] {
        fs::create_dir(inside(name))?;
    }
    file_system("tmpfs", &inside(NEW), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, ROOT_OPTIONS)?;
    call(place, pivot_root(place, inside(OLD).as_str()))?;
    std::env::set_current_dir("/")?;
    fill(plan)?;
    std::env::set_current_dir(NEW)?;
    // The new root over the old one, which goes away.
    call("/", pivot_root(".", "."))?;
    call("/", umount2(".", MntFlags::MNT_DETACH))?;
    std::env::set_current_dir("/")?;
    Ok(())
}

/// Puts everything into the new root and makes it read-only.
fn fill(plan: &Plan) -> Result<()> {
    for directory in ["dev", "proc", "tmp"] {
        fs::create_dir(Path::new(NEW).join(directory))?;
    }
    if plan.processes > 0 {
        // Before the plan's paths, which may lie below it.
        file_system("tmpfs", &format!("{NEW}/tmp"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, TEMPORARY_OPTIONS)?;
    }
    let mut binds: Vec<&Bind> = plan.binds.iter().collect();
    binds.sort_by(|a, b| a.target.cmp(&b.target));
    for bind in &binds {
        put(&bind.source, &bind.target)?;
        // At once: what comes next may lie below, and must make no directory on the machine.
        restrict(bind)?;
    }
    for device in DEVICES.iter().map(Path::new).filter(|device| below(OLD, device).exists()) {
        put(device, device)?;
    }
    for (name, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ] {
        symlink(target, Path::new(NEW).join("dev").join(name))?;
    }
    if plan.processes > 0 {
        fs::create_dir(format!("{NEW}/dev/shm"))?;
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        file_system("tmpfs", &format!("{NEW}/dev/shm"), flags, TEMPORARY_OPTIONS)?;
    }
    // Read-only: root may otherwise change the kernel's settings there. Where the container covers a part of /proc, a new
    // one is refused, and the job has none.
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let _ = mount(Some("proc"), format!("{NEW}/proc").as_str(), Some("proc"), flags, None::<&str>);
    remount(Path::new(NEW), MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV)
}

/// Shows a path of the machine in the new root.
fn put(source: &Path, target: &Path) -> Result<()> {
    let (source, shown) = (below(OLD, source), below(NEW, target));
    let named = |error: std::io::Error| Error::user(format!("failed to show `{}`", target.display())).caused_by(error);
    if fs::metadata(&source).map_err(named)?.is_dir() {
        fs::create_dir_all(&shown).map_err(named)?;
    } else if !shown.exists() {
        if let Some(parent) = shown.parent() {
            fs::create_dir_all(parent).map_err(named)?;
        }
        fs::write(&shown, "").map_err(named)?;
    }
    let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
    let mounted = mount(Some(&source), &shown, None::<&str>, flags, None::<&str>);
    call(&target.to_string_lossy(), mounted)
}

/// Gives a path of the plan, and what is mounted below it, the flags of its access.
fn restrict(bind: &Bind) -> Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    let flags = match bind.access {
        Access::Read => flags | MsFlags::MS_RDONLY,
        Access::Data => flags | MsFlags::MS_RDONLY | MsFlags::MS_NOEXEC,
        Access::Write => flags,
    };
    let top = below(NEW, &bind.target);
    let mounts = fs::read_to_string(format!("{OLD}/proc/self/mountinfo"))?;
    mounts
        .lines()
        .filter_map(mount_point)
        .filter(|point| point.starts_with(&top))
        .try_for_each(|it| remount(&it, flags))
}

/// The mount point of a line of mountinfo (`man 5 proc_pid_mountinfo`).
fn mount_point(line: &str) -> Option<PathBuf> {
    let field = line.split(' ').nth(4)?;
    let mut path = String::with_capacity(field.len());
    let mut rest = field;
    // Spaces, tabs, line breaks and backslashes are octal.
    while let Some((before, after)) = rest.split_once('\\') {
        path.push_str(before);
        let (digits, behind) = after.split_at_checked(3)?;
        path.push(char::from(u8::from_str_radix(digits, 8).ok()?));
        rest = behind;
    }
    path.push_str(rest);
    Some(path.into())
}

/// Changes the flags of a mount. Those that it has already must stay: who may not lift them has to repeat them.
fn remount(point: &Path, flags: MsFlags) -> Result<()> {
    const FLAGS: [(FsFlags, MsFlags); 6] = [
        (FsFlags::ST_RDONLY, MsFlags::MS_RDONLY),
        (FsFlags::ST_NOSUID, MsFlags::MS_NOSUID),
        (FsFlags::ST_NODEV, MsFlags::MS_NODEV),
        (FsFlags::ST_NOEXEC, MsFlags::MS_NOEXEC),
        (FsFlags::ST_NOATIME, MsFlags::MS_NOATIME),
        (FsFlags::ST_NODIRATIME, MsFlags::MS_NODIRATIME),
    ];
    let shown = point.to_string_lossy();
    let now = statvfs(point).map_err(|errno| failed(&shown, errno))?.flags();
    let kept = FLAGS.iter().filter(|(has, _)| now.contains(*has)).fold(MsFlags::empty(), |all, (_, flag)| all | *flag);
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | flags | kept;
    call(&shown, mount(None::<&str>, point, None::<&str>, flags, None::<&str>))
}

fn file_system(kind: &str, place: &str, flags: MsFlags, options: &str) -> Result<()> {
    call(place, mount(Some(kind), place, Some(kind), flags, Some(options)))
}

fn below(root: &str, path: &Path) -> PathBuf {
    Path::new(root).join(path.strip_prefix("/").unwrap_or(path))
}

fn call(place: &str, result: nix::Result<()>) -> Result<()> {
    result.map_err(|errno| failed(place, errno))
}

fn failed(place: &str, errno: nix::Error) -> Error {
    Error::user(format!("failed to mount `{place}`")).caused_by(errno)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_point_with_octal_is_read() {
        let line = r"36 35 98:0 /mnt1 /mnt\040two/\134x rw,noatime master:1 - ext3 /dev/root rw";
        assert_eq!(mount_point(line), Some(PathBuf::from(r"/mnt two/\x")));
        assert_eq!(mount_point("36 35"), None);
    }
}
