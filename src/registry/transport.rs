//! Requests to a registry: over http or https, with what it demands, following where it sends us.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{HeaderMap, LOCATION};
use reqwest::{Body, Method, RequestBuilder, Response, StatusCode};
use url::Url;

use super::answers::failure;
use super::auth::{Authenticator, Authorization, Scope, renewed};
use super::challenge;
use super::host::Host;
use super::meeting::Meeting;
use super::reference::{Reference, api_host};
use crate::http::address::is_loopback;
use crate::http::location::{authority, listed, redirected};
use crate::http::retry::{Again, Contact, Failure, passes};
use crate::http::wire::{Wire, explanation};
use crate::util::{Error, Result};

/// Redirects in a row that are followed; more are a loop.
pub(super) const MAX_REDIRECTS: usize = 10;

/// All that is needed to talk to registries.
#[derive(Debug)]
pub(super) struct Transport {
    pub(super) wire: Wire,
    pub(super) auth: Authenticator,
    insecure: Vec<String>,
    hosts: Mutex<HashMap<String, Arc<Meeting>>>,
}

/// A repository in a registry, and what is to be done there.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) host: Arc<Host>,
    pub(super) scope: Scope,
}

impl Place {
    /// A URL of the repository's part of the interface.
    pub(super) fn url(&self, path: &str) -> Result<Url> {
        self.host.url(&format!("{}/{path}", self.scope.repository))
    }

    /// The same, with leave to read from another repository of the registry.
    pub(super) fn reading_from(&self, repository: &str) -> Self {
        Self { host: Arc::clone(&self.host), scope: Scope { from: Some(repository.to_owned()), ..self.scope.clone() } }
    }

    /// How messages call the registry.
    pub(super) fn called(&self) -> String {
        self.host.called()
    }
}

/// A request with a short body, which can be made again.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// How long the answer may take, when that is not the usual patience.
    pub(super) patience: Option<Duration>,
}

impl Call {
    pub(super) fn new(method: Method, url: Url) -> Self {
        Self { method, url, headers: HeaderMap::new(), body: Bytes::new(), patience: None }
    }
}

/// A request that was made ready, and what it says of who we are.
pub(super) struct Prepared {
    pub(super) request: RequestBuilder,
    pub(super) used: Authorization,
}

impl Transport {
    pub(super) fn new(wire: Wire, auth: Authenticator, insecure: Vec<String>) -> Self {
        Self { wire, auth, insecure, hosts: Mutex::default() }
    }

    /// The repository of a reference. At the first use of a registry finds out how to talk to it.
    pub(super) async fn place(&self, reference: &Reference, push: bool) -> Result<Place, Failure> {
        let registry = reference.registry().to_owned();
        if push {
            self.auth.credentials.use_pair_for(&registry);
        }
        let meeting = {
            let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(hosts.entry(registry.clone()).or_default())
        };
        let host = meeting.host(|| self.meet(&registry)).await?;
        Ok(Place { host, scope: Scope { registry, repository: reference.repository().to_owned(), push, from: None } })
    }

    /// Makes a request, logs in when that is demanded, and follows redirects. Gives the answer whatever its status,
    /// except 401.
    pub(super) async fn send(&self, place: &Place, call: &Call) -> Result<Response, Failure> {
        let (answer, used) = self.exchange(place, call).await?;
        if answer.status() != StatusCode::UNAUTHORIZED {
            return Ok(answer);
        }
        self.auth.renew(&self.wire, &place.host, &place.scope, &used, answer).await?;
        let (answer, _) = self.exchange(place, call).await?;
        if answer.status() != StatusCode::UNAUTHORIZED {
            return Ok(answer);
        }
        Err(self.auth.refusal(&place.scope, answer).await)
    }

    /// Makes a request ready whose body can be read only once. [`Transport::settle`] takes its answer.
    pub(super) async fn prepare(&self, place: &Place, call: Call, body: Body) -> Result<Prepared, Failure> {
        let used = self.authorization(place, &call.url).await?;
        let request = self.wire.request_led(&place.host.base, call.method, &call.url)?.headers(call.headers).body(body);
        Ok(Prepared { request: used.apply(request), used })
    }

    /// An answer 401 to such a request: logs in again, and fails with [`crate::http::retry::Again::AtOnce`].
    pub(super) async fn settle(
        &self,
        place: &Place,
        used: &Authorization,
        answer: Response,
    ) -> Result<Response, Failure> {
        if answer.status() != StatusCode::UNAUTHORIZED || !place.host.owns(answer.url()) {
            return Ok(answer);
        }
        self.auth.renew(&self.wire, &place.host, &place.scope, used, answer).await?;
        Err(renewed(&place.host))
    }

    /// The URL that an answer's `Location` names.
    pub(super) fn location(&self, place: &Place, asked: &Url, headers: &HeaderMap) -> Result<Url> {
        place.host.location(asked, headers, &self.insecure)
    }

    /// The failure that an answer with an unwelcome status is.
    pub(super) async fn failure(&self, place: &Place, answer: Response) -> Failure {
        if !place.host.owns(answer.url()) {
            let whom = format!("`{}`, to which {} sent us,", authority(answer.url()), place.called());
            return failure(&whom, answer).await;
        }
        match answer.status() {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => self.auth.refusal(&place.scope, answer).await,
            _ => failure(&place.called(), answer).await,
        }
    }

    async fn exchange(&self, place: &Place, call: &Call) -> Result<(Response, Authorization), Failure> {
        let mut url = call.url.clone();
        let whom = place.called();
        for _ in 0..=MAX_REDIRECTS {
            let used = self.authorization(place, &url).await?;
            let request =
                self.wire.request_led(&place.host.base, call.method.clone(), &url)?.headers(call.headers.clone());
            let patience = call.patience.unwrap_or(self.wire.patience.idle);
            let answer = self.wire.send_within(patience, &whom, used.apply(request.body(call.body.clone()))).await?;
            if let Some(next) = self.redirect(place, &call.method, &answer)? {
                url = next;
                continue;
            }
            if answer.status() == StatusCode::UNAUTHORIZED && !place.host.owns(&url) {
                return Err(self.failure(place, answer).await);
            }
            return Ok((answer, used));
        }
        Err(in_circles(&whom))
    }

    /// Where an answer redirects a request to; none when it does not, or may not for this method. Redirects change the
    /// method of nothing that is followed.
    pub(super) fn redirect(&self, place: &Place, method: &Method, answer: &Response) -> Result<Option<Url>> {
        match redirected(method, answer.status()).filter(|_| answer.headers().contains_key(LOCATION)) {
            Some(_) => self.location(place, answer.url(), answer.headers()).map(Some),
            None => Ok(None),
        }
    }

    /// Credentials go to the registry's own address only.
    async fn authorization(&self, place: &Place, url: &Url) -> Result<Authorization, Failure> {
        if place.host.owns(url) {
            self.auth.authorization(&self.wire, &place.host, &place.scope).await
        } else {
            Ok(Authorization::Anonymous)
        }
    }

    /// Finds out whether a registry speaks http or https, and what it demands.
    async fn meet(&self, registry: &str) -> Result<Arc<Host>, Failure> {
        let plain = is_loopback(registry) || listed(&self.insecure, registry);
        let host = |scheme: &str| {
            let base = Url::parse(&format!("{scheme}://{}", api_host(registry)))
                .map_err(|error| Error::usage(format!("`{registry}` is not a host")).caused_by(error))?;
            Ok::<_, Error>(Host { name: registry.to_owned(), base })
        };
        let secure = host("https")?;
        if !plain {
            return self.greet_securely(secure).await;
        }
        let failure = match self.greet(host("http")?).await {
            Ok(host) => return Ok(host),
            Err(failure) => failure,
        };
        match failure.contact {
            Contact::WantsTls => self.greet_securely(secure).await,
            // What answers, but not in http, may want TLS.
            Contact::Broken => match self.greet_securely(secure).await {
                Err(other) if !matches!(other.contact, Contact::Untrusted | Contact::Unwanted) => Err(failure),
                greeted => greeted,
            },
            _ => Err(failure),
        }
    }

    /// Greets over https; the certificate may be its own authority when the user named it.
    async fn greet_securely(&self, host: Host) -> Result<Arc<Host>, Failure> {
        match self.greet(host.clone()).await {
            Err(untrusted) if untrusted.contact == Contact::Untrusted => {
                if !self.wire.expect_self_signed(&host.base, true) {
                    return Err(untrusted);
                }
                let base = host.base.clone();
                match self.greet(host).await {
                    Err(failure) if failure.contact == Contact::Untrusted => {
                        self.wire.expect_self_signed(&base, false);
                        Err(untrusted)
                    }
                    other => other,
                }
            }
            other => other,
        }
    }

    /// Makes the first request. A server that wants a client certificate says so behind the handshake (RFC 8446,
    /// 4.4.2.4), where HTTP/2 loses it: what broke is tried again without.
    async fn greet(&self, host: Host) -> Result<Arc<Host>, Failure> {
        let url = host.url("")?;
        let broken = match self.hear(host.clone(), self.wire.request(Method::GET, &url)?).await {
            Err(failure) if failure.contact == Contact::Broken && url.scheme() == "https" => failure,
            other => return other,
        };
        match self.hear(host, self.wire.request_by_http1(Method::GET, &url)?).await {
            Err(failure) if failure.contact != Contact::Unwanted => Err(broken),
            other => other,
        }
    }

    /// Learns from the answer to the first request what the registry demands.
    async fn hear(&self, host: Host, request: RequestBuilder) -> Result<Arc<Host>, Failure> {
        let answer = self.wire.send(&host.called(), request).await?;
        match answer.status() {
            StatusCode::UNAUTHORIZED => {
                if let Some(challenge) = challenge::from_headers(answer.headers()) {
                    self.auth.learn(&host, challenge);
                }
            }
            status if passes(status) || status == StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
                return Err(failure(&host.called(), answer).await);
            }
            status if status.is_redirection() && host.base.scheme() == "http" && leads_to_https(&host, &answer) => {
                let error = Error::user(format!("{} wants https", host.called()));
                return Err(Failure { error, again: Again::Never, contact: Contact::WantsTls, code: None });
            }
            StatusCode::BAD_REQUEST if host.base.scheme() == "http" => {
                let said = String::from_utf8_lossy(&explanation(answer).await).to_ascii_lowercase();
                if said.contains("https") {
                    let error = Error::user(format!("{} wants https", host.called()));
                    return Err(Failure { error, again: Again::Never, contact: Contact::WantsTls, code: None });
                }
            }
            // Some registries have nothing at this address; the request that counts will tell.
            _ => {}
        }
        Ok(Arc::new(host))
    }
}

/// The failure of a request that is redirected again and again.
pub(super) fn in_circles(whom: &str) -> Failure {
    Error::user(format!("{whom} sends us round in circles")).into()
}

/// Whether an answer over http sends us to the same host over https.
fn leads_to_https(host: &Host, answer: &Response) -> bool {
    let location = answer.headers().get(LOCATION).and_then(|value| value.to_str().ok());
    let url = location.and_then(|location| answer.url().join(location).ok());
    url.is_some_and(|url| url.scheme() == "https" && url.host_str() == host.base.host_str())
}
