//! The socket of a client's HTTP/1 connection, as hyper sees it. It does six things that hyper can't be asked for, or not as cheaply:
//!
//! - **Half-close.** To hyper the end of what a client sends is either the end of the client or nothing at all. A client that has sent
//!   all of its request may close its half and still wait for the response (RFC 9112 §9.6 leaves that to the server). So hyper is
//!   told that it is nothing, and the wire looks for it: while the exchange holds the connection ([`Link::hold`]) the upstream gets
//!   it, and decides. Should nothing come back for [`HALF_CLOSED_WAIT`], the client is taken to have left. (hyper would also take a
//!   second buffer of 8 KB for each request, to look.)
//! - **Interim responses** (1xx) are written in front of the response. Where the client doesn't take what was written before, they
//!   are left out: nobody may depend on them.
//! - **Heads that hyper refuses** get the same problem details as all that offramp refuses, instead of hyper's bare status.
//! - **Resets.** A response that the upstream's reset broke off breaks off with a reset here, and so does one that has no other way to
//!   show that it isn't complete.
//! - **Late heads.** A head has `header_read_timeout` to arrive, from the end of the response before it. hyper has that too, with a new
//!   timer for each request; here one is put off.
//! - **Lingering.** A connection that is closed while the client still sends would be reset, and the reset could overtake the
//!   response. So it is closed in one direction, and what still comes is thrown away, for [`LINGER`] at most.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use crate::proxy::Proxy;
use crate::proxy::link::Link;
use crate::proxy::rescue;
use crate::proxy::stall::Stall;
use crate::socket::Socket;

/// How long a half-closed client is waited for while nothing comes for it.
const HALF_CLOSED_WAIT: Duration = Duration::from_secs(2);
/// How long what nobody reads is thrown away for.
const LINGER: Duration = Duration::from_secs(2);

/// The socket `io` of the connection `link`.
pub struct Wire {
    io: Stall<Socket>,
    link: Arc<Link>,
    proxy: Arc<Proxy>,
    /// Goes out before anything of hyper's.
    out: Bytes,
    /// Exchanges of which something was written.
    answered: usize,
    /// hyper has bytes that the socket didn't take.
    blocked: bool,
    ended: Option<Ended>,
    /// Runs while a head is waited for.
    head: Pin<Box<Sleep>>,
    /// Exchanges that had begun when that began.
    head_after: usize,
    refused: bool,
    closing: Option<Pin<Box<Sleep>>>,
}

impl Drop for Wire {
    fn drop(&mut self) {
        if self.link.resets() {
            self.io.get_ref().reset();
        }
    }
}

/// The client has closed its half, and hyper hasn't been told.
struct Ended {
    since: Instant,
    timer: Pin<Box<Sleep>>,
}

impl Wire {
    /// Wraps a socket.
    pub fn new(io: Stall<Socket>, link: Arc<Link>, proxy: Arc<Proxy>) -> Self {
        Self {
            head: Box::pin(tokio::time::sleep(proxy.header_read_timeout)),
            head_after: 0,
            io,
            link,
            proxy,
            out: Bytes::new(),
            answered: 0,
            blocked: false,
            ended: None,
            refused: false,
            closing: None,
        }
    }

    /// Before hyper writes: what goes out first.
    fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            while self.out.has_remaining() {
                let written = ready!(Pin::new(&mut self.io).poll_write(cx, &self.out))?;
                if written == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                self.out.advance(written);
            }
            // Between two responses, or behind bytes that are still hyper's, there is no place for one.
            match self.link.take_interim() {
                Some(interim) if !self.blocked && self.link.begun() > self.answered => self.out = interim,
                Some(_) => {}
                None => return Poll::Ready(Ok(())),
            }
        }
    }

    /// Whether these bytes are hyper's own refusal of a head: then the problem goes out in their place.
    fn refuse(&mut self, bytes: &[u8]) -> bool {
        if self.link.begun() > self.answered {
            self.answered = self.link.begun();
            return false;
        }
        let Some(error) = rescue::refusal(bytes) else { return false };
        self.refused = true;
        self.proxy.meters().refused(error.status().as_u16());
        self.out = rescue::written(self.proxy.name(), &error);
        true
    }

    fn wrote(&mut self, polled: &Poll<io::Result<usize>>) {
        self.blocked = polled.is_pending();
        if let (Some(ended), true) = (&mut self.ended, polled.is_ready()) {
            ended.since = Instant::now();
        }
    }

    /// Nothing has come. An error once that has been so for too long.
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.link.is_busy() {
            return Poll::Pending;
        }
        if self.head_after != self.link.begun() {
            self.head_after = self.link.begun();
            self.head.as_mut().reset(Instant::now() + self.proxy.header_read_timeout);
        }
        ready!(self.head.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "no request came within header_read_timeout")))
    }

    /// While hyper doesn't read: whether the client still can send. An error once it has left.
    fn poll_watch(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.ended.is_none() && !self.io.has_unread() {
            // As long as the next request waits in here, nobody has to know what comes behind it.
            let mut next = [0; 64];
            let mut buf = ReadBuf::new(&mut next);
            ready!(Pin::new(&mut self.io).poll_read(cx, &mut buf))?;
            if !buf.filled().is_empty() {
                self.io.unread(Bytes::copy_from_slice(buf.filled()));
                return Poll::Pending;
            }
            self.end();
            // The exchange hears of it in its next turn.
            cx.waker().wake_by_ref();
        }
        if self.ended.is_some() && !self.link.is_unfinished() {
            ready!(self.poll_ended(cx))?;
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the client has left")));
        }
        Poll::Pending
    }

    fn end(&mut self) {
        self.link.half_close();
        let now = Instant::now();
        self.ended = Some(Ended { since: now, timer: Box::pin(tokio::time::sleep_until(now + HALF_CLOSED_WAIT)) });
    }

    /// The end of what the client sends, once hyper may know of it.
    fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(ended) = &mut self.ended else { return Poll::Ready(Ok(())) };
        while self.link.holds() {
            ready!(ended.timer.as_mut().poll(cx));
            let until = ended.since + HALF_CLOSED_WAIT;
            if until <= Instant::now() {
                break;
            }
            ended.timer.as_mut().reset(until);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.ended.is_some() {
            return this.poll_ended(cx);
        }
        let before = buf.filled().len();
        match Pin::new(&mut this.io).poll_read(cx, buf) {
            Poll::Ready(read) => read?,
            Poll::Pending => return this.poll_head(cx),
        }
        if buf.filled().len() > before || buf.remaining() == 0 || !this.link.holds() {
            return Poll::Ready(Ok(()));
        }
        this.end();
        this.poll_ended(cx)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_out(cx))?;
        if self.refuse(buf) {
            return Poll::Ready(Ok(buf.len()));
        }
        let polled = Pin::new(&mut self.io).poll_write(cx, buf);
        self.wrote(&polled);
        polled
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        ready!(self.poll_out(cx))?;
        if let [buf] = bufs
            && self.refuse(buf)
        {
            return Poll::Ready(Ok(buf.len()));
        }
        self.answered = self.link.begun();
        let polled = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.wrote(&polled);
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // hyper asks for it once it has nothing left to write.
        let this = &mut *self;
        this.blocked = false;
        ready!(this.poll_out(cx))?;
        ready!(Pin::new(&mut this.io).poll_flush(cx))?;
        if this.link.is_busy()
            && !this.link.is_tunnel()
            && let Poll::Ready(left) = this.poll_watch(cx)
        {
            return Poll::Ready(left);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        ready!(this.poll_out(cx))?;
        if this.closing.is_none() {
            ready!(Pin::new(&mut this.io).poll_shutdown(cx))?;
            if !this.refused && !this.link.is_unread() {
                return Poll::Ready(Ok(()));
            }
        }
        let timer = this.closing.get_or_insert_with(|| Box::pin(tokio::time::sleep(LINGER)));
        let mut scrap = [0; 4096];
        loop {
            let mut buf = ReadBuf::new(&mut scrap);
            match Pin::new(&mut this.io).poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => {}
                Poll::Ready(_) => return Poll::Ready(Ok(())),
                Poll::Pending => break,
            }
        }
        timer.as_mut().poll(cx).map(Ok)
    }
}
