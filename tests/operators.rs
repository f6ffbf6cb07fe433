//! What operators do with what is in the queue: the story of an episode, redrive at a rate, replay, drain, a sink that was removed.

use std::process::Output;
use std::time::{Duration, Instant};

use offramp::demo::graph::faults::{Call, Fault, Times};
use serde_json::{Value, json};

use crate::support::offramp::{Offramp, run};
use crate::support::wait_until;
use crate::support::world::{LIMIT, World, exchange};

fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

/// What the command says; it must succeed.
fn told(offramp: &Offramp, args: &[&str]) -> String {
    let output = offramp.cli(args);
    assert_eq!(output.status.code(), Some(0), "{args:?}: {}", said(&output));
    said(&output)
}

/// Places of these texts in a text, each behind the one before.
fn in_order(text: &str, parts: &[&str]) {
    let mut rest = text;
    for part in parts {
        let Some((_, behind)) = rest.split_once(part) else { panic!("{part:?} is not there, or not in its turn:\n{text}") };
        rest = behind;
    }
}

#[test]
fn show_tells_the_whole_story_through_outage_restart_death_and_redrive() {
    let world = World::new();
    let retry = "{ max_attempts = 3, initial = '20ms', max = '50ms', jitter = 'none', max_age = '1h' }";
    let breaker = "{ consecutive_failures = 0, open_for = '1s' }";
    let settings = world.settings().set("sink.retry", retry).set("sink.breaker", breaker);
    let graph = world.graph.faults();
    graph.answer(Call::Messages, Fault::Status(500), Times::Next(1));
    let offramp = world.start(&settings.clone().set("sink.retry", &retry.replace("20ms", "1h").replace("50ms", "1h")));
    assert_eq!(exchange(&offramp, "s", "one").status, 200);
    // An attempt is counted when it ends, and written down after that.
    let lines = || offramp.episodes()[0]["sinks"]["graphiti"]["history"].as_array().unwrap().len();
    assert!(wait_until(LIMIT, || lines() == 1), "{}", offramp.log());
    let id = offramp.episodes()[0]["id"].as_str().unwrap().to_owned();
    in_order(&told(&offramp, &["show", &id]), &["attempt 1 failed, worth another attempt", "now", "pending: attempt 2 in"]);

    // The graph goes down, and offramp with it.
    world.stop_graph();
    offramp.kill();
    world.resume_graph();
    graph.answer(Call::Messages, Fault::Status(422), Times::Always);
    let mut offramp = world.start(&settings);
    offramp.wait_for_status("a dead letter", LIMIT, |s| s["ledger"]["dead"] == 1);
    in_order(
        &told(&offramp, &["show", &id]),
        &[
            "captured",
            "attempt 1 failed, worth",
            "attempt 2 failed, and was the last",
            "answered 422",
            "now",
            "dead: the sink rejected it",
        ],
    );

    graph.clear();
    assert_eq!(exchange(&offramp, "s", "two").status, 200);
    offramp.wait_for_status("the next one is there", LIMIT, |s| s["ledger"]["delivered"] == 1);
    assert!(told(&offramp, &["dead", "redrive", &id]).starts_with("1 dead letter put back"));
    offramp.wait_for_delivery(2, LIMIT);
    let story = told(&offramp, &["show", &id]);
    in_order(
        &story,
        &[
            "captured",
            "attempt 1 failed, worth",
            "attempt 2 failed, and was the last",
            "attempt 1 delivered",
            "now",
            "confirmed at",
        ],
    );
    assert_eq!(world.graph.stored().len(), 2, "{story}");
}

#[test]
fn inv5_a_replay_builds_a_graph_anew_in_order_and_a_sink_that_came_later_gets_all() {
    const EPISODES: usize = 60;
    let world = World::new();
    let settings = world.settings();
    let mut offramp = world.start(&settings);
    let outcome = world.load(&offramp, "replay", EPISODES as u64, 6);
    world.assert_delivered(&mut offramp, &outcome.conversations);
    let posted = || -> Vec<String> { world.graph.posted().into_iter().map(|posted| posted.message.name).collect() };
    let first = posted();

    let said = told(&offramp, &["replay", "--sink", "graphiti"]);
    assert!(said.starts_with(&format!("graphiti: {EPISODES} episodes put back")), "{said}");
    assert!(told(&offramp, &["drain", "--timeout", "1m"]).contains("nothing is pending"));
    offramp.wait_for_delivery(EPISODES, LIMIT);
    let again = posted().split_off(first.len());
    let places: Vec<String> = offramp.episodes().iter().map(|e| e["id"].as_str().unwrap().to_owned()).collect();
    let sessions: Vec<Value> = offramp.episodes().iter().map(|e| e["session"].clone()).collect();
    for session in &sessions {
        let of = |ids: &[String]| -> Vec<String> {
            let mine = |id: &&String| places.iter().position(|p| p == *id).is_some_and(|at| sessions[at] == *session);
            ids.iter().filter(mine).cloned().collect()
        };
        assert_eq!(of(&again), of(&places), "a session came out of its order");
    }
    assert_eq!(again.len(), EPISODES, "each once");

    let one = sessions[0].as_str().unwrap();
    let mine = sessions.iter().filter(|s| **s == one).count();
    let said = told(&offramp, &["replay", "--sink", "graphiti", "--session", one]);
    assert!(said.starts_with(&format!("graphiti: {mine} episodes put back")), "{said}");
    let said = told(&offramp, &["replay", "--sink", "graphiti", "--since", "2099-01-01"]);
    assert_eq!(said, "graphiti: nothing to replay\n");
    let output = offramp.cli(&["replay", "--sink", "nosuch"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let missing = offramp.cli(&["replay", "--sink", "graphiti", "--cancel"]);
    assert_eq!(missing.status.code(), Some(1), "{missing:?}");
    offramp.wait_for_delivery(EPISODES, LIMIT);
    offramp.stop();

    // A second sink, asked for while nothing runs: it begins with the next start.
    let with_file = format!("{}[[sink]]\nname = 'log'\ntype = 'file'\npath = 'log.jsonl'\n", settings.text());
    crate::support::offramp::configure(world.dir(), &with_file);
    let output = run(world.dir(), &["replay", "--sink", "log"]);
    assert_eq!(said_by(&output), "log: the replay begins when offramp runs\n");
    let mut offramp = Offramp::start(world.dir(), &with_file);
    offramp.wait_for_status("the log has all", LIMIT, |s| s["sinks"][1]["delivered_total"] == EPISODES);
    let log = std::fs::read_to_string(world.dir().join("log.jsonl")).unwrap();
    let ids: Vec<String> =
        log.lines().skip(1).map(|line| serde_json::from_str::<Value>(line).unwrap()["id"].as_str().unwrap().to_owned()).collect();
    for session in &sessions {
        let mine = |ids: &[String]| -> Vec<String> {
            let of = |id: &&String| places.iter().position(|p| p == *id).is_some_and(|at| sessions[at] == *session);
            ids.iter().filter(of).cloned().collect()
        };
        assert_eq!(mine(&ids), mine(&places));
    }
    // That there is nothing behind the last one it finds in a turn of its own.
    let replay = || offramp.get("/api/v1/replays")["replays"][0].take();
    assert!(wait_until(LIMIT, || replay()["state"] == "done"), "{}", replay());
    assert_eq!(replay()["sink"], "log");
    assert_eq!(offramp.status()["ledger"]["gap"], 0);
}

fn said_by(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    said(output)
}

#[test]
fn a_redrive_at_a_rate_takes_its_time() {
    let world = World::new();
    world.graph.faults().answer(Call::Messages, Fault::Status(422), Times::Always);
    let mut offramp = world.start(&world.settings());
    for n in 0..6 {
        assert_eq!(exchange(&offramp, &format!("s{n}"), "x").status, 200);
    }
    offramp.wait_for_status("six dead letters", LIMIT, |s| s["ledger"]["dead"] == 6);
    world.graph.faults().clear();
    let began = Instant::now();
    let said = told(&offramp, &["dead", "redrive", "--all", "--rate", "5"]);
    assert!(said.starts_with("6 dead letters to put back, 5 a second"), "{said}");
    offramp.wait_for_delivery(6, LIMIT);
    assert!(began.elapsed() >= Duration::from_secs(1), "six at five a second came in {:?}", began.elapsed());
}

#[test]
fn a_removed_sink_is_shown_and_purged_and_drain_says_what_is_left() {
    let world = World::new();
    let settings = world.settings();
    world.stop_graph();
    let offramp = world.start(&settings);
    for n in 0..3 {
        assert_eq!(exchange(&offramp, &format!("s{n}"), "x").status, 200);
    }
    let output = offramp.cli(&["drain", "--timeout", "300ms"]);
    let text = said(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    in_order(&text, &["3 episodes pending, after", "graphiti: 3 pending, the oldest for"]);
    let refused = offramp.cli(&["purge", "graphiti", "--yes"]);
    assert!(refused.status.code() == Some(1) && said(&refused).contains("is configured"), "{refused:?}");
    offramp.stop();
    let output = run(world.dir(), &["drain"]);
    assert!(output.status.code() == Some(1) && said(&output).contains("offramp is not running"), "{output:?}");

    let other = settings.set("sink.name", "'other'").set("sink.type", "'file'").set("sink.path", "'log.jsonl'");
    let mut text = String::new();
    for line in other.text().lines().filter(|line| {
        let key = line.split(' ').next().unwrap();
        !["url", "confirm"].contains(&key)
    }) {
        text += line;
        text.push('\n');
    }
    let offramp = Offramp::start(world.dir(), &text);
    let status = offramp.status();
    assert_eq!(
        (&status["sinks"][1]["name"], &status["sinks"][1]["state"]),
        (&json!("graphiti"), &json!("removed")),
        "{status:#}"
    );
    in_order(&told(&offramp, &["status"]), &["other", "graphiti", "removed", "no longer configured"]);
    let output = offramp.cli(&["drain"]);
    assert!(output.status.code() == Some(1) && said(&output).contains("no sink is configured for them"), "{output:?}");
    assert_eq!(told(&offramp, &["purge", "graphiti", "--yes"]), "graphiti: 3 episodes removed for good\n");
    assert_eq!(told(&offramp, &["drain"]), "nothing is pending\n");
    let status = offramp.status();
    assert_eq!((status["sinks"].as_array().unwrap().len(), &status["ledger"]["purged"]), (1, &json!(3)), "{status:#}");
    assert_eq!(status["ledger"]["gap"], 0);
}
