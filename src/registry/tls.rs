//! The TLS provider of the process, and the HTTP clients that stand on it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use reqwest::{Certificate, Client, ClientBuilder};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use url::Url;

use super::reference::is_loopback;
use super::self_signed;
use crate::util::{Error, Result};

/// How long to wait for a TCP and TLS connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Makes *ring* the process's TLS provider. reqwest and rattler are built without one and panic when they are
/// used before this was called. Calling it again, or after somebody else installed a provider, does nothing.
pub fn install_tls_provider() {
    // An error means that there is a provider already: just as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// The clients, made when they are first needed: reading the machine's certificates takes a while.
#[derive(Debug)]
pub(super) struct Clients {
    extra: Vec<CertificateDer<'static>>,
    /// Hosts whose certificate is trusted itself, rather than an authority that signed it.
    self_signed: Mutex<BTreeSet<String>>,
    /// Through a proxy or direct, usual or self-signed.
    slots: [OnceLock<Client>; 4],
}

impl Clients {
    /// Clients that trust the machine's certificates and those of `ca_files`.
    ///
    /// # Errors
    /// When one of the files cannot be read or holds no certificate.
    pub(super) fn new(ca_files: &[PathBuf]) -> Result<Self> {
        install_tls_provider();
        let mut extra = Vec::new();
        for file in ca_files {
            extra.extend(certificates(file)?);
        }
        Ok(Self { extra, self_signed: Mutex::default(), slots: Default::default() })
    }

    /// The client for a URL: a proxy of the environment is not asked for this machine's own addresses.
    ///
    /// # Errors
    /// When no client can be made.
    pub(super) fn of(&self, url: &Url) -> Result<&Client> {
        let host = url.host_str().unwrap_or_default();
        let direct = is_loopback(host);
        let own = self.self_signed.lock().unwrap_or_else(PoisonError::into_inner).contains(host);
        let slot = &self.slots[usize::from(direct) + 2 * usize::from(own)];
        if let Some(client) = slot.get() {
            return Ok(client);
        }
        let client = if own { self.for_self_signed(direct) } else { self.usual(direct) };
        let client = client.map_err(|error| Error::user("cannot set up an HTTP client").caused_by(error))?;
        Ok(slot.get_or_init(|| client))
    }

    /// Sets whether the host's certificate is looked for among the trusted ones themselves. False when none were
    /// named, so that it makes no difference.
    pub(super) fn expect_self_signed(&self, url: &Url, expected: bool) -> bool {
        let host = url.host_str().unwrap_or_default().to_owned();
        let mut hosts = self.self_signed.lock().unwrap_or_else(PoisonError::into_inner);
        let possible = !self.named().is_empty();
        if expected && possible {
            hosts.insert(host)
        } else {
            hosts.remove(&host)
        };
        possible
    }

    fn usual(&self, direct: bool) -> reqwest::Result<Client> {
        let extra = || self.extra.iter().map(|der| Certificate::from_der(der)).collect::<reqwest::Result<Vec<_>>>();
        // A machine without certificates can still speak plain http; https will say what is missing.
        builder(direct).tls_certs_merge(extra()?).build().or_else(|_| builder(direct).tls_certs_only(extra()?).build())
    }

    fn for_self_signed(&self, direct: bool) -> reqwest::Result<Client> {
        match self_signed::configuration(&self.named()) {
            Some(configuration) => builder(direct).tls_backend_preconfigured(configuration).build(),
            None => self.usual(direct),
        }
    }

    /// The certificates that the user named, whatever way.
    fn named(&self) -> Vec<CertificateDer<'static>> {
        let file = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
        let more = file.and_then(|file| certificates(&file).ok()).unwrap_or_default();
        self.extra.iter().cloned().chain(more).collect()
    }
}

fn builder(direct: bool) -> ClientBuilder {
    let builder = Client::builder()
        .user_agent(concat!("condaimg/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_TIMEOUT)
        // Redirects are followed by hand: credentials must not go with them.
        .redirect(reqwest::redirect::Policy::none())
        .referer(false);
    if direct { builder.no_proxy() } else { builder }
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let refuse = || Error::user(format!("`{}` holds no certificate in PEM form", file.display()));
    let found: Vec<_> = CertificateDer::pem_slice_iter(&fs_err::read(file)?)
        .collect::<Result<_, _>>()
        .map_err(|error| refuse().caused_by(error))?;
    if found.is_empty() { Err(refuse()) } else { Ok(found) }
}
