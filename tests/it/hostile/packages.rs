//! Archives of conda packages.

use std::io::{Read as _, Write};
use std::process::Command;

use serde_json::{Value, json};
use tar::EntryType;

use super::{Built, Case, Refused, Row, row};
use crate::common::packages::{FileMode, Format, Package, bzip2_of, zstd_of};

const MIB: u64 = 1 << 20;
/// As conda-build pads it.
const PLACEHOLDER: &str =
    "/home/conda/feedstock_root/build_artifacts/bad_1600000000000/_h_env_placehold_placehold_placehold";

pub fn rows() -> Vec<Row> {
    vec![
        row("text file of 220 MiB with a build prefix", large_text, Built),
        row("binary file of 220 MiB with a build prefix", large_binary, Built),
        row("300,000 empty files", many_files, Refused(&["bad-1.0-0", "--limit archive-entries="])),
        row("GNU long name of 1 GiB", long_name, Refused(&["bad-1.0-0", "--limit header="])),
        row("GNU long link of 1 GiB", long_link, Refused(&["bad-1.0-0", "--limit header="])),
        row("GNU long name of 1 GiB in info/", long_name_in_info, Refused(&["bad-1.0-0", "--limit header="])),
        row("GNU long name of 40 MiB in a tar.bz2", long_name_bz2, Refused(&["bad-1.0-0", "--limit header="])),
        row("PAX header of 1 GiB", pax, Refused(&["bad-1.0-0", "--limit header="])),
        row("global PAX header of 1 GiB", pax_global, Refused(&["bad-1.0-0", "--limit header="])),
        row("600 PAX headers of 200 KiB", pax_many, Refused(&["bad-1.0-0", "--limit headers="])),
        row("paths of 40 MB in all", long_names, Refused(&["bad-1.0-0", "--limit archive-names="])),
        row("path of 60,000 directories", deep_path, Refused(&["bad-1.0-0"])),
        row("path of 1,000 directories", less_deep_path, Refused(&["bad-1.0-0", "--limit path-depth="])),
        row("240,000 directories above 2,000 files", many_directories, Refused(&["bad-1.0-0", "--limit directories="])),
        row("symlink with a target of 200 KiB", long_target, Refused(&["bad-1.0-0", "`lib/link`"])),
        row("sparse file of 4 EiB", sparse, Refused(&["bad-1.0-0", "--limit archive-"])),
        row("file of 3 GiB with a build prefix", huge_text, Refused(&["bad-1.0-0", "--limit archive-ratio="])),
        row("file of 3 GiB in 400 kB", huge_plain, Refused(&["bad-1.0-0", "--limit archive-ratio="])),
        row("build prefix of one character", short_prefix, Refused(&["bad-1.0-0", "`share/text`", "`/`"])),
        row("text that grows six times with its prefix", growing, Refused(&["--limit prefix-text="])),
        row("string of 64 MiB around a build prefix", long_string, Refused(&["--limit prefix-string=", "lib/bad.so"])),
        row("script whose first line has 64 MiB", long_line, Refused(&["--limit prefix-string=", "bin/bad"])),
        row("activate.d script of 500 MiB", activation, Refused(&["--limit activation-script="])),
        row("env_vars.d of 100 MiB", variables, Refused(&["--limit activation-script="])),
        row("index.json of 100 MiB", index_json, Refused(&["bad-1.0-0", "--limit info-file="])),
        row("link.json of 100 MiB", link_json, Refused(&["bad-1.0-0", "--limit info-file="])),
        row("paths.json of 500 MiB", paths_json, Refused(&["bad-1.0-0", "--limit paths-file="])),
        row("paths.json with 1,500,000 entries", many_paths, Refused(&["bad-1.0-0", "--limit archive-entries="])),
        row("info/files with 3,000,000 lines", many_lines, Refused(&["bad-1.0-0", "--limit archive-entries="])),
        row("paths.json nested 100,000 times", nested_json, Refused(&["bad-1.0-0", "paths.json"])),
        row("zstd frame with a window of 2 GiB", window, Refused(&["bad-1.0-0"])),
        row(".conda with two tars of content", two_contents, Refused(&["bad-1.0-0", "twice"])),
        row(".conda with an entry twice", same_names, Refused(&["bad-1.0-0"])),
        row(".conda of version 3", version, Refused(&["bad-1.0-0", "version 3"])),
        row("file below the package's own record", below_record, Refused(&["`conda-meta/bad-1.0-0.json/x`"])),
        row("directory in the place of the package's record", in_record, Refused(&["`conda-meta/bad-1.0-0.json`"])),
        row("named pipe as an archive", pipe, Refused(&["bad-1.0-0.conda", "named pipe"])),
    ]
}

fn bad() -> Package {
    Package::new("bad", "1.0")
}

/// A part of a tar.
enum Part {
    Bytes(Vec<u8>),
    /// A text again and again.
    Fill(&'static str, u64),
}

use Part::{Bytes, Fill};

/// A tar of parts, compressed as it is made.
fn packed(parts: &[Part]) -> Vec<u8> {
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).expect("begins");
    write(parts, &mut encoder);
    encoder.finish().expect("ends")
}

fn write(parts: &[Part], out: &mut dyn Write) {
    for part in parts {
        match part {
            Bytes(bytes) => out.write_all(bytes).expect("writes"),
            Fill(text, size) => {
                let chunk = text.repeat((MIB as usize).div_ceil(text.len()));
                let mut left = *size;
                while left > 0 {
                    let count = left.min(chunk.len() as u64);
                    out.write_all(&chunk.as_bytes()[..count as usize]).expect("writes");
                    left -= count;
                }
            }
        }
    }
}

fn header(kind: EntryType, path: &str, size: u64) -> Part {
    Bytes(header_block(kind, path, size))
}

/// The 512 bytes of a header.
fn header_block(kind: EntryType, path: &str, size: u64) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(0o644);
    header.set_mtime(1);
    header.as_gnu_mut().expect("GNU").name[..path.len()].copy_from_slice(path.as_bytes());
    header.set_cksum();
    header.as_bytes().to_vec()
}

/// A file of one entry, and the end.
fn file(path: &str) -> Part {
    let mut bytes = header_block(EntryType::Regular, path, 0);
    bytes.extend([0; 1024]);
    Bytes(bytes)
}

/// A build of a `.conda` with this content, whose metadata is that of `package`.
fn conda(case: &mut Case, package: &Package, content: &[Part]) -> Command {
    let bytes = package.conda_of(&packed(content), &zstd_of(&package.info_tar()));
    case.build_bytes(package, Format::Conda, &bytes)
}

/// A build of a `.conda` with a file that `paths.json` describes in words of its own.
fn described(case: &mut Case, entry: Value, content: &[Part]) -> Command {
    let paths = json!({"paths_version": 1, "paths": [entry]});
    conda(case, &bad().info("paths.json", paths.to_string()), content)
}

fn extended(case: &mut Case, kind: EntryType, size: u64) -> Command {
    let package = bad().file("lib/a", "");
    conda(case, &package, &[header(kind, "x", size), Fill("a", size), file("lib/a")])
}

fn long_name(case: &mut Case) -> Command {
    extended(case, EntryType::GNULongName, 1024 * MIB)
}

fn long_link(case: &mut Case) -> Command {
    extended(case, EntryType::GNULongLink, 1024 * MIB)
}

fn pax(case: &mut Case) -> Command {
    extended(case, EntryType::XHeader, 1024 * MIB)
}

fn pax_global(case: &mut Case) -> Command {
    extended(case, EntryType::XGlobalHeader, 1024 * MIB)
}

fn long_name_in_info(case: &mut Case) -> Command {
    let package = bad();
    let info = [header(EntryType::GNULongName, "x", 1024 * MIB), Fill("a", 1024 * MIB), Bytes(package.info_tar())];
    let bytes = package.conda_of(&zstd_of(&package.content_tar()), &packed(&info));
    case.build_bytes(&package, Format::Conda, &bytes)
}

fn long_name_bz2(case: &mut Case) -> Command {
    let package = bad();
    let mut tar = Vec::new();
    write(&[header(EntryType::GNULongName, "x", 40 * MIB), Fill("a", 40 * MIB)], &mut tar);
    tar.extend(package.info_tar());
    case.build_bytes(&package, Format::TarBz2, &bzip2_of(&tar))
}

fn pax_many(case: &mut Case) -> Command {
    let size = 200 << 10;
    let value = "v".repeat(size - 18);
    let record = format!("{size} comment={value}\n");
    let record = format!("{} comment={value}\n", record.len());
    let mut parts = Vec::new();
    for number in 0..600 {
        let length = record.len() as u64;
        parts.push(header(EntryType::XHeader, "x", length));
        let padding = length.next_multiple_of(512) - length;
        parts.push(Bytes([record.as_bytes(), &vec![0; padding as usize]].concat()));
        parts.push(header(EntryType::Regular, &format!("lib/{number}"), 0));
    }
    conda(case, &bad(), &parts)
}

fn many_files(case: &mut Case) -> Command {
    let names: Vec<String> = (0..300_000).map(|number| format!("lib/{number}")).collect();
    let mut content: Vec<Part> = names.iter().map(|name| header(EntryType::Regular, name, 0)).collect();
    content.push(Bytes(vec![0; 1024]));
    // Too many for the list are refused before: only the archive holds them.
    conda(case, &bad().file("lib/1", ""), &content)
}

fn long_names(case: &mut Case) -> Command {
    let mut content = Vec::new();
    for number in 0..20_000 {
        let name = format!("{number:06}/{}", format!("{}/", "n".repeat(199)).repeat(10));
        content.push(header(EntryType::GNULongName, "x", name.len() as u64));
        let padding = name.len().next_multiple_of(512) - name.len();
        content.push(Bytes([name.as_bytes(), &vec![0; padding]].concat()));
        content.push(header(EntryType::Directory, "x", 0));
    }
    conda(case, &bad(), &content)
}

fn path_of(case: &mut Case, depth: usize) -> Command {
    let name = format!("{}x", "d/".repeat(depth));
    let padding = name.len().next_multiple_of(512) - name.len();
    let content = [
        header(EntryType::GNULongName, "x", name.len() as u64),
        Bytes([name.as_bytes(), &vec![0; padding]].concat()),
        file("x"),
    ];
    described(case, json!({"_path": name, "path_type": "hardlink"}), &content)
}

fn deep_path(case: &mut Case) -> Command {
    path_of(case, 60_000)
}

fn less_deep_path(case: &mut Case) -> Command {
    path_of(case, 1_000)
}

fn many_directories(case: &mut Case) -> Command {
    let mut package = bad();
    for number in 0..2_000 {
        package = package.file(&format!("{number}/{}x", "d/".repeat(119)), "");
    }
    case.build_package(&package)
}

fn long_target(case: &mut Case) -> Command {
    case.build_package(&bad().file("lib/a", "").symlink("lib/link", &"t".repeat(200 << 10)))
}

fn sparse(case: &mut Case) -> Command {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(EntryType::GNUSparse);
    header.set_size(0);
    header.set_mode(0o644);
    header.set_mtime(1);
    let gnu = header.as_gnu_mut().expect("GNU");
    gnu.name[..5].copy_from_slice(b"lib/a");
    // Base 256, as GNU writes what no octal digits hold.
    let size = (1_u64 << 62).to_be_bytes();
    (gnu.realsize[0], gnu.sparse[0].offset[0]) = (0x80, 0x80);
    gnu.realsize[4..].copy_from_slice(&size);
    gnu.sparse[0].offset[4..].copy_from_slice(&size);
    gnu.sparse[0].numbytes[..11].copy_from_slice(b"00000000000");
    header.set_cksum();
    let content = [Bytes(header.as_bytes().to_vec()), Bytes(vec![0; 1024])];
    conda(case, &bad().file("lib/a", ""), &content)
}

/// A build of one file with a build prefix.
fn with_prefix(case: &mut Case, path: &str, mode: &str, placeholder: &str, content: &[Part]) -> Command {
    let entry = json!({"_path": path, "path_type": "hardlink", "prefix_placeholder": placeholder, "file_mode": mode});
    let size = content.iter().map(|part| match part {
        Bytes(bytes) => bytes.len() as u64,
        Fill(_, size) => *size,
    });
    let size: u64 = size.sum();
    let mut parts = vec![header(EntryType::Regular, path, size)];
    for part in content {
        parts.push(match part {
            Bytes(bytes) => Bytes(bytes.clone()),
            Fill(text, size) => Fill(text, *size),
        });
    }
    parts.push(Bytes(vec![0; (size.next_multiple_of(512) - size) as usize + 1024]));
    described(case, entry, &parts)
}

/// A kilobyte that names the build prefix once.
fn with_filler(rest: &str, filler: &str) -> &'static str {
    let text = format!("{PLACEHOLDER}{rest}");
    let filler = filler.repeat((1024 - text.len()) / filler.len());
    Box::leak(format!("{text}{filler}").into_boxed_str())
}

fn text() -> &'static str {
    with_filler("/share/some/file\n", "text of a line\n")
}

fn large_text(case: &mut Case) -> Command {
    let mut command = with_prefix(case, "share/text", "text", PLACEHOLDER, &[Fill(text(), 220 * MIB)]);
    command.args(["--compression", "zstd:1"]);
    command
}

fn huge_text(case: &mut Case) -> Command {
    with_prefix(case, "share/text", "text", PLACEHOLDER, &[Fill(text(), 3 << 30)])
}

fn large_binary(case: &mut Case) -> Command {
    let text = with_filler("/lib\0", "library\0");
    let mut command = with_prefix(case, "lib/bad.so", "binary", PLACEHOLDER, &[Fill(text, 220 * MIB)]);
    command.args(["--compression", "zstd:1"]);
    command
}

fn huge_plain(case: &mut Case) -> Command {
    let size = 3 << 30;
    let content = [header(EntryType::Regular, "lib/a", size), Fill("a", size), Bytes(vec![0; 1024])];
    described(case, json!({"_path": "lib/a", "path_type": "hardlink"}), &content)
}

fn short_prefix(case: &mut Case) -> Command {
    with_prefix(case, "share/text", "text", "/", &[Fill("/", 100 * MIB)])
}

fn growing(case: &mut Case) -> Command {
    let mut command = with_prefix(case, "share/text", "text", "/old", &[Fill("/old", 30 * MIB)]);
    command.args(["--limit", "prefix-text=60MiB"]);
    command
}

fn long_string(case: &mut Case) -> Command {
    let content = [Bytes(PLACEHOLDER.into()), Fill("a", 64 * MIB)];
    with_prefix(case, "lib/bad.so", "binary", PLACEHOLDER, &content)
}

fn long_line(case: &mut Case) -> Command {
    let content = [Bytes(format!("#!{PLACEHOLDER}").into_bytes()), Fill("a", 64 * MIB)];
    with_prefix(case, "bin/bad", "text", PLACEHOLDER, &content)
}

fn one_file(case: &mut Case, path: &str, text: &'static str, size: u64) -> Command {
    let content = [header(EntryType::Regular, path, size), Fill(text, size), Bytes(vec![0; 1024])];
    described(case, json!({"_path": path, "path_type": "hardlink"}), &content)
}

fn activation(case: &mut Case) -> Command {
    one_file(case, "etc/conda/activate.d/bad.sh", "# a line of 16 \n", 500 * MIB)
}

fn variables(case: &mut Case) -> Command {
    one_file(case, "etc/conda/env_vars.d/bad.json", "{\"A\": \"0\"}     \n", 100 * MIB)
}

/// A build of a package whose `info/NAME` has so many bytes.
fn info(case: &mut Case, name: &str, size: u64) -> Command {
    let package = bad().without_info(name);
    let info = package.info_tar();
    let path = format!("info/{name}");
    let parts = [header(EntryType::Regular, &path, size), Fill(" ", size), Bytes(info)];
    let bytes = package.conda_of(&zstd_of(&package.content_tar()), &packed(&parts));
    case.build_bytes(&package, Format::Conda, &bytes)
}

fn index_json(case: &mut Case) -> Command {
    info(case, "index.json", 100 * MIB)
}

fn link_json(case: &mut Case) -> Command {
    info(case, "link.json", 100 * MIB)
}

fn paths_json(case: &mut Case) -> Command {
    info(case, "paths.json", 500 * MIB)
}

fn many_paths(case: &mut Case) -> Command {
    let entries = "{\"_path\":\"a\",\"path_type\":\"hardlink\"},".repeat(1_500_000);
    let text = format!("{{\"paths_version\":1,\"paths\":[{}]}}", entries.trim_end_matches(','));
    case.build_package(&bad().info("paths.json", text))
}

fn many_lines(case: &mut Case) -> Command {
    case.build_package(&bad().old_metadata().info("files", "lib/a\n".repeat(3_000_000)))
}

fn nested_json(case: &mut Case) -> Command {
    case.build_package(&bad().info("paths.json", format!("{{\"paths\": {}", "[".repeat(100_000))))
}

fn window(case: &mut Case) -> Command {
    let package = bad().file("lib/a", "a".repeat(1000));
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).expect("begins");
    encoder.window_log(31).expect("sets");
    encoder.write_all(&package.content_tar()).expect("writes");
    let mut zeros = std::io::repeat(0).take(64 * MIB);
    std::io::copy(&mut zeros, &mut encoder).expect("writes");
    let bytes = package.conda_of(&encoder.finish().expect("ends"), &zstd_of(&package.info_tar()));
    case.build_bytes(&package, Format::Conda, &bytes)
}

/// A `.conda` with one more entry, which holds other content.
fn with_entry(package: &Package, name: &str) -> Vec<u8> {
    let other = bad().file("lib/a", "other");
    let bytes = package.archive(Format::Conda);
    let mut zip = zip::ZipWriter::new_append(std::io::Cursor::new(bytes)).expect("opens");
    let options = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    zip.start_file(name, options).expect("begins");
    zip.write_all(&zstd_of(&other.content_tar())).expect("writes");
    zip.finish().expect("ends").into_inner()
}

fn two_contents(case: &mut Case) -> Command {
    let package = bad().file("lib/a", "a");
    let bytes = with_entry(&package, "pkg-bad-1.0-1.tar.zst");
    case.build_bytes(&package, Format::Conda, &bytes)
}

fn same_names(case: &mut Case) -> Command {
    let package = bad().file("lib/a", "a");
    let mut bytes = with_entry(&package, "pkg-bad-1.0-1.tar.zst");
    let (odd, same) = (b"pkg-bad-1.0-1.tar.zst", b"pkg-bad-1.0-0.tar.zst");
    for at in 0..bytes.len() - odd.len() {
        if bytes[at..].starts_with(odd) {
            bytes[at..at + odd.len()].copy_from_slice(same);
        }
    }
    case.build_bytes(&package, Format::Conda, &bytes)
}

fn version(case: &mut Case) -> Command {
    let package = bad().file("lib/a", "a");
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for (name, bytes) in [
        ("metadata.json", br#"{"conda_pkg_format_version": 3}"#.to_vec()),
        ("pkg-bad-1.0-0.tar.zst", zstd_of(&package.content_tar())),
        ("info-bad-1.0-0.tar.zst", zstd_of(&package.info_tar())),
    ] {
        zip.start_file(name, options).expect("begins");
        zip.write_all(&bytes).expect("writes");
    }
    let bytes = zip.finish().expect("ends").into_inner();
    case.build_bytes(&package, Format::Conda, &bytes)
}

fn below_record(case: &mut Case) -> Command {
    case.build_package(&bad().file("conda-meta/bad-1.0-0.json/x", "{}"))
}

fn in_record(case: &mut Case) -> Command {
    let entry = json!({"_path": "conda-meta/bad-1.0-0.json", "path_type": "directory"});
    described(case, entry, &[header(EntryType::Directory, "conda-meta/bad-1.0-0.json", 0), Bytes(vec![0; 1024])])
}

fn pipe(case: &mut Case) -> Command {
    let package = bad().file_with_placeholder("lib/a", "a", PLACEHOLDER, FileMode::Text);
    let command = case.build_package(&package);
    case.pipe("channel/linux-64/bad-1.0-0.conda");
    command
}
