//! What of a project goes into an image beside its packages.

use std::path::PathBuf;

/// A file or folder of this machine and its place in the image (`--copy SRC:DST`, an entry of `project:`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProjectCopy {
    /// The file or folder, relative to the working folder.
    pub from: PathBuf,
    /// The place, absolute. What a folder holds goes *into* it; a file becomes it, unless it ends with a slash.
    pub to: String,
}
