//! Built wheels in one form: what differs between two builds for no reason (times, order, compression) is made equal,
//! so that two machines get one hash.

use std::io;
use std::path::Path;

use fs_err as fs;
use zip::write::SimpleFileOptions;

use crate::util::{Error, Result};

/// Files that are larger need the long form of a zip.
const LARGE: u64 = u32::MAX as u64 / 2;

/// Writes a wheel anew: entries by name, without folders, uncompressed, of 1980, with the modes 0644 or 0755.
///
/// # Errors
/// When the wheel is no zip.
pub(super) fn canonical(wheel: &Path, writer: impl io::Write + io::Seek) -> Result<()> {
    let broken = |error: zip::result::ZipError| {
        Error::user(format!("the wheel `{}` that was built is damaged", wheel.display())).caused_by(error)
    };
    let mut archive = zip::ZipArchive::new(io::BufReader::new(fs::File::open(wheel)?)).map_err(broken)?;
    let names = archive.file_names().map(|name| Ok(name.map_err(broken)?.into_owned()));
    let mut names = names.collect::<Result<Vec<String>>>()?;
    names.retain(|name| !name.ends_with('/'));
    names.sort();
    let mut output = zip::ZipWriter::new(writer);
    for name in names {
        let mut entry = archive.by_name(&name).map_err(broken)?;
        let executable = entry.unix_mode().is_some_and(|mode| mode & 0o100 != 0);
        let options = SimpleFileOptions::default()
            .compression_method(zip::CompressionMethod::Stored)
            .last_modified_time(zip::DateTime::default())
            .large_file(entry.size() > LARGE)
            .unix_permissions(if executable { 0o755 } else { 0o644 });
        output.start_file(name, options).map_err(broken)?;
        io::copy(&mut entry, &mut output)?;
    }
    output.finish().map_err(broken)?.flush()?;
    Ok(())
}
