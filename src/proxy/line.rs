//! The line: at most `max_in_flight` requests are forwarded at one time, at most `max_waiting` more wait for a place, in the order
//! in which they came, at most for `wait_timeout`. Whoever finds the line full is told so at once.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::Response;
use pin_project_lite::pin_project;
use prometheus::IntGauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tower::{Layer, Service};

use super::body::Body;
use super::{Exchange, ProxyError};
use crate::clock::as_ms;

/// The line of one proxy.
#[derive(Debug)]
pub struct Line {
    /// Fair: who waits is served first in, first out, and nobody overtakes.
    places: Arc<Semaphore>,
    max_in_flight: AtomicUsize,
    /// Places that are no longer there, and still taken: who leaves one of them frees none.
    surplus: AtomicUsize,
    max_waiting: AtomicUsize,
    /// In milliseconds.
    wait_timeout: AtomicU64,
    waiting: AtomicUsize,
    waiting_gauge: IntGauge,
    in_flight_gauge: IntGauge,
}

/// A place among those in flight; free again when dropped.
#[derive(Debug)]
pub struct Place {
    /// Until it is dropped.
    permit: Option<OwnedSemaphorePermit>,
    line: Arc<Line>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.line.in_flight_gauge.dec();
        let surplus = &self.line.surplus;
        if surplus.load(Ordering::Relaxed) > 0
            && surplus.fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| n.checked_sub(1)).is_ok()
            && let Some(permit) = self.permit.take()
        {
            permit.forget();
        }
    }
}

/// A place in the line itself; dropping it leaves the line.
struct Waiting<'a>(&'a Line);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::AcqRel);
        self.0.waiting_gauge.dec();
    }
}

impl Line {
    /// An empty line. The gauges are this line's own.
    pub fn new(
        max_in_flight: usize,
        max_waiting: usize,
        wait_timeout: Duration,
        in_flight_gauge: IntGauge,
        waiting_gauge: IntGauge,
    ) -> Arc<Self> {
        let max_in_flight = max_in_flight.min(Semaphore::MAX_PERMITS);
        Arc::new(Self {
            places: Arc::new(Semaphore::new(max_in_flight)),
            max_in_flight: AtomicUsize::new(max_in_flight),
            surplus: AtomicUsize::new(0),
            max_waiting: AtomicUsize::new(max_waiting),
            wait_timeout: AtomicU64::new(as_ms(wait_timeout)),
            waiting: AtomicUsize::new(0),
            waiting_gauge,
            in_flight_gauge,
        })
    }

    /// From now on these hold. Nobody is sent away for it: who waits, waits as long as was said when they came, and who is in flight beyond
    /// the new limit finishes. Not for two at a time.
    pub fn resize(&self, max_in_flight: usize, max_waiting: usize, wait_timeout: Duration) {
        self.max_waiting.store(max_waiting, Ordering::Relaxed);
        self.wait_timeout.store(as_ms(wait_timeout), Ordering::Relaxed);
        let limit = max_in_flight.min(Semaphore::MAX_PERMITS);
        let was = self.max_in_flight.swap(limit, Ordering::Relaxed);
        let (more, less) = (limit.saturating_sub(was), was.saturating_sub(limit));
        let gone = self.places.forget_permits(less);
        self.surplus.fetch_add(less - gone, Ordering::AcqRel);
        let kept = self.surplus.fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| Some(n.saturating_sub(more)));
        self.places.add_permits(more.saturating_sub(kept.unwrap_or_default()));
    }

    /// Requests that have a place.
    pub fn in_flight(&self) -> usize {
        usize::try_from(self.in_flight_gauge.get()).unwrap_or(0)
    }

    /// Requests that wait for one.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Acquire)
    }

    /// Sends away who waits, and who comes from now on: [`ProxyError::ShuttingDown`].
    pub fn close(&self) {
        self.places.close();
    }

    pub(super) fn try_enter(self: &Arc<Self>) -> Option<Place> {
        Arc::clone(&self.places).try_acquire_owned().ok().map(|permit| self.place(permit))
    }

    /// Waits in line. Cancel safe: dropped, it has left the line.
    async fn wait(self: Arc<Self>) -> Result<Place, ProxyError> {
        if self.places.is_closed() {
            return Err(ProxyError::ShuttingDown);
        }
        let max_waiting = self.max_waiting.load(Ordering::Relaxed);
        if self.waiting.fetch_add(1, Ordering::AcqRel) >= max_waiting {
            self.waiting.fetch_sub(1, Ordering::AcqRel);
            return Err(ProxyError::LineFull { waiting: max_waiting });
        }
        self.waiting_gauge.inc();
        let _waiting = Waiting(&self);
        let wait_timeout = Duration::from_millis(self.wait_timeout.load(Ordering::Relaxed));
        match tokio::time::timeout(wait_timeout, Arc::clone(&self.places).acquire_owned()).await {
            Ok(Ok(permit)) => Ok(self.place(permit)),
            Ok(Err(_closed)) => Err(ProxyError::ShuttingDown),
            Err(_elapsed) => Err(ProxyError::WaitedTooLong(wait_timeout)),
        }
    }

    fn place(self: &Arc<Self>, permit: OwnedSemaphorePermit) -> Place {
        self.in_flight_gauge.inc();
        Place { permit: Some(permit), line: Arc::clone(self) }
    }
}

/// Puts the line before a service.
#[derive(Clone)]
pub struct InLineLayer(pub Arc<Line>);

impl<S> Layer<S> for InLineLayer {
    type Service = InLine<S>;

    fn layer(&self, inner: S) -> InLine<S> {
        InLine { line: Arc::clone(&self.0), inner }
    }
}

/// A service behind a line. The place is kept until the response's body has ended.
#[derive(Clone)]
pub struct InLine<S> {
    line: Arc<Line>,
    inner: S,
}

impl<S> Service<Exchange> for InLine<S>
where
    S: Service<Exchange, Response = Response<Body>, Error = ProxyError> + Clone,
{
    type Response = Response<Body>;
    type Error = ProxyError;
    type Future = InLineFuture<S>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ProxyError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, exchange: Exchange) -> InLineFuture<S> {
        match self.line.try_enter() {
            Some(place) => InLineFuture::Forwarding { place: Some(place), response: self.inner.call(exchange) },
            None => InLineFuture::Waiting {
                // The box is only for those who have to wait.
                turn: Box::pin(Arc::clone(&self.line).wait()),
                next: Some((self.inner.clone(), exchange)),
            },
        }
    }
}

pin_project! {
    /// First the place, then the response.
    #[project = InLineProjection]
    #[allow(missing_docs)] // of the fields: the macro takes no comments there
    pub enum InLineFuture<S>
    where
        S: Service<Exchange>,
    {
        /// In line.
        Waiting { turn: Pin<Box<dyn Future<Output = Result<Place, ProxyError>> + Send>>, next: Option<(S, Exchange)> },
        /// On the way.
        Forwarding { place: Option<Place>, #[pin] response: S::Future },
    }
}

impl<S> Future for InLineFuture<S>
where
    S: Service<Exchange, Response = Response<Body>, Error = ProxyError>,
{
    type Output = Result<Response<Body>, ProxyError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            let forwarding = match self.as_mut().project() {
                InLineProjection::Waiting { turn, next } => {
                    let place = ready!(turn.as_mut().poll(cx))?;
                    let Some((mut inner, exchange)) = next.take() else {
                        return Poll::Pending; // polled after it ended
                    };
                    InLineFuture::Forwarding { place: Some(place), response: inner.call(exchange) }
                }
                InLineProjection::Forwarding { place, response } => {
                    let mut response = ready!(response.poll(cx))?;
                    if let Some(place) = place.take() {
                        response.body_mut().keep_place(place);
                    }
                    return Poll::Ready(Ok(response));
                }
            };
            self.set(forwarding);
        }
    }
}
