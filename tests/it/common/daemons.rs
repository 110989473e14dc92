//! Daemons of container engines with folders and sockets of their own.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::engine::swept;
use super::{program, succeed};

/// A running daemon; ended when dropped. What it leaves mounted is unmounted with all that tests share.
pub struct Daemon {
    child: Child,
    folder: PathBuf,
    /// The variable by which its client finds it, and the value.
    pub address: (&'static str, String),
}

impl Daemon {
    /// containerd without the services that Kubernetes wants.
    pub fn containerd(name: &str) -> Self {
        let folder = fresh(name);
        let at = folder.display();
        let socket = format!("{at}/socket");
        let text = format!(
            "version = 2\nroot = \"{at}/root\"\nstate = \"{at}/state\"\n\
             disabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = \"{socket}\"\n"
        );
        fs_err::write(folder.join("config.toml"), text).expect("writes");
        let mut containerd = program("containerd", "containerd");
        containerd.arg("--config").arg(folder.join("config.toml"));
        Self::start(containerd, folder, ("CONTAINERD_ADDRESS", socket), &["version"])
    }

    /// dockerd without networks.
    pub fn docker(name: &str) -> Self {
        let folder = fresh(name);
        let socket = format!("unix://{}/socket", folder.display());
        let _ = program("containerd", "containerd");
        let mut dockerd = program("dockerd", "docker.io");
        dockerd.arg("--data-root").arg(folder.join("data")).arg("--exec-root").arg(folder.join("exec"));
        dockerd.arg("--pidfile").arg(folder.join("pid")).args(["--host", &socket]);
        dockerd.args(["--bridge=none", "--iptables=false", "--ip6tables=false"]);
        Self::start(dockerd, folder, ("DOCKER_HOST", socket), &["version"])
    }

    fn start(mut command: Command, folder: PathBuf, address: (&'static str, String), ready: &[&str]) -> Self {
        let log = fs_err::File::create(folder.join("log")).expect("makes").into_parts().0;
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("clones")).stderr(log);
        let mut daemon = Self { child: command.spawn().expect("starts"), folder, address };
        let deadline = Instant::now() + Duration::from_secs(60);
        while !daemon.client().args(ready).output().expect("runs").status.success() {
            let ended = daemon.child.try_wait().expect("asks");
            let log = fs_err::read_to_string(daemon.folder.join("log")).unwrap_or_default();
            assert!(ended.is_none() && Instant::now() < deadline, "the daemon does not answer: {log}");
            std::thread::sleep(Duration::from_millis(50));
        }
        daemon
    }

    /// Its client.
    pub fn client(&self) -> Command {
        let mut client = match self.address.0 {
            "DOCKER_HOST" => program("docker", "docker.io"),
            _ => program("ctr", "containerd"),
        };
        client.env(self.address.0, &self.address.1);
        client
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // dockerd ends its containerd only when it is asked to end.
        succeed(program("bash", "bash").args(["-c", &format!("kill -TERM {}", self.child.id())]));
        let _ = self.child.wait();
    }
}

fn fresh(name: &str) -> PathBuf {
    let folder = swept().join(name);
    fs_err::create_dir_all(&folder).expect("a folder");
    folder
}
