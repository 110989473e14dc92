//! Project files (`--copy`, `--exclude`): what of a folder goes into an image, where, and with which bytes.

mod places;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::common::engine::{Engine, swept};
use crate::common::images::{Layout, shared_cache};
use crate::common::packages::{Channel, Package};
use crate::common::tree::{Image, Kind, Layer};
use crate::common::{Workspace, environment, fail, program, run_output, succeed};

/// The time of all project files: 1980-01-02.
const TIME: u64 = 315_619_200;
const PREFIX: &str = "opt/conda/envs/default";

/// A project in `project/` and a channel with one package.
struct Bench {
    workspace: Workspace,
    channel: Channel,
}

impl Bench {
    fn new() -> Self {
        let workspace = Workspace::new();
        let tool = Package::new("tool", "1.0").file("share/tool/data", "data").executable("bin/tool", "#!/bin/sh\n");
        let channel = Channel::of(workspace.path("channel"), [&tool]);
        workspace.file("environment.yml", environment(&["tool"]));
        Self { workspace, channel }
    }

    /// `condaimg build` on nothing.
    fn build(&self, flags: &[&str]) -> Command {
        let mut command = self.workspace.condaimg();
        command.args(["build", "--override-channels", "--base", "scratch", "--glibc", "2.36", "--channel"]);
        command.arg(&self.channel.folder).args(flags);
        command
    }

    fn image(&self, flags: &[&str]) -> Image {
        succeed(&mut self.build(flags));
        Image::read(&self.workspace.path("image"))
    }

    /// The paths below `/app` of a build that copies `project` there.
    fn copied(&self, flags: &[&str]) -> Vec<String> {
        files(project_layer(&self.image(&[&["--copy", "project:/app"], flags].concat())))
    }

    fn write(&self, files: &[&str]) {
        for file in files {
            self.workspace.file(&format!("project/{file}"), format!("{file}\n"));
        }
    }

    fn project(&self) -> PathBuf {
        self.workspace.path("project")
    }
}

fn project_layer(image: &Image) -> &Layer {
    let mut layers = image.layers.iter().filter(|layer| layer.name.as_deref() == Some("project-files"));
    let layer = layers.next().expect("a layer of project files");
    assert!(layers.next().is_none());
    layer
}

/// What is not a folder, below `/app`.
fn files(layer: &Layer) -> Vec<String> {
    let files = layer.entries.iter().filter(|(_, node)| node.kind != Kind::Directory);
    files.map(|(path, _)| path.strip_prefix("app/").expect("a path in /app").to_owned()).collect()
}

/// git in a folder, without this machine's settings but `home`'s.
fn git(folder: &Path, arguments: &[&str]) -> String {
    let mut git = program("git", "git");
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("GIT_")) {
        git.env_remove(name);
    }
    git.env("GIT_CONFIG_SYSTEM", "/dev/null").env("HOME", folder.parent().expect("a parent").join("home"));
    git.env_remove("XDG_CONFIG_HOME");
    git.args(["-c", "user.name=Somebody", "-c", "user.email=somebody@example.org", "-c", "protocol.file.allow=always"]);
    succeed(git.arg("-C").arg(folder).args(arguments))
}

/// What git says that it sees of a folder, of its submodules what is tracked there.
fn seen_by_git(folder: &Path) -> Vec<String> {
    let list = |flags: &[&str]| git(folder, &[&["ls-files", "-z"], flags].concat());
    let lists = [list(&["--others", "--exclude-standard"]), list(&["--cached", "--recurse-submodules"])];
    let names: BTreeSet<&str> = lists.iter().flat_map(|list| list.split_terminator('\0')).collect();
    names.into_iter().filter(|name| folder.join(name).exists()).map(str::to_owned).collect()
}

fn commit(folder: &Path) {
    git(folder, &["init", "--quiet"]);
    git(folder, &["add", "."]);
    git(folder, &["commit", "--quiet", "--message=All"]);
}

// ---- bytes ---------------------------------------------------------------------------------------------------

#[test]
fn two_clones_of_one_commit_make_the_same_image() {
    let bench = Bench::new();
    bench.write(&["src/app.py", "src/sub/run.sh", "src/sub/data.json", "README.md"]);
    bench.workspace.file("project/big", vec![7; 3_000_001]);
    symlink("sub/run.sh", bench.project().join("src/run")).unwrap();
    fs_err::set_permissions(bench.project().join("src/sub/run.sh"), std::fs::Permissions::from_mode(0o755)).unwrap();
    commit(&bench.project());
    let mut images = Vec::new();
    for (clone, umask, jobs, time) in [("one", "0022", "4", "2001-01-01"), ("another clone", "0077", "1", "2031-01-01")]
    {
        let folder = bench.workspace.path(clone);
        let script = "umask $0; git clone --quiet \"$1\" \"$2\" && find \"$2\" -exec touch -h -d $3 {} +";
        let mut shell = program("sh", "dash");
        let _ = program("git", "git");
        shell.args(["-c", script, umask]).arg(bench.project()).arg(&folder).arg(time);
        succeed(shell.env("HOME", bench.workspace.path("home")));
        let copy = format!("{clone}:/app");
        let flags = ["--copy", &copy, "--jobs", jobs, "--no-cache"];
        let build = bench.build(&flags);
        let mut under = Command::new("sh");
        under.args(["-c", "umask $0; exec \"$@\"", umask]).arg(build.get_program()).args(build.get_args());
        for (name, value) in build.get_envs() {
            match value {
                Some(value) => under.env(name, value),
                None => under.env_remove(name),
            };
        }
        succeed(under.current_dir(bench.workspace.path("")));
        images.push(Image::read(&bench.workspace.path("image")));
    }
    assert_eq!(images[0].digest, images[1].digest);
    let layer = project_layer(&images[0]);
    let entry = |path: &str| &layer.entries.iter().find(|(other, _)| other == path).expect(path).1;
    assert_eq!((entry("app/src/app.py").mode, entry("app/src/app.py").mtime), (0o644, TIME));
    assert_eq!((entry("app/src/sub/run.sh").mode, entry("app/src/sub/run.sh").mtime), (0o755, TIME));
    assert_eq!(entry("app/src/run").kind, Kind::Symlink("sub/run.sh".to_owned()));
    assert_eq!((entry("app/src/sub").mode, entry("app/src/sub").mtime), (0o755, TIME));
    assert_eq!(entry("app/big").content().size, 3_000_001);
}

#[test]
fn a_changed_file_moves_its_layer_alone_and_a_known_layer_is_not_made_again() {
    let bench = Bench::new();
    bench.write(&["a", "b"]);
    let metadata = bench.workspace.path("metadata.json");
    let flags = ["--copy", "project:/app", "--metadata-file", metadata.to_str().unwrap()];
    let build = || {
        let said = run_output(&mut bench.build(&flags)).stderr;
        let metadata: Value = serde_json::from_slice(&fs_err::read(&metadata).unwrap()).unwrap();
        let image = Image::read(&bench.workspace.path("image"));
        (String::from_utf8(said).unwrap(), metadata, image)
    };
    let (said, first, image) = build();
    assert!(said.contains("copied: 2 files, 4 B (project to /app)"), "{said}");
    let names: Vec<&Value> = first["layers"].as_array().unwrap().iter().map(|layer| &layer["name"]).collect();
    assert_eq!(names, ["tool", "project-files", "environment"]);
    assert_eq!((&first["layers"][1]["files"], &first["layers"][1]["new"]), (&Value::from(2), &Value::from(true)));
    assert_eq!(image.config["history"][1]["created_by"], "condaimg: project-files");

    fs_err::write(bench.project().join("a"), "A\n").unwrap();
    let (_, second, _) = build();
    let digests = |metadata: &Value| -> Vec<String> {
        metadata["layers"].as_array().unwrap().iter().map(|layer| layer["digest"].to_string()).collect()
    };
    let (before, after) = (digests(&first), digests(&second));
    assert_eq!((&before[0], &before[2]), (&after[0], &after[2]));
    assert_ne!(before[1], after[1]);
    assert_eq!(first["lock"], second["lock"]);

    // Back again: the same bytes, and nothing to do.
    fs_err::write(bench.project().join("a"), "a\n").unwrap();
    let (said, third, _) = build();
    assert_eq!((&third["digest"], &third["layers"][1]["new"]), (&first["digest"], &Value::from(false)));
    assert!(!said.lines().any(|line| line.starts_with("pack ")), "{said}");
    // A mode is content, too.
    fs_err::set_permissions(bench.project().join("a"), std::fs::Permissions::from_mode(0o700)).unwrap();
    assert_ne!(build().1["digest"], first["digest"]);
}

#[test]
fn source_date_epoch_is_not_in_the_layer() {
    let bench = Bench::new();
    bench.write(&["a"]);
    let layers = |epoch: &str| {
        let flags = ["--copy", "project:/app", "--no-cache"];
        succeed(bench.build(&flags).env("SOURCE_DATE_EPOCH", epoch));
        Image::read(&bench.workspace.path("image")).manifest["layers"].clone()
    };
    assert_eq!(layers("1"), layers("1800000000"));
}

// ---- what goes in --------------------------------------------------------------------------------------------

#[test]
fn what_git_sees_of_a_folder_goes_in() {
    let bench = Bench::new();
    let project = bench.project();
    bench.write(&[
        "a.py",
        "a.log",
        "keep.log",
        "build/out",
        "build/forced",
        "sub/b.tmp",
        "sub/b.py",
        "sub/deep/c.log",
        "lib/x/y",
        "lib/z",
        "secret.env",
        "personal.swp",
        "src/data/a.bin",
        "src/data/keep/b.bin",
        "gone",
        "ü n\ti",
        "UPPER.LOG",
    ]);
    let ignore = "*.log\n!keep.log\nbuild/\n/lib/*\n!/lib/x/\n# no rule\n\\#file\nsrc/**/*.bin\n[bad\n";
    bench.workspace.file("project/.gitignore", ignore);
    bench.workspace.file("project/sub/.gitignore", "*.tmp\n!*.log\n");
    bench.workspace.file("home/.gitconfig", "[core]\n excludesFile = ~/ignored\n");
    bench.workspace.file("home/ignored", "*.swp\n");
    // A project in a project: a submodule, and one that git leaves to itself.
    bench.workspace.file("other/inner.py", "1");
    bench.workspace.file("other/.gitignore", "*.py\n");
    commit(&bench.workspace.path("other"));
    git(&bench.workspace.path("other"), &["add", "--force", "inner.py"]);
    git(&bench.workspace.path("other"), &["commit", "--quiet", "--amend", "--message=All"]);

    commit(&project);
    fs_err::write(project.join(".git/info/exclude"), "*.env\n").unwrap();
    git(&project, &["submodule", "--quiet", "add", "../other", "vendor"]);
    git(&project, &["rm", "--quiet", "--cached", "secret.env"]);
    git(&project, &["add", "--force", "build/forced", "src/data/keep/b.bin", "sub/b.tmp"]);
    git(&project, &["commit", "--quiet", "--message=More"]);
    bench.write(&["generated.py", "new/file", "vendor/new.py"]);
    fs_err::remove_file(project.join("gone")).unwrap();
    let expected = seen_by_git(&project);
    for present in ["keep.log", "build/forced", "generated.py", "sub/deep/c.log", "lib/x/y", "vendor/inner.py"] {
        assert!(expected.contains(&present.to_owned()), "{present}: {expected:?}");
    }
    for absent in ["build/out", "secret.env", "personal.swp", "lib/z", "src/data/a.bin", "gone", "vendor/new.py"] {
        assert!(!expected.contains(&absent.to_owned()), "{absent}: {expected:?}");
    }
    assert_eq!(bench.copied(&[]), expected);

    // The index in its other forms, one of them with entries in long-range order, and a work tree beside the first.
    for arguments in [&["--index-version", "4"][..], &["--index-version", "3"], &["--split-index"]] {
        git(&project, &[&["update-index"], arguments].concat());
        assert_eq!(bench.copied(&[]), expected, "{arguments:?}");
    }
    git(&project, &["update-index", "--split-index"]);
    git(&project, &["add", "--force", "lib/z"]);
    assert!(bench.copied(&[]).contains(&"lib/z".to_owned()));
    let beside = bench.workspace.path("beside");
    git(&project, &["worktree", "add", "--quiet", beside.to_str().unwrap()]);
    let image = bench.image(&["--copy", "beside:/app", "--exclude", "vendor/"]);
    let of_beside: Vec<String> = seen_by_git(&beside).into_iter().filter(|name| !name.starts_with("vendor")).collect();
    assert_eq!(files(project_layer(&image)), of_beside);

    // A part of the work tree: the rules above it hold.
    let image = bench.image(&["--copy", "project/sub:/app"]);
    assert_eq!(files(project_layer(&image)), [".gitignore", "b.py", "b.tmp", "deep/c.log"]);
    // What git leaves out as a whole goes in as a whole when it is named.
    let image = bench.image(&["--copy", "project/build:/app"]);
    assert_eq!(files(project_layer(&image)), ["forced", "out"]);
    // A file that is named goes in, whatever git says.
    let image = bench.image(&["--copy", "project/a.log:/app/"]);
    assert_eq!(files(project_layer(&image)), ["a.log"]);
}

#[test]
fn untracked_files_are_told_and_repositories_may_use_sha256() {
    let bench = Bench::new();
    bench.write(&["tracked", "forced.log"]);
    bench.workspace.file("project/.gitignore", "*.log\n");
    git(&bench.project(), &["init", "--quiet", "--object-format=sha256"]);
    git(&bench.project(), &["add", "--force", "."]);
    bench.write(&["b", "c", "d", "e", "x.log"]);
    let output = run_output(&mut bench.build(&["--copy", "project:/app"]));
    let said = String::from_utf8(output.stderr).unwrap();
    let notice = "not tracked by git nor ignored, so copied too: `project/b`, `project/c`, `project/d` and 1 more";
    assert!(said.contains(notice), "{said}");
    assert_eq!(bench.copied(&[]), [".gitignore", "b", "c", "d", "e", "forced.log", "tracked"]);
}

#[test]
fn damaged_indexes_are_named() {
    let bench = Bench::new();
    bench.write(&["a"]);
    commit(&bench.project());
    fs_err::write(bench.project().join(".git/index"), "DIRC\0\0\0\x02\0\0\0\x09").unwrap();
    let error = fail(&mut bench.build(&["--copy", "project:/app"]), 1);
    assert!(error.contains("project/.git/index` cannot be read"), "{error}");
}

#[test]
fn rules_for_images_and_patterns_leave_out_more_and_bring_back() {
    let bench = Bench::new();
    bench.write(&[
        "a.py",
        "tests/a.py",
        "dist/app.js",
        "dist/app.map",
        "doc/a.md",
        "doc/b.md",
        "pkg/__pycache__/a.pyc",
    ]);
    bench.workspace.file("project/.gitignore", "dist/\n");
    commit(&bench.project());
    git(&bench.project(), &["add", "--force", "pkg"]);
    assert_eq!(bench.copied(&["--exclude", ".gitignore"]), ["a.py", "doc/a.md", "doc/b.md", "tests/a.py"]);

    // Beside the environment file, in the project, and in a folder of it.
    bench.workspace.file(".condaimgignore", "/project/tests/\n.*ignore\n");
    bench.workspace.file("project/.condaimgignore", "!dist/\n*.map\n*.md\n");
    bench.workspace.file("project/doc/.condaimgignore", "!b.md\n");
    assert_eq!(bench.copied(&[]), ["a.py", "dist/app.js", "doc/b.md"]);
    // Flags have the last word.
    assert_eq!(bench.copied(&["--exclude", "*.js", "--exclude", "!/doc/a.md"]), ["a.py", "doc/a.md", "doc/b.md"]);
    let lines = bench
        .build(&[])
        .env("CONDAIMG_COPY", "project:/app\n\nproject/doc:/app/other\n")
        .env("CONDAIMG_EXCLUDE", "*.js\n*.py")
        .output();
    assert!(lines.unwrap().status.success());
    let image = Image::read(&bench.workspace.path("image"));
    assert_eq!(files(project_layer(&image)), ["doc/b.md", "other/b.md"]);
    assert_eq!(
        bench.copied(&["--exclude", "!__pycache__/", "--exclude", "!*.pyc", "--exclude", "*.py"]),
        ["dist/app.js", "doc/b.md", "pkg/__pycache__/a.pyc"]
    );
}

#[test]
fn what_the_build_itself_writes_stays_out() {
    let bench = Bench::new();
    let build = || {
        let flags = [
            "--copy",
            ".:/app",
            "--exclude",
            "/home/",
            "--metadata-file",
            "metadata.json",
            "--output",
            "oci:out/image",
            "--output",
            "oci-archive:archive.tar",
            "--digest-file",
            "digest",
        ];
        succeed(&mut bench.build(&flags));
        Image::read(&bench.workspace.path("out/image"))
    };
    let first = build();
    let mut names = files(project_layer(&first));
    names.retain(|name| !name.starts_with("channel/"));
    assert_eq!(names, ["condaimg.lock", "environment.yml"]);
    assert_eq!(build().digest, first.digest);
}

#[test]
fn nothing_to_copy_is_an_error_before_anything_is_solved() {
    let bench = Bench::new();
    fs_err::create_dir_all(bench.project().join("empty")).unwrap();
    bench.workspace.file("environment.yml", environment(&["does-not-exist"]));
    for (flags, says) in [
        (&["--copy", "projekt:/app"][..], &["`projekt`, which is to be copied to `/app`, cannot be found"][..]),
        (&["--copy", "project:/app"], &["nothing in `project` is to be copied to `/app`", "holds no files"]),
        (&["--copy", "channel:/app", "--exclude", "*"], &["nothing in `channel`", "`--exclude` leave out all"]),
        (&["--copy", "channel/.git:/app"], &["cannot be found"]),
    ] {
        let error = fail(&mut bench.build(flags), 1);
        assert!(says.iter().all(|says| error.contains(says)), "{flags:?}: {error}");
    }
    for (flags, says) in [
        (&["--copy", "project"][..], "`--copy project` is not SRC:DST"),
        (&["--copy", "channel:app"], "`--copy channel:app` is not SRC:DST"),
        (&["--copy", "channel:/app/../x"], "holds `.` or `..`"),
        (&["--copy", "channel:/app", "--exclude", "[z-a]"], "`--exclude [z-a]` is no pattern"),
    ] {
        let error = fail(&mut bench.build(flags), 2);
        assert!(error.contains(says), "{flags:?}: {error}");
    }
    assert!(!bench.workspace.path("image").exists());
}

#[test]
fn links_that_lead_out_pipes_and_sockets_are_refused_by_name() {
    let bench = Bench::new();
    bench.write(&["a", "sub/b"]);
    for (target, link) in [("../a", "sub/up"), ("sub", "folder"), ("none", "nowhere")] {
        symlink(target, bench.project().join(link)).unwrap();
    }
    let image = bench.image(&["--copy", "project:/app"]);
    let tree = image.tree();
    assert_eq!(tree["app/sub/up"].kind, Kind::Symlink("../a".to_owned()));
    assert_eq!(tree["app/folder"].kind, Kind::Symlink("sub".to_owned()));
    assert!(!tree.contains_key("app/folder/b"));

    let odd = bench.project().join("odd");
    let refused = |says: &str| {
        let error = fail(&mut bench.build(&["--copy", "project:/app"]), 1);
        assert!(error.contains("project/odd` is ") && error.contains(says), "{error}");
        // What is left out does not matter.
        assert!(bench.copied(&["--exclude", "odd"]).contains(&"a".to_owned()));
        fs_err::remove_file(&odd).unwrap();
    };
    for target in ["/etc/passwd", "../channel", "sub/../../environment.yml", ".."] {
        symlink(target, &odd).unwrap();
        refused(&format!("a link to `{target}`, out of the folder"));
    }
    succeed(program("mkfifo", "coreutils").arg(&odd));
    refused("a named pipe");
    let _listener = UnixListener::bind(&odd).unwrap();
    refused("a socket");
    // A link that is named stands for what it leads to.
    symlink("project", bench.workspace.path("link")).unwrap();
    let image = bench.image(&["--copy", "link:/app", "--copy", "project/folder:/app/again", "--exclude", "up"]);
    assert!(files(project_layer(&image)).contains(&"again/b".to_owned()));
}

// ---- memory ---------------------------------------------------------------------------------------------------

#[test]
fn large_files_need_no_memory() {
    let bench = Bench::new();
    bench.write(&["a"]);
    let big = fs_err::File::create(bench.project().join("big")).unwrap();
    big.set_len(600 << 20).unwrap();
    // Far less than the file: what does not fit into this address space fails.
    let build = bench.build(&["--copy", "project:/app", "--jobs", "1"]);
    let mut limited = program("prlimit", "util-linux");
    limited.arg("--data=300000000").arg(build.get_program()).args(build.get_args());
    for (name, value) in build.get_envs() {
        match value {
            Some(value) => limited.env(name, value),
            None => limited.env_remove(name),
        };
    }
    succeed(limited.current_dir(bench.workspace.path("")));
    let metadata = Image::read(&bench.workspace.path("image"));
    assert_eq!(metadata.tree()["app/big"].content().size, 600 << 20);
}
