//! What a condaimg.yaml says of an image goes where no flag, and no variable, says anything.

use super::options::{cache_registry, copy, is_policy_file, lines, policy};
use crate::cli::args::BuildArgs;
use crate::cli::locking::settings::{self, merged};
use crate::registry::Registry;
use crate::spec::{ImageSettings, ProjectEntry, Settings};
use crate::util::Result;

/// Completes the arguments.
///
/// # Errors
/// What is wrong in the file, with its place.
pub fn fill(mut args: BuildArgs, file: &Settings) -> Result<BuildArgs> {
    args.environment = settings::fill(args.environment, file)?;
    if !file.project.is_empty() {
        args.copy = [copies(file)?, lines("--copy", &args.copy)].concat();
    }
    if !file.exclude.is_empty() {
        args.exclude = [file.exclude.clone(), lines("--exclude", &args.exclude)].concat();
    }
    if let (None, Some(name)) = (&args.layers, &file.layers) {
        args.layers = Some(file.at("layers", layers(name, file))?);
    }
    args.max_layers = args.max_layers.or(file.max_layers);
    args.compression = args.compression.or_else(|| file.compression.clone());
    if let (None, Some(repository)) = (&args.cache_registry, &file.cache_registry) {
        file.at("cache-registry", cache_registry(repository))?;
        args.cache_registry = Some(repository.clone());
    }
    args.group_write = args.group_write.or(file.group_write);
    args.keep_setuid = args.keep_setuid.or(file.keep_setuid);
    args.no_activation = args.no_activation.or(file.activation.map(|activation| !activation));
    args.source_date_epoch = file.source_date_epoch;

    let ImageSettings { tags, user, keep_home_mode, workdir, entrypoint, cmd, env, labels, annotations } = &file.image;
    for (index, tag) in tags.iter().enumerate() {
        file.at(&format!("image.tags.{index}"), Registry::parse(tag))?;
    }
    if args.tags.is_empty() {
        args.tags.clone_from(tags);
    }
    args.user = args.user.or_else(|| user.clone());
    args.keep_home_mode = args.keep_home_mode.or(*keep_home_mode);
    args.workdir = args.workdir.or_else(|| workdir.clone());
    args.entrypoint = args.entrypoint.or_else(|| entrypoint.as_deref().map(json));
    args.cmd = args.cmd.or_else(|| cmd.as_deref().map(json));
    for (flag, texts, file) in [
        ("--env", &mut args.env, env),
        ("--label", &mut args.label, labels),
        ("--annotation", &mut args.annotation, annotations),
    ] {
        if !file.is_empty() {
            *texts = merged(file, lines(flag, texts));
        }
    }
    Ok(args)
}

/// The entries of `project:` as `--copy` has them.
fn copies(file: &Settings) -> Result<Vec<String>> {
    let mut copies = Vec::new();
    for (index, entry) in file.project.iter().enumerate() {
        match entry {
            ProjectEntry::Copy { from, to } => {
                let path = file.at(&format!("project.{index}.from"), file.path_inside(from))?;
                let text = format!("{}:{to}", path.display());
                file.at(&format!("project.{index}"), copy(&text).map(|_| ()))?;
                copies.push(text);
            }
            // Among the pip packages.
            ProjectEntry::Install { .. } => {}
        }
    }
    Ok(copies)
}

/// A layer policy as the flag names it: its path begins in the working folder.
fn layers(name: &str, file: &Settings) -> Result<String> {
    let name = match is_policy_file(name) {
        true => file.path_inside(name)?.display().to_string(),
        false => name.to_owned(),
    };
    policy(&name).map(|_| name)
}

/// A command as a flag has it.
fn json(words: &[String]) -> String {
    serde_json::Value::from(words).to_string()
}
