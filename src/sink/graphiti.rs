//! Graphiti's REST service, as it was measured to be.
//!
//! `POST /messages` answers 202 and puts the message into a queue in memory, behind which one worker writes for all groups. Whatever
//! goes wrong in that worker ends it: afterwards 202 for ever and nothing stored. So a 202 is a promise ([`Receipt::Accepted`]), and
//! delivered is what `GET /episodes/{group_id}` shows. The episode's id goes into `name`, which comes back unchanged. Never sent is a `uuid`
//! (one that doesn't exist yet kills the worker), and groups are mapped to what the service accepts, because another one kills it too.
//!
//! Several episodes can be the messages of one request. The service takes them all or, where one of them is not what it expects, none.
//!
//! Exactly once in effect? The service has no idempotency. What is in doubt is looked up before it is sent again; a second copy is
//! possible only if the first was accepted and needs longer to appear than the drain waits (see the drain's `confirm`).

use std::borrow::Cow;
use std::fmt::Write;

use futures_util::future::BoxFuture;
use serde::Deserialize;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::http::Client;
use super::{BatchError, Delivery, Follow, Presence, Receipt, Sink, SinkError};
use crate::clock;
use crate::config::{self, GraphitiFormat};
use crate::episode::{Episode, Message};

/// Episodes asked for at first: within a lane the newest is the one that is looked for, unless others write to the group as well.
const NEWEST: usize = 100;

/// Episodes asked for at most: a redriven one may be older than many.
const MOST: usize = 100_000;

/// Milliseconds by which the time that an exchange gives may be moved to keep the order of its lane.
const FURTHEST: i64 = 60_000;

/// Group ids longer than this are mapped as well.
const LONGEST_GROUP: usize = 128;

/// The sink.
pub struct GraphitiSink {
    client: Client,
    url: String,
    confirm: config::Confirm,
    format: GraphitiFormat,
}

impl GraphitiSink {
    pub(super) fn new(client: Client, config: &config::Graphiti) -> Self {
        Self { client, url: config.url.clone(), confirm: config.confirm, format: config.format }
    }

    /// What the service's 202 is worth.
    fn receipt(&self) -> Receipt {
        if self.confirm.read_back { Receipt::Accepted } else { Receipt::Delivered }
    }

    /// Sends some of one group.
    async fn send(&self, deliveries: &[Delivery]) -> Result<Receipt, SinkError> {
        self.client.post(&format!("{}/messages", self.url), &body(deliveries, self.format)).await?;
        Ok(self.receipt())
    }

    /// A request has one group. A lane by session or by user may have several: then one request after the other.
    async fn send_in_turn(&self, deliveries: &[Delivery]) -> Result<Receipt, BatchError> {
        let mut taken = 0;
        for of_one_group in deliveries.chunk_by(|a, b| a.episode.group() == b.episode.group()) {
            if let Err(error) = self.send(of_one_group).await {
                return Err(BatchError { taken, receipt: self.receipt(), error });
            }
            taken += of_one_group.len();
        }
        Ok(self.receipt())
    }

    async fn find(&self, delivery: &Delivery) -> Result<Presence, SinkError> {
        if !self.confirm.read_back {
            return Ok(Presence::Unknown);
        }
        let group = group_id(delivery.episode.group());
        let id = delivery.episode.id.to_string();
        let mut ask_for = NEWEST;
        loop {
            let stored: Vec<Stored> = self.client.get(&format!("{}/episodes/{group}?last_n={ask_for}", self.url)).await?;
            if stored.iter().any(|s| s.name == id) {
                return Ok(Presence::Present);
            }
            // The answer holds the newest by time of event: ours can only be missing from it if all of them are newer.
            let newer = stored.iter().filter(|s| s.is_after(time(delivery))).count();
            if newer < ask_for || ask_for >= MOST {
                return Ok(Presence::Absent);
            }
            ask_for *= 10;
        }
    }
}

/// What is read of an episode that Graphiti has stored.
#[derive(Deserialize)]
struct Stored {
    name: String,
    #[serde(default)]
    valid_at: Option<String>,
}

impl Stored {
    fn is_after(&self, ms: i64) -> bool {
        let time = self.valid_at.as_deref().and_then(|t| t.parse::<jiff::Timestamp>().ok());
        time.is_none_or(|t| t.as_millisecond() > ms)
    }
}

/// The request: the messages of some episodes of one group.
fn body(deliveries: &[Delivery], format: GraphitiFormat) -> serde_json::Value {
    let group = deliveries.first().map(|delivery| group_id(delivery.episode.group()));
    json!({ "group_id": group, "messages": deliveries.iter().flat_map(|d| messages(d, format)).collect::<Vec<_>>() })
}

/// What the service gets of an episode.
///
/// An episode of one message is that message. A turn of several becomes one whose text names who said what, or, with the format `messages`,
/// as many, in their order, the last with the episode's id as its name: when that one is there, all are.
fn messages(delivery: &Delivery, format: GraphitiFormat) -> Vec<serde_json::Value> {
    let episode = &*delivery.episode;
    let id = episode.id.to_string();
    let at = clock::event(time(delivery));
    match (format, episode.messages.as_slice()) {
        (_, [one]) => vec![spoken(one, &id, &at, episode)],
        (GraphitiFormat::Messages, [before @ .., last]) => {
            let mut all: Vec<_> = (1..)
                .zip(before)
                .map(|(n, message)| spoken(message, &format!("{id}/{n}"), &moved(&at, n - 1), episode))
                .collect();
            all.push(spoken(last, &id, &moved(&at, before.len()), episode));
            all
        }
        _ => vec![message(&content(episode), ("user", None), &id, &at, episode)],
    }
}

/// A message as it was said.
fn spoken(said: &Message, name: &str, at: &str, episode: &Episode) -> serde_json::Value {
    let by = match said.role.as_str() {
        known @ ("user" | "assistant" | "system") => (known, said.name.as_deref()),
        // The service knows these three alone.
        other => ("user", said.name.as_deref().or(Some(other))),
    };
    message(&said.content, by, name, at, episode)
}

fn message(content: &str, (role_type, role): (&str, Option<&str>), name: &str, at: &str, episode: &Episode) -> serde_json::Value {
    json!({
        "content": content,
        "role_type": role_type,
        "role": role, // required, may be null
        "name": name,
        "timestamp": at,
        "source_description": source(episode),
    })
}

/// A time by so many microseconds later: the messages of one episode keep their order before the next one, which is a millisecond later at least.
fn moved(at: &str, by: usize) -> String {
    match at.strip_suffix('Z') {
        Some(milliseconds) if by > 0 => format!("{milliseconds}{:03}Z", by.min(999)),
        _ => at.to_owned(),
    }
}

/// The time of the event: the delivery's, which keeps the order of the lane, unless that is far from what the exchange itself says. What
/// somebody tells of long ago happened long ago, whatever the graph was told before it.
pub(super) fn time(delivery: &Delivery) -> i64 {
    let episode = &delivery.episode;
    let moved = delivery.at.saturating_sub(episode.time());
    if episode.occurred_at.is_some() && moved > FURTHEST { episode.time() } else { delivery.at }
}

/// Where it came from: what its metadata say, else the route.
pub(super) fn source(episode: &Episode) -> String {
    let metadata: serde_json::Value = serde_json::from_str(&episode.metadata).unwrap_or_default();
    match metadata["source_description"].as_str() {
        Some(source) if !source.is_empty() => source.to_owned(),
        _ => format!("offramp {}/{}", episode.proxy, episode.route),
    }
}

/// `role: text`, a line per message.
pub(super) fn content(episode: &Episode) -> String {
    let mut content = String::new();
    for (n, message) in episode.messages.iter().enumerate() {
        let line = if n > 0 { "\n" } else { "" };
        let _ = write!(content, "{line}{}: {}", message.role, message.content); // a String takes it all
    }
    content
}

/// What a group id may consist of.
fn fits(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '-'
}

/// A group id that the service accepts (`^[A-Za-z0-9_-]+$`): the group itself if it fits, else a readable one that ends in a part of the
/// group's SHA-256, so that two groups stay two.
pub fn group_id(group: &str) -> Cow<'_, str> {
    if !group.is_empty() && group.len() <= LONGEST_GROUP && group.chars().all(fits) {
        return Cow::Borrowed(group);
    }
    Cow::Owned(mapped(group))
}

/// Another group id for a group, always the same.
pub(super) fn mapped(group: &str) -> String {
    let mut id: String = group.chars().take(LONGEST_GROUP).map(|c| if fits(c) { c } else { '_' }).collect();
    id.push('-');
    for byte in &Sha256::digest(group.as_bytes())[..4] {
        let _ = write!(id, "{byte:02x}"); // a String takes it all
    }
    id
}

impl Sink for GraphitiSink {
    fn kind(&self) -> &'static str {
        "graphiti"
    }

    fn deliver<'a>(&'a self, delivery: &'a Delivery) -> BoxFuture<'a, Result<Receipt, SinkError>> {
        Box::pin(self.send(std::slice::from_ref(delivery)))
    }

    fn deliver_batch<'a>(&'a self, deliveries: &'a [Delivery]) -> BoxFuture<'a, Result<Receipt, BatchError>> {
        Box::pin(self.send_in_turn(deliveries))
    }

    fn batches(&self) -> bool {
        true
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
mod tests {
    use super::*;
    use crate::episode::{End, Message, Request};
    use std::sync::Arc;
    use uuid::Uuid;

    #[test]
    fn a_group_that_fits_is_left_alone_and_another_is_mapped_readably() {
        assert_eq!(group_id("user_42-a"), "user_42-a");
        assert_eq!(group_id("user:42"), "user_42-ea3fd43b");
        assert_ne!(group_id("user:42"), group_id("user/42"));
        assert_ne!(group_id("ä"), group_id("ö"));
        let long = "x".repeat(200);
        assert!(group_id(&long).len() < 140);
        assert_ne!(group_id(&long), group_id(&"x".repeat(201)));
        assert!(!group_id("").is_empty());
    }

    fn turn() -> Episode {
        Episode {
            id: Uuid::nil(),
            session: "g".into(),
            group: None,
            user: None,
            agent: None,
            proxy: "agent".into(),
            route: "run".into(),
            captured_at: 0,
            completed_at: 0,
            end: End::Complete,
            messages: vec![Message::new("user", "hi"), Message::new("assistant", "hello")],
            metadata: "{}".into(),
            request: Request { method: "POST".into(), path: "/".into(), status: 200, traceparent: None },
            occurred_at: None,
            sha256: crate::episode::Digests::default(),
            original: None,
        }
    }

    fn body_of(episode: Episode) -> serde_json::Value {
        body(&[Delivery { episode: Arc::new(episode), at: 1_767_225_600_000 }], GraphitiFormat::Turn)
    }

    #[test]
    fn the_request_is_the_one_that_the_design_measured() {
        assert_eq!(
            body_of(turn()),
            json!({"group_id":"g","messages":[{"content":"user: hi\nassistant: hello","role_type":"user","role":null,
                "name":"00000000-0000-0000-0000-000000000000","timestamp":"2026-01-01T00:00:00.000Z",
                "source_description":"offramp agent/run"}]})
        );
    }

    #[test]
    fn an_episode_of_one_message_is_sent_as_that_message() {
        let message = |role: &str, name: Option<&str>| {
            vec![Message { role: role.into(), name: name.map(Into::into), content: "I like tea".into() }]
        };
        let metadata = json!({"source_description": "chat", "uuid": "never sent"}).to_string();
        let episode = Episode { messages: message("assistant", Some("Ann")), metadata, captured_at: u64::MAX, ..turn() };
        assert_eq!(
            body_of(Episode { occurred_at: Some(1_700_000_000_000), ..episode }),
            json!({"group_id":"g","messages":[{"content":"I like tea","role_type":"assistant","role":"Ann",
                "name":"00000000-0000-0000-0000-000000000000","timestamp":"2023-11-14T22:13:20.000Z","source_description":"chat"}]})
        );
        let plain = body_of(Episode { messages: message("user", None), ..turn() });
        assert_eq!((&plain["messages"][0]["role"], &plain["messages"][0]["content"]), (&json!(null), &json!("I like tea")));
        let tool = body_of(Episode { messages: message("tool", None), ..turn() });
        assert_eq!((&tool["messages"][0]["role_type"], &tool["messages"][0]["role"]), (&json!("user"), &json!("tool")));
    }

    #[test]
    fn several_episodes_are_the_messages_of_one_request_and_each_message_may_be_one_of_its_own() {
        let turn = |n: u64| Delivery {
            episode: Arc::new(Episode { id: Uuid::from_u128(n.into()), ..turn() }),
            at: 1_767_225_600_000 + n.cast_signed(),
        };
        let told = |format| {
            let body = body(&[turn(1), turn(2)], format);
            assert_eq!(body["group_id"], "g");
            let told = |m: &serde_json::Value| {
                ["name", "timestamp", "role_type", "content"].map(|key| m[key].as_str().unwrap().to_owned())
            };
            body["messages"].as_array().unwrap().iter().map(told).collect::<Vec<_>>()
        };
        let [one, two] = [1, 2].map(|n| Uuid::from_u128(n).to_string());
        assert_eq!(
            told(GraphitiFormat::Turn),
            [
                [&*one, "2026-01-01T00:00:00.001Z", "user", "user: hi\nassistant: hello"],
                [&*two, "2026-01-01T00:00:00.002Z", "user", "user: hi\nassistant: hello"],
            ]
        );
        assert_eq!(
            told(GraphitiFormat::Messages),
            [
                [&*format!("{one}/1"), "2026-01-01T00:00:00.001Z", "user", "hi"],
                [&*one, "2026-01-01T00:00:00.001001Z", "assistant", "hello"],
                [&*format!("{two}/1"), "2026-01-01T00:00:00.002Z", "user", "hi"],
                [&*two, "2026-01-01T00:00:00.002001Z", "assistant", "hello"],
            ]
        );
    }

    #[test]
    fn a_time_that_was_given_is_moved_by_a_little_or_not_at_all() {
        let sent = |occurred_at, at| {
            let episode = Episode { occurred_at, captured_at: 1_000_000, ..turn() };
            time(&Delivery { episode: Arc::new(episode), at })
        };
        assert_eq!(sent(None, 2_000_000), 2_000_000, "the clock of capture went back: the lane's order counts");
        assert_eq!(sent(Some(500_000), 500_001), 500_001, "as another one in its lane: behind it");
        assert_eq!(sent(Some(5), 900_000), 5, "long ago");
        assert_eq!(sent(Some(-5_000_000), 0), -5_000_000, "and longer ago");
        assert_eq!(sent(Some(i64::MAX), 1_000_000), 1_000_000, "not in the future, where the service hides it");
    }
}
