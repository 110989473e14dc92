//! `condaimg.lock`: a valid pixi.lock (written and read by `rattler_lock`) with one more top-level key,
//! `condaimg:`, for what that format lacks.

use std::collections::BTreeMap;
use std::path::Path;

use fs_err as fs;
use rattler_conda_types::{GenericVirtualPackage, Subdir, Version};
use rattler_lock::{CondaPackageData, LockFile, PlatformData};
use serde::{Deserialize, Serialize};

use super::{Lock, LockedBase, LockedPackage, PackageFacts};
use crate::model::{LAYOUT_VERSION, Parameters};
use crate::util::error::ResultExt as _;
use crate::util::{Digest, Error, Result, files};

/// The version of the `condaimg:` key.
const VERSION: u32 = 1;
const ENVIRONMENT: &str = "default";

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Extension {
    version: u32,
    layout_version: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    inputs: Option<Digest>,
    specs: Vec<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    variables: BTreeMap<String, String>,
    platforms: BTreeMap<String, PlatformExtension>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    parameters: Option<Parameters>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct PlatformExtension {
    base: LockedBase,
    virtual_packages: Vec<String>,
    /// By package name; packages without facts worth a line are left out.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    facts: BTreeMap<String, PackageFacts>,
}

#[derive(Serialize, Deserialize)]
struct ExtensionDocument {
    condaimg: Extension,
}

/// The text of a lock.
///
/// # Errors
/// When `rattler_lock` cannot render it.
pub fn render(lock: &Lock) -> Result<String> {
    render_with(lock, Some(lock.inputs), None)
}

pub(super) fn render_with(lock: &Lock, inputs: Option<Digest>, parameters: Option<&Parameters>) -> Result<String> {
    let mut text = render_pixi(lock)?;
    let facts = lock.packages.iter().filter(|package| package.facts != PackageFacts::default());
    let platform = PlatformExtension {
        base: lock.base.clone(),
        virtual_packages: lock.virtual_packages.iter().map(virtual_package_text).collect(),
        facts: facts.map(|package| (package.name().to_owned(), package.facts.clone())).collect(),
    };
    let extension = Extension {
        version: VERSION,
        layout_version: LAYOUT_VERSION,
        inputs,
        specs: lock.specs.clone(),
        variables: lock.variables.clone(),
        platforms: [(lock.subdir.to_string(), platform)].into(),
        parameters: parameters.cloned(),
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

fn virtual_package_text(package: &GenericVirtualPackage) -> String {
    format!("{}={}={}", package.name.as_normalized(), package.version, package.build_string)
}

fn render_pixi(lock: &Lock) -> Result<String> {
    let name = lock.subdir.to_string();
    let bug = |what: &str| Error::bug(format!("the lock cannot be written: {what}"));
    let platform = PlatformData {
        name: name.as_str().try_into().map_err(|_| bug("a platform's name"))?,
        subdir: lock.subdir,
        virtual_packages: lock.virtual_packages.iter().map(virtual_package_text).collect(),
    };
    let mut builder = LockFile::builder()
        .with_platforms(vec![platform])
        .map_err(|error| bug("its platform").caused_by(error))?
        .with_channels(ENVIRONMENT, lock.channels.iter().map(String::as_str));
    for package in &lock.packages {
        let mut record = package.record.clone();
        record.url = crate::util::redact::canonical(&record.url);
        builder
            .add_conda_package(ENVIRONMENT, &name, CondaPackageData::from(record))
            .map_err(|error| bug("a package").caused_by(error))?;
    }
    builder.finish().render_to_string().map_err(|error| bug("its text").caused_by(error))
}

/// Writes a lock; an equal file is left alone.
///
/// # Errors
/// Those of the file system.
pub fn write(path: &Path, text: &str) -> Result<()> {
    files::write_atomic(path, text.as_bytes())
}

/// Reads a lock; nothing when there is no such file.
///
/// # Errors
/// A file that is no lock of condaimg, or of a newer version.
pub fn read(path: &Path, subdir: Subdir) -> Result<Option<Lock>> {
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
    parse(&text, &folder, subdir)
        .context(|| format!("the lock `{}` cannot be used", path.display()))
        .map_err(|error| error.hint("remove it, and a new one is made"))
        .map(Some)
}

/// Reads the text of a lock. `folder` is what its relative paths are relative to.
///
/// # Errors
/// What is wrong with it.
pub fn parse(text: &str, folder: &Path, subdir: Subdir) -> Result<Lock> {
    let document: ExtensionDocument =
        serde_yaml::from_str(text).map_err(|error| Error::user(error.to_string()).hint("it is no lock of condaimg"))?;
    let extension = document.condaimg;
    if extension.version != VERSION || extension.layout_version != LAYOUT_VERSION {
        return Err(Error::user(format!(
            "it is of version {}, layout {}; this condaimg reads version {VERSION}, layout {LAYOUT_VERSION}",
            extension.version, extension.layout_version
        )));
    }
    let name = subdir.to_string();
    let missing = || Error::user(format!("it is not for {name}"));
    let platform = extension.platforms.into_iter().find(|(known, _)| *known == name).ok_or_else(missing)?.1;
    let pixi = LockFile::from_str_with_base_directory(text, Some(folder))
        .map_err(|error| Error::user("its packages cannot be read").caused_by(error))?;
    let environment = pixi.environment(ENVIRONMENT).ok_or_else(missing)?;
    let records = pixi
        .platform(&name)
        .map(|platform| environment.conda_repodata_records(platform))
        .transpose()
        .map_err(|error| Error::user("its packages cannot be read").caused_by(error))?
        .flatten()
        .ok_or_else(missing)?;
    let mut facts = platform.facts;
    let mut packages: Vec<LockedPackage> = records
        .into_iter()
        .map(|record| {
            let facts = facts.remove(record.package_record.name.as_normalized()).unwrap_or_default();
            LockedPackage { record, facts }
        })
        .collect();
    packages.sort_by(|a, b| a.name().cmp(b.name()));
    if let Some(twice) = packages.windows(2).find(|pair| pair[0].name() == pair[1].name()) {
        return Err(Error::user(format!("it has the package `{}` twice", twice[0].name())));
    }
    for package in &packages {
        package.sha256()?;
    }
    Ok(Lock {
        inputs: extension.inputs.ok_or_else(|| Error::user("it does not say what it was made from"))?,
        subdir,
        channels: environment.channels().iter().map(|channel| channel.url.clone()).collect(),
        virtual_packages: platform.virtual_packages.iter().map(|text| virtual_package(text)).collect::<Result<_>>()?,
        specs: extension.specs,
        variables: extension.variables,
        base: platform.base,
        packages,
    })
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

    fn package(version: &str) -> LockedPackage {
        let file = format!("twice-{version}-0.conda");
        let record = serde_json::json!({
            "name": "twice", "version": version, "build": "0", "build_number": 0, "subdir": "linux-64",
            "depends": [], "sha256": Digest::of(version).hex(), "fn": file,
            "url": format!("https://channel.example/c/linux-64/{file}"), "channel": "https://channel.example/c",
        });
        LockedPackage { record: serde_json::from_value(record).expect("a record"), facts: PackageFacts::default() }
    }

    fn parsed(packages: Vec<LockedPackage>) -> Result<Lock> {
        let digest = Digest::of("");
        let lock = Lock {
            inputs: digest,
            subdir: Subdir::Linux64,
            channels: vec!["https://channel.example/c".to_owned()],
            virtual_packages: Vec::new(),
            specs: Vec::new(),
            variables: BTreeMap::new(),
            base: LockedBase { reference: "scratch".to_owned(), digest, facts: BaseFacts::default() },
            packages,
        };
        parse(&render(&lock)?, Path::new("/"), Subdir::Linux64)
    }

    #[test]
    fn a_name_stands_for_one_package() {
        assert_eq!(parsed(vec![package("1")]).expect("parses").packages.len(), 1);
        let error = parsed(vec![package("1"), package("2")]).expect_err("is ambiguous");
        assert_eq!(error.to_string(), "it has the package `twice` twice");
    }
}
