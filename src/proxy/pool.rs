//! Connections to the upstream: made when needed, used again while they are fresh.
//!
//! Last in, first out: under a steady load a few connections do the work and the others grow old and go. A connection comes back
//! only after an exchange that ended cleanly in both directions; after any other it is closed at once, which is also how an
//! upstream learns that the client has left.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::ProxyError;
use super::stall::Stall;
use super::upload::Upload;
use crate::config::Upstream;

/// Idle connections older than this aren't used again. Below the shortest keep-alive of common servers (gunicorn 2 s, uvicorn and
/// node 5 s): a request that meets the upstream's own close can't be repeated if it isn't idempotent. A connection to a sidecar's
/// neighbour costs 100 µs, and under load none gets this old.
const REUSE_WITHIN: Duration = Duration::from_millis(1500);

/// The pool of one proxy.
#[derive(Debug)]
pub struct Pool {
    upstream: Upstream,
    connect_timeout: Duration,
    idle_timeout: Duration,
    /// Oldest first. The lock is held for a push or a pop, never across an await.
    idle: Mutex<Vec<Idle>>,
    sweeping: AtomicBool,
}

#[derive(Debug)]
struct Idle {
    connection: Connection,
    since: Instant,
}

#[derive(Debug)]
struct Connection {
    sender: SendRequest<Upload>,
    task: AbortHandle,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A connection for one exchange. Dropped, it closes; [`Lease::give_back`] keeps it for the next.
#[derive(Debug)]
pub struct Lease {
    pool: Arc<Pool>,
    connection: Connection,
    reused: bool,
}

impl Lease {
    /// Where to send the request.
    pub fn sender(&mut self) -> &mut SendRequest<Upload> {
        &mut self.connection.sender
    }

    /// Whether it has served before, so that the upstream may have closed it in the meantime.
    pub fn is_reused(&self) -> bool {
        self.reused
    }

    /// Keeps the connection for the next exchange. Only after one that ended cleanly in both directions.
    pub fn give_back(self) {
        if !self.connection.sender.is_closed() {
            self.pool.put(self.connection);
        }
    }
}

impl Pool {
    /// An empty pool.
    pub fn new(upstream: Upstream, connect_timeout: Duration, idle_timeout: Duration) -> Arc<Self> {
        Arc::new(Self { upstream, connect_timeout, idle_timeout, idle: Mutex::default(), sweeping: AtomicBool::new(false) })
    }

    /// An idle connection, else a new one.
    pub async fn lease(self: &Arc<Self>) -> Result<Lease, ProxyError> {
        match self.take() {
            Some(connection) => Ok(Lease { pool: Arc::clone(self), connection, reused: true }),
            None => self.connect().await,
        }
    }

    /// A new connection.
    pub async fn connect(self: &Arc<Self>) -> Result<Lease, ProxyError> {
        let connecting = async {
            match &self.upstream {
                Upstream::Http { host, port, .. } => {
                    // Resolves each time and tries every address: an upstream may move.
                    let stream = TcpStream::connect((host.as_str(), *port)).await?;
                    stream.set_nodelay(true)?;
                    self.hand_shake(stream).await
                }
                Upstream::Unix(path) => self.hand_shake(UnixStream::connect(path).await?).await,
            }
        };
        let connection = tokio::time::timeout(self.connect_timeout, connecting)
            .await
            .map_err(|_| ProxyError::ConnectTimeout(self.connect_timeout))?
            .map_err(ProxyError::Connect)?;
        Ok(Lease { pool: Arc::clone(self), connection, reused: false })
    }

    async fn hand_shake<T>(&self, io: T) -> io::Result<Connection>
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let io = TokioIo::new(Stall::new(io, self.idle_timeout));
        let (sender, connection) = http1::Builder::new().handshake(io).await.map_err(io::Error::other)?;
        let task = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to the upstream ended");
            }
        });
        Ok(Connection { sender, task: task.abort_handle() })
    }

    /// The newest that is ready. One that isn't yet is still finishing what it did before, on another thread; it stays.
    fn take(&self) -> Option<Connection> {
        let oldest = Instant::now().checked_sub(REUSE_WITHIN);
        let mut idle = self.idle();
        for at in (0..idle.len()).rev() {
            if oldest.is_some_and(|oldest| idle[at].since < oldest) {
                // What is before it is older still.
                idle.drain(..=at);
                return None;
            }
            let sender = &idle[at].connection.sender;
            if sender.is_ready() {
                return Some(idle.remove(at).connection);
            }
            if sender.is_closed() {
                idle.remove(at);
            }
        }
        None
    }

    fn put(self: &Arc<Self>, connection: Connection) {
        self.idle().push(Idle { connection, since: Instant::now() });
        if !self.sweeping.swap(true, Ordering::AcqRel) {
            tokio::spawn(Self::sweep(Arc::downgrade(self)));
        }
    }

    /// Closes what has grown old, until nothing is idle; so that a pool without traffic holds no connections.
    async fn sweep(pool: Weak<Self>) {
        loop {
            tokio::time::sleep(REUSE_WITHIN).await;
            match pool.upgrade() {
                Some(pool) if pool.prune() => {}
                _ => return,
            }
        }
    }

    /// Whether something is still idle. If not, the sweep is over, which is noted under the lock: a connection put at the same time
    /// either is seen here or starts another.
    fn prune(&self) -> bool {
        let oldest = Instant::now().checked_sub(REUSE_WITHIN);
        let mut idle = self.idle();
        let old = oldest.map_or(0, |oldest| idle.partition_point(|i| i.since < oldest));
        idle.drain(..old);
        self.sweeping.store(!idle.is_empty(), Ordering::Release);
        !idle.is_empty()
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
