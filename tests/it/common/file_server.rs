//! A web server for one folder, on loopback, with TLS if need be, that can misbehave: cut connections, fail, ask for a
//! password.

#![allow(dead_code, reason = "each test binary uses a part")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may stop at the first surprise")]

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};

/// What goes wrong with a request whose path contains `path`, as often as `times` says.
#[derive(Clone, Debug)]
pub struct Fault {
    pub path: &'static str,
    pub times: usize,
    pub kind: FaultKind,
}

#[derive(Clone, Copy, Debug)]
pub enum FaultKind {
    /// The connection ends after so many bytes of the body.
    CutAfter(usize),
    /// This status, with an empty body.
    Status(u16),
    /// The range that was asked for is ignored.
    NoRange,
    /// A web page, as where people are to log in.
    Page,
    /// 503, and a date in so many seconds.
    ComeBackIn(i64),
}

/// A request as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub path: String,
    /// The first byte asked for.
    pub from: usize,
    pub authorization: Option<String>,
}

#[derive(Default)]
struct State {
    faults: Vec<Fault>,
    seen: Vec<Seen>,
    password: Option<String>,
    /// The status of what is not there, if it is not 404.
    missing: Option<u16>,
}

/// A running server; its thread ends with the process.
pub struct FileServer {
    pub url: String,
    state: Arc<Mutex<State>>,
}

impl FileServer {
    pub fn start(folder: impl Into<PathBuf>) -> Self {
        Self::start_with(folder.into(), None)
    }

    /// One with TLS, by `server.crt` and `server.key` in `keys`; with `mutual`, for clients that have a certificate of
    /// the authority `ca.crt` there.
    pub fn start_tls(folder: impl Into<PathBuf>, keys: &Path, mutual: bool) -> Self {
        let read = |name: &str| CertificateDer::from_pem_file(keys.join(name)).unwrap();
        let key = PrivateKeyDer::from_pem_file(keys.join("server.key")).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        let builder = if mutual {
            let mut roots = RootCertStore::empty();
            roots.add(read("ca.crt")).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
            builder.with_client_cert_verifier(verifier)
        } else {
            builder.with_no_client_auth()
        };
        let config = builder.with_single_cert(vec![read("server.crt")], key).unwrap();
        Self::start_with(folder.into(), Some(Arc::new(config)))
    }

    fn start_with(folder: PathBuf, tls: Option<Arc<ServerConfig>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{}", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (folder, state, tls) = (folder.clone(), Arc::clone(&shared), tls.clone());
                // A client that goes away is no concern of the server's.
                std::thread::spawn(move || serve(stream, &folder, &state, tls));
            }
        });
        Self { url, state }
    }

    /// `HOST:PORT`.
    pub fn host(&self) -> &str {
        self.url.split_once("://").unwrap().1
    }

    pub fn port(&self) -> u16 {
        self.host().rsplit_once(':').unwrap().1.parse().unwrap()
    }

    pub fn fault(&self, path: &'static str, times: usize, kind: FaultKind) {
        self.state.lock().unwrap().faults.push(Fault { path, times, kind });
    }

    /// Answers only requests with this `Authorization`.
    pub fn require(&self, authorization: &str) {
        self.state.lock().unwrap().password = Some(authorization.to_owned());
    }

    /// The `Authorization` that it wants.
    pub fn required(&self) -> Option<String> {
        self.state.lock().unwrap().password.clone()
    }

    /// Answers so to requests for what is not there.
    pub fn say_of_missing(&self, status: u16) {
        self.state.lock().unwrap().missing = Some(status);
    }

    /// Answers everybody.
    pub fn open(&self) {
        self.state.lock().unwrap().password = None;
    }

    /// The requests so far for paths that contain `path`.
    pub fn seen(&self, path: &str) -> Vec<Seen> {
        self.state.lock().unwrap().seen.iter().filter(|seen| seen.path.contains(path)).cloned().collect()
    }
}

fn serve(mut stream: TcpStream, folder: &Path, state: &Mutex<State>, tls: Option<Arc<ServerConfig>>) -> Option<()> {
    let Some(config) = tls else { return answer(&mut stream, folder, state) };
    let mut stream = StreamOwned::new(ServerConnection::new(config).ok()?, stream);
    let done = answer(&mut stream, folder, state);
    stream.conn.send_close_notify();
    let _ = stream.flush();
    done
}

fn answer(stream: &mut (impl Read + Write), folder: &Path, state: &Mutex<State>) -> Option<()> {
    let (head_only, seen) = read_request(stream)?;
    let (fault, refused, missing) = {
        let mut state = state.lock().unwrap();
        state.seen.push(seen.clone());
        let fault = state.faults.iter_mut().find(|fault| fault.times > 0 && seen.path.contains(fault.path));
        let kind = fault.map(|fault| {
            fault.times -= 1;
            fault.kind
        });
        let missing = state.missing.unwrap_or(404);
        (kind, state.password.is_some() && state.password != seen.authorization, missing)
    };
    let page = b"<!DOCTYPE html><title>Log in</title>";
    match fault {
        Some(FaultKind::Page) => {
            let head = "HTTP/1.1 200 X\r\nContent-Type: text/html; charset=utf-8\r\nConnection: close\r\n";
            write!(stream, "{head}Content-Length: {}\r\n\r\n", page.len()).ok()?;
            return if head_only { Some(()) } else { stream.write_all(page).ok() };
        }
        Some(FaultKind::ComeBackIn(seconds)) => {
            let date = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(seconds);
            let date = date.strftime("%a, %d %b %Y %H:%M:%S GMT");
            let head = "HTTP/1.1 503 X\r\nContent-Length: 0\r\nConnection: close\r\n";
            return write!(stream, "{head}Retry-After: {date}\r\n\r\n").ok();
        }
        _ => {}
    }
    if refused {
        let head = "HTTP/1.1 401 X\r\nWWW-Authenticate: Basic realm=\"files\"\r\nConnection: close\r\n";
        return write!(stream, "{head}Content-Length: 0\r\n\r\n").ok();
    }
    let mut status =
        |code: u16| write!(stream, "HTTP/1.1 {code} X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").ok();
    if let Some(FaultKind::Status(code)) = fault {
        return status(code);
    }
    // A folder is its page, as web servers have it; what stands behind `?` chooses nothing here.
    let path =
        seen.path.split('?').next().unwrap_or_default().trim_start_matches('/').replace("%2B", "+").replace("%21", "!");
    let path = if path.is_empty() || path.ends_with('/') { format!("{path}index.html") } else { path };
    let Ok(bytes) = std::fs::File::open(folder.join(&path)).and_then(|mut file| {
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut file, &mut bytes).map(|_| bytes)
    }) else {
        return status(missing);
    };
    let from = if matches!(fault, Some(FaultKind::NoRange)) { 0 } else { seen.from };
    if from > 0 && from >= bytes.len() {
        return status(416);
    }
    let body = &bytes[from..];
    let mut reply = if from > 0 {
        let last = bytes.len() - 1;
        format!("HTTP/1.1 206 X\r\nContent-Range: bytes {from}-{last}/{}\r\n", bytes.len())
    } else {
        "HTTP/1.1 200 X\r\n".to_owned()
    };
    if path.ends_with(".html") {
        reply += "Content-Type: text/html\r\n";
    }
    reply += &format!("Content-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    stream.write_all(reply.as_bytes()).ok()?;
    if head_only {
        return Some(());
    }
    let end = match fault {
        Some(FaultKind::CutAfter(count)) => count.min(body.len()),
        _ => body.len(),
    };
    stream.write_all(&body[..end]).ok()
}

/// Whether it is a HEAD, and what is asked.
fn read_request(stream: &mut impl Read) -> Option<(bool, Seen)> {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let first = lines.next()?;
    let mut words = first.split(' ');
    let head = words.next()? == "HEAD";
    let mut seen = Seen { path: words.next()?.to_owned(), from: 0, authorization: None };
    for line in lines.take_while(|line| !line.is_empty()) {
        let Some((name, value)) = line.split_once(':') else { continue };
        match name.to_ascii_lowercase().as_str() {
            "range" => {
                let from = value.trim().strip_prefix("bytes=")?.split('-').next()?;
                seen.from = from.parse().ok()?;
            }
            "authorization" => seen.authorization = Some(value.trim().to_owned()),
            _ => {}
        }
    }
    Some((head, seen))
}
