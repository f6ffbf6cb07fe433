//! What capture needs of the queue.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use crate::queue::{AppendError, Appended, Key, Lane, New, Note, Queue, Seq, SinkId};

/// Resolves once episodes are on stable storage. Dropping it does not take them back.
pub type Commit = Pin<Box<dyn Future<Output = Result<Appended, AppendError>> + Send>>;

/// Resolves when a response's last byte may leave: committed, or known to have failed. Dropping it takes nothing back.
pub type Release = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Where episodes go: the queue, as capture sees it. Its methods are the queue's.
pub trait Record: Send + Sync + 'static {
    /// [`Queue::append`]
    fn append(&self, new: &[New<'_>]) -> Result<Commit, AppendError>;
    /// [`Queue::is_full`]
    fn is_full(&self) -> bool;
    /// [`Queue::commit_wait`]
    fn commit_wait(&self) -> Duration;
    /// [`Queue::now`]
    fn now(&self) -> u64;
    /// [`Queue::reserve`]
    fn reserve(&self) -> Seq;
    /// [`Queue::hold`]
    fn hold(&self, lanes: &[(SinkId, Lane)], place: Seq, until: u64);
    /// [`Queue::release`]
    fn release(&self, place: Seq);
    /// [`Queue::note`]
    fn note(&self, key: Key) -> Option<Vec<u8>>;
    /// [`Queue::write_note`]
    fn write_note(&self, note: Note) -> Result<Commit, AppendError>;
}

impl Record for Queue {
    fn append(&self, new: &[New<'_>]) -> Result<Commit, AppendError> {
        Ok(Box::pin(Queue::append(self, new)?))
    }

    fn is_full(&self) -> bool {
        Queue::is_full(self)
    }

    fn commit_wait(&self) -> Duration {
        Queue::commit_wait(self)
    }

    fn now(&self) -> u64 {
        Queue::now(self)
    }

    fn reserve(&self) -> Seq {
        Queue::reserve(self)
    }

    fn hold(&self, lanes: &[(SinkId, Lane)], place: Seq, until: u64) {
        Queue::hold(self, lanes, place, until);
    }

    fn release(&self, place: Seq) {
        Queue::release(self, place);
    }

    fn note(&self, key: Key) -> Option<Vec<u8>> {
        Queue::note(self, key)
    }

    fn write_note(&self, note: Note) -> Result<Commit, AppendError> {
        let written = Queue::write_note(self, note)?;
        Ok(Box::pin(async move { written.await.map(|()| Vec::new()) }))
    }
}
