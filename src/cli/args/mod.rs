//! The arguments as they are typed, without looking at the world.

mod registry;
mod store;
mod variables;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub use registry::{CopyArgs, PushArgs, RegistryArgs, TransferArgs};
pub use store::{CacheArgs, CacheCommand, CacheListArgs, CachePruneArgs, EngineArg, WarmArgs};

pub use variables::parse;

use variables::Switch;

use super::doctor::DoctorArgs;
use super::values::variable;
use crate::spec::Choices;
use crate::util::Error;
use crate::util::variables::Allowed;

/// Builds layered, reproducible OCI images from conda environments, without Docker, root or a daemon.
#[derive(Debug, Parser)]
#[command(name = "condaimg", version, max_term_width = 110, arg_required_else_help = true)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make an image of an environment; write it and/or push it
    Build(Box<BuildArgs>),
    /// Solve an environment and write its lock
    Lock(Box<LockArgs>),
    /// Show which package would go into which layer, why, and what an update is expected to cost; builds nothing
    #[command(alias = "explain")]
    Plan(Box<PlanArgs>),
    /// Bring into the local store what builds and images need, so that later builds fetch and make nothing
    Warm(Box<WarmArgs>),
    /// Send an image from a layout or an archive to a registry
    Push(PushArgs),
    /// Copy an image, with what refers to it, between registries, layouts and archives
    Copy(CopyArgs),
    /// Try out a registry, channels and this machine, and say what does not work
    Doctor(Box<DoctorArgs>),
    /// Show where the local store is and what it holds, and keep it small
    Cache(CacheArgs),
    /// Print the JSON schema of condaimg.yaml, for editors and checks
    Schema,
    /// Print a completion script
    Completions {
        /// The shell to complete for
        shell: clap_complete::Shell,
    },
}

impl Command {
    /// The name, as it is typed.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Build(_) => "build",
            Self::Lock(_) => "lock",
            Self::Plan(_) => "plan",
            Self::Warm(_) => "warm",
            Self::Push(_) => "push",
            Self::Copy(_) => "copy",
            Self::Doctor(_) => "doctor",
            Self::Cache(_) => "cache",
            Self::Schema => "schema",
            Self::Completions { .. } => "completions",
        }
    }
}

/// Flags of every command.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// Style of progress; docs/log.md describes `json`
    #[arg(long, global = true, value_enum, default_value_t, env = "CONDAIMG_PROGRESS", value_name = "STYLE")]
    pub progress: ProgressArg,
    /// Show errors and warnings only
    #[arg(short, long, global = true, env = "CONDAIMG_QUIET")]
    pub quiet: bool,
    /// Show decisions (-v), and HTTP requests without secrets (-vv)
    #[arg(short, long, global = true, action = clap::ArgAction::Count, env = "CONDAIMG_VERBOSE")]
    pub verbose: u8,
    /// Whether to use colour
    #[arg(long, global = true, value_enum, default_value_t, env = "CONDAIMG_COLOR", value_name = "WHEN")]
    pub color: ColorArg,
    /// Raise or lower a limit of what is read (repeat; docs/limits.md)
    #[arg(long = "limit", global = true, value_name = "NAME=VALUE")]
    pub limits: Vec<String>,
    /// Folder of the local store [default: $XDG_CACHE_HOME/condaimg or ~/.cache/condaimg]
    #[arg(long, global = true, env = "CONDAIMG_CACHE_DIR", value_name = "DIR")]
    pub cache_dir: Option<PathBuf>,
    /// Trust only cached things that have a MAC of the key in FILE
    #[arg(long, global = true, env = "CONDAIMG_CACHE_KEY", value_name = "FILE")]
    pub cache_key: Option<PathBuf>,
    /// Expand this environment variable in URLs of this host, and no other one (repeat for several) [default: all]
    #[arg(
        long,
        global = true,
        value_name = "NAME@HOST",
        env = "CONDAIMG_EXPAND_ENV",
        value_delimiter = ',',
        value_parser = expand_env
    )]
    pub expand_env: Vec<Allowed>,
}

/// Reads a value of `--expand-env`.
fn expand_env(text: &str) -> Result<Allowed, String> {
    text.parse().map_err(|error: Error| error.to_string())
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum ProgressArg {
    /// Bars on a terminal, else one line a step
    #[default]
    Auto,
    /// Bars
    Tty,
    /// One line a step
    Plain,
    /// One JSON object a line
    Json,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum ColorArg {
    #[default]
    Auto,
    Always,
    Never,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum PriorityArg {
    /// A package comes from the first channel that has it
    #[default]
    Strict,
    /// Of a package, what the first channel has is preferred to what later ones have (conda's default)
    Flexible,
    /// The newest version of all channels
    Disabled,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum BytecodeArg {
    #[default]
    #[value(aliases = ["1", "true", "yes"])]
    On,
    #[value(aliases = ["0", "false", "no"])]
    Off,
}

/// What a lock is made from, and where: flags of every command that needs one.
#[derive(Debug, Clone, Args)]
pub struct EnvironmentArgs {
    /// An environment.yml, condaimg.yaml, requirements.txt, pixi.lock, conda-lock.yml or file with @EXPLICIT, or a folder
    /// that holds one [default: the current folder]
    #[arg(value_name = "PATH", env = "CONDAIMG_PATH")]
    pub path: Option<PathBuf>,
    /// The same as PATH
    #[arg(short, long, value_name = "PATH", env = "CONDAIMG_FILE", conflicts_with = "path")]
    pub file: Option<PathBuf>,

    /// What the image stands on: REF, oci:DIR[:TAG], oci-archive:FILE, docker-archive:FILE, rootfs:TAR_OR_DIR or
    /// scratch [default: docker.io/library/debian:12-slim]
    #[arg(long, value_name = "BASE", env = "CONDAIMG_BASE", help_heading = "Image")]
    pub base: Option<String>,
    /// Extend this image, named as --base names one: what it has stays, only what is new is added
    #[arg(long, value_name = "REF", env = "CONDAIMG_FROM", conflicts_with = "base", help_heading = "Image")]
    pub from: Option<String>,
    /// Where the environment lies in the image [default: /opt/conda/envs/default; with --from where the base has it]
    #[arg(long, value_name = "DIR", env = "CONDAIMG_PREFIX", help_heading = "Image")]
    pub prefix: Option<String>,
    /// The image's platforms, whatever this machine is; several make an image index [default: linux/amd64]
    #[arg(
        long = "platform",
        value_name = "OS/ARCH[/VARIANT]",
        env = "CONDAIMG_PLATFORM",
        value_delimiter = ',',
        help_heading = "Image"
    )]
    pub platforms: Vec<String>,

    /// Channel to search before the file's (repeat for several)
    #[arg(
        short,
        long = "channel",
        value_name = "CHANNEL",
        env = "CONDAIMG_CHANNEL",
        value_delimiter = ',',
        help_heading = "Solving"
    )]
    pub channels: Vec<String>,
    /// Search only the channels given with --channel
    #[arg(long, env = "CONDAIMG_OVERRIDE_CHANNELS", help_heading = "Solving")]
    pub override_channels: bool,
    /// Whether earlier channels hide later ones [default: what condarc says, else strict]
    #[arg(long, value_enum, env = "CONDAIMG_CHANNEL_PRIORITY", value_name = "PRIORITY", help_heading = "Solving")]
    pub channel_priority: Option<PriorityArg>,
    /// Read neither conda's configuration (condarc files, CONDA_ variables) nor the mirrors of rattler's and pixi's
    #[arg(long, env = "CONDAIMG_NO_CONDARC", help_heading = "Solving")]
    pub no_condarc: bool,
    /// CUDA version of the driver that the image will run on
    #[arg(long, value_name = "VERSION", env = "CONDAIMG_CUDA", help_heading = "Solving")]
    pub cuda: Option<String>,
    /// glibc version to solve for [default: the base's]
    #[arg(long, value_name = "VERSION", env = "CONDAIMG_GLIBC", help_heading = "Solving")]
    pub glibc: Option<String>,
    /// Another virtual package of the target (repeat for several)
    #[arg(
        long,
        value_name = "NAME=VERSION",
        env = "CONDAIMG_VIRTUAL_PACKAGE",
        value_delimiter = ',',
        help_heading = "Solving"
    )]
    pub virtual_package: Vec<String>,
    /// The lock [default: condaimg.lock beside environment.yml, NAME.condaimg.lock beside NAME.yml]
    #[arg(long, value_name = "FILE", env = "CONDAIMG_LOCK_FILE", help_heading = "Solving")]
    pub lock_file: Option<PathBuf>,
    /// Which environment of a pixi.lock [default: default], or which category of a conda-lock.yml beside `main`
    #[arg(long, value_name = "NAME", env = "CONDAIMG_ENVIRONMENT", help_heading = "Solving")]
    pub environment: Option<String>,
    /// Which Python the packages of a requirements.txt are for, as 3.11 [default: what its header or a .python-version
    /// beside it says]
    #[arg(long, value_name = "VERSION", env = "CONDAIMG_PYTHON", help_heading = "Solving")]
    pub python: Option<String>,
    /// Leave out packages that appeared after this date (2026-01-31, or with a time as RFC 3339 has it)
    #[arg(long, value_name = "DATE", env = "CONDAIMG_EXCLUDE_NEWER", help_heading = "Solving")]
    pub exclude_newer: Option<String>,
    /// Let packages of pip replace these files of conda packages, and new packages those of a base that is extended
    /// (pattern of paths in the prefix, `*` takes slashes too; repeat for several)
    #[arg(long, value_name = "GLOB", env = "CONDAIMG_ALLOW_CLOBBER", value_delimiter = ',', help_heading = "Solving")]
    pub allow_clobber: Vec<String>,
    /// Of which indexes pip packages are taken, where several have them [default: first-index, the first that has one]
    #[arg(
        long,
        value_name = "STRATEGY",
        env = "CONDAIMG_INDEX_STRATEGY",
        value_parser = clap::builder::PossibleValuesParser::new(crate::spec::pip::INDEX_STRATEGIES),
        help_heading = "Solving"
    )]
    pub index_strategy: Option<String>,
    /// Take any version of requirements that name the folder in which a conda package was built, as pip freeze does
    #[arg(long, env = "CONDAIMG_DROP_CONDA_BUILD_PATHS", help_heading = "Solving")]
    pub drop_conda_build_paths: bool,
    /// Let code of pip packages run that come as source (archives, repositories, folders), to build wheels of them
    #[arg(long, env = "CONDAIMG_ALLOW_BUILD", help_heading = "Solving")]
    pub allow_build: bool,
    /// Never build wheels, not even those that the lock says are built
    #[arg(long, env = "CONDAIMG_NO_BUILD", help_heading = "Solving")]
    pub no_build: bool,
    /// Fail where code of packages cannot run in a sandbox
    #[arg(long, env = "CONDAIMG_REQUIRE_SANDBOX", help_heading = "Solving")]
    pub require_sandbox: bool,
    /// Do not use the network
    #[arg(long, env = "CONDAIMG_OFFLINE", help_heading = "Solving")]
    pub offline: bool,
    /// Make byte code for what ships none [default: on]
    #[arg(long, value_enum, env = "CONDAIMG_BYTECODE", value_name = "WHEN", help_heading = "Layers")]
    pub bytecode: Option<BytecodeArg>,
    /// Parallelism, of layer downloads too [default: all cores; four downloads]
    #[arg(short, long, value_name = "N", env = "CONDAIMG_JOBS", help_heading = "Layers")]
    pub jobs: Option<usize>,
    #[command(flatten)]
    pub registry: RegistryArgs,
}

impl EnvironmentArgs {
    /// The file of the environment, or its folder.
    pub fn path(&self) -> PathBuf {
        self.file.clone().or_else(|| self.path.clone()).unwrap_or_else(|| PathBuf::from("."))
    }

    /// The base that is named, and the flag for it.
    pub fn named_base(&self) -> Option<(&'static str, &str)> {
        let from = self.from.as_deref().map(|text| ("--from", text));
        from.or_else(|| self.base.as_deref().map(|text| ("--base", text)))
    }

    /// The variable that names the base, if no flag does.
    pub fn base_variable(&self) -> Option<&'static str> {
        let (flag, text) = self.named_base()?;
        let name = if flag == "--from" { "CONDAIMG_FROM" } else { "CONDAIMG_BASE" };
        variable(name).filter(|value| value == text).map(|_| name)
    }

    /// What that file alone does not say.
    pub fn choices(&self) -> Choices {
        Choices {
            environment: self.environment.clone(),
            python: self.python.clone(),
            index_strategy: self.index_strategy.clone(),
            drop_conda_build_paths: self.drop_conda_build_paths,
        }
    }
}

/// Flags of `lock`.
#[derive(Debug, Clone, Args)]
pub struct LockArgs {
    #[command(flatten)]
    pub environment: EnvironmentArgs,
    /// Write nothing; fail when the lock is missing or stale, and say what changed
    #[arg(long, env = "CONDAIMG_CHECK", conflicts_with_all = ["upgrade", "export"])]
    pub check: bool,
    /// Take the newest of these packages, or of all, instead of what the lock has
    #[arg(long, value_name = "PACKAGE", num_args = 0.., conflicts_with = "export")]
    pub upgrade: Option<Vec<String>>,
    /// Read no archive: what only the archives know is found out at the first build
    #[arg(long, env = "CONDAIMG_NO_FACTS", conflicts_with_all = ["check", "export"])]
    pub no_facts: bool,
    /// Tell anew from the channels' indexes how often packages change, which decides about layers
    #[arg(long, env = "CONDAIMG_REFRESH_STABILITY", conflicts_with_all = ["check", "export"])]
    pub refresh_stability: bool,
    /// Print the lock that is there in another form; nothing is solved
    #[arg(long, value_enum, value_name = "FORM", env = "CONDAIMG_EXPORT")]
    pub export: Option<ExportArg>,
}

/// Forms of locks that other tools read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ExportArg {
    /// URLs with hashes of one platform, for `conda create --file`
    Explicit,
    /// A pixi.lock
    Pixi,
    /// A conda-lock.yml
    CondaLock,
}

/// Flags of `build`.
#[derive(Debug, Clone, Args)]
pub struct BuildArgs {
    #[command(flatten)]
    pub environment: EnvironmentArgs,
    /// Whether a lock that is made is used and not written; set by commands that write nothing.
    #[arg(skip)]
    pub forgets_lock: bool,

    /// Image reference (repeat for several)
    #[arg(
        short,
        long = "tag",
        value_name = "REF",
        env = "CONDAIMG_TAG",
        value_delimiter = ',',
        help_heading = "Output"
    )]
    pub tags: Vec<String>,
    /// Push to the registries of all tags
    #[arg(long, env = "CONDAIMG_PUSH", conflicts_with = "offline", help_heading = "Output")]
    pub push: bool,
    /// Where to write the image: oci:DIR[:TAG], oci-archive:FILE or docker-archive:FILE (repeat for several)
    /// [default, when not pushing: oci:./image]
    #[arg(short, long = "output", value_name = "DEST", env = "CONDAIMG_OUTPUT", help_heading = "Output")]
    pub outputs: Vec<String>,
    /// Write digests, tags and layers as JSON
    #[arg(long, value_name = "FILE", env = "CONDAIMG_METADATA_FILE", help_heading = "Output")]
    pub metadata_file: Option<PathBuf>,
    /// Write the manifest's digest
    #[arg(long, value_name = "FILE", env = "CONDAIMG_DIGEST_FILE", help_heading = "Output")]
    pub digest_file: Option<PathBuf>,
    /// List all layers at the end, not only new ones
    #[arg(long, env = "CONDAIMG_ALL_LAYERS", help_heading = "Output")]
    pub all_layers: bool,
    /// Do not attach the lock to the pushed image
    #[arg(long, env = "CONDAIMG_NO_REFERRERS", help_heading = "Output")]
    pub no_referrers: bool,
    /// User of the image's processes, numeric [default: the base's when not root, else 1000:0]
    #[arg(long, value_name = "UID[:GID]", env = "CONDAIMG_USER", help_heading = "Image")]
    pub user: Option<String>,
    /// Entrypoint: a JSON array, or words as a shell splits them
    #[arg(long, value_name = "COMMAND", env = "CONDAIMG_ENTRYPOINT", help_heading = "Image")]
    pub entrypoint: Option<String>,
    /// Default command, written like the entrypoint [default: python, when the environment has it]
    #[arg(long, value_name = "COMMAND", env = "CONDAIMG_CMD", help_heading = "Image")]
    pub cmd: Option<String>,
    /// Environment variable (repeat for several) [env: CONDAIMG_ENV, one a line]
    #[arg(long, value_name = "NAME=VALUE", help_heading = "Image")]
    pub env: Vec<String>,
    /// Run COMMAND and --entrypoint without the activation scripts that need a shell
    #[arg(
        long,
        value_name = "BOOL",
        env = "CONDAIMG_NO_ACTIVATION",
        value_parser = Switch,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        help_heading = "Image"
    )]
    pub no_activation: Option<bool>,
    /// Working directory of the image's processes, an absolute path
    #[arg(long, value_name = "DIR", env = "CONDAIMG_WORKDIR", help_heading = "Image")]
    pub workdir: Option<String>,
    /// Label of the image config (repeat for several) [env: CONDAIMG_LABEL, one a line]
    #[arg(long, value_name = "NAME=VALUE", help_heading = "Image")]
    pub label: Vec<String>,
    /// Annotation of the manifest (repeat for several) [env: CONDAIMG_ANNOTATION, one a line]
    #[arg(long, value_name = "NAME=VALUE", help_heading = "Image")]
    pub annotation: Vec<String>,
    /// Copy a file, or what git sees of a folder, into the image (repeat for several) [env: CONDAIMG_COPY, one a line]
    #[arg(long, value_name = "SRC:DST", help_heading = "Image")]
    pub copy: Vec<String>,
    /// Leave files out of what is copied: a pattern as in .gitignore, relative to SRC (repeat for several)
    /// [env: CONDAIMG_EXCLUDE, one a line]
    #[arg(long, value_name = "GLOB", help_heading = "Image")]
    pub exclude: Vec<String>,
    /// Leave the mode of the base user's home; other users have no HOME
    #[arg(
        long,
        value_name = "BOOL",
        env = "CONDAIMG_KEEP_HOME_MODE",
        value_parser = Switch,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        help_heading = "Image"
    )]
    pub keep_home_mode: Option<bool>,
    /// Give the group the owner's permissions, for arbitrary users in group 0
    #[arg(
        long,
        value_name = "BOOL",
        env = "CONDAIMG_GROUP_WRITE",
        value_parser = Switch,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        help_heading = "Image"
    )]
    pub group_write: Option<bool>,
    /// Keep setuid and setgid bits of the packages' files
    #[arg(
        long,
        value_name = "BOOL",
        env = "CONDAIMG_KEEP_SETUID",
        value_parser = Switch,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        help_heading = "Image"
    )]
    pub keep_setuid: Option<bool>,

    /// Fail when a file is not what its package's paths.json states
    #[arg(long, env = "CONDAIMG_STRICT", help_heading = "Image")]
    pub strict: bool,
    /// Fail when the lock is missing or stale
    #[arg(long, env = "CONDAIMG_LOCKED", help_heading = "Solving")]
    pub locked: bool,
    /// Use the lock as it is, without asking whether it is stale
    #[arg(long, env = "CONDAIMG_FROZEN", conflicts_with = "locked", help_heading = "Solving")]
    pub frozen: bool,
    /// Renew in the lock how often packages change, which decides about layers
    #[arg(long, env = "CONDAIMG_REFRESH_STABILITY", conflicts_with_all = ["locked", "frozen"], help_heading = "Solving")]
    pub refresh_stability: bool,
    /// Layer policy: a name or a file [default: default]
    #[arg(long, value_name = "NAME|FILE", env = "CONDAIMG_LAYERS", help_heading = "Layers")]
    pub layers: Option<String>,
    /// The most layers to add to the base [default: 32]
    #[arg(long, value_name = "N", env = "CONDAIMG_MAX_LAYERS", help_heading = "Layers")]
    pub max_layers: Option<usize>,
    /// gzip[:1-9] or zstd[:1-19] [default: gzip]
    #[arg(long, value_name = "CODEC", env = "CONDAIMG_COMPRESSION", help_heading = "Layers")]
    pub compression: Option<String>,
    /// A repository that layers are looked up in, and noted in, by what their bytes depend on
    #[arg(long, value_name = "REF", env = "CONDAIMG_CACHE_REGISTRY", help_heading = "Layers")]
    pub cache_registry: Option<String>,
    /// Pack every layer again, even if its bytes are known here or in a registry
    #[arg(long, env = "CONDAIMG_NO_CACHE", help_heading = "Layers")]
    pub no_cache: bool,
    /// What an earlier build had; `SOURCE_DATE_EPOCH` comes before it.
    #[arg(skip)]
    pub source_date_epoch: Option<i64>,
}

/// Flags of `plan`: all of `build`, so that a plan is that of the build with the same flags. Those that are about
/// where an image goes do nothing, and are not shown.
#[derive(Debug, Clone, Args)]
#[command(
    mut_arg("tags", |arg| arg.hide(true)),
    mut_arg("push", |arg| arg.hide(true)),
    mut_arg("outputs", |arg| arg.hide(true)),
    mut_arg("metadata_file", |arg| arg.hide(true)),
    mut_arg("digest_file", |arg| arg.hide(true)),
    mut_arg("no_referrers", |arg| arg.hide(true)),
    mut_arg("all_layers", |arg| arg.hide(true)),
    mut_arg("cache_registry", |arg| arg.hide(true)),
    mut_arg("no_cache", |arg| arg.hide(true))
)]
pub struct PlanArgs {
    #[command(flatten)]
    pub build: BuildArgs,
    /// Write the lock if one had to be made
    #[arg(long, env = "CONDAIMG_WRITE_LOCK")]
    pub write_lock: bool,
    /// For machines (docs/plan.schema.json)
    #[arg(long, env = "CONDAIMG_JSON")]
    pub json: bool,
}
