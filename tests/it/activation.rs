//! Activation scripts that need a shell: which shell runs them, in real containers, and what is said of those that it
//! does not understand.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use serde_json::json;

use crate::common::engine::{Engine, swept};
use crate::common::images::{Layout, PREFIX, shared_cache, skopeo};
use crate::common::packages::{Channel, Format, Package};
use crate::common::{Workspace, environment, example_base, fail, succeed};

/// What dash does not understand, in a script that it would not even read to its end.
const FOR_BASH: &str = "helper=$CONDA_PREFIX/share/helper.sh\nparts=(one two)\nif [[ -n ${parts[1]} ]]; then\n  \
                        source \"$helper\"\nfi\nexport BASHY=\"${parts[1]//t/T} $HELPED\"\n";

/// The example's base, which has dash alone, as a root file system with more files of this machine.
fn base(name: &str, files: &[&str]) -> String {
    let (layout, root) = (Layout::at(swept().join(format!("{name}-layout"))), swept().join(name));
    skopeo(&["copy", "--quiet", &format!("oci:{}:debian", example_base().display()), &layout.image()]);
    for digest in layout.layers() {
        tar::Archive::new(layout.layer(&digest)).unpack(&root).expect("unpacks");
    }
    for file in files {
        fs_err::copy(file, root.join(format!("usr{file}"))).expect("copies");
    }
    format!("rootfs:{}", root.display())
}

const LIBTINFO: &str = "/lib/x86_64-linux-gnu/libtinfo.so.6";

fn with_bash() -> &'static str {
    static BASE: OnceLock<String> = OnceLock::new();
    BASE.get_or_init(|| base("base-with-bash", &[LIBTINFO, "/bin/bash"]))
}

fn without_bash() -> &'static str {
    static BASE: OnceLock<String> = OnceLock::new();
    BASE.get_or_init(|| base("base-without-bash", &[LIBTINFO]))
}

struct Bench {
    workspace: Workspace,
    channel: Channel,
    layout: Layout,
}

impl Bench {
    /// A channel with packages, each with one script of its name.
    fn new(name: &str, scripts: &[(&str, &str)]) -> Self {
        let workspace = Workspace::new();
        let mut channel = Channel::new(workspace.path("channel"));
        for (package, script) in scripts {
            let package = Package::new(package, "1.0")
                .file(&format!("etc/conda/activate.d/{package}.sh"), script)
                .file("share/helper.sh", "HELPED=helped\n");
            channel.add(&package, Format::Conda);
        }
        channel.index();
        let names: Vec<&str> = scripts.iter().map(|(name, _)| *name).collect();
        workspace.file("environment.yml", environment(&names));
        Self { workspace, channel, layout: Layout::at(swept().join(name)) }
    }

    fn condaimg(&self, command: &str, base: &str) -> Command {
        let mut condaimg = self.workspace.condaimg();
        condaimg.env("CONDAIMG_CACHE_DIR", shared_cache());
        condaimg.args([command, "--override-channels", "--base", base, "--channel"]).arg(&self.channel.folder);
        condaimg
    }

    /// Builds; returns what was told.
    fn build(&self, base: &str, flags: &[&str]) -> String {
        let mut build = self.condaimg("build", base);
        let output = build.args(["--output", &self.layout.image()]).args(flags).output().expect("runs");
        let told = String::from_utf8(output.stderr).expect("UTF-8");
        assert!(output.status.success(), "{told}");
        told
    }

    fn run(&self, command: &[&str]) -> Output {
        let engine = Engine::shared();
        let image = engine.pull(&self.layout.image());
        engine.run(&[]).arg(image).args(command).output().expect("runs")
    }

    fn printed(&self, command: &[&str]) -> String {
        let output = self.run(command);
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout)
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn scripts_for_bash_on_dash_are_named_when_locking() {
    let bench = Bench::new("dash", &[("bashy", FOR_BASH)]);
    for command in ["lock", "build"] {
        let mut condaimg = bench.condaimg(command, without_bash());
        if command == "build" {
            condaimg.args(["--output", &bench.layout.image()]);
        }
        let told = text(&condaimg.output().expect("runs").stderr);
        for part in ["`etc/conda/activate.d/bashy.sh` of `bashy`", "dash", "`parts=( )` (line 2)", "add `bash`"] {
            assert!(told.contains(part), "{command}: {part}: {told}");
        }
    }
    let lock = fs_err::read_to_string(bench.workspace.path("condaimg.lock")).expect("a lock");
    assert!(lock.contains("parts=(one two)"), "the lock has the text: {lock}");
    // It fails, and neither in silence nor for the command.
    let output = bench.run(&["echo", "alive"]);
    assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(0), "alive\n"), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("etc/conda/activate.d/bashy.sh"), "{}", text(&output.stderr));
}

#[test]
fn bash_of_the_base_runs_scripts_for_bash() {
    let bench = Bench::new("bash", &[("bashy", FOR_BASH)]);
    let told = bench.build(with_bash(), &[]);
    assert!(!told.contains("will fail"), "{told}");
    assert_eq!(bench.printed(&["sh", "-c", "echo $BASHY"]), "Two helped\n");
}

#[test]
fn bash_of_the_environment_runs_scripts_for_bash() {
    let mut bench = Bench::new("own-bash", &[("bashy", FOR_BASH)]);
    let bash = fs_err::read("/bin/bash").expect("is there");
    bench.channel.add(&Package::new("bash", "5.2").executable("bin/bash", bash), Format::Conda);
    bench.channel.index();
    bench.workspace.file("environment.yml", environment(&["bashy", "bash"]));
    assert!(!bench.build(without_bash(), &[]).contains("will fail"));
    assert_eq!(bench.printed(&["sh", "-c", "echo $BASHY"]), "Two helped\n");
}

#[test]
fn a_users_entrypoint_comes_after_activation() {
    let bench = Bench::new("entrypoint", &[("dynamic", "export X=$(echo two; echo words)\n")]);
    let entrypoint = format!("/{PREFIX}/etc/conda/condaimg-entrypoint.sh");
    for base in [without_bash(), with_bash()] {
        bench.build(base, &["--entrypoint", "sh -c 'echo \"$X\" \"$1\"' sh"]);
        assert_eq!(bench.printed(&["an  argument"]), "two\nwords an  argument\n");
    }
    let config = bench.layout.config();
    assert_eq!(config["config"]["Entrypoint"], json!([entrypoint, "sh", "-c", "echo \"$X\" \"$1\"", "sh"]));

    let told = bench.build(without_bash(), &["--no-activation", "--entrypoint", "sh -c 'echo \"x$X\"'"]);
    assert!(told.contains("`--no-activation`"), "{told}");
    assert_eq!(bench.printed(&[]), "x\n");
    assert_eq!(bench.layout.config()["config"]["Entrypoint"][0], "sh");
    // It is there for whoever calls it.
    let call = [&entrypoint, "sh", "-c", "echo $X"];
    let mut podman = Engine::shared().run(&["--entrypoint", ""]);
    let printed = succeed(podman.arg(Engine::shared().pull(&bench.layout.image())).args(call));
    assert_eq!(printed, "two words\n");
}

#[test]
fn a_condaimg_yaml_decides_about_activation() {
    let bench = Bench::new("yaml", &[("dynamic", "export X=$(echo set)\n")]);
    let yaml = |more: &str| {
        let text = format!("environment: environment.yml\nimage:\n  entrypoint: [sh, -c, 'echo \"x$X\"']\n{more}");
        bench.workspace.file("condaimg.yaml", text);
        bench.build(without_bash(), &[]);
        bench.printed(&[])
    };
    assert_eq!(yaml(""), "xset\n");
    assert_eq!(yaml("activation: off\n"), "x\n");
    // The flag has the last word.
    bench.build(without_bash(), &["--no-activation=false"]);
    assert_eq!(bench.printed(&[]), "xset\n");
}

#[test]
fn scripts_that_fail_say_so_and_leave_the_command() {
    let scripts = [
        ("a-returns", "export A=$(echo 1)\nreturn 3\n"),
        ("b-shifts", "set -- other arguments\nset -eu\nexport B=$(echo 2)\n"),
        ("c-fails", "false\nread line\nexport C=$(echo 3)$line\n"),
        ("d-open", "if true; then export D=$(echo 4)\n"),
    ];
    let bench = Bench::new("failing", &scripts);
    for base in [without_bash(), with_bash()] {
        bench.build(base, &[]);
        let image = Engine::shared().pull(&bench.layout.image());
        let mut podman = Engine::shared().run(&["--interactive"]);
        podman.arg(image).args(["sh", "-c", "echo \"$A$B$C\" \"$1\" $$; cat; exit 7", "sh", "two  words"]);
        let mut child =
            podman.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("runs");
        child.stdin.take().expect("a pipe").write_all(b"input\n").expect("writes");
        let output = child.wait_with_output().expect("ends");
        let told = text(&output.stderr);
        assert_eq!(text(&output.stdout), "123 two  words 1\ninput\n", "{told}");
        assert_eq!(output.status.code(), Some(7), "{told}");
        for script in ["a-returns.sh returned status 3", "d-open.sh"] {
            assert!(told.contains(script), "{script}: {told}");
        }
    }
}

#[test]
fn a_script_that_ends_the_shell_is_named() {
    for (name, script) in
        [("exits", "export A=$(echo 1)\nexit 0\n"), ("unset", "set -u\nexport A=$NOBODY_SETS_THIS$(echo 1)\n")]
    {
        let bench = Bench::new(name, &[(name, script)]);
        bench.build(with_bash(), &[]);
        let output = bench.run(&["echo", "alive"]);
        assert_eq!(output.status.success(), text(&output.stdout) == "alive\n", "{}", text(&output.stderr));
        assert!(text(&output.stderr).contains(&format!("activate.d/{name}.sh")), "{}", text(&output.stderr));
    }
}

#[test]
fn signals_reach_the_command_through_the_entrypoint() {
    let bench = Bench::new("signals", &[("dynamic", "export X=$(echo set)\n")]);
    bench.build(with_bash(), &[]);
    let engine = Engine::shared();
    let image = engine.pull(&bench.layout.image());
    let script = "trap 'exit 9' TERM; echo ready >/tmp/ready; while :; do sleep 0.1; done";
    let mut start = engine.podman();
    start.args(["run", "--detach", "--network=none", "--cgroups=enabled", "--tmpfs=/tmp", &image, "sh", "-c", script]);
    let id = succeed(&mut start).trim().to_owned();
    let ready = || engine.podman().args(["exec", &id, "cat", "/tmp/ready"]).output().expect("runs").status.success();
    while !ready() {
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    succeed(engine.podman().args(["kill", "--signal=TERM", &id]));
    assert_eq!(succeed(engine.podman().args(["wait", &id])).trim(), "9");
    succeed(engine.podman().args(["rm", "--force", &id]));
}

#[test]
fn no_command_is_told_and_is_no_success() {
    let bench = Bench::new("nothing", &[("dynamic", "export X=$(echo set)\n")]);
    bench.build(without_bash(), &[]);
    let output = bench.run(&[]);
    assert_eq!(output.status.code(), Some(64));
    assert!(text(&output.stderr).contains("no command"), "{}", text(&output.stderr));
}

#[test]
fn static_scripts_after_dynamic_ones_come_after_them() {
    let scripts = [
        ("a-dynamic", "export X=$(echo dyn) SEEN=x$LATE\nexport PATH=/a:$PATH\n"),
        ("b-static", "export X=final LATE=1\nexport PATH=/b:$PATH\n"),
        ("c-static", "export ALONE=1\nHOME=/tmp\nNOBODY_EXPORTS_THIS=1\n"),
    ];
    let bench = Bench::new("order", &scripts);
    let told = bench.build(with_bash(), &[]);
    assert!(told.contains("`etc/conda/activate.d/b-static.sh` of `b-static` comes after"), "{told}");
    let printed = bench.printed(&["sh", "-c", "echo $X $SEEN ${PATH%%/opt*} $HOME $NOBODY_EXPORTS_THIS"]);
    assert_eq!(printed, "final x /b:/a: /tmp\n");
}

#[test]
fn variables_too_long_for_programs_are_refused() {
    let bench = Bench::new("long", &[("plain", "export PLAIN=1\n")]);
    let file = format!("{}variables:\n  LONG: {}\n", environment(&["plain"]), "x".repeat(140_000));
    bench.workspace.file("environment.yml", file);
    let mut build = bench.condaimg("build", without_bash());
    let told = fail(build.args(["--output", &bench.layout.image()]), 1);
    assert!(told.contains("environment.yml:") && told.contains(":9: ") && told.contains("140000 bytes"), "{told}");
}

#[test]
fn reserved_variables_are_ignored_with_a_warning() {
    let mut bench = Bench::new("reserved", &[("plain", "export PLAIN=1\n")]);
    let json = r#"{"PATH": "/evil", "CONDA_PREFIX": "/evil", "NUMBER": 8, "RATIO": 1.50, "ON": true, "A-B": "x"}"#;
    bench.channel.add(&Package::new("vars", "1.0").file("etc/conda/env_vars.d/vars.json", json), Format::Conda);
    bench.channel.index();
    let file = format!("{}variables:\n  PATH: \"/opt/x/bin:$PATH\"\n  OWN: 1\n", environment(&["plain", "vars"]));
    bench.workspace.file("environment.yml", file);
    let told = bench.build(without_bash(), &[]);
    for part in
        ["`variables:` sets `PATH`", "`etc/conda/env_vars.d/vars.json` of `vars-1.0-0`", "`CONDA_PREFIX`", "`A-B`"]
    {
        assert!(told.contains(part), "{part}: {told}");
    }
    let config = bench.layout.config();
    let env: Vec<&str> =
        config["config"]["Env"].as_array().expect("a list").iter().filter_map(|it| it.as_str()).collect();
    for expected in ["NUMBER=8", "RATIO=1.5", "ON=True", "OWN=1", "PLAIN=1", &format!("CONDA_PREFIX=/{PREFIX}")] {
        assert!(env.contains(&expected), "{expected}: {env:?}");
    }
    let path = env.iter().find(|it| it.starts_with("PATH=")).expect("a path");
    assert!(path.starts_with(&format!("PATH=/{PREFIX}/bin:")) && !path.contains("evil"), "{path}");
    assert!(!env.iter().any(|it| it.starts_with("A-B=")), "{env:?}");
    // What is asked for as a flag is meant.
    bench.build(without_bash(), &["--env", "PATH=/mine"]);
    let env = bench.layout.config()["config"]["Env"].to_string();
    assert!(env.contains("\"PATH=/mine\""), "{env}");
}

#[test]
fn variables_with_bad_names_are_refused_with_place() {
    let bench = Bench::new("names", &[("plain", "export PLAIN=1\n")]);
    for name in ["A B", "1A", "A-B", ""] {
        let file = format!("{}variables:\n  \"{name}\": x\n", environment(&["plain"]));
        bench.workspace.file("environment.yml", file);
        let told = fail(&mut bench.condaimg("lock", without_bash()), 1);
        assert!(told.contains("environment.yml:6:") && told.contains(&format!("`{name}`")), "{name}: {told}");
    }
    assert!(!Path::exists(&bench.workspace.path("condaimg.lock")));
}
