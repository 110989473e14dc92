//! A real registry on loopback (CNCF distribution, `docker-registry` in Debian), and a fake one for answers that
//! no real registry gives on demand.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use fs_err as fs;
use tempfile::TempDir;

use super::certificates;
use super::token_server::{ISSUER, SERVICE, TokenServer};

/// The only user of a registry that wants one.
pub const USER: &str = "ci";
/// Their password; must never be seen in a message.
pub const PASSWORD: &str = "pa55-w0rd";

/// How a registry is set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Plain http, open to all.
    Plain,
    /// Plain http with a user and password.
    Auth,
    /// TLS with a certificate that is its own authority, as most guides make it.
    Tls,
    /// TLS with a certificate that an authority of its own signed; with a user and password.
    TlsAuth,
    /// Plain http, open to all; nothing is deleted.
    Keeping,
    /// TLS with such a certificate, for clients that have one of the same authority; no password.
    MutualTls,
    /// Plain http with tokens, which the user gets from a token server.
    Token,
    /// The same behind TLS with a certificate of an authority of its own.
    TlsToken,
}

impl Mode {
    fn has_tls(self) -> bool {
        matches!(self, Self::Tls | Self::TlsAuth | Self::MutualTls | Self::TlsToken)
    }
}

/// A running registry; killed when dropped.
pub struct LocalRegistry {
    child: Child,
    folder: TempDir,
    data: PathBuf,
    mode: Mode,
    tokens: Option<TokenServer>,
    /// Its port on 127.0.0.1.
    pub port: u16,
}

impl LocalRegistry {
    /// Starts one on a free port with an empty folder.
    pub fn start(mode: Mode) -> Self {
        Self::start_at(mode, None)
    }

    /// Starts one that keeps what is pushed in this folder (on a small disk, say).
    pub fn start_at(mode: Mode, data: Option<&Path>) -> Self {
        let folder = TempDir::new().expect("a folder");
        let root = folder.path();
        match mode {
            Mode::Plain | Mode::Keeping | Mode::Token => {}
            Mode::Auth => passwords(root),
            Mode::Tls => certificates::self_signed(root),
            Mode::TlsToken => certificates::signed(root),
            Mode::TlsAuth => {
                certificates::signed(root);
                passwords(root);
            }
            Mode::MutualTls => {
                certificates::signed(root);
                certificates::client(root);
            }
        }
        let tokens = matches!(mode, Mode::Token | Mode::TlsToken).then(|| TokenServer::start(root));
        let data = data.map_or_else(|| root.join("data"), Path::to_owned);
        let port = free_port();
        let text = configuration(root, &data, mode, tokens.as_ref(), port);
        fs::write(root.join("config.yml"), text).expect("writes");
        let mut registry = Self { child: serve(&folder), folder, data, mode, tokens, port };
        registry.wait();
        registry
    }

    /// Makes it refuse (or take again) whatever writes, and starts it again.
    pub fn set_read_only(&mut self, read_only: bool) {
        let mut text = configuration(self.folder.path(), &self.data, self.mode, self.tokens.as_ref(), self.port);
        if read_only {
            text = text.replace("storage: {", "storage: {maintenance: {readonly: {enabled: true}}, ");
        }
        fs::write(self.folder.path().join("config.yml"), text).expect("writes");
        self.restart();
    }

    /// The token server of a registry that has one.
    pub fn tokens(&self) -> &TokenServer {
        self.tokens.as_ref().expect("a mode with tokens")
    }

    /// `127.0.0.1:PORT`.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The certificate authority to trust.
    pub fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.crt")
    }

    /// A certificate and its key for a client of [`Mode::MutualTls`].
    pub fn client_certificate(&self) -> (PathBuf, PathBuf) {
        (self.folder.path().join("client.crt"), self.folder.path().join("client.key"))
    }

    /// Where it keeps what was pushed.
    pub fn data(&self) -> PathBuf {
        self.data.clone()
    }

    /// A credential file as `docker login` and `podman login` write it, with this password.
    pub fn credential_file(&self, password: &str) -> PathBuf {
        // Not by the password: messages name the file.
        let name = condaimg::util::Digest::of(password).hex()[..8].to_owned();
        let path = self.folder.path().join(format!("login-{name}.json"));
        let auth = BASE64.encode(format!("{USER}:{password}"));
        fs::write(&path, format!(r#"{{"auths": {{"{}": {{"auth": "{auth}"}}}}}}"#, self.host())).expect("writes");
        path
    }

    /// How many requests the registry logged whose method and path (`PUT /v2/...`) contain the text.
    pub fn requests(&self, text: &str) -> usize {
        let log = fs::read_to_string(self.folder.path().join("log")).expect("reads");
        log.lines().filter(|line| line.contains("\" ") && line.contains(&format!("\"{text}"))).count()
    }

    /// The digests of the blobs that were sent and taken, in the order in which they were whole; a blob that was
    /// sent to two repositories is there twice.
    pub fn uploads(&self) -> Vec<String> {
        let log = fs::read_to_string(self.folder.path().join("log")).expect("reads");
        // `"PUT /v2/team/env/blobs/uploads/...?_state=...&digest=sha256%3A... HTTP/1.1" 201 0 ...`
        let put = log.lines().filter(|line| line.contains("\"PUT /v2/") && line.contains("HTTP/1.1\" 201 "));
        put.filter_map(|line| line.split("digest=").nth(1))
            .map(|rest| rest.split([' ', '&']).next().unwrap_or_default().replace("%3A", ":"))
            .collect()
    }

    /// How many requests the registry answered with 401.
    pub fn refusals(&self) -> usize {
        let log = fs::read_to_string(self.folder.path().join("log")).expect("reads");
        log.lines().filter(|line| line.contains(" HTTP/1.1\" 401 ")).count()
    }

    /// The blobs that were asked for and sent whole (digest and bytes), in the order in which they were.
    pub fn blob_downloads(&self) -> Vec<(String, u64)> {
        self.downloads(200)
    }

    /// The parts of blobs that were asked for and sent (digest and bytes), likewise.
    pub fn part_downloads(&self) -> Vec<(String, u64)> {
        self.downloads(206)
    }

    fn downloads(&self, status: u16) -> Vec<(String, u64)> {
        let log = fs::read_to_string(self.folder.path().join("log")).expect("reads");
        // `"GET /v2/team/env/blobs/sha256:... HTTP/1.1" 200 4711 ...`
        let gets = log.lines().filter_map(|line| line.split_once("\"GET /v2/")?.1.split_once("/blobs/"));
        gets.filter_map(|(_, rest)| {
            let (digest, rest) = rest.split_once(&format!(" HTTP/1.1\" {status} "))?;
            Some((digest.to_owned(), rest.split(' ').next()?.parse().ok()?))
        })
        .collect()
    }

    /// Ends it at once, as a crash does.
    pub fn kill(&mut self) {
        // It may be dead already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it again with what it had stored.
    pub fn restart(&mut self) {
        self.kill();
        self.child = serve(&self.folder);
        self.wait();
    }

    fn wait(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            let ended = self.child.try_wait().expect("asks");
            let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            assert!(ended.is_none() && Instant::now() < deadline, "the {:?} registry did not start: {log}", self.mode);
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for LocalRegistry {
    fn drop(&mut self) {
        self.kill();
    }
}

fn serve(folder: &TempDir) -> Child {
    let log = fs::OpenOptions::new().create(true).append(true).open(folder.path().join("log")).expect("opens");
    let log = log.into_parts().0;
    Command::new("docker-registry")
        .arg("serve")
        .arg(folder.path().join("config.yml"))
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("clones"))
        .stderr(log)
        .spawn()
        .expect("docker-registry is needed for this test: `apt-get install docker-registry`")
}

fn configuration(root: &Path, data: &Path, mode: Mode, tokens: Option<&TokenServer>, port: u16) -> String {
    let (root, data) = (root.display(), data.display());
    let deletes = mode != Mode::Keeping;
    let mut text = format!(
        "version: 0.1\nlog: {{level: info, accesslog: {{disabled: false}}}}\n\
         storage: {{filesystem: {{rootdirectory: {data}}}, delete: {{enabled: {deletes}}}}}\n\
         http:\n  addr: 127.0.0.1:{port}\n  secret: test\n"
    );
    if mode.has_tls() {
        let clients = if mode == Mode::MutualTls { format!(", clientcas: [{root}/ca.crt]") } else { String::new() };
        writeln!(text, "  tls: {{certificate: {root}/server.crt, key: {root}/server.key{clients}}}").expect("writes");
    }
    if matches!(mode, Mode::Auth | Mode::TlsAuth) {
        writeln!(text, "auth: {{htpasswd: {{realm: test, path: {root}/htpasswd}}}}").expect("writes");
    }
    if let Some(tokens) = tokens {
        let server = format!("realm: '{}', rootcertbundle: {root}/tokens.crt", tokens.realm());
        writeln!(text, "auth: {{token: {{service: {SERVICE}, issuer: {ISSUER}, {server}}}}}").expect("writes");
    }
    text
}

fn passwords(root: &Path) {
    certificates::run(root, "htpasswd", "apache2-utils", &["-Bbc", "htpasswd", USER, PASSWORD]);
}

/// A port on which nothing listens.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("binds");
    listener.local_addr().expect("has one").port()
}

/// A request to the fake.
#[derive(Debug, Clone)]
pub struct Request {
    /// `PUT /v2/...?...`
    pub line: String,
    /// By lower-case names.
    pub headers: BTreeMap<String, String>,
    /// Its body, read to the end of its length.
    pub body: Vec<u8>,
}

/// What the fake answers: status, headers, body.
pub type Reply = (u16, Vec<(&'static str, String)>, Vec<u8>);

/// A registry that does as a test tells it. Its threads end with the process.
pub struct Fake {
    /// `127.0.0.1:PORT`.
    pub host: String,
    log: Arc<Mutex<Vec<Request>>>,
}

impl Fake {
    /// Starts one; the function is given the fake's own host.
    pub fn start(answer: impl Fn(&str, &Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("binds");
        let host = listener.local_addr().expect("has one").to_string();
        let log = Arc::new(Mutex::new(Vec::new()));
        let fake = Self { host: host.clone(), log: Arc::clone(&log) };
        let answer = Arc::new(answer);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (answer, log, host) = (Arc::clone(&answer), Arc::clone(&log), host.clone());
                std::thread::spawn(move || {
                    if let Some(request) = receive(&stream) {
                        log.lock().expect("locks").push(request.clone());
                        reply(&stream, answer(&host, &request));
                    }
                });
            }
        });
        fake
    }

    /// The requests so far.
    pub fn requests(&self) -> Vec<Request> {
        self.log.lock().expect("locks").clone()
    }

    /// How many requests began so.
    pub fn count(&self, start: &str) -> usize {
        self.requests().iter().filter(|request| request.line.starts_with(start)).count()
    }
}

fn receive(stream: &TcpStream) -> Option<Request> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let line = line.strip_suffix(" HTTP/1.1\r\n")?.to_owned();
    let mut headers = BTreeMap::new();
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let Some((name, value)) = header.trim().split_once(": ") else { break };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let length = headers.get("content-length").map_or(0, |length| length.parse().expect("a number"));
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Request { line, headers, body })
}

fn reply(mut stream: &TcpStream, (status, headers, body): Reply) {
    let mut head = format!("HTTP/1.1 {status} Status\r\nconnection: close\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in headers {
        write!(head, "{name}: {value}\r\n").expect("writes");
    }
    // The client may have gone.
    let _ = stream.write_all(format!("{head}\r\n").as_bytes()).and_then(|()| stream.write_all(&body));
}
