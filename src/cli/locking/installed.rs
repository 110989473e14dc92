//! What is there already when pip packages are resolved: the distributions that conda packages bring, and those of a
//! base that is extended, by conda or by pip. They stay as they are.

use std::collections::{BTreeMap, BTreeSet};

use pep440_rs::Version;
use pep508_rs::{ExtraName, MarkerExpression, MarkerValueExtra, PackageName, Requirement, VersionOrUrl};
use rattler::install::PythonInfo;
use url::Url;

use super::from::Brought;
use super::pip::Work;
use crate::lock::installed::requires_dist;
use crate::lock::{Lock, LockedPackage, LockedWheel};
use crate::pack::layout::PackageLayout;
use crate::pack::{Archive, wheel};
use crate::resolve::pip::{self, PipTarget};
use crate::spec::Pip;
use crate::spec::pip::PipWanted;
use crate::store::RecordKind;
use crate::util::{Digest, Error, Limit, Result};

/// The distributions that are there.
pub struct Installed {
    /// In no order; each name once.
    pub distributions: Vec<pip::Installed>,
    /// Those whose dependencies are not known: packages of the base whose archives nobody has asked for.
    unread: BTreeSet<String>,
}

/// `Requires-Dist` of distributions, by their names.
type Requirements = BTreeMap<String, Vec<String>>;

impl Installed {
    /// Of a lock's packages and of the base; archives of the base's packages are read only for the extras of `asked`.
    ///
    /// # Errors
    /// Archives that have to be read and cannot be had, or are damaged.
    pub async fn of(work: &Work<'_>, lock: &Lock, brought: Option<&Brought>, asked: &Extras) -> Result<Self> {
        let mut found = Self { distributions: Vec::new(), unread: BTreeSet::new() };
        let bringing = lock.packages.iter().filter(|package| !package.facts.pypi.is_empty());
        let known = |name: &String| brought.is_some_and(|brought| brought.requirements.contains_key(name));
        let (read, unread): (Vec<_>, Vec<_>) = bringing.partition(|package| {
            !lock.is_of_base(package.name())
                || package.facts.pypi.keys().any(|name| asked.0.contains(name) && !known(name))
        });
        found.unread =
            unread.iter().flat_map(|package| package.facts.pypi.keys()).filter(|it| !known(it)).cloned().collect();
        let empty = unread.iter().map(|_| Requirements::new());
        let requirements = of_packages(work, lock, &read).await?.into_iter().chain(empty);
        for (package, mut requirements) in read.iter().chain(&unread).zip(requirements) {
            let base = if lock.is_of_base(package.name()) { " of the base" } else { "" };
            for (name, version) in &package.facts.pypi {
                let said = brought.and_then(|brought| brought.requirements.get(name)).cloned();
                found.distributions.push(pip::Installed {
                    name: name.clone(),
                    version: version.clone(),
                    bringer: format!("the conda package `{}`{base}", package.full_name()),
                    of_base: !base.is_empty(),
                    requires_dist: requirements.remove(name).or(said).unwrap_or_default(),
                });
            }
        }
        brought.into_iter().for_each(|brought| found.add_base(brought));
        // Nothing can ask for what has no proper name or version, and uv would stumble over it.
        let is_proper =
            |it: &pip::Installed| it.name.parse::<PackageName>().is_ok() && it.version.parse::<Version>().is_ok();
        found.distributions.retain(is_proper);
        Ok(found)
    }

    /// What pip installed into the base.
    fn add_base(&mut self, brought: &Brought) {
        let of_base = |name: &str, version: &str, bringer: String, requires_dist: &[String]| pip::Installed {
            name: name.to_owned(),
            version: version.to_owned(),
            bringer,
            of_base: true,
            requires_dist: requires_dist.to_vec(),
        };
        for wheel in &brought.wheels {
            let bringer = format!("the pip package `{}` of the base", wheel.full_name());
            self.add(of_base(&wheel.name, &wheel.version, bringer, &wheel.requires_dist));
        }
        for (name, version) in &brought.environment.distributions {
            let requires = brought.requirements.get(name);
            let bringer = format!("what pip installed in the base as `{name}-{version}`");
            self.add(of_base(name, version, bringer, requires.map(Vec::as_slice).unwrap_or_default()));
        }
    }

    /// pip installs over what conda has, so the later one is what is there.
    fn add(&mut self, distribution: pip::Installed) {
        self.distributions.retain(|other| other.name != distribution.name);
        self.distributions.push(distribution);
    }

    /// Whether all that is asked for is there, so that nothing has to be resolved.
    ///
    /// # Errors
    /// A target that pip packages cannot be for.
    pub fn satisfies(&self, pip: &Pip, target: &PipTarget) -> Result<bool> {
        let markers = target.markers()?;
        let is_there = |wanted: &Requirement<Url>| {
            let named = self.distributions.iter().find(|it| it.name == wanted.name.to_string());
            let version = named.and_then(|it| it.version.parse::<Version>().ok());
            version.is_some_and(|version| match &wanted.version_or_url {
                Some(VersionOrUrl::VersionSpecifier(specifiers)) => specifiers.contains(&version),
                Some(VersionOrUrl::Url(_)) => false,
                None => true,
            })
        };
        Ok(pip.constraints.is_empty()
            && pip.requirements.iter().all(|requirement| match &requirement.what {
                PipWanted::Index(wanted) if !wanted.evaluate_markers(&markers, &[]) => true,
                PipWanted::Index(wanted) => {
                    wanted.extras.is_empty() && requirement.hashes.is_empty() && is_there(wanted)
                }
                PipWanted::Direct(direct) => !direct.marker.evaluate(&markers, &[]),
            }))
    }

    /// Whether a distribution with this normalised name is there.
    pub fn has(&self, name: &str) -> bool {
        self.distributions.iter().any(|distribution| distribution.name == name)
    }
}

/// Distributions of which somebody wants an extra, by their normalised names.
pub struct Extras(BTreeSet<String>);

impl Extras {
    /// Those of what the user asks for.
    ///
    /// # Errors
    /// A target that pip packages cannot be for.
    pub fn of_requirements(pip: &Pip, target: &PipTarget) -> Result<Self> {
        let markers = target.markers()?;
        let wanted = pip.requirements.iter().filter_map(|requirement| match &requirement.what {
            PipWanted::Index(wanted) if wanted.evaluate_markers(&markers, &[]) => Some(wanted),
            _ => None,
        });
        Ok(Self(wanted.filter(|it| !it.extras.is_empty()).map(|it| it.name.to_string()).collect()))
    }

    /// Adds those that wheels ask for and whose dependencies are not known; whether there are any.
    ///
    /// # Errors
    /// A target that pip packages cannot be for.
    pub fn add_unknown(&mut self, wheels: &[LockedWheel], installed: &Installed, target: &PipTarget) -> Result<bool> {
        let markers = target.markers()?;
        let before = self.0.len();
        for text in wheels.iter().flat_map(|wheel| &wheel.requires_dist) {
            let Ok(wanted) = text.parse::<Requirement<Url>>() else { continue };
            // Which extras of the wheel itself are wanted is not known here: to look once too often does no harm.
            let own: Vec<ExtraName> = extras_in(&wanted);
            let name = wanted.name.to_string();
            if !wanted.extras.is_empty() && installed.unread.contains(&name) && wanted.evaluate_markers(&markers, &own)
            {
                self.0.insert(name);
            }
        }
        Ok(self.0.len() > before)
    }
}

/// The extras that a requirement's marker speaks of.
fn extras_in(requirement: &Requirement<Url>) -> Vec<ExtraName> {
    let expressions = requirement.marker.to_dnf().into_iter().flatten();
    let names = expressions.filter_map(|expression| match expression {
        MarkerExpression::Extra { name: MarkerValueExtra::Extra(name), .. } => Some(name),
        _ => None,
    });
    names.collect()
}

/// What the distributions of conda packages require, by their archives; as far as the store knows it, without these.
async fn of_packages(work: &Work<'_>, lock: &Lock, packages: &[&LockedPackage]) -> Result<Vec<Requirements>> {
    let (python, _) = crate::plan::python_of(lock)?.ok_or_else(|| Error::bug("a Python got lost"))?;
    let store = &work.world.store;
    let keys = packages.iter().map(|package| metadata_key(package)).collect::<Result<Vec<_>>>()?;
    let mut known: Vec<Option<Requirements>> = keys.iter().map(|key| store.record(RecordKind::Facts, key)).collect();
    let unknown: Vec<usize> = (0..packages.len()).filter(|&index| known[index].is_none()).collect();
    let wanted: Vec<&LockedPackage> = unknown.iter().map(|&index| packages[index]).collect();
    let archives = work.archives(lock, &wanted).await?;
    let read = tokio::task::spawn_blocking(move || {
        archives.iter().map(|archive| requirements(archive, &python)).collect::<Result<Vec<_>>>()
    })
    .await
    .map_err(|error| Error::bug("reading the archives ended early").caused_by(error))??;
    for (index, requirements) in unknown.into_iter().zip(read) {
        store.remember(RecordKind::Facts, &keys[index], &requirements)?;
        known[index] = Some(requirements);
    }
    Ok(known.into_iter().map(Option::unwrap_or_default).collect())
}

fn metadata_key(package: &LockedPackage) -> Result<Digest> {
    // Not every client notes the hash of what it installed into a base.
    let archive = package.sha256().map_or_else(|_| package.record.url.to_string(), |digest| digest.to_string());
    crate::util::json::canonical(&("requires-dist", 1, archive)).map(Digest::of)
}

fn requirements(archive: &Archive, python: &PythonInfo) -> Result<Requirements> {
    let layout = PackageLayout::read(archive, Some(python))?;
    let site_packages = format!("{}/", python.site_packages_path.display());
    let mut found = Requirements::new();
    for (path, file) in &layout.files {
        let folder = file.target.strip_prefix(&site_packages).and_then(|rest| rest.split_once('/'));
        let Some((folder, "METADATA")) = folder else { continue };
        let Some((name, _)) = folder.strip_suffix(".dist-info").and_then(|stem| stem.split_once('-')) else { continue };
        let (Some(name), Some(content)) = (wheel::normalise_name(name), archive.content_of(path, Limit::InfoFile)?)
        else {
            continue;
        };
        let text = String::from_utf8_lossy(&content);
        found.insert(name, requires_dist(&text).map(str::to_owned).collect());
    }
    Ok(found)
}
