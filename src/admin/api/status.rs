//! The state of the whole: `/api/v1/status` and `/health/graphiti-queue`.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::ReplayReport;
use crate::drain::SinkStatus;
use crate::queue::{Course, Ledger, SinkStats, Stats};

/// The state of a sink that is no longer configured and has something in the queue.
pub const REMOVED: &str = "removed";

/// `GET /api/v1/status`. Wherever it says `pending`, what is in flight is included.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Of offramp.
    pub version: String,
    /// Since the process started.
    pub uptime_seconds: u64,
    /// The queue.
    pub queue: QueueStatus,
    /// One per sink, in the order of the configuration; then those that left it and have something in the queue.
    pub sinks: Vec<SinkReport>,
    /// One per proxy, in the order of the configuration.
    pub proxies: Vec<ProxyStatus>,
    /// One per episode and sink; survives restarts.
    pub ledger: LedgerStatus,
}

/// The queue as a whole. Counts are one per episode and sink.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QueueStatus {
    /// `ok`, `full` or `degraded`.
    pub state: String,
    /// Not finished.
    pub pending: u64,
    /// Of these, an attempt is under way.
    pub in_flight: u64,
    /// Dead letters.
    pub dead: u64,
    /// Receipts kept.
    pub delivered_kept: u64,
    /// Of stored episodes.
    pub bytes: u64,
    /// That the queue's directory takes on the disk.
    #[serde(default)]
    pub disk_bytes: u64,
    /// Since the oldest pending episode was captured; 0 if none is pending.
    pub oldest_pending_seconds: f64,
}

/// One sink. Counters start with the process, except `pending`, `dead` and `delivered_total`, which survive restarts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SinkReport {
    /// Its name.
    pub name: String,
    /// Its `type`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `running`, `paused`, `open` or `stalled`; `removed` if it is no longer configured; `stopped` where no offramp runs and the queue was
    /// read directly.
    pub state: String,
    /// Why, where it doesn't run.
    pub reason: Option<String>,
    /// Attempts in flight, at most.
    pub workers: usize,
    /// Attempts in flight.
    pub busy: usize,
    /// Episodes not finished.
    pub pending: u64,
    /// Dead letters.
    pub dead: u64,
    /// Lanes that wait for a dead letter to be redriven or purged (`on_dead = "park"`).
    #[serde(default)]
    pub parked_lanes: u64,
    /// Episodes confirmed.
    pub delivered_total: u64,
    /// Attempts ended.
    pub attempts_total: u64,
    /// Of these, without a delivery.
    pub failed_attempts_total: u64,
    /// Mean length of an attempt.
    pub avg_attempt_seconds: f64,
    /// Since the oldest pending episode was captured; 0 if none is pending.
    pub oldest_pending_seconds: f64,
    /// The replay under way; absent without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replay: Option<ReplayReport>,
}

/// One proxy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyStatus {
    /// Its name.
    pub name: String,
    /// Where clients connect.
    pub listen: String,
    /// Where requests go.
    pub upstream: String,
    /// Requests being forwarded.
    pub in_flight: u64,
    /// Requests waiting in line.
    pub waiting: u64,
}

/// The ledger with its proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerStatus {
    /// Appended.
    pub captured: u64,
    /// Confirmed.
    pub delivered: u64,
    /// Dead letters now.
    pub dead: u64,
    /// Removed by an operator.
    pub purged: u64,
    /// Dead letters that outlived `keep_dead`.
    pub expired: u64,
    /// Not finished.
    pub pending: u64,
    /// captured − (delivered + dead + purged + expired + pending): always 0.
    pub gap: i64,
}

impl From<Ledger> for LedgerStatus {
    fn from(l: Ledger) -> Self {
        Self {
            captured: l.captured,
            delivered: l.delivered,
            dead: l.dead,
            purged: l.purged,
            expired: l.expired,
            pending: l.pending,
            gap: l.gap(),
        }
    }
}

impl Status {
    /// Puts together what the queue and the drain say of themselves. `now` is in ms since the Unix epoch.
    pub fn assemble(stats: &Stats, sinks: &[SinkStatus], proxies: Vec<ProxyStatus>, uptime: Duration, now: u64) -> Self {
        let oldest = stats.sinks.iter().filter_map(|s| s.oldest_pending).min();
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_seconds: uptime.as_secs(),
            queue: QueueStatus {
                state: stats.state.to_owned(),
                pending: stats.ledger.pending,
                in_flight: stats.sinks.iter().map(|s| s.in_flight).sum(),
                dead: stats.ledger.dead,
                delivered_kept: stats.sinks.iter().map(|s| s.delivered_kept).sum(),
                bytes: stats.bytes,
                disk_bytes: stats.disk_bytes,
                oldest_pending_seconds: age_seconds(oldest, now),
            },
            sinks: sinks
                .iter()
                .map(|sink| SinkReport::assemble(sink, of(stats, &sink.name), now))
                .chain(removed(stats, sinks).map(|(sink, stats)| SinkReport::assemble(&sink, stats, now)))
                .collect(),
            proxies,
            ledger: stats.ledger.into(),
        }
    }
}

impl SinkReport {
    fn assemble(sink: &SinkStatus, stats: &SinkStats, now: u64) -> Self {
        Self {
            name: sink.name.clone(),
            kind: sink.kind.to_owned(),
            state: sink.state.to_owned(),
            reason: sink.reason.clone(),
            workers: sink.workers,
            busy: sink.busy,
            pending: stats.ledger.pending,
            dead: stats.ledger.dead,
            parked_lanes: stats.parked_lanes,
            delivered_total: stats.ledger.delivered,
            attempts_total: sink.attempts_total,
            failed_attempts_total: sink.failed_attempts_total,
            avg_attempt_seconds: sink.avg_attempt_seconds,
            oldest_pending_seconds: age_seconds(stats.oldest_pending, now),
            replay: stats.replay.as_ref().filter(|r| r.course == Course::Running).map(|r| ReplayReport::of(&sink.name, r)),
        }
    }
}

/// `GET /health/graphiti-queue`: what services that had an in-memory Graphiti queue poll already. Counts are over the sinks of
/// type `graphiti`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GraphitiQueue {
    /// `running`; `degraded` where a sink doesn't run or the queue isn't ok; `disabled` without such a sink.
    pub status: String,
    /// Whether there is such a sink.
    pub enabled: bool,
    /// Episodes not finished.
    pub queue_size: u64,
    /// Episodes confirmed.
    pub processed_total: u64,
    /// Episodes given up on: dead letters and expired ones.
    pub failed_total: u64,
    /// `processed_total` in percent of the two; 100 where nothing was processed yet.
    pub success_rate: f64,
    /// Mean length of an attempt, in seconds.
    pub avg_processing_time: f64,
    /// Attempts in flight, at most.
    pub worker_count: usize,
    /// The same, with those in flight.
    pub workers: Workers,
    /// The queue's size and bound.
    pub queue: Backlog,
}

/// Attempts in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workers {
    /// Now.
    pub active: usize,
    /// At most.
    pub max_workers: usize,
}

/// The queue's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backlog {
    /// Episodes not finished.
    pub current_size: u64,
    /// `queue.max_episodes`.
    pub max_size: u64,
    /// Whether nothing more is captured now.
    pub is_full: bool,
}

impl GraphitiQueue {
    /// Puts it together; `max_size` is `queue.max_episodes`.
    pub fn assemble(stats: &Stats, sinks: &[SinkStatus], max_size: u64) -> Self {
        let sinks: Vec<&SinkStatus> = sinks.iter().filter(|s| s.kind == "graphiti").collect();
        let ledgers: Vec<Ledger> = sinks.iter().map(|s| of(stats, &s.name).ledger).collect();
        let pending = ledgers.iter().map(|l| l.pending).sum();
        let delivered = ledgers.iter().map(|l| l.delivered).sum();
        let failed = ledgers.iter().map(|l| l.dead + l.expired).sum();
        let max_workers = sinks.iter().map(|s| s.workers).sum();
        let attempts: f64 = sinks.iter().map(|s| approximately(s.attempts_total)).sum();
        let busy_time: f64 = sinks.iter().map(|s| s.avg_attempt_seconds * approximately(s.attempts_total)).sum();
        let healthy = stats.state == "ok" && sinks.iter().all(|s| s.state == "running");
        Self {
            status: if sinks.is_empty() {
                "disabled"
            } else if healthy {
                "running"
            } else {
                "degraded"
            }
            .to_owned(),
            enabled: !sinks.is_empty(),
            queue_size: pending,
            processed_total: delivered,
            failed_total: failed,
            success_rate: percent(delivered, delivered + failed),
            avg_processing_time: if attempts > 0.0 { busy_time / attempts } else { 0.0 },
            worker_count: max_workers,
            workers: Workers { active: sinks.iter().map(|s| s.busy).sum(), max_workers },
            queue: Backlog { current_size: pending, max_size, is_full: stats.state == "full" },
        }
    }
}

/// Sinks that are no longer configured, and what they left behind.
fn removed<'a>(stats: &'a Stats, sinks: &'a [SinkStatus]) -> impl Iterator<Item = (SinkStatus, &'a SinkStats)> {
    let left = |s: &&SinkStats| s.ledger.pending + s.ledger.dead > 0 && sinks.iter().all(|sink| sink.name != s.name);
    stats.sinks.iter().filter(left).map(|s| {
        let reason = format!("no longer configured; `offramp purge {}` removes what is left", s.name);
        (SinkStatus { name: s.name.clone(), kind: "-", state: REMOVED, reason: Some(reason), ..SinkStatus::default() }, s)
    })
}

fn of<'a>(stats: &'a Stats, sink: &str) -> &'a SinkStats {
    static NONE: SinkStats = SinkStats {
        name: String::new(),
        ledger: Ledger { captured: 0, delivered: 0, dead: 0, purged: 0, expired: 0, pending: 0 },
        in_flight: 0,
        delivered_kept: 0,
        parked_lanes: 0,
        oldest_pending: None,
        paused: None,
        longest_confirm_ms: 0,
        replay: None,
    };
    stats.sinks.iter().find(|s| s.name == sink).unwrap_or(&NONE)
}

/// From a moment (ms since the Unix epoch) until now; 0 for none, and for one that a clock set back has put into the future.
pub(crate) fn age_seconds(since: Option<u64>, now: u64) -> f64 {
    since.map_or(0.0, |since| Duration::from_millis(now.saturating_sub(since)).as_secs_f64())
}

/// In steps of a hundredth, rounded down: 100.0 means all.
fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        return 100.0;
    }
    let hundredths = u128::from(part) * 10_000 / u128::from(whole);
    f64::from(u32::try_from(hundredths).unwrap_or(10_000)) / 100.0
}

/// A weight for a mean: exact up to four thousand million, and enough beyond.
fn approximately(n: u64) -> f64 {
    f64::from(u32::try_from(n).unwrap_or(u32::MAX))
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::json;

    use super::*;

    pub(crate) const NOW: u64 = 1_767_225_600_000;

    pub(crate) fn stats() -> Stats {
        let graphiti = Ledger { captured: 10, delivered: 3, dead: 1, purged: 0, expired: 0, pending: 6 };
        let log = Ledger { captured: 10, delivered: 10, ..Ledger::default() };
        Stats {
            state: "ok",
            episodes: 6,
            bytes: 20_480,
            disk_bytes: 65_536,
            ledger: Ledger { captured: 20, delivered: 13, dead: 1, purged: 0, expired: 0, pending: 6 },
            sinks: vec![
                SinkStats {
                    name: "graphiti".into(),
                    ledger: graphiti,
                    in_flight: 2,
                    delivered_kept: 3,
                    parked_lanes: 2,
                    oldest_pending: Some(NOW - 42_500),
                    paused: None,
                    longest_confirm_ms: 0,
                    replay: None,
                },
                SinkStats {
                    name: "log".into(),
                    ledger: log,
                    in_flight: 0,
                    delivered_kept: 10,
                    parked_lanes: 0,
                    oldest_pending: None,
                    paused: None,
                    longest_confirm_ms: 0,
                    replay: None,
                },
            ],
        }
    }

    pub(crate) fn sinks() -> Vec<SinkStatus> {
        vec![
            SinkStatus {
                name: "graphiti".into(),
                kind: "graphiti",
                state: "running",
                reason: None,
                workers: 5,
                busy: 2,
                attempts_total: 8,
                failed_attempts_total: 5,
                avg_attempt_seconds: 13.25,
            },
            SinkStatus {
                name: "log".into(),
                kind: "file",
                state: "paused",
                reason: Some("paused by an operator".into()),
                workers: 1,
                busy: 0,
                attempts_total: 10,
                failed_attempts_total: 0,
                avg_attempt_seconds: 0.5,
            },
        ]
    }

    pub(crate) fn proxies() -> Vec<ProxyStatus> {
        vec![ProxyStatus {
            name: "agent".into(),
            listen: "127.0.0.1:8880".into(),
            upstream: "http://127.0.0.1:8881".into(),
            in_flight: 3,
            waiting: 0,
        }]
    }

    #[test]
    fn status_has_the_shape_of_the_contract() {
        let status = Status::assemble(&stats(), &sinks(), proxies(), Duration::from_millis(61_900), NOW);
        let json = serde_json::to_value(&status).unwrap();
        assert_eq!(
            json,
            json!({
                "version": env!("CARGO_PKG_VERSION"), "uptime_seconds": 61,
                "queue": {"state": "ok", "pending": 6, "in_flight": 2, "dead": 1, "delivered_kept": 13, "bytes": 20480, "disk_bytes": 65536,
                          "oldest_pending_seconds": 42.5},
                "sinks": [
                    {"name": "graphiti", "type": "graphiti", "state": "running", "reason": null, "workers": 5, "busy": 2, "pending": 6,
                     "dead": 1, "parked_lanes": 2, "delivered_total": 3, "attempts_total": 8, "failed_attempts_total": 5, "avg_attempt_seconds": 13.25,
                     "oldest_pending_seconds": 42.5},
                    {"name": "log", "type": "file", "state": "paused", "reason": "paused by an operator", "workers": 1, "busy": 0,
                     "pending": 0, "dead": 0, "parked_lanes": 0, "delivered_total": 10, "attempts_total": 10, "failed_attempts_total": 0,
                     "avg_attempt_seconds": 0.5, "oldest_pending_seconds": 0.0}
                ],
                "proxies": [{"name": "agent", "listen": "127.0.0.1:8880", "upstream": "http://127.0.0.1:8881", "in_flight": 3,
                             "waiting": 0}],
                "ledger": {"captured": 20, "delivered": 13, "dead": 1, "purged": 0, "expired": 0, "pending": 6, "gap": 0}
            })
        );
        assert_eq!(serde_json::from_value::<Status>(json).unwrap(), status);
    }

    #[test]
    fn graphiti_queue_has_the_shape_that_its_pollers_know() {
        let health = GraphitiQueue::assemble(&stats(), &sinks(), 1000);
        assert_eq!(
            serde_json::to_value(&health).unwrap(),
            json!({"status": "running", "enabled": true, "queue_size": 6, "processed_total": 3, "failed_total": 1,
                   "success_rate": 75.0, "avg_processing_time": 13.25, "worker_count": 5, "workers": {"active": 2, "max_workers": 5},
                   "queue": {"current_size": 6, "max_size": 1000, "is_full": false}})
        );
    }

    #[test]
    fn graphiti_queue_is_degraded_by_a_sink_that_does_not_run_and_by_a_full_queue() {
        for state in ["paused", "open", "stalled"] {
            let mut sinks = sinks();
            sinks[0].state = state;
            assert_eq!(GraphitiQueue::assemble(&stats(), &sinks, 1000).status, "degraded", "{state}");
        }
        let full = Stats { state: "full", ..stats() };
        let health = GraphitiQueue::assemble(&full, &sinks(), 6);
        assert_eq!((health.status.as_str(), health.queue.is_full), ("degraded", true));
    }

    #[test]
    fn graphiti_queue_without_a_graphiti_sink_is_disabled_and_nothing_processed_is_no_failure() {
        let health = GraphitiQueue::assemble(&stats(), &sinks()[1..], 1000);
        assert_eq!((health.status.as_str(), health.enabled), ("disabled", false));
        let idle = GraphitiQueue::assemble(&Stats { state: "ok", ..Stats::default() }, &sinks(), 1000);
        assert_eq!((idle.success_rate.to_string(), idle.processed_total), ("100".to_owned(), 0));
        assert!(percent(9_999_999, 10_000_000) < 100.0, "one failure in millions must not be rounded away");
    }

    #[test]
    fn a_clock_set_back_makes_no_negative_age() {
        assert!(age_seconds(Some(NOW + 5_000), NOW).abs() < f64::EPSILON);
    }
}
