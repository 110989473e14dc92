//! Channels that are missing, broken, or have a secret in their URL.

use std::path::Path;
use std::process::Command;

use super::{Bench, unfinished};
use crate::common::file_server::{FaultKind, FileServer};
use crate::common::packages::file_url;
use crate::common::registry::free_port;
use crate::common::{environment, succeed};

impl Bench {
    /// `condaimg build` with this channel alone.
    fn build_from(&self, channel: &str) -> Command {
        let mut command = self.workspace.condaimg();
        command.args(["build", "--override-channels", "--base", "scratch", "--glibc", "2.36", "--channel", channel]);
        command
    }
}

#[test]
fn channels_that_cannot_be_read_are_named() {
    let bench = Bench::new();
    bench.workspace.file("environment.yml", environment(&["fine"]));
    fs_err::create_dir_all(bench.workspace.path("empty")).expect("a folder");
    let server = FileServer::start(bench.workspace.path(""));
    let url = |path: &str| format!("{}/{path}", server.url);
    let nobody = format!("http://127.0.0.1:{}/channel", free_port());
    bench.refuses(&mut bench.build_from("./none"), 1, &["/none/` is not there", "there is no folder"]);
    bench.refuses(&mut bench.build_from("./empty"), 1, &["/empty/` is no channel", "noarch/repodata.json"]);
    bench.refuses(&mut bench.build_from(&url("none")), 1, &["there is no channel `http://127", "is the name right?"]);
    bench.refuses(&mut bench.build_from(&nobody), 1, &[&format!("`{nobody}/` cannot be read"), "onnection refused"]);
    bench.refuses(&mut bench.build_from("s3://bucket/x"), 1, &["`s3://bucket/x` is no channel"]);
    server.fault("/channel/", 20, FaultKind::Status(503));
    bench.refuses(&mut bench.build_from(&url("channel")), 1, &["/channel/` cannot be read", "503"]);
    assert!(!bench.workspace.path("condaimg.lock").exists());
    bench.recovers(&["fine"]);
}

#[test]
fn an_index_that_is_broken_is_named() {
    let bench = Bench::new();
    bench.workspace.file("environment.yml", environment(&["fine"]));
    let index = bench.workspace.path("channel/linux-64/repodata.json");
    let whole = fs_err::read(&index).expect("reads");
    let server = FileServer::start(bench.workspace.path(""));
    for damaged in [&whole[..whole.len() / 2], b"", b"[]", b"<html>", br#"{"packages": 1}"#] {
        fs_err::write(&index, damaged).expect("writes");
        let folder = file_url(&bench.workspace.path("channel"));
        for channel in [folder, format!("{}/channel/", server.url)] {
            let says = [format!("`{channel}`"), "repodata".to_owned()];
            bench.refuses(&mut bench.build_from(&channel), 1, &says.each_ref().map(String::as_str));
        }
    }
    fs_err::write(&index, &whole).expect("writes");
    // The server's broken index must not live on in the cache.
    succeed(bench.build_from(&format!("{}/channel", server.url)).args(["--output", "oci:served"]));
    bench.recovers(&["fine"]);
}

/// What nobody may see: password and token, as written and as they are sent.
const SECRETS: [&str; 3] = ["s3cr3t-pa55", "bWU6czNjcjN0LXBhNTU=", "tk-8f2e77d1"];

#[test]
fn secrets_in_channel_urls_stay_out_of_everything() {
    let bench = Bench::new();
    let channel = bench.workspace.path("channel");
    let tokened = bench.workspace.path("served/t/tk-8f2e77d1/channel");
    copy_folder(&channel, &tokened);
    copy_folder(&channel, &bench.workspace.path("served/channel"));

    let server = FileServer::start(bench.workspace.path("served"));
    server.require("Basic bWU6czNjcjN0LXBhNTU=");
    let url = server.url.replace("http://", "http://me:s3cr3t-pa55@") + "/channel";
    no_secret_is_told(&bench, &url, "password");

    let server = FileServer::start(bench.workspace.path("served"));
    let url = server.url + "/t/tk-8f2e77d1/channel";
    fs_err::remove_dir_all(bench.workspace.path("served/channel")).expect("only the token leads to it");
    no_secret_is_told(&bench, &url, "token");
}

/// Builds from a channel with a secret in its URL, given in every way, with success and without.
fn no_secret_is_told(bench: &Bench, url: &str, name: &str) {
    let folder = bench.workspace.path(name);
    let dependency = |package: &str| format!("dependencies: [\"{url}::{package}\"]\n");
    let channels = |package: &str| format!("channels: [\"{url}\"]\ndependencies: [{package}]\n");
    let mut said = String::new();
    let mut run = |spec: &str, flags: &[&str], status: i32| {
        let spec = bench.workspace.file("secret/environment.yml", spec);
        let mut command = bench.workspace.condaimg();
        command
            .args(["build", "-v", "--base", "scratch", "--glibc", "2.36"])
            .arg("--lock-file")
            .arg(folder.join("lock"));
        command.arg(spec).args(flags).env("CONDAIMG_CACHE_DIR", folder.join("cache"));
        command.args(["--output", &format!("oci:{name}/image")]);
        command.args(["--metadata-file", &format!("{name}/metadata")]);
        let output = command.output().expect("runs");
        let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).expect("UTF-8")).concat();
        assert_eq!(output.status.code(), Some(status), "{spec:?} {flags:?}: {text}", spec = folder);
        said += &text;
        // Of success, what is on the disk is looked at before the next run replaces it.
        no_secret_below(&folder);
        let _ = fs_err::remove_file(folder.join("lock"));
    };
    for style in ["plain", "json", "tty"] {
        run(&channels("fine"), &["--progress", style], 0);
    }
    run(&dependency("fine"), &[], 0);
    run("dependencies: [fine]\n", &["--override-channels", "--channel", url], 0);
    run(&channels("none"), &[], 1);
    run(&channels("lib=7"), &[], 1);
    run(&dependency("none"), &[], 1);
    run(&dependency("lib=7"), &[], 1);
    run(&dependency("fine=="), &[], 1);
    run(&channels("[fine"), &[], 1);
    run(&channels("fine"), &["--locked"], 1);
    run(&channels("fine"), &["--offline", "--no-cache"], 0);
    fs_err::remove_dir_all(folder.join("cache/v1/archives")).expect("removes");
    run(&channels("fine"), &["--offline", "--no-cache"], 1);
    let broken = url.replace("/channel", "/nothing-there");
    run(&channels("fine").replace(url, &broken), &[], 1);
    run(&channels("fine").replace("/channel", ":x/channel"), &[], 1);
    for secret in SECRETS {
        assert!(!said.contains(secret), "{secret} was told: {said}");
    }
}

/// Looks into every file, layers unpacked.
fn no_secret_below(folder: &Path) {
    assert!(unfinished(folder).is_empty());
    for file in walkdir::WalkDir::new(folder).into_iter().flatten().filter(|file| file.file_type().is_file()) {
        let mut bytes = fs_err::read(file.path()).expect("reads");
        let mut plain = Vec::new();
        if std::io::Read::read_to_end(&mut flate2::read::MultiGzDecoder::new(&bytes[..]), &mut plain).is_ok() {
            bytes.extend(plain);
        }
        let text = String::from_utf8_lossy(&bytes);
        for secret in SECRETS {
            assert!(!text.contains(secret), "{secret} is in {}", file.path().display());
        }
    }
}

fn copy_folder(from: &Path, to: &Path) {
    for file in walkdir::WalkDir::new(from).into_iter().flatten().filter(|file| file.file_type().is_file()) {
        let path = to.join(file.path().strip_prefix(from).expect("is below"));
        fs_err::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs_err::copy(file.path(), path).expect("copies");
    }
}

#[test]
fn offline_is_enough_when_everything_is_cached_and_else_names_what_is_missing() {
    let bench = Bench::new();
    bench.workspace.file("environment.yml", environment(&["app"]));
    let server = FileServer::start(bench.workspace.path(""));
    let url = format!("{}/channel", server.url);
    let missing = ["the index of `http://127.0.0.1", "the network must not be used"];
    bench.refuses(bench.build_from(&url).arg("--offline"), 1, &missing);
    let digest = succeed(&mut bench.build_from(&url));
    let requests = server.seen("").len();
    let lock = bench.workspace.path("condaimg.lock");
    assert_eq!(succeed(bench.build_from(&url).args(["--offline", "--no-cache"])), digest);
    fs_err::remove_file(&lock).expect("removes");
    assert_eq!(succeed(bench.build_from(&url).arg("--offline")), digest, "it solves, too");

    fs_err::remove_dir_all(bench.workspace.path("image")).expect("removes");
    fs_err::remove_dir_all(bench.workspace.path("cache/v1/archives")).expect("removes");
    let missing = ["`app-1.0-0.conda`", "`lib-2.0-0.conda`", "not in the cache", "without `--offline`"];
    bench.refuses(bench.build_from(&url).args(["--offline", "--no-cache"]), 1, &missing);
    let registry = ["--offline", "--base", "127.0.0.1:1/base:1"];
    let mut command = bench.workspace.condaimg();
    command.args(["build", "--channel", &url]).args(registry);
    bench.refuses(&mut command, 1, &["the base `127.0.0.1:1/base:1`", "the network may not be used"]);
    assert_eq!(server.seen("").len(), requests, "nothing was asked for");
    bench.recovers(&["app"]);
}
