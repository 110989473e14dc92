//! Everything that lies under one name, verbatim: no byte of a manifest changes on the way, so no digest does.

use std::collections::BTreeSet;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use oci_spec::image::Descriptor;

use super::source::{Document, Source, digest, is_document};
use crate::model::{Blob, Platform};
use crate::util::{Digest, Error, Result};

/// Manifests under one name that are read: more than any image has.
const MAX_DOCUMENTS: usize = 10_000;
/// Their bytes, which are all kept in memory.
const MAX_BYTES: u64 = 64 << 20;
/// Indexes within indexes that are followed.
const MAX_DEPTH: usize = 8;

/// An image, or whatever a name stands for.
#[derive(Debug, Clone, Default)]
pub struct Content {
    /// Manifests and indexes, those that are referred to first; the last one is what the name stands for.
    pub documents: Vec<Blob>,
    /// Configs, layers and other blobs, each once; those of the referrers too.
    pub blobs: Vec<Blob>,
    /// What refers to one of the documents, and what refers to that: those that are referred to first.
    pub referrers: Vec<Referrer>,
}

/// Something that says something about a manifest: its manifest has a `subject`.
#[derive(Debug, Clone)]
pub struct Referrer {
    /// Manifests and indexes, those that are referred to first; the last one has the subject.
    pub documents: Vec<Blob>,
    /// What it is (image-spec, "artifactType", else the config's media type).
    pub artifact_type: Option<String>,
}

/// Finds out what there is to copy: reads documents, no blob.
pub(super) async fn gather(source: &Source, platform: Option<&Platform>, with_referrers: bool) -> Result<Content> {
    let mut gatherer = Gatherer { source, blobs: Vec::new(), seen: BTreeSet::new(), count: 0, bytes: 0 };
    let root = source.root(platform).await?;
    let mut documents = Vec::new();
    gatherer.tree(root, &mut documents, 0).await?;
    let subjects = documents.iter().map(|document| document.digest).collect();
    let referrers = if with_referrers { gatherer.referrers(subjects).await? } else { Vec::new() };
    Ok(Content { documents, blobs: gatherer.blobs, referrers })
}

struct Gatherer<'a> {
    source: &'a Source,
    blobs: Vec<Blob>,
    seen: BTreeSet<Digest>,
    count: usize,
    bytes: u64,
}

impl Gatherer<'_> {
    /// A document and all below it, those that are referred to first; their blobs are noted.
    fn tree<'b>(&'b mut self, document: Document, found: &'b mut Vec<Blob>, depth: usize) -> BoxFuture<'b, Result<()>> {
        async move {
            self.count += 1;
            self.bytes += document.blob.size;
            if self.count > MAX_DOCUMENTS || self.bytes > MAX_BYTES || depth > MAX_DEPTH {
                return Err(Error::user("it refers to more manifests than can belong to one image"));
            }
            self.seen.insert(document.blob.digest);
            for child in document.references.manifests.iter().flatten() {
                if !is_document(child) {
                    self.blob(child).await?;
                } else if !self.seen.contains(&digest(child)?) {
                    let child = self.source.document(child).await?;
                    self.tree(child, found, depth + 1).await?;
                }
            }
            for blob in document.references.config.iter().chain(document.references.layers.iter().flatten()) {
                self.blob(blob).await?;
            }
            found.push(document.blob);
            Ok(())
        }
        .boxed()
    }

    async fn referrers(&mut self, mut subjects: Vec<Digest>) -> Result<Vec<Referrer>> {
        let mut referrers = Vec::new();
        while let Some(subject) = subjects.pop() {
            for referrer in self.source.referrers(subject, None).await? {
                if self.seen.contains(&referrer.blob.digest) {
                    continue;
                }
                subjects.push(referrer.blob.digest);
                let artifact_type = referrer.artifact_type();
                let mut documents = Vec::new();
                self.tree(referrer, &mut documents, 0).await?;
                referrers.push(Referrer { documents, artifact_type });
            }
        }
        Ok(referrers)
    }

    async fn blob(&mut self, descriptor: &Descriptor) -> Result<()> {
        // What may not be distributed is not in the registry, but at its `urls` (image-spec, descriptor.md).
        let media_type = descriptor.media_type().as_ref();
        let restricted = media_type.contains("nondistributable") || media_type.contains(".foreign.");
        let elsewhere = restricted && descriptor.urls().as_ref().is_some_and(|urls| !urls.is_empty());
        if !elsewhere && self.seen.insert(digest(descriptor)?) {
            self.blobs.push(self.source.blob(descriptor).await?);
        }
        Ok(())
    }
}
