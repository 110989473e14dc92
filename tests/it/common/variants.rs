//! Bases as real ones are: the example base with more layers and another config.

use std::io::Read;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use super::example_base;
use super::images::{json, skopeo};
use condaimg::util::Digest;

/// An entry of a layer.
#[derive(Debug, Clone, Copy)]
pub enum Item<'a> {
    /// Path, mode, user, group.
    Folder(&'a str, u32, u64, u64),
    /// Path and content.
    File(&'a str, &'a str),
    /// Path and target of a symlink.
    Link(&'a str, &'a str),
    /// Path and target of a hard link.
    Hard(&'a str, &'a str),
}

/// The tar of a layer.
pub fn tar(items: &[Item<'_>]) -> Vec<u8> {
    let mut tar = ::tar::Builder::new(Vec::new());
    for item in items {
        let mut header = ::tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(0);
        match *item {
            Item::Folder(path, mode, user, group) => {
                header.set_entry_type(::tar::EntryType::Directory);
                header.set_mode(mode);
                header.set_uid(user);
                header.set_gid(group);
                tar.append_data(&mut header, path, std::io::empty()).expect("appends");
            }
            Item::File(path, content) => {
                header.set_size(content.len() as u64);
                tar.append_data(&mut header, path, content.as_bytes()).expect("appends");
            }
            Item::Link(path, target) => {
                header.set_entry_type(::tar::EntryType::Symlink);
                tar.append_link(&mut header, path, target).expect("appends");
            }
            Item::Hard(path, target) => {
                header.set_entry_type(::tar::EntryType::Link);
                tar.append_link(&mut header, path, target).expect("appends");
            }
        }
    }
    tar.into_inner().expect("ends")
}

/// Writes a layout of the example base with these layers (tars) above its own, and what `config` says; returns how
/// `--base` names it.
pub fn base(folder: &Path, layers: &[Vec<u8>], config: Value) -> String {
    write(folder, layers, config, true)
}

/// A layout of these layers alone.
pub fn whole(folder: &Path, layers: &[Vec<u8>], config: Value) -> String {
    write(folder, layers, config, false)
}

fn write(folder: &Path, layers: &[Vec<u8>], config: Value, on_example: bool) -> String {
    let example = format!("oci:{}:debian", example_base().display());
    let mut manifest = json(&skopeo(&["inspect", "--raw", &example]));
    let mut image: Value = serde_json::from_slice(&blob(&manifest["config"])).expect("JSON");
    let blobs = folder.join("blobs/sha256");
    fs_err::create_dir_all(&blobs).expect("a folder");
    if !on_example {
        manifest["layers"] = json!([]);
        image["rootfs"]["diff_ids"] = json!([]);
        image["history"] = json!([]);
    }
    for layer in manifest["layers"].as_array().expect("layers") {
        fs_err::write(blobs.join(hex(layer)), blob(layer)).expect("writes");
    }
    let put = |media_type: &str, bytes: &[u8]| {
        let digest = Digest::of(bytes);
        fs_err::write(blobs.join(digest.hex()), bytes).expect("writes");
        json!({"mediaType": media_type, "digest": digest.to_string(), "size": bytes.len()})
    };
    for tar in layers {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        std::io::copy(&mut &tar[..], &mut gzip).expect("compresses");
        let layer = put("application/vnd.oci.image.layer.v1.tar+gzip", &gzip.finish().expect("compresses"));
        push(&mut manifest["layers"], layer);
        push(&mut image["rootfs"]["diff_ids"], json!(Digest::of(tar).to_string()));
        push(&mut image["history"], json!({"created_by": "variant"}));
    }
    for (key, value) in config.as_object().into_iter().flatten() {
        image["config"][key] = value.clone();
    }
    manifest["config"] = put("application/vnd.oci.image.config.v1+json", &serde_json::to_vec(&image).expect("JSON"));
    let manifest = put("application/vnd.oci.image.manifest.v1+json", &serde_json::to_vec(&manifest).expect("JSON"));
    let index = json!({"schemaVersion": 2, "manifests": [manifest]});
    fs_err::write(folder.join("index.json"), serde_json::to_vec(&index).expect("JSON")).expect("writes");
    fs_err::write(folder.join("oci-layout"), r#"{"imageLayoutVersion": "1.0.0"}"#).expect("writes");
    format!("oci:{}", folder.display())
}

/// The layers of the example base, unpacked.
pub fn example_layers() -> Vec<Vec<u8>> {
    let manifest = json(&skopeo(&["inspect", "--raw", &format!("oci:{}:debian", example_base().display())]));
    let layers = manifest["layers"].as_array().expect("layers").iter().map(|layer| {
        let mut tar = Vec::new();
        flate2::read::MultiGzDecoder::new(&blob(layer)[..]).read_to_end(&mut tar).expect("unpacks");
        tar
    });
    layers.collect()
}

fn push(list: &mut Value, item: Value) {
    list.as_array_mut().expect("a list").push(item);
}

fn hex(descriptor: &Value) -> &str {
    descriptor["digest"].as_str().and_then(|digest| digest.split_once(':')).expect("a digest").1
}

fn blob(descriptor: &Value) -> Vec<u8> {
    fs_err::read(example_base().join("blobs/sha256").join(hex(descriptor))).expect("a blob")
}
