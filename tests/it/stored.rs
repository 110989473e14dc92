//! What lies in the store is compared when it is used: whatever somebody, or a disk, does to it, the next build makes the
//! same image.

mod key;
mod packages;
mod python;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use fs_err as fs;

use crate::common::file_server::FileServer;
use crate::common::packages::{Channel, Format, Package};
use crate::common::registry::{LocalRegistry, Mode};
use crate::common::{Workspace, example_base, run_output, succeed};

/// What is done to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Damage {
    Flip,
    Truncate,
    Empty,
    Swap,
    Directory,
    Pipe,
}

const DAMAGES: [Damage; 6] =
    [Damage::Flip, Damage::Truncate, Damage::Empty, Damage::Swap, Damage::Directory, Damage::Pipe];

impl Damage {
    /// Does it to all of these files; they must be some.
    fn to(self, files: &[PathBuf]) {
        assert!(!files.is_empty());
        let contents: Vec<Vec<u8>> = files.iter().map(|file| fs::read(file).expect("reads")).collect();
        for (index, file) in files.iter().enumerate() {
            let mut bytes = contents[index].clone();
            let middle = bytes.len() / 2;
            match self {
                Self::Flip => bytes[middle] ^= 1,
                Self::Truncate => bytes.truncate(middle),
                Self::Empty => bytes.clear(),
                Self::Swap => bytes.clone_from(&contents[(index + 1) % contents.len()]),
                Self::Directory => {
                    fs::remove_file(file).expect("removes");
                    fs::create_dir(file).expect("makes");
                    fs::write(file.join("x"), "x").expect("writes");
                    continue;
                }
                Self::Pipe => {
                    fs::remove_file(file).expect("removes");
                    succeed(Command::new("mkfifo").arg(file));
                    continue;
                }
            }
            fs::write(file, bytes).expect("writes");
        }
    }
}

/// All files below a directory of the store whose names end so.
fn files(cache: &Path, folder: &str, ending: &str) -> Vec<PathBuf> {
    let entries = walkdir::WalkDir::new(cache.join("v1").join(folder)).sort_by_file_name();
    let files = entries.into_iter().map(|entry| entry.expect("an entry")).filter(|entry| entry.file_type().is_file());
    let paths = files.map(walkdir::DirEntry::into_path);
    paths.filter(|path| path.to_str().is_some_and(|path| path.ends_with(ending) && !path.ends_with(".lock"))).collect()
}

/// Copies a directory to where nothing is any more; everything gets other inodes and times.
fn restore(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    succeed(Command::new("cp").arg("-r").arg(from).arg(to));
}

fn told(command: &mut Command) -> (String, String) {
    // Whatever lies in the store, nothing waits for it.
    let mut limited = Command::new("timeout");
    limited.arg("120").arg(command.get_program()).args(command.get_args());
    limited.current_dir(command.get_current_dir().expect("a folder"));
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => limited.env(name, value),
            None => limited.env_remove(name),
        };
    }
    let output = run_output(&mut limited);
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (text(output.stdout), text(output.stderr))
}

/// A channel that is served, with archives of both formats, and what was built of it.
struct Bench {
    workspace: Workspace,
    server: FileServer,
    digest: String,
}

impl Bench {
    fn new() -> Self {
        let workspace = Workspace::new();
        let mut channel = Channel::new(workspace.path("channel"));
        for (name, format) in
            [("one", Format::Conda), ("two", Format::Conda), ("three", Format::TarBz2), ("four", Format::TarBz2)]
        {
            let content = format!("{name}\n").repeat(3000);
            channel.add(&Package::new(name, "1.0").file(&format!("share/{name}"), content), format);
        }
        channel.index();
        workspace.file("environment.yml", "dependencies: [one, two, three, four]\n");
        let server = FileServer::start(workspace.path("channel"));
        let mut bench = Self { workspace, server, digest: String::new() };
        bench.digest = succeed(&mut bench.build());
        fs::rename(bench.cache(), bench.workspace.path("kept")).expect("moves");
        bench
    }

    fn cache(&self) -> PathBuf {
        self.workspace.path("cache")
    }

    fn condaimg(&self, command: &str) -> Command {
        let mut condaimg = self.workspace.condaimg();
        condaimg.args([command, "--override-channels", "--channel", &self.server.url]);
        condaimg.args(["--glibc", "2.36", "--base", &format!("oci:{}:debian", example_base().display())]);
        condaimg
    }

    /// A build into a layout that is not there yet.
    fn build(&self) -> Command {
        let _ = fs::remove_dir_all(self.workspace.path("image"));
        let mut build = self.condaimg("build");
        build.args(["--layers", "per-package", "--output", "oci:image"]);
        build
    }

    /// The store as it was after the first build, without these directories.
    fn prepare(&self, without: &[&str]) {
        restore(&self.workspace.path("kept"), &self.cache());
        for folder in without {
            fs::remove_dir_all(self.cache().join("v1").join(folder)).expect("removes");
        }
    }
}

/// What has to go so that packages are packed again.
const LAYERS: [&str; 3] = ["blobs", "records/layers", "records/segments"];

#[test]
fn damaged_file_of_any_kind_changes_no_image() {
    let bench = Bench::new();
    let lock = fs::read(bench.workspace.path("condaimg.lock")).expect("reads");
    let facts = ["blobs", "records/layers", "records/segments", "records/facts"];
    // Directory and ending of the files, what goes so that they are used, whether the lock stays.
    let kinds: [(&str, &str, &[&str], bool); 12] = [
        ("archives", ".conda", &LAYERS, true),
        ("archives", ".conda", &facts, false),
        ("archives", ".tar.bz2", &["blobs", "records/layers", "records/segments", "records/transcoded"], true),
        ("archives", ".tar.zst", &LAYERS, true),
        ("records/transcoded", ".json", &LAYERS, true),
        ("records/facts", ".json", &[], false),
        ("records/contents", ".json", &LAYERS, true),
        ("records/bases", ".json", &[], false),
        ("records/layers", ".json", &[], true),
        ("records/segments", ".json", &["records/layers"], true),
        ("blobs", "", &[], true),
        ("index", "", &[], false),
    ];
    let mut silent = BTreeSet::new();
    for (folder, ending, without, locked) in kinds {
        for damage in DAMAGES {
            bench.prepare(without);
            let damaged = files(&bench.cache(), folder, ending);
            damage.to(&damaged);
            // A single file has nothing to be swapped with.
            let is_other = damage != Damage::Swap || damaged.len() > 1;
            let mut build = bench.build();
            match locked {
                true => drop(build.arg("--locked")),
                false => fs::remove_file(bench.workspace.path("condaimg.lock")).expect("removes"),
            }
            let (digest, notices) = told(&mut build);
            assert_eq!(digest, bench.digest, "{folder}/*{ending} {damage:?}: {notices}");
            assert_eq!(fs::read(bench.workspace.path("condaimg.lock")).expect("reads"), lock, "{folder} {damage:?}");
            if is_other && !notices.contains("damaged") {
                silent.insert(format!("{folder}/*{ending} {damage:?}"));
            }
            if damage == Damage::Directory {
                let (again, notices) = told(bench.build().arg("--locked"));
                assert_eq!(again, bench.digest);
                assert!(!notices.contains("damaged"), "{folder}/*{ending} {damage:?}: {notices}");
            }
        }
    }
    assert_eq!(silent, BTreeSet::new());
}

#[test]
fn damaged_index_record_changes_no_image() {
    let bench = Bench::new();
    for damage in DAMAGES {
        bench.prepare(&[]);
        fs::remove_file(bench.workspace.path("condaimg.lock")).expect("removes");
        damage.to(&files(&bench.cache(), "records/foreign", ".json"));
        assert_eq!(told(&mut bench.build()).0, bench.digest, "{damage:?}");
    }
}

#[test]
fn archive_that_is_damaged_is_fetched_once_with_one_notice() {
    let bench = Bench::new();
    bench.prepare(&LAYERS);
    let archives = files(&bench.cache(), "archives", ".conda");
    Damage::Flip.to(&archives[..1]);
    let asked = || bench.server.seen("").iter().filter(|seen| seen.path.ends_with(".conda")).count();
    let before = asked();
    let (digest, notices) = told(bench.build().arg("--locked"));
    assert_eq!((digest, asked() - before), (bench.digest.clone(), 1), "{notices}");
    let name = archives[0].file_name().and_then(|name| name.to_str()).expect("a name");
    assert_eq!((notices.matches(name).count(), notices.matches("damaged").count()), (1, 1), "{notices}");
    // Nobody can fetch it: that is an error, and no image.
    bench.prepare(&LAYERS);
    Damage::Flip.to(&archives[..1]);
    let error = crate::common::fail(bench.build().args(["--locked", "--offline"]), 1);
    assert!(error.contains(name) && error.contains("--offline"), "{error}");
}

#[test]
fn restored_cache_stays_warm_and_asks_for_nothing() {
    let bench = Bench::new();
    bench.prepare(&[]);
    let asked = bench.server.seen("").len();
    let (digest, notices) = told(bench.build().arg("--locked"));
    assert_eq!((digest, bench.server.seen("").len()), (bench.digest.clone(), asked), "{notices}");
    bench.prepare(&LAYERS);
    let (digest, notices) = told(bench.build().arg("--locked"));
    assert_eq!((digest, bench.server.seen("").len()), (bench.digest.clone(), asked), "{notices}");
    assert!(!notices.contains("in the cache"), "{notices}");
}

#[test]
fn unchanged_build_reads_no_blob() {
    let bench = Bench::new();
    bench.prepare(&[]);
    succeed(bench.build().arg("--locked"));
    Damage::Flip.to(&files(&bench.cache(), "blobs", ""));
    let mut build = bench.condaimg("build");
    let (digest, notices) = told(build.args(["--layers", "per-package", "--output", "oci:image", "--locked"]));
    assert_eq!(digest, bench.digest);
    assert!(!notices.contains("damaged"), "{notices}");
}

#[test]
fn damaged_layer_is_made_again_before_it_is_pushed() {
    let bench = Bench::new();
    let registry = LocalRegistry::start(Mode::Plain);
    for (number, damage) in DAMAGES.into_iter().enumerate() {
        bench.prepare(&[]);
        damage.to(&files(&bench.cache(), "blobs", ""));
        let tag = format!("{}/team/env-{number}:1", registry.host());
        let mut build = bench.condaimg("build");
        build.args(["--layers", "per-package", "--locked", "--push", "--tag", &tag]);
        let (reference, notices) = told(&mut build);
        assert!(reference.trim().ends_with(bench.digest.trim()), "{damage:?}: {reference} {notices}");
        assert!(!notices.contains("garbage collection"), "{damage:?}: {notices}");
        let copied = bench.workspace.path("copied");
        let _ = fs::remove_dir_all(&copied);
        succeed(bench.workspace.condaimg().args(["copy", &tag, &format!("oci:{}", copied.display())]));
    }
}
