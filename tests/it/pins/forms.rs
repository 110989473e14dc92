//! The forms in which conda and conda-lock write what others forms have, too: lists of packages, URLs with escapes, commits.

use std::process::Command;

use super::{Bench, keys, notices, wheels};
use crate::common::file_server::FileServer;
use crate::common::packages::{Channel, Format, Package};
use crate::common::pypi::{Repository, project};
use crate::common::{Workspace, environment, fail, program, succeed};

/// As `conda list --export` and `conda export --format requirements` begin.
const HEADER: &str = "# This file may be used to create an environment using:\n# $ conda create --name <env> --file <this file>\n# platform: linux-64\n# created-by: conda 25.7.0\n";

#[test]
fn lists_of_conda_build_the_same_layers() {
    let bench = Bench::new();
    let (_, expected) = bench.built("environment.yml");
    let url = |subdir: &str, name: &str| format!("{}/{subdir}/{name}\n", bench.url());
    let urls = [
        url("linux-64", "app-1.0-0.conda"),
        url("linux-64", "lib-1.2-h1_3.tar.bz2"),
        url("noarch", "tool-2.0-0.conda"),
    ];
    let note = "# Note: This is a conda requirements file (MatchSpec format)\n# Contains conda package specifications, not pip requirements\n\n";
    for (name, text) in [
        ("list.txt", format!("{HEADER}app=1.0=0\nlib=1.2=h1_3\ntool=2.0=0\n")),
        ("requirements.txt", format!("{HEADER}{note}app==1.0\nlib[version='>=1']")),
        ("spec-file", "# what it takes\napp=1\ntool >=1,<3  # by hand\n".to_owned()),
        ("table.txt", "# packages in environment at /opt/conda:\n#\n# Name     Version    Build  Channel\napp        1.0        0\nlib        1.2     h1_3\ntool       2.0        0\n".to_owned()),
        ("urls.txt", urls.concat()),
        ("urls", format!("# platform: linux-64\n{}", urls.concat())),
        ("environment.json", "{\n  \"name\": \"test\",\n  \"channels\": [],\n  \"dependencies\": [\n    \"app=1\"\n  ]\n}".to_owned()),
    ] {
        bench.workspace.file(name, text);
        let _ = fs_err::remove_dir_all(bench.workspace.path("out"));
        let mut build = bench.condaimg("build");
        if !name.starts_with("urls") {
            build.args(["--channel", &bench.url()]);
        }
        succeed(build.args([name, "--output", "oci:out"]));
        let keys = keys(&bench.workspace.path("out"));
        // The history in the environment's layer says what was asked for.
        assert_eq!(keys[..keys.len() - 1], expected[..expected.len() - 1], "{name}");
    }
}

#[test]
fn lists_of_conda_and_pip_are_not_mixed() {
    let bench = Bench::new();
    let lock = || {
        let mut lock = bench.condaimg("lock");
        lock.args(["requirements.txt", "--channel", &bench.url()]);
        lock
    };
    bench.workspace.file("requirements.txt", "requests==2.31.0\napp=1.0\n");
    let message = fail(&mut lock(), 1);
    assert!(message.contains("`app=1.0` (line 2)") && message.contains("`requests==2.31.0` (line 1)"), "{message}");
    bench.workspace.file("requirements.txt", format!("{HEADER}app=1.0\nlib=1==2\n"));
    let message = fail(&mut lock(), 1);
    assert!(message.contains("requirements.txt:6") && message.contains("`lib=1==2`"), "{message}");
    bench.workspace.file("requirements.txt", format!("{HEADER}app=1.0\nnone=1.0\n"));
    let message = fail(&mut lock(), 1);
    assert!(message.contains("requirements.txt:6") && message.contains("`none`"), "{message}");
    bench.workspace.file("requirements.txt", format!("{HEADER}app=1.0\n"));
    let message = fail(lock().args(["--python", "3.11"]), 2);
    assert!(message.contains("`--python 3.11`"), "{message}");
}

#[test]
fn escapes_in_urls_mean_nothing() {
    let workspace = Workspace::new();
    let mut channel = Channel::new(workspace.path("served/channel"));
    channel.add(&Package::new("app", "1.0").depends(&["x264", "torch"]).file("share/app", "app"), Format::Conda);
    channel.add(&Package::new("x264", "1!164.3095").file("lib/x264", "x264"), Format::Conda);
    channel.add(&Package::new("torch", "2.0+cu118").file("lib/torch", "torch"), Format::TarBz2);
    channel.index();
    let server = FileServer::start(workspace.path("served"));
    let url = format!("{}/channel", server.url);
    workspace.file("environment.yml", environment(&["app"]).replace("conda-forge", &url));
    let condaimg = |command: &str| -> Command {
        let mut program = workspace.condaimg();
        program.args([command, "--base", "scratch", "--glibc", "2.36"]);
        program
    };
    let built = |words: &[&str]| {
        let _ = fs_err::remove_dir_all(workspace.path("out"));
        let _ = fs_err::remove_dir_all(workspace.path("cache"));
        let digest = succeed(condaimg("build").args(words).args(["--output", "oci:out"]));
        (digest, keys(&workspace.path("out")))
    };
    let (digest, expected) = built(&["environment.yml"]);
    let escaped = |text: &str| {
        let escaped = text.replace("x264-1!164", "x264-1%21164").replace("torch-2.0+cu", "torch-2.0%2bcu");
        assert!(escaped.contains("%21164") && escaped.contains("%2bcu"), "{text}");
        escaped
    };
    for (form, file, lock) in [
        ("explicit", "explicit.txt", "explicit.condaimg.lock"),
        ("conda-lock", "conda-lock.yml", "conda-lock.condaimg.lock"),
        ("pixi", "pixi.lock", "pixi.condaimg.lock"),
    ] {
        let text = succeed(condaimg("lock").args(["environment.yml", "--export", form]));
        workspace.file(file, escaped(&text));
        let (_, keys) = built(&[file]);
        assert_eq!(keys[..keys.len() - 1], expected[..expected.len() - 1], "{form}");
        // The way back out, and in again.
        let again = succeed(condaimg("lock").args([file, "--export", form]));
        assert!(again.contains("x264-1!164") && again.contains("torch-2.0+cu") && !again.contains("%21"), "{again}");
        fs_err::remove_file(workspace.path(lock)).expect("removes");
        workspace.file(file, &text);
        succeed(condaimg("lock").arg(file));
        workspace.file(file, escaped(&text));
        succeed(condaimg("lock").args([file, "--check"]));
    }
    let lock = fs_err::read_to_string(workspace.path("condaimg.lock")).expect("a lock");
    workspace.file("condaimg.lock", escaped(&lock));
    assert_eq!(built(&["environment.yml", "--locked"]).0, digest);
}

#[test]
fn wheels_of_an_epoch_are_read_in_all_forms() {
    let mut bench = wheels::Bench::new();
    bench.index.add(&wheels::module("epoch", "1!2.0"));
    bench.lock(&["epoch"]);
    let expected = bench.built("environment.yml");
    for (form, file) in [("pixi", "pixi.lock"), ("conda-lock", "conda-lock.yml"), ("explicit", "explicit.txt")] {
        let text = bench.export("environment.yml", form);
        for (from, to) in [("1!2.0-py3", "1%212.0-py3"), ("1%212.0-py3", "1!2.0-py3")] {
            bench.workspace.file(file, text.replace(from, to));
            let made = bench.built(file);
            if form != "explicit" {
                assert_eq!(made[..made.len() - 1], expected[..expected.len() - 1], "{file} with {to}");
            }
        }
    }
}

/// conda-lock keeps the commit of a repository where the digest of a file would be.
#[test]
fn conda_lock_repositories_are_built() {
    let _ = program("uv", "uv (pip install uv)");
    let bench = wheels::Bench::new();
    let repository = Repository::new(bench.workspace.path("work"), &bench.workspace.path("served"), "tool");
    project(&repository.work, "tool", "1.5", &[], "first");
    let commit = repository.commit(Some("v1"));
    project(&repository.work, "tool", "1.5", &[], "second");
    let later = repository.commit(None);
    bench.lock(&["lib"]);
    let text = bench.export("environment.yml", "conda-lock");
    let url = format!("git+{}/tool.git", bench.index.server.url);
    let entry = |url: &str, hash: &str| {
        format!(
            "{text}- name: tool\n  version: 1.5\n  manager: pip\n  platform: linux-64\n  dependencies: {{}}\n  url: {url}\n  hash:\n    sha256: {hash}\n  source:\n    type: url\n    url: {url}\n  category: main\n  optional: false\n"
        )
    };
    for url in [format!("{url}@{commit}"), url.clone()] {
        bench.workspace.file("conda-lock.yml", entry(&url, &commit));
        let message = fail(bench.run("lock").args(["conda-lock.yml", "--lock-file", "x.lock"]), 1);
        assert!(message.contains("--allow-build"), "{message}");
        succeed(bench.run("lock").args(["conda-lock.yml", "--lock-file", "x.lock", "--allow-build"]));
        let lock = fs_err::read_to_string(bench.workspace.path("x.lock")).expect("a lock");
        assert!(lock.contains(&commit) && !lock.contains(&later), "{lock}");
        let told = notices(bench.run("lock").args(["conda-lock.yml", "--lock-file", "x.lock", "--check"]));
        assert!(!told.contains("stale"), "{told}");
        fs_err::remove_file(bench.workspace.path("x.lock")).expect("removes");
    }
    bench.workspace.file("conda-lock.yml", entry(&format!("{url}@{commit}"), &later));
    let message = fail(bench.run("lock").args(["conda-lock.yml", "--allow-build"]), 1);
    assert!(message.contains("`tool`") && message.contains(&commit) && message.contains(&later), "{message}");
}
