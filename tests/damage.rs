//! A disk that lies, under the real binary. The many cases are in the library (`OFFRAMP_DAMAGES`).

use std::fs;
use std::time::Duration;

use offramp::demo::graph::{Mode, Options};
use serde_json::Value;

use crate::support::offramp::run;
use crate::support::world::{LIMIT, World};

const REQUESTS: u64 = 200;

#[test]
fn inv8_a_queue_whose_file_was_damaged_and_cut_off_is_set_aside_and_the_service_starts_and_delivers_the_rest() {
    let world = World::with(Duration::ZERO, Options { write_delay: Duration::from_millis(20), mode: Mode::Parallel(30) });
    let settings = world.settings();
    world.stop_graph();
    let offramp = world.start(&settings);
    world.load(&offramp, "damage", REQUESTS, 10);
    assert_eq!(offramp.status()["ledger"]["captured"], REQUESTS);
    assert!(offramp.stop().success());

    let log = world.dir().join("queue/store/db");
    let mut bytes = fs::read(&log).unwrap();
    let used = bytes.iter().rposition(|b| *b != 0).unwrap();
    bytes[used / 2..used / 2 + 4096].fill(0x55);
    bytes.truncate(used / 10 * 9);
    fs::write(&log, &bytes).unwrap();
    let verified = run(world.dir(), &["verify", "--json"]);
    assert_eq!(verified.status.code(), Some(1));
    let found: Value = serde_json::from_slice(&verified.stdout).unwrap();
    assert!(found["damage"]["count"].as_u64() >= Some(1), "{found}");
    assert_eq!(fs::read(&log).unwrap(), bytes, "verify changes nothing");

    world.resume_graph();
    let mut offramp = world.start(&settings);
    let status = offramp.wait_for_status("drained", LIMIT, |status| status["ledger"]["pending"] == 0);
    let number = |name: &str| status["ledger"][name].as_u64().unwrap();
    assert_eq!(number("captured"), REQUESTS);
    assert_eq!(number("delivered") + number("dead") + number("gap"), REQUESTS);
    assert!(number("delivered") > REQUESTS / 2 && number("gap") > 0, "{status}");
    assert_eq!(world.graph.stored().len() as u64, number("delivered"), "each once");
    let said = offramp.log();
    assert!(said.contains("the queue's store was damaged") && said.contains("quarantine/"), "{said}");
    assert!(!said.contains("panicked") && !said.contains("backtrace"), "{said}");
    assert_eq!(offramp.metric("offramp_ledger_gap", &[]), Some(f64::from(u32::try_from(number("gap")).unwrap())));
    assert!(offramp.stop().success());

    assert_eq!(run(world.dir(), &["verify"]).status.code(), Some(1), "there is a gap");
    assert!(run(world.dir(), &["verify", "--write-off"]).status.success());
    let verified = run(world.dir(), &["verify"]);
    let said = String::from_utf8(verified.stdout).unwrap();
    assert!(verified.status.success() || number("dead") > 0, "{said}");
    assert!(said.contains("set aside earlier, as it was found: ") && said.contains("quarantine/"), "{said}");
}
