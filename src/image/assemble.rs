//! Base and layers to config and manifest. Pure: equal inputs give equal bytes.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use jiff::Timestamp;
use oci_spec::image::{
    Arch, Config, Descriptor, Digest as OciDigest, ImageConfiguration, ImageManifestBuilder, MediaType, Os,
    PlatformBuilder, RootFsBuilder, SCHEMA_VERSION,
};

use super::{Base, environment, history, media};
use crate::model::{Blob, LayerBlob, MAX_IMAGE_LAYERS, Platform, User};
use crate::util::json::canonical;
use crate::util::{Error, Result};

const BASE_NAME: &str = "org.opencontainers.image.base.name";
const BASE_DIGEST: &str = "org.opencontainers.image.base.digest";
/// Labels that speak of the base itself and would be wrong of what stands on it (image-spec, annotations.md).
const OF_THE_BASE: [&str; 4] =
    [BASE_NAME, BASE_DIGEST, "org.opencontainers.image.title", "org.opencontainers.image.version"];

/// Everything that an image is made of.
#[derive(Debug, Clone)]
pub struct Assembly<'a> {
    /// The platform that it is for.
    pub platform: &'a Platform,
    /// What it stands on.
    pub base: &'a Base,
    /// Our layers, lowest first.
    pub layers: Vec<LayerBlob>,
    /// Variables beside the base's.
    pub env: BTreeMap<String, String>,
    /// Variables of the base that the image does not have.
    pub removed: BTreeSet<String>,
    /// Folders put before the base's `PATH`.
    pub path_prefix: Vec<String>,
    /// Whom processes run as.
    pub user: User,
    /// Replaces the base's entrypoint, which is dropped in any case.
    pub entrypoint: Option<Vec<String>>,
    /// Replaces the base's command, which is dropped in any case.
    pub cmd: Option<Vec<String>>,
    /// The working folder; the base's when there is none.
    pub workdir: Option<String>,
    /// Labels beside the base's.
    pub labels: BTreeMap<String, String>,
    /// Annotations of the manifest.
    pub annotations: BTreeMap<String, String>,
    /// When it was made, seconds since 1970: of the config and of our history entries.
    pub created: i64,
}

/// An image for one platform.
#[derive(Debug, Clone)]
pub struct Image {
    /// The platform that it is for.
    pub platform: Platform,
    /// Its manifest.
    pub manifest: Blob,
    /// Its config.
    pub config: Blob,
    /// Its layers, the base's first.
    pub layers: Vec<LayerBlob>,
}

impl Image {
    /// All its blobs in the order in which they should be stored: what refers to others comes last.
    pub fn blobs(&self) -> impl Iterator<Item = &Blob> {
        self.layers.iter().map(|layer| &layer.blob).chain([&self.config, &self.manifest])
    }

    /// The number of bytes of all its blobs.
    pub fn size(&self) -> u64 {
        self.blobs().map(|blob| blob.size).sum()
    }

    /// The descriptor of its manifest, with the platform, as indexes list it.
    pub(super) fn descriptor(&self) -> Result<Descriptor> {
        platform_entry(&self.manifest, &self.platform)
    }
}

/// The descriptor of a manifest with its platform, as indexes list it.
///
/// # Errors
/// Never for real digests.
pub fn platform_entry(manifest: &Blob, platform: &Platform) -> Result<Descriptor> {
    let mut builder = PlatformBuilder::default().os(Os::Linux).architecture(Arch::from(platform.architecture));
    if let Some(variant) = &platform.variant {
        builder = builder.variant(variant.clone());
    }
    let platform = builder.build().map_err(|error| Error::bug("a platform cannot be made").caused_by(error))?;
    let mut descriptor = descriptor(manifest)?;
    descriptor.set_platform(Some(platform));
    Ok(descriptor)
}

/// Makes the config and the manifest of an image.
///
/// Of the base's config are kept: variables, labels (but those that speak of the base itself), working folder,
/// stop signal, ports, volumes, history. Where the base has a name, `org.opencontainers.image.base.*` say so
/// in labels and annotations, unless the caller set them.
///
/// # Errors
/// When there are more layers than Docker takes; a time that no calendar has.
pub fn assemble(assembly: Assembly<'_>) -> Result<Image> {
    let count = assembly.base.layers.len() + assembly.layers.len();
    if count > MAX_IMAGE_LAYERS {
        return Err(Error::user(format!(
            "the image would have {count} layers; Docker takes {MAX_IMAGE_LAYERS} at most"
        ))
        .hint("lower `--max-layers`, or choose a base with fewer layers"));
    }
    let config = Blob::from_bytes(media::CONFIG, canonical(&config(&assembly)?)?);
    let mut layers = assembly.base.layers.clone();
    layers.extend(assembly.layers);
    let annotations = with_base(assembly.annotations, assembly.base);
    let manifest = Blob::from_bytes(media::MANIFEST, manifest(&config, &layers, annotations)?);
    Ok(Image { platform: assembly.platform.clone(), manifest, config, layers })
}

fn config(assembly: &Assembly<'_>) -> Result<ImageConfiguration> {
    let base = &assembly.base.config;
    let created = created(assembly.created)?;
    let mut config = ImageConfiguration::default();
    config.set_created(Some(created.clone()));
    config.set_architecture(Arch::from(assembly.platform.architecture)).set_os(Os::Linux);
    config.set_variant(assembly.platform.variant.clone().or_else(|| base.variant().clone()));
    config.set_config(Some(execution(assembly)));
    let layers = assembly.base.layers.iter().chain(&assembly.layers);
    let diff_ids: Vec<String> = layers.map(|layer| layer.diff_id.to_string()).collect();
    let rootfs = RootFsBuilder::default().typ("layers").diff_ids(diff_ids).build();
    config.set_rootfs(rootfs.map_err(|error| Error::bug("a rootfs cannot be made").caused_by(error))?);
    let base_layers = assembly.base.layers.len();
    let history = history::history(base.history().as_deref(), base_layers, &assembly.layers, &created)?;
    config.set_history(Some(history));
    Ok(config)
}

/// What a runtime does with the image.
fn execution(assembly: &Assembly<'_>) -> Config {
    let base = assembly.base.config.config().clone().unwrap_or_default();
    let mut config = Config::default();
    let of_base = environment::without(base.env().as_deref().unwrap_or_default(), &assembly.removed);
    config.set_env(Some(environment::variables(&of_base, &assembly.env, &assembly.path_prefix)));
    config.set_user(Some(assembly.user.to_string()));
    config.set_entrypoint(assembly.entrypoint.clone()).set_cmd(assembly.cmd.clone());
    config.set_working_dir(assembly.workdir.clone().or_else(|| base.working_dir().clone().filter(|it| !it.is_empty())));
    config.set_labels(labels(base.labels().as_ref(), assembly));
    config.set_stop_signal(base.stop_signal().clone());
    config.set_exposed_ports(base.exposed_ports().clone().filter(|ports| !ports.is_empty()));
    config.set_volumes(base.volumes().clone().filter(|volumes| !volumes.is_empty()));
    config
}

fn labels(base: Option<&HashMap<String, String>>, assembly: &Assembly<'_>) -> Option<HashMap<String, String>> {
    let mut labels = base.cloned().unwrap_or_default();
    labels.retain(|name, _| !OF_THE_BASE.contains(&name.as_str()));
    labels.extend(with_base(assembly.labels.clone(), assembly.base));
    Some(labels).filter(|labels| !labels.is_empty())
}

/// Adds what the base is called and its digest, unless it has no name or the caller said something else.
fn with_base(mut annotations: BTreeMap<String, String>, base: &Base) -> BTreeMap<String, String> {
    if base.reference.is_empty() {
        return annotations;
    }
    let name = annotations.entry(BASE_NAME.to_owned()).or_insert_with(|| base.reference.clone());
    // The digest would be wrong of another name.
    if name.split('@').next() == Some(base.reference.as_str()) {
        annotations.entry(BASE_DIGEST.to_owned()).or_insert_with(|| base.digest.to_string());
    }
    annotations
}

/// The bytes of a manifest.
pub(super) fn manifest(config: &Blob, layers: &[LayerBlob], annotations: BTreeMap<String, String>) -> Result<Vec<u8>> {
    let layers = layers.iter().map(|layer| {
        let mut descriptor = descriptor(&layer.blob)?;
        if !layer.annotations.is_empty() {
            descriptor.set_annotations(Some(layer.annotations.clone().into_iter().collect()));
        }
        Ok(descriptor)
    });
    let mut manifest = ImageManifestBuilder::default()
        .schema_version(SCHEMA_VERSION)
        .media_type(MediaType::ImageManifest)
        .config(descriptor(config)?)
        .layers(layers.collect::<Result<Vec<_>>>()?);
    if !annotations.is_empty() {
        manifest = manifest.annotations(annotations.into_iter().collect::<HashMap<_, _>>());
    }
    canonical(&manifest.build().map_err(|error| Error::bug("a manifest cannot be made").caused_by(error))?)
}

/// The descriptor of a blob: type, digest, size.
pub(super) fn descriptor(blob: &Blob) -> Result<Descriptor> {
    let digest: OciDigest = blob
        .digest
        .to_string()
        .parse()
        .map_err(|error: oci_spec::OciSpecError| Error::bug("a digest is not one to oci-spec").caused_by(error))?;
    Ok(Descriptor::new(MediaType::from(blob.media_type.as_str()), blob.size, digest))
}

/// RFC 3339, UTC, whole seconds.
fn created(seconds: i64) -> Result<String> {
    let time = Timestamp::from_second(seconds)
        .map_err(|error| Error::user(format!("{seconds} seconds since 1970 is no usable time")).caused_by(error))?;
    Ok(time.to_string())
}
