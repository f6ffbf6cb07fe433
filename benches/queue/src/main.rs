//! How fast the queue commits, and how fast it opens: measured by itself, through the handle that everyone uses.
//!
//! `commit` puts it beside the least that any durable queue has to do on the same disk, in turns. Times depend on the disk and on what
//! else the machine does; the ratios much less.

#[path = "../../parts/src/args.rs"]
mod args;
mod commit;
mod log;
mod measure;
mod pending;

use std::io;
use std::path::Path;
use std::process::ExitCode;

use offramp::config::{self, Config};
use offramp::episode::{Digests, End, Episode, Message, Request};
use offramp::queue::{Lane, Queue, SinkId};
use offramp::telemetry::metrics::Metrics;
use uuid::Uuid;

use args::Args;

const USAGE: &str = "usage: bench-queue PART --path DIRECTORY [--KEY VALUE]...
  commit  --producers N,N,... --seconds S --rounds N   records/s, time to the answer and CPU, beside a bare log and a bare fdatasync
  pending --counts N,N,... --lanes N                   seconds to open and to the first claim, and memory, with so many pending
The directory must be on the disk that is meant, and is left as it was found.";

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let part = words.next().unwrap_or_default();
    match Args::parse(words).and_then(|args| run(&part, &args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-queue {part}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(part: &str, args: &Args) -> io::Result<()> {
    match part {
        "commit" => commit::run(args),
        "pending" => pending::run(args),
        pending::FILL => pending::fill(args),
        pending::OPEN => pending::open(args),
        _ => Err(io::Error::other(USAGE)),
    }
}

/// Opens a queue with one sink, `sink`.
fn open(path: &Path) -> io::Result<Queue> {
    let Config { queue, sinks, .. } = config::read(TOML, Path::new("bench.toml"), &config::Input::default()).map_err(other)?;
    Queue::open(&config::Queue { path: path.to_owned(), ..queue }, &sinks, &Metrics::new()).map_err(other)
}

const TOML: &str = r#"
[[proxy]]
name = "agent"
listen = "127.0.0.1:1"
upstream = "http://127.0.0.1:2"

[queue]
durability = "sync"
max_episodes = 100000000
max_bytes = "1000GiB"

[[sink]]
name = "sink"
type = "file"
path = "unused"
"#;

/// An episode of 2 KB, of which the next one differs in its id.
fn episode(session: &str) -> Episode {
    Episode {
        id: Uuid::now_v7(),
        session: session.to_owned(),
        group: None,
        user: Some("user".to_owned()),
        agent: Some("agent".to_owned()),
        proxy: "agent".to_owned(),
        route: "run".to_owned(),
        captured_at: 1_767_225_600_000,
        completed_at: 1_767_225_600_100,
        end: End::Complete,
        messages: vec![Message::new("user", "question ".repeat(70)), Message::new("assistant", "answer ".repeat(160))],
        metadata: "{}".to_owned(),
        request: Request { method: "POST".to_owned(), path: "/api/v1/agent/a/run".to_owned(), status: 200, traceparent: None },
        occurred_at: None,
        sha256: Digests { request: Some([7; 32]), response: Some([8; 32]) },
        original: None,
    }
}

/// Where episodes of a session go.
fn lane(queue: &Queue, session: &str) -> (SinkId, Lane) {
    (queue.sink_id("sink").expect("TOML has it"), Lane::of(session))
}

fn other(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::other(error)
}

/// The numbers of `--key N,N,...`.
fn numbers(args: &Args, key: &str) -> io::Result<Vec<usize>> {
    let list: String = args.get(key)?;
    list.split(',').map(|n| n.parse().map_err(|_| io::Error::other(format!("--{key} {list}: not understood")))).collect()
}
