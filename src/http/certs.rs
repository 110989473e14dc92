//! Certificates: authorities to trust and our own, from flags and from the folders that docker and podman use
//! (`containers-certs.d(5)`).

use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;

use fs_err as fs;
use rustls::pki_types::CertificateDer;

use super::certificates::{Identity, certificates};
use crate::util::{Error, Result};

/// A certificate to show to servers that want one ("mutual TLS"), and its key. Servers that do not ask never see
/// it, and the key is never sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// `HOST` or `HOST:PORT`; all servers when there is none.
    pub host: Option<String>,
    /// In PEM form; certificates of authorities between it and the server's may follow it.
    pub certificate: PathBuf,
    /// In PEM form, not encrypted.
    pub key: PathBuf,
}

/// What a folder `certs.d/HOST[:PORT]` holds.
#[derive(Debug, Default)]
pub(crate) struct Own {
    /// `*.crt`: authorities to trust for this host, beside all others.
    pub(crate) authorities: Vec<CertificateDer<'static>>,
    /// `*.cert` and `*.key`: the first by name.
    pub(crate) identity: Option<Arc<Identity>>,
}

impl Own {
    /// Reads the first of the folders that has something for the host, as docker and podman do.
    ///
    /// # Errors
    /// When a file there cannot be used, or a certificate or key is without the other.
    pub(crate) fn of(folders: &[PathBuf], host: &str) -> Result<Self> {
        // Such a host would lead out of the folder.
        if host.starts_with('.') {
            return Ok(Self::default());
        }
        for folder in folders.iter().map(|folder| folder.join(host)) {
            match fs::read_dir(&folder) {
                Ok(entries) => {
                    let mut files = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
                    files.sort();
                    return Self::read(&files);
                }
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {}
                // Other people's, most often.
                Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                    tracing::debug!(folder = %folder.display(), "may not be read");
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Self::default())
    }

    fn read(files: &[PathBuf]) -> Result<Self> {
        let mut own = Self::default();
        for file in files {
            let partner = |extension| {
                let partner = file.with_extension(extension);
                let missing = || Error::user(format!("`{}` is without `{}`", file.display(), partner.display()));
                if files.contains(&partner) { Ok(partner.clone()) } else { Err(missing()) }
            };
            match file.extension().and_then(|extension| extension.to_str()) {
                Some("crt") => own.authorities.extend(certificates(file)?),
                Some("cert") => {
                    let key = partner("key").map_err(|error| error.hint("authorities have the ending `.crt`"))?;
                    let identity = Arc::new(Identity::read(file, &key)?);
                    own.identity.get_or_insert(identity);
                }
                Some("key") => drop(partner("cert")?),
                _ => {}
            }
        }
        Ok(own)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.authorities.is_empty() && self.identity.is_none()
    }
}

/// The folders in the order of `containers-certs.d(5)`, then docker's: users' before the machine's.
pub(crate) fn standard_folders() -> Vec<PathBuf> {
    let set = std::env::var_os("XDG_CONFIG_HOME").filter(|value| !value.is_empty()).map(PathBuf::from);
    let configuration = set.or_else(|| Some(std::env::home_dir()?.join(".config")));
    let users = ["containers/certs.d", "docker/certs.d"]
        .into_iter()
        .filter_map(|folder| configuration.as_ref().map(|configuration| configuration.join(folder)));
    users.chain(["/etc/containers/certs.d", "/etc/docker/certs.d"].map(PathBuf::from)).collect()
}
