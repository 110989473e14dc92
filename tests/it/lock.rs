//! `condaimg lock`: what it writes, when it calls a lock stale, what it upgrades, what it exports.

use std::process::Command;

use rattler_conda_types::{ExplicitEnvironmentSpec, Subdir};
use rattler_lock::LockFile;
use serde_json::{Value, json};

use crate::common::file_server::FileServer;
use crate::common::packages::{Channel, Format, Package};
use crate::common::{Workspace, environment, fail, program, run_output, succeed};

/// A workspace with a small channel of its own.
struct Bench {
    workspace: Workspace,
    channel: Channel,
}

impl Bench {
    fn new(packages: &[(&str, &str, &[&str])]) -> Self {
        let workspace = Workspace::new();
        let mut channel = Channel::new(workspace.path("channel"));
        channel.add_all(packages);
        Self { workspace, channel }
    }

    fn add(&mut self, packages: &[(&str, &str, &[&str])]) {
        self.channel.add_all(packages);
    }

    /// `condaimg COMMAND`, on nothing, so that only packages matter.
    fn condaimg(&self, command: &str) -> Command {
        let mut program = self.workspace.condaimg();
        program.args([command, "--override-channels", "--base", "scratch", "--glibc", "2.36", "--channel"]);
        program.arg(&self.channel.folder);
        program
    }

    fn environment(&self, dependencies: &[&str]) {
        self.workspace.file("environment.yml", environment(dependencies));
    }

    /// The text of the lock.
    fn text(&self) -> String {
        fs_err::read_to_string(self.workspace.path("condaimg.lock")).expect("a lock")
    }

    /// `name version` of the lock's packages.
    fn versions(&self) -> Vec<String> {
        let locks = LockFile::from_path(&self.workspace.path("condaimg.lock")).expect("a pixi.lock");
        let environment = locks.default_environment().expect("an environment");
        let platform = locks.platform("linux-64").expect("a platform");
        let packages = environment.conda_packages(platform).expect("packages");
        let records = packages.filter_map(|package| package.as_binary()).map(|binary| &binary.package_record);
        let mut versions: Vec<String> =
            records.map(|record| format!("{} {}", record.name.as_normalized(), record.version)).collect();
        versions.sort();
        versions
    }
}

/// What a command that succeeds says to people.
fn notices(command: &mut Command) -> String {
    String::from_utf8(run_output(command).stderr).expect("UTF-8")
}

#[test]
fn a_lock_is_written_once_and_builds_use_it() {
    let mut bench = Bench::new(&[("app", "1.0", &["lib"]), ("lib", "1.0", &[])]);
    bench.environment(&["app"]);
    assert_eq!(succeed(&mut bench.condaimg("lock")), "", "standard output is for data");
    let first = bench.text();
    fs_err::remove_file(bench.workspace.path("condaimg.lock")).expect("removes");
    succeed(&mut bench.condaimg("lock"));
    assert_eq!(bench.text(), first, "locking twice gives the same bytes");
    // A newer version does not make it stale, and does not get in by building or locking again.
    bench.add(&[("lib", "2.0", &[])]);
    succeed(bench.condaimg("build").arg("--locked"));
    succeed(&mut bench.condaimg("lock"));
    succeed(bench.condaimg("lock").arg("--check"));
    assert_eq!(bench.text(), first);
    assert_eq!(bench.versions(), ["app 1.0", "lib 1.0"]);
}

/// The bytes of a lock follow from what was asked for and what the channel has, and from nothing else.
#[test]
fn the_same_lock_comes_out_everywhere() {
    let packages: [(&str, &str, &[&str]); 5] = [
        ("app", "1.0", &["lib", "more"]),
        ("lib", "1.0", &[]),
        ("lib", "2.0", &[]),
        ("more", "1.0", &[]),
        ("x", "1", &[]),
    ];
    let mut turned = packages;
    turned.reverse();
    let lock = |bench: &Bench, change: &dyn Fn(&mut Command)| {
        bench.environment(&["app", "x"]);
        let mut command = bench.condaimg("lock");
        change(&mut command);
        succeed(&mut command);
        bench.text()
    };
    let expected = lock(&Bench::new(&packages), &|_| {});
    let bench = Bench::new(&turned);
    turn(&bench.channel);
    assert_eq!(lock(&bench, &|_| {}), expected, "the index in another order");
    let other: [&dyn Fn(&mut Command); 4] = [
        &|command| _ = command.env("TZ", "Pacific/Kiritimati").env("LC_ALL", "tr_TR.UTF-8"),
        &|command| _ = command.args(["--jobs", "1"]),
        &|command| _ = command.env("HOME", "/nonexistent").env("USER", "somebody"),
        &|command| _ = command.env("SOURCE_DATE_EPOCH", "1"),
    ];
    for change in other {
        assert_eq!(lock(&Bench::new(&packages), change), expected);
    }
}

/// Writes the index with its records in the opposite order.
fn turn(channel: &Channel) {
    let path = channel.folder.join("linux-64/repodata.json");
    let index: Value = serde_json::from_slice(&fs_err::read(&path).expect("an index")).expect("JSON");
    let records = index["packages.conda"].as_object().expect("records");
    let mut records: Vec<String> = records.iter().map(|(name, record)| format!("\"{name}\": {record}")).collect();
    assert!(records.is_sorted());
    records.reverse();
    let records = records.join(",");
    let text = format!("{{\"info\": {{\"subdir\": \"linux-64\"}}, \"packages.conda\": {{{records}}}}}");
    fs_err::write(path, text).expect("writes");
}

#[test]
fn a_second_lock_needs_no_network() {
    let bench = Bench::new(&[("app", "1.0", &["lib"]), ("lib", "1.0", &[])]);
    bench.environment(&["app"]);
    let server = FileServer::start(&bench.channel.folder);
    let lock = |flags: &[&str]| {
        let mut command = bench.workspace.condaimg();
        command.args(["lock", "--override-channels", "--base", "scratch", "--glibc", "2.36", "--channel", &server.url]);
        command.args(flags);
        command
    };
    succeed(&mut lock(&[]));
    let first = bench.text();
    let asked = server.seen("").len();
    for flags in [&["--offline"][..], &["--offline", "--upgrade"]] {
        succeed(&mut lock(flags));
        assert_eq!(bench.text(), first, "{flags:?}");
    }
    fs_err::remove_file(bench.workspace.path("condaimg.lock")).expect("removes");
    succeed(&mut lock(&["--offline"]));
    assert_eq!(bench.text(), first);
    assert_eq!(server.seen("").len(), asked, "offline means offline");
}

#[test]
fn a_stale_lock_says_what_changed() {
    let bench = Bench::new(&[("app", "1.0", &["lib"]), ("lib", "1.0", &[]), ("more", "1.0", &[])]);
    bench.environment(&["app"]);
    let message = fail(bench.condaimg("lock").arg("--check"), 1);
    assert!(message.contains("there is no lock") && !bench.workspace.path("condaimg.lock").exists(), "{message}");
    succeed(&mut bench.condaimg("lock"));
    let text = bench.text();
    let check = |changed: &[&str], expected: &str| {
        for (command, flag) in [("lock", "--check"), ("build", "--locked")] {
            let mut command = bench.condaimg(command);
            let message = fail(command.arg(flag).args(changed), 1);
            assert!(message.contains("is stale") && message.contains(expected), "{expected}: {message}");
        }
    };
    check(&["--cuda", "12.4"], "target: + --cuda=12.4");
    check(&["--channel-priority", "disabled"], "channel priority: `disabled` instead of `strict`");
    check(&["--exclude-newer", "2020-01-01"], "--exclude-newer: `2020-01-01` instead of none");
    check(&["--channel", "https://me:hush@127.0.0.1:1/x"], "channels: + https://");
    let secret = fail(bench.condaimg("lock").args(["--check", "--channel", "https://me:hush@127.0.0.1:1/x"]), 1);
    assert!(!secret.contains("hush"), "{secret}");
    bench.environment(&["app", "more"]);
    check(&[], "dependencies: + more");
    bench.workspace.file("environment.yml", "dependencies: [app]\nvariables: {A: hush}\n");
    check(&[], "variables: A");
    assert_eq!(bench.text(), text, "a check changes nothing");
}

#[test]
fn upgrades_change_what_they_name() {
    let mut bench = Bench::new(&[("one", "1.0", &[]), ("two", "1.0", &["base"]), ("base", "1.0", &[])]);
    bench.environment(&["one", "two"]);
    succeed(&mut bench.condaimg("lock"));
    bench.add(&[("one", "2.0", &[]), ("two", "2.0", &["base >=2"]), ("base", "2.0", &[]), ("base", "3.0", &[])]);
    let told = notices(bench.condaimg("lock").args(["--upgrade", "one"]));
    assert_eq!(bench.versions(), ["base 1.0", "one 2.0", "two 1.0"]);
    assert!(told.contains("lock: one 1.0") && told.contains("-> 2.0"), "{told}");
    let told = notices(bench.condaimg("lock").args(["--upgrade", "two"]));
    assert_eq!(bench.versions(), ["base 3.0", "one 2.0", "two 2.0"]);
    assert!(told.contains("(two 2.0 needs base >=2)"), "{told}");
    let message = fail(bench.condaimg("lock").args(["--upgrade", "tow"]), 1);
    assert!(message.contains("`tow`"), "{message}");
    bench.add(&[("one", "3.0", &[]), ("two", "3.0", &["base >=2"])]);
    succeed(bench.condaimg("lock").arg("--upgrade"));
    assert_eq!(bench.versions(), ["base 3.0", "one 3.0", "two 3.0"]);
    // `two` needs a `base`, but the older one would have done: that is no reason.
    bench.add(&[("two", "4.0", &["base >=1"]), ("base", "4.0", &[])]);
    let told = notices(bench.condaimg("lock").arg("--upgrade"));
    assert!(told.contains("lock: base 3.0") && !told.contains("needs"), "{told}");
    bench.environment(&["one=2"]);
    let told = notices(&mut bench.condaimg("lock"));
    assert!(told.contains("(asked for: one=2)") && told.contains("- base 4.0"), "{told}");
    assert!(told.contains("(no longer asked for)") && told.contains("(nothing needs it any more)"), "{told}");
}

#[test]
fn a_date_leaves_out_what_is_newer() {
    let mut bench = Bench::new(&[]);
    bench.add(&[("lib", "1.0", &[]), ("lib", "2.0", &[])]);
    bench.channel.change("lib", |record| {
        let seconds = if record["version"] == "1.0" { 1_577_836_800 } else { 1_609_459_200 };
        record["timestamp"] = json!(seconds * 1000_u64);
    });
    bench.channel.index();
    bench.environment(&["lib"]);
    succeed(bench.condaimg("lock").args(["--exclude-newer", "2020-06-30"]));
    assert_eq!(bench.versions(), ["lib 1.0"]);
    succeed(bench.condaimg("lock").args(["--exclude-newer", "2021-01-01"]).args(["--upgrade", "lib"]));
    assert_eq!(bench.versions(), ["lib 2.0"]);
    // What the lock has is no excuse.
    succeed(bench.condaimg("lock").args(["--exclude-newer", "2020-06-30"]));
    assert_eq!(bench.versions(), ["lib 1.0"]);
    let message = fail(bench.condaimg("lock").args(["--exclude-newer", "2019-12-31"]), 1);
    assert!(message.contains("2019-12-31"), "{message}");
    assert!(fail(bench.condaimg("lock").args(["--exclude-newer", "soon"]), 2).contains("is no date"));
}

#[test]
fn locks_are_exported_in_the_forms_of_others() {
    let bench = Bench::new(&[("app", "1.0", &["lib"]), ("lib", "1.0", &[])]);
    bench.environment(&["app"]);
    let message = fail(bench.condaimg("lock").args(["--export", "explicit"]), 1);
    assert!(message.contains("there is no lock"), "{message}");
    succeed(&mut bench.condaimg("lock"));

    let explicit = succeed(bench.condaimg("lock").args(["--export", "explicit"]));
    let spec: ExplicitEnvironmentSpec = explicit.parse().expect("an explicit file");
    assert_eq!(spec.platform, Some(Subdir::Linux64));
    let names: Vec<&str> = spec.packages.iter().filter_map(|it| it.url.path_segments()?.next_back()).collect();
    assert_eq!(names, ["lib-1.0-0.conda", "app-1.0-0.conda"], "each after those that it needs");
    assert!(spec.packages.iter().all(|package| package.package_archive_hash().expect("a hash").is_some()));

    let pixi = succeed(bench.condaimg("lock").args(["--export", "pixi"]));
    assert!(!pixi.contains("condaimg:"), "{pixi}");
    assert_eq!(LockFile::from_str_with_base_directory(&pixi, None).expect("a pixi.lock").packages().len(), 2);
}

#[test]
fn an_environment_may_be_empty() {
    let bench = Bench::new(&[]);
    bench.workspace.file("environment.yml", "dependencies: []\n");
    succeed(&mut bench.condaimg("lock"));
    succeed(bench.condaimg("lock").arg("--check"));
    let digest = succeed(bench.condaimg("build").arg("--locked"));
    assert!(digest.starts_with("sha256:"), "{digest}");
    // One that is not, and has lost its packages, is not taken for it.
    let text = bench.text().replace("  specs: []\n", "  specs: [lib]\n");
    bench.workspace.file("condaimg.lock", &text);
    assert!(fail(bench.condaimg("build").arg("--frozen"), 1).contains("has no packages for linux-64"), "{text}");
}

#[test]
fn an_export_has_the_platforms_that_are_asked_for() {
    let mut bench = Bench::new(&[]);
    bench.channel.add(&Package::new("lib", "1.0").noarch_generic(), Format::Conda);
    bench.channel.index();
    bench.environment(&["lib"]);
    succeed(bench.condaimg("lock").args(["--platform", "linux/amd64,linux/arm64"]));
    let export = |form: &str, platforms: &[&str]| {
        let mut command = bench.condaimg("lock");
        command.args(["--export", form]);
        platforms.iter().for_each(|platform| {
            command.args(["--platform", platform]);
        });
        command
    };
    let message = fail(&mut export("explicit", &[]), 2);
    assert!(message.contains("one of linux/amd64, linux/arm64"), "{message}");
    assert!(succeed(&mut export("explicit", &["linux/arm64"])).contains("# platform: linux-aarch64\n"));
    let pixi = succeed(&mut export("pixi", &["linux/arm64"]));
    assert!(pixi.contains("linux-aarch64") && !pixi.contains("linux-64"), "{pixi}");
    assert!(fail(&mut export("pixi", &["linux/ppc64le"]), 1).contains("has nothing for linux/ppc64le"));
}

#[test]
fn an_archive_that_was_replaced_is_told() {
    let mut bench = Bench::new(&[("lib", "1.0", &[])]);
    bench.environment(&["lib"]);
    succeed(&mut bench.condaimg("lock"));
    bench.channel.forget("lib");
    bench.channel.add(&Package::new("lib", "1.0").file("share/lib", "other"), Format::Conda);
    bench.channel.index();
    succeed(bench.condaimg("lock").arg("--check"));
    let told = notices(bench.condaimg("lock").arg("--upgrade"));
    assert!(told.contains("lock: lib 1.0 0: another archive"), "{told}");
}

#[test]
fn a_lock_that_cannot_be_written_is_an_error() {
    let bench = Bench::new(&[("lib", "1.0", &[])]);
    bench.environment(&["lib"]);
    let folder = bench.workspace.path("there");
    fs_err::create_dir(&folder).expect("makes it");
    let mount = |arguments: &[&str]| succeed(program("mount", "mount").args(arguments).arg(&folder));
    mount(&["-t", "tmpfs", "-o", "ro", "tmpfs"]);
    let lock = folder.join("a.lock");
    let refused = fail(bench.condaimg("lock").arg("--lock-file").arg(&lock), 1);
    let built = bench.condaimg("build").arg("--lock-file").arg(&lock).output().expect("runs");
    succeed(program("umount", "mount").arg(&folder));
    assert!(refused.contains("a.lock"), "{refused}");
    assert!(built.status.success(), "a build only tells: {built:?}");
}

#[test]
fn archives_of_both_formats_are_locked() {
    let mut bench = Bench::new(&[]);
    bench.channel.add(&Package::new("old", "1.0"), Format::TarBz2);
    bench.channel.index();
    bench.environment(&["old"]);
    succeed(&mut bench.condaimg("lock"));
    assert!(bench.text().contains("old-1.0-0.tar.bz2"));
}
