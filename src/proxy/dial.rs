//! Making a connection to the upstream: its name asked for anew each time, all its addresses tried, TLS where it is `https`.

use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Uri, uri};
use hyper_util::client::legacy::connect::HttpConnector;
use rustls::pki_types::ServerName;
use tokio::net::UnixStream;
use tower::Service;

use crate::config::{Scheme, Upstream};
use crate::socket::Socket;
use crate::tls;

/// Time between two addresses of one name (RFC 8305 §5, "Connection Attempt Delay").
const NEXT_ADDRESS: Duration = Duration::from_millis(250);

/// How to reach one upstream.
#[derive(Debug)]
pub struct Dial {
    to: To,
    scheme: Scheme,
    /// What `Host` says, or `:authority`, where the client's isn't preserved.
    authority: HeaderValue,
}

#[derive(Debug)]
enum To {
    Tcp { connector: HttpConnector, uri: Uri, tls: Option<(Arc<tls::Client>, ServerName<'static>)> },
    Unix(PathBuf),
}

impl Dial {
    /// `tls` is used where the upstream is `https`.
    pub fn new(upstream: &Upstream, tls: Option<Arc<tls::Client>>) -> Self {
        match upstream {
            Upstream::Unix(path) => {
                Self { to: To::Unix(path.clone()), scheme: Scheme::Http, authority: HeaderValue::from_static("localhost") }
            }
            Upstream::Http { scheme, host, port, authority } => {
                let mut connector = HttpConnector::new();
                connector.set_nodelay(true);
                connector.set_happy_eyeballs_timeout(Some(NEXT_ADDRESS));
                Self {
                    to: To::Tcp { connector, uri: address(host, *port), tls: tls.zip(ServerName::try_from(host.clone()).ok()) },
                    scheme: *scheme,
                    authority: authority.clone(),
                }
            }
        }
    }

    /// What `Host` says where the client's isn't preserved.
    pub fn authority(&self) -> &HeaderValue {
        &self.authority
    }

    /// The scheme of a request's target.
    pub fn uri_scheme(&self) -> uri::Scheme {
        if self.scheme == Scheme::Https { uri::Scheme::HTTPS } else { uri::Scheme::HTTP }
    }

    /// Whether the upstream may speak HTTP/2.
    pub fn may_be_http2(&self) -> bool {
        self.scheme != Scheme::Http
    }

    /// A new connection, and whether HTTP/2 is spoken on it. With `http1` HTTP/2 isn't offered; where it was agreed on in advance it is
    /// spoken all the same.
    pub async fn connect(&self, http1: bool) -> io::Result<(Socket, bool)> {
        let (connector, uri, tls) = match &self.to {
            To::Unix(path) => return Ok((Socket::Unix(UnixStream::connect(path).await?), false)),
            To::Tcp { connector, uri, tls } => (connector, uri, tls),
        };
        let stream = connector.clone().call(uri.clone()).await.map_err(|error| as_io(&error))?;
        let socket = Socket::Tcp(stream.into_inner());
        let Some((tls, name)) = tls else {
            return Ok((socket, self.scheme == Scheme::H2c));
        };
        let mut config = tls.current();
        if http1 {
            Arc::make_mut(&mut config).alpn_protocols = vec![b"http/1.1".to_vec()];
        }
        let socket = socket.connect_tls(config, name.clone()).await?;
        let http2 = socket.agreed_on_h2();
        Ok((socket, http2))
    }
}

/// What the connector is asked for.
fn address(host: &str, port: u16) -> Uri {
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    // The configuration has checked the host; should it be no URI all the same, connecting says so.
    Uri::try_from(format!("http://{host}:{port}")).unwrap_or_default()
}

/// The connector says what it did when it failed, and only its cause says why.
fn as_io(error: &dyn Error) -> io::Error {
    let mut text = error.to_string();
    let (mut kind, mut cause) = (io::ErrorKind::Other, error.source());
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        kind = error.downcast_ref::<io::Error>().map_or(kind, io::Error::kind);
        cause = error.source();
    }
    io::Error::new(kind, text)
}
