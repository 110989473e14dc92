//! What every room uses: errors, limits, digests, canonical JSON, atomic files, tars, redaction, reporting.

pub mod digest;
pub mod entries;
pub mod error;
pub mod files;
pub mod json;
pub mod limits;
pub mod near;
pub mod parallel;
pub mod paths;
pub mod python;
pub mod redact;
pub mod report;
mod size;
pub mod tarball;
pub mod text;
pub mod tree;
pub mod variables;
pub mod yaml;

pub use digest::{DiffId, Digest, Hasher};
pub use error::{Error, ErrorKind, Result, ResultExt};
pub use limits::Limit;
pub use parallel::parallel;
pub use size::human;

/// A number and what it counts: `1 package`, `2 packages`, `3 dependencies`.
pub(crate) fn plural(count: usize, noun: &str) -> String {
    let stem = noun.strip_suffix('y').filter(|stem| !stem.ends_with(['a', 'e', 'o', 'u']));
    match (count, stem) {
        (1, _) => format!("1 {noun}"),
        (_, Some(stem)) => format!("{count} {stem}ies"),
        (_, None) => format!("{count} {noun}s"),
    }
}
