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
    /// What cosign keeps under tags of its own.
    pub cosigned: Vec<Cosigned>,
}

/// Something that cosign says of a manifest: a signature, an attestation or an SBOM, which it keeps under a tag that is
/// made of the manifest's digest.
#[derive(Debug, Clone)]
pub struct Cosigned {
    /// The tag: `sha256-HEX.sig`, `.att` or `.sbom`.
    pub tag: String,
    /// Manifests and indexes, those that are referred to first; the last one has the tag.
    pub documents: Vec<Blob>,
}

/// How the tags end that cosign makes of a manifest's digest.
const COSIGN: [&str; 3] = ["sig", "att", "sbom"];

/// Something that says something about a manifest: its manifest has a `subject`.
#[derive(Debug, Clone)]
pub struct Referrer {
    /// Manifests and indexes, those that are referred to first; the last one has the subject.
    pub documents: Vec<Blob>,
    /// What it is (image-spec, "artifactType", else the config's media type).
    pub artifact_type: Option<String>,
}

/// What of that which says something about an image goes with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Beside {
    Nothing,
    /// Referrers; of what cosign keeps under tags of its own only the tags are found out.
    Referrers,
    Everything,
}

/// Finds out what there is to copy: reads documents, no blob.
pub(super) async fn gather(source: &Source, platform: Option<&Platform>, with: Beside) -> Result<Content> {
    let mut gatherer = Gatherer { source, blobs: Vec::new(), seen: BTreeSet::new(), count: 0, bytes: 0 };
    let root = source.root(platform).await?;
    let mut documents = Vec::new();
    gatherer.tree(root, &mut documents, 0).await?;
    let subjects = documents.iter().map(|document| document.digest).collect();
    let mut content = Content { documents, ..Content::default() };
    if with != Beside::Nothing {
        content.cosigned = gatherer.cosigned(&content.documents, with).await?;
        content.referrers = gatherer.referrers(subjects).await?;
    }
    Ok(Content { blobs: gatherer.blobs, ..content })
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

    /// What cosign keeps of these manifests under tags of its own.
    async fn cosigned(&mut self, subjects: &[Blob], with: Beside) -> Result<Vec<Cosigned>> {
        let mut found = Vec::new();
        for (subject, kind) in subjects.iter().flat_map(|subject| COSIGN.map(|kind| (subject, kind))) {
            let tag = format!("sha256-{}.{kind}", subject.digest.hex());
            let Some(document) = self.source.tagged(&tag).await? else { continue };
            let mut documents = Vec::new();
            if with == Beside::Everything {
                self.tree(document, &mut documents, 0).await?;
            }
            found.push(Cosigned { tag, documents });
        }
        Ok(found)
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
