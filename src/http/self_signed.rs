//! Servers whose certificate is its own authority.
//!
//! `openssl req -x509`, which most guides to a registry of one's own use, makes a certificate that is marked as
//! an authority (`CA:TRUE`). OpenSSL and Go accept it as a server's when it is trusted itself; webpki never does
//! (`CaUsedAsEndEntity`). This verifier accepts it when the very same certificate was named as trusted, is in
//! force, and has the server's name. Everything else it leaves to webpki.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use super::certificates::Identity;

/// Trusts exactly these certificates, as authorities and as servers.
#[derive(Debug)]
struct Verifier {
    trusted: Vec<CertificateDer<'static>>,
    webpki: Arc<WebPkiServerVerifier>,
}

/// A TLS configuration that trusts exactly these certificates, and shows ours to servers that want one; none when
/// they cannot be used.
pub(crate) fn configuration(trusted: &[CertificateDer<'static>], identity: Option<&Identity>) -> Option<ClientConfig> {
    let mut roots = RootCertStore::empty();
    if roots.add_parsable_certificates(trusted.iter().cloned()).0 == 0 {
        return None;
    }
    let webpki = WebPkiServerVerifier::builder(Arc::new(roots)).build().ok()?;
    let verifier = Verifier { trusted: trusted.to_vec(), webpki };
    let builder = ClientConfig::builder().dangerous().with_custom_certificate_verifier(Arc::new(verifier));
    match identity {
        Some(identity) => builder.with_client_auth_cert(identity.chain.clone(), identity.key.clone_key()).ok(),
        None => Some(builder.with_no_client_auth()),
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self.webpki.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            // webpki looks at the dates before it looks at the mark; the name it has not looked at yet.
            Err(error) if is_marked_as_authority(&error) && self.trusted.contains(end_entity) => {
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.webpki.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.webpki.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.webpki.supported_verify_schemes()
    }
}

/// rustls has no name of its own for webpki's error, and keeps it as it is.
fn is_marked_as_authority(error: &Error) -> bool {
    matches!(error, Error::InvalidCertificate(CertificateError::Other(other)) if other.to_string() == "CaUsedAsEndEntity")
}
