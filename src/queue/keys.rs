//! The keys: one ordered space, a table is a first byte. Integers are big-endian, so that byte order is their order.
//!
//! | table | key | value | written |
//! |---|---|---|---|
//! | `m` | | [`Meta`](super::rows::Meta): format, next place, totals | with every batch that changes them |
//! | `n` | sink name | its [`SinkId`] | once per name |
//! | `s` | sink | [`SinkRow`](super::rows::SinkRow): its part of the ledger, whether it is paused | with every batch that changes it |
//! | `e` | seq ‖ chunk | the record, cut into pieces that stay inside sled's log | once |
//! | `i` | episode id | seq | once |
//! | `l` | sink ‖ lane ‖ seq | [`Waiting`](super::rows::Waiting): attempts, not-before | at append, at each attempt |
//! | `r` | sink ‖ due ‖ lane | nothing: one row per lane that has work, at the not-before of its head | when the head changes |
//! | `t` | seq ‖ sink | [`Ended`](super::rows::Ended): the receipt or the dead letter | at the end |
//! | `d` | sink ‖ seq | nothing: the dead letters of a sink | at the end |
//! | `x` | time ‖ seq ‖ sink | nothing: when an ended row expires | at the end |
//! | `h` | seq ‖ sink ‖ n | one line of the history | after each attempt |
//! | `c` | sink ‖ lane | the event time of the lane's last delivery, while its receipt is kept | when a lane runs empty |

use uuid::Uuid;

use super::{Lane, Seq, SinkId};

/// A key.
pub type Key = Vec<u8>;

fn key(table: u8, parts: &[&[u8]]) -> Key {
    let mut key = Vec::with_capacity(1 + parts.iter().map(|p| p.len()).sum::<usize>());
    key.push(table);
    for part in parts {
        key.extend_from_slice(part);
    }
    key
}

pub fn meta() -> Key {
    key(b'm', &[])
}

pub fn name(name: &str) -> Key {
    key(b'n', &[name.as_bytes()])
}

pub fn names() -> Key {
    key(b'n', &[])
}

pub fn sink(sink: SinkId) -> Key {
    key(b's', &[&sink.0.to_be_bytes()])
}

pub fn episodes() -> Key {
    key(b'e', &[])
}

pub fn episode(seq: Seq) -> Key {
    key(b'e', &[&seq.to_be_bytes()])
}

pub fn chunk(seq: Seq, n: u16) -> Key {
    key(b'e', &[&seq.to_be_bytes(), &n.to_be_bytes()])
}

pub fn id(id: Uuid) -> Key {
    key(b'i', &[id.as_bytes()])
}

pub fn lane(sink: SinkId, lane: Lane) -> Key {
    key(b'l', &[&sink.0.to_be_bytes(), &lane.0])
}

pub fn waiting(sink: SinkId, lane: Lane, seq: Seq) -> Key {
    key(b'l', &[&sink.0.to_be_bytes(), &lane.0, &seq.to_be_bytes()])
}

pub fn readies(sink: SinkId) -> Key {
    key(b'r', &[&sink.0.to_be_bytes()])
}

pub fn ready(sink: SinkId, due: u64, lane: Lane) -> Key {
    key(b'r', &[&sink.0.to_be_bytes(), &due.to_be_bytes(), &lane.0])
}

pub fn ended(seq: Seq, sink: SinkId) -> Key {
    key(b't', &[&seq.to_be_bytes(), &sink.0.to_be_bytes()])
}

pub fn deads(sink: SinkId) -> Key {
    key(b'd', &[&sink.0.to_be_bytes()])
}

pub fn dead(sink: SinkId, seq: Seq) -> Key {
    key(b'd', &[&sink.0.to_be_bytes(), &seq.to_be_bytes()])
}

pub fn expiries() -> Key {
    key(b'x', &[])
}

pub fn expiry(time: u64, seq: Seq, sink: SinkId) -> Key {
    key(b'x', &[&time.to_be_bytes(), &seq.to_be_bytes(), &sink.0.to_be_bytes()])
}

pub fn histories(seq: Seq, sink: SinkId) -> Key {
    key(b'h', &[&seq.to_be_bytes(), &sink.0.to_be_bytes()])
}

pub fn history(seq: Seq, sink: SinkId, n: u32) -> Key {
    key(b'h', &[&seq.to_be_bytes(), &sink.0.to_be_bytes(), &n.to_be_bytes()])
}

pub fn clock(sink: SinkId, lane: Lane) -> Key {
    key(b'c', &[&sink.0.to_be_bytes(), &lane.0])
}

/// The first key behind every key that starts with `prefix`.
pub fn end_of(prefix: &[u8]) -> Key {
    let mut end = prefix.to_vec();
    while let Some(last) = end.last_mut() {
        if *last < u8::MAX {
            *last += 1;
            return end;
        }
        end.pop();
    }
    vec![u8::MAX; 64] // no table starts with 0xff
}

/// Reads `N` bytes at `at`; a key of this file always has them.
fn bytes<const N: usize>(key: &[u8], at: usize) -> Option<[u8; N]> {
    key.get(at..at + N)?.try_into().ok()
}

/// The place in a key of `e`.
pub fn seq_of_episode(key: &[u8]) -> Option<Seq> {
    bytes(key, 1).map(u64::from_be_bytes)
}

/// The place in a key of `l`.
pub fn seq_of_waiting(key: &[u8]) -> Option<Seq> {
    bytes(key, 19).map(u64::from_be_bytes)
}

/// Due time and lane in a key of `r`.
pub fn due_and_lane(key: &[u8]) -> Option<(u64, Lane)> {
    Some((bytes(key, 3).map(u64::from_be_bytes)?, bytes(key, 11).map(Lane)?))
}

/// The place in a key of `d`.
pub fn seq_of_dead(key: &[u8]) -> Option<Seq> {
    bytes(key, 3).map(u64::from_be_bytes)
}

/// Time, place and sink in a key of `x`.
pub fn expiry_of(key: &[u8]) -> Option<(u64, Seq, SinkId)> {
    Some((
        bytes(key, 1).map(u64::from_be_bytes)?,
        bytes(key, 9).map(u64::from_be_bytes)?,
        SinkId(bytes(key, 17).map(u16::from_be_bytes)?),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_by_their_numbers_and_read_back() {
        let (s, l) = (SinkId(7), Lane::of("a"));
        assert!(ready(s, 9, l) < ready(s, 10, l) && ready(s, 255, l) < ready(s, 256, l));
        assert_eq!(due_and_lane(&ready(s, 256, l)), Some((256, l)));
        assert_eq!(seq_of_waiting(&waiting(s, l, 77)), Some(77));
        assert_eq!(seq_of_dead(&dead(s, 5)), Some(5));
        assert_eq!(seq_of_episode(&chunk(5, 3)), Some(5));
        assert_eq!(expiry_of(&expiry(1, 2, s)), Some((1, 2, s)));
        assert_eq!(due_and_lane(b"r"), None);
    }

    #[test]
    fn a_prefix_ends_behind_its_last_key() {
        assert!(waiting(SinkId(u16::MAX), Lane([0xff; 16]), u64::MAX) < end_of(&lane(SinkId(u16::MAX), Lane([0xff; 16]))));
        assert!(end_of(&lane(SinkId(1), Lane([0xff; 16]))) <= lane(SinkId(2), Lane([0; 16])));
    }
}
