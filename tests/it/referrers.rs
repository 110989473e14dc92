//! Referrers and what goes with them: a real registry without the referrers API, where the fallback tag is kept, and a
//! fake one with the API; manifests that are refused, and deleted.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex};

use condaimg::image::{Artifact, ArtifactFile, artifact};
use condaimg::model::Blob;
use condaimg::registry::{Reference, Registry, Sent};
use condaimg::util::Digest;
use condaimg::util::report::Silent;
use oci_spec::image::Descriptor;
use serde_json::{Value, json};

use crate::common::images::skopeo;
use crate::common::registry::{Fake, LocalRegistry, Mode, Reply, Request};
use crate::registry::{CONFIG, MANIFEST, client, empty, options, reference, told};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const KIND: &str = "application/vnd.example.note.v1";

/// Pushes an image into `repository`; gives its reference by digest and its descriptor.
async fn subject(registry: &Registry, repository: &Reference) -> (Reference, Descriptor) {
    let config = Blob::from_bytes(CONFIG, b"{}".to_vec());
    registry.push_blob(repository, &config, &[], &Silent).await.expect("pushes");
    let descriptor = json!({"mediaType": CONFIG, "digest": config.digest.to_string(), "size": 2});
    let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": descriptor, "layers": []}).to_string();
    registry.push_manifest(repository, MANIFEST, manifest.as_bytes()).await.expect("pushes");
    described(repository, &manifest)
}

fn described(repository: &Reference, manifest: &str) -> (Reference, Descriptor) {
    let digest = Digest::of(manifest);
    let by_digest = Registry::parse(&format!("{}/{}@{digest}", repository.registry(), repository.repository()));
    let descriptor = json!({"mediaType": MANIFEST, "digest": digest.to_string(), "size": manifest.len()});
    (by_digest.expect("a reference"), serde_json::from_value(descriptor).expect("a descriptor"))
}

fn note(subject: &Descriptor, text: &str) -> Artifact {
    let blob = Blob::from_bytes("text/plain", text.as_bytes().to_vec());
    let annotations = BTreeMap::from([("dev.example.note".to_owned(), text.to_owned())]);
    artifact(subject, KIND, &[ArtifactFile { blob, title: "note.txt".into() }], &annotations).expect("makes")
}

/// Pushes an artifact with its blobs.
async fn attach(registry: &Registry, repository: &Reference, note: &Artifact) -> condaimg::util::Result<Sent> {
    for blob in note.layers.iter().chain([&note.config]) {
        registry.push_blob(repository, blob, &[], &Silent).await.expect("pushes");
    }
    registry.push_referrer(repository, &bytes(&note.manifest), MANIFEST).await
}

fn bytes(blob: &Blob) -> Vec<u8> {
    match &blob.source {
        condaimg::model::BlobSource::Bytes(bytes) => bytes.to_vec(),
        other => panic!("{other:?}"),
    }
}

fn fallback(subject: &Reference) -> Reference {
    let tag = subject.digest().expect("a digest").replace(':', "-");
    reference(subject.registry(), &format!("{}:{tag}", subject.repository()))
}

async fn index_under(registry: &Registry, tag: &Reference) -> Value {
    serde_json::from_slice(&registry.manifest(tag).await.expect("an index").bytes).expect("JSON")
}

fn digests(descriptors: &[Descriptor]) -> Vec<String> {
    descriptors.iter().map(|descriptor| descriptor.digest().to_string()).collect()
}

#[tokio::test]
async fn without_the_api_the_fallback_tag_lists_referrers() {
    let server = LocalRegistry::start(Mode::Plain);
    let (registry, repository) = (client(options()), reference(&server.host(), "team/env:1"));
    let (image, descriptor) = subject(&registry, &repository).await;
    assert_eq!(registry.referrers(&image, None).await.expect("lists"), []);

    let first = note(&descriptor, "first");
    let sent = attach(&registry, &repository, &first).await.expect("pushes");
    let index = registry.manifest(&fallback(&image)).await.expect("an index");
    assert_eq!(index.media_type, INDEX);
    assert_eq!(sent, Sent::Uploaded(first.manifest.size + index.bytes.len() as u64));
    let expected = format!(
        concat!(
            r#"{{"manifests":[{{"annotations":{{"dev.example.note":"first"}},"artifactType":"{}","digest":"{}","#,
            r#""mediaType":"{}","size":{}}}],"mediaType":"{}","schemaVersion":2}}"#
        ),
        KIND, first.manifest.digest, MANIFEST, first.manifest.size, INDEX
    );
    assert_eq!(String::from_utf8_lossy(&index.bytes), expected);

    // Once more, by somebody else: it is asked for, and nothing is written.
    let writes = server.requests("P");
    assert_eq!(attach(&client(options()), &repository, &first).await.expect("asks"), Sent::Existed);
    assert_eq!(server.requests("P"), writes);

    let second = note(&descriptor, "second");
    attach(&registry, &repository, &second).await.expect("pushes");
    let both = [&first, &second].map(|note| note.manifest.digest.to_string());
    let listed = registry.referrers(&image, Some(KIND)).await.expect("lists");
    assert_eq!(digests(&listed), both);
    assert_eq!(listed[0].annotations().as_ref().expect("annotations")["dev.example.note"], "first");
    assert_eq!(registry.referrers(&image, Some("application/other")).await.expect("lists"), []);

    let seen = skopeo(&["inspect", "--raw", "--tls-verify=false", &format!("docker://{}", fallback(&image))]);
    let seen: Value = serde_json::from_str(&seen).expect("JSON");
    assert_eq!(seen["manifests"].as_array().map(Vec::len), Some(2));
}

#[tokio::test]
async fn what_others_wrote_into_the_index_stays() {
    let server = LocalRegistry::start(Mode::Plain);
    let (registry, repository) = (client(options()), reference(&server.host(), "team/env:1"));
    let (image, descriptor) = subject(&registry, &repository).await;
    let digest = image.digest().expect("a digest");
    let foreign = json!({"mediaType": MANIFEST, "digest": digest, "size": descriptor.size(), "x-odd": [1, "é"]});
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [foreign], "x-kept": {"a": null}});
    registry.push_manifest(&fallback(&image), INDEX, index.to_string().as_bytes()).await.expect("pushes");

    let note = note(&descriptor, "note");
    attach(&registry, &repository, &note).await.expect("pushes");
    let index = index_under(&registry, &fallback(&image)).await;
    assert_eq!((&index["manifests"][0], &index["x-kept"]), (&foreign, &json!({"a": null})));
    assert_eq!(index["manifests"][1]["digest"], note.manifest.digest.to_string());
}

#[tokio::test]
async fn entries_of_deleted_manifests_do_not_block_the_index() {
    let server = LocalRegistry::start(Mode::Plain);
    let (registry, repository) = (client(options()), reference(&server.host(), "team/env:1"));
    let (image, descriptor) = subject(&registry, &repository).await;
    let [old, new] = ["old", "new"].map(|text| note(&descriptor, text));
    attach(&registry, &repository, &old).await.expect("pushes");
    let old = reference(&server.host(), &format!("team/env@{}", old.manifest.digest));
    registry.delete_manifest(&old).await.expect("deletes");
    attach(&registry, &repository, &new).await.expect("pushes");
    let listed = registry.referrers(&image, None).await.expect("lists");
    assert_eq!(digests(&listed), [new.manifest.digest.to_string()]);
}

#[tokio::test]
async fn an_image_under_the_fallback_tag_is_not_overwritten() {
    let server = LocalRegistry::start(Mode::Plain);
    let (registry, repository) = (client(options()), reference(&server.host(), "team/env:1"));
    let (image, descriptor) = subject(&registry, &repository).await;
    let manifest = registry.manifest(&image).await.expect("fetches");
    registry.push_manifest(&fallback(&image), MANIFEST, &manifest.bytes).await.expect("pushes");
    assert_eq!(registry.referrers(&image, None).await.expect("lists"), []);
    let text = told(&attach(&registry, &repository, &note(&descriptor, "x")).await.expect_err("refuses"));
    assert!(text.contains(fallback(&image).tag().expect("a tag")) && text.contains("no index"), "{text}");
    assert_eq!(registry.manifest(&fallback(&image)).await.expect("fetches").bytes, manifest.bytes);
}

/// Eight writers at once, each in a thread with a runtime of its own.
fn write_at_once(server: &LocalRegistry, clients: &[Registry]) {
    let repository = reference(&server.host(), "team/env:1");
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (image, descriptor) = runtime().block_on(subject(&clients[0], &repository));
    let barrier = Arc::new(Barrier::new(clients.len()));
    let writers = clients.iter().cloned().enumerate().map(|(number, registry)| {
        let (barrier, descriptor, repository) = (Arc::clone(&barrier), descriptor.clone(), repository.clone());
        std::thread::spawn(move || {
            let note = note(&descriptor, &format!("note {number}"));
            barrier.wait();
            let sent = runtime().block_on(attach(&registry, &repository, &note)).expect("pushes");
            assert!(matches!(sent, Sent::Uploaded(_)), "{sent:?}");
            note.manifest.digest.to_string()
        })
    });
    let writers: Vec<_> = writers.collect();
    let mut expected: Vec<String> = writers.into_iter().map(|writer| writer.join().expect("ends")).collect();
    let mut listed = digests(&runtime().block_on(clients[0].referrers(&image, None)).expect("lists"));
    expected.sort();
    listed.sort();
    assert_eq!(listed, expected);
}

#[test]
fn writers_at_once_lose_nothing() {
    let server = LocalRegistry::start(Mode::Plain);
    // Clients that know nothing of each other, as those of different machines.
    write_at_once(&server, &[0; 8].map(|_| client(options())));
}

#[test]
fn writers_of_one_process_take_turns() {
    let server = LocalRegistry::start(Mode::Plain);
    let registry = client(options());
    write_at_once(&server, &[0; 8].map(|_| registry.clone()));
    // The subject's manifest, eight notes, and the index eight times: nobody had to write it twice.
    assert_eq!(server.requests("PUT /v2/team/env/manifests/"), 1 + 8 + 8);
}

/// A registry that takes everything and keeps manifests; `lists` are the pages of the referrers API, if it has one.
struct Kept {
    manifests: Mutex<BTreeMap<String, Vec<u8>>>,
}

impl Kept {
    fn new() -> Arc<Self> {
        Arc::new(Self { manifests: Mutex::default() })
    }

    fn put(&self, name: &str, bytes: Vec<u8>) {
        self.manifests.lock().expect("locks").insert(name.to_owned(), bytes);
    }

    /// Answers to what every registry has; `subject` is what it says about a manifest that it takes.
    fn answer(&self, request: &Request, subject: Option<String>) -> Reply {
        let (method, path) = request.line.split_once(' ').expect("a request");
        let Some(name) = path.split("/manifests/").nth(1) else {
            return match method {
                "HEAD" | "GET" => empty(200),
                _ => empty(404),
            };
        };
        if method == "PUT" {
            self.put(name, request.body.clone());
            return (201, subject.map(|subject| ("oci-subject", subject)).into_iter().collect(), Vec::new());
        }
        match self.manifests.lock().expect("locks").get(name) {
            Some(bytes) => {
                let headers = vec![("content-type", INDEX.into()), ("etag", format!("\"{}\"", Digest::of(bytes)))];
                (200, headers, if method == "GET" { bytes.clone() } else { Vec::new() })
            }
            None => empty(404),
        }
    }
}

fn page(entries: &[Value]) -> Vec<u8> {
    json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}).to_string().into_bytes()
}

fn entry(text: &str, kind: &str) -> Value {
    json!({"mediaType": MANIFEST, "digest": Digest::of(text).to_string(), "size": 1, "artifactType": kind})
}

#[tokio::test]
async fn with_the_api_no_fallback_tag_is_written() {
    let kept = Kept::new();
    let fake = Fake::start(move |_, request| {
        let document: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        kept.answer(request, document["subject"]["digest"].as_str().map(str::to_owned))
    });
    let (image, descriptor) = described(&reference(&fake.host, "env:1"), "subject");
    let note = note(&descriptor, "note");
    let sent = client(options()).push_referrer(&image, &bytes(&note.manifest), MANIFEST).await.expect("pushes");
    assert_eq!(sent, Sent::Uploaded(note.manifest.size));
    let puts: Vec<_> = fake.requests().into_iter().filter(|request| request.line.starts_with("PUT")).collect();
    assert_eq!(puts.len(), 1);
    assert_eq!(puts[0].line, format!("PUT /v2/env/manifests/{}", note.manifest.digest));
    assert_eq!(puts[0].headers["content-type"], MANIFEST);
    assert!(!fake.requests().iter().any(|request| request.line.contains("sha256-")));
}

#[tokio::test]
async fn what_the_api_lists_already_is_not_written() {
    let (image, descriptor) = described(&reference("registry.example", "env:1"), "subject");
    let note = note(&descriptor, "note");
    let (listed, manifest) = (note.manifest.digest.to_string(), bytes(&note.manifest));
    let fake = Fake::start(move |_, request| match request.line.as_str() {
        line if line.starts_with("GET /v2/env/referrers/") => {
            (200, vec![("content-type", INDEX.into())], page(&[json!({"digest": listed})]))
        }
        line if line.starts_with("HEAD") => (200, vec![("docker-content-digest", listed.clone())], Vec::new()),
        _ => empty(200),
    });
    let image = reference(&fake.host, &format!("env@{}", image.digest().expect("a digest")));
    assert_eq!(client(options()).push_referrer(&image, &manifest, MANIFEST).await.expect("asks"), Sent::Existed);
    assert_eq!(fake.count("PUT") + fake.count("POST"), 0);
}

#[tokio::test]
async fn the_api_is_read_page_by_page_and_filtered() {
    for applied in [true, false] {
        let fake = Fake::start(move |host, request| {
            let mut headers = vec![("content-type", INDEX.into())];
            // One that filters need not repeat the type.
            if applied {
                headers.push(("oci-filters-applied", "artifactType".into()));
            }
            let untyped = json!({"mediaType": MANIFEST, "digest": Digest::of("c").to_string(), "size": 1});
            let entries = match request.line.as_str() {
                line if line.contains("last=2") => {
                    headers.push(("link", format!("<http://{host}/v2/env/referrers/x?last=3>; rel=\"next\"")));
                    vec![entry("b", "application/other")]
                }
                line if line.contains("last=3") => vec![untyped, json!("odd")],
                line if line.contains("/referrers/") => {
                    headers.push(("link", "<x?last=2>; rel=\"next\"".into()));
                    vec![entry("a", KIND)]
                }
                _ => return empty(200),
            };
            (200, headers, page(&entries))
        });
        let (image, _) = described(&reference(&fake.host, "env:1"), "subject");
        let registry = client(options());
        let expect = |texts: &[&str]| texts.iter().map(|text| Digest::of(text).to_string()).collect::<Vec<_>>();
        let all = registry.referrers(&image, None).await.expect("lists");
        assert_eq!(digests(&all), expect(&["a", "b", "c"]));
        let some = registry.referrers(&image, Some(KIND)).await.expect("lists");
        assert_eq!(digests(&some), if applied { expect(&["a", "b", "c"]) } else { expect(&["a"]) });
        let asked = format!("GET /v2/env/referrers/{}", image.digest().expect("a digest"));
        assert_eq!(fake.count(&format!("{asked}?artifactType=application%2Fvnd.example.note.v1")), 1);
    }
}

#[tokio::test]
async fn lists_do_not_lead_elsewhere_or_round_in_circles() {
    for (link, expected) in [("<http://127.0.0.2:1/x>; rel=\"next\"", "elsewhere"), ("<?again>; rel=\"next\"", "end")] {
        let fake = Fake::start(move |_, _| (200, vec![("link", link.into())], page(&[])));
        let (image, _) = described(&reference(&fake.host, "env:1"), "subject");
        let text = told(&client(options()).referrers(&image, None).await.expect_err("refuses"));
        assert!(text.contains(expected) && text.contains(&fake.host), "{text}");
    }
}

#[tokio::test]
async fn old_registries_and_proxies_are_taken_for_what_they_are() {
    // 200 with a page of a proxy; the status of registries that do not know the address.
    for status in [200, 400, 404, 405] {
        let kept = Kept::new();
        let fake = Fake::start(move |_, request| match request.line.contains("/referrers/") {
            true => (status, Vec::new(), b"<html>".to_vec()),
            false => kept.answer(request, None),
        });
        let (image, descriptor) = described(&reference(&fake.host, "env:1"), "subject");
        let (registry, note) = (client(options()), note(&descriptor, "note"));
        registry.push_referrer(&image, &bytes(&note.manifest), MANIFEST).await.expect("pushes");
        let listed = registry.referrers(&image, Some(KIND)).await.expect("lists");
        assert_eq!(digests(&listed), [note.manifest.digest.to_string()], "{status}");
    }
    // Who may not look is not told that there is nothing.
    let fake = Fake::start(|_, request| empty(if request.line.contains("/referrers/") { 403 } else { 200 }));
    let (image, _) = described(&reference(&fake.host, "env:1"), "subject");
    let text = told(&client(options()).referrers(&image, None).await.expect_err("refused"));
    assert!(text.contains("403") && text.contains(&image.to_string()), "{text}");
}

#[tokio::test]
async fn a_condition_that_is_not_met_means_reading_again() {
    let (kept, puts) = (Kept::new(), AtomicUsize::new(0));
    let name = fallback(&described(&reference("registry.example", "env:1"), "subject").0);
    let tag = name.tag().expect("a tag").to_owned();
    kept.put(&tag, page(&[entry("old", KIND)]));
    let kept_by_fake = Arc::clone(&kept);
    let fake = Fake::start(move |_, request| {
        let writes_index = request.line.starts_with("PUT") && request.line.contains("sha256-");
        if request.line.contains("/referrers/") {
            return empty(404);
        }
        if writes_index && puts.fetch_add(1, Ordering::Relaxed) == 0 {
            // Somebody was faster.
            kept_by_fake.put(&tag, page(&[entry("old", KIND), entry("faster", KIND)]));
            return empty(412);
        }
        kept_by_fake.answer(request, None)
    });
    let (image, descriptor) = described(&reference(&fake.host, "env:1"), "subject");
    let (registry, note) = (client(options()), note(&descriptor, "note"));
    registry.push_referrer(&image, &bytes(&note.manifest), MANIFEST).await.expect("pushes");
    let listed = digests(&registry.referrers(&image, None).await.expect("lists"));
    let expected = [Digest::of("old"), Digest::of("faster"), note.manifest.digest].map(|digest| digest.to_string());
    assert_eq!(listed, expected);
    let conditions: Vec<_> = fake.requests().into_iter().filter_map(|it| it.headers.get("if-match").cloned()).collect();
    let of = |entries: &[Value]| format!("\"{}\"", Digest::of(page(entries)));
    assert_eq!(conditions, [of(&[entry("old", KIND)]), of(&[entry("old", KIND), entry("faster", KIND)])]);
}

#[tokio::test]
async fn an_entry_that_somebody_takes_out_is_added_again() {
    let (kept, puts) = (Kept::new(), AtomicUsize::new(0));
    let fake = Fake::start(move |_, request| {
        if request.line.contains("/referrers/") {
            return empty(404);
        }
        let answer = kept.answer(request, None);
        if request.line.starts_with("PUT") && request.line.contains("sha256-") {
            let tag = request.line.split("/manifests/").nth(1).expect("a name");
            match puts.fetch_add(1, Ordering::Relaxed) {
                // Somebody who read before we wrote: twice.
                0 => kept.put(tag, page(&[entry("other", KIND)])),
                1 => kept.put(tag, page(&[entry("third", KIND)])),
                _ => {}
            }
        }
        answer
    });
    let (image, descriptor) = described(&reference(&fake.host, "env:1"), "subject");
    let (registry, note) = (client(options()), note(&descriptor, "note"));
    registry.push_referrer(&image, &bytes(&note.manifest), MANIFEST).await.expect("pushes");
    let mut listed = digests(&registry.referrers(&image, None).await.expect("lists"));
    let mut expected = [Digest::of("other"), Digest::of("third"), note.manifest.digest];
    expected.sort();
    listed.sort();
    assert_eq!(listed, expected.iter().map(Digest::to_string).collect::<Vec<_>>());
}

#[tokio::test]
async fn refused_manifests_are_explained() {
    let zstd = r#"{"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+zstd"}]}"#;
    for (status, body, expected) in [
        (
            400,
            r#"{"errors":[{"code":"TAG_INVALID","message":"the tag is immutable"}]}"#,
            ["tag `1` of `env`", "by digest"],
        ),
        (403, r#"{"errors":[{"code":"DENIED","message":"no"}]}"#, ["DENIED: no", "podman login"]),
        (400, r#"{"errors":[{"code":"MANIFEST_INVALID"}]}"#, ["zstd layers", "--compression gzip"]),
        (415, "", [MANIFEST, "--compression gzip"]),
    ] {
        let fake = Fake::start(move |_, request| match request.line.split(' ').next() {
            // One that does not let us look must still let us try.
            Some("PUT") => (status, Vec::new(), body.into()),
            _ if request.line.ends_with("/v2/") => empty(200),
            _ => empty(405),
        });
        let target = reference(&fake.host, "env:1");
        let error = client(options()).push_manifest(&target, MANIFEST, zstd.as_bytes()).await.expect_err("refused");
        let text = told(&error);
        for part in expected.iter().chain(&[fake.host.as_str()]) {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert_eq!(fake.count("PUT"), 1);
    }
}

#[tokio::test]
async fn what_a_real_registry_refuses_is_explained() {
    let (server, registry) = (LocalRegistry::start(Mode::Plain), client(options()));
    let target = reference(&server.host(), "env:1");
    let missing = Digest::of("missing");
    let config = json!({"mediaType": CONFIG, "digest": missing.to_string(), "size": 2});
    let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": []}).to_string();
    let text = told(&registry.push_manifest(&target, MANIFEST, manifest.as_bytes()).await.expect_err("refused"));
    assert!(text.contains(&format!("does not have {missing}")) && text.contains("push again"), "{text}");
    let odd = "application/vnd.example.unknown+json";
    let text = told(&registry.push_manifest(&target, odd, manifest.as_bytes()).await.expect_err("refused"));
    assert!(text.contains(odd) && text.contains("condaimg doctor"), "{text}");

    let mut server = LocalRegistry::start(Mode::Plain);
    server.set_read_only(true);
    let target = reference(&server.host(), "env:1");
    let text = told(&registry.push_manifest(&target, MANIFEST, manifest.as_bytes()).await.expect_err("refused"));
    assert!(text.contains("maintenance") && text.contains("405"), "{text}");
}

#[tokio::test]
async fn manifests_and_blobs_are_deleted() {
    let server = LocalRegistry::start(Mode::Plain);
    let (registry, repository) = (client(options()), reference(&server.host(), "team/env:1"));
    let (image, _) = subject(&registry, &repository).await;
    for _ in 0..2 {
        // Nothing is there the second time, which is as good.
        registry.delete_manifest(&image).await.expect("deletes");
        registry.delete_blob(&image, &Digest::of("{}")).await.expect("deletes");
    }
    assert_eq!(registry.tag_digest(&repository).await.expect("asks"), None);
    assert_eq!(registry.tag_digest(&image).await.expect("asks"), None);

    let fake = Fake::start(|_, request| empty(if request.line.starts_with("DELETE") { 405 } else { 200 }));
    let (image, _) = described(&reference(&fake.host, "env:1"), "subject");
    let text = told(&client(options()).delete_manifest(&image).await.expect_err("refused"));
    assert!(text.contains("405") && text.contains("clean-up") && text.contains(&image.to_string()), "{text}");
}
