//! Segments that lie in layers of the store already. A segment's compressed bytes depend on its key alone (chunks begin
//! where it begins), so a layer of which one package changes takes those of all others from the layer before: they are
//! copied, and decompressed only to hash what is in them.

use std::collections::BTreeSet;
use std::io::{self, Read, Seek, SeekFrom, Write};

use serde::{Deserialize, Serialize};

use super::compress::{LayerDigests, LayerWriter, Span};
use crate::model::Compression;
use crate::store::{RecordKind, Store};
use crate::util::files::named;
use crate::util::{Digest, Error, Hasher, Result};

/// What a segment puts into its layer, by path in the prefix.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// Files and links.
    pub paths: BTreeSet<String>,
    /// Folders that are wanted even if they are empty.
    pub directories: BTreeSet<String>,
}

/// Where a segment lies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownSegment {
    /// The blob that holds it.
    digest: Digest,
    /// Size of that blob in bytes.
    size: u64,
    /// Where in the blob it begins.
    offset: u64,
    /// Its place in the blob and in the tar.
    span: Span,
    /// What it puts into the layer.
    content: Content,
}

impl KnownSegment {
    /// What the store has of the segment with this key.
    pub fn find(store: &Store, key: &Digest) -> Option<Self> {
        let known: Self = store.record(RecordKind::Segment, key)?;
        let fits = known.offset.checked_add(known.span.compressed).is_some_and(|end| end <= known.size);
        (fits && store.has_blob(&known.digest, known.size)).then_some(known)
    }

    /// The blob that holds it: digest, and size in bytes.
    pub fn blob(&self) -> (Digest, u64) {
        (self.digest, self.size)
    }

    /// What it puts into the layer.
    pub fn content(&self) -> &Content {
        &self.content
    }

    /// Copies the segment into a layer.
    ///
    /// # Errors
    /// A blob that is damaged, which is removed then, or was removed meanwhile. Those of the writer.
    pub fn copy(&self, writer: &mut LayerWriter<'_>, store: &Store) -> Result<()> {
        let mut file = fs_err::File::open(store.blob(&self.digest)).map_err(|error| self.lost(store, error))?;
        let part = |file: &mut fs_err::File| -> io::Result<io::Take<fs_err::File>> {
            file.seek(SeekFrom::Start(self.offset))?;
            Ok(fs_err::File::from_parts(file.file().try_clone()?, file.path()).take(self.span.compressed))
        };
        let hasher = part(&mut file)
            .and_then(|part| writer.hash(part, self.span.plain))
            .map_err(|error| self.lost(store, error))?;
        let part = part(&mut file).map_err(|error| self.lost(store, error))?;
        writer.append(part, self.span, hasher)?;
        Ok(())
    }

    fn lost(&self, store: &Store, error: io::Error) -> Error {
        store.discard_blob(&self.digest);
        Error::user(format!("the layer {} in the cache is damaged, or was removed meanwhile", self.digest))
            .hint("build again: it is not used any more")
            .caused_by(error)
    }
}

/// Notes where the segments of a new layer lie. `segments` are keys and contents in the layer's order; `spans` begin with
/// that of the directories.
///
/// # Errors
/// Those of the file system.
pub(super) fn note<'a>(
    store: &Store,
    layer: &LayerDigests,
    segments: impl Iterator<Item = (Digest, &'a Content)>,
    spans: &[Span],
) -> Result<()> {
    let mut offset = spans.first().map_or(0, |span| span.compressed);
    for ((key, content), &span) in segments.zip(spans.iter().skip(1)) {
        let known = KnownSegment { digest: layer.digest, size: layer.size, offset, span, content: content.clone() };
        store.remember(RecordKind::Segment, &key, &known)?;
        offset += span.compressed;
    }
    Ok(())
}

/// Decompresses a run of gzip members or zstd frames and adds what comes out to a digest.
///
/// # Errors
/// When it is damaged, or has not `plain` bytes.
pub(super) fn hash(part: impl Read, plain: u64, compression: Compression, mut hasher: Hasher) -> io::Result<Hasher> {
    let part = io::BufReader::with_capacity(256 * 1024, part);
    let before = hasher.size();
    match compression {
        Compression::Gzip(_) => io::copy(&mut flate2::bufread::MultiGzDecoder::new(part), &mut hasher)?,
        Compression::Zstd(_) => io::copy(&mut zstd::stream::read::Decoder::with_buffer(part)?, &mut hasher)?,
    };
    match hasher.size() - before == plain {
        true => Ok(hasher),
        false => Err(io::Error::new(io::ErrorKind::InvalidData, "it has not as many bytes as were noted")),
    }
}

/// Copies a run of compressed bytes to a blob.
///
/// # Errors
/// Those of both; fewer bytes than there should be.
pub(super) fn copy(mut part: impl Read, size: u64, blob: &mut impl Write) -> io::Result<()> {
    match io::copy(&mut part, blob)? {
        copied if copied == size => Ok(()),
        _ => Err(named("a layer of the cache".as_ref(), io::ErrorKind::UnexpectedEof.into()).into()),
    }
}
