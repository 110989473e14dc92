//! The zip of a wheel as a list of checked entries, and their content as streams.
//!
//! Two readers of one zip must not see different files (that is how scanners are deceived), so what is ambiguous is
//! refused: names that are there twice, local headers that contradict the central directory or are not in it,
//! overlapping entries, bytes before the first one. Wheels use two methods of compression and no encryption.
//!
//! # Bounds
//! The central directory says how large everything is before a byte is unpacked, and an entry never yields more than
//! it says. A wheel may hold as much as it likes up to [`ALWAYS_FINE`] bytes; beyond, up to [`LARGEST_RATIO`] times
//! its own size (compressed text reaches 10, a library of zeros 1000); never more than [`LARGEST_WHOLE`] (the largest
//! wheels known are those of PyTorch, with 3 GB) in [`Limit::WheelEntries`] files (`ansible` has 40,000).

use std::collections::BTreeMap;
use std::io::{BufReader, Read};

use fs_err::File;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use zip::extra_fields::ExtraField;
use zip::{CompressionMethod, ZipArchive};

use super::WheelFile;
use crate::pack::entry_path::safe_path;
use crate::util::error::is_resource;
use crate::util::report::{Progress, Silent};
use crate::util::{Error, Limit, Result};

/// Bytes that any wheel may hold, however small it is.
const ALWAYS_FINE: u64 = 1 << 30;
/// How many times its own size a wheel may hold beyond [`ALWAYS_FINE`].
const LARGEST_RATIO: u64 = 100;
/// What no wheel may hold.
const LARGEST_WHOLE: u64 = 64 << 30;

/// 1980-01-01, the first day of a zip's calendar: for entries whose time is none.
const FIRST_MTIME: u64 = 315_532_800;

/// Enough for a header and the beginning of a small file: most of what is read is sought for.
const BUFFER: usize = 8 << 10;

/// The kind of file in Unix attributes, and two of its values.
const KIND: u32 = 0o170_000;
const REGULAR: u32 = 0o100_000;
const FOLDER: u32 = 0o040_000;

/// One checked file of a wheel.
#[derive(Debug, Clone)]
pub struct ZipEntry {
    index: usize,
    compressed: u64,
    /// Number of content bytes.
    pub size: u64,
    /// Whether anybody may execute it.
    pub executable: bool,
    /// Seconds since 1970, the entry's time taken as UTC.
    pub mtime: u64,
}

/// The zip of a wheel.
pub struct WheelZip {
    wheel: WheelFile,
    archive: ZipArchive<BufReader<File>>,
    /// By path; folders are not here.
    entries: BTreeMap<String, ZipEntry>,
}

impl WheelZip {
    /// Opens a wheel and looks at every entry.
    ///
    /// # Errors
    /// What is damaged or hostile, named.
    pub fn open(wheel: &WheelFile) -> Result<Self> {
        let file = File::open(&wheel.path)?;
        let wheel_size = file.metadata()?.len();
        let reader = BufReader::with_capacity(BUFFER, file);
        let archive = ZipArchive::new(reader).map_err(|error| wheel.broken(error))?;
        let mut zip = Self { wheel: wheel.clone(), archive, entries: BTreeMap::new() };
        zip.check_bounds(wheel_size)?;
        zip.check_structure()?;
        zip.collect()?;
        Ok(zip)
    }

    /// Its files by path.
    pub fn entries(&self) -> &BTreeMap<String, ZipEntry> {
        &self.entries
    }

    /// The wheel.
    pub fn wheel(&self) -> &WheelFile {
        &self.wheel
    }

    /// The content of a small file; nothing when the wheel does not hold it.
    ///
    /// # Errors
    /// Damaged wheels, and files too large to be what they should.
    pub fn read(&mut self, path: &str) -> Result<Option<Vec<u8>>> {
        let Some(entry) = self.entries.get(path).cloned() else { return Ok(None) };
        if entry.size > Limit::WheelMetadata.value() {
            return Err(self
                .wheel
                .over(Limit::WheelMetadata, &format!("`{path}` has {} bytes, more than", entry.size)));
        }
        let mut content = Vec::with_capacity(entry.size as usize);
        self.stream(path, &entry, &Silent, |reader| Ok(reader.read_to_end(&mut content).map(|_| ())?))?;
        Ok(Some(content))
    }

    /// Gives the content of an entry to `visit`, which must read it to its end. `progress` advances by the bytes
    /// that the entry has in the wheel.
    ///
    /// # Errors
    /// Those of `visit`; an entry that is damaged, or has another size than it says.
    pub fn stream<T>(
        &mut self,
        path: &str,
        entry: &ZipEntry,
        progress: &dyn Progress,
        visit: impl FnOnce(&mut dyn Read) -> Result<T>,
    ) -> Result<T> {
        let raw = self.archive.by_index(entry.index).map_err(|error| self.wheel.broken(error))?;
        let mut reader = EntryReader { wheel: &self.wheel, path, entry, raw, taken: 0, told: 0, progress };
        let result = visit(&mut reader)?;
        reader.tell(entry.compressed);
        Ok(result)
    }

    fn check_bounds(&self, wheel_size: u64) -> Result<()> {
        if self.archive.len() > Limit::WheelEntries.count() {
            let what = format!("it has {} files, more than", self.archive.len());
            return Err(self.wheel.over(Limit::WheelEntries, &what));
        }
        let mut total: u64 = 0;
        for index in 0..self.archive.len() {
            let entry = self.archive.by_index_data(index).map_err(|error| self.wheel.broken(error))?;
            total = total.saturating_add(entry.size());
        }
        let allowed = ALWAYS_FINE.max(wheel_size.saturating_mul(LARGEST_RATIO)).min(LARGEST_WHOLE);
        if total > allowed {
            let what = format!("its {wheel_size} bytes would become {total}, at most {allowed} are taken");
            return Err(self.wheel.hostile(&what));
        }
        Ok(())
    }

    fn check_structure(&mut self) -> Result<()> {
        if self.archive.has_duplicate_names() {
            return Err(self.wheel.hostile("it holds a file twice"));
        }
        let starts =
            (0..self.archive.len()).filter_map(|index| Some(self.archive.by_index_data(index).ok()?.header_start()));
        if starts.min().is_some_and(|first| first != 0) {
            return Err(self.wheel.hostile("it begins with bytes that are no part of the zip"));
        }
        self.archive.validate_header_consistency().map_err(|error| {
            self.wheel.hostile("its zip says different things of the same file in two places").caused_by(error)
        })
    }

    fn collect(&mut self) -> Result<()> {
        for index in 0..self.archive.len() {
            let entry = self.archive.by_index_raw(index).map_err(|error| self.wheel.broken(error))?;
            let name = entry.name().map_err(|error| self.wheel.broken(error))?.into_owned();
            let hostile = |what: &str| Err(self.wheel.hostile(&format!("`{}` {what}", name.escape_debug())));
            if entry.extra_data_fields().any(|field| matches!(field, ExtraField::UnicodePath(_))) {
                return hostile("has a second name");
            }
            if entry.encrypted() {
                return hostile("is encrypted");
            }
            if !matches!(entry.compression(), CompressionMethod::Stored | CompressionMethod::Deflated) {
                return hostile(&format!("is packed by a method that wheels do not use ({})", entry.compression()));
            }
            let attributes = entry.external_attributes() >> 16;
            let is_folder = name.ends_with('/');
            match attributes & KIND {
                0 | REGULAR => {}
                FOLDER if is_folder => {}
                _ => return hostile("is no regular file: wheels cannot hold links or devices"),
            }
            let path = safe_name(&name).map_err(|error| self.wheel.hostile(&error))?;
            if is_folder {
                continue;
            }
            let checked = ZipEntry {
                index,
                compressed: entry.compressed_size(),
                size: entry.size(),
                executable: attributes & 0o111 != 0,
                mtime: entry.last_modified().and_then(seconds).unwrap_or(FIRST_MTIME),
            };
            if self.entries.insert(path, checked).is_some() {
                return hostile("is there twice");
            }
        }
        Ok(())
    }
}

/// The path of an entry: relative, in normal form already, without what other systems take for more than a name.
fn safe_name(name: &str) -> Result<String, String> {
    let shown = name.escape_debug();
    let path = safe_path(name)?;
    if path != name.strip_suffix('/').unwrap_or(name) || path.is_empty() {
        return Err(format!("`{shown}` is no plain path"));
    }
    if path.contains('\\') {
        return Err(format!("`{shown}` holds a backslash"));
    }
    let is_drive =
        |part: &str| part.len() >= 2 && part.as_bytes()[1] == b':' && part.as_bytes()[0].is_ascii_alphabetic();
    if path.split('/').next().is_some_and(is_drive) {
        return Err(format!("`{shown}` begins with a drive letter"));
    }
    // Whiteouts (image-spec, layer.md).
    if path.split('/').any(|part| part.starts_with(".wh.")) {
        return Err(format!("`{shown}` would remove files from the image"));
    }
    Ok(path)
}

/// A zip's local time without a zone, taken as UTC: the same on every machine.
fn seconds(time: zip::DateTime) -> Option<u64> {
    let field = |value: u8| i8::try_from(value).ok();
    let year = i16::try_from(time.year()).ok()?;
    let (month, day) = (field(time.month())?, field(time.day())?);
    let (hour, minute, second) = (field(time.hour())?, field(time.minute())?, field(time.second())?);
    let time = DateTime::new(year, month, day, hour, minute, second.min(59), 0).ok()?;
    u64::try_from(time.to_zoned(TimeZone::UTC).ok()?.timestamp().as_second()).ok()
}

/// The content of one entry. Its errors say that the wheel is damaged, so that they are not taken for those of where
/// the content goes; an end before or after the promised size is one.
struct EntryReader<'a, R> {
    wheel: &'a WheelFile,
    path: &'a str,
    entry: &'a ZipEntry,
    raw: R,
    taken: u64,
    told: u64,
    progress: &'a dyn Progress,
}

impl<R> EntryReader<'_, R> {
    /// Tells that so many compressed bytes were read in all.
    fn tell(&mut self, compressed: u64) {
        self.progress.advance(compressed.saturating_sub(self.told));
        self.told = self.told.max(compressed);
    }

    fn failed(&self, error: std::io::Error) -> std::io::Error {
        if is_resource(&error) { error } else { self.broken(error) }
    }

    fn broken(&self, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> std::io::Error {
        let error = Error::user(format!("`{}` cannot be unpacked", self.path)).caused_by(error);
        self.wheel.broken(error).into()
    }
}

impl<R: Read> Read for EntryReader<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let size = self.entry.size;
        match self.raw.read(buffer) {
            Ok(0) if !buffer.is_empty() && self.taken < size => {
                Err(self.broken(format!("it ends after {} of {size} bytes", self.taken)))
            }
            Ok(count) => {
                self.taken += count as u64;
                if self.taken > size {
                    return Err(self.broken(format!("it has more than the {size} bytes that it says")));
                }
                let share = self.entry.compressed as u128 * self.taken as u128 / u128::from(size.max(1));
                self.tell(share as u64);
                Ok(count)
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => Err(error),
            Err(error) => Err(self.failed(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_names_are_taken() {
        assert_eq!(safe_name("foo/__init__.py").as_deref(), Ok("foo/__init__.py"));
        assert_eq!(safe_name("foo/").as_deref(), Ok("foo"));
        assert_eq!(safe_name("a:b/c:"), Err("`a:b/c:` begins with a drive letter".to_owned()));
        assert_eq!(safe_name("foo/a:b").as_deref(), Ok("foo/a:b"));
        for hostile in [
            "/etc/passwd",
            "../x",
            "foo/../x",
            "foo/..",
            "./x",
            "foo//x",
            "foo\\x",
            "..\\x",
            "C:/x",
            "C:x",
            "a\0b",
            "",
            "/",
            "foo/.wh.x",
            ".wh..wh..opq",
            ".",
        ] {
            assert!(safe_name(hostile).is_err(), "{hostile:?}");
        }
    }

    #[test]
    fn times_are_utc() {
        let time = zip::DateTime::from_date_and_time(2020, 9, 13, 12, 26, 40).expect("a time");
        assert_eq!(seconds(time), Some(1_600_000_000));
        assert_eq!(seconds(zip::DateTime::default()), Some(FIRST_MTIME));
    }
}
