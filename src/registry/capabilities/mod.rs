//! What a registry can do, found out by trying it: `condaimg doctor`.
//!
//! Registries do not tell what they support, and what they tell may be wrong, so each thing is done once with tiny
//! blobs and manifests. Their content is random, so that nothing is found to be there already. What was written is
//! deleted again where that works; the rest is listed.

mod advice;
mod artifacts;
mod bench;
mod blobs;
mod cleaning;
mod images;
mod sample;

use reqwest::header::HeaderMap;
use reqwest::{Method, StatusCode};
use serde::Serialize;
use url::Url;

use super::challenge::{self, Challenge};
use super::reference::Reference;
use super::transport::Place;
use super::{Registry, credentials};
use crate::http::location::authority;
use bench::{Bench, Trouble};

/// Where it is tried when no repository is named; mounts go to its sibling `condaimg-doctor/mount`.
pub const DEFAULT_REPOSITORY: &str = "condaimg-doctor/probe";

/// What came of trying something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It works.
    Ok,
    /// It does not.
    No,
    /// It could not be found out.
    Unknown,
}

/// One thing that was tried.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Finding {
    /// Its name, in kebab case.
    pub name: &'static str,
    /// What came of it.
    pub state: State,
    /// What was seen.
    pub detail: String,
    /// What follows from it, or what to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

/// All that was found out about a registry.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Examination {
    /// What was tried, in order.
    pub findings: Vec<Finding>,
    /// What was written and could not be deleted.
    pub left: Vec<String>,
    /// Whether images can be pulled.
    pub can_pull: bool,
    /// Whether images can be pushed; none when it was not tried.
    pub can_push: Option<bool>,
}

impl Examination {
    /// The first thing that does not work and without which nothing does.
    pub fn obstacle(&self) -> Option<&Finding> {
        let essential = ["reachable", "pull", "push", "monolithic-upload", "oci-manifest"];
        self.findings.iter().find(|finding| finding.state != State::Ok && essential.contains(&finding.name))
    }

    fn note(&mut self, name: &'static str, result: std::result::Result<String, Trouble>) -> bool {
        let (state, detail, hint) = match result {
            Ok(detail) => (State::Ok, detail, None),
            Err(trouble) => (trouble.state, trouble.detail, trouble.hint),
        };
        let advice = hint.or_else(|| advice::advice(name, state).map(str::to_owned));
        self.findings.push(Finding { name, state, detail, advice });
        state == State::Ok
    }
}

impl Registry {
    /// Finds out what the reference's registry can do, by trying it in the reference's repository (and, to mount,
    /// in its sibling `condaimg-doctor-mount`). `read_only` writes nothing, and finds out less.
    pub async fn examine(&self, repository: &Reference, read_only: bool) -> Examination {
        let can_push = (!read_only).then_some(false);
        let mut seen = Examination { findings: Vec::new(), left: Vec::new(), can_pull: false, can_push };
        let place = match self.policy().run(|| self.transport().place(repository, !read_only)).await {
            Ok(place) => place,
            Err(error) => {
                let hint = error.hints().first().map(|&hint| hint.to_owned());
                let trouble = Trouble { state: State::No, detail: error.chain().join(": "), hint };
                seen.note("reachable", Err(trouble));
                return seen;
            }
        };
        let bench = Bench::new(self, place, repository);
        seen.note("reachable", Ok(reached(&bench.place)));
        let demanded = bench.demanded().await;
        let anonymous = matches!(demanded, Ok(None));
        seen.note("authentication", demanded.map(|challenge| demand(challenge.as_ref())));
        seen.note("credentials", bench.credentials(anonymous).await);
        seen.can_pull = seen.note("pull", bench.pull().await);
        if read_only {
            seen.note("referrers-api", bench.referrers_api(None).await);
        } else {
            seen.can_push = Some(bench.try_writing(&mut seen).await);
        }
        seen
    }
}

fn reached(place: &Place) -> String {
    format!("{} ({})", authority(&place.host.base), place.host.base.scheme())
}

fn demand(challenge: Option<&Challenge>) -> String {
    match challenge {
        None => "none".into(),
        Some(Challenge::Basic) => "a user and a password (basic)".into(),
        Some(Challenge::Bearer { realm, .. }) => {
            let server = Url::parse(realm).map(|url| authority(&url)).unwrap_or_default();
            format!("a token of `{server}` (bearer)")
        }
    }
}

impl Bench<'_> {
    /// What the registry demands of somebody who says nothing of themselves.
    async fn demanded(&self) -> Result<Option<Challenge>, Trouble> {
        let url = self.place.host.url("").map_err(Trouble::of_error)?;
        let wire = &self.registry.transport().wire;
        let request = wire.request(Method::GET, &url).map_err(Trouble::of_error)?;
        let answer = wire.send(&self.place.called(), request).await?;
        match (answer.status(), challenge::from_headers(answer.headers())) {
            (StatusCode::UNAUTHORIZED, Some(challenge)) => Ok(Some(challenge)),
            (StatusCode::UNAUTHORIZED, None) => Err(Trouble::no("a login, but not of which kind")),
            _ => Ok(None),
        }
    }

    /// Which credentials there are, never what they are.
    async fn credentials(&self, anonymous: bool) -> Result<String, Trouble> {
        let scope = &self.place.scope;
        let found = self.registry.transport().auth.credentials.find(&scope.registry, &scope.repository).await;
        let found = found.map_err(Trouble::of_error)?;
        match (&found.login, anonymous) {
            (Some(_), false) => Ok(found.tried()),
            (Some(_), true) => Ok(format!("not asked for; there are some: {}", found.tried())),
            (None, true) => Ok("not asked for, and none found".into()),
            (None, false) => {
                let hint = Some(credentials::login_hint(&scope.registry));
                Err(Trouble { state: State::Unknown, detail: found.tried(), hint })
            }
        }
    }

    /// Asks for a manifest that nobody has pushed.
    async fn pull(&self) -> Result<String, Trouble> {
        let path = format!("manifests/{}", self.tag());
        let answer = self.ask(&self.place, Method::GET, &path, HeaderMap::new(), Vec::new()).await?;
        match answer.status {
            StatusCode::NOT_FOUND if answer.told().contains("NAME_UNKNOWN") => {
                Ok("allowed; there is no such repository yet".into())
            }
            StatusCode::NOT_FOUND | StatusCode::OK => Ok("allowed".into()),
            _ => Err(answer.trouble()),
        }
    }
}
