//! `[[proxy]]`

use std::time::Duration;

use super::route::route;
use crate::config::address::{LISTENS, UPSTREAMS, listen, upstream};
use crate::config::read::{Header, Section};
use crate::config::values::{boolean, choice, duration, duration_or_zero, integer, name};
use crate::config::{Breaker, Fallback, Listen, Proxy, SocketFile, Upstream, UpstreamTls};

/// Most requests and connections that a limit may allow: a number beyond this is a slip.
const MOST: usize = 10_000_000;

/// Reads one proxy.
pub fn proxy(mut s: Section<'_>) -> Proxy {
    let secs = Duration::from_secs;
    let proxy = Proxy {
        name: s.require("name", "a name of letters, digits, _ and -", name).unwrap_or_default(),
        // Placeholders: a configuration in which they stand has a fault.
        listen: s.require("listen", LISTENS, listen).unwrap_or_else(|| Listen::Tcp(String::new())),
        upstream: s.require("upstream", UPSTREAMS, upstream).unwrap_or_else(|| Upstream::Unix("".into())),
        preserve_host: s.get("preserve_host", true, boolean),
        forwarded: s.get("forwarded", true, choice(&[("append", true), ("off", false)])),
        connect_timeout: s.get("connect_timeout", secs(10), duration),
        response_timeout: s.get("response_timeout", secs(120), duration),
        idle_timeout: s.get("idle_timeout", secs(300), duration),
        max_in_flight: s.get("max_in_flight", 1000, integer(1, MOST)),
        max_waiting: s.get("max_waiting", 1000, integer(0, MOST)),
        wait_timeout: s.get("wait_timeout", secs(5), duration_or_zero),
        max_connections: s.get("max_connections", 10_000, integer(1, MOST)),
        header_read_timeout: s.get("header_read_timeout", secs(30), duration),
        drain_timeout: s.get("drain_timeout", secs(30), duration_or_zero),
        max_headers: 100,
        max_header_size: 64 << 10,
        expose_episode_id: s.get("expose_episode_id", false, boolean),
        tls: None,
        upstream_tls: UpstreamTls::default(),
        breaker: Breaker { consecutive_failures: 0, open_for: secs(30) },
        fallback: Fallback {
            status: http::StatusCode::SERVICE_UNAVAILABLE,
            body: bytes::Bytes::from_static(br#"{"detail":"agent unavailable"}"#),
            content_type: http::HeaderValue::from_static("application/json"),
        },
        socket: SocketFile::default(),
        routes: s.tables("route", "[[proxy.route]]").into_iter().map(route).collect(),
    };
    s.planned("tls", "leave it out", |_| false);
    s.planned("upstream_tls", "leave it out", |_| false);
    breaker(&mut s);
    fallback(&mut s);
    s.finish();
    proxy
}

/// A proxy's breaker is off in this version; the keys may say so.
fn breaker(s: &mut Section<'_>) {
    let mut breaker = s.table("breaker", Header::Inline);
    breaker.planned("consecutive_failures", "allowed: 0 (off)", |field| integer(0, 0)(field).is_ok());
    breaker.maybe("open_for", duration);
    breaker.finish();
}

/// What an open breaker answers; with the breaker off it may be what it would be.
fn fallback(s: &mut Section<'_>) {
    const BODY: &str = r#"{"detail":"agent unavailable"}"#;
    let mut fallback = s.table("fallback", Header::Inline);
    fallback.planned("status", "allowed: 503", |field| integer(503, 503)(field).is_ok());
    fallback.planned("body", "leave it out", |field| field.text("").is_ok_and(|text| text == BODY));
    fallback.planned("content_type", "allowed: \"application/json\"", |field| {
        field.text("").is_ok_and(|text| text == "application/json")
    });
    fallback.finish();
}
