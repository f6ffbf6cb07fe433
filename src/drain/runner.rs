//! One sink's state: what its scheduler, its attempts and its operators share.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus::{Histogram, IntCounter, IntGauge};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::Instant;

use super::SinkStatus;
use super::progress::Progress;
use crate::breaker::{Allowed, Breaker};
use crate::config;
use crate::queue::{AppendError, Queue, SinkId};
use crate::sink::Sink;
use crate::telemetry::metrics::Metrics;

/// A sink at work.
pub struct Runner {
    pub id: SinkId,
    pub config: config::Sink,
    pub sink: Arc<dyn Sink>,
    pub queue: Queue,
    pub metrics: Metrics,
    pub attempt_seconds: Histogram,
    pub lag_seconds: Histogram,
    pub possible_duplicates: IntCounter,
    pub busy: AtomicUsize,
    pub busy_gauge: IntGauge,
    pub breaker_gauge: IntGauge,
    gate: Mutex<Gate>,
    progress: Mutex<Progress>,
    /// One episode at a time is sent again on suspicion alone.
    pub trial: Arc<Semaphore>,
    /// Tells attempts that the sink is stalled.
    pub stalled: watch::Sender<bool>,
    /// Tells the scheduler that the gate has changed.
    pub changed: Notify,
    attempts: AtomicU64,
    failed: AtomicU64,
    /// Microseconds of all attempts together.
    spent: AtomicU64,
}

/// What may begin, and why not.
struct Gate {
    paused: Option<String>,
    stalled: Option<Stall>,
    breaker: Breaker,
    /// Why the breaker is open.
    last_error: Option<String>,
}

struct Stall {
    next_look: Instant,
}

/// What the scheduler may do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Course {
    /// Claim as many as there are workers.
    Run,
    /// Claim one, if none is under way.
    Probe,
    /// Stalled, and it is time to look what has appeared.
    Look,
    /// Nothing before this time.
    Wait(Instant),
    /// Nothing until an operator says so.
    Rest,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner) // plain data, changed in single steps
}

impl Runner {
    /// Picks up where the queue says that the sink was.
    pub fn new(id: SinkId, config: config::Sink, sink: Arc<dyn Sink>, queue: Queue, metrics: &Metrics) -> Self {
        let stats = queue.stats().sinks.into_iter().find(|s| s.name == config.name).unwrap_or_default();
        let label = [config.name.as_str()];
        Self {
            id,
            attempt_seconds: metrics.sink_attempt.with_label_values(&label),
            lag_seconds: metrics.sink_delivery_lag.with_label_values(&label),
            possible_duplicates: metrics.sink_possible_duplicates.with_label_values(&label),
            busy: AtomicUsize::new(0),
            busy_gauge: metrics.sink_workers_busy.with_label_values(&label),
            breaker_gauge: metrics.sink_breaker_state.with_label_values(&label),
            gate: Mutex::new(Gate {
                paused: stats.paused,
                stalled: None,
                breaker: Breaker::new(config.breaker),
                last_error: None,
            }),
            progress: Mutex::new(Progress {
                last_confirmed: 0,
                latest_sent: 0,
                longest: stats.longest_confirm_ms,
                fallback: config.timeout,
            }),
            trial: Arc::new(Semaphore::new(1)),
            stalled: watch::Sender::new(false),
            changed: Notify::new(),
            attempts: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            spent: AtomicU64::new(0),
            metrics: metrics.clone(),
            config,
            sink,
            queue,
        }
    }

    /// What may be done now.
    pub fn course(&self) -> Course {
        let now = Instant::now();
        let mut gate = lock(&self.gate);
        if gate.paused.is_some() {
            return Course::Rest;
        }
        if let Some(stall) = &mut gate.stalled {
            if now < stall.next_look {
                return Course::Wait(stall.next_look);
            }
            stall.next_look = now + self.config.breaker.open_for;
            return Course::Look;
        }
        let allowed = gate.breaker.allowed(now);
        self.breaker_gauge.set(gate.breaker.gauge());
        match allowed {
            Allowed::All => Course::Run,
            Allowed::One => Course::Probe,
            Allowed::NotBefore(until) => Course::Wait(until),
        }
    }

    /// An attempt came to a good end.
    pub fn succeeded(&self) {
        let mut gate = lock(&self.gate);
        gate.breaker.success();
        self.breaker_gauge.set(gate.breaker.gauge());
        if gate.stalled.take().is_some() {
            self.stalled.send_replace(false);
            tracing::info!(sink = self.config.name, "the sink is no longer stalled: an episode has appeared");
        }
        drop(gate);
        self.changed.notify_one();
    }

    /// An attempt failed for the sink's sake; whether the breaker is open now.
    pub fn failed(&self, error: &str) -> bool {
        let mut gate = lock(&self.gate);
        gate.last_error = Some(error.to_owned());
        if gate.breaker.failure(Instant::now()) {
            tracing::warn!(sink = self.config.name, error, open_for = ?self.config.breaker.open_for, "the breaker is open");
        }
        let gauge = gate.breaker.gauge();
        self.breaker_gauge.set(gauge);
        gauge != 0
    }

    /// It takes and forgets: nothing more goes in until something appears.
    pub fn stall(&self) {
        let mut gate = lock(&self.gate);
        if gate.stalled.is_none() {
            gate.stalled = Some(Stall { next_look: Instant::now() + self.config.breaker.open_for });
            self.stalled.send_replace(true);
            tracing::error!(
                sink = self.config.name,
                "the sink is stalled: it accepts episodes and none of them appears; restart the backend"
            );
        }
        drop(gate);
        self.changed.notify_one();
    }

    /// Whether the sink is stalled.
    pub fn is_stalled(&self) -> bool {
        *self.stalled.borrow()
    }

    /// Stops or starts draining, also over restarts.
    pub async fn pause(&self, reason: Option<String>) -> Result<(), AppendError> {
        let was = lock(&self.gate).paused.clone();
        if was == reason {
            return Ok(());
        }
        self.queue.pause(self.id, reason.clone()).await?;
        if let Some(reason) = &reason {
            tracing::warn!(sink = self.config.name, reason, "the sink is paused");
        } else {
            tracing::info!(sink = self.config.name, "the sink is resumed");
        }
        lock(&self.gate).paused = reason;
        self.changed.notify_one();
        Ok(())
    }

    /// Reads or changes what confirmations tell.
    pub fn progress<T>(&self, with: impl FnOnce(&mut Progress) -> T) -> T {
        with(&mut lock(&self.progress))
    }

    /// Counts an attempt that ended.
    pub fn count(&self, outcome: &str, took: Duration) {
        self.metrics.sink_attempts.with_label_values(&[self.config.name.as_str(), outcome]).inc();
        self.attempt_seconds.observe(took.as_secs_f64());
        self.attempts.fetch_add(1, Ordering::Relaxed);
        self.failed.fetch_add(u64::from(outcome != "delivered"), Ordering::Relaxed);
        self.spent.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// How it stands.
    pub fn status(&self) -> SinkStatus {
        let gate = lock(&self.gate);
        let (state, reason) = if gate.paused.is_some() {
            ("paused", gate.paused.clone())
        } else if gate.stalled.is_some() {
            ("stalled", Some("it accepts episodes and none of them appears".to_owned()))
        } else if gate.breaker.gauge() == 0 {
            ("running", None)
        } else {
            ("open", gate.last_error.clone())
        };
        let attempts = self.attempts.load(Ordering::Relaxed);
        // Seconds with a microsecond's precision are all that is shown.
        #[allow(clippy::cast_precision_loss)]
        let mean = self.spent.load(Ordering::Relaxed) as f64 / 1e6 / attempts.max(1) as f64;
        SinkStatus {
            name: self.config.name.clone(),
            kind: self.sink.kind(),
            state,
            reason,
            workers: self.config.workers,
            busy: self.busy.load(Ordering::Relaxed),
            attempts_total: attempts,
            failed_attempts_total: self.failed.load(Ordering::Relaxed),
            avg_attempt_seconds: mean,
        }
    }
}
