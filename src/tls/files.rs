//! What stands in the files: certificates, keys, authorities. Each fault names its file and what is allowed there.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::pki_types::pem::{Error, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::trust::Trust;
use super::{TlsError, provider};
use crate::config::ServerTls;

/// Largest file that is read, so that a wrong path to something endless does no harm. All authorities of a system are 250 KB.
const LARGEST: u64 = 8 << 20;

const CERTIFICATES: &str = "allowed: PEM, first the certificate and then those that vouch for it";
const AUTHORITIES: &str = "allowed: PEM, a certificate for each authority that is to be trusted";
const KEY: &str = "allowed: PEM, a private key without a passphrase, RSA from 2048 bits, ECDSA P-256, P-384 or P-521, or Ed25519";

/// A certificate with its chain, and its key. The faults are never none.
pub fn identity(files: &ServerTls) -> Result<CertifiedKey, Vec<TlsError>> {
    match (sections(&files.cert_file, "certificate", CERTIFICATES), key(&files.key_file)) {
        (Ok(chain), Ok(key)) => CertifiedKey::from_der(chain, key, &provider()).map_err(|error| vec![misfit(files, &error)]),
        (chain, key) => Err([chain.err(), key.err()].into_iter().flatten().collect()),
    }
}

/// The authorities of a file, else those of the system.
pub fn trust(path: Option<&Path>) -> Result<Trust, TlsError> {
    let mut roots = RootCertStore::empty();
    let mut own = Vec::new();
    if let Some(path) = path {
        own = sections(path, "certificate", AUTHORITIES)?;
        for certificate in &own {
            let unusable = |error| fault(path, format!("has a certificate that cannot be used ({error}), {AUTHORITIES}"));
            roots.add(CertificateDer::clone(certificate)).map_err(unusable)?;
        }
    } else {
        let found = rustls_native_certs::load_native_certs();
        // Some that nobody can read are usual; the others count.
        let (used, _) = roots.add_parsable_certificates(found.certs);
        if used == 0 {
            return Err(TlsError::System(found.errors.first().map_or_else(|| "there are none".to_owned(), ToString::to_string)));
        }
    }
    let authorities = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
        .build()
        // Without revocation lists it fails for want of authorities alone.
        .expect("there are authorities");
    Ok(Trust::new(authorities, own))
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let mut keys: Vec<PrivateKeyDer<'static>> = sections(path, "private key", KEY)?;
    match keys.len() {
        1 => Ok(keys.remove(0)),
        many => Err(fault(path, format!("has {many} private keys in it, allowed: one"))),
    }
}

/// What rustls has against a certificate and a key that were both read.
fn misfit(files: &ServerTls, error: &rustls::Error) -> TlsError {
    match error {
        rustls::Error::InconsistentKeys(_) => {
            let message = format!("does not fit the certificate in {}, allowed: its own private key", files.cert_file.display());
            fault(&files.key_file, message)
        }
        rustls::Error::InvalidCertificate(why) => {
            fault(&files.cert_file, format!("has a certificate that cannot be used ({why}), {CERTIFICATES}"))
        }
        other => fault(&files.key_file, format!("has a private key that cannot be used ({other}), {KEY}")),
    }
}

/// All sections of one kind in a PEM file; at least one.
fn sections<T: PemObject>(path: &Path, what: &str, allowed: &str) -> Result<Vec<T>, TlsError> {
    let mut text = Vec::new();
    File::open(path)
        .and_then(|file| file.take(LARGEST).read_to_end(&mut text))
        .map_err(|error| fault(path, format!("cannot be read ({error}), {allowed}")))?;
    let sections: Vec<T> = T::pem_slice_iter(&text)
        .collect::<Result<_, _>>()
        .map_err(|error| fault(path, format!("is no valid PEM ({}), {allowed}", reason(&error))))?;
    if !sections.is_empty() {
        return Ok(sections);
    }
    let encrypted = format!("ENCRYPTED {what}").to_uppercase();
    let has = if text.windows(encrypted.len()).any(|w| w == encrypted.as_bytes()) { "only an encrypted" } else { "no" };
    Err(fault(path, format!("has {has} {what} in it, {allowed}")))
}

/// Without the line that it happened on: that may be part of a key.
fn reason(error: &Error) -> &'static str {
    match error {
        Error::MissingSectionEnd { .. } => "a section has no end",
        Error::IllegalSectionStart { .. } => "a line that begins a section is broken",
        Error::Base64Decode(_) => "a section is no base64",
        _ => "a section is broken",
    }
}

fn fault(path: &Path, message: String) -> TlsError {
    TlsError::File { path: path.to_owned(), message }
}
