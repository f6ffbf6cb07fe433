//! Nobody can tell that it is there: real clients have the same conversations with real upstreams, directly and through offramp, and both
//! ends must see the same. `tests/transparent` has the cases, and what is known to differ; `drive.py` there runs them.
//!
//! `OFFRAMP_TRANSPARENT` chooses groups of cases (`h1,upgrade,h2,grpc,tls`), `OFFRAMP_TRANSPARENT_CASE` those whose name has a text.

use std::collections::BTreeMap;
use std::env;
use std::fmt::Write as _;
use std::io::Write as _;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::support::certificates::certificates;
use crate::support::offramp::Offramp;
use crate::support::parts::{self, TRANSPARENT};
use crate::support::process::{Process, Reports};

const GROUPS: &str = "h1,upgrade,h2,grpc,tls";

/// What listens, the program behind it, what is spoken to that, and the groups of cases that need it.
const PROXIES: &[(&str, &str, &str, &str)] = &[
    ("plain", "uvicorn", "h1", "h1,h2"),
    ("plain", "uvicorn-h11", "h1", "h1"),
    ("plain", "hypercorn", "h1", "h1,h2"),
    ("plain", "node", "h1", "h1,upgrade,h2"),
    ("plain", "raw", "h1", "h1,upgrade"),
    ("plain", "websocket", "h1", "upgrade"),
    ("plain", "hypercorn", "h2c", "h2"),
    ("plain", "node", "h2c", "h2"),
    ("plain", "grpc", "h2c", "grpc"),
    ("plain", "hypercorn", "tls", "tls"),
    ("plain", "node", "tls", "tls"),
    ("plain", "grpc", "tls", "tls"),
    ("tls", "uvicorn", "h1", "tls"),
    ("tls", "node", "h1", "tls"),
    ("tls", "websocket", "h1", "tls"),
    ("tls", "node", "h2c", "tls"),
    ("tls", "grpc", "h2c", "tls"),
    ("tls", "hypercorn", "tls", "tls"),
    ("tls", "node", "tls", "tls"),
    ("tls", "grpc", "tls", "tls"),
];

/// program → what is spoken → address
type Upstreams = BTreeMap<String, BTreeMap<String, String>>;

#[test]
fn direct_and_proxied_conversations_are_the_same() {
    let groups = env::var("OFFRAMP_TRANSPARENT").unwrap_or_else(|_| GROUPS.to_owned());
    let dir = tempfile::tempdir().unwrap();
    certificates(dir.path(), &["leaf"]);

    let mut serve = TRANSPARENT.program("serve.py", dir.path());
    serve.args(["leaf.pem", "leaf.key"]);
    let mut upstreams = Process::start("upstreams", serve, Reports::Stdout, dir.path());
    let told: Value = upstreams.wait_for("where they listen", |line| {
        line.strip_prefix("listening on ").map(|addresses| serde_json::from_str(addresses).expect("it prints JSON"))
    });
    let board = told["board"].clone();
    let mut programs = told;
    programs.as_object_mut().unwrap().remove("board");
    let programs: Upstreams = serde_json::from_value(programs).unwrap();

    let mut offramp = Offramp::start(dir.path(), &config(&programs, &groups));
    let proxies: BTreeMap<String, String> = needed(&groups)
        .map(|(listen, program, spoken)| name(listen, program, spoken))
        .map(|n| (n.clone(), offramp.proxy(&n).to_string()))
        .collect();

    let table = parts::directory().join("transparent.txt");
    let mut drive = TRANSPARENT.program("drive.py", dir.path());
    drive.arg("--table").arg(&table).stdin(Stdio::piped());
    drive.args(groups.split(',').flat_map(|group| ["--only", group]));
    if let Ok(case) = env::var("OFFRAMP_TRANSPARENT_CASE") {
        drive.args(["--case", &case]);
    }
    drive.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut driver = drive.spawn().unwrap();
    let world = json!({ "upstreams": programs, "proxies": proxies, "board": board, "ca": dir.path().join("ca.pem") });
    driver.stdin.take().unwrap().write_all(world.to_string().as_bytes()).unwrap();
    let done = driver.wait_with_output().unwrap();
    println!("{}\n(the table is in {})", String::from_utf8_lossy(&done.stdout), table.display());
    assert!(offramp.is_running(), "offramp ended; its log:\n{}", offramp.log());
    assert!(
        done.status.success(),
        "conversations differ, see above; the driver said:\n{}\nthe upstreams:\n{}\nofframp:\n{}",
        String::from_utf8_lossy(&done.stderr),
        upstreams.log_tail(),
        offramp.log()
    );
    assert!(offramp.stop().success());
}

fn name(listen: &str, program: &str, spoken: &str) -> String {
    format!("{listen}-{program}-{spoken}")
}

/// The proxies that these groups need.
fn needed(groups: &str) -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    PROXIES
        .iter()
        .filter(move |(.., needed_by)| needed_by.split(',').any(|group| groups.split(',').any(|chosen| chosen == group)))
        .map(|&(listen, program, spoken, _)| (listen, program, spoken))
}

fn config(programs: &Upstreams, groups: &str) -> String {
    let mut text = String::new();
    for (listen, program, spoken) in needed(groups) {
        let address = &programs[program][spoken];
        let upstream = match spoken {
            "tls" => format!("https://{}", address.replace("127.0.0.1", "localhost")),
            "h2c" => format!("h2c://{address}"),
            _ => format!("http://{address}"),
        };
        let name = name(listen, program, spoken);
        let _ = writeln!(text, "[[proxy]]\nname = \"{name}\"\nlisten = \"127.0.0.1:0\"\nupstream = \"{upstream}\"");
        // Longer than any case takes, and than the driver's own limits: only what hangs meets them.
        text += "response_timeout = \"8s\"\nidle_timeout = \"8s\"\n";
        if listen == "tls" {
            text += "tls = { cert_file = \"leaf.pem\", key_file = \"leaf.key\" }\n";
        }
        if spoken == "tls" {
            text += "upstream_tls = { ca_file = \"ca.pem\" }\n";
        }
    }
    text += "[queue]\npath = \"queue\"\nmin_free_disk = \"1MiB\"\n";
    text += "[admin]\nlisten = \"127.0.0.1:0\"\n[log]\nlevel = \"info\"\nformat = \"json\"\n";
    text
}
