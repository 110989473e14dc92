//! Reading the indexes of channels in the forms that they have: when one cannot be read, the next.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use rattler_conda_types::{Channel, Subdir};
use rattler_repodata_gateway::fetch::{CacheAction, FetchRepoDataError, FetchRepoDataOptions, fetch_repo_data};
use rattler_repodata_gateway::sparse::{PackageFormatSelection, SparseRepoData};
use rattler_repodata_gateway::{ChannelConfig, ChannelRelationsMode, Gateway, GatewayError, Source, SourceConfig};
use reqwest::StatusCode;
use reqwest_middleware::ClientWithMiddleware;
use url::Url;

use super::answers::{Absent, LONGEST_ERROR};
use super::sift::{Sifted, is_other_object, sift};
use super::{Tell, fault, http_error, is_unreached};
use crate::resolve::client::{chain, index_client};
use crate::resolve::{Credentials, ResolveOptions};
use crate::store::{Foreign, Using};
use crate::util::report::Progress;
use crate::util::{Error, Result, plural, redact};

/// A form of an index, the best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Shards,
    Compressed,
    Plain,
}

impl Form {
    /// The file that it begins with.
    fn file(self) -> &'static str {
        match self {
            Self::Shards => "repodata_shards.msgpack.zst",
            Self::Compressed => "repodata.json.zst",
            Self::Plain => "repodata.json",
        }
    }

    fn next(self) -> Option<Self> {
        match self {
            Self::Shards => Some(Self::Compressed),
            Self::Compressed => Some(Self::Plain),
            Self::Plain => None,
        }
    }
}

/// How a channel's index is read.
#[derive(Clone)]
struct Way {
    form: Form,
    /// The index without the records that cannot be read, and these, until they were told.
    sifted: Option<(Vec<Arc<SparseRepoData>>, Vec<String>)>,
}

/// A channel of which no form can be read.
pub(in crate::resolve) struct Unread {
    /// Why the last form cannot be read.
    pub(in crate::resolve) error: GatewayError,
    /// The forms before it, each with the reason.
    pub(in crate::resolve) tried: Vec<(&'static str, GatewayError)>,
}

/// A channel whose index can be read.
pub(in crate::resolve) struct Opened {
    /// The names of its packages; none when they cannot be told.
    pub(in crate::resolve) names: Option<BTreeSet<String>>,
    way: Way,
}

/// Reads indexes.
pub(in crate::resolve) struct Reader<'a> {
    options: &'a ResolveOptions<'a>,
    credentials: &'a Credentials,
    client: ClientWithMiddleware,
    /// Where indexes are kept.
    pub(super) indexes: Arc<Using>,
    absent: Absent,
    /// By the channel's URL.
    ways: BTreeMap<Url, Way>,
    /// For channels that are read as they should be.
    usual: Gateway,
    /// Records that cannot be read and were told: `SUBDIR/FILE: REASON`.
    pub(in crate::resolve) skipped: Vec<String>,
}

impl<'a> Reader<'a> {
    /// # Errors
    /// When no client can be made, or the store cannot be used.
    pub(in crate::resolve) fn new(options: &'a ResolveOptions<'a>, credentials: &'a Credentials) -> Result<Self> {
        let absent = Absent::default();
        let client = index_client(options.offline, credentials, absent.clone())?;
        let indexes = Arc::new(options.store.using(Foreign::Index)?);
        let usual = gateway((options, &indexes), &client, source_config(options, Form::Shards), Vec::new());
        Ok(Self { options, credentials, client, indexes, absent, ways: BTreeMap::new(), usual, skipped: Vec::new() })
    }

    /// The subdirs that are read.
    pub(in crate::resolve) fn platforms(&self) -> [Subdir; 2] {
        platforms(self.options)
    }

    /// Finds out in which form a channel's index can be read, and which packages it has.
    ///
    /// # Errors
    /// When there is none.
    pub(in crate::resolve) async fn open(
        &self,
        channel: &Channel,
        progress: &Arc<dyn Progress>,
    ) -> Result<Opened, Unread> {
        let mut tried = Vec::new();
        let is_local = channel.base_url.url().scheme() == "file";
        let mut form = if is_local { Form::Plain } else { Form::Shards };
        loop {
            let gateway = match form {
                Form::Shards => self.usual.clone(),
                form => {
                    gateway((self.options, &self.indexes), &self.client, source_config(self.options, form), Vec::new())
                }
            };
            let answer = gateway
                .names([channel.clone()], self.platforms())
                .channel_relations(ChannelRelationsMode::Disabled)
                .with_reporter(Tell(Arc::clone(progress)))
                .execute()
                .await;
            let error = match answer {
                Ok(output) => {
                    let names: BTreeSet<String> =
                        output.names.iter().map(|name| name.as_normalized().to_owned()).collect();
                    // rattler takes any JSON object for an index.
                    if (is_local || names.is_empty())
                        && let Some(subdir) = self.other_object(channel, form).await
                    {
                        let what = format!("the index for {subdir} is JSON, but not an index");
                        let error =
                            io::Error::new(io::ErrorKind::InvalidData, "neither `packages` nor `info` is in it");
                        return Err(Unread { error: GatewayError::IoError(what, error), tried });
                    }
                    return Ok(Opened { names: Some(names), way: Way { form, sifted: None } });
                }
                // One odd name must not make a channel useless.
                Err(GatewayError::InvalidPackageName(_)) => {
                    return Ok(Opened { names: None, way: Way { form, sifted: None } });
                }
                Err(error) => error,
            };
            if form != Form::Shards && is_about_data(&error) {
                match self.sift(channel, form).await {
                    Ok(way) => return Ok(Opened { names: Some(names(&way)), way }),
                    Err(reason) => {
                        let reason = self.credentials.scrub(&chain(&reason));
                        tracing::debug!(reason, file = form.file(), "not an index");
                    }
                }
            }
            match form.next().filter(|_| may_be_read_otherwise(&error)) {
                Some(next) => {
                    let reason = self.credentials.scrub(&chain(&error));
                    tracing::debug!(
                        reason,
                        file = form.file(),
                        next = next.file(),
                        "the index is read in another form"
                    );
                    tried.push((form.file(), error));
                    form = next;
                }
                None => return Err(Unread { error, tried }),
            }
        }
    }

    /// The subdir whose index is a JSON object of another kind. That what is there cannot be had is told elsewhere.
    async fn other_object(&self, channel: &Channel, form: Form) -> Option<Subdir> {
        // Made by hand for a folder without packages.
        let is_empty = |bytes: &[u8]| channel.base_url.url().scheme() == "file" && bytes.trim_ascii() == b"{}";
        for subdir in self.platforms() {
            if let Ok(Some(bytes)) = self.whole(channel, subdir, form).await
                && bytes.len() < LONGEST_ERROR
                && is_other_object(&bytes)
                && !is_empty(&bytes)
            {
                return Some(subdir);
            }
        }
        None
    }

    /// Takes note of how a channel is read.
    pub(in crate::resolve) fn take(&mut self, channel: &Channel, way: Opened) -> Option<BTreeSet<String>> {
        self.ways.insert(key(channel), way.way);
        way.names
    }

    /// What reads all channels, each in its form.
    pub(in crate::resolve) fn gateway(&self) -> Gateway {
        let special = self.ways.iter().filter(|(url, way)| url.scheme() != "file" && way.form != Form::Shards);
        let special: Vec<(Url, SourceConfig)> =
            special.map(|(url, way)| (url.clone(), source_config(self.options, way.form))).collect();
        match special.is_empty() {
            true => self.usual.clone(),
            false => {
                gateway((self.options, &self.indexes), &self.client, source_config(self.options, Form::Shards), special)
            }
        }
    }

    /// A channel as a gateway wants it.
    pub(in crate::resolve) fn source(&self, channel: &Channel) -> Source {
        match self.way(channel).and_then(|way| way.sifted.as_ref()) {
            Some((parts, _)) => Source::SparseRepoData(parts.clone()),
            None => channel.clone().into(),
        }
    }

    fn way(&self, channel: &Channel) -> Option<&Way> {
        self.ways.get(&key(channel))
    }

    /// Reads a channel in another way after records of it could not be read; false when there is none.
    pub(in crate::resolve) async fn give_way(&mut self, channel: &Channel, error: &GatewayError) -> bool {
        let Some(way) = self.way(channel).filter(|way| way.sifted.is_none()).cloned() else { return false };
        if !may_be_read_otherwise(error) {
            return false;
        }
        let whole = if way.form == Form::Shards { Form::Compressed } else { way.form };
        let mut other = None;
        if is_about_data(error) {
            other = self.sift(channel, whole).await.ok();
        }
        let other = other.or_else(|| Some(Way { form: way.form.next()?, sifted: None }));
        let Some(other) = other.filter(|_| channel.base_url.url().scheme() != "file" || is_about_data(error)) else {
            return false;
        };
        self.ways.insert(key(channel), other);
        true
    }

    /// Reads an index by itself and leaves out what cannot be read of it.
    async fn sift(&self, channel: &Channel, form: Form) -> Result<Way> {
        let (mut parts, mut skipped) = (Vec::new(), Vec::new());
        for subdir in self.platforms() {
            let Some(bytes) = self.whole(channel, subdir, form).await? else { continue };
            let sifting = tokio::task::spawn_blocking(move || sift(&bytes));
            let sifted = sifting.await.map_err(|error| Error::bug("sifting ended early").caused_by(error))?;
            let Sifted { bytes, skipped: names } =
                sifted.map_err(|error| Error::user(format!("the index for {subdir} is not JSON")).caused_by(error))?;
            let part = SparseRepoData::from_bytes(channel.clone(), subdir.as_str(), bytes.into(), None);
            parts.push(Arc::new(part.map_err(|error| Error::user("the index cannot be read").caused_by(error))?));
            skipped.extend(names.into_iter().map(|name| format!("{subdir}/{name}")));
        }
        Ok(Way { form, sifted: Some((parts, skipped)) })
    }

    /// The `repodata.json` of a subdir; none when there is none, which noarch must have.
    async fn whole(&self, channel: &Channel, subdir: Subdir, form: Form) -> Result<Option<Vec<u8>>> {
        let url = channel.platform_url(subdir);
        let path = match url.to_file_path() {
            Ok(folder) if url.scheme() == "file" => folder.join("repodata.json"),
            _ => {
                let options = FetchRepoDataOptions {
                    cache_action: cache_action(self.options),
                    zstd_enabled: form != Form::Plain,
                    bz2_enabled: form != Form::Plain,
                    ..FetchRepoDataOptions::default()
                };
                let client = self.client.clone().into();
                match fetch_repo_data(url, client, self.indexes.path().to_owned(), options, None).await {
                    Ok(fetched) => fetched.repo_data_json_path,
                    Err(FetchRepoDataError::NotFound(_)) if subdir != Subdir::NoArch => return Ok(None),
                    Err(error) => return Err(Error::user("the index cannot be fetched").caused_by(error)),
                }
            }
        };
        match fs_err::read(path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound && subdir != Subdir::NoArch => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Tells what was left out, each once.
    pub(in crate::resolve) fn tell(&mut self) {
        for (url, way) in &mut self.ways {
            let skipped = way.sifted.as_mut().map(|(_, skipped)| std::mem::take(skipped)).unwrap_or_default();
            if skipped.is_empty() {
                continue;
            }
            let channel = redact::url(url);
            for record in &skipped {
                tracing::info!(%channel, record, "skipped");
            }
            let count = plural(skipped.len(), "record");
            self.options
                .reporter
                .notice(&format!("skipped {count} of `{channel}` that cannot be read: `-v` names them"));
            self.skipped.extend(skipped);
        }
        for url in self.absent.take() {
            let forbidden = StatusCode::FORBIDDEN;
            self.options
                .reporter
                .warn(&format!("{url}: the server says {forbidden}; taken for a platform without packages"));
        }
    }
}

/// The subdirs of the target.
pub(in crate::resolve) fn platforms(options: &ResolveOptions<'_>) -> [Subdir; 2] {
    [options.platform.subdir, Subdir::NoArch]
}

fn key(channel: &Channel) -> Url {
    Url::clone(channel.base_url.url())
}

fn names(way: &Way) -> BTreeSet<String> {
    let parts = way.sifted.iter().flat_map(|(parts, _)| parts);
    parts.flat_map(|part| part.package_names(PackageFormatSelection::PreferConda)).map(str::to_owned).collect()
}

fn cache_action(options: &ResolveOptions<'_>) -> CacheAction {
    if options.offline { CacheAction::ForceCacheOnly } else { CacheAction::CacheOrFetch }
}

fn source_config(options: &ResolveOptions<'_>, form: Form) -> SourceConfig {
    SourceConfig {
        cache_action: cache_action(options),
        sharded_enabled: form == Form::Shards,
        zstd_enabled: form != Form::Plain,
        bz2_enabled: form != Form::Plain,
        ..SourceConfig::default()
    }
}

fn gateway(
    (options, indexes): (&ResolveOptions<'_>, &Using),
    client: &ClientWithMiddleware,
    default: SourceConfig,
    special: Vec<(Url, SourceConfig)>,
) -> Gateway {
    Gateway::builder()
        .with_client(client.clone())
        .with_cache_dir(indexes.path())
        .with_channel_config(ChannelConfig { default, per_channel: special.into_iter().collect() })
        .with_max_concurrent_requests(options.jobs.max(1))
        .finish()
}

/// Whether what came cannot be read, rather than that nothing came.
fn is_about_data(error: &GatewayError) -> bool {
    let (GatewayError::IoError(_, error) | GatewayError::FetchRepoDataError(FetchRepoDataError::IoError(error))) =
        error
    else {
        return false;
    };
    use io::ErrorKind::{InvalidData, InvalidInput, UnexpectedEof};
    matches!(error.kind(), InvalidData | InvalidInput | UnexpectedEof)
}

/// Whether another form of the index may be read where one failed so: not when nobody answers, or the server is down.
fn may_be_read_otherwise(error: &GatewayError) -> bool {
    if matches!(error, GatewayError::SubdirNotFoundError(_) | GatewayError::Cancelled)
        || is_unreached(error)
        || fault(error)
    {
        return false;
    }
    match http_error(error) {
        Some(error) => error.status().is_some_and(|status| !matches!(status.as_u16(), 407 | 429 | 502..=504)),
        None => true,
    }
}
