//! How channels' servers are reached: whom TLS trusts, our own certificate, proxies, waits.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;

use super::condarc::{Condarc, Verify, path};
use super::expand::expand;
use super::proxies::Proxies;
use crate::util::certificates::{Identity, certificates};
use crate::util::{Error, Result, ResultExt as _, self_signed};

const USER_AGENT: &str = concat!("condaimg/", env!("CARGO_PKG_VERSION"));
/// The longest wait for a connection, unless conda's configuration says otherwise.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// A server that sends nothing for so long is taken for dead.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// How servers are reached. The default is what a machine without conda's configuration does.
#[derive(Clone, Default)]
pub(super) struct Connection {
    trust: Trust,
    identity: Option<Arc<Identity>>,
    pub(super) proxies: Proxies,
    connect_timeout: Option<Duration>,
    read_timeout: Option<Duration>,
    /// How often a request that failed for a passing reason is repeated.
    pub(super) retries: Option<u32>,
    /// Whether the tokens of `anaconda login` stay out of requests.
    pub(super) without_tokens: bool,
}

/// Whom TLS trusts.
#[derive(Clone, Default)]
enum Trust {
    /// The authorities of this machine.
    #[default]
    Machine,
    /// These and no others.
    These(Vec<CertificateDer<'static>>),
    Everybody,
}

impl Connection {
    /// As conda's configuration says.
    ///
    /// # Errors
    /// When a file of certificates or a proxy that it names cannot be used.
    pub(super) fn new(condarc: &Condarc) -> Result<Self> {
        Ok(Self {
            trust: trust(condarc)?,
            identity: identity(condarc)?.map(Arc::new),
            proxies: Proxies::new(condarc)?,
            connect_timeout: condarc.connect_timeout.as_ref().map(|said| said.value),
            read_timeout: condarc.read_timeout.as_ref().map(|said| said.value),
            retries: condarc.retries.as_ref().map(|said| said.value),
            without_tokens: condarc.anaconda_token.as_ref().is_some_and(|said| !said.value),
        })
    }

    /// A client without any middleware.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub(super) fn client(&self) -> Result<reqwest::Client> {
        let failed =
            |error: reqwest::Error| Error::user("the HTTP client cannot be set up").caused_by(error.without_url());
        let builder = || -> Result<reqwest::ClientBuilder> {
            match &self.identity {
                Some(identity) => {
                    let identity = reqwest::Identity::from_pem(&identity.pem).map_err(failed)?;
                    Ok(self.plain().identity(identity))
                }
                None => Ok(self.plain()),
            }
        };
        match &self.trust {
            // A machine without certificates can still use folders and plain http; https will say what is missing.
            Trust::Machine => builder()?.build().or_else(|_| builder()?.tls_certs_only([]).build().map_err(failed)),
            Trust::These(certificates) => {
                let refuse = || Error::user("the certificates of `ssl_verify` cannot be used");
                let configuration =
                    self_signed::configuration(certificates, self.identity.as_deref()).ok_or_else(refuse)?;
                self.plain().tls_backend_preconfigured(configuration).build().map_err(failed)
            }
            Trust::Everybody => builder()?.tls_danger_accept_invalid_certs(true).build().map_err(failed),
        }
    }

    fn plain(&self) -> reqwest::ClientBuilder {
        let proxies = self.proxies.clone();
        reqwest::Client::builder()
            .user_agent(USER_AGENT)
            .connect_timeout(self.connect_timeout.unwrap_or(CONNECT_TIMEOUT))
            .read_timeout(self.read_timeout.unwrap_or(READ_TIMEOUT))
            .proxy(reqwest::Proxy::custom(move |url| proxies.of(url).map(|proxy| proxy.url)))
            // It would tell a token in the URL to whoever a request is redirected to.
            .referer(false)
    }
}

fn trust(condarc: &Condarc) -> Result<Trust> {
    let Some(said) = &condarc.verify else { return Ok(Trust::Machine) };
    let text = match &said.value {
        Verify::Machine => return Ok(Trust::Machine),
        Verify::Nothing => return Ok(Trust::Everybody),
        Verify::Authorities(text) => text,
    };
    let place = || format!("`ssl_verify` ({}) cannot be used", said.origin);
    let path = path(&expand(text).context(place)?);
    let found = if path.is_dir() { of_folder(&path) } else { certificates(&path) };
    found.map(Trust::These).context(place).map_err(|error| {
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
    let certificate = path(&expand(&said.value).context(place)?);
    let key = match &condarc.key {
        Some(key) => path(&expand(&key.value).context(place)?),
        None => certificate.clone(),
    };
    Identity::read(&certificate, &key).context(place).map(Some)
}
