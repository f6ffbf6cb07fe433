//! The way to the upstream and back: one exchange, streamed in both directions.

use std::error::Error;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use http::header::CONTENT_LENGTH;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body::Body as _;
use hyper::body::Incoming;
use tokio::time::Instant;
use tower::Service;

use super::body::Body;
use super::headers;
use super::lease::{Lease, Sent};
use super::link::{Hold, Link};
use super::tee::Tee;
use super::upgrade::Wish;
use super::upload::{self, Progress, Stage, Upload};
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
    let capture = match exchange.route {
        Some(route) => Capture::begin(&proxy.routes, route, &exchange.request).map_err(|_| ProxyError::QueueFull)?,
        None => None,
    };
    let method = exchange.request.method().clone();
    let tee = capture.as_ref().map(|capture| Tee::new(capture.max_capture()));
    let mut response = match ask(&proxy, exchange, tee).await {
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
async fn ask(proxy: &Proxy, exchange: Exchange, tee: Option<Tee>) -> Result<Response<Body>, ProxyError> {
    let Exchange { mut request, peer, link, .. } = exchange;
    if request.version() == Version::HTTP_2 && !headers::fits(request.headers(), proxy.max_headers, proxy.max_header_size) {
        return Err(ProxyError::HeaderTooLarge);
    }
    let wish = Wish::of(&mut request);
    if request.version() < Version::HTTP_11 {
        link.set_unframed();
    }
    // Half a connection can be closed only where it is one's own.
    let link = (request.version() < Version::HTTP_2).then_some(link);
    let mut request = request.map(|body| Upload::new(body, tee));
    proxy.rewrite.request(&mut request, peer)?;
    upload::watch_interim(&mut request, link.as_ref());
    let progress = request.body().progress();
    let asked = Instant::now();
    let hold = if progress.is_none() { link.as_ref().map(Link::hold) } else { None };
    let mut asking = Asking { proxy, progress: progress.as_deref(), link: link.as_ref(), wish: wish.as_ref(), hold };
    let (mut response, mut lease) = match asking.send(request).await {
        Ok((response, mut lease)) => {
            lease.hold(asking.hold);
            (response, lease)
        }
        Err(error) => {
            if let (Some(link), Some(progress)) = (&link, &progress)
                && progress.stage() != Stage::Sent
            {
                link.leave_unread();
            }
            return Err(error);
        }
    };
    let took = asked.elapsed();
    let upgrade = if response.status() == StatusCode::SWITCHING_PROTOCOLS { wish.zip(link.clone()) } else { None };
    if let Some((wish, link)) = upgrade {
        let (tunnel, handover) = wish.granted(&mut response, lease, proxy.idle_timeout);
        link.leave_tunnel(tunnel);
        let (mut head, _) = response.into_parts();
        headers::response(&mut head, true)?;
        return Ok(Response::from_parts(head, Body::switched(handover, took)));
    }
    let (mut head, body) = response.into_parts();
    headers::response(&mut head, false)?;
    if progress.as_ref().is_some_and(|progress| progress.stage() != Stage::Sent) {
        lease.detach();
    }
    Ok(Response::from_parts(head, Body::upstream(body, lease, progress, link, proxy.idle_timeout, took)))
}

/// A request that is being asked.
struct Asking<'a> {
    proxy: &'a Proxy,
    progress: Option<&'a Progress>,
    link: Option<&'a Arc<Link>>,
    wish: Option<&'a Wish>,
    /// Once all of the request is there.
    hold: Option<Hold>,
}

impl Asking<'_> {
    /// One attempt; a second one only where it can't be seen: the first connection had been used before, and either hyper gives the
    /// request back unsent, or the connection ended without a response and asking twice is asking once (RFC 9110 §9.2.2). That is
    /// how an upstream's own closing of an idle connection looks when it crosses a request.
    async fn send(&mut self, mut request: Request<Upload>) -> Result<(Response<Incoming>, Lease), ProxyError> {
        let pool = &self.proxy.pool;
        let mut lease = if self.wish.is_some() { pool.lease_http1().await? } else { pool.lease().await? };
        lease.follow(self.link);
        self.frame(&mut request, &lease)?;
        let again =
            (lease.is_reused() && self.progress.is_none() && request.method().is_idempotent()).then(|| without_body(&request));
        let sending = lease.send(request);
        let mut error = match self.head(&mut lease, sending).await? {
            Ok(response) => return Ok((response, lease)),
            Err(error) => error,
        };
        let unsent = error.take_message().filter(|_| lease.is_reused());
        if let Some(mut request) = unsent.or(again.filter(|_| ended_early(error.error()))) {
            lease = if self.wish.is_some() { pool.connect_http1().await? } else { pool.connect().await? };
            lease.follow(self.link);
            self.frame(&mut request, &lease)?;
            let sending = lease.send(request);
            error = match self.head(&mut lease, sending).await? {
                Ok(response) => return Ok((response, lease)),
                Err(error) => error,
            };
        }
        Err(self.broken(error.into_error()))
    }

    fn frame(&self, request: &mut Request<Upload>, lease: &Lease) -> Result<(), ProxyError> {
        let http2 = lease.is_http2().then(|| self.proxy.pool.dial().uri_scheme());
        headers::frame(request, http2, self.wish.map(Wish::protocol))
    }

    /// Waits for the head: `response_timeout` from the moment at which the request was sent, and as long as its body moves.
    async fn head(&mut self, lease: &mut Lease, sending: impl Future<Output = Sent>) -> Result<Sent, ProxyError> {
        let Self { proxy, progress, link, hold, .. } = self;
        let (proxy, progress, link) = (*proxy, *progress, *link);
        let mut sending = pin!(sending);
        let answer = poll_fn(|cx| {
            lease.drive(cx);
            if hold.is_none() && progress.is_some_and(|progress| progress.stage() == Stage::Sent) && lease.is_driven() {
                *hold = link.map(Link::hold);
            }
            sending.as_mut().poll(&mut lease.context(cx))
        });
        let mut answer = pin!(answer);
        let asked = Instant::now();
        // Whichever limit applies, looking this often is never too late for it.
        let look = proxy.response_timeout.min(proxy.idle_timeout);
        let mut until = asked + if progress.is_some() { look } else { proxy.response_timeout };
        loop {
            if let Ok(done) = tokio::time::timeout_at(until, answer.as_mut()).await {
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
    fn broken(&self, error: hyper::Error) -> ProxyError {
        if self.progress.is_some_and(|progress| progress.stage() == Stage::Broken) {
            return ProxyError::BadRequest("the request's body broke off or is malformed");
        }
        if io_error(&error).is_some_and(|error| error.kind() == io::ErrorKind::TimedOut) {
            return ProxyError::UploadTimeout(self.proxy.idle_timeout);
        }
        ProxyError::Protocol(error)
    }
}

/// The same request once more. Its body is empty.
fn without_body(request: &Request<Upload>) -> Request<Upload> {
    let mut copy = Request::new(Upload::empty());
    copy.method_mut().clone_from(request.method());
    copy.uri_mut().clone_from(request.uri());
    *copy.version_mut() = request.version();
    copy.headers_mut().clone_from(request.headers());
    // Who is to hear of interim responses, the second time too.
    copy.extensions_mut().clone_from(request.extensions());
    copy
}

/// Whether a connection ended before there was a response.
fn ended_early(error: &hyper::Error) -> bool {
    error.is_incomplete_message()
        || error.is_closed()
        || error.is_canceled()
        || io_error(error).is_some_and(|error| error.kind() != io::ErrorKind::TimedOut)
}

/// The system's error behind one of hyper's.
pub fn io_error(error: &hyper::Error) -> Option<&io::Error> {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref() {
            return Some(io);
        }
        cause = error.source();
    }
    None
}
