//! From base and layers to an image, and from there to files: bases in, the config and manifest assembled,
//! OCI layouts and archives out. It knows nothing of conda; where blobs lie in a registry it learns through
//! [`Fetch`].
//!
//! ```text
//! BaseRef ──open──▶ Base ──probe──▶ BaseFacts
//!                    │
//!            layers ─┴─assemble──▶ Image ──localise──▶ write_layout · write_oci_archive · write_docker_archive
//!                                                         write_load_archive · link_layout
//! ```

mod archive;
mod artifact;
mod assemble;
mod base;
mod codec;
mod copy;
mod docker_archive;
mod environment;
mod fetch;
mod history;
mod index;
mod json;
mod layout;
mod load;
mod localise;
mod media;
mod output;
mod probe;
mod reader;
mod unused;

pub use archive::{write_oci_archive, write_oci_archive_of};
pub use artifact::{Artifact, ArtifactFile, artifact, lone_artifact};
pub use assemble::{Assembly, Image, assemble, platform_entry};
pub use base::{Base, Documents, check_size, choose, open, open_image};
pub use codec::diff_id;
pub use docker_archive::write_docker_archive;
pub use environment::{path, variable_names, variable_of};
pub use fetch::{Fetch, Fetched, Offline};
pub use index::{documents, image_index};
pub use layout::{layout_has, write_layout, write_layout_of};
pub use load::{link_layout, write_load_archive};
pub use localise::{from_store, localise};
pub use media::{INDEX, MANIFEST, is_index};
pub use output::{Contents, Written};
pub use probe::{
    Obstacle, Selection, Tree, is_at_hand, is_tree_at_hand, is_tree_remembered, probe, probe_files, probe_tree,
};
pub use reader::LayoutReader;
pub use unused::{Unused, remove_unused_blobs, unused_blobs};
