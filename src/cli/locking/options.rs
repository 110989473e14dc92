//! What a lock is made from, and where, checked; looks at files, not at the network.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::cli::args::{BytecodeArg, EnvironmentArgs, Global, PriorityArg};
use crate::cli::values::{pair, variable};
use crate::cli::world::CachePlace;
use crate::model::{self, BaseRef, Cutoff, Platform};
use crate::registry::Registry;
use crate::resolve::{ChannelPriority, Condarc};
use crate::util::{Error, Result, ResultExt as _};

/// The base of an image when nothing else is said.
pub const DEFAULT_BASE: &str = "docker.io/library/debian:12-slim";

/// The patterns of `--allow-clobber`, sorted, each once: their order says nothing.
fn clobber_patterns(texts: &[String]) -> Result<Vec<glob::Pattern>> {
    let texts: BTreeSet<&String> = texts.iter().collect();
    let pattern = |text: &String| {
        glob::Pattern::new(text)
            .map_err(|error| Error::usage(format!("`--allow-clobber {text}` is no pattern")).caused_by(error))
    };
    texts.into_iter().map(pattern).collect()
}

/// What is done with a lock that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LockMode {
    /// Making it is all that is wanted: as [`Self::Renew`], but one that cannot be written is an error.
    Make(Upgrade),
    /// A stale one is made anew.
    Renew,
    /// A stale one is an error.
    Locked,
    /// It is used as it is.
    Frozen,
}

/// Which packages of the old lock are not to be preferred.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Upgrade {
    /// None: only what has to change changes.
    Nothing,
    /// Those with these normalised names.
    Packages(BTreeSet<String>),
    /// All.
    All,
}

impl LockMode {
    /// Whether a lock may be written.
    pub fn writes(&self) -> bool {
        matches!(self, Self::Renew | Self::Make(_))
    }

    /// Whether a lock that is current is made anew.
    pub fn upgrades(&self) -> bool {
        matches!(self, Self::Make(Upgrade::Packages(_) | Upgrade::All))
    }

    /// Whether what an old lock has of a package is preferred.
    pub fn keeps(&self, name: &str) -> bool {
        match self {
            Self::Make(Upgrade::All) => false,
            Self::Make(Upgrade::Packages(names)) => !names.contains(name),
            _ => true,
        }
    }
}

/// Who says what the base is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BaseOrigin {
    /// A flag, an environment variable, or the file of the environment.
    Given,
    /// The lock in this file.
    Lock(PathBuf),
    /// Nobody.
    Default,
}

impl BaseOrigin {
    /// The name in JSON lines.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Given => "given",
            Self::Lock(_) => "lock",
            Self::Default => "default",
        }
    }
}

/// What a lock is made from, and how, checked.
pub struct EnvironmentOptions {
    /// Where the lock lies; none: beside the spec.
    pub lock_file: Option<PathBuf>,
    /// The targets, sorted, each once; never none.
    pub platforms: Vec<Platform>,
    /// What the image stands on.
    pub base: BaseRef,
    /// Who says so.
    pub base_origin: BaseOrigin,
    /// Whether the base's own environment is extended (`--from`).
    pub extends: bool,
    /// Where the environment is to lie in the image, if that was said.
    pub prefix: Option<String>,
    /// Where the store is.
    pub cache: CachePlace,
    /// Parallelism.
    pub jobs: usize,
    /// Layers that are fetched from a registry at once.
    pub downloads: usize,
    /// `--cuda`, or conda's own variable.
    pub cuda: Option<String>,
    /// `--glibc`, or conda's own variable.
    pub glibc: Option<String>,
    /// `--virtual-package`.
    pub virtual_packages: Vec<(String, String)>,
    /// Channels of the command line or of `CONDA_CHANNELS`.
    pub channels: Vec<String>,
    /// What is done with a lock that is there.
    pub mode: LockMode,
    /// Whether a lock that is made is written; otherwise it is used, and forgotten.
    pub keeps_lock: bool,
    /// What conda's configuration says; nothing with `--no-condarc`.
    pub condarc: Arc<Condarc>,
    /// What a package in an earlier channel does to those of the same name in later ones.
    pub channel_priority: ChannelPriority,
    /// `--exclude-newer`.
    pub exclude_newer: Option<Cutoff>,
    /// `--allow-clobber`: paths in the prefix that wheels may take from conda packages.
    pub allow_clobber: Vec<glob::Pattern>,
    /// Whether byte code is made.
    pub bytecode: bool,
    /// Whether new locks are made without facts, which the first build makes then (`lock --no-facts`).
    pub facts_later: bool,
    /// Whether classes of stability are told anew from the channels' indexes (`--refresh-stability`).
    pub refresh_stability: bool,
    /// The arguments that need no check.
    pub args: EnvironmentArgs,
}

impl EnvironmentOptions {
    /// Checks the arguments, which [`super::settings::fill`] has completed.
    ///
    /// # Errors
    /// What is wrong with them (exit status 2).
    pub fn new(args: EnvironmentArgs, mode: LockMode, global: &Global) -> Result<Self> {
        let (flag, named) = args.named_base().unwrap_or(("--base", DEFAULT_BASE));
        let base = base_ref(named, flag)?;
        if base == BaseRef::Scratch && args.from.is_some() {
            return Err(Error::usage("`--from scratch` has nothing to extend").hint("use `--base scratch`"));
        }
        let condarc = if args.no_condarc { Condarc::default() } else { Condarc::read()? };
        Ok(Self {
            lock_file: args.lock_file.clone(),
            platforms: platforms(&args.platforms)?,
            base,
            base_origin: match args.from.is_some() || args.base.is_some() {
                true => BaseOrigin::Given,
                false => BaseOrigin::Default,
            },
            extends: args.from.is_some(),
            prefix: args.prefix.as_deref().map(prefix).transpose()?,
            cache: CachePlace::of(global)?,
            jobs: jobs(args.jobs)?,
            downloads: downloads(args.jobs)?,
            cuda: args.cuda.clone().or_else(|| variable("CONDA_OVERRIDE_CUDA")),
            glibc: args.glibc.clone().or_else(|| variable("CONDA_OVERRIDE_GLIBC")),
            virtual_packages: args
                .virtual_package
                .iter()
                .map(|text| pair("--virtual-package", text))
                .collect::<Result<_>>()?,
            channels: channels(&args),
            mode,
            keeps_lock: true,
            channel_priority: priority(args.channel_priority, &condarc),
            condarc: Arc::new(condarc),
            allow_clobber: clobber_patterns(&args.allow_clobber)?,
            exclude_newer: args.exclude_newer.as_deref().map(str::parse).transpose()?,
            bytecode: args.bytecode.unwrap_or_default() == BytecodeArg::On,
            facts_later: false,
            refresh_stability: false,
            args,
        })
    }

    /// Whether channels' servers must not be asked: by the flag, or by conda's configuration, which says nothing of
    /// registries.
    pub fn channels_offline(&self) -> bool {
        self.args.offline || self.condarc.offline()
    }

    /// Adds to an error about a base that nobody named where its name comes from, and how to choose another.
    pub fn about_base<T>(&self, result: Result<T>) -> Result<T> {
        result.map_err(|error| match &self.base_origin {
            BaseOrigin::Given => error,
            BaseOrigin::Lock(file) => error.hint(format!(
                "the lock `{}` names this base; choose another with `--base`",
                file.display()
            )),
            BaseOrigin::Default => error
                .hint("this is the default base; choose another with `--base REF`, `base:` in a condaimg.yaml or `CONDAIMG_BASE`")
                .hint("use a mirror of Docker Hub with `--base MIRROR/library/debian:12-slim`, or an image on this machine with `--base oci:DIR`"),
        })
    }

    /// Adds to an error which of several platforms it is about.
    pub fn named<T>(&self, platform: &Platform, result: Result<T>) -> Result<T> {
        match self.platforms.len() {
            1 => result,
            _ => result.context(|| format!("the image for {platform} cannot be made")),
        }
    }
}

/// A base as a flag names it; a reference in its normal form.
///
/// # Errors
/// What is wrong with the name.
pub fn base_ref(text: &str, flag: &str) -> Result<BaseRef> {
    match text.parse()? {
        BaseRef::Registry(text) => {
            let reference = super::base::hinting_at_path(flag, &text, Registry::parse(&text))?;
            Ok(BaseRef::Registry(reference.to_string()))
        }
        local => Ok(local),
    }
}

fn platforms(texts: &[String]) -> Result<Vec<Platform>> {
    match texts {
        [] => Ok(vec![Platform::default()]),
        texts => Platform::list(texts.iter().map(String::as_str)),
    }
}

fn prefix(text: &str) -> Result<String> {
    model::prefix(text).map_err(|why| {
        Error::usage(format!("`--prefix {text}` {why}"))
            .hint(format!("an absolute path, as in `{}`", model::DEFAULT_PREFIX))
    })
}

fn jobs(asked: Option<usize>) -> Result<usize> {
    match asked {
        Some(0) => Err(Error::usage("`--jobs 0` does nothing").hint("leave it out to use all cores")),
        Some(jobs) => Ok(jobs.min(256)),
        None => Ok(std::thread::available_parallelism().map_or(1, usize::from)),
    }
}

/// Layers that are fetched at once: as many as jobs are asked for; otherwise four, since the cores of this machine say
/// nothing of its network.
///
/// # Errors
/// When it is none.
pub fn downloads(asked: Option<usize>) -> Result<usize> {
    if asked.is_some() { jobs(asked) } else { Ok(4) }
}

fn channels(args: &EnvironmentArgs) -> Vec<String> {
    if !args.channels.is_empty() {
        return args.channels.clone();
    }
    let given = variable("CONDA_CHANNELS").unwrap_or_default();
    given.split(',').map(str::trim).filter(|channel| !channel.is_empty()).map(str::to_owned).collect()
}

/// The flag, else what conda's configuration says, else strict.
fn priority(asked: Option<PriorityArg>, condarc: &Condarc) -> ChannelPriority {
    match asked {
        Some(PriorityArg::Strict) => ChannelPriority::Strict,
        Some(PriorityArg::Flexible) => ChannelPriority::Flexible,
        Some(PriorityArg::Disabled) => ChannelPriority::Disabled,
        None => condarc.channel_priority().unwrap_or(ChannelPriority::Strict),
    }
}

/// As in the lock.
pub fn priority_name(priority: ChannelPriority) -> &'static str {
    match priority {
        ChannelPriority::Strict => "strict",
        ChannelPriority::Flexible => "flexible",
        ChannelPriority::Disabled => "disabled",
    }
}

/// The lock of a spec: `condaimg.lock` beside environment.yml and condaimg.yaml, else `NAME.condaimg.lock`, also for
/// `NAME.condaimg.yaml`.
pub fn default_lock(spec: &Path) -> PathBuf {
    let stem = spec.file_stem().and_then(|stem| stem.to_str()).unwrap_or("environment");
    match stem.strip_suffix(".condaimg").unwrap_or(stem) {
        "environment" | "condaimg" => spec.with_file_name("condaimg.lock"),
        stem => spec.with_file_name(format!("{stem}.condaimg.lock")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locks_lie_beside_their_spec() {
        assert_eq!(default_lock(Path::new("a/environment.yml")), Path::new("a/condaimg.lock"));
        for (spec, lock) in [
            ("gpu.yaml", "gpu.condaimg.lock"),
            ("condaimg.yaml", "condaimg.lock"),
            ("gpu.condaimg.yaml", "gpu.condaimg.lock"),
            ("a/pixi.lock", "a/pixi.condaimg.lock"),
            ("conda-lock.yml", "conda-lock.condaimg.lock"),
            ("explicit.txt", "explicit.condaimg.lock"),
        ] {
            assert_eq!(default_lock(Path::new(spec)), Path::new(lock));
        }
    }
}
