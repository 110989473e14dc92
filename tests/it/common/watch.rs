//! Looks at the processes that a program starts while it runs: their arguments, which all users see, and their
//! environments, which all processes of the same user see.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// What was seen of the processes below one, each text once.
#[derive(Default)]
pub struct Watched {
    /// Arguments, with a NUL behind each.
    pub arguments: BTreeSet<Vec<u8>>,
    /// Environments, with the name of the program.
    pub environments: BTreeSet<(String, Vec<u8>)>,
}

/// Runs a command, and watches its children and theirs; not itself, whose arguments and variables the user chose.
pub fn watched(command: &mut Command) -> (Output, Watched) {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("runs");
    let (id, done) = (child.id(), Arc::new(AtomicBool::new(false)));
    let is_done = Arc::clone(&done);
    let watcher = std::thread::spawn(move || {
        let mut seen = Watched::default();
        while !is_done.load(Ordering::Relaxed) {
            look(id, &mut seen);
            std::thread::sleep(Duration::from_millis(1));
        }
        seen
    });
    let output = child.wait_with_output().expect("ends");
    done.store(true, Ordering::Relaxed);
    (output, watcher.join().expect("watches"))
}

fn look(root: u32, seen: &mut Watched) {
    let ids = fs_err::read_dir("/proc").expect("reads").flatten();
    let ids = ids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let parents: BTreeMap<u32, u32> = ids.filter_map(|id| Some((id, parent(id)?))).collect();
    let above = |id: &u32| std::iter::successors(parents.get(id), |id| parents.get(id)).any(|id| *id == root);
    let own = fs_err::read(format!("/proc/{root}/cmdline")).unwrap_or_default();
    for id in parents.keys().filter(|id| above(id)) {
        let read = |name: &str| fs_err::read(format!("/proc/{id}/{name}")).unwrap_or_default();
        let arguments = read("cmdline");
        let name = String::from_utf8_lossy(&read("comm")).trim().to_owned();
        // Before it became the program that it is to be, it is the watched one itself.
        if arguments != own {
            seen.arguments.insert(arguments);
            seen.environments.insert((name, read("environ")));
        }
    }
}

/// The parent of a process: behind the name, which is in parentheses and may hold anything.
fn parent(id: u32) -> Option<u32> {
    let stat = fs_err::read_to_string(format!("/proc/{id}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}
