//! The drain in any circumstances: services that fail in every way they can, for a while, in an offramp that is killed and started again.
//!
//! A seed makes a world: one to three sinks with settings of their own, each before a [`Service`] that is well, slow, gone, overloaded,
//! misconfigured and so on, by turns; episodes of a few lanes; kills, restarts and pauses in between. All of it is decided by the seed:
//! time is tokio's paused clock, the queue commits on the spot. Then the troubles end, and within a bounded time everything must be
//! done. The service watches each call ([`service`]), [`verdict`] looks at what is left.
//!
//! `OFFRAMP_SEEDS=N` runs so many, `OFFRAMP_SEED=N` one of them, with its log.

mod service;
mod verdict;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Enough for each trouble to meet each setting, in a few seconds.
const SEEDS: u64 = 1_000;

/// A number from the environment.
fn told(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|n| n.parse().unwrap_or_else(|_| panic!("{name}={n} is no number")))
}

/// One world from its beginning to its end; what was wrong with it.
fn live(seed: u64) -> Vec<String> {
    fastrand::seed(seed); // the jitter of delays
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(world::live(seed))
}

fn assert_well(seed: u64) {
    let faults = catch_unwind(AssertUnwindSafe(|| live(seed))).unwrap_or_else(|_| vec!["it panicked".to_owned()]);
    assert!(faults.is_empty(), "OFFRAMP_SEED={seed}:\n{}", faults.join("\n"));
}

#[test]
fn inv4_inv5_inv6_inv8_whatever_services_and_restarts_do_everything_ends_well() {
    if let Some(seed) = told("OFFRAMP_SEED") {
        let _ = tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG).with_test_writer().try_init();
        return assert_well(seed);
    }
    let (seeds, threads) = (told("OFFRAMP_SEEDS").unwrap_or(SEEDS), std::thread::available_parallelism().map_or(1, usize::from));
    std::thread::scope(|scope| {
        for first in 0..threads as u64 {
            scope.spawn(move || (first..seeds).step_by(threads).for_each(assert_well));
        }
    });
}

#[test]
fn a_seed_makes_the_same_world_each_time() {
    let history = |seed| {
        fastrand::seed(seed);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(world::history(seed))
    };
    for seed in 0..20 {
        assert_eq!(history(seed), history(seed), "{seed}");
    }
}
