//! Commits are numbered, and each says which one before it is on stable storage for sure.
//!
//! After a loss of power the end of sled's log may be there in part: a piece of one commit, all of the next, nothing of a third. What sled
//! notes down of its own progress does not tell whether that is damage, because it takes for stable what it has handed to the system. So each
//! commit changes one row more, with its number and that of the latest one that was synced before it. Whoever reads the log without the engine
//! (`raw::check`) finds the highest such promise in it, wherever that lies: what was written up to then must be readable, and what came
//! later was never promised to anyone.

use super::{Db, StoreError, keys};

/// The row's first byte: no other row of its length begins with it.
const MARK: u8 = 0xff;

const LEN: usize = 17;

/// How far the commits are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Commits {
    /// The number of the latest one.
    pub latest: u64,
    /// Up to this one they are on stable storage.
    pub synced: u64,
}

impl Commits {
    /// As an engine that was just opened has them: what it has read is on stable storage.
    pub fn of(db: &dyn Db) -> Result<Self, StoreError> {
        let latest = db.get(&keys::commits())?.and_then(|row| Self::read(&row)).unwrap_or_default().latest;
        Ok(Self { latest, synced: latest })
    }

    /// Of a row; none if it isn't this one.
    pub fn read(row: &[u8]) -> Option<Self> {
        let (&MARK, numbers) = <&[u8; LEN]>::try_from(row).ok()?.split_first()? else { return None };
        let number = |at: usize| Some(u64::from_be_bytes(numbers.get(at..at + 8)?.try_into().ok()?));
        Some(Self { latest: number(0)?, synced: number(8)? })
    }

    /// The row.
    pub fn row(self) -> Vec<u8> {
        [&[MARK][..], &self.latest.to_be_bytes(), &self.synced.to_be_bytes()].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_read_as_it_was_written_and_no_other_is() {
        let commits = Commits { latest: 70_000, synced: 69_999 };
        assert_eq!(Commits::read(&commits.row()), Some(commits));
        assert_eq!((Commits::read(&[1; LEN]), Commits::read(&[MARK; LEN - 1]), Commits::read(b"")), (None, None, None));
    }
}
