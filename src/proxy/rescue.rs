//! The rescue: the one place where what went wrong becomes a response, be it an error or a panic.

use std::any::Any;
use std::convert::Infallible;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderName, HeaderValue, Response};
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use super::ProxyError;
use super::body::Body;
use crate::config::Fallback;
use crate::telemetry::log::without_text;

/// Says which of offramp's own errors a response is.
pub const ERROR_HEADER: HeaderName = HeaderName::from_static("x-offramp-error");
const PROBLEM: HeaderValue = HeaderValue::from_static("application/problem+json");

/// Turns errors and panics into responses.
#[derive(Clone)]
pub struct RescueLayer {
    /// The name of the proxy, for the log.
    pub proxy: Arc<str>,
    /// What stands for a response while the upstream's breaker is open.
    pub fallback: Arc<Fallback>,
}

impl<S> Layer<S> for RescueLayer {
    type Service = Rescue<S>;

    fn layer(&self, inner: S) -> Rescue<S> {
        Rescue { with: self.clone(), inner }
    }
}

/// A service that always answers.
#[derive(Clone)]
pub struct Rescue<S> {
    with: RescueLayer,
    inner: S,
}

impl<R, S> Service<R> for Rescue<S>
where
    S: Service<R, Response = Response<Body>, Error = ProxyError>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = RescueFuture<S::Future>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // Nothing below makes a caller wait before the call: the line is part of it.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: R) -> Self::Future {
        let started = catch_unwind(AssertUnwindSafe(|| self.inner.call(request)));
        let (inner, panicked) = match started {
            Ok(inner) => (Some(inner), None),
            Err(panic) => (None, Some(ProxyError::Panicked(panic_text(panic.as_ref())))),
        };
        RescueFuture { with: self.with.clone(), inner, panicked }
    }
}

pin_project! {
    /// The response, in any case.
    pub struct RescueFuture<F> {
        with: RescueLayer,
        #[pin]
        inner: Option<F>,
        panicked: Option<ProxyError>,
    }
}

impl<F: Future<Output = Result<Response<Body>, ProxyError>>> Future for RescueFuture<F> {
    type Output = Result<Response<Body>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let error = match this.inner.as_mut().as_pin_mut() {
            None => this.panicked.take().unwrap_or(ProxyError::Panicked(String::new())),
            // Nothing of what a panic leaves behind is looked at again: the future is dropped below.
            Some(inner) => match catch_unwind(AssertUnwindSafe(|| inner.poll(cx))) {
                Ok(polled) => match ready!(polled) {
                    Ok(response) => return Poll::Ready(Ok(response)),
                    Err(error) => error,
                },
                Err(panic) => ProxyError::Panicked(panic_text(panic.as_ref())),
            },
        };
        this.inner.set(None);
        Poll::Ready(Ok(respond(this.with, &error)))
    }
}

/// The response to an error: RFC 9457 problem details.
fn respond(with: &RescueLayer, error: &ProxyError) -> Response<Body> {
    let (proxy, code, status) = (&*with.proxy, error.code(), error.status());
    match code {
        "internal" => tracing::error!(proxy, code, panic = %error, "a handler panicked"),
        _ if error.is_upstreams() => tracing::warn!(proxy, code, %error, "no response"),
        // The client's own fault, or more of them than there are places: counted, and a line each would only add to the load.
        _ => tracing::debug!(proxy, code, %error, "refused"),
    }
    let (status, content_type, body) = match error {
        ProxyError::BreakerOpen { .. } => {
            (with.fallback.status, with.fallback.content_type.clone(), Body::text(with.fallback.body.clone()))
        }
        _ => (status, PROBLEM, Body::text(problem(error))),
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, content_type);
    headers.insert(ERROR_HEADER, HeaderValue::from_static(code));
    if let Some(wait) = error.retry_after() {
        headers.insert(RETRY_AFTER, HeaderValue::from(wait.as_secs().max(1)));
    }
    response
}

fn problem(error: &ProxyError) -> String {
    let problem = serde_json::json!({
        "type": format!("urn:offramp:error:{}", error.code()),
        "title": error.title(),
        "status": error.status().as_u16(),
        "detail": error.detail(),
    });
    problem.to_string()
}

/// The error that hyper means by bytes which it is about to write, if they are its refusal of a head that it could not read.
pub fn refusal(bytes: &[u8]) -> Option<ProxyError> {
    let rest = bytes.strip_prefix(b"HTTP/1.1 ").or_else(|| bytes.strip_prefix(b"HTTP/1.0 "))?;
    let (status, head) = rest.split_at_checked(3)?;
    // Nothing but these two, in any case: a response of the upstream comes with more.
    if !head.ends_with(b"\r\nconnection: close\r\ncontent-length: 0\r\n\r\n") {
        return None;
    }
    match status {
        b"400" => Some(ProxyError::BadRequest("the request's head is malformed")),
        b"414" => Some(ProxyError::TargetTooLong),
        b"431" => Some(ProxyError::HeaderTooLarge),
        _ => None,
    }
}

/// The response to such an error as HTTP/1.1 writes it. The connection ends with it.
pub fn written(proxy: &str, error: &ProxyError) -> Bytes {
    let (code, status, problem) = (error.code(), error.status(), problem(error));
    tracing::debug!(proxy, code, %error, "refused");
    let reason = status.canonical_reason().unwrap_or_default();
    format!(
        "HTTP/1.1 {} {reason}\r\ncontent-type: application/problem+json\r\n{ERROR_HEADER}: {code}\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n{problem}",
        status.as_u16(),
        problem.len()
    )
    .into()
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let said = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    without_text(said.unwrap_or("(no text)")).to_owned()
}
