//! `condaimg build`: environment → image; written to files and pushed to registries.

mod config;
mod deliver;
mod layers;
mod locking;
mod options;

use std::sync::Arc;

use super::args::{BuildArgs, Global};
use super::summary::{LayerRow, Metadata, delivery, table};
use super::world::World;
use crate::image::{self, Base, Image};
use crate::lock;
use crate::model::LayerBlob;
use crate::registry::Registry;
use crate::ship::{Delivered, Pusher};
use crate::spec;
use crate::store::Store;
use crate::util::report::{SharedReporter, Step};
use crate::util::{Digest, Error, Result, files};
use layers::MadeLayer;
use options::Options;

/// Runs the command.
///
/// # Errors
/// Whatever is wrong with the user's input or the world; nothing half-done is left behind.
pub async fn run(args: BuildArgs, global: Global, reporter: SharedReporter) -> Result<()> {
    let options = Options::new(args, &global)?;
    let spec = spec::read(&options.path)?;
    for notice in &spec.notices {
        reporter.notice(notice);
    }
    let world = World {
        store: Store::open(&options.cache_dir)?,
        registry: Registry::new(options.args.registry.options(&options.tags))?,
        reporter,
        offline: options.args.offline,
    };
    let (lock, base) = locking::obtain(&options, &spec, &world).await?;
    for warning in lock::warnings(&lock) {
        world.reporter.warn(&warning);
    }
    let lock = Arc::new(lock);
    let lock_digest = Digest::of(lock::normalised(&lock, &options.parameters)?);

    let target = layers::target(&lock, &options.parameters)?;
    let user = config::user(&options, &lock, &base, &world);
    config::check_entrypoint(&options, &lock, &world);
    let (ready, packed) = tokio::sync::mpsc::unbounded_channel();
    for layer in &base.layers {
        // The receiver lives as long as this function.
        let _ = ready.send(layer.blob.clone());
    }
    let making = layers::make(&lock, &options, &spec, target, user, &world, ready);
    let (made, pusher) = if options.args.push {
        let progress = Arc::from(world.reporter.begin(Step::Push, 0));
        let pushing = Pusher::new(&world.registry, &world.store, &options.tags, Arc::clone(&progress)).receive(packed);
        let (made, pusher) = both(making, pushing).await?;
        (made, Some((pusher, progress)))
    } else {
        drop(packed);
        (making.await?, None)
    };

    let mut image =
        config::image(&options, &lock, lock_digest, &base, made.iter().map(|layer| layer.layer.clone()), user)?;
    let mut delivered = Delivered::default();
    if let Some((mut pusher, progress)) = pusher {
        pusher.begin(image.config.clone());
        delivered = pusher.finish(&image::documents(std::slice::from_ref(&image))?).await?;
        progress.finish(&delivery(&delivered));
    }
    deliver::write(&options, std::slice::from_mut(&mut image), &world).await?;
    conclude(&options, &image, &base, made, &delivered, lock_digest, &world)
}

/// Packs and pushes at once. An error of either ends both; when packing fails, the pusher ends because nothing
/// more comes, so the packer's error is the one to tell.
async fn both<A, B>(
    making: impl Future<Output = Result<A>>,
    pushing: impl Future<Output = Result<B>>,
) -> Result<(A, B)> {
    tokio::pin!(making, pushing);
    tokio::select! {
        made = &mut making => {
            let made = made?;
            Ok((made, pushing.await?))
        }
        pushed = &mut pushing => {
            let pushed = pushed?;
            Ok((making.await?, pushed))
        }
    }
}

/// Tells people and pipelines what came of it.
fn conclude(
    options: &Options,
    image: &Image,
    base: &Base,
    made: Vec<MadeLayer>,
    delivered: &Delivered,
    lock: Digest,
    world: &World,
) -> Result<()> {
    let digest = image.manifest.digest;
    let rows = rows(base, made);
    world.reporter.notice(&table(&rows));
    let tags: Vec<String> = options.tags.iter().map(ToString::to_string).collect();
    let metadata = Metadata {
        digest,
        config_digest: image.config.digest,
        platform: options.platform.to_string(),
        tags: tags.clone(),
        pushed: options.args.push,
        outputs: options.outputs.iter().map(options::Output::shown).collect(),
        size: rows.iter().map(|row| row.size).sum(),
        uploaded_bytes: delivered.bytes,
        lock,
        layers: rows,
    };
    if let Some(file) = &options.args.metadata_file {
        let mut json = serde_json::to_vec_pretty(&metadata)
            .map_err(|error| Error::bug("the metadata has no JSON form").caused_by(error))?;
        json.push(b'\n');
        files::write_atomic(file, &json)?;
    }
    if let Some(file) = &options.args.digest_file {
        files::write_atomic(file, format!("{digest}\n").as_bytes())?;
    }
    let lines = match options.args.push {
        true => options.tags.iter().map(|tag| format!("{}/{}@{digest}\n", tag.registry(), tag.repository())).collect(),
        false => format!("{digest}\n"),
    };
    crate::cli::print_data(lines.as_bytes())
}

fn rows(base: &Base, made: Vec<MadeLayer>) -> Vec<LayerRow> {
    let row = |layer: &LayerBlob, name: &str, packages, new| LayerRow {
        name: name.to_owned(),
        packages,
        size: layer.blob.size,
        digest: layer.blob.digest,
        diff_id: layer.diff_id,
        new,
    };
    let base = base.layers.iter().map(|layer| row(layer, "base", Vec::new(), false));
    let ours = made.into_iter().map(|made| row(&made.layer, &made.layer.name, made.packages, made.new));
    base.chain(ours).collect()
}
