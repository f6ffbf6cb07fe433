//! Measures each request from its arrival to its response's last byte.
//!
//! The overhead is the time that offramp itself added: what passed before the upstream was asked (the line included), between the
//! upstream's head and the client's, and while the last byte was held. Not in it: connecting to the upstream and waiting for it.
//! It is observed for what the upstream answered; an error of offramp's own adds a code, not a time.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{Method, Response};
use pin_project_lite::pin_project;
use prometheus::{Histogram, IntCounter};
use tokio::time::Instant;
use tower::{Layer, Service};

use super::body::Body;
use super::link::Link;
use super::{Exchange, ProxyError};
use crate::capture::routes::Routes;
use crate::telemetry::metrics::Metrics;

/// Label values; a method that isn't among them is `OTHER`: labels come from the configuration, never from traffic.
const METHODS: [&str; 10] = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT", "OTHER"];
/// Statuses 100 to 599, and one place for all others.
const CODES: usize = 501;
/// The code of a request whose client left before there was a response to count.
const CLIENT_LEFT: u16 = 499;
/// What a panic becomes further out.
const PANICKED: u16 = 500;

/// The handles of one proxy, looked up once each.
pub struct Meters {
    proxy: String,
    metrics: Metrics,
    overhead: Histogram,
    /// One per route, and one more for what matches none.
    routes: Vec<RouteMeters>,
}

struct RouteMeters {
    name: String,
    duration: Histogram,
    /// By method, then by code; made when first counted, so that `/metrics` shows what has happened and no more.
    requests: [OnceLock<Box<[OnceLock<IntCounter>]>>; METHODS.len()],
}

impl std::fmt::Debug for Meters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Meters").field("proxy", &self.proxy).finish_non_exhaustive()
    }
}

impl Meters {
    /// Of a proxy with these routes.
    pub fn new(proxy: &str, routes: &Routes, metrics: &Metrics) -> Self {
        let routes = routes
            .names()
            .chain(["none"])
            .map(|name| RouteMeters {
                name: name.to_owned(),
                duration: metrics.http_request_duration.with_label_values(&[proxy, name]),
                requests: [const { OnceLock::new() }; METHODS.len()],
            })
            .collect();
        Self {
            proxy: proxy.to_owned(),
            metrics: metrics.clone(),
            overhead: metrics.http_overhead.with_label_values(&[proxy]),
            routes,
        }
    }

    /// Counts a head that hyper could not read, and answered itself.
    pub fn refused(&self, code: u16) {
        self.count(self.routes.len() - 1, METHODS.len() - 1, code);
    }

    fn count(&self, route: usize, method: usize, code: u16) {
        let meters = &self.routes[route];
        let codes = meters.requests[method].get_or_init(|| (0..CODES).map(|_| OnceLock::new()).collect());
        let place = usize::from(code).checked_sub(100).filter(|&p| p < CODES - 1).unwrap_or(CODES - 1);
        let counter = codes[place].get_or_init(|| {
            let code = if place == CODES - 1 { "other".to_owned() } else { code.to_string() };
            self.metrics.http_requests.with_label_values(&[&self.proxy, &meters.name, METHODS[method], &code])
        });
        counter.inc();
    }
}

/// One request under measurement; counted when dropped, whichever way it ends.
pub struct Measured {
    meters: Arc<Meters>,
    route: usize,
    method: usize,
    arrived: Instant,
    status: u16,
    overhead: Option<Duration>,
    link: Arc<Link>,
}

impl Measured {
    /// Adds time for which the last byte was held.
    pub fn held(&mut self, time: Duration) {
        if let Some(overhead) = &mut self.overhead {
            *overhead += time;
        }
    }
}

impl Drop for Measured {
    fn drop(&mut self) {
        self.meters.count(self.route, self.method, self.status);
        self.meters.routes[self.route].duration.observe(self.arrived.elapsed().as_secs_f64());
        if let Some(overhead) = self.overhead {
            self.meters.overhead.observe(overhead.as_secs_f64());
        }
        self.link.end();
    }
}

/// Puts the measurement before a service, and finds the route that labels it.
#[derive(Clone)]
pub struct MeasureLayer {
    /// What to count in.
    pub meters: Arc<Meters>,
    /// What to label with.
    pub routes: Arc<Routes>,
}

impl<S> Layer<S> for MeasureLayer {
    type Service = Measure<S>;

    fn layer(&self, inner: S) -> Measure<S> {
        Measure { with: self.clone(), inner }
    }
}

/// A measured service.
#[derive(Clone)]
pub struct Measure<S> {
    with: MeasureLayer,
    inner: S,
}

impl<S> Service<Exchange> for Measure<S>
where
    S: Service<Exchange, Response = Response<Body>, Error = ProxyError>,
{
    type Response = Response<Body>;
    type Error = ProxyError;
    type Future = MeasureFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ProxyError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut exchange: Exchange) -> Self::Future {
        let (method, path) = (exchange.request.method(), exchange.request.uri().path());
        exchange.route = self.with.routes.find(method, path);
        exchange.offloaded = exchange.route.is_some_and(|route| self.with.routes.offloads(route));
        let measured = Measured {
            meters: Arc::clone(&self.with.meters),
            route: exchange.route.unwrap_or(self.with.meters.routes.len() - 1),
            method: method_index(method),
            arrived: exchange.arrived,
            status: PANICKED,
            overhead: None,
            link: Arc::clone(&exchange.link),
        };
        exchange.link.begin();
        MeasureFuture { measured: Some(measured), inner: self.inner.call(exchange) }
    }
}

fn method_index(method: &Method) -> usize {
    METHODS.iter().position(|m| *m == method.as_str()).unwrap_or(METHODS.len() - 1)
}

pin_project! {
    /// Takes note of the status, and leaves the rest to the body.
    pub struct MeasureFuture<F> {
        measured: Option<Measured>,
        #[pin]
        inner: F,
    }
}

impl<F: Future<Output = Result<Response<Body>, ProxyError>>> Future for MeasureFuture<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        // A panic below leaves it so; being dropped between two polls means that the client has left.
        let mut note = |status| {
            if let Some(measured) = this.measured {
                measured.status = status;
            }
        };
        note(PANICKED);
        let polled = this.inner.poll(cx);
        note(CLIENT_LEFT);
        let mut result = ready!(polled);
        if let Some(mut measured) = this.measured.take() {
            match &mut result {
                Ok(response) => {
                    measured.status = response.status().as_u16();
                    let upstream = response.body().upstream_time();
                    measured.overhead = Some(measured.arrived.elapsed().saturating_sub(upstream));
                    response.body_mut().keep_measure(measured);
                }
                Err(ProxyError::Abandoned) => measured.status = CLIENT_LEFT,
                Err(error) => measured.status = error.status().as_u16(),
            }
        }
        Poll::Ready(result)
    }
}
