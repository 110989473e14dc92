//! What runs on the builder, and wheels.

use std::path::PathBuf;
use std::process::Command;

use fs_err as fs;

use super::{Damage, LAYERS, files, restore, told};
use crate::common::packages::{Channel, Format, Package};
use crate::common::pypi::PackageIndex;
use crate::common::wheels::Wheel;
use crate::common::{Workspace, example_channel, program, succeed};

struct Bench {
    workspace: Workspace,
    channel: Channel,
    index: PackageIndex,
}

impl Bench {
    fn new() -> Self {
        let _ = program("uv", "uv (pip install uv)");
        let workspace = Workspace::new();
        let mut channel = Channel::new(workspace.path("channel"));
        let module = "def answer():\n    return 42\n";
        channel.add(&Package::new("pure", "1.0").noarch_python().file("site-packages/pure.py", module), Format::Conda);
        channel.index();
        let mut index = PackageIndex::start(workspace.path("served"));
        for name in ["foo", "bar"] {
            index.add(&Wheel::new(name, "1.0").file(&format!("{name}.py"), format!("NAME = {name:?}\n")));
        }
        let text = "dependencies: [python=3.11, pure, {pip: [foo, bar]}]\n";
        workspace.file("environment.yml", text);
        Self { workspace, channel, index }
    }

    fn cache(&self) -> PathBuf {
        self.workspace.path("cache")
    }

    fn build(&self, flags: &[&str]) -> Command {
        let _ = fs::remove_dir_all(self.workspace.path("image"));
        let mut build = self.workspace.condaimg();
        build.args(["build", "--base", "scratch", "--glibc", "2.36", "--override-channels", "--channel"]);
        build.arg(&self.channel.folder).arg("--channel").arg(example_channel()).args(flags);
        build.env("PIP_INDEX_URL", self.index.url());
        build
    }
}

#[test]
fn damaged_interpreter_and_wheels_change_no_image() {
    let bench = Bench::new();
    let digest = succeed(&mut bench.build(&[]));
    fs::rename(bench.cache(), bench.workspace.path("kept")).expect("moves");
    for damage in [Damage::Flip, Damage::Truncate, Damage::Swap, Damage::Directory] {
        restore(&bench.workspace.path("kept"), &bench.cache());
        for folder in LAYERS {
            fs::remove_dir_all(bench.cache().join("v1").join(folder)).expect("removes");
        }
        let wheels = files(&bench.cache(), "archives", ".whl");
        assert_eq!(wheels.len(), 2);
        damage.to(&wheels);
        let modules = files(&bench.cache(), "interpreters", "lib/python3.11/codecs.py");
        damage.to(&[modules, files(&bench.cache(), "interpreters", "lib/python3.11/io.py")].concat());
        let (again, notices) = told(&mut bench.build(&["--locked"]));
        assert_eq!(again, digest, "{damage:?}: {notices}");
        assert_eq!(notices.matches("interpreters/").count(), 1, "{damage:?}: {notices}");
        assert_eq!(notices.matches(".whl` in the cache is damaged").count(), 2, "{damage:?}: {notices}");
    }
}

#[test]
fn damaged_cache_of_uv_changes_no_lock() {
    let bench = Bench::new();
    let lock = |flags: &[&str]| {
        let mut lock = bench.workspace.condaimg();
        lock.args(["lock", "--base", "scratch", "--glibc", "2.36", "--override-channels", "--channel"]);
        lock.arg(&bench.channel.folder).arg("--channel").arg(example_channel()).args(flags);
        let (_, notices) = told(lock.env("PIP_INDEX_URL", bench.index.url()));
        (fs::read_to_string(bench.workspace.path("condaimg.lock")).expect("reads"), notices)
    };
    let (before, _) = lock(&[]);
    fs::rename(bench.cache(), bench.workspace.path("kept")).expect("moves");
    for damage in [Damage::Flip, Damage::Truncate, Damage::Directory] {
        restore(&bench.workspace.path("kept"), &bench.cache());
        fs::remove_file(bench.workspace.path("condaimg.lock")).expect("removes");
        let found = files(&bench.cache(), "uv", "");
        let found: Vec<PathBuf> =
            found.into_iter().filter(|path| fs::metadata(path).is_ok_and(|it| it.len() > 0)).collect();
        damage.to(&found);
        let (now, notices) = lock(&[]);
        assert_eq!(now, before, "{damage:?}");
        assert!(notices.contains("`uv` in the cache is damaged"), "{damage:?}: {notices}");
    }
}
