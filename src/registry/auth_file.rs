//! One of docker's or podman's credential files.

use std::collections::BTreeMap;
use std::fmt;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use fs_err as fs;
use serde::Deserialize;

use super::credentials::{Login, Secret};
use super::helper;
use super::logins::Logins;
use super::reference::DOCKER_HUB;
use crate::util::{Error, Result, redact};

/// Under this name docker's files and helpers keep the login to Docker Hub.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";

/// A login with what to say of its source beside the file's name.
pub(super) type Answer = std::result::Result<Option<(Login, String)>, String>;

/// The parts of a file that matter here.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct AuthFile {
    auths: Option<BTreeMap<String, Option<Entry>>>,
    cred_helpers: Option<BTreeMap<String, String>>,
    creds_store: Option<String>,
}

impl AuthFile {
    /// Reads a file; none when there is none.
    pub(super) fn read(path: &Path) -> Result<Option<Self>> {
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        Self::parse(&bytes, &format!("`{}`", path.display()))
    }

    /// Reads the text of a file, which errors call `called`; none when it is empty.
    fn parse(bytes: &[u8], called: &str) -> Result<Option<Self>> {
        // Docker leaves an empty file when it is interrupted.
        if bytes.trim_ascii().is_empty() {
            return Ok(None);
        }
        // The parser's message may quote the file: not shown.
        serde_json::from_slice(bytes)
            .map(Some)
            .map_err(|error| Error::user(format!("{called} is not valid (line {})", error.line())))
    }

    /// Asks the helper program that the file names for the registry.
    pub(super) fn login_of_helper(&self, registry: &str, _repository: &str) -> Answer {
        let mut helpers = self.cred_helpers.iter().flatten();
        match helpers.find(|(key, _)| normal(key) == registry) {
            Some((_, helper)) if !helper.is_empty() => ask_helper(helper, registry),
            _ => Ok(None),
        }
    }

    /// Whom it has something for.
    pub(super) fn logins(&self) -> Logins {
        Logins {
            registries: self.filled().into_keys().map(|key| redact::text(key)).collect(),
            helpers: self.cred_helpers.clone().unwrap_or_default().into_iter().collect(),
            store: self.creds_store.clone().filter(|helper| !helper.is_empty()),
        }
    }

    /// The entries that hold something. With a helper, docker leaves empty ones as markers.
    fn filled(&self) -> BTreeMap<&String, &Entry> {
        let entries = self.auths.iter().flatten();
        entries.filter_map(|(key, entry)| Some((key, entry.as_ref().filter(|entry| entry.is_filled())?))).collect()
    }

    /// Takes the entry with the longest matching key.
    pub(super) fn login_of_entry(&self, registry: &str, repository: &str) -> Answer {
        let filled = self.filled();
        let Some(key) = best_key(filled.keys().copied(), registry, repository) else { return Ok(None) };
        let login = filled[key].login().map_err(|problem| format!("the entry `{key}` cannot be used: {problem}"))?;
        Ok(Some((login, format!(" (`{key}`)"))))
    }

    /// Asks the helper program that keeps all logins.
    pub(super) fn login_of_store(&self, registry: &str, _repository: &str) -> Answer {
        match &self.creds_store {
            Some(helper) if !helper.is_empty() => ask_helper(helper, registry),
            _ => Ok(None),
        }
    }
}

/// What a file says of a registry.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    /// Base64 of `user:password`.
    auth: Option<Secret>,
    username: Option<Secret>,
    password: Option<Secret>,
    identitytoken: Option<Secret>,
}

impl Entry {
    fn is_filled(&self) -> bool {
        [&self.auth, &self.username, &self.password, &self.identitytoken].into_iter().any(|text| given(text).is_some())
    }

    /// An identity token comes before what it stands beside, and `auth` before the older form.
    fn login(&self) -> std::result::Result<Login, &'static str> {
        if let Some(token) = given(&self.identitytoken) {
            return Ok(Login::Identity(Secret::new(token)));
        }
        if let Some(auth) = given(&self.auth) {
            return decode(auth).ok_or("its `auth` is not base64 of `user:password`");
        }
        match (given(&self.username), given(&self.password)) {
            (Some(username), Some(password)) => {
                Ok(Login::Password { username: username.to_owned(), password: Secret::new(password) })
            }
            _ => Err("it is not complete"),
        }
    }
}

fn given(text: &Option<Secret>) -> Option<&str> {
    text.as_ref().map(Secret::reveal).filter(|text| !text.is_empty())
}

fn decode(auth: &str) -> Option<Login> {
    let engine = GeneralPurpose::new(
        &base64::alphabet::STANDARD,
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
    );
    let text = String::from_utf8(engine.decode(auth.trim()).ok()?).ok()?;
    let (username, password) = text.split_once(':')?;
    // What an old version of docker wrote had zeros at its end; docker itself takes them off.
    let password = Secret::new(password.trim_end_matches('\0'));
    Some(Login::Password { username: username.to_owned(), password })
}

fn ask_helper(helper: &str, registry: &str) -> Answer {
    let server = if registry == DOCKER_HUB { DOCKER_HUB_KEY } else { registry };
    let login = helper::login(helper, server)?;
    Ok(login.map(|login| (login, format!(" through `docker-credential-{helper}`"))))
}

/// The key that fits `registry/repository` best: the longest path wins.
fn best_key<'a>(keys: impl Iterator<Item = &'a String>, registry: &str, repository: &str) -> Option<&'a String> {
    let wanted = format!("{registry}/{repository}");
    keys.filter(|key| {
        let key = normal(key);
        wanted.strip_prefix(&key).is_some_and(|rest| rest.starts_with('/') || rest.is_empty())
    })
    .max_by_key(|key| (normal(key).len(), !key.contains("://")))
}

/// A key as `HOST[/PATH]`. Docker's old keys are URLs whose path is that of the interface.
fn normal(key: &str) -> String {
    let plain = match key.split_once("://") {
        Some((_, rest)) => rest.split('/').next().unwrap_or_default(),
        None => key.trim_end_matches('/'),
    };
    let (host, path) = plain.split_once('/').map_or((plain, ""), |(host, path)| (host, path));
    let host = match host {
        "index.docker.io" | "registry-1.docker.io" => DOCKER_HUB,
        other => other,
    };
    // `index.docker.io/v1/` without a scheme is old style, too.
    if path.is_empty() || matches!(path, "v1" | "v2") { host.to_owned() } else { format!("{host}/{path}") }
}

/// Holds the text of a credential file: GitLab's runners and docker's own program read it.
pub(super) const VARIABLE: &str = "DOCKER_AUTH_CONFIG";

/// Where the text of a credential file is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// In a file.
    File(PathBuf),
    /// In `DOCKER_AUTH_CONFIG`.
    Variable,
}

impl Place {
    /// Reads it; none when there is none.
    pub(super) fn read(&self) -> Result<Option<AuthFile>> {
        match self {
            Self::File(path) => AuthFile::read(path),
            Self::Variable => {
                let text = std::env::var_os(VARIABLE).unwrap_or_default();
                AuthFile::parse(text.as_encoded_bytes(), &self.to_string())
            }
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "`{}`", path.display()),
            Self::Variable => write!(f, "`${VARIABLE}`"),
        }
    }
}

/// The places in the order that podman and docker users expect. `REGISTRY_AUTH_FILE` stands for all other files, as
/// it does for podman (`containers-auth.json(5)`): who names a file means that one. Before the files comes
/// `DOCKER_AUTH_CONFIG`, as it does for docker; behind a file that is named.
pub(super) fn standard_places() -> Vec<Place> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(file) = variable("REGISTRY_AUTH_FILE") {
        return vec![Place::File(file), Place::Variable];
    }
    let files = standard_files().into_iter().map(Place::File);
    std::iter::once(Place::Variable).chain(files).collect()
}

fn standard_files() -> Vec<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = std::env::home_dir();
    let in_home = |path: &str| home.as_ref().map(|home| home.join(path));
    // Without a session podman falls back to /run/containers/UID.
    let runtime = || {
        let uid = fs::metadata("/proc/self").ok()?.uid();
        Some(PathBuf::from(format!("/run/containers/{uid}/auth.json")))
    };
    [
        variable("XDG_RUNTIME_DIR").map(|folder| folder.join("containers/auth.json")).or_else(runtime),
        variable("XDG_CONFIG_HOME").or_else(|| in_home(".config")).map(|folder| folder.join("containers/auth.json")),
        variable("DOCKER_CONFIG").or_else(|| in_home(".docker")).map(|folder| folder.join("config.json")),
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> AuthFile {
        serde_json::from_str(text).expect("valid")
    }

    fn user(answer: Answer) -> Option<String> {
        match answer.expect("no problem")? {
            (Login::Password { username, .. }, _) => Some(username),
            (Login::Identity(token), _) => Some(format!("token {}", token.reveal())),
        }
    }

    #[test]
    fn the_longest_key_wins() {
        // `host:x`, `team:x`, `deep:x`
        let file = file(
            r#"{"auths": {"quay.example": {"auth": "aG9zdDp4"}, "quay.example/team": {"auth": "dGVhbTp4"},
                "https://quay.example/v1/": {}, "quay.example/team/a/b": {"auth": "ZGVlcDp4"}}}"#,
        );
        for (repository, expected) in
            [("other", "host"), ("team/env", "team"), ("teams/x", "host"), ("team/a/b", "deep")]
        {
            assert_eq!(
                user(file.login_of_entry("quay.example", repository)).as_deref(),
                Some(expected),
                "{repository}"
            );
        }
        assert_eq!(user(file.login_of_entry("quay.example:5000", "team")), None);
    }

    #[test]
    fn docker_hub_goes_by_its_old_name() {
        for key in [DOCKER_HUB_KEY, "docker.io", "index.docker.io/v1/", "https://index.docker.io/v2/"] {
            let file = file(&format!(r#"{{"auths": {{"{key}": {{"auth": "aG9zdDp4"}}}}}}"#));
            assert_eq!(user(file.login_of_entry(DOCKER_HUB, "library/debian")).as_deref(), Some("host"), "{key}");
        }
    }

    #[test]
    fn other_forms_of_entries_are_read() {
        let token = file(r#"{"auths": {"a.example": {"auth": "aG9zdDp4", "identitytoken": "abc"}}}"#);
        assert_eq!(user(token.login_of_entry("a.example", "x")).as_deref(), Some("token abc"));
        let plain = file(r#"{"auths": {"a.example": {"username": "u", "password": "p", "identitytoken": ""}}}"#);
        assert_eq!(user(plain.login_of_entry("a.example", "x")).as_deref(), Some("u"));
        let marker = file(r#"{"auths": {"a.example": {}, "b.example": null}, "HttpHeaders": {"a": "b"}}"#);
        assert_eq!(user(marker.login_of_entry("a.example", "x")), None);
        let broken = file(r#"{"auths": {"a.example": {"auth": "c2VjcmV0"}}}"#).login_of_entry("a.example", "x");
        let problem = broken.expect_err("no colon");
        assert!(problem.contains("a.example") && !problem.contains("secret"), "{problem}");
        let helper = file(r#"{"credHelpers": {"a.example": "condaimg-is-missing"}}"#).login_of_helper("a.example", "x");
        assert!(helper.expect_err("missing").contains("docker-credential-condaimg-is-missing"));
    }
}
