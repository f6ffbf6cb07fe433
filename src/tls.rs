//! TLS: the certificates of the listeners and of the connections to the upstreams, read from files and read again on SIGHUP.
//!
//! TLS 1.2 and 1.3 with the cipher suites of rustls. A certificate that has expired is used all the same: to refuse it would be an
//! outage where there was a warning.

mod files;
mod towards;
mod trust;

pub use towards::{towards, towards_anyone};

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::crypto::CryptoProvider;
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, ServerConfig};

use crate::config::{Config, Falkordb, Neo4j, ServerTls, ServerTrust, SinkKind, UpstreamTls};
use files::{identity, trust};

/// What may be spoken behind TLS, the best first (ALPN).
const SPOKEN: [&[u8]; 2] = [b"h2", b"http/1.1"];
/// What a client of the old days asks for: without it its hand-shake would fail.
const SPOKEN_ONCE: &[u8] = b"http/1.0";

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
    #[error("the system has no certificate authorities that can be used ({0}), allowed: a `ca_file`")]
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
        Ok(Self { files: files.clone(), current: RwLock::new(server_config(files).map_err(first)?) })
    }

    /// What it reads.
    pub fn files(&self) -> &ServerTls {
        &self.files
    }

    /// What the next connection is to be served with.
    pub fn current(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads the files again, for the connections to come. A fault changes nothing.
    pub fn reload(&self) -> Result<(), TlsError> {
        let config = server_config(&self.files).map_err(first)?;
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
        Ok(Self { files: files.clone(), current: RwLock::new(client_config(files).map_err(first)?) })
    }

    /// What it reads.
    pub fn files(&self) -> &UpstreamTls {
        &self.files
    }

    /// What the next connection is to be made with.
    pub fn current(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads the files again, for the connections to come. A fault changes nothing.
    pub fn reload(&self) -> Result<(), TlsError> {
        let config = client_config(&self.files).map_err(first)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(())
    }
}

/// What is wrong with the certificates that a configuration names: for each fault the path of the key, `proxy.0.tls.key_file`, and a
/// sentence.
pub fn faults(config: &Config) -> Vec<(String, String)> {
    let mut faults = Vec::new();
    for (i, proxy) in config.proxies.iter().enumerate() {
        let mut tell = |table: &str, pair: Option<&ServerTls>, errors: Faults| {
            faults.extend(errors.into_iter().map(|error| {
                let key = pair.and_then(|pair| error.key_of(pair)).unwrap_or("ca_file");
                match error {
                    TlsError::File { path, message } => {
                        (format!("proxy.{i}.{table}.{key}"), format!("`{table}.{key}` is {}, which {message}", path.display()))
                    }
                    TlsError::System(_) => {
                        (format!("proxy.{i}.upstream"), format!("`upstream` is {}, but {error}", proxy.upstream))
                    }
                }
            }));
        };
        if let Some(files) = &proxy.tls {
            tell("tls", Some(files), server_config(files).err().unwrap_or_default());
        }
        let files = &proxy.upstream_tls;
        if proxy.upstream.is_tls() {
            tell("upstream_tls", files.client.as_ref(), client_config(files).err().unwrap_or_default());
        }
    }
    for (i, sink) in config.sinks.iter().enumerate() {
        let (SinkKind::Neo4j(Neo4j { server, ca_file, .. }) | SinkKind::Falkordb(Falkordb { server, ca_file, .. })) = &sink.kind
        else {
            continue;
        };
        if let (ServerTrust::Verified, Err(error)) = (server.tls, trust(ca_file.as_deref())) {
            let key = if ca_file.is_some() { "ca_file" } else { "url" };
            faults.push((format!("sink.{i}.{key}"), format!("`{key}`: {error}")));
        }
    }
    faults
}

impl TlsError {
    /// The key whose file it is about, if it is one of these two.
    fn key_of(&self, pair: &ServerTls) -> Option<&'static str> {
        match self {
            Self::File { path, .. } if *path == pair.cert_file => Some("cert_file"),
            Self::File { path, .. } if *path == pair.key_file => Some("key_file"),
            _ => None,
        }
    }
}

/// All that is wrong with some files; never empty.
type Faults = Vec<TlsError>;

/// For those whom one fault is enough.
fn first(mut faults: Faults) -> TlsError {
    faults.swap_remove(0)
}

fn server_config(files: &ServerTls) -> Result<Arc<ServerConfig>, Faults> {
    let identity = identity(files)?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        // ring has cipher suites of both versions.
        .expect("TLS 1.2 and 1.3 are supported")
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(identity)));
    config.alpn_protocols = SPOKEN.iter().chain([&SPOKEN_ONCE]).map(|name| name.to_vec()).collect();
    Ok(Arc::new(config))
}

fn client_config(files: &UpstreamTls) -> Result<Arc<ClientConfig>, Faults> {
    let (trust, client) = match (trust(files.ca_file.as_deref()), files.client.as_ref().map(identity).transpose()) {
        (Ok(trust), Ok(client)) => (trust, client),
        (trust, client) => return Err(trust.err().into_iter().chain(client.err().unwrap_or_default()).collect()),
    };
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        // As above.
        .expect("TLS 1.2 and 1.3 are supported")
        .dangerous() // It trusts no more than its documentation says.
        .with_custom_certificate_verifier(Arc::new(trust));
    let mut config = match client {
        Some(client) => config.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(client))),
        None => config.with_no_client_auth(),
    };
    config.alpn_protocols = SPOKEN.iter().map(|name| name.to_vec()).collect();
    Ok(Arc::new(config))
}

/// Named, because a second provider in the tree would leave rustls without a default.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

#[cfg(test)]
mod tests;
