//! One HTTP client: whom it trusts, its own certificate, proxies, how long it waits.
//!
//! All requests of condaimg leave through a client that is made here. Those to hosts that others named leave through a
//! guarded one ([`super::guard`]), which judges the address that a connection goes to.

use std::sync::Arc;
use std::time::Duration;

use reqwest::{Certificate, Client, ClientBuilder};
use rustls::pki_types::CertificateDer;

use super::certificates::Identity;
use super::guard::Guard;
use super::proxy::Proxies;
use super::self_signed;
use crate::util::{Error, Result};

const USER_AGENT: &str = concat!("condaimg/", env!("CARGO_PKG_VERSION"));

/// Makes *ring* the process's TLS provider. reqwest and rattler are built without one and panic when they are
/// used before this was called. Calling it again, or after somebody else installed a provider, does nothing.
pub fn install_tls_provider() {
    // An error means that there is a provider already: just as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// Whom TLS trusts.
#[derive(Debug, Clone)]
pub(crate) enum Trust {
    /// The authorities of this machine, and these.
    Machine(Vec<CertificateDer<'static>>),
    /// These and no others; each also as a server's own certificate.
    Only(Vec<CertificateDer<'static>>),
    /// Everybody.
    Everybody,
}

impl Default for Trust {
    fn default() -> Self {
        Self::Machine(Vec::new())
    }
}

/// How a client reaches servers.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) trust: Trust,
    /// The certificate to show to servers that want one.
    pub(crate) identity: Option<Arc<Identity>>,
    pub(crate) proxies: Proxies,
    /// The longest wait for a TCP and TLS connection.
    pub(crate) connect_timeout: Duration,
    /// The longest wait for each piece of an answer; none where the caller watches that.
    pub(crate) read_timeout: Option<Duration>,
    /// Not by HTTP/2.
    pub(crate) http1: bool,
}

impl Settings {
    /// A client. It follows no redirect: that is done by [`super::location`], since credentials must not go along.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub(crate) fn client(&self) -> Result<Client> {
        self.build(Client::builder)
    }

    /// A client whose resolver gives only addresses that the guard lets through.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub(crate) fn guarded(&self, guard: Guard) -> Result<Client> {
        let guard = Arc::new(guard);
        self.build(|| Client::builder().dns_resolver(Arc::clone(&guard)))
    }

    fn build(&self, start: impl Fn() -> ClientBuilder) -> Result<Client> {
        install_tls_provider();
        let failed = |error: reqwest::Error| Error::user("cannot set up an HTTP client").caused_by(error.without_url());
        match &self.trust {
            // A machine without certificates can still speak plain http; https will say what is missing.
            Trust::Machine(more) => {
                let more = || more.iter().map(|der| Certificate::from_der(der)).collect::<reqwest::Result<Vec<_>>>();
                let merged = || self.with_identity(start())?.tls_certs_merge(more()?).build();
                merged().or_else(|_| self.with_identity(start())?.tls_certs_only(more()?).build()).map_err(failed)
            }
            Trust::Only(certificates) => {
                let refuse = || Error::user("the trusted certificates cannot be used");
                let configuration =
                    self_signed::configuration(certificates, self.identity.as_deref()).ok_or_else(refuse)?;
                self.begin(start()).tls_backend_preconfigured(configuration).build().map_err(failed)
            }
            Trust::Everybody => {
                let client = || self.with_identity(start())?.tls_danger_accept_invalid_certs(true).build();
                client().map_err(failed)
            }
        }
    }

    fn with_identity(&self, builder: ClientBuilder) -> reqwest::Result<ClientBuilder> {
        match &self.identity {
            Some(identity) => Ok(self.begin(builder).identity(reqwest::Identity::from_pem(&identity.pem)?)),
            None => Ok(self.begin(builder)),
        }
    }

    fn begin(&self, builder: ClientBuilder) -> ClientBuilder {
        let proxies = self.proxies.clone();
        let builder = builder
            .user_agent(USER_AGENT)
            .connect_timeout(self.connect_timeout)
            .proxy(reqwest::Proxy::custom(move |url| proxies.of(url).map(|proxy| proxy.url)))
            .redirect(reqwest::redirect::Policy::none())
            // It would tell a token in the URL to whoever a request is redirected to.
            .referer(false);
        let builder = if self.http1 { builder.http1_only() } else { builder };
        match self.read_timeout {
            Some(limit) => builder.read_timeout(limit),
            None => builder,
        }
    }
}
