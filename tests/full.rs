//! A queue without room, without a directory, or with an owner.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::routing::post;
use axum::{Json, Router};
use offramp::demo::graph::faults::{Call, Fault, Times};
use serde_json::json;

use crate::support::http;
use crate::support::offramp::{configure, run};
use crate::support::world::{LIMIT, World, exchange};

/// A graph service that takes everything and never answers.
fn hanging() -> World {
    let world = World::new();
    world.graph.faults().answer(Call::Messages, Fault::Hang { accepted: false }, Times::Always);
    world
}

#[test]
fn inv3_inv9_requests_pass_a_full_queue_and_what_was_not_captured_is_counted() {
    let world = hanging();
    let mut offramp = world.start(&world.settings().set("queue.max_episodes", "10").set("sink.timeout", "'1s'"));

    for number in 0..25 {
        assert_eq!(exchange(&offramp, &format!("s{number}"), "hi").status, 200);
    }
    let count = |outcome| offramp.metric("offramp_capture_total", &[("outcome", outcome)]);
    assert_eq!((count("queued"), count("queue_full")), (Some(10.0), Some(15.0)));
    assert_eq!(offramp.ask("GET", "/readyz", None).status, 200);
    let status = offramp.status();
    assert_eq!(status["queue"]["state"], "full");
    assert_eq!(status["ledger"]["captured"], 10);
    assert_eq!(status["ledger"]["gap"], 0);

    // The service answers again: the queue empties, and takes again.
    world.graph.faults().clear();
    offramp.wait_for_delivery(10, LIMIT);
    assert_eq!(offramp.status()["queue"]["state"], "ok");
    assert_eq!(exchange(&offramp, "later", "hi").status, 200);
    offramp.wait_for_delivery(11, LIMIT);
}

#[test]
fn inv9_a_full_queue_that_is_to_reject_does_so_before_the_upstream_is_called() {
    let world = hanging();
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let agent = Router::new().fallback(post(move || async move {
        counted.fetch_add(1, Ordering::Relaxed);
        Json(json!({ "message": "hello", "session_id": "s", "success": true }))
    }));
    let settings = world
        .settings()
        .set("proxy.upstream", &format!("'http://{}'", world.serve(agent)))
        .set("queue.max_episodes", "10")
        .set("queue.on_full", "'reject'");
    let offramp = world.start(&settings);

    for _ in 0..10 {
        assert_eq!(exchange(&offramp, "s", "hi").status, 200);
    }
    for _ in 0..3 {
        let refused = exchange(&offramp, "s", "hi");
        assert_eq!(refused.status, 503);
        assert_eq!(refused.header("x-offramp-error"), Some("queue_full"));
        assert_eq!(refused.header("content-type"), Some("application/problem+json"));
        assert_eq!(refused.json()["status"], 503);
    }
    assert_eq!(calls.load(Ordering::Relaxed), 10);
    // What no route captures is not the queue's business.
    assert_eq!(http::request(offramp.proxy("agent"), "POST", "/other", Some(&json!({}))).unwrap().status, 200);
    assert_eq!(offramp.metric("offramp_capture_total", &[("outcome", "queue_full")]), Some(3.0));
    assert_eq!(offramp.ask("GET", "/readyz", None).status, 200);
    assert_eq!(offramp.status()["queue"]["state"], "full");
}

#[test]
fn a_queue_without_a_directory_is_a_sentence_at_the_start() {
    let world = World::new();
    // Below a file: not even root can make a directory there.
    std::fs::write(world.dir().join("file"), "").unwrap();
    configure(world.dir(), &world.settings().set("queue.path", "'file/queue'").text());

    let ended = run(world.dir(), &["run"]);
    let says = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(matches!(ended.status.code(), Some(1 | 2)), "{:?}: {says}", ended.status);
    assert!(says.contains("file/queue"), "{says}");
    assert!(!says.contains("panicked"), "{says}");
}

#[test]
fn inv8_a_queue_has_one_owner_and_the_second_process_says_who_that_is() {
    let world = World::new();
    let offramp = world.start(&world.settings());

    let ended = run(world.dir(), &["run"]);
    let says = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(1), "{says}");
    assert!(says.contains(&format!("in use by process {}", offramp.pid())), "{says}");

    // The first one has noticed nothing.
    assert_eq!(exchange(&offramp, "s", "hi").status, 200);
    assert_eq!(offramp.status()["ledger"]["captured"], 1);
}
