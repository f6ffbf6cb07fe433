//! Parked lanes (`on_dead = "park"`): nothing of the lane begins as long as the dead letter is there.
//!
//! A row of `g` says which dead letter a lane waits for; of several it waits for each. The head of a parked lane has the time [`PARKED`],
//! whoever becomes it, so that claims pass over the lane without a look at it, however many there are. The last of these rows goes with its
//! dead letter, put back or gone for good, or because the sink no longer parks: then the head takes its turn.

use super::engine::{Engine, SWEEP};
use super::txn::{Txn, TxnError};
use super::{Lane, Seq, SinkId, SinkSettings, keys};

/// The not-before of the head of a parked lane: no clock and no delay comes to it.
pub const PARKED: u64 = u64::MAX;

/// How many lanes of a sink are parked.
pub(super) fn count(txn: &Txn<'_>, sink: SinkId) -> Result<u64, TxnError> {
    let (mut lanes, mut last, prefix) = (0, None, keys::parks(sink));
    txn.scan(prefix.clone()..keys::end_of(&prefix), &mut |key, _| {
        let lane = keys::lane_of_waiting(key);
        lanes += u64::from(lane != last);
        last = lane;
        true
    })?;
    Ok(lanes)
}

impl Engine {
    /// Whether a lane waits for a dead letter.
    pub(super) fn is_parked(&self, txn: &Txn<'_>, sink: SinkId, lane: Lane) -> Result<bool, TxnError> {
        let any = self.sinks.get(&sink).is_some_and(|sink| sink.parked > 0);
        Ok(any && txn.first(&keys::parked(sink, lane))?.is_some())
    }

    /// Has a lane wait for a dead letter; its head is to be looked at then.
    pub(super) fn park(&mut self, txn: &mut Txn<'_>, sink: SinkId, lane: Lane, seq: Seq) -> Result<(), TxnError> {
        let parked = self.is_parked(txn, sink, lane)?;
        self.sink(sink).parked += u64::from(!parked);
        txn.put_raw(keys::park(sink, lane, seq), Vec::new());
        Ok(())
    }

    /// A lane no longer waits for this dead letter; its head is to be looked at then. Whether it did.
    pub(super) fn unpark(&mut self, txn: &mut Txn<'_>, sink: SinkId, lane: Lane, seq: Seq) -> Result<bool, TxnError> {
        let key = keys::park(sink, lane, seq);
        if self.sink(sink).parked == 0 || txn.get_raw(&key)?.is_none() {
            return Ok(false);
        }
        txn.remove(key);
        let parked = self.is_parked(txn, sink, lane)?;
        self.sink(sink).parked -= u64::from(!parked);
        self.freed.insert(sink);
        Ok(true)
    }

    /// Sets what concerns a sink. If it doesn't park, some of the lanes that it parked before go on: how many, [`SWEEP`] if there may be more.
    pub fn configure(&mut self, txn: &mut Txn<'_>, sink: SinkId, settings: SinkSettings, now: u64) -> Result<u64, TxnError> {
        self.sink(sink).settings = settings;
        if settings.park || self.sink(sink).parked == 0 {
            return Ok(0);
        }
        let (mut rows, prefix) = (Vec::new(), keys::parks(sink));
        txn.scan(prefix.clone()..keys::end_of(&prefix), &mut |key, _| {
            rows.extend(keys::lane_of_waiting(key).map(|(_, lane)| lane).zip(keys::seq_of_waiting(key)));
            rows.len() < SWEEP
        })?;
        for &(lane, seq) in &rows {
            let before = self.head(txn, sink, lane)?;
            self.unpark(txn, sink, lane, seq)?;
            self.lane_changed(txn, sink, lane, before, now)?;
        }
        Ok(rows.len() as u64)
    }
}
