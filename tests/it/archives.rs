//! What archives may say of their entries: PAX records and GNU's kinds, names that no file system takes, setuid bits,
//! links of other packages, and times.

use std::process::Command;

use serde_json::json;
use tar::EntryType;

use crate::common::packages::{Channel, Format, Package};
use crate::common::tree::{Image, Kind, Node};
use crate::common::{Workspace, environment, fail, program, run_output, succeed};

const FORMATS: [Format; 2] = [Format::Conda, Format::TarBz2];
const TIME: u64 = 1_700_000_000;

struct Bench {
    workspace: Workspace,
    channel: Channel,
}

impl Bench {
    fn new(packages: &[Package], format: Format) -> Self {
        let workspace = Workspace::new();
        let mut channel = Channel::new(workspace.path("channel"));
        packages.iter().for_each(|package| drop(channel.add(package, format)));
        channel.index();
        let names: Vec<&str> = packages.iter().map(|package| package.name.as_str()).collect();
        workspace.file("environment.yml", environment(&names));
        Self { workspace, channel }
    }

    /// `condaimg build` of all packages, on nothing.
    fn build(&self) -> Command {
        let mut build = self.build_on("scratch");
        build.args(["--bytecode", "off"]);
        build
    }

    fn build_on(&self, base: &str) -> Command {
        let mut build = self.workspace.condaimg();
        build.args(["build", "--override-channels", "--base", base, "--glibc", "2.36"]);
        build.arg("--channel").arg(&self.channel.folder);
        build
    }

    fn image(&self) -> Image {
        Image::read(&self.workspace.path("image"))
    }

    /// What is at a path in the prefix.
    fn node(&self, path: &str) -> Node {
        let path = format!("{}/{path}", &crate::oracle::PREFIX[1..]);
        self.image().tree().get(&path).unwrap_or_else(|| panic!("no {path}")).clone()
    }
}

fn told(command: &mut Command) -> String {
    String::from_utf8(run_output(command).stderr).expect("UTF-8")
}

fn odd() -> Package {
    Package::new("odd", "1.0")
}

/// A package that is refused with these words, in both formats.
fn refused(package: &Package, says: &[&str]) {
    for format in FORMATS {
        let bench = Bench::new(std::slice::from_ref(package), format);
        let message = fail(&mut bench.build(), 1);
        assert!(message.contains("odd-1.0-0"), "{message}");
        says.iter().for_each(|part| assert!(message.contains(part), "`{part}` is not in {message}"));
        assert!(!message.contains("is damaged") && !bench.workspace.path("image").exists(), "{message}");
    }
}

#[test]
fn pax_times_are_floored_and_bounded() {
    let package = odd()
        .file("share/half", "x")
        .fractional_mtime(TIME, 500)
        .file("share/before-1970", "x")
        .pax("mtime", "-1.5")
        .file("share/late", "x")
        .pax("mtime", "1e300")
        .file("share/tiny", "x")
        .pax("mtime", "1e-05")
        .file("share/header", "x")
        .mtime(TIME)
        .symlink("share/link", "half")
        .fractional_mtime(TIME, 999)
        .hardlink("share/hard", "share/half");
    for format in FORMATS {
        let bench = Bench::new(std::slice::from_ref(&package), format);
        succeed(&mut bench.build());
        for (path, expected) in [
            ("half", TIME),
            ("before-1970", 0),
            ("late", 0o777_7777_7777),
            ("tiny", 0),
            ("header", TIME),
            ("link", TIME),
            ("hard", TIME),
        ] {
            assert_eq!(bench.node(&format!("share/{path}")).mtime, expected, "{path}");
        }
    }
    refused(&odd().file("share/x", "x").pax("mtime", "yesterday"), &["share/x", "`mtime`"]);
}

#[test]
fn pax_records_are_honoured_or_refused() {
    let long = format!("share/{}/{}", "d".repeat(200), "ü".repeat(60));
    let package = odd()
        .file(&long, "content")
        .pax("path", &long)
        .file("share/owned", "x")
        .pax("uid", "1234567890")
        .pax("gid", "7")
        .pax("uname", "somebody")
        .file("share/binary", "x")
        .pax("hdrcharset", "BINARY")
        .file("share/utf-8", "x")
        .pax("hdrcharset", "ISO-IR 10646 2000 UTF-8")
        .file("share/attributes", "x")
        .pax("SCHILY.xattr.user.note", "x")
        .pax("LIBARCHIVE.creationtime", "1");
    for format in FORMATS {
        let bench = Bench::new(std::slice::from_ref(&package), format);
        let told = told(&mut bench.build());
        assert!(!told.contains("capabilities"), "{told}");
        assert_eq!(bench.node(&long).content().size, 7);
        // The reader of images asserts that everything is root's.
        bench.node("share/owned");
    }
    let file = || odd().file("share/x", "content");
    for (key, value, says) in [
        ("hdrcharset", "KOI8-R", "`hdrcharset`"),
        ("GNU.sparse.major", "1", "sparse"),
        ("GNU.sparse.map", "0,7", "sparse"),
        ("SCHILY.realsize", "99", "sparse"),
        ("size", "many", "`size`"),
        ("path", "", "contradict"),
    ] {
        refused(&file().pax(key, value), &[if value.is_empty() { "``" } else { "share/x" }, says]);
    }
    for key in ["path", "size", "mtime"] {
        refused(&file().pax(key, "7").pax(key, "8"), &["twice"]);
    }
    // Two lines for one record: its length is wrong.
    refused(&file().pax("comment", "a\nb"), &["malformed"]);
}

#[test]
fn pax_global_header_gives_times_alone() {
    let header = |records: &str| odd().raw("pax_global_header", EntryType::XGlobalHeader, "", records.as_bytes());
    for format in FORMATS {
        // As `git archive` writes it, and with a time.
        let package = header("20 mtime=1700000000\n13 comment=a\n").file("share/x", "x").file("share/y", "y");
        let bench = Bench::new(&[package.pax("mtime", "7.5")], format);
        let records = "20 mtime=1700000000\n".len();
        assert_eq!(records, 20, "the record's own length");
        run_output(&mut bench.build());
        assert_eq!((bench.node("share/x").mtime, bench.node("share/y").mtime), (TIME, 7));
    }
    for (records, says) in [
        ("9 path=x\n", "global PAX header"),
        ("9 size=1\n", "global PAX header"),
        ("22 GNU.sparse.major=1\n", "sparse"),
    ] {
        assert_eq!(records.split(' ').next().expect("a length"), records.len().to_string());
        refused(&header(records).file("share/x", "x"), &[says]);
    }
}

/// GNU's own sparse files have their map in the header, and their holes come back.
#[test]
fn sparse_files_of_gnu_tar_are_whole() {
    let workspace = Workspace::new();
    let mut content = vec![0; 300_000];
    content[..5].copy_from_slice(b"begin");
    content[299_997..].copy_from_slice(b"end");
    workspace.file("tree/share/sparse", "");
    let script = "import os\nf = open('tree/share/sparse', 'r+b')\nf.write(b'begin')\nf.seek(299997)\nf.write(b'end')";
    succeed(Command::new("python3").current_dir(workspace.path("")).args(["-c", script]));
    let tar = |format: &str| {
        let mut tar = program("tar", "tar");
        tar.current_dir(workspace.path("tree")).args(["--sparse", format, "--mtime=@1700000000", "-cf", "../out.tar"]);
        succeed(tar.arg("share/sparse"));
        fs_err::read(workspace.path("out.tar")).expect("a tar")
    };
    // The package says what it holds, and its tar is that of tar(1).
    let package = odd().file("share/sparse", &content);
    let mut bench = Bench::new(std::slice::from_ref(&package), Format::Conda);
    for (format, works) in [("--format=gnu", true), ("--format=pax", false)] {
        let bytes = package.conda_of(
            &crate::common::packages::zstd_of(&tar(format)),
            &crate::common::packages::zstd_of(&package.info_tar()),
        );
        bench.channel.add_bytes(&package, Format::Conda, &bytes);
        bench.channel.index();
        let _ = fs_err::remove_file(bench.workspace.path("condaimg.lock"));
        match works {
            true => {
                run_output(&mut bench.build());
                assert_eq!(bench.node("share/sparse").content().sha256, condaimg::util::Digest::of(&content));
                assert_eq!(bench.node("share/sparse").mtime, TIME);
            }
            false => assert!(fail(&mut bench.build(), 1).contains("sparse file in a form"), "{format}"),
        }
    }
}

#[test]
fn setuid_bits_are_dropped_by_name_unless_kept() {
    let package = odd()
        .file_with_mode("bin/setuid", "x", 0o4755)
        .file_with_mode("bin/setgid", "x", 0o2711)
        .hardlink("bin/linked", "bin/setuid")
        .executable("bin/plain", "x")
        .executable("bin/capable", "x")
        .pax("SCHILY.xattr.security.capability", "x");
    let bench = Bench::new(std::slice::from_ref(&package), Format::TarBz2);
    let warned = told(&mut bench.build());
    for part in ["`bin/setuid`", "`bin/setgid`", "`bin/linked`", "(`odd-1.0-0`)", "--keep-setuid", "`bin/capable`"] {
        assert!(warned.contains(part), "`{part}` is not in {warned}");
    }
    assert!(!warned.contains("bin/plain"), "{warned}");
    assert_eq!((bench.node("bin/setuid").mode, bench.node("bin/setgid").mode), (0o755, 0o755));
    let plain = succeed(&mut bench.build());

    let kept = run_output(bench.build().arg("--keep-setuid"));
    let stderr = String::from_utf8_lossy(&kept.stderr);
    assert!(!stderr.contains("setuid and setgid"), "{stderr}");
    assert_eq!((bench.node("bin/setuid").mode, bench.node("bin/setgid").mode), (0o4755, 0o2755));
    assert_eq!((bench.node("bin/linked").mode, bench.node("bin/plain").mode), (0o4755, 0o755));
    assert_ne!(String::from_utf8_lossy(&kept.stdout), plain);
    let by_variable = succeed(bench.build().env("CONDAIMG_KEEP_SETUID", "1"));
    assert_eq!(by_variable, String::from_utf8_lossy(&kept.stdout));
    assert_eq!(succeed(bench.build().arg("--keep-setuid=false")), plain, "neither is in the other's way");
}

/// Of layers that lie in the cache, and of those that take over what lies there.
#[test]
fn losses_in_cached_layers_are_told_by_each_build() {
    let other = Package::new("other", "1.0").file("share/other", "x");
    let setuid = odd().file_with_mode("bin/setuid", "x", 0o4755).executable("bin/plain", "x");
    let bench = Bench::new(&[setuid, other], Format::Conda);
    let build = |dependencies: &[&str]| {
        bench.workspace.file("environment.yml", environment(dependencies));
        told(&mut bench.build())
    };
    for dependencies in [&["odd"][..], &["odd"], &["odd", "other"], &["odd", "other"]] {
        let warned = build(dependencies);
        assert_eq!(warned.matches("`bin/setuid` (`odd-1.0-0`)").count(), 1, "{dependencies:?}: {warned}");
    }
    assert!(!build(&["other"]).contains("setuid"));
}

#[test]
fn names_and_paths_too_long_for_linux_are_refused() {
    let name = "n".repeat(256);
    let deep = format!("share/{}x", "d/".repeat(2_100));
    assert!(deep.len() > 4_095);
    refused(&odd().file(&format!("share/{name}"), "x"), &["256 bytes", "at most 255"]);
    refused(&odd().file(&format!("share/{}", "ü".repeat(128)), "x"), &["256 bytes"]);
    refused(&odd().file(&deep, "x"), &["at most 4095"]);
    refused(&odd().symlink(&format!("share/{name}"), "x"), &["256 bytes"]);
    refused(&odd().symlink("share/link", &name), &["share/link", "256 bytes"]);
    refused(&odd().symlink("share/link", &"../".repeat(1_400)), &["share/link", "at most 4095"]);
    // With the prefix it is too long, and with a short one it is not; the longest name fits.
    let almost = format!("share/{}x", format!("{}/", "d".repeat(203)).repeat(20));
    let package = odd().file(&almost, "x").file(&format!("share/{}", "n".repeat(255)), "x");
    refused(&package, &["at most 4095"]);
    let bench = Bench::new(std::slice::from_ref(&package), Format::Conda);
    succeed(bench.build().args(["--prefix", "/e"]));
}

#[test]
fn too_long_paths_of_project_files_are_refused() {
    let name = "n".repeat(256);
    let bench = Bench::new(&[odd().file("share/x", "x")], Format::Conda);
    bench.workspace.file("project/file", "x");
    let deep = format!("/app/{}", "d/".repeat(2_100));
    let message = fail(bench.build().args(["--copy", &format!("project:{deep}")]), 1);
    assert!(message.contains("project/file` cannot be in an image") && message.contains("at most 4095"), "{message}");
    let message = fail(bench.build().args(["--copy", &format!("project:/app/{name}")]), 1);
    assert!(message.contains("256 bytes") && message.contains("--exclude"), "{message}");
}

#[test]
fn files_below_the_link_of_another_are_refused() {
    let linking = Package::new("linking", "1").file("lib/own", "x").symlink("lib64", "lib");
    let below = Package::new("below", "1").file("lib64/deep/file", "x");
    for below in [below.clone().depends(&["linking"]), below] {
        let bench = Bench::new(&[linking.clone(), below], Format::Conda);
        let message = fail(&mut bench.build(), 1);
        for part in ["`linking`", "`below`", "`lib64/deep/file`", "`lib64`"] {
            assert!(message.contains(part), "`{part}` is not in {message}");
        }
        assert!(!bench.workspace.path("condaimg.lock").exists());
    }
    // Of one package alone, they go where the link leads.
    let both = odd().file("lib/own", "x").symlink("lib64", "lib").file("lib64/file", "x");
    let bench = Bench::new(&[both], Format::Conda);
    succeed(&mut bench.build());
    assert!(matches!(bench.node("lib/file").kind, Kind::File(_)));
}

/// rattler decides who wins; whoever loses is told what is in the way.
#[test]
fn files_lost_to_a_file_above_or_below_are_named() {
    let below = || Package::new("below", "1").file("share/p/q", "x").file("share/p/deep/r", "x");
    let single = || Package::new("single", "1").file("share/p", "x");
    let bench = Bench::new(&[single().depends(&["below"]), below()], Format::Conda);
    let lost = told(&mut bench.build());
    for part in ["`share/p/deep/r` and 1 more of `below`", "`single` has a file at `share/p`"] {
        assert!(lost.contains(part), "`{part}` is not in {lost}");
    }
    assert!(!lost.contains("both bring"), "{lost}");
    assert!(matches!(bench.node("share/p").kind, Kind::File(_)));
    let bench = Bench::new(&[single(), below().depends(&["single"])], Format::Conda);
    for build in [&mut bench.build(), bench.build().arg("--locked")] {
        let lost = told(build);
        for part in ["the file `share/p` of `single`", "`below`", "`share/p/deep/r`"] {
            assert!(lost.contains(part), "`{part}` is not in {lost}");
        }
        assert!(!lost.contains("both bring"), "{lost}");
    }
    assert!(matches!(bench.node("share/p/q").kind, Kind::File(_)));
}

#[test]
fn entry_points_that_no_installer_can_make_are_named() {
    for point in ["tool = module", "tool module:main", "tool = module:main [extra]", "../tool = module:main"] {
        let package = odd().noarch_python().depends(&["python"]).file("site-packages/x.py", "").entry_point(point);
        let python = Package::new("python", "3.11.2").file("bin/python3.11", "x");
        let bench = Bench::new(&[package, python], Format::Conda);
        let message = fail(&mut bench.build(), 1);
        assert!(message.contains("odd-1.0-0") && message.contains(&format!("`{point}`")), "{message}");
        assert!(!message.contains("damaged"), "{message}");
    }
}

#[test]
fn link_without_target_is_not_called_an_attack() {
    let package = odd().raw("share/link", EntryType::Symlink, "", b"").listed_too();
    for format in FORMATS {
        let bench = Bench::new(std::slice::from_ref(&package), format);
        let message = fail(&mut bench.build(), 1);
        assert!(message.contains("odd-1.0-0") && message.contains("`share/link`"), "{message}");
        assert!(!message.contains("outside"), "{message}");
    }
}

/// A package of which no channel says when it was built; its `info/index.json` is of 2020-09-13.
fn undated() -> Bench {
    let mut bench = Bench::new(&[odd().file("share/x", "x")], Format::Conda);
    bench.channel.change("odd", |record| drop(record.as_object_mut().expect("a record").remove("timestamp")));
    bench.channel.index();
    bench
}

#[test]
fn created_is_of_index_json_or_the_base_without_timestamps() {
    let bench = undated();
    let created = |bench: &Bench| bench.image().config["created"].as_str().expect("a time").to_owned();
    succeed(&mut bench.build());
    assert_eq!(created(&bench), "2020-09-13T12:26:40Z");
    let lock = fs_err::read_to_string(bench.workspace.path("condaimg.lock")).expect("a lock");
    assert!(lock.contains("index-time: 1600000000"), "{lock}");
    // The variable has the last word.
    succeed(bench.build().env("SOURCE_DATE_EPOCH", "7"));
    assert_eq!(created(&bench), "1970-01-01T00:00:07Z");
    // The base's is later, then earlier.
    for (of_base, expected) in
        [("2031-02-03T04:05:06.7Z", "2031-02-03T04:05:06Z"), ("2001-01-01T00:00:00Z", "2020-09-13T12:26:40Z")]
    {
        let base = format!("oci:{}:1", bench.workspace.path("base").display());
        let _ = fs_err::remove_dir_all(bench.workspace.path("base"));
        let example = format!("oci:{}:debian", crate::common::example_base().display());
        crate::common::images::skopeo(&["copy", &example, &base]);
        let mut umoci = program("umoci", "umoci");
        umoci.args(["config", "--image", base.trim_start_matches("oci:"), &format!("--created={of_base}")]);
        succeed(&mut umoci);
        let _ = fs_err::remove_file(bench.workspace.path("condaimg.lock"));
        succeed(&mut bench.build_on(&base));
        assert_eq!(created(&bench), expected);
    }
}

/// A lock of before has no such time; it is made at the first build, and the lock stays as it is.
#[test]
fn created_of_an_old_lock_is_made_at_the_first_build() {
    let bench = undated();
    let expected = succeed(&mut bench.build());
    let path = bench.workspace.path("condaimg.lock");
    let locks = condaimg::lock::read(&path).expect("reads").expect("a lock");
    let without = |mut lock: condaimg::lock::Lock| {
        lock.packages.iter_mut().for_each(|package| package.facts.index_time = None);
        lock
    };
    let text = condaimg::lock::render(&locks.into_iter().map(without).collect(), path.parent().expect("a folder"));
    let text = text.expect("renders");
    assert!(!text.contains("index-time"), "{text}");
    fs_err::write(&path, &text).expect("writes");
    assert_eq!(succeed(bench.build().arg("--locked")), expected);
    assert_eq!(fs_err::read_to_string(&path).expect("a lock"), text);
}

#[test]
fn created_is_of_the_newest_timestamp_where_there_is_one() {
    let mut bench =
        Bench::new(&[odd().file("share/x", "x"), Package::new("other", "1").file("share/y", "y")], Format::Conda);
    bench.channel.change("odd", |record| drop(record.as_object_mut().expect("a record").remove("timestamp")));
    bench.channel.change("other", |record| record["timestamp"] = json!(1_500_000_000_000_u64));
    bench.channel.index();
    succeed(&mut bench.build());
    assert_eq!(bench.image().config["created"], "2017-07-14T02:40:00Z");
    let lock = fs_err::read_to_string(bench.workspace.path("condaimg.lock")).expect("a lock");
    assert!(!lock.contains("index-time"), "{lock}");
}
