//! Credentials: the pair of the environment, then docker's and podman's files and helper programs.
//!
//! Formats: docker's `config.json` (`auths`, `credHelpers`, `credsStore`) and `containers-auth.json(5)`, whose
//! keys may be narrowed to a path (`quay.io/team`).

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use super::auth_file::{AuthFile, Place, standard_places};
use crate::util::{Error, Result};

/// Names the user in the environment pair.
const USERNAME: &str = "CONDAIMG_REGISTRY_USERNAME";
/// Names the password in the environment pair.
const PASSWORD: &str = "CONDAIMG_REGISTRY_PASSWORD";

/// What is told when only the other half is set.
const NO_PASSWORD: &str = "CONDAIMG_REGISTRY_PASSWORD is empty, so CONDAIMG_REGISTRY_USERNAME is not used";
const NO_USERNAME: &str = "CONDAIMG_REGISTRY_USERNAME is empty, so CONDAIMG_REGISTRY_PASSWORD is not used";

/// A text that no message, log or debug output shows.
#[derive(Clone, PartialEq, Eq, serde::Deserialize)]
pub(super) struct Secret(String);

impl Secret {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself; only for what goes over the wire.
    pub(super) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// What somebody logs in with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Login {
    /// A user and a password (or an access token in its place).
    Password { username: String, password: Secret },
    /// A refresh token of OAuth 2 ("identity token"), to be changed into access tokens.
    Identity(Secret),
}

/// The outcome of a search, with what to tell when the registry does not accept it.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) login: Option<Login>,
    origin: String,
    looked_in: Vec<String>,
    notes: Vec<String>,
}

impl Found {
    /// "with the credentials for `x` from FILE" or "no credentials found; looked in ...".
    pub(super) fn tried(&self) -> String {
        let mut text = match &self.login {
            Some(Login::Password { username, .. }) => {
                format!("with the credentials for `{username}` from {}", self.origin)
            }
            Some(Login::Identity(_)) => format!("with the identity token from {}", self.origin),
            None => format!("no credentials found; looked in {}", self.looked_in.join(", ")),
        };
        for note in &self.notes {
            text.push_str("; ");
            text.push_str(note);
        }
        text
    }
}

/// Where credentials are searched for.
#[derive(Debug)]
pub(super) struct Credentials {
    pair: Option<Login>,
    pair_hosts: Mutex<BTreeSet<String>>,
    places: Vec<Place>,
    /// What is wrong with the pair of the environment.
    half_a_pair: Option<&'static str>,
    found: Mutex<HashMap<(String, String, bool), Arc<Found>>>,
}

impl Credentials {
    /// `files`: instead of the standard ones. `pair_hosts`: the registries that the pair is for.
    pub(super) fn new(pair: Option<(String, String)>, pair_hosts: &[String], files: Option<Vec<PathBuf>>) -> Self {
        let read = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let (pair, half_a_pair) = match (pair, read(USERNAME), read(PASSWORD)) {
            (Some(pair), ..) => (Some(pair), None),
            (None, Some(username), Some(password)) => (Some((username, password)), None),
            (None, Some(_), None) => (None, Some(NO_PASSWORD)),
            (None, None, Some(_)) => (None, Some(NO_USERNAME)),
            (None, None, None) => (None, None),
        };
        Self {
            pair: pair.map(|(username, password)| Login::Password { username, password: Secret::new(password) }),
            pair_hosts: Mutex::new(pair_hosts.iter().cloned().collect()),
            places: files.map_or_else(standard_places, |files| files.into_iter().map(Place::File).collect()),
            half_a_pair,
            found: Mutex::default(),
        }
    }

    /// What is wrong with the pair of the environment, if half of it is missing.
    pub(super) fn half_a_pair(&self) -> Option<&'static str> {
        self.half_a_pair
    }

    /// The pair is for this registry, too.
    pub(super) fn use_pair_for(&self, registry: &str) {
        self.pair_hosts.lock().unwrap_or_else(PoisonError::into_inner).insert(registry.to_owned());
    }

    /// What to log in with at a registry for a repository. Files and helper programs are asked once.
    ///
    /// # Errors
    /// Only when the search itself breaks down; unreadable files and failing helpers become notes, since what
    /// is wanted may be public.
    pub(super) async fn find(&self, registry: &str, repository: &str) -> Result<Arc<Found>> {
        let for_pair = self.pair_hosts.lock().unwrap_or_else(PoisonError::into_inner).contains(registry);
        let key = (registry.to_owned(), repository.to_owned(), for_pair);
        if let Some(found) = self.found.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Ok(Arc::clone(found));
        }
        let pair = self.pair.clone();
        let (places, half) = (self.places.clone(), self.half_a_pair);
        let (host, path) = (key.0.clone(), key.1.clone());
        let found = tokio::task::spawn_blocking(move || {
            let mut found = search(pair, for_pair, &places, &host, &path);
            found.notes.extend(half.map(str::to_owned));
            found
        })
        .await
        .map_err(|error| Error::bug("the search for credentials broke down").caused_by(error))?;
        let found = Arc::new(found);
        self.found.lock().unwrap_or_else(PoisonError::into_inner).insert(key, Arc::clone(&found));
        Ok(found)
    }
}

fn search(pair: Option<Login>, for_pair: bool, places: &[Place], registry: &str, repository: &str) -> Found {
    let mut found =
        Found { login: None, origin: String::new(), looked_in: vec![USERNAME.to_owned()], notes: Vec::new() };
    match pair {
        Some(login) if for_pair => {
            found.login = Some(login);
            found.origin = format!("{USERNAME} and {PASSWORD}");
            return found;
        }
        Some(_) => found.notes.push(format!("{USERNAME} is kept for the registry that is pushed to")),
        None => {}
    }
    for place in places {
        let read = place.read();
        found.looked_in.push(match read {
            Ok(None) => format!("{place} (nothing there)"),
            _ => place.to_string(),
        });
        let file = match read {
            Ok(Some(file)) => file,
            Ok(None) => continue,
            Err(error) => {
                found.notes.push(error.to_string());
                continue;
            }
        };
        for ask in [AuthFile::login_of_helper, AuthFile::login_of_entry, AuthFile::login_of_store] {
            match ask(&file, registry, repository) {
                Ok(Some((login, source))) => {
                    found.login = Some(login);
                    found.origin = format!("{place}{source}");
                    return found;
                }
                Ok(None) => {}
                Err(problem) => found.notes.push(format!("{place}: {problem}")),
            }
        }
    }
    found
}

/// How to get credentials, for people.
pub(super) fn login_hint(registry: &str) -> String {
    format!("log in with `podman login {registry}` (or `docker login {registry}`), or set {USERNAME} and {PASSWORD}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_pair_goes_only_where_it_belongs() {
        let pair = || Some(("ci".to_owned(), "hush".to_owned()));
        let credentials = Credentials::new(pair(), &["a.example".to_owned()], Some(Vec::new()));
        assert!(credentials.find("a.example", "x").await.expect("searches").login.is_some());
        let other = credentials.find("b.example", "x").await.expect("searches");
        assert_eq!(other.login, None);
        assert!(other.tried().contains("is kept for"), "{}", other.tried());
        credentials.use_pair_for("b.example");
        let found = credentials.find("b.example", "x").await.expect("searches");
        assert!(found.tried().contains("`ci` from CONDAIMG_REGISTRY_USERNAME"), "{}", found.tried());
        assert!(!format!("{found:?}{credentials:?}").contains("hush"));
    }

    #[tokio::test]
    async fn files_are_asked_in_order_and_problems_are_noted() {
        let folder = tempfile::tempdir().expect("a folder");
        let [broken, missing, good] = ["broken", "missing", "good"].map(|name| folder.path().join(name));
        fs_err::write(&broken, "{").expect("writes");
        // `user:hush`
        fs_err::write(&good, r#"{"auths": {"a.example": {"auth": "dXNlcjpodXNo"}}}"#).expect("writes");
        let credentials = Credentials::new(None, &[], Some(vec![broken.clone(), missing, good.clone()]));
        let found = credentials.find("a.example", "x").await.expect("searches");
        let password = Login::Password { username: "user".into(), password: Secret::new("hush") };
        assert_eq!(found.login, Some(password));
        let tried = found.tried();
        assert!(tried.contains(&format!("for `user` from `{}`", good.display())), "{tried}");
        assert!(tried.contains(&broken.display().to_string()), "{tried}");
        let none = credentials.find("b.example", "x").await.expect("searches").tried();
        assert!(none.contains("no credentials found; looked in CONDAIMG_REGISTRY_USERNAME, "), "{none}");
        assert!(none.contains("missing"), "{none}");
    }
}
