//! Wheels become segments: what is installed where, what is refused, whose file is kept when two bring it. The
//! oracle, which compares real wheels with what pip and uv install, is in `wheels/oracle.rs`, the zips that no
//! honest tool writes in `wheels/hostile.rs`, whole images in `wheels/images.rs`.

mod hostile;
mod images;
mod oracle;

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;

use condaimg::lock::{LockedWheel, WheelFacts, WheelSource};
use condaimg::pack::wheel::{self, WheelFile, WheelLayout, WheelZip, check_tags, read_metadata};
use condaimg::pack::{ModePolicy, Target};
use condaimg::util::report::Silent;
use condaimg::util::{Error, Result};
use rattler::install::PythonInfo;
use rattler_conda_types::Subdir;

use crate::common::Workspace;
use crate::common::wheels::{MTIME, Wheel, hash_of};

const PREFIX: &str = "/opt/conda/envs/default";
const SITE_PACKAGES: &str = "lib/python3.11/site-packages";

fn target() -> Target {
    let version = "3.11.2".parse().expect("a version");
    Target {
        prefix: PREFIX.to_owned(),
        root: PREFIX[1..].to_owned(),
        subdir: Subdir::Linux64,
        python: Some(PythonInfo::from_version(&version, None, Subdir::Linux64).expect("a Python")),
        modes: ModePolicy { group_write: false },
        folders: condaimg::model::Folders::default(),
    }
}

/// A wheel of a lock, as an index lists it.
fn locked(wheel: &Wheel) -> LockedWheel {
    let name = wheel.name.to_lowercase().replace(['_', '.'], "-");
    LockedWheel {
        source: WheelSource::Wheel {
            url: format!("https://files.example/{}", wheel.file_name()).parse().expect("a URL"),
        },
        name,
        version: wheel.version.clone(),
        file_name: wheel.file_name(),
        sha256: wheel.sha256(),
        size: wheel.bytes().len() as u64,
        index: Some("https://pypi.example/simple".parse().expect("a URL")),
        requires_dist: Vec::new(),
        requires_python: None,
        facts: WheelFacts::default(),
    }
}

fn file_of(wheel: &Wheel, folder: &Path) -> WheelFile {
    WheelFile { path: wheel.write(folder), name: wheel.file_name() }
}

/// The tar of a wheel's segment.
fn packed_as(wheel: &Wheel, locked: &LockedWheel) -> Result<Vec<u8>> {
    let workspace = Workspace::new();
    let file = file_of(wheel, &workspace.path("wheels"));
    let target = target();
    let layout = WheelLayout::read(&mut WheelZip::open(&file)?, locked, target.python.as_ref().expect("a Python"))?;
    let mut tar = Vec::new();
    wheel::write(&mut tar, &file, locked, &layout, &target, &Silent)?;
    Ok(tar)
}

/// One file of a segment.
struct Packed {
    text: String,
    mode: u32,
    mtime: u64,
}

/// A wheel's segment by path in the prefix; the order of its entries.
fn segment(wheel: &Wheel, locked: &LockedWheel) -> (BTreeMap<String, Packed>, Vec<String>) {
    let tar = packed_as(wheel, locked).unwrap_or_else(|error| panic!("{:?}", error.chain()));
    let mut files = BTreeMap::new();
    let mut order = Vec::new();
    let mut archive = tar::Archive::new(tar.as_slice());
    for entry in archive.entries().expect("a tar") {
        let mut entry = entry.expect("an entry");
        let path = entry.path().expect("a path").to_str().expect("UTF-8").to_owned();
        let path = path.strip_prefix(&format!("{}/", &PREFIX[1..])).expect("in the prefix").to_owned();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).expect("content");
        let header = entry.header();
        assert_eq!((header.uid().expect("a number"), header.gid().expect("a number")), (0, 0));
        let (mode, mtime) = (header.mode().expect("a mode"), header.mtime().expect("a time"));
        order.push(path.clone());
        let text = String::from_utf8_lossy(&content).into_owned();
        assert!(files.insert(path, Packed { text, mode, mtime }).is_none(), "a path twice");
    }
    (files, order)
}

/// What is said of a wheel that is not packed.
fn refused(wheel: &Wheel) -> String {
    said(&packed_as(wheel, &locked(wheel)).map(|_| ()).expect_err("is refused"))
}

fn said(error: &Error) -> String {
    [error.chain().join("\n"), error.hints().join("\n")].join("\n")
}

fn sample() -> Wheel {
    Wheel::new("Foo_Bar", "1.0")
        .file("foo/__init__.py", "x = 1\n")
        .executable("foo/tool", "elf")
        .data("purelib/foo/pure.py", "")
        .data("platlib/foo/native.so", "so")
        .data("scripts/run", "#!python -O\r\nprint(1)\n")
        .data("scripts/gui", "#!pythonw\nprint(1)\n")
        .data("scripts/shell", "#!/bin/sh\n")
        .data("scripts/empty", "")
        .data("scripts/only", "#!python")
        .data("data/etc/foo.conf", "a = b\n")
        .data("headers/foo.h", "int x;\n")
        .entry_point("foo = foo.cli:main [extra]")
        .file("Foo_Bar-1.0.dist-info/licenses/LICENSE", "text")
}

#[test]
fn files_lie_where_installers_put_them() {
    let wheel = sample();
    let (files, order) = segment(&wheel, &locked(&wheel));
    let dist_info = format!("{SITE_PACKAGES}/Foo_Bar-1.0.dist-info");
    let paths: Vec<&str> = files.keys().map(String::as_str).collect();
    let expected = [
        "bin/empty".to_owned(),
        "bin/foo".to_owned(),
        "bin/gui".to_owned(),
        "bin/only".to_owned(),
        "bin/run".to_owned(),
        "bin/shell".to_owned(),
        "etc/foo.conf".to_owned(),
        "include/python3.11/Foo_Bar/foo.h".to_owned(),
        format!("{dist_info}/INSTALLER"),
        format!("{dist_info}/METADATA"),
        format!("{dist_info}/RECORD"),
        format!("{dist_info}/WHEEL"),
        format!("{dist_info}/entry_points.txt"),
        format!("{dist_info}/licenses/LICENSE"),
        format!("{SITE_PACKAGES}/foo/__init__.py"),
        format!("{SITE_PACKAGES}/foo/native.so"),
        format!("{SITE_PACKAGES}/foo/pure.py"),
        format!("{SITE_PACKAGES}/foo/tool"),
    ];
    assert_eq!(paths, expected);
    assert!(order[..order.len() - 1].is_sorted(), "{order:?}");
    assert_eq!(order.last(), Some(&format!("{dist_info}/RECORD")));
    let executable: Vec<&str> =
        files.iter().filter(|(_, file)| file.mode == 0o755).map(|(path, _)| path.as_str()).collect();
    let tool = format!("{SITE_PACKAGES}/foo/tool");
    assert_eq!(executable, ["bin/empty", "bin/foo", "bin/gui", "bin/only", "bin/run", "bin/shell", &tool]);
    assert!(files.values().all(|file| [0o755, 0o644].contains(&file.mode) && file.mtime == MTIME));
    assert_eq!(files[&format!("{dist_info}/INSTALLER")].text, "condaimg\n");
}

#[test]
fn scripts_are_run_by_the_python_in_the_image() {
    let (files, _) = segment(&sample(), &locked(&sample()));
    let first = format!("#!{PREFIX}/bin/python3.11\n");
    for script in ["bin/run", "bin/gui"] {
        assert_eq!(files[script].text, format!("{first}print(1)\n"));
    }
    assert_eq!(files["bin/only"].text, first);
    assert_eq!(files["bin/shell"].text, "#!/bin/sh\n");
    let made = &files["bin/foo"].text;
    assert!(made.starts_with(&first) && made.contains("from foo.cli import main") && made.contains("main()"), "{made}");
}

#[test]
fn record_lists_what_is_in_the_image() {
    let (files, _) = segment(&sample(), &locked(&sample()));
    let record = format!("{SITE_PACKAGES}/Foo_Bar-1.0.dist-info/RECORD");
    let expected: Vec<String> = files
        .iter()
        .map(|(path, file)| {
            let inside = path.strip_prefix(&format!("{SITE_PACKAGES}/"));
            let name = inside.map_or_else(|| format!("../../../{path}"), str::to_owned);
            match *path == record {
                true => format!("{name},,"),
                false => format!("{name},sha256={},{}", hash_of(file.text.as_bytes()), file.text.len()),
            }
        })
        .collect();
    let mut lines: Vec<&str> = files[&record].text.lines().collect();
    assert!(lines.is_sorted(), "{lines:?}");
    lines.sort_unstable();
    let mut expected: Vec<&str> = expected.iter().map(String::as_str).collect();
    expected.sort_unstable();
    assert_eq!(lines, expected);
}

#[test]
fn what_installers_and_people_leave_in_a_wheel_is_not_taken() {
    let wheel = Wheel::new("foo", "1.0")
        .info("INSTALLER", "pip")
        .info("REQUESTED", "")
        .info("direct_url.json", r#"{"url": "file:///home/somebody"}"#)
        .info("RECORD.jws", "a signature");
    let (files, _) = segment(&wheel, &locked(&wheel));
    let names: Vec<&str> = files.keys().filter_map(|path| path.rsplit('/').next()).collect();
    assert_eq!(names, ["INSTALLER", "METADATA", "RECORD", "RECORD.jws", "WHEEL"]);
    assert!(files.values().all(|file| file.text != "pip"));
}

#[test]
fn direct_references_are_told() {
    let wheel = Wheel::new("foo", "1.0");
    let direct_url = |source: WheelSource, index: bool| {
        let mut locked = locked(&wheel);
        locked.source = source;
        if !index {
            locked.index = None;
        }
        let (mut files, _) = segment(&wheel, &locked);
        let record = &files[&format!("{SITE_PACKAGES}/foo-1.0.dist-info/RECORD")].text.clone();
        let file = files.remove(&format!("{SITE_PACKAGES}/foo-1.0.dist-info/direct_url.json"));
        assert_eq!(record.contains("direct_url.json,sha256="), file.is_some());
        file.map(|file| serde_json::from_str::<serde_json::Value>(&file.text).expect("JSON"))
    };
    let url = |text: &str| WheelSource::Wheel { url: text.parse().expect("a URL") };
    assert_eq!(direct_url(url("https://files.example/foo-1.0-py3-none-any.whl"), true), None);
    assert_eq!(direct_url(url("file:///home/somebody/foo-1.0-py3-none-any.whl"), false), None);
    let told = direct_url(url("https://me:secret@files.example/foo-1.0-py3-none-any.whl"), false).expect("is told");
    assert_eq!(told["url"], "https://files.example/foo-1.0-py3-none-any.whl");
    assert_eq!(told["archive_info"]["hashes"]["sha256"], wheel.sha256().hex());
    let commit = "a".repeat(40);
    let git = WheelSource::Git {
        url: "https://git.example/foo.git".parse().expect("a URL"),
        commit: commit.clone(),
        subdirectory: Some("python".to_owned()),
    };
    let told = direct_url(git, false).expect("is told");
    assert_eq!((&told["vcs_info"]["vcs"], &told["vcs_info"]["commit_id"]), (&"git".into(), &commit.into()));
    assert_eq!((&told["url"], &told["subdirectory"]), (&"https://git.example/foo.git".into(), &"python".into()));
}

#[test]
fn metadata_is_read() {
    let workspace = Workspace::new();
    let wheel = Wheel::new("Foo.Bar", "1.0.post1")
        .requires(&["a >=1", "b; extra == 'x'"])
        .field("Requires-Python: >=3.8")
        .field("Provides-Extra: x");
    let metadata = read_metadata(&file_of(&wheel, &workspace.path("wheels"))).expect("reads");
    assert_eq!((metadata.name.as_str(), metadata.version.as_str()), ("foo-bar", "1.0.post1"));
    assert_eq!(metadata.requires_dist, ["a >=1", "b; extra == 'x'"]);
    assert_eq!(metadata.requires_python.as_deref(), Some(">=3.8"));
    assert_eq!(metadata.provides_extra, ["x"]);
    check_tags(&metadata, (3, 11), Some((2, 36)), Subdir::Linux64).expect("fits");
}

#[test]
fn a_wheel_for_another_target_is_refused_with_its_tags() {
    let workspace = Workspace::new();
    for tags in ["cp312-cp312-manylinux_2_17_x86_64", "cp311-cp311-manylinux_2_40_x86_64", "cp311-cp311-win_amd64"] {
        let wheel = Wheel::new("foo", "1.0").tags(tags);
        let metadata = read_metadata(&file_of(&wheel, &workspace.path("wheels"))).expect("reads");
        let error = check_tags(&metadata, (3, 11), Some((2, 36)), Subdir::Linux64).expect_err("does not fit");
        let message = said(&error);
        for part in [&wheel.file_name(), tags, "CPython 3.11", "glibc 2.36", "linux-64"] {
            assert!(message.contains(part), "{part}: {message}");
        }
    }
}

#[test]
fn a_wheel_is_what_the_lock_says() {
    let wheel = Wheel::new("foo", "1.0");
    for (name, version) in [("bar", "1.0"), ("foo", "1.1")] {
        let mut locked = locked(&wheel);
        (locked.name, locked.version) = (name.to_owned(), version.to_owned());
        let message = said(&packed_as(&wheel, &locked).expect_err("is another"));
        assert!(message.contains("says that it is `foo 1.0`") && message.contains(&wheel.file_name()), "{message}");
    }
}

#[test]
fn what_is_left_out_is_not_listed_unless_it_is_there_all_the_same() {
    let wheel = Wheel::new("foo", "1.0").file("ns/__init__.py", "same").file("ns/lost.py", "lost").file("foo.py", "");
    let mut locked = locked(&wheel);
    locked.facts.shared.insert(format!("{SITE_PACKAGES}/ns/__init__.py"));
    locked.facts.clobbered.insert(format!("{SITE_PACKAGES}/ns/lost.py"), "bar".to_owned());
    let (files, _) = segment(&wheel, &locked);
    let record = &files[&format!("{SITE_PACKAGES}/foo-1.0.dist-info/RECORD")].text;
    assert!(!files.contains_key(&format!("{SITE_PACKAGES}/ns/__init__.py")));
    assert!(!files.contains_key(&format!("{SITE_PACKAGES}/ns/lost.py")));
    assert!(record.contains(&format!("ns/__init__.py,sha256={},4\n", hash_of(b"same"))), "{record}");
    assert!(!record.contains("lost"), "{record}");
}

#[test]
fn odd_times_are_the_same_everywhere() {
    let wheel = Wheel::new("foo", "1.0").file("a", "").dos_time(0, 0).file("b", "").dos_time(0xffff, 0xffff);
    let (files, _) = segment(&wheel, &locked(&wheel));
    // The first day of a zip's calendar.
    assert_eq!(files[&format!("{SITE_PACKAGES}/a")].mtime, 315_532_800);
    assert_eq!(files[&format!("{SITE_PACKAGES}/b")].mtime, 315_532_800);
}
