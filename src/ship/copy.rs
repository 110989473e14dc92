//! Copying images as they are: between layouts, archives and registries, with what refers to them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::content::{Content, gather};
use super::push::{Delivered, Pusher, by_digest};
use super::source::Source;
use crate::image::{Contents, write_layout_of, write_oci_archive_of};
use crate::model::{BaseRef, Blob, BlobSource, Platform};
use crate::registry::{Reference, Registry, Sent};
use crate::store::Store;
use crate::util::report::Progress;
use crate::util::{Digest, Error, Result, ResultExt as _};

/// Blobs that are fetched at the same time.
const PARALLEL_DOWNLOADS: usize = 4;

/// Where an image is copied to.
#[derive(Debug, Clone)]
pub enum Destination {
    /// A tag (or a digest, which must be the image's) in a registry.
    Registry(Reference),
    /// An OCI layout folder, with a tag.
    Layout(PathBuf, Option<String>),
    /// A tar of an OCI layout.
    OciArchive(PathBuf),
}

/// What is copied, and how.
#[derive(Debug, Clone)]
pub struct CopyOptions {
    /// Only the image for this platform, instead of the whole index.
    pub platform: Option<Platform>,
    /// Whether what refers to the image goes with it.
    pub referrers: bool,
    /// Whether the image is put into the index that is at the destination, beside the other platforms' images.
    pub merge_index: bool,
}

/// What came of it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Copied {
    /// What the destination's name stands for now.
    pub digest: Option<Digest>,
    /// What was sent, when it went to a registry.
    pub delivered: Delivered,
    /// Bytes that were written, when it went to a file or folder.
    pub written: u64,
    /// How many referrers went with it.
    pub referrers: usize,
}

/// Takes images from place to place.
pub struct Carrier<'a> {
    /// The client for all registries.
    pub registry: &'a Registry,
    /// What a registry's blobs pass through on their way to a file; it also knows what lies where.
    pub store: &'a Store,
    /// Is told of every byte.
    pub progress: Arc<dyn Progress>,
}

impl Carrier<'_> {
    /// Copies an image. No manifest changes on the way, so no digest does; blobs that are there are not sent again, and
    /// a registry takes from its other repositories what it can.
    ///
    /// # Errors
    /// When the source cannot be read, or the destination cannot be written or refuses; nothing incomplete has a name
    /// then.
    pub async fn copy(&self, from: &BaseRef, to: &Destination, options: &CopyOptions) -> Result<Copied> {
        let (opened, registry, store) = (from.clone(), self.registry.clone(), self.store.clone());
        let source = tokio::task::spawn_blocking(move || Source::open(&opened, &registry, &store))
            .await
            .map_err(|error| Error::bug("opening the source ended early").caused_by(error))?
            .context(|| format!("failed to read `{from}`"))?;
        let content = gather(&source, options.platform.as_ref(), options.referrers).await?;
        let referrers = content.referrers.len();
        let copied = match to {
            Destination::Registry(target) if options.merge_index => self.merge(&source, &content, target).await?,
            Destination::Registry(target) => self.push(&content, target).await?,
            Destination::Layout(..) | Destination::OciArchive(_) if options.merge_index => {
                return Err(
                    Error::usage("only an index in a registry can be added to").hint("leave out `--merge-index`")
                );
            }
            files => self.write(content, files).await?,
        };
        Ok(Copied { referrers, ..copied })
    }

    /// Sends blobs, documents and referrers; the last document gets the target's name.
    pub(super) async fn push(&self, content: &Content, target: &Reference) -> Result<Copied> {
        check_digest(content, target)?;
        let progress = Arc::clone(&self.progress);
        let mut pusher = Pusher::new(self.registry, self.store, std::slice::from_ref(target), progress);
        content.blobs.iter().for_each(|blob| pusher.begin(blob.clone()));
        let mut delivered = pusher.finish(&content.documents).await?;
        delivered.moved |= push_referrers(content, target, self.registry).await?;
        Ok(Copied { digest: content.documents.last().map(|root| root.digest), delivered, ..Copied::default() })
    }

    async fn write(&self, mut content: Content, to: &Destination) -> Result<Copied> {
        fetch(&mut content.blobs, self.registry, self.store).await?;
        let mut contents = Contents::verbatim(&content.blobs, &content.documents)?;
        for referrer in &content.referrers {
            contents.add_referrer(&referrer.documents, referrer.artifact_type.as_deref())?;
        }
        let (to, progress) = (to.clone(), Arc::clone(&self.progress));
        let writing = tokio::task::spawn_blocking(move || match &to {
            Destination::Layout(folder, tag) => write_layout_of(&contents, folder, tag.as_deref(), progress.as_ref()),
            Destination::OciArchive(file) => write_oci_archive_of(&contents, file, progress.as_ref()),
            Destination::Registry(_) => Err(Error::bug("a registry is not a file")),
        });
        let written = writing.await.map_err(|error| Error::bug("writing ended early").caused_by(error))??;
        Ok(Copied { digest: Some(written.digest), written: written.bytes_written, ..Copied::default() })
    }
}

/// A target with a digest is only for what has it.
fn check_digest(content: &Content, target: &Reference) -> Result<()> {
    let found = content.documents.last().map(|root| root.digest.to_string());
    match target.digest() {
        Some(digest) if found.as_deref() != Some(digest) => Err(Error::user(format!(
            "the image is {}, and `{target}` names another",
            found.as_deref().unwrap_or("nothing")
        ))
        .hint("leave the digest out, or name the image's")),
        _ => Ok(()),
    }
}

/// Sends what refers to the image, after it; true when something was new.
async fn push_referrers(content: &Content, target: &Reference, registry: &Registry) -> Result<bool> {
    let mut moved = false;
    for referrer in &content.referrers {
        let Some((root, children)) = referrer.documents.split_last() else { continue };
        for child in children {
            let sent =
                registry.push_manifest(&by_digest(target, child.digest), &child.media_type, bytes_of(child)?).await?;
            moved |= matches!(sent, Sent::Uploaded(_));
        }
        let sent = registry.push_referrer(target, bytes_of(root)?, &root.media_type).await?;
        moved |= matches!(sent, Sent::Uploaded(_));
    }
    Ok(moved)
}

/// The bytes of a document.
pub(super) fn bytes_of(document: &Blob) -> Result<&[u8]> {
    match &document.source {
        BlobSource::Bytes(bytes) => Ok(bytes),
        _ => Err(Error::bug("a manifest that is not in memory")),
    }
}

/// Brings blobs that are in a registry into the store.
async fn fetch(blobs: &mut [Blob], registry: &Registry, store: &Store) -> Result<()> {
    let wanted = blobs.iter().filter_map(|blob| match &blob.source {
        BlobSource::Registry(reference) => Some((blob.digest, blob.size, reference.clone())),
        _ => None,
    });
    let fetches: Vec<_> = wanted
        .map(|(digest, size, reference)| async move {
            let path = registry.fetch_blob(&Registry::parse(&reference)?, &digest, size, store).await?;
            Ok::<_, Error>((digest, path))
        })
        .collect();
    let files: BTreeMap<Digest, PathBuf> =
        stream::iter(fetches).buffer_unordered(PARALLEL_DOWNLOADS).try_collect().await?;
    for blob in blobs {
        if let Some(path) = files.get(&blob.digest) {
            blob.source = BlobSource::File(path.clone());
        }
    }
    Ok(())
}
