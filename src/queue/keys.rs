//! The keys: one ordered space, a table is a first byte. Integers are big-endian, so that byte order is their order.
//!
//! | table | key | value | written |
//! |---|---|---|---|
//! | `m` | | [`Meta`](super::rows::Meta): next place, totals | with every batch that changes them |
//! | `n` | sink name | its [`SinkId`] | once per name |
//! | `s` | sink | [`SinkRow`](super::rows::SinkRow): its part of the ledger, whether it is paused | with every batch that changes it |
//! | `e` | seq ‖ chunk | the record, cut into pieces that stay inside sled's log | once, not in the order of places; anew when a replay adds a sink |
//! | `i` | episode id | seq | once |
//! | `l` | sink ‖ lane ‖ seq | [`Waiting`](super::rows::Waiting): attempts, not-before | at append, at each attempt |
//! | `r` | sink ‖ due ‖ lane | nothing: one row per lane that has work, at the not-before of its head | when the head changes |
//! | `t` | seq ‖ sink | [`Ended`](super::rows::Ended): the receipt or the dead letter | at the end |
//! | `d` | sink ‖ seq | nothing: the dead letters of a sink | at the end |
//! | `g` | sink ‖ lane ‖ seq | nothing: the lane is [parked](super::park) until this dead letter is gone | with that dead letter |
//! | `x` | time ‖ seq ‖ sink | nothing: when an ended row expires | at the end |
//! | `h` | seq ‖ sink ‖ n | one line of the history | after each attempt |
//! | `c` | sink ‖ lane | the latest event time given in the lane, until that episode's receipt expires | at each first attempt |
//! | `u` | unique key | [`Taken`](super::rows::Taken): by which episode, until when | with that episode |
//! | `o` | note key | [`NoteRow`](super::rows::NoteRow): until when | with each such note |
//! | `p` | note key ‖ chunk | what the note says, cut into pieces | with each such note |
//! | `j` | sink | [`ReplayRow`](super::replay::ReplayRow): a replay under way there | with each slice of it |
//! | `w` | | nothing: this generation is whole, see [`store`](super::store) | last, when a generation is made from another |
//! | `q` | | nothing: this generation was left for another | then |
//! | `z` | | [`Commits`](super::store): their numbers | with every commit |
//! | `k` | id of a key | nothing: a key of `queue.encryption_key_file` that [seals](super::seal) | when the queue is opened with it |
//! | `y` | time ‖ a key of `u`, `o` or `c` | for `c` the time that was given: when that row may go | with that row |
//!
//! Nothing counts on the order in which places are filled: an exchange has its place from its beginning, and its episode is appended at its
//! end. Places that were never filled are gaps.

use uuid::Uuid;

use super::seal::KeyId;
use super::types::Key as Name;
use super::{Lane, Seq, SinkId};

/// A key.
pub type Key = Vec<u8>;

/// What a row of `y` speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fading {
    /// A row of `u`.
    Unique(Name),
    /// A row of `o`.
    Note(Name),
    /// A row of `c`.
    Clock(SinkId, Lane),
}

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

pub fn whole() -> Key {
    key(b'w', &[])
}

pub fn left() -> Key {
    key(b'q', &[])
}

pub fn commits() -> Key {
    key(b'z', &[])
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

pub fn replay(sink: SinkId) -> Key {
    key(b'j', &[&sink.0.to_be_bytes()])
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

pub fn endeds() -> Key {
    key(b't', &[])
}

pub fn waitings() -> Key {
    key(b'l', &[])
}

pub fn waitings_of(sink: SinkId) -> Key {
    key(b'l', &[&sink.0.to_be_bytes()])
}

pub fn dead(sink: SinkId, seq: Seq) -> Key {
    key(b'd', &[&sink.0.to_be_bytes(), &seq.to_be_bytes()])
}

pub fn parks(sink: SinkId) -> Key {
    key(b'g', &[&sink.0.to_be_bytes()])
}

pub fn all_parks() -> Key {
    key(b'g', &[])
}

pub fn parked(sink: SinkId, lane: Lane) -> Key {
    key(b'g', &[&sink.0.to_be_bytes(), &lane.0])
}

pub fn park(sink: SinkId, lane: Lane, seq: Seq) -> Key {
    key(b'g', &[&sink.0.to_be_bytes(), &lane.0, &seq.to_be_bytes()])
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

pub fn all_histories() -> Key {
    key(b'h', &[])
}

pub fn history(seq: Seq, sink: SinkId, n: u32) -> Key {
    key(b'h', &[&seq.to_be_bytes(), &sink.0.to_be_bytes(), &n.to_be_bytes()])
}

pub fn clock(sink: SinkId, lane: Lane) -> Key {
    key(b'c', &[&sink.0.to_be_bytes(), &lane.0])
}

pub fn uniques() -> Key {
    key(b'u', &[])
}

pub fn unique(name: Name) -> Key {
    key(b'u', &[&name.0])
}

pub fn notes() -> Key {
    key(b'o', &[])
}

pub fn note(name: Name) -> Key {
    key(b'o', &[&name.0])
}

pub fn note_texts() -> Key {
    key(b'p', &[])
}

pub fn note_text(name: Name) -> Key {
    key(b'p', &[&name.0])
}

pub fn note_chunk(name: Name, n: u16) -> Key {
    key(b'p', &[&name.0, &n.to_be_bytes()])
}

pub fn sealing_keys() -> Key {
    key(b'k', &[])
}

pub fn sealing_key(id: KeyId) -> Key {
    key(b'k', &[&id.0])
}

pub fn fadings() -> Key {
    key(b'y', &[])
}

/// Everything that fades before `time`.
pub fn fading_before(time: u64) -> Key {
    key(b'y', &[&time.to_be_bytes()])
}

pub fn fading(time: u64, what: Fading) -> Key {
    let row = match what {
        Fading::Unique(name) => unique(name),
        Fading::Note(name) => note(name),
        Fading::Clock(sink, lane) => clock(sink, lane),
    };
    key(b'y', &[&time.to_be_bytes(), &row])
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

/// Whether bytes have the length that a key of their table has.
pub fn is_row(key: &[u8]) -> bool {
    match (key.first(), key.len()) {
        (Some(b'm' | b'w' | b'q' | b'z'), len) => len == 1,
        (Some(b'n' | b'k'), _) => true,
        (Some(b's' | b'j'), len) => len == 3,
        (Some(b'e' | b'd' | b't'), len) => len == 11,
        (Some(b'i' | b'u' | b'o'), len) => len == 17,
        (Some(b'l' | b'r' | b'g'), len) => len == 27,
        (Some(b'x' | b'c' | b'p'), len) => len == 19,
        (Some(b'h'), len) => len == 15,
        (Some(b'y'), _) => fading_of(key).is_some_and(|(time, what)| *key == fading(time, what)),
        _ => false,
    }
}

/// Reads `N` bytes at `at`; a key of this file always has them.
fn bytes<const N: usize>(key: &[u8], at: usize) -> Option<[u8; N]> {
    key.get(at..at + N)?.try_into().ok()
}

/// The place in a key of `e`.
pub fn seq_of_episode(key: &[u8]) -> Option<Seq> {
    bytes(key, 1).map(u64::from_be_bytes)
}

/// Sink and lane in a key of `l` or `g`.
pub fn lane_of_waiting(key: &[u8]) -> Option<(SinkId, Lane)> {
    Some((SinkId(bytes(key, 1).map(u16::from_be_bytes)?), bytes(key, 3).map(Lane)?))
}

/// Place and sink in a key of `t`.
pub fn seq_and_sink_of_ended(key: &[u8]) -> Option<(Seq, SinkId)> {
    Some((bytes(key, 1).map(u64::from_be_bytes)?, SinkId(bytes(key, 9).map(u16::from_be_bytes)?)))
}

/// The place in a key of `l` or `g`.
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

/// The name in a key of `u` or `o`.
pub fn name_of(key: &[u8]) -> Option<Name> {
    bytes(key, 1).map(Name)
}

/// The id in a key of `k`.
pub fn sealing_key_of(key: &[u8]) -> Option<KeyId> {
    bytes(key, 1).map(KeyId)
}

/// Whether a row holds the beginning of its value: one of `p` may hold a later piece of it.
pub fn is_first_piece(key: &[u8]) -> bool {
    key.first() != Some(&b'p') || bytes(key, 17).map(u16::from_be_bytes) == Some(0)
}

/// Time and subject in a key of `y`.
pub fn fading_of(key: &[u8]) -> Option<(u64, Fading)> {
    let time = bytes(key, 1).map(u64::from_be_bytes)?;
    let row = key.get(9..)?;
    let what = match row.first()? {
        b'u' => Fading::Unique(name_of(row)?),
        b'o' => Fading::Note(name_of(row)?),
        b'c' => Fading::Clock(SinkId(bytes(row, 1).map(u16::from_be_bytes)?), bytes(row, 3).map(Lane)?),
        _ => return None,
    };
    Some((time, what))
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
        assert_eq!(lane_of_waiting(&waiting(s, l, 77)), Some((s, l)));
        assert_eq!(seq_and_sink_of_ended(&ended(5, s)), Some((5, s)));
        let n = Name([1; 16]);
        let rows =
            [meta(), whole(), name("a"), sink(s), chunk(1, 2), id(Uuid::nil()), waiting(s, l, 1), ready(s, 1, l), ended(1, s)];
        let more = [
            dead(s, 1),
            park(s, l, 1),
            expiry(1, 2, s),
            history(1, s, 2),
            clock(s, l),
            unique(n),
            note(n),
            note_chunk(n, 1),
            replay(s),
        ];
        for row in rows
            .into_iter()
            .chain([left(), commits()])
            .chain(more)
            .chain([fading(1, Fading::Unique(n)), fading(1, Fading::Clock(s, l))])
        {
            assert!(is_row(&row) && (row[0] == b'n' || !is_row(&[&row[..], b"x"].concat())), "{row:?}");
        }
        for what in [Fading::Unique(Name([1; 16])), Fading::Note(Name([2; 16])), Fading::Clock(s, l)] {
            assert_eq!(fading_of(&fading(9, what)), Some((9, what)));
            assert!(fading(9, what) < fading_before(10) && fading(10, what) > fading_before(10));
        }
    }

    #[test]
    fn a_prefix_ends_behind_its_last_key() {
        assert!(waiting(SinkId(u16::MAX), Lane([0xff; 16]), u64::MAX) < end_of(&lane(SinkId(u16::MAX), Lane([0xff; 16]))));
        assert!(end_of(&lane(SinkId(1), Lane([0xff; 16]))) <= lane(SinkId(2), Lane([0; 16])));
    }
}
