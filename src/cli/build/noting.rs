//! Writing to the cache registry, beside the rest of the build.
//!
//! A cache in a registry that is pushed to takes the layers from the image there, so it is written when that is whole:
//! the registry sends itself nothing. Any other cache is sent each layer as soon as it is made.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures::stream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;

use super::options::Options;
use crate::cli::world::World;
use crate::model::{Blob, LAYER_KEY, LayerBlob};
use crate::registry::Reference;
use crate::ship::{CatalogWriter, Entry, NewEntry, Noted, arriving};
use crate::util::report::{Outcome, Step};
use crate::util::{Digest, Error, Result, json};

/// How long is waited for the cache at least, after all else is done. At most as long as all else took: a slow cache
/// may double the time of a build, and no more.
const LEAST_PATIENCE: Duration = Duration::from_secs(30);

/// Who is told of what is whole. Nobody listens when nothing is pushed or noted, or the build has failed meanwhile.
#[derive(Clone)]
pub struct Ready {
    blobs: UnboundedSender<Blob>,
    entries: UnboundedSender<NewEntry>,
}

impl Ready {
    /// Blobs go to who pushes them, layers to who notes them, too.
    pub fn new(blobs: UnboundedSender<Blob>, entries: UnboundedSender<NewEntry>) -> Self {
        Self { blobs, entries }
    }

    /// Nothing is pushed.
    pub fn unpushed(entries: UnboundedSender<NewEntry>) -> Self {
        Self::new(unbounded_channel().0, entries)
    }

    /// Nobody is told.
    pub fn nobody() -> Self {
        Self::unpushed(unbounded_channel().0)
    }

    /// A blob of the image that is no layer.
    pub fn blob(&self, blob: &Blob) {
        let _ = self.blobs.send(blob.clone());
    }

    /// What is only noted.
    pub fn entry(&self, entry: NewEntry) {
        let _ = self.entries.send(entry);
    }

    /// A layer; whether it was made just now.
    ///
    /// # Errors
    /// None but defects of ours.
    pub fn layer(&self, layer: &LayerBlob, made: bool) -> Result<()> {
        self.blob(&layer.blob);
        if let Some(key) = layer.annotations.get(LAYER_KEY).and_then(|key| key.parse().ok()) {
            self.note(key, layer, if made { Noted::Whatever } else { Noted::Other })?;
        }
        Ok(())
    }

    /// A layer of the base. Noted by its digest, it is kept by the cache registry, from where pushes to new repositories
    /// have it mounted.
    ///
    /// # Errors
    /// None but defects of ours.
    pub fn base_layer(&self, layer: &LayerBlob) -> Result<()> {
        self.blob(&layer.blob);
        self.note(Digest::of(json::canonical(&("base layer", layer.blob.digest))?), layer, Noted::Other)
    }

    fn note(&self, key: Digest, layer: &LayerBlob, noted: Noted) -> Result<()> {
        let entry = Entry { key, digest: layer.blob.digest, size: layer.blob.size, diff_id: layer.diff_id };
        let _ = self.entries.send(NewEntry::layer(&entry, &layer.blob, noted));
        Ok(())
    }
}

/// The writing to the cache registry, if there is one.
pub struct Noting<'a> {
    world: &'a World,
    started: Instant,
    cache: Option<(&'a Reference, Work)>,
}

enum Work {
    /// Under way; ended when dropped.
    Now(JoinSet<Result<usize>>),
    /// When the image is in its registry.
    Later(CatalogWriter, UnboundedReceiver<NewEntry>),
}

impl<'a> Noting<'a> {
    /// Begins, at the start of a build, with what will be sent by the sender.
    pub fn begin(options: &'a Options, world: &'a World) -> (Self, UnboundedSender<NewEntry>) {
        let (sender, entries) = unbounded_channel();
        let cache = options.cache_registry.as_ref().filter(|_| !world.offline).map(|cache| {
            let writer = CatalogWriter::new(&world.registry, &world.store, cache);
            let beside = |tag: &Reference| tag.registry() == cache.registry();
            if options.args.push && options.tags.iter().any(beside) {
                return (cache, Work::Later(writer, entries));
            }
            let mut work = JoinSet::new();
            work.spawn(async move { writer.note(arriving(entries)).await });
            (cache, Work::Now(work))
        });
        (Self { world, started: Instant::now(), cache }, sender)
    }

    /// Ends it, once the image is pushed and no more can be sent. Whoever may not write there has a notice of it: the
    /// image is whole without.
    pub async fn end(self) {
        let Some((cache, work)) = self.cache else { return };
        let progress = self.world.reporter.begin(Step::Cache, 0);
        progress.item("noting the layers in the cache registry");
        let patience = self.started.elapsed().max(LEAST_PATIENCE);
        let why = match tokio::time::timeout(patience, work.run()).await {
            Ok(Ok(written)) => {
                progress.finish(&Outcome::Quiet {});
                return tracing::debug!(written, "layers are noted in the cache registry");
            }
            Ok(Err(error)) => error.chain().join(": "),
            Err(_) => format!("it was given up after {} s", patience.as_secs()),
        };
        let (registry, repository) = (cache.registry(), cache.repository());
        self.world
            .reporter
            .notice(&format!("the layers are not noted in the cache registry `{registry}/{repository}`: {why}"));
    }
}

impl Work {
    async fn run(self) -> Result<usize> {
        let (writer, mut entries) = match self {
            Self::Later(writer, entries) => (writer, entries),
            Self::Now(mut work) => {
                let done = work.join_next().await.ok_or_else(|| Error::bug("nobody notes layers"))?;
                return done.map_err(|error| Error::bug("the noting of layers ended early").caused_by(error))?;
            }
        };
        // Of a layer that was made after all, only that counts.
        let mut last = BTreeMap::new();
        while let Some(layer) = entries.recv().await {
            last.insert(layer.key, layer);
        }
        writer.note(stream::iter(last.into_values())).await
    }
}
