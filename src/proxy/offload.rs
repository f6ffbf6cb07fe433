//! A request that stays here: its body is read whole, its episodes are made durable, and then it gets its reply.
//!
//! What goes wrong, and what the client is told:
//!
//! | what | status | code |
//! |---|---|---|
//! | the body is longer than `max_capture` | 413 | `bad_request` |
//! | no byte of it for `idle_timeout` | 408 | `bad_request` |
//! | it broke off, or is malformed | 400 | `bad_request` |
//! | it isn't what the service behind would take | what that would answer | none: these are its words |
//! | the queue is full, failing, or did not commit within `response_timeout` | 503 with `Retry-After` | `queue_full` |
//!
//! Not one byte of a reply leaves before the commit. After a 503 for a commit that was late the episode may be there all the same: a
//! caller that repeats the request makes a second one, unless the route has a `dedupe` key.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request, Response, StatusCode, Version};
use http_body::Body as _;
use tokio::time::{Instant, timeout};

use super::body::Body;
use super::forward::EPISODE_HEADER;
use super::tee::Tee;
use super::upload::{Stage, Upload};
use super::{Exchange, Proxy, ProxyError, headers};
use crate::capture::offload::{Accepted, Offloading, Refusal};
use crate::capture::{Kept, PARSE_ELSEWHERE};
use crate::queue::AppendError;

/// Takes one request. Dropping it (the client has left) takes back nothing of what was appended.
pub async fn run(proxy: Arc<Proxy>, exchange: Exchange) -> Result<Response<Body>, ProxyError> {
    let Exchange { request, peer, route, link, .. } = exchange;
    // Whoever comes here has a route.
    let Some(route) = route else { unreachable!() };
    let mut offloading = Offloading::begin(&proxy.routes, route);
    let http1 = request.version() < Version::HTTP_2;
    let (head, incoming) = request.into_parts();
    let upload = Upload::new(incoming, Some(Tee::new(offloading.max_body())), http1.then_some(&link));
    if http1 && head.version < Version::HTTP_11 {
        link.set_unframed();
    }
    let hold = http1.then(|| link.hold());
    let pace = (!http1).then(|| link.pace());
    let began = Instant::now();
    let body = if offloading.is_refused() {
        Err(ProxyError::QueueFull)
    } else {
        // Only what is wrong with the request is of interest here, and nothing that it would become on its way to an upstream.
        let mut copy = Request::from_parts(head.clone(), upload);
        let fits = http1 || headers::fits(&head.headers, proxy.max_headers, proxy.max_header_size);
        match (fits, proxy.rewrite.request(&mut copy, peer)) {
            (false, _) => Err(ProxyError::HeaderTooLarge),
            (_, Err(error)) => Err(error),
            _ => read(&proxy, copy.into_body(), offloading.max_body()).await,
        }
    };
    let waited = began.elapsed();
    let body = match body {
        Ok(body) => body,
        Err(error) => {
            if http1 {
                link.leave_unread();
            }
            if matches!(error, ProxyError::Unacceptable { .. }) {
                offloading.refuse();
            }
            return Err(error);
        }
    };
    let accepted = if body.len > PARSE_ELSEWHERE {
        let accepting = tokio::task::spawn_blocking(move || offloading.accept(&head, &body));
        accepting.await.map_err(|panic| ProxyError::Panicked(panic.to_string()))?
    } else {
        offloading.accept(&head, &body)
    };
    let mut response = match accepted {
        Ok(accepted) => answer(&proxy, accepted, waited).await?,
        Err(Refusal::Service { status, body }) => respond(status, HeaderValue::from_static("application/json"), body, waited),
        Err(Refusal::Own { status, detail }) => return Err(ProxyError::Unacceptable { status, detail }),
        Err(Refusal::Queue(error)) => return Err(not_kept(error)),
    };
    if let Some(pace) = pace {
        pace.clients_turn();
        response.body_mut().keep_pace(pace);
    }
    response.body_mut().keep_hold(hold);
    Ok(response)
}

/// The whole body.
async fn read(proxy: &Proxy, mut upload: Upload, limit: usize) -> Result<Kept, ProxyError> {
    let too_long = || ProxyError::Unacceptable {
        status: StatusCode::PAYLOAD_TOO_LARGE,
        detail: format!("the request's body is longer than {limit} bytes, the route's max_capture"),
    };
    if upload.size_hint().lower() > limit as u64 {
        return Err(too_long());
    }
    let Some(progress) = upload.progress() else { return Ok(Kept::empty()) };
    let mut total = 0;
    while progress.stage() != Stage::Sent {
        let frame = poll_fn(|cx| Pin::new(&mut upload).poll_frame(cx));
        match timeout(proxy.idle_timeout, frame).await {
            Ok(Some(Ok(frame))) => total += frame.data_ref().map_or(0, Bytes::len),
            Ok(None) => break,
            Ok(Some(Err(_))) => return Err(ProxyError::BadRequest("the request's body broke off or is malformed")),
            Err(_) => {
                let detail = format!("no byte of the request's body came for {:?}", proxy.idle_timeout);
                return Err(ProxyError::Unacceptable { status: StatusCode::REQUEST_TIMEOUT, detail });
            }
        }
        if total > limit {
            return Err(too_long());
        }
    }
    // The tee gives what it kept when the body ends, and it has ended.
    Ok(progress.kept().cloned().unwrap_or_default())
}

/// Waits for the commit itself, and then answers.
async fn answer(proxy: &Proxy, accepted: Accepted, waited: Duration) -> Result<Response<Body>, ProxyError> {
    let answer = match timeout(proxy.response_timeout, accepted.kept()).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => return Err(not_kept(error)),
        Err(_) => {
            tracing::error!(proxy = proxy.name, "the queue did not commit in time: an offloaded request was refused");
            return Err(ProxyError::NotKept("the queue did not commit it in time"));
        }
    };
    let mut response = respond(answer.status, answer.content_type, answer.body.into(), waited);
    if proxy.expose_episode_id
        && let Some(id) = answer.id
        && let Ok(id) = HeaderValue::try_from(id.to_string())
    {
        response.headers_mut().insert(EPISODE_HEADER, id);
    }
    Ok(response)
}

fn respond(status: StatusCode, content_type: HeaderValue, body: Bytes, waited: Duration) -> Response<Body> {
    let empty = body.is_empty();
    let mut response = Response::new(Body::reply(body, waited));
    *response.status_mut() = status;
    if !empty {
        response.headers_mut().insert(CONTENT_TYPE, content_type);
    }
    response
}

fn not_kept(error: AppendError) -> ProxyError {
    match error {
        AppendError::Full => ProxyError::QueueFull,
        AppendError::Failed => ProxyError::NotKept("the queue's store is not writable"),
    }
}
