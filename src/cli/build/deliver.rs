//! Sending an image on its way: to registries while layers are still being packed, to layouts and archives.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::options::{Options, Output};
use crate::cli::summary::LayerRow;
use crate::cli::world::World;
use crate::image::{self, Artifact, ArtifactFile, Image};
use crate::lock;
use crate::model::Blob;
use crate::ship::{self, Lost};
use crate::util::report::{Outcome, Reporter, Step};
use crate::util::{Digest, Error, Result, human, plural};

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
    let wanted = |blob: &Blob| options.writes(&blob.digest, blob.size);
    let localised = image::localise(images, world, options.environment.downloads, wanted).await;
    options.environment.about_base(localised)?;
    progress.finish(&Outcome::Quiet {});
    let new = new_in_layouts(options, images);
    let tags: Vec<String> = options.tags.iter().map(ToString::to_string).collect();
    // In a layout, a tag names the image; in an archive the whole reference does, which engines load it under.
    let in_layout: Vec<String> = options.tags.iter().filter_map(|tag| tag.tag().map(str::to_owned)).collect();
    for output in &options.outputs {
        let (output, images, tags, in_layout) = (output.clone(), images.to_vec(), tags.clone(), in_layout.clone());
        let (progress, reporter) = (world.reporter.begin(Step::Write, 0), world.reporter.clone());
        let writing = tokio::task::spawn_blocking(move || -> Result<()> {
            let written = match (&output, images.as_slice()) {
                (Output::Layout(folder, Some(tag)), _) => {
                    image::write_layout(&images, folder, [tag.as_str()], progress.as_ref())
                }
                (Output::Layout(folder, None), _) => {
                    image::write_layout(&images, folder, in_layout.iter().map(String::as_str), progress.as_ref())
                }
                (Output::OciArchive(file), _) => {
                    image::write_oci_archive(&images, file, tags.iter().map(String::as_str), progress.as_ref())
                }
                (Output::DockerArchive(file), [image]) => {
                    image::write_docker_archive(image, file, &tags, progress.as_ref())
                }
                (Output::DockerArchive(_), _) => {
                    Err(Error::usage("a docker archive holds one platform").hint("write an `oci-archive:FILE`"))
                }
            }?;
            if let Output::Layout(folder, _) = &output {
                tell_unused(folder, reporter.as_ref());
            }
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
    let missing =
        |folder| layers().filter(move |layer| !image::layout_has(folder, &layer.blob.digest, layer.blob.size));
    let first = layouts.next()?;
    Some(missing(first).chain(layouts.flat_map(missing)).map(|layer| layer.blob.digest).collect())
}

/// Says how much of a layout belongs to images that were replaced. It is left there: something may be reading it.
fn tell_unused(folder: &Path, reporter: &dyn Reporter) {
    let Ok(unused) = image::unused_blobs(folder) else { return };
    if unused.count > 0 {
        let folder = folder.display();
        reporter.notice(&format!(
            "{} of `oci:{folder}` ({}) belong to no image any more: `condaimg cache prune --layout {folder}` removes them",
            plural(unused.count, "blob"),
            human(unused.size)
        ));
    }
}
