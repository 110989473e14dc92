//! Packing: from archives in the store to layer blobs. It knows neither registries nor policies.

pub mod account;
pub mod activation;
pub mod archive;
pub mod bytecode;
mod codec;
pub mod collisions;
pub mod compress;
mod conda;
pub mod content;
pub mod environment;
pub mod facts;
mod findings;
pub mod layer;
pub mod layout;
mod login;
pub mod metadata;
mod pax;
mod permits;
mod prefix;
pub mod project;
mod pypi;
mod record;
mod reuse;
pub mod segment;
mod shipped;
pub mod transcode;
pub mod wheel;

pub use archive::{Archive, archive_at};
pub use compress::{Compressors, LayerDigests, codec_id};
pub use findings::Findings;
pub use layer::{ForeignInterpreter, Packer, PackerOptions};
pub use metadata::ModePolicy;
pub use reuse::KnownSegment;
pub use segment::Target;
pub use transcode::transcode;
pub use wheel::WheelFile;
