//! Files of the store that are being read: whether they stay what they were, and how far reading is.

use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;

use crate::store::Store;
use crate::util::Result;
use crate::util::report::Progress;

/// A file that is being read: whether it stayed what it was.
pub(super) struct Watch<'a> {
    /// The store that verified it; none in tests.
    pub(super) store: Option<&'a Store>,
    /// Where it is.
    pub(super) path: PathBuf,
    /// The opened file.
    pub(super) file: std::fs::File,
}

impl Watch<'_> {
    /// The file, to read from.
    ///
    /// # Errors
    /// When there are no more file descriptors.
    pub(super) fn file(&self) -> Result<std::fs::File> {
        Ok(self.file.try_clone()?)
    }

    /// Whether what was read is what was verified.
    ///
    /// # Errors
    /// When it was written to meanwhile, and has other bytes now.
    pub(super) fn end(self) -> Result<()> {
        self.store.map_or(Ok(()), |store| store.check_unchanged(&self.path, &self.file))
    }
}

/// A file that tells how much of it was read.
pub(super) struct Counted<'p> {
    /// The file.
    pub(super) file: std::fs::File,
    /// Whom it tells.
    pub(super) progress: &'p dyn Progress,
    /// What is told of so many bytes that are read.
    pub(super) scale: (u64, u64),
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.file.read(buffer)?;
        let (told, read) = self.scale;
        self.progress.advance((count as u64).saturating_mul(told) / read);
        Ok(count)
    }
}

impl Seek for Counted<'_> {
    fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
        self.file.seek(to)
    }
}
