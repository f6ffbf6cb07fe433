//! The ledger: what went in and what became of it.

use serde::{Deserialize, Serialize};

/// The counters that must always balance, one per episode and sink.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// Appended.
    pub captured: u64,
    /// Confirmed.
    pub delivered: u64,
    /// Dead letters now.
    pub dead: u64,
    /// Removed by an operator.
    pub purged: u64,
    /// Dead letters that outlived `keep_dead`.
    pub expired: u64,
    /// Waiting or in flight.
    pub pending: u64,
}

impl Ledger {
    pub(super) fn add(&mut self, other: &Self) {
        self.captured += other.captured;
        self.delivered += other.delivered;
        self.dead += other.dead;
        self.purged += other.purged;
        self.expired += other.expired;
        self.pending += other.pending;
    }

    /// captured − (delivered + dead + purged + expired + pending): 0, always.
    pub fn gap(&self) -> i64 {
        let out = self.delivered + self.dead + self.purged + self.expired + self.pending;
        i64::try_from(i128::from(self.captured) - i128::from(out)).unwrap_or(i64::MAX)
    }
}
