//! TLS: the certificates of the listeners and of the connections to the upstreams, read from files and read again on SIGHUP.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::{ClientConfig, ServerConfig};

use crate::config::{ServerTls, UpstreamTls};

/// Why certificates can't be used. Each names its file.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// It can't be read, or isn't PEM.
    #[error("{}: {message}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
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
    Err(TlsError::File { path: files.cert_file.clone(), message: "TLS is not built yet".to_owned() })
}

fn client_config(files: &UpstreamTls) -> Result<Arc<ClientConfig>, TlsError> {
    Err(TlsError::File { path: files.ca_file.clone().unwrap_or_default(), message: "TLS is not built yet".to_owned() })
}
