//! Sealing: what holds content can't be read from the disk without a key of `queue.encryption_key_file`.
//!
//! Sealed are the episode in a record, what a note says, the lines of history and why a sink is paused, for these two may hold what a
//! backend answered. Each is sealed as it was encoded, and lies where the encoded value lies without a key:
//!
//! | bytes | |
//! |---|---|
//! | 1 | [`MARK`]: the high bit says that it is sealed, the others count versions of this layout. Plain values begin with a [`codec`] version |
//! | 4 | the key's id: the first bytes of the SHA-256 of [`DOMAIN`] and the key |
//! | 24 | the nonce, random: 192 bits are so many that no counter is needed, and none can be set back by a crash or a restored copy |
//! | … | XChaCha20-Poly1305 of the value, and its tag of 16 bytes |
//!
//! The associated data is the place: the key of the row that the value is in, for an episode that of its id. So nothing can be put in
//! another's place unnoticed. It does not keep somebody who writes to the disk from putting plain values or old ones there: plain ones must
//! stay readable, for a queue that gets its first key has nothing else.
//!
//! Everything else stays plain, so that ledger, lanes, retention and expiry go on without looking inside: keys of rows, ids of episodes,
//! names of sinks, times, sizes, counts, reasons of dead letters (a few words of our own). Lanes, unique keys and keys of notes are SHA-256
//! of what they stand for, cut to 16 bytes, without a secret: nobody reads a session's name there, but whoever guesses one can see whether it
//! is there, and which episodes belong together and when they came is plain to see.
//!
//! A row of `k` names each key that sealed something, from before it first did. A key that the file no longer has is looked for in all
//! values, once, when the queue is opened: if one needs it the queue stays shut, else the row goes.

use std::collections::BTreeSet;
use std::fmt;

use chacha20poly1305::aead::Generate;
use chacha20poly1305::{AeadInOut, KeyInit, Tag, XChaCha20Poly1305, XNonce};
use sha2::{Digest, Sha256};

use super::codec::{self, CodecError, Stored};
use super::engine::Engine;
use super::keys;
use super::notes::readable;
use super::replay::ReplayRow;
use super::rows::Record;
use super::txn::{Txn, TxnError};
use crate::config::encryption::SealingKey;

/// The first byte of a sealed value.
const MARK: u8 = 0x81;

/// What makes a key's id different from any other digest of it.
const DOMAIN: &[u8] = b"offramp queue key id\0";

const ID: usize = 4;
const NONCE: usize = 24;
const HEAD: usize = 1 + ID + NONCE;
const TAG: usize = 16;

/// What a key is called where it must not be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyId(pub [u8; ID]);

impl KeyId {
    fn of(key: &SealingKey) -> Self {
        let digest = Sha256::new().chain_update(DOMAIN).chain_update(key.bytes()).finalize();
        let mut id = [0; ID];
        id.copy_from_slice(&digest[..ID]);
        Self(id)
    }

    /// Of a sealed value; none if it is plain.
    fn in_value(bytes: &[u8]) -> Option<Self> {
        let id = bytes.get(1..=ID).filter(|_| bytes[0] == MARK)?;
        id.try_into().ok().map(Self)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Seals and opens. Without keys it does neither, and values are plain.
pub struct Seals {
    /// The first one seals. The ciphers wipe their keys.
    keys: Vec<(KeyId, XChaCha20Poly1305)>,
}

impl Seals {
    /// With these keys.
    pub fn new(keys: &[SealingKey]) -> Self {
        Self { keys: keys.iter().map(|key| (KeyId::of(key), XChaCha20Poly1305::new(key.bytes().into()))).collect() }
    }

    /// A value as bytes, sealed to its place.
    pub fn encode<T: Stored>(&self, value: &T, place: &[u8]) -> Result<Vec<u8>, CodecError> {
        let plain = codec::encode(value)?;
        let Some((id, cipher)) = self.keys.first() else { return Ok(plain) };
        let nonce = XNonce::try_generate().map_err(|_| CodecError::Random)?;
        let mut out = Vec::with_capacity(HEAD + plain.len() + TAG);
        out.push(MARK);
        out.extend_from_slice(&id.0);
        out.extend_from_slice(&nonce);
        out.extend_from_slice(&plain);
        // Fails beyond 256 GiB alone.
        let tag = cipher.encrypt_inout_detached(&nonce, place, (&mut out[HEAD..]).into()).map_err(|_| CodecError::Seal)?;
        out.extend_from_slice(&tag);
        Ok(out)
    }

    /// Bytes as a value, if they were sealed to this place, or are plain.
    pub fn decode<T: Stored>(&self, bytes: &[u8], place: &[u8]) -> Result<T, CodecError> {
        let Some(id) = KeyId::in_value(bytes) else { return codec::decode(bytes) };
        if !self.has(id) {
            return Err(CodecError::Key(id));
        }
        let (Some(nonce), Some((sealed, tag))) = (
            bytes.get(1 + ID..HEAD).and_then(|nonce| XNonce::try_from(nonce).ok()),
            bytes.get(HEAD..).and_then(<[u8]>::split_last_chunk::<TAG>),
        ) else {
            return Err(CodecError::Short(bytes.len()));
        };
        // Two keys may have one id.
        for (_, cipher) in self.keys.iter().filter(|(key, _)| *key == id) {
            let mut plain = sealed.to_vec();
            if cipher.decrypt_inout_detached(&nonce, place, plain.as_mut_slice().into(), &Tag::from(*tag)).is_ok() {
                return codec::decode(&plain);
            }
        }
        Err(CodecError::Seal)
    }

    fn has(&self, id: KeyId) -> bool {
        self.keys.iter().any(|(key, _)| *key == id)
    }
}

impl Engine {
    /// Writes down which key seals from now on, and refuses to go on without one that is still needed.
    pub fn settle_keys(&mut self) -> Result<(), TxnError> {
        let store = self.store.clone();
        let mut txn = Txn::new(&store);
        let mut used = BTreeSet::new();
        let prefix = keys::sealing_keys();
        txn.scan(prefix.clone()..keys::end_of(&prefix), &mut |key, _| {
            used.extend(keys::sealing_key_of(key));
            true
        })?;
        let missing: BTreeSet<KeyId> = used.iter().filter(|id| !self.seals.has(**id)).copied().collect();
        if !missing.is_empty() {
            if let Some(needed) = self.needs(&txn, &missing)? {
                return Err(CodecError::Key(needed).into());
            }
            for id in missing {
                tracing::info!(key = %id, "nothing is sealed with this key any more");
                txn.remove(keys::sealing_key(id));
            }
        }
        if let Some((first, _)) = self.seals.keys.first().filter(|(first, _)| !used.contains(first)) {
            txn.put_raw(keys::sealing_key(*first), Vec::new());
        }
        let writes = self.close(txn)?;
        if !writes.is_empty() {
            store.commit(writes, true)?;
        }
        Ok(())
    }

    /// One of these keys that a value is sealed with. Reads everything that may be.
    fn needs(&self, txn: &Txn<'_>, missing: &BTreeSet<KeyId>) -> Result<Option<KeyId>, TxnError> {
        let needed = |value: &[u8]| KeyId::in_value(value).filter(|id| missing.contains(id));
        let mut found = self.sinks.values().find_map(|sink| needed(sink.row.paused.as_ref()?));
        let replays: Vec<ReplayRow> =
            self.sinks.keys().filter_map(|id| readable(txn, &keys::replay(*id)).transpose()).collect::<Result<_, _>>()?;
        found = found.or(replays.iter().find_map(|replay| needed(replay.session.as_ref()?)));
        for prefix in [keys::all_histories(), keys::note_texts()] {
            txn.scan(prefix.clone()..keys::end_of(&prefix), &mut |key, value| {
                // Later pieces of a note may look like anything.
                if keys::is_first_piece(key) {
                    found = found.or(needed(value));
                }
                found.is_none()
            })?;
        }
        let mut record = (None, Vec::new());
        let in_record = |bytes: &[u8]| codec::decode::<Record>(bytes).ok().and_then(|record| needed(&record.episode));
        let prefix = keys::episodes();
        txn.scan(prefix.clone()..keys::end_of(&prefix), &mut |key, piece| {
            let seq = keys::seq_of_episode(key);
            if record.0 != seq {
                found = found.or(in_record(&record.1));
                record = (seq, Vec::new());
            }
            record.1.extend_from_slice(piece);
            found.is_none()
        })?;
        Ok(found.or(in_record(&record.1)))
    }
}
