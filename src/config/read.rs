//! The typed reader: takes each key out of the tree with its type and default, and collects every fault on the way.
//!
//! A [`Section`] is a table that is being read. What is left in it at [`Section::finish`] is unknown, and is told with the nearest
//! key that isn't. A [`Field`] is one value under its key; the readers of `values.rs` turn it into a type, or into the end of a
//! sentence: "`workers` is 0, *allowed: an integer from 1 to 10000*". A reader that fails leaves the default (or any placeholder)
//! behind: it is never seen, because a configuration with a fault is never handed out.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use super::expand;
use super::fault::{Fault, Origin};
use super::tree::{Entry, Node, Table, Value};

/// What a reader says of a value that it doesn't take: the end of a sentence that begins with the key and the value.
pub type Read<T> = Result<T, String>;

/// What all sections of one configuration share.
pub struct Context<'c> {
    /// The environment that `${VAR}` is looked up in.
    pub env: &'c BTreeMap<String, String>,
    /// The configuration file's directory, where a relative `*_file` is looked for.
    pub dir: &'c Path,
    /// The file had syntax errors: what seems to be missing may have been lost with them.
    broken: bool,
    faults: RefCell<Vec<Fault>>,
    /// Where each value that was given stands, by its path: `sink.0.retry.max`.
    places: RefCell<HashMap<String, Origin>>,
    /// Every key that was asked for, given or not, as `section.key`.
    #[cfg(test)]
    pub asked: RefCell<std::collections::BTreeSet<String>>,
}

impl<'c> Context<'c> {
    /// A context without faults. `broken` says that the file had syntax errors.
    pub fn new(env: &'c BTreeMap<String, String>, dir: &'c Path, broken: bool) -> Self {
        Self {
            env,
            dir,
            broken,
            faults: RefCell::default(),
            places: RefCell::default(),
            #[cfg(test)]
            asked: RefCell::default(),
        }
    }

    /// Tells a fault.
    pub fn fault(&self, at: Origin, message: String) {
        self.faults.borrow_mut().push(Fault { at, message });
    }

    /// Tells that something is missing, unless a syntax error may have swallowed it.
    pub fn missing(&self, at: Origin, message: String) {
        if !self.broken {
            self.fault(at, message);
        }
    }

    /// Where the value of this path was written, or the nearest of its parents that was.
    pub fn at(&self, path: &str) -> Origin {
        let places = self.places.borrow();
        let mut path = path;
        loop {
            if let Some(origin) = places.get(path) {
                return origin.clone();
            }
            match path.rsplit_once('.') {
                Some((parent, _)) => path = parent,
                None if path.is_empty() => return Origin::Whole,
                None => path = "",
            }
        }
    }

    /// Whether the value of this path was written anywhere.
    pub fn is_given(&self, path: &str) -> bool {
        self.places.borrow().contains_key(path)
    }

    /// The faults that were told.
    pub fn into_faults(self) -> Vec<Fault> {
        self.faults.into_inner()
    }

    fn place(&self, path: &str, at: &Origin) {
        self.places.borrow_mut().insert(path.to_owned(), at.clone());
    }
}

/// A table that is being read.
pub struct Section<'c> {
    cx: &'c Context<'c>,
    /// Path in the tree: `proxy.0.route.1`.
    path: String,
    /// What a fault calls it: `[[proxy.route]]`.
    title: String,
    /// What a fault puts before a key: empty in a section with a header, `retry.` in an inline table.
    prefix: String,
    at: Origin,
    table: Table,
    known: Vec<&'static str>,
}

/// A value under its key.
pub struct Field<'c> {
    cx: &'c Context<'c>,
    path: String,
    name: String,
    /// The value.
    pub node: Node,
    /// The key's own place.
    pub key_at: Origin,
}

impl<'c> Section<'c> {
    /// The whole tree.
    pub fn root(cx: &'c Context<'c>, path: &str, node: Node) -> Self {
        let table = if let Value::Table(table) = node.value { table } else { Table::default() };
        let title = "the file".to_owned();
        cx.place(path, &node.at);
        Self { cx, path: path.to_owned(), title, prefix: String::new(), at: node.at, table, known: Vec::new() }
    }

    /// Where it begins.
    pub fn at(&self) -> &Origin {
        &self.at
    }

    /// What it shares with the others.
    pub fn cx(&self) -> &'c Context<'c> {
        self.cx
    }

    /// Takes a key out, if it is there.
    pub fn take(&mut self, key: &'static str) -> Option<Field<'c>> {
        self.known.push(key);
        #[cfg(test)]
        self.cx.asked.borrow_mut().insert(format!("{} {key}", self.title));
        let entry = self.table.entries.remove(key)?;
        let path = self.child(key);
        self.cx.place(&path, &entry.node.at);
        Some(Field { cx: self.cx, path, name: format!("{}{key}", self.prefix), node: entry.node, key_at: entry.key_at })
    }

    fn child(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// The key's value, or nothing where it isn't given or is wrong.
    pub fn maybe<T>(&mut self, key: &'static str, read: impl FnOnce(&Field<'c>) -> Read<T>) -> Option<T> {
        let field = self.take(key)?;
        read(&field).map_err(|tail| field.fault(&tail)).ok()
    }

    /// The key's value, or its default.
    pub fn get<T>(&mut self, key: &'static str, default: T, read: impl FnOnce(&Field<'c>) -> Read<T>) -> T {
        self.maybe(key, read).unwrap_or(default)
    }

    /// The value of a key that must be given. `allowed` is what a fault says it could be.
    pub fn require<T>(&mut self, key: &'static str, allowed: &str, read: impl FnOnce(&Field<'c>) -> Read<T>) -> Option<T> {
        let Some(field) = self.take(key) else {
            self.cx.missing(self.at.clone(), format!("{} has no `{}{key}`, allowed: {allowed}", self.title, self.prefix));
            return None;
        };
        read(&field).map_err(|tail| field.fault(&tail)).ok()
    }

    /// A key whose feature isn't built yet: refused, unless its value is the one at which the feature is off.
    pub fn planned(&mut self, key: &'static str, instead: &str, is_off: impl FnOnce(&Field<'c>) -> bool) {
        if let Some(field) = self.take(key)
            && !is_off(&field)
        {
            self.cx.fault(field.key_at, format!("`{}` is not in this version yet, {instead}", field.name));
        }
    }

    /// A table under a key, if there is one.
    pub fn maybe_table(&mut self, key: &'static str, header: Header) -> Option<Section<'c>> {
        let is_there = self.table.entries.get(key).is_some_and(|entry| matches!(entry.node.value, Value::Table(_)));
        let section = self.table(key, header);
        is_there.then_some(section)
    }

    /// Where the value of a key that was taken out stands, if it was given.
    pub fn place(&self, key: &str) -> Option<Origin> {
        let path = self.child(key);
        self.cx.is_given(&path).then(|| self.cx.at(&path))
    }

    /// A table under a key; an empty one where it isn't given.
    pub fn table(&mut self, key: &'static str, header: Header) -> Section<'c> {
        let at = self.at.clone();
        let (title, prefix) = match header {
            Header::Own(title) => (title.to_owned(), String::new()),
            Header::Inline => (format!("`{}{key}`", self.prefix), format!("{}{key}.", self.prefix)),
        };
        let mut section =
            Section { cx: self.cx, path: self.child(key), title, prefix, at, table: Table::default(), known: Vec::new() };
        if let Some(field) = self.take(key) {
            section.at = field.node.at.clone();
            match field.node.value {
                Value::Table(table) => section.table = table,
                _ => field.fault(&format!("allowed: a table, {}", header.example(key))),
            }
        }
        section
    }

    /// The tables of an array of tables, in the order of the file.
    pub fn tables(&mut self, key: &'static str, title: &'static str) -> Vec<Section<'c>> {
        let Some(mut field) = self.take(key) else { return Vec::new() };
        let Value::List(items) = std::mem::replace(&mut field.node.value, Value::Boolean(false)) else {
            self.cx.fault(field.key_at, format!("`{key}` is not a list, allowed: {title} with two brackets, one for each"));
            return Vec::new();
        };
        let mut sections = Vec::with_capacity(items.len());
        for (i, item) in items.into_iter().enumerate() {
            let path = format!("{}.{i}", field.path);
            self.cx.place(&path, &item.at);
            let shown = item.shown();
            let Value::Table(table) = item.value else {
                self.cx.fault(item.at, format!("an element of `{key}` is {shown}, allowed: a table, {title}"));
                continue;
            };
            let title = title.to_owned();
            sections.push(Section { cx: self.cx, path, title, prefix: String::new(), at: item.at, table, known: Vec::new() });
        }
        sections
    }

    /// Puts in what is not given here, also within tables that are.
    pub fn fill(&mut self, with: Table) {
        fill(&mut self.table, with);
    }

    /// Takes those entries out of the table under `key` that `which` picks.
    pub fn pick(&mut self, key: &str, which: impl Fn(&Value) -> bool) -> Vec<(String, Field<'c>)> {
        let (path, name) = (self.child(key), format!("{}{key}", self.prefix));
        let Some(Value::Table(table)) = self.table.entries.get_mut(key).map(|entry| &mut entry.node.value) else {
            return Vec::new();
        };
        let (picked, rest) = std::mem::take(&mut table.entries).into_iter().partition(|(_, entry)| which(&entry.node.value));
        table.entries = rest;
        let picked: BTreeMap<String, Entry> = picked;
        let field = |(key, entry): (String, Entry)| {
            let (path, name) = (format!("{path}.{key}"), format!("{name}.{key}"));
            self.cx.place(&path, &entry.node.at);
            (key, Field { cx: self.cx, path, name, node: entry.node, key_at: entry.key_at })
        };
        picked.into_iter().map(field).collect()
    }

    /// Everything that is left, for tables whose keys are free.
    pub fn rest(&mut self) -> Vec<(String, Field<'c>)> {
        let entries = std::mem::take(&mut self.table.entries);
        let field = |(key, entry): (String, Entry)| {
            let path = self.child(&key);
            self.cx.place(&path, &entry.node.at);
            let name = format!("{}{key}", self.prefix);
            (key, Field { cx: self.cx, path, name, node: entry.node, key_at: entry.key_at })
        };
        entries.into_iter().map(field).collect()
    }

    /// Ends the section: what nobody took out is unknown.
    pub fn finish(self) {
        for (key, entry) in &self.table.entries {
            let known = &self.known;
            let hint = match nearest(key, known.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("allowed: {}", known.join(", ")),
            };
            self.cx.fault(entry.key_at.clone(), format!("unknown key `{key}` in {}, {hint}", self.title));
        }
        // `OFFRAMP_QUEUE_PATH` with one underscore looks right and would be ignored; only what is a key exactly is told, because an
        // orchestrator may well put names like `OFFRAMP_ADMIN_PORT` into the environment.
        if !self.path.is_empty() && !self.path.contains('.') {
            for key in &self.known {
                let [single, double] = ["_", "__"].map(|gap| format!("OFFRAMP_{}{gap}{}", self.path, key).to_ascii_uppercase());
                if self.cx.env.contains_key(&single) {
                    self.cx.fault(
                        Origin::Environment(single.into()),
                        format!("this is no key, two underscores separate levels: {double}"),
                    );
                }
            }
        }
    }
}

fn fill(table: &mut Table, with: Table) {
    for (key, entry) in with.entries {
        match (table.entries.get_mut(&key).map(|own| &mut own.node.value), entry.node.value) {
            (Some(Value::Table(own)), Value::Table(with)) => fill(own, with),
            (Some(_), _) => {}
            (None, value) => {
                table.entries.insert(key, Entry { key_at: entry.key_at, node: Node { value, ..entry.node } });
            }
        }
    }
}

/// How a table is written.
#[derive(Clone, Copy)]
pub enum Header {
    /// With a header of its own, `[queue]`.
    Own(&'static str),
    /// Inline, `retry = { … }`.
    Inline,
}

impl Header {
    fn example(self, key: &str) -> String {
        match self {
            Self::Own(title) => title.to_owned(),
            Self::Inline => format!("{key} = {{ … }}"),
        }
    }
}

impl<'c> Field<'c> {
    /// Tells a fault of this value; `tail` ends the sentence.
    pub fn fault(&self, tail: &str) {
        self.cx.fault(self.node.at.clone(), format!("`{}` is {}, {tail}", self.name, self.node.shown()));
    }

    /// Tells a fault without showing the value: it may be a secret.
    pub fn fault_quietly(&self, tail: &str) {
        self.cx.fault(self.node.at.clone(), format!("`{}`: {tail}", self.name));
    }

    /// What it shares with the others.
    pub fn cx(&self) -> &'c Context<'c> {
        self.cx
    }

    /// The text, with `${VAR}` expanded. `allowed` ends the fault of a value that is no text.
    pub fn text(&self, allowed: &str) -> Read<String> {
        match (&self.node.value, &self.node.raw) {
            (Value::Text(text), _) => expand::expand(text, self.cx.env),
            (Value::Integer(_) | Value::Float(_) | Value::Boolean(_) | Value::Datetime(_), Some(raw)) => Ok(raw.clone()),
            _ => Err(format!("allowed: {allowed}")),
        }
    }

    /// The value, where `"${WORKERS:-5}"` counts as the number that it expands to.
    pub fn scalar(&self) -> Read<Cow<'_, Value>> {
        match &self.node.value {
            Value::Text(text) if text.contains("${") => {
                let expanded = expand::expand(text, self.cx.env)?;
                Ok(Cow::Owned(Node::from_overlay(&expanded, &self.node.at).value))
            }
            value => Ok(Cow::Borrowed(value)),
        }
    }

    /// The elements of a list; a single value counts as a list of one.
    pub fn items(&self) -> Vec<Field<'c>> {
        let items = match &self.node.value {
            Value::List(items) => items.clone(),
            _ => vec![self.node.clone()],
        };
        let item = |(i, node): (usize, Node)| {
            let path = format!("{}.{i}", self.path);
            self.cx.place(&path, &node.at);
            Field { cx: self.cx, path, name: self.name.clone(), key_at: node.at.clone(), node }
        };
        items.into_iter().enumerate().map(item).collect()
    }
}

/// The option that a mistyped word was probably meant to be.
pub fn nearest<'a>(word: &str, options: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    const ALIKE: f64 = 0.8;
    let word = word.to_lowercase();
    let likeness = |option: &&str| strsim::jaro_winkler(&word, &option.to_lowercase());
    let best = options.into_iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)))?;
    (likeness(&best) >= ALIKE).then_some(best)
}
