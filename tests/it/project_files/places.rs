//! Where project files go in the image, and where they must not.

use super::*;

#[test]
fn names_of_any_bytes_and_any_length_arrive() {
    let bench = Bench::new();
    let long = format!("{}/{}", ["d".repeat(200), "e".repeat(200)].join("/"), "f".repeat(255));
    let names: [&[u8]; 4] = [long.as_bytes(), b"latin-\xe9/\xff", "ünïcode".as_bytes(), b" space\nline"];
    for name in names {
        let path = bench.project().join(OsStr::from_bytes(name));
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(path, name).unwrap();
    }
    let layout = Layout::at(swept().join("project-names"));
    succeed(&mut bench.build(&["--copy", "project:/app", "--output", &layout.image()]));
    let layer = layout.layer(&layout.layers()[1]);
    let mut found = BTreeMap::new();
    let mut archive = tar::Archive::new(layer);
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path_bytes().into_owned();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        if entry.header().entry_type().is_file() {
            found.insert(path, content);
        }
    }
    let expected = names.map(|name| ([b"app/", name].concat(), name.to_vec()));
    assert_eq!(found, BTreeMap::from(expected));
    // Engines take it, too.
    assert!(!Engine::shared().pull(&layout.image()).is_empty());
}

#[test]
fn hard_links_become_files_and_the_group_may_write_to_the_project_alone() {
    let bench = Bench::new();
    bench.write(&["a", "run"]);
    fs_err::hard_link(bench.project().join("a"), bench.project().join("b")).unwrap();
    fs_err::set_permissions(bench.project().join("run"), std::fs::Permissions::from_mode(0o4711)).unwrap();
    let modes = |flags: &[&str]| -> BTreeMap<String, (u32, u64)> {
        let image = bench.image(flags);
        let entries = project_layer(&image).entries.iter();
        entries.map(|(path, node)| (path.clone(), (node.mode, node.mtime))).collect()
    };
    let copies = ["--copy", "project:/srv/app", "--copy", "project/a:/etc/app.conf"];
    let expected = |folder, file, executable| {
        BTreeMap::from(
            [
                ("etc", (0o755, 1)),
                ("etc/app.conf", (0o644, TIME)),
                ("srv", (0o755, 1)),
                ("srv/app", (folder, TIME)),
                ("srv/app/a", (file, TIME)),
                ("srv/app/b", (file, TIME)),
                ("srv/app/run", (executable, TIME)),
            ]
            .map(|(path, node)| (path.to_owned(), node)),
        )
    };
    assert_eq!(modes(&copies), expected(0o755, 0o644, 0o755));
    assert_eq!(modes(&[&copies[..], &["--group-write"]].concat()), expected(0o775, 0o664, 0o775));
    // To the prefix, as its packages' files.
    let image = bench.image(&["--copy", &format!("project:/{PREFIX}/share/app"), "--group-write"]);
    let tree = image.tree();
    assert_eq!(tree[&format!("{PREFIX}/share/app")].mode, 0o775);
    assert_eq!(tree[&format!("{PREFIX}/share/app/a")].mode, 0o664);
}

#[test]
fn places_that_are_others_are_refused() {
    let bench = Bench::new();
    bench.write(&["a", "sub/b", "wh/.wh.x"]);
    let engines = "container engines put something else over it";
    for (copies, says) in [
        (&["project/sub:/proc/x"][..], engines),
        (&["project/a:/tmp/"], engines),
        (&["project/sub:/run"], engines),
        (&["project/wh:/app"], "`.wh.NAME` stands for the removal of NAME"),
        (&["project/a:/opt/conda/envs/default/conda-meta/"], "the records of the environment's packages"),
        (&["project/a:/etc/passwd"], "condaimg writes this file itself"),
        (&["project/a:/opt/conda"], "needs a folder there"),
        (&["project/a:/opt/conda/envs/default"], "needs a folder there"),
        (&["project/a:/home/conda"], "needs a folder there"),
        (&["project/sub:/app", "project/a:/app/b"], "would both be `/app/b`"),
        (&["project/sub:/app", "project/a:/app"], "project/a` is to be where `"),
        (
            &["project/a:/opt/conda/envs/default/bin/tool"],
            "project/a` would be where the package `tool-1.0-0` has `bin/tool`",
        ),
        (
            &["project/a:/opt/conda/envs/default/share"],
            "project/a` would be where the package `tool-1.0-0` has `share/tool/data`",
        ),
        (
            &["project/a:/opt/conda/envs/default/bin/tool/x"],
            "project/a` would be where the package `tool-1.0-0` has `bin/tool`",
        ),
    ] {
        let flags: Vec<&str> = copies.iter().flat_map(|copy| ["--copy", copy]).collect();
        let error = fail(&mut bench.build(&flags), 1);
        assert!(error.contains(says), "{copies:?}: {error}");
    }
    let error = fail(&mut bench.build(&["--copy", "project/a:/app/", "--max-layers", "2"]), 2);
    assert!(error.contains("`--max-layers 2` leaves no layer for project files"), "{error}");
    assert_eq!(bench.image(&["--copy", "project/a:/app/", "--max-layers", "3"]).layers.len(), 3);
}

#[test]
fn the_image_has_the_files_at_the_places_that_the_base_leads_to() {
    let workspace = Workspace::new();
    for (file, content) in [("src/app.py", "print(open('/app/data/text').read())"), ("src/data/text", "text")] {
        workspace.file(file, content);
    }
    let script = workspace.file("tool.sh", "#!/bin/sh\nexec python /app/app.py \"$@\"\n");
    fs_err::set_permissions(&script, std::fs::Permissions::from_mode(0o700)).unwrap();
    workspace.file("rootfs/bin/second", "#!/bin/sh\necho second");
    fs_err::set_permissions(workspace.path("rootfs/bin/second"), std::fs::Permissions::from_mode(0o755)).unwrap();
    workspace.file("rootfs/root/file", "");
    let layout = Layout::at(swept().join("project-base"));
    let mut build = workspace.build(&["python=3.11"]);
    build.env("CONDAIMG_CACHE_DIR", shared_cache()).args(["--output", &layout.image()]);
    succeed(build.args([
        "--copy",
        "src:/app",
        "--copy",
        "tool.sh:/bin/project-tool",
        "--copy",
        "rootfs:/",
        "--copy",
        "tool.sh:/var/tmp/",
    ]));

    let image = Image::read(layout.folder());
    let entries: Vec<&str> = project_layer(&image).entries.iter().map(|(path, _)| path.as_str()).collect();
    // The base has `bin` as a link and `root` with a mode of its own; `usr/bin` is made by all who need it.
    assert_eq!(
        entries,
        [
            "app",
            "app/data",
            "root",
            "usr/bin",
            "var/tmp",
            "app/app.py",
            "app/data/text",
            "root/file",
            "usr/bin/project-tool",
            "usr/bin/second",
            "var/tmp/tool.sh"
        ]
    );
    let names: Vec<_> = image.added().map(|layer| layer.name.clone().unwrap()).collect();
    assert_eq!(names.iter().map(String::as_str).rev().take(2).collect::<Vec<_>>(), ["environment", "project-files"]);

    let image = Engine::shared().pull(&layout.image());
    let run = |command: &[&str]| succeed(Engine::shared().run(&["--user=1000:1000"]).arg(&image).args(command));
    assert_eq!(run(&["/bin/project-tool"]), "text\n");
    assert_eq!(run(&["sh", "-c", "second; ls -ld /bin | cut -c1"]), "second\nl\n");
    assert_eq!(
        run(&["stat", "--format=%a %u:%g %y", "/app/app.py", "/root"]).lines().collect::<Vec<_>>()[0],
        "644 0:0 1980-01-02 00:00:00.000000000 +0000"
    );
    assert_eq!(run(&["stat", "--format=%a", "/root", "/var/tmp"]), "700\n1777\n");
    let zip = "import shutil; print(shutil.make_archive('/tmp/app', 'zip', '/app'))";
    assert_eq!(run(&["env", "TZ=Pacific/Honolulu", "python", "-c", zip]), "/tmp/app.zip\n");
}

#[test]
fn folders_of_the_base_stay_as_they_are() {
    let bench = Bench::new();
    bench.write(&["a"]);
    // Somebody's home, a drop box, one of a user with a large number, and what is as usual.
    let folders = [
        ("etc", 0o755, 0, 0),
        ("home/", 0o755, 0, 0),
        ("home/app", 0o700, 1000, 1000),
        ("srv/drop", 0o3777, 0, 5),
        ("srv/wide", 0o750, 3_000_000_000, 2_500_000),
        ("srv/usual", 0o755, 0, 0),
    ];
    let mut base = tar::Builder::new(Vec::new());
    for (path, mode, user, group) in folders {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_size(0);
        header.set_mode(mode);
        header.set_uid(user);
        header.set_gid(group);
        base.append_data(&mut header, path, std::io::empty()).unwrap();
    }
    let base = bench.workspace.file("base.tar", base.into_inner().unwrap());
    let mut build = bench.workspace.condaimg();
    build.args(["build", "--override-channels", "--glibc", "2.36", "--channel"]).arg(&bench.channel.folder);
    build.args(["--output", "oci:image:1", "--base", &format!("rootfs:{}", base.display())]);
    for folder in ["home/app", "srv/drop", "srv/wide", "srv/usual"] {
        build.args(["--copy", &format!("project/a:/{folder}/")]);
    }
    succeed(&mut build);
    let layout = Layout::at(bench.workspace.path("image"));
    let layers = layout.layers();
    let project = &layers[layers.len() - 2];
    let mut archive = tar::Archive::new(layout.layer(project));
    let found: Vec<(String, u32, u64, u64)> = archive
        .entries()
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.header().entry_type() == tar::EntryType::Directory)
        .map(|mut entry| {
            let ids = entry.pax_extensions().unwrap().into_iter().flatten().map(|it| {
                let it = it.unwrap();
                (it.key().unwrap().to_owned(), it.value().unwrap().to_owned())
            });
            let ids: BTreeMap<String, String> = ids.collect();
            let of = |key: &str, header: u64| ids.get(key).map_or(header, |text| text.parse().unwrap());
            let path = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
            let header = entry.header();
            let (user, group) = (of("uid", header.uid().unwrap()), of("gid", header.gid().unwrap()));
            (path, header.mode().unwrap(), user, group)
        })
        .collect();
    let expected = [
        ("home/app/", 0o700, 1000, 1000),
        ("srv/drop/", 0o3777, 0, 5),
        ("srv/usual/", 0o755, 0, 0),
        ("srv/wide/", 0o750, 3_000_000_000, 2_500_000),
    ];
    assert_eq!(found, expected.map(|(path, mode, user, group)| (path.to_owned(), mode, user, group)));
    let lock = fs_err::read_to_string(bench.workspace.path("condaimg.lock")).unwrap();
    assert!(lock.contains("srv/drop: 3777 0:5") && !lock.contains("srv/usual:"), "{lock}");
}
