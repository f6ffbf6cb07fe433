//! `offramp demo`: before and after, with nothing but this binary.
//!
//! A sample [`agent`], a sample [`graph`] service, offramp between them, a [`load`] before them; then the [`proof`] from what the
//! clients were told and what is in the graph, and the [`report`]. The agent and the graph service are also what the project's tests
//! use wherever an upstream or a Graphiti is needed.

pub mod agent;
pub mod client;
pub mod graph;
pub mod load;
mod loopback;
pub mod progress;
pub mod proof;
mod read;
pub mod report;
mod road;

use std::fmt::Write;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use self::agent::{Agent, Inline};
use self::graph::{Graph, Mode};
use self::load::{Load, Outcome, Progress};
use self::progress::Screen;
use self::proof::thousands;
use self::report::{Drain, Phase, Report, Settings};
use crate::queue::Ledger;
use crate::run::{Offramp, StartError};

/// What to show.
#[derive(Debug, Clone)]
pub struct Options {
    /// Requests to the agent alone, the same number through offramp, and as many inline as time allows.
    pub requests: u64,
    /// Clients at one time.
    pub concurrency: usize,
    /// Sessions; those of one are strictly one after the other.
    pub sessions: usize,
    /// Time until the agent answers.
    pub agent_delay: Duration,
    /// Time of one graph write.
    pub write_delay: Duration,
    /// Graph writes at one time: the LLM's limit.
    pub write_parallelism: usize,
    /// Workers of offramp's sink.
    pub workers: usize,
    /// Writes at one time of the agent that writes inline.
    pub inline_workers: usize,
    /// Longest inline write, its wait for a worker included.
    pub inline_timeout: Duration,
    /// About how long the inline phase may take.
    pub inline_time: Duration,
    /// Drain into this Graphiti instead of the sample.
    pub sink_url: Option<String>,
    /// The queue's directory, left in place; none = a temporary one.
    pub queue_path: Option<PathBuf>,
}

impl Default for Options {
    /// Some forty seconds.
    fn default() -> Self {
        Self {
            requests: 1000,
            concurrency: 100,
            sessions: 100,
            agent_delay: Duration::from_millis(50),
            write_delay: Duration::from_secs(2),
            write_parallelism: 100,
            workers: 100,
            inline_workers: 10,
            inline_timeout: Duration::from_secs(10),
            inline_time: Duration::from_secs(15),
            sink_url: None,
            queue_path: None,
        }
    }
}

impl Options {
    /// What is about to happen, in a few lines.
    pub fn introduction(&self) -> String {
        let clients = self.concurrency.min(self.sessions);
        let mut text = format!(
            "{} requests, {clients} at a time, over {} sessions; an agent that answers in {}; a graph service that takes {} to \
             write an episode, {} at a time.",
            thousands(self.requests),
            thousands(self.sessions as u64),
            report::duration(self.agent_delay),
            report::duration(self.write_delay),
            self.write_parallelism,
        );
        if clients < self.concurrency {
            let sentence = "\nA session has one request in flight, so the number of sessions limits the concurrency: ";
            let _ = write!(text, "{sentence}{clients} instead of {}.", self.concurrency);
        }
        if let Some(url) = &self.sink_url {
            let _ = write!(text, "\nofframp drains into {url}; the inline phase writes into the sample graph service.");
        }
        text
    }
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// A sample service could not start.
    #[error("cannot listen on loopback for the {what}: {source}")]
    Listen {
        /// Which one.
        what: &'static str,
        /// The system's error.
        source: io::Error,
    },
    /// The queue's directory.
    #[error("cannot use {} for the queue: {source}; choose another with --queue-path", path.display())]
    QueueDir {
        /// The directory.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// Something is in it: a queue of somebody's, perhaps.
    #[error("{} is not empty, and the demo's queue must start empty: give --queue-path a new directory", .0.display())]
    QueueDirNotEmpty(PathBuf),
    /// The path can't stand in a configuration.
    #[error("{} is not UTF-8: give --queue-path another directory", .0.display())]
    QueuePathNotText(PathBuf),
    /// The configuration doesn't load: `--sink-url`, most likely.
    #[error("the demo's configuration is refused (look at --sink-url and --workers): {0}")]
    Config(String),
    /// offramp did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The graph could not be read for the proof.
    #[error("cannot read the episodes back from {url}: {reason}")]
    ReadBack {
        /// What was asked.
        url: String,
        /// What went wrong.
        reason: String,
    },
    /// Ctrl-C.
    #[error("stopped")]
    Stopped,
}

/// Runs the whole demo. When `stop` resolves it tidies up (queue closed, temporary directory removed) and returns
/// [`DemoError::Stopped`]. Dropping the future instead leaves the tidying to the destructors.
pub async fn run(options: Options, screen: Screen, stop: impl Future<Output = ()>) -> Result<Report, DemoError> {
    let mut stop = std::pin::pin!(stop);
    let directory = road::QueueDir::new(options.queue_path.as_deref())?;
    let listen = |what| move |source| DemoError::Listen { what, source };
    let graph_options = graph::Options { write_delay: options.write_delay, mode: Mode::Parallel(options.write_parallelism) };
    let graph = Graph::start(graph_options).await.map_err(listen("graph service"))?;
    let before = tokio::select! {
        before = before(&options, &graph, screen) => before?,
        () = &mut stop => return Err(DemoError::Stopped),
    };

    let sink_url = options.sink_url.clone().unwrap_or_else(|| graph.url());
    let text = road::config_text(&options, before.agent.address(), &sink_url, directory.path())?;
    let offramp = Offramp::start(road::config(&text)?).await?;
    let after = tokio::select! {
        after = after(&options, &graph, before.inline_stored, &offramp, screen) => after,
        () = &mut stop => Err(DemoError::Stopped),
    };
    // Bounded, so that a sink which hangs can't keep the directory from being removed. Every claim has been checked by now.
    let _ = timeout(Duration::from_secs(15), offramp.shutdown()).await;
    let after = after?;

    Ok(Report {
        passed: after.claims.iter().all(|claim| claim.holds),
        settings: Settings::of(&options),
        agent_alone: Phase::of(&before.alone),
        inline_writes: Phase::of(&before.inline),
        inline_episodes_stored: before.inline_stored as u64,
        through_offramp: Phase::of(&after.outcome),
        drain: after.drain,
        ledger: after.ledger.into(),
        proof: after.claims,
    })
}

struct Before {
    /// The agent without graph writes, to be used again.
    agent: Agent,
    alone: Outcome,
    inline: Outcome,
    inline_stored: usize,
}

/// The agent alone, then with inline writes.
async fn before(options: &Options, graph: &Graph, screen: Screen) -> Result<Before, DemoError> {
    let listen = |source| DemoError::Listen { what: "agent", source };
    let agent = Agent::start(agent::Options { delay: options.agent_delay, inline: None }).await.map_err(listen)?;
    let alone = drive(load_of(options, agent.address(), "alone"), screen, "agent alone").await;

    let inline = Inline { graph: graph.clone(), workers: options.inline_workers, timeout: options.inline_timeout };
    let writing = Agent::start(agent::Options { delay: options.agent_delay, inline: Some(inline) }).await.map_err(listen)?;
    let answered_by = options.inline_timeout + options.agent_delay;
    let load = Load {
        // What has begun may take this long; no answer is cut off, or the errors would be ours.
        begin_within: Some(options.inline_time.saturating_sub(answered_by)),
        timeout: answered_by + Duration::from_secs(30),
        ..load_of(options, writing.address(), "inline")
    };
    let inline = drive(load, screen, "inline writes").await;
    let inline_stored = graph.stored().len();
    Ok(Before { agent, alone, inline, inline_stored })
}

struct After {
    outcome: Outcome,
    drain: Drain,
    ledger: Ledger,
    claims: Vec<proof::Claim>,
}

/// The same load through offramp, the drain, and the proof.
async fn after(
    options: &Options,
    graph: &Graph,
    inline_stored: usize,
    offramp: &Offramp,
    screen: Screen,
) -> Result<After, DemoError> {
    let address = offramp.proxies.iter().find(|(name, _)| name == road::PROXY).map(|(_, address)| *address);
    let address = address.ok_or_else(|| DemoError::Config("it has no TCP listener".to_owned()))?;
    let outcome = drive(load_of(options, address, "offramp"), screen, "through offramp").await;
    let drain = drain(options, offramp, outcome.answered(), screen).await;
    let ledger = offramp.queue.stats().ledger;
    let found = match &options.sink_url {
        None => read::sample(graph, inline_stored),
        Some(url) => read::graphiti(url.trim_end_matches('/'), &outcome.conversations).await?,
    };
    let claims = proof::prove(&outcome.conversations, &found, ledger);
    Ok(After { outcome, drain, ledger, claims })
}

fn load_of(options: &Options, target: SocketAddr, prefix: &'static str) -> Load {
    Load {
        target,
        requests: options.requests,
        concurrency: options.concurrency,
        sessions: options.sessions,
        prefix,
        ramp: options.agent_delay,
        begin_within: None,
        timeout: options.agent_delay + Duration::from_secs(60),
    }
}

/// Runs a load and shows how far it is.
async fn drive(load: Load, screen: Screen, title: &'static str) -> Outcome {
    let progress = Arc::new(Progress::default());
    let mut stage = screen.stage(title, load.requests);
    let note = |failed: u64| if failed == 0 { String::new() } else { format!("({} failed)", thousands(failed)) };
    let mut running = std::pin::pin!(load.run(&progress));
    let outcome = loop {
        match timeout(Duration::from_millis(100), &mut running).await {
            Ok(outcome) => break outcome,
            Err(_) => stage.show(progress.finished(), &note(progress.failed())),
        }
    };
    stage.end(outcome.finished, &note(outcome.failed()));
    outcome
}

/// Waits until nothing is pending, or until nothing has moved for too long.
async fn drain(options: &Options, offramp: &Offramp, expected: u64, screen: Screen) -> Drain {
    // A write waits for all the writes before it where the slots are scarce, but something moves in every write's time. A real graph's
    // LLM may be rate-limited for minutes.
    let patience =
        options.sink_url.as_ref().map_or(options.write_delay * 4 + Duration::from_secs(30), |_| Duration::from_secs(900));
    let mut stage = screen.stage("drain", expected);
    let begin = Instant::now();
    let at_begin = offramp.queue.stats().ledger.delivered;
    let (mut ledger, mut moved) = (Ledger::default(), begin);
    loop {
        let now = offramp.queue.stats().ledger;
        if now != ledger {
            (ledger, moved) = (now, Instant::now());
        }
        let delivered = ledger.delivered - at_begin;
        // A commit that came later than its response may be on its way still: give it a moment before believing in the end.
        let settled = ledger.captured >= expected || moved.elapsed() >= Duration::from_secs(2);
        let trouble = offramp.drain.statuses().into_iter().find(|sink| sink.state != "running");
        let trouble = trouble.map(|sink| format!("sink {} is {}: {}", sink.name, sink.state, sink.reason.unwrap_or_default()));
        let gave_up = if ledger.pending == 0 && settled {
            None
        } else if moved.elapsed() >= patience {
            let sink = trouble.unwrap_or_else(|| "no sink reports a fault".to_owned());
            Some(format!("nothing has moved for {}; {sink}", report::duration(Duration::from_secs(patience.as_secs()))))
        } else {
            stage.show(ledger.delivered, &forecast(&offramp.queue.stats(), delivered, begin.elapsed(), trouble.as_deref()));
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        stage.end(ledger.delivered, "delivered");
        return Drain::new(delivered, moved - begin, gave_up);
    }
}

/// `512 waiting, 100 in flight, 47.6/s, 11 s left`
fn forecast(stats: &crate::queue::Stats, delivered: u64, elapsed: Duration, trouble: Option<&str>) -> String {
    if let Some(trouble) = trouble {
        return trouble.to_owned();
    }
    let in_flight: u64 = stats.sinks.iter().map(|sink| sink.in_flight).sum();
    let mut text = format!(
        "delivered, {} waiting, {} in flight",
        thousands(stats.ledger.pending.saturating_sub(in_flight)),
        thousands(in_flight)
    );
    if stats.ledger.dead > 0 {
        let _ = write!(text, ", {} dead", thousands(stats.ledger.dead));
    }
    if delivered > 0 {
        let rate = Drain::new(delivered, elapsed, None).delivered_per_second;
        let left = elapsed.mul_f64(report::ratio(stats.ledger.pending, delivered));
        let _ = write!(text, ", {rate:.1}/s, {} s left", left.as_secs());
    }
    text
}

#[cfg(test)]
mod tests;
