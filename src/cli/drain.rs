//! `drain`: waits until nothing is pending.

use std::fmt::Write;
use std::time::Duration;

use indicatif::ProgressBar;
use tokio::time::Instant;

use super::args;
use super::failure::Failure;
use super::human::{count, duration, line, plural, seconds};
use super::output::Output;
use super::progress;
use super::source::Source;
use crate::admin::api::{REMOVED, SinkReport, Status};

/// How often it looks.
const LOOK: Duration = Duration::from_millis(250);

pub(super) async fn run(args: &args::Drain, source: &Source, out: &mut Output) -> Result<(), Failure> {
    let began = Instant::now();
    let first = source.status().await?;
    let already = settled(&first);
    let bar = progress::bar("{bar:40} {pos}/{len} {msg}");
    loop {
        let status = source.status().await?;
        if status.ledger.pending == 0 {
            bar.finish_and_clear();
            let done = settled(&status).saturating_sub(already);
            let what = if done == 0 {
                "nothing is pending".to_owned()
            } else {
                format!("drained in {}: {} done with, nothing is pending", duration(began.elapsed()), plural(done, "episode"))
            };
            return out.write(&format!("{what}\n"));
        }
        let waited = args.timeout.is_some_and(|timeout| began.elapsed() >= timeout);
        if let Some(why) =
            in_vain(&status, source.is_running()).or_else(|| waited.then(|| format!("after {}", duration(began.elapsed()))))
        {
            bar.finish_and_clear();
            return Err(Failure::Failed(left(&status, &why)));
        }
        show(&bar, &status, already);
        tokio::time::sleep(LOOK.min(args.timeout.map_or(LOOK, |timeout| timeout.saturating_sub(began.elapsed())))).await;
    }
}

/// Episodes that have left the queue, one way or the other.
fn settled(status: &Status) -> u64 {
    status.ledger.captured - status.ledger.pending.min(status.ledger.captured)
}

/// Why waiting would never end.
fn in_vain(status: &Status, running: bool) -> Option<String> {
    if !running {
        return Some("and offramp is not running: nothing is delivered".to_owned());
    }
    let removed = status.sinks.iter().filter(|s| s.pending > 0).all(|s| s.state == REMOVED);
    removed.then(|| "and no sink is configured for them".to_owned())
}

/// What is left, and why.
fn left(status: &Status, why: &str) -> String {
    let mut text = format!("{} pending, {why}", plural(status.ledger.pending, "episode"));
    for sink in status.sinks.iter().filter(|s| s.pending > 0) {
        let _ = write!(text, "\n  {}: {}", sink.name, holds(sink)); // to a `String`, which can't fail
    }
    text
}

fn holds(sink: &SinkReport) -> String {
    let pending = format!("{} pending, the oldest for {}", count(sink.pending), seconds(sink.oldest_pending_seconds));
    let reason = sink.reason.as_deref().map_or_else(String::new, |reason| format!(": {}", line(reason)));
    let parked = match sink.parked_lanes {
        0 => String::new(),
        n => format!("; {} parked for dead letters", plural(n, "lane")),
    };
    let pending = format!("{pending}{parked}");
    match sink.state.as_str() {
        "running" if sink.busy > 0 => format!("{pending}; {} under way, of {} workers", sink.busy, sink.workers),
        "running" => format!("{pending}; it waits for the next attempts"),
        state => format!("{pending}; it is {state}{reason}"),
    }
}

fn show(bar: &ProgressBar, status: &Status, already: u64) {
    let done = settled(status).saturating_sub(already);
    bar.set_length(done + status.ledger.pending);
    bar.set_position(done);
    let held: Vec<String> = status
        .sinks
        .iter()
        .filter(|s| s.pending > 0 && s.state != "running")
        .map(|s| format!("{} is {}", s.name, s.state))
        .collect();
    bar.set_message(if held.is_empty() { format!("{} pending", count(status.ledger.pending)) } else { held.join(", ") });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::api::testing::{NOW, proxies, sinks, stats};
    use crate::drain::SinkStatus;

    fn status(state: &'static str, reason: Option<&str>) -> Status {
        let mut all = sinks();
        all[0] = SinkStatus { state, reason: reason.map(str::to_owned), ..all[0].clone() };
        Status::assemble(&stats(), &all, proxies(), Duration::ZERO, NOW)
    }

    #[test]
    fn what_is_left_is_told_with_the_reason() {
        let running = status("running", None);
        assert_eq!(
            left(&running, "after 3.0 s"),
            "6 episodes pending, after 3.0 s\n  graphiti: 6 pending, the oldest for 42.5 s; 2 lanes parked for dead letters; 2 under way, of 5 workers"
        );
        let open = status("open", Some("connection refused"));
        assert!(
            left(&open, "").ends_with("the oldest for 42.5 s; 2 lanes parked for dead letters; it is open: connection refused")
        );
        assert_eq!(in_vain(&running, true), None);
        assert_eq!(in_vain(&open, true), None, "it may come back");
    }

    #[test]
    fn nobody_waits_for_what_can_not_come() {
        assert!(in_vain(&status("paused", None), false).is_some_and(|why| why.contains("offramp is not running")));
        let gone = Status::assemble(&stats(), &sinks()[1..], proxies(), Duration::ZERO, NOW);
        assert!(in_vain(&gone, true).is_some_and(|why| why.contains("no sink is configured")), "{gone:?}");
        assert!(left(&gone, "").contains(
            "graphiti: 6 pending, the oldest for 42.5 s; 2 lanes parked for dead letters; it is removed: no longer configured"
        ));
    }
}
