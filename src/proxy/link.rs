//! What a client's connection and the exchanges on it know of each other.
//!
//! The connection is one task: hyper's server, the exchange in it, and the upstream's connection below that (`lease.rs`) take turns
//! in the same poll, so nothing here is ever fought over.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use tokio::time::Instant;

use crate::clock::as_ms;

/// A tunnel that a connection has become.
pub type Tunnel = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Interim responses that may wait to be written; an upstream that sends more of them is not waited for.
const MOST_INTERIM: usize = 16;

/// One client's connection.
#[derive(Default)]
pub struct Link {
    /// Exchanges begun, ever.
    begun: AtomicUsize,
    /// Exchanges that haven't ended.
    busy: AtomicUsize,
    /// The end of what the client sends is no reason to give up: its request is complete, and the upstream decides.
    holds: AtomicBool,
    /// The client has closed its half while `holds`.
    half_closed: AtomicBool,
    /// It did so in the middle of a request.
    unfinished: AtomicBool,
    /// A request's body was left unread.
    unread: AtomicBool,
    /// The client reads a response to the end of the connection (HTTP/1.0), and hears of no interim ones.
    unframed: AtomicBool,
    /// The connection is to break, not to end.
    resets: AtomicBool,
    /// The client has to take something before more can be written.
    is_behind: AtomicBool,
    has_interim: AtomicBool,
    interim: Mutex<VecDeque<Bytes>>,
    tunnel: Mutex<Option<Tunnel>>,
    is_tunnel: AtomicBool,
    /// Of the responses of an HTTP/2 connection.
    paces: Mutex<Vec<Weak<Pace>>>,
    /// Turns of it after which all that it had was written.
    caught_up: Arc<AtomicUsize>,
}

/// Whose turn it is with a response on an HTTP/2 connection. There a client that takes nothing of one stream keeps hyper from polling
/// that body, while the connection is as lively as ever; so no timer of the body or the socket sees it.
#[derive(Debug)]
pub struct Pace {
    began: Instant,
    /// Since when the client is to take what there is, in milliseconds after `began`; [`UPSTREAMS_TURN`] if there is nothing.
    since: AtomicU64,
    /// What `caught_up` said when a frame was last given to the connection.
    given: AtomicUsize,
    caught_up: Arc<AtomicUsize>,
}

const UPSTREAMS_TURN: u64 = u64::MAX;

impl Pace {
    /// Something more is to be written.
    pub fn gives(&self) {
        self.given.store(self.caught_up.load(Ordering::Acquire), Ordering::Relaxed);
    }

    /// Whether all was written since.
    pub fn is_written(&self) -> bool {
        self.caught_up.load(Ordering::Acquire) != self.given.load(Ordering::Relaxed)
    }

    /// There is something to take.
    pub fn clients_turn(&self) {
        self.since.store(as_ms(self.began.elapsed()), Ordering::Relaxed);
    }

    /// There is nothing to take.
    pub fn upstreams_turn(&self) {
        self.since.store(UPSTREAMS_TURN, Ordering::Relaxed);
    }

    fn is_stuck(&self, limit: Duration) -> bool {
        let since = self.since.load(Ordering::Relaxed);
        since != UPSTREAMS_TURN && self.began.elapsed() > Duration::from_millis(since) + limit
    }
}

impl Link {
    /// Begins an exchange.
    pub fn begin(&self) {
        self.begun.fetch_add(1, Ordering::Relaxed);
        self.busy.fetch_add(1, Ordering::Relaxed);
    }

    /// Ends an exchange.
    pub fn end(&self) {
        self.busy.fetch_sub(1, Ordering::Relaxed);
    }

    /// Exchanges begun, ever.
    pub fn begun(&self) -> usize {
        self.begun.load(Ordering::Relaxed)
    }

    /// Whether an exchange goes on.
    pub fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Relaxed) > 0
    }

    /// Until the hold is dropped, a half-close is the upstream's to judge.
    pub fn hold(self: &Arc<Self>) -> Hold {
        self.holds.store(true, Ordering::Relaxed);
        Hold(Arc::clone(self))
    }

    /// The client has closed its half in the middle of its request: hyper is to see that for itself.
    pub fn leave_unfinished(&self) {
        self.unfinished.store(true, Ordering::Relaxed);
        self.holds.store(false, Ordering::Relaxed);
    }

    /// Whether it has.
    pub fn is_unfinished(&self) -> bool {
        self.unfinished.load(Ordering::Relaxed)
    }

    /// Whether a half-close is held back.
    pub fn holds(&self) -> bool {
        self.holds.load(Ordering::Relaxed)
    }

    /// The client has closed its half.
    pub fn half_close(&self) {
        self.half_closed.store(true, Ordering::Relaxed);
    }

    /// Whether it has.
    pub fn is_half_closed(&self) -> bool {
        self.half_closed.load(Ordering::Relaxed)
    }

    /// A request's body won't be read to its end.
    pub fn leave_unread(&self) {
        self.unread.store(true, Ordering::Relaxed);
    }

    /// Whether the client may still be sending what nobody reads.
    pub fn is_unread(&self) -> bool {
        self.unread.load(Ordering::Relaxed)
    }

    /// The client speaks HTTP/1.0.
    pub fn set_unframed(&self) {
        self.unframed.store(true, Ordering::Relaxed);
    }

    /// Whether it does.
    pub fn is_unframed(&self) -> bool {
        self.unframed.load(Ordering::Relaxed)
    }

    /// The connection ends with a reset: the upstream's did, or its orderly end would look like the response's.
    pub fn reset(&self) {
        self.resets.store(true, Ordering::Relaxed);
    }

    /// Whether it does.
    pub fn resets(&self) -> bool {
        self.resets.load(Ordering::Relaxed)
    }

    /// The client has to take something before more can be written, or no longer has.
    pub fn set_behind(&self, is_behind: bool) {
        self.is_behind.store(is_behind, Ordering::Relaxed);
    }

    /// Whether it has. The connection has its turn once it no longer has.
    pub fn is_behind(&self) -> bool {
        self.is_behind.load(Ordering::Relaxed)
    }

    /// Passes on an interim response (1xx), to be written before the response itself.
    pub fn interim(&self, status: StatusCode, headers: &HeaderMap) {
        if self.is_unframed() {
            return;
        }
        let mut waiting = lock(&self.interim);
        if waiting.len() < MOST_INTERIM {
            waiting.push_back(encode(status, headers));
            self.has_interim.store(true, Ordering::Release);
        }
    }

    /// The next interim response to be written.
    pub fn take_interim(&self) -> Option<Bytes> {
        if !self.has_interim.load(Ordering::Acquire) {
            return None;
        }
        let mut waiting = lock(&self.interim);
        let next = waiting.pop_front();
        self.has_interim.store(!waiting.is_empty(), Ordering::Release);
        next
    }

    /// Watches the pace of a response. It is the upstream's turn.
    pub fn pace(&self) -> Arc<Pace> {
        let caught_up = Arc::clone(&self.caught_up);
        let given = AtomicUsize::new(caught_up.load(Ordering::Acquire));
        let pace = Arc::new(Pace { began: Instant::now(), since: AtomicU64::new(UPSTREAMS_TURN), given, caught_up });
        let mut paces = lock(&self.paces);
        if paces.len() == paces.capacity() {
            paces.retain(|pace| pace.strong_count() > 0);
        }
        paces.push(Arc::downgrade(&pace));
        pace
    }

    /// All that the HTTP/2 connection had to write is written.
    pub fn catch_up(&self) {
        self.caught_up.fetch_add(1, Ordering::AcqRel);
    }

    /// Whether the client has taken nothing of a response for so long, although there was something.
    pub fn is_stuck(&self, limit: Duration) -> bool {
        lock(&self.paces).iter().filter_map(Weak::upgrade).any(|pace| pace.is_stuck(limit))
    }

    /// Leaves a tunnel for the connection to become once hyper has written the `101`.
    pub fn leave_tunnel(&self, tunnel: Tunnel) {
        *lock(&self.tunnel) = Some(tunnel);
        self.is_tunnel.store(true, Ordering::Relaxed);
    }

    /// Whether what comes from now on is the tunnel's.
    pub fn is_tunnel(&self) -> bool {
        self.is_tunnel.load(Ordering::Relaxed)
    }

    /// The tunnel, if there is one.
    pub fn take_tunnel(&self) -> Option<Tunnel> {
        lock(&self.tunnel).take()
    }
}

/// Keeps a half-close from ending the connection.
#[derive(Debug)]
pub struct Hold(Arc<Link>);

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.holds.store(false, Ordering::Relaxed);
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("busy", &self.busy).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An interim response as HTTP/1.1 writes it. Without what belongs to the upstream's own connection.
fn encode(status: StatusCode, headers: &HeaderMap) -> Bytes {
    let mut head = format!("HTTP/1.1 {} {}\r\n", status.as_u16(), status.canonical_reason().unwrap_or_default()).into_bytes();
    for (name, value) in headers {
        if !super::headers::is_hop_by_hop(name) {
            head.extend_from_slice(name.as_str().as_bytes());
            head.extend_from_slice(b": ");
            head.extend_from_slice(value.as_bytes());
            head.extend_from_slice(b"\r\n");
        }
    }
    head.extend_from_slice(b"\r\n");
    head.into()
}
