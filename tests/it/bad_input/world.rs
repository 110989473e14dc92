//! A world that does not play along: registries that are down, refuse or die, full disks, read-only folders, closed
//! pipes.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::{Bench, refused, unfinished};
use crate::common::packages::{Format, Package};
use crate::common::registry::{LocalRegistry, Mode, PASSWORD, USER, free_port};
use crate::common::{SmallDisk, environment, program, succeed};

/// Incompressible bytes, the same each time.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

impl Bench {
    /// With a package `large` of so many bytes that cannot be compressed.
    fn with_large(megabytes: usize) -> Self {
        let mut bench = Self::new();
        let package = Package::new("large", "1.0").file("share/large", noise(megabytes << 20));
        bench.channel.add(&package, Format::Conda);
        bench.channel.index();
        bench.workspace.file("environment.yml", environment(&["large"]));
        bench
    }
}

#[test]
fn a_registry_that_is_down_or_refuses_is_named_without_the_password() {
    let bench = Bench::new();
    bench.workspace.file("environment.yml", environment(&["fine"]));
    let nobody = format!("127.0.0.1:{}", free_port());
    let push = |host: &str| {
        let mut command = bench.build_here();
        command.args(["--push", "--tag", &format!("{host}/team/env:1")]);
        command
    };
    bench.refuses(&mut push(&nobody), 1, &[&format!("cannot reach the registry `{nobody}`"), "onnection refused"]);

    let registry = LocalRegistry::start(Mode::Auth);
    let host = registry.host();
    bench.refuses(&mut push(&host), 1, &[&host, "team/env"]);
    let wrong = bench.workspace.path("wrong.json");
    fs_err::rename(registry.credential_file("wr0ng-password"), &wrong).expect("moves");
    let stderr = bench.refuses(push(&host).env("REGISTRY_AUTH_FILE", wrong), 1, &[&host, "team/env"]);
    assert!(!stderr.contains("wr0ng-password"), "{stderr}");
    assert_eq!(registry.requests("PUT /v2/team/env/manifests"), 0);
    let right = registry.credential_file(PASSWORD);
    let said = push(&host).args(["-v"]).env("REGISTRY_AUTH_FILE", right).output().expect("runs");
    assert!(said.status.success());
    let said = [said.stdout, said.stderr].concat();
    assert!(!String::from_utf8_lossy(&said).contains(PASSWORD));
    assert!(!String::from_utf8_lossy(&said).contains(&format!("{USER}:")));
    bench.recovers(&["fine"]);
}

#[test]
fn a_registry_that_dies_in_mid_push_leaves_no_tag_and_takes_the_image_when_it_is_back() {
    let bench = Bench::with_large(150);
    let mut registry = LocalRegistry::start(Mode::Plain);
    let host = registry.host();
    let push = || {
        let mut command = bench.build_here();
        command.args(["--push", "--tag", &format!("{host}/team/env:1"), "--progress", "json"]);
        command.args(["--registry-retries", "3"]);
        command
    };
    // Everything is packed before, so that nothing but the push is under way.
    succeed(bench.build_here().args(["--output", "oci:packed"]));
    let child = push().stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("runs");
    let deadline = Instant::now() + Duration::from_secs(20);
    while registry.requests("POST /v2/team/env/blobs/uploads/") == 0 {
        assert!(Instant::now() < deadline, "no upload began");
        std::thread::sleep(Duration::from_millis(2));
    }
    std::thread::sleep(Duration::from_millis(30));
    registry.kill();
    let output = child.wait_with_output().expect("ends");
    let stderr = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains(&host) && stderr.contains("team/env") && output.stdout.is_empty(), "{stderr}");
    bench.nothing_unfinished();
    registry.restart();
    assert_eq!(registry.requests("PUT /v2/team/env/manifests"), 0);
    let pushed = succeed(push().args(["--output", "oci:again"]));
    let digest = pushed.trim().split_once('@').expect("a digest").1.to_owned();
    assert_eq!(succeed(bench.build_here().args(["--output", "oci:packed"])).trim(), digest);
    let reference = format!("docker://{host}/team/env:1");
    let inspected = succeed(program("skopeo", "skopeo").args(["inspect", "--tls-verify=false", &reference]));
    assert!(inspected.contains(&digest), "{inspected}");
}

#[test]
fn a_registry_that_died_while_it_noted_a_blob_is_healed_by_the_next_push() {
    let bench = Bench::new();
    let registry = LocalRegistry::start(Mode::Plain);
    let push = |tag: &str| {
        let mut command = bench.build(&["fine"]);
        succeed(command.args(["--push", "--tag", &format!("{}/team/env:{tag}", registry.host())]))
    };
    let digest = push("1");
    let layers = registry.data().join("docker/registry/v2/repositories/team/env/_layers");
    let links = walkdir::WalkDir::new(layers).into_iter().flatten().filter(|file| file.file_name() == "link");
    // What a crash between creating and writing the file leaves: the registry answers 500 to who asks for the blob.
    let emptied = links.map(|link| fs_err::write(link.path(), "").expect("empties")).count();
    assert!(emptied >= 3, "{emptied} blobs");
    assert_eq!(push("2"), digest);
    let image = format!("docker://{}/team/env:2", registry.host());
    let copy = format!("dir:{}", bench.workspace.path("copy").display());
    succeed(program("skopeo", "skopeo").args(["copy", "--src-tls-verify=false", &image, &copy]));
}

#[test]
fn a_full_disk_is_named_and_is_no_harm_once_there_is_room() {
    let bench = Bench::with_large(12);
    let disk = SmallDisk::mount("8m");
    let on_disk = |name: &str| disk.path().join(name).display().to_string();
    let full = "No space left on device";
    let hint = "free some space, or choose another folder";

    let mut command = bench.build_here();
    command.env("CONDAIMG_CACHE_DIR", on_disk("cache"));
    bench.refuses(&mut command, 1, &[&on_disk("cache"), full, hint]);
    assert!(!bench.workspace.path("condaimg.lock").exists());
    fs_err::remove_dir_all(on_disk("cache")).expect("makes room");

    let digest = succeed(bench.build_here().args(["--output", "oci:roomy"]));
    for output in [
        format!("oci:{}", on_disk("image")),
        format!("oci-archive:{}", on_disk("image.tar")),
        format!("docker-archive:{}", on_disk("docker.tar")),
    ] {
        let path = output.split_once(':').expect("a kind").1;
        bench.refuses(bench.build_here().args(["--output", &output]), 1, &[path, full, hint]);
        assert!(!disk.path().join("image/index.json").exists());
        assert!(!disk.path().join("image.tar").exists() && !disk.path().join("docker.tar").exists());
        assert!(unfinished(disk.path()).is_empty(), "{:?}", unfinished(disk.path()));
    }

    fill(&disk);
    let lock = on_disk("condaimg.lock");
    bench.refuses(bench.build_here().args(["--lock-file", &lock]), 1, &[&lock, full, hint]);
    let metadata = on_disk("metadata.json");
    refused(bench.build_here().args(["--output", "oci:other", "--metadata-file", &metadata]), 1, &[&metadata, full]);
    assert!(unfinished(disk.path()).is_empty(), "{:?}", unfinished(disk.path()));
    assert!(!disk.path().join("condaimg.lock").exists() && !disk.path().join("metadata.json").exists());
    assert_eq!(succeed(bench.build_here().args(["--output", "oci:roomy"])), digest);
    bench.recovers(&["large"]);
}

/// Leaves not a byte on a disk.
fn fill(disk: &SmallDisk) {
    let mut filler = fs_err::File::create(disk.path().join("filler")).expect("begins");
    let chunk = vec![0; 4096];
    while std::io::Write::write_all(&mut filler, &chunk).is_ok() {}
}

#[test]
fn a_cache_that_fills_up_while_packing_is_named() {
    let bench = Bench::with_large(5);
    // The archive fits, the layer beside it does not.
    let disk = SmallDisk::mount("8m");
    let mut command = bench.build_here();
    command.env("CONDAIMG_CACHE_DIR", disk.path());
    bench.refuses(&mut command, 1, &[&disk.path().display().to_string(), "No space left on device", "--cache-dir"]);
    assert!(unfinished(disk.path()).is_empty(), "{:?}", unfinished(disk.path()));
    bench.recovers(&["large"]);
}

/// A folder that nobody can write to, root included; writable again at the end.
struct ReadOnly(SmallDisk);

impl ReadOnly {
    fn with(files: &[(&str, &str)]) -> Self {
        let disk = SmallDisk::mount("1m");
        for (name, content) in files {
            fs_err::write(disk.path().join(name), content).expect("writes");
        }
        let mut mount = program("mount", "mount");
        succeed(mount.args(["-o", "remount,ro"]).arg(disk.path()));
        Self(disk)
    }
}

#[test]
fn a_lock_that_cannot_be_kept_is_a_notice() {
    let bench = Bench::new();
    let folder = ReadOnly::with(&[("environment.yml", &environment(&["fine"]))]);
    let path = folder.0.path().join("environment.yml");
    let build = || {
        let mut command = bench.build_here();
        command.arg(&path);
        command
    };
    let output = build().output().expect("runs");
    let stderr = String::from_utf8(output.stderr).expect("UTF-8");
    assert!(output.status.success(), "{stderr}");
    let lock = folder.0.path().join("condaimg.lock");
    for text in ["the lock is not kept", &lock.display().to_string(), "Read-only file system"] {
        assert!(stderr.contains(text), "{stderr}");
    }
    assert_eq!(succeed(&mut build()).as_bytes(), output.stdout);
    let other = folder.0.path().join("cache");
    let mut command = build();
    command.env("CONDAIMG_CACHE_DIR", &other).args(["--output", "oci:none"]);
    refused(&mut command, 1, &[&other.display().to_string(), "choose another with `--cache-dir`"]);
    let image = folder.0.path().join("image");
    let output = format!("oci:{}", image.display());
    refused(build().args(["--output", &output]), 1, &[&image.display().to_string(), "Read-only file system"]);
}

#[test]
fn readers_that_go_away_are_no_reason_to_stop() {
    let bench = Bench::new();
    bench.workspace.file("environment.yml", environment(&["fine"]));
    for redirection in ["| head -c0", ">&-", "2>&-", ">&- 2>&-", "2>&1 | head -c0", "2>/dev/full"] {
        for style in ["plain", "json", "tty"] {
            let build = bench.build_here();
            let line = format!("\"$0\" \"$@\" --progress {style} {redirection}; exit \"${{PIPESTATUS[0]}}\"");
            in_bash(&build, &line, redirection);
            let image = bench.workspace.path("image");
            assert!(image.join("index.json").exists(), "{redirection}");
            fs_err::remove_dir_all(image).expect("removes");
        }
    }
    for redirection in ["| head -c0", ">&-"] {
        for words in [&["completions", "bash"][..], &["--help"], &["--version"], &["build", "--help"]] {
            let mut command = bench.workspace.condaimg();
            command.args(words);
            in_bash(&command, &format!("\"$0\" \"$@\" {redirection}; exit \"${{PIPESTATUS[0]}}\""), redirection);
        }
    }
    // A digest that does not arrive is missed by the pipeline that waits for it.
    for command in [&bench.build_here(), bench.workspace.condaimg().args(["completions", "bash"])] {
        let output = bash(command, "\"$0\" \"$@\" > /dev/full").output().expect("runs");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains("`standard output`") && stderr.contains("No space left"), "{stderr}");
        assert!(stderr.contains("send it elsewhere") && !stderr.contains("--cache-dir"), "{stderr}");
    }
    // An error stays an error when nobody hears it.
    let mut wrong = bench.build_here();
    wrong.arg("none.yml");
    let output = bash(&wrong, "\"$0\" \"$@\" 2>&-").output().expect("runs");
    assert_eq!(output.status.code(), Some(1));
}

fn in_bash(command: &Command, line: &str, redirection: &str) {
    let output = bash(command, line).output().expect("runs");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} {redirection}: {} {stderr}", output.status);
    assert!(!stderr.contains("defect") && !stderr.contains("panicked"), "{stderr}");
}

/// The command as `$0` and `$@` of a line of bash, with its environment and folder.
fn bash(command: &Command, line: &str) -> Command {
    let mut bash = program("bash", "bash");
    bash.args(["-c", line]).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => bash.env(name, value),
            None => bash.env_remove(name),
        };
    }
    bash.current_dir(command.get_current_dir().expect("a folder"));
    bash
}
