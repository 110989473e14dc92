//! The TLS provider of the process, and the HTTP clients that stand on it.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use reqwest::{Certificate, Client, ClientBuilder};
use url::Url;

use super::reference::is_loopback;
use crate::util::{Error, Result};

/// How long to wait for a TCP and TLS connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Makes *ring* the process's TLS provider. reqwest and rattler are built without one and panic when they are
/// used before this was called. Calling it again, or after somebody else installed a provider, does nothing.
pub fn install_tls_provider() {
    // An error means that there is a provider already: just as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// Two clients, made when they are first needed: reading the machine's certificates takes a while.
#[derive(Debug)]
pub(super) struct Clients {
    extra: Vec<Certificate>,
    direct: OnceLock<Client>,
    proxied: OnceLock<Client>,
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
        Ok(Self { extra, direct: OnceLock::new(), proxied: OnceLock::new() })
    }

    /// The client for a URL: a proxy of the environment is not asked for this machine's own addresses.
    ///
    /// # Errors
    /// When no client can be made.
    pub(super) fn of(&self, url: &Url) -> Result<&Client> {
        let direct = url.host_str().is_some_and(is_loopback);
        let slot = if direct { &self.direct } else { &self.proxied };
        if let Some(client) = slot.get() {
            return Ok(client);
        }
        let client = self.make(direct)?;
        Ok(slot.get_or_init(|| client))
    }

    fn make(&self, direct: bool) -> Result<Client> {
        builder(direct)
            .tls_certs_merge(self.extra.iter().cloned())
            .build()
            // A machine without certificates can still speak plain http; https will say what is missing.
            .or_else(|_| builder(direct).tls_certs_only(self.extra.iter().cloned()).build())
            .map_err(|error| Error::user("cannot set up an HTTP client").caused_by(error))
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

fn certificates(file: &Path) -> Result<Vec<Certificate>> {
    let refuse = || Error::user(format!("`{}` holds no certificate in PEM form", file.display()));
    let found = Certificate::from_pem_bundle(&fs_err::read(file)?).map_err(|error| refuse().caused_by(error))?;
    if found.is_empty() { Err(refuse()) } else { Ok(found) }
}
