//! The request's body on its way to the upstream.
//!
//! It has no timer of its own: it notes how far it is, and whoever waits for the response decides from that whose turn it is and
//! for how long (`forward.rs` until the head has come, `body.rs` afterwards).

use std::pin::Pin;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep};

use super::headers;
use super::link::Link;
use super::tee::Tee;
use crate::capture::Kept;
use crate::clock::as_ms;

/// How long an upload waits for `100 Continue` before it goes on its own: a server may not know about it (RFC 9110 §10.1.1).
const CONTINUE_WAIT: Duration = Duration::from_secs(1);

/// Where an upload stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Stage {
    /// The upstream has to take what there is.
    Upstream = 0,
    /// The client has to send more.
    Client = 1,
    /// All of it was handed over.
    Sent = 2,
    /// The client broke off.
    Broken = 3,
}

/// How far an upload is. Written by the connection to the upstream, read by the one to the client.
#[derive(Debug)]
pub struct Progress {
    began: Instant,
    /// Milliseconds from `began` to the last byte that moved.
    moved: AtomicU64,
    stage: AtomicU8,
    kept: OnceLock<Kept>,
}

impl Progress {
    /// Where it stands.
    pub fn stage(&self) -> Stage {
        match self.stage.load(Ordering::Acquire) {
            0 => Stage::Upstream,
            1 => Stage::Client,
            2 => Stage::Sent,
            _ => Stage::Broken,
        }
    }

    /// When its last byte moved (once `Sent`: when it was all handed over).
    pub fn moved_at(&self) -> Instant {
        self.began + Duration::from_millis(self.moved.load(Ordering::Acquire))
    }

    /// What the tee kept, once the upload has ended; never for one without a tee.
    pub fn kept(&self) -> Option<&Kept> {
        self.kept.get()
    }

    fn moved(&self, stage: Stage) {
        self.moved.store(as_ms(self.began.elapsed()), Ordering::Release);
        self.set(stage);
    }

    fn set(&self, stage: Stage) {
        self.stage.store(stage as u8, Ordering::Release);
    }
}

/// A request's body.
pub struct Upload {
    /// None for one that was empty when it was asked the first time.
    inner: Option<Incoming>,
    /// None for a request without a body: there is nothing to watch.
    progress: Option<Arc<Progress>>,
    tee: Option<Tee>,
    gate: Gate,
    /// The client's HTTP/1 connection.
    link: Option<Arc<Link>>,
}

/// `Expect: 100-continue`: the client's body is asked for (which sends the client its `100`) when the upstream has asked for it.
enum Gate {
    Open,
    Waiting {
        asked: oneshot::Receiver<()>,
        timer: Pin<Box<Sleep>>,
    },
    /// The upstream answered without asking: its connection ends with the response.
    Shut,
}

impl Upload {
    /// A body as it comes from the client, by `link` if that speaks HTTP/1.
    pub fn new(inner: Incoming, tee: Option<Tee>, link: Option<&Arc<Link>>) -> Self {
        let progress = (!inner.is_end_stream()).then(|| {
            Arc::new(Progress {
                began: Instant::now(),
                moved: AtomicU64::new(0),
                stage: AtomicU8::new(Stage::Upstream as u8),
                kept: OnceLock::new(),
            })
        });
        let link = progress.as_ref().and(link).cloned();
        Self { inner: Some(inner), progress, tee, gate: Gate::Open, link }
    }

    /// No body.
    pub fn empty() -> Self {
        Self { inner: None, progress: None, tee: None, gate: Gate::Open, link: None }
    }

    /// Waits for no `100 Continue`.
    pub fn open(&mut self) {
        self.gate = Gate::Open;
    }

    /// How far it is; none for an empty body.
    pub fn progress(&self) -> Option<Arc<Progress>> {
        self.progress.clone()
    }

    fn poll_gate(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Gate::Waiting { asked, timer } = &mut self.gate {
            self.gate = match Pin::new(asked).poll(cx) {
                Poll::Ready(Ok(())) => Gate::Open,
                Poll::Ready(Err(_)) => Gate::Shut,
                Poll::Pending => match timer.as_mut().poll(cx) {
                    Poll::Ready(()) => Gate::Open,
                    Poll::Pending => return Poll::Pending,
                },
            };
        }
        match self.gate {
            Gate::Open => Poll::Ready(()),
            Gate::Waiting { .. } | Gate::Shut => Poll::Pending,
        }
    }

    /// Hands what the tee kept to the response's side. Before the last byte goes out, so that no response can be earlier.
    fn end(&mut self, stage: Stage) {
        if let Some(progress) = &self.progress {
            if let Some(tee) = self.tee.take() {
                // It can't be set already: the tee is taken only once.
                let _ = progress.kept.set(tee.finish(stage == Stage::Sent));
            }
            progress.moved(stage);
        }
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = &mut *self;
        std::task::ready!(this.poll_gate(cx));
        let Some(inner) = &mut this.inner else { return Poll::Ready(None) };
        let polled = Pin::new(&mut *inner).poll_frame(cx);
        match &polled {
            Poll::Pending => {
                if let Some(progress) = &this.progress {
                    progress.set(Stage::Client);
                }
                // The client has closed its half, and all that it had sent before has come: this is no end of a request.
                if let Some(link) = &this.link
                    && link.is_half_closed()
                    && link.holds()
                {
                    link.leave_unfinished();
                    cx.waker().wake_by_ref();
                }
            }
            Poll::Ready(Some(Ok(frame))) => {
                if let (Some(tee), Some(data)) = (&mut this.tee, frame.data_ref()) {
                    tee.pass(data);
                }
                if frame.is_trailers() || inner.is_end_stream() {
                    this.end(Stage::Sent);
                } else if let Some(progress) = &this.progress {
                    progress.moved(Stage::Upstream);
                }
            }
            Poll::Ready(None) => this.end(Stage::Sent),
            Poll::Ready(Some(Err(_))) => this.end(Stage::Broken),
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or(SizeHint::with_exact(0), Body::size_hint)
    }
}

/// Has the upstream's interim responses (1xx) do their work: `100 Continue` asks for a body that waits for it, any other goes on to
/// the client, where there is one that can be told (`link`).
pub fn watch_interim(request: &mut http::Request<Upload>, link: Option<&Arc<Link>>) {
    let expects = headers::expects_continue(request.headers()) && !request.body().is_end_stream();
    if !expects && link.is_none() {
        return;
    }
    let link = link.cloned();
    let (ask, asked) = if expects { Some(oneshot::channel()).unzip() } else { (None, None) };
    // The lock is taken once per `100 Continue`: hyper wants a callback that may be called from anywhere.
    let ask = Mutex::new(ask);
    hyper::ext::on_informational(request, move |response| {
        if response.status() == http::StatusCode::CONTINUE {
            if let Some(ask) = ask.lock().unwrap_or_else(PoisonError::into_inner).take() {
                let _ = ask.send(());
            }
        } else if let Some(link) = &link {
            link.interim(response.status(), response.headers());
        }
    });
    if let Some(asked) = asked {
        request.body_mut().gate = Gate::Waiting { asked, timer: Box::pin(tokio::time::sleep(CONTINUE_WAIT)) };
    }
}
