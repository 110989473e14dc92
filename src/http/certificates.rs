//! Certificates and keys in files.

use std::fmt;
use std::path::Path;

use fs_err as fs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use crate::util::{Error, Result};

/// A client certificate that was read, with its key.
pub(crate) struct Identity {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
    /// Both, as reqwest wants them.
    pub(crate) pem: Vec<u8>,
}

/// Without the key.
impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("certificates", &self.chain.len()).finish_non_exhaustive()
    }
}

impl Identity {
    /// Reads a certificate and its key.
    ///
    /// # Errors
    /// When one of the files cannot be used, or they do not belong together; never quotes them.
    pub(crate) fn read(certificate: &Path, key: &Path) -> Result<Self> {
        let chain = certificates(certificate)?;
        let bytes = fs::read(key)?;
        let private = PrivateKeyDer::from_pem_slice(&bytes).map_err(|_| {
            Error::user(format!("`{}` holds no private key in PEM form", key.display()))
                .hint("a key that is encrypted must be decrypted first: `openssl pkey -in KEY -out NEW`")
        })?;
        let provider = rustls::crypto::ring::default_provider();
        match CertifiedKey::from_der(chain.clone(), private.clone_key(), &provider) {
            Ok(_) => {}
            Err(rustls::Error::InconsistentKeys(_)) => {
                let (key, certificate) = (key.display(), certificate.display());
                return Err(Error::user(format!("the key `{key}` does not belong to the certificate `{certificate}`")));
            }
            Err(rustls::Error::InvalidCertificate(problem)) => {
                let error = format!("the certificate `{}` cannot be used: {problem}", certificate.display());
                return Err(Error::user(error).hint(
                    "it must be of version 3: `openssl x509 -req` makes one when `-extfile` names a file with extensions",
                ));
            }
            Err(_) => return Err(Error::user(format!("the key `{}` is of a kind that cannot be used", key.display()))),
        }
        let pem = [&fs::read(certificate)?, b"\n".as_slice(), &bytes].concat();
        Ok(Self { chain, key: private, pem })
    }
}

/// The certificates in a file in PEM form.
///
/// # Errors
/// When it cannot be read or holds none.
pub(crate) fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let refuse = || Error::user(format!("`{}` holds no certificate in PEM form", file.display()));
    let found: Vec<_> = CertificateDer::pem_slice_iter(&fs::read(file)?)
        .collect::<Result<_, _>>()
        .map_err(|error| refuse().caused_by(error))?;
    if found.is_empty() { Err(refuse()) } else { Ok(found) }
}
