//! Flags that are given by environment variables, `CONDAIMG_<FLAG>`.

use crate::common::packages::{Channel, Format, Package};
use crate::common::{Workspace, environment, fail, run_output, succeed};

fn workspace() -> Workspace {
    let workspace = Workspace::new();
    let mut channel = Channel::new(workspace.path("channel"));
    channel.add(&Package::new("app", "1.0").file("share/app", "x"), Format::Conda);
    channel.index();
    workspace.file("environment.yml", environment(&["app"]));
    workspace
}

fn build(workspace: &Workspace) -> std::process::Command {
    let mut build = workspace.condaimg();
    build.args(["build", "--base", "scratch", "--glibc", "2.36", "--channel"]).arg(workspace.path("channel"));
    build.env("CONDAIMG_OVERRIDE_CHANNELS", "1");
    build
}

#[test]
fn switches_are_true_for_all_that_people_write() {
    let workspace = workspace();
    for value in ["1", "true", "TRUE", "yes", "on"] {
        // Without a lock, this is an error if it is heard.
        let told = fail(build(&workspace).env("CONDAIMG_LOCKED", value), 1);
        assert!(told.contains("condaimg.lock"), "{value}: {told}");
    }
    for value in ["0", "false", "no", "off", ""] {
        let mut build = build(&workspace);
        // What is false does not stand in the way of what conflicts with it.
        build.envs([("CONDAIMG_LOCKED", value), ("CONDAIMG_PUSH", value), ("CONDAIMG_VERBOSE", value)]);
        succeed(build.arg("--offline"));
        fs_err::remove_file(workspace.path("condaimg.lock")).expect("a lock");
    }
    let told = String::from_utf8(run_output(build(&workspace).env("CONDAIMG_QUIET", "yes")).stderr).expect("UTF-8");
    assert_eq!(told, "");
}

#[test]
fn switches_that_are_neither_are_refused_by_name() {
    let workspace = workspace();
    for (name, flag) in [
        ("CONDAIMG_PUSH", "--push"),
        ("CONDAIMG_NO_CACHE", "--no-cache"),
        ("CONDAIMG_NO_ACTIVATION", "--no-activation"),
        ("CONDAIMG_GROUP_WRITE", "--group-write"),
        ("CONDAIMG_QUIET", "--quiet"),
        ("CONDAIMG_VERBOSE", "--verbose"),
    ] {
        let told = fail(build(&workspace).env(name, "maybe"), 2);
        assert!(told.contains(name) && told.contains(flag) && told.contains("`maybe`"), "{told}");
    }
    // A flag of another command does not matter.
    succeed(workspace.condaimg().args(["cache", "dir"]).env("CONDAIMG_PUSH", "maybe"));
}

#[test]
fn empty_variables_are_as_good_as_none() {
    let workspace = workspace();
    let empty =
        ["CONDAIMG_USER", "CONDAIMG_TAG", "CONDAIMG_WORKDIR", "CONDAIMG_FROM", "CONDAIMG_FILE", "CONDAIMG_JOBS"];
    succeed(build(&workspace).envs(empty.map(|name| (name, ""))));
}
