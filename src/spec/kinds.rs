//! Which kind of file it is: by its name, and where names say little, by its content.

use std::path::{Path, PathBuf};

use rattler_conda_types::Subdir;

use super::{Choices, Spec, own_lock, pip, requirements_file, spec_list};
use crate::lock::Pins;
use crate::util::{Error, Limit, Result, files};

/// What a folder is searched for, in this order.
pub(super) const IN_FOLDERS: [&str; 7] = [
    "condaimg.yaml",
    "condaimg.yml",
    "environment.yml",
    "environment.yaml",
    "pixi.lock",
    "conda-lock.yml",
    "condaimg.lock",
];

/// The kinds of files that an environment can be read from, but for a condaimg.yaml.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// An environment.yml.
    Environment,
    /// A pixi.lock, whatever it is called.
    Pixi,
    /// A conda-lock.yml.
    CondaLock,
    /// URLs behind `@EXPLICIT`.
    Explicit,
    /// A lock of condaimg.
    Lock,
    /// A pixi.toml, or a pyproject.toml.
    Manifest,
    /// Lines for pip.
    Requirements,
    /// Packages of conda, one a line.
    SpecList,
    /// Nothing that is known.
    Unknown,
}

/// Reads a file that pins an environment, or lists requirements; nothing of an environment.yml.
///
/// # Errors
/// What is wrong with it; kinds that cannot be used.
pub(super) fn read_pins(file: &Path, choices: &Choices) -> Result<Option<Spec>> {
    let name = lower_name(file);
    let text = match text_of(file) {
        Ok(text) => text,
        // A pipe is not to be opened by anybody.
        Err(error) if files::refuse_special(file).is_err() => return Err(error),
        // Whoever reads it as an environment says where.
        Err(_) if (is_yaml(&name) || name.ends_with(".json")) && file.is_file() => return Ok(None),
        Err(error) => return Err(error),
    };
    let environment = choices.environment.as_deref();
    let kind = match kind_of(&name, &text) {
        // Both may have any name; conda itself calls its own requirements.txt.
        Kind::Requirements if spec_list::is_one(file, &text)? => Kind::SpecList,
        Kind::Unknown if spec_list::is_one(file, &text).unwrap_or_default() => Kind::SpecList,
        kind => kind,
    };
    if kind != Kind::Requirements {
        no_python(file, choices)?;
    }
    let pins = match kind {
        Kind::Environment => return no_choice(file, environment).map(|()| None),
        Kind::Pixi => Pins::pixi(file, &text, environment)?,
        Kind::CondaLock => Pins::conda_lock(file, &text, environment)?,
        Kind::Explicit => {
            no_choice(file, environment)?;
            Pins::explicit(file, &text)?
        }
        Kind::Manifest => {
            let lock = lock_of_manifest(file, &name, &text)?;
            Pins::pixi(&lock, &text_of(&lock)?, environment)?
        }
        Kind::Lock => {
            no_choice(file, environment)?;
            return own_lock::read(file, &text).map(Some);
        }
        Kind::Requirements => {
            no_choice(file, environment)?;
            return requirements_file::read(file, &text, choices).map(Some);
        }
        Kind::SpecList => {
            no_choice(file, environment)?;
            return spec_list::read(file, &text, choices).map(Some);
        }
        Kind::Unknown => {
            return Err(Error::user(format!(
                "`{}` is none of the files that an environment can be read from",
                file.display()
            ))
            .hint("an environment.yml or .json, pixi.lock, conda-lock.yml, requirements.txt, a list of `conda list --export`, or URLs of archives"));
        }
    };
    Ok(Some(Spec {
        file: pins.file().to_owned(),
        channels: pins.channels().to_vec(),
        notices: pins.notices(),
        pins: Some(pins),
        ..Spec::default()
    }))
}

/// `--environment` chooses from files that have several.
pub(super) fn no_choice(file: &Path, environment: Option<&str>) -> Result<()> {
    match environment {
        None => Ok(()),
        Some(name) => Err(Error::usage(format!("`--environment {name}`: `{}` is one environment", file.display()))
            .hint("it chooses one of a pixi.lock, or a category of a conda-lock.yml")),
    }
}

/// `--python` is for files that say nothing of it.
pub(super) fn no_python(file: &Path, choices: &Choices) -> Result<()> {
    match &choices.python {
        None => Ok(()),
        Some(version) => {
            Err(Error::usage(format!("`--python {version}`: `{}` itself says which Python", file.display())).hint(
                "it is for requirements files; in an environment.yml write `python=VERSION` among the dependencies",
            ))
        }
    }
}

fn lower_name(file: &Path) -> String {
    file.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default()
}

fn is_yaml(name: &str) -> bool {
    name.ends_with(".yml") || name.ends_with(".yaml")
}

fn kind_of(name: &str, text: &str) -> Kind {
    if name == "pixi.toml" || name == "pyproject.toml" {
        return Kind::Manifest;
    }
    // Comments, empty lines, then the mark.
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    if lines.next().is_some_and(|first| first == "@EXPLICIT" || is_archive(first)) {
        return Kind::Explicit;
    }
    let has = |key: &str| text.lines().any(|line| line.strip_prefix(key).is_some_and(|rest| rest.starts_with(':')));
    if has("condaimg") && has("packages") {
        Kind::Lock
    } else if has("version") && (has("environments") || (has("package") && name.ends_with("pixi.lock"))) {
        Kind::Pixi
    } else if has("metadata") && has("package") {
        Kind::CondaLock
    } else if name.ends_with("pixi.lock") {
        // Whoever reads it says what is wrong.
        Kind::Pixi
    } else if name.ends_with("conda-lock.yml") {
        Kind::CondaLock
    } else if is_yaml(name) || name.ends_with(".json") {
        Kind::Environment
    } else if name.ends_with(".txt") || name.ends_with(".in") {
        Kind::Requirements
    } else {
        Kind::Unknown
    }
}

/// Whether a line is the URL of a conda package in a channel. (A `.tar.bz2` may be pip's, too.)
fn is_archive(line: &str) -> bool {
    let url = line.split('#').next().unwrap_or_default();
    let in_subdir = url.rsplit('/').nth(1).is_some_and(|folder| folder.parse::<Subdir>().is_ok());
    url.contains("://") && (url.ends_with(".conda") || url.ends_with(".tar.bz2") && in_subdir)
}

/// The pixi.lock beside a manifest: what counts.
fn lock_of_manifest(file: &Path, name: &str, text: &str) -> Result<PathBuf> {
    if name == "pyproject.toml" && !text.lines().any(|line| line.trim_start().starts_with("[tool.pixi")) {
        return Err(Error::user(format!("`{}` has no `[tool.pixi]`: it names no conda packages", file.display()))
            .hint("write an environment.yml; its `pip:` section may hold `.` for the project"));
    }
    let lock = file.with_file_name("pixi.lock");
    match lock.is_file() {
        true => Ok(lock),
        false => Err(Error::user(format!("there is no pixi.lock beside `{}`", file.display()))
            .hint("`pixi lock` makes it; an image is made of what is locked there")),
    }
}

/// The text of a file that may be a large lock.
fn text_of(file: &Path) -> Result<String> {
    pip::decode(file, files::read_limited(file, Limit::LockFile)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_told_by_name_and_content() {
        let pixi = "version: 6\nenvironments:\n  default: {}\npackages: []\n";
        let conda_lock = "# made by\nversion: 1\nmetadata:\n  platforms: []\npackage:\n- name: a\n";
        let explicit = "# platform: linux-64\n\n@EXPLICIT\nhttps://host/a-1-0.conda\n";
        for (name, text, kind) in [
            ("pixi.lock", pixi, Kind::Pixi),
            ("other.yml", pixi, Kind::Pixi),
            ("pixi.lock", "version: 3\nmetadata: {}\npackage: []\n", Kind::Pixi),
            ("pixi.lock", "nonsense", Kind::Pixi),
            ("condaimg.lock", &format!("{pixi}condaimg:\n  version: 1\n"), Kind::Lock),
            ("conda-lock.yml", conda_lock, Kind::CondaLock),
            ("gpu.conda-lock.yml", "nonsense", Kind::CondaLock),
            ("locked.yaml", conda_lock, Kind::CondaLock),
            ("explicit.txt", explicit, Kind::Explicit),
            ("linux-64.lock", explicit, Kind::Explicit),
            ("environment.yml", explicit, Kind::Explicit),
            ("environment.yml", "dependencies:\n  - a\n", Kind::Environment),
            ("requirements.txt", "numpy\n", Kind::Requirements),
            ("environment.json", "{\"dependencies\": []}", Kind::Environment),
            ("urls.txt", "# mine\nhttps://host/c/noarch/a-1-0.conda#abc\n", Kind::Explicit),
            ("urls", "https://host/c/linux-64/a-1-0.tar.bz2\n", Kind::Explicit),
            ("requirements.txt", "https://host/a-1.tar.bz2\n", Kind::Requirements),
            ("requirements.txt", "https://host/a-1-py3-none-any.whl\n", Kind::Requirements),
            ("pixi.toml", "", Kind::Manifest),
            ("setup.py", "", Kind::Unknown),
        ] {
            assert_eq!(kind_of(name, text), kind, "{name}");
        }
    }
}
