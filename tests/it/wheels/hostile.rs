//! Wheels that are damaged, or made to write where they must not, or to show different files to different readers:
//! each refused, with the wheel's name.

use super::{SITE_PACKAGES, locked, packed_as, refused, said, segment};
use crate::common::wheels::Wheel;

fn foo() -> Wheel {
    Wheel::new("foo", "1.0").file("foo.py", "x = 1\n")
}

/// Every wheel must be refused with these words, and its name.
fn all_refused(cases: Vec<(Wheel, &str)>) {
    for (wheel, words) in cases {
        let message = refused(&wheel);
        assert!(message.contains(&wheel.file_name()) && message.contains(words), "{words}: {message}");
    }
}

#[test]
fn paths_that_leave_their_place() {
    all_refused(vec![
        (foo().file("/etc/passwd", ""), "`/etc/passwd` is an absolute path"),
        (foo().file("../x", ""), "`../x` climbs with `..`"),
        (foo().file("foo/../../x", ""), "climbs with `..`"),
        (foo().file("foo/./x", ""), "is no plain path"),
        (foo().file("foo//x", ""), "is no plain path"),
        (foo().file("foo\\x", ""), "holds a backslash"),
        (foo().file("..\\x", ""), "holds a backslash"),
        (foo().file("C:/x", ""), "begins with a drive letter"),
        (foo().file("foo\0.py", ""), "holds a NUL"),
        (foo().data("data/../../../etc/x", ""), "climbs with `..`"),
        (foo().data("scripts/../x", ""), "climbs with `..`"),
        (foo().file("foo/.wh.bar", ""), "would remove files from the image"),
        (foo().data("data/.wh..wh..opq", ""), "would remove files from the image"),
        (foo().data("data/conda-meta/python.json", "{}"), "among conda's own records"),
        (foo().data("data/conda-meta", ""), "among conda's own records"),
        (foo().data("unknown/x", ""), "it is not known where"),
        (foo().file("foo-1.0.data/x", ""), "it is not known where"),
        (foo().file("bar-1.0.data/data/x", ""), "has another name than its metadata"),
    ]);
}

#[test]
fn entries_that_are_no_files() {
    all_refused(vec![
        (foo().file("link", "/etc/passwd").mode(0o120_777), "cannot hold links or devices"),
        (foo().file("device", "").mode(0o020_644), "cannot hold links or devices"),
        (foo().file("folder", "").mode(0o040_755), "cannot hold links or devices"),
        (foo().file("secret", "x").flags(1), "is encrypted"),
        (foo().file("odd", "x").method(12), "is packed by a method that wheels do not use"),
        (foo().file("odd", "x").method(99), "is packed by a method that wheels do not use"),
    ]);
}

/// An extra field that gives an entry another name (Info-ZIP, 0x7075).
fn second_name(name: &str) -> Vec<u8> {
    let mut field = vec![0x75, 0x70];
    field.extend(u16::try_from(name.len() + 5).expect("short").to_le_bytes());
    field.push(1);
    let mut crc = flate2::Crc::new();
    crc.update(b"plain");
    field.extend(crc.sum().to_le_bytes());
    field.extend(name.as_bytes());
    field
}

#[test]
fn zips_that_say_two_things() {
    all_refused(vec![
        (foo().file("foo.py", "x = 2\n"), "it holds a file twice"),
        (foo().file("plain", "x").local_path("other"), "different things of the same file"),
        (foo().file("plain", "x").local_path("Plain"), "different things of the same file"),
        (foo().file("copy.py", "x = 1\n").overlaps(), "different things of the same file"),
        (foo().file("hidden.py", "").unlisted().hidden(), "different things of the same file"),
        (foo().prepended(b"#!/bin/sh\n"), "begins with bytes that are no part of the zip"),
        (foo().file("plain", "x").extra(&second_name("other")), "foo-1.0-py3-none-any.whl"),
        (foo().file("foo.py/x", ""), "lies below"),
        (foo().data("purelib/foo.py", ""), "are both installed as"),
        (foo().data("data/lib/python3.11/site-packages/foo.py", ""), "are both installed as"),
        (foo().entry_point("foo = foo:main").data("scripts/foo/x", ""), "lies below `bin/foo`"),
    ]);
}

#[test]
fn contents_that_are_not_what_record_says() {
    let wrong = "sha256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU";
    all_refused(vec![
        (foo().file("a.py", "x").hash(wrong), "`a.py` has another hash than RECORD gives"),
        (foo().data("scripts/a", "#!python\nx").hash(wrong), "has another hash than RECORD gives"),
        (foo().file("a.py", "x").hash(""), "RECORD gives no hash for `a.py`"),
        (foo().file("a.py", "x").hash("md5=nUFQrhfFLdLFSlfPOSPcbQ"), "no hash that can be relied on (`md5`)"),
        (foo().file("a.py", "x").hash("sha256=AAAA"), "no hash that can be relied on"),
        (foo().file("a.py", "x").unlisted(), "RECORD does not list `a.py`"),
        (foo().record_line("gone.py,,"), "RECORD lists `gone.py`, which is not there"),
        (foo().record_line(&format!("foo.py,{wrong},6")), "RECORD says two things of `foo.py`"),
        (foo().without_info("RECORD").info("RECORD.jws", ""), "it holds no `foo-1.0.dist-info/RECORD`"),
    ]);
}

#[test]
fn sizes_that_lie() {
    // More and less than there is, packed and not.
    for wheel in [
        foo().file("a.py", "x".repeat(1000)).said_size(10),
        foo().file("a.py", "x".repeat(1000)).said_size(2000),
        foo().file("a.py", "x".repeat(1000)).said_size(2000).stored(),
        foo().file("a.py", "x".repeat(1000)).said_size(10).stored(),
    ] {
        let message = refused(&wheel);
        assert!(message.contains(&wheel.file_name()), "{message}");
    }
}

#[test]
fn bombs_are_refused_before_they_are_unpacked() {
    // Headers that promise 3 GiB each; what is there does not matter.
    let bomb = (0..4).fold(foo(), |wheel, index| wheel.file(&format!("{index}"), "x").said_size(3 << 30));
    let message = refused(&bomb);
    assert!(message.contains("would become 128849") && message.contains(&bomb.file_name()), "{message}");
    // Metadata is read whole, but not any amount of it.
    let large = foo().info("entry_points.txt", vec![b'#'; 65 << 20]);
    assert!(refused(&large).contains("`foo-1.0.dist-info/entry_points.txt` has 68157440 bytes"));
    // A file of zeros is none: below the bound that always holds.
    let zeros = foo().file("zeros", vec![0; 8 << 20]);
    let (files, _) = segment(&zeros, &locked(&zeros));
    assert_eq!(files[&format!("{SITE_PACKAGES}/zeros")].text.len(), 8 << 20);
}

#[test]
fn names_that_are_too_long_for_linux() {
    let deep = "d/".repeat(2_040);
    all_refused(vec![
        (foo().file(&format!("foo/{}", "n".repeat(256)), ""), "256 bytes, Linux takes at most 255"),
        (foo().file(&format!("foo/{}", "ü".repeat(128)), ""), "256 bytes"),
        // Too long only with the prefix and site-packages.
        (foo().file(&format!("{deep}x"), ""), "at most 4095"),
        (foo().entry_point(&format!("{} = foo:main", "n".repeat(256))), "256 bytes"),
    ]);
    let longest = foo().file(&format!("foo/{}", "n".repeat(255)), "");
    packed_as(&longest, &locked(&longest)).expect("fits");
}

#[test]
fn metadata_that_contradicts_itself() {
    let renamed = |content: &str| Wheel::new("foo", "1.0").info("METADATA", content);
    all_refused(vec![
        (foo().without_info("METADATA"), "it holds no `foo-1.0.dist-info/METADATA`"),
        (foo().without_info("WHEEL"), "it holds no `foo-1.0.dist-info/WHEEL`"),
        (foo().file("bar-1.0.dist-info/METADATA", ""), "it has two metadata folders"),
        (renamed("Metadata-Version: 2.1\nName: bar\nVersion: 1.0\n"), "its METADATA says that it is `bar 1.0`"),
        (renamed("Metadata-Version: 2.1\nName: foo\nVersion: 2.0\n"), "its METADATA says that it is `foo 2.0`"),
        (renamed("Metadata-Version: 2.1\nName: foo\n"), "its METADATA has no `Version`"),
        (foo().info("WHEEL", "Wheel-Version: 2.0\n"), "has format 2.0, only 1 is known"),
        (foo().info("WHEEL", "Tag: py3-none-any\n"), "its WHEEL has no `Wheel-Version`"),
        (foo().entry_points("[console_scripts]\n../x = a:b\n"), "invalid entry point"),
        (foo().entry_points("[console_scripts]\nx = a:b; import os\n"), "invalid entry point"),
        (foo().entry_points("[console_scripts]\nx = a\n"), "invalid entry point"),
    ]);
    // A newer minor version of the format only adds what may be ignored.
    let newer = foo().info("WHEEL", "Wheel-Version: 1.9\n");
    packed_as(&newer, &locked(&newer)).expect("is taken");
}

#[test]
fn what_is_no_wheel_at_all() {
    for bytes in [&b""[..], b"PK", b"not a zip", &foo().bytes()[..100]] {
        let workspace = crate::common::Workspace::new();
        let path = workspace.file("foo-1.0-py3-none-any.whl", bytes);
        let file = condaimg::pack::WheelFile { path, name: foo().file_name() };
        let error = condaimg::pack::wheel::read_metadata(&file).expect_err("is none");
        assert!(said(&error).contains("the wheel `foo-1.0-py3-none-any.whl` is damaged"), "{}", said(&error));
    }
    // Any byte of it may be wrong: an error, and never a panic or another content.
    let wheel = foo();
    let whole = packed_as(&wheel, &locked(&wheel)).expect("packs");
    let bytes = wheel.bytes();
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x55;
        if let Ok(packed) = pack_bytes(&wheel, &damaged) {
            let same_content = |tar: &[u8]| contents(tar);
            assert_eq!(same_content(&packed), same_content(&whole), "byte {at}");
        }
    }
}

fn pack_bytes(wheel: &Wheel, bytes: &[u8]) -> condaimg::util::Result<Vec<u8>> {
    use condaimg::pack::wheel::{self, WheelLayout, WheelZip};
    let workspace = crate::common::Workspace::new();
    let path = workspace.file(&wheel.file_name(), bytes);
    let file = condaimg::pack::WheelFile { path, name: wheel.file_name() };
    let target = super::target();
    let locked = locked(wheel);
    let layout = WheelLayout::read(&mut WheelZip::open(&file)?, &locked, target.python.as_ref().expect("a Python"))?;
    let mut tar = Vec::new();
    wheel::write(&mut tar, &file, &locked, &layout, &target, &condaimg::util::report::Silent)?;
    Ok(tar)
}

/// Paths and contents of a tar. Times and modes are in no RECORD: the hash of the whole wheel keeps them.
fn contents(tar: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut archive = tar::Archive::new(tar);
    let entries = archive.entries().expect("a tar").map(|entry| {
        let mut entry = entry.expect("an entry");
        let path = entry.path().expect("a path").to_str().expect("UTF-8").to_owned();
        let mut content = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut content).expect("content");
        (path, content)
    });
    entries.collect()
}
