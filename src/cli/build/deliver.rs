//! Sending an image on its way: to registries while layers are still being packed, to layouts and archives.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Semaphore;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinSet;

use super::options::{Options, Output};
use crate::cli::progress::human;
use crate::cli::world::World;
use crate::image::{self, Image};
use crate::model::{Blob, LayerBlob};
use crate::registry::{Reference, Registry, Sent};
use crate::util::report::{Progress, Step};
use crate::util::{Digest, Error, Result};

/// Blobs that are sent at once. Four keep a link busy without tripping the limits of registries (what
/// go-containerregistry does too).
const PARALLEL_UPLOADS: usize = 4;

/// What went to the registries.
#[derive(Debug, Clone, Copy, Default)]
pub struct Delivered {
    /// Bytes of blobs that were sent.
    pub bytes: u64,
}

/// Sends blobs to the repositories of all tags, each blob once a repository.
pub struct Pusher {
    registry: Registry,
    repositories: Vec<Reference>,
    seen: BTreeSet<Digest>,
    permits: Arc<Semaphore>,
    uploads: JoinSet<Result<Sent>>,
    progress: Arc<dyn Progress>,
    uploaded: Arc<AtomicU64>,
}

impl Pusher {
    /// A pusher for the repositories of these references.
    pub fn new(tags: &[Reference], world: &World) -> Self {
        let mut repositories: Vec<Reference> = Vec::new();
        for tag in tags {
            let same = |known: &Reference| known.registry() == tag.registry() && known.repository() == tag.repository();
            if !repositories.iter().any(same) {
                repositories.push(tag.clone());
            }
        }
        Self {
            registry: world.registry.clone(),
            repositories,
            seen: BTreeSet::new(),
            permits: Arc::new(Semaphore::new(PARALLEL_UPLOADS)),
            uploads: JoinSet::new(),
            progress: Arc::from(world.reporter.begin(Step::Push, 0)),
            uploaded: Arc::default(),
        }
    }

    /// Sends the base's layers, then each layer as it comes, until no more will come.
    pub async fn layers(mut self, base: Vec<LayerBlob>, mut ready: UnboundedReceiver<LayerBlob>) -> Result<Self> {
        for layer in base {
            self.begin(layer.blob);
        }
        loop {
            tokio::select! {
                layer = ready.recv() => match layer {
                    Some(layer) => self.begin(layer.blob),
                    None => return Ok(self),
                },
                // A refused upload ends the build now, not after everything is packed.
                Some(upload) = self.uploads.join_next() => { done(upload)?; }
            }
        }
    }

    fn begin(&mut self, blob: Blob) {
        if !self.seen.insert(blob.digest) {
            return;
        }
        self.progress.grow(blob.size * self.repositories.len() as u64);
        for repository in &self.repositories {
            let (registry, repository, blob) = (self.registry.clone(), repository.clone(), blob.clone());
            let (permits, progress) = (Arc::clone(&self.permits), Arc::clone(&self.progress));
            let uploaded = Arc::clone(&self.uploaded);
            self.uploads.spawn(async move {
                let _permit =
                    permits.acquire_owned().await.map_err(|error| Error::bug("no uploads").caused_by(error))?;
                let sent = registry.push_blob(&repository, &blob, progress.as_ref()).await?;
                match sent {
                    Sent::Uploaded(bytes) => {
                        uploaded.fetch_add(bytes, Ordering::Relaxed);
                    }
                    Sent::Existed => progress.advance(blob.size),
                }
                Ok(sent)
            });
        }
    }

    /// Sends config and manifest, the tags last.
    pub async fn finish(mut self, image: &Image, tags: &[Reference]) -> Result<Delivered> {
        self.begin(image.config.clone());
        let mut delivered = Delivered::default();
        let total = self.seen.len() * self.repositories.len();
        while let Some(upload) = self.uploads.join_next().await {
            done(upload)?;
        }
        let crate::model::BlobSource::Bytes(manifest) = &image.manifest.source else {
            return Err(Error::bug("a manifest that is not in memory"));
        };
        let mut moved = false;
        for tag in tags {
            let sent = self.registry.push_manifest(tag, &image.manifest.media_type, manifest).await?;
            moved |= matches!(sent, Sent::Uploaded(_));
        }
        delivered.bytes = self.uploaded.load(Ordering::Relaxed);
        let what = if moved { "manifest sent" } else { "nothing to do" };
        self.progress.finish(&format!("{total} blobs, {} sent, {what}", human(delivered.bytes)));
        Ok(delivered)
    }
}

fn done(upload: std::result::Result<Result<Sent>, tokio::task::JoinError>) -> Result<Sent> {
    upload.map_err(|error| Error::bug("an upload ended early").caused_by(error))?
}

/// Writes the image to all `--output`s.
pub async fn write(options: &Options, image: &mut Image, world: &World) -> Result<()> {
    if options.outputs.is_empty() {
        return Ok(());
    }
    image::localise(std::slice::from_mut(image), world).await?;
    let tags: Vec<String> = options.tags.iter().map(ToString::to_string).collect();
    // In a layout, a tag names the image; in an archive the whole reference does, which engines load it under.
    let in_layout = options.tags.first().and_then(|tag| tag.tag().map(str::to_owned));
    for output in &options.outputs {
        let (output, image, tags, in_layout) = (output.clone(), image.clone(), tags.clone(), in_layout.clone());
        let progress = world.reporter.begin(Step::Write, 0);
        let writing = tokio::task::spawn_blocking(move || -> Result<()> {
            let first = tags.first().map(String::as_str);
            let images = std::slice::from_ref(&image);
            let written = match &output {
                Output::Layout(folder, tag) => {
                    let tag = tag.as_deref().or(in_layout.as_deref());
                    image::write_layout(images, folder, tag, progress.as_ref())
                }
                Output::OciArchive(file) => image::write_oci_archive(images, file, first, progress.as_ref()),
                Output::DockerArchive(file) => image::write_docker_archive(&image, file, &tags, progress.as_ref()),
            }?;
            progress.finish(&format!("{}, {} written", output.shown(), human(written.bytes_written)));
            Ok(())
        });
        writing.await.map_err(|error| Error::bug("writing ended early").caused_by(error))??;
    }
    Ok(())
}
