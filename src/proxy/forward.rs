//! The way to the upstream and back: one exchange, streamed in both directions.

use std::error::Error;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use http::header::CONTENT_LENGTH;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body::Body as _;
use hyper::body::Incoming;
use tokio::time::Instant;
use tower::Service;

use super::body::Body;
use super::headers;
use super::pool::Lease;
use super::tee::Tee;
use super::upload::{Progress, Stage, Upload};
use super::{Exchange, Proxy, ProxyError};
use crate::capture::Capture;
use crate::episode::End;

const EPISODE_HEADER: HeaderName = HeaderName::from_static("x-offramp-episode");

/// The innermost service of the stack.
#[derive(Clone)]
pub struct Forward(pub Arc<Proxy>);

impl Service<Exchange> for Forward {
    type Response = Response<Body>;
    type Error = ProxyError;
    // The one box of a request.
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, ProxyError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ProxyError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, exchange: Exchange) -> Self::Future {
        Box::pin(forward(Arc::clone(&self.0), exchange))
    }
}

/// Dropping it (the client has left) closes the connection to the upstream, which so learns that nobody waits any more.
async fn forward(proxy: Arc<Proxy>, exchange: Exchange) -> Result<Response<Body>, ProxyError> {
    let Exchange { request, peer, route, .. } = exchange;
    let capture = match route {
        Some(route) => Capture::begin(&proxy.routes, route, &request).map_err(|_| ProxyError::QueueFull)?,
        None => None,
    };
    let method = request.method().clone();
    let tee = capture.as_ref().map(|capture| Tee::new(capture.max_capture()));
    let mut response = match ask(&proxy, request, peer, tee).await {
        Ok(response) => response,
        Err(error) => {
            if let Some(capture) = capture {
                capture.unanswered();
            }
            return Err(error);
        }
    };
    if let Some(mut capture) = capture {
        capture.answered(response.status().as_u16(), response.headers());
        if proxy.expose_episode_id
            && let Ok(id) = HeaderValue::try_from(capture.id().to_string())
        {
            response.headers_mut().insert(EPISODE_HEADER, id);
        }
        response.body_mut().capture(capture);
    }
    if response.body().is_end_stream() {
        // The head is all there is, so it is the last byte too.
        if let Some(barrier) = response.body_mut().end(End::Complete) {
            barrier.await;
        }
        if response.status() == StatusCode::NOT_MODIFIED
            && method != Method::HEAD
            && response.headers().contains_key(CONTENT_LENGTH)
        {
            response.body_mut().leave_unsent();
        }
    }
    Ok(response)
}

/// Sends the request and waits for the response's head.
async fn ask(
    proxy: &Proxy,
    request: Request<Incoming>,
    peer: Option<IpAddr>,
    tee: Option<Tee>,
) -> Result<Response<Body>, ProxyError> {
    let mut request = request.map(|body| Upload::new(body, tee));
    proxy.rewrite.request(&mut request, peer)?;
    if headers::expects_continue(request.headers()) {
        Upload::expect_continue(&mut request);
    }
    let progress = request.body().progress();
    let asked = Instant::now();
    let (response, lease) = send(proxy, request, progress.as_deref()).await?;
    let took = asked.elapsed();
    let (mut head, body) = response.into_parts();
    headers::response(&mut head)?;
    let mut body = Body::upstream(body, lease, progress, proxy.idle_timeout);
    body.took(took);
    Ok(Response::from_parts(head, body))
}

/// One attempt; a second one only where the first connection had been used before and hyper gives the request back unsent: the
/// upstream closed it while it was idle, and has seen nothing of this request.
async fn send(
    proxy: &Proxy,
    request: Request<Upload>,
    progress: Option<&Progress>,
) -> Result<(Response<Incoming>, Lease), ProxyError> {
    let mut lease = proxy.pool.lease().await?;
    let sending = lease.sender().try_send_request(request);
    let mut error = match head(proxy, sending, progress).await? {
        Ok(response) => return Ok((response, lease)),
        Err(error) => error,
    };
    if let Some(unsent) = error.take_message().filter(|_| lease.is_reused()) {
        lease = proxy.pool.connect().await?;
        let sending = lease.sender().try_send_request(unsent);
        error = match head(proxy, sending, progress).await? {
            Ok(response) => return Ok((response, lease)),
            Err(error) => error,
        };
    }
    Err(broken(proxy, error.into_error(), progress))
}

/// Waits for the head: `response_timeout` from the moment at which the request was sent, and as long as its body moves.
async fn head<T>(proxy: &Proxy, sending: impl Future<Output = T>, progress: Option<&Progress>) -> Result<T, ProxyError> {
    let mut sending = pin!(sending);
    let asked = Instant::now();
    // Whichever limit applies, looking this often is never too late for it.
    let look = proxy.response_timeout.min(proxy.idle_timeout);
    let mut until = asked + if progress.is_some() { look } else { proxy.response_timeout };
    loop {
        if let Ok(done) = tokio::time::timeout_at(until, sending.as_mut()).await {
            return Ok(done);
        }
        let stage = progress.map_or(Stage::Sent, Progress::stage);
        let since = progress.map_or(asked, |progress| progress.moved_at().max(asked));
        let limit = if stage == Stage::Sent { proxy.response_timeout } else { proxy.idle_timeout };
        let now = Instant::now();
        if since + limit <= now {
            return Err(match stage {
                Stage::Sent => ProxyError::ResponseTimeout(limit),
                Stage::Upstream => ProxyError::UploadTimeout(limit),
                Stage::Client | Stage::Broken => ProxyError::BadRequest("the request's body stopped coming"),
            });
        }
        until = (since + limit).min(now + look);
    }
}

/// What a connection that broke before the head means.
fn broken(proxy: &Proxy, error: hyper::Error, progress: Option<&Progress>) -> ProxyError {
    if progress.is_some_and(|progress| progress.stage() == Stage::Broken) {
        return ProxyError::BadRequest("the request's body broke off or is malformed");
    }
    if io_error(&error).is_some_and(|error| error.kind() == io::ErrorKind::TimedOut) {
        return ProxyError::UploadTimeout(proxy.idle_timeout);
    }
    ProxyError::Protocol(error)
}

fn io_error(error: &hyper::Error) -> Option<&io::Error> {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref() {
            return Some(io);
        }
        cause = error.source();
    }
    None
}
