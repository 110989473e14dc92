//! The environment that a base image brings (`--from`): read from the lock that is attached to the image, else from
//! its layers, whoever made it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::Path;

use fs_err as fs;
use rattler_conda_types::{GenericVirtualPackage, RepoDataRecord};

use super::base_files::{BaseFiles, FILES};
use super::options::EnvironmentOptions;
use super::python_info;
use crate::cli::world::World;
use crate::image::{self, Base};
use crate::lock::installed;
use crate::lock::{
    self, Activation, BaseEnvironment, Lock, LockedPackage, LockedWheel, PackageFacts, canonical_channel, canonical_url,
};
use crate::model::{BaseFacts, BaseRef, LAYER_NAME, LAYER_PACKAGES, LAYER_ROLE, LayerBlob, LayerRole, Platform};
use crate::pack::activation::{self, File, add_script, parse_variables};
use crate::resolve::{Channels, Present, VirtualPackageOptions};
use crate::ship;
use crate::util::{Digest, Error, Result};

/// What a base brings.
pub struct Brought {
    /// As the lock has it.
    pub environment: BaseEnvironment,
    /// The whole base's.
    pub facts: BaseFacts,
    /// Sorted by name.
    pub packages: Vec<LockedPackage>,
    /// Sorted by name.
    pub wheels: Vec<LockedWheel>,
    /// `Requires-Dist` of what it is to pip, by normalised name, as far as its layers were read for it.
    pub requirements: BTreeMap<String, Vec<String>>,
    /// What it was made for; nothing when it does not say.
    virtual_packages: Vec<GenericVirtualPackage>,
    /// Its files, as far as they are known.
    pub files: BaseFiles,
}

/// Reads what the base brings.
///
/// # Errors
/// A base without an environment, or with several of which none is chosen; another `--prefix` than the
/// environment's; those of the registry.
pub async fn read(options: &EnvironmentOptions, platform: &Platform, base: &Base, world: &World) -> Result<Brought> {
    let brought = match attached_lock(options, base, world).await? {
        Some((digest, text)) => match of_lock(digest, &text, platform, base, world).await {
            Ok(brought) => brought,
            Err(error) => {
                let why = error.chain().join(": ");
                world.reporter.warn(&format!(
                    "the lock that is attached to `{}` cannot be used ({why}): its layers are read instead",
                    options.base
                ));
                of_layers(options, base, world).await?
            }
        },
        None => of_layers(options, base, world).await?,
    };
    check_prefix(options.prefix.as_deref(), &brought.environment.prefix, &options.base)?;
    Ok(brought)
}

/// What is added goes where the base's environment is.
///
/// # Errors
/// When something else was asked for.
pub fn check_prefix(asked: Option<&str>, prefix: &str, base: &BaseRef) -> Result<()> {
    match asked.filter(|asked| *asked != prefix) {
        Some(asked) => Err(Error::user(format!(
            "`--prefix {asked}` cannot be: the environment of `{base}`, which is extended, lies in {prefix}"
        ))
        .hint("leave `--prefix` out, or build without `--from`")),
        None => Ok(()),
    }
}

/// The lock that the base was made from, if it was made by us and its lock is with it.
async fn attached_lock(options: &EnvironmentOptions, base: &Base, world: &World) -> Result<Option<(Digest, String)>> {
    let labels = base.config.config().as_ref().and_then(|config| config.labels().clone()).unwrap_or_default();
    let Some(digest) = labels.get(lock::LABEL).and_then(|label| label.parse::<Digest>().ok()) else { return Ok(None) };
    if let Ok(text) = fs::read_to_string(world.store.blob(&digest))
        && Digest::of(&text) == digest
    {
        return Ok(Some((digest, text)));
    }
    if world.offline && matches!(options.base, BaseRef::Registry(_)) {
        return Ok(None);
    }
    let files = ship::attached(&options.base, base.digest, lock::MEDIA_TYPE, &world.registry, &world.store).await?;
    // Whoever may attach something is not the one who made the image: its own digest names the lock.
    let found = files.into_iter().find(|file| Digest::of(file) == digest);
    let Some(text) = found.and_then(|file| String::from_utf8(file).ok()) else {
        world
            .reporter
            .notice(&format!("`{}` has no lock attached to it: what it brings is read from its layers", options.base));
        return Ok(None);
    };
    let mut blob = world.store.new_blob()?;
    blob.write_all(text.as_bytes())?;
    blob.finish(Some(&digest))?;
    Ok(Some((digest, text)))
}

/// What a lock that goes with an image says. Of the layers, only those are read of which it does not tell.
async fn of_lock(digest: Digest, text: &str, platform: &Platform, base: &Base, world: &World) -> Result<Brought> {
    let parameters = lock::parameters_of_image(text)
        .ok_or_else(|| Error::user("it does not say with which parameters the image was built"))?;
    let locks = lock::parse(text, "/".as_ref())?;
    let lock = locks
        .into_iter()
        .find(|lock| lock.platform.subdir == platform.subdir)
        .ok_or_else(|| Error::user(format!("it is not for {platform}")))?;
    // A lock of an older version knows little of what its own image stands on.
    let whole = lock.base.facts.whole;
    let told = |layer: &&LayerBlob| {
        let annotation = |name| layer.annotations.get(name);
        let name = annotation(LAYER_NAME);
        // Images from before there were roles call layers of bytecode so.
        let is_bytecode = match annotation(LAYER_ROLE) {
            Some(role) => role == LayerRole::Bytecode.name(),
            None => name.is_some_and(|name| name.ends_with("-bytecode")),
        };
        (whole && name.is_none()) || annotation(LAYER_PACKAGES).is_some() || is_bytecode
    };
    let others = base.layers.iter().filter(|layer| !told(layer)).cloned().collect();
    let above = image::probe(&Base { layers: others, ..base.clone() }, &world.store, world).await?;
    let mut facts = if whole { over(above, lock.base.facts.clone()) } else { above };
    facts.directories.extend(parameters.prefix.split('/').find(|part| !part.is_empty()).map(str::to_owned));
    let python = python_info(lock.packages.iter().map(|package| &package.record), platform.subdir)?;
    let root = facts.resolve(&parameters.prefix)?;
    let (packages, wheels): (Vec<_>, Vec<_>) = (lock.packages.iter().collect(), lock.wheels.iter().collect());
    let files = BaseFiles::known(base, &root, (&packages, &wheels), python.as_ref(), world).await?;
    Ok(Brought {
        environment: environment_of(digest, parameters, &lock),
        facts,
        virtual_packages: lock.virtual_packages.clone(),
        packages: lock.packages,
        wheels: lock.wheels,
        requirements: BTreeMap::new(),
        files,
    })
}

fn environment_of(digest: Digest, parameters: lock::ParametersOfImage, lock: &Lock) -> BaseEnvironment {
    let extended = lock.extended().cloned().unwrap_or_default();
    let mut channels: Vec<String> = lock.channels.iter().map(|channel| canonical_channel(channel)).collect();
    channels.extend(extended.channels.into_iter().filter(|channel| !lock.channels.contains(channel)));
    BaseEnvironment {
        prefix: parameters.prefix,
        group_write: parameters.group_write,
        lock: Some(digest),
        channels,
        specs: lock.all_specs().into_iter().map(str::to_owned).collect(),
        variables: lock.all_variables(),
        packages: lock.packages.iter().map(|package| package.name().to_owned()).collect(),
        wheels: lock.wheels.iter().map(|wheel| wheel.name.clone()).collect(),
        distributions: extended.distributions,
        removed: BTreeSet::new(),
    }
}

/// The facts of layers laid over what is below them. Our own layers take nothing away.
fn over(above: BaseFacts, mut below: BaseFacts) -> BaseFacts {
    below.symlinks.retain(|path, _| !above.directories.contains(path));
    below.symlinks.extend(above.symlinks);
    below.directories.extend(above.directories);
    below.folders.extend(above.folders);
    below.uniform.extend(above.uniform);
    below.shells.extend(above.shells);
    BaseFacts {
        login_scripts: below.login_scripts.or(above.login_scripts),
        passwd_path: below.passwd_path.or(above.passwd_path),
        passwd_mode: if above.passwd.is_some() { above.passwd_mode } else { below.passwd_mode },
        glibc: above.glibc.or(below.glibc),
        shell: above.shell || below.shell,
        passwd: above.passwd.or(below.passwd),
        group: above.group.or(below.group),
        ..below
    }
}

/// What the layers themselves say.
async fn of_layers(options: &EnvironmentOptions, base: &Base, world: &World) -> Result<Brought> {
    let (facts, read) = image::probe_files(base, &FILES, &world.store, world).await?;
    let read = installed::Files(read);
    let prefix = prefix_in(options, base, &facts, &read)?;
    let found = read.environment(&facts.resolve(&prefix)?)?;
    let environment = BaseEnvironment {
        lock: None,
        channels: Vec::new(),
        specs: requested(&found.packages),
        variables: found.variables.clone(),
        group_write: false,
        packages: found.packages.iter().map(|package| package.name().to_owned()).collect(),
        wheels: BTreeSet::new(),
        distributions: found.distributions.clone(),
        removed: BTreeSet::new(),
        prefix,
    };
    let files = BaseFiles::of_environment(&found);
    let packages = found.packages.iter().map(|package| locked(package, &found, &environment.prefix)).collect();
    Ok(Brought {
        environment,
        facts,
        packages,
        wheels: Vec::new(),
        requirements: found.requirements,
        virtual_packages: Vec::new(),
        files,
    })
}

/// Which of the environments in a base is extended: the one that was asked for, else the one that the image activates,
/// else the only one.
fn prefix_in(options: &EnvironmentOptions, base: &Base, facts: &BaseFacts, files: &installed::Files) -> Result<String> {
    let prefixes = files.prefixes();
    let is_there = |prefix: &str| facts.resolve(prefix).is_ok_and(|root| prefixes.contains(&root.as_str()));
    let listed = || prefixes.iter().map(|prefix| format!("/{prefix}")).collect::<Vec<_>>().join(", ");
    if prefixes.is_empty() {
        return Err(Error::user(format!("`{}` holds no conda environment that could be extended", options.base)).hint(
            "for an image that brings only an operating system, use `--base` (`base:`) instead of `--from` (`from:`)",
        ));
    }
    if let Some(asked) = &options.prefix {
        return match is_there(asked) {
            true => Ok(asked.clone()),
            false => Err(Error::user(format!("`{}` has no conda environment in {asked} (`--prefix`)", options.base))
                .hint(format!("it has {}", listed()))),
        };
    }
    let active = image::variable_of(base, "CONDA_PREFIX").map(|prefix| prefix.trim_end_matches('/').to_owned());
    if let Some(active) = active.filter(|active| is_there(active)) {
        return Ok(active);
    }
    match prefixes.as_slice() {
        [only] => Ok(format!("/{only}")),
        _ => Err(Error::user(format!("`{}` has {} conda environments: {}", options.base, prefixes.len(), listed()))
            .hint("choose the one to extend with `--prefix`")),
    }
}

fn requested(packages: &[installed::Package]) -> Vec<String> {
    let requested: BTreeSet<&String> = packages.iter().flat_map(|package| &package.requested).collect();
    requested.into_iter().cloned().collect()
}

fn locked(package: &installed::Package, environment: &installed::Environment, prefix: &str) -> LockedPackage {
    let mut found = Activation::default();
    for (path, content) in &environment.activation {
        if package.files.binary_search(path).is_err() {
            continue;
        }
        match activation::file(path) {
            Some(File::Script) => add_script(&mut found, path, Some(content.as_bytes()), Some(prefix)),
            Some(File::Variables) => {
                let read = parse_variables(path, content.as_bytes());
                found.steps.extend(read.into_iter().flat_map(|(steps, _)| steps));
            }
            None => {}
        }
    }
    let facts = PackageFacts { activation: found, pypi: package.distributions(), ..PackageFacts::default() };
    LockedPackage { record: package.record.clone(), facts }
}

impl Brought {
    /// What the solver is to leave alone.
    pub fn present(&self, options: &EnvironmentOptions) -> Present {
        Present {
            base: options.base.to_string(),
            records: self.packages.iter().map(|package| package.record.clone()).collect(),
        }
    }

    /// Adds what the base was made for to what was declared: the image will run where the base does.
    pub fn declare(&self, declared: &mut VirtualPackageOptions) {
        for package in &self.virtual_packages {
            let name = package.name.as_normalized();
            let known = match name {
                // The base's own files and the platform say that.
                "__glibc" | "__archspec" => true,
                "__cuda" => declared.cuda.is_some(),
                _ => false,
            };
            if known || declared.extra.iter().any(|(declared, _)| declared == name) {
                continue;
            }
            declared.extra.push((name.to_owned(), format!("{}={}", package.version, package.build_string)));
        }
    }

    /// The Python of the base.
    pub fn python(&self) -> Option<&RepoDataRecord> {
        self.packages.iter().find(|package| package.name() == "python").map(|package| &package.record)
    }

    /// Of pinned packages those that the base lacks.
    ///
    /// # Errors
    /// When one is pinned that the base has in another version or build.
    pub fn without(
        &self,
        mut pinned: Vec<RepoDataRecord>,
        file: &Path,
        options: &EnvironmentOptions,
    ) -> Result<Vec<RepoDataRecord>> {
        let mut against = String::new();
        pinned.retain(|record| {
            let (name, shown) = (record.package_record.name.as_normalized(), record.identifier.to_file_name());
            let Some(own) = self.packages.iter().find(|package| package.name() == name) else { return true };
            let (own, record) = (&own.record.package_record, &record.package_record);
            if (&own.version, &own.build) != (&record.version, &record.build) {
                against.push_str(&format!("\n  `{name} {} {}` of the base against `{shown}`", own.version, own.build));
            }
            false
        });
        match against.is_empty() {
            true => Ok(pinned),
            false => Err(Error::user(format!(
                "what `{}` pins does not fit the base `{}`, whose packages stay as they are:{against}",
                file.display(),
                options.base
            ))
            .hint("pin what the base has, extend another base, or build without `--from`")),
        }
    }

    /// Puts the base's packages and wheels among the new ones; `removed` is what the image does not have of the base.
    pub fn join(&self, lock: &mut Lock, removed: BTreeSet<String>) {
        lock.packages.extend(self.packages.iter().cloned());
        lock.packages.sort_by(|a, b| a.name().cmp(b.name()));
        lock.wheels.extend(self.wheels.iter().cloned());
        lock.wheels.sort_by(|a, b| a.name.cmp(&b.name));
        lock.base.environment = Some(BaseEnvironment { removed, ..self.environment.clone() });
    }
}

/// Where the archive of a base's package is for this machine: its lock knows a local channel by name only, which is
/// found among the environment's own.
pub fn located(record: &RepoDataRecord, channels: &Channels) -> RepoDataRecord {
    let mut record = record.clone();
    if record.url.scheme() != "file" {
        return record;
    }
    let own = canonical_url(&record.url);
    let file = record.identifier.to_file_name();
    let named = channels.urls().into_iter().filter_map(|channel| {
        let base = channel.as_str().trim_end_matches('/').to_owned();
        let url: url::Url = format!("{base}/{}/{file}", record.package_record.subdir).parse().ok()?;
        (canonical_url(&url) == own).then_some(url)
    });
    // Several may have that name.
    let mut named: Vec<url::Url> = named.collect();
    named.sort_by_key(|url| !url.to_file_path().is_ok_and(|path| path.exists()));
    let here = named.into_iter().next();
    if let Some(here) = here {
        record.url = here;
    }
    record
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_our_layers_add_counts() {
        let facts = |symlinks: &[(&str, &str)], directories: &[&str], passwd: Option<&str>| BaseFacts {
            symlinks: symlinks.iter().map(|(path, target)| ((*path).to_owned(), (*target).to_owned())).collect(),
            directories: directories.iter().map(|&path| path.to_owned()).collect(),
            passwd: passwd.map(str::to_owned),
            ..BaseFacts::default()
        };
        let below = BaseFacts {
            glibc: Some("2.36".to_owned()),
            shell: true,
            ..facts(&[("bin", "usr/bin"), ("app", "srv")], &["usr"], Some("root"))
        };
        let both = over(facts(&[("app/current", "1")], &["app", "opt"], Some("root\nconda")), below);
        assert_eq!(both.symlinks.keys().collect::<Vec<_>>(), ["app/current", "bin"]);
        assert_eq!(both.directories.iter().collect::<Vec<_>>(), ["app", "opt", "usr"]);
        assert_eq!((both.passwd.as_deref(), both.glibc.as_deref()), (Some("root\nconda"), Some("2.36")));
        assert!(both.shell);
    }
}
