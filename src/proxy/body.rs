//! The response's body on its way to the client. It ends in exactly one of four ways:
//!
//! | ending | seen as |
//! |---|---|
//! | done | the last data frame of a known length, or the end of an unknown one |
//! | trailers | the frame behind the data |
//! | error | the upstream broke off, or no byte moved for `idle_timeout`: the client's connection breaks too |
//! | cancelled | dropped before any of these: the client has left |
//!
//! With it end: the connection to the upstream (kept after the first two, closed after the others), the capture, the place in the
//! line, and the measurement.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep};

use super::forward::io_error;
use super::lease::Lease;
use super::line::Place;
use super::link::{Hold, Link, Pace};
use super::measure::Measured;
use super::tee::{Barrier, Tee};
use super::upgrade::Handed;
use super::upload::{Progress, Stage};
use crate::capture::reassembly::Reassembly;
use crate::capture::{Capture, Kept};
use crate::episode::End;

/// How often it is looked whether another task has flushed what came before an error.
const FLUSH: Duration = Duration::from_millis(20);

/// A response's body: the upstream's, or a sentence of offramp's own.
#[derive(Default)]
pub struct Body {
    source: Source,
    /// The upload of the same exchange, if it has a body.
    upload: Option<Arc<Progress>>,
    link: Option<Arc<Link>>,
    pace: Option<Arc<Pace>>,
    /// The client may have closed its half; it waits for all of this.
    hold: Option<Hold>,
    tap: Option<Tap>,
    held: Option<Box<Held>>,
    ending: Option<Ending>,
    idle: Idle,
    upstream_time: Duration,
    // Dropped with the body, in this order: the measurement is the last to see it.
    place: Option<Place>,
    measured: Option<Measured>,
}

/// Where the bytes come from.
#[derive(Default)]
enum Source {
    #[default]
    Nothing,
    Text(Bytes),
    Upstream {
        body: Incoming,
        lease: Lease,
    },
    /// Announced by a `content-length`, but left out by the status (304).
    Unsent,
    /// Another protocol follows: what the body holds is handed to the tunnel.
    Switched(oneshot::Sender<Handed>),
}

/// The capture of an exchange, and what it keeps of the response.
struct Tap {
    capture: Box<Capture>,
    tee: Tee,
}

/// What waits for its barrier: the last frame (or the bare end), or the one with a stream's end marker. Boxed: a response that isn't
/// captured is to be small.
struct Held {
    barrier: Barrier,
    frame: Option<Frame<Bytes>>,
}

/// The last step of a body.
enum Ending {
    /// The error goes after the bytes before it, once they are flushed: in HTTP/1 one turn later, and with `patience` once the client has
    /// taken what waits for it. In HTTP/2 another task flushes, as soon as it can, and the reset of a stream takes back all of it that waits.
    Broken { error: BodyError, patience: bool },
    /// Nothing more.
    Over,
}

/// Why a body broke off. Only hyper sees it, and closes the client's connection in the middle of the message.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The upstream's connection or framing broke.
    #[error("the upstream broke off: {0}")]
    Upstream(#[source] hyper::Error),
    /// `idle_timeout`.
    #[error("no byte moved in either direction for {0:?}")]
    Idle(Duration),
}

impl BodyError {
    /// Whether the upstream's connection was reset.
    fn is_reset(&self) -> bool {
        matches!(self, Self::Upstream(error) if io_error(error).is_some_and(|error| error.kind() == io::ErrorKind::ConnectionReset))
    }
}

impl Body {
    /// A text of offramp's own.
    pub fn text(text: impl Into<Bytes>) -> Self {
        let mut body = Self::default();
        body.source = Source::Text(text.into());
        body
    }

    /// The reply to a request that stays here. `waited` is how long its body took to come, which is no time of offramp's own.
    pub(super) fn reply(text: impl Into<Bytes>, waited: Duration) -> Self {
        let mut body = Self::text(text);
        body.upstream_time = waited;
        body
    }

    /// Keeps hyper from taking away the `content-length` of a message without a body, which tells what the body would be (304).
    pub(super) fn leave_unsent(&mut self) {
        self.source = Source::Unsent;
    }

    /// The upstream's body. `took` is how long the upstream took to answer: connecting, and waiting for the head.
    pub(super) fn upstream(
        body: Incoming,
        lease: Lease,
        upload: Option<Arc<Progress>>,
        link: Option<Arc<Link>>,
        idle_limit: Duration,
        took: Duration,
    ) -> Self {
        let mut made = Self::default();
        made.source = Source::Upstream { body, lease };
        made.upload = upload;
        made.link = link;
        made.idle.limit = idle_limit;
        made.upstream_time = took;
        made
    }

    /// Keeps a half-close from ending the connection until the last byte is out.
    pub(super) fn keep_hold(&mut self, hold: Option<Hold>) {
        self.hold = hold;
    }

    /// Lets the client's HTTP/2 connection see whose turn it is.
    pub(super) fn keep_pace(&mut self, pace: Arc<Pace>) {
        self.pace = Some(pace);
    }

    /// That of a `101`: nothing, and what it holds is handed to the tunnel.
    pub(super) fn switched(handover: oneshot::Sender<Handed>, took: Duration) -> Self {
        let mut made = Self::default();
        made.source = Source::Switched(handover);
        made.upstream_time = took;
        made
    }

    /// How long the upstream took to answer.
    pub(super) fn upstream_time(&self) -> Duration {
        self.upstream_time
    }

    /// Captures what passes; as a stream, if it is one.
    pub(super) fn capture(&mut self, capture: Box<Capture>, stream: Option<Box<Reassembly>>) {
        let mut tee = Tee::new(capture.max_capture());
        tee.reassemble(stream);
        self.tap = Some(Tap { capture, tee });
    }

    /// Keeps a place in the line until the body has ended.
    pub(super) fn keep_place(&mut self, place: Place) {
        self.place = Some(place);
    }

    /// Measures until the body has ended.
    pub(super) fn keep_measure(&mut self, measured: Measured) {
        self.measured = Some(measured);
    }

    /// Ends the exchange with its last byte in hand, or without: gives the upstream's connection back or closes it, and concludes
    /// the capture. What that last byte (the head itself, for a body that is empty) has to wait for, if anything.
    pub(super) fn end(&mut self, end: End) -> Option<Barrier> {
        let sent = self.upload.as_ref().is_none_or(|upload| upload.stage() == Stage::Sent);
        if matches!(self.source, Source::Upstream { .. })
            && let Source::Upstream { lease, .. } = std::mem::take(&mut self.source)
            && end == End::Complete
            && sent
        {
            lease.give_back();
        }
        if let Some(link) = &self.link
            && !sent
        {
            link.leave_unread();
        }
        self.conclude(end)
    }

    /// Concludes the capture: what has to wait for that, if anything.
    fn conclude(&mut self, end: End) -> Option<Barrier> {
        let Tap { capture, tee } = self.tap.take()?;
        let (wait, late) = (capture.commit_wait(), capture.late());
        let response = tee.finish(end == End::Complete);
        let release = match &self.upload {
            None => capture.conclude(end, Some(&Kept::empty()), response),
            Some(upload) => capture.conclude(end, upload.kept(), response),
        };
        Some(Barrier::new(release?, wait, late))
    }

    /// The body is complete: what hyper gets next.
    fn finish(&mut self, cx: &mut Context<'_>, last: Option<Frame<Bytes>>) -> Polled {
        let barrier = self.end(End::Complete);
        self.ending = Some(Ending::Over);
        self.hold(cx, barrier, last)
    }

    /// A frame leaves when its barrier allows it.
    fn hold(&mut self, cx: &mut Context<'_>, barrier: Option<Barrier>, frame: Option<Frame<Bytes>>) -> Polled {
        let Some(barrier) = barrier else { return Poll::Ready(frame.map(Ok)) };
        let held = self.held.insert(Box::new(Held { barrier, frame }));
        ready!(Pin::new(&mut held.barrier).poll(cx));
        self.release()
    }

    /// The barrier is open.
    fn release(&mut self) -> Polled {
        let Some(held) = self.held.take() else { return Poll::Ready(None) };
        if let Some(measured) = &mut self.measured {
            measured.held(held.barrier.held());
        }
        Poll::Ready(held.frame.map(Ok))
    }

    fn poll_ending(&mut self, cx: &mut Context<'_>) -> Polled {
        if let Some(Ending::Broken { patience, .. }) = &self.ending {
            if let (Some(pace), Some(timer)) = (&self.pace, &mut self.idle.timer) {
                ready!(timer.as_mut().poll(cx));
                while !pace.is_written() {
                    timer.as_mut().reset(Instant::now() + FLUSH);
                    ready!(timer.as_mut().poll(cx));
                }
            }
            if *patience && self.link.as_ref().is_some_and(|link| link.is_behind()) {
                return Poll::Pending; // the connection's turn comes when it can write
            }
        }
        Poll::Ready(match self.ending.replace(Ending::Over) {
            Some(Ending::Broken { error, .. }) => Some(Err(error)),
            Some(Ending::Over) | None => None,
        })
    }
}

/// What a body's `poll_frame` says.
type Polled = Poll<Option<Result<Frame<Bytes>, BodyError>>>;

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if let Some(held) = &mut this.held {
            ready!(Pin::new(&mut held.barrier).poll(cx));
            return this.release();
        }
        if this.ending.is_some() {
            return this.poll_ending(cx);
        }
        let (body, lease) = match &mut this.source {
            Source::Upstream { body, lease } => (body, lease),
            Source::Text(text) => {
                let text = std::mem::take(text);
                return this.finish(cx, Some(Frame::data(text)));
            }
            Source::Nothing | Source::Unsent | Source::Switched(_) => return this.finish(cx, None),
        };
        let mut polled = Pin::new(&mut *body).poll_frame(&mut lease.context(cx));
        if polled.is_pending() && lease.is_driven() {
            lease.drive(cx);
            polled = Pin::new(&mut *body).poll_frame(&mut lease.context(cx));
        }
        if let Some(pace) = &this.pace {
            if polled.is_ready() { pace.clients_turn() } else { pace.upstreams_turn() }
        }
        let error = match polled {
            Poll::Ready(Some(Ok(frame))) => {
                this.idle.since = None;
                if let Some(pace) = &this.pace {
                    pace.gives();
                }
                let marked = match (&mut this.tap, frame.data_ref()) {
                    (Some(tap), Some(data)) => tap.tee.pass(data),
                    _ => false,
                };
                if frame.is_trailers() || body.is_end_stream() {
                    return this.finish(cx, Some(frame));
                }
                if marked {
                    // For its reader the answer is complete: what may follow is no part of it, nor is whether the reader stays.
                    let barrier = this.conclude(End::Complete);
                    return this.hold(cx, barrier, Some(frame));
                }
                return Poll::Ready(Some(Ok(frame)));
            }
            Poll::Ready(None) => return this.finish(cx, None),
            Poll::Ready(Some(Err(error))) => BodyError::Upstream(error),
            Poll::Pending => {
                ready!(this.idle.poll(cx, this.upload.as_deref()));
                BodyError::Idle(this.idle.limit)
            }
        };
        tracing::debug!(%error, "a response broke off");
        let ends_with_it = this.size_hint().exact().is_none();
        drop(this.end(End::Error));
        let mut patience = true;
        if let Some(link) = &this.link {
            // A reset takes back what the client hasn't got, wherever it comes from. And a client that still sends may read nothing
            // before it is done or stopped.
            patience = !error.is_reset() && !link.is_unread();
            if error.is_reset() || (link.is_unframed() && ends_with_it) {
                link.reset();
            }
        }
        this.ending = Some(Ending::Broken { error, patience });
        if this.pace.is_some() {
            this.idle.timer = Some(Box::pin(tokio::time::sleep(FLUSH)));
            return this.poll_ending(cx);
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        if self.held.is_some() {
            return false;
        }
        match (&self.ending, &self.source) {
            (Some(ending), _) => matches!(ending, Ending::Over),
            (None, Source::Nothing | Source::Switched(_)) => true,
            (None, Source::Text(text)) => text.is_empty(),
            (None, Source::Upstream { body, .. }) => body.is_end_stream(),
            (None, Source::Unsent) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Nothing | Source::Switched(_) => SizeHint::with_exact(0),
            Source::Text(text) => SizeHint::with_exact(text.len() as u64),
            Source::Upstream { body, .. } => body.size_hint(),
            Source::Unsent => SizeHint::default(),
        }
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        // Not ended: the client has left. What the capture has to wait for, nobody waits for.
        if self.ending.is_none() {
            drop(self.end(End::Cancelled));
        }
        if let Source::Switched(handover) = std::mem::take(&mut self.source) {
            // An error: the tunnel is gone, and with it the connection.
            let _ = handover.send((self.place.take(), self.measured.take()));
        }
    }
}

/// How long no byte has moved in either direction. The timer is made when a body first has to wait.
#[derive(Default)]
struct Idle {
    limit: Duration,
    since: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Idle {
    /// Ready when the limit is over.
    fn poll(&mut self, cx: &mut Context<'_>, upload: Option<&Progress>) -> Poll<()> {
        let since = *self.since.get_or_insert_with(Instant::now);
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(since + self.limit)));
        loop {
            ready!(timer.as_mut().poll(cx));
            // It may have been set for an earlier wait; and an upload that goes on is not idle either.
            let moved = upload.map_or(since, |upload| since.max(upload.moved_at()));
            let until = moved + self.limit;
            if until <= Instant::now() {
                return Poll::Ready(());
            }
            timer.as_mut().reset(until);
        }
    }
}
