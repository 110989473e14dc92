//! Layers that a registry has when they are looked for, and has no more when they are needed.

use std::path::Path;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, OnceLock};

use super::*;
use crate::common::proxy::Head;

/// Takes the bytes of a blob from a registry's storage at a request, as a garbage collection would.
struct Collector {
    blob: OnceLock<PathBuf>,
    runs: AtomicUsize,
}

impl Collector {
    /// A registry behind a gate, where `at` tells when the blob goes, the first so many times.
    fn start(
        registry: &LocalRegistry,
        times: usize,
        at: impl Fn(&Head, usize) -> bool + Send + Sync + 'static,
    ) -> (Arc<Self>, Gate) {
        let collector = Arc::new(Self { blob: OnceLock::new(), runs: AtomicUsize::new(0) });
        let (shared, seen) = (Arc::clone(&collector), Mutex::new(0));
        let gate = Gate::start(&registry.host(), move |_, head| {
            let Some(blob) = shared.blob.get() else { return Deed::Pass };
            let hex = blob.parent().and_then(Path::file_name).expect("a digest").to_str().expect("text");
            let mut seen = seen.lock().expect("locks");
            *seen += usize::from(head.is("HEAD", hex));
            if shared.runs() < times && at(head, *seen) {
                // Gone already, if several requests come together.
                let _ = fs_err::remove_file(blob);
                shared.runs.fetch_add(1, Ordering::Relaxed);
            }
            Deed::Pass
        });
        (collector, gate)
    }

    fn runs(&self) -> usize {
        self.runs.load(Ordering::Relaxed)
    }
}

/// The digest of a layer of an image.
fn layer(reference: &str, index: usize) -> String {
    manifest(reference)["layers"][index]["digest"].as_str().expect("a digest").to_owned()
}

/// What the image at a reference is made of is in its registry.
fn expect_whole(registry: &LocalRegistry, reference: &str) {
    let manifest = manifest(reference);
    for layer in manifest["layers"].as_array().expect("layers") {
        let bytes = fs_err::read(stored(registry, layer["digest"].as_str().expect("a digest"))).expect("is there");
        assert_eq!(condaimg::util::Digest::of(&bytes).to_string(), layer["digest"]);
    }
}

/// The flags of a build that pushes to a repository, and has a cache registry beside it.
fn pushed(host: &str, repository: &str) -> [String; 7] {
    let (cache, tag) = (format!("{host}/team/cache"), format!("{host}/{repository}:1"));
    ["--locked", "--no-referrers", "--cache-registry", &cache, "--push", "--tag", &tag].map(str::to_owned)
}

/// A first builder fills the registry; then a bare one pushes to `to`, and a layer goes when `at` says so.
fn expect_made_again(to: &str, at: impl Fn(&Head, usize) -> bool + Send + Sync + 'static) {
    let (bench, registry) = (Bench::new(), LocalRegistry::start(Mode::Plain));
    let (collector, gate) = Collector::start(&registry, 1, at);
    let flags = |repository: &str| pushed(&gate.host, repository);
    succeed(&mut bench.build("first", &strs(&flags("team/env"))));
    let (digest, _) = bench.outcome("first");
    let lost = layer(&format!("{}/team/env:1", registry.host()), 2);
    collector.blob.set(stored(&registry, &lost)).expect("is set once");

    let told = bench.expect_made("bare", &digest, 1, &strs(&flags(to)));
    assert_eq!(collector.runs(), 1, "{told}");
    assert_eq!(told.matches("gone from the registry meanwhile").count(), 1, "{told}");
    assert!(told.contains("the layer `"), "{told}");
    expect_whole(&registry, &format!("{}/{to}:1", registry.host()));
    // The cache has it again, too.
    bench.expect_bare("next", &digest, &strs(&flags("third/env")));
}

#[test]
fn a_layer_that_goes_before_it_is_mounted_is_made() {
    expect_made_again("other/env", |head, _| head.is("POST", "mount="));
}

#[test]
fn a_layer_that_goes_from_the_image_at_the_tag_is_made() {
    // It was looked for once.
    expect_made_again("team/env", |_, looked| looked == 2);
}

#[test]
fn a_layer_that_goes_just_before_the_manifest_comes_is_made() {
    expect_made_again("other/env", |head, _| head.is("PUT", "/v2/other/env/manifests/"));
}

#[test]
fn a_layer_that_goes_again_and_again_ends_the_build() {
    let (bench, registry) = (Bench::new(), LocalRegistry::start(Mode::Plain));
    let (collector, gate) =
        Collector::start(&registry, usize::MAX, |head, _| head.is("PUT", "/v2/other/env/manifests/"));
    let tag = |repository: &str| format!("{}/{repository}:1", gate.host);
    succeed(&mut bench.build("first", &["--locked", "--push", "--tag", &tag("team/env")]));
    let lost = layer(&format!("{}/team/env:1", registry.host()), 2);
    collector.blob.set(stored(&registry, &lost)).expect("is set once");
    let error = crate::common::fail(&mut bench.build("first", &["--locked", "--push", "--tag", &tag("other/env")]), 1);
    assert_eq!(error.matches("gone from the registry meanwhile").count(), 1, "{error}");
    assert!(error.contains(&format!("does not have {lost}")), "{error}");
    assert_eq!(registry.requests("PUT /v2/other/env/manifests/1"), 8);
}

#[test]
fn a_layer_that_arrives_as_something_else_is_made() {
    let (bench, registry) = (Bench::new(), LocalRegistry::start(Mode::Plain));
    let lost: Arc<OnceLock<(String, u64)>> = Arc::default();
    let shared = Arc::clone(&lost);
    let gate = Gate::start(&registry.host(), move |_, head| match shared.get() {
        Some(_) if head.is("POST", "mount=") => answer(head, 405, Vec::new()),
        Some((digest, size)) if head.is("GET", digest) => {
            Deed::Answer { after: 0, status: 200, headers: Vec::new(), body: vec![b'x'; *size as usize] }
        }
        _ => Deed::Pass,
    });
    let flags = |repository: &str| pushed(&gate.host, repository);
    succeed(&mut bench.build("first", &strs(&flags("team/env"))));
    let (digest, _) = bench.outcome("first");
    let description = manifest(&format!("{}/team/env:1", registry.host()))["layers"][2].clone();
    let size = description["size"].as_u64().expect("a size");
    lost.set((description["digest"].as_str().expect("a digest").to_owned(), size)).expect("is set once");
    let told = bench.expect_made("bare", &digest, 1, &strs(&flags("other/env")));
    assert!(told.contains("has other bytes than those of the blob"), "{told}");
    expect_whole(&registry, &format!("{}/other/env:1", registry.host()));
}
