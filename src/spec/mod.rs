//! What users write, read with errors that name file, line and column. Knows nothing of the network.

mod context;
mod environment;
mod foreign_yaml;
mod forms;
mod keys;
mod kinds;
mod own_lock;
mod package;
pub mod pip;
pub mod project;
mod project_file;
mod requirements_file;
mod schema;
mod seeds;
mod selectors;
mod settings;
mod spec_list;
pub(crate) mod yaml;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rattler_conda_types::MatchSpec;

use crate::lock::Pins;
pub use context::{Context, check_links};
pub use schema::schema;
pub use settings::{ImageSettings, ProjectEntry, Settings, Target};

use crate::util::{Error, Result, files, redact};
pub use pip::Pip;

/// What is to be in an image, as a file says it.
#[derive(Debug, Clone, Default)]
pub struct Spec {
    /// The file it was read from.
    pub file: PathBuf,
    /// `name:` of the environment.
    pub name: Option<String>,
    /// `channels:` as written, in order; `nodefaults` and environment variables are still in it.
    pub channels: Vec<String>,
    /// `dependencies:` in order.
    pub dependencies: Vec<Dependency>,
    /// The `pip:` sections of `dependencies:`, with the files that they name.
    pub pip: Pip,
    /// `variables:`, values as the text that the file has.
    pub variables: BTreeMap<String, String>,
    /// Exact packages, where the file is another tool's lock: in place of dependencies.
    pub pins: Option<Pins>,
    /// Whether the file is a lock of condaimg itself, which is used as it is.
    pub is_lock: bool,
    /// What a condaimg.yaml says beside the environment; nothing of an environment.yml.
    pub settings: Settings,
    /// What the user should know about the file: keys that are ignored.
    pub notices: Vec<String>,
    /// The file's text, to find lines in.
    source: String,
    /// What the dependencies are from, if not from the file: a flag, or another file.
    origin: Option<String>,
    /// The lines of the dependencies, from 1, where the file is no YAML.
    lines: Vec<usize>,
}

/// One line of `dependencies:`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dependency {
    /// As written (`numpy=1.21.*`), but for credentials in the URL of a channel. Goes into locks and messages.
    pub text: String,
    /// As written, credentials and all. Only for what finds the channel.
    pub written: String,
    /// What it means, read leniently as conda does: `numpy=1.21` is any 1.21, `numpy==1.21` that one.
    pub spec: MatchSpec,
}

impl Spec {
    /// The folder that relative paths in the file are relative to.
    pub fn folder(&self) -> &Path {
        folder(&self.file)
    }

    /// The same file, as if it had this dependency alone.
    #[must_use]
    pub fn only(&self, dependency: Dependency) -> Self {
        Self {
            dependencies: vec![dependency],
            pip: Pip::default(),
            notices: Vec::new(),
            source: String::new(),
            origin: None,
            lines: Vec::new(),
            ..self.clone()
        }
    }

    /// `FILE:LINE` of a dependency, by its index; what else it is from, or only `FILE` if its line is not known.
    pub fn place_of(&self, dependency: usize) -> String {
        let file = self.file.display();
        let known = || self.lines.get(dependency).copied();
        let line = || {
            known().or_else(|| environment::line_of(&self.source, dependency)).or_else(|| self.line_like(dependency))
        };
        match (&self.origin, line()) {
            (Some(origin), _) => origin.clone(),
            (None, Some(line)) => format!("{file}:{line}"),
            (None, None) => file.to_string(),
        }
    }

    /// The line of a file without structure that holds nothing but a dependency, and perhaps a comment.
    fn line_like(&self, dependency: usize) -> Option<usize> {
        let written = self.dependencies.get(dependency)?.written.trim();
        let is_it = |line: &str| line.split(" #").next().map(str::trim) == Some(written);
        self.source.lines().position(is_it).map(|line| line + 1)
    }
}

/// The folder of a file.
fn folder(file: &Path) -> &Path {
    match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// What a file alone does not say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Choices {
    /// Which environment of a pixi.lock, or which category of a conda-lock.yml beside `main` (`--environment`).
    pub environment: Option<String>,
    /// `X.Y` or `X.Y.Z` of the Python for a requirements file, which names none (`--python`).
    pub python: Option<String>,
    /// Of which indexes pip packages are taken, one of [`pip::INDEX_STRATEGIES`] (`--index-strategy`).
    pub index_strategy: Option<String>,
    /// Whether a requirement that names the folder in which a conda package was built stands for any version of it
    /// (`--drop-conda-build-paths`).
    pub drop_conda_build_paths: bool,
}

/// Reads what `path` names: an environment.yml, a condaimg.yaml, a requirements file, a lock of another tool, or a
/// folder that holds one.
///
/// # Errors
/// When there is no such file, when it is of a kind that is not supported, and for everything that is wrong in
/// it, with line and column.
pub fn read(path: &Path) -> Result<Spec> {
    read_with(path, &Choices::default())
}

/// The same, with what the file alone does not say.
///
/// # Errors
/// As [`read`]; a choice that the file does not offer.
pub fn read_with(path: &Path, choices: &Choices) -> Result<Spec> {
    if let Some(version) = choices.python.as_deref().filter(|version| !requirements_file::is_version(version)) {
        return Err(Error::usage(format!("`--python {version}` is no version of Python"))
            .hint("write it as in `--python 3.11`, or with all three numbers"));
    }
    let file = find(path)?;
    let mut spec = match project_file::is_one(&file) {
        true => project_file::read(file, choices)?,
        false => read_environment(file, choices)?,
    };
    spec.pip.options.index_strategy = choices.index_strategy.clone().or(spec.settings.index_strategy.clone());
    Ok(spec)
}

/// Reads a file that holds an environment.
fn read_environment(file: PathBuf, choices: &Choices) -> Result<Spec> {
    if let Some(pinned) = kinds::read_pins(&file, choices)? {
        return Ok(pinned);
    }
    let source = yaml::load(&file)?;
    environment::parse(file, source, choices)
}

/// The file that a path means.
fn find(path: &Path) -> Result<PathBuf> {
    refuse_url(path)?;
    let metadata = match fs_err::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(Error::user(format!("`{}` does not exist", path.display()))
                .hint("name an environment.yml or a condaimg.yaml, or a folder that holds one"));
        }
        Err(error) => return Err(error.into()),
    };
    if !metadata.is_dir() {
        return Ok(path.to_owned());
    }
    for name in kinds::IN_FOLDERS {
        let file = path.join(name);
        if files::find(&file)?.is_some_and(|metadata| metadata.is_file()) {
            // Nobody named the file itself, which may be a link.
            Context::around(path).check(&file)?;
            return Ok(file);
        }
    }
    Err(Error::user(format!("the folder `{}` holds no environment.yml", path.display()))
        .hint("name the file itself if it is called otherwise"))
}

/// A URL is a path that never exists; which of the two was meant is plain.
fn refuse_url(path: &Path) -> Result<()> {
    let text = path.to_string_lossy();
    let Some((scheme, rest)) = text.split_once("://").filter(|_| !path.exists()) else { return Ok(()) };
    let error =
        Error::user(format!("failed to read `{}`: PATH is a file or folder on this machine", redact::within(&text)));
    Err(match scheme {
        "file" => error.hint(format!("name it without `file://`: `{rest}`")),
        "http" | "https" => error.hint("download it first, e.g. with `curl -fLO URL`, and name the file"),
        _ => error.hint("clone or download it first, and name the file"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_may_be_a_file_or_a_folder() {
        let folder = tempfile::tempdir().expect("a folder");
        let message = |path: &Path| read(path).expect_err("refused").to_string();
        assert!(message(&folder.path().join("none.yml")).contains("does not exist"));
        assert!(message(folder.path()).contains("holds no environment.yml"));

        let file = folder.path().join("environment.yaml");
        fs_err::write(&file, "dependencies: [python]\n").expect("writes");
        assert_eq!(read(folder.path()).expect("reads").file, file);
        assert_eq!(read(&file).expect("reads").folder(), folder.path());

        fs_err::write(folder.path().join("condaimg.yaml"), "environment: environment.yaml").expect("writes");
        assert_eq!(read(folder.path()).expect("reads").settings.environment.as_deref(), Some("environment.yaml"));
        assert!(message(&folder.path().join("conda-lock.yml")).contains("does not exist"));
        fs_err::write(folder.path().join("setup.py"), "").expect("writes");
        assert!(message(&folder.path().join("setup.py")).contains("none of the files"));
    }

    #[test]
    fn what_is_no_text_of_reasonable_size_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("environment.yml");
        for (bytes, expected) in [
            (b"# nothing\n---\n".to_vec(), "is empty"),
            (b"name: a\nb: \xe9\n".to_vec(), "environment.yml:2: the file is not UTF-8"),
            (b"dependencies:\n - a\n - b\0c\n".to_vec(), "environment.yml:3:5: control characters"),
            (vec![b'#'; (4 << 20) + 1], "longer than 4.00 MiB"),
            (vec![b'['; 2_000], "environment.yml:1: too many brackets"),
        ] {
            fs_err::write(&file, bytes).expect("writes");
            let message = read(&file).expect_err("refused").to_string();
            assert!(message.contains(expected), "{message}");
        }
        fs_err::write(&file, "\u{feff}dependencies: [python]\n").expect("writes");
        assert_eq!(read(&file).expect("reads").dependencies.len(), 1);
    }
}
