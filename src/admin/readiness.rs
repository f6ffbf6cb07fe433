//! Whether traffic should come: what `/readyz` answers.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Reasons why offramp is not ready, by what they are about. Whoever owns a part reports on it; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Readiness {
    reasons: Arc<Mutex<BTreeMap<String, String>>>,
}

impl Readiness {
    /// `what` keeps offramp from being ready, for this reason: `down("proxy agent", "its listener is closed")`.
    pub fn down(&self, what: impl Into<String>, reason: impl Into<String>) {
        self.lock().insert(what.into(), reason.into());
    }

    /// `what` is fine again.
    pub fn up(&self, what: &str) {
        self.lock().remove(what);
    }

    /// One sentence per reason.
    pub fn reasons(&self) -> Vec<String> {
        self.lock().iter().map(|(what, reason)| format!("{what}: {reason}")).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        // Each change is one call on the map: a panic elsewhere leaves it whole.
        self.reasons.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why the disk under the queue takes no more episodes. Asks the file system, so call it off the async threads.
pub(super) fn disk_reason(path: &Path, min_free: u64) -> Option<String> {
    match rustix::fs::statvfs(path) {
        Ok(fs) => {
            let free = fs.f_bavail.saturating_mul(fs.f_frsize);
            (free < min_free)
                .then(|| format!("disk: {free} bytes are free under {}, queue.min_free_disk is {min_free}", path.display()))
        }
        Err(e) => Some(format!("disk: {} cannot be looked at: {e}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_come_and_go_by_what_they_are_about() {
        let readiness = Readiness::default();
        readiness.down("proxy agent", "its listener is closed");
        readiness.down("proxy agent", "its listener failed");
        assert_eq!(readiness.reasons(), ["proxy agent: its listener failed"]);
        readiness.clone().up("proxy agent");
        assert!(readiness.reasons().is_empty());
    }

    #[test]
    fn the_disk_is_a_reason_only_below_its_limit() {
        let here = tempfile::tempdir().unwrap();
        assert_eq!(disk_reason(here.path(), 0), None);
        assert!(disk_reason(here.path(), u64::MAX).unwrap().contains("min_free_disk"));
        assert!(disk_reason(&here.path().join("gone"), 0).unwrap().contains("gone"));
    }
}
