//! Event times: in each lane they strictly increase in the order in which its episodes are sent, whatever the clocks of those who named them
//! did. See [`Time`].
//!
//! A lane's clock is the latest time given in it. It outlives the episode that was given it by as long as that one's receipt or dead letter
//! is kept; where there is none of these, or where the lane has work when they go, it is looked at again later ([`forget`](super::engine::Engine::forget)).

use super::keys::{self, Fading};
use super::notes::readable;
use super::rows::Time;
use super::txn::{Txn, TxnError};
use super::{Lane, SinkId};

/// How long (ms) a lane's clock is kept that nothing else keeps, before it is looked at again.
const KEPT: u64 = 3_600_000;

/// The time of an episode that is about to be sent, behind all that was sent in its lane before.
pub fn give(txn: &mut Txn<'_>, sink: SinkId, lane: Lane, time: Time) -> Result<Time, TxnError> {
    let clock = keys::clock(sink, lane);
    let last = readable::<u64>(txn, &clock)?.map(u64::cast_signed);
    let given = match time {
        Time::Event(t) => Time::Given(last.map_or(t, |l| t.max(l.saturating_add(1)))),
        Time::Given(t) => Time::Given(last.filter(|l| *l > t).map_or(t, |l| l.saturating_add(1))),
        Time::Sent(t) => Time::Sent(t),
    };
    if last.is_none_or(|l| l < given.ms()) {
        txn.put(clock, &given.ms().cast_unsigned())?;
    }
    Ok(given)
}

/// The receipt of the episode with this event time has expired: its lane's clock goes with it, if it shows that time and nothing waits there.
pub fn let_go(txn: &mut Txn<'_>, sink: SinkId, lane: Lane, at: i64, now: u64) -> Result<(), TxnError> {
    let clock = keys::clock(sink, lane);
    if readable::<u64>(txn, &clock)? == Some(at.cast_unsigned()) {
        if txn.first(&keys::lane(sink, lane))?.is_some() {
            return keep(txn, sink, lane, at, now);
        }
        txn.remove(clock);
    }
    Ok(())
}

/// The episode with this event time was removed before its time: there is no receipt that would keep its lane's clock.
pub fn removed(txn: &mut Txn<'_>, sink: SinkId, lane: Lane, at: i64, now: u64) -> Result<(), TxnError> {
    if readable::<u64>(txn, &keys::clock(sink, lane))? == Some(at.cast_unsigned()) {
        keep(txn, sink, lane, at, now)?;
    }
    Ok(())
}

fn keep(txn: &mut Txn<'_>, sink: SinkId, lane: Lane, at: i64, now: u64) -> Result<(), TxnError> {
    txn.put(keys::fading(now.saturating_add(KEPT), Fading::Clock(sink, lane)), &at.cast_unsigned())
}
