//! Reading channel indexes: each channel by itself first, so that a failure names the channel, and a package
//! that no channel has is told before the solver is asked.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use futures::{StreamExt as _, TryStreamExt as _};
use rattler_conda_types::{Channel, MatchSpec, PackageNameMatcher, RepoDataRecord, Subdir};
use rattler_repodata_gateway::fetch::{CacheAction, FetchRepoDataError};
use rattler_repodata_gateway::{
    ChannelConfig, ChannelRelationsMode, DownloadReporter, Gateway, GatewayError, RepoData, Reporter, SourceConfig,
};
use reqwest::StatusCode;
use tokio::time::{Instant, timeout_at};
use url::Url;

use super::client::{Unreached, certificate_hint, chain, http_client};
use super::solve::Task;
use super::stability::SMALL_INDEX;
use super::unknown::{self, Names};
use super::{Credentials, ResolveOptions};
use crate::util::report::Progress;
use crate::util::{Error, Result, redact};

/// What the channels have, by channel and subdir.
pub(super) struct Index {
    gateway: Gateway,
    /// Every record that the specs may lead to; of packages that the specs name, only those that match.
    pub(super) parts: Vec<RepoData>,
    /// Every record of the packages that the specs name.
    pub(super) named: Vec<RepoData>,
    /// Of small indexes every record.
    whole: Vec<RepoData>,
}

impl Index {
    /// All that was read; records may come several times.
    pub(super) fn records(&self) -> impl Iterator<Item = &RepoDataRecord> {
        self.parts.iter().chain(&self.named).chain(&self.whole).flat_map(RepoData::iter)
    }

    /// The same, with all versions of the packages that the specs name and what these may lead to: what explanations are
    /// read from. As it is, if that cannot be had in time.
    pub(super) async fn with_all_versions(&self, task: &Task<'_>, deadline: Instant) -> Self {
        let query = query(task, &self.gateway, task.open().map(any_version).collect(), true, None);
        let parts = match timeout_at(deadline, query).await {
            Ok(Ok(parts)) => parts,
            Ok(Err(_)) | Err(_) => self.parts.clone(),
        };
        Self { gateway: self.gateway.clone(), parts, named: self.named.clone(), whole: Vec::new() }
    }
}

/// Asks the channels for what specs lead to.
async fn query(
    task: &Task<'_>,
    gateway: &Gateway,
    specs: Vec<MatchSpec>,
    recursive: bool,
    progress: Option<&Arc<dyn Progress>>,
) -> Result<Vec<RepoData>> {
    let mut query = gateway
        .query(task.channels.sources()?, platforms(task), specs)
        .recursive(recursive)
        .channel_relations(ChannelRelationsMode::Disabled);
    if let Some(progress) = progress {
        query = query.with_reporter(Tell(Arc::clone(progress)));
    }
    let answer = query.execute().await;
    answer.map(|output| output.repodata).map_err(|error| failed_query(task, &error))
}

fn any_version(wanted: &MatchSpec) -> MatchSpec {
    MatchSpec { name: wanted.name.clone(), ..MatchSpec::default() }
}

fn platforms(task: &Task<'_>) -> [Subdir; 2] {
    [task.options.platform.subdir, Subdir::NoArch]
}

/// Reads from the channels what the specs may lead to.
pub(super) async fn read(task: &Task<'_>, progress: &Arc<dyn Progress>) -> Result<Index> {
    let gateway = gateway(task.options, &task.channels.credentials)?;
    let names = names(task, &gateway, progress).await?;
    unknown::refuse(task, &names, &gateway).await?;
    let ask =
        async |specs: Vec<MatchSpec>, recursive: bool| query(task, &gateway, specs, recursive, Some(progress)).await;
    let named = ask(task.open().map(any_version).collect(), false).await?;
    let parts = ask(task.open().cloned().collect(), true).await?;
    let whole = ask(all_of_small(&names), false).await?;
    Ok(Index { gateway, parts, named, whole })
}

/// What reads the indexes.
pub(super) fn gateway(options: &ResolveOptions<'_>, credentials: &Credentials) -> Result<Gateway> {
    let source = SourceConfig {
        cache_action: if options.offline { CacheAction::ForceCacheOnly } else { CacheAction::CacheOrFetch },
        ..SourceConfig::default()
    };
    let client = http_client(options.offline, credentials)?;
    Ok(Gateway::builder()
        .with_client(client)
        .with_cache_dir(&options.index_cache)
        .with_channel_config(ChannelConfig { default: source, ..ChannelConfig::default() })
        .with_max_concurrent_requests(options.jobs.max(1))
        .finish())
}

/// All names of small indexes, as specs; nothing where there are more.
fn all_of_small(names: &[Names<'_>]) -> Vec<MatchSpec> {
    let known: Option<Vec<&BTreeSet<String>>> = names.iter().map(|names| names.names.as_ref()).collect();
    let known: BTreeSet<&String> = known.into_iter().flatten().flatten().collect();
    if known.len() > SMALL_INDEX {
        return Vec::new();
    }
    let name = |name: &&String| Some(PackageNameMatcher::Exact(name.parse().ok()?));
    known.iter().filter_map(name).map(|name| MatchSpec { name, ..MatchSpec::default() }).collect()
}

async fn names<'a>(task: &Task<'a>, gateway: &Gateway, progress: &Arc<dyn Progress>) -> Result<Vec<Names<'a>>> {
    futures::stream::iter(task.channels.members())
        .map(|channel| async move {
            progress.item(&redact::url(channel.base_url.url()));
            refuse_missing_folder(channel)?;
            let answer = gateway
                .names([channel.clone()], platforms(task))
                .channel_relations(ChannelRelationsMode::Disabled)
                .with_reporter(Tell(Arc::clone(progress)))
                .execute()
                .await;
            let names = match answer {
                Ok(output) => Some(output.names.iter().map(|name| name.as_normalized().to_owned()).collect()),
                // One odd name must not make a channel useless.
                Err(GatewayError::InvalidPackageName(_)) => None,
                Err(error) => {
                    let url = channel.base_url.url();
                    let failed = with_way_out(failed_channel(task, url, &error), &error);
                    let way =
                        task.channels.credentials.way(url).filter(|_| !task.options.offline && !is_unreached(&error));
                    return Err(way
                        .into_iter()
                        .fold(failed, |it, way| it.hint(format!("it is asked by way of {way}"))));
                }
            };
            Ok(Names { channel, names })
        })
        .buffered(task.options.jobs.max(1))
        .try_collect()
        .await
}

/// rattler takes a missing folder for an empty channel in some cases.
fn refuse_missing_folder(channel: &Channel) -> Result<()> {
    let url = channel.base_url.url();
    match missing_folder(url) {
        None => Ok(()),
        Some(folder) => Err(Error::user(format!("the channel `{}` is not there", redact::url(url)))
            .hint(format!("there is no folder `{}`", folder.display()))),
    }
}

/// The folder of a local channel, if it is not there.
pub(super) fn missing_folder(channel: &Url) -> Option<PathBuf> {
    let folder = (channel.scheme() == "file").then(|| channel.to_file_path().unwrap_or_default())?;
    (!folder.is_dir()).then_some(folder)
}

/// Why a channel could not be read.
fn failed_channel(task: &Task<'_>, url: &Url, error: &GatewayError) -> Error {
    let shown = redact::url(url);
    let noarch = format!("{shown}noarch/repodata.json");
    if task.options.offline && url.scheme() != "file" {
        return Error::user(format!("the index of `{shown}` is not in the cache, and the network must not be used"))
            .caused_by(task.scrubbed(error))
            .hint("solve once without `--offline`, or build from a lock with `--locked`");
    }
    match error {
        GatewayError::SubdirNotFoundError(_) if url.scheme() == "file" => {
            Error::user(format!("the folder `{shown}` is no channel: it has no `noarch/repodata.json`"))
                .hint("index the folder (`conda index`, `rattler-index`); noarch must be there even when it is empty")
        }
        GatewayError::SubdirNotFoundError(_) => Error::user(format!("there is no channel `{shown}`"))
            .hint(format!("the server does not have {noarch}; is the name right?")),
        _ => match http_error(error).and_then(reqwest::Error::status) {
            Some(status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)) => {
                Error::user(format!("the channel `{shown}` refuses access ({status})")).hint(
                    "give credentials in `~/.netrc`, in rattler's store (`pixi auth login`), or in the channel's URL as `https://${USER}:${PASSWORD}@host/channel`",
                )
            }
            Some(StatusCode::PROXY_AUTHENTICATION_REQUIRED) => {
                Error::user(format!("the channel `{shown}` cannot be read: the proxy refuses us (407)"))
                    .hint("write user and password into the proxy's URL, special characters as `%` codes")
            }
            Some(status) => Error::user(format!("the channel `{shown}` cannot be read: the server says {status}"))
                .hint("try again later"),
            None => {
                let reason = task.scrubbed(error);
                let hint = certificate_hint(&reason.to_string());
                let failed = Error::user(format!("the channel `{shown}` cannot be read")).caused_by(reason);
                hint.into_iter().fold(failed, Error::hint)
            }
        },
    }
}

/// Adds what to do, where the failure itself does not tell.
fn with_way_out(failed: Error, error: &GatewayError) -> Error {
    if !failed.hints().is_empty() {
        return failed;
    }
    failed.hint(match http_error(error).is_some() || is_unreached(error) {
        true => "is its server up, and the way to it free (proxy, firewall)?",
        false => "its index is broken: tell the channel's owner, or index the folder again",
    })
}

/// A query fails after every channel's index was read only when a part of an index cannot be had.
fn failed_query(task: &Task<'_>, error: &GatewayError) -> Error {
    let failed = Error::user("the channels' indexes cannot be read").caused_by(task.scrubbed(error));
    match (task.options.offline, error) {
        (true, _) => failed.hint("the cache does not hold all that is needed: solve once without `--offline`"),
        _ => failed.hint(task.searched()),
    }
}

/// The HTTP error inside; rattler nests it at different depths.
fn http_error(error: &GatewayError) -> Option<&reqwest::Error> {
    match error {
        GatewayError::ReqwestError(error) => Some(error),
        GatewayError::FetchRepoDataError(FetchRepoDataError::HttpError(reqwest_middleware::Error::Reqwest(error))) => {
            Some(error)
        }
        _ => None,
    }
}

/// Whether a mirror or proxy was not reached; the error names it.
fn is_unreached(error: &GatewayError) -> bool {
    match error {
        GatewayError::ReqwestMiddlewareError(error)
        | GatewayError::FetchRepoDataError(FetchRepoDataError::HttpError(reqwest_middleware::Error::Middleware(
            error,
        ))) => error.is::<Unreached>(),
        _ => false,
    }
}

impl Task<'_> {
    /// The error and its causes, without secrets.
    fn scrubbed(&self, error: &GatewayError) -> io::Error {
        io::Error::other(self.channels.credentials.scrub(&chain(error)))
    }
}

/// What a `MatchSpec` says beside what the solver looks at, and why a record does not fit it.
pub(super) fn misfit(wanted: &MatchSpec, record: &RepoDataRecord) -> Option<String> {
    let subdir = &record.package_record.subdir;
    if let Some(asked) = wanted.subdir.as_ref().filter(|asked| *asked != subdir) {
        return Some(format!("it is for {subdir}, not for {asked}"));
    }
    let name = record.identifier.to_file_name();
    wanted.file_name.as_ref().filter(|asked| **asked != name).map(|asked| format!("it is not the file {asked}"))
}

/// Passes the gateway's progress on.
struct Tell(Arc<dyn Progress>);

impl Reporter for Tell {
    fn download_reporter(&self) -> Option<&dyn DownloadReporter> {
        Some(self)
    }
}

impl DownloadReporter for Tell {
    fn on_download_start(&self, url: &Url) -> usize {
        self.0.item(&redact::url(url));
        0
    }
}
