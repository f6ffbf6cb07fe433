//! `status`: the whole on one screen.

use std::time::Duration;

use super::args;
use super::failure::Failure;
use super::human::{count, duration, line, plural, seconds, size};
use super::output::{Output, Paint, Tone};
use super::source::Source;
use super::table::{Column, Table};
use crate::admin::api::{LedgerStatus, REMOVED, ReplayReport, SinkReport, Status};
use crate::config::Config;

const INTERVAL: Duration = Duration::from_secs(1);

pub(super) async fn run(args: &args::Status, config: &Config, out: &mut Output) -> Result<(), Failure> {
    show(args, config, out).await?;
    if !args.watch {
        return Ok(());
    }
    loop {
        tokio::select! {
            // Where no signal handler can be had, Ctrl-C ends the process as it always does.
            Ok(()) = tokio::signal::ctrl_c() => return Ok(()),
            () = tokio::time::sleep(INTERVAL) => {}
        }
        match show(args, config, out).await {
            // It may be restarting: whoever watches wants to see it come back.
            Err(Failure::Unreachable(why)) => out.write(&frame(out.terminal, &format!("{why}\n")))?,
            other => other?,
        }
    }
}

/// Opens a source each time: to hold a queue open while nothing runs would keep offramp from starting.
async fn show(args: &args::Status, config: &Config, out: &mut Output) -> Result<(), Failure> {
    let status = Source::open(config).await?.status().await?;
    if args.json {
        return out.json(&status);
    }
    let text = render(&status, out.paint);
    let text = if args.watch { frame(out.terminal, &text) } else { text };
    out.write(&text)
}

/// A terminal is redrawn from its top; elsewhere the pictures follow each other.
fn frame(terminal: bool, text: &str) -> String {
    if terminal { format!("\x1b[H\x1b[2J{text}") } else { format!("{text}\n") }
}

fn render(status: &Status, paint: Paint) -> String {
    let stopped = status.sinks.iter().any(|s| s.state == "stopped");
    let life =
        if stopped { "not running".to_owned() } else { format!("up {}", duration(Duration::from_secs(status.uptime_seconds))) };
    let mut out = format!("offramp {}, {life}\n\n", status.version);

    let mut queue = Table::new(&[
        Column::Left("QUEUE"),
        Column::Right("PENDING"),
        Column::Right("IN FLIGHT"),
        Column::Right("DEAD"),
        Column::Right("KEPT"),
        Column::Right("SIZE"),
        Column::Right("ON DISK"),
        Column::Right("OLDEST"),
    ]);
    let q = &status.queue;
    queue.row(
        queue_tone(&q.state),
        [
            q.state.clone(),
            count(q.pending),
            count(q.in_flight),
            count(q.dead),
            count(q.delivered_kept),
            size(q.bytes),
            size(q.disk_bytes),
            oldest(q.pending, q.oldest_pending_seconds),
        ],
    );
    out.push_str(&queue.render(paint));

    let mut sinks = Table::new(&[
        Column::Left("SINK"),
        Column::Left("TYPE"),
        Column::Left("STATE"),
        Column::Right("BUSY"),
        Column::Right("PENDING"),
        Column::Right("DEAD"),
        Column::Right("DELIVERED"),
        Column::Right("ATTEMPTS"),
        Column::Right("FAILED"),
        Column::Right("MEAN"),
        Column::Right("OLDEST"),
        Column::Left("WHY"),
    ]);
    for s in &status.sinks {
        sinks.row(sink_tone(s), sink_cells(s));
    }
    out.push('\n');
    out.push_str(&sinks.render(paint));
    for replay in status.sinks.iter().filter_map(|s| s.replay.as_ref()) {
        out.push_str(&replaying(replay, paint));
    }

    if !status.proxies.is_empty() {
        let mut proxies = Table::new(&[
            Column::Left("PROXY"),
            Column::Left("LISTEN"),
            Column::Left("UPSTREAM"),
            Column::Right("IN FLIGHT"),
            Column::Right("WAITING"),
        ]);
        for p in &status.proxies {
            proxies
                .row(Tone::Plain, [p.name.clone(), p.listen.clone(), p.upstream.clone(), count(p.in_flight), count(p.waiting)]);
        }
        out.push('\n');
        out.push_str(&proxies.render(paint));
    }
    out.push('\n');
    out.push_str(&ledger(&status.ledger, paint));
    out
}

fn replaying(replay: &ReplayReport, paint: Paint) -> String {
    let session = replay.session.as_ref().map_or_else(String::new, |session| format!(" of session {}", line(session)));
    let (name, percent) = (paint.paint(Tone::Heading, "REPLAY"), replay.progress * 100.0);
    format!("\n{name}  {}{session}: {percent:.0} %, {} put back\n", replay.sink, plural(replay.replayed, "episode"))
}

fn sink_cells(s: &SinkReport) -> [String; 12] {
    [
        s.name.clone(),
        s.kind.clone(),
        s.state.clone(),
        format!("{}/{}", s.busy, s.workers),
        count(s.pending),
        count(s.dead),
        count(s.delivered_total),
        count(s.attempts_total),
        count(s.failed_attempts_total),
        if s.attempts_total == 0 { "-".to_owned() } else { seconds(s.avg_attempt_seconds) },
        oldest(s.pending, s.oldest_pending_seconds),
        why(s),
    ]
}

/// Why it doesn't run, and which of its lanes don't.
fn why(s: &SinkReport) -> String {
    let parked = (s.parked_lanes > 0).then(|| format!("{} parked for dead letters", plural(s.parked_lanes, "lane")));
    s.reason.clone().into_iter().chain(parked).collect::<Vec<_>>().join("; ")
}

fn oldest(pending: u64, age: f64) -> String {
    if pending == 0 { "-".to_owned() } else { seconds(age) }
}

/// The ledger as the sum that it is.
fn ledger(l: &LedgerStatus, paint: Paint) -> String {
    let sum = format!(
        "captured {} = delivered {} + dead {} + purged {} + expired {} + pending {}",
        count(l.captured),
        count(l.delivered),
        count(l.dead),
        count(l.purged),
        count(l.expired),
        count(l.pending)
    );
    let verdict = if l.gap == 0 {
        paint.paint(Tone::Good, "balanced")
    } else {
        paint.paint(Tone::Bad, &format!("GAP {}: please report this", l.gap))
    };
    format!("{}  {sum}  {verdict}\n", paint.paint(Tone::Heading, "LEDGER"))
}

fn queue_tone(state: &str) -> Tone {
    match state {
        "full" => Tone::Warning,
        "degraded" => Tone::Bad,
        _ => Tone::Plain,
    }
}

fn sink_tone(sink: &SinkReport) -> Tone {
    match sink.state.as_str() {
        "paused" | "open" | REMOVED => Tone::Warning,
        "stalled" => Tone::Bad,
        "stopped" => Tone::Faint,
        _ => Tone::Plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::api::testing::{NOW, proxies, sinks, stats};

    #[test]
    fn status_fits_on_one_screen() {
        let status = Status::assemble(&stats(), &sinks(), proxies(), Duration::from_secs(245), NOW);
        let expected = format!(
            "offramp {}, up 4 min 5 s

QUEUE  PENDING  IN FLIGHT  DEAD  KEPT      SIZE   ON DISK  OLDEST
ok           6          2     1    13  20.0 KiB  64.0 KiB  42.5 s

SINK      TYPE      STATE    BUSY  PENDING  DEAD  DELIVERED  ATTEMPTS  FAILED    MEAN  OLDEST  WHY
graphiti  graphiti  running   2/5        6     1          3         8       5  13.2 s  42.5 s  2 lanes parked for dead letters
log       file      paused    0/1        0     0         10        10       0  500 ms       -  paused by an operator

PROXY  LISTEN          UPSTREAM               IN FLIGHT  WAITING
agent  127.0.0.1:8880  http://127.0.0.1:8881          3        0

LEDGER  captured 20 = delivered 13 + dead 1 + purged 0 + expired 0 + pending 6  balanced
",
            env!("CARGO_PKG_VERSION")
        );
        assert_eq!(render(&status, Paint(false)), expected);
    }

    #[test]
    fn a_stopped_offramp_says_so_and_a_gap_cries() {
        let stopped: Vec<_> = sinks().into_iter().map(|s| crate::drain::SinkStatus { state: "stopped", ..s }).collect();
        let mut status = Status::assemble(&stats(), &stopped, vec![], Duration::ZERO, NOW);
        status.ledger.gap = -2;
        let text = render(&status, Paint(false));
        assert!(text.starts_with(&format!("offramp {}, not running\n", env!("CARGO_PKG_VERSION"))));
        assert!(text.ends_with("GAP -2: please report this\n"));
    }
}
