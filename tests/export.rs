//! `export` and `import`: from one offramp to another, running or not, and back again.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Output, Stdio};

use offramp::demo::graph::faults::{Call, Fault, Times};
use serde_json::Value;

use crate::support::offramp::{Offramp, command, configure, run};
use crate::support::world::{LIMIT, Settings, World, exchange};

fn text(output: &Output) -> String {
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {complaints}", output.status);
    assert_eq!(complaints, "");
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Without what an import gives anew.
fn without_places(text: &str) -> Vec<Value> {
    let mut lines = lines(text);
    for line in &mut lines {
        line["seq"].take();
    }
    lines
}

/// One that is delivered, one dead letter, and three that wait behind a pause, two of them in one session.
fn fill(world: &World) -> (Offramp, Settings) {
    let settings = world.settings();
    let mut offramp = world.start(&settings);
    assert_eq!(exchange(&offramp, "delivered", "this is delivered").status, 200);
    offramp.wait_for_delivery(1, LIMIT);
    world.graph.faults().answer(Call::Messages, Fault::Status(422), Times::Next(1));
    assert_eq!(exchange(&offramp, "dead", "this is dead").status, 200);
    offramp.wait_for_status("a dead letter", LIMIT, |status| status["ledger"]["dead"] == 1);
    text(&offramp.cli(&["pause", "graphiti"]));
    for (session, said) in [("one", "first"), ("two", "other"), ("one", "second")] {
        assert_eq!(exchange(&offramp, session, said).status, 200);
    }
    offramp.wait_for_status("they wait", LIMIT, |status| status["ledger"]["pending"] == 3);
    (offramp, settings)
}

/// A second offramp's directory, with a sink that nothing reaches, so that nothing changes there by itself.
fn elsewhere(settings: &Settings) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    configure(dir.path(), &settings.clone().set("sink.url", "'http://127.0.0.1:1'").text());
    dir
}

fn assert_balanced(dir: &Path, pending: u64, dead: u64, delivered: u64) {
    let status: Value = serde_json::from_str(&text(&run(dir, &["status", "--json"]))).unwrap();
    let ledger = &status["ledger"];
    let found = [&ledger["pending"], &ledger["dead"], &ledger["delivered"], &ledger["gap"]].map(|n| n.as_u64().unwrap());
    assert_eq!(found, [pending, dead, delivered, 0], "{ledger}");
}

#[test]
fn inv8_what_one_offramp_exports_another_imports_and_exports_again() {
    let world = World::new();
    let (offramp, settings) = fill(&world);
    let exported = text(&offramp.cli(&["export"]));
    let states: Vec<Value> = lines(&exported).iter().map(|line| line["sinks"]["graphiti"]["state"].clone()).collect();
    assert_eq!(states, ["delivered", "dead", "pending", "pending", "pending"]);
    let dead = text(&offramp.cli(&["export", "--state", "dead"]));
    assert_eq!(lines(&dead), [lines(&exported)[1].clone()]);

    // Where none runs, and no queue is yet.
    let other = elsewhere(&settings);
    fs::write(other.path().join("all.jsonl"), &exported).unwrap();
    let said = text(&run(other.path(), &["import", "all.jsonl"]));
    assert_eq!(said, "5 episodes imported, 0 were there already\n");
    assert_balanced(other.path(), 3, 1, 1);
    assert_eq!(without_places(&text(&run(other.path(), &["export"]))), without_places(&exported));
    let said = text(&run(other.path(), &["import", "all.jsonl"]));
    assert_eq!(said, "0 episodes imported, 5 were there already\n");

    // Into one that runs and that has something already: behind it, and then delivered in order.
    let third = World::new();
    let mut running = third.start(&third.settings());
    text(&running.cli(&["pause", "graphiti"]));
    assert_eq!(exchange(&running, "one", "was here before").status, 200);
    running.wait_for_status("it waits", LIMIT, |status| status["ledger"]["pending"] == 1);
    let file = other.path().join("back.jsonl");
    let wrote = text(&run(other.path(), &["export", "--output", file.to_str().unwrap()]));
    assert!(wrote.starts_with("5 episodes written to "), "{wrote}");
    assert_eq!(std::os::unix::fs::MetadataExt::mode(&fs::metadata(&file).unwrap()) & 0o777, 0o600);
    let mut import = running.cli_command().args(["import", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    import.stdin.take().unwrap().write_all(&fs::read(&file).unwrap()).unwrap();
    assert_eq!(text(&import.wait_with_output().unwrap()), "5 episodes imported, 0 were there already\n");
    assert_eq!(without_places(&text(&running.cli(&["export"])))[1..], without_places(&exported));
    text(&running.cli(&["resume", "graphiti"]));
    running.wait_for_status("delivered", LIMIT, |status| {
        let ledger = &status["ledger"];
        ledger["captured"] == 6 && ledger["delivered"] == 5 && ledger["dead"] == 1 && ledger["gap"] == 0
    });
    let stored: Vec<String> = third.graph.stored().into_iter().map(|stored| stored.content).collect();
    let at =
        |said: &str| stored.iter().position(|content| content.contains(said)).unwrap_or_else(|| panic!("{said}: {stored:?}"));
    assert!(at("first") < at("second") && at("other") < stored.len(), "{stored:?}");
    assert!(!stored.iter().any(|content| content.contains("this is delivered")), "a receipt is not delivered again");
}

#[test]
fn a_line_that_cannot_be_used_is_told_by_its_number_and_the_others_go_on() {
    let world = World::new();
    let (offramp, settings) = fill(&world);
    let exported = text(&offramp.cli(&["export"]));
    let mut texts: Vec<String> = exported.lines().map(str::to_owned).collect();
    texts[1] = "{\"id\": 7}".to_owned();
    texts[3] = texts[3].replace("\"graphiti\":", "\"lightrag\":");
    texts[2] = texts[2].replace("\"sinks\":{", "\"sinks\":{\"falkor\":{\"state\":\"pending\",\"attempts\":0},");
    texts.insert(4, "  ".to_owned());
    let torn = texts[5].len() / 2;
    texts[5].truncate(torn);
    let file = texts.join("\n");

    let offline = elsewhere(&settings);
    let dir = world.dir().join("running");
    fs::create_dir(&dir).unwrap();
    let mut running = Offramp::start(&dir, &settings.text());
    text(&running.cli(&["pause", "graphiti"]));
    fs::write(offline.path().join("some.jsonl"), &file).unwrap();
    let path = offline.path().join("some.jsonl");
    let path = path.to_str().unwrap();
    for output in [run(offline.path(), &["import", path]), running.cli(&["import", path])] {
        let (said, complaints) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        assert_eq!(output.status.code(), Some(1), "{complaints}");
        assert_eq!(said, "2 episodes imported, 0 were there already\n");
        let told: Vec<&str> = complaints.lines().collect();
        assert_eq!(told.len(), 5, "{complaints}");
        assert!(told[0].starts_with(&format!("{path}:2: it is no episode")), "{complaints}");
        assert!(told[1].starts_with(&format!("{path}:4: none of its sinks is configured here: lightrag")), "{complaints}");
        assert!(told[2].starts_with(&format!("{path}:6: it is no episode: EOF")), "{complaints}");
        assert!(told[3].starts_with("sink falkor: 1 episode went there as well"), "{complaints}");
        assert_eq!(told[4], "offramp: 3 lines could not be imported");
    }
    assert_balanced(offline.path(), 1, 0, 1);
    running.wait_for_status("as offline", LIMIT, |status| status["ledger"]["pending"] == 1);

    let output = run(offline.path(), &["import", "nowhere.jsonl"]);
    assert_eq!((output.status.code(), output.stdout), (Some(1), Vec::new()));
    assert!(String::from_utf8_lossy(&output.stderr).contains("nowhere.jsonl cannot be read"));
}

#[test]
fn inv9_a_full_queue_ends_an_import_with_an_answer_and_the_next_one_goes_on() {
    let world = World::new();
    let offramp = world.start(&world.settings());
    text(&offramp.cli(&["pause", "graphiti"]));
    assert_eq!(exchange(&offramp, "s", "x".repeat(2_000).as_str()).status, 200);
    let line = text(&offramp.cli(&["export"]));
    let id = lines(&line)[0]["id"].as_str().unwrap().to_owned();
    // More than a connection's buffers hold, so that the client is still sending when the queue is full.
    let file: String = (0..10_000).map(|n| line.replace(&id, &format!("01980000-0000-7000-8000-{n:012}"))).collect();
    let other = World::new();
    let path = other.dir().join("many.jsonl");
    fs::write(&path, file).unwrap();
    let path = path.to_str().unwrap();
    let small = other.settings().set("queue.max_episodes", "1_000");
    let running = other.start(&small);
    text(&running.cli(&["pause", "graphiti"]));
    let output = running.cli(&["import", path]);
    let says = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{says}");
    assert!(says.contains("the queue is full: 1000 episodes were imported, and the one in line 1001"), "{says}");
    assert_eq!(running.status()["ledger"]["pending"], 1_000);
    assert!(running.stop().success());

    let running = other.start(&other.settings());
    assert_eq!(text(&running.cli(&["import", path])), "9,000 episodes imported, 1,000 were there already\n");
    let status = running.status();
    assert_eq!((&status["ledger"]["captured"], &status["ledger"]["gap"]), (&10_000.into(), &0.into()));
    assert_eq!(text(&running.cli(&["export"])).lines().count(), 10_000);
}

#[test]
fn the_api_refuses_what_is_no_export_and_a_torn_body_leaves_no_half_line() {
    let world = World::new();
    let offramp = world.start(&world.settings());
    let response = offramp.ask("POST", "/api/v1/import", Some(&serde_json::json!({})));
    assert_eq!(response.status, 415, "{}", response.text());
    assert_eq!(offramp.ask("GET", "/api/v1/export?sate=dead", None).status, 400);
    assert_eq!(offramp.ask("GET", "/api/v1/export?state=deaf", None).status, 400);
    let empty = offramp.ask("GET", "/api/v1/export", None);
    assert_eq!((empty.status, empty.text()), (200, String::new()));

    // A client that is killed while it sends.
    text(&offramp.cli(&["pause", "graphiti"]));
    assert_eq!(exchange(&offramp, "s", "hello").status, 200);
    let line = text(&offramp.cli(&["export"]));
    let mut import = offramp.cli_command().args(["import", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = import.stdin.take().unwrap();
    let other = line.replace(lines(&line)[0]["id"].as_str().unwrap(), "01980000-0000-7000-8000-000000000001");
    stdin.write_all(other.trim_end().as_bytes()).unwrap();
    stdin.flush().unwrap();
    import.kill().unwrap();
    import.wait().unwrap();
    assert_eq!(offramp.status()["ledger"]["captured"], 1);
    drop(stdin);
}

#[test]
fn a_reader_that_has_seen_enough_of_an_export_is_no_error() {
    let world = World::new();
    let (offramp, settings) = fill(&world);
    let stopped = elsewhere(&settings);
    fs::write(stopped.path().join("all.jsonl"), text(&offramp.cli(&["export"]))).unwrap();
    text(&run(stopped.path(), &["import", "all.jsonl"]));
    for mut export in [offramp.cli_command(), command(stopped.path())] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = export.arg("export").stdout(writer).stderr(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap();
        assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""));
    }
}
