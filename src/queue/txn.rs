//! A transaction: the store as it will be once the batch that is being built has been committed.
//!
//! Only the writer makes one, so what it reads can't change under it. Many operations share one transaction and so one commit.

use std::collections::btree_map::Entry;
use std::ops::Range;

use super::ReadError;
use super::codec::{self, CodecError, Stored};
use super::keys::{self, Key};
use super::store::{Store, StoreError, Visit, Writes};

/// Why a value could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum TxnError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The value.
    #[error(transparent)]
    Codec(#[from] CodecError),
}

/// The reason of dead letters whose record can't be read.
pub const UNREADABLE: &str = "unreadable";

/// The reasons of dead letters that another offramp can read: they are kept until they are redriven or purged.
pub const FOREIGN: [&str; 2] = ["later_version", "no_key"];

impl From<TxnError> for ReadError {
    fn from(error: TxnError) -> Self {
        match error {
            TxnError::Store(error) => Self::Store(error.to_string()),
            TxnError::Codec(error @ CodecError::Version { .. }) => Self::Foreign { reason: FOREIGN[0], why: error.to_string() },
            TxnError::Codec(error @ CodecError::Key(_)) => Self::Foreign { reason: FOREIGN[1], why: error.to_string() },
            TxnError::Codec(error) => Self::Unreadable(error.to_string()),
        }
    }
}

/// Reads through pending writes to the store.
pub struct Txn<'a> {
    store: &'a Store,
    writes: Writes,
}

impl<'a> Txn<'a> {
    /// Nothing written yet.
    pub fn new(store: &'a Store) -> Self {
        Self { store, writes: Writes::new() }
    }

    /// What is to be committed.
    pub fn into_writes(self) -> Writes {
        self.writes
    }

    /// How many keys change.
    pub fn len(&self) -> usize {
        self.writes.len()
    }

    pub fn put_raw(&mut self, key: Key, value: Vec<u8>) {
        self.writes.insert(key, Some(value));
    }

    pub fn put<T: Stored>(&mut self, key: Key, value: &T) -> Result<(), TxnError> {
        self.writes.insert(key, Some(codec::encode(value)?));
        Ok(())
    }

    pub fn remove(&mut self, key: Key) {
        match self.writes.entry(key) {
            Entry::Occupied(mut e) => {
                e.insert(None);
            }
            Entry::Vacant(e) => {
                e.insert(None);
            }
        }
    }

    pub fn get_raw(&self, key: &[u8]) -> Result<Option<Vec<u8>>, TxnError> {
        match self.writes.get(key) {
            Some(value) => Ok(value.clone()),
            None => Ok(self.store.get(key)?),
        }
    }

    pub fn get<T: Stored>(&self, key: &[u8]) -> Result<Option<T>, TxnError> {
        Ok(self.get_raw(key)?.map(|v| codec::decode(&v)).transpose()?)
    }

    /// Visits the entries of a range in order, pending writes included.
    pub fn scan(&self, range: Range<Key>, visit: Visit<'_>) -> Result<(), TxnError> {
        let mut pending = self.writes.range(range.clone()).peekable();
        let mut going = true;
        self.store.scan(range, &mut |key, value| {
            while let Some((k, v)) = pending.next_if(|(k, _)| k.as_slice() < key) {
                if v.as_ref().is_some_and(|v| !visit(k, v)) {
                    going = false;
                    return false;
                }
            }
            going = match pending.next_if(|(k, _)| k.as_slice() == key) {
                Some((_, None)) => true,
                Some((k, Some(v))) => visit(k, v),
                None => visit(key, value),
            };
            going
        })?;
        if going {
            for (k, v) in pending {
                if v.as_ref().is_some_and(|v| !visit(k, v)) {
                    break;
                }
            }
        }
        Ok(())
    }

    /// The first entry that starts with `prefix`.
    pub fn first(&self, prefix: &[u8]) -> Result<Option<(Key, Vec<u8>)>, TxnError> {
        let mut found = None;
        self.scan(prefix.to_vec()..keys::end_of(prefix), &mut |k, v| {
            found = Some((k.to_vec(), v.to_vec()));
            false
        })?;
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::super::store::model::Model;
    use super::*;
    use proptest::prelude::*;
    use std::sync::Arc;

    proptest! {
        /// Reading through a transaction is reading the store after its commit.
        #[test]
        fn a_transaction_reads_what_its_commit_will_leave(
            stored in prop::collection::btree_map(0..keys::commits()[0], any::<u8>(), 0..40),
            writes in prop::collection::vec((0..keys::commits()[0], any::<Option<u8>>()), 0..40),
            low in 0..keys::commits()[0],
        ) {
            let store = Store::on(Arc::new(Model::default())).unwrap();
            store.commit(stored.iter().map(|(k, v)| (vec![*k], Some(vec![*v]))).collect(), true).unwrap();
            let mut txn = Txn::new(&store);
            let mut after = stored.clone();
            for (k, v) in writes {
                if let Some(v) = v {
                    txn.put_raw(vec![k], vec![v]);
                    after.insert(k, v);
                } else {
                    txn.remove(vec![k]);
                    after.remove(&k);
                }
            }
            let mut seen = Vec::new();
            txn.scan(vec![low]..keys::commits(), &mut |k, v| { seen.push((k[0], v[0])); true }).unwrap();
            prop_assert_eq!(seen, after.range(low..).map(|(k, v)| (*k, *v)).collect::<Vec<_>>());
            let expected = after.get(&low).map(|v| (vec![low], vec![*v]));
            prop_assert_eq!(txn.first(&[low]).unwrap(), expected);
        }
    }
}
