//! Shipping: images, and whatever else layouts and registries hold, to where they are wanted. It knows nothing of
//! conda.

mod places;
mod push;

pub use push::{Delivered, Pusher};
