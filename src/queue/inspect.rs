//! What operators see of the queue: one episode, a page of them, the counters.

use uuid::Uuid;

use super::engine::{Engine, read_record, readable_record};
use super::keys;
use super::park::PARKED;
use super::rows::{Deaths, Ended, Record, Sent, Time, Waiting};
use super::shared::Shared;
use super::space::Space;
use super::txn::{Txn, TxnError};
use super::{Attempt, Filter, Lane, Ledger, Page, Select, Seq, SinkId, SinkStats, Standing, State, Stats, View};
use crate::episode::Episode;

/// Records that one call of [`page`] reads at most.
const READS: usize = 2_000;

/// Bytes of records after which a page ends.
const BYTES: usize = 4 << 20;

impl Stats {
    pub(super) fn of(engine: &Engine, space: &Space) -> Self {
        let mut total = Ledger::default();
        let sinks = engine
            .sinks
            .values()
            .map(|sink| {
                total.add(&sink.row.ledger);
                SinkStats {
                    name: sink.name.clone(),
                    ledger: sink.row.ledger,
                    in_flight: sink.claimed.len() as u64,
                    delivered_kept: sink.row.delivered_kept,
                    parked_lanes: sink.parked,
                    oldest_pending: sink.oldest.captured_at(),
                    paused: sink.paused.clone(),
                    longest_confirm_ms: sink.row.longest_confirm,
                    replay: sink.replay.clone(),
                }
            })
            .collect();
        Self {
            state: if engine.is_full() || space.is_low() { "full" } else { "ok" },
            episodes: engine.meta.episodes,
            bytes: engine.meta.bytes,
            disk_bytes: space.used(),
            ledger: total,
            sinks,
        }
    }
}

/// The place of an episode.
pub fn place(txn: &Txn<'_>, id: Uuid) -> Result<Option<Seq>, TxnError> {
    txn.get(&keys::id(id))
}

/// One episode, and the bytes of its record.
pub fn view(
    shared: &Shared,
    txn: &Txn<'_>,
    names: &dyn Fn(SinkId) -> String,
    seq: Seq,
) -> Result<Option<(View, usize)>, TxnError> {
    let Some((record, size)) = read_record(txn, seq)? else { return Ok(None) };
    let episode: Episode = shared.seals.decode(&record.episode, &keys::id(record.id))?;
    let sinks = record.lanes.iter().map(|&at| standing(shared, txn, names, &record, episode.time(), seq, at));
    Ok(Some((View { seq, sinks: sinks.collect::<Result<_, _>>()?, episode }, size)))
}

fn standing(
    shared: &Shared,
    txn: &Txn<'_>,
    names: &dyn Fn(SinkId) -> String,
    record: &Record,
    event: i64,
    seq: Seq,
    (sink, lane): (SinkId, Lane),
) -> Result<Standing, TxnError> {
    // They are from the same moment if the rows are the same before and after the rest was read.
    let mut rows = rows(txn, sink, lane, seq)?;
    let (history, in_flight) = loop {
        let in_flight = rows.0.as_ref().is_some_and(|waiting| shared.is_in_flight(sink, seq, waiting.entries));
        let history = history(shared, txn, sink, seq)?;
        let before = std::mem::replace(&mut rows, self::rows(txn, sink, lane, seq)?);
        if rows == before {
            break (history, in_flight);
        }
    };
    // Not the last line's: one that ends for its age or its attempts without a further one has nothing to say.
    let last_error = history.iter().rev().find_map(|a| a.error.clone());
    let mut at = Standing {
        sink: names(sink),
        state: State::Pending,
        attempts: 0,
        next_attempt_at: None,
        delivered_at: None,
        ended_at: None,
        reason: None,
        last_error,
        since: record.captured_at,
        time: Time::Event(event),
        sent: Sent::No,
        priority: 0,
        deaths: Deaths::default(),
        parked_by: None,
        history,
    };
    let was = |at: &mut Standing, was: &Waiting| {
        (at.attempts, at.since, at.time, at.sent) = (was.attempts, was.since, was.time, was.sent);
        (at.priority, at.deaths) = (was.priority, was.deaths);
    };
    let (waiting, ended) = rows;
    if let Some(waiting) = waiting {
        was(&mut at, &waiting);
        if in_flight {
            at.state = State::InFlight;
        } else {
            let later = waiting.not_before != PARKED && waiting.not_before > shared.clock.now_ms();
            at.next_attempt_at = (later && waiting.attempts > 0).then_some(waiting.not_before);
            at.parked_by = parked_by(txn, sink, lane)?;
        }
    } else if let Some(ended) = ended {
        was(&mut at, &ended.was);
        at.state = ended.state;
        at.reason = ended.reason;
        at.ended_at = Some(ended.at);
        at.delivered_at = (ended.state == State::Delivered).then_some(ended.at);
        if ended.state == State::Delivered {
            at.last_error = None;
        }
    }
    Ok(at)
}

/// How an episode stands at a sink: it waits, or it has ended.
fn rows(txn: &Txn<'_>, sink: SinkId, lane: Lane, seq: Seq) -> Result<(Option<Waiting>, Option<Ended>), TxnError> {
    let waiting = || txn.get::<Waiting>(&keys::waiting(sink, lane, seq));
    if let Some(waiting) = waiting()? {
        return Ok((Some(waiting), None));
    }
    match txn.get(&keys::ended(seq, sink))? {
        Some(ended) => Ok((None, Some(ended))),
        None => Ok((waiting()?, None)), // put back in between
    }
}

fn history(shared: &Shared, txn: &Txn<'_>, sink: SinkId, seq: Seq) -> Result<Vec<Attempt>, TxnError> {
    let prefix = keys::histories(seq, sink);
    let mut history = Vec::new();
    txn.scan(prefix.clone()..keys::end_of(&prefix), &mut |key, line| {
        history.extend(shared.seals.decode::<Attempt>(line, key).ok());
        true
    })?;
    Ok(history)
}

/// The dead letter that a lane is parked for.
fn parked_by(txn: &Txn<'_>, sink: SinkId, lane: Lane) -> Result<Option<Uuid>, TxnError> {
    let Some((key, _)) = txn.first(&keys::parked(sink, lane))? else { return Ok(None) };
    let record = keys::seq_of_waiting(&key).map(|seq| readable_record(txn, seq)).transpose()?.flatten();
    Ok(record.map(|(record, _)| record.id))
}

/// A page of episodes, in the order of their places.
pub fn page(shared: &Shared, names: &dyn Fn(SinkId) -> String, filter: &Filter) -> Result<Page, TxnError> {
    let txn = Txn::new(&shared.store);
    let mut page = Page::default();
    let mut after = filter.after;
    let dead = match filter.state {
        Some(State::Dead) => Some(dead_letters(shared, filter, &txn)?),
        _ => None,
    };
    let mut dead = dead.map(Vec::into_iter);
    let mut bytes = 0;
    for _ in 0..READS {
        let next = match &mut dead {
            Some(dead) => dead.next(),
            None => next_seq(&txn, after)?,
        };
        let Some(seq) = next else { return Ok(page) };
        if page.episodes.len() == filter.limit || bytes >= BYTES {
            break;
        }
        after = Some(seq);
        page.next = after;
        match view(shared, &txn, names, seq) {
            Ok(Some((view, size))) if matches(&view, filter) => {
                bytes += size;
                page.episodes.push(view);
            }
            Ok(_) => {}
            Err(TxnError::Codec(error)) => {
                tracing::error!(seq, %error, "a record can't be read");
                page.unreadable.push((seq, error.to_string()));
            }
            Err(error) => return Err(error),
        }
    }
    page.next = after;
    Ok(page)
}

/// Places of dead letters behind `filter.after`, at most [`READS`] of each sink, in order.
fn dead_letters(shared: &Shared, filter: &Filter, txn: &Txn<'_>) -> Result<Vec<Seq>, TxnError> {
    let mut seqs = Vec::new();
    for bell in shared.sinks.all().iter().filter(|s| filter.sink.as_ref().is_none_or(|n| *n == s.name)) {
        seqs.extend(dead_at(txn, bell.id, filter.after)?);
    }
    seqs.sort_unstable();
    seqs.dedup();
    Ok(seqs)
}

fn dead_at(txn: &Txn<'_>, sink: SinkId, after: Option<Seq>) -> Result<Vec<Seq>, TxnError> {
    let mut seqs = Vec::new();
    let from = keys::dead(sink, after.map_or(0, |a| a + 1));
    txn.scan(from..keys::end_of(&keys::deads(sink)), &mut |key, _| {
        seqs.extend(keys::seq_of_dead(key));
        seqs.len() < READS
    })?;
    Ok(seqs)
}

/// The place of the first record behind `after`.
pub(super) fn next_seq(txn: &Txn<'_>, after: Option<Seq>) -> Result<Option<Seq>, TxnError> {
    let mut found = None;
    txn.scan(keys::episode(after.map_or(0, |a| a + 1))..keys::end_of(&keys::episodes()), &mut |key, _| {
        found = keys::seq_of_episode(key);
        false
    })?;
    Ok(found)
}

fn matches(view: &View, filter: &Filter) -> bool {
    let session = filter.session.as_ref().is_none_or(|s| *s == view.episode.session);
    let here =
        |s: &Standing| filter.sink.as_ref().is_none_or(|n| *n == s.sink) && filter.state.is_none_or(|state| state == s.state);
    session && view.sinks.iter().any(here)
}

/// Some dead letters, and where to go on if there are more.
pub type Slice = (Vec<(SinkId, Seq)>, Option<Seq>);

/// Up to [`READS`] dead letters of one sink behind `after` that a selection names, and where to go on.
pub fn select(
    shared: &Shared,
    names: &dyn Fn(SinkId) -> String,
    sink: SinkId,
    select: &Select,
    after: Option<Seq>,
) -> Result<Slice, TxnError> {
    let txn = Txn::new(&shared.store);
    let seqs = dead_at(&txn, sink, after)?;
    let next = if seqs.len() == READS { seqs.last().copied() } else { None };
    let mut chosen = Vec::new();
    for seq in seqs {
        let reason = txn.get::<Ended>(&keys::ended(seq, sink))?.and_then(|e| e.reason);
        if select.reason.is_some() && select.reason != reason {
            continue;
        }
        if select.session.is_some() || !select.ids.is_empty() {
            let Some((view, _)) = view(shared, &txn, names, seq)? else { continue };
            let session = select.session.as_ref().is_none_or(|s| *s == view.episode.session);
            if !session || !(select.ids.is_empty() || select.ids.contains(&view.episode.id)) {
                continue;
            }
        }
        chosen.push((sink, seq));
    }
    Ok((chosen, next))
}
