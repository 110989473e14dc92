//! What every room uses: errors, digests, canonical JSON, atomic files, tars, redaction, reporting.

pub mod digest;
pub mod error;
pub mod files;
pub mod json;
pub mod near;
pub mod parallel;
pub mod paths;
pub mod redact;
pub mod report;
pub mod tarball;

pub use digest::{DiffId, Digest, Hasher};
pub use error::{Error, ErrorKind, Result, ResultExt};
pub use parallel::parallel;

/// A number and what it counts: `1 package`, `2 packages`.
pub(crate) fn plural(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}
