//! What this room needs of a registry.

use std::path::PathBuf;

use futures::FutureExt as _;
use futures::future::BoxFuture;

use crate::util::{Digest, Error, Result};

/// A manifest or index as a registry served it.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// The bytes, exactly as served.
    pub bytes: Vec<u8>,
    /// Their digest as the registry stated it, or as computed where it stated none.
    pub digest: Digest,
    /// The `Content-Type` of the answer.
    pub media_type: String,
}

/// Reads from a registry; implemented over the registry client.
pub trait Fetch: Send + Sync {
    /// The manifest or index under a reference (`HOST/REPOSITORY[:TAG][@DIGEST]`).
    fn manifest<'a>(&'a self, reference: &'a str) -> BoxFuture<'a, Result<Fetched>>;

    /// Brings a blob of the reference's repository into the store, verified, unless it is there already.
    /// `size` is in bytes.
    fn blob<'a>(&'a self, reference: &'a str, digest: &'a Digest, size: u64) -> BoxFuture<'a, Result<PathBuf>>;
}

/// Refuses everything: for work that may not use the network.
#[derive(Debug, Default, Clone, Copy)]
pub struct Offline;

impl Fetch for Offline {
    fn manifest<'a>(&'a self, reference: &'a str) -> BoxFuture<'a, Result<Fetched>> {
        async move { Err(refused(reference)) }.boxed()
    }

    fn blob<'a>(&'a self, reference: &'a str, _digest: &'a Digest, _size: u64) -> BoxFuture<'a, Result<PathBuf>> {
        async move { Err(refused(reference)) }.boxed()
    }
}

fn refused(reference: &str) -> Error {
    Error::user(format!("`{reference}` is in a registry, and the network may not be used"))
        .hint("leave out `--offline`, or give the base as `oci:FOLDER`")
}
