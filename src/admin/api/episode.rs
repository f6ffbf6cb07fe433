//! An episode as JSON.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::clock;
use crate::episode::{End, Message, Request};
use crate::queue::{self, State, View};

/// One episode with its whole history.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Episode {
    /// `UUIDv7`.
    pub id: Uuid,
    /// Its place in the order of capture.
    pub seq: u64,
    /// The ordering key.
    pub session: String,
    /// The partition of the graph, where the exchange named one; it defaults to the session.
    pub group: Option<String>,
    /// Who asked.
    pub user: Option<String>,
    /// Who answered.
    pub agent: Option<String>,
    /// The proxy that saw it.
    pub proxy: String,
    /// The route that matched.
    pub route: String,
    /// When the request arrived.
    pub captured_at: String,
    /// When the exchange ended.
    pub completed_at: String,
    /// When the event happened, where the exchange itself says so.
    pub occurred_at: Option<String>,
    /// How the exchange ended.
    pub end: End,
    /// What was said, in order.
    pub messages: Vec<Message>,
    /// What `extract.metadata` found.
    pub metadata: Map<String, Value>,
    /// The request line and the response's status.
    pub request: Request,
    /// SHA-256 of the bodies as they passed.
    pub sha256: Sha256,
    /// Where it stands, by sink.
    pub sinks: BTreeMap<String, Standing>,
}

/// SHA-256 of the bodies of an exchange, in hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sha256 {
    /// Of the request's, as far as it came.
    pub request: Option<String>,
    /// Of the response's.
    pub response: Option<String>,
}

/// An episode at one sink.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Where it stands.
    pub state: State,
    /// Attempts begun.
    pub attempts: u32,
    /// The next attempt is not before this time.
    pub next_attempt_at: Option<String>,
    /// When it was confirmed.
    pub delivered_at: Option<String>,
    /// The last attempt's error.
    pub last_error: Option<String>,
    /// Why it is a dead letter; absent for others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The dead letter that its lane waits for (`on_dead = "park"`); absent where it waits for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parked_by: Option<Uuid>,
    /// How often it became a dead letter here; absent where it never did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deaths: Option<Deaths>,
    /// The attempts, oldest first.
    pub history: Vec<Attempt>,
}

/// How often an episode became a dead letter at a sink, over all its redrives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deaths {
    /// So often.
    pub count: u32,
    /// The first time.
    pub first_at: String,
    /// The last time.
    pub last_at: String,
}

/// One attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// When it ended.
    pub at: String,
    /// Its number, from 1; 0 for what is no attempt.
    pub attempt: u32,
    /// `delivered`, `retry`, `dead`, `paused` or `stalled`; `redriven` where a dead letter was put back.
    pub outcome: String,
    /// The HTTP status, if there was one.
    pub status: Option<u16>,
    /// What went wrong.
    pub error: Option<String>,
    /// How long it took.
    pub duration_ms: u64,
}

/// A page of a listing, in the order of capture.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Page {
    /// The episodes: at most `limit`. A page may be short, even empty, and still have a successor.
    pub episodes: Vec<Episode>,
    /// Where the next page starts; `null` at the end.
    pub next_cursor: Option<String>,
}

impl From<View> for Episode {
    fn from(view: View) -> Self {
        let View { seq, episode, sinks } = view;
        let [request, response] = episode.sha256.to_hex();
        Self {
            id: episode.id,
            seq,
            session: episode.session,
            group: episode.group,
            user: episode.user,
            agent: episode.agent,
            proxy: episode.proxy,
            route: episode.route,
            captured_at: clock::rfc3339(episode.captured_at),
            completed_at: clock::rfc3339(episode.completed_at),
            occurred_at: episode.occurred_at.map(clock::event),
            end: episode.end,
            messages: episode.messages,
            // Capture writes one object; anything else would be a record of another making, and is shown as empty.
            metadata: serde_json::from_str(&episode.metadata).unwrap_or_default(),
            request: episode.request,
            sha256: Sha256 { request, response },
            sinks: sinks.into_iter().map(|s| (s.sink.clone(), s.into())).collect(),
        }
    }
}

impl From<queue::Standing> for Standing {
    fn from(s: queue::Standing) -> Self {
        Self {
            state: s.state,
            attempts: s.attempts,
            next_attempt_at: s.next_attempt_at.map(clock::rfc3339),
            delivered_at: s.delivered_at.map(clock::rfc3339),
            last_error: s.last_error,
            reason: s.reason,
            parked_by: s.parked_by,
            deaths: Deaths::of(s.deaths),
            history: s.history.into_iter().map(Attempt::from).collect(),
        }
    }
}

impl Deaths {
    /// None where there was none.
    pub(super) fn of(deaths: queue::Deaths) -> Option<Self> {
        let queue::Deaths { count, first, last } = deaths;
        (count > 0).then(|| Self { count, first_at: clock::rfc3339(first), last_at: clock::rfc3339(last) })
    }
}

impl From<queue::Attempt> for Attempt {
    fn from(a: queue::Attempt) -> Self {
        Self {
            at: clock::rfc3339(a.at),
            attempt: a.attempt,
            outcome: a.outcome,
            status: a.status,
            error: a.error,
            duration_ms: a.duration_ms,
        }
    }
}

impl From<queue::Page> for Page {
    fn from(page: queue::Page) -> Self {
        Self {
            episodes: page.episodes.into_iter().map(Episode::from).collect(),
            next_cursor: page.next.map(|seq| seq.to_string()),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::json;

    use super::*;
    use crate::episode;

    /// An episode that failed once at `graphiti` and is a dead letter at `log`.
    pub(crate) fn view() -> View {
        View {
            seq: 17,
            episode: episode::Episode {
                id: Uuid::from_u128(0x0198_0000_0000_7000_8000_0000_0000_0001),
                session: "s1".into(),
                group: None,
                user: Some("u1".into()),
                agent: Some("simple".into()),
                proxy: "agent".into(),
                route: "run".into(),
                captured_at: 1_767_225_600_000,
                completed_at: 1_767_225_601_250,
                end: End::Complete,
                messages: vec![Message::new("user", "hi"), Message::new("assistant", "hello")],
                metadata: r#"{"channel":"web"}"#.into(),
                request: Request {
                    method: "POST".into(),
                    path: "/api/v1/agent/simple/run".into(),
                    status: 200,
                    traceparent: None,
                },
                occurred_at: None,
                sha256: crate::episode::Digests::default(),
                original: None,
            },
            sinks: vec![
                queue::Standing {
                    sink: "graphiti".into(),
                    state: State::Pending,
                    attempts: 1,
                    next_attempt_at: Some(1_767_225_610_000),
                    delivered_at: None,
                    ended_at: None,
                    reason: None,
                    last_error: Some("HTTP 500: boom".into()),
                    since: 1_767_225_600_000,
                    time: queue::Time::Sent(1_767_225_600_000),
                    sent: queue::Sent::No,
                    priority: 0,
                    deaths: queue::Deaths::default(),
                    parked_by: None,
                    history: vec![queue::Attempt {
                        at: 1_767_225_605_000,
                        attempt: 1,
                        outcome: "retry".into(),
                        status: Some(500),
                        error: Some("HTTP 500: boom".into()),
                        duration_ms: 3_000,
                    }],
                },
                queue::Standing {
                    sink: "log".into(),
                    state: State::Dead,
                    attempts: 1,
                    next_attempt_at: None,
                    delivered_at: None,
                    ended_at: None,
                    reason: Some("rejected".into()),
                    last_error: Some("disk on fire".into()),
                    since: 1_767_225_600_000,
                    time: queue::Time::Sent(1_767_225_600_000),
                    sent: queue::Sent::No,
                    priority: 3,
                    deaths: queue::Deaths { count: 2, first: 1_767_225_600_500, last: 1_767_225_602_000 },
                    parked_by: None,
                    history: vec![queue::Attempt {
                        at: 1_767_225_602_000,
                        attempt: 1,
                        outcome: "dead".into(),
                        status: None,
                        error: Some("disk on fire".into()),
                        duration_ms: 4,
                    }],
                },
            ],
        }
    }

    #[test]
    fn an_episode_has_the_shape_of_the_contract() {
        let episode = Episode::from(view());
        let json = serde_json::to_value(&episode).unwrap();
        assert_eq!(
            json,
            json!({
                "id": "01980000-0000-7000-8000-000000000001", "seq": 17,
                "session": "s1", "group": null, "user": "u1", "agent": "simple", "proxy": "agent", "route": "run",
                "captured_at": "2026-01-01T00:00:00.000Z", "completed_at": "2026-01-01T00:00:01.250Z",
                "occurred_at": null, "end": "complete",
                "messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}],
                "metadata": {"channel": "web"},
                "request": {"method": "POST", "path": "/api/v1/agent/simple/run", "status": 200, "traceparent": null},
                "sha256": {"request": null, "response": null},
                "sinks": {
                    "graphiti": {
                        "state": "pending", "attempts": 1, "next_attempt_at": "2026-01-01T00:00:10.000Z", "delivered_at": null,
                        "last_error": "HTTP 500: boom",
                        "history": [{"at": "2026-01-01T00:00:05.000Z", "attempt": 1, "outcome": "retry", "status": 500,
                                     "error": "HTTP 500: boom", "duration_ms": 3000}]
                    },
                    "log": {
                        "state": "dead", "attempts": 1, "next_attempt_at": null, "delivered_at": null,
                        "last_error": "disk on fire", "reason": "rejected",
                        "deaths": {"count": 2, "first_at": "2026-01-01T00:00:00.500Z", "last_at": "2026-01-01T00:00:02.000Z"},
                        "history": [{"at": "2026-01-01T00:00:02.000Z", "attempt": 1, "outcome": "dead", "status": null,
                                     "error": "disk on fire", "duration_ms": 4}]
                    }
                }
            })
        );
        assert_eq!(
            serde_json::from_value::<Episode>(json).unwrap(),
            episode,
            "the command line reads back what the server wrote"
        );
    }

    #[test]
    fn the_end_of_a_listing_is_a_null_cursor() {
        let last = Page::from(queue::Page::default());
        assert_eq!(serde_json::to_value(&last).unwrap(), json!({"episodes": [], "next_cursor": null}));
        let more = Page::from(queue::Page { next: Some(18), ..queue::Page::default() });
        assert_eq!(serde_json::to_value(&more).unwrap(), json!({"episodes": [], "next_cursor": "18"}));
    }
}
