//! The head of a lane: the next of its episodes, and when it is due. What `r` says of the lane follows from it.
//!
//! It is the lane's first row in `l`. To look for that costs the writer as much as to write a row, and it asks at each append and at each
//! end: so it remembers the heads of the lanes that it worked on last. Every change of a lane goes through here; a commit that failed
//! makes it forget them all, as everything that is read anew from the disk then.

use std::collections::HashMap;

use super::append::not_before;
use super::engine::Engine;
use super::keys;
use super::txn::{Txn, TxnError};
use super::{Lane, Seq, SinkId};

/// Lanes that are remembered for each sink. Beyond that all are forgotten, and those that matter are soon there again.
const KNOWN: usize = 8192;

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

    /// Brings a lane's row in `r` up to date after rows of the lane were changed; `before` is what its head was.
    pub(super) fn lane_changed(
        &mut self,
        txn: &mut Txn<'_>,
        sink: SinkId,
        lane: Lane,
        before: Option<Head>,
    ) -> Result<(), TxnError> {
        self.sink(sink).heads.0.remove(&lane);
        let after = self.head(txn, sink, lane)?;
        move_ready(txn, sink, lane, before, after);
        Ok(())
    }

    /// The same where one row was added.
    pub(super) fn lane_grew(&mut self, txn: &mut Txn<'_>, sink: SinkId, lane: Lane, new: Head) -> Result<(), TxnError> {
        let before = self.head(txn, sink, lane)?;
        if before.is_none_or(|before| new.seq < before.seq) {
            self.sink(sink).heads.remember(lane, Some(new));
            move_ready(txn, sink, lane, before, Some(new));
        }
        Ok(())
    }
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
