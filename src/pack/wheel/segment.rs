//! Packing one wheel: its zip streamed into tar entries at their place in the image, in the order of their paths,
//! then the new RECORD.

use std::io::Read;

use rattler::install::{PythonInfo, python_entry_point_template};

use super::layout::{LaidEntry, WheelLayout, need_python};
use super::record::{NewRecord, Verifier};
use super::{WheelFile, WheelZip};
use crate::lock::LockedWheel;
use crate::model::pyc::Stamp;
use crate::pack::content::{Hashed, Sink};
use crate::pack::layout::ancestors;
use crate::pack::segment::Target;
use crate::util::report::Progress;
use crate::util::tarball::{self, TarKind};
use crate::util::{Digest, Error, Hasher, Limit, Result};

/// How scripts begin whose interpreter is put in: `#!python`, `#!pythonw`, and what follows on their line.
const PLACEHOLDER: &[u8] = b"#!python";

/// The longest first line of a script, in bytes.
const LONGEST_LINE: u64 = 64 << 10;

/// Writes one wheel's segment to `out`; `progress` advances by the bytes of the wheel.
///
/// # Errors
/// Damaged and hostile wheels, named; those of the writer.
pub fn write(
    out: &mut impl Sink,
    wheel: &WheelFile,
    locked: &LockedWheel,
    layout: &WheelLayout,
    target: &Target,
    progress: &dyn Progress,
) -> Result<()> {
    let python = need_python(target.python.as_ref(), &locked.name)?;
    let mut zip = WheelZip::open(wheel)?;
    let mut writer =
        SegmentWriter { out, wheel, target, python, site_packages: python.site_packages_path.display().to_string() };
    let mut record = NewRecord::default();
    for path in layout.sorted() {
        // Another wheel has the same file in the image.
        if let Some((sha256, size)) = layout.known_content(path).filter(|_| locked.facts.shared.contains(path)) {
            record.add(writer.in_record(path), sha256, size);
        }
        if locked.facts.leaves_out(path) {
            continue;
        }
        target.check_length(path).map_err(|error| wheel.unsupported(&error))?;
        let (sha256, size) = match (layout.files.get(path), layout.entry_points.get(path), layout.made.get(path)) {
            (Some(file), ..) => writer.file(path, file, &mut zip, progress)?,
            (_, Some(entry_point), _) => {
                let script = python_entry_point_template(&target.prefix, false, entry_point, python);
                writer.small(path, script.as_bytes(), true, layout.mtime)?
            }
            (_, _, Some(content)) => writer.small(path, content.as_bytes(), false, layout.mtime)?,
            (None, None, None) => continue,
        };
        record.add(writer.in_record(path), sha256, size);
    }
    if !locked.facts.leaves_out(&layout.record) {
        let content = record.finish(writer.in_record(&layout.record))?;
        writer.small(&layout.record, &content, false, layout.mtime)?;
    }
    Ok(())
}

impl WheelLayout {
    /// All paths but that of RECORD, sorted.
    fn sorted(&self) -> Vec<&str> {
        let mut paths: Vec<&str> = self.targets().filter(|path| *path != self.record).collect();
        paths.sort_unstable();
        paths
    }
}

struct SegmentWriter<'a, W> {
    out: &'a mut W,
    wheel: &'a WheelFile,
    target: &'a Target,
    python: &'a PythonInfo,
    site_packages: String,
}

impl<W: Sink> SegmentWriter<'_, W> {
    /// A path of the prefix as RECORD has it: relative to site-packages.
    fn in_record(&self, path: &str) -> String {
        if let Some(inside) = path.strip_prefix(&self.site_packages).and_then(|rest| rest.strip_prefix('/')) {
            return inside.to_owned();
        }
        let up = ancestors(&self.site_packages).count() + 1;
        format!("{}{path}", "../".repeat(up))
    }

    fn small(&mut self, path: &str, content: &[u8], executable: bool, mtime: u64) -> Result<(Digest, u64)> {
        let mode = self.target.modes.file(executable);
        tarball::file(self.out, self.target.path(path), content, mode, mtime)?;
        Ok((Digest::of(content), content.len() as u64))
    }

    /// A file of the wheel; its digest and size in the image.
    fn file(
        &mut self,
        path: &str,
        file: &LaidEntry,
        zip: &mut WheelZip,
        progress: &dyn Progress,
    ) -> Result<(Digest, u64)> {
        let wheel = self.wheel;
        zip.stream(&file.source, &file.entry, progress, |reader| {
            let mut reader = Verified { reader, verifier: Verifier::new(file.expected.as_ref()) };
            let changed = match (file.is_script, file.restamp) {
                (true, _) => self.script(path, file, &mut reader)?,
                (false, Some(stamp)) => Some(self.restamped(path, file, stamp, &mut reader)?),
                (false, None) => {
                    self.header(path, file, file.entry.size, file.entry.executable)?;
                    self.copy(file.entry.size, &mut reader)?;
                    None
                }
            };
            let (sha256, size) = match (reader.verifier.finish(wheel, &file.source)?, changed) {
                (_, Some(changed)) => changed,
                (verified, None) => verified,
            };
            tarball::padding(self.out, size)?;
            Ok((sha256, size))
        })
    }

    /// Byte code, with the time of its module in it. Its digest and size.
    fn restamped(
        &mut self,
        path: &str,
        file: &LaidEntry,
        stamp: Stamp,
        reader: &mut dyn Read,
    ) -> Result<(Digest, u64)> {
        if file.entry.size > Limit::BytecodeFile.value() {
            let what = format!("`{path}` has {} bytes, more than", file.entry.size);
            return Err(self.wheel.over(Limit::BytecodeFile, &what));
        }
        let mut content = Vec::new();
        reader.read_to_end(&mut content)?;
        stamp.put(&mut content);
        self.header(path, file, content.len() as u64, file.entry.executable)?;
        self.out.write_all(&content)?;
        Ok((Digest::of(&content), content.len() as u64))
    }

    /// A script: executable, and run by the environment's Python if it says so. Its digest and size, if these are
    /// not the wheel's.
    fn script(&mut self, path: &str, file: &LaidEntry, reader: &mut dyn Read) -> Result<Option<(Digest, u64)>> {
        let mut start = Vec::new();
        (&mut *reader).take(PLACEHOLDER.len() as u64).read_to_end(&mut start)?;
        if start != PLACEHOLDER {
            self.header(path, file, file.entry.size, true)?;
            self.out.write_all(&start)?;
            self.copy(file.entry.size - start.len() as u64, reader)?;
            return Ok(None);
        }
        let replaced = start.len() as u64 + self.rest_of_line(file, reader)?;
        let first = format!("{}\n", self.python.shebang(&self.target.prefix));
        let rest = file.entry.size - replaced;
        self.header(path, file, first.len() as u64 + rest, true)?;
        self.out.write_all(first.as_bytes())?;
        let mut hasher = Hasher::default();
        hasher.update(first.as_bytes());
        let mut reader = Hashed::new(reader, hasher);
        self.copy(rest, &mut reader)?;
        Ok(Some(reader.finish().finish()))
    }

    /// Skips the rest of a first line, its newline included; how many bytes that were.
    fn rest_of_line(&self, file: &LaidEntry, reader: &mut dyn Read) -> Result<u64> {
        let mut count = 0;
        let mut byte = [0];
        while reader.read(&mut byte)? == 1 {
            count += 1;
            if byte == *b"\n" {
                break;
            }
            if count == LONGEST_LINE {
                return Err(self.wheel.broken(format!("the first line of `{}` does not end", file.source)));
            }
        }
        Ok(count)
    }

    /// The header of a file; [`tarball::padding`] for the same size ends it.
    fn header(&mut self, path: &str, file: &LaidEntry, size: u64, executable: bool) -> Result<()> {
        let mode = self.target.modes.file(executable);
        Ok(tarball::header(self.out, self.target.path(path), TarKind::File(size), mode, file.entry.mtime)?)
    }

    /// The rest of a file, `size` bytes.
    fn copy(&mut self, size: u64, reader: &mut dyn Read) -> Result<()> {
        let copied = self.out.take_all(reader)?;
        if copied != size {
            return Err(Error::bug(format!("a file of `{}` has {copied} bytes and not {size}", self.wheel.name)));
        }
        Ok(())
    }
}

/// Hands what is read to a verifier, too.
struct Verified<'a> {
    reader: &'a mut dyn Read,
    verifier: Verifier<'a>,
}

impl Read for Verified<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.verifier.update(&buffer[..count]);
        Ok(count)
    }
}
