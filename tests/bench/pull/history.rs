//! Release history: channel indexes from disk, and environments solved anew week by week.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use condaimg::lock::{Lock, LockedPackage, PackageFacts, classify};
use condaimg::model::{Cutoff, Platform};
use condaimg::resolve::{ResolveOptions, resolve, stability_of};
use condaimg::spec;
use condaimg::store::Store;
use condaimg::util::report::{SharedReporter, Silent};
use condaimg::util::{Digest, Error, Result};
use jiff::civil::Date;
use rattler_conda_types::{Channel, ChannelConfig, PackageRecord, RepoData, RepoDataRecord};
use serde::Deserialize;

/// What is replayed: `environments.yaml`.
#[derive(Deserialize)]
pub struct Plan {
    pub budgets: Vec<usize>,
    pub corpora: Vec<Corpus>,
}

/// An index, and what is solved from it.
#[derive(Deserialize)]
pub struct Corpus {
    pub name: String,
    pub platform: String,
    /// Folders in the data folder, most important first.
    pub channels: Vec<String>,
    pub first: Date,
    pub last: Date,
    pub environments: BTreeMap<String, Vec<String>>,
    pub organisation: Vec<String>,
}

/// One environment, week by week.
pub struct Series {
    pub name: String,
    pub locks: Vec<Lock>,
}

/// Which archives an environment had, by date: what is kept between runs.
type Solved = BTreeMap<String, Vec<String>>;

/// Where things lie.
pub struct Places {
    /// The folder of the channels' indexes, `repodata.json` or `repodata.json.zst`.
    pub data: PathBuf,
    /// What may be kept between runs.
    pub cache: PathBuf,
}

/// An index in memory.
struct Index {
    /// By `subdir/file`.
    records: HashMap<String, Arc<RepoDataRecord>>,
    /// By name, of the platform and noarch.
    named: HashMap<String, Vec<Arc<RepoDataRecord>>>,
}

impl Index {
    fn read(folders: &[PathBuf], platform: &Platform) -> Result<Self> {
        let mut index = Self { records: HashMap::new(), named: HashMap::new() };
        let config = ChannelConfig::default_with_root_dir(PathBuf::from("/"));
        for folder in folders {
            let channel = Channel::from_str(folder.display().to_string(), &config)
                .map_err(|error| Error::user(format!("`{}` is no channel", folder.display())).caused_by(error))?;
            for subdir in [platform.subdir.as_str(), "noarch"] {
                let data = RepoData::from_path(folder.join(subdir).join("repodata.json"))?;
                for record in data.into_repo_data_records(&channel).into_iter().map(Arc::new) {
                    let name = record.package_record.name.as_normalized().to_owned();
                    index.named.entry(name).or_default().push(Arc::clone(&record));
                    index.records.entry(file_of(&record)).or_insert(record);
                }
            }
        }
        Ok(index)
    }

    fn of_name(&self, name: &str) -> impl Iterator<Item = &PackageRecord> {
        self.named.get(name).into_iter().flatten().map(|record| &record.package_record)
    }
}

fn file_of(record: &RepoDataRecord) -> String {
    format!("{}/{}", record.package_record.subdir, record.identifier)
}

/// The dates that are replayed.
fn dates(corpus: &Corpus) -> Vec<Date> {
    corpus.first.series(jiff::Span::new().days(7)).take_while(|date| *date <= corpus.last).collect()
}

/// Puts a channel's index as `repodata.json` below the cache, where the solver reads it.
fn unpack(places: &Places, channel: &str, platform: &Platform) -> Result<PathBuf> {
    let target = places.cache.join("channels").join(channel);
    for subdir in [platform.subdir.as_str(), "noarch"] {
        let (from, into) = (places.data.join(channel).join(subdir), target.join(subdir));
        fs_err::create_dir_all(&into)?;
        let packed = from.join("repodata.json.zst");
        let bytes = match packed.exists() {
            true => zstd::decode_all(fs_err::File::open(packed)?)?,
            false => fs_err::read(from.join("repodata.json"))?,
        };
        let file = into.join("repodata.json");
        if fs_err::read(&file).ok().as_ref() != Some(&bytes) {
            fs_err::write(file, bytes)?;
        }
    }
    Ok(target)
}

/// All environments of a corpus, solved at all dates.
///
/// # Errors
/// Indexes that cannot be read; environments that cannot be solved at some date.
pub async fn replay(corpus: &Corpus, places: &Places) -> Result<Vec<Series>> {
    let platform: Platform = corpus.platform.parse()?;
    let folders: Vec<PathBuf> =
        corpus.channels.iter().map(|channel| unpack(places, channel, &platform)).collect::<Result<_>>()?;
    let index = Index::read(&folders, &platform)?;
    let mut all = Vec::new();
    for (name, dependencies) in &corpus.environments {
        let solved = solve_all(corpus, dependencies, &folders, &platform, places).await?;
        all.push(Series { name: name.clone(), locks: locks(corpus, &solved, &index, &platform)? });
    }
    Ok(all)
}

/// Solves at every date, or takes what an earlier run found.
async fn solve_all(
    corpus: &Corpus,
    dependencies: &[String],
    folders: &[PathBuf],
    platform: &Platform,
    places: &Places,
) -> Result<Solved> {
    let mut identity = format!("1 {} {} {dependencies:?}", platform.lock_name(), corpus.first);
    for folder in folders {
        for subdir in [platform.subdir.as_str(), "noarch"] {
            identity += &Digest::of(fs_err::read(folder.join(subdir).join("repodata.json"))?).to_string();
        }
    }
    let file = places.cache.join("solved").join(format!("{}.json", &Digest::of(identity).hex()[..32]));
    let mut solved: Solved = match fs_err::read(&file) {
        Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_default(),
        Err(_) => Solved::new(),
    };
    let known = solved.len();
    let work = tempfile::tempdir()?;
    let yaml = serde_json::json!({"dependencies": dependencies});
    let written = work.path().join("environment.yml");
    fs_err::write(&written, yaml.to_string())?;
    for date in dates(corpus) {
        if let Entry::Vacant(place) = solved.entry(date.to_string()) {
            place.insert(solve(&written, date, folders, platform, work.path()).await?);
        }
    }
    if solved.len() > known {
        fs_err::create_dir_all(places.cache.join("solved"))?;
        fs_err::write(file, serde_json::to_vec(&solved).map_err(|error| Error::bug("JSON").caused_by(error))?)?;
    }
    Ok(solved)
}

async fn solve(
    written: &Path,
    date: Date,
    folders: &[PathBuf],
    platform: &Platform,
    work: &Path,
) -> Result<Vec<String>> {
    let spec = spec::read(written)?;
    let silent: SharedReporter = Arc::new(Silent);
    let store = Store::open(&work.join("index"))?;
    let mut options = ResolveOptions::new(&spec, platform, &store, &silent)?;
    options.channels = folders.iter().map(|folder| folder.display().to_string()).collect();
    options.offline = true;
    options.virtual_packages.glibc = Some("2.36".to_owned());
    options.exclude_newer = Some(date.to_string().parse::<Cutoff>()?);
    let resolution = resolve(&spec, &options).await?;
    Ok(resolution.records.iter().map(file_of).collect())
}

/// Locks as condaimg would have made them, each from the one of the week before.
fn locks(corpus: &Corpus, solved: &Solved, index: &Index, platform: &Platform) -> Result<Vec<Lock>> {
    let mut locks: Vec<Lock> = Vec::new();
    let wanted: Vec<String> = dates(corpus).iter().map(Date::to_string).collect();
    // More may have been kept of an earlier run.
    for (date, files) in solved.iter().filter(|(date, _)| wanted.contains(date)) {
        let as_of = date.parse::<Cutoff>()?.last();
        let mut packages = Vec::new();
        let mut classes = BTreeMap::new();
        for file in files {
            let record = index.records.get(file).ok_or_else(|| Error::user(format!("`{file}` is in no index")))?;
            let bytecode = record.package_record.noarch.is_python();
            let package = LockedPackage {
                record: (**record).clone(),
                facts: PackageFacts { bytecode, ..PackageFacts::default() },
            };
            if let Some(class) = stability_of(index.of_name(package.name()), as_of) {
                classes.insert(package.name().to_owned(), class);
            }
            packages.push(package);
        }
        packages.sort_by(|a, b| a.name().cmp(b.name()));
        classify(&mut packages, locks.last(), &classes, false);
        locks.push(Lock::of_packages(platform.clone(), packages));
    }
    Ok(locks)
}
