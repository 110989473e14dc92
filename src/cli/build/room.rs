//! How many layers there is room for above a base.

use super::options::Options;
use crate::cli::world::World;
use crate::image::Base;
use crate::model::{MAX_IMAGE_LAYERS, MIN_LAYERS, Parameters};
use crate::util::{Error, Result};

/// The most layers that are added to a base: what was asked for, or what the base leaves.
///
/// # Errors
/// When the base leaves no room, or not for what was asked for.
pub fn max_layers(options: &Options, base: &Base) -> Result<usize> {
    let (wanted, have) = (options.parameters.max_layers, base.layers.len());
    let left = MAX_IMAGE_LAYERS.saturating_sub(have);
    let named = match base.reference.as_str() {
        "" => options.environment.base.to_string(),
        reference => reference.to_owned(),
    };
    if left < MIN_LAYERS {
        return Err(Error::user(format!(
            "failed to add layers to the base `{named}`: it has {have}, and Docker takes images of {MAX_IMAGE_LAYERS} at most"
        ))
        .hint(format!("choose a base with at most {} layers", MAX_IMAGE_LAYERS - MIN_LAYERS)));
    }
    if wanted > left && options.args.max_layers.is_some() {
        return Err(Error::usage(format!(
            "invalid `--max-layers {wanted}`: expected at most {left}, since the base `{named}` has {have} layers and Docker takes images of {MAX_IMAGE_LAYERS} at most"
        ))
        .hint(format!("give `--max-layers {left}`, or leave it out")));
    }
    Ok(wanted.min(left))
}

/// The parameters of a build on a base, to be recorded.
///
/// # Errors
/// As [`max_layers`].
pub fn parameters(options: &Options, base: &Base) -> Result<Parameters> {
    Ok(Parameters { max_layers: max_layers(options, base)?, ..options.parameters.clone() })
}

/// Says early whether there is room, and that there is less than usual.
///
/// # Errors
/// As [`max_layers`]; when nothing is left for project files.
pub fn check(options: &Options, base: &Base, has_project: bool, world: &World) -> Result<()> {
    let (room, have) = (max_layers(options, base)?, base.layers.len());
    if has_project && room == MIN_LAYERS && room < options.parameters.max_layers {
        return Err(Error::user(format!(
            "failed to add project files: the base `{}` has {have} layers, which leaves {room} of {MAX_IMAGE_LAYERS}",
            options.environment.base
        ))
        .hint("choose a base with fewer layers, or leave `--copy` out"));
    }
    if room < options.parameters.max_layers {
        world.reporter.notice(&format!(
            "`--max-layers` is {room} instead of {}: the base has {have} layers, and Docker takes images of {MAX_IMAGE_LAYERS} at most",
            options.parameters.max_layers
        ));
    }
    Ok(())
}
