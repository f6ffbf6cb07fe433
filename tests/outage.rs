//! The graph service is down for seconds in the middle of a load.

use std::time::{Duration, Instant};

use offramp::demo::graph::{Mode, Options};
use serde_json::Value;

use crate::support::wait_until;
use crate::support::world::{LIMIT, World, exchange};

#[test]
fn inv3_inv5_no_request_notices_that_the_graph_service_is_down() {
    const REQUESTS: u64 = 900;
    let graph = Options { write_delay: Duration::from_millis(5), mode: Mode::Parallel(20) };
    let world = World::with(Duration::from_millis(100), graph);
    let settings = world
        .settings()
        .set("queue.commit_wait", "'250ms'")
        .set("sink.workers", "20")
        .set("sink.retry", "{ max_attempts = 100, initial = '50ms', max = '500ms', jitter = 'full', max_age = '1h' }")
        .set("sink.confirm", "{ mode = 'read_back', timeout = '20s', poll = '20ms' }");
    let mut offramp = world.start(&settings);

    // At 200 a second at most: up for a second, down for the most of three.
    let (load, progress) = world.start_load(&offramp, "outage", REQUESTS, 20);
    assert!(wait_until(LIMIT, || progress.finished() >= REQUESTS / 5));
    world.stop_graph();
    let stopped = Instant::now();
    offramp.wait_for_status("the breaker is open", LIMIT, |status| status["sinks"][0]["state"] == "open");
    let before = offramp.status();
    assert!(wait_until(LIMIT, || progress.finished() >= REQUESTS * 4 / 5), "requests stand still while the graph is down");
    let status = offramp.status();
    assert_ne!(status["sinks"][0]["state"], "running", "{status:#}");
    let number = |status: &Value, key: &str| status["ledger"][key].as_u64().unwrap();
    let since = number(&status, "captured") - number(&before, "captured");
    assert!(since > 0 && number(&status, "pending") >= since, "{before:#}\n{status:#}");
    let outage = stopped.elapsed();
    world.resume_graph();

    let outcome = world.runtime().block_on(load).unwrap();
    assert_eq!(outcome.failed(), 0, "{:?}", outcome.errors);
    let slowest = Duration::from_micros(outcome.latency.max());
    assert!(slowest < outage, "a request took {slowest:?}, the outage {outage:?}");
    let status = world.assert_delivered(&mut offramp, &outcome.conversations);
    assert_eq!(status["sinks"][0]["state"], "running");
}

#[test]
fn inv8_an_outage_longer_than_all_attempts_makes_no_dead_letter() {
    let world = World::new();
    let settings = world
        .settings()
        .set("sink.retry", "{ max_attempts = 6, initial = '50ms', max = '100ms', jitter = 'full', max_age = '1h' }")
        .set("sink.breaker", "{ consecutive_failures = 5, open_for = '100ms' }");
    let mut offramp = world.start(&settings);
    world.stop_graph();
    for text in ["one", "two", "three"] {
        assert_eq!(exchange(&offramp, "s", text).status, 200);
    }

    let status = offramp.wait_for_status("twelve attempts", LIMIT, |s| s["sinks"][0]["attempts_total"].as_u64() >= Some(12));
    assert_eq!(status["ledger"]["pending"], 3, "the first one has been tried twice as often as max_attempts: {status:#}");
    world.resume_graph();
    offramp.wait_for_delivery(3, LIMIT);
}
