//! The texts of a stream: one for each id.

use std::collections::HashMap;

/// What a further text costs of the limit beside its bytes: its place here, and the line break that joins it to the others.
const PER_TEXT: usize = 64;

/// Texts that grow, of a limited size in all.
#[derive(Debug)]
pub struct Texts {
    max: usize,
    /// Bytes of texts and ids, and [`PER_TEXT`].
    used: usize,
    /// In order of first appearance.
    rows: Vec<String>,
    places: HashMap<String, usize>,
    /// The one that was spoken of last: what names no id goes on with it.
    latest: Option<usize>,
    /// Something did not fit: what came after it would stand at a wrong place.
    full: bool,
}

impl Texts {
    /// None yet; at most `max` bytes of them.
    pub fn new(max: usize) -> Self {
        Self { max, used: 0, rows: Vec::new(), places: HashMap::new(), latest: None, full: false }
    }

    /// Appends to the text of an id; whether all of it fitted.
    pub fn append(&mut self, id: Option<&str>, more: &str) -> bool {
        if self.full || more.is_empty() {
            return more.is_empty();
        }
        let place = self.place(id);
        let text = place.and_then(|place| self.rows.get_mut(place));
        let fitting = floor(more, self.max.saturating_sub(self.used));
        if let Some(text) = text {
            grow(text, fitting, self.max);
            self.used += fitting.len();
            self.full = fitting.len() < more.len();
        } else {
            self.full = true;
        }
        !self.full
    }

    /// Replaces the text of an id, or without one all texts; whether all of it fitted.
    pub fn replace(&mut self, id: Option<&str>, whole: &str) -> bool {
        match id {
            None => {
                self.rows.clear();
                self.places.clear();
                (self.used, self.latest) = (0, None);
            }
            Some(_) => {
                if let Some(text) = self.place(id).and_then(|place| self.rows.get_mut(place)) {
                    self.used -= text.len();
                    text.clear();
                }
            }
        }
        self.full = false;
        self.append(id, whole)
    }

    /// All of them, joined by line breaks; none where there is no text.
    pub fn join(self) -> Option<String> {
        let mut texts = self.rows.into_iter().filter(|text| !text.is_empty());
        let mut joined = texts.next()?;
        for text in texts {
            joined.push('\n');
            joined.push_str(&text);
        }
        Some(joined)
    }

    /// Where the text of an id is, or is to be; none where there is no room for another.
    fn place(&mut self, id: Option<&str>) -> Option<usize> {
        let known = id.map_or(self.latest, |id| self.places.get(id).copied());
        if known.is_some() {
            self.latest = known;
            return known;
        }
        let cost = id.map_or(0, str::len) + if self.rows.is_empty() { 0 } else { PER_TEXT };
        // A text of no bytes would be none.
        self.used = self.used.checked_add(cost).filter(|used| *used < self.max)?;
        let place = self.rows.len();
        self.rows.push(String::new());
        if let Some(id) = id {
            self.places.insert(id.to_owned(), place);
        }
        self.latest = Some(place);
        self.latest
    }

    /// Bytes of memory.
    #[cfg(test)]
    pub fn held(&self) -> usize {
        let ids: usize = self.places.keys().map(String::capacity).sum();
        let places = self.places.capacity() * (size_of::<(String, usize)>() + 1) + self.rows.capacity() * size_of::<String>();
        ids + places + self.rows.iter().map(String::capacity).sum::<usize>()
    }
}

/// Appends, without asking for more memory than the limit needs.
pub fn grow(text: &mut String, more: &str, max: usize) {
    let needed = text.len() + more.len();
    if needed > text.capacity() {
        let wanted = text.capacity().saturating_mul(2).min(max).max(needed);
        text.reserve_exact(wanted - text.len());
    }
    text.push_str(more);
}

/// The first `max` bytes, or up to three fewer: no character is cut.
pub fn floor(text: &str, max: usize) -> &str {
    let mut end = max.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1; // 0 is a boundary.
    }
    text.get(..end).unwrap_or_default()
}
