//! From arguments to checked options; looks at files, not at the network.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::cli::args::{BuildArgs, Global};
use crate::cli::events::Goal;
use crate::cli::locking::options::{EnvironmentOptions, LockMode};
use crate::cli::locking::{Locked, from};
use crate::cli::values::{pair, variable};
use crate::image;
use crate::lock::BaseEnvironment;
use crate::model::{self, BaseRef, ImageOptions, MAX_LAYERS, MIN_LAYERS, Parameters, ProjectCopy};
use crate::plan::Policy;
use crate::registry::{Reference, Registry};
use crate::util::{Digest, Error, Limit, Result, files, text};

/// The most layers that are added to a base when nothing is said.
const DEFAULT_MAX_LAYERS: usize = 32;

/// What a build does, checked.
pub struct Options {
    /// What the lock is made from.
    pub environment: EnvironmentOptions,
    /// What decides the image's bytes beside the lock.
    pub parameters: Parameters,
    /// The layer policy.
    pub policy: Policy,
    /// Where it is written to.
    pub outputs: Vec<Output>,
    /// References, parsed.
    pub tags: Vec<Reference>,
    /// `--cache-registry`.
    pub cache_registry: Option<Reference>,
    /// `--copy`.
    pub copies: Vec<ProjectCopy>,
    /// `--exclude`.
    pub excludes: Vec<String>,
    /// The arguments that need no check.
    pub args: BuildArgs,
}

/// One `--output`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// An OCI layout folder, with a tag.
    Layout(PathBuf, Option<String>),
    /// A tar of an OCI layout.
    OciArchive(PathBuf),
    /// What `docker load` reads.
    DockerArchive(PathBuf),
}

impl Output {
    fn parse(text: &str) -> Result<Self> {
        let wrong = || {
            Error::usage(format!("`{text}` is no output"))
                .hint("write oci:DIR[:TAG], oci-archive:FILE or docker-archive:FILE")
        };
        let (kind, rest) = text.split_once(':').filter(|(_, rest)| !rest.is_empty()).ok_or_else(wrong)?;
        Ok(match kind {
            "oci" => match text.parse()? {
                BaseRef::Layout(folder, tag) => Self::Layout(folder, tag),
                _ => return Err(wrong()),
            },
            "oci-archive" => Self::OciArchive(rest.into()),
            "docker-archive" => Self::DockerArchive(rest.into()),
            _ => return Err(wrong()),
        })
    }

    /// As the user writes it.
    pub fn shown(&self) -> String {
        match self {
            Self::Layout(folder, None) => format!("oci:{}", folder.display()),
            Self::Layout(folder, Some(tag)) => format!("oci:{}:{tag}", folder.display()),
            Self::OciArchive(file) => format!("oci-archive:{}", file.display()),
            Self::DockerArchive(file) => format!("docker-archive:{}", file.display()),
        }
    }
}

impl Options {
    /// Whether an output will take this blob: a layout that has it does not.
    pub fn writes(&self, digest: &Digest, size: u64) -> bool {
        self.outputs.iter().any(|output| match output {
            Output::Layout(folder, _) => !image::layout_has(folder, digest, size),
            Output::OciArchive(_) | Output::DockerArchive(_) => true,
        })
    }

    /// Checks the arguments, which [`super::settings::fill`] has completed.
    ///
    /// # Errors
    /// What is wrong with them (exit status 2), or with the files that they name (1).
    pub fn new(args: BuildArgs, global: &Global) -> Result<Self> {
        let policy = policy(args.layers.as_deref().unwrap_or("default"))?;
        let parse = if args.push { Registry::parse_target } else { Registry::parse };
        let tags = args.tags.iter().map(|tag| parse(tag)).collect::<Result<Vec<_>>>()?;
        if let Some(pinned) = tags.iter().find(|tag| tag.digest().is_some()) {
            return Err(Error::usage(format!("`--tag {pinned}` has a digest, which only the finished image has"))
                .hint("leave the digest out"));
        }
        if args.push && tags.is_empty() {
            return Err(Error::usage("`--push` needs to know where to").hint("add `--tag REGISTRY/REPOSITORY:TAG`"));
        }
        let cache_registry = args.cache_registry.as_deref().map(cache_registry).transpose()?;
        let mut outputs = args.outputs.iter().map(|text| Output::parse(text)).collect::<Result<Vec<_>>>()?;
        if outputs.is_empty() && !args.push {
            outputs.push(Output::Layout("image".into(), None));
        }
        let mut environment = EnvironmentOptions::new(args.environment.clone(), mode(&args), global)?;
        environment.keeps_lock = !args.forgets_lock;
        if args.refresh_stability && !environment.mode.writes() {
            return Err(Error::usage("`--refresh-stability` changes the lock, and this one is to be used as it is")
                .hint("name the file that the lock was made from"));
        }
        environment.refresh_stability = args.refresh_stability;
        let platforms = &environment.platforms;
        if platforms.len() > 1
            && let Some(archive) = outputs.iter().find(|output| matches!(output, Output::DockerArchive(_)))
        {
            let error = Error::usage(format!("`{}` can hold one platform, not {}", archive.shown(), platforms.len()));
            return Err(error.hint("write an `oci-archive:FILE`, or build each platform on its own"));
        }
        Ok(Self {
            parameters: parameters(&args, &environment, &policy)?,
            copies: lines("--copy", &args.copy).iter().map(|text| copy(text)).collect::<Result<_>>()?,
            excludes: lines("--exclude", &args.exclude),
            environment,
            policy,
            outputs,
            tags,
            cache_registry,
            args,
        })
    }

    /// Where the image goes.
    pub fn goal(&self) -> Goal {
        Goal {
            tags: self.tags.iter().map(ToString::to_string).collect(),
            push: self.args.push,
            outputs: self.outputs.iter().map(Output::shown).collect(),
        }
    }

    /// Takes over what a base decides whose environment is extended: where it lies, and who may write to it.
    ///
    /// # Errors
    /// When something else was asked for, or the platforms' bases do not agree.
    pub fn adopt(&mut self, platforms: &[Locked]) -> Result<()> {
        let environments: Vec<&BaseEnvironment> = platforms.iter().filter_map(|it| it.lock.extended()).collect();
        let Some(first) = environments.first() else { return Ok(()) };
        let base = &self.environment.base;
        if let Some(other) = environments.iter().find(|other| other.prefix != first.prefix) {
            return Err(Error::user(format!(
                "`{base}` has its environment in {} for one platform, and in {} for another",
                first.prefix, other.prefix
            ))
            .hint("build each platform on its own"));
        }
        from::check_prefix(self.environment.prefix.as_deref(), &first.prefix, base)?;
        self.parameters.prefix.clone_from(&first.prefix);
        self.parameters.group_write |= first.group_write;
        Ok(())
    }
}

/// A repository: what could be a tag of it means nothing here.
pub fn cache_registry(text: &str) -> Result<Reference> {
    let reference = Registry::parse_target(text)?;
    match reference.digest() {
        Some(_) => Err(Error::usage(format!("`--cache-registry {text}` has a digest, and names a repository"))
            .hint("leave the digest out")),
        None => Ok(reference),
    }
}

fn mode(args: &BuildArgs) -> LockMode {
    match (args.locked, args.frozen) {
        (_, true) => LockMode::Frozen,
        (true, _) => LockMode::Locked,
        _ => LockMode::Renew,
    }
}

fn parameters(args: &BuildArgs, environment: &EnvironmentOptions, policy: &Policy) -> Result<Parameters> {
    Ok(Parameters {
        prefix: environment.prefix.clone().unwrap_or_else(|| model::DEFAULT_PREFIX.to_owned()),
        compression: args.compression.as_deref().map(str::parse).transpose()?.unwrap_or_default(),
        bytecode: environment.bytecode,
        group_write: args.group_write.unwrap_or_default(),
        keep_setuid: args.keep_setuid.unwrap_or_default(),
        layers: policy.canonical()?,
        max_layers: max_layers(args.max_layers.or(policy.max_layers).unwrap_or(DEFAULT_MAX_LAYERS))?,
        source_date_epoch: source_date_epoch()?.or(args.source_date_epoch),
        no_activation: args.no_activation.unwrap_or_default(),
        image: ImageOptions {
            user: args.user.as_deref().map(str::parse).transpose()?,
            keep_home_mode: args.keep_home_mode.unwrap_or_default(),
            entrypoint: args.entrypoint.as_deref().map(|text| words("--entrypoint", text)).transpose()?,
            cmd: args.cmd.as_deref().map(|text| words("--cmd", text)).transpose()?,
            env: pairs("--env", &args.env)?,
            workdir: args.workdir.as_deref().map(model::workdir).transpose()?,
            labels: pairs("--label", &args.label)?,
            annotations: pairs("--annotation", &args.annotation)?,
        },
    })
}

/// Whether a layer policy is named by its file.
pub fn is_policy_file(name: &str) -> bool {
    !name.starts_with('{') && (name.contains('/') || name.ends_with(".yaml") || name.ends_with(".yml"))
}

/// The layer policy with this name, or in this file.
pub fn policy(name: &str) -> Result<Policy> {
    match name {
        // As a lock records it.
        name if name.starts_with('{') => Policy::parse(name, "that the lock recorded"),
        name if is_policy_file(name) => {
            let bytes = files::read_limited(Path::new(name), Limit::EnvironmentFile)?;
            let text = String::from_utf8(bytes)
                .map_err(|_| Error::user(format!("failed to read the layer policy `{name}`: it is not UTF-8")))?;
            Policy::parse(&text, name)
        }
        name => Policy::named(name),
    }
}

/// Before anything is solved or fetched for a plan that cannot be.
fn max_layers(number: usize) -> Result<usize> {
    if (MIN_LAYERS..=MAX_LAYERS).contains(&number) {
        return Ok(number);
    }
    Err(Error::usage(format!("`--max-layers {number}` is outside of {MIN_LAYERS} to {MAX_LAYERS}"))
        .hint("the default, 32, suits most images"))
}

fn source_date_epoch() -> Result<Option<i64>> {
    let Some(text) = variable("SOURCE_DATE_EPOCH") else { return Ok(None) };
    // The end of the year 9999: RFC 3339, which image configs use, has four digits for a year.
    let seconds = text.parse().ok().filter(|seconds| (0..253_402_300_800_i64).contains(seconds));
    match seconds {
        Some(seconds) => Ok(Some(seconds)),
        None => Err(Error::usage(format!("invalid SOURCE_DATE_EPOCH `{text}`: expected seconds from 1970 to 9999"))
            .hint("set it as in `SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)`, or unset it")),
    }
}

/// The pairs of a repeated flag; without one, those of its environment variable, one a line.
fn pairs(flag: &str, texts: &[String]) -> Result<BTreeMap<String, String>> {
    let name = if texts.is_empty() { variable_of(flag) } else { flag.to_owned() };
    let pairs: BTreeMap<String, String> =
        lines(flag, texts).iter().map(|text| pair(&name, text)).collect::<Result<_>>()?;
    match pairs.keys().find(|key| flag == "--env" && !model::is_variable_name(key)) {
        Some(wrong) => Err(Error::usage(format!(
            "invalid `{name} {wrong}=...`: expected a name without white space and control characters"
        ))
        .hint("write it as in `--env NAME=VALUE`")),
        None => Ok(pairs),
    }
}

/// The values of a repeated flag; without one, those of its environment variable, one a line.
pub fn lines(flag: &str, texts: &[String]) -> Vec<String> {
    if !texts.is_empty() {
        return texts.to_vec();
    }
    let lines = variable(&variable_of(flag)).unwrap_or_default();
    lines.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect()
}

fn variable_of(flag: &str) -> String {
    format!("CONDAIMG_{}", flag.trim_start_matches('-').to_uppercase())
}

/// `SRC:DST`. DST is absolute, so the last colon before a slash parts them.
pub fn copy(text: &str) -> Result<ProjectCopy> {
    match text.rsplit_once(":/") {
        Some((from, to)) if !from.is_empty() => Ok(ProjectCopy { from: from.into(), to: format!("/{to}") }),
        _ => Err(Error::usage(format!("`--copy {text}` is not SRC:DST"))
            .hint("DST is absolute in the image, as in `--copy src:/app`")),
    }
}

const COMMAND_FORMS: &str = r#"write `python -c 'a b'`, or `["python", "-c", "a b"]`"#;

/// A command: a JSON array, or words as a shell splits them.
fn words(flag: &str, text: &str) -> Result<Vec<String>> {
    if text.trim_start().starts_with('[') {
        return serde_json::from_str(text)
            .map_err(|error| Error::usage(format!("`{flag} {text}` is no JSON array of strings")).caused_by(error))
            .map_err(|error| error.hint(COMMAND_FORMS));
    }
    text::words(text).ok_or_else(|| Error::usage(format!("`{flag} {text}` has an open quote")).hint(COMMAND_FORMS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_have_a_source_and_an_absolute_destination() {
        let parts = |text| copy(text).map(|entry| (entry.from.display().to_string(), entry.to));
        assert_eq!(parts("src:/app").expect("parts"), ("src".to_owned(), "/app".to_owned()));
        assert_eq!(parts("a:b/c:/d:e/").expect("parts"), ("a:b/c".to_owned(), "/d:e/".to_owned()));
        for wrong in ["src", "src:app", ":/app", "src:", ""] {
            assert!(parts(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn commands_are_split_as_a_shell_does() {
        assert_eq!(words("--cmd", "python -c 'a b'").expect("words"), ["python", "-c", "a b"]);
        assert_eq!(words("--cmd", r#"["a", "b c"]"#).expect("words"), ["a", "b c"]);
        assert!(words("--cmd", "'open").is_err());
    }
}
