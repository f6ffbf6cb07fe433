//! Invariant 1: the classic ways to hide a request inside another, or to have a head read in two ways. Each is refused with
//! `bad_request`, or forwarded as one request that can be read in one way only.

use super::malformed::{PREFACE, fields, frame};
use super::peer::{Client, Http, Leave, VERSIONS};
use super::strict::{self, Parsed, Seen};
use super::*;

/// What becomes of a request.
#[derive(Debug)]
enum Fate {
    /// A problem, and nothing for the upstream.
    Refused,
    /// A problem, once the upstream has a part of it; and no more for the upstream, which so has no request.
    Cut,
    /// This is what the upstream gets.
    Forwarded(&'static str),
}
use Fate::{Cut, Forwarded, Refused};

const HTTP1: &[(&str, &str, Fate)] = &[
    (
        "CL.TE",
        "POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 6\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nG",
        Forwarded("POST /x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
    ),
    (
        "TE.CL",
        "POST /x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
        Forwarded("POST /x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"),
    ),
    ("TE, a space before the colon", "POST /x HTTP/1.1\r\nhost: a\r\ntransfer-encoding : chunked\r\n\r\n0\r\n\r\n", Refused),
    ("TE xchunked", "POST /x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: xchunked\r\n\r\n0\r\n\r\n", Refused),
    ("TE chunked, identity", "POST /x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n", Refused),
    ("TE identity, chunked", "POST /x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: identity, chunked\r\n\r\n0\r\n\r\n", Refused),
    (
        "TE with a tab",
        "POST /x HTTP/1.1\r\nhost: a\r\ntransfer-encoding:\tchunked\r\n\r\n0\r\n\r\n",
        Forwarded("POST /x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
    ),
    ("TE with a vertical tab", "POST /x HTTP/1.1\r\nhost: a\r\ntransfer-encoding:\x0bchunked\r\n\r\n0\r\n\r\n", Refused),
    (
        "TE in capitals",
        "POST /x HTTP/1.1\r\nhost: a\r\nTRANSFER-ENCODING: CHUNKED\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
        Forwarded("POST /x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"),
    ),
    ("TE quoted", "POST /x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: \"chunked\"\r\n\r\n0\r\n\r\n", Refused),
    (
        "two TE lines",
        "POST /x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        Refused,
    ),
    (
        "two TE lines that differ",
        "POST /x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: identity\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        Refused,
    ),
    ("TE in a folded line", "POST /x HTTP/1.1\r\nhost: a\r\nx: 1\r\n transfer-encoding: chunked\r\n\r\n0\r\n\r\n", Refused),
    ("CL 5, 5", "POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 5, 5\r\n\r\nhello", Refused),
    ("CL +5", "POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: +5\r\n\r\nhello", Refused),
    ("CL -5", "POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: -5\r\n\r\nhello", Refused),
    ("CL 0x5", "POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 0x5\r\n\r\nhello", Refused),
    ("CL empty", "POST /x HTTP/1.1\r\nhost: a\r\ncontent-length:\r\n\r\n", Refused),
    ("CL too large", "POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 99999999999999999999\r\n\r\n", Refused),
    (
        "CL 05",
        "POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 05\r\n\r\nhello",
        Forwarded("POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 05\r\n\r\nhello"),
    ),
    ("two CL lines that differ", "POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello", Refused),
    (
        "two CL lines that agree",
        "POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ncontent-length: 5\r\n\r\nhello",
        Forwarded("POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello"),
    ),
    (
        "Connection: content-length",
        "POST /x HTTP/1.1\r\nhost: a\r\nconnection: content-length\r\ncontent-length: 5\r\n\r\nhello",
        Forwarded("POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello"),
    ),
    (
        "Connection: host, transfer-encoding",
        "POST /x HTTP/1.1\r\nhost: a\r\nconnection: host, transfer-encoding\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
        Forwarded("POST /x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"),
    ),
    ("two Hosts", "POST /x HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n", Refused),
    ("no Host", "POST /x HTTP/1.1\r\nx: 1\r\n\r\n", Refused),
    ("a bare CR in a value", "POST /x HTTP/1.1\r\nhost: a\r\nx: 1\rtransfer-encoding: chunked\r\n\r\n", Refused),
    (
        "a bare LF ends a line",
        "POST /x HTTP/1.1\r\nhost: a\nx: 1\r\n\r\n",
        Forwarded("POST /x HTTP/1.1\r\nhost: a\r\nx: 1\r\n\r\n"),
    ),
    ("NUL in a value", "POST /x HTTP/1.1\r\nhost: a\r\nx: 1\0\r\n\r\n", Refused),
    ("a line without a colon", "POST /x HTTP/1.1\r\nhost: a\r\nnothing\r\n\r\n", Refused),
    ("a chunk size 0x2", "POST /x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0x2\r\nhi\r\n0\r\n\r\n", Cut),
    ("a chunk size -1", "POST /x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n-1\r\nhi\r\n0\r\n\r\n", Cut),
    (
        "a chunk size too large",
        "POST /x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n10000000000000002\r\nhi\r\n0\r\n\r\n",
        Cut,
    ),
    (
        "a chunk longer than its size",
        "POST /x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhiho\r\n0\r\n\r\n",
        Cut,
    ),
    (
        "a chunk size that ends with LF",
        "POST /x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n2\nhi\r\n0\r\n\r\n",
        Cut,
    ),
    (
        "a chunk extension",
        "POST /x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n2;x=\"\r\nhi\r\n0\r\n\r\n",
        Forwarded("POST /x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"),
    ),
    ("a chunk extension with LF", "POST /x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n2;x\nhi\r\n0\r\n\r\n", Cut),
    (
        "CL in trailers",
        "POST /x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ntrailer: content-length\r\n\r\n2\r\nhi\r\n0\r\ncontent-length: 9\r\n\r\n",
        Forwarded(
            "POST /x HTTP/1.1\r\nhost: a\r\ntrailer: content-length\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
        ),
    ),
    ("TE in HTTP/1.0", "POST /x HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", Refused),
    ("a target with another host", "GET http://b/x HTTP/1.1\r\nhost: a\r\n\r\n", Forwarded("GET /x HTTP/1.1\r\nhost: b\r\n\r\n")),
    ("a target with a user", "GET http://u:p@b/x HTTP/1.1\r\nhost: a\r\n\r\n", Forwarded("GET /x HTTP/1.1\r\nhost: b\r\n\r\n")),
    ("a target without a path", "GET http://b?q HTTP/1.1\r\nhost: a\r\n\r\n", Forwarded("GET /?q HTTP/1.1\r\nhost: b\r\n\r\n")),
    ("a target that is an authority", "GET b:80 HTTP/1.1\r\nhost: a\r\n\r\n", Refused),
    ("CONNECT", "CONNECT b:80 HTTP/1.1\r\nhost: b:80\r\n\r\n", Refused),
    ("two spaces", "GET  /x HTTP/1.1\r\nhost: a\r\n\r\n", Refused),
    ("a space in the target", "GET /x y HTTP/1.1\r\nhost: a\r\n\r\n", Refused),
    ("HTTP/1.2", "GET /x HTTP/1.2\r\nhost: a\r\n\r\n", Refused),
    ("a folded first line", "GET /x HTTP/1.1\r\n x: 1\r\nhost: a\r\n\r\n", Refused),
    ("a Host with a space", "GET /x HTTP/1.1\r\nhost: a b\r\n\r\n", Refused),
    (
        "Connection names hop-by-hop, twice",
        "GET /x HTTP/1.1\r\nhost: a\r\nconnection: x-a\r\nconnection: X-B\r\nx-a: 1\r\nx-b: 2\r\nx-c: 3\r\n\r\n",
        Forwarded("GET /x HTTP/1.1\r\nhost: a\r\nx-c: 3\r\n\r\n"),
    ),
    (
        "h2c is not passed on",
        "GET /x HTTP/1.1\r\nhost: a\r\nconnection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n\r\n",
        Forwarded("GET /x HTTP/1.1\r\nhost: a\r\n\r\n"),
    ),
    (
        "a body with a GET",
        "GET /x HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nhi",
        Forwarded("GET /x HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nhi"),
    ),
];

async fn serving() -> (Running, Seen) {
    let agent = Agent::new().await;
    let config = proxy_to(agent.at());
    let seen = strict::serve(agent);
    (start(config, Recorder::quick()).await, seen)
}

/// The status and the code of a response, which is a problem if it has a code.
fn fate(answer: &str) -> (u16, Option<&str>) {
    let status = answer.get(9..12).and_then(|s| s.parse().ok()).unwrap_or_default();
    let code = answer.split("x-offramp-error: ").nth(1).and_then(|rest| rest.lines().next());
    assert!(code.is_none() || answer.contains("content-type: application/problem+json\r\n"), "{answer}");
    (status, code)
}

/// What came to the upstream is what was to come.
async fn assert_forwarded(what: &str, expected: &Fate, seen: &Seen) {
    let requests = strict::requests(seen).await;
    match expected {
        Refused => assert_eq!(requests, Vec::<Vec<u8>>::new(), "{what}"),
        Cut => assert!(requests.iter().all(|request| strict::parse(request) == Parsed::Incomplete), "{what}"),
        Forwarded(request) => assert_eq!(requests.iter().map(|r| text(r)).collect::<Vec<_>>(), [*request], "{what}"),
    }
}

#[tokio::test]
async fn inv1_http1_requests_are_read_in_one_way_or_refused() {
    let (running, seen) = serving().await;
    for (what, request, expected) in HTTP1 {
        let mut client = running.connect().await;
        client.write_all(request.as_bytes()).await.unwrap();
        let mut answer = read_head(&mut client).await.unwrap_or_else(|| panic!("{what}: no answer"));
        let _ = client.shutdown().await;
        answer.extend(rest(&mut client).await);
        let answer = text(&answer);
        let is_forwarded = matches!(expected, Forwarded(_));
        assert_eq!(fate(&answer), if is_forwarded { (200, None) } else { (400, Some("bad_request")) }, "{what}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{what}: one answer");
        if request.contains("content-length")
            && request.contains("transfer-encoding")
            && is_forwarded
            && !what.contains("trailers")
        {
            // The coding wins, and nothing that follows is taken for a request (RFC 9112 §6.1).
            assert!(answer.contains("connection: close"), "{what}: {answer}");
        }
        running.idle().await;
        assert_forwarded(what, expected, &seen).await;
    }
}

type Fields = &'static [(&'static str, &'static str)];

/// Heads of HTTP/2 beside method, path and scheme, their data, what the client is told, and what the upstream gets.
const HTTP2: &[(&str, Fields, &str, &str, Fate)] = &[
    (
        "well",
        &[(":authority", "a")],
        "hi",
        "status 200",
        Forwarded("POST /x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"),
    ),
    ("transfer-encoding", &[(":authority", "a"), ("transfer-encoding", "chunked")], "0\r\n\r\n", "reset 1", Refused),
    ("connection", &[(":authority", "a"), ("connection", "close")], "", "reset 1", Refused),
    ("keep-alive", &[(":authority", "a"), ("keep-alive", "1")], "", "reset 1", Refused),
    ("upgrade", &[(":authority", "a"), ("upgrade", "h2c")], "", "reset 1", Refused),
    ("te: gzip", &[(":authority", "a"), ("te", "gzip")], "", "reset 1", Refused),
    (
        "te: trailers",
        &[(":authority", "a"), ("te", "trailers")],
        "",
        "status 200",
        Forwarded("POST /x HTTP/1.1\r\nte: trailers\r\nhost: a\r\nconnection: te\r\n\r\n"),
    ),
    ("a length too long", &[(":authority", "a"), ("content-length", "5")], "hi", "reset 1", Cut),
    ("a length too short", &[(":authority", "a"), ("content-length", "1")], "hi", "reset 1", Cut),
    ("a length +2", &[(":authority", "a"), ("content-length", "+2")], "hi", "reset 1", Cut),
    ("two lengths", &[(":authority", "a"), ("content-length", "2"), ("content-length", "2")], "hi", "status 400", Refused),
    ("two lengths that differ", &[(":authority", "a"), ("content-length", "2"), ("content-length", "3")], "hi", "reset 1", Cut),
    (
        "a host too, the same",
        &[(":authority", "a"), ("host", "a")],
        "",
        "status 200",
        Forwarded("POST /x HTTP/1.1\r\nhost: a\r\n\r\n"),
    ),
    ("a host too, another", &[(":authority", "a"), ("host", "b")], "", "status 400", Refused),
    ("a host instead", &[("host", "a")], "", "status 200", Forwarded("POST /x HTTP/1.1\r\nhost: a\r\n\r\n")),
    ("no host at all", &[], "", "status 200", Forwarded("POST /x HTTP/1.1\r\nhost: upstream.example\r\n\r\n")),
    ("two hosts", &[("host", "a"), ("host", "a")], "", "status 400", Refused),
    ("a user", &[(":authority", "u@a")], "", "status 200", Forwarded("POST /x HTTP/1.1\r\nhost: a\r\n\r\n")),
    ("a space in the authority", &[(":authority", "a b")], "", "reset 1", Refused),
    ("two paths", &[(":authority", "a"), (":path", "/y")], "", "reset 1", Refused),
    ("a pseudo-header behind", &[("x", "1"), (":authority", "a")], "", "reset 1", Refused),
    ("a line end in a value", &[(":authority", "a"), ("x", "1\r\ny: 2")], "", "leave 1", Refused),
    ("a line end in a name", &[(":authority", "a"), ("x\r\ny", "1")], "", "leave 1", Refused),
    ("NUL in a value", &[(":authority", "a"), ("x", "1\0")], "", "leave 1", Refused),
    ("a capital", &[(":authority", "a"), ("X", "1")], "", "leave 1", Refused),
    (
        "cookies",
        &[(":authority", "a"), ("cookie", "a=1"), ("cookie", "b=2")],
        "",
        "status 200",
        Forwarded("POST /x HTTP/1.1\r\ncookie: a=1; b=2\r\nhost: a\r\n\r\n"),
    ),
    ("extended connect", &[(":authority", "a"), (":protocol", "websocket")], "", "reset 1", Refused),
    ("a length +0, and none", &[(":authority", "a"), ("content-length", "+0")], "", "reset 1", Cut),
    ("a length 2, 2", &[(":authority", "a"), ("content-length", "2, 2")], "hi", "reset 1", Cut),
    ("a length, and none", &[(":authority", "a"), ("content-length", "2")], "", "reset 1", Cut),
    ("an empty length", &[(":authority", "a"), ("content-length", "")], "", "status 400", Refused),
];

/// What a client is told of its stream, frame by frame.
async fn told(client: &mut TcpStream) -> String {
    loop {
        let mut head = [0; 9];
        if client.read_exact(&mut head).await.is_err() {
            return "closed".to_owned();
        }
        let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
        client.read_exact(&mut payload).await.unwrap();
        match (head[3], head[8]) {
            // The fields of the static table (RFC 7541 Appendix A).
            (1, 1) if payload[0] == 0x88 => return "status 200".to_owned(),
            (1, 1) if payload[0] == 0x8c => return "status 400".to_owned(),
            (1, 1) => return format!("head {payload:x?}"),
            (3, 1) => return format!("reset {}", payload[3]),
            (7, _) if payload[7] != 0 => return format!("leave {}", payload[7]),
            _ => {}
        }
    }
}

#[tokio::test]
async fn inv1_http2_requests_are_read_in_one_way_or_refused() {
    let (running, seen) = serving().await;
    for (what, more, data, expected, fate) in HTTP2 {
        let (pseudo, other): (Vec<_>, Vec<_>) =
            more.iter().partition(|(name, _)| name.starts_with(':') && *what != "a pseudo-header behind");
        let all = [vec![(":method", "POST"), (":path", "/x"), (":scheme", "http")], pseudo, other].concat();
        let request = [
            PREFACE,
            &frame(1, if data.is_empty() { 5 } else { 4 }, 1, &fields(&all)),
            &if data.is_empty() { Vec::new() } else { frame(0, 1, 1, data.as_bytes()) },
        ]
        .concat();
        let mut client = running.connect().await;
        client.write_all(&request).await.unwrap();
        assert_eq!(told(&mut client).await, *expected, "{what}");
        drop(client);
        running.idle().await;
        assert_forwarded(what, fate, &seen).await;
    }
}

/// Heads at the limits of [`proxy_to`], and beyond: 100 lines, 64 KiB.
#[tokio::test]
async fn a_head_over_the_limits_is_a_431() {
    let (running, seen) = serving().await;
    for http in VERSIONS {
        for (lines, size, fits) in
            [(50, 100, true), (101, 100, false), (2, 70_000, false), (2, 200_000, false), (1000, 100, false)]
        {
            let mut client = Client::connect(running.at, http, Leave::Close).await;
            let headers: Vec<_> = (0..lines).map(|n| (format!("x-{n}"), "y".repeat(size / lines))).collect();
            client.ask_with("/x", &headers).await;
            let head = client.head().await;
            let (body, _) = client.rest().await;
            let what = format!("{http:?}, {lines} lines, {size} bytes");
            assert_eq!(head.status(), if fits { 200 } else { 431 }, "{what}");
            // Beyond twice the limit h2 refuses by itself, and says no more.
            if !fits && (http == Http::One || size < 2 * (64 << 10)) {
                assert_eq!(head.headers()["x-offramp-error"], "header_too_large", "{what}");
                assert_eq!(head.headers()["content-type"], "application/problem+json", "{what}");
                let problem: serde_json::Value = serde_json::from_slice(&body).unwrap();
                assert_eq!(problem["status"], 431, "{what}");
            }
            drop(client);
            running.idle().await;
            assert_eq!(strict::requests(&seen).await.len(), usize::from(fits), "{what}");
        }
    }
}
