//! The HTTP client for channels: credentials, retries, offline mode.
//!
//! Channels are known by their canonical URL everywhere (locks, messages, images). What a user wrote into a
//! channel's URL as user, password or token enters here only, when a request leaves.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rattler_networking::authentication_storage::backends::file::{FileStorage, FileStorageError};
use rattler_networking::authentication_storage::backends::netrc::NetRcStorage;
use rattler_networking::{AuthenticationMiddleware, AuthenticationStorage, OfflineMiddleware};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Request, Response, StatusCode};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware, Next};
use url::Url;

use crate::util::{Error, Result, redact};

const USER_AGENT: &str = concat!("condaimg/", env!("CARGO_PKG_VERSION"));
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// A server that sends nothing for so long is taken for dead.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// The longest wait that a server may ask for before the next try.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// Tries of a request that says nothing else: of channel indexes, where people wait for a wrong name to be told.
const TRIES: u32 = 3;

/// How often a request is tried; set on a request with `with_extension`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tries(pub(super) u32);

/// Credentials that users wrote into channel URLs, by the canonical URL of the channel.
#[derive(Clone, Default)]
pub struct Credentials {
    /// Canonical base URL with a trailing slash → the same as written. Longest first.
    channels: Vec<(Url, Url)>,
}

impl Credentials {
    /// Remembers a channel's URL as written, if it holds a secret; returns the canonical URL.
    pub(super) fn remember(&mut self, written: &Url) -> Url {
        let canonical = redact::canonical(written);
        if canonical != *written && !self.channels.iter().any(|(known, _)| *known == canonical) {
            self.channels.push((canonical.clone(), written.clone()));
            self.channels.sort_by_key(|(known, _)| std::cmp::Reverse(known.as_str().len()));
        }
        canonical
    }

    /// Takes every secret out of a text that came from elsewhere.
    pub(super) fn scrub(&self, text: &str) -> String {
        let mut clean = text.to_owned();
        for (canonical, written) in &self.channels {
            clean = clean.replace(written.as_str(), canonical.as_str());
            for secret in secrets(written) {
                clean = clean.replace(&secret, "***");
            }
        }
        clean
    }
}

/// The parts of a URL that nobody may see.
fn secrets(url: &Url) -> Vec<String> {
    let mut secrets: Vec<String> = url.password().into_iter().map(str::to_owned).collect();
    let segments: Vec<&str> = url.path_segments().into_iter().flatten().collect();
    secrets.extend(segments.windows(2).filter(|pair| pair[0] == "t").map(|pair| pair[1].to_owned()));
    secrets.extend(url.query().map(str::to_owned));
    // Shorter ones would tear holes into innocent words.
    secrets.retain(|secret| secret.len() >= 4);
    secrets
}

/// Shows the channels, never the secrets.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.channels.iter().map(|(canonical, _)| canonical.as_str())).finish()
    }
}

/// The client for channel indexes and archives: sends `credentials` and what rattler's store and netrc know,
/// tries again when a server or the way to it fails, and refuses every request when `offline`.
///
/// # Errors
/// When a credential file cannot be read, or TLS cannot be set up.
pub fn http_client(offline: bool, credentials: &Credentials) -> Result<ClientWithMiddleware> {
    install_tls();
    let client = basic_client()
        .build()
        // A machine without certificates can still use folders and plain http; https will say what is missing.
        .or_else(|_| basic_client().tls_certs_only([]).build())
        .map_err(|error| Error::user("the HTTP client cannot be set up").caused_by(error.without_url()))?;
    let rewrites = Arc::new(rewrites(&client, credentials)?);
    let mut builder = ClientBuilder::new(client);
    if offline {
        builder = builder.with(OfflineMiddleware);
    }
    Ok(builder
        .with(middleware(move |request, extensions, next| {
            let request = sign(request, &rewrites);
            next.run(request, extensions)
        }))
        .with(AuthenticationMiddleware::from_auth_storage(stored_credentials()?))
        .with(middleware(|request, extensions, next| Box::pin(retrying(request, extensions, next))))
        .build())
}

fn basic_client() -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .user_agent(USER_AGENT)
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(READ_TIMEOUT)
        // It would tell a token in the URL to whoever a request is redirected to.
        .referer(false)
}

/// What to do about a failed TLS handshake, if a request failed of that.
pub(super) fn certificate_hint(reason: &str) -> Option<&'static str> {
    reason.contains("certificate").then_some(
        "are the certificates of the authorities installed (package `ca-certificates`)? `SSL_CERT_FILE` names another file of them",
    )
}

/// Takes *ring* for all TLS of this process, unless something else was taken before.
fn install_tls() {
    // It fails only when there is one already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

type Answer<'a> = std::pin::Pin<Box<dyn Future<Output = reqwest_middleware::Result<Response>> + Send + 'a>>;

/// Gives a closure the one signature that makes it a middleware.
fn middleware<F>(closure: F) -> F
where
    F: for<'a> Fn(Request, &'a mut http::Extensions, Next<'a>) -> Answer<'a> + Send + Sync + 'static,
{
    closure
}

/// How requests below a channel's canonical URL become what the user wrote.
struct Rewrite {
    canonical: Url,
    /// With its token and query, without user and password.
    target: Url,
    authorization: Option<HeaderValue>,
}

fn rewrites(client: &reqwest::Client, credentials: &Credentials) -> Result<Vec<Rewrite>> {
    credentials.channels.iter().map(|(canonical, written)| rewrite(client, canonical, written)).collect()
}

fn rewrite(client: &reqwest::Client, canonical: &Url, written: &Url) -> Result<Rewrite> {
    // reqwest turns user and password of a URL into a header.
    let request = client.get(written.clone()).build().map_err(|error| {
        Error::user(format!("the channel `{canonical}` cannot be asked for")).caused_by(error.without_url())
    })?;
    let authorization = request.headers().get(AUTHORIZATION).cloned();
    Ok(Rewrite { canonical: canonical.clone(), target: request.url().clone(), authorization })
}

fn sign(mut request: Request, rewrites: &[Rewrite]) -> Request {
    let url = request.url().clone();
    let Some(rewrite) = rewrites.iter().find(|rewrite| url.as_str().starts_with(rewrite.canonical.as_str())) else {
        return request;
    };
    let rest = &url.path()[rewrite.canonical.path().len()..];
    let mut target = rewrite.target.clone();
    target.set_path(&format!("{}/{rest}", rewrite.target.path().trim_end_matches('/')));
    if url.query().is_some() {
        target.set_query(url.query());
    }
    *request.url_mut() = target;
    if let Some(authorization) = &rewrite.authorization {
        request.headers_mut().insert(AUTHORIZATION, authorization.clone());
    }
    request
}

/// `RATTLER_AUTH_FILE`, `~/.rattler/credentials.json`, netrc; in this order, as rattler and pixi have it. Unlike
/// theirs this works for a user without a home.
fn stored_credentials() -> Result<AuthenticationStorage> {
    let mut storage = AuthenticationStorage::empty();
    if let Some(path) = std::env::var_os("RATTLER_AUTH_FILE") {
        storage.add_backend(Arc::new(FileStorage::from_path(path.into()).map_err(unreadable_store)?));
    }
    match FileStorage::new() {
        Ok(file) => storage.add_backend(Arc::new(file)),
        Err(FileStorageError::IOError(error)) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(unreadable_store(error)),
    }
    // The parser's reason is not told: it may quote a password.
    let netrc = NetRcStorage::from_env()
        .map_err(|(path, _)| Error::user(format!("the netrc file `{}` cannot be read", path.display())))?;
    storage.add_backend(Arc::new(netrc));
    Ok(storage)
}

fn unreadable_store(error: FileStorageError) -> Error {
    match error {
        FileStorageError::IOError(error) => Error::user("the credential store cannot be read").caused_by(error),
        // Only the place of the mistake: the text around it may be a password.
        FileStorageError::JSONError(path, error) => {
            Error::user(format!("{}:{}: the credential store is no JSON", path.display(), error.line()))
        }
    }
}

/// Sends a request again when the way to the server, or the server, failed in a manner that may pass.
async fn retrying<'a>(
    request: Request,
    extensions: &'a mut http::Extensions,
    next: Next<'a>,
) -> reqwest_middleware::Result<Response> {
    let tries = extensions.get::<Tries>().map_or(TRIES, |tries| tries.0);
    let mut tried = 1;
    loop {
        let Some(copy) = request.try_clone() else {
            return next.run(request, extensions).await;
        };
        let answer = next.clone().run(copy, extensions).await;
        let wait = match &answer {
            _ if tried >= tries => return answer,
            Ok(response) if may_pass(response.status()) => asked_wait(response.headers()),
            Err(reqwest_middleware::Error::Reqwest(error))
                if error.is_connect() || error.is_timeout() || error.is_request() =>
            {
                None
            }
            _ => return answer,
        };
        tracing::debug!(url = %redact::url(request.url()), tried, "trying again");
        tokio::time::sleep(wait.unwrap_or_else(|| backoff(tried))).await;
        tried += 1;
    }
}

/// Answers that another try may change.
fn may_pass(status: StatusCode) -> bool {
    status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED
        || status == StatusCode::TOO_MANY_REQUESTS
        || status == StatusCode::REQUEST_TIMEOUT
}

/// `Retry-After` in seconds (RFC 9110, 10.2.3); its other form, a date, is rare and ignored.
fn asked_wait(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(LONGEST_WAIT))
}

/// The wait after the given try: 0.3, 0.6, 1.2, 2.4 s, ... up to 20 s, each with up to a quarter more, so that
/// many clients do not come back at once.
pub(super) fn backoff(tried: u32) -> Duration {
    let base =
        Duration::from_millis(300).saturating_mul(1 << tried.saturating_sub(1).min(10)).min(Duration::from_secs(20));
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    base + base * (clock.subsec_nanos() % 1_000) / 4_000
}

/// Why a request failed, in one line, without the URL, which may hold a secret.
pub(super) fn reason(error: reqwest_middleware::Error) -> String {
    let error: Box<dyn std::error::Error> = match error {
        reqwest_middleware::Error::Reqwest(error) => Box::new(error.without_url()),
        reqwest_middleware::Error::Middleware(error) => error.into(),
    };
    chain(error.as_ref())
}

/// An error and its causes in one line, without repetitions.
pub(super) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let part = error.to_string();
        if !parts.iter().any(|before| before.contains(&part)) {
            parts.push(part);
        }
        next = error.source();
    }
    parts.join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(url: &str) -> Request {
        Request::new(reqwest::Method::GET, url.parse().expect("a URL"))
    }

    #[test]
    fn credentials_enter_only_when_a_request_leaves() {
        install_tls();
        let mut credentials = Credentials::default();
        for (written, canonical) in [
            ("https://me:secret@host/private/", "https://host/private/"),
            ("https://host/t/tk-1234/other/", "https://host/other/"),
        ] {
            assert_eq!(credentials.remember(&written.parse().expect("a URL")).as_str(), canonical);
        }
        let shown = format!("{credentials:?}");
        assert!(!shown.contains("secret") && !shown.contains("tk-1234"), "{shown}");
        let scrubbed = credentials.scrub("error for https://host/t/tk-1234/other/noarch and secret");
        assert_eq!(scrubbed, "error for https://host/other/noarch and ***");

        let rewrites = rewrites(&reqwest::Client::new(), &credentials).expect("rewrites");
        let signed = sign(request("https://host/private/noarch/a-1-0.conda"), &rewrites);
        assert_eq!(signed.url().as_str(), "https://host/private/noarch/a-1-0.conda");
        assert_eq!(signed.headers()[AUTHORIZATION], "Basic bWU6c2VjcmV0");
        let signed = sign(request("https://host/other/noarch/a-1-0.conda"), &rewrites);
        assert_eq!(signed.url().as_str(), "https://host/t/tk-1234/other/noarch/a-1-0.conda");
        let unsigned = sign(request("https://host/public/noarch/a-1-0.conda"), &rewrites);
        assert_eq!(unsigned.url().as_str(), "https://host/public/noarch/a-1-0.conda");
        assert!(unsigned.headers().get(AUTHORIZATION).is_none());
    }

    #[test]
    fn waits_grow_and_end() {
        assert!(backoff(1) < Duration::from_millis(400));
        assert!(backoff(4) >= Duration::from_millis(2_400));
        assert!(backoff(40) <= Duration::from_secs(25));
    }
}
