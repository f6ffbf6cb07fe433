//! Several in one call: which episodes are claimed together with the head of their lane, and what is claimed at all.
//!
//! Only episodes that were never tried go together. What was tried in vain has its attempt in its row, and goes alone from then on, also
//! after a restart: so one that spoils a call for all is found, in the order of the lane, without a list of suspects.

use std::collections::BTreeSet;

use super::engine::Engine;
use super::holds::Holds;
use super::keys;
use super::rows::{Sent, Waiting};
use super::txn::{Txn, TxnError};
use super::{Claim, ClaimRequest, Lane, Seq, SinkId, codec, times};

/// What is claimed at a sink. A lane is, as long as one of its episodes is.
#[derive(Debug, Default)]
pub struct Claimed(BTreeSet<(Lane, Seq)>);

impl Claimed {
    pub fn add(&mut self, claim: &Claim) {
        self.0.insert((claim.lane, claim.seq));
    }

    pub fn remove(&mut self, claim: &Claim) {
        self.0.remove(&(claim.lane, claim.seq));
    }

    pub fn has(&self, lane: Lane, seq: Seq) -> bool {
        self.0.contains(&(lane, seq))
    }

    pub fn has_lane(&self, lane: Lane) -> bool {
        self.0.range((lane, 0)..=(lane, Seq::MAX)).next().is_some()
    }

    /// Episodes.
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

/// Whether no attempt was ever made, or none that anybody was to blame for.
pub fn is_fresh(waiting: &Waiting) -> bool {
    waiting.attempts == 0 && waiting.sent == Sent::No
}

impl Engine {
    /// Those right behind a head that was claimed fresh, with their attempts counted: fresh ones, neither held nor too old, up to the first
    /// that is otherwise. When they are due doesn't matter: they go when their head goes.
    pub(super) fn claim_behind(
        txn: &mut Txn<'_>,
        head: &Claim,
        request: ClaimRequest,
        holds: &Holds,
        now: u64,
    ) -> Result<Vec<Claim>, TxnError> {
        let Claim { sink, lane, seq, .. } = *head;
        let mut rows = Vec::new();
        if request.batch > 1 {
            let behind = keys::waiting(sink, lane, seq.saturating_add(1))..keys::end_of(&keys::lane(sink, lane));
            txn.scan(behind, &mut |key, row| {
                let Some(seq) = keys::seq_of_waiting(key) else { return false };
                let waiting = codec::decode::<Waiting>(row).ok().filter(is_fresh);
                let Some(waiting) = waiting.filter(|w| now.saturating_sub(w.since) < request.max_age) else { return false };
                if holds.blocks(sink, lane, seq, now).is_some() {
                    return false;
                }
                rows.push((seq, waiting));
                rows.len() + 1 < request.batch
            })?;
        }
        rows.into_iter().map(|(seq, waiting)| count_first(txn, sink, lane, seq, waiting, now)).collect()
    }
}

/// Counts the first attempt, or the next one after a failure that nobody doubts.
pub fn count_first(
    txn: &mut Txn<'_>,
    sink: SinkId,
    lane: Lane,
    seq: Seq,
    mut waiting: Waiting,
    now: u64,
) -> Result<Claim, TxnError> {
    waiting.attempts += 1;
    waiting.sent = Sent::Began(now);
    waiting.time = times::give(txn, sink, lane, waiting.time)?;
    txn.put(keys::waiting(sink, lane, seq), &waiting)?;
    let Waiting { attempts, time, entries: lines, .. } = waiting;
    Ok(Claim { sink, lane, seq, attempts, at: time.ms(), sent: Sent::No, lines, exhausted: None })
}
