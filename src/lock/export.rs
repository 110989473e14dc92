//! Locks in the forms of other tools.

use std::collections::{BTreeMap, BTreeSet};

use rattler_conda_lock::{Channel, Hashes, LockFile, Manager, Metadata, Package, PackageSource};
use rattler_conda_types::PackageRecord;
use url::Url;

use super::{Lock, LockedPackage, LockedWheel, Locks, WheelSource, dependency_name, file};
use crate::util::{Error, Result, redact};

/// A pixi.lock with the packages of all platforms, without what only condaimg knows.
///
/// # Errors
/// When `rattler_lock` cannot render it.
pub fn export_pixi(locks: &Locks) -> Result<String> {
    let mut locks: Vec<Lock> = locks.iter().cloned().collect();
    for wheel in locks.iter_mut().flat_map(|lock| &mut lock.wheels).filter(|wheel| wheel.index.is_none()) {
        if let WheelSource::Wheel { url } | WheelSource::Sdist { url, .. } = &mut wheel.source
            && url.scheme() != "file"
        {
            // As pixi marks what no index lists.
            let marked = format!("direct+{}", redact::canonical(url));
            *url = marked.parse().map_err(|error| Error::bug(format!("`{marked}` is no URL")).caused_by(error))?;
        }
    }
    file::render_pixi(&locks.iter().collect::<Vec<_>>(), None)
}

/// An explicit specification, as `conda create --file` takes it: one URL a line, each after those that it needs, with
/// the sha256 of the archive behind `#` (conda's own pattern for these lines takes that as well as an md5).
///
/// # Errors
/// When the lock gives no hash of a package.
pub fn export_explicit(lock: &Lock) -> Result<String> {
    // As conda's history has it; reading the file takes it from there.
    let specs = serde_json::to_string(&lock.specs).unwrap_or_default();
    let mut text = format!(
        "# Packages from a lock of condaimg\n# update specs: {specs}\n# platform: {}\n@EXPLICIT\n",
        lock.platform.subdir
    );
    let records: Vec<&PackageRecord> = lock.packages.iter().map(|package| &package.record.package_record).collect();
    for record in PackageRecord::sort_topologically(records) {
        let Some(package) = lock.package(record.name.as_normalized()) else { continue };
        let url = redact::canonical(&package.record.url);
        text.push_str(&format!("{url}#{}\n", package.sha256()?.hex()));
    }
    for wheel in &lock.wheels {
        text.push_str(&wheel_comment(wheel));
    }
    Ok(text)
}

/// A package of PyPI as conda-lock writes it into an explicit file: conda takes it for a comment, conda-lock's
/// installer does not.
fn wheel_comment(wheel: &LockedWheel) -> String {
    let name = &wheel.name;
    match &wheel.source {
        WheelSource::Wheel { url } => {
            format!("# pip {name} @ {} --hash=sha256:{}\n", redact::canonical(url), wheel.sha256.hex())
        }
        WheelSource::Sdist { url, sha256 } => {
            format!("# pip {name} @ {} --hash=sha256:{}\n", redact::canonical(url), sha256.hex())
        }
        WheelSource::Git { url, commit, subdirectory } => {
            format!("# pip {name} @ {}\n", git_url(url, commit, subdirectory.as_deref()))
        }
        WheelSource::Folder { .. } => {
            format!("# {} was built from a folder of another machine and is not in this file\n", wheel.full_name())
        }
    }
}

/// A commit of a repository as pip has it.
fn git_url(url: &Url, commit: &str, subdirectory: Option<&str>) -> String {
    let folder = subdirectory.map(|folder| format!("#subdirectory={folder}")).unwrap_or_default();
    let mut url = redact::canonical(url);
    if redact::is_ssh(url.scheme()) {
        // A lock has no users, and this is everybody's. It fails only for URLs that cannot have one.
        let _ = url.set_username("git");
    }
    format!("git+{url}@{commit}{folder}")
}

/// A conda-lock.yml (CEP 37) with the packages of all platforms, in the category `main`.
///
/// `rattler_lock` can write one, too, but refuses what nearly every lock has: virtual packages, and generic noarch
/// packages whose build does not tell what they are.
///
/// # Errors
/// Two platforms of one subdir, which the format cannot tell apart; a wheel that was built from a folder.
pub fn export_conda_lock(locks: &Locks) -> Result<String> {
    let mut lock_file = LockFile::default();
    let mut subdirs = BTreeSet::new();
    for lock in locks.iter() {
        let subdir = lock.platform.subdir.to_string();
        if !subdirs.insert(subdir.clone()) {
            return Err(Error::usage(format!("a conda-lock.yml can hold one platform of {subdir}"))
                .hint(format!("add `--platform` with one of {}", locks.platforms().join(", "))));
        }
        lock_file.package.extend(lock.packages.iter().map(|package| conda_lock_package(package, &subdir)));
        for wheel in &lock.wheels {
            lock_file.package.push(conda_lock_wheel(wheel, &subdir)?);
        }
    }
    let channels = locks.iter().take(1).flat_map(|lock| &lock.channels);
    let channels = channels.map(|channel| Channel { url: redact::text(channel), used_env_vars: Vec::new() });
    lock_file.metadata =
        Metadata { channels: channels.collect(), platforms: subdirs.into_iter().collect(), ..Metadata::default() };
    // Of the packages: what the original files were is nothing that can be hashed the same way.
    lock_file.metadata.content_hash = lock_file.compute_content_hashes();
    let broken = |error: rattler_conda_lock::Error| {
        Error::user("the lock has no form as a conda-lock.yml").caused_by(std::io::Error::other(error.to_string()))
    };
    lock_file.to_yaml().map_err(broken)
}

fn conda_lock_package(package: &LockedPackage, subdir: &str) -> Package {
    let record = &package.record.package_record;
    // A name may be there several times, with a bound each.
    let mut dependencies: BTreeMap<String, String> = BTreeMap::new();
    for text in record.depends.iter().filter(|text| !text.starts_with("__")) {
        let name = dependency_name(text);
        let constraint = text[name.len()..].trim();
        let constraints = dependencies.entry(name.to_owned()).or_default();
        let comma = if constraints.is_empty() || constraint.is_empty() { "" } else { "," };
        constraints.push_str(&format!("{comma}{constraint}"));
    }
    Package {
        name: record.name.as_normalized().to_owned(),
        version: record.version.to_string(),
        manager: Manager::Conda,
        platform: subdir.to_owned(),
        dependencies,
        url: redact::canonical(&package.record.url).to_string(),
        hash: Hashes { md5: record.md5.map(hex::encode), sha256: record.sha256.map(hex::encode) },
        source: None,
        build: Some(record.build.to_string()),
        category: "main".to_owned(),
        optional: false,
    }
}

fn conda_lock_wheel(wheel: &LockedWheel, subdir: &str) -> Result<Package> {
    let (url, sha256) = match &wheel.source {
        WheelSource::Wheel { url } => (redact::canonical(url).to_string(), Some(wheel.sha256)),
        WheelSource::Sdist { url, sha256 } => (redact::canonical(url).to_string(), Some(*sha256)),
        WheelSource::Git { url, commit, subdirectory } => (git_url(url, commit, subdirectory.as_deref()), None),
        WheelSource::Folder { .. } => {
            return Err(Error::user(format!(
                "`{}` was built from a folder of this machine, which a conda-lock.yml cannot name",
                wheel.full_name()
            ))
            .hint("put its wheel where a URL names it"));
        }
    };
    // Only what holds on every machine: the format has no markers.
    let plain = wheel.requires_dist.iter().filter(|text| !text.contains([';', '[', '@']));
    let dependencies = plain.map(|text| {
        let name = dependency_name(text);
        (name.to_owned(), text[name.len()..].trim().trim_matches(['(', ')']).to_owned())
    });
    Ok(Package {
        name: wheel.name.clone(),
        version: wheel.version.clone(),
        manager: Manager::Pip,
        platform: subdir.to_owned(),
        dependencies: dependencies.collect(),
        source: wheel.index.is_none().then(|| PackageSource { url: url.clone() }),
        url,
        hash: Hashes { md5: None, sha256: sha256.map(|digest| digest.hex()) },
        build: None,
        category: "main".to_owned(),
        optional: false,
    })
}
