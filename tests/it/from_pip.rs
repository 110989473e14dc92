//! pip packages on top of an org base image (`--from`): what the base brings, by conda or by pip, takes part in the
//! resolution and stays as it is.

use std::process::Command;

use serde_json::Value;

use crate::common::engine::Engine;
use crate::common::images::{digests, json, skopeo};
use crate::common::packages::{Channel, Format, Package};
use crate::common::pypi::{PackageIndex, project};
use crate::common::registry::{LocalRegistry, Mode};
use crate::common::wheels::Wheel;
use crate::common::{Workspace, example_base, example_channel, fail, program, run_output, succeed};

/// A registry with a base, an index, and the machine of a project, which has nothing yet.
struct Bench {
    registry: LocalRegistry,
    index: PackageIndex,
    /// Of the platform team.
    org: Workspace,
    project: Workspace,
    base: String,
}

fn module(name: &str, version: &str) -> Wheel {
    Wheel::new(name, version).file(&format!("{}.py", name.replace('-', "_")), format!("VERSION = '{version}'\n"))
}

fn environment(conda: &[&str], pip: &[&str]) -> String {
    let list =
        |lines: &[&str], indent: &str| lines.iter().map(|it| format!("{indent}- \"{it}\"\n")).collect::<String>();
    let pip = if pip.is_empty() { String::new() } else { format!("  - pip:\n{}", list(pip, "    ")) };
    let none = if conda.is_empty() && pip.is_empty() { " []" } else { "" };
    format!("channels: [conda-forge]\ndependencies:{none}\n{}{pip}", list(conda, "  "))
}

impl Bench {
    fn new(wheels: &[Wheel]) -> Self {
        let _ = program("uv", "uv (pip install uv)");
        let registry = LocalRegistry::start(Mode::Plain);
        let (org, project) = (Workspace::new(), Workspace::new());
        let mut index = PackageIndex::start(org.path("served"));
        wheels.iter().for_each(|wheel| index.add(wheel));
        let base = format!("{}/org/py311:1", registry.host());
        Self { registry, index, org, project, base }
    }

    fn command(&self, workspace: &Workspace, words: &[&str]) -> Command {
        let mut command = workspace.condaimg();
        command.args(words).args(["--override-channels", "--channel"]).arg(example_channel());
        command.env("PIP_INDEX_URL", self.index.url());
        command
    }

    /// Builds and pushes the base.
    fn publish(&self, conda: &[&str], pip: &[&str], flags: &[&str]) {
        self.org.file("environment.yml", environment(conda, pip));
        let mut build = self.command(&self.org, &["build", "--push", "--tag", &self.base]);
        build.args(["--base", &format!("oci:{}:debian", example_base().display())]);
        succeed(build.args(flags));
    }

    /// `condaimg WORDS...` of the project.
    fn run(&self, words: &[&str]) -> Command {
        let mut command = self.command(&self.project, words);
        command.args(["--from", &self.base]);
        command
    }

    fn asks(&self, conda: &[&str], pip: &[&str]) {
        self.project.file("environment.yml", environment(conda, pip));
    }

    fn refused(&self, conda: &[&str], pip: &[&str]) -> String {
        self.asks(conda, pip);
        fail(&mut self.run(&["lock"]), 1)
    }

    fn tag(&self) -> String {
        format!("{}/team/app:1", self.registry.host())
    }

    fn manifest(&self, reference: &str) -> Value {
        json(&skopeo(&["inspect", "--raw", "--tls-verify=false", &format!("docker://{reference}")]))
    }

    /// Builds and pushes the project's image; what of it is new: the packages of each layer.
    fn build(&self, more: &[&str]) -> Vec<String> {
        succeed(self.run(&["build", "--push", "--tag", &self.tag()]).args(more));
        let (base, app) = (self.manifest(&self.base), self.manifest(&self.tag()));
        let (of_base, all) = (digests(&base), digests(&app));
        assert_eq!(all[..of_base.len()], of_base, "the base's layers are another image's");
        let layers = &app["layers"].as_array().expect("layers")[of_base.len()..];
        let of = |layer: &Value| layer["annotations"]["dev.condaimg.layer.packages"].as_str().map(str::to_owned);
        layers.iter().filter_map(of).collect()
    }

    /// Runs Python code in the project's image.
    fn python(&self, code: &str) -> String {
        let image = Engine::shared().pull(&format!("docker://{}", self.tag()));
        succeed(Engine::shared().run(&[]).arg(image).args(["python", "-c", code])).trim().to_owned()
    }

    fn lock(&self) -> condaimg::lock::Lock {
        let locks = condaimg::lock::read(&self.project.path("condaimg.lock")).expect("reads").expect("a lock");
        locks.into_iter().next().expect("a platform")
    }
}

/// A base with `tool` and `helper` by pip and `tzdata` by conda, and what extends it.
fn usual() -> Bench {
    Bench::new(&[
        module("tool", "1.0").field("Provides-Extra: fast").requires(&["helper>=1", "speed; extra == 'fast'"]),
        module("helper", "1.0"),
        module("speed", "0.1"),
        module("app", "1.0").requires(&["tool[fast]>=1", "tzdata>=2020", "helper<2"]),
        module("newer", "1.0").requires(&["helper>=2"]),
        module("older", "1.0").requires(&["tzdata<2000"]),
    ])
}

const IMPORTS: &str = "import app, speed, tool, helper, tzdata, os, importlib.metadata as m; \
    print(*(m.version(it) for it in ('app', 'speed', 'tool', 'helper')), os.path.exists(app.__cached__))";

#[test]
fn wheels_are_added_beside_those_of_the_base() {
    let mut bench = usual();
    bench.publish(&["python=3.11", "python-tzdata"], &["tool"], &[]);
    let of_base = digests(&bench.manifest(&bench.base));
    let (sent, asked) = (bench.registry.uploads().len(), bench.index.server.seen("/simple/").len());
    bench.index.add(&module("helper", "1.9"));
    bench.asks(&[], &["app", "tool"]);
    assert_eq!(bench.build(&[]), ["app-1.0 speed-0.1"]);
    // The index is asked for what is new, the registry for no layer of packages, and nothing of the base is sent.
    let seen: Vec<String> = bench.index.server.seen("/simple/").into_iter().map(|it| it.path).collect();
    assert!(seen[asked..].iter().all(|it| it.contains("/app/") || it.contains("/speed/")), "{:?}", &seen[asked..]);
    let downloads = bench.registry.blob_downloads();
    let read: Vec<_> = downloads.iter().filter(|(digest, _)| of_base.contains(digest)).collect();
    assert!(read.iter().all(|(_, size)| *size < 10_000), "{read:?}");
    assert!(bench.registry.uploads()[sent..].iter().all(|digest| !of_base.contains(digest)));
    assert_eq!(bench.python(IMPORTS), "1.0 0.1 1.0 1.0 True");
    let lock = bench.lock();
    let of_base = lock.base.environment.as_ref().expect("is extended");
    assert_eq!(of_base.wheels.iter().collect::<Vec<_>>(), ["helper", "tool"]);
    assert_eq!(lock.wheels.iter().map(|it| it.name.as_str()).collect::<Vec<_>>(), ["app", "helper", "speed", "tool"]);
    // From the lock, elsewhere: the same, and nothing is resolved.
    let (digest, seen) = (bench.manifest(&bench.tag()), bench.index.server.seen("/simple/").len());
    fs_err::remove_dir_all(bench.project.path("cache")).expect("removes");
    bench.build(&["--locked"]);
    assert_eq!((bench.manifest(&bench.tag()), bench.index.server.seen("/simple/").len()), (digest, seen));
    let message = fail(bench.run(&["lock"]).args(["--upgrade", "helper"]), 1);
    assert!(message.contains("`helper` is a package of the base"), "{message}");
    // What was added can be extended in its turn.
    succeed(bench.run(&["lock"]).args(["--upgrade", "app"]));
    let next = Bench { base: bench.tag(), project: Workspace::new(), ..bench };
    next.asks(&[], &["app", "older>=1; python_version < '3'"]);
    succeed(&mut next.run(&["lock"]));
    let lock = next.lock();
    assert_eq!(lock.base.environment.expect("is extended").wheels.len(), 4);
}

#[test]
fn a_base_without_a_lock_keeps_what_pip_installed() {
    let bench = usual();
    bench.publish(&["python=3.11", "python-tzdata"], &["tool"], &["--no-referrers"]);
    bench.asks(&["click"], &["app"]);
    let new = bench.build(&[]);
    let mut new: Vec<&str> = new.iter().flat_map(|layer| layer.split(' ')).collect();
    new.sort_unstable();
    new.dedup();
    assert!(new.len() == 3 && new[0] == "app-1.0" && new[1].starts_with("click-") && new[2] == "speed-0.1", "{new:?}");
    assert_eq!(bench.python(IMPORTS), "1.0 0.1 1.0 1.0 True");
    let of_base = bench.lock().base.environment.expect("is extended");
    assert_eq!(of_base.distributions.keys().collect::<Vec<_>>(), ["helper", "tool"]);
    let message = bench.refused(&[], &["helper>=2"]);
    assert!(message.contains("stands against what pip installed in the base as `helper-1.0`"), "{message}");
    let message = fail(bench.run(&["lock"]).args(["--upgrade", "helper"]), 1);
    assert!(message.contains("`helper` is a package of the base"), "{message}");
}

#[test]
fn what_the_base_satisfies_adds_nothing() {
    let bench = usual();
    bench.publish(&["python=3.11", "python-tzdata"], &["tool"], &[]);
    let seen = bench.index.server.seen("/").len();
    bench.asks(&[], &["helper>=1,<2", "tool", "tzdata", "app; sys_platform == 'win32'"]);
    // Nothing is resolved: the program is not even looked for, and no archive is fetched.
    let mut build = bench.run(&["build", "--push", "--tag", &bench.tag()]);
    succeed(build.env("CONDAIMG_UV", "/nowhere/uv"));
    let layers = |reference: &str| digests(&bench.manifest(reference)).len();
    assert_eq!((layers(&bench.tag()), bench.index.server.seen("/").len()), (layers(&bench.base) + 1, seen));
    let archives = fs_err::read_dir(bench.project.path("cache/v1/archives")).expect("a folder").count();
    assert_eq!(archives, 0);
    bench.asks(&[], &["helper>=1,<2", "-c limits.txt"]);
    bench.project.file("limits.txt", "helper<1\n");
    let message = fail(&mut bench.run(&["lock"]), 1);
    assert!(message.contains("`helper` 1.0 is brought by the pip package `helper-1.0` of the base"), "{message}");
}

#[test]
fn what_has_to_be_built_is_built_with_the_bases_python() {
    let bench = Bench::new(&[module("helper", "1.0")]);
    bench.publish(&["python=3.11"], &["helper"], &[]);
    project(&bench.project.path("lib"), "lib", "1.5", &["helper>=1"], "built");
    bench.asks(&[], &["./lib"]);
    let message = fail(&mut bench.run(&["lock"]), 1);
    assert!(message.contains("--allow-build"), "{message}");
    assert_eq!(bench.build(&["--allow-build"]), ["lib-1.5"]);
    assert_eq!(bench.python("import lib, helper; print(lib.VALUE, helper.VERSION)"), "built 1.0");
    // On a machine that has nothing, the lock says what must come of it.
    let manifest = bench.manifest(&bench.tag());
    fs_err::remove_dir_all(bench.project.path("cache")).expect("removes");
    bench.build(&["--locked"]);
    assert_eq!(bench.manifest(&bench.tag()), manifest);
}

#[test]
fn what_stands_against_the_base_is_explained() {
    let bench = usual();
    bench.publish(&["python=3.11", "python-tzdata"], &["tool"], &[]);
    let message = bench.refused(&[], &["helper>=2"]);
    let expected = "environment.yml:4: `helper>=2` stands against the pip package `helper-1.0` of the base";
    assert!(message.contains(expected) && message.contains("extend another base"), "{message}");
    let message = bench.refused(&[], &["newer"]);
    let expected = "`helper` 1.0 is brought by the pip package `helper-1.0` of the base, which stands: extend another";
    assert!(message.contains("helper>=2") && message.contains(expected), "{message}");
    assert!(message.contains("environment.yml:4 asks for `newer`"), "{message}");
    let message = bench.refused(&[], &["older"]);
    assert!(message.contains("tzdata<2000") && message.contains("conda package `python-tzdata-"), "{message}");
    assert!(message.contains("` of the base, which stands"), "{message}");
    let message = bench.refused(&[], &["helper @ https://127.0.0.1:1/helper-9-py3-none-any.whl"]);
    assert!(message.contains("stands against the pip package `helper-1.0` of the base"), "{message}");
    assert!(message.contains("extend a base without it"), "{message}");
}

#[test]
fn extras_of_a_bases_conda_packages_are_looked_up() {
    let bench = Bench::new(&[module("app", "1.0").requires(&["server[fast]"]), module("speed", "0.1")]);
    let mut channel = Channel::new(bench.org.path("channel"));
    let metadata = "Metadata-Version: 2.1\nName: Server\nVersion: 3.0\nProvides-Extra: fast\nRequires-Dist: missing\nRequires-Dist: speed>=0.1; extra == 'fast'\n";
    let server = Package::new("conda-server", "7").noarch_python().file("site-packages/server.py", "");
    channel.add(&server.file("site-packages/Server-3.0.dist-info/METADATA", metadata), Format::Conda);
    channel.index();
    let more = ["--channel".to_owned(), channel.folder.display().to_string()];
    let flags: Vec<&str> = more.iter().map(String::as_str).collect();
    bench.publish(&["python=3.11", "conda-server"], &[], &flags);
    let fetched = |text: &str| run_output(bench.run(&["lock"]).args(&flags).arg(text)).status.success();
    for line in ["app", "server[fast]"] {
        bench.asks(&[], &[line]);
        assert!(fetched("--upgrade"), "{line}");
        assert!(bench.lock().wheels.iter().any(|wheel| wheel.name == "speed"), "{line}");
    }
}

#[test]
fn files_of_the_base_are_not_taken_by_accident() {
    let wheel = |name: &str, file: &str, content: &str| module(name, "1.0").file(file, content);
    let bench = Bench::new(&[
        wheel("old", "shared.py", "VALUE = 'old'").file("namespace/__init__.py", ""),
        wheel("same", "namespace/__init__.py", ""),
        wheel("other", "shared.py", "VALUE = 'other'"),
        wheel("zone", "tzdata/__init__.py", "VALUE = 'zone'"),
        wheel("folder", "old.py/x", ""),
        module("click", "8.0"),
    ]);
    bench.publish(&["python=3.11", "python-tzdata"], &["old", "click"], &[]);
    // Where the base was built, it is known what is in it: by its layers, and without them by its archives and wheels.
    let refused = |conda: &[&str], pip: &[&str]| {
        bench.asks(conda, pip);
        fail(bench.run(&["lock"]).env("CONDAIMG_CACHE_DIR", bench.org.path("cache")), 1)
    };
    for layers_are_here in [true, false] {
        if !layers_are_here {
            fs_err::remove_dir_all(bench.org.path("cache/v1/blobs")).expect("removes");
            fs_err::remove_dir_all(bench.org.path("cache/v1/records/bases")).expect("removes");
        }
        let message = refused(&[], &["other"]);
        let site = "lib/python3.11/site-packages";
        assert!(message.contains(&format!("`old` of the base and `other` both bring `{site}/")), "{message}");
        assert!(message.contains(&format!("`--allow-clobber '{site}/shared.py'`")), "{message}");
        let message = refused(&[], &["zone"]);
        assert!(message.contains("`python-tzdata` of the base and `zone` both bring"), "{message}");
        let message = refused(&[], &["folder"]);
        assert!(message.contains(&format!("`folder` brings `{site}/old.py/x`")), "{message}");
        assert!(message.contains("`old` of the base has"), "{message}");
    }
    let message = refused(&["click"], &[]);
    assert!(message.contains("of conda brings `click`, which pip installed in the base as `click-8.0`"), "{message}");
    // What is the same may be there twice, and what is declared is taken.
    bench.asks(&[], &["same", "other"]);
    let mut build = bench.run(&["build", "--push", "--tag", &bench.tag(), "--allow-clobber", "*/shared.py"]);
    let notices = run_output(build.env("CONDAIMG_CACHE_DIR", bench.org.path("cache")));
    let notices = String::from_utf8_lossy(&notices.stderr).into_owned();
    assert!(notices.contains("the one of `other` is in the image") && !notices.contains("namespace"), "{notices}");
    assert_eq!(bench.python("import shared, namespace, old, same; print(shared.VALUE)"), "other");
}

#[test]
fn project_files_stay_away_from_wheels() {
    let bench = Bench::new(&[module("old", "1.0").entry_point("run = old:VERSION"), module("new", "1.0")]);
    bench.publish(&["python=3.11"], &["old"], &[]);
    bench.asks(&[], &["new"]);
    bench.project.file("mine.py", "");
    let prefix = "/opt/conda/envs/default";
    let copied = |path: &str| {
        let mut build = bench.run(&["build", "--copy", &format!("mine.py:{prefix}/{path}")]);
        fail(build.env("CONDAIMG_CACHE_DIR", bench.org.path("cache")), 1)
    };
    let site = "lib/python3.11/site-packages";
    for (path, owner) in [
        (format!("{site}/new.py"), "the pip package `new-1.0`"),
        (format!("{site}/__pycache__/new.cpython-311.pyc"), "the pip package `new-1.0`"),
        (format!("{site}/new-1.0.dist-info/RECORD"), "the pip package `new-1.0`"),
        (format!("{site}/old.py"), "`old` of the base"),
        ("bin/run".to_owned(), "`old` of the base"),
        ("bin/python3.11".to_owned(), "`python` of the base"),
    ] {
        let message = copied(&path);
        assert!(message.contains(&format!("mine.py` would be where {owner} has `{path}`")), "{message}");
    }
    // On a machine that knows nothing of the base, what is new is compared all the same.
    let copy = format!("mine.py:{prefix}/{site}/new.py");
    let message = fail(&mut bench.run(&["build", "--copy", &copy]), 1);
    assert!(message.contains("the pip package `new-1.0` has"), "{message}");
    succeed(&mut bench.run(&["build", "--copy", &format!("mine.py:{prefix}/{site}/mine.py")]));
}
