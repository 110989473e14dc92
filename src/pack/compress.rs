//! Compression in independent chunks: each chunk of a segment becomes one gzip member (RFC 1952, 2.2) or one zstd
//! frame (RFC 8878, 3.1), and a layer is their concatenation, which both formats allow. Chunks are cut at fixed
//! sizes and where a segment begins, never by the number of cores, so the bytes are the same on every machine,
//! and a segment's bytes do not depend on its neighbours.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use super::codec::Codec;
use super::permits::Permits;
use super::reuse;
use crate::model::Compression;
use crate::store::BlobWriter;
use crate::util::{DiffId, Digest, Error, Hasher, Result};

/// Uncompressed bytes of a gzip member. Measured on wheels: 1 MiB members cost no size against one stream, and
/// are as fast.
const GZIP_CHUNK: usize = 1 << 20;

/// Uncompressed bytes of a zstd frame. zstd gains from a longer window: 4 MiB frames are 3 % smaller than 1 MiB.
const ZSTD_CHUNK: usize = 4 << 20;

fn chunk_size(compression: Compression) -> usize {
    match compression {
        Compression::Gzip(_) => GZIP_CHUNK,
        Compression::Zstd(_) => ZSTD_CHUNK,
    }
}

/// Identifies codec, level, library and chunking in keys: equal values promise equal bytes.
pub fn codec_id(compression: Compression) -> String {
    match compression {
        Compression::Gzip(level) => format!("gzip:{level}/libdeflate-1.26.1/{GZIP_CHUNK}"),
        Compression::Zstd(level) => format!("zstd:{level}/zstd-1.5.7/{ZSTD_CHUNK}"),
    }
}

struct Job {
    buffers: Buffers,
    reply: SyncSender<Answer>,
}

/// A chunk and room for its compressed form. Both are used again: fresh memory for each chunk costs page faults.
#[derive(Default)]
struct Buffers {
    /// Room for a whole chunk, once there is something in it.
    input: Vec<u8>,
    /// Bytes of the input that hold something.
    filled: usize,
    output: Vec<u8>,
}

impl Buffers {
    fn chunk(&self) -> &[u8] {
        &self.input[..self.filled]
    }

    /// What is left of a chunk of `limit` bytes.
    fn room(&mut self, limit: usize) -> &mut [u8] {
        if self.input.is_empty() {
            self.input = vec![0; limit];
        }
        &mut self.input[self.filled..]
    }
}

/// The buffers and the size of the compressed chunk in the output.
type Answer = (Buffers, io::Result<usize>);

/// The threads that compress, shared by all layers of a build, and the bound on chunks in memory.
pub struct Compressors {
    compression: Compression,
    queue: Option<SyncSender<Job>>,
    threads: Vec<JoinHandle<()>>,
    permits: Arc<Permits>,
    /// Buffers that no chunk is in; there are never more than permits and layers.
    spare: Mutex<Vec<Buffers>>,
}

impl Compressors {
    /// Starts `jobs` threads.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn start(compression: Compression, jobs: usize) -> Result<Self> {
        let (queue, jobs_to_do) = sync_channel::<Job>(jobs);
        let jobs_to_do = Arc::new(Mutex::new(jobs_to_do));
        let mut threads = Vec::with_capacity(jobs);
        for number in 0..jobs {
            let jobs_to_do = Arc::clone(&jobs_to_do);
            let thread = std::thread::Builder::new()
                .name(format!("compress-{number}"))
                .spawn(move || work(compression, &jobs_to_do))
                .map_err(|error| {
                    Error::user("the system refuses a thread").hint("use fewer `--jobs`").caused_by(error)
                })?;
            threads.push(thread);
        }
        // Enough chunks in flight that no thread waits: one being compressed and one waiting for each.
        let permits = Arc::new(Permits::new(2 * jobs + 2));
        Ok(Self { compression, queue: Some(queue), threads, permits, spare: Mutex::default() })
    }

    /// Begins a layer that is written to `blob`.
    pub fn layer(&self, blob: BlobWriter) -> LayerWriter<'_> {
        LayerWriter {
            compressors: self,
            buffers: self.spare().pop().unwrap_or_default(),
            in_flight: VecDeque::new(),
            diff: Hasher::default(),
            blob,
            spans: vec![Span::default()],
        }
    }
}

impl Compressors {
    fn spare(&self) -> MutexGuard<'_, Vec<Buffers>> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Compressors {
    fn drop(&mut self) {
        // The threads end when the queue does.
        self.queue = None;
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn work(compression: Compression, jobs: &Mutex<Receiver<Job>>) {
    let mut codec: Option<Codec> = None;
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Job { mut buffers, reply }) = job else { return };
        let Buffers { input, filled, output } = &mut buffers;
        let chunk = &input[..*filled];
        let size = match &mut codec {
            Some(codec) => codec.compress(chunk, output),
            none => Codec::new(compression).and_then(|new| none.insert(new).compress(chunk, output)),
        };
        // Nobody waits for it when the layer has failed meanwhile.
        let _ = reply.send((buffers, size));
    }
}

/// Takes the uncompressed tar of one layer; makes blob, digest and diff ID in one pass.
pub struct LayerWriter<'a> {
    compressors: &'a Compressors,
    buffers: Buffers,
    /// Chunks with the number of their segment.
    in_flight: VecDeque<(usize, Receiver<Answer>)>,
    diff: Hasher,
    blob: BlobWriter,
    /// Of the segments so far, the one that is being written last.
    spans: Vec<Span>,
}

/// How much room a segment takes in its layer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Span {
    /// Bytes in the blob.
    pub compressed: u64,
    /// Bytes of the tar.
    pub plain: u64,
}

/// A finished layer: what its descriptor and the config need.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct LayerDigests {
    /// Digest of the blob.
    pub digest: Digest,
    /// Size of the blob in bytes.
    pub size: u64,
    /// Digest of the uncompressed tar.
    pub diff_id: DiffId,
    /// Size of the uncompressed tar in bytes.
    pub diff_size: u64,
}

impl LayerWriter<'_> {
    /// Ends a segment: the next byte begins a new chunk.
    ///
    /// # Errors
    /// Those of the codec and of the store.
    pub fn end_segment(&mut self) -> io::Result<()> {
        self.end_chunk()?;
        self.spans.push(Span::default());
        Ok(())
    }

    /// Takes a reader to its end, into the chunk that is compressed, without a copy between; returns the number of
    /// bytes.
    ///
    /// # Errors
    /// Those of the reader, of the codec and of the store.
    pub fn fill(&mut self, reader: &mut dyn Read) -> io::Result<u64> {
        let limit = chunk_size(self.compressors.compression);
        let mut taken = 0;
        loop {
            match reader.read(self.buffers.room(limit)) {
                Ok(0) => return Ok(taken),
                Ok(count) => {
                    self.filled(count)?;
                    taken += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The digest of the tar so far and of a compressed segment of `plain` bytes behind it.
    ///
    /// # Errors
    /// Those of the reader; a damaged segment.
    pub fn hash(&self, segment: impl Read, plain: u64) -> io::Result<Hasher> {
        let mut before = self.diff.clone();
        before.update(self.buffers.chunk());
        reuse::hash(segment, plain, self.compressors.compression, before)
    }

    /// Appends a segment that is compressed already; `hasher` is what [`Self::hash`] made of it. It is ended then.
    ///
    /// # Errors
    /// Those of the reader, of the codec and of the store.
    pub fn append(&mut self, segment: impl Read, span: Span, hasher: Hasher) -> io::Result<()> {
        self.end_chunk()?;
        while !self.in_flight.is_empty() {
            self.receive()?;
        }
        reuse::copy(segment, span.compressed, &mut self.blob)?;
        self.diff = hasher;
        if let Some(current) = self.spans.last_mut() {
            *current = span;
        }
        self.spans.push(Span::default());
        Ok(())
    }

    /// Ends the layer and puts its blob into the store.
    ///
    /// # Errors
    /// Those of the codec and of the store.
    pub fn finish(self) -> Result<LayerDigests> {
        self.finish_with_spans().map(|(digests, _)| digests)
    }

    /// As [`Self::finish`]; also tells how much room each segment takes, in their order.
    ///
    /// # Errors
    /// As [`Self::finish`].
    pub fn finish_with_spans(mut self) -> Result<(LayerDigests, Vec<Span>)> {
        self.end_segment()?;
        while !self.in_flight.is_empty() {
            self.receive()?;
        }
        let (diff_id, diff_size) = std::mem::take(&mut self.diff).finish();
        let (digest, size) = self.blob.complete(None)?;
        let spans = std::mem::take(&mut self.spans);
        Ok((LayerDigests { digest, size, diff_id: DiffId(diff_id), diff_size }, spans))
    }

    /// So many bytes more are in the chunk's room.
    fn filled(&mut self, count: usize) -> io::Result<()> {
        self.buffers.filled += count;
        if let Some(span) = self.spans.last_mut() {
            span.plain += count as u64;
        }
        if self.buffers.filled == self.buffers.input.len() { self.send() } else { Ok(()) }
    }

    fn end_chunk(&mut self) -> io::Result<()> {
        if self.buffers.filled > 0 { self.send() } else { Ok(()) }
    }

    fn send(&mut self) -> io::Result<()> {
        // Here and not piece by piece: most pieces are small.
        self.diff.update(self.buffers.chunk());
        // A chunk in flight holds a permit until it is received. Who holds some frees one of them; who holds
        // none waits for the others, which never wait for anything but their own chunks.
        while !self.compressors.permits.try_take() {
            if self.in_flight.is_empty() {
                self.compressors.permits.take();
                break;
            }
            self.receive()?;
        }
        let next = self.compressors.spare().pop().unwrap_or_default();
        let buffers = std::mem::replace(&mut self.buffers, next);
        let (reply, answer) = sync_channel(1);
        let queue = self.compressors.queue.as_ref().ok_or_else(|| io::Error::other("the compressors have ended"))?;
        self.in_flight.push_back((self.spans.len() - 1, answer));
        queue.send(Job { buffers, reply }).map_err(|_| io::Error::other("the compressors have ended"))
    }

    fn receive(&mut self) -> io::Result<()> {
        let Some((segment, answer)) = self.in_flight.pop_front() else { return Ok(()) };
        let answer = answer.recv();
        self.compressors.permits.give();
        let (mut buffers, size) = answer.map_err(|_| io::Error::other("a compressor ended early"))?;
        let size = size?;
        self.blob.write_all(&buffers.output[..size])?;
        self.spans[segment].compressed += size as u64;
        buffers.filled = 0;
        self.compressors.spare().push(buffers);
        Ok(())
    }
}

impl Drop for LayerWriter<'_> {
    fn drop(&mut self) {
        for _ in self.in_flight.drain(..) {
            self.compressors.permits.give();
        }
        self.buffers.filled = 0;
        self.compressors.spare().push(std::mem::take(&mut self.buffers));
    }
}

impl Write for LayerWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let limit = chunk_size(self.compressors.compression);
        let room = self.buffers.room(limit);
        let count = bytes.len().min(room.len());
        room[..count].copy_from_slice(&bytes[..count]);
        self.filled(count)?;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;
    use crate::store::Store;

    fn pack(compression: Compression, jobs: usize, segments: &[Vec<u8>]) -> (LayerDigests, Vec<u8>) {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(folder.path()).expect("opens");
        let compressors = Compressors::start(compression, jobs).expect("starts");
        let mut layer = compressors.layer(store.new_blob().expect("begins"));
        for segment in segments {
            layer.write_all(segment).expect("writes");
            layer.end_segment().expect("ends");
        }
        let digests = layer.finish().expect("finishes");
        (digests, fs_err::read(store.blob(&digests.digest)).expect("reads"))
    }

    #[test]
    fn bytes_do_not_depend_on_cores_and_read_back() {
        let segments: Vec<Vec<u8>> =
            [0_u32, 7, 3 << 20, (9 << 20) + 5].map(|size| (0..size).map(|i| (i / 7 % 251) as u8).collect()).into();
        let plain = segments.concat();
        for compression in [Compression::Gzip(1), Compression::Gzip(6), Compression::Zstd(3)] {
            let (one, bytes) = pack(compression, 1, &segments);
            let (many, _) = pack(compression, 5, &segments);
            assert_eq!(one, many);
            let mut read = Vec::new();
            match compression {
                Compression::Gzip(_) => flate2::read::MultiGzDecoder::new(&bytes[..]).read_to_end(&mut read),
                Compression::Zstd(_) => {
                    zstd::stream::read::Decoder::new(&bytes[..]).and_then(|mut d| d.read_to_end(&mut read))
                }
            }
            .expect("reads");
            assert!(read == plain);
            assert_eq!(one.diff_id, DiffId(Digest::of(&plain)));
            assert_eq!(one.digest, Digest::of(&bytes));
        }
    }

    #[test]
    fn layers_take_the_buffers_of_those_before() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(folder.path()).expect("opens");
        let compressors = Compressors::start(Compression::Gzip(1), 1).expect("starts");
        for number in 0..20 {
            let mut layer = compressors.layer(store.new_blob().expect("begins"));
            layer.write_all(&vec![number; 3 * GZIP_CHUNK]).expect("writes");
            layer.finish().expect("finishes");
        }
        // One thread has four permits.
        assert!(compressors.spare().len() <= 5, "{}", compressors.spare().len());
    }

    #[test]
    fn keys_name_the_libraries_that_are_linked() {
        let lock = include_str!("../../Cargo.lock");
        let version = |name: &str| {
            let (_, rest) = lock.split_once(&format!("name = \"{name}\"\nversion = \"")).expect("is locked");
            rest.split('"').next().expect("a version").to_owned()
        };
        let (_, zstd) =
            version("zstd-sys").split_once("+zstd.").map(|(a, b)| (a.to_owned(), b.to_owned())).expect("a zstd");
        assert!(
            codec_id(Compression::Zstd(3)).contains(&format!("/zstd-{zstd}/")),
            "raise LAYOUT_VERSION: zstd is {zstd}"
        );
        let deflate = version("libdeflater");
        assert!(codec_id(Compression::Gzip(1)).contains(&format!("/libdeflate-{deflate}/")), "raise LAYOUT_VERSION");
    }

    #[test]
    fn many_layers_share_few_permits_without_a_deadlock() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(folder.path()).expect("opens");
        let compressors = Compressors::start(Compression::Gzip(1), 1).expect("starts");
        std::thread::scope(|scope| {
            for number in 0..8_u8 {
                let (store, compressors) = (&store, &compressors);
                scope.spawn(move || {
                    let mut layer = compressors.layer(store.new_blob().expect("begins"));
                    for _ in 0..6 {
                        layer.write_all(&vec![number; GZIP_CHUNK + 1]).expect("writes");
                    }
                    layer.finish().expect("finishes")
                });
            }
        });
    }
}
