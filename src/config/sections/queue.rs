//! `[queue]`

use std::path::PathBuf;
use std::time::Duration;

use crate::config::read::{Header, Section};
use crate::config::values::{choice, choice_with, duration, duration_or_zero, integer, path, sealing_keys, size, size_or_zero};
use crate::config::{Durability, OnFull, Queue};

/// Most pending episodes that a queue may allow.
const MOST_EPISODES: u64 = 1_000_000_000_000;
/// Most bytes that a queue may allow.
const MOST_BYTES: u64 = 1 << 50;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Reads the section out of the file.
pub fn queue(file: &mut Section<'_>) -> Queue {
    let mut s = file.table("queue", Header::Own("[queue]"));
    s.maybe("backend", choice_with(&[("sled", ())], &["jetstream"]));
    let interval = s.get("interval", Duration::from_millis(100), duration);
    let is_sync = s.get("durability", true, choice(&[("sync", true), ("interval", false)]));
    let queue = Queue {
        path: s.get("path", PathBuf::from("offramp-data"), path),
        durability: if is_sync { Durability::Sync } else { Durability::Interval(interval) },
        commit_wait: s.get("commit_wait", Duration::from_millis(250), duration_or_zero),
        max_episodes: s.get("max_episodes", 1_000_000, integer(1, MOST_EPISODES)),
        max_bytes: s.get("max_bytes", 4 << 30, size(1, MOST_BYTES)),
        min_free_disk: s.get("min_free_disk", 256 << 20, size_or_zero),
        on_full: s.get("on_full", OnFull::Pass, choice(&[("pass", OnFull::Pass), ("reject", OnFull::Reject)])),
        keep_delivered: s.get("keep_delivered", DAY, duration_or_zero),
        keep_dead: s.get("keep_dead", 30 * DAY, duration_or_zero),
        encryption_keys: s.get("encryption_key_file", Vec::new(), sealing_keys),
    };
    s.finish();
    queue
}
