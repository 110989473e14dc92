//! `condaimg.lock`: a valid pixi.lock (written and read by `rattler_lock`) with one more top-level key,
//! `condaimg:`, for what that format lacks.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use fs_err as fs;
use rattler_conda_types::{GenericVirtualPackage, RepoDataRecord, Subdir, Version};
use rattler_lock::{CondaBinaryData, CondaPackageData, LockFile, PlatformData, PypiIndexes, UrlOrPath};
use serde::{Deserialize, Serialize};
use url::Url;

use super::seal::Seal;
use super::{Inputs, Lock, LockedBase, LockedPackage, LockedWheel, Locks, PackageFacts, interpreter, local, pypi};
use crate::model::{LAYOUT_VERSION, Parameters, Platform};
use crate::util::error::ResultExt as _;
use crate::util::{Digest, Error, Result, files, redact};

/// The version of the `condaimg:` key.
const VERSION: u32 = 1;
const ENVIRONMENT: &str = "default";

/// What is said here, and as the channels of the environment, holds for the platforms that say nothing else.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Extension {
    version: u32,
    layout_version: u32,
    /// Where locks of one platform once had a digest of them, which is as good as nothing.
    #[serde(default, skip_serializing, rename = "inputs")]
    _inputs: Option<Digest>,
    specs: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pip: Vec<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    variables: BTreeMap<String, String>,
    /// By [`Platform::lock_name`].
    platforms: BTreeMap<String, PlatformExtension>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    parameters: Option<Parameters>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct PlatformExtension {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    inputs: Option<SaidInputs>,
    /// Older locks, and those of images, have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    seal: Option<Seal>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    channels: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    specs: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pip: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    variables: Option<BTreeMap<String, String>>,
    base: LockedBase,
    virtual_packages: Vec<String>,
    /// Whether the archives were not read: what they tell is still to be found out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    facts_at_first_build: bool,
    /// By package name; packages without facts worth a line are left out.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    facts: BTreeMap<String, PackageFacts>,
    /// By normalised name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    wheels: BTreeMap<String, pypi::Entry>,
    /// By the builder's subdir.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    interpreters: BTreeMap<Subdir, Vec<interpreter::Entry>>,
}

/// Locks once had a digest of the inputs, which tells nobody what changed: they are stale.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum SaidInputs {
    Whole(Inputs),
    Digest(Digest),
}

impl SaidInputs {
    fn whole(self) -> Option<Inputs> {
        match self {
            Self::Whole(inputs) => Some(inputs),
            Self::Digest(_) => None,
        }
    }
}

#[derive(Serialize, Deserialize)]
struct ExtensionDocument {
    condaimg: Extension,
}

/// The text of a file of locks in `folder`, an absolute path.
///
/// # Errors
/// When there is no lock, or `rattler_lock` cannot render it.
pub fn render(locks: &Locks, folder: &Path) -> Result<String> {
    render_all(&locks.iter().collect::<Vec<_>>(), Form::File(folder))
}

/// What a text of locks is for.
#[derive(Clone, Copy)]
enum Form<'a> {
    /// A file in this folder.
    File(&'a Path),
    /// An image that was made with these parameters.
    Image(&'a Parameters),
}

impl<'a> Form<'a> {
    fn folder(self) -> Option<&'a Path> {
        match self {
            Self::File(folder) => Some(folder),
            Self::Image(_) => None,
        }
    }

    fn parameters(self) -> Option<&'a Parameters> {
        match self {
            Self::File(_) => None,
            Self::Image(parameters) => Some(parameters),
        }
    }
}

/// The text of one lock as it goes with an image: it says with which parameters, and not from which inputs.
pub(super) fn render_for_image(lock: &Lock, parameters: &Parameters) -> Result<String> {
    render_all(&[lock], Form::Image(parameters))
}

fn render_all(locks: &[&Lock], form: Form<'_>) -> Result<String> {
    let Some(first) = locks.first() else { return Err(Error::bug("a file of no locks")) };
    let mut text = render_pixi(locks, form.folder())?;
    let platforms = locks.iter().map(|lock| {
        let extension = platform_extension(lock, first, form.folder())?;
        Ok((lock.platform.lock_name(), extension))
    });
    let extension = Extension {
        version: VERSION,
        layout_version: LAYOUT_VERSION,
        _inputs: None,
        specs: first.specs.clone(),
        pip: first.pip.clone(),
        variables: first.variables.clone(),
        platforms: platforms.collect::<Result<_>>()?,
        parameters: form.parameters().cloned(),
    };
    let document = ExtensionDocument { condaimg: extension };
    let rendered =
        serde_yaml::to_string(&document).map_err(|error| Error::bug("the lock has no YAML form").caused_by(error))?;
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text.push_str(&rendered);
    Ok(text)
}

/// What a lock says beyond its packages, as far as the first lock of the file does not say it for all.
fn platform_extension(lock: &Lock, first: &Lock, folder: Option<&Path>) -> Result<PlatformExtension> {
    let facts = lock.packages.iter().filter(|package| package.facts != PackageFacts::default());
    let interpreters = lock.interpreters.iter().map(|(builder, packages)| {
        let entries = packages.iter().map(|package| interpreter::Entry::new(package, folder)).collect::<Result<_>>()?;
        Ok((*builder, entries))
    });
    let mut base = lock.base.clone();
    if let Some(folder) = folder {
        base.reference = local::base_text(&base.reference, folder);
    }
    Ok(PlatformExtension {
        // An image does not say from which inputs its lock was made, and nobody edits its lock.
        inputs: lock.inputs.clone().filter(|_| folder.is_some()).map(SaidInputs::Whole),
        seal: folder.map(|_| Seal::of(lock)).transpose()?,
        channels: (lock.channels != first.channels).then(|| channels_text(&lock.channels, folder)),
        specs: (lock.specs != first.specs).then(|| lock.specs.clone()),
        pip: (lock.pip != first.pip).then(|| lock.pip.clone()),
        variables: (lock.variables != first.variables).then(|| lock.variables.clone()),
        base,
        virtual_packages: lock.virtual_packages.iter().map(virtual_package_text).collect(),
        facts_at_first_build: !lock.has_facts,
        facts: facts.map(|package| (package.name().to_owned(), package.facts.clone())).collect(),
        wheels: lock.wheels.iter().map(|wheel| (wheel.name.clone(), pypi::Entry::new(wheel))).collect(),
        interpreters: interpreters.collect::<Result<_>>()?,
    })
}

fn channels_text(channels: &[String], folder: Option<&Path>) -> Vec<String> {
    let text = |channel: &String| folder.map_or_else(|| channel.clone(), |folder| local::channel_text(channel, folder));
    channels.iter().map(text).collect()
}

fn virtual_package_text(package: &GenericVirtualPackage) -> String {
    format!("{}={}={}", package.name.as_normalized(), package.version, package.build_string)
}

/// The packages as a pixi.lock; with a folder, as one that lies there.
pub(super) fn render_pixi(locks: &[&Lock], folder: Option<&Path>) -> Result<String> {
    let bug = |what: &str| Error::bug(format!("the lock cannot be written: {what}"));
    let platforms = locks.iter().map(|lock| {
        Ok(PlatformData {
            name: lock.platform.lock_name().try_into().map_err(|_| bug("a platform's name"))?,
            subdir: lock.platform.subdir,
            virtual_packages: lock.virtual_packages.iter().map(virtual_package_text).collect(),
        })
    });
    let channels = locks.first().map(|lock| channels_text(&lock.channels, folder)).unwrap_or_default();
    let mut builder = LockFile::builder()
        .with_platforms(platforms.collect::<Result<_>>()?)
        .map_err(|error| bug("its platforms").caused_by(error))?
        .with_channels(ENVIRONMENT, channels);
    for lock in locks {
        for package in &lock.packages {
            builder
                .add_conda_package(ENVIRONMENT, &lock.platform.lock_name(), conda_package(&package.record, folder))
                .map_err(|error| bug("a package").caused_by(error))?;
        }
        for wheel in &lock.wheels {
            builder
                .add_pypi_package(ENVIRONMENT, &lock.platform.lock_name(), pypi::package(wheel, folder)?)
                .map_err(|error| bug("a wheel").caused_by(error))?;
        }
    }
    if let Some(indexes) = pypi_indexes(locks) {
        builder.set_pypi_indexes(ENVIRONMENT, indexes);
    }
    builder.finish().render_to_string().map_err(|error| bug("its text").caused_by(error))
}

/// A record as a package of a pixi.lock.
fn conda_package(record: &RepoDataRecord, folder: Option<&Path>) -> CondaPackageData {
    let mut record = record.clone();
    record.url = redact::canonical(&record.url);
    let relative = folder.and_then(|folder| local::url_text(&record.url, folder));
    let mut package = CondaPackageData::from(record);
    if let (Some(relative), CondaPackageData::Binary(binary)) = (relative, &mut package) {
        binary.location = UrlOrPath::Path(relative.as_str().into());
        // It follows from where the package lies.
        binary.channel = None;
    }
    package
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

/// The indexes that list wheels of the locks; nothing when there is no wheel.
fn pypi_indexes(locks: &[&Lock]) -> Option<PypiIndexes> {
    let mut wheels = locks.iter().flat_map(|lock| &lock.wheels).peekable();
    wheels.peek()?;
    let indexes: BTreeSet<_> = wheels.filter_map(|wheel| wheel.index.as_ref()).map(redact::canonical).collect();
    Some(PypiIndexes { indexes: indexes.into_iter().collect(), find_links: Vec::new() })
}

/// Writes a lock; an equal file is left alone.
///
/// # Errors
/// Those of the file system.
pub fn write(path: &Path, text: &str) -> Result<()> {
    files::write_atomic(path, text.as_bytes())
}

/// Reads the locks of a file; nothing when there is no such file.
///
/// # Errors
/// A file that is no lock of condaimg, or of a newer version.
pub fn read(path: &Path) -> Result<Option<Locks>> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
            return Err(Error::user(format!("the lock `{}` cannot be used: it is not UTF-8", path.display()))
                .hint("remove it, and a new one is made"));
        }
        Err(error) => return Err(error.into()),
    };
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let folder = std::path::absolute(folder)?;
    parse(&text, &folder)
        .context(|| format!("the lock `{}` cannot be used", path.display()))
        .map_err(|error| error.hint("remove it, and a new one is made"))
        .map(Some)
}

/// Reads the text of a file of locks. `folder` is what its relative paths are relative to.
///
/// # Errors
/// What is wrong with it.
pub fn parse(text: &str, folder: &Path) -> Result<Locks> {
    let document: ExtensionDocument =
        serde_yaml::from_str(text).map_err(|error| Error::user(error.to_string()).hint("it is no lock of condaimg"))?;
    let mut extension = document.condaimg;
    if extension.version != VERSION || extension.layout_version != LAYOUT_VERSION {
        return Err(Error::user(format!(
            "it is of version {}, layout {}; this condaimg reads version {VERSION}, layout {LAYOUT_VERSION}",
            extension.version, extension.layout_version
        )));
    }
    let pixi = LockFile::from_str_with_base_directory(text, Some(folder))
        .map_err(|error| Error::user("its packages cannot be read").caused_by(error))?;
    let platforms = std::mem::take(&mut extension.platforms);
    platforms.into_iter().map(|(name, platform)| lock_of(&name, platform, &extension, &pixi, folder)).collect()
}

/// The parameters of the build whose image a lock was attached to; nothing in a lock that lies beside an environment.
///
/// # Errors
/// A text that is no lock of condaimg.
pub fn recorded_parameters(text: &str) -> Result<Option<Parameters>> {
    let document: ExtensionDocument =
        serde_yaml::from_str(text).map_err(|error| Error::user(error.to_string()).hint("it is no lock of condaimg"))?;
    Ok(document.condaimg.parameters)
}

/// The lock of one platform.
fn lock_of(name: &str, said: PlatformExtension, common: &Extension, pixi: &LockFile, folder: &Path) -> Result<Lock> {
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
    if let Some(seal) = said.seal {
        lock.edited = seal.broken(&lock)?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::BaseFacts;

    fn package(name: &str, version: &str, subdir: &str) -> LockedPackage {
        let file = format!("{name}-{version}-0.conda");
        let record = serde_json::json!({
            "name": name, "version": version, "build": "0", "build_number": 0, "subdir": subdir,
            "depends": [], "sha256": Digest::of(format!("{subdir}/{file}")).hex(), "fn": file, "size": 7,
            "url": format!("https://channel.example/c/{subdir}/{file}"), "channel": "https://channel.example/c",
        });
        let facts = PackageFacts { bytecode: subdir == "noarch", ..PackageFacts::default() };
        LockedPackage { record: serde_json::from_value(record).expect("a record"), facts }
    }

    fn inputs(base: &str) -> Inputs {
        Inputs { base: Some(base.to_owned()), channel_priority: "strict".to_owned(), ..Inputs::default() }
    }

    fn lock(platform: &str, packages: Vec<LockedPackage>) -> Lock {
        let digest = Digest::of(platform);
        Lock {
            inputs: Some(inputs(platform)),
            platform: platform.parse().expect("a platform"),
            channels: vec!["https://channel.example/c".to_owned()],
            virtual_packages: Vec::new(),
            specs: vec!["a".to_owned()],
            pip: Vec::new(),
            wheels: Vec::new(),
            variables: [("A".to_owned(), "1".to_owned())].into(),
            base: LockedBase {
                reference: "scratch".to_owned(),
                digest,
                facts: BaseFacts::default(),
                environment: None,
                documents: None,
            },
            packages,
            has_facts: true,
            edited: Vec::new(),
            interpreters: BTreeMap::new(),
        }
    }

    fn x86() -> Lock {
        lock("linux/amd64", vec![package("a", "1", "linux-64"), package("pure", "1", "noarch")])
    }

    fn arm() -> Lock {
        let mut arm = lock("linux/arm64", vec![package("a", "1", "linux-aarch64"), package("pure", "1", "noarch")]);
        let mut python = package("python", "3.11.2", "linux-64");
        python.facts.clobbered = [("bin/python".to_owned(), "other".to_owned())].into();
        arm.interpreters = [(Subdir::Linux64, vec![python])].into();
        arm
    }

    fn rendered(locks: &[Lock]) -> String {
        render(&locks.iter().cloned().collect(), Path::new("/")).expect("renders")
    }

    fn parsed(text: &str) -> Result<Locks> {
        parse(text, Path::new("/"))
    }

    #[test]
    fn a_name_stands_for_one_package() {
        let of = |packages| parsed(&rendered(&[lock("linux/amd64", packages)]));
        assert_eq!(of(vec![package("twice", "1", "linux-64")]).expect("parses").iter().len(), 1);
        let error =
            of(vec![package("twice", "1", "linux-64"), package("twice", "2", "linux-64")]).expect_err("is ambiguous");
        assert_eq!(error.to_string(), "it has the package `twice` twice");
    }

    #[test]
    fn what_was_read_is_written_again() {
        let text = rendered(&[x86(), arm(), lock("linux/amd64/v3", vec![package("a", "1", "linux-64")])]);
        let locks = parsed(&text).expect("parses");
        assert_eq!(render(&locks, Path::new("/")).expect("renders"), text);
        assert_eq!(locks.platforms(), ["linux/amd64", "linux/amd64/v3", "linux/arm64"]);
        let arm = locks.get(&"linux/arm64/v8".parse().expect("a platform")).expect("is there");
        assert_eq!(arm.inputs, Some(inputs("linux/arm64")));
        let python = &arm.interpreters[&Subdir::Linux64][0];
        assert_eq!((python.full_name().as_str(), python.size()), ("python-3.11.2-0", 7));
        assert!(python.facts.leaves_out("bin/python"));
    }

    /// One of each kind, as locking makes them.
    fn wheels() -> Vec<LockedWheel> {
        use crate::lock::{WheelFacts, WheelSource};
        let url = |text: &str| text.parse().expect("a URL");
        let sources = [
            WheelSource::Wheel { url: url("https://files.example/a/b/direct-1.0-py3-none-any.whl") },
            WheelSource::Folder { url: url("file:///project/folder"), digest: Digest::of("content") },
            WheelSource::Git {
                url: url("https://git.example/team/git.git"),
                commit: "5c9b8a7d5c9b8a7d5c9b8a7d5c9b8a7d5c9b8a7d".to_owned(),
                subdirectory: Some("python".to_owned()),
            },
            WheelSource::Wheel { url: url("https://files.example/index-1.0%2Bcpu-cp311-cp311-linux_x86_64.whl") },
            WheelSource::Sdist { url: url("https://files.example/sdist-1.0.tar.gz"), sha256: Digest::of("sdist") },
        ];
        let names = ["direct", "folder", "git", "index", "sdist"];
        let wheel = |(name, source): (&str, WheelSource)| LockedWheel {
            name: name.to_owned(),
            version: if name == "index" { "1.0+cpu" } else { "1.0" }.to_owned(),
            file_name: match name {
                "index" => "index-1.0+cpu-cp311-cp311-linux_x86_64.whl".to_owned(),
                name => format!("{name}-1.0-py3-none-any.whl"),
            },
            sha256: Digest::of(name),
            size: 7,
            index: matches!(name, "index" | "sdist").then(|| url("https://index.example/simple")),
            source,
            requires_dist: vec!["other>=1 ; python_full_version < '4'".to_owned()],
            requires_python: Some(">=3.8".to_owned()),
            facts: WheelFacts { bytecode: name == "git", ..WheelFacts::default() },
        };
        names.into_iter().zip(sources).map(wheel).collect()
    }

    #[test]
    fn wheels_are_packages_of_a_pixi_lock_and_come_back() {
        let mut lock = x86();
        lock.pip = vec!["index==1.0".to_owned(), "./folder".to_owned()];
        lock.wheels = wheels();
        let text = rendered(&[lock.clone(), arm()]);
        let read = parsed(&text).expect("parses");
        assert_eq!(render(&read, Path::new("/")).expect("renders"), text);
        let read = read.get(&lock.platform).expect("is there");
        assert_eq!((&read.wheels, &read.pip), (&lock.wheels, &lock.pip));
        let pixi = LockFile::from_str_with_base_directory(&text, None).expect("a pixi.lock");
        let platform = pixi.platform("linux-64").expect("a platform");
        let environment = pixi.default_environment().expect("an environment");
        assert_eq!(environment.pypi_packages(platform).expect("packages").count(), 5);
    }

    #[test]
    fn wheels_that_contradict_each_other_are_refused() {
        let mut lock = x86();
        lock.wheels = wheels();
        let text = rendered(&[lock]);
        for (from, to, expected) in [
            ("        git:\n", "        gut:\n", "says nothing of the wheel of `git`"),
            ("      wheels:\n", "      wheels:\n        more: {}\n", "no package for the wheel of `more`"),
        ] {
            let changed = text.replacen(from, to, 1);
            assert_ne!(changed, text);
            let error = parsed(&changed).expect_err("is wrong").to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_platform_is_added_without_a_change_to_the_others() {
        let (alone, both) = (rendered(&[x86()]), rendered(&[x86(), arm()]));
        let mut rest = both.lines();
        for line in alone.lines() {
            assert!(rest.any(|other| other == line), "`{line}` is gone or elsewhere");
        }
    }

    #[test]
    fn platforms_may_have_been_made_from_other_things() {
        let mut older = arm();
        older.specs = vec!["a=0".to_owned()];
        older.variables.clear();
        older.channels = vec!["https://channel.example/old".to_owned()];
        let locks = parsed(&rendered(&[x86(), older.clone()])).expect("parses");
        for lock in [&older, &x86()] {
            let read = locks.get(&lock.platform).expect("is there");
            assert_eq!((&read.specs, &read.channels), (&lock.specs, &lock.channels));
            assert_eq!((&read.variables, &read.inputs), (&lock.variables, &lock.inputs));
        }
    }

    #[test]
    fn an_interpreter_is_of_the_environments_version() {
        let mut arm = arm();
        assert!(arm.interpreter(Subdir::Linux64).is_none(), "an environment without Python needs none");
        for (version, same) in [("3.11.2", true), ("3.11.3", false)] {
            arm.packages.retain(|package| package.name() != "python");
            arm.packages.push(package("python", version, "linux-aarch64"));
            assert_eq!(arm.interpreter(Subdir::Linux64).is_some(), same, "{version}");
        }
        assert!(arm.interpreter(Subdir::LinuxPpc64le).is_none());
    }

    #[test]
    fn locks_with_a_digest_of_their_inputs_are_stale() {
        let text = rendered(&[x86()]);
        let place = |key: &str| text.find(key).expect("is there");
        let whole = &text[place("      inputs:")..place("      base:\n")];
        let digest = format!("inputs: {}\n", Digest::of("a"));
        let inputs = inputs("linux/amd64");
        for older in [
            text.replace(whole, &format!("      {digest}")),
            text.replace(whole, "").replace("  specs:\n", &format!("  {digest}  specs:\n")),
        ] {
            let locks = parsed(&older).expect("parses");
            let lock = locks.iter().next().expect("is there");
            let now = crate::lock::Wanted {
                specs: &lock.specs,
                pip: &lock.pip,
                variables: &lock.variables,
                pinned: None,
                inputs: &inputs,
                base: lock.base.digest,
            };
            assert_eq!(crate::lock::changes(lock, now), ["it does not say what it was made from"], "{older}");
            assert!(crate::lock::changes(&x86(), now).is_empty());
        }
    }
}
