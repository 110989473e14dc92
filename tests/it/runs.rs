//! Images run: by podman and runc, as any user, on a read-only root without network, with and without a shell.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::json;

use crate::common::engine::{Engine, swept};
use crate::common::images::{Layout, PREFIX, full, shared_cache, small};
use crate::common::{Workspace, environment, example_base, succeed};

/// Everyday work, and each C library of the environment once. It prints `fine` when all went well.
const WORK: &str = r#"
import bz2, ctypes, curses, hashlib, lzma, multiprocessing, os, pwd, readline, sqlite3, ssl, subprocess, sys, tempfile, uuid, zlib, zoneinfo
import click, flask, numpy, pandas, pytest, requests

assert sys.prefix == os.environ["CONDA_PREFIX"] == "/opt/conda/envs/default", sys.prefix
assert not os.access("/", os.W_OK) and not os.access(sys.prefix, os.W_OK)
assert os.stat(os.environ["HOME"]).st_mode & 0o7777 == 0o1777 and os.stat(os.environ["HOME"]).st_uid == 1000
assert pwd.getpwuid(1000).pw_dir == "/home/conda"

numbers = pandas.DataFrame({"x": numpy.arange(4), "y": pandas.date_range("2024-01-01", periods=4, tz="Europe/Berlin")})
assert numbers.x.sum() == 6 and numpy.linalg.det(numpy.eye(3)) == 1
app = flask.Flask("app")
app.route("/")(lambda: "hello")
assert app.test_client().get("/").data == b"hello"

authorities = ssl.create_default_context()
assert ssl.get_default_verify_paths().cafile == sys.prefix + "/ssl/cacert.pem", ssl.get_default_verify_paths()
assert authorities.cert_store_stats()["x509_ca"] > 50, authorities.cert_store_stats()
assert os.path.isfile(requests.certs.where())

database = sqlite3.connect(os.path.join(tempfile.mkdtemp(), "test.db"))
assert database.execute("select sum(value) from json_each('[1, 2]')").fetchone() == (3,)
assert ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)(lambda value: value + 1)(1) == 2
assert ctypes.CDLL(None).abs(-3) == 3
assert zoneinfo.ZoneInfo("America/New_York").utcoffset(__import__("datetime").datetime(2024, 7, 1)).total_seconds() == -14400
for codec in bz2, lzma, zlib:
    assert codec.decompress(codec.compress(b"data" * 99)) == b"data" * 99
curses.setupterm("xterm")
assert hashlib.blake2b(b"").digest_size == 64 and uuid.uuid1().version == 1
assert multiprocessing.get_context("spawn").Value("i", 1).value == 1
assert subprocess.check_output([sys.executable, "-c", "print(1)"]) == b"1\n"
assert "/etc" not in "".join(sys.path)
print("fine", os.getuid(), os.getgid())
"#;

fn image() -> String {
    Engine::shared().pull(&full().image())
}

/// `podman run` of the full image.
fn run(flags: &[&str], command: &[&str]) -> String {
    succeed(Engine::shared().run(flags).arg(image()).args(command))
}

/// `NAME=VALUE` lines as a map, without what the runtime adds.
fn variables(env: &str) -> BTreeMap<&str, &str> {
    let mut variables: BTreeMap<_, _> = env.lines().map(|line| line.split_once('=').expect("NAME=VALUE")).collect();
    for name in ["HOSTNAME", "TERM", "container"] {
        variables.remove(name);
    }
    variables
}

#[test]
fn any_user_can_work_on_a_read_only_root_without_network() {
    for user in ["1000:1000", "31337:0"] {
        let printed = run(&["--user", user], &["python", "-c", WORK]);
        assert_eq!(printed, format!("fine {}\n", user.replace(':', " ")));
    }
    // Without a wish of the caller's: the image's own user.
    assert_eq!(run(&[], &["id"]), "uid=1000(conda) gid=0(root) groups=0(root)\n");
}

#[test]
fn podman_runs_a_layout_by_its_path_and_the_command_is_python() {
    let mut podman = Engine::shared().podman();
    podman.args(["run", "--rm", "--interactive", "--network=none", "--cgroups=enabled", &small().image()]);
    let script = small().folder().join("script.py");
    fs_err::write(&script, "import sys, click; print(sys.version_info[:2], sys.stdin.name)").expect("writes");
    podman.stdin(fs_err::File::open(script).expect("opens").into_parts().0);
    assert_eq!(succeed(&mut podman), "(3, 11) <stdin>\n");
}

#[test]
fn the_home_can_be_written_by_the_images_user_and_by_any_in_group_0() {
    for user in [&[][..], &["--user=31337:0"]] {
        let mut podman = Engine::shared().podman();
        podman.args(["run", "--rm", "--network=none", "--cgroups=enabled"]).args(user);
        podman.args([&image(), "sh", "-c", "cd && pwd && echo text >file && cat file"]);
        assert_eq!(succeed(&mut podman), "/home/conda\ntext\n");
    }
}

#[test]
fn entry_point_scripts_run() {
    for (command, expected) in [
        ("flask --version", "Flask 3."),
        ("pytest --version", "pytest 9."),
        ("pip --version", "/pip (python 3.11)"),
        ("python3 --version", "Python 3.11"),
        ("python3.11 -m flask --version", "Flask 3."),
        ("normalizer --version", "Charset-Normalizer 3."),
        ("f2py -v", "2."),
    ] {
        let command: Vec<&str> = command.split(' ').collect();
        let mut podman = Engine::shared().run(&["--user=31337:0"]);
        let output = podman.arg(image()).args(&command).output().expect("runs");
        let printed = String::from_utf8([output.stdout, output.stderr].concat()).expect("UTF-8");
        assert!(output.status.success() && printed.contains(expected), "{command:?}: {printed}");
    }
    let test = "def test_it(): import flask, numpy";
    let script = format!("cd /tmp && echo '{test}' >test_it.py && pytest -q -p no:cacheprovider");
    assert!(run(&["--user=1000:1000"], &["sh", "-c", &script]).contains("1 passed"));
}

#[test]
fn variables_hold_in_run_and_in_exec_without_a_shell() {
    let prefix = format!("/{PREFIX}");
    let (home, data) =
        (format!("{prefix}/share/feature-activate"), format!("{prefix}/share/feature-activate/data.txt"));
    let (path, ca, terminfo) = (
        format!("{prefix}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
        format!("{prefix}/ssl/cacert.pem"),
        format!("{prefix}/share/terminfo"),
    );
    let expected = BTreeMap::from([
        ("APP_MODE", "two words, $one dollar"),
        ("CONDA_DEFAULT_ENV", "default"),
        ("CONDA_PREFIX", &prefix),
        ("FEATURE_DATA", &data),
        ("FEATURE_FROM_JSON", "from env_vars.d"),
        ("FEATURE_HOME", &home),
        ("FEATURE_LITERAL", "a literal value"),
        ("FEATURE_SINGLE", "single $quoted"),
        ("HOME", "/home/conda"),
        ("PATH", &path),
        ("SSL_CERT_FILE", &ca),
        ("TERMINFO", &terminfo),
        ("USER", "conda"),
    ]);
    assert_eq!(variables(&run(&[], &["env"])), expected);
    let container = Engine::shared().idle(&image());
    assert_eq!(variables(&container.exec(&["env"])), expected);
    assert_eq!(container.exec(&["python", "-c", "import sys; print(sys.prefix)"]), format!("{prefix}\n"));
}

#[test]
fn a_script_unsets_variables_and_the_flag_has_the_last_word() {
    let file = format!("{}variables: {{FEATURE_UNSET: \"1\", A: \"1\"}}\n", environment(&["feature-activate"]));
    let env = |name, flags: &[&str]| {
        let config = Layout::build(name, &file, flags).config();
        let env = config["config"]["Env"].as_array().expect("variables").clone();
        env.into_iter().map(|variable| variable.as_str().expect("a text").to_owned()).collect::<Vec<_>>()
    };
    let plain = env("unset", &[]);
    assert!(plain.contains(&"A=1".to_owned()), "{plain:?}");
    assert!(!plain.iter().any(|variable| variable.starts_with("FEATURE_UNSET=")), "{plain:?}");
    let flags = env("unset-flag", &["--env", "FEATURE_UNSET=mine", "--env", "FEATURE_LITERAL=", "--env", "A=b=c"]);
    for expected in ["FEATURE_UNSET=mine", "FEATURE_LITERAL=", "A=b=c"] {
        assert!(flags.contains(&expected.to_owned()), "{flags:?}");
    }
}

#[test]
fn what_needs_a_shell_is_done_by_the_entrypoint() {
    let workspace = Workspace::new();
    let layout = Layout::at(swept().join("dynamic"));
    let built =
        workspace.build(&["feature-activate-dynamic"]).args(["--output", &layout.image()]).output().expect("runs");
    let told = String::from_utf8(built.stderr).expect("UTF-8");
    assert!(built.status.success(), "{told}");
    for part in ["warning: ", "etc/conda/activate.d/feature-activate-dynamic.sh", "docker exec"] {
        assert!(told.contains(part), "{part}: {told}");
    }
    let engine = Engine::shared();
    let image = engine.pull(&layout.image());
    let (line, flags) = (format!("FEATURE_DYNAMIC=found in /{PREFIX}"), ["--user=31337:0"]);
    let printed = succeed(engine.run(&flags).args([&image, "env"]));
    assert!(printed.lines().any(|printed| printed == line), "{printed}");
    // The command is what the container's first process becomes, with its exit status and arguments.
    let printed = succeed(engine.run(&flags).args([&image, "sh", "-c", "echo $$ \"$1\"", "sh", "two  words"]));
    assert_eq!(printed, "1 two  words\n");
    let status = engine.run(&flags).args([&image, "sh", "-c", "exit 7"]).status().expect("runs");
    assert_eq!(status.code(), Some(7));
    // Neither another entrypoint nor `exec` goes through ours.
    let printed = succeed(engine.run(&["--entrypoint=env"]).arg(&image));
    assert!(!printed.contains("FEATURE_DYNAMIC"), "{printed}");
    assert!(!engine.idle(&image).exec(&["env"]).contains("FEATURE_DYNAMIC"));
}

#[test]
fn an_entrypoint_that_the_base_cannot_run_is_warned_of() {
    let workspace = Workspace::new();
    let build = |flags: &[&str]| {
        workspace.file("environment.yml", environment(&["feature-activate-dynamic"]));
        let mut build = workspace.condaimg();
        build.args(["build", "--override-channels", "--base=scratch", "--glibc=2.36", "--channel"]);
        let output = build.arg(crate::common::example_channel()).args(flags).args(["--output", "oci:image:1"]).output();
        let output = output.expect("runs");
        let told = String::from_utf8(output.stderr).expect("UTF-8");
        assert!(output.status.success(), "{told}");
        told.contains("feature-activate-dynamic.sh` of") && told.contains("`--no-activation`")
    };
    assert!(build(&[]));
    assert!(build(&["--entrypoint", "python"]), "another entrypoint comes after activation");
    let entrypoint = Layout::at(workspace.path("image")).config()["config"]["Entrypoint"].clone();
    assert_eq!(entrypoint, json!(["python"]), "what cannot start is left out");
}

/// The lines of `python -v` that tell where code came from: source files, byte code files.
fn code_objects(image: &str) -> (Vec<String>, Vec<String>) {
    let mut podman = Engine::shared().run(&["--user=31337:0"]);
    let output = podman.args([image, "python", "-v", "-c", "import numpy, pandas, flask, ssl"]).output().expect("runs");
    assert!(output.status.success());
    let told = String::from_utf8(output.stderr).expect("UTF-8");
    let lines = told.lines().filter_map(|line| line.strip_prefix("# code object from ")).map(str::to_owned);
    // Byte code is quoted, a source file is not.
    lines.partition(|line| !line.starts_with('\''))
}

#[test]
fn modules_come_from_byte_code() {
    let (compiled_now, byte_code) = code_objects(&image());
    assert_eq!(compiled_now, Vec::<String>::new());
    for module in ["flask/__pycache__/app.", "numpy/__pycache__/__init__.", "pandas/core/__pycache__/frame."] {
        assert!(byte_code.iter().any(|line| line.contains(module)), "{module}: {byte_code:?}");
    }
    // The same look at an image without: the noarch packages are compiled at each start.
    let file = environment(&["python=3.11", "numpy", "pandas", "flask"]);
    let without = Engine::shared().pull(&Layout::build("no-byte-code", &file, &["--bytecode", "off"]).image());
    let (compiled_now, byte_code) = code_objects(&without);
    assert!(compiled_now.iter().any(|line| line.contains("/flask/app.py")), "{compiled_now:?}");
    assert!(byte_code.iter().any(|line| line.contains("numpy/__pycache__/__init__.")), "{byte_code:?}");
}

#[test]
fn flags_land_in_config_and_manifest_and_rule_the_container() {
    let flags = [
        "--user=1234:5678",
        "--entrypoint=[\"python\", \"-c\"]",
        "--cmd='import os; print(os.getcwd(), os.getuid(), os.getgid(), os.environ[\"A\"], os.environ[\"HOME\"])'",
        "--env=A=1",
        "--env=A=2 3",
        "--env=PATH=/opt/conda/envs/default/bin:/usr/bin",
        "--workdir=/tmp/work",
        "--label=team=data",
        "--label=note=a=b c",
        "--annotation=org.opencontainers.image.title=My image",
    ];
    let layout = Layout::build("flags", &environment(&["python=3.11", "click"]), &flags);
    let config = layout.config()["config"].clone();
    assert_eq!(config["User"], "1234:5678");
    assert_eq!(config["Entrypoint"], json!(["python", "-c"]));
    assert_eq!(config["Cmd"].as_array().map(Vec::len), Some(1));
    assert_eq!(config["WorkingDir"], "/tmp/work");
    assert_eq!((&config["Labels"]["team"], &config["Labels"]["note"]), (&json!("data"), &json!("a=b c")));
    assert_eq!(config["Labels"]["org.opencontainers.image.title"], json!(null));
    let annotations = layout.manifest()["annotations"].clone();
    assert_eq!(
        (&annotations["org.opencontainers.image.title"], &annotations["team"]),
        (&json!("My image"), &json!(null))
    );
    for ours in ["dev.condaimg.lock", "dev.condaimg.layout-version"] {
        assert!(annotations[ours].is_string() && config["Labels"][ours] == annotations[ours], "{ours}");
    }
    // The layers do not depend on flags, but for the environment layer, which has the user's passwd line.
    let (ours, plain) = (layout.layers(), small().layers());
    assert_eq!(ours[..ours.len() - 1], plain[..plain.len() - 1]);
    assert_ne!(ours.last(), plain.last());

    let engine = Engine::shared();
    let image = engine.pull(&layout.image());
    let mut podman = engine.podman();
    podman.args(["run", "--rm", "--network=none", "--cgroups=enabled", &image]);
    assert_eq!(succeed(&mut podman), "/tmp/work 1234 5678 2 3 /home/conda\n");
}

#[test]
fn the_bases_own_user_stays_and_its_command_goes() {
    let workspace = Workspace::new();
    let base = format!("oci:{}:1", workspace.path("base").display());
    crate::common::images::skopeo(&["copy", &format!("oci:{}:debian", example_base().display()), &base]);
    let mut umoci = crate::common::program("umoci", "umoci");
    umoci.args(["config", "--image", base.trim_start_matches("oci:")]);
    umoci.args(["--config.user=www:www", "--config.cmd=sh", "--config.env=LANG=C.UTF-8", "--config.label=from=base"]);
    succeed(&mut umoci);
    let build = |base: &str| {
        let output = format!("oci:{}:1", workspace.path("image").display());
        workspace.file("environment.yml", environment(&["feature-activate"]));
        let mut build: Command = workspace.condaimg();
        build.env("CONDAIMG_CACHE_DIR", shared_cache());
        build.args(["build", "--override-channels", "--base", base, "--output", &output, "--channel"]);
        let told = build.arg(crate::common::example_channel()).output().expect("runs");
        let told = String::from_utf8(told.stderr).expect("UTF-8");
        (Layout::at(workspace.path("image")).config()["config"].clone(), told)
    };
    // The example base knows no such user: it cannot be made a number, and that is said.
    let (config, told) = build(&base);
    assert!(told.contains("`www:www`"), "{told}");
    assert_eq!(config["User"], "1000:0");
    assert_eq!((&config["Cmd"], &config["Labels"]["from"]), (&json!(null), &json!("base")));
    assert_eq!(config["Env"][1], "LANG=C.UTF-8", "{config}");

    let mut umoci = crate::common::program("umoci", "umoci");
    umoci.args(["config", "--image", base.trim_start_matches("oci:"), "--config.user=nobody"]);
    succeed(&mut umoci);
    assert_eq!(build(&base).0["User"], "65534:65534");
}
