//! The certificates of one proxy, and how they are read again.

use std::sync::Arc;

use super::StartError;
use crate::config;
use crate::tls;

/// What a proxy speaks TLS with, on either side.
#[derive(Debug, Clone)]
pub struct Certificates {
    proxy: String,
    pub server: Option<Arc<tls::Server>>,
    pub client: Option<Arc<tls::Client>>,
}

impl Certificates {
    pub fn load(proxy: &config::Proxy) -> Result<Self, StartError> {
        let wrong = |source| StartError::Tls { proxy: proxy.name.clone(), source };
        let server = proxy.tls.as_ref().map(tls::Server::load).transpose().map_err(wrong)?;
        let client = proxy.upstream.is_tls().then(|| tls::Client::load(&proxy.upstream_tls)).transpose().map_err(wrong)?;
        Ok(Self { proxy: proxy.name.clone(), server: server.map(Arc::new), client: client.map(Arc::new) })
    }

    /// For a proxy that may name other files. Where they are the same it is what was, for [`reload`](Self::reload) to read again: so the
    /// connections to the upstream stay.
    pub fn renew(&self, proxy: &config::Proxy) -> Result<Self, StartError> {
        let wrong = |source| StartError::Tls { proxy: proxy.name.clone(), source };
        let server = match (&self.server, &proxy.tls) {
            (Some(server), Some(files)) if server.files() == files => Some(Arc::clone(server)),
            (_, files) => files.as_ref().map(tls::Server::load).transpose().map_err(wrong)?.map(Arc::new),
        };
        let client = match &self.client {
            _ if !proxy.upstream.is_tls() => None,
            Some(client) if *client.files() == proxy.upstream_tls => Some(Arc::clone(client)),
            _ => Some(Arc::new(tls::Client::load(&proxy.upstream_tls).map_err(wrong)?)),
        };
        Ok(Self { proxy: self.proxy.clone(), server, client })
    }

    /// Reads the files again, for the connections to come, and logs how that went. One that can't be used leaves what was.
    pub fn reload(&self) {
        let sides =
            [("tls", self.server.as_ref().map(|s| s.reload())), ("upstream_tls", self.client.as_ref().map(|c| c.reload()))];
        for (key, reloaded) in sides {
            match reloaded {
                Some(Ok(())) => tracing::info!(proxy = self.proxy, key, "certificates read again, for the connections to come"),
                Some(Err(error)) => tracing::error!(proxy = self.proxy, key, %error, "the certificates stay as they were"),
                None => {}
            }
        }
    }
}
