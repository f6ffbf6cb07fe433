//! The whole road, as `tests/road/road.py` drives it, with fewer exchanges than by hand.

use std::time::Duration;

use tempfile::TempDir;

use crate::support::parts::SUPPORT;
use crate::support::process::{Process, Reports};

const LIMIT: Duration = Duration::from_secs(300);

#[test]
fn inv4_inv5_inv7_inv8_the_whole_road_outlives_two_kills_of_offramp_and_one_of_graphiti() {
    travel(&[]);
}

#[test]
fn inv4_inv5_inv7_inv8_so_does_the_road_over_mcp() {
    travel(&["--mcp"]);
}

fn travel(args: &[&str]) {
    let dir = TempDir::new().unwrap();
    let mut command = SUPPORT.program("../road/road.py", dir.path());
    command
        .args(["--offramp", env!("CARGO_BIN_EXE_offramp"), "--exchanges", "48", "--sessions", "8", "--limit", "280"])
        .args(args);
    command.env("TMPDIR", dir.path());
    let mut road = Process::start("road", command, Reports::Stdout, dir.path());
    let says = road.rest();
    assert!(road.wait(LIMIT).success(), "{says}\n{}", road.log_tail());
}
