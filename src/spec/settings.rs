//! What a condaimg.yaml says beside the environment. Everything is optional: flags come before it, defaults after it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::keys::PROJECT_FILE;
use super::{Context, environment};
use crate::model::{ImageOptions, Parameters};
use crate::util::{Error, Result};

/// The values of a condaimg.yaml. Each was checked by itself; paths are as written ([`Self::path`] finds them).
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Settings {
    /// The file that holds the environment; none: it stands in the condaimg.yaml.
    pub environment: Option<String>,
    /// The version of Python for a requirements file.
    pub python: Option<String>,
    /// What the image stands on, as `--base` takes it.
    pub base: Option<String>,
    /// An organisation's base image that is to be extended.
    pub from: Option<String>,
    /// `OS/ARCH[/VARIANT]`.
    pub platforms: Vec<String>,
    /// What the image will run on.
    pub target: Target,
    /// `strict`, `flexible` or `disabled`.
    pub channel_priority: Option<String>,
    /// A date or a time.
    pub exclude_newer: Option<String>,
    /// Of which indexes pip packages are taken.
    pub index_strategy: Option<String>,
    /// Whether sdists and git sources may be built.
    pub allow_build: Option<bool>,
    /// `never`: wheels are not built, whatever else is said.
    pub build: Option<String>,
    /// Globs of paths in the prefix that pip packages may take from conda packages.
    pub allow_clobber: Vec<String>,
    /// The name or the file of a layer policy.
    pub layers: Option<String>,
    /// The most layers to add to the base.
    pub max_layers: Option<usize>,
    /// As `--compression` takes it.
    pub compression: Option<String>,
    /// The repository that layers are looked up in.
    pub cache_registry: Option<String>,
    /// Whether byte code is made.
    pub bytecode: Option<bool>,
    /// Whether the entrypoint sources activation scripts that need a shell.
    pub activation: Option<bool>,
    /// Where the environment lies in the image.
    pub prefix: Option<String>,
    /// Whether the group gets the owner's permissions.
    pub group_write: Option<bool>,
    /// Whether files of packages keep their setuid and setgid bits.
    pub keep_setuid: Option<bool>,
    /// The project's files.
    pub project: Vec<ProjectEntry>,
    /// Globs of project files that are left out.
    pub exclude: Vec<String>,
    /// The image config and what the image is called.
    pub image: ImageSettings,
    /// Seconds since 1970, as an earlier build had it; no file says that.
    #[serde(skip)]
    pub source_date_epoch: Option<i64>,
    #[serde(skip)]
    origin: Option<Origin>,
}

/// `target:`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Target {
    /// CUDA version of the driver.
    pub cuda: Option<String>,
    /// glibc version.
    pub glibc: Option<String>,
    /// Other virtual packages: name and version (`VERSION=BUILD`; an empty one takes the package away).
    pub virtual_packages: BTreeMap<String, String>,
}

/// One item of `project:`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
pub enum ProjectEntry {
    /// Files go into the image as they are.
    Copy {
        /// A file or folder, relative to the condaimg.yaml.
        from: String,
        /// Where it lies in the image.
        to: String,
    },
    /// A Python project is built to a wheel, which is installed.
    Install {
        /// Its folder, relative to the condaimg.yaml.
        install: String,
    },
}

/// `image:`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct ImageSettings {
    /// Image references.
    pub tags: Vec<String>,
    /// `UID[:GID]`.
    pub user: Option<String>,
    /// Whether the base user's home keeps its mode.
    pub keep_home_mode: Option<bool>,
    /// Working folder.
    pub workdir: Option<String>,
    /// Entrypoint.
    pub entrypoint: Option<Vec<String>>,
    /// Default command.
    pub cmd: Option<Vec<String>>,
    /// Environment variables.
    pub env: BTreeMap<String, String>,
    /// Labels of the image config.
    pub labels: BTreeMap<String, String>,
    /// Annotations of the manifest.
    pub annotations: BTreeMap<String, String>,
}

/// The condaimg.yaml itself, to find places in.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Origin {
    file: PathBuf,
    source: String,
}

impl Settings {
    /// The parameters of a build as the settings of another one.
    pub(super) fn recorded(parameters: Parameters) -> Self {
        let ImageOptions { user, keep_home_mode, entrypoint, cmd, env, workdir, labels, annotations } =
            parameters.image;
        Self {
            prefix: Some(parameters.prefix),
            compression: Some(parameters.compression.to_string()),
            bytecode: Some(parameters.bytecode),
            activation: Some(!parameters.no_activation),
            group_write: Some(parameters.group_write),
            keep_setuid: Some(parameters.keep_setuid),
            layers: Some(parameters.layers),
            max_layers: Some(parameters.max_layers),
            source_date_epoch: parameters.source_date_epoch,
            image: ImageSettings {
                user: user.map(String::from),
                keep_home_mode: Some(keep_home_mode),
                entrypoint,
                cmd,
                env,
                workdir,
                labels,
                annotations,
                ..ImageSettings::default()
            },
            ..Self::default()
        }
    }

    /// With the file that it was read from.
    pub(super) fn with_origin(self, file: PathBuf, source: String) -> Self {
        Self { origin: Some(Origin { file, source }), ..self }
    }

    /// The condaimg.yaml; none when there is none.
    pub fn file(&self) -> Option<&Path> {
        self.origin.as_ref().map(|origin| origin.file.as_path())
    }

    /// The folder that paths in the file are relative to.
    pub fn folder(&self) -> &Path {
        self.file().and_then(Path::parent).unwrap_or(Path::new(""))
    }

    /// A path that the file names.
    pub fn path(&self, text: &str) -> PathBuf {
        self.folder().join(text)
    }

    /// A path that the file names, which lies in the file's project.
    ///
    /// # Errors
    /// When it lies outside ([`Context`]).
    pub fn path_inside(&self, text: &str) -> Result<PathBuf> {
        let path = self.path(text);
        if let Some(file) = self.file() {
            Context::of(file).check(&path)?;
        }
        Ok(path)
    }

    /// Puts `FILE:LINE:COLUMN` of a value (`base`, `image.tags.0`) before an error about it.
    ///
    /// # Errors
    /// The error.
    pub fn at<T>(&self, path: &str, result: Result<T>) -> Result<T> {
        let Some(place) = self.place(path) else { return result };
        result.map_err(|error| Error::user(format!("{place}: {error}")).caused_by(error))
    }

    /// `FILE:LINE:COLUMN` of a value; none without a file.
    pub(super) fn place(&self, path: &str) -> Option<String> {
        let Origin { file, source } = self.origin.as_ref()?;
        let file = file.display();
        Some(match environment::place_of(source, path, &PROJECT_FILE) {
            Some((line, column)) => format!("{file}:{line}:{column}"),
            None => file.to_string(),
        })
    }
}
