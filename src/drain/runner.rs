//! One sink's state: what its scheduler, its attempts and its operators share.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use prometheus::{Histogram, IntCounter, IntGauge};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::Instant;

use super::adaptive::Adaptive;
use super::attempt::{Purpose, WRITE};
use super::limit::Limits;
use super::pause::Pause;
use super::progress::Progress;
use super::{PAUSED_BY_OPERATOR, SinkStatus};
use crate::breaker::{Allowed, Breaker};
use crate::config;
use crate::queue::{AppendError, Queue, SinkId};
use crate::sink::{Cause, Sink, SinkError};
use crate::telemetry::metrics::Metrics;

/// A sink at work.
pub struct Runner {
    pub id: SinkId,
    pub name: String,
    pub queue: Queue,
    pub metrics: Metrics,
    pub attempt_seconds: Histogram,
    pub lag_seconds: Histogram,
    pub possible_duplicates: IntCounter,
    pub busy: AtomicUsize,
    pub busy_gauge: IntGauge,
    pub breaker_gauge: IntGauge,
    setup: RwLock<Setup>,
    gate: Mutex<Gate>,
    limits: Mutex<Limits>,
    /// Held by whoever changes the pause, on disk and in memory.
    pausing: tokio::sync::Mutex<()>,
    progress: Mutex<Progress>,
    /// One episode at a time is sent again on suspicion alone.
    pub trial: Arc<Semaphore>,
    /// Tells attempts that the sink is stalled.
    pub stalled: watch::Sender<bool>,
    /// Tells the scheduler that the gate has changed.
    pub changed: Notify,
    /// Tells the scheduler that the sink is no longer configured, or is another one.
    pub left: watch::Sender<bool>,
    attempts: AtomicU64,
    failed: AtomicU64,
    /// Microseconds of all attempts together.
    spent: AtomicU64,
}

/// What a sink is to do, and what does it. An attempt ends with the one that it began with.
#[derive(Clone)]
pub struct Setup {
    pub config: Arc<config::Sink>,
    pub sink: Arc<dyn Sink>,
}

/// What may begin, and why not.
struct Gate {
    paused: Option<Pause>,
    /// The sink asked to be left alone until then.
    quiet: Option<Instant>,
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

/// Statuses with which a sink says that it has too much to do, and not that this episode is wrong.
const OVERLOADED: [u16; 2] = [429, 503];

fn longest_pause(config: &config::Sink) -> Duration {
    config.retry.max.max(config.breaker.open_for)
}

fn pause(config: &config::Sink, reason: String, now: u64) -> Pause {
    Pause::new(reason, config.breaker.open_for, longest_pause(config), now)
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
                paused: stats.paused.map(|reason| pause(&config, reason, queue.now())),
                quiet: None,
                stalled: None,
                breaker: Breaker::new(config.breaker),
                last_error: None,
            }),
            limits: Mutex::new(Limits::new(&config, Instant::now())),
            pausing: tokio::sync::Mutex::new(()),
            progress: Mutex::new(Progress {
                last_confirmed: 0,
                latest_sent: 0,
                longest: stats.longest_confirm_ms,
                fallback: config.timeout,
            }),
            trial: Arc::new(Semaphore::new(1)),
            stalled: watch::Sender::new(false),
            changed: Notify::new(),
            left: watch::Sender::new(false),
            attempts: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            spent: AtomicU64::new(0),
            metrics: metrics.clone(),
            name: config.name.clone(),
            setup: RwLock::new(Setup { config: Arc::new(config), sink }),
            queue,
        }
    }

    /// What holds for an attempt that begins now.
    pub fn setup(&self) -> Setup {
        self.setup.read().unwrap_or_else(PoisonError::into_inner).clone() // swapped whole
    }

    /// Its configuration as it is now: ask once for what belongs together.
    pub fn config(&self) -> Arc<config::Sink> {
        self.setup().config
    }

    /// From now on it is to be done so. What has begun goes on as it began; breaker, pause and progress stay.
    pub fn configure(&self, setup: Setup) {
        let mut gate = lock(&self.gate);
        gate.breaker.configure(setup.config.breaker, Instant::now());
        self.breaker_gauge.set(gate.breaker.gauge());
        drop(gate);
        lock(&self.limits).configure(&self.config(), &setup.config, Instant::now());
        self.progress(|p| p.fallback = setup.config.timeout);
        *self.setup.write().unwrap_or_else(PoisonError::into_inner) = setup;
        self.changed.notify_one();
    }

    /// Claims nothing more; attempts in flight go on to their end.
    pub fn leave(&self) {
        self.breaker_gauge.set(0);
        self.left.send_replace(true);
    }

    /// What may be done now.
    pub fn course(&self) -> Course {
        let now = Instant::now();
        let mut gate = lock(&self.gate);
        let paused = gate.paused.is_some();
        if let Some(pause) = &gate.paused {
            match pause.next_probe() {
                None => return Course::Rest,
                Some(at) if now < at => return Course::Wait(at),
                Some(_) => {} // as far as the others allow it
            }
        }
        gate.quiet = gate.quiet.filter(|until| now < *until);
        if let Some(until) = gate.quiet {
            return Course::Wait(until);
        }
        let allowed = gate.breaker.allowed(now);
        self.breaker_gauge.set(gate.breaker.gauge());
        if let Allowed::NotBefore(until) = allowed {
            return Course::Wait(until);
        }
        if let Some(stall) = gate.stalled.as_ref().filter(|_| !paused) {
            return if now < stall.next_look { Course::Wait(stall.next_look) } else { Course::Look };
        }
        if allowed == Allowed::One || paused { Course::Probe } else { Course::Run }
    }

    /// An attempt came to a good end.
    pub fn succeeded(&self) {
        let mut gate = lock(&self.gate);
        gate.breaker.success(Instant::now());
        self.breaker_gauge.set(gate.breaker.gauge());
        if gate.stalled.take().is_some() {
            self.stalled.send_replace(false);
            tracing::info!(sink = self.name, "the sink is no longer stalled: an episode has appeared");
        }
        drop(gate);
        self.changed.notify_one();
    }

    /// An attempt that began then failed for the sink's sake; whether the breaker is open now.
    pub fn failed(&self, error: &SinkError, began: Instant) -> bool {
        let now = Instant::now();
        let overloaded = error.cause.status().is_some_and(|s| OVERLOADED.contains(&s));
        let news = match &mut lock(&self.limits).adaptive {
            Some(adaptive) if overloaded => adaptive.refused(began, now),
            Some(adaptive) if error.cause == Cause::Timeout => {
                adaptive.timed_out(began, now);
                true
            }
            _ => true,
        };
        let mut gate = lock(&self.gate);
        if let Some(wish) = error.retry_after.filter(|_| overloaded) {
            let until = now + wish.min(self.config().retry.max);
            gate.quiet = Some(gate.quiet.map_or(until, |quiet| quiet.max(until)));
        }
        gate.last_error = Some(error.message.clone());
        // What is refused in one go, because too much was sent in one go, is one failure.
        if news && gate.breaker.failure(now) {
            tracing::warn!(sink = self.name, %error, open_for = ?self.config().breaker.open_for, "the breaker is open");
        }
        let gauge = gate.breaker.gauge();
        self.breaker_gauge.set(gauge);
        gauge != 0
    }

    /// It takes and forgets: nothing more goes in until something appears.
    pub fn stall(&self) {
        let mut gate = lock(&self.gate);
        if gate.stalled.is_none() {
            gate.stalled = Some(Stall { next_look: Instant::now() + self.config().breaker.open_for });
            self.stalled.send_replace(true);
            tracing::error!(
                sink = self.name,
                "the sink is stalled: it accepts episodes and none of them appears; restart the backend"
            );
        }
        drop(gate);
        self.changed.notify_one();
    }

    /// Whether one may be sent to see whether it still is stalled: what was looked up may have opened the breaker.
    pub fn may_revive(&self) -> bool {
        let mut gate = lock(&self.gate);
        gate.stalled.is_some() && !matches!(gate.breaker.allowed(Instant::now()), Allowed::NotBefore(_))
    }

    /// Stops draining, also over restarts, until an operator resumes it.
    pub async fn pause(&self) -> Result<(), AppendError> {
        let _changing = self.pausing.lock().await;
        self.set_pause(Some(PAUSED_BY_OPERATOR.to_owned())).await
    }

    /// Starts draining again.
    pub async fn resume(&self) -> Result<(), AppendError> {
        let _changing = self.pausing.lock().await;
        self.set_pause(None).await
    }

    /// The sink says that it is misconfigured: stops draining, also over restarts, until a probe finds it well. What an operator paused
    /// stays as it is.
    pub async fn pause_itself(&self, reason: String) -> Result<(), AppendError> {
        let _changing = self.pausing.lock().await;
        if lock(&self.gate).paused.is_some() {
            return Ok(());
        }
        // In memory first: nothing more begins, however long the disk takes.
        lock(&self.gate).paused = Some(pause(&self.config(), reason.clone(), self.queue.now()));
        self.set_pause(Some(reason)).await
    }

    /// A probe found it well: the end of a pause that was none of an operator's.
    pub async fn resume_itself(&self) {
        let _changing = self.pausing.lock().await;
        if lock(&self.gate).paused.as_ref().is_some_and(Pause::is_automatic) && self.set_pause(None).await.is_err() {
            tracing::error!(sink = self.name, "the end of the pause could not be written down");
        }
    }

    async fn set_pause(&self, reason: Option<String>) -> Result<(), AppendError> {
        let written = tokio::time::timeout(WRITE, self.queue.pause(self.id, reason.clone())).await;
        written.unwrap_or(Err(AppendError::Failed))?;
        if let Some(reason) = &reason {
            tracing::warn!(sink = self.name, reason, "the sink is paused");
        } else {
            tracing::info!(sink = self.name, "the sink is resumed");
        }
        lock(&self.gate).paused = reason.map(|reason| pause(&self.config(), reason, self.queue.now()));
        self.changed.notify_one();
        Ok(())
    }

    /// A look at what has appeared begins.
    pub fn looks(&self) {
        if let Some(stall) = &mut lock(&self.gate).stalled {
            stall.next_look = Instant::now() + self.config().breaker.open_for;
        }
    }

    /// A probe begins.
    pub fn probes(&self) {
        let longest = longest_pause(&self.config());
        if let Some(pause) = &mut lock(&self.gate).paused {
            pause.probed(longest, self.queue.now());
        }
    }

    /// Whether the sink is paused.
    pub fn is_paused(&self) -> bool {
        lock(&self.gate).paused.is_some()
    }

    /// Attempts that may be under way.
    pub fn at_once(&self) -> usize {
        lock(&self.limits).adaptive.as_ref().map_or_else(|| self.config().workers, Adaptive::at_once)
    }

    /// How many attempts may begin now: the limits of the sink.
    pub fn limits<T>(&self, with: impl FnOnce(&mut Limits, Instant) -> T) -> T {
        with(&mut lock(&self.limits), Instant::now())
    }

    /// The sink took one that was sent then.
    pub fn took(&self, sent: Instant) {
        let more = self.limits(|limits, now| {
            let Some(adaptive) = &mut limits.adaptive else { return false };
            let before = adaptive.at_once();
            adaptive.took(now - sent, self.busy.load(Ordering::Relaxed), now);
            adaptive.at_once() > before
        });
        if more {
            self.changed.notify_one();
        }
    }

    /// Waits until an attempt that is under way may send again; `false` if it may not.
    pub async fn may_send(&self, purpose: Purpose) -> bool {
        let mut at = self.limits(Limits::reserve);
        if let Some(quiet) = lock(&self.gate).quiet {
            at = at.max(quiet);
        }
        tokio::time::sleep_until(at).await;
        let gate = lock(&self.gate);
        match purpose {
            Purpose::Probe => true,
            Purpose::Revive => gate.paused.is_none(),
            Purpose::Deliver | Purpose::Look => gate.paused.is_none() && gate.breaker.gauge() == 0,
        }
    }

    /// Reads or changes what confirmations tell.
    pub fn progress<T>(&self, with: impl FnOnce(&mut Progress) -> T) -> T {
        with(&mut lock(&self.progress))
    }

    /// Counts an attempt that ended.
    pub fn count(&self, outcome: &str, took: Duration) {
        self.metrics.sink_attempts.with_label_values(&[self.name.as_str(), outcome]).inc();
        self.attempt_seconds.observe(took.as_secs_f64());
        self.attempts.fetch_add(1, Ordering::Relaxed);
        self.failed.fetch_add(u64::from(outcome != "delivered"), Ordering::Relaxed);
        self.spent.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// How it stands.
    pub fn status(&self) -> SinkStatus {
        let setup = self.setup();
        let gate = lock(&self.gate);
        let (state, reason) = if gate.paused.is_some() {
            ("paused", gate.paused.as_ref().map(Pause::told))
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
            name: self.name.clone(),
            kind: setup.sink.kind(),
            state,
            reason,
            workers: setup.config.workers,
            busy: self.busy.load(Ordering::Relaxed),
            attempts_total: attempts,
            failed_attempts_total: self.failed.load(Ordering::Relaxed),
            avg_attempt_seconds: mean,
        }
    }
}
