//! The line: at most `max_in_flight` requests are forwarded at one time, at most `max_waiting` more wait for a place, in the order
//! in which they came, at most for `wait_timeout`. Whoever finds the line full is told so at once.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::Response;
use pin_project_lite::pin_project;
use prometheus::IntGauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tower::{Layer, Service};

use super::body::Body;
use super::{Exchange, ProxyError};

/// The line of one proxy.
#[derive(Debug)]
pub struct Line {
    /// Fair: who waits is served first in, first out, and nobody overtakes.
    places: Arc<Semaphore>,
    max_waiting: usize,
    wait_timeout: Duration,
    waiting: AtomicUsize,
    waiting_gauge: IntGauge,
    in_flight_gauge: IntGauge,
}

/// A place among those in flight; free again when dropped.
#[derive(Debug)]
pub struct Place {
    _permit: OwnedSemaphorePermit,
    in_flight: IntGauge,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.in_flight.dec();
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
        let places = Arc::new(Semaphore::new(max_in_flight.min(Semaphore::MAX_PERMITS)));
        Arc::new(Self { places, max_waiting, wait_timeout, waiting: AtomicUsize::new(0), waiting_gauge, in_flight_gauge })
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

    fn try_enter(&self) -> Option<Place> {
        Arc::clone(&self.places).try_acquire_owned().ok().map(|permit| self.place(permit))
    }

    /// Waits in line. Cancel safe: dropped, it has left the line.
    async fn wait(self: Arc<Self>) -> Result<Place, ProxyError> {
        if self.places.is_closed() {
            return Err(ProxyError::ShuttingDown);
        }
        if self.waiting.fetch_add(1, Ordering::AcqRel) >= self.max_waiting {
            self.waiting.fetch_sub(1, Ordering::AcqRel);
            return Err(ProxyError::LineFull { waiting: self.max_waiting });
        }
        self.waiting_gauge.inc();
        let _waiting = Waiting(&self);
        match tokio::time::timeout(self.wait_timeout, Arc::clone(&self.places).acquire_owned()).await {
            Ok(Ok(permit)) => Ok(self.place(permit)),
            Ok(Err(_closed)) => Err(ProxyError::ShuttingDown),
            Err(_elapsed) => Err(ProxyError::WaitedTooLong(self.wait_timeout)),
        }
    }

    fn place(&self, permit: OwnedSemaphorePermit) -> Place {
        self.in_flight_gauge.inc();
        Place { _permit: permit, in_flight: self.in_flight_gauge.clone() }
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
