//! Shipping: images, and whatever else layouts and registries hold, to where they are wanted: registries, layouts,
//! archives, container engines. It knows nothing of conda.

mod attach;
mod attached;
mod catalog;
mod content;
mod copy;
mod engine;
mod merge;
mod places;
mod push;
mod source;

pub use attach::attach;
pub use attached::attached;
pub use catalog::{
    Catalog, CatalogWriter, Entry, Found, NewEntry, Noted, RemoteLayer, arriving, document, new_document,
};
pub use copy::{Carrier, Copied, CopyOptions, Destination};
pub use engine::{Engine, Intake};
pub use push::{Delivered, Lost, Pusher};
