//! The content of files on its way into a tar.

use std::io::{self, BufWriter, Read, Write};

use super::compress::LayerWriter;
use crate::util::Hasher;

/// A tar that takes content where it is, without a copy between.
pub trait Sink: Write {
    /// Takes a reader to its end; returns the number of bytes.
    ///
    /// # Errors
    /// Those of the reader and of the writer.
    fn take_all(&mut self, reader: &mut dyn Read) -> io::Result<u64>;
}

impl Sink for LayerWriter<'_> {
    fn take_all(&mut self, reader: &mut dyn Read) -> io::Result<u64> {
        self.fill(reader)
    }
}

impl<W: Write> Sink for BufWriter<W> {
    fn take_all(&mut self, reader: &mut dyn Read) -> io::Result<u64> {
        // The standard library reads into the writer's own buffer.
        io::copy(reader, self)
    }
}

impl Sink for Vec<u8> {
    fn take_all(&mut self, reader: &mut dyn Read) -> io::Result<u64> {
        io::copy(reader, self)
    }
}

/// Hashes what is read through it.
pub struct Hashed<'a> {
    reader: &'a mut dyn Read,
    hasher: Hasher,
}

impl<'a> Hashed<'a> {
    /// A reader that goes on after what the hasher knows already.
    pub fn new(reader: &'a mut dyn Read, hasher: Hasher) -> Self {
        Self { reader, hasher }
    }

    /// The hasher with all that was read.
    pub fn finish(self) -> Hasher {
        self.hasher
    }
}

/// Hashes what is written through it.
pub struct Hashing<W> {
    /// Where the bytes go.
    pub out: W,
    /// The hash of the bytes so far.
    pub hasher: Hasher,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.out.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl Read for Hashed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }
}
