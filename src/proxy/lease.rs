//! A connection to the upstream, lent to one exchange.
//!
//! HTTP/1: the connection is no task of its own. Whoever waits for the response, and later the response's body, takes its turns for
//! it ([`Lease::drive`]), in the task of the client's connection. So a request wakes no other thread, what came in one read leaves
//! in one write, and dropping the lease closes the socket at once. Only an exchange whose request is still being sent when its
//! response begins needs both directions to move on their own: its connection becomes a task ([`Lease::detach`]).
//!
//! HTTP/2: the connection is shared, and a task; the lease counts as one of its streams.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use futures_util::future::Either;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::AbortHandle;
use tokio::time::{Instant, Sleep};

use super::link::{Hold, Link};
use super::pool::Pool;
use super::upload::Upload;

/// What takes a connection's turns; done when the connection is.
pub type Driver = Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>;

/// A timer that is set anew for each exchange: to put one off is cheap, to make one is not.
pub type Timer = Pin<Box<Sleep>>;

/// An HTTP/1 connection. Dropped, it closes.
pub struct Exclusive {
    sender: http1::SendRequest<Upload>,
    driver: Option<Driver>,
    /// Tells [`HalfClosing`] to close the sending half.
    closing: Arc<AtomicBool>,
    task: Option<AbortHandle>,
    timer: Option<Timer>,
}

impl Exclusive {
    /// A connection that has shaken hands.
    pub fn new(sender: http1::SendRequest<Upload>, driver: Driver, closing: Arc<AtomicBool>) -> Self {
        Self { sender, driver: Some(driver), closing, task: None, timer: None }
    }

    /// Whether it can take a request: nothing has come and nobody has closed it since it was put aside. Costs a system call only if
    /// something has happened to the socket.
    pub fn is_ready(&mut self) -> bool {
        self.drive(&mut Context::from_waker(Waker::noop()));
        self.driver.is_some() && self.sender.is_ready()
    }

    fn drive(&mut self, cx: &mut Context<'_>) {
        if let Some(driver) = &mut self.driver
            && let Poll::Ready(ended) = driver.as_mut().poll(cx)
        {
            if let Err(error) = ended {
                tracing::debug!(%error, "a connection to the upstream ended");
            }
            self.driver = None;
        }
    }
}

impl Drop for Exclusive {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

/// An HTTP/2 connection, shared. It closes when the last who holds it lets go.
#[derive(Debug)]
pub struct Shared {
    sender: http2::SendRequest<Upload>,
    streams: AtomicUsize,
    max_streams: Arc<AtomicUsize>,
    /// When it last had a stream.
    used: Mutex<Instant>,
}

impl Shared {
    /// A connection that has shaken hands, driven by a task, which keeps `max_streams` up to date.
    pub fn new(sender: http2::SendRequest<Upload>, max_streams: Arc<AtomicUsize>) -> Self {
        Self { sender, streams: AtomicUsize::new(0), max_streams, used: Mutex::new(Instant::now()) }
    }

    /// Streams in use.
    pub fn streams(&self) -> usize {
        self.streams.load(Ordering::Relaxed)
    }

    /// Streams that the upstream allows.
    pub fn max_streams(&self) -> usize {
        self.max_streams.load(Ordering::Relaxed)
    }

    /// Whether it takes no more requests.
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Whether it has had no stream for so long.
    pub fn is_unused_for(&self, time: Duration) -> bool {
        self.streams() == 0 && self.used.lock().unwrap_or_else(PoisonError::into_inner).elapsed() > time
    }

    fn end_stream(&self) {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        self.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

enum Connection {
    Http1(Box<Exclusive>),
    Http2(Arc<Shared>),
    /// It is the pool's again.
    Returned,
}

/// A connection for one exchange. Dropped, it closes (or its stream does); [`Lease::give_back`] keeps it for the next.
pub struct Lease {
    pool: Arc<Pool>,
    connection: Connection,
    reused: bool,
    /// The client's connection, whose half-close the upstream is told.
    link: Option<Arc<Link>>,
    hold: Option<Hold>,
}

impl Lease {
    /// Of an HTTP/1 connection; `reused` if it has served before.
    pub fn exclusive(pool: Arc<Pool>, connection: Box<Exclusive>, reused: bool) -> Self {
        Self { pool, connection: Connection::Http1(connection), reused, link: None, hold: None }
    }

    /// Of a stream of an HTTP/2 connection.
    pub fn stream(pool: Arc<Pool>, connection: Arc<Shared>, reused: bool) -> Self {
        connection.streams.fetch_add(1, Ordering::Relaxed);
        Self { pool, connection: Connection::Http2(connection), reused, link: None, hold: None }
    }

    /// Whether the upstream may have closed the connection before this request came to it.
    pub fn is_reused(&self) -> bool {
        self.reused
    }

    /// Whether it speaks HTTP/2.
    pub fn is_http2(&self) -> bool {
        matches!(self.connection, Connection::Http2(_))
    }

    /// Sends a request. The future makes progress only while the lease is driven.
    pub fn send(&mut self, request: Request<Upload>) -> impl Future<Output = Sent> + Send + use<> {
        match &mut self.connection {
            Connection::Http1(connection) => Either::Left(connection.sender.try_send_request(request)),
            Connection::Http2(connection) => Either::Right(connection.sender.clone().try_send_request(request)),
            // Giving back takes the lease.
            Connection::Returned => unreachable!(),
        }
    }

    /// Takes a turn for the connection. What its exchange waits for is to be polled after this, and with the same waker.
    pub fn drive(&mut self, cx: &mut Context<'_>) {
        if let Connection::Http1(connection) = &mut self.connection {
            if let Some(link) = &self.link
                && link.is_half_closed()
            {
                connection.closing.store(true, Ordering::Relaxed);
            }
            connection.drive(cx);
        }
    }

    /// The connection's timer, set to `until`.
    pub fn take_timer(&mut self, until: Instant) -> Timer {
        let Connection::Http1(connection) = &mut self.connection else { return Box::pin(tokio::time::sleep_until(until)) };
        match connection.timer.take() {
            Some(mut timer) => {
                timer.as_mut().reset(until);
                timer
            }
            None => Box::pin(tokio::time::sleep_until(until)),
        }
    }

    /// Keeps it for the next exchange.
    pub fn keep_timer(&mut self, timer: Timer) {
        if let Connection::Http1(connection) = &mut self.connection {
            connection.timer = Some(timer);
        }
    }

    /// What the exchange is to be polled with. Where it has just taken the connection's turn itself, nothing else will wake it: what
    /// is there is there now.
    pub fn context<'a>(&self, cx: &mut Context<'a>) -> Context<'a> {
        Context::from_waker(if self.is_driven() { Waker::noop() } else { cx.waker() })
    }

    /// Whether anything is to be driven.
    pub fn is_driven(&self) -> bool {
        matches!(&self.connection, Connection::Http1(connection) if connection.driver.is_some())
    }

    /// All of the request is there: if the client closes its half, the upstream is told, and decides. Whether it is to be told at once.
    pub fn follow(&mut self, link: Option<&Arc<Link>>) -> bool {
        if self.link.is_some() {
            return false;
        }
        self.link = link.cloned();
        link.is_some_and(|link| link.is_half_closed())
    }

    /// Holds the client's connection as long as the lease lasts.
    pub fn hold(&mut self, hold: Option<Hold>) {
        self.hold = hold;
    }

    /// From here on the client's half-close is nothing to the upstream.
    pub fn let_go(&mut self) {
        self.hold = None;
        self.link = None;
    }

    /// Lets the connection move on its own, for an exchange whose directions must not wait for each other. A client that closes its
    /// half of that has left.
    pub fn detach(&mut self) {
        self.let_go();
        if let Connection::Http1(connection) = &mut self.connection
            && let Some(driver) = connection.driver.take()
        {
            let task = tokio::spawn(async move {
                if let Err(error) = driver.await {
                    tracing::debug!(%error, "a connection to the upstream ended");
                }
            });
            connection.task = Some(task.abort_handle());
        }
    }

    /// Keeps the connection for the next exchange. Only after one that ended cleanly in both directions; its hold lasts until the
    /// client has the end, too.
    pub fn give_back(mut self) -> Option<Hold> {
        let hold = self.hold.take();
        let half_closed = self.link.as_ref().is_some_and(|link| link.is_half_closed());
        // A stream just ends.
        if let Connection::Http1(connection) = &self.connection
            && connection.driver.is_some()
            && !half_closed
            && let Connection::Http1(connection) = std::mem::replace(&mut self.connection, Connection::Returned)
        {
            self.pool.put(connection);
        }
        hold
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Connection::Http2(connection) = &self.connection {
            connection.end_stream();
        }
    }
}

/// What comes of a request; the request itself, where hyper has sent nothing of it.
pub type Sent = Result<Response<Incoming>, TrySendError<Request<Upload>>>;

/// A socket whose sending half can be closed while hyper still reads from it: how an upstream learns that the client has closed its
/// half, or has left.
///
/// It closes when hyper flushes: then nothing of the request is left to be written.
pub struct HalfClosing<T> {
    io: T,
    closing: Arc<AtomicBool>,
    closed: bool,
}

impl<T> HalfClosing<T> {
    /// Wraps a socket.
    pub fn new(io: T, closing: Arc<AtomicBool>) -> Self {
        Self { io, closing, closed: false }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for HalfClosing<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for HalfClosing<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        ready!(Pin::new(&mut this.io).poll_flush(cx))?;
        if !this.closed && this.closing.load(Ordering::Relaxed) {
            // An upstream that has gone already shows in what is read.
            this.closed = Pin::new(&mut this.io).poll_shutdown(cx).is_ready();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
