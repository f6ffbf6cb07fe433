//! The real binary as a child process, with its admin API at hand.

use std::collections::HashMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::http::{self, Response};
use super::process::{Process, Reports};
use super::wait_until;

const SHUTDOWN_LIMIT: Duration = Duration::from_secs(60);

/// The configuration's name in the directory of a test.
const CONFIG: &str = "config.toml";

/// The binary in `dir` with this configuration there, and nothing of the environment that would change what it says.
pub fn command(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_offramp"));
    command.current_dir(dir).arg("--config").arg(dir.join(CONFIG));
    for (key, _) in std::env::vars_os() {
        if key.to_string_lossy().starts_with("OFFRAMP_") {
            command.env_remove(key);
        }
    }
    command
}

/// Runs a command of the command line to its end, where no offramp runs (or at the address that the configuration names).
pub fn run(dir: &Path, args: &[&str]) -> Output {
    command(dir).args(args).stdin(Stdio::null()).output().unwrap()
}

/// Writes the configuration.
pub fn configure(dir: &Path, config: &str) {
    fs::write(dir.join(CONFIG), config).unwrap();
}

/// A running `offramp run`; killed when dropped.
pub struct Offramp {
    process: Process,
    /// What its log calls them (`admin`, `proxy NAME`), and where they listen.
    listeners: HashMap<String, SocketAddr>,
    dir: PathBuf,
}

impl Offramp {
    /// Starts it in `dir` with this configuration, which must listen on TCP and log JSON to standard error, and waits until each
    /// listener is up. A second start with the same `queue.path` is a restart.
    pub fn start(dir: &Path, config: &str) -> Self {
        Self::start_as(dir, config, |command| command)
    }

    /// The same on one thread: nothing depends on which thread was free.
    pub fn start_on_one_thread(dir: &Path, config: &str) -> Self {
        Self::start_as(dir, config, |mut command| {
            command.env("TOKIO_WORKER_THREADS", "1");
            command
        })
    }

    /// The same in surroundings that `change` makes.
    pub fn start_as(dir: &Path, config: &str, change: impl FnOnce(Command) -> Command) -> Self {
        configure(dir, config);
        let mut command = command(dir);
        command.arg("run");
        let mut process = Process::start("offramp", change(command), Reports::Stderr, dir);
        let expected = 1 + config.lines().filter(|line| line.trim() == "[[proxy]]").count();
        let mut listeners = HashMap::new();
        process.wait_for("where all its listeners are", |line| {
            listeners.extend(listening(line));
            (listeners.len() == expected).then_some(())
        });
        Self { process, listeners, dir: dir.to_owned() }
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

    /// A counter or gauge of `/metrics`: the sum over the series that bear all of these labels; none where there is no such series.
    pub fn metric(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let text = self.ask("GET", "/metrics", None).text();
        let labels: Vec<String> = labels.iter().map(|(key, value)| format!("{key}=\"{value}\"")).collect();
        let series = text.lines().filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let (found, rest) = series.split_once('{').unwrap_or((series, ""));
            (found == name && labels.iter().all(|label| rest.contains(label))).then(|| value.parse::<f64>().unwrap())
        });
        series.reduce(|sum, value| sum + value)
    }

    /// Runs a command of the command line to its end, against this offramp.
    pub fn cli(&self, args: &[&str]) -> Output {
        self.cli_command().args(args).stdin(Stdio::null()).output().unwrap()
    }

    /// Such a command, to be started by the caller. The configuration says port 0, so the real one is given.
    pub fn cli_command(&self) -> Command {
        let mut command = command(&self.dir);
        command.arg("--set").arg(format!("admin.listen={}", self.admin()));
        command
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.process.is_running()
    }

    /// Sends a signal (`TERM`, `INT`) and does not wait.
    pub fn signal(&self, name: &str) {
        self.process.signal(name);
    }

    /// Waits for its end after a signal.
    pub fn wait(mut self) -> ExitStatus {
        self.process.wait(SHUTDOWN_LIMIT)
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
