//! Accept loops: brings connections to a proxy's stack, and takes leave of them on shutdown.

mod converse;
mod listener;
mod turns;
mod wire;

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::proxy::Proxy;
use crate::tls;
use converse::Conversation;

pub use listener::Listener;

/// Pause after an accept that failed for want of descriptors or memory: trying again at once would only spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// What is left after `drain_timeout` to those who then get a `shutting_down` instead of a response.
const LAST_WORDS: Duration = Duration::from_millis(250);

/// What a listener leads to. What comes in its place through a channel holds for connections that come later, and the proxy also for the
/// requests that come later on connections that are there.
#[derive(Debug, Clone)]
pub struct Serving {
    /// Who answers.
    pub proxy: Arc<Proxy>,
    /// What is spoken; none: plain.
    pub tls: Option<Arc<tls::Server>>,
}

/// Serves a proxy on a listener until `shutdown` resolves, and then until its requests are done.
///
/// From then on nothing is accepted, idle connections close, requests in line and in flight are finished; after `drain_timeout`
/// who still waits gets `shutting_down` and whatever is left is cut off. Resolves when no connection is left. Dropping it cuts all
/// connections off at once.
///
/// `header_read_timeout` counts from the moment at which the last response was done, so it is also how long an idle connection is
/// kept.
pub async fn serve(listener: Listener, mut live: watch::Receiver<Serving>, shutdown: impl Future<Output = ()>) {
    let (stopping, stop) = watch::channel(false);
    let mut conversation = Arc::new(Conversation::new(&mut live));
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut shutdown => break,
            Ok(()) = live.changed() => {
                conversation = Arc::new(Conversation::new(&mut live));
                continue;
            }
            Some(_) = connections.join_next() => continue,
            // Beyond the limit connections wait in the system's backlog.
            accepted = listener.accept(), if connections.len() < conversation.proxy().max_connections => accepted,
        };
        let (socket, peer) = match accepted {
            Ok(connection) => connection,
            Err(error) => {
                if !is_of_one_connection(&error) {
                    let proxy = conversation.proxy().name();
                    tracing::error!(proxy, %error, "cannot accept connections; trying again");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
                continue;
            }
        };
        connections.spawn(Arc::clone(&conversation).hold(socket, peer, stop.clone()));
    }
    drop(listener);
    let _ = stopping.send(true);
    let all_gone = async { while connections.join_next().await.is_some() {} };
    let proxy = Arc::clone(&live.borrow().proxy);
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
