//! A schedule's steps, taken at the queue and at the oracle, and what must be true after each.

use std::sync::atomic::{AtomicU64, Ordering};

use super::oracle::{Answer, At, Came, Did, Ep, Given, MAX_AGE, N, Oracle, Stand, World};
use super::*;
use crate::queue::append::Append;
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
    given: BTreeMap<(SinkId, N), u64>,
    uncounted: BTreeSet<(SinkId, N)>,
    latest: BTreeMap<At, u64>,
}

/// What was asked, until it is answered.
enum Asked {
    Append(Answering<Appended>),
    Note(Answering<()>),
    Claims(Answering<Claims>),
    Begun(Answering<Option<u32>>),
    Count(Answering<u64>),
    Deleted(Answering<Deleted>),
    /// Nobody will be told.
    Nothing,
}

type Answering<T> = crate::queue::shared::Answer<T>;

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
            pace: Pace { floor, times: 0, slice, step: slice, pause: Duration::ZERO },
            clock: Box::leak(Box::new(AtomicU64::new(START))),
            lanes: ["0", "1", "2"].map(Lane::of),
            ids: [SinkId(1), SinkId(2)],
            now: vec![Oracle { disk: World { next: 1, ..World::default() }, ..Oracle::default() }],
            unreadable: false,
            past: Vec::new(),
            places: BTreeMap::new(),
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
        run.open();
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

    fn open(&mut self) {
        for attempt in 0.. {
            let store = Store::paced(self.disk.clone(), self.pace).map_err(TxnError::from);
            match store.and_then(|s| Queue::inline_on(s, &self.config, &["a", "b"], Clock::Told(self.clock))) {
                Ok(queue) => return self.queue = Some(queue),
                Err(error) => assert!(attempt < 5, "inv8: the queue can't be opened: {error}"),
            }
            if attempt == 3 {
                self.disk.mend();
            }
        }
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
        for act in acts.iter().filter(|a| self.setup.has(a.kind())).collect::<Vec<_>>() {
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
    }

    /// What exactly is asked.
    fn choose(&mut self, act: &Act) -> Option<Did> {
        let now = self.ms();
        let dead = |run: &Self, index| {
            let all = run.ids.iter().flat_map(|id| run.now[0].disk.standing(*id, Some(State::Dead)).map(|n| (*id, n)));
            pick(&all.filter(|(_, n)| run.places.contains_key(n)).collect::<Vec<_>>(), index)
        };
        let claim = |run: &Self, index| pick(&run.claims, index).map(|(claim, session, n)| ((claim.sink, session), n));
        Some(match *act {
            Act::Append(ref arrivals) => Did::Append(arrivals.iter().map(|a| self.comes(a)).collect()),
            Act::Note(n, len) => Did::Note(n, (len, note(n, len, now).size(), now + KEPT)),
            Act::Release(place) => Did::Release(pick(&self.reserved, place)?),
            Act::Claim { sink, max, in_doubt, heard } => Did::Claim { sink: self.ids[usize::from(sink)], max, in_doubt, heard },
            Act::Begin(index) => claim(self, index).map(|(at, n)| Did::Begin(at, n))?,
            Act::Accepted(index) => claim(self, index).map(|(at, n)| Did::Accepted(at, n))?,
            Act::Finish(index, finish) => claim(self, index).map(|(at, n)| Did::Finish(at, n, finish))?,
            Act::Redrive(index) => dead(self, index).map(|(sink, n)| Did::Redrive(sink, n))?,
            Act::Purge(index) => dead(self, index).map(|(sink, n)| Did::Purge(sink, n))?,
            Act::Delete(index) => {
                let known: Vec<N> = self.now[0].disk.episodes.keys().copied().chain([0]).collect();
                Did::Delete(pick(&known, index)?)
            }
        })
    }

    fn comes(&mut self, arrival: &Arrival) -> Came {
        let n = self.next;
        self.next += 1;
        if let Some(index) = arrival.place.filter(|_| !self.reserved.is_empty()) {
            let place = self.reserved.remove(index % self.reserved.len());
            self.places.insert(n, place);
        }
        let now = self.ms();
        let sinks = self.ids[..=usize::from(arrival.both)].to_vec();
        let episode = Self::episode(arrival, n);
        let size = Append::of(&New::of(&episode, &self.lanes(arrival)), &plain()).unwrap().record.len() as u64 + retention::ROWS;
        Came {
            n,
            session: arrival.session,
            sinks,
            captured_at: episode.captured_at,
            size,
            unique: arrival.unique.filter(|_| self.setup.has(UNIQUES)).map(|key| (key, now + KEPT)),
            note: arrival.note.filter(|_| self.setup.has(NOTES)).map(|(n, len)| (n, (len, note(n, len, now).size(), now + KEPT))),
        }
    }

    fn episode(arrival: &Arrival, n: N) -> Episode {
        let text = "x".repeat(if arrival.long { 5_000 } else { 50 });
        let messages = vec![Message::new("user", text)];
        Episode { captured_at: START + arrival.moved, messages, ..crate::queue::tests::episode(&arrival.session.to_string(), n) }
    }

    fn lanes(&self, arrival: &Arrival) -> Vec<(SinkId, Lane)> {
        self.ids[..=usize::from(arrival.both)].iter().map(|id| (*id, self.lanes[usize::from(arrival.session)])).collect()
    }

    /// Hands it to the writer.
    fn ask(&mut self, act: &Act, did: &Did) -> Result<Asked, AppendError> {
        let shared = self.queue().inner.shared.clone();
        let claim = |run: &Self, at: At, n: N| run.claims.iter().find(|(c, s, m)| (c.sink, *s) == at && *m == n).unwrap().0;
        let seq = |run: &Self, n: N| run.places.get(&n).copied().unwrap_or(0);
        macro_rules! ask {
            ($as:ident, $op:expr) => {{
                let (reply, answer) = crate::queue::shared::reply();
                shared.submit($op(reply))?;
                Asked::$as(answer)
            }};
        }
        Ok(match did {
            Did::Append(came) => {
                if self.queue().is_full() {
                    return Err(AppendError::Full);
                }
                let Act::Append(arrivals) = act else { unreachable!() };
                let new = came.iter().zip(arrivals).map(|(came, arrival)| {
                    let made = |(n, (len, _, until)): (u8, (usize, u64, u64))| Note { key: key(n), value: text(len), until };
                    let (episode, lanes) = (Self::episode(arrival, came.n), self.lanes(arrival));
                    let new = New {
                        place: self.places.get(&came.n).copied(),
                        unique: came.unique.map(|(n, until)| Unique { key: key(n), until }),
                        note: came.note.map(made),
                        ..New::of(&episode, &lanes)
                    };
                    Append::of(&new, &plain()).unwrap()
                });
                let new = new.collect();
                ask!(Append, |reply| Op::Append(new, reply, Instant::now()))
            }
            Did::Note(n, (len, ..)) => ask!(Note, |reply| Op::Note(note(*n, *len, self.ms()), reply)),
            Did::Release(place) => {
                shared.release(*place);
                Asked::Nothing
            }
            Did::Claim { sink, max, in_doubt, heard } => {
                let request = ClaimRequest { in_doubt: *in_doubt, max_age: MAX_AGE, ..request(*max) };
                let asked = ask!(Claims, |reply| Op::Claim(*sink, request, reply));
                if *heard { asked } else { Asked::Nothing }
            }
            Did::Begin(at, n) => ask!(Begun, |reply| Op::Begin(claim(self, *at, *n), reply)),
            Did::Accepted(at, n) => {
                shared.submit(Op::Accepted(claim(self, *at, *n)))?;
                Asked::Nothing
            }
            Did::Finish(at, n, finish) => {
                let ended = claim(self, *at, *n);
                let line = Attempt {
                    at: self.ms(),
                    attempt: ended.attempts,
                    outcome: "x".into(),
                    status: None,
                    error: None,
                    duration_ms: 1,
                };
                shared.submit(Op::Finish(ended, *finish, Some(line)))?;
                self.claims.retain(|(c, ..)| *c != ended);
                if let (Finish::Uncount, Some(times)) = (finish, &mut self.times) {
                    times.uncounted.insert((at.0, *n));
                }
                Asked::Nothing
            }
            Did::Redrive(sink, n) => ask!(Count, |reply| Op::Redrive(vec![(*sink, seq(self, *n))], reply)),
            Did::Purge(sink, n) => ask!(Count, |reply| Op::Purge(vec![(*sink, seq(self, *n))], reply)),
            Did::Delete(n) => ask!(Deleted, |reply| Op::Delete(id_of(*n), reply)),
        })
    }

    fn tick(&mut self, by: u64) -> Test {
        self.clock.fetch_add(by, Ordering::Relaxed);
        let lost = self.queue().stats().state == "degraded";
        self.tidy();
        if self.sick && !self.disk.is_bad() {
            for _ in 0..3 {
                self.tidy();
            }
            prop_assert_ne!(self.queue().stats().state, "degraded", "inv3: the disk is well again, and the queue is not");
            self.sick = false;
            self.reopened(true);
        } else {
            self.reopened(lost);
        }
        let well = !self.sick && self.now.len() == 1;
        let given = Given { now: self.ms(), limits: &self.config, lanes: &self.lanes, places: &self.places };
        let tidied: Vec<_> = self
            .now
            .iter()
            .cloned()
            .map(|mut oracle| {
                oracle.disk.tidy(&given);
                oracle
            })
            .collect();
        if well {
            self.now = tidied; // inv9: what has to expire does
        } else {
            self.now.extend(tidied);
            self.dedup();
        }
        Ok(())
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

    fn tidy(&self) {
        if let WriterSide::Inline(writer) = &mut *self.queue().writer() {
            writer.tidy();
        }
    }

    /// The store may have been opened again by itself: what was not synced may be gone.
    fn reopened(&mut self, lost: bool) {
        if lost {
            let oracle = self.now[0].clone();
            self.now.extend(self.past.iter().map(|disk| Oracle { disk: disk.clone(), ..oracle.clone() }));
            if self.config.durability != Durability::Sync {
                self.times = None;
            }
        }
        self.tidied = true;
    }

    fn sync(&mut self) -> bool {
        if let WriterSide::Inline(writer) = &mut *self.queue().writer() {
            let durability = std::mem::replace(&mut writer.durability, Durability::Interval(Duration::ZERO));
            writer.commit(Vec::new());
            writer.durability = durability;
        }
        !self.sick && self.config.durability != Durability::Sync
    }

    fn restart(&mut self, power: Option<u8>, clock: i64) {
        self.queue = None;
        let lost = power.is_some() || std::mem::replace(&mut self.scarred, self.sick);
        if let Some(keep) = power {
            self.disk.power(keep);
        }
        self.clock.store(self.ms().saturating_add_signed(clock).max(START - 10 * DAY), Ordering::Relaxed);
        self.open();
        for oracle in &mut self.now {
            oracle.claimed.clear();
            oracle.holds.clear();
        }
        if power.is_some() && !self.unreadable {
            // inv2: nothing but what was made stable, or came after that.
            let past = std::mem::take(&mut self.past);
            self.now = past.into_iter().map(|disk| Oracle { disk, ..Oracle::default() }).collect();
        }
        self.reopened(lost);
        (self.claims, self.reserved) = (Vec::new(), Vec::new());
        self.last = 0;
        self.unreadable = true; // until it is looked at
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

    /// All that is on the disk.
    fn look(&self, store: &Store) -> Result<(World, BTreeMap<N, Seq>), TxnError> {
        let txn = Txn::new(store);
        let rows = |prefix: &[u8]| {
            let mut rows = Vec::new();
            txn.scan(prefix.to_vec()..keys::end_of(prefix), &mut |k, v| {
                rows.push((k.to_vec(), v.to_vec()));
                true
            })?;
            Ok::<_, TxnError>(rows)
        };
        let meta = txn.get::<Meta>(&keys::meta())?.unwrap();
        let mut seen = World { next: meta.next_seq, ..World::default() };
        let mut places = BTreeMap::new();
        let seqs: BTreeSet<_> = rows(&keys::episodes())?.iter().filter_map(|(k, _)| keys::seq_of_episode(k)).collect();
        for seq in seqs {
            let (Record { id, captured_at, lanes, .. }, size) = crate::queue::engine::read_record(&txn, seq)?.unwrap();
            let session = self.lanes.iter().position(|l| *l == lanes[0].1).unwrap();
            let mut at = BTreeMap::new();
            for (sink, lane) in lanes {
                let waiting = txn.get::<Waiting>(&keys::waiting(sink, lane, seq))?;
                let ended = txn.get::<Ended>(&keys::ended(seq, sink))?;
                let was = waiting.or(ended.as_ref().map(|e| e.was.clone())).expect("inv8: it waits or has ended");
                let Waiting { attempts, not_before, since, sent, entries: lines, .. } = was;
                let ended = ended.map(|e| (e.state, e.expires_at));
                at.insert(sink, Stand { attempts, not_before, since, sent, lines, ended });
            }
            let session = u8::try_from(session).unwrap();
            seen.episodes.insert(n_of(id), Ep { session, captured_at, size: size as u64 + retention::ROWS, at });
            places.insert(n_of(id), seq);
        }
        for n in 0..2 {
            let taken = txn.get::<Taken>(&keys::unique(key(n)))?;
            seen.uniques.extend(taken.map(|t| (n, (n_of(t.id), t.until))));
            if let Some(NoteRow { until }) = txn.get(&keys::note(key(n)))? {
                let len = notes::read(store, &plain(), key(n), 0)?.unwrap().len();
                seen.notes.insert(n, (len, notes::size(&txn, key(n))?, until));
            }
        }
        for id in self.ids {
            seen.ledgers.insert(id, txn.get::<crate::queue::rows::SinkRow>(&keys::sink(id))?.unwrap_or_default().ledger);
        }
        Ok((seen, places))
    }

    /// What the queue shows is what is there.
    fn shown(&self, queue: &Queue) -> Test {
        prop_assert_eq!(queue.check(), Vec::<String>::new(), "inv8");
        let (stats, world) = (queue.stats(), &self.now[0].disk);
        prop_assert_eq!(stats.ledger.gap(), 0, "inv8: the ledger");
        if self.sick {
            return Ok(());
        }
        prop_assert_eq!((stats.episodes, stats.bytes), (world.waiting(), world.bytes()), "inv9: what counts for the limits");
        prop_assert_eq!(queue.is_full(), world.is_full(&self.config), "inv9");
        for (sink, id) in stats.sinks.iter().zip(self.ids) {
            prop_assert_eq!(sink.ledger, world.ledgers[&id], "inv8: the ledger of {}", sink.name);
            prop_assert_eq!(sink.delivered_kept, world.standing(id, Some(State::Delivered)).count() as u64);
            let oldest = world.standing(id, None).min_by_key(|n| self.places[n]);
            prop_assert_eq!(sink.oldest_pending, oldest.map(|n| world.episodes[&n].captured_at), "the oldest is {:?}", oldest);
            let claimed = self.now[0].claimed.keys().filter(|at| at.0 == id).count();
            prop_assert_eq!(sink.in_flight, claimed as u64, "inv6: what is in flight");
        }
        if let Some((n, episode)) = world.episodes.iter().nth(usize::try_from(self.next).unwrap() % world.episodes.len().max(1)) {
            let view = queue.episode(id_of(*n)).unwrap().unwrap();
            for (standing, (sink, stand)) in view.sinks.iter().zip(&episode.at) {
                let flies = stand.ended.is_none() && self.now[0].claimed.get(&(*sink, episode.session)) == Some(n);
                let expected = if flies { State::InFlight } else { stand.ended.map_or(State::Pending, |(state, _)| state) };
                prop_assert_eq!((standing.state, standing.attempts), (expected, stand.attempts));
            }
        }
        Ok(())
    }

    /// Delivers whatever is there, lets everything expire: nothing was lost, and nothing stays behind.
    fn end(&mut self) -> Test {
        self.setup.kinds = u16::MAX;
        self.step(&Step::Mend)?;
        let mut rounds = 0;
        while self.queue().stats().ledger.pending > 0 || rounds == 0 {
            rounds += 1;
            prop_assert!(rounds < 100, "inv6: what is pending can't be claimed");
            self.step(&Step::Tick(DAY / 4))?;
            for sink in [false, true] {
                self.step(&Step::Do(vec![Act::Claim { sink, max: 9, in_doubt: false, heard: true }]))?;
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
        prop_assert_eq!(tables, BTreeSet::from(*b"mns"), "inv9: something stays behind");
        prop_assert_eq!(self.queue().stats().bytes, 0);
        Ok(())
    }
}

fn text(len: usize) -> Vec<u8> {
    vec![b'n'; len]
}

fn note(n: u8, len: usize, now: u64) -> Writing {
    Writing::new(Note { key: key(n), value: text(len), until: now + KEPT }, &plain()).unwrap()
}

fn plain() -> Seals {
    Seals::new(&[])
}

impl Asked {
    /// None: there is no answer to this.
    fn answer(self, run: &Run, made: &mut Vec<(Claim, u8, N)>) -> Option<Result<Answer, AppendError>> {
        Some(match self {
            Self::Append(answer) => match now(answer) {
                Err(AppendError::Full) => Ok(Answer::Full),
                answer => answer.map(|first| Answer::Appended(first.into_iter().map(|id| id.map(n_of)).collect())),
            },
            Self::Note(answer) => match now(answer) {
                Err(AppendError::Full) => Ok(Answer::Full),
                answer => answer.map(|()| Answer::Done),
            },
            Self::Claims(answer) => now(answer).map(|Claims { claims, .. }| {
                let told = claims.into_iter().map(|claim| {
                    let (n, session) = run.disk.aside(|| run.whose(claim));
                    made.push((claim, session, n));
                    (claim.sink, n, claim.attempts, claim.sent, claim.exhausted)
                });
                Answer::Claims(told.collect())
            }),
            Self::Begun(answer) => now(answer).map(Answer::Begun),
            Self::Count(answer) => now(answer).map(Answer::Count),
            Self::Deleted(answer) => now(answer).map(Answer::Deleted),
            Self::Nothing => return None,
        })
    }
}

impl Run {
    fn whose(&self, claim: Claim) -> (N, u8) {
        let n = n_of(self.queue().read(claim.seq).unwrap().unwrap().id);
        (n, u8::try_from(self.lanes.iter().position(|l| *l == claim.lane).unwrap()).unwrap())
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
        let latest = self.latest.entry((claim.sink, session)).or_default();
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

/// The shortest schedules that once went wrong.
mod once {
    use super::*;

    fn went_wrong(steps: &[Step]) {
        let setup = Setup { interval: false, few: false, small: false, rewritten: None, kinds: u16::MAX };
        take(&setup, steps).unwrap();
    }

    fn arrival(session: u8, unique: Option<u8>) -> Act {
        Act::Append(vec![Arrival { session, both: false, long: false, place: None, moved: 0, unique, note: None }])
    }

    fn append(session: u8) -> Step {
        Step::Do(vec![arrival(session, None)])
    }

    fn claim(max: usize) -> Act {
        Act::Claim { sink: false, max, in_doubt: false, heard: true }
    }

    fn fault(after: u8, reads: bool) -> Fault {
        Fault { after, reads, effect: false, wedge: false, lasting: false, keep: 0 }
    }

    fn restart(power: Option<u8>, clock: i64) -> Step {
        Step::Restart { power, clock }
    }

    #[test]
    fn inv6_a_lane_from_before_the_clock_was_set_back_does_not_wait_for_one_that_is_retried() {
        let retry = Act::Finish(0, Finish::Retry { delay: 50_000, sent: Sent::No });
        let late = restart(None, -2 * 86_400_000);
        went_wrong(&[append(0), late, append(1), Step::Do(vec![claim(9)]), Step::Do(vec![retry]), Step::Do(vec![claim(9)])]);
    }

    #[test]
    fn inv3_a_handle_that_hangs_while_the_writer_tidies_up_is_given_up() {
        let keyed = Step::Do(vec![arrival(0, Some(0))]);
        went_wrong(&[Step::Fault(Fault { wedge: true, ..fault(2, false) }), keyed, Step::Tick(5_000)]);
    }

    #[test]
    fn inv8_what_a_failed_commit_left_in_memory_is_never_written() {
        let noted = Arrival { session: 0, both: true, long: false, place: None, moved: 0, unique: None, note: Some((0, 0)) };
        let bad = Step::Fault(Fault { lasting: true, ..fault(5, true) });
        went_wrong(&[Step::Do(vec![Act::Append(vec![noted])]), bad, Step::Tick(5_000), Step::Mend, append(0)]);
    }

    #[test]
    fn inv2_nothing_is_left_out_in_favour_of_an_episode_that_is_not_on_stable_storage() {
        let keyed = || Step::Do(vec![arrival(0, Some(0))]);
        let nothing = Step::Do(vec![Act::Claim { sink: true, max: 1, in_doubt: false, heard: true }]);
        went_wrong(&[Step::Fault(fault(1, false)), keyed(), nothing, keyed(), restart(Some(0), 1)]);
    }

    #[test]
    fn inv6_a_claim_that_can_not_be_read_to_its_end_claims_nothing() {
        went_wrong(&[append(0), append(1), Step::Fault(fault(3, true)), Step::Do(vec![claim(2)]), Step::Do(vec![claim(2)])]);
    }

    #[test]
    fn inv5_what_was_released_in_a_batch_that_failed_is_released() {
        let hold = Step::Hold { sessions: 1, place: 0, length: 20_000 };
        let release = Step::Do(vec![claim(1), Act::Release(0)]);
        went_wrong(&[Step::Reserve, append(0), hold, Step::Fault(fault(0, true)), release, Step::Do(vec![claim(1)])]);
    }
}
