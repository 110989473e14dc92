//! Packages of PyPI that others pinned, with what stands beside them: credentials, a base, more packages.

use super::wheels::{Bench, module};
use super::{notices, swept};
use crate::common::engine::Engine;
use crate::common::needles::Needles;
use crate::common::pypi::project;
use crate::common::{Workspace, example_base, example_channel, fail, program, run_output, succeed};

const PASSWORD: &str = "pinned+5ecret/pass";
const IN_URL: &str = "pinned%2B5ecret%2Fpass";

/// Runs Python code in the image of a layout, whose name has no capitals.
fn python(layout: &std::path::Path, code: &str) -> String {
    let image = Engine::shared().pull(&format!("oci:{}", layout.display()));
    succeed(Engine::shared().run(&[]).args([image.as_str(), "python", "-c", code])).trim().to_owned()
}

/// conda-lock leaves variables in URLs, so that passwords are in no file.
#[test]
fn variables_of_a_conda_lock_have_the_password_of_an_index() {
    let bench = Bench::new();
    bench.lock(&["lib"]);
    let text = bench.export("environment.yml", "conda-lock");
    let (server, login) = (&bench.index.server, "://me:${PYPI_PASSWORD}@");
    bench.workspace.file("conda-lock.yml", text.replace(&server.url, &server.url.replace("://", login)));
    server.require(&crate::common::token_server::basic("me", PASSWORD));
    fs_err::remove_dir_all(bench.workspace.path("cache")).expect("removes");
    let message = fail(bench.run("build").arg("conda-lock.yml"), 1);
    assert!(message.contains("401") && message.contains("lib-1.0-py3-none-any.whl"), "{message}");
    let mut said = message.into_bytes();
    let out = swept().join("conda-lock-with-pip");
    for more in [&["-vv"][..], &["--locked", "--progress", "json"]] {
        let _ = fs_err::remove_dir_all(bench.workspace.path("cache"));
        let mut build = bench.run("build");
        build.args(["conda-lock.yml", "--metadata-file", "metadata.json", "--output"]);
        build.arg(format!("oci:{}", out.display())).args(more);
        let output = run_output(build.env("PYPI_PASSWORD", IN_URL));
        said.extend([output.stdout, output.stderr].concat());
    }
    // A password that is wrong is not told either.
    let _ = fs_err::remove_dir_all(bench.workspace.path("cache"));
    server.require("Basic b3RoZXI6cGFzc3dvcmQ=");
    let mut build = bench.run("build");
    said.extend(fail(build.args(["conda-lock.yml", "-vv"]).env("PYPI_PASSWORD", IN_URL), 1).into_bytes());
    let mut needles = Needles::default();
    needles.add("the password", PASSWORD, "me");
    assert!(needles.within(&said).is_empty(), "{}", String::from_utf8_lossy(&said));
    let found = needles.below(&bench.workspace.path(""), &[]);
    assert!(found.is_empty(), "{found:#?}");
    let found = needles.below(&out, &[]);
    assert!(found.is_empty(), "{found:#?}");
    assert_eq!(python(&out, "import lib; print(lib.VERSION)"), "1.0");
}

#[test]
fn what_nobody_resolved_together_is_refused() {
    let _ = program("uv", "uv (pip install uv)");
    let bench = Bench::new();
    bench.lock(&["lib"]);
    let out = bench.workspace.path("out");
    bench.built("environment.yml");
    let text = bench.export("environment.yml", "pixi");
    bench.workspace.file("p/pixi.lock", text);
    // On top of a base.
    let mut build = bench.workspace.condaimg();
    let message = fail(build.args(["build", "p/pixi.lock", "--from", &format!("oci:{}", out.display())]), 1);
    assert!(message.contains("pixi.lock` pins packages of PyPI, on top of `oci:"), "{message}");
    assert!(message.contains("build without `from`"), "{message}");
    // Beside a project that is installed by pip.
    project(&bench.workspace.path("p/here"), "here", "0.1", &[], "here");
    bench.workspace.file("p/condaimg.yaml", "environment: pixi.lock\nproject:\n  - install: ./here\n");
    let message = fail(bench.run("build").args(["p", "--allow-build"]), 1);
    assert!(message.contains("`./here` is asked for beside the packages of PyPI that"), "{message}");
    assert!(message.contains("pixi.lock` pins, which nobody resolved together"), "{message}");
}

/// `conda env export` of an environment that pip installed something into, too.
#[test]
fn exports_with_pip_packages_build_and_run() {
    let _ = program("uv", "uv (pip install uv)");
    let mut bench = Bench::new();
    bench.index.add(&module("lib", "3.0"));
    let workspace = Workspace::new();
    let text = "name: old\nchannels:\n  - conda-forge\n  - defaults\ndependencies:\n  - python=3.11.2\n  - pip:\n      - lib==1.0\n      - placed==2.0\nprefix: /home/me/old\n";
    bench.index.add(&module("placed", "2.0"));
    workspace.file("environment.yml", text);
    let out = swept().join("export-with-pip");
    let mut build = workspace.condaimg();
    build.args(["build", "--base", &format!("oci:{}:debian", example_base().display())]);
    build.args(["--override-channels", "--channel"]).arg(example_channel()).env("PIP_INDEX_URL", bench.index.url());
    let told = notices(build.args(["--output", &format!("oci:{}", out.display())]));
    assert!(told.contains("`prefix:` is ignored"), "{told}");
    let code = "import lib, placed, sys; print(lib.VERSION, placed.VERSION, sys.version.split()[0])";
    assert_eq!(python(&out, code), "1.0 2.0 3.11.2");
}
