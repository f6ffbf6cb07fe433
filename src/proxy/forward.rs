//! The way to the upstream and back: one exchange, streamed in both directions.

use std::error::Error;
use std::future::{Future, poll_fn, ready};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::Either;
use http::header::CONTENT_LENGTH;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body::Body as _;
use hyper::body::Incoming;
use tokio::time::Instant;
use tower::Service;

use super::body::Body;
use super::headers;
use super::lease::{Lease, Sent};
use super::link::{Hold, Link, Pace};
use super::offload;
use super::tee::{Barrier, Tee};
use super::upgrade::Wish;
use super::upload::{self, Progress, Stage, Upload};
use super::{Exchange, Proxy, ProxyError};
use crate::capture::Capture;
use crate::episode::End;

pub(super) const EPISODE_HEADER: HeaderName = HeaderName::from_static("x-offramp-episode");

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
        if exchange.offloaded {
            return Box::pin(offload::run(Arc::clone(&self.0), exchange));
        }
        match Forwarding::begin(Arc::clone(&self.0), exchange) {
            Ok(forwarding) => Box::pin(forwarding.run()),
            Err(error) => Box::pin(ready(Err(error))),
        }
    }
}

/// A request on its way to the upstream. Dropping it (the client has left) closes the connection to the upstream, which so learns that
/// nobody waits any more.
///
/// What is large lives in here and not in variables of the futures below: each request's future is one allocation, and a variable
/// that is moved from one future to the next counts in both.
struct Forwarding {
    proxy: Arc<Proxy>,
    method: Method,
    capture: Option<Box<Capture>>,
    /// Until it is sent.
    request: Option<Request<Upload>>,
    progress: Option<Arc<Progress>>,
    /// The client's connection. Half of it can be closed only where it is one's own: not in HTTP/2.
    link: Option<Arc<Link>>,
    wish: Option<Wish>,
    /// Until the response begins; then it is the body's.
    hold: Option<Hold>,
    /// In HTTP/2.
    pace: Option<Arc<Pace>>,
}

impl Forwarding {
    fn begin(proxy: Arc<Proxy>, exchange: Exchange) -> Result<Self, ProxyError> {
        let Exchange { mut request, peer, route, link, .. } = exchange;
        let capture = match route {
            Some(route) => Capture::begin(&proxy.routes, route, &request).map_err(|_| ProxyError::QueueFull)?,
            None => None,
        };
        let version = request.version();
        let tee = capture.as_ref().map(|capture| Tee::new(capture.max_capture()));
        let mut this = Self {
            method: request.method().clone(),
            capture,
            wish: Wish::of(&mut request),
            request: None,
            progress: None,
            hold: None,
            link: None,
            pace: None,
            proxy,
        };
        let mut request = request.map(|body| Upload::new(body, tee, (version < Version::HTTP_2).then_some(&link)));
        let rewritten = if version == Version::HTTP_2
            && !headers::fits(request.headers(), this.proxy.max_headers, this.proxy.max_header_size)
        {
            Err(ProxyError::HeaderTooLarge)
        } else {
            this.proxy.rewrite.request(&mut request, peer)
        };
        if let Err(error) = rewritten {
            return Err(this.unanswered(error));
        }
        if version == Version::HTTP_2 {
            this.pace = Some(link.pace());
        } else {
            if version < Version::HTTP_11 {
                link.set_unframed();
            }
            this.link = Some(link);
        }
        upload::watch_interim(&mut request, this.link.as_ref());
        this.progress = request.body().progress();
        this.hold = this.link.as_ref().map(Link::hold);
        this.request = Some(request);
        Ok(this)
    }

    /// Not `async fn`: that would keep a second `self`.
    #[expect(clippy::manual_async_fn)]
    fn run(mut self) -> impl Future<Output = Result<Response<Body>, ProxyError>> + Send {
        async move {
            let asked = Instant::now();
            match self.send().await {
                Ok((response, lease)) => {
                    let answered = self.answered(response, lease, asked.elapsed())?;
                    match answered {
                        (response, None) => Ok(response),
                        (response, Some(barrier)) => {
                            Box::pin(async move {
                                barrier.await;
                                Ok(response)
                            })
                            .await
                        }
                    }
                }
                Err(error) => Err(self.unanswered(error)),
            }
        }
    }

    /// There is no response of the upstream.
    fn unanswered(&mut self, error: ProxyError) -> ProxyError {
        if let Some(capture) = self.capture.take() {
            capture.unanswered();
        }
        if let (Some(link), Some(progress)) = (&self.link, &self.progress)
            && progress.stage() != Stage::Sent
        {
            link.leave_unread();
        }
        error
    }

    /// Makes the upstream's response the client's. One without a body is not to go before what it may have to wait for.
    fn answered(
        &mut self,
        mut response: Response<Incoming>,
        mut lease: Lease,
        took: Duration,
    ) -> Result<(Response<Body>, Option<Barrier>), ProxyError> {
        let idle_timeout = self.proxy.idle_timeout;
        let switched = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        let (body, upgraded) = if switched && let (Some(wish), Some(link)) = (self.wish.take(), &self.link) {
            let (tunnel, handover) = wish.granted(&mut response, lease, idle_timeout);
            link.leave_tunnel(tunnel);
            (Either::Left(Body::switched(handover, took)), true)
        } else {
            if self.progress.as_ref().is_some_and(|progress| progress.stage() != Stage::Sent) {
                lease.detach();
                self.hold = None;
            }
            (Either::Right(lease), false)
        };
        let (mut head, incoming) = response.into_parts();
        if let Err(error) = headers::response(&mut head, upgraded) {
            return Err(self.unanswered(error));
        }
        let body = match body {
            Either::Left(body) => body,
            Either::Right(lease) => Body::upstream(incoming, lease, self.progress.take(), self.link.take(), idle_timeout, took),
        };
        let mut response = Response::from_parts(head, body);
        if let Some(mut capture) = self.capture.take() {
            let stream = capture.answered(response.status().as_u16(), response.headers());
            if self.proxy.expose_episode_id
                && let Ok(id) = HeaderValue::try_from(capture.id().to_string())
            {
                response.headers_mut().insert(EPISODE_HEADER, id);
            }
            response.body_mut().capture(capture, stream);
        }
        if let Some(pace) = self.pace.take() {
            pace.gives();
            pace.clients_turn();
            response.body_mut().keep_pace(pace);
        }
        if !upgraded {
            response.body_mut().keep_hold(self.hold.take());
        }
        if !response.body().is_end_stream() {
            return Ok((response, None));
        }
        // The head is all there is, so it is the last byte too.
        let barrier = response.body_mut().end(End::Complete);
        if response.status() == StatusCode::NOT_MODIFIED
            && self.method != Method::HEAD
            && response.headers().contains_key(CONTENT_LENGTH)
        {
            response.body_mut().leave_unsent();
        }
        Ok((response, barrier))
    }

    /// Waits for the response's head. One attempt; a second one only where it can't be seen: the first connection had been used
    /// before, and either hyper gives the request back unsent, or the connection ended without a response and asking twice is asking
    /// once (RFC 9110 §9.2.2). That is how an upstream's own closing of an idle connection looks when it crosses a request.
    async fn send(&mut self) -> Result<(Response<Incoming>, Lease), ProxyError> {
        let http1 = self.wish.is_some();
        let mut lease = self.proxy.pool.lease(http1).await?;
        loop {
            // It was put there when this began, or below.
            let Some(mut request) = self.request.take() else { unreachable!() };
            let http2 = lease.is_http2().then(|| self.proxy.pool.dial().uri_scheme());
            if http2.is_some() {
                // hyper passes no interim response of HTTP/2 on.
                request.body_mut().open();
                // There a stream has no half that is left to be closed: who closes theirs has left, and what is sent ends at once.
                if self.hold.take().is_some() && self.link.as_ref().is_some_and(|link| link.is_half_closed()) {
                    tokio::task::yield_now().await;
                }
            }
            headers::frame(&mut request, http2, self.wish.as_ref().map(Wish::protocol))?;
            let repeatable = lease.is_reused() && self.progress.is_none() && request.method().is_idempotent();
            let again = repeatable.then(|| Box::new(without_body(&request)));
            let mut sending = pin!(lease.send(request));
            let mut error = match self.head(&mut lease, sending.as_mut()).await? {
                Ok(response) => return Ok((response, lease)),
                Err(error) => error,
            };
            let unsent = error.take_message().filter(|_| lease.is_reused());
            self.request = unsent.or_else(|| again.filter(|_| ended_early(error.error())).map(|request| *request));
            let Some(request) = &mut self.request else { return Err(self.broken(error.into_error())) };
            upload::watch_interim(request, self.link.as_ref());
            drop(error);
            lease = self.proxy.pool.connect(http1).await?;
        }
    }

    /// Waits for the head: `response_timeout` from the moment at which the request was sent, and as long as its body moves.
    async fn head(&mut self, lease: &mut Lease, mut sending: Pin<&mut impl Future<Output = Sent>>) -> Result<Sent, ProxyError> {
        let Self { proxy, progress, link, capture, .. } = self;
        let asked = Instant::now();
        // Whichever limit applies, looking this often is never too late for it.
        let look = if progress.is_some() { proxy.response_timeout.min(proxy.idle_timeout) } else { proxy.response_timeout };
        let mut timer = lease.take_timer(asked + look);
        let answered = poll_fn(|cx| {
            lease.drive(cx);
            let stage = progress.as_ref().map_or(Stage::Sent, |progress| progress.stage());
            if stage == Stage::Sent {
                if lease.follow(link.as_ref()) {
                    lease.drive(cx);
                }
                // While the upstream thinks.
                if let Some(capture) = capture {
                    capture.sent(progress.as_deref().and_then(Progress::kept));
                }
            }
            if let Poll::Ready(done) = sending.as_mut().poll(&mut lease.context(cx)) {
                return Poll::Ready(Ok(done));
            }
            while timer.as_mut().poll(cx).is_ready() {
                let since = progress.as_ref().map_or(asked, |progress| progress.moved_at().max(asked));
                let limit = if stage == Stage::Sent { proxy.response_timeout } else { proxy.idle_timeout };
                let now = Instant::now();
                if since + limit <= now {
                    return Poll::Ready(Err(match stage {
                        Stage::Sent => ProxyError::ResponseTimeout(limit),
                        Stage::Upstream => ProxyError::UploadTimeout(limit),
                        Stage::Client | Stage::Broken => ProxyError::BadRequest("the request's body stopped coming"),
                    }));
                }
                timer.as_mut().reset((since + limit).min(now + look));
            }
            Poll::Pending
        })
        .await;
        lease.keep_timer(timer);
        answered
    }

    /// What a connection that broke before the head means.
    fn broken(&self, error: hyper::Error) -> ProxyError {
        if self.progress.as_ref().is_some_and(|progress| progress.stage() == Stage::Broken) {
            return ProxyError::BadRequest("the request's body broke off or is malformed");
        }
        if io_error(&error).is_some_and(|error| error.kind() == io::ErrorKind::TimedOut) {
            return ProxyError::UploadTimeout(self.proxy.idle_timeout);
        }
        if self.link.as_ref().is_some_and(|link| link.is_half_closed()) {
            return ProxyError::Abandoned;
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
    copy
}

/// Whether a connection ended before there was a response.
fn ended_early(error: &hyper::Error) -> bool {
    error.is_incomplete_message()
        || error.is_closed()
        || error.is_canceled()
        || io_error(error).is_some_and(|error| error.kind() != io::ErrorKind::TimedOut)
        // HTTP/2: the upstream takes its leave, or says itself that it did nothing (RFC 9113 §8.7).
        || cause::<h2::Error>(error)
            .is_some_and(|error| error.is_remote() && (error.is_go_away() || error.reason() == Some(h2::Reason::REFUSED_STREAM)))
}

/// The system's error behind one of hyper's.
pub fn io_error(error: &hyper::Error) -> Option<&io::Error> {
    cause(error).or_else(|| cause::<h2::Error>(error)?.get_io())
}

fn cause<T: Error + 'static>(error: &hyper::Error) -> Option<&T> {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        cause = error.source();
    }
    None
}
