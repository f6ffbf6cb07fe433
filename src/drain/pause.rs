//! Why a sink is paused, and when it is tried again.
//!
//! A sink that says of itself that it is misconfigured (`pause_on`) is tried after `breaker.open_for`, then after twice that and so on up to
//! `retry.max`, with one attempt: whoever mends it need not know of offramp. One that an operator paused waits for an operator.

use std::time::Duration;

use tokio::time::Instant;

use super::PAUSED_BY_OPERATOR;
use crate::clock::{as_ms, rfc3339};
use crate::queue::PAUSED_UNREADABLY;

/// A pause.
#[derive(Debug)]
pub struct Pause {
    pub reason: String,
    probe: Option<Probe>,
}

#[derive(Debug)]
struct Probe {
    at: Instant,
    /// The same by the queue's clock (ms).
    at_ms: u64,
    /// From then to the one after it.
    wait: Duration,
}

impl Probe {
    fn after(wait: Duration, longest: Duration, now_ms: u64) -> Self {
        let wait = wait.min(longest);
        Self { at: Instant::now() + wait, at_ms: now_ms.saturating_add(as_ms(wait)), wait: wait.saturating_mul(2) }
    }
}

impl Pause {
    /// For this reason, which tells who paused it.
    pub fn new(reason: String, open_for: Duration, longest: Duration, now_ms: u64) -> Self {
        // One that can't be read may be an operator's.
        let by_itself = ![PAUSED_BY_OPERATOR, PAUSED_UNREADABLY].contains(&reason.as_str());
        Self { reason, probe: by_itself.then(|| Probe::after(open_for, longest, now_ms)) }
    }

    /// Whether it ends by itself.
    pub fn is_automatic(&self) -> bool {
        self.probe.is_some()
    }

    /// When the sink is tried.
    pub fn next_probe(&self) -> Option<Instant> {
        self.probe.as_ref().map(|probe| probe.at)
    }

    /// It is being tried.
    pub fn probed(&mut self, longest: Duration, now_ms: u64) {
        if let Some(probe) = &mut self.probe {
            *probe = Probe::after(probe.wait, longest, now_ms);
        }
    }

    /// As `status` tells it.
    pub fn told(&self) -> String {
        match &self.probe {
            Some(probe) => format!("{}; tried again at {}", self.reason, rfc3339(probe.at_ms / 1000 * 1000)),
            None => self.reason.clone(),
        }
    }
}
