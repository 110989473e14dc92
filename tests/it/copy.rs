//! `condaimg push` and `condaimg copy`: images verbatim between layouts, archives and registries, and platforms that
//! are added to an index.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use condaimg::image::{ArtifactFile, artifact};
use condaimg::model::{Blob, BlobSource};
use condaimg::registry::{Registry, RegistryOptions};
use condaimg::util::Digest;
use condaimg::util::report::Silent;
use serde_json::{Value, json};

use crate::common::images::{self, digests, skopeo, small};
use crate::common::registry::{LocalRegistry, Mode};
use crate::common::{Workspace, fail, succeed};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

fn push(workspace: &Workspace, layout: &str, target: &str) -> Command {
    let mut command = workspace.condaimg();
    command.args(["push", layout, target]);
    command
}

fn copy(workspace: &Workspace, source: &str, destination: &str) -> Command {
    let mut command = workspace.condaimg();
    command.args(["copy", source, destination]);
    command
}

fn raw(target: &str) -> Value {
    images::json(&skopeo(&["inspect", "--raw", "--tls-verify=false", &format!("docker://{target}")]))
}

fn digest_of(target: &str) -> String {
    let text = skopeo(&["inspect", "--raw", "--tls-verify=false", &format!("docker://{target}")]);
    Digest::of(text).to_string()
}

/// Pulls an image with all its platforms; skopeo verifies every digest.
fn pull(workspace: &Workspace, target: &str, name: &str) {
    let folder = format!("dir:{}", workspace.path(name).display());
    skopeo(&["copy", "--quiet", "--all", "--src-tls-verify=false", &format!("docker://{target}"), &folder]);
}

/// A layout with a small image for a platform under the tag `1`; returns the manifest's digest.
fn tiny(folder: &Path, architecture: &str, text: &str) -> String {
    let blobs = folder.join("blobs/sha256");
    fs_err::create_dir_all(&blobs).expect("a folder");
    let blob = |media_type: &str, bytes: &[u8]| {
        let digest = Digest::of(bytes);
        fs_err::write(blobs.join(digest.hex()), bytes).expect("writes");
        json!({"mediaType": media_type, "digest": digest.to_string(), "size": bytes.len()})
    };
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(text.len() as u64);
    header.set_mode(0o644);
    header.set_cksum();
    tar.append_data(&mut header, "text", text.as_bytes()).expect("a tar");
    let tar = tar.into_inner().expect("a tar");
    let config = json!({
        "architecture": architecture, "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": [Digest::of(&tar).to_string()]},
    });
    let config = blob("application/vnd.oci.image.config.v1+json", config.to_string().as_bytes());
    let layer = blob("application/vnd.oci.image.layer.v1.tar", &tar);
    let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer]});
    let mut entry = blob(MANIFEST, manifest.to_string().as_bytes());
    let digest = entry["digest"].as_str().expect("a digest").to_owned();
    entry["annotations"] = json!({"org.opencontainers.image.ref.name": "1"});
    fs_err::write(folder.join("index.json"), json!({"schemaVersion": 2, "manifests": [entry]}).to_string())
        .expect("writes");
    fs_err::write(folder.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("writes");
    digest
}

/// The digests of an index by platform.
fn platforms(target: &str) -> BTreeMap<String, String> {
    let index = raw(target);
    assert_eq!(index["mediaType"], INDEX);
    let entries = index["manifests"].as_array().expect("a list").iter();
    entries
        .map(|entry| {
            let name = entry["platform"]["architecture"].as_str().expect("an architecture");
            (name.to_owned(), entry["digest"].as_str().expect("a digest").to_owned())
        })
        .collect()
}

#[test]
fn an_image_keeps_its_digest_wherever_it_goes() {
    let (one, two) = (LocalRegistry::start(Mode::Plain), LocalRegistry::start(Mode::Plain));
    let workspace = Workspace::new();
    let (first, second) = (format!("{}/team/env:1", one.host()), format!("{}/mirror/env:1", two.host()));
    let digest = small().digest();
    let layout = format!("{}:1", small().folder().display());

    let printed = succeed(push(&workspace, &layout, &first).args(["--digest-file", "digest"]));
    assert_eq!(printed, format!("{}/team/env@{digest}\n", one.host()));
    assert_eq!(fs_err::read_to_string(workspace.path("digest")).expect("reads").trim(), digest);
    succeed(&mut copy(&workspace, &first, &second));
    assert_eq!(digest_of(&second), digest);
    pull(&workspace, &second, "pulled");

    let oci = format!("oci:{}:there", workspace.path("layout").display());
    assert_eq!(succeed(&mut copy(&workspace, &format!("docker://{second}"), &oci)).trim(), digest);
    assert_eq!(skopeo(&["inspect", "--format", "{{.Digest}}", &oci]).trim(), digest);
    let archive = workspace.path("image.tar");
    succeed(&mut copy(&workspace, &oci, &format!("oci-archive:{}", archive.display())));
    let third = format!("{}/from/archive:1", one.host());
    succeed(&mut push(&workspace, &archive.display().to_string(), &third));
    assert_eq!(digest_of(&third), digest);
}

#[test]
fn what_is_there_is_asked_for_once_and_what_is_beside_it_is_mounted() {
    let (registry, workspace) = (LocalRegistry::start(Mode::Plain), Workspace::new());
    let layout = small().folder().display().to_string();
    let blobs = small().layers().len() + 1;
    let target = |name: &str| format!("{}/{name}:1", registry.host());
    succeed(&mut push(&workspace, &layout, &target("team/env")));
    let (uploads, heads, writes) = (registry.uploads().len(), registry.requests("HEAD "), registry.requests("P"));
    assert_eq!(uploads, blobs);

    succeed(&mut push(&workspace, &layout, &target("team/env")));
    assert_eq!(registry.requests("HEAD ") - heads, blobs + 1, "one question a blob, and one for the manifest");
    assert_eq!((registry.requests("P"), registry.uploads().len()), (writes, uploads));

    let heads = registry.requests("HEAD ");
    let told = workspace.condaimg().args(["push", &layout, &target("other/env")]).output().expect("runs");
    assert!(told.status.success());
    assert!(String::from_utf8_lossy(&told.stderr).contains(&format!("{blobs} mounted")), "{told:?}");
    assert_eq!(registry.uploads().len(), uploads, "nothing was sent");
    assert_eq!(registry.requests("POST /v2/other/env/blobs/uploads/?"), blobs, "each was mounted at the first try");
    assert_eq!(registry.requests("HEAD ") - heads, blobs + 1);
    assert_eq!(registry.requests("PUT /v2/other/env/"), 1, "the manifest");
    pull(&workspace, &target("other/env"), "pulled");

    // From the registry itself, without anything known of it here.
    let fresh = Workspace::new();
    succeed(&mut copy(&fresh, &target("team/env"), &target("third/env")));
    assert_eq!(registry.uploads().len(), uploads);
    assert_eq!(registry.requests("GET /v2/team/env/blobs/"), 0);
    assert_eq!(registry.requests("POST /v2/third/env/blobs/uploads/?"), blobs);
}

/// Attaches a file to an image in a registry; returns the digest of what refers to it.
fn attach(registry: &LocalRegistry, image: &str, text: &str) -> String {
    let pinned = Registry::parse(&format!(
        "{}/{image}@{}",
        registry.host(),
        digest_of(&format!("{}/{image}:1", registry.host()))
    ));
    let pinned = pinned.expect("a reference");
    block_on(async {
        let client = client();
        let manifest = client.manifest(&pinned).await.expect("is there");
        let subject = json!({"mediaType": manifest.media_type, "digest": manifest.digest.to_string(), "size": manifest.bytes.len()});
        let subject = serde_json::from_value(subject).expect("a descriptor");
        let file =
            ArtifactFile { blob: Blob::from_bytes("text/plain", text.as_bytes().to_vec()), title: "note".into() };
        let artifact =
            artifact(&subject, "application/vnd.example.note", &[file], &BTreeMap::new()).expect("an artifact");
        for blob in artifact.layers.iter().chain([&artifact.config]) {
            client.push_blob(&pinned, blob, &[], &Silent).await.expect("pushes");
        }
        let BlobSource::Bytes(bytes) = &artifact.manifest.source else { panic!("in memory") };
        client.push_referrer(&pinned, bytes, &artifact.manifest.media_type).await.expect("pushes");
        artifact.manifest.digest.to_string()
    })
}

/// The digests of what refers to an image in a registry.
fn referrers(registry: &LocalRegistry, image: &str, digest: &str) -> Vec<String> {
    let pinned = Registry::parse(&format!("{}/{image}@{digest}", registry.host())).expect("a reference");
    let found = block_on(async { client().referrers(&pinned, None).await.expect("lists") });
    found.iter().map(|descriptor| descriptor.digest().to_string()).collect()
}

fn client() -> Registry {
    let options = RegistryOptions { auth_files: Some(Vec::new()), ..RegistryOptions::default() };
    Registry::new(options).expect("a client")
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
}

#[test]
fn what_refers_to_an_image_goes_with_it() {
    let (one, two) = (LocalRegistry::start(Mode::Plain), LocalRegistry::start(Mode::Plain));
    let workspace = Workspace::new();
    let digest = tiny(&workspace.path("image"), "amd64", "text");
    let first = format!("{}/team/env:1", one.host());
    succeed(&mut push(&workspace, "image", &first));
    let notes = [attach(&one, "team/env", "first"), attach(&one, "team/env", "second")];
    assert_eq!(referrers(&one, "team/env", &digest), notes);

    let second = format!("{}/mirror/env:1", two.host());
    succeed(&mut copy(&workspace, &first, &second));
    assert_eq!(referrers(&two, "mirror/env", &digest), notes);
    let writes = two.requests("P");
    succeed(&mut copy(&workspace, &first, &second));
    assert_eq!(two.requests("P"), writes, "nothing was new");

    let plain = format!("{}/plain/env:1", two.host());
    succeed(copy(&workspace, &first, &plain).arg("--no-referrers"));
    assert_eq!(referrers(&two, "plain/env", &digest), Vec::<String>::new());

    let oci = format!("oci:{}:1", workspace.path("layout").display());
    succeed(&mut copy(&workspace, &second, &oci));
    let index = images::json(&fs_err::read_to_string(workspace.path("layout/index.json")).expect("reads"));
    let kinds: Vec<_> =
        index["manifests"].as_array().expect("a list").iter().map(|entry| entry["artifactType"].as_str()).collect();
    assert_eq!(kinds, [None, Some("application/vnd.example.note"), Some("application/vnd.example.note")]);
    let third = format!("{}/third/env:1", two.host());
    succeed(&mut push(&workspace, "layout:1", &third));
    assert_eq!(digest_of(&third), digest);
    assert_eq!(referrers(&two, "third/env", &digest), notes);
}

#[test]
fn platforms_are_added_to_an_index() {
    let (registry, workspace) = (LocalRegistry::start(Mode::Plain), Workspace::new());
    let target = format!("{}/team/env:1", registry.host());
    let amd = tiny(&workspace.path("amd64"), "amd64", "one");
    let arm = tiny(&workspace.path("arm64"), "arm64", "two");
    succeed(&mut push(&workspace, "amd64", &target));
    assert_eq!(digest_of(&target), amd, "one platform is a plain manifest");

    let printed = succeed(push(&workspace, "arm64", &target).arg("--merge-index"));
    assert_eq!(printed, format!("{}/team/env@{}\n", registry.host(), digest_of(&target)));
    let both = BTreeMap::from([("amd64".to_owned(), amd.clone()), ("arm64".to_owned(), arm.clone())]);
    assert_eq!(platforms(&target), both);
    pull(&workspace, &target, "pulled");

    let (before, writes) = (digest_of(&target), registry.requests("PUT "));
    succeed(push(&workspace, "amd64", &target).arg("--merge-index"));
    assert_eq!((digest_of(&target), registry.requests("PUT ")), (before, writes), "nothing was new");

    let newer = tiny(&workspace.path("newer"), "arm64", "three");
    succeed(push(&workspace, "newer", &target).arg("--merge-index"));
    assert_eq!(platforms(&target)["arm64"], newer);
    assert_eq!(platforms(&target)["amd64"], amd);

    let only = format!("{}/team/arm:1", registry.host());
    succeed(copy(&workspace, &target, &only).args(["--platform", "linux/arm64"]));
    assert_eq!(digest_of(&only), newer);
    let all = format!("{}/mirror/env:1", registry.host());
    succeed(&mut copy(&workspace, &target, &all));
    assert_eq!(digest_of(&all), digest_of(&target));
    let missing = fail(copy(&workspace, &target, &only).args(["--platform", "linux/s390x"]), 1);
    assert!(missing.contains("linux/s390x") && missing.contains("linux/amd64"), "{missing}");
}

#[test]
fn jobs_that_add_their_platforms_at_once_lose_none() {
    let (registry, workspace) = (LocalRegistry::start(Mode::Plain), Workspace::new());
    let target = format!("{}/team/env:1", registry.host());
    let expected: BTreeMap<String, String> = ["amd64", "arm64", "ppc64le", "s390x", "riscv64"]
        .map(|name| (name.to_owned(), tiny(&workspace.path(name), name, name)))
        .into();
    let jobs: Vec<_> = expected
        .keys()
        .map(|name| {
            let mut job = push(&workspace, name, &target);
            // A machine of its own for each.
            job.arg("--merge-index").env("CONDAIMG_CACHE_DIR", workspace.path(&format!("cache-{name}")));
            job.spawn().expect("runs")
        })
        .collect();
    for mut job in jobs {
        assert!(job.wait().expect("ends").success());
    }
    assert_eq!(platforms(&target), expected);
    pull(&workspace, &target, "pulled");
}

#[test]
fn what_cannot_be_copied_is_named() {
    let (registry, workspace) = (LocalRegistry::start(Mode::Plain), Workspace::new());
    tiny(&workspace.path("image"), "amd64", "one");
    let target = format!("{}/team/env:1", registry.host());
    let missing = fail(&mut push(&workspace, "nowhere", &target), 1);
    assert!(missing.contains("no layout `nowhere`"), "{missing}");
    let tag = fail(&mut push(&workspace, "image:2", &target), 1);
    assert!(tag.contains("`2`") && tag.contains("`1`"), "{tag}");
    let archive = fail(&mut copy(&workspace, "docker-archive:x.tar", &target), 1);
    assert!(archive.contains("`docker-archive:x.tar`"), "{archive}");
    let nothing = fail(&mut copy(&workspace, &target, "oci:out"), 1);
    assert!(nothing.contains("there is no `1` in `team/env`"), "{nothing}");
    assert!(!workspace.path("out").exists());
    let pinned = format!("{}/team/env@{}", registry.host(), Digest::of("other"));
    let refused = fail(push(&workspace, "image", &pinned).arg("--merge-index"), 2);
    assert!(refused.contains("by a tag"), "{refused}");
    let other = fail(&mut push(&workspace, "image", &pinned), 1);
    assert!(other.contains(&Digest::of("other").to_string()), "{other}");

    let layers = digests(&images::json(&skopeo(
        &["inspect", "--raw", "oci:image:1"]
            .map(|argument| argument.replace("oci:image", &format!("oci:{}", workspace.path("image").display())))
            .each_ref()
            .map(String::as_str),
    )));
    fs_err::write(workspace.path("image/blobs").join(layers[0].replace(':', "/")), b"damaged").expect("writes");
    let damaged = fail(&mut push(&workspace, "image", &target), 1);
    assert!(damaged.contains(layers[0].trim_start_matches("sha256:")), "{damaged}");
    assert_eq!(registry.requests("PUT /v2/team/env/manifests/"), 0);
}

#[test]
fn cosign_tags_go_along_or_are_told() {
    let (one, two) = (LocalRegistry::start(Mode::Plain), LocalRegistry::start(Mode::Plain));
    let workspace = Workspace::new();
    let digest = tiny(&workspace.path("image"), "amd64", "image");
    let first = format!("{}/team/env", one.host());
    succeed(&mut push(&workspace, "image:1", &format!("{first}:1")));
    let tag = |kind: &str| format!("{}.{kind}", digest.replace(':', "-"));
    for kind in ["sig", "att", "sbom"] {
        tiny(&workspace.path(kind), "amd64", kind);
        succeed(&mut push(&workspace, &format!("{kind}:1"), &format!("{first}:{}", tag(kind))));
    }
    let second = format!("{}/mirror/env", two.host());
    succeed(&mut copy(&workspace, &format!("{first}:1"), &format!("{second}:1")));
    for kind in ["sig", "att", "sbom"] {
        let [from, to] = [&first, &second].map(|repository| digest_of(&format!("{repository}:{}", tag(kind))));
        assert_eq!(from, to, "{kind}");
    }
    // The destination's own signature stays.
    tiny(&workspace.path("other"), "amd64", "another signature");
    succeed(&mut push(&workspace, "other:1", &format!("{second}:{}", tag("sig"))));
    let own = digest_of(&format!("{second}:{}", tag("sig")));
    let said = crate::common::run_output(&mut copy(&workspace, &format!("{first}:1"), &format!("{second}:1")));
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(said.contains("1 of cosign's") && said.contains("stay behind"), "{said}");
    assert_eq!(digest_of(&format!("{second}:{}", tag("sig"))), own);
    // A layout has no place for them; `--no-referrers` asks for none.
    let said = crate::common::run_output(&mut copy(&workspace, &format!("{first}:1"), "oci:layout:1"));
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(said.contains("3 of cosign's") && said.contains("stay behind"), "{said}");
    let alone = format!("{}/alone/env", two.host());
    succeed(copy(&workspace, &format!("{first}:1"), &format!("{alone}:1")).arg("--no-referrers"));
    assert_eq!(two.requests(&format!("PUT /v2/alone/env/manifests/{}", tag("sig"))), 0);
}

#[test]
fn ambiguous_manifest_is_refused() {
    let workspace = Workspace::new();
    tiny(&workspace.path("image"), "amd64", "image");
    let index = workspace.path("image/index.json");
    let mut listed: Value = images::json(&fs_err::read_to_string(&index).expect("reads"));
    let blobs = workspace.path("image/blobs/sha256");
    let old = listed["manifests"][0]["digest"].as_str().expect("a digest").replace("sha256:", "");
    let mut manifest: Value = images::json(&fs_err::read_to_string(blobs.join(old)).expect("reads"));
    manifest["manifests"] = json!([]);
    let bytes = manifest.to_string();
    let digest = Digest::of(&bytes);
    fs_err::write(blobs.join(digest.hex()), &bytes).expect("writes");
    listed["manifests"][0]["digest"] = digest.to_string().into();
    listed["manifests"][0]["size"] = bytes.len().into();
    fs_err::write(index, listed.to_string()).expect("writes");
    let said = fail(&mut copy(&workspace, "oci:image:1", "oci:other:1"), 1);
    assert!(said.contains("ambiguous") && said.contains("`layers`") && said.contains("`manifests`"), "{said}");
    workspace.file("environment.yml", crate::common::environment(&["click"]));
    let said = fail(workspace.condaimg().args(["lock", "--base", "oci:image:1"]), 1);
    assert!(said.contains("ambiguous"), "{said}");
    let served = crate::common::registry::Fake::start(move |_, request| match request.line.contains("/manifests/") {
        true => (200, vec![("content-type", MANIFEST.to_owned())], bytes.clone().into_bytes()),
        false => (200, Vec::new(), Vec::new()),
    });
    let said = fail(&mut copy(&workspace, &format!("{}/team/env:1", served.host), "oci:other:1"), 1);
    assert!(said.contains("ambiguous") && said.contains(&served.host), "{said}");
}

#[test]
fn unreadable_layout_is_not_an_empty_one() {
    let workspace = Workspace::new();
    fs_err::create_dir_all(workspace.path("layout")).expect("a folder");
    // Nobody may follow it, root neither.
    fs_err::os::unix::fs::symlink("index.json", workspace.path("layout/index.json")).expect("a link");
    for said in [
        fail(&mut copy(&workspace, "oci:layout:1", "oci:other:1"), 1),
        fail(&mut push(&workspace, "layout", "localhost:1/team/env:1"), 1),
    ] {
        assert!(said.contains("layout/index.json") && !said.contains("has no index.json"), "{said}");
    }
    let said = fail(&mut copy(&workspace, "oci:nowhere:1", "oci:other:1"), 1);
    assert!(said.contains("`nowhere`") && said.contains("no such directory"), "{said}");
}

#[test]
fn target_without_registry_is_refused_at_once() {
    let workspace = Workspace::new();
    workspace.file("environment.yml", crate::common::environment(&["click"]));
    let mut build = workspace.condaimg();
    build.args(["build", "--push", "--tag", "env:1", "--base", "scratch"]);
    for said in [
        fail(&mut build, 2),
        fail(&mut push(&workspace, "nowhere", "env:1"), 2),
        fail(&mut copy(&workspace, "oci:nowhere:1", "env:1"), 2),
    ] {
        assert!(said.contains("`env:1`") && said.contains("`docker.io/library/env`"), "{said}");
        assert!(said.contains("HOST/env:1"), "{said}");
    }
    assert!(!workspace.path("condaimg.lock").exists());
}
