//! Reading what others compressed: gzip, Zstandard or plain, told apart by their first bytes, with digests
//! verified on the way. Memory is bounded by the decoders' windows.

use std::io::{self, BufReader, Cursor, Read};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;
use fs_err as fs;

use crate::util::error::is_resource;
use crate::util::{DiffId, Digest, Error, Hasher, Result};

/// How a tar is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Codec {
    /// Not at all.
    Plain,
    /// gzip (RFC 1952), possibly several members.
    Gzip,
    /// Zstandard (RFC 8878), possibly several frames.
    Zstd,
}

impl Codec {
    /// Tells by the first bytes.
    pub(super) fn of(start: &[u8]) -> Result<Self> {
        let refused = |name: &str| {
            Err(Error::user(format!("it is compressed with {name}, which image layers cannot be"))
                .hint("use gzip, zstd, or no compression"))
        };
        match start {
            [0x1f, 0x8b, ..] => Ok(Self::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Ok(Self::Zstd),
            [0xfd, b'7', b'z', b'X', b'Z', ..] => refused("xz"),
            [b'B', b'Z', b'h', ..] => refused("bzip2"),
            _ => Ok(Self::Plain),
        }
    }
}

/// A reader of the uncompressed bytes.
pub(super) fn decode<'a>(mut reader: impl Read + 'a) -> Result<(Codec, Box<dyn Read + 'a>)> {
    let mut start = Vec::with_capacity(6);
    reader.by_ref().take(6).read_to_end(&mut start)?;
    let codec = Codec::of(&start)?;
    let whole = BufReader::with_capacity(128 * 1024, Cursor::new(start).chain(reader));
    Ok((
        codec,
        match codec {
            Codec::Plain => Box::new(whole),
            Codec::Gzip => Box::new(MultiGzDecoder::new(whole)),
            Codec::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(whole)?),
        },
    ))
}

/// Hashes what is read through it.
struct Hashing<R> {
    inner: R,
    hasher: Hasher,
}

impl<R: Read> Hashing<R> {
    fn new(inner: R) -> Self {
        Self { inner, hasher: Hasher::default() }
    }

    /// Reads to the end, so that the digest is that of the whole.
    fn finish(mut self) -> io::Result<(Digest, u64)> {
        io::copy(&mut self, &mut io::sink())?;
        Ok(self.hasher.finish())
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }
}

/// What a compressed or plain tar turned out to be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Measured {
    /// How it is compressed.
    pub codec: Codec,
    /// Digest of the bytes as they are.
    pub digest: Digest,
    /// Their number.
    pub size: u64,
    /// Digest of the uncompressed bytes.
    pub diff_id: DiffId,
    /// Their number.
    pub diff_size: u64,
}

/// Hands the uncompressed bytes to `work`, then reads on to the end and returns all digests.
pub(super) fn measure<T>(reader: impl Read, work: impl FnOnce(&mut dyn Read) -> Result<T>) -> Result<(Measured, T)> {
    let mut raw = Hashing::new(reader);
    let (codec, (diff_id, diff_size), result) = {
        let (codec, decoder) = decode(&mut raw)?;
        let mut plain = Hashing::new(decoder);
        let result = work(&mut plain)?;
        let (digest, size) = plain.finish()?;
        (codec, (DiffId(digest), size), result)
    };
    let (digest, size) = raw.finish()?;
    Ok((Measured { codec, digest, size, diff_id, diff_size }, result))
}

/// The diff ID of a layer in a file: the digest of what it unpacks to; and the size of that in bytes.
///
/// # Errors
/// When the file cannot be read, or is no compressed tar.
pub fn diff_id(file: &Path) -> Result<(DiffId, u64)> {
    measure(fs::File::open(file)?, |_| Ok(())).map(|(measured, ())| (measured.diff_id, measured.diff_size))
}

/// A reader whose errors say what it reads, so that they are told apart from those of where the bytes go.
struct Reading<'a> {
    inner: &'a mut dyn Read,
    unreadable: &'a dyn Fn(Error) -> Error,
}

impl Read for Reading<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.inner.read(buffer).map_err(|error| match error.kind() {
            std::io::ErrorKind::Interrupted => error,
            _ if is_resource(&error) => error,
            _ => (self.unreadable)(error.into()).into(),
        })
    }
}

/// Hands the uncompressed bytes of a layer's file to `work`; both digests are verified before its result counts.
///
/// # Errors
/// When the file cannot be read or decompressed, or is not the layer it should be; those of `work`.
pub(super) fn read_layer<T>(
    path: &Path,
    digest: &Digest,
    diff_id: &DiffId,
    work: impl FnOnce(&mut dyn Read) -> Result<T>,
) -> Result<T> {
    let file = fs::File::open(path)?;
    let unreadable = |error: Error| {
        Error::user(format!("the layer {digest} cannot be read (`{}`)", path.display()))
            .hint("if it is damaged, fetch or make its image again")
            .caused_by(error)
    };
    let mut failed = false;
    let working = |plain: &mut dyn Read| {
        let result = work(&mut Reading { inner: plain, unreadable: &unreadable });
        failed = result.is_err();
        result
    };
    let outcome = measure(file, working);
    let (measured, result) = outcome.map_err(|error| if failed { error } else { unreadable(error) })?;
    if measured.digest != *digest {
        return Err(Error::user(format!(
            "`{}` should be the blob {digest} and is {}",
            path.display(),
            measured.digest
        ))
        .hint("the file is damaged; fetch or make it again"));
    }
    if measured.diff_id != *diff_id {
        return Err(Error::user(format!(
            "the layer {digest} unpacks to {}, but its image's config says {diff_id}",
            measured.diff_id
        )));
    }
    Ok(result)
}
