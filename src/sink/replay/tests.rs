//! The sink against a raw server.

use std::sync::Arc;
use std::time::Duration;

use serde_bytes::ByteBuf;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use uuid::Uuid;

use super::*;
use crate::config::status::{RetryOn, StatusSet};
use crate::config::{Breaker, OrderBy, Retry, SinkKind};
use crate::episode::{Digests, End, Episode, Request};

fn sink(url: &str, headers: &[(&'static str, &'static str)]) -> Arc<dyn Sink> {
    let config = config::Sink {
        name: "again".to_owned(),
        kind: SinkKind::Replay { url: url.to_owned() },
        workers: 1,
        order_by: OrderBy::Session,
        connect_timeout: Duration::from_secs(2),
        timeout: Duration::from_secs(10),
        retry: Retry {
            max_attempts: 1,
            initial: Duration::from_secs(1),
            max: Duration::from_secs(1),
            full_jitter: false,
            max_age: Duration::from_secs(60),
        },
        retry_on: RetryOn::default(),
        pause_on: StatusSet::default(),
        breaker: Breaker::in_a_row(0, Duration::from_secs(1)),
        rate: config::Rate { per_second: 0.0, burst: 1 },
        adaptive: false,
        batch: config::Batch { max_items: 1, linger: Duration::ZERO },
        on_dead: config::OnDead::Continue,
        headers: headers.iter().map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v))).collect(),
    };
    crate::sink::open(&config).unwrap()
}

fn delivery(original: Option<Original>) -> Delivery {
    let episode = Episode {
        id: Uuid::nil(),
        session: "s".into(),
        group: None,
        user: None,
        agent: None,
        proxy: "agent".into(),
        route: "add".into(),
        captured_at: 0,
        completed_at: 0,
        end: End::Complete,
        messages: Vec::new(),
        metadata: "{}".into(),
        request: Request { method: "PUT".into(), path: "/a".into(), status: 202, traceparent: None },
        occurred_at: None,
        sha256: Digests::default(),
        original,
    };
    Delivery { episode: Arc::new(episode), at: 0 }
}

fn request(target: &str, headers: &[(&str, &[u8])], body: &[u8]) -> Original {
    let headers = headers.iter().map(|(n, v)| ((*n).to_owned(), ByteBuf::from(v.to_vec()))).collect();
    Original { target: target.to_owned(), headers, body: body.to_vec() }
}

/// What a server that gives this answer gets of a delivery, and what the sink says of it.
async fn sent(
    headers: &[(&'static str, &'static str)],
    original: Original,
    answer: &str,
) -> (String, Result<Receipt, SinkError>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let sink = sink(&format!("http://{}", listener.local_addr().unwrap()), headers);
    let length = original.body.len();
    let delivery = delivery(Some(original));
    let (result, got) = tokio::join!(sink.deliver(&delivery), async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut got = Vec::new();
        while !got.windows(4).any(|w| w == b"\r\n\r\n") {
            got.push(stream.read_u8().await.unwrap());
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.unwrap();
        stream.write_all(answer.as_bytes()).await.unwrap();
        got.extend(body);
        String::from_utf8_lossy(&got).into_owned()
    });
    (got, result)
}

const OK: &str = "HTTP/1.1 204 No Content\r\n\r\n";

#[tokio::test]
async fn the_request_is_sent_again_as_it_was() {
    let original = request(
        "/v1/add%20x?a=1&b=%2F&a=2",
        &[("content-type", b"application/x"), ("accept", b"a"), ("accept", b"b")],
        b"\x00body",
    );
    let (got, result) = sent(&[("authorization", "Bearer mine")], original, OK).await;
    assert_eq!(result.unwrap(), Receipt::Delivered);
    assert!(got.starts_with("PUT /v1/add%20x?a=1&b=%2F&a=2 HTTP/1.1\r\n"), "{got}");
    for line in ["content-type: application/x", "accept: a", "accept: b", "authorization: Bearer mine", "content-length: 5"] {
        assert!(got.contains(&format!("{line}\r\n")), "{line}: {got}");
    }
    assert!(got.contains("idempotency-key: 00000000-0000-0000-0000-000000000000\r\n"), "{got}");
    assert!(got.ends_with("\r\n\r\n\0body"), "{got}");
}

#[tokio::test]
async fn the_originals_idempotency_key_stays_and_the_operators_headers_win() {
    let original = request("/", &[("idempotency-key", b"mine"), ("accept", b"theirs")], b"");
    let (got, result) = sent(&[("accept", "ours")], original, OK).await;
    assert!(result.is_ok());
    assert!(got.contains("idempotency-key: mine\r\n") && got.contains("accept: ours\r\n"), "{got}");
    assert!(!got.contains("theirs") && !got.contains("00000000-"), "{got}");
}

#[tokio::test]
async fn what_is_no_success_is_told_with_its_status() {
    let (_, result) = sent(&[], request("/", &[], b"x"), "HTTP/1.1 302 Found\r\nlocation: /\r\ncontent-length: 0\r\n\r\n").await;
    assert_eq!(result.unwrap_err().cause, Cause::Status(302), "a redirect is no delivery");
    let (_, result) =
        sent(&[], request("/", &[], b"x"), "HTTP/1.1 503 Busy\r\nretry-after: 7\r\ncontent-length: 0\r\n\r\n").await;
    let error = result.unwrap_err();
    assert_eq!((error.cause, error.retry_after), (Cause::Status(503), Some(Duration::from_secs(7))));
}

#[tokio::test]
async fn what_has_no_request_or_one_that_cannot_be_sent_as_it_was_is_never_tried_again() {
    let sink = sink("http://127.0.0.1:1", &[]);
    for original in [None, Some(request("/a/../b", &[], b"")), Some(request("/%2e%2E/b", &[], b""))] {
        let error = sink.deliver(&delivery(original)).await.unwrap_err();
        assert_eq!((error.cause, error.ambiguous), (Cause::Unfit, false), "{error}");
    }
    assert_eq!(sink.look_up(&delivery(None)).await.unwrap(), Presence::Unknown);
}
