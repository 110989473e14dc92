//! Hostile inputs: what becomes of each, how much memory and time it takes. `docs/hostile.md` shows the table; the test
//! run writes it when `CONDAIMG_WRITE_HOSTILE` is set.
//!
//! A row is one line in [`rows`] or in the list of its module. Makers write their inputs small: gigabytes are
//! compressed as they are made.

mod bases;
mod files;
mod packages;
mod servers;

use std::fmt::Write as _;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use crate::common::packages::{Channel, Format, Package};
use crate::common::{Workspace, environment, program};

/// No input may need more memory, in KiB.
const MOST_KIB: u64 = 400 << 10;
/// No input may hold a build longer, in seconds; the machine may be busy.
const MOST_SECONDS: f64 = 50.0;
/// Inputs that are tried at the same time: most wait for one core, servers for time.
const AT_ONCE: usize = 6;

/// What becomes of an input.
#[derive(Clone, Copy)]
pub enum Outcome {
    /// Exit status 1, and all of this in the error.
    Refused(&'static [&'static str]),
    /// An image is built.
    Built,
}

use Outcome::{Built, Refused};

/// A hostile input.
pub struct Row {
    /// What it is; unique.
    name: &'static str,
    /// Makes it; the command that reads it.
    make: fn(&mut Case) -> Command,
    outcome: Outcome,
}

/// One line of a list.
pub fn row(name: &'static str, make: fn(&mut Case) -> Command, outcome: Outcome) -> Row {
    Row { name, make, outcome }
}

/// All rows, slow ones first.
fn rows() -> Vec<Row> {
    [servers::rows(), packages::rows(), bases::rows(), files::rows()].into_iter().flatten().collect()
}

/// Where an input is made and read.
pub struct Case {
    pub workspace: Workspace,
    pub channel: Channel,
}

impl Case {
    fn new() -> Self {
        let workspace = Workspace::new();
        let mut channel = Channel::new(workspace.path("channel"));
        channel.add_all(&[("fine", "1.0", &[])]);
        Self { workspace, channel }
    }

    /// `condaimg build` of the environment.yml that is there, on nothing.
    pub fn build_here(&self) -> Command {
        let mut command = self.workspace.condaimg();
        command.args(["build", "--override-channels", "--channel"]).arg(&self.channel.folder);
        command.args(["--base", "scratch", "--glibc", "2.36"]);
        command
    }

    /// The same of an environment with `fine`.
    pub fn build_fine(&self) -> Command {
        self.workspace.file("environment.yml", environment(&["fine"]));
        self.build_here()
    }

    /// The same of a package with these bytes for its archive.
    pub fn build_bytes(&mut self, package: &Package, format: Format, bytes: &[u8]) -> Command {
        self.channel.add_bytes(package, format, bytes);
        self.channel.index();
        self.workspace.file("environment.yml", environment(&["bad"]));
        self.build_here()
    }

    /// The same of a package.
    pub fn build_package(&mut self, package: &Package) -> Command {
        let bytes = package.archive(Format::Conda);
        self.build_bytes(package, Format::Conda, &bytes)
    }

    /// A named pipe in the workspace.
    pub fn pipe(&self, name: &str) {
        let path = self.workspace.path(name);
        let _ = fs_err::remove_file(&path);
        fs_err::create_dir_all(path.parent().expect("a folder")).expect("makes");
        let made = Command::new("mkfifo").arg(path).status().expect("runs");
        assert!(made.success());
    }
}

/// What became of an input.
struct Measured {
    name: &'static str,
    outcome: String,
    kib: u64,
    seconds: f64,
    /// What is wrong with it.
    wrong: Option<String>,
}

fn measure(row: &Row) -> Measured {
    let mut case = Case::new();
    let command = (row.make)(&mut case);
    let peak = case.workspace.path("peak");
    // Of the process and of its children. An input that hangs ends with status 124.
    let mut measured = program("timeout", "coreutils");
    measured.args(["--kill-after=5", "90", "time", "--quiet", "--format", "%M", "--output"]).arg(&peak);
    measured.arg(command.get_program()).args(command.get_args());
    measured.current_dir(command.get_current_dir().expect("a folder")).stdin(Stdio::null());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => measured.env(name, value),
            None => measured.env_remove(name),
        };
    }
    let begin = Instant::now();
    let output = measured.output().expect("runs");
    let seconds = begin.elapsed().as_secs_f64();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    let kib = fs_err::read_to_string(&peak).ok().and_then(|text| text.lines().last()?.trim().parse().ok());
    let code = output.status.code();
    let (outcome, status, says) = match row.outcome {
        Refused(says) => ("refused", 1, says),
        Built => ("built", 0, &[][..]),
    };
    let mut wrong = Vec::new();
    if code != Some(status) {
        wrong.push(format!("exit status {code:?}"));
    }
    wrong.extend(says.iter().filter(|text| !stderr.contains(**text)).map(|text| format!("`{text}` is not said")));
    if status == 1 && (stderr.contains("panicked") || stderr.contains("overflow")) {
        wrong.push("a crash".to_owned());
    }
    if kib.is_none_or(|kib| kib > MOST_KIB) {
        wrong.push(format!("{kib:?} KiB"));
    }
    if seconds > MOST_SECONDS {
        wrong.push(format!("{seconds:.1} s"));
    }
    let wrong = (!wrong.is_empty()).then(|| {
        let end = stderr.char_indices().rev().nth(1500).map_or(0, |(at, _)| at);
        format!("{}: {}\n{}", row.name, wrong.join(", "), &stderr[end..])
    });
    Measured { name: row.name, outcome: outcome.to_owned(), kib: kib.unwrap_or(0), seconds, wrong }
}

fn page(measured: &[Measured]) -> String {
    let mut page = "# Hostile inputs\n\n\
        What becomes of inputs that were made to take memory, time or space, or to deceive. The test run makes this \
        table (`CONDAIMG_WRITE_HOSTILE=1 cargo test --test it hostile`) and fails if an outcome changes, or if one needs more \
        than 400 MiB. The limits are in [limits.md](limits.md). Memory is the peak of the process and its children; time \
        is that of an unoptimised build on two busy cores.\n\n\
        | input | outcome | peak memory in MiB | seconds |\n|---|---|---|---|\n"
        .to_owned();
    for Measured { name, outcome, kib, seconds, .. } in measured {
        let _ = writeln!(page, "| {name} | {outcome} | {} | {seconds:.1} |", kib.div_ceil(1024));
    }
    page
}

#[test]
#[expect(clippy::print_stdout, reason = "shows how far the table is; a test's output is kept unless it fails")]
fn hostile_inputs_stay_within_bounds() {
    let only = std::env::var("CONDAIMG_HOSTILE").unwrap_or_default();
    let rows: Vec<Row> = rows().into_iter().filter(|row| row.name.contains(&only)).collect();
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(row) = rows.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let measured = measure(row);
                    println!("{:7.1} s {:5} MiB {}", measured.seconds, measured.kib >> 10, measured.name);
                    done.lock().expect("no panic").push(measured);
                }
            });
        }
    });
    let mut measured = done.into_inner().expect("no panic");
    let place = |name: &str| rows.iter().position(|row| row.name == name);
    measured.sort_by_key(|measured| place(measured.name));
    assert_eq!(measured.len(), rows.len());
    let wrong: Vec<&str> = measured.iter().filter_map(|measured| measured.wrong.as_deref()).collect();
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), rows.len(), wrong.join("\n"));
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/hostile.md");
    if std::env::var_os("CONDAIMG_WRITE_HOSTILE").is_some() {
        fs_err::write(&path, page(&measured)).expect("writes");
    }
    let page = fs_err::read_to_string(path).expect("docs/hostile.md");
    for measured in &measured {
        let line = format!("| {} | {} |", measured.name, measured.outcome);
        assert!(page.contains(&line), "docs/hostile.md lacks `{line}`: run with CONDAIMG_WRITE_HOSTILE=1");
    }
}

#[test]
fn limit_that_is_raised_lets_an_input_pass() {
    let mut case = Case::new();
    let package = Package::new("bad", "1.0").file("etc/conda/activate.d/a.sh", "# x\n".repeat(300_000));
    let mut refused = case.build_package(&package);
    let message = crate::common::fail(&mut refused, 1);
    assert!(message.contains("bad-1.0-0") && message.contains("--limit activation-script="), "{message}");
    let digest = crate::common::succeed(case.build_here().args(["--limit", "activation-script=2MiB"]));
    let by_variable = case.build_here().env("CONDAIMG_LIMIT", "header=1M,activation-script=2MiB").output();
    assert_eq!(by_variable.expect("runs").stdout, digest.as_bytes());
    let message = crate::common::fail(case.build_here().args(["--limit", "activations=2"]), 2);
    assert!(message.contains("activations=2") && message.contains("--limit archive-entries="), "{message}");
}
