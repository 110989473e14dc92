//! `pip:` sections: resolved by uv beside what conda brings, pinned, built, and in images that run.

mod built;
mod bytecode;
mod git;
mod indexes;
mod sources;

use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use condaimg::util::Digest;

use crate::common::engine::{Engine, swept};
use crate::common::packages::{Channel, Format, Package};
use crate::common::pypi::{PackageIndex, Repository, project};
use crate::common::tree::Image;
use crate::common::wheels::Wheel;
use crate::common::{Workspace, example_base, example_channel, fail, program, run_output, succeed};

/// A workspace, an index, and the folder that its server serves.
struct Bench {
    workspace: Workspace,
    index: PackageIndex,
}

impl Bench {
    fn new(wheels: &[Wheel]) -> Self {
        let _ = program("uv", "uv (pip install uv)");
        let workspace = Workspace::new();
        let mut index = PackageIndex::start(workspace.path("served"));
        wheels.iter().for_each(|wheel| index.add(wheel));
        Self { workspace, index }
    }

    /// An environment.yml with Python, these conda packages, and these lines for pip.
    fn environment(&self, conda: &[&str], pip: &[&str]) {
        let conda: String = conda.iter().map(|line| format!("  - \"{line}\"\n")).collect();
        let pip: String = pip.iter().map(|line| format!("    - \"{line}\"\n")).collect();
        let text = format!("channels: [conda-forge]\ndependencies:\n  - python=3.11\n{conda}  - pip:\n{pip}");
        self.workspace.file("environment.yml", text);
    }

    /// `condaimg WORDS...` with the example channel and base, and the index as the default one.
    fn run(&self, words: &[&str]) -> Command {
        let mut command = self.workspace.condaimg();
        command.args(words).args(["--override-channels", "--channel"]).arg(example_channel());
        command.args(["--base", &format!("oci:{}:debian", example_base().display())]);
        command.env("PIP_INDEX_URL", self.index.url());
        command
    }

    fn lock(&self) -> String {
        fs_err::read_to_string(self.workspace.path("condaimg.lock")).expect("a lock")
    }

    /// `name version` of the lock's wheels.
    fn wheels(&self) -> Vec<String> {
        let locks = condaimg::lock::read(&self.workspace.path("condaimg.lock")).expect("reads").expect("a lock");
        let wheels = locks.iter().flat_map(|lock| &lock.wheels);
        wheels.map(|wheel| format!("{} {}", wheel.name, wheel.version)).collect()
    }

    /// What a build says on standard output.
    fn build(&self, more: &[&str]) -> String {
        succeed(self.run(&["build"]).args(more))
    }

    /// Runs Python code in the image that was built last.
    fn python(&self, code: &str) -> String {
        // podman makes an image's name of the folder, and those have no capitals.
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let folder = swept().join(format!("pip-{}", COUNT.fetch_add(1, Ordering::Relaxed)));
        succeed(program("cp", "coreutils").arg("-a").arg(self.workspace.path("image")).arg(&folder));
        let image = Engine::shared().pull(&format!("oci:{}", folder.display()));
        succeed(Engine::shared().run(&[]).arg(image).args(["python", "-c", code])).trim().to_owned()
    }

    fn repository(&self, name: &str) -> Repository {
        Repository::new(self.workspace.path(&format!("work-{name}")), &self.workspace.path("served"), name)
    }

    /// Forgets all that was downloaded and built.
    fn forget(&self) {
        fs_err::remove_dir_all(self.workspace.path("cache")).expect("removes");
    }
}

fn module(name: &str, version: &str) -> Wheel {
    Wheel::new(name, version).file(&format!("{}.py", name.replace('-', "_")), format!("VERSION = '{version}'\n"))
}

#[test]
fn what_conda_brings_is_taken_from_conda() {
    let bench = Bench::new(&[
        module("app", "1.0").requires(&["tzdata>=2020", "helper[fast]>=1,<2", "never; sys_platform == 'win32'"]),
        module("helper", "1.5").field("Provides-Extra: fast").requires(&["speed; extra == 'fast'"]),
        module("helper", "2.0"),
        module("speed", "0.1"),
    ]);
    bench.environment(&["python-tzdata"], &["app", "tzdata", "other; platform_machine == 'aarch64'"]);
    let digest = bench.build(&[]);
    assert_eq!(bench.wheels(), ["app 1.0", "helper 1.5", "speed 0.1"]);
    assert!(bench.index.server.seen("/simple/tzdata/").is_empty(), "the index, which lacks it, is not asked");
    let code = "import app, helper, speed, tzdata, importlib.metadata as m; print(app.VERSION, helper.VERSION, m.version('tzdata'))";
    assert!(bench.python(code).starts_with("1.0 1.5 2026"), "{}", bench.python(code));
    // From the lock: the same image on another machine, and nothing is resolved.
    let seen = bench.index.server.seen("/simple/").len();
    bench.forget();
    assert_eq!(bench.build(&["--locked"]), digest);
    assert_eq!(bench.index.server.seen("/simple/").len(), seen);
    let fetched = bench.index.server.seen("/files/").len();
    assert_eq!(bench.build(&["--locked", "--offline"]), digest);
    assert_eq!(bench.index.server.seen("/files/").len(), fetched);
}

#[test]
fn what_stands_against_conda_is_explained() {
    let bench = Bench::new(&[module("app", "1.0").requires(&["tzdata<2000"])]);
    bench.environment(&["python-tzdata"], &["app"]);
    let message = fail(&mut bench.run(&["lock"]), 1);
    assert!(message.contains("tzdata<2000") && message.contains("conda package `python-tzdata-"), "{message}");
    assert!(message.contains("environment.yml:6 asks for `app`"), "{message}");
    bench.environment(&["python-tzdata"], &["tzdata @ https://127.0.0.1:1/tzdata-2020-py3-none-any.whl"]);
    let message = fail(&mut bench.run(&["lock"]), 1);
    assert!(message.contains("environment.yml:6: `tzdata @ ") && message.contains("stands against"), "{message}");
}

#[test]
fn extras_of_conda_packages_are_pips() {
    let mut bench = Bench::new(&[module("app", "1.0").requires(&["server[fast]"]), module("speed", "0.1")]);
    // On the index it is another one, whose dependencies nobody has.
    bench.index.add(&module("server", "3.0").requires(&["missing"]));
    let mut channel = Channel::new(bench.workspace.path("channel"));
    let metadata = "Metadata-Version: 2.1\nName: Server\nVersion: 3.0\nProvides-Extra: fast\nRequires-Dist: missing-too\nRequires-Dist: speed>=0.1; extra == 'fast'\n";
    let server = Package::new("conda-server", "7").noarch_python().file("site-packages/server.py", "");
    channel.add(&server.file("site-packages/Server-3.0.dist-info/METADATA", metadata), Format::Conda);
    channel.index();
    bench.environment(&["conda-server"], &["app"]);
    let mut command = bench.run(&["lock"]);
    succeed(command.arg("--channel").arg(&channel.folder));
    assert_eq!(bench.wheels(), ["app 1.0", "speed 0.1"]);
}

#[test]
fn locks_are_sticky_and_say_what_changed() {
    let mut bench = Bench::new(&[module("one", "1.0"), module("two", "1.0")]);
    bench.workspace.file("requirements.txt", "one>=1\n-c limits.txt\n");
    bench.workspace.file("limits.txt", "two<5\n");
    bench.environment(&[], &["-r requirements.txt", "two"]);
    succeed(&mut bench.run(&["lock"]));
    let first = bench.lock();
    bench.index.add(&module("one", "2.0"));
    bench.index.add(&module("two", "2.0"));
    succeed(&mut bench.run(&["lock"]));
    succeed(bench.run(&["lock"]).arg("--check"));
    assert_eq!(bench.lock(), first);
    bench.workspace.file("limits.txt", "two<6\n");
    let message = fail(bench.run(&["lock"]).arg("--check"), 1);
    assert!(message.contains("pip: + constraint two<6, - constraint two<5"), "{message}");
    succeed(&mut bench.run(&["lock"]));
    assert_eq!(bench.wheels(), ["one 1.0", "two 1.0"]);
    let told = run_output(bench.run(&["lock"]).args(["--upgrade", "one"]));
    let told = String::from_utf8_lossy(&told.stderr).into_owned();
    assert!(told.contains("one 1.0 -> 2.0 (pip)") && !told.contains("two 1.0"), "{told}");
    succeed(bench.run(&["lock"]).arg("--upgrade"));
    assert_eq!(bench.wheels(), ["one 2.0", "two 2.0"]);
}

#[test]
fn only_wheels_that_fit_are_taken() {
    let wheel = |tags: &str| module("lib", "1.0").tags(tags);
    let mut bench = Bench::new(&[
        wheel("cp312-cp312-manylinux_2_17_x86_64"),
        wheel("cp311-cp311-manylinux_2_99_x86_64"),
        wheel("cp311-cp311-win_amd64"),
    ]);
    bench.environment(&[], &["lib"]);
    let message = fail(&mut bench.run(&["lock"]), 1);
    assert!(message.contains("lib"), "{message}");
    bench.index.add(&wheel("py3-none-any"));
    bench.index.add(&wheel("cp39-abi3-manylinux_2_17_x86_64"));
    bench.index.add(&wheel("cp311-cp311-manylinux2014_x86_64"));
    let mut command = bench.run(&["lock"]);
    succeed(command.arg("--upgrade"));
    assert!(bench.lock().contains("lib-1.0-cp311-cp311-manylinux2014_x86_64.whl"), "{}", bench.lock());
}

#[test]
fn files_must_be_what_was_hashed_and_locked() {
    let wheel = module("lib", "1.0");
    let bench = Bench::new(&[wheel.clone(), module("more", "1.0")]);
    let hash = |digest: Digest| format!("lib==1.0 --hash=sha256:{}", digest.hex());
    bench.environment(&[], &[&hash(Digest::of("other"))]);
    let message = fail(&mut bench.run(&["lock"]), 1);
    assert!(message.contains("no file of `lib 1.0`") && message.contains("hash"), "{message}");
    bench.environment(&[], &[&hash(wheel.sha256()), "more"]);
    let message = fail(&mut bench.run(&["lock"]), 1);
    assert!(message.contains("`more 1.0` has no `--hash`"), "{message}");
    bench.environment(&[], &[&hash(wheel.sha256())]);
    succeed(&mut bench.run(&["lock"]));
    // Somebody replaces the file on the server.
    let mut other = wheel.bytes();
    let last = other.len() - 1;
    other[last] ^= 1;
    let longer = module("lib", "1.0").file("x.py", "").bytes();
    let digests = [wheel.sha256(), Digest::of(&other)].map(|digest| digest.hex());
    let sizes = [wheel.bytes().len(), longer.len()].map(|size| format!("{size} bytes"));
    for (bytes, flag, both) in
        [(&other, "--locked", &digests), (&other, "--frozen", &digests), (&longer, "--locked", &sizes)]
    {
        bench.index.write(&wheel.file_name(), bytes);
        bench.forget();
        let message = fail(bench.run(&["build"]).arg(flag), 1);
        assert!(message.contains("is not the file that was locked") && message.contains("lib-1.0-py3"), "{message}");
        assert!(both.iter().all(|said| message.contains(said)), "{both:?}: {message}");
    }
}

#[test]
fn secrets_stay_secret() {
    let bench = Bench::new(&[module("lib", "1.0")]);
    bench.index.server.require("Basic bWU6aHVzaC1odXNo");
    let direct = format!("{}/files/lib-1.0-py3-none-any.whl", bench.index.server.url);
    for lines in [
        vec![format!("--index-url {}", bench.index.url_with("me:hush-hush")), "lib".to_owned()],
        vec![format!("--index-url {}", bench.index.url_with("me:${INDEX_PASSWORD}")), "lib".to_owned()],
        vec![format!("lib @ {}", direct.replace("://", "://me:hush-hush@"))],
    ] {
        let _ = fs_err::remove_file(bench.workspace.path("condaimg.lock"));
        bench.environment(&[], &lines.iter().map(String::as_str).collect::<Vec<_>>());
        let run = |words: &[&str]| {
            let mut command = bench.run(words);
            command.env("INDEX_PASSWORD", "hush-hush").env_remove("PIP_INDEX_URL");
            let output = run_output(command.arg("-v"));
            let said = [output.stdout, output.stderr].concat();
            assert!(!String::from_utf8_lossy(&said).contains("hush-hush"), "{}", String::from_utf8_lossy(&said));
        };
        run(&["lock"]);
        assert!(!bench.lock().contains("hush"), "{}", bench.lock());
        bench.forget();
        run(&["build", "--locked"]);
    }
    bench.environment(&[], &[&format!("--index-url {}", bench.index.url_with("me:wrong-wrong")), "lib"]);
    let message = fail(bench.run(&["lock", "--upgrade"]).env_remove("PIP_INDEX_URL"), 1);
    assert!(!message.contains("wrong-wrong") && message.contains("401"), "{message}");
}

#[test]
fn repositories_are_pinned_to_a_commit() {
    let bench = Bench::new(&[module("lib", "1.0")]);
    let repository = bench.repository("tool");
    project(&repository.work, "tool", "1.5", &["lib"], "first");
    let first = repository.commit(Some("v1"));
    let line = format!("git+{}/tool.git@v1", bench.index.server.url);
    bench.environment(&[], &[&line]);
    let message = fail(&mut bench.run(&["lock"]), 1);
    assert!(message.contains("tool.git") && message.contains("--allow-build"), "{message}");
    let digest = bench.build(&["--allow-build"]);
    assert_eq!(bench.wheels(), ["lib 1.0", "tool 1.5"]);
    assert!(bench.lock().contains(&first), "{}", bench.lock());
    assert_eq!(bench.python("import tool; print(tool.VALUE)"), "first");
    // Where nothing is known, what a lock has needs no flag.
    bench.forget();
    assert_eq!(bench.build(&["--locked"]), digest);
    // The tag moves; the lock stands.
    project(&repository.work, "tool", "1.5", &["lib"], "second");
    let second = repository.commit(Some("v1"));
    assert_eq!(bench.build(&["--locked"]), digest);
    bench.environment(&[], &[&line, "lib"]);
    succeed(&mut bench.run(&["lock"]));
    assert!(bench.lock().contains(&first));
    let told = run_output(bench.run(&["lock"]).args(["--upgrade", "tool", "--allow-build"]));
    let told = String::from_utf8_lossy(&told.stderr).into_owned();
    assert!(told.contains(&format!("commit {first} -> commit {second}")), "{told}");
    bench.build(&["--locked"]);
    assert_eq!(bench.python("import tool; print(tool.VALUE)"), "second");
    // A lock edited by hand.
    let locked = bench.lock().replace(&second, &first);
    bench.workspace.file("condaimg.lock", locked);
    bench.forget();
    let message = fail(bench.run(&["build"]).arg("--locked"), 1);
    assert!(message.contains("was edited by hand"), "{message}");
}

#[test]
fn folders_are_pinned_by_their_content() {
    let bench = Bench::new(&[]);
    let folder = bench.workspace.path("lib");
    project(&folder, "local_lib", "1.0", &[], "first");
    bench.environment(&[], &["-e ./lib"]);
    let told = run_output(bench.run(&["build"]).arg("--allow-build"));
    let told = String::from_utf8_lossy(&told.stderr).into_owned();
    assert!(told.contains("`-e` is installed as a normal package"), "{told}");
    assert_eq!(bench.python("import local_lib; print(local_lib.VALUE)"), "first");
    fs_err::write(folder.join(".gitignore"), "*.log\n").expect("writes");
    let message = fail(bench.run(&["build"]).arg("--locked"), 1);
    assert!(message.contains("pip: + ./lib (content "), "{message}");
    succeed(bench.run(&["lock"]).arg("--allow-build"));
    fs_err::write(folder.join("x.log"), "").expect("writes");
    succeed(bench.run(&["lock"]).arg("--check"));
    assert!(!folder.join("build").exists() && !folder.join("__pycache__").exists(), "building leaves nothing behind");
}

#[test]
fn source_archives_are_built_where_no_wheel_fits() {
    let mut bench = Bench::new(&[]);
    let folder = bench.workspace.path("old_lib-1.0");
    project(&folder, "old_lib", "1.0", &[], "sdist");
    fs_err::write(folder.join("PKG-INFO"), "Metadata-Version: 2.2\nName: old_lib\nVersion: 1.0\n").expect("writes");
    let archive = bench.workspace.path("old_lib-1.0.tar.gz");
    let mut tar = program("tar", "tar");
    succeed(tar.arg("-C").arg(bench.workspace.path("")).arg("-czf").arg(&archive).arg("old_lib-1.0"));
    bench.index.add_file("old-lib", "old_lib-1.0.tar.gz", &fs_err::read(&archive).expect("reads"));
    bench.environment(&[], &["old-lib"]);
    let message = fail(&mut bench.run(&["lock"]), 1);
    assert!(message.contains("--allow-build") && message.contains("old"), "{message}");
    let digest = bench.build(&["--allow-build"]);
    assert_eq!(bench.python("import old_lib; print(old_lib.VALUE)"), "sdist");
    bench.forget();
    assert_eq!(bench.build(&["--locked"]), digest);
    // A lock that is made anew keeps what it has, and the store has its wheel.
    bench.environment(&[], &["old-lib>=1"]);
    succeed(&mut bench.run(&["lock"]));
    assert_eq!(bench.wheels(), ["old-lib 1.0"]);
}

/// The environment.yml of a CI story: Python pinned, a package of a certain channel, pip with a range and a repository.
#[test]
fn an_everyday_environment_builds_and_runs() {
    let bench = Bench::new(&[module("metrics", "1.4"), module("metrics", "2.0")]);
    let repository = bench.repository("tracker");
    project(&repository.work, "tracker", "0.3", &["metrics>=1"], "tracked");
    repository.commit(Some("v0.3"));
    let mut channel = Channel::new(bench.workspace.path("special"));
    channel.add(&Package::new("solver", "1.12.0").file("share/solver", "fast"), Format::Conda);
    channel.index();
    let text = format!(
        "name: ci\nchannels: [{}]\ndependencies:\n  - python=3.11.2\n  - {}::solver=1.12.0\n  - pip\n  - pip:\n    - metrics>=1.2,<2\n    - tracker @ git+{}/tracker.git@v0.3\n",
        example_channel().display(),
        channel.folder.display(),
        bench.index.server.url
    );
    bench.workspace.file("environment.yml", text.replace("  - pip\n  - pip:", "  - pip:"));
    let mut build = bench.workspace.condaimg();
    build.args(["build", "--allow-build", "--base", &format!("oci:{}:debian", example_base().display())]);
    succeed(build.env("PIP_INDEX_URL", bench.index.url()));
    assert_eq!(bench.wheels(), ["metrics 1.4", "tracker 0.3"]);
    let code = "import metrics, tracker, sys; print(metrics.VERSION, tracker.VALUE, open(sys.prefix + '/share/solver').read())";
    assert_eq!(bench.python(code), "1.4 tracked fast");
}

#[test]
fn without_uv_it_is_said_how_to_get_it() {
    let bench = Bench::new(&[module("lib", "1.0")]);
    bench.environment(&[], &["lib"]);
    let message = fail(bench.run(&["lock"]).env("PATH", "/nonexistent"), 1);
    assert!(message.contains("there is no `uv` in PATH") && message.contains("pip install uv"), "{message}");
}
