//! Bases from a root file system: a tar, taken byte for byte, or a folder, made into a tar whose bytes depend
//! on nothing but the folder's names, contents, modes and times.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::BufWriter;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use fs_err as fs;

use super::{Base, empty_config, media};
use crate::image::codec::{Codec, Measured, measure};
use crate::image::tarball::{Stamp, Tarball};
use crate::model::{Blob, BlobSource, LayerBlob, Platform};
use crate::store::{BlobWriter, Store};
use crate::util::{DiffId, Error, Result, ResultExt as _};

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
    Ok(Base { reference: String::new(), digest: measured.digest, config, layers: vec![layer] })
}

/// Reads a tar once: its digests, and whether it is a tar at all.
fn inspect(path: &Path) -> Result<Measured> {
    let (measured, entries) = measure(fs::File::open(path)?, |plain| {
        let mut archive = tar::Archive::new(plain);
        let mut count = 0_u64;
        for entry in archive.entries()? {
            entry?;
            count += 1;
        }
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
    let mut packer = Packer {
        tarball: Tarball::new(BufWriter::with_capacity(256 * 1024, store.new_blob()?)),
        links: BTreeMap::new(),
    };
    packer.children(folder, Path::new(""))?;
    let writer = packer.tarball.finish()?.into_inner().map_err(std::io::IntoInnerError::into_error)?;
    let (digest, size) = writer.finish(None)?;
    Ok((Measured { codec: Codec::Plain, digest, size, diff_id: DiffId(digest) }, store.blob(&digest)))
}

struct Packer {
    tarball: Tarball<BufWriter<BlobWriter>>,
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
        let stamp = Stamp {
            mode: metadata.mode() & 0o7777,
            // Before 1970 there is nothing in a tar's header.
            mtime: u64::try_from(metadata.mtime()).unwrap_or(0),
        };
        let kind = metadata.file_type();
        if kind.is_dir() {
            self.tarball.folder(inside, stamp)?;
            self.children(path, inside)
        } else if kind.is_symlink() {
            self.tarball.symlink(inside, &fs::read_link(path)?, stamp)
        } else if kind.is_file() {
            self.file(path, inside, &metadata, stamp)
        } else {
            // Devices, pipes and sockets: the runtime makes those that a container needs.
            Ok(())
        }
    }

    fn file(&mut self, path: &Path, inside: &Path, metadata: &std::fs::Metadata, stamp: Stamp) -> Result<()> {
        if metadata.nlink() > 1 {
            let identity = (metadata.dev(), metadata.ino());
            if let Some(first) = self.links.get(&identity) {
                return self.tarball.hard_link(inside, first, stamp);
            }
            self.links.insert(identity, inside.to_owned());
        }
        let file = fs::File::open(path)?;
        self.tarball
            .file(inside, metadata.len(), stamp, file)
            .context(|| format!("`{}` cannot be packed", path.display()))
    }
}
