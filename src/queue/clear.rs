//! Clearing a sink that nobody configures any more: what waits there and its dead letters go for good.

use super::engine::{Engine, SWEEP};
use super::shared::Op;
use super::txn::{Txn, TxnError};
use super::{AppendError, Queue, Seq, SinkId, keys};

impl Engine {
    /// Removes some of what waits at a sink and of its dead letters, but for what is in flight; how many; 0 if nothing is left.
    pub fn clear(&mut self, txn: &mut Txn<'_>, sink: SinkId, now: u64) -> Result<u64, TxnError> {
        let (mut waiting, mut dead) = (Vec::new(), Vec::<Seq>::new());
        let claimed = &self.sink(sink).claimed;
        let prefix = keys::waitings_of(sink);
        txn.scan(prefix.clone()..keys::end_of(&prefix), &mut |key, _| {
            let at = keys::lane_of_waiting(key).zip(keys::seq_of_waiting(key));
            waiting.extend(at.map(|((_, lane), seq)| (lane, seq)).filter(|(lane, seq)| !claimed.has(*lane, *seq)));
            waiting.len() < SWEEP
        })?;
        let prefix = keys::deads(sink);
        txn.scan(prefix.clone()..keys::end_of(&prefix), &mut |key, _| {
            dead.extend(keys::seq_of_dead(key));
            dead.len() < SWEEP
        })?;
        let mut count = 0;
        for (lane, seq) in waiting {
            count += u64::from(self.give_up(txn, sink, lane, seq, now)?);
            self.drop_unkept(txn, seq)?;
        }
        for seq in dead {
            count += u64::from(self.purge(txn, sink, seq, now)?);
        }
        Ok(count)
    }
}

/// What operators do.
impl Queue {
    /// Removes for good what waits at a sink and its dead letters, but for what is in flight, and ends its replay; how many there were.
    pub async fn clear(&self, sink: SinkId) -> Result<u64, AppendError> {
        self.cancel_replay(sink).await?;
        let mut count = 0;
        loop {
            match self.ask(|reply| Op::Clear(sink, reply))?.await? {
                0 => return Ok(count),
                some => count += some,
            }
        }
    }
}
