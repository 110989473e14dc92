//! What a build must know of a base's file system: its whole tree of names and links, glibc, shell, users.
//!
//! The layers are laid over one another; nothing is unpacked. All of them are read, since any of them may hold a link, but
//! each only once: its names and what matters of its contents are kept in the store under its diff ID, and bases have most
//! of their layers in common. A content that turns out to matter only when the tree is known (the C library as a hard link
//! to some object) is read in a second look.

mod contents;
mod files;
mod glibc;
mod layer;
mod tree;

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use futures::{StreamExt as _, stream};
use tar::EntryType;

use self::contents::Contents;
use self::files::{Files, LayerFiles};
use self::layer::{Entry, Layer};
use super::{Base, Fetch, codec, copy, localise};
use crate::model::{BaseFacts, BlobSource, FolderFacts, LayerBlob};
use crate::store::{RecordKind, Store};
use crate::util::{DiffId, Digest, Error, Limit, Result, ResultExt as _, entries, paths};

pub use self::files::Selection;
pub use self::tree::{Obstacle, Tree};

/// Raised whenever something else of the same layer would be kept.
const VERSION: u32 = 4;
/// Raised whenever something else of the same selected files would be kept.
const FILES_VERSION: u32 = 2;
/// Layers that are fetched and read at the same time.
const CONCURRENCY: usize = 4;

/// Finds the facts of a base. Layers that are still in a registry are fetched into the store, but only those that no
/// base had before. Their digests and diff IDs are verified on the way.
///
/// # Errors
/// When a layer cannot be fetched or read, or is not what its digest says.
pub async fn probe(base: &Base, store: &Store, fetch: &dyn Fetch) -> Result<BaseFacts> {
    Ok(read(base, None, store, fetch).await?.facts)
}

/// As [`probe`], with the tree itself.
///
/// # Errors
/// As [`probe`].
pub async fn probe_tree(base: &Base, store: &Store, fetch: &dyn Fetch) -> Result<(BaseFacts, Tree)> {
    let read = read(base, None, store, fetch).await?;
    Ok((read.facts, read.tree))
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
    let read = read(base, Some(selection), store, fetch).await?;
    Ok((read.facts, read.files.finish()))
}

/// Whether [`probe_tree`] needs to fetch nothing.
pub fn is_tree_at_hand(base: &Base, store: &Store) -> bool {
    base.layers.iter().all(|layer| match layer.blob.source {
        BlobSource::Registry(_) => {
            store.has_blob(&layer.blob.digest, layer.blob.size) || remembered(layer, None, store).is_some()
        }
        _ => true,
    })
}

/// Whether the store remembers the names of all layers.
pub fn is_tree_remembered(base: &Base, store: &Store) -> bool {
    base.layers.iter().all(|layer| remembered(layer, None, store).is_some())
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

/// What is kept of a layer.
#[derive(Default)]
struct Scan {
    layer: Layer,
    contents: Contents,
    files: LayerFiles,
}

/// What is known of a base.
struct Known {
    facts: BaseFacts,
    tree: Tree,
    files: Files,
}

/// What the store remembers of a layer, if it remembers all that is wanted.
fn remembered(layer: &LayerBlob, selection: Option<&Selection>, store: &Store) -> Option<Scan> {
    let files = match selection {
        Some(selection) => store.record(RecordKind::Base, &files_key(layer, selection))?,
        None => LayerFiles::default(),
    };
    let (layer, contents) = store.record(RecordKind::Base, &key(layer))?;
    Some(Scan { layer, contents, files })
}

fn key(layer: &LayerBlob) -> Digest {
    Digest::of(format!("base layer {VERSION}\n{}\n", layer.diff_id))
}

fn files_key(layer: &LayerBlob, selection: &Selection) -> Digest {
    Digest::of(format!("base layer files {FILES_VERSION} {}\n{}\n", selection.name, layer.diff_id))
}

async fn read(base: &Base, selection: Option<&Selection>, store: &Store, fetch: &dyn Fetch) -> Result<Known> {
    let named = || match base.reference.is_empty() {
        true => "failed to read the base".to_owned(),
        false => format!("failed to read the base `{}`", base.reference),
    };
    let scans: Vec<_> = base.layers.iter().map(|layer| known_or_scanned(layer, selection, store, fetch)).collect();
    // Lowest first, as the tree needs them; few at a time.
    let mut scans = stream::iter(scans).buffered(CONCURRENCY);
    let mut names = 0;
    let (mut tree, mut contents, mut selected) = (Tree::default(), Vec::new(), Vec::new());
    while let Some(scan) = scans.next().await {
        let scan = scan.context(named)?;
        names += scan.layer.len() as u64;
        if names > Limit::BaseNames.value() {
            return Err(Limit::BaseNames.exceeded("its layers have more names than")).context(named);
        }
        tree.lay(&scan.layer, contents.len());
        contents.push(scan.contents);
        contents::shrink(&mut contents);
        selected.push(scan.files);
    }
    drop(scans);
    let mut files = Files::default();
    for layer in selected.into_iter().rev() {
        files.lay_below(layer).context(named)?;
    }
    let facts = contents::complete(&tree, contents, base, store, fetch).await.context(named)?;
    Ok(Known { facts, tree, files })
}

/// What matters of a layer: as the store remembers it, else read from the layer and remembered.
async fn known_or_scanned(
    layer: &LayerBlob,
    selection: Option<&Selection>,
    store: &Store,
    fetch: &dyn Fetch,
) -> Result<Scan> {
    if let Some(known) = remembered(layer, selection, store) {
        return Ok(known);
    }
    let (digest, diff_id) = (layer.blob.digest, layer.diff_id);
    let path = file_of(layer, fetch).await?;
    let selection = selection.copied();
    // Decompresses the whole layer: not on the runtime's own threads.
    let scanned = tokio::task::spawn_blocking(move || scan(&path, &digest, &diff_id, selection.as_ref()))
        .await
        .map_err(|error| Error::bug("the base could not be read").caused_by(error))??;
    store.remember(RecordKind::Base, &key(layer), &(&scanned.layer, &scanned.contents))?;
    if let Some(selection) = selection {
        store.remember(RecordKind::Base, &files_key(layer, &selection), &scanned.files)?;
    }
    Ok(scanned)
}

/// Where a layer is on this machine; fetched, if it is in a registry.
async fn file_of(layer: &LayerBlob, fetch: &dyn Fetch) -> Result<PathBuf> {
    match &layer.blob.source {
        BlobSource::Registry(reference) => Ok(localise::fetch_one(fetch, &layer.blob, reference).await?.1),
        _ => Ok(copy::file_of(&layer.blob)?.to_owned()),
    }
}

fn scan(path: &Path, digest: &Digest, diff_id: &DiffId, selection: Option<&Selection>) -> Result<Scan> {
    let mut scan = codec::read_layer(path, digest, diff_id, |plain| {
        let mut scan = Scan::default();
        entries::all(plain, |entry| {
            let Ok(path) = String::from_utf8(entry.path_bytes().into_owned()) else { return Ok(()) };
            let Some(path) = layer::normalise(&path) else { return Ok(()) };
            check_path(&path)?;
            scan.entry(&path, selection, entry)
        })?;
        Ok(scan)
    })?;
    if let Some(selection) = selection {
        let wanted = scan.files.linked();
        if !wanted.is_empty() {
            codec::read_layer(path, digest, diff_id, |plain| scan.files.read_linked(selection, &wanted, plain))?;
        }
    }
    Ok(scan)
}

/// Refuses a path that no engine unpacks, or that costs much memory.
fn check_path(path: &str) -> Result<()> {
    paths::check_length(path).map_err(Error::user)?;
    match path.bytes().filter(|byte| *byte == b'/').count() > Limit::PathDepth.count() {
        true => Err(Limit::PathDepth.exceeded("the number of directories of a path is larger than")),
        false => Ok(()),
    }
}

impl Scan {
    fn entry<R: Read>(
        &mut self,
        path: &str,
        selection: Option<&Selection>,
        entry: &mut tar::Entry<'_, R>,
    ) -> Result<()> {
        let kind = entry.header().entry_type();
        if let Some(selection) = selection
            && !self.files.hide(path)?
        {
            self.files.add(selection, path, &link_target(entry), entry)?;
        }
        match kind {
            EntryType::XGlobalHeader => Ok(()),
            EntryType::Directory => self.layer.add_entry(path, &Entry::Directory(facts_of(entry, FolderFacts::USUAL))),
            EntryType::Symlink => self.layer.add_entry(path, &Entry::Symlink(&link_target(entry))),
            EntryType::Link => self.layer.add_entry(path, &Entry::Hardlink(&link_target(entry))),
            _ => {
                self.contents.read(path, entry)?;
                self.layer.add_entry(path, &Entry::File)
            }
        }
    }
}

/// What its header says; a folder or file of which that cannot be read is as most are.
fn facts_of<R: Read>(entry: &tar::Entry<'_, R>, usual: FolderFacts) -> FolderFacts {
    let header = entry.header();
    let said =
        || Some(FolderFacts { mode: header.mode().ok()? & 0o7777, owner: (header.uid().ok()?, header.gid().ok()?) });
    said().unwrap_or(usual)
}

fn link_target<R: Read>(entry: &tar::Entry<'_, R>) -> String {
    String::from_utf8_lossy(&entry.link_name_bytes().unwrap_or_default()).into_owned()
}
