//! Reading channel indexes: each channel by itself first, so that a failure names the channel, and a package
//! that no channel has is told before the solver is asked.

pub(super) mod answers;
pub(super) mod patience;
pub(super) mod reader;
mod sift;

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use futures::{StreamExt as _, TryStreamExt as _};
use rattler_conda_types::{Channel, MatchSpec, PackageNameMatcher, RepoDataRecord};
use rattler_repodata_gateway::fetch::FetchRepoDataError;
use rattler_repodata_gateway::{
    ChannelRelationsMode, DownloadReporter, Gateway, GatewayError, RepoData, Reporter, Source,
};
use reqwest::StatusCode;
use tokio::time::{Instant, timeout_at};
use url::Url;

use super::client::{Unreached, certificate_hint, chain};
use super::solve::Task;
use super::stability::SMALL_INDEX;
use super::unknown::{self, Names};
use crate::http::watch::Fault;
use crate::store::Using;
use crate::util::files;
use crate::util::report::Progress;
use crate::util::{Error, Result, plural, redact};
use answers::{OtherObject, WebPage};
use reader::{Opened, Reader, Unread, platforms};

/// What the channels have, by channel and subdir.
pub(super) struct Index {
    /// What answers further questions, and the channels as it wants them.
    gateway: Gateway,
    sources: Vec<Source>,
    /// Where the gateway keeps what it reads.
    indexes: Arc<Using>,
    /// Every record that the specs may lead to; of packages that the specs name, only those that match.
    pub(super) parts: Vec<RepoData>,
    /// Every record of the packages that the specs name.
    pub(super) named: Vec<RepoData>,
    /// Of small indexes every record.
    whole: Vec<RepoData>,
    /// Records that cannot be read: `SUBDIR/FILE: REASON`.
    skipped: Vec<String>,
}

impl Index {
    /// All that was read; records may come several times.
    pub(super) fn records(&self) -> impl Iterator<Item = &RepoDataRecord> {
        self.parts.iter().chain(&self.named).chain(&self.whole).flat_map(RepoData::iter)
    }

    /// The same, with all versions of the packages that the specs name and what these may lead to: what explanations are
    /// read from. As it is, if that cannot be had in time.
    pub(super) async fn with_all_versions(&self, task: &Task<'_>, deadline: Instant) -> Self {
        let specs = task.open().map(any_version).collect();
        let asked = ask(task, &self.gateway, &self.sources, specs, true, None);
        let parts = match timeout_at(deadline, asked).await {
            Ok(Ok(parts)) => parts,
            Ok(Err(_)) | Err(_) => self.parts.clone(),
        };
        let (gateway, sources) = (self.gateway.clone(), self.sources.clone());
        let (named, skipped) = (self.named.clone(), self.skipped.clone());
        let indexes = Arc::clone(&self.indexes);
        Self { gateway, sources, indexes, parts, named, whole: Vec::new(), skipped }
    }

    /// Adds to an error what was skipped of the packages that are asked for.
    pub(super) fn with_skipped(&self, task: &Task<'_>, error: Error) -> Error {
        with_skipped(task, &self.skipped, error)
    }
}

/// Asks the channels for what specs lead to.
async fn ask(
    task: &Task<'_>,
    gateway: &Gateway,
    sources: &[Source],
    specs: Vec<MatchSpec>,
    recursive: bool,
    progress: Option<&Arc<dyn Progress>>,
) -> Result<Vec<RepoData>, GatewayError> {
    let mut query = gateway
        .query(sources.to_vec(), platforms(task.options), specs)
        .recursive(recursive)
        .channel_relations(ChannelRelationsMode::Disabled);
    if let Some(progress) = progress {
        query = query.with_reporter(Tell(Arc::clone(progress)));
    }
    query.execute().await.map(|output| output.repodata)
}

fn any_version(wanted: &MatchSpec) -> MatchSpec {
    MatchSpec { name: wanted.name.clone(), ..MatchSpec::default() }
}

/// Reads from the channels what the specs may lead to.
pub(super) async fn read(task: &Task<'_>, progress: &Arc<dyn Progress>) -> Result<Index> {
    let mut reader = Reader::new(task.options, &task.channels.credentials)?;
    let names = names(task, &mut reader, progress).await?;
    reader.tell();
    let known = unknown::refuse(task, &names, &reader.gateway()).await;
    known.map_err(|error| with_skipped(task, &reader.skipped, error))?;
    let small = all_of_small(&names);
    // What the first form lacks is the cause when there is no other one.
    let mut first: Option<GatewayError> = None;
    loop {
        let sources = task.channels.sources(|channel| reader.source(channel))?;
        match query(task, &reader, sources, &small, progress).await {
            Ok(index) => {
                reader.tell();
                return Ok(Index { skipped: std::mem::take(&mut reader.skipped), ..index });
            }
            Err(error) if give_way(task, &mut reader, &error, &small, progress).await => {
                reader.tell();
                first.get_or_insert(error);
            }
            Err(error) => return Err(failed_query(task, first.as_ref().unwrap_or(&error))),
        }
    }
}

/// Adds a hint for each package that is asked for of which records cannot be read.
fn with_skipped(task: &Task<'_>, skipped: &[String], error: Error) -> Error {
    let names: BTreeSet<&str> =
        task.specs.iter().filter_map(|wanted| Some(wanted.name.as_exact()?.as_normalized())).collect();
    let hint = |name: &str| {
        let of_it: Vec<&String> = skipped.iter().filter(|record| package_of(record) == Some(name)).collect();
        let count = plural(of_it.len(), "record");
        of_it.first().map(|first| format!("skipped {count} of `{name}` that cannot be read: {first}"))
    };
    names.into_iter().filter_map(hint).fold(error, Error::hint)
}

/// The package of a record that was skipped, by the archive's name.
fn package_of(record: &str) -> Option<&str> {
    let (_, file) = record.split_once(": ").map_or(record, |(file, _)| file).split_once('/')?;
    let stem = file.strip_suffix(".conda").or_else(|| file.strip_suffix(".tar.bz2"))?;
    stem.rsplitn(3, '-').nth(2)
}

async fn query(
    task: &Task<'_>,
    reader: &Reader<'_>,
    sources: Vec<Source>,
    small: &[MatchSpec],
    progress: &Arc<dyn Progress>,
) -> Result<Index, GatewayError> {
    let gateway = reader.gateway();
    let ask = async |specs: Vec<MatchSpec>, recursive: bool| {
        ask(task, &gateway, &sources, specs, recursive, Some(progress)).await
    };
    let named = ask(task.open().map(any_version).collect(), false).await?;
    let parts = ask(task.open().cloned().collect(), true).await?;
    let whole = ask(small.to_vec(), false).await?;
    let indexes = Arc::clone(&reader.indexes);
    Ok(Index { gateway, sources, indexes, parts, named, whole, skipped: Vec::new() })
}

/// Finds out of which channels something cannot be read, and reads them in another way; false when that helps nobody.
async fn give_way(
    task: &Task<'_>,
    reader: &mut Reader<'_>,
    error: &GatewayError,
    small: &[MatchSpec],
    progress: &Arc<dyn Progress>,
) -> bool {
    let mut gave = false;
    for channel in task.channels.members() {
        let source = vec![reader.source(channel)];
        if let Err(error) = query(task, reader, source, small, progress).await {
            gave |= reader.give_way(channel, &error).await;
        }
    }
    if gave {
        return true;
    }
    // Each by itself can be read: what one of them needs of another cannot.
    for channel in task.channels.members() {
        gave |= reader.give_way(channel, error).await;
    }
    gave
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

async fn names<'a>(task: &Task<'a>, reader: &mut Reader<'_>, progress: &Arc<dyn Progress>) -> Result<Vec<Names<'a>>> {
    let shared: &Reader<'_> = reader;
    let opened: Vec<(&'a Channel, Opened)> = futures::stream::iter(task.channels.members())
        .map(|channel| async move {
            progress.item(&redact::url(channel.base_url.url()));
            refuse_missing_folder(channel)?;
            refuse_special_files(channel, shared)?;
            match shared.open(channel, progress).await {
                Ok(opened) => Ok((channel, opened)),
                Err(unread) => Err(unreadable(task, channel.base_url.url(), &unread)),
            }
        })
        .buffered(task.options.jobs.max(1))
        .try_collect()
        .await?;
    Ok(opened.into_iter().map(|(channel, opened)| Names { channel, names: reader.take(channel, opened) }).collect())
}

/// Why a channel could not be read, with all that was tried.
fn unreadable(task: &Task<'_>, url: &Url, Unread { error, tried }: &Unread) -> Error {
    let mut failed = with_way_out(failed_channel(task, url, error), error);
    if !tried.is_empty() {
        let reason = |error: &GatewayError| match http_error(error).and_then(reqwest::Error::status) {
            Some(status) => status.to_string(),
            None => task.scrubbed(error).to_string(),
        };
        let tried: Vec<String> = tried.iter().map(|(file, error)| format!("`{file}` ({})", reason(error))).collect();
        failed = failed.hint(format!("tried before: {}", tried.join(", ")));
    }
    let way = task.channels.credentials.way(url).filter(|_| !task.options.offline && !is_unreached(error));
    way.into_iter().fold(failed, |it, way| it.hint(format!("it is asked by way of {way}")))
}

/// Refuses an index of a local channel that is no regular file: rattler would wait for a pipe.
fn refuse_special_files(channel: &Channel, reader: &Reader<'_>) -> Result<()> {
    let Some(folder) = channel.base_url.url().to_file_path().ok().filter(|_| channel.base_url.url().scheme() == "file")
    else {
        return Ok(());
    };
    let platforms = reader.platforms();
    platforms
        .iter()
        .try_for_each(|platform| files::refuse_special(&folder.join(platform.as_str()).join("repodata.json")))
}

/// rattler takes a missing folder for an empty channel in some cases.
fn refuse_missing_folder(channel: &Channel) -> Result<()> {
    let url = channel.base_url.url();
    match missing_folder(url) {
        None => Ok(()),
        Some(folder) if files::find(&folder)?.is_some() => {
            Err(Error::user(format!("the channel `{}` is a file", redact::url(url)))
                .hint("name the folder of a channel"))
        }
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
    if is_ours::<WebPage>(error) {
        return failed.hint(
            "it wants a login: give credentials in `~/.netrc`, in rattler's store (`pixi auth login`), or in the channel's URL",
        );
    }
    if is_ours::<OtherObject>(error) {
        return failed.hint("is the channel's URL right? What is not there gets such an answer from some servers");
    }
    if fault(error) {
        return failed.hint("if the server is right, raise the limit (docs/limits.md)");
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
    is_ours::<Unreached>(error)
}

/// Whether a server stalled or sent too much.
fn fault(error: &GatewayError) -> bool {
    is_ours::<Fault>(error) || Fault::within(error).is_some()
}

/// Whether an error of one of our middlewares is inside.
fn is_ours<E: std::error::Error + Send + Sync + 'static>(error: &GatewayError) -> bool {
    match error {
        GatewayError::ReqwestMiddlewareError(error)
        | GatewayError::FetchRepoDataError(FetchRepoDataError::HttpError(reqwest_middleware::Error::Middleware(
            error,
        ))) => error.is::<E>(),
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
pub(super) struct Tell(pub(super) Arc<dyn Progress>);

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skipped_records_tell_their_package() {
        for (record, expected) in [
            ("linux-64/six-1.0-0.conda: missing field `build`", Some("six")),
            ("noarch/scikit-learn-1-py_0.tar.bz2: x: y/z", Some("scikit-learn")),
            ("noarch/odd.conda: not the name of a package's archive", None),
            ("noarch/odd: x", None),
        ] {
            assert_eq!(package_of(record), expected, "{record}");
        }
    }
}
