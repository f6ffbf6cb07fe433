//! One attempt: a function a state.
//!
//! ```text
//! claimed, never sent ──────────────► send ──► delivered
//!                                      │ ▲ └─► accepted ──► follow ──► seen: delivered
//! claimed, in doubt ──► follow ─ lost ─┘ (counted on disk first)  └──► nothing appears: stalled
//! ```
//! The count is on disk before the sending: the claim counts the first one, `begin` each further one.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::backoff;
use super::progress::{Case, Verdict};
use super::read::Read;
use super::runner::{Runner, Setup};
use crate::clock::{self, as_ms};
use crate::config;
use crate::queue::{Attempt, Claim, Finish, ReadError, Sent};
use crate::sink::{Cause, Delivery, Follow, Presence, Receipt, SinkError};

/// Look-ups that may fail in a row before the attempt is given up for now.
const FAILED_LOOKS: u32 = 3;

/// How long the queue may take to write something down: longer than it waits for the disk itself.
pub const WRITE: Duration = Duration::from_secs(60);

/// How much longer than `timeout` a call of a sink may take. Each looks after its own time-outs: this is for one that doesn't.
pub const MARGIN: Duration = Duration::from_secs(5);

/// Requests that a look-up may need.
const REQUESTS: u32 = 4;

/// How long a claim is held when the store can't be read.
const UNREAD: Duration = Duration::from_secs(1);

/// What an attempt is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To deliver.
    Deliver,
    /// To deliver, and to show whether the sink works again: the only one that is sent.
    Probe,
    /// The sink is stalled: only to look whether it has appeared.
    Look,
    /// The sink is stalled: to send this one, the only one, and see.
    Revive,
}

/// Whether what is sent again may be there all the same, or be on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum IsThere {
    No,
    Maybe,
}

/// How it ended.
pub enum Ending {
    /// It is there; for a sink that confirms, when it had been sent (ms), and whether what was seen is surely what was sent then.
    Delivered { sent: Option<u64>, surely: bool },
    /// The sink, or the way there, failed.
    Failed { error: SinkError, sent: Sent },
    /// The sink says that nothing came of what it accepted.
    Spoiled { message: String },
    /// It accepts and forgets.
    Stalled { sent: Sent },
    /// No further attempt may be made.
    Exhausted { reason: &'static str },
    /// Looked up only, and not there; or it may not be sent again now.
    Absent { sent: Sent },
    /// The record can't be read, and never will be; or not by this offramp, which the reason tells.
    Unreadable { reason: &'static str },
    /// The store can't be read now.
    Unread,
    /// Deleted meanwhile, or the queue takes no more writes: the claim is all there is to give back.
    Gone,
}

/// An attempt that has been made.
pub struct Made {
    pub claim: Claim,
    pub purpose: Purpose,
    /// Attempts counted, this one and what it sent again among them.
    pub attempts: u32,
    /// When its episode was captured (ms), if that could be read.
    pub captured_at: Option<u64>,
    pub began: Instant,
}

/// An episode under way.
pub struct Work {
    runner: Arc<Runner>,
    setup: Setup,
    claim: Claim,
    delivery: Delivery,
    purpose: Purpose,
    /// Attempts begun so far.
    pub attempts: u32,
    /// Held while this is the one that is sent again on suspicion.
    trial: Option<OwnedSemaphorePermit>,
}

/// Makes the attempt that `claim` is for, with what was read of its episode, and finishes the claim.
pub async fn run(runner: Arc<Runner>, claim: Claim, read: Read, purpose: Purpose) {
    let began = Instant::now();
    let setup = runner.setup();
    let captured_at = read.as_ref().ok().and_then(|read| Some(read.as_ref()?.captured_at));
    let (ending, attempts) = match read {
        Err(ReadError::Store(_)) => {
            tokio::time::sleep(UNREAD).await; // the writer looks after the store meanwhile
            (Ending::Unread, claim.attempts)
        }
        Err(ReadError::Foreign { reason, .. }) => (Ending::Unreadable { reason }, claim.attempts),
        Ok(None) | Err(ReadError::Unreadable(_)) => (Ending::Unreadable { reason: "unreadable" }, claim.attempts),
        Ok(Some(episode)) => {
            let delivery = Delivery { episode: Arc::new(episode), at: claim.at };
            let mut work = Work::new(runner.clone(), setup.clone(), claim, delivery, purpose);
            (work.start().await, work.attempts)
        }
    };
    record(&runner, &setup.config, Made { claim, purpose, attempts, captured_at, began }, ending).await;
}

impl Work {
    pub fn new(runner: Arc<Runner>, setup: Setup, claim: Claim, delivery: Delivery, purpose: Purpose) -> Self {
        Self { runner, setup, claim, delivery, purpose, attempts: claim.attempts, trial: None }
    }

    /// Sends, unless an earlier attempt is in doubt.
    async fn start(&mut self) -> Ending {
        match (self.claim.sent, self.claim.exhausted) {
            (Sent::No, Some(reason)) => Ending::Exhausted { reason },
            (Sent::No, None) => self.send().await,
            (Sent::Began(sent), _) => {
                self.settle(sent).await;
                self.follow(self.claim.sent, sent, true).await
            }
            (Sent::Accepted(sent), _) => self.follow(self.claim.sent, sent, true).await,
        }
    }

    /// Waits until it would show what an attempt has done whose end is not known. A look before that proves nothing.
    async fn settle(&self, sent: u64) {
        let since = Duration::from_millis(self.runner.queue.now().saturating_sub(sent));
        let left = self.setup.sink.settle().saturating_sub(since);
        if !left.is_zero() {
            tokio::time::sleep(left).await;
        }
    }

    /// Sends it. The attempt has been counted.
    async fn send(&mut self) -> Ending {
        let (Setup { config, sink }, sent) = (self.setup.clone(), Instant::now());
        let answer = within(config.timeout, true, sink.deliver(&self.delivery)).await;
        if answer.is_ok() {
            self.runner.took(sent);
        }
        match answer {
            Ok(Receipt::Delivered) => Ending::Delivered { sent: None, surely: true },
            Ok(Receipt::Accepted) => {
                self.runner.queue.accepted(self.claim);
                if self.purpose == Purpose::Probe {
                    self.runner.resume_itself().await; // it may take long to appear
                }
                let now = self.runner.queue.now();
                Box::pin(self.follow(Sent::Accepted(now), now, false)).await
            }
            Err(error) => {
                let sent = if error.ambiguous { Sent::Began(self.runner.queue.now()) } else { Sent::No };
                Ending::Failed { error, sent }
            }
        }
    }

    /// Looks until it is there, or certainly isn't.
    pub async fn follow(&mut self, known: Sent, sent: u64, in_doubt: bool) -> Ending {
        let (runner, Setup { config, sink }) = (self.runner.clone(), self.setup.clone());
        let follow = sink.follow();
        let mut stalled = runner.stalled.subscribe();
        let case = Case { sent, started: runner.queue.now(), in_doubt, patience: self.patience(follow) };
        let mut failed = 0;
        loop {
            match within(config.timeout * REQUESTS, false, sink.look_up(&self.delivery)).await {
                Ok(Presence::Present) => {
                    let surely = !(self.purpose == Purpose::Revive && self.claim.sent != Sent::No);
                    return Ending::Delivered { sent: Some(sent), surely };
                }
                Ok(Presence::Unknown) => return self.resend(known, IsThere::Maybe).await,
                Ok(Presence::Failed(message)) => return Ending::Spoiled { message },
                Ok(Presence::Absent) => failed = 0,
                Err(error) => {
                    failed += 1;
                    let paused = error.cause.status().is_some_and(|s| config.pause_on.contains(s));
                    if paused || failed == FAILED_LOOKS || self.purpose == Purpose::Look {
                        return Ending::Failed { error, sent: known };
                    }
                }
            }
            let Some(follow) = follow else {
                if failed == 0 {
                    return self.resend(known, IsThere::No).await;
                }
                tokio::time::sleep(config.retry.initial).await;
                continue;
            };
            if failed == 0 {
                match (self.purpose, runner.progress(|p| p.judge(case, follow, runner.queue.now()))) {
                    (Purpose::Look, _) => return Ending::Absent { sent: known },
                    (Purpose::Revive, _) if in_doubt => return self.resend(known, IsThere::Maybe).await,
                    (_, Verdict::Lost) => return self.resend(known, IsThere::Maybe).await,
                    (_, Verdict::Stalled) => return Ending::Stalled { sent: known },
                    (_, Verdict::LostIfAlone) => {
                        self.trial = runner.trial.clone().try_acquire_owned().ok();
                        if self.trial.is_some() {
                            return self.resend(known, IsThere::Maybe).await;
                        }
                    }
                    (_, Verdict::Wait) => {}
                }
            }
            tokio::select! {
                biased;
                () = tokio::time::sleep(follow.poll) => {}
                // Others found out first: give the worker and the lane back.
                _ = stalled.wait_for(|s| *s), if matches!(self.purpose, Purpose::Deliver | Purpose::Probe) => return Ending::Stalled { sent: known },
            }
        }
    }

    /// Counts one more attempt on disk, then sends.
    async fn resend(&mut self, known: Sent, is_there: IsThere) -> Ending {
        if let Some(reason) = self.claim.exhausted {
            return Ending::Exhausted { reason };
        }
        if self.attempts >= self.setup.config.retry.max_attempts {
            return Ending::Exhausted { reason: "max_attempts" };
        }
        if !self.runner.may_send(self.purpose).await {
            return Ending::Absent { sent: known };
        }
        match tokio::time::timeout(WRITE, self.runner.queue.begin(self.claim)).await {
            Ok(Ok(Some(attempts))) => {
                tracing::info!(sink = self.runner.name, id = %self.delivery.episode.id, attempts, "sending again");
                self.attempts = attempts;
                if is_there == IsThere::Maybe {
                    self.runner.possible_duplicates.inc();
                }
                self.send().await
            }
            Ok(Ok(None) | Err(_)) | Err(_) => Ending::Gone,
        }
    }

    /// How long to look without anything of the sink appearing.
    fn patience(&self, follow: Option<Follow>) -> Duration {
        let Some(follow) = follow else { return Duration::MAX };
        if self.purpose == Purpose::Revive {
            let settle = self.runner.progress(|p| p.settle(follow));
            return settle.max(self.setup.config.breaker.open_for).min(follow.timeout);
        }
        follow.timeout
    }
}

/// A call of a sink, as long as it may take at most. `changes`: whether it would have changed something.
async fn within<T>(timeout: Duration, changes: bool, call: impl Future<Output = Result<T, SinkError>>) -> Result<T, SinkError> {
    let limit = timeout + MARGIN;
    tokio::time::timeout(limit, call).await.unwrap_or_else(|_| Err(no_answer(limit, changes)))
}

/// What a call means that does not end.
pub fn no_answer(limit: Duration, changes: bool) -> SinkError {
    let message = format!("no answer within {limit:?}");
    SinkError { cause: Cause::Timeout, message, retry_after: None, ambiguous: changes }
}

/// What the ending means for the episode and for the sink; finishes the claim. Whether the episode has come to its end.
pub async fn record(runner: &Runner, config: &config::Sink, made: Made, ending: Ending) -> bool {
    let Made { claim, purpose, attempts, captured_at, began } = made;
    let (now, took) = (runner.queue.now(), began.elapsed());
    // It was there to be asked, whatever it said.
    let answered =
        matches!(ending, Ending::Delivered { .. } | Ending::Spoiled { .. } | Ending::Stalled { .. } | Ending::Absent { .. });
    if purpose == Purpose::Probe && answered {
        runner.resume_itself().await;
    }
    let (outcome, finish, error) = match ending {
        Ending::Delivered { sent, surely } => {
            if let Some(sent) = sent {
                runner.progress(|p| p.confirm(sent, now, surely));
            }
            let lag = clock::now_ms().saturating_sub(captured_at.unwrap_or(now));
            runner.lag_seconds.observe(Duration::from_millis(lag).as_secs_f64());
            runner.succeeded();
            ("delivered", Finish::Delivered { confirmed_in: sent.map(|s| now.saturating_sub(s)) }, None)
        }
        Ending::Failed { error, sent } => {
            let (outcome, finish) = classify(runner, config, &error, sent, purpose, attempts, began).await;
            (outcome, finish, Some(error))
        }
        Ending::Spoiled { message } => {
            let error = SinkError { cause: Cause::Timeout, message, retry_after: None, ambiguous: false };
            // The attempt was made, and counts, also if it was looked up as a probe and somebody has paused the sink.
            let (outcome, finish) = classify(runner, config, &error, Sent::No, Purpose::Deliver, attempts, began).await;
            (outcome, finish, Some(error))
        }
        Ending::Stalled { sent } => {
            runner.stall();
            let message = "accepted, but neither this episode nor any other has appeared".to_owned();
            let error = SinkError { cause: Cause::Timeout, message, retry_after: None, ambiguous: true };
            ("stalled", Finish::Hold { sent }, Some(error))
        }
        Ending::Exhausted { reason } | Ending::Unreadable { reason } => ("dead", Finish::Dead { reason }, None),
        Ending::Unread => {
            // No attempt was made; the claim has counted one, unless none was left.
            let finish = if claim.counts() { Finish::Uncount } else { Finish::Hold { sent: claim.sent } };
            runner.queue.finish(claim, finish, None);
            return false;
        }
        Ending::Absent { sent } => {
            runner.queue.finish(claim, Finish::Hold { sent }, None);
            return false;
        }
        Ending::Gone => {
            runner.queue.finish(claim, Finish::Hold { sent: claim.sent }, None);
            return false;
        }
    };
    close(runner, claim, attempts, (outcome, finish), error, took);
    matches!(finish, Finish::Delivered { .. } | Finish::Dead { .. })
}

/// Counts the attempt, finishes the claim, and leaves a line of history.
pub fn close(
    runner: &Runner,
    claim: Claim,
    attempts: u32,
    (outcome, finish): (&str, Finish),
    error: Option<SinkError>,
    took: Duration,
) {
    runner.count(outcome, took);
    if let Finish::Dead { reason } = finish {
        runner.metrics.sink_dead.with_label_values(&[runner.name.as_str(), reason]).inc();
        tracing::warn!(sink = runner.name, seq = claim.seq, reason, "an episode is a dead letter");
    }
    let line = Attempt {
        at: runner.queue.now(),
        attempt: attempts,
        outcome: outcome.to_owned(),
        status: error.as_ref().and_then(|e| e.cause.status()),
        error: error.map(|e| e.message),
        duration_ms: as_ms(took),
    };
    runner.queue.finish(claim, finish, Some(line));
}

/// What a failure means: `pause_on`, `retry_on`, everything else is dead.
pub async fn classify(
    runner: &Runner,
    config: &config::Sink,
    error: &SinkError,
    sent: Sent,
    purpose: Purpose,
    attempts: u32,
    began: Instant,
) -> (&'static str, Finish) {
    let uncounted = if sent == Sent::No { Finish::Uncount } else { Finish::Hold { sent } };
    if error.cause.status().is_some_and(|status| config.pause_on.contains(status)) {
        if runner.pause_itself(error.message.clone()).await.is_err() {
            tracing::error!(sink = runner.name, "the pause could not be written down");
        }
        return ("paused", uncounted);
    }
    if purpose == Purpose::Probe && runner.is_paused() {
        if matches!(error.cause, Cause::Connect | Cause::Timeout | Cause::Local) {
            return ("paused", uncounted); // still nobody who says that it is well: the next probe tells
        }
        if error.cause != Cause::Unfit {
            runner.resume_itself().await; // it has another trouble now
        }
    }
    let retry = match error.cause {
        Cause::Connect => config.retry_on.connect,
        Cause::Timeout => config.retry_on.timeout,
        Cause::Status(status) => config.retry_on.status.contains(status),
        Cause::Local => true,
        Cause::Unfit => false,
    };
    if !retry {
        if error.cause != Cause::Unfit {
            runner.succeeded(); // the sink works: it is this episode that it does not want
        }
        return ("dead", Finish::Dead { reason: "rejected" });
    }
    let open = runner.failed(error, began);
    // Nobody was there to take it, so it can't be what is wrong. The breaker sets the pace; an outage of any length must not use up the
    // attempts of those that happen to be its probes.
    if open && error.cause == Cause::Connect && sent == Sent::No {
        return ("retry", Finish::Uncount);
    }
    // One in doubt gets its look-up even after the last attempt.
    if attempts >= config.retry.max_attempts && sent == Sent::No {
        return ("dead", Finish::Dead { reason: "max_attempts" });
    }
    let delay = backoff::delay(&config.retry, attempts, error.retry_after);
    ("retry", Finish::Retry { delay: as_ms(delay), sent })
}
