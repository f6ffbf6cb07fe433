//! The head of a lane: the next of its episodes, and when it is due. What `r` says of the lane follows from it.
//!
//! Lanes take turns: an episode that becomes the head because the one before it has ended is due *then*, not since it was captured. So a lane
//! with a long backlog stands in line behind each lane that became ready before its latest delivery, and starves nobody. A priority lets a
//! head count as ready so much earlier ([`ready`]): it passes those who are waiting, but nobody who has waited for longer than that. All of
//! this is in the head's not-before; a retry's delay is kept as it is.
//!
//! The head is the lane's first row in `l`. To look for that costs the writer as much as to write a row, and it asks at each append and at each
//! end: so it remembers the heads of the lanes that it worked on last. Every change of a lane goes through here; a commit that failed
//! makes it forget them all, as everything that is read anew from the disk then.

use std::collections::HashMap;

use super::append::not_before;
use super::engine::Engine;
use super::keys;
use super::notes::readable;
use super::park::PARKED;
use super::rows::Waiting;
use super::txn::{Txn, TxnError};
use super::{Lane, Seq, SinkId};

/// Lanes that are remembered for each sink. Beyond that all are forgotten, and those that matter are soon there again.
const KNOWN: usize = 8192;

/// What a step of priority is worth (ms).
const STEP: u64 = 600_000;

/// The not-before of an episode of this priority that is ready at this time (ms). Where it has one it does not linger.
pub(super) fn ready(at: u64, priority: u8) -> u64 {
    at.saturating_sub(STEP * u64::from(priority))
}

/// The first that waits in a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    pub seq: Seq,
    /// Its not-before (ms): the time of the lane's row in `r`.
    pub due: u64,
}

/// The heads of some lanes of a sink; none of a lane without work.
#[derive(Debug, Default)]
pub struct Heads(HashMap<Lane, Option<Head>>);

impl Heads {
    fn remember(&mut self, lane: Lane, head: Option<Head>) {
        if self.0.len() >= KNOWN {
            self.0.clear();
        }
        self.0.insert(lane, head);
    }
}

impl Engine {
    /// The head of a lane.
    pub(super) fn head(&mut self, txn: &Txn<'_>, sink: SinkId, lane: Lane) -> Result<Option<Head>, TxnError> {
        let heads = &mut self.sink(sink).heads;
        if let Some(known) = heads.0.get(&lane) {
            return Ok(*known);
        }
        let first = txn.first(&keys::lane(sink, lane))?;
        let head = first.and_then(|(key, row)| Some(Head { seq: keys::seq_of_waiting(&key)?, due: not_before(&row) }));
        heads.remember(lane, head);
        Ok(head)
    }

    /// Brings a lane's head and its row in `r` up to date after rows of the lane were changed, or whether it is parked; `before` is what its
    /// head was.
    pub(super) fn lane_changed(
        &mut self,
        txn: &mut Txn<'_>,
        sink: SinkId,
        lane: Lane,
        before: Option<Head>,
        now: u64,
    ) -> Result<(), TxnError> {
        self.sink(sink).heads.0.remove(&lane);
        let mut after = self.head(txn, sink, lane)?;
        if let Some(head) = &mut after {
            let parked = self.is_parked(txn, sink, lane)?;
            let its_turn = before.is_some_and(|before| before.seq < head.seq) && !parked;
            if its_turn || parked != (head.due == PARKED) {
                head.due = set_due(txn, keys::waiting(sink, lane, head.seq), parked, now)?.unwrap_or(head.due);
                self.sink(sink).heads.remember(lane, Some(*head));
            }
        }
        move_ready(txn, sink, lane, before, after);
        Ok(())
    }

    /// Adds an episode to a lane.
    pub(super) fn lane_grew(
        &mut self,
        txn: &mut Txn<'_>,
        sink: SinkId,
        lane: Lane,
        seq: Seq,
        mut waiting: Waiting,
    ) -> Result<(), TxnError> {
        let before = self.head(txn, sink, lane)?;
        if before.is_none_or(|before| seq < before.seq) {
            if self.is_parked(txn, sink, lane)? {
                waiting.not_before = PARKED;
            }
            let new = Some(Head { seq, due: waiting.not_before });
            self.sink(sink).heads.remember(lane, new);
            move_ready(txn, sink, lane, before, new);
        }
        txn.put(keys::waiting(sink, lane, seq), &waiting)
    }
}

/// Makes the head of a lane due when it is its turn, or never; when that is. None: it can't be read, and is due.
fn set_due(txn: &mut Txn<'_>, key: keys::Key, parked: bool, now: u64) -> Result<Option<u64>, TxnError> {
    let Some(mut head) = readable::<Waiting>(txn, &key)? else { return Ok(None) };
    let turn = ready(now, head.priority);
    let due = match head.not_before {
        _ if parked => PARKED,
        PARKED => turn,
        own => own.max(turn),
    };
    if head.not_before != due {
        head.not_before = due;
        txn.put(key, &head)?;
    }
    Ok(Some(due))
}

fn move_ready(txn: &mut Txn<'_>, sink: SinkId, lane: Lane, before: Option<Head>, after: Option<Head>) {
    let (before, after) = (before.map(|h| h.due), after.map(|h| h.due));
    if before != after {
        if let Some(due) = before {
            txn.remove(keys::ready(sink, due, lane));
        }
        if let Some(due) = after {
            txn.put_raw(keys::ready(sink, due, lane), Vec::new());
        }
    }
}
