//! What is remembered for a while beside the episodes: unique keys, notes, and the clocks of lanes that ran empty; and how all of it is
//! forgotten, by one index over the time.
//!
//! None of it is an episode: what can't be read here is taken for absent, is said in the log and is written over, and nobody waits for it.

use uuid::Uuid;

use super::codec::{self, Stored};
use super::engine::{Engine, SWEEP};
use super::keys::{self, Fading};
use super::retention::ROWS;
use super::rows::{NoteRow, NoteText, Taken};
use super::seal::Seals;
use super::store::{MAX_VALUE, Store};
use super::txn::{Txn, TxnError};
use super::{AppendError, Key, Note, Unique, times};

/// The longest note (bytes).
pub const MAX_NOTE: usize = 16 << 20;

/// Bytes that a unique key takes with its rows, roughly.
pub const UNIQUE: u64 = 128;

/// Rows that are removed in one go, but for the last note's.
const FORGET: usize = 16 * SWEEP;

/// How often to read a note that changes while it is read.
const READS: usize = 3;

/// A note on its way into the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Writing {
    pub key: Key,
    pub until: u64,
    /// A [`NoteText`], encoded and sealed by the caller.
    pub text: Vec<u8>,
}

impl Writing {
    /// Refuses a note that is too long.
    pub fn new(note: Note, seals: &Seals) -> Result<Self, AppendError> {
        let Note { key, value, until } = note;
        if value.len() > MAX_NOTE {
            tracing::error!(bytes = value.len(), MAX_NOTE, "a note is too long");
            return Err(AppendError::Failed);
        }
        let text = seals.encode(&NoteText(value), &keys::note_text(key)).map_err(|error| {
            tracing::error!(%error, "a note can't be encoded");
            AppendError::Failed
        })?;
        Ok(Self { key, until, text })
    }

    /// Bytes that it takes with its rows, roughly.
    pub fn size(&self) -> u64 {
        self.text.len() as u64 + ROWS
    }
}

/// A value that may be damaged.
pub(super) fn readable<T: Stored>(txn: &Txn<'_>, key: &[u8]) -> Result<Option<T>, TxnError> {
    match txn.get(key) {
        Err(TxnError::Codec(error)) => {
            tracing::error!(table = %key[0].escape_ascii(), %error, "a row can't be read; it is taken for absent");
            Ok(None)
        }
        other => other,
    }
}

/// The note with this key, unless it has expired.
pub fn read(store: &Store, seals: &Seals, key: Key, now: u64) -> Result<Option<Vec<u8>>, TxnError> {
    let txn = Txn::new(store);
    let mut result = Ok(None);
    for _ in 0..READS {
        if txn.get::<NoteRow>(&keys::note(key))?.is_none_or(|row| row.until <= now) {
            return Ok(None);
        }
        let prefix = keys::note_text(key);
        let mut text = Vec::new();
        txn.scan(prefix.clone()..keys::end_of(&prefix), &mut |_, piece| {
            text.extend_from_slice(piece);
            true
        })?;
        // One that can't be read is damaged, or was replaced while its pieces were being read.
        result = seals.decode::<NoteText>(&text, &prefix).map(|NoteText(text)| Some(text));
        if result.is_ok() {
            break;
        }
    }
    Ok(result?)
}

/// Bytes that a note takes with its rows, roughly.
pub fn size(txn: &Txn<'_>, key: Key) -> Result<u64, TxnError> {
    let prefix = keys::note_text(key);
    let mut size = ROWS;
    txn.scan(prefix.clone()..keys::end_of(&prefix), &mut |_, piece| {
        size += piece.len() as u64;
        true
    })?;
    Ok(size)
}

impl Engine {
    /// Who has a unique key now.
    pub(super) fn taken(txn: &Txn<'_>, unique: Unique, now: u64) -> Result<Option<Taken>, TxnError> {
        Ok(readable::<Taken>(txn, &keys::unique(unique.key))?.filter(|t| t.until > now))
    }

    /// Gives a unique key to an episode.
    pub(super) fn take(&mut self, txn: &mut Txn<'_>, unique: Unique, id: Uuid) -> Result<(), TxnError> {
        let key = keys::unique(unique.key);
        if txn.get_raw(&key)?.is_none() {
            self.meta.bytes += UNIQUE;
        } else if let Some(former) = readable::<Taken>(txn, &key)? {
            txn.remove(keys::fading(former.until, Fading::Unique(unique.key)));
        }
        txn.put(key, &Taken { id, until: unique.until })?;
        txn.put_raw(keys::fading(unique.until, Fading::Unique(unique.key)), Vec::new());
        Ok(())
    }

    /// Writes a note, in the place of the one with the same key.
    pub fn note(&mut self, txn: &mut Txn<'_>, note: &Writing, now: u64) -> Result<Result<(), AppendError>, TxnError> {
        if self.meta.bytes + note.size() > self.limits.max_bytes {
            self.evict(txn, note.size(), now)?;
        }
        if self.meta.bytes + note.size() > self.limits.max_bytes {
            return Ok(Err(AppendError::Full));
        }
        self.put_note(txn, note)?;
        Ok(Ok(()))
    }

    pub(super) fn put_note(&mut self, txn: &mut Txn<'_>, note: &Writing) -> Result<(), TxnError> {
        if let Some(former) = readable::<NoteRow>(txn, &keys::note(note.key))? {
            txn.remove(keys::fading(former.until, Fading::Note(note.key)));
        }
        self.drop_note(txn, note.key)?;
        for (n, piece) in (0u16..).zip(note.text.chunks(MAX_VALUE)) {
            txn.put_raw(keys::note_chunk(note.key, n), piece.to_vec());
        }
        txn.put(keys::note(note.key), &NoteRow { until: note.until })?;
        txn.put_raw(keys::fading(note.until, Fading::Note(note.key)), Vec::new());
        self.meta.bytes += note.size();
        Ok(())
    }

    /// Removes a note, its row of `y` aside; how many rows.
    fn drop_note(&mut self, txn: &mut Txn<'_>, key: Key) -> Result<usize, TxnError> {
        if txn.get_raw(&keys::note(key))?.is_none() {
            return Ok(0);
        }
        self.meta.bytes = self.meta.bytes.saturating_sub(size(txn, key)?);
        let mut gone = vec![keys::note(key)];
        let prefix = keys::note_text(key);
        txn.scan(prefix.clone()..keys::end_of(&prefix), &mut |key, _| {
            gone.push(key.to_vec());
            true
        })?;
        let rows = gone.len();
        for key in gone {
            txn.remove(key);
        }
        Ok(rows)
    }

    /// Forgets what has expired; whether more is waiting.
    pub fn forget(&mut self, txn: &mut Txn<'_>, now: u64) -> Result<bool, TxnError> {
        let mut due = Vec::new();
        txn.scan(keys::fadings()..keys::fading_before(now.saturating_add(1)), &mut |key, value| {
            due.push((key.to_vec(), value.to_vec()));
            due.len() < SWEEP
        })?;
        let (mut seen, mut rows) = (0, 0);
        for (key, value) in &due {
            seen += 1;
            txn.remove(key.clone());
            let Some((time, what)) = keys::fading_of(key) else { continue };
            match what {
                // A row that can't be read must have been the one that this row of `y` is for, or is as good as absent.
                Fading::Unique(name) => {
                    let ours = readable::<Taken>(txn, &keys::unique(name))?.is_none_or(|t| t.until == time);
                    if ours && txn.get_raw(&keys::unique(name))?.is_some() {
                        txn.remove(keys::unique(name));
                        self.meta.bytes = self.meta.bytes.saturating_sub(UNIQUE);
                    }
                }
                Fading::Note(name) => {
                    let ours = readable::<NoteRow>(txn, &keys::note(name))?.is_none_or(|n| n.until == time);
                    rows += if ours { self.drop_note(txn, name)? } else { 0 };
                }
                Fading::Clock(sink, lane) => match codec::decode::<u64>(value) {
                    Ok(at) => times::let_go(txn, sink, lane, at.cast_signed(), now)?,
                    Err(error) => tracing::error!(%error, "a lane's clock is kept for good"),
                },
            }
            if rows >= FORGET {
                break;
            }
        }
        Ok(seen < due.len() || due.len() == SWEEP)
    }
}
