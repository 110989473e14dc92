//! Logging in: which registry demands what, and the tokens that were got so far.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use reqwest::{RequestBuilder, Response, StatusCode};

use super::answers::refused;
use super::challenge::{self, Challenge};
use super::credentials::{Credentials, Login, Secret};
use super::host::Host;
use super::token::{self, Token};
use crate::http::retry::{Again, Contact, Failure};
use crate::http::wire::{Wire, explanation};
use crate::util::{Error, Result};

/// What is to be done, and where: tokens are given out for that (distribution's "token scope").
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Scope {
    /// The registry's name in references.
    pub(super) registry: String,
    /// The repository in it.
    pub(super) repository: String,
    /// Writing, which reading belongs to.
    pub(super) push: bool,
    /// Another repository of the registry to read from: a blob is mounted from there.
    pub(super) from: Option<String>,
}

impl Scope {
    fn wanted(&self) -> String {
        if self.push { format!("push to `{}`", self.repository) } else { format!("pull from `{}`", self.repository) }
    }

    fn text(&self) -> String {
        format!("repository:{}:{}", self.repository, if self.push { "pull,push" } else { "pull" })
    }

    /// Whether a token for this is good for the other, too.
    fn covers(&self, other: &Self) -> bool {
        self.registry == other.registry
            && self.repository == other.repository
            && self.push >= other.push
            && (other.from.is_none() || self.from == other.from)
    }

    /// The scopes to ask a token for: the one that the registry names comes first, because some token servers
    /// read only the first; it is left out when ours cover it. The source of a mount comes last: where it gets lost,
    /// the blob can still be sent.
    fn asked(&self, demanded: Option<&str>) -> Vec<String> {
        let source = self.from.as_ref().map(|from| format!("repository:{from}:pull"));
        let own = [Some(self.text()), source.clone()].into_iter().flatten();
        let covered = |demanded: &str| {
            if source.as_deref() == Some(demanded) {
                return true;
            }
            let prefix = format!("repository:{}:", self.repository);
            demanded.strip_prefix(&prefix).is_some_and(|actions| {
                actions.split(',').all(|action| action == "pull" || (self.push && action == "push"))
            })
        };
        match demanded {
            Some(demanded) if !demanded.split(' ').all(covered) => {
                [demanded.to_owned()].into_iter().chain(own).collect()
            }
            _ => own.collect(),
        }
    }
}

/// What a request says of who we are.
#[derive(Debug, Clone)]
pub(super) enum Authorization {
    Anonymous,
    Basic(String, Secret),
    Bearer(Secret),
}

impl Authorization {
    /// Adds the header; reqwest marks it as sensitive.
    pub(super) fn apply(&self, request: RequestBuilder) -> RequestBuilder {
        match self {
            Self::Anonymous => request,
            Self::Basic(username, password) => request.basic_auth(username, Some(password.reveal())),
            Self::Bearer(token) => request.bearer_auth(token.reveal()),
        }
    }
}

/// The tokens for one registry. Locked while one is fetched, so that requests that need the same one wait for it, and no
/// other registry's.
type Tokens = Arc<tokio::sync::Mutex<HashMap<Scope, Token>>>;

/// Demands, credentials and tokens of all registries.
#[derive(Debug)]
pub(super) struct Authenticator {
    pub(super) credentials: Credentials,
    challenges: Mutex<HashMap<String, Challenge>>,
    /// By registry.
    tokens: Mutex<HashMap<String, Tokens>>,
    /// What is to be told when a registry refuses, by registry.
    notes: Mutex<HashMap<String, String>>,
}

impl Authenticator {
    pub(super) fn new(credentials: Credentials) -> Self {
        Self { credentials, challenges: Mutex::default(), tokens: Mutex::default(), notes: Mutex::default() }
    }

    /// Notes what a registry demands.
    pub(super) fn learn(&self, host: &Host, challenge: Challenge) {
        self.challenges.lock().unwrap_or_else(PoisonError::into_inner).insert(host.name.clone(), challenge);
    }

    /// What to send with a request to the registry itself.
    pub(super) async fn authorization(
        &self,
        wire: &Wire,
        host: &Host,
        scope: &Scope,
    ) -> Result<Authorization, Failure> {
        let challenge = self.challenges.lock().unwrap_or_else(PoisonError::into_inner).get(&host.name).cloned();
        match challenge {
            None => Ok(Authorization::Anonymous),
            Some(Challenge::Basic) => self.basic(scope).await,
            Some(Challenge::Bearer { realm, service, .. }) => {
                self.bearer(wire, host, scope, &realm, service.as_deref(), None).await
            }
        }
    }

    /// After a 401: gets what is missing. When it returns without an error, the request may be made again.
    ///
    /// # Errors
    /// When the registry refuses what we have, or nothing more can be tried.
    pub(super) async fn renew(
        &self,
        wire: &Wire,
        host: &Host,
        scope: &Scope,
        used: &Authorization,
        answer: Response,
    ) -> Result<(), Failure> {
        let Some(challenge) = challenge::from_headers(answer.headers()) else {
            return Err(self.refusal(scope, answer).await);
        };
        self.learn(host, challenge.clone());
        match challenge {
            Challenge::Basic => {
                let new = self.basic(scope).await?;
                let tried = matches!(used, Authorization::Basic(..)) || matches!(new, Authorization::Anonymous);
                if tried { Err(self.refusal(scope, answer).await) } else { Ok(()) }
            }
            Challenge::Bearer { realm, service, scope: demanded } => {
                self.forget(scope, used).await;
                self.bearer(wire, host, scope, &realm, service.as_deref(), demanded.as_deref()).await.map(drop)
            }
        }
    }

    /// The failure of a request that the registry refused for good.
    pub(super) async fn refusal(&self, scope: &Scope, answer: Response) -> Failure {
        let status = answer.status();
        let body = explanation(answer).await;
        self.refusal_of(scope, status, &body).await
    }

    async fn refusal_of(&self, scope: &Scope, status: StatusCode, body: &[u8]) -> Failure {
        match self.credentials.find(&scope.registry, &scope.repository).await {
            Ok(found) => {
                let failure = refused(&scope.registry, &scope.wanted(), status, body, &found);
                let note = self.notes.lock().unwrap_or_else(PoisonError::into_inner).get(&scope.registry).cloned();
                let error = note.into_iter().fold(failure.error, Error::hint);
                Failure { error, ..failure }
            }
            Err(error) => error.into(),
        }
    }

    async fn basic(&self, scope: &Scope) -> Result<Authorization, Failure> {
        let found = self.credentials.find(&scope.registry, &scope.repository).await?;
        Ok(match &found.login {
            Some(Login::Password { username, password }) => Authorization::Basic(username.clone(), password.clone()),
            // An identity token is of use to token servers only.
            Some(Login::Identity(_)) | None => Authorization::Anonymous,
        })
    }

    /// The tokens for one registry.
    fn tokens_of(&self, registry: &str) -> Tokens {
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(tokens.entry(registry.to_owned()).or_default())
    }

    async fn bearer(
        &self,
        wire: &Wire,
        host: &Host,
        scope: &Scope,
        realm: &str,
        service: Option<&str>,
        demanded: Option<&str>,
    ) -> Result<Authorization, Failure> {
        let tokens = self.tokens_of(&scope.registry);
        let mut tokens = tokens.lock().await;
        let now = Instant::now();
        let known = tokens.iter().find(|(known, token)| known.covers(scope) && token.good_until > now);
        if let Some((_, token)) = known {
            return Ok(Authorization::Bearer(token.value.clone()));
        }
        let found = self.credentials.find(&scope.registry, &scope.repository).await?;
        let request = token::Request { realm, service, scopes: &scope.asked(demanded), login: found.login.as_ref() };
        match token::fetch(wire, host, &request).await {
            Ok(token) => {
                let value = token.value.clone();
                if let Some(note) = &token.note {
                    let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
                    notes.insert(scope.registry.clone(), note.clone());
                }
                tokens.insert(scope.clone(), token);
                Ok(Authorization::Bearer(value))
            }
            Err(token::Trouble::Refused(status, body)) => {
                drop(tokens);
                Err(self.refusal_of(scope, status, &body).await)
            }
            Err(token::Trouble::Failed(failure)) => Err(failure),
        }
    }

    /// Drops a token that was refused and its likes, unless somebody replaced it already.
    async fn forget(&self, scope: &Scope, used: &Authorization) {
        let Authorization::Bearer(used) = used else { return };
        let tokens = self.tokens_of(&scope.registry);
        let mut tokens = tokens.lock().await;
        if tokens.values().any(|token| token.value == *used) {
            tokens.retain(|other, _| other.registry != scope.registry || other.repository != scope.repository);
        }
    }
}

/// The failure that stands for "log in again was done, make the request again".
pub(super) fn renewed(host: &Host) -> Failure {
    Failure {
        error: Error::user(format!("{} did not accept the token in the middle of an upload", host.called())),
        again: Again::AtOnce,
        contact: Contact::Answered(StatusCode::UNAUTHORIZED),
        code: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_demanded_scope_comes_first_unless_ours_covers_it() {
        let scope = |push| Scope { registry: "r".into(), repository: "a/b".into(), push, from: None };
        let own = "repository:a/b:pull,push";
        assert_eq!(scope(true).asked(None), [own]);
        assert_eq!(scope(true).asked(Some("repository:a/b:push,pull")), [own]);
        assert_eq!(scope(true).asked(Some("repository:a/b:delete")), ["repository:a/b:delete", own]);
        assert_eq!(scope(false).asked(Some(own)), [own, "repository:a/b:pull"]);
        assert_eq!(scope(true).asked(Some("registry:catalog:*")), ["registry:catalog:*", own]);
        let mount = Scope { from: Some("c/d".into()), ..scope(true) };
        let both = [own, "repository:c/d:pull"];
        for demanded in [None, Some("repository:c/d:pull"), Some("repository:a/b:push repository:c/d:pull")] {
            assert_eq!(mount.asked(demanded), both);
        }
    }

    #[test]
    fn tokens_are_good_for_less_than_they_were_asked_for() {
        let scope = |push, from: Option<&str>| Scope {
            registry: "r".into(),
            repository: "a".into(),
            push,
            from: from.map(str::to_owned),
        };
        assert!(scope(true, Some("b")).covers(&scope(false, None)));
        assert!(!scope(true, None).covers(&scope(true, Some("b"))));
        assert!(!scope(true, Some("c")).covers(&scope(true, Some("b"))));
        assert!(!scope(false, None).covers(&scope(true, None)));
    }
}
