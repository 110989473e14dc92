//! Builds that are killed, interrupted, or run at the same time: whatever happens at any moment, the next build has
//! the right digest, and nothing piles up.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use condaimg::util::Digest;

use crate::common::file_server::FileServer;
use crate::common::registry::{LocalRegistry, Mode};
use crate::common::{Workspace, environment, example_base, example_channel, program, succeed};

/// A workspace, and servers for channel and image.
struct Bench {
    workspace: Workspace,
    channel: FileServer,
    registry: LocalRegistry,
}

/// What builds share: a cache, a layout, a lock and a repository.
struct Shared {
    name: String,
}

impl Bench {
    fn new() -> Self {
        let workspace = Workspace::new();
        workspace.file("environment.yml", environment(&["python=3.11", "click"]));
        let channel = FileServer::start(example_channel());
        Self { workspace, channel, registry: LocalRegistry::start(Mode::Plain) }
    }

    /// A build that solves, downloads, packs, writes and pushes.
    fn build(&self, shared: &Shared) -> Command {
        let mut command = self.workspace.condaimg();
        command.args(["build", "--push", "--progress", "json", "--compression", "gzip:1"]);
        command.args(["--override-channels", "--channel", &self.channel.url]);
        command.args(["--base", &format!("oci:{}:debian", example_base().display())]);
        command.args(["--tag", &self.tag(shared)]);
        command.args(["--output", &format!("oci:{}", self.folder(shared, "layout").display())]);
        command.arg("--lock-file").arg(self.folder(shared, "locks/condaimg.lock"));
        fs_err::create_dir_all(self.folder(shared, "locks")).expect("a folder");
        command.env("CONDAIMG_CACHE_DIR", self.folder(shared, "cache"));
        command
    }

    fn tag(&self, shared: &Shared) -> String {
        format!("{}/team/{}:1", self.registry.host(), shared.name)
    }

    fn folder(&self, shared: &Shared, name: &str) -> PathBuf {
        self.workspace.path(&shared.name).join(name)
    }

    /// A build that nothing disturbs; its digest.
    fn digest(&self, shared: &Shared) -> String {
        let pushed = succeed(&mut self.build(shared));
        pushed.trim().split_once('@').expect("a digest").1.to_owned()
    }

    /// Layout and repository hold the image, every blob of the layout is what its name says, and other tools agree.
    fn is_whole(&self, shared: &Shared, digest: &str) {
        let layout = self.folder(shared, "layout");
        for blob in fs_err::read_dir(layout.join("blobs/sha256")).expect("blobs").flatten() {
            let name = blob.file_name().to_string_lossy().into_owned();
            let unfinished = name.starts_with(".condaimg-");
            let bytes = fs_err::read(blob.path()).expect("reads");
            assert!(unfinished || Digest::of(bytes).hex() == name, "{name} is not what its name says");
        }
        let index = fs_err::read_to_string(layout.join("index.json")).expect("an index");
        assert!(index.contains(digest), "{index}");
        let layout = format!("oci:{}:1", layout.display());
        succeed(program("skopeo", "skopeo").args(["inspect", &layout]));
        let remote = format!("docker://{}", self.tag(shared));
        let inspected = succeed(program("skopeo", "skopeo").args(["inspect", "--tls-verify=false", &remote]));
        assert!(inspected.contains(digest), "{inspected}");
    }

    /// Temporary files of all builds.
    fn unfinished(&self) -> Vec<PathBuf> {
        let files = walkdir::WalkDir::new(self.workspace.path("")).into_iter().flatten();
        let files = files.map(walkdir::DirEntry::into_path);
        files.filter(|path| unfinished(path)).collect()
    }
}

fn unfinished(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(".condaimg-"))
        || path.parent().is_some_and(|folder| folder.ends_with("v1/tmp"))
}

fn shared(name: &str) -> Shared {
    Shared { name: name.to_owned() }
}

/// Makes a file look as if its process had died long ago.
fn age(path: &Path) {
    let file = std::fs::File::open(path).expect("opens");
    file.set_modified(SystemTime::now() - Duration::from_secs(3_600)).expect("ages");
}

/// Runs a build up to the moment when a step begins; nothing when it ended before.
pub fn run_to(step: &str, command: &mut Command) -> Option<Child> {
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("runs");
    let mut said = BufReader::new(child.stderr.take().expect("a pipe")).lines().map_while(Result::ok);
    let began = said.any(|line| line.contains(r#""event":"begin""#) && line.contains(&format!(r#""step":"{step}""#)));
    // Somebody has to read on, or the build waits.
    std::thread::spawn(move || said.count());
    if began {
        return Some(child);
    }
    child.wait().expect("ends");
    None
}

/// How long each step of a build in empty folders takes.
fn measure(bench: &Bench, shared: &Shared) -> BTreeMap<String, Duration> {
    let output = bench.build(shared).output().expect("runs");
    let said = String::from_utf8(output.stderr).expect("UTF-8");
    assert!(output.status.success(), "{said}");
    let lines = said.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"));
    let ends = lines.filter(|line| line["event"] == "end");
    let step = |line: serde_json::Value| {
        let seconds = line["seconds"].as_f64().expect("seconds");
        (line["step"].as_str().expect("a name").to_owned(), Duration::from_secs_f64(seconds))
    };
    ends.map(step).collect()
}

/// Numbers from 0 to 1, the same in each run of the tests (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((bits ^ (bits >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

const STEPS: [&str; 5] = ["solve", "download", "pack", "push", "write"];

#[test]
fn killed_at_any_moment_the_next_build_is_right_and_nothing_piles_up() {
    let bench = Bench::new();
    let undisturbed = shared("undisturbed");
    let mut durations = measure(&bench, &undisturbed);
    let digest = bench.digest(&undisturbed);
    bench.is_whole(&undisturbed, &digest);

    let mut random = Random(2);
    let mut killed = BTreeMap::from(STEPS.map(|step| (step, 0)));
    let mut rounds = Vec::new();
    while killed.values().sum::<usize>() < 12 || killed.values().any(|count| *count < 2) {
        assert!(rounds.len() < 10, "too few were killed in time: {killed:?}");
        let round = shared(&format!("round-{}", rounds.len()));
        for step in STEPS {
            let wait = durations[step].mul_f64(random.next());
            if !kill_in(step, wait, &mut bench.build(&round)) {
                // It was quicker than the measured one, which shared the machine with other tests.
                durations.entry(step.to_owned()).and_modify(|duration| *duration /= 2);
                break;
            }
            *killed.entry(step).or_default() += 1;
        }
        assert_eq!(bench.digest(&round), digest);
        bench.is_whole(&round, &digest);
        rounds.push(round);
    }

    bench.unfinished().iter().for_each(|path| age(path));
    for round in &rounds {
        assert_eq!(bench.digest(round), digest);
    }
    assert_eq!(bench.unfinished(), Vec::<PathBuf>::new());
}

/// Kills a build so long after a step began; whether it was still running.
fn kill_in(step: &str, wait: Duration, command: &mut Command) -> bool {
    let Some(mut child) = run_to(step, command) else { return false };
    std::thread::sleep(wait);
    child.kill().expect("kills");
    child.wait().expect("ends").signal() == Some(9)
}

#[test]
fn fifty_killed_builds_leave_the_store_that_they_share_as_it_should_be() {
    let bench = Bench::new();
    let begun = Instant::now();
    let digest = bench.digest(&shared("undisturbed"));
    let mut whole = begun.elapsed();
    let cache = bench.workspace.path("store");
    let build = |round: &Shared, flags: &[&str]| {
        let mut command = bench.build(round);
        command.args(flags).env("CONDAIMG_CACHE_DIR", &cache).stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    let mut random = Random(5);
    let (mut killed, mut rounds) = (0, 0);
    while killed < 50 {
        rounds += 1;
        assert!(rounds < 120, "only {killed} were killed in time");
        // Two at once, of which one makes all layers anew, so that there is work whatever is known by now.
        let pair: [&[&str]; 2] = [&[], &["--no-cache"]];
        let mut pair = pair.map(|flags| build(&shared(&format!("killed-{rounds}")), flags).spawn().expect("runs"));
        std::thread::sleep(whole.mul_f64(random.next()));
        for child in &mut pair {
            child.kill().expect("kills");
        }
        let in_time = pair.iter_mut().filter_map(|child| child.wait().expect("ends").signal()).count();
        if in_time == 0 {
            // Quicker than the first one, which had the machine for itself and the downloads to do.
            whole = whole.mul_f64(0.7);
        }
        killed += in_time;
    }

    let last = shared("last");
    succeed(&mut build(&last, &[]));
    bench.is_whole(&last, &digest);
    for blob in fs_err::read_dir(cache.join("v1/blobs/sha256")).expect("blobs").flatten() {
        let name = blob.file_name().to_string_lossy().into_owned();
        assert_eq!(Digest::of(fs_err::read(blob.path()).expect("reads")).hex(), name);
    }
    bench.unfinished().iter().for_each(|path| age(path));
    succeed(&mut build(&last, &[]));
    let mut listed = bench.workspace.condaimg();
    let listed = succeed(listed.args(["cache", "ls", "--json"]).env("CONDAIMG_CACHE_DIR", &cache));
    assert!(listed.contains("layers") && !listed.contains("unfinished"), "{listed}");
}

#[test]
fn builds_at_the_same_time_share_a_cache_a_layout_and_a_lock() {
    let bench = Bench::new();
    let together = shared("together");
    let builds: Vec<Child> = (0..3)
        .map(|_| bench.build(&together).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("runs"))
        .collect();
    let mut digests: Vec<String> = builds
        .into_iter()
        .map(|build| {
            let output = build.wait_with_output().expect("ends");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).expect("UTF-8").trim().split_once('@').expect("a digest").1.to_owned()
        })
        .collect();
    digests.push(bench.digest(&shared("alone")));
    assert!(digests.iter().all(|digest| *digest == digests[0]), "{digests:?}");
    bench.is_whole(&together, &digests[0]);
    assert_eq!(bench.unfinished(), Vec::<PathBuf>::new());
}

/// Sends a signal, by name, to a process or (with a minus) its group; returns the exit status and the time it took.
fn signal(name: &str, target: &str, child: &mut Child) -> (Option<i32>, Duration) {
    let sent = Instant::now();
    succeed(program("bash", "bash").args(["-c", &format!("kill -{name} -- {target}")]));
    let status = child.wait().expect("ends");
    (status.code(), sent.elapsed())
}

#[test]
fn signals_end_a_build_quickly_and_cleanly_at_every_step() {
    let bench = Bench::new();
    let mut digests = Vec::new();
    for (name, status) in [("INT", 130), ("TERM", 143)] {
        let shared = shared(&name.to_lowercase());
        let mut interrupted = 0;
        for (step, wait) in [("solve", 0), ("download", 20), ("pack", 50), ("pack", 300), ("push", 0), ("write", 5)] {
            // As a shell does for Ctrl-C: the whole group gets it, interpreters that compile included.
            let mut command = bench.build(&shared);
            let Some(mut child) = run_to(step, command.process_group(0)) else { continue };
            std::thread::sleep(Duration::from_millis(wait));
            let target = if name == "INT" { format!("-{}", child.id()) } else { child.id().to_string() };
            let (code, took) = signal(name, &target, &mut child);
            if code == Some(0) {
                // It was quicker than the signal.
                continue;
            }
            interrupted += 1;
            assert_eq!(code, Some(status), "{name} in {step}");
            assert!(took < Duration::from_secs(2), "{name} in {step} took {took:?}");
            let left = bench.unfinished();
            // An interpreter that is being unpacked is left for the next build to sweep.
            assert!(left.iter().all(|path| path.is_dir()), "{name} in {step} left {left:?}");
        }
        assert!(interrupted >= 4, "only {interrupted} were interrupted in time");
        digests.push(bench.digest(&shared));
        bench.is_whole(&shared, &digests[0]);
    }
    assert_eq!(digests[0], digests[1]);
}

#[test]
fn signals_end_a_build_that_waits_for_a_server() {
    // The kernel accepts connections for it; nobody ever answers.
    let silent = TcpListener::bind(("127.0.0.1", 0)).expect("binds");
    let host = silent.local_addr().expect("has one").to_string();
    let example = example_channel().display().to_string();
    let (channel, tag) = (format!("http://{host}/channel"), format!("{host}/team/env:1"));
    ends_while_waiting(&["--channel", &channel], "solve", "TERM", 143);
    ends_while_waiting(&["--channel", &example, "--push", "--tag", &tag], "push", "INT", 130);
}

fn ends_while_waiting(flags: &[&str], step: &str, name: &str, status: i32) {
    let workspace = Workspace::new();
    workspace.file("environment.yml", environment(&["tzdata"]));
    let mut command = workspace.condaimg();
    command.args(["build", "--override-channels", "--base", "scratch", "--glibc", "2.36", "--progress", "json"]);
    let mut child = run_to(step, command.args(flags)).expect("begins");
    std::thread::sleep(Duration::from_millis(500));
    assert!(child.try_wait().expect("asks").is_none(), "it does not wait for the server");
    let target = child.id().to_string();
    let (code, took) = signal(name, &target, &mut child);
    assert_eq!(code, Some(status));
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[test]
fn what_dead_builds_left_is_swept_and_what_living_ones_write_is_not() {
    let workspace = Workspace::new();
    workspace.file("environment.yml", environment(&["tzdata"]));
    let build = || {
        let mut command = workspace.build_here();
        command.args(["--output", "oci:image", "--output", "oci-archive:out/image.tar"]);
        command.args(["--metadata-file", "metadata/metadata.json"]);
        succeed(&mut command)
    };
    let digest = build();
    let folders = ["", "image", "image/blobs/sha256", "out", "cache/v1/tmp"];
    let path = |folder: &str, name: &str| workspace.path(folder).join(format!(".condaimg-{name}"));
    let mut locks = Vec::new();
    for folder in folders {
        for name in ["dead", "young", "living"] {
            fs_err::write(path(folder, name), "x").expect("writes");
        }
        let living = std::fs::File::open(path(folder, "living")).expect("opens");
        living.lock().expect("locks");
        locks.push(living);
        age(&path(folder, "dead"));
        age(&path(folder, "living"));
    }
    // An interpreter that was being unpacked, and one that is.
    for name in ["interpreter-dead", "interpreter-living"] {
        workspace.file(&format!("cache/v1/tmp/{name}/lib/python"), "x");
        age(&workspace.path("cache/v1/tmp").join(name));
    }
    let living = std::fs::File::open(workspace.path("cache/v1/tmp/interpreter-living")).expect("opens");
    living.lock().expect("locks");

    assert_eq!(build(), digest);
    for folder in folders {
        let left = ["dead", "young", "living"].map(|name| path(folder, name).exists());
        assert_eq!(left, [false, true, true], "in `{folder}`: dead, young, living");
    }
    assert!(!workspace.path("cache/v1/tmp/interpreter-dead").exists());
    assert!(workspace.path("cache/v1/tmp/interpreter-living").exists());
    drop((locks, living));
}
