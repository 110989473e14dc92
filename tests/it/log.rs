//! What condaimg says while it works: to people, to CI systems, and as JSON lines (docs/log.md).

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::common::file_server::FileServer;
use crate::common::packages::{Channel, Format, Package};
use crate::common::registry::{LocalRegistry, Mode, PASSWORD, USER};
use crate::common::token_server::basic;
use crate::common::{Workspace, environment, fail, program, run_output, succeed};

/// A folder with a channel of two packages that need nothing, each large enough for a layer of its own.
struct Bench {
    workspace: Workspace,
    channel: Channel,
}

impl Bench {
    fn new() -> Self {
        let workspace = Workspace::new();
        let mut bench = Self { channel: Channel::new(workspace.path("channel")), workspace };
        bench.release("one", "1.0");
        bench.release("two", "1.0");
        bench.workspace.file("environment.yml", environment(&["one", "two"]));
        // A layer for each of them.
        let tier = |name: &str| format!("  - {{name: {name}, packages: [{name}], together: true}}\n");
        bench.workspace.file("layers.yaml", format!("tiers:\n{}{}  - {{name: rest}}\n", tier("one"), tier("two")));
        bench
    }

    fn release(&mut self, name: &str, version: &str) {
        // Random enough not to shrink: 60 KiB.
        let noise: Vec<u8> = (0_u32..960).flat_map(|block| noise(&format!("{name} {version} {block}"))).collect();
        let package = Package::new(name, version).noarch_generic().file(&format!("share/{name}"), noise);
        self.channel.add(&package, Format::Conda);
        self.channel.index();
    }

    fn condaimg(&self, words: &[&str]) -> Command {
        let mut program = self.workspace.condaimg();
        program.args(words).args(["--base", "scratch", "--glibc", "2.36", "--override-channels", "--channel"]);
        program.arg(&self.channel.folder).env("CONDAIMG_LAYERS", "layers.yaml");
        program
    }
}

/// 64 hexadecimal digits of a text.
fn noise(text: &str) -> Vec<u8> {
    condaimg::util::Digest::of(text).hex().as_bytes().to_vec()
}

fn told(command: &mut Command) -> String {
    String::from_utf8(run_output(command).stderr).expect("UTF-8")
}

/// JSON lines, each with `event` and `step`.
fn events(stderr: &[u8]) -> Vec<Value> {
    let text = std::str::from_utf8(stderr).expect("UTF-8");
    let events: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect();
    for event in &events {
        assert!(event["event"].is_string() && event.get("step").is_some(), "{event}");
    }
    events
}

fn named<'a>(events: &'a [Value], name: &str) -> Vec<&'a Value> {
    events.iter().filter(|event| event["event"] == name).collect()
}

/// The names of the layers in the table.
fn listed(told: &str) -> Vec<&str> {
    let rows = told.lines().skip_while(|line| !line.starts_with("layer ")).skip(1);
    rows.take_while(|line| line.contains("  ")).filter_map(|line| line.split(' ').next()).collect()
}

#[test]
fn build_says_first_what_it_makes() {
    let bench = Bench::new();
    let build =
        || bench.condaimg(&["build", "--tag", "registry.example/team/env:1", "--output", "oci-archive:env.tar"]);
    let first = told(&mut build());
    let line = first.lines().next().expect("a line");
    for part in ["environment.yml", "scratch", "linux/amd64", "registry.example/team/env:1", "oci-archive:env.tar"] {
        assert!(line.contains(part), "{part}: {first}");
    }
    let wrote: Vec<&str> = first.lines().filter(|line| line.contains("wrote the lock")).collect();
    assert!(wrote.len() == 1 && wrote[0].contains("condaimg.lock") && wrote[0].contains("2 packages"), "{first}");
    assert!(!told(&mut build()).contains("wrote the lock"), "it is current");
    assert!(told(&mut bench.condaimg(&["lock"])).contains("`condaimg.lock`"));
    for unit in [" kB", " MB", " GB"] {
        assert!(!first.contains(unit), "{first}");
    }
}

#[test]
fn pushed_table_lists_only_new_layers() {
    let (mut bench, registry) = (Bench::new(), LocalRegistry::start(Mode::Plain));
    let tag = |name: &str| format!("{}/team/env:{name}", registry.host());
    let push = |bench: &Bench, name: &str| bench.condaimg(&["build", "--push", "--tag", &tag(name)]);
    let first = told(&mut push(&bench, "1"));
    assert_eq!(listed(&first), ["one", "two", "environment"], "{first}");
    assert!(first.contains("3 of 3 layers new, "), "{first}");

    bench.release("two", "2.0");
    let upgrade = events(&run_output(&mut bench.condaimg(&["lock", "--upgrade", "--progress", "json"])).stderr);
    let change = |field: &str| named(&upgrade, "lock-change")[0][field].clone();
    assert_eq!(["kind", "name", "before", "after"].map(change), ["conda", "two", "1.0 0", "2.0 0"].map(Value::from));
    let before: BTreeSet<String> = registry.uploads().into_iter().collect();
    // Another tag, and another cache: what the repository has counts, not what this machine has made.
    let mut second = push(&bench, "2");
    second.env("CONDAIMG_CACHE_DIR", bench.workspace.path("other")).args(["--progress", "json"]);
    let output = run_output(&mut second);
    let events = events(&output.stderr);
    let result = events.last().expect("an event");
    let new = result["platforms"][0]["new"].as_array().expect("layers");
    let names: Vec<&Value> = new.iter().map(|layer| &layer["name"]).collect();
    assert_eq!(names, ["two", "environment"]);
    assert_eq!((&result["layers"], &result["new-layers"]), (&json!(3), &json!(2)));
    let sent: BTreeSet<String> = registry.uploads().into_iter().collect();
    assert!(new.iter().all(|layer| sent.contains(layer["digest"].as_str().expect("a digest"))));
    assert!(new.iter().all(|layer| !before.contains(layer["digest"].as_str().expect("a digest"))));
    let bytes: u64 = new.iter().filter_map(|layer| layer["size-bytes"].as_u64()).sum();
    assert!(bytes > 30_000 && result["pull-bytes"].as_u64() == Some(bytes), "{result}");

    let third = told(&mut push(&bench, "2"));
    assert!(listed(&third).is_empty() && third.contains("0 of 3 layers new, 0 B to pull"), "{third}");
    let all = told(push(&bench, "2").arg("--all-layers"));
    assert_eq!(listed(&all), ["one", "two", "environment"], "{all}");
}

#[test]
fn layout_table_lists_what_the_layout_lacked() {
    let mut bench = Bench::new();
    let build = |bench: &Bench, output: &str| told(&mut bench.condaimg(&["build", "--output", output]));
    assert!(build(&bench, "oci:image").contains("3 of 3 layers new, "));
    assert!(build(&bench, "oci:image").contains("0 of 3 layers new, 0 B to pull"));
    bench.release("one", "2.0");
    succeed(&mut bench.condaimg(&["lock", "--upgrade"]));
    let changed = build(&bench, "oci:image");
    assert_eq!(listed(&changed), ["one", "environment"], "{changed}");
    // Known to the cache, new to this layout.
    assert!(build(&bench, "oci:other").contains("3 of 3 layers new, "));
    // An archive is written whole: what was made counts.
    assert!(build(&bench, "oci-archive:a.tar").contains("0 of 3 layers new, "));
}

#[test]
fn json_lines_have_fields() {
    let (bench, registry) = (Bench::new(), LocalRegistry::start(Mode::Plain));
    let tag = format!("{}/team/env:1", registry.host());
    let mut build = bench.condaimg(&["build", "--push", "--tag", &tag, "--output", "oci:image", "--progress", "json"]);
    let output = run_output(&mut build);
    let events = events(&output.stderr);
    let start = &events[0];
    assert_eq!(
        (&start["event"], &start["command"], &start["base"]),
        (&json!("start"), &json!("build"), &json!("scratch"))
    );
    assert_eq!((&start["base-from"], &start["push"]), (&json!("given"), &json!(true)));
    assert_eq!((&start["platforms"], &start["tags"]), (&json!(["linux/amd64"]), &json!([tag])));
    assert_eq!(start["outputs"], json!(["oci:image"]));
    let lock = named(&events, "lock");
    assert_eq!((&lock[0]["written"], &lock[0]["platforms"][0]["packages"]), (&json!(true), &json!(2)));
    // What begins ends, with what it did.
    let steps = |name: &str| -> Vec<String> {
        let mut steps: Vec<String> = named(&events, name).iter().map(|event| event["step"].to_string()).collect();
        steps.sort();
        steps
    };
    assert_eq!(steps("begin"), steps("end"));
    let end = |step: &str| {
        let end = named(&events, "end").into_iter().find(|event| event["step"] == step);
        let end = end.unwrap_or_else(|| panic!("no {step}"));
        assert!(end["ok"] == true && end["seconds"].is_number() && end.get("message").is_none(), "{end}");
        end
    };
    assert_eq!((&end("solve")["packages"], &end("solve")["channels"]), (&json!(2), &json!(1)));
    assert!(end("pack")["layers"] == 2 && end("pack")["uncompressed-bytes"].is_u64());
    assert_eq!(end("write")["output"], "oci:image");
    let push = end("push");
    assert_eq!((&push["moved"], &push["mounted"]), (&json!(true), &json!(0)));

    let result = events.last().expect("an event");
    let digest = result["digest"].as_str().expect("a digest");
    let printed = String::from_utf8(output.stdout).expect("UTF-8");
    assert_eq!(printed, format!("{}/team/env@{digest}\n", registry.host()));
    assert_eq!((&result["event"], &result["command"]), (&json!("result"), &json!("build")));
    assert_eq!(result["references"], json!([printed.trim()]));
    assert_eq!((&result["tags"], &result["pushed"]), (&json!([tag]), &json!(true)));
    assert_eq!((&result["layers"], &result["new-layers"]), (&json!(3), &json!(3)));
    assert!(result["uploaded-bytes"].as_u64() > result["pull-bytes"].as_u64(), "{result}");
    assert_eq!(named(&events, "result").len(), 1);
}

#[test]
fn every_command_ends_with_a_result() {
    let (bench, registry) = (Bench::new(), LocalRegistry::start(Mode::Plain));
    let digest = succeed(&mut bench.condaimg(&["build"]));
    let last = |command: &mut Command| {
        let output = run_output(command.args(["--progress", "json"]));
        events(&output.stderr).last().expect("an event").clone()
    };
    let result = last(&mut bench.condaimg(&["lock"]));
    assert_eq!((&result["event"], &result["command"]), (&json!("result"), &json!("lock")));
    assert_eq!(last(&mut bench.condaimg(&["plan"]))["command"], "plan");
    let tag = format!("{}/team/env:1", registry.host());
    let result = last(bench.workspace.condaimg().args(["push", "image", &tag]));
    assert_eq!(result["digest"].as_str(), Some(digest.trim()));
    assert_eq!(result["destinations"][0]["destination"], json!(tag));
    let result = last(bench.workspace.condaimg().args(["copy", &tag, "oci:copy"]));
    assert_eq!((&result["command"], result["digest"].as_str()), (&json!("copy"), Some(digest.trim())));
}

#[test]
fn failure_in_json_ends_with_an_error() {
    let bench = Bench::new();
    bench.workspace.file("environment.yml", environment(&["missing"]));
    let error = |command: &mut Command, status: i32| {
        let stderr = fail(command, status);
        let events = events(stderr.as_bytes());
        let error = events.last().expect("an event").clone();
        assert_eq!((&error["event"], &error["exit-status"]), (&json!("error"), &json!(status)), "{stderr}");
        assert!(error["causes"].is_array() && named(&events, "error").len() == 1, "{stderr}");
        error
    };
    let unsolved = error(&mut bench.condaimg(&["build", "--progress", "json"]), 1);
    assert!(unsolved["kind"] == "user" && unsolved.to_string().contains("missing"), "{unsolved}");
    let refused = error(&mut bench.condaimg(&["build", "--progress", "json", "--locked"]), 1);
    assert!(refused["message"].as_str().expect("text").contains("condaimg.lock"), "{refused}");
    assert!(!refused["hints"].as_array().expect("hints").is_empty(), "{refused}");
    let wrong = error(&mut bench.condaimg(&["build", "--progress", "json", "--jobs", "0"]), 2);
    assert_eq!(wrong["kind"], "usage");
    let unknown = error(&mut bench.condaimg(&["build", "--progress=json", "--nonsense"]), 2);
    assert!(unknown["kind"] == "usage" && unknown.to_string().contains("--nonsense"), "{unknown}");
}

#[test]
fn interrupted_build_in_json_ends_with_an_error() {
    let bench = Bench::new();
    let (_listener, url) = silent();
    let mut build = bench.workspace.condaimg();
    build.args(["build", "--base", "scratch", "--glibc", "2.36", "--override-channels", "--channel", &url]);
    build.args(["--progress", "json", "-v"]);
    let child = build.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("runs");
    std::thread::sleep(Duration::from_secs(2));
    succeed(program("kill", "procps").args(["-INT", &child.id().to_string()]));
    let output = child.wait_with_output().expect("ends");
    let events = events(&output.stderr);
    let error = events.last().expect("an event");
    assert_eq!(
        (&error["event"], &error["kind"], &error["exit-status"]),
        (&json!("error"), &json!("interrupted"), &json!(130))
    );
    assert_eq!(named(&events, "error").len(), 1);
}

#[test]
fn quiet_build_says_nothing() {
    let bench = Bench::new();
    for style in ["plain", "json", "tty"] {
        let output = run_output(&mut bench.condaimg(&["build", "-q", "--progress", style]));
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{style}");
        assert!(String::from_utf8_lossy(&output.stdout).starts_with("sha256:"));
    }
}

#[test]
fn colour_is_only_for_terminals() {
    let bench = Bench::new();
    let stderr = |command: &mut Command| String::from_utf8(run_output(command).stderr).expect("UTF-8");
    for command in [
        bench.condaimg(&["build"]).env("CI", "true"),
        bench.condaimg(&["build", "--progress", "tty"]).env("NO_COLOR", "1"),
        &mut bench.condaimg(&["build", "-vv"]),
    ] {
        let told = stderr(command);
        assert!(!told.contains("\x1b[33m") && !told.contains("\x1b[0m"), "{told:?}");
    }
}

/// A channel that takes connections and answers nobody.
fn silent() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
    let url = format!("http://{}/channel", listener.local_addr().expect("has one"));
    (listener, url)
}

/// Waits for a line; how long that took.
fn wait_for(child: &mut Child, has: impl Fn(&str) -> bool) -> (String, Duration) {
    let begun = Instant::now();
    let lines = BufReader::new(child.stderr.take().expect("a pipe")).lines().map_while(Result::ok);
    let found = lines.take_while(|_| begun.elapsed() < Duration::from_secs(25)).find(|line| has(line));
    (found.expect("such a line"), begun.elapsed())
}

#[test]
fn step_without_terminal_has_a_heartbeat() {
    let bench = Bench::new();
    let (_listener, url) = silent();
    let spawn = |style: &str| {
        let mut build = bench.workspace.condaimg();
        build.args(["build", "--base", "scratch", "--glibc", "2.36", "--override-channels", "--channel", &url]);
        build.args(["--progress", style]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("runs")
    };
    let (mut plain, mut json) = (spawn("plain"), spawn("json"));
    let (line, took) = wait_for(&mut plain, |line| line.starts_with("solve"));
    let (event, _) = wait_for(&mut json, |line| line.contains("\"progress\""));
    for mut child in [plain, json] {
        child.kill().expect("kills");
        child.wait().expect("ends");
    }
    assert!(
        line.contains("10 s") && took > Duration::from_secs(9) && took < Duration::from_secs(15),
        "{line} {took:?}"
    );
    let event: Value = serde_json::from_str(&event).expect("JSON");
    assert!(event["step"] == "solve" && event["seconds"].as_f64() >= Some(9.0), "{event}");
}

#[test]
fn requests_are_shown_without_secrets() {
    let workspace = Workspace::new();
    let mut channel = Channel::new(workspace.path("served/t/tk-hush-token/channel"));
    channel.add(&Package::new("one", "1.0").noarch_generic().file("share/one", "one"), Format::Conda);
    channel.index();
    workspace.file("environment.yml", environment(&["one"]));
    let server = FileServer::start(workspace.path("served"));
    server.require(&basic("me", "hush-password"));
    let url = format!("http://me:hush-password@{}/t/tk-hush-token/channel", server.host());
    let registry = LocalRegistry::start(Mode::Token);
    let run = |level: &str, style: &str| {
        let tag = format!("{}/team/{style}{level}:1", registry.host());
        let mut build = workspace.condaimg();
        build.args(["build", "--base", "scratch", "--glibc", "2.36", "--override-channels", "--channel", &url]);
        build.args(["--push", "--tag", &tag, level, "--progress", style]);
        build.env("CONDAIMG_CACHE_DIR", workspace.path(&format!("cache-{level}-{style}")));
        build.env("CONDAIMG_REGISTRY_USERNAME", USER).env("CONDAIMG_REGISTRY_PASSWORD", PASSWORD);
        told(&mut build)
    };
    let shown = format!("http://{}/channel/noarch/one-1.0-0.conda", server.host());
    let mut said = run("-vv", "plain");
    let request = |said: &str, parts: &[&str]| said.lines().any(|line| parts.iter().all(|part| line.contains(part)));
    assert!(request(&said, &["GET", &shown, "200"]), "{said}");
    // Blobs, the manifest, the token server.
    assert!(request(&said, &["PUT", "/v2/team/plain-vv/blobs/uploads/", "?***", "201"]), "{said}");
    assert!(request(&said, &["PUT", "/v2/team/plain-vv/manifests/1", "201"]), "{said}");
    assert!(request(&said, &[registry.tokens().realm().as_str()]), "{said}");

    let json = run("-vv", "json");
    let events = events(json.as_bytes());
    let puts: Vec<&Value> =
        named(&events, "log").into_iter().filter(|event| event["fields"]["method"] == "PUT").collect();
    assert!(puts.iter().any(|put| put["fields"]["status"] == 201 && put["fields"]["milliseconds"].is_u64()), "{json}");
    assert_eq!(events.last().expect("an event")["event"], "result");
    said += &json;
    let less = run("-v", "plain");
    assert!(!less.contains("method="), "{less}");
    said += &less;
    let tokens = registry.tokens().tokens();
    assert!(!tokens.is_empty());
    let mut secrets = vec!["hush".to_owned(), PASSWORD.to_owned(), basic(USER, PASSWORD).replace("Basic ", "")];
    secrets.push(basic("me", "hush-password").replace("Basic ", ""));
    secrets.extend(tokens.iter().filter_map(|token| Some(token.rsplit_once('.')?.1.to_owned())));
    for secret in &secrets {
        assert!(!said.contains(secret.as_str()), "{secret}");
    }
    for word in ["authorization", "Bearer", "Basic "] {
        assert!(!said.to_lowercase().contains(&word.to_lowercase()), "{word}: {said}");
    }
}

/// What strangers write to steer a terminal or a CI system.
const HOSTILE: &str = "x\u{1b}[2J\u{202e}\n::error::told\r##vso[task.x]";

/// Nothing in a log steers a terminal, hides, or is a command of a CI system.
fn assert_harmless(text: &str) {
    let hidden = |char: char| char != '\n' && char != '\t' && (char.is_control() || char == '\u{202e}');
    assert!(!text.contains(hidden) && !text.contains("##vso["), "{text:?}");
    assert!(text.lines().all(|line| !line.trim_start().starts_with("::")), "{text:?}");
}

#[test]
fn texts_of_strangers_are_shown_escaped() {
    let mut bench = Bench::new();
    let json = serde_json::to_string(HOSTILE).expect("has a form");
    bench.workspace.file("environment.yml", format!("dependencies: [one, two]\n{json}: 1\n"));
    let path = format!("share/{}", HOSTILE.replace('\n', ""));
    for name in ["one", "two"] {
        let package = Package::new(name, "2.0").noarch_generic().file(&path, name.as_bytes());
        bench.channel.add(&package, Format::Conda);
    }
    bench.channel.index();
    for style in ["plain", "json", "tty"] {
        let command =
            || bench.condaimg(&["build", "--progress", style, "--color", "never", "-v", "--layers", "default"]);
        let stderr = told(&mut command());
        assert_harmless(&stderr);
        assert!(stderr.contains("1b") && stderr.contains("error::told"), "{stderr}");
        fs_err::remove_dir_all(bench.workspace.path("image")).expect("removes");
    }
    let plan = succeed(&mut bench.condaimg(&["plan", "-v", "--layers", "default"]));
    assert_harmless(&plan);
}

#[test]
fn answers_of_servers_are_shown_escaped() {
    let bench = Bench::new();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let body = json!({"errors": [{"code": "DENIED", "message": HOSTILE}]}).to_string();
            let mut stream = BufReader::new(stream);
            let mut line = String::new();
            while stream.read_line(&mut line).is_ok_and(|length| length > 2) {
                line.clear();
            }
            let head =
                "HTTP/1.1 403 Forbidden\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length:";
            let _ = write!(stream.get_mut(), "{head} {}\r\n\r\n{body}", body.len());
        }
    });
    for style in ["plain", "json"] {
        let target = format!("127.0.0.1:{port}/team/x:1");
        let mut command = bench.condaimg(&["build", "--push", "-t", &target, "--progress", style, "-v"]);
        let output = command.output().expect("runs");
        let stderr = String::from_utf8(output.stderr).expect("UTF-8");
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains("403") && stderr.contains("error::told"), "{stderr}");
        assert_harmless(&stderr);
    }
}
