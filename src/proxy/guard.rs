//! The guard: leaves an upstream alone that has failed several times in a row or too often, and has clients answered at once meanwhile.
//!
//! A failure is what leaves a client without a response of the agent: no connection, no valid head, none in time, or a 502, 503 or
//! 504 of the upstream's own. Any other response, a 500 included, is the agent's, and a success here. A request that is offloaded
//! never comes to the upstream, and is none of the guard's business.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use http::{Response, StatusCode};
use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower::{Layer, Service};

use super::body::Body;
use super::{Exchange, ProxyError};
use crate::breaker::{Allowed, Breaker};
use crate::config;

/// The breaker of one upstream.
#[derive(Debug)]
pub struct Guard {
    proxy: String,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    breaker: Breaker,
    /// Of the fallback.
    status: StatusCode,
    /// A request is on its way that shows whether the upstream answers again.
    probing: bool,
}

impl Guard {
    /// None where the configuration wants none.
    pub fn new(proxy: &str, config: config::Breaker, status: StatusCode) -> Option<Arc<Self>> {
        let state = State { breaker: Breaker::new(config), status, probing: false };
        config.is_on().then(|| Arc::new(Self { proxy: proxy.to_owned(), state: Mutex::new(state) }))
    }

    /// The same with other settings: what it knows of the upstream stays. None where these want none.
    pub fn renew(self: &Arc<Self>, config: config::Breaker, status: StatusCode) -> Option<Arc<Self>> {
        let mut state = self.state();
        state.breaker.configure(config, Instant::now());
        state.status = status;
        config.is_on().then(|| Arc::clone(self))
    }

    fn enter(self: &Arc<Self>) -> Result<Pass, ProxyError> {
        let now = Instant::now();
        let mut state = self.state();
        let probe = match state.breaker.allowed(now) {
            Allowed::All => false,
            Allowed::One if !state.probing => true,
            Allowed::One => return Err(ProxyError::BreakerOpen { retry_at: now, status: state.status }),
            Allowed::NotBefore(retry_at) => return Err(ProxyError::BreakerOpen { retry_at, status: state.status }),
        };
        state.probing |= probe;
        Ok(Pass { guard: Arc::clone(self), probe })
    }

    fn note(&self, result: &Result<Response<Body>, ProxyError>) {
        let failed = match result {
            Ok(response) => matches!(
                response.status(),
                StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT
            ),
            Err(error) if error.is_upstreams() => true,
            // It never came to the upstream.
            Err(_) => return,
        };
        let mut state = self.state();
        let was = state.breaker.gauge();
        if failed {
            if state.breaker.failure(Instant::now()) && was == 0 {
                tracing::warn!(proxy = self.proxy, "the upstream fails: its breaker is open");
            }
        } else {
            state.breaker.success(Instant::now());
            if was != 0 && state.breaker.gauge() == 0 {
                tracing::info!(proxy = self.proxy, "the upstream answers again: its breaker is closed");
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that was let through.
struct Pass {
    guard: Arc<Guard>,
    probe: bool,
}

impl Drop for Pass {
    fn drop(&mut self) {
        if self.probe {
            self.guard.state().probing = false;
        }
    }
}

/// Puts the guard before a service, if there is one.
#[derive(Clone)]
pub struct GuardLayer(pub Option<Arc<Guard>>);

impl<S> Layer<S> for GuardLayer {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded { guard: self.0.clone(), inner }
    }
}

/// A guarded service.
#[derive(Clone)]
pub struct Guarded<S> {
    guard: Option<Arc<Guard>>,
    inner: S,
}

impl<S> Service<Exchange> for Guarded<S>
where
    S: Service<Exchange, Response = Response<Body>, Error = ProxyError>,
{
    type Response = Response<Body>;
    type Error = ProxyError;
    type Future = GuardedFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ProxyError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, exchange: Exchange) -> Self::Future {
        match self.guard.as_ref().filter(|_| !exchange.offloaded).map(Guard::enter) {
            None => GuardedFuture { pass: None, refused: None, inner: Some(self.inner.call(exchange)) },
            Some(Ok(pass)) => GuardedFuture { pass: Some(pass), refused: None, inner: Some(self.inner.call(exchange)) },
            Some(Err(error)) => GuardedFuture { pass: None, refused: Some(error), inner: None },
        }
    }
}

pin_project! {
    /// The response, noted by the guard.
    pub struct GuardedFuture<F> {
        pass: Option<Pass>,
        refused: Option<ProxyError>,
        #[pin]
        inner: Option<F>,
    }
}

impl<F: Future<Output = Result<Response<Body>, ProxyError>>> Future for GuardedFuture<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let Some(inner) = this.inner.as_pin_mut() else {
            return this.refused.take().map_or(Poll::Pending, |error| Poll::Ready(Err(error)));
        };
        let result = ready!(inner.poll(cx));
        if let Some(pass) = this.pass.take() {
            pass.guard.note(&result);
        }
        Poll::Ready(result)
    }
}
