//! Bases: what an image stands on, read from a registry, a layout, an archive, a root file system, or nothing.

mod archive;
mod docker_archive;
mod docker_image;
mod document;
mod layout;
mod registry;
mod rootfs;

pub(super) use archive::TarFile;
pub(super) use docker_image::docker_image;
pub use document::choose;

use oci_spec::image::{Arch, Descriptor, ImageConfiguration, ImageManifest, Os, RootFs};

use super::{Fetch, Image, LayoutReader, json, media};
use crate::model::{BaseRef, Blob, BlobSource, LayerBlob, Platform};
use crate::store::Store;
use crate::util::{DiffId, Digest, Error, Limit, Result, ResultExt as _, human};

/// A base image for one platform. Its layers may still be in a registry.
#[derive(Debug, Clone)]
pub struct Base {
    /// Its reference without digest, for `org.opencontainers.image.base.name`; empty for what is no image in
    /// a registry.
    pub reference: String,
    /// Digest of its manifest, as in the registry or layout. Of a docker archive, which has none: of its
    /// config. Of a root file system: of its layer. Of scratch: of nothing.
    pub digest: Digest,
    /// Its config.
    pub config: ImageConfiguration,
    /// Its layers, lowest first.
    pub layers: Vec<LayerBlob>,
    /// Its manifest and config, byte for byte (a docker archive has no manifest: one that fits); none of a root file
    /// system, and of scratch.
    pub documents: Option<Documents>,
}

/// What makes an image of layers.
#[derive(Debug, Clone)]
pub struct Documents {
    /// The manifest.
    pub manifest: Blob,
    /// The config.
    pub config: Blob,
}

impl Base {
    /// When it was made, in seconds since 1970; nothing where it does not say.
    pub fn created(&self) -> Option<i64> {
        let created: jiff::Timestamp = self.config.created().as_deref()?.parse().ok()?;
        Some(created.as_second())
    }

    /// The image itself, as it is, for something else than to stand on; none of what is no image.
    pub fn image(&self, platform: &Platform) -> Option<Image> {
        let Documents { manifest, config } = self.documents.clone()?;
        Some(Image { platform: platform.clone(), manifest, config, layers: self.layers.clone() })
    }
}

/// Opens a base for a platform. Manifests and configs are verified and read; the layers of a registry's image
/// stay there, those of an archive come into the store.
///
/// # Errors
/// When it is not there, damaged, for another platform, ambiguous, or holds layers that cannot be used.
pub async fn open(base: &BaseRef, platform: &Platform, store: &Store, fetch: &dyn Fetch) -> Result<Base> {
    open_image(base, platform, store, fetch).await.context(|| format!("the base `{base}` cannot be used"))
}

/// As [`open`], of an image that is not to be a base.
///
/// # Errors
/// As [`open`]; they do not name it.
pub async fn open_image(base: &BaseRef, platform: &Platform, store: &Store, fetch: &dyn Fetch) -> Result<Base> {
    match base {
        BaseRef::Registry(reference) => registry::open(reference, platform, fetch).await,
        local => {
            let (local, platform, store) = (local.clone(), platform.clone(), store.clone());
            // Reads and hashes files: not on the runtime's own threads.
            tokio::task::spawn_blocking(move || open_local(&local, &platform, &store))
                .await
                .map_err(|error| Error::bug("the base could not be opened").caused_by(error))?
        }
    }
}

fn open_local(base: &BaseRef, platform: &Platform, store: &Store) -> Result<Base> {
    match base {
        BaseRef::Layout(folder, tag) => layout::open(&LayoutReader::folder(folder)?, tag.as_deref(), platform),
        BaseRef::OciArchive(path) => layout::open(&LayoutReader::archive(path, store)?, None, platform),
        BaseRef::DockerArchive(path) => docker_archive::open(path, platform, store),
        BaseRef::Rootfs(path) => rootfs::open(path, platform, store),
        BaseRef::Scratch => Ok(scratch(platform)),
        BaseRef::Registry(_) => Err(Error::bug("a registry is not local")),
    }
}

/// The base that holds nothing.
fn scratch(platform: &Platform) -> Base {
    let config = empty_config(platform);
    Base { reference: String::new(), digest: Digest::of(b""), config, layers: Vec::new(), documents: None }
}

/// A config that says nothing but the platform.
fn empty_config(platform: &Platform) -> ImageConfiguration {
    let mut config = ImageConfiguration::default();
    // oci_spec's defaults are those of the machine that it runs on.
    config.set_architecture(Arch::from(platform.architecture)).set_os(Os::Linux);
    config.set_variant(platform.variant.clone());
    config.set_rootfs(RootFs::default());
    config
}

/// The base that a manifest (its bytes, and what they say) and its config, which are verified already, describe.
fn from_manifest(
    (bytes, manifest): (Vec<u8>, &ImageManifest),
    config: Vec<u8>,
    platform: &Platform,
    mut source: impl FnMut(&Digest, u64) -> Result<BlobSource>,
) -> Result<Base> {
    // Only Docker's own kind has to say what it is.
    let media_type = manifest.media_type().as_ref().map_or(media::MANIFEST, |media_type| media_type.as_ref());
    let documents = Documents {
        manifest: Blob::from_bytes(media_type, bytes),
        config: Blob::from_bytes(manifest.config().media_type().as_ref(), config.clone()),
    };
    let config = read_config(&config, platform)?;
    let diff_ids = diff_ids(&config, manifest.layers().len())?;
    let layers = manifest.layers().iter().zip(diff_ids).map(|(descriptor, diff_id)| {
        let media_type = media::layer(descriptor.media_type().as_ref())?;
        let digest = digest_of(descriptor)?;
        let size = descriptor.size();
        let blob = Blob { media_type: media_type.to_owned(), digest, size, source: source(&digest, size)? };
        Ok(layer(blob, diff_id, descriptor))
    });
    let layers = layers.collect::<Result<_>>()?;
    let digest = documents.manifest.digest;
    Ok(Base { reference: String::new(), digest, config, layers, documents: Some(documents) })
}

fn layer(blob: Blob, diff_id: DiffId, descriptor: &Descriptor) -> LayerBlob {
    let annotations = descriptor.annotations().clone().unwrap_or_default().into_iter().collect();
    LayerBlob { blob, diff_id, name: String::new(), annotations, created_by: String::new() }
}

/// Parses a config and checks that it is for the platform.
fn read_config(bytes: &[u8], platform: &Platform) -> Result<ImageConfiguration> {
    let config: ImageConfiguration = json::parse(bytes, "its image config")?;
    let (os, architecture) = (config.os().to_string(), config.architecture().to_string());
    let variant = config.variant().as_deref().filter(|variant| !variant.is_empty());
    if document::rank(&os, &architecture, variant, platform).is_none() {
        let found = document::platform_name(&os, &architecture, variant);
        return Err(Error::user(format!("it is for {found}, and the image is to be for {platform}"))
            .hint(format!("choose a base for {platform}, or `--platform {found}`")));
    }
    Ok(config)
}

/// The diff IDs of a config, one for each layer.
fn diff_ids(config: &ImageConfiguration, layers: usize) -> Result<Vec<DiffId>> {
    let ids = config.rootfs().diff_ids();
    if ids.len() != layers {
        return Err(Error::user(format!("its manifest has {layers} layers, but its config lists {}", ids.len())));
    }
    ids.iter().map(|id| Ok(DiffId(id.parse()?))).collect()
}

/// The digest of a descriptor; only sha256 is known.
fn digest_of(descriptor: &Descriptor) -> Result<Digest> {
    descriptor.digest().as_ref().parse()
}

/// Checks the bytes of a document against the digest that named it.
pub(super) fn verify(bytes: &[u8], digest: &Digest, what: &str) -> Result<()> {
    let found = Digest::of(bytes);
    if found != *digest {
        return Err(Error::user(format!("{what} should be {digest} and is {found}"))
            .hint("it was damaged or changed; fetch or make it again"));
    }
    Ok(())
}

/// Refuses a document that is too large before it is read.
///
/// # Errors
/// When it is larger than [`Limit::ImageDocument`].
pub fn check_size(size: u64, what: &str) -> Result<()> {
    match size > Limit::ImageDocument.value() {
        true => Err(Limit::ImageDocument.exceeded(&format!("{what} has {}, more than", human(size)))),
        false => Ok(()),
    }
}
