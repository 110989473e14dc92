//! From a [`Spec`] to exact packages: channels, credentials, the virtual packages of the *target*, the solver, and
//! the download of archives. Knows nothing of layers.

mod channels;
mod client;
mod condarc;
mod conflict;
mod connection;
mod download;
mod expand;
mod index;
mod interpreter;
mod lookup;
mod mirrors;
mod names;
pub mod pip;
mod present;
mod proxies;
mod rate;
mod reach;
mod solve;
mod stability;
mod tokens;
mod unknown;
mod virtual_packages;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use rattler_conda_types::{GenericVirtualPackage, RepoDataRecord};
pub use rattler_solve::ChannelPriority;
use url::Url;

pub use channels::{Channels, channels_of_condarc};
pub use client::{Credentials, http_client};
pub use condarc::{Condarc, Origin};
pub use download::{Archive, SaidBy, Stored, Wanted, bring_all, download, is_stored};
pub use interpreter::resolve_interpreter;
pub use lookup::{Listed, look_up};
pub use present::Present;
pub use rate::{newest, release_rate, stability_of};
pub use reach::reach;
pub use virtual_packages::{VirtualPackageOptions, virtual_packages};

use crate::model::{Cutoff, Platform, Stability};
use crate::spec::Spec;
use crate::util::report::{Outcome, SharedReporter, Step};
use crate::util::{Error, Result};

/// How to solve.
#[derive(Clone)]
pub struct ResolveOptions<'a> {
    /// What the image is for.
    pub platform: &'a Platform,
    /// Channels before those of the spec (`--channel`), relative to the working folder.
    pub channels: Vec<String>,
    /// Whether the spec's own channels are left out (`--override-channels`).
    pub override_channels: bool,
    /// What a package in an earlier channel does to those of the same name in later ones.
    pub channel_priority: ChannelPriority,
    /// What to assume of the machine that the image will run on.
    pub virtual_packages: VirtualPackageOptions,
    /// Whether the network must not be used: indexes come from the cache, `file://` channels from the disk.
    pub offline: bool,
    /// Where channel indexes are kept (`Store::index`).
    pub index_cache: PathBuf,
    /// Records to prefer as long as they fit and their channels still have them: what an older lock holds. Of those
    /// for another platform, their versions.
    pub locked: Vec<RepoDataRecord>,
    /// What the base brings, which stays as it is and is no part of the result.
    pub present: Present,
    /// Packages that appeared later are left out.
    pub exclude_newer: Option<Cutoff>,
    /// How many requests may be under way at once.
    pub jobs: usize,
    /// Who is told of progress.
    pub reporter: &'a SharedReporter,
    /// What conda's configuration says of channels' names, and of how their servers are reached.
    pub condarc: Arc<Condarc>,
    /// What relative paths of channels in the spec are relative to: [`Spec::folder`].
    pub spec_dir: PathBuf,
}

impl<'a> ResolveOptions<'a> {
    /// The defaults: no more channels than the spec has, strict priority, the network is there, eight jobs.
    pub fn new(
        spec: &Spec,
        platform: &'a Platform,
        index_cache: PathBuf,
        reporter: &'a SharedReporter,
    ) -> Result<Self> {
        Ok(Self {
            platform,
            channels: Vec::new(),
            override_channels: false,
            channel_priority: ChannelPriority::Strict,
            virtual_packages: VirtualPackageOptions::default(),
            offline: false,
            index_cache,
            locked: Vec::new(),
            present: Present::default(),
            exclude_newer: None,
            jobs: 8,
            reporter,
            condarc: Arc::default(),
            spec_dir: spec.folder().to_owned(),
        })
    }

    /// The channels to search for `spec`. With a lock, only their credentials are needed, for the download.
    ///
    /// # Errors
    /// When something is no channel, or names an environment variable that is not set.
    pub fn channels_of(&self, spec: &Spec) -> Result<Channels> {
        Channels::new(spec, &self.channels, self.override_channels, &self.condarc, &self.spec_dir)
    }
}

/// Exact packages for one platform.
#[derive(Debug, Clone)]
pub struct Resolution {
    /// The channels that were searched, canonical and without credentials, most important first.
    pub channels: Vec<Url>,
    /// What was assumed of the target.
    pub virtual_packages: Vec<GenericVirtualPackage>,
    /// The packages, each after those that it needs; their URLs hold no credentials.
    pub records: Vec<RepoDataRecord>,
    /// How often the packages change, by name, as far as their channels' indexes tell.
    pub stability: BTreeMap<String, Stability>,
    /// What the channels' URLs held; for [`http_client`], when the archives are downloaded.
    pub credentials: Credentials,
}

/// Solves: finds the packages that `spec` asks for and all that they need.
///
/// # Errors
/// When a channel cannot be read, a package is in none of them, or no set of packages fits; each with what was
/// searched and assumed.
pub async fn resolve(spec: &Spec, options: &ResolveOptions<'_>) -> Result<Resolution> {
    let channels = options.channels_of(spec)?;
    let virtual_packages = virtual_packages(options.platform, &options.virtual_packages)?;
    let specs = channels.specs(spec, &options.condarc, &options.spec_dir)?;
    let mut resolution = Resolution {
        channels: channels.urls(),
        virtual_packages,
        records: Vec::new(),
        stability: BTreeMap::new(),
        credentials: channels.credentials.clone(),
    };
    let task = solve::Task {
        spec,
        options,
        channels: &channels,
        specs: &specs,
        virtual_packages: &resolution.virtual_packages,
    };
    present::check(&task)?;
    if task.open().next().is_none() {
        return Ok(resolution);
    }
    if channels.is_empty() {
        return Err(Error::user(format!("`{}` names no channel", spec.file.display()))
            .hint("add `channels:` to it, for example `channels: [conda-forge]`, or give `--channel`"));
    }
    let progress = options.reporter.begin(Step::Solve, 0).into();
    let index = index::read(&task, &progress).await?;
    progress.item("solving");
    resolution.records = solve::solve(&task, &index).await?;
    resolution.stability = stability::classes(&resolution.records, index.records(), options.exclude_newer.as_ref());
    let (packages, channels) = (resolution.records.len(), resolution.channels.len());
    progress.finish(&Outcome::Solved { packages, channels });
    Ok(resolution)
}
