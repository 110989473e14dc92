//! The base that a lock names is used when nobody names another; another one is told before the network is asked.

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::common::packages::{Channel, Package};
use crate::common::registry::free_port;
use crate::common::{Workspace, environment, example_base, fail, run_output, succeed};

/// A folder with an environment and its channel.
struct Bench {
    workspace: Workspace,
    channel: Channel,
}

impl Bench {
    fn new() -> Self {
        let workspace = Workspace::new();
        let app = Package::new("app", "1.0").noarch_generic().file("share/app", "app");
        let channel = Channel::of(workspace.path("channel"), [&app]);
        workspace.file("environment.yml", environment(&["app"]));
        Self { workspace, channel }
    }

    /// `condaimg`, with no word of a base.
    fn condaimg(&self, words: &[&str]) -> Command {
        let mut program = self.workspace.condaimg();
        program.args(words).args(["--override-channels", "--channel"]).arg(&self.channel.folder);
        program.env_remove("CONDAIMG_BASE");
        program
    }

    fn text(&self) -> String {
        fs_err::read_to_string(self.workspace.path("condaimg.lock")).expect("a lock")
    }
}

/// The example's base as `--base` takes it.
fn debian() -> String {
    format!("oci:{}:debian", example_base().display())
}

/// A server that is never asked.
fn unasked() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
    listener.set_nonblocking(true).expect("sets");
    let host = listener.local_addr().expect("has one").to_string();
    (listener, host)
}

#[test]
fn lock_base_is_used_when_none_is_named() {
    let bench = Bench::new();
    succeed(&mut bench.condaimg(&["lock", "--base", &debian()]));
    let text = bench.text();
    let digest = succeed(&mut bench.condaimg(&["build", "--locked", "--base", &debian()]));
    for words in [&["build", "--locked"][..], &["build", "--frozen"], &["build"], &["build", "--offline"]] {
        let output = run_output(&mut bench.condaimg(words));
        assert_eq!(String::from_utf8_lossy(&output.stdout), digest, "{words:?}");
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(told.contains(&debian()) && !told.contains("docker.io"), "{words:?}: {told}");
    }
    for words in [&["lock"][..], &["lock", "--check"], &["lock", "--upgrade"], &["plan", "--locked"]] {
        succeed(&mut bench.condaimg(words));
        assert_eq!(bench.text(), text, "{words:?}");
    }
    // A platform that is new to the file gets the base of the others.
    let multi = format!("oci:{}:debian-multi", example_base().display());
    succeed(&mut bench.condaimg(&["lock", "--base", &multi]));
    assert!(bench.text().contains(&format!("reference: {multi}\n")), "the same content, named anew: {}", bench.text());
    succeed(&mut bench.condaimg(&["build", "--platform", "linux/amd64,linux/arm64"]));
    assert_eq!(bench.text().matches(&format!("reference: {multi}\n")).count(), 2);
}

#[test]
fn base_beside_lock_is_found_from_elsewhere() {
    let bench = Bench::new();
    bench.workspace.file("root/etc/os-release", "NAME=none\n");
    succeed(&mut bench.condaimg(&["lock", "--base", "rootfs:root", "--glibc", "2.36"]));
    assert!(bench.text().contains("reference: rootfs:./root\n"), "{}", bench.text());
    let mut build = bench.condaimg(&["build", "--locked", "--glibc", "2.36"]);
    build.current_dir("/").arg(bench.workspace.path("environment.yml"));
    succeed(build.arg("--output").arg(format!("oci:{}", bench.workspace.path("out").display())));
}

#[test]
fn relative_base_elsewhere_is_found_from_the_lock() {
    let bench = Bench::new();
    bench.workspace.file("ground/etc/os-release", "NAME=none\n");
    bench.workspace.file("envs/app/environment.yml", environment(&["app"]));
    bench.workspace.file("elsewhere/file", "");
    let condaimg = |words: &[&str], folder: &str| {
        let mut program = bench.condaimg(words);
        program.current_dir(bench.workspace.path(folder)).args(["--glibc", "2.36"]);
        program
    };
    let path = bench.workspace.path("envs/app/condaimg.lock");
    let read = || fs_err::read_to_string(&path).expect("a lock");
    succeed(&mut condaimg(&["lock", "--base", "rootfs:../../ground"], "envs/app"));
    let text = read();
    assert!(text.contains("reference: rootfs:./../../ground\n"), "{text}");
    let digest = succeed(&mut condaimg(&["build", "--locked"], "envs/app"));
    for (folder, file) in [("envs", "app"), ("", "envs/app"), ("elsewhere", "../envs/app")] {
        assert_eq!(succeed(&mut condaimg(&["build", "--locked", file], folder)), digest, "{folder}");
        // A lock that is made again says the same, and so does one with the base as this directory has it.
        succeed(&mut condaimg(&["lock", file], folder));
        assert_eq!(read(), text, "{folder}");
    }
    succeed(&mut condaimg(&["lock", "envs/app", "--base", "rootfs:ground"], ""));
    assert_eq!(read(), text);
    // Older locks have what was given: it is found in that directory, and else in that of the lock.
    fs_err::write(&path, text.replace("rootfs:./../../ground", "rootfs:../../ground")).expect("writes");
    for (folder, file) in [("envs/app", "."), ("", "envs/app")] {
        assert_eq!(succeed(&mut condaimg(&["build", "--locked", file], folder)), digest, "{folder}");
    }
}

#[test]
fn base_that_was_changed_is_told_as_changed() {
    let bench = Bench::new();
    bench.workspace.file("root/etc/os-release", "NAME=none\n");
    succeed(&mut bench.condaimg(&["lock", "--base", "rootfs:root", "--glibc", "2.36"]));
    bench.workspace.file("root/etc/os-release", "NAME=other\n");
    for words in [&["build", "--locked"][..], &["build", "--frozen"], &["lock", "--check"]] {
        for base in [&["--base", "rootfs:root"][..], &[]] {
            let told = fail(bench.condaimg(words).args(["--glibc", "2.36"]).args(base), 1);
            assert!(told.contains("`condaimg lock`") && told.contains("root"), "{words:?}: {told}");
            assert!(!told.contains("or no base at all"), "{words:?}: {told}");
        }
    }
    succeed(&mut bench.condaimg(&["lock", "--glibc", "2.36"]));
    succeed(&mut bench.condaimg(&["build", "--locked", "--glibc", "2.36"]));
}

#[test]
fn other_base_is_told_without_network() {
    let bench = Bench::new();
    succeed(&mut bench.condaimg(&["lock", "--base", &debian()]));
    let text = bench.text();
    let (listener, host) = unasked();
    let other = format!("{host}/team/base:1");
    let flag = format!("--base {}", debian());
    let check = |command: &mut Command| {
        let told = fail(command, 1);
        assert!(told.contains("condaimg.lock") && told.contains(&other) && told.contains(&flag), "{told}");
    };
    for words in [&["build", "--locked"][..], &["build", "--frozen"], &["lock", "--check"]] {
        check(bench.condaimg(words).args(["--base", &other]));
        let mut by_variable = bench.condaimg(words);
        by_variable.env("CONDAIMG_BASE", &other);
        check(&mut by_variable);
        assert!(fail(&mut by_variable, 1).contains("`CONDAIMG_BASE`"));
    }
    bench.workspace.file("condaimg.yaml", format!("environment: environment.yml\nbase: {other}\n"));
    check(&mut bench.condaimg(&["build", "--locked"]));
    assert!(listener.accept().is_err(), "the registry was asked");
    assert_eq!(bench.text(), text);
    // The flag that is told is the right one.
    succeed(bench.condaimg(&["build", "--locked"]).args(flag.split(' ')));
}

#[test]
fn other_local_base_is_told_with_its_flag() {
    let bench = Bench::new();
    succeed(&mut bench.condaimg(&["lock", "--base", &debian(), "--glibc", "2.36"]));
    bench.workspace.file("root/etc/os-release", "NAME=other\n");
    for flag in ["--locked", "--frozen"] {
        let told = fail(&mut bench.condaimg(&["build", flag, "--base", "rootfs:root", "--glibc", "2.36"]), 1);
        assert!(told.contains(&format!("--base {}", debian())) && told.contains("condaimg.lock"), "{flag}: {told}");
    }
}

#[test]
fn missing_lock_is_told_without_network() {
    let bench = Bench::new();
    let (listener, host) = unasked();
    for flag in ["--locked", "--frozen"] {
        let told = fail(&mut bench.condaimg(&["build", flag, "--base", &format!("{host}/base:1")]), 1);
        assert!(told.contains("condaimg.lock"), "{told}");
    }
    assert!(listener.accept().is_err(), "the registry was asked");
}

#[test]
fn platforms_with_different_bases_are_named() {
    let bench = Bench::new();
    let multi = format!("oci:{}:debian-multi", example_base().display());
    succeed(&mut bench.condaimg(&["lock", "--base", &debian()]));
    succeed(&mut bench.condaimg(&["lock", "--base", &multi, "--platform", "linux/arm64"]));
    let told = fail(&mut bench.condaimg(&["build", "--locked", "--platform", "linux/amd64,linux/arm64"]), 1);
    assert!(told.contains(&debian()) && told.contains(&multi) && told.contains("--base"), "{told}");
    succeed(&mut bench.condaimg(&["build", "--locked", "--platform", "linux/arm64"]));
    // An export needs no base.
    succeed(&mut bench.condaimg(&["lock", "--export", "pixi"]));
}

#[test]
fn lost_lock_base_names_the_lock() {
    let bench = Bench::new();
    let copy = bench.workspace.path("elsewhere");
    copy_folder(&example_base(), &copy);
    succeed(&mut bench.condaimg(&["lock", "--base", &format!("oci:{}:debian", copy.display())]));
    fs_err::remove_dir_all(&copy).expect("removes");
    let told = fail(&mut bench.condaimg(&["build", "--locked"]), 1);
    for part in ["elsewhere", "condaimg.lock", "`--base`"] {
        assert!(told.contains(part), "{part}: {told}");
    }
}

fn copy_folder(from: &Path, to: &Path) {
    for entry in walkdir::WalkDir::new(from) {
        let entry = entry.expect("an entry");
        let path = to.join(entry.path().strip_prefix(from).expect("is below"));
        match entry.file_type().is_dir() {
            true => fs_err::create_dir_all(path).expect("a folder"),
            false => drop(fs_err::copy(entry.path(), path).expect("copies")),
        }
    }
}

#[test]
fn unreachable_default_base_names_the_ways_out() {
    let bench = Bench::new();
    let proxy = format!("http://127.0.0.1:{}", free_port());
    let unreachable = |command: &mut Command| {
        command.env("HTTPS_PROXY", &proxy).env("https_proxy", &proxy).env_remove("NO_PROXY").env_remove("no_proxy");
        let begun = Instant::now();
        let told = fail(command, 1);
        assert!(begun.elapsed() < Duration::from_secs(30), "{told}");
        for part in ["docker.io/library/debian:12-slim", "`--base ", "`base:`", "`CONDAIMG_BASE`", "mirror"] {
            assert!(told.contains(part), "{part}: {told}");
        }
    };
    unreachable(&mut bench.condaimg(&["build", "--registry-retries", "0"]));
    unreachable(&mut bench.condaimg(&["lock", "--registry-retries", "0"]));
    unreachable(&mut bench.condaimg(&["build", "--offline"]));
    // Who named it knows these ways.
    let named = ["build", "--offline", "--base", "docker.io/library/debian:12-slim"];
    let told = fail(&mut bench.condaimg(&named), 1);
    assert!(!told.contains("CONDAIMG_BASE"), "{told}");
}
