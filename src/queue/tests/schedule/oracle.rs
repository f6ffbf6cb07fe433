//! What must be true of a queue: its operations on plain data.

use super::*;
use crate::queue::heads::ready;
use crate::queue::notes::UNIQUE;
use crate::queue::replay::Slice;
use crate::queue::{Course, Replay};

/// An episode, by its id.
pub type N = u64;

/// A lane: a sink and a session.
pub type At = (SinkId, u8);

/// Bytes that one lane more takes in a record.
const ADDRESS: u64 = 17;

/// The oldest that an episode may be at its first attempt.
pub const MAX_AGE: u64 = 20 * DAY;

/// All that is on the disk.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct World {
    pub episodes: BTreeMap<N, Ep>,
    /// Who has a key, and until when.
    pub uniques: BTreeMap<u8, (N, u64)>,
    /// Length, bytes with all rows, and until when.
    pub notes: BTreeMap<u8, (usize, u64, u64)>,
    pub ledgers: BTreeMap<SinkId, Ledger>,
    /// Those under way.
    pub replays: BTreeMap<SinkId, Replay>,
    /// Above every place that was ever used.
    pub next: Seq,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ep {
    pub session: u8,
    pub captured_at: u64,
    /// Bytes with all rows.
    pub size: u64,
    pub at: BTreeMap<SinkId, Stand>,
}

/// How it stands at a sink.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stand {
    pub attempts: u32,
    pub not_before: u64,
    pub since: u64,
    pub sent: Sent,
    pub lines: u32,
    pub priority: u8,
    pub deaths: Deaths,
    /// Its lane waits as long as it is dead.
    pub parks: bool,
    /// How it has ended, and when that is forgotten; 0: nothing keeps it.
    pub ended: Option<(State, u64)>,
    /// When it has ended; 0: it has not.
    pub at: u64,
}

/// What is true now.
#[derive(Debug, Clone, Default)]
pub struct Oracle {
    pub disk: World,
    pub claimed: BTreeSet<(At, N)>,
    /// Until when, and which sessions.
    pub holds: BTreeMap<Seq, (u64, BTreeSet<u8>)>,
    pub settings: BTreeMap<SinkId, SinkSettings>,
}

/// What all operations depend on.
pub struct Given<'a> {
    pub now: u64,
    pub limits: &'a config::Queue,
    pub lanes: &'a [Lane; 3],
    pub places: &'a BTreeMap<N, Seq>,
}

/// What the queue was asked to do.
#[derive(Debug, Clone)]
pub enum Did {
    Append(Vec<Came>),
    Note(u8, (usize, u64, u64)),
    Release(Seq),
    Claim { sink: SinkId, max: usize, ahead: usize, batch: usize, in_doubt: bool, heard: bool },
    Begin(At, N),
    Accepted(At, N),
    Finish(At, N, Finish),
    Redrive(SinkId, N),
    Purge(SinkId, N),
    Delete(N),
    Replay { sink: SinkId, session: Option<u8>, since: u64 },
    Go(SinkId, Slice),
    Cancel(SinkId),
    Clear(SinkId),
    Configure(SinkId, SinkSettings),
}

#[derive(Debug, Clone)]
pub struct Came {
    pub n: N,
    pub session: u8,
    pub sinks: Vec<SinkId>,
    pub captured_at: u64,
    pub size: u64,
    pub unique: Option<(u8, u64)>,
    pub note: Option<(u8, (usize, u64, u64))>,
    pub priority: u8,
}

/// What it answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// For each that was left out, in whose favour.
    Appended(Vec<Option<N>>),
    Full,
    /// Attempts, what is known of an earlier one, and why there must be no further one.
    Claims(Vec<(SinkId, N, u32, Sent, Option<&'static str>)>),
    Begun(Option<u32>),
    Count(u64),
    Deleted(Deleted),
    Replay(Option<Replay>),
    Done,
}

impl Given<'_> {
    /// Those whose place is not known yet came last.
    fn place(&self, n: N) -> Seq {
        self.places.get(&n).copied().unwrap_or(u64::MAX / 2 + n)
    }
}

impl World {
    pub fn bytes(&self) -> u64 {
        let episodes: u64 = self.episodes.values().map(|e| e.size).sum();
        episodes + UNIQUE * self.uniques.len() as u64 + self.notes.values().map(|(_, size, _)| size).sum::<u64>()
    }

    pub fn waiting(&self) -> u64 {
        self.episodes.values().filter(|e| e.at.values().any(|s| s.ended.is_none())).count() as u64
    }

    /// Episodes that stand so at a sink.
    pub fn standing(&self, sink: SinkId, state: Option<State>) -> impl Iterator<Item = N> {
        let stands = move |e: &Ep| {
            e.at.get(&sink).is_some_and(|s| {
                s.ended.filter(|(_, at)| *at != 0).map(|(s, _)| s) == state && (state.is_some() || s.ended.is_none())
            })
        };
        self.episodes.iter().filter(move |(_, e)| stands(e)).map(|(n, _)| *n)
    }

    /// Nothing more can be taken, receipts aside.
    pub fn is_full(&self, limits: &config::Queue) -> bool {
        let receipts = self.ledgers.keys().any(|s| self.standing(*s, Some(State::Delivered)).next().is_some());
        self.waiting() >= limits.max_episodes || (self.bytes() >= limits.max_bytes && !receipts)
    }

    fn stand(&mut self, n: N, sink: SinkId) -> Option<&mut Stand> {
        self.episodes.get_mut(&n)?.at.get_mut(&sink)
    }

    /// The head of each lane: inv5.
    fn heads(&self, given: &Given<'_>) -> BTreeMap<At, N> {
        let mut heads: BTreeMap<At, N> = BTreeMap::new();
        for (n, episode) in &self.episodes {
            for sink in episode.at.iter().filter(|(_, stand)| stand.ended.is_none()).map(|(sink, _)| *sink) {
                let head = heads.entry((sink, episode.session)).or_insert(*n);
                *head = std::cmp::min_by_key(*head, *n, |n| given.place(*n));
            }
        }
        heads
    }

    /// Whether a lane waits for a dead letter.
    pub fn is_parked(&self, (sink, session): At) -> bool {
        self.episodes.values().any(|e| e.session == session && e.at.get(&sink).is_some_and(|s| s.parks))
    }

    /// inv6: who becomes the head of a lane because others have ended is due as if it had come now. inv5: the head of a parked lane never is.
    fn take_turns(&mut self, before: &BTreeMap<At, N>, given: &Given<'_>) {
        for (at, n) in self.heads(given) {
            let next = before.get(&at).is_some_and(|before| given.place(*before) < given.place(n));
            let parked = self.is_parked(at);
            let stand = self.stand(n, at.0).unwrap();
            stand.not_before = match stand.not_before {
                _ if parked => u64::MAX,
                u64::MAX => ready(given.now, stand.priority),
                own if next => own.max(ready(given.now, stand.priority)),
                own => own,
            };
        }
    }

    fn ledger(&mut self, sink: SinkId) -> &mut Ledger {
        self.ledgers.entry(sink).or_default()
    }

    /// Nothing keeps an ended one any more.
    fn lapse(&mut self, n: N, sink: SinkId, purged: bool) {
        let Some(Stand { ended: Some((state, kept)), parks, .. }) = self.stand(n, sink) else { return };
        *kept = 0;
        *parks = false;
        if *state == State::Dead {
            *state = if purged { State::Purged } else { State::Expired };
            let ledger = self.ledger(sink);
            ledger.dead -= 1;
            *(if purged { &mut ledger.purged } else { &mut ledger.expired }) += 1;
        }
        if self.episodes[&n].at.values().all(|s| s.ended.is_some_and(|(_, kept)| kept == 0)) {
            self.episodes.remove(&n);
        }
    }

    /// What has ended, the first to be forgotten first.
    fn kept(&self, given: &Given<'_>) -> Vec<(u64, Seq, SinkId, N)> {
        let all = self.episodes.iter().flat_map(|(n, e)| e.at.iter().map(move |(sink, s)| (*n, *sink, s.ended)));
        let mut kept: Vec<_> =
            all.filter_map(|(n, sink, ended)| ended.filter(|e| e.1 != 0).map(|e| (e.1, given.place(n), sink, n))).collect();
        kept.sort_unstable();
        kept
    }

    /// Forgets what has to be forgotten.
    pub fn tidy(&mut self, given: &Given<'_>) {
        let heads = self.heads(given);
        for (at, _, sink, n) in self.kept(given) {
            if at <= given.now {
                self.lapse(n, sink, false);
            }
        }
        self.uniques.retain(|_, (_, until)| *until > given.now);
        self.notes.retain(|_, (_, _, until)| *until > given.now);
        self.take_turns(&heads, given);
    }

    /// Receipts go for so many bytes, if need be; whether there is room then.
    fn make_room(&mut self, size: u64, given: &Given<'_>) -> bool {
        for (_, _, sink, n) in self.kept(given) {
            if self.bytes() + size > given.limits.max_bytes
                && self.stand(n, sink).is_some_and(|s| s.ended.unwrap().0 == State::Delivered)
            {
                self.lapse(n, sink, false);
            }
        }
        self.bytes() + size <= given.limits.max_bytes
    }

    fn append(&mut self, came: &[Came], settings: &BTreeMap<SinkId, SinkSettings>, given: &Given<'_>) -> Answer {
        let mut keys: BTreeMap<u8, N> =
            self.uniques.iter().filter(|(_, (_, t))| *t > given.now).map(|(k, (n, _))| (*k, *n)).collect();
        let first = |c: &Came| {
            c.unique.and_then(|(key, _)| {
                let n = *keys.entry(key).or_insert(c.n);
                (n != c.n).then_some(n)
            })
        };
        let first: Vec<_> = came.iter().map(first).collect();
        let taken: Vec<_> = came.iter().zip(&first).filter(|(_, f)| f.is_none()).map(|(c, _)| c).collect();
        let size = |c: &&Came| c.size + c.unique.map_or(0, |_| UNIQUE) + c.note.map_or(0, |(_, (_, size, _))| size);
        let room = taken.is_empty() || self.make_room(taken.iter().map(size).sum(), given);
        if !taken.is_empty() && (!room || self.waiting() + taken.len() as u64 > given.limits.max_episodes) {
            return Answer::Full;
        }
        for c in taken {
            let stand = |sink: &SinkId| Stand {
                attempts: 0,
                not_before: ready(given.now + settings[sink].linger, c.priority),
                since: c.captured_at,
                sent: Sent::No,
                lines: 0,
                priority: c.priority,
                deaths: Deaths::default(),
                parks: false,
                ended: None,
                at: 0,
            };
            let at = c.sinks.iter().map(|s| (*s, stand(s))).collect();
            self.episodes.insert(c.n, Ep { session: c.session, captured_at: c.captured_at, size: c.size, at });
            self.uniques.extend(c.unique.map(|(key, until)| (key, (c.n, until))));
            self.notes.extend(c.note);
            for sink in &c.sinks {
                self.ledger(*sink).captured += 1;
                self.ledger(*sink).pending += 1;
            }
            self.take_turns(&BTreeMap::new(), given);
        }
        Answer::Appended(first)
    }

    fn finish(&mut self, n: N, sink: SinkId, finish: Finish, park: bool, given: &Given<'_>) {
        let Some(stand) = self.stand(n, sink).filter(|s| s.ended.is_none()) else { return };
        stand.lines += 1;
        let end = match finish {
            Finish::Delivered { .. } => (State::Delivered, given.limits.keep_delivered),
            Finish::Dead { .. } => (State::Dead, given.limits.keep_dead),
            Finish::Retry { delay, sent } => {
                (stand.not_before, stand.sent) = (given.now + delay, sent);
                return;
            }
            Finish::Hold { sent } => return stand.sent = sent,
            Finish::Uncount => {
                (stand.attempts, stand.sent) = (stand.attempts.saturating_sub(1), Sent::No);
                return;
            }
        };
        stand.ended = Some((end.0, given.now + crate::clock::as_ms(end.1)));
        stand.at = given.now;
        if end.0 == State::Dead {
            (stand.deaths, stand.parks) = (stand.deaths.and(given.now), park);
        }
        let ledger = self.ledger(sink);
        ledger.pending -= 1;
        *(if end.0 == State::Dead { &mut ledger.dead } else { &mut ledger.delivered }) += 1;
    }

    fn redrive(&mut self, n: N, sink: SinkId, given: &Given<'_>) -> Answer {
        let dead = |s: &&mut Stand| s.ended.is_some_and(|(state, _)| state == State::Dead);
        let Some(stand) = self.stand(n, sink).filter(dead) else { return Answer::Count(0) };
        let (not_before, lines) = (ready(given.now, stand.priority), stand.lines + 1);
        *stand = Stand { attempts: 0, not_before, since: given.now, lines, parks: false, ended: None, at: 0, ..*stand };
        self.ledger(sink).dead -= 1;
        self.ledger(sink).pending += 1;
        Answer::Count(1)
    }

    fn delete(&mut self, n: N, given: &Given<'_>) {
        for sink in self.episodes[&n].at.keys().copied().collect::<Vec<_>>() {
            self.give_up(n, sink, given);
            self.lapse(n, sink, true);
        }
    }

    fn give_up(&mut self, n: N, sink: SinkId, given: &Given<'_>) {
        if let Some(stand) = self.stand(n, sink).filter(|s| s.ended.is_none()) {
            (stand.ended, stand.at) = (Some((State::Purged, 0)), given.now);
            self.ledger(sink).pending -= 1;
            self.ledger(sink).purged += 1;
        }
    }

    /// What a replay brings of what it wants.
    pub fn may_be_replayed(&self, n: N, sink: SinkId, began: u64) -> bool {
        let Some(episode) = self.episodes.get(&n) else { return false };
        let there = |s: &Stand| s.ended.is_some_and(|(state, _)| state == State::Delivered) && s.at <= began;
        episode.at.get(&sink).is_none_or(there)
    }

    /// inv4, inv8: at its place, and counted.
    fn bring(&mut self, n: N, sink: SinkId, began: u64, given: &Given<'_>) -> bool {
        if !self.may_be_replayed(n, sink, began) {
            return false;
        }
        let episode = self.episodes.get_mut(&n).unwrap();
        let was = episode.at.get(&sink).copied();
        let lines = was.map_or(0, |s| s.lines) + 1;
        let (priority, deaths) = was.map_or((0, Deaths::default()), |s| (s.priority, s.deaths));
        let stand = Stand {
            attempts: 0,
            not_before: ready(given.now, priority),
            since: given.now,
            sent: Sent::No,
            lines,
            priority,
            deaths,
            parks: false,
            ended: None,
            at: 0,
        };
        episode.at.insert(sink, stand);
        episode.size += if was.is_none() { ADDRESS } else { 0 };
        let ledger = self.ledger(sink);
        ledger.pending += 1;
        if was.is_none() {
            ledger.captured += 1;
        } else {
            ledger.delivered -= 1;
        }
        true
    }

    fn replay(&mut self, did: &Did, given: &Given<'_>) -> Option<Replay> {
        let (sink, replay) = match did {
            Did::Replay { sink, session, since } => {
                if self.replays.contains_key(sink) {
                    return None;
                }
                let until = self.next;
                let first = self.episodes.keys().map(|n| given.place(*n)).min().unwrap_or(until);
                let (session, since, began) = (session.map(|s| s.to_string()), *since, given.now);
                (sink, Replay { session, since, began, first, until, next: first, count: 0, skipped: 0, course: Course::Running })
            }
            Did::Go(sink, slice) => {
                let mut replay = self.replays.get(sink).filter(|r| (r.began, r.next) == (slice.began, slice.from))?.clone();
                for item in &slice.items {
                    // A place that was lost with the power may be another's now: only what is there counts.
                    let there = self.episodes.keys().copied().find(|n| given.place(*n) == item.seq);
                    replay.count += u64::from(there.is_some_and(|n| self.bring(n, *sink, replay.began, given)));
                }
                (replay.next, replay.skipped) = (slice.next, replay.skipped + slice.skipped);
                (sink, replay)
            }
            Did::Cancel(sink) => (sink, Replay { course: Course::Cancelled, ..self.replays.get(sink)?.clone() }),
            _ => unreachable!(),
        };
        self.replays.remove(sink);
        if replay.course == Course::Cancelled {
            return Some(replay);
        }
        if replay.next >= replay.until {
            return Some(Replay { course: Course::Done, ..replay });
        }
        self.replays.insert(*sink, replay.clone());
        Some(replay)
    }
}

impl Oracle {
    /// What waits in a lane, in its order: inv5.
    fn lane(&self, (sink, session): At, given: &Given<'_>) -> Vec<N> {
        let mut lane: Vec<N> = self.disk.standing(sink, None).filter(|n| self.disk.episodes[n].session == session).collect();
        lane.sort_by_key(|n| given.place(*n));
        lane
    }

    /// Whether something before it still goes on.
    fn is_held(&self, session: u8, n: N, given: &Given<'_>) -> bool {
        self.holds.iter().any(|(place, (until, who))| *place < given.place(n) && *until > given.now && who.contains(&session))
    }

    pub fn is_claimed(&self, at: At) -> bool {
        self.claimed.iter().any(|(other, _)| *other == at)
    }

    /// What may be claimed at a sink, the first to be claimed first.
    pub fn due(&self, sink: SinkId, given: &Given<'_>) -> Vec<(u64, Lane, u8, N)> {
        let may = |session: u8| {
            let n = *self.lane((sink, session), given).first()?;
            let at = self.disk.episodes[&n].at[&sink].not_before;
            let held = self.is_held(session, n, given);
            // inv6: a time beyond every delay comes from a clock that was set back since.
            let due = at <= given.now || at - given.now > DAY && at != u64::MAX;
            (due && !held && !self.is_claimed((sink, session))).then_some((at, given.lanes[usize::from(session)], session, n))
        };
        let mut due: Vec<_> = (0..3).filter_map(may).collect();
        due.sort_unstable();
        due
    }

    fn claim(&mut self, sink: SinkId, [max, ahead, batch]: [usize; 3], in_doubt: bool, given: &Given<'_>) -> Answer {
        let mut claims = Vec::new();
        let in_doubt = |o: &Self, n: N| !in_doubt || o.disk.episodes[&n].at[&sink].sent != Sent::No;
        let due: Vec<_> = self.due(sink, given).into_iter().filter(|(.., n)| in_doubt(self, *n)).collect();
        // In advance only what has an attempt left after that, and nothing behind what hasn't.
        let has_another = |o: &Self, n: N| {
            let stand = o.disk.episodes[&n].at[&sink];
            stand.sent == Sent::No && stand.attempts + 1 < 3 && given.now.saturating_sub(stand.since) < MAX_AGE
        };
        let more = due.iter().skip(max).take(ahead).take_while(|(.., n)| has_another(self, *n)).count();
        for (.., session, head) in due.into_iter().take(max + more) {
            // What was never tried goes with what was never tried, and nothing goes before what it waits for.
            let fresh = |n: &N| {
                let stand = self.disk.episodes[n].at[&sink];
                stand.attempts == 0 && stand.sent == Sent::No && given.now.saturating_sub(stand.since) < MAX_AGE
            };
            let may = |n: &N| fresh(n) && !self.is_held(session, *n, given);
            let mut together: Vec<N> = self.lane((sink, session), given).into_iter().take_while(may).take(batch).collect();
            if together.is_empty() {
                together.push(head);
            }
            for n in together {
                claims.push(self.claim_one((sink, session), n, given));
            }
        }
        Answer::Claims(claims)
    }

    fn claim_one(&mut self, at: At, n: N, given: &Given<'_>) -> (SinkId, N, u32, Sent, Option<&'static str>) {
        self.claimed.insert((at, n));
        let stand = self.disk.stand(n, at.0).expect("it waits there");
        let sent = stand.sent;
        let exhausted = if stand.attempts >= 3 {
            Some("max_attempts")
        } else {
            (given.now.saturating_sub(stand.since) >= MAX_AGE).then_some("max_age")
        };
        if sent == Sent::No && exhausted.is_none() {
            // inv6: counted before it is made.
            (stand.attempts, stand.sent) = (stand.attempts + 1, Sent::Began(given.now));
        }
        (at.0, n, stand.attempts, sent, exhausted)
    }

    /// One operation.
    pub fn act(&mut self, did: &Did, given: &Given<'_>) -> Answer {
        let heads = self.disk.heads(given);
        let answer = self.does(did, given);
        self.disk.take_turns(&heads, given);
        answer
    }

    fn does(&mut self, did: &Did, given: &Given<'_>) -> Answer {
        match *did {
            Did::Append(ref came) => return self.disk.append(came, &self.settings, given),
            Did::Note(key, note) => {
                if !self.disk.make_room(note.1, given) {
                    return Answer::Full;
                }
                self.disk.notes.insert(key, note);
            }
            Did::Release(place) => drop(self.holds.remove(&place)),
            Did::Claim { sink, max, ahead, batch, in_doubt, .. } => {
                return self.claim(sink, [max, ahead, batch], in_doubt, given);
            }
            Did::Begin((sink, _), n) => {
                let stand = self.disk.stand(n, sink).filter(|s| s.ended.is_none());
                return Answer::Begun(stand.map(|stand| {
                    (stand.attempts, stand.sent) = (stand.attempts + 1, Sent::Began(given.now));
                    stand.attempts
                }));
            }
            Did::Accepted((sink, _), n) => {
                if let Some(stand) = self.disk.stand(n, sink).filter(|s| s.ended.is_none()) {
                    stand.sent = Sent::Accepted(given.now);
                }
            }
            Did::Finish(at, n, finish) => {
                self.claimed.remove(&(at, n));
                self.disk.finish(n, at.0, finish, self.settings[&at.0].park, given);
            }
            Did::Redrive(sink, n) => return self.disk.redrive(n, sink, given),
            Did::Purge(sink, n) => {
                let dead = self.disk.stand(n, sink).is_some_and(|s| s.ended.is_some_and(|(state, _)| state == State::Dead));
                if dead {
                    self.disk.lapse(n, sink, true);
                }
                return Answer::Count(u64::from(dead));
            }
            Did::Replay { .. } | Did::Go(..) | Did::Cancel(_) => return Answer::Replay(self.disk.replay(did, given)),
            Did::Clear(sink) => {
                let dead: Vec<N> = self.disk.standing(sink, Some(State::Dead)).collect();
                let mut all: Vec<N> = self.disk.standing(sink, None).collect();
                all.retain(|n| self.claimed.iter().all(|(at, c)| at.0 != sink || c != n));
                // One after the other: the next of a lane has its turn before it goes too.
                all.sort_by_key(|n| given.place(*n));
                for n in &all {
                    let heads = self.disk.heads(given);
                    self.disk.give_up(*n, sink, given);
                    self.disk.lapse(*n, sink, true);
                    self.disk.take_turns(&heads, given);
                }
                for n in &dead {
                    self.disk.lapse(*n, sink, true);
                }
                return Answer::Count((all.len() + dead.len()) as u64);
            }
            Did::Configure(sink, settings) => {
                self.settings.insert(sink, settings);
                let parks = self.disk.episodes.values_mut().filter_map(|e| e.at.get_mut(&sink)).map(|s| &mut s.parks);
                let freed = parks.map(|parks| !settings.park && std::mem::take(parks)).filter(|freed| *freed).count();
                return Answer::Count(freed as u64);
            }
            Did::Delete(n) => {
                return Answer::Deleted(if !self.disk.episodes.contains_key(&n) {
                    Deleted::Unknown
                } else if self.claimed.iter().any(|(_, c)| *c == n) {
                    Deleted::InFlight
                } else {
                    self.disk.delete(n, given);
                    Deleted::Gone
                });
            }
        }
        Answer::Done
    }

    /// A batch: the answers, and what is true afterwards.
    pub fn batch(&self, dids: &[Did], given: &Given<'_>) -> (Self, Vec<Answer>) {
        let mut after = self.clone();
        let mut unheard = Vec::new();
        let mut answers = Vec::new();
        for did in dids {
            let answer = after.act(did, given);
            if let (Did::Claim { heard: false, .. }, Answer::Claims(claims)) = (did, &answer) {
                unheard.extend(claims.iter().map(|c| (c.0, c.1)));
            }
            answers.push(answer);
        }
        after.claimed.retain(|(at, n)| !unheard.contains(&(at.0, *n)));
        (after, answers)
    }

    /// A batch whose commit has failed: nothing is claimed by it, and what it would have finished or released is free.
    pub fn failed(&self, dids: &[Did]) -> Self {
        let mut after = self.clone();
        for did in dids {
            match did {
                Did::Finish(at, n, _) => drop(after.claimed.remove(&(*at, *n))),
                Did::Release(place) => drop(after.holds.remove(place)),
                _ => {}
            }
        }
        after
    }
}
