//! `uv` as a program: where it is, in which environment it runs, what became of it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use url::Url;

use super::confined::Reach;
use super::{Installed, named_in};
use crate::resolve::{Credentials, Cutoff};
use crate::spec::Pip;
use crate::util::{Error, Result};

/// Variables that uv and what it starts (git, compilers) may see. Indexes are set apart, see [`index_urls`].
const PASSED: [&str; 22] = [
    "PATH",
    "HOME",
    "TMPDIR",
    "NETRC",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "UV_INDEX_STRATEGY",
    "UV_HTTP_TIMEOUT",
    "UV_INSECURE_HOST",
    "SSH_AUTH_SOCK",
    "GIT_SSH",
    "GIT_SSH_COMMAND",
    "GIT_SSL_CAINFO",
    "GIT_CONFIG_GLOBAL",
];

/// How uv is run.
pub struct UvOptions {
    /// A Python of the target's version that runs here.
    pub python: PathBuf,
    /// The directory that holds all of it.
    pub interpreter: PathBuf,
    /// uv's own cache.
    pub cache: PathBuf,
    /// Where unfinished work is kept.
    pub scratch: PathBuf,
    /// Whether the network must not be used.
    pub offline: bool,
    /// Packages that appeared later are left out.
    pub exclude_newer: Option<Cutoff>,
    /// What must not be in messages.
    pub credentials: Credentials,
}

/// The program.
pub struct Uv {
    program: PathBuf,
    options: UvOptions,
    environment: Vec<(OsString, OsString)>,
    /// Files and directories of this machine that stand for indexes.
    local: Vec<PathBuf>,
    /// Whether uv's cache knows the Python.
    known: OnceLock<()>,
}

/// The URLs of the default index, if one is given, and of the others, which are asked before it. The requirements say
/// them, else the environment: `UV_DEFAULT_INDEX`, `UV_INDEX_URL`, `PIP_INDEX_URL`; `UV_INDEX`, `UV_EXTRA_INDEX_URL`
/// and `PIP_EXTRA_INDEX_URL` are asked in any case.
pub fn index_urls(pip: &Pip) -> (Option<String>, Vec<String>) {
    let variable = |name: &&str| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
    let default = ["UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL"].iter().find_map(variable);
    let mut others = pip.options.extra_index_urls.clone();
    for more in ["UV_INDEX", "UV_EXTRA_INDEX_URL", "PIP_EXTRA_INDEX_URL"].iter().filter_map(variable) {
        others.extend(more.split_whitespace().map(str::to_owned));
    }
    (pip.options.index_url.clone().or(default), others)
}

/// The URL of an index, which may have a name before it (`NAME=URL`).
pub(super) fn plain_index(text: &str) -> Option<Url> {
    let named = text.split_once('=').filter(|(name, _)| !name.contains(['/', ':']));
    named.map_or(text, |(_, url)| url).parse().ok()
}

impl Uv {
    /// Finds uv: `CONDAIMG_UV`, else in `PATH`.
    ///
    /// # Errors
    /// When it is not there.
    pub fn find(pip: &Pip, options: UvOptions) -> Result<Self> {
        let program = uv_program()?;
        let mut environment: Vec<(OsString, OsString)> = Vec::new();
        for (name, value) in std::env::vars_os() {
            let text = name.to_string_lossy();
            // Of an index that has a name.
            let login = text.starts_with("UV_INDEX_") && (text.ends_with("_USERNAME") || text.ends_with("_PASSWORD"));
            if PASSED.contains(&&*text) || login {
                environment.push((name, value));
            }
        }
        let (default, others) = index_urls(pip);
        let mut set = |name: &str, value: String| environment.push((name.into(), value.into()));
        set("LANG", "C.UTF-8".to_owned());
        set("PYTHONHASHSEED", "0".to_owned());
        set("GIT_TERMINAL_PROMPT", "0".to_owned());
        let local = local_indexes(pip.options.find_links.iter().chain(&default).chain(&others));
        if let Some(default) = default {
            set("UV_DEFAULT_INDEX", default);
        }
        if !others.is_empty() {
            set("UV_INDEX", others.join(" "));
        }
        if !pip.options.find_links.is_empty() {
            set("UV_FIND_LINKS", pip.options.find_links.join(","));
        }
        Ok(Self { program, options, environment, local, known: OnceLock::new() })
    }

    pub(super) fn scratch(&self) -> &Path {
        &self.options.scratch
    }

    pub(super) fn program(&self) -> &Path {
        &self.program
    }

    /// What stands for indexes on this machine.
    pub(super) fn local(&self) -> &[PathBuf] {
        &self.local
    }

    pub(super) fn options(&self) -> &UvOptions {
        &self.options
    }

    /// Lets uv look at the Python once, so that it need not run it where it has the network.
    pub(super) fn know_python(&self) -> Result<()> {
        if self.known.get().is_none() {
            let work = super::Scratch::new(self)?;
            let python = self.options.python.clone();
            super::confined::Work::new(self, work.path())?.learn(&python)?;
            let _ = self.known.set(());
        }
        Ok(())
    }

    pub(super) fn is_offline(&self) -> bool {
        self.options.offline
    }

    /// A command that sees of this process's environment only what it should.
    pub(super) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env_clear().envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null());
        command
    }

    /// `uv WORDS...` with what holds for every run.
    pub(super) fn uv(&self, words: &[&str]) -> Command {
        self.uv_with(words, &self.options.python)
    }

    /// The same with another Python.
    pub(super) fn uv_with(&self, words: &[&str], python: &Path) -> Command {
        let mut command = self.command(&self.program);
        command.args(words).args(["--no-config", "--no-python-downloads", "--no-progress", "--color", "never"]);
        command.arg("--cache-dir").arg(&self.options.cache).arg("--python").arg(python);
        if self.options.offline {
            command.arg("--offline");
        }
        if let Some(cutoff) = &self.options.exclude_newer {
            command.args(["--exclude-newer", &cutoff.last().to_string()]);
        }
        command
    }

    /// Runs a command to its end; what it printed.
    ///
    /// # Errors
    /// When it does not run or fails; `explain` makes the error of what it said.
    pub(super) fn run(&self, mut command: Command, explain: impl FnOnce(&str) -> Error) -> Result<String> {
        let program = command.get_program().to_string_lossy().into_owned();
        tracing::debug!(program, "running");
        let output =
            command.output().map_err(|error| Error::user(format!("`{program}` does not run")).caused_by(error))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(self.failed(&output.stderr, format!("it ended with {}", output.status), explain))
    }

    /// The error of a program that failed: what it said, without credentials, else how it ended.
    pub(super) fn failed(&self, stderr: &[u8], ended: String, explain: impl FnOnce(&str) -> Error) -> Error {
        let said = self.options.credentials.clean(&String::from_utf8_lossy(stderr));
        let said = said.trim();
        let cause = if said.is_empty() { ended } else { said.to_owned() };
        explain(said).caused_by(std::io::Error::other(cause))
    }

    /// The URL of the default index when nobody names one: uv knows it.
    ///
    /// # Errors
    /// When uv does not run.
    pub fn default_index(&self, pip: &Pip) -> Result<Option<Url>> {
        if let (Some(default), _) = index_urls(pip) {
            return Ok(plain_index(&default).map(|url| crate::util::redact::canonical(&url)));
        }
        let folder = super::Scratch::new(self)?;
        let empty = folder.path().join("empty.txt");
        fs_err::write(&empty, "")?;
        let mut command = self.uv(&["pip", "compile", "--emit-index-url", "--no-header", "--quiet"]);
        command.arg(&empty);
        let reach = Reach { write: vec![folder.path().to_owned()], ..Reach::default() };
        let said = self.confined(&command, reach, |_| Error::user("uv does not tell its index"))?;
        let url = said.lines().find_map(|line| line.strip_prefix("--index-url "));
        Ok(url.and_then(|url| url.trim().parse().ok()))
    }
}

/// The paths among the places of indexes.
fn local_indexes<'a>(places: impl Iterator<Item = &'a String>) -> Vec<PathBuf> {
    let path = |place: &String| match plain_index(place) {
        Some(url) if url.scheme() == "file" => url.to_file_path().ok(),
        Some(_) => None,
        None => Some(PathBuf::from(place)).filter(|path| path.is_absolute()),
    };
    places.filter_map(path).filter(|path| path.exists()).collect()
}

/// The path of uv: what `CONDAIMG_UV` names, else what is in `PATH`.
///
/// # Errors
/// When it is not there.
pub fn uv_program() -> Result<PathBuf> {
    if let Some(program) = std::env::var_os("CONDAIMG_UV").filter(|program| !program.is_empty()) {
        return Ok(program.into());
    }
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&folders).map(|folder| folder.join("uv")).find(|program| program.is_file());
    found.ok_or_else(|| {
        Error::user("the environment has packages of pip, which `uv` resolves and builds, and there is no `uv` in PATH")
            .hint("get it with `pip install uv`, `conda install -c conda-forge uv`, or as its documentation says")
            .hint("`CONDAIMG_UV` names a `uv` that is not in PATH")
    })
}

/// What stands against a requirement, and what to do.
pub(super) fn stands(installed: &Installed) -> String {
    let Installed { name, version, bringer, of_base, .. } = installed;
    let way_out = match of_base {
        true => "extend another base",
        false => "ask for another version of that among the dependencies",
    };
    format!(
        "`{name}` {version} is brought by {bringer}, which stands: {way_out}, or change what the pip packages ask of it"
    )
}

/// uv's own words about a resolution that failed, with what to do.
pub(super) fn no_solution(said: &str, installed: &[Installed], allow_build: bool) -> Error {
    let mut error = Error::user("the pip packages cannot be resolved");
    for one in named_in(said, installed) {
        error = error.hint(stands(one));
    }
    if !allow_build && (said.contains("is disabled") || said.contains("no usable wheels")) {
        error =
            error.hint("`--allow-build` allows to build source distributions and repositories, which runs their code");
    }
    if said.contains("--offline") || said.contains("network was disabled") {
        error = error.hint("build once without `--offline`");
    }
    INSTEAD.iter().filter(|(flag, _)| said.contains(flag)).fold(error, |error, (_, hint)| error.hint(*hint))
}

/// Flags that uv's own hints name, with what does the same here.
const INSTEAD: [(&str, &str); 8] = [
    (
        "--index-strategy",
        "`--index-strategy unsafe-best-match` takes packages from all indexes (`index-strategy:` in a condaimg.yaml): only if all of them are trusted alike",
    ),
    ("--prerelease", "a line `--pre` among the requirements allows pre-releases"),
    ("--find-links", "a line `--find-links URL` among the requirements names more places"),
    ("--default-index", "a line `--index-url URL` among the requirements names the index"),
    ("--system-certs", "`SSL_CERT_FILE` names the certificates to trust, e.g. /etc/ssl/certs/ca-certificates.crt"),
    ("--native-tls", "`SSL_CERT_FILE` names the certificates to trust, e.g. /etc/ssl/certs/ca-certificates.crt"),
    ("--allow-insecure-host", "`UV_INSECURE_HOST` names a host whose certificate is not checked"),
    ("--python-version", "the Python is that of the environment: ask for another version of `python`"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_of_uv_become_those_of_condaimg() {
        for (said, expected) in [
            ("hint: use `--index-strategy unsafe-best-match` to consider all", "`--index-strategy unsafe-best-match`"),
            ("hint: pre-releases weren't enabled (try: `--prerelease=allow`)", "`--pre`"),
            ("hint: Consider using `--system-certs`", "`SSL_CERT_FILE`"),
        ] {
            let error = no_solution(said, &[], false);
            assert!(error.hints().join("\n").contains(expected), "{:?}", error.hints());
        }
        assert!(no_solution("nothing fits", &[], false).hints().is_empty());
    }
}
