//! Modules and byte code that are symbolic links of their package, or lie below one: Python follows them, and each image
//! that is read is checked as Python would.

use super::{Bench, SITE, SOURCE, TIME, WithModule, path_of, told};
use crate::common::packages::{FileMode, Format, Package};
use crate::common::pyc;
use crate::common::tree::{Kind, Tree};

fn prefix(package: Package) -> Tree {
    let bench = Bench::new(&[package], Format::Conda);
    told(&mut bench.build(&["odd"]));
    bench.prefix()
}

fn head(prefix: &Tree, path: &str) -> Vec<u8> {
    prefix[path].content().head.clone()
}

/// The byte code of a module that names the prefix is stale wherever a link makes it that of another name.
#[test]
fn pyc_of_a_link_to_a_replaced_module_is_left_out() {
    let build_prefix = format!("/build/{}", "placehold_".repeat(20));
    let text = format!("P = '{build_prefix}'\n");
    let package = Package::new("odd", "1")
        .file_with_placeholder(&format!("{SITE}/m14.py"), &text, &build_prefix, FileMode::Text)
        .mtime(TIME)
        .code("m14", pyc::stamped(&text, TIME))
        .symlink(&format!("{SITE}/s14.py"), "m14.py")
        .code("s14", pyc::stamped(&text, TIME))
        // By way of a second link, and of a folder that is one.
        .symlink(&format!("{SITE}/t14.py"), "alias/s14.py")
        .symlink(&format!("{SITE}/alias"), ".")
        .code("t14", pyc::stamped(&text, TIME));
    let prefix = prefix(package);
    for module in ["m14", "s14", "t14"] {
        assert!(!prefix.contains_key(&path_of(module)), "{module}");
        assert!(prefix.contains_key(&format!("{SITE}/{module}.py")), "{module}");
    }
}

#[test]
fn pyc_of_a_linked_module_gets_the_time_of_the_file() {
    let late = pyc::stamped(SOURCE, TIME + 5);
    let package = Package::new("odd", "1")
        .code("b", late.clone())
        .symlink(&format!("{SITE}/b.py"), "a.py")
        .module("a", 0)
        .code("a", late.clone())
        .symlink(&format!("{SITE}/gone.py"), "../../../../etc/gone.py")
        .code("gone", late.clone())
        .symlink(&format!("{SITE}/size.py"), "a.py")
        .code("size", pyc::stamped("VALUE = 12\n", TIME));
    let bench = Bench::new(std::slice::from_ref(&package), Format::TarBz2);
    let told = told(&mut bench.build(&["odd"]));
    // What leads out of the package cannot be compared.
    assert!(told.contains("2 stale .pyc files of `odd-1-0`"), "{told}");
    let prefix = bench.prefix();
    for module in ["a", "b"] {
        assert_eq!(head(&prefix, &path_of(module)), pyc::stamped(SOURCE, TIME)[..16], "{module}");
    }
    assert!(!prefix.contains_key(&path_of("size")) && !prefix.contains_key(&path_of("gone")));
}

#[test]
fn pyc_that_is_a_link_fits_or_is_left_out() {
    let late = pyc::stamped(SOURCE, TIME + 5);
    let package = Package::new("odd", "1")
        .module("a", 0)
        .code("a", late.clone())
        // The same time, another time, and another size than that of `a`.
        .module("same", 0)
        .symlink(&path_of("same"), "a.cpython-311.pyc")
        .file(&format!("{SITE}/other.py"), SOURCE)
        .mtime(TIME + 5)
        .symlink(&path_of("other"), "a.cpython-311.pyc")
        .file(&format!("{SITE}/size.py"), "VALUE = 12\n")
        .mtime(TIME)
        .symlink(&path_of("size"), "a.cpython-311.pyc")
        .module("out", 0)
        .symlink(&path_of("out"), "/usr/share/out.pyc")
        // Where nothing but a link names it, its file gets the time.
        .module("far", 0)
        .file("share/far.bin.pyc", late)
        .symlink(&path_of("far"), "../../../../share/far.bin.pyc");
    let prefix = prefix(package);
    let fits = pyc::stamped(SOURCE, TIME);
    assert_eq!(head(&prefix, &path_of("a")), fits[..16]);
    assert_eq!(head(&prefix, "share/far.bin.pyc"), fits[..16]);
    for kept in ["same", "far"] {
        assert!(matches!(prefix[&path_of(kept)].kind, Kind::Symlink(_)), "{kept}");
    }
    for left_out in ["other", "size", "out"] {
        assert!(!prefix.contains_key(&path_of(left_out)), "{left_out}");
    }
}

/// A `__pycache__` that leads elsewhere, and a folder of modules with a second name.
#[test]
fn pyc_below_links_is_restamped_or_left_out() {
    let late = pyc::stamped(SOURCE, TIME + 5);
    let package = Package::new("odd", "1")
        .module("m", 0)
        .module("n", 0)
        .symlink(&format!("{SITE}/__pycache__"), "../../../share/cache")
        .file("share/cache/m.cpython-311.pyc", &late)
        .file("share/cache/n.cpython-311.pyc", pyc::stamped("VALUE = 12\n", TIME))
        .symlink(&format!("{SITE}/dirlink"), "real")
        .file(&format!("{SITE}/dirlink/__pycache__/m.cpython-311.pyc"), &late)
        .file(&format!("{SITE}/dirlink/__pycache__/n.cpython-311.pyc"), pyc::stamped("VALUE = 12\n", TIME))
        .file(&format!("{SITE}/real/m.py"), SOURCE)
        .mtime(TIME)
        .file(&format!("{SITE}/real/n.py"), SOURCE)
        .mtime(TIME);
    let prefix = prefix(package);
    for folder in ["share/cache".to_owned(), format!("{SITE}/real/__pycache__")] {
        assert_eq!(head(&prefix, &format!("{folder}/m.cpython-311.pyc")), pyc::stamped(SOURCE, TIME)[..16], "{folder}");
        assert!(!prefix.contains_key(&format!("{folder}/n.cpython-311.pyc")), "{folder}");
    }
}

#[test]
fn no_pyc_is_made_below_a_linked_pycache() {
    let package = Package::new("odd", "1")
        .noarch_python()
        .depends(&["python"])
        .file("site-packages/odd/m.py", SOURCE)
        .mtime(TIME)
        .file("site-packages/odd/n.py", SOURCE)
        .symlink("site-packages/odd/__pycache__", "../cache")
        .file("site-packages/cache/m.cpython-311.pyc", pyc::stamped(SOURCE, TIME + 5))
        .file("site-packages/cache/n.cpython-311.pyc", pyc::stamped("VALUE = 12\n", TIME))
        .file("site-packages/beside.py", SOURCE);
    let bench = Bench::new(&[package], Format::Conda);
    let told = told(&mut bench.build_with_python(&["odd"]));
    // Nothing takes the place of what does not fit.
    assert!(told.contains("1 stale .pyc file of `odd-1-0`"), "{told}");
    let prefix = bench.prefix();
    assert_eq!(head(&prefix, &format!("{SITE}/cache/m.cpython-311.pyc")), pyc::stamped(SOURCE, TIME)[..16]);
    assert!(!prefix.contains_key(&format!("{SITE}/cache/n.cpython-311.pyc")));
    assert!(prefix.contains_key(&path_of("beside")), "other modules are compiled");
}

/// What a link leads to may be another package's in the image.
#[test]
fn pyc_of_a_link_goes_with_what_it_leads_to() {
    let low = Package::new("low", "1")
        .module("a", 0)
        .symlink(&format!("{SITE}/b.py"), "a.py")
        .code("b", pyc::stamped(SOURCE, TIME));
    let high = Package::new("high", "1").file(&format!("{SITE}/a.py"), "VALUE = 22\n").depends(&["low"]);
    let bench = Bench::new(&[low, high], Format::Conda);
    told(&mut bench.build(&["low", "high"]));
    let prefix = bench.prefix();
    assert!(prefix.contains_key(&format!("{SITE}/b.py")) && !prefix.contains_key(&path_of("b")));
}
