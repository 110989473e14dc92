//! Logging in: which registry demands what, and the tokens that were got so far.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use reqwest::{RequestBuilder, Response, StatusCode};

use super::answers::refused;
use super::challenge::{self, Challenge};
use super::credentials::{Credentials, Login, Secret};
use super::location::Host;
use super::retry::{Again, Contact, Failure};
use super::token::{self, Token};
use super::wire::{Wire, explanation};
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
}

impl Scope {
    fn wanted(&self) -> String {
        if self.push { format!("push to `{}`", self.repository) } else { format!("pull from `{}`", self.repository) }
    }

    fn text(&self) -> String {
        format!("repository:{}:{}", self.repository, if self.push { "pull,push" } else { "pull" })
    }

    /// The scopes to ask a token for: the one that the registry names comes first, because some token servers
    /// read only the first; it is left out when ours covers it.
    fn asked(&self, demanded: Option<&str>) -> Vec<String> {
        let own = self.text();
        let covered = |demanded: &str| {
            let prefix = format!("repository:{}:", self.repository);
            demanded.strip_prefix(&prefix).is_some_and(|actions| {
                actions.split(',').all(|action| action == "pull" || (self.push && action == "push"))
            })
        };
        match demanded {
            Some(demanded) if !covered(demanded) => vec![demanded.to_owned(), own],
            _ => vec![own],
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

/// Demands, credentials and tokens of all registries.
#[derive(Debug)]
pub(super) struct Authenticator {
    pub(super) credentials: Credentials,
    challenges: Mutex<HashMap<String, Challenge>>,
    /// Locked while a token is fetched, so that requests that need the same one wait for it.
    tokens: tokio::sync::Mutex<HashMap<Scope, Token>>,
}

impl Authenticator {
    pub(super) fn new(credentials: Credentials) -> Self {
        Self { credentials, challenges: Mutex::default(), tokens: tokio::sync::Mutex::default() }
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
            Ok(found) => refused(&scope.registry, &scope.wanted(), status, body, &found),
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

    async fn bearer(
        &self,
        wire: &Wire,
        host: &Host,
        scope: &Scope,
        realm: &str,
        service: Option<&str>,
        demanded: Option<&str>,
    ) -> Result<Authorization, Failure> {
        let mut tokens = self.tokens.lock().await;
        let now = Instant::now();
        // A token for pushing is good for pulling, too.
        let wider = Scope { push: true, ..scope.clone() };
        let known =
            [scope, &wider].into_iter().filter_map(|scope| tokens.get(scope)).find(|token| token.good_until > now);
        if let Some(token) = known {
            return Ok(Authorization::Bearer(token.value.clone()));
        }
        let found = self.credentials.find(&scope.registry, &scope.repository).await?;
        let request = token::Request { realm, service, scopes: &scope.asked(demanded), login: found.login.as_ref() };
        match token::fetch(wire, host, &request).await {
            Ok(token) => {
                let value = token.value.clone();
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

    /// Drops a token that was refused, unless somebody replaced it already.
    async fn forget(&self, scope: &Scope, used: &Authorization) {
        let Authorization::Bearer(used) = used else { return };
        let mut tokens = self.tokens.lock().await;
        tokens.retain(|other, token| other.repository != scope.repository || token.value != *used);
    }
}

/// The failure that stands for "log in again was done, make the request again".
pub(super) fn renewed(host: &Host) -> Failure {
    Failure {
        error: Error::user(format!("{} did not accept the token in the middle of an upload", host.called())),
        again: Again::AtOnce,
        contact: Contact::Answered(StatusCode::UNAUTHORIZED),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_demanded_scope_comes_first_unless_ours_covers_it() {
        let scope = |push| Scope { registry: "r".into(), repository: "a/b".into(), push };
        let own = "repository:a/b:pull,push";
        assert_eq!(scope(true).asked(None), [own]);
        assert_eq!(scope(true).asked(Some("repository:a/b:push,pull")), [own]);
        assert_eq!(scope(true).asked(Some("repository:a/b:delete")), ["repository:a/b:delete", own]);
        assert_eq!(scope(false).asked(Some(own)), [own, "repository:a/b:pull"]);
        assert_eq!(scope(true).asked(Some("registry:catalog:*")), ["registry:catalog:*", own]);
    }
}
