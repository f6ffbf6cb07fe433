//! The queue as its users see it, on a store that can crash.

mod batch;
mod carried;
mod damage;
mod former;
mod held;
mod live;
mod parked;
mod places;
mod remembered;
mod replayed;
mod salvage;
mod schedule;
mod sealed;
mod stuck;
mod torn;
mod turns;

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::oneshot;
use uuid::Uuid;

use super::store::Witness;
use super::store::model::Model;
use super::*;
use crate::config::{Durability, OnFull};
use crate::episode::{End, Message, Request};

const DAY: u64 = 86_400_000;
const START: u64 = 1_767_225_600_000;

/// As the time of an event, which may lie before all of that.
const EVENT: i64 = START.cast_signed();

pub fn config() -> config::Queue {
    config::Queue {
        path: std::env::temp_dir(),
        durability: Durability::Sync,
        commit_wait: Duration::from_millis(250),
        max_episodes: 1_000_000,
        max_bytes: 1 << 30,
        min_free_disk: 0,
        on_full: OnFull::Pass,
        keep_delivered: Duration::from_secs(86_400),
        keep_dead: Duration::from_secs(30 * 86_400),
        encryption_keys: Vec::new(),
    }
}

pub fn episode(session: &str, n: u64) -> Episode {
    Episode {
        id: Uuid::from_u128(u128::from(n)),
        session: session.into(),
        group: None,
        user: None,
        agent: None,
        proxy: "agent".into(),
        route: "run".into(),
        captured_at: START,
        completed_at: START,
        end: End::Complete,
        // Longer than one piece, so that records are cut and put together again.
        messages: vec![Message::new("user", format!("{n} ").repeat(2_000))],
        metadata: "{}".into(),
        request: Request { method: "POST".into(), path: "/run".into(), status: 200, traceparent: None },
        occurred_at: None,
        sha256: crate::episode::Digests::default(),
        original: None,
    }
}

pub fn request(max: usize) -> ClaimRequest {
    ClaimRequest { max, ahead: 0, batch: 1, in_doubt: false, max_attempts: 3, max_age: u64::MAX, longest_delay: DAY }
}

fn now<T>(future: impl Future<Output = T>) -> T {
    // The writer has answered before `submit` returns, so there is nothing to wait for.
    let mut future = std::pin::pin!(future);
    match future.as_mut().poll(&mut Context::from_waker(std::task::Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("an inline queue answers at once"),
    }
}

struct Bench {
    disk: Arc<Model>,
    queue: Queue,
    config: config::Queue,
}

impl Bench {
    fn new(config: config::Queue) -> Self {
        let disk = Arc::new(Model::default());
        let queue = Queue::inline(disk.clone(), &config, &["a", "b"], Clock::Fixed(START));
        Self { disk, queue, config }
    }

    /// The process dies; what was not synced is lost.
    fn crash(&mut self, at: u64) {
        self.disk.crash();
        self.queue = Queue::inline(self.disk.clone(), &self.config, &["a", "b"], Clock::Fixed(at));
    }

    fn append(&self, session: &str, n: u64, sinks: &[&str]) -> Result<(), AppendError> {
        self.append_at(session, n, sinks, START)
    }

    fn append_at(&self, session: &str, n: u64, sinks: &[&str], captured_at: u64) -> Result<(), AppendError> {
        let episode = Episode { captured_at, ..episode(session, n) };
        self.append_new(&New::of(&episode, &self.lanes(session, sinks))).map(drop)
    }

    /// At a place.
    fn put(&self, session: &str, place: Seq, sinks: &[&str]) {
        let episode = episode(session, place);
        let lanes = self.lanes(session, sinks);
        assert_eq!(self.append_new(&New { place: Some(place), ..New::of(&episode, &lanes) }), Ok(None));
    }

    /// The id of the earlier one, if it was left out.
    fn append_new(&self, new: &New<'_>) -> Result<Option<Uuid>, AppendError> {
        now(self.queue.append(std::slice::from_ref(new))?).map(|appended| appended[0])
    }

    fn lanes(&self, session: &str, sinks: &[&str]) -> Vec<(SinkId, Lane)> {
        sinks.iter().map(|s| (self.queue.sink_id(s).unwrap(), Lane::of(session))).collect()
    }

    /// The process goes on at another time, what is in memory only aside; nothing is lost.
    fn reopen(&mut self, at: u64) {
        self.queue = Queue::inline(self.disk.clone(), &self.config, &["a", "b"], Clock::Fixed(at));
    }

    /// Lets expire what has to.
    fn tidy(&self) {
        if let WriterSide::Inline(writer) = &mut *self.queue.writer() {
            while writer.tidy().is_some() {}
        }
    }

    /// The first bytes of the keys that there are.
    fn tables(&self) -> String {
        let mut tables = String::new();
        let all = |key: &[u8], _: &[u8]| {
            let table = char::from(key[0]);
            if !tables.ends_with(table) {
                tables.push(table);
            }
            true
        };
        self.store().scan(Vec::new()..vec![u8::MAX], &mut { all }).unwrap();
        tables
    }

    fn store(&self) -> Arc<Store> {
        self.queue.inner.shared.store.clone()
    }

    fn claim(&self, sink: &str, max: usize) -> Vec<Claim> {
        now(self.queue.claim(self.queue.sink_id(sink).unwrap(), request(max))).unwrap().claims
    }

    fn sink(&self, name: &str) -> Ledger {
        self.queue.stats().sinks.into_iter().find(|s| s.name == name).unwrap().ledger
    }
}

#[test]
fn inv2_an_answered_append_survives_a_crash() {
    let mut bench = Bench::new(config());
    bench.append("s", 1, &["a"]).unwrap();
    bench.crash(START);
    let view = bench.queue.episode(Uuid::from_u128(1)).unwrap().unwrap();
    assert_eq!(view.episode, episode("s", 1));
    assert_eq!(bench.queue.check(), Vec::<String>::new());
}

#[test]
fn inv6_the_attempt_is_on_disk_before_it_is_made() {
    let mut bench = Bench::new(config());
    bench.append("s", 1, &["a"]).unwrap();
    for attempt in 1..=3 {
        let claims = bench.claim("a", 9);
        assert_eq!(claims.len(), 1);
        let claim = claims[0];
        if attempt == 1 {
            assert_eq!((claim.sent, claim.attempts), (Sent::No, 1));
        } else {
            // Claimed again after the crash: in doubt, looked up, not found, so it is sent once more.
            assert!(matches!(claim.sent, Sent::Began(_)));
            assert_eq!(now(bench.queue.begin(claim)).unwrap(), Some(attempt));
        }
        bench.crash(START);
    }
    let claim = bench.claim("a", 9)[0];
    assert_eq!((claim.exhausted, claim.attempts), (Some("max_attempts"), 3));
}

#[test]
fn inv5_a_redriven_episode_goes_back_to_its_place() {
    let bench = Bench::new(config());
    for n in 1..=3 {
        bench.append("s", n, &["a"]).unwrap();
    }
    let claim = bench.claim("a", 9)[0];
    bench.queue.finish(claim, Finish::Dead { reason: "rejected" }, None);
    let second = bench.claim("a", 9)[0];
    assert_eq!(second.seq, 2);
    let id = bench.queue.sink_id("a").unwrap();
    let store = bench.store();
    let mut side = bench.queue.writer();
    let WriterSide::Inline(inline) = &mut *side else { unreachable!() };
    let mut txn = Txn::new(&store);
    assert!(inline.engine.redrive(&mut txn, id, 1, START).unwrap());
    let writes = inline.engine.close(txn).unwrap();
    store.commit(writes, true).unwrap();
    drop(side);
    assert!(bench.claim("a", 9).is_empty(), "2 is in flight: nothing else of its lane may start");
    bench.queue.finish(second, Finish::Retry { delay: 0, sent: Sent::No }, None);
    assert_eq!(bench.claim("a", 9)[0].seq, 1);
    assert_eq!(bench.queue.check(), Vec::<String>::new());
}

#[test]
fn an_attempt_whose_end_can_be_read_is_not_shown_as_under_way() {
    let bench = Bench::new(config());
    bench.append("s", 1, &["a"]).unwrap();
    let shown = || {
        let standing = bench.queue.episode(Uuid::from_u128(1)).unwrap().unwrap().sinks.remove(0);
        (standing.state, standing.history.len())
    };
    let claim = bench.claim("a", 1)[0];
    assert_eq!(shown(), (State::InFlight, 0));
    // The moment in which its end is committed and nobody has been told.
    let store = bench.store();
    let mut side = bench.queue.writer();
    let WriterSide::Inline(inline) = &mut *side else { unreachable!() };
    let mut txn = Txn::new(&store);
    let line = Attempt { at: START, attempt: 1, outcome: "retry".into(), status: None, error: None, duration_ms: 1 };
    inline.engine.finish(&mut txn, &claim, Finish::Retry { delay: 0, sent: Sent::No }, Some(&line), START).unwrap();
    store.commit(inline.engine.close(txn).unwrap(), true).unwrap();
    drop(side);
    assert_eq!(shown(), (State::Pending, 1));
    assert_eq!(bench.claim("a", 1).len(), 1);
    assert_eq!(shown(), (State::InFlight, 1));
}

#[test]
fn inv6_a_waiting_lane_does_not_hold_up_another() {
    let bench = Bench::new(config());
    bench.append("s", 1, &["a"]).unwrap();
    bench.append("t", 2, &["a"]).unwrap();
    let claims = bench.claim("a", 9);
    assert_eq!(claims.len(), 2);
    bench.queue.finish(claims[0], Finish::Retry { delay: 60_000, sent: Sent::No }, None);
    bench.queue.finish(claims[1], Finish::Delivered { confirmed_in: None }, None);
    bench.append("t", 3, &["a"]).unwrap();
    let answer = now(bench.queue.claim(bench.queue.sink_id("a").unwrap(), request(9))).unwrap();
    assert_eq!(answer.claims.iter().map(|c| c.seq).collect::<Vec<_>>(), [3]);
    assert_eq!(answer.next_due, Some(START + 60_000));
}

#[test]
fn a_time_beyond_every_delay_is_due() {
    let mut bench = Bench::new(config());
    bench.append("s", 1, &["a"]).unwrap();
    bench.crash(START - 10 * DAY); // the clock was set back
    assert_eq!(bench.claim("a", 9).len(), 1);
}

#[test]
fn inv9_a_full_queue_refuses_and_takes_again_when_it_has_room() {
    let bench = Bench::new(config::Queue { max_episodes: 2, ..config() });
    bench.append("s", 1, &["a", "b"]).unwrap();
    bench.append("s", 2, &["a"]).unwrap();
    assert_eq!(bench.append("s", 3, &["a"]), Err(AppendError::Full));
    assert_eq!(bench.queue.stats().state, "full");
    bench.queue.finish(bench.claim("a", 9)[0], Finish::Delivered { confirmed_in: None }, None);
    assert!(bench.queue.is_full(), "sink b still waits for the first");
    bench.queue.finish(bench.claim("b", 9)[0], Finish::Delivered { confirmed_in: None }, None);
    bench.append("s", 3, &["a"]).unwrap();
}

#[test]
fn inv9_the_limit_holds_within_one_batch() {
    // Many may have been let in before the writer came to them.
    let bench = Bench::new(config::Queue { max_episodes: 2, ..config() });
    let sink = bench.queue.sink_id("a").unwrap();
    let mut side = bench.queue.writer();
    let WriterSide::Inline(inline) = &mut *side else { unreachable!() };
    let store = bench.store();
    let mut txn = Txn::new(&store);
    let lanes = [(sink, Lane::of("s"))];
    let taken = (1..=3).map(|n| {
        let append = Append::of(&New::of(&episode("s", n), &lanes), &Seals::new(&[])).unwrap();
        inline.engine.append(&mut txn, &[append], START).unwrap()
    });
    assert_eq!(taken.collect::<Vec<_>>(), [Ok(vec![None]), Ok(vec![None]), Err(AppendError::Full)]);
}

#[test]
fn inv8_receipts_make_room_and_what_is_pending_does_not() {
    let bench = Bench::new(config::Queue { max_bytes: 30_000, ..config() });
    let mut taken = 0;
    while bench.append("s", taken + 10, &["a"]).is_ok() {
        taken += 1;
    }
    assert!(taken >= 2);
    bench.queue.finish(bench.claim("a", 9)[0], Finish::Delivered { confirmed_in: None }, None);
    bench.append("s", 90, &["a"]).unwrap();
    assert!(bench.queue.episode(Uuid::from_u128(10)).unwrap().is_none(), "the receipt made room");
    assert_eq!(bench.append("s", 91, &["a"]), Err(AppendError::Full));
    let ledger = bench.sink("a");
    assert_eq!((ledger.captured, ledger.delivered, ledger.pending, ledger.gap()), (taken + 1, 1, taken, 0));
}

#[test]
fn inv3_a_store_that_fails_refuses_and_recovers() {
    let bench = Bench::new(config());
    bench.disk.fail(true);
    assert_eq!(bench.append("s", 1, &["a"]), Err(AppendError::Failed));
    assert_eq!(bench.queue.stats().state, "degraded");
    bench.disk.fail(false);
    assert!(now(bench.queue.pause(SinkId(1), None)).is_ok(), "any commit that works ends it");
    bench.append("s", 2, &["a"]).unwrap();
    assert_eq!((bench.queue.stats().state, bench.sink("a").captured), ("ok", 1));
    assert_eq!(bench.claim("a", 9).len(), 1, "its lane has the row that the failed append would have made");
    assert_eq!(bench.queue.check(), Vec::<String>::new());
}

#[test]
fn a_paused_sink_stays_paused_over_a_crash() {
    let mut bench = Bench::new(config());
    now(bench.queue.pause(bench.queue.sink_id("b").unwrap(), Some("operator".into()))).unwrap();
    bench.crash(START);
    assert_eq!(bench.queue.stats().sinks[1].paused.as_deref(), Some("operator"));
}
