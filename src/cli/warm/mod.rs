//! `condaimg warm`: brings into the store what builds and images need, so that later builds fetch and make nothing. An
//! environment goes the way of a build, and is written nowhere; of an image all blobs are fetched, and those of its layers
//! that have keys become known to builds.

mod image;
mod report;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::args::{BuildArgs, Global, WarmArgs};
use super::world::cache_dir;
use super::{build, print_data};
use crate::model::BaseRef;
use crate::registry::Registry;
use crate::store::{Item as Stored, Limits, Store};
use crate::util::report::SharedReporter;
use crate::util::{Error, Result};
use report::{Item, Layer, Platform, Pruned, Report};

/// Ends of the names of files that are no image references.
const FILES: [&str; 5] = [".yml", ".yaml", ".lock", ".txt", ".toml"];

/// Something to be prepared.
enum What {
    Environment,
    Image(BaseRef),
}

/// Runs the command.
///
/// # Errors
/// When something could not be prepared; the others are then, nevertheless.
pub async fn run(args: WarmArgs, global: Global, reporter: &SharedReporter) -> Result<()> {
    let store = Store::open(&cache_dir(&global)?)?;
    let mut report = Report::default();
    let mut failures = Vec::new();
    for (name, args) in items(&args) {
        let before = paths(&store.items()?);
        let done = prepare(&name, args, &global, reporter, &store, &before).await;
        let (kind, platforms, error) = match done {
            Ok((kind, platforms)) => (kind, platforms, None),
            Err(error) => (None, Vec::new(), Some(error)),
        };
        let mut item = Item { what: name, kind, platforms, ..Item::default() };
        item.count(&store.items()?, &before);
        if let Some(error) = error {
            item.error = Some(error.chain().join(": "));
            failures.push(error);
        }
        report.items.push(item);
    }
    if args.max_size.is_some() {
        let pruned = store.prune(Limits { size: args.max_size, age: None })?;
        let removed = pruned.removed.iter().map(|item| item.size).sum();
        report.pruned = Some(Pruned { removed, left: pruned.left });
        if args.max_size.is_some_and(|limit| pruned.left > limit) {
            reporter.warn("the cache is still larger than `--max-size`: the rest was used within the last hour");
        }
    }
    print_data(if args.json { report.json()? } else { report.text() }.as_bytes())?;
    conclude(&report, failures, reporter)
}

/// What to prepare, with the arguments of its build.
fn items(args: &WarmArgs) -> Vec<(String, BuildArgs)> {
    let mut plain = args.build.clone();
    // Set for builds, perhaps, by variables.
    plain.push = false;
    (plain.metadata_file, plain.digest_file) = (None, None);
    plain.outputs.clear();
    let first = (plain.environment.path().display().to_string(), plain.clone());
    let more = args.more.iter().map(|what| {
        let mut build = plain.clone();
        build.environment.path = Some(PathBuf::from(what));
        (what.clone(), build)
    });
    std::iter::once(first).chain(more).collect()
}

async fn prepare(
    name: &str,
    args: BuildArgs,
    global: &Global,
    reporter: &SharedReporter,
    store: &Store,
    before: &BTreeSet<PathBuf>,
) -> Result<(Option<&'static str>, Vec<Platform>)> {
    match what(name)? {
        What::Environment => {
            let made = Box::pin(build::into_store(args, global, Arc::clone(reporter))).await?;
            Ok((Some("environment"), made.into_iter().map(|made| Platform::built(made, store, before)).collect()))
        }
        What::Image(reference) => {
            let bases = Box::pin(image::fetch(&reference, &args, global, reporter)).await?;
            let platforms = bases.into_iter().map(|(platform, base)| Platform {
                platform: platform.to_string(),
                digest: base.digest,
                layers: base.layers.iter().map(|layer| Layer::fetched(layer, store, before)).collect(),
            });
            Ok((Some("image"), platforms.collect()))
        }
    }
}

/// What is there is a file or a folder; what is written as a reference is one.
fn what(text: &str) -> Result<What> {
    if Path::new(text).exists() {
        return Ok(What::Environment);
    }
    let (plain, scheme) = text.strip_prefix("docker://").map_or((text, false), |plain| (plain, true));
    match plain.parse()? {
        BaseRef::Registry(reference) if scheme || is_reference(plain) => {
            Ok(What::Image(BaseRef::Registry(Registry::parse(&reference)?.whole())))
        }
        BaseRef::Registry(_) => Ok(What::Environment),
        BaseRef::Scratch | BaseRef::Rootfs(_) => Err(Error::usage(format!("`{text}` is no image"))
            .hint("name an image reference, oci:DIR[:TAG], oci-archive:FILE or docker-archive:FILE")),
        local => Ok(What::Image(local)),
    }
}

fn is_reference(text: &str) -> bool {
    let is_path = text.starts_with(['.', '/', '~']) || FILES.iter().any(|end| text.ends_with(end));
    !is_path && text.contains([':', '@', '/'])
}

fn paths(items: &[Stored]) -> BTreeSet<PathBuf> {
    items.iter().map(|item| item.path.clone()).collect()
}

/// The one failure as it is; of several items, one failure after the other and what they come to.
fn conclude(report: &Report, mut failures: Vec<Error>, reporter: &SharedReporter) -> Result<()> {
    if report.items.len() == 1 {
        return failures.pop().map_or(Ok(()), Err);
    }
    let failed: Vec<&str> =
        report.items.iter().filter(|item| item.error.is_some()).map(|item| item.what.as_str()).collect();
    for (what, error) in failed.iter().zip(&failures) {
        let hints: String = error.hints().iter().map(|hint| format!("\n  hint: {hint}")).collect();
        reporter.warn(&format!("{what}: {}{hints}", error.chain().join(": ")));
    }
    if failed.is_empty() {
        return Ok(());
    }
    let count = format!("{} of {}", failed.len(), report.items.len());
    Err(Error::user(format!("{count} could not be prepared: {}", failed.join(", "))).hint("the others are prepared"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_told_from_files() {
        for text in ["debian:12", "registry.example/a/b", "host:5000/a@sha256:00", "quay.io/a/b:1"] {
            assert!(is_reference(text), "{text}");
        }
        for text in ["debian", "./a:b", "/a/b", "envs/a.yml", "a/condaimg.lock"] {
            assert!(!is_reference(text), "{text}");
        }
    }
}
