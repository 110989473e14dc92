//! Servers of channels and registries that hold a build or fill its disk.

use std::io::{BufRead as _, BufReader, Read as _, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::{Case, Refused, Row, row};
use crate::common::environment;

pub fn rows() -> Vec<Row> {
    vec![
        row("index that sends a byte every 0.3 s", index_drips, Refused(&["stalled", "--limit stall-seconds"])),
        row(
            "server of an index that never answers",
            index_silent,
            Refused(&["did not answer", "--limit answer-seconds"]),
        ),
        row("archive that sends a byte every 0.3 s", archive_drips, Refused(&["fine-1.0-0", "stalled"])),
        row("repodata.json.zst of 300 kB that unpacks to 3 GiB", zstd_bomb, Refused(&["--limit index-ratio="])),
        row("repodata.json of 3 GiB by Content-Encoding", gzip_bomb, Refused(&["--limit index="])),
        row("list of shards that unpacks to 1 GiB", shards_bomb, Refused(&["--limit index-shard="])),
        row("repodata.json that never ends", endless_index, Refused(&["--limit index="])),
        row("archive that never ends", endless_archive, Refused(&["fine-1.0-0", "--limit download="])),
        row("manifest that never ends", endless_manifest, Refused(&["127.0.0.1", "bytes"])),
        row("manifest that sends a byte every 0.3 s", manifest_drips, Refused(&["127.0.0.1"])),
    ]
}

/// How a path is answered.
type Answer = fn(&str, &Path, &mut TcpStream) -> std::io::Result<()>;

/// A server on loopback for a folder; its threads end with the process.
fn serve(folder: PathBuf, answer: Answer) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let folder = folder.clone();
            std::thread::spawn(move || {
                let mut lines = BufReader::new(stream.try_clone()?).lines().map_while(Result::ok);
                let first = lines.next().unwrap_or_default();
                lines.take_while(|line| !line.is_empty()).for_each(drop);
                let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
                answer(&path, &folder, &mut stream)
            });
        }
    });
    url
}

/// A build from a channel at a server.
fn from(case: &Case, answer: Answer) -> Command {
    let url = serve(case.channel.folder.clone(), answer);
    case.workspace.file("environment.yml", environment(&["fine"]));
    let mut command = case.workspace.condaimg();
    command.args(["build", "--override-channels", "--channel", &url, "--base", "scratch", "--glibc", "2.36"]);
    command
}

fn missing(stream: &mut TcpStream) -> std::io::Result<()> {
    stream.write_all(b"HTTP/1.1 404 X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
}

/// The file at a path.
fn whole(path: &str, folder: &Path, stream: &mut TcpStream) -> std::io::Result<()> {
    let Ok(bytes) = fs_err::read(folder.join(path.trim_start_matches('/'))) else { return missing(stream) };
    write!(stream, "HTTP/1.1 200 X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", bytes.len())?;
    stream.write_all(&bytes)
}

/// One byte now and then.
fn drip(length: u64, stream: &mut TcpStream) -> std::io::Result<()> {
    write!(stream, "HTTP/1.1 200 X\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n")?;
    loop {
        stream.write_all(b" ")?;
        std::thread::sleep(Duration::from_millis(300));
    }
}

/// Spaces without end.
fn endless(stream: &mut TcpStream) -> std::io::Result<()> {
    stream.write_all(b"HTTP/1.1 200 X\r\nConnection: close\r\n\r\n")?;
    let chunk = vec![b' '; 1 << 20];
    loop {
        stream.write_all(&chunk)?;
    }
}

fn index_drips(case: &mut Case) -> Command {
    from(case, |_, _, stream| drip(1_000_000, stream))
}

fn index_silent(case: &mut Case) -> Command {
    from(case, |_, _, stream| {
        std::thread::sleep(Duration::from_secs(200));
        stream.flush()
    })
}

fn archive_drips(case: &mut Case) -> Command {
    let mut command = from(case, |path, folder, stream| match path.ends_with(".conda") {
        true => {
            let size = fs_err::metadata(folder.join(path.trim_start_matches('/')))?.len();
            drip(size, stream)
        }
        false => whole(path, folder, stream),
    });
    command.args(["--limit", "stall-seconds=3"]);
    command
}

/// Something that unpacks to so many spaces.
fn bomb(size: u64) -> Vec<u8> {
    zstd::encode_all(std::io::repeat(b' ').take(size), 1).expect("packs")
}

fn zstd_bomb(case: &mut Case) -> Command {
    let bytes = bomb(3 << 30);
    for subdir in ["linux-64", "noarch"] {
        case.workspace.file(&format!("channel/{subdir}/repodata.json.zst"), &bytes);
    }
    from(case, whole)
}

fn gzip_bomb(case: &mut Case) -> Command {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
    std::io::copy(&mut std::io::repeat(b' ').take(3 << 30), &mut gzip).expect("packs");
    let bytes = gzip.finish().expect("ends");
    for subdir in ["linux-64", "noarch"] {
        case.workspace.file(&format!("channel/{subdir}/repodata.json"), &bytes);
    }
    let mut command = from(case, |path, folder, stream| {
        let path = path.trim_start_matches('/');
        let Ok(bytes) = fs_err::read(folder.join(path)) else { return missing(stream) };
        let length = bytes.len();
        write!(
            stream,
            "HTTP/1.1 200 X\r\nContent-Length: {length}\r\nContent-Encoding: gzip\r\nConnection: close\r\n\r\n"
        )?;
        stream.write_all(&bytes)
    });
    command.args(["--limit", "index=60MiB"]);
    command
}

fn shards_bomb(case: &mut Case) -> Command {
    let bytes = bomb(1 << 30);
    for subdir in ["linux-64", "noarch"] {
        case.workspace.file(&format!("channel/{subdir}/repodata_shards.msgpack.zst"), &bytes);
    }
    from(case, whole)
}

fn endless_index(case: &mut Case) -> Command {
    let mut command = from(case, |path, _, stream| match path.ends_with("/repodata.json") {
        true => endless(stream),
        false => missing(stream),
    });
    command.args(["--limit", "index=40MiB"]);
    command
}

fn endless_archive(case: &mut Case) -> Command {
    // The index does not say how large it is.
    case.channel.change("fine", |record| drop(record.as_object_mut().expect("a record").remove("size")));
    case.channel.index();
    let mut command = from(case, |path, folder, stream| match path.ends_with(".conda") {
        true => endless(stream),
        false => whole(path, folder, stream),
    });
    command.args(["--limit", "download=30MiB"]);
    command
}

/// A build on a base in a registry.
fn on_registry(case: &mut Case, answer: Answer) -> Command {
    let url = serve(case.channel.folder.clone(), answer);
    let host = url.split_once("://").expect("a URL").1;
    case.workspace.file("environment.yml", environment(&["fine"]));
    let mut command = case.workspace.condaimg();
    command.args(["build", "--override-channels", "--channel"]).arg(&case.channel.folder);
    command.args(["--base", &format!("{host}/team/base:1"), "--registry-retries", "1"]);
    command
}

fn endless_manifest(case: &mut Case) -> Command {
    on_registry(case, |path, _, stream| match path.contains("/manifests/") {
        true => {
            stream.write_all(b"HTTP/1.1 200 X\r\nContent-Type: application/vnd.oci.image.manifest.v1+json\r\n")?;
            stream.write_all(b"Connection: close\r\n\r\n")?;
            let chunk = vec![b' '; 1 << 20];
            loop {
                stream.write_all(&chunk)?;
            }
        }
        false => stream.write_all(b"HTTP/1.1 200 X\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"),
    })
}

fn manifest_drips(case: &mut Case) -> Command {
    let mut command = on_registry(case, |path, _, stream| match path.contains("/manifests/") {
        true => drip(1000, stream),
        false => stream.write_all(b"HTTP/1.1 200 X\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"),
    });
    command.args(["--limit", "stall-seconds=3"]);
    command
}
