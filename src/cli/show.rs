//! `show`: the story of one episode.

use std::fmt::Write;
use std::time::Duration;

use super::args;
use super::failure::Failure;
use super::human::{self, count, duration, plural};
use super::output::{Output, Paint, Tone};
use super::source::Source;
use super::story;
use crate::admin::api::{Episode, SinkReport, Standing, state_name};
use crate::clock;
use crate::queue::State;

/// Characters of a message that are shown.
const SHOWN: usize = 600;

pub(super) async fn run(args: &args::Show, source: &Source, out: &mut Output) -> Result<(), Failure> {
    let Some(episode) = source.episode(args.id).await? else {
        return Err(Failure::Failed(format!(
            "there is no episode {}; delivered ones are kept for queue.keep_delivered, dead letters for queue.keep_dead",
            args.id
        )));
    };
    if args.json {
        return out.json(&episode);
    }
    let sinks = source.status().await?.sinks;
    out.write(&story(&episode, &sinks, clock::now_ms(), out.paint))
}

/// Writing to a `String` can't fail, hence the `let _ =`.
fn story(e: &Episode, sinks: &[SinkReport], now: u64, paint: Paint) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "{}  (number {} in the order of capture)\n", paint.paint(Tone::Heading, &e.id.to_string()), e.seq);
    let facts = [
        ("session", Some(e.session.as_str())),
        ("group", e.group.as_deref()),
        ("user", e.user.as_deref()),
        ("agent", e.agent.as_deref()),
        ("trace", e.request.traceparent.as_deref()),
    ];
    let request = format!("{} {} → {}", e.request.method, e.request.path, e.request.status);
    let metadata = if e.metadata.is_empty() { None } else { serde_json::to_string(&e.metadata).ok() };
    let facts = facts.into_iter().filter_map(|(name, value)| Some((name, value?.to_owned())));
    let route = format!("{}/{}", e.proxy, e.route);
    for (name, value) in
        facts.chain([("request", request), ("route", route)]).chain(metadata.map(|metadata| ("metadata", metadata)))
    {
        let _ = writeln!(out, "  {name:<9} {}", human::line(&value));
    }
    for message in &e.messages {
        out.push('\n');
        said(&message.role, &message.content, &mut out, paint);
    }
    let _ = writeln!(out, "\n{}", paint.paint(Tone::Heading, "what happened"));
    story::story(e, &mut out, paint);
    let _ = writeln!(out, "\n{}", paint.paint(Tone::Heading, "now"));
    let width = e.sinks.keys().map(|name| name.chars().count()).max().unwrap_or(0);
    for (name, standing) in &e.sinks {
        let sink = sinks.iter().find(|s| s.name == *name);
        let state = state_name(standing.state).replace('_', " ");
        let (state, whereto) = (paint.paint(tone(standing), &state), whereto(standing, sink, now));
        let _ = writeln!(out, "  {name:<width$}  {state}: {whereto}");
    }
    out
}

fn said(role: &str, content: &str, out: &mut String, paint: Paint) {
    let _ = writeln!(out, "{}", paint.paint(Tone::Heading, &human::line(role)));
    for line in human::lines(&human::shorten(content, SHOWN)) {
        let _ = writeln!(out, "  {line}");
    }
    let length = content.chars().count();
    if length > SHOWN {
        let note = format!("({} characters in all; --json shows them)", count(u64::try_from(length).unwrap_or(u64::MAX)));
        let _ = writeln!(out, "  {}", paint.paint(Tone::Faint, &note));
    }
}

fn tone(standing: &Standing) -> Tone {
    match standing.state {
        State::Delivered => Tone::Good,
        State::Dead => Tone::Bad,
        State::Pending if standing.attempts > 0 => Tone::Warning,
        _ => Tone::Heading,
    }
}

/// Where it ended, or why it waits.
fn whereto(s: &Standing, sink: Option<&SinkReport>, now: u64) -> String {
    match s.state {
        State::Delivered => match &s.delivered_at {
            Some(at) => format!("confirmed at {at}: it is there"),
            None => "confirmed: it is there".to_owned(),
        },
        State::Dead => {
            let reason = match s.reason.as_deref() {
                Some("rejected") => "the sink rejected it for good".to_owned(),
                Some("max_attempts") => {
                    format!("{} were all that retry.max_attempts allows", plural(u64::from(s.attempts), "attempt"))
                }
                Some("max_age") => "it grew older than retry.max_age".to_owned(),
                Some(other) => human::line(other),
                None => "the sink gave up on it".to_owned(),
            };
            let again = s.deaths.as_ref().filter(|deaths| deaths.count > 1).map_or_else(String::new, |deaths| {
                format!(" (it died {} times, first at {})", count(u64::from(deaths.count)), human::line(&deaths.first_at))
            });
            format!("{reason}{again}; `offramp dead redrive` puts it back, `offramp dead purge` removes it")
        }
        State::Purged => "an operator removed it".to_owned(),
        State::Expired => "a dead letter that outlived queue.keep_dead".to_owned(),
        State::InFlight => format!("attempt {} is under way", s.attempts),
        State::Pending => waits(s, sink, now),
    }
}

fn waits(s: &Standing, sink: Option<&SinkReport>, now: u64) -> String {
    if let Some(sink) = sink.filter(|sink| sink.state != "running") {
        let why = sink.reason.as_deref().map_or_else(String::new, |reason| format!(" ({})", human::line(reason)));
        return format!("the sink is {}{why}", sink.state);
    }
    if let Some(dead) = s.parked_by {
        return format!("its lane is parked for the dead letter {dead}, until that is redriven, purged or expires");
    }
    let due = s.next_attempt_at.as_deref().and_then(|at| Some((at, clock::parse_rfc3339(at)?.checked_sub(now)?)));
    match due {
        Some((at, left)) => format!("attempt {} in {}, at {at}", s.attempts + 1, duration(Duration::from_millis(left))),
        None if s.attempts > 0 => format!("attempt {} is due, as soon as a worker is free", s.attempts + 1),
        None => "waiting for its turn: earlier episodes of its lane come first, and a worker must be free".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::api::testing::{sinks, stats, view};
    use crate::admin::api::{self, Status};

    fn reports() -> Vec<SinkReport> {
        Status::assemble(&stats(), &sinks(), vec![], Duration::ZERO, 0).sinks
    }

    #[test]
    fn show_tells_the_story_in_order() {
        let story = story(&view().into(), &reports(), 1_767_225_606_000, Paint(false));
        assert_eq!(
            story,
            r#"01980000-0000-7000-8000-000000000001  (number 17 in the order of capture)

  session   s1
  user      u1
  agent     simple
  request   POST /api/v1/agent/simple/run → 200
  route     agent/run
  metadata  {"channel":"web"}

user
  hi

assistant
  hello

what happened
  2026-01-01T00:00:00.000Z  agent     captured: the request arrived
  2026-01-01T00:00:01.250Z  agent     the response was complete, 1.2 s later
  2026-01-01T00:00:02.000Z  log       attempt 1 failed, and was the last, after 4 ms: disk on fire
  2026-01-01T00:00:05.000Z  graphiti  attempt 1 failed, worth another attempt, after 3.0 s: HTTP 500: boom

now
  graphiti  pending: attempt 2 in 4.0 s, at 2026-01-01T00:00:10.000Z
  log       dead: the sink rejected it for good (it died 2 times, first at 2026-01-01T00:00:00.500Z); `offramp dead redrive` puts it back, `offramp dead purge` removes it
"#
        );
    }

    #[test]
    fn show_says_why_an_episode_waits() {
        let standing = |attempts, next: Option<&str>| Standing {
            state: State::Pending,
            attempts,
            next_attempt_at: next.map(str::to_owned),
            delivered_at: None,
            last_error: None,
            reason: None,
            parked_by: None,
            deaths: None,
            history: vec![],
        };
        let reports = reports();
        let (running, paused) = (Some(&reports[0]), Some(&reports[1]));
        let now = 1_767_225_606_000;
        assert!(waits(&standing(0, None), running, now).starts_with("waiting for its turn"));
        assert!(waits(&standing(1, Some("2026-01-01T00:00:01.000Z")), running, now).starts_with("attempt 2 is due"));
        assert_eq!(
            waits(&standing(1, Some("2026-01-01T00:01:00.000Z")), paused, now),
            "the sink is paused (paused by an operator)"
        );
        let parked = Standing { parked_by: Some(uuid::Uuid::nil()), ..standing(0, None) };
        assert!(waits(&parked, running, now).starts_with("its lane is parked for the dead letter 00000000-"));
    }

    #[test]
    fn long_messages_are_cut_with_a_note_and_gaps_in_the_history_are_named() {
        let mut episode = api::Episode::from(view());
        episode.messages[0].content = format!("{}\x1b[2J", "x".repeat(1_500));
        episode.messages[1].content = "two\nlines\x07".into();
        let late = api::Attempt { attempt: 9, ..episode.sinks["graphiti"].history[0].clone() };
        if let Some(standing) = episode.sinks.get_mut("graphiti") {
            standing.history.push(late);
        }
        let story = story(&episode, &[], 0, Paint(false));
        assert!(story.contains("x…\n  (1,504 characters in all; --json shows them)\n"));
        assert!(story.contains("  two\n  lines\u{fffd}\n"));
        assert!(story.contains("  … 7 attempts not kept\n"));
        assert!(!story.contains('\x1b'));
    }
}
