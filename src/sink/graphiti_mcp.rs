//! Graphiti's MCP server, as it was measured to be: version 1.0.2 as of Graphiti v0.29.2 and later, on `mcp` 1.30 and `graphiti-core` 0.31.
//!
//! `add_memory` answers at once and puts the episode into a queue in memory, one for each group, each with a worker of its own. What goes
//! wrong with one episode (a 429 of the model is enough) is a line in the server's log: the episode is lost and the worker goes on. A
//! restart loses all that is queued. So its answer is a promise ([`Receipt::Accepted`]), and delivered is what `get_episodes` shows. The
//! episode's id goes into `name`. Never sent is a `uuid`: one that doesn't exist yet is such an error. Groups are mapped to what Graphiti
//! accepts, because another one is such an error, too; and `null` is mapped, because the server takes it for none and writes to its own.
//!
//! # What is promised, and how it is confirmed
//! At least once and in order; once, but for the window that Graphiti's REST service has as well: no idempotency, so one that is given up
//! for lost too early is there twice. The confirmation is weaker than there:
//! - `get_episodes` tells neither time nor page, and sorts by a random id: only a look at the whole group proves that something isn't
//!   there. A look costs in proportion to the group, and one whose episodes don't fit into an answer can't be read back.
//! - On `FalkorDB` each group is a graph of its own, and `get_episodes` looks into the one that `FALKORDB_DATABASE` names: it shows that
//!   group alone. A group that has shown nothing for half of `timeout`, while the server says that it is on `FalkorDB` and has not shown
//!   two others, pauses the sink before anything would be sent again. Then `confirm.mode = "accepted"` takes the promise for the delivery
//!   (and what is in doubt is sent again), or all goes to that group.
//!
//! # What a failure means, as a status where there is none: `retry_on` and `pause_on` know no others.
//!
//! | what happened | status | so, by default |
//! |---|---|---|
//! | HTTP says no | its status | as for every sink; 413: a dead letter |
//! | no session can be had, or the server lacks a tool or an argument that is needed | 404 | the sink pauses |
//! | a group can't be read back, see above | 404 | the sink pauses |
//! | an answer `{"error": …}`, an error of the tool, or of JSON-RPC | 500 | another attempt |
//! | the session is over (HTTP 404, or 400 of older servers) | | a new one, at once |
//! | the answer breaks off, or isn't one | | ambiguous: looked up before it is sent again |

mod session;

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use reqwest::Url;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::graphiti::{content, group_id, mapped, source, time};
use super::http::Client;
use super::{Cause, Delivery, Follow, Presence, Receipt, Sink, SinkError};
use crate::clock;
use crate::config;
use session::{Server, Tool};

/// Episodes asked for at first. Whoever asks for more gets them all.
const FIRST: usize = 100;

/// Episodes asked for at most.
const MOST: usize = 100_000;

/// Groups that are remembered for showing nothing, at most.
const REMEMBERED: usize = 10_000;

/// What takes an episode. Servers before Graphiti v0.29.2 have no `reference_time`: with them everything would have happened when it was delivered.
const ADD: Tool = Tool {
    name: "add_memory",
    arguments: &["name", "episode_body", "group_id", "source", "source_description", "reference_time"],
};

/// What shows episodes.
const SHOW: Tool = Tool { name: "get_episodes", arguments: &["group_ids", "max_episodes"] };

/// What says which database it is.
const STATUS: Tool = Tool { name: "get_status", arguments: &[] };

/// The sink.
pub struct GraphitiMcpSink {
    server: Server,
    confirm: config::Confirm,
    /// How long a group may show nothing before the server is asked whether it could.
    patience: Duration,
    groups: Mutex<Groups>,
}

/// What groups have shown.
#[derive(Default)]
struct Groups {
    /// Those that have shown nothing, and since when.
    nothing: HashMap<String, Instant>,
    /// One that has shown something.
    one: Option<String>,
    /// Whether there are others: the server looks where it writes.
    several: bool,
}

impl Groups {
    fn shows_something(&mut self, group: &str) {
        self.nothing.remove(group);
        self.several |= self.one.get_or_insert_with(|| group.to_owned()) != group;
    }

    /// For how long it has shown nothing.
    fn shows_nothing(&mut self, group: &str) -> Duration {
        if self.nothing.len() >= REMEMBERED {
            self.nothing.clear();
        }
        self.nothing.entry(group.to_owned()).or_insert_with(Instant::now).elapsed()
    }
}

impl GraphitiMcpSink {
    pub(super) fn new(client: Client, url: Url, confirm: config::Confirm, sink: &config::Sink) -> Self {
        let tools: &[Tool] = if confirm.read_back { &[ADD, SHOW, STATUS] } else { &[ADD] };
        // Half of what the drain waits for what is in doubt, before it has seen how long it takes.
        let patience = sink.timeout.min(confirm.timeout) / 2;
        Self { server: Server::new(client, url, tools), confirm, patience, groups: Mutex::default() }
    }

    async fn send(&self, delivery: &Delivery) -> Result<Receipt, SinkError> {
        self.server.call(ADD, arguments(delivery), true).await?;
        Ok(if self.confirm.read_back { Receipt::Accepted } else { Receipt::Delivered })
    }

    async fn find(&self, delivery: &Delivery) -> Result<Presence, SinkError> {
        if !self.confirm.read_back {
            return Ok(Presence::Unknown);
        }
        let (group, id) = (group(delivery.episode.group()), delivery.episode.id.to_string());
        let mut ask_for = FIRST;
        loop {
            let answer = self.server.call(SHOW, json!({ "group_ids": [&group], "max_episodes": ask_for }), false).await?;
            let Some(episodes) = answer["episodes"].as_array() else {
                return Err(failed(Cause::Timeout, format!("what {} answers has no episodes in it", SHOW.name)));
            };
            if episodes.is_empty() {
                self.is_no_proof(&group).await?;
                return Ok(Presence::Absent);
            }
            self.groups().shows_something(&group);
            if episodes.iter().any(|episode| episode["name"] == *id) {
                return Ok(Presence::Present);
            }
            if episodes.len() < ask_for {
                return Ok(Presence::Absent);
            }
            if ask_for >= MOST {
                let why = format!("group {group} has more than {MOST} episodes: {} can't show whether one is missing", SHOW.name);
                return Err(failed(Cause::Status(404), why));
            }
            ask_for *= 10;
        }
    }

    /// An error if a group that shows nothing may only be out of the server's sight.
    async fn is_no_proof(&self, group: &str) -> Result<(), SinkError> {
        let (since, several) = {
            let mut groups = self.groups();
            (groups.shows_nothing(group), groups.several)
        };
        if several || since < self.patience {
            return Ok(());
        }
        let status = self.server.call(STATUS, json!({}), false).await?;
        let says = status["message"].as_str().unwrap_or_default();
        if !says.to_ascii_lowercase().contains("falkordb") {
            return Ok(());
        }
        let why = format!(
            "nothing of group {group} can be read back: the server has lost it, as its log would say, or it is not in its sight: on \
             FalkorDB {} may show only the group that FALKORDB_DATABASE names. Set confirm = {{ mode = \"accepted\" }}, or send \
             everything to that group",
            SHOW.name
        );
        Err(failed(Cause::Status(404), why))
    }

    fn groups(&self) -> MutexGuard<'_, Groups> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner) // plain data, changed in single steps
    }
}

/// What `add_memory` gets of an episode.
fn arguments(delivery: &Delivery) -> Value {
    let episode = &*delivery.episode;
    json!({
        "name": episode.id.to_string(),
        "episode_body": content(episode),
        "group_id": group(episode.group()),
        "source": "message",
        "source_description": source(episode),
        "reference_time": clock::event(time(delivery)),
    })
}

/// The group's id there.
pub(super) fn group(group: &str) -> String {
    if group == "null" { mapped(group) } else { group_id(group).into_owned() }
}

/// What nothing was changed by.
fn failed(cause: Cause, message: String) -> SinkError {
    SinkError { cause, message, retry_after: None, ambiguous: false }
}

impl Sink for GraphitiMcpSink {
    fn kind(&self) -> &'static str {
        "graphiti-mcp"
    }

    fn deliver<'a>(&'a self, delivery: &'a Delivery) -> BoxFuture<'a, Result<Receipt, SinkError>> {
        Box::pin(self.send(delivery))
    }

    fn look_up<'a>(&'a self, delivery: &'a Delivery) -> BoxFuture<'a, Result<Presence, SinkError>> {
        Box::pin(self.find(delivery))
    }

    fn follow(&self) -> Option<Follow> {
        let config::Confirm { read_back, timeout, poll } = self.confirm;
        read_back.then_some(Follow { timeout, poll })
    }
}

#[cfg(test)]
mod tests;
