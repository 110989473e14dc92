//! Wheels that are made here: what their machine code needs, and `install:` of a condaimg.yaml.

use std::process::Command;

use super::Bench;
use crate::common::engine::{Engine, swept};
use crate::common::pypi::{project, project_with_script};
use crate::common::wheels::Wheel;
use crate::common::{example_base, example_channel, fail, program, succeed};

/// As on a system whose C library is newer than any: that has a symbol of version 2.99.
const ON_A_NEWER_SYSTEM: &str = "
echo 'GLIBC_2.99 { global: newest; };' >versions
echo 'int newest(void) { return 42; }' >libc.c
cc -shared -fPIC -Wl,--version-script=versions -Wl,-soname,libc.so.6 -o libnewer.so libc.c
echo 'int newest(void); int answer(void) { return newest(); }' >native.c
cc -shared -fPIC -o compiled native.c -L. -lnewer
";
const HERE: &str = "
echo '#include <stdlib.h>' >native.c
echo 'int answer(void) { return abs(-42); }' >>native.c
cc -shared -fPIC -o compiled native.c
";

#[test]
fn what_was_compiled_here_must_run_there() {
    let _ = program("cc", "build-essential");
    let bench = Bench::new(&[]);
    let folder = bench.workspace.path("native");
    project(&folder, "native", "1.0", &[], "compiled");
    fs_err::write(folder.join("compile.sh"), ON_A_NEWER_SYSTEM).expect("writes");
    bench.environment(&[], &["./native"]);
    let refused = || {
        let message = fail(bench.run(&["lock"]).arg("--allow-build"), 1);
        for part in ["native-1.0-py3-none-linux_", "`_native.so` needs glibc 2.99", "the target has 2.36"] {
            assert!(message.contains(part), "{message}");
        }
        message
    };
    assert!(refused().contains("building a wheel of the folder"));
    // From the store, it is refused as well.
    assert!(!refused().contains("building a wheel of the folder"));
    fs_err::write(folder.join("compile.sh"), HERE).expect("writes");
    bench.build(&["--allow-build"]);
    let code = "import ctypes, native; print(ctypes.CDLL(native.__file__.replace('native.py', '_native.so')).answer())";
    assert_eq!(bench.python(code), "42");
}

/// The header of a file of machine code (ELF, 64 bits, little-endian) without sections.
fn machine_code(machine: u16) -> Vec<u8> {
    let mut header = b"\x7fELF\x02\x01\x01".to_vec();
    header.resize(64, 0);
    header[16] = 3;
    header[18..20].copy_from_slice(&machine.to_le_bytes());
    header[20] = 1;
    header[52] = 64;
    header
}

#[test]
fn machine_code_of_another_architecture_is_refused_where_there_is_no_other() {
    const X86_64: u16 = 62;
    const AARCH64: u16 = 183;
    let lib = |version: &str| Wheel::new("lib", version).tags("cp311-cp311-linux_x86_64").file("lib.py", "");
    let mut bench = Bench::new(&[lib("1.0").file("lib/_arm.so", machine_code(AARCH64))]);
    bench.environment(&[], &["lib"]);
    let message = fail(&mut bench.run(&["lock"]), 1);
    for part in ["lib-1.0-cp311-cp311-linux_x86_64.whl", "`lib/_arm.so`", "another architecture than linux-64"] {
        assert!(message.contains(part), "{message}");
    }
    // A helper for each architecture, of which the package loads the right one.
    let both = lib("2.0").file("lib/_arm.so", machine_code(AARCH64)).file("lib/_x86.so", machine_code(X86_64));
    bench.index.add(&both);
    succeed(&mut bench.run(&["lock"]));
    assert_eq!(bench.wheels(), ["lib 2.0"]);
}

/// `condaimg WORDS...` in the folder of a project, without any flag. The base lies outside of it.
fn in_project(bench: &Bench, words: &[&str]) -> Command {
    let mut command = bench.workspace.condaimg();
    command.current_dir(bench.workspace.path("app")).env("PIP_INDEX_URL", bench.index.url()).args(words);
    command.env("CONDAIMG_BASE", format!("oci:{}:debian", example_base().display()));
    command
}

#[test]
fn a_project_that_installs_itself_runs() {
    let mut bench = Bench::new(&[Wheel::new("helper", "1.5").file("helper.py", "")]);
    bench.index.add(&Wheel::new("helper", "2.0").file("helper.py", ""));
    let folder = bench.workspace.path("app");
    project_with_script(&folder, "my_app", "1.0", &["helper<2"], "of the project", "my-app = my_app:main");
    let file = format!(
        "channels: [{}]\ndependencies: [python=3.11]\nproject:\n- install: .\nimage: {{entrypoint: [my-app]}}\n",
        example_channel().display()
    );
    fs_err::write(folder.join("condaimg.yaml"), &file).expect("writes");
    let message = fail(&mut in_project(&bench, &["build"]), 1);
    for part in ["condaimg.yaml: ", "would have to be built", "--allow-build", "`allow-build: on`"] {
        assert!(message.contains(part), "{message}");
    }
    fs_err::write(folder.join("condaimg.yaml"), format!("{file}allow-build: on\n")).expect("writes");
    let digest = succeed(&mut in_project(&bench, &["build"]));
    // The lock and the image, which lie in the project's folder now, are no part of it.
    succeed(&mut in_project(&bench, &["lock", "--check"]));
    let copy = swept().join("installs-itself");
    succeed(program("cp", "coreutils").arg("-a").arg(folder.join("image")).arg(&copy));
    let image = Engine::shared().pull(&format!("oci:{}", copy.display()));
    assert_eq!(succeed(&mut Engine::shared().run(&[&image])).trim(), "of the project");
    let code = "import importlib.metadata as m; print(m.version('helper'), m.version('my-app'))";
    let versions = succeed(Engine::shared().run(&["--entrypoint", "python", &image]).args(["-c", code]));
    assert_eq!(versions.trim(), "1.5 1.0");
    let message = fail(&mut in_project(&bench, &["lock", "--upgrade", "My_App"]), 1);
    assert!(message.contains("it is called `my-app` there"), "{message}");
    let message = fail(&mut in_project(&bench, &["build", "condaimg.lock", "--refresh-stability"]), 2);
    assert!(message.contains("would change the lock `condaimg.lock`"), "{message}");
    // The same on another machine.
    bench.forget();
    assert_eq!(succeed(&mut in_project(&bench, &["build", "--locked"])), digest);
    // A changed file of the project is another wheel, and nothing else.
    project_with_script(&folder, "my_app", "1.0", &["helper<2"], "changed", "my-app = my_app:main");
    let message = fail(&mut in_project(&bench, &["build", "--locked"]), 1);
    assert!(message.contains("is stale") && message.contains("pip: + ./. (content "), "{message}");
    assert_ne!(succeed(&mut in_project(&bench, &["build"])), digest);
}
