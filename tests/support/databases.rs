//! The real graph databases that a sink speaks to without a service before them, and their vendors' own clients to look into them. All
//! tests share one of each, and each test has a graph of its own.

use std::io::Write;
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::parts::{ARCADEDB, SUPPORT};
use super::python::Service;

/// What both ask for.
pub const PASSWORD: &str = "it's a \"secret\"";

/// The graphs that tests have: `ArcadeDB` has to be told in advance.
const GRAPHS: [&str; 7] = ["once", "conform", "crowd", "own", "ways", "whole", "many"];

/// Which one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Database {
    /// Over Bolt.
    ArcadeDb,
    /// Over RESP.
    FalkorDb,
}

/// One that runs. It ends with the last test that holds it.
pub struct Running {
    /// Where it listens.
    address: SocketAddr,
    dir: TempDir,
    _service: Mutex<Service>,
}

static RUNNING: [Mutex<Weak<Running>>; 2] = [const { Mutex::new(Weak::new()) }; 2];

impl Database {
    /// Both.
    pub const ALL: [Self; 2] = [Self::ArcadeDb, Self::FalkorDb];

    /// Starts it, unless another test has. It is there at least as long as what this gives is held.
    pub fn start(self) -> Arc<Running> {
        let mut slot = RUNNING[self as usize].lock().unwrap_or_else(PoisonError::into_inner);
        slot.upgrade().unwrap_or_else(|| {
            let dir = tempfile::tempdir().unwrap();
            let mut command = match self {
                Self::ArcadeDb => ARCADEDB.program("arcadedb_server.py", dir.path()),
                Self::FalkorDb => SUPPORT.program("falkordb_server.py", dir.path()),
            };
            command.arg("--dir").arg(dir.path()).args(["--password", PASSWORD]);
            if self == Self::ArcadeDb {
                command.arg("--databases").args(GRAPHS);
            }
            let service = Service::start(&format!("{self:?}"), command, dir.path());
            let running = Arc::new(Running { address: service.address, dir, _service: Mutex::new(service) });
            *slot = Arc::downgrade(&running);
            running
        })
    }

    /// Where it listens.
    pub fn address(self) -> SocketAddr {
        self.start().address
    }

    /// The rows of each of these statements, as the vendor's client has them.
    pub fn ask(self, graph: &str, statements: &[&str]) -> Vec<Vec<Vec<Value>>> {
        let running = self.start();
        let mut command = SUPPORT.program("cypher.py", running.dir.path());
        command.args(["--port", &running.address.port().to_string(), "--password", PASSWORD, "--graph", graph]);
        if self == Self::ArcadeDb {
            command.arg("--bolt");
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        for statement in statements {
            writeln!(stdin, "{}", json!({ "statement": statement })).unwrap();
        }
        drop(stdin);
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{self:?}: {statements:?}");
        let answers: Vec<_> =
            output.stdout.split(|b| *b == b'\n').filter(|l| !l.is_empty()).map(|l| serde_json::from_slice(l).unwrap()).collect();
        assert_eq!(answers.len(), statements.len());
        answers
    }
}
