//! TLS: the certificates of the listeners and of the connections to the upstreams, read from files and read again on SIGHUP.
//!
//! TLS 1.2 and 1.3 with the cipher suites of rustls. A certificate that has expired is used all the same: to refuse it would be an
//! outage where there was a warning.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use crate::config::{ServerTls, UpstreamTls};

/// What may be spoken behind TLS, the best first (ALPN).
const SPOKEN: [&[u8]; 2] = [b"h2", b"http/1.1"];
/// What a client of the old days asks for: without it its hand-shake would fail.
const SPOKEN_ONCE: &[u8] = b"http/1.0";

/// Largest file that is read, so that a wrong path to something endless does no harm. All authorities of a system are 250 KB.
const LARGEST: u64 = 8 << 20;

const CERTIFICATES: &str = "allowed: PEM, the server's certificate first and then those that vouch for it";
const CLIENT_CERTIFICATES: &str = "allowed: PEM, the client's certificate first and then those that vouch for it";
const AUTHORITIES: &str = "allowed: PEM, a certificate for each authority that is to be trusted";
const KEY: &str = "allowed: PEM, a private key without a passphrase, RSA from 2048 bits, ECDSA P-256, P-384 or P-521, or Ed25519";

/// Why certificates can't be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file. The sentence begins with its name: "/etc/x.pem *has no certificate in it, allowed: …*".
    #[error("{} {message}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and what is allowed.
        message: String,
    },
    /// What the system trusts.
    #[error("the system has no certificate authorities that can be used ({0}), allowed: `upstream_tls.ca_file`")]
    System(String),
}

/// The TLS of a listener.
#[derive(Debug)]
pub struct Server {
    files: ServerTls,
    current: RwLock<Arc<ServerConfig>>,
}

impl Server {
    /// Reads the certificate and its key.
    pub fn load(files: &ServerTls) -> Result<Self, TlsError> {
        Ok(Self { files: files.clone(), current: RwLock::new(server_config(files)?) })
    }

    /// What the next connection is to be served with.
    pub fn current(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads the files again, for the connections to come. A fault changes nothing.
    pub fn reload(&self) -> Result<(), TlsError> {
        let config = server_config(&self.files)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(())
    }
}

/// The TLS towards an upstream.
#[derive(Debug)]
pub struct Client {
    files: UpstreamTls,
    current: RwLock<Arc<ClientConfig>>,
}

impl Client {
    /// Reads the authorities and the client's certificate.
    pub fn load(files: &UpstreamTls) -> Result<Self, TlsError> {
        Ok(Self { files: files.clone(), current: RwLock::new(client_config(files)?) })
    }

    /// What the next connection is to be made with.
    pub fn current(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads the files again, for the connections to come. A fault changes nothing.
    pub fn reload(&self) -> Result<(), TlsError> {
        let config = client_config(&self.files)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(())
    }
}

fn server_config(files: &ServerTls) -> Result<Arc<ServerConfig>, TlsError> {
    let (chain, key) = identity(files, CERTIFICATES)?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        // ring has cipher suites of both versions.
        .expect("TLS 1.2 and 1.3 are supported")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| misfit(files, &error, CERTIFICATES))?;
    config.alpn_protocols = SPOKEN.iter().chain([&SPOKEN_ONCE]).map(|name| name.to_vec()).collect();
    Ok(Arc::new(config))
}

fn client_config(files: &UpstreamTls) -> Result<Arc<ClientConfig>, TlsError> {
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        // As above.
        .expect("TLS 1.2 and 1.3 are supported")
        .with_root_certificates(match &files.ca_file {
            Some(path) => authorities_of(path)?,
            None => authorities_of_the_system()?,
        });
    let mut config = match &files.client {
        Some(client) => {
            let (chain, key) = identity(client, CLIENT_CERTIFICATES)?;
            config.with_client_auth_cert(chain, key).map_err(|error| misfit(client, &error, CLIENT_CERTIFICATES))?
        }
        None => config.with_no_client_auth(),
    };
    config.alpn_protocols = SPOKEN.iter().map(|name| name.to_vec()).collect();
    Ok(Arc::new(config))
}

/// Named, because a second provider in the tree would leave rustls without a default.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn authorities_of(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in sections(path, "certificate", AUTHORITIES)? {
        roots
            .add(certificate)
            .map_err(|error| fault(path, format!("has a certificate that cannot be used ({error}), {AUTHORITIES}")))?;
    }
    Ok(roots)
}

fn authorities_of_the_system() -> Result<RootCertStore, TlsError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // A system has some that nobody can read; the others count.
    let (used, _) = roots.add_parsable_certificates(found.certs);
    if used == 0 {
        let reason = found.errors.first().map_or_else(|| "there are none".to_owned(), ToString::to_string);
        return Err(TlsError::System(reason));
    }
    Ok(roots)
}

/// A certificate with its chain, and its key.
fn identity(files: &ServerTls, allowed: &str) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsError> {
    let chain = sections(&files.cert_file, "certificate", allowed)?;
    let mut keys: Vec<PrivateKeyDer<'static>> = sections(&files.key_file, "private key", KEY)?;
    if keys.len() > 1 {
        return Err(fault(&files.key_file, format!("has {} private keys in it, allowed: one", keys.len())));
    }
    Ok((chain, keys.remove(0)))
}

/// What rustls has against a certificate and a key that were both read.
fn misfit(files: &ServerTls, error: &rustls::Error, certificates: &str) -> TlsError {
    match error {
        rustls::Error::InconsistentKeys(_) => {
            let message = format!("does not fit the certificate in {}, allowed: its own private key", files.cert_file.display());
            fault(&files.key_file, message)
        }
        rustls::Error::InvalidCertificate(why) => {
            fault(&files.cert_file, format!("has a certificate that cannot be used ({why}), {certificates}"))
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
fn reason(error: &pem::Error) -> &'static str {
    match error {
        pem::Error::MissingSectionEnd { .. } => "a section has no end",
        pem::Error::IllegalSectionStart { .. } => "a line that begins a section is broken",
        pem::Error::Base64Decode(_) => "a section is no base64",
        _ => "a section is broken",
    }
}

fn fault(path: &Path, message: String) -> TlsError {
    TlsError::File { path: path.to_owned(), message }
}

#[cfg(test)]
mod tests;
