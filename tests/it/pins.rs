//! What others pinned is built as it is: pixi.lock, conda-lock.yml, `@EXPLICIT`, `conda env export`.

mod combined;
mod forms;
mod real;
mod wheels;

use std::path::Path;
use std::process::Command;

use rattler_lock::LockFile;
use serde_json::Value;

use crate::common::engine::{Engine, swept};
use crate::common::file_server::{FaultKind, FileServer};
use crate::common::packages::{Channel, Format, Package};
use crate::common::{Workspace, environment, example_base, example_channel, fail, run_output, succeed};

/// A channel on a server, and a lock that was solved from it.
struct Bench {
    workspace: Workspace,
    channel: Channel,
    server: FileServer,
}

impl Bench {
    fn new() -> Self {
        let workspace = Workspace::new();
        let mut channel = Channel::new(workspace.path("served/channel"));
        channel.add(&Package::new("app", "1.0").depends(&["lib >=1", "tool"]).file("share/app", "app"), Format::Conda);
        channel.add(&Package::new("lib", "1.2").build("h1_3", 3).file("lib/lib.so", "lib"), Format::TarBz2);
        channel.add(&Package::new("tool", "2.0").noarch_generic().file("bin/tool", "tool"), Format::Conda);
        channel.index();
        let server = FileServer::start(workspace.path("served"));
        let bench = Self { workspace, channel, server };
        bench.workspace.file("environment.yml", environment(&["app=1"]).replace("conda-forge", &bench.url()));
        succeed(&mut bench.condaimg("lock"));
        bench
    }

    fn url(&self) -> String {
        format!("{}/channel", self.server.url)
    }

    fn condaimg(&self, command: &str) -> Command {
        let mut program = self.workspace.condaimg();
        program.args([command, "--base", "scratch", "--glibc", "2.36"]);
        program
    }

    /// The lock of environment.yml in another form, in a file.
    fn export(&self, form: &str, file: &str) -> String {
        let text = succeed(self.condaimg("lock").args(["--export", form]));
        self.workspace.file(file, &text);
        text
    }

    /// The index is gone, and nobody has it in a cache.
    fn without_index(&self) {
        for subdir in ["linux-64", "noarch"] {
            fs_err::remove_file(self.channel.folder.join(subdir).join("repodata.json")).expect("removes");
        }
        self.forget_cache();
    }

    fn forget_cache(&self) {
        let _ = fs_err::remove_dir_all(self.workspace.path("cache"));
    }

    /// Digest and layer keys of what a file builds to.
    fn built(&self, file: &str) -> (String, Vec<String>) {
        let _ = fs_err::remove_dir_all(self.workspace.path("out"));
        let digest = succeed(self.condaimg("build").args([file, "--output", "oci:out"]));
        (digest, keys(&self.workspace.path("out")))
    }
}

/// The keys of the layers of a layout's image but for the last, which is the environment's.
fn keys(layout: &Path) -> Vec<String> {
    let json = |path: &Path| -> Value { serde_json::from_slice(&fs_err::read(path).expect("is there")).expect("JSON") };
    let index = json(&layout.join("index.json"));
    let digest = index["manifests"][0]["digest"].as_str().expect("a digest").replace(':', "/");
    let manifest = json(&layout.join("blobs").join(digest));
    let key = |layer: &Value| Some(layer["annotations"]["dev.condaimg.layer.key"].as_str()?.to_owned());
    manifest["layers"].as_array().expect("layers").iter().filter_map(key).collect()
}

/// What a command that succeeds says to people.
fn notices(command: &mut Command) -> String {
    String::from_utf8(run_output(command).stderr).expect("UTF-8")
}

#[test]
fn exports_build_to_the_same_layers() {
    let bench = Bench::new();
    let (_, expected) = bench.built("environment.yml");
    let explicit = bench.export("explicit", "explicit.txt");
    // As `conda list --explicit --md5` has it.
    let by_md5 = explicit.lines().map(|line| match line.split_once('#') {
        Some((url, _)) if !url.is_empty() => {
            let name = ["app", "lib", "tool"].into_iter().find(|name| url.contains(&format!("/{name}-")));
            let md5 = bench.channel.record(name.expect("a package")).package_record.md5.expect("an md5");
            format!("{url}#{}\n", hex::encode(md5))
        }
        _ => format!("{line}\n"),
    });
    bench.workspace.file("by-md5.txt", by_md5.collect::<String>());
    bench.export("conda-lock", "conda-lock.yml");
    bench.export("pixi", "pixi.lock");
    let forms = ["explicit.txt", "by-md5.txt", "conda-lock.yml", "pixi.lock"];
    for file in forms {
        bench.forget_cache();
        let (_, keys) = bench.built(file);
        // The history in the environment's layer says what was asked for, which only explicit files keep.
        let same = if file.ends_with(".txt") { expected.len() } else { expected.len() - 1 };
        assert_eq!(keys[..same], expected[..same], "{file}");
    }
    // Nobody has the index any more: the archives say the same.
    bench.without_index();
    for file in forms {
        fs_err::remove_file(
            bench
                .workspace
                .path(&file.replace(".txt", ".lock").replace(".yml", ".lock").replace(".lock", ".condaimg.lock")),
        )
        .expect("is there");
        bench.forget_cache();
        let (_, keys) = bench.built(file);
        let same = if file.ends_with(".txt") { expected.len() } else { expected.len() - 1 };
        assert_eq!(keys[..same], expected[..same], "{file} without an index");
    }
    let told = notices(bench.condaimg("lock").args(["explicit.txt", "--lock-file", "other.lock"]));
    assert!(told.contains("the index of") && told.contains("from their archives"), "{told}");
}

#[test]
fn a_changed_file_makes_the_lock_stale() {
    let bench = Bench::new();
    let text = bench.export("explicit", "explicit.txt");
    let lock = || fs_err::read_to_string(bench.workspace.path("explicit.condaimg.lock")).expect("a lock");
    succeed(bench.condaimg("lock").arg("explicit.txt"));
    let first = lock();
    LockFile::from_path(&bench.workspace.path("explicit.condaimg.lock")).expect("is a pixi.lock");
    // Nothing is asked of anybody.
    bench.server.fault("", usize::MAX, FaultKind::Status(404));
    succeed(bench.condaimg("lock").args(["explicit.txt", "--check"]));
    succeed(bench.condaimg("build").args(["explicit.txt", "--locked"]));
    succeed(bench.condaimg("build").args(["explicit.txt", "--frozen", "--offline"]));
    assert_eq!(lock(), first);

    bench.workspace.file(
        "explicit.txt",
        text.lines().filter(|line| !line.contains("/tool-")).map(|line| format!("{line}\n")).collect::<String>(),
    );
    for (command, flag) in [("lock", "--check"), ("build", "--locked")] {
        let message = fail(bench.condaimg(command).args(["explicit.txt", flag]), 1);
        assert!(message.contains("is stale") && message.contains("- tool-2.0-0.conda"), "{message}");
    }
    let told = notices(bench.condaimg("lock").args(["explicit.txt", "--offline"]));
    assert!(told.contains("lock: - tool 2.0 0"), "{told}");
    assert!(told.contains("`app` needs `tool`, which is not there"), "{told}");
    // Options of a solver.
    for flags in [&["--upgrade"][..], &["--exclude-newer", "2020-01-01"]] {
        let message = fail(bench.condaimg("lock").arg("explicit.txt").args(flags), 2);
        assert!(message.contains("pins every package"), "{message}");
    }
}

#[test]
fn what_the_server_sends_must_be_what_was_pinned() {
    let mut bench = Bench::new();
    bench.export("explicit", "explicit.txt");
    bench.export("conda-lock", "conda-lock.yml");
    bench.export("pixi", "pixi.lock");
    let other = Package::new("app", "1.0").depends(&["lib >=1", "tool"]).file("share/app", "other");
    bench.channel.add(&other, Format::Conda);
    bench.channel.index();
    for file in ["explicit.txt", "conda-lock.yml", "pixi.lock"] {
        bench.forget_cache();
        let message = fail(bench.condaimg("build").arg(file), 1);
        let expected = "`app-1.0-0.conda` is not the archive that was pinned: its s";
        assert!(message.contains(expected), "{file}: {message}");
    }
    // Without a hash it is what there is, and the lock says what that was.
    let bare = format!("@EXPLICIT\n{}/noarch/tool-2.0-0.conda\n", bench.url());
    bench.workspace.file("bare.txt", bare);
    let told = notices(bench.condaimg("lock").arg("bare.txt"));
    assert!(told.contains("1 of 1 package pinned by URL alone"), "{told}");
    let lock = fs_err::read_to_string(bench.workspace.path("bare.condaimg.lock")).expect("a lock");
    let digest = bench.channel.record("tool").package_record.sha256.expect("a hash");
    assert!(lock.contains(&hex::encode(digest)), "{lock}");
}

#[test]
fn files_for_other_platforms_are_refused() {
    let bench = Bench::new();
    let explicit = bench.export("explicit", "explicit.txt");
    let refused = |file: &str, flags: &[&str], status: i32| {
        let message = fail(bench.condaimg("lock").arg(file).args(flags), status);
        assert!(!message.contains("defect"), "{message}");
        message
    };
    let message = refused("explicit.txt", &["--platform", "linux/arm64"], 1);
    assert!(message.contains("is for linux-64") && message.contains("`--platform linux/amd64`"), "{message}");
    bench.workspace.file("windows.txt", explicit.replace("platform: linux-64", "platform: win-64"));
    let message = refused("windows.txt", &[], 1);
    assert!(message.contains("is for win-64") && message.contains("images are for Linux"), "{message}");
    // Without the comment, the URLs tell.
    bench
        .workspace
        .file("bare.txt", explicit.replace("# platform: linux-64", "").replace("/linux-64/", "/linux-aarch64/"));
    assert!(refused("bare.txt", &[], 1).contains("is for linux-aarch64"));
    bench.workspace.file("mixed.txt", explicit.replace("/linux-64/lib", "/linux-aarch64/lib"));
    assert!(refused("mixed.txt", &[], 1).contains("which is a package of linux-aarch64"));
    for form in ["pixi", "conda-lock"] {
        bench.export(form, "other.yml");
        let message = refused("other.yml", &["--platform", "linux/arm64"], 1);
        assert!(
            message.contains("has nothing for linux-aarch64") && message.contains("it is for linux-64"),
            "{message}"
        );
    }
}

#[test]
fn what_is_broken_is_told() {
    let bench = Bench::new();
    let (pixi, conda_lock) = (bench.export("pixi", "pixi.lock"), bench.export("conda-lock", "conda-lock.yml"));
    let explicit = bench.export("explicit", "explicit.txt");
    let refused = |name: &str, text: &str, expected: &str| {
        bench.workspace.file(name, text);
        let message = fail(bench.condaimg("lock").args([name, "--lock-file", "x.lock"]), 1);
        assert!(message.contains(name) && message.contains(expected), "{expected}: {message}");
    };
    refused("pixi.lock", &pixi[..pixi.len() / 2], "is no pixi.lock that can be read");
    refused("pixi.lock", "", "is no pixi.lock that can be read");
    refused("pixi.lock", &pixi.replacen("version: 7", "version: 700", 1), "is no pixi.lock that can be read");
    refused("conda-lock.yml", &conda_lock[..conda_lock.len() - 200], "is no conda-lock.yml that can be read");
    refused("conda-lock.yml", &conda_lock.replacen("name: lib", "name: lob", 1), "its URL is that of lib 1.2");
    refused("explicit.txt", &explicit[..explicit.len() - 10], "is no hash");
    refused(
        "explicit.txt",
        &format!("{explicit}{}/noarch/tool-2.1-0.conda\n", bench.url()),
        "pins the package `tool` twice",
    );
    refused("notes.md", "# Notes", "is none of the files");
    let message = fail(bench.condaimg("lock").args(["environment.yml", "--environment", "test"]), 2);
    assert!(message.contains("is one environment"), "{message}");
    // What an archive says of itself counts.
    let url = bench.url();
    fs_err::copy(
        bench.channel.folder.join("noarch/tool-2.0-0.conda"),
        bench.channel.folder.join("noarch/toll-2.0-0.conda"),
    )
    .expect("copies");
    refused("lies.txt", &format!("@EXPLICIT\n{url}/noarch/toll-2.0-0.conda\n"), "");
}

#[test]
fn packages_must_run_on_the_target() {
    let workspace = Workspace::new();
    let mut channel = Channel::new(workspace.path("channel"));
    channel.add(&Package::new("new", "1").depends(&["__glibc >=2.38,<3.0.a0"]).file("a", "a"), Format::Conda);
    channel.add(&Package::new("gpu", "1").depends(&["__cuda >=12"]).file("b", "b"), Format::Conda);
    channel.index();
    let lock = |package: &str, flags: &[&str]| {
        workspace.file("explicit.txt", format!("@EXPLICIT\n{}linux-64/{package}-1-0.conda\n", channel.url()));
        let mut command = workspace.condaimg();
        command.args(["lock", "explicit.txt", "--base", "scratch"]).args(flags);
        command
    };
    let message = fail(&mut lock("new", &["--glibc", "2.36"]), 1);
    assert!(message.contains("`__glibc >=2.38,<3.0.a0` (new)") && message.contains("`--glibc VERSION`"), "{message}");
    let message = fail(&mut lock("gpu", &["--glibc", "2.36"]), 1);
    assert!(message.contains("`__cuda >=12` (gpu)") && message.contains("`--cuda VERSION`"), "{message}");
    succeed(&mut lock("new", &["--glibc", "2.39"]));
    succeed(&mut lock("gpu", &["--glibc", "2.36", "--cuda", "12.4"]));
}

#[test]
fn environments_and_categories_are_chosen() {
    let bench = Bench::new();
    let pixi = bench.export("pixi", "pixi.lock");
    let names = |file: &str, flags: &[&str]| {
        succeed(bench.condaimg("lock").args([file, "--lock-file", "x.lock"]).args(flags));
        let locks = LockFile::from_path(&bench.workspace.path("x.lock")).expect("a lock");
        locks.packages().iter().map(|package| package.name().to_string()).collect::<Vec<_>>().join(" ")
    };
    // A second environment with one package of the first.
    let only = pixi.lines().find(|line| line.contains("/tool-")).expect("a package").trim();
    let second = pixi.replacen(
        "environments:\n",
        &format!(
            "environments:\n  test:\n    channels:\n    - url: {}/\n    packages:\n      linux-64:\n      {only}\n",
            bench.url()
        ),
        1,
    );
    bench.workspace.file("pixi.lock", &second);
    assert_eq!(names("pixi.lock", &[]), "app lib tool");
    assert_eq!(names("pixi.lock", &["--environment", "test"]), "tool");
    let message = fail(bench.condaimg("lock").args(["pixi.lock", "--environment", "prod"]), 1);
    assert!(message.contains("has no environment `prod`") && message.contains("one of default, test"), "{message}");

    let conda_lock = bench.export("conda-lock", "conda-lock.yml");
    let lib = conda_lock.split("\n- ").find(|package| package.contains("name: lib\n")).expect("is there");
    let changed = conda_lock.replace(lib, &lib.replace("category: main", "category: dev"));
    bench.workspace.file("conda-lock.yml", &changed);
    assert_eq!(names("conda-lock.yml", &[]), "app tool");
    assert_eq!(names("conda-lock.yml", &["--environment", "dev"]), "app lib tool");
    let message = fail(bench.condaimg("lock").args(["conda-lock.yml", "--environment", "prod"]), 1);
    assert!(message.contains("has no category `prod`") && message.contains("it has dev, main"), "{message}");
}

#[test]
fn a_manifest_stands_for_the_lock_beside_it() {
    let bench = Bench::new();
    let folder = |name: &str| bench.workspace.path(name).display().to_string();
    bench.workspace.file("p/pixi.toml", "[workspace]\nname = \"p\"\n");
    let message = fail(bench.condaimg("lock").arg(folder("p/pixi.toml")), 1);
    assert!(message.contains("there is no pixi.lock beside") && message.contains("`pixi lock` makes it"), "{message}");
    bench.export("pixi", "p/pixi.lock");
    bench.workspace.file("p/pyproject.toml", "[project]\nname = \"p\"\n");
    assert!(fail(bench.condaimg("lock").arg(folder("p/pyproject.toml")), 1).contains("has no `[tool.pixi]`"));
    bench.workspace.file("p/pyproject.toml", "[tool.pixi.workspace]\nchannels = []\n");
    for path in ["p/pixi.toml", "p/pyproject.toml", "p"] {
        succeed(bench.condaimg("lock").arg(folder(path)));
        fs_err::remove_file(bench.workspace.path("p/pixi.condaimg.lock")).expect("a lock beside it");
    }
}

#[test]
fn credentials_of_a_file_stay_in_the_file() {
    let bench = Bench::new();
    let explicit = bench.export("explicit", "explicit.txt");
    bench.forget_cache();
    bench.server.require("Basic bWU6aHVzaC1odXNo");
    bench.workspace.file("explicit.txt", explicit.replace("http://", "http://me:hush-hush@"));
    let output = run_output(bench.condaimg("build").args(["explicit.txt", "--output", "oci:out", "-v"]));
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let lock = fs_err::read_to_string(bench.workspace.path("explicit.condaimg.lock")).expect("a lock");
    assert!(!said.contains("hush-hush") && !lock.contains("hush-hush"), "{said}{lock}");
    bench.workspace.file("explicit.txt", explicit);
    bench.forget_cache();
    let message = fail(bench.condaimg("build").args(["explicit.txt", "--lock-file", "y.lock"]), 1);
    assert!(message.contains("401") || message.contains("credentials"), "{message}");
}

#[test]
fn pinned_environments_run() {
    let workspace = Workspace::new();
    succeed(&mut workspace.build(&["python=3.11", "click"]));
    let export = |form: &str| succeed(workspace.condaimg().args(["lock", "--export", form]));
    let forms = [("explicit", "explicit.txt"), ("pixi", "pixi.lock"), ("conda-lock", "conda-lock.yml")];
    for (form, file) in forms {
        workspace.file(file, export(form));
    }
    // As `conda env export` writes it, with builds and without.
    let lock = LockFile::from_path(&workspace.path("condaimg.lock")).expect("a lock");
    let platform = lock.platform("linux-64").expect("a platform");
    let records = lock.default_environment().expect("one").conda_repodata_records(platform).expect("records");
    let lines = |builds: bool| -> String {
        let line = |record: &rattler_lock::RepoDataRecord| {
            let package = &record.package_record;
            let build = if builds { format!("={}", package.build) } else { String::new() };
            format!("  - {}={}{build}\n", package.name.as_normalized(), package.version)
        };
        records.iter().flatten().map(line).collect()
    };
    for (builds, file) in [(true, "exported.yml"), (false, "no-builds.yml")] {
        let text =
            format!("name: x\nchannels:\n  - conda-forge\ndependencies:\n{}prefix: /home/me/envs/x\n", lines(builds));
        workspace.file(file, text);
    }
    workspace.file("p/pixi.lock", export("pixi"));
    workspace.file("p/pixi.toml", "[workspace]\nname = \"p\"\n");
    workspace.file("inline.condaimg.yaml", "dependencies: [python=3.11, click]\n");
    // As `conda list --explicit --md5` has it.
    let md5 = records.iter().flatten().map(|record| {
        format!("{}#{}\n", record.url, hex::encode(record.package_record.md5.expect("the channel has it")))
    });
    workspace.file("by-md5.txt", format!("@EXPLICIT\n{}", md5.collect::<String>()));
    let base = format!("oci:{}:debian", example_base().display());
    let forms = ["explicit.txt", "by-md5.txt", "pixi.lock", "p/pixi.toml", "conda-lock.yml", "condaimg.lock"];
    for file in forms.into_iter().chain(["exported.yml", "no-builds.yml", "inline.condaimg.yaml"]) {
        // podman makes image names of folders, and those have no capitals.
        let out = swept().join(format!("pinned-{}", file.replace(['.', '/'], "-")));
        let mut build = workspace.condaimg();
        build.args(["build", file, "--base", &base, "--output", &format!("oci:{}", out.display())]);
        if !forms.contains(&file) {
            build.args(["--override-channels", "--channel"]).arg(example_channel());
        }
        succeed(&mut build);
        let engine = Engine::shared();
        let image = engine.pull(&format!("oci:{}", out.display()));
        let printed =
            succeed(engine.run(&[]).args([image.as_str(), "python", "-c", "import click; print(click.__name__)"]));
        assert_eq!(printed.trim(), "click", "{file}");
        // Byte for byte the packages of the first.
        let first = keys(&workspace.path("image"));
        assert_eq!(keys(&out)[..first.len() - 1], first[..first.len() - 1], "{file}");
    }
}

#[test]
fn a_lock_is_an_input_itself() {
    let bench = Bench::new();
    let (digest, expected) = bench.built("environment.yml");
    fs_err::create_dir(bench.workspace.path("elsewhere")).expect("a folder");
    let lock = bench.workspace.path("elsewhere/team.lock");
    fs_err::rename(bench.workspace.path("condaimg.lock"), &lock).expect("moves");
    let text = fs_err::read_to_string(&lock).expect("a lock");
    let build = |lock: &Path, flags: &[&str]| {
        let _ = fs_err::remove_dir_all(bench.workspace.path("out"));
        let mut build = bench.workspace.condaimg();
        build.arg("build").arg(lock).args(["--output", "oci:out"]).args(flags);
        build
    };
    // Base and platform are the lock's.
    assert_eq!(succeed(&mut build(&lock, &[])), digest);
    assert_eq!(keys(&bench.workspace.path("out")), expected);
    assert_eq!(fs_err::read_to_string(&lock).expect("a lock"), text, "it stays as it is");
    let message = fail(&mut build(&lock, &["--platform", "linux/arm64"]), 1);
    assert!(message.contains("has nothing for linux/arm64"), "{message}");
    let message = fail(bench.workspace.condaimg().arg("lock").arg(&lock), 2);
    assert!(message.contains("is a lock already"), "{message}");
    assert!(
        succeed(bench.workspace.condaimg().args(["lock", "--export", "explicit"]).arg(&lock))
            .contains("/app-1.0-0.conda#")
    );
    bench.workspace.file("elsewhere/broken.lock", text.replace("sha256: ", "sha256: 00"));
    assert!(fail(&mut build(&bench.workspace.path("elsewhere/broken.lock"), &[]), 1).contains("cannot be used"));

    // The lock of an image knows how the image was made.
    let flags =
        ["--prefix", "/opt/other", "--compression", "zstd:3", "--env", "A=1", "--user", "7:0", "--max-layers", "3"];
    let mut first = build(&lock, &flags);
    let digest = succeed(first.env("SOURCE_DATE_EPOCH", "1700000000"));
    let locks = condaimg::lock::read(&lock).expect("reads").expect("is there");
    let parameters = condaimg::model::Parameters {
        prefix: "/opt/other".to_owned(),
        compression: "zstd:3".parse().expect("a codec"),
        bytecode: true,
        group_write: false,
        keep_setuid: false,
        layers: condaimg::plan::Policy::named("default").expect("a policy").canonical().expect("a text"),
        max_layers: 3,
        source_date_epoch: Some(1_700_000_000),
        no_activation: false,
        image: condaimg::model::ImageOptions {
            user: Some("7:0".parse().expect("a user")),
            env: [("A".to_owned(), "1".to_owned())].into(),
            ..Default::default()
        },
    };
    let attached = condaimg::lock::normalised(locks.iter().next().expect("one"), &parameters).expect("renders");
    let attached = bench.workspace.file("attached.lock", attached);
    assert_eq!(succeed(&mut build(&attached, &[])), digest);
    assert_ne!(succeed(&mut build(&attached, &["--prefix", "/opt/third"])), digest, "flags come first");
}
