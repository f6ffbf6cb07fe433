//! What a server's refusal means, as a status: `retry_on` and `pause_on` know no others.
//!
//! | code (`Neo.` or `Memgraph.`) | status | so, by default |
//! |---|---|---|
//! | `*.Security.Forbidden` | 403 | the sink pauses |
//! | `*.Security.AuthenticationRateLimit` | 429 | another attempt |
//! | `*.Security.AuthorizationExpired`, `TokenExpired` | 503 | another attempt, on a new connection |
//! | `*.Security.*` | 401 | the sink pauses |
//! | `ClientError.Database.DatabaseNotFound`, and a statement that the server doesn't understand | 404 | the sink pauses |
//! | `TransientError.*`, `ClientError.Transaction.*`, and a member of a cluster that doesn't lead it | 503 | another attempt |
//! | `ClientError.Schema.ConstraintValidationFailed` | 503 | another attempt: somebody merged the same node at the same time |
//! | `ClientError.*` | 400 | a dead letter: it is this episode that the server doesn't take |
//! | `DatabaseError.*` and whatever else | 500 | another attempt |
//!
//! A refusal has had no effect. Only when a commit failed nobody can tell.

use crate::sink::cypher::brief;
use crate::sink::{Cause, SinkError};

/// The error of an attempt.
pub fn refusal(code: &str, message: &str) -> SinkError {
    SinkError {
        cause: Cause::Status(status(code)),
        message: brief(&format!("answered {code}: {message}")),
        retry_after: None,
        ambiguous: code.contains("Commit"),
    }
}

fn status(code: &str) -> u16 {
    let mut parts = code.split('.').skip(1);
    match (parts.next().unwrap_or_default(), parts.next().unwrap_or_default(), parts.next().unwrap_or_default()) {
        (_, "Security", "Forbidden") => 403,
        (_, "Security", "AuthenticationRateLimit") => 429,
        (_, "Security", "AuthorizationExpired" | "TokenExpired")
        | ("TransientError", ..)
        | ("ClientError", "Transaction", _)
        | ("ClientError", "Cluster", "NotALeader")
        | ("ClientError", "General", "ForbiddenOnReadOnlyDatabase")
        | ("ClientError", "Schema", "ConstraintValidationFailed") => 503,
        (_, "Security", _) => 401,
        ("ClientError", "Database", "DatabaseNotFound") => 404,
        ("ClientError", ..) => 400,
        _ => 500,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_has_the_status_that_retry_on_and_pause_on_know_it_by() {
        for (code, expected) in [
            ("Neo.ClientError.Security.Unauthorized", 401),
            ("Memgraph.ClientError.Security.Unauthenticated", 401),
            ("Neo.ClientError.Security.Forbidden", 403),
            ("Neo.ClientError.Security.AuthenticationRateLimit", 429),
            ("Neo.ClientError.Security.TokenExpired", 503),
            ("Neo.ClientError.Database.DatabaseNotFound", 404),
            ("Neo.TransientError.Transaction.DeadlockDetected", 503),
            ("Memgraph.TransientError.MemgraphError.MemgraphError", 503),
            ("Neo.ClientError.Transaction.TransactionTimedOut", 503),
            ("Neo.ClientError.Cluster.NotALeader", 503),
            ("Neo.ClientError.Schema.ConstraintValidationFailed", 503),
            ("Neo.ClientError.Statement.TypeError", 400),
            ("Neo.DatabaseError.General.UnknownError", 500),
            ("", 500),
        ] {
            let error = refusal(code, "why");
            assert_eq!(error.cause, Cause::Status(expected), "{code}");
            assert!(!error.ambiguous, "{code}");
        }
        assert!(refusal("Neo.DatabaseError.Transaction.TransactionCommitFailed", "").ambiguous);
    }
}
