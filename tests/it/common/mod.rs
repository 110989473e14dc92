//! What the tests share.

pub mod certificates;
pub mod daemons;
pub mod engine;
pub mod file_server;
pub mod forward_proxy;
pub mod images;
pub mod needles;
pub mod packages;
pub mod proxy;
pub mod pyc;
pub mod pypi;
pub mod registry;
pub mod schema;
pub mod token_server;
pub mod tree;
pub mod variants;
pub mod watch;
pub mod wheels;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A folder of its own for a test, with a home, a cache and a working folder; removed at the end.
pub struct Workspace {
    folder: tempfile::TempDir,
}

impl Workspace {
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a temporary folder") }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file into the folder; returns its path.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs_err::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        fs_err::write(&path, content).expect("a file");
        path
    }

    /// The program, in this folder, with a home and a cache in it and nothing of the caller's settings.
    pub fn condaimg(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_condaimg"));
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("CONDA")
                || text.starts_with("XDG_")
                || text.contains("AUTH")
                || text.starts_with("UV_")
                || text.starts_with("PIP_")
                || text == "SOURCE_DATE_EPOCH"
            {
                command.env_remove(&name);
            }
        }
        fs_err::create_dir_all(self.path("home")).expect("a home");
        command
            .current_dir(self.folder.path())
            .env("HOME", self.path("home"))
            .env("CONDAIMG_CACHE_DIR", self.path("cache"));
        command
    }

    /// `condaimg build` of an environment with these dependencies from the example channel on the example base.
    pub fn build(&self, dependencies: &[&str]) -> Command {
        self.file("environment.yml", environment(dependencies));
        self.build_here()
    }

    /// `condaimg build` of the environment.yml that is there, from the example channel on the example base.
    pub fn build_here(&self) -> Command {
        let mut command = self.condaimg();
        command.args(["build", "--override-channels", "--channel"]).arg(example_channel());
        command.args(["--base", &format!("oci:{}:debian", example_base().display())]);
        command
    }
}

/// An environment.yml with these dependencies.
pub fn environment(dependencies: &[&str]) -> String {
    let lines: String = dependencies.iter().map(|dependency| format!("  - \"{dependency}\"\n")).collect();
    format!("name: test\nchannels: [conda-forge]\ndependencies:\n{lines}")
}

/// The channel that `examples/channel/make.sh` makes.
pub fn example_channel() -> PathBuf {
    example("channel", "examples/channel/make.sh")
}

/// The base that `examples/base/make.sh` makes, an OCI layout with the tags `debian` (amd64) and `debian-multi` (an
/// index of amd64 and arm64).
pub fn example_base() -> PathBuf {
    example("base", "examples/base/make.sh")
}

/// The folder of real wheels that `examples/wheels/make.sh` fetches.
pub fn example_wheels() -> PathBuf {
    example("wheels", "examples/wheels/make.sh")
}

/// A Python with pip, which `examples/channel/make.sh` makes for itself.
pub fn example_python() -> PathBuf {
    example("channel-venv/bin/python", "examples/channel/make.sh")
}

fn example(name: &str, script: &str) -> PathBuf {
    let cache = std::env::var_os("EXAMPLES_CACHE").map(PathBuf::from);
    let cache = cache.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/.cache"));
    let path = cache.join(name);
    assert!(path.exists(), "`{}` is missing: run {script}, or the tests by tests/run.sh", path.display());
    path
}

/// A program that must be there; `package` is Debian's.
pub fn program(name: &str, package: &str) -> Command {
    let found =
        std::env::var("PATH").unwrap_or_default().split(':').any(|folder| Path::new(folder).join(name).exists())
            || Path::new("/usr/sbin").join(name).exists();
    assert!(found, "`{name}` is missing: apt-get install {package}, or run the tests by tests/run.sh");
    let mut command = Command::new(name);
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/sbin:/sbin"));
    command
}

/// A Python that has py-rattler; tests/run.sh makes it.
pub fn python_with_rattler() -> Command {
    Command::new(example("bench-venv", "tests/run.sh, which makes it,").join("bin/python"))
}

/// Runs a command that must succeed; returns its standard output.
pub fn succeed(command: &mut Command) -> String {
    let output = run(command);
    assert!(
        output.status.success(),
        "{command:?} ended with {}\n{}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Runs a command that must fail with this exit status; returns its standard error.
pub fn fail(command: &mut Command, status: i32) -> String {
    let output = run(command);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(status), "{command:?}\n{stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
    stderr
}

/// Runs a command that must succeed; returns all that it said.
pub fn run_output(command: &mut Command) -> Output {
    let output = run(command);
    assert!(output.status.success(), "{command:?}\n{}", String::from_utf8_lossy(&output.stderr));
    output
}

fn run(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("{command:?} does not run: {error}"))
}

/// A small file system in memory, for full disks; it goes away at the end. Mounting takes root, which CI has.
pub struct SmallDisk {
    folder: tempfile::TempDir,
}

impl SmallDisk {
    /// `size` as tmpfs takes it (`64k`, `8m`).
    pub fn mount(size: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut mount = program("mount", "mount");
        succeed(mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(folder.path()));
        Self { folder }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: whatever still has a file open there must not keep the mount alive.
        let _ = Command::new("umount").arg("-l").arg(self.folder.path()).status();
    }
}
