//! Where images are copied from: layouts, archives of them, registries.

use std::collections::BTreeMap;
use std::sync::Arc;

use oci_spec::image::Descriptor;
use serde::Deserialize;

use super::push::by_digest;
use crate::image::{LayoutReader, check_size, choose};
use crate::model::{BaseRef, Blob, BlobSource, Platform};
use crate::registry::{Reference, Registry};
use crate::store::Store;
use crate::util::{Digest, Error, Limit, Result, ResultExt as _};

/// A manifest or an index, as it is stored, and what it refers to.
#[derive(Debug, Clone)]
pub(super) struct Document {
    /// Its bytes, in memory.
    pub(super) blob: Blob,
    pub(super) references: References,
}

/// What a manifest or an index refers to; all else in it is left alone.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct References {
    media_type: Option<String>,
    pub(super) artifact_type: Option<String>,
    pub(super) annotations: Option<BTreeMap<String, String>>,
    pub(super) manifests: Option<Vec<Descriptor>>,
    pub(super) config: Option<Descriptor>,
    pub(super) layers: Option<Vec<Descriptor>>,
    pub(super) subject: Option<Descriptor>,
}

/// Where an image and what belongs to it is read from.
pub(super) enum Source {
    Layout { reader: Arc<LayoutReader>, tag: Option<String> },
    Registry { registry: Registry, reference: Reference, store: Store },
}

impl Source {
    /// Opens a source; of a registry nothing is asked yet, and archives are read: not for the runtime's own threads.
    pub(super) fn open(from: &BaseRef, registry: &Registry, store: &Store) -> Result<Self> {
        Ok(match from {
            BaseRef::Registry(reference) => {
                let reference = Registry::parse(reference)?;
                Self::Registry { registry: registry.clone(), reference, store: store.clone() }
            }
            BaseRef::Layout(folder, tag) => {
                Self::Layout { reader: Arc::new(LayoutReader::folder(folder)?), tag: tag.clone() }
            }
            BaseRef::OciArchive(file) | BaseRef::DockerArchive(file) => {
                Self::Layout { reader: Arc::new(LayoutReader::any_archive(file, store)?), tag: None }
            }
            BaseRef::Rootfs(_) | BaseRef::Scratch => {
                return Err(
                    Error::usage(format!("`{from}` is no image")).hint("name a layout, or an image in a registry")
                );
            }
        })
    }

    /// What the reference or the tag stands for; of an index the image for a platform, if one is asked for.
    pub(super) async fn root(&self, platform: Option<&Platform>) -> Result<Document> {
        let root = match self {
            Self::Registry { reference, .. } => self.fetch(reference).await?,
            Self::Layout { reader, tag } => {
                let images = reader.images(tag.as_deref())?;
                let chosen = match (images.as_slice(), platform) {
                    ([only], _) => only,
                    (several, Some(platform)) => choose(&several.iter().collect::<Vec<_>>(), platform)?,
                    (several, None) => {
                        return Err(Error::usage(format!("it holds {} images of that name", several.len()))
                            .hint("choose one with `--platform`"));
                    }
                };
                self.document(chosen).await?
            }
        };
        match platform {
            Some(platform) => self.narrow(root, platform).await,
            None => Ok(root),
        }
    }

    /// The image for a platform, in an index or instead of one.
    pub(super) async fn narrow(&self, mut document: Document, platform: &Platform) -> Result<Document> {
        // No index names itself: each is the preimage of a digest in the one before.
        while let Some(manifests) = &document.references.manifests {
            let chosen = choose(&manifests.iter().collect::<Vec<_>>(), platform)?.clone();
            document = self.document(&chosen).await?;
        }
        let found = self.platform(&document).await?;
        if found.architecture != platform.architecture {
            return Err(Error::user(format!("it is for {found}, not for {platform}")));
        }
        Ok(document)
    }

    /// The platform of a manifest, as its config says.
    pub(super) async fn platform(&self, manifest: &Document) -> Result<Platform> {
        #[derive(Deserialize)]
        struct Config {
            os: Option<String>,
            architecture: Option<String>,
            variant: Option<String>,
        }
        let none = || Error::user(format!("{} is no image: its config names no platform", manifest.blob.digest));
        let descriptor = manifest.references.config.as_ref().ok_or_else(none)?;
        let config: Config = serde_json::from_slice(&self.small(descriptor).await?).map_err(|_| none())?;
        let (os, architecture) = (config.os.ok_or_else(none)?, config.architecture.ok_or_else(none)?);
        let variant = config.variant.filter(|variant| !variant.is_empty()).map(|variant| format!("/{variant}"));
        format!("{os}/{architecture}{}", variant.unwrap_or_default()).parse()
    }

    /// Reads a manifest or an index.
    pub(super) async fn document(&self, descriptor: &Descriptor) -> Result<Document> {
        let digest = digest(descriptor)?;
        match self {
            Self::Registry { reference, .. } => self.fetch(&by_digest(reference, digest)).await,
            Self::Layout { reader, .. } => {
                let bytes = reader.document(&digest, descriptor.size())?;
                Document::parse(descriptor.media_type().as_ref().to_owned(), bytes)
            }
        }
    }

    async fn fetch(&self, reference: &Reference) -> Result<Document> {
        let Self::Registry { registry, .. } = self else { return Err(Error::bug("a layout has no references")) };
        let fetched = registry.manifest(reference).await?;
        Document::parse(fetched.media_type, fetched.bytes.to_vec())
    }

    /// What another tag of the source's repository stands for; none when there is none. Layouts have no such tags.
    pub(super) async fn tagged(&self, tag: &str) -> Result<Option<Document>> {
        let Self::Registry { registry, reference, .. } = self else { return Ok(None) };
        let reference = Reference::with_tag(reference.registry().into(), reference.repository().into(), tag.to_owned());
        if registry.tag_digest(&reference).await?.is_none() {
            return Ok(None);
        }
        self.fetch(&reference).await.map(Some)
    }

    /// The bytes of a config, or of another small file.
    pub(super) async fn small(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        let digest = digest(descriptor)?;
        check_size(descriptor.size(), &format!("the file {digest}"))?;
        match self {
            Self::Layout { reader, .. } => reader.document(&digest, descriptor.size()),
            Self::Registry { registry, reference, store } => {
                let path = registry.fetch_blob(reference, &digest, descriptor.size(), store).await?;
                Ok(fs_err::read(path)?)
            }
        }
    }

    /// A blob, where it lies. One in an archive comes into the store.
    pub(super) async fn blob(&self, descriptor: &Descriptor) -> Result<Blob> {
        let (digest, size) = (digest(descriptor)?, descriptor.size());
        let source = match self {
            Self::Registry { reference, .. } => BlobSource::Registry(by_digest(reference, digest).whole()),
            Self::Layout { reader, .. } => {
                let reader = Arc::clone(reader);
                tokio::task::spawn_blocking(move || reader.blob(&digest, size))
                    .await
                    .map_err(|error| Error::bug("reading a blob ended early").caused_by(error))??
            }
        };
        Ok(Blob { media_type: descriptor.media_type().as_ref().to_owned(), digest, size, source })
    }

    /// What says something about a manifest or an index: its referrers (distribution-spec, "Listing Referrers"; in a
    /// layout the entries whose subject it is). What is listed and is not there any more, or is no manifest, is left
    /// out: lists of referrers keep such entries. Of one artifact type, or of all.
    pub(super) async fn referrers(&self, subject: Digest, artifact_type: Option<&str>) -> Result<Vec<Document>> {
        let descriptors = match self {
            Self::Registry { registry, reference, .. } => {
                registry.referrers(&by_digest(reference, subject), artifact_type).await?
            }
            Self::Layout { reader, .. } => reader.entries()?,
        };
        let mut found = Vec::new();
        for descriptor in descriptors.iter().filter(|descriptor| is_document(descriptor)) {
            let Ok(named) = digest(descriptor) else { continue };
            if !self.is_there(named, descriptor.size()).await? {
                tracing::debug!(%named, %subject, "a referrer is listed and is not there");
                continue;
            }
            let document = self.document(descriptor).await.context(|| format!("a referrer of {subject}"))?;
            let about = document.references.subject.as_ref().and_then(|subject| digest(subject).ok());
            let wanted = artifact_type.is_none_or(|wanted| document.artifact_type().as_deref() == Some(wanted));
            if about == Some(subject) && wanted {
                found.push(document);
            }
        }
        Ok(found)
    }

    async fn is_there(&self, digest: Digest, size: u64) -> Result<bool> {
        match self {
            Self::Registry { registry, reference, .. } => {
                Ok(registry.tag_digest(&by_digest(reference, digest)).await?.is_some())
            }
            Self::Layout { reader, .. } => {
                Ok(size <= Limit::ImageDocument.value() && reader.blob(&digest, size).is_ok())
            }
        }
    }
}

impl Document {
    /// What kind of artifact it is (distribution-spec, "Listing Referrers").
    pub(super) fn artifact_type(&self) -> Option<String> {
        let config = || self.references.config.as_ref().map(|config| config.media_type().as_ref().to_owned());
        self.references.artifact_type.clone().or_else(config)
    }

    /// Parses a document; its own media type counts, the other one when it names none.
    pub(super) fn parse(media_type: String, bytes: Vec<u8>) -> Result<Self> {
        let references: References = serde_json::from_slice(&bytes)
            .map_err(|error| Error::user("it holds a manifest that cannot be read").caused_by(error))?;
        if references.manifests.is_some() && references.layers.is_some() {
            return Err(Error::user(
                "it holds a manifest that is ambiguous: it has `layers` of an image and `manifests` of an index",
            ));
        }
        let media_type = references.media_type.clone().unwrap_or(media_type);
        Ok(Self { blob: Blob::from_bytes(media_type, bytes), references })
    }
}

/// The digest of a descriptor; only sha256 is known.
pub(super) fn digest(descriptor: &Descriptor) -> Result<Digest> {
    descriptor.digest().as_ref().parse()
}

/// Whether a descriptor names a manifest or an index, OCI's or Docker's.
pub(super) fn is_document(descriptor: &Descriptor) -> bool {
    let media_type = descriptor.media_type().as_ref();
    media_type.contains(".manifest.") || media_type.contains(".image.index.")
}
