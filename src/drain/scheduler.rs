//! One sink's loop: as many lanes as workers are free, an attempt for what is claimed of each.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;

use super::attempt::Purpose;
use super::batch;
use super::limit::Limits;
use super::runner::{Course, Runner, Setup};
use crate::clock::as_ms;
use crate::queue::{Claim, ClaimRequest, Finish, Sent, SinkSettings};

/// How long attempts in flight may go on after the stop.
const GRACE: Duration = Duration::from_secs(3);

/// How long to leave the queue alone when it doesn't answer.
const QUEUE_PAUSE: Duration = Duration::from_secs(1);

struct Scheduler {
    runner: Arc<Runner>,
    tasks: JoinSet<()>,
    claims: Vec<(Id, Vec<Claim>)>,
    /// The attempt that shows whether the breaker may close. Older ones may wait for their confirmation for long: they don't count.
    probe: Option<Id>,
    /// What the queue knows of the sink's configuration.
    told: Option<SinkSettings>,
}

/// Drains one sink until `stop`. Attempts in flight then get a moment; what is not finished by then is looked up after the next start. A
/// sink that leaves before that waits for their end.
pub async fn run(runner: Arc<Runner>, mut stop: watch::Receiver<bool>) {
    let mut left = runner.left.subscribe();
    let mut scheduler = Scheduler { runner, tasks: JoinSet::new(), claims: Vec::new(), probe: None, told: None };
    while !*stop.borrow_and_update() && !*left.borrow_and_update() {
        let wake = if scheduler.has_told().await { scheduler.turn().await } else { Some(Instant::now() + QUEUE_PAUSE) };
        let runner = scheduler.runner.clone();
        tokio::select! {
            biased; // what has ended before what comes; a turn looks at everything anyway
            changed = stop.changed() => if changed.is_err() { break }, // the drain itself is gone
            _ = left.changed() => {} // the runner is here, and so is its sender
            Some(ended) = scheduler.tasks.join_next_with_id() => {
                scheduler.ended(ended);
                // All that have: the next claim is a commit, and one for each of them would make the disk the pace of the drain.
                while let Some(ended) = scheduler.tasks.try_join_next_with_id() {
                    scheduler.ended(ended);
                }
            }
            () = runner.queue.rung(runner.id), if scheduler.is_hungry() => {}
            () = runner.changed.notified() => {}
            () = sleep_until(wake) => {}
        }
    }
    let name = scheduler.runner.name.clone();
    let rest = async {
        while let Some(ended) = scheduler.tasks.join_next_with_id().await {
            scheduler.ended(ended);
        }
    };
    let grace = async {
        let _ = stop.wait_for(|stop| *stop).await; // an error: the drain itself is gone
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        () = rest => {}
        () = grace => tracing::info!(sink = name, "attempts in flight were left pending"),
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

impl Scheduler {
    /// Whether the queue has heard how the sink is configured: nothing may die before it knows what becomes of the lane then.
    async fn has_told(&mut self) -> bool {
        let settings = SinkSettings::of(&self.runner.config());
        if self.told != Some(settings) && self.runner.queue.configure(self.runner.id, settings).await.is_ok() {
            self.told = Some(settings);
        }
        self.told == Some(settings)
    }

    fn is_hungry(&self) -> bool {
        self.tasks.len() < self.runner.at_once()
    }

    /// Starts what may be started; when to look again, if nothing happens before.
    async fn turn(&mut self) -> Option<Instant> {
        let free = self.runner.at_once().saturating_sub(self.tasks.len());
        if free == 0 {
            return None;
        }
        let before = self.tasks.len();
        match self.runner.course() {
            Course::Run => self.start(free, self.batch(), Purpose::Deliver).await,
            Course::Probe if self.probe.is_none() => {
                let wake = self.start(1, 1, Purpose::Probe).await;
                self.probe = self.claims.last().map(|(task, _)| *task).filter(|_| self.tasks.len() > before);
                if self.probe.is_some() {
                    self.runner.probes();
                }
                wake
            }
            Course::Probe | Course::Rest => None,
            Course::Wait(until) => Some(until),
            Course::Look => self.look().await,
        }
    }

    /// A stalled sink: look up what is unconfirmed; if nothing has appeared, send one, the oldest, and see.
    async fn look(&mut self) -> Option<Instant> {
        let workers = self.runner.config().workers;
        let (claims, _) = self.claim(workers, 1, true).await?;
        let mut looks: Vec<_> = claims.into_iter().map(|claim| self.spawn(vec![claim], Purpose::Look)).collect();
        while !looks.is_empty() {
            let Some(ended) = self.tasks.join_next_with_id().await else { break };
            let id = self.ended(ended);
            looks.retain(|look| *look != id);
        }
        if self.runner.is_stalled() && self.tasks.is_empty() {
            self.start(1, 1, Purpose::Revive).await;
        }
        match self.runner.course() {
            Course::Wait(until) => Some(until),
            _ => Some(Instant::now()),
        }
    }

    /// Episodes of a lane in one call, at most. One whose only attempt was in a batch would have had none of its own.
    fn batch(&self) -> usize {
        let Setup { sink, config } = self.runner.setup();
        if sink.batches() && config.retry.max_attempts > 1 { config.batch.max_items } else { 1 }
    }

    async fn start(&mut self, max: usize, batch: usize, purpose: Purpose) -> Option<Instant> {
        // In advance: a claim counts the attempt on disk. A call takes a token, however many episodes are in it.
        let tokens = self.runner.limits(|limits, now| limits.take(max, now));
        if tokens == 0 {
            return Some(self.runner.limits(Limits::next));
        }
        let Some((claims, wake)) = self.claim(tokens, batch, false).await else {
            self.runner.limits(|limits, _| limits.give_back(tokens));
            return Some(Instant::now() + QUEUE_PAUSE);
        };
        let calls: Vec<_> = claims.chunk_by(|a, b| a.lane == b.lane).map(<[Claim]>::to_vec).collect();
        let sent = calls.iter().filter(|call| call[0].sent == Sent::No && call[0].exhausted.is_none()).count();
        self.runner.limits(|limits, _| limits.give_back(tokens - sent));
        let more = calls.len() == tokens && tokens < max;
        for call in calls {
            self.spawn(call, purpose);
        }
        if more { Some(self.runner.limits(Limits::next)) } else { wake }
    }

    fn spawn(&mut self, claims: Vec<Claim>, purpose: Purpose) -> Id {
        let id = self.tasks.spawn(batch::run(self.runner.clone(), claims.clone(), purpose)).id();
        self.claims.push((id, claims));
        self.busy();
        id
    }

    async fn claim(&self, max: usize, batch: usize, in_doubt: bool) -> Option<(Vec<Claim>, Option<Instant>)> {
        let config = self.runner.config();
        let retry = &config.retry;
        let request = ClaimRequest {
            max,
            batch,
            in_doubt,
            max_attempts: retry.max_attempts,
            // What is sent to a paused sink shows whether it is well again, however old it has become meanwhile.
            max_age: if self.runner.is_paused() { u64::MAX } else { as_ms(retry.max_age) },
            longest_delay: as_ms(retry.max.max(config.batch.linger)).saturating_mul(2),
        };
        let got = self.runner.queue.claim(self.runner.id, request).await.ok()?;
        let now = self.runner.queue.now();
        let wake = got.next_due.map(|due| Instant::now() + Duration::from_millis(due.saturating_sub(now)));
        Some((got.claims, wake))
    }

    fn ended(&mut self, ended: Result<(Id, ()), JoinError>) -> Id {
        let id = match &ended {
            Ok((id, ())) => *id,
            Err(error) => error.id(),
        };
        self.probe = self.probe.filter(|probe| *probe != id);
        let Some(at) = self.claims.iter().position(|(task, _)| *task == id) else { return id };
        let (_, claims) = self.claims.swap_remove(at);
        if let Err(error) = ended {
            // A bug in a sink must not keep the lane claimed until the next start. What the attempt did is not known.
            tracing::error!(sink = self.runner.name, seq = claims[0].seq, %error, "an attempt panicked");
            let delay = as_ms(self.runner.config().retry.max);
            let sent = Sent::Began(self.runner.queue.now());
            for claim in claims {
                self.runner.queue.finish(claim, Finish::Retry { delay, sent }, None);
            }
        }
        self.busy();
        id
    }

    fn busy(&self) {
        let busy = self.tasks.len();
        let was = self.runner.busy.swap(busy, Ordering::Relaxed);
        // Not set: a sink of the same name may have taken over, while attempts of this one are in flight.
        let count = |n| i64::try_from(n).unwrap_or(i64::MAX);
        self.runner.busy_gauge.add(count(busy) - count(was));
    }
}
