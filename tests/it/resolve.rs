//! Solving and downloading, against channels that the tests make.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may stop at the first surprise")]

use std::path::Path;
use std::sync::Arc;

use crate::common::file_server::{FaultKind, FileServer};
use crate::common::packages::{Channel, Format, Package, sha256};
use condaimg::model::Platform;
use condaimg::resolve::{self, Archive, ChannelPriority, Credentials, Resolution, ResolveOptions, SaidBy, http_client};
use condaimg::spec::{self, Spec};
use condaimg::store::Store;
use condaimg::util::report::{SharedReporter, Silent};
use condaimg::util::{Digest, Error};
use rattler_conda_types::RepoDataRecord;
use serde_json::{Value, json};
use tempfile::TempDir;

/// A folder with a channel, a cache, and what is solved in it.
struct Bench {
    folder: TempDir,
    channel: Channel,
}

impl Bench {
    /// With a channel of (name, version, dependencies).
    fn new(packages: &[(&str, &str, &[&str])]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut channel = Channel::new(folder.path().join("channel"));
        channel.add_all(packages);
        Self { folder, channel }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn store(&self) -> Store {
        Store::open(&self.path().join("cache")).unwrap()
    }

    fn spec(&self, channels: &[&str], dependencies: &[&str]) -> Spec {
        let text = serde_json::to_string(&json!({"channels": channels, "dependencies": dependencies})).unwrap();
        let file = self.path().join("environment.yml");
        fs_err::write(&file, text).unwrap();
        spec::read(&file).unwrap()
    }

    async fn solve_with(&self, spec: &Spec, change: impl FnOnce(&mut ResolveOptions<'_>)) -> Result<Resolution, Error> {
        let platform = Platform::default();
        let reporter = silent();
        let mut options = ResolveOptions::new(spec, &platform, &self.store(), &reporter).unwrap();
        options.virtual_packages.glibc = Some("2.36".into());
        change(&mut options);
        resolve::resolve(spec, &options).await
    }

    /// Solves with the bench's own channel.
    async fn solve(&self, dependencies: &[&str]) -> Result<Resolution, Error> {
        self.solve_with(&self.spec(&["./channel"], dependencies), |_| ()).await
    }

    async fn names(&self, dependencies: &[&str]) -> Vec<String> {
        shown(&self.solve(dependencies).await.unwrap())
    }

    async fn download(&self, records: &[RepoDataRecord]) -> Result<Vec<Archive>, Error> {
        let client = http_client(false, &Credentials::default()).unwrap();
        resolve::download(records, SaidBy::Index, &self.store(), &client, 8, false, &silent()).await
    }

    /// Archives and unfinished downloads in the store.
    fn stored(&self) -> Vec<String> {
        let folder = self.path().join("cache/v1/archives");
        let mut names: Vec<String> =
            fs_err::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn silent() -> SharedReporter {
    Arc::new(Silent)
}

fn shown(resolution: &Resolution) -> Vec<String> {
    resolution
        .records
        .iter()
        .map(|record| format!("{} {}", record.package_record.name.as_normalized(), record.package_record.version))
        .collect()
}

/// The message with causes and hints, as a user reads it.
fn text(error: &Error) -> String {
    format!("{}\n{}", error.chain().join("\n"), error.hints().join("\n"))
}

fn assert_says(error: &Error, expected: &[&str]) {
    let text = text(error);
    for part in expected {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
}

const NUMPYS: &[(&str, &str, &[&str])] = &[
    ("python", "3.9.16", &[]),
    ("python", "3.11.2", &["__glibc >=2.17"]),
    ("numpy", "1.2.1", &["python"]),
    ("numpy", "1.21.0", &["python"]),
    ("numpy", "1.21.6", &["python"]),
    ("numpy", "1.22.4", &["python"]),
    ("old", "1", &["numpy <1.22"]),
    ("new", "1", &["numpy >=1.22"]),
    ("gpu", "1", &["__cuda >=12"]),
    ("recent", "1", &["__glibc >=2.38"]),
];

#[tokio::test]
async fn specs_of_every_form_are_solved() {
    let bench = Bench::new(NUMPYS);
    for (spec, expected) in [
        ("numpy", "1.22.4"),
        ("numpy=1.21", "1.21.6"),
        ("numpy=1.2", "1.2.1"),
        ("numpy=1.21.*", "1.21.6"),
        ("numpy==1.21.0", "1.21.0"),
        ("numpy 1.21.0", "1.21.0"),
        ("numpy>=1.21,<1.22", "1.21.6"),
        ("numpy >=1.21, <1.22", "1.21.6"),
        ("numpy=1.21.0=0", "1.21.0"),
        ("numpy[version='<1.21']", "1.2.1"),
        ("numpy[fn=numpy-1.21.0-0.conda]", "1.21.0"),
        ("./channel::numpy=1.21", "1.21.6"),
        ("./channel/linux-64::numpy=1.21", "1.21.6"),
    ] {
        let names = bench.names(&[spec]).await;
        assert!(names.contains(&format!("numpy {expected}")), "{spec}: {names:?}");
    }
}

#[tokio::test]
async fn records_come_after_what_they_need() {
    let bench = Bench::new(&[("a", "1", &["b", "c"]), ("b", "1", &["c"]), ("c", "1", &[])]);
    assert_eq!(bench.names(&["a"]).await, ["c 1", "b 1", "a 1"]);
    assert_eq!(bench.names(&[]).await, [""; 0]);
}

#[tokio::test]
async fn an_unsatisfiable_set_names_both_sides() {
    let bench = Bench::new(NUMPYS);
    let error = bench.solve(&["old", "new"]).await.unwrap_err();
    assert_says(&error, &["environment.yml", "old", "new", "numpy <1.22", "searched for linux-64", "__glibc=2.36"]);

    let error = bench.solve(&["numpy=1.25"]).await.unwrap_err();
    assert_says(
        &error,
        &["nothing matches", "environment.yml:1 `numpy=1.25`", "there is 1.22.4, 1.21.6, 1.21.0, 1.2.1"],
    );

    let error = bench.solve(&["gpu"]).await.unwrap_err();
    assert_says(&error, &["__cuda", "`--cuda VERSION`"]);

    let error = bench.solve(&["recent"]).await.unwrap_err();
    assert_says(&error, &["__glibc", "take a newer base"]);

    let spec = bench.spec(&["./channel"], &["recent"]);
    let error = bench.solve_with(&spec, |options| options.virtual_packages.glibc = None).await.unwrap_err();
    assert_says(&error, &["the base image has no GNU C library"]);
    let solved = bench.solve_with(&spec, |options| options.virtual_packages.glibc = Some("2.40".into())).await.unwrap();
    assert_eq!(shown(&solved), ["recent 1"]);

    let spec = bench.spec(&["./channel"], &["gpu"]);
    let solved = bench.solve_with(&spec, |options| options.virtual_packages.cuda = Some("12.4".into())).await.unwrap();
    assert_eq!(shown(&solved), ["gpu 1"]);
}

#[tokio::test]
async fn unknown_packages_are_named_with_what_looks_like_them() {
    let bench = Bench::new(NUMPYS);
    let error = bench.solve(&["python", "nunpy>=1", "tensorflow"]).await.unwrap_err();
    assert_says(&error, &["`nunpy>=1`", "`tensorflow`", "environment.yml:1", "did you mean `numpy`?", "searched for"]);
    assert!(!text(&error).contains("`python`"));
}

#[tokio::test]
async fn missing_channels_are_named() {
    let bench = Bench::new(NUMPYS);
    let solve = async |channel: &str| bench.solve_with(&bench.spec(&[channel], &["numpy"]), |_| ()).await.unwrap_err();
    assert_says(&solve("./nowhere").await, &["/nowhere/", "is not there", "there is no folder"]);

    fs_err::create_dir_all(bench.path().join("bare/linux-64")).unwrap();
    assert_says(&solve("./bare").await, &["/bare/", "is no channel", "noarch/repodata.json"]);

    let server = FileServer::start(bench.path());
    let error = solve(&format!("{}/other", server.url)).await;
    assert_says(&error, &["there is no channel", "/other/", "noarch/repodata.json"]);

    // Nobody listens on port 1.
    let error = solve("http://me:hidden@127.0.0.1:1/t/tk-123/private").await;
    assert_says(&error, &["http://127.0.0.1:1/private/", "cannot be read", "onnection refused"]);
    assert!(!text(&error).contains("hidden") && !text(&error).contains("tk-123"), "{}", text(&error));

    server.fault("broken", 100, FaultKind::Status(503));
    assert_says(&solve(&format!("{}/broken", server.url)).await, &["cannot be read", "503"]);
    server.require("Basic bWU6c2VjcmV0");
    assert_says(&solve(&format!("{}/channel", server.url)).await, &["refuses access", "credentials"]);

    fs_err::write(bench.path().join("channel/linux-64/repodata.json"), "{").unwrap();
    assert_says(&solve("./channel").await, &["/channel/", "cannot be read", "repodata.json"]);
    assert_says(&solve("s3://bucket").await, &["environment.yml", "s3:// is not supported"]);

    let error = bench.solve_with(&bench.spec(&["nodefaults"], &["numpy"]), |_| ()).await.unwrap_err();
    assert_says(&error, &["names no channel"]);
}

#[tokio::test]
async fn credentials_reach_the_server_and_nothing_else() {
    let bench = Bench::new(NUMPYS);
    let server = FileServer::start(bench.path());
    server.require("Basic bWU6c2VjcmV0");
    let channel = server.url.replace("http://", "http://me:secret@") + "/channel";
    let solved = bench.solve_with(&bench.spec(&[&channel], &["numpy"]), |_| ()).await.unwrap();
    assert!(!format!("{solved:?}").contains("secret"));
    let client = http_client(false, &solved.credentials).unwrap();
    let archives =
        resolve::download(&solved.records, SaidBy::Index, &bench.store(), &client, 2, false, &silent()).await.unwrap();
    assert_eq!(archives.len(), 2);

    let error = bench.solve_with(&bench.spec(&["$TEST_OF_NO_VARIABLE/x"], &["numpy"]), |_| ()).await.unwrap_err();
    assert_says(&error, &["`TEST_OF_NO_VARIABLE`, which is not set"]);
}

#[tokio::test]
async fn the_first_channel_wins_unless_told_otherwise() {
    let bench = Bench::new(&[("lib", "1", &[]), ("app", "1", &["lib"])]);
    let mut second = Channel::new(bench.path().join("second"));
    second.add_all(&[("lib", "2", &[]), ("only", "1", &[])]);
    let both = ["./channel", "./second"];

    let solved = bench.solve_with(&bench.spec(&both, &["app", "only"]), |_| ()).await.unwrap();
    assert_eq!(shown(&solved), ["only 1", "lib 1", "app 1"]);
    assert_eq!(solved.channels.len(), 2);

    let disabled = |options: &mut ResolveOptions<'_>| options.channel_priority = ChannelPriority::Disabled;
    let solved = bench.solve_with(&bench.spec(&both, &["lib"]), disabled).await.unwrap();
    assert_eq!(shown(&solved), ["lib 2"]);

    // A channel that a package names is searched too, for that package alone.
    let solved = bench.solve_with(&bench.spec(&["./channel"], &["./second::lib"]), |_| ()).await.unwrap();
    assert_eq!(shown(&solved), ["lib 2"]);
    let error = bench.solve_with(&bench.spec(&both, &["./channel::only"]), |_| ()).await.unwrap_err();
    assert_says(&error, &["`./channel::only`", "`only` is in file://", "/second/"]);

    let error = bench.solve_with(&bench.spec(&both, &["lib=2"]), |_| ()).await.unwrap_err();
    assert_says(&error, &["strict channel priority", "--channel-priority flexible"]);

    let second = second.folder.display().to_string();
    let spec = bench.spec(&["./channel"], &["lib"]);
    let solved = bench.solve_with(&spec, |options| options.channels = vec![second.clone()]).await.unwrap();
    assert_eq!(shown(&solved), ["lib 2"]);
    let spec = bench.spec(&["./nowhere"], &["lib"]);
    let only = |options: &mut ResolveOptions<'_>| {
        options.channels = vec![second];
        options.override_channels = true;
    };
    assert_eq!(shown(&bench.solve_with(&spec, only).await.unwrap()), ["lib 2"]);
}

#[tokio::test]
async fn locked_records_stay_as_long_as_they_fit() {
    let mut bench = Bench::new(NUMPYS);
    let locked = bench.solve(&["numpy=1.21.0"]).await.unwrap().records;
    let spec = bench.spec(&["./channel"], &["numpy"]);
    let again = bench.solve_with(&spec, |options| options.locked = locked.clone()).await.unwrap();
    assert!(shown(&again).contains(&"numpy 1.21.0".to_owned()));

    let spec = bench.spec(&["./channel"], &["numpy>=1.22"]);
    let moved = bench.solve_with(&spec, |options| options.locked = locked.clone()).await.unwrap();
    assert!(shown(&moved).contains(&"numpy 1.22.4".to_owned()));

    // What a channel no longer has is not kept.
    bench.channel = Channel::new(bench.path().join("channel"));
    bench.channel.add_all(&[("numpy", "1.22.4", &[])]);
    let spec = bench.spec(&["./channel"], &["numpy"]);
    let gone = bench.solve_with(&spec, |options| options.locked = locked).await.unwrap();
    assert_eq!(shown(&gone), ["numpy 1.22.4"]);
}

#[tokio::test]
async fn an_index_in_the_cache_is_enough_offline() {
    let bench = Bench::new(NUMPYS);
    let server = FileServer::start(bench.path());
    let spec = bench.spec(&[&format!("{}/channel", server.url)], &["numpy"]);
    let offline = |options: &mut ResolveOptions<'_>| options.offline = true;
    let error = bench.solve_with(&spec, offline).await.unwrap_err();
    assert_says(&error, &["/channel/", "not in the cache", "without `--offline`"]);
    assert!(server.seen("").is_empty());

    let solved = bench.solve_with(&spec, |_| ()).await.unwrap();
    let before = server.seen("").len();
    let again = bench.solve_with(&spec, offline).await.unwrap();
    assert_eq!(shown(&again), shown(&solved));

    let client = http_client(true, &again.credentials).unwrap();
    let error = resolve::download(&again.records, SaidBy::Index, &bench.store(), &client, 8, true, &silent())
        .await
        .unwrap_err();
    assert_says(&error, &["2 archives not in the cache", "numpy-1.22.4-0"]);
    assert_eq!(server.seen("").len(), before);

    bench.download(&again.records).await.unwrap();
    resolve::download(&again.records, SaidBy::Index, &bench.store(), &client, 8, true, &silent()).await.unwrap();
}

/// A channel behind a server with one package `big` of about `size` bytes, solved.
async fn served(size: usize) -> (Bench, FileServer, Vec<RepoDataRecord>) {
    let mut bench = Bench::new(&[("small", "1", &[])]);
    // Bytes that do not compress: a simple generator.
    let mut state = 1u32;
    let bytes: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    })
    .take(size)
    .collect();
    bench.channel.add(&Package::new("big", "1").file("share/big", bytes), Format::Conda);
    bench.channel.index();
    let server = FileServer::start(bench.path());
    let spec = bench.spec(&[&format!("{}/channel", server.url)], &["big"]);
    let records = bench.solve_with(&spec, |_| ()).await.unwrap().records;
    (bench, server, records)
}

fn verified(archive: &Archive) {
    let bytes = fs_err::read(&archive.path).unwrap();
    assert_eq!(sha256(&bytes), archive.sha256.hex());
    assert_eq!(bytes.len() as u64, archive.size);
}

#[tokio::test]
async fn archives_come_from_folders_and_servers_in_both_formats() {
    let mut bench = Bench::new(&[]);
    bench.channel.add(&Package::new("a", "1").file("a", "a"), Format::Conda);
    bench.channel.add(&Package::new("b", "1").file("b", "b"), Format::TarBz2);
    bench.channel.add(&Package::new("c", "1").noarch_python().entry_point("c = c:main"), Format::TarBz2);
    bench.channel.index();
    let server = FileServer::start(bench.path());
    for channel in ["./channel".to_owned(), format!("{}/channel", server.url)] {
        let solved = bench.solve_with(&bench.spec(&[&channel], &["a", "b", "c"]), |_| ()).await.unwrap();
        let archives = bench.download(&solved.records).await.unwrap();
        archives.iter().for_each(verified);
        let names: Vec<_> = archives.iter().map(|archive| archive.record.identifier.to_file_name()).collect();
        assert_eq!(names, ["c-1-0.tar.bz2", "b-1-0.tar.bz2", "a-1-0.conda"], "in the order of the records");
    }
    assert_eq!(bench.stored().len(), 3);
    assert!(server.seen("linux-64/a-1").is_empty(), "what is there is not fetched");
}

#[tokio::test]
async fn a_cut_connection_is_resumed() {
    let (bench, server, records) = served(300_000).await;
    server.fault("big", 2, FaultKind::CutAfter(100_000));
    let archives = bench.download(&records).await.unwrap();
    verified(&archives[0]);
    let from: Vec<usize> = server.seen("big").iter().map(|seen| seen.from).collect();
    assert_eq!(from.len(), 3, "{from:?}");
    assert!(from[0] == 0 && from[1] > 0 && from[2] > from[1], "{from:?}");
    assert_eq!(bench.stored().len(), 1);
}

#[tokio::test]
async fn a_part_of_an_earlier_run_is_continued_or_replaced() {
    let (bench, server, records) = served(300_000).await;
    let whole = fs_err::read(bench.path().join("channel/linux-64/big-1-0.conda")).unwrap();
    let part = bench.store().partial(&Digest::of(&whole));

    fs_err::write(&part, &whole[..123_456]).unwrap();
    verified(&bench.download(&records).await.unwrap()[0]);
    assert_eq!(server.seen("big").last().unwrap().from, 123_456);

    // All bytes are there already; only the name is missing.
    let archive = bench.store().archive(&Digest::of(&whole), "conda");
    fs_err::rename(&archive, &part).unwrap();
    let before = server.seen("big").len();
    verified(&bench.download(&records).await.unwrap()[0]);
    assert_eq!(server.seen("big").len(), before);

    for wrong in [vec![b'x'; 1_000], vec![b'x'; whole.len()], vec![b'x'; whole.len() + 1]] {
        fs_err::remove_file(&archive).unwrap();
        fs_err::write(&part, wrong).unwrap();
        verified(&bench.download(&records).await.unwrap()[0]);
        assert_eq!(bench.stored().len(), 1);
    }

    // An archive that a full disk or a crash made shorter.
    fs_err::write(&archive, &whole[..10]).unwrap();
    verified(&bench.download(&records).await.unwrap()[0]);

    // A server that knows no ranges.
    fs_err::remove_file(&archive).unwrap();
    fs_err::write(&part, &whole[..1_000]).unwrap();
    server.fault("big", 1, FaultKind::NoRange);
    verified(&bench.download(&records).await.unwrap()[0]);
}

#[tokio::test]
async fn failures_that_pass_are_retried_and_others_are_not() {
    let (bench, server, records) = served(1_000).await;
    server.fault("big", 2, FaultKind::Status(503));
    verified(&bench.download(&records).await.unwrap()[0]);
    assert_eq!(server.seen("big").len(), 3);

    fs_err::remove_file(
        bench
            .store()
            .archive(&Digest::of(fs_err::read(bench.path().join("channel/linux-64/big-1-0.conda")).unwrap()), "conda"),
    )
    .unwrap();
    server.fault("big", 100, FaultKind::Status(404));
    let error = bench.download(&records).await.unwrap_err();
    assert_says(&error, &["`big-1-0.conda`", "404", "/channel/linux-64/big-1-0.conda"]);
    assert_eq!(server.seen("big").len(), 4);
}

#[tokio::test]
async fn damaged_archives_never_enter_the_store() {
    let (bench, server, records) = served(100_000).await;
    let path = bench.path().join("channel/linux-64/big-1-0.conda");
    let whole = fs_err::read(&path).unwrap();
    let mut flipped = whole.clone();
    flipped[50_000] ^= 1;
    let longer = [whole.as_slice(), b"x"].concat();
    for (bytes, what) in [(&flipped[..], "sha256"), (&whole[..70_000], "size"), (&longer[..], "size")] {
        fs_err::write(&path, bytes).unwrap();
        let before = server.seen("big").len();
        let error = bench.download(&records).await.unwrap_err();
        assert_says(&error, &["`big-1-0.conda` is damaged", what, "/channel/linux-64/big-1-0.conda"]);
        if what == "sha256" {
            assert_says(&error, &[&sha256(&whole), &sha256(&flipped)]);
        }
        assert_eq!(server.seen("big").len(), before + 2, "one more try");
        assert_eq!(bench.stored(), [""; 0]);

        let local = bench.solve(&["big"]).await.unwrap().records;
        assert_says(&bench.download(&local).await.unwrap_err(), &["is damaged", what]);
        assert_eq!(bench.stored(), [""; 0]);
    }
    fs_err::write(&path, &whole).unwrap();
    verified(&bench.download(&records).await.unwrap()[0]);

    let local = bench.solve(&["small"]).await.unwrap().records;
    fs_err::remove_file(bench.path().join("channel/linux-64/small-1-0.conda")).unwrap();
    assert_says(
        &bench.download(&local).await.unwrap_err(),
        &["`small-1-0.conda` is not in its channel", "small-1-0.conda"],
    );
}

#[tokio::test]
async fn a_record_gets_the_hashes_that_its_index_lacks() {
    for with_md5 in [true, false] {
        let mut bench = Bench::new(&[("a", "1", &[])]);
        bench.channel.change("a", |record| {
            let fields = record.as_object_mut().unwrap();
            fields.remove("sha256");
            fields.remove("size");
            if !with_md5 {
                fields.remove("md5");
            }
        });
        bench.channel.index();
        let records = bench.solve(&["a"]).await.unwrap().records;
        let archives = bench.download(&records).await.unwrap();
        verified(&archives[0]);
        let record = &archives[0].record.package_record;
        assert_eq!(record.sha256.map(hex::encode), Some(archives[0].sha256.hex()));
        assert_eq!(record.size, Some(archives[0].size));
        assert_eq!(bench.stored().len(), 1);

        if with_md5 {
            bench.channel.change("a", |record| record["md5"] = Value::from("0".repeat(32)));
            bench.channel.index();
            let records = bench.solve(&["a"]).await.unwrap().records;
            assert_says(&bench.download(&records).await.unwrap_err(), &["its md5 is"]);
        }
    }
}

#[tokio::test]
async fn two_downloads_at_once_share_one_transfer() {
    let (bench, server, records) = served(500_000).await;
    let (one, two) = tokio::join!(bench.download(&records), bench.download(&records));
    verified(&one.unwrap()[0]);
    verified(&two.unwrap()[0]);
    assert_eq!(server.seen("big").len(), 1);
    assert_eq!(bench.stored().len(), 1);
    // The same package twice in one list.
    let twice = [records.clone(), records].concat();
    fs_err::remove_file(bench.path().join("cache/v1/archives").join(&bench.stored()[0])).unwrap();
    assert_eq!(bench.download(&twice).await.unwrap().len(), 2);
}
