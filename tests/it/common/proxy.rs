//! Proxies in front of a real registry: one that cuts connections, and one that answers some requests itself or
//! changes answers. Their threads end with the process.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// How a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// In good order, too early.
    Fin,
    /// As when a machine forgot about it.
    Reset,
    /// Not at all: nothing moves any more.
    Stall,
}

/// Whose bytes are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sender {
    Client,
    Server,
}

/// Cuts connections after so many bytes, a number of times; all other connections are left alone.
pub struct Cutter {
    /// `127.0.0.1:PORT`.
    pub host: String,
    plan: Arc<Plan>,
}

struct Plan {
    upstream: String,
    sender: Sender,
    after: u64,
    cut: Cut,
    left: AtomicUsize,
    done: AtomicUsize,
}

impl Cutter {
    /// In front of `upstream` (`HOST:PORT`), cuts the first `times` connections on which `sender` sends `after` bytes.
    pub fn start(upstream: &str, sender: Sender, after: u64, cut: Cut, times: usize) -> Self {
        assert!(cut != Cut::Reset || sender == Sender::Client, "only what is being sent to is reset");
        let (left, done) = (AtomicUsize::new(times), AtomicUsize::new(0));
        let plan = Arc::new(Plan { upstream: upstream.to_owned(), sender, after, cut, left, done });
        let shared = Arc::clone(&plan);
        let host = listen(move |client| shared.relay(&client));
        Self { host, plan }
    }

    /// How many connections were cut so far.
    pub fn cuts(&self) -> usize {
        self.plan.done.load(Ordering::Acquire)
    }
}

impl Plan {
    fn relay(self: &Arc<Self>, client: &TcpStream) {
        let Ok(server) = TcpStream::connect(&self.upstream) else { return };
        let back = {
            let (plan, client, server) = (Arc::clone(self), copy(client), copy(&server));
            thread::spawn(move || plan.pump(Sender::Server, &server, &client))
        };
        let cut = self.pump(Sender::Client, client, &server);
        if !cut {
            let _ = server.shutdown(Shutdown::Write);
            let _ = back.join();
            return;
        }
        match self.cut {
            Cut::Stall => thread::park(),
            Cut::Reset => {
                let _ = server.shutdown(Shutdown::Both);
                let _ = back.join();
                // A socket that is closed with bytes that nobody read resets the connection.
                let _ = client.peek(&mut [0]);
            }
            Cut::Fin => {
                let _ = server.shutdown(Shutdown::Both);
                end(client);
            }
        }
    }

    /// Passes bytes on until their end; true when the connection is to be cut.
    fn pump(&self, sender: Sender, mut from: &TcpStream, mut to: &TcpStream) -> bool {
        let (mut buffer, mut total) = (vec![0; 16 * 1024], 0);
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            if to.write_all(&buffer[..count]).is_err() {
                break;
            }
            total += count as u64;
            if sender == self.sender && total >= self.after && self.take() {
                if sender == Sender::Server && self.cut == Cut::Stall {
                    self.done.fetch_add(1, Ordering::Release);
                    thread::park();
                }
                if sender == Sender::Server {
                    let _ = from.shutdown(Shutdown::Both);
                    end(to);
                }
                self.done.fetch_add(1, Ordering::Release);
                return true;
            }
        }
        // The server's last word; when the client is being reset, there is none.
        if sender == Sender::Server && (self.cut != Cut::Reset || self.done.load(Ordering::Acquire) == 0) {
            let _ = to.shutdown(Shutdown::Write);
        }
        false
    }

    fn take(&self) -> bool {
        self.left.fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| left.checked_sub(1)).is_ok()
    }
}

/// The head of a request.
#[derive(Debug, Clone)]
pub struct Head {
    pub method: String,
    /// Path and query.
    pub path: String,
    /// By lower-case names.
    pub headers: BTreeMap<String, String>,
}

impl Head {
    /// The length of its body in bytes.
    pub fn length(&self) -> u64 {
        self.headers.get("content-length").map_or(0, |length| length.parse().expect("a number"))
    }

    /// Whether it is of this kind: `POST`, and a part of the path.
    pub fn is(&self, method: &str, part: &str) -> bool {
        self.method == method && self.path.contains(part)
    }
}

/// An answer without its body: a status and headers.
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
}

impl Answer {
    /// Takes a header away, and puts this in its place when it is something.
    pub fn set(&mut self, name: &str, value: Option<String>) {
        self.headers.retain(|(other, _)| !other.eq_ignore_ascii_case(name));
        self.headers.extend(value.map(|value| (name.to_owned(), value)));
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

/// What the gate does with a request.
pub enum Deed {
    /// Lets it pass.
    Pass,
    /// Lets it pass without its `Range`.
    Whole,
    /// Lets it pass with the first half of its body.
    Half,
    /// Lets it pass and changes the head of the answer.
    Change(Box<dyn FnOnce(&mut Answer)>),
    /// Answers itself, once it has read so many bytes of the body.
    Answer { after: u64, status: u16, headers: Vec<(&'static str, String)>, body: Vec<u8> },
}

/// An answer of the gate's own, after the whole body, without one of its own.
pub fn answer(head: &Head, status: u16, headers: Vec<(&'static str, String)>) -> Deed {
    Deed::Answer { after: head.length(), status, headers, body: Vec::new() }
}

/// Looks at each request on its way to a registry.
pub struct Gate {
    /// `127.0.0.1:PORT`.
    pub host: String,
    log: Arc<Mutex<Vec<Head>>>,
}

impl Gate {
    /// In front of `upstream` (`HOST:PORT`); the rule is given the gate's own host.
    pub fn start(upstream: &str, rule: impl Fn(&str, &Head) -> Deed + Send + Sync + 'static) -> Self {
        let log = Arc::new(Mutex::new(Vec::new()));
        let (upstream, shared) = (upstream.to_owned(), Arc::clone(&log));
        let host = listen(move |client| {
            let host = client.local_addr().expect("has one").to_string();
            let mut reader = BufReader::new(copy(&client));
            let Some(head) = read_head(&mut reader) else { return };
            shared.lock().expect("locks").push(head.clone());
            // Whoever broke off is no business of ours.
            let _ = match rule(&host, &head) {
                Deed::Pass => pass(&upstream, &head, &mut reader, &client, |_| ()),
                Deed::Whole => {
                    let mut whole = head.clone();
                    whole.headers.remove("range");
                    pass(&upstream, &whole, &mut reader, &client, |_| ())
                }
                Deed::Half => {
                    let mut half = head.clone();
                    half.headers.insert("content-length".to_owned(), (head.length() / 2).to_string());
                    pass(&upstream, &half, &mut reader, &client, |_| ())
                }
                Deed::Change(change) => pass(&upstream, &head, &mut reader, &client, change),
                Deed::Answer { after, status, headers, body } => {
                    let _ = io::copy(&mut reader.by_ref().take(after), &mut io::sink());
                    let mut headers: Vec<_> =
                        headers.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
                    headers.push(("content-length".to_owned(), body.len().to_string()));
                    reply(&client, &Answer { status, headers }).and_then(|()| (&client).write_all(&body))
                }
            };
            end(&client);
        });
        Self { host, log }
    }

    /// The requests so far.
    pub fn requests(&self) -> Vec<Head> {
        self.log.lock().expect("locks").clone()
    }

    /// How many requests were of this kind.
    pub fn count(&self, method: &str, part: &str) -> usize {
        self.requests().iter().filter(|head| head.is(method, part)).count()
    }
}

fn pass(
    upstream: &str,
    head: &Head,
    body: &mut impl Read,
    mut client: &TcpStream,
    change: impl FnOnce(&mut Answer),
) -> io::Result<()> {
    let server = TcpStream::connect(upstream)?;
    let mut text = format!("{} {} HTTP/1.1\r\nconnection: close\r\n", head.method, head.path);
    for (name, value) in head.headers.iter().filter(|(name, _)| *name != "connection") {
        write!(text, "{name}: {value}\r\n").expect("writes");
    }
    (&server).write_all(format!("{text}\r\n").as_bytes())?;
    // A server that has heard enough may hang up; what it says counts.
    let _ = io::copy(&mut body.take(head.length()), &mut &server);
    let mut reader = BufReader::new(server);
    let (first, headers) = read_lines(&mut reader).ok_or(io::ErrorKind::UnexpectedEof)?;
    let status = first.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
    let mut answer = Answer { status, headers };
    change(&mut answer);
    reply(client, &answer)?;
    io::copy(&mut reader, &mut client).map(drop)
}

fn reply(mut client: &TcpStream, answer: &Answer) -> io::Result<()> {
    let mut text = format!("HTTP/1.1 {} Status\r\nconnection: close\r\n", answer.status);
    for (name, value) in answer.headers.iter().filter(|(name, _)| !name.eq_ignore_ascii_case("connection")) {
        write!(text, "{name}: {value}\r\n").expect("writes");
    }
    client.write_all(format!("{text}\r\n").as_bytes())
}

fn read_head(reader: &mut impl io::BufRead) -> Option<Head> {
    let (first, headers) = read_lines(reader)?;
    let (method, rest) = first.split_once(' ')?;
    let path = rest.strip_suffix(" HTTP/1.1")?;
    let headers = headers.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value)).collect();
    Some(Head { method: method.to_owned(), path: path.to_owned(), headers })
}

fn read_lines(reader: &mut impl io::BufRead) -> Option<(String, Vec<(String, String)>)> {
    let mut lines = reader.lines().map_while(Result::ok);
    let first = lines.next()?;
    let headers = lines.take_while(|line| !line.is_empty());
    let headers = headers.filter_map(|line| line.split_once(": ").map(|(name, value)| (name.into(), value.into())));
    Some((first, headers.collect()))
}

/// Says that nothing more will come, and listens politely until the other side is silent, too: a socket that is
/// closed with bytes that nobody read takes back what was said.
fn end(mut stream: &TcpStream) {
    let _ = stream.shutdown(Shutdown::Write);
    let _ = stream.set_read_timeout(Some(Duration::from_secs(10)));
    let _ = io::copy(&mut stream, &mut io::sink());
}

fn listen(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("binds");
    let host = listener.local_addr().expect("has one").to_string();
    let serve = Arc::new(serve);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let serve = Arc::clone(&serve);
            thread::spawn(move || serve(stream));
        }
    });
    host
}

fn copy(stream: &TcpStream) -> TcpStream {
    stream.try_clone().expect("a handle")
}
