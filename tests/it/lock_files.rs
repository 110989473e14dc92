//! Locks as files: in the clones of a repository, read by other tools, edited by hand, and beside a channel that serves
//! something else.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use rattler_lock::LockFile;
use serde_json::{Value, json};

use crate::common::file_server::FileServer;
use crate::common::packages::{Channel, Format, Package};
use crate::common::{
    Workspace, environment, example_base, example_channel, fail, python_with_rattler, run_output, succeed,
};

/// A folder with an environment, a channel and a base, as a repository may have them.
struct Repository {
    workspace: Workspace,
    /// Where the clone lies in the workspace.
    folder: PathBuf,
}

impl Repository {
    fn clone_at(name: &str) -> Self {
        let workspace = Workspace::new();
        let folder = workspace.path(name);
        let mut channel = Channel::new(folder.join("vendor/my channel"));
        for package in [
            Package::new("app", "1.0").depends(&["lib", "pure"]).file("share/both", "app"),
            Package::new("lib", "1.0").file("share/both", "lib").file("etc/conda/activate.d/l.sh", "export L=1\n"),
            Package::new("pure", "1.0").noarch_generic().file("share/pure", "pure"),
        ] {
            channel.add(&package, Format::Conda);
        }
        channel.index();
        workspace.file(&format!("{name}/root/etc/os-release"), "NAME=none\n");
        // A root file system keeps its files' times, so they are part of the base's digest.
        for path in ["root/etc/os-release", "root/etc", "root"] {
            let file = fs_err::File::open(folder.join(path)).expect("opens");
            file.file()
                .set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000))
                .expect("sets its time");
        }
        workspace.file(
            &format!("{name}/environment.yml"),
            "channels: [./vendor/my channel]\ndependencies: [app]\nvariables: {A: b}\n",
        );
        Self { workspace, folder }
    }

    fn condaimg(&self, command: &str) -> Command {
        let mut program = self.workspace.condaimg();
        program.current_dir(&self.folder).args([command, "--base", "rootfs:root", "--glibc", "2.36"]);
        program
    }

    fn lock(&self) -> PathBuf {
        self.folder.join("condaimg.lock")
    }

    fn text(&self) -> String {
        fs_err::read_to_string(self.lock()).expect("a lock")
    }

    /// Puts a text in the place of another one in the lock.
    fn edit(&self, from: &str, to: &str) {
        let text = self.text();
        assert!(text.contains(from), "`{from}` is not in {text}");
        fs_err::write(self.lock(), text.replace(from, to)).expect("writes");
    }
}

// ---- clones ---------------------------------------------------------------------------------------------------

#[test]
fn two_clones_have_one_lock() {
    let (one, two) = (Repository::clone_at("here"), Repository::clone_at("there/and/deeper"));
    succeed(&mut one.condaimg("lock"));
    succeed(&mut two.condaimg("lock"));
    let text = one.text();
    assert_eq!(text, two.text());
    let said = [
        "url: ./vendor/my channel\n",
        "conda: ./vendor/my channel/noarch/pure-1.0-0.conda\n",
        "reference: rootfs:./root\n",
    ];
    for expected in said {
        assert!(text.contains(expected), "`{expected}` is not in {text}");
    }
    assert!(!text.contains("file://") && !text.contains(&*one.workspace.path("").to_string_lossy()), "{text}");
    let digest = succeed(one.condaimg("build").arg("--locked"));
    assert_eq!(succeed(two.condaimg("build").arg("--locked")), digest);
    assert_eq!(two.text(), text);
    // However the same channel and base are called.
    for (channel, base) in [("vendor/my channel", "root"), ("vendor/../vendor/my channel/", "./root")] {
        let (channel, base) = (two.folder.join(channel), two.folder.join(base));
        let mut command = two.workspace.condaimg();
        command.args(["build", "--locked", "--glibc", "2.36", "--override-channels", "--file"]).arg(&two.folder);
        command.arg("--channel").arg(&channel).arg("--base").arg(format!("rootfs:{}", base.display()));
        assert_eq!(succeed(&mut command), digest);
    }
}

#[test]
fn what_lies_elsewhere_is_found_from_the_lock() {
    let repository = Repository::clone_at("clone");
    let channel = repository.folder.join("vendor/my channel");
    let lock = repository.workspace.path("locks/a.lock");
    fs_err::create_dir_all(lock.parent().expect("a parent")).expect("a folder");
    succeed(repository.condaimg("lock").arg("--lock-file").arg(&lock));
    let text = fs_err::read_to_string(&lock).expect("a lock");
    for expected in
        [&*format!("conda: {}/linux-64/app-1.0-0.conda", channel.display()), "reference: rootfs:./../clone/root\n"]
    {
        assert!(text.contains(expected), "`{expected}` is not in {text}");
    }
    let elsewhere = succeed(repository.condaimg("build").arg("--locked").arg("--lock-file").arg(&lock));
    succeed(&mut repository.condaimg("lock"));
    assert_eq!(succeed(repository.condaimg("build").arg("--locked")), elsewhere, "the image does not say where");
}

/// Locks once had the whole paths of local channels and bases.
#[test]
fn locks_with_whole_paths_are_read() {
    let repository = Repository::clone_at("clone");
    succeed(&mut repository.condaimg("lock"));
    let digest = succeed(repository.condaimg("build").arg("--locked"));
    let (folder, url) = (repository.folder.display().to_string(), url::Url::from_directory_path(&repository.folder));
    let url = url.expect("a URL").to_string();
    repository.edit("conda: ./", &format!("conda: {folder}/"));
    repository.edit("url: ./vendor/my channel", &format!("url: {url}vendor/my%20channel"));
    repository.edit("rootfs:./root", "rootfs:root");
    // The seal is of what the lock means.
    assert_eq!(succeed(repository.condaimg("build").arg("--locked")), digest);
    // Before there were seals, what the lock was made from had whole paths: such a lock is made again.
    let text = repository.text();
    let seal = &text[text.find("      seal:\n").expect("a seal")..text.find("      base:\n").expect("a base")];
    repository.edit(seal, "");
    repository.edit("- ./vendor/my channel\n", &format!("- {folder}/vendor/my channel\n"));
    assert!(fail(repository.condaimg("build").arg("--locked"), 1).contains("`condaimg lock`"));
    succeed(&mut repository.condaimg("lock"));
    assert_eq!(succeed(repository.condaimg("build").arg("--locked")), digest);
}

/// A seal is no signature: whoever writes a lock can seal it. What it says of archives is compared with them.
#[test]
fn sealed_locks_that_say_other_than_archives_are_refused() {
    let repository = Repository::clone_at("clone");
    succeed(&mut repository.condaimg("lock"));
    let digest = succeed(repository.condaimg("build").arg("--locked"));
    let honest = repository.text();
    let step = |file: &str, name: &str| condaimg::lock::ActivationStep {
        file: format!("etc/conda/activate.d/{file}"),
        name: name.to_owned(),
        value: Some("/evil.so".to_owned()),
        if_set: false,
    };
    type Forgery<'a> = (&'a str, &'a dyn Fn(&mut condaimg::lock::PackageFacts));
    let forgeries: [Forgery<'_>; 8] = [
        ("lib", &|facts| facts.activation.steps.push(step("m.sh", "LD_PRELOAD"))),
        ("lib", &|facts| facts.activation.steps[0].value = Some("2".to_owned())),
        ("pure", &|facts| facts.activation.dynamic.extend(["etc/conda/activate.d/../../x.sh".to_owned()])),
        ("pure", &|facts| facts.clobbered.extend([("share/pure".to_owned(), "app".to_owned())])),
        ("lib", &|facts| facts.clobbered.clear()),
        ("pure", &|facts| facts.stale.extend(["share/pure".to_owned()])),
        ("pure", &|facts| facts.bytecode = true),
        ("app", &|facts| facts.pypi.extend([("app".to_owned(), "9".to_owned())])),
    ];
    for (index, (culprit, forge)) in forgeries.iter().enumerate() {
        let locks = condaimg::lock::parse(&honest, &repository.folder).expect("parses");
        let forged = locks.iter().cloned().map(|mut lock| {
            let package = lock.packages.iter_mut().find(|package| package.name() == *culprit).expect("is there");
            forge(&mut package.facts);
            lock
        });
        let text = condaimg::lock::render(&forged.collect(), &repository.folder).expect("has a form");
        assert_ne!(text, honest, "forgery {index}");
        fs_err::write(repository.lock(), text).expect("writes");
        for cache in ["cache", &format!("empty-{index}")] {
            // With all in the cache, a layer that the forged lock has as well is not made again.
            let mut command = repository.condaimg("build");
            command.args(["--locked", "--no-cache"]).env("CONDAIMG_CACHE_DIR", repository.workspace.path(cache));
            let message = fail(&mut command, 1);
            assert!(message.contains(&format!("`{culprit}`")), "forgery {index}: {message}");
        }
    }
    fs_err::write(repository.lock(), honest).expect("writes");
    assert_eq!(succeed(repository.condaimg("build").args(["--locked", "--no-cache"])), digest);
}

// ---- other readers --------------------------------------------------------------------------------------------

/// `[name, version, sha256]` of each package by platform, as our own reader has them.
fn ours(lock: &Path) -> Value {
    let locks = condaimg::lock::read(lock).expect("reads").expect("is there");
    let package = |package: &condaimg::lock::LockedPackage| {
        let version = package.record.package_record.version.to_string();
        json!([package.name(), version, package.sha256().expect("a hash").hex()])
    };
    let platform = |lock: &condaimg::lock::Lock| {
        (lock.platform.lock_name(), lock.packages.iter().map(package).collect::<Vec<_>>())
    };
    json!(locks.iter().map(platform).collect::<std::collections::BTreeMap<_, _>>())
}

/// The same by rattler's own library.
fn by_rattler_lock(lock: &Path) -> Value {
    let file = LockFile::from_path(lock).expect("a pixi.lock");
    let environment = file.default_environment().expect("an environment");
    let platforms = file.platforms().map(|platform| {
        let packages = environment.conda_packages(platform).expect("packages");
        let records = packages.map(|package| &package.as_binary().expect("an archive").package_record);
        let mut packages: Vec<Value> = records
            .map(|record| {
                let sha256 = record.sha256.map(hex::encode);
                json!([record.name.as_normalized(), record.version.to_string(), sha256])
            })
            .collect();
        packages.sort_by_key(ToString::to_string);
        (platform.name().to_string(), packages)
    });
    json!(platforms.collect::<std::collections::BTreeMap<_, _>>())
}

const BY_PY_RATTLER: &str = r"
import json, os, sys
from rattler import LockFile

environment = LockFile.from_path(sys.argv[1]).default_environment()
platforms = {
    str(platform): sorted(
        [package.name, str(package.version), package.hashes.sha256.hex()] for package in environment.packages(platform)
    )
    for platform in environment.platforms()
}
print(json.dumps(platforms), flush=True)
# Its threads sometimes crash while the interpreter ends, when all is done.
os._exit(0)
";

fn by_py_rattler(lock: &Path) -> Value {
    let answer = succeed(python_with_rattler().args(["-c", BY_PY_RATTLER]).arg(lock));
    serde_json::from_str(&answer).expect("JSON")
}

#[test]
fn other_tools_read_the_same_packages() {
    let workspace = Workspace::new();
    workspace.file("environment.yml", environment(&["python=3.11", "flask", "numpy"]));
    for (place, platforms) in
        [(example_channel(), "linux/amd64,linux/arm64"), (workspace.path("channel"), "linux/amd64")]
    {
        if !place.exists() {
            std::os::unix::fs::symlink(example_channel(), &place).expect("links");
        }
        let mut command = workspace.condaimg();
        command.args(["lock", "--override-channels", "--upgrade", "--platform", platforms, "--channel"]).arg(&place);
        succeed(command.args(["--base", &format!("oci:{}:debian-multi", example_base().display())]));
        let lock = workspace.path("condaimg.lock");
        let text = fs_err::read_to_string(&lock).expect("a lock");
        assert_eq!(text.contains("conda: ./channel/"), place.starts_with(workspace.path("")));
        let expected = ours(&lock);
        assert!(expected["linux-64"].as_array().is_some_and(|packages| packages.len() > 15), "{expected}");
        assert!(expected.get("linux-aarch64").is_some(), "the other platform stays");
        assert_eq!(by_rattler_lock(&lock), expected);
        assert_eq!(by_py_rattler(&lock), expected);
    }
}

// ---- edited by hand -------------------------------------------------------------------------------------------

/// Each edit, and what is said of it.
fn edits(repository: &Repository) -> Vec<(String, String, &'static str)> {
    let text = repository.text();
    let line = |key: &str| -> String {
        let line = text.lines().find(|line| line.trim_start().starts_with(key));
        line.unwrap_or_else(|| panic!("no `{key}` in {text}")).to_owned()
    };
    let sha256 = line("sha256:");
    let other = format!("{}{}", &sha256[..sha256.len() - 64], "0".repeat(64));
    let size = line("size:");
    let packages = "the packages";
    let facts = "the facts of packages";
    vec![
        (sha256, other, packages),
        (size.clone(), format!("{size}0"), packages),
        ("- lib\n".to_owned(), "- lib >=0\n".to_owned(), packages),
        ("/linux-64/lib-1.0-0.conda".to_owned(), "/linux-64/lib-2.0-0.conda".to_owned(), packages),
        ("share/both: app".to_owned(), "share/none: app".to_owned(), facts),
        ("          clobbered:\n".to_owned(), "          bytecode: true\n          clobbered:\n".to_owned(), facts),
        ("value: '1'".to_owned(), "value: '2'".to_owned(), facts),
        ("  - app\n  variables".to_owned(), "  - app=1\n  variables".to_owned(), "what it was made from"),
        ("    A: b\n".to_owned(), "    A: c\n".to_owned(), "what it was made from"),
        ("      - __glibc=2.36=0\n".to_owned(), "      - __glibc=2.40=0\n".to_owned(), "the target"),
        ("shell: false".to_owned(), "shell: true".to_owned(), "the target, the base"),
    ]
}

#[test]
fn a_lock_that_was_edited_is_refused() {
    let repository = Repository::clone_at("clone");
    succeed(&mut repository.condaimg("lock"));
    let whole = repository.text();
    let digest = succeed(repository.condaimg("build").arg("--locked"));
    for (from, to, part) in edits(&repository) {
        repository.edit(&from, &to);
        let edited = repository.text();
        for flags in
            [&["build", "--locked"][..], &["build", "--frozen"], &["lock", "--check"], &["lock", "--export", "pixi"]]
        {
            let message = fail(repository.condaimg(flags[0]).args(&flags[1..]), 1);
            let says = ["was edited by hand, or merged, for linux/amd64", part, "`condaimg lock`"];
            assert!(says.iter().all(|said| message.contains(said)), "{from} -> {to}, {flags:?}: {message}");
        }
        assert_eq!(repository.text(), edited, "nothing is written");
        // Renewed, it is what it was: the channel has not changed.
        let told = run_output(&mut repository.condaimg("lock"));
        let told = String::from_utf8_lossy(&told.stderr).into_owned();
        assert!(told.contains("was edited by hand") && told.contains("made anew"), "{told}");
        assert_eq!(repository.text(), whole, "{from} -> {to}");
    }
    assert_eq!(succeed(repository.condaimg("build").arg("--locked")), digest);
}

/// Two branches add a package each; git merges the locks line by line.
#[test]
fn a_merged_lock_is_refused() {
    let repository = Repository::clone_at("clone");
    succeed(&mut repository.condaimg("lock"));
    let text = repository.text();
    // A package of the other branch: facts that nobody has seen together.
    repository.edit("share/both: app", "share/both: app\n            share/more: app");
    assert!(fail(repository.condaimg("build").arg("--frozen"), 1).contains("merged"));
    fs_err::write(repository.lock(), text.replace("seal:", "<<<<<<< ours\n      seal:")).expect("writes");
    assert!(fail(&mut repository.condaimg("lock"), 1).contains("condaimg.lock` cannot be used"));
}

// ---- another archive in the channel ---------------------------------------------------------------------------

/// The same name, other bytes; as long, or not.
#[test]
fn a_replaced_archive_is_refused() {
    let workspace = Workspace::new();
    let mut channel = Channel::new(workspace.path("served"));
    let package = |content: &str| Package::new("lib", "1.0").file("share/lib", content);
    let archive = channel.add(&package("one"), Format::TarBz2);
    channel.index();
    let original = fs_err::read(&archive).expect("an archive");
    let server = FileServer::start(&channel.folder);
    workspace.file("environment.yml", environment(&["lib"]));
    let condaimg = |command: &str| {
        let mut program = workspace.condaimg();
        program.args([
            command,
            "--override-channels",
            "--channel",
            &server.url,
            "--base",
            "scratch",
            "--glibc",
            "2.36",
        ]);
        program
    };
    succeed(condaimg("lock").arg("--no-facts"));
    let mut same_size = original.clone();
    let last = same_size.len() - 10;
    same_size[last] ^= 1;
    let longer = package("one and more").archive(Format::TarBz2);
    for (bytes, what) in [(&same_size, "its sha256 is"), (&longer, "its size is")] {
        fs_err::write(&archive, bytes).expect("writes");
        for flag in ["--locked", "--frozen"] {
            let message = fail(condaimg("build").arg(flag), 1);
            let says = ["`lib-1.0-0.tar.bz2` is not the archive that was locked", what, "the lock says", &server.url];
            assert!(says.iter().all(|said| message.contains(said)), "{message}");
        }
    }
    // The index knows of it, too: the lock does not follow by itself.
    channel.forget("lib");
    channel.add(&package("one and more"), Format::TarBz2);
    channel.index();
    succeed(condaimg("lock").arg("--check"));
    assert!(fail(condaimg("build").arg("--locked"), 1).contains("is not the archive that was locked"));
    fs_err::write(&archive, &original).expect("writes");
    succeed(condaimg("build").arg("--locked"));
}
