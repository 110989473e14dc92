//! Locks that are written and read again.

use rattler_conda_types::Subdir;

use super::*;
use crate::lock::{Inputs, Lock, LockedBase, LockedPackage, LockedWheel, PackageFacts, sample};
use crate::util::Digest;

fn package(name: &str, version: &str, subdir: &str) -> LockedPackage {
    let file = format!("{name}-{version}-0.conda");
    let record = serde_json::json!({
        "name": name, "version": version, "build": "0", "build_number": 0, "subdir": subdir,
        "depends": [], "sha256": Digest::of(format!("{subdir}/{file}")).hex(), "fn": file, "size": 7,
        "url": format!("https://channel.example/c/{subdir}/{file}"), "channel": "https://channel.example/c",
    });
    let facts = PackageFacts { bytecode: subdir == "noarch", ..PackageFacts::default() };
    LockedPackage { record: serde_json::from_value(record).expect("a record"), facts }
}

fn inputs(base: &str) -> Inputs {
    Inputs { base: Some(base.to_owned()), channel_priority: "strict".to_owned(), ..Inputs::default() }
}

fn lock(platform: &str, packages: Vec<LockedPackage>) -> Lock {
    let sample = sample::lock(packages);
    Lock {
        inputs: Some(inputs(platform)),
        platform: platform.parse().expect("a platform"),
        channels: vec!["https://channel.example/c".to_owned()],
        specs: vec!["a".to_owned()],
        variables: [("A".to_owned(), "1".to_owned())].into(),
        base: LockedBase { digest: Digest::of(platform), ..sample.base.clone() },
        ..sample
    }
}

fn x86() -> Lock {
    lock("linux/amd64", vec![package("a", "1", "linux-64"), package("pure", "1", "noarch")])
}

fn arm() -> Lock {
    let mut arm = lock("linux/arm64", vec![package("a", "1", "linux-aarch64"), package("pure", "1", "noarch")]);
    let mut python = package("python", "3.11.2", "linux-64");
    python.facts.clobbered = [("bin/python".to_owned(), "other".to_owned())].into();
    arm.interpreters = [(Subdir::Linux64, vec![python])].into();
    arm
}

fn rendered(locks: &[Lock]) -> String {
    render(&locks.iter().cloned().collect(), Path::new("/")).expect("renders")
}

fn parsed(text: &str) -> Result<Locks> {
    parse(text, Path::new("/"))
}

#[test]
fn a_name_stands_for_one_package() {
    let of = |packages| parsed(&rendered(&[lock("linux/amd64", packages)]));
    assert_eq!(of(vec![package("twice", "1", "linux-64")]).expect("parses").iter().len(), 1);
    let error =
        of(vec![package("twice", "1", "linux-64"), package("twice", "2", "linux-64")]).expect_err("is ambiguous");
    assert_eq!(error.to_string(), "it has the package `twice` twice");
}

#[test]
fn what_was_read_is_written_again() {
    let text = rendered(&[x86(), arm(), lock("linux/amd64/v3", vec![package("a", "1", "linux-64")])]);
    let locks = parsed(&text).expect("parses");
    assert_eq!(render(&locks, Path::new("/")).expect("renders"), text);
    assert_eq!(locks.platforms(), ["linux/amd64", "linux/amd64/v3", "linux/arm64"]);
    let arm = locks.get(&"linux/arm64/v8".parse().expect("a platform")).expect("is there");
    assert_eq!(arm.inputs, Some(inputs("linux/arm64")));
    let python = &arm.interpreters[&Subdir::Linux64][0];
    assert_eq!((python.full_name().as_str(), python.size()), ("python-3.11.2-0", 7));
    assert!(python.facts.leaves_out("bin/python"));
}

/// One of each kind, as locking makes them.
fn wheels() -> Vec<LockedWheel> {
    use crate::lock::{WheelFacts, WheelSource};
    let url = |text: &str| text.parse().expect("a URL");
    let sources = [
        WheelSource::Wheel { url: url("https://files.example/a/b/direct-1.0-py3-none-any.whl") },
        WheelSource::Folder { url: url("file:///project/folder"), digest: Digest::of("content") },
        WheelSource::Git {
            url: url("https://git.example/team/git.git"),
            commit: "5c9b8a7d5c9b8a7d5c9b8a7d5c9b8a7d5c9b8a7d".to_owned(),
            subdirectory: Some("python".to_owned()),
        },
        WheelSource::Wheel { url: url("https://files.example/index-1.0%2Bcpu-cp311-cp311-linux_x86_64.whl") },
        WheelSource::Sdist { url: url("https://files.example/sdist-1.0.tar.gz"), sha256: Digest::of("sdist") },
    ];
    let names = ["direct", "folder", "git", "index", "sdist"];
    let wheel = |(name, source): (&str, WheelSource)| LockedWheel {
        name: name.to_owned(),
        version: if name == "index" { "1.0+cpu" } else { "1.0" }.to_owned(),
        file_name: match name {
            "index" => "index-1.0+cpu-cp311-cp311-linux_x86_64.whl".to_owned(),
            name => format!("{name}-1.0-py3-none-any.whl"),
        },
        sha256: Digest::of(name),
        size: 7,
        index: matches!(name, "index" | "sdist").then(|| url("https://index.example/simple")),
        source,
        requires_dist: vec!["other>=1 ; python_full_version < '4'".to_owned()],
        requires_python: Some(">=3.8".to_owned()),
        facts: WheelFacts { bytecode: name == "git", ..WheelFacts::default() },
    };
    names.into_iter().zip(sources).map(wheel).collect()
}

#[test]
fn wheels_are_packages_of_a_pixi_lock_and_come_back() {
    let mut lock = x86();
    lock.pip = vec!["index==1.0".to_owned(), "./folder".to_owned()];
    lock.wheels = wheels();
    let text = rendered(&[lock.clone(), arm()]);
    let read = parsed(&text).expect("parses");
    assert_eq!(render(&read, Path::new("/")).expect("renders"), text);
    let read = read.get(&lock.platform).expect("is there");
    assert_eq!((&read.wheels, &read.pip), (&lock.wheels, &lock.pip));
    let pixi = LockFile::from_str_with_base_directory(&text, None).expect("a pixi.lock");
    let platform = pixi.platform("linux-64").expect("a platform");
    let environment = pixi.default_environment().expect("an environment");
    assert_eq!(environment.pypi_packages(platform).expect("packages").count(), 5);
}

#[test]
fn wheels_that_contradict_each_other_are_refused() {
    let mut lock = x86();
    lock.wheels = wheels();
    let text = rendered(&[lock]);
    for (from, to, expected) in [
        ("        git:\n", "        gut:\n", "says nothing of the wheel of `git`"),
        ("      wheels:\n", "      wheels:\n        more: {}\n", "no package for the wheel of `more`"),
    ] {
        let changed = text.replacen(from, to, 1);
        assert_ne!(changed, text);
        let error = parsed(&changed).expect_err("is wrong").to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_platform_is_added_without_a_change_to_the_others() {
    let (alone, both) = (rendered(&[x86()]), rendered(&[x86(), arm()]));
    let mut rest = both.lines();
    for line in alone.lines() {
        assert!(rest.any(|other| other == line), "`{line}` is gone or elsewhere");
    }
}

#[test]
fn platforms_may_have_been_made_from_other_things() {
    let mut older = arm();
    older.specs = vec!["a=0".to_owned()];
    older.variables.clear();
    older.channels = vec!["https://channel.example/old".to_owned()];
    let locks = parsed(&rendered(&[x86(), older.clone()])).expect("parses");
    for lock in [&older, &x86()] {
        let read = locks.get(&lock.platform).expect("is there");
        assert_eq!((&read.specs, &read.channels), (&lock.specs, &lock.channels));
        assert_eq!((&read.variables, &read.inputs), (&lock.variables, &lock.inputs));
    }
}

#[test]
fn an_interpreter_is_of_the_environments_version() {
    let mut arm = arm();
    assert!(arm.interpreter(Subdir::Linux64).is_none(), "an environment without Python needs none");
    for (version, same) in [("3.11.2", true), ("3.11.3", false)] {
        arm.packages.retain(|package| package.name() != "python");
        arm.packages.push(package("python", version, "linux-aarch64"));
        assert_eq!(arm.interpreter(Subdir::Linux64).is_some(), same, "{version}");
    }
    assert!(arm.interpreter(Subdir::LinuxPpc64le).is_none());
}

#[test]
fn locks_with_a_digest_of_their_inputs_are_stale() {
    let text = rendered(&[x86()]);
    let place = |key: &str| text.find(key).expect("is there");
    let whole = &text[place("      inputs:")..place("      base:\n")];
    let digest = format!("inputs: {}\n", Digest::of("a"));
    let inputs = inputs("linux/amd64");
    for older in [
        text.replace(whole, &format!("      {digest}")),
        text.replace(whole, "").replace("  specs:\n", &format!("  {digest}  specs:\n")),
    ] {
        let locks = parsed(&older).expect("parses");
        let lock = locks.iter().next().expect("is there");
        let now = crate::lock::Wanted {
            specs: &lock.specs,
            pip: &lock.pip,
            variables: &lock.variables,
            pinned: None,
            inputs: &inputs,
            base: lock.base.digest,
        };
        assert_eq!(crate::lock::changes(lock, now), ["it does not say what it was made from"], "{older}");
        assert!(crate::lock::changes(&x86(), now).is_empty());
    }
}
