//! The command lines of CI systems, as their runners write them, by docker and podman.

use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;

use super::*;
use crate::common::daemons::Daemon;

/// What GitLab's docker executor starts (runner, `shells/bash.go`): the first shell that is there reads the job.
const GITLAB: &str = "if [ -x /usr/local/bin/bash ]; then\n\texec /usr/local/bin/bash \nelif [ -x /usr/bin/bash ]; then\n\texec \
     /usr/bin/bash \nelif [ -x /bin/bash ]; then\n\texec /bin/bash \nelif [ -x /usr/local/bin/sh ]; then\n\texec \
     /usr/local/bin/sh \nelif [ -x /usr/bin/sh ]; then\n\texec /usr/bin/sh \nelif [ -x /bin/sh ]; then\n\texec /bin/sh \
     \nelif [ -x /busybox/sh ]; then\n\texec /busybox/sh \nelse\n\techo shell not found\n\texit 1\nfi\n\n";
const JOB: &str = "set -e; cd && echo text >job && cat job && rm job && echo $FEATURE_LITERAL\n";
const DONE: &str = "text\na literal value\n";

/// An engine that has the image.
struct Runner<'a> {
    engine: &'a dyn Fn() -> Command,
    image: &'a str,
    work: &'a Path,
    /// What it needs here to make containers.
    flags: &'a [&'a str],
}

impl Runner<'_> {
    fn run(&self, flags: &[&str], command: &[&str]) -> String {
        succeed(&mut self.command("run", &[&["--rm"], flags].concat(), command))
    }

    fn command(&self, what: &str, flags: &[&str], command: &[&str]) -> Command {
        let mut engine = (self.engine)();
        engine.args([what, "--network=none"]).args(self.flags).args(flags).arg(self.image).args(command);
        engine
    }

    /// A job that is fed to the first process.
    fn gitlab(&self) -> String {
        let volume = format!("{}:/builds", self.work.display());
        let flags = ["--rm", "--interactive", "--volume", &volume, "--workdir=/builds"];
        let mut engine = self.command("run", &flags, &["sh", "-c", GITLAB]);
        let mut child = engine.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("starts");
        child.stdin.take().expect("a pipe").write_all(JOB.as_bytes()).expect("writes");
        let output = child.wait_with_output().expect("ends");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// A container that waits, and a job by `exec`.
    fn waiting(&self, create: &[&str], wait: &[&str], exec: &[&str], job: &[&str]) -> String {
        let id = succeed(&mut self.command("create", create, wait)).trim().to_owned();
        succeed((self.engine)().args(["start", &id]));
        let printed = succeed((self.engine)().arg("exec").args(exec).arg(&id).args(job));
        succeed((self.engine)().args(["rm", "--force", &id]));
        printed
    }

    fn jenkins(&self) -> String {
        let volume = format!("{0}:{0}:rw", self.work.display());
        let create = ["--tty", "--user=1000:1000", "--workdir=/", "--volume", &volume, "--env=JOB=1"];
        self.waiting(&create, &["cat"], &["--env=BUILD=1"], &["sh", "-c", JOB])
    }

    /// `container:` with `options: --user ...`.
    fn github(&self, user: &str) -> String {
        fs_err::write(self.work.join("job.sh"), JOB).expect("writes");
        let (work, home) =
            (format!("{}:/__w", self.work.display()), format!("{}/home:/github/home", self.work.display()));
        let create = [
            "--workdir=/__w",
            "--env=HOME=/github/home",
            "--env=GITHUB_ACTIONS=true",
            "--env=CI=true",
            "--volume",
            &work,
            "--volume",
            &home,
            "--user",
            user,
            "--entrypoint=tail",
        ];
        self.waiting(&create, &["-f", "/dev/null"], &["--workdir=/__w"], &["sh", "-e", "/__w/job.sh"])
    }

    fn all(&self) {
        fs_err::create_dir_all(self.work.join("home")).expect("a folder");
        let job = ["sh", "-c", JOB];
        assert_eq!(self.run(&[], &job), DONE);
        assert_eq!(self.run(&["--user=1000:1000"], &job), DONE);
        assert_eq!(self.gitlab(), DONE);
        assert_eq!(self.jenkins(), DONE);
        assert_eq!(self.github("root"), DONE);
        let openshift = ["--user=1000650000:0", "--cap-drop=ALL", "--security-opt=no-new-privileges"];
        assert_eq!(self.run(&openshift, &job), DONE);
        // Nothing can be written but what is mounted.
        let read_only = ["--read-only", "--user=4242:4242", "--tmpfs=/home/conda:mode=1777"];
        assert_eq!(self.run(&read_only, &job), DONE);
        let without = self.command("run", &["--rm", "--read-only"], &job).output().expect("runs");
        assert!(!without.status.success(), "{without:?}");
    }
}

#[test]
fn ci_jobs_have_a_home_in_docker_and_podman() {
    let variant = Variant::on(Workspace::new(), format!("oci:{}:debian", crate::common::example_base().display()));
    let archive = variant.workspace.path("image.tar");
    let name = "registry.example/ci:1";
    variant.built(&["--output", &format!("docker-archive:{}", archive.display()), "--tag", name]);

    let docker = Daemon::docker("docker-ci");
    succeed(docker.client().args(["load", "--quiet", "--input"]).arg(&archive));
    Runner { engine: &|| docker.client(), image: name, work: &variant.workspace.path("docker"), flags: &[] }.all();

    let image = Engine::shared().pull(&variant.layout().image());
    let podman = || Engine::shared().podman();
    let runner = Runner {
        engine: &podman,
        image: &image,
        work: &variant.workspace.path("podman"),
        flags: &["--cgroups=enabled"],
    };
    runner.all();
}
