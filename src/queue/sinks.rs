//! The sinks that the queue knows: each that ever was configured, since one that no longer is may still have episodes. More may come while the
//! queue is open, and none ever goes.

use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::Notify;

use super::engine::{Engine, SinkState};
use super::rows::SinkRow;
use super::shared::Op;
use super::txn::{Txn, TxnError};
use super::{AppendError, Queue, SinkId, keys};

/// Tells a sink's scheduler that there may be work.
pub struct Doorbell {
    pub id: SinkId,
    pub name: String,
    pub ring: Notify,
}

/// All of them, in the order in which they came.
#[derive(Default)]
pub struct Sinks(RwLock<Vec<Arc<Doorbell>>>);

impl Sinks {
    /// One more, which is on disk.
    pub fn add(&self, id: SinkId, name: &str) {
        let mut bells = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if bells.iter().all(|bell| bell.id != id) {
            bells.push(Arc::new(Doorbell { id, name: name.to_owned(), ring: Notify::new() }));
        }
    }

    /// The first that is so.
    pub fn find(&self, is: impl Fn(&Doorbell) -> bool) -> Option<Arc<Doorbell>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).iter().find(|bell| is(bell)).cloned()
    }

    /// As they are now.
    pub fn all(&self) -> Vec<Arc<Doorbell>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Tells the schedulers of these sinks that there may be work.
    pub fn ring(&self, sinks: impl Fn(SinkId) -> bool) {
        for bell in self.0.read().unwrap_or_else(PoisonError::into_inner).iter().filter(|bell| sinks(bell.id)) {
            bell.ring.notify_one();
        }
    }
}

impl Engine {
    /// The id of the sink of this name; a new one where there is none yet.
    pub fn name_sink(&mut self, txn: &mut Txn<'_>, name: &str) -> Result<SinkId, TxnError> {
        if let Some((id, _)) = self.sinks.iter().find(|(_, sink)| sink.name == name) {
            return Ok(*id);
        }
        let id = SinkId(self.meta.next_sink);
        self.meta.next_sink += 1;
        txn.put(keys::name(name), &id)?;
        self.sinks.insert(id, SinkState::new(name.to_owned(), SinkRow::default()));
        Ok(id)
    }
}

impl Queue {
    /// The id of a sink that is or was configured.
    pub fn sink_id(&self, name: &str) -> Option<SinkId> {
        self.inner.shared.sinks.find(|sink| sink.name == name).map(|sink| sink.id)
    }

    /// The same, and a new one for a name that was never configured: on disk when the answer comes. The disk is asked only for that.
    pub async fn add_sink(&self, name: &str) -> Result<SinkId, AppendError> {
        match self.sink_id(name) {
            Some(id) => Ok(id),
            None => self.ask(|reply| Op::Name(name.to_owned(), reply))?.await,
        }
    }
}
