//! What a lock pins of wheels, repositories and indexes, and what becomes of it when the other side changes.

use super::*;

/// A repository on the index's server.
fn url(bench: &Bench, name: &str, reference: &str) -> String {
    format!("git+{}/{name}.git@{reference}", bench.index.server.url)
}

#[test]
fn wheels_are_those_of_the_platform_that_is_asked_for() {
    let wheel = |name: &str, tags: &str, value: &str| {
        Wheel::new(name, "1.0").tags(tags).file(&format!("{name}.py"), format!("VALUE = '{value}'\n"))
    };
    let bench = Bench::new(&[
        wheel("lib", "cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64", "amd64"),
        wheel("lib", "cp311-cp311-manylinux_2_17_aarch64.manylinux2014_aarch64", "arm64"),
        wheel("only_arm", "cp311-abi3-manylinux_2_17_aarch64", "arm64"),
        wheel("only_amd", "cp311-abi3-manylinux_2_17_x86_64", "amd64"),
    ]);
    let markers = ["only-arm; platform_machine == 'aarch64'", "only-amd; platform_machine == 'x86_64'"];
    bench.environment(&[], &["lib", markers[0], markers[1]]);
    let run = |command: &str, platforms: &str| {
        let mut program = bench.workspace.condaimg();
        program.args([command, "--platform", platforms, "--override-channels", "--channel"]).arg(example_channel());
        program.args(["--base", &format!("oci:{}:debian-multi", example_base().display())]);
        program.env("PIP_INDEX_URL", bench.index.url());
        program
    };
    succeed(&mut run("lock", "linux/arm64,linux/amd64"));
    let locks = condaimg::lock::read(&bench.workspace.path("condaimg.lock")).expect("reads").expect("a lock");
    for lock in locks.iter() {
        let (own, other, only) = match lock.platform.subdir.as_str() {
            "linux-aarch64" => ("_aarch64", "_x86_64", "only-arm"),
            _ => ("_x86_64", "_aarch64", "only-amd"),
        };
        let files: Vec<&str> = lock.wheels.iter().map(|wheel| wheel.file_name.as_str()).collect();
        assert!(files.iter().all(|file| file.contains(own) && !file.contains(other)), "{files:?}");
        assert_eq!(lock.wheels.iter().map(|wheel| wheel.name.as_str()).collect::<Vec<_>>(), ["lib", only]);
    }
    assert_eq!(locks.iter().count(), 2);
    // In the image, too: with a cold cache only the files of that platform are fetched.
    bench.forget();
    let before = bench.index.server.seen("x86_64").len();
    succeed(run("build", "linux/arm64").args(["--locked", "--output", "oci:arm"]));
    assert_eq!(bench.index.server.seen("x86_64").len(), before);
    let tree = Image::read(&bench.workspace.path("arm")).tree();
    let value = |module: &str| {
        let found = tree.iter().find(|(path, _)| path.ends_with(&format!("site-packages/{module}.py")));
        found.map(|(_, entry)| entry.content().sha256)
    };
    assert_eq!(value("lib"), Some(Digest::of("VALUE = 'arm64'\n")));
    assert!(value("only_arm").is_some() && value("only_amd").is_none());
    // What has no wheel for it is told by name.
    bench.environment(&[], &["only-amd"]);
    let message = fail(&mut run("lock", "linux/arm64"), 1);
    assert!(message.contains("only-amd") || message.contains("only_amd"), "{message}");
    succeed(&mut run("lock", "linux/amd64"));
}

#[test]
fn a_branch_that_moves_leaves_the_lock_alone() {
    let mut bench = Bench::new(&[module("lib", "1.0")]);
    let repository = bench.repository("tool");
    project(&repository.work, "tool", "1.5", &[], "first");
    let first = repository.commit(None);
    let line = url(&bench, "tool", "main");
    bench.environment(&[], &[&line, "lib"]);
    let digest = bench.build(&["--allow-build"]);
    project(&repository.work, "tool", "1.6", &[], "second");
    let second = repository.commit(None);
    // On a machine that knows nothing.
    bench.forget();
    assert_eq!(bench.build(&["--locked"]), digest);
    // Made anew for another reason, or to have another package.
    bench.environment(&[], &[&line, "lib>=1"]);
    succeed(&mut bench.run(&["lock"]));
    bench.index.add(&module("lib", "2.0"));
    succeed(bench.run(&["lock"]).args(["--upgrade", "lib"]));
    assert_eq!(bench.wheels(), ["lib 2.0", "tool 1.5"]);
    assert!(bench.lock().contains(&first) && !bench.lock().contains(&second));
    succeed(bench.run(&["lock"]).args(["--upgrade", "tool", "--allow-build"]));
    assert_eq!(bench.wheels(), ["lib 2.0", "tool 1.6"]);
    assert!(bench.lock().contains(&second) && !bench.lock().contains(&first));
}

#[test]
fn a_tag_that_moves_is_refused() {
    let bench = Bench::new(&[]);
    let repository = bench.repository("tool");
    project(&repository.work, "tool", "1.5", &[], "first");
    let first = repository.commit(Some("v1"));
    bench.environment(&[], &[&url(&bench, "tool", "v1")]);
    let digest = bench.build(&["--allow-build"]);
    bench.forget();
    assert_eq!(bench.build(&["--locked"]), digest);
    project(&repository.work, "tool", "1.5", &[], "second");
    let second = repository.commit(Some("v1"));
    // What is here already is what was locked.
    assert_eq!(bench.build(&["--locked"]), digest);
    bench.forget();
    for flag in ["--locked", "--frozen"] {
        let message = fail(bench.run(&["build"]).arg(flag), 1);
        let says =
            ["the tag `v1`", "tool.git", "was moved", &first, &second, "--upgrade", &format!("tool.git@{first}")];
        assert!(says.iter().all(|said| message.contains(said)), "{message}");
    }
    // A tag that is gone, whose commit is still on a branch.
    repository.delete_tag("v1");
    let message = fail(bench.run(&["build"]).arg("--locked"), 1);
    assert!(message.contains("has no tag or branch `v1` any more") && message.contains(&first), "{message}");
    // The ways out.
    bench.environment(&[], &[&url(&bench, "tool", &first)]);
    bench.build(&["--allow-build"]);
    assert_eq!(bench.python("import tool; print(tool.VALUE)"), "first");
    repository.commit(Some("v1"));
    bench.environment(&[], &[&url(&bench, "tool", "v1")]);
    succeed(bench.run(&["lock"]).args(["--upgrade", "tool", "--allow-build"]));
    bench.forget();
    bench.build(&["--locked"]);
    assert_eq!(bench.python("import tool; print(tool.VALUE)"), "second");
}

#[test]
fn a_commit_that_is_gone_is_told() {
    let bench = Bench::new(&[]);
    let repository = bench.repository("tool");
    project(&repository.work, "tool", "1.5", &[], "first");
    let first = repository.commit(None);
    bench.environment(&[], &[&url(&bench, "tool", "main")]);
    bench.build(&["--allow-build"]);
    // Somebody puts another history in its place.
    repository.remove();
    let repository = bench.repository("tool");
    project(&repository.work, "tool", "1.5", &[], "second");
    repository.commit(None);
    bench.forget();
    let message = fail(bench.run(&["build"]).arg("--locked"), 1);
    assert!(message.contains(&format!("has no commit {first}")) && message.contains("--upgrade"), "{message}");
    repository.remove();
    let message = fail(bench.run(&["build"]).arg("--locked"), 1);
    assert!(message.contains("tool.git` cannot be cloned"), "{message}");
}

/// A repository that only another package's metadata names.
#[test]
fn what_a_repository_needs_stays_at_its_commit() {
    let bench = Bench::new(&[module("lib", "1.0")]);
    let inner = bench.repository("inner");
    project(&inner.work, "inner", "0.1", &[], "first");
    let first = inner.commit(None);
    let outer = bench.repository("outer");
    let needs = format!("inner @ {}", url(&bench, "inner", "main"));
    project(&outer.work, "outer", "1.0", &[&needs], "outer");
    outer.commit(Some("v1"));
    let line = url(&bench, "outer", "v1");
    bench.environment(&[], &[&line]);
    let digest = bench.build(&["--allow-build"]);
    assert_eq!(bench.wheels(), ["inner 0.1", "outer 1.0"]);
    assert!(bench.lock().contains(&first), "{}", bench.lock());
    assert_eq!(bench.python("import inner, outer; print(inner.VALUE, outer.VALUE)"), "first outer");
    project(&inner.work, "inner", "0.2", &[], "second");
    let second = inner.commit(None);
    bench.forget();
    assert_eq!(bench.build(&["--locked"]), digest);
    bench.environment(&[], &[&line, "lib"]);
    succeed(bench.run(&["lock"]).arg("--allow-build"));
    assert_eq!(bench.wheels(), ["inner 0.1", "lib 1.0", "outer 1.0"]);
    assert!(bench.lock().contains(&first) && !bench.lock().contains(&second), "{}", bench.lock());
    succeed(bench.run(&["lock"]).args(["--upgrade", "lib", "--allow-build"]));
    assert!(bench.lock().contains(&first) && !bench.lock().contains(&second), "{}", bench.lock());
    succeed(bench.run(&["lock"]).args(["--upgrade", "inner", "--allow-build"]));
    assert_eq!(bench.wheels(), ["inner 0.2", "lib 1.0", "outer 1.0"]);
    assert!(bench.lock().contains(&second) && !bench.lock().contains(&first), "{}", bench.lock());
}

#[test]
fn a_wheel_is_read_once() {
    let bench = Bench::new(&[module("lib", "1.0")]);
    bench.environment(&[], &["lib"]);
    let digest = bench.build(&[]);
    let first = bench.lock();
    // Whoever reads which files the wheel has notices that it is damaged; its metadata are as they were.
    let locks = condaimg::lock::read(&bench.workspace.path("condaimg.lock")).expect("reads").expect("a lock");
    let sha256 = locks.iter().next().expect("a lock").wheels[0].sha256.hex();
    let stored = below(&bench.workspace.path("cache"), &format!("{sha256}.whl"));
    let mut bytes = fs_err::read(&stored).expect("reads");
    let name = b"lib-1.0.dist-info/RECORD";
    let at = bytes.windows(name.len()).position(|window| window == name).expect("a RECORD") + name.len();
    bytes[at..at + 4].fill(0xff);
    fs_err::remove_file(&stored).expect("removes");
    fs_err::write(&stored, &bytes).expect("writes");
    fs_err::remove_file(bench.workspace.path("condaimg.lock")).expect("removes");
    succeed(&mut bench.run(&["lock"]));
    assert_eq!(bench.lock(), first);
    assert_eq!(bench.build(&["--offline"]), digest, "the index is in uv's cache, and the layers are known");
    // Whoever has to read it notices.
    let facts = below(&bench.workspace.path("cache"), "facts");
    fs_err::remove_dir_all(&facts).expect("removes");
    fs_err::create_dir(&facts).expect("a folder");
    fs_err::remove_file(bench.workspace.path("condaimg.lock")).expect("removes");
    succeed(&mut bench.run(&["lock"]));
    assert_eq!(bench.lock(), first, "it is fetched again");
    assert_ne!(fs_err::read(&stored).expect("reads"), bytes);
}

fn below(folder: &std::path::Path, name: &str) -> std::path::PathBuf {
    let found = succeed(program("find", "findutils").arg(folder).args(["-name", name]));
    found.lines().next().unwrap_or_else(|| panic!("no {name} below {}", folder.display())).into()
}

#[test]
fn other_files_that_may_be_replaced_make_a_lock_stale() {
    let bench = Bench::new(&[module("lib", "1.0")]);
    bench.environment(&[], &["lib"]);
    succeed(&mut bench.run(&["lock"]));
    let message = fail(bench.run(&["lock"]).args(["--check", "--allow-clobber", "bin/x"]), 1);
    assert!(message.contains("is stale") && message.contains("--allow-clobber: + bin/x"), "{message}");
    succeed(bench.run(&["lock"]).args(["--allow-clobber", "bin/x"]));
    succeed(bench.run(&["lock"]).args(["--check", "--allow-clobber", "bin/x"]));
    let message = fail(bench.run(&["build"]).arg("--locked"), 1);
    assert!(message.contains("--allow-clobber: - bin/x"), "{message}");
}

/// An index says it, a wheel from a place says it only in its metadata, which uv reads, and so do we.
#[test]
fn a_wheel_for_another_python_is_refused() {
    let bench = Bench::new(&[
        module("new", "1.0").field("Requires-Python: >=3.12"),
        module("fits", "1.0").field("Requires-Python: >=3.8,<3.12"),
    ]);
    let wheel = format!("{}/files/new-1.0-py3-none-any.whl", bench.index.server.url);
    for line in ["new".to_owned(), format!("new @ {wheel}")] {
        bench.environment(&[], &[&line]);
        let message = fail(&mut bench.run(&["lock"]), 1);
        assert!(message.contains("new") && message.contains("3.12") && message.contains("3.11"), "{message}");
    }
    bench.environment(&[], &["fits"]);
    bench.build(&[]);
    // From a lock of another tool, which nobody resolves.
    let pixi = succeed(bench.run(&["lock"]).args(["--export", "pixi"]));
    let (new, fits) = (module("new", "1.0").field("Requires-Python: >=3.12"), module("fits", "1.0"));
    let fits = fits.field("Requires-Python: >=3.8,<3.12").sha256().hex();
    let pixi = pixi.replace(&fits, &new.sha256().hex()).replace("fits", "new").replace(">=3.8,<3.12", "");
    bench.workspace.file("pixi.lock", pixi.replace("requires_python: ''\n", ""));
    let mut lock = bench.workspace.condaimg();
    lock.args(["lock", "pixi.lock", "--base", &format!("oci:{}:debian", example_base().display())]);
    let message = fail(&mut lock, 1);
    let says = ["`new-1.0-py3-none-any.whl` needs Python >=3.12", "the environment has Python 3.11", "Requires-Python"];
    assert!(says.iter().all(|said| message.contains(said)), "{message}");
}
