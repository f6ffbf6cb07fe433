//! The drain: takes episodes from the queue to their sinks, in order per lane, as fast as each sink can and no faster.
//!
//! Each sink has a scheduler of its own, so none waits for another. `scheduler` claims (some in advance: `ahead`), `attempt` is what becomes of a claim, `runner` what
//! the two of them and the operators share: whether anything may begin (a pause, a stall, the breaker, a wish of the sink), and how much
//! (`limit`, `adaptive`).

mod adaptive;
mod ahead;
mod attempt;
mod backoff;
mod batch;
mod limit;
mod pause;
mod progress;
mod read;
mod reload;
mod runner;
mod scheduler;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, PoisonError, RwLock};

use tokio::sync::watch;
use tokio::task::JoinHandle;

use self::runner::Runner;
use crate::config;
use crate::queue::{AppendError, Queue};
use crate::sink::Sink;
use crate::telemetry::metrics::Metrics;

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

/// The reason that `status` shows for a sink that was paused by hand.
pub const PAUSED_BY_OPERATOR: &str = "paused by an operator";

/// All sinks.
pub struct Drain {
    queue: Queue,
    metrics: Metrics,
    /// Of the sinks that are configured, in the order of the file.
    runners: RwLock<Vec<Arc<Runner>>>,
    stop: watch::Sender<bool>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl Drain {
    /// Starts draining to the sinks given; the queue must know their names.
    pub fn start(queue: &Queue, sinks: Vec<(config::Sink, Arc<dyn Sink>)>, metrics: &Metrics) -> Self {
        let drain = Self {
            queue: queue.clone(),
            metrics: metrics.clone(),
            runners: RwLock::default(),
            stop: watch::Sender::new(false),
            tasks: Mutex::default(),
        };
        drain.drain_to(sinks);
        drain
    }

    /// One status per sink.
    pub fn statuses(&self) -> Vec<SinkStatus> {
        self.runners().iter().map(|r| r.status()).collect()
    }

    /// Stops draining one sink, also over restarts; attempts in flight go on. `false` if there is no such sink.
    pub async fn pause(&self, sink: &str) -> Result<bool, AppendError> {
        match self.runners().iter().find(|r| r.name == sink) {
            Some(runner) => runner.pause().await.map(|()| true),
            None => Ok(false),
        }
    }

    /// Starts it again; `false` if there is no such sink.
    pub async fn resume(&self, sink: &str) -> Result<bool, AppendError> {
        match self.runners().iter().find(|r| r.name == sink) {
            Some(runner) => runner.resume().await.map(|()| true),
            None => Ok(false),
        }
    }

    /// Claims nothing more; returns when attempts in flight have ended or had their moment.
    pub async fn stop(&self) {
        self.stop.send_replace(true);
        let tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        futures_util::future::join_all(tasks).await;
    }

    fn runners(&self) -> Vec<Arc<Runner>> {
        self.runners.read().unwrap_or_else(PoisonError::into_inner).clone() // swapped whole
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.retain(|task| !task.is_finished()); // of sinks that have gone
        tasks.push(tokio::spawn(task));
    }
}
