//! What stands between a sink and its backend in a test: passes everything on, unless it was told to be a bad line.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

/// A line on a port of its own; goes with its runtime.
pub struct Relay {
    /// Where it listens.
    pub address: SocketAddr,
    faults: Arc<Faults>,
    accepting: JoinHandle<()>,
}

/// What it does wrong.
#[derive(Default)]
struct Faults {
    /// No answer to a request with this text in it.
    swallow: Mutex<Option<&'static [u8]>>,
    /// Offers the server version 4.4 of Bolt alone.
    old: AtomicBool,
    /// Ends all lines.
    cut: Notify,
}

impl Relay {
    /// A line to `server`, with TLS if a certificate and a key (`NAME.pem`, `NAME.key`) are given.
    pub async fn start(server: SocketAddr, tls: Option<(&Path, &str)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let acceptor = tls.map(|(dir, name)| acceptor(dir, name));
        let faults = Arc::<Faults>::default();
        let shared = faults.clone();
        let accepting = tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let (acceptor, faults) = (acceptor.clone(), shared.clone());
                tokio::spawn(async move {
                    let server = TcpStream::connect(server).await.unwrap();
                    match acceptor {
                        None => pass(client, server, faults).await,
                        Some(acceptor) => {
                            if let Ok(client) = acceptor.accept(client).await {
                                pass(client, server, faults).await;
                            }
                        }
                    }
                });
            }
        });
        Self { address, faults, accepting }
    }

    /// From now on nobody hears what becomes of requests with this text in them; with none, of all again.
    pub fn swallow(&self, text: Option<&'static [u8]>) {
        *self.faults.swallow.lock().unwrap() = text;
    }

    /// The server seems to be an old one.
    pub fn pretend_old(&self) {
        self.faults.old.store(true, Ordering::Relaxed);
    }

    /// Each connection breaks; new ones are taken.
    pub fn cut(&self) {
        self.faults.cut.notify_waiters();
    }

    /// Nobody listens any more.
    pub async fn stop(self) {
        self.accepting.abort();
        let _ = self.accepting.await;
    }
}

fn acceptor(dir: &Path, name: &str) -> TlsAcceptor {
    let chain = vec![CertificateDer::from_pem_file(dir.join(format!("{name}.pem"))).unwrap()];
    let key = PrivateKeyDer::from_pem_file(dir.join(format!("{name}.key"))).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    TlsAcceptor::from(Arc::new(config.with_no_client_auth().with_single_cert(chain, key).unwrap()))
}

async fn pass(client: impl AsyncRead + AsyncWrite, server: TcpStream, faults: Arc<Faults>) {
    let (mut from_client, mut to_client) = split(client);
    let (mut from_server, mut to_server) = split(server);
    let deaf = AtomicBool::new(false);
    let up = async {
        let mut buffer = vec![0; 1 << 16];
        let mut first = true;
        while let Ok(n @ 1..) = from_client.read(&mut buffer).await {
            let said = &mut buffer[..n];
            if std::mem::take(&mut first) && faults.old.load(Ordering::Relaxed) {
                said[4..20].copy_from_slice(&[0, 0, 4, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
            }
            let swallowed = *faults.swallow.lock().unwrap();
            if swallowed.is_some_and(|swallowed| said.windows(swallowed.len()).any(|text| text == swallowed)) {
                deaf.store(true, Ordering::Relaxed);
            }
            if to_server.write_all(said).await.is_err() {
                break;
            }
        }
    };
    let down = async {
        let mut buffer = vec![0; 1 << 16];
        while let Ok(n @ 1..) = from_server.read(&mut buffer).await {
            if !deaf.load(Ordering::Relaxed) && to_client.write_all(&buffer[..n]).await.is_err() {
                break;
            }
            to_client.flush().await.unwrap_or_default();
        }
    };
    tokio::select! {
        () = up => {}
        () = down => {}
        () = faults.cut.notified() => {}
    }
}
