//! What a failure means, as a status where there is none: `retry_on` and `pause_on` know no others.
//!
//! | the server says | status | so, by default |
//! |---|---|---|
//! | `WRONGPASS`, `NOAUTH`, and whatever else it has against who asks | 401 | the sink pauses |
//! | `NOPERM` | 403 | the sink pauses |
//! | it knows no `GRAPH.QUERY`, the graph's key is something else or on another server, or it doesn't understand the statement | 404 | the sink pauses |
//! | `LOADING`, `BUSY`, `READONLY`, `OOM`, `TRYAGAIN`, `CLUSTERDOWN`, `MASTERDOWN`, too many queries in line, a constraint that somebody else's merge was faster with | 503 | another attempt |
//! | the query took too long | 504 | another attempt |
//! | anything else | 400 | a dead letter: it is this episode that the server doesn't take |

use redis::{ErrorKind, RedisError, ServerErrorKind};

use super::failed;
use crate::sink::cypher::brief;
use crate::sink::{Cause, SinkError};

/// What went wrong with a command that was sent.
pub fn failure(error: &RedisError) -> SinkError {
    match refused(error) {
        Some(refusal) => refusal,
        None => failed(Cause::Timeout, format!("no answer to the query: {error}"), true),
    }
}

/// What went wrong before there was a connection to send a command on.
pub fn unconnected(error: &RedisError) -> SinkError {
    match (error.kind(), refused(error)) {
        // The client answers for the server here, in words of its own.
        (ErrorKind::AuthenticationFailed, _) => failed(Cause::Status(401), brief(&words(error)), false),
        (_, Some(refusal)) => refusal,
        (_, None) => failed(Cause::Connect, format!("cannot connect: {error}"), false),
    }
}

/// What a server said no to; nothing if it said nothing.
fn refused(error: &RedisError) -> Option<SinkError> {
    if !matches!(error.kind(), ErrorKind::Server(_) | ErrorKind::Extension) {
        return None;
    }
    let says = words(error);
    let code = error.code().unwrap_or_default();
    let status = match (error.kind(), code) {
        (_, "WRONGPASS" | "NOAUTH") => 401,
        (ErrorKind::Server(ServerErrorKind::NoPerm), _) => 403,
        (
            ErrorKind::Server(
                ServerErrorKind::BusyLoading
                | ServerErrorKind::TryAgain
                | ServerErrorKind::ClusterDown
                | ServerErrorKind::MasterDown
                | ServerErrorKind::ReadOnly,
            ),
            _,
        )
        | (_, "BUSY" | "OOM" | "NOREPLICAS" | "MISCONF") => 503,
        (_, "WRONGTYPE" | "MOVED") => 404,
        _ if says.contains("unknown command") => 404,
        _ if says.contains("timed out") => 504,
        _ if says.contains("Max pending queries") || says.contains("constraint violation") => 503,
        _ => 400,
    };
    Some(failed(Cause::Status(status), brief(&format!("answered {says}")), false))
}

/// All that the server said: the client takes the first word of it for a code.
fn words(error: &RedisError) -> String {
    match (error.code(), error.detail()) {
        (Some(code), Some(detail)) => format!("{code} {detail}"),
        (Some(code), None) => code.to_owned(),
        _ => error.to_string(),
    }
}
