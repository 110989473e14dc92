//! The end of the program, or of a task, in the middle of a push.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::{Image, Row, client, left_behind, leftovers, options, reference};
use crate::common::images::{shared_cache, small};
use crate::common::proxy::{Cut, Cutter, Deed, Gate, Sender};
use crate::common::registry::{LocalRegistry, Mode, PASSWORD, USER};
use crate::common::{Workspace, environment, succeed};
use condaimg::registry::RegistryOptions;
use condaimg::util::report::Silent;

pub async fn rows() -> Vec<Row> {
    vec![
        Row {
            fault: "SIGTERM while an upload stalls",
            produced: "a TCP proxy passes on nothing more after 256 KiB",
            outcome: stalled().await,
        },
        Row {
            fault: "SIGTERM before the first byte arrives",
            produced: "a proxy holds the uploads",
            outcome: held().await,
        },
    ]
}

/// Pushes by the program to a host, and tells it to end once `stalls`. Gives what it ended with.
fn end_in_mid_push(host: &str, stalls: impl Fn() -> bool) -> String {
    small();
    let workspace = Workspace::new();
    workspace.file("environment.yml", environment(&["python=3.11", "click"]));
    let mut build = workspace.build_here();
    build.env("CONDAIMG_CACHE_DIR", shared_cache()).args(["--push", "--tag", &format!("{host}/team/env:1")]);
    let mut child = build.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("runs");
    let deadline = Instant::now() + Duration::from_secs(60);
    while !stalls() {
        assert!(Instant::now() < deadline && child.try_wait().expect("asks").is_none(), "no upload stalls");
        thread::sleep(Duration::from_millis(20));
    }
    let told = Instant::now();
    succeed(Command::new("kill").args(["-TERM", &child.id().to_string()]));
    let status = child.wait().expect("ends").code().expect("a status");
    let time = if told.elapsed() < Duration::from_secs(10) { "within 10 s" } else { "late" };
    format!("ended with status {status} {time}")
}

async fn stalled() -> String {
    let server = LocalRegistry::start(Mode::Plain);
    let cutter = Cutter::start(&server.host(), Sender::Client, 256 << 10, Cut::Stall, 1);
    let ended = tokio::task::block_in_place(|| end_in_mid_push(&cutter.host, || cutter.cuts() > 0));
    let deleted = if server.requests("DELETE /v2/team/env/blobs/uploads/") > 0 { "DELETE" } else { "no DELETE" };
    assert_eq!(server.requests("PUT /v2/team/env/manifests/"), 0);
    format!("{ended}, {deleted} of what was under way")
}

async fn held() -> String {
    let server = LocalRegistry::start(Mode::Plain);
    let waiting = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&waiting);
    let gate = Gate::start(&server.host(), move |_, head| {
        if head.is("PUT", "/blobs/uploads/") {
            count.fetch_add(1, Ordering::Relaxed);
            thread::park();
        }
        Deed::Pass
    });
    let ended = tokio::task::block_in_place(|| end_in_mid_push(&gate.host, || waiting.load(Ordering::Relaxed) > 0));
    assert!(server.requests("DELETE /v2/team/env/blobs/uploads/") >= 1);
    format!("{ended}, {}", left_behind(&server).await)
}

#[tokio::test]
async fn an_upload_that_nobody_waits_for_is_deleted() {
    let (server, image) = (LocalRegistry::start(Mode::Auth), Image::new(8 << 20));
    let chunks = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&chunks);
    let gate = Gate::start(&server.host(), move |_, head| {
        if head.method == "PATCH" && count.fetch_add(1, Ordering::Relaxed) == 2 {
            thread::park();
        }
        Deed::Pass
    });
    let login = Some((USER.to_owned(), PASSWORD.to_owned()));
    let registry = client(RegistryOptions { login, chunk_size: Some(1 << 20), ..options() });
    let target = reference(&gate.host, "team/env:1");
    let push = tokio::spawn(async move { registry.push_blob(&target, &image.layer, &[], &Silent).await.map(drop) });
    while chunks.load(Ordering::Relaxed) < 3 {
        assert!(!push.is_finished());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    push.abort();
    assert!(push.await.expect_err("is cancelled").is_cancelled());
    // Two chunks were there.
    assert_eq!(leftovers(&server).await, 0);
    assert_eq!(server.requests("DELETE /v2/team/env/blobs/uploads/"), 1);
}
