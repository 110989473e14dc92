//! podman and buildah with a storage of their own, set up as in `examples/quickstart.sh`.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use super::{program, succeed};

/// As the strictest platforms run containers: nothing writable but /tmp, no capabilities, no new ones, no network.
const STRICT: [&str; 7] = [
    "--read-only",
    "--tmpfs=/tmp",
    "--cap-drop=all",
    "--security-opt=no-new-privileges",
    "--network=none",
    "--cgroups=enabled",
    "--pull=never",
];

/// A storage for images and containers.
pub struct Engine {
    folder: PathBuf,
}

impl Engine {
    /// One that all tests share.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Engine> = OnceLock::new();
        SHARED.get_or_init(|| Self { folder: swept().join("engine") })
    }

    /// An empty one, for tests in which something known would hide what is tested.
    pub fn fresh(name: &str) -> Self {
        Self { folder: swept().join(name) }
    }

    /// podman on this storage, with runc.
    pub fn podman(&self) -> Command {
        // Found by podman itself, which says less when they are missing.
        let _ = (program("runc", "runc"), program("conmon", "conmon"));
        let mut podman = self.command("podman", "podman");
        podman.args(["--log-level=error", "--runtime", "runc"]);
        podman
    }

    /// Variables by which podman, whoever runs it, finds this storage.
    pub fn variables(&self) -> [(&'static str, PathBuf); 2] {
        fs_err::create_dir_all(&self.folder).expect("a folder");
        let (at, file) = (self.folder.display(), self.folder.join("storage.conf"));
        let text = format!("[storage]\ndriver = \"overlay\"\ngraphroot = \"{at}/root\"\nrunroot = \"{at}/run\"\n");
        fs_err::write(&file, text).expect("writes");
        [("CONTAINERS_STORAGE_CONF", file), ("CONTAINERS_CONF", settings())]
    }

    /// buildah on this storage.
    pub fn buildah(&self) -> Command {
        self.command("buildah", "buildah")
    }

    fn command(&self, name: &str, package: &str) -> Command {
        let mut command = program(name, package);
        command.env("CONTAINERS_CONF", settings());
        command.arg("--root").arg(self.folder.join("root")).arg("--runroot").arg(self.folder.join("run"));
        command.args(["--storage-driver", "overlay"]);
        command
    }

    /// Brings an image here; gives its id, which does not depend on where it came from.
    pub fn pull(&self, image: &str) -> String {
        succeed(self.podman().args(["pull", "--quiet", "--tls-verify=false", image])).trim().to_owned()
    }

    /// `podman run` under the strict rules, up to and without the image.
    pub fn run(&self, flags: &[&str]) -> Command {
        let mut podman = self.podman();
        podman.args(["run", "--rm"]).args(STRICT).args(flags);
        podman
    }

    /// A container under the strict rules that does nothing until it is dropped.
    pub fn idle(&self, image: &str) -> Container<'_> {
        let mut podman = self.podman();
        podman.args(["run", "--detach", "--stop-signal=KILL"]).args(STRICT).args([image, "sleep", "600"]);
        Container { engine: self, id: succeed(&mut podman).trim().to_owned() }
    }
}

fn settings() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/containers.conf")
}

/// A running container; removed when dropped.
pub struct Container<'a> {
    engine: &'a Engine,
    id: String,
}

impl Container<'_> {
    /// `podman exec` of a command in it.
    pub fn exec(&self, command: &[&str]) -> String {
        succeed(self.engine.podman().args(["exec", &self.id]).args(command))
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        let _ = self.engine.podman().args(["rm", "--force", "--time=0", &self.id]).stdout(Stdio::null()).status();
    }
}

/// A folder for what tests share. Nothing drops what is static, so a small shell waits until this process has
/// ended, however it ends, then unmounts what engines left mounted there and removes the folder.
pub fn swept() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        // podman makes image names of folders, and those have no capitals.
        let random = tempfile::tempdir().expect("a temporary folder").keep();
        let name =
            format!("condaimg-tests-{}-{}", std::process::id(), fs_err::metadata(&random).expect("is there").ino());
        let folder = random.with_file_name(name);
        fs_err::rename(&random, &folder).expect("renames");
        let script = "trap '' INT TERM HUP; cat >/dev/null
            cut -d' ' -f2 /proc/mounts | grep -F \"$1/\" | sort -r | while read -r mount; do umount -l \"$mount\"; done
            rm -rf \"$1\"";
        let mut sweeper = Command::new("sh");
        sweeper.args(["-c", script, "sweep"]).arg(&folder).stdin(Stdio::piped());
        // Whoever reads the tests' output does not have to wait for it.
        let sweeper = sweeper.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("a shell");
        // Its standard input must stay open until the end.
        std::mem::forget(sweeper);
        folder
    })
}
