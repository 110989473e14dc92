//! From a file's parts to the lock of one platform.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use rattler_conda_types::{GenericVirtualPackage, RepoDataRecord, Version};
use rattler_lock::{CondaBinaryData, CondaPackageData, LockFile, UrlOrPath};
use url::Url;

use super::ENVIRONMENT;
use super::extension::{Extension, PlatformExtension, SaidInputs};
use crate::lock::{Lock, LockedBase, LockedPackage, LockedWheel, PackageFacts, local, pypi};
use crate::model::{LAYOUT_VERSION, Platform};
use crate::util::{Error, Result};

/// The lock of one platform.
pub(super) fn lock_of(
    name: &str,
    said: PlatformExtension,
    common: &Extension,
    pixi: &LockFile,
    folder: &Path,
) -> Result<Lock> {
    let platform = Platform::from_lock_name(name)
        .ok_or_else(|| Error::user(format!("its platform `{name}` is none that images can be for")))?;
    let environment = pixi.environment(ENVIRONMENT);
    let channels = || environment.iter().flat_map(|environment| environment.channels());
    let interpreters = said.interpreters.into_iter().map(|(builder, entries)| {
        let packages = entries.into_iter().map(|entry| entry.into_package(builder, folder));
        Ok((builder, packages.collect::<Result<_>>()?))
    });
    let specs = said.specs.unwrap_or_else(|| common.specs.clone());
    let pinned = matches!(&said.inputs, Some(SaidInputs::Whole(inputs)) if inputs.pins.is_some());
    let channels = said.channels.unwrap_or_else(|| channels().map(|channel| channel.url.clone()).collect());
    let mut lock = Lock {
        packages: packages_of(name, said.facts, specs.is_empty() && !pinned, &said.base, pixi, folder)?,
        wheels: wheels_of(name, said.wheels, pixi, folder)?,
        pip: said.pip.unwrap_or_else(|| common.pip.clone()),
        has_facts: !said.facts_at_first_build,
        edited: Vec::new(),
        inputs: said.inputs.and_then(SaidInputs::whole),
        platform,
        channels: channels.iter().map(|channel| local::channel(channel, folder)).collect(),
        virtual_packages: said.virtual_packages.iter().map(|text| virtual_package(text)).collect::<Result<_>>()?,
        specs,
        variables: said.variables.unwrap_or_else(|| common.variables.clone()),
        base: LockedBase { reference: local::base(&said.base.reference, folder), ..said.base },
        interpreters: interpreters.collect::<Result<_>>()?,
    };
    // A lock that goes with an image has parameters and no seal. Its facts describe the image as it is.
    if common.parameters.is_none() {
        lock.edited = match said.seal {
            Some(seal) => seal.broken(&lock)?,
            None => vec!["the seal"],
        };
        if common.layout_version < LAYOUT_VERSION {
            lock.forget_facts();
        }
    }
    Ok(lock)
}

/// The packages of one platform, sorted, with their facts. There are some, unless none were asked for.
fn packages_of(
    name: &str,
    mut facts: BTreeMap<String, PackageFacts>,
    may_be_empty: bool,
    base: &LockedBase,
    pixi: &LockFile,
    folder: &Path,
) -> Result<Vec<LockedPackage>> {
    let environment = pixi.environment(ENVIRONMENT);
    let packages = environment.as_ref().zip(pixi.platform(name));
    let records = packages
        .and_then(|(environment, platform)| environment.conda_packages(platform))
        .map(|packages| {
            let records = packages.filter_map(CondaPackageData::as_binary).map(|package| record_of(package, folder));
            records.collect::<Result<Vec<_>>>()
        })
        .transpose()?
        // An environment without packages is not in the file at all.
        .or_else(|| may_be_empty.then(Vec::new))
        .ok_or_else(|| Error::user(format!("it has no packages for {name}")))?;
    let mut packages: Vec<LockedPackage> = records
        .into_iter()
        .map(|record| {
            let facts = facts.remove(record.package_record.name.as_normalized()).unwrap_or_default();
            LockedPackage { record, facts }
        })
        .collect();
    packages.sort_by(|a, b| a.name().cmp(b.name()));
    let mut seen = BTreeSet::new();
    for package in &packages {
        if !seen.insert(package.name()) {
            return Err(Error::user(format!("it has the package `{}` twice", package.name())));
        }
        // What is in the base is not fetched to be packed, and not every client notes the hash.
        if !base.environment.as_ref().is_some_and(|of_base| of_base.packages.contains(package.name())) {
            package.sha256()?;
        }
    }
    Ok(packages)
}

/// The wheels of one platform.
fn wheels_of(
    name: &str,
    entries: BTreeMap<String, pypi::Entry>,
    pixi: &LockFile,
    folder: &Path,
) -> Result<Vec<LockedWheel>> {
    let environment = pixi.environment(ENVIRONMENT);
    let packages = environment.as_ref().zip(pixi.platform(name));
    let packages = packages.and_then(|(environment, platform)| environment.pypi_packages(platform));
    pypi::wheels(packages.into_iter().flatten(), entries, folder)
}

fn virtual_package(text: &str) -> Result<GenericVirtualPackage> {
    let wrong = || Error::user(format!("`{text}` is no virtual package"));
    let mut parts = text.splitn(3, '=');
    let (Some(name), Some(version), Some(build)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(wrong());
    };
    Ok(GenericVirtualPackage {
        name: name.parse().map_err(|_| wrong())?,
        version: version.parse::<Version>().map_err(|_| wrong())?,
        build_string: build.parse().map_err(|_| wrong())?,
    })
}

/// The record of a package of a pixi.lock in `folder`.
fn record_of(package: &CondaBinaryData, folder: &Path) -> Result<RepoDataRecord> {
    let mut package = package.clone();
    if let Some(path) = package.location.as_path() {
        let url = Url::from_file_path(folder.join(path.as_str()));
        let url = url.map_err(|()| Error::user(format!("`{path}` is no path of a package")))?;
        // `channel/subdir/file`
        let channel = url.join("..").ok().map(|url| url.as_str().trim_end_matches('/').to_owned());
        package.channel = package.channel.or_else(|| Url::parse(&channel?).ok().map(Into::into));
        package.location = UrlOrPath::Url(url);
    }
    RepoDataRecord::try_from(package).map_err(|error| Error::user("its packages cannot be read").caused_by(error))
}
