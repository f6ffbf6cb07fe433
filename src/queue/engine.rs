//! What happens to an episode in the queue: each transition is one function over a [`Txn`], and all its rows, the ledger among them,
//! are in one batch. No clock, no disk and no thread of its own: the writer calls it, and so do the tests.
//!
//! Three rules hold between any two transitions, and [`check`](super::check) counts on them:
//! - a lane with work has exactly one row in `r`, and its time is the not-before of the lane's first row in `l`, see [`heads`](super::heads);
//! - that time is [`PARKED`] if the lane is in `g`, and only then;
//! - an episode stands at each of its sinks in `l` (waiting) or in `t` (ended), never in both.
//!
//! Claims are in memory only. After a crash a lane is simply ready again, with its attempts counted and [`Sent`] telling what is in doubt.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::append::Places;
use super::batch::{self, Claimed};
use super::codec::CodecError;
use super::heads::Heads;
use super::holds::Holds;
use super::keys;
use super::oldest::Oldest;
use super::park::PARKED;
use super::replay::Replay;
use super::rows::{Deaths, Ended, Meta, Record, Sent, SinkRow, Time, Waiting};
use super::seal::Seals;
use super::store::{Store, Writes};
use super::txn::{FOREIGN, Txn, TxnError};
use super::{Attempt, Claim, ClaimRequest, Claims, Finish, Lane, Seq, SinkId, SinkSettings, State, codec, times};
use crate::clock::as_ms;
use crate::config;

/// The reason of a pause whose reason can't be read.
pub const PAUSED_UNREADABLY: &str = "paused; the reason can't be read";

/// History kept per episode and sink: the first line and the newest ones.
const HISTORY: u32 = 32;

/// Receipts that make room for one append at most, and rows that expire in one go.
pub(super) const SWEEP: usize = 256;

/// How much the queue may hold.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub max_episodes: u64,
    pub max_bytes: u64,
    pub keep_delivered: u64,
    pub keep_dead: u64,
    /// Of the disk, not of the queue: see `space`.
    pub min_free: u64,
}

impl Limits {
    /// As configured.
    pub fn of(config: &config::Queue) -> Self {
        Self {
            max_episodes: config.max_episodes,
            max_bytes: config.max_bytes,
            keep_delivered: as_ms(config.keep_delivered),
            keep_dead: as_ms(config.keep_dead),
            min_free: config.min_free_disk,
        }
    }

    /// For who only reads.
    pub fn none() -> Self {
        Self { max_episodes: 0, max_bytes: 0, keep_delivered: 0, keep_dead: 0, min_free: 0 }
    }
}

/// The state that transitions work on; everything in it but `claimed` is also on disk, or follows from what is.
pub struct Engine {
    pub store: Arc<Store>,
    /// Shared with everyone who encodes or reads.
    pub seals: Arc<Seals>,
    pub limits: Limits,
    /// Shared with everyone who reserves one.
    pub places: Arc<Places>,
    pub meta: Meta,
    pub sinks: BTreeMap<SinkId, SinkState>,
    /// Sinks with lanes that go on, until somebody tells them.
    pub freed: BTreeSet<SinkId>,
}

/// A sink in memory.
pub struct SinkState {
    pub name: String,
    pub row: SinkRow,
    /// Why it is paused, if it is: what the row has, opened.
    pub paused: Option<String>,
    pub claimed: Claimed,
    pub oldest: Oldest,
    pub heads: Heads,
    /// The one under way, or the latest that this process has seen the end of.
    pub replay: Option<Replay>,
    pub settings: SinkSettings,
    /// How many of its lanes are in `g`.
    pub parked: u64,
}

impl Engine {
    /// Writes the rows that are kept in memory, and ends the transaction.
    pub fn close(&self, mut txn: Txn<'_>) -> Result<Writes, TxnError> {
        if txn.len() > 0 {
            txn.put(keys::meta(), &self.meta)?;
            for (id, sink) in &self.sinks {
                txn.put(keys::sink(*id), &sink.row)?;
            }
        }
        Ok(txn.into_writes())
    }

    pub(super) fn sink(&mut self, id: SinkId) -> &mut SinkState {
        self.sinks.entry(id).or_insert_with(|| SinkState::new(format!("#{}", id.0), SinkRow::default()))
    }

    /// Whether nothing more can be taken, receipts aside.
    pub fn is_full(&self) -> bool {
        self.meta.episodes >= self.limits.max_episodes
            || (self.meta.bytes >= self.limits.max_bytes && self.sinks.values().all(|s| s.row.delivered_kept == 0))
    }

    /// Claims the heads of lanes that are due and not held, each with those that may [go together](super::batch) with it, and counts the
    /// attempts that will follow.
    pub fn claim(
        &mut self,
        txn: &mut Txn<'_>,
        id: SinkId,
        request: ClaimRequest,
        holds: &Holds,
        now: u64,
    ) -> Result<Claims, TxnError> {
        let claimed = &self.sink(id).claimed;
        let (mut candidates, mut free, mut next_due) = (Vec::new(), 0, None);
        // Looking for what is in doubt may pass over lanes that aren't, but not over all of a long backlog.
        let most = if request.in_doubt { request.max.saturating_mul(16) } else { request.max };
        // A time further ahead than any delay can be comes from a clock that was set back since: it is due, whatever waits before it.
        let ahead = now.saturating_add(request.longest_delay);
        for from in [keys::readies(id), keys::ready(id, ahead.saturating_add(1), Lane([0; 16]))] {
            let mut waits = None;
            txn.scan(from..keys::ready(id, PARKED, Lane([0; 16])), &mut |key, _| {
                let Some((due, lane)) = keys::due_and_lane(key) else { return true };
                if due > now && due <= ahead {
                    waits = Some(due);
                    return false;
                }
                if !claimed.has_lane(lane) {
                    candidates.push((due, lane));
                    // Lanes that are held must not take the turn of those behind them. There are no more of them than exchanges under way.
                    free += usize::from(!holds.is_held(id, lane));
                }
                free < most
            })?;
            next_due = next_due.or(waits);
            if waits.is_none() {
                break;
            }
        }
        let mut claims: Vec<Claim> = Vec::new();
        let mut lanes = 0;
        for (due, lane) in candidates {
            if lanes == request.max {
                break;
            }
            let Some((key, row)) = txn.first(&keys::lane(id, lane))? else {
                txn.remove(keys::ready(id, due, lane));
                continue;
            };
            if claims.iter().any(|c| c.lane == lane) {
                continue; // damage left it a second row in `r`
            }
            let Some(seq) = keys::seq_of_waiting(&key) else { continue };
            if let Some(until) = holds.blocks(id, lane, seq, now) {
                next_due = Some(next_due.map_or(until, |due| due.min(until)));
                continue;
            }
            let mut waiting = read_waiting(&row, due, now);
            if request.in_doubt && waiting.sent == Sent::No {
                continue;
            }
            let exhausted = if matches!(codec::decode::<Waiting>(&row), Err(CodecError::Version { .. })) {
                waiting.sent = Sent::No; // not for us: neither looked up nor sent
                Some(FOREIGN[0])
            } else if waiting.attempts >= request.max_attempts {
                Some("max_attempts")
            } else if now.saturating_sub(waiting.since) >= request.max_age {
                Some("max_age")
            } else {
                None
            };
            lanes += 1;
            let sent = waiting.sent;
            if sent == Sent::No && exhausted.is_none() {
                let fresh = batch::is_fresh(&waiting);
                let head = batch::count_first(txn, id, lane, seq, waiting, now)?;
                claims.push(head);
                if fresh {
                    claims.extend(Self::claim_behind(txn, &head, request, holds, now)?);
                }
                continue;
            }
            if sent != Sent::No {
                // The sink may have seen it, with a time that no clock tells of: version 1 kept none of a lane that had work.
                let given = times::give(txn, id, lane, waiting.time.seen())?;
                if let Time::Event(_) = waiting.time {
                    waiting.time = given.seen(); // in doubt and never given one: salvaged
                    txn.put(key, &waiting)?;
                }
            }
            let Waiting { attempts, time, entries, .. } = waiting;
            claims.push(Claim { sink: id, lane, seq, attempts, at: time.ms(), sent, lines: entries, exhausted });
        }
        // All of them or, where a read failed, none: nobody would ever end a claim that he wasn't told of.
        let claimed = &mut self.sink(id).claimed;
        for claim in &claims {
            claimed.add(claim);
        }
        Ok(Claims { claims, next_due })
    }

    /// Counts one more attempt of a claimed episode; how many that makes. None: it is no longer there.
    pub fn begin(txn: &mut Txn<'_>, claim: &Claim, now: u64) -> Result<Option<u32>, TxnError> {
        let key = keys::waiting(claim.sink, claim.lane, claim.seq);
        let Some(mut waiting) = txn.get::<Waiting>(&key)? else { return Ok(None) };
        waiting.attempts += 1;
        waiting.sent = Sent::Began(now);
        waiting.time = waiting.time.seen(); // there was an attempt before this one
        txn.put(key, &waiting)?;
        Ok(Some(waiting.attempts))
    }

    /// Notes that the sink took a claimed episode.
    pub fn accepted(txn: &mut Txn<'_>, claim: &Claim, now: u64) -> Result<(), TxnError> {
        let key = keys::waiting(claim.sink, claim.lane, claim.seq);
        if let Some(mut waiting) = txn.get::<Waiting>(&key)? {
            waiting.sent = Sent::Accepted(now);
            txn.put(key, &waiting)?;
        }
        Ok(())
    }

    /// Ends a claim.
    pub fn finish(
        &mut self,
        txn: &mut Txn<'_>,
        claim: &Claim,
        finish: Finish,
        line: Option<&Attempt>,
        now: u64,
    ) -> Result<(), TxnError> {
        let Claim { sink, lane, seq, .. } = *claim;
        self.sink(sink).claimed.remove(claim);
        let key = keys::waiting(sink, lane, seq);
        let Some(row) = txn.get_raw(&key)? else { return Ok(()) };
        let mut waiting = read_waiting(&row, now, now);
        if let Some(line) = line {
            self.write_line(txn, seq, sink, &mut waiting, line)?;
        }
        if finish != Finish::Uncount {
            waiting.time = waiting.time.seen();
        }
        let before = self.head(txn, sink, lane)?;
        match finish {
            Finish::Delivered { confirmed_in } => {
                let row = &mut self.sink(sink).row;
                row.longest_confirm = row.longest_confirm.max(confirmed_in.unwrap_or(0));
                self.end(txn, claim, State::Delivered, None, waiting, now)?;
            }
            Finish::Dead { reason } => self.end(txn, claim, State::Dead, Some(reason), waiting, now)?,
            Finish::Retry { delay, sent } => {
                waiting.not_before = now.saturating_add(delay).min(PARKED - 1);
                waiting.sent = sent;
                txn.put(key, &waiting)?;
            }
            Finish::Hold { sent } => {
                waiting.sent = sent;
                txn.put(key, &waiting)?;
            }
            Finish::Uncount => {
                waiting.attempts = waiting.attempts.saturating_sub(1);
                waiting.sent = Sent::No;
                txn.put(key, &waiting)?;
            }
        }
        self.lane_changed(txn, sink, lane, before, now)
    }

    /// Adds a line to the history.
    pub(super) fn write_line(
        &self,
        txn: &mut Txn<'_>,
        seq: Seq,
        sink: SinkId,
        waiting: &mut Waiting,
        line: &Attempt,
    ) -> Result<(), TxnError> {
        let key = keys::history(seq, sink, waiting.entries);
        let line = self.seals.encode(line, &key)?;
        txn.put_raw(key, line);
        if waiting.entries >= HISTORY {
            txn.remove(keys::history(seq, sink, waiting.entries - HISTORY + 1));
        }
        waiting.entries += 1;
        Ok(())
    }

    /// From waiting to ended, delivered or dead.
    fn end(
        &mut self,
        txn: &mut Txn<'_>,
        claim: &Claim,
        state: State,
        reason: Option<&'static str>,
        mut was: Waiting,
        now: u64,
    ) -> Result<(), TxnError> {
        let Claim { sink, lane, seq, .. } = *claim;
        txn.remove(keys::waiting(sink, lane, seq));
        let keep = match (state, reason) {
            // What another offramp can read is kept for that one.
            (State::Dead, Some(reason)) if FOREIGN.contains(&reason) => u64::MAX,
            (State::Dead, _) => self.limits.keep_dead,
            _ => self.limits.keep_delivered,
        };
        let expires_at = now.saturating_add(keep).max(1);
        self.left(txn, seq, sink, was.sinks)?;
        if state == State::Dead {
            was.deaths = was.deaths.and(now);
        }
        let ended = Ended { state, at: now, expires_at, reason: reason.map(str::to_owned), lane, was };
        txn.put(keys::ended(seq, sink), &ended)?;
        txn.put_raw(keys::expiry(expires_at, seq, sink), Vec::new());
        let row = &mut self.sink(sink).row;
        row.ledger.pending -= 1;
        if state == State::Dead {
            row.ledger.dead += 1;
            txn.put_raw(keys::dead(sink, seq), Vec::new());
            if self.sink(sink).settings.park {
                self.park(txn, sink, lane, seq)?;
            }
        } else {
            row.ledger.delivered += 1;
            row.delivered_kept += 1;
        }
        Ok(())
    }

    /// Counts an episode out once no sink waits for it any more.
    pub(super) fn left(&mut self, txn: &Txn<'_>, seq: Seq, sink: SinkId, sinks: u16) -> Result<(), TxnError> {
        if sinks == 1 || !waits_elsewhere(txn, seq, sink)? {
            self.meta.episodes -= 1;
        }
        Ok(())
    }

    /// Pauses a sink or lifts the pause.
    pub fn pause(&mut self, txn: &mut Txn<'_>, sink: SinkId, reason: Option<String>) -> Result<(), TxnError> {
        let sealed = reason.as_ref().map(|reason| self.seals.encode(reason, &keys::sink(sink))).transpose()?;
        let state = self.sink(sink);
        state.row.paused = sealed.map(serde_bytes::ByteBuf::from);
        state.paused = reason;
        txn.put(keys::sink(sink), &state.row)
    }
}

impl SinkState {
    pub fn new(name: String, row: SinkRow) -> Self {
        let oldest = Oldest::from(row.oldest);
        Self {
            name,
            row,
            paused: None,
            claimed: Claimed::default(),
            oldest,
            heads: Heads::default(),
            settings: SinkSettings::default(),
            parked: 0,
            replay: None,
        }
    }

    /// Reads why it is paused. One whose reason can't be read stays paused.
    pub fn open_reason(&mut self, seals: &Seals, id: SinkId) {
        self.paused = self.row.paused.as_ref().map(|sealed| {
            seals.decode(sealed, &keys::sink(id)).unwrap_or_else(|error| {
                tracing::error!(sink = self.name, %error, "why the sink is paused can't be read");
                PAUSED_UNREADABLY.to_owned()
            })
        });
    }

    /// An episode now waits at this place.
    pub fn put(&mut self, seq: Seq) {
        self.oldest.put(seq);
        self.row.oldest = self.oldest.mark();
    }
}

/// A waiting row; one that can't be read is taken for an attempt in doubt, so that its episode is looked up and not lost.
fn read_waiting(row: &[u8], due: u64, now: u64) -> Waiting {
    codec::decode(row).unwrap_or_else(|error| {
        tracing::error!(%error, "a row of a lane can't be read; its episode will be looked up before it is sent");
        Waiting {
            attempts: 1,
            not_before: due,
            since: now,
            time: Time::Sent(now),
            sent: Sent::Began(now),
            entries: 0,
            sinks: u16::MAX,
            priority: 0,
            deaths: Deaths::default(),
        }
    })
}

/// A record and its length, put together from its pieces.
pub fn read_record(txn: &Txn<'_>, seq: Seq) -> Result<Option<(Record, usize)>, TxnError> {
    let prefix = keys::episode(seq);
    let mut last = Vec::new();
    loop {
        let mut bytes = Vec::new();
        txn.scan(prefix.clone()..keys::end_of(&prefix), &mut |_, piece| {
            bytes.extend_from_slice(piece);
            true
        })?;
        if bytes.is_empty() {
            return Ok(None);
        }
        match codec::decode(&bytes) {
            Ok(record) => return Ok(Some((record, bytes.len()))),
            // A replay may have written it anew between two of its pieces: another look tells.
            Err(_) if bytes != last => last = bytes,
            Err(error) => return Err(error.into()),
        }
    }
}

/// [`read_record`] where a record that can't be read must not stop what goes on around it.
pub(super) fn readable_record(txn: &Txn<'_>, seq: Seq) -> Result<Option<(Record, usize)>, TxnError> {
    match read_record(txn, seq) {
        Err(TxnError::Codec(error)) => {
            tracing::error!(seq, %error, "a record can't be read; it is kept as it is");
            Ok(None)
        }
        other => other,
    }
}

pub(super) fn waits_elsewhere(txn: &Txn<'_>, seq: Seq, sink: SinkId) -> Result<bool, TxnError> {
    for (other, lane) in readable_record(txn, seq)?.map(|(r, _)| r.lanes).unwrap_or_default() {
        if other != sink && txn.get_raw(&keys::waiting(other, lane, seq))?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}
