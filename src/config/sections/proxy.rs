//! `[[proxy]]`

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, StatusCode};

use super::breaker::breaker;
use super::route::route;
use crate::config::address::{LISTENS, UPSTREAMS, listen, upstream};
use crate::config::read::{Field, Header, Read, Section};
use crate::config::values::{boolean, choice, duration, duration_or_zero, file, group, integer, mode, name, size, user};
use crate::config::{Breaker, Fallback, Listen, Proxy, ServerTls, SocketFile, Upstream, UpstreamTls};

/// Most requests and connections that a limit may allow: a number beyond this is a slip.
const MOST: usize = 10_000_000;
/// Most header lines that a head may have: hyper sets aside room for each.
const MOST_HEADERS: usize = 10_000;
/// Between these a head is useful and harmless.
const HEADER_SIZES: (u64, u64) = (1 << 10, 1 << 20);

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
        max_headers: s.get("max_headers", 100, integer(1, MOST_HEADERS)),
        max_header_size: s.get("max_header_size", 64 << 10, header_size),
        expose_episode_id: s.get("expose_episode_id", false, boolean),
        tls: tls(&mut s),
        upstream_tls: upstream_tls(&mut s),
        breaker: breaker(&mut s, Breaker::in_a_row(0, secs(30))),
        fallback: fallback(&mut s),
        socket: SocketFile {
            mode: s.maybe("socket_mode", mode),
            user: s.maybe("socket_user", user),
            group: s.maybe("socket_group", group),
        },
        routes: s.tables("route", "[[proxy.route]]").into_iter().map(route).collect(),
    };
    s.finish();
    proxy
}

fn header_size(field: &Field<'_>) -> Read<usize> {
    let (min, max) = HEADER_SIZES;
    let bytes = size(min, max)(field)?;
    usize::try_from(bytes).map_err(|error| error.to_string())
}

fn tls(s: &mut Section<'_>) -> Option<ServerTls> {
    let mut tls = s.maybe_table("tls", Header::Inline)?;
    let cert_file = tls.require("cert_file", "the path of a PEM file with the certificate and its chain", file);
    let key_file = tls.require("key_file", "the path of a PEM file with the certificate's private key", file);
    tls.finish();
    Some(ServerTls { cert_file: cert_file?, key_file: key_file? })
}

fn upstream_tls(s: &mut Section<'_>) -> UpstreamTls {
    let mut tls = s.table("upstream_tls", Header::Inline);
    let ca_file = tls.maybe("ca_file", file);
    let (cert_file, key_file) = (tls.maybe("cert_file", file), tls.maybe("key_file", file));
    let half = match (tls.place("cert_file"), tls.place("key_file")) {
        (Some(at), None) => Some((at, "cert_file", "key_file")),
        (None, Some(at)) => Some((at, "key_file", "cert_file")),
        _ => None,
    };
    if let Some((at, given, missing)) = half {
        let alone = format!("`upstream_tls.{given}` stands without `upstream_tls.{missing}`");
        tls.cx().fault(at, format!("{alone}, allowed: both or neither"));
    }
    tls.finish();
    let client = cert_file.zip(key_file).map(|(cert_file, key_file)| ServerTls { cert_file, key_file });
    UpstreamTls { ca_file, client }
}

fn fallback(s: &mut Section<'_>) -> Fallback {
    let mut f = s.table("fallback", Header::Inline);
    let fallback = Fallback {
        status: f.get("status", StatusCode::SERVICE_UNAVAILABLE, status),
        body: f.get("body", Bytes::from_static(br#"{"detail":"agent unavailable"}"#), |field| {
            field.text("text in quotes").map(Bytes::from)
        }),
        content_type: f.get("content_type", HeaderValue::from_static("application/json"), content_type),
    };
    f.finish();
    fallback
}

fn status(field: &Field<'_>) -> Read<StatusCode> {
    let code = integer(200_u16, 599)(field)?;
    StatusCode::from_u16(code).map_err(|error| error.to_string())
}

/// A media type.
pub fn content_type(field: &Field<'_>) -> Read<HeaderValue> {
    const ALLOWED: &str = "a media type such as \"application/json\"";
    let text = field.text(ALLOWED)?;
    match HeaderValue::from_str(&text) {
        Ok(value) if text.contains('/') => Ok(value),
        _ => Err(format!("allowed: {ALLOWED}")),
    }
}
