//! The two codecs of layers, a chunk at a time.

use std::io;

use crate::model::Compression;

/// One thread's compressor; its memory is reused from chunk to chunk.
pub(super) enum Codec {
    Gzip(libdeflater::Compressor),
    Zstd(zstd::bulk::Compressor<'static>),
}

impl Codec {
    /// A compressor.
    ///
    /// # Errors
    /// A level that the library refuses.
    pub(super) fn new(compression: Compression) -> io::Result<Self> {
        match compression {
            Compression::Gzip(level) => {
                let level = libdeflater::CompressionLvl::new(i32::from(level))
                    .map_err(|_| io::Error::other("libdeflate refuses the level"))?;
                Ok(Self::Gzip(libdeflater::Compressor::new(level)))
            }
            Compression::Zstd(level) => {
                let mut compressor = zstd::bulk::Compressor::new(i32::from(level))?;
                // So that a damaged layer is noticed by the reader; gzip has its CRC anyway.
                compressor.include_checksum(true)?;
                compressor.include_contentsize(true)?;
                Ok(Self::Zstd(compressor))
            }
        }
    }

    /// Compresses the input; returns the size of the result in the output, which is made large enough.
    ///
    /// # Errors
    /// Those of the library.
    pub(super) fn compress(&mut self, input: &[u8], output: &mut Vec<u8>) -> io::Result<usize> {
        let bound = match self {
            Self::Gzip(compressor) => compressor.gzip_compress_bound(input.len()),
            Self::Zstd(_) => zstd::zstd_safe::compress_bound(input.len()),
        };
        if output.len() < bound {
            *output = vec![0; bound];
        }
        match self {
            Self::Gzip(compressor) => compressor.gzip_compress(input, output).map_err(io::Error::other),
            Self::Zstd(compressor) => compressor.compress_to_buffer(input, output.as_mut_slice()),
        }
    }
}
