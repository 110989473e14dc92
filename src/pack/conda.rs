//! The zip of a `.conda`: two tars and the version of the format, each once. Two readers of a zip that has an entry
//! twice take different ones.

use std::io::{Read, Seek};

use serde::Deserialize;
use zip::ZipArchive;

use super::archive::Archive;
use crate::util::{Error, Result};

/// The version of the format that is known.
const VERSION: u64 = 2;
/// Bytes of `metadata.json` that are read.
const LONGEST: u64 = 64 << 10;
/// Entries that such a zip may have: three, and what later versions of tools may add.
const MOST_ENTRIES: usize = 100;

/// `metadata.json`.
#[derive(Deserialize)]
struct Metadata {
    conda_pkg_format_version: u64,
}

/// Refuses a zip that is no `.conda` of the known version, or that is ambiguous.
///
/// # Errors
/// What is wrong with it; what is damaged.
pub(super) fn check(archive: &Archive, reader: impl Read + Seek) -> Result<()> {
    let mut zip = ZipArchive::new(reader).map_err(|error| archive.broken(error))?;
    let names: Vec<String> =
        zip.file_names().map(|name| name.map(|name| name.into_owned()).unwrap_or_default()).collect();
    if zip.len() > MOST_ENTRIES {
        return Err(archive.unsupported(&format!("its zip has {} entries, more than {MOST_ENTRIES}", zip.len())));
    }
    let is = |name: &str, part: &str| name.starts_with(part) && name.ends_with(".tar.zst");
    let count = |part: &str| names.iter().filter(|name| is(name, part)).count();
    if zip.has_duplicate_names() || ["info-", "pkg-"].iter().any(|part| count(part) > 1) {
        return Err(archive.unsupported("its zip holds an entry twice"));
    }
    if !names.iter().any(|name| name == "metadata.json") {
        return Ok(());
    }
    let mut text = Vec::new();
    let entry = zip.by_name("metadata.json").map_err(|error| archive.broken(error))?;
    entry.take(LONGEST).read_to_end(&mut text).map_err(|error| archive.broken(error))?;
    let said: Metadata = serde_json::from_slice(&text)
        .map_err(|error| archive.broken(Error::user("failed to read its `metadata.json`").caused_by(error)))?;
    match said.conda_pkg_format_version {
        VERSION => Ok(()),
        other => Err(archive.unsupported(&format!("it has version {other} of the format, expected {VERSION}"))),
    }
}
