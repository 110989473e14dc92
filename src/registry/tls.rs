//! The TLS provider of the process, and the HTTP clients that stand on it.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::{Certificate, Client, ClientBuilder};
use rustls::pki_types::CertificateDer;
use url::Url;

use super::certs::{ClientCertificate, Own, standard_folders};
use super::location::authority;
use super::reference::is_loopback;
use crate::util::certificates::{Identity, certificates};
use crate::util::{Error, Result, self_signed};

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
    authorities: Vec<CertificateDer<'static>>,
    /// For one host, or for all that have none of their own.
    identities: Vec<(Option<String>, Identity)>,
    /// Folders with a folder for each host that something special goes for.
    folders: Vec<PathBuf>,
    /// What these folders hold, by `HOST[:PORT]`.
    own: Mutex<HashMap<String, Arc<Own>>>,
    /// Hosts whose certificate is trusted itself, rather than an authority that signed it.
    self_signed: Mutex<BTreeSet<String>>,
    made: Mutex<HashMap<Kind, Client>>,
}

/// What makes a client differ from others.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Kind {
    /// Past any proxy.
    direct: bool,
    self_signed: bool,
    /// Not by HTTP/2.
    http1: bool,
    /// The host that it is for alone.
    host: Option<String>,
}

impl Clients {
    /// Clients that trust the machine's certificates and those of `ca_files`.
    ///
    /// # Errors
    /// When one of the files cannot be used.
    pub(super) fn new(ca_files: &[PathBuf], own: &[ClientCertificate], folders: Option<Vec<PathBuf>>) -> Result<Self> {
        install_tls_provider();
        let mut authorities = Vec::new();
        for file in ca_files {
            authorities.extend(certificates(file)?);
        }
        let read = |own: &ClientCertificate| Ok((own.host.clone(), Identity::read(&own.certificate, &own.key)?));
        Ok(Self {
            authorities,
            identities: own.iter().map(read).collect::<Result<_>>()?,
            folders: folders.unwrap_or_else(standard_folders),
            own: Mutex::default(),
            self_signed: Mutex::default(),
            made: Mutex::default(),
        })
    }

    /// The client for a URL: a proxy of the environment is not asked for this machine's own addresses. `http1`:
    /// without HTTP/2.
    ///
    /// # Errors
    /// When no client can be made, or a file of the host's folder cannot be used.
    pub(super) fn of(&self, url: &Url, http1: bool) -> Result<Client> {
        let name = url.host_str().unwrap_or_default();
        let host = authority(url);
        let own = self.own(&host)?;
        let named = self.identities.iter().any(|(other, _)| other.as_ref() == Some(&host));
        let kind = Kind {
            direct: is_loopback(name),
            http1,
            self_signed: self.self_signed.lock().unwrap_or_else(PoisonError::into_inner).contains(name),
            host: (named || !own.is_empty()).then(|| host.clone()),
        };
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = made.get(&kind) {
            return Ok(client.clone());
        }
        let client = self.make(&kind, &own, self.identity(&host, &own));
        let client = client.map_err(|error| Error::user("cannot set up an HTTP client").caused_by(error))?;
        made.insert(kind, client.clone());
        Ok(client)
    }

    /// Sets whether the host's certificate is looked for among the trusted ones themselves. False when none were
    /// named, so that it makes no difference.
    pub(super) fn expect_self_signed(&self, url: &Url, expected: bool) -> bool {
        let own = self.own(&authority(url)).unwrap_or_default();
        let possible = !self.named(&own).is_empty();
        let name = url.host_str().unwrap_or_default().to_owned();
        let mut hosts = self.self_signed.lock().unwrap_or_else(PoisonError::into_inner);
        if expected && possible {
            hosts.insert(name)
        } else {
            hosts.remove(&name)
        };
        possible
    }

    /// What the folders hold for a host; read once.
    fn own(&self, host: &str) -> Result<Arc<Own>> {
        let mut known = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = known.get(host) {
            return Ok(Arc::clone(own));
        }
        let own = Arc::new(Own::of(&self.folders, host)?);
        known.insert(host.to_owned(), Arc::clone(&own));
        Ok(own)
    }

    /// The certificate to show to a host: the one that was named for it, the one for all, the one of its folder.
    fn identity<'a>(&'a self, host: &str, own: &'a Own) -> Option<&'a Identity> {
        let named = |wanted: Option<&str>| {
            self.identities.iter().find(|(host, _)| host.as_deref() == wanted).map(|(_, identity)| identity)
        };
        named(Some(host)).or_else(|| named(None)).or(own.identity.as_ref())
    }

    fn make(&self, kind: &Kind, own: &Own, identity: Option<&Identity>) -> reqwest::Result<Client> {
        if kind.self_signed
            && let Some(configuration) = self_signed::configuration(&self.named(own), identity)
        {
            return builder(kind).tls_backend_preconfigured(configuration).build();
        }
        let extra = || {
            let extra = self.authorities.iter().chain(&own.authorities);
            extra.map(|der| Certificate::from_der(der)).collect::<reqwest::Result<Vec<_>>>()
        };
        let begin = || {
            let builder = builder(kind);
            match identity {
                Some(identity) => Ok(builder.identity(reqwest::Identity::from_pem(&identity.pem)?)),
                None => reqwest::Result::Ok(builder),
            }
        };
        // A machine without certificates can still speak plain http; https will say what is missing.
        begin()?.tls_certs_merge(extra()?).build().or_else(|_| begin()?.tls_certs_only(extra()?).build())
    }

    /// The certificates that the user named, whatever way.
    fn named(&self, own: &Own) -> Vec<CertificateDer<'static>> {
        let file = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
        let more = file.and_then(|file| certificates(&file).ok()).unwrap_or_default();
        self.authorities.iter().chain(&own.authorities).cloned().chain(more).collect()
    }
}

fn builder(kind: &Kind) -> ClientBuilder {
    let builder = Client::builder()
        .user_agent(concat!("condaimg/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_TIMEOUT)
        // Redirects are followed by hand: credentials must not go with them.
        .redirect(reqwest::redirect::Policy::none())
        .referer(false);
    let builder = if kind.http1 { builder.http1_only() } else { builder };
    if kind.direct { builder.no_proxy() } else { builder }
}
