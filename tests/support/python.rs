//! The Python programs beside this file: real services to start, and programs that run and answer in JSON.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::http;
use super::parts::{LIGHTRAG, SUPPORT};
use super::process::{Process, Reports};

/// A service on a port of its own; ended when dropped.
pub struct Service {
    process: Process,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Service {
    pub(super) fn start(name: &str, command: Command, dir: &Path) -> Self {
        let mut process = Process::start(name, command, Reports::Stdout, dir);
        let port: u16 =
            process.wait_for("`listening on PORT`", |line| line.strip_prefix("listening on ").and_then(|port| port.parse().ok()));
        Self { process, address: SocketAddr::from(([127, 0, 0, 1], port)) }
    }

    /// Its base URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// SIGKILL, and waits for its end.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Its log up to now.
    pub fn log(&self) -> String {
        self.process.log()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // In order, not by SIGKILL: FalkorDB's program has a child of its own to wait for.
        self.process.end();
    }
}

/// An agent in the automagik shape: `FastAPI` on uvicorn.
pub fn agent(dir: &Path) -> Service {
    Service::start("agent", SUPPORT.program("agent.py", dir), dir)
}

/// `FalkorDB` on its Redis.
pub fn falkordb(dir: &Path) -> Service {
    let mut command = SUPPORT.program("falkordb_server.py", dir);
    command.arg("--dir").arg(dir);
    Service::start("falkordb", command, dir)
}

/// The deterministic model.
pub fn model(dir: &Path) -> Service {
    Service::start("model", SUPPORT.program("openai_stub.py", dir), dir)
}

/// The next so many calls of the model fail with this status.
pub fn fail_model(model: &Service, status: u16, times: u32) {
    let order = json!({ "status": status, "times": times });
    assert_eq!(http::request(model.address, "POST", "/fail", Some(&order)).unwrap().status, 200);
}

/// Graphiti: `graphiti-core` on this `FalkorDB` with this model, behind its REST service, or behind an MCP server with these arguments.
/// `port` is 0, or that of one that was killed, for its restart.
fn graphiti(dir: &Path, falkordb: &Service, model: &Service, port: u16, mcp: Option<&[&str]>) -> Service {
    let (name, program) =
        if mcp.is_some() { ("graphiti-mcp", "graphiti_mcp_server.py") } else { ("graphiti", "graphiti_service.py") };
    let mut command = SUPPORT.program(program, dir);
    command
        .args(["--falkordb-port", &falkordb.address.port().to_string(), "--port", &port.to_string()])
        .args(mcp.unwrap_or_default())
        .env("OPENAI_BASE_URL", format!("{}/v1", model.url()))
        .env("OPENAI_API_KEY", "none");
    Service::start(name, command, dir)
}

/// `LightRAG` with this model, and with what it keeps in `dir`. `port` is 0, or that of a service that was killed, for its restart.
pub fn lightrag(dir: &Path, model: &Service, port: u16) -> Service {
    let mut command = LIGHTRAG.program("server.py", dir);
    command.args(["--model", &model.url(), "--port", &port.to_string(), "--dir"]).arg(dir.join("lightrag"));
    Service::start("lightrag", command, dir)
}

/// Sends `exchanges` exchanges in each session through `address`, with httpx; each with what came of it.
pub fn converse(dir: &Path, address: SocketAddr, sessions: &[String], exchanges: usize) -> Vec<Value> {
    let mut command = SUPPORT.program("client.py", dir);
    command.args(["--url", &format!("http://{address}"), "--exchanges", &exchanges.to_string()]);
    for session in sessions {
        command.args(["--session", session]);
    }
    list(command, "exchanges")
}

/// Every Episodic node of every graph, by Cypher, in the order of its event time within its graph.
pub fn episodic_nodes(dir: &Path, falkordb: &Service) -> Vec<Value> {
    let mut command = SUPPORT.program("read_back.py", dir);
    command.args(["--falkordb-port", &falkordb.address.port().to_string()]);
    list(command, "episodes")
}

/// Runs a program to its end; the list of this name in the JSON that it prints.
fn list(mut command: Command, name: &str) -> Vec<Value> {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?} failed:\n{}", String::from_utf8_lossy(&output.stderr));
    let mut answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    match answer[name].take() {
        Value::Array(list) => list,
        other => panic!("{command:?} printed no list of {name}: {other}"),
    }
}

/// Graphiti's real service, or its MCP server, with what it stands on, and the directory of one test. They end with it.
pub struct RealGraphiti {
    /// Its database.
    pub falkordb: Service,
    /// The language model that it asks.
    pub model: Service,
    /// The service itself.
    pub service: Service,
    /// The arguments of the MCP server, if it is that.
    mcp: Option<&'static [&'static str]>,
    dir: TempDir,
}

impl RealGraphiti {
    /// All of it, started.
    pub fn new() -> Self {
        Self::start(None)
    }

    /// With an MCP server instead of the service; these are its arguments.
    pub fn over_mcp(args: &'static [&'static str]) -> Self {
        Self::start(Some(args))
    }

    fn start(mcp: Option<&'static [&'static str]>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let falkordb = falkordb(dir.path());
        let model = model(dir.path());
        let service = graphiti(dir.path(), &falkordb, &model, 0, mcp);
        Self { falkordb, model, service, mcp, dir }
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A new process at the old address, as a supervisor would make it.
    pub fn restart(&mut self) {
        let port = self.service.address.port();
        self.service.kill();
        self.service = graphiti(self.dir.path(), &self.falkordb, &self.model, port, self.mcp);
    }

    /// What is in the graph.
    pub fn nodes(&self) -> Vec<Value> {
        episodic_nodes(self.dir(), &self.falkordb)
    }
}
