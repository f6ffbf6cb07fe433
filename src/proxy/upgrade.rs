//! Upgrades: WebSocket, and whatever else a client and the upstream agree to speak on the connection of an HTTP/1.1 request.
//!
//! offramp passes the wish on, and once the upstream has switched it relays bytes, both ways, each half closed on its own. Not
//! `h2c`: that would be HTTP again, behind the back of everything that reads heads here.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::{CONNECTION, UPGRADE};
use http::{HeaderValue, Request, Response, Version};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::headers;
use super::lease::Lease;
use super::line::Place;
use super::link::Tunnel;
use super::measure::Measured;
use crate::clock::as_ms;

/// A client's wish to speak another protocol.
pub struct Wish {
    client: OnUpgrade,
    protocol: HeaderValue,
}

impl Wish {
    /// The wish of a request, if it has one that can be passed on.
    pub fn of(request: &mut Request<Incoming>) -> Option<Self> {
        // Most requests end here.
        let protocol = request.headers().get(UPGRADE)?.clone();
        let named = headers::names(request.headers(), &CONNECTION, |option| option.eq_ignore_ascii_case(b"upgrade"));
        let h2c = headers::names(request.headers(), &UPGRADE, |protocol| protocol.eq_ignore_ascii_case(b"h2c"));
        if !named || h2c || request.version() != Version::HTTP_11 || !request.body().is_end_stream() {
            return None;
        }
        Some(Self { client: hyper::upgrade::on(request), protocol })
    }

    /// What is wished for: the value of `Upgrade`.
    pub fn protocol(&self) -> &HeaderValue {
        &self.protocol
    }

    /// The tunnel that an upstream's `101` makes of the connections. It begins once it has what the response's body leaves it, and
    /// ends when both sides have closed, one has broken, or no byte has moved for `idle_limit`.
    pub fn granted(
        self,
        response: &mut Response<Incoming>,
        mut lease: Lease,
        idle_limit: Duration,
    ) -> (Tunnel, oneshot::Sender<Handed>) {
        lease.let_go();
        let (handover, handed) = oneshot::channel();
        let upstream = hyper::upgrade::on(response);
        let tunnel = async move {
            // They are dropped when the tunnel ends.
            let _handed = handed.await;
            let mut upstream = pin!(upstream);
            let upstream = poll_fn(|cx| {
                lease.drive(cx);
                upstream.as_mut().poll(cx)
            });
            match (upstream.await, self.client.await) {
                (Ok(upstream), Ok(client)) => relay(client, upstream, idle_limit).await,
                (Err(error), _) | (_, Err(error)) => tracing::debug!(%error, "an upgrade came to nothing"),
            }
        };
        (Box::pin(tunnel), handover)
    }
}

/// What a `101` response hands to its tunnel: the place in the line and the measurement last as long as it does.
pub type Handed = (Option<Place>, Option<Measured>);

async fn relay(client: Upgraded, upstream: Upgraded, idle_limit: Duration) {
    let moved = Arc::new(Moved { began: Instant::now(), at: AtomicU64::new(0) });
    let mut client = Watched { io: TokioIo::new(client), moved: Arc::clone(&moved) };
    let mut upstream = Watched { io: TokioIo::new(upstream), moved: Arc::clone(&moved) };
    tokio::select! {
        ended = tokio::io::copy_bidirectional(&mut client, &mut upstream) => {
            if let Err(error) = ended {
                tracing::debug!(%error, "a tunnel broke");
            }
        }
        () = moved.idle(idle_limit) => tracing::debug!("a tunnel was idle for too long"),
    }
}

/// When a byte last moved, in milliseconds after the tunnel began.
struct Moved {
    began: Instant,
    at: AtomicU64,
}

impl Moved {
    fn note(&self) {
        self.at.store(as_ms(self.began.elapsed()), Ordering::Relaxed);
    }

    /// Resolves once nothing has moved for so long.
    async fn idle(&self, limit: Duration) {
        loop {
            let until = self.began + Duration::from_millis(self.at.load(Ordering::Relaxed)) + limit;
            if until <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(until).await;
        }
    }
}

/// One side of a tunnel.
struct Watched<T> {
    io: T,
    moved: Arc<Moved>,
}

impl<T: AsyncRead + Unpin> AsyncRead for Watched<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.io).poll_read(cx, buf);
        if polled.is_ready() {
            self.moved.note();
        }
        polled
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Watched<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write(cx, buf);
        if polled.is_ready() {
            self.moved.note();
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
