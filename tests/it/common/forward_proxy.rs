//! A forwarding proxy on loopback (RFC 9110, 7.6 and 9.3.6): for plain http, and tunnels for https. Names under
//! `.test` are this machine's, and only it knows that.

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A running proxy; its threads end with the process.
pub struct Proxy {
    /// `127.0.0.1:PORT`.
    pub host: String,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    /// Starts one. With `authorization`, it wants this value of `Proxy-Authorization`.
    pub fn start(authorization: Option<String>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("binds");
        let host = listener.local_addr().expect("has one").to_string();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (log, authorization) = (Arc::clone(&log), authorization.clone());
                // Whoever hangs up in the middle ends the thread.
                std::thread::spawn(move || forward(&stream, &log, authorization.as_deref()));
            }
        });
        Self { host, seen }
    }

    /// The first lines of the requests so far.
    pub fn seen(&self) -> Vec<String> {
        self.seen.lock().expect("locks").clone()
    }
}

fn forward(client: &TcpStream, log: &Mutex<Vec<String>>, authorization: Option<&str>) -> Option<()> {
    let mut reader = BufReader::new(client);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|length| *length > 0)?;
        if line == "\r\n" {
            break;
        }
        lines.push(line);
    }
    let first = lines.first()?.trim_end().to_owned();
    log.lock().expect("locks").push(first.clone());
    let header =
        |line: &str| line.split_once(": ").map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()));
    let shown = lines.iter().filter_map(|line| header(line)).find(|(name, _)| name == "proxy-authorization");
    if authorization.is_some() && authorization != shown.as_ref().map(|(_, value)| value.as_str()) {
        return answer(client, 407, "Proxy-Authenticate: Basic realm=\"proxy\"\r\n");
    }
    let mut words = first.split(' ');
    let (method, target) = (words.next()?, words.next()?);
    let authority = target.strip_prefix("http://").unwrap_or(target).split('/').next()?;
    let Some((_, port)) = authority.split_once(".test:") else { return answer(client, 403, "") };
    let Ok(server) = TcpStream::connect(("127.0.0.1", port.parse().ok()?)) else { return answer(client, 502, "") };
    if method == "CONNECT" {
        (&*client).write_all(b"HTTP/1.1 200 Connected\r\n\r\n").ok()?;
    } else {
        // One request a connection: the next one may be for somebody else.
        let path = target.strip_prefix("http://")?.strip_prefix(authority)?;
        let kept = lines[1..].iter().filter(
            |line| !matches!(header(line), Some((name, _)) if name == "proxy-authorization" || name == "connection"),
        );
        let head =
            format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n{}\r\n", kept.cloned().collect::<String>());
        (&server).write_all(head.as_bytes()).ok()?;
    }
    (&server).write_all(reader.buffer()).ok()?;
    join(client, &server);
    Some(())
}

fn answer(mut client: &TcpStream, status: u16, header: &str) -> Option<()> {
    let head = format!("HTTP/1.1 {status} Status\r\nConnection: close\r\nContent-Length: 0\r\n{header}\r\n");
    client.write_all(head.as_bytes()).ok()
}

/// Copies in both directions until both ends have hung up.
fn join(one: &TcpStream, other: &TcpStream) {
    std::thread::scope(|scope| {
        scope.spawn(|| pour(one, other, None));
        pour(other, one, None);
    });
}

/// Copies until the end, at most so many bytes a second.
fn pour(mut from: &TcpStream, mut to: &TcpStream, rate: Option<usize>) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..length]).is_err() {
            break;
        }
        if let Some(rate) = rate {
            std::thread::sleep(Duration::from_secs_f64(length as f64 / rate as f64));
        }
    }
    // The other end may be gone.
    let _ = to.shutdown(Shutdown::Write);
    let _ = from.shutdown(Shutdown::Read);
}

/// A slow line to a server on loopback: so many bytes a second and connection towards it. Gives its `127.0.0.1:PORT`.
pub fn slow_line(port: u16, rate: usize) -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("binds");
    let host = listener.local_addr().expect("has one").to_string();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else { return };
                std::thread::scope(|scope| {
                    scope.spawn(|| pour(&server, &client, None));
                    pour(&client, &server, Some(rate));
                });
            });
        }
    });
    host
}
