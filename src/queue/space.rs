//! Room on the queue's disk, and what to do while there is little.
//!
//! Below `min_free_disk` nothing is taken in, and what waits is drained: that writes little, and in the end gives room back. Should the disk
//! run full all the same, because of others, the ballast is given up: without a byte left the store can't be opened again, nor anything be
//! drained. It is made again once there is room for it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::engine::Limits;
use super::store::{Room, Store};

/// How often to ask the system.
const EVERY: Duration = Duration::from_secs(1);

/// What is put aside, unless the disk or the queue is small; as much again for each [`PART`] that the queue takes: the engine writes where
/// its pages are when it is opened.
const BALLAST: u64 = 16 << 20;
const PART: u64 = 1 << 30;

/// Bytes without which it is no use to open the store again: it writes when it is opened.
const OPENING: u64 = 256 << 10;

/// What is left free while a low disk is tidied up.
const RESERVE: u64 = 8 << 20;

/// Knows how much room there is.
pub struct Space {
    store: Arc<Store>,
    /// For the log.
    path: PathBuf,
    limits: Limits,
    room: Room,
    low: bool,
    looked: Option<Instant>,
}

impl Space {
    /// Looks at once.
    pub fn new(store: Arc<Store>, path: PathBuf, limits: Limits) -> Self {
        let mut space = Self { store, path, limits, room: Room::default(), low: false, looked: None };
        space.look();
        space
    }

    /// Asks the system, at most every second. What it can't tell changes nothing.
    pub fn look(&mut self) {
        if self.looked.is_some_and(|at| at.elapsed() < EVERY) {
            return;
        }
        self.looked = Some(Instant::now());
        let Ok(room) = self.store.room() else { return };
        self.room = room;
        let low = room.free < self.limits.min_free;
        if low != self.low {
            self.low = low;
            if low {
                tracing::error!(path = %self.path.display(), free = room.free, min_free = self.limits.min_free,
                    "the disk is low: nothing is captured until queue.min_free_disk is free again; requests go on");
            } else {
                tracing::info!(path = %self.path.display(), free = room.free, "the disk has room again: capturing");
            }
        }
        let ballast = (BALLAST * (1 + room.used / PART)).min(room.total / 32).min(self.limits.max_bytes / 16);
        if room.free >= self.limits.min_free.saturating_add(2 * ballast)
            && let Err(error) = self.store.ballast(ballast)
        {
            tracing::warn!(%error, "no room can be put aside for a full disk");
        }
    }

    /// From now on these hold.
    pub fn limit(&mut self, limits: Limits) {
        self.limits = limits;
        self.look_anew();
    }

    /// Asks the system, however recently it was asked.
    pub fn look_anew(&mut self) {
        self.looked = None;
        self.look();
    }

    /// Whether less than `min_free` was free at the last look.
    pub fn is_low(&self) -> bool {
        self.low
    }

    /// Bytes that the queue takes on the disk.
    pub fn used(&self) -> u64 {
        self.room.used
    }

    /// Bytes that may be taken to make the store smaller.
    pub fn spare(&self) -> u64 {
        self.room.free.saturating_sub(if self.low { RESERVE } else { self.limits.min_free })
    }

    /// The disk is full: gives back what was put aside for that.
    pub fn give_way(&mut self) {
        self.looked = None;
        match self.store.ballast(0) {
            Ok(true) => {
                tracing::error!(path = %self.path.display(), "the disk is full: the room that was put aside is given back");
            }
            Ok(false) => {}
            Err(error) => tracing::error!(%error, "the room that was put aside can't be given back"),
        }
    }

    /// Whether the store can be opened, as far as room goes.
    pub fn can_open(&mut self) -> bool {
        if self.room.free < OPENING {
            self.give_way();
            self.look();
        }
        self.room.free >= OPENING
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_without_the_room_asked_for_is_low() {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(dir.path()).unwrap());
        let limits = |min_free| Limits { min_free, max_bytes: 1 << 30, ..Limits::none() };
        let space = |min_free| Space::new(store.clone(), dir.path().into(), limits(min_free));
        assert!(!space(0).is_low());
        assert!(dir.path().join("ballast").exists());
        assert!(space(u64::MAX).is_low());
    }
}
