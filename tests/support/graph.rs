//! What a real graph must hold of exchanges that went through offramp.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// The graph must hold each exchange once, in the order of its session, at the time of its capture. A session's exchanges are in the order
/// of the list. `group` and `content` say in which group, and as what.
pub fn assert_holds(
    nodes: &[Value],
    exchanges: &[Value],
    episodes: &[Value],
    group: impl Fn(&str) -> String,
    content: impl Fn(&str, &str) -> String,
) {
    assert_eq!(nodes.len(), exchanges.len(), "nodes in the graph");
    assert_eq!(episodes.len(), exchanges.len(), "episodes of offramp");
    let nodes: HashMap<&str, &Value> = nodes.iter().map(|node| (text(node, "name"), node)).collect();
    assert_eq!(nodes.len(), exchanges.len(), "each node bears an id of its own");

    let by_question: HashMap<&str, &Value> =
        episodes.iter().map(|episode| (text(&episode["messages"][0], "content"), episode)).collect();
    let mut sessions: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    for exchange in exchanges {
        sessions.entry(text(exchange, "session")).or_default().push(exchange);
    }
    for (session, exchanges) in sessions {
        let group = group(session);
        let (mut event, mut stored) = (i64::MIN, i64::MIN);
        for exchange in exchanges {
            let episode = by_question[text(exchange, "content")];
            let node = nodes.get(text(episode, "id")).unwrap_or_else(|| panic!("not in the graph: {episode:#}"));
            assert_eq!(episode["session"], session);
            assert_eq!(node["group_id"], group.as_str());
            assert_eq!(node["graph"], group.as_str(), "graphiti-core keeps each group in a graph of its name");
            assert_eq!(node["content"], content(text(exchange, "content"), text(exchange, "reply")));

            // The clock of offramp is the client's: the capture lies within the exchange.
            let captured = millis(episode, "captured_at");
            let within = exchange["sent_at_ms"].as_i64().unwrap()..=exchange["answered_at_ms"].as_i64().unwrap();
            assert!(within.contains(&captured), "captured at {captured}: {exchange:#}");
            // Later by a millisecond where the clock did not move on within the lane.
            event = captured.max(event.saturating_add(1));
            assert_eq!(millis(node, "valid_at"), event, "{node:#}");
            // Graphiti stored them in that order, too.
            let now = micros(node, "created_at");
            assert!(now > stored, "stored before its predecessor: {node:#}");
            stored = now;
        }
    }
}

/// A text in an object.
pub fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("no {key} in {value:#}"))
}

/// A time in an object, in microseconds.
pub fn micros(value: &Value, key: &str) -> i64 {
    text(value, key).parse::<Timestamp>().unwrap().as_microsecond()
}

fn millis(value: &Value, key: &str) -> i64 {
    let micros = micros(value, key);
    assert_eq!(micros % 1000, 0, "{key} is exact to the millisecond: {value:#}");
    micros / 1000
}

/// Half of the sessions have a name that Graphiti takes as a group id, half have one that it does not.
pub fn sessions(count: usize) -> Vec<String> {
    (0..count).map(|n| if n % 2 == 0 { format!("chat-{n}") } else { format!("user:{n}") }).collect()
}

/// The group that a session is mapped to: itself if it fits, else a readable name that ends in 8 hex digits of its SHA-256.
pub fn group_of(session: &str) -> String {
    if session.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_') {
        return session.to_owned();
    }
    let hash = u32::from_be_bytes(Sha256::digest(session)[..4].try_into().unwrap());
    format!("{}-{hash:08x}", session.replace(':', "_"))
}
