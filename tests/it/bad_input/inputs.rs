//! Files that would ask for nothing, or for something else than their writer meant.

use super::Bench;
use crate::common::packages::{Channel, Format, Package};
use crate::common::{Workspace, environment, fail, run_output, succeed};

#[test]
fn files_that_ask_for_nothing_are_refused() {
    let bench = Bench::new();
    let cases: [(&str, &str, &[&str]); 24] = [
        ("environment.yml", "depencencies: [fine]\n", &["environment.yml:1:1", "`depencencies:`", "`dependencies:`"]),
        ("environment.yml", "Dependencies: [fine]\n", &["environment.yml:1:1", "`dependencies:`"]),
        ("environment.yml", "name: a\n", &["environment.yml", "`dependencies:`"]),
        (
            "environment.yml",
            "channels: [a]\npackages: [fine]\n",
            &["environment.yml:2", "`packages:`", "`dependencies:`"],
        ),
        ("environment.yml", "dependencies:\n", &["environment.yml:1:14", "`dependencies:`"]),
        ("environment.yml", "name: a\ndependencies:\n#  - fine\n", &["environment.yml:2:14", "`dependencies:`"]),
        ("environment.yml", "dependencies: ~\n", &["environment.yml:1:15", "`dependencies:`"]),
        ("environment.yml", "pip: [fine]\n", &["environment.yml:1:1", "`- pip:`"]),
        ("environment.yml", "dependencies: [fine]\npip: [lib]\n", &["environment.yml:2:1", "`- pip:`"]),
        ("environment.yml", "dependencies: [fine]\nchanels: [a]\n", &["environment.yml:2:1", "`channels:`"]),
        ("environment.yml", "dependencies:\n  - pip:\n  - fine\n", &["environment.yml:2:9", "`pip:`"]),
        ("environment.yml", "null\n", &["environment.yml:1:1", "`null`", "`dependencies:`"]),
        ("environment.yml", "fine\n", &["environment.yml:1:1", "a text", "`dependencies:`"]),
        ("environment.yml", "- fine\n- lib\n", &["environment.yml:1:1", "a list", "`dependencies:`"]),
        ("environment.json", "[\"fine\"]\n", &["environment.json:1:1", "a list", "`dependencies:`"]),
        ("environment.yml", "a: &a {b: c}\n<<: *a\n", &["environment.yml:2:1", "`<<:`", "with its value"]),
        ("condaimg.yaml", "- fine\n", &["condaimg.yaml:1:1", "a list", "`dependencies:`"]),
        ("docker-compose.yml", "services: {web: {image: a}}\n", &["docker-compose.yml", "Compose"]),
        ("meta.yaml", "package: {name: a}\nrequirements: {run: [fine]}\n", &["meta.yaml", "recipe"]),
        ("locked.yml", "version: 1\npackage:\n- {name: fine}\n", &["locked.yml", "conda-lock.yml without `metadata:`"]),
        ("condarc.yml", "channels: [a]\nchannel_priority: strict\n", &["condarc.yml", "configuration of conda"]),
        ("condaimg.yaml", "dependencies:\n", &["condaimg.yaml:1:14", "`dependencies:`"]),
        ("condaimg.yaml", "dependencies: [fine]\npip: [lib]\n", &["condaimg.yaml:2:1", "`- pip:`"]),
        (
            "environment.json",
            "{\"name\": \"a\", \"dependancies\": [\"fine\"]}\n",
            &["environment.json:1:15", "`dependencies:`"],
        ),
    ];
    for (name, text, says) in cases {
        bench.workspace.file(name, text);
        bench.refuses(bench.build_here().arg(name), 1, says);
        bench.refuses(bench.build_here().args([name, "-q"]), 1, says);
        fs_err::remove_file(bench.workspace.path(name)).expect("removes");
    }
    for text in ["", "# nothing\n\n"] {
        bench.workspace.file("requirements.txt", text);
        let says = ["`requirements.txt`", "environment.yml"];
        bench.refuses(bench.build_here().args(["requirements.txt", "--python", "3.11"]), 1, &says);
    }
    bench.recovers(&["fine"]);
    bench.workspace.file("empty.yml", "dependencies: []\n");
    succeed(bench.build_here().args(["empty.yml", "--output", "oci:empty"]));
}

#[test]
fn lines_of_other_tools_are_named() {
    let bench = Bench::new();
    let cases: [(&str, &[&str]); 13] = [
        ("  - fine lib\n", &["environment.yml:2:5", "`fine lib`", "line of its own"]),
        ("  - fine\n    lib\n", &["environment.yml:2:5", "`fine lib`", "line of its own"]),
        ("  - fine, lib\n", &["environment.yml:2:5", "line of its own"]),
        ("  - pip\n    - requests\n", &["environment.yml:2:5", "`- pip:`"]),
        ("  - requests[socks]\n", &["environment.yml:2:5", "`- requests[socks]`"]),
        ("  - requests=2.31.0=pypi_0\n", &["environment.yml:2:5", "`- requests==2.31.0`"]),
        ("  - fine={{ version }}\n", &["environment.yml:2:5", "jinja"]),
        ("  - {{ package }}\n", &["environment.yml:2:", "jinja"]),
        ("  - fine\n  -\n", &["environment.yml:3:4", "`-`"]),
        ("  - fine\n  - null\n", &["environment.yml:3:5", "`-`"]),
        ("  - sel(bsd): fine\n", &["environment.yml:2:5", "`sel(bsd):`", "`sel(linux)`"]),
        ("  - -r requirements.txt\n", &["environment.yml:2:5", "`- pip:`"]),
        ("<<<<<<< HEAD\n  - fine\n=======\n  - lib\n>>>>>>> other\n", &["environment.yml:", "merge conflict"]),
    ];
    for (lines, says) in cases {
        bench.workspace.file("environment.yml", format!("dependencies:\n{lines}"));
        bench.refuses(&mut bench.build_here(), 1, says);
    }
    bench.workspace.file("page.yml", "<!DOCTYPE html>\n<html><body>login</body></html>\n");
    bench.refuses(bench.build_here().arg("page.yml"), 1, &["page.yml:1:", "web page"]);
    bench.recovers(&["fine"]);
}

#[test]
fn selectors_leave_out_other_systems() {
    let bench = Bench::new();
    let text = "dependencies:\n  - sel(linux): fine\n  - sel(win): pywin32\n  - lib  # [osx]\n";
    bench.workspace.file("environment.yml", text);
    let told = String::from_utf8(run_output(&mut bench.build_here()).stderr).expect("UTF-8");
    assert!(told.contains("`pywin32`") && told.contains("`# [osx]` (line 4)"), "{told}");
    let lock = fs_err::read_to_string(bench.workspace.path("condaimg.lock")).expect("a lock");
    assert!(lock.contains("fine-1.0") && lock.contains("lib-2.0"), "{lock}");
}

#[test]
fn a_url_as_path_is_refused() {
    let bench = Bench::new();
    for (path, says) in [
        ("https://me:hush@host.example/environment.yml", "curl"),
        ("file:///somewhere/environment.yml", "`/somewhere/environment.yml`"),
        ("git+https://host.example/a.git", "clone"),
    ] {
        let told = bench.refuses(bench.build_here().arg(path), 1, &["PATH", says]);
        assert!(!told.contains("hush"), "{told}");
    }
}

#[test]
fn files_of_powershell_are_read() {
    let bench = Bench::new();
    let digest = succeed(bench.build(&["fine"]).args(["--output", "oci:plain"]));
    let text = format!("\u{feff}{}", environment(&["fine"]).replace('\n', "\r\n"));
    let bytes: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    bench.workspace.file("environment.yml", bytes);
    assert_eq!(succeed(bench.build_here().args(["--locked", "--output", "oci:other"])), digest);
}

#[test]
fn missing_virtual_packages_have_a_flag() {
    let workspace = Workspace::new();
    let mut channel = Channel::new(workspace.path("channel"));
    channel.add(&Package::new("kernel", "1").depends(&["__linux >=5.10"]).file("a", "a"), Format::Conda);
    channel.add(&Package::new("fast", "1").depends(&["__archspec 1 x86_64_v3"]).file("b", "b"), Format::Conda);
    channel.index();
    let lock = |package: &str, flags: &[&str]| {
        workspace.file("environment.yml", environment(&[package]));
        let mut command = workspace.condaimg();
        command.args(["lock", "--base", "scratch", "--glibc", "2.36", "--override-channels", "--channel"]);
        command.arg(&channel.folder).args(flags);
        command
    };
    let message = fail(&mut lock("kernel", &[]), 1);
    assert!(message.contains("`--virtual-package __linux=VERSION`"), "{message}");
    let message = fail(&mut lock("fast", &[]), 1);
    assert!(message.contains("`--platform linux/amd64/v3`"), "{message}");
    let told = run_output(&mut lock("kernel", &["--virtual-package", "__linux=5.15"]));
    let told = String::from_utf8_lossy(&told.stderr).into_owned();
    assert!(told.contains("1 package from 1 channel"), "{told}");
    succeed(&mut lock("fast", &["--platform", "linux/amd64/v3"]));
}
