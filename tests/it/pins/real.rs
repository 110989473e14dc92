//! Locks of real projects, as their tools wrote them, are read and planned without a network.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use condaimg::lock::{
    self, Lock, LockedBase, LockedPackage, LockedWheel, Locks, PackageFacts, Pins, WheelFacts, WheelSource,
};
use condaimg::model::{BaseFacts, Platform};
use condaimg::plan::{self, KeyInputs, LayerPlan, Policy};
use condaimg::spec::{self, Spec};
use condaimg::util::Digest;

fn data(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(path)
}

/// A lock that is committed compressed, because of its size.
fn unpacked(path: &str) -> String {
    let bytes = zstd::decode_all(fs_err::File::open(data(path)).expect("opens")).expect("is zstd");
    String::from_utf8(bytes).expect("UTF-8")
}

fn platform(name: &str) -> Platform {
    name.parse().expect("a platform")
}

/// A lock of what is pinned, as one without facts is.
fn lock_of(pins: &Pins, target: &str) -> Lock {
    let platform = platform(target);
    let pinned = pins.of(&platform).expect("is for the platform");
    let facts = PackageFacts::default;
    let packages = pinned.packages.into_iter().map(|package| LockedPackage { record: package.record, facts: facts() });
    let digest = Digest::of("nothing");
    Lock {
        inputs: None,
        platform,
        channels: pins.channels().to_vec(),
        virtual_packages: Vec::new(),
        specs: Vec::new(),
        pip: Vec::new(),
        variables: BTreeMap::new(),
        base: LockedBase {
            reference: "scratch".to_owned(),
            digest,
            facts: BaseFacts::default(),
            environment: None,
            documents: None,
        },
        packages: packages.collect(),
        wheels: Vec::new(),
        has_facts: false,
        edited: Vec::new(),
        interpreters: BTreeMap::new(),
    }
}

fn planned(lock: &Lock) -> LayerPlan {
    let python = plan::python_of(lock).expect("a Python");
    let inputs = KeyInputs {
        prefix: "/opt/conda/envs/default".to_owned(),
        root: "opt/conda/envs/default".to_owned(),
        folders: condaimg::model::Folders::default(),
        codec: "gzip".to_owned(),
        group_write: false,
        bytecode: true,
        python_archive: python.as_ref().map(|(_, archive)| *archive),
        python: python.map(|(info, _)| info),
    };
    plan::plan(lock, &Policy::named("default").expect("a policy"), 32, &inputs).expect("a plan")
}

#[test]
fn large_locks_are_planned() {
    let pixi = |path, environment| Pins::pixi(Path::new("pixi.lock"), &unpacked(path), environment);
    let conda_lock = |path| Pins::conda_lock(Path::new("conda-lock.yml"), &unpacked(path), None);
    let turtlesim = "pixi-locks/turtlesim.pixi.lock.zst";
    for (pins, target, packages) in [
        (pixi("pixi-locks/qgis.pixi.lock.zst", None), "linux/amd64", 292),
        (pixi(turtlesim, None), "linux/amd64", 626),
        (pixi(turtlesim, Some("noetic")), "linux/amd64", 495),
        (conda_lock("rattler-test-data/conda-lock/v0/numpy-conda-lock.yml.zst"), "linux/amd64", 254),
        (conda_lock("rattler-test-data/conda-lock/v0/numpy-conda-lock.yml.zst"), "linux/arm64", 176),
    ] {
        let pins = pins.expect("reads");
        let lock = lock_of(&pins, target);
        assert_eq!(lock.packages.len(), packages);
        let plan = planned(&lock);
        let members: usize = plan.layers.iter().map(|layer| layer.members().count()).sum();
        assert!(members == packages && plan.layers.len() < 32, "{members} in {} layers", plan.layers.len());
        assert_eq!(planned(&lock_of(&pins, target)), plan, "the same keys twice");
    }
    let other = pixi(turtlesim, Some("humble")).expect_err("is not there");
    assert!(other.hints().iter().any(|hint| hint.contains("one of default, noetic")), "{:?}", other.hints());
}

/// The packages for a platform, or what is wrong with a file.
fn outcome(path: &str, target: &str) -> Result<usize, String> {
    let pins = match spec::read(&data(path)) {
        Ok(Spec { pins, .. }) => pins.expect("pins something"),
        Err(error) => return Err(error.to_string()),
    };
    pins.of(&platform(target)).map(|pinned| pinned.packages.len()).map_err(|error| error.to_string())
}

#[test]
fn files_of_every_version_are_read_or_refused_with_a_reason() {
    for (path, expected) in [
        ("conda-lock/v0/python-conda-lock.yml", Ok(22)),
        ("conda-lock/v4/python-lock.yml", Ok(22)),
        ("explicit-envs/xtensor_linux-64.txt", Ok(7)),
        ("explicit-envs/ros-noetic_linux-64.txt", Ok(568)),
        ("explicit-envs/vs2015_runtime_win-64.txt", Err("is for win-64")),
        ("conda-lock/v4/absolute-path-lock.yml", Err("has no conda packages for linux-64")),
        ("conda-lock/v6/conda-path-lock.yml", Err("are to be built from source")),
        ("conda-lock/v6/derived-channel-lock.yml", Err("has nothing for linux-64")),
        ("conda-lock/v6/empty-lock.yml", Err("has nothing for linux-64")),
        ("conda-lock/v6/multiple-source-packages-with-variants-lock.yml", Err("`my-package` (my-package-linux)")),
        ("conda-lock/v6/options-lock.yml", Err("has no environment `default`")),
        ("conda-lock/v6/pixi-build-git-rev-only-source-lock.yml", Err("are to be built from source")),
        ("conda-lock/v6/pixi-build-git-tag-source-lock.yml", Err("are to be built from source")),
        ("conda-lock/v6/pixi-build-pinned-source-lock.yml", Err("are to be built from source")),
        ("conda-lock/v6/pixi-build-url-source-lock.yml", Err("are to be built from source")),
        ("conda-lock/v6/python-from-conda-only-lock.yml", Err("has nothing for linux-64")),
        ("conda-lock/v6/source-package-with-variants-lock.yml", Err("are to be built from source")),
        ("conda-lock/v6/sources-lock.yml", Err("has nothing for linux-64")),
    ] {
        let outcome = outcome(&format!("rattler-test-data/{path}"), "linux/amd64");
        match (expected, outcome) {
            (Ok(expected), Ok(found)) => assert_eq!(found, expected, "{path}"),
            (Err(expected), Err(message)) => assert!(message.contains(expected), "{path}: {message}"),
            (_, outcome) => panic!("{path}: {outcome:?}"),
        }
    }
    assert_eq!(outcome("rattler-test-data/conda-lock/v0/python-conda-lock.yml", "linux/arm64"), Ok(21));
    assert_eq!(outcome("rattler-test-data/conda-lock/v4/python-lock.yml", "linux/ppc64le"), Ok(22));
}

/// Versions 2 and 3 of pixi.lock were short-lived: the form of conda-lock, with lists and with what an index says.
#[test]
fn early_pixi_locks_are_read() {
    for (version, manager) in [(1, "pip"), (2, "pip"), (3, "pypi")] {
        let dependencies = if version == 1 { "{libffi: '>=3.4'}" } else { "['libffi >=3.4']" };
        let text = format!(
            "version: {version}
metadata:
  content_hash: {{linux-64: abc}}
  channels: [{{url: https://channel.example/forge/, used_env_vars: []}}]
  platforms: [linux-64]
  sources: []
package:
- platform: linux-64
  name: python
  version: 3.11.3
  category: main
  manager: conda
  dependencies: {dependencies}
  url: https://channel.example/forge/linux-64/python-3.11.3-h2755cc3_0_cpython.conda
  hash: {{md5: 37005ea5f68df6a8a381b70cf4d4a160, sha256: 46654cd6f4fe1bfd7ecac3ae5de2b7a1d1bc9e9e1d9f2a66eb4e5c6b3ac52fd7}}
  build: h2755cc3_0_cpython
  size: 30679695
  optional: false
- platform: linux-64
  name: rich
  version: 13.4.2
  category: main
  manager: {manager}
  requires_dist: []
  url: https://files.example/rich-13.4.2-py3-none-any.whl
  hash: {{sha256: 8f87bc7ee54675732fa66a05ebfe489e27264caeeff3728c945d25971b6485ec}}
  optional: false
"
        );
        let pins = Pins::pixi(Path::new("pixi.lock"), &text, None).expect("reads");
        let pinned = pins.of(&platform("linux/amd64")).expect("is for it");
        let package = &pinned.packages[0];
        assert_eq!(package.record.package_record.depends, ["libffi >=3.4"]);
        assert!(package.complete);
        let wheel = &pinned.wheels[0];
        assert_eq!((wheel.name.as_str(), wheel.version.as_deref()), ("rich", Some("13.4.2")), "version {version}");
        assert!(wheel.sha256.is_some() && wheel.url.path().ends_with(".whl"));
    }
}

#[test]
fn wheels_are_in_exports_and_read_from_them() {
    let pins = Pins::conda_lock(
        Path::new("x"),
        &fs_err::read_to_string(data("rattler-test-data/conda-lock/v0/python-conda-lock.yml")).expect("reads"),
        None,
    );
    let mut lock = lock_of(&pins.expect("reads"), "linux/amd64");
    let url = |text: &str| text.parse::<url::Url>().expect("a URL");
    let commit = "5c9b8a7d5c9b8a7d5c9b8a7d5c9b8a7d5c9b8a7d";
    let sources = [
        (
            "built",
            WheelSource::Git {
                url: url("https://git.example/team/built.git"),
                commit: commit.to_owned(),
                subdirectory: None,
            },
        ),
        ("plain", WheelSource::Wheel { url: url("https://files.example/plain-1.0-py3-none-any.whl") }),
        (
            "source",
            WheelSource::Sdist { url: url("https://files.example/source-1.0.tar.gz"), sha256: Digest::of("sdist") },
        ),
    ];
    lock.wheels = sources
        .map(|(name, source)| LockedWheel {
            name: name.to_owned(),
            version: "1.0".to_owned(),
            file_name: format!("{name}-1.0-py3-none-any.whl"),
            sha256: Digest::of(name),
            size: 7,
            source,
            index: Some(url("https://index.example/simple")),
            requires_dist: vec!["plain (>=1)".to_owned(), "other; extra == 'x'".to_owned()],
            requires_python: None,
            facts: WheelFacts::default(),
        })
        .into();
    let locks: Locks = [lock.clone()].into_iter().collect();
    let (explicit, conda_lock) =
        (lock::export_explicit(&lock).expect("exports"), lock::export_conda_lock(&locks).expect("exports"));
    let pixi = lock::export_pixi(&locks).expect("exports");
    explicit.parse::<rattler_conda_types::ExplicitEnvironmentSpec>().expect("conda's form");
    conda_lock.parse::<rattler_conda_lock::LockFile>().expect("conda-lock's form");
    for pins in [
        Pins::explicit(Path::new("x"), &explicit),
        Pins::conda_lock(Path::new("x"), &conda_lock, None),
        Pins::pixi(Path::new("x"), &pixi, None),
    ] {
        let pinned = pins.expect("reads").of(&platform("linux/amd64")).expect("is for it");
        assert_eq!(pinned.packages.len(), lock.packages.len());
        let [built, plain, source] = pinned.wheels.as_slice() else { panic!("{:?}", pinned.wheels) };
        assert_eq!((built.url.path(), built.url.fragment()), ("/team/built.git", Some(commit)));
        assert_eq!((plain.name.as_str(), plain.sha256), ("plain", Some(Digest::of("plain"))));
        assert_eq!(
            (source.url.as_str(), source.sha256),
            ("https://files.example/source-1.0.tar.gz", Some(Digest::of("sdist")))
        );
    }
    lock.wheels[0].source = WheelSource::Folder { url: url("file:///project"), digest: Digest::of("content") };
    assert!(lock::export_explicit(&lock).expect("exports").contains("built-1.0 was built from a folder"));
    let refused = lock::export_conda_lock(&[lock].into_iter().collect()).expect_err("cannot say it");
    assert!(refused.to_string().contains("`built-1.0` was built from a folder"), "{refused}");
}
