//! Reading the facts that a lock keeps of its archives: who loses a path that two packages own, what activation
//! does, post-link scripts, whether byte code is made.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use path_resolver::PathResolver;
use rattler::install::PythonInfo;
use rattler_conda_types::package::PathType;
use rattler_conda_types::{PackageRecord, RepoDataRecord};

use super::activation::{ACTIVATE_FOLDER, ENV_VARS_FOLDER, parse_script, parse_variables};
use super::archive::Archive;
use super::bytecode;
use super::layout::{PackageLayout, ancestors};
use crate::lock::{Activation, LockedPackage, PackageFacts};
use crate::util::report::Reporter;
use crate::util::{Error, Result};

/// Makes locked packages of solved records whose archives are in the store. `records` and `archives` go
/// together. The result is sorted by name.
///
/// # Errors
/// Damaged and hostile archives.
pub fn read(
    records: Vec<RepoDataRecord>,
    archives: &[Archive],
    python: Option<&PythonInfo>,
    jobs: usize,
    reporter: &dyn Reporter,
) -> Result<Vec<LockedPackage>> {
    let layouts = parallel(archives, jobs, |archive| {
        let layout = PackageLayout::read(archive, python)?;
        let facts = facts_of_archive(archive, &layout, python, reporter)?;
        Ok((layout, facts))
    })?;
    let mut clobbered = clobbered_paths(&records, &layouts.iter().map(|(layout, _)| layout).collect::<Vec<_>>());
    let mut packages: Vec<LockedPackage> = records
        .into_iter()
        .zip(layouts)
        .map(|(record, (_, mut facts))| {
            if let Some(lost) = clobbered.remove(record.package_record.name.as_normalized()) {
                facts.activation.steps.retain(|step| !lost.contains_key(&step.file));
                facts.activation.dynamic.retain(|file| !lost.contains_key(file));
                facts.clobbered = lost;
            }
            LockedPackage { record, facts }
        })
        .collect();
    packages.sort_by(|a, b| a.name().cmp(b.name()));
    Ok(packages)
}

/// Runs `work` on all items with `jobs` threads; results in the items' order, the first error in that order wins.
pub(super) fn parallel<T: Sync, R: Send>(
    items: &[T],
    jobs: usize,
    work: impl Fn(&T) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    let next = AtomicUsize::new(0);
    let results: Vec<Mutex<Option<Result<R>>>> = items.iter().map(|_| Mutex::new(None)).collect();
    std::thread::scope(|scope| {
        for _ in 0..jobs.clamp(1, items.len().max(1)) {
            scope.spawn(|| {
                while let Some((item, slot)) = {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    items.get(index).zip(results.get(index))
                } {
                    let result = work(item);
                    let failed = result.is_err();
                    *slot.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(result);
                    if failed {
                        next.store(items.len(), Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let mut collected = Vec::with_capacity(items.len());
    let mut missing = false;
    for slot in results {
        match slot.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
            Some(result) => collected.push(result?),
            // Not begun, because another item failed: its error follows.
            None => missing = true,
        }
    }
    if missing { Err(Error::bug("an item was left undone without an error")) } else { Ok(collected) }
}

fn facts_of_archive(
    archive: &Archive,
    layout: &PackageLayout,
    python: Option<&PythonInfo>,
    reporter: &dyn Reporter,
) -> Result<PackageFacts> {
    let post_link = format!("bin/.{}-post-link.sh", layout.index.name.as_normalized());
    let post_link = layout.files.values().any(|file| file.target == post_link).then_some(post_link);
    let sources = python.map(|python| bytecode::sources(layout, python)).unwrap_or_default();
    Ok(PackageFacts {
        stale: bytecode::stale(layout),
        clobbered: BTreeMap::new(),
        bytecode: !sources.is_empty(),
        activation: activation(archive, layout, reporter)?,
        post_link,
        pypi: BTreeMap::new(),
    })
}

fn activation(archive: &Archive, layout: &PackageLayout, reporter: &dyn Reporter) -> Result<Activation> {
    let wanted = |target: &str| {
        (target.starts_with(ACTIVATE_FOLDER) && target.ends_with(".sh"))
            || (target.starts_with(ENV_VARS_FOLDER) && target.ends_with(".json"))
    };
    let mut activation = Activation::default();
    if !layout.files.values().any(|file| wanted(&file.target)) {
        return Ok(activation);
    }
    archive.visit_content(|entry, reader| {
        let Some(file) = layout.files.get(&entry.path).filter(|file| wanted(&file.target)) else {
            return Ok(ControlFlow::Continue(()));
        };
        let is_script = file.target.starts_with(ACTIVATE_FOLDER);
        let steps = if file.entry.path_type == PathType::SoftLink {
            None
        } else {
            let content = archive.content(entry, reader)?;
            let placeholder = file.entry.prefix_placeholder.as_ref().map(|found| found.placeholder.as_str());
            match (is_script, std::str::from_utf8(&content)) {
                (true, Ok(script)) => parse_script(&file.target, script, placeholder),
                (false, _) => parse_variables(&file.target, &content),
                _ => None,
            }
        };
        match steps {
            Some(steps) => activation.steps.extend(steps),
            None if is_script => {
                activation.dynamic.insert(file.target.clone());
            }
            None => reporter.warn(&format!(
                "`{}` of `{}` is no JSON object of strings and is ignored",
                file.target, archive.package
            )),
        }
        Ok(ControlFlow::Continue(()))
    })?;
    activation.steps.sort_by(|a, b| a.file.cmp(&b.file));
    Ok(activation)
}

/// Who loses which paths to whom: decided once for the whole environment, as rattler decides it: a path is of the
/// package that comes last in topological order, so what needs others may replace their files (also file against
/// directory).
fn clobbered_paths(
    records: &[RepoDataRecord],
    layouts: &[&PackageLayout],
) -> BTreeMap<String, BTreeMap<String, String>> {
    let by_name: BTreeMap<&str, &PackageLayout> =
        layouts.iter().map(|layout| (layout.index.name.as_normalized(), *layout)).collect();
    let mut sorted: Vec<&PackageRecord> = records.iter().map(|record| &record.package_record).collect();
    sorted.sort_by(|a, b| a.name.as_normalized().cmp(b.name.as_normalized()));
    let mut resolver = PathResolver::new();
    let mut lost = BTreeMap::new();
    // The resolver gives a path to who asks first.
    for record in PackageRecord::sort_topologically(sorted).into_iter().rev() {
        let name = record.name.as_normalized();
        let Some(layout) = by_name.get(name) else { continue };
        let targets: Vec<&str> = layout.targets().collect();
        let conflicts = resolver.insert_package(name.into(), &targets);
        let conflicts = conflicts.iter().filter_map(|path| path.to_str());
        let paths: BTreeMap<String, String> =
            conflicts.map(|path| (path.to_owned(), winner(path, name, &resolver))).collect();
        if !paths.is_empty() {
            lost.insert(name.to_owned(), paths);
        }
    }
    lost
}

/// Who keeps a path that `loser` brings too: the one of its other owners that asked first. Where a file stands
/// against a folder, an owner may have a file of a parent folder's name.
fn winner(path: &str, loser: &str, resolver: &PathResolver) -> String {
    let exact = resolver.packages_for_exact(path).into_iter().chain(resolver.packages_for_prefix(path));
    let above = ancestors(path).filter_map(|parent| resolver.packages_for_exact(parent));
    let owners: BTreeSet<&str> =
        exact.chain(above).flatten().map(path_resolver::PackageName::as_str).filter(|name| *name != loser).collect();
    let mut in_order = resolver.packages().iter().map(path_resolver::PackageName::as_str);
    in_order.find(|name| owners.contains(name)).unwrap_or("another package").to_owned()
}
