//! Replays.

use serde::{Deserialize, Serialize};

use super::Refused;
use crate::clock;
use crate::queue::{Course, Replay};

/// The body of `POST /api/v1/replay`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// To this sink.
    pub sink: String,
    /// Only this session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// Only what was captured then or later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
}

impl Wanted {
    /// `since` in ms since the Unix epoch; 0 if it isn't given.
    pub fn since(&self) -> Result<u64, Refused> {
        let Some(since) = &self.since else { return Ok(0) };
        clock::parse_rfc3339(since)
            .ok_or_else(|| Refused(format!("since is a time like 2026-01-01T00:00:00Z, and {since:?} is none")))
    }
}

/// A replay: the one under way at a sink, or the latest one since offramp was started.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReplayReport {
    /// To this sink.
    pub sink: String,
    /// Only this session.
    pub session: Option<String>,
    /// Only what was captured then or later.
    pub since: Option<String>,
    /// `running`, `done` or `cancelled`.
    pub state: String,
    /// When it began.
    pub began_at: String,
    /// How much of the queue it has gone through: 0 to 1.
    pub progress: f64,
    /// Episodes that wait for the sink again because of it, or have been delivered since.
    pub replayed: u64,
    /// Episodes that the sink can't get: they can't be read, or have no request to send again.
    pub skipped: u64,
}

impl ReplayReport {
    /// Of a replay at a sink.
    pub fn of(sink: &str, replay: &Replay) -> Self {
        let part = |n: u64| u32::try_from(n.min(1_000_000)).map_or(1.0, f64::from) / 1e6;
        let (gone, all) = (replay.next.saturating_sub(replay.first), replay.until.saturating_sub(replay.first));
        Self {
            sink: sink.to_owned(),
            session: replay.session.clone(),
            since: (replay.since > 0).then(|| clock::rfc3339(replay.since)),
            state: match replay.course {
                Course::Running => "running",
                Course::Done => "done",
                Course::Cancelled => "cancelled",
            }
            .to_owned(),
            began_at: clock::rfc3339(replay.began),
            progress: gone.saturating_mul(1_000_000).checked_div(all).map_or(1.0, part),
            replayed: replay.count,
            skipped: replay.skipped,
        }
    }
}

/// `GET /api/v1/replays`
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Replays {
    /// One per sink at most, in the order of the sinks.
    pub replays: Vec<ReplayReport>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_the_part_of_the_places_that_it_has_gone_through() {
        let replay = |next, until| Replay {
            session: None,
            since: 0,
            began: 0,
            first: 10,
            until,
            next,
            count: 0,
            skipped: 0,
            course: Course::Running,
        };
        let progress = |next, until| ReplayReport::of("s", &replay(next, until)).progress;
        assert!((progress(10, 20), progress(15, 20), progress(20, 20)) == (0.0, 0.5, 1.0));
        assert!((progress(10, 10) - 1.0).abs() < f64::EPSILON, "an empty queue is gone through at once");
    }

    #[test]
    fn a_time_that_is_none_is_refused_with_a_sample() {
        let wanted = |since: &str| Wanted { since: Some(since.to_owned()), ..Wanted::default() };
        assert!(wanted("yesterday").since().unwrap_err().0.contains("2026-01-01T00:00:00Z"));
        assert_eq!(wanted("1970-01-01T00:00:01Z").since(), Ok(1_000));
        assert!(serde_json::from_str::<Wanted>(r#"{"sink":"s","sesion":"k"}"#).is_err(), "a misspelt key must not widen it");
    }
}
