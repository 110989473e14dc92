//! How channels' servers are reached: whom TLS trusts, our own certificate, proxies, waits.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use url::Url;

use super::condarc::{Condarc, Verify, path};
use super::expand::expand_path;
use super::proxies::proxies;
use crate::http::certificates::{Identity, certificates};
use crate::http::client::{Settings, Trust};
use crate::http::guard::{self, Guards};
use crate::http::proxy::{Proxies, Proxy};
use crate::http::retry::RetryPolicy;
use crate::util::{Error, Result, ResultExt as _};

/// The longest wait for a connection, unless conda's configuration says otherwise.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// A server that sends nothing for so long is taken for dead.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// How often a request is made that says nothing else: of channel indexes, where people wait for a wrong name to be told.
const ATTEMPTS: u32 = 3;

/// How servers are reached. The default is what a machine without conda's configuration does.
#[derive(Clone)]
pub(super) struct Connection {
    settings: Settings,
    /// How often a request is made in all, if that is configured.
    pub(super) attempts: Option<u32>,
    /// Whether the tokens of `anaconda login` stay out of requests.
    pub(super) without_tokens: bool,
}

impl Default for Connection {
    fn default() -> Self {
        let settings = Settings {
            trust: Trust::default(),
            identity: None,
            proxies: Proxies::default(),
            connect_timeout: CONNECT_TIMEOUT,
            read_timeout: Some(READ_TIMEOUT),
            http1: false,
        };
        Self { settings, attempts: None, without_tokens: false }
    }
}

impl Connection {
    /// As conda's configuration says.
    ///
    /// # Errors
    /// When a file of certificates or a proxy that it names cannot be used.
    pub(super) fn new(condarc: &Condarc) -> Result<Self> {
        let usual = Self::default().settings;
        let settings = Settings {
            trust: trust(condarc)?,
            identity: identity(condarc)?.map(Arc::new),
            proxies: proxies(condarc)?,
            connect_timeout: condarc.connect_timeout.as_ref().map_or(usual.connect_timeout, |said| said.value),
            read_timeout: condarc.read_timeout.as_ref().map(|said| said.value).or(usual.read_timeout),
            ..usual
        };
        Ok(Self {
            settings,
            attempts: condarc.retries.as_ref().map(|said| said.value.saturating_add(1)),
            without_tokens: condarc.anaconda_token.as_ref().is_some_and(|said| !said.value),
        })
    }

    /// A client without any middleware.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub(super) fn client(&self) -> Result<reqwest::Client> {
        self.settings.client()
    }

    /// The clients for servers that channels name.
    pub(super) fn guards(&self) -> Guards {
        Guards::new(self.settings.clone(), guard::system)
    }

    /// The proxy that a URL is reached through.
    pub(super) fn proxy_of(&self, url: &Url) -> Option<Proxy> {
        self.settings.proxies.of(url)
    }
}

/// How requests to channels are repeated.
pub(super) const RETRIES: RetryPolicy = RetryPolicy {
    attempts: ATTEMPTS,
    base: Duration::from_millis(600),
    cap: Duration::from_secs(20),
    asked_cap: Duration::from_secs(60),
    budget: u32::MAX,
};

fn trust(condarc: &Condarc) -> Result<Trust> {
    let Some(said) = &condarc.verify else { return Ok(Trust::default()) };
    let text = match &said.value {
        Verify::Machine => return Ok(Trust::default()),
        Verify::Nothing => return Ok(Trust::Everybody),
        Verify::Authorities(text) => text,
    };
    let place = || format!("`ssl_verify` ({}) cannot be used", said.origin);
    let path = path(&expand_path(text).context(place)?);
    let found = if path.is_dir() { of_folder(&path) } else { certificates(&path) };
    found.map(Trust::Only).context(place).map_err(|error| {
        error.hint("it must be `true`, `false`, `truststore`, or a file or folder of certificates in PEM form")
    })
}

/// The certificates of a folder, as `c_rehash` and Debian's `/etc/ssl/certs` have them. Other files are passed over.
fn of_folder(folder: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let mut files = fs_err::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    files.sort();
    let mut found: Vec<CertificateDer<'static>> = Vec::new();
    for certificate in files.iter().filter(|file| file.is_file()).filter_map(|file| certificates(file).ok()).flatten() {
        if !found.contains(&certificate) {
            found.push(certificate);
        }
    }
    match found.is_empty() {
        true => Err(Error::user(format!("the folder `{}` holds no certificate in PEM form", folder.display()))),
        false => Ok(found),
    }
}

/// Our own certificate. Its key may be in the same file, as conda's HTTP library has it.
fn identity(condarc: &Condarc) -> Result<Option<Identity>> {
    let Some(said) = &condarc.certificate else { return Ok(None) };
    let place = || format!("`client_ssl_cert` ({}) cannot be used", said.origin);
    let certificate = path(&expand_path(&said.value).context(place)?);
    let key = match &condarc.key {
        Some(key) => path(&expand_path(&key.value).context(place)?),
        None => certificate.clone(),
    };
    Identity::read(&certificate, &key).context(place).map(Some)
}
