//! A schedule's steps, taken at the queue and at the oracle, and what must be true after each.

use super::*;

fn id_of(seq: Seq) -> Uuid {
    Uuid::from_u128(u128::from(seq))
}

fn text(len: usize) -> Vec<u8> {
    vec![b'n'; len]
}

fn key(n: u8) -> Key {
    Key::of("schedule", [n.to_string().as_str()])
}

struct Run {
    bench: Bench,
    oracle: Oracle,
    ids: [SinkId; 2],
    time: u64,
}

impl Run {
    fn new() -> Self {
        let bench = Bench::new(config());
        let ids = [bench.queue.sink_id("a").unwrap(), bench.queue.sink_id("b").unwrap()];
        Self { bench, ids, time: START, oracle: Oracle { now: START, next: 1, ..Oracle::default() } }
    }

    fn step(&mut self, step: &Step) -> Result<(), TestCaseError> {
        let (bench, oracle) = (&mut self.bench, &mut self.oracle);
        self.time += 1;
        match *step {
            Step::Reserve => {
                prop_assert_eq!(bench.queue.reserve(), oracle.next);
                let place = oracle.place();
                oracle.reserved.push(place);
            }
            Step::Append(ref arrival) => self.append(arrival)?,
            Step::Hold { .. } | Step::Release(_) if oracle.reserved.is_empty() => {}
            Step::Hold { sessions, place } => {
                let place = oracle.reserved[place.index(oracle.reserved.len())];
                let held: BTreeSet<u8> = (0..3).filter(|s| sessions & (1 << s) != 0).collect();
                let lanes: Vec<_> = held.iter().flat_map(|s| bench.lanes(&s.to_string(), &["a", "b"])).collect();
                bench.queue.hold(&lanes, place, oracle.now + 1);
                oracle.holds.entry(place).or_default().extend(held);
            }
            Step::Release(place) => {
                let place = oracle.reserved[place.index(oracle.reserved.len())];
                bench.queue.release(place);
                oracle.holds.remove(&place);
            }
            Step::Claim { sink, max } => {
                let claims = bench.claim(if sink { "b" } else { "a" }, max);
                prop_assert!(claims.len() <= max);
                oracle.claim(claims)?;
            }
            Step::ClaimAll { sink } => self.claim_all(sink)?,
            Step::Deliver(i) => {
                if let Some((claim, session)) = oracle.take(i) {
                    self.deliver(claim, session);
                }
            }
            Step::Retry(i, delay) => {
                if let Some((claim, session)) = oracle.take(i) {
                    bench.queue.finish(claim, Finish::Retry { delay, sent: Sent::No }, None);
                    oracle.waiting.get_mut(&(claim.sink, session)).unwrap().insert(claim.seq, oracle.now + delay);
                }
            }
            Step::Uncount(i) => {
                if let Some((claim, _)) = oracle.take(i) {
                    bench.queue.finish(claim, Finish::Uncount, None);
                    oracle.uncounted.insert((claim.sink, claim.seq));
                }
            }
            Step::Dead(i) => {
                if let Some((claim, session)) = oracle.take(i) {
                    bench.queue.finish(claim, Finish::Dead { reason: "rejected" }, None);
                    oracle.waiting.get_mut(&(claim.sink, session)).unwrap().remove(&claim.seq);
                    oracle.dead.insert((claim.sink, session, claim.seq));
                }
            }
            Step::Redrive(_) | Step::Purge(_) if oracle.dead.is_empty() => {}
            Step::Redrive(i) => {
                let chosen = *oracle.dead.iter().nth(i.index(oracle.dead.len())).unwrap();
                oracle.dead.remove(&chosen);
                let (sink, session, seq) = chosen;
                prop_assert_eq!(now(bench.queue.ask(|r| Op::Redrive(vec![(sink, seq)], r)).unwrap()), Ok(1));
                oracle.waiting.entry((sink, session)).or_default().insert(seq, oracle.now);
            }
            Step::Purge(i) => {
                let chosen = *oracle.dead.iter().nth(i.index(oracle.dead.len())).unwrap();
                oracle.dead.remove(&chosen);
                prop_assert_eq!(now(bench.queue.ask(|r| Op::Purge(vec![(chosen.0, chosen.2)], r)).unwrap()), Ok(1));
                oracle.purged += 1;
            }
            Step::Delete(i) => {
                let seq = i.index(usize::try_from(oracle.next).unwrap() + 1) as u64;
                let deleted = now(bench.queue.delete(id_of(seq))).unwrap();
                if oracle.claimed.iter().any(|(c, _)| c.seq == seq) {
                    prop_assert_eq!(deleted, Deleted::InFlight);
                } else {
                    for waiting in oracle.waiting.values_mut() {
                        oracle.purged += u64::from(waiting.remove(&seq).is_some());
                    }
                    let before = oracle.dead.len();
                    oracle.dead.retain(|(_, _, s)| *s != seq);
                    oracle.purged += (before - oracle.dead.len()) as u64;
                    prop_assert!(bench.queue.episode(id_of(seq)).unwrap().is_none());
                }
            }
            Step::Note(n, len) => {
                let note = crate::queue::Note { key: key(n), value: text(len), until: oracle.now + KEPT };
                prop_assert_eq!(now(bench.queue.write_note(note).unwrap()), Ok(()));
                oracle.notes.insert(n, (len, oracle.now + KEPT));
            }
            Step::Tick(by) => self.tick(by),
            Step::Crash => {
                bench.crash(self.time);
                oracle.reopened(self.time);
            }
        }
        self.judge()
    }

    fn append(&mut self, arrival: &Arrival) -> Result<(), TestCaseError> {
        let Arrival { session, both, place, moved, unique, note } = *arrival;
        let (bench, oracle) = (&self.bench, &mut self.oracle);
        let place = place.filter(|_| !oracle.reserved.is_empty()).map(|i| oracle.reserved.remove(i.index(oracle.reserved.len())));
        let unique = unique.map(|n| (n, oracle.now + KEPT));
        let first = unique.and_then(|(n, _)| oracle.uniques.get(&n)).filter(|(_, until)| *until > oracle.now);
        let first = first.map(|(seq, _)| *seq);
        let seq = match (place, first) {
            (Some(seq), _) => seq,
            (None, None) => oracle.place(),
            (None, Some(_)) => oracle.next + 1_000_000, // left out: it never gets one
        };
        let sinks: &[&str] = if both { &["a", "b"] } else { &["a"] };
        let lanes = bench.lanes(&session.to_string(), sinks);
        let episode = Episode { captured_at: START + moved, ..crate::queue::tests::episode(&session.to_string(), seq) };
        let made = note.map(|(n, len)| crate::queue::Note { key: key(n), value: text(len), until: oracle.now + KEPT });
        let appended = bench.append_new(&New {
            place,
            unique: unique.map(|(n, until)| Unique { key: key(n), until }),
            note: made,
            ..New::of(&episode, &lanes)
        });
        prop_assert_eq!(appended, Ok(first.map(id_of)));
        if first.is_none() {
            oracle.used = oracle.used.max(seq);
            oracle.uniques.extend(unique.map(|(n, until)| (n, (seq, until))));
            oracle.notes.extend(note.map(|(n, len)| (n, (len, oracle.now + KEPT))));
            for (sink, _) in lanes {
                oracle.waiting.entry((sink, session)).or_default().insert(seq, oracle.now);
                oracle.captured += 1;
            }
            prop_assert_eq!(bench.queue.episode(id_of(seq)).unwrap().map(|v| v.seq), Some(seq));
        }
        Ok(())
    }

    /// Everything that may be claimed is claimed, whatever is held or waits beside it.
    fn claim_all(&mut self, sink: bool) -> Result<(), TestCaseError> {
        let id = self.ids[usize::from(sink)];
        let expected: BTreeSet<_> = (0..3).filter_map(|session| self.oracle.due((id, session))).collect();
        let claims = self.bench.claim(if sink { "b" } else { "a" }, expected.len().max(1));
        prop_assert_eq!(claims.iter().map(|c| c.seq).collect::<BTreeSet<_>>(), expected);
        self.oracle.claim(claims)
    }

    fn deliver(&mut self, claim: Claim, session: u8) {
        self.bench.queue.finish(claim, Finish::Delivered { confirmed_in: Some(1) }, None);
        self.oracle.waiting.get_mut(&(claim.sink, session)).unwrap().remove(&claim.seq);
        self.oracle.delivered += 1;
    }

    /// Time goes by, and the process begins anew.
    fn tick(&mut self, by: u64) {
        self.time += by;
        self.bench.reopen(self.time);
        self.bench.tidy();
        self.oracle.reopened(self.time);
        let (bench, oracle) = (&self.bench, &mut self.oracle);
        // Dead letters that are still there.
        let before = oracle.dead.len();
        oracle.dead.retain(|(sink, _, seq)| {
            bench
                .queue
                .episode(id_of(*seq))
                .unwrap()
                .is_some_and(|v| v.sinks.iter().any(|s| Some(*sink) == bench.queue.sink_id(&s.sink) && s.state == State::Dead))
        });
        oracle.expired += (before - oracle.dead.len()) as u64;
        // Nobody remembers the clock of a lane that ran empty for ever.
        let waiting = &oracle.waiting;
        oracle.latest.retain(|at, _| waiting.get(at).is_some_and(|w| !w.is_empty()));
    }

    fn judge(&self) -> Result<(), TestCaseError> {
        let (queue, oracle) = (&self.bench.queue, &self.oracle);
        prop_assert_eq!(queue.check(), Vec::<String>::new());
        let ledger = queue.stats().ledger;
        prop_assert_eq!(ledger.gap(), 0);
        prop_assert_eq!(ledger.captured, oracle.captured);
        prop_assert_eq!(ledger.delivered, oracle.delivered);
        prop_assert_eq!(ledger.purged, oracle.purged);
        prop_assert_eq!(ledger.expired, oracle.expired);
        prop_assert_eq!(ledger.dead, oracle.dead.len() as u64);
        prop_assert_eq!(ledger.pending, oracle.waiting.values().map(|s| s.len() as u64).sum::<u64>());
        for n in 0..2 {
            let expected = oracle.notes.get(&n).filter(|(_, until)| *until > oracle.now).map(|(len, _)| text(*len));
            prop_assert_eq!(queue.note(key(n)), expected);
        }
        for (sink, id) in queue.stats().sinks.iter().zip(self.ids) {
            let oldest = oracle.waiting.iter().filter(|((s, _), _)| *s == id).filter_map(|(_, w)| w.keys().min()).min();
            let captured_at = oldest.and_then(|seq| queue.episode(id_of(*seq)).unwrap()).map(|v| v.episode.captured_at);
            prop_assert_eq!(sink.oldest_pending, captured_at, "the oldest that waits is at {:?}", oldest);
        }
        Ok(())
    }

    /// Delivers whatever is there, lets everything expire: nothing was lost, and nothing stays behind.
    fn end(&mut self) -> Result<(), TestCaseError> {
        let mut rounds = 0;
        while self.bench.queue.stats().ledger.pending > 0 {
            rounds += 1;
            prop_assert!(rounds < 500, "what is pending can't be claimed");
            self.step(&Step::Tick(60_000))?;
            for sink in [false, true] {
                self.claim_all(sink)?;
                for (claim, session) in std::mem::take(&mut self.oracle.claimed) {
                    self.deliver(claim, session);
                    self.judge()?;
                }
            }
        }
        for _ in 0..3 {
            self.step(&Step::Tick(40 * DAY))?;
        }
        prop_assert_eq!(self.bench.tables(), "mns");
        prop_assert_eq!(self.bench.queue.stats().bytes, 0);
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    /// inv4, inv5, inv6, inv8, inv9: after every step of any schedule, crashes included.
    #[test]
    fn inv5_inv8_any_schedule_keeps_order_and_ledger_and_loses_nothing(steps in prop::collection::vec(step(), 1..80)) {
        let mut run = Run::new();
        for step in steps {
            run.step(&step)?;
        }
        run.end()?;
    }
}
