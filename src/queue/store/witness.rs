//! The witness: a small file beside the store that remembers how far the queue had come.
//!
//! A store that lost its end is in perfect order; nothing in it tells that there was more. So about once a second, and when the queue is
//! closed, what the store holds of its own progress is written to a file of its own: the next place, and each sink with its ledger. A store
//! that is behind its witness has gone back: that is damage.
//!
//! The witness is written from rows that are on stable storage, never from newer ones, and is itself never synced: after a loss of power it
//! may be old, or missing, or broken, and then tells nothing. So it is never ahead of an undamaged store, under `durability = "interval"`
//! either.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::super::codec::{self, Stored};
use super::super::rows::{Meta, SinkRow};
use super::super::{Ledger, SinkId, keys};
use super::{Db, StoreError};

/// Its file's name.
pub const NAME: &str = "witness";

/// How far a sink had come.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    pub id: SinkId,
    pub name: String,
    pub ledger: Ledger,
    pub delivered_kept: u64,
}

/// How far a queue had come.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Witness {
    pub meta: Option<Meta>,
    pub sinks: Vec<Seen>,
}

impl Stored for Witness {}

impl Witness {
    /// What a database holds of its own progress; rows that can't be read are left out.
    pub fn of(db: &dyn Db) -> Result<Self, StoreError> {
        let mut names = BTreeMap::new();
        let prefix = keys::names();
        db.scan(prefix.clone()..keys::end_of(&prefix), &mut |key, id| {
            if let Ok(id) = codec::decode::<SinkId>(id) {
                names.insert(id, String::from_utf8_lossy(&key[1..]).into_owned());
            }
            true
        })?;
        let meta = db.get(&keys::meta())?.and_then(|row| codec::decode(&row).ok());
        let mut sinks = Vec::new();
        for (id, name) in names {
            let row = db.get(&keys::sink(id))?.and_then(|row| codec::decode::<SinkRow>(&row).ok());
            let SinkRow { ledger, delivered_kept, .. } = row.unwrap_or_default();
            sinks.push(Seen { id, name, ledger, delivered_kept });
        }
        Ok(Self { meta, sinks })
    }

    /// What the other one has and this one does not, in words.
    pub fn behind(&self, other: &Self) -> Option<String> {
        let next = |w: &Self| w.meta.as_ref().map_or(0, |m| m.next_seq);
        if next(self) < next(other) {
            return Some(format!("its next place is {}, it was {} already", next(self), next(other)));
        }
        other.sinks.iter().find_map(|Seen { id, name, ledger: was, .. }| {
            let is = self.sinks.iter().find(|seen| seen.id == *id).map_or(0, |seen| seen.ledger.captured);
            (is < was.captured).then(|| format!("{is} episodes were captured for {name}, it was {} already", was.captured))
        })
    }

    /// Reads the file; none if it is missing or can't be read, which tells nothing.
    pub fn read(dir: &Path) -> Option<Self> {
        codec::decode(&std::fs::read(dir.join(NAME)).ok()?).ok()
    }

    /// Writes the file, whole or not at all.
    pub fn write(&self, dir: &Path) -> Result<(), StoreError> {
        let bytes = codec::encode(self).map_err(std::io::Error::other);
        let fresh = dir.join("witness.new");
        let write = || {
            std::fs::write(&fresh, bytes?)?;
            std::fs::rename(&fresh, dir.join(NAME))
        };
        write().map_err(StoreError::io("writing the queue's witness"))
    }
}
