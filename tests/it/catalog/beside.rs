//! The cache registry is written beside the rest of the build; the base's layers are kept there, too.

use std::time::{Duration, Instant};

use super::*;
use crate::common::example_base;

#[test]
fn a_base_from_a_folder_is_mounted_from_the_cache() {
    let bench = Bench::on_base(&format!("oci:{}:debian", example_base().display()));
    let registry = LocalRegistry::start(Mode::Plain);
    let cache = format!("{}/team/cache", registry.host());
    let flags = |repository: &str| {
        let tag = format!("{}/{repository}:1", registry.host());
        ["--locked", "--no-referrers", "--cache-registry", &cache, "--push", "--tag", &tag].map(str::to_owned)
    };
    succeed(&mut bench.build("first", &strs(&flags("team/env"))));
    let (digest, made) = bench.outcome("first");
    let image = manifest(&format!("{}/team/env:1", registry.host()));
    assert_eq!(made, LAYERS);
    let layers = image["layers"].as_array().expect("layers").len();
    assert!(layers > LAYERS, "the base has layers");
    assert_eq!(tags(&registry, "team/cache").len(), layers);
    let sent = registry.uploads();
    // Nothing but the config.
    bench.expect_bare("bare", &digest, &strs(&flags("other/env")));
    assert_eq!(registry.uploads()[sent.len()..], [image["config"]["digest"].as_str().expect("a digest")]);
    assert_eq!(manifest(&format!("{}/other/env:1", registry.host())), image);
    assert_eq!(registry.requests("PUT /v2/team/cache/manifests/"), layers, "it is noted once");
}

#[test]
fn a_cache_elsewhere_is_written_while_the_image_is_pushed() {
    let (bench, cache) = (Bench::new(), Arc::new(LocalRegistry::start(Mode::Plain)));
    let (registry, shared) = (LocalRegistry::start(Mode::Plain), Arc::clone(&cache));
    // The manifest is held back until all layers are noted.
    let gate = Gate::start(&registry.host(), move |_, head| {
        let deadline = Instant::now() + Duration::from_secs(20);
        while head.is("PUT", "/manifests/1") && tags(&shared, "cache").len() < LAYERS && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        Deed::Pass
    });
    let tag = format!("{}/env:1", gate.host);
    let cached = format!("{}/cache", cache.host());
    let flags = ["--locked", "--no-referrers", "--cache-registry", &cached, "--push", "--tag", &tag];
    let begun = Instant::now();
    succeed(&mut bench.build("first", &flags));
    assert!(begun.elapsed() < Duration::from_secs(20), "the cache waited for the image");
    assert_eq!(tags(&cache, "cache").len(), LAYERS);
    bench.expect_bare(
        "bare",
        &bench.outcome("first").0,
        &["--locked", "--cache-registry", &cached, "--output", "oci:x"],
    );
}

#[test]
fn a_cache_that_stands_still_is_not_waited_for_without_end() {
    let (bench, registry) = (Bench::new(), LocalRegistry::start(Mode::Plain));
    let cache = LocalRegistry::start(Mode::Plain);
    let gate = Gate::start(&cache.host(), |_, head| {
        if head.is("PUT", "/blobs/uploads/") {
            std::thread::park();
        }
        Deed::Pass
    });
    let (tag, cached) = (format!("{}/env:1", registry.host()), format!("{}/cache", gate.host));
    let flags = ["--locked", "--cache-registry", &cached, "--push", "--tag", &tag];
    let begun = Instant::now();
    let told = String::from_utf8(run_output(&mut bench.build("first", &flags)).stderr).expect("text");
    assert!(
        told.contains(&format!("are not noted in the cache registry `{cached}`: it was given up after 30 s")),
        "{told}"
    );
    assert!(begun.elapsed() < Duration::from_secs(55), "{:?}", begun.elapsed());
    assert_eq!(manifest(&tag)["layers"].as_array().expect("layers").len(), LAYERS);
}

#[test]
fn a_cache_that_fails_again_and_again_takes_nothing_from_the_push() {
    let (bench, registry) = (Bench::new(), LocalRegistry::start(Mode::Plain));
    let cache = LocalRegistry::start(Mode::Plain);
    let gate = Gate::start(&cache.host(), |_, head| answer(head, 503, Vec::new()));
    let (tag, cached) = (format!("{}/env:1", registry.host()), format!("{}/cache", gate.host));
    let flags = ["--locked", "--no-cache", "--cache-registry", &cached, "--push", "--tag", &tag];
    let told = String::from_utf8(run_output(&mut bench.build("first", &flags)).stderr).expect("text");
    assert_eq!(told.matches("are not noted in the cache registry").count(), 1, "{told}");
    assert!(told.contains("gave up after 4 attempts"), "{told}");
    assert_eq!(manifest(&tag)["layers"].as_array().expect("layers").len(), LAYERS);
}
