//! What can be typed.

// These comments are what `--help` prints: marks of Markdown would be shown to the reader.
#![allow(clippy::doc_markdown)]

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use uuid::Uuid;

use super::demo;
use crate::admin::api::{MAX_LIMIT, parse_state};
use crate::clock;
use crate::config::{Input, units};
use crate::queue::State;

/// Takes slow knowledge-graph writes off the request path of an AI agent service.
#[derive(Debug, Parser)]
#[command(
    name = "offramp",
    version,
    propagate_version = true,
    after_help = "\
Examples:
  offramp demo                          see it work, no server needed
  offramp check                         is ./config.toml fine?
  offramp run                           proxy and drain until SIGTERM
  offramp status --watch                how is it doing?
  offramp show 0198c5a2-7d1e-7c3b-9a4f-2b6d8e0f1a3c

Exit codes: 0 done, 1 failed, 2 usage or configuration, 3 the running offramp could not be reached."
)]
pub struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub globals: Globals,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
pub struct Globals {
    /// The configuration [default: ./config.toml, else /etc/offramp/config.toml]
    #[arg(long, global = true, value_name = "PATH", env = "OFFRAMP_CONFIG")]
    pub config: Option<PathBuf>,
    /// Set one key, over file and environment: --set queue.path=/x (repeatable)
    #[arg(long, global = true, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

impl Globals {
    /// What the configuration is made of.
    pub fn input(&self) -> Input {
        Input::of_process(self.config.clone(), self.set.clone())
    }
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Proxy and drain until SIGTERM or SIGINT
    ///
    /// The first signal stops gracefully: nothing new is accepted, what is in flight is finished and committed. A second one forces.
    #[command(after_help = "\
Examples:
  offramp run
  offramp --config /etc/offramp/config.toml --set log.level=debug run")]
    Run,
    /// Read the configuration as `run` would, and print every fault
    ///
    /// Prints each fault as file:line:col: what is wrong, what is allowed. Exit code 0 without faults, 2 otherwise.
    Check,
    /// The APIs that offramp knows out of the box, or what one preset says
    #[command(after_help = "\
Examples:
  offramp presets
  offramp presets openai-chat
  offramp presets --json | jq -r .presets[].name")]
    Presets(Presets),
    /// See it work: a sample agent and a slow sample graph service, before and after
    Demo(demo::Args),
    /// Queue, sinks, proxies and ledger
    #[command(after_help = "\
Examples:
  offramp status
  offramp status --watch
  offramp status --json | jq .ledger")]
    Status(Status),
    /// List episodes in the order of capture
    #[command(after_help = "\
Examples:
  offramp episodes --state pending --sink graphiti
  offramp episodes --session user-42 --limit 1000 --json")]
    Episodes(Episodes),
    /// One episode with its whole history: captured, each attempt, why it waits, where it ended
    Show(Show),
    /// Dead letters: episodes that a sink gave up on
    #[command(subcommand)]
    Dead(Dead),
    /// Write episodes as JSON Lines, one a line, with where each stands at each sink
    ///
    /// What is in the queue is written in the order of capture. It is in clear, also where the queue is sealed with a key: whoever has the
    /// file reads what was said. Places, dedupe keys and what is remembered between exchanges are not in it.
    #[command(after_help = "\
Examples:
  offramp export --output episodes.jsonl
  offramp export --state dead | jq -r .id
  offramp export | ssh other offramp import -")]
    Export(Export),
    /// Take in what `export` wrote, behind all that is there, in the order of the file
    ///
    /// Each episode stands here as it stood there, sink by sink of the same name: pending, with its attempts, a dead letter, delivered. What
    /// may have reached its sink is looked up before it is sent. An episode whose id is there already is passed over, so that an import which
    /// broke off can be made again. A line that can't be used is told by its number, the others are imported, and the exit code is 1.
    #[command(after_help = "\
Examples:
  offramp import episodes.jsonl
  zcat episodes.jsonl.gz | offramp import -")]
    Import(Import),
    /// One sink by itself
    #[command(subcommand)]
    Sink(AtSink),
    /// Stop the draining of one sink; survives a restart
    Pause(Sink),
    /// Start the draining of a paused sink again
    Resume(Sink),
    /// Wait until nothing is pending
    ///
    /// Shows how far it is. Exit code 0 once everything has been delivered or given up, 1 on the time-out, or where nothing drains at all:
    /// then it says what is left, and why.
    #[command(after_help = "\
Examples:
  offramp drain
  offramp drain --timeout 10m && systemctl stop offramp")]
    Drain(Drain),
    /// Deliver again what is kept, in order, to rebuild a graph
    ///
    /// What the sink has had, as long as receipts are kept (queue.keep_delivered), and what is in the queue and never went to it, is put back
    /// into its lanes, each at its original place. What waits there already is left alone; dead letters are for `dead redrive`. It goes on after a
    /// restart. While a sink has 10,000 pending it gets no more: to keep a lane's later episodes from coming first then, pause the sink,
    /// begin the replay, and resume it.
    #[command(after_help = "\
Examples:
  offramp replay --sink graphiti
  offramp replay --sink graphiti --session user-42
  offramp replay --sink new-graph --since 6h --no-wait
  offramp replay --sink graphiti --cancel")]
    Replay(Replay),
    /// Remove for good what is left of a sink that is no longer configured: what waits there, and its dead letters
    #[command(after_help = "\
Examples:
  offramp status                        a sink that is `removed` has something left
  offramp purge old-graph --yes")]
    Purge(PurgeSink),
    /// Print what makes a shell complete offramp's commands
    #[command(after_help = "\
Examples:
  offramp completions bash > /etc/bash_completion.d/offramp
  offramp completions zsh > /usr/local/share/zsh/site-functions/_offramp
  offramp completions fish > ~/.config/fish/completions/offramp.fish")]
    Completions(Completions),
    /// Print the manual page, or write one for each command
    #[command(after_help = "\
Examples:
  offramp man | man -l -
  offramp man --dir /usr/local/share/man/man1")]
    Man(Man),
    /// Read everything in a queue that no offramp runs on, and say what is not in order
    ///
    /// Reads the files without the storage engine, and changes nothing in them: every checksum, every record, every row against the others,
    /// the ledger. Exit code 0 if all is in order, 1 otherwise. Damaged files are for `run`: it sets them aside and goes on with what can be
    /// read.
    #[command(after_help = "\
Examples:
  offramp verify
  offramp --set queue.path=/var/lib/offramp verify --json | jq .faults
  offramp verify --write-off              accept that what is missing is gone")]
    Verify(Verify),
}

/// `presets`
#[derive(Debug, Args)]
pub struct Presets {
    /// Print this one's TOML
    #[arg(value_name = "NAME")]
    pub name: Option<String>,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

/// `status`
#[derive(Debug, Args)]
pub struct Status {
    /// As JSON, in the shape of GET /api/v1/status
    #[arg(long)]
    pub json: bool,
    /// Again every second, until Ctrl-C
    #[arg(long)]
    pub watch: bool,
}

/// `episodes`
#[derive(Debug, Args)]
pub struct Episodes {
    /// pending, in_flight, delivered, dead, purged or expired
    #[arg(long, value_name = "STATE", value_parser = parse_state)]
    pub state: Option<State>,
    /// Only this session
    #[arg(long, value_name = "KEY")]
    pub session: Option<String>,
    /// Only episodes of this sink
    #[arg(long, value_name = "NAME")]
    pub sink: Option<String>,
    /// How much of it.
    #[command(flatten)]
    pub page: PageArgs,
}

/// How much of a listing, and how it looks.
#[derive(Debug, Args)]
pub struct PageArgs {
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: u32,
    /// Continue a listing at its next_cursor
    #[arg(long, value_name = "CURSOR")]
    pub cursor: Option<String>,
    /// As JSON, in the shape of GET /api/v1/episodes
    #[arg(long)]
    pub json: bool,
}

impl PageArgs {
    /// What to ask for, when `had` have been found already.
    pub(super) fn limit_of_next_page(&self, had: usize) -> usize {
        usize::try_from(self.limit).unwrap_or(usize::MAX).saturating_sub(had).min(MAX_LIMIT)
    }
}

/// `show`
#[derive(Debug, Args)]
pub struct Show {
    /// The episode's id
    #[arg(value_name = "ID")]
    pub id: Uuid,
    /// As JSON, in the shape of GET /api/v1/episodes/{id}
    #[arg(long)]
    pub json: bool,
}

/// `dead`
#[derive(Debug, Subcommand)]
pub enum Dead {
    /// List dead letters
    List(DeadList),
    /// Put dead letters back, each at its original place in its lane
    #[command(after_help = "\
Examples:
  offramp dead redrive 0198c5a2-7d1e-7c3b-9a4f-2b6d8e0f1a3c
  offramp dead redrive --sink graphiti --reason max_attempts
  offramp dead redrive --all --rate 5   not all at once")]
    Redrive(Redrive),
    /// Remove dead letters for good
    #[command(after_help = "\
Examples:
  offramp dead purge 0198c5a2-7d1e-7c3b-9a4f-2b6d8e0f1a3c --yes
  offramp dead purge --session user-42 --yes")]
    Purge(Purge),
}

/// `dead list`
#[derive(Debug, Args)]
pub struct DeadList {
    /// Only at this sink
    #[arg(long, value_name = "NAME")]
    pub sink: Option<String>,
    /// Only of this session
    #[arg(long, value_name = "KEY")]
    pub session: Option<String>,
    /// Only those that died for this reason: rejected, max_attempts or max_age
    #[arg(long, value_name = "REASON")]
    pub reason: Option<String>,
    /// How much of it.
    #[command(flatten)]
    pub page: PageArgs,
}

/// `dead redrive`
#[derive(Debug, Args)]
pub struct Redrive {
    /// Which.
    #[command(flatten)]
    pub selectors: Selectors,
    /// Letters a second, put back by the running offramp in the background
    #[arg(long, value_name = "N", value_parser = rate)]
    pub rate: Option<f64>,
}

/// `dead purge`
#[derive(Debug, Args)]
pub struct Purge {
    /// Which.
    #[command(flatten)]
    pub selectors: Selectors,
    /// Yes, for good
    #[arg(long, required = true)]
    pub yes: bool,
}

/// Which dead letters; every selector narrows.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub struct Selectors {
    /// These episodes
    #[arg(value_name = "ID")]
    pub ids: Vec<Uuid>,
    /// At this sink
    #[arg(long, value_name = "NAME")]
    pub sink: Option<String>,
    /// Of this session
    #[arg(long, value_name = "KEY")]
    pub session: Option<String>,
    /// Dead for this reason: rejected, max_attempts or max_age
    #[arg(long, value_name = "REASON")]
    pub reason: Option<String>,
    /// Every dead letter
    #[arg(long, conflicts_with_all = ["ids", "sink", "session", "reason"])]
    pub all: bool,
}

/// `export`
#[derive(Debug, Args)]
pub struct Export {
    /// Only episodes that stand so at one of their sinks: pending, in_flight, delivered, dead, purged or expired
    #[arg(long, value_name = "STATE", value_parser = parse_state)]
    pub state: Option<State>,
    /// Write to this file, which nobody else may read, instead of standard output
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// `import`
#[derive(Debug, Args)]
pub struct Import {
    /// JSON Lines that `export` wrote; - is standard input
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
}

/// `verify`
#[derive(Debug, Args)]
pub struct Verify {
    /// As JSON
    #[arg(long)]
    pub json: bool,
    /// Count what is missing in the ledger as purged; opens the queue as `run` does, and changes it
    #[arg(long, conflicts_with = "json")]
    pub write_off: bool,
}

/// `sink`
#[derive(Debug, Subcommand)]
pub enum AtSink {
    /// Send a harmless probe to a sink, and tell step by step what works
    ///
    /// The probe is an episode that says what it is, in the session offramp-probe. It goes straight to the sink, not through the queue, whether
    /// offramp runs or not: name, connection, TLS, credentials, statement or templates, delivery, and that it is found again. For each
    /// step that fails it says what to do, and at last where the probe is and how it is removed. A sink of type "replay" is sent nothing.
    /// Exit code 0 if nothing failed, 1 otherwise.
    #[command(after_help = "\
Examples:
  offramp sink test graphiti
  offramp sink test graphiti --timeout 10m      a slow one
  offramp sink test letta --agent agent-0198c5a2
  offramp sink test graph --json | jq '.steps[] | select(.result == \"failed\")'")]
    Test(SinkTest),
}

/// `sink test`
#[derive(Debug, Args)]
pub struct SinkTest {
    /// The sink's name
    #[arg(value_name = "SINK")]
    pub sink: String,
    /// Take no longer than this: 30s, 10m
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "2m")]
    pub timeout: Duration,
    /// The probe's session, where the backend takes only some [default: offramp-probe]
    #[arg(long, value_name = "KEY")]
    pub session: Option<String>,
    /// Its user [default: offramp-probe]
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
    /// Its agent [default: offramp-probe]
    #[arg(long, value_name = "NAME")]
    pub agent: Option<String>,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

/// `pause` and `resume`
#[derive(Debug, Args)]
pub struct Sink {
    /// The sink's name
    #[arg(value_name = "SINK")]
    pub sink: String,
}

/// `drain`
#[derive(Debug, Args)]
pub struct Drain {
    /// Wait no longer than this: 30s, 10m, 2h
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub timeout: Option<Duration>,
}

/// `replay`
#[derive(Debug, Args)]
pub struct Replay {
    /// To this sink
    #[arg(long, value_name = "NAME")]
    pub sink: String,
    /// Only this session
    #[arg(long, value_name = "KEY")]
    pub session: Option<String>,
    /// Only what was captured since: 2026-01-31, 2026-01-31T08:00:00Z, or 6h, which is six hours ago
    #[arg(long, value_name = "TIME", value_parser = since)]
    pub since: Option<String>,
    /// Don't wait until all of it is put back
    #[arg(long)]
    pub no_wait: bool,
    /// End the one under way; what it has put back stays
    #[arg(long, conflicts_with_all = ["session", "since", "no_wait"])]
    pub cancel: bool,
}

/// `purge`
#[derive(Debug, Args)]
pub struct PurgeSink {
    /// The sink's name
    #[arg(value_name = "SINK")]
    pub sink: String,
    /// Yes, for good
    #[arg(long, required = true)]
    pub yes: bool,
}

/// `completions`
#[derive(Debug, Args)]
pub struct Completions {
    /// For this shell
    #[arg(value_name = "SHELL")]
    pub shell: clap_complete::Shell,
}

/// `man`
#[derive(Debug, Args)]
pub struct Man {
    /// Write a page for each command into this directory
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok().filter(|rate: &f64| rate.is_finite() && *rate > 0.0);
    rate.ok_or_else(|| "a number above 0: 5, or 0.2 for one every five seconds".to_owned())
}

fn duration(text: &str) -> Result<Duration, String> {
    units::duration(text).ok_or_else(|| "a duration like 30s, 10m or 2h".to_owned())
}

/// A time, or how long ago, as RFC 3339.
fn since(text: &str) -> Result<String, String> {
    let ago = |d: Duration| clock::now_ms().saturating_sub(clock::as_ms(d));
    let time = clock::parse_rfc3339(text)
        .or_else(|| clock::parse_rfc3339(&format!("{text}T00:00:00Z")))
        .or_else(|| units::duration(text).map(ago));
    time.map(clock::rfc3339).ok_or_else(|| "a time like 2026-01-31 or 2026-01-31T08:00:00Z, or how long ago: 6h, 2d".to_owned())
}
