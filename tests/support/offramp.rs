//! The real binary as a child process, with its admin API at hand.

use std::collections::HashMap;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use serde_json::Value;

use super::http::{self, Response};
use super::process::{Process, Reports};
use super::wait_until;

const SHUTDOWN_LIMIT: Duration = Duration::from_secs(60);

/// A running `offramp run`; killed when dropped.
pub struct Offramp {
    process: Process,
    /// What its log calls them (`admin`, `proxy NAME`), and where they listen.
    listeners: HashMap<String, SocketAddr>,
}

impl Offramp {
    /// Starts it in `dir` with this configuration, which must listen on TCP and log JSON to standard error, and waits until each
    /// listener is up. A second start with the same `queue.path` is a restart.
    pub fn start(dir: &Path, config: &str) -> Self {
        let file = dir.join("config.toml");
        fs::write(&file, config).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_offramp"));
        command.arg("--config").arg(file).arg("run").current_dir(dir);
        for (key, _) in std::env::vars_os() {
            if key.to_string_lossy().starts_with("OFFRAMP_") {
                command.env_remove(key);
            }
        }
        let mut process = Process::start("offramp", command, Reports::Stderr, dir);
        let expected = 1 + config.lines().filter(|line| line.trim() == "[[proxy]]").count();
        let mut listeners = HashMap::new();
        process.wait_for("where all its listeners are", |line| {
            listeners.extend(listening(line));
            (listeners.len() == expected).then_some(())
        });
        Self { process, listeners }
    }

    /// Where a proxy listens.
    pub fn proxy(&self, name: &str) -> SocketAddr {
        self.listeners[&format!("proxy {name}")]
    }

    /// Where the admin API listens.
    pub fn admin(&self) -> SocketAddr {
        self.listeners["admin"]
    }

    /// A request to the admin API.
    pub fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Response {
        http::request(self.admin(), method, path, body)
            .unwrap_or_else(|error| panic!("{method} {path}: {error}; offramp's log:\n{}", self.process.log_tail()))
    }

    /// A `GET` of the admin API that must succeed.
    pub fn get(&self, path: &str) -> Value {
        let response = self.ask("GET", path, None);
        assert_eq!(response.status, 200, "GET {path}: {}", response.text());
        response.json()
    }

    /// `GET /api/v1/status`.
    pub fn status(&self) -> Value {
        self.get("/api/v1/status")
    }

    /// Every episode, in the order of capture.
    pub fn episodes(&self) -> Vec<Value> {
        let mut episodes = Vec::new();
        let mut cursor = String::new();
        loop {
            let page = self.get(&format!("/api/v1/episodes?limit=500{cursor}"));
            episodes.extend(page["episodes"].as_array().expect("a page has episodes").iter().cloned());
            cursor = match &page["next_cursor"] {
                Value::Null => return episodes,
                Value::String(next) => format!("&cursor={next}"),
                next => format!("&cursor={next}"),
            };
        }
    }

    /// Waits until the status satisfies `condition`, and returns it.
    pub fn wait_for_status(&mut self, what: &str, limit: Duration, condition: impl Fn(&Value) -> bool) -> Value {
        let mut status = Value::Null;
        let in_time = wait_until(limit, || {
            assert!(self.process.is_running(), "offramp ended while waited for: {what}; its log:\n{}", self.process.log_tail());
            status = self.status();
            condition(&status)
        });
        assert!(in_time, "not within {limit:?}: {what}; the status is {status:#}; offramp's log:\n{}", self.process.log_tail());
        status
    }

    /// Waits until so many episodes were captured and all of them are delivered.
    pub fn wait_for_delivery(&mut self, episodes: usize, limit: Duration) -> Value {
        let status = self.wait_for_status(&format!("{episodes} delivered"), limit, |status| {
            let ledger = &status["ledger"];
            ledger["captured"] == episodes && ledger["delivered"] == episodes && ledger["pending"] == 0
        });
        assert_eq!(status["ledger"]["gap"], 0);
        status
    }

    /// SIGKILL, as a crash is: nothing is flushed and nothing is said.
    pub fn kill(mut self) {
        self.process.kill();
    }

    /// SIGTERM; the exit status of the orderly end.
    pub fn stop(mut self) -> ExitStatus {
        self.process.terminate(SHUTDOWN_LIMIT)
    }

    /// Its log up to now.
    pub fn log(&self) -> String {
        self.process.log()
    }
}

/// The name and address of a listener, if the line says that one is up.
fn listening(line: &str) -> Option<(String, SocketAddr)> {
    let line: Value = serde_json::from_str(line).ok()?;
    let fields = line.get("fields").unwrap_or(&line);
    if fields["message"] != "listening" {
        return None;
    }
    Some((fields["what"].as_str()?.to_owned(), fields["address"].as_str()?.parse().ok()?))
}
