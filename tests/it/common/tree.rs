//! Reads images as a container runtime does: the layers of an OCI layout, gunzipped and applied in their order.
//! Reading fails on what the image specification forbids: wrong digests, a path twice in a layer, entries before
//! their parent folder, links out of the layer, whiteouts.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufReader, Read};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use condaimg::util::Digest;
use serde_json::Value;

use super::pyc;

/// Paths without a leading slash → what is there.
pub type Tree = BTreeMap<String, Node>;

/// A file, folder or link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    pub kind: Kind,
    /// Permission bits; those of links say nothing and are 0777.
    pub mode: u32,
    /// Seconds since 1970.
    pub mtime: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    File(Content),
    Directory,
    Symlink(String),
}

/// What a file holds: enough to compare it, and what the checks look at.
#[derive(Clone)]
pub struct Content {
    pub sha256: Digest,
    pub size: u64,
    /// The first 16 bytes.
    pub head: Vec<u8>,
    /// The kind of machine that a program or library is for (`e_machine` in elf.h).
    pub machine: Option<u16>,
    /// All of it, for files of `conda-meta` and `etc`.
    pub whole: Option<Vec<u8>>,
    /// For modules: what byte code that is made of them must name as its source.
    pub source_hash: Option<u64>,
    /// Of byte code: the digest of what is behind its first 16 bytes.
    pub code: Option<Digest>,
}

impl PartialEq for Content {
    fn eq(&self, other: &Self) -> bool {
        (self.sha256, self.size) == (other.sha256, other.size)
    }
}

impl Eq for Content {}

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes, {}", self.size, self.sha256)
    }
}

impl Content {
    pub fn of(path: &str, bytes: &[u8]) -> Self {
        let keep = path.contains("conda-meta/") || path.contains("etc/");
        Self {
            sha256: Digest::of(bytes),
            size: bytes.len() as u64,
            head: bytes[..bytes.len().min(16)].to_vec(),
            machine: bytes
                .get(18..20)
                .filter(|_| bytes.starts_with(b"\x7fELF"))
                .map(|it| u16::from_le_bytes([it[0], it[1]])),
            whole: keep.then(|| bytes.to_vec()),
            source_hash: path.ends_with(".py").then(|| source_hash(bytes)),
            code: path.ends_with(".pyc").then(|| Digest::of(bytes.get(16..).unwrap_or_default())),
        }
    }
}

impl Node {
    pub fn content(&self) -> &Content {
        match &self.kind {
            Kind::File(content) => content,
            other => panic!("a file was expected, not {other:?}"),
        }
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.content().whole.clone().expect("a file that is kept whole")).expect("UTF-8")
    }
}

/// One layer, in the order of its tar.
pub struct Layer {
    /// `dev.condaimg.layer.name`; none for those of the base.
    pub name: Option<String>,
    pub entries: Vec<(String, Node)>,
}

/// The one image of a layout.
pub struct Image {
    pub digest: Digest,
    pub manifest: Value,
    pub config: Value,
    pub layers: Vec<Layer>,
}

impl Image {
    /// Reads and checks the one image of a layout. No byte code in it may be stale.
    pub fn read(layout: &Path) -> Self {
        let image = Self::read_any(layout);
        let stale = pyc::stale(&image);
        assert!(stale.is_empty(), "{} stale .pyc, e.g. {:?}", stale.len(), &stale[..stale.len().min(10)]);
        image
    }

    fn read_any(layout: &Path) -> Self {
        let index = json(&fs_err::read(layout.join("index.json")).unwrap());
        let manifests = index["manifests"].as_array().expect("manifests");
        assert_eq!(manifests.len(), 1, "{index}");
        let digest = digest_of(&manifests[0]);
        let manifest = json(&blob(layout, &digest));
        let config = json(&blob(layout, &digest_of(&manifest["config"])));
        let descriptors = manifest["layers"].as_array().expect("layers");
        let diff_ids = config["rootfs"]["diff_ids"].as_array().expect("diff IDs");
        assert_eq!(descriptors.len(), diff_ids.len());
        let layers = descriptors.iter().zip(diff_ids).map(|(descriptor, diff_id)| {
            read_layer(layout, descriptor, diff_id.as_str().expect("a diff ID").parse().expect("a digest"))
        });
        let layers = layers.collect();
        Self { digest, manifest, config, layers }
    }

    /// The layers that were added to the base.
    pub fn added(&self) -> impl Iterator<Item = &Layer> {
        self.layers.iter().filter(|layer| layer.name.is_some())
    }

    /// What the added layers make together. No file of one may be replaced by another.
    pub fn tree(&self) -> Tree {
        let base: BTreeSet<&str> = self
            .layers
            .iter()
            .filter(|layer| layer.name.is_none())
            .flat_map(|layer| layer.entries.iter().map(|(path, _)| path.as_str()))
            .collect();
        let mut tree = Tree::new();
        for layer in self.added() {
            layer.check_parents(&base);
            for (path, node) in &layer.entries {
                let replaced = tree.insert(path.clone(), node.clone());
                let repeated = replaced.is_none_or(|old| old == *node && node.kind == Kind::Directory);
                assert!(repeated, "`{path}` is in two layers, the upper one is {:?}", layer.name);
            }
        }
        tree
    }
}

impl Layer {
    /// Each layer can be unpacked alone: what it needs of folders comes first, or the base has it.
    fn check_parents(&self, base: &BTreeSet<&str>) {
        let mut seen = BTreeSet::new();
        for (path, node) in &self.entries {
            if let Some((parent, _)) = path.rsplit_once('/') {
                let there = seen.contains(parent) || base.contains(parent);
                assert!(there, "`{path}` comes before its folder in {:?}", self.name);
            }
            if node.kind == Kind::Directory {
                seen.insert(path.as_str());
            }
        }
    }
}

/// The tree below a folder of this machine, in the modes that an image has.
pub fn of_folder(folder: &Path) -> Tree {
    let mut tree = Tree::new();
    for entry in walkdir::WalkDir::new(folder).min_depth(1) {
        let entry = entry.expect("a readable folder");
        let path = entry.path().strip_prefix(folder).unwrap().to_str().expect("UTF-8").to_owned();
        let metadata = fs_err::symlink_metadata(entry.path()).unwrap();
        let kind = if metadata.is_symlink() {
            Kind::Symlink(fs_err::read_link(entry.path()).unwrap().to_str().expect("UTF-8").to_owned())
        } else if metadata.is_dir() {
            Kind::Directory
        } else {
            Kind::File(Content::of(&path, &fs_err::read(entry.path()).unwrap()))
        };
        let mode = match kind {
            Kind::Symlink(_) => 0o777,
            Kind::Directory => 0o755,
            Kind::File(_) if metadata.mode() & 0o100 != 0 => 0o755,
            Kind::File(_) => 0o644,
        };
        tree.insert(path, Node { kind, mode, mtime: u64::try_from(metadata.mtime()).unwrap() });
    }
    tree
}

fn read_layer(layout: &Path, descriptor: &Value, diff_id: Digest) -> Layer {
    let digest = digest_of(descriptor);
    let compressed = blob(layout, &digest);
    assert_eq!(descriptor["size"], compressed.len(), "{descriptor}");
    let media_type = descriptor["mediaType"].as_str().expect("a media type");
    let mut tar = Vec::new();
    let decoded = match media_type.rsplit(['+', '.']).next() {
        Some("gzip") => flate2::read::MultiGzDecoder::new(compressed.as_slice()).read_to_end(&mut tar),
        Some("zstd") => zstd::Decoder::new(compressed.as_slice()).unwrap().read_to_end(&mut tar),
        _ => panic!("layers of type `{media_type}` are not made here"),
    };
    decoded.expect("a whole layer");
    assert_eq!(Digest::of(&tar), diff_id, "the diff ID of {digest}");
    let name = descriptor["annotations"]["dev.condaimg.layer.name"].as_str().map(str::to_owned);
    let entries = read_tar(&tar, name.is_some());
    Layer { name, entries }
}

/// `strictly`: as condaimg's own layers have to be.
fn read_tar(tar: &[u8], strictly: bool) -> Vec<(String, Node)> {
    let mut entries: Vec<(String, Node)> = Vec::new();
    let mut places = BTreeMap::new();
    let mut archive = tar::Archive::new(tar);
    for entry in archive.entries().expect("a tar") {
        let mut entry = entry.expect("a tar entry");
        let (path, node) = read_entry(&mut entry, strictly, |target| {
            places.get(target).map(|&place: &usize| entries[place].1.clone())
        });
        if path.is_empty() {
            continue;
        }
        let first = places.insert(path.clone(), entries.len());
        assert!(first.is_none() || !strictly, "`{path}` is twice in a layer");
        entries.push((path, node));
    }
    if strictly {
        assert!(tar.ends_with(&[0; 1024]) && tar.len().is_multiple_of(512), "the end of the archive");
    }
    entries
}

fn read_entry(
    entry: &mut tar::Entry<'_, &[u8]>,
    strictly: bool,
    linked: impl Fn(&str) -> Option<Node>,
) -> (String, Node) {
    let shown = String::from_utf8(entry.path_bytes().into_owned()).expect("UTF-8");
    let path = shown.trim_start_matches("./").trim_end_matches('/').to_owned();
    let header = entry.header().clone();
    let link = entry.link_name_bytes().map(|link| String::from_utf8(link.into_owned()).expect("UTF-8"));
    let mode = header.mode().unwrap();
    let kind = match header.entry_type() {
        tar::EntryType::Directory => Kind::Directory,
        tar::EntryType::Symlink => Kind::Symlink(link.expect("a target")),
        tar::EntryType::Regular => {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            Kind::File(Content::of(&path, &bytes))
        }
        tar::EntryType::Link => {
            let link = link.expect("a target");
            let first = linked(&link).unwrap_or_else(|| panic!("`{path}` links to `{link}`, not in the layer"));
            assert!(!strictly || first.mode == mode, "a link has the mode of what it links to: `{path}`");
            first.kind
        }
        other => panic!("`{path}` is of kind {other:?}"),
    };
    if strictly {
        check_header(&shown, &kind, &header);
    }
    let mode = if matches!(kind, Kind::Symlink(_)) { 0o777 } else { mode };
    (path, Node { kind, mode, mtime: header.mtime().unwrap() })
}

fn check_header(shown: &str, kind: &Kind, header: &tar::Header) {
    assert_eq!(shown.ends_with('/'), *kind == Kind::Directory, "`{shown}`");
    let parts: Vec<&str> = shown.trim_end_matches('/').split('/').collect();
    assert!(parts.iter().all(|part| !["", ".", ".."].contains(part) && !part.starts_with(".wh.")), "`{shown}`");
    // The home alone is the image's user's.
    let user = if shown == "home/conda/" { header.uid().unwrap() } else { 0 };
    assert_eq!((header.uid().unwrap(), header.gid().unwrap()), (user, 0), "`{shown}`");
    assert_eq!((header.username_bytes(), header.groupname_bytes()), (Some(&[][..]), Some(&[][..])), "`{shown}`");
}

fn json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).expect("JSON")
}

fn digest_of(descriptor: &Value) -> Digest {
    descriptor["digest"].as_str().expect("a digest").parse().expect("a digest")
}

/// A blob of a layout; its bytes must be what its name says.
pub fn blob(layout: &Path, digest: &Digest) -> Vec<u8> {
    let path: PathBuf = layout.join("blobs").join(digest.to_string().replace(':', "/"));
    let mut bytes = Vec::new();
    BufReader::new(fs_err::File::open(path).unwrap()).read_to_end(&mut bytes).unwrap();
    assert_eq!(Digest::of(&bytes), *digest);
    bytes
}

/// The hash that a hash-based `.pyc` keeps of its source (PEP 552): SipHash-1-3 under the key of CPython 3.11's
/// `_imp.source_hash`, which is the magic number with `\r\n` in the upper half.
fn source_hash(source: &[u8]) -> u64 {
    const MAGIC_OF_3_11: u64 = 3495 | (0x0a0d << 16);
    let mut v = [
        MAGIC_OF_3_11 ^ 0x736f_6d65_7073_6575,
        0x646f_7261_6e64_6f6d,
        MAGIC_OF_3_11 ^ 0x6c79_6765_6e65_7261,
        0x7465_6462_7974_6573,
    ];
    let mut chunks = source.chunks_exact(8);
    for chunk in &mut chunks {
        let word = u64::from_le_bytes(chunk.try_into().expect("eight bytes"));
        v[3] ^= word;
        sip_round(&mut v);
        v[0] ^= word;
    }
    let mut last = [0; 8];
    last[..chunks.remainder().len()].copy_from_slice(chunks.remainder());
    let word = u64::from_le_bytes(last) | ((source.len() as u64) << 56);
    v[3] ^= word;
    sip_round(&mut v);
    v[0] ^= word;
    v[2] ^= 0xff;
    for _ in 0..3 {
        sip_round(&mut v);
    }
    v[0] ^ v[1] ^ v[2] ^ v[3]
}

fn sip_round(v: &mut [u64; 4]) {
    v[0] = v[0].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(13) ^ v[0];
    v[0] = v[0].rotate_left(32);
    v[2] = v[2].wrapping_add(v[3]);
    v[3] = v[3].rotate_left(16) ^ v[2];
    v[0] = v[0].wrapping_add(v[3]);
    v[3] = v[3].rotate_left(21) ^ v[0];
    v[2] = v[2].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(17) ^ v[2];
    v[2] = v[2].rotate_left(32);
}
