//! How much an archive may hold: entries, paths and bytes, counted while it is read.

use super::archive::{Archive, Entry, Kind};
use crate::util::{Limit, Result, human};

/// What an archive holds so far.
pub(super) struct Sizes {
    /// What it may unpack to, in bytes.
    allowed: u64,
    unpacked: u64,
    entries: u64,
    names: u64,
}

impl Sizes {
    /// Of an archive of which nothing was read.
    pub(super) fn of(archive: &Archive) -> Self {
        // Of no file: a reader that is not from the store.
        let size = std::fs::metadata(&archive.path).map_or(u64::MAX, |metadata| metadata.len());
        let ratio = size.saturating_mul(Limit::ArchiveRatio.value());
        let allowed = Limit::ArchiveSmall.value().max(ratio).min(Limit::ArchiveSize.value());
        Self { allowed, unpacked: 0, entries: 0, names: 0 }
    }

    /// Counts an entry.
    ///
    /// # Errors
    /// When a limit is exceeded.
    pub(super) fn add(&mut self, archive: &Archive, size: u64, entry: Option<&Entry>) -> Result<()> {
        self.entries += 1;
        self.unpacked = self.unpacked.saturating_add(size);
        if let Some(entry) = entry {
            let target = match &entry.kind {
                Kind::Symlink(target) | Kind::Hardlink(target) => target.len(),
                Kind::File | Kind::Directory => 0,
            };
            self.names += (entry.path.len() + target) as u64;
        }
        if self.entries > Limit::ArchiveEntries.value() {
            return Err(archive.over(Limit::ArchiveEntries, "the number of its files is larger than"));
        }
        if self.names > Limit::ArchiveNames.value() {
            return Err(archive.over(Limit::ArchiveNames, "its paths are longer than"));
        }
        if self.unpacked > self.allowed {
            let what =
                format!("it would unpack to more than {}, which is more times its size than", human(self.allowed));
            let (limit, what) = match self.allowed == Limit::ArchiveSize.value() {
                true => (Limit::ArchiveSize, "it would unpack to more than"),
                false => (Limit::ArchiveRatio, what.as_str()),
            };
            return Err(archive.over(limit, what));
        }
        Ok(())
    }
}
