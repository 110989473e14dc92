//! Images that other tools made, extended by `--from`.

use super::*;

/// A root file system as other tools leave it: no image of ours, two environments, something by pip.
fn foreign(workspace: &Workspace) -> PathBuf {
    let root = workspace.path("foreign");
    let write = |path: &str, content: &str| drop(workspace.file(&format!("foreign/{path}"), content));
    let record = |name: &str, version: &str, more: &str| {
        format!(
            r#"{{"name": "{name}", "version": "{version}", "build": "0", "build_number": 0, "subdir": "linux-64",
                "fn": "{name}-{version}-0.conda", "channel": "https://conda.example/main/linux-64", "depends": [],
                "url": "https://conda.example/main/linux-64/{name}-{version}-0.conda", "requested_spec": "{name}"{more}}}"#
        )
    };
    for prefix in ["opt/conda", "opt/conda/envs/work"] {
        write(&format!("{prefix}/conda-meta/history"), "==> 2026-01-01 00:00:00 <==\n");
        let activates = r#", "md5": "0123456789abcdef0123456789abcdef", "files": ["etc/conda/activate.d/a.sh"]"#;
        write(&format!("{prefix}/conda-meta/numpy-1.26.4-0.json"), &record("numpy", "1.26.4", activates));
        write(&format!("{prefix}/etc/conda/activate.d/a.sh"), &format!("export NUMPY_HOME=/{prefix}/numpy\n"));
        write(&format!("{prefix}/lib/python3.11/site-packages/By_Pip-2.0.dist-info/METADATA"), "");
    }
    write("opt/conda/envs/work/conda-meta/state", r#"{"env_vars": {"MODE": "work"}}"#);
    root
}

/// The text of a file in a layer.
fn file_in(image: &Layout, layer: &str, path: &str) -> String {
    let mut archive = tar::Archive::new(image.layer(layer));
    let mut entries = archive.entries().expect("a tar").map(|entry| entry.expect("an entry"));
    let mut found = entries.find(|entry| entry.path().expect("a path") == Path::new(path)).expect("is there");
    let mut text = String::new();
    found.read_to_string(&mut text).expect("text");
    text
}

fn rootfs(path: &Path) -> String {
    format!("rootfs:{}", path.display())
}

#[test]
fn images_of_other_tools_are_extended_too() {
    let bench = Bench::new(&[("pandas", "2.2.0", &["numpy >=1.20"]), ("numpy", "2.2.6", &[])]);
    let base = rootfs(&foreign(&bench.workspace));
    let message = fail(&mut bench.project("build", &base, &["pandas"]), 1);
    assert!(message.contains("/opt/conda, /opt/conda/envs/work") && message.contains("`--prefix`"), "{message}");
    let message = fail(bench.project("build", &base, &["pandas"]).args(["--prefix", "/opt/none"]), 1);
    assert!(message.contains("in /opt/none") && message.contains("it has /opt/conda"), "{message}");
    let mut build = bench.project("build", &base, &["pandas"]);
    let digest = succeed(build.args(["--prefix", "/opt/conda/envs/work", "--output", "oci:app:1"]));
    let layers = bench.manifest("app");
    assert_eq!(packages(&layers, 1), "pandas-2.2.0-0");
    let image = Layout::at(bench.workspace.path("app"));
    let variables = image.config()["config"]["Env"].to_string();
    assert!(
        variables.contains("NUMPY_HOME=/opt/conda/envs/work/numpy") && variables.contains("MODE=work"),
        "{variables}"
    );
    let history = file_in(&image, image.layers().last().expect("layers"), "opt/conda/envs/work/conda-meta/history");
    assert!(history.contains("+https://conda.example/main/linux-64::numpy-1.26.4-0"), "{history}");
    assert!(history.contains(r#"# update specs: ["numpy","pandas"]"#), "{history}");
    let lock = bench.lock();
    assert!(lock.contains("by-pip: '2.0'") || lock.contains("by-pip: \"2.0\""), "{lock}");
    // The same from the lock.
    let mut again = bench.project("build", &base, &["pandas"]);
    again.args(["--prefix", "/opt/conda/envs/work", "--locked", "--output", "oci:app:1"]);
    assert_eq!(succeed(again.env("CONDAIMG_CACHE_DIR", bench.workspace.path("elsewhere"))), digest);
}

#[test]
fn an_environment_that_belongs_to_a_user_stays_hers() {
    let mut bench = Bench::new(&[]);
    bench.channel.add(&Package::new("new", "1.0").file("lib/deep/er/file", "new"), Format::Conda);
    bench.channel.index();
    let mut base = tar::Builder::new(Vec::new());
    let folders = [("opt", 0o755, 0, 0), ("opt/conda", 0o2775, 1000, 100), ("opt/conda/share", 0o700, 1000, 1000)];
    let mut add = |path: &str, kind: tar::EntryType, (mode, user, group): (u32, u64, u64)| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(0);
        header.set_mode(mode);
        header.set_uid(user);
        header.set_gid(group);
        base.append_data(&mut header, path, std::io::empty()).expect("packs");
    };
    for (path, mode, user, group) in folders {
        add(path, tar::EntryType::Directory, (mode, user, group));
    }
    add("opt/conda/conda-meta/history", tar::EntryType::Regular, (0o644, 1000, 100));
    let base = bench.workspace.file("base.tar", base.into_inner().expect("packs"));
    bench.workspace.file("mine", "");
    let mut build = bench.project("build", &rootfs(&base), &["new"]);
    build.args(["--output", "oci:app:1", "--copy", "mine:/opt/conda/share/mine", "--copy", "mine:/opt/conda/etc/"]);
    succeed(&mut build);
    let image = Layout::at(bench.workspace.path("app"));
    let usual = |path: &str| (path.to_owned(), 0o2775, 1000, 100);
    let mut found = Vec::new();
    for layer in &image.layers()[1..] {
        let mut archive = tar::Archive::new(image.layer(layer));
        let entries = archive.entries().expect("a tar").map(|entry| entry.expect("an entry"));
        let folders = entries.filter(|entry| entry.header().entry_type() == tar::EntryType::Directory);
        let of = |entry: tar::Entry<'_, _>| {
            let (path, header) = (String::from_utf8(entry.path_bytes().into_owned()).expect("text"), entry.header());
            (path, header.mode().expect("a mode"), header.uid().expect("a user"), header.gid().expect("a group"))
        };
        found.extend(folders.map(of).filter(|(path, ..)| path.starts_with("opt/conda/")));
    }
    found.sort();
    found.dedup();
    let mut expected = ["", "conda-meta/", "etc/", "lib/", "lib/deep/", "lib/deep/er/"]
        .map(|path| usual(&format!("opt/conda/{path}")))
        .to_vec();
    expected.push(("opt/conda/share/".to_owned(), 0o700, 1000, 1000));
    assert_eq!(found, expected);
}
