//! Whom an upstream's certificate has to satisfy.
//!
//! The authorities of `ca_file`, or of the system. A `ca_file` may also hold the very certificate that the upstream shows: one that
//! nobody else has signed, as `openssl req -x509` makes it. webpki takes such a one for an authority, and no authority for a server;
//! everybody else (curl, Python, Node) takes it for what its owner means. So a certificate that is in the file, byte by byte, is
//! trusted for the names that are in it.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_name;
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, SignatureScheme};

/// Trusts what a file holds.
#[derive(Debug)]
pub struct Trust {
    authorities: Arc<WebPkiServerVerifier>,
    /// Each may be shown by the upstream itself.
    own: Vec<CertificateDer<'static>>,
}

impl Trust {
    /// What `authorities` have signed, and the certificates of `own`.
    pub fn new(authorities: Arc<WebPkiServerVerifier>, own: Vec<CertificateDer<'static>>) -> Self {
        Self { authorities, own }
    }
}

impl ServerCertVerifier for Trust {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self.authorities.verify_server_cert(shown, chain, name, ocsp, now) {
            Err(Error::InvalidCertificate(why)) if is_about_the_role(&why) && self.own.contains(shown) => {
                verify_server_name(&ParsedCertificate::try_from(shown)?, name)?;
                Ok(ServerCertVerified::assertion())
            }
            judged => judged,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &super::provider().signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &super::provider().signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.authorities.supported_verify_schemes()
    }
}

/// Whether a certificate was refused for nothing but being an authority's. Its age and its form were looked at before that.
fn is_about_the_role(why: &CertificateError) -> bool {
    matches!(why, CertificateError::Other(OtherError(error)) if error.to_string() == "CaUsedAsEndEntity")
}
