//! `offramp demo`: options in, text or JSON out.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use crate::demo::progress::Screen;
use crate::demo::{self, Options};

/// See what offramp does, before and after, in less than a minute and without any server.
///
/// Starts a sample agent and a slow sample graph service on loopback, drives load at the agent alone, at the agent writing every
/// episode into the graph inline, and at the agent behind offramp; drains the queue and proves that every episode arrived exactly once and
/// in order. Exit code 0 only if that holds.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Requests to send (the inline phase sends as many of them as fit into some 15 seconds)
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    requests: u64,

    /// Clients at one time
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = count)]
    concurrency: usize,

    /// Sessions to spread the requests over; a session has one request in flight, so their number limits the concurrency
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = count)]
    sessions: usize,

    /// Time that the agent takes to answer
    #[arg(long, value_name = "DURATION", default_value = "50ms", value_parser = duration)]
    agent_delay: Duration,

    /// Time that the graph service takes to write one episode (a real one: 12 to 100 seconds)
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = duration)]
    write_delay: Duration,

    /// Episodes that the graph service writes at one time
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = count)]
    write_parallelism: usize,

    /// Workers that offramp drains with
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = count)]
    workers: usize,

    /// Writes at one time of the agent that writes inline
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = count)]
    inline_workers: usize,

    /// Time after which an inline write fails, and its request with it
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    inline_timeout: Duration,

    /// Drain into this Graphiti (its base URL) instead of the sample service
    #[arg(long, value_name = "URL")]
    sink_url: Option<String>,

    /// Directory for the queue, empty or absent; stays afterwards [default: a temporary one, removed at the end]
    #[arg(long, value_name = "DIR")]
    queue_path: Option<PathBuf>,

    /// Print one JSON object, and nothing else, to standard output
    #[arg(long)]
    json: bool,
}

impl Args {
    fn options(&self) -> Options {
        Options {
            requests: self.requests,
            concurrency: self.concurrency,
            sessions: self.sessions,
            agent_delay: self.agent_delay,
            write_delay: self.write_delay,
            write_parallelism: self.write_parallelism,
            workers: self.workers,
            inline_workers: self.inline_workers,
            inline_timeout: self.inline_timeout,
            sink_url: self.sink_url.clone(),
            queue_path: self.queue_path.clone(),
            ..Options::default()
        }
    }
}

/// Runs the demo: 0 if every claim holds, 1 if one fails, if it could not run, or on Ctrl-C.
pub async fn run(args: Args) -> ExitCode {
    let options = args.options();
    if !args.json {
        print(&format!("{}\n\n", options.introduction()));
    }
    match demo::run(options, Screen::detect(), stop()).await {
        Ok(report) => {
            print(&if args.json { json_line(&report) } else { format!("\n{}", report.text(colour())) });
            if report.passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            if args.json {
                print(&json_line(&json!({"passed": false, "error": error.to_string()})));
            }
            let _ = writeln!(std::io::stderr(), "offramp demo: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Ctrl-C, or the signal of a supervisor.
async fn stop() {
    // Where a handler can't be had the default holds: the signal ends the process.
    let Ok(mut terminate) = signal(SignalKind::terminate()) else { return std::future::pending().await };
    tokio::select! {
        Ok(()) = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
        else => std::future::pending().await,
    }
}

/// To standard output; whoever closed it doesn't want to know (`println!` would panic).
fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn json_line(value: &impl serde::Serialize) -> String {
    // Strings, finite numbers and maps with text keys: nothing in a report can fail to be JSON.
    format!("{}\n", serde_json::to_string(value).unwrap_or_default())
}

fn colour() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

fn count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(n @ 1..=100_000) => Ok(n),
        _ => Err("a number from 1 to 100000 is needed here".to_owned()),
    }
}

/// `250ms`, `5s`, `2m`, `24h`, as in the configuration.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no duration: write a whole number and a unit, like 250ms, 2s or 1m (ms, s, m, h)");
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let unit = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(wrong()),
    };
    let millis = number.checked_mul(unit).filter(|millis| *millis <= 24 * 3_600_000);
    millis.map(Duration::from_millis).ok_or_else(|| format!("{text} is more than a day, which no demo takes"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn without_flags_the_options_are_the_defaults() {
        let args = Program::try_parse_from(["demo"]).unwrap().args;
        assert_eq!(format!("{:?}", args.options()), format!("{:?}", Options::default()));
    }

    #[test]
    fn durations_are_read_as_in_the_configuration() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("13s"), Ok(Duration::from_secs(13)));
        assert_eq!(duration("0s"), Ok(Duration::ZERO));
        for wrong in ["", "13", "s", "2 s", "1.5s", "2d", "-1s", "99999999999999999999s"] {
            assert!(duration(wrong).unwrap_err().contains("like 250ms"), "{wrong}");
        }
        assert!(duration("25h").unwrap_err().contains("more than a day"));
    }

    #[test]
    fn a_wrong_value_is_answered_with_a_sentence() {
        for (flag, value, says) in
            [("--concurrency", "0", "from 1 to"), ("--write-delay", "13", "like 250ms"), ("--requests", "0", "1..=")]
        {
            let error = Program::try_parse_from(["demo", flag, value]).map(|_| ()).unwrap_err().to_string();
            assert!(error.contains(says) && error.contains(flag), "{error}");
        }
    }
}
