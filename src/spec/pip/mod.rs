//! What pip is to install: `pip:` sections of environment files, and requirements files, in pip's own format
//! (<https://pip.pypa.io/en/stable/reference/requirements-file-format/>). Knows nothing of the network.

mod coding;
mod conda_build;
mod line;
mod requirement;

use std::fmt;
use std::path::{Path, PathBuf};

use pep508_rs::{ExtraName, MarkerTree, PackageName};
use url::Url;

use super::{Choices, Context};
use crate::util::{Digest, Error, Limit, Result, files, redact};
pub(super) use coding::decode;
use line::Line;
pub(crate) use requirement::git_of_metadata;

/// Of which indexes a package may be taken where several have it, as uv calls it; the first is the default.
pub const INDEX_STRATEGIES: [&str; 3] = ["first-index", "unsafe-first-match", "unsafe-best-match"];

/// How often a requirements file of the largest size may be read, alone or as parts that name each other.
const READS: u64 = 4;
/// Requirements files that name each other deeper than this are refused.
const DEEPEST: usize = 20;

/// What pip is to install, and how.
#[derive(Debug, Clone, Default)]
pub struct Pip {
    /// What is asked for, in order, of all files.
    pub requirements: Vec<PipRequirement>,
    /// What is not asked for, but limits the versions (`-c`).
    pub constraints: Vec<PipRequirement>,
    /// Where packages come from.
    pub options: PipOptions,
    /// What the user should know: what is understood in another way than pip would.
    pub notices: Vec<String>,
}

/// One requirement.
#[derive(Debug, Clone)]
pub struct PipRequirement {
    /// `FILE:LINE`.
    pub place: String,
    /// As written, but for credentials in URLs and for hashes; for messages.
    pub text: String,
    /// What it asks for.
    pub what: PipWanted,
    /// `--hash`: the archive must have one of these, `sha256:HEX` or of another algorithm.
    pub hashes: Vec<String>,
}

/// What a requirement asks for.
#[derive(Debug, Clone)]
pub enum PipWanted {
    /// A package of the index, in a range of versions.
    Index(Box<pep508_rs::Requirement<Url>>),
    /// What lies at a certain place.
    Direct(Box<PipDirect>),
}

/// A requirement that says where its package lies.
#[derive(Debug, Clone)]
pub struct PipDirect {
    /// Its name, unless only its content tells.
    pub name: Option<PackageName>,
    /// Extras of it.
    pub extras: Vec<ExtraName>,
    /// When it is wanted.
    pub marker: MarkerTree,
    /// Where it lies.
    pub location: PipLocation,
}

/// Where a package lies. URLs are as written, credentials and all.
#[derive(Clone, PartialEq, Eq)]
pub enum PipLocation {
    /// A wheel or a source archive in the network.
    Archive(Url),
    /// A git repository.
    Git(PipGit),
    /// A folder, a wheel or a source archive on this machine; absolute.
    Path(PathBuf),
}

/// A package in a git repository.
#[derive(Clone, PartialEq, Eq)]
pub struct PipGit {
    /// The repository, without `git+`.
    pub url: Url,
    /// A branch, tag or commit; none: the repository's default.
    pub reference: Option<String>,
    /// The folder in it that holds the package.
    pub subdirectory: Option<String>,
}

/// Where packages come from, and which archives of them. URLs are as written, credentials and all.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct PipOptions {
    /// `--index-url`.
    pub index_url: Option<String>,
    /// `--extra-index-url`.
    pub extra_index_urls: Vec<String>,
    /// `--find-links`: URLs and absolute paths.
    pub find_links: Vec<String>,
    /// `--no-index`.
    pub no_index: bool,
    /// `--pre`.
    pub pre: bool,
    /// `--no-binary`: names, `:all:` or `:none:`.
    pub no_binary: Vec<String>,
    /// `--only-binary`: the same.
    pub only_binary: Vec<String>,
    /// `--require-hashes`.
    pub require_hashes: bool,
    /// One of [`INDEX_STRATEGIES`]; no requirements file says it.
    pub index_strategy: Option<String>,
}

impl Pip {
    /// Whether nothing is asked for.
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    /// Everything that the packages depend on, one line each, without secrets: for the lock, to tell what changed.
    /// `content` gives the digest of what a path holds.
    ///
    /// # Errors
    /// Those of `content`.
    pub fn lines(&self, content: impl Fn(&Path) -> Result<Option<Digest>>) -> Result<Vec<String>> {
        if self.is_empty() {
            return Ok(Vec::new());
        }
        let mut lines = self.options.lines();
        for constraint in &self.constraints {
            lines.push(format!("constraint {}", constraint.line(&content)?));
        }
        for requirement in &self.requirements {
            lines.push(requirement.line(&content)?);
        }
        Ok(lines)
    }

    /// Whether every package must be given with a hash, as soon as one is (as pip has it).
    pub fn requires_hashes(&self) -> bool {
        self.options.require_hashes || self.requirements.iter().any(|requirement| !requirement.hashes.is_empty())
    }

    /// The URLs that may hold credentials, as written.
    pub fn urls(&self) -> impl Iterator<Item = Url> {
        let options = &self.options;
        let indexes = options.index_url.iter().chain(&options.extra_index_urls).chain(&options.find_links);
        let direct = self.requirements.iter().chain(&self.constraints).filter_map(|it| it.url().cloned());
        indexes.filter_map(|text| Url::parse(text).ok()).chain(direct)
    }
}

impl PipRequirement {
    /// The name, if the requirement says it.
    pub fn name(&self) -> Option<&PackageName> {
        match &self.what {
            PipWanted::Index(requirement) => Some(&requirement.name),
            PipWanted::Direct(direct) => direct.name.as_ref(),
        }
    }

    /// The text as locks have it.
    pub fn locked_text(&self) -> String {
        redact::locked(&self.text)
    }

    /// The URL of one that lies in the network.
    fn url(&self) -> Option<&Url> {
        match &self.what {
            PipWanted::Index(_) => None,
            PipWanted::Direct(direct) => match &direct.location {
                PipLocation::Archive(url) | PipLocation::Git(PipGit { url, .. }) => Some(url),
                PipLocation::Path(_) => None,
            },
        }
    }

    /// The path of one that lies on this machine.
    pub fn path(&self) -> Option<&Path> {
        match &self.what {
            PipWanted::Direct(direct) => match &direct.location {
                PipLocation::Path(path) => Some(path),
                _ => None,
            },
            PipWanted::Index(_) => None,
        }
    }

    fn line(&self, content: &impl Fn(&Path) -> Result<Option<Digest>>) -> Result<String> {
        let mut line = self.locked_text();
        if let Some(digest) = self.path().map(content).transpose()?.flatten() {
            line.push_str(&format!(" (content {})", short(&digest)));
        }
        if !self.hashes.is_empty() {
            let mut hashes = self.hashes.clone();
            hashes.sort();
            line.push_str(&format!(" (hashes {})", short(&Digest::of(hashes.join(" ")))));
        }
        Ok(line)
    }
}

fn short(digest: &Digest) -> String {
    digest.hex().chars().take(16).collect()
}

impl PipOptions {
    fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let mut add = |flag: &str, values: &[String]| {
            lines.extend(values.iter().map(|value| format!("{flag} {}", redact::within(value))));
        };
        add("--index-url", self.index_url.as_slice());
        add("--extra-index-url", &self.extra_index_urls);
        add("--find-links", &self.find_links);
        let strategy = self.index_strategy.clone().filter(|strategy| strategy != INDEX_STRATEGIES[0]);
        add("--index-strategy", strategy.as_slice());
        add("--no-binary", &self.no_binary);
        add("--only-binary", &self.only_binary);
        let flags = [("--no-index", self.no_index), ("--pre", self.pre), ("--require-hashes", self.require_hashes)];
        lines.extend(flags.iter().filter(|(_, given)| *given).map(|(flag, _)| (*flag).to_owned()));
        lines
    }
}

/// Without secrets.
impl fmt::Debug for PipOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.lines()).finish()
    }
}

/// Without secrets.
impl fmt::Debug for PipLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Archive(url) => f.write_str(&redact::url(url)),
            Self::Git(git) => git.fmt(f),
            Self::Path(path) => path.fmt(f),
        }
    }
}

/// Without secrets.
impl fmt::Debug for PipGit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "git+{}@{:?}#{:?}", redact::url(&self.url), self.reference, self.subdirectory)
    }
}

/// Reads a requirements file and those that it names.
///
/// # Errors
/// A file that cannot be read, and everything in it that cannot be honoured, with file and line.
pub fn read_requirements(file: &Path, choices: &Choices) -> Result<Pip> {
    let mut reader = Reader::new(choices, Context::of(file));
    reader.file(file, Kind::Requirements)?;
    reader.finish()
}

/// Reads the lines of a `pip:` section, each with its place. Paths are relative to `folder`.
///
/// # Errors
/// As [`read_requirements`].
pub(super) fn read_section(
    folder: &Path,
    lines: impl IntoIterator<Item = (String, String)>,
    choices: &Choices,
) -> Result<Pip> {
    let folder = std::path::absolute(folder)?;
    let mut reader = Reader::new(choices, Context::around(&folder));
    for (place, text) in lines {
        for line in line::logical(&text) {
            reader.line(&folder, &place, &line, Kind::Requirements)?;
        }
    }
    reader.finish()
}

/// Whether lines ask for packages or limit them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Requirements,
    Constraints,
}

struct Reader {
    pip: Pip,
    /// Where what the lines name lies.
    context: Context,
    /// The files that are being read, outermost first.
    open: Vec<PathBuf>,
    /// The bytes that were read.
    read: u64,
    /// Lines that name a folder in which a conda package was built.
    of_builds: conda_build::Lines,
}

impl Reader {
    fn new(choices: &Choices, context: Context) -> Self {
        let of_builds = conda_build::Lines::new(choices.drop_conda_build_paths);
        Self { pip: Pip::default(), context, open: Vec::new(), read: 0, of_builds }
    }

    /// What was read, when all of it can be used.
    fn finish(mut self) -> Result<Pip> {
        self.pip.notices.extend(self.of_builds.finish()?);
        Ok(self.pip)
    }

    fn file(&mut self, file: &Path, kind: Kind) -> Result<()> {
        let path = std::path::absolute(file)?;
        let folder = path.parent().unwrap_or(Path::new("/")).to_owned();
        let text = load(file)?;
        self.read += text.len() as u64 + 1;
        if self.read > Limit::RequirementsFile.value().saturating_mul(READS) {
            return Err(
                Limit::RequirementsFile.exceeded("requirements files that name each other are longer than 4 times")
            );
        }
        self.open.push(path);
        for line in line::logical(&text) {
            let place = format!("{}:{}", file.display(), line.number);
            self.line(&folder, &place, &line, kind)?;
        }
        self.open.pop();
        Ok(())
    }

    fn line(&mut self, folder: &Path, place: &str, line: &Line, kind: Kind) -> Result<()> {
        let at = |error: Error| error_at(place, error);
        let expanded = line::expand(&line.text).map_err(at)?;
        let Some(option) = line::option(&expanded).map_err(at)? else {
            return self.requirement(folder, place, line, kind, false);
        };
        let written = line::option(&line.text).ok().flatten().unwrap_or_else(|| option.clone());
        match option.name.as_str() {
            "--editable" => {
                self.pip.notices.push(format!("{place}: `-e` is installed as a normal package"));
                let text = Line { number: line.number, text: written.value };
                return self.requirement(folder, place, &text, kind, true);
            }
            "--requirement" => return self.nested(folder, place, &option.value, kind),
            "--constraint" => return self.nested(folder, place, &option.value, Kind::Constraints),
            _ => {}
        }
        if let Some(path) = option.path(folder) {
            self.context.check(&path).map_err(at)?;
        }
        self.pip.options.take(option, folder).map_err(at)
    }

    fn requirement(&mut self, folder: &Path, place: &str, line: &Line, kind: Kind, editable: bool) -> Result<()> {
        let read = requirement::read(folder, place, &line.text).map_err(|error| error_at(place, error))?;
        let Some(read) = self.of_builds.instead(read) else { return Ok(()) };
        if let Some(path) = read.path() {
            self.context.check(path).map_err(|error| error_at(place, error))?;
        }
        if kind == Kind::Constraints && (editable || read.name().is_none()) {
            return Err(Error::user(format!("{place}: `{}` is no constraint: it names no package", read.text)));
        }
        match kind {
            Kind::Requirements => self.pip.requirements.push(read),
            Kind::Constraints => self.pip.constraints.push(read),
        }
        match self.pip.requirements.len() + self.pip.constraints.len() > Limit::Dependencies.count() {
            true => Err(error_at(place, Limit::Dependencies.exceeded("the number of packages is larger than"))),
            false => Ok(()),
        }
    }

    fn nested(&mut self, folder: &Path, place: &str, value: &str, kind: Kind) -> Result<()> {
        if value.contains("://") {
            let shown = redact::within(value);
            return Err(Error::user(format!("{place}: requirements in the network are not read: `{shown}`"))
                .hint("download the file, and name it here"));
        }
        let file = folder.join(value);
        self.context.check(&file).map_err(|error| error_at(place, error))?;
        if self.open.len() >= DEEPEST || self.open.contains(&std::path::absolute(&file)?) {
            return Err(Error::user(format!("{place}: `{value}` names itself, directly or by others")));
        }
        let shown = match self.open.is_empty() {
            // From an environment.yml, which may itself be given by a relative path.
            true => shown_path(&file),
            false => file,
        };
        self.file(&shown, kind).map_err(|error| match error.to_string().starts_with(&*shown.to_string_lossy()) {
            true => error,
            false => error_at(place, error),
        })
    }
}

/// A path as people would write it: relative to the working folder where it lies below it.
fn shown_path(path: &Path) -> PathBuf {
    let relative = std::env::current_dir().ok().and_then(|folder| path.strip_prefix(folder).ok());
    match relative {
        Some(relative) if !relative.as_os_str().is_empty() => relative.to_owned(),
        _ => path.to_owned(),
    }
}

fn error_at(place: &str, error: Error) -> Error {
    let hints: Vec<String> = error.hints().into_iter().map(str::to_owned).collect();
    hints.into_iter().fold(Error::user(format!("{place}: {error}")), Error::hint)
}

fn load(file: &Path) -> Result<String> {
    decode(file, files::read_limited(file, Limit::RequirementsFile)?)
}

#[cfg(test)]
mod tests;
