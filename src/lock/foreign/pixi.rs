//! pixi.lock, all versions that `rattler_lock` reads.

use std::path::{Component, Path, PathBuf};

use rattler_conda_types::{RepoDataRecord, Subdir};
use rattler_lock::{
    CondaBinaryData, CondaPackageData, DEFAULT_ENVIRONMENT_NAME, Environment, LockFile, LockedPackage, PypiPackageData,
    UrlOrPath,
};
use url::Url;

use super::archive_url::plain_within;
use super::{ChannelList, Pinned, PinnedPackage, PinnedWheel, not_for, some};
use crate::model::Platform;
use crate::util::{Digest, Error, Result, ResultExt as _, redact, yaml};

/// The content of such a file, and what is taken of it.
#[derive(Debug, Clone)]
pub(super) struct Pixi {
    lock: LockFile,
    environment: String,
    pub(super) channels: Vec<String>,
}

impl Pixi {
    pub(super) fn parse(file: &Path, text: &str, environment: Option<&str>) -> Result<Self> {
        let broken = || {
            Error::user(format!("`{}` is no pixi.lock that can be read", file.display()))
                .hint("make it again with `pixi lock`")
        };
        let folder = folder_of(file)?;
        yaml::check(text).context(|| format!("failed to read `{}`", file.display()))?;
        let lock = LockFile::from_str_with_base_directory(&plain_within(text), Some(&folder))
            .map_err(|error| broken().caused_by(std::io::Error::other(redact::within(&error.to_string()))))?;
        let name = environment.unwrap_or(DEFAULT_ENVIRONMENT_NAME);
        let Some(chosen) = lock.environment(name) else {
            let mut known: Vec<&str> = lock.environments().map(|(name, _)| name).collect();
            known.sort_unstable();
            let error = Error::user(format!("`{}` has no environment `{name}`", file.display()));
            return Err(match known.is_empty() {
                true => error.hint("it has none at all"),
                false => error.hint(format!("choose with `--environment` one of {}", known.join(", "))),
            });
        };
        let mut channels = ChannelList::default();
        chosen.channels().iter().for_each(|channel| channels.add(&channel.url));
        let channels = channels.texts;
        Ok(Self { environment: name.to_owned(), channels, lock })
    }

    fn environment(&self) -> Option<Environment<'_>> {
        self.lock.environment(&self.environment)
    }

    pub(super) fn notices(&self, file: &Path) -> Vec<String> {
        let others = self.lock.environments().len().saturating_sub(1);
        match others {
            0 => Vec::new(),
            _ => vec![format!("{}: the environment `{}`, one of {}", file.display(), self.environment, others + 1)],
        }
    }

    pub(super) fn pip_urls(&self) -> Vec<Url> {
        let urls = self.lock.packages().iter().filter_map(|package| match package {
            LockedPackage::Pypi(data) => data.location().inner().as_url().cloned(),
            LockedPackage::Conda(_) => None,
        });
        urls.collect()
    }

    pub(super) fn pinned(&self, file: &Path, platform: &Platform) -> Result<Pinned> {
        let environment = self.environment().ok_or_else(|| Error::bug("an environment is gone"))?;
        let mut has: Vec<String> = environment.platforms().map(|platform| platform.name().to_string()).collect();
        has.sort_unstable();
        let of_subdir: Vec<_> = environment.platforms().filter(|known| known.subdir() == platform.subdir).collect();
        let exact = of_subdir.iter().find(|known| known.name().as_str() == platform.lock_name());
        let chosen = match (exact, of_subdir.as_slice()) {
            (Some(exact), _) => *exact,
            (None, [one]) => *one,
            _ => return Err(not_for(file, platform, &has)),
        };
        let folder = folder_of(file)?;
        let mut pinned = Pinned { packages: Vec::new(), wheels: Vec::new() };
        let mut refused = Vec::new();
        for package in environment.packages(chosen).into_iter().flatten() {
            match package {
                LockedPackage::Conda(CondaPackageData::Binary(data)) => {
                    pinned.packages.push(Self::conda(data, platform.subdir).map_err(|reason| {
                        Error::user(format!("`{}` cannot be used: {reason}", file.display()))
                            .hint("make the file again with `pixi lock`")
                    })?);
                }
                LockedPackage::Conda(CondaPackageData::Source(data)) => {
                    refused.push(format!("`{}` ({})", data.name().as_normalized(), shown(&data.location)));
                }
                LockedPackage::Pypi(data) => pinned.wheels.push(wheel(data, &folder).map_err(|reason| {
                    Error::user(format!("`{}` pins `{}`, which {reason}", file.display(), data.name()))
                })?),
            }
        }
        if !refused.is_empty() {
            return Err(Error::user(format!(
                "`{}` has conda packages that are to be built from source, which condaimg does not do: {}",
                file.display(),
                some(&refused)
            ))
            .hint("build them (`pixi build`, rattler-build), put them into a channel, and lock again"));
        }
        if pinned.packages.is_empty() {
            return Err(Error::user(format!("`{}` has no conda packages for {}", file.display(), platform.subdir))
                .hint("an image needs at least a Python from conda; PyPI packages are beside it"));
        }
        Ok(pinned)
    }

    fn conda(data: &CondaBinaryData, subdir: Subdir) -> Result<PinnedPackage, String> {
        let name = data.package_record.name.as_normalized();
        let record = RepoDataRecord::try_from(data).map_err(|error| format!("`{name}`: {error}"))?;
        let mut record = RepoDataRecord { url: redact::canonical(&record.url), ..record };
        record.channel = record.channel.as_deref().map(redact::text);
        let known = [subdir.as_str(), Subdir::NoArch.as_str()];
        let in_channel = record.url.scheme() != "file" || known.contains(&record.package_record.subdir.as_str());
        if !in_channel {
            // An archive beside the lock: only its own metadata says what it is for.
            record.package_record.subdir = String::new();
        }
        // pixi keeps all that an index says; what it took over from a conda-lock.yml has no sizes.
        let complete = in_channel && record.package_record.size.is_some();
        Ok(PinnedPackage { record, complete })
    }
}

/// What relative paths in a file are relative to.
fn folder_of(file: &Path) -> Result<PathBuf> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok(std::path::absolute(folder)?)
}

/// `folder` is what relative paths are relative to.
fn wheel(data: &PypiPackageData, folder: &Path) -> Result<PinnedWheel, String> {
    let url = match data.location().inner() {
        UrlOrPath::Url(url) => url.clone(),
        UrlOrPath::Path(path) => Url::from_file_path(lexical(&folder.join(path.as_str())))
            .map_err(|()| "has a path that cannot be used".to_owned())?,
    };
    let mut wheel = PinnedWheel::at(data.name().as_ref(), data.version().map(ToString::to_string), &url, None, false);
    wheel.requires_dist = data.requires_dist().iter().map(ToString::to_string).collect();
    wheel.requires_python = data.requires_python().map(ToString::to_string);
    if let PypiPackageData::Distribution(data) = data {
        let sha256 = data.hash.as_ref().and_then(rattler_lock::PackageHashes::sha256);
        wheel.sha256 = wheel.sha256.or(sha256.map(|hash| Digest::from_bytes((*hash).into())));
        // From version 7 on, a default fills in what has none, also of what no index lists.
        let named = data.index_url.as_ref().map(redact::canonical);
        wheel.index = wheel.index.map(|default| named.unwrap_or(default));
    }
    Ok(wheel)
}

/// A path without `.` and `..`.
fn lexical(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut clean, part| {
        match part {
            Component::CurDir => {}
            Component::ParentDir => drop(clean.pop()),
            part => clean.push(part),
        }
        clean
    })
}

fn shown(location: &UrlOrPath) -> String {
    match location {
        UrlOrPath::Url(url) => redact::url(url),
        path @ UrlOrPath::Path(_) => path.to_string(),
    }
}
