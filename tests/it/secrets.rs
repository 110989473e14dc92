//! No secret that a user gives condaimg is ever seen again: a build with secrets in every place that they can be in is
//! made, pushed and made to fail in many ways, and all that it leaves and says is searched for them.

use std::collections::BTreeMap;
use std::process::Command;

use crate::common::file_server::FileServer;
use crate::common::forward_proxy::Proxy;
use crate::common::needles::{Found, Needles};
use crate::common::packages::{Channel, Format, Package};
use crate::common::pypi::PackageIndex;
use crate::common::registry::{LocalRegistry, Mode, PASSWORD, USER, free_port};
use crate::common::token_server::basic;
use crate::common::watch::watched;
use crate::common::wheels::Wheel;
use crate::common::{Workspace, example_channel};

/// A text that is in a package, which must be found wherever the package is.
const KNOWN: &str = "kn0wn/in every+layer";

/// Who all passwords are for, but for that of the registry.
const WHO: &str = "me";

/// The secrets, by where they are given. A password in a URL is written with `%` codes there.
const SECRETS: [(&str, &str); 12] = [
    ("password in a channel's URL", "url+5ecret/pass"),
    ("token in a channel's URL", "tk-url-5ecret-1"),
    ("netrc", "netrc+5ecret/pass"),
    ("rattler's store", "store+5ecret/bearer"),
    ("token of anaconda", "an-5ecret-token-2"),
    ("condarc: channel", "condarc+5ecret/pass"),
    ("condarc: token", "tk-condarc-5ecret-3"),
    ("condarc: mirror", "mirror+5ecret/pass"),
    ("proxy", "proxy+5ecret/pass"),
    ("password in an index's URL", "index+5ecret/pass"),
    ("netrc of an index", "index-netrc-5ecret/pass"),
    ("password in the URL of a wheel", "wheel+5ecret/pass"),
];

fn secret(name: &str) -> &'static str {
    SECRETS.iter().find(|(known, _)| *known == name).expect(name).1
}

fn in_url(name: &str) -> String {
    url::form_urlencoded::byte_serialize(secret(name).as_bytes()).collect()
}

/// Everything that secrets are needed for: a channel behind a server of its own for each of them, and a registry.
struct Bench {
    workspace: Workspace,
    servers: BTreeMap<&'static str, FileServer>,
    proxy: Proxy,
    registry: LocalRegistry,
    /// All that was said so far.
    said: Vec<u8>,
    /// Arguments and environments of all processes that it started so far.
    children: Vec<u8>,
}

impl Bench {
    fn new() -> Self {
        let workspace = Workspace::new();
        let mut servers = BTreeMap::new();
        for (name, path, authorization) in [
            ("by-url", "c".to_owned(), Some(basic(WHO, secret("password in a channel's URL")))),
            ("by-token", format!("t/{}/c", secret("token in a channel's URL")), None),
            ("by-netrc", "c".to_owned(), Some(basic(WHO, secret("netrc")))),
            ("by-store", "c".to_owned(), Some(format!("Bearer {}", secret("rattler's store")))),
            ("by-anaconda", format!("t/{}/c", secret("token of anaconda")), None),
            ("by-condarc", "custom".to_owned(), Some(basic(WHO, secret("condarc: channel")))),
            ("by-alias", format!("t/{}/alias/named", secret("condarc: token")), None),
            ("by-mirror", "c".to_owned(), Some(basic(WHO, secret("condarc: mirror")))),
            ("by-proxy", "c".to_owned(), None),
        ] {
            let folder = workspace.path(&format!("servers/{name}"));
            let mut channel = Channel::new(folder.join(path));
            let package = Package::new(name, "1.0").file("share/known", KNOWN);
            channel.add(&package, if name == "by-url" { Format::TarBz2 } else { Format::Conda });
            channel.index();
            let server = FileServer::start(folder);
            if let Some(authorization) = authorization {
                server.require(&authorization);
            }
            servers.insert(name, server);
        }
        let proxy = Proxy::start(Some(basic(WHO, secret("proxy"))));
        let bench = Self {
            workspace,
            servers,
            proxy,
            registry: LocalRegistry::start(Mode::Auth),
            said: Vec::new(),
            children: Vec::new(),
        };
        bench.write();
        bench
    }

    fn port(&self, name: &str) -> u16 {
        self.servers[name].port()
    }

    /// The files of the user, each in its own place.
    fn write(&self) {
        let workspace = &self.workspace;
        let names: Vec<&str> = self.servers.keys().copied().collect();
        let channels = [
            format!("http://{WHO}:${{CHANNEL_PASSWORD}}@127.0.0.1:{}/c", self.port("by-url")),
            format!("http://localhost:{}/c", self.port("by-netrc")),
            format!("http://127.0.0.1:{}/c", self.port("by-store")),
            format!("http://localhost:{}/c", self.port("by-anaconda")),
            "custom".to_owned(),
            "named".to_owned(),
            "http://canonical.example/c".to_owned(),
            format!("http://channel.test:{}/c", self.port("by-proxy")),
        ];
        let environment = serde_json::json!({"name": "test", "channels": channels, "dependencies": names});
        workspace.file("environment.yml", environment.to_string());
        workspace.file("home/.netrc", format!("machine localhost login {WHO} password {}\n", secret("netrc")));
        let store = serde_json::json!({"127.0.0.1": {"BearerToken": secret("rattler's store")}});
        workspace.file("home/.rattler/credentials.json", store.to_string());
        let anaconda = format!("http%3A%2F%2Flocalhost%3A{}.token", self.port("by-anaconda"));
        workspace.file(&format!("home/.config/binstar/{anaconda}"), secret("token of anaconda"));
        workspace.file("home/.condarc", self.condarc());
    }

    fn condarc(&self) -> String {
        format!(
            "channel_alias: http://127.0.0.1:{}/t/{}/alias\n\
             custom_channels: {{custom: 'http://{WHO}:{}@127.0.0.1:{}'}}\n\
             mirrored_channels: {{'http://canonical.example/c': ['http://{WHO}:{}@127.0.0.1:{}/c']}}\n\
             proxy_servers: {{http: 'http://{WHO}:{}@{}'}}\n",
            self.port("by-alias"),
            secret("condarc: token"),
            in_url("condarc: channel"),
            self.port("by-condarc"),
            in_url("condarc: mirror"),
            self.port("by-mirror"),
            in_url("proxy"),
            self.proxy.host,
        )
    }

    fn flag(&self) -> String {
        format!("http://127.0.0.1:{}/t/{}/c", self.port("by-token"), secret("token in a channel's URL"))
    }

    fn condaimg(&self, arguments: &[&str]) -> Command {
        let mut command = self.workspace.condaimg();
        for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "NETRC"] {
            command.env_remove(name).env_remove(name.to_lowercase());
        }
        command.env("CHANNEL_PASSWORD", in_url("password in a channel's URL"));
        command.env("CONDAIMG_REGISTRY_USERNAME", USER).env("CONDAIMG_REGISTRY_PASSWORD", PASSWORD);
        command.args(arguments);
        command
    }

    /// `condaimg COMMAND` of the environment.
    fn environment(&self, command: &str, arguments: &[&str]) -> Command {
        let mut command = self.condaimg(&[command, "-vv", "--base", "scratch", "--glibc", "2.36"]);
        command.args(["--channel", &self.flag()]).args(arguments);
        command
    }

    /// Runs it, keeps what it says, and returns that.
    fn run(&mut self, command: &mut Command, status: i32) -> String {
        let (output, seen) = watched(command);
        self.children.extend(seen.arguments.into_iter().flatten());
        self.children.extend(seen.environments.into_iter().flat_map(|(_, environment)| environment));
        let said = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&said).into_owned();
        assert_eq!(output.status.code(), Some(status), "{command:?}: {text}");
        self.said.extend(&said);
        text
    }

    /// Everything but what the user wrote and what the servers have.
    fn search(&self, needles: &Needles) -> Found {
        let given = ["home", "servers", "environment.yml"].map(|name| self.workspace.path(name));
        let mut found = needles.below(&self.workspace.path(""), &given);
        found.extend(needles.below(&self.registry.data(), &[]));
        let said = needles.within(&self.said);
        if !said.is_empty() {
            found.insert("what was said".into(), said);
        }
        let children = needles.within(&self.children);
        if !children.is_empty() {
            found.insert("what children were given".into(), children);
        }
        found
    }
}

/// All secrets, those of the registry and of pip's indexes too.
fn secrets() -> Needles {
    let mut needles = Needles::default();
    for (name, text) in SECRETS {
        needles.add(name, text, WHO);
    }
    needles.add("the registry's password", PASSWORD, USER);
    needles
}

/// Everything that succeeds with all secrets in their places.
fn build_and_push(bench: &mut Bench) {
    let tag = format!("{}/team/env:1", bench.registry.host());
    let lock = bench.run(&mut bench.environment("lock", &[]), 0);
    assert!(lock.contains("9 packages"), "{lock}");
    bench.run(&mut bench.environment("lock", &["--check"]), 0);
    for form in ["explicit", "pixi"] {
        let exported = bench.run(&mut bench.environment("lock", &["--export", form]), 0);
        fs_err::write(bench.workspace.path(form), exported).expect("writes");
    }
    fs_err::remove_dir_all(bench.workspace.path("cache")).expect("removes");
    let outputs = ["oci:layout", "oci-archive:image.tar", "docker-archive:docker.tar"];
    let mut build = bench.environment("build", &["--push", "--tag", &tag, "--metadata-file", "metadata.json"]);
    build.args(outputs.iter().flat_map(|output| ["--output", output]));
    bench.run(&mut build, 0);
    // Once more without anything in the cache, in the form for machines.
    fs_err::rename(bench.workspace.path("cache"), bench.workspace.path("cache-of-the-first")).expect("renames");
    let mut again = bench.environment("build", &["--progress", "json", "--compression", "zstd"]);
    bench.run(again.args(["--output", "oci:zstd"]), 0);
    let doctor = ["doctor", "-vv", "--json", "--channel", "custom,named", "--channel", &bench.flag()];
    bench.run(bench.condaimg(&doctor).env("CONDAIMG_BASE", "scratch"), 0);
    bench.run(bench.condaimg(&["doctor", &bench.registry.host()]).env("CONDAIMG_BASE", "scratch"), 0);
}

/// The same when something is wrong.
fn fail_in_many_ways(bench: &mut Bench) {
    fs_err::remove_dir_all(bench.workspace.path("cache")).expect("removes");
    fs_err::rename(bench.workspace.path("condaimg.lock"), bench.workspace.path("first.lock")).expect("renames");
    let home = |name: &str| bench.workspace.path(&format!("home/{name}"));
    let broken = [
        (home(".netrc"), format!("machine localhost login {WHO} passwort {}\n", secret("netrc"))),
        (
            home(".rattler/credentials.json"),
            format!("{{\"127.0.0.1\": {{\"Bearer\": \"{}\"}}}}", secret("rattler's store")),
        ),
        (home(".condarc"), bench.condarc().replace("channel_alias: ", "channels: ")),
        (home(".condarc"), bench.condarc().replace("'}\n", "\n")),
        (home(".condarc"), bench.condarc().replace("http: 'http://", "http: 'h ttp://")),
        (
            home(".pixi/config.toml"),
            format!("[mirrors]\n\"http://a.example\" = \"http://me:{}@b.example\"\n", secret("proxy")),
        ),
    ];
    for (file, text) in broken {
        let good = fs_err::read(&file).ok();
        fs_err::create_dir_all(file.parent().expect("a parent")).expect("a folder");
        fs_err::write(&file, text).expect("writes");
        bench.run(&mut bench.environment("build", &[]), 1);
        let _ = bench.condaimg(&["doctor", "-vv", "--channel", "custom"]).env("CONDAIMG_BASE", "scratch").output().map(
            |it| {
                bench.said.extend(it.stdout);
                bench.said.extend(it.stderr);
            },
        );
        match good {
            Some(good) => fs_err::write(&file, good).expect("writes"),
            None => fs_err::remove_file(&file).expect("removes"),
        }
    }
    // Servers that want another password, are not there, or have lost an archive.
    let names: Vec<&str> = bench.servers.keys().copied().collect();
    for name in &names {
        let server = &bench.servers[name];
        let before = server.required();
        server.require("Basic b3RoZXI6cGFzc3dvcmQ=");
        let said = bench.run(&mut bench.environment("lock", &[]), 1);
        assert!(said.contains("refuses access") || said.contains("401"), "{name}: {said}");
        let server = &bench.servers[name];
        before.map_or_else(|| server.open(), |before| server.require(&before));
    }
    let nowhere = format!("http://{WHO}:{}@127.0.0.1:{}/c", in_url("netrc"), free_port());
    bench.run(&mut bench.environment("lock", &["--channel", &nowhere]), 1);
    bench.run(&mut bench.environment("lock", &["--channel", &format!("http://{WHO}:{}@/c", in_url("netrc"))]), 1);
    let condarc = bench.condarc();
    for (from, to) in [
        (bench.proxy.host.clone(), format!("127.0.0.1:{}", free_port())),
        (format!("{}/c'", bench.port("by-mirror")), format!("{}/c'", free_port())),
        (in_url("proxy"), in_url("netrc")),
    ] {
        bench.workspace.file("home/.condarc", condarc.replace(&from, &to));
        bench.run(&mut bench.environment("lock", &[]), 1);
    }
    bench.workspace.file("home/.condarc", &condarc);
    // What cannot be solved, and names channels.
    let environment = fs_err::read_to_string(bench.workspace.path("environment.yml")).expect("reads");
    let own = format!("{}::by-token=2", bench.flag());
    for wanted in ["by-url=2", "nowhere", &own] {
        let text = environment.replace("\"by-url\"", &format!("\"{wanted}\""));
        bench.workspace.file("environment.yml", text);
        bench.run(&mut bench.environment("lock", &[]), 1);
    }
    bench.workspace.file("environment.yml", environment.replace("\"channels\":[", "\"channels\":[["));
    bench.run(&mut bench.environment("lock", &[]), 1);
    bench.workspace.file("environment.yml", &environment);
    // A lock that was made elsewhere.
    fs_err::copy(bench.workspace.path("first.lock"), bench.workspace.path("condaimg.lock")).expect("copies");
    bench.run(&mut bench.environment("lock", &["--check", "--no-condarc"]), 1);
    let unset = bench.run(bench.environment("build", &["--locked"]).env_remove("CHANNEL_PASSWORD"), 1);
    assert!(unset.contains("`CHANNEL_PASSWORD`, which is not set"), "{unset}");
    // A registry that does not let in.
    let tag = format!("{}/team/env:2", bench.registry.host());
    let mut wrong = bench.environment("build", &["--push", "--tag", &tag]);
    wrong.env("CONDAIMG_REGISTRY_USERNAME", WHO).env("CONDAIMG_REGISTRY_PASSWORD", secret("netrc"));
    bench.run(&mut wrong, 1);
}

#[test]
fn no_secret_is_ever_seen_again() {
    let mut bench = Bench::new();
    build_and_push(&mut bench);
    fail_in_many_ways(&mut bench);

    let found = bench.search(&secrets());
    assert!(found.is_empty(), "{found:#?}\n{}", String::from_utf8_lossy(&bench.said));

    // The search does find what is there: in layers of layouts, archives and the registry, and in the cache.
    let mut known = Needles::default();
    known.add("known", KNOWN, WHO);
    let found = bench.search(&known);
    let is_in = |part: &str| found.keys().any(|path| path.to_string_lossy().contains(part));
    for part in
        ["/layout/blobs/", "image.tar", "docker.tar", "/zstd/blobs/", "/cache-of-the-first/", "/docker/registry/"]
    {
        assert!(is_in(part), "{part}: {found:#?}");
    }
    // And the channels are named where they must be.
    let mut channel = Needles::default();
    channel.add("channel", &format!("http://127.0.0.1:{}/c", bench.port("by-token")), WHO);
    channel.add("channel", "http://canonical.example/c", WHO);
    let found = bench.search(&channel);
    for part in ["condaimg.lock", "explicit", "what was said"] {
        assert!(found.keys().any(|path| path.ends_with(part)), "{part}: {found:#?}");
    }
}

/// An index for pip with one wheel, which wants a password.
fn index_of(workspace: &Workspace, name: &str, password: &str) -> PackageIndex {
    let mut index = PackageIndex::start(workspace.path(&format!("servers/{name}")));
    index.add(&Wheel::new(name, "1.0").file(&format!("{name}.py"), format!("VALUE = '{KNOWN}'\n")));
    index.server.require(&basic(WHO, secret(password)));
    index
}

/// Packages of pip: of an index whose URL has a password, of one that `~/.netrc` knows, and from a URL.
#[test]
fn no_secret_of_pip_is_ever_seen_again() {
    let (workspace, registry) = (Workspace::new(), LocalRegistry::start(Mode::Auth));
    let by_url = index_of(&workspace, "by_url", "password in an index's URL");
    let by_netrc = index_of(&workspace, "by_netrc", "netrc of an index");
    let placed = index_of(&workspace, "placed", "password in the URL of a wheel");
    let netrc = format!("machine localhost login {WHO} password {}\n", secret("netrc of an index"));
    workspace.file("home/.netrc", netrc);
    let wheel = format!("{}/files/placed-1.0-py3-none-any.whl", placed.server.url);
    let pip = [
        format!("--index-url {}", by_url.url_with(&format!("{WHO}:${{INDEX_PASSWORD}}"))),
        format!("--extra-index-url {}", by_netrc.url().replace("127.0.0.1", "localhost")),
        "by-url".to_owned(),
        "by-netrc".to_owned(),
        format!(
            "placed @ {}",
            wheel.replace("://", &format!("://{WHO}:{}@", in_url("password in the URL of a wheel")))
        ),
    ];
    let dependencies = serde_json::json!(["python=3.11", {"pip": pip}]);
    let environment = serde_json::json!({"channels": [example_channel()], "dependencies": dependencies});
    workspace.file("environment.yml", serde_json::to_string_pretty(&environment).expect("JSON"));
    let (mut said, mut arguments, mut environments) = (Vec::new(), Vec::new(), Vec::new());
    let mut run = |words: &[&str], status: i32| {
        let mut command = workspace.condaimg();
        command.args(words).arg("-vv").args(["--base", "scratch", "--glibc", "2.36"]);
        command.env("INDEX_PASSWORD", in_url("password in an index's URL")).env_remove("NETRC");
        command.env("CONDAIMG_REGISTRY_USERNAME", USER).env("CONDAIMG_REGISTRY_PASSWORD", PASSWORD);
        let (output, seen) = watched(&mut command);
        arguments.extend(seen.arguments.into_iter().flatten());
        environments.extend(seen.environments.into_iter().flat_map(|(_, environment)| environment));
        let both = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&both).into_owned();
        assert_eq!(output.status.code(), Some(status), "{command:?}: {text}");
        said.extend(both);
        text
    };
    let forget = || fs_err::remove_dir_all(workspace.path("cache")).expect("removes");
    let lock = run(&["lock"], 0);
    assert!(lock.contains("3 wheels"), "{lock}");
    for form in ["pixi", "conda-lock"] {
        workspace.file(form, run(&["lock", "--export", form], 0));
    }
    forget();
    let tag = format!("{}/team/env:1", registry.host());
    let outputs =
        ["--metadata-file", "metadata.json", "--output", "oci:layout", "--output", "docker-archive:docker.tar"];
    run(&[&["build", "--locked", "--push", "--tag", &tag][..], &outputs].concat(), 0);
    forget();
    run(&["build", "--progress", "json", "--compression", "zstd", "--output", "oci:zstd"], 0);
    fs_err::rename(workspace.path("cache"), workspace.path("cache-of-the-first")).expect("renames");
    for index in [&by_url, &by_netrc, &placed] {
        let before = index.server.required().expect("a password");
        index.server.require("Basic b3RoZXI6cGFzc3dvcmQ=");
        run(&["lock", "--upgrade"], 1);
        forget();
        let refused = run(&["build", "--locked"], 1);
        assert!(refused.contains("401"), "{refused}");
        index.server.require(&before);
    }

    let search = |needles: &Needles| {
        // What users gave, and what channels serve and Python is unpacked from: none of it comes from us.
        let given = ["home", "servers", "environment.yml", "cache/v1/archives", "cache/v1/interpreters"];
        let first = ["cache-of-the-first/v1/archives", "cache-of-the-first/v1/interpreters"];
        let given: Vec<_> = given.iter().chain(&first).map(|name| workspace.path(name)).collect();
        let mut found = needles.below(&workspace.path(""), &given);
        found.extend(needles.below(&registry.data(), &[]));
        found
    };
    let found = search(&secrets());
    assert!(found.is_empty(), "{found:#?}");
    let found = secrets().within(&said);
    assert!(found.is_empty(), "{found:?}: {}", String::from_utf8_lossy(&said));
    // uv is started, and gets the indexes' URLs by its environment, but nothing of the registry.
    assert!(arguments.windows(4).any(|bytes| bytes == b"--py"), "uv was seen");
    let found = secrets().within(&arguments);
    assert!(found.is_empty(), "{found:?}");
    let mut of_registry = Needles::default();
    of_registry.add("the registry's password", PASSWORD, USER);
    assert!(of_registry.within(&environments).is_empty());
    let mut known = Needles::default();
    known.add("known", KNOWN, WHO);
    let found = search(&known);
    for part in ["/layout/blobs/", "docker.tar", "/zstd/blobs/", "/cache-of-the-first/", "/docker/registry/"] {
        assert!(found.keys().any(|path| path.to_string_lossy().contains(part)), "{part}: {found:#?}");
    }
}

/// The search itself: each form in each wrapping.
#[test]
fn secrets_are_found_in_every_form() {
    use base64::Engine as _;
    let folder = tempfile::tempdir().expect("a folder");
    let mut needles = Needles::default();
    needles.add("it", "pa+55/wörd", "me");
    let base64 = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    let forms = [
        "pa+55/wörd".to_owned(),
        "pa%2B55%2Fw%C3%B6rd".to_owned(),
        "pa%2b55%2fw%c3%b6rd".to_owned(),
        base64("pa+55/wörd"),
        base64("me:pa+55/wörd"),
    ];
    for form in forms {
        let text = format!("before {form} after");
        let gzip = || gzip_of(text.as_bytes());
        let tar = |content: &[u8]| {
            let mut tar = tar::Builder::new(Vec::new());
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            tar.append_data(&mut header, "a", content).expect("packs");
            tar.into_inner().expect("packs")
        };
        let package = Package::new("a", "1").file("share/a", text.as_bytes());
        for bytes in [
            text.clone().into_bytes(),
            gzip(),
            // As layers are: several members, one after the other.
            [gzip_of(b"first"), gzip()].concat(),
            tar(&gzip()),
            package.archive(Format::Conda),
            package.archive(Format::TarBz2),
        ] {
            assert_eq!(needles.within(&bytes), ["it"], "{form}");
        }
    }
    fs_err::write(folder.path().join("pa%2B55%2Fw%C3%B6rd.token"), "").expect("writes");
    assert_eq!(needles.below(folder.path(), &[]).len(), 1, "file names count");
    assert!(needles.within(b"pa55word").is_empty());
}

fn gzip_of(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("packs");
    encoder.finish().expect("packs")
}
