//! Locks of other tools: a bare runner that has only such a file takes the lock that was made of it from the cache
//! registry, with the facts of the archives.

use super::*;
use crate::common::example_channel;
use crate::common::pypi::PackageIndex;
use crate::common::wheels::Wheel;

const FORMS: [(&str, &str, &str); 3] = [
    ("pixi", "pixi.lock", "pixi.condaimg.lock"),
    ("conda-lock", "conda-lock.yml", "conda-lock.condaimg.lock"),
    ("explicit", "explicit.txt", "explicit.condaimg.lock"),
];

impl Bench {
    /// Writes the lock in another tool's form.
    fn export(&self, form: &str, file: &str) {
        let text = succeed(self.on("first", "lock").args(["--base", &self.base, "--export", form]));
        self.workspace.file(file, text);
    }

    /// The lock that was made of a file; it is gone afterwards.
    fn take_lock(&self, file: &str) -> String {
        let path = self.workspace.path(file);
        let text = fs_err::read_to_string(&path).expect("a lock");
        fs_err::remove_file(path).expect("removes");
        text
    }
}

/// The tag of the only artifact of the cache with a lock.
fn lock_tag(registry: &LocalRegistry, cache: &str) -> String {
    let of_lock = |tag: &String| {
        let kind = manifest(&format!("{}/{cache}:{tag}", registry.host()))["artifactType"].clone();
        kind == "application/vnd.condaimg.lock-file.v1+yaml"
    };
    let mut found: Vec<String> = tags(registry, cache).into_iter().filter(of_lock).collect();
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

#[test]
fn a_bare_runner_with_another_tools_lock_asks_no_channel() {
    for (form, file, lock) in FORMS {
        let (bench, registry) = (Bench::new(), LocalRegistry::start(Mode::Plain));
        bench.export(form, file);
        let cache = format!("{}/cache", registry.host());
        let flags = |repository: &str| {
            let tag = format!("{}/{repository}:1", registry.host());
            [file, "--cache-registry", &cache, "--push", "--tag", &tag].map(str::to_owned)
        };
        let machine = |name: &str| format!("{name}-{form}");
        succeed(&mut bench.build(&machine("first"), &strs(&flags("env"))));
        let (digest, _) = bench.outcome(&machine("first"));
        let expected = bench.take_lock(lock);
        assert_eq!(tags(&registry, "cache").len(), LAYERS + 1);
        bench.expect_bare(&machine("bare"), &digest, &strs(&flags("other")));
        assert_eq!(bench.take_lock(lock), expected);

        // Nobody is believed: the lock is made.
        let asked = bench.server.seen("").len();
        let gets = registry.requests("GET /v2/cache/manifests/");
        succeed(&mut bench.build(&machine("alone"), &[&["--no-cache"], &strs(&flags("third"))[..]].concat()));
        assert_eq!(bench.outcome(&machine("alone")), (digest.clone(), LAYERS));
        assert!(bench.server.seen("").len() > asked);
        assert_eq!(bench.take_lock(lock), expected);
        assert_eq!(registry.requests("GET /v2/cache/manifests/"), gets);
    }
}

#[test]
fn a_lock_in_the_cache_that_is_another_ones_is_made_again_and_mended() {
    let (bench, registry) = (Bench::new(), LocalRegistry::start(Mode::Plain));
    bench.export("explicit", "explicit.txt");
    let whole = fs_err::read_to_string(bench.workspace.path("explicit.txt")).expect("reads");
    let fewer: String = whole.lines().filter(|line| !line.contains("/two-")).map(|line| format!("{line}\n")).collect();
    // There it is among what was asked for.
    bench.workspace.file("fewer.txt", fewer.replace("two", "one"));
    let build = |machine: &str, file: &str, cache: &str| {
        let cache = format!("{}/{cache}", registry.host());
        let told = run_output(&mut bench.build(machine, &[file, "--cache-registry", &cache, "--output", "oci:image"]));
        String::from_utf8(told.stderr).expect("text")
    };
    let taken = "is taken from the cache registry";
    assert!(!build("first", "explicit.txt", "cache").contains(taken));
    let (digest, _) = bench.outcome("first");
    bench.take_lock("explicit.condaimg.lock");
    build("first", "fewer.txt", "other");
    assert_ne!(bench.outcome("first").0, digest);
    bench.take_lock("fewer.condaimg.lock");

    let (tag, of_other) = (lock_tag(&registry, "cache"), lock_tag(&registry, "other"));
    let right = manifest(&format!("{}/cache:{tag}", registry.host()));
    let other = manifest(&format!("{}/other:{of_other}", registry.host()));
    // The lock of other packages, whose bytes the repository has, as it is, and as one that says that it is the right one.
    let to = format!("docker://{}/cache:carrier", registry.host());
    skopeo(&[
        "copy",
        "--dest-tls-verify=false",
        &format!("docker://{}/other:{of_other}", registry.host()),
        &to,
        "--src-tls-verify=false",
    ]);
    let mut claims = right.clone();
    claims["layers"] = other["layers"].clone();
    let mut large = right.clone();
    large["layers"][0]["size"] = (1_u64 << 40).into();
    let mut kind = right.clone();
    kind["artifactType"] = "application/vnd.condaimg.layer.v1".into();
    for (number, wrong) in [other, claims, large, kind].iter().enumerate() {
        put(&registry, "cache", &tag, wrong);
        let machine = format!("bare-{number}");
        assert!(!build(&machine, "explicit.txt", "cache").contains(taken), "{wrong}");
        bench.take_lock("explicit.condaimg.lock");
        assert_eq!(bench.outcome(&machine).0, digest);
        assert_eq!(manifest(&format!("{}/cache:{tag}", registry.host())), right);
    }
    // Its bytes are gone.
    fs_err::remove_file(stored(&registry, right["layers"][0]["digest"].as_str().expect("a digest"))).expect("removes");
    assert!(!build("bare-gone", "explicit.txt", "cache").contains(taken));
    bench.take_lock("explicit.condaimg.lock");
    assert!(build("next", "explicit.txt", "cache").contains(taken));
    assert_eq!(bench.outcome("next"), (digest, 0));
}

#[test]
fn wheels_that_another_tool_pins_are_not_fetched_either() {
    let workspace = Workspace::new();
    let mut index = PackageIndex::start(workspace.path("served"));
    index.add(&Wheel::new("lib", "1.0").file("lib.py", "VERSION = '1.0'\n"));
    let server = FileServer::start(example_channel());
    let text = format!("channels: [{}]\ndependencies:\n  - python=3.11\n  - pip:\n    - lib\n", server.url);
    workspace.file("environment.yml", text);
    let registry = LocalRegistry::start(Mode::Plain);
    let run = |machine: &str, command: &str| {
        let home = workspace.path(&format!("{machine}/home"));
        fs_err::create_dir_all(&home).expect("a home");
        let mut program = workspace.condaimg();
        program.env("HOME", home).env("CONDAIMG_CACHE_DIR", workspace.path(&format!("{machine}/cache")));
        program.args([command, "--base", "scratch", "--glibc", "2.36"]).env("PIP_INDEX_URL", index.url());
        program
    };
    succeed(run("first", "lock").arg("environment.yml"));
    workspace.file("pixi.lock", succeed(run("first", "lock").args(["environment.yml", "--export", "pixi"])));
    let build = |machine: &str| {
        let (cache, tag) = (format!("{}/cache", registry.host()), format!("{}/{machine}:1", registry.host()));
        let metadata = format!("{machine}.json");
        let mut build = run(machine, "build");
        build.args(["pixi.lock", "--cache-registry", &cache, "--push", "--tag", &tag, "--metadata-file", &metadata]);
        succeed(&mut build);
        fs_err::remove_file(workspace.path("pixi.condaimg.lock")).expect("removes");
        json(&fs_err::read_to_string(workspace.path(&metadata)).expect("reads"))
    };
    let made = build("first");
    let asked = || (server.seen("").len(), index.server.seen("").len());
    let before = asked();
    let taken = build("bare");
    assert_eq!(asked(), before, "{:?}", index.server.seen(""));
    assert_eq!(taken["digest"], made["digest"]);
    let layers = taken["layers"].as_array().expect("layers");
    assert!(layers.iter().all(|layer| layer["new"] == false), "{layers:?}");
    assert!(layers.iter().any(|layer| layer["packages"].to_string().contains("lib-1.0")), "{layers:?}");
}
