//! Bases as real ones are: users with homes of their own, symlinks and hard links everywhere, many layers. What images add
//! stands on the whole tree of the base, and runs as whomever engines and CI systems choose.

mod ci;
mod layers;
mod login;

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use condaimg::lock;
use serde_json::{Value, json};

use crate::common::engine::{Engine, swept};
use crate::common::images::{Layout, shared_cache};
use crate::common::variants::{self, Item, tar};
use crate::common::{Workspace, environment, example_channel, fail, run_output, succeed};
use Item::{File, Folder, Hard, Link};

const ROOT: &str = "root:x:0:0:root:/root:/bin/sh\n";
const PATH: &str = "PATH=/usr/bin:/bin";
/// Says who it is and where its home is, and writes there.
const WORK: &str = "echo $(id -un) $HOME; cd && echo text >file-$(id -u) && cat file-$(id -u)";

/// A base of the example's and one more layer.
struct Variant {
    workspace: Workspace,
    base: String,
    /// Of the image; podman takes no capitals.
    folder: PathBuf,
}

impl Variant {
    fn new(items: &[Item<'_>], config: Value) -> Self {
        let workspace = Workspace::new();
        let base = variants::base(&workspace.path("base"), &[tar(items)], config);
        Self::on(workspace, base)
    }

    fn on(workspace: Workspace, base: String) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let folder = swept().join(format!("variant-{}", COUNT.fetch_add(1, Ordering::Relaxed)));
        Self { workspace, base, folder }
    }

    /// `condaimg build` of a small environment.
    fn build(&self, flags: &[&str]) -> Command {
        self.workspace.file("environment.yml", environment(&["feature-activate"]));
        let mut build = self.workspace.condaimg();
        build.env("CONDAIMG_CACHE_DIR", shared_cache());
        build.args(["build", "--override-channels", "--channel"]).arg(example_channel());
        build.args(["--base", &self.base, "--output", &self.layout().image()]).args(flags);
        build
    }

    fn layout(&self) -> Layout {
        Layout::at(self.folder.clone())
    }

    /// Builds it; gives what was said.
    fn built(&self, flags: &[&str]) -> String {
        String::from_utf8(run_output(&mut self.build(flags)).stderr).expect("UTF-8")
    }

    fn variable(&self, name: &str) -> String {
        let config = self.layout().config();
        let variables = config["config"]["Env"].as_array().expect("a list").iter().filter_map(Value::as_str);
        let mut found = variables.filter_map(|variable| variable.strip_prefix(name)?.strip_prefix('='));
        found.next_back().expect(name).to_owned()
    }

    /// Runs a shell command in it, by podman.
    fn run(&self, flags: &[&str], command: &str) -> String {
        succeed(&mut self.running(flags, command))
    }

    fn running(&self, flags: &[&str], command: &str) -> Command {
        let image = Engine::shared().pull(&self.layout().image());
        let mut podman = Engine::shared().podman();
        podman.args(["run", "--rm", "--network=none", "--cgroups=enabled", "--pull=never"]).args(flags);
        podman.args([image.as_str(), "sh", "-c", command]);
        podman
    }

    /// The texts of the files in the environment layer, by path.
    fn texts(&self) -> BTreeMap<String, String> {
        let layout = self.layout();
        let mut archive = ::tar::Archive::new(layout.layer(layout.layers().last().expect("layers")));
        let texts = archive.entries().expect("reads").map(|entry| {
            let mut entry = entry.expect("reads");
            let mut text = String::new();
            entry.read_to_string(&mut text).expect("UTF-8");
            (String::from_utf8(entry.path_bytes().into_owned()).expect("UTF-8"), text)
        });
        texts.collect()
    }
}

fn node() -> Variant {
    let passwd = format!("{ROOT}node:x:1000:1000::/home/node:/bin/sh\n");
    let items = [File("etc/passwd", &passwd), Folder("home/node", 0o755, 1000, 1000)];
    Variant::new(&items, json!({"User": "node", "Env": [PATH, "HOME=/home/node"], "WorkingDir": "/home/node"}))
}

#[test]
fn base_user_home_is_opened_for_everybody() {
    let node = node();
    let told = node.built(&[]);
    assert_eq!(told.matches("--keep-home-mode").count(), 1, "{told}");
    assert_eq!((node.variable("HOME"), node.variable("USER")), ("/home/node".to_owned(), "node".to_owned()));
    assert_eq!(node.layout().config()["config"]["User"], "1000:1000");
    assert_eq!(node.run(&[], WORK), "node /home/node\ntext\n");
    assert_eq!(node.run(&["--user=31337:31337"], &WORK.replace("$(id -un)", "-")), "- /home/node\ntext\n");
    assert_eq!(node.run(&["--user=31337:31337"], "stat -c '%a %u:%g' ~"), "1757 1000:1000\n");
}

#[test]
fn base_user_home_keeps_group_and_setgid() {
    let passwd = format!("{ROOT}jovyan:x:1000:100::/home/jovyan:/bin/sh\n");
    let items = [
        File("etc/passwd", &passwd),
        File("etc/group", "root:x:0:\nusers:x:100:\n"),
        Folder("home/jovyan", 0o2775, 1000, 100),
    ];
    let env = json!([PATH, "HOME=/home/jovyan", "USER=jovyan"]);
    let jovyan = Variant::new(&items, json!({"User": "jovyan", "Env": env, "WorkingDir": "/home/jovyan"}));
    jovyan.built(&[]);
    assert_eq!(jovyan.run(&[], WORK), "jovyan /home/jovyan\ntext\n");
    assert_eq!(jovyan.run(&["--user=4242:4242"], "echo x >~/x; stat -c '%a %u:%g' ~"), "3777 1000:100\n");
}

#[test]
fn kept_home_mode_shuts_others_out() {
    let node = node();
    let told = node.built(&["--keep-home-mode"]);
    assert!(told.contains("--keep-home-mode") && told.contains("/home/node"), "{told}");
    assert_eq!(node.run(&[], "echo x >~/x; stat -c '%a %u:%g' ~"), "755 1000:1000\n");
    assert!(!node.running(&["--user=31337:31337"], "echo x >~/x").status().expect("runs").success());
    // The lock that goes with the image tells it, and one that does not is read as before.
    let lock = node.workspace.path("condaimg.lock");
    assert!(!fs_err::read_to_string(lock).expect("reads").contains("keep-home-mode"));
}

#[test]
fn base_user_named_conda_keeps_its_home() {
    let passwd = format!("{ROOT}conda:x:1001:1001::/home/conda:/bin/sh\n");
    let base = Variant::new(&[File("etc/passwd", &passwd), Folder("home/conda", 0o755, 1001, 1001)], json!({}));
    base.built(&[]);
    assert_eq!((base.variable("HOME"), base.variable("USER")), ("/home/conda1000".to_owned(), "conda1000".to_owned()));
    assert_eq!(base.run(&[], WORK), "conda1000 /home/conda1000\ntext\n");
    let homes = base.run(&["--user=7:7"], "stat -c '%a %u:%g' /home/conda /home/conda1000");
    assert_eq!(homes, "755 1001:1001\n1777 1000:0\n");
}

#[test]
fn linked_passwd_keeps_its_users() {
    let users = format!("{ROOT}svc:x:200:200::/:/bin/false\n");
    let names = "cut -d: -f1 /etc/passwd | tr '\\n' ' '; cat /etc/pw.real | wc -l; readlink /etc/passwd || true";
    let hard = Variant::new(&[File("etc/pw.real", &users), Hard("etc/passwd", "etc/pw.real")], json!({}));
    hard.built(&[]);
    assert_eq!(hard.run(&[], names), "root svc conda 2\n");
    let soft = Variant::new(&[File("etc/pw.real", &users), Link("etc/passwd", "pw.real")], json!({}));
    soft.built(&[]);
    assert_eq!(soft.run(&[], names), "root svc conda 3\npw.real\n");
    assert_eq!(soft.run(&[], WORK), "conda /home/conda\ntext\n");
}

#[test]
fn deep_symlinks_stay_and_nothing_vanishes() {
    let items = [
        Link("opt/conda/envs", "/data/envs"),
        File("data/envs/keep", "k"),
        File("usr/local/cuda-12.4/lib64/libcudart.so.12", "ELF"),
        Link("etc/alternatives/cuda", "/usr/local/cuda-12.4"),
        Link("usr/local/cuda", "/etc/alternatives/cuda"),
        Folder("var/home", 0o755, 0, 0),
        Folder("var/home/me", 0o700, 1000, 1000),
        Folder("a/b/c/d/theirs", 0o2770, 5, 6),
        // After the example's own `home`, as a layer that replaces it.
        Link("home", "var/home"),
        File("etc/passwd", &format!("{ROOT}me:x:1000:1000::/home/me:/bin/sh\n")),
    ];
    let base = Variant::new(&items, json!({"User": "1000", "Env": [PATH]}));
    base.workspace.file("plug/x", "plugged");
    base.built(&["--copy", "plug:/usr/local/cuda/extras", "--copy", "plug:/a/b/c/d/theirs/new"]);
    let links = "readlink /opt/conda/envs /usr/local/cuda /etc/alternatives/cuda /home";
    assert_eq!(base.run(&[], links), "/data/envs\n/etc/alternatives/cuda\n/usr/local/cuda-12.4\nvar/home\n");
    let there =
        "cat /data/envs/keep /usr/local/cuda/lib64/* /usr/local/cuda/extras/x; ls /data/envs; echo $FEATURE_HOME";
    let printed = base.run(&[], there);
    assert_eq!(printed, "kELFpluggeddefault\nkeep\n/opt/conda/envs/default/share/feature-activate\n");
    assert_eq!(base.run(&[], WORK), "me /home/me\ntext\n");
    assert_eq!(base.run(&["--user=0:0"], "stat -c '%a %u:%g' /a/b/c/d/theirs /home/me"), "2770 5:6\n1707 1000:1000\n");
}

#[test]
fn what_cannot_be_resolved_is_refused_by_name() {
    let base = Variant::new(
        &[
            Link("srv/a/b/c/one", "two"),
            Link("srv/a/b/c/two", "one"),
            File("srv/file", "x"),
            Folder("srv/a/folder", 0o755, 0, 0),
            Link("srv/run", "/run/x"),
        ],
        json!({}),
    );
    base.workspace.file("plug/x", "");
    for (flags, culprit, flag) in [
        (&["--prefix", "/srv/a/b/c/one/env"][..], "srv/a/b/c/", "--prefix"),
        (&["--prefix", "/srv/file/env"], "/srv/file", "--prefix"),
        (&["--prefix", "/srv/run/env"], "/run", "--prefix"),
        (&["--copy", "plug:/srv/a/b/c/two/x"], "srv/a/b/c/", "another place"),
        (&["--copy", "plug:/srv/file/x"], "/srv/file", "--exclude"),
        (&["--copy", "plug/x:/srv/a/folder"], "/srv/a/folder", "slash"),
    ] {
        let error = fail(&mut base.build(flags), 1);
        assert!(error.contains(culprit) && error.contains(flag), "{flags:?}: {error}");
    }
    for item in [Folder("etc/passwd", 0o755, 0, 0), Link("etc/passwd", "passwd")] {
        let error = fail(&mut Variant::new(&[item], json!({})).build(&[]), 1);
        assert!(error.contains("/etc/passwd") && error.contains("another base"), "{item:?}: {error}");
    }
    let home = Variant::new(&[File("home", "a file")], json!({}));
    let error = fail(&mut home.build(&[]), 1);
    assert!(error.contains("/home") && error.contains("--user"), "{error}");
    assert!(!home.folder.exists(), "nothing was packed");
}

#[test]
fn prefix_with_an_environment_of_the_base_is_refused() {
    let items = [
        File("opt/conda/envs/default/conda-meta/tiny-1-0.json", "{}"),
        File("opt/conda/envs/default/share/keep", "k"),
        File("opt/files/share/keep", "k"),
    ];
    let base = Variant::new(&items, json!({}));
    let error = fail(&mut base.build(&[]), 1);
    for part in ["/opt/conda/envs/default", "tiny-1-0.json", "--from oci:", "--prefix"] {
        assert!(error.contains(part), "{part}: {error}");
    }
    assert!(!base.folder.exists(), "nothing was packed");
    let told = base.built(&["--prefix", "/opt/files"]);
    assert_eq!(told.matches("/opt/files/share/keep").count(), 1, "{told}");
    // The lock is for any prefix: what is there is looked at again.
    let error = fail(&mut base.build(&["--prefix", "/opt/conda/envs/default"]), 1);
    assert!(error.contains("--from oci:"), "{error}");
}

#[test]
fn closed_folders_of_the_base_are_told_of() {
    let home = Folder("srv/app/home", 0o755, 1000, 1000);
    let passwd = format!("{ROOT}app:x:1000:1000::/srv/app/home:/bin/sh\n");
    let items =
        |mode| [File("etc/passwd", &passwd), Folder("srv/app", mode, 0, 1000), home, Folder("root", 0o700, 0, 0)];
    let config = json!({"User": "app", "Env": [PATH, "HOME=/srv/app/home"]});
    let base = Variant::new(&items(0o750), config.clone());
    let error = fail(&mut base.build(&["--prefix", "/root/env"]), 1);
    assert!(error.contains("/root") && error.contains("--prefix"), "{error}");
    let told = base.built(&[]);
    assert!(told.contains("users other than `app`") && told.contains("/srv/app"), "{told}");
    assert_eq!(base.run(&[], WORK), "app /srv/app/home\ntext\n");
    let told = Variant::new(&items(0o700), config).built(&[]);
    assert!(told.contains("cannot reach its home `/srv/app/home`"), "{told}");
}

#[test]
fn large_passwd_keeps_all_users() {
    let users: String = (0..60_000).map(|number| format!("u{number}:x:{}:1::/:/bin/sh\n", 10_000 + number)).collect();
    let passwd = format!("{ROOT}{users}last:x:900:900::/:/bin/sh\n");
    let base = Variant::new(&[File("etc/passwd", &passwd)], json!({"User": "last"}));
    base.built(&[]);
    assert_eq!(base.layout().config()["config"]["User"], "900:900");
    base.built(&["--user", "1234:0"]);
    assert_eq!(base.texts()["etc/passwd"], format!("{passwd}conda:*:1234:0:condaimg:/home/conda:/bin/sh\n"));
}

/// The example base as ostree checks it out and bootc ships it: every file a hard link to an object.
fn of_hard_links() -> Vec<u8> {
    let (mut objects, mut rest) = (::tar::Builder::new(Vec::new()), Vec::new());
    for (number, layer) in variants::example_layers().iter().enumerate() {
        for (index, entry) in ::tar::Archive::new(&layer[..]).entries().expect("reads").enumerate() {
            let mut entry = entry.expect("reads");
            let path = entry.path().expect("a path").into_owned();
            let mut header = entry.header().clone();
            if header.entry_type().is_file() {
                let object = PathBuf::from(format!("sysroot/ostree/repo/objects/{number}/{index}.file"));
                objects.append_data(&mut header, &object, &mut entry).expect("appends");
                rest.push((header, path, Some(object)));
            } else {
                let target = entry.link_name().expect("a target").map(|target| target.into_owned());
                rest.push((header, path, target));
            }
        }
    }
    for (mut header, path, target) in rest {
        if header.entry_type().is_file() {
            header.set_entry_type(::tar::EntryType::Link);
            header.set_size(0);
        }
        match target {
            Some(target) => objects.append_link(&mut header, path, target).expect("appends"),
            None => objects.append_data(&mut header, path, std::io::empty()).expect("appends"),
        }
    }
    objects.into_inner().expect("ends")
}

#[test]
fn base_of_hard_links_builds_and_runs() {
    let workspace = Workspace::new();
    let base = variants::whole(&workspace.path("base"), &[of_hard_links()], json!({}));
    let base = Variant::on(workspace, base);
    base.built(&[]);
    let lock = fs_err::read_to_string(base.workspace.path("condaimg.lock")).expect("reads");
    assert!(lock.contains("__glibc=2.36="), "{lock}");
    assert_eq!(base.run(&[], WORK), "conda /home/conda\ntext\n");
    assert!(base.run(&[], "cat /etc/passwd").contains("nobody:x:65534:"));
}

#[test]
fn scratch_with_root_has_one_root() {
    let scratch = Variant::on(Workspace::new(), "scratch".to_owned());
    scratch.built(&["--user", "0", "--glibc", "2.36"]);
    let passwd = &scratch.texts()["etc/passwd"];
    assert_eq!(passwd.lines().filter(|line| line.split(':').nth(2) == Some("0")).count(), 1, "{passwd}");
    assert_eq!(scratch.variable("USER"), "root");
    // A user of distroless: known, with a home of its own.
    let users = format!("{ROOT}nonroot:x:65532:65532::/home/nonroot:/sbin/nologin\n");
    let items = [File("etc/passwd", &users), Folder("home/nonroot", 0o700, 65532, 65532)];
    let distroless = Variant::new(&items, json!({"User": "65532", "Env": [PATH]}));
    distroless.built(&[]);
    assert_eq!(distroless.run(&[], WORK), "nonroot /home/nonroot\ntext\n");
}

#[test]
fn older_locks_are_completed_from_the_base() {
    let node = node();
    let digest = |flags: &[&str]| {
        let told = node.built(flags);
        (node.layout().digest(), told)
    };
    let (made, _) = digest(&[]);
    let path = node.workspace.path("condaimg.lock");
    // As an older version wrote it: nothing of the whole tree.
    let mut locks = lock::read(&path).expect("reads").expect("is there");
    let mut older = locks.iter().next().expect("a lock").clone();
    assert!(older.base.facts.whole && older.base.facts.folders.contains_key("home/node"));
    older.base.facts.whole = false;
    older.base.facts.folders.clear();
    locks.insert(older);
    let older = lock::render(&locks, node.workspace.path("home").parent().expect("a folder")).expect("renders");
    fs_err::write(&path, &older).expect("writes");
    let (locked, told) = digest(&["--locked"]);
    assert_eq!(locked, made);
    assert!(told.contains("condaimg lock"), "{told}");
    assert_eq!(fs_err::read_to_string(&path).expect("reads"), older);
    assert_eq!(digest(&[]).0, made);
    assert!(fs_err::read_to_string(&path).expect("reads").contains("whole: true"));
}

#[test]
fn path_as_base_gets_a_hint() {
    let node = node();
    let folder = node.workspace.path("base");
    for base in [folder.display().to_string(), "./base".to_owned(), "base".to_owned()] {
        let here = Variant::on(Workspace::new(), base.clone());
        variants::base(&here.workspace.path("base"), &[], json!({}));
        let error = here.build(&["--offline"]).output().expect("runs");
        let told = String::from_utf8(error.stderr).expect("UTF-8");
        assert!(!error.status.success() && told.contains(&format!("oci:{base}")), "{told}");
    }
}

#[test]
fn lacking_platform_is_noticed_before_solving() {
    let workspace = Workspace::new();
    workspace.file("environment.yml", environment(&["python=3.11"]));
    let mut build = workspace.condaimg();
    // Nobody listens there: a solver would have to ask.
    build.args(["build", "--override-channels", "--channel", "http://127.0.0.1:9/channel"]);
    build.args(["--base", &format!("oci:{}:debian", crate::common::example_base().display())]);
    let error = fail(build.args(["--platform", "linux/amd64,linux/arm64"]), 1);
    assert!(error.contains("linux/arm64") && !error.contains("127.0.0.1:9"), "{error}");
}

#[test]
fn doctor_tells_what_a_base_lacks_for_ci() {
    let doctor = |base: &str| {
        let workspace = Workspace::new();
        let mut doctor = workspace.condaimg();
        let printed = succeed(doctor.args(["doctor", "--no-condarc", "--json", "--base", base]));
        let report: Value = serde_json::from_str(&printed).expect("JSON");
        let findings = report["base"].as_array().expect("a list").clone();
        findings.into_iter().map(|it| (it["name"].as_str().expect("a name").to_owned(), it)).collect::<Vec<_>>()
    };
    let state = |findings: &[(String, Value)], name: &str| {
        let found = findings.iter().find(|(known, _)| known == name).expect(name);
        found.1["state"].as_str().expect("a state").to_owned()
    };
    let whole = doctor(&format!("oci:{}:debian", crate::common::example_base().display()));
    for name in ["base", "glibc", "layers", "github-jobs"] {
        assert_eq!(state(&whole, name), "ok", "{whole:?}");
    }
    let scratch = doctor("scratch");
    assert_eq!(["glibc", "layers", "github-jobs"].map(|name| state(&scratch, name)), ["no", "ok", "no"]);
    assert!(format!("{scratch:?}").contains("`tail`"), "{scratch:?}");
}
