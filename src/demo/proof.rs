//! The proof: what the clients were told, against what is in the graph. Nothing of offramp's own bookkeeping but the ledger is taken
//! for granted here.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use jiff::Timestamp;
use serde::Serialize;

use super::load::{Conversation, Mark};
use crate::queue::Ledger;

/// Faults named per claim; the rest is counted.
const SHOWN: usize = 5;

/// An episode as the graph has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its name: the episode's id.
    pub name: String,
    /// Its text, with the [`Mark`] somewhere inside.
    pub content: String,
    /// Its time of the event.
    pub valid_at: Timestamp,
}

/// One claim, and whether it holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Claim {
    /// The claim as a sentence that is true when it holds.
    pub claim: String,
    /// Whether it holds.
    pub holds: bool,
    /// What speaks against it: the first few, and how many more.
    pub against: Vec<String>,
}

impl Claim {
    fn new(claim: String, mut against: Vec<String>) -> Self {
        let holds = against.is_empty();
        let more = against.len().saturating_sub(SHOWN);
        against.truncate(SHOWN);
        if more > 0 {
            against.push(format!("and {more} more"));
        }
        Self { claim, holds, against }
    }
}

/// Proves it, or shows where it fails. `found` maps a session's id to its episodes: in the order of writing where the graph can tell,
/// else in the order of their timestamps. `ledger` is what offramp counted for exactly these conversations.
pub fn prove(conversations: &[Conversation], found: &BTreeMap<String, Vec<Found>>, ledger: Ledger) -> Vec<Claim> {
    let requests: u64 = conversations.iter().map(|c| (c.answered.len() + c.failed.len()) as u64).sum();
    vec![
        balanced(ledger),
        captured(requests, ledger),
        delivered(ledger),
        once(conversations, found),
        order(conversations, found),
        times(conversations, found),
    ]
}

fn balanced(ledger: Ledger) -> Claim {
    let gap = ledger.gap();
    let against = (gap != 0).then(|| format!("{gap} episodes are in no account"));
    Claim::new("the ledger balances".to_owned(), against.into_iter().collect())
}

fn captured(requests: u64, ledger: Ledger) -> Claim {
    let against = (ledger.captured != requests).then(|| format!("{} were captured", thousands(ledger.captured)));
    Claim::new(format!("each of {} requests was captured", thousands(requests)), against.into_iter().collect())
}

fn delivered(ledger: Ledger) -> Claim {
    let left = [("pending", ledger.pending), ("dead", ledger.dead), ("purged", ledger.purged), ("expired", ledger.expired)];
    let against = left.iter().filter(|(_, count)| *count > 0).map(|(state, count)| format!("{} {state}", thousands(*count)));
    Claim::new("everything captured was delivered".to_owned(), against.collect())
}

fn once(conversations: &[Conversation], found: &BTreeMap<String, Vec<Found>>) -> Claim {
    let mut against = Vec::new();
    let mut names = HashSet::new();
    let mut strangers: BTreeSet<&str> = found.keys().map(String::as_str).collect();
    for conversation in conversations {
        let id = conversation.id.as_deref().unwrap_or_default();
        strangers.remove(id);
        let episodes = found.get(id).map_or(&[][..], Vec::as_slice);
        let mut counts: BTreeMap<u64, u64> = BTreeMap::new();
        for episode in episodes {
            match Mark::find(&episode.content) {
                Some(mark) if mark.session == conversation.name => *counts.entry(mark.number).or_default() += 1,
                _ => against.push(format!("{}: holds an episode of somebody else, {}", conversation.name, episode.name)),
            }
            if !names.insert(&episode.name) {
                against.push(format!("{}: the id {} is there twice", conversation.name, episode.name));
            }
        }
        for number in conversation.answered.iter().filter(|number| !counts.contains_key(number)) {
            against.push(format!("{}: message {number} is lost", conversation.name));
        }
        for (number, count) in counts {
            if count > 1 {
                against.push(format!("{}: message {number} is there {count} times", conversation.name));
            }
            // One that failed at the client may be there, or not; one that was never sent may not.
            if !conversation.answered.contains(&number) && !conversation.failed.contains(&number) {
                against.push(format!("{}: message {number} was never sent", conversation.name));
            }
        }
    }
    against.extend(strangers.into_iter().map(|id| format!("group {id} belongs to no session")));
    Claim::new("every episode is in the graph exactly once".to_owned(), against)
}

fn order(conversations: &[Conversation], found: &BTreeMap<String, Vec<Found>>) -> Claim {
    let against = neighbours(conversations, found).filter_map(|(name, before, after)| {
        let (before, after) = (Mark::find(&before.content)?.number, Mark::find(&after.content)?.number);
        (before > after).then(|| format!("{name}: message {after} came after {before}"))
    });
    Claim::new(format!("each of {} sessions is in order", thousands(conversations.len() as u64)), against.collect())
}

fn times(conversations: &[Conversation], found: &BTreeMap<String, Vec<Found>>) -> Claim {
    let against = neighbours(conversations, found)
        .filter(|(_, before, after)| before.valid_at >= after.valid_at)
        .map(|(name, before, after)| format!("{name}: {} is followed by {}", before.valid_at, after.valid_at));
    Claim::new("the timestamps of each session strictly increase".to_owned(), against.collect())
}

/// Every two episodes that follow each other, with their session's name.
fn neighbours<'a>(
    conversations: &'a [Conversation],
    found: &'a BTreeMap<String, Vec<Found>>,
) -> impl Iterator<Item = (&'a str, &'a Found, &'a Found)> {
    conversations.iter().flat_map(|conversation| {
        let episodes = conversation.id.as_ref().and_then(|id| found.get(id)).map_or(&[][..], Vec::as_slice);
        episodes.windows(2).map(|pair| (conversation.name.as_str(), &pair[0], &pair[1]))
    })
}

/// `1,234,567`
pub fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests;
