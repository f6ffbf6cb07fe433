//! Signals: the first one stops in order, the second one at once.

use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use offramp::demo::graph::Options;
use offramp::demo::graph::faults::{Call, Fault, Times};

use crate::support::offramp::Offramp;
use crate::support::wait_until;
use crate::support::world::{LIMIT, World, ask};

fn wait_in_flight(offramp: &mut Offramp, requests: usize) {
    offramp.wait_for_status("requests in flight", LIMIT, |status| status["proxies"][0]["in_flight"] == requests);
}

fn is_refused(address: SocketAddr) -> bool {
    TcpStream::connect(address).is_err()
}

#[test]
fn inv2_inv4_inv8_sigterm_finishes_requests_and_leaves_attempts_to_the_next_start() {
    let world = World::with(Duration::from_secs(1), Options::default());
    let settings = world.settings().set("sink.workers", "3");
    let mut offramp = world.start(&settings);
    let proxy = offramp.proxy("agent");

    // Attempts in flight that will not end: what they sent was taken, and no answer comes.
    world.graph.faults().answer(Call::Messages, Fault::Hang { accepted: true }, Times::Next(3));
    let before = world.load(&offramp, "before", 3, 3);
    assert_eq!(before.failed(), 0);
    assert!(wait_until(LIMIT, || world.graph.stored().len() == 3));

    let requests: Vec<_> = (0..5).map(|n| thread::spawn(move || ask(proxy, &format!("in-flight-{n}"), "hi"))).collect();
    wait_in_flight(&mut offramp, 5);
    offramp.signal("TERM");
    assert!(wait_until(LIMIT, || is_refused(proxy)), "it goes on accepting connections");
    for request in requests {
        let response = request.join().unwrap().expect("a request in flight was cut off");
        assert_eq!(response.status, 200, "{}", response.text());
        assert_eq!(response.json()["success"], true);
    }
    assert!(offramp.wait().success());

    world.graph.faults().clear();
    let mut offramp = world.start(&settings);
    let status = offramp.wait_for_delivery(8, LIMIT);
    assert_eq!(status["ledger"]["captured"], 8);
    assert_eq!(world.graph.stored().len(), 8, "each once");
    assert_eq!(world.graph.posted().len(), 8, "what was in flight was looked up, not sent again");
    assert!(offramp.stop().success());
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let world = World::with(Duration::from_secs(300), Options::default());
    let settings = world.settings().set("proxy.drain_timeout", "'300s'").set("proxy.response_timeout", "'300s'");
    let mut offramp = world.start(&settings);
    let proxy = offramp.proxy("agent");
    let request = thread::spawn(move || ask(proxy, "s", "hi"));
    wait_in_flight(&mut offramp, 1);

    offramp.signal("TERM");
    assert!(wait_until(LIMIT, || is_refused(proxy)));
    assert!(offramp.is_running(), "it waits for the request in flight");
    let second = Instant::now();
    offramp.signal("INT");
    assert_eq!(offramp.wait().code(), Some(1));
    assert!(second.elapsed() < Duration::from_secs(20), "{:?}", second.elapsed());
    let answer = request.join().unwrap();
    assert!(answer.is_err(), "nobody can have answered: {answer:?}");

    // inv8: no episode was made of what was never answered, and the queue is in order.
    let offramp = world.start(&settings);
    let status = offramp.status();
    assert_eq!((&status["ledger"]["captured"], &status["ledger"]["gap"]), (&0.into(), &0.into()));
}
