//! Downloads.

use super::{Image, Row, client, options, reference};
use crate::common::proxy::{Cut, Cutter, Deed, Gate, Head, Sender, answer};
use crate::common::registry::{LocalRegistry, Mode};
use condaimg::model::BlobSource;
use condaimg::store::Store;
use condaimg::util::Digest;
use tempfile::TempDir;

/// Bytes of the layer.
const SIZE: usize = 32 << 20;

pub async fn rows() -> Vec<Row> {
    vec![
        Row {
            fault: "connection closed in mid-download",
            produced: "a TCP proxy ends it after 1 MiB",
            outcome: download(Cut::Fin, |_, _| Deed::Pass).await,
        },
        Row {
            fault: "the same, and parts are not given",
            produced: "a proxy takes the `Range` for the rest away",
            outcome: download(Cut::Fin, |_, head| match head.headers.contains_key("range") {
                true => Deed::Whole,
                false => Deed::Pass,
            })
            .await,
        },
        Row {
            fault: "416 on resume",
            produced: "a proxy answers so to requests for the rest",
            outcome: download(Cut::Fin, |_, head| match head.headers.contains_key("range") {
                true => answer(head, 416, Vec::new()),
                false => Deed::Pass,
            })
            .await,
        },
        Row { fault: "wrong bytes", produced: "a proxy sends others, as many", outcome: wrong(2).await },
        Row {
            fault: "hostile redirect",
            produced: "a proxy sends downloads to the address of a cloud's metadata service",
            outcome: redirected().await,
        },
        Row { fault: "wrong bytes once", produced: "the same, for the first download", outcome: wrong(1).await },
    ]
}

/// Fetches a layer that is cut on its way once.
async fn download(how: Cut, rule: impl Fn(&str, &Head) -> Deed + Send + Sync + 'static) -> String {
    let (server, image, folder) =
        (LocalRegistry::start(Mode::Plain), Image::new(SIZE), TempDir::new().expect("a folder"));
    image.push(&client(options()), &server.host(), &[]).await.expect("pushes");
    let gate = Gate::start(&server.host(), rule);
    let cutter = Cutter::start(&gate.host, Sender::Server, 1 << 20, how, 1);
    let store = Store::open(folder.path()).expect("opens");
    let target = reference(&cutter.host, "team/env:1");
    let path = client(options()).fetch_blob(&target, &image.layer.digest, SIZE as u64, &store).await.expect("fetches");
    assert_eq!(cutter.cuts(), 1);
    assert_eq!(Digest::of(fs_err::read(path).expect("reads")), image.layer.digest);
    let gets: Vec<Head> = gate.requests().into_iter().filter(|head| head.is("GET", "/blobs/")).collect();
    let rest = gets.iter().filter_map(|head| head.headers.get("range")).filter(|range| !range.starts_with("bytes=0-"));
    let (requests, rests) = (gets.len(), rest.count());
    format!("fetched by {requests} requests, {rests} of them for the rest; digest right")
}

async fn redirected() -> String {
    let (server, image) = (LocalRegistry::start(Mode::Plain), Image::new(1000));
    image.push(&client(options()), &server.host(), &[]).await.expect("pushes");
    let gate = Gate::start(&server.host(), |_, head| match head.is("GET", "/blobs/") {
        true => answer(head, 307, vec![("location", "https://169.254.169.254/latest".into())]),
        false => Deed::Pass,
    });
    let folder = TempDir::new().expect("a folder");
    let (store, target) = (Store::open(folder.path()).expect("opens"), reference(&gate.host, "team/env:1"));
    let fetched = client(options()).fetch_blob(&target, &image.layer.digest, 1000, &store).await;
    image.told(&fetched.expect_err("is refused"), &[&gate.host])
}

async fn wrong(times: usize) -> String {
    let (server, image, folder) =
        (LocalRegistry::start(Mode::Plain), Image::new(SIZE), TempDir::new().expect("a folder"));
    image.push(&client(options()), &server.host(), &[]).await.expect("pushes");
    let left = std::sync::atomic::AtomicUsize::new(times);
    let gate = Gate::start(&server.host(), move |_, head| {
        use std::sync::atomic::Ordering::Relaxed;
        let hit = head.is("GET", "/blobs/") && left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok();
        match hit {
            true => Deed::Answer { after: 0, status: 200, headers: Vec::new(), body: vec![7; SIZE] },
            false => Deed::Pass,
        }
    });
    let store = Store::open(folder.path()).expect("opens");
    let target = reference(&gate.host, "team/env:1");
    let fetched = client(options()).fetch_blob(&target, &image.layer.digest, SIZE as u64, &store).await;
    let requests = gate.count("GET", "/blobs/");
    match fetched {
        Ok(path) => {
            assert_eq!(Digest::of(fs_err::read(path).expect("reads")), image.layer.digest);
            format!("fetched by {requests} requests; digest right")
        }
        Err(error) => {
            assert!(!store.has_blob(&image.layer.digest, SIZE as u64));
            assert!(!store.has_blob(&Digest::of(vec![7; SIZE]), SIZE as u64));
            let told = image.told(&error, &[&gate.host]).replace(&Digest::of(vec![7; SIZE]).to_string(), "OTHER");
            format!("{told} after {requests} downloads; nothing of it in the cache")
        }
    }
}

/// A copy between registries reads from where the source broke off, within one upload.
#[tokio::test]
async fn a_copy_goes_on_where_the_source_broke_off() {
    let (from, to, image) = (LocalRegistry::start(Mode::Plain), LocalRegistry::start(Mode::Plain), Image::new(SIZE));
    image.push(&client(options()), &from.host(), &[]).await.expect("pushes");
    let cutter = Cutter::start(&from.host(), Sender::Server, 5 << 20, Cut::Fin, 2);
    let mut copied = image.layer.clone();
    copied.source = BlobSource::Registry(reference(&cutter.host, "team/env:1").to_string());
    let target = reference(&to.host(), "team/env:1");
    client(options()).push_blob(&target, &copied, &[], &condaimg::util::report::Silent).await.expect("copies");
    assert_eq!(cutter.cuts(), 2);
    assert_eq!(to.requests("POST "), 1);
    assert_eq!(to.uploads(), [image.layer.digest.to_string()]);
}
