//! Every command, against a running offramp and against a queue that nobody runs.

use std::fs;
use std::path::Path;
use std::process::{Output, Stdio};

use offramp::demo::graph::faults::{Call, Fault, Times};
use serde_json::Value;
use uuid::Uuid;

use crate::support::offramp::{Offramp, command, configure, run};
use crate::support::world::{LIMIT, World, exchange};

/// Runs a command somewhere.
type Run<'a> = &'a dyn Fn(&[&str]) -> Output;

/// What it wrote, if it ended well and had nothing to complain about.
fn text(output: &Output) -> String {
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {complaints}", output.status);
    assert_eq!(complaints, "");
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn json(output: &Output) -> Value {
    let text = text(output);
    assert_eq!(text.lines().count(), 1, "one line where no terminal shows it: {text}");
    serde_json::from_str(&text).unwrap()
}

/// The exit code, and what it complained about.
fn failure(output: &Output) -> (i32, String) {
    assert_eq!(String::from_utf8_lossy(&output.stdout), "");
    (output.status.code().unwrap(), String::from_utf8(output.stderr.clone()).unwrap())
}

/// An offramp with an episode that is delivered (the second), and two that are dead letters.
fn filled(world: &World) -> Offramp {
    let mut offramp = world.start(&world.settings());
    let settled = |offramp: &mut Offramp, dead: u64, delivered: u64| {
        offramp.wait_for_status("settled", LIMIT, |status| {
            status["ledger"]["dead"] == dead && status["ledger"]["delivered"] == delivered && status["ledger"]["pending"] == 0
        });
    };
    for (session, dead, delivered) in [("first", 1, 0), ("second", 1, 1), ("third", 2, 1)] {
        if session != "second" {
            world.graph.faults().answer(Call::Messages, Fault::Status(422), Times::Next(1));
        }
        assert_eq!(exchange(&offramp, session, &format!("this is {session}")).status, 200);
        settled(&mut offramp, dead, delivered);
    }
    offramp
}

/// What reads, wherever it reads: the same answers from the running offramp and from the queue itself.
fn reading_commands(run: Run, sink_state: &str) {
    let status = json(&run(&["status", "--json"]));
    assert_eq!(status["ledger"]["captured"], 3);
    assert_eq!(status["ledger"]["dead"], 2);
    assert_eq!(status["ledger"]["delivered"], 1);
    assert_eq!(status["ledger"]["gap"], 0);
    assert_eq!(status["sinks"][0]["state"], sink_state);
    let table = text(&run(&["status"]));
    assert!(table.contains("graphiti") && table.contains(sink_state), "{table}");
    assert!(!table.contains('\x1b'), "colours without a terminal: {table:?}");

    let page = json(&run(&["episodes", "--json"]));
    let ids: Vec<&str> = page["episodes"].as_array().unwrap().iter().map(|episode| episode["id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), 3);
    let table = text(&run(&["episodes"]));
    assert_eq!(table.lines().count(), 4, "a heading and a line for each: {table}");
    assert!(ids.iter().all(|id| table.contains(id)), "{table}");
    let delivered = json(&run(&["episodes", "--state", "delivered", "--json"]));
    assert_eq!(delivered["episodes"][0]["id"], ids[1]);
    assert_eq!(delivered["episodes"].as_array().unwrap().len(), 1);
    let limited = json(&run(&["episodes", "--limit", "2", "--json"]));
    let rest = json(&run(&["episodes", "--cursor", limited["next_cursor"].as_str().unwrap(), "--json"]));
    assert_eq!((limited["episodes"].as_array().unwrap().len(), &rest["episodes"][0]["id"]), (2, &ids[2].into()));

    let episode = json(&run(&["show", ids[0], "--json"]));
    assert_eq!(episode["messages"][0]["content"], "this is first");
    assert_eq!(episode["sinks"]["graphiti"]["history"][0]["status"], 422);
    let story = text(&run(&["show", ids[0]]));
    assert!(story.contains("this is first") && story.contains("422"), "{story}");

    let dead = json(&run(&["dead", "list", "--json"]));
    let dead: Vec<&str> = dead["episodes"].as_array().unwrap().iter().map(|episode| episode["id"].as_str().unwrap()).collect();
    assert_eq!(dead, [ids[0], ids[2]]);
    let table = text(&run(&["dead", "list"]));
    assert!(table.contains("rejected") && table.contains(ids[0]) && !table.contains(ids[1]), "{table}");
    assert_eq!(json(&run(&["dead", "list", "--reason", "max_age", "--json"]))["episodes"], Value::Array(Vec::new()));

    // What can't be done is said, with a code for scripts.
    let (code, says) = failure(&run(&["show", &Uuid::nil().to_string()]));
    assert!(code == 1 && says.contains("there is no episode"), "{code}: {says}");
    let (code, says) = failure(&run(&["episodes", "--sink", "graphit"]));
    assert!(code == 2 && says.contains("graphiti"), "{code}: {says}");
    let (code, says) = failure(&run(&["episodes", "--state", "lost"]));
    assert!(code == 2 && says.contains("delivered"), "{code}: {says}");
    let (code, says) = failure(&run(&["pause", "nobody"]));
    assert!(code == 2 && says.contains("the sinks are: graphiti"), "{code}: {says}");
    let (code, says) = failure(&run(&["dead", "purge", "--all"]));
    assert!(code == 2 && says.contains("--yes"), "{code}: {says}");
    let (code, says) = failure(&run(&["dead", "redrive"]));
    assert_eq!(code, 2, "{says}");
    let (code, says) = failure(&run(&["no-such-command"]));
    assert_eq!(code, 2, "{says}");
}

#[test]
fn every_command_works_against_a_running_offramp() {
    let world = World::new();
    let mut offramp = filled(&world);
    reading_commands(&|args| offramp.cli(args), "running");

    assert!(text(&offramp.cli(&["pause", "graphiti"])).contains("paused"));
    assert_eq!(offramp.status()["sinks"][0]["state"], "paused");
    assert!(text(&offramp.cli(&["dead", "purge", "--session", &session(&offramp, 2), "--yes"])).contains("1 dead letter"));
    assert!(text(&offramp.cli(&["dead", "redrive", "--all"])).contains("1 dead letter"));
    assert_eq!(offramp.status()["ledger"]["pending"], 1);
    assert!(text(&offramp.cli(&["resume", "graphiti"])).contains("running"));
    let status = offramp.wait_for_status("redriven", LIMIT, |status| status["ledger"]["delivered"] == 2);
    assert_eq!(status["ledger"]["purged"], 1);
    assert_eq!(status["ledger"]["gap"], 0);
}

/// The session of the episode at this place.
fn session(offramp: &Offramp, place: usize) -> String {
    offramp.episodes()[place]["session"].as_str().unwrap().to_owned()
}

#[test]
fn every_command_works_on_the_queue_of_a_stopped_offramp() {
    let world = World::new();
    let offramp = filled(&world);
    let third = session(&offramp, 2);
    assert!(offramp.stop().success());
    let stopped = |args: &[&str]| run(world.dir(), args);
    reading_commands(&stopped, "stopped");

    assert!(text(&stopped(&["pause", "graphiti"])).contains("paused"));
    assert!(text(&stopped(&["dead", "purge", "--session", &third, "--yes"])).contains("1 dead letter"));
    assert!(text(&stopped(&["dead", "redrive", "--sink", "graphiti"])).contains("1 dead letter"));

    // The next start finds it so.
    let mut offramp = world.start(&world.settings());
    let status = offramp.status();
    assert_eq!(status["sinks"][0]["state"], "paused");
    assert_eq!((&status["ledger"]["pending"], &status["ledger"]["purged"]), (&1.into(), &1.into()));
    assert!(text(&offramp.cli(&["resume", "graphiti"])).contains("running"));
    offramp.wait_for_status("redriven", LIMIT, |status| status["ledger"]["delivered"] == 2);
}

#[test]
fn a_command_without_an_offramp_and_without_a_queue_says_so() {
    let world = World::new();
    configure(world.dir(), &world.settings().text());
    for args in [&["status"][..], &["episodes"], &["dead", "list"], &["pause", "graphiti"]] {
        let (code, says) = failure(&run(world.dir(), args));
        assert!(code == 3 && says.contains("offramp run"), "{args:?}: {code}: {says}");
        assert!(!world.dir().join("queue").exists(), "a question made a queue");
    }
}

#[test]
fn a_command_at_the_wrong_address_says_that_the_queue_has_an_owner() {
    let world = World::new();
    let offramp = world.start(&world.settings());
    // The configuration says port 0, where nobody answers.
    let (code, says) = failure(&run(world.dir(), &["status"]));
    assert!(code == 3 && says.contains(&format!("process {}", offramp.pid())), "{code}: {says}");
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let world = World::new();
    let offramp = filled(&world);
    for args in [&["episodes"][..], &["episodes", "--json"], &["status"], &["dead", "list"]] {
        // `| head -1`, at its quickest: the reader is gone before the first byte.
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = offramp.cli_command().args(args).stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
        let output = output.wait_with_output().unwrap();
        assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""), "{args:?}");
    }
}

/// A configuration with faults, each line with what must be said about it.
const FAULTY: [(&str, &str); 37] = [
    ("[[proxy]]", ""),
    ("name = 'agent'", ""),
    ("listen = '127.0.0.1:18880'", ""),
    ("upstream = 'ftp://127.0.0.1:18881'", "http://"),
    ("conect_timeout = '10s'", "connect_timeout"),
    ("response_timeout = '10 parsecs'", "2m"),
    ("max_in_flight = 'many'", "an integer from 1"),
    ("[[proxy.route]]", ""),
    ("name = 'run'", ""),
    ("path = '/run'", ""),
    ("action = 'capture'", ""),
    ("preset = 'automagik'", ""),
    ("sinks = ['graphit']", "graphiti"),
    ("[[proxy]]", ""),
    ("name = 'second'", ""),
    ("listen = '127.0.0.1:18880'", "agent"),
    ("upstream = 'http://127.0.0.1:18881'", ""),
    ("[[proxy]]", ""),
    ("name = 'third'", ""),
    ("listen = 'unix:run/third.sock'", "absolute"),
    ("upstream = 'http://127.0.0.1:18881'", ""),
    ("[queue]", ""),
    ("path = 'queue'", ""),
    ("encryption_key_file = '/nowhere/key'", "openssl rand"),
    ("[[sink]]", ""),
    ("name = 'graphiti'", ""),
    ("type = 'graphiti'", ""),
    ("url = 'http://127.0.0.1:18000'", ""),
    ("[[sink]]", ""),
    ("name = 'graphiti'", "graphiti"),
    ("type = 'graphiti'", ""),
    ("url = 'http://127.0.0.1:18000'", ""),
    ("[admin]", ""),
    ("listen = '0.0.0.0:19911'", "token_file"),
    ("[log]", ""),
    ("level = 'info'", ""),
    ("format = 'json'", ""),
];

/// Line, column and sentence of each fault, in the order in which they are printed.
fn faults(file: &Path, output: &str) -> Vec<(usize, usize, String)> {
    let file = format!("{}:", file.display());
    let fault = |line: &str| {
        let mut parts = line.strip_prefix(&file)?.splitn(3, ':');
        let (line, column) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        Some((line, column, parts.next()?.trim().to_owned()))
    };
    output.lines().map(|line| fault(line).unwrap_or_else(|| panic!("not FILE:LINE:COL: SENTENCE: {line}"))).collect()
}

#[test]
fn check_prints_ten_mistakes_as_ten_lines_with_their_places() {
    let dir = tempfile::tempdir().unwrap();
    let text: Vec<&str> = FAULTY.iter().map(|(line, _)| *line).collect();
    configure(dir.path(), &text.join("\n"));

    let output = run(dir.path(), &["check"]);
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(2), ""));
    let file = dir.path().join("config.toml");
    let said = String::from_utf8(output.stdout).unwrap();
    let (lines, summary) = said.trim_end().rsplit_once('\n').unwrap();
    assert_eq!(summary, format!("10 faults in {}", file.display()));
    let faults = faults(&file, lines);
    let expected: Vec<_> = (1..).zip(FAULTY).filter(|(_, (_, says))| !says.is_empty()).collect();
    assert_eq!(expected.len(), 10);
    assert_eq!(
        faults.iter().map(|fault| fault.0).collect::<Vec<_>>(),
        expected.iter().map(|e| e.0).collect::<Vec<_>>(),
        "{said}"
    );
    for ((_, column, sentence), (_, (line, says))) in faults.iter().zip(expected) {
        assert!((1..=line.len()).contains(column), "{line}: column {column}");
        assert!(sentence.contains(says), "{line}: {sentence}");
    }

    // `run` refuses it with the same words.
    let output = run(dir.path(), &["run"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("connect_timeout"));
    assert!(!dir.path().join("queue").exists());
}

#[test]
fn check_of_a_good_file_is_0_and_of_none_2() {
    let world = World::new();
    let check = |args: &[&str]| {
        let output = run(world.dir(), &[args, &["check"]].concat());
        (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, says) = check(&[]);
    assert!(code == 2 && says.contains("config.toml cannot be read"), "{code}: {says}");

    configure(world.dir(), &world.settings().text());
    let (code, says) = check(&[]);
    assert!(code == 0 && says.contains("no fault"), "{code}: {says}");

    // A key can be given on the command line and in the environment, and is checked there as well.
    let (code, says) = check(&["--set", "queue.max_episodes=none"]);
    assert!(code == 2 && says.contains("max_episodes"), "{code}: {says}");
    let output = command(world.dir()).env("OFFRAMP_QUEUE__MAX_EPISODES", "none").arg("check").output().unwrap();
    let says = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.code() == Some(2) && says.contains("OFFRAMP_QUEUE__MAX_EPISODES"), "{says}");
    assert_eq!(fs::read_dir(world.dir()).unwrap().count(), 1, "it only looks");
}
