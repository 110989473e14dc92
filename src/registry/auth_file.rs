//! One of docker's or podman's credential files.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use docker_credential::{CredentialRetrievalError, DockerCredential};
use fs_err as fs;
use serde::Deserialize;
use serde_json::{Value, json};

use super::reference::DOCKER_HUB;
use crate::util::{Error, Result};

/// Under this name docker's files and helpers keep the login to Docker Hub.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";

/// A credential with what to say of its source beside the file's name.
pub(super) type Answer = std::result::Result<Option<(DockerCredential, String)>, String>;

/// The parts of a file that matter here.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct AuthFile {
    auths: Option<BTreeMap<String, Option<BTreeMap<String, Value>>>>,
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
        // Docker leaves an empty file when it is interrupted.
        if bytes.trim_ascii().is_empty() {
            return Ok(None);
        }
        // The parser's message may quote the file: not shown.
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|error| Error::user(format!("`{}` is not valid (line {})", path.display(), error.line())))
    }

    /// Asks the helper program that the file names for the registry.
    pub(super) fn login_of_helper(&self, registry: &str, repository: &str) -> Answer {
        let Some(helpers) = &self.cred_helpers else { return Ok(None) };
        match best_key(helpers.keys(), registry, repository) {
            Some(key) => ask_helper(&helpers[key], key, registry),
            None => Ok(None),
        }
    }

    /// Takes the entry with the longest matching key.
    pub(super) fn login_of_entry(&self, registry: &str, repository: &str) -> Answer {
        let Some(auths) = &self.auths else { return Ok(None) };
        let filled: BTreeMap<&String, BTreeMap<&String, &Value>> = auths
            .iter()
            .map(|(key, entry)| (key, fields(entry.as_ref())))
            .filter(|(_, entry)| !entry.is_empty())
            .collect();
        let Some(key) = best_key(filled.keys().copied(), registry, repository) else { return Ok(None) };
        read_with_crate(&json!({"auths": {key: filled[key]}}), key)
            .map(|credential| Some((credential, format!(" (`{key}`)"))))
            .map_err(|error| format!("the entry `{key}` cannot be used: {}", describe(&error)))
    }

    /// Asks the helper program that keeps all logins.
    pub(super) fn login_of_store(&self, registry: &str, _repository: &str) -> Answer {
        match &self.creds_store {
            Some(helper) if !helper.is_empty() => ask_helper(helper, registry, registry),
            _ => Ok(None),
        }
    }
}

/// The fields of an entry that hold something. With a helper, docker leaves empty entries as markers.
fn fields(entry: Option<&BTreeMap<String, Value>>) -> BTreeMap<&String, &Value> {
    entry
        .into_iter()
        .flatten()
        .filter(|(name, value)| {
            matches!(name.as_str(), "auth" | "username" | "password" | "identitytoken")
                && value.as_str().is_some_and(|text| !text.is_empty())
        })
        .collect()
}

fn ask_helper(helper: &str, key: &str, registry: &str) -> Answer {
    let server = if registry == DOCKER_HUB { DOCKER_HUB_KEY } else { key };
    match read_with_crate(&json!({"credHelpers": {server: helper}}), server) {
        Ok(credential) => Ok(Some((credential, format!(" through `docker-credential-{helper}`")))),
        Err(CredentialRetrievalError::HelperFailure { stdout, stderr, .. })
            if format!("{stdout}{stderr}").contains("credentials not found") =>
        {
            Ok(None)
        }
        Err(error) => Err(format!("`docker-credential-{helper}` failed: {}", describe(&error))),
    }
}

/// Lets the crate decode an entry or run a helper: it is given a file that holds nothing else.
fn read_with_crate(file: &Value, server: &str) -> Result<DockerCredential, CredentialRetrievalError> {
    docker_credential::get_credential_from_reader(file.to_string().as_bytes(), server)
}

/// What went wrong, without what the helper wrote to its output: that may hold a secret.
fn describe(error: &CredentialRetrievalError) -> String {
    match error {
        CredentialRetrievalError::HelperCommunicationError => "it cannot be run".into(),
        CredentialRetrievalError::MalformedHelperResponse => "its answer makes no sense".into(),
        CredentialRetrievalError::HelperFailure { stderr, .. } => match stderr.trim().lines().next() {
            Some(line) => line.chars().take(200).collect(),
            None => "it says no more".into(),
        },
        CredentialRetrievalError::CredentialDecodingError => "its `auth` is not base64 of `user:password`".into(),
        CredentialRetrievalError::CredentialMismatchError => "its `auth` is not its `username` and `password`".into(),
        _ => "it is not complete".into(),
    }
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

/// The files in the order that podman and docker users expect.
pub(super) fn standard_files() -> Vec<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = std::env::home_dir();
    let in_home = |path: &str| home.as_ref().map(|home| home.join(path));
    // Without a session podman falls back to /run/containers/UID.
    let runtime = || {
        let uid = fs::metadata("/proc/self").ok()?.uid();
        Some(PathBuf::from(format!("/run/containers/{uid}/auth.json")))
    };
    [
        variable("REGISTRY_AUTH_FILE"),
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
            (DockerCredential::UsernamePassword(user, _), _) => Some(user),
            (DockerCredential::IdentityToken(token), _) => Some(format!("token {token}")),
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
