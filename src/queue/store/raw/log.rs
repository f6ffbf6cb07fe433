//! sled's file as bytes: segments of messages.
//!
//! A segment is 512 KiB, anywhere in the file; its header has the place in the log that it stands for, and how much of the log was on the
//! disk for sure when it was begun. Messages follow without a gap, each with its length, the number of its segment, the page that it
//! belongs to, and a checksum over all of it. The last one of a full segment is a cap.

use std::fs::File;
use std::os::unix::fs::FileExt;

/// Bytes of a segment: the engine's own default, which [`Sled`](super::super::sled::Sled) leaves alone.
pub const SEGMENT: usize = 512 << 10;

/// The same, as a length in the log.
pub const LEN: Lsn = 512 << 10;

/// Bytes of a segment's header.
pub const HEAD: usize = 20;

/// A message has its header within so many bytes; where fewer are left, a segment is full.
const MESSAGE: usize = 32;

/// A position in the log.
pub type Lsn = i64;

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The rest of the segment is of no use.
    Cap,
    /// A batch: it counts only if the log goes on to this position.
    Batch,
    /// The page is gone.
    Free,
    /// A page, as a whole.
    Node,
    /// A change of a page.
    Link,
    /// The engine's own bookkeeping.
    Other,
}

/// A message whose checksum agrees.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    pub lsn: Lsn,
    pub kind: Kind,
    pub page: u64,
    pub body: &'a [u8],
    /// Where the body lies in the file.
    pub at: u64,
}

/// A segment's header.
#[derive(Debug, Clone, Copy)]
pub struct Segment {
    /// Where it lies in the file.
    pub at: u64,
    /// Where in the log it stands; none if its header is no header.
    pub lsn: Option<Lsn>,
    /// The log was on the disk up to here.
    pub stable: Lsn,
}

/// What became of reading a segment.
#[derive(Debug, Clone, Copy, Default)]
pub struct Walk {
    /// Bytes that can be read without a gap.
    pub end: usize,
    /// It can be read to its end.
    pub complete: bool,
    /// Messages of the same segment that lie behind something that can't be read.
    pub behind: u64,
    /// Positions of the first and the last of them.
    pub first: Lsn,
    pub last: Lsn,
    /// What follows belongs to a later use of the same bytes.
    pub reused: bool,
}

/// Reads as much of `buffer` as the file has; the rest is zero.
pub fn read(file: &File, at: u64, buffer: &mut [u8]) -> std::io::Result<()> {
    let mut done = 0;
    while done < buffer.len() {
        match file.read_at(&mut buffer[done..], at + done as u64) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    buffer[done..].fill(0);
    Ok(())
}

/// The headers of all segments.
pub fn segments(file: &File) -> std::io::Result<Vec<Segment>> {
    let size = file.metadata()?.len();
    let mut head = [0; HEAD];
    let mut found = Vec::new();
    for at in (0..size).step_by(SEGMENT) {
        read(file, at, &mut head)?;
        found.push(header(at, &head));
    }
    Ok(found)
}

fn header(at: u64, head: &[u8; HEAD]) -> Segment {
    let number = |at: usize| Lsn::from_le_bytes(head[at..at + 8].try_into().unwrap_or_default()) ^ Lsn::MAX;
    let sum = u32::from_le_bytes(head[..4].try_into().unwrap_or_default());
    let (lsn, stable) = (number(4), number(12));
    let good = sum == crc32fast::hash(&head[4..]) ^ u32::MAX && lsn >= 0 && lsn % LEN == 0 && stable >= -1;
    Segment { at, lsn: good.then_some(lsn), stable: if good { stable } else { -1 } }
}

/// Visits the messages of one segment: of the one with this position or, without one, of whichever the first message says.
pub fn walk(buffer: &[u8], at: u64, lsn: Option<Lsn>, visit: &mut dyn FnMut(&Message<'_>)) -> Walk {
    let mut number = lsn.and_then(|lsn| u64::try_from(lsn / LEN).ok());
    let (mut here, mut whole, mut walk) = (HEAD, lsn.is_some(), Walk { end: HEAD, ..Walk::default() });
    while here + MESSAGE <= buffer.len() {
        match message(buffer, at, here) {
            Some((message, of, next)) if number.is_none_or(|n| n == of) => {
                number = Some(of);
                visit(&message);
                if whole {
                    walk.end = next;
                } else {
                    if walk.behind == 0 {
                        walk.first = message.lsn;
                    }
                    walk.behind += 1;
                    walk.last = message.lsn;
                }
                if message.kind == Kind::Cap {
                    walk.complete = whole;
                    return walk;
                }
                here = next;
            }
            other => {
                walk.reused |= other.is_some_and(|(_, of, _)| number.is_some_and(|n| n < of));
                whole = false;
                // The fifth byte of a message is its kind, which is never zero: most of what can't be read is empty.
                let from = (here + 5).min(buffer.len());
                here = buffer[from..].iter().position(|b| *b != 0).map_or(buffer.len(), |n| from + n - 4);
            }
        }
    }
    walk.complete = whole;
    walk
}

/// The message that begins at `here`, the number of its segment, and where the next one begins.
fn message(buffer: &[u8], at: u64, here: usize) -> Option<(Message<'_>, u64, usize)> {
    let head = buffer.get(here..)?;
    let sum = u32::from_le_bytes(head.get(..4)?.try_into().ok()?);
    let kind = match head.get(4)? {
        2 => Kind::Cap,
        3 => Kind::Batch,
        4 => Kind::Free,
        8 => Kind::Node,
        10 => Kind::Link,
        1 | 5..=11 => Kind::Other,
        _ => return None,
    };
    let mut rest = &head[5..];
    let len = usize::try_from(varint(&mut rest)?).ok()?;
    let segment = varint(&mut rest)?;
    let page = varint(&mut rest)?;
    let from = head.len() - rest.len();
    let body = rest.get(..len)?;
    let mut hash = crc32fast::Hasher::new();
    hash.update(body);
    hash.update(&head[4..from]);
    if hash.finalize() ^ u32::MAX != sum {
        return None;
    }
    let lsn = Lsn::try_from(segment).ok()?.checked_mul(LEN)?.checked_add(Lsn::try_from(here).ok()?)?;
    let next = here + from + len;
    Some((Message { lsn, kind, page, body, at: at + (here + from) as u64 }, segment, next))
}

/// A number as sled writes it.
pub fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let (&first, rest) = bytes.split_first()?;
    let (value, rest) = match first {
        0..=240 => (u64::from(first), rest),
        241..=248 => (240 + 256 * (u64::from(first) - 241) + u64::from(*rest.first()?), &rest[1..]),
        249 => (2288 + 256 * u64::from(*rest.first()?) + u64::from(*rest.get(1)?), &rest[2..]),
        more => {
            let (number, rest) = rest.split_at_checked(usize::from(more) - 247)?;
            let mut bytes = [0; 8];
            bytes[..number.len()].copy_from_slice(number);
            (u64::from_le_bytes(bytes), rest)
        }
    };
    *bytes = rest;
    Some(value)
}

/// Bytes with their length before them.
pub fn text<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = usize::try_from(varint(bytes)?).ok()?;
    let (text, rest) = bytes.split_at_checked(len)?;
    *bytes = rest;
    Some(text)
}
