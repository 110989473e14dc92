//! Which index a package comes from, and requirements as `pip freeze` and editors write them.

use super::*;
use crate::common::example_python;

#[test]
fn an_index_strategy_is_offered_and_locked() {
    let bench = Bench::new(&[module("lib", "2.0")]);
    let mut first = PackageIndex::start(bench.workspace.path("first"));
    first.add(&module("lib", "1.0"));
    bench.environment(&[], &[&format!("--extra-index-url {}", first.url()), "lib>=2"]);
    let message = fail(&mut bench.run(&["lock"]), 1);
    assert!(message.contains("hint: `--index-strategy unsafe-best-match`"), "{message}");
    let strategy = ["--index-strategy", "unsafe-best-match"];
    succeed(bench.run(&["lock"]).args(strategy));
    assert_eq!(bench.wheels(), ["lib 2.0"]);
    succeed(bench.run(&["lock", "--check"]).args(strategy));
    succeed(bench.run(&["lock", "--check"]).env("CONDAIMG_INDEX_STRATEGY", strategy[1]));
    let message = fail(&mut bench.run(&["lock", "--check"]), 1);
    assert!(message.contains("- --index-strategy unsafe-best-match"), "{message}");
    fail(bench.run(&["lock", "--check"]).args(["--index-strategy", "best"]), 2);
    let file = "environment: environment.yml\nindex-strategy: unsafe-best-match\n";
    bench.workspace.file("condaimg.yaml", file);
    succeed(bench.run(&["lock", "--check"]).arg("condaimg.yaml"));
    // The default needs no line in the lock.
    bench.environment(&[], &["lib"]);
    fs_err::remove_file(bench.workspace.path("condaimg.yaml")).expect("removes");
    succeed(bench.run(&["lock"]).args(["--index-strategy", "first-index"]));
    succeed(&mut bench.run(&["lock", "--check"]));
}

#[test]
fn pip_freeze_of_conda_packages_is_told_at_once() {
    let bench =
        Bench::new(&[module("certifi", "2.0"), module("attrs", "3.0"), module("built", "1.5"), module("lib", "1.0")]);
    // What conda packages leave in an environment, as pip lists it.
    let dist = |name: &str, version: &str, url: Option<&str>| {
        let info = format!("site/{name}-{version}.dist-info");
        bench
            .workspace
            .file(&format!("{info}/METADATA"), format!("Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"));
        bench.workspace.file(&format!("{info}/INSTALLER"), "conda");
        bench.workspace.file(&format!("{info}/RECORD"), "");
        if let Some(url) = url {
            let info = format!("{info}/direct_url.json");
            let archive = if url.ends_with(".whl") { "archive_info" } else { "dir_info" };
            bench.workspace.file(&info, format!("{{\"{archive}\": {{}}, \"url\": \"{url}\"}}"));
        }
    };
    dist("certifi", "1.0", Some("file:///croot/certifi_1707229174982/work/certifi"));
    dist("attrs", "1.0", Some("file:///tmp/build/80754af9/attrs_1620827162558/work"));
    let wheel = "file:///home/conda/feedstock_root/build_artifacts/built_1707225359967/work/dist/built-1.5-cp311-cp311-linux_x86_64.whl";
    dist("built", "1.5", Some(wheel));
    dist("lib", "1.0", None);
    let mut pip = Command::new(example_python());
    let frozen = succeed(pip.args(["-m", "pip", "freeze", "--path"]).arg(bench.workspace.path("site")));
    assert!(frozen.contains("certifi @ file:///croot/") && frozen.contains("lib==1.0"), "{frozen}");
    bench.workspace.file("requirements.txt", &frozen);
    let run = |words: &[&str]| bench.run(&[words, &["requirements.txt", "--python", "3.11"]].concat());
    let message = fail(&mut run(&["lock"]), 1);
    for expected in
        ["2 requirements", "requirements.txt:1: `attrs @", "requirements.txt:3: `certifi @", "--drop-conda-build-paths"]
    {
        assert!(message.contains(expected), "{expected}: {message}");
    }
    assert!(!message.contains("`built"), "its version is in the name of its wheel: {message}");
    let told = run_output(run(&["lock"]).arg("--drop-conda-build-paths"));
    let told = String::from_utf8_lossy(&told.stderr).into_owned();
    assert!(told.contains("`built==1.5`") && told.contains("`certifi`"), "{told}");
    let locks =
        condaimg::lock::read(&bench.workspace.path("requirements.condaimg.lock")).expect("reads").expect("a lock");
    let wheels = locks.iter().flat_map(|lock| &lock.wheels).map(|wheel| format!("{} {}", wheel.name, wheel.version));
    assert_eq!(wheels.collect::<Vec<_>>(), ["attrs 3.0", "built 1.5", "certifi 2.0", "lib 1.0"]);
}

#[test]
fn requirements_may_have_other_encodings() {
    let bench = Bench::new(&[module("lib", "1.0")]);
    let lock = || {
        let _ = fs_err::remove_file(bench.workspace.path("requirements.condaimg.lock"));
        let mut lock = bench.run(&["lock"]);
        lock.args(["requirements.txt", "--python", "3.11"]);
        lock
    };
    let utf16: Vec<u8> = "\u{feff}# caf\u{e9}\r\nlib==1.0\r\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    for bytes in [utf16, b"# -*- coding: latin-1 -*-\n# caf\xe9\nlib==1.0\n".to_vec()] {
        bench.workspace.file("requirements.txt", bytes);
        succeed(&mut lock());
    }
    for (bytes, says) in [
        (&b"lib==1.0\n# caf\xe9\n"[..], "requirements.txt:2: "),
        (b"# coding: klingon\nlib==1.0\n", "requirements.txt:1: unknown coding `klingon`"),
    ] {
        bench.workspace.file("requirements.txt", bytes);
        let message = fail(&mut lock(), 1);
        assert!(message.contains(says) && message.contains("UTF-8"), "{message}");
    }
}

#[test]
fn repositories_over_ssh_are_shown_whole() {
    let bench = Bench::new(&[]);
    for line in ["git+ssh://git@127.0.0.1:team/tool.git@v1", "git+git@127.0.0.1:team/tool.git@v1"] {
        bench.environment(&[], &[line]);
        let message = fail(&mut bench.run(&["lock"]), 1);
        assert!(message.contains(&format!("`{line}`")), "{message}");
        assert!(message.contains("`git+ssh://git@127.0.0.1/team/tool.git@v1`"), "{message}");
    }
    bench.environment(&[], &["tool @ git+ssh://git@127.0.0.1:1/team/tool.git@v1"]);
    let message = fail(bench.run(&["lock"]).arg("--allow-build"), 1);
    assert!(message.contains("ssh://git@127.0.0.1:1/team/tool.git"), "{message}");
}
