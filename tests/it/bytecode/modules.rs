//! Python itself looks at every module of three images, under `-v`: none may be compiled, or be reported stale.

use super::{Package, SITE, SOURCE, TIME, WithModule};
use crate::common::engine::{Engine, swept};
use crate::common::images::full;
use crate::common::packages::Format;
use crate::common::{example_wheels, pyc, run_output, succeed};

/// Loads the code of each module below `lib/python3.11` as importing it would, without running it: many modules of many
/// packages cannot be imported without a screen, a server or another system.
const LOAD_ALL: &str = r##"
import importlib.machinery, os, sys
count = 0
for folder, folders, files in os.walk(os.path.join(sys.prefix, "lib", "python3.11")):
    for file in files:
        path = os.path.join(folder, file)
        if file.endswith(".py") and not os.path.islink(path):
            try:
                importlib.machinery.SourceFileLoader("module", path).get_code("module")
                count += 1
            except (SyntaxError, UnicodeDecodeError, ValueError):
                # Templates, and tests of the compiler.
                print("# not valid", path, file=sys.stderr)
print(count)
"##;

/// The number of modules whose code Python loaded; panics with those that it compiled or called stale.
fn load_all(image: &str, imports: &str) -> usize {
    let engine = Engine::shared();
    let mut podman = engine.run(&["--user=31337:0"]);
    let output = run_output(podman.args([image, "python", "-v", "-c", &format!("{LOAD_ALL}\nimport {imports}")]));
    let told = String::from_utf8_lossy(&output.stderr);
    // What is not valid was tried, and has no byte code.
    let invalid: Vec<&str> = told.lines().filter_map(|line| line.strip_prefix("# not valid ")).collect();
    let is_wrong = |line: &&str| {
        // A path without quotes is that of a source.
        let compiled = line.strip_prefix("# code object from ").filter(|path| !path.starts_with('\''));
        line.contains("bytecode is stale") || line.contains("bad magic") || compiled.is_some()
    };
    let wrong: Vec<&str> = told.lines().filter(is_wrong).collect();
    assert!(wrong.is_empty(), "{} modules, e.g. {:#?}", wrong.len(), &wrong[..wrong.len().min(10)]);
    assert!(invalid.len() < 20, "{invalid:?}");
    String::from_utf8_lossy(&output.stdout).trim().parse().expect("a number")
}

#[test]
fn modules_of_conda_packages_are_never_compiled() {
    let image = Engine::shared().pull(&full().image());
    let count = load_all(&image, "numpy, pandas, flask, requests, click, pytest, pip, ssl, sqlite3");
    assert!(count > 2_000, "{count} modules");
}

#[test]
fn modules_of_wheels_are_never_compiled() {
    let bench = super::Bench::new(&[], Format::Conda);
    // What a wheel ships fits by its size alone: the times in a zip are not those that the code was compiled at.
    let shipping = crate::common::wheels::Wheel::new("shipping", "1.0")
        .file("shipping.py", SOURCE)
        .file("__pycache__/shipping.cpython-311.pyc", pyc::stamped(SOURCE, TIME))
        .file("without.py", SOURCE)
        .file("unfit.py", SOURCE)
        .file("__pycache__/unfit.cpython-311.pyc", pyc::stamped("VALUE = 12\n", TIME));
    let wheels = bench.workspace.path("wheels");
    fs_err::create_dir_all(&wheels).expect("a folder");
    for wheel in fs_err::read_dir(example_wheels()).expect("wheels") {
        let wheel = wheel.expect("an entry").path();
        if wheel.extension().is_some_and(|extension| extension == "whl") {
            fs_err::copy(&wheel, wheels.join(wheel.file_name().expect("a name"))).expect("copies");
        }
    }
    shipping.write(&wheels);
    let names = ["shipping", "numpy", "jsonschema", "jmespath"];
    let lines: String = names.iter().map(|name| format!("    - {name}\n")).collect();
    let text = format!(
        "channels: [conda-forge]\ndependencies:\n  - python=3.11\n  - libstdcxx\n  - pip:\n    - --no-index\n    - --find-links {}\n{lines}",
        wheels.display()
    );
    bench.workspace.file("environment.yml", text);
    succeed(&mut bench.workspace.build_here());
    let prefix = bench.prefix();
    let head = |module: &str| prefix[&super::path_of(module)].content().head.clone();
    assert_eq!(head("shipping")[4..8], [0; 4], "the shipped one, with another time");
    assert_eq!(head("unfit")[4..8], [1, 0, 0, 0], "a made one");
    let count = load_all(&pulled(&bench, "wheel-heavy"), "numpy, jsonschema, jmespath, shipping, unfit");
    assert!(count > 1_000, "{count} modules");
}

#[test]
fn modules_that_packages_fight_over_fit() {
    let with =
        |name: &str, source: &str| Package::new(name, "1").file(&format!("{SITE}/shared.py"), source).mtime(TIME);
    let other = "VALUE = 22\n";
    let packages = [
        with("low", SOURCE).code("shared", pyc::stamped(SOURCE, TIME)),
        with("high", other).depends(&["low"]).code("shared", pyc::stamped(other, TIME - 5)),
        Package::new("higher", "1").depends(&["high"]).code("shared", pyc::stamped(SOURCE, TIME)),
        Package::new("module-only", "1").noarch_python().depends(&["python"]).file("site-packages/lonely.py", SOURCE),
        Package::new("code-only", "1").depends(&["module-only"]).code("lonely", pyc::stamped(other, TIME)),
    ];
    let names: Vec<&str> = packages.iter().map(|package| package.name.as_str()).collect();
    let bench = super::Bench::new(&packages, Format::Conda);
    run_output(&mut bench.build_with_python(&names));
    let prefix = bench.prefix();
    assert!(prefix.contains_key(&super::path_of("shared")) && prefix.contains_key(&super::path_of("lonely")));
    let image = pulled(&bench, "clobbering");
    load_all(&image, "shared, lonely");
    let code = "import shared, lonely; print(shared.VALUE, lonely.VALUE)";
    assert_eq!(succeed(Engine::shared().run(&[]).arg(&image).args(["python", "-c", code])), "22 1\n");
}

/// The image of a bench in the engine.
fn pulled(bench: &super::Bench, name: &str) -> String {
    // podman makes an image's name of the folder, and those have no capitals.
    let folder = swept().join(name);
    fs_err::rename(bench.workspace.path("image"), &folder)
        .or_else(|_| {
            std::process::Command::new("cp")
                .arg("-a")
                .arg(bench.workspace.path("image"))
                .arg(&folder)
                .status()
                .map(drop)
        })
        .expect("copies");
    Engine::shared().pull(&format!("oci:{}", folder.display()))
}
