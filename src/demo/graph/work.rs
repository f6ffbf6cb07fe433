//! The inside of the sample graph service: a queue in memory, the writers, and what they have written.
//!
//! One lane per group (or a single one for all, in strict mode), each with at most one writer, and a semaphore of LLM slots over all.
//! A process life is a generation: what began in an earlier one finds its number outdated and leaves nothing behind.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::{Notify, Semaphore};
use uuid::Uuid;

use super::faults::Faults;
use super::wire::Message;
use super::{Mode, Options};

/// What ends the worker: an exception that nothing catches. The first three are those that DESIGN.md §3 names.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Death {
    /// A `group_id` outside `^[A-Za-z0-9_-]+$`.
    #[error("group_id {0:?} must contain only alphanumeric characters, dashes, or underscores")]
    GroupId(String),
    /// A message with a `uuid` that no node has.
    #[error("node {0} not found")]
    UnknownUuid(String),
    /// The LLM answered 429.
    #[error("rate limit of the LLM exceeded")]
    LlmRateLimit,
    /// The process ended, or another exception had ended the worker before.
    #[error("the graph service ended before the write did")]
    Ended,
}

/// A message that got a 202.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Posted {
    /// The request's `group_id`.
    pub group: String,
    /// The message.
    pub message: Message,
}

/// An episode in the graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The node's own id.
    pub uuid: String,
    /// Its group.
    pub group: String,
    /// The message's `name`.
    pub name: String,
    /// `role(role_type): content`, as the service composes it.
    pub content: String,
    /// The message's `source_description`.
    pub source_description: String,
    /// The message's `timestamp`.
    pub valid_at: Timestamp,
    /// When it was written.
    pub created_at: Timestamp,
}

impl Stored {
    fn new(group: &str, message: &Message) -> Self {
        let role = message.role.as_deref().unwrap_or("");
        Self {
            uuid: Uuid::now_v7().to_string(),
            group: group.to_owned(),
            name: message.name.clone(),
            content: format!("{role}({}): {}", message.role_type, message.content),
            source_description: message.source_description.clone(),
            valid_at: message.timestamp,
            created_at: Timestamp::now(),
        }
    }

    /// The node as `GET /episodes/{group_id}` shows it.
    pub(super) fn to_json(&self) -> Value {
        json!({
            "uuid": self.uuid,
            "name": self.name,
            "group_id": self.group,
            "labels": [],
            "created_at": iso(self.created_at),
            "source": "message",
            "source_description": self.source_description,
            "content": self.content,
            "valid_at": iso(self.valid_at),
            "entity_edges": [],
        })
    }
}

/// Microseconds, or none: Python's way.
fn iso(time: Timestamp) -> String {
    if time.subsec_microsecond() == 0 && time.subsec_millisecond() == 0 { format!("{time:.0}") } else { format!("{time:.6}") }
}

#[derive(Debug)]
pub(super) struct Work {
    mode: Mode,
    faults: Arc<Faults>,
    state: Mutex<State>,
    /// Told at every change of what a test may wait for.
    changed: Notify,
}

#[derive(Debug)]
struct State {
    write_delay: Duration,
    generation: u64,
    death: Option<Death>,
    slots: Arc<Semaphore>,
    /// A lane is here while it has a writer, and for ever once the worker is dead.
    lanes: HashMap<String, VecDeque<Posted>>,
    posted: Vec<Posted>,
    stored: Vec<Stored>,
    /// Places in `stored`.
    groups: HashMap<String, Vec<usize>>,
}

impl Work {
    pub(super) fn new(options: Options, faults: Arc<Faults>) -> Arc<Self> {
        let state = State {
            write_delay: options.write_delay,
            generation: 0,
            death: None,
            slots: slots(options.mode),
            lanes: HashMap::new(),
            posted: Vec::new(),
            stored: Vec::new(),
            groups: HashMap::new(),
        };
        Arc::new(Self { mode: options.mode, faults, state: Mutex::new(state), changed: Notify::new() })
    }

    /// A panic elsewhere leaves the state whole: no statement in here can stop halfway.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The process ends.
    pub(super) fn end(&self) {
        let mut state = self.state();
        state.generation += 1;
        state.death = Some(Death::Ended);
        state.lanes.clear();
        drop(state);
        self.changed.notify_waiters();
    }

    /// The process starts.
    pub(super) fn begin(&self) {
        let mut state = self.state();
        state.generation += 1;
        state.death = None;
        state.lanes.clear();
        // Writers of the life before may still hold the old slots.
        state.slots = slots(self.mode);
    }

    pub(super) fn set_write_delay(&self, delay: Duration) {
        self.state().write_delay = delay;
    }

    /// What `POST /messages` does: into the queue, and nothing else.
    pub(super) fn post(self: &Arc<Self>, group: &str, messages: Vec<Message>) {
        let mut state = self.state();
        for message in messages {
            let posted = Posted { group: group.to_owned(), message };
            state.posted.push(posted.clone());
            if self.faults.forgets() {
                continue;
            }
            let key = if self.mode == Mode::Strict { String::new() } else { group.to_owned() };
            let idle = !state.lanes.contains_key(&key);
            state.lanes.entry(key.clone()).or_default().push_back(posted);
            if idle && state.death.is_none() {
                tokio::spawn(Arc::clone(self).write_lane(key, state.generation));
            }
        }
        drop(state);
        self.changed.notify_waiters();
    }

    async fn write_lane(self: Arc<Self>, lane: String, generation: u64) {
        while let Some(Posted { group, message }) = self.take(&lane, generation) {
            if let Err(death) = self.write(&group, message, generation).await {
                self.die(death, generation);
                return;
            }
        }
    }

    /// The lane's next message; without one the lane goes, in the same breath, so that the next post starts a new writer.
    fn take(&self, lane: &str, generation: u64) -> Option<Posted> {
        let mut state = self.state();
        if state.generation != generation || state.death.is_some() {
            return None;
        }
        let next = state.lanes.get_mut(lane).and_then(VecDeque::pop_front);
        if next.is_none() {
            state.lanes.remove(lane);
        }
        next
    }

    fn die(&self, death: Death, generation: u64) {
        let mut state = self.state();
        if state.generation == generation && state.death.is_none() {
            state.death = Some(death);
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// An inline write: no worker in between, so its exception is the caller's and nobody dies of it.
    pub(super) async fn add_episode(&self, group: &str, message: Message) -> Result<(), Death> {
        let generation = self.state().generation;
        self.write(group, message, generation).await
    }

    /// `add_episode` of graphiti-core, in its order: the group id, the node's uuid, the LLM, the graph.
    async fn write(&self, group: &str, message: Message, generation: u64) -> Result<(), Death> {
        let slots = Arc::clone(&self.state().slots);
        let _slot = slots.acquire().await.map_err(|_| Death::Ended)?;
        if !group.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-') {
            return Err(Death::GroupId(group.to_owned()));
        }
        if let Some(uuid) = &message.uuid
            && !self.state().stored.iter().any(|stored| stored.uuid == *uuid)
        {
            return Err(Death::UnknownUuid(uuid.clone()));
        }
        if self.faults.llm_refuses() {
            return Err(Death::LlmRateLimit);
        }
        let delay = self.state().write_delay;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        let mut state = self.state();
        if state.generation != generation {
            return Err(Death::Ended);
        }
        // A known uuid is a node that is there already: it is processed again, not made again.
        if message.uuid.is_none() {
            let place = state.stored.len();
            state.stored.push(Stored::new(group, &message));
            state.groups.entry(group.to_owned()).or_default().push(place);
        }
        drop(state);
        self.changed.notify_waiters();
        Ok(())
    }

    pub(super) fn stored(&self) -> Vec<Stored> {
        self.state().stored.clone()
    }

    pub(super) fn stored_count(&self) -> usize {
        self.state().stored.len()
    }

    pub(super) fn group(&self, group: &str) -> Vec<Stored> {
        let state = self.state();
        let places = state.groups.get(group).map_or(&[][..], Vec::as_slice);
        places.iter().filter_map(|place| state.stored.get(*place)).cloned().collect()
    }

    pub(super) fn posted(&self) -> Vec<Posted> {
        self.state().posted.clone()
    }

    pub(super) fn queued(&self) -> usize {
        self.state().lanes.values().map(VecDeque::len).sum()
    }

    pub(super) fn death(&self) -> Option<Death> {
        self.state().death.clone()
    }

    pub(super) async fn wait(&self, done: impl Fn(&Self) -> bool) {
        loop {
            // Listening before looking: a change in between is not missed.
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            if done(self) {
                return;
            }
            changed.await;
        }
    }
}

fn slots(mode: Mode) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(match mode {
        Mode::Strict => 1,
        Mode::Parallel(slots) => slots.max(1),
    }))
}
