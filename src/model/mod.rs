//! The plain values that travel between the rooms. Nothing here does I/O.

mod base;
mod blob;
mod compression;
mod cutoff;
mod declare;
mod parameters;
mod platform;
mod prefix;
mod project;
mod stability;
mod tags;

pub use base::{BaseFacts, BaseRef, FolderFacts};
pub use blob::{Blob, BlobSource, LAYER_KEY, LayerBlob};
pub use compression::Compression;
pub use cutoff::Cutoff;
pub use declare::{how_to_declare, virtual_packages_in};
pub use parameters::{ImageOptions, Parameters, User};
pub use platform::Platform;
pub use prefix::{ENGINES_OWN, prefix};
pub use project::ProjectCopy;
pub use stability::Stability;
pub use tags::{Flavour, Tag, TargetPython, WheelName, check_fit, compatible_tags, rank};

/// The version of the digest contract: part of every key and a label of the image. Raised whenever the bytes of
/// a layer, config or manifest change for the same lock and parameters.
pub const LAYOUT_VERSION: u32 = 2;

/// Where the environment lies in every image unless told otherwise. Below an `envs` folder, because scanners
/// look for `envs/*/conda-meta`; the same everywhere, so that images share layers.
pub const DEFAULT_PREFIX: &str = "/opt/conda/envs/default";

/// The fewest layers that an image can have above its base: packages and the environment layer.
pub const MIN_LAYERS: usize = 2;
/// The most layers that an image may have above its base, so that images on top of it stay below the 127 of overlayfs
/// and the about 70 with which BuildKit can still mount one.
pub const MAX_LAYERS: usize = 64;
