//! What the sinks that speak Cypher have in common: the statement that writes episodes, what it is given, and how much goes into one call.
//!
//! # The statement
//! It is given every field of the episode as the file sink writes it (`$id`, `$session`, `$group`, `$user`, `$agent`, `$messages`, `$metadata`
//! …), and `$at` (the time of the event in ms since 1970), `$time` (the same as RFC 3339), `$content` (a line `role: text` per message)
//! and `$metadata_json`. A statement over `$episodes` is given a list of such maps in its place, and takes several in one call.
//!
//! # The default
//! `(Session)-[:HAS_EPISODE]->(Episode)-[:NEXT]->(Episode)`. Each node is merged on its id, so the same episode twice is there once: exactly
//! once in effect. `NEXT` follows the ids, which sort by capture, whatever order things arrive in: one that comes late (a dead letter
//! that was redriven) is put where it belongs. Its search is linear in the episodes of the session.

use std::sync::Arc;

use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::Delivery;
use super::graphiti::{content, time};
use crate::clock;
use crate::episode::{Digests, End, Episode, Request};

/// What is run where the configuration gives no statement.
const DEFAULT: &str = include_str!("cypher/default.cypher");

/// Finds an episode that the default statement has written.
pub const LOOK_UP: &str = "MATCH (e:Episode {id: $id}) RETURN e.id LIMIT 1";

/// Text of the messages in one call (bytes), unless a single episode has more: what is sent is a few times that, in memory as well.
const CALL: usize = 8 << 20;

/// Characters that are kept of what a server says.
const KEPT: usize = 1024;

/// What episodes are written with.
pub struct Statement {
    /// Cypher.
    pub text: String,
    /// It is the configuration's, so nothing is known of what it writes.
    pub is_own: bool,
    /// It is over `$episodes`.
    pub takes_several: bool,
}

impl Statement {
    /// That of the configuration, else the default.
    pub fn new(own: Option<&str>) -> Self {
        let text = own.unwrap_or(DEFAULT).to_owned();
        Self { is_own: own.is_some(), takes_several: names_episodes(&text), text }
    }

    /// What it is given for these episodes; for one alone, if it doesn't take several.
    pub fn parameters<'a>(&self, deliveries: impl IntoIterator<Item = &'a Delivery>) -> Map<String, Value> {
        let mut all = deliveries.into_iter().map(|delivery| fields(&delivery.episode, delivery));
        if self.takes_several {
            return Map::from_iter([("episodes".to_owned(), Value::Array(all.map(Value::Object).collect()))]);
        }
        all.next().unwrap_or_default()
    }
}

/// Whether a statement names `$episodes`, and not `$episodes_of` or so.
fn names_episodes(text: &str) -> bool {
    text.split("$episodes").skip(1).any(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_'))
}

fn fields(episode: &Episode, delivery: &Delivery) -> Map<String, Value> {
    let Value::Object(mut fields) = episode.to_json() else { return Map::new() };
    let at = time(delivery);
    fields.insert("at".to_owned(), at.into());
    fields.insert("time".to_owned(), clock::event(at).into());
    fields.insert("content".to_owned(), content(episode).into());
    fields.insert("metadata_json".to_owned(), episode.metadata.clone().into());
    fields
}

/// What [`LOOK_UP`] is given.
pub fn id(delivery: &Delivery) -> Map<String, Value> {
    Map::from_iter([("id".to_owned(), json!(delivery.episode.id))])
}

/// An episode to try a statement with that is not to be run.
pub fn sample() -> Delivery {
    let episode = Episode {
        id: Uuid::nil(),
        session: String::new(),
        group: None,
        user: None,
        agent: None,
        proxy: String::new(),
        route: String::new(),
        captured_at: 0,
        completed_at: 0,
        end: End::Complete,
        messages: Vec::new(),
        metadata: "{}".to_owned(),
        request: Request { method: String::new(), path: String::new(), status: 0, traceparent: None },
        occurred_at: None,
        sha256: Digests::default(),
        original: None,
    };
    Delivery { episode: Arc::new(episode), at: 0 }
}

/// Consecutive episodes in as few calls as their size allows.
pub fn calls(mut deliveries: &[Delivery]) -> impl Iterator<Item = &[Delivery]> {
    std::iter::from_fn(move || {
        let mut size = 0;
        let fit = deliveries.iter().take_while(|delivery| {
            size += delivery.episode.messages.iter().map(|message| message.content.len()).sum::<usize>();
            size <= CALL
        });
        let (call, rest) = deliveries.split_at(fit.count().max(1).min(deliveries.len()));
        deliveries = rest;
        (!call.is_empty()).then_some(call)
    })
}

/// What a server says, for the history: it may repeat all that it was sent.
pub fn brief(text: &str) -> String {
    match text.char_indices().nth(KEPT) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::tests::episode as sample_episode;

    fn delivery(n: u64, length: usize) -> Delivery {
        let mut episode = sample_episode("s", n);
        episode.messages[0].content = "x".repeat(length);
        Delivery { episode: Arc::new(episode), at: -5 }
    }

    #[test]
    fn a_statement_over_episodes_takes_several_and_any_other_takes_one() {
        let two = [delivery(1, 1), delivery(2, 1)];
        let several = Statement::new(None);
        assert!(several.takes_several && !several.is_own);
        let given = several.parameters(&two);
        assert_eq!(given["episodes"][1]["id"], json!(two[1].episode.id));
        assert_eq!(given["episodes"][1]["at"], -5);

        let one = Statement::new(Some("MERGE (e:Episode {id: $id}) SET e.of = $episodes_of"));
        assert!(!one.takes_several && one.is_own);
        let given = one.parameters(&two[..1]);
        assert_eq!((&given["id"], &given["session"]), (&json!(two[0].episode.id), &json!("s")));
        for field in ["group", "user", "agent", "time", "content", "metadata", "metadata_json", "messages", "captured_at", "end"]
        {
            assert!(given.contains_key(field), "{field}");
        }
    }

    #[test]
    fn calls_are_bounded_by_what_is_in_them() {
        let lengths = [CALL / 2, CALL / 2, 1, CALL * 2, 1, 1];
        let deliveries: Vec<_> = lengths.iter().zip(1..).map(|(length, n)| delivery(n, *length)).collect();
        // The sample's other messages have a length too.
        let sizes: Vec<_> = calls(&deliveries).map(<[Delivery]>::len).collect();
        assert_eq!(sizes.iter().sum::<usize>(), 6);
        assert!(sizes.len() >= 3 && sizes.contains(&1), "{sizes:?}");
        assert_eq!(calls(&[]).count(), 0);
    }

    #[test]
    fn what_a_server_says_is_cut() {
        assert_eq!(brief("é"), "é");
        assert_eq!(brief(&"é".repeat(2000)).chars().count(), KEPT + 1);
    }
}
