//! Order within a session: episodes of one session reach a sink in the order in which their requests arrived.
//!
//! Every captured exchange takes a place in the queue when it arrives, and its episode goes to that place whenever it ends. So what
//! waits in a lane is in order of arrival already. What is left is the later exchange that ends first: its episode is durable at once,
//! and its delivery waits for the earlier one's end, at most until `response_timeout` after that one's arrival.
//!
//! Two exchanges overlap in a session if their *requests* name the same one: what only the response tells is known too late. Where a
//! request names no session, the response names one that it has just made, and nobody else can know it yet.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Record;
use crate::queue::{Lane, Seq, SinkId};

/// Locks, so that exchanges of different sessions seldom meet at one.
const SHARDS: usize = 16;

/// The exchanges under way, by the session that their requests name.
#[derive(Debug, Default)]
pub struct Order {
    shards: [Mutex<HashMap<u64, Vec<Open>>>; SHARDS],
    hasher: RandomState,
}

/// An exchange that has not ended.
#[derive(Debug)]
struct Open {
    place: Seq,
    /// How long others wait for it (queue time, ms).
    until: u64,
    /// Somebody does.
    awaited: bool,
}

/// One exchange among those of its session. It leaves when this is dropped.
pub struct Ticket {
    order: Arc<Order>,
    record: Arc<dyn Record>,
    /// Of the session. Two sessions that share it wait for each other needlessly, which is rare and harmless.
    session: u64,
    place: Seq,
}

impl Order {
    /// An exchange whose request names `session`. `until`: how long the ones behind it wait (queue time, ms).
    pub fn enter(self: &Arc<Self>, record: &Arc<dyn Record>, session: &str, place: Seq, until: u64) -> Ticket {
        let session = self.hasher.hash_one(session);
        self.shard(session).entry(session).or_default().push(Open { place, until, awaited: false });
        Ticket { order: Arc::clone(self), record: Arc::clone(record), session, place }
    }

    fn shard(&self, session: u64) -> MutexGuard<'_, HashMap<u64, Vec<Open>>> {
        let shard = usize::try_from(session % SHARDS as u64).unwrap_or_default();
        // A panic while the lock was held leaves plain data behind.
        self.shards[shard].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Exchanges under way.
    #[cfg(test)]
    pub(crate) fn open(&self) -> usize {
        self.shards.iter().map(|s| s.lock().unwrap().values().map(Vec::len).sum::<usize>()).sum()
    }
}

impl Ticket {
    /// Has these lanes wait for the exchanges of this session that arrived earlier and have not ended. Before the episode is appended:
    /// afterwards it may be on its way already.
    pub fn wait_for_earlier(&self, lanes: &[(SinkId, Lane)]) {
        // Under the lock, so that none of them can leave between the look and the hold.
        let mut shard = self.order.shard(self.session);
        for earlier in shard.get_mut(&self.session).into_iter().flatten().filter(|open| open.place < self.place) {
            earlier.awaited = true;
            self.record.hold(lanes, earlier.place, earlier.until);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut shard = self.order.shard(self.session);
        let Some(open) = shard.get_mut(&self.session) else { return };
        let awaited = open.iter().any(|o| o.place == self.place && o.awaited);
        open.retain(|o| o.place != self.place);
        if open.is_empty() {
            shard.remove(&self.session);
        }
        drop(shard);
        if awaited {
            self.record.release(self.place);
        }
    }
}
