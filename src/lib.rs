//! condaimg: a daemonless OCI image builder for layered conda environments.
//!
//! One line runs through the library; each stop is a plain value, each arrow one module:
//!
//! ```text
//! Spec ──resolve──▶ Lock ──plan──▶ LayerPlan ──pack──▶ Layers ──image──▶ Image ──▶ layout · archive · registry
//! ```
//!
//! From the [`lock::Lock`] and the build's [`model::Parameters`] onwards everything is a pure function: the
//! same bytes come out on every machine. Library code never prints; it reports through
//! [`util::report::Reporter`].

pub mod cli;
mod http;
pub mod image;
pub mod lock;
pub mod model;
pub mod pack;
pub mod plan;
pub mod registry;
pub mod resolve;
pub mod sandbox;
pub mod ship;
pub mod spec;
pub mod store;
pub mod util;
