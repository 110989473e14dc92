//! What a build must know of a base's file system: root links, glibc, shell, users.
//!
//! The layers are laid over one another, the topmost first, so that what an upper layer hides does not count; nothing
//! is unpacked. All of them are read, since any of them may hold a link in the root; but each only once: what matters
//! of a layer is kept in the store under its diff ID, and bases have most of their layers in common.

mod files;
mod glibc;
mod tree;

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use futures::{StreamExt as _, stream};
use tar::{Archive, EntryType};

use self::files::{Files, LayerFiles};
use self::tree::{Kind, Layer, Tree};
use super::{Base, Fetch, codec, copy, localise};
use crate::model::{BaseFacts, BlobSource, FolderFacts, LayerBlob};
use crate::store::{RecordKind, Store};
use crate::util::{DiffId, Digest, Error, Result, ResultExt as _};

pub use self::files::Selection;

/// Raised whenever something else of the same layer would be kept.
const VERSION: u32 = 2;
/// Layers that are fetched and read at the same time.
const CONCURRENCY: usize = 4;
/// The largest passwd, group and C library that are read, in bytes.
const TEXT_LIMIT: u64 = 1 << 20;
const LIBRARY_LIMIT: u64 = 32 << 20;

/// Finds the facts of a base. Layers that are still in a registry are fetched into the store, but only those that no
/// base had before. Their digests and diff IDs are verified on the way.
///
/// # Errors
/// When a layer cannot be fetched or read, or is not what its digest says.
pub async fn probe(base: &Base, store: &Store, fetch: &dyn Fetch) -> Result<BaseFacts> {
    Ok(read(base, None, store, fetch).await?.0)
}

/// As [`probe`], with the selected files: what is kept of each by its path, without a leading slash.
///
/// # Errors
/// As [`probe`].
pub async fn probe_files(
    base: &Base,
    selection: &Selection,
    store: &Store,
    fetch: &dyn Fetch,
) -> Result<(BaseFacts, BTreeMap<String, String>)> {
    read(base, Some(selection), store, fetch).await
}

/// Whether [`probe_files`] reads a layer without fetching it.
pub fn is_at_hand(layer: &LayerBlob, selection: &Selection, store: &Store) -> bool {
    match layer.blob.source {
        BlobSource::Registry(_) => {
            store.has_blob(&layer.blob.digest, layer.blob.size) || remembered(layer, Some(selection), store).is_some()
        }
        _ => true,
    }
}

/// What the store remembers of a layer, if it remembers all that is wanted.
fn remembered(layer: &LayerBlob, selection: Option<&Selection>, store: &Store) -> Option<(Layer, LayerFiles)> {
    let files = match selection {
        Some(selection) => store.record(RecordKind::Base, &files_key(layer, selection))?,
        None => LayerFiles::default(),
    };
    Some((store.record(RecordKind::Base, &key(layer))?, files))
}

fn key(layer: &LayerBlob) -> Digest {
    Digest::of(format!("base layer {VERSION}\n{}\n", layer.diff_id))
}

fn files_key(layer: &LayerBlob, selection: &Selection) -> Digest {
    Digest::of(format!("base layer files {}\n{}\n", selection.name, layer.diff_id))
}

async fn read(
    base: &Base,
    selection: Option<&Selection>,
    store: &Store,
    fetch: &dyn Fetch,
) -> Result<(BaseFacts, BTreeMap<String, String>)> {
    let scans: Vec<_> =
        base.layers.iter().rev().map(|layer| known_or_scanned(layer, selection, store, fetch)).collect();
    // Topmost first, in the order that the tree needs them; few at a time.
    let mut scans = stream::iter(scans).buffered(CONCURRENCY);
    let (mut tree, mut files) = (Tree::default(), Files::default());
    while let Some(scan) = scans.next().await {
        let laid = scan.and_then(|(layer, selected)| {
            tree.lay_below(layer);
            files.lay_below(selected)
        });
        laid.context(|| match base.reference.is_empty() {
            true => "the base cannot be read".to_owned(),
            false => format!("the base `{}` cannot be read", base.reference),
        })?;
    }
    Ok((tree.facts(), files.finish()))
}

/// What matters of a layer: as the store remembers it, else read from the layer and remembered.
async fn known_or_scanned(
    layer: &LayerBlob,
    selection: Option<&Selection>,
    store: &Store,
    fetch: &dyn Fetch,
) -> Result<(Layer, LayerFiles)> {
    if let Some(known) = remembered(layer, selection, store) {
        return Ok(known);
    }
    let (digest, diff_id) = (layer.blob.digest, layer.diff_id);
    let path = match &layer.blob.source {
        BlobSource::Registry(reference) => localise::fetch_one(fetch, &layer.blob, reference).await?.1,
        _ => copy::file_of(&layer.blob)?.to_owned(),
    };
    let selection = selection.copied();
    // Decompresses the whole layer: not on the runtime's own threads.
    let scanned = tokio::task::spawn_blocking(move || scan(&path, &digest, &diff_id, selection.as_ref()))
        .await
        .map_err(|error| Error::bug("the base could not be read").caused_by(error))??;
    store.remember(RecordKind::Base, &key(layer), &scanned.0)?;
    if let Some(selection) = selection {
        store.remember(RecordKind::Base, &files_key(layer, &selection), &scanned.1)?;
    }
    Ok(scanned)
}

fn scan(path: &Path, digest: &Digest, diff_id: &DiffId, selection: Option<&Selection>) -> Result<(Layer, LayerFiles)> {
    codec::read_layer(path, digest, diff_id, |plain| {
        let (mut layer, mut files) = (Layer::default(), LayerFiles::default());
        for entry in Archive::new(plain).entries()? {
            let mut entry = entry?;
            let Ok(path) = String::from_utf8(entry.path_bytes().into_owned()) else { continue };
            let Some(path) = tree::normalise(&path) else { continue };
            if layer.hide(&path)? {
                if selection.is_some() {
                    files.hide(&path)?;
                }
                continue;
            }
            if let Some(selection) = selection {
                files.add(selection, &path, &mut entry)?;
            }
            let kind = match entry.header().entry_type() {
                EntryType::Directory => Kind::Folder(folder(&entry)),
                EntryType::Symlink => Kind::Symlink(link_target(&entry)),
                EntryType::Link => Kind::File { text: None, glibc: glibc::of_name(&link_target(&entry)) },
                EntryType::XGlobalHeader => continue,
                _ => file(&path, &mut entry)?,
            };
            layer.add(path, kind)?;
        }
        Ok((layer, files))
    })
}

/// What its header says; a folder of which that cannot be read is as most are.
fn folder<R: Read>(entry: &tar::Entry<'_, R>) -> FolderFacts {
    let header = entry.header();
    let said =
        || Some(FolderFacts { mode: header.mode().ok()? & 0o7777, owner: (header.uid().ok()?, header.gid().ok()?) });
    said().unwrap_or(FolderFacts::USUAL)
}

fn link_target<R: Read>(entry: &tar::Entry<'_, R>) -> String {
    String::from_utf8_lossy(&entry.link_name_bytes().unwrap_or_default()).into_owned()
}

fn file<R: Read>(path: &str, entry: &mut tar::Entry<'_, R>) -> Result<Kind> {
    let mut kind = Kind::File { text: None, glibc: None };
    if matches!(path, "etc/passwd" | "etc/group") {
        let mut bytes = Vec::new();
        entry.take(TEXT_LIMIT).read_to_end(&mut bytes)?;
        kind = Kind::File { text: Some(String::from_utf8_lossy(&bytes).into_owned()), glibc: None };
    } else if glibc::is_library(path) {
        let mut bytes = Vec::new();
        entry.take(LIBRARY_LIMIT).read_to_end(&mut bytes)?;
        kind = Kind::File { text: None, glibc: glibc::of_name(path).or_else(|| glibc::of_library(&bytes)) };
    }
    Ok(kind)
}
