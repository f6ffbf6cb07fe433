//! A socket whose writes may not stand still for ever.
//!
//! A peer that has stopped reading keeps hyper in a flush, where no body is polled and no timer of a body runs. So this limit sits
//! below hyper, on the socket. It costs nothing while writes succeed.
//!
//! It also takes back what somebody has read who only wanted to see what comes, and tells a client's connection when its writes wait: to
//! hyper a body that breaks off is the end of all that wasn't written yet, so the body waits with that ([`Link::is_behind`]).

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::link::Link;

/// Fails a write with [`io::ErrorKind::TimedOut`] once no byte has moved in either direction for `limit`.
pub struct Stall<T> {
    io: T,
    limit: Duration,
    /// Runs while a write waits.
    timer: Option<Pin<Box<Sleep>>>,
    waiting: bool,
    /// Read already, and to be read again.
    unread: Bytes,
    /// Told when writes wait, and when they no longer do.
    link: Option<Arc<Link>>,
    behind: bool,
}

impl<T> Stall<T> {
    /// Wraps a socket.
    pub fn new(io: T, limit: Duration) -> Self {
        Self { io, limit, timer: None, waiting: false, unread: Bytes::new(), link: None, behind: false }
    }

    /// Tells this connection of its writes.
    pub fn tell(&mut self, link: Arc<Link>) {
        self.link = Some(link);
    }

    fn set_behind(&mut self, behind: bool) {
        if self.behind != behind
            && let Some(link) = &self.link
        {
            self.behind = behind;
            link.set_behind(behind);
        }
    }

    /// The socket.
    pub fn get_ref(&self) -> &T {
        &self.io
    }

    /// Takes back what was read: it comes first in the next read.
    pub fn unread(&mut self, bytes: Bytes) {
        self.unread = bytes;
    }

    /// Whether something was taken back and not read again.
    pub fn has_unread(&self) -> bool {
        self.unread.has_remaining()
    }

    fn poll_stalled<R>(&mut self, polled: Poll<io::Result<R>>, cx: &mut Context<'_>) -> Poll<io::Result<R>> {
        self.set_behind(polled.is_pending());
        if polled.is_ready() {
            self.waiting = false;
            return polled;
        }
        let until = Instant::now() + self.limit;
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
        if !self.waiting {
            self.waiting = true;
            timer.as_mut().reset(until);
        }
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer has stopped reading")))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Stall<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.unread.has_remaining() {
            let length = self.unread.len().min(buf.remaining());
            buf.put_slice(&self.unread.split_to(length));
            if buf.remaining() > 0 {
                // What follows too, if it is there: hyper would double its buffer for a second read. What is wrong with the socket
                // shows again in the next one.
                let _ = Pin::new(&mut self.io).poll_read(cx, buf);
            }
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        if buf.filled().len() > before {
            self.waiting = false;
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Stall<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write(cx, buf);
        self.poll_stalled(polled, cx)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.poll_stalled(polled, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.io).poll_flush(cx);
        self.set_behind(polled.is_pending());
        polled
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
