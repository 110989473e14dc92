//! Writing what `docker load` and `podman load` read, as `docker save` writes it. The layers are uncompressed:
//! every reader takes them so.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use serde_json::json;

use super::archive::{FILE, MTIME};
use super::output::{OutputFile, Written};
use super::{Image, codec, copy};
use crate::util::json::canonical;
use crate::util::report::Progress;
use crate::util::{Error, Result, ResultExt as _, tarball};

/// Writes an image of one platform as a docker archive; equal images give equal bytes. `tags` are whole
/// references (`HOST/NAME:TAG`). Layers must be on this machine (see [`super::localise`]). The digest returned
/// is that of the image's manifest, which such an archive does not hold.
///
/// # Errors
/// When a source is damaged or the disk is full; an archive that was there is then left as it was.
pub fn write_docker_archive(image: &Image, path: &Path, tags: &[String], progress: &dyn Progress) -> Result<Written> {
    progress.grow(image.size() - image.manifest.size);
    let bytes_written = write(image, path, tags, progress)
        .context(|| format!("the image cannot be written to `{}`", path.display()))?;
    Ok(Written { digest: image.manifest.digest, bytes_written })
}

fn write(image: &Image, path: &Path, tags: &[String], progress: &dyn Progress) -> Result<u64> {
    let mut output = OutputFile::create(path)?;
    let config = format!("{}.json", image.config.digest.hex());
    let layers: Vec<String> = image.layers.iter().map(|layer| format!("{}.tar", layer.diff_id.0.hex())).collect();
    let manifest = canonical(&json!([{"Config": config, "RepoTags": tags, "Layers": layers}]))?;
    tarball::file(&mut output, "manifest.json", &manifest, FILE, MTIME)?;
    let copy = |output: &mut dyn io::Write| copy::copy_blob(&image.config, output, progress);
    tarball::file_from(&mut output, config, image.config.size, FILE, MTIME, copy)?;
    let mut seen = BTreeSet::new();
    for (layer, name) in image.layers.iter().zip(&layers) {
        // A base may have the same layer twice.
        if !seen.insert(layer.diff_id) {
            continue;
        }
        let file = copy::file_of(&layer.blob)?;
        tarball::file_of_any_size(&mut output, name, FILE, MTIME, |output| {
            codec::read_layer(file, &layer.blob.digest, &layer.diff_id, |plain| {
                io::copy(plain, output).map_err(Error::from)?;
                Ok(())
            })
        })?;
        progress.advance(layer.blob.size);
    }
    tarball::end(&mut output)?;
    output.finish()
}
