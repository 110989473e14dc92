//! Tokens from a token server (distribution's "token authentication" and its OAuth 2 variant).

use std::time::{Duration, Instant};

use reqwest::header::{CONTENT_TYPE, HeaderValue};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde::Deserialize;
use url::{Url, form_urlencoded};

use super::answers::failure;
use super::credentials::{Login, Secret};
use super::host::Host;
use super::transport::{MAX_REDIRECTS, in_circles};
use crate::http::location::{Peer, authority, location};
use crate::http::retry::Failure;
use crate::http::wire::{Wire, explanation};
use crate::util::{Error, Result};

/// How long a token is good when its server does not say (distribution, token specification).
const DEFAULT_LIFE: u64 = 60;
/// A token is replaced so long before its end, or a quarter of its life if that is shorter.
const MARGIN: Duration = Duration::from_secs(10);
/// No token is longer.
const MAX_ANSWER: usize = 1024 * 1024;

/// A token and how long it can be used.
#[derive(Debug)]
pub(super) struct Token {
    pub(super) value: Secret,
    pub(super) good_until: Instant,
    /// Why it was given without regard to the login.
    pub(super) note: Option<String>,
}

/// What a token is asked for with.
pub(super) struct Request<'a> {
    /// URL of the token server.
    pub(super) realm: &'a str,
    pub(super) service: Option<&'a str>,
    pub(super) scopes: &'a [String],
    pub(super) login: Option<&'a Login>,
}

/// Why there is no token.
pub(super) enum Trouble {
    /// The credentials (or having none) were not accepted.
    Refused(StatusCode, Vec<u8>),
    /// Anything else.
    Failed(Failure),
}

impl<T: Into<Failure>> From<T> for Trouble {
    fn from(failure: T) -> Self {
        Self::Failed(failure.into())
    }
}

/// Gets a token.
pub(super) async fn fetch(wire: &Wire, host: &Host, request: &Request<'_>) -> Result<Token, Trouble> {
    let realm = realm(host, request.realm)?;
    let whom = format!("the token server `{}` of {}", authority(&realm), host.called());
    let began = Instant::now();
    let (answer, alone) = ask(wire, host, &whom, &realm, request).await?;
    match answer.status() {
        status if status.is_success() => {}
        status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::BAD_REQUEST) => {
            return Err(match alone {
                None => Trouble::Refused(status, explanation(answer).await),
                Some(other) => elsewhere(&whom, &other).into(),
            });
        }
        // Servers of the older protocol know no `POST`, and it has no place for an identity token.
        status @ (StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED) if is_identity(request.login) => {
            let error = Error::user(format!("{whom} takes no identity tokens ({status})"));
            return Err(error.hint("log in again, with a password or an access token").into());
        }
        _ => return Err(Trouble::Failed(failure(&whom, answer).await)),
    }
    let (value, life) = read(&wire.body(&whom, answer, MAX_ANSWER).await?)
        .ok_or_else(|| Error::user(format!("{whom} sent something that is no token")))?;
    let note = alone.map(|other| elsewhere(&whom, &other).to_string());
    Ok(Token { value, good_until: began + usable(life), note })
}

/// Asks for a token, and follows redirects. Gives the answer, and the host that it comes from when that is another
/// server than the one at `realm`, and so was not told who asks.
async fn ask(
    wire: &Wire,
    host: &Host,
    whom: &str,
    realm: &Url,
    request: &Request<'_>,
) -> Result<(Response, Option<String>), Trouble> {
    let peer = Peer { whom, base: realm, insecure: &[], consent: None, strict: true, at: None };
    let mut url = question(realm, request);
    let mut alone = None;
    for _ in 0..=MAX_REDIRECTS {
        let login = request.login.filter(|_| alone.is_none());
        // The registry names the token server, which names others.
        let by = if peer.owns(&url) { &host.base } else { realm };
        let answer = wire.send(whom, build(wire, by, &url, request, login)?).await?;
        let is_redirect = matches!(answer.status().as_u16(), 301..=303 | 307 | 308);
        let Some(to) = location(answer.headers()).filter(|_| is_redirect) else { return Ok((answer, alone)) };
        let next = peer.follow(&url, to)?;
        if !peer.owns(&next) && request.login.is_some() {
            // A refresh token is all that such a request is about.
            if is_identity(request.login) {
                return Err(elsewhere(whom, &authority(&next)).into());
            }
            alone = Some(authority(&next));
        }
        url = next;
    }
    Err(Trouble::Failed(in_circles(whom)))
}

/// The failure of a login that is sent on to another server.
fn elsewhere(whom: &str, other: &str) -> Error {
    Error::user(format!("{whom} sends the login on to `{other}`, which is another server and is not told it"))
        .hint("the registry must name that server itself, as `realm` in `WWW-Authenticate`")
}

/// How much of a token's life it is used for. What a token is sent with may be on its way for a while, and clocks
/// differ: but a short life must not be over before it begins.
fn usable(life: Duration) -> Duration {
    life - (life / 4).min(MARGIN)
}

fn is_identity(login: Option<&Login>) -> bool {
    matches!(login, Some(Login::Identity(_)))
}

/// The token server's URL: https, or as plain as the registry itself; credentials go there.
fn realm(host: &Host, text: &str) -> Result<Url> {
    let url = Url::parse(text).map_err(|error| {
        Error::user(format!("{} names a token server that is no URL", host.called())).caused_by(error)
    })?;
    // Whoever may read what we send to the registry over plain http may also read this.
    let same_plain = url.scheme() == "http" && host.base.scheme() == "http" && url.host_str() == host.base.host_str();
    if !same_plain {
        host.permit(&url)?;
    }
    Ok(url)
}

/// The URL to ask at: what is asked for goes into its query, except with a refresh token.
fn question(realm: &Url, request: &Request<'_>) -> Url {
    let mut url = realm.clone();
    if !is_identity(request.login) {
        url.query_pairs_mut()
            .extend_pairs(request.service.map(|service| ("service", service)))
            .extend_pairs(request.scopes.iter().map(|scope| ("scope", scope)));
    }
    url
}

fn build(wire: &Wire, by: &Url, url: &Url, request: &Request<'_>, login: Option<&Login>) -> Result<RequestBuilder> {
    if let Some(Login::Identity(token)) = login {
        let form = form_urlencoded::Serializer::new(String::new())
            .extend_pairs([
                ("grant_type", "refresh_token"),
                ("refresh_token", token.reveal()),
                ("client_id", "condaimg"),
            ])
            .extend_pairs(request.service.map(|service| ("service", service)))
            .append_pair("scope", &request.scopes.join(" "))
            .finish();
        let form_type = HeaderValue::from_static("application/x-www-form-urlencoded");
        return Ok(wire.request_led(by, Method::POST, url)?.header(CONTENT_TYPE, form_type).body(form));
    }
    let get = wire.request_led(by, Method::GET, url)?;
    Ok(match login {
        Some(Login::Password { username, password }) => get.basic_auth(username, Some(password.reveal())),
        _ => get,
    })
}

fn read(answer: &[u8]) -> Option<(Secret, Duration)> {
    #[derive(Deserialize)]
    struct Answer {
        token: Option<String>,
        access_token: Option<String>,
        expires_in: Option<f64>,
    }
    let answer: Answer = serde_json::from_slice(answer).ok()?;
    let token = [answer.token, answer.access_token].into_iter().flatten().find(|token| !token.is_empty())?;
    // A header cannot carry control characters; a year is long enough.
    let token = token.bytes().all(|byte| byte.is_ascii_graphic()).then_some(token)?;
    let life =
        answer.expires_in.filter(|life| *life > 0.0).map_or(DEFAULT_LIFE, |life| (life as u64).clamp(1, 31_536_000));
    Some((Secret::new(token), Duration::from_secs(life)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read() {
        let seconds =
            |text: &str| read(text.as_bytes()).map(|(token, life)| (token.reveal().to_owned(), life.as_secs()));
        assert_eq!(seconds(r#"{"token":"a","expires_in":300}"#), Some(("a".into(), 300)));
        assert_eq!(seconds(r#"{"token":"","access_token":"b"}"#), Some(("b".into(), DEFAULT_LIFE)));
        assert_eq!(seconds(r#"{"access_token":"c","expires_in":-1}"#), Some(("c".into(), DEFAULT_LIFE)));
        assert_eq!(seconds(r#"{"token":"a\nb"}"#), None);
        assert_eq!(seconds("{}"), None);
    }

    #[test]
    fn short_lives_are_used() {
        for (life, used) in [(1, 750), (5, 3750), (60, 50_000), (300, 290_000)] {
            assert_eq!(usable(Duration::from_secs(life)), Duration::from_millis(used));
        }
    }

    #[test]
    fn passwords_go_to_no_token_server_in_the_clear() {
        let host = Host { name: "r.example".into(), base: Url::parse("https://r.example").expect("a URL") };
        assert!(realm(&host, "https://auth.example/token").is_ok());
        for text in ["http://auth.example/token", "http://r.example/token", "https://169.254.169.254/", "nothing"] {
            assert!(realm(&host, text).is_err(), "{text}");
        }
        let plain = Host { name: "r.example".into(), base: Url::parse("http://r.example:5000").expect("a URL") };
        assert!(realm(&plain, "http://r.example:5001/token").is_ok());
        assert!(realm(&plain, "http://auth.example/token").is_err());
    }
}
