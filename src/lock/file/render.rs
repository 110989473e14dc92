//! From locks to text: the packages as a pixi.lock, and the `condaimg:` key.

use std::collections::BTreeSet;
use std::path::Path;

use rattler_conda_types::{GenericVirtualPackage, RepoDataRecord};
use rattler_lock::{CondaPackageData, LockFile, PlatformData, PypiIndexes, UrlOrPath};

use super::extension::{Extension, ExtensionDocument, PlatformExtension, SaidInputs};
use super::{ENVIRONMENT, VERSION};
use crate::lock::seal::Seal;
use crate::lock::{Lock, Locks, PackageFacts, interpreter, local, pypi};
use crate::model::{LAYOUT_VERSION, Parameters};
use crate::util::{Error, Result, redact};

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
pub(in crate::lock) fn render_for_image(lock: &Lock, parameters: &Parameters) -> Result<String> {
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
pub(in crate::lock) fn render_pixi(locks: &[&Lock], folder: Option<&Path>) -> Result<String> {
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

/// The indexes that list wheels of the locks; nothing when there is no wheel.
fn pypi_indexes(locks: &[&Lock]) -> Option<PypiIndexes> {
    let mut wheels = locks.iter().flat_map(|lock| &lock.wheels).peekable();
    wheels.peek()?;
    let indexes: BTreeSet<_> = wheels.filter_map(|wheel| wheel.index.as_ref()).map(redact::canonical).collect();
    Some(PypiIndexes { indexes: indexes.into_iter().collect(), find_links: Vec::new() })
}
