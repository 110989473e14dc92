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
        ("CONDAIMG_KEEP_HOME_MODE", "--keep-home-mode"),
        ("CONDAIMG_KEEP_SETUID", "--keep-setuid"),
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

#[test]
fn wrong_values_are_refused_by_variable() {
    let workspace = workspace();
    for (name, flag) in [
        ("CONDAIMG_JOBS", "--jobs"),
        ("CONDAIMG_CHANNEL_PRIORITY", "--channel-priority"),
        ("CONDAIMG_MAX_LAYERS", "--max-layers"),
        ("CONDAIMG_PROGRESS", "--progress"),
        ("CONDAIMG_INDEX_STRATEGY", "--index-strategy"),
        ("CONDAIMG_UPLOAD_CHUNK_SIZE", "--upload-chunk-size"),
    ] {
        let told = fail(build(&workspace).env(name, "maybe"), 2);
        assert!(told.contains(&format!("`{name}`")) && told.contains(flag) && told.contains("maybe"), "{told}");
    }
    // The flag's own value is none of a variable.
    let told = fail(build(&workspace).env("CONDAIMG_JOBS", "2").args(["--jobs", "maybe"]), 2);
    assert!(!told.contains("CONDAIMG_JOBS"), "{told}");
    let told = fail(workspace.condaimg().args(["cache", "prune"]).env("CONDAIMG_OLDER_THAN", "maybe"), 2);
    assert!(told.contains("`CONDAIMG_OLDER_THAN`"), "{told}");
}

#[test]
fn flags_come_before_variables_they_exclude() {
    let workspace = workspace();
    succeed(build(&workspace).env("CONDAIMG_FROM", "127.0.0.1:9/team/base:1"));
    succeed(build(&workspace).arg("--frozen").env("CONDAIMG_LOCKED", "1"));
    succeed(build(&workspace).arg("--locked").envs([("CONDAIMG_REFRESH_STABILITY", "1"), ("CONDAIMG_FROZEN", "1")]));
    succeed(build(&workspace).arg("environment.yml").env("CONDAIMG_FILE", "nowhere.yml"));
    succeed(build(&workspace).args(["--file", "environment.yml"]).env("CONDAIMG_PATH", "nowhere.yml"));
    let mut extending = workspace.condaimg();
    extending.args(["build", "--from", "oci:nowhere"]).env("CONDAIMG_BASE", "scratch");
    assert!(fail(&mut extending, 1).contains("oci:nowhere"));
    // Before a subcommand of a subcommand, too.
    succeed(build(&workspace).args(["--output", "oci:o:1"]));
    let mut prune = workspace.condaimg();
    succeed(prune.args(["cache", "prune", "--layout", "oci:o"]).env("CONDAIMG_MAX_SIZE", "1G"));
}

#[test]
fn variables_that_exclude_each_other_are_named() {
    let workspace = workspace();
    for (one, other) in [
        (("CONDAIMG_BASE", "scratch"), ("CONDAIMG_FROM", "oci:nowhere")),
        (("CONDAIMG_LOCKED", "1"), ("CONDAIMG_FROZEN", "yes")),
        (("CONDAIMG_PUSH", "1"), ("CONDAIMG_OFFLINE", "1")),
    ] {
        let told = fail(workspace.condaimg().arg("build").envs([one, other]), 2);
        assert!(told.contains(one.0) && told.contains(other.0), "{told}");
    }
    // Two flags are told as flags.
    let told = fail(build(&workspace).args(["--from", "x"]), 2);
    assert!(told.contains("--from") && !told.contains("CONDAIMG"), "{told}");
}

#[test]
fn variable_that_outdoes_from_is_named() {
    let workspace = workspace();
    workspace.file("condaimg.yaml", "environment: environment.yml\nfrom: oci:nowhere\n");
    let mut build = workspace.condaimg();
    build.args(["build", "--glibc", "2.36", "--override-channels", "--channel"]).arg(workspace.path("channel"));
    let told = String::from_utf8(run_output(build.env("CONDAIMG_BASE", "scratch")).stderr).expect("UTF-8");
    assert!(told.contains("`CONDAIMG_BASE`") && told.contains("`from: oci:nowhere`"), "{told}");
}
