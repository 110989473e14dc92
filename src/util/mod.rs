//! What every room uses: errors, digests, canonical JSON, atomic files, redaction, reporting.

pub mod digest;
pub mod error;
pub mod files;
pub mod json;
pub mod redact;
pub mod report;

pub use digest::{DiffId, Digest, Hasher};
pub use error::{Error, ErrorKind, Result, ResultExt};
