//! A JSON document a line.
//!
//! Lines end with LF or CRLF. Blank lines are none. The last line counts without its ending too, if it is JSON.

use memchr::memchr;

use super::buffer::Buffer;
use super::event::{Event, Stage};

/// What some writers put before UTF-8.
const MARK: &[u8] = b"\xef\xbb\xbf";

/// Splits a stream into documents. Keeps at most the limit, and only what a piece has no end of.
#[derive(Debug)]
pub struct Ndjson {
    line: Buffer,
    max: usize,
    is_first: bool,
}

impl Ndjson {
    /// For documents of at most `max` bytes.
    pub fn new(max: usize) -> Self {
        Self { line: Buffer::new(max), max, is_first: true }
    }

    /// Hands each document that `piece` completes to `take`, until that says that the stream has ended; whether it did.
    pub fn feed(&mut self, mut piece: &[u8], mut take: impl FnMut(Event<'_>) -> bool) -> bool {
        let mut is_split = self.line.is_over() || self.line.get().is_some_and(|begun| !begun.is_empty());
        while let Some((line, rest)) = memchr(b'\n', piece).and_then(|end| Some((piece.get(..end)?, piece.get(end + 1..)?))) {
            piece = rest;
            let ended = if is_split {
                self.line.push(line);
                let ended = document(self.line.get(), self.is_first, Stage::Whole, &mut take);
                self.line.clear();
                ended
            } else {
                document(Some(line).filter(|line| line.len() <= self.max), self.is_first, Stage::Whole, &mut take)
            };
            self.is_first = false;
            is_split = false;
            if ended {
                return true;
            }
        }
        if !piece.is_empty() {
            self.line.push(piece);
        }
        false
    }

    /// No more bytes: the last line may have had no ending.
    pub fn finish(self, mut take: impl FnMut(Event<'_>) -> bool) {
        document(self.line.get(), self.is_first, Stage::Rest, &mut take);
    }

    /// Bytes of memory.
    #[cfg(test)]
    pub fn held(&self) -> usize {
        self.line.held()
    }
}

fn document(line: Option<&[u8]>, is_first: bool, stage: Stage, take: &mut impl FnMut(Event<'_>) -> bool) -> bool {
    let data = line.map(|line| if is_first { line.strip_prefix(MARK).unwrap_or(line) } else { line }.trim_ascii());
    data != Some(b"") && take(Event { name: b"", data, stage })
}
