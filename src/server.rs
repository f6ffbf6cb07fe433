//! Accept loops: brings connections to a proxy's stack, and takes leave of them on shutdown.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tower::Service;

use crate::proxy::body::Body;
use crate::proxy::stall::Stall;
use crate::proxy::{Exchange, Proxy};
use crate::stack::{self, Stack};

mod listener;

pub use listener::Listener;

/// Pause after an accept that failed for want of descriptors or memory: trying again at once would only spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// What is left after `drain_timeout` to those who then get a `shutting_down` instead of a response.
const LAST_WORDS: Duration = Duration::from_millis(250);

/// Serves a proxy on a listener until `shutdown` resolves, and then until its requests are done.
///
/// From then on nothing is accepted, idle connections close, requests in line and in flight are finished; after `drain_timeout`
/// who still waits gets `shutting_down` and whatever is left is cut off. Resolves when no connection is left. Dropping it cuts all
/// connections off at once.
///
/// `header_read_timeout` counts from the moment at which the last response was done, so it is also how long an idle connection is
/// kept. A client that closes its half of the connection has left, as far as anybody can tell: its request is given up.
pub async fn serve(listener: Listener, proxy: Arc<Proxy>, shutdown: impl Future<Output = ()>) {
    let (stopping, stop) = watch::channel(false);
    let open = Arc::new(Semaphore::new(proxy.max_connections.min(Semaphore::MAX_PERMITS)));
    let stack = stack::build(&proxy);
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(proxy.header_read_timeout)
        // What the upstream doesn't send, the client doesn't get.
        .auto_date_header(false);
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let accepting = async {
            // Beyond the limit connections wait in the system's backlog. The semaphore is never closed.
            let place = Arc::clone(&open).acquire_owned().await.ok();
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            biased;
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => continue,
            accepted = accepting => accepted,
        };
        let (socket, peer) = match accepted {
            Ok(connection) => connection,
            Err(error) => {
                if !is_of_one_connection(&error) {
                    tracing::error!(proxy = proxy.name(), %error, "cannot accept connections; trying again");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
                continue;
            }
        };
        let (http, stack, stop, limit) = (http.clone(), stack.clone(), stop.clone(), proxy.idle_timeout());
        connections.spawn(async move {
            let _place = place;
            converse(http, Stall::new(socket, limit), Door { stack, peer }, stop).await;
        });
    }
    drop(listener);
    let _ = stopping.send(true);
    let all_gone = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(proxy.drain_timeout, all_gone).await.is_ok() {
        return;
    }
    proxy.line().close();
    let last_words = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(LAST_WORDS, last_words).await.is_err() {
        tracing::warn!(proxy = proxy.name(), connections = connections.len(), "cut off what was not done within drain_timeout");
    }
    connections.shutdown().await;
}

/// One connection, from its first byte to its last.
async fn converse<T>(http: http1::Builder, io: T, door: Door, mut stop: watch::Receiver<bool>)
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut connection = pin!(http.serve_connection(TokioIo::new(io), door));
    let stopping = async move {
        // An error would mean that the accept loop is gone, and its connections with it.
        let _ = stop.wait_for(|&stopping| stopping).await;
    };
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopping => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a client's connection ended");
    }
}

/// Errors of a connection that was gone before it was accepted: the next one may be fine.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

/// Where hyper hands requests to the stack: knows who is on the other side.
struct Door {
    stack: Stack,
    peer: Option<IpAddr>,
}

impl hyper::service::Service<Request<Incoming>> for Door {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = <Stack as Service<Exchange>>::Future;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        // Each layer of the stack is ready at any time.
        self.stack.clone().call(Exchange { request, arrived: Instant::now(), peer: self.peer, route: None })
    }
}
