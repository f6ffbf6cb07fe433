//! What is on the disk, and whether the queue shows the same.

use super::*;

impl Run {
    /// All that is on the disk.
    pub(super) fn look(&self, store: &Store) -> Result<(World, BTreeMap<N, Seq>), TxnError> {
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
                let Waiting { attempts, not_before, since, sent, entries: lines, priority, deaths, .. } = was;
                let parks = txn.get_raw(&keys::park(sink, lane, seq))?.is_some();
                let (ended, when) = (ended.as_ref().map(|e| (e.state, e.expires_at)), ended.map_or(0, |e| e.at));
                let stand = Stand { attempts, not_before, since, sent, lines, priority, deaths, parks, ended, at: when };
                at.insert(sink, stand);
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
            seen.replays.extend(replay::load(&txn, &plain(), id)?.map(|replay| (id, replay)));
            seen.ledgers.insert(id, txn.get::<crate::queue::rows::SinkRow>(&keys::sink(id))?.unwrap_or_default().ledger);
        }
        Ok((seen, places))
    }

    /// What the queue shows is what is there.
    pub(super) fn shown(&self, queue: &Queue) -> Test {
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
            let claimed = self.now[0].claimed.iter().filter(|(at, _)| at.0 == id).count();
            prop_assert_eq!(sink.in_flight, claimed as u64, "inv6: what is in flight");
            let parked = (0..).take(self.lanes.len()).filter(|session| world.is_parked((id, *session))).count();
            prop_assert_eq!(sink.parked_lanes, parked as u64);
        }
        if let Some((n, episode)) = world.episodes.iter().nth(usize::try_from(self.next).unwrap() % world.episodes.len().max(1)) {
            let view = queue.episode(id_of(*n)).unwrap().unwrap();
            for (standing, (sink, stand)) in view.sinks.iter().zip(&episode.at) {
                let flies = stand.ended.is_none() && self.now[0].claimed.contains(&((*sink, episode.session), *n));
                let expected = if flies { State::InFlight } else { stand.ended.map_or(State::Pending, |(state, _)| state) };
                prop_assert_eq!((standing.state, standing.attempts), (expected, stand.attempts));
                let parked = expected == State::Pending && world.is_parked((*sink, episode.session));
                prop_assert_eq!(standing.parked_by.is_some(), parked, "the dead letter that it waits for");
            }
        }
        Ok(())
    }
}
