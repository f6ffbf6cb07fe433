//! A service that fails, and that sees what it is asked.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::time::Instant;
use uuid::Uuid;

use crate::config;
use crate::queue::{Queue, State};
use crate::sink::{Cause, Delivery, Follow, Presence, Receipt, Sink, SinkError};
use crate::telemetry::metrics::Metrics;

/// Calls that no world needs: something turns round without time going by.
const TOO_MANY: usize = 20_000;

/// What a service is like for a while.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Mood {
    /// It takes what comes.
    Well,
    /// So many times slower.
    Slow(u32),
    /// Nobody is there.
    Gone,
    /// Each call ends so, without effect.
    Refuses(u16),
    /// 429, and how long it wants to be left alone (ms).
    Asks(u64),
    /// One of three calls ends without an answer, with or without effect.
    Breaks,
    /// It never answers.
    Hangs,
    /// It accepts, and nothing comes of it.
    Forgets,
    /// It accepts, and says later that nothing came of it.
    Spoils,
    /// One of three calls makes the sink panic.
    Panics,
}

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    Taken,
    Present,
    Absent,
    Spoiled,
    Failed(Cause),
    /// The caller gave up, or died.
    None,
}

/// One call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The number of the process that made it.
    pub life: u32,
    pub id: Uuid,
    pub look: bool,
    pub began: Duration,
    pub ended: Duration,
    pub answer: Answer,
    /// It began while the breaker let one attempt through.
    pub probe: bool,
    /// How long it asked to be left alone.
    pub wish: Option<Duration>,
}

/// The process that calls.
pub struct Process {
    pub life: u32,
    pub queue: Queue,
    pub metrics: Metrics,
}

#[derive(Default)]
pub struct Seen {
    pub calls: Vec<Call>,
    /// When each copy appears.
    pub stored: Vec<(Duration, Uuid, i64)>,
    /// When it says that nothing came of what it accepted last.
    spoiled: HashMap<Uuid, Duration>,
    /// Episodes of each session in the order in which they were captured.
    pub lanes: HashMap<String, Vec<Uuid>>,
    pub faults: Vec<String>,
    /// When an operator resumed it.
    pub resumed: Vec<Duration>,
    last_answer: Duration,
}

pub struct Service {
    pub config: config::Sink,
    /// What it is like until when; well after the last.
    pub moods: Vec<(Duration, Mood)>,
    /// How long a call takes, and after that until it appears.
    pub takes: Duration,
    pub follow: Option<Follow>,
    pub seed: u64,
    pub start: Instant,
    pub process: Mutex<Option<Process>>,
    pub seen: Mutex<Seen>,
}

/// Ends a call that is given up.
struct Open<'a> {
    service: &'a Service,
    at: usize,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        let now = self.service.now();
        let mut seen = self.service.seen.lock().unwrap();
        seen.calls[self.at].ended = now;
        seen.last_answer = now;
    }
}

impl Service {
    pub fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn mood(&self) -> Mood {
        let now = self.now();
        self.moods.iter().find(|(until, _)| now < *until).map_or(Mood::Well, |(_, mood)| *mood)
    }

    /// Luck that depends on nothing but the seed, the episode and how often it was tried.
    fn luck(&self, id: Uuid, n: usize) -> fastrand::Rng {
        let mut rng = fastrand::Rng::with_seed(self.seed ^ id.as_u64_pair().1.wrapping_mul(0x9E37_79B9) ^ (n as u64) << 48);
        rng.u64(..);
        rng
    }

    /// A call begins: is it one that may be made now?
    fn begin(&self, delivery: &Delivery, look: bool) -> (Open<'_>, fastrand::Rng) {
        let (now, id) = (self.now(), delivery.episode.id);
        let process = self.process.lock().unwrap();
        let process = process.as_ref().expect("somebody calls");
        let mut seen = self.seen.lock().unwrap();
        let name = &self.config.name;
        let breaker = process.metrics.sink_breaker_state.with_label_values(&[name.as_str()]).get();
        if seen.calls.len() == TOO_MANY {
            seen.faults.push(format!("{name} is called again and again"));
        }
        if !look {
            let mut faults = Vec::new();
            let open = seen.calls.iter().filter(|c| !c.look && c.life == process.life && c.ended == Duration::MAX);
            let lane = &seen.lanes[&delivery.episode.session];
            if open.clone().any(|c| lane.contains(&c.id)) {
                faults.push(format!("{name}: {id} is sent beside another one of its lane"));
            }
            if open.count() >= self.config.workers {
                faults.push(format!("{name}: more than `workers` at once"));
            }
            // The one before that, too, had to wait for its own.
            let before = lane.iter().take_while(|other| **other != id).last();
            let view = before.and_then(|before| process.queue.episode(*before).unwrap());
            let standing = view.as_ref().and_then(|v| v.sinks.iter().find(|s| s.sink == *name));
            if standing.is_some_and(|s| !matches!(s.state, State::Delivered | State::Dead)) {
                faults.push(format!("{name}: {id} is sent before the one before it is done"));
            }
            // A breaker opens the moment that a call ends.
            if breaker == 1 && now > seen.last_answer {
                faults.push(format!("{name}: {id} is sent although the breaker is open"));
            }
            if breaker == 2 && seen.calls.iter().any(|c| c.probe && c.life == process.life && c.ended == Duration::MAX) {
                faults.push(format!("{name}: {id} is sent beside another probe"));
            }
            seen.faults.extend(faults);
        }
        let n = seen.calls.iter().filter(|c| c.id == id && c.look == look).count();
        let (at, life) = (seen.calls.len(), process.life);
        let (ended, answer) = (Duration::MAX, Answer::None);
        let probe = !look && breaker == 2;
        seen.calls.push(Call { life, id, look, began: now, ended, answer, probe, wish: None });
        (Open { service: self, at }, self.luck(id, n))
    }

    fn end(&self, open: &Open<'_>, answer: Answer, wish: Option<Duration>) {
        let mut seen = self.seen.lock().unwrap();
        (seen.calls[open.at].answer, seen.calls[open.at].wish) = (answer, wish);
    }

    fn fail<T>(&self, open: &Open<'_>, cause: Cause, retry_after: Option<Duration>, ambiguous: bool) -> Result<T, SinkError> {
        self.end(open, Answer::Failed(cause), retry_after);
        Err(SinkError { cause, message: format!("{cause:?}"), retry_after, ambiguous })
    }

    fn store(&self, delivery: &Delivery, after: Duration) {
        self.seen.lock().unwrap().stored.push((self.now() + after, delivery.episode.id, delivery.at));
    }

    async fn take(&self, delivery: &Delivery) -> Result<Receipt, SinkError> {
        let (open, mut luck) = self.begin(delivery, false);
        if open.at > TOO_MANY {
            std::future::pending::<()>().await;
        }
        let mood = self.mood();
        let mut takes = self.takes.mul_f64(0.5 + luck.f64());
        let unlucky = luck.u8(0..3) == 0;
        if delivery.episode.session == "unfit" {
            return self.fail(&open, Cause::Status(422), None, false);
        }
        if delivery.episode.session == "poison" {
            return self.fail(&open, Cause::Status(500), None, false);
        }
        match mood {
            Mood::Gone => return self.fail(&open, Cause::Connect, None, false),
            Mood::Refuses(status) => return self.fail(&open, Cause::Status(status), None, false),
            Mood::Asks(ms) => return self.fail(&open, Cause::Status(429), Some(Duration::from_millis(ms)), false),
            Mood::Hangs => std::future::pending().await,
            Mood::Breaks if unlucky => {
                if luck.bool() {
                    self.store(delivery, if self.follow.is_some() { takes } else { Duration::ZERO });
                }
                return self.fail(&open, Cause::Timeout, None, true);
            }
            Mood::Panics if unlucky => panic!("told to panic"),
            Mood::Slow(times) => takes *= times,
            Mood::Well | Mood::Breaks | Mood::Panics | Mood::Forgets | Mood::Spoils => {}
        }
        if self.follow.is_some() {
            let (id, done) = (delivery.episode.id, self.now() + takes);
            let mut seen = self.seen.lock().unwrap();
            if mood == Mood::Spoils {
                seen.spoiled.insert(id, done)
            } else {
                seen.spoiled.remove(&id)
            };
            drop(seen);
            if !matches!(mood, Mood::Forgets | Mood::Spoils) {
                self.store(delivery, takes);
            }
            self.end(&open, Answer::Taken, None);
            return Ok(Receipt::Accepted);
        }
        tokio::time::sleep(takes).await;
        self.store(delivery, Duration::ZERO);
        self.end(&open, Answer::Taken, None);
        Ok(Receipt::Delivered)
    }

    async fn find(&self, delivery: &Delivery) -> Result<Presence, SinkError> {
        let (open, _) = self.begin(delivery, true);
        match self.mood() {
            Mood::Gone => return self.fail(&open, Cause::Connect, None, false),
            Mood::Refuses(status @ 401) => return self.fail(&open, Cause::Status(status), None, false),
            Mood::Hangs => std::future::pending().await,
            _ => {}
        }
        let (now, wanted) = (self.now(), delivery.episode.id);
        let seen = self.seen.lock().unwrap();
        let there = seen.stored.iter().any(|(at, id, _)| *id == wanted && *at <= now);
        let spoiled = seen.spoiled.get(&wanted).is_some_and(|at| *at <= now);
        drop(seen);
        let (answer, presence) = match (there, spoiled) {
            (true, _) => (Answer::Present, Presence::Present),
            (false, true) => (Answer::Spoiled, Presence::Failed("told to spoil it".to_owned())),
            (false, false) => (Answer::Absent, Presence::Absent),
        };
        self.end(&open, answer, None);
        Ok(presence)
    }
}

/// What the drain holds of a service.
pub struct Door(pub Arc<Service>);

impl Sink for Door {
    fn kind(&self) -> &'static str {
        "graphiti"
    }

    fn deliver<'a>(&'a self, delivery: &'a Delivery) -> BoxFuture<'a, Result<Receipt, SinkError>> {
        Box::pin(self.0.take(delivery))
    }

    fn look_up<'a>(&'a self, delivery: &'a Delivery) -> BoxFuture<'a, Result<Presence, SinkError>> {
        Box::pin(self.0.find(delivery))
    }

    fn follow(&self) -> Option<Follow> {
        self.0.follow
    }
}
