//! Server-sent events, after the WHATWG HTML standard, §9.2.6 "Interpreting an event stream".
//!
//! Lines end with LF, CR or CRLF; a byte order mark at the start is none of them; a line with a colon first is a comment; a field has
//! one space after its colon at most that isn't its value; several `data` are joined with LF; a blank line ends the event, which
//! counts only if it has `data`, be that empty. `id`, `retry` and unknown fields mean nothing here.
//!
//! Three things are not as a browser does them:
//! - The standard discards an event that the stream's end cut off. Servers do cut, and a client that left has seen it: such an event
//!   is handed over as [`Stage::Rest`], and counts if it is whole JSON.
//! - An event is shown already when its first line of data is complete ([`Stage::Line`]), unless the next line, as far as it is here,
//!   is the blank one. A client that reads lines acts on `data: [DONE]` without waiting for what follows.
//! - Data has a limit. An event beyond it is handed over without its data.

use memchr::{memchr, memchr2};

use super::buffer::Buffer;
use super::event::{Event, Stage};

/// A byte order mark.
const MARK: &[u8] = b"\xef\xbb\xbf";
/// Longest name of an event, in bytes. Nobody asks for a longer one.
const LONGEST_NAME: usize = 1024;

/// Splits a stream into events. Keeps at most the limit of data, one name, and a few bytes of a line; and data only where an event
/// isn't whole in one piece, or has several lines of it.
#[derive(Debug)]
pub struct Sse {
    max: usize,
    /// Bytes of the byte order mark that were seen; all of them, once the stream can have none any more.
    mark: usize,
    /// The last line ended with CR: an LF that follows belongs to it.
    after_cr: bool,
    at: At,
    /// The first bytes of a field's name, in [`At::Name`].
    head: Head,
    name: Buffer,
    data: Buffer,
    lines: Lines,
}

/// Where in a line the last piece ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// At its start, or in the field's name.
    Name,
    /// After the colon: one space is no value.
    Space(Field),
    /// In the value.
    Value(Field),
}

/// What a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Data,
    Event,
    Other,
}

/// Lines of data that an event has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lines {
    None,
    One,
    More,
}

/// The start of a field's name, as long as the longest that means something.
#[derive(Debug, Default)]
struct Head {
    bytes: [u8; 5],
    len: usize,
}

impl Sse {
    /// For events of at most `max` bytes of data.
    pub fn new(max: usize) -> Self {
        Self {
            max,
            mark: 0,
            after_cr: false,
            at: At::Name,
            head: Head::default(),
            name: Buffer::new(max.min(LONGEST_NAME)),
            data: Buffer::new(max),
            lines: Lines::None,
        }
    }

    /// Hands each event of which `piece` has enough to `take`, until that says that the stream has ended; whether it did.
    pub fn feed(&mut self, piece: &[u8], mut take: impl FnMut(Event<'_>) -> bool) -> bool {
        let mut rest = self.without_mark(piece);
        // The event's only line of data so far, where all of it lies in this piece: it isn't copied.
        let mut here: Option<&[u8]> = None;
        loop {
            if self.after_cr && !rest.is_empty() {
                self.after_cr = false;
                rest = rest.strip_prefix(b"\n").unwrap_or(rest);
            }
            let Some(end) = memchr2(b'\n', b'\r', rest) else { break };
            let (line, ending) = rest.split_at(end);
            let field = self.line(line, &mut here);
            self.after_cr = ending.first() == Some(&b'\r');
            rest = ending.get(1..).unwrap_or_default();
            let ended = match field {
                None => {
                    let ended = self.event(here.take(), Stage::Whole, &mut take);
                    self.clear();
                    ended
                }
                Some(Field::Data) if self.lines == Lines::One && !self.is_before_blank(rest) => {
                    self.event(here, Stage::Line, &mut take)
                }
                Some(_) => false,
            };
            if ended {
                return true;
            }
        }
        if let Some(here) = here {
            self.data.push(here);
        }
        self.part(rest);
        false
    }

    /// No more bytes: an event may have been cut off.
    pub fn finish(mut self, mut take: impl FnMut(Event<'_>) -> bool) {
        match self.at {
            // Half a name is none.
            At::Space(Field::Event) | At::Value(Field::Event) => self.name.clear(),
            _ => {}
        }
        self.event(None, Stage::Rest, &mut take);
    }

    fn without_mark<'p>(&mut self, mut piece: &'p [u8]) -> &'p [u8] {
        while let (Some(wanted), Some((byte, rest))) = (MARK.get(self.mark), piece.split_first()) {
            if byte == wanted {
                self.mark += 1;
                piece = rest;
            } else {
                // A part of the mark is the start of a field's name that is none of ours.
                if self.mark > 0 {
                    self.at = At::Value(Field::Other);
                }
                self.mark = MARK.len();
            }
        }
        piece
    }

    /// Takes a line to its end, or the rest of one that a former piece began; none where it is blank.
    fn line<'p>(&mut self, line: &'p [u8], here: &mut Option<&'p [u8]>) -> Option<Field> {
        if self.at != At::Name || self.head.len > 0 {
            self.part(line);
            let field = match self.at {
                At::Space(field) | At::Value(field) => field,
                // A field without a colon has an empty value.
                At::Name => {
                    let field = self.head.field();
                    self.begin(field);
                    field
                }
            };
            (self.at, self.head.len) = (At::Name, 0);
            return Some(field);
        }
        if line.is_empty() {
            return None;
        }
        let (name, value) = match memchr(b':', line) {
            Some(colon) => (line.get(..colon).unwrap_or_default(), line.get(colon + 1..).unwrap_or_default()),
            None => (line, &[][..]),
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        let field = Field::of(name);
        if field == Field::Data && self.lines == Lines::None && value.len() <= self.max {
            self.lines = Lines::One;
            *here = Some(value);
        } else {
            if let Some(here) = here.take_if(|_| field == Field::Data) {
                self.data.push(here);
            }
            self.begin(field);
            self.value(field, value);
        }
        Some(field)
    }

    /// Takes a part of a line.
    fn part(&mut self, mut bytes: &[u8]) {
        while let Some((&byte, rest)) = bytes.split_first() {
            match self.at {
                At::Name => {
                    bytes = rest;
                    if byte == b':' {
                        let field = self.head.field();
                        self.begin(field);
                        self.at = At::Space(field);
                    } else if !self.head.push(byte) {
                        self.at = At::Value(Field::Other);
                    }
                }
                At::Space(field) => {
                    bytes = bytes.strip_prefix(b" ").unwrap_or(bytes);
                    self.at = At::Value(field);
                }
                At::Value(field) => {
                    self.value(field, bytes);
                    return;
                }
            }
        }
    }

    fn begin(&mut self, field: Field) {
        match field {
            Field::Data if self.lines == Lines::None => self.lines = Lines::One,
            Field::Data => {
                self.data.push(b"\n");
                self.lines = Lines::More;
            }
            // The last one counts.
            Field::Event => self.name.clear(),
            Field::Other => {}
        }
    }

    fn value(&mut self, field: Field, bytes: &[u8]) {
        match field {
            Field::Data => self.data.push(bytes),
            Field::Event => self.name.push(bytes),
            Field::Other => {}
        }
    }

    /// Whether the next line is seen to be blank: then the event itself comes at once.
    fn is_before_blank(&self, rest: &[u8]) -> bool {
        let next = if self.after_cr { rest.strip_prefix(b"\n").unwrap_or(rest) } else { rest };
        matches!(next.first(), Some(b'\n' | b'\r'))
    }

    fn event(&self, here: Option<&[u8]>, stage: Stage, take: &mut impl FnMut(Event<'_>) -> bool) -> bool {
        let data = here.or_else(|| self.data.get());
        self.lines != Lines::None && take(Event { name: self.name.get().unwrap_or_default(), data, stage })
    }

    fn clear(&mut self) {
        self.name.clear();
        self.data.clear();
        self.lines = Lines::None;
    }

    /// Bytes of memory.
    #[cfg(test)]
    pub fn held(&self) -> usize {
        self.name.held() + self.data.held()
    }
}

impl Field {
    fn of(name: &[u8]) -> Self {
        match name {
            b"data" => Self::Data,
            b"event" => Self::Event,
            _ => Self::Other,
        }
    }
}

impl Head {
    /// Adds a byte, if the name can still be one that means something.
    fn push(&mut self, byte: u8) -> bool {
        let Some(place) = self.bytes.get_mut(self.len) else { return false };
        *place = byte;
        self.len += 1;
        true
    }

    fn field(&self) -> Field {
        self.bytes.get(..self.len).map_or(Field::Other, Field::of)
    }
}
