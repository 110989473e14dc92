//! `--cache-key`: who can write to the cache, and does not have the key, chooses no byte of an image.

use std::path::Path;

use condaimg::pack::LayerDigests;
use condaimg::store::{RecordKind, Store};
use condaimg::util::Digest;
use fs_err as fs;

use super::{Bench, LAYERS, files, told};
use crate::common::fail;
use crate::common::packages::{Format, Package};
use crate::common::registry::{LocalRegistry, Mode};

const KEY: &str = "0123456789abcdef0123456789abcdef";

/// Has the store say of each layer what is right of another one, as whoever can write there can.
fn exchange_layers(cache: &Path) {
    let store = Store::open(cache).expect("opens");
    let keys: Vec<Digest> = files(cache, "records/layers", ".json")
        .iter()
        .map(|path| Digest::from_hex(path.file_stem().and_then(|it| it.to_str()).expect("a name")).expect("a key"))
        .collect();
    let read = |key: &Digest| store.record::<LayerDigests>(RecordKind::Layer, key).expect("is known");
    let layers: Vec<LayerDigests> = keys.iter().map(read).collect();
    assert!(layers.len() > 1);
    for (index, key) in keys.iter().enumerate() {
        store.remember(RecordKind::Layer, key, &layers[(index + 1) % layers.len()]).expect("remembers");
    }
}

#[test]
fn exchanged_layers_ship_only_without_a_key() {
    let bench = Bench::new();
    let key = bench.workspace.file("key", KEY);
    bench.prepare(&[]);
    let (digest, notices) = told(bench.build().arg("--locked").arg("--cache-key").arg(&key));
    assert_eq!(digest, bench.digest);
    assert!(notices.contains("--cache-key"), "{notices}");
    // What this build kept is believed.
    let asked = bench.server.seen("").len();
    let (digest, notices) = told(bench.build().arg("--locked").env("CONDAIMG_CACHE_KEY", &key));
    assert_eq!((digest, bench.server.seen("").len()), (bench.digest.clone(), asked));
    assert!(!notices.contains("--cache-key"), "{notices}");

    exchange_layers(&bench.cache());
    let (digest, _) = told(bench.build().arg("--locked"));
    assert_ne!(digest, bench.digest, "who may write to a cache chooses the bytes, as the docs say");
    let (digest, notices) = told(bench.build().arg("--locked").arg("--cache-key").arg(&key));
    assert_eq!(digest, bench.digest);
    assert!(notices.contains("--cache-key"), "{notices}");
}

#[test]
fn archive_of_another_is_never_packed_under_locked() {
    let bench = Bench::new();
    let key = bench.workspace.file("key", KEY);
    let evil = |format| Package::new("one", "1.0").file("share/one", "evil\n".repeat(2400)).archive(format);
    for flags in [&[][..], &["--cache-key", key.to_str().expect("text")]] {
        bench.prepare(&LAYERS);
        for archive in files(&bench.cache(), "archives", ".conda") {
            let mut bytes = evil(Format::Conda);
            bytes.resize(fs::metadata(&archive).expect("is there").len() as usize, 0);
            fs::write(&archive, bytes).expect("writes");
        }
        assert_eq!(told(bench.build().arg("--locked").args(flags)).0, bench.digest);
    }
}

#[test]
fn cache_without_macs_is_made_again_for_every_kind() {
    let bench = Bench::new();
    let key = bench.workspace.file("key", KEY);
    bench.prepare(&[]);
    fs::remove_file(bench.workspace.path("condaimg.lock")).expect("removes");
    assert_eq!(told(bench.build().arg("--cache-key").arg(&key)).0, bench.digest);
    let macs = |folder: &str| {
        let records = files(&bench.cache(), &format!("records/{folder}"), ".json");
        records.iter().filter(|path| fs::read_to_string(path).expect("text").contains("\"mac\":\"")).count()
    };
    for kind in ["layers", "segments", "facts", "transcoded", "foreign"] {
        assert!(macs(kind) > 0, "{kind}");
    }
}

#[test]
fn unusable_key_is_refused_with_the_flag() {
    let bench = Bench::new();
    let short = bench.workspace.file("short", "secret");
    for path in [short.as_path(), Path::new("absent"), Path::new(".")] {
        let error = fail(bench.build().arg("--cache-key").arg(path), 1);
        assert!(error.contains("--cache-key") && !error.contains("secret"), "{error}");
    }
}

#[test]
fn cache_registry_is_believed_with_its_key_only() {
    let bench = Bench::new();
    let registry = LocalRegistry::start(Mode::Plain);
    let cache = format!("{}/team/cache", registry.host());
    let [key, other] = [("key", KEY), ("other", "fedcba9876543210")].map(|(name, key)| bench.workspace.file(name, key));
    let build = |key: Option<&Path>| {
        let _ = fs::remove_dir_all(bench.cache());
        let asked = || bench.server.seen("").iter().filter(|seen| seen.path.contains("-1.0-0.")).count();
        let before = asked();
        let mut build = bench.build();
        build.args(["--locked", "--cache-registry", &cache]).env("CONDAIMG_CACHE_KEY", key.unwrap_or(Path::new("")));
        let (digest, notices) = told(&mut build);
        assert_eq!(digest, bench.digest, "{notices}");
        asked() - before
    };
    assert_eq!(build(None), 4, "nothing is known yet");
    assert_eq!(build(Some(&key)), 4, "entries without a MAC are not believed");
    assert_eq!(build(Some(&key)), 0);
    assert_eq!(build(None), 0, "a checksum is enough without a key");
    assert_eq!(build(Some(&other)), 4);
}
