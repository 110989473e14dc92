//! The clients of many hosts: one for each way to reach them.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::Client;
use rustls::pki_types::CertificateDer;
use url::Url;

use super::certificates::{Identity, certificates};
use super::certs::{ClientCertificate, Own, standard_folders};
use super::client::{Settings, Trust};
use super::guard::{self, Guard};
use super::location::authority;
use super::proxy::Proxies;
use super::reach::Reach;
use crate::util::Result;

/// How long to wait for a TCP and TLS connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The clients, made when they are first needed: reading the machine's certificates takes a while.
#[derive(Debug)]
pub(crate) struct Clients {
    authorities: Vec<CertificateDer<'static>>,
    /// For one host, or for all that have none of their own.
    identities: Vec<(Option<String>, Arc<Identity>)>,
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
    self_signed: bool,
    /// Not by HTTP/2.
    http1: bool,
    /// The host that it is for alone.
    host: Option<String>,
    /// Where the server lies that named the host, if not the user did.
    led_from: Option<Reach>,
}

impl Clients {
    /// Clients that trust the machine's certificates and those of `ca_files`.
    ///
    /// # Errors
    /// When one of the files cannot be used.
    pub(crate) fn new(ca_files: &[PathBuf], own: &[ClientCertificate], folders: Option<Vec<PathBuf>>) -> Result<Self> {
        let mut authorities = Vec::new();
        for file in ca_files {
            authorities.extend(certificates(file)?);
        }
        let read =
            |own: &ClientCertificate| Ok((own.host.clone(), Arc::new(Identity::read(&own.certificate, &own.key)?)));
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
    /// without HTTP/2. `led_from`: where the server lies that named the host, if not the user did ([`super::guard`]).
    ///
    /// # Errors
    /// When no client can be made, or a file of the host's folder cannot be used.
    pub(crate) fn of(&self, url: &Url, http1: bool, led_from: Option<Reach>) -> Result<Client> {
        let name = url.host_str().unwrap_or_default();
        let host = authority(url);
        let own = self.own(&host)?;
        let named = self.identities.iter().any(|(other, _)| other.as_ref() == Some(&host));
        let kind = Kind {
            http1,
            self_signed: self.self_signed.lock().unwrap_or_else(PoisonError::into_inner).contains(name),
            host: (named || !own.is_empty()).then(|| host.clone()),
            led_from: led_from.filter(|_| Proxies::default().of(url).is_none()),
        };
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = made.get(&kind) {
            return Ok(client.clone());
        }
        let client = self.make(&kind, &own, self.identity(&host, &own))?;
        made.insert(kind, client.clone());
        Ok(client)
    }

    /// Sets whether the host's certificate is looked for among the trusted ones themselves. False when none were
    /// named, so that it makes no difference.
    pub(crate) fn expect_self_signed(&self, url: &Url, expected: bool) -> bool {
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
    fn identity<'a>(&'a self, host: &str, own: &'a Own) -> Option<&'a Arc<Identity>> {
        let named = |wanted: Option<&str>| {
            self.identities.iter().find(|(host, _)| host.as_deref() == wanted).map(|(_, identity)| identity)
        };
        named(Some(host)).or_else(|| named(None)).or(own.identity.as_ref())
    }

    fn make(&self, kind: &Kind, own: &Own, identity: Option<&Arc<Identity>>) -> Result<Client> {
        let trust = match kind.self_signed {
            true => Trust::Only(self.named(own)),
            false => Trust::Machine(self.authorities.iter().chain(&own.authorities).cloned().collect()),
        };
        let settings = Settings {
            trust,
            identity: identity.cloned(),
            proxies: Proxies::default(),
            connect_timeout: CONNECT_TIMEOUT,
            read_timeout: None,
            http1: kind.http1,
        };
        match kind.led_from {
            Some(from) => settings.guarded(Guard { from, lookup: guard::system }),
            None => settings.client(),
        }
    }

    /// The certificates that the user named, whatever way.
    fn named(&self, own: &Own) -> Vec<CertificateDer<'static>> {
        let file = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
        let more = file.and_then(|file| certificates(&file).ok()).unwrap_or_default();
        self.authorities.iter().chain(&own.authorities).cloned().chain(more).collect()
    }
}
