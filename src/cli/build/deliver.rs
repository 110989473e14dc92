//! Sending an image on its way: to registries while layers are still being packed, to layouts and archives.

use std::collections::{BTreeMap, BTreeSet};

use super::options::{Options, Output};
use crate::cli::summary::LayerRow;
use crate::cli::world::World;
use crate::image::{self, Artifact, ArtifactFile, Image};
use crate::lock;
use crate::model::Blob;
use crate::ship::{self, Lost};
use crate::util::report::{Outcome, Step};
use crate::util::{Digest, Error, Result};

/// The lock of an image as something to attach to it.
pub fn lock_of(image: &Image, text: String) -> Result<Artifact> {
    let subject = image::platform_entry(&image.manifest, &image.platform)?;
    let file =
        ArtifactFile { blob: Blob::from_bytes(lock::MEDIA_TYPE, text.into_bytes()), title: "condaimg.lock".to_owned() };
    image::artifact(&subject, lock::MEDIA_TYPE, &[file], &BTreeMap::new())
}

/// What a registry did not have any more, for people.
pub fn told<'a>(lost: &Lost, layers: impl Iterator<Item = &'a LayerRow>) -> String {
    let gone = layers.filter(|layer| lost.digests.contains(&layer.digest));
    let names: BTreeSet<String> = gone.map(|layer| format!("`{}`", layer.name)).collect();
    let what = match names.len() {
        0 => "something that the image needs".to_owned(),
        1 => format!("the layer {}", names.into_iter().collect::<String>()),
        _ => format!("each of the layers {}", names.into_iter().collect::<Vec<_>>().join(", ")),
    };
    let why = lost.error.chain().join(": ");
    format!("{what} is gone from the registry meanwhile (garbage collection?) and is made or sent again: {why}")
}

/// Attaches the locks to the images in the registries of all tags. The images are there already: what goes wrong is a
/// warning.
pub async fn attach(options: &Options, locks: &[Artifact], world: &World) {
    for lock in locks {
        if let Err(error) = ship::attach(&world.registry, &options.tags, lock).await {
            let why = error.chain().join(": ");
            world.reporter.warn(&format!(
                "the image is pushed, but its lock is not attached to it: {why} (`--no-referrers` leaves it out)"
            ));
            return;
        }
    }
}

/// Writes the image, of one platform or several, to all `--output`s. Returns the layers that one of the layouts did not
/// have; nothing when none of them is a layout.
pub async fn write(options: &Options, images: &mut [Image], world: &World) -> Result<Option<BTreeSet<Digest>>> {
    if options.outputs.is_empty() {
        return Ok(None);
    }
    let progress = world.reporter.begin(Step::Fetch, 0);
    options.environment.about_base(image::localise(images, world, options.environment.downloads).await)?;
    progress.finish(&Outcome::Quiet {});
    let new = new_in_layouts(options, images);
    let tags: Vec<String> = options.tags.iter().map(ToString::to_string).collect();
    // In a layout, a tag names the image; in an archive the whole reference does, which engines load it under.
    let in_layout = options.tags.first().and_then(|tag| tag.tag().map(str::to_owned));
    for output in &options.outputs {
        let (output, images, tags, in_layout) = (output.clone(), images.to_vec(), tags.clone(), in_layout.clone());
        let progress = world.reporter.begin(Step::Write, 0);
        let writing = tokio::task::spawn_blocking(move || -> Result<()> {
            let first = tags.first().map(String::as_str);
            let written = match (&output, images.as_slice()) {
                (Output::Layout(folder, tag), _) => {
                    let tag = tag.as_deref().or(in_layout.as_deref());
                    image::write_layout(&images, folder, tag, progress.as_ref())
                }
                (Output::OciArchive(file), _) => image::write_oci_archive(&images, file, first, progress.as_ref()),
                (Output::DockerArchive(file), [image]) => {
                    image::write_docker_archive(image, file, &tags, progress.as_ref())
                }
                (Output::DockerArchive(_), _) => {
                    Err(Error::usage("a docker archive holds one platform").hint("write an `oci-archive:FILE`"))
                }
            }?;
            let bytes = written.bytes_written;
            progress.finish(&Outcome::Written { output: output.shown(), bytes, referrers: 0 });
            Ok(())
        });
        writing.await.map_err(|error| Error::bug("writing ended early").caused_by(error))??;
    }
    Ok(new)
}

/// The layers that one of the layouts does not have yet.
fn new_in_layouts(options: &Options, images: &[Image]) -> Option<BTreeSet<Digest>> {
    let mut layouts = options.outputs.iter().filter_map(|output| match output {
        Output::Layout(folder, _) => Some(folder.as_path()),
        Output::OciArchive(_) | Output::DockerArchive(_) => None,
    });
    let layers = || images.iter().flat_map(|image| &image.layers);
    let missing = |folder| layers().filter(move |layer| !image::layout_has(folder, &layer.blob));
    let first = layouts.next()?;
    Some(missing(first).chain(layouts.flat_map(missing)).map(|layer| layer.blob.digest).collect())
}
