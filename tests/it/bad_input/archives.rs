//! Archives that are damaged, lie about themselves, or would write where they must not.

use std::collections::BTreeMap;
use std::io::Read as _;

use serde_json::{Value, json};
use tar::EntryType;

use super::Bench;
use crate::common::packages::{FileMode, Format, Package, bzip2_of, zstd_of};
use crate::common::succeed;

const FORMATS: [Format; 2] = [Format::Conda, Format::TarBz2];

/// A package named `bad`.
fn bad() -> Package {
    Package::new("bad", "1.0")
}

impl Bench {
    /// Puts a package into the channel and sees a build of it refused.
    fn refuses_package(&mut self, package: &Package, format: Format, says: &[&str]) {
        self.refuses_bytes(&package.clone(), format, &package.archive(format), says);
    }

    /// The same with any bytes for the archive.
    fn refuses_bytes(&mut self, package: &Package, format: Format, bytes: &[u8], says: &[&str]) {
        let path = self.channel.add_bytes(package, format, bytes);
        self.channel.index();
        let mut all = vec!["bad-1.0-0"];
        all.extend(says);
        self.refuses(&mut self.build(&["bad", "fine"]), 1, &all);
        // A lock pins the archive, which the next case replaces.
        let _ = fs_err::remove_file(self.workspace.path("condaimg.lock"));
        fs_err::remove_file(path).expect("removes");
        self.channel.forget("bad");
    }

    /// Packs the correct `bad` where the wrong ones were refused.
    fn recovers_with(&mut self, package: &Package) {
        self.channel.add(package, Format::Conda);
        self.channel.index();
        self.recovers(&["bad", "fine"]);
    }
}

#[test]
fn a_flipped_byte_or_a_missing_end_is_found_before_anything_is_done_with_it() {
    for format in FORMATS {
        let mut bench = Bench::new();
        let package = bad().file("share/bad", "x".repeat(5_000));
        let path = bench.channel.add(&package, format);
        bench.channel.index();
        let whole = fs_err::read(&path).expect("reads");
        let name = package.file_name(format);
        let mut flipped = whole.clone();
        flipped[whole.len() / 2] ^= 1;
        fs_err::write(&path, &flipped).expect("writes");
        let says = [format!("`{name}` is damaged: its sha256 is"), "it came from file://".to_owned()];
        bench.refuses(&mut bench.build(&["bad"]), 1, &says.each_ref().map(String::as_str));
        fs_err::write(&path, &whole[..whole.len() - 1]).expect("writes");
        let says = format!("`{name}` is damaged: its size is {} bytes", whole.len() - 1);
        bench.refuses(&mut bench.build_here(), 1, &[&says]);
        fs_err::remove_file(&path).expect("removes");
        bench.refuses(&mut bench.build_here(), 1, &[&format!("`{name}` is not in its channel"), "index the channel"]);
        assert!(!bench.workspace.path("condaimg.lock").exists(), "nothing was locked");
        fs_err::write(&path, &whole).expect("writes");
        bench.recovers(&["bad"]);
    }
}

#[test]
fn archives_with_the_right_hash_and_broken_content_are_damaged() {
    let mut bench = Bench::new();
    let package = bad().file("share/a", noise(3_000)).file("share/b", noise(300_000));
    let (content, info) = (package.content_tar(), package.info_tar());
    let (content_zst, info_zst) = (zstd_of(&content), zstd_of(&info));
    let whole_tar = [&info[..info.len() - 1024], &content].concat();
    let conda = |content: &[u8], info: &[u8]| (Format::Conda, package.conda_of(content, info));
    let bz2 = |tar: &[u8]| (Format::TarBz2, bzip2_of(tar));
    let whole_bz2 = bzip2_of(&whole_tar);
    let cases = [
        (Format::Conda, noise(2_000)),
        (Format::Conda, Vec::new()),
        (Format::TarBz2, noise(2_000)),
        (Format::TarBz2, b"BZh9".to_vec()),
        (Format::TarBz2, whole_bz2[..whole_bz2.len() / 2].to_vec()),
        bz2(&whole_tar[..whole_tar.len() / 2]),
        bz2(&whole_tar[..info.len() - 1024 + 100]),
        bz2(&noise(10_000)),
        conda(&noise(2_000), &info_zst),
        conda(&content_zst, &noise(2_000)),
        conda(&content_zst[..content_zst.len() / 2], &info_zst),
        conda(&zstd_of(&content[..content.len() / 2]), &info_zst),
        conda(&zstd_of(&content[..200]), &info_zst),
        conda(&zstd_of(&[]), &info_zst),
        conda(&content_zst, &zstd_of(&[])),
        conda(&content_zst, &zstd_of(&info[..info.len() / 2])),
        conda(&[], &info_zst),
    ];
    for (format, bytes) in cases {
        bench.refuses_bytes(&package, format, &bytes, &["the archive of `bad-1.0-0` is damaged"]);
    }
    bench.recovers_with(&package);
}

#[test]
fn metadata_that_is_broken_or_lies_is_refused() {
    let mut bench = Bench::new();
    let damaged = "the archive of `bad-1.0-0` is damaged";
    let refused = "package `bad-1.0-0` is refused";
    let good = bad().file("share/a", "a");
    let paths =
        |entries: Value| good.clone().info("paths.json", json!({"paths_version": 1, "paths": entries}).to_string());
    let path = |path: &str| json!({"_path": path, "path_type": "hardlink"});
    let index = |change: &dyn Fn(&mut Value)| {
        let mut index = good.index_json();
        change(&mut index);
        good.clone().info("index.json", index.to_string())
    };
    let cases: Vec<(Package, &str, &str)> = vec![
        (good.clone().info("paths.json", "{"), damaged, "`info/paths.json` cannot be read"),
        (good.clone().info("paths.json", [0xff]), damaged, "`info/paths.json` cannot be read"),
        (good.clone().info("index.json", "[]"), damaged, "`info/index.json` cannot be read"),
        (good.clone().without_info("index.json"), damaged, "it holds no `info/index.json`"),
        (good.clone().without_info("paths.json").without_info("files"), damaged, "it holds no `info/paths.json`"),
        (good.clone().old_metadata().info("files", "share/none\n"), damaged, "`share/none` is listed but not there"),
        (paths(json!([path("share/none")])), damaged, "`share/none` is listed but not there"),
        (paths(json!([path("")])), refused, "it brings the prefix itself"),
        (good.clone().directory("share/d").listed_too(), damaged, "`share/d` is listed but not there"),
        (paths(json!([path("/etc/passwd")])), refused, "`/etc/passwd` is an absolute path"),
        (paths(json!([path("../x")])), refused, "`../x` climbs with `..`"),
        (paths(json!([path("share/a\0b")])), refused, "holds a NUL"),
        (paths(json!([path("share/a"), path("./share//a")])), refused, "installed as `share/a`"),
        (good.clone().file("share/a/b", "").listed_too(), refused, "`share/a/b`"),
        (index(&|index| index["name"] = json!("fine")), damaged, "it says that it is `fine-1.0-0`"),
        (index(&|index| index["version"] = json!("2.0")), damaged, "it says that it is `bad-2.0-0`"),
        (index(&|index| index["build"] = json!("../../../etc/x")), refused, "`bad-1.0-../../../etc/x`"),
        (good.clone().file("conda-meta/bad-1.0-0.json", "{}"), refused, "`conda-meta/bad-1.0-0.json`"),
        (good.clone().file("conda-meta/history", ""), refused, "`conda-meta/history`"),
    ];
    for (package, kind, says) in cases {
        bench.refuses_package(&package, Format::Conda, &[kind, says]);
        bench.refuses_package(&package, Format::TarBz2, &[kind, says]);
    }
    bench.recovers_with(&good);
}

#[test]
fn entry_points_must_be_plain_commands() {
    let mut bench = Bench::new();
    bench.channel.add(&Package::new("python", "3.11.0").file("bin/python3.11", "x"), Format::Conda);
    for command in ["../../etc/x", "/etc/x", "sub/x", "..", "."] {
        let package = bad().noarch_python().depends(&["python"]).entry_point(&format!("{command} = bad:main"));
        let point = format!("`{command} = bad:main`");
        let says = ["package `bad-1.0-0` is refused", "invalid entry point", "`info/link.json`", &point];
        bench.refuses_package(&package, Format::Conda, &says);
    }
    let package = bad().noarch_python().depends(&["python"]).entry_point("fine-command = bad:main");
    bench.recovers_with(&package);
}

#[test]
fn sizes_that_are_too_large_to_be_true_are_damage() {
    let mut bench = Bench::new();
    let good = bad().file("share/a", "a");
    // Larger than any archive may become; what does not fit a header is damage.
    const U63: u64 = u64::MAX >> 1;
    let says = |kind, size| match (kind, size) {
        (EntryType::Regular, ..=U63) => "--limit archive-",
        _ => "the archive of `bad-1.0-0` is damaged",
    };
    for size in [1 << 40, u64::MAX >> 1, u64::MAX] {
        for kind in [EntryType::Regular, EntryType::XHeader, EntryType::GNULongName, EntryType::GNULongLink] {
            let huge = [header("share/huge", kind, size), vec![b'x'; 1024]].concat();
            let content = [&good.content_tar()[..1024], &huge].concat();
            let bytes = good.conda_of(&zstd_of(&content), &zstd_of(&good.info_tar()));
            bench.refuses_bytes(&good, Format::Conda, &bytes, &[says(kind, size)]);
            let tar = [&good.info_tar()[..good.info_tar().len() - 1024], &content].concat();
            bench.refuses_bytes(&good, Format::TarBz2, &bzip2_of(&tar), &[says(kind, size)]);
        }
    }
    let info = [header("info/paths.json", EntryType::Regular, 1 << 40), vec![b'x'; 1024]].concat();
    let bytes = good.conda_of(&zstd_of(&good.content_tar()), &zstd_of(&info));
    bench.refuses_bytes(&good, Format::Conda, &bytes, &["--limit archive-"]);
    bench.recovers_with(&good);
}

/// A tar header that promises so many bytes.
fn header(path: &str, kind: EntryType, size: u64) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.set_path(path).expect("a path");
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_size(size);
    header.set_cksum();
    header.as_bytes().to_vec()
}

#[test]
fn entries_that_would_write_outside_are_refused_by_their_package() {
    let mut bench = Bench::new();
    let good = bad().file("share/a", "a");
    let raw = |path: &str, kind: EntryType, link: &str| good.clone().raw(path, kind, link, b"");
    let below = |link: &str, target: &str| good.clone().symlink(link, target).file(&format!("{link}/x"), "x");
    let out = "leads out of the prefix";
    let cases: Vec<(Package, &str)> = vec![
        (raw("/etc/passwd", EntryType::Regular, ""), "`/etc/passwd` is an absolute path"),
        (raw("share/../../x", EntryType::Regular, ""), "`share/../../x` climbs with `..`"),
        (raw("..", EntryType::Directory, ""), "`..` climbs with `..`"),
        (raw("dev/null", EntryType::Char, ""), "`dev/null` is a device"),
        (raw("dev/sda", EntryType::Block, ""), "`dev/sda` is a device"),
        (raw("run/fifo", EntryType::Fifo, ""), "`run/fifo` is a device"),
        (raw("share/h", EntryType::Link, "/etc/passwd"), "`/etc/passwd` is an absolute path"),
        (raw("share/h", EntryType::Link, "../../etc/passwd"), "`../../etc/passwd` climbs with `..`"),
        (raw("share/s", EntryType::Symlink, "").listed_too(), "link `share/s` has no target"),
        (below("out", "/etc"), out),
        (below("out", ".."), out),
        (below("share/out", "../.."), out),
        (below("share/out", "../share/../../x"), out),
        (good.clone().symlink("one", "two").symlink("two", "/etc").file("one/x", "x"), out),
        // The link comes after what lies below it.
        (good.clone().file("late/x", "x").symlink("late", "/etc"), out),
        (good.clone().file("late/x", "x").symlink("late", "../.."), out),
        // The metadata calls the link a file.
        (good.clone().file("late/x", "x").raw("late", EntryType::Symlink, "/etc", b"").listed_too(), "`late"),
        (good.clone().raw("early", EntryType::Symlink, "share", b"").listed_too().file("early/x", "x"), "`early"),
        (good.clone().symlink("a", "b").symlink("b", "a").file("a/x", "x"), "`a/x`"),
        (good.clone().symlink("self", "self").file("self/x", "x"), "`self/x`"),
        (good.clone().raw("share/a", EntryType::Regular, "", b"b"), "it holds `share/a` twice"),
        (good.clone().symlink("in", "share").file("in/a", "b"), "installed as `share/a`"),
        (pax(&good, "path", "share/a\0b"), "holds a NUL"),
        (pax(&good, "path", "../x"), "`../x` climbs with `..`"),
        (pax(&good, "path", "/etc/passwd"), "`/etc/passwd` is an absolute path"),
    ];
    for (package, says) in cases {
        for format in FORMATS {
            bench.refuses_package(&package, format, &["package `bad-1.0-0` is refused", says]);
        }
    }
    bench.recovers_with(&good);
}

/// Adds an entry whose path a PAX record says.
fn pax(package: &Package, key: &str, value: &str) -> Package {
    let rest = key.len() + value.len() + 3;
    let record = format!("{} {key}={value}\n", rest + 2);
    assert_eq!(record.len(), rest + 2, "a record of two digits");
    let package = package.clone().raw("PaxHeaders/x", EntryType::XHeader, "", record.as_bytes());
    package.raw("share/short", EntryType::Regular, "", b"")
}

#[test]
fn odd_but_harmless_entries_are_packed_at_their_real_place() {
    let mut bench = Bench::new();
    let package = bad()
        .symlink("lib64", "lib")
        .file("lib64/inside", "inside")
        .symlink("share/up", "../lib/deep")
        .file("share/up/x", "x")
        .symlink("dangling", "nowhere/at/all")
        .symlink("absolute", "/etc/hostname")
        .symlink("outward", "../../../../etc/hostname")
        .symlink("loop", "loop")
        .file_with_mode("bin/setuid", "#!/bin/sh\n", 0o6755)
        .file_with_mode("share/sticky", "s", 0o1666)
        .hardlink("share/hard", "share/sticky")
        .file_with_placeholder("share/text", "nothing to replace", "", FileMode::Text)
        .file_with_placeholder("share/binary", "nothing to replace", "", FileMode::Binary)
        .raw("share/unlisted", EntryType::Regular, "", b"not in paths.json");
    for format in FORMATS {
        bench.channel.add(&package, format);
        bench.channel.index();
        let _ = fs_err::remove_file(bench.workspace.path("condaimg.lock"));
        succeed(bench.build(&["bad"]).args(["--output", "oci:image"]));
        let files = files(&bench);
        let of = |path: &str| files.get(path).unwrap_or_else(|| panic!("no `{path}` in {:?}", files.keys()));
        assert_eq!(of("lib/inside").content, b"inside");
        assert_eq!(of("lib/deep/x").content, b"x");
        for (link, target) in [
            ("lib64", "lib"),
            ("share/up", "../lib/deep"),
            ("dangling", "nowhere/at/all"),
            ("absolute", "/etc/hostname"),
            ("outward", "../../../../etc/hostname"),
            ("loop", "loop"),
        ] {
            assert_eq!((of(link).kind, of(link).link.as_str()), (EntryType::Symlink, target), "{link}");
        }
        assert_eq!(of("bin/setuid").mode, 0o755);
        assert_eq!(of("share/sticky").mode, 0o644);
        assert_eq!(of("share/hard").link, "opt/conda/envs/default/share/sticky");
        assert_eq!(of("share/text").content, of("share/binary").content);
        assert_eq!(of("share/text").content, b"nothing to replace");
        assert!(!files.contains_key("share/unlisted"), "{:?}", files.keys());
        assert!(files.keys().all(|path| !path.starts_with("lib64/") && !path.starts_with("share/up/")));
        fs_err::remove_dir_all(bench.workspace.path("image")).expect("removes");
        bench.channel.forget("bad");
    }
}

struct Packed {
    kind: EntryType,
    link: String,
    mode: u32,
    content: Vec<u8>,
}

/// What the layers of `image/` hold below the prefix.
fn files(bench: &Bench) -> BTreeMap<String, Packed> {
    let mut files = BTreeMap::new();
    for blob in fs_err::read_dir(bench.workspace.path("image/blobs/sha256")).expect("blobs").flatten() {
        let bytes = fs_err::read(blob.path()).expect("reads");
        if !bytes.starts_with(&[0x1f, 0x8b]) {
            continue;
        }
        for entry in tar::Archive::new(flate2::read::MultiGzDecoder::new(&bytes[..])).entries().expect("a tar") {
            let mut entry = entry.expect("an entry");
            let path = String::from_utf8(entry.path_bytes().into_owned()).expect("UTF-8");
            let Some(path) = path.strip_prefix("opt/conda/envs/default/") else { continue };
            let mut content = Vec::new();
            let link = entry.link_name_bytes().map(|link| String::from_utf8(link.into_owned()).expect("UTF-8"));
            let (kind, mode) = (entry.header().entry_type(), entry.header().mode().expect("a mode"));
            entry.read_to_end(&mut content).expect("reads");
            let packed = Packed { kind, link: link.unwrap_or_default(), mode, content };
            let twice = files.insert(path.to_owned(), packed).is_some_and(|first| first.kind != EntryType::Directory);
            assert!(!twice, "`{path}` is in the image twice");
        }
    }
    files
}

/// Bytes that no compressor makes smaller, the same each time (xorshift).
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}
