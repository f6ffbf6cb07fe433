//! What the admin API says, as types that serialise and parse: the server writes them and the command line reads them back, so that
//! the two cannot drift apart.
//!
//! Every key is always present; what is absent is `null`. One exception: a sink's `reason` exists for dead letters alone.
//! Times are RFC 3339 in UTC with milliseconds.

mod episode;
mod imported;
mod line;
mod listing;
mod replay;
mod selection;
mod status;

pub use episode::{Attempt, Episode, Page, Standing};
pub use imported::{Fault, Imported};
pub use line::{Line, UNREADABLE};
pub use listing::{DEFAULT_LIMIT, Listing, MAX_LIMIT, parse_state, state_name};
pub use replay::{ReplayReport, Replays, Wanted};
pub use selection::{Count, Selection};
pub(crate) use status::age_seconds;
pub use status::{Backlog, GraphitiQueue, LedgerStatus, ProxyStatus, QueueStatus, REMOVED, SinkReport, Status, Workers};

/// What an id looks like, for the sentences that refuse one.
pub(crate) const SAMPLE_ID: &str = "0198c5a2-7d1e-7c3b-9a4f-2b6d8e0f1a3c";

/// Why a question makes no sense: a sentence that says what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refused(pub String);

/// `name` is one of `known`, or a sentence that lists them.
pub(crate) fn known_sink(name: &str, known: &[String]) -> Result<(), Refused> {
    if known.iter().any(|k| k == name) {
        return Ok(());
    }
    let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
    Err(Refused(format!("there is no sink \"{name}\"; the sinks are: {known}")))
}

/// Hand-made episodes and counters, for the tests of whoever shows them.
#[cfg(test)]
pub(crate) mod testing {
    pub(crate) use super::episode::tests::view;
    pub(crate) use super::status::tests::{NOW, proxies, sinks, stats};
}
