//! Base images.

use std::io::Write;
use std::process::Command;

use condaimg::util::Digest;
use serde_json::{Value, json};
use tar::EntryType;

use super::{Case, Refused, Row, row};

const SIZE: u64 = 512 << 20;

pub fn rows() -> Vec<Row> {
    vec![
        row("rootfs with a GNU long name of 512 MiB", rootfs, Refused(&["rootfs.tar.gz", "--limit header="])),
        row("layer with a GNU long name of 512 MiB", layer_name, Refused(&["--limit header="])),
        row("layer with a PAX header of 512 MiB", layer_pax, Refused(&["--limit header="])),
        row("layer with a path of 60,000 directories", layer_path, Refused(&["119999 bytes"])),
        row("layer with a path of 1,000 directories", layer_depth, Refused(&["--limit path-depth="])),
        row("layout whose index.json has 100 MiB", index, Refused(&["index.json", "--limit image-document="])),
        row("layout whose manifest has 1 TiB", manifest, Refused(&["--limit image-document="])),
        row("OCI archive with a PAX header of 512 MiB", archive, Refused(&["image.tar.gz", "--limit header="])),
        row("named pipe as index.json", pipe_index, Refused(&["index.json", "named pipe"])),
        row("named pipe as a layer", pipe_layer, Refused(&["named pipe"])),
        row("named pipe as a rootfs", pipe_rootfs, Refused(&["rootfs.tar", "named pipe"])),
        row("device as an OCI archive", device, Refused(&["/dev/zero", "device"])),
    ]
}

/// A tar of one file after an extended header of so many bytes, compressed as it is made; and its diff ID.
fn extended(kind: EntryType, content: &[u8], size: u64) -> (Vec<u8>, String) {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let mut hasher = condaimg::util::Hasher::default();
    let mut write = |bytes: &[u8]| {
        hasher.update(bytes);
        gzip.write_all(bytes).expect("writes");
    };
    let header = |kind: EntryType, size: u64| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_mode(0o755);
        header.as_gnu_mut().expect("GNU").name[0] = b'x';
        header.set_cksum();
        header.as_bytes().to_vec()
    };
    write(&header(kind, size));
    let chunk = content.repeat((512 << 10) / content.len().min(512 << 10));
    let mut left = size;
    while left > 0 {
        let count = left.min(chunk.len() as u64);
        write(&chunk[..count as usize]);
        left -= count;
    }
    write(&vec![0; (size.next_multiple_of(512) - size) as usize]);
    write(&header(EntryType::Regular, 0));
    write(&[0; 1024]);
    (gzip.finish().expect("ends"), format!("{}", hasher.finish().0))
}

/// A build on a base.
fn on(case: &mut Case, base: &str) -> Command {
    let mut command = case.build_fine();
    let place = command.get_args().position(|word| word == "--base").expect("a base");
    let words: Vec<_> = command.get_args().map(std::ffi::OsStr::to_owned).collect();
    let mut other = case.workspace.condaimg();
    other.args(&words[..=place]).arg(base);
    command = other;
    command
}

/// A layout with one layer; returns its index.
fn layout(case: &Case, layer: &[u8], diff_id: &str) -> Value {
    let put = |media_type: &str, bytes: &[u8]| {
        let digest = Digest::of(bytes);
        case.workspace.file(&format!("base/blobs/sha256/{}", digest.hex()), bytes);
        json!({"mediaType": media_type, "digest": digest.to_string(), "size": bytes.len()})
    };
    let layer = put("application/vnd.oci.image.layer.v1.tar+gzip", layer);
    let config = json!({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [diff_id]}});
    let config = put("application/vnd.oci.image.config.v1+json", config.to_string().as_bytes());
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config, "layers": [layer],
    });
    let manifest = put("application/vnd.oci.image.manifest.v1+json", manifest.to_string().as_bytes());
    let index = json!({"schemaVersion": 2, "manifests": [manifest]});
    case.workspace.file("base/index.json", index.to_string());
    case.workspace.file("base/oci-layout", r#"{"imageLayoutVersion": "1.0.0"}"#);
    index
}

fn on_layer(case: &mut Case, kind: EntryType, content: &[u8], size: u64) -> Command {
    let (layer, diff_id) = extended(kind, content, size);
    layout(case, &layer, &diff_id);
    on(case, "oci:base")
}

fn rootfs(case: &mut Case) -> Command {
    case.workspace.file("rootfs.tar.gz", extended(EntryType::GNULongName, b"a", SIZE).0);
    on(case, "rootfs:rootfs.tar.gz")
}

fn layer_name(case: &mut Case) -> Command {
    on_layer(case, EntryType::GNULongName, b"a", SIZE)
}

fn layer_pax(case: &mut Case) -> Command {
    on_layer(case, EntryType::XHeader, b"a", SIZE)
}

fn layer_path(case: &mut Case) -> Command {
    on_layer(case, EntryType::GNULongName, b"d/", 120_000)
}

fn layer_depth(case: &mut Case) -> Command {
    on_layer(case, EntryType::GNULongName, b"d/", 2_001)
}

fn index(case: &mut Case) -> Command {
    let (layer, diff_id) = extended(EntryType::GNULongName, b"a", 10);
    layout(case, &layer, &diff_id);
    case.workspace.file("base/index.json", vec![b' '; 100 << 20]);
    on(case, "oci:base")
}

fn manifest(case: &mut Case) -> Command {
    let (layer, diff_id) = extended(EntryType::GNULongName, b"a", 10);
    let mut index = layout(case, &layer, &diff_id);
    index["manifests"][0]["size"] = json!(1_u64 << 40);
    case.workspace.file("base/index.json", index.to_string());
    on(case, "oci:base")
}

fn archive(case: &mut Case) -> Command {
    case.workspace.file("image.tar.gz", extended(EntryType::XHeader, b"a", SIZE).0);
    on(case, "oci-archive:image.tar.gz")
}

fn pipe_index(case: &mut Case) -> Command {
    let (layer, diff_id) = extended(EntryType::GNULongName, b"a", 10);
    layout(case, &layer, &diff_id);
    case.pipe("base/index.json");
    on(case, "oci:base")
}

fn pipe_layer(case: &mut Case) -> Command {
    let (layer, diff_id) = extended(EntryType::GNULongName, b"a", 10);
    layout(case, &layer, &diff_id);
    case.pipe(&format!("base/blobs/sha256/{}", Digest::of(&layer).hex()));
    on(case, "oci:base")
}

fn pipe_rootfs(case: &mut Case) -> Command {
    case.pipe("rootfs.tar");
    on(case, "rootfs:rootfs.tar")
}

fn device(case: &mut Case) -> Command {
    on(case, "oci-archive:/dev/zero")
}
