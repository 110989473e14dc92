//! Pushes in chunks.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::{Image, Row, attempts, client, deletes, left_behind, options, pushed, times};
use crate::common::proxy::{Cut, Cutter, Deed, Gate, Head, Sender, answer};
use crate::common::registry::{LocalRegistry, Mode};
use condaimg::registry::RegistryOptions;

/// Bytes of the layer: nine chunks of 1 MiB.
const SIZE: usize = (9 << 20) - 5;
const MIB: u64 = 1 << 20;

pub async fn rows() -> Vec<Row> {
    vec![
        Row { fault: "413", produced: "a proxy takes no request above 3 MiB", outcome: too_large(3 * MIB).await },
        Row {
            fault: "413 for everything",
            produced: "a proxy takes no request above 1,000 bytes",
            outcome: too_large(1000).await,
        },
        Row {
            fault: "chunks demanded",
            produced: "a proxy sets `OCI-Chunk-Min-Length` to 2 MiB and refuses PUTs with a body",
            outcome: chunks_only().await,
        },
        Row {
            fault: "416 in mid-upload",
            produced: "a proxy answers the third of nine chunks so",
            outcome: third(|head| answer(head, 416, Vec::new())).await,
        },
        Row {
            fault: "502 in mid-upload, in chunks",
            produced: "a proxy answers the third chunk so in the middle of it",
            outcome: third(|head| Deed::Answer {
                after: head.length() / 2,
                status: 502,
                headers: vec![],
                body: vec![],
            })
            .await,
        },
        Row {
            fault: "connection closed in mid-upload, in chunks",
            produced: "a TCP proxy ends it (FIN) in the fourth chunk",
            outcome: cut().await,
        },
        Row {
            fault: "registry keeps half a chunk and says so",
            produced: "a proxy drops the second half of the third chunk",
            outcome: third(|_| Deed::Half).await,
        },
        Row {
            fault: "registry drops a chunk and says so",
            produced: "a proxy drops the third chunk, and the `Range` in its answer does not count it",
            outcome: third(|head| {
                let location = head.path.clone();
                answer(head, 202, vec![("location", location), ("range", format!("0-{}", 2 * MIB - 1))])
            })
            .await,
        },
        Row {
            fault: "registry drops a chunk silently",
            produced: "a proxy drops the last chunk and claims that it was taken (as ECR does)",
            outcome: dropped().await,
        },
    ]
}

/// What came of a push through a gate with this rule.
async fn through(
    chunk_size: Option<u64>,
    rule: impl Fn(&str, &Head) -> Deed + Send + Sync + 'static,
) -> (Gate, String) {
    let (server, image) = (LocalRegistry::start(Mode::Plain), Image::new(SIZE));
    let gate = Gate::start(&server.host(), rule);
    let registry = client(RegistryOptions { chunk_size, ..options() });
    let outcome = match image.push(&registry, &gate.host, &[]).await {
        Ok(_) => {
            let attempts = gate.count("POST", "/blobs/uploads/") - 1;
            format!("{}, {}, {}", pushed(attempts), image.verify(&server), left_behind(&server).await)
        }
        Err(error) => format!("{}; {}", image.told(&error, &[&gate.host]), left_behind(&server).await),
    };
    (gate, outcome)
}

async fn too_large(limit: u64) -> String {
    let (server, image) = (LocalRegistry::start(Mode::Plain), Image::new(SIZE));
    let gate = Gate::start(&server.host(), move |_, head| match head.length() > limit {
        true => Deed::Answer { after: 0, status: 413, headers: Vec::new(), body: Vec::new() },
        false => Deed::Pass,
    });
    let registry = client(options());
    let refused = |gate: &Gate| gate.requests().iter().filter(|head| head.length() > limit).count();
    if let Err(error) = image.push(&registry, &gate.host, &[]).await {
        return format!("{}; {}", image.told(&error, &[&gate.host]), left_behind(&server).await);
    }
    let (uploads, first) = (gate.count("POST", "/blobs/uploads/") - 1, refused(&gate));
    let chunks = gate.requests().into_iter().filter(|head| head.method == "PATCH" && head.length() <= limit);
    let largest = chunks.map(|head| head.length()).max().expect("chunks") / MIB;
    let verified = image.verify(&server);
    // The next blob goes in chunks at once.
    let next = Image::new(SIZE + 1);
    next.push(&registry, &gate.host, &[]).await.expect("pushes");
    let (more, verified_next) = (refused(&gate) - first, next.verify(&server));
    assert_eq!(verified, verified_next);
    format!(
        "{} in chunks of {largest} MiB, {verified}, {}; {first} refusals, {more} for the next blob",
        pushed(uploads),
        left_behind(&server).await
    )
}

async fn chunks_only() -> String {
    let (gate, outcome) = through(None, |_, head| {
        if head.is("POST", "/blobs/uploads/") {
            return Deed::Change(Box::new(|answer| answer.set("oci-chunk-min-length", Some((2 * MIB).to_string()))));
        }
        if head.is("PUT", "/blobs/") && head.length() > 0 { answer(head, 400, Vec::new()) } else { Deed::Pass }
    })
    .await;
    format!("{outcome}; {} chunks for two blobs, {} refusal", gate.count("PATCH", ""), gate.count("PUT", "/blobs/") - 2)
}

/// Chunks of 1 MiB, of which the third meets something.
async fn third(deed: impl Fn(&Head) -> Deed + Send + Sync + 'static) -> String {
    let count = AtomicUsize::new(0);
    let (gate, outcome) =
        through(Some(MIB), move |_, head| match head.method == "PATCH" && count.fetch_add(1, Ordering::Relaxed) == 2 {
            true => deed(head),
            false => Deed::Pass,
        })
        .await;
    let (chunks, asked) = (gate.count("PATCH", ""), times(gate.count("GET", "/blobs/uploads/")));
    format!("{outcome}; {chunks} chunks sent, status of the upload asked {asked}")
}

async fn cut() -> String {
    let (server, image) = (LocalRegistry::start(Mode::Plain), Image::new(SIZE));
    let cutter = Cutter::start(&server.host(), Sender::Client, 3 * MIB + MIB / 2, Cut::Fin, 1);
    let registry = client(RegistryOptions { chunk_size: Some(MIB), ..options() });
    image.push(&registry, &cutter.host, &[]).await.expect("pushes");
    assert_eq!(cutter.cuts(), 1);
    format!("{}, {}, {}", pushed(attempts(&server)), image.verify(&server), deletes(&server).await)
}

async fn dropped() -> String {
    let (_, outcome) = through(Some(MIB), |_, head| {
        let range = head.headers.get("content-range").cloned().unwrap_or_default();
        match range.ends_with(&format!("-{}", SIZE - 1)) {
            true => {
                let location = head.path.clone();
                answer(head, 202, vec![("location", location), ("range", format!("0-{}", SIZE - 1))])
            }
            false => Deed::Pass,
        }
    })
    .await;
    outcome
}
