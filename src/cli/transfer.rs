//! `condaimg push` and `condaimg copy`: images from where they are to where they are wanted.

use std::path::Path;
use std::sync::Arc;

use super::args::{CopyArgs, Global, PushArgs, TransferArgs};
use super::events::{self, Moved, shown};
use super::summary;
use super::world::{World, cache_dir};
use crate::model::BaseRef;
use crate::registry::{Reference, Registry};
use crate::ship::{Carrier, Copied, CopyOptions, Destination};
use crate::util::report::{Outcome, SharedReporter, Step};
use crate::util::{Error, Result, files};

/// Runs `push`.
///
/// # Errors
/// When the layout cannot be read, or a registry refuses or does not answer.
pub async fn push(args: PushArgs, global: Global, reporter: SharedReporter) -> Result<()> {
    let targets =
        args.targets.iter().map(|target| Registry::parse_target(plain(target))).collect::<Result<Vec<_>>>()?;
    let source = layout(&args.layout)?;
    let world = world(&args.transfer, &targets, &global, reporter)?;
    let mut lines = String::new();
    let mut moved = Vec::new();
    for target in targets {
        let to = Destination::Registry(target);
        let copied = transfer(&source, &to, &args.transfer, &world).await?;
        lines.push_str(&line(&copied, &to));
        moved.push((to, copied));
    }
    world.reporter.event(&events::moved(&moved));
    crate::cli::terminal::print_data(lines.as_bytes())
}

/// Runs `copy`.
///
/// # Errors
/// When the source cannot be read, or the destination cannot be written.
pub async fn copy(args: CopyArgs, global: Global, reporter: SharedReporter) -> Result<()> {
    let source = match plain(&args.source).parse()? {
        BaseRef::Registry(reference) => BaseRef::Registry(Registry::parse(&reference)?.whole()),
        local => local,
    };
    let destination = destination(plain(&args.destination))?;
    let targets: Vec<Reference> = match &destination {
        Destination::Registry(target) => vec![target.clone()],
        _ => Vec::new(),
    };
    let world = world(&args.transfer, &targets, &global, reporter)?;
    let copied = transfer(&source, &destination, &args.transfer, &world).await?;
    let line = line(&copied, &destination);
    world.reporter.event(&events::moved(&[(destination, copied)]));
    crate::cli::terminal::print_data(line.as_bytes())
}

/// Copies, and tells what was done.
async fn transfer(source: &BaseRef, to: &Destination, args: &TransferArgs, world: &World) -> Result<Moved> {
    let options = CopyOptions {
        platform: args.platform.as_deref().map(str::parse).transpose()?,
        referrers: !args.no_referrers,
        merge_index: args.merge_index,
    };
    let step = if matches!(to, Destination::Registry(_)) { Step::Push } else { Step::Write };
    let progress = Arc::from(world.reporter.begin(step, 0));
    let carrier = Carrier { registry: &world.registry, store: &world.store, progress: Arc::clone(&progress) };
    let copied = carrier.copy(source, to, &options).await?;
    progress.finish(&outcome(&copied, to));
    if copied.left_behind > 0 {
        let count = copied.left_behind;
        let why = match to {
            Destination::Registry(_) => "the destination has others under their tags",
            _ => "layouts and archives have no place for what cosign keeps under tags of its own",
        };
        world.reporter.warn(&format!("{count} of cosign's signatures and attestations stay behind: {why}"));
    }
    let digest = copied.digest.ok_or_else(|| Error::bug("nothing was copied"))?;
    if let Some(file) = &args.digest_file {
        files::write_atomic(file, format!("{digest}\n").as_bytes())?;
    }
    Ok(Moved { digest, bytes: copied.delivered.bytes + copied.written, referrers: copied.referrers })
}

/// What is printed of a copy.
fn line(moved: &Moved, to: &Destination) -> String {
    let digest = &moved.digest;
    match to {
        Destination::Registry(target) => format!("{}/{}@{digest}\n", target.registry(), target.repository()),
        _ => format!("{digest}\n"),
    }
}

fn outcome(copied: &Copied, to: &Destination) -> Outcome {
    match to {
        Destination::Registry(_) => summary::pushed(&copied.delivered, copied.referrers),
        files => Outcome::Written { output: shown(files), bytes: copied.written, referrers: copied.referrers },
    }
}

fn world(args: &TransferArgs, targets: &[Reference], global: &Global, reporter: SharedReporter) -> Result<World> {
    World::open(&cache_dir(global)?, args.registry.options(targets), reporter, false)
}

/// Without the scheme that skopeo's users write before references.
fn plain(text: &str) -> &str {
    text.strip_prefix("docker://").unwrap_or(text)
}

/// A layout as it is typed: with or without its kind.
fn layout(text: &str) -> Result<BaseRef> {
    if let local @ (BaseRef::Layout(..) | BaseRef::OciArchive(_) | BaseRef::DockerArchive(_)) = text.parse()? {
        return Ok(local);
    }
    match files::find(Path::new(text))? {
        Some(file) if file.is_file() => return Ok(BaseRef::OciArchive(text.into())),
        Some(folder) if folder.is_dir() => return Ok(BaseRef::Layout(text.into(), None)),
        _ => {}
    }
    match format!("oci:{text}").parse()? {
        BaseRef::Layout(folder, tag) if folder.is_dir() => Ok(BaseRef::Layout(folder, tag)),
        _ => Err(Error::user(format!("there is no layout `{text}`"))
            .hint("`condaimg build --output oci:DIR` makes one; `condaimg copy` takes images from registries")),
    }
}

fn destination(text: &str) -> Result<Destination> {
    match text.parse()? {
        BaseRef::Registry(reference) => Registry::parse_target(&reference).map(Destination::Registry),
        BaseRef::Layout(folder, tag) => Ok(Destination::Layout(folder, tag)),
        BaseRef::OciArchive(file) => Ok(Destination::OciArchive(file)),
        BaseRef::DockerArchive(_) | BaseRef::Rootfs(_) | BaseRef::Scratch => {
            Err(Error::usage(format!("an image cannot be copied to `{text}`"))
                .hint("name an image reference, oci:DIR[:TAG] or oci-archive:FILE"))
        }
    }
}
