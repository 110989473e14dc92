//! `condaimg plan`: which package goes into which layer, why, and what an update is expected to cost. It goes the way of
//! a build as far as the plan, and no further. It writes nothing but the local cache, and a lock only if asked to.

mod report;
mod table;

use super::args::{Global, PlanArgs};
use super::build::known::in_store;
use super::build::layers::{Parts, environment_tar, planned, project_key, removals_tar};
use super::build::options::Options;
use super::build::room;
use super::build::{Prepared, parts, prepare};
use super::locking::Locked;
use super::terminal::{print_json, print_table};
use super::world::World;
use crate::lock;
use crate::model::LayerRole;
use crate::plan::weights::Weights;
use crate::plan::{LayerPlan, reasons};
use crate::util::report::SharedReporter;
use crate::util::{Digest, Result};
use report::{Blob, Layer, Plan, PlatformPlan};

/// Runs the command.
///
/// # Errors
/// Whatever is wrong with the user's input or the world.
pub async fn run(mut args: PlanArgs, global: Global, reporter: SharedReporter) -> Result<()> {
    args.build.forgets_lock = !args.write_lock;
    let prepared = prepare(args.build, &global, reporter).await?;
    let Prepared { options, platforms, .. } = &prepared;
    let shown =
        platforms.iter().map(|locked| options.environment.named(&locked.platform, of_platform(&prepared, locked)));
    let plan = Plan {
        policy: options.args.layers.clone().unwrap_or_else(|| "default".to_owned()),
        max_layers: options.parameters.max_layers,
        prefix: options.parameters.prefix.clone(),
        compression: options.parameters.compression.to_string(),
        platforms: shown.collect::<Result<_>>()?,
    };
    match args.json {
        true => print_json(&plan),
        false => print_table(&table::text(&plan, global.verbose > 0)),
    }
}

fn of_platform(prepared: &Prepared, locked: &Locked) -> Result<PlatformPlan> {
    let Prepared { options, world, chosen, .. } = prepared;
    let parts = parts(options, locked, chosen.as_ref(), world)?;
    let plan = planned(&parts, options)?;
    let lock_digest = Digest::of(lock::normalised(&locked.lock, &room::parameters(options, &locked.base)?)?);
    let mut shown = PlatformPlan::new(locked, lock_digest, &plan);
    shown.layers = layers(&parts, &plan, options, world)?;
    Ok(shown)
}

/// The planned layers, then those of no package.
fn layers(parts: &Parts<'_>, plan: &LayerPlan, options: &Options, world: &World) -> Result<Vec<Layer>> {
    let lock = parts.lock.as_ref();
    let compression = options.parameters.compression;
    let blob = |key: &Digest| in_store(&world.store, key).map(|it| Blob { digest: it.digest, size: it.size });
    let reasons = reasons(lock, &options.policy, &plan.layers);
    let weights = Weights::of(lock);
    let planned = plan.layers.iter().zip(&reasons);
    let removals = removals_tar(lock, &parts.target, compression)?;
    let removals = removals.map(|(key, tar)| Layer::beside(LayerRole::Removals, key, tar.len() as u64, blob(&key)));
    let planned = planned.map(|(layer, reasons)| Layer::planned(lock, &weights, layer, reasons, blob(&layer.key)));
    let mut layers: Vec<Layer> = removals.into_iter().chain(planned).collect();
    if let Some(project) = &parts.project {
        let key = project_key(project, compression)?;
        layers.push(Layer::beside(LayerRole::ProjectFiles, key, project.size(), blob(&key)));
    }
    let (key, tar) = environment_tar(lock, &parts.target, &parts.session, compression)?;
    layers.push(Layer::beside(LayerRole::Environment, key, tar.len() as u64, blob(&key)));
    Ok(layers)
}
