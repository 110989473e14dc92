//! The same lock and parameters make the same bytes: on other machines, on later days, and in later versions of
//! condaimg with the same layout version.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use condaimg::util::Digest;
use serde_json::Value;

use crate::common::packages::{Channel, FileMode, Format, Package};
use crate::common::tree::Image;
use crate::common::{Workspace, environment, example_base, example_channel, program, succeed};

// ---- everywhere ----------------------------------------------------------------------------------------------

/// An environment with all that is made here and not copied: byte code, entry points, patched files, activation.
const DEPENDENCIES: [&str; 5] = ["python=3.11", "flask", "markupsafe", "feature-activate", "feature-links"];

/// What differs between two machines and two people.
struct Circumstances {
    umask: &'static str,
    timezone: &'static str,
    locale: &'static str,
    home: &'static str,
    /// Where this machine keeps the channel, as a link with the same last component.
    channel: &'static str,
    jobs: Option<&'static str>,
    /// How far the clock is off, as faketime takes it.
    clock: &'static str,
}

const HERE: Circumstances = Circumstances {
    umask: "0022",
    timezone: "UTC",
    locale: "C",
    home: "home",
    channel: "here/channel",
    jobs: None,
    clock: "+0",
};
const THERE: Circumstances = Circumstances {
    umask: "0077",
    timezone: "Asia/Kathmandu",
    locale: "tr_TR.UTF-8",
    home: "another/home",
    channel: "over/there/in a folder/channel",
    jobs: Some("1"),
    clock: "+40d",
};

impl Circumstances {
    /// A machine with nothing on it but the specification.
    fn machine(&self) -> Machine<'_> {
        let workspace = Workspace::new();
        workspace.file("environment.yml", environment(&DEPENDENCIES));
        fs_err::create_dir_all(workspace.path(self.home)).unwrap();
        let machine = Machine { workspace, circumstances: self };
        machine.link_channel(self.channel);
        machine
    }
}

struct Machine<'a> {
    workspace: Workspace,
    circumstances: &'a Circumstances,
}

impl Machine<'_> {
    /// Builds; returns digest, layers and config.
    fn build(&self, arguments: &[&str]) -> Built {
        self.build_at(None, arguments)
    }

    /// The example channel under another name.
    fn link_channel(&self, name: &str) {
        let channel = self.workspace.path(name);
        fs_err::create_dir_all(channel.parent().expect("a parent")).unwrap();
        fs_err::os::unix::fs::symlink(example_channel(), &channel).unwrap();
    }

    fn build_at(&self, epoch: Option<&str>, arguments: &[&str]) -> Built {
        let there = self.circumstances;
        let mut build = self.workspace.condaimg();
        build.args(["build", "--override-channels", "--channel"]).arg(self.workspace.path(there.channel));
        build.args(["--base", &format!("oci:{}:debian", example_base().display())]);
        build.args(there.jobs.iter().flat_map(|jobs| ["--jobs", jobs])).args(arguments);
        build.env("TZ", there.timezone).env("LC_ALL", there.locale).env("HOME", self.workspace.path(there.home));
        build.envs(epoch.map(|epoch| ("SOURCE_DATE_EPOCH", epoch)));
        let _ = fs_err::remove_dir_all(self.workspace.path("image"));
        let printed = succeed(&mut under(&build, there));
        let built = Built::read(&self.workspace.path("image"));
        assert_eq!(printed.trim(), built.digest.to_string());
        built
    }

    /// Takes away what an earlier build left.
    fn forget(&self, what: &[&str]) -> &Self {
        for name in what {
            let path = self.workspace.path(name);
            if path.is_dir() { fs_err::remove_dir_all(path).unwrap() } else { fs_err::remove_file(path).unwrap() }
        }
        self
    }
}

/// The same command under a umask, and on another day.
fn under(command: &Command, there: &Circumstances) -> Command {
    let mut shell = program("faketime", "faketime");
    shell.args(["-f", there.clock, "sh", "-c", r#"umask "$0" && exec "$@""#, there.umask]);
    shell.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    shell.current_dir(command.get_current_dir().expect("a folder"));
    shell
}

/// What a build made. Compared in this order, so that a difference shows where it begins.
#[derive(Debug, PartialEq)]
struct Built {
    /// Name, digest and annotations of each layer.
    layers: Vec<Value>,
    config: Value,
    manifest: Value,
    digest: Digest,
}

impl Built {
    fn read(layout: &Path) -> Self {
        let index: Value = serde_json::from_slice(&fs_err::read(layout.join("index.json")).unwrap()).unwrap();
        let digest: Digest = index["manifests"][0]["digest"].as_str().expect("a digest").parse().unwrap();
        let blob =
            |digest: &Digest| -> Value { serde_json::from_slice(&crate::common::tree::blob(layout, digest)).unwrap() };
        let mut manifest = blob(&digest);
        let config = blob(&manifest["config"]["digest"].as_str().expect("a digest").parse().unwrap());
        let Value::Array(layers) = manifest["layers"].take() else { panic!("no layers: {manifest}") };
        Self { layers, config, manifest, digest }
    }
}

#[test]
fn the_same_image_comes_out_under_all_circumstances() {
    let (here, there) = (HERE.machine(), THERE.machine());
    let first = here.build(&[]);
    assert_eq!(first, there.build(&[]), "elsewhere, nothing in the cache, no lock");
    assert_eq!(first, there.build(&["--locked"]), "from the lock and the cache");
    assert_eq!(first, there.build(&["--locked", "--no-cache"]), "made again from cached archives");
    assert_eq!(first, there.forget(&["condaimg.lock"]).build(&[]), "solved again");
    assert_eq!(first, there.forget(&["cache"]).build(&["--locked"]), "from the lock alone");
    // A lock that was made here is good there, with the channel where the lock says it is.
    there.link_channel(HERE.channel);
    fs_err::copy(here.workspace.path("condaimg.lock"), there.workspace.path("condaimg.lock")).unwrap();
    assert_eq!(first, there.forget(&["cache"]).build(&["--frozen"]), "from another machine's lock");
}

#[test]
fn zstd_layers_are_the_same_under_all_circumstances() {
    let here = HERE.machine().build(&["--compression", "zstd:3"]);
    assert!(here.layers.iter().any(|layer| layer["mediaType"].as_str().unwrap().ends_with("zstd")));
    assert_eq!(here, THERE.machine().build(&["--compression", "zstd:3"]));
}

#[test]
fn source_date_epoch_changes_no_layer() {
    let machine = HERE.machine();
    let (without, mut with) = (machine.build(&[]), machine.build_at(Some("86400"), &["--no-cache"]));
    assert_eq!(without.layers, with.layers);
    assert_eq!(with.config["created"], "1970-01-02T00:00:00Z");
    // Times, and the digest of the lock, which records the epoch as a parameter; nothing else.
    let lock = |built: &Built| built.config["config"]["Labels"]["dev.condaimg.lock"].clone();
    assert_ne!(lock(&without), lock(&with));
    with.config["config"]["Labels"]["dev.condaimg.lock"] = lock(&without);
    with.config["created"] = without.config["created"].clone();
    let histories = with.config["history"].as_array_mut().expect("a history");
    for (history, other) in histories.iter_mut().zip(without.config["history"].as_array().expect("a history")) {
        history["created"] = other["created"].clone();
    }
    assert_eq!(with.config, without.config);
}

// ---- for ever ------------------------------------------------------------------------------------------------

/// Digests of the image of `tests/data/mini-channel`. If one changes, raise `LAYOUT_VERSION`: equal locks no longer
/// make equal images. Layers must not change in any other way; the manifest names the lock, which is made here and may
/// come to say more.
const GOLDEN: [Golden; 2] = [
    Golden {
        compression: "gzip:6",
        layers: "sha256:1d968af9a4a4064fe5101958159386e86702ce0bfde86db89e0e75bbcda322a3",
        manifest: "sha256:b0fce117d8f9517ddf07a182e54e4a26787a4c09f88a912fb223cf653a3eeee1",
    },
    Golden {
        compression: "zstd:3",
        layers: "sha256:95618f60c3d2aa4da88e6c8021f1e0425cfabe29bd765934763f14dc125d5dcd",
        manifest: "sha256:c35d7bbc5e9ba74f59eca741195dd16b2ebf1a2c5d44cb65a0b637115b98c9ed",
    },
];

/// A policy of its own: the shipped one is a parameter, and may change without another layout version.
const GOLDEN_POLICY: &str = "\
own-layer: 10000
tiers:
  - name: python
    closure-of: [python]
    together: true
  - name: compiled
    packages: [mini-links, mini-old]
  - name: others
";

struct Golden {
    compression: &'static str,
    /// Of the layers' digests, one a line: what is in the image and how it is packed.
    layers: &'static str,
    /// Of the manifest: config and annotations too.
    manifest: &'static str,
}

fn mini_channel() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/mini-channel")
}

#[test]
fn the_golden_image_is_still_the_same() {
    let workspace = Workspace::new();
    let names: Vec<String> = mini_packages().into_iter().map(|(package, _)| package.name).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    workspace.file("environment.yml", format!("{}variables: {{GOLDEN: 'yes'}}\n", environment(&names)));
    workspace.file("layers.yaml", GOLDEN_POLICY);
    let made: Vec<[String; 3]> = GOLDEN
        .iter()
        .map(|golden| {
            let output = format!("oci:{}", golden.compression.replace(':', "-"));
            let mut build = workspace.condaimg();
            build.args(["build", "--override-channels", "--channel"]).arg(mini_channel());
            build.args(["--base", "scratch", "--glibc", "2.36", "--bytecode", "off", "--output", &output]);
            succeed(build.args(["--layers", "./layers.yaml", "--compression", golden.compression]));
            let image = Image::read(&workspace.path(&output["oci:".len()..]));
            assert!(image.tree().contains_key("opt/conda/envs/default/bin/mini-app"));
            let layers = image.manifest["layers"].as_array().expect("layers").iter();
            let digests: String = layers.map(|layer| format!("{}\n", layer["digest"].as_str().unwrap())).collect();
            [golden.compression.to_owned(), Digest::of(digests).to_string(), image.digest.to_string()]
        })
        .collect();
    let expected = GOLDEN.map(|golden| [golden.compression, golden.layers, golden.manifest].map(str::to_owned));
    assert_eq!(made, expected, "images of the same lock have changed: raise LAYOUT_VERSION");
}

/// The packages of the mini-channel: a little of everything that packing has to deal with.
fn mini_packages() -> Vec<(Package, Format)> {
    let prefix = format!("/build/{}", "placehold_".repeat(24));
    // Long enough for several gzip members and zstd frames; packs small.
    let long: Vec<u8> = (0..5_u32 << 20).map(|number| (number / 7 % 251) as u8).collect();
    let binary = [b"\x7fELF\x02\0", prefix.as_bytes(), b"/lib/mini\0\0", prefix.as_bytes(), b"\0\xff\xfe"].concat();
    vec![
        (
            Package::new("python", "3.11.2").build("0_cpython", 0).executable("bin/python3.11", "no program"),
            Format::Conda,
        ),
        (
            Package::new("mini-links", "1.0")
                .file_with_placeholder("lib/libmini.so.1", &binary, &prefix, FileMode::Binary)
                .symlink("lib/libmini.so", "libmini.so.1")
                .file_with_placeholder("bin/mini", format!("#!{prefix}/bin/sh\n"), &prefix, FileMode::Text)
                .hardlink("bin/mini-again", "bin/mini")
                .file("share/mini/one", "one file, two names\n")
                .hardlink("share/mini/two", "share/mini/one")
                .symlink("share/mini/dangling", "no/where")
                .symlink("share/mini/absolute", "/etc/hostname")
                .symlink("share/mini/folder", "../mini")
                .file("share/mini/empty", ""),
            Format::Conda,
        ),
        (
            Package::new("mini-old", "0.1")
                .depends(&["mini-links"])
                .old_metadata()
                .executable("bin/mini-old", "#!/opt/anaconda1anaconda2anaconda3/bin/sh\n")
                .info("has_prefix", "bin/mini-old\n")
                .file_with_mode("bin/mini-setuid", "#!/bin/sh\n", 0o4755)
                .file_with_mode("share/mini/secret", "x\n", 0o600)
                .file("share/mini/ünï-д-日.txt", "a name that is not ASCII\n")
                .file(&format!("share/mini/{}/{}", "l".repeat(120), "n".repeat(90)), "a long path\n")
                .file(&format!("share/mini/{}/{}", "l".repeat(190), "n".repeat(190)), "a longer path\n")
                .symlink("share/mini/long-target", &"up/".repeat(60))
                .file("share/mini/old", "of 1996\n")
                .mtime(820_454_400),
            Format::TarBz2,
        ),
        (Package::new("mini-data", "2026.1").noarch_generic().file("share/mini/long", long), Format::Conda),
        (
            Package::new("mini-app", "3")
                .noarch_python()
                .depends(&["python"])
                .file("site-packages/mini/__init__.py", "def main():\n    print('mini')\n")
                .executable("python-scripts/mini-script", "#!/usr/bin/env python\n")
                .entry_point("mini-app = mini:main"),
            Format::TarBz2,
        ),
        (
            Package::new("mini-activate", "1")
                .file("etc/conda/activate.d/mini.sh", "export MINI_HOME=\"$CONDA_PREFIX/share/mini\"\n")
                .file("etc/conda/env_vars.d/mini.json", r#"{"MINI": "$ is a dollar"}"#)
                .file("etc/conda/activate.d/dynamic.sh", "export MINI_HOST=$(hostname)\n")
                .executable("bin/.mini-activate-post-link.sh", "#!/bin/sh\nexit 1\n"),
            Format::Conda,
        ),
        (Package::new("mini-clobber-a", "1").file("share/mini/both", "a\n").file("share/mini/a", ""), Format::Conda),
        (Package::new("mini-clobber-b", "1").file("share/mini/both", "b\n").file("share/mini/b", ""), Format::TarBz2),
    ]
}

/// The committed channel was made by the code above. Compressors may change the archives' bytes from version to
/// version; what is in them must not.
#[test]
fn the_mini_channel_is_what_its_code_says() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("mini-channel");
    let _ = fs_err::remove_dir_all(&folder);
    let mut channel = Channel::new(&folder);
    let mut other = Vec::new();
    for (package, format) in mini_packages() {
        let made = channel.add(&package, format);
        let committed = mini_channel().join(made.strip_prefix(&folder).unwrap());
        if !committed.exists() || unpacked(&made) != unpacked(&committed) {
            other.push(committed);
        }
    }
    channel.index();
    assert!(other.is_empty(), "copy {} to {}, if it is right: {other:?}", folder.display(), mini_channel().display());
}

/// Header and content of all entries of an archive, by their path.
fn unpacked(archive: &Path) -> BTreeMap<Vec<u8>, (Vec<u8>, Vec<u8>)> {
    use rattler_package_streaming::{read, seek};
    let open = || std::io::BufReader::new(fs_err::File::open(archive).unwrap());
    let mut entries = BTreeMap::new();
    let mut take = |tar: &mut tar::Archive<Box<dyn std::io::Read>>| {
        for entry in tar.entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            entries.insert(entry.path_bytes().into_owned(), (entry.header().as_bytes().to_vec(), content));
        }
    };
    if archive.extension().is_some_and(|extension| extension == "conda") {
        let info = seek::stream_conda_info(open()).unwrap().into_inner();
        take(&mut tar::Archive::new(Box::new(info)));
        let content = seek::stream_conda_content(open()).unwrap().into_inner();
        take(&mut tar::Archive::new(Box::new(content)));
    } else {
        take(&mut tar::Archive::new(Box::new(read::stream_tar_bz2(open()).into_inner())));
    }
    entries
}
