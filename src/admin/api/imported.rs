//! What became of the lines of an import.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Faults that are told one by one, and sinks that are told by name.
const TOLD: usize = 100;

/// The answer to `POST /api/v1/import`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Imported {
    /// Episodes that are in the queue now.
    pub imported: u64,
    /// Episodes whose id was there already.
    pub skipped: u64,
    /// Lines that are no episode, or none that anybody here would have.
    pub failed: u64,
    /// The first of those.
    pub faults: Vec<Fault>,
    /// Sinks that aren't configured here, and how many of the imported episodes went there as well.
    pub unknown_sinks: BTreeMap<String, u64>,
}

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// Which, from 1.
    pub line: u64,
    /// What is wrong.
    pub message: String,
}

impl Imported {
    /// A line that failed.
    pub(crate) fn fail(&mut self, line: u64, message: String) {
        self.failed += 1;
        if self.faults.len() < TOLD {
            self.faults.push(Fault { line, message });
        }
    }

    /// An episode that was imported, and the sinks that it can't go to here.
    pub(crate) fn take(&mut self, unknown: Vec<String>) {
        self.imported += 1;
        for sink in unknown {
            if self.unknown_sinks.len() < TOLD || self.unknown_sinks.contains_key(&sink) {
                *self.unknown_sinks.entry(sink).or_default() += 1;
            }
        }
    }

    /// Lines that were looked at.
    pub fn lines(&self) -> u64 {
        self.imported + self.skipped + self.failed
    }
}
