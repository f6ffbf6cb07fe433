//! The drain: takes episodes from the queue to their sinks, in order per lane.

/// A sink as `status` shows it. Counters start with the process.
#[derive(Debug, Clone, Default)]
pub struct SinkStatus {
    /// Its name.
    pub name: String,
    /// Its `type`.
    pub kind: &'static str,
    /// `running`, `paused`, `open` or `stalled`.
    pub state: &'static str,
    /// Why, where it doesn't run.
    pub reason: Option<String>,
    /// Attempts in flight, at most.
    pub workers: usize,
    /// Attempts in flight.
    pub busy: usize,
    /// Attempts ended.
    pub attempts_total: u64,
    /// Of these, without a delivery.
    pub failed_attempts_total: u64,
    /// Mean length of an attempt.
    pub avg_attempt_seconds: f64,
}

/// All sinks.
pub struct Drain {}

impl Drain {
    /// One status per configured sink.
    pub fn statuses(&self) -> Vec<SinkStatus> {
        Vec::new()
    }

    /// Stops draining one sink, also over restarts; `false` if there is no such sink.
    pub async fn pause(&self, sink: &str) -> bool {
        let _ = sink;
        false
    }

    /// Starts it again; `false` if there is no such sink.
    pub async fn resume(&self, sink: &str) -> bool {
        let _ = sink;
        false
    }
}
