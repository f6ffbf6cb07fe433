//! A schedule's steps, taken at the queue and at the oracle, and what must be true after each.

mod ask;
mod life;
mod look;
mod once;

use std::sync::atomic::{AtomicU64, Ordering};

use self::ask::plain;
use super::oracle::{Answer, At, Came, Did, Ep, Given, MAX_AGE, N, Oracle, Stand, World};
use super::*;
use crate::queue::append::Append;
use crate::queue::replay::{self, Ask, Slice};
use crate::queue::rows::{Ended, Meta, NoteRow, Record, Taken, Waiting};
use crate::queue::store::rewrite::Pace;
use crate::queue::{keys, notes, retention};

type Test = Result<(), TestCaseError>;

#[expect(clippy::struct_excessive_bools, reason = "each is a fact about the run, on its own")]
struct Run {
    setup: Setup,
    disk: Arc<Model>,
    queue: Option<Queue>,
    config: config::Queue,
    pace: Pace,
    clock: &'static AtomicU64,
    lanes: [Lane; 3],
    ids: [SinkId; 2],
    /// What may be true now: one, unless nobody can read the disk.
    now: Vec<Oracle>,
    unreadable: bool,
    /// What may be true after the next loss of power, the present included.
    past: Vec<World>,
    places: BTreeMap<N, Seq>,
    settings: BTreeMap<SinkId, SinkSettings>,
    /// The last place that this process has used or given away.
    last: Seq,
    reserved: Vec<Seq>,
    claims: Vec<(Claim, u8, N)>,
    /// None: what the queue itself has forgotten is not known.
    times: Option<Times>,
    next: N,
    /// What has expired may have been forgotten.
    tidied: bool,
    /// Something has gone wrong since the queue was last well.
    sick: bool,
    /// Something has gone wrong since this process began: the next one may not find what was not synced.
    scarred: bool,
}

/// Event times: those given, those of attempts that reached nobody, and the latest of each lane.
#[derive(Default)]
struct Times {
    given: BTreeMap<(SinkId, N), i64>,
    uncounted: BTreeSet<(SinkId, N)>,
    latest: BTreeMap<At, i64>,
}

fn key(n: u8) -> Key {
    Key::of("schedule", [n.to_string().as_str()])
}

fn id_of(n: N) -> Uuid {
    Uuid::from_u128(u128::from(n))
}

fn n_of(id: Uuid) -> N {
    u64::try_from(id.as_u128()).unwrap()
}

fn pick<T: Clone>(all: &[T], index: Index) -> Option<T> {
    (!all.is_empty()).then(|| all[index % all.len()].clone())
}

impl Run {
    fn new(setup: &Setup) -> Self {
        let config = config::Queue {
            durability: if setup.interval { Durability::Interval(Duration::from_secs(3_600)) } else { Durability::Sync },
            max_episodes: if setup.few { 6 } else { 1_000_000 },
            max_bytes: if setup.small { 30_000 } else { 1 << 30 },
            ..config()
        };
        let (floor, slice) = setup.rewritten.unwrap_or((u64::MAX, 1));
        let mut run = Self {
            setup: setup.clone(),
            disk: Arc::default(),
            queue: None,
            config,
            pace: Pace { floor, times: 0, slice, visit: Duration::ZERO, step: slice, pause: Duration::ZERO },
            clock: Box::leak(Box::new(AtomicU64::new(START))),
            lanes: ["0", "1", "2"].map(Lane::of),
            ids: [SinkId(1), SinkId(2)],
            now: vec![Oracle { disk: World { next: 1, ..World::default() }, ..Oracle::default() }],
            unreadable: false,
            past: Vec::new(),
            places: BTreeMap::new(),
            settings: BTreeMap::new(),
            last: 0,
            reserved: Vec::new(),
            claims: Vec::new(),
            times: Some(Times::default()),
            next: 1,
            tidied: false,
            sick: false,
            scarred: false,
        };
        let zero = run.ids.map(|id| (id, Ledger::default()));
        run.now[0].disk.ledgers.extend(zero);
        run.settings.extend(run.ids.map(|id| (id, setup.settings)));
        run.open();
        run.configure();
        run.past = vec![run.now[0].disk.clone()];
        run
    }

    fn queue(&self) -> &Queue {
        self.queue.as_ref().unwrap()
    }

    fn ms(&self) -> u64 {
        self.clock.load(Ordering::Relaxed)
    }

    fn given(&self) -> Given<'_> {
        Given { now: self.ms(), limits: &self.config, lanes: &self.lanes, places: &self.places }
    }

    fn step(&mut self, step: &Step) -> Test {
        let mut durable = false;
        if !self.setup.has(step.kind()) {
            return Ok(());
        }
        match *step {
            Step::Reserve => {
                let place = self.queue().reserve();
                prop_assert!(place > self.last, "inv5: place {} was used before", place);
                self.last = place;
                self.reserved.push(place);
            }
            Step::Hold { sessions, place, length } => {
                let Some(place) = pick(&self.reserved, place) else { return Ok(()) };
                if self.now[0].holds.get(&place).is_some_and(|(until, _)| *until <= self.ms()) {
                    return Ok(()); // one that has ended by itself may be gone or not
                }
                let whose: BTreeSet<u8> = (0..3).filter(|s| sessions & (1 << s) != 0).collect();
                let lanes: Vec<_> = whose.iter().flat_map(|s| self.ids.map(|id| (id, self.lanes[usize::from(*s)]))).collect();
                let until = self.ms() + length;
                self.queue().hold(&lanes, place, until);
                for oracle in &mut self.now {
                    let hold = oracle.holds.entry(place).or_default();
                    hold.0 = until;
                    hold.1.extend(whose.clone());
                }
            }
            Step::Do(ref acts) => durable = self.act(acts)?,
            Step::Tick(by) => self.tick(by)?,
            Step::Sync => durable = self.sync(),
            Step::Fault(fault) => {
                self.disk.will(fault);
                (self.sick, self.scarred) = (true, true);
            }
            Step::Fill(room) => {
                self.disk.fill(room);
                self.sick = true;
            }
            Step::Mend => self.disk.mend(),
            Step::Restart { power, clock } => {
                self.restart(power, clock);
                durable = true; // what an opened queue shows is there to stay
            }
        }
        self.judge(durable)
    }

    /// One batch; whether what it has changed is on stable storage.
    fn act(&mut self, acts: &[Act]) -> Result<bool, TestCaseError> {
        let (mut dids, mut asked) = (Vec::new(), Vec::new());
        let alone = acts.len() == 1;
        let may = |a: &&Act| self.setup.has(a.kind()) && (alone || !matches!(a, Act::Replay { .. } | Act::Clear(_)));
        for act in acts.iter().filter(may).collect::<Vec<_>>() {
            let Some(did) = self.choose(act) else { continue };
            match self.ask(act, &did) {
                Ok(answer) => {
                    dids.push(did);
                    asked.push(answer);
                }
                Err(AppendError::Full) => {
                    let full = self.now[0].disk.is_full(&self.config);
                    prop_assert!(full || self.sick, "inv9: there is room, and it was refused");
                }
                Err(AppendError::Failed) => prop_assert!(self.sick, "inv3: refused by a disk that works"),
            }
        }
        if dids.is_empty() {
            return Ok(false);
        }
        self.queue().commit_inline();
        let mut claims = Vec::new();
        let answers: Vec<_> = asked.into_iter().map(|asked| asked.answer(self, &mut claims)).collect();
        if self.queue().stats().state == "degraded" {
            prop_assert!(self.sick, "inv3: a commit failed on a disk that works");
            let failed = answers.iter().all(|a| matches!(a, None | Some(Err(AppendError::Failed))));
            prop_assert!(failed, "inv2: answered as done by a commit that failed: {:?}", answers);
            self.failed(&dids);
            return Ok(false);
        }
        let before = self.now[0].disk.clone();
        let mut expected = Vec::new();
        for (oracle, should) in self.now.iter().map(|o| o.batch(&dids, &self.given())).collect::<Vec<_>>() {
            let same =
                |(should, is): (&Answer, &Option<Result<Answer, AppendError>>)| is.is_none() || *is == Some(Ok(should.clone()));
            expected.push((should.iter().zip(&answers).all(same), oracle, should));
        }
        let should = expected[0].2.clone();
        self.now = expected.into_iter().filter(|e| e.0).map(|e| e.1).collect();
        self.settings = self.now.first().map_or_else(|| self.settings.clone(), |oracle| oracle.settings.clone());
        prop_assert!(
            !self.now.is_empty(),
            "inv2, inv4, inv5, inv6, inv9: {:?} was answered\n{:?} but should be\n{:?}",
            dids,
            answers,
            should
        );
        for (claim, session, n) in claims {
            self.times.as_mut().map_or(Ok(()), |times| times.claimed(&claim, session, n))?;
            self.claims.push((claim, session, n));
        }
        let left_out = should.iter().any(|a| matches!(a, Answer::Appended(first) if first.iter().any(Option::is_some)));
        Ok(self.config.durability == Durability::Sync && (left_out || self.now[0].disk != before))
    }

    /// A batch that failed is there or it is not.
    fn failed(&mut self, dids: &[Did]) {
        let given = Given { now: self.ms(), limits: &self.config, lanes: &self.lanes, places: &self.places };
        let before: Vec<_> = self.now.iter().map(|o| o.failed(dids)).collect();
        // What can't even be read is not written either.
        let done = self.now.iter().filter(|_| !self.unreadable).map(|o| o.batch(dids, &given).0.disk);
        let after: Vec<_> = done.zip(&before).map(|(disk, oracle)| Oracle { disk, ..oracle.clone() }).collect();
        self.now = before.into_iter().chain(after).collect();
        self.dedup();
        self.configure();
    }

    /// What may be true, once each.
    fn dedup(&mut self) {
        let mut once: Vec<Oracle> = Vec::new();
        for oracle in std::mem::take(&mut self.now) {
            if once.iter().all(|o| o.disk != oracle.disk) {
                once.push(oracle);
            }
        }
        self.now = once;
    }

    /// What must be true after each step.
    fn judge(&mut self, durable: bool) -> Test {
        let queue = self.queue.clone().unwrap();
        let (seen, places) = match self.disk.aside(|| self.look(&queue.inner.shared.store)) {
            Ok(seen) => seen,
            Err(error) => {
                prop_assert!(self.sick, "inv3: a disk that works can't be read: {}", error);
                self.unreadable = true;
                for world in self.now.iter().map(|o| &o.disk) {
                    if !self.past.contains(world) {
                        self.past.push(world.clone());
                    }
                }
                return Ok(());
            }
        };
        for (n, seq) in places {
            if let Some(known) = self.places.get(&n) {
                prop_assert_eq!(*known, seq, "inv5: an episode is not at its place");
            } else {
                prop_assert!(self.unreadable || seq > self.last, "inv5: place {} was used before", seq);
                self.places.insert(n, seq);
            }
            self.last = self.last.max(seq);
        }
        for world in self.now.iter_mut().map(|o| &mut o.disk) {
            let used = world.episodes.keys().filter_map(|n| self.places.get(n)).max();
            world.next = world.next.max(used.map_or(1, |used| used + 1));
        }
        if let Some(truth) = self.now.iter().position(|o| o.disk == seen) {
            self.now = vec![self.now.swap_remove(truth)];
        } else {
            let may: Vec<_> = self.now.iter().map(|o| &o.disk).collect();
            prop_assert!(false, "inv2, inv8: on the disk is\n{:#?}\nbut only this may be:\n{:#?}", seen, may);
        }
        if let Some(times) = self.times.as_mut().filter(|_| std::mem::take(&mut self.tidied)) {
            // Nobody remembers the clock of a lane that ran empty for ever.
            let waits = |at: &At| seen.standing(at.0, None).any(|n| seen.episodes[&n].session == at.1);
            times.latest.retain(|at, _| waits(at));
        }
        self.last = self.last.max(seen.next - 1);
        self.unreadable = false;
        if durable {
            self.past.clear();
        }
        if !self.past.contains(&seen) {
            self.past.push(seen);
        }
        self.disk.aside(|| self.shown(&queue))
    }

    /// Delivers whatever is there, lets everything expire: nothing was lost, and nothing stays behind.
    fn end(&mut self) -> Test {
        self.setup.kinds = u16::MAX;
        self.step(&Step::Mend)?;
        self.step(&Step::Tick(1))?; // a handle that was given up is opened again
        for sink in [false, true] {
            // One that brings what nobody knows to be there, after faults, is ended by hand.
            let mut slices = 0;
            while self.now[0].disk.replays.contains_key(&self.ids[usize::from(sink)]) {
                slices += 1;
                prop_assert!(slices < 110, "inv8: a replay has no end");
                self.step(&Step::Do(vec![if slices < 100 { Act::Go(sink, 9) } else { Act::Cancel(sink) }]))?;
            }
        }
        let mut rounds = 0;
        while self.queue().stats().ledger.pending > 0 || rounds == 0 {
            rounds += 1;
            prop_assert!(rounds < 100, "inv6: what is pending can't be claimed");
            self.step(&Step::Tick(DAY / 4))?;
            for sink in [false, true] {
                self.step(&Step::Do(vec![Act::Configure { sink, settings: SinkSettings::default() }]))?;
                self.step(&Step::Do(vec![Act::Claim { sink, max: 9, ahead: 0, batch: 1, in_doubt: false, heard: true }]))?;
            }
            while !self.claims.is_empty() {
                self.step(&Step::Do(vec![Act::Finish(0, Finish::Delivered { confirmed_in: None })]))?;
            }
        }
        for _ in 0..4 {
            self.step(&Step::Tick(40 * DAY))?;
        }
        let mut tables = BTreeSet::new();
        let all = |key: &[u8], _: &[u8]| {
            tables.insert(key[0]);
            true
        };
        self.queue().inner.shared.store.scan(Vec::new()..vec![u8::MAX], &mut { all }).unwrap();
        tables.remove(&keys::whole()[0]);
        prop_assert_eq!(tables, BTreeSet::from(*b"mnsz"), "inv9: something stays behind");
        prop_assert_eq!(self.queue().stats().bytes, 0);
        Ok(())
    }
}

impl Times {
    /// An attempt is about to be made.
    fn claimed(&mut self, claim: &Claim, session: u8, n: N) -> Test {
        if claim.exhausted.is_some() {
            return Ok(());
        }
        let key = (claim.sink, n);
        let given = self.given.insert(key, claim.at);
        let latest = self.latest.entry((claim.sink, session)).or_insert(i64::MIN);
        if given != Some(claim.at) {
            prop_assert!(given.is_none() || self.uncounted.contains(&key), "an event time changed");
            prop_assert!(claim.sent != Sent::No || *latest < claim.at, "event times go back");
        }
        self.uncounted.remove(&key);
        *latest = claim.at.max(*latest);
        Ok(())
    }
}

fn schedules() -> u32 {
    let wanted = std::env::var("OFFRAMP_SCHEDULES").ok().and_then(|n| n.parse().ok());
    wanted.unwrap_or(if cfg!(debug_assertions) { 400 } else { 4_000 })
}

fn take(setup: &Setup, steps: &[Step]) -> Test {
    let mut run = Run::new(setup);
    for step in steps {
        run.step(step)?;
    }
    run.end()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: schedules(), max_shrink_time: 60_000, ..ProptestConfig::default() })]

    #[test]
    fn inv2_inv4_inv5_inv6_inv8_inv9_any_schedule_on_any_disk_loses_nothing_and_keeps_order_and_ledger(schedule in schedule()) {
        take(&schedule.setup, &schedule.steps)?;
    }
}
