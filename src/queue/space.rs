//! Free space on the queue's disk.

use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How often to ask the system.
const EVERY: Duration = Duration::from_secs(1);

/// Knows whether the disk has at least `min_free` bytes left.
pub struct Space {
    path: PathBuf,
    min_free: u64,
    low: bool,
    looked: Option<Instant>,
}

impl Space {
    /// Looks at once.
    pub fn new(path: PathBuf, min_free: u64) -> Self {
        let mut space = Self { path, min_free, low: false, looked: None };
        space.look();
        space
    }

    /// Asks the system, at most every second. What it can't tell changes nothing.
    pub fn look(&mut self) {
        if self.looked.is_some_and(|at| at.elapsed() < EVERY) {
            return;
        }
        self.looked = Some(Instant::now());
        let Ok(disk) = rustix::fs::statvfs(&self.path) else { return };
        let low = disk.f_bavail.saturating_mul(disk.f_frsize) < self.min_free;
        if low != self.low {
            self.low = low;
            if low {
                tracing::error!(path = %self.path.display(), min_free = self.min_free,
                    "the disk is low: nothing is captured until queue.min_free_disk is free again; requests go on");
            } else {
                tracing::info!(path = %self.path.display(), "the disk has room again: capturing");
            }
        }
    }

    /// Whether less than `min_free` was free at the last look.
    pub fn is_low(&self) -> bool {
        self.low
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_without_the_room_asked_for_is_low() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!Space::new(dir.path().into(), 0).is_low());
        assert!(Space::new(dir.path().into(), u64::MAX).is_low());
    }
}
