//! limit: what no builder can undercut. Decodes conda archives, hashes what comes out, compresses it in the chunks that
//! condaimg makes, and hashes that: nothing else, on as many threads as are asked for, all busy. The same for a list of
//! codecs and levels, with sizes and the time to decompress.
//!
//! ```text
//! limit THREADS CODEC[,CODEC]... ARCHIVE...
//! ```
//!
//! One line of JSON per codec: `wall` is the limit in seconds (CPU seconds of all threads by their number: as if the
//! work were spread without a gap), `tar` and `compressed` are bytes, `decompress` CPU seconds on one thread.
#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::expect_used, reason = "a benchmark")]

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use rattler_package_streaming::{read, seek};
use sha2::{Digest as _, Sha256};

#[derive(Clone, Copy)]
enum Codec {
    Gzip(i32),
    Zstd(i32),
}

impl Codec {
    fn parse(text: &str) -> Self {
        let (name, level) = text.split_once(':').expect("a codec is gzip:LEVEL or zstd:LEVEL");
        let level = level.parse().expect("a level is a number");
        match name {
            "gzip" => Self::Gzip(level),
            "zstd" => Self::Zstd(level),
            _ => panic!("a codec is gzip:LEVEL or zstd:LEVEL"),
        }
    }

    /// As condaimg cuts (src/pack/compress.rs).
    fn chunk(self) -> usize {
        match self {
            Self::Gzip(_) => 1 << 20,
            Self::Zstd(_) => 4 << 20,
        }
    }
}

enum Compressor {
    Gzip(libdeflater::Compressor),
    Zstd(zstd::bulk::Compressor<'static>),
}

impl Compressor {
    fn new(codec: Codec) -> Self {
        match codec {
            Codec::Gzip(level) => {
                Self::Gzip(libdeflater::Compressor::new(libdeflater::CompressionLvl::new(level).expect("a level")))
            }
            Codec::Zstd(level) => {
                let mut compressor = zstd::bulk::Compressor::new(level).expect("starts");
                compressor.include_checksum(true).expect("is an option");
                Self::Zstd(compressor)
            }
        }
    }

    fn compress(&mut self, input: &[u8], output: &mut Vec<u8>) -> usize {
        let bound = match self {
            Self::Gzip(compressor) => compressor.gzip_compress_bound(input.len()),
            Self::Zstd(_) => zstd::zstd_safe::compress_bound(input.len()),
        };
        output.resize(bound.max(output.len()), 0);
        match self {
            Self::Gzip(compressor) => compressor.gzip_compress(input, output).expect("compresses"),
            Self::Zstd(compressor) => compressor.compress_to_buffer(input, output.as_mut_slice()).expect("compresses"),
        }
    }
}

#[derive(Default)]
struct Sums {
    tar: u64,
    compressed: u64,
    cpu: f64,
    decompress: f64,
}

/// CPU seconds of this thread (proc(5): nanoseconds on the CPU).
fn cpu() -> f64 {
    let text = fs_err::read_to_string("/proc/thread-self/schedstat").expect("Linux tells");
    text.split(' ').next().and_then(|number| number.parse::<f64>().ok()).expect("a number") / 1e9
}

fn fill(reader: &mut dyn Read, buffer: &mut [u8]) -> usize {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]).expect("an archive that can be read") {
            0 => break,
            count => filled += count,
        }
    }
    filled
}

fn tar(path: &Path) -> Box<dyn Read> {
    let file = std::io::BufReader::with_capacity(256 * 1024, fs_err::File::open(path).expect("an archive"));
    match path.extension().is_some_and(|extension| extension == "conda") {
        true => Box::new(seek::stream_conda_content(file).expect("a conda archive").into_inner()),
        false => Box::new(read::stream_tar_bz2(file).into_inner()),
    }
}

fn decompress(codec: Codec, bytes: &[u8], buffer: &mut [u8]) -> f64 {
    let before = cpu();
    let mut reader: Box<dyn Read> = match codec {
        Codec::Gzip(_) => Box::new(flate2::read::MultiGzDecoder::new(bytes)),
        Codec::Zstd(_) => Box::new(zstd::stream::read::Decoder::new(bytes).expect("starts")),
    };
    while reader.read(buffer).expect("reads back") > 0 {}
    cpu() - before
}

fn work(codec: Codec, archives: &[PathBuf], next: &AtomicUsize, sums: &Mutex<Sums>) {
    let mut compressor = Compressor::new(codec);
    let (mut chunk, mut output) = (vec![0; codec.chunk()], Vec::new());
    let mut buffer = vec![0; 1 << 20];
    let mut own = Sums::default();
    let before = cpu();
    while let Some(archive) = archives.get(next.fetch_add(1, Ordering::Relaxed)) {
        let mut tar = tar(archive);
        let (mut diff, mut blob) = (Sha256::new(), Sha256::new());
        loop {
            let count = fill(tar.as_mut(), &mut chunk);
            if count == 0 {
                break;
            }
            diff.update(&chunk[..count]);
            let size = compressor.compress(&chunk[..count], &mut output);
            blob.update(&output[..size]);
            own.tar += count as u64;
            own.compressed += size as u64;
            own.decompress += decompress(codec, &output[..size], &mut buffer);
        }
        std::hint::black_box((diff.finalize(), blob.finalize()));
    }
    own.cpu = cpu() - before - own.decompress;
    let mut sums = sums.lock().expect("no thread panicked");
    sums.tar += own.tar;
    sums.compressed += own.compressed;
    sums.cpu += own.cpu;
    sums.decompress += own.decompress;
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let usage = "limit THREADS CODEC[,CODEC]... ARCHIVE...";
    let threads: usize = arguments.next().and_then(|text| text.parse().ok()).expect(usage);
    let codecs = arguments.next().expect(usage);
    let mut archives: Vec<PathBuf> = arguments.map(PathBuf::from).collect();
    // The largest first, so that all threads are busy to the end.
    archives.sort_by_key(|path| std::cmp::Reverse(path.metadata().expect("an archive").len()));
    for name in codecs.split(',') {
        let codec = Codec::parse(name);
        let (next, sums) = (AtomicUsize::new(0), Mutex::new(Sums::default()));
        std::thread::scope(|scope| {
            (0..threads).for_each(|_| {
                scope.spawn(|| work(codec, &archives, &next, &sums));
            });
        });
        let Sums { tar, compressed, cpu, decompress } = sums.into_inner().expect("no thread panicked");
        println!(
            r#"{{"codec": "{name}", "tar": {tar}, "compressed": {compressed}, "cpu": {cpu:.3}, "wall": {:.3}, "decompress": {decompress:.3}}}"#,
            cpu / threads as f64
        );
    }
}
