//! `.tar.bz2` archives once more as zstd. bzip2 takes about a minute of CPU time for each gigabyte, and an archive is
//! read when its facts are, when it is packed, and again when a layer changes; so it is decoded once, and what came
//! out is kept beside it (`<sha256>.tar.zst`), which reads fifty times as fast. A record under the archive's sha256 has its
//! digest: another file in its place is made again.

use std::io::{self, Read, Write};
use std::path::Path;

use rattler_package_streaming::read::stream_tar_bz2;

use super::archive::Archive;
use super::content::Hashing;
use crate::store::{RecordKind, Store};
use crate::util::files::named;
use crate::util::{Digest, Hasher, Result, parallel};

/// The level costs little time, and the file lies on this machine only.
const LEVEL: i32 = 1;

/// Makes sure that archives of the store can be read fast, with `jobs` threads.
///
/// # Errors
/// Damaged archives, named; those of the file system.
pub fn transcode(archives: &[Archive], store: &Store, jobs: usize) -> Result<()> {
    let old: Vec<&Archive> = archives.iter().filter(|archive| archive.transcoded().is_some()).collect();
    parallel(&old, jobs, |archive| transcode_one(archive, store)).map(|_| ())
}

/// Whether the faster form of the archive with this sha256 is what was made of it.
pub(super) fn is_usable(path: &Path, sha256: &Digest, store: &Store) -> bool {
    let made = store.record::<Digest>(RecordKind::Transcoded, sha256);
    made.is_some_and(|made| store.is_whole(path, &made))
}

fn transcode_one(archive: &Archive, store: &Store) -> Result<()> {
    let (Some(path), Some((_, sha256))) = (archive.transcoded(), &archive.held) else { return Ok(()) };
    if is_usable(&path, sha256, store) {
        return Ok(());
    }
    let (slow, watch) = archive.open_slow()?;
    let mut decoder = stream_tar_bz2(slow).into_inner();
    let written = Hashing { out: store.temporary()?, hasher: Hasher::default() };
    let mut encoder = encoder(written).map_err(|error| named(&path, error))?;
    let mut buffer = vec![0; 256 * 1024];
    loop {
        let count = match decoder.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(archive.broken(error)),
        };
        encoder.write_all(&buffer[..count]).map_err(|error| named(&path, error))?;
    }
    watch.end()?;
    let Hashing { out: file, hasher } = encoder.finish().map_err(|error| named(&path, error))?;
    let (made, _) = hasher.finish();
    store.put(file, &path, &made)?;
    store.remember(RecordKind::Transcoded, sha256, &made)
}

fn encoder<W: Write>(file: W) -> io::Result<zstd::stream::write::Encoder<'static, W>> {
    let mut encoder = zstd::stream::write::Encoder::new(file, LEVEL)?;
    encoder.include_checksum(true)?;
    Ok(encoder)
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use bzip2::write::BzEncoder;

    use super::*;
    use crate::pack::archive::Format;

    fn archive(store: &Store, tar: &[u8]) -> Archive {
        let mut encoder = BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        encoder.write_all(tar).expect("compresses");
        let bytes = encoder.finish().expect("ends");
        let sha256 = Digest::of(&bytes);
        let path = store.archive(&sha256, "tar.bz2");
        fs_err::write(&path, bytes).expect("writes");
        let held = Some((store.clone(), sha256));
        Archive { path, package: "a-1-0".to_owned(), format: Format::TarBz2, held }
    }

    fn content(archive: &Archive) -> Result<Vec<(String, Vec<u8>)>> {
        let mut content = Vec::new();
        archive.visit_content(|entry, reader| {
            let mut bytes = Vec::new();
            reader.read_to_end(&mut bytes)?;
            content.push((entry.path.clone(), bytes));
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(content)
    }

    #[test]
    fn what_is_read_is_the_same_and_is_read_from_the_faster_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(&folder.path().join("cache")).expect("opens");
        let mut tar = Vec::new();
        for (path, size) in [("info/index.json", 3), ("lib/a", 0), ("lib/b", 700_000)] {
            crate::util::tarball::file(&mut tar, path, &vec![7; size], 0o644, 1).expect("writes");
        }
        crate::util::tarball::end(&mut tar).expect("ends");
        let archive = archive(&store, &tar);
        let before = content(&archive).expect("reads");
        transcode(std::slice::from_ref(&archive), &store, 2).expect("transcodes");
        assert_eq!(content(&archive).expect("reads"), before);
        assert_eq!(before.iter().map(|(path, _)| path.as_str()).collect::<Vec<_>>(), ["lib/a", "lib/b"]);
        // Not looked at any more.
        fs_err::write(&archive.path, "").expect("writes");
        assert_eq!(content(&archive).expect("reads"), before);
        transcode(std::slice::from_ref(&archive), &store, 2).expect("is there already");
        let faster = archive.transcoded().expect("has a place");
        let mut bytes = fs_err::read(&faster).expect("reads");
        bytes[30] ^= 1;
        fs_err::write(&faster, bytes).expect("writes");
        assert!(transcode(std::slice::from_ref(&archive), &store, 2).is_err(), "it is read again");
        assert!(!faster.exists());
    }

    #[test]
    fn a_damaged_archive_is_named_and_leaves_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(&folder.path().join("cache")).expect("opens");
        let archive = archive(&store, &[7; 2_000_000]);
        let whole = fs_err::read(&archive.path).expect("reads");
        fs_err::write(&archive.path, &whole[..whole.len() / 2]).expect("writes");
        let error = transcode(std::slice::from_ref(&archive), &store, 1).expect_err("is damaged");
        assert!(error.to_string().contains("a-1-0"), "{error}");
        assert!(!archive.transcoded().expect("has a place").exists());
    }
}
