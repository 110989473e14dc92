//! The image room against the tools that people use: skopeo, umoci, oci-image-tool, buildah. Everything is made
//! here; nothing is fetched.

#![expect(clippy::expect_used, reason = "a test may stop at the first surprise")]

mod registry;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::common::SmallDisk;
use condaimg::image::{
    Assembly, Base, Fetch, Fetched, Image, Offline, assemble, localise, open, probe, write_docker_archive,
    write_layout, write_oci_archive,
};
use condaimg::model::{BaseFacts, BaseRef, Blob, BlobSource, LayerBlob, Platform};
use condaimg::store::Store;
use condaimg::util::report::Silent;
use condaimg::util::{DiffId, Digest, Error, Result};
use fs_err as fs;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use serde_json::{Value, json};

const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const PREFIX: &str = "opt/conda/envs/default";

/// Runs a program and returns what it printed; its failure is the test's.
fn run(program: &str, package: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(program);
    let output = command.args(arguments).output().unwrap_or_else(|error| {
        panic!("`{program}` cannot be run ({error}); install it with `apt-get install {package}`")
    });
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn skopeo(arguments: &[&str]) -> String {
    // Debian's package has no policy file of its own that every machine keeps.
    run("skopeo", "skopeo", &[&["--insecure-policy"], arguments].concat())
}

/// What an entry of a test tar is.
enum Entry<'a> {
    Folder,
    Link(&'a str),
    File(&'a [u8], u32),
}

fn tar(entries: &[(&str, Entry<'_>)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, entry) in entries {
        let mut header = tar::Header::new_ustar();
        header.set_mtime(1_700_000_000);
        header.set_mode(0o755);
        header.set_size(0);
        match entry {
            Entry::Folder => {
                header.set_entry_type(tar::EntryType::Directory);
                builder.append_data(&mut header, path, std::io::empty()).expect("a folder");
            }
            Entry::Link(target) => {
                header.set_entry_type(tar::EntryType::Symlink);
                builder.append_link(&mut header, path, target).expect("a link");
            }
            Entry::File(bytes, mode) => {
                header.set_mode(*mode);
                header.set_size(bytes.len() as u64);
                builder.append_data(&mut header, path, *bytes).expect("a file");
            }
        }
    }
    builder.into_inner().expect("a tar")
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("compresses");
    encoder.finish().expect("compresses")
}

/// A layer in the store, in two gzip members, as the packer makes them.
fn layer(store: &Store, name: &str, tar: &[u8]) -> LayerBlob {
    let (first, second) = tar.split_at(512);
    let bytes = [gzip(first), gzip(second)].concat();
    let mut writer = store.new_blob().expect("a blob");
    writer.write_all(&bytes).expect("writes");
    let (digest, size) = writer.finish(None).expect("a blob");
    let annotations = [("dev.condaimg.layer.name", name), ("dev.condaimg.layer.packages", "python=3.11.2")];
    LayerBlob {
        blob: Blob { media_type: GZIP.into(), digest, size, source: BlobSource::File(store.blob(&digest)) },
        diff_id: DiffId(Digest::of(tar)),
        name: name.into(),
        annotations: annotations.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        created_by: format!("condaimg: layer {name}"),
    }
}

/// A usr-merged root, as Debian's: `/bin` is a link.
fn root() -> Vec<u8> {
    let (libc, folder) = host_libc();
    tar(&[
        ("bin", Entry::Link("usr/bin")),
        ("etc/", Entry::Folder),
        ("etc/passwd", Entry::File(b"root:x:0:0:root:/root:/bin/sh\n", 0o644)),
        ("etc/group", Entry::File(b"root:x:0:\n", 0o644)),
        ("lib", Entry::Link("usr/lib")),
        ("opt/", Entry::Folder),
        ("tmp/", Entry::Folder),
        ("usr/", Entry::Folder),
        ("usr/bin/", Entry::Folder),
        ("usr/bin/dash", Entry::File(b"#!not really\n", 0o755)),
        ("usr/bin/sh", Entry::Link("dash")),
        ("usr/lib/", Entry::Folder),
        (&format!("usr/lib/{folder}/"), Entry::Folder),
        (&format!("usr/lib/{folder}/libc.so.6"), Entry::File(&libc, 0o755)),
    ])
}

/// The C library of this machine, a real one, and the folder it lies in.
fn host_libc() -> (Vec<u8>, String) {
    for folder in ["x86_64-linux-gnu", "aarch64-linux-gnu"] {
        if let Ok(bytes) = fs::read(format!("/usr/lib/{folder}/libc.so.6")) {
            return (bytes, folder.to_owned());
        }
    }
    panic!("no glibc in /usr/lib/*-linux-gnu: run this test on Debian or Ubuntu")
}

fn host_glibc() -> String {
    run("getconf", "libc-bin", &["GNU_LIBC_VERSION"]).trim().trim_start_matches("glibc ").to_owned()
}

/// A fresh folder with a store and the root file system as a tar.
struct Bench {
    folder: tempfile::TempDir,
    store: Store,
}

impl Bench {
    fn new() -> Self {
        // buildah makes an image name of the folder's, and those have no capitals.
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("condaimg-image-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let folder = tempfile::Builder::new().prefix(&name).rand_bytes(0).tempdir().expect("a folder");
        let store = Store::open(&folder.path().join("cache")).expect("a store");
        fs::write(folder.path().join("root.tar"), root()).expect("writes");
        Self { folder, store }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    async fn open(&self, base: &str, platform: &str) -> Result<Base> {
        let platform = platform.parse().expect("a platform");
        open(&self.base(base), &platform, &self.store, &Offline).await
    }

    fn base(&self, text: &str) -> BaseRef {
        text.replace("DIR", &self.folder.path().display().to_string()).parse().expect("a base")
    }

    async fn probe(&self, base: &Base) -> BaseFacts {
        probe(base, &self.store, &Offline).await.expect("probes")
    }

    /// An image on the root file system.
    async fn image(&self, platform: &str, created: i64) -> Image {
        let base = self.open("rootfs:DIR/root.tar", platform).await.expect("a base");
        self.image_on(&base, platform, created)
    }

    fn image_on(&self, base: &Base, platform: &str, created: i64) -> Image {
        let platform: Platform = platform.parse().expect("a platform");
        let python = tar(&[
            ("opt/conda/", Entry::Folder),
            (&format!("{PREFIX}/bin/"), Entry::Folder),
            (&format!("{PREFIX}/bin/python"), Entry::File(b"#!/bin/sh\necho python\n", 0o755)),
        ]);
        let top = tar(&[("home/conda/", Entry::Folder)]);
        assemble(Assembly {
            platform: &platform,
            base,
            layers: vec![layer(&self.store, "python", &python), layer(&self.store, "environment", &top)],
            env: [("CONDA_PREFIX".to_owned(), format!("/{PREFIX}"))].into(),
            removed: BTreeSet::new(),
            path_prefix: vec![format!("/{PREFIX}/bin")],
            user: "1000:0".parse().expect("a user"),
            entrypoint: None,
            cmd: Some(vec!["python".to_owned()]),
            workdir: Some("/home/conda".to_owned()),
            labels: [("text".to_owned(), "two\nlines\tand a tab".to_owned())].into(),
            annotations: BTreeMap::new(),
            created,
        })
        .expect("assembles")
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("reads").map(|entry| entry.expect("an entry").file_name());
    let mut names: Vec<String> = entries.map(|name| name.to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_layout_is_accepted_by_skopeo_umoci_oci_image_tool_and_buildah() {
    let bench = Bench::new();
    let image = bench.image("linux/amd64", 1_700_000_000).await;
    let written = write_layout(std::slice::from_ref(&image), &bench.path("image"), Some("1"), &Silent).expect("writes");
    assert_eq!(written.digest, image.manifest.digest);
    let layout = bench.text("image");

    let inspected: Value =
        serde_json::from_str(&skopeo(&["inspect", &format!("oci:{layout}:1")])).expect("skopeo prints JSON");
    assert_eq!(inspected["Digest"], image.manifest.digest.to_string());
    assert_eq!(inspected["Created"], "2023-11-14T22:13:20Z");
    assert_eq!(
        inspected["Env"][0],
        format!("PATH=/{PREFIX}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    );
    assert_eq!(inspected["Labels"]["text"], "two\nlines\tand a tab");
    skopeo(&["copy", &format!("oci:{layout}:1"), &format!("dir:{}", bench.text("copied"))]);

    run("oci-image-tool", "oci-image-tool", &["validate", "--type", "image", "--ref", "name=1", &layout]);

    run("umoci", "umoci", &["unpack", "--rootless", "--image", &format!("{layout}:1"), &bench.text("bundle")]);
    let root = bench.path("bundle/rootfs");
    assert_eq!(fs::read_link(root.join("bin")).expect("still a link"), Path::new("usr/bin"));
    assert!(root.join("usr/bin/dash").is_file() && root.join(PREFIX).join("bin/python").is_file());
    let bundle: Value =
        serde_json::from_slice(&fs::read(bench.path("bundle/config.json")).expect("reads")).expect("JSON");
    assert_eq!(bundle["process"]["cwd"], "/home/conda");
    assert_eq!(bundle["process"]["args"], json!(["python"]));

    buildah_takes(&bench, &format!("oci:{layout}:1"));
}

/// `buildah from` checks that history and layers agree; its own storage, nothing of the machine's.
fn buildah_takes(bench: &Bench, image: &str) {
    let (root, runroot) = (bench.text("storage"), bench.text("run"));
    let storage = ["--root", &root, "--runroot", &runroot, "--storage-driver", "vfs"];
    let buildah = |arguments: &[&str]| run("buildah", "buildah", &[&storage, arguments].concat());
    let policy = bench.path("policy.json");
    fs::write(&policy, br#"{"default":[{"type":"insecureAcceptAnything"}]}"#).expect("writes");
    let container = buildah(&["from", "--signature-policy", &policy.display().to_string(), image]);
    let container = container.trim();
    let inspected: Value = serde_json::from_str(&buildah(&["inspect", container])).expect("buildah prints JSON");
    assert_eq!(inspected["OCIv1"]["config"]["User"], "1000:0");
    buildah(&[
        "commit",
        "--signature-policy",
        &policy.display().to_string(),
        container,
        &format!("oci:{}:2", bench.text("committed")),
    ]);
    buildah(&["rm", container]);
}

#[tokio::test]
async fn writing_the_same_again_writes_nothing_and_other_tags_stay() {
    let bench = Bench::new();
    let layout = bench.path("image");
    let image = [bench.image("linux/amd64", 1).await];
    let other = [bench.image("linux/amd64", 2).await];
    let first = write_layout(&image, &layout, Some("a"), &Silent).expect("writes");
    assert_eq!(first.bytes_written, image[0].size() + fs::metadata(layout.join("index.json")).expect("is there").len());
    let inode = || fs::metadata(layout.join("index.json")).expect("is there").ino();
    let before = inode();
    assert_eq!(write_layout(&image, &layout, Some("a"), &Silent).expect("writes").bytes_written, 0);
    assert_eq!(inode(), before);

    write_layout(&other, &layout, Some("b"), &Silent).expect("writes");
    write_layout(&other, &layout, None, &Silent).expect("writes");
    for (tag, expected) in [("a", &image), ("b", &other)] {
        let base = bench.open(&format!("oci:DIR/image:{tag}"), "linux/amd64").await.expect("opens");
        assert_eq!(base.digest, expected[0].manifest.digest);
    }
    let error = bench.open("oci:DIR/image", "linux/amd64").await.expect_err("there are three");
    assert!(error.hints().iter().any(|hint| hint.contains("`a`, `b`")), "{:?}", error.hints());

    // What a killed build left does not make a folder somebody's else.
    fs::create_dir(bench.path("killed")).expect("makes");
    fs::write(bench.path("killed/.condaimg-abc"), b"half").expect("writes");
    run("touch", "coreutils", &["-d", "@1000000000", &bench.text("killed/.condaimg-abc")]);
    write_layout(&image, &bench.path("killed"), None, &Silent).expect("writes");
    assert_eq!(names(&bench.path("killed")), ["blobs", "index.json", "oci-layout"]);

    fs::create_dir(bench.path("full")).expect("makes");
    fs::write(bench.path("full/file"), b"mine").expect("writes");
    assert!(write_layout(&image, &bench.path("full"), None, &Silent).is_err());
    assert_eq!(names(&bench.path("full")), ["file"]);
}

#[tokio::test]
async fn a_damaged_layer_leaves_nothing_behind() {
    let bench = Bench::new();
    let image = [bench.image("linux/amd64", 1).await];
    let path = bench.store.blob(&image[0].layers[1].blob.digest);
    let mut bytes = fs::read(&path).expect("reads");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&path, bytes).expect("writes");

    let archive = bench.path("image.tar");
    fs::write(&archive, b"old").expect("writes");
    assert!(write_oci_archive(&image, &archive, None, &Silent).is_err());
    assert!(write_docker_archive(&image[0], &archive, &[], &Silent).is_err());
    assert_eq!(fs::read(&archive).expect("reads"), b"old");
    assert!(write_layout(&image, &bench.path("image"), None, &Silent).is_err());
    assert!(!bench.path("image/index.json").exists());
    let left: Vec<String> = names(bench.folder.path());
    assert!(
        left.iter().chain(&names(&bench.path("image/blobs/sha256"))).all(|name| !name.starts_with('.')),
        "{left:?}"
    );
}

#[tokio::test]
async fn a_layer_that_was_just_made_is_copied_as_it_is() {
    let bench = Bench::new();
    let copied = bench.image("linux/amd64", 1).await;
    let mut packed = copied.clone();
    let blob = &mut packed.layers[1].blob;
    let (stored, name) = (bench.store.blob(&blob.digest), format!("blobs/sha256/{}", blob.digest.hex()));
    blob.source = BlobSource::Packed(stored.clone());
    let bytes = fs::read(&stored).expect("reads");
    let (copied, packed) = (std::slice::from_ref(&copied), std::slice::from_ref(&packed));
    let inode = |path: &Path| fs::metadata(path).expect("is there").ino();

    write_layout(packed, &bench.path("layout"), None, &Silent).expect("writes");
    let own = bench.path("layout").join(&name);
    assert_eq!(fs::read(&own).expect("reads"), bytes);
    assert_ne!(inode(&own), inode(&stored), "what happens to a layout does not happen to the store");
    for (image, archive) in [(copied, "copied.tar"), (packed, "packed.tar")] {
        write_oci_archive(image, &bench.path(archive), None, &Silent).expect("writes");
    }
    let archives = ["copied.tar", "packed.tar"].map(|archive| fs::read(bench.path(archive)).expect("reads"));
    assert!(archives[0] == archives[1]);

    // Not the layer any more: of no use to anybody.
    fs::write(&stored, &bytes[1..]).expect("writes");
    let error = write_layout(packed, &bench.path("lost"), None, &Silent).expect_err("is too short");
    assert!(error.chain().join(": ").contains("should have"), "{error}");
    assert!(!bench.path("lost").join(&name).exists());
}

#[tokio::test]
async fn archives_are_reproducible_and_read_by_skopeo_and_by_us() {
    let bench = Bench::new();
    let image = bench.image("linux/amd64", 1).await;
    let images = std::slice::from_ref(&image);
    let tags = ["registry.example/team/env:1".to_owned()];
    for copy in ["a", "b"] {
        write_oci_archive(images, &bench.path(&format!("oci-{copy}.tar")), Some("1"), &Silent).expect("writes");
        write_docker_archive(&image, &bench.path(&format!("docker-{copy}.tar")), &tags, &Silent).expect("writes");
    }
    for kind in ["oci", "docker"] {
        let [a, b] = ["a", "b"].map(|copy| fs::read(bench.path(&format!("{kind}-{copy}.tar"))).expect("reads"));
        assert!(a == b, "{kind}");
    }
    let inspected = skopeo(&["inspect", &format!("oci-archive:{}:1", bench.text("oci-a.tar"))]);
    assert!(inspected.contains(&image.manifest.digest.to_string()), "{inspected}");
    let tags = skopeo(&["list-tags", &format!("docker-archive:{}", bench.text("docker-a.tar"))]);
    assert!(tags.contains("registry.example/team/env:1"), "{tags}");
    skopeo(&[
        "copy",
        &format!("docker-archive:{}", bench.text("docker-a.tar")),
        &format!("oci:{}:x", bench.text("again")),
    ]);
    skopeo(&[
        "copy",
        &format!("oci-archive:{}", bench.text("oci-a.tar")),
        &format!("docker-archive:{}", bench.text("theirs.tar")),
    ]);

    let diff_ids: Vec<DiffId> = image.layers.iter().map(|layer| layer.diff_id).collect();
    for base in [
        "oci-archive:DIR/oci-a.tar",
        "docker-archive:DIR/docker-a.tar",
        "oci:DIR/again",
        "docker-archive:DIR/theirs.tar",
    ] {
        let base = bench.open(base, "linux/amd64").await.expect("opens");
        assert_eq!(base.layers.iter().map(|layer| layer.diff_id).collect::<Vec<_>>(), diff_ids);
        assert_eq!(bench.probe(&base).await.glibc, Some(host_glibc()));
    }
    let swapped = bench.open("docker-archive:DIR/oci-a.tar", "linux/amd64").await.expect_err("is another kind");
    assert!(swapped.hints()[0].contains("oci-archive:"), "{swapped:?}");
}

#[tokio::test]
async fn several_platforms_become_an_index() {
    let bench = Bench::new();
    let images = [bench.image("linux/arm64", 1).await, bench.image("linux/amd64", 1).await];
    let written = write_layout(&images, &bench.path("image"), Some("1"), &Silent).expect("writes");
    let layout = bench.text("image");
    let index: Value = serde_json::from_str(&skopeo(&["inspect", "--raw", &format!("oci:{layout}:1")])).expect("JSON");
    let architectures: Vec<&Value> =
        index["manifests"].as_array().expect("a list").iter().map(|it| &it["platform"]["architecture"]).collect();
    assert_eq!(architectures, ["amd64", "arm64"]);
    let reversed = [images[1].clone(), images[0].clone()];
    let again = write_layout(&reversed, &bench.path("image"), Some("1"), &Silent).expect("writes");
    assert_eq!((again.digest, again.bytes_written), (written.digest, 0));
    for image in &images {
        let base = bench.open("oci:DIR/image:1", &image.platform.to_string()).await.expect("opens");
        assert_eq!(base.digest, image.manifest.digest);
    }
    let error = bench.open("oci:DIR/image:1", "linux/s390x").await.expect_err("is not there");
    assert!(error.hints()[0].contains("linux/amd64, linux/arm64"), "{error:?}");
    skopeo(&["copy", "--override-arch", "arm64", &format!("oci:{layout}:1"), &format!("dir:{}", bench.text("arm"))]);
}

#[tokio::test]
async fn a_root_folder_becomes_the_same_layer_whenever_it_is_packed() {
    let bench = Bench::new();
    for (folder, order) in [("one", [0, 1, 2]), ("two", [2, 0, 1])] {
        let root = bench.path(folder);
        fs::create_dir_all(root.join("usr/bin")).expect("makes");
        for index in order {
            let name = ["b", "a", "c"][index];
            fs::write(root.join("usr/bin").join(name), name).expect("writes");
        }
        fs::hard_link(root.join("usr/bin/c"), root.join("usr/bin/d")).expect("links");
        std::os::unix::fs::symlink("usr/bin", root.join("bin")).expect("links");
        for path in ["usr/bin/a", "usr/bin/b", "usr/bin/c", "usr/bin", "usr"] {
            run("touch", "coreutils", &["-d", "@1000000000.5", &root.join(path).display().to_string()]);
        }
        run("touch", "coreutils", &["-h", "-d", "@1000000000", &root.join("bin").display().to_string()]);
    }
    let one = bench.open("rootfs:DIR/one", "linux/amd64").await.expect("opens");
    let two = bench.open("rootfs:DIR/two", "linux/amd64").await.expect("opens");
    assert_eq!(one.digest, two.digest);
    let listing = run("tar", "tar", &["-tvf", &bench.store.blob(&one.digest).display().to_string()]);
    assert!(listing.contains("bin -> usr/bin") && listing.contains("usr/bin/d link to usr/bin/c"), "{listing}");
    let facts = bench.probe(&one).await;
    assert_eq!(facts.symlinks, [("bin".to_owned(), "usr/bin".to_owned())].into());

    let image = bench.image_on(&one, "linux/amd64", 1);
    write_layout(&[image], &bench.path("image"), Some("1"), &Silent).expect("writes");
    run("oci-image-tool", "oci-image-tool", &["validate", "--type", "image", "--ref", "name=1", &bench.text("image")]);
}

#[tokio::test]
async fn compressed_root_tars_are_taken_as_they_are_and_others_refused() {
    let bench = Bench::new();
    let plain = bench.open("rootfs:DIR/root.tar", "linux/amd64").await.expect("opens");
    fs::write(bench.path("root.tgz"), gzip(&root())).expect("writes");
    fs::write(bench.path("root.zst"), zstd::encode_all(&root()[..], 3).expect("compresses")).expect("writes");
    for (name, suffix) in [("root.tgz", "+gzip"), ("root.zst", "+zstd")] {
        let base = bench.open(&format!("rootfs:DIR/{name}"), "linux/amd64").await.expect("opens");
        assert_eq!(base.layers[0].diff_id, plain.layers[0].diff_id);
        assert!(base.layers[0].blob.media_type.ends_with(suffix));
        assert_eq!(bench.probe(&base).await, bench.probe(&plain).await);
    }
    for (name, bytes) in
        [("text", &b"hello"[..]), ("xz", b"\xfd7zXZ\0..."), ("cut", &gzip(&root())[..1000]), ("none", b"")]
    {
        fs::write(bench.path(name), bytes).expect("writes");
        assert!(bench.open(&format!("rootfs:DIR/{name}"), "linux/amd64").await.is_err(), "{name}");
    }
}

#[tokio::test]
async fn scratch_has_no_layers_and_is_no_obstacle() {
    let bench = Bench::new();
    let base = bench.open("scratch", "linux/amd64").await.expect("opens");
    assert_eq!(bench.probe(&base).await, BaseFacts { whole: true, ..BaseFacts::default() });
    let image = bench.image_on(&base, "linux/amd64", 1);
    assert_eq!(image.layers.len(), 2);
    write_layout(&[image], &bench.path("image"), Some("1"), &Silent).expect("writes");
    run("oci-image-tool", "oci-image-tool", &["validate", "--type", "image", "--ref", "name=1", &bench.text("image")]);
}

#[tokio::test]
async fn a_base_for_another_platform_is_refused_by_name() {
    let bench = Bench::new();
    let image = bench.image("linux/arm64", 1).await;
    write_layout(&[image], &bench.path("image"), None, &Silent).expect("writes");
    let error = bench.open("oci:DIR/image", "linux/amd64").await.expect_err("is for arm64");
    assert!(error.chain()[1].contains("linux/arm64"), "{:?}", error.chain());
}

#[tokio::test]
async fn a_full_disk_is_named_and_leaves_nothing_behind() {
    let disk = SmallDisk::mount("64k");
    let small = disk.path();
    let bench = Bench::new();
    let image = [bench.image("linux/amd64", 1).await];
    let archive = small.join("image.tar");
    let layout = small.join("image");
    for result in [
        write_oci_archive(&image, &archive, None, &Silent),
        write_docker_archive(&image[0], &archive, &[], &Silent),
        write_layout(&image, &layout, None, &Silent),
    ] {
        let error = result.expect_err("does not fit");
        let chain = error.chain().join(": ");
        assert!(chain.contains("No space left") && chain.contains(&small.display().to_string()), "{chain}");
        assert!(error.hints()[0].contains("free some space"), "{:?}", error.hints());
    }
    assert_eq!(names(small), ["image"]);
    assert!(!layout.join("index.json").exists());
    assert!(names(&layout.join("blobs/sha256")).iter().all(|name| name.len() == 64));
}
