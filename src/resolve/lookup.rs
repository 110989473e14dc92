//! What channels' indexes say of archives that are pinned already: a hash tells which archive it is, the index what
//! its package needs, how large it is, and when it was made.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use rattler_conda_types::{Channel, MatchSpec, PackageNameMatcher, RepoDataRecord};
use rattler_repodata_gateway::ChannelRelationsMode;
use rattler_repodata_gateway::sparse::PackageFormatSelection;
use url::Url;

use super::client::chain;
use super::index::missing_folder;
use super::index::reader::Reader;
use super::stability::{SMALL_INDEX, classes};
use super::{Credentials, ResolveOptions};
use crate::model::Stability;
use crate::util::report::{Outcome, Progress, Step};
use crate::util::{Result, redact};

/// What channels' indexes say of archives.
#[derive(Debug, Default)]
pub struct Listed {
    /// The record of each archive, in the order asked for; nothing for an archive that its channel does not list (any
    /// more), or lists with another hash.
    pub records: Vec<Option<RepoDataRecord>>,
    /// How often the packages change, by name.
    pub stability: BTreeMap<String, Stability>,
}

/// What the indexes of the records' channels say of these archives. A channel that cannot be read is a notice.
///
/// # Errors
/// When no client can be made.
pub async fn look_up(
    records: &[RepoDataRecord],
    options: &ResolveOptions<'_>,
    credentials: &Credentials,
) -> Result<Listed> {
    let mut by_channel: BTreeMap<&str, Vec<&RepoDataRecord>> = BTreeMap::new();
    for record in records {
        if let Some(channel) = record.channel.as_deref() {
            by_channel.entry(channel).or_default().push(record);
        }
    }
    let progress: Arc<dyn Progress> = options.reporter.begin(Step::Solve, 0).into();
    let mut seen: Vec<Arc<RepoDataRecord>> = Vec::new();
    let channels = by_channel.len();
    for (channel, records) in by_channel {
        progress.item(&redact::text(channel));
        match listed(channel, &records, options, credentials, &progress).await {
            Ok(listed) => seen.extend(listed),
            Err(reason) => options.reporter.notice(&format!(
                "the index of `{}` cannot be read ({}): how often its packages change is not known, and what else is to be known of them is read from their archives",
                redact::text(channel),
                credentials.scrub(&reason)
            )),
        }
    }
    let known: HashMap<Url, &RepoDataRecord> =
        seen.iter().map(|record| (redact::canonical(&record.url), record.as_ref())).collect();
    let found: Vec<Option<RepoDataRecord>> = records
        .iter()
        .map(|record| known.get(&record.url).filter(|known| is_same(record, known)).map(|known| merged(record, known)))
        .collect();
    let count = found.iter().flatten().count();
    progress.finish(&Outcome::LookedUp { packages: count, pinned: found.len(), channels });
    let cutoff = options.exclude_newer.as_ref();
    Ok(Listed { stability: classes(records, seen.iter().map(Arc::as_ref), cutoff), records: found })
}

/// What a channel has under the names of these records, or why it cannot be told.
async fn listed(
    channel: &str,
    records: &[&RepoDataRecord],
    options: &ResolveOptions<'_>,
    credentials: &Credentials,
    progress: &Arc<dyn Progress>,
) -> Result<Vec<Arc<RepoDataRecord>>, String> {
    let url = Url::parse(channel).map_err(|error| error.to_string())?;
    if let Some(folder) = missing_folder(&url) {
        return Err(format!("there is no folder `{}`", folder.display()));
    }
    let bare = |record: &&RepoDataRecord| MatchSpec {
        name: PackageNameMatcher::Exact(record.package_record.name.clone()),
        ..MatchSpec::default()
    };
    let channel = Channel::from_url(url);
    let mut wanted: Vec<MatchSpec> = records.iter().map(bare).collect();
    let mut reader = Reader::new(options, credentials).map_err(|error| error.chain().join(": "))?;
    let opened = reader.open(&channel, progress).await.map_err(|unread| chain(&unread.error))?;
    if let Some(names) = reader.take(&channel, opened).filter(|names| names.len() <= SMALL_INDEX) {
        let any = |name: &String| Some(PackageNameMatcher::Exact(name.parse().ok()?));
        wanted = names.iter().filter_map(any).map(|name| MatchSpec { name, ..MatchSpec::default() }).collect();
    }
    let mut first = None;
    loop {
        let answer = reader
            .gateway()
            .query([reader.source(&channel)], reader.platforms(), wanted.clone())
            .recursive(false)
            .package_format_selection(PackageFormatSelection::Both)
            .channel_relations(ChannelRelationsMode::Disabled)
            .execute()
            .await;
        match answer {
            Ok(answer) => {
                reader.tell();
                return Ok(answer
                    .repodata
                    .iter()
                    .flat_map(|part| part.iter_arc().cloned().collect::<Vec<_>>())
                    .collect());
            }
            Err(error) if reader.give_way(&channel, &error).await => {
                first.get_or_insert(error);
            }
            Err(error) => return Err(chain(first.as_ref().unwrap_or(&error))),
        }
    }
}

/// Whether the index speaks of the archive that is pinned. What has no hash is known by its URL alone.
fn is_same(pinned: &RepoDataRecord, listed: &RepoDataRecord) -> bool {
    let (pinned, listed) = (&pinned.package_record, &listed.package_record);
    let differ = |one: Option<&[u8]>, other: Option<&[u8]>| one.zip(other).is_some_and(|(one, other)| one != other);
    !differ(pinned.sha256.as_ref().map(|it| &it[..]), listed.sha256.as_ref().map(|it| &it[..]))
        && !differ(pinned.md5.as_ref().map(|it| &it[..]), listed.md5.as_ref().map(|it| &it[..]))
}

/// What the index says, and the hashes of both.
fn merged(pinned: &RepoDataRecord, listed: &RepoDataRecord) -> RepoDataRecord {
    let mut record = RepoDataRecord { url: pinned.url.clone(), ..listed.clone() };
    record.package_record.sha256 = record.package_record.sha256.or(pinned.package_record.sha256);
    record.package_record.md5 = record.package_record.md5.or(pinned.package_record.md5);
    record
}
