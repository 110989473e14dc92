//! What `warm` tells: for people a line an item, for machines JSON (docs/warm.md).

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::Serialize;

use crate::cli::summary::PlatformMetadata;
use crate::image::Image;
use crate::model::{LAYER_KEY, LayerBlob};
use crate::store::{self, Item as Stored, Store};
use crate::util::{Digest, human};

/// The whole.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Report {
    pub items: Vec<Item>,
    /// With `--max-size`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pruned: Option<Pruned>,
}

/// What was removed, and what is left, in bytes.
#[derive(Debug, Serialize)]
pub struct Pruned {
    pub removed: u64,
    pub left: u64,
    /// In the order in which they went.
    pub items: Vec<Gone>,
}

/// Something that was removed.
#[derive(Debug, Serialize)]
pub struct Gone {
    /// As `cache ls` has it.
    pub kind: &'static str,
    /// Where it was in the store.
    pub path: String,
    /// In bytes.
    pub size: u64,
}

impl Pruned {
    pub fn new(pruned: &store::Pruned, store: &Store) -> Self {
        let items =
            pruned.removed.iter().map(|item| Gone { kind: item.kind, path: store.shown(&item.path), size: item.size });
        Self { removed: pruned.removed.iter().map(|item| item.size).sum(), left: pruned.left, items: items.collect() }
    }
}

/// One of what was asked for.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Item {
    /// As it was asked for.
    pub what: String,
    /// `environment` or `image`; nothing when it could not be prepared.
    pub kind: Option<&'static str>,
    pub platforms: Vec<Platform>,
    /// With `--load`: an entry for each engine that has the image now.
    pub loaded: Vec<Loaded>,
    /// What came into the store, by kind as `cache ls` has them.
    pub added: BTreeMap<&'static str, Added>,
    /// Why it failed.
    pub error: Option<String>,
}

/// An image in an engine.
#[derive(Debug, Serialize)]
pub struct Loaded {
    /// `podman`, `docker` or `containerd`.
    pub engine: &'static str,
    /// What it is called there.
    pub names: Vec<String>,
    /// `loaded`, or `present`: it was there.
    pub state: &'static str,
}

/// Things of one kind.
#[derive(Debug, Default, Serialize)]
pub struct Added {
    pub count: usize,
    /// In bytes.
    pub size: u64,
}

/// An image for one platform.
#[derive(Debug, Serialize)]
pub struct Platform {
    pub platform: String,
    /// Of the manifest.
    pub digest: Digest,
    pub layers: Vec<Layer>,
}

/// A layer of it.
#[derive(Debug, Serialize)]
pub struct Layer {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    pub digest: Digest,
    /// In bytes.
    pub size: u64,
    /// `made`, `fetched`, `present`, or `elsewhere`: in the layout that the base is.
    pub state: &'static str,
}

fn state(digest: &Digest, size: u64, made: bool, store: &Store, before: &BTreeSet<PathBuf>) -> &'static str {
    match (made, before.contains(&store.blob(digest)), store.has_blob(digest, size)) {
        (true, ..) => "made",
        (_, true, true) => "present",
        (_, false, true) => "fetched",
        (_, _, false) => "elsewhere",
    }
}

impl Layer {
    fn fetched(layer: &LayerBlob, store: &Store, before: &BTreeSet<PathBuf>) -> Self {
        let (digest, size) = (layer.blob.digest, layer.blob.size);
        let state = state(&digest, size, false, store, before);
        Self { name: None, key: layer.annotations.get(LAYER_KEY).cloned(), digest, size, state }
    }
}

impl Platform {
    pub fn fetched(image: &Image, store: &Store, before: &BTreeSet<PathBuf>) -> Self {
        let layers = image.layers.iter().map(|layer| Layer::fetched(layer, store, before));
        Self { platform: image.platform.to_string(), digest: image.manifest.digest, layers: layers.collect() }
    }

    pub fn built(made: PlatformMetadata, store: &Store, before: &BTreeSet<PathBuf>) -> Self {
        let layers = made.layers.into_iter().map(|layer| Layer {
            state: state(&layer.digest, layer.size, layer.new, store, before),
            name: Some(layer.name),
            key: None,
            digest: layer.digest,
            size: layer.size,
        });
        Self { platform: made.platform, digest: made.digest, layers: layers.collect() }
    }
}

impl Item {
    /// Counts what is in the store now and was not before.
    pub fn count(&mut self, now: &[Stored], before: &BTreeSet<PathBuf>) {
        for item in now.iter().filter(|item| item.kind != "unfinished" && !before.contains(&item.path)) {
            let added = self.added.entry(item.kind).or_default();
            added.count += 1;
            added.size += item.size;
        }
    }

    fn text(&self) -> String {
        let what = &self.what;
        if self.error.is_some() {
            return format!("{what}: failed\n");
        }
        let added = self.added.iter().map(|(kind, added)| format!("{} {kind}, {}", added.count, human(added.size)));
        let mut parts: Vec<String> = added.collect();
        if parts.is_empty() {
            parts.push("all there".to_owned());
        }
        parts.extend(self.loaded.iter().map(|loaded| match loaded.state {
            "present" => format!("{} has it", loaded.engine),
            _ => format!("loaded into {}", loaded.engine),
        }));
        format!("{what}: {}\n", parts.join("; "))
    }
}

impl Report {
    pub fn text(&self) -> String {
        let items: String = self.items.iter().map(Item::text).collect();
        let pruned = self.pruned.as_ref().map(|it| format!("{} removed; {} left\n", human(it.removed), human(it.left)));
        items + &pruned.unwrap_or_default()
    }
}
