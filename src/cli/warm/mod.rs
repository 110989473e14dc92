//! `condaimg warm`: brings into the store what builds and images need, so that later builds fetch and make nothing. An
//! environment goes the way of a build, and is written nowhere; of an image all blobs are fetched, and those of its layers
//! that have keys become known to builds. With `--load`, container engines are given the images.

mod image;
mod load;
mod report;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::args::{BuildArgs, Global, WarmArgs};
use super::build;
use super::terminal::{print_json, print_table};
use super::world::cache_dir;
use crate::model::BaseRef;
use crate::registry::Registry;
use crate::ship::Engine;
use crate::store::{Item as Stored, Limits, Store};
use crate::util::report::SharedReporter;
use crate::util::{Error, Result, files};
use report::{Item, Platform, Pruned, Report};

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
/// When something could not be prepared; the others are then, nevertheless. When something could not be loaded, as far as
/// that can be told: nothing is prepared then.
pub async fn run(args: WarmArgs, global: Global, reporter: &SharedReporter) -> Result<()> {
    let engines = load::engines(&args)?;
    let items = items(&args);
    if !engines.is_empty() {
        load::check(&items)?;
    }
    let warming = Warming { store: Store::open(&cache_dir(&global)?)?, global, reporter, engines };
    let store = &warming.store;
    let mut report = Report::default();
    let mut failures = Vec::new();
    for (name, args) in items {
        let before = paths(&store.items()?);
        let mut item = Item { what: name, ..Item::default() };
        let done = warming.prepare(&mut item, args, &before).await;
        item.count(&store.items()?, &before);
        if let Err(error) = done {
            item.error = Some(error.chain().join(": "));
            failures.push(error);
        }
        report.items.push(item);
    }
    if args.max_size.is_some() {
        let pruned = store.prune(Limits { size: args.max_size, age: None })?;
        report.pruned = Some(Pruned::new(&pruned, store));
        if args.max_size.is_some_and(|limit| pruned.left > limit) {
            reporter.warn("the cache is still larger than `--max-size`: the rest was used within the last hour");
        }
    }
    if args.json { print_json(&report) } else { print_table(&report.text()) }?;
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

/// What all items have in common.
struct Warming<'a> {
    store: Store,
    global: Global,
    reporter: &'a SharedReporter,
    engines: Vec<Engine>,
}

impl Warming<'_> {
    /// Prepares an item, and writes into it what came of that, up to where it failed.
    async fn prepare(&self, item: &mut Item, args: BuildArgs, before: &BTreeSet<PathBuf>) -> Result<()> {
        let what = what(&item.what)?;
        // Before hours of work for an image that cannot be loaded.
        let names = if self.engines.is_empty() { Vec::new() } else { load::names(&what, &args)? };
        let images = match what {
            What::Environment => {
                let making = build::into_store(args, &self.global, Arc::clone(self.reporter));
                let (images, made) = Box::pin(making).await?;
                item.kind = Some("environment");
                item.platforms = made.into_iter().map(|made| Platform::built(made, &self.store, before)).collect();
                images
            }
            What::Image(reference) => {
                let images = Box::pin(image::fetch(&reference, &args, &self.global, self.reporter)).await?;
                item.kind = Some("image");
                item.platforms = images.iter().map(|image| Platform::fetched(image, &self.store, before)).collect();
                images
            }
        };
        for engine in &self.engines {
            item.loaded.push(load::load(*engine, &images, &names, &self.store, self.reporter).await?);
        }
        Ok(())
    }
}

/// What is there is a file or a folder; what is written as a reference is one.
fn what(text: &str) -> Result<What> {
    // What may not be looked at is there, and reading it will tell.
    if !matches!(files::find(Path::new(text)), Ok(None)) {
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
