//! A queue without room, on a disk without room, without a directory, or with an owner.
//!
//! The disk is a small one in memory, in a mount namespace. Where the system doesn't let the tests have one, the tests of a full disk say so
//! and do nothing; `OFFRAMP_VOLUMES=1` makes that a failure.

use std::fs::File;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::routing::post;
use axum::{Json, Router};
use offramp::demo::graph::faults::{Call, Fault, Times};
use serde_json::json;

use crate::support::offramp::{Offramp, command, configure, run};
use crate::support::volume::Volume;
use crate::support::world::{LIMIT, Settings, World, exchange};
use crate::support::{http, number, wait_until};

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

/// What the disk of these tests holds (MiB): some generations of the small queues here, and what the queue puts by.
const DISK: u64 = 128;

/// A small disk at `disk` in the test's directory, if there can be one.
fn disk(world: &World) -> Option<Volume> {
    match Volume::tmpfs(&world.dir().join("disk"), DISK) {
        Ok(volume) => Some(volume),
        Err(sentence) if number("OFFRAMP_VOLUMES").is_some() => panic!("{sentence}"),
        Err(sentence) => {
            eprintln!("not done: {sentence}");
            None
        }
    }
}

fn start(world: &World, disk: &Volume, settings: &Settings) -> Offramp {
    world.start_as(settings, |command| disk.enter(&command))
}

/// Tries to start it, and kills it: the log, if it ended by itself.
fn says_why_not(world: &World, disk: &Volume, settings: &Settings) -> Option<String> {
    configure(world.dir(), &settings.text());
    let log = world.dir().join("start.log");
    let mut command = disk.enter(command(world.dir()).arg("run"));
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&log).unwrap()).spawn().unwrap();
    let said = || std::fs::read_to_string(&log).unwrap();
    let mut ended = None;
    let known = wait_until(LIMIT, || {
        ended = child.try_wait().unwrap();
        ended.is_some() || said().matches("listening").count() == 2
    });
    assert!(known, "it neither started nor ended: {}", said());
    child.kill().unwrap();
    child.wait().unwrap();
    ended.map(|status| {
        assert_eq!(status.code(), Some(1), "{}", said());
        said()
    })
}

fn captured(offramp: &Offramp, outcome: &str) -> f64 {
    offramp.metric("offramp_capture_total", &[("outcome", outcome)]).unwrap_or(0.0)
}

#[test]
fn inv3_inv8_inv9_requests_pass_a_full_disk_and_capture_goes_on_once_there_is_room() {
    let world = World::new();
    let Some(disk) = disk(&world) else { return };
    let settings = world
        .settings()
        .set("queue.path", "'disk/queue'")
        .set("queue.min_free_disk", "'1MiB'")
        .set("queue.commit_wait", "'250ms'");
    let mut offramp = start(&world, &disk, &settings);
    world.stop_graph();
    let before = world.load(&offramp, "before", 100, 10);
    offramp.wait_for_status("they are captured", LIMIT, |status| status["ledger"]["captured"] == 100);

    disk.fill(0);
    let refused = |offramp: &Offramp| captured(offramp, "queue_full") + captured(offramp, "failed");
    assert!(wait_until(LIMIT, || {
        assert_eq!(exchange(&offramp, "first", "hi").status, 200);
        refused(&offramp) > 0.0
    }));
    let meanwhile = world.load(&offramp, "meanwhile", 300, 30);
    assert_eq!(meanwhile.failed(), 0, "{:?}", meanwhile.errors);
    let status = offramp.status();
    assert_ne!(status["queue"]["state"], "ok", "{status:#}");
    assert_eq!(status["ledger"]["gap"], 0, "{status:#}");
    assert_eq!(offramp.ask("GET", "/readyz", None).status, 503);

    disk.empty();
    assert!(wait_until(LIMIT, || {
        let before = captured(&offramp, "queued");
        assert_eq!(exchange(&offramp, "last", "hi").status, 200);
        captured(&offramp, "queued") > before
    }));
    let after = world.load(&offramp, "after", 100, 10);
    world.resume_graph();
    let status = offramp.wait_for_status("drained", LIMIT, |status| status["ledger"]["pending"] == 0);
    assert_eq!(status["ledger"]["gap"], 0, "{status:#}");
    assert_eq!(status["ledger"]["captured"].as_f64(), Some(captured(&offramp, "queued")), "{status:#}");
    assert_eq!(status["ledger"]["delivered"], status["ledger"]["captured"], "{status:#}");
    world.assert_stored(&[&before, &after]);
    world.assert_sent_once();
    assert!(offramp.stop().success());
}

#[test]
fn inv8_inv9_the_drain_goes_on_while_the_disk_is_low() {
    let world = World::new();
    let Some(disk) = disk(&world) else { return };
    let settings = world.settings().set("queue.path", "'disk/queue'").set("queue.min_free_disk", "'32MiB'");
    let mut offramp = start(&world, &disk, &settings);
    world.stop_graph();
    let before = world.load(&offramp, "before", 200, 20);
    disk.fill(16 << 20);
    offramp.wait_for_status("the queue is full", LIMIT, |status| status["queue"]["state"] == "full");
    world.resume_graph();
    let meanwhile = world.load(&offramp, "meanwhile", 100, 10);
    assert_eq!(meanwhile.failed(), 0, "{:?}", meanwhile.errors);
    let status = offramp.wait_for_status("drained", LIMIT, |status| status["ledger"]["pending"] == 0);
    assert_eq!(status["queue"]["state"], "full");
    world.assert_graph_holds(&before.conversations, &status);
    world.assert_sent_once();
}

#[test]
fn on_a_full_disk_it_starts_or_says_why_not() {
    let world = World::new();
    let Some(disk) = disk(&world) else { return };
    let settings = world.settings().set("queue.path", "'disk/queue'").set("queue.min_free_disk", "'1MiB'");
    world.stop_graph();
    for what in ["a new queue", "a queue with episodes"] {
        disk.fill(0);
        let log = says_why_not(&world, &disk, &settings);
        assert!(log.as_ref().is_none_or(|log| log.contains("disk/queue") && !log.contains("panicked")), "{what}: {log:?}");
        disk.empty();
        let offramp = start(&world, &disk, &settings);
        assert_eq!(offramp.status()["ledger"]["gap"], 0, "{what}");
        world.load(&offramp, "before", 100, 10);
        offramp.kill();
    }
    world.resume_graph();
    let mut offramp = start(&world, &disk, &settings);
    offramp.wait_for_delivery(200, LIMIT);
}
