//! A world: what there is, and what happens in it until its troubles end and everything is done.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::service::{Call, Door, Mood, Process, Seen, Service};
use super::verdict;
use crate::clock::Clock;
use crate::config::{self, Breaker, Rate, Retry};
use crate::drain::tests::sink_config;
use crate::drain::{Drain, PAUSED_BY_OPERATOR};
use crate::episode::{Episode, Message};
use crate::queue::model::Model;
use crate::queue::tests::{config as queue_config, episode};
use crate::queue::{Lane, New, Queue};
use crate::sink::{Follow, Sink};
use crate::telemetry::metrics::Metrics;

const START: u64 = 1_767_225_600_000;

/// How long after its troubles a world may need: some rounds of the longest delays that its sinks have, and the work itself.
const PATIENCE: Duration = Duration::from_secs(3 * 3600);

pub struct World {
    pub services: Vec<Arc<Service>>,
    pub queue: Queue,
    pub episodes: Vec<Uuid>,
    pub crashes: u32,
    store: Arc<Model>,
    drain: Drain,
    /// How long (ms) a claim takes.
    pub claims_take: u64,
    rng: fastrand::Rng,
}

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// A service and how offramp is set up for it.
fn service(rng: &mut fastrand::Rng, n: usize) -> Service {
    let follow = rng.bool().then_some(Follow { timeout: secs(150), poll: secs(15) });
    let takes = Duration::from_millis([5, 100, 2_000, 13_000][rng.usize(0..4)]);
    let mut moods = Vec::new();
    let mut until = Duration::ZERO;
    for _ in 0..rng.usize(0..6) {
        until += Duration::from_millis([500, 5_000, 60_000, 300_000][rng.usize(0..4)]);
        let mood = match rng.u8(0..15) {
            0 | 1 => Mood::Well,
            2 => Mood::Slow(rng.u32(2..30)),
            3 | 4 => Mood::Gone,
            5 => Mood::Refuses(500),
            6 => Mood::Refuses(503),
            7 => Mood::Refuses(401),
            8 => Mood::Asks(rng.u64(0..120_000)),
            9 => Mood::Breaks,
            10 => Mood::Hangs,
            11 if follow.is_some() => Mood::Forgets,
            12 | 13 if follow.is_some() => Mood::Spoils,
            14 if rng.u8(0..8) == 0 => Mood::Panics,
            _ => Mood::Refuses(429),
        };
        moods.push((until, mood));
    }
    let open_for = secs(rng.u64(5..90));
    let share = if rng.u8(0..3) == 0 { 0.5 } else { 0.0 };
    let breaker = Breaker { failure_rate: share, min_attempts: 5, ..Breaker::in_a_row(rng.u32(0..6), open_for) };
    let limited = rng.u8(0..3) == 0;
    let config = config::Sink {
        name: format!("sink{n}"),
        timeout: secs(500), // longer than any of them takes that is not hanging
        retry: Retry {
            max_attempts: rng.u32(1..8),
            initial: secs(1),
            max: secs(rng.u64(5..120)),
            full_jitter: rng.bool(),
            max_age: secs(30 * 86_400),
        },
        breaker,
        rate: Rate { per_second: if limited { f64::from(rng.u32(1..20)) / 4.0 } else { 0.0 }, burst: rng.u32(1..4) },
        adaptive: rng.u8(0..3) == 0,
        ..sink_config(rng.usize(1..6))
    };
    let (process, seen) = (Mutex::new(None), Mutex::new(Seen::default()));
    Service { config, moods, takes, follow, seed: rng.u64(..), start: Instant::now(), process, seen }
}

fn start(store: &Arc<Model>, services: &[Arc<Service>], now: u64, life: u32, claims_take: u64) -> (Queue, Drain) {
    let names: Vec<&str> = services.iter().map(|s| s.config.name.as_str()).collect();
    let queue = Queue::inline(store.clone(), &queue_config(), &names, Clock::steady_from(now));
    queue.claims_take(claims_take);
    let metrics = Metrics::new();
    for service in services {
        let process = Process { life, queue: queue.clone(), metrics: metrics.clone() };
        *service.process.lock().unwrap_or_else(PoisonError::into_inner) = Some(process);
    }
    let sinks = services.iter().map(|s| (s.config.clone(), Arc::new(Door(s.clone())) as Arc<dyn Sink>)).collect();
    let drain = Drain::start(&queue, sinks, &metrics);
    (queue, drain)
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let services: Vec<_> = (0..rng.usize(1..4)).map(|n| Arc::new(service(&mut rng, n))).collect();
        let store = Arc::new(Model::default());
        let claims_take = [0, 0, 1, 5, 50][rng.usize(0..5)];
        let (queue, drain) = start(&store, &services, START, 0, claims_take);
        Self { services, queue, episodes: Vec::new(), crashes: 0, store, drain, claims_take, rng }
    }

    async fn append(&mut self) {
        let lane = ["a", "b", "c", "d", "poison", "unfit"][self.rng.usize(0..6)];
        let n = self.episodes.len() as u64 + 1;
        let messages = vec![Message::new("user", "hi")];
        let e = Episode { captured_at: self.queue.now(), messages, ..episode(lane, n) };
        let mut lanes = Vec::new();
        for service in &self.services {
            lanes.push((self.queue.sink_id(&service.config.name).unwrap(), Lane::of(lane)));
            service.seen.lock().unwrap().lanes.entry(lane.to_owned()).or_default().push(e.id);
        }
        self.queue.append(&[New::of(&e, &lanes)]).unwrap().await.unwrap();
        self.episodes.push(e.id);
    }

    /// It is killed and started again, or stopped in order.
    async fn restart(&mut self, killed: bool) {
        if !killed {
            self.drain.stop().await;
        }
        let now = self.queue.now();
        for task in self.drain.tasks.lock().unwrap().drain(..) {
            task.abort();
        }
        tokio::task::yield_now().await; // what is aborted is dropped
        self.crashes += 1;
        self.store.crash();
        (self.queue, self.drain) = start(&self.store, &self.services, now, self.crashes, self.claims_take);
    }

    /// Of what is claimed only what has begun stays.
    async fn pause(&self, service: &Service) {
        let name = &service.config.name;
        assert_eq!(self.drain.pause(name).await, Ok(true));
        tokio::time::sleep(Duration::from_millis(self.claims_take + 2)).await;
        let busy = self.drain.statuses().iter().filter(|s| s.name == *name).map(|s| s.busy as u64).sum::<u64>();
        let claimed = self.queue.stats().sinks.iter().filter(|s| s.name == *name).map(|s| s.in_flight).sum::<u64>();
        if busy != claimed {
            let fault = format!("{name} is paused, {busy} are under way, and {claimed} are claimed");
            service.seen.lock().unwrap().faults.push(fault);
        }
    }

    async fn resume(&self, service: &Service) {
        service.seen.lock().unwrap().resumed.push(service.now());
        assert_eq!(self.drain.resume(&service.config.name).await, Ok(true));
    }

    async fn troubles(&mut self) {
        for _ in 0..self.rng.usize(5..25) {
            match self.rng.u8(0..20) {
                0..=11 => self.append().await,
                12..=16 => tokio::time::sleep(Duration::from_millis([10, 1_000, 30_000][self.rng.usize(0..3)])).await,
                17 => self.restart(true).await,
                18 => self.restart(false).await,
                _ => {
                    let service = self.services[self.rng.usize(0..self.services.len())].clone();
                    if self.rng.bool() {
                        self.pause(&service).await;
                    } else {
                        self.resume(&service).await;
                    }
                }
            }
        }
        let last = self.services.iter().filter_map(|s| s.moods.last()).map(|(until, _)| *until).max();
        tokio::time::sleep_until(self.services[0].start + last.unwrap_or_default()).await;
        for (service, status) in self.services.iter().zip(self.drain.statuses()) {
            if status.reason.as_deref() == Some(PAUSED_BY_OPERATOR) {
                self.resume(service).await;
            }
        }
    }

    async fn rest(&self) -> Vec<String> {
        let end = Instant::now() + PATIENCE;
        let mut wait = Duration::from_millis(100);
        while self.queue.stats().ledger.pending > 0 {
            if Instant::now() > end {
                return vec![format!("not done {PATIENCE:?} after the last trouble: {:?}", self.drain.statuses())];
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(secs(20));
        }
        Vec::new()
    }
}

/// What is wrong with a world in the end.
pub async fn live(seed: u64) -> Vec<String> {
    let mut world = World::new(seed);
    world.troubles().await;
    let mut faults = world.rest().await;
    faults.extend(verdict::of(&world));
    if !faults.is_empty() {
        for service in &world.services {
            println!("{:?}\n{:?} takes {:?}, {:?}", service.config, service.moods, service.takes, service.follow);
            service.seen.lock().unwrap().calls.iter().for_each(|call| println!("  {call:?}"));
        }
    }
    faults
}

/// All calls of a world.
pub async fn history(seed: u64) -> Vec<Vec<Call>> {
    let mut world = World::new(seed);
    world.troubles().await;
    world.rest().await;
    world.services.iter().map(|s| s.seen.lock().unwrap().calls.clone()).collect()
}
