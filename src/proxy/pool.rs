//! Connections to the upstream: made when needed, used again while they are fresh.
//!
//! HTTP/1: last in, first out. Under a steady load a few connections do the work and the others grow old and go. A connection comes
//! back only after an exchange that ended cleanly in both directions; after any other it is closed at once, which is also how an
//! upstream learns that the client has left. There are never more than `max_in_flight` of them, because each has been one request's own.
//!
//! HTTP/2: as few connections as the upstream's limit of streams allows.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::time::Instant;

use super::ProxyError;
use super::dial::Dial;
use super::lease::{Exclusive, HalfClosing, Lease, Shared};
use super::stall::Stall;
use crate::socket::Socket;

/// Idle HTTP/1 connections older than this aren't used again. Below the shortest keep-alive of common servers (gunicorn 2 s,
/// uvicorn and node 5 s): a request that meets the upstream's own close can't be repeated if it isn't idempotent. A connection to a
/// sidecar's neighbour costs 100 µs, and under load none gets this old.
const REUSE_WITHIN: Duration = Duration::from_millis(1500);
/// An HTTP/2 connection without a stream is kept for as long: closing one is announced there, and nothing is lost by it.
const KEEP_SHARED: Duration = Duration::from_secs(60);
/// An HTTP/2 connection with open streams is asked for a sign of life this often, and has as long to give it.
const PING: Duration = Duration::from_secs(30);
/// What may be on its way on an HTTP/2 connection before it is read. h2 takes half as much of overhead for frames of a few bytes, 250
/// each, and ends a connection that exceeds it: an upstream that streams tokens to clients who read slowly must not.
const WINDOW: u32 = 16 << 20;

/// The pool of one proxy.
#[derive(Debug)]
pub struct Pool {
    dial: Dial,
    connect_timeout: Duration,
    idle_timeout: Duration,
    /// Oldest first. The lock is held for a push or a pop, never across an await.
    idle: Mutex<Vec<Idle>>,
    shared: Mutex<Vec<Arc<Shared>>>,
    /// Held while an HTTP/2 connection is being made, so that those who come meanwhile share it.
    dialing: tokio::sync::Mutex<()>,
    /// Whether the upstream speaks HTTP/2, as far as is known.
    http2: AtomicBool,
    sweeping: AtomicBool,
}

struct Idle {
    connection: Box<Exclusive>,
    since: Instant,
}

impl Pool {
    /// An empty pool.
    pub fn new(dial: Dial, connect_timeout: Duration, idle_timeout: Duration) -> Arc<Self> {
        Arc::new(Self {
            http2: AtomicBool::new(dial.may_be_http2()),
            dial,
            connect_timeout,
            idle_timeout,
            idle: Mutex::default(),
            shared: Mutex::default(),
            dialing: tokio::sync::Mutex::default(),
            sweeping: AtomicBool::new(false),
        })
    }

    /// Where it connects to.
    pub fn dial(&self) -> &Dial {
        &self.dial
    }

    /// A connection that is there already, else a new one; with `http1` for what only HTTP/1 can do.
    pub async fn lease(self: &Arc<Self>, http1: bool) -> Result<Lease, ProxyError> {
        if !http1 && self.http2.load(Ordering::Relaxed) {
            return match self.take_stream() {
                Some(lease) => Ok(lease),
                None => Box::pin(self.stream()).await,
            };
        }
        match self.take() {
            Some(connection) => Ok(Lease::exclusive(Arc::clone(self), connection, true)),
            None => self.connect(http1).await,
        }
    }

    /// A new connection. With `http1` HTTP/2 isn't offered; an upstream that is known to speak nothing else gets it all the same.
    ///
    /// The future is boxed: it is large, and rarely needed, and would be part of that of every request.
    pub fn connect(self: &Arc<Self>, http1: bool) -> Pin<Box<dyn Future<Output = Result<Lease, ProxyError>> + Send + '_>> {
        let connecting = async move {
            let (socket, http2) = self.dial.connect(http1).await?;
            if !http1 {
                self.http2.store(http2, Ordering::Relaxed);
            }
            if http2 { self.share(socket).await } else { self.hand_shake(socket).await }
        };
        Box::pin(async move {
            tokio::time::timeout(self.connect_timeout, connecting)
                .await
                .map_err(|_| ProxyError::ConnectTimeout(self.connect_timeout))?
                .map_err(ProxyError::Connect)
        })
    }

    async fn hand_shake(self: &Arc<Self>, socket: Socket) -> io::Result<Lease> {
        let closing = Arc::new(AtomicBool::new(false));
        let io = TokioIo::new(HalfClosing::new(Stall::new(socket, self.idle_timeout), Arc::clone(&closing)));
        let (sender, connection) = http1::Builder::new().handshake(io).await.map_err(io::Error::other)?;
        let connection = Exclusive::new(sender, Box::pin(connection.with_upgrades()), closing);
        Ok(Lease::exclusive(Arc::clone(self), Box::new(connection), false))
    }

    async fn share(self: &Arc<Self>, socket: Socket) -> io::Result<Lease> {
        let io = TokioIo::new(Stall::new(socket, self.idle_timeout));
        let (sender, mut connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(PING)
            .keep_alive_timeout(PING)
            .initial_connection_window_size(WINDOW)
            .handshake(io)
            .await
            .map_err(io::Error::other)?;
        let max_streams = Arc::new(AtomicUsize::new(connection.current_max_send_streams()));
        let shared = Arc::new(Shared::new(sender, Arc::clone(&max_streams)));
        // It ends by itself once nobody can send on it any more.
        tokio::spawn(async move {
            let driven = poll_fn(|cx| {
                let polled = Pin::new(&mut connection).poll(cx);
                // The upstream says how many it takes, and may change its mind.
                max_streams.store(connection.current_max_send_streams(), Ordering::Relaxed);
                polled
            });
            if let Err(error) = driven.await {
                tracing::debug!(%error, "a connection to the upstream ended");
            }
        });
        let lease = Lease::stream(Arc::clone(self), Arc::clone(&shared), false);
        lock(&self.shared).push(shared);
        self.start_sweeping();
        Ok(lease)
    }

    /// A stream of a connection that another is just making, else of a new one.
    async fn stream(self: &Arc<Self>) -> Result<Lease, ProxyError> {
        let dialing = self.dialing.lock().await;
        if let Some(lease) = self.take_stream() {
            return Ok(lease);
        }
        if !self.http2.load(Ordering::Relaxed) {
            // Who came before has learnt that there is nothing to share.
            drop(dialing);
        }
        self.connect(false).await
    }

    /// A stream of a connection that has one left.
    fn take_stream(self: &Arc<Self>) -> Option<Lease> {
        let mut shared = lock(&self.shared);
        shared.retain(|connection| !connection.is_closed());
        let free = shared.iter().find(|connection| connection.streams() < connection.max_streams())?;
        Some(Lease::stream(Arc::clone(self), Arc::clone(free), true))
    }

    /// The newest that is ready.
    fn take(&self) -> Option<Box<Exclusive>> {
        let oldest = Instant::now().checked_sub(REUSE_WITHIN);
        loop {
            let Idle { mut connection, since } = lock(&self.idle).pop()?;
            if oldest.is_some_and(|oldest| since < oldest) {
                // What is left is older still.
                lock(&self.idle).clear();
                return None;
            }
            if connection.is_ready() {
                return Some(connection);
            }
        }
    }

    /// Keeps a connection for the next exchange.
    pub fn put(self: &Arc<Self>, connection: Box<Exclusive>) {
        lock(&self.idle).push(Idle { connection, since: Instant::now() });
        self.start_sweeping();
    }

    fn start_sweeping(self: &Arc<Self>) {
        if !self.sweeping.load(Ordering::Relaxed) && !self.sweeping.swap(true, Ordering::AcqRel) {
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

    /// Whether something is still there. If not, the sweep is over, which is noted under the locks: a connection put at the same time
    /// either is seen here or starts another.
    fn prune(&self) -> bool {
        let oldest = Instant::now().checked_sub(REUSE_WITHIN);
        let (mut idle, mut shared) = (lock(&self.idle), lock(&self.shared));
        let old = oldest.map_or(0, |oldest| idle.partition_point(|i| i.since < oldest));
        idle.drain(..old);
        shared.retain(|connection| !connection.is_closed() && !connection.is_unused_for(KEEP_SHARED));
        let any = !idle.is_empty() || !shared.is_empty();
        self.sweeping.store(any, Ordering::Release);
        any
    }
}

impl std::fmt::Debug for Idle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Idle").field("since", &self.since).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
