//! Bad input through the whole program: every refusal names the culprit and the way out, ends with the exit status
//! that belongs to it, and leaves nothing behind that a later build would trust.

mod archives;
mod channels;
mod inputs;
mod world;

use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::common::packages::Channel;
use crate::common::{Workspace, environment, example_base, succeed};

/// A workspace with a small channel of its own.
struct Bench {
    workspace: Workspace,
    channel: Channel,
}

impl Bench {
    /// With a channel that has `fine`, `app` (which needs `lib` 2) and both versions of `lib`.
    fn new() -> Self {
        let workspace = Workspace::new();
        let mut channel = Channel::new(workspace.path("channel"));
        channel.add_all(&[
            ("fine", "1.0", &[]),
            ("lib", "1.0", &[]),
            ("lib", "2.0", &[]),
            ("app", "1.0", &["lib >=2"]),
            ("old", "1.0", &["lib <2"]),
        ]);
        Self { workspace, channel }
    }

    /// `condaimg build` of an environment.yml with these dependencies, on nothing, so that only packages matter.
    fn build(&self, dependencies: &[&str]) -> Command {
        self.workspace.file("environment.yml", environment(dependencies));
        self.build_here()
    }

    /// The same with the environment.yml that is there.
    fn build_here(&self) -> Command {
        let mut command = self.build_anything();
        command.args(["--base", "scratch", "--glibc", "2.36"]);
        command
    }

    /// The same without a base.
    fn build_anything(&self) -> Command {
        let mut command = self.workspace.condaimg();
        command.args(["build", "--override-channels", "--channel"]).arg(&self.channel.folder);
        command
    }

    /// Runs a build that must be refused with this status, an error with all of `says`, and a way out; returns all
    /// it said.
    fn refuses(&self, command: &mut Command, status: i32, says: &[&str]) -> String {
        let stderr = refused(command, status, says);
        assert!(!self.workspace.path("image/index.json").exists(), "an image appeared: {stderr}");
        self.nothing_unfinished();
        stderr
    }

    /// No temporary file is left, neither beside outputs nor in the cache.
    fn nothing_unfinished(&self) {
        let left = unfinished(&self.workspace.path(""));
        assert!(left.is_empty(), "left behind: {left:?}");
    }

    /// A correct build in the cache of the refused ones gives the digest that it gives in an empty cache.
    fn recovers(&self, dependencies: &[&str]) {
        self.workspace.file("correct.yml", environment(dependencies));
        let digests = ["cache", "another-cache"].map(|cache| {
            let mut command = self.build_here();
            command.arg("correct.yml").args(["--output", &format!("oci:correct-{cache}")]);
            let _ = fs_err::remove_file(self.workspace.path("correct.condaimg.lock"));
            succeed(command.env("CONDAIMG_CACHE_DIR", self.workspace.path(cache)))
        });
        assert_eq!(digests[0], digests[1]);
        assert!(digests[0].starts_with("sha256:"), "{digests:?}");
    }
}

/// Runs a command that must be refused; returns what it wrote to standard error.
fn refused(command: &mut Command, status: i32, says: &[&str]) -> String {
    let output = command.output().expect("runs");
    let stderr = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(output.status.code(), Some(status), "{command:?}\n{stderr}");
    for text in says {
        assert!(stderr.contains(text), "`{text}` is missing in: {stderr}");
    }
    assert!(!stderr.contains("panicked") && !stderr.contains("defect"), "{stderr}");
    // A place in the user's own file shows the way, too.
    let way_out = ["hint: ", "--help", "environment.yml:"].iter().any(|text| stderr.contains(text));
    assert!(way_out, "no way out: {stderr}");
    assert!(output.stdout.is_empty(), "standard output is for data: {:?}", output.stdout);
    stderr
}

/// Temporary files below a folder.
fn unfinished(folder: &Path) -> Vec<String> {
    let files = walkdir::WalkDir::new(folder).into_iter().flatten().map(|file| file.path().display().to_string());
    files.filter(|path| path.contains("/.condaimg-") || path.contains("/v1/tmp/")).collect()
}

#[test]
fn mistakes_in_environment_files_are_told_with_their_place() {
    let bench = Bench::new();
    let cases: [(&[u8], &[&str]); 15] = [
        (b"dependencies:\n  - fine\n - lib\n", &["environment.yml:3:2: "]),
        (b"dependencies: [fine\n", &["environment.yml:2:1: "]),
        (b"dependencies:\n\t- fine\n", &["environment.yml:2:", "tabs"]),
        (b"dependencies:\n  fine: 1\n", &["environment.yml:2:3: dependencies", "expected a list"]),
        (b"dependencies:\n  - 3.11\n", &["environment.yml:2:5: dependencies[0]", "expected a package"]),
        (b"channels: 5\ndependencies: [fine]\n", &["environment.yml:1:11: channels", "expected a list"]),
        (b"variables: [a]\ndependencies: [fine]\n", &["environment.yml:1:12: variables"]),
        (b"name: {a: b}\ndependencies: [fine]\n", &["environment.yml:1:7: name"]),
        (b"dependencies:\n  - fine\n  - fine==1==2\n", &["environment.yml:3:5: `fine==1==2` is no package"]),
        (b"dependencies:\n  - \">=1\"\n", &["environment.yml:2:5: `>=1` is no package"]),
        (
            b"dependencies:\n  - fine\n  - pip:\n    - requests >> 2\n",
            &["environment.yml:4: `requests >> 2` is no requirement"],
        ),
        (b"", &["`./environment.yml` is empty", "dependencies:"]),
        (b"# nothing\n---\n", &["`./environment.yml` is empty"]),
        (b"dependencies:\n  - fine\n  - l\xff\n", &["environment.yml:3: the file is not UTF-8"]),
        (b"- fine\n", &["environment.yml:1:1: ", "a list"]),
    ];
    for (text, says) in cases {
        bench.workspace.file("environment.yml", text);
        bench.refuses(&mut bench.build_here(), 1, says);
    }
    bench.recovers(&["fine"]);
}

#[test]
fn files_that_are_not_there_are_named() {
    let bench = Bench::new();
    fs_err::create_dir_all(bench.workspace.path("folder")).expect("a folder");
    bench.workspace.file("requirements.txt", "fine\n");
    for (path, says) in [
        ("none.yml", "`none.yml` does not exist"),
        ("folder", "the folder `folder` holds no environment.yml"),
        ("requirements.txt", "`requirements.txt` does not say which Python its packages are for"),
    ] {
        bench.refuses(bench.build_here().arg(path), 1, &[says]);
    }
    bench.refuses(&mut bench.build_here(), 1, &["the folder `.` holds no environment.yml"]);
    bench.recovers(&["fine"]);
}

#[test]
fn packages_that_cannot_be_had_are_named() {
    let bench = Bench::new();
    let unknown: &[&str] = &["no channel has the package `fime` (./environment.yml:4)", "did you mean `fine`?"];
    bench.refuses(&mut bench.build(&["fime"]), 1, unknown);
    let stderr = bench.refuses(&mut bench.build(&["app", "old"]), 1, &["failed to solve"]);
    assert!(stderr.contains("app") && stderr.contains("old") && stderr.contains("lib"), "{stderr}");
    bench.refuses(&mut bench.build(&["lib=3"]), 1, &["`lib=3`", "there is 2.0, 1.0"]);
    assert!(!bench.workspace.path("condaimg.lock").exists());
    bench.recovers(&["app"]);
}

#[test]
fn a_wrong_command_line_is_wrong_usage_and_does_nothing() {
    let bench = Bench::new();
    let layout = format!("oci:{}", bench.workspace.path("x").display());
    let cases: [(&[&str], &str); 38] = [
        (&["--compression", "foo"], "`foo` is no compression"),
        (&["--compression", "gzip:10"], "`gzip:10`: the level of gzip goes from 1 to 9"),
        (&["--compression", "zstd:0"], "`zstd:0`"),
        (&["--max-layers", "1"], "`--max-layers 1` is outside of 2 to 64"),
        (&["--max-layers", "65"], "`--max-layers 65` is outside of 2 to 64"),
        (&["--max-layers", "many"], "'--max-layers <N>'"),
        (&["--platform", "linux/foo"], "`linux/foo` is no platform"),
        (&["--platform", "windows/amd64"], "`windows/amd64` is no platform"),
        (&["--user", "name"], "`name`"),
        (&["--user", "4294967295"], "`4294967295`"),
        (&["--user", "1000:2147483648"], "gid"),
        (&["--workdir", "rel"], "invalid working directory `rel`"),
        (&["--workdir", "./app"], "write `/app`"),
        (&["--tag", "repo:1.0+cu124"], "`1.0+cu124` has `+`"),
        (&["--tag", "repo:1.0+cu124"], "write `repo:1.0-cu124`"),
        (&["--tag", "host.example/Team/Env:1"], "write `host.example/team/env:1`"),
        (&["--tag", "repo:-x"], "begins with `-`"),
        (&["--tag", "team//env"], "an empty part"),
        (&["--tag", "host.example:99999/env"], "65535"),
        (&["--env", "A B=1"], "`--env A B=...`"),
        (&["--layers", "foo"], "there is no layer policy `foo`"),
        (&["--tag", "BAD REF"], "invalid image reference `BAD REF`"),
        (&["--tag", "host/x:1:2"], "invalid image reference `host/x:1:2`"),
        (&["--push"], "`--push` needs to know where to"),
        (&["--output", "foo"], "`foo` is no output"),
        (&["--output", "oci:"], "`oci:` is no output"),
        (&["--prefix", "relative"], "`--prefix relative` is not absolute"),
        (&["--prefix", "/"], "`--prefix /` is the root"),
        (&["--base", ""], "`--base` is empty"),
        (&["--base", "BAD REF"], "invalid image reference `BAD REF`"),
        (&["--jobs", "0"], "`--jobs 0`"),
        (&["--env", "NAME"], "`--env NAME` is not NAME=VALUE"),
        (&["--cmd", "'open"], "`--cmd 'open` has an open quote"),
        (&["--entrypoint", "[1]"], "`--entrypoint [1]` is no JSON array of strings"),
        (&["--virtual-package", "cuda=12"], "`cuda` is no virtual package"),
        (&["--glibc", "a b"], "a b"),
        (&["--locked", "--frozen"], "'--frozen'"),
        (&["--colour", "red"], "'--colour'"),
    ];
    bench.workspace.file("environment.yml", environment(&["fine"]));
    for (flags, says) in cases {
        let mut command = bench.build_anything();
        if !flags.contains(&"--base") {
            command.args(["--base", "scratch"]);
        }
        if !flags.contains(&"--glibc") {
            command.args(["--glibc", "2.36"]);
        }
        if !flags.contains(&"--output") {
            command.args(["--output", &layout]);
        }
        refused(command.args(flags), 2, &[says]);
        assert!(!bench.workspace.path("condaimg.lock").exists(), "{flags:?} locked");
        assert!(!bench.workspace.path("x").exists(), "{flags:?} wrote");
    }
    let epoch = refused(bench.build_here().env("SOURCE_DATE_EPOCH", "now"), 2, &["SOURCE_DATE_EPOCH `now`"]);
    assert!(epoch.contains("seconds from 1970"), "{epoch}");
    bench.recovers(&["fine"]);
}

#[test]
fn wrong_files_behind_flags_are_named() {
    let bench = Bench::new();
    bench.workspace.file("environment.yml", environment(&["fine"]));
    bench.workspace.file("typo.yaml", "own-layer: 1\ntiers:\n  - name: all\n    pakages: [\"*\"]\n");
    bench.workspace.file("none.yaml", "own-layer: 1\ntiers: []\n");
    bench.workspace.file("glob.yaml", "own-layer: 1\ntiers: [{name: all, packages: [\"[\"]}]\n");
    bench.workspace.file("image-to-be", "a file\n");
    bench.workspace.file("full/something", "mine\n");
    let cases: [(&[&str], &[&str]); 8] = [
        (&["--layers", "./typo.yaml"], &["`./typo.yaml`", "`pakages`", "line 4", "`packages`"]),
        (&["--layers", "none.yaml"], &["`none.yaml` has no tiers"]),
        (&["--layers", "glob.yaml"], &["`glob.yaml` has a wrong pattern `[`"]),
        (&["--layers", "./missing.yaml"], &["`./missing.yaml`"]),
        (&["--registry-ca", "missing.crt"], &["missing.crt"]),
        (&["--output", "oci:full"], &["`full` is neither empty nor an OCI image layout"]),
        (&["--output", "oci:image-to-be"], &["`image-to-be`"]),
        (&["--output", "oci-archive:full"], &["`full` is a folder"]),
    ];
    for (flags, says) in cases {
        bench.refuses(bench.build_here().args(flags), 1, says);
    }
    assert_eq!(fs_err::read_to_string(bench.workspace.path("image-to-be")).expect("stays"), "a file\n");
    bench.recovers(&["fine"]);
}

#[test]
fn bases_that_cannot_be_used_are_named() {
    let bench = Bench::new();
    bench.workspace.file("environment.yml", environment(&["fine"]));
    let damaged = bench.workspace.path("damaged");
    copy_base(&damaged, |bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
    });
    let shortened = bench.workspace.path("shortened");
    copy_base(&shortened, |bytes| bytes.truncate(bytes.len() / 2));
    let whole = format!("oci:{}:debian", example_base().display());
    let cases: [(&[&str], &[&str]); 7] = [
        (&["--base", "oci:missing"], &["the base `oci:missing`", "no such directory"]),
        (&["--base", "oci-archive:missing.tar"], &["the base `oci-archive:missing.tar`", "missing.tar"]),
        (&["--base", "oci:damaged:debian"], &["damaged/blobs/sha256/", "if it is damaged"]),
        (&["--base", "oci:shortened:debian"], &["shortened/blobs/sha256/", "and should have"]),
        (&["--base", &format!("{whole}er")], &["no image with the tag `debianer`", "it has `debian`"]),
        (&["--base", &whole, "--platform", "linux/arm64"], &["it is for linux/amd64", "to be for linux/arm64"]),
        (&["--base", "scratch"], &["the base `scratch` has no GNU C library", "--glibc VERSION"]),
    ];
    for (flags, says) in cases {
        bench.refuses(bench.build_anything().args(flags), 1, says);
    }
    bench.refuses(bench.build_anything().args(["--base", "rootfs:missing"]), 1, &["rootfs:missing"]);
    bench.recovers(&["fine"]);
}

/// The example base with its largest blob changed.
fn copy_base(to: &Path, change: impl Fn(&mut Vec<u8>)) {
    let from = example_base();
    let mut files = Vec::new();
    for file in walkdir::WalkDir::new(&from).into_iter().flatten().filter(|file| file.file_type().is_file()) {
        let path = to.join(file.path().strip_prefix(&from).expect("is below"));
        fs_err::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs_err::copy(file.path(), &path).expect("copies");
        files.push((file.metadata().expect("a size").len(), path));
    }
    let (_, largest) = files.into_iter().max().expect("a blob");
    let mut bytes = fs_err::read(&largest).expect("reads");
    change(&mut bytes);
    fs_err::write(largest, bytes).expect("writes");
}

#[test]
fn a_prefix_that_does_not_fit_into_a_binary_is_refused_by_its_package() {
    use crate::common::packages::{FileMode, Format, Package};
    let mut bench = Bench::new();
    let placeholder = "/opt/short_placehold";
    let content = format!("\0{placeholder}/lib\0");
    let package = Package::new("binary", "1").file_with_placeholder("bin/tool", content, placeholder, FileMode::Binary);
    bench.channel.add(&package, Format::Conda);
    bench.channel.index();
    let long = "/opt/conda/envs/of-the-department/project";
    let says = &["cannot put the prefix", long, "`bin/tool` of `binary-1-0`", "a shorter `--prefix`"];
    bench.refuses(bench.build(&["binary"]).args(["--prefix", long]), 1, says);
    succeed(bench.build_here().args(["--prefix", "/opt/env"]));
}

#[test]
fn locks_that_cannot_be_used_are_named() {
    let bench = Bench::new();
    let lock = bench.workspace.path("condaimg.lock");
    for flag in ["--locked", "--frozen"] {
        bench.refuses(bench.build(&["fine"]).arg(flag), 1, &["there is no lock `./condaimg.lock`"]);
    }
    let output = ["--output", "oci:first"];
    let digest = succeed(bench.build_here().args(output));
    assert_eq!(succeed(bench.build_here().args(output).arg("--locked")), digest);
    let whole = fs_err::read_to_string(&lock).expect("a lock");

    bench.refuses(bench.build(&["fine", "lib"]).arg("--locked"), 1, &["`./condaimg.lock` is stale", "`--locked`"]);
    assert_eq!(fs_err::read_to_string(&lock).expect("a lock"), whole, "`--locked` changes nothing");
    assert_eq!(succeed(bench.build_here().args(output).arg("--frozen")), digest);

    bench.workspace.file("environment.yml", environment(&["fine"]));
    let other = ["--platform", "linux/arm64", "--locked"];
    let says = &["`./condaimg.lock` has nothing for linux/arm64", "it is for linux/amd64"];
    bench.refuses(bench.build_here().args(other), 1, says);

    for damage in [
        whole[..whole.len() / 2].to_owned(),
        whole[..whole.find("condaimg:").expect("is there")].to_owned(),
        whole.replace("sha256: ", "sha256: x"),
        whole.replace("\n  version: 1\n", "\n  version: 9\n"),
        whole.replace("layout-version", "layout-versoin"),
        String::new(),
        "<<<<<<< HEAD\n".to_owned() + &whole,
        "\0".repeat(100),
    ] {
        fs_err::write(&lock, &damage).expect("writes");
        let says = ["the lock `./condaimg.lock` cannot be used", "remove it, and a new one is made"];
        bench.refuses(&mut bench.build_here(), 1, &says);
        assert_eq!(fs_err::read_to_string(&lock).expect("a lock"), damage, "it is the user's to remove");
    }
    fs_err::write(&lock, [0xff, 0xfe]).expect("writes");
    bench.refuses(&mut bench.build_here(), 1, &["condaimg.lock"]);
    fs_err::remove_file(&lock).expect("removes");
    assert_eq!(succeed(bench.build_here().args(output)), digest);
    assert_eq!(fs_err::read_to_string(&lock).expect("a lock"), whole);
}

#[test]
fn a_record_of_the_cache_that_is_damaged_is_not_trusted() {
    let bench = Bench::new();
    let digest = succeed(bench.build(&["fine"]).args(["--output", "oci:first"]));
    for folder in ["records/layers", "records/bases"] {
        let folder = bench.workspace.path("cache/v1").join(folder);
        for record in fs_err::read_dir(&folder).into_iter().flatten().flatten() {
            fs_err::write(record.path(), json!({"digest": 1}).to_string()).expect("writes");
        }
    }
    assert_eq!(succeed(bench.build_here().args(["--output", "oci:second"])), digest);
    for blob in fs_err::read_dir(bench.workspace.path("cache/v1/blobs/sha256")).expect("blobs").flatten() {
        let mut bytes = fs_err::read(blob.path()).expect("reads");
        bytes.pop();
        fs_err::write(blob.path(), bytes).expect("writes");
    }
    assert_eq!(succeed(bench.build_here().args(["--output", "oci:third"])), digest);
}
