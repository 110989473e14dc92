//! Wheels (PyPA's binary distribution format, PEP 427): read as strangers' archives, and written straight from the
//! zip to where an installer would put their files. Nothing of a wheel is executed.
//!
//! A wheel is believed only as far as it proves itself: its file name, the name of its one `.dist-info` folder and
//! its METADATA must agree; every file must have the hash that RECORD gives; central directory and local headers of
//! the zip must say the same.

mod bytecode;
mod checks;
mod elf;
mod facts;
mod installed;
mod layout;
mod metadata;
mod names;
mod record;
mod segment;
mod zip;

use std::path::PathBuf;

pub use bytecode::{modules, sources};
pub use checks::check_tags;
pub use elf::check_machine_code;
pub use facts::{WheelReading, join, read, reading_key};
pub use installed::installed_files;
pub use layout::{LaidEntry, WheelLayout, need_python};
pub use metadata::{WheelMetadata, read_metadata};
pub use names::{normalise_name, same_version};
pub use record::Expected;
pub use segment::write;
pub use zip::{WheelZip, ZipEntry};

use crate::util::{Error, Limit};

/// A wheel on this machine.
#[derive(Debug, Clone)]
pub struct WheelFile {
    /// Where it lies.
    pub path: PathBuf,
    /// Its file name, which says what it is; in the store it has another one.
    pub name: String,
}

impl WheelFile {
    /// An error about a wheel that is not what it says.
    pub fn broken(&self, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
        Error::user(format!("the wheel `{}` is damaged (`{}`)", self.name, self.path.display()))
            .hint("the index serves it so, or the cache's disk is failing: tell the project's maintainers, or remove the file and try again")
            .caused_by(error)
    }

    /// An error about a wheel that is well made, and holds what an image cannot hold.
    pub fn unsupported(&self, what: &str) -> Error {
        Error::user(format!("the wheel `{}` is refused: {what}", self.name))
            .hint("take another version of it, or tell the project's maintainers")
    }

    /// An error about a wheel that is over a limit; `what` as in [`Limit::exceeded`].
    pub fn over(&self, limit: Limit, what: &str) -> Error {
        limit.exceeded(&format!("the wheel `{}` is refused: {what}", self.name))
    }

    /// An error about a wheel that must not be packed.
    pub fn hostile(&self, what: &str) -> Error {
        Error::user(format!("the wheel `{}` is refused: {what}", self.name))
            .hint("no honest tool makes such a wheel: it could write outside of the environment, or hide what it brings; tell the index's owner")
    }
}
