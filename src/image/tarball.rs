//! Writing tars whose bytes depend on nothing but what is put into them: ustar headers, PAX records only where
//! ustar cannot hold a path or a link's target, owner 0:0 without names, whole seconds.

use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use tar::{Builder, EntryType, Header};

use crate::util::{Error, Result};

/// Lengths of the header's fields for a name and for a link's target (POSIX ustar).
const FIELD: usize = 100;
/// Size of a tar block.
const BLOCK: u64 = 512;

/// The mode and the modification time of an entry.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stamp {
    /// Permission bits.
    pub mode: u32,
    /// Seconds since 1970.
    pub mtime: u64,
}

/// A tar that is being written.
pub(super) struct Tarball<W: Write> {
    builder: Builder<W>,
}

impl<W: Write> Tarball<W> {
    /// Begins a tar.
    pub fn new(output: W) -> Self {
        Self { builder: Builder::new(output) }
    }

    /// Adds a folder.
    pub fn folder(&mut self, path: &Path, stamp: Stamp) -> Result<()> {
        self.entry(path, EntryType::Directory, stamp, None)
    }

    /// Adds a symbolic link.
    pub fn symlink(&mut self, path: &Path, target: &Path, stamp: Stamp) -> Result<()> {
        self.entry(path, EntryType::Symlink, stamp, Some(target))
    }

    /// Adds a hard link to a path that is in the tar already.
    pub fn hard_link(&mut self, path: &Path, target: &Path, stamp: Stamp) -> Result<()> {
        self.entry(path, EntryType::Link, stamp, Some(target))
    }

    fn entry(&mut self, path: &Path, kind: EntryType, stamp: Stamp, target: Option<&Path>) -> Result<()> {
        let mut header = self.begin(path, kind, stamp, target)?;
        header.set_size(0);
        header.set_cksum();
        Ok(self.builder.append(&header, std::io::empty())?)
    }

    /// Adds a file of a known size.
    ///
    /// # Errors
    /// When the reader has another number of bytes; those of reader and output.
    pub fn file(&mut self, path: &Path, size: u64, stamp: Stamp, reader: impl Read) -> Result<()> {
        let mut header = self.begin(path, EntryType::Regular, stamp, None)?;
        header.set_size(size);
        header.set_cksum();
        let mut reader = reader.take(size);
        self.builder.append(&header, &mut reader)?;
        if reader.limit() > 0 {
            return Err(Error::user(format!("`{}` became shorter while it was read", path.display())));
        }
        Ok(())
    }

    /// Adds a file whose bytes a writer produces, of a known size.
    ///
    /// # Errors
    /// When `write` produces another number of bytes; those of `write` and of the output.
    pub fn file_from(
        &mut self,
        path: &Path,
        size: u64,
        stamp: Stamp,
        write: impl FnOnce(&mut dyn Write) -> Result<()>,
    ) -> Result<()> {
        let mut header = self.begin(path, EntryType::Regular, stamp, None)?;
        header.set_size(size);
        header.set_cksum();
        let output = self.builder.get_mut();
        output.write_all(header.as_bytes())?;
        let mut counting = Counting { output, count: 0 };
        write(&mut counting)?;
        if counting.count != size {
            return Err(Error::bug(format!("`{}` has {} bytes and not {size}", path.display(), counting.count)));
        }
        pad(output, size)
    }

    /// Writes the end and returns the output.
    pub fn finish(self) -> Result<W> {
        Ok(self.builder.into_inner()?)
    }

    /// The header of an entry, after the PAX records that it needs.
    fn begin(&mut self, path: &Path, kind: EntryType, stamp: Stamp, target: Option<&Path>) -> Result<Header> {
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(stamp.mode);
        header.set_mtime(stamp.mtime);
        header.set_uid(0);
        header.set_gid(0);
        let mut name = path.as_os_str().as_bytes().to_vec();
        if kind == EntryType::Directory && !name.ends_with(b"/") {
            name.push(b'/');
        }
        let mut records: Vec<(&str, &[u8])> = Vec::new();
        if fits(&name) {
            header.as_mut_bytes()[..name.len()].copy_from_slice(&name);
        } else {
            let shortened = &name[..name.len().min(FIELD)];
            header.as_mut_bytes()[..shortened.len()].copy_from_slice(shortened);
            records.push(("path", &name));
        }
        if let Some(target) = target {
            let target = target.as_os_str().as_bytes();
            header.set_link_name_literal(&target[..target.len().min(FIELD)])?;
            if !fits(target) {
                records.push(("linkpath", target));
            }
        }
        if !records.is_empty() {
            // Sorted, as everything else is.
            records.sort_unstable();
            self.builder.append_pax_extensions(records)?;
        }
        Ok(header)
    }
}

impl<W: Write + Seek> Tarball<W> {
    /// Adds a file whose size is known only when `write` has produced it (its result).
    pub fn file_of_any_size(
        &mut self,
        path: &Path,
        stamp: Stamp,
        write: impl FnOnce(&mut dyn Write) -> Result<()>,
    ) -> Result<()> {
        let mut header = self.begin(path, EntryType::Regular, stamp, None)?;
        let output = self.builder.get_mut();
        let start = output.stream_position()?;
        output.write_all(&[0; BLOCK as usize])?;
        let mut counting = Counting { output, count: 0 };
        write(&mut counting)?;
        let size = counting.count;
        pad(output, size)?;
        let end = output.stream_position()?;
        output.seek(SeekFrom::Start(start))?;
        header.set_size(size);
        header.set_cksum();
        output.write_all(header.as_bytes())?;
        output.seek(SeekFrom::Start(end))?;
        Ok(())
    }
}

/// Whether a header's field holds it as it is. Only ASCII: what other bytes mean there is not defined.
fn fits(name: &[u8]) -> bool {
    name.len() <= FIELD && name.is_ascii()
}

fn pad(output: &mut impl Write, size: u64) -> Result<()> {
    let rest = (BLOCK - size % BLOCK) % BLOCK;
    Ok(output.write_all(&[0; BLOCK as usize][..rest as usize])?)
}

struct Counting<'a, W> {
    output: &'a mut W,
    count: u64,
}

impl<W: Write> Write for Counting<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let count = self.output.write(bytes)?;
        self.count += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.output.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    const STAMP: Stamp = Stamp { mode: 0o644, mtime: 7 };

    #[test]
    fn long_and_non_ascii_paths_come_back_whole() {
        let long = format!("{}/file", "a".repeat(150));
        let mut tarball = Tarball::new(Cursor::new(Vec::new()));
        tarball.folder(Path::new("dir"), Stamp { mode: 0o755, mtime: 7 }).expect("a folder");
        tarball.file(Path::new(&long), 3, STAMP, &b"abc"[..]).expect("a file");
        tarball.symlink(Path::new("ü"), Path::new(&long), STAMP).expect("a link");
        tarball.hard_link(Path::new("hard"), Path::new(&long), STAMP).expect("a link");
        tarball.file_of_any_size(Path::new("late"), STAMP, |output| Ok(output.write_all(b"late")?)).expect("a file");
        tarball.file_from(Path::new("known"), 5, STAMP, |output| Ok(output.write_all(b"known")?)).expect("a file");
        let bytes = tarball.finish().expect("ends").into_inner();

        let mut archive = tar::Archive::new(&bytes[..]);
        let mut seen = Vec::new();
        for entry in archive.entries().expect("a tar") {
            let mut entry = entry.expect("an entry");
            let mut text = String::new();
            entry.read_to_string(&mut text).expect("reads");
            let path = entry.path().expect("a path").display().to_string();
            let link = entry.link_name().expect("a target").map(|target| target.display().to_string());
            seen.push((path, link.unwrap_or_default(), text));
        }
        let expected: [(&str, &str, &str); 6] = [
            ("dir/", "", ""),
            (&long, "", "abc"),
            ("ü", &long, ""),
            ("hard", &long, ""),
            ("late", "", "late"),
            ("known", "", "known"),
        ];
        let expected = expected.map(|(path, link, text)| (path.to_owned(), link.to_owned(), text.to_owned()));
        assert_eq!(seen, expected);
    }

    #[test]
    fn a_file_that_shrinks_is_an_error() {
        let mut tarball = Tarball::new(Vec::new());
        assert!(tarball.file(Path::new("x"), 4, STAMP, &b"abc"[..]).is_err());
    }
}
