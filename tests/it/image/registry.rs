//! Bases in a registry that answers like one.

use super::*;

/// A registry with one image, as Docker pushed it.
struct Registry {
    manifests: BTreeMap<String, Vec<u8>>,
    blobs: BTreeMap<Digest, Vec<u8>>,
    store: Store,
}

const NAME: &str = "registry.example:5000/team/base";

impl Registry {
    fn new(store: &Store, layer_type: &str) -> Self {
        let layer = gzip(&root());
        let config = serde_json::to_vec(&json!({
            "architecture": "amd64", "os": "linux", "docker_version": "20.10",
            "config": {
                "Env": ["LANG=C.UTF-8", "PATH=/usr/bin"], "Cmd": ["bash"], "Entrypoint": null, "Volumes": {"/data": {}},
                "ExposedPorts": {"80/tcp": {}}, "StopSignal": "SIGINT", "User": "", "WorkingDir": "",
                "Labels": {"org.opencontainers.image.version": "12", "maintainer": "them"},
            },
            "rootfs": {"type": "layers", "diff_ids": [Digest::of(root()).to_string()]},
            "history": [
                {"created_by": "ADD\troot.tar /", "created": "2020-01-01T00:00:00Z"},
                {"created_by": "CMD [\"bash\"]", "empty_layer": true},
            ],
        }))
        .expect("JSON");
        let describe = |media_type: &str, bytes: &[u8]| json!({"mediaType": media_type, "size": bytes.len(), "digest": Digest::of(bytes).to_string()});
        let manifest = serde_json::to_vec(&json!({
            "schemaVersion": 2, "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
            "config": describe("application/vnd.docker.container.image.v1+json", &config),
            "layers": [describe(layer_type, &layer)],
        }))
        .expect("JSON");
        let mut entry = describe("application/vnd.docker.distribution.manifest.v2+json", &manifest);
        entry["platform"] = json!({"os": "linux", "architecture": "amd64"});
        let mut attestation = entry.clone();
        attestation["platform"] = json!({"os": "unknown", "architecture": "unknown"});
        let list = serde_json::to_vec(&json!({
            "schemaVersion": 2, "mediaType": "application/vnd.docker.distribution.manifest.list.v2+json",
            "manifests": [attestation, entry],
        }))
        .expect("JSON");
        Self {
            manifests: [(format!("{NAME}:1"), list), (format!("{NAME}@{}", Digest::of(&manifest)), manifest)].into(),
            blobs: [config, layer].map(|bytes| (Digest::of(&bytes), bytes)).into(),
            store: store.clone(),
        }
    }
}

impl Fetch for Registry {
    fn manifest<'a>(&'a self, reference: &'a str) -> BoxFuture<'a, Result<Fetched>> {
        async move {
            let bytes = self.manifests.get(reference).cloned();
            let bytes = bytes.ok_or_else(|| Error::user(format!("`{reference}` is not there")))?;
            Ok(Fetched { digest: Digest::of(&bytes), bytes, media_type: String::new() })
        }
        .boxed()
    }

    fn blob<'a>(&'a self, _reference: &'a str, digest: &'a Digest, _size: u64) -> BoxFuture<'a, Result<PathBuf>> {
        async move {
            let bytes = self.blobs.get(digest).ok_or_else(|| Error::user(format!("{digest} is not there")))?;
            let mut writer = self.store.new_blob()?;
            writer.write_all(bytes)?;
            writer.finish(Some(digest))?;
            Ok(self.store.blob(digest))
        }
        .boxed()
    }
}

#[tokio::test]
async fn a_base_in_a_registry_stays_there_until_its_layers_are_needed() {
    let bench = Bench::new();
    let registry = Registry::new(&bench.store, "application/vnd.docker.image.rootfs.diff.tar.gzip");
    let platform = Platform::default();
    let base = open(&BaseRef::Registry(format!("{NAME}:1")), &platform, &bench.store, &registry).await.expect("opens");
    assert_eq!(base.reference, format!("{NAME}:1"));
    let layer = &base.layers[0];
    assert_eq!(layer.blob.media_type, GZIP);
    assert!(matches!(&layer.blob.source, BlobSource::Registry(reference) if reference.starts_with(NAME)));
    assert!(!bench.store.has_blob(&layer.blob.digest, layer.blob.size));

    let mut images = [bench.image_on(&base, "linux/amd64", 1)];
    localise(&mut images, &registry, 4, |_| true).await.expect("fetches");
    write_layout(&images, &bench.path("image"), Some("1"), &Silent).expect("writes");
    let layout = format!("oci:{}:1", bench.text("image"));
    let config: Value = serde_json::from_str(&skopeo(&["inspect", "--config", &layout])).expect("JSON");
    assert_eq!(
        config["config"],
        json!({
            "User": "1000:0",
            "Env": ["LANG=C.UTF-8", format!("PATH=/{PREFIX}/bin:/usr/bin"), format!("CONDA_PREFIX=/{PREFIX}")],
            "Cmd": ["python"], "WorkingDir": "/home/conda", "StopSignal": "SIGINT",
            "Volumes": {"/data": {}}, "ExposedPorts": {"80/tcp": {}},
            "Labels": {
                "maintainer": "them", "text": "two\nlines\tand a tab",
                "org.opencontainers.image.base.name": format!("{NAME}:1"),
                "org.opencontainers.image.base.digest": base.digest.to_string(),
            },
        })
    );
    assert_eq!(config["history"].as_array().map(Vec::len), Some(4));
    assert_eq!(config["history"][0]["created_by"], "ADD\troot.tar /");
    assert_eq!(config["history"][2]["comment"], "python=3.11.2");
    run("oci-image-tool", "oci-image-tool", &["validate", "--type", "image", "--ref", "name=1", &bench.text("image")]);
    buildah_takes(&bench, &layout);

    let facts = probe(&base, &bench.store, &registry).await.expect("probes");
    assert!(facts.shell);
    assert_eq!(facts.glibc, Some(host_glibc()));
    assert_eq!(facts.passwd.as_deref(), Some("root:x:0:0:root:/root:/bin/sh\n"));
    assert_eq!(facts.resolve("bin/sh").expect("no loop"), "usr/bin/sh");
}

#[tokio::test]

async fn facts_are_remembered() {
    let bench = Bench::new();
    let registry = Registry::new(&bench.store, "application/vnd.docker.image.rootfs.diff.tar.gzip");
    let reference = BaseRef::Registry(format!("{NAME}:1"));
    let base = open(&reference, &Platform::default(), &bench.store, &registry).await.expect("opens");
    let facts = probe(&base, &bench.store, &registry).await.expect("probes");
    let again = probe(&base, &bench.store, &Offline).await.expect("needs no layer");
    assert_eq!(facts, again);
}

#[tokio::test]
async fn layers_that_may_not_be_distributed_are_refused() {
    let bench = Bench::new();
    let foreign = Registry::new(&bench.store, "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip");
    let reference = BaseRef::Registry(format!("{NAME}:1"));
    let error = open(&reference, &Platform::default(), &bench.store, &foreign).await.expect_err("foreign");
    assert!(error.chain()[1].contains("may not be distributed"), "{:?}", error.chain());
}
