//! One client's connection, from its first byte to its last: TLS if there is any, then HTTP/1 or HTTP/2, as the client begins.

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::watch;
use tokio::time::Instant;
use tower::Service;

use super::Serving;
use super::turns::Turns;
use super::wire::Wire;
use crate::proxy::body::Body;
use crate::proxy::link::Link;
use crate::proxy::stall::Stall;
use crate::proxy::{Exchange, Proxy};
use crate::socket::Socket;
use crate::stack::{self, Stack};

/// How HTTP/2 begins where nobody has agreed on it before (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// hyper's own limit of header lines; another one costs an allocation for each head.
const USUAL_HEADERS: usize = 100;

/// How the connections of one proxy are served that come while its settings are the same.
pub struct Conversation {
    serving: Serving,
    current: Current,
    http1: http1::Builder,
    http2: http2::Builder<TokioExecutor>,
}

impl Conversation {
    /// As the settings are now.
    pub fn new(live: &mut watch::Receiver<Serving>) -> Self {
        let serving = live.borrow_and_update().clone();
        let current = Current { stack: stack::build(&serving.proxy), live: live.clone() };
        let proxy = &serving.proxy;
        let mut http1 = http1::Builder::new();
        http1
            // Both are the wire's affair (`wire.rs`).
            .header_read_timeout(None)
            .half_close(true)
            .max_header_size(proxy.max_header_size)
            // What the upstream doesn't send, the client doesn't get.
            .auto_date_header(false);
        if proxy.max_headers != USUAL_HEADERS {
            http1.max_headers(proxy.max_headers);
        }
        let mut http2 = http2::Builder::new(TokioExecutor::new());
        http2
            .timer(TokioTimer::new())
            // Beyond it, h2 refuses by itself, and tells nothing. So the door refuses first (`Door::call`).
            .max_header_list_size(u32::try_from(2 * proxy.max_header_size).unwrap_or(u32::MAX))
            .auto_date_header(false);
        Self { serving, current, http1, http2 }
    }

    /// Who answers the requests of a connection at first.
    pub fn proxy(&self) -> &Arc<Proxy> {
        &self.serving.proxy
    }

    /// Serves one connection until it ends, or until `stop` and the end of what is under way.
    ///
    /// The large parts are boxed: an idle connection is to hold what it needs, and not what a handshake or HTTP/2 would.
    pub async fn hold(self: Arc<Self>, socket: Socket, peer: Option<IpAddr>, mut stop: watch::Receiver<bool>) {
        let opening = Box::pin(tokio::time::timeout(self.proxy().header_read_timeout, self.open(socket)));
        let opened = tokio::select! {
            opened = opening => opened.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())),
            // It has asked for nothing yet.
            () = stopping(&mut stop) => return,
        };
        match opened {
            Ok((socket, true)) => self.hold_http2(socket, peer, stop).await,
            Ok((socket, false)) => self.hold_http1(socket, peer, stop).await,
            Err(error) => tracing::debug!(%error, "a client's connection came to nothing"),
        }
    }

    /// Shakes hands, and waits for the first bytes: the socket, and whether they begin HTTP/2.
    async fn open(&self, socket: Socket) -> io::Result<(Stall<Socket>, bool)> {
        let socket = match &self.serving.tls {
            Some(tls) => socket.serve_tls(tls.current()).await?,
            None => socket,
        };
        let mut socket = Stall::new(socket, self.proxy().idle_timeout());
        let (begun, http2) = begin_http(&mut socket).await?;
        socket.unread(begun);
        Ok((socket, http2))
    }

    async fn hold_http1(&self, mut socket: Stall<Socket>, peer: Option<IpAddr>, mut stop: watch::Receiver<bool>) {
        let link = Arc::new(Link::default());
        socket.tell(Arc::clone(&link));
        let wire = Wire::new(socket, Arc::clone(&link), Arc::clone(self.proxy()));
        let door = Door { current: RefCell::new(self.current.clone()), peer, link: Arc::clone(&link) };
        let mut connection = Turns::of(Box::pin(self.http1.serve_connection(TokioIo::new(wire), door).with_upgrades()));
        let ended = tokio::select! {
            ended = &mut connection => ended,
            () = stopping(&mut stop) => {
                connection.get_mut().as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a client's connection ended");
        }
        if let Some(tunnel) = link.take_tunnel() {
            tunnel.await;
        }
    }

    async fn hold_http2(&self, mut socket: Stall<Socket>, peer: Option<IpAddr>, mut stop: watch::Receiver<bool>) {
        let link = Arc::new(Link::default());
        socket.tell(Arc::clone(&link));
        let (unused, limit) = (self.proxy().header_read_timeout, self.proxy().idle_timeout());
        let door = Door { current: RefCell::new(self.current.clone()), peer, link: Arc::clone(&link) };
        let mut connection = Box::pin(self.http2.serve_connection(TokioIo::new(socket), door));
        let serving = async {
            let over = async {
                tokio::select! {
                    () = stopping(&mut stop) => {}
                    () = idle(&link, unused) => {}
                }
            };
            tokio::select! {
                ended = telling(connection.as_mut(), &link) => return ended,
                () = over => connection.as_mut().graceful_shutdown(),
            }
            // A client that doesn't take its leave is left.
            tokio::select! {
                ended = telling(connection.as_mut(), &link) => ended,
                () = idle(&link, unused) => Ok(()),
            }
        };
        let ended = tokio::select! {
            ended = serving => ended,
            () = stuck(&link, limit) => {
                tracing::debug!("a client takes nothing of a response; its connection is cut off");
                Ok(())
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a client's connection ended");
        }
    }
}

/// A connection of HTTP/2, which tells after each turn whether it has written all that it had.
async fn telling<F: Future>(mut connection: Pin<&mut F>, link: &Link) -> F::Output {
    poll_fn(|cx| {
        let polled = connection.as_mut().poll(cx);
        if !link.is_behind() {
            link.catch_up();
        }
        polled
    })
    .await
}

/// Resolves when offramp stops.
async fn stopping(stop: &mut watch::Receiver<bool>) {
    // An error would mean that the accept loop is gone, and its connections with it.
    let _ = stop.wait_for(|&stopping| stopping).await;
}

/// Resolves once a connection has had no exchange for so long.
async fn idle(link: &Link, limit: Duration) {
    let (mut seen, mut since) = (link.begun(), Instant::now());
    loop {
        tokio::time::sleep_until(since + limit).await;
        let begun = link.begun();
        if begun == seen && !link.is_busy() {
            return;
        }
        (seen, since) = (begun, Instant::now());
    }
}

/// Resolves once a response has waited for its client for `limit`, at most a quarter later.
async fn stuck(link: &Link, limit: Duration) {
    while !link.is_stuck(limit) {
        tokio::time::sleep(limit / 4).await;
    }
}

/// Reads as much as it takes to tell HTTP/2 from HTTP/1, and returns that too.
async fn begin_http<T: AsyncRead + Unpin>(socket: &mut T) -> io::Result<(Bytes, bool)> {
    let mut read = BytesMut::with_capacity(PREFACE.len());
    while read.len() < PREFACE.len() {
        let mut rest = (&mut *socket).take((PREFACE.len() - read.len()) as u64);
        let n = rest.read_buf(&mut read).await?;
        if n == 0 || !PREFACE.starts_with(&read) {
            break;
        }
    }
    let http2 = *read == *PREFACE;
    Ok((read.freeze(), http2))
}

/// The stack of the proxy as it is now.
#[derive(Clone)]
struct Current {
    stack: Stack,
    live: watch::Receiver<Serving>,
}

impl Current {
    /// For one request. As long as nothing has changed, to find that out is one atomic load.
    fn stack(&mut self) -> Stack {
        if self.live.has_changed().unwrap_or(false) {
            self.stack = stack::build(&self.live.borrow_and_update().proxy);
        }
        self.stack.clone()
    }
}

/// Where hyper hands requests to the stack: knows who is on the other side.
struct Door {
    current: RefCell<Current>,
    peer: Option<IpAddr>,
    link: Arc<Link>,
}

impl hyper::service::Service<Request<Incoming>> for Door {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = <Stack as Service<Exchange>>::Future;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let exchange = Exchange {
            request,
            arrived: Instant::now(),
            peer: self.peer,
            link: Arc::clone(&self.link),
            route: None,
            offloaded: false,
        };
        // Each layer of the stack is ready at any time.
        let mut stack = self.current.borrow_mut().stack();
        stack.call(exchange)
    }
}
