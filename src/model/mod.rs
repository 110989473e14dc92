//! The plain values that travel between the rooms. Nothing here does I/O.

mod base;
mod blob;
mod compression;
mod cutoff;
pub mod git;
mod parameters;
mod platform;
mod prefix;
mod project;
pub mod pyc;
mod role;
mod stability;
mod tags;
mod virtual_packages;

pub(crate) use base::LINKS;
pub use base::{BaseFacts, BaseRef, FolderFacts, Folders};
pub use blob::{Blob, BlobSource, LAYER_KEY, LAYER_NAME, LAYER_PACKAGES, LAYER_ROLE, LAYER_TIER, LayerBlob};
pub use compression::Compression;
pub use cutoff::Cutoff;
pub use parameters::{
    ImageOptions, LONGEST_VARIABLE, Parameters, User, is_shell_name, is_variable_name, longest_value, variable_fits,
    workdir,
};
pub use platform::Platform;
pub use prefix::{ENGINES_OWN, is_engines_own, prefix};
pub use project::ProjectCopy;
pub use role::LayerRole;
pub use stability::Stability;
pub use tags::{Flavour, Tag, TargetPython, WheelName, check_fit, compatible_tags, rank};
pub use virtual_packages::flag_for_virtual_package;

/// The version of the digest contract: part of every key and a label of the image. Raised whenever the bytes of
/// a layer, config or manifest change for the same lock and parameters.
pub const LAYOUT_VERSION: u32 = 2;

/// Where the environment lies in every image unless told otherwise. Below an `envs` folder, because scanners
/// look for `envs/*/conda-meta`; the same everywhere, so that images share layers.
pub const DEFAULT_PREFIX: &str = "/opt/conda/envs/default";

/// The fewest layers that an image can have above its base: packages and the environment layer.
pub const MIN_LAYERS: usize = 2;
/// The most layers that an image may have above its base, so that images on top of it stay below [`MAX_IMAGE_LAYERS`]
/// and the about 70 with which BuildKit can still mount one.
pub const MAX_LAYERS: usize = 64;
/// The most layers of an image, its base's included: Docker refuses more (moby's `maxLayerDepth`); overlayfs mounts 127.
pub const MAX_IMAGE_LAYERS: usize = 125;
