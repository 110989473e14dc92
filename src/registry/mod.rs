//! Registries: references, logging in, manifests and blobs (OCI distribution-spec 1.1).
//!
//! One client for all registries, cheap to clone and safe to use from many tasks. It streams: no blob is held
//! in memory. Requests that fail for a passing reason are repeated ([`RetryPolicy`]); errors name the registry,
//! the repository, the blob or tag and what the registry said, and never hold a secret.
//!
//! `oci-client` gives the [`Reference`] type. Its transport is not used: it drops the reasons of failed logins,
//! never repeats a request, does not ask before it uploads and panics when a manifest is pushed by digest to a
//! registry that does not answer with a `Location`.

mod amend;
mod answers;
mod auth;
mod auth_file;
mod blobs;
mod capabilities;
mod challenge;
mod chunks;
mod credentials;
mod gone;
mod helper;
mod host;
mod logins;
mod manifest_writes;
mod manifests;
mod meeting;
mod reader;
mod reference;
mod referrers;
mod refusals;
mod session;
mod source;
mod token;
mod transport;
mod upload;

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

pub use capabilities::{DEFAULT_REPOSITORY, Examination, Finding, State};
pub use gone::Gone;
pub use logins::{CredentialFile, Logins, credential_files};
pub use manifests::FetchedManifest;
pub use reference::Reference;
pub use session::uploads_cancelled;

pub use crate::http::certs::ClientCertificate;
pub use crate::http::client::install_tls_provider;
pub use crate::http::retry::RetryPolicy;
pub use crate::http::wire::Patience;

use crate::http::clients::Clients;
use crate::http::retry::Retrier;
use crate::http::warning::Warnings;
use crate::http::wire::Wire;
use crate::util::Result;
use crate::util::report::SharedReporter;
use auth::Authenticator;
use chunks::Chunking;
use credentials::Credentials;
use referrers::Turns;
use transport::Transport;

/// How registries are spoken to. The default is what the environment and the user's files say.
#[derive(Clone, Default)]
pub struct RegistryOptions {
    /// Hosts (`HOST` or `HOST:PORT`) that may be spoken to over plain http. This machine's own (`localhost`,
    /// 127.0.0.0/8, `[::1]`) always may. Https is used with them when they want it.
    pub insecure: Vec<String>,
    /// Files in PEM form with certificate authorities to trust beside the machine's (which are those of
    /// `SSL_CERT_FILE` and `SSL_CERT_DIR` when set).
    pub ca_files: Vec<PathBuf>,
    /// Certificates to show to servers that want one. Beside them, for each registry, what docker's and podman's
    /// folders `certs.d/HOST[:PORT]` hold (`*.cert` and `*.key`; authorities in `*.crt`).
    pub client_certificates: Vec<ClientCertificate>,
    /// Folders to read instead of those folders `certs.d`.
    pub certificate_folders: Option<Vec<PathBuf>>,
    /// User and password; by default `CONDAIMG_REGISTRY_USERNAME` and `CONDAIMG_REGISTRY_PASSWORD`.
    pub login: Option<(String, String)>,
    /// The registries (as in references: `HOST[:PORT]`) that the user and password are for. A registry that is
    /// pushed to belongs to them from the first push on. No other is sent the password: a base image may come
    /// from somebody else's registry.
    pub login_hosts: Vec<String>,
    /// Credential files to read instead of those that docker and podman use.
    pub auth_files: Option<Vec<PathBuf>>,
    /// How often requests are repeated.
    pub retry: RetryPolicy,
    /// How long requests may stand still.
    pub patience: Patience,
    /// Blobs that are larger go in chunks of so many bytes, for registries behind a proxy that limits the size of a
    /// request and does not say so. By default a blob goes in one piece, which is faster and which all registries
    /// take, and in chunks only where the registry answers that it is too large.
    pub chunk_size: Option<u64>,
    /// Is told of warnings that registries send with their answers, each once.
    pub reporter: Option<SharedReporter>,
}

/// Without the password.
impl std::fmt::Debug for RegistryOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RegistryOptions")
            .field("insecure", &self.insecure)
            .field("ca_files", &self.ca_files)
            .field("client_certificates", &self.client_certificates)
            .field("certificate_folders", &self.certificate_folders)
            .field("login", &self.login.as_ref().map(|(username, _)| username))
            .field("login_hosts", &self.login_hosts)
            .field("auth_files", &self.auth_files)
            .field("retry", &self.retry)
            .field("patience", &self.patience)
            .field("chunk_size", &self.chunk_size)
            .finish()
    }
}

/// Whether a blob or manifest had to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// It was sent; its size in bytes.
    Uploaded(u64),
    /// The registry had it in another repository, and put it into this one.
    Mounted,
    /// The registry had it.
    Existed,
}

/// The client for all registries.
#[derive(Debug, Clone)]
pub struct Registry {
    inner: Arc<Inner>,
    retrier: Arc<Retrier>,
}

#[derive(Debug)]
struct Inner {
    transport: Transport,
    chunking: Chunking,
    /// Repositories (registry, name) from which the registry lets us mount nothing.
    unmountable: Mutex<HashSet<(String, String)>>,
    turns: Turns,
}

impl Registry {
    /// A client; nothing is asked of any registry yet.
    ///
    /// # Errors
    /// When a file with a certificate or a key cannot be used.
    pub fn new(options: RegistryOptions) -> Result<Self> {
        let credentials = Credentials::new(options.login, &options.login_hosts, options.auth_files);
        if let (Some(problem), Some(reporter)) = (credentials.half_a_pair(), &options.reporter) {
            reporter.warn(problem);
        }
        let clients = Clients::new(&options.ca_files, &options.client_certificates, options.certificate_folders)?;
        let wire = Wire::new(clients, options.patience, &answers::HINTS, Warnings::new(options.reporter))
            .with_consent(options.insecure.clone());
        let transport = Transport::new(wire, Authenticator::new(credentials), options.insecure);
        let inner = Inner {
            transport,
            chunking: Chunking::new(options.chunk_size),
            unmountable: Mutex::default(),
            turns: Turns::default(),
        };
        Ok(Self { inner: Arc::new(inner), retrier: Arc::new(Retrier::new(options.retry)) })
    }

    /// The same client with a retry budget of its own, and so many attempts at most: for what must not use up the
    /// patience that others need.
    #[must_use]
    pub fn apart(&self, attempts: u32) -> Self {
        Self { inner: Arc::clone(&self.inner), retrier: Arc::new(self.retrier.anew(attempts)) }
    }

    /// Parses and normalises a reference: `debian:12-slim` is `docker.io/library/debian:12-slim`; without a tag
    /// and digest, the tag is `latest`.
    ///
    /// # Errors
    /// A usage error that names the text when it is no reference, or has a digest other than sha256.
    pub fn parse(text: &str) -> Result<Reference> {
        reference::parse(text)
    }

    /// Parses a reference that is to be written to.
    ///
    /// # Errors
    /// As [`Self::parse`]; and when the text names no registry, and no account at the one that is meant then.
    pub fn parse_target(text: &str) -> Result<Reference> {
        reference::parse_target(text)
    }

    fn transport(&self) -> &Transport {
        &self.inner.transport
    }

    fn policy(&self) -> &Retrier {
        &self.retrier
    }

    fn chunking(&self) -> &Chunking {
        &self.inner.chunking
    }
}
