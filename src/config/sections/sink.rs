//! `[[sink]]`

mod falkordb;
mod http;
mod neo4j;

use std::path::PathBuf;
use std::time::Duration;

use ::http::{HeaderName, HeaderValue};

use super::breaker::breaker;
use crate::config::address::base_url;
use crate::config::read::{Header, Section};
use crate::config::status::{RetryOn, StatusSet};
use crate::config::values::{
    boolean, choice, choice_with, duration, duration_or_zero, integer, name, number, path, retry_on, size_or_zero, statuses,
};
use crate::config::{
    Batch, Breaker, Confirm, Graphiti, GraphitiFormat, GraphitiMcp, OnDead, OrderBy, Rate, Retry, Sink, SinkKind,
};

const TYPES: &str = "\"graphiti\", \"graphiti-mcp\", \"neo4j\", \"falkordb\", \"http\", \"replay\" or \"file\"";

/// Keys that belong to certain types.
const OWNED: [(&str, &[&str]); 19] = [
    ("url", &["graphiti", "graphiti-mcp", "neo4j", "falkordb", "http", "replay"]),
    ("confirm", &["graphiti", "graphiti-mcp", "http"]),
    ("format", &["graphiti"]),
    ("path", &["file", "http"]),
    ("preset", &["http"]),
    ("method", &["http"]),
    ("content_type", &["http"]),
    ("body", &["http"]),
    ("success", &["http"]),
    ("delivered_if", &["http"]),
    ("repair", &["http"]),
    ("user", &["neo4j", "falkordb"]),
    ("password_file", &["neo4j", "falkordb"]),
    ("ca_file", &["neo4j", "falkordb"]),
    ("database", &["neo4j"]),
    ("statement", &["neo4j", "falkordb"]),
    ("graph", &["falkordb"]),
    ("max_bytes", &["file"]),
    ("keep", &["file"]),
];

/// Headers that the client sets itself: a second value would break the request.
pub const FRAMING: [&str; 7] = ["host", "content-length", "content-type", "transfer-encoding", "connection", "te", "upgrade"];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Type {
    Graphiti,
    GraphitiMcp,
    Neo4j,
    Falkordb,
    Http,
    Replay,
    File,
}

/// Reads one sink.
pub fn sink(mut s: Section<'_>) -> Sink {
    let secs = Duration::from_secs;
    let types = choice_with(
        &[
            ("graphiti", Type::Graphiti),
            ("graphiti-mcp", Type::GraphitiMcp),
            ("neo4j", Type::Neo4j),
            ("falkordb", Type::Falkordb),
            ("http", Type::Http),
            ("replay", Type::Replay),
            ("file", Type::File),
        ],
        &[],
    );
    let kind = s.require("type", TYPES, types);
    let http = if kind == Some(Type::Http) { http::http(&mut s) } else { None }; // first: its preset fills in other keys
    let by_group = matches!(kind, Some(Type::Graphiti | Type::GraphitiMcp));
    let order_by = if by_group { OrderBy::Group } else { OrderBy::Session };
    let sink = Sink {
        name: s.require("name", "a name of letters, digits, _ and -", name).unwrap_or_default(),
        workers: s.get("workers", 5, integer(1, 10_000)),
        order_by: s.get(
            "order_by",
            order_by,
            choice(&[("session", OrderBy::Session), ("group", OrderBy::Group), ("user", OrderBy::User)]),
        ),
        connect_timeout: s.get("connect_timeout", secs(2), duration),
        timeout: s.get("timeout", secs(120), duration),
        retry: retry(&mut s),
        retry_on: s.get("retry_on", RetryOn::from_iter(["connect", "timeout", "408", "425", "429", "5xx"]), retry_on),
        pause_on: s.get("pause_on", StatusSet::from_iter(["401", "403", "404"]), statuses),
        breaker: breaker(&mut s, Breaker::in_a_row(5, secs(60))),
        rate: rate(&mut s),
        adaptive: s.get("adaptive", false, boolean),
        batch: batch(&mut s),
        on_dead: s.get("on_dead", OnDead::Continue, choice(&[("continue", OnDead::Continue), ("park", OnDead::Park)])),
        headers: headers(&mut s),
        kind: match kind {
            Some(Type::Graphiti) => SinkKind::Graphiti(graphiti(&mut s)),
            Some(Type::GraphitiMcp) => SinkKind::GraphitiMcp(graphiti_mcp(&mut s)),
            Some(Type::Neo4j) => SinkKind::Neo4j(neo4j::neo4j(&mut s)),
            Some(Type::Falkordb) => SinkKind::Falkordb(falkordb::falkordb(&mut s)),
            Some(Type::Replay) => {
                SinkKind::Replay { url: s.require("url", "\"http://host:port\"", base_url).unwrap_or_default() }
            }
            // Without a type, or where a template is wrong, this is a placeholder.
            Some(Type::File | Type::Http) | None => match http {
                Some(http) => SinkKind::Http(Box::new(http)),
                None => file(&mut s, kind == Some(Type::File)),
            },
        },
    };
    foreign(&mut s, kind);
    s.finish();
    sink
}

fn graphiti(s: &mut Section<'_>) -> Graphiti {
    let url = s.require("url", "\"http://host:port\"", base_url).unwrap_or_default();
    let format =
        s.get("format", GraphitiFormat::Turn, choice(&[("turn", GraphitiFormat::Turn), ("messages", GraphitiFormat::Messages)]));
    Graphiti { url, confirm: confirm(s, Duration::from_secs(1)), format }
}

fn graphiti_mcp(s: &mut Section<'_>) -> GraphitiMcp {
    let url = s.require("url", "\"http://host:port/mcp\"", base_url).unwrap_or_default();
    // A look reads the whole group.
    GraphitiMcp { url, confirm: confirm(s, Duration::from_secs(5)) }
}

fn confirm(s: &mut Section<'_>, poll: Duration) -> Confirm {
    let mut c = s.table("confirm", Header::Inline);
    let confirm = Confirm {
        read_back: c.get("mode", true, choice(&[("read_back", true), ("accepted", false)])),
        timeout: c.get("timeout", Duration::from_secs(15 * 60), duration),
        poll: c.get("poll", poll, duration),
    };
    c.finish();
    confirm
}

fn file(s: &mut Section<'_>, is_file: bool) -> SinkKind {
    if !is_file {
        return SinkKind::File { path: PathBuf::new(), max_bytes: 0, keep: 0 };
    }
    SinkKind::File {
        path: s.require("path", "the path of the file to append to", path).unwrap_or_default(),
        max_bytes: s.get("max_bytes", 0, size_or_zero),
        keep: s.get("keep", 10, integer(1, 1000)),
    }
}

/// What belongs to another type is told as that. A sink whose type isn't known, or not there yet, has its fault already.
fn foreign(s: &mut Section<'_>, kind: Option<Type>) {
    let own = match kind {
        Some(Type::Graphiti) => "graphiti",
        Some(Type::GraphitiMcp) => "graphiti-mcp",
        Some(Type::Neo4j) => "neo4j",
        Some(Type::Falkordb) => "falkordb",
        Some(Type::Http) => "http",
        Some(Type::Replay) => "replay",
        Some(Type::File) => "file",
        None => "",
    };
    for (key, owners) in OWNED.iter().filter(|(_, owners)| !owners.contains(&own)) {
        if let (Some(field), Some(_)) = (s.take(key), kind) {
            let owners: Vec<_> = owners.iter().map(|owner| format!("{owner:?}")).collect();
            let owners = owners.join(" or ");
            s.cx().fault(field.key_at, format!("`{key}` belongs to type = {owners}, leave it out"));
        }
    }
}

fn retry(s: &mut Section<'_>) -> Retry {
    let mut r = s.table("retry", Header::Inline);
    let retry = Retry {
        max_attempts: r.get("max_attempts", 10, integer(1, 1_000_000)),
        initial: r.get("initial", Duration::from_secs(1), duration),
        max: r.get("max", Duration::from_secs(5 * 60), duration),
        full_jitter: r.get("jitter", true, choice(&[("full", true), ("none", false)])),
        max_age: r.get("max_age", Duration::from_secs(24 * 60 * 60), duration),
    };
    r.finish();
    retry
}

/// Headers to send. Their values may be secrets: no fault shows one, and `Debug` doesn't either. One that expands to nothing
/// (`"${TOKEN:-}"`) is not sent.
fn headers(s: &mut Section<'_>) -> Vec<(HeaderName, HeaderValue)> {
    let mut table = s.table("headers", Header::Inline);
    let mut headers: Vec<(HeaderName, HeaderValue)> = Vec::new();
    for (key, field) in table.rest() {
        let Ok(name) = HeaderName::from_bytes(key.as_bytes()) else {
            s.cx().fault(field.key_at, format!("{key:?} is no header name, allowed: a name such as authorization"));
            continue;
        };
        if FRAMING.contains(&name.as_str()) {
            s.cx().fault(field.key_at, format!("the header {name} is set by offramp itself, leave it out"));
            continue;
        }
        if headers.iter().any(|(other, _)| *other == name) {
            s.cx().fault(field.key_at, format!("the header {name} is given twice, in different letters, allowed: once"));
            continue;
        }
        match field.text("text in quotes") {
            Err(tail) => field.fault_quietly(&tail),
            Ok(text) if text.trim().is_empty() => {}
            Ok(text) => match HeaderValue::from_str(&text) {
                Ok(mut value) => {
                    value.set_sensitive(true);
                    headers.push((name, value));
                }
                Err(_) => field.fault_quietly("the value has a control character, allowed: visible text on one line"),
            },
        }
    }
    headers
}

fn rate(s: &mut Section<'_>) -> Rate {
    let mut r = s.table("rate", Header::Inline);
    let rate =
        Rate { per_second: r.get("per_second", 0.0, number(0.0, 1_000_000.0)), burst: r.get("burst", 1, integer(1, 1_000_000)) };
    r.finish();
    rate
}

fn batch(s: &mut Section<'_>) -> Batch {
    let mut b = s.table("batch", Header::Inline);
    let batch =
        Batch { max_items: b.get("max_items", 1, integer(1, 1000)), linger: b.get("linger", Duration::ZERO, duration_or_zero) };
    b.finish();
    batch
}
