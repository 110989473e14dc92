//! Bases from a root file system: a tar, taken byte for byte, or a folder, made into a tar whose bytes depend
//! on nothing but the folder's names, contents, modes and times.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::Metadata;
use std::io::{self, BufWriter, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use fs_err as fs;

use super::{Base, empty_config, media};
use crate::image::codec::{Codec, Measured, measure};
use crate::model::{Blob, BlobSource, LayerBlob, Platform};
use crate::store::{BlobWriter, Store};
use crate::util::tarball::{self, TarKind};
use crate::util::{DiffId, Error, Result, ResultExt as _, entries, files};

pub(super) fn open(path: &Path, platform: &Platform, store: &Store) -> Result<Base> {
    let (measured, file) = match fs::metadata(path)?.is_dir() {
        true => pack(path, store)?,
        false => (inspect(path)?, path.to_owned()),
    };
    let media_type = match measured.codec {
        Codec::Plain => media::LAYER,
        Codec::Gzip => media::LAYER_GZIP,
        Codec::Zstd => media::LAYER_ZSTD,
    };
    let layer = LayerBlob {
        blob: Blob {
            media_type: media_type.to_owned(),
            digest: measured.digest,
            size: measured.size,
            source: BlobSource::File(file),
        },
        diff_id: measured.diff_id,
        name: String::new(),
        annotations: BTreeMap::new(),
        created_by: String::new(),
    };
    let mut config = empty_config(platform);
    config.rootfs_mut().set_diff_ids(vec![measured.diff_id.to_string()]);
    Ok(Base { reference: String::new(), digest: measured.digest, config, layers: vec![layer], documents: None })
}

/// Reads a tar once: its digests, and whether it is a tar at all.
fn inspect(path: &Path) -> Result<Measured> {
    let (measured, entries) = measure(files::regular(path)?, |plain| {
        let mut count = 0_u64;
        entries::all(plain, |_| {
            count += 1;
            Ok(())
        })?;
        Ok(count)
    })
    .context(|| format!("`{}` is no readable tar", path.display()))?;
    if entries == 0 {
        return Err(
            Error::user(format!("`{}` is an empty tar", path.display())).hint("use `--base scratch` for nothing")
        );
    }
    Ok(measured)
}

/// Packs a folder into the store.
fn pack(folder: &Path, store: &Store) -> Result<(Measured, PathBuf)> {
    let mut packer = Packer { tar: BufWriter::with_capacity(256 * 1024, store.new_blob()?), links: BTreeMap::new() };
    packer.children(folder, Path::new(""))?;
    tarball::end(&mut packer.tar)?;
    let writer = packer.tar.into_inner().map_err(std::io::IntoInnerError::into_error)?;
    let (digest, size) = writer.finish(None)?;
    Ok((Measured { codec: Codec::Plain, digest, size, diff_id: DiffId(digest), diff_size: size }, store.blob(&digest)))
}

struct Packer {
    tar: BufWriter<BlobWriter>,
    /// Device and inode of files with several names → the first of them.
    links: BTreeMap<(u64, u64), PathBuf>,
}

impl Packer {
    /// Adds what a folder holds, in the order of the names' bytes; a folder before what is in it.
    fn children(&mut self, folder: &Path, inside: &Path) -> Result<()> {
        let names = fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name()));
        let mut names: Vec<OsString> = names.collect::<Result<_>>()?;
        names.sort_unstable();
        for name in names {
            self.entry(&folder.join(&name), &inside.join(&name))?;
        }
        Ok(())
    }

    fn entry(&mut self, path: &Path, inside: &Path) -> Result<()> {
        let metadata = fs::symlink_metadata(path)?;
        let kind = metadata.file_type();
        if kind.is_dir() {
            self.header(inside, TarKind::Directory, &metadata)?;
            self.children(path, inside)
        } else if kind.is_symlink() {
            let target = fs::read_link(path)?;
            self.header(inside, TarKind::Symlink(target.as_os_str().as_bytes()), &metadata)
        } else if kind.is_file() {
            self.file(path, inside, &metadata)
        } else {
            // Devices, pipes and sockets: the runtime makes those that a container needs.
            Ok(())
        }
    }

    fn header(&mut self, inside: &Path, kind: TarKind<'_>, metadata: &Metadata) -> Result<()> {
        let inside = inside.as_os_str().as_bytes();
        Ok(tarball::header(&mut self.tar, inside, kind, mode(metadata), mtime(metadata))?)
    }

    fn file(&mut self, path: &Path, inside: &Path, metadata: &Metadata) -> Result<()> {
        if metadata.nlink() > 1 {
            let identity = (metadata.dev(), metadata.ino());
            if let Some(first) = self.links.get(&identity).cloned() {
                return self.header(inside, TarKind::Hardlink(first.as_os_str().as_bytes()), metadata);
            }
            self.links.insert(identity, inside.to_owned());
        }
        let size = metadata.len();
        let mut file = fs::File::open(path)?.take(size);
        let inside = inside.as_os_str().as_bytes();
        tarball::file_from(&mut self.tar, inside, size, mode(metadata), mtime(metadata), |output| {
            match io::copy(&mut file, output)? == size {
                true => Ok(()),
                false => Err(Error::user("it became shorter while it was read")),
            }
        })
        .context(|| format!("`{}` cannot be packed", path.display()))
    }
}

fn mode(metadata: &Metadata) -> u32 {
    metadata.mode() & 0o7777
}

/// Before 1970 there is nothing in a tar's header.
fn mtime(metadata: &Metadata) -> u64 {
    u64::try_from(metadata.mtime()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_shrinks_is_an_error() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(&folder.path().join("store")).expect("opens");
        let path = folder.path().join("file");
        fs::write(&path, "abc").expect("writes");
        let before = fs::metadata(&path).expect("is there");
        fs::write(&path, "a").expect("writes");
        let mut packer = Packer { tar: BufWriter::new(store.new_blob().expect("begins")), links: BTreeMap::new() };
        let error = packer.file(&path, Path::new("file"), &before).expect_err("is shorter");
        assert!(error.chain().concat().contains("became shorter"), "{error:?}");
    }
}
