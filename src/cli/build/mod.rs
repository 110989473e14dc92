//! `condaimg build`: environment → image, for one platform or several; written to files and pushed to registries.

mod config;
mod deliver;
pub mod known;
pub mod layers;
mod noting;
mod once;
pub mod options;
mod packing;
pub mod project;
pub mod room;
mod settings;
mod standing;

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::mpsc::UnboundedSender;

use super::args::{BuildArgs, Global};
use super::events::{self, Goal};
use super::locking::{self, Locked, cached};
use super::summary::{self, LayerRow, Metadata, PlatformMetadata};
use super::world::World;
use crate::image::{self, Artifact, Base, Image};
use crate::lock::{self, Lock};
use crate::model::LayerBlob;
use crate::pack::environment;
use crate::ship::{Delivered, Lost, NewEntry, Pusher};
use crate::spec::{self, Spec};
use crate::util::report::{SharedReporter, Step};
use crate::util::{Digest, Error, Result, files};
use layers::{MadeLayer, Parts};
use noting::{Noting, Ready};
use once::Once;
use options::Options;
use project::{Chosen, Project};

/// All that a build is made of.
pub struct Prepared {
    pub options: Options,
    pub spec: Spec,
    pub world: World,
    /// The platforms with their locks, which have facts.
    pub platforms: Vec<Locked>,
    /// The project files.
    pub chosen: Option<Chosen>,
}

/// Reads what is to be built, locks it, and chooses the project files.
///
/// # Errors
/// Whatever is wrong with the user's input or the world.
pub async fn prepare(args: BuildArgs, global: &Global, reporter: SharedReporter) -> Result<Prepared> {
    prepare_for(None, args, global, reporter).await
}

/// As [`prepare`]; `command`, if there is one, is told first of all, with what it will do.
async fn prepare_for(
    command: Option<&'static str>,
    args: BuildArgs,
    global: &Global,
    reporter: SharedReporter,
) -> Result<Prepared> {
    let spec = spec::read_with(&args.environment.path(), &args.environment.choices())?;
    let mut args = settings::fill(args, &spec.settings)?;
    // A lock that is named is used as it is: there is nothing that it could be stale against.
    args.frozen |= spec.is_lock;
    if spec.is_lock && args.refresh_stability {
        return Err(Error::usage(format!("`--refresh-stability` would change the lock `{}`", spec.file.display()))
            .hint("name the file that it was made from"));
    }
    let mut options = Options::new(args, global)?;
    locking::adopt_base(&mut options.environment, &spec)?;
    if let Some(command) = command {
        let goal = if command == "build" { options.goal() } else { Goal::default() };
        reporter.event(&events::start(command, &spec, &options.environment, goal));
    }
    for notice in &spec.notices {
        reporter.notice(notice);
    }
    let written = options.tags.iter().chain(&options.cache_registry);
    let registries = options.args.environment.registry.options(written);
    let offline = options.args.environment.offline;
    let mut world = World::open(&options.environment.cache_dir, registries, Arc::new(Once::new(reporter)), offline)?;
    world.cache = options.cache_registry.clone().filter(|_| !offline && !options.args.no_cache);
    let project = Project::new(&options, &spec)?;
    let mut platforms = locking::obtain(&options.environment, &spec, &world).await?;
    for Locked { platform, base, .. } in &platforms {
        options.environment.named(platform, room::check(&options, base, project.is_some(), &world))?;
    }
    for Locked { platform, lock, base, .. } in &mut platforms {
        let complete = locking::facts::complete(&options.environment, &spec, Lock::clone(lock), &world).await;
        let complete = options.environment.named(platform, complete)?;
        let complete = locking::base::with_whole_facts(&options.environment, complete, base, &world).await;
        *lock = Arc::new(options.environment.named(platform, complete)?);
    }
    options.adopt(&platforms)?;
    let chosen = choose(project, &options, &world).await?;
    for locked in &platforms {
        let checked = standing::check(&options, locked, chosen.as_ref(), &world).await;
        options.environment.named(&locked.platform, checked)?;
    }
    Ok(Prepared { options, spec, world, platforms, chosen })
}

/// What the layers of one platform are made of.
pub fn parts<'a>(options: &Options, locked: &'a Locked, chosen: Option<&Chosen>, world: &World) -> Result<Parts<'a>> {
    let Locked { platform, lock, base, made } = locked;
    let target = layers::target(lock, &options.parameters)?;
    let user = config::user(options, lock, base, world);
    let session = config::session(options, lock, base, user)?;
    let project = chosen.map(|chosen| chosen.layer(lock, &target, &session)).transpose()?;
    let max_layers = room::max_layers(options, base)?;
    Ok(Parts { lock, made: *made, platform, base, target, session, max_layers, project })
}

/// Runs the command.
///
/// # Errors
/// Whatever is wrong with the user's input or the world; nothing half-done is left behind.
pub async fn run(args: BuildArgs, global: Global, reporter: SharedReporter) -> Result<()> {
    let prepared = prepare_for(Some("build"), args, &global, reporter).await?;
    let Prepared { options, world, .. } = &prepared;
    let (noting, entries) = Noting::begin(options, world);
    let (made, delivered, new_in_registries) = match options.args.push {
        true => make_and_push(&prepared, entries).await?,
        false => {
            let made = make_all(&prepared, &BTreeSet::new(), Ready::unpushed(entries)).await?;
            (made, Delivered::default(), BTreeSet::new())
        }
    };

    let locks: Vec<Artifact> = made.iter().map(|made| made.attachment.clone()).collect();
    let (mut images, summaries): (Vec<Image>, Vec<PlatformMetadata>) =
        made.into_iter().map(|made| (made.image, made.summary)).unzip();
    let digest = image::documents(&images)?.last().ok_or_else(|| Error::bug("a build of no platform"))?.digest;
    let delivering = async {
        if options.args.push && !options.args.no_referrers {
            deliver::attach(options, &locks, world).await;
        }
        deliver::write(options, &mut images, world).await
    };
    let noting = async {
        noting.end().await;
        Ok(())
    };
    let (new_in_layouts, ()) = tokio::try_join!(delivering, noting)?;
    let new = match (options.args.push, new_in_layouts) {
        (true, _) => new_in_registries,
        (false, Some(new)) => new,
        // An archive is written whole.
        (false, None) => summaries.iter().flat_map(|it| &it.layers).filter(|it| it.new).map(|it| it.digest).collect(),
    };
    conclude(options, digest, summaries, &new, &delivered, world)
}

/// The arguments of a build with what its file says where they say nothing.
///
/// # Errors
/// When there is no such file, or it is wrong.
pub fn completed(args: &BuildArgs) -> Result<BuildArgs> {
    let spec = spec::read_with(&args.environment.path(), &args.environment.choices())?;
    settings::fill(args.clone(), &spec.settings)
}

/// Makes the images and writes them nowhere: afterwards the store has all of their layers, the base's, too.
///
/// # Errors
/// Those of a build.
pub async fn into_store(
    args: BuildArgs,
    global: &Global,
    reporter: SharedReporter,
) -> Result<(Vec<Image>, Vec<PlatformMetadata>)> {
    let prepared = prepare_for(Some("warm"), args, global, reporter).await?;
    let made = make_all(&prepared, &BTreeSet::new(), Ready::nobody()).await?;
    let (mut images, summaries): (Vec<Image>, Vec<PlatformMetadata>) =
        made.into_iter().map(|made| (made.image, made.summary)).unzip();
    image::localise(&mut images, &prepared.world, prepared.options.environment.downloads).await?;
    Ok((images, summaries))
}

/// The project files as they are now that the lock, which may lie among them, is written.
async fn choose(project: Option<Project>, options: &Options, world: &World) -> Result<Option<Chosen>> {
    let Some(project) = project else { return Ok(None) };
    let (jobs, reporter) = (options.environment.jobs, world.reporter.clone());
    let choosing = tokio::task::spawn_blocking(move || project.choose(jobs, reporter.as_ref()));
    Ok(Some(choosing.await.map_err(|error| Error::bug("reading the project files ended early").caused_by(error))??))
}

/// The image of one platform, and what there is to tell of it.
struct Made {
    image: Image,
    summary: PlatformMetadata,
    /// Its lock, to be attached to it.
    attachment: Artifact,
}

/// Makes the images of all platforms and pushes them meanwhile. Layers that were in a registry when they were looked
/// for, and are not there when they are needed (its garbage collection ran), are made after all; once. The last of what
/// it returns are the blobs that a repository did not have.
async fn make_and_push(
    prepared: &Prepared,
    entries: UnboundedSender<NewEntry>,
) -> Result<(Vec<Made>, Delivered, BTreeSet<Digest>)> {
    let Prepared { options, world, .. } = prepared;
    let progress = Arc::from(world.reporter.begin(Step::Push, 0));
    let mut pusher = Pusher::new(&world.registry, &world.store, &options.tags, Arc::clone(&progress))
        .mounting_from(options.cache_registry.as_ref());
    let mut lost: Option<Lost> = None;
    loop {
        let (blobs, packed) = tokio::sync::mpsc::unbounded_channel();
        let ready = Ready::new(blobs, entries.clone());
        let gone = lost.as_ref().map(|lost| lost.digests.clone()).unwrap_or_default();
        let (made, ()) = both(make_all(prepared, &gone, ready), pusher.receive(packed)).await?;
        let images: Vec<Image> = made.iter().map(|made| made.image.clone()).collect();
        match pusher.deliver(&image::documents(&images)?).await? {
            Ok(delivered) => {
                progress.finish(&summary::pushed(&delivered, 0));
                return Ok((made, delivered, pusher.new_blobs()));
            }
            Err(again) if lost.is_some() => return Err(again.error),
            Err(now) => {
                world.reporter.notice(&deliver::told(&now, made.iter().flat_map(|made| &made.summary.layers)));
                lost = Some(now);
            }
        }
    }
}

/// Makes the images of all platforms, one after the other, so that they need no more memory than one. Each blob goes
/// to `ready` as soon as it is whole. No registry is believed to have what is `gone`.
async fn make_all(prepared: &Prepared, gone: &BTreeSet<Digest>, ready: Ready) -> Result<Vec<Made>> {
    let Prepared { options, world, platforms, .. } = prepared;
    let mut made = Vec::with_capacity(platforms.len());
    for locked in platforms {
        if platforms.len() > 1 {
            world.reporter.event(&events::platform(&locked.platform));
        }
        made.push(options.environment.named(&locked.platform, make(prepared, locked, gone, &ready).await)?);
    }
    Ok(made)
}

/// Makes the image of one platform.
async fn make(prepared: &Prepared, locked: &Locked, gone: &BTreeSet<Digest>, ready: &Ready) -> Result<Made> {
    let Prepared { options, world, chosen, .. } = prepared;
    let Locked { platform, lock, base, made } = locked;
    for warning in lock::warnings(lock) {
        world.reporter.warn(&warning);
    }
    let parts = parts(options, locked, chosen.as_ref(), world)?;
    let lock_text = lock::normalised(lock, &room::parameters(options, base)?)?;
    let lock_digest = Digest::of(&lock_text);
    let session = parts.session.clone();
    config::tell_home(&session, lock, base, world);
    environment::login_notice(&lock.base.facts).iter().for_each(|notice| world.reporter.notice(notice));
    config::tell_activation(options, lock, world);
    base.layers.iter().try_for_each(|layer| ready.base_layer(layer))?;
    cached::entry(lock, *made)?.into_iter().for_each(|entry| ready.entry(entry));
    let made = layers::make(parts, prepared, gone, ready.clone()).await?;
    let layers = made.iter().map(|layer| layer.layer.clone());
    let image = config::image(options, platform, lock, lock_digest, base, layers, session)?;
    ready.blob(&image.config);
    let rows = rows(base, made);
    let summary = PlatformMetadata {
        platform: platform.to_string(),
        digest: image.manifest.digest,
        config_digest: image.config.digest,
        lock: lock_digest,
        size: rows.iter().map(|row| row.size).sum(),
        layers: rows,
    };
    let attachment = deliver::lock_of(&image, lock_text)?;
    Ok(Made { image, summary, attachment })
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
    digest: Digest,
    platforms: Vec<PlatformMetadata>,
    new: &BTreeSet<Digest>,
    delivered: &Delivered,
    world: &World,
) -> Result<()> {
    let references = match options.args.push {
        true => options.tags.iter().map(|tag| format!("{}/{}@{digest}", tag.registry(), tag.repository())).collect(),
        false => Vec::new(),
    };
    let built = events::Built {
        digest,
        references: &references,
        goal: options.goal(),
        platforms: &platforms,
        new,
        uploaded_bytes: delivered.bytes,
    };
    world.reporter.event(&built.event(options.args.all_layers));
    if let Some(file) = &options.args.metadata_file {
        let Goal { tags, outputs, .. } = options.goal();
        let metadata = Metadata::new(digest, platforms, tags, options.args.push, outputs, delivered.bytes);
        let mut json = serde_json::to_vec_pretty(&metadata)
            .map_err(|error| Error::bug("the metadata has no JSON form").caused_by(error))?;
        json.push(b'\n');
        files::write_atomic(file, &json)?;
    }
    if let Some(file) = &options.args.digest_file {
        files::write_atomic(file, format!("{digest}\n").as_bytes())?;
    }
    let lines = match options.args.push {
        true => references.iter().map(|reference| format!("{reference}\n")).collect(),
        false => format!("{digest}\n"),
    };
    crate::cli::terminal::print_data(lines.as_bytes())
}

fn rows(base: &Base, made: Vec<MadeLayer>) -> Vec<LayerRow> {
    let row = |layer: &LayerBlob, name: &str, packages, files, new| LayerRow {
        name: name.to_owned(),
        packages,
        files,
        size: layer.blob.size,
        digest: layer.blob.digest,
        diff_id: layer.diff_id,
        new,
    };
    let base = base.layers.iter().map(|layer| row(layer, "base", Vec::new(), None, false));
    let ours = made.into_iter().map(|made| row(&made.layer, &made.layer.name, made.packages, made.files, made.new));
    base.chain(ours).collect()
}
