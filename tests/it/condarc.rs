//! conda's configuration, against channels on loopback: names, mirrors, tokens, stores, certificates, proxies, priority.

use std::path::PathBuf;
use std::process::Command;

use crate::common::file_server::FileServer;
use crate::common::forward_proxy::Proxy;
use crate::common::packages::Channel;
use crate::common::registry::{Fake, free_port};
use crate::common::token_server::basic;
use crate::common::{Workspace, certificates, fail, run_output, succeed};

/// A workspace with channels behind a server.
pub struct Bench {
    pub workspace: Workspace,
    pub server: FileServer,
}

impl Bench {
    /// With `lib` 1.0 in the channel `path` of the server.
    pub fn new(path: &str) -> Self {
        let workspace = Workspace::new();
        let server = FileServer::start(workspace.path("served"));
        let bench = Self { workspace, server };
        bench.channel(path, &[("lib", "1.0", &[])]);
        bench
    }

    /// Adds a channel to the server.
    fn channel(&self, path: &str, packages: &[(&str, &str, &[&str])]) {
        Channel::new(self.served(path)).add_all(packages);
    }

    pub fn served(&self, path: &str) -> PathBuf {
        self.workspace.path(&format!("served/{path}"))
    }

    pub fn environment(&self, channels: &[&str], dependencies: &[&str]) {
        let text = serde_json::json!({"channels": channels, "dependencies": dependencies});
        self.workspace.file("environment.yml", text.to_string());
    }

    fn condarc(&self, text: &str) {
        self.workspace.file("home/.condarc", text.replace("SERVER", &self.server.url));
    }

    /// `condaimg COMMAND` on nothing, past every proxy of the caller's.
    fn condaimg(&self, command: &str) -> Command {
        let mut program = self.workspace.condaimg();
        for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "NETRC"] {
            program.env_remove(name).env_remove(name.to_lowercase());
        }
        for name in ["SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"] {
            program.env_remove(name);
        }
        program.args([command, "--base", "scratch", "--glibc", "2.36"]);
        program
    }

    pub fn lock(&self) -> Command {
        self.condaimg("lock")
    }

    pub fn text(&self) -> String {
        fs_err::read_to_string(self.workspace.path("condaimg.lock")).expect("a lock")
    }

    /// As on another machine that has only the environment.
    pub fn forget(&self) {
        let _ = fs_err::remove_file(self.workspace.path("condaimg.lock"));
        let _ = fs_err::remove_dir_all(self.workspace.path("cache"));
    }
}

/// What a command that succeeds says to people.
fn told(command: &mut Command) -> String {
    String::from_utf8(run_output(command).stderr).expect("UTF-8")
}

#[test]
fn names_are_where_the_configuration_says_and_the_lock_tells() {
    let bench = Bench::new("alias/main");
    bench.channel("own/team", &[("tool", "1.0", &["lib"])]);
    bench.condarc(
        "channels: [many]\nchannel_alias: SERVER/alias\ncustom_channels: {team: SERVER/own}\n\
         custom_multichannels: {many: [main, SERVER/own/team]}\nauto_activate_base: [odd]\n",
    );
    bench.environment(&[], &["tool"]);
    let notices = told(&mut bench.lock());
    assert!(notices.contains("names no channel: those of") && notices.contains(".condarc` are searched"), "{notices}");
    let lock = bench.text();
    for part in ["/alias/main", "/own/team"] {
        assert!(lock.contains(&format!("- {}{part}", bench.server.url)), "{lock}");
    }
    assert!(lock.contains("channel-urls:") && lock.contains("many:"), "{lock}");
    succeed(bench.lock().arg("--check"));
    // The same names mean nothing, or something else, elsewhere: no build takes the lock for what it would make.
    let stale = fail(bench.lock().args(["--check", "--no-condarc"]), 1);
    assert!(stale.contains("channels: - many") && stale.contains("channel names: - `many` is"), "{stale}");
    bench.condarc("channels: [many]\ncustom_multichannels: {many: [SERVER/own/team]}\n");
    assert!(fail(bench.lock().arg("--check"), 1).contains("channel names: + `many` is"));

    // What an environment or a flag names goes before; a package's own channel is looked up, too.
    bench.condarc("channels: [nowhere]\nchannel_alias: SERVER/alias\ncustom_channels: {team: SERVER/own}\n");
    bench.environment(&["main"], &["team::tool"]);
    bench.forget();
    let notices = told(&mut bench.lock());
    assert!(!notices.contains("names no channel"), "{notices}");
    assert!(bench.text().contains("tool-1.0"));
    bench.environment(&[], &["tool"]);
    succeed(bench.lock().args(["--channel", "main", "--channel", "team"]));
    bench.environment(&["nodefaults"], &["tool"]);
    assert!(fail(&mut bench.lock(), 1).contains("names no channel"));
}

#[test]
fn a_name_that_means_the_same_everywhere_leaves_the_lock_as_it_is() {
    let bench = Bench::new("main");
    let channel = format!("{}/main", bench.server.url);
    bench.environment(&[&channel], &["lib"]);
    succeed(&mut bench.lock());
    let lock = bench.text();
    bench.forget();
    bench.condarc("channel_alias: SERVER/other\nssl_verify: true\nremote_max_retries: 1\nchannels: [a]\n");
    succeed(&mut bench.lock());
    assert_eq!(bench.text(), lock);
    // What a variable stands for is of this machine, and told.
    bench.forget();
    bench.environment(&["http://${SOME_HOST}/main"], &["lib"]);
    succeed(bench.lock().env("SOME_HOST", bench.server.host()));
    assert!(bench.text().contains("channel-urls:"), "{}", bench.text());
    bench.environment(&["http://${SOME_USER}@${SOME_HOST}/main"], &["lib"]);
    let unset = fail(&mut bench.lock(), 1);
    assert!(unset.contains("`SOME_USER`, which is not set"), "{unset}");
}

#[test]
fn mirrors_are_asked_and_leave_no_trace_in_the_lock() {
    let bench = Bench::new("main");
    let mirror = FileServer::start(bench.served(""));
    let channel = format!("{}/main", bench.server.url);
    bench.environment(&[&channel], &["lib"]);
    succeed(&mut bench.lock());
    let lock = bench.text();
    let asked = bench.server.seen("").len();
    assert!(asked > 0);

    let dead = format!("http://127.0.0.1:{}/main", free_port());
    let by_conda = format!("mirrored_channels: {{'{channel}': ['{dead}', '{}/main']}}\n", mirror.url);
    bench.condarc(&by_conda);
    bench.forget();
    succeed(&mut bench.lock());
    assert_eq!(bench.text(), lock, "a mirror changes no byte");
    assert_eq!(bench.server.seen("").len(), asked, "the channel's own server is left alone");
    assert!(!mirror.seen("noarch/repodata.json").is_empty() && !mirror.seen("lib-1.0").is_empty());

    // A build from the lock downloads from the mirror.
    fs_err::remove_dir_all(bench.workspace.path("cache")).expect("removes");
    let downloads = mirror.seen("lib-1.0").len();
    let digest = succeed(bench.condaimg("build").arg("--locked"));
    assert!(mirror.seen("lib-1.0").len() > downloads && bench.server.seen("").len() == asked);

    // So does rattler's and pixi's configuration.
    bench.condarc("");
    for file in ["home/.config/rattler/config.toml", "home/.pixi/config.toml"] {
        let text = format!("[mirrors]\n\"{}\" = [\"oci://host.example/x\", \"{}/\"]\n", bench.server.url, mirror.url);
        let file = bench.workspace.file(file, text);
        bench.forget();
        succeed(&mut bench.lock());
        assert_eq!((bench.text(), bench.server.seen("").len()), (lock.clone(), asked));
        assert_eq!(succeed(bench.condaimg("build").arg("--locked")), digest);
        fs_err::remove_file(file).expect("removes");
    }
    bench.forget();
    succeed(&mut bench.lock());
    assert!(bench.server.seen("").len() > asked, "without mirrors it is asked again");
}

#[test]
fn a_mirror_that_fails_is_named() {
    let bench = Bench::new("main");
    let channel = format!("{}/main", bench.server.url);
    bench.environment(&[&channel], &["lib"]);
    let dead = format!("http://me:hush@127.0.0.1:{}/t/tk-hush/x", free_port());
    let shown = format!("http://127.0.0.1:{}/x/", dead.split(':').next_back().unwrap().split('/').next().unwrap());
    bench.condarc(&format!("mirrored_channels: {{'{channel}': ['{dead}']}}\nremote_max_retries: 4\n"));
    let message = fail(bench.lock().arg("-vv"), 1);
    assert!(message.contains(&format!("the channel `{channel}/` cannot be read")), "{message}");
    assert!(
        message.contains(&format!("its mirror `{shown}`")) && message.contains("free (proxy, firewall)"),
        "{message}"
    );
    assert!(!message.contains("hush"), "{message}");
    // One that lacks an archive.
    bench.condarc(&format!("mirrored_channels: {{'{channel}': ['SERVER/mirror']}}\n"));
    bench.channel("mirror", &[("lib", "1.0", &[])]);
    fs_err::remove_file(bench.served("mirror/linux-64/lib-1.0-0.conda")).expect("removes");
    let message = fail(&mut bench.lock(), 1);
    assert!(
        message.contains("404") && message.contains("asked at") && message.contains("/mirror/linux-64"),
        "{message}"
    );
    bench.condarc(&format!("mirrored_channels: {{'{channel}': ['oci://host.example/x']}}\n"));
    assert!(told(&mut bench.lock()).contains("mirrors by `oci://` are not supported"));
}

#[test]
fn tokens_of_anaconda_go_into_the_url() {
    let bench = Bench::new("t/tk-hush/team");
    let name = bench.server.url.replace(':', "%3A").replace('/', "%2F");
    let file = bench.workspace.file(&format!("home/.config/binstar/{name}.token"), "tk-hush\n");
    bench.environment(&[&format!("{}/team", bench.server.url)], &["lib"]);
    succeed(&mut bench.lock());
    assert!(!bench.text().contains("hush"), "{}", bench.text());
    assert!(bench.server.seen("").iter().all(|seen| seen.path.starts_with("/t/tk-hush/team/")));
    let doctor = succeed(bench.workspace.condaimg().env("CONDAIMG_BASE", "scratch").args([
        "doctor",
        "-c",
        &format!("{}/team", bench.server.url),
    ]));
    assert!(doctor.contains("there is one for") && !doctor.contains("hush"), "{doctor}");

    bench.forget();
    bench.condarc("add_anaconda_token: false\n");
    let message = fail(&mut bench.lock(), 1);
    assert!(message.contains("there is no channel"), "{message}");
    bench.condarc("");
    let own = bench.workspace.path("home/binstar/data");
    fs_err::create_dir_all(&own).expect("a folder");
    fs_err::rename(&file, own.join(file.file_name().expect("a name"))).expect("moves");
    assert!(fail(&mut bench.lock(), 1).contains("there is no channel"));
    succeed(bench.lock().env("BINSTAR_CONFIG_DIR", bench.workspace.path("home/binstar")));
}

#[test]
fn every_store_lets_in() {
    let bench = Bench::new("team");
    bench.channel("t/tk-hush/private", &[("lib", "1.0", &[])]);
    let stored = |value: serde_json::Value| serde_json::json!({ "127.0.0.1": value }).to_string();
    let pair = stored(serde_json::json!({"BasicHTTP": {"username": "me", "password": "hush"}}));
    let bearer = stored(serde_json::json!({"BearerToken": "hush"}));
    let token = stored(serde_json::json!({"CondaToken": "tk-hush"}));
    let netrc = "machine 127.0.0.1 login me password hush\n";
    for (file, content, wanted, channel) in [
        ("home/.rattler/credentials.json", pair.as_str(), basic("me", "hush"), "team"),
        ("home/.rattler/credentials.json", &bearer, "Bearer hush".to_owned(), "team"),
        ("home/auth.json", &bearer, "Bearer hush".to_owned(), "team"),
        ("home/.netrc", netrc, basic("me", "hush"), "team"),
        ("home/.rattler/credentials.json", &token, String::new(), "private"),
    ] {
        bench.environment(&[&format!("{}/{channel}", bench.server.url)], &["lib"]);
        if channel == "private" {
            bench.server.open();
        } else {
            bench.server.require(&wanted);
        }
        bench.forget();
        let condaimg = || {
            let mut lock = bench.lock();
            if file == "home/auth.json" {
                lock.env("RATTLER_AUTH_FILE", bench.workspace.path(file));
            }
            lock
        };
        let refused = fail(&mut condaimg(), 1);
        let expected = if channel == "private" { "there is no channel" } else { "refuses access" };
        assert!(refused.contains(expected), "{refused}");
        let file = bench.workspace.file(file, content);
        let said = told(condaimg().arg("-vv"));
        assert!(!said.contains("hush") && !bench.text().contains("hush"), "{said}");
        fs_err::remove_file(file).expect("removes");
    }
}

#[test]
fn credentials_of_the_configuration_go_to_its_places() {
    let bench = Bench::new("t/tk-hush/alias/main");
    bench.server.require(&basic("me", "hush"));
    bench.condarc("channel_alias: http://me:${PASSWORD}@HOST/t/tk-hush/alias\n");
    let condarc = fs_err::read_to_string(bench.workspace.path("home/.condarc")).expect("reads");
    bench.condarc(&condarc.replace("HOST", bench.server.host()));
    bench.environment(&["main"], &["lib"]);
    let said = told(bench.lock().env("PASSWORD", "hush").arg("-vv"));
    let lock = bench.text();
    assert!(!said.contains("hush") && !lock.contains("hush"), "{said}{lock}");
    assert!(lock.contains(&format!("{}/alias/main", bench.server.url)), "{lock}");
    // The whole URL of the same channel gets them, too.
    bench.forget();
    bench.environment(&[&format!("{}/alias/main", bench.server.url)], &["lib"]);
    succeed(bench.lock().env("PASSWORD", "hush"));
    let wrong = fail(bench.lock().env("PASSWORD", "wrong").args(["--upgrade", "-vv"]), 1);
    assert!(wrong.contains("refuses access") && !wrong.contains("hush"), "{wrong}");
}

#[test]
fn certificates_are_checked_as_the_configuration_says() {
    for (own_authority, mutual) in [(false, false), (true, false), (false, true)] {
        let bench = Bench::new("main");
        let keys = bench.workspace.path("keys");
        fs_err::create_dir_all(&keys).expect("a folder");
        if own_authority {
            certificates::self_signed(&keys);
        } else {
            certificates::signed(&keys);
            certificates::client(&keys);
        }
        let server = FileServer::start_tls(bench.served(""), &keys, mutual);
        bench.environment(&[&format!("{}/main", server.url)], &["lib"]);
        let message = fail(&mut bench.lock(), 1);
        assert!(message.contains("cannot be read") && message.contains("ertificate"), "{message}");
        assert!(message.contains("`ssl_verify` of a condarc"), "{message}");
        let ours = if mutual { "client_ssl_cert: keys/client.crt\nclient_ssl_cert_key: keys/client.key\n" } else { "" };

        bench.condarc(&format!("ssl_verify: $KEYS/ca.crt\n{ours}"));
        succeed(bench.lock().env("KEYS", &keys));
        let lock = bench.text();
        bench.forget();
        bench.condarc(ours);
        succeed(bench.lock().env("CONDA_SSL_VERIFY", keys.join("ca.crt")));
        bench.forget();
        succeed(bench.lock().env("REQUESTS_CA_BUNDLE", keys.join("ca.crt")));
        let unused = told(bench.lock().env("REQUESTS_CA_BUNDLE", "nowhere.pem"));
        assert!(unused.contains("`$REQUESTS_CA_BUNDLE` names `nowhere.pem`, which is not there"), "{unused}");
        bench.forget();
        fs_err::create_dir_all(bench.workspace.path("trusted")).expect("a folder");
        fs_err::copy(keys.join("ca.crt"), bench.workspace.path("trusted/ca.pem")).expect("copies");
        bench.workspace.file("trusted/README", "no certificate");
        bench.condarc(&format!("verify_ssl: trusted\n{ours}"));
        succeed(&mut bench.lock());
        bench.forget();
        bench.condarc(&format!("ssl_verify: false\n{ours}"));
        let warned = told(&mut bench.lock());
        assert!(warned.contains("warning: `ssl_verify: false`") && warned.contains("nobody checks"), "{warned}");
        assert_eq!(bench.text(), lock);
        bench.forget();
        let untrusted = fail(bench.lock().arg("--no-condarc"), 1);
        assert!(untrusted.contains("ertificate") && !untrusted.contains("warning"), "{untrusted}");
        if mutual {
            bench.condarc("ssl_verify: keys/ca.crt\n");
            assert!(fail(&mut bench.lock(), 1).contains("ertificate"));
        }
        for (text, expected) in [
            ("ssl_verify: keys/none.pem\n", "keys/none.pem"),
            ("ssl_verify: environment.yml\n", "holds no certificate in PEM form"),
            ("client_ssl_cert: keys/ca.crt\n", "holds no private key"),
        ] {
            bench.condarc(text);
            let message = fail(&mut bench.lock(), 1);
            assert!(message.contains(".condarc`) cannot be used") && message.contains(expected), "{message}");
        }
    }
}

#[test]
fn the_priority_is_that_of_the_flag_then_of_the_configuration() {
    let bench = Bench::new("first");
    bench.channel("second", &[("lib", "2.0", &[]), ("other", "1.0", &[])]);
    let channels = ["first", "second"].map(|name| format!("{}/{name}", bench.server.url));
    let channels: Vec<&str> = channels.iter().map(String::as_str).collect();
    let solved = |condarc: &str, flags: &[&str], dependency: &str| {
        bench.condarc(condarc);
        bench.environment(&channels, &[dependency]);
        let _ = fs_err::remove_file(bench.workspace.path("condaimg.lock"));
        succeed(bench.lock().args(flags));
        let lock = bench.text();
        let version = if lock.contains("lib-2.0") { "2.0" } else { "1.0" };
        let priority = lock.lines().find_map(|line| line.trim().strip_prefix("channel-priority: "));
        (version, priority.expect("a priority").to_owned())
    };
    let is = |version, priority: &str| (version, priority.to_owned());
    assert_eq!(solved("", &[], "lib"), is("1.0", "strict"));
    assert_eq!(solved("channel_priority: disabled\n", &[], "lib"), is("2.0", "disabled"));
    assert_eq!(solved("channel_priority: flexible\n", &[], "lib"), is("1.0", "flexible"));
    // Where strict has no solution, flexible has one.
    assert_eq!(solved("channel_priority: flexible\n", &[], "lib=2"), is("2.0", "flexible"));
    assert_eq!(solved("channel_priority: disabled\n", &["--channel-priority", "strict"], "lib"), is("1.0", "strict"));
    assert_eq!(solved("channel_priority: disabled\n", &["--no-condarc"], "lib"), is("1.0", "strict"));
    bench.condarc("channel_priority: disabled\n");
    let stale = fail(bench.lock().arg("--check"), 1);
    assert!(stale.contains("channel priority: `disabled` instead of `strict`"), "{stale}");
    bench.environment(&channels, &["lib=2"]);
    bench.condarc("");
    let message = fail(&mut bench.lock(), 1);
    assert!(message.contains("`--channel-priority flexible`"), "{message}");
}

#[test]
fn lists_forbid_channels() {
    let bench = Bench::new("alias/main");
    bench.condarc("channel_alias: SERVER/alias\nallowlist_channels: [other]\n");
    bench.environment(&["main"], &["lib"]);
    let message = fail(&mut bench.lock(), 1);
    assert!(
        message.contains("/alias/main/` is not in `allowlist_channels`") && message.contains(".condarc"),
        "{message}"
    );
    bench.condarc("channel_alias: SERVER/alias\nallowlist_channels: [other, main]\n");
    succeed(&mut bench.lock());
    bench.condarc("channel_alias: SERVER/alias\ndenylist_channels: [SERVER/alias/main]\n");
    let message = fail(&mut bench.lock(), 1);
    assert!(message.contains("is denied by `denylist_channels`"), "{message}");
    assert!(bench.server.seen("denied").is_empty());
    let message = fail(bench.lock().env("CONDA_DENYLIST_CHANNELS", "x").env("CONDA_WHITELIST_CHANNELS", "y"), 1);
    assert!(message.contains("denied") || message.contains("$CONDA_WHITELIST_CHANNELS"), "{message}");
}

#[test]
fn the_network_of_channels_can_be_switched_off() {
    let bench = Bench::new("main");
    bench.environment(&[&format!("{}/main", bench.server.url)], &["lib"]);
    bench.condarc("offline: true\n");
    let message = fail(&mut bench.lock(), 1);
    assert!(message.contains("not in the cache") && message.contains("`offline: true` ("), "{message}");
    assert!(bench.server.seen("").is_empty());
    assert!(!told(bench.lock().env("CONDA_OFFLINE", "0")).contains("`offline: true`"), "a variable wins");
}

#[test]
fn files_are_merged_and_their_mistakes_are_told() {
    let bench = Bench::new("main");
    bench.channel("more", &[("other", "1.0", &[])]);
    bench.environment(&[], &["lib", "other"]);
    bench.workspace.file("home/.conda/condarc.d/a.yml", format!("channels: ['{}/main']\n", bench.server.url));
    let own = bench.workspace.file("own.yml", format!("channels: ['{}/more']\n", bench.server.url));
    succeed(bench.lock().env("CONDARC", &own));
    let lock = bench.text();
    assert!(lock.find("/more").expect("is there") < lock.find("/main").expect("is there"), "{lock}");
    let both = format!("{0}/main,{0}/more", bench.server.url);
    let warned = told(bench.lock().env("CONDARC", "nowhere.yml").args(["--channel", &both]));
    assert!(warned.contains("`$CONDARC` names `nowhere.yml`, which is not there"), "{warned}");

    let verbose = told(bench.lock().env("CONDARC", &own).arg("-v"));
    assert!(verbose.contains("a.yml") && verbose.contains("own.yml") && verbose.contains("channels"), "{verbose}");

    for (text, expected) in [
        ("\nchannels: http://me:hush@host.example/a\n", ".condarc:2: `channels` must be a list of texts"),
        ("channel_priority: hush\n", "`channel_priority` ("),
        ("channels: [a\n", ".condarc:"),
        ("proxy_servers: {http: 'http://me:hu/sh@host'}\n", "the proxy for `http` is no URL"),
        ("custom_channels: {x: 'http://me:hush@host.example'}\nchannel_alias: hush\n", "`channel_alias` ("),
    ] {
        bench.condarc(text);
        let message = fail(bench.lock().env("CONDARC", &own), 1);
        assert!(message.contains(expected) && message.contains(".condarc"), "{expected}: {message}");
        assert!(!message.contains("hush") && !message.contains("hu/sh"), "{message}");
        succeed(bench.lock().args(["--no-condarc", "-c", &both]));
    }
    bench.condarc("channel_priority: strict #!final\n");
    assert!(told(bench.lock().env("CONDARC", &own)).contains("marks like `#!final` are not understood"));
}

#[test]
fn doctor_tells_what_the_configuration_decides() {
    let bench = Bench::new("alias/main");
    bench.condarc(
        "channel_alias: http://me:hush@HOST/alias\nssl_verify: false\nmirrored_channels: {x: ['http://me:hush@m.example/x']}\n",
    );
    let condarc = fs_err::read_to_string(bench.workspace.path("home/.condarc")).expect("reads");
    bench.condarc(&condarc.replace("HOST", bench.server.host()));
    let said =
        succeed(bench.workspace.condaimg().env("CONDAIMG_BASE", "scratch").args(["doctor", "--channel", "main"]));
    for part in [
        ".condarc is read",
        "`channel_alias` is set by",
        "nobody checks",
        "/alias/x/ is asked at http://m.example/x/",
        "/alias/main/ has noarch/repodata.json",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(!said.contains("hush"), "{said}");
    let without = succeed(bench.workspace.condaimg().env("CONDAIMG_BASE", "scratch").args(["doctor", "--no-condarc"]));
    assert!(without.contains("not read: `--no-condarc`") && !without.contains("is set by"), "{without}");
}

#[test]
fn proxies_of_the_configuration_and_the_environment_are_used_and_named() {
    let bench = Bench::new("main");
    let channel = format!("http://channel.test:{}/main", bench.server.port());
    bench.environment(&[&channel], &["lib"]);
    let proxy = Proxy::start(Some(basic("me", "hu@sh")));
    let with_password = format!("http://me:hu%40sh@{}", proxy.host);
    let secrets = ["hu@sh", "hu%40sh", &basic("me", "hu@sh")["Basic ".len()..]].map(str::to_owned);
    let clean = |text: String| {
        assert!(secrets.iter().all(|secret| !text.contains(secret)), "{text}");
        text
    };
    bench.condarc(&format!("proxy_servers: {{http: '{with_password}'}}\n"));
    clean(told(bench.lock().arg("-vv")));
    let seen = proxy.seen();
    assert!(!seen.is_empty() && seen.iter().all(|line| line.contains(&format!(" {channel}/"))), "{seen:?}");
    assert!(!clean(bench.text()).contains(&proxy.host));
    let lock = bench.text();

    // The environment's, if the configuration has none; NO_PROXY goes for both.
    bench.forget();
    bench.condarc("");
    clean(told(bench.lock().env("HTTP_PROXY", &with_password)));
    assert_eq!(bench.text(), lock);
    bench.forget();
    let before = proxy.seen().len();
    let direct = clean(fail(bench.lock().env("HTTP_PROXY", &with_password).env("NO_PROXY", ".test"), 1));
    assert!(!direct.contains("proxy `"), "{direct}");
    bench.condarc(&format!("proxy_servers: {{http: '{with_password}'}}\n"));
    clean(fail(bench.lock().env("NO_PROXY", ".test"), 1));
    assert_eq!(proxy.seen().len(), before);

    // Refusals and dead ones.
    bench.condarc(&format!("proxy_servers: {{http: 'http://me:hu%40sh%21@{}'}}\n", proxy.host));
    let refused = clean(fail(bench.lock().arg("-vv"), 1));
    assert!(refused.contains("the proxy refuses us (407)"), "{refused}");
    assert!(refused.contains(&format!("the proxy `http://{}` (`proxy_servers` in `", proxy.host)), "{refused}");
    let dead = format!("127.0.0.1:{}", free_port());
    bench.condarc("");
    let message = clean(fail(bench.lock().env("HTTP_PROXY", format!("http://me:hu%40sh@{dead}")), 1));
    assert!(message.contains(&format!("the proxy `http://{dead}` (`$HTTP_PROXY`)")), "{message}");
    assert!(message.contains("onnection refused"), "{message}");
}

#[test]
fn credentials_do_not_follow_a_redirect() {
    let bench = Bench::new("t/tk-hush/team");
    let elsewhere = format!("http://localhost:{}", bench.server.port());
    let target = format!("{elsewhere}/t/tk-hush/team");
    let first = Fake::start(move |_, request| {
        let path = request.line.split(' ').nth(1).unwrap_or_default();
        let rest = path.strip_prefix("/t/tk-own/team").unwrap_or("/nowhere");
        (302, vec![("location", format!("{target}{rest}"))], Vec::new())
    });
    bench.environment(&[&format!("http://me:hush@{}/t/tk-own/team", first.host)], &["lib"]);
    succeed(&mut bench.lock());
    let sent = basic("me", "hush");
    assert!(first.requests().iter().all(|request| request.headers.get("authorization") == Some(&sent)));
    let seen = bench.server.seen("");
    assert!(!seen.is_empty() && seen.iter().all(|seen| seen.authorization.is_none()), "{seen:?}");
    assert!(seen.iter().all(|seen| !seen.path.contains("tk-own")), "{seen:?}");
    assert!(!bench.text().contains("hush") && !bench.text().contains("tk-own"), "{}", bench.text());
}

#[test]
fn what_is_pinned_needs_no_channel_of_the_configuration() {
    let bench = Bench::new("t/tk-hush/main");
    let channel = format!("{}/main", bench.server.url);
    bench.environment(&["main"], &["lib"]);
    bench.condarc("channel_alias: SERVER/t/tk-hush\nchannels: [nowhere]\n");
    succeed(&mut bench.lock());
    let explicit = succeed(bench.lock().args(["--export", "explicit"]));
    assert!(explicit.contains(&channel) && !explicit.contains("hush"), "{explicit}");
    bench.forget();
    bench.workspace.file("explicit.txt", explicit);
    // Its URLs are below the alias, whose token goes along.
    let said = told(bench.condaimg("lock").arg("explicit.txt"));
    assert!(!said.contains("names no channel"), "{said}");
    succeed(bench.condaimg("lock").args(["explicit.txt", "--check", "--no-condarc"]));
}
