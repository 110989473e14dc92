//! The HTTP client for channels: credentials, retries, offline mode.
//!
//! Channels are known by their canonical URL everywhere (locks, messages, images). What a user wrote into a
//! channel's URL as user, password or token enters here only, when a request leaves.

use std::fmt;
use std::sync::Arc;

use rattler_networking::authentication_storage::backends::file::{FileStorage, FileStorageError};
use rattler_networking::authentication_storage::backends::netrc::NetRcStorage;
use rattler_networking::{AuthenticationMiddleware, AuthenticationStorage, MirrorMiddleware, OfflineMiddleware};
use reqwest::header::{AUTHORIZATION, HeaderValue};
use reqwest::{Request, Response};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware, Next};
use url::Url;

use super::condarc::Condarc;
use super::connection::{Connection, RETRIES};
use super::index::answers::{Absent, check};
use super::index::patience::Patience;
use super::mirrors::{Mirrors, folder};
use super::names::Names;
use super::tokens::Tokens;
use crate::http::middleware::{redirecting, retrying, traced, watching};
use crate::util::{Error, Result, redact};

/// What goes with requests to channels: credentials that users wrote into their URLs, mirrors, and how servers are
/// reached. Without any, what rattler's store, netrc and `anaconda login` know still goes along.
#[derive(Clone, Default)]
pub struct Credentials {
    /// Canonical base URL with a trailing slash → the same as written. Longest first.
    channels: Vec<(Url, Url)>,
    mirrors: Mirrors,
    connection: Connection,
    /// Servers of Python packages: credentials of an index go to all of its server, as pip and uv have it.
    servers: Vec<Url>,
    /// Canonical URL of a single file → the same as written, where that has a query.
    files: Vec<(Url, Url)>,
}

impl Credentials {
    /// What the URLs of indexes and direct references hold, as written.
    #[must_use]
    pub fn with_pip(mut self, urls: impl IntoIterator<Item = Url>) -> Self {
        for url in urls {
            if url.query().is_some() {
                self.files.push((redact::canonical(&url), url.clone()));
            }
            if !url.username().is_empty() || url.password().is_some() {
                self.servers.push(url);
            }
        }
        self
    }

    /// A text of another program without the secrets that were written into URLs.
    pub fn clean(&self, text: &str) -> String {
        let servers = self.servers.iter().flat_map(|url| {
            // The user of ssh is no secret, and may be a part of the host's name.
            let user = if redact::is_ssh(url.scheme()) { "" } else { url.username() };
            [user, url.password().unwrap_or_default()]
        });
        let queries = self.files.iter().filter_map(|(_, written)| written.query());
        let mut clean = self.scrub(text);
        for secret in servers.chain(queries).filter(|secret| secret.len() >= 4 && *secret != "git") {
            clean = clean.replace(secret, "***");
        }
        clean
    }

    /// Remembers a channel's URL as written, if it holds a secret; returns the canonical URL.
    pub(super) fn remember(&mut self, written: &Url) -> Url {
        let canonical = redact::canonical(written);
        if canonical != *written && !self.channels.iter().any(|(known, _)| *known == canonical) {
            self.channels.push((canonical.clone(), written.clone()));
            self.channels.sort_by_key(|(known, _)| std::cmp::Reverse(known.as_str().len()));
        }
        canonical
    }

    /// Adds what conda's configuration says: credentials in its URLs, mirrors, certificates, proxies, waits.
    ///
    /// # Errors
    /// When something of it cannot be used.
    pub(super) fn configure(&mut self, condarc: &Condarc, names: &Names<'_>) -> Result<()> {
        for url in names.written_urls()? {
            self.remember(&folder(&url));
        }
        self.mirrors = Mirrors::new(condarc, names, self)?;
        self.connection = Connection::new(condarc)?;
        Ok(())
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
        // Tokens of stores are put into URLs, too.
        redact::within(&clean)
    }

    /// Who is asked for a URL in the place of its own server, and through whom; nothing when it is that server alone.
    pub(super) fn way(&self, url: &Url) -> Option<String> {
        let mirrors = self.mirrors.of(url).unwrap_or_default();
        let proxy = self.connection.proxy_of(mirrors.first().unwrap_or(url)).map(|proxy| proxy.to_string());
        let listed: Vec<String> = mirrors.iter().map(|mirror| format!("`{mirror}`")).collect();
        let mirror = match listed.as_slice() {
            [] => None,
            [one] => Some(format!("its mirror {one}")),
            many => Some(format!("its mirrors {}", many.join(", "))),
        };
        match (mirror, proxy) {
            (Some(mirror), Some(proxy)) => Some(format!("{mirror} and {proxy}")),
            (mirror, proxy) => mirror.or(proxy),
        }
    }

    /// The servers that tokens of `anaconda login` are sent to.
    ///
    /// # Errors
    /// When one of its files cannot be read.
    pub(crate) fn token_servers(&self) -> Result<Vec<Url>> {
        let tokens = if self.connection.without_tokens { Tokens::default() } else { Tokens::read()? };
        Ok(tokens.servers().cloned().collect())
    }

    /// Mirrors by the channels that they are for.
    pub(crate) fn mirrors(&self) -> Vec<(&Url, &[Url])> {
        self.mirrors.all()
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

/// The client for channel indexes and archives: asks mirrors, sends `credentials` and what rattler's store, netrc and
/// `anaconda login` know, tries again when a server or the way to it fails, and refuses every request when `offline`.
///
/// # Errors
/// When a credential file cannot be read, or TLS cannot be set up.
pub fn http_client(offline: bool, credentials: &Credentials) -> Result<ClientWithMiddleware> {
    client(offline, credentials, None)
}

/// The same for indexes: answers that look like an index and are none count as "not there". What that hides is noted
/// in `absent`.
///
/// # Errors
/// As [`http_client`].
pub(super) fn index_client(offline: bool, credentials: &Credentials, absent: Absent) -> Result<ClientWithMiddleware> {
    client(offline, credentials, Some((absent, Patience::default())))
}

fn client(offline: bool, credentials: &Credentials, index: Option<(Absent, Patience)>) -> Result<ClientWithMiddleware> {
    let client = credentials.connection.client()?;
    let guards = credentials.connection.guards();
    let signer = Arc::new(Signer::new(&client, credentials)?);
    let way = credentials.clone();
    let attempts = credentials.connection.attempts;
    let mut builder = ClientBuilder::new(client);
    if offline {
        builder = builder.with(OfflineMiddleware);
    }
    let (absent, patience) = index.unzip();
    if let Some(absent) = absent {
        builder = builder.with(middleware(move |request, extensions, next| {
            Box::pin(check(request, extensions, next, absent.clone()))
        }));
    }
    builder = builder
        .with(middleware(move |request, extensions, next| {
            let way = way.way(request.url());
            Box::pin(async move { next.run(request, extensions).await.map_err(|error| by_way(error, way)) })
        }))
        .with(middleware(move |request, extensions, next| {
            Box::pin(retrying(request, extensions, next, RETRIES, attempts))
        }));
    if let Some(mirrors) = credentials.mirrors.for_rattler() {
        builder = builder.with(MirrorMiddleware::from_map(mirrors));
    }
    builder = match patience {
        Some(patience) => builder.with(middleware(move |request, extensions, next| {
            Box::pin(patience.clone().watch(request, extensions, next))
        })),
        None => builder.with(middleware(|request, extensions, next| Box::pin(watching(request, extensions, next)))),
    };
    Ok(builder
        .with(middleware(move |request, extensions, next| {
            let request = signer.sign(request);
            next.run(request, extensions)
        }))
        .with(AuthenticationMiddleware::from_auth_storage(stores(true)?))
        .with(middleware(move |request, extensions, next| {
            let guards = guards.clone();
            Box::pin(async move { redirecting(request, extensions, next, &guards).await })
        }))
        .with(middleware(|request, extensions, next| Box::pin(traced(request, extensions, next))))
        .build())
}

/// A server that was not reached by way of others, which the error names.
#[derive(Debug)]
pub(super) struct Unreached {
    way: String,
    cause: reqwest::Error,
}

impl fmt::Display for Unreached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "asked by way of {}", self.way)
    }
}

impl std::error::Error for Unreached {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.cause)
    }
}

fn by_way(error: reqwest_middleware::Error, way: Option<String>) -> reqwest_middleware::Error {
    match (error, way) {
        (reqwest_middleware::Error::Reqwest(cause), Some(way)) => {
            reqwest_middleware::Error::middleware(Unreached { way, cause: cause.without_url() })
        }
        (error, _) => error,
    }
}

/// What to do about a failed TLS handshake or a proxy that refuses, if a request failed of that.
pub(super) fn certificate_hint(reason: &str) -> Option<&'static str> {
    if reason.contains("proxy authorization required") {
        return Some(
            "write user and password into the proxy's URL (`http://USER:PASSWORD@HOST:PORT`), special characters as `%` codes",
        );
    }
    reason.contains("certificate").then_some(
        "are the certificates of the authorities installed (package `ca-certificates`)? `SSL_CERT_FILE`, or `ssl_verify` of a condarc, names another file of them",
    )
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

/// Puts credentials into requests when they leave.
struct Signer {
    rewrites: Vec<Rewrite>,
    /// By the server's URL without a path.
    servers: Vec<(url::Origin, HeaderValue)>,
    files: Vec<(Url, Url)>,
    tokens: Tokens,
    /// Their credentials go before `tokens`.
    stores: AuthenticationStorage,
}

impl Signer {
    fn new(client: &reqwest::Client, credentials: &Credentials) -> Result<Self> {
        let rewrites = credentials.channels.iter().map(|(canonical, written)| rewrite(client, canonical, written));
        Ok(Self {
            rewrites: rewrites.collect::<Result<_>>()?,
            files: credentials.files.clone(),
            servers: credentials.servers.iter().filter_map(|url| server(client, url)).collect(),
            tokens: if credentials.connection.without_tokens { Tokens::default() } else { Tokens::read()? },
            stores: stores(false)?,
        })
    }

    fn sign(&self, request: Request) -> Request {
        let mut request = sign(request, &self.rewrites);
        if let Some((_, written)) = self.files.iter().find(|(canonical, _)| canonical == request.url()) {
            request.url_mut().set_query(written.query());
        }
        if request.headers().get(AUTHORIZATION).is_none()
            && let Some((_, value)) = self.servers.iter().find(|(origin, _)| *origin == request.url().origin())
        {
            request.headers_mut().insert(AUTHORIZATION, value.clone());
        }
        let known = |url: &Url| self.stores.get_by_url_with_host(url.clone()).is_ok_and(|(_, found)| found.is_some());
        if request.headers().get(AUTHORIZATION).is_none()
            && let Some(url) = self.tokens.put_into(request.url()).filter(|_| !known(request.url()))
        {
            *request.url_mut() = url;
        }
        request
    }
}

fn rewrite(client: &reqwest::Client, canonical: &Url, written: &Url) -> Result<Rewrite> {
    // reqwest turns user and password of a URL into a header.
    let request = client.get(written.clone()).build().map_err(|error| {
        Error::user(format!("the channel `{canonical}` cannot be asked for")).caused_by(error.without_url())
    })?;
    let authorization = request.headers().get(AUTHORIZATION).cloned();
    Ok(Rewrite { canonical: canonical.clone(), target: request.url().clone(), authorization })
}

fn server(client: &reqwest::Client, url: &Url) -> Option<(url::Origin, HeaderValue)> {
    let request = client.get(url.clone()).build().ok()?;
    Some((url.origin(), request.headers().get(AUTHORIZATION)?.clone()))
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

/// `RATTLER_AUTH_FILE`, `~/.rattler/credentials.json`, netrc if it is wanted; in this order, as rattler and pixi have
/// it. Unlike theirs this works for a user without a home.
fn stores(with_netrc: bool) -> Result<AuthenticationStorage> {
    let mut storage = AuthenticationStorage::empty();
    if let Some(path) = std::env::var_os("RATTLER_AUTH_FILE") {
        storage.add_backend(Arc::new(FileStorage::from_path(path.into()).map_err(unreadable_store)?));
    }
    match FileStorage::new() {
        Ok(file) => storage.add_backend(Arc::new(file)),
        Err(FileStorageError::IOError(error)) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(unreadable_store(error)),
    }
    if !with_netrc {
        return Ok(storage);
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
        crate::http::client::install_tls_provider();
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

        let client = reqwest::Client::new();
        let rewrites = credentials.channels.iter().map(|(canonical, written)| rewrite(&client, canonical, written));
        let rewrites = rewrites.collect::<Result<Vec<_>>>().expect("rewrites");
        let signed = sign(request("https://host/private/noarch/a-1-0.conda"), &rewrites);
        assert_eq!(signed.url().as_str(), "https://host/private/noarch/a-1-0.conda");
        assert_eq!(signed.headers()[AUTHORIZATION], "Basic bWU6c2VjcmV0");
        let signed = sign(request("https://host/other/noarch/a-1-0.conda"), &rewrites);
        assert_eq!(signed.url().as_str(), "https://host/t/tk-1234/other/noarch/a-1-0.conda");
        let unsigned = sign(request("https://host/public/noarch/a-1-0.conda"), &rewrites);
        assert_eq!(unsigned.url().as_str(), "https://host/public/noarch/a-1-0.conda");
        assert!(unsigned.headers().get(AUTHORIZATION).is_none());
    }
}
