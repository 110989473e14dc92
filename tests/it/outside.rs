//! Nothing leaves the context, nothing escapes the prefix, and no variable goes where it must not.

use std::os::unix::fs::symlink;
use std::process::Command;

use serde_json::json;

use crate::common::file_server::FileServer;
use crate::common::packages::{Channel, Format, Package};
use crate::common::tree::Image;
use crate::common::{Workspace, environment, fail, run_output, succeed};

/// What must not be read, said or sent.
const SECRET: &str = "hush-hush-1";

/// A project in a git work tree, `project/`, with things beside it that are not its own.
struct Bench {
    workspace: Workspace,
    channel: Channel,
}

impl Bench {
    fn new() -> Self {
        let workspace = Workspace::new();
        let tool = Package::new("tool", "1.0").file("share/tool/data", "data");
        let channel = Channel::of(workspace.path("project/channel"), [&tool]);
        workspace.file("project/.git/HEAD", "ref: refs/heads/main\n");
        workspace.file("project/src/app.py", "");
        workspace.file("project/environment.yml", environment(&["tool"]));
        for name in ["creds/token", "policy.yaml", "requirements.txt", "wheels/readme", "rootfs/etc/passwd"] {
            workspace.file(name, format!("{SECRET}\n"));
        }
        workspace.file("other/environment.yml", format!("dependencies: [{SECRET}]\n"));
        workspace.file("package/pyproject.toml", SECRET);
        Self { workspace, channel }
    }

    /// `condaimg COMMAND` in the project.
    fn run(&self, command: &str, flags: &[&str]) -> Command {
        let mut program = self.workspace.condaimg();
        program.current_dir(self.workspace.path("project"));
        program.arg(command).args(["--override-channels", "--channel"]).arg(&self.channel.folder);
        program.args(["--glibc", "2.36"]).args(flags);
        program
    }

    fn link(&self, target: &str, name: &str) {
        symlink(target, self.workspace.path(&format!("project/{name}"))).expect("links");
    }
}

const DEPENDENCIES: &str = "dependencies: [tool]\n";

#[test]
fn project_file_names_nothing_outside() {
    let bench = Bench::new();
    bench.link("../creds", "linked");
    bench.link("../requirements.txt", "linked.txt");
    bench.link("..", "above");
    let etc = "/etc/hostname".to_owned();
    for (text, named) in [
        (format!("{DEPENDENCIES}project: [{{from: ../creds, to: /app}}]\n"), "../creds"),
        (format!("{DEPENDENCIES}project: [{{from: {etc}, to: /app/}}]\n"), &*etc),
        (format!("{DEPENDENCIES}project: [{{from: linked, to: /app}}]\n"), "linked"),
        (format!("{DEPENDENCIES}project: [{{from: above/creds, to: /app}}]\n"), "above/creds"),
        (format!("{DEPENDENCIES}project: [{{install: ../package}}]\n"), "../package"),
        (format!("{DEPENDENCIES}layers: ../policy.yaml\n"), "../policy.yaml"),
        (format!("{DEPENDENCIES}base: rootfs:../rootfs\n"), "../rootfs"),
        (format!("{DEPENDENCIES}base: oci-archive:above/creds/token\n"), "above/creds/token"),
        ("environment: ../other/environment.yml\n".to_owned(), "../other/environment.yml"),
        ("dependencies: [tool, {pip: [-r ../requirements.txt]}]\n".to_owned(), "../requirements.txt"),
        ("dependencies: [tool, {pip: [-c linked.txt]}]\n".to_owned(), "linked.txt"),
        ("dependencies: [tool, {pip: [../package]}]\n".to_owned(), "package"),
        ("dependencies: [tool, {pip: ['x @ file:///etc/x-1-py3-none-any.whl']}]\n".to_owned(), "/etc/x-1"),
        ("dependencies: [tool, {pip: [--find-links ../wheels, x]}]\n".to_owned(), "../wheels"),
        ("dependencies: [tool, {pip: ['--index-url file:///etc', x]}]\n".to_owned(), "/etc"),
    ] {
        bench.workspace.file("project/condaimg.yaml", &text);
        let flags: &[&str] = if text.contains("base:") { &[] } else { &["--base", "scratch"] };
        let said = fail(&mut bench.run("build", flags), 1);
        assert!(said.contains("outside of the project") && said.contains(named), "{text}: {said}");
        assert!(said.contains("condaimg.yaml:") && !said.contains(SECRET), "{text}: {said}");
    }
    // Neither does the file itself lead out.
    fs_err::remove_file(bench.workspace.path("project/condaimg.yaml")).expect("removes");
    bench.link("../other/environment.yml", "condaimg.yaml");
    let said = fail(&mut bench.run("build", &["--base", "scratch"]), 1);
    assert!(said.contains("outside of the project") && !said.contains(SECRET), "{said}");
}

#[test]
fn flag_leaves_the_project_and_its_links_do_not() {
    let bench = Bench::new();
    bench.link("../creds", "linked");
    bench.link("src", "inner");
    let build = |copy: &str| bench.run("build", &["--base", "scratch", "--copy", copy]);
    for (copy, file) in [("../creds:/app", "app/token"), ("inner:/app", "app/app.py")] {
        succeed(&mut build(copy));
        let image = Image::read(&bench.workspace.path("project/image"));
        assert!(image.tree().contains_key(file), "{copy}");
    }
    for copy in ["linked:/app", "linked/token:/app", "../project/linked:/app"] {
        let said = fail(&mut build(copy), 1);
        assert!(said.contains("linked") && said.contains("out of the project"), "{copy}: {said}");
        assert!(said.contains(&*bench.workspace.path("creds").to_string_lossy()), "{said}");
    }
    // What a flag names, the file may name badly: it does not count.
    bench.workspace.file("project/condaimg.yaml", format!("{DEPENDENCIES}base: rootfs:../rootfs\n"));
    succeed(&mut bench.run("build", &["--base", "scratch"]));
}

#[test]
fn site_packages_outside_of_prefix_are_refused() {
    let mut bench = Bench::new();
    bench.channel.add(&Package::new("python", "3.11.2").file("bin/python3.11", ""), Format::Conda);
    let module = Package::new("module", "1.0").noarch_python().file("site-packages/m.py", "");
    bench.channel.add(&module.depends(&["python"]), Format::Conda);
    bench.workspace.file("project/environment.yml", environment(&["module"]));
    for path in ["../../../etc", "/etc/cron.d", "lib/../../x", "conda-meta", "lib/.wh.x", "lib//x", ""] {
        bench.channel.change("python", |record| record["python_site_packages_path"] = json!(path));
        bench.channel.index();
        let said = fail(&mut bench.run("build", &["--base", "scratch", "--bytecode", "off"]), 1);
        assert!(said.contains("`python_site_packages_path`") && said.contains("`python-3.11.2-0`"), "{path}: {said}");
    }
    bench.channel.change("python", |record| record["python_site_packages_path"] = json!("lib/python3.11t/site"));
    bench.channel.index();
    succeed(&mut bench.run("build", &["--base", "scratch", "--bytecode", "off"]));
    let image = Image::read(&bench.workspace.path("project/image"));
    assert!(image.tree().keys().any(|path| path.ends_with("default/lib/python3.11t/site/m.py")));
}

#[test]
fn loader_variables_are_told_with_their_package() {
    let mut bench = Bench::new();
    let json =
        r#"{"LD_PRELOAD": "/x.so", "LD_LIBRARY_PATH": "/x", "PATH": "/evil", "CONDA_PREFIX": "/evil", "FINE": 1}"#;
    bench.channel.add(&Package::new("vars", "1.0").file("etc/conda/env_vars.d/vars.json", json), Format::Conda);
    let script = Package::new("script", "1.0").file("etc/conda/activate.d/s.sh", "export LD_AUDIT=/x.so\n");
    bench.channel.add(&script, Format::Conda);
    bench.channel.index();
    bench.workspace.file("project/environment.yml", environment(&["vars", "script"]));
    let output = run_output(&mut bench.run("build", &["--base", "scratch"]));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    for (name, package) in [
        ("LD_PRELOAD", "vars-1.0-0"),
        ("LD_LIBRARY_PATH", "vars-1.0-0"),
        ("PATH", "vars-1.0-0"),
        ("CONDA_PREFIX", "vars-1.0-0"),
        ("LD_AUDIT", "script-1.0-0"),
    ] {
        let is_told = |line: &str| line.contains(&format!("`{name}`")) && line.contains(&format!("`{package}`"));
        assert!(said.lines().any(is_told), "{name}: {said}");
    }
    assert!(!said.contains("`FINE`"), "{said}");
}

/// Variables that never expand, wherever a file names them: nothing is asked, nothing is said.
#[test]
fn secrets_of_the_builder_never_expand() {
    let bench = Bench::new();
    let server = FileServer::start(bench.workspace.path("served"));
    let host = server.host().to_owned();
    for name in ["CONDAIMG_REGISTRY_PASSWORD", "DOCKER_AUTH_CONFIG", "COSIGN_PASSWORD", "ACTIONS_RUNTIME_TOKEN"] {
        for text in [
            format!("dependencies: [tool, {{pip: ['--index-url http://me:${{{name}}}@{host}/simple', x]}}]\n"),
            format!("dependencies: [tool, {{pip: ['x @ http://${{{name}}}@{host}/x-1-py3-none-any.whl']}}]\n"),
            format!("dependencies: [tool, {{pip: ['git+http://${{{name}}}@{host}/x.git']}}]\n"),
            format!("channels: ['http://me:${{{name}}}@{host}/c']\ndependencies: [tool]\n"),
            format!("channels: ['http://{host}/t/${name}/c']\ndependencies: [tool]\n"),
        ] {
            bench.workspace.file("project/environment.yml", &text);
            let mut lock = bench.workspace.condaimg();
            lock.current_dir(bench.workspace.path("project"));
            lock.args(["lock", "-vv", "--allow-build", "--base", "scratch", "--glibc", "2.36"]).env(name, SECRET);
            let said = fail(&mut lock, 1);
            assert!(said.contains(&format!("`{name}`")) && !said.contains(SECRET), "{text}: {said}");
        }
    }
    assert!(server.seen("/").is_empty(), "{:?}", server.seen("/"));
}

#[test]
fn expand_env_is_the_whole_list() {
    let bench = Bench::new();
    let server = FileServer::start(bench.channel.folder.clone());
    let (host, port) = ("127.0.0.1", server.port());
    let channel = format!("http://me:${{CHANNEL_WORD}}@{host}:{port}/");
    bench.workspace.file("project/environment.yml", format!("channels: ['{channel}']\n{DEPENDENCIES}"));
    let lock = |flags: &[&str], variable: &str| {
        let mut lock = bench.workspace.condaimg();
        lock.current_dir(bench.workspace.path("project")).env("CHANNEL_WORD", "word");
        lock.args(["lock", "--base", "scratch", "--glibc", "2.36"]).args(flags);
        if !variable.is_empty() {
            lock.env("CONDAIMG_EXPAND_ENV", variable);
        }
        lock
    };
    let exact = format!("CHANNEL_WORD@{host}:{port}");
    let plain = format!("CHANNEL_WORD@{host}");
    for (flags, variable) in [
        (vec![], ""),
        (vec!["--expand-env", &*exact], ""),
        (vec!["--expand-env", "OTHER@x.example", "--expand-env", &*plain], ""),
        (vec![], &*exact),
    ] {
        succeed(&mut lock(&flags, variable));
    }
    let before = server.seen("/").len();
    for (flags, variable) in [
        (vec!["--expand-env", "CHANNEL_WORD@other.example"], ""),
        (vec!["--expand-env", "OTHER@127.0.0.1"], ""),
        (vec![], "CHANNEL_WORD@127.0.0.1:1"),
        (vec!["--expand-env", "OTHER@127.0.0.1"], &*exact),
    ] {
        let said = fail(&mut lock(&[&flags[..], &["--upgrade"]].concat(), variable), 1);
        assert!(said.contains("`CHANNEL_WORD`") && said.contains("--expand-env"), "{flags:?}: {said}");
    }
    assert_eq!(server.seen("/").len(), before, "nothing is asked");
    let said = fail(&mut lock(&["--expand-env", "CONDAIMG_REGISTRY_PASSWORD@x.example"], ""), 2);
    assert!(said.contains("--expand-env") && said.contains("CONDAIMG_REGISTRY_PASSWORD"), "{said}");
    // The project's file does not say it.
    bench.workspace.file("project/condaimg.yaml", format!("{DEPENDENCIES}expand-env: ['{exact}']\n"));
    assert!(fail(&mut lock(&[], ""), 1).contains("`expand-env:` is no key"));
}

#[test]
fn credentials_in_references_are_not_echoed() {
    let bench = Bench::new();
    let reference = format!("me:{SECRET}@127.0.0.1:1/team/env:1");
    let build = |flags: &[&str]| bench.run("build", &[&["--base", "scratch"][..], flags].concat());
    let layout = "image";
    let mut commands = vec![
        build(&["--tag", &reference]),
        build(&["-t", &format!("https://{reference}"), "--push"]),
        build(&["--tag", &reference, "--progress", "json"]),
        build(&["--tag", &reference, "-vv"]),
        build(&["--cache-registry", &reference]),
        bench.run("build", &["--base", &reference]),
        bench.run("lock", &["--from", &reference]),
    ];
    for words in
        [vec!["push", layout, &reference], vec!["copy", &reference, "oci:x"], vec!["copy", "oci:x", &reference]]
    {
        let mut command = bench.workspace.condaimg();
        command.args(words);
        commands.push(command);
    }
    for mut command in commands {
        let output = command.output().expect("runs");
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert_eq!(output.status.code(), Some(2), "{command:?}: {said}");
        assert!(!said.contains(SECRET), "{command:?}: {said}");
        assert!(said.contains("CONDAIMG_REGISTRY_PASSWORD"), "{command:?}: {said}");
    }
}
