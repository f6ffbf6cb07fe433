//! What lies over the file: environment variables and `--set`, each a path into the tree and a value.
//!
//! `OFFRAMP_SINK__GRAPHITI__WORKERS=3` and `--set sink.graphiti.workers=3` mean the same. An element of `[[proxy]]`, `[[proxy.route]]`
//! and `[[sink]]` is addressed by its name, or by its index from 0; the index behind the last one adds an element. As the
//! environment knows capitals and no dashes, names and keys that exist are found regardless of both.

use std::collections::BTreeMap;

use super::fault::Origin;
use super::read::Context;
use super::tree::{Entry, Node, Table, Value};

/// Longest path: the deepest key has six levels, and a tree of unbounded depth could not be walked safely.
const DEEPEST: usize = 12;

/// Keys that hold a list of tables, where the file doesn't show it.
const LISTS: [&str; 3] = ["proxy", "route", "sink"];

/// Lays the environment over the tree, in the order of the names, so that `SINK__0` comes before `SINK__1`.
///
/// A variable is a key if two underscores stand in its name behind `OFFRAMP_`: every key has at least two levels. So
/// `OFFRAMP_CONFIG`, `OFFRAMP_REVISION` and what an orchestrator makes of a service called `offramp` are none.
pub fn environment(cx: &Context<'_>, tree: &mut Table) {
    let mut keys: Vec<(Vec<Step>, &str, &str)> = Vec::new();
    for (name, value) in cx.env {
        if let Some(path) = name.strip_prefix("OFFRAMP_").filter(|path| path.contains("__")) {
            keys.push((path.split("__").map(|step| Step::of(&step.to_ascii_lowercase())).collect(), name, value));
        }
    }
    keys.sort();
    for (path, name, value) in keys {
        let origin = Origin::Environment(name.into());
        if let Err(why) = lay(tree, &path, Node::from_overlay(value, &origin)) {
            cx.fault(origin, why);
        }
    }
}

/// Lays each `KEY=VALUE` over the tree, in the order in which they were given.
pub fn sets(cx: &Context<'_>, tree: &mut Table, sets: &[String]) {
    for set in sets {
        let Some((key, value)) = set.split_once('=') else {
            cx.fault(
                Origin::Set(set.as_str().into()),
                "it has no =, allowed: KEY=VALUE such as queue.path=/var/lib/offramp".to_owned(),
            );
            continue;
        };
        let origin = Origin::Set(key.trim().into());
        let path: Vec<_> = key.trim().split('.').map(Step::of).collect();
        if let Err(why) = lay(tree, &path, Node::from_overlay(value, &origin)) {
            cx.fault(origin, why);
        }
    }
}

/// One level of a path. Numbers sort as numbers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Index(usize),
    Name(String),
}

impl Step {
    fn of(text: &str) -> Self {
        let is_index = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        match text.parse() {
            Ok(index) if is_index => Self::Index(index),
            _ => Self::Name(text.to_owned()),
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Index(index) => index.to_string(),
            Self::Name(name) => name.clone(),
        }
    }
}

fn lay(tree: &mut Table, path: &[Step], new: Node) -> Result<(), String> {
    if path.len() > DEEPEST || path.iter().any(|step| step.text().is_empty()) {
        return Err(
            "this is no key, allowed: a key such as queue.path, sink.graphiti.workers or proxy.agent.route.run.sample".to_owned()
        );
    }
    lay_in_table(tree, path, new)
}

fn lay_in_table(table: &mut Table, path: &[Step], new: Node) -> Result<(), String> {
    let Some((step, rest)) = path.split_first() else { return Ok(()) };
    let wanted = step.text();
    let existing = the_one(&wanted, table.entries.keys().map(String::as_str))?;
    let key = existing.map_or(wanted, |index| table.entries.keys().nth(index).cloned().unwrap_or_default());
    if rest.is_empty() {
        table.entries.insert(key, Entry { key_at: new.at.clone(), node: new });
        return Ok(());
    }
    let empty = || {
        let at = new.at.clone();
        let value = if LISTS.contains(&key.as_str()) { Value::List(Vec::new()) } else { Value::Table(Table::default()) };
        Entry { key_at: at.clone(), node: Node { value, at, raw: None } }
    };
    let entry = table.entries.entry(key.clone()).or_insert_with(empty);
    lay_in_node(&mut entry.node, &key, rest, new)
}

fn lay_in_node(node: &mut Node, key: &str, path: &[Step], new: Node) -> Result<(), String> {
    match &mut node.value {
        Value::Table(table) => lay_in_table(table, path, new),
        Value::List(items) => lay_in_list(items, key, path, new),
        _ => Err(format!("`{key}` is {}, so there is nothing in it", node.shown())),
    }
}

fn lay_in_list(items: &mut Vec<Node>, key: &str, path: &[Step], new: Node) -> Result<(), String> {
    let Some((step, rest)) = path.split_first() else { return Ok(()) };
    let index = match step {
        Step::Index(index) if *index <= items.len() => *index,
        Step::Index(index) => {
            return Err(format!("`{key}` has no element {index}, allowed: 0 to {} (the last adds one)", items.len()));
        }
        Step::Name(name) => {
            let names: Vec<_> = items.iter().map(|item| name_of(item).unwrap_or_default()).collect();
            the_one(name, names.iter().copied())?.ok_or_else(|| {
                let there: Vec<_> = names.iter().filter(|name| !name.is_empty()).copied().collect();
                let allowed = if there.is_empty() {
                    "there is none; 0 adds one".to_owned()
                } else {
                    format!("allowed: {}", there.join(", "))
                };
                format!("no [[{key}]] is named {name:?}, {allowed}")
            })?
        }
    };
    if index == items.len() {
        items.push(Node::table(new.at.clone()));
    }
    let Some(item) = items.get_mut(index) else { return Ok(()) };
    if rest.is_empty() {
        *item = new;
        return Ok(());
    }
    lay_in_node(item, key, rest, new)
}

fn name_of(node: &Node) -> Option<&str> {
    let Value::Table(table) = &node.value else { return None };
    match &table.entries.get("name")?.node.value {
        Value::Text(name) => Some(name),
        _ => None,
    }
}

/// The index of what is called so: exactly, else regardless of capitals and of `-` and `_`.
fn the_one<'a>(wanted: &str, names: impl Iterator<Item = &'a str> + Clone) -> Result<Option<usize>, String> {
    if let Some(index) = names.clone().position(|name| name == wanted) {
        return Ok(Some(index));
    }
    let plain = |name: &str| name.to_ascii_lowercase().replace('-', "_");
    let alike: BTreeMap<usize, &str> =
        names.enumerate().filter(|(_, name)| !name.is_empty() && plain(name) == plain(wanted)).collect();
    if alike.len() > 1 {
        let names: Vec<_> = alike.values().copied().collect();
        return Err(format!("{wanted:?} could be {}, allowed: the index of the one that is meant", names.join(" or ")));
    }
    Ok(alike.keys().next().copied())
}
