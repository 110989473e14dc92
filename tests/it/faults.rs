//! What comes of a push or a pull when something goes wrong: `docs/faults.md` is the table that this test makes
//! (`CONDAIMG_BLESS=1` writes it). Each outcome is put together from what was seen: what the client returned, what
//! the registry was asked, and whether skopeo pulls the same bytes afterwards.
#![allow(clippy::expect_used, reason = "a test may stop at the first surprise")]

mod cancel;
mod chunks;
mod pull;
mod push;

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use serde_json::json;

use crate::common::images::skopeo;
use crate::common::registry::LocalRegistry;
use condaimg::model::{Blob, BlobSource};
use condaimg::registry::{Patience, Reference, Registry, RegistryOptions, RetryPolicy, Sent, uploads_cancelled};
use condaimg::util::report::Silent;
use condaimg::util::{Digest, Error, Result};
use tempfile::TempDir;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// Where the table is.
const DOCUMENT: &str = "docs/faults.md";

const INTRODUCTION: &str = "\
# When something goes wrong on the way to a registry

A push sends each blob once: it asks whether the registry has it, has it mounted from another repository where that
is possible, and sends it in one piece otherwise. What fails for a passing reason is tried again, with waits that grow
and are never shorter than the registry asks for (`Retry-After`). By default a request is made up to 12 times, which
outlives a registry that restarts, and a push repeats 100 requests in all. What cannot pass is told at once, with the
registry, the repository, the digest and what the registry said. An upload that came to nothing is deleted in the
registry, also after Ctrl-C. (CNCF distribution refuses the DELETE of an upload of which it has a part that it did not
expect; it purges these itself, after a week by default.)

This table is made by a test (`tests/it/faults.rs`), which produces every fault, mostly between condaimg and a real
registry (CNCF distribution 2.8), with shorter waits and fewer attempts (4) than the default. \"Verified\" means that
skopeo pulled the image afterwards, and every digest was right.

| Fault | How it is produced | Outcome |
|---|---|---|
";

/// A row of the table.
struct Row {
    fault: &'static str,
    produced: &'static str,
    outcome: String,
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documented_outcomes_are_what_happens() {
    let mut rows = push::rows().await;
    rows.extend(chunks::rows().await);
    rows.extend(pull::rows().await);
    rows.extend(cancel::rows().await);
    let mut table = INTRODUCTION.to_owned();
    for Row { fault, produced, outcome } in rows {
        assert!(!outcome.contains(['|', '\n']), "{outcome}");
        writeln!(table, "| {fault} | {produced} | {outcome} |").expect("writes");
    }
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join(DOCUMENT);
    if std::env::var_os("CONDAIMG_BLESS").is_some_and(|value| value == "1") {
        fs_err::write(&document, &table).expect("writes");
    }
    let documented = fs_err::read_to_string(&document).unwrap_or_default();
    for (number, (seen, written)) in table.lines().zip(documented.lines()).enumerate() {
        assert_eq!(seen, written, "line {} of {DOCUMENT}; CONDAIMG_BLESS=1 rewrites it", number + 1);
    }
    assert_eq!(table, documented, "{DOCUMENT} has another number of lines; CONDAIMG_BLESS=1 rewrites it");
}

/// Does not read this machine's credential files, and does not wait long.
fn options() -> RegistryOptions {
    RegistryOptions {
        auth_files: Some(Vec::new()),
        retry: RetryPolicy {
            attempts: 4,
            base: Duration::from_millis(20),
            cap: Duration::from_millis(200),
            asked_cap: Duration::from_secs(5),
            budget: 100,
        },
        patience: Patience { idle: Duration::from_secs(20), commit: Duration::from_secs(60) },
        ..RegistryOptions::default()
    }
}

fn client(options: RegistryOptions) -> Registry {
    Registry::new(options).expect("a client")
}

fn reference(host: &str, name: &str) -> Reference {
    Registry::parse(&format!("{host}/{name}")).expect("a reference")
}

/// A small image with one layer.
struct Image {
    config: Blob,
    layer: Blob,
    manifest: Vec<u8>,
    _folder: TempDir,
}

impl Image {
    /// With a layer of so many bytes, which is incompressible and the same each time.
    fn new(size: usize) -> Self {
        let folder = TempDir::new().expect("a folder");
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let bytes = std::iter::repeat_with(|| {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            (state >> 56) as u8
        });
        let bytes: Vec<u8> = bytes.take(size).collect();
        let path = folder.path().join("layer");
        fs_err::write(&path, &bytes).expect("writes");
        let digest = Digest::of(&bytes);
        let layer = Blob { media_type: LAYER.into(), digest, size: size as u64, source: BlobSource::File(path) };
        Self::of(layer, folder)
    }

    fn of(layer: Blob, folder: TempDir) -> Self {
        let config = json!({
            "architecture": "amd64", "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [layer.digest.to_string()]},
        });
        let config = Blob::from_bytes(CONFIG, config.to_string().into_bytes());
        let descriptor =
            |blob: &Blob| json!({"mediaType": blob.media_type, "digest": blob.digest.to_string(), "size": blob.size});
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": descriptor(&config), "layers": [descriptor(&layer)],
        });
        Self { config, layer, manifest: manifest.to_string().into_bytes(), _folder: folder }
    }

    /// Pushes it as `team/env:1`, the layer first; gives what became of the layer.
    async fn push(&self, registry: &Registry, host: &str, mount_from: &[Reference]) -> Result<Sent> {
        let target = reference(host, "team/env:1");
        let sent = registry.push_blob(&target, &self.layer, mount_from, &Silent).await?;
        registry.push_blob(&target, &self.config, &[], &Silent).await?;
        registry.push_manifest(&target, MANIFEST, &self.manifest).await?;
        Ok(sent)
    }

    /// Pulls it by skopeo, and looks whether every byte is right.
    fn verify(&self, server: &LocalRegistry) -> &'static str {
        let folder = TempDir::new().expect("a folder");
        let (image, copy) = (format!("docker://{}/team/env:1", server.host()), folder.path().join("copy"));
        skopeo(&["copy", "--quiet", "--src-tls-verify=false", &image, &format!("dir:{}", copy.display())]);
        assert_eq!(fs_err::read(copy.join("manifest.json")).expect("reads"), self.manifest);
        for blob in [&self.config, &self.layer] {
            let bytes = fs_err::read(copy.join(blob.digest.hex())).expect("reads");
            assert_eq!(Digest::of(bytes), blob.digest);
        }
        "verified"
    }

    /// What a user is told, without what differs from run to run.
    fn told(&self, error: &Error, hosts: &[&str]) -> String {
        let mut text = error.chain().join(": ");
        for host in hosts {
            text = text.replace(host, "HOST");
        }
        for digest in [self.layer.digest, self.config.digest, Digest::of(&self.manifest)] {
            text = text.replace(&digest.to_string(), "DIGEST");
        }
        format!("refused: “{}”", text.replace('|', "/"))
    }
}

/// "pushed at the first attempt", "pushed at attempt 2".
fn pushed(attempts: usize) -> String {
    match attempts {
        1 => "pushed at the first attempt".to_owned(),
        more => format!("pushed at attempt {more}"),
    }
}

/// How many uploads of the layer a registry saw begin; one more was the config's.
fn attempts(server: &LocalRegistry) -> usize {
    server.requests("POST /v2/team/env/blobs/uploads/") - 1
}

/// How many unfinished uploads lie in the registry's folder, once all that were given up were dealt with.
async fn leftovers(server: &LocalRegistry) -> usize {
    uploads_cancelled(Duration::from_secs(10)).await;
    let folder = server.data().join("docker/registry/v2/repositories/team/env/_uploads");
    // What CNCF distribution leaves of a deleted upload is an empty state of a hash.
    let unfinished = |entry: &fs_err::DirEntry| entry.path().join("startedat").exists();
    fs_err::read_dir(&folder).map_or(0, |entries| entries.flatten().filter(unfinished).count())
}

/// "once", "3 times".
fn times(count: usize) -> String {
    match count {
        0 => "never".to_owned(),
        1 => "once".to_owned(),
        2 => "twice".to_owned(),
        more => format!("{more} times"),
    }
}

/// "nothing left behind", when that is so.
async fn left_behind(server: &LocalRegistry) -> String {
    match leftovers(server).await {
        0 => "nothing left behind".to_owned(),
        count => format!("{count} unfinished uploads left behind"),
    }
}

/// How often the registry was asked to delete an upload.
async fn deletes(server: &LocalRegistry) -> String {
    uploads_cancelled(Duration::from_secs(10)).await;
    match server.requests("DELETE /v2/team/env/blobs/uploads/") {
        1 => "1 DELETE of an upload".to_owned(),
        count => format!("{count} DELETEs of uploads"),
    }
}
