//! Byte code that one member of an environment ships and another would have made: at each place there is that of the module.

use condaimg::util::Digest;

use super::Bench;
use crate::common::packages::{Channel, Format, Package};
use crate::common::run_output;
use crate::common::tree::{Image, Kind};
use crate::common::wheels::Wheel;

const SITE_PACKAGES: &str = "lib/python3.11/site-packages";
const PYC: &str = "shared/__pycache__/mod.cpython-311.pyc";
/// What is shipped is no byte code: so it is told from what is made.
const SHIPPED: &str = "shipped";

/// A channel with packages, beside the example channel.
fn channel(bench: &Bench, packages: &[Package]) -> Channel {
    let mut channel = Channel::new(bench.workspace.path("channel"));
    packages.iter().for_each(|package| drop(channel.add(package, Format::Conda)));
    channel.index();
    channel
}

/// A noarch package of conda with the module, for which byte code is made.
fn module() -> Package {
    Package::new("conda-mod", "1")
        .noarch_python()
        .depends(&["python"])
        .file("site-packages/shared/mod.py", "VALUE = 1\n")
}

/// The contents at a path in `site-packages`, of all layers.
fn at(bench: &Bench, path: &str) -> Vec<Digest> {
    let image = Image::read(&bench.workspace.path("image"));
    let entries = image.layers.iter().flat_map(|layer| &layer.entries);
    let found = entries.filter(|(entry, _)| entry.ends_with(&format!("{SITE_PACKAGES}/{path}")));
    let content = |kind: &Kind| match kind {
        Kind::File(content) => content.sha256,
        other => panic!("{other:?}"),
    };
    found.map(|(_, node)| content(&node.kind)).collect()
}

fn imports(bench: &Bench) {
    assert_eq!(bench.python("import shared.mod; print(shared.mod.VALUE)"), "1");
}

/// What is shipped for the module of another is left out, by name, and byte code of the module is made.
fn is_made(bench: &Bench, told: &str, shipper: &str) {
    assert!(told.contains(&format!("of `{shipper}`: byte code for modules of")), "{told}");
    let [found] = at(bench, PYC)[..] else { panic!("one is there") };
    assert_ne!(found, Digest::of(SHIPPED));
    imports(bench);
}

#[test]
fn of_a_wheel_for_a_module_of_conda() {
    let bench = Bench::new(&[Wheel::new("extra", "1.0").file(PYC, SHIPPED)]);
    let channel = channel(&bench, &[module()]);
    bench.environment(&["conda-mod"], &["extra"]);
    let told = run_output(bench.run(&["build"]).arg("--channel").arg(&channel.folder)).stderr;
    is_made(&bench, &String::from_utf8_lossy(&told), "extra");
}

#[test]
fn of_a_conda_package_for_a_module_of_another() {
    let bench = Bench::new(&[Wheel::new("other", "1.0").file("other.py", "")]);
    let shipper = Package::new("shipper", "1").file(&format!("{SITE_PACKAGES}/{PYC}"), SHIPPED);
    let channel = channel(&bench, &[module(), shipper]);
    bench.environment(&["conda-mod", "shipper"], &["other"]);
    let told = run_output(bench.run(&["build"]).arg("--channel").arg(&channel.folder)).stderr;
    // Where nobody ships any, it is made.
    assert_eq!(at(&bench, "__pycache__/other.cpython-311.pyc").len(), 1);
    is_made(&bench, &String::from_utf8_lossy(&told), "shipper");
}

#[test]
fn of_a_wheel_for_a_module_of_another() {
    // The one that ships it comes first by name, and last.
    for name in ["a-shipper", "z-shipper"] {
        let module = Wheel::new("module", "1.0").file("shared/mod.py", "VALUE = 1\n").file("plain.py", "");
        let bench = Bench::new(&[module, Wheel::new(name, "1.0").file(PYC, SHIPPED)]);
        bench.environment(&[], &["module", name]);
        let told = run_output(&mut bench.run(&["build"])).stderr;
        assert_eq!(at(&bench, "__pycache__/plain.cpython-311.pyc").len(), 1);
        is_made(&bench, &String::from_utf8_lossy(&told), name);
    }
}
