//! How the queue is asked, and what it answers.

use super::*;

/// What was asked, until it is answered.
pub enum Asked {
    Append(Answering<Appended>),
    Note(Answering<()>),
    Claims(Answering<Claims>),
    Begun(Answering<Option<u32>>),
    Count(Answering<u64>),
    Deleted(Answering<Deleted>),
    Replay(Answering<Option<crate::queue::Replay>>),
    /// Nobody will be told.
    Nothing,
}

type Answering<T> = crate::queue::shared::Answer<T>;

impl Run {
    /// What exactly is asked.
    pub(super) fn choose(&mut self, act: &Act) -> Option<Did> {
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
            Act::Claim { sink, max, ahead, batch, in_doubt, heard } => {
                Did::Claim { sink: self.ids[usize::from(sink)], max, ahead, batch, in_doubt, heard }
            }
            Act::Begin(index) => claim(self, index).map(|(at, n)| Did::Begin(at, n))?,
            Act::Accepted(index) => claim(self, index).map(|(at, n)| Did::Accepted(at, n))?,
            Act::Finish(index, finish) => claim(self, index).map(|(at, n)| Did::Finish(at, n, finish))?,
            Act::Redrive(index) => dead(self, index).map(|(sink, n)| Did::Redrive(sink, n))?,
            Act::Purge(index) => dead(self, index).map(|(sink, n)| Did::Purge(sink, n))?,
            Act::Delete(index) => {
                let known: Vec<N> = self.now[0].disk.episodes.keys().copied().chain([0]).collect();
                Did::Delete(pick(&known, index)?)
            }
            Act::Replay { sink, session, since } => {
                Did::Replay { sink: self.ids[usize::from(sink)], session, since: START + since }
            }
            Act::Go(sink, most) => self.slice(self.ids[usize::from(sink)], most).map(|(sink, slice)| Did::Go(sink, slice))?,
            Act::Cancel(sink) => Did::Cancel(self.ids[usize::from(sink)]),
            Act::Clear(sink) => Did::Clear(self.ids[usize::from(sink)]),
            Act::Configure { sink, settings } => Did::Configure(self.ids[usize::from(sink)], settings),
        })
    }

    /// What the replay at a sink reads next: everything that it should bring, and nothing else.
    fn slice(&self, sink: SinkId, most: usize) -> Option<(SinkId, Slice)> {
        let world = &self.now[0].disk;
        let replay = world.replays.get(&sink)?;
        let shared = &self.queue().inner.shared;
        let lane_of = |episode: &Episode| can_send(n_of(episode.id)).then(|| Lane::of(&episode.session));
        let slice = self.disk.aside(|| replay::slice(shared, sink, replay, &lane_of, most)).ok()?;
        if self.sick || self.now.len() > 1 {
            return slice.items.iter().all(|item| self.places.values().any(|place| *place == item.seq)).then_some((sink, slice));
        }
        let wanted = |n: &N| {
            let episode = &world.episodes[n];
            (slice.from..slice.next).contains(&self.places[n])
                && replay.session.as_ref().is_none_or(|s| *s == episode.session.to_string())
                && episode.captured_at >= replay.since
                && world.may_be_replayed(*n, sink, replay.began)
        };
        let (mut able, unable): (Vec<N>, Vec<N>) =
            world.episodes.keys().filter(|n| wanted(n)).partition(|n| can_send(**n) || world.episodes[n].at.contains_key(&sink));
        able.sort_unstable_by_key(|n| self.places[n]);
        let read: Vec<Seq> = slice.items.iter().map(|item| item.seq).collect();
        assert_eq!(read, able.iter().map(|n| self.places[n]).collect::<Vec<_>>(), "inv5: what a replay brings, in its order");
        assert_eq!(slice.skipped, unable.len() as u64);
        Some((sink, slice))
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
            priority: if self.setup.has(PRIORITIES) { arrival.priority } else { 0 },
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
    pub(super) fn ask(&mut self, act: &Act, did: &Did) -> Result<Asked, AppendError> {
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
                        priority: came.priority,
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
            Did::Claim { sink, max, ahead, batch, in_doubt, heard } => {
                let request =
                    ClaimRequest { ahead: *ahead, batch: *batch, in_doubt: *in_doubt, max_age: MAX_AGE, ..request(*max) };
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
            Did::Configure(sink, settings) => ask!(Count, |reply| Op::Configure(*sink, *settings, reply)),
            Did::Delete(n) => ask!(Deleted, |reply| Op::Delete(id_of(*n), reply)),
            Did::Replay { sink, session, since } => {
                let ask = Ask::Begin { session: session.map(|s| s.to_string()), since: *since };
                ask!(Replay, |reply| Op::Replay(*sink, ask, reply))
            }
            Did::Go(sink, slice) => ask!(Replay, |reply| Op::Replay(*sink, Ask::Go(slice.clone()), reply)),
            Did::Cancel(sink) => ask!(Replay, |reply| Op::Replay(*sink, Ask::Cancel, reply)),
            Did::Clear(sink) => ask!(Count, |reply| Op::Clear(*sink, reply)),
        })
    }

    fn whose(&self, claim: Claim) -> (N, u8) {
        let n = n_of(self.queue().read(claim.seq).unwrap().unwrap().id);
        (n, u8::try_from(self.lanes.iter().position(|l| *l == claim.lane).unwrap()).unwrap())
    }
}

impl Asked {
    /// None: there is no answer to this.
    pub(super) fn answer(self, run: &Run, made: &mut Vec<(Claim, u8, N)>) -> Option<Result<Answer, AppendError>> {
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
            Self::Replay(answer) => now(answer).map(Answer::Replay),
            Self::Nothing => return None,
        })
    }
}

/// Whether a sink could send an episode that it was never given.
fn can_send(n: N) -> bool {
    !n.is_multiple_of(5)
}

fn text(len: usize) -> Vec<u8> {
    vec![b'n'; len]
}

fn note(n: u8, len: usize, now: u64) -> Writing {
    Writing::new(Note { key: key(n), value: text(len), until: now + KEPT }, &plain()).unwrap()
}

pub fn plain() -> Seals {
    Seals::new(&[])
}
