//! What happened to an episode, in the order in which it happened: its capture, and what each sink did with it.

use std::fmt::Write;
use std::time::Duration;

use super::human::{self, duration, plural};
use super::output::{Paint, Tone};
use crate::admin::api::{Attempt, Episode};
use crate::clock;
use crate::episode::End;

/// Something that happened.
struct Event {
    at: String,
    /// The sink; the proxy where it was captured.
    who: String,
    what: String,
    tone: Tone,
}

/// One line for each thing that happened.
pub(super) fn story(e: &Episode, out: &mut String, paint: Paint) {
    let mut events = captured(e);
    for (sink, standing) in &e.sinks {
        at_sink(sink, &standing.history, &mut events);
    }
    // Stable: what happened at one time at one sink stays in its order. Times in UTC, all of one length, sort as texts.
    events.sort_by(|a, b| a.at.cmp(&b.at));
    let width = events.iter().map(|event| event.who.chars().count()).max().unwrap_or(0);
    for Event { at, who, what, tone } in &events {
        // Writing to a `String` can't fail.
        let _ = writeln!(out, "  {}  {who:<width$}  {}", human::line(at), paint.paint(*tone, what));
    }
}

fn captured(e: &Episode) -> Vec<Event> {
    let took = clock::parse_rfc3339(&e.completed_at).zip(clock::parse_rfc3339(&e.captured_at));
    let took = took.map_or_else(String::new, |(end, start)| {
        format!(", {} later", duration(Duration::from_millis(end.saturating_sub(start))))
    });
    let event = |at: &str, what: String| Event { at: at.to_owned(), who: human::line(&e.proxy), what, tone: Tone::Plain };
    vec![
        event(&e.captured_at, "captured: the request arrived".to_owned()),
        event(&e.completed_at, format!("{}{took}", ending(e.end))),
    ]
}

fn ending(end: End) -> &'static str {
    match end {
        End::Complete => "the response was complete",
        End::Cancelled => "the client went away before the end of the response; what it had got was kept",
        End::Error => "the upstream broke off",
        End::Truncated => "the response was complete, but longer than max_capture; the beginning was kept",
    }
}

fn at_sink(sink: &str, history: &[Attempt], events: &mut Vec<Event>) {
    let mut before = 0;
    for line in history {
        let mut add = |what: String, tone| events.push(Event { at: line.at.clone(), who: human::line(sink), what, tone });
        if let Some(what) = put_back(&line.outcome) {
            before = 0;
            add(what.to_owned(), Tone::Heading);
            continue;
        }
        if line.attempt > before + 1 {
            add(format!("… {} not kept", plural(u64::from(line.attempt - before - 1), "attempt")), Tone::Faint);
        }
        before = line.attempt;
        let tone = match line.outcome.as_str() {
            "delivered" => Tone::Good,
            "dead" => Tone::Bad,
            "retry" => Tone::Plain,
            _ => Tone::Warning,
        };
        add(tried(line), tone);
    }
}

/// What is no attempt: its attempts count from 1 again.
fn put_back(outcome: &str) -> Option<&'static str> {
    match outcome {
        "redriven" => {
            Some("put back by an operator, at its original place; what its lane has delivered meanwhile stays delivered")
        }
        "replayed" => Some("put into its lane by a replay, at its original place"),
        _ => None,
    }
}

fn tried(a: &Attempt) -> String {
    let took = duration(Duration::from_millis(a.duration_ms));
    let error = a.error.as_deref().map(human::line);
    let status = a.status.map(|s| format!("HTTP {s}"));
    // An error mostly names the status itself: said once is enough.
    let why = match (status, error) {
        (Some(status), Some(error)) if !error.contains(&status[5..]) => format!(": {status}: {error}"),
        (_, Some(error)) => format!(": {error}"),
        (Some(status), None) => format!(": {status}"),
        (None, None) => String::new(),
    };
    let outcome = match a.outcome.as_str() {
        "delivered" => "delivered",
        "retry" => "failed, worth another attempt",
        "dead" => "failed, and was the last",
        "paused" => "failed in a way that paused the sink",
        "stalled" => "was accepted and never appeared: the sink is stalled",
        other => return human::line(&format!("attempt {} after {took}: {other}{why}", a.attempt)),
    };
    format!("attempt {} {outcome}, after {took}{why}", a.attempt)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::api::testing::view;

    fn line(at: &str, attempt: u32, outcome: &str) -> Attempt {
        Attempt { at: at.into(), attempt, outcome: outcome.into(), status: None, error: None, duration_ms: 7 }
    }

    #[test]
    fn a_redrive_begins_the_count_of_attempts_anew() {
        let mut episode = Episode::from(view());
        episode.sinks.remove("log");
        let day = |n: u32| format!("2026-01-0{n}T00:00:00.000Z");
        let lines = [(1, "retry"), (4, "dead"), (0, "redriven"), (1, "delivered"), (0, "replayed"), (1, "paused")];
        let history = (2..).zip(lines).map(|(n, (attempt, outcome))| line(&day(n), attempt, outcome)).collect();
        episode.sinks.get_mut("graphiti").unwrap().history = history;
        let mut text = String::new();
        story(&episode, &mut text, Paint(false));
        assert_eq!(
            text,
            "  2026-01-01T00:00:00.000Z  agent     captured: the request arrived
  2026-01-01T00:00:01.250Z  agent     the response was complete, 1.2 s later
  2026-01-02T00:00:00.000Z  graphiti  attempt 1 failed, worth another attempt, after 7 ms
  2026-01-03T00:00:00.000Z  graphiti  … 2 attempts not kept
  2026-01-03T00:00:00.000Z  graphiti  attempt 4 failed, and was the last, after 7 ms
  2026-01-04T00:00:00.000Z  graphiti  put back by an operator, at its original place; what its lane has delivered meanwhile stays delivered
  2026-01-05T00:00:00.000Z  graphiti  attempt 1 delivered, after 7 ms
  2026-01-06T00:00:00.000Z  graphiti  put into its lane by a replay, at its original place
  2026-01-07T00:00:00.000Z  graphiti  attempt 1 failed in a way that paused the sink, after 7 ms
"
        );
    }
}
