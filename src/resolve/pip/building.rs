//! One build of a wheel, in steps: an environment without network, what the build needs with network and without code,
//! the build itself without network.

use std::path::{Path, PathBuf};

use fs_err as fs;
use pep508_rs::{Requirement, VersionOrUrl};
use serde::Deserialize;
use url::Url;

use super::Uv;
use super::confined::{Reach, Work};
use crate::util::{Error, Result};

/// Unpacks a source archive: its path and a folder.
const UNPACK: &str = include_str!("unpack.py");
/// Asks a backend what it needs beside what `build-system` names (PEP 517): the backend and its paths.
const ASK: &str = include_str!("ask_backend.py");
/// The backend of a project that names none (PEP 517).
const OLD_BACKEND: &str = "setuptools.build_meta:__legacy__";
/// What that needs.
const OLD_REQUIRES: &str = "setuptools>=40.8.0";
/// The largest pyproject.toml.
const LARGEST: u64 = 16 << 20;

/// A build under way.
pub(super) struct Building<'a> {
    uv: &'a Uv,
    folder: &'a Path,
    work: Work<'a>,
}

/// The part of a pyproject.toml that counts here.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct PyProject {
    build_system: Option<BuildSystem>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct BuildSystem {
    requires: Vec<String>,
    build_backend: Option<String>,
    backend_path: Vec<String>,
}

impl<'a> Building<'a> {
    /// Begins a build in a folder.
    pub(super) fn new(uv: &'a Uv, folder: &'a Path) -> Result<Self> {
        Ok(Self { uv, folder, work: Work::new(uv, folder)? })
    }

    /// Unpacks a source archive; the folder of the project.
    ///
    /// # Errors
    /// When it is no archive.
    pub(super) fn unpack(&self, archive: &Path) -> Result<PathBuf> {
        let folder = self.folder.join("source");
        fs::create_dir(&folder)?;
        let mut command = self.work.program(&self.uv.options().python);
        command.args(["-I", "-S", "-B", "-c", UNPACK]).arg(archive).arg(&folder);
        self.work.run(&command, (&[archive], &[&folder]), |_| Error::user("the source archive cannot be unpacked"))?;
        let mut entries = fs::read_dir(&folder)?.collect::<std::io::Result<Vec<_>>>()?;
        match entries.pop() {
            Some(entry) if entries.is_empty() && entry.file_type()?.is_dir() => Ok(entry.path()),
            _ => Ok(folder),
        }
    }

    /// Builds the wheel of a project, whose build is to believe in `time`, into a folder.
    ///
    /// # Errors
    /// When what it needs cannot be had, and when it fails; `explain` makes the error.
    pub(super) fn wheel(
        &self,
        (project, top): (&Path, &Path),
        git: &[&Path],
        time: u64,
        out: &Path,
        explain: &dyn Fn(&str) -> Error,
    ) -> Result<()> {
        let system = self.build_system(project)?;
        let environment = self.folder.join("environment");
        for folder in [&environment, out] {
            fs::create_dir_all(folder)?;
        }
        let mut command = self.work.uv(&["venv", "--quiet"]);
        command.arg("--python").arg(&self.uv.options().python).arg(&environment);
        self.work.run(&command, (&[], &[&environment]), explain)?;
        let python = environment.join("bin/python");
        self.work.learn(&python)?;
        self.check_links(&environment)?;
        self.install(&system.requires, &environment, explain)?;
        let read = [&[environment.as_path()], git].concat();
        let mut ask = self.work.program(&python);
        ask.current_dir(project).env("SOURCE_DATE_EPOCH", time.to_string());
        ask.args(["-c", ASK]).arg(system.build_backend.as_deref().unwrap_or(OLD_BACKEND)).args(&system.backend_path);
        let answer = self.work.run(&ask, (&read, &[top]), explain)?;
        let more: Vec<String> = serde_json::from_str(answer.lines().last().unwrap_or_default())
            .map_err(|error| explain("").caused_by(error))?;
        self.install(&more, &environment, explain)?;
        let mut build = self.work.uv(&["build", "--wheel", "--no-create-gitignore", "--quiet", "--no-build-isolation"]);
        build.env("SOURCE_DATE_EPOCH", time.to_string()).env("GIT_OPTIONAL_LOCKS", "0");
        build.arg("--python").arg(&python).arg("--out-dir").arg(out).arg(project);
        self.work.run(&build, (&read, &[top, out]), explain).map(|_| ())
    }

    fn build_system(&self, project: &Path) -> Result<BuildSystem> {
        let path = project.join("pyproject.toml");
        let is_own = |metadata: &std::fs::Metadata| metadata.is_file() && metadata.len() <= LARGEST;
        let text = match fs::symlink_metadata(&path) {
            Ok(metadata) if is_own(&metadata) => fs::read_to_string(&path).unwrap_or_default(),
            _ => String::new(),
        };
        // uv says what is wrong with it.
        let parsed: PyProject = toml::from_str(&text).unwrap_or_default();
        Ok(parsed
            .build_system
            .unwrap_or_else(|| BuildSystem { requires: vec![OLD_REQUIRES.to_owned()], ..BuildSystem::default() }))
    }

    /// Installs wheels into the environment. Nothing of them runs.
    fn install(&self, requires: &[String], environment: &Path, explain: &dyn Fn(&str) -> Error) -> Result<()> {
        if requires.is_empty() {
            return Ok(());
        }
        let file = self.folder.join("requires.txt");
        let lines: Result<Vec<String>> = requires.iter().map(|text| line(text)).collect();
        fs::write(&file, lines?.join("\n"))?;
        let words = ["pip", "install", "--quiet", "--link-mode", "copy", "--only-binary", ":all:"];
        let mut command = self.uv.uv_with(&words, &environment.join("bin/python"));
        command.arg("--requirements").arg(&file).env("TMPDIR", self.folder.join("tmp"));
        let reach = Reach {
            network: !self.uv.is_offline(),
            data: vec![file],
            write: vec![environment.to_owned(), self.folder.join("tmp")],
            ..Reach::default()
        };
        self.uv.confined(&command, reach, explain).map(|_| ())
    }

    /// Refuses an environment with links that lead elsewhere: uv writes into it, with the network and its cache.
    fn check_links(&self, folder: &Path) -> Result<()> {
        let interpreter = fs::canonicalize(&self.uv.options().interpreter)?;
        let own = fs::canonicalize(self.folder.join("environment"))?;
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                self.check_links(&entry.path())?;
            } else if kind.is_symlink() {
                let target = fs::canonicalize(entry.path())?;
                if !target.starts_with(&own) && !target.starts_with(&interpreter) {
                    let path = entry.path();
                    return Err(Error::user(format!(
                        "the environment's Python made a link out of the build (`{}`)",
                        path.display()
                    )));
                }
            }
        }
        Ok(())
    }
}

/// A requirement as a line of a requirements file. A backend chooses the text: it must be nothing else.
fn line(text: &str) -> Result<String> {
    let parsed: Requirement<Url> =
        text.parse().map_err(|error| Error::user(format!("invalid build requirement `{text}`")).caused_by(error))?;
    if let Some(VersionOrUrl::Url(url)) = &parsed.version_or_url
        && !matches!(url.scheme(), "http" | "https")
    {
        return Err(Error::user(format!("invalid build requirement `{text}`: expected a name, or the URL of a wheel")));
    }
    Ok(parsed.to_string().replace(['\n', '\r'], " "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn build_requirement_is_one_line_and_no_option() {
        assert_eq!(line("setuptools >= 61").expect("is one"), "setuptools>=61");
        for text in
            ["--index-url http://x", "-r /etc/passwd", "a\n--pre", "x @ git+https://h/r", "x @ file:///etc", "./x"]
        {
            line(text).expect_err(text);
        }
    }
}
