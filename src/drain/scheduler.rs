//! One sink's loop: as many lanes as workers are free, and some in [advance](super::ahead), an attempt for what is claimed of each.
//!
//! One claim is under way at a time, and nothing waits for it: attempts end and others begin meanwhile. What it brings is begun by the
//! next turn, if it may be then.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Poll, ready};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;

use super::ahead::{Ahead, Call};
use super::attempt::Purpose;
use super::batch;
use super::limit::Limits;
use super::read::{self, Read};
use super::runner::{Course, Runner, Setup};
use crate::clock::as_ms;
use crate::config;
use crate::queue::{AppendError, Claim, ClaimRequest, Claims, Finish, Queue, Sent, SinkId, SinkSettings};

/// How long attempts in flight may go on after the stop.
const GRACE: Duration = Duration::from_secs(3);

/// How long to leave the queue alone when it doesn't answer.
const QUEUE_PAUSE: Duration = Duration::from_secs(1);

struct Scheduler {
    runner: Arc<Runner>,
    tasks: JoinSet<()>,
    begun: Vec<Begun>,
    /// The attempt that shows whether the breaker may close. Older ones may wait for their confirmation for long: they don't count.
    probe: Option<Id>,
    /// What the queue knows of the sink's configuration.
    told: Option<SinkSettings>,
    /// The claim under way.
    asked: Option<Asked>,
    /// What is claimed and not begun.
    ahead: Ahead,
    /// With what that was claimed.
    config: Arc<config::Sink>,
    /// Something has happened since the last claim was asked for, or it brought all that was asked for: there may be more.
    news: bool,
    /// When there will be, if nothing happens.
    due: Option<Instant>,
}

/// An attempt under way.
struct Begun {
    task: Id,
    claims: Vec<Claim>,
    at: Instant,
}

/// A claim under way.
struct Asked {
    purpose: Purpose,
    request: ClaimRequest,
    config: Arc<config::Sink>,
    began: Instant,
    answer: Pin<Box<dyn Future<Output = Answer> + Send>>,
}

/// What a claim came to.
type Answer = Result<Claimed, AppendError>;

struct Claimed {
    /// Of one lane each, with what was read of the first episode.
    calls: Vec<(Vec<Claim>, Read)>,
    next_due: Option<u64>,
}

async fn claim(queue: Queue, sink: SinkId, request: ClaimRequest) -> Answer {
    let Claims { claims, next_due } = queue.claim(sink, request).await?;
    let calls: Vec<_> = claims.chunk_by(|a, b| a.lane == b.lane).map(<[Claim]>::to_vec).collect();
    let heads = read::at(&queue, &calls.iter().map(|claims| claims[0].seq).collect::<Vec<_>>()).await;
    Ok(Claimed { calls: calls.into_iter().zip(heads).collect(), next_due })
}

/// Drains one sink until `stop`. Attempts in flight then get a moment; what is not finished by then is looked up after the next start. A
/// sink that leaves before that waits for their end.
pub async fn run(runner: Arc<Runner>, mut stop: watch::Receiver<bool>) {
    let mut left = runner.left.subscribe();
    let mut scheduler = Scheduler::new(runner.clone());
    while !*stop.borrow_and_update() && !*left.borrow_and_update() {
        let wake = if scheduler.has_told().await { scheduler.turn().await } else { Some(Instant::now() + QUEUE_PAUSE) };
        let is_hungry = scheduler.is_hungry();
        tokio::select! {
            biased; // what has ended before what comes; a turn looks at everything anyway
            changed = stop.changed() => if changed.is_err() { break }, // the drain itself is gone
            _ = left.changed() => {} // the runner is here, and so is its sender
            answer = answer(&mut scheduler.asked) => {
                scheduler.answered(answer);
                continue; // what it has told still holds
            }
            Some(ended) = scheduler.tasks.join_next_with_id() => {
                scheduler.ended(ended);
                // All that have: the next claim is a commit, and one for each of them would make the disk the pace of the drain.
                while let Some(ended) = scheduler.tasks.try_join_next_with_id() {
                    scheduler.ended(ended);
                }
            }
            () = runner.queue.rung(runner.id), if is_hungry => {}
            () = runner.changed.notified() => {}
            () = sleep_until(wake) => {}
        }
        scheduler.news = true;
    }
    let rest = async {
        scheduler.settle().await;
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
        () = grace => tracing::info!(sink = runner.name, "attempts in flight were left pending"),
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// What came of the claim under way, once there is one. Cancel safe.
async fn answer(asked: &mut Option<Asked>) -> (Asked, Answer) {
    poll_fn(|cx| {
        let Some(claim) = asked else { return Poll::Pending };
        let answer = ready!(claim.answer.as_mut().poll(cx));
        asked.take().map_or(Poll::Pending, |asked| Poll::Ready((asked, answer)))
    })
    .await
}

impl Scheduler {
    fn new(runner: Arc<Runner>) -> Self {
        Self {
            config: runner.config(),
            runner,
            tasks: JoinSet::new(),
            begun: Vec::new(),
            probe: None,
            told: None,
            asked: None,
            ahead: Ahead::default(),
            news: true,
            due: None,
        }
    }

    /// Whether the queue has heard how the sink is configured: nothing may die before it knows what becomes of the lane then.
    async fn has_told(&mut self) -> bool {
        let settings = SinkSettings::of(&self.runner.config());
        if self.told != Some(settings) && self.runner.queue.configure(self.runner.id, settings).await.is_ok() {
            self.told = Some(settings);
        }
        self.told == Some(settings)
    }

    fn free(&self) -> usize {
        self.runner.at_once().saturating_sub(self.tasks.len())
    }

    fn is_hungry(&self) -> bool {
        self.free() > 0 || self.wanted_ahead() > 0
    }

    /// Lanes to be claimed in advance.
    fn wanted_ahead(&self) -> usize {
        if self.runner.limits(|limits, _| limits.is_free()) {
            self.ahead.wanted(self.runner.at_once()).saturating_sub(self.ahead.len())
        } else {
            0
        }
    }

    /// Starts what may be started; when to look again, if nothing happens before.
    async fn turn(&mut self) -> Option<Instant> {
        let config = self.runner.config();
        if !Arc::ptr_eq(&self.config, &config) || self.ahead.stale().is_some_and(|at| at <= Instant::now()) {
            self.give_back();
            self.ahead.forget();
            self.config = config;
        }
        if !self.is_hungry() && self.ahead.is_empty() {
            return None;
        }
        let course = self.runner.course();
        if course != Course::Run {
            self.give_back();
            if self.free() == 0 {
                return None;
            }
        }
        match course {
            Course::Run => self.go_on(),
            Course::Probe if self.probe.is_none() => self.ask(1, 0, 1, Purpose::Probe),
            Course::Probe | Course::Rest => None,
            Course::Wait(until) => Some(until),
            Course::Look => self.look().await,
        }
    }

    /// Begins what is claimed, and claims more.
    fn go_on(&mut self) -> Option<Instant> {
        while self.free() > 0
            && let Some(call) = self.next()
        {
            self.spawn(call, Purpose::Deliver);
        }
        let wake = if self.free() == 0 || self.ahead.is_empty() {
            self.ask(self.free(), self.wanted_ahead(), self.batch(), Purpose::Deliver)
        } else {
            Some(self.runner.limits(Limits::next)) // what is claimed waits for a token
        };
        [wake, self.ahead.stale()].into_iter().flatten().min()
    }

    /// What is claimed and may begin now.
    fn next(&mut self) -> Option<Call> {
        let Self { ahead, runner, .. } = self;
        ahead.take_if(|call| !call.sends() || runner.limits(Limits::take))
    }

    /// A stalled sink: look up what is unconfirmed; if nothing has appeared, send one, the oldest, and see.
    async fn look(&mut self) -> Option<Instant> {
        self.settle().await;
        self.runner.looks();
        let request = ClaimRequest { in_doubt: true, ..self.request(self.config.workers, 0, 1) };
        let calls = claim(self.runner.queue.clone(), self.runner.id, request).await.ok()?.calls;
        let mut looks: Vec<_> =
            calls.into_iter().map(|(claims, head)| self.spawn(Call::new(claims, head), Purpose::Look)).collect();
        while !looks.is_empty() {
            let Some(ended) = self.tasks.join_next_with_id().await else { break };
            let id = self.ended(ended);
            looks.retain(|look| *look != id);
        }
        if self.runner.may_revive() && self.tasks.is_empty() {
            self.news = true;
            self.ask(1, 0, 1, Purpose::Revive);
            self.settle().await;
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

    /// Asks for so many lanes, as far as the limits allow it, and for more in advance, if there may be any; when to look again, if nothing
    /// happens before.
    fn ask(&mut self, free: usize, ahead: usize, batch: usize, purpose: Purpose) -> Option<Instant> {
        if self.asked.is_some() || free + ahead == 0 {
            return None;
        }
        if !self.news {
            return self.due;
        }
        // A claim counts the attempt on disk. A call takes a token, however many episodes are in it.
        let free = if free > 0 { self.runner.limits(|limits, now| limits.allowed(free, now)) } else { 0 };
        if free + ahead == 0 {
            return Some(self.runner.limits(Limits::next));
        }
        let request = self.request(free, ahead, batch);
        let answer = Box::pin(claim(self.runner.queue.clone(), self.runner.id, request));
        self.asked = Some(Asked { purpose, request, config: self.config.clone(), began: Instant::now(), answer });
        (self.news, self.due) = (false, None);
        None
    }

    fn request(&self, max: usize, ahead: usize, batch: usize) -> ClaimRequest {
        let retry = &self.config.retry;
        ClaimRequest {
            max,
            ahead,
            batch,
            in_doubt: false,
            max_attempts: retry.max_attempts,
            // What is sent to a paused sink shows whether it is well again, however old it has become meanwhile.
            max_age: if self.runner.is_paused() { u64::MAX } else { as_ms(retry.max_age) },
            longest_delay: as_ms(retry.max.max(self.config.batch.linger)).saturating_mul(2),
        }
    }

    /// What a claim came to.
    fn answered(&mut self, (asked, answer): (Asked, Answer)) {
        let Asked { purpose, request, config, began, .. } = asked;
        let Ok(Claimed { calls, next_due }) = answer else {
            self.due = Some(Instant::now() + QUEUE_PAUSE);
            return;
        };
        self.ahead.claim_took(began.elapsed());
        self.news |= calls.len() == request.max + request.ahead;
        let now = self.runner.queue.now();
        self.due = next_due.map(|due| Instant::now() + Duration::from_millis(due.saturating_sub(now)));
        self.ahead.put(calls.into_iter().map(|(claims, head)| Call::new(claims, head)));
        if !Arc::ptr_eq(&config, &self.runner.config()) {
            self.give_back();
        } else if purpose == Purpose::Revive || purpose == Purpose::Probe && self.runner.course() == Course::Probe {
            self.try_one(purpose);
        }
    }

    /// Sends one to see how the sink is.
    fn try_one(&mut self, purpose: Purpose) {
        let Some(call) = self.next() else { return };
        let task = self.spawn(call, purpose);
        if purpose == Purpose::Probe {
            self.probe = Some(task);
            self.runner.probes();
        }
    }

    /// Waits for the claim under way; nothing is claimed then but what has begun.
    async fn settle(&mut self) {
        if self.asked.is_some() {
            let answer = answer(&mut self.asked).await;
            self.answered(answer);
        }
        self.give_back();
    }

    fn give_back(&mut self) {
        while let Some(call) = self.ahead.take() {
            self.undo(call);
        }
    }

    /// As if it had never been claimed.
    fn undo(&self, call: Call) {
        for claim in call.claims {
            let finish = if claim.counts() { Finish::Uncount } else { Finish::Hold { sent: claim.sent } };
            self.runner.queue.finish(claim, finish, None);
        }
    }

    fn spawn(&mut self, call: Call, purpose: Purpose) -> Id {
        let Call { claims, head, .. } = call;
        let task = self.tasks.spawn(batch::run(self.runner.clone(), claims.clone(), head, purpose)).id();
        self.begun.push(Begun { task, claims, at: Instant::now() });
        self.busy();
        task
    }

    fn ended(&mut self, ended: Result<(Id, ()), JoinError>) -> Id {
        let id = match &ended {
            Ok((id, ())) => *id,
            Err(error) => error.id(),
        };
        self.probe = self.probe.filter(|probe| *probe != id);
        let Some(at) = self.begun.iter().position(|begun| begun.task == id) else { return id };
        let Begun { claims, at, .. } = self.begun.swap_remove(at);
        self.ahead.attempt_took(at.elapsed());
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
