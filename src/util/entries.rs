//! Entries of tars that strangers made. The `tar` crate reads long names and PAX headers whole: here a reader below it
//! bounds them, so that two kilobytes of an archive cannot become gigabytes of memory.

use std::cell::Cell;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::ControlFlow;
use std::rc::Rc;

use super::error::{Error, Result};
use super::limits::Limit;

/// A tar's block.
const BLOCK: u64 = 512;
/// Bytes of headers that every entry may have beside [`Limit::Headers`].
const USUAL: u64 = 2 << 10;

/// How far a tar may be read.
#[derive(Debug)]
struct Bounds {
    position: Cell<u64>,
    end: Cell<u64>,
}

/// A reader that ends with an error where its bounds end.
#[derive(Debug)]
pub struct Guarded<R> {
    inner: R,
    bounds: Rc<Bounds>,
}

impl<R: Read> Read for Guarded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let position = self.bounds.position.get();
        let left = self.bounds.end.get().saturating_sub(position);
        if left == 0 && !buffer.is_empty() {
            return Err(Limit::Header.exceeded("a header of it is larger than").into());
        }
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.inner.read(&mut buffer[..most])?;
        self.bounds.position.set(position.saturating_add(count as u64));
        Ok(count)
    }
}

impl<R: Seek> Seek for Guarded<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        if let SeekFrom::Current(by) = to {
            let position = self.bounds.position.get();
            self.bounds.position.set(position.saturating_add_signed(by));
        }
        self.inner.seek(to)
    }
}

/// Visits the entries of a tar until the visitor breaks. An entry's own content is not bounded here.
///
/// # Errors
/// Those of the reader and of the visitor; headers over [`Limit::Header`] or [`Limit::Headers`].
pub fn each<R: Read>(
    reader: R,
    visit: impl FnMut(&mut tar::Entry<'_, Guarded<R>>) -> Result<ControlFlow<()>>,
) -> Result<()> {
    each_of(reader, Error::from, visit)
}

/// As [`each`], with what makes an error of the reader's.
///
/// # Errors
/// As [`each`].
pub fn each_of<R: Read>(
    reader: R,
    failed: impl Fn(io::Error) -> Error,
    visit: impl FnMut(&mut tar::Entry<'_, Guarded<R>>) -> Result<ControlFlow<()>>,
) -> Result<()> {
    let (mut archive, bounds) = guarded(reader);
    walk(archive.entries().map_err(&failed)?, &bounds, failed, visit)
}

/// As [`each`], but what the visitor leaves of an entry is not read.
///
/// # Errors
/// As [`each`].
pub fn each_with_seek<R: Read + Seek>(
    reader: R,
    visit: impl FnMut(&mut tar::Entry<'_, Guarded<R>>) -> Result<ControlFlow<()>>,
) -> Result<()> {
    let (mut archive, bounds) = guarded(reader);
    walk(archive.entries_with_seek()?, &bounds, Error::from, visit)
}

fn guarded<R: Read>(reader: R) -> (tar::Archive<Guarded<R>>, Rc<Bounds>) {
    let bounds = Rc::new(Bounds { position: Cell::new(0), end: Cell::new(0) });
    (tar::Archive::new(Guarded { inner: reader, bounds: Rc::clone(&bounds) }), bounds)
}

fn walk<R: Read>(
    mut entries: tar::Entries<'_, Guarded<R>>,
    bounds: &Bounds,
    failed: impl Fn(io::Error) -> Error,
    mut visit: impl FnMut(&mut tar::Entry<'_, Guarded<R>>) -> Result<ControlFlow<()>>,
) -> Result<()> {
    // What is left of the entry before, and headers so far beyond the usual.
    let (mut left, mut headers) = (0_u64, 0_u64);
    loop {
        let begin = bounds.position.get();
        bounds.end.set(begin.saturating_add(left).saturating_add(Limit::Header.value()).saturating_add(4 * BLOCK));
        let Some(entry) = entries.next() else { return Ok(()) };
        let mut entry = entry.map_err(&failed)?;
        let start = bounds.position.get();
        headers = (headers + (start - begin).saturating_sub(left)).saturating_sub(USUAL);
        if headers > Limit::Headers.value() {
            return Err(failed(Limit::Headers.exceeded("its headers are larger than").into()));
        }
        bounds.end.set(u64::MAX);
        // A global header comes as an entry, and is read whole by who asks for its records.
        if entry.header().entry_type().is_pax_global_extensions() && entry.size() > Limit::Header.value() {
            return Err(failed(Limit::Header.exceeded("a header of it is larger than").into()));
        }
        let stored = match entry.header().entry_type().is_gnu_sparse() {
            // The size of a sparse file is not that of what is stored of it.
            true => entry.header().entry_size().map_err(&failed)?,
            false => entry.size(),
        };
        if visit(&mut entry)?.is_break() {
            return Ok(());
        }
        let read = bounds.position.get() - start;
        left = stored.div_ceil(BLOCK).saturating_mul(BLOCK).saturating_sub(read);
    }
}

/// Calls a function with each entry of a tar.
///
/// # Errors
/// As [`each`].
pub fn all<R: Read>(reader: R, mut visit: impl FnMut(&mut tar::Entry<'_, Guarded<R>>) -> Result<()>) -> Result<()> {
    each(reader, |entry| visit(entry).map(|()| ControlFlow::Continue(())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tar_with_name(length: usize) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        let mut long = tar::Header::new_gnu();
        long.set_entry_type(tar::EntryType::GNULongName);
        long.set_size(length as u64);
        long.set_cksum();
        builder.append(&long, vec![b'a'; length].as_slice()).expect("appends");
        for size in [0, 1, 511, 512, 700_000] {
            let mut header = tar::Header::new_gnu();
            header.set_size(size);
            header.set_mode(0o644);
            builder.append_data(&mut header, format!("f{size}"), io::repeat(7).take(size)).expect("appends");
        }
        builder.into_inner().expect("ends")
    }

    #[test]
    fn entries_come_whole_whether_read_or_not() {
        for take in [0, 5, u64::MAX] {
            let mut seen = Vec::new();
            all(tar_with_name(200).as_slice(), |entry| {
                seen.push(entry.size());
                io::copy(&mut entry.take(take), &mut io::sink())?;
                Ok(())
            })
            .expect("reads");
            assert_eq!(seen, [0, 1, 511, 512, 700_000], "{take}");
        }
    }

    #[test]
    fn a_long_name_is_bounded() {
        let error = all(tar_with_name(300_000).as_slice(), |_| Ok(())).expect_err("is refused");
        assert!(error.hints().iter().any(|hint| hint.contains("--limit header=")), "{error:?}");
    }
}
