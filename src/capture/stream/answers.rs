//! What is asked of a stream beside its text: one node for each probe, all nodes for each gathering source.

use std::borrow::Cow;

use serde_json::Value;

use super::Pick;
use super::path::Path;
use super::text::{floor, grow};
use crate::capture::node::{is_empty, lines_of};

/// The answer to a probe.
#[derive(Debug, Default)]
pub struct Asked {
    found: Option<Value>,
    weight: usize,
}

/// What all events have at a path: a text while all of it is text, else a list.
#[derive(Debug, Default)]
pub enum Gathered {
    /// Nothing yet.
    #[default]
    Nothing,
    /// Nothing but strings.
    Text(String),
    /// Anything else.
    Nodes(Vec<Value>),
}

/// How much of the limit is left for answers of one kind.
#[derive(Debug)]
pub struct Budget {
    max: usize,
    used: usize,
}

impl Budget {
    /// All of it.
    pub fn new(max: usize) -> Self {
        Self { max, used: 0 }
    }

    /// Bytes in use.
    #[cfg(test)]
    pub fn used(&self) -> usize {
        self.used
    }

    fn take(&mut self, weight: usize) -> bool {
        let used = self.used.saturating_add(weight);
        let fits = used <= self.max;
        if fits {
            self.used = used;
        }
        fits
    }
}

impl Asked {
    /// Asks an event; false where its answer was too long to keep.
    ///
    /// `null` and what is empty yield nothing. `false` yields, but where the first answer is wanted a later one goes before it: for
    /// `success_if` a stream holds if some event does.
    pub fn ask(&mut self, path: &Path, pick: Pick, json: &Value, budget: &mut Budget) -> bool {
        let is_settled = pick == Pick::First && !matches!(self.found, None | Some(Value::Bool(false)));
        if is_settled {
            return true;
        }
        let nodes = path.nodes(json);
        let node = match pick {
            Pick::First | Pick::Last => nodes.first().map(Cow::Borrowed),
            Pick::Texts => Some(Cow::Owned(Value::String(lines_of(nodes.all())))),
        };
        let node = node.filter(|node| !is_empty(node) && self.found.as_ref() != Some(&**node));
        let Some(node) = node else { return true };
        let weight = weight(&node);
        budget.used -= self.weight;
        if budget.take(weight) {
            (self.found, self.weight) = (Some(node.into_owned()), weight);
            return true;
        }
        budget.used += self.weight;
        false
    }

    /// The answer.
    pub fn into_found(self) -> Option<Value> {
        self.found
    }
}

impl Gathered {
    /// Adds a node; false where it was cut or left out.
    pub fn add(&mut self, node: &Value, budget: &mut Budget) -> bool {
        match (&mut *self, node) {
            (_, Value::Null) => true,
            (Self::Nothing, Value::String(_)) => {
                *self = Self::Text(String::new());
                self.add(node, budget)
            }
            (Self::Text(text), Value::String(more)) => {
                let fitting = floor(more, budget.max - budget.used);
                grow(text, fitting, budget.max);
                budget.used += fitting.len();
                let is_whole = fitting.len() == more.len();
                if !is_whole {
                    // A shorter one that comes later would stand at a wrong place.
                    budget.used = budget.max;
                }
                is_whole
            }
            (Self::Nodes(nodes), _) => {
                let fits = budget.take(weight(node));
                if fits {
                    nodes.push(node.clone());
                }
                fits
            }
            (Self::Nothing | Self::Text(_), _) => {
                let text = match std::mem::take(self) {
                    Self::Text(text) if !text.is_empty() => Some(Value::String(text)),
                    _ => None,
                };
                *self = Self::Nodes(text.into_iter().collect());
                self.add(node, budget)
            }
        }
    }

    /// All of it; none where there was nothing.
    pub fn into_value(self) -> Option<Value> {
        match self {
            Self::Text(text) if !text.is_empty() => Some(Value::String(text)),
            Self::Nodes(nodes) if !nodes.is_empty() => Some(Value::Array(nodes)),
            _ => None,
        }
    }
}

/// About as many bytes as a node has when it is written as JSON.
fn weight(node: &Value) -> usize {
    match node {
        Value::Null | Value::Bool(_) => 4,
        Value::Number(_) => 8,
        Value::String(text) => text.len() + 2,
        Value::Array(items) => items.iter().map(|item| weight(item) + 1).sum::<usize>() + 2,
        Value::Object(members) => members.iter().map(|(name, value)| name.len() + weight(value) + 4).sum::<usize>() + 2,
    }
}
