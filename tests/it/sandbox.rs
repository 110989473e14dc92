//! Code of packages in the sandbox: hostile interpreters and build backends, with namespaces, without them, and
//! without Landlock too. The programs are real; none of them is condaimg's.

mod builds;

use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::common::packages::{Channel, Format, Package};
use crate::common::{Workspace, environment, fail, program, succeed};

const SECRET: &str = "hunter2-of-the-registry";

/// What a machine refuses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Machine {
    /// Nothing.
    Open,
    /// Namespaces, as Docker's and Kubernetes' default profiles do.
    NoNamespaces,
    /// Landlock, too.
    Bare,
}

/// A command on such a machine.
fn on(machine: Machine, command: &Command) -> Command {
    let refused = match machine {
        Machine::Open => return copied(Command::new(command.get_program()), command),
        Machine::NoNamespaces => "namespaces",
        Machine::Bare => "all",
    };
    let mut outer = program("python3", "python3");
    outer.arg("-c").arg(include_str!("sandbox/refuse.py")).arg(refused).arg(command.get_program());
    copied(outer, command)
}

fn copied(mut to: Command, from: &Command) -> Command {
    to.args(from.get_args());
    for (name, value) in from.get_envs() {
        match value {
            Some(value) => to.env(name, value),
            None => to.env_remove(name),
        };
    }
    if let Some(folder) = from.get_current_dir() {
        to.current_dir(folder);
    }
    to
}

struct Bench {
    workspace: Workspace,
    /// What hostile programs try to reach.
    listener: TcpListener,
    _socket: UnixListener,
}

impl Bench {
    /// With things that hostile programs try to reach.
    fn without_channel() -> Self {
        let workspace = Workspace::new();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("a listener");
        let socket = UnixListener::bind(workspace.path("socket")).expect("a socket");
        workspace.file("home/.netrc", "machine nowhere login user password secret\n");
        Self { workspace, listener, _socket: socket }
    }

    /// With a channel that has a hostile Python.
    fn new(mode: &str) -> Self {
        let bench = Self::without_channel();
        let Self { workspace, listener, .. } = &bench;
        let python = compiled(workspace, mode, listener.local_addr().expect("an address").port());
        let mut channel = Channel::new(workspace.path("channel"));
        let python = Package::new("python", "3.11.9").build("h1_0_cpython", 0).executable("bin/python3.11", python);
        let python = python.symlink("bin/python", "python3.11").file("lib/python3.11/os.py", "");
        let module = Package::new("module", "1.0").noarch_python().depends(&["python"]);
        channel.add(&python, Format::Conda);
        channel.add(&module.file("site-packages/module.py", "VALUE = 1\n"), Format::Conda);
        channel.index();
        bench
    }

    fn build(&self) -> Command {
        self.workspace.file("environment.yml", environment(&["python", "module"]));
        let mut build = self.workspace.condaimg();
        build.args(["build", "--override-channels", "--base", "scratch", "--glibc", "2.36", "--channel"]);
        build.arg(self.workspace.path("channel"));
        build.env("CONDAIMG_REGISTRY_USERNAME", "user").env("CONDAIMG_REGISTRY_PASSWORD", SECRET);
        build
    }

    /// That nothing came of an attack.
    fn check_nothing_was_reached(&self) {
        assert!(self.listener.accept().is_err(), "the network was reached");
        for loot in ["home/loot", "cache/loot"] {
            assert!(!self.workspace.path(loot).exists(), "{loot}");
        }
        let netrc = fs_err::read_to_string(self.workspace.path("home/.netrc")).expect("a file");
        assert!(netrc.contains("secret"));
    }
}

/// The hostile program, without libraries, since it is in an image of nothing.
fn compiled(workspace: &Workspace, mode: &str, port: u16) -> Vec<u8> {
    let source = workspace.file("hostile.c", include_str!("sandbox/hostile.c"));
    let output = workspace.path("hostile");
    let mut cc = program("cc", "build-essential");
    cc.args(["-static", "-O1", "-D_GNU_SOURCE", "-o"]).arg(&output).arg(&source);
    cc.arg(format!("-DMODE=\"{mode}\"")).arg(format!("-DSECRET=\"{SECRET}\"")).arg(format!("-DPORT={port}"));
    cc.arg(format!("-DFOLDER=\"{}\"", workspace.path("").display().to_string().trim_end_matches('/')));
    succeed(&mut cc);
    fs_err::read(output).expect("a program")
}

fn said(command: &mut Command) -> String {
    let output = command.output().expect("runs");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{stderr}");
    stderr
}

#[test]
fn hostile_python_with_namespaces_reaches_nothing() {
    let bench = Bench::new("attack");
    let told = said(&mut on(Machine::Open, &bench.build()));
    bench.check_nothing_was_reached();
    assert!(!told.contains("sandbox:"), "{told}");
}

#[test]
fn hostile_python_with_landlock_reaches_nothing() {
    let bench = Bench::new("attack");
    let told = said(on(Machine::NoNamespaces, &bench.build()).arg("--require-sandbox"));
    bench.check_nothing_was_reached();
    // What could not be had is said, once.
    assert_eq!(told.matches("sandbox:").count(), 1, "{told}");
    assert!(told.contains("Landlock and seccomp"), "{told}");
}

#[test]
fn required_sandbox_that_is_refused_is_an_error() {
    let bench = Bench::new("attack");
    let message = fail(on(Machine::Bare, &bench.build()).arg("--require-sandbox"), 1);
    for part in ["`--require-sandbox`", "namespaces", "Landlock", "`--bytecode off`"] {
        assert!(message.contains(part), "{part}: {message}");
    }
    bench.check_nothing_was_reached();
    // Nothing runs, so nothing is asked for.
    succeed(on(Machine::Bare, &bench.build()).args(["--require-sandbox", "--bytecode", "off"]));
    bench.check_nothing_was_reached();
    // Without the flag, it runs with what there is, which is no network.
    let output = on(Machine::Bare, &bench.build()).args(["--no-cache"]).output().expect("runs");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("resource limits only"), "{told}");
    assert!(bench.listener.accept().is_err(), "the network was reached");
}

#[test]
fn doctor_names_what_could_not_be_had() {
    let workspace = Workspace::new();
    for (machine, state, parts) in [
        (Machine::Open, "ok", &["namespaces and seccomp"][..]),
        (Machine::NoNamespaces, "ok", &["Landlock and seccomp", "no namespaces"]),
        (Machine::Bare, "no", &["resource limits only", "no namespaces", "no Landlock"]),
    ] {
        let mut doctor = workspace.condaimg();
        doctor.args(["doctor", "--json"]).env("CONDAIMG_BASE", "oci:nowhere");
        let output = on(machine, &doctor).output().expect("runs");
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let findings = report["local"].as_array().expect("findings");
        let finding = findings.iter().find(|finding| finding["name"] == "sandbox").expect("a finding");
        assert_eq!(finding["state"], state, "{machine:?}: {finding}");
        let detail = finding["detail"].as_str().expect("text");
        assert!(parts.iter().all(|part| detail.contains(part)), "{machine:?}: {detail}");
    }
}

#[test]
fn python_that_never_ends_is_ended() {
    for machine in [Machine::Open, Machine::NoNamespaces] {
        let bench = Bench::new("sleep");
        let begin = Instant::now();
        let message = fail(on(machine, &bench.build()).env("CONDAIMG_SANDBOX_TIMEOUT", "2"), 1);
        assert!(begin.elapsed() < Duration::from_secs(60), "{machine:?}");
        for part in ["bin/python3.11", "2 s", "CONDAIMG_SANDBOX_TIMEOUT", "`--bytecode off`"] {
            assert!(message.contains(part), "{part}: {message}");
        }
    }
}

#[test]
fn endless_pyc_is_refused() {
    let bench = Bench::new("endless");
    let begin = Instant::now();
    let message = fail(&mut bench.build(), 1);
    assert!(begin.elapsed() < Duration::from_secs(60));
    for part in ["bin/python3.11", "bytes", "`--bytecode off`"] {
        assert!(message.contains(part), "{part}: {message}");
    }
}

#[test]
fn answer_that_is_no_pyc_of_its_module_is_refused() {
    let message = fail(&mut Bench::new("other").build(), 1);
    for part in ["bin/python3.11", "module.py", "`--bytecode off`"] {
        assert!(message.contains(part), "{part}: {message}");
    }
}

#[test]
fn python_is_ended_when_condaimg_is_killed() {
    for machine in [Machine::Open, Machine::NoNamespaces] {
        let bench = Bench::new("sleep");
        let mut build = on(machine, &bench.build()).spawn().expect("runs");
        let needle = bench.workspace.path("cache").display().to_string();
        let interpreters = || processes(&needle);
        wait_for(|| !interpreters().is_empty());
        build.kill().expect("kills");
        build.wait().expect("ends");
        wait_for(|| interpreters().is_empty());
    }
}

/// The processes whose program is in a folder.
fn processes(folder: &str) -> Vec<String> {
    let all = fs_err::read_dir("/proc").expect("processes").flatten().map(|entry| entry.path());
    let first = |path: std::path::PathBuf| {
        let words = fs_err::read(path.join("cmdline")).ok()?;
        Some(String::from_utf8_lossy(words.split(|byte| *byte == 0).next()?).into_owned())
    };
    all.filter_map(first).filter(|program| program.starts_with(folder)).collect()
}

fn wait_for(condition: impl Fn() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < Duration::from_secs(60), "waited in vain");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn memory_of_condaimg_is_closed_to_its_user() {
    let bench = Bench::new("sleep");
    let mut build = bench.build().spawn().expect("runs");
    let needle = bench.workspace.path("cache").display().to_string();
    wait_for(|| !processes(&needle).is_empty());
    // What belongs to root is closed to the process's user.
    let path = format!("/proc/{}/environ", build.id());
    let mut reader = program("setpriv", "util-linux");
    reader.args(["--bounding-set", "-all", "--inh-caps", "-all", "--", "cat", &path]);
    let output = reader.output().expect("runs");
    build.kill().expect("kills");
    build.wait().expect("ends");
    assert!(!String::from_utf8_lossy(&output.stdout).contains(SECRET));
}
